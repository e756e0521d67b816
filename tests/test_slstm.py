"""The sLSTM: its equations at all sizes and extremes, its heads, and its arguments.

Its promises to the last bit are tested with those of the other cells, in test_contract.py and test_options.py.
"""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
import finite_differences
import recurrent_cases
from depth import DEPTH
from fastrnn import _config, _core, functional, reference
from fastrnn._engine.spec import GRU, LSTM, RNN, SLSTM
from recurrent_cases import STATES, draw, run

TOLERANCE = {np.float32: 5e-6, np.float64: 2e-14}
HEADS = [1, 2, 3, 4, 6, 8]


def drawn(T, B, I, H, *, seed=0, dtype=np.float64, **options):
    return draw(np.random.default_rng(seed), "slstm", T, B, I, H, dtype=dtype, **options)


def as_float64(case):
    def arrays(values):
        return tuple(v.astype(np.float64) for v in values)

    return case._replace(
        x=case.x.astype(np.float64), state=arrays(case.state), d_output=case.d_output.astype(np.float64),
        d_state_n=arrays(case.d_state_n), weights={name: w.astype(np.float64) for name, w in case.weights.items()},
    )  # fmt: skip


def assert_close(case, expected):
    dtype = case.x.dtype.type
    rows = max(1, case.x.shape[0] * case.x.shape[1])
    for name, array in run(functional, case).items():
        scale = max(1.0, np.nanmax(np.abs(expected[name]), initial=0)) * rows**0.25
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@settings(max_examples=100 * DEPTH)
@given(
    isa=st.sampled_from(_config.runnable()),
    dtype=st.sampled_from([np.float32, np.float64]),
    T=st.integers(0, 9),
    B=st.one_of(st.integers(0, 4), st.sampled_from([13, 14, 15, 29, 33])),
    I=st.one_of(st.integers(0, 4), st.sampled_from([15, 17, 64])),
    heads=st.sampled_from(HEADS),
    head=st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_shapes_of_heads(isa, dtype, T, B, I, heads, head, seed):
    empty = range(0, B, 3)
    case = drawn(T, B, I, heads * head, num_heads=heads, seed=seed, dtype=dtype, empty=empty)
    with _config.using(isa):
        assert_close(case, run(reference, as_float64(case)))


@settings(max_examples=60 * DEPTH, deadline=None)
@given(recurrent_cases.cases(cells=["slstm"], features=True))
def test_gradients_match_finite_differences(case):
    finite_differences.assert_slopes(case, np.random.default_rng(1), functional, smooth=False)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_against_an_independent_implementation(num_heads, reverse):
    pytest.importorskip("torch")
    import torch_cells

    for seed, empty in enumerate([(), range(4), (1, 2)]):
        resets = np.random.default_rng(seed).random((9, 4)) < 0.2
        options = {"num_heads": num_heads, "lengths": [3, 9, 0, 6], "reverse": reverse, "resets": resets}
        case = drawn(9, 4, 5, 24, seed=seed, empty=empty, **options)
        assert_close(case, torch_cells.run(case))


# Extremes


def exact_case(dtype, x, state=None):
    """Pre-activations that are the numbers of x (T, B, 4), exactly; one unit, no recurrence."""
    T, B, _ = x.shape
    case = drawn(T, B, 4, 1, dtype=dtype)
    weights = {"weight_ih": np.eye(4, dtype=dtype), "weight_hh": np.zeros((4, 1), dtype)}
    state = tuple(np.full((B, 1), v, dtype) for v in state or (0, 0, 0, 0))
    return case._replace(x=x.astype(dtype), weights=weights, state=state)


@pytest.mark.parametrize("state", [(0, 0, 0, 0), (0.5, 0.7, 1.5, 3), (0.5, -0.7, 2.0, -200)])
def test_huge_numbers_do_not_overflow(dtype, isa, state):
    """All combinations of 1e4, -1e4, 0 and 100 as sums of i, f and z, for several steps."""
    values = np.array([1e4, -1e4, 0, 100, -100])
    grid = np.stack([v.ravel() for v in np.meshgrid(values, values, values, [1.0, -1e4], indexing="ij")], axis=-1)
    x = np.stack([grid, grid[::-1], grid])
    case = exact_case(dtype, x, state)
    expected = run(reference, as_float64(case))
    actual = run(functional, case)
    for name, array in expected.items():
        assert np.isfinite(actual[name]).all(), name
        # The error of f is that of a sum near 1e4.
        scale = np.abs(array) + max(1.0, np.abs(array).max() * 1e-3)
        assert np.all(np.abs(actual[name] - array) <= 1e4 * np.finfo(dtype).eps * scale), name


def test_infinities_and_nan_are_those_of_the_reference(dtype, isa):
    values = np.array([0.0, np.inf, -np.inf, np.nan, 1.0])
    grid = np.stack([v.ravel() for v in np.meshgrid(values, values, values, values, indexing="ij")], axis=-1)
    x = np.stack([np.zeros_like(grid), grid, np.zeros_like(grid)])
    for state in ((0, 0, 0, 0), (0.5, 0.7, 1.5, 3), (0.5, 0.7, np.nan, 3), (0.5, np.inf, 1.5, 3), (0, 0, 0, np.nan)):
        case = exact_case(dtype, x, state)
        with np.errstate(all="ignore"):
            expected = run(reference, as_float64(case))
        actual = run(functional, case)
        for name in ("output", "h_n", "c_n", "n_n", "m_n"):
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{state} {name}")


def test_a_nan_stays_in_its_sequence(dtype, isa, threads):
    case = drawn(5, 17, 6, 36, dtype=dtype, num_heads=3)
    threads(2)
    expected = run(functional, case)
    case.x[2, 3, 4] = np.nan
    actual = run(functional, case)
    others = np.arange(17) != 3
    for name in ("output", "d_x"):
        assert actual[name][:, others].tobytes() == expected[name][:, others].tobytes(), name
    for state in "hcnm":
        for name in (f"{state}_n", f"d_{state}_0"):
            assert actual[name][others].tobytes() == expected[name][others].tobytes(), name
    assert np.isnan(actual["output"][2:, 3]).all() and not np.isnan(actual["output"][:2]).any()


def test_denormals_are_zeros(dtype, isa):
    """As numbers of any argument, and as a normalizer, which is then that of an empty state."""
    case = drawn(4, 6, 5, 20, dtype=dtype)
    smallest = np.finfo(dtype).smallest_subnormal
    for number in (smallest, -smallest, 100 * smallest):
        for array in (case.x, *case.state, case.weights["weight_hh"], case.weights["bias_ih"]):
            kept = array.copy()
            array[..., :1] = 0
            expected = run(functional, case)
            array[..., :1] = number
            actual = run(functional, case)
            array[...] = kept
            for name, one in expected.items():
                np.testing.assert_allclose(actual[name], one, rtol=0, atol=1e-30, err_msg=name)


def test_an_empty_state(dtype, isa):
    """Where n_0 is 0, c_0 and m_0 do not matter, and neither they nor n_0 have a gradient."""
    case = drawn(4, 5, 3, 20, dtype=dtype, empty=[1, 3])
    expected = run(functional, case)
    h_0, c_0, n_0, m_0 = (s.copy() for s in case.state)
    c_0[[1, 3]], m_0[[1, 3]] = 7, -1000
    actual = run(functional, case._replace(state=(h_0, c_0, n_0, m_0)))
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)  # zeros of either sign
    for name in ("d_c_0", "d_n_0", "d_m_0"):
        assert not actual[name][[1, 3]].any() and actual[name][[0, 2, 4]].all()


