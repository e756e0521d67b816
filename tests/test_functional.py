"""The functions of fastrnn.functional against the reference, and their guarantees to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn import functional, reference
from recurrent_cases import (
    BIASES,
    GATES,
    STATES,
    alone,
    as_tuple,
    cases,
    draw,
    infer,
    of_cell,
    run,
    turned,
    with_beyond,
)

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
    {"resets": "drawn"},
    {"lengths": "drawn", "resets": "drawn", "reverse": True},
]
OF_CELL = {
    "lstm": [
        {"recurrent_activation": "hard_sigmoid_fifth", "lengths": "drawn"},
        {"recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7, "P": 3, "peephole": True, "resets": "drawn"},
        {"clip": 0.5, "activation": "relu"},
        {"P": 5},
        {"peephole": True},
        {"P": 19, "peephole": True, "lengths": "drawn", "resets": "drawn"},
    ],
    "gru": [
        {"reset_after": False},
        {"reset_after": False, "lengths": "drawn", "reverse": True, "resets": "drawn"},
        {"reset_after": False, "recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7},
        {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu"},
        {"clip": 0.5, "activation": "relu"},
    ],
    "rnn": [
        {"clip": 0.6},
        {"clip": 0.6, "nonlinearity": "relu", "resets": "drawn"},
        {"nonlinearity": "relu"},
        {"nonlinearity": "relu", "lengths": "drawn", "reverse": True},
    ],
    "slstm": [
        {"empty": [0]},
        {"num_heads": 2, "resets": "drawn"},
        {"num_heads": 4, "lengths": "drawn", "reverse": True, "resets": "drawn"},
    ],
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
    if options.get("resets") == "drawn":
        options["resets"] = rng.random((T, B)) < 0.3
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


@pytest.mark.parametrize(
    "T, B, H",
    [
        (40, 32, 64),  # 32 steps would have a row more than a chunk of gates may have, in float64 16
        (100, 40, 228),  # and the last 92 or 46 a row more than a chunk of the backward pass
    ],
)
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ragged_batches_of_several_chunks(T, B, H, dtype, threads, num_threads):
    """B sequences of T steps and one of a single step; a chunk has whole steps, in memory for a number of rows."""
    threads(num_threads)
    case = drawn("lstm", T, B + 1, 3, H, dtype=dtype, lengths=[1] + [T] * B)
    assert_close(case)
    assert infer(functional, case)[0].tobytes() == run(functional, case)["output"].tobytes()


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
    options = {name: value for name, value in options.items() if name not in ("lengths", "reverse", "resets")}
    case = drawn(cell, 11, 4, 6, 33, **options)
    output, *state_n = infer(functional, case)
    cuts = [slice(0, 1), slice(1, 4), slice(4, 11)]
    state, parts = case.state, []
    for cut in cuts:
        y, *state = infer(functional, case._replace(x=case.x[cut], state=tuple(state)))
        parts.append(y)
    assert np.concatenate(parts).tobytes() == output.tobytes()
    assert [s.tobytes() for s in state] == [s.tobytes() for s in state_n]

    forward, backward = (getattr(functional, f"{cell}_{direction}") for direction in ("forward", "backward"))
    state, tapes, parts = of_cell(case, case.state), [], []
    for cut in cuts:
        _, state, tape = forward(case.x[cut], state, **case.weights, **case.options)
        tapes.append(tape)
    d_state = of_cell(case, case.d_state_n)
    for cut, tape in zip(cuts[::-1], tapes[::-1]):
        d_x, d_state, _ = backward(tape, case.d_output[cut], d_state)
        parts.insert(0, d_x)
    whole = run(functional, case)
    assert np.concatenate(parts).tobytes() == whole["d_x"].tobytes()
    for name, d in zip(("d_h_0", "d_c_0"), as_tuple(d_state)):
        assert d.tobytes() == whole[name].tobytes(), name


def test_a_rectifier_passes_a_nan():
    weights = [np.array([[1.0]]), np.array([[0.0]])]
    x = np.array([-1.0, 0.0, np.nan, 2.0]).reshape(4, 1, 1)
    for module in (functional, reference):
        output, _, tape = module.rnn_forward(x, None, *weights, nonlinearity="relu")
        np.testing.assert_array_equal(output[:, 0, 0], [0, 0, np.nan, np.nan])
        output, _, tape = module.rnn_forward(x[:2], None, *weights, nonlinearity="relu")
        d_x, _, _ = module.rnn_backward(tape, np.ones((2, 1, 1)))
        assert not d_x.any()
