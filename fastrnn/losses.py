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
from fastrnn._engine.pool import POOL
from fastrnn._validation import Array, as_array, check_cast, integer, shape_error

__all__ = ["mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, ignore_index: int = -100, weights: ArrayLike | None = None
) -> tuple[float, Array]:
    """The mean of -log(softmax(logits)[target]) and its gradient, as torch.nn.functional.cross_entropy.

    Parameters
    ----------
    logits : array_like, (..., C)
        A score for each of C classes, float32 or float64; the classes are the last axis.
    targets : array_like of int, (...)
        The class of each row, 0 to C - 1, or `ignore_index`.
    ignore_index : int, default -100
        The target of rows that do not count, such as padding.
    weights : array_like, (...), optional
        The weight of each row, at least 0. Default: 1. Rows of weight 0 do not count, and may have any numbers.

    Returns
    -------
    loss : float
        The mean over the rows that count, weighted: sum(weight * loss of the row) / sum(weight). NaN if no row counts
        or their weights are all 0.
    d_logits : ndarray, (..., C)
        The gradient of `loss`: weight * (softmax(logits) - one_hot(target)) / sum(weight); zeros in rows that do not
        count.

    Raises
    ------
    TypeError
        If `logits` has no dtype float32 or float64, `targets` has no integers, or `weights` has no real numbers.
    ValueError
        If the shapes do not fit, a target is out of range, a weight is negative or not finite, or `ignore_index` is no
        signed integer of 64 bits.

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
    if not -(2**63) <= ignored < 2**63:
        raise ValueError(f"ignore_index: expected a signed integer of 64 bits, got {ignored}")
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"logits: expected (..., C) with C of at least 1, got {array.shape}")
    C = array.shape[-1]
    if index.dtype.kind not in "iu" and index.size:
        raise TypeError(f"targets: expected integers, got {index.dtype}")
    if index.shape != array.shape[:-1]:
        raise shape_error("targets", array.shape[:-1], (None,) * (array.ndim - 1), index.shape, _of(array, "logits"))
    rows, number = _classes(index, C, ignored)
    if weights is not None:
        weighting = np.where(rows.reshape(index.shape) < 0, 0.0, _weights(weights, index.shape, array, "logits"))
        rows[weighting.reshape(-1) == 0] = -1
        number = float(weighting.sum())
    d_logits, losses = POOL.empty(array.shape, array.dtype), np.empty(rows.size)
    total = _core.softmax_cross_entropy(
        array.reshape(-1, C),
        rows,
        _inverse(number),
        d_logits.reshape(-1, C),
        losses,
        _threads.most_threads(),
        _config.instruction_set(),
    )
    if weights is not None:
        d_logits *= weighting[..., None].astype(array.dtype)
        total = float(np.sum(weighting.reshape(-1) * losses))
    return total / number if number else math.nan, d_logits


def mean_squared_error(
    prediction: ArrayLike, target: ArrayLike, *, weights: ArrayLike | None = None
) -> tuple[float, Array]:
    """The mean of (prediction - target)^2 and its gradient, as torch.nn.functional.mse_loss.

    Parameters
    ----------
    prediction : array_like
        float32 or float64, of any shape.
    target : array_like
        Of the shape of `prediction`; cast to its dtype by NumPy's "same_kind" rule.
    weights : array_like, shape of `prediction` without its last axis, optional
        The weight of each row, at least 0; of each number, if `prediction` has one axis. Default: 1. Rows of weight 0
        do not count, such as padding, and may have any numbers, NaN included.

    Returns
    -------
    loss : float
        The mean over all numbers, weighted: sum(weight * (prediction - target)^2) / sum(weight). NaN if there are no
        numbers or the weights are all 0.
    d_prediction : ndarray, shape of `prediction`
        The gradient of `loss`: 2 * weight * (prediction - target) / sum(weight); zeros in rows of weight 0.

    Raises
    ------
    TypeError
        If `prediction` has no dtype float32 or float64, `target` cannot be cast, or `weights` has no real numbers.
    ValueError
        If the shapes do not fit, or a weight is negative or not finite.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> loss, d_prediction = fastrnn.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> loss, d_prediction.tolist()
    (2.0, [0.0, -2.0])
    """
    array = _floats("prediction", prediction)
    given = as_array("target", target)
    check_cast("target", given, array.dtype)
    if given.shape != array.shape:
        raise shape_error("target", array.shape, (None,) * array.ndim, given.shape, _of(array, "prediction"))
    given = _core.native(given, array.dtype)
    if weights is None:
        return _squared_error(array, given, array.size)
    # weight * error^2 is the squared error of sqrt(weight) * prediction and sqrt(weight) * target.
    shape = array.shape if array.ndim < 2 else array.shape[:-1]
    weighting = _weights(weights, shape, array, "prediction").reshape(shape + (1,) * (array.ndim - len(shape)))
    roots, counts = np.sqrt(weighting).astype(array.dtype), weighting != 0
    number = float(np.broadcast_to(weighting, array.shape).sum())
    # Where the weight is 0 both are 0, also where a product of them and 0 would be NaN.
    p, t = [np.multiply(roots, one, where=counts, out=np.zeros(one.shape, one.dtype)) for one in (array, given)]
    loss, d_prediction = _squared_error(p, t, number)
    return loss, roots * d_prediction


def _squared_error(prediction, target, number):
    """The sum of squared differences over `number`, NaN if that is 0, and its gradient."""
    d_prediction = POOL.empty(prediction.shape, prediction.dtype)
    total = _core.squared_error(
        prediction,
        target,
        _inverse(number),
        d_prediction,
        _threads.most_threads(),
        _config.instruction_set(),
    )
    return total / number if number else math.nan, d_prediction


def _classes(targets: Array, C: int, ignored: int) -> tuple[Array, float]:
    """The classes of the rows, (N,) of int64 with -1 for the ignored ones, and the number of the others."""
    rows = targets.astype(np.int64).reshape(-1)
    if targets.dtype.kind == "u" and (rows < 0).any():  # larger than any int64
        wrong = int(np.argmax(rows < 0))
    else:
        number, wrong = _core.mark_ignored(rows, C, ignored)
    if wrong >= 0:
        raise ValueError(f"targets: expected 0 to {C - 1}, or ignore_index={ignored}, got {targets.reshape(-1)[wrong]}")
    return rows, number


def _inverse(number):
    return 1 / number if number else 0.0


def _weights(weights, shape, array, name):
    """The argument `weights` as an array of float64 of this shape, times a power of 4 that makes the largest 1 to 4.

    The losses are means, which such a factor does not change, not in a single bit. Without it, sums of large weights
    and the inverses of small ones might be infinite.
    """
    given = as_array("weights", weights)
    if given.dtype.kind not in "biuf":
        raise TypeError(f"weights: expected real numbers, got {given.dtype}")
    if given.shape != shape:
        raise shape_error("weights", shape, (None,) * len(shape), given.shape, _of(array, name))
    if not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError("weights: expected finite numbers of at least 0")
    array = given.astype(np.float64)
    return np.ldexp(array, -2 * ((np.frexp(array.max(initial=0))[1] - 1) // 2))


def _of(array, name):
    return f" with {name} {array.shape}"


def _floats(name: str, value: Any) -> Array:
    """The argument as an array of float32 or float64 that a kernel can read."""
    array = as_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return _core.native(array, array.dtype.newbyteorder("="))
