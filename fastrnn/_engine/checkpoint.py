"""Checkpoints: forward saves the states at some steps only, and backward runs forward again from each of them.

The steps between two checkpoints are a segment. For a bidirectional stack the inputs of all layers are kept, too, and
each direction of each layer is a chain of its own: see fastrnn._engine.stack.
"""

from __future__ import annotations

from typing import Any

from fastrnn import _core
from fastrnn._core import Chain, Gradients, empty_states
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import segments
from fastrnn._engine.stack import (
    as_returned,
    backward_chain,
    forward_chain,
    in_order_of_time,
    infer_segment,
    join,
    new_array,
    split_directions,
)
from fastrnn._threads import most_threads


class Checkpoints:
    """The states that a forward pass with checkpoints saves for its backward pass.

    Attributes
    ----------
    segments : list of list of Segment
        Of the layout, as each direction reads it.
    layer_inputs : list of ndarray, (..., I) and (..., D*P)
        Of a bidirectional stack, the input of each layer after dropout.
    states : list of list of list of ndarray, (L, B, n)
        Of each chain, and of each segment, the state before its first step; L counts the layers of the chain.
    """

    __slots__ = ("segments", "layer_inputs", "states")

    def __init__(self, layout, every, directions):
        self.segments = [segments(layout.of_direction(reverse), every) for reverse in directions]
        self.layer_inputs = []
        self.states = []


def forward(inputs, packed, state_n, every, dropout=None):
    """The output of all layers, and Checkpoints every `every` steps; writes the state after the last step.

    Parameters and output are those of `fastrnn._engine.stack.forward`, without a reserve.
    """
    stack, layout, x = inputs.stack, inputs.layout, inputs.x
    checkpoints, threads = Checkpoints(layout, every, stack.directions), most_threads()
    if len(stack.directions) == 1:
        (reverse,) = stack.directions
        if reverse:
            x = layout.reversed(x)
        output = new_array(layout, stack.P, stack.dtype, reverse)
        _forward_chain(stack, packed, checkpoints, 0, x, inputs.state_0, state_n, output, threads, dropout)
        if reverse:
            POOL.give_back(x)
        return as_returned(layout, output, reverse), checkpoints
    for layer in range(stack.num_layers):
        if layer and dropout:
            dropout.apply(dropout.mask(layer, 0, x), x)
        checkpoints.layer_inputs.append(x)
        read = x, layout.reversed(x)
        outputs = POOL.array(layout.shape, stack.P, stack.dtype), POOL.array(layout.shape, stack.P, stack.dtype)
        for d, k in enumerate((2 * layer, 2 * layer + 1)):
            before, after = rows_of(inputs.state_0, k), rows_of(state_n, k)
            _forward_chain(stack, packed[k : k + 1], checkpoints, d, read[d], before, after, outputs[d], threads)
        POOL.give_back(read[1])
        x = new_array(layout, stack.output_width, stack.dtype)
        join(stack, layout, outputs, x)
    return as_returned(layout, x), checkpoints


def _forward_chain(stack, packed, checkpoints, direction, x, state_0, state_n, output, threads, dropout=None):
    """Inference of a chain, one segment after the other; adds the states of its segments to the checkpoints."""
    for after, before in zip(state_n, state_0):
        after[...] = before
    states = []
    for segment in checkpoints.segments[direction]:
        state, kept = [], []
        for s in state_n:
            state.append(s[:, : segment.B])
            kept.append(state[-1].copy())
        states.append(kept)
        infer_segment(stack, packed, segment, x[segment.slice], state, state, output[segment.slice], threads, dropout)
    checkpoints.states.append(states)


