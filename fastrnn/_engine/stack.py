"""Layers on top of each other, in one direction or both: which calls of the kernels run together.

The calls of a stack in one direction run together, each layer a little behind the layer below, at most
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
from fastrnn._core import BackwardCall, ForwardCall, Sections, padded_bytes, saved_bytes
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import segments
from fastrnn._threads import most_threads

# Inference keeps the outputs of all layers that run together: of so many steps at a time that they take no more bytes.
MOST_OUTPUT_BYTES = 16 << 20


class Stack:
    """The sizes of a stack of layers.

    Parameters
    ----------
    spec : CellSpec
    kernel : str
        The name of the cell in C.
    dtype : dtype
    sizes : mapping of str to int
        I, H and P.
    num_layers : int
    directions : tuple of bool
        Whether each direction reads the sequences from their ends: one or two.
    """

    __slots__ = (
        "spec", "kernel", "dtype", "I", "H", "P", "num_layers", "directions", "count", "widths", "output_width",
        "widest", "most_rows",
    )  # fmt: skip

    def __init__(self, spec, kernel, dtype, sizes, num_layers=1, directions=(False,)):
        self.spec, self.kernel, self.dtype = spec, kernel, dtype
        self.I, self.H, self.P = sizes["I"], sizes["H"], sizes["P"]
        self.num_layers, self.directions = num_layers, directions
        self.count = num_layers * len(directions)
        self.widths = spec.widths(self.H, self.P)
        self.output_width = len(directions) * self.P
        # The widest array (T, B, width) that a call makes, and the T * B from which on it could not be addressed.
        self.widest = max(self.I, len(spec.gates) * self.H, self.output_width)
        self.most_rows = sys.maxsize // (self.widest * dtype.itemsize)

    def pack(self, weights, backward):
        """The weights packed for one pass, in memory of the pool."""
        return _core.pack(self.kernel, weights, backward, most_threads(), instruction_set(), POOL)

    def reserve_bytes(self, packed, layout):
        """The bytes of `reserve`, in which a forward pass keeps what its backward pass needs: see `sections`."""
        inputs = (len(packed) - 1) // len(self.directions)
        size = inputs * padded_bytes(layout.rows * self.output_width * self.dtype.itemsize)
        for one in packed:
            size += saved_bytes(one, layout.rows)
        return size

    def sections(self, packed, layout, reserve, x, clear=False):
        """The arrays within a `reserve`, for layers on top of each other of which the lowest reads x.

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
            The input of each layer: x, and outputs of the layer below after dropout.
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

    A mask depends on nothing but the seed, the number of the layer that reads it and the place in the array: it can be
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
        """Apply a mask to x, or to the gradient of what came of it, in place."""
        x *= mask
        x *= self.scale


def new_output(stack, layout, reverse=False):
    """An array (..., D*P) for the output of the top layer: new memory if it will be returned as it is."""
    if reverse or layout.offsets is not None:
        return POOL.array(layout.shape, stack.output_width, stack.dtype)
    return np.empty((*layout.shape, stack.output_width), stack.dtype)


def as_returned(layout, rows, reverse=False):
    """Rows in the layout as a padded array (T, B, n) in order of time: the rows themselves, or a copy.

    After a copy the memory of the rows goes back to the pool.
    """
    if not reverse and layout.offsets is None:
        return rows
    ordered = layout.reversed(rows) if reverse else rows
    if layout.offsets is None:
        array = ordered.copy()
    else:
        array = layout.pad(ordered)
    POOL.give_back_all([rows, ordered] if reverse else [rows])
    return array


# Inference


def infer(stack, packed, layout, x, state_0, state_n):
    """The output of all layers, without anything kept; writes the state after.

    Parameters
    ----------
    packed : list of Packed
        For forward.
    layout : Layout
    x : ndarray, (T, B, I) or (N, I)
    state_0, state_n : list of ndarray, (L*D, B, n)

    Returns
    -------
    output : ndarray, (T, B, D*P)
        Padded, in new memory.
    """
    if len(stack.directions) == 2:
        return _infer_both(stack, packed, layout, x, state_0, state_n)
    (reverse,) = stack.directions
    if reverse:
        x = layout.reversed(x)
    output = new_output(stack, layout, reverse)
    if len(packed) == 1:
        call = ForwardCall(packed[0], 0, x, layout.offsets, state_0, state_n, output)
        _core.forward([call], False, most_threads())
    else:
        infer_chain(stack, packed, layout, x, state_0, state_n, output)
    if reverse:
        POOL.give_back(x)
    return as_returned(layout, output, reverse)


