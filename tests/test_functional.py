"""The functions of fastrnn.functional against the reference, and their guarantees to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn import functional, reference
from recurrent_cases import BIASES, GATES, STATES, alone, cases, draw, infer, run, turned, with_beyond

# Relative to the largest number of an array, or to one.
TOLERANCE = {np.float32: 4e-6, np.float64: 2e-14}

OPTIONS = [
    {},
    {"biases": ()},
    {"biases": BIASES[:1]},
    {"biases": BIASES[1:]},
    {"reverse": True},
    {"lengths": "drawn"},
    {"lengths": "drawn", "reverse": True},
]
OF_CELL = {
    "lstm": [{"P": 5}, {"peephole": True}, {"P": 19, "peephole": True, "lengths": "drawn"}],
    "gru": [{"reset_after": False}, {"reset_after": False, "lengths": "drawn", "reverse": True}],
    "rnn": [{"nonlinearity": "relu"}, {"nonlinearity": "relu", "lengths": "drawn", "reverse": True}],
    "slstm": [{"empty": [0]}, {"num_heads": 2}, {"num_heads": 4, "lengths": "drawn", "reverse": True}],
}
CASES = [(cell, options) for cell in GATES for options in [*OPTIONS, *OF_CELL[cell]]]
# Around the widths of a vector, a block and a tile, and large enough for chunks and for two threads.
SIZES = [
    (1, 1, 1, 1),
    (3, 2, 5, 15),
    (4, 15, 7, 17),
    (2, 33, 3, 31),
    (5, 3, 33, 65),
    (40, 16, 24, 100),
    (9, 70, 16, 48),
]


def drawn(cell, T, B, I, H, *, seed=0, dtype=np.float32, **options):
    rng = np.random.default_rng(seed)
    if options.get("lengths") == "drawn":
        options["lengths"] = rng.integers(0, T + 1, B)
    if options.get("P"):
        options["P"] = min(options["P"], H + 3)
    if options.get("num_heads"):
        options["num_heads"] = max(n for n in range(1, options["num_heads"] + 1) if H % n == 0)
    return draw(rng, cell, T, B, I, H, dtype=dtype, **options)


def converted(case, dtype):
    def arrays(values):
        return tuple(v.astype(dtype) for v in values)

    return case._replace(
        x=case.x.astype(dtype), state=arrays(case.state), d_output=case.d_output.astype(dtype),
        d_state_n=arrays(case.d_state_n), weights={name: w.astype(dtype) for name, w in case.weights.items()},
    )  # fmt: skip


def assert_close(case):
    dtype = case.x.dtype.type
    actual = run(functional, case)
    expected = run(reference, converted(case, np.float64))
    assert list(actual) == list(expected)
    for name, array in actual.items():
        assert array.dtype == dtype and array.flags.c_contiguous
        T, B = case.x.shape[:2]
        # The error of a gradient of weights is that of a sum over all rows.
        scale = max(1.0, np.abs(expected[name]).max(initial=0)) * max(1, T * B) ** 0.25
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


def assert_same(actual, expected):
    for name, array in expected.items():
        assert actual[name].shape == array.shape and actual[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES, ids=str)
def test_against_the_reference(isa, threads, cell, options, dtype, T, B, I, H):
    assert_close(drawn(cell, T, B, I, H, dtype=dtype, **options))


@given(case=cases(cells=GATES, relu=False), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=200 * DEPTH, deadline=None)
def test_any_options(case, dtype):
    assert_close(converted(case, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
def test_bits_of_threads_and_instruction_sets(every_isa, cell, options, dtype):
    for sizes in [(7, 5, 9, 40), (12, 19, 40, 72)]:
        case = drawn(cell, *sizes, dtype=dtype, **options)
        results = []
        for isa in every_isa():
            for n in (1, 2, 3):
                fastrnn.set_num_threads(n)
                results.append((isa, run(functional, case)))
        expected = {isa == "generic": result for isa, result in reversed(results)}
        for isa, actual in results:
            assert_same(actual, expected[isa == "generic"])


@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
def test_bits_of_inference_and_training(cell, options):
    case = drawn(cell, 9, 6, 5, 36, **options)
    trained = list(run(functional, case).items())
    results = {name: array for name, array in trained if name == "output" or name.endswith("_n")}
    assert_same(dict(zip(results, infer(functional, case), strict=True)), results)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", GATES)
def test_a_ragged_sequence_alone(cell, reverse):
    """Each sequence has the same bits as alone."""
    case = drawn(cell, 11, 9, 6, 33, lengths="drawn", reverse=reverse)
    results = run(functional, case)
    for b, length in enumerate(case.options["lengths"]):
        expected = run(functional, alone(case, b))
        for name in ("output", "d_x"):
            assert results[name][:length, b].tobytes() == expected[name].tobytes(), name
            assert not results[name][length:, b].any()
        for state in STATES[cell]:
            for name in (f"{state}_n", f"d_{state}_0"):
                assert results[name][b].tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("cell", GATES)
def test_ragged_is_padded(cell):
    """Lengths that are all T change no bit; the values of the padding change no bit."""
    case = drawn(cell, 6, 5, 4, 20)
    full = case._replace(options=case.options | {"lengths": [6] * 5})
    assert_same(run(functional, full), run(functional, case))
    case = drawn(cell, 6, 5, 4, 20, lengths="drawn")
    expected = run(functional, case)
    for value in (np.nan, np.inf, -0.0):
        beyond = case._replace(x=with_beyond(case, case.x, value), d_output=with_beyond(case, case.d_output, value))
        assert_same(run(functional, beyond), expected)


@pytest.mark.parametrize("lengths", [None, "drawn"])
@pytest.mark.parametrize("cell", GATES)
def test_reverse_is_the_turned_input(cell, lengths):
    case = drawn(cell, 8, 5, 4, 20, lengths=lengths, reverse=True)
    there = case._replace(
        x=turned(case, case.x), d_output=turned(case, case.d_output), options=case.options | {"reverse": False}
    )
    expected = run(functional, there)
    expected |= {name: turned(case, expected[name]) for name in ("output", "d_x")}
    assert_same(run(functional, case), expected)


@pytest.mark.parametrize("cell", GATES)
def test_the_rest_of_a_batch_does_not_matter(cell):
    case = drawn(cell, 5, 23, 6, 33)
    results = run(functional, case)
    for b in (0, 7, 22):
        expected = run(functional, alone(case, b))
        for name in ("output", "d_x"):
            assert results[name][:, b : b + 1].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
def test_time_may_be_cut(cell, options):
    if "lengths" in options or "reverse" in options:
        options = {name: value for name, value in options.items() if name not in ("lengths", "reverse")}
    case = drawn(cell, 11, 4, 6, 33, **options)
    output, *state_n = infer(functional, case)
    state, parts = case.state, []
    for part in (case.x[:1], case.x[1:4], case.x[4:]):
        y, *state = infer(functional, case._replace(x=part, state=tuple(state)))
        parts.append(y)
    assert np.concatenate(parts).tobytes() == output.tobytes()
    assert [s.tobytes() for s in state] == [s.tobytes() for s in state_n]


def test_a_rectifier_passes_a_nan():
    weights = [np.array([[1.0]]), np.array([[0.0]])]
    x = np.array([-1.0, 0.0, np.nan, 2.0]).reshape(4, 1, 1)
    for module in (functional, reference):
        output, _, tape = module.rnn_forward(x, None, *weights, nonlinearity="relu")
        np.testing.assert_array_equal(output[:, 0, 0], [0, 0, np.nan, np.nan])
        output, _, tape = module.rnn_forward(x[:2], None, *weights, nonlinearity="relu")
        d_x, _, _ = module.rnn_backward(tape, np.ones((2, 1, 1)))
        assert not d_x.any()
