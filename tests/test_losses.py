"""Losses: against NumPy in higher precision and PyTorch, the contract, extreme values, invalid arguments."""

import math

import numpy as np
import pytest

import fastrnn

ROUNDING = {np.float32: 2e-7, np.float64: 1e-15}
SHAPES = [(1, 1), (1, 2), (3, 5), (7, 15), (4, 16), (5, 17), (2, 31), (40, 65), (3, 1000)]


def drawn(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def cross_entropy(logits, targets):
    """Loss and gradient in long double; a negative target does not count."""
    z = logits.astype(np.longdouble)
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    counts = targets >= 0
    rows = np.arange(len(z))[counts]
    loss = np.sum(np.log(e.sum(axis=1))[counts] - z[rows, targets[counts]]) / counts.sum()
    d = e / e.sum(axis=1, keepdims=True)
    d[rows, targets[counts]] -= 1
    return float(loss), np.where(counts[:, None], d / counts.sum(), 0).astype(np.float64)


@pytest.mark.parametrize("scale", [1e-3, 1, 30])
@pytest.mark.parametrize("N, C", SHAPES)
def test_cross_entropy_equals_numpy_in_higher_precision(N, C, scale, dtype, isa):
    logits = scale * drawn((N, C), np.float64).astype(dtype)
    logits = logits.astype(dtype)
    targets = np.random.default_rng(1).integers(0, C, N)
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    expected, d_expected = cross_entropy(logits, targets)
    assert type(loss) is float and d_logits.dtype == dtype
    # Each exponential and each difference is rounded in the dtype; the sums are in double precision.
    assert loss == pytest.approx(expected, rel=4 * ROUNDING[dtype], abs=4 * ROUNDING[dtype])
    bound = 8 * ROUNDING[dtype] * max(1, scale) / N
    np.testing.assert_allclose(d_logits, d_expected, rtol=0, atol=bound)


def test_cross_entropy_equals_torch(dtype):
    torch = pytest.importorskip("torch")
    logits, targets = drawn((4, 6, 9), dtype), np.random.default_rng(1).integers(0, 9, (4, 6))
    targets[1, 2:] = -100
    tensor = torch.from_numpy(logits.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(tensor.reshape(-1, 9), torch.from_numpy(targets).reshape(-1))
    expected.backward()
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(d_logits, tensor.grad.numpy(), rtol=0, atol=10 * ROUNDING[dtype])


def test_rows_that_do_not_count():
    logits, targets = drawn((5, 4), np.float64), np.array([1, 7, 0, 7, 3])
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets, ignore_index=7)
    counted = [0, 2, 4]
    expected, d_expected = fastrnn.softmax_cross_entropy(logits[counted], targets[counted])
    assert loss == pytest.approx(expected, rel=1e-15) and not d_logits[[1, 3]].any()
    assert d_logits[counted].tobytes() == d_expected.tobytes()
    nothing, d_nothing = fastrnn.softmax_cross_entropy(logits, np.full(5, -100))
    assert math.isnan(nothing) and not d_nothing.any()
    empty, d_empty = fastrnn.softmax_cross_entropy(np.zeros((0, 4)), np.zeros(0, int))
    assert math.isnan(empty) and d_empty.shape == (0, 4)


def test_extreme_logits(dtype):
    huge = np.finfo(dtype).max / 4
    loss, d_logits = fastrnn.softmax_cross_entropy(np.array([[huge, -huge], [-huge, -huge]], dtype), [0, 1])
    assert loss == pytest.approx(math.log(2) / 2) and np.allclose(d_logits, [[0, 0], [0.25, -0.25]])
    loss, d_logits = fastrnn.softmax_cross_entropy(np.array([[0, -np.inf, 1]], dtype), [0])
    assert loss == pytest.approx(math.log1p(math.e)) and d_logits[0, 1] == 0
    loss, d_logits = fastrnn.softmax_cross_entropy(np.array([[0, np.nan, 1]], dtype), [0])
    assert math.isnan(loss) and np.isnan(d_logits).all()


@pytest.mark.parametrize("C", range(1, 36))
def test_every_class_may_be_far_above_the_others(C, dtype, isa):
    """The maximum is that of all classes, whatever the width of a vector is."""
    logits = np.eye(C, dtype=dtype) * 1000
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, np.arange(C))
    assert loss == 0 and not d_logits.any()
    if C > 1:
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, np.roll(np.arange(C), 1))
        assert loss == 1000 and np.array_equal(d_logits * C, np.eye(C) - np.roll(np.eye(C), 1, axis=0))


