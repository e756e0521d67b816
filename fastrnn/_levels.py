"""What runs together: layers on top of each other that read in one direction, or the two directions of one layer.

Both are a level, on rows as fastrnn._rows has them. A level is a list of directions, each a tuple that begins with
whether it is the reverse one, the state before and the state after (h, c), c being None but for the LSTM; then come
lists with an item for each of its layers, the lowest first. Two directions have one layer each.
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._threads import most_threads
from fastrnn.functional import Tape, check_x, empty_like, infer_rows, kept_x, run_back, run_tapes, tape_bytes

# Inference keeps the outputs of all layers of a stack that runs together: of so many steps at a time that they take no
# more than these bytes.
MOST_OUTPUT_BYTES = 16 << 20


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

    A mask depends on nothing but the seed, its number and the place in the array: so it can be made again for
    some rows.
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


def infer_level(cell, rows, x, directions, into=None):
    """The output, of a single direction in the rows `into` if they are given; the state after is written."""
    inputs = [
        (reverse, x, of_layers(state_0, k), one, of_layers(state_n, k))
        for reverse, state_0, state_n, weights in directions
        for k, one in enumerate(weights)
    ]
    if len(inputs) == 1 or len(directions) == 2:
        return joined(infer_rows(cell, rows, inputs, into=into))
    ((_, state_0, state_n, weights),) = directions
    outputs = len(inputs) * math.prod(rows.shape) * state_0[0].shape[-1] * x.itemsize
    every = max(1, rows.steps * MOST_OUTPUT_BYTES // max(1, outputs))
    if every < rows.steps:
        if type(weights[0]) is tuple:
            weights = pack_stack(cell, weights, False)

        def infer(part, x, state, after, into):
            infer_level(cell, part, x, [(False, state, after, weights)], into)

        return in_parts(rows, every, x, state_0, state_n, infer, into)
    if len(inputs) <= _core.MOST_CALLS:
        return infer_rows(cell, rows, inputs, stacked=True, into=into)[-1]
    *below, top = inputs
    for _, _, *others in below:  # rebinding x lets go of the output below: two are alive
        (x,) = infer_rows(cell, rows, [(False, x, *others)])
    return infer_rows(cell, rows, [(False, x, *top[2:])], into=into)[0]


def in_parts(rows, every, x, state_0, state_n, run, output=None):
    """The output, so many steps at a time, of run(part, x, state, after, into), which writes the last two.

    It is made in `output` if that is given; state_n is written.
    """
    for there, here in zip(state_n, state_0):
        if there is not None:
            there[...] = here
    if output is None:
        output = np.empty((*rows.shape, state_0[0].shape[-1]), x.dtype)
    for t0 in range(0, rows.steps, every):
        part = rows.part(t0, t0 + every)
        state = tuple(None if s is None else s[:, : part.B].copy() for s in state_n)
        after = empty_like(state)
        run(part, x[part.slice], state, after, output[part.slice])
        for there, here in zip(state_n, after):
            if there is not None:
                there[:, : part.B] = here
    return output


class TapedLevel:
    """What backward needs of all steps."""

    def __init__(self, tapes, masks, dropout):
        # The tapes of all layers and directions; the masks of what comes into layers but the first.
        self.tapes, self.masks, self.dropout = tapes, masks, dropout

    @classmethod
    def run(cls, cell, rows, x, x_is_private, directions, dropout, first=0, gates=None):
        """The level and its output; the state after is written, and to the list `gates` added as by run_tapes.

        The lists of a direction are weights, or what was packed of them for forward, those packed for backward,
        and memory for what a tape keeps. `first` is the number of the first row.
        """
        tapes, weights, states_n = [], [], []
        stacked = len(directions) == 1
        for reverse, state_0, state_n, for_forward, packed, kept in directions:
            for k, one in enumerate(for_forward):
                below = stacked and k > 0
                tapes.append(
                    Tape(
                        rows,
                        reverse,
                        None if below else x,
                        below or x_is_private,
                        of_layers(state_0, k),
                        packed[k],
                        kept[k],
                    )
                )
                weights.append(one)
                states_n.append(of_layers(state_n, k))
        masks = [None] * len(tapes)
        if not stacked:
            outputs = run_tapes(cell, tapes, weights, states_n, gates=gates)
        elif not dropout and len(tapes) <= _core.MOST_CALLS:
            outputs = run_tapes(cell, tapes, weights, states_n, stacked=True, gates=gates)[-1:]
        else:
            for k, tape in enumerate(tapes):
                if k > 0 and dropout:
                    masks[k] = dropout.mask(k, first, x)
                    x = dropout.applied(masks[k], x)
                if k > 0:
                    tape.x = x
                outputs = run_tapes(cell, [tape], weights[k : k + 1], states_n[k : k + 1], gates=gates)
                (x,) = outputs
        return cls(tapes, masks, dropout), joined(outputs)

    def check_x(self):
        self.tapes[0].check_x()

    def backward(self, d_output, directions, stretches=None):
        """d_x; the directions are tuples of the gradients of the state after, of that before, and of the weights.

        The last two are written. `stretches` has an item for each layer if these are some steps of a sequence, as
        _core.backward has it.
        """
        states = [
            (of_layers(d_state_n, k), of_layers(d_state_0, k), one, stretches and stretches[k])
            for d_state_n, d_state_0, d_weights in directions
            for k, one in enumerate(d_weights)
        ]
        if len(directions) == 2:
            d_x, other = run_back(self.tapes, apart(d_output), states)
            return np.add(d_x, other, out=d_x)
        if len(states) <= _core.MOST_CALLS and not any(mask is not None for mask in self.masks):
            return run_back(self.tapes[::-1], [d_output] * len(states), states[::-1], stacked=True)[-1]
        for tape, mask, state in zip(self.tapes[::-1], self.masks[::-1], states[::-1]):
            (d_output,) = run_back([tape], [d_output], [state])
            if mask is not None:
                d_output = self.dropout.applied(mask, d_output)
        return d_output


def apart(d_output):
    """The parts of a gradient that belong to the two directions."""
    if d_output is None:
        return None, None
    half = d_output.shape[-1] // 2
    return d_output[..., :half], d_output[..., half:]


class CheckpointedLevel:
    """What backward needs of the first step of each stretch of steps, to run forward again for the others."""

    def __init__(self, stretches):
        self.stretches = stretches

    @classmethod
    def run(cls, cell, rows, x, x_is_private, directions, dropout, every):
        """As TapedLevel.run, but that weights are packed for forward, and stay as they are.

        In place of memory there is a function that gives it for the rows of a stretch.
        """
        runs = [Stretches.run(cell, rows, x, x_is_private, *one, dropout, every) for one in directions]
        return cls([stretches for stretches, _ in runs]), joined([output for _, output in runs])

    def check_x(self):
        for stretches in self.stretches:
            stretches.check_x()

    def backward(self, d_output, directions):
        """As TapedLevel.backward."""
        parts = [d_output] if len(directions) == 1 else apart(d_output)
        d_x = None
        for stretches, d_part, gradients in zip(self.stretches, parts, directions):
            d_part_x = stretches.backward(d_part, *gradients)
            d_x = d_part_x if d_x is None else np.add(d_x, d_part_x, out=d_x)
        return d_x


class Stretches:
    """The steps of one direction, `every` at a time."""

    def __init__(self, cell, rows, reverse, every, weights, packed, kept, dropout):
        self.cell, self.rows, self.reverse, self.every = cell, rows, reverse, every
        self.weights, self.packed, self.kept, self.dropout = weights, packed, kept, dropout
        self.states = []

    @classmethod
    def run(cls, cell, rows, x, x_is_private, reverse, state_0, state_n, weights, packed, kept, dropout, every):
        """The stretches and the output; state_n is written."""
        self = cls(cell, rows, reverse, every, weights, packed, kept, dropout)
        self.x, self.fingerprint = kept_x(rows, reverse, x, x_is_private)

        def infer(part, y, state, after, into):
            self.states.append(state)
            if not dropout:
                infer_level(cell, part, y, [(False, state, after, weights)], into)
                return
            for k, one in enumerate(weights):
                if k > 0:
                    y = dropout.applied(dropout.mask(k, part.first, y), y)
                last = into if k == len(weights) - 1 else None
                (y,) = infer_rows(cell, part, [(False, y, of_layers(state, k), one, of_layers(after, k))], into=last)

        output = in_parts(rows, every, self.x, state_0, state_n, infer)
        return self, rows.turned(output) if reverse else output

    def check_x(self):
        check_x(self.x, self.fingerprint)

    def backward(self, d_output, d_state_n, d_state_0, d_weights):
        """d_x; d_state_0 and d_weights are written."""
        if d_output is not None:
            d_output = np.ascontiguousarray(self.rows.turned(d_output) if self.reverse else d_output)
        for there, here in zip(d_state_0, d_state_n):
            if there is not None:
                there[...] = 0 if here is None else here
        d_x = np.empty(self.x.shape, self.x.dtype)
        if not self.states:
            for arrays in d_weights:
                for array in arrays:
                    if array is not None:
                        array[...] = 0
        count = math.prod(self.rows.shape)
        sums = [_core.sums(packed, count) for packed in self.packed]
        shape, kept = None, None
        for number in reversed(range(len(self.states))):
            part = self.rows.part(number * self.every, (number + 1) * self.every)
            state = self.states[number]
            if part.shape != shape:  # else it has the memory of the stretch after it
                shape, kept = part.shape, self.kept(part)
            direction = False, state, empty_like(state), self.weights, self.packed, kept
            level, _ = TapedLevel.run(self.cell, part, self.x[part.slice], True, [direction], self.dropout, part.first)
            d_state = tuple(None if d is None else np.ascontiguousarray(d[:, : part.B]) for d in d_state_0)
            d_before = empty_like(d_state)
            d_part = None if d_output is None else d_output[part.slice]
            after = count - part.first - math.prod(part.shape)
            stretches = [(after, part.first, memory) for memory in sums]
            d_x[part.slice] = level.backward(d_part, [(d_state, d_before, d_weights)], stretches)
            del level  # before there is another one
            for there, here in zip(d_state_0, d_before):
                if there is not None:
                    there[:, : part.B] = here
        return self.rows.turned(d_x) if self.reverse else d_x


def kept_memory(cell, rows, H, projection, dtype):
    """Memory for the tape of a layer."""
    return np.empty(tape_bytes(cell, rows, H, projection, dtype), np.uint8)


def pack_stack(cell, weights, backward, spares=None):
    """The packed weights, in the memory of spares that nobody uses any more, where there are some."""
    spares = spares or [None] * len(weights)
    return [
        _core.pack(cell, one, backward, most_threads(), instruction_set(), spare)
        for one, spare in zip(weights, spares, strict=True)
    ]
