"""Masked steps in any place of a sequence, as Keras has them: holes, and padding on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import layers
from fastrnn._validation import Array, as_array, as_x, check_flags, flag, names_arguments, x_hint
from fastrnn.layers import InferenceLayer

__all__ = ["masked"]


@names_arguments
def masked(
    layer: InferenceLayer[Any, Any],
    x: ArrayLike,
    mask: ArrayLike,
    state: Any = None,
    *,
    zero_output_for_mask: bool = False,
) -> tuple[Array, Any]:
    """Run a layer over the steps that a mask selects, as Keras does with the mask of Masking or Embedding.

    At a step where `mask` is False, all layers of a stack keep their state and ignore x. Such a step repeats the output
    of the last valid step before it; in the reverse direction, of the next valid step after it. The output is zero if
    there is no such valid step.

    Parameters
    ----------
    layer : LSTM, another recurrent layer or Quantized
        The layer.
    x : array_like, (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
        The input, as for a call of the layer.
    mask : array_like of bool, (T, B), or (B, T) with `batch_first`, or (T,)
        True for the steps that count. Keras' ``Masking(mask_value)`` is ``(x != mask_value).any(axis=-1)``.
    state : optional
        The state before the first step, as for a call of the layer.
    zero_output_for_mask : bool, default False
        Whether the output of a masked step is zero instead, as with the argument of this name in Keras, and as always
        inside a Bidirectional of Keras that returns sequences.

    Returns
    -------
    output, state_n
        As from a call of the layer: `state_n` is the state after the last valid step, in the reverse direction after
        the first one.

    Raises
    ------
    TypeError
        If `layer` is not a layer, `mask` is not of bool, or a dtype cannot be cast.
    ValueError
        If a shape does not fit. The message starts with the argument's name.

    See Also
    --------
    from_keras

    Notes
    -----
    Each sequence's valid steps are moved to its front, and the layer runs over them with `lengths`. For padding at the
    end alone, `lengths` does the same without copying, with zeros as outputs. There is no backward pass: train with the
    sequences themselves and `lengths`.

    Before the first valid step Keras gives zeros, as here, with the backends of TensorFlow and torch and with
    `unroll=True`; with those of NumPy and JAX it gives the initial h, which is the same unless a `state` is given.

    Examples
    --------
    >>> layer = fastrnn.GRU(2, 3, batch_first=True, rng=0)
    >>> x = np.ones((1, 4, 2), np.float32)
    >>> output, h_n = fastrnn.masked(layer, x, np.array([[False, True, False, True]]))
    >>> bool((output[0, 0] == 0).all()), bool((output[0, 2] == output[0, 1]).all())
    (True, True)
    """
    if not isinstance(layer, InferenceLayer):
        raise TypeError(f"layer: expected one of {', '.join(layers.__all__)}, Quantized, got {type(layer).__name__}")
    return _masked(layer, as_x(x), as_array("mask", mask), state, zero_output_for_mask)


def _masked(layer, x, mask, state, zero_output_for_mask):
    zero_output_for_mask = flag("zero_output_for_mask", zero_output_for_mask)
    if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size:
        raise layer._x_error(x.shape, x_hint(x))
    symbols = ("T",) if x.ndim == 2 else ("B", "T") if layer.batch_first else ("T", "B")
    check_flags("mask", mask, symbols, x.shape[:-1])
    time = 1 if x.ndim == 3 and layer.batch_first else 0
    order = np.argsort(~mask, axis=time, kind="stable")
    x = np.take_along_axis(x, order[..., None], axis=time)
    if x.ndim == 2:
        output, state_n = layer(x[: np.count_nonzero(mask)], state)
    else:
        output, state_n = layer(x, state, mask.sum(axis=time))
    halves = np.split(output, 1 + layer.bidirectional, axis=-1)
    reverse = [False, True] if layer.bidirectional else [layer.reverse]
    halves = [_spread(half, mask, time, is_reverse, zero_output_for_mask) for half, is_reverse in zip(halves, reverse)]
    return np.concatenate(halves, axis=-1), state_n


def _spread(output, mask, time, is_reverse, zeros):
    """The outputs of the valid steps, which lie in front, at their own steps, and repeated at masked ones."""
    before = np.cumsum(mask, axis=time)  # valid steps up to this one
    if is_reverse:
        source = before - mask
        nothing = source == mask.sum(axis=time, keepdims=True)
    else:
        source = before - 1
        nothing = before == 0
    if zeros:
        nothing = ~mask
    if not output.shape[time]:
        return np.zeros((*mask.shape, output.shape[-1]), output.dtype)
    spread = np.take_along_axis(output, np.clip(source, 0, output.shape[time] - 1)[..., None], axis=time)
    spread[nothing] = 0
    return spread