def test_gradient_of_the_cross_entropy_by_finite_differences():
    logits, targets, step = drawn((3, 4), np.float64), np.array([0, 3, 1]), 1e-4
    _, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    for k in range(logits.size):
        sides = []
        for sign in (1, -1):
            moved = logits.copy()
            moved.flat[k] += sign * step
            sides.append(fastrnn.softmax_cross_entropy(moved, targets)[0])
        np.testing.assert_allclose(d_logits.flat[k], (sides[0] - sides[1]) / (2 * step), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (17,), (40_000,), (0, 3)])
def test_squared_error_equals_numpy_in_higher_precision(shape, dtype, isa):
    p, t = drawn(shape, dtype), drawn(shape, dtype, 1)
    p, t = np.asarray(p, dtype), np.asarray(t, dtype)
    loss, d = fastrnn.mean_squared_error(p, t)
    assert type(loss) is float and d.dtype == dtype and d.shape == shape
    if p.size == 0:
        assert math.isnan(loss)
        return
    difference = p.astype(np.longdouble) - t
    assert loss == pytest.approx(float(np.mean(difference**2)), rel=4 * ROUNDING[dtype])
    np.testing.assert_allclose(d, (2 * difference / p.size).astype(float), rtol=4 * ROUNDING[dtype], atol=0)


