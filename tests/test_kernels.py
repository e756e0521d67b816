"""The kernels against the float64 reference: random shapes, every instruction set, both precisions, 1 and 2 threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_cases
import recurrent_cases
from depth import DEPTH
from fastrnn import _config, _core, functional, get_num_threads, reference, set_num_threads
from fastrnn._engine.ragged import layout_of
from fastrnn._engine.spec import SPECS

# One below, at and above the widths of vectors (4, 8, 16), panels (8, 16, 32) and row tiles (4, 6, 14).
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 47, 48, 49, 63, 64, 65]


def tolerance(dtype, expected):
    """The tolerance for rounding errors of sums of this length over all steps; a wrong lane has a far larger error."""
    return (3e-5 if dtype == np.float32 else 3e-13) * max(1.0, np.abs(expected).max(initial=0))


def check_against_reference(dtype, T, B, I, H, bias=True, seed=0):
    case = lstm_cases.draw(np.random.default_rng(seed), dtype, T, B, I, H, bias)
    expected = lstm_cases.run(reference, lstm_cases.as_float64(case))
    actual = lstm_cases.run(functional, case)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == dtype and actual[name].shape == value.shape, name
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance(dtype, value), err_msg=name)


@settings(max_examples=120 * DEPTH)
@given(
    isa=st.sampled_from(_config.runnable()),
    dtype=st.sampled_from([np.float32, np.float64]),
    num_threads=st.sampled_from([1, 2, 3]),
    T=st.integers(0, 12),
    B=st.one_of(st.integers(0, 4), st.sampled_from(SIZES)),
    I=st.one_of(st.integers(0, 4), st.sampled_from(SIZES)),
    H=st.sampled_from(SIZES),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_shapes(isa, dtype, num_threads, T, B, I, H, bias, seed):
    before = get_num_threads()
    set_num_threads(num_threads)
    try:
        with _config.using(isa):
            check_against_reference(dtype, T, B, I, H, bias, seed)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("H", SIZES)
def test_every_width_of_hidden_units(H, dtype, isa):
    check_against_reference(dtype, 3, 5, 3, H)


@pytest.mark.parametrize("B", [*range(1, 31), 43, 57])
def test_every_number_of_rows(B, dtype, isa):
    check_against_reference(dtype, 2, B, 9, 17)


@pytest.mark.parametrize(
    "T, B, I, H",
    [
        (2, 30, 2100, 20),  # the sum over inputs is longer than a block of a panel in any instruction set
        (2, 30, 20, 600),  # and the sum over hidden units, four times as long backward
        (70, 31, 24, 40),  # and the sum over steps and sequences in the gradients of the weights
        (300, 2, 8, 600),  # more steps than fit one chunk of gates
        (700, 8, 5, 260),  # nor one chunk of the backward pass
        (1, 3, 1030, 1),
        (3, 30, 1024, 20),  # rows of x that all begin in one set of the cache, which are copied
        (3, 4, 1024, 128),  # by all threads, where these share the hidden units
    ],
)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_shapes_larger_than_the_blocks(T, B, I, H, dtype, threads, num_threads):
    threads(num_threads)
    check_against_reference(dtype, T, B, I, H)


@pytest.mark.parametrize("missing", ["d_output", "d_h_n", "d_c_n", "d_state_n"])
def test_gradients_not_given_are_zero(missing, dtype, isa):
    case = lstm_cases.draw(np.random.default_rng(3), dtype, 4, 3, 5, 19)
    d_h_n, d_c_n = case.d_state_n
    zeros = np.zeros_like
    given_, expected_ = {
        "d_output": ((None, (d_h_n, d_c_n)), (zeros(case.d_output), (d_h_n, d_c_n))),
        "d_h_n": ((case.d_output, (None, d_c_n)), (case.d_output, (zeros(d_h_n), d_c_n))),
        "d_c_n": ((case.d_output, (d_h_n, None)), (case.d_output, (d_h_n, zeros(d_c_n)))),
        "d_state_n": ((case.d_output, None), (case.d_output, (zeros(d_h_n), zeros(d_c_n)))),
    }[missing]
    _, _, tape = functional.lstm_forward(case.x, case.state, *case.weights)
    d_x, d_state, d_params = functional.lstm_backward(tape, *given_)
    e_x, e_state, e_params = functional.lstm_backward(tape, *expected_)
    np.testing.assert_array_equal(d_x, e_x)
    np.testing.assert_array_equal(d_state, e_state)
    for name in e_params:
        np.testing.assert_array_equal(d_params[name], e_params[name])


@pytest.mark.parametrize("one", ["bias_ih", "bias_hh"])
def test_a_single_bias(one, dtype, isa):
    case = lstm_cases.draw(np.random.default_rng(4), dtype, 3, 2, 5, 18)
    zero = np.zeros_like(case.weights[2])
    with_zero = {"bias_ih": [case.weights[2], zero], "bias_hh": [zero, case.weights[3]]}[one]
    bias = dict(zip(["bias_ih", "bias_hh"], case.weights[2:], strict=True))[one]
    alone, _ = functional.lstm(case.x, case.state, *case.weights[:2], **{one: bias})
    both, _ = functional.lstm(case.x, case.state, *case.weights[:2], *with_zero)
    assert alone.tobytes() == both.tobytes()


@pytest.mark.parametrize("options", [{}, {"P": 9}, {"peephole": True}, {"lengths": [3, 0, 2, 3, 1]}], ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_no_number_outside_the_results_is_written(cell, options, dtype, isa):
    """Guards around every array that the kernel writes, at a width that ends in the middle of a vector."""
    if cell != "lstm" and {"P", "peephole"} & set(options):
        return
    T, B, I, H = 3, 5, 7, 21
    case = recurrent_cases.draw(np.random.default_rng(6), cell, T, B, I, H, dtype=dtype, **options)
    spec, cell = SPECS[cell], {"rnn": "rnn_tanh"}.get(cell, cell)
    layout = layout_of(T, B, None if "lengths" not in options else np.array(options["lengths"]))
    P = options.get("P", H)
    guarded = []

    def room(*shape):
        size = int(np.prod(shape))
        whole = np.full(size + 128, 3, dtype)
        guarded.append((whole, size))
        return whole[64 : 64 + size].reshape(shape)

    def rooms(states):
        return [room(1, *s.shape) for s in states]

    def as_rows(states):
        return [s[None] for s in layout.sort(states)]

    weights = tuple(case.weights.get(name) for name in spec.weight_names)
    (packed,), (packed_backward,) = (
        _core.pack(_core.Kernel(cell), [weights], backward, 2, isa) for backward in (False, True)
    )
    dtype = np.dtype(dtype)
    x, d_output = layout.pack(case.x, dtype), layout.pack(case.d_output, dtype)
    state_0, state_n, output = as_rows(case.state), rooms(case.state), room(*layout.shape, P)
    size = _core.saved_bytes(packed, layout.rows)
    guarded_saved = np.full(size + 192, 3, np.uint8)
    start = -guarded_saved.ctypes.data % 64 + 64
    saved = guarded_saved[start : start + size]
    call = _core.ForwardCall(packed, 0, x, layout.offsets, state_0, state_n, output, saved)
    _core.forward([call], False, 2)
    assert np.all(guarded_saved[:start] == 3) and np.all(guarded_saved[start + size :] == 3)
    d_x, d_state_0, d_state_n = room(*x.shape), rooms(case.state), as_rows(case.d_state_n)
    d_weights = tuple(None if w is None else room(*w.shape) for w in weights)

    def backward(d_x):
        given = layout.offsets, state_0, saved, d_output, d_state_n
        _core.backward([_core.BackwardCall(packed_backward, 0, x, *given, d_x, d_state_0, d_weights)], False, 2)

    backward(d_x)
    before = d_x.copy()
    backward(None)
    assert d_x.tobytes() == before.tobytes()
    for whole, size in guarded:
        assert np.all(whole[:64] == 3) and np.all(whole[64 + size :] == 3)
        assert not np.any(whole[64 : 64 + size] == 3)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_last_steps_without_rows(num_threads, dtype, isa):
    """A C caller may have them. state_n is that after the last step with rows, also where members share the rows."""
    T, B, I, H = 5, 16000, 8, 32
    case = recurrent_cases.draw(np.random.default_rng(3), "lstm", 1, B, I, H, dtype=dtype)
    weights = tuple(case.weights.get(name) for name in SPECS["lstm"].weight_names)
    (packed,) = _core.pack(_core.Kernel("lstm"), [weights], False, num_threads, isa)
    results = []
    for offsets in (np.array([0] + T * [B], np.intp), None):
        state_n, output = [np.full((1, B, H), 3, dtype) for _ in range(2)], np.full((B, H), 3, dtype)
        state_0 = [s[None] for s in case.state]
        call = _core.ForwardCall(
            packed,
            0,
            case.x[0] if offsets is not None else case.x,
            offsets,
            state_0,
            state_n,
            output if offsets is not None else output[None],
            None,
        )
        _core.forward([call], False, num_threads)
        results.append([array.tobytes() for array in (output, *state_n)])
    assert results[0] == results[1]


def test_a_nan_stays_in_its_sequence(dtype, isa, threads):
    T, B, I, H = 5, 17, 6, 35
    case = lstm_cases.draw(np.random.default_rng(7), dtype, T, B, I, H)
    for num_threads in (1, 2):
        threads(num_threads)
        clean = lstm_cases.run(functional, case)
        for sick in (0, 8, B - 1):
            x = case.x.copy()
            x[2, sick, 3] = np.nan
            dirty = lstm_cases.run(functional, case._replace(x=x))
            assert np.isnan(dirty["output"][2:, sick]).all()
            for name in ("output", "inferred output", "d_x"):
                assert np.delete(dirty[name], sick, 1).tobytes() == np.delete(clean[name], sick, 1).tobytes(), name
            for name in ("h_n", "c_n", "d_h_0", "d_c_0"):
                assert np.delete(dirty[name], sick, 0).tobytes() == np.delete(clean[name], sick, 0).tobytes(), name


def test_infinite_and_huge_inputs_saturate(isa, dtype):
    case = lstm_cases.draw(np.random.default_rng(8), dtype, 3, 4, 2, 9, scale=1.0)
    x = case.x.copy()
    x[0, 0, 0], x[1, 1, 1], x[2, 2, 0] = np.inf, -np.inf, np.finfo(dtype).max
    output, (h_n, c_n) = functional.lstm(x, case.state, *case.weights)
    with np.errstate(over="ignore", invalid="ignore"):
        expected, _ = reference.lstm(x.astype(np.float64), [s.astype(np.float64) for s in case.state],
                                     *[w.astype(np.float64) for w in case.weights])  # fmt: skip
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)
    assert np.all(np.abs(output) <= 1)
