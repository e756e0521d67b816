"""One initial state (num_layers * D, 1, H), for example a learned one, is broadcast to all sequences of a batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
import recurrent_cases
from fastrnn import functional, reference
from layer_cases import draw, layers, members, results, state_like, states_of


def whole(shared, B):
    """A shared state, repeated for every sequence."""
    one = tuple(None if s is None else np.repeat(s, B, axis=-2) for s in members(shared))
    return one if isinstance(shared, tuple) else one[0]


def total(d_state):
    """The documented sum: from the first sequence to the last, in float64, rounded once."""
    sums = np.zeros((*d_state.shape[:-2], 1, d_state.shape[-1]))
    for b in range(d_state.shape[-2]):
        sums[..., 0, :] += d_state[..., b, :].astype(np.float64)
    return sums.astype(d_state.dtype)


@settings(deadline=None, max_examples=60)
@given(layers(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.data())
def test_layers(layer, T, B, which, data):
    if data.draw(st.booleans()):
        layer = type(layer)(**{**layer._constructor_arguments(), "dtype": np.float32}, rng=1)
    if data.draw(st.booleans()):
        layer.freeze()
    options = data.draw(st.sampled_from([{}, {"checkpoint_every": 2}]))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    axes = (B, T) if layer.batch_first else (T, B)
    x = draw(0, *axes, layer.input_size, dtype=layer.dtype)
    state = state_like(layer, 1, 1)
    full = whole(state, B)
    if isinstance(state, tuple) and which < 2:  # one of the two is given for each sequence, or is missing
        state = tuple(f if k == which else s for k, (s, f) in enumerate(zip(state, full)))
    d_state_n = state_like(layer, B, 3)
    d_output = np.ones((*axes, layer(x)[0].shape[-1]), layer.dtype)
    found = results(layer, x, state, lengths, d_output, d_state_n, **options)
    expected = results(layer, x, full, lengths, d_output, d_state_n, **options)
    for name, one in zip((f"d_{name}_0" for name in states_of(layer)), members(state)):
        if one.shape[1] == 1 != B:
            expected[name] = total(expected[name])
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.shape == expected[name].shape and array.tobytes() == expected[name].tobytes(), name
    output, state_n = layer(x, state, lengths)
    assert output.tobytes() == found["output"].tobytes() and members(state_n)[0].shape[1] == B


@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN, fastrnn.SLSTM, fastrnn.UGRNN])
@pytest.mark.parametrize("options", [{}, {"lengths": [4, 0, 2]}, {"checkpoint_every": 3}])
def test_gradients_match_finite_differences(cls, options):
    layer = cls(3, 4, 2, bidirectional=True, dtype=np.float64, rng=0)
    x, d_output = draw(0, 5, 3, 3), draw(1, 5, 3, 8)
    state, d_state_n = state_like(layer, 1, 2), state_like(layer, 3, 4)
    lengths = options.get("lengths")

    def loss():
        output, state_n = layer(x, state, lengths)
        return (output * d_output).sum() + sum((s * d).sum() for s, d in zip(members(state_n), members(d_state_n)))

    *_, tape = layer.forward(x, state, **options)
    d_state = members(layer.backward(tape, d_output, d_state_n)[1])
    step = 1e-5
    for array, gradient in zip(members(state), d_state, strict=True):
        assert gradient.shape == array.shape == (4, 1, 4)
        for i in np.ndindex(array.shape):
            kept = array[i]
            array[i] = kept + step
            above = loss()
            array[i] = kept - step
            below = loss()
            array[i] = kept
            assert abs(gradient[i] - (above - below) / (2 * step)) < 1e-8


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize("cell", recurrent_cases.GATES)
@pytest.mark.parametrize("lengths", [None, [2, 0, 3, 3]])
def test_functions(module, cell, lengths):
    case = recurrent_cases.draw(np.random.default_rng(0), cell, 3, 4, 2, 5)
    case = recurrent_cases.with_options(case, **({} if lengths is None else {"lengths": np.array(lengths)}))
    one = tuple(s[:1] for s in case.state)
    found = recurrent_cases.run(module, case._replace(state=one))
    expected = recurrent_cases.run(module, case._replace(state=tuple(np.repeat(s, 4, axis=0) for s in one)))
    for name, array in found.items():
        wanted = total(expected[name]) if name.startswith("d_") and name.endswith("_0") else expected[name]
        assert array.shape == wanted.shape and array.tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize("cls", [fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell, fastrnn.UGRNNCell])
@pytest.mark.parametrize("B", [0, 1, 7])
def test_cells(cls, B):
    cell = cls(3, 5, rng=0)
    x, h, d = draw(0, B, 3), draw(1, 1, 5), draw(2, B, 5).astype(np.float32)
    state, gradient = ((h, h + 1), (d, None)) if cls is fastrnn.LSTMCell else (h, d)
    full = whole(state, B)
    after, tape = cell.forward(x, state)
    expected, full_tape = cell.forward(x, full)
    d_x, d_state, d_params = cell.backward(tape, gradient)
    d_x_full, d_state_full, d_params_full = cell.backward(full_tape, gradient)
    for a, b in zip([*members(after), *members(cell(x, state))], [*members(expected)] * 2, strict=True):
        assert a.shape == (B, 5) and a.tobytes() == b.tobytes()
    assert d_x.tobytes() == d_x_full.tobytes() and d_params == d_params_full
    for a, b in zip(members(d_state), members(d_state_full), strict=True):
        assert a.shape == (1, 5) and a.tobytes() == (total(b) if B != 1 else b).tobytes()


def test_streams():
    layer = fastrnn.LSTM(3, 5, 2, rng=0)
    stream, twin = layer.stream(4), layer.stream(4)
    h, c = draw(0, 2, 1, 5), draw(1, 2, 1, 5)
    stream.state, twin.state = (h, c), whole((h, c), 4)
    x_t = draw(2, 4, 3)
    assert stream.step(x_t).tobytes() == twin.step(x_t).tobytes()
    with pytest.raises(ValueError, match="^state .h.: expected"):
        layer.stream().state = h, c


def test_only_the_axis_of_the_batch_is_shared():
    layer, x = fastrnn.GRU(3, 5, 2, rng=0), draw(0, 4, 6, 3)
    for shape in ((1, 6, 5), (1, 1, 5), (2, 6, 1), (2, 2, 5), (2, 5)):
        with pytest.raises(ValueError, match="^state: expected"):
            layer(x, np.zeros(shape))
    for shape in ((2, 1, 5), (1, 5)):
        with pytest.raises(ValueError, match="^state: expected"):
            layer(x[:, 0], np.zeros(shape))
    output, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="^d_state_n: expected"):
        layer.backward(tape, output, np.zeros((2, 1, 5)))
