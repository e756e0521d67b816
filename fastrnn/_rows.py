"""Ragged batches: the steps that there are of (T, B) of them, in the order in which a kernel takes them."""

from __future__ import annotations

import collections
import math

import numpy as np

from fastrnn._core import RaggedRows
from fastrnn._threads import most_threads
from fastrnn._validation import native

# Memory that a ragged call of a layer needs between its arguments and its results, for the next call: the system takes
# time to clear new memory. What is here nobody uses.
_spares: collections.deque[np.ndarray] = collections.deque(maxlen=4)
MOST_SPARE_BYTES = 8 << 20


def borrow(shape, dtype):
    """An array for use within a call; its values are not set."""
    size = math.prod(shape) * dtype.itemsize
    try:
        memory = _spares.pop()
    except IndexError:
        memory = None
    if memory is None or memory.nbytes < size:
        memory = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


def give_back(array):
    """Of an array that borrow has made, and that nobody uses any more."""
    if array.base is not None and array.base.nbytes <= MOST_SPARE_BYTES:
        _spares.append(array.base)


class Rows:
    """The rows of a batch of T steps and B sequences, each a step of a sequence.

    Of a batch that is not ragged they are (T, B), as they are. Of a ragged one they are (N,), N the sum of the lengths:
    the sequences are ordered by length, the longest first, and the rows by step, so that those of a step are the first
    so many sequences.

    Parameters
    ----------
    T, B : int
    lengths : ndarray of intp, (B,), or None
        Steps of each sequence; None for T of each.

    Attributes
    ----------
    shape : tuple
        (T, B) or (N,).
    offsets : ndarray of intp, (longest + 1,), or None
        The first row of each step, and N; None if the batch is not ragged.
    """

    __slots__ = ("T", "B", "shape", "offsets", "_ragged")

    def __init__(self, T, B, lengths=None):
        self.T, self.B = T, B
        if lengths is None or (lengths == T).all():
            self.shape, self.offsets = (T, B), None
            return
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
        # A step has the sequences that are longer than it is late.
        counts = B - np.cumsum(np.bincount(lengths))[:-1]
        self.offsets = np.zeros(len(counts) + 1, np.intp)
        np.cumsum(counts, out=self.offsets[1:])
        self.shape = (int(self.offsets[-1]),)
        self._ragged = RaggedRows(T, self.offsets, order, lengths)

    @property
    def steps(self):
        """The steps that any sequence has."""
        if self.offsets is None:
            return self.T if self.B else 0
        return len(self.offsets) - 1

    def part(self, t0, t1):
        """The rows of steps t0 to t1, or to the last, as rows of their own."""
        return Part(self, t0, min(t1, self.steps))

    def empty(self, n, dtype):
        """Rows (..., n) whose values are not set; those of a ragged batch are borrowed, because nobody sees them."""
        return np.empty((*self.shape, n), dtype) if self.offsets is None else borrow((*self.shape, n), dtype)

    def gather(self, array, dtype, borrowed=False):
        """(T, B, n), or None, to the rows (..., n), native; of a ragged batch in borrowed memory if that is wanted."""
        if array is None:
            return None
        if self.offsets is None:
            return native(array, dtype)
        if array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
            array = np.ascontiguousarray(array)
        # Before any cast, which is not for what lies beyond the lengths.
        make = borrow if borrowed and array.dtype == dtype else np.empty
        rows = make((*self.shape, array.shape[-1]), array.dtype)
        self._ragged.gather(array, rows, most_threads())
        return native(rows, dtype)

    def scatter(self, rows):
        """The rows (..., n) to (T, B, n), zero where there is no row."""
        if self.offsets is None:
            return np.ascontiguousarray(rows)
        array = np.empty((self.T, self.B, rows.shape[-1]), rows.dtype)
        self._ragged.scatter(rows, array, most_threads())
        return array

    def turned(self, rows):
        """The rows as if every sequence began at its end, a view where there can be one; of None, None."""
        if rows is None:
            return None
        if self.offsets is None:
            return rows[::-1]
        turned = np.empty(rows.shape, rows.dtype)
        self._ragged.turn(np.ascontiguousarray(rows), turned, most_threads())
        return turned

    def gather_state(self, array):
        """(..., B, n), or None, to the kernel's order of sequences; (..., 1, n) has none."""
        if array is None or self.offsets is None or array.shape[-2] == 1:
            return array
        return array[..., self._ragged.order, :]

    def scatter_state(self, state):
        """The way back; of None, None."""
        if state is None or self.offsets is None:
            return state
        array = np.empty_like(state)
        array[..., self._ragged.order, :] = state
        return array


class Part(Rows):
    """Rows of some steps. Its `slice` takes them from an array of all rows, its `first` is the number of the first."""

    __slots__ = ("slice", "first")

    def __init__(self, rows, t0, t1):
        self.T = t1 - t0
        if rows.offsets is None:
            self.B, self.shape, self.offsets = rows.B, (self.T, rows.B), None
            self.slice, self.first = slice(t0, t1), t0 * rows.B
        else:
            begin, end = int(rows.offsets[t0]), int(rows.offsets[t1])
            self.B = int(rows.offsets[t0 + 1]) - begin
            self.shape, self.offsets = (end - begin,), rows.offsets[t0 : t1 + 1] - begin
            self.slice, self.first = slice(begin, end), begin
