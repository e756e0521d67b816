"""The functions of fastrnn.functional against the reference.

Their guarantees to the last bit are tested in test_contract.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEPTH
from fastrnn import functional, reference
from recurrent_cases import (
    BIASES,
    GATES,
    cases,
    draw,
    infer,
    run,
    turned,
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
        {"nonlinearity": "sigmoid"},
        {"nonlinearity": "sigmoid", "clip": 0.4},
        {"nonlinearity": "relu", "lengths": "drawn", "reverse": True},
    ],
    "slstm": [
        {"empty": [0]},
        {"num_heads": 2, "resets": "drawn"},
        {"num_heads": 4, "lengths": "drawn", "reverse": True, "resets": "drawn"},
    ],
    "ugrnn": [
        {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu"},
        {"recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7, "lengths": "drawn", "reverse": True},
        {"clip": 0.5, "activation": "relu", "resets": "drawn"},
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


def test_a_rectifier_passes_a_nan():
    weights = [np.array([[1.0]]), np.array([[0.0]])]
    x = np.array([-1.0, 0.0, np.nan, 2.0]).reshape(4, 1, 1)
    for module in (functional, reference):
        output, _, tape = module.rnn_forward(x, None, *weights, nonlinearity="relu")
        np.testing.assert_array_equal(output[:, 0, 0], [0, 0, np.nan, np.nan])
        output, _, tape = module.rnn_forward(x[:2], None, *weights, nonlinearity="relu")
        d_x, _, _ = module.rnn_backward(tape, np.ones((2, 1, 1)))
        assert not d_x.any()
