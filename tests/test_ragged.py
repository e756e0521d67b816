"""Rows of ragged batches: gather, scatter and reversal equal plain loops, for all strides and numbers of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn._core import PackedSequences
from fastrnn._engine.ragged import PackedRows, layout_of

LAYOUTS = {
    "contiguous": lambda array: array,
    "batch first": lambda array: np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2),
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "numbers apart": lambda array: np.repeat(array, 2, axis=2)[:, :, ::2],
    "broadcast": lambda array: np.broadcast_to(array[:, :1], array.shape),
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
}


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    spare=st.integers(0, 2),
    n=st.integers(0, 5),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_small_batches(lengths, spare, n, layout):
    check(np.array(lengths), max(lengths) + spare, n, layout, np.float64)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_a_batch_for_several_threads(num_threads, dtype, threads):
    threads(num_threads)
    check(np.random.default_rng(0).integers(0, 200, 67), 205, 33, "batch first", dtype)
    check(np.array([3000, 1, 0]), 3000, 70, "contiguous", dtype)


def check(lengths, T, n, layout, dtype):
    B = len(lengths)
    array = LAYOUTS[layout](np.random.default_rng(1).normal(size=(T, B, n)).astype(dtype))
    order = np.argsort(-lengths, kind="stable")
    places = [(t, b) for t in range(T) for b in order if t < lengths[b]]
    expected = np.array([array[t, b] for t, b in places], dtype).reshape(len(places), n)
    opposite = np.array([array[lengths[b] - 1 - t, b] for t, b in places], dtype).reshape(len(places), n)
    padded = np.where(np.arange(T)[:, None, None] < lengths[:, None], array, 0)

    layout = layout_of(T, B, lengths)
    packed = layout.pack(array, np.dtype(dtype))
    if layout.offsets is None:
        assert (lengths == T).all()
        return
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_array_equal(layout.reversed(packed), opposite)
    np.testing.assert_array_equal(layout.reversed(layout.reversed(packed)), expected)
    np.testing.assert_array_equal(layout.pad(packed), padded)
    assert packed.dtype == dtype and packed.dtype.isnative


def test_states_are_reordered_there_and_back(dtype):
    lengths = np.array([2, 0, 5, 2, 7])
    order = np.argsort(-lengths, kind="stable")
    for shape in ((3, 5, 4), (5, 4), (0, 5, 4), (2, 5, 0)):
        state = np.random.default_rng(0).normal(size=shape).astype(dtype)
        sequences = PackedSequences.of(7, lengths)
        found = sequences.reordered(state, False)
        np.testing.assert_array_equal(found, state[..., order, :])
        np.testing.assert_array_equal(sequences.reordered(found, True), state)
    for wrong in (state[..., :4, :], np.zeros((5, 8), dtype)[:, ::2], np.zeros(5, dtype)):
        with pytest.raises(ValueError, match="contiguous state"):
            sequences.reordered(wrong, False)


def test_batch_sizes_that_describe_no_rows():
    def sequences(sizes, rows, order=None):
        return PackedSequences.of_batch_sizes(np.array(sizes, np.intp), rows, order)

    found = sequences([3, 3, 1], 7, np.array([2, 0, 1]))
    assert found.offsets.tolist() == [0, 3, 6, 7] and found.order.tolist() == [2, 0, 1]
    for sizes, rows in [
        ([], 0),
        ([0], 0),
        ([2, -1], 1),
        ([2, -(10**9)], 2),
        ([2, -(10**9), 10**9], 2),
        ([2, 0, 1], 3),
        ([1, 2], 3),
        ([2, 1], 4),
        ([2, 1], 2),
        ([2**62, 2**62], 0),
        ([-3], 3),
    ]:
        assert sequences(sizes, rows) is None, sizes
    for order in ([0, 1], [0, 1, 1], [0, 1, 3], [0, -1, 1]):
        assert sequences([3, 3, 1], 7, np.array(order)) is None, order
    with pytest.raises(ValueError, match="batch_sizes: expected positive"):
        PackedRows(np.array([2, -(10**9), 10**9]))


def test_arrays_that_are_not_of_the_batch_are_refused():
    offsets, order, lengths = np.array([0, 2, 3]), np.array([1, 0]), np.array([2, 1])
    rows = PackedSequences(4, offsets, order, lengths)
    array, packed = np.zeros((4, 2, 5)), np.zeros((3, 5))
    rows.pad(packed, array, 1)
    for wrong in (array[:3], array[:, :1], array[..., :4], array.astype(np.float32), np.zeros((4, 2, 10))[..., ::2]):
        with pytest.raises(ValueError, match="cannot be moved"):
            rows.pack(wrong, packed, 1)
        with pytest.raises(ValueError, match="cannot be moved"):
            rows.pad(packed, wrong, 1)
    for wrong in (packed[:2], np.zeros((3, 10))[:, ::2]):
        with pytest.raises(ValueError, match="not the rows"):
            rows.pack(array, wrong, 1)
        with pytest.raises(ValueError, match="not the rows"):
            rows.reverse(packed, wrong, 1)
    with pytest.raises(ValueError, match="cannot be moved"):
        rows.reverse(packed, np.zeros((3, 4)), 1)
    with pytest.raises(ValueError, match="indices of int32"):
        PackedSequences(4, offsets.astype(np.int32), order, lengths)
