"""Layers on top of each other, in one direction or both: which calls of the kernels run together.

The calls of a stack in one direction run together, each layer one piece of time behind the layer below, at most
`_core.MOST_CALLS` at a time; with dropout they run one after the other. The two directions of a bidirectional layer run
side by side, and the next layer reads both outputs. A direction that reads the sequences from their ends is the same
call on reversed copies.

Arrays are in the layout of the batch (fastrnn._engine.ragged), states are lists of arrays (L*D, B, n), and lists of
packed weights and the like have an item for each direction of each layer, in the order of the states. A *chain* is
layers on top of each other in one direction, on sequences in the order in which they are read.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._core import BackwardCall, Chain, ForwardCall, Sections, padded_bytes, saved_bytes
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import segments
from fastrnn._threads import most_threads

# Inference keeps the outputs of all layers that run together: at most so many bytes, else it computes segments.
MOST_OUTPUT_BYTES = 16 << 20


class Stack:
    """The sizes of a stack of layers.

    Parameters
    ----------
    spec : CellSpec
    kernel : Kernel
        The cell in C, with the options of its activations.
    dtype : dtype
    sizes : mapping of str to int
        I, H and P.
    num_layers : int
    directions : tuple of bool
        Whether each direction reads the sequences from their ends: one or two.
    has_layers : bool
        Whether states have an axis of layers: (L*D, B, n); default: they are (B, n), of one layer in one direction.
    weight_shapes : tuple of (tuple or None)
        The shapes of the weights of one direction of the first layer, None for absent ones.
    """

    __slots__ = (
        "spec", "kernel", "dtype", "I", "H", "P", "num_layers", "directions", "count", "is_one", "leading", "widths",
        "output_width", "widest", "most_rows", "weight_shapes",
    )  # fmt: skip

    def __init__(
        self, spec, kernel, dtype, sizes, num_layers=1, directions=(False,), has_layers=False, weight_shapes=()
    ):
        self.spec, self.kernel, self.dtype = spec, kernel, dtype
        self.I, self.H, self.P = sizes["I"], sizes["H"], sizes["P"]
        self.num_layers, self.directions, self.weight_shapes = num_layers, directions, weight_shapes
        self.count = num_layers * len(directions)
        self.is_one = self.count == 1 and not directions[0]  # one layer that reads sequences from their beginnings
        self.leading = self.count if has_layers else 0  # the first axis of states, 0 for none
        self.widths = spec.widths(self.H, self.P)
        self.output_width = len(directions) * self.P
        # The widest array (T, B, width) of a call, and the largest T * B for which it can be addressed.
        self.widest = max(self.I, len(spec.gates) * self.H, self.output_width)
        self.most_rows = sys.maxsize // (self.widest * dtype.itemsize)

    def pack(self, weights, backward, input_gradient=True):
        """The weights packed for one pass, in memory of the pool; for a backward pass with d_x or without."""
        without_input = 0 if input_gradient else len(self.directions)
        return _core.pack(self.kernel, weights, backward, most_threads(), instruction_set(), POOL, without_input)

    def pack_for_training(self, weights):
        """The weights packed for forward and those packed for backward, in memory of the pool."""
        threads, isa = most_threads(), instruction_set()
        for_forward = _core.pack(self.kernel, weights, False, threads, isa, POOL)
        return for_forward, _core.pack(self.kernel, weights, True, threads, isa, POOL)

    def reserve_bytes(self, packed, layout):
        """The bytes of `reserve`, the saved activations of a forward pass: see `sections`."""
        inputs = (len(packed) - 1) // len(self.directions)
        size = inputs * padded_bytes(layout.rows * self.output_width * self.dtype.itemsize)
        for one in packed:
            size += saved_bytes(one, layout.rows)
        return size

    def sections(self, packed, layout, reserve, x, clear=False):
        """The arrays within a `reserve`, for layers on top of each other; the lowest layer reads x.

        Parameters
        ----------
        packed : list of Packed
            The weights of all directions of all layers.
        layout : Layout
        reserve : ndarray of uint8, (reserve_bytes(packed, layout),)
        x : ndarray, (..., I)
        clear : bool
            Whether to set the bytes between the arrays to zero.

        Returns
        -------
        inputs : list of ndarray, (..., I) and (..., D*P)
            The input of each layer: x, then the output of the layer below after dropout.
        saved : list of ndarray of uint8
            The buffer `saved` of each direction of each layer.
        """
        sections, D = Sections(reserve, clear), len(self.directions)
        inputs, saved = [x], []
        for k, one in enumerate(packed):
            if k and k % D == 0:
                inputs.append(sections.array(layout.shape, self.output_width, self.dtype))
            saved.append(sections.saved(one, layout.rows))
        return inputs, saved


class Dropout:
    """Sets elements between two layers to zero and divides the others by the probability that they remain.

    A mask depends on the seed, the number of the layer that reads it and the position in the array alone: it can be
    made again, for some of the rows.
    """

    __slots__ = ("probability", "scale", "seed")

    def __init__(self, probability, seed):
        self.probability, self.seed = probability, seed
        self.scale = 0 if probability == 1 else 1 / (1 - probability)

    def mask(self, layer, first_row, x):
        """The mask of x, the input of a layer, whose first row has this number."""
        generator = np.random.PCG64([self.seed, layer])
        generator.advance(first_row * x.shape[-1])
        return np.random.Generator(generator).random(x.shape) >= self.probability

    def apply(self, mask, x):
        """Apply a mask in place, to the input of a layer or to its gradient."""
        x *= mask
        x *= self.scale


# From and to the order of time


def new_array(layout, width, dtype, reverse=False):
    """An array (..., width) for `as_returned`: a lease if it becomes the result itself, else memory of the pool."""
    if reverse or layout.offsets is not None:
        return POOL.array(layout.shape, width, dtype)
    return POOL.empty((*layout.shape, width), dtype)


def as_returned(layout, rows, reverse=False):
    """Rows as a padded array (T, B, n) in order of time: the array itself, or a copy; then the rows are given back."""
    if not reverse and layout.offsets is None:
        return rows
    ordered = layout.reversed(rows) if reverse else rows
    if layout.offsets is None:
        array = POOL.empty(ordered.shape, ordered.dtype)
        array[...] = ordered
    else:
        array = layout.pad(ordered)
    POOL.give_back_all([rows, ordered] if reverse else [rows])
    return array


def in_order_of_time(layout, rows):
    """Rows that were read from the ends of the sequences in order of time; in padded layout a view."""
    return rows[::-1] if layout.offsets is None else layout.reversed(rows)


# Inference


def infer(inputs, packed, state_n):
    """The output of all layers; saves nothing for a backward pass.

    Parameters
    ----------
    inputs : Inputs
    packed : list of Packed
        For forward.
    state_n : list of ndarray, (L*D, B, n)
        Written.

    Returns
    -------
    output : ndarray, (T, B, D*P)
        Padded, in memory of its own.
    """
    output = _core.infer(inputs, packed, state_n, most_threads(), POOL)
    if output is not None:
        return output if inputs.layout.offsets is None else inputs.layout.pad(output)
    stack, layout, x = inputs.stack, inputs.layout, inputs.x
    if len(stack.directions) == 2:
        return _infer_both(inputs, packed, state_n)
    (reverse,) = stack.directions
    if reverse:
        x, layout = layout.reversed(x), layout.of_direction(reverse)
    output = new_array(layout, stack.P, stack.dtype, reverse)
    _infer_chain(stack, packed, layout, x, inputs.state_0, state_n, output)
    if reverse:
        POOL.give_back(x)
    return as_returned(layout, output, reverse)


def _infer_chain(stack, packed, layout, x, state_0, state_n, output):
    """Inference of a chain, in segments where the outputs of all its layers would take too much memory.

    Writes state_n and output, (..., P).
    """
    size = len(packed) * layout.rows * stack.P * stack.dtype.itemsize
    every, threads = max(1, layout.steps * MOST_OUTPUT_BYTES // max(1, size)), most_threads()
    if every >= layout.steps:
        infer_segment(stack, packed, layout, x, state_0, state_n, output, threads)
        return
    for after, before in zip(state_n, state_0):
        after[...] = before
    for segment in segments(layout, every):
        state = [s[:, : segment.B] for s in state_n]
        infer_segment(stack, packed, segment, x[segment.slice], state, state, output[segment.slice], threads)


def infer_segment(stack, packed, layout, x, state_0, state_n, output, threads, dropout=None):
    """Inference of a chain over all steps of a layout, which may be a segment; with dropout, as in training."""
    calls: list[ForwardCall] = []
    lent: list[Any] = []
    for k, one in enumerate(packed):
        is_top = k == len(packed) - 1
        y = output if is_top else POOL.array(layout.shape, stack.P, stack.dtype)
        calls.append(ForwardCall(one, k, x, layout.offsets, state_0, state_n, y, None, layout.resets))
        if is_top or dropout or len(calls) == _core.MOST_CALLS:
            _core.forward(calls, len(calls) > 1, threads)
            POOL.give_back_all(lent)
            calls, lent = [], []
            if dropout and not is_top:
                dropout.apply(dropout.mask(k + 1, layout.first, y), y)
        lent.append(y)
        x = y


def _infer_both(inputs, packed, state_n):
    """`infer` of a bidirectional stack."""
    stack, layout, x = inputs.stack, inputs.layout, inputs.x
    for layer in range(stack.num_layers):
        outputs = _run_both(inputs, packed, layer, x, state_n)
        if layer:
            POOL.give_back(x)
        if layer == stack.num_layers - 1:
            x = new_array(layout, stack.output_width, stack.dtype)
        else:
            x = POOL.array(layout.shape, stack.output_width, stack.dtype)
        join(stack, layout, outputs, x)
    return as_returned(layout, x)


def _run_both(inputs, packed, layer, x, state_n, saved=None, gates=None):
    """The outputs (..., P) of both directions of one layer that reads x, each in the order in which it reads."""
    stack, layout = inputs.stack, inputs.layout
    read = x, layout.reversed(x)
    outputs = POOL.array(layout.shape, stack.P, stack.dtype), POOL.array(layout.shape, stack.P, stack.dtype)
    calls = []
    for d, k in enumerate((2 * layer, 2 * layer + 1)):
        saved_k, resets = None if saved is None else saved[k], layout.of_direction(d == 1).resets
        call = ForwardCall(packed[k], k, read[d], layout.offsets, inputs.state_0, state_n, outputs[d], saved_k, resets)
        calls.append(call)
    _core.forward(calls, False, most_threads())
    POOL.give_back(read[1])
    if gates is not None:
        for call, reverse in zip(calls, stack.directions):
            gates.append(gates_of(stack.spec, layout, call, reverse))
    return outputs


def join(stack, layout, outputs, joined):
    """Fill joined (..., 2*P) from the outputs of both directions, each in its own order, and give these back."""
    forward, backward = outputs
    joined[..., : stack.P] = forward
    joined[..., stack.P :] = in_order_of_time(layout, backward)
    POOL.give_back_all([forward, backward])


def split_directions(stack, layout, d_output):
    """The gradients of the outputs of both directions from that of the joined ones, the opposite of `join`.

    Each is contiguous and in the order in which its direction reads, in memory of the pool; None for None.
    """
    if d_output is None:
        return None, None
    forward = POOL.array(layout.shape, stack.P, stack.dtype)
    forward[...] = d_output[..., : stack.P]
    return forward, layout.reversed(d_output[..., stack.P :])


# Training


def forward(inputs, packed, state_n, reserve, dropout=None, gates=None):
    """The output of all layers, whose activations are saved in `reserve` for `backward`.

    Parameters
    ----------
    inputs, packed, state_n
        As in `infer`.
    reserve : ndarray of uint8, (stack.reserve_bytes(packed, layout),)
        Written, every byte.
    dropout : Dropout, optional
    gates : list, optional
        The `gates_of` each direction of each layer are appended.

    Returns
    -------
    output : ndarray, (T, B, D*P)
        Padded, in memory of its own.
    masks : list of ndarray of bool or None, (..., D*P)
        The mask of the input of each layer.
    """
    stack, layout, x = inputs.stack, inputs.layout, inputs.x
    is_chain = len(stack.directions) == 1
    reverse = is_chain and stack.directions[0]
    if reverse:
        x, layout = layout.reversed(x), layout.of_direction(reverse)
    layer_inputs, saved = stack.sections(packed, layout, reserve, x, clear=True)
    output = new_array(layout, stack.output_width, stack.dtype, reverse)
    if is_chain:
        chain = Chain(layout, layer_inputs, inputs.state_0, saved)
        masks = forward_chain(stack, chain, packed, state_n, output, most_threads(), dropout, gates, reverse)
        if reverse:
            POOL.give_back(x)
    else:
        masks = _forward_both(inputs, packed, layer_inputs, saved, state_n, output, dropout, gates)
    return as_returned(layout, output, reverse), masks


def forward_chain(stack, chain, packed, state_n, output, threads, dropout=None, gates=None, reverse=False):
    """Forward of a chain: writes state_n, (L, B, n), output, (..., P), and the arrays of the chain.

    Parameters
    ----------
    chain : Chain
    threads : int
        The result of `most_threads`.
    reverse : bool
        Whether the sequences are in opposite order; used for `gates` alone.

    Returns
    -------
    masks : list of ndarray of bool or None, (..., P)
    """
    layout, inputs = chain.layout, chain.inputs
    masks, calls, top = [None] * len(packed), [], len(packed) - 1
    for k, one in enumerate(packed):
        y = output if k == top else inputs[k + 1]
        call = ForwardCall(one, k, inputs[k], layout.offsets, chain.state_0, state_n, y, chain.saved[k], layout.resets)
        calls.append(call)
        if k == top or dropout or len(calls) == _core.MOST_CALLS:
            _core.forward(calls, len(calls) > 1, threads)
            if gates is not None:
                for call in calls:
                    gates.append(gates_of(stack.spec, layout, call, reverse))
            calls = []
            if dropout and k < top:
                masks[k + 1] = dropout.mask(k + 1, layout.first, y)
                dropout.apply(masks[k + 1], y)
    return masks


def _forward_both(inputs, packed, layer_inputs, saved, state_n, output, dropout, gates):
    """`forward` of a bidirectional stack, whose layers read `layer_inputs`: writes output, and returns the masks."""
    stack, masks = inputs.stack, []
    for layer, x in enumerate(layer_inputs):
        masks.append(dropout.mask(layer, 0, x) if layer and dropout else None)
        if masks[layer] is not None:
            dropout.apply(masks[layer], x)
        outputs = _run_both(inputs, packed, layer, x, state_n, saved, gates)
        join(stack, inputs.layout, outputs, output if layer == stack.num_layers - 1 else layer_inputs[layer + 1])
    return masks


def backward(inputs, packed, reserve, gradients, dropout=None, masks=None, input_gradient=True):
    """The gradient of x; writes those of the state before and of the weights.

    Parameters
    ----------
    inputs, reserve, dropout
        Of the forward pass.
    packed : list of Packed
        The weights of the forward pass, packed for backward.
    gradients : Gradients
    masks : list, optional
        The masks that `forward` returned; made again if not given.
    input_gradient : bool
        Whether d_x is computed.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None
        Padded, in memory of its own.
    """
    stack, layout, x, d_output = inputs.stack, inputs.layout, inputs.x, gradients.d_output
    is_chain = len(stack.directions) == 1
    reverse = is_chain and stack.directions[0]
    if reverse:
        x, d_output = layout.reversed(x), None if d_output is None else layout.reversed(d_output)
        layout = layout.of_direction(reverse)
    layer_inputs, saved = stack.sections(packed, layout, reserve, x)
    d_x = new_array(layout, stack.I, stack.dtype, reverse) if input_gradient else None
    if is_chain:
        chain = Chain(layout, layer_inputs, inputs.state_0, saved)
        backward_chain(stack, chain, packed, gradients, d_output, d_x, most_threads(), dropout, masks)
        if reverse:
            POOL.give_back_all([x, d_output])
    else:
        _backward_both(inputs, packed, layer_inputs, saved, gradients, d_x, dropout, masks)
    return None if d_x is None else as_returned(layout, d_x, reverse)


def backward_chain(
    stack, chain, packed, gradients, d_output, d_x, threads, dropout=None, masks=None, rows_after=0, sums=None
):
    """Backward of a chain: writes d_x, (..., I), if it is not None, and the gradients.

    Parameters
    ----------
    chain : Chain
        As the forward pass has left it.
    gradients : Gradients
        Of the layers of the chain.
    d_output : ndarray, (..., P), or None
        Used instead of gradients.d_output, with the sequences in the order in which the chain reads them.
    rows_after : int
        Of a segment, the rows of the whole batch after its own.
    sums : list of ndarray or None, optional
        Of a segment, memory that the segments share for each layer: see `_core.sums`.
    """
    layout, inputs = chain.layout, chain.inputs
    calls: list[BackwardCall] = []
    lent: list[Any] = []
    for k in range(len(packed) - 1, -1, -1):
        d_input = POOL.array(layout.shape, stack.P, stack.dtype) if k else d_x
        call = BackwardCall(
            packed[k], k, inputs[k], layout.offsets, chain.state_0, chain.saved[k], d_output, gradients.d_state_n,
            d_input, gradients.d_state_0, gradients.d_weights[k], rows_after, layout.first, sums[k] if sums else None,
            layout.resets,
        )  # fmt: skip
        calls.append(call)
        if not k or dropout or len(calls) == _core.MOST_CALLS:
            _core.backward(calls, len(calls) > 1, threads)
            POOL.give_back_all(lent)
            calls, lent = [], []
            if dropout and k:
                dropout.apply(masks[k] if masks else dropout.mask(k, layout.first, inputs[k]), d_input)
        lent.append(d_input)
        d_output = d_input


def _backward_both(inputs, packed, layer_inputs, saved, gradients, d_x, dropout, masks):
    """`backward` of a bidirectional stack whose layers read `layer_inputs`: writes d_x, if any, and the gradients."""
    stack, layout, d_output = inputs.stack, inputs.layout, gradients.d_output
    for layer in range(stack.num_layers - 1, -1, -1):
        x = layer_inputs[layer]
        d_input = POOL.array(layout.shape, stack.output_width, stack.dtype) if layer else d_x
        d_outputs, read = split_directions(stack, layout, d_output), (x, layout.reversed(x))
        d_inputs: tuple[Any, Any] = d_input, None
        calls = []
        if d_input is not None:
            d_inputs = d_input, POOL.array(layout.shape, x.shape[-1], stack.dtype)
        for d, k in enumerate((2 * layer, 2 * layer + 1)):
            call = BackwardCall(
                packed[k], k, read[d], layout.offsets, inputs.state_0, saved[k], d_outputs[d], gradients.d_state_n,
                d_inputs[d], gradients.d_state_0, gradients.d_weights[k], resets=layout.of_direction(d == 1).resets,
            )  # fmt: skip
            calls.append(call)
        _core.backward(calls, False, most_threads())
        if d_input is not None:
            d_input += in_order_of_time(layout, d_inputs[1])
        POOL.give_back_all([*d_outputs, read[1], d_inputs[1]])
        if layer and dropout:
            dropout.apply(masks[layer] if masks else dropout.mask(layer, 0, x), d_input)
        if layer < stack.num_layers - 1:
            POOL.give_back(d_output)
        d_output = d_input


# Gates


def gates_of(spec, layout, call, reverse):
    """The gates and states of a forward call at every step, and h.

    Parameters
    ----------
    spec : CellSpec
    layout : Layout
    call : ForwardCall
        After it has run.
    reverse : bool
        Whether its sequences are in opposite order.

    Returns
    -------
    gates : dict of ndarray, (T, B, n)
        Name to copy; h is the output of the call.
    """
    gates, states = _core.saved_arrays(call.packed, call.saved, layout.rows)
    named: dict[str, Any] = {}
    if gates is not None:
        named |= dict(zip(spec.gates, gates, strict=True))
    for name, state in zip(spec.states[1:], states[1:]):
        assert state is not None  # h alone may be recovered rather than saved
        named[name] = state.copy()
    named["h"] = call.output.copy()
    for name, array in named.items():
        rows = array.reshape(*layout.shape, array.shape[-1])
        named[name] = layout.pad(in_order_of_time(layout, rows) if reverse else rows)
    return named
