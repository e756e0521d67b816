"""LSTMCell, GRUCell, RNNCell and UGRNNCell: a layer's single step, bit for bit."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn

CELLS = [
    (fastrnn.LSTMCell, fastrnn.LSTM, {}),
    (fastrnn.GRUCell, fastrnn.GRU, {}),
    (fastrnn.RNNCell, fastrnn.RNN, {}),
    (fastrnn.RNNCell, fastrnn.RNN, {"nonlinearity": "relu"}),
    (fastrnn.UGRNNCell, fastrnn.UGRNN, {}),
]
I, H = 5, 19


def draw(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def members(state):
    return state if isinstance(state, tuple) else (state,)


def pair(cell_class, layer_class, options, dtype=np.float32, **more):
    """A cell and a layer with the same parameters."""
    cell = cell_class(I, H, **options, **more, dtype=dtype, rng=1)
    layer = layer_class(I, H, **options, **more, dtype=dtype)
    layer.load_state_dict({f"{name}_l0": array for name, array in cell.state_dict().items()})
    return cell, layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cell_class", "layer_class", "options"), CELLS)
def test_a_cell_is_a_step_of_a_layer(cell_class, layer_class, options, dtype, bias):
    cell, layer = pair(cell_class, layer_class, options, dtype, bias=bias)
    B = 6
    x = draw(1, B, I, dtype=dtype)
    state, d_state = ([draw(k, B, H, dtype=dtype) for k in (s, s + 1)] for s in (2, 4))
    two = cell_class is fastrnn.LSTMCell
    state, d_state = (tuple(s) if two else s[0] for s in (state, d_state))
    of_layer = tuple(s[None] for s in state) if two else state[None]
    d_of_layer = tuple(s[None] for s in d_state) if two else d_state[None]

    _, state_n, layer_tape = layer.forward(x[None], of_layer)
    expected_d_x, expected_d_state, expected_d_params = layer.backward(layer_tape, None, d_of_layer)
    for frozen in (False, True):
        if frozen:
            cell.freeze()
        after, tape = cell.forward(x, state)
        for found in (after, cell(x, state)):
            assert [s.tobytes() for s in members(found)] == [s.tobytes() for s in members(state_n)]
        d_x, d_before, d_params = cell.backward(tape, d_state)
        assert d_x.shape == (B, I) and d_x.tobytes() == expected_d_x.tobytes()
        assert [d.tobytes() for d in members(d_before)] == [d.tobytes() for d in members(expected_d_state)]
        assert d_params.flat.tobytes() == expected_d_params.flat.tobytes()
        assert list(d_params) == list(cell.params) == list(cell.state_dict())


@pytest.mark.parametrize(("cell_class", "layer_class", "options"), CELLS)
def test_shapes(cell_class, layer_class, options):
    cell = cell_class(I, H, **options, rng=1)
    x = draw(1, 3, I)
    many, one = cell(x), cell(x[1])
    assert all(s.shape == (3, H) for s in members(many)) and all(s.shape == (H,) for s in members(one))
    assert [s[1].tobytes() for s in members(many)] == [s.tobytes() for s in members(one)]
    assert all(s.shape == (0, H) for s in members(cell(x[:0])))
    after, tape = cell.forward(x[1], one)
    d_x, d_state, _ = cell.backward(tape, after)
    assert d_x.shape == (I,) and all(d.shape == (H,) for d in members(d_state))
    steps, _ = layer_steps(cell, x)
    assert steps.shape == (3, H)


def layer_steps(cell, x):
    state, outputs = None, []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(members(state)[0])
    return np.stack(outputs), state


@pytest.mark.parametrize(("cell_class", "layer_class", "options"), CELLS)
def test_an_unrolled_layer_is_its_cells_in_a_row(cell_class, layer_class, options):
    cell, layer = pair(cell_class, layer_class, options)
    x = draw(1, 9, I)
    outputs, state = layer_steps(cell, x)
    output, state_n = layer(x)
    assert outputs.tobytes() == output.tobytes()
    assert [s.tobytes() for s in members(state)] == [s[0].tobytes() for s in members(state_n)]


@pytest.mark.parametrize(("cell_class", "layer_class", "options"), CELLS)
def test_refused_arguments(cell_class, layer_class, options):
    cell = cell_class(I, H, **options, rng=1)
    x = draw(1, 3, I)
    for wrong in (x[None], x[:, 1:], np.zeros(())):
        with pytest.raises(ValueError, match="^x: expected"):
            cell(wrong)
    with pytest.raises(TypeError, match="^x: cannot be cast"):
        cell(x.astype(complex))
    wrong = np.zeros((3, H + 1))
    with pytest.raises(ValueError, match="^state"):
        cell(x, (wrong, wrong) if cell_class is fastrnn.LSTMCell else wrong)
    after, tape = cell.forward(x)
    with pytest.raises(ValueError, match="^tape: made by another cell"):
        cell_class(I, H, **options).backward(tape, after)
    with pytest.raises(TypeError, match="^tape: expected"):
        cell.backward(None, after)
    x[0] += 1
    with pytest.raises(ValueError, match="^x: changed"):
        cell.backward(tape, after)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="^a tape cannot be copied or pickled"):
            attempt(tape)
    if cell_class is fastrnn.RNNCell:
        for value, error in (("gelu", ValueError), (1, TypeError)):
            with pytest.raises(error, match="^nonlinearity: "):
                cell_class(I, H, nonlinearity=value)


@pytest.mark.parametrize(("cell_class", "layer_class", "options"), CELLS)
def test_copies_and_representations(cell_class, layer_class, options):
    cell = cell_class(I, H, bias=False, **options, dtype=np.float64, rng=1)
    x = draw(1, 3, I)
    expected = [s.tobytes() for s in members(cell(x))]
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert [s.tobytes() for s in members(other(x))] == expected
        assert repr(other) == repr(cell)
    again = eval(repr(cell), {cell_class.__name__: cell_class, "float64": np.float64})
    assert repr(again) == repr(cell) and again.params._layout == cell.params._layout
