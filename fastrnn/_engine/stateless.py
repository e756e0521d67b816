"""A forward pass and its backward pass with nothing in between but arrays, from checked arguments."""

from __future__ import annotations

import numpy as np

from fastrnn._core import ALIGNMENT, Gradients, empty_states
from fastrnn._engine import pool, stack
from fastrnn._engine.pool import POOL


def infer(inputs, weights, dropout=None):
    """Run a forward pass that keeps nothing.

    Parameters
    ----------
    inputs, weights, dropout
        As in `forward`.

    Returns
    -------
    output : ndarray, (T, B, D*P)
    state_n : list of ndarray, (L*D, B, n)
        In the order of the layout.
    """
    if dropout is not None:
        return forward(inputs, weights, dropout)[:2]
    packed, state_n = inputs.stack.pack(weights, False), empty_states(inputs.state_0)
    output = stack.infer(inputs, packed, state_n)
    POOL.give_back_all(packed)
    return output, state_n


def forward(inputs, weights, dropout=None):
    """Run a forward pass that keeps a reserve.

    Parameters
    ----------
    inputs : Inputs
    weights : list of tuple of ndarray
        Native, of each direction of each layer.
    dropout : Dropout, optional

    Returns
    -------
    output : ndarray, (T, B, D*P)
    state_n : list of ndarray, (L*D, B, n)
        In the order of the layout.
    reserve : ndarray of uint8
        In memory that begins at a multiple of ALIGNMENT bytes.
    """
    packed = inputs.stack.pack(weights, False)
    reserve = pool.aligned_bytes(inputs.stack.reserve_bytes(packed, inputs.layout))
    state_n = empty_states(inputs.state_0)
    output, _ = stack.forward(inputs, packed, state_n, reserve, dropout)
    POOL.give_back_all(packed)
    return output, state_n, reserve


def backward(inputs, packed, weights, reserve, d_rows, d_state_n, dropout=None):
    """Run the backward pass of a forward pass.

    Parameters
    ----------
    inputs, weights, dropout
        Of the forward pass.
    packed : list of Packed
        For backward; given back to the pool.
    reserve : ndarray of uint8
        Aligned.
    d_rows : ndarray, (..., D*P), or None
        The gradient of the output in the layout, native.
    d_state_n : list of ndarray or None, (L*D, B, n)
        Native, in the order of the layout.

    Returns
    -------
    d_x : ndarray, (T, B, I)
    d_state_0 : list of ndarray, (L*D, B, n)
        In the order of the layout.
    d_weights : list of tuple of ndarray or None
    """
    d_state_0 = empty_states(inputs.state_0)
    d_weights = [tuple([None if w is None else np.empty(w.shape, w.dtype) for w in one]) for one in weights]
    d_x = stack.backward(inputs, packed, reserve, Gradients(d_rows, d_state_n, d_state_0, d_weights), dropout)
    POOL.give_back_all(packed)
    return d_x, d_state_0, d_weights


def aligned(reserve):
    """A reserve in contiguous memory that begins at a multiple of ALIGNMENT bytes: the array itself, or a copy."""
    if reserve.ctypes.data % ALIGNMENT or not reserve.flags.c_contiguous:
        copy = pool.aligned_bytes(reserve.size)
        copy[...] = reserve
        return copy
    return reserve
