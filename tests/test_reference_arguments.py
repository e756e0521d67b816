"""The arguments that the functions of every cell accept and refuse; test_functional_arguments.py is for the plain LSTM.

The checks are in fastrnn._validation, which functional shares.
"""

import collections
import inspect
import re

import numpy as np
import pytest

import recurrent_cases
from fastrnn import _validation, reference

T, B, I, H, P = 3, 2, 4, 5, 6
ROWS = {"lstm": "4*H=20", "gru": "3*H=15", "rnn": "H=5"}
FORWARDS = [f"{cell}{kind}" for cell in recurrent_cases.CELLS for kind in ("", "_forward")]


def good_case(cell, **options):
    defaults = {"P": P, "peephole": True} if cell == "lstm" else {"nonlinearity": "relu"} if cell == "rnn" else {}
    defaults |= {"lengths": np.array([1, 3]), "reverse": True}
    return recurrent_cases.draw(np.random.default_rng(1), cell, T, B, I, H, **(defaults | options))


def call(function, case, changed=()):
    arguments = {"x": case.x, "state": recurrent_cases.of_cell(case, case.state), **case.weights, **case.options}
    return getattr(reference, function)(**(arguments | dict(changed)))


def zeros(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


def result_bytes(results):
    return {name: array.tobytes() for name, array in results.items()}


def arrays_of(case):
    return [case.x, *case.state, *case.weights.values(), case.d_output, *case.d_state_n, case.options["lengths"]]


REFUSED_OF_ALL = [
    (ValueError, "x: expected (T, B, I=4), got (3, 2, 5)", {"x": zeros(T, B, 5)}),
    (ValueError, "x: expected (T, B, I=4), got (3, 4)", {"x": zeros(T, I)}),
    (TypeError, "x: cannot be cast from complex128 to float64", {"x": zeros(T, B, I, dtype=complex)}),
    (ValueError, "x: too large", {"x": np.empty((0, 2**58, I), np.float32)}),
    (TypeError, "weight_ih: expected float32 or float64, got int64", {"weight_ih": zeros(60, I, dtype=int)}),
    (TypeError, "weight_ih: expected an array, got None", {"weight_ih": None}),
    (TypeError, "weight_hh: expected an array, got None", {"weight_hh": None}),
    (TypeError, "reverse: expected True or False, got 1", {"reverse": 1}),
    (TypeError, "reverse: expected True or False, got None", {"reverse": None}),
    # lengths: the shape, the type, the range
    (ValueError, "lengths: expected (B=2,), got ()", {"lengths": 3}),
    (ValueError, "lengths: expected (B=2,), got (0,)", {"lengths": []}),
    (ValueError, "lengths: expected (B=2,), got (3,)", {"lengths": [1, 2, 3]}),
    (ValueError, "lengths: expected (B=2,), got (1, 2)", {"lengths": [[1, 2]]}),
    (ValueError, "lengths: expected (B=2,), got (2, 1)", {"lengths": np.array([[1], [2]])}),
    (ValueError, "lengths: expected (B=2,), got ()", {"lengths": "12"}),
    (ValueError, "lengths: not an array", {"lengths": [[1], [1, 2]]}),
    (TypeError, "lengths: expected an integer, got True", {"lengths": [1, True]}),
    (TypeError, "lengths: expected an integer, got ", {"lengths": (np.True_, 1)}),
    (TypeError, "lengths: expected an integer, got 2.0", {"lengths": [1, 2.0]}),
    (TypeError, "lengths: expected an integer, got 1j", {"lengths": collections.deque([1j, 1])}),
    (TypeError, "lengths: expected an integer, got '1'", {"lengths": ["1", "2"]}),
    (TypeError, "lengths: expected an integer, got None", {"lengths": [None, 2]}),
    (TypeError, "lengths: expected integers, got bool", {"lengths": np.array([True, False])}),
    (TypeError, "lengths: expected integers, got float64", {"lengths": np.array([1.0, 2.0])}),
    (TypeError, "lengths: expected integers, got object", {"lengths": np.array([1, 2], object)}),
    (TypeError, "lengths: expected integers, got timedelta64[s]", {"lengths": np.array([1, 2], "m8[s]")}),
    (ValueError, "lengths: expected 0 to T=3, got -1 for sequence 0", {"lengths": [-1, 4]}),
    (ValueError, "lengths: expected 0 to T=3, got 4 for sequence 1", {"lengths": np.array([3, 4], np.uint8)}),
    (ValueError, "lengths: expected 0 to T=3, got -128 for sequence 1", {"lengths": np.array([3, -128], np.int8)}),
    (ValueError, f"lengths: expected 0 to T=3, got {2**64 - 1}", {"lengths": np.array([2**64 - 1, 1], np.uint64)}),
    (ValueError, f"lengths: expected 0 to T=3, got {2**64}", {"lengths": [2**64, 1]}),
    (ValueError, f"lengths: expected 0 to T=3, got {2**63} for sequence 1", {"lengths": [0, 2**63]}),
]
REFUSED = {
    "lstm": [
        (ValueError, "weight_ih: expected (4*H, I), got (15, 4)", {"weight_ih": zeros(15, I)}),
        (ValueError, "weight_hh: expected (4*H=20, P=6), got (20, 5)", {"weight_hh": zeros(20, H)}),
        (ValueError, "weight_hh: expected (4*H=20, H=5), got (20, 6)", {"weight_hr": None}),
        (ValueError, "weight_hr: expected (P, H=5), got (5, 6)", {"weight_hr": zeros(H, P)}),
        (ValueError, "weight_hr: expected (P, H=5), got (0, 5)", {"weight_hr": zeros(0, H)}),
        (ValueError, "weight_hr: expected (P, H=5), got (5,)", {"weight_hr": zeros(H)}),
        (TypeError, "weight_hr: cannot be cast", {"weight_hr": zeros(P, H, dtype=complex)}),
        (ValueError, "weight_peephole: expected (3, H=5), got (3, 6)", {"weight_peephole": zeros(3, P)}),
        (ValueError, "weight_peephole: expected (3, H=5), got (4, 5)", {"weight_peephole": zeros(4, H)}),
        (ValueError, "weight_peephole: expected (3, H=5), got (15,)", {"weight_peephole": zeros(15)}),
        (TypeError, "weight_peephole: cannot be cast", {"weight_peephole": zeros(3, H, dtype=complex)}),
        (ValueError, "state (h_0): expected (B=2, P=6), got (2, 5)", {"state": (zeros(B, H), None)}),
        (ValueError, "state (c_0): expected (B=2, H=5), got (2, 6)", {"state": (None, zeros(B, P))}),
        (TypeError, "state: expected a tuple (h_0, c_0), got ndarray", {"state": zeros(B, H)}),
        # x and the gates fit into memory, a wide projection does not.
        (
            ValueError,
            "x: too large",
            {
                "x": np.broadcast_to(0.0, (2**25, 2**25, I)), "state": None, "lengths": None,
                "weight_hr": np.broadcast_to(0.0, (2**10, H)), "weight_hh": np.broadcast_to(0.0, (4 * H, 2**10)),
            },
        ),
    ],
    "gru": [
        (ValueError, "weight_ih: expected (3*H, I), got (20, 4)", {"weight_ih": zeros(20, I)}),
        (ValueError, "weight_ih: expected (3*H, I), got (0, 4)", {"weight_ih": zeros(0, I)}),
    ],
    "rnn": [
        (ValueError, "weight_ih: expected (H, I), got (0, 4)", {"weight_ih": zeros(0, I)}),
        (ValueError, "weight_ih: expected (H, I), got (5,)", {"weight_ih": zeros(5)}),
        (ValueError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got 'gelu'", {"nonlinearity": "gelu"}),
        (ValueError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got 'TANH'", {"nonlinearity": "TANH"}),
        (ValueError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got ''", {"nonlinearity": ""}),
        (TypeError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got None", {"nonlinearity": None}),
        (TypeError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got ['tanh']", {"nonlinearity": ["tanh"]}),
        (TypeError, "nonlinearity: expected 'tanh' or 'relu' or 'sigmoid', got b'relu'", {"nonlinearity": b"relu"}),
    ],
}  # fmt: skip
for cell, rows in ROWS.items():
    n = recurrent_cases.CELLS[cell] * H
    columns, size = ("P=6", P) if cell == "lstm" else ("H=5", H)
    for wrong in ((n, size + 1), (n + 1, size), (size, n, 1), (n,)):
        message = f"weight_hh: expected ({rows}, {columns}), got {wrong}"
        REFUSED[cell].append((ValueError, message, {"weight_hh": zeros(*wrong)}))
    for bias in recurrent_cases.BIASES:
        for wrong in ((n + 1,), (n, 1), ()):
            REFUSED[cell].append((ValueError, f"{bias}: expected ({rows},), got {wrong}", {bias: zeros(*wrong)}))
        REFUSED[cell].append((TypeError, f"{bias}: cannot be cast", {bias: zeros(n, dtype=complex)}))
    if cell != "lstm":
        for wrong in ((B, H + 1), (H,), (1, B, H), (H, B)):
            REFUSED[cell].append((ValueError, f"state: expected (B=2, H=5), got {wrong}", {"state": zeros(*wrong)}))
        REFUSED[cell].append(
            (TypeError, "state: expected one array, got a tuple of length 2", {"state": (zeros(B, H),) * 2})
        )
        REFUSED[cell].append((TypeError, "state: cannot be cast", {"state": zeros(B, H, dtype=complex)}))


@pytest.mark.parametrize("function", FORWARDS)
def test_refused_arguments(function):
    case = good_case(function.split("_")[0])
    call(function, case)  # which is accepted
    before = [array.tobytes() for array in arrays_of(case)]
    for exception, message, changed in REFUSED_OF_ALL + REFUSED[case.cell]:
        with pytest.raises(exception, match="^" + re.escape(message)):
            call(function, case, changed)
    assert [array.tobytes() for array in arrays_of(case)] == before


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_refused_gradients(cell):
    case = good_case(cell)
    *_, tape = call(f"{cell}_forward", case)
    backward = getattr(reference, f"{cell}_backward")
    size, symbol = (P, "P=6") if cell == "lstm" else (H, "H=5")
    refused = [
        (ValueError, f"d_output: expected (T=3, B=2, {symbol}), got {wrong}", {"d_output": zeros(*wrong)})
        for wrong in ((T, B, size + 1), (B, size), (B, T, size), ())
    ]
    refused += [(TypeError, "d_output: cannot be cast", {"d_output": zeros(T, B, size, dtype=complex)})]
    if cell == "lstm":
        refused += [
            (ValueError, "d_state_n (d_h_n): expected (B=2, P=6), got (2, 5)", {"d_state_n": (zeros(B, H), None)}),
            (ValueError, "d_state_n (d_c_n): expected (B=2, H=5), got (2, 6)", {"d_state_n": (None, zeros(B, P))}),
            (TypeError, "d_state_n: expected a tuple (d_h_n, d_c_n), got ndarray", {"d_state_n": zeros(B, H)}),
        ]
    else:
        refused += [
            (ValueError, "d_state_n: expected (B=2, H=5), got (2, 6)", {"d_state_n": zeros(B, 6)}),
            (TypeError, "d_state_n: expected one array, got a tuple of length 2", {"d_state_n": (zeros(B, H),) * 2}),
            (TypeError, "d_state_n: cannot be cast", {"d_state_n": zeros(B, H, dtype=complex)}),
        ]
    refused += [(ValueError, "d_output, d_state_n: neither is given", {})]
    d_output = zeros(T, B, size) + 1
    expected = backward(tape, d_output)[0].tobytes()
    for exception, message, changed in refused:
        with pytest.raises(exception, match="^" + re.escape(message)):
            backward(tape, **changed)
    assert backward(tape, d_output)[0].tobytes() == expected


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_refused_tapes(cell):
    others = [call(f"{other}_forward", good_case(other))[2] for other in recurrent_cases.CELLS if other != cell]
    for tape in (None, (), object(), *others):
        with pytest.raises(TypeError, match=rf"^tape: expected a fastrnn\.reference\.{cell.upper()}Tape, got a "):
            getattr(reference, f"{cell}_backward")(tape)


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_the_repr_of_a_tape_tells_its_sizes(cell):
    *_, tape = call(f"{cell}_forward", good_case(cell, dtype=np.float32))
    assert repr(tape) == f"<reference.{cell.upper()}Tape T=3 B=2 I=4 H=5 float32>"
    with pytest.raises(AttributeError):
        tape.anything = 1


LENGTHS = [
    [1, 3], (1, 3), np.array([1, 3], np.uint64), np.array([1, 3], ">i2"), np.array([1, 0, 3], np.int8)[::2],
    [np.int32(1), np.array(3)], range(1, 4, 2), collections.deque([1, 3]), memoryview(np.array([1, 3])),
]  # fmt: skip


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_lengths_of_any_integer_kind(cell):
    expected = result_bytes(recurrent_cases.run(reference, good_case(cell)))
    for lengths in LENGTHS:
        assert result_bytes(recurrent_cases.run(reference, good_case(cell, lengths=lengths))) == expected, lengths


@pytest.mark.parametrize("empty", [[], (), np.empty(0, np.int32)])
def test_lengths_of_no_sequences(empty):
    lengths = _validation.checked_lengths(_validation.as_lengths(empty), 3, 0)
    assert lengths.shape == (0,) and lengths.dtype == np.intp


def test_lengths_are_private():
    given = np.array([1, 3], np.intp)
    assert not np.shares_memory(_validation.checked_lengths(given, 3, 2), given)


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_the_arguments_are_only_read_and_what_is_returned_is_the_callers_alone(cell):
    """The tape shares no memory with the caller; a backward can be repeated."""
    case = good_case(cell)
    for array in arrays_of(case):
        array.flags.writeable = False
    expected = result_bytes(recurrent_cases.run(reference, case))
    for array in arrays_of(case):
        array.flags.writeable = True

    output, state_n, tape = call(f"{cell}_forward", case)
    changed = [output, *recurrent_cases.as_tuple(state_n), case.x, *case.state, *case.weights.values()]
    for array in [*changed, case.options["lengths"]]:
        array[...] = 0
    case.options.clear()
    for _ in range(2):
        d_x, d_state, d_params = getattr(reference, f"{cell}_backward")(
            tape, case.d_output, recurrent_cases.of_cell(case, case.d_state_n)
        )
        gradients = {"d_x": d_x} | dict(zip(("d_h_0", "d_c_0"), recurrent_cases.as_tuple(d_state)))
        gradients |= {f"d_{name}": array for name, array in d_params.items()}
        assert result_bytes(gradients).items() <= expected.items()
        assert len(gradients) + len(case.state) + 1 == len(expected)
        for array in gradients.values():
            array[...] = np.nan


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_the_weights_decide_the_dtype(cell):
    for dtype, other in ((np.float32, np.float64), (np.float64, np.float32)):
        case = good_case(cell, dtype=other)
        weights = case.weights | {"weight_ih": case.weights["weight_ih"].astype(dtype)}
        results = recurrent_cases.run(reference, case._replace(weights=weights))
        assert {array.dtype for array in results.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("cell", recurrent_cases.CELLS)
def test_any_layout_gives_the_same_numbers(cell):
    case = good_case(cell)
    expected = result_bytes(recurrent_cases.run(reference, case))
    for convert in (np.asfortranarray, lambda a: a.astype(">f8"), lambda a: a[::-1].copy()[::-1], np.ndarray.tolist):
        keep = {"weight_ih": case.weights["weight_ih"]} if convert is np.ndarray.tolist else {}
        converted = case._replace(
            x=convert(case.x), state=tuple(map(convert, case.state)),
            weights={name: convert(w) for name, w in case.weights.items()} | keep,
            d_output=convert(case.d_output), d_state_n=tuple(map(convert, case.d_state_n)),
        )  # fmt: skip
        assert result_bytes(recurrent_cases.run(reference, converted)) == expected


def test_the_signatures():
    """The parameter names are part of the interface; inference and the forward pass take the same arguments."""
    weights = ["x", "state", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    options = {
        "lstm": ["weight_hr", "weight_peephole", "recurrent_activation", "activation", "clip"],
        "gru": ["reset_after", "recurrent_activation", "activation", "clip"],
        "rnn": ["nonlinearity", "clip"],
        "slstm": [],
        "ugrnn": ["recurrent_activation", "activation", "clip"],
    }
    options = {cell: [*names, "lengths", "resets", "reverse"] for cell, names in options.items()}
    for cell, names in options.items():
        for function in (cell, f"{cell}_forward"):
            parameters = inspect.signature(getattr(reference, function)).parameters
            assert list(parameters) == weights + names
            assert [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY] == names
        backward = inspect.signature(getattr(reference, f"{cell}_backward")).parameters
        assert list(backward) == ["tape", "d_output", "d_state_n", "input_gradient"]
    kinds = ("", "_backward", "_forward")
    steps = ["adam_step", "sgd_step"]  # of optimizers
    functions = [f"{cell}{kind}" for cell in options for kind in kinds]
    assert sorted(reference.__all__) == sorted([*functions, "quantized", *steps])
