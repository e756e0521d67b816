"""The reproducibility contract: every claim, with == on bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
import lstm_cases
from depth import DEPTH
from fastrnn import _config, functional

# T, B, I, H: below and above one panel, block, tile; few and many rows; the last three are large enough for two
# threads.
SHAPES = [
    (7, 5, 3, 9),
    (6, 16, 33, 33),
    (5, 29, 20, 64),
    (9, 1, 40, 100),
    (20, 40, 64, 96),
    (6, 70, 300, 260),
    (30, 2, 64, 600),
]


def rows(case, part):
    return lstm_cases.Case(
        case.x[:, part], tuple(s[part] for s in case.state), case.weights, case.d_output[:, part],
        tuple(s[part] for s in case.d_state_n),
    )  # fmt: skip


@pytest.fixture(params=SHAPES, ids=str)
def case(request, dtype):
    return lstm_cases.draw(np.random.default_rng(11), dtype, *request.param)


def test_batch(case, isa, threads):
    """A sequence's results do not depend on the other sequences of the batch."""
    B = case.x.shape[1]
    for num_threads in (1, 2):
        threads(num_threads)
        whole = lstm_cases.run(functional, case)
        for cut in sorted({0, 1, B // 2, B - 1} & set(range(B))):
            for part in (slice(0, cut), slice(cut, B)):
                some = lstm_cases.run(functional, rows(case, part))
                for name in ("inferred output", "output", "d_x"):
                    assert some[name].tobytes() == np.ascontiguousarray(whole[name][:, part]).tobytes(), name
                for name in ("inferred h_n", "inferred c_n", "h_n", "c_n", "d_h_0", "d_c_0"):
                    assert some[name].tobytes() == whole[name][part].tobytes(), name


def test_chunks(case, isa, threads):
    """Calls on chunks with the state carried equal one call; so do the gradients of input and state."""
    T = case.x.shape[0]
    threads(2)
    whole = lstm_cases.run(functional, case)
    for cut in sorted({0, 1, T // 2, T - 1}):
        first, state = functional.lstm(case.x[:cut], case.state, *case.weights)
        second, (h_n, c_n) = functional.lstm(case.x[cut:], state, *case.weights)
        assert np.concatenate([first, second]).tobytes() == whole["output"].tobytes()
        assert h_n.tobytes() == whole["h_n"].tobytes() and c_n.tobytes() == whole["c_n"].tobytes()

        _, state, tape_1 = functional.lstm_forward(case.x[:cut], case.state, *case.weights)
        _, _, tape_2 = functional.lstm_forward(case.x[cut:], state, *case.weights)
        d_x_2, d_state, _ = functional.lstm_backward(tape_2, case.d_output[cut:], case.d_state_n)
        d_x_1, (d_h_0, d_c_0), _ = functional.lstm_backward(tape_1, case.d_output[:cut], d_state)
        assert np.concatenate([d_x_1, d_x_2]).tobytes() == whole["d_x"].tobytes()
        assert d_h_0.tobytes() == whole["d_h_0"].tobytes() and d_c_0.tobytes() == whole["d_c_0"].tobytes()


def test_one_step_at_a_time(case, isa):
    whole, (h_n, c_n) = functional.lstm(case.x, case.state, *case.weights)
    state = case.state
    for t in range(case.x.shape[0]):
        y, state = functional.lstm(case.x[t : t + 1], state, *case.weights)
        assert y[0].tobytes() == whole[t].tobytes()
    assert state[0].tobytes() == h_n.tobytes() and state[1].tobytes() == c_n.tobytes()


def test_threads(case, isa, threads):
    """Gradients of the parameters included."""
    results = []
    for num_threads in (1, 2, 3, 5):
        threads(num_threads)
        results.append(lstm_cases.run(functional, case))
    for other in results[1:]:
        lstm_cases.assert_same_bytes(other, results[0])


def test_instruction_sets(case):
    results = []
    for name in _config.runnable():
        if name != "generic":
            with _config.using(name):
                results.append(lstm_cases.run(functional, case))
    for other in results[1:]:
        lstm_cases.assert_same_bytes(other, results[0])


def test_training_equals_inference(case, isa):
    result = lstm_cases.run(functional, case)
    for name in ("output", "h_n", "c_n"):
        assert result[name].tobytes() == result[f"inferred {name}"].tobytes()


def strided(array):
    """The same numbers with a stride of two along each axis of a larger array, read-only."""
    room = np.full([2 * n + 1 for n in array.shape], np.nan, array.dtype)
    view = room[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    view.flags.writeable = False
    return view


def reversed_axes(array):
    """The same numbers in Fortran order, with a negative stride along the first axis."""
    return np.asfortranarray(array[::-1])[::-1]


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def byteswapped(array):
    return array.astype(array.dtype.newbyteorder())


@pytest.mark.parametrize("change", [strided, reversed_axes, unaligned, byteswapped])
def test_strides_alignment_and_byte_order(change, dtype, isa):
    case = lstm_cases.draw(np.random.default_rng(12), dtype, 6, 9, 10, 35)
    expected = lstm_cases.run(functional, case)
    weights = case.weights if change is byteswapped else [change(w) for w in case.weights]
    changed = lstm_cases.Case(
        change(case.x), tuple(change(s) for s in case.state), weights, change(case.d_output),
        tuple(change(s) for s in case.d_state_n),
    )  # fmt: skip
    lstm_cases.assert_same_bytes(lstm_cases.run(functional, changed), expected)


def test_not_a_number_is_in_the_same_places(dtype, threads):
    """NaNs are at the same positions; all other numbers are equal to the last bit."""

    def without_nan(result):
        return {name: np.where(np.isnan(array), dtype(7), array) for name, array in result.items()}

    case = lstm_cases.draw(np.random.default_rng(13), dtype, 6, 30, 20, 70)
    case.x[2, 3, 4], case.x[4, 7, 1] = np.nan, -np.nan
    results = []
    for name in _config.runnable():
        for num_threads in (1, 2) if name != "generic" else ():
            threads(num_threads)
            with _config.using(name):
                results.append(lstm_cases.run(functional, case))
    for other in results[1:]:
        assert np.isnan(other["output"][2:, 3]).all()
        lstm_cases.assert_same_bytes(without_nan(other), without_nan(results[0]))


def test_nothing_given_equals_zeros_to_the_sign_of_zero(dtype, isa):
    """Arguments for which all summands of state, bias and gradients are zeros of either sign."""
    zero, minus = np.zeros((1, 1), dtype), np.full((1, 1), -0.0, dtype)
    weights = [np.full((4, 1), -1, dtype), np.full((4, 1), -1, dtype)]
    bias = np.full(4, -0.0, dtype)
    for state, full in (((None, None), (zero, zero)), ((None, minus), (zero, minus))):
        _, (h, c), tape = functional.lstm_forward(zero[None], state, *weights, bias)
        _, (h_full, c_full), _ = functional.lstm_forward(zero[None], full, *weights, bias, np.zeros(4, dtype))
        assert h.tobytes() == h_full.tobytes() and c.tobytes() == c_full.tobytes()
        _, d_state, _ = functional.lstm_backward(tape, None, (minus, minus))
        _, d_state_full, _ = functional.lstm_backward(tape, zero[None], (minus, minus))
        assert [d.tobytes() for d in d_state] == [d.tobytes() for d in d_state_full]


def test_a_second_run_gives_the_same_bytes(case, isa, threads):
    threads(2)
    lstm_cases.assert_same_bytes(lstm_cases.run(functional, case), lstm_cases.run(functional, case))


@settings(max_examples=40 * DEPTH)
@given(
    T=st.integers(1, 9),
    B=st.integers(1, 40),
    I=st.integers(0, 70),
    H=st.integers(1, 140),
    layers=st.integers(1, 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
def test_layers_of_random_shape(T, B, I, H, layers, dtype, data):
    """All lines at once: a part of the batch, two chunks in time, other threads and another instruction set."""
    layer = fastrnn.LSTM(max(I, 1), H, layers, dtype=dtype, rng=1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((T, B, max(I, 1))).astype(dtype)
    whole, (h_n, c_n) = layer(x)
    cut, part = data.draw(st.integers(0, T)), slice(data.draw(st.integers(0, B - 1)), B)
    agreeing = [n for n in _config.runnable() if (n == "generic") == (_config.instruction_set() == "generic")]
    name = data.draw(st.sampled_from(agreeing))
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        with _config.using(name):
            first, state = layer(x[:cut, part])
            second, (h, c) = layer(x[cut:, part], state)
    finally:
        fastrnn.set_num_threads(before)
    assert np.concatenate([first, second]).tobytes() == np.ascontiguousarray(whole[:, part]).tobytes()
    assert h.tobytes() == np.ascontiguousarray(h_n[:, part]).tobytes()
    assert c.tobytes() == np.ascontiguousarray(c_n[:, part]).tobytes()
