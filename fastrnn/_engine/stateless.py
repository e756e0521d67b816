"""A forward pass and its backward pass with nothing in between but arrays, from checked arguments."""

from __future__ import annotations

import numpy as np

from fastrnn import _core
from fastrnn._core import Gradients, empty_states
from fastrnn._engine import stack
from fastrnn._engine.pool import POOL
from fastrnn._threads import most_threads

BYTE = np.dtype(np.uint8)


def _is_one(inputs):
    """Whether the pass is a single call: of one layer that reads sequences of one length from their beginnings."""
    layout = inputs.layout
    return inputs.stack.is_one and layout.offsets is None and layout.resets is None


def forward(inputs, packed, dropout=None):
    """Run a forward pass that keeps a reserve.

    Parameters
    ----------
    inputs : Inputs
    packed : list of Packed
        For forward.
    dropout : Dropout, optional

    Returns
    -------
    output : ndarray, (T, B, D*P)
    state_n : list of ndarray, (L*D, B, n)
        In the order of the layout.
    reserve : ndarray of uint8
        In memory that begins at a multiple of ALIGNMENT bytes.
    """
    if _is_one(inputs):
        return _core.forward_one(inputs, packed[0], most_threads(), POOL)
    reserve = POOL.lease((inputs.stack.reserve_bytes(packed, inputs.layout),), BYTE)
    state_n = empty_states(inputs.state_0)
    output, _ = stack.forward(inputs, packed, state_n, reserve, dropout)
    return output, state_n, reserve


def backward(inputs, packed, weights, reserve, d_rows, d_state_n, dropout=None, input_gradient=True):
    """Run the backward pass of a forward pass.

    Parameters
    ----------
    inputs, weights, dropout
        Of the forward pass.
    packed : list of Packed
        For backward.
    reserve : ndarray of uint8
        Aligned.
    d_rows : ndarray, (..., D*P), or None
        The gradient of the output in the layout, native.
    d_state_n : list of ndarray or None, (L*D, B, n)
        Native, in the order of the layout.
    input_gradient : bool
        Whether d_x is computed.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None
    d_state_0 : list of ndarray, (L*D, B, n)
        In the order of the layout.
    d_weights : list of tuple of ndarray or None
    """
    if _is_one(inputs):
        d_x, d_state_0, d_one = _core.backward_one(
            inputs, packed[0], weights[0], reserve, d_rows, d_state_n, input_gradient, most_threads(), POOL
        )
        return d_x, d_state_0, [d_one]
    d_state_0 = empty_states(inputs.state_0)
    d_weights = [tuple([None if w is None else POOL.lease(w.shape, w.dtype) for w in one]) for one in weights]
    gradients = Gradients(d_rows, d_state_n, d_state_0, d_weights)
    d_x = stack.backward(inputs, packed, reserve, gradients, dropout, None, input_gradient)
    return d_x, d_state_0, d_weights
