"""fastrnn.pad and fastrnn.unpad: sequences of unequal lengths as one array, and back."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import fastrnn

DTYPES = [np.float64, np.float32, np.float16, ">f4", np.int64, np.uint8, np.bool_, np.complex64]


@st.composite
def batches(draw):
    """Sequences of one dtype and one shape of a step, of lengths from 0."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    step = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    return [draw(hnp.arrays(dtype, (length, *step))) for length in lengths]


@given(batches(), st.booleans())
def test_round_trip(sequences, batch_first):
    x, lengths = fastrnn.pad(sequences, batch_first)
    T, B = max(map(len, sequences)), len(sequences)
    assert x.shape == ((B, T) if batch_first else (T, B)) + sequences[0].shape[1:]
    assert x.dtype == sequences[0].dtype.newbyteorder("=") and x.dtype.isnative
    assert x.flags.c_contiguous and x.flags.owndata and x.flags.writeable
    assert lengths.dtype == np.int64 and lengths.tolist() == [len(sequence) for sequence in sequences]
    for b, sequence in enumerate(sequences):
        row = x[b] if batch_first else x[:, b]
        assert row[: len(sequence)].tobytes() == sequence.astype(x.dtype).tobytes()
        assert not row[len(sequence) :].any()
    back = fastrnn.unpad(x, lengths, batch_first)
    assert len(back) == B
    for actual, expected in zip(back, sequences, strict=True):
        assert actual.dtype == x.dtype and actual.shape == expected.shape and actual.flags.c_contiguous
        assert actual.tobytes() == expected.astype(x.dtype).tobytes()
        assert not np.shares_memory(actual, x)


@pytest.mark.parametrize(
    "dtypes, expected",
    [
        ([np.float32, np.float32], np.float32),
        ([np.float32, np.float64], np.float64),
        ([np.float16, np.float16], np.float16),
        ([np.int64, np.int8], np.int64),
        ([np.int8, np.float32], np.float32),
        ([np.int64, np.float32], np.float64),
        ([bool, np.uint8], np.uint8),
        ([np.float32, np.complex64], np.complex64),
        ([">f4", "<f4"], np.float32),
    ],
)
def test_the_dtype_is_the_smallest_for_all(dtypes, expected):
    x, _ = fastrnn.pad([np.ones((2, 3), dtype) for dtype in dtypes])
    assert x.dtype == expected and x.dtype.isnative


def test_a_given_dtype():
    assert fastrnn.pad([[1, 2], [3]], dtype=np.float32)[0].dtype == np.float32
    assert fastrnn.pad([np.ones(2), np.ones(3)], dtype="float32")[0].dtype == np.float32
    assert fastrnn.pad([np.ones(2)], dtype=">f8")[0].dtype.isnative
    with pytest.raises(
        TypeError, match=r"^sequences\[1\]: cannot be cast from float64 to int64 by NumPy's 'same_kind'"
    ):
        fastrnn.pad([[1], [1.5]], dtype=np.int64)
    for dtype in ("U3", object, "M8[s]"):
        with pytest.raises(TypeError, match="^dtype: expected numbers"):
            fastrnn.pad([[1]], dtype=dtype)
    with pytest.raises(TypeError, match="^dtype: expected a dtype of numbers"):
        fastrnn.pad([[1]], dtype="nonsense")


def test_kinds_of_sequences():
    expected = np.array([[[1, 2], [3, 4]], [[5, 6], [0, 0]]])
    lists = [[[1, 2], [3, 4]], [[5, 6]]]
    for sequences in (lists, tuple(lists), (item for item in lists), [np.array(item) for item in lists]):
        x, lengths = fastrnn.pad(sequences, batch_first=True)
        assert x.tolist() == expected.tolist() and lengths.tolist() == [2, 1]
    x, lengths = fastrnn.pad(np.arange(24).reshape(2, 3, 4))
    assert x.tolist() == np.arange(24).reshape(2, 3, 4).swapaxes(0, 1).tolist() and lengths.tolist() == [3, 3]


def test_sequences_without_steps():
    x, lengths = fastrnn.pad([[], np.ones((2, 3), np.float32), []])
    assert x.shape == (2, 3, 3) and x.dtype == np.float32 and lengths.tolist() == [0, 2, 0]
    x, lengths = fastrnn.pad([np.ones((0, 3), np.float32)])
    assert x.shape == (0, 1, 3) and x.dtype == np.float32 and lengths.tolist() == [0]
    x, lengths = fastrnn.pad([[], []])
    assert x.shape == (0, 2) and lengths.tolist() == [0, 0]
    assert [sequence.shape for sequence in fastrnn.unpad(x, lengths)] == [(0,), (0,)]


