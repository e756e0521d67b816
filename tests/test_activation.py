"""sigmoid, tanh and log_sigmoid of the kernels: accuracy against a higher precision, and guarantees at the edges."""

import mpmath
import numpy as np
import pytest

from fastrnn import _core

FUNCTIONS = ["sigmoid", "tanh", "log_sigmoid"]


# In the precision of mpmath.
EXACT = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "log_sigmoid": lambda x: min(x, 0) - mpmath.log1p(mpmath.exp(-abs(x))),
}


def activate(function, x, isa):
    x = np.ascontiguousarray(x)
    y = np.full_like(x, 777)
    _core.activate(function, x, y, isa)
    return y


def exact32(function, x):
    """In double precision, which is exact here to 1e-8 units in the last place of float32."""
    x = x.astype(np.float64)
    if function == "tanh":
        return np.tanh(x)
    z = np.exp(-np.abs(x))
    if function == "log_sigmoid":
        return np.minimum(x, -0.0) - np.log1p(z)
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z))


def all_float32(lowest, highest, stride=1):
    """Every stride-th positive float32 from lowest to highest, in order."""
    first, last = np.array([lowest, highest], np.float32).view(np.uint32)
    return np.arange(first, last + 1, stride, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_is_within_some_ulp(function, isa):
    tiny = np.finfo(np.float32).tiny
    positive = np.concatenate([all_float32(tiny, np.float32(3.4e38), 997), all_float32(1e-3, 100, 61)])
    for x in (positive, -positive):
        y = activate(function, x, isa)
        exact = exact32(function, x)
        normal = np.abs(exact) >= tiny
        units = np.abs(y - exact)[normal] / np.spacing(np.abs(exact[normal]).astype(np.float32))
        assert units.max() <= (3 if function == "log_sigmoid" else 2)
        # A denormal result may only be flushed to a zero of the same sign.
        rest, exact_rest = y[~normal], exact[~normal]
        assert np.all((rest == 0) | (np.abs(rest - exact_rest) <= 2 * np.spacing(np.float32(0))))
        assert np.all(np.signbit(rest) == np.signbit(exact_rest))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float64_is_within_4_ulp(function, isa):
    rng = np.random.default_rng(5)
    magnitudes = [rng.uniform(0, 1, 700), rng.uniform(0, 40, 700), 10 ** rng.uniform(-300, 3, 600)]
    x = np.concatenate([s * m for m in magnitudes for s in (1, -1)])
    y = activate(function, x, isa)
    with mpmath.workprec(200):
        for value, actual in zip(x, y, strict=True):
            v = mpmath.mpf(float(value))
            exact = EXACT[function](v)
            if abs(exact) >= np.finfo(np.float64).tiny:
                unit = float(np.spacing(abs(float(exact))))
                assert abs(mpmath.mpf(float(actual)) - exact) <= 4 * unit, value
            else:
                assert actual == 0, value


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_float32_is_monotone(function, sign, isa):
    """Checks every float32 of magnitudes from 1/8 to 32, for losses of monotonicity."""
    for exponent in range(-3, 5):
        x = all_float32(2.0**exponent, 2.0 ** (exponent + 1))
        y = activate(function, sign * x, isa)
        assert np.all(y[1:] >= y[:-1] if sign > 0 else y[1:] <= y[:-1])


def test_tanh_is_odd_and_keeps_the_sign_of_zero(dtype, isa):
    x = np.concatenate([np.linspace(0, 12, 10001), 10.0 ** np.arange(-37, 38)]).astype(dtype)
    assert activate("tanh", -x, isa).tobytes() == (-activate("tanh", x, isa)).tobytes()
    assert np.signbit(activate("tanh", np.array([-0.0], dtype), isa)[0])


def test_tanh_of_tiny_numbers_is_the_number(dtype, isa):
    x = np.array([1e-30, 3e-20, -7e-12, 1e-9, np.finfo(dtype).tiny, -np.finfo(dtype).tiny], dtype)
    assert activate("tanh", x, isa).tobytes() == x.tobytes()


def test_saturation_is_exact(dtype, isa):
    largest = np.finfo(dtype).max
    x = np.array([20, 50, 1000, largest, np.inf], dtype)
    if dtype == np.float64:
        x[0] = 40
    assert np.all(activate("tanh", x, isa) == 1)
    assert np.all(activate("tanh", -x, isa) == -1)
    assert np.all(activate("sigmoid", x, isa) == 1)
    assert np.all(activate("sigmoid", -x[2:], isa) == 0)
    assert activate("sigmoid", np.zeros(1, dtype), isa)[0] == 0.5
    assert np.all(activate("log_sigmoid", x[2:], isa) == 0)
    assert np.all(activate("log_sigmoid", -x, isa) == -x)


def test_nan_stays_nan_and_stays_in_its_lane(dtype, isa):
    x = np.linspace(-3, 3, 67).astype(dtype)
    for function in FUNCTIONS:
        clean = activate(function, x, isa)
        for k in range(len(x)):
            dirty = x.copy()
            dirty[k] = np.nan
            y = activate(function, dirty, isa)
            assert np.isnan(y[k])
            assert np.delete(y, k).tobytes() == np.delete(clean, k).tobytes()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_denormals_give_what_zero_or_the_number_gives(function, dtype, isa):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.array([smallest, -smallest, 1000 * smallest, -1000 * smallest], dtype)
    y = activate(function, x, isa)
    if function == "sigmoid":
        assert np.all(y == 0.5)
    elif function == "log_sigmoid":
        assert np.all(np.abs(y + np.log(dtype(2))) <= np.finfo(dtype).eps)
    else:
        assert np.all((y == 0) | (y == x))
        assert np.all(np.signbit(y) == np.signbit(x))


def test_sets_with_fma_agree_to_the_last_bit(dtype):
    from fastrnn import _config

    sets = [name for name in _config.runnable() if name != "generic"]
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 1_000_001, dtype=np.uint32)
    x = (
        bits.view(np.float32)
        if dtype == np.float32
        else rng.standard_normal(1_000_001) * 10 ** rng.uniform(-5, 2, 1_000_001)
    )
    x = np.nan_to_num(x, nan=1.0)
    for function in FUNCTIONS:
        results = {activate(function, x, name).tobytes() for name in sets}
        assert len(results) <= 1


@pytest.mark.parametrize("n", range(70))
def test_every_length_writes_exactly_its_lanes(n, dtype, isa):
    x = np.linspace(-2, 2, n + 1).astype(dtype)[:n]
    room = np.full(n + 40, 5, dtype)
    _core.activate("tanh", x, room[20 : 20 + n], isa)
    assert np.all(room[:20] == 5) and np.all(room[20 + n :] == 5)
    assert np.allclose(room[20 : 20 + n], np.tanh(x), rtol=1e-5)
