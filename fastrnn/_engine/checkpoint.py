"""Training with less memory: the states at some steps are kept, and backward runs forward again from each.

The steps between two checkpoints are a segment. Of a bidirectional stack the inputs of all layers are kept, too, and
each direction of each layer is a chain of its own: see fastrnn._engine.stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _core
from fastrnn._core import empty_states
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import segments
from fastrnn._engine.stack import (
    as_returned,
    backward_chain,
    forward_chain,
    in_order_of_time,
    infer_segment,
    join,
    new_output,
)


class Checkpoints:
    """What a backward pass needs of a forward pass with checkpoints, besides x and the packed weights.

    Attributes
    ----------
    segments : list of Segment
        Of the layout.
    inputs : list of ndarray, (..., D*P)
        Of a bidirectional stack the input of each layer but the first, after dropout.
    states : list of list of list of ndarray, (L, B, n)
        Of each chain, and of each segment, the state before its first step; L counts the layers of the chain.
    """

    __slots__ = ("segments", "inputs", "states")

    def __init__(self, layout, every):
        self.segments = segments(layout, every)
        self.inputs = []
        self.states = []


def forward(stack, packed, layout, x, state_0, state_n, every, dropout=None):
    """The output of all layers, and Checkpoints at every so many steps; writes the state after.

    Parameters and output are those of `fastrnn._engine.stack.forward`, without a reserve.
    """
    checkpoints = Checkpoints(layout, every)
    if len(stack.directions) == 1:
        (reverse,) = stack.directions
        if reverse:
            x = layout.reversed(x)
        output = new_output(stack, layout, reverse)
        _forward_chain(stack, packed, checkpoints, x, state_0, state_n, output, dropout)
        if reverse:
            POOL.give_back(x)
        return as_returned(layout, output, reverse), checkpoints
    for layer in range(stack.num_layers):
        if layer:
            checkpoints.inputs.append(x)
            if dropout:
                dropout.apply(dropout.mask(layer, 0, x), x)
        inputs = x, layout.reversed(x)
        outputs = POOL.array(layout.shape, stack.P, stack.dtype), POOL.array(layout.shape, stack.P, stack.dtype)
        for d in range(2):
            k = 2 * layer + d
            before, after = rows_of(state_0, k), rows_of(state_n, k)
            _forward_chain(stack, packed[k : k + 1], checkpoints, inputs[d], before, after, outputs[d])
        POOL.give_back(inputs[1])
        x = new_output(stack, layout)
        join(stack, layout, outputs, x)
    return as_returned(layout, x), checkpoints


def _forward_chain(stack, packed, checkpoints, x, state_0, state_n, output, dropout=None):
    """Inference of a chain, one segment after the other; adds the states of its segments to the checkpoints."""
    for after, before in zip(state_n, state_0):
        after[...] = before
    states = []
    for segment in checkpoints.segments:
        state, kept = [], []
        for s in state_n:
            state.append(s[:, : segment.B])
            kept.append(state[-1].copy())
        states.append(kept)
        infer_segment(stack, packed, segment, x[segment.slice], state, state, output[segment.slice], dropout)
    checkpoints.states.append(states)


def backward(
    stack, for_forward, packed, layout, x, checkpoints, d_output, d_state_n, d_state_0, d_weights, dropout=None
):
    """The gradient of x; writes those of the state before and of the weights.

    Parameters and result are those of `fastrnn._engine.stack.backward`, with the checkpoints in place of the initial
    state and the reserve, and the weights packed for forward, too.
    """
    d_x = new_d_x = np.empty(x.shape, stack.dtype)
    if len(stack.directions) == 1:
        (reverse,) = stack.directions
        if reverse:
            x = layout.reversed(x)
            d_output = None if d_output is None else layout.reversed(d_output)
        _backward_chain(
            stack, for_forward, packed, layout, checkpoints, 0, x, d_output, d_state_n, d_state_0, d_weights, d_x,
            dropout,
        )  # fmt: skip
        if reverse:
            POOL.give_back_all([x, d_output])
        return as_returned(layout, d_x, reverse)
    for layer in range(stack.num_layers - 1, -1, -1):
        x_layer = checkpoints.inputs[layer - 1] if layer else x
        d_x = np.empty(x_layer.shape, stack.dtype) if layer else new_d_x
        d_outputs: list[Any] = [None, None]
        if d_output is not None:
            d_outputs[0] = np.ascontiguousarray(d_output[..., : stack.P])
            d_outputs[1] = layout.reversed(d_output[..., stack.P :])
        inputs = x_layer, layout.reversed(x_layer)
        d_inputs = d_x, POOL.array(layout.shape, x_layer.shape[-1], stack.dtype)
        for d, k in enumerate((2 * layer, 2 * layer + 1)):
            _backward_chain(
                stack, for_forward[k : k + 1], packed[k : k + 1], layout, checkpoints, k, inputs[d], d_outputs[d],
                rows_of(d_state_n, k), rows_of(d_state_0, k), d_weights[k : k + 1], d_inputs[d],
            )  # fmt: skip
        d_x += in_order_of_time(layout, d_inputs[1])
        POOL.give_back_all([d_outputs[1], inputs[1], d_inputs[1]])
        if layer and dropout:
            dropout.apply(dropout.mask(layer, 0, x_layer), d_x)
        d_output = d_x
    return as_returned(layout, d_x)


def _backward_chain(
    stack, for_forward, packed, layout, checkpoints, chain, x, d_output, d_state_n, d_state_0, d_weights, d_x,
    dropout=None,
):  # fmt: skip
    """Backward of one chain, the last segment first; writes d_state_0, d_weights and d_x."""
    for before, after in zip(d_state_0, d_state_n):
        before[...] = 0 if after is None else after
    if not checkpoints.segments:
        for arrays in d_weights:
            for array in arrays:
                if array is not None:
                    array[...] = 0
    sums = []
    for one in packed:
        sums.append(_core.sums(one, layout.rows))
    rows, reserve, output = -1, None, None
    for segment, state in zip(reversed(checkpoints.segments), reversed(checkpoints.states[chain])):
        if segment.rows != rows:
            POOL.give_back_all([reserve, output])
            rows, reserve = segment.rows, POOL.bytes(stack.reserve_bytes(packed, segment))
            output = POOL.array(segment.shape, stack.P, stack.dtype)
        x_segment = x[segment.slice]
        inputs, saved = stack.sections(packed, segment, reserve, x_segment)
        masks = forward_chain(
            stack, for_forward, segment, inputs, state, empty_states(state), saved, output, dropout, segment.first
        )
        d_after, d_before = [], []
        for d in d_state_0:
            d_before.append(d[:, : segment.B])
            d_after.append(d_before[-1].copy())
        backward_chain(
            stack, packed, segment, inputs, state, saved, None if d_output is None else d_output[segment.slice],
            d_after, d_before, d_weights, d_x[segment.slice], dropout, masks, segment.first,
            layout.rows - segment.first - segment.rows, sums,
        )  # fmt: skip
    POOL.give_back_all([reserve, output])


def rows_of(states, k):
    """Row k of states (L*D, B, n) or None, as states (1, B, n)."""
    return [None if s is None else s[k : k + 1] for s in states]
