"""The formats of weights with fewer bits: how weights are rounded to them and widened, and how operands are rounded.

Every rounding is to the nearest number, ties to even, in float32 arithmetic. The C library rounds weights;
`fastrnn.reference` rounds the operands of products by the functions of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fastrnn._core import NARROW_FORMATS, round_weight
from fastrnn._engine.spec import MATRICES
from fastrnn._threads import most_threads
from fastrnn._validation import Array

FormatName: TypeAlias = Literal["int8", "float16", "bfloat16", "float8"]

LARGEST_INT8 = np.float32(127)
# A row of int8 is zeros if all its numbers are smaller: neither a scale nor its product with a factor is denormal.
SMALLEST_ROW = np.float32(2.0**-100)
# The largest magnitude in an operand that is bounded by 1, with the rounding of its activation.
LARGEST_BOUNDED = np.float32(1.001)


class Format(NamedTuple):
    """A format of weights.

    ``widen(values, scales)`` returns the float32 numbers of rounded rows. ``round_operand(rows, is_bounded)`` returns
    the rows (B, K) of the other operand of a product as the kernels round them, float32, and their scales (B,) or None;
    it is None if they are not rounded.
    """

    name: str
    dtype: np.dtype[Any]  # of the values, in NumPy and for the kernels
    has_scales: bool
    rounds_projection: bool  # whether weight_hr has this format, too; else it is float32
    most_columns: int
    name_in_files: str  # of the dtype, in the safetensors format
    widen: Callable[[Array, Array | None], Array]
    round_operand: Callable[[Array, bool], tuple[Array, Array | None]] | None
    problem_of: Callable[[Array], str | None] = lambda values: None  # why no rounded weight has such values, or None
    largest: float = 1.0  # magnitude of the values, if there are scales

    def rounds(self, name: str) -> bool:
        """Whether the parameter of this name has the format; the others are float32."""
        return name.startswith(MATRICES) and (self.rounds_projection or not name.startswith("weight_hr"))

    def problem_with(self, name: str, array: Array) -> str | None:
        """The reason why no layer of this format has a parameter of this name with such values, or None."""
        if self.rounds(name):
            return self.problem_of(array)
        if name.startswith("scale_") and not ((array >= 0) & (array <= self.largest_scale)).all():
            return f"expected numbers from 0 to {self.largest_scale:.3g}"
        return None

    @property
    def largest_scale(self) -> np.float32:
        """The largest scale with which every number is finite."""
        return np.nextafter(np.finfo(np.float32).max / np.float32(self.largest), np.float32(0))

    def round(self, weight: Array) -> tuple[Array, Array | None]:
        """The values of a weight (rows, columns), float32 and contiguous, and the scales of its rows or None.

        Raises a ValueError, whose message lacks the name of the weight, for one that the format cannot express.
        """
        if weight.shape[1] > self.most_columns:
            raise ValueError(f"has {weight.shape[1]} columns, and {self.name} allows {self.most_columns}")
        values = np.empty(weight.shape, self.dtype)
        scales = np.empty(len(weight), np.float32) if self.has_scales else None
        round_weight(self.name, weight, values, scales, most_threads())
        return values, scales


# int8: a row is its scale times integers from -127 to 127


def int8_scales(rows, is_bounded=False):
    """The scale of each row, and the factor that turns its numbers into multiples of it.

    Parameters
    ----------
    rows : ndarray of float32, (..., K)
    is_bounded : bool
        Whether the rows are an operand that is bounded by 1: all rows that keep to that have the scale 1/127.

    Returns
    -------
    scales, factors : ndarray of float32, (...,)
        NaN and 0 for a row with a number that is not finite.
    """
    largest = np.maximum(rows.max(axis=-1, initial=0), -rows.min(axis=-1, initial=0))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scales, factors = largest / LARGEST_INT8, LARGEST_INT8 / largest
    if is_bounded:
        is_small, scale, factor = largest <= LARGEST_BOUNDED, 1 / LARGEST_INT8, LARGEST_INT8
    else:
        is_small, scale, factor = largest < SMALLEST_ROW, np.float32(0), np.float32(0)
    is_finite = np.isfinite(largest)
    scales = np.where(is_finite, np.where(is_small, scale, scales), np.float32(np.nan))
    return scales, np.where(is_finite, np.where(is_small, factor, factors), np.float32(0))


def int8_rows(rows, is_bounded=False):
    """The integers, as float32, and the scales of the rows (..., K) of an operand."""
    scales, factors = int8_scales(rows, is_bounded)
    with np.errstate(invalid="ignore"):
        integers = np.rint(rows * factors[..., None])
    return np.where(np.isfinite(scales)[..., None], integers, np.float32(0)), scales


def _widen_int8(values, scales):
    return values * scales[:, None]


def _problem_of_int8(values):
    return "expected numbers from -127 to 127, got -128" if values.min(initial=0) == -128 else None


# float16 and bfloat16


def bfloat16_of(a):
    """The bit patterns, uint16, of float32 numbers rounded to bfloat16; a NaN stays one."""
    bits = a.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    is_nan = np.isnan(a)
    if is_nan.any():
        rounded[is_nan] = 0x7FC0
    return rounded.astype(np.uint16)


def widened(bits):
    """The float32 numbers of bit patterns of bfloat16, uint16 of any byte order: their upper halves."""
    numbers = np.empty(bits.shape, np.float32)
    patterns = numbers.view(np.uint32)
    patterns[...] = bits
    np.left_shift(patterns, np.uint32(16), out=patterns)
    return numbers


def _bfloat16_rows(rows, is_bounded=False):
    return widened(bfloat16_of(rows)), None


# float8: E4M3 without infinities; a row is a power of two times such numbers


def _widen_float8(values, scales):
    halves = (values & np.uint16(0x80)) << 8 | (values & np.uint16(0x7F)) << 7  # of 1/256 of the numbers
    return halves.view(np.float16).astype(np.float32) * (256 * scales)[:, None]


def _problem_of_float8(values):
    return "expected finite numbers, got NaN" if (values & 0x7F == 0x7F).any() else None


def _format(name, *fields):
    """The format that the C library has under this name."""
    return Format(name, *NARROW_FORMATS[name], *fields)


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        _format("int8", "I8", _widen_int8, int8_rows, _problem_of_int8, 127),
        _format("float16", "F16", lambda values, _: values.astype(np.float32), None),
        _format("bfloat16", "BF16", lambda values, _: widened(values), _bfloat16_rows),
        _format("float8", "F8_E4M3", _widen_float8, None, _problem_of_float8, 448),
    )
}
