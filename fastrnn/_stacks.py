"""Layers on top of each other that read in one direction, on rows as fastrnn._rows has them.

Everything is a list with an item for each of these layers, the lowest first: weights, packed weights and memory; a state
is (h, c) with an axis for them, c being None but for the LSTM.
"""

from __future__ import annotations

import numpy as np

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._threads import get_num_threads
from fastrnn.functional import Tape, empty_like, infer_rows, kept_shapes


ALL = slice(None)


def of_layers(state, k):
    """The state of one layer, or of a slice of them."""
    if k is ALL:
        return state
    h, c = state
    return None if h is None else h[k], None if c is None else c[k]


def joined(outputs):
    """The outputs of the directions, side by side."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)


class Dropout:
    """Sets numbers between two layers to zero and divides the others by the probability that remains.

    A mask depends on nothing but the seed, its number and the place in the array: so it can be made again for some rows.
    """

    def __init__(self, probability, seed):
        self.probability = probability
        self.seed = seed

    def mask(self, number, first, x):
        """For rows x of an array from row `first` on."""
        generator = np.random.PCG64([self.seed, number])
        generator.advance(first * x.shape[-1])
        return np.random.Generator(generator).random(x.shape) >= self.probability

    def applied(self, mask, x):
        """x, or the gradient of what came of it, with the mask applied."""
        x = x * mask
        x *= 0 if self.probability == 1 else 1 / (1 - self.probability)
        return x


def infer_stack(cell, rows, reverse, x, state_0, state_n, weights):
    """The output; state_n is written."""
    # Rebinding x lets go of the output below: at most two are alive.
    for k, one in enumerate(weights):
        x = infer_rows(cell, rows, reverse, x, of_layers(state_0, k), one, of_layers(state_n, k))
    return x


class TapedStack:
    """What backward needs of all steps."""

    def __init__(self, tapes, masks, dropout):
        self.tapes, self.masks, self.dropout = tapes, masks, dropout

    @classmethod
    def run(cls, cell, rows, reverse, x, x_is_private, state_0, state_n, weights, packed, kept, dropout, first=0):
        """The tapes and the output; state_n is written. See functional.Tape.of; `first` is the first row's number."""
        tapes, masks = [], []
        for k, one in enumerate(weights):
            mask = None
            if k > 0 and dropout:
                mask = dropout.mask(k, first, x)
                x = dropout.applied(mask, x)
            tape, x = Tape.of(
                cell, rows, reverse, x, x_is_private or k > 0, of_layers(state_0, k), one, packed[k], kept[k],
                of_layers(state_n, k),
            )  # fmt: skip
            tapes.append(tape)
            masks.append(mask)
        return cls(tapes, masks, dropout), x

    def check_x(self):
        self.tapes[0].check_x()

    def backward(self, d_output, d_state_n, d_state_0, d_weights, accumulate=False):
        """d_x; d_state_0 and d_weights are written, the latter added to if they accumulate."""
        for k in reversed(range(len(self.tapes))):
            d_output = self.tapes[k].backward(
                d_output, of_layers(d_state_n, k), of_layers(d_state_0, k), d_weights[k], accumulate
            )
            if self.masks[k] is not None:
                d_output = self.dropout.applied(self.masks[k], d_output)
        return d_output


class CheckpointedStack:
    """What backward needs of the first step of each stretch of `every`, to run forward again for the others."""

    def __init__(self, cell, rows, reverse, every, weights, packed, kept, dropout):
        self.cell, self.rows, self.reverse, self.every = cell, rows, reverse, every
        self.weights, self.packed, self.kept, self.dropout = weights, packed, kept, dropout
        self.states = []

    @classmethod
    def run(cls, cell, rows, reverse, x, x_is_private, state_0, state_n, weights, packed, kept, dropout, every):
        """The stack and the output; state_n is written.

        `weights` are packed for forward and stay as they are; kept is a function that gives memory for the tapes of
        a stretch.
        """
        self = cls(cell, rows, reverse, every, weights, packed, kept, dropout)
        if reverse:
            x, x_is_private = rows.turned(x), True
        self.fingerprint = None if x_is_private else _core.fingerprint(x)
        self.x = x if x_is_private else x.view()
        for there, here in zip(state_n, state_0):
            if there is not None:
                there[...] = here
        output = np.empty((*rows.shape, state_0[0].shape[-1]), x.dtype)
        for t0 in range(0, rows.steps, every):
            part = rows.part(t0, t0 + every)
            state = tuple(None if s is None else s[:, : part.B].copy() for s in state_n)
            self.states.append(state)
            y = x[part.slice]
            after = empty_like(state)
            for k, one in enumerate(weights):
                if k > 0 and dropout:
                    y = dropout.applied(dropout.mask(k, part.first, y), y)
                y = infer_rows(cell, part, False, y, of_layers(state, k), one, of_layers(after, k))
            output[part.slice] = y
            for there, here in zip(state_n, after):
                if there is not None:
                    there[:, : part.B] = here
        return self, rows.turned(output) if reverse else output

    def check_x(self):
        if self.fingerprint is not None and _core.fingerprint(self.x) != self.fingerprint:
            raise ValueError("x: changed between forward and backward")

    def backward(self, d_output, d_state_n, d_state_0, d_weights, accumulate=False):
        """d_x; d_state_0 and d_weights are written, the latter added to if they accumulate."""
        if self.reverse:
            d_output = self.rows.turned(d_output)
        for there, here in zip(d_state_0, d_state_n):
            if there is not None:
                there[...] = 0 if here is None else here
        d_x = np.empty(self.x.shape, self.x.dtype)
        if not self.states and not accumulate:
            for arrays in d_weights:
                for array in arrays:
                    if array is not None:
                        array[...] = 0
        for number in reversed(range(len(self.states))):
            part = self.rows.part(number * self.every, (number + 1) * self.every)
            state = self.states[number]
            kept = self.kept(part)
            stack, _ = TapedStack.run(
                self.cell, part, False, self.x[part.slice], True, state, empty_like(state), self.weights, self.packed,
                kept, self.dropout, part.first,
            )  # fmt: skip
            d_state = tuple(None if d is None else np.ascontiguousarray(d[:, : part.B]) for d in d_state_0)
            d_before = empty_like(d_state)
            d_part = None if d_output is None else d_output[part.slice]
            d_x[part.slice] = stack.backward(d_part, d_state, d_before, d_weights, accumulate)
            for there, here in zip(d_state_0, d_before):
                if there is not None:
                    there[:, : part.B] = here
            accumulate = True
        return self.rows.turned(d_x) if self.reverse else d_x


def kept_memory(cell, rows, H, projection, dtype):
    """Memory for the tape of a layer: gates, state and extra."""
    shapes = kept_shapes(cell, rows, H, projection)
    return tuple(None if shape is None else np.empty(shape, dtype) for shape in shapes)


def pack_stack(cell, weights, backward, spares=None):
    """The packed weights, in the memory of spares that nobody uses any more, where there are some."""
    spares = spares or [None] * len(weights)
    return [
        _core.pack(cell, one, backward, get_num_threads(), instruction_set(), spare)
        for one, spare in zip(weights, spares, strict=True)
    ]