def test_squared_error_equals_torch():
    torch = pytest.importorskip("torch")
    p, t = drawn((4, 3), np.float64), drawn((4, 3), np.float64, 1)
    tensor = torch.from_numpy(p.copy()).requires_grad_()
    expected = torch.nn.functional.mse_loss(tensor, torch.from_numpy(t))
    expected.backward()
    loss, d = fastrnn.mean_squared_error(p, t)
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    np.testing.assert_allclose(d, tensor.grad.numpy(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("N, C", [(5, 7), (3000, 65), (20, 40_000)])
def test_bits_do_not_depend_on_threads_and_instruction_sets(N, C, dtype, threads, every_isa):
    logits, targets = drawn((N, C), dtype), np.random.default_rng(1).integers(0, C, N)
    found = set()
    for name in every_isa():
        if name != "generic":
            for count in (1, 2, 3):
                threads(count)
                loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
                error, d_error = fastrnn.mean_squared_error(logits, logits[::-1])
                found.add((loss, d_logits.tobytes(), error, d_error.tobytes()))
    assert len(found) <= 1


@pytest.mark.parametrize(
    "error, message, logits, targets",
    [
        (TypeError, "logits: expected float32 or float64, got int64", np.zeros((2, 3), np.int64), [0, 1]),
        (ValueError, r"logits: expected \(..., C\)", 1.0, 0),
        (ValueError, r"logits: expected \(..., C\)", np.zeros((2, 0)), [0, 1]),
        (TypeError, "targets: expected integers, got float64", np.zeros((2, 3)), [0.0, 1.0]),
        (ValueError, r"targets: expected \(2,\), got \(3,\) with logits \(2, 3\)", np.zeros((2, 3)), [0, 1, 2]),
        (ValueError, r"targets: expected \(2,\), got \(2, 3\)", np.zeros((2, 3)), np.zeros((2, 3), int)),
        (ValueError, "targets: expected 0 to 2, or ignore_index=-100, got 3", np.zeros((2, 3)), [0, 3]),
        (ValueError, "targets: expected 0 to 2, or ignore_index=-100, got -1", np.zeros((2, 3)), [0, -1]),
        (
            ValueError,
            "targets: expected 0 to 2, or ignore_index=-100, got 18446744073709551516",
            np.zeros((2, 3)),
            np.array([0, 2**64 - 100], ">u8"),  # -100, if it is cast to int64
        ),
    ],
)
def test_invalid_logits_and_targets(error, message, logits, targets):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.softmax_cross_entropy(logits, targets)


def test_an_ignored_index_that_is_no_int64():
    for index in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="^ignore_index: expected a signed integer of 64 bits"):
            fastrnn.softmax_cross_entropy(np.zeros((2, 3)), [0, 1], ignore_index=index)


def test_invalid_predictions():
    with pytest.raises(TypeError, match="^prediction: expected float32 or float64, got int64"):
        fastrnn.mean_squared_error(np.zeros(3, np.int64), np.zeros(3))
    with pytest.raises(ValueError, match=r"^target: expected \(3,\), got \(3, 1\) with prediction \(3,\)"):
        fastrnn.mean_squared_error(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(TypeError, match="^target: cannot be cast from complex128"):
        fastrnn.mean_squared_error(np.zeros(3), np.zeros(3, complex))


def test_a_network_has_the_same_bits_everywhere(threads, every_isa):
    """Layer, head, loss, clipping and optimizer together."""
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((12, 5, 7)).astype(np.float32), rng.integers(0, 9, (12, 5))
    found = set()
    for name in every_isa():
        if name != "generic":
            for count in (1, 2):
                threads(count)
                layer, head = fastrnn.LSTM(7, 16, rng=0), fastrnn.Linear(16, 9, rng=1)
                optimizer = fastrnn.optim.AdamW([layer.params, head.params], lr=1e-2)
                losses = []
                for _ in range(4):
                    output, _, tape = layer.forward(x)
                    logits, head_tape = head.forward(output)
                    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
                    d_output, d_head = head.backward(head_tape, d_logits)
                    gradients = [layer.backward(tape, d_output)[2], d_head]
                    fastrnn.optim.clip_by_global_norm(gradients, 0.1)
                    optimizer.step(gradients)
                    losses.append(loss)
                assert losses[-1] < losses[0]
                found.add((*losses, layer.params.flat.tobytes(), head.params.flat.tobytes()))
    assert len(found) <= 1


# Weights of rows --------------------------------------------------------------------------------


def test_integer_weights_are_repetitions(dtype, isa):
    logits, target = drawn((7, 5), dtype), drawn((7, 5), dtype, seed=1)
    classes, weights = np.arange(7) % 5, np.array([1, 0, 3, 2, 2, 1, 4])
    start = np.cumsum(weights) - weights
    for loss, second in (fastrnn.softmax_cross_entropy, classes), (fastrnn.mean_squared_error, target):
        found, d_found = loss(logits, second, weights=weights)
        expected, d_repeated = loss(logits.repeat(weights, axis=0), second.repeat(weights, axis=0))
        if loss is fastrnn.mean_squared_error:
            assert found == pytest.approx(expected, rel=8 * ROUNDING[dtype])
        else:
            assert found == pytest.approx(expected, rel=1e-14)
        d_expected = [d_repeated[k : k + w].sum(axis=0) for k, w in zip(start, weights)]
        assert d_found.dtype == dtype and not d_found[1].any()
        np.testing.assert_allclose(d_found, d_expected, rtol=0, atol=8 * ROUNDING[dtype])


def test_weights_are_relative_and_ones_change_nothing():
    logits, classes = drawn((2, 6, 5), np.float64), np.arange(12).reshape(2, 6) % 5
    weights = np.random.default_rng(2).uniform(0.5, 2, (2, 6))
    for loss, second in (fastrnn.softmax_cross_entropy, classes), (fastrnn.mean_squared_error, 2 * logits + 1):
        found, d_found = loss(logits, second, weights=weights)
        scaled, d_scaled = loss(logits, second, weights=4 * weights)
        assert scaled == pytest.approx(found, rel=1e-15)
        np.testing.assert_allclose(d_scaled, d_found, rtol=1e-14)
        plain, d_plain = loss(logits, second)
        ones, d_ones = loss(logits, second, weights=np.ones((2, 6), np.float32))
        assert ones == pytest.approx(plain, rel=1e-15) and d_ones.tobytes() == d_plain.tobytes()


def test_weighted_rows_that_do_not_count():
    logits = drawn((4, 3), np.float64)
    logits[2] = [np.inf, 0, np.nan]
    targets, weights = np.array([0, -100, 1, 2]), np.array([1.0, 7, 0, 3])
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets, weights=weights)
    expected, d_expected = fastrnn.softmax_cross_entropy(logits[[0, 3]], targets[[0, 3]], weights=weights[[0, 3]])
    assert loss == expected and d_logits[[0, 3]].tobytes() == d_expected.tobytes() and not d_logits[[1, 2]].any()
    nothing, d_nothing = fastrnn.softmax_cross_entropy(logits, targets, weights=np.zeros(4))
    assert math.isnan(nothing) and not d_nothing.any()
    nothing, d_nothing = fastrnn.mean_squared_error(np.ones((2, 3)), np.zeros((2, 3)), weights=[0, 0])
    assert math.isnan(nothing) and not d_nothing.any()


def test_a_weight_of_a_single_number():
    loss, d_prediction = fastrnn.mean_squared_error(np.array(3.0), np.array(1.0), weights=4)
    assert loss == 4 and d_prediction.shape == () and d_prediction == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_of_weight_zero_may_have_any_numbers(bad, dtype):
    prediction, target = drawn((2, 6, 3), dtype), drawn((2, 6, 3), dtype, 1)
    weights = np.random.default_rng(2).uniform(0.5, 2, (2, 6))
    weights[0, 4:] = weights[1, 2:] = 0
    padding = weights == 0
    classes = np.arange(12).reshape(2, 6) % 3
    for loss, second in (fastrnn.softmax_cross_entropy, classes), (fastrnn.mean_squared_error, target):
        expected, d_expected = loss(prediction, second, weights=weights)
        padded, other = prediction.copy(), second.copy()
        padded[padding] = bad
        if loss is fastrnn.mean_squared_error:
            other[padding] = -bad
        found, d_found = loss(padded, other, weights=weights)
        assert found == expected and np.array_equal(d_found, d_expected)
        assert not d_found[padding].any() and d_found[~padding].all()
    found, d_found = fastrnn.mean_squared_error(np.array([bad, 2]), np.array([0.0, 4]), weights=[0, 4])
    assert found == 4 and d_found.tolist() == [0, -4]


def test_the_gradient_of_weighted_errors_of_one_axis():
    loss, d_prediction = fastrnn.mean_squared_error(np.array([1.0, 2.0]), np.array([0.0, 4.0]), weights=[3, 1])
    assert loss == pytest.approx(7 / 4) and d_prediction == pytest.approx([6 / 4, -4 / 4])


@pytest.mark.parametrize(
    "weights, error, message",
    [
        (np.ones(3), ValueError, "weights: expected"),
        (np.ones((2, 3)), ValueError, "weights: expected"),
        ([1.0, -1.0], ValueError, "weights: expected finite numbers of at least 0"),
        ([1.0, np.nan], ValueError, "weights: expected finite numbers of at least 0"),
        ([1.0, np.inf], ValueError, "weights: expected finite numbers of at least 0"),
        ([1j, 1.0], TypeError, "weights: expected real numbers, got complex128"),
        (["a", "b"], TypeError, "weights: expected real numbers"),
    ],
)
def test_bad_weights(weights, error, message):
    with pytest.raises(error, match=message):
        fastrnn.softmax_cross_entropy(np.zeros((2, 3)), [0, 1], weights=weights)
    with pytest.raises(error, match=message):
        fastrnn.mean_squared_error(np.zeros((2, 3)), np.zeros((2, 3)), weights=weights)


@pytest.mark.parametrize("scale", [1e-320, 1e-42, 2.0**-31, 1e30, 1e308])
def test_weights_of_any_size(scale, dtype):
    """Only their proportions count; powers of two change no bit."""
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((5, 3)).astype(dtype), [0, 1, 2, 0, 1]
    weights = rng.uniform(0.5, 1, 5)
    for loss_of, other in ((fastrnn.softmax_cross_entropy, targets), (fastrnn.mean_squared_error, np.zeros((5, 3)))):
        loss, gradient = loss_of(logits, other, weights=weights)
        scaled_loss, scaled = loss_of(logits, other, weights=weights * scale)
        tolerance = 5e-3 if scale < 1e-300 else 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(scaled_loss, loss, rtol=tolerance)
        np.testing.assert_allclose(scaled, gradient, rtol=tolerance)
        if scale == 2.0**-31 and loss_of is fastrnn.softmax_cross_entropy:
            assert scaled_loss == loss and scaled.tobytes() == gradient.tobytes()
