"""What is checked and converted at the Python boundary; below it every array is trusted.

Every error starts with the argument's name. Nothing is formatted unless an error occurs.
"""

from __future__ import annotations

import numbers
import operator
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    State = tuple[ArrayLike | None, ArrayLike | None]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


# Arrays


def shape_error(name, symbols, sizes, given):
    """`x: expected (T, B, I=64), got (25, 16, 32)`; of a size of None, only the symbol is shown."""
    axes = [str(s) if n is None else f"{s}={n}" for s, n in zip(symbols, sizes, strict=True)]
    expected = ", ".join(axes) + ("," if len(axes) == 1 else "")
    return ValueError(f"{name}: expected ({expected}), got {given}")


def as_array(name, value, dtype=None):
    """The value as a plain array, still in its own layout and memory.

    With a dtype, it is also checked that NumPy's "same_kind" rule allows the cast to it.
    """
    if type(value) is np.ndarray:
        array = value
    else:
        # A torch tensor that requires grad hands over its values only when detached.
        if getattr(value, "requires_grad", False) is True:
            value = value.detach()
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name}: not an array: {error}") from error
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{name}: not an array: {error}") from error
    if dtype is None or array.dtype is dtype or np.can_cast(array.dtype, dtype, "same_kind"):
        return array
    raise TypeError(
        f"{name}: cannot be cast from {array.dtype} to {dtype} by NumPy's 'same_kind' rule"
    )


def shaped_array(name, value, symbols, sizes, dtype):
    """as_array, of exactly these sizes; None stays None."""
    if value is None:
        return None
    array = as_array(name, value, dtype)
    if array.shape != sizes:
        raise shape_error(name, symbols, sizes, array.shape)
    return array


def native(array, dtype):
    """The array itself if a kernel can read it as it is, else a private copy that it can read."""
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.aligned:
        return array
    return array.astype(dtype, order="C", casting="same_kind")


def native_or_none(array, dtype):
    return None if array is None else native(array, dtype)


def initial_state(array, sizes, dtype, private):
    """Zeros for None; with `private`, memory that the caller does not share."""
    if array is None:
        return np.zeros(sizes, dtype)
    if private:
        return array.astype(dtype, order="C", casting="same_kind")
    return native(array, dtype)


def pair(name, value, members):
    """The two members of a tuple or list; None stands for (None, None)."""
    if value is None:
        return None, None
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple {members}, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected a tuple {members}, got {len(value)} items")
    return value


def check_bytes(name, shape, width, itemsize):
    """Refuses a T and B with which an array (T, B, width) could not be addressed."""
    T, B = shape
    # NumPy, too, counts an empty axis as one.
    if (T or 1) * (B or 1) * width * itemsize > sys.maxsize:
        raise ValueError(
            f"{name}: too large: {T} * {B} steps and sequences of {width} numbers "
            f"of {itemsize} bytes are more than memory can address"
        )


# Constructor arguments


def size(name, value, minimum=1):
    """An integer of at least `minimum`; a bool is not one."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {number}")
    return number


def flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def probability(name, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)


def float_dtype(name, value):
    """float32 or float64, in native byte order."""
    # Not np.dtype(None), nor a comparison of a dtype with None: both take None for float64.
    if value is not None:
        try:
            dtype = np.dtype(value).newbyteorder("=")
        except TypeError:
            pass
        else:
            if dtype == FLOAT32:
                return FLOAT32
            if dtype == FLOAT64:
                return FLOAT64
    raise TypeError(f"{name}: expected float32 or float64, got {value!r}")


# The arguments of functional.lstm and reference.lstm


def lstm_arguments(x, state, weight_ih, weight_hh, bias_ih, bias_hh):
    """Checks all of them before any is converted.

    Returns
    -------
    x, h_0, c_0 : ndarray
        Castable to the weights' dtype but not yet cast, so that it shows whether a cast copied;
        h_0 and c_0 may be None.
    weights : tuple
        weight_ih, weight_hh, bias_ih, bias_hh, native; a bias may be None.
    """
    weight_ih = as_array("weight_ih", weight_ih)
    dtype = float_dtype("weight_ih", weight_ih.dtype)
    if weight_ih.ndim != 2 or weight_ih.shape[0] % 4 or not weight_ih.shape[0]:
        raise shape_error("weight_ih", ("4*H", "I"), (None, None), weight_ih.shape)
    rows, I = weight_ih.shape
    H = rows // 4
    weight_hh = shaped_array("weight_hh", weight_hh, ("4*H", "H"), (rows, H), dtype)
    if weight_hh is None:
        raise TypeError("weight_hh: expected an array, got None")
    bias_ih = shaped_array("bias_ih", bias_ih, ("4*H",), (rows,), dtype)
    bias_hh = shaped_array("bias_hh", bias_hh, ("4*H",), (rows,), dtype)

    x = as_array("x", x, dtype)
    if x.ndim != 3 or x.shape[2] != I:
        raise shape_error("x", ("T", "B", "I"), (None, None, I), x.shape)
    T, B, _ = x.shape
    check_bytes("x", (T, B), max(rows, I), dtype.itemsize)

    h_0, c_0 = pair("state", state, "(h_0, c_0)")
    h_0 = shaped_array("state (h_0)", h_0, ("B", "H"), (B, H), dtype)
    c_0 = shaped_array("state (c_0)", c_0, ("B", "H"), (B, H), dtype)

    weights = (
        native(weight_ih, dtype),
        native(weight_hh, dtype),
        native_or_none(bias_ih, dtype),
        native_or_none(bias_hh, dtype),
    )
    return x, h_0, c_0, weights


def lstm_gradients(d_output, d_state_n, sizes, dtype):
    """d_output (T, B, H), d_h_n and d_c_n (B, H), each native or None; `sizes` is (T, B, H)."""
    d_output = shaped_array("d_output", d_output, ("T", "B", "H"), sizes, dtype)
    d_h_n, d_c_n = pair("d_state_n", d_state_n, "(d_h_n, d_c_n)")
    d_h_n = shaped_array("d_state_n (d_h_n)", d_h_n, ("B", "H"), sizes[1:], dtype)
    d_c_n = shaped_array("d_state_n (d_c_n)", d_c_n, ("B", "H"), sizes[1:], dtype)
    return (
        native_or_none(d_output, dtype),
        native_or_none(d_h_n, dtype),
        native_or_none(d_c_n, dtype),
    )


def check_tape(tape, expected):
    if type(tape) is not expected:
        kind = type(tape)
        raise TypeError(
            f"tape: expected a {expected.__module__}.{expected.__qualname__}, "
            f"got a {kind.__module__}.{kind.__qualname__}"
        )