@given(batches(), st.booleans(), st.sampled_from([-0.0, 1, True]))
def test_padding(sequences, batch_first, value):
    if value is not True and sequences[0].dtype == bool:
        value = True
    x, lengths = fastrnn.pad(sequences, batch_first, padding_value=value)
    assert x.dtype == sequences[0].dtype.newbyteorder("=") and x.flags.owndata and x.flags.c_contiguous
    expected = np.array(value, x.dtype).tobytes()
    for b, sequence in enumerate(sequences):
        row = x[b] if batch_first else x[:, b]
        assert row[: len(sequence)].tobytes() == sequence.astype(x.dtype).tobytes()
        assert row[len(sequence) :].tobytes() == expected * row[len(sequence) :].size


@pytest.mark.parametrize(
    "value, dtype, expected",
    [
        (-100, np.int64, -100),
        (-1.0, np.int8, -1),
        (np.int64(255), np.uint8, 255),
        (0.1, np.float32, np.float32(0.1)),
        (1e-300, np.float32, 0),
        (np.inf, np.float16, np.inf),
        (np.nan, np.float32, np.nan),
        (1j, np.complex64, 1j),
    ],
)
def test_values_of_padding(value, dtype, expected):
    x, _ = fastrnn.pad([np.ones(2, dtype), np.ones(1, dtype)], padding_value=value)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, np.array([[1, 1], [1, expected]], dtype))


@pytest.mark.parametrize(
    "value, dtype, message",
    [
        (-100, np.uint8, "uint8 cannot hold -100"),
        (256, np.uint8, "uint8 cannot hold 256"),
        (0.5, np.int64, "int64 cannot hold 0.5"),
        (np.nan, np.int8, "int8 cannot hold nan"),
        (2, bool, "bool cannot hold 2"),
        (1e300, np.float32, r"float32 cannot hold 1e\+300"),
        (0j, np.float64, "float64 cannot hold 0j"),
    ],
)
def test_padding_that_the_dtype_cannot_hold(value, dtype, message):
    with pytest.raises(ValueError, match=f"^padding_value: {message}$"):
        fastrnn.pad([np.ones(2, dtype), np.ones(1, dtype)], padding_value=value)


@pytest.mark.parametrize(
    "value, message",
    [("a", "expected numbers, got <U1"), ([0], r"expected a number, got an array of shape \(1,\)"), (None, "expected")],
)
def test_padding_is_a_number(value, message):
    with pytest.raises(TypeError, match=f"^padding_value: {message}"):
        fastrnn.pad([[1, 2], [3]], padding_value=value)


def test_padding_of_ignored_targets():
    """The targets beyond a sequence's end do not count in the loss."""
    rng = np.random.default_rng(0)
    logits, tags = rng.standard_normal((5, 3, 4)), [rng.integers(0, 4, T) for T in (5, 2, 3)]
    targets, lengths = fastrnn.pad(tags, padding_value=-100)
    rows = np.concatenate([logits[:T, b] for b, T in enumerate(lengths)])
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    expected, d_rows = fastrnn.softmax_cross_entropy(rows, np.concatenate(tags))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    found = np.concatenate([d_logits[:T, b] for b, T in enumerate(lengths)])
    np.testing.assert_allclose(found, d_rows, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "error, message, sequences",
    [
        (ValueError, r"sequences: is empty, so that the size of a step is unknown", []),
        (TypeError, r"sequences: expected arrays, got int", 3),
        (TypeError, r"sequences: expected arrays, got NoneType", None),
        (ValueError, r"sequences\[0\]: expected an array with an axis of steps, got a single int", [1, 2]),
        (ValueError, r"sequences\[0\]: expected an array with an axis of steps, got a single str", "abc"),
        (
            ValueError,
            r"sequences\[1\]: expected \(T, 3\) like sequences\[0\], got \(2, 4\)",
            [np.ones((2, 3)), np.ones((2, 4))],
        ),
        (
            ValueError,
            r"sequences\[2\]: expected \(T, 3\) like sequences\[1\], got \(2,\)",
            [[], np.ones((2, 3)), np.ones(2)],
        ),
        (
            ValueError,
            r"sequences\[1\]: expected \(T,\) like sequences\[0\], got \(0, 4\)",
            [np.ones(2), np.ones((0, 4))],
        ),
        (ValueError, r"sequences\[1\]: not an array", [[1], [[1], [1, 2]]]),
        (TypeError, r"sequences\[1\]: expected numbers, got <U1", [[1], ["a"]]),
        (TypeError, r"sequences\[1\]: expected numbers, got object", [[1], np.array([None])]),
        (TypeError, r"sequences\[1\]: expected an array, got None", [[1], None]),
    ],
)
def test_errors(error, message, sequences):
    with pytest.raises(error, match="^" + message):
        fastrnn.pad(sequences)


