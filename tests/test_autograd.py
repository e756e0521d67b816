"""fastrnn.autograd: the bits of the stateless form, and gradients that autograd's own test accepts."""

import numpy as np
import pytest

from adapters import skip_without_packages

skip_without_packages("fastrnn.autograd")
import autograd
import autograd.numpy as anp
from autograd.test_util import check_grads

import fastrnn
import fastrnn.autograd
from fastrnn import functional
from layer_cases import draw

T, B, I, H = 5, 3, 2, 4
CASES = {
    "lstm": (fastrnn.LSTM, {}, {}),
    "projection, peepholes": (fastrnn.LSTM, {"proj_size": 3, "peephole": True}, {}),
    "gru, two layers, both directions": (fastrnn.GRU, {"num_layers": 2, "bidirectional": True}, {}),
    "gru, reset before, reverse": (fastrnn.GRU, {"reset_after": False}, {"reset_after": False, "reverse": True}),
    "rnn without bias": (fastrnn.RNN, {"bias": False}, {"nonlinearity": "tanh"}),
    "slstm": (fastrnn.SLSTM, {"num_heads": 2}, {}),
    "ugrnn": (fastrnn.UGRNN, {"num_layers": 2}, {"activation": "tanh"}),
    "dropout": (fastrnn.GRU, {"num_layers": 2}, {"dropout": 0.5, "seed": 3}),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """kind, x, states, weights and the options of a call."""
    cls, settings, options = request.param
    layer = cls(I, H, dtype=np.float64, rng=0, **settings)
    weights = functional.weights_of(layer)
    width = layer._stack.widths
    states = tuple([draw(k, len(weights), B, n) for k, n in enumerate(width)])
    return cls.__name__.lower(), draw(9, T, B, I), states, weights, options | {"bidirectional": layer.bidirectional}


def joined(results):
    output, state_n = results
    return anp.concatenate([anp.ravel(array) for array in (output, *state_n)])


def test_gradients_by_the_test_tool_of_autograd(case):
    kind, x, states, weights, options = case

    def function(x, states, weights):
        return joined(fastrnn.autograd.forward(kind, x, states, weights, lengths=[5, 0, 3], **options))

    check_grads(function, modes=["rev"], order=1)(x, states, weights)


def test_the_bits_of_the_stateless_form(case):
    kind, x, states, weights, options = case
    output, state_n, reserve = functional.forward(kind, x, states, weights, **options)
    found, found_n = fastrnn.autograd.forward(kind, x, states, weights, **options)
    assert found.tobytes() == output.tobytes()
    assert [s.tobytes() for s in found_n] == [s.tobytes() for s in state_n]

    def loss(x, weights):
        return anp.sum(fastrnn.autograd.forward(kind, x, states, weights, **options)[0] ** 2)

    d_x, d_weights = autograd.grad(loss, (0, 1))(x, weights)
    expected_x, _, expected = functional.backward(kind, reserve, x, states, weights, 2 * output, **options)
    assert d_x.tobytes() == expected_x.tobytes()
    for one, other in zip(d_weights, expected, strict=True):
        assert {name: d.tobytes() for name, d in one.items()} == {name: d.tobytes() for name, d in other.items()}


def test_one_state_for_all_sequences_and_none():
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
    weights, x = functional.weights_of(layer), draw(1, T, B, I)

    def function(h_0):
        return joined(fastrnn.autograd.forward("lstm", x, (h_0, None), weights))

    check_grads(function, modes=["rev"], order=1)(draw(2, 1, 1, H))
    without = fastrnn.autograd.forward("lstm", x, None, weights)
    assert without[0].tobytes() == layer(x)[0].tobytes()


def test_a_gradient_has_the_dtype_of_its_argument():
    weights = functional.weights_of(fastrnn.GRU(I, H, rng=0))

    def loss(x, weights):
        return anp.sum(fastrnn.autograd.forward("gru", x, None, weights)[0])

    d_x, (d_weights,) = autograd.grad(loss, (0, 1))(draw(1, T, B, I, dtype=np.float64), weights)
    assert d_x.dtype == np.float64
    assert {d.dtype for d in d_weights.values()} == {np.dtype(np.float32)}


def test_two_calls_in_one_graph_have_reserves_of_their_own():
    first, second = (functional.weights_of(fastrnn.GRU(n, H, dtype=np.float64, rng=n)) for n in (I, H))
    x = draw(1, T, B, I)

    def function(first, second):
        output, _ = fastrnn.autograd.forward("gru", x, None, first)
        output, _ = fastrnn.autograd.forward("gru", anp.tanh(output), None, second)
        return output + fastrnn.autograd.forward("gru", x, None, first)[0]

    check_grads(function, modes=["rev"], order=1)(first, second)


def test_derivatives_that_are_not_computed_are_refused():
    weights = functional.weights_of(fastrnn.RNN(I, H, dtype=np.float64, rng=0))
    x = draw(1, T, B, I)

    def loss(weights):
        return anp.sum(fastrnn.autograd.forward("rnn", x, None, weights)[0])

    def of_gradient(weights):
        return anp.sum(autograd.grad(loss)(weights)[0]["weight_hh"])

    with pytest.raises(NotImplementedError, match="gradient of a gradient"):
        autograd.grad(of_gradient)(weights)
    with pytest.raises(NotImplementedError, match="JVP"):
        autograd.make_jvp(loss)(weights)(weights)
    with pytest.raises(ValueError, match=r"^x: expected \(T, B, I=2\)"):
        autograd.grad(lambda x: anp.sum(fastrnn.autograd.forward("rnn", x, None, weights)[0]))(x[..., :1])


def test_a_model_learns():
    """A classifier of the parity of bits: autograd around the layer, an optimizer of fastrnn."""
    rng = np.random.default_rng(0)
    layer, head = fastrnn.GRU(1, 16, rng=0), fastrnn.Linear(16, 1, rng=1)
    bits = rng.integers(0, 2, (6, 64, 1)).astype(np.float32)
    target = 2.0 * (bits.sum(axis=0) % 2) - 1

    def loss(weights, head):
        _, (h_n,) = fastrnn.autograd.forward("gru", bits, None, weights)
        prediction = anp.dot(h_n[0], head["weight"].T) + head["bias"]
        return anp.mean((prediction - target) ** 2)

    parameters = functional.weights_of(layer), dict(head.params)
    arrays = [array for one in (*parameters[0], parameters[1]) for array in one.values()]
    optimizer = fastrnn.optim.Adam(arrays, lr=0.02)
    value_and_gradient = autograd.value_and_grad(lambda both: loss(*both))
    first, _ = value_and_gradient(parameters)
    for _ in range(150):
        last, (d_weights, d_head) = value_and_gradient(parameters)
        optimizer.step([d for one in (*d_weights, d_head) for d in one.values()])
    assert first > 0.9 and last < 0.1