# Heads

KERNELS = {"lstm": LSTM, "gru": GRU, "gru_reset_before": GRU, "rnn_tanh": RNN, "rnn_relu": RNN, "slstm": SLSTM}


def run_kernel(kernel, case, threads, isa):
    """All results of one layer of the kernels, whatever the shape of weight_hh."""
    T, B, I = case.x.shape
    weights = tuple(case.weights.values())
    (forward,), (backward,) = (
        _core.pack(_core.Kernel(kernel), [weights], flag, threads, isa) for flag in (False, True)
    )
    state_0 = [s[None] for s in case.state]
    state_n, d_state_0 = ([np.empty_like(s) for s in state_0] for _ in range(2))
    output, inferred, d_x = np.empty_like(case.d_output), np.empty_like(case.d_output), np.empty_like(case.x)
    size = _core.saved_bytes(forward, T * B)
    room = np.empty(size + 64, np.uint8)
    saved = room[-room.ctypes.data % 64 :][:size]
    _core.forward([_core.ForwardCall(forward, 0, case.x, None, state_0, state_n, inferred)], False, threads)
    _core.forward([_core.ForwardCall(forward, 0, case.x, None, state_0, state_n, output, saved)], False, threads)
    d_weights = tuple(np.empty_like(w) for w in weights)
    d_state_n = [d[None] for d in case.d_state_n]
    call = _core.BackwardCall(
        backward, 0, case.x, None, state_0, saved, case.d_output, d_state_n, d_x, d_state_0, d_weights
    )
    _core.backward([call], False, threads)
    assert output.tobytes() == inferred.tobytes()
    results = {"output": output, "d_x": d_x} | {f"d_{n}": d for n, d in zip(case.weights, d_weights)}
    states = zip(STATES[case.cell], state_n, d_state_0, strict=True)
    return results | {name: array for n, s, d in states for name, array in ((f"{n}_n", s), (f"d_{n}_0", d))}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "B, heads, head", [(1, 4, 32), (2, 2, 16), (3, 8, 8), (40, 4, 32), (5, 3, 7), (9, 7, 1), (33, 2, 40), (7, 3, 33)]
)
def test_heads_are_blocks_of_a_dense_matrix(kernel, B, heads, head, dtype, isa):
    """The same bits as with the matrix that has zeros between its heads, for every cell and any number of threads."""
    H, cell = heads * head, KERNELS[kernel].name
    case = draw(np.random.default_rng(3), cell, 6, B, 5, H, dtype=dtype)
    full = case.weights["weight_hh"]
    blocks = full.reshape(-1, heads, head, heads, head)
    own = np.arange(heads)
    compact = np.stack([blocks[:, k, :, k] for k in own], axis=1).reshape(-1, head)
    zeros = np.ones(blocks.shape, bool)
    zeros[:, own, :, own] = False
    blocks[zeros] = 0
    expected = run_kernel(kernel, case, 1, isa)
    d_blocks = expected["d_weight_hh"].reshape(blocks.shape)
    expected["d_weight_hh"] = np.stack([d_blocks[:, k, :, k] for k in own], axis=1).reshape(-1, head)
    case.weights["weight_hh"] = compact
    for threads in (1, 2, 3):
        actual = run_kernel(kernel, case, threads, isa)
        for name, array in expected.items():
            assert actual[name].tobytes() == array.tobytes(), (name, threads)


