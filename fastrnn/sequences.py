"""Sequences of unequal lengths as one padded array with their lengths, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn._validation import (
    Array,
    as_array,
    as_lengths,
    as_x,
    check_bytes,
    check_cast,
    checked_lengths,
    flag,
    names_arguments,
)

__all__ = ["pad", "unpad"]


def pad(
    sequences: Iterable[ArrayLike],
    batch_first: bool = False,
    dtype: DTypeLike | None = None,
    padding_value: float = 0,
) -> tuple[Array, NDArray[np.int64]]:
    """Sequences of unequal lengths as one padded array, and their lengths.

    A layer takes the result: ``layer(x, lengths=lengths)``.

    Parameters
    ----------
    sequences : iterable of array_like
        B sequences, the b-th of shape (T_b, I), (T_b,) or (T_b, ...); all have the same axes after the first. T_b may
        be 0. Arrays, CPU tensors of PyTorch, nested lists, and Awkward Arrays of type ``B * var * I * number``. An
        empty list is a sequence without steps, of the others' axes.
    batch_first : bool, default False
        Whether `x` is (B, T, ...) rather than (T, B, ...), with T the largest length.
    dtype : dtype_like, optional
        The dtype of `x`; the sequences are cast by NumPy's "same_kind" rule. By default the smallest dtype to which all
        sequences can be cast safely, so that integers stay integers.
    padding_value : number, default 0
        The value of `x` beyond each length, such as -100 for the targets of `softmax_cross_entropy`, which ignores it.
        `x` of integers or booleans has to hold it exactly.

    Returns
    -------
    x : ndarray
        (T, B, I), (T, B) or (T, B, ...), or with the first two axes swapped; C-contiguous, of its own memory.
    lengths : ndarray of int64, (B,)

    Raises
    ------
    TypeError
        If a sequence has no numbers, cannot be cast to `dtype`, or requires grad. The message names its index. If
        `padding_value` is not a number.
    ValueError
        If there is no sequence, which leaves I unknown, or one has no axis of steps, or other axes than the first one.
        If the dtype of `x` cannot hold `padding_value`.

    See Also
    --------
    unpad : the way back.

    Examples
    --------
    >>> x, lengths = fastrnn.pad([np.ones((2, 3)), np.ones((4, 3))])
    >>> x.shape, lengths
    ((4, 2, 3), array([2, 4]))
    >>> fastrnn.pad([[1, 2, 3], [4]], batch_first=True)[0]
    array([[1, 2, 3],
           [4, 0, 0]])
    >>> fastrnn.pad([[1, 2, 3], [4]], batch_first=True, padding_value=-100)[0]
    array([[   1,    2,    3],
           [   4, -100, -100]])
    """
    batch_first = flag("batch_first", batch_first)
    wanted = None if dtype is None else _number_dtype("dtype", dtype)
    if hasattr(sequences, "batch_sizes"):
        raise TypeError("sequences: a PackedSequence; unpack it with torch.nn.utils.rnn.unpack_sequence")
    try:
        given = list(sequences)
    except TypeError:
        raise TypeError(f"sequences: expected arrays, got {type(sequences).__name__}") from None
    if not given:
        raise ValueError("sequences: is empty, so that the size of a step is unknown")
    arrays = [_sequence(f"sequences[{b}]", item) for b, item in enumerate(given)]
    # An empty list or Awkward Array has neither a dtype nor the axes of a step.
    known = [b for b, item in enumerate(given) if len(arrays[b]) or hasattr(item, "dtype")]
    step = arrays[known[0]].shape[1:] if known else ()
    for b in known:
        if arrays[b].shape[1:] != step:
            expected = ", ".join(map(str, ("T", *step))) + ("" if step else ",")
            raise ValueError(f"sequences[{b}]: expected ({expected}) like sequences[{known[0]}], got {arrays[b].shape}")
    if wanted is None:
        wanted = np.result_type(*{arrays[b].dtype for b in known}) if known else np.dtype(np.float64)
    for b in known:
        check_cast(f"sequences[{b}]", arrays[b], wanted)
    padding = _padding("padding_value", padding_value, wanted)

    lengths = np.array([len(array) for array in arrays], np.int64)
    T, B = int(lengths.max()), len(arrays)
    check_bytes("sequences", (T, B), int(np.prod(step, dtype=object)), wanted.itemsize)
    shape = (B, T, *step) if batch_first else (T, B, *step)
    # Memory of zeros comes from the system without being written to.
    x = np.full(shape, padding, wanted) if any(padding.tobytes()) else np.zeros(shape, wanted)
    rows = x if batch_first else x.swapaxes(0, 1)
    for b in known:
        rows[b, : lengths[b]] = arrays[b]
    return x, lengths


@names_arguments
def unpad(x: ArrayLike, lengths: ArrayLike, batch_first: bool = False) -> list[Array]:
    """The sequences of a padded array, without the padding: the way back from `pad`.

    Parameters
    ----------
    x : array_like, (T, B, ...) or with `batch_first` (B, T, ...)
        Such as the output of a layer.
    lengths : array_like of int, (B,)
        From 0 to T.
    batch_first : bool, default False

    Returns
    -------
    sequences : list of ndarray
        B arrays (T_b, ...) of x's dtype. They are C-contiguous copies, so that x is not kept in memory.

    Raises
    ------
    TypeError
        If `lengths` are not integers.
    ValueError
        If `x` has less than two axes, or `lengths` do not fit it.

    Examples
    --------
    >>> x, lengths = fastrnn.pad([np.ones((2, 3)), np.ones((4, 3))])
    >>> [sequence.shape for sequence in fastrnn.unpad(x, lengths)]
    [(2, 3), (4, 3)]
    """
    batch_first = flag("batch_first", batch_first)
    array, given = as_x(x), as_lengths(lengths)
    if array.ndim < 2:
        raise ValueError(f"x: expected at least the axes of steps and of sequences, got {array.shape}")
    if given is None:
        raise TypeError("lengths: expected an array, got None")
    rows = array if batch_first else array.swapaxes(0, 1)
    checked = checked_lengths(given, rows.shape[1], rows.shape[0])
    return [np.array(rows[b, :length], order="C") for b, length in enumerate(checked)]


def _sequence(name: str, item: Any) -> Array:
    """One sequence as an array of numbers with an axis of steps."""
    array = as_array(name, item)
    if array.ndim == 0:
        raise ValueError(f"{name}: expected an array with an axis of steps, got a single {type(item).__name__}")
    _number_dtype(name, array.dtype)
    return array


def _padding(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """The value as a scalar of the dtype of x: exactly if it has integers or booleans, else rounded."""
    given = as_array(name, value)
    if given.ndim:
        raise TypeError(f"{name}: expected a number, got an array of shape {given.shape}")
    _number_dtype(name, given.dtype)
    if given.dtype.kind != "c" or dtype.kind == "c":
        with np.errstate(all="ignore"):
            padding = given.astype(dtype)[()]
        if padding == given or (dtype.kind in "fc" and (np.isfinite(padding) or not np.isfinite(given))):
            return padding
    raise ValueError(f"{name}: {dtype} cannot hold {value!r}")


def _number_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype of numbers or booleans, in native byte order."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a dtype of numbers, got {dtype!r}") from error
    if found.kind not in "biufc":
        raise TypeError(f"{name}: expected numbers, got {found}")
    return found