def backward(inputs, for_forward, packed, checkpoints, gradients, dropout=None, input_gradient=True):
    """The gradient of x; writes those of the state before and of the weights.

    Parameters and result are those of `fastrnn._engine.stack.backward`, with the checkpoints in place of the reserve,
    and the weights packed for forward as well.
    """
    stack, layout, x, d_output = inputs.stack, inputs.layout, inputs.x, gradients.d_output
    if len(stack.directions) == 2:
        return _backward_both(inputs, for_forward, packed, checkpoints, gradients, dropout, input_gradient)
    (reverse,) = stack.directions
    if reverse:
        x, d_output = layout.reversed(x), None if d_output is None else layout.reversed(d_output)
    d_x = new_array(layout, stack.I, stack.dtype, reverse) if input_gradient else None
    states = checkpoints.states[0]
    _backward_chain(inputs, for_forward, packed, checkpoints.segments[0], states, x, d_output, gradients, d_x, dropout)
    if reverse:
        POOL.give_back_all([x, d_output])
    return None if d_x is None else as_returned(layout, d_x, reverse)


def _backward_both(inputs, for_forward, packed, checkpoints, gradients, dropout, input_gradient):
    """`backward` of a bidirectional stack."""
    stack, layout, d_output = inputs.stack, inputs.layout, gradients.d_output
    for layer in range(stack.num_layers - 1, -1, -1):
        x = checkpoints.layer_inputs[layer]
        d_outputs, read = split_directions(stack, layout, d_output), (x, layout.reversed(x))
        d_read: tuple[Any, Any] = None, None
        if layer or input_gradient:
            d_read = new_array(layout, x.shape[-1], stack.dtype), POOL.array(layout.shape, x.shape[-1], stack.dtype)
        for d, k in enumerate((2 * layer, 2 * layer + 1)):
            of_chain = Gradients(
                None, rows_of(gradients.d_state_n, k), rows_of(gradients.d_state_0, k), gradients.d_weights[k : k + 1]
            )
            _backward_chain(
                inputs, for_forward[k : k + 1], packed[k : k + 1], checkpoints.segments[d], checkpoints.states[k],
                read[d], d_outputs[d], of_chain, d_read[d],
            )  # fmt: skip
        d_output = d_read[0]
        if d_output is not None:
            d_output += in_order_of_time(layout, d_read[1])
        POOL.give_back_all([*d_outputs, read[1], d_read[1]])
        if layer and dropout:
            dropout.apply(dropout.mask(layer, 0, x), d_output)
    return None if d_output is None else as_returned(layout, d_output)


def _backward_chain(inputs, for_forward, packed, segments, states, x, d_output, gradients, d_x, dropout=None):
    """Backward of one chain, the last segment first; writes d_x, if it is not None, and the gradients of its layers.

    x, d_output and d_x are in the order in which the chain reads; `states` has the state before each segment.
    """
    stack, layout, threads = inputs.stack, inputs.layout, most_threads()
    for before, after in zip(gradients.d_state_0, gradients.d_state_n):
        before[...] = 0 if after is None else after
    if not segments:
        for arrays in gradients.d_weights:
            for array in arrays:
                if array is not None:
                    array[...] = 0
    sums = []
    for one in packed:
        sums.append(_core.sums(one, layout.rows))
    rows, reserve, output = -1, None, None
    for segment, state in zip(reversed(segments), reversed(states)):
        if segment.rows != rows:  # else the segment uses the memory of the one after it
            POOL.give_back_all([reserve, output])
            rows, reserve = segment.rows, POOL.bytes(stack.reserve_bytes(packed, segment))
            output = POOL.array(segment.shape, stack.P, stack.dtype)
            layer_inputs, saved = stack.sections(packed, segment, reserve, None)
        layer_inputs[0] = x[segment.slice]
        chain = Chain(segment, layer_inputs, state, saved)
        masks = forward_chain(stack, chain, for_forward, empty_states(state), output, threads, dropout)
        d_after, d_before = [], []
        for d in gradients.d_state_0:
            d_before.append(d[:, : segment.B])
            d_after.append(d_before[-1].copy())
        backward_chain(
            stack, chain, packed, Gradients(None, d_after, d_before, gradients.d_weights),
            None if d_output is None else d_output[segment.slice], None if d_x is None else d_x[segment.slice], threads,
            dropout, masks, layout.rows - segment.first - segment.rows, sums,
        )  # fmt: skip
    POOL.give_back_all([reserve, output])


def rows_of(states, k):
    """Row k of states (L*D, B, n) or None, as states (1, B, n)."""
    return [None if s is None else s[k : k + 1] for s in states]