def infer_chain(stack, packed, layout, x, state_0, state_n, output):
    """Inference of a chain, in segments where the outputs of all its layers would take too much memory.

    Writes state_n and output, (..., P).
    """
    size = len(packed) * layout.rows * stack.P * stack.dtype.itemsize
    every = max(1, layout.steps * MOST_OUTPUT_BYTES // max(1, size))
    if every >= layout.steps:
        infer_segment(stack, packed, layout, x, state_0, state_n, output)
        return
    for after, before in zip(state_n, state_0):
        after[...] = before
    for segment in segments(layout, every):
        state = [s[:, : segment.B] for s in state_n]
        infer_segment(stack, packed, segment, x[segment.slice], state, state, output[segment.slice])


def infer_segment(stack, packed, layout, x, state_0, state_n, output, dropout=None):
    """Inference of a chain over all steps of a layout, which may be a segment; with dropout, as in training."""
    first_row = getattr(layout, "first", 0)
    calls: list[ForwardCall] = []
    lent: list[Any] = []
    for k, one in enumerate(packed):
        is_top = k == len(packed) - 1
        y = output if is_top else POOL.array(layout.shape, stack.P, stack.dtype)
        calls.append(ForwardCall(one, k, x, layout.offsets, state_0, state_n, y))
        if is_top or dropout or len(calls) == _core.MOST_CALLS:
            _core.forward(calls, len(calls) > 1, most_threads())
            POOL.give_back_all(lent)
            calls, lent = [], []
            if dropout and not is_top:
                dropout.apply(dropout.mask(k + 1, first_row, y), y)
        lent.append(y)
        x = y


def _infer_both(stack, packed, layout, x, state_0, state_n):
    """Inference of a bidirectional stack: see `infer`."""
    for layer in range(stack.num_layers):
        outputs = _run_both(stack, packed, layout, layer, x, state_0, state_n)
        if layer:
            POOL.give_back(x)
        is_top = layer == stack.num_layers - 1
        x = new_output(stack, layout) if is_top else POOL.array(layout.shape, stack.output_width, stack.dtype)
        join(stack, layout, outputs, x)
    return as_returned(layout, x)


def _run_both(stack, packed, layout, layer, x, state_0, state_n, saved=None, gates=None):
    """The outputs of both directions of one layer, each in the order in which it reads."""
    inputs = x, layout.reversed(x)
    outputs = POOL.array(layout.shape, stack.P, stack.dtype), POOL.array(layout.shape, stack.P, stack.dtype)
    calls = []
    for k, x_k, y_k in zip((2 * layer, 2 * layer + 1), inputs, outputs):
        saved_k = None if saved is None else saved[k]
        calls.append(ForwardCall(packed[k], k, x_k, layout.offsets, state_0, state_n, y_k, saved_k))
    _core.forward(calls, False, most_threads())
    POOL.give_back(inputs[1])
    if gates is not None:
        for call, reverse in zip(calls, stack.directions):
            gates.append(gates_of(stack, layout, call, reverse))
    return outputs


def join(stack, layout, outputs, joined):
    """Fill joined (..., 2*P) from the outputs of both directions, each in its own order, and give these back."""
    forward, backward = outputs
    joined[..., : stack.P] = forward
    joined[..., stack.P :] = in_order_of_time(layout, backward)
    POOL.give_back_all([forward, backward])


def in_order_of_time(layout, rows):
    """Rows that were read from the ends of the sequences in order of time; in padded layout a view."""
    return rows[::-1] if layout.offsets is None else layout.reversed(rows)


# Training


def forward(stack, packed, layout, x, state_0, state_n, reserve, dropout=None, gates=None):
    """The output of all layers; writes the state after, and to `reserve` what `backward` needs.

    Parameters
    ----------
    packed, layout, x, state_0, state_n
        As in `infer`.
    reserve : ndarray of uint8, (stack.reserve_bytes(packed, layout),)
        Written, every byte.
    dropout : Dropout, optional
    gates : list, optional
        Gets the `gates_of` each direction of each layer.

    Returns
    -------
    output : ndarray, (T, B, D*P)
        Padded, in new memory.
    masks : list of ndarray of bool or None, (..., D*P)
        The mask of the input of each layer.
    """
    (reverse,) = stack.directions if len(stack.directions) == 1 else (False,)
    if reverse:
        x = layout.reversed(x)
    inputs, saved = stack.sections(packed, layout, reserve, x, clear=True)
    output = new_output(stack, layout, reverse)
    if len(stack.directions) == 1:
        masks = forward_chain(
            stack, packed, layout, inputs, state_0, state_n, saved, output, dropout, gates=gates, reverse=reverse
        )
        if reverse:
            POOL.give_back(x)
        return as_returned(layout, output, reverse), masks
    masks = []
    for layer, x in enumerate(inputs):
        masks.append(dropout.mask(layer, 0, x) if layer and dropout else None)
        if masks[layer] is not None:
            dropout.apply(masks[layer], x)
        outputs = _run_both(stack, packed, layout, layer, x, state_0, state_n, saved, gates)
        join(stack, layout, outputs, output if layer == stack.num_layers - 1 else inputs[layer + 1])
    return as_returned(layout, output), masks


def forward_chain(
    stack, packed, layout, inputs, state_0, state_n, saved, output, dropout=None, first_row=0, gates=None, reverse=False
):
    """Forward of a chain; writes state_n, saved, output and all inputs but the first; returns the masks of these.

    Parameters
    ----------
    inputs : list of ndarray, (..., I) and (..., P)
        The input of each layer.
    saved : list of ndarray of uint8
        The buffer `saved` of each layer.
    output : ndarray, (..., P)
    first_row : int
        The number of the first row of the layout in that of the whole batch, for dropout.
    reverse : bool
        Whether the sequences are in opposite order, which concerns nothing but the order in `gates`.
    """
    masks = [None] * len(packed)
    calls = []
    for k, one in enumerate(packed):
        is_top = k == len(packed) - 1
        y = output if is_top else inputs[k + 1]
        calls.append(ForwardCall(one, k, inputs[k], layout.offsets, state_0, state_n, y, saved[k]))
        if is_top or dropout or len(calls) == _core.MOST_CALLS:
            _core.forward(calls, len(calls) > 1, most_threads())
            if gates is not None:
                for call in calls:
                    gates.append(gates_of(stack, layout, call, reverse))
            calls = []
            if dropout and not is_top:
                masks[k + 1] = dropout.mask(k + 1, first_row, y)
                dropout.apply(masks[k + 1], y)
    return masks


def backward(
    stack, packed, layout, x, state_0, reserve, d_output, d_state_n, d_state_0, d_weights, dropout=None, masks=None
):
    """The gradient of x; writes those of the state before and of the weights.

    Parameters
    ----------
    packed : list of Packed
        The weights of the forward pass, packed for backward.
    layout, x, state_0, reserve, dropout
        As in the forward pass.
    d_output : ndarray, (T, B, D*P) or (N, D*P), or None for zeros
    d_state_n : list of ndarray or None, (L*D, B, n)
    d_state_0 : list of ndarray, (L*D, B, n)
        Written.
    d_weights : list of tuple of ndarray
        Written.
    masks : list, optional
        What `forward` has returned; made again if not given.

    Returns
    -------
    d_x : ndarray, (T, B, I)
        Padded, in new memory.
    """
    is_chain = len(stack.directions) == 1
    reverse = is_chain and stack.directions[0]
    if reverse:
        x = layout.reversed(x)
        d_output = None if d_output is None else layout.reversed(d_output)
    inputs, saved = stack.sections(packed, layout, reserve, x)
    if reverse or layout.offsets is not None:
        d_x = POOL.array(layout.shape, stack.I, stack.dtype)
    else:
        d_x = np.empty(x.shape, stack.dtype)
    if is_chain:
        backward_chain(
            stack,
            packed,
            layout,
            inputs,
            state_0,
            saved,
            d_output,
            d_state_n,
            d_state_0,
            d_weights,
            d_x,
            dropout,
            masks,
        )
        if reverse:
            POOL.give_back_all([x, d_output])
        return as_returned(layout, d_x, reverse)
    for layer in reversed(range(stack.num_layers)):
        x = inputs[layer]
        d_input = POOL.array(layout.shape, stack.output_width, stack.dtype) if layer else d_x
        _backward_both(
            stack, packed, layout, layer, x, state_0, saved, d_output, d_state_n, d_state_0, d_weights, d_input
        )
        if layer and dropout:
            dropout.apply(masks[layer] if masks else dropout.mask(layer, 0, x), d_input)
        if layer < stack.num_layers - 1:
            POOL.give_back(d_output)
        d_output = d_input
    return as_returned(layout, d_x)


def backward_chain(
    stack, packed, layout, inputs, state_0, saved, d_output, d_state_n, d_state_0, d_weights, d_x, dropout=None,
    masks=None, first_row=0, rows_after=0, sums=None,
):  # fmt: skip
    """Backward of a chain, or of a segment of it; writes d_state_0, d_weights and d_x, (..., I).

    Parameters
    ----------
    first_row, rows_after : int
        Rows of the whole batch before and after those of this layout.
    sums : list of ndarray or None, optional
        Of a segment, memory that the segments share for each layer: see `_core.sums`.
    """
    calls: list[BackwardCall] = []
    lent: list[Any] = []
    d_y = d_output
    for k in range(len(packed) - 1, -1, -1):
        d_input = POOL.array(layout.shape, stack.P, stack.dtype) if k else d_x
        calls.append(
            BackwardCall(
                packed[k],
                k,
                inputs[k],
                layout.offsets,
                state_0,
                saved[k],
                d_y,
                d_state_n,
                d_input,
                d_state_0,
                d_weights[k],
                rows_after,
                first_row,
                sums[k] if sums else None,
            )  # fmt: skip
        )
        if not k or dropout or len(calls) == _core.MOST_CALLS:
            _core.backward(calls, len(calls) > 1, most_threads())
            POOL.give_back_all(lent)
            calls, lent = [], []
            if dropout and k:
                mask = masks[k] if masks else dropout.mask(k, first_row, inputs[k])
                dropout.apply(mask, d_input)
        lent.append(d_input)
        d_y = d_input


def _backward_both(stack, packed, layout, layer, x, state_0, saved, d_output, d_state_n, d_state_0, d_weights, d_input):
    """Backward of both directions of one layer; writes d_state_0, d_weights and d_input, (..., I) or (..., 2*P)."""
    d_outputs: list[Any] = [None, None]
    if d_output is not None:
        d_outputs[0] = POOL.array(layout.shape, stack.P, stack.dtype)
        d_outputs[0][...] = d_output[..., : stack.P]
        d_outputs[1] = layout.reversed(d_output[..., stack.P :])
    inputs = x, layout.reversed(x)
    d_inputs = d_input, POOL.array(layout.shape, x.shape[-1], stack.dtype)
    calls = []
    for d, k in enumerate((2 * layer, 2 * layer + 1)):
        calls.append(
            BackwardCall(
                packed[k],
                k,
                inputs[d],
                layout.offsets,
                state_0,
                saved[k],
                d_outputs[d],
                d_state_n,
                d_inputs[d],
                d_state_0,
                d_weights[k],
            )  # fmt: skip
        )
    _core.backward(calls, False, most_threads())
    d_input += in_order_of_time(layout, d_inputs[1])
    POOL.give_back_all([*d_outputs, inputs[1], d_inputs[1]])


# Gates


def gates_of(stack, layout, call, reverse):
    """The gates and states of a forward call at every step, and h.

    Parameters
    ----------
    call : ForwardCall
        It has been run.
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
        named |= dict(zip(stack.spec.gates, gates, strict=True))
    for name, state in zip(stack.spec.states[1:], states[1:]):
        named[name] = state.copy()
    named["h"] = call.output.copy()
    for name, array in named.items():
        rows = array.reshape(*layout.shape, array.shape[-1])
        if reverse:
            rows = in_order_of_time(layout, rows)
        named[name] = layout.pad(rows)
    return named
