"""Optimizers: the steps against the reference and PyTorch, the contract, and invalid arguments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import _core, optim, reference

SIZES = (0, 1, 3, 15, 16, 17, 1000, 3 * (1 << 14) + 5)
ROUNDING = {np.float32: 1e-6, np.float64: 1e-14}

SGD_OPTIONS = (
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True},
)
ADAM_OPTIONS = ({}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}, {"betas": (0.0, 0.0)})
CASES = [
    *[(optim.SGD, options) for options in SGD_OPTIONS],
    *[(optim.Adam, options) for options in ADAM_OPTIONS],
    *[(optim.AdamW, options) for options in ADAM_OPTIONS],
]
CASE_NAMES = [f"{cls.__name__}-{k}" for k, (cls, _) in enumerate(CASES)]


def drawn(n, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def by_reference(cls, options, p, gradients, lr):
    """The parameters after the steps, in float64."""
    p, state = p.astype(np.float64), None
    for step, g in enumerate(gradients, 1):
        g = g.astype(np.float64)
        if cls is optim.SGD:
            b = np.zeros_like(p) if options.get("momentum") and step == 1 else state
            p, state = reference.sgd_step(p, g, b, lr=lr, is_first=step == 1, **options)
        else:
            decoupled = cls is optim.AdamW
            given = ({"weight_decay": 0.01} if decoupled else {}) | options
            m, v = (np.zeros_like(p), np.zeros_like(p)) if state is None else state
            p, m, v = reference.adam_step(p, g, m, v, step=step, lr=lr, decoupled=decoupled, **given)
            state = m, v
    return p


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("cls, options", CASES, ids=CASE_NAMES)
def test_steps_equal_the_reference(cls, options, n, dtype, isa):
    p = drawn(n, dtype)
    gradients = [drawn(n, dtype, seed) for seed in range(1, 6)]
    expected = by_reference(cls, options, p, gradients, 0.1)
    optimizer = cls(p, lr=0.1, **options)
    for g in gradients:
        optimizer.step(g)
    assert optimizer.steps == 5
    np.testing.assert_allclose(p, expected, rtol=0, atol=20 * ROUNDING[dtype])


@pytest.mark.parametrize("cls, options", CASES, ids=CASE_NAMES)
def test_steps_equal_torch(cls, options, dtype):
    torch = pytest.importorskip("torch")
    p = drawn(1003, dtype)
    parameter = torch.nn.Parameter(torch.from_numpy(p.copy()))
    ours, theirs = cls(p, lr=0.05, **options), getattr(torch.optim, cls.__name__)([parameter], lr=0.05, **options)
    for seed in range(1, 9):
        g = drawn(1003, dtype, seed)
        parameter.grad = torch.from_numpy(g.copy())
        theirs.step()
        ours.step(g)
    np.testing.assert_allclose(p, parameter.detach().numpy(), rtol=0, atol=20 * ROUNDING[dtype])


@pytest.mark.parametrize("n", (1, 1000, 700_001))
@pytest.mark.parametrize("cls, options", [CASES[0], CASES[4], CASES[6], CASES[10]])
def test_bits_do_not_depend_on_threads_and_instruction_sets(cls, options, n, dtype, threads, every_isa):
    results, norms = set(), set()
    for name in every_isa():
        if name == "generic":
            continue
        for count in (1, 2, 3):
            threads(count)
            p, g = drawn(n, dtype), drawn(n, dtype, 1)
            optimizer = cls(p, lr=0.1, **options)
            optimizer.step(g)
            norms.add(optim.clip_by_global_norm(g, 0.5))
            optimizer.step(g)
            results.add((p.tobytes(), g.tobytes()))
    assert len(results) <= 1 and len(norms) <= 1


def test_helpers_take_part_and_change_nothing(threads):
    _core.team_policy("erratic")
    n = 2_000_003
    expected = None
    for count in (1, 2, 4):
        threads(count)
        p = drawn(n, np.float32)
        optimizer = optim.Adam(p)
        for seed in range(4):
            optimizer.step(drawn(n, np.float32, seed))
        expected = expected or p.tobytes()
        assert p.tobytes() == expected


def test_parameters_of_several_layers_as_one_array():
    """A step of a list is the step of each, and Parameters are their flat array."""
    lstm, head = fastrnn.LSTM(3, 4, rng=0), drawn((4, 2), np.float32)
    d_lstm, d_head = lstm.params.copy(), drawn((4, 2), np.float32, 1)
    flat, single = lstm.params.flat.copy(), head.copy()
    optimizer = optim.Adam([lstm.params, head])
    separate = optim.Adam(flat), optim.Adam(single)
    for _ in range(3):
        optimizer.step([d_lstm, d_head])
        separate[0].step(d_lstm.flat)
        separate[1].step(d_head)
    assert lstm.params.flat.tobytes() == flat.tobytes() and head.tobytes() == single.tobytes()


def test_gradients_are_cast_and_unchanged():
    p, q, g = drawn(10, np.float32), drawn(10, np.float32), drawn(20, np.float64, 1)[::2]
    before = g.copy()
    optim.SGD(p, lr=0.1).step(g)
    optim.SGD(q, lr=0.1).step(g.astype(np.float32))
    assert p.tobytes() == q.tobytes() and g.tobytes() == before.tobytes()


def test_learning_rate_may_change_between_steps():
    p = np.zeros(3)
    optimizer = optim.SGD(p, lr=1.0)
    optimizer.step(np.ones(3))
    optimizer.lr = 0.5
    optimizer.step(np.ones(3))
    assert p.tolist() == [-1.5] * 3 and optimizer.lr == 0.5


@pytest.mark.parametrize("cls, options", [CASES[0], CASES[2], CASES[5]])
def test_state_continues_from_a_file(cls, options, tmp_path):
    p = [drawn(7, np.float32), drawn((2, 3), np.float64)]
    gradients = [[drawn(7, np.float32, k), drawn((2, 3), np.float64, k)] for k in range(4)]
    optimizer = cls(p, **options)
    for g in gradients[:2]:
        optimizer.step(g)
    np.savez(tmp_path / "state.npz", **optimizer.state_dict())
    q = [array.copy() for array in p]
    for g in gradients[2:]:
        optimizer.step(g)
    again = cls(q, **options)
    with np.load(tmp_path / "state.npz") as file:
        again.load_state_dict(file)
    for g in gradients[2:]:
        again.step(g)
    assert again.steps == 4
    assert [array.tobytes() for array in q] == [array.tobytes() for array in p]


def test_state_that_does_not_fit_changes_nothing():
    optimizer = optim.Adam(np.zeros(3))
    optimizer.step(np.ones(3))
    before = optimizer.state_dict()
    for bad, message in [
        ({"steps": 1}, "missing: exp_avg.0, exp_avg_sq.0"),
        (before | {"other": 1}, "not known: other"),
        (before | {"exp_avg.0": np.zeros(4)}, r"exp_avg.0: expected \(3,\), got \(4,\)"),
        (before | {"steps": -1}, "steps: expected 0 to 9007199254740992, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(bad)
    with pytest.raises(TypeError, match="exp_avg.0: cannot be cast"):
        optimizer.load_state_dict(before | {"exp_avg.0": np.zeros(3, complex)})
    with pytest.raises(TypeError, match="mapping: expected a mapping"):
        optimizer.load_state_dict([1])
    after = optimizer.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_cast_that_fails_changes_nothing():
    optimizer = optim.Adam(np.zeros(4, np.float32))
    before = optimizer.state_dict()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        optimizer.load_state_dict({"steps": 5, "exp_avg.0": np.ones(4), "exp_avg_sq.0": np.full(4, 1e300)})
    after = optimizer.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam])
def test_gradients_in_the_memory_of_parameters(cls):
    """As with copies of the gradients."""

    def step(copied):
        memory, others = np.arange(101, dtype=np.float32), [np.full(4, 2, np.float32), np.full(4, 3, np.float32)]
        params = [memory[1:], *others]
        gradients = [memory[:-1], others[1], others[0]]
        cls(params, lr=1.0).step([g.copy() for g in gradients] if copied else gradients)
        return [p.tobytes() for p in params]

    assert step(False) == step(True)


class Late:
    """An array-like of ones whose conversion calls `act`."""

    def __init__(self, act):
        self.act = act

    def __array__(self, dtype=None, copy=None):
        self.act()
        return np.ones(4)


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam])
def test_a_step_that_fails_changes_nothing(cls):
    def read_only(b):
        b.flags.writeable = False

    for name, change in {
        "resized": lambda b: b.resize(8, refcheck=False),
        "another dtype": lambda b: setattr(b, "dtype", np.float64),
        "another shape": lambda b: setattr(b, "shape", (2, 2)),
        "read-only": read_only,
    }.items():
        for is_late in (False, True):
            a, b = np.zeros(4, np.float32), np.zeros(4, np.float32)
            optimizer = cls([a, b], lr=1.0)
            gradients = [np.ones(4), Late(lambda: change(b))] if is_late else [np.ones(4), np.ones(4)]
            if not is_late:
                change(b)
            with pytest.raises((TypeError, ValueError)):
                optimizer.step(gradients)
            assert optimizer.steps == 0 and not a.any() and not b.any(), (name, is_late)


# The norm


def test_clipping_of_the_largest_numbers():
    """The factor is denormal in float32."""
    gradient = np.full(100, 1e38, np.float32)
    assert optim.clip_by_global_norm(gradient, 5.0) == pytest.approx(1e39)
    np.testing.assert_allclose(gradient, 0.5, rtol=1e-6)
    gradient = np.full(4, 1e38, np.float32)
    optim.clip_by_global_norm(gradient, 0.0)
    assert not gradient.any()


@pytest.mark.parametrize("n", SIZES)
def test_norm_and_clipping(n, dtype, isa):
    gradients = [drawn(n, dtype), drawn((2, 3), dtype, 1)]
    copies = [g.copy() for g in gradients]
    expected = np.sqrt(sum(np.sum(g.astype(np.longdouble) ** 2) for g in gradients))
    norm = optim.clip_by_global_norm(gradients, 0.5 * expected)
    np.testing.assert_allclose(norm, float(expected), rtol=1e-13)
    for g, before in zip(gradients, copies):
        np.testing.assert_allclose(g, before * (0.5 * float(expected) / (norm + 1e-6)), rtol=1e-6, atol=0)


def test_small_gradients_are_unchanged():
    g = drawn(100, np.float32)
    before = g.tobytes()
    norm = optim.clip_by_global_norm(g, 1e3)
    assert g.tobytes() == before and norm == pytest.approx(np.linalg.norm(g.astype(float)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_whose_norm_is_not_finite_are_unchanged(bad):
    g = np.array([1.0, bad, 2.0], np.float32)
    before = g.tobytes()
    assert not np.isfinite(optim.clip_by_global_norm(g, 1.0)) and g.tobytes() == before


def test_large_float32_gradients_do_not_overflow():
    g = np.full(100, 3e30, np.float32)
    assert optim.clip_by_global_norm(g, 1.0) == pytest.approx(3e31)
    np.testing.assert_allclose(g, 0.1, rtol=1e-6)


@given(splits=st.lists(st.integers(1, 400), min_size=1, max_size=5), seed=st.integers(0, 100))
def test_norm_of_several_arrays(splits, seed):
    arrays = [drawn(n, np.float32, seed + k) for k, n in enumerate(splits)]
    whole = np.concatenate(arrays).astype(np.float64)
    assert optim.clip_by_global_norm(arrays, 1e9) == pytest.approx(np.linalg.norm(whole), rel=1e-13)


# Arguments


@pytest.mark.parametrize(
    "error, message, make",
    [
        (TypeError, "params: a LSTM; give its params", lambda: optim.SGD(fastrnn.LSTM(3, 4))),
        (TypeError, "params: expected Parameters or an ndarray, got int", lambda: optim.SGD(3)),
        (TypeError, r"params: expected Parameters or an ndarray, got list", lambda: optim.SGD([1.0, 2.0])),
        (TypeError, "params: expected float32 or float64, got int64", lambda: optim.SGD(np.zeros(3, np.int64))),
        (ValueError, "params: not C-contiguous", lambda: optim.SGD(np.zeros((3, 4))[:, ::2])),
        (ValueError, "params: is empty", lambda: optim.SGD([])),
        (ValueError, "lr: expected a finite number of at least 0", lambda: optim.SGD(np.zeros(3), lr=-1)),
        (TypeError, "lr: expected a number, got True", lambda: optim.SGD(np.zeros(3), lr=True)),
        (ValueError, "lr: expected a finite number", lambda: optim.SGD(np.zeros(3), lr=np.nan)),
        (ValueError, "lr: expected a finite number", lambda: optim.Adam(np.zeros(3), lr=10**400)),
        (ValueError, "lr: expected .* got a huge number", lambda: optim.Adam(np.zeros(3), lr=10**5000)),
        (ValueError, "dampening: expected a finite number", lambda: optim.SGD(np.zeros(3), dampening=-(10**400))),
        (ValueError, "momentum: expected", lambda: optim.SGD(np.zeros(3), momentum=-0.1)),
        (ValueError, "nesterov: needs a momentum", lambda: optim.SGD(np.zeros(3), nesterov=True)),
        (TypeError, "betas: expected a pair", lambda: optim.Adam(np.zeros(3), betas=0.9)),
        (ValueError, r"betas\[1\]: expected .* less than 1", lambda: optim.Adam(np.zeros(3), betas=(0.9, 1.0))),
        (ValueError, "weight_decay: expected", lambda: optim.AdamW(np.zeros(3), weight_decay=-1)),
        (ValueError, "max_norm: expected", lambda: optim.clip_by_global_norm(np.zeros(3), -1.0)),
    ],
)
def test_invalid_arguments(error, message, make):
    with pytest.raises(error, match=f"^{message}"):
        make()


def test_arrays_that_share_memory_are_refused():
    p = np.zeros(10)
    with pytest.raises(ValueError, match=r"^params\[1\]: shares memory"):
        optim.Adam([p, p[5:]])
    with pytest.raises(ValueError, match=r"^gradients\[1\]: shares memory"):
        optim.clip_by_global_norm([p, p], 1.0)


@pytest.mark.parametrize(
    "gradients, message",
    [
        ([np.ones(3)], r"gradients: expected a sequence of 2, as params, got a sequence of 1"),
        (np.ones(3), "gradients: expected a sequence of 2, as params, got one"),
        ([np.ones(3), np.ones(4)], r"gradients\[1\]: expected the names and shapes|gradients\[1\]: expected"),
        ([np.ones(2), None], r"gradients\[0\]: expected \(3,\), got \(2,\)"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(gradients, message):
    cell = fastrnn.RNNCell(2, 3, rng=0)
    p = np.zeros(3)
    before = cell.params.flat.tobytes()
    optimizer = optim.Adam([p, cell.params])
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        optimizer.step(gradients)
    assert optimizer.steps == 0 and not p.any() and cell.params.flat.tobytes() == before


def test_frozen_layers_are_refused():
    layer = fastrnn.LSTM(3, 4)
    optimizer = optim.SGD(layer.params)
    layer.freeze()
    with pytest.raises(ValueError, match="^params: read-only; of a frozen layer, unfreeze"):
        optimizer.step(layer.params.zeros_like())
    with pytest.raises(ValueError, match="^params: read-only"):
        optim.SGD(layer.params)
    layer.unfreeze()
    optimizer.step(layer.params.zeros_like())


def test_the_norm_alone():
    g = np.array([3.0, 4.0])
    assert optim.clip_by_global_norm(g, np.inf) == 5 and g.tolist() == [3, 4]
    with pytest.raises(ValueError, match="^max_norm: expected"):
        optim.clip_by_global_norm(g, np.nan)


def test_optim_is_imported_on_demand():
    assert fastrnn.optim is optim and "optim" in dir(fastrnn)
