"""The reference: against the equations in scalars, and its gradients against finite differences.

First the whole LSTM, whose finite differences hold for the kernels too, in float64. Then every cell with every
combination of its options: bias, projection, peepholes, lengths, direction, nonlinearity.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings

import fastrnn
import recurrent_cases
from depth import DEPTH
from fastrnn import functional, reference
from finite_differences import assert_slopes

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
    same(((None, c_0), weights, d_output, None), ((zero, c_0), weights, d_output, (None, None)))


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


# Every cell, every option


def scalar_steps(case, b):
    """The equations for sequence b in Python floats: yields t, [h_t] or [h_t, c_t], and the z of an RNN.

    Shares no code with the reference: no arrays, no axes, no gates side by side.
    """
    w = {name: array.tolist() for name, array in case.weights.items()}
    H = len(w["weight_ih"]) // recurrent_cases.CELLS[case.cell]
    h, *c = ([float(value) for value in s[b]] for s in case.state)
    c = c[0] if c else None

    def share(suffix, row, a):
        terms = [u * v for u, v in zip(w[f"weight_{suffix}"][row], a, strict=True)]
        return math.fsum([*terms, w[f"bias_{suffix}"][row] if f"bias_{suffix}" in w else 0.0])

    def sigma(a):
        return 1 / (1 + math.exp(-a))

    order = range(recurrent_cases.lengths_of(case)[b])
    for t in reversed(order) if case.options["reverse"] else order:
        x_t = case.x[t, b].tolist()
        zs = []
        if case.cell == "lstm":
            peep = w.get("weight_peephole", [[0.0] * H] * 3)
            m = []
            c_prev, c = c, []
            for j in range(H):
                z_i, z_f, z_g, z_o = (share("ih", k * H + j, x_t) + share("hh", k * H + j, h) for k in range(4))
                i = sigma(z_i + peep[0][j] * c_prev[j])
                f = sigma(z_f + peep[1][j] * c_prev[j])
                c.append(f * c_prev[j] + i * math.tanh(z_g))
                m.append(sigma(z_o + peep[2][j] * c[j]) * math.tanh(c[j]))
            h = [share("hr", p, m) for p in range(len(w["weight_hr"]))] if "weight_hr" in w else m
        elif case.cell == "gru":
            h_prev, h = h, []
            for j in range(H):
                r, z = (sigma(share("ih", k * H + j, x_t) + share("hh", k * H + j, h_prev)) for k in range(2))
                n = math.tanh(share("ih", 2 * H + j, x_t) + r * share("hh", 2 * H + j, h_prev))
                h.append((1 - z) * n + z * h_prev[j])
        else:
            zs = [share("ih", j, x_t) + share("hh", j, h) for j in range(H)]
            f = {"tanh": math.tanh, "relu": lambda z: max(z, 0.0), "sigmoid": sigma}[case.options["nonlinearity"]]
            h = [f(z) for z in zs]
        yield t, [h] if c is None else [h, c], zs


@given(recurrent_cases.cases())
def test_every_cell_in_scalars(case):
    output, *state_n = recurrent_cases.infer(reference, case)
    expected_output = np.zeros_like(output)
    expected_state_n = [s.copy() for s in case.state]
    for b in range(case.x.shape[1]):
        for t, state_t, _ in scalar_steps(case, b):
            expected_output[t, b] = state_t[0]
            for s, s_t in zip(expected_state_n, state_t, strict=True):
                s[b] = s_t
    np.testing.assert_allclose(output, expected_output, rtol=1e-13, atol=1e-14)
    for actual, expected in zip(state_n, expected_state_n, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14)


@settings(max_examples=150 * DEPTH)
@given(recurrent_cases.cases(relu=False))
def test_gradients_of_every_cell_match_finite_differences(case):
    assert_slopes(case, np.random.default_rng(5))


@pytest.mark.parametrize(("B", "biases", "seed"), [(1, (), 29), (3, recurrent_cases.BIASES, 82), (5, (), 201)])
def test_gradients_where_the_fifth_derivative_is_large(B, biases, seed):
    """Here five points would be off by more than 1e-10: nothing but a large weight_hh, four times over."""
    case = recurrent_cases.draw(
        np.random.default_rng(seed), "rnn", 4, B, 0, 1, biases=biases, reverse=True, lengths=None, nonlinearity="tanh"
    )
    assert abs(case.weights["weight_hh"]) > 1.7
    assert_slopes(case, np.random.default_rng(5))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [2, 0, 3]])
@pytest.mark.parametrize("biases", [recurrent_cases.BIASES, ()])
def test_gradients_of_relu_match_finite_differences(biases, lengths, reverse):
    """Of cases without a kink nearby, which there must be on both sides."""
    found = 0
    for seed in range(1000):
        case = recurrent_cases.draw(
            np.random.default_rng(seed), "rnn", 3, 3, 2, 3,
            biases=biases, lengths=lengths, reverse=reverse, nonlinearity="relu",
        )  # fmt: skip
        zs = np.array([z for b in range(3) for _, _, zs in scalar_steps(case, b) for z in zs])
        if np.abs(zs).min() > 0.02 and zs.min() < 0 < zs.max():
            assert_slopes(case, np.random.default_rng(seed))
            found += 1
            if found == 5:
                return
    raise AssertionError(f"only {found} cases without a kink nearby")


def test_relu_has_no_slope_at_zero():
    """As in torch; and NaN stays NaN, forward and backward."""
    x = np.array([[[0.0]], [[np.nan]]])
    output, _, tape = reference.rnn_forward(x, None, np.ones((1, 1)), np.zeros((1, 1)), nonlinearity="relu")
    np.testing.assert_array_equal(output.ravel(), [0, np.nan])
    d_x, _, d_params = reference.rnn_backward(tape, np.ones((2, 1, 1)))
    np.testing.assert_array_equal(d_x.ravel(), [0, 1])
    assert np.isnan(d_params["weight_ih"]).all()


def assert_close(actual, expected, name):
    """To 1e-13 of the largest number, or of 1."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, name
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13 * scale, err_msg=name)


