"""Losses and their gradients in one pass each, on the threads of the layers.

The losses are added in double precision, in an order that the shape decides, so that they have the same bits for any
number of threads and any instruction set but `generic`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _config, _core, _threads
from fastrnn._validation import Array, as_array, integer, shape_error

__all__ = ["mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, ignore_index: int = -100) -> tuple[float, Array]:
    """The mean of -log(softmax(logits)[target]) and its gradient, as torch.nn.functional.cross_entropy.

    Parameters
    ----------
    logits : array_like, (..., C)
        A score for each of C classes, float32 or float64; the classes are the last axis.
    targets : array_like of int, (...)
        The class of each row, 0 to C - 1, or `ignore_index`.
    ignore_index : int, default -100
        The target of rows that do not count, such as padding.

    Returns
    -------
    loss : float
        The mean over the rows that count; NaN if there are none.
    d_logits : ndarray, (..., C)
        The gradient of `loss`: (softmax(logits) - one_hot(target)) / rows that count; zeros in the others.

    Raises
    ------
    TypeError
        If `logits` has no dtype float32 or float64, or `targets` has no integers.
    ValueError
        If the shapes do not fit, or a target is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> loss, d_logits = fastrnn.softmax_cross_entropy(np.zeros((2, 4)), [3, 0])
    >>> round(loss, 4), d_logits[0].tolist()
    (1.3863, [0.125, 0.125, 0.125, -0.375])
    """
    array = _floats("logits", logits)
    index = as_array("targets", targets)
    ignored = integer("ignore_index", ignore_index)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"logits: expected (..., C) with C of at least 1, got {array.shape}")
    C = array.shape[-1]
    if index.dtype.kind not in "iu" and index.size:
        raise TypeError(f"targets: expected integers, got {index.dtype}")
    if index.shape != array.shape[:-1]:
        raise shape_error("targets", array.shape[:-1], (None,) * (array.ndim - 1), index.shape, _of(array, "logits"))
    counts = index != ignored
    outside = counts & ((index < 0) | (index >= C))
    if outside.any():
        wrong = index[outside].flat[0]
        raise ValueError(f"targets: expected 0 to {C - 1}, or ignore_index={ignored}, got {wrong}")
    number = int(np.count_nonzero(counts))
    rows = np.where(counts, index, -1).astype(np.int64).reshape(-1)
    d_logits, losses = np.empty(array.shape, array.dtype), np.empty(rows.size)
    total = _core.softmax_cross_entropy(
        array.reshape(-1, C),
        rows,
        1 / number if number else 0.0,
        d_logits.reshape(-1, C),
        losses,
        _threads.most_threads(),
        _config.instruction_set(),
    )
    return total / number if number else math.nan, d_logits


def mean_squared_error(prediction: ArrayLike, target: ArrayLike) -> tuple[float, Array]:
    """The mean of (prediction - target)^2 and its gradient, as torch.nn.functional.mse_loss.

    Parameters
    ----------
    prediction : array_like
        float32 or float64, of any shape.
    target : array_like
        Of the shape of `prediction`; cast to its dtype by NumPy's "same_kind" rule.

    Returns
    -------
    loss : float
        The mean over all numbers; NaN if there are none.
    d_prediction : ndarray, shape of `prediction`
        The gradient of `loss`: 2 * (prediction - target) / numbers.

    Raises
    ------
    TypeError
        If `prediction` has no dtype float32 or float64, or `target` cannot be cast.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> loss, d_prediction = fastrnn.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> loss, d_prediction.tolist()
    (2.0, [0.0, -2.0])
    """
    array = _floats("prediction", prediction)
    given = as_array("target", target)
    if not np.can_cast(given.dtype, array.dtype, "same_kind"):
        raise TypeError(f"target: cannot be cast from {given.dtype} to {array.dtype} by NumPy's 'same_kind' rule")
    if given.shape != array.shape:
        raise shape_error("target", array.shape, (None,) * array.ndim, given.shape, _of(array, "prediction"))
    d_prediction = np.empty(array.shape, array.dtype)
    total = _core.squared_error(
        array,
        _core.native(given, array.dtype),
        1 / array.size if array.size else 0.0,
        d_prediction,
        _threads.most_threads(),
        _config.instruction_set(),
    )
    return total / array.size if array.size else math.nan, d_prediction


def _of(array, name):
    return f" with {name} {array.shape}"


def _floats(name: str, value: Any) -> Array:
    """The argument as an array of float32 or float64 that a kernel can read."""
    array = as_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return _core.native(array, array.dtype.newbyteorder("="))
