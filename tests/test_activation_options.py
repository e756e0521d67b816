"""recurrent_activation, activation and clip in the kernels, the layers and the cells, with resets and both GRUs."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings

import fastrnn
import recurrent_cases
from depth import DEPTH
from fastrnn import functional, reference
from finite_differences import assert_slopes
from layer_cases import draw

CELLS = ("lstm", "gru", "rnn", "ugrnn")


def assert_equals_the_reference(case):
    actual, expected = recurrent_cases.run(functional, case), recurrent_cases.run(reference, case)
    for name, array in expected.items():
        scale = max(1.0, np.abs(array).max(initial=0))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=1e-12 * scale, err_msg=name)


@settings(max_examples=200 * DEPTH, deadline=None)
@given(recurrent_cases.cases(cells=CELLS, features=True))
def test_against_the_reference(case):
    assert_equals_the_reference(case)


@settings(max_examples=100 * DEPTH, deadline=None)
@given(recurrent_cases.cases(cells=CELLS, features=True, H=45))
def test_with_whole_blocks_and_a_short_one(case):
    assert_equals_the_reference(case)


@settings(max_examples=60 * DEPTH, deadline=None)
@given(recurrent_cases.cases(cells=CELLS, features=True))
def test_finite_differences(case):
    assert_slopes(case, np.random.default_rng(5), module=functional, smooth=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_activations_by_themselves(isa, dtype):
    """A GRU whose h_t is its gate z, and one whose h_t is n: weights of one input pick the function's argument."""
    z = np.concatenate([np.linspace(-4, 4, 1001), [-1e30, 1e30, np.inf, -np.inf, -0.0, np.nan]]).astype(dtype)
    x, ones = z[:, None, None], np.ones((1, 1), dtype)
    weight_ih = np.array([[0], [1], [0]], dtype)  # r, z, n
    weight_hh, bias = np.zeros((3, 1), dtype), np.array([0, 0, 0], dtype)
    functions = {
        "hard_sigmoid_fifth": lambda v: np.clip(v / 5 + 0.5, 0, 1),
        "hard_sigmoid_sixth": lambda v: np.clip(v / 6 + 0.5, 0, 1),
    }
    for name, function in functions.items():
        for clip in (None, 1.25):
            for k in range(0, len(z), 97):  # each step alone, because h_{t-1} weighs it
                options = {"recurrent_activation": name, "clip": clip}
                output, _ = functional.gru(x[k : k + 1], ones, weight_ih, weight_hh, bias, **options)
                bounded = z[k] if clip is None else np.clip(z[k], -clip, clip)
                np.testing.assert_allclose(output[0, 0, 0], function(np.float64(bounded)), rtol=0, atol=3e-7)
    tail, _ = functional.rnn(x, None, np.ones((1, 1), dtype), np.zeros((1, 1), dtype), nonlinearity="relu", clip=2.5)
    np.testing.assert_array_equal(tail[:, 0, 0], np.clip(np.maximum(z, 0), None, dtype(2.5)))
    assert np.isnan(tail[-1, 0, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.UGRNN, fastrnn.LSTMCell, fastrnn.GRUCell])
def test_layers_and_cells_carry_the_options(cls, dtype):
    options = {"recurrent_activation": "hard_sigmoid_sixth", "activation": "relu", "clip": 0.25}
    layer = cls(5, 9, rng=0, dtype=dtype, **options)
    assert (layer.recurrent_activation, layer.activation, layer.clip) == tuple(options.values())
    assert "recurrent_activation='hard_sigmoid_sixth', activation='relu', clip=0.25" in repr(layer)
    x = draw(1, *((4, 3, 5) if hasattr(layer, "num_layers") else (3, 5)), dtype=dtype)
    expected = layer(x)
    plain = cls(5, 9, rng=0, dtype=dtype)(x)
    other = copy.deepcopy(layer)
    other.freeze()
    first = [np.asarray(r[0] if isinstance(r, tuple) else r) for r in (expected, plain, other(x), layer.forward(x))]
    assert first[0].tobytes() != first[1].tobytes()
    assert first[0].tobytes() == first[2].tobytes()


def test_an_infinite_gradient_does_not_pass_a_bound():
    one = np.ones((1, 1))
    _, _, tape = functional.rnn_forward(np.full((1, 1, 1), 3.0), None, one, one * 0, nonlinearity="relu", clip=1.0)
    d_x, _, _ = functional.rnn_backward(tape, np.full((1, 1, 1), np.inf))
    assert d_x == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"recurrent_activation": "hard_sigmoid"},
            ValueError,
            "recurrent_activation: 'hard_sigmoid' names two functions",
        ),
        ({"recurrent_activation": "tanh"}, ValueError, "recurrent_activation: expected 'sigmoid' or"),
        ({"recurrent_activation": None}, TypeError, "recurrent_activation: expected"),
        ({"activation": "sigmoid"}, ValueError, "activation: expected 'tanh' or 'relu'"),
        ({"clip": 0}, ValueError, "clip: expected None or a positive finite number, got 0"),
        ({"clip": -1.0}, ValueError, "clip: expected None or a positive finite number"),
        ({"clip": float("inf")}, ValueError, "clip: expected None or a positive finite number"),
        ({"clip": float("nan")}, ValueError, "clip: expected None or a positive finite number"),
        ({"clip": True}, TypeError, "clip: expected None or a positive number"),
        ({"clip": "1"}, TypeError, "clip: expected None or a positive number"),
    ],
)
def test_refused(options, error, message):
    weights = np.zeros((4, 1)), np.zeros((4, 1))
    for call in (
        lambda: fastrnn.LSTM(1, 1, **options),
        lambda: fastrnn.GRUCell(1, 1, **options),
        lambda: functional.lstm(np.zeros((1, 1, 1)), None, *weights, **options),
        lambda: reference.lstm(np.zeros((1, 1, 1)), None, *weights, **options),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message)
