"""The time steps of a batch in memory: padded, or packed as in PyTorch's PackedSequence."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np

from fastrnn._core import PackedSequences, native
from fastrnn._engine.pool import POOL
from fastrnn._threads import most_threads


class Layout:
    """How the time steps of T steps and B sequences lie in memory.

    In padded layout an array is (T, B, n). In packed layout, that of a ragged batch, it is (N, n), N being the sum of
    the lengths: the sequences are sorted by length, the longest first; step t has a row of each sequence longer than t,
    in that order, and comes after step t - 1. `shape` is that of an array without its last axis.

    Layouts are immutable: calls and tapes share them.

    Parameters
    ----------
    T, B : int
    lengths : ndarray of intp, (B,), or None
        The time steps of each sequence, 0 to T; None for T of each.
    resets : ndarray of bool, (T, B), or None
        The steps before which the states of a sequence become zeros.

    Attributes
    ----------
    shape : tuple of int
        (T, B) or (N,).
    rows : int
        T * B or N.
    steps : int
        The time steps of the longest sequence; 0 without sequences.
    offsets : ndarray of intp, (steps + 1,), or None
        The first row of each step, and N: the cumulative sum of `batch_sizes`. None in padded layout.
    sequences : PackedSequences or None
        The sequences by their lengths, which moves rows between the layouts. None in padded layout.
    first : int
        The index of the first row in the whole batch: 0 except for a segment.
    resets : ndarray of bool, (T, B) or (N,), or None
        The flags of the rows, in the order in which they are read.
    """

    __slots__ = (
        "T", "B", "shape", "rows", "steps", "offsets", "first", "resets", "sequences", "_lengths", "_padded_resets",
    )  # fmt: skip

    T: int
    B: int
    shape: tuple[int, ...]
    rows: int
    steps: int
    offsets: Any
    sequences: Any
    first: int
    resets: Any

    def __init__(self, T: int, B: int, lengths: Any = None, resets: Any = None) -> None:
        self.T, self.B, self.first, self.resets = T, B, 0, resets
        self._lengths, self._padded_resets = lengths, resets
        if lengths is None:
            self.shape, self.rows, self.steps, self.offsets = (T, B), T * B, T if B else 0, None
            self.sequences = None
            return
        self.sequences = PackedSequences.of(T, lengths)
        self.offsets = self.sequences.offsets
        self.steps, self.rows = len(self.offsets) - 1, int(self.offsets[-1])
        self.shape = (self.rows,)
        if resets is not None:
            self.resets = self._packed_resets(resets)

    def _packed_resets(self, resets):
        """Flags (T, B) in packed layout, (N,)."""
        packed = np.empty((self.rows, 1), bool)
        self.sequences.pack(resets[..., None], packed, most_threads())
        return packed[:, 0]

    def of_direction(self, reverse):
        """This layout with the flags of the rows as one direction reads them.

        A flag at t separates t from t - 1. From the end of a sequence, t - 1 is read after t: its state becomes zeros
        before t - 1. A flag at 0 separates nothing then.
        """
        if not reverse or self._padded_resets is None:
            return self
        lengths = np.full(self.B, self.T) if self._lengths is None else self._lengths
        steps, resets = np.arange(self.T)[:, None], np.zeros((self.T, self.B), bool)
        # Step s of a sequence of length n reads n - 1 - s, after n - s.
        valid = (0 < steps) & (steps < lengths)
        resets[valid] = np.take_along_axis(self._padded_resets, np.where(valid, lengths - steps, 0), axis=0)[valid]
        layout = copy.copy(self)
        layout.resets = resets if self.offsets is None else self._packed_resets(resets)
        return layout

    def pack(self, array, dtype):
        """A padded array (T, B, n) in this layout, native.

        In padded layout it is the array itself if that can be read in place; in packed layout, memory of the pool.
        Values beyond the lengths are neither read nor cast.
        """
        if self.offsets is None:
            return native(array, dtype)
        if array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
            array = np.ascontiguousarray(array)
        if array.dtype != dtype:
            packed = np.empty((self.rows, array.shape[-1]), array.dtype)
            self.sequences.pack(array, packed, most_threads())
            return native(packed, dtype)
        packed = POOL.array(self.shape, array.shape[-1], dtype)
        self.sequences.pack(array, packed, most_threads())
        return packed

    def pad(self, rows):
        """An array in this layout as a padded one (T, B, n), contiguous, with zeros beyond the lengths."""
        if self.offsets is None:
            return np.ascontiguousarray(rows)
        array = POOL.empty((self.T, self.B, rows.shape[-1]), rows.dtype)
        self.sequences.pad(rows, array, most_threads())
        return array

    def reversed(self, rows):
        """A contiguous copy of an array of this layout, in memory of the pool, with each sequence in opposite order."""
        array = POOL.array(self.shape, rows.shape[-1], rows.dtype)
        if self.offsets is None:
            array[...] = rows[::-1]
        else:
            self.sequences.reverse(np.ascontiguousarray(rows), array, most_threads())
        return array

    def sort(self, states):
        """States (..., B, n) or None with the sequences in the order of this layout; (..., 1, n) is unchanged."""
        if self.offsets is None:
            return states
        order = self.sequences.order
        return [s if s is None or s.shape[-2] == 1 else s[..., order, :] for s in states]

    def unsort(self, states):
        """Contiguous states (..., B, n) in the order of this layout with the sequences in the order of the caller."""
        return states if self.offsets is None else [self.sequences.reordered(s, True) for s in states]


@functools.lru_cache(maxsize=256)
def padded(T: int, B: int) -> Layout:
    """The padded layout of T steps and B sequences."""
    return Layout(T, B)


def layout_of(T, B, lengths, resets=None):
    """The layout of a batch: packed if any of the lengths, which may be None, is less than T."""
    if lengths is not None and (lengths == T).all():
        lengths = None
    return padded(T, B) if lengths is None and resets is None else Layout(T, B, lengths, resets)


class Segment(Layout):
    """Steps t0 to t1 of another layout, as a layout.

    Attributes
    ----------
    slice : slice
        Takes the segment from an array of the whole layout.
    """

    __slots__ = ("slice",)

    def __init__(self, whole, t0, t1):
        self.T = self.steps = t1 - t0
        if whole.offsets is None:
            self.B, self.shape, self.offsets = whole.B, (self.T, whole.B), None
            self.slice, self.first, self.rows = slice(t0, t1), t0 * whole.B, self.T * whole.B
        else:
            begin, end = int(whole.offsets[t0]), int(whole.offsets[t1])
            self.B = int(whole.offsets[t0 + 1]) - begin
            self.rows = end - begin
            self.shape, self.offsets = (self.rows,), whole.offsets[t0 : t1 + 1] - begin
            self.slice, self.first = slice(begin, end), begin
        self.resets = None if whole.resets is None else whole.resets[self.slice]


def segments(layout, every):
    """The layout cut into segments of so many steps, the last of which may be shorter."""
    return [Segment(layout, t0, min(t0 + every, layout.steps)) for t0 in range(0, layout.steps, every)]


class PackedRows(Layout):
    """The layout of a batch whose arrays the caller has in packed layout, as PyTorch's PackedSequence.

    Arrays (N, n) come and go without a step of padding, and the states are in the order of the layout.

    Parameters
    ----------
    batch_sizes : ndarray of int, (T,)
        The sequences of each step: positive, and none larger than the one before.

    Raises
    ------
    ValueError
        If these are no such batch sizes.
    """

    __slots__ = ()

    def __init__(self, batch_sizes):
        self.rows = int(batch_sizes.sum())
        self.sequences = PackedSequences.of_batch_sizes(batch_sizes.astype(np.intp), self.rows)
        if self.sequences is None:
            raise ValueError("batch_sizes: expected positive integers, none larger than the one before")
        self.offsets, self.shape = self.sequences.offsets, (self.rows,)
        self.T = self.steps = len(batch_sizes)
        self.B, self.first, self.resets = len(self.sequences.order), 0, None
        self._lengths = self._padded_resets = None

    def pack(self, array, dtype):
        return native(array, dtype)

    def pad(self, rows):
        """A copy, in memory of the caller."""
        return rows.copy()

    def sort(self, states):
        return states

    def unsort(self, states):
        return states