def test_heads_of_a_long_sequence(threads):
    """More rows than one chunk of the backward pass and one block of the sums, in parts and by two threads."""
    case = drawn(700, 8, 5, 256, dtype=np.float32, num_heads=4)
    expected = run(reference, as_float64(case))
    for n in (1, 2):
        threads(n)
        assert_close(case, expected)


# Arguments


def test_what_functions_refuse():
    case = drawn(3, 2, 4, 6, num_heads=2)
    zeros = np.zeros

    def refused(message, exception=ValueError, **changed):
        arguments = {"x": case.x, "state": case.state, **case.weights} | changed
        for module in (functional, reference):
            for function in (module.slstm, module.slstm_forward):
                with pytest.raises(exception, match="^" + re.escape(message)):
                    function(**arguments)

    refused("weight_ih: expected (4*H, I), got (23, 4)", weight_ih=zeros((23, 4)))
    refused("weight_hh: expected (4*H=24, H/num_heads), got (24, 4)", weight_hh=zeros((24, 4)))
    refused("weight_hh: expected (4*H=24, H/num_heads), got (24, 0)", weight_hh=zeros((24, 0)))
    refused("weight_hh: expected (4*H=24, H/num_heads), got (25, 3)", weight_hh=zeros((25, 3)))
    refused("bias_ih: expected (4*H=24,), got (6,)", bias_ih=zeros(6))
    refused("state: expected a tuple (h_0, c_0, n_0, m_0), got ndarray", TypeError, state=zeros((2, 6)))
    refused("state: expected a tuple (h_0, c_0, n_0, m_0), got", ValueError, state=(zeros((2, 6)),) * 3)
    refused("state (n_0): expected (B=2, H=6), got (2, 5)", state=(None, None, zeros((2, 5)), None))
    refused("state (m_0): cannot be cast", TypeError, state=(None, None, None, zeros((2, 6), complex)))
    _, _, tape = functional.slstm_forward(case.x, None, **case.weights)
    with pytest.raises(ValueError, match=r"^d_state_n \(d_m_n\): expected \(B=2, H=6\), got \(2, 7\)"):
        functional.slstm_backward(tape, None, (None, None, None, zeros((2, 7))))
    with pytest.raises(TypeError, match="^tape: expected a fastrnn.functional.LSTMTape"):
        functional.lstm_backward(tape)


def test_the_option_of_layers():
    layer = fastrnn.SLSTM(3, 12, num_heads=4, rng=0)
    assert layer.num_heads == 4 and layer.params["weight_hh_l0"].shape == (48, 3)
    assert repr(layer) == "SLSTM(3, 12, num_heads=4)"
    for heads in (5, 24):
        with pytest.raises(ValueError, match=f"^num_heads: expected a divisor of hidden_size=12, got {heads}"):
            fastrnn.SLSTM(3, 12, num_heads=heads)
    with pytest.raises(ValueError, match="^num_heads: expected at least 1, got 0"):
        fastrnn.SLSTM(3, 12, num_heads=0)
    with pytest.raises(TypeError, match="^num_heads: expected an integer"):
        fastrnn.SLSTM(3, 12, num_heads=2.0)
    with pytest.raises(TypeError):
        fastrnn.LSTM(3, 12, num_heads=2)


def test_files(tmp_path):
    pytest.importorskip("safetensors")
    layer = fastrnn.SLSTM(3, 12, 2, bidirectional=True, num_heads=3, dtype=np.float64, rng=0)
    fastrnn.save(tmp_path / "layer", layer)
    loaded = fastrnn.load(tmp_path / "layer")
    assert repr(loaded) == repr(layer) and loaded.params == layer.params
    x = np.ones((4, 2, 3))
    assert loaded(x)[0].tobytes() == layer(x)[0].tobytes()