def test_flags_are_flags():
    with pytest.raises(TypeError, match="^batch_first: expected True or False"):
        fastrnn.pad([[1]], 1)
    with pytest.raises(TypeError, match="^batch_first: expected True or False"):
        fastrnn.unpad([[1]], [1], 1)


def test_too_long_for_memory():
    """Broadcast sequences take no memory themselves."""
    long = np.broadcast_to(np.float64(1), (2**40, 1024))
    with pytest.raises(ValueError, match="^sequences: too large: "):
        fastrnn.pad([long] * 2**11)


def test_a_packed_sequence():
    class PackedSequence(tuple):
        batch_sizes = [1]

    with pytest.raises(TypeError, match="^sequences: a PackedSequence; unpack it"):
        fastrnn.pad(PackedSequence())


def test_errors_of_unpad():
    x = np.zeros((4, 2, 3))
    for error, message, lengths in (
        (ValueError, r"lengths: expected \(B=2,\), got \(3,\)", [1, 2, 3]),
        (ValueError, r"lengths: expected 0 to T=4, got 5 for sequence 1", [1, 5]),
        (ValueError, r"lengths: expected 0 to T=4, got -1 for sequence 0", [-1, 1]),
        (TypeError, r"lengths: expected an integer, got 1.5", [1.5, 1]),
        (TypeError, r"lengths: expected integers, got float64", np.ones(2)),
        (TypeError, r"lengths: expected an array, got None", None),
    ):
        with pytest.raises(error, match="^" + message):
            fastrnn.unpad(x, lengths)
    with pytest.raises(ValueError, match=r"^x: expected at least the axes of steps and of sequences, got \(3,\)"):
        fastrnn.unpad(np.zeros(3), [1])
    with pytest.raises(TypeError, match="^seq_lengths: is called lengths here"):
        fastrnn.unpad(x, seq_lengths=[1, 2])


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_layer_takes_the_result(batch_first):
    layer = fastrnn.LSTM(3, 4, batch_first=batch_first, bidirectional=True, rng=0)
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((T, 3), dtype=np.float32) for T in (2, 5, 0, 3)]
    x, lengths = fastrnn.pad(sequences, batch_first)
    outputs = fastrnn.unpad(layer(x, lengths=lengths)[0], lengths, batch_first)
    for sequence, output in zip(sequences, outputs, strict=True):
        assert output.tobytes() == layer(sequence)[0].tobytes()


def test_awkward_arrays():
    ak = pytest.importorskip("awkward")
    x, lengths = fastrnn.pad(ak.Array([[[1.0, 2], [3, 4]], [], [[5, 6]]]), batch_first=True)
    assert x.tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]] and lengths.tolist() == [2, 0, 1]
    x, lengths = fastrnn.pad(ak.Array([[1, 2, 3], [], [4]]))
    assert x.T.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]] and x.dtype == np.int64 and lengths.tolist() == [3, 0, 1]
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    x, lengths = fastrnn.pad(ak.unflatten(rows, [3, 0, 1]))
    assert x.dtype == np.float32 and x.shape == (3, 3, 3)
    assert [sequence.tolist() for sequence in fastrnn.unpad(x, lengths)] == [rows[:3].tolist(), [], rows[3:].tolist()]
    with pytest.raises(ValueError, match=r"^sequences\[0\]: not an array"):
        fastrnn.pad(ak.Array([[1, None], [2]]))
    with pytest.raises(ValueError, match=r"^sequences\[1\]: not an array"):
        fastrnn.pad(ak.Array([[[1, 2]], [[1, 2], [3]]]))
    with pytest.raises(TypeError, match=r"^sequences\[0\]: expected numbers"):
        fastrnn.pad(ak.Array([[{"a": 1}], []]))


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    tensors = [torch.ones(2, 3), torch.ones(4, 3)]
    expected = torch.nn.utils.rnn.pad_sequence(tensors).numpy()
    x, lengths = fastrnn.pad(tensors)
    assert x.dtype == np.float32 and x.tolist() == expected.tolist() and lengths.tolist() == [2, 4]
    for actual, expected in zip(fastrnn.unpad(torch.from_numpy(x), torch.tensor([2, 4])), tensors, strict=True):
        assert actual.tolist() == expected.tolist()
    with pytest.raises(TypeError, match=r"^sequences\[1\]: a tensor that requires grad"):
        fastrnn.pad([torch.ones(2), torch.ones(2, requires_grad=True)])
    with pytest.raises(TypeError, match=r"^sequences\[0\]: not an array: .*give its .float"):
        fastrnn.pad([torch.ones(2).bfloat16()])
    with pytest.raises(TypeError, match="^sequences: a PackedSequence"):
        fastrnn.pad(torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False))
