"""`masked`: holes and padding anywhere, against loops over the steps, and against Keras."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

I, H = 3, 4


def filled(output, valid, backwards, zeros):
    """(T, n): outputs of the valid steps alone, in order of time, repeated at the others in a loop."""
    steps = list(range(len(valid)))
    places = {t: k for k, t in enumerate(t for t in steps if valid[t])}
    result = np.zeros((len(valid), output.shape[-1]), output.dtype)
    last = np.zeros(output.shape[-1], output.dtype)
    for t in reversed(steps) if backwards else steps:
        if valid[t]:
            last = output[places[t]]
        result[t] = 0 if zeros and not valid[t] else last
    return result


def expected_of(layer, x, mask, state, zeros):
    """One sequence after the other, (B, T, I): the layer runs over its valid steps alone."""
    outputs, states = [], []
    for b in range(len(x)):
        of_b = [s[:, b] for s in state]
        output, state_n = layer(x[b][mask[b]], of_b if len(of_b) > 1 else of_b[0])
        parts = np.split(output, 1 + layer.bidirectional, axis=-1)
        backwards = [False, True] if layer.bidirectional else [layer.reverse]
        outputs.append(np.concatenate([filled(p, mask[b], d, zeros) for p, d in zip(parts, backwards)], axis=-1))
        states.append(state_n if isinstance(state_n, tuple) else (state_n,))
    return np.stack(outputs), [np.stack(one, axis=1) for one in zip(*states)]


@given(
    st.sampled_from(["LSTM", "GRU", "RNN", "SLSTM", "UGRNN"]),
    st.sampled_from(["forward", "reverse", "bidirectional"]),
    st.integers(1, 2),
    st.integers(1, 4),
    st.integers(0, 7),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_random_masks(name, direction, num_layers, B, T, batch_first, zeros, dtype, seed):
    rng = np.random.default_rng(seed)
    options = {} if direction == "forward" else {direction: True}
    layer = getattr(fastrnn, name)(
        I, H, num_layers=num_layers, batch_first=batch_first, dtype=dtype, rng=rng, **options
    )
    x = rng.standard_normal((B, T, I)).astype(dtype)
    mask = rng.random((B, T)) < rng.choice([0.0, 0.3, 0.8, 1.0], (B, 1))
    x[~mask] = np.nan
    count = num_layers * (1 + layer.bidirectional)
    names = {"LSTM": 2, "SLSTM": 4}.get(name, 1)
    state = [abs(rng.standard_normal((count, B, H))).astype(dtype) for _ in range(names)]
    expected, expected_n = expected_of(layer, x, mask, state, zeros)
    given_state = state if names > 1 else state[0]
    axes = (0, 1, 2) if batch_first else (1, 0, 2)
    output, state_n = fastrnn.masked(
        layer, x.transpose(axes), mask.transpose(axes[:2]), given_state, zero_output_for_mask=zeros
    )
    assert output.dtype == dtype
    np.testing.assert_array_equal(output.transpose(axes), expected)
    for one, other in zip(state_n if names > 1 else (state_n,), expected_n, strict=True):
        np.testing.assert_array_equal(one, other)
    one, _ = fastrnn.masked(layer, x[0], mask[0], zero_output_for_mask=zeros)
    zero_state = [np.zeros_like(s) for s in state]
    np.testing.assert_array_equal(one, expected_of(layer, x[:1], mask[:1], zero_state, zeros)[0][0])


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}])
def test_no_sequences_or_no_steps(shape, options):
    layer = fastrnn.LSTM(I, H, batch_first=True, rng=0, **options)
    x = np.zeros((*shape, I))
    output, (h_n, c_n) = fastrnn.masked(layer, x, np.zeros(shape, bool))
    plain, (h, c) = layer(x)
    assert output.shape == plain.shape and h_n.shape == h.shape and not h_n.any() and not c_n.any()


def test_a_mask_of_padding_is_lengths():
    layer = fastrnn.GRU(I, H, bidirectional=True, rng=0)
    x = np.random.default_rng(0).standard_normal((6, 3, I))
    lengths = [2, 6, 0]
    mask = np.arange(6)[:, None] < lengths
    output, h_n = fastrnn.masked(layer, x, mask, zero_output_for_mask=True)
    expected, expected_h = layer(x, lengths=lengths)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(h_n, expected_h)


def test_the_arguments_stay_as_they_are():
    layer = fastrnn.GRU(I, H, rng=0)
    layer.freeze()
    x, mask = np.ones((5, 2, I), np.float32), np.array([[True, False]] * 5)
    before = x.copy(), mask.copy()
    output, h_n = fastrnn.masked(layer, x, mask)
    assert np.array_equal(x, before[0]) and np.array_equal(mask, before[1])
    assert output.flags.writeable and not np.shares_memory(output, x)


def test_messages():
    layer = fastrnn.LSTM(I, H, rng=0)
    x, mask = np.zeros((5, 2, I)), np.ones((5, 2), bool)

    def refused(error, message, *arguments, **options):
        with pytest.raises(error, match="^" + message):
            fastrnn.masked(*arguments, **options)

    refused(
        TypeError,
        "layer: expected one of GRU, LSTM, RNN, SLSTM, UGRNN, Quantized, got LSTMCell",
        fastrnn.LSTMCell(I, H),
        x,
        mask,
    )
    refused(ValueError, r"x: expected \(T, B, input_size=3\), got \(5, 2, 4\)", layer, np.zeros((5, 2, 4)), mask)
    refused(ValueError, r"x: expected \(T, B, input_size=3\) or", layer, np.zeros(3), mask)
    refused(ValueError, r"mask: expected \(T=5, B=2\), got \(2, 5\)", layer, x, mask.T)
    refused(ValueError, r"mask: expected \(T=5,\), got \(2,\)", layer, x[:, 0], mask[0])
    refused(TypeError, "mask: expected booleans, got int64", layer, x, mask.astype(np.int64))
    refused(TypeError, "zero_output_for_mask: ", layer, x, mask, zero_output_for_mask=1)
    refused(ValueError, "state: expected", layer, x, mask, (None,))
    refused(TypeError, "initial_state: is called state here", layer, x, mask, initial_state=None)


# Keras


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.mark.parametrize("form", ["layer", "backwards", "bidirectional", "zeros", "unroll"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_as_keras(keras, name, form):
    rng = np.random.default_rng(5)
    options = {"zeros": {"zero_output_for_mask": True}, "backwards": {"go_backwards": True}, "unroll": {"unroll": True}}
    layer = getattr(keras.layers, name)(H, return_sequences=True, return_state=True, **options.get(form, {}))
    if form == "bidirectional":
        layer = keras.layers.Bidirectional(layer)
    layer.build((None, None, I))
    layer.set_weights([rng.uniform(-0.7, 0.7, w.shape).astype(w.dtype) for w in layer.get_weights()])
    ours = fastrnn.from_keras(layer)
    x = rng.standard_normal((6, 7, I)).astype(np.float32)
    mask = rng.random((6, 7)) < 0.5
    mask[0], mask[1], mask[2, :3], mask[3, 3:] = False, True, False, False
    expected, *states = (keras.ops.convert_to_numpy(one) for one in layer(x, mask=mask))
    output, state_n = fastrnn.masked(ours, x, mask, zero_output_for_mask=form in ("zeros", "bidirectional"))
    np.testing.assert_allclose(output[:, ::-1] if ours.reverse else output, expected, rtol=0, atol=2e-6)
    state_n = state_n if isinstance(state_n, tuple) else (state_n,)
    for one, other in zip([s[d] for d in range(1 + ours.bidirectional) for s in state_n], states, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_the_mask_of_masking(keras):
    x = np.random.default_rng(0).standard_normal((4, 6, I)).astype(np.float32)
    x[1, 2:4], x[2, 0], x[3] = 0, 0, 0
    layer = keras.layers.GRU(H, return_sequences=True)
    expected = keras.Sequential([keras.Input((None, I)), keras.layers.Masking(0.0), layer])(x)
    output, _ = fastrnn.masked(fastrnn.from_keras(layer), x, (x != 0.0).any(axis=-1))
    np.testing.assert_allclose(output, keras.ops.convert_to_numpy(expected), rtol=0, atol=2e-6)