@given(recurrent_cases.cases())
def test_a_sequence_of_a_batch_is_the_same_alone(case):
    together = recurrent_cases.run(reference, case)
    d_weights = {name: np.zeros_like(array) for name, array in case.weights.items()}
    for b, length in enumerate(recurrent_cases.lengths_of(case)):
        for name, expected in recurrent_cases.run(reference, recurrent_cases.alone(case, b)).items():
            if name in ("output", "d_x"):
                assert_close(together[name][:length, b : b + 1], expected, name)
                assert not together[name][length:, b].any()
            elif name.startswith(("d_weight", "d_bias")):
                d_weights[name.removeprefix("d_")] += expected
            else:
                assert_close(together[name][b : b + 1], expected, name)
    for name, expected in d_weights.items():
        assert_close(together[f"d_{name}"], expected, name)


@given(recurrent_cases.cases())
def test_a_sequence_of_length_0_leaves_its_state_as_it_was(case):
    B = case.x.shape[1]
    lengths = recurrent_cases.lengths_of(case)
    lengths[::2] = [0] * len(lengths[::2])
    case = recurrent_cases.with_options(case, lengths=lengths)
    results = recurrent_cases.run(reference, case)
    for b in range(0, B, 2):
        for names, arrays in ((("h_n", "c_n"), case.state), (("d_h_0", "d_c_0"), case.d_state_n)):
            for name, array in zip(names, arrays):
                assert results[name][b].tobytes() == array[b].tobytes(), name


@given(recurrent_cases.cases())
def test_reverse_is_the_turned_input(case):
    backwards = recurrent_cases.run(reference, recurrent_cases.with_options(case, reverse=True))
    turned = recurrent_cases.with_options(case, reverse=False)._replace(
        x=recurrent_cases.turned(case, case.x), d_output=recurrent_cases.turned(case, case.d_output)
    )
    expected = recurrent_cases.run(reference, turned)
    for name in ("output", "d_x"):
        expected[name] = recurrent_cases.turned(case, expected[name])
    for name, array in expected.items():
        np.testing.assert_array_equal(backwards[name], array, err_msg=name)


