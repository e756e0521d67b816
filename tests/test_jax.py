"""fastrnn.jax: the bits of the stateless form under jit and vmap, and gradients that JAX's own test accepts."""

import numpy as np
import pytest

from adapters import skip_without_packages

skip_without_packages("fastrnn.jax")
import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import fastrnn
import fastrnn.jax
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


@pytest.fixture(autouse=True)
def double_precision():
    """float64 in JAX during a test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """kind, x, states, weights and the options of a call."""
    cls, settings, options = request.param
    layer = cls(I, H, dtype=np.float64, rng=0, **settings)
    weights = functional.weights_of(layer)
    states = tuple([draw(k, len(weights), B, n) for k, n in enumerate(layer._stack.widths)])
    return cls.__name__.lower(), draw(9, T, B, I), states, weights, options | {"bidirectional": layer.bidirectional}


def bits(tree):
    return [np.asarray(array).tobytes() for array in jax.tree.leaves(tree)]


@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=["padded", "ragged"])
def test_gradients_by_the_test_tool_of_jax(case, lengths):
    kind, x, states, weights, options = case

    @jax.jit
    def function(x, states, weights):
        return fastrnn.jax.forward(kind, x, states, weights, lengths=lengths, **options)

    check_grads(function, (x, states, weights), order=1, modes=["rev"])


def test_the_signals_the_stateless_form(case):
    kind, x, states, weights, options = case
    output, state_n, reserve = functional.forward(kind, x, states, weights, **options)

    def function(x, states, weights):
        return fastrnn.jax.forward(kind, x, states, weights, **options)

    for transformed in function, jax.jit(function):
        assert bits(transformed(x, states, weights)) == bits((output, state_n))
        results, backward = jax.vjp(transformed, x, states, weights)
        assert bits(results) == bits((output, state_n))
        expected = functional.backward(kind, reserve, x, states, weights, output, state_n, **options)
        assert bits(backward(results)) == bits(expected)


def test_lengths_resets_and_the_seed_may_be_traced():
    layer = fastrnn.GRU(I, H, num_layers=2, dtype=np.float64, rng=0)
    weights, x = functional.weights_of(layer), draw(1, T, B, I)
    resets = np.zeros((T, B), bool)
    resets[2] = True

    @jax.jit
    def gradient(lengths, resets, seed):
        def loss(weights):
            output, _ = fastrnn.jax.forward(
                "gru", x, None, weights, lengths=lengths, resets=resets, dropout=0.5, seed=seed
            )
            return output.sum()

        return jax.value_and_grad(loss)(weights)

    for lengths, seed in ([5, 1, 0], 1), ([0, 0, 0], 1), ([2, 5, 5], 7):
        named = {"lengths": lengths, "resets": resets, "dropout": 0.5, "seed": seed}
        output, _, reserve = functional.forward("gru", x, None, weights, **named)
        expected = functional.backward("gru", reserve, x, None, weights, np.ones_like(output), **named)[2]
        value, found = gradient(jnp.array(lengths), resets, seed)
        assert float(value) == pytest.approx(output.sum())
        assert bits(found) == bits(expected)


def test_vmap_runs_one_call_for_each_element():
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
    weights, x = functional.weights_of(layer), draw(1, 4, T, B, I)

    def loss(x, weights):
        output, (h_n, c_n) = fastrnn.jax.forward("lstm", x, None, weights)
        return (output**2).sum() + c_n.sum()

    gradient = jax.grad(loss, argnums=(0, 1))
    found = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(x, weights)
    expected = [gradient(one, weights) for one in x]
    assert bits(found) == bits(jax.tree.map(lambda *arrays: np.stack(arrays), *expected))


def test_one_state_for_all_sequences_and_none():
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
    weights, x = functional.weights_of(layer), draw(1, T, B, I)

    def function(h_0):
        return fastrnn.jax.forward("lstm", x, (h_0, None), weights)[0]

    check_grads(function, (draw(2, 1, 1, H),), order=1, modes=["rev"])
    assert bits(fastrnn.jax.forward("lstm", x, None, weights)[0]) == bits(layer(x)[0])


def test_single_precision_stays_single():
    weights = functional.weights_of(fastrnn.GRU(I, H, rng=0))

    def loss(x, weights):
        return fastrnn.jax.forward("gru", x, None, weights)[0].sum()

    d_x, d_weights = jax.grad(loss, (0, 1))(draw(1, T, B, I), weights)
    assert d_x.dtype == np.float64  # of its argument, which was cast
    assert {d.dtype for d in jax.tree.leaves(d_weights)} == {np.dtype(np.float32)}


def test_large_arrays_beside_the_products_of_xla():
    """Callbacks with arrays of megabytes, more than one in a program, do not wait for each other."""
    weights = functional.weights_of(fastrnn.LSTM(128, 128, rng=0))
    x, mix = draw(1, 100, 64, 128, dtype=np.float32), draw(2, 128, 128, dtype=np.float32) / 8

    @jax.jit
    def loss(weights):
        first, _ = fastrnn.jax.forward("lstm", x @ mix, None, weights)
        second, _ = fastrnn.jax.forward("lstm", jnp.tanh(first @ mix), None, weights, lengths=jnp.full(64, 50))
        return (second @ mix).mean()

    gradients = [jax.grad(loss)(weights) for _ in range(3)]
    assert bits(gradients[0]) == bits(gradients[1]) == bits(gradients[2])


def test_what_does_not_fit_is_refused_when_the_call_is_traced():
    weights, x = functional.weights_of(fastrnn.RNN(I, H, dtype=np.float64, rng=0)), draw(1, T, B, I)
    traced = jax.jit(lambda x, lengths: fastrnn.jax.forward("rnn", x, None, weights, lengths=lengths)[0])
    with pytest.raises(ValueError, match=r"^x: expected \(T, B, I=2\)"):
        traced(x[..., :1], np.array([1, 1, 1]))
    with pytest.raises(ValueError, match=r"^lengths: expected \(B=3,\)"):
        traced(x, np.array([1, 1]))
    with pytest.raises(ValueError, match="^lengths: expected 0 to T=5"):
        fastrnn.jax.forward("rnn", x, None, weights, lengths=[6, 0, 0])
    with pytest.raises(TypeError, match="^x: cannot be cast from complex128"):
        fastrnn.jax.forward("rnn", x + 1j, None, weights)
    with pytest.raises(TypeError, match=r"weight_ih'\]: expected float32 or float64, got bfloat16"):
        fastrnn.jax.forward("rnn", x, None, jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), weights))
    with pytest.raises(TypeError, match="^clop: is not an option"):
        fastrnn.jax.forward("rnn", x, None, weights, clop=1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="lengths: expected 0 to T=5, got 6"):
        traced(x, np.array([6, 0, 0])).block_until_ready()


def test_derivatives_that_are_not_computed_are_refused():
    weights, x = functional.weights_of(fastrnn.RNN(I, H, dtype=np.float64, rng=0)), draw(1, T, B, I)

    def loss(x):
        return (fastrnn.jax.forward("rnn", x, None, weights)[0] ** 2).sum()

    with pytest.raises(ValueError, match="callbacks do not support JVP"):
        jax.hessian(loss)(x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (x,), (x,))


def test_a_model_learns():
    """A classifier by the majority of bits, with gradient descent in one compiled step."""
    rng = np.random.default_rng(0)
    signals = rng.integers(0, 2, (7, 64, 1)).astype(np.float32)
    labels = (signals.sum(axis=0)[:, 0] > 3).astype(np.int32)
    head = fastrnn.Linear(16, 2, rng=1)
    parameters = functional.weights_of(fastrnn.GRU(1, 16, rng=0)), dict(head.params)

    def loss(parameters):
        weights, head = parameters
        _, (h_n,) = fastrnn.jax.forward("gru", signals, None, weights)
        logits = h_n[0] @ head["weight"].T + head["bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    @jax.jit
    def step(parameters, means):
        value, gradient = jax.value_and_grad(loss)(parameters)
        means = jax.tree.map(lambda m, g: 0.9 * m + g, means, gradient)
        return value, jax.tree.map(lambda p, m: p - 0.1 * m, parameters, means), means

    means = jax.tree.map(np.zeros_like, parameters)
    first, parameters, means = step(parameters, means)
    for _ in range(200):
        last, parameters, means = step(parameters, means)
    assert first > 0.6 and last < 0.1
