"""The reference: against the equations in scalars, and its gradients against finite differences.

The finite differences hold for the kernels too, in float64.
"""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn import functional, reference

SHAPES = [(1, 1, 1, 1), (1, 3, 2, 2), (4, 1, 3, 2), (3, 2, 2, 3), (2, 2, 0, 2)]  # T, B, I, H


def draw(T, B, I, H, dtype=np.float64):
    """x, (h_0, c_0) and the four parameters."""
    rng = np.random.default_rng(1)
    shapes = [(T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)]
    x, h_0, c_0, *weights = (rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes)
    return x, (h_0, c_0), weights


def draw_like(*arrays):
    rng = np.random.default_rng(2)
    return [rng.uniform(-1, 1, array.shape).astype(array.dtype) for array in arrays]


def finite_differences(loss, array, step=1e-5):
    """d loss() / d array, by changing one element after the other in place."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = loss()
        array[index] = kept - step
        below = loss()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradient(actual, loss, array, name):
    expected = finite_differences(loss, array)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("module", [reference, functional])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_match_finite_differences(module, shape):
    x, (h_0, c_0), weights = draw(*shape)
    output, (h_n, c_n), tape = module.lstm_forward(x, (h_0, c_0), *weights)
    d_output, d_h_n, d_c_n = draw_like(output, h_n, c_n)

    def loss():
        output, (h_n, c_n) = module.lstm(x, (h_0, c_0), *weights)
        return np.sum(d_output * output) + np.sum(d_h_n * h_n) + np.sum(d_c_n * c_n)

    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, d_output, (d_h_n, d_c_n))
    assert_gradient(d_x, loss, x, "x")
    assert_gradient(d_h_0, loss, h_0, "h_0")
    assert_gradient(d_c_0, loss, c_0, "c_0")
    assert list(d_params) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    for (name, gradient), weight in zip(d_params.items(), weights, strict=True):
        assert_gradient(gradient, loss, weight, name)


@pytest.mark.parametrize("module", [reference, functional])
@pytest.mark.parametrize("given", [(), ("bias_ih",), ("bias_hh",)])
def test_only_the_biases_given_have_gradients(module, given):
    x, state, (weight_ih, weight_hh, bias, _) = draw(3, 2, 2, 3)
    biases = dict.fromkeys(given, bias)
    output, _, tape = module.lstm_forward(x, state, weight_ih, weight_hh, **biases)
    (d_output,) = draw_like(output)

    def loss():
        return np.sum(d_output * module.lstm(x, state, weight_ih, weight_hh, **biases)[0])

    d_params = module.lstm_backward(tape, d_output)[2]
    assert list(d_params) == ["weight_ih", "weight_hh", *given]
    assert_gradient(d_params["weight_hh"], loss, weight_hh, "weight_hh")
    for name in given:
        assert_gradient(d_params[name], loss, bias, name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_gradients_through_two_layers_match_finite_differences(bias, batch_first):
    layer = fastrnn.LSTM(2, 3, num_layers=2, bias=bias, batch_first=batch_first, dtype=np.float64, rng=1)
    state_shape = (2, 2, 3)  # num_layers, B, H
    x, h_0, c_0 = draw_like(np.empty((2, 3, 2) if batch_first else (3, 2, 2)), *np.empty((2, *state_shape)))
    output, (h_n, c_n), tape = layer.forward(x, (h_0, c_0))
    d_output, d_h_n, d_c_n = draw_like(output, h_n, c_n)

    def loss():
        output, (h_n, c_n) = layer(x, (h_0, c_0))
        return np.sum(d_output * output) + np.sum(d_h_n * h_n) + np.sum(d_c_n * c_n)

    d_x, (d_h_0, d_c_0), d_params = layer.backward(tape, d_output, (d_h_n, d_c_n))
    assert_gradient(d_x, loss, x, "x")
    assert_gradient(d_h_0, loss, h_0, "h_0")
    assert_gradient(d_c_0, loss, c_0, "c_0")
    assert list(d_params) == list(layer.params)
    for name, gradient in d_params.items():
        assert_gradient(gradient, loss, layer.params[name], name)


@pytest.mark.parametrize("module", [reference, functional])
def test_the_equations_in_scalars(module):
    T, I, H = 3, 2, 2
    x, (h_0, c_0), (weight_ih, weight_hh, bias_ih, bias_hh) = draw(T, 1, I, H)

    def z(gate, j, x_t, h):
        row = gate * H + j
        recurrent = sum(weight_hh[row, k] * h[k] for k in range(H))
        return bias_ih[row] + bias_hh[row] + sum(weight_ih[row, k] * x_t[k] for k in range(I)) + recurrent

    def sigma(a):
        return 1 / (1 + math.exp(-a))

    h, c = h_0[0].tolist(), c_0[0].tolist()
    expected = []
    for t in range(T):
        gates = [[z(gate, j, x[t, 0], h) for j in range(H)] for gate in range(4)]
        i, f, o = ([sigma(a) for a in gates[gate]] for gate in (0, 1, 3))
        g = [math.tanh(a) for a in gates[2]]
        c = [f[j] * c[j] + i[j] * g[j] for j in range(H)]
        h = [o[j] * math.tanh(c[j]) for j in range(H)]
        expected.append(h)

    output, (h_n, c_n) = module.lstm(x, (h_0, c_0), weight_ih, weight_hh, bias_ih, bias_hh)
    np.testing.assert_allclose(output[:, 0], expected, rtol=1e-13)
    np.testing.assert_allclose(h_n[0], h, rtol=1e-13)
    np.testing.assert_allclose(c_n[0], c, rtol=1e-13)


def results(module, x, state, weights, d_output, d_state_n):
    output, state_n, tape = module.lstm_forward(x, state, *weights)
    d_x, d_state, d_params = module.lstm_backward(tape, d_output, d_state_n)
    return [output, *state_n, d_x, *d_state, *d_params.values()]


@pytest.mark.parametrize("module", [reference, functional])
def test_float32_stays_float32_and_is_close_to_float64(module):
    T, B, I, H = 7, 3, 5, 6
    x, state, weights = draw(T, B, I, H, np.float32)
    d_output, d_h_n, d_c_n = draw_like(np.empty((T, B, H)), *state)
    single = results(module, x, state, weights, d_output, (d_h_n, d_c_n))
    # The weights decide: x, the states and d_output may be of either precision.
    double = results(reference, x, state, [w.astype(np.float64) for w in weights], d_output, (d_h_n, d_c_n))
    for a, b in zip(single, double, strict=True):
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [reference, functional])
def test_no_steps_leave_the_state_as_it_was(module):
    x, (h_0, c_0), weights = draw(0, 3, 2, 4)
    output, (h_n, c_n), tape = module.lstm_forward(x, (h_0, c_0), *weights)
    assert output.shape == (0, 3, 4)
    np.testing.assert_array_equal(h_n, h_0)
    np.testing.assert_array_equal(c_n, c_0)
    assert not np.shares_memory(h_n, h_0) and not np.shares_memory(c_n, c_0)

    d_h_n, d_c_n = draw_like(h_n, c_n)
    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, None, (d_h_n, d_c_n))
    assert d_x.shape == (0, 3, 2)
    np.testing.assert_array_equal(d_h_0, d_h_n)
    np.testing.assert_array_equal(d_c_0, d_c_n)
    assert not np.shares_memory(d_h_0, d_h_n) and not np.shares_memory(d_c_0, d_c_n)
    assert [w.shape for w in weights] == [d.shape for d in d_params.values()]
    assert not any(d.any() for d in d_params.values())


@pytest.mark.parametrize("module", [reference, functional])
@pytest.mark.parametrize("T", [3, 2**40])
def test_no_sequences(module, T):
    x, state, weights = draw(0, 0, 2, 4)
    x = np.empty((T, 0, 2))
    output, (h_n, c_n), tape = module.lstm_forward(x, state, *weights)
    assert (output.shape, h_n.shape, c_n.shape) == ((T, 0, 4), (0, 4), (0, 4))
    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, output, (h_n, c_n))
    assert (d_x.shape, d_h_0.shape, d_c_0.shape) == ((T, 0, 2), (0, 4), (0, 4))
    assert [w.shape for w in weights] == [d.shape for d in d_params.values()]
    assert not any(d.any() for d in d_params.values())


@pytest.mark.parametrize("module", [reference, functional])
def test_none_stands_for_zeros(module):
    x, (h_0, c_0), weights = draw(3, 2, 2, 4)
    (d_output,) = draw_like(np.empty((3, 2, 4)))
    zero = np.zeros((2, 4))

    def same(left, right):
        for a, b in zip(results(module, x, *left), results(module, x, *right), strict=True):
            assert a.tobytes() == b.tobytes()

    same((None, weights, d_output, None), ((zero, zero), weights, d_output, (zero, zero)))
    same((None, weights, None, (h_0, None)), ((zero, None), weights, np.zeros((3, 2, 4)), (h_0, zero)))
    same(((h_0, None), weights, None, (None, c_0)), ((h_0, zero), weights, None, (zero, c_0)))
    same(((None, c_0), weights, None, None), ((zero, c_0), weights, None, (None, None)))


def test_sigmoid_of_large_numbers():
    """No warning, which would fail the test, and no premature zero."""
    for dtype in (np.float32, np.float64):
        z = np.array([-np.inf, -1e4, -80, -1.0, -0.0, 0.0, 1.0, 80, 1e4, np.inf], dtype)
        y = reference.sigmoid(z)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y[[0, 1, 4, 5, 8, 9]], [0, 0, 0.5, 0.5, 1, 1])
        np.testing.assert_allclose(y[2], math.exp(-80), rtol=1e-5)
        np.testing.assert_allclose(y[[3, 6]], [1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-6)
    assert np.isnan(reference.sigmoid(np.array([np.nan]))).all()


@pytest.mark.parametrize("module", [reference, functional])
def test_saturated_gates_remember(module):
    """Far out, the gates are exactly 0 or 1: c_t = c_(t-1) when f is 1 and i is 0."""
    T, B, H = 5, 2, 3
    _, (h_0, c_0), (weight_ih, weight_hh, bias, _) = draw(T, B, 1, H)
    bias[:H], bias[H : 2 * H], bias[3 * H :] = -1e4, 1e4, 1e4
    output, (_, c_n) = module.lstm(np.zeros((T, B, 1)), (h_0, c_0), weight_ih, weight_hh, bias)
    np.testing.assert_array_equal(c_n, c_0)
    np.testing.assert_allclose(output[-1], np.tanh(c_0), rtol=1e-15)