@given(recurrent_cases.cases(lengths=None))
def test_full_lengths_are_no_lengths(case):
    T, B, _ = case.x.shape
    expected = recurrent_cases.run(reference, case)
    for name, array in recurrent_cases.run(reference, recurrent_cases.with_options(case, lengths=[T] * B)).items():
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@given(case=recurrent_cases.cases())
def test_what_lies_beyond_the_end_does_not_matter(value, case):
    """Nor does the cast of it, which would warn."""
    case = case._replace(weights={name: w.astype(np.float32) for name, w in case.weights.items()})
    expected = recurrent_cases.run(reference, case)
    filled = case._replace(
        x=recurrent_cases.with_beyond(case, case.x, value),
        d_output=recurrent_cases.with_beyond(case, case.d_output, value),
    )
    for name, array in recurrent_cases.run(reference, filled).items():
        assert array.dtype == np.float32
        assert array.tobytes() == expected[name].tobytes(), name
    for name in ("output", "d_x"):
        array = expected[name]
        assert recurrent_cases.with_beyond(case, array, 0).tobytes() == array.tobytes(), name


@given(recurrent_cases.cases())
def test_inference_is_the_forward_pass(case):
    results = recurrent_cases.run(reference, case)
    for name, array in zip(("output", "h_n", "c_n"), recurrent_cases.infer(reference, case)):
        assert array.tobytes() == results[name].tobytes(), name


@given(recurrent_cases.cases())
def test_float32_of_every_cell_is_close_to_float64(case):
    single = recurrent_cases.run(
        reference, case._replace(weights={name: w.astype(np.float32) for name, w in case.weights.items()})
    )
    for name, expected in recurrent_cases.run(reference, case).items():
        assert (single[name].dtype, expected.dtype) == (np.float32, np.float64)
        if case.options.get("nonlinearity") == "relu" and name.startswith("d_"):
            continue  # a z that rounding takes over the kink has another slope
        scale = max(1.0, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(single[name], expected, rtol=0, atol=1e-5 * scale, err_msg=name)


@given(recurrent_cases.cases())
def test_none_stands_for_zeros_in_every_cell(case):
    zeros = tuple(np.zeros_like(s) for s in case.state)
    nothing = (None,) * len(zeros)

    def same(left, right):
        left, right = (recurrent_cases.run(reference, case._replace(**changes)) for changes in (left, right))
        for name, array in right.items():
            np.testing.assert_array_equal(left[name], array, err_msg=name)

    same({"state": nothing}, {"state": zeros})
    same({"d_state_n": nothing}, {"d_state_n": zeros})
    same({"d_output": None}, {"d_output": np.zeros_like(case.d_output)})
    if case.cell == "lstm":
        (h_0, c_0), (zero_h, zero_c) = case.state, zeros
        same({"state": (h_0, None), "d_state_n": (None, c_0)}, {"state": (h_0, zero_c), "d_state_n": (zero_h, c_0)})
        same({"state": None, "d_state_n": None}, {"state": zeros, "d_state_n": zeros})


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_no_sequences_of_very_many_steps(cell):
    case = recurrent_cases.draw(np.random.default_rng(6), cell, 0, 0, 2, 3)
    case = case._replace(x=np.empty((2**40, 0, 2)), d_output=np.empty((2**40, 0, 3)))
    for options in ({}, {"reverse": True}, {"lengths": []}):
        results = recurrent_cases.run(reference, recurrent_cases.with_options(case, **options))
        assert results["output"].shape == (2**40, 0, 3) and results["d_x"].shape == (2**40, 0, 2)
        assert not any(results[f"d_{name}"].any() for name in case.weights)
