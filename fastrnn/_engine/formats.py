"""The formats of weights with fewer bits: how numbers are rounded to them, and back.

Every rounding is to the nearest number, ties to even, in float32 arithmetic. `fastrnn.reference` rounds the operands of
products by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastrnn._validation import Array

# The numbers of a block of rows, which stays in the cache while it is rounded.
BLOCK = 1 << 15

LARGEST_INT8 = np.float32(127)
# A row of int8 is zeros if all its numbers are smaller: neither a scale nor its product with a factor is denormal.
SMALLEST_ROW = np.float32(2.0**-100)
# The largest magnitude in an operand that is bounded by 1, with the rounding of its activation.
LARGEST_BOUNDED = np.float32(1.001)
# No sum of so many products of two overflows an int32: as FASTRNN_MOST_INT8 of csrc/fastrnn.h.
MOST_INT8_COLUMNS = 130_000


class Format(NamedTuple):
    """A format of weights.

    ``round(weight)`` returns the values, and the scale of each row or None. It raises a ValueError, whose message lacks
    the name of the weight, for numbers that the format cannot express. ``widen(values, scales)`` returns float32.
    """

    name: str
    dtype: np.dtype[Any]  # of the values, in NumPy and for the kernels
    has_scales: bool
    round: Callable[[Array], tuple[Array, Array | None]]
    widen: Callable[[Array, Array | None], Array]


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


def _round_int8(weight):
    if weight.shape[1] > MOST_INT8_COLUMNS:
        raise ValueError(f"has {weight.shape[1]} columns, and int8 allows {MOST_INT8_COLUMNS}")
    values, scales = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for rows in _blocks(weight):
        scales[rows], factors = int8_scales(weight[rows])
        if np.isnan(scales[rows]).any():
            raise ValueError("has a number that is not finite, which int8 cannot express")
        integers = weight[rows] * factors[:, None]
        values[rows] = np.rint(integers, out=integers)
    return values, scales


def _widen_int8(values, scales):
    return values * scales[:, None]


# float16 and bfloat16


def bfloat16_of(a):
    """The bit patterns, uint16, of float32 numbers rounded to bfloat16; a NaN stays one."""
    bits = a.view(np.uint32)
    rounded = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(a), np.uint16(0x7FC0), rounded)


def widened(bits):
    """The float32 numbers of bit patterns of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round_float16(weight):
    with np.errstate(over="ignore", under="ignore"):
        return _rounded(weight, np.dtype(np.float16), lambda block: block.astype(np.float16), 0x7C00, "float16"), None


def _round_bfloat16(weight):
    return _rounded(weight, np.dtype(np.uint16), bfloat16_of, 0x7F80, "bfloat16"), None


def _rounded(weight, dtype, rounding, infinity, name):
    """A weight rounded block by block; `infinity` is the bit pattern of the infinity of the format."""
    values = np.empty(weight.shape, dtype)
    for rows in _blocks(weight):
        values[rows] = rounding(weight[rows])
        magnitudes = values[rows].view(np.uint16) & 0x7FFF
        if magnitudes.max(initial=0) >= infinity and (np.isfinite(weight[rows]) & (magnitudes == infinity)).any():
            raise ValueError(f"has a number that is too large for {name}")
    return values


def _blocks(weight):
    """Slices of the rows of a weight."""
    every = max(1, BLOCK // weight.shape[1])
    return (slice(first, first + every) for first in range(0, len(weight), every))


FORMATS = {
    form.name: form
    for form in (
        Format("int8", np.dtype(np.int8), True, _round_int8, _widen_int8),
        Format("float16", np.dtype(np.float16), False, _round_float16, lambda values, _: values.astype(np.float32)),
        Format("bfloat16", np.dtype(np.uint16), False, _round_bfloat16, lambda values, _: widened(values)),
    )
}
