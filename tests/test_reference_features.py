"""The options of the reference: reset_after, activations, clip, resets, and the sLSTM.

The gradients against finite differences, resets against the pieces of the sequences run by themselves, and the
arguments. test_reference_torch.py and test_reference_onnx.py hold the numbers against other libraries.
"""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings

import recurrent_cases
from depth import DEPTH
from fastrnn import reference
from finite_differences import assert_slopes, kinks

LENGTHS, RESETS = [3, 0, 4, 2], np.array([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)


def of_activations(cells):
    names = itertools.product(recurrent_cases.RECURRENT_ACTIVATIONS, ("tanh", "relu"), (None, 0.7))
    return [
        (cell, {"recurrent_activation": gate, "activation": activation, "clip": clip} | options)
        for gate, activation, clip in names for cell, options in cells
    ]  # fmt: skip


CELLS = [("lstm", {"P": 2, "peephole": True}), ("gru", {"reset_after": True}), ("gru", {"reset_after": False})]
CELLS += [("ugrnn", {})]
CASES = [
    *of_activations(CELLS),
    *(("rnn", {"nonlinearity": name, "clip": clip}) for name in ("tanh", "relu") for clip in (None, 0.7)),
    *(("slstm", {"num_heads": n, "empty": empty}) for n in (1, 2) for empty in ((), (0, 3))),
]  # fmt: skip


def drawn(seed, cell, **options):
    return recurrent_cases.draw(np.random.default_rng(seed), cell, 4, 4, 2, 4, **options)


def assert_close(actual, expected, name, tolerance=1e-13):
    """To the tolerance times the largest number, or 1."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, name
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def assert_same_bytes(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].shape == array.shape and actual[name].tobytes() == array.tobytes(), name


# Gradients


@settings(max_examples=100 * DEPTH)
@given(recurrent_cases.cases(features=True))
def test_gradients_match_finite_differences(case):
    assert_slopes(case, np.random.default_rng(5), smooth=False)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
def test_gradients_of_every_option_match_finite_differences(cell, options, reverse):
    """With lengths and resets, and on both sides of every kink: most directions are clear of one nearby."""
    checked = arrays = 0
    values = []
    for seed in range(3):
        case = drawn(seed, cell, **options, lengths=LENGTHS, resets=RESETS, reverse=reverse)
        for bias in recurrent_cases.BIASES:
            case.weights[bias] *= 2.5
        found, count = assert_slopes(case, np.random.default_rng(seed), smooth=False)
        checked, arrays = checked + found, arrays + count
        *_, tape = getattr(reference, f"{cell}_forward")(
            case.x, recurrent_cases.of_cell(case, case.state), **case.weights, **case.options
        )
        values += [np.ravel(array) for *_, saved in tape.steps for array in saved[1] if array.dtype != bool]
    assert checked >= arrays
    values = np.concatenate(values)
    for kink in kinks(case):
        assert values.min() < kink < values.max()


def test_at_its_kinks_an_activation_has_no_slope():
    def gradient(name, clip, z):
        activation = reference.Activation(name, clip)
        z = np.array(z)
        return activation.backward(z, activation(z), np.ones_like(z)).tolist()

    assert gradient("relu", None, [-1.0, 0.0, 1.0]) == [0, 0, 1]
    assert gradient("relu", 2.0, [-3.0, -2.0, 1.0, 2.0, 3.0]) == [0, 0, 1, 0, 0]
    assert gradient("hard_sigmoid_fifth", None, [-3.0, -2.5, -2.0, 2.0, 2.5, 3.0]) == [0, 0, 0.2, 0.2, 0, 0]
    assert gradient("hard_sigmoid_sixth", None, [-4.0, -3.0, -2.0, 2.0, 3.0, 4.0]) == [0, 0, 1 / 6, 1 / 6, 0, 0]
    assert gradient("sigmoid", 1.0, [-1.0, 0.0, 1.0]) == [0, 0.25, 0]
    assert gradient("tanh", 1.0, [-1.0, 0.0, 1.0]) == [0, 1, 0]
    for name, clip in itertools.product(reference.FUNCTIONS, (None, 0.5)):
        activation = reference.Activation(name, clip)
        assert np.isnan(activation(np.array([np.nan]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_of_activations(dtype):
    def value(name, z, clip=None):
        y = reference.Activation(name, clip)(np.array(z, dtype))
        assert y.dtype == dtype
        return y.tolist()

    assert value("hard_sigmoid_fifth", [-9, -2.5, 0, 2.5, 9]) == [0, 0, 0.5, 1, 1]
    assert value("hard_sigmoid_sixth", [-9, -3, 0, 3, 9]) == [0, 0, 0.5, 1, 1]
    np.testing.assert_allclose(value("hard_sigmoid_fifth", [-1, 2]), [0.3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(value("hard_sigmoid_sixth", [-1.5, 2]), [0.25, 5 / 6], rtol=1e-6)
    assert value("relu", [-5, 0.5, 5], clip=2) == [0, 0.5, 2]
    assert value("tanh", [-5, 5], clip=1) == value("tanh", [-1, 1])
    assert value("relu", [-5, 5], clip=1e300) == [0, 5]  # more than float32 has


# Resets


def run_in_pieces(case):
    """The same as recurrent_cases.run, of the batch cut wherever a sequence has a flag, each piece by itself.

    Between two pieces, the state of the sequences with a flag becomes zeros, and on the way back its gradient.
    """
    T, B, _ = case.x.shape
    resets, lengths = case.options["resets"], np.array(recurrent_cases.lengths_of(case), int)
    reverse = case.options["reverse"]
    forward, backward = (getattr(reference, f"{case.cell}_{direction}") for direction in ("forward", "backward"))
    options = case.options | {"resets": None}
    cuts = [0, *(t for t in range(1, T) if resets[t].any()), T]
    spans = list(itertools.pairwise(cuts))
    output = np.zeros(case.d_output.shape)
    state, pieces = case.state, []
    for start, stop in reversed(spans) if reverse else spans:
        border = stop if reverse else start
        # In reverse, a sequence begins with its end: nothing lies behind it.
        cut = resets[border] & (border < lengths) if border < T else np.zeros(B, bool)
        state = tuple(np.where(cut[:, None], 0, s) for s in state)
        of_piece = options | {"lengths": np.clip(lengths - start, 0, stop - start)}
        given = recurrent_cases.of_cell(case, state)
        output[start:stop], state, tape = forward(case.x[start:stop], given, **case.weights, **of_piece)
        state = recurrent_cases.as_tuple(state)
        pieces.append((start, stop, cut, tape))
    d_state, d_x = case.d_state_n, np.zeros_like(case.x)
    d_weights = {name: np.zeros_like(w) for name, w in case.weights.items()}
    for start, stop, cut, tape in reversed(pieces):
        given = recurrent_cases.of_cell(case, d_state)
        d_x[start:stop], d_state, d_piece = backward(tape, case.d_output[start:stop], given)
        d_state = tuple(np.where(cut[:, None], 0, d) for d in recurrent_cases.as_tuple(d_state))
        for name, d in d_piece.items():
            d_weights[name] += d
    names = recurrent_cases.STATES[case.cell]
    results = {"output": output, "d_x": d_x}
    results |= {f"{name}_n": s for name, s in zip(names, state)} | {f"d_{name}_0": d for name, d in zip(names, d_state)}
    return results, {f"d_{name}": d for name, d in d_weights.items()}


@settings(max_examples=150 * DEPTH)
@given(recurrent_cases.cases(features=True))
def test_resets_give_the_bytes_of_the_pieces(case):
    """All but the gradients of the weights, which sum over all the steps.

    From the ends of sequences of different lengths, a step of a piece has other sequences than a step of the whole
    batch, and BLAS other sums: then the numbers are equal to rounding.
    """
    if case.options.get("resets") is None:
        case = recurrent_cases.with_options(case, resets=np.eye(*case.x.shape[:2], dtype=bool))
    results = recurrent_cases.run(reference, case)
    expected, d_weights = run_in_pieces(case)
    for name, d_weight in d_weights.items():
        assert_close(results.pop(name), d_weight, name)
    if case.options["reverse"] and len(set(recurrent_cases.lengths_of(case)) - {0}) > 1:
        for name, array in expected.items():
            assert_close(results[name], array, name)
    else:
        assert_same_bytes(results, expected)


@pytest.mark.parametrize("cell", recurrent_cases.GATES)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_flag_at_the_first_step_discards_the_state_passed_in(cell, reverse):
    """From the beginning to the end. From the end, nothing comes before it."""
    first = np.zeros((4, 4), bool)
    first[0] = True
    case = drawn(1, cell, resets=first, reverse=reverse)
    results = recurrent_cases.run(reference, case)
    plain = recurrent_cases.with_options(case, resets=None)
    if not reverse:
        plain = plain._replace(state=tuple(np.zeros_like(s) for s in case.state))
    expected = recurrent_cases.run(reference, plain)
    if not reverse:
        expected |= {f"d_{name}_0": np.zeros_like(s) for name, s in zip(recurrent_cases.STATES[cell], case.state)}
    assert_same_bytes(results, expected)


@pytest.mark.parametrize("cell", recurrent_cases.GATES)
@pytest.mark.parametrize("reverse", [False, True])
def test_with_a_flag_at_every_step_no_step_knows_another(cell, reverse):
    case = drawn(1, cell, resets=np.ones((4, 4), bool), reverse=reverse)._replace(d_state_n=None)
    case = case._replace(d_state_n=(None,) * len(case.state), state=(None,) * len(case.state))
    results = recurrent_cases.run(reference, case)
    for t in range(4):
        step = slice(t, t + 1)
        alone = case._replace(x=case.x[step], d_output=case.d_output[step])
        expected = recurrent_cases.run(reference, recurrent_cases.with_options(alone, resets=None))
        for name in ("output", "d_x"):
            assert results[name][step].tobytes() == expected[name].tobytes(), name


@given(recurrent_cases.cases(features=True))
def test_no_flag_is_no_resets(case):
    nothing = np.zeros(case.x.shape[:2], bool)
    assert_same_bytes(
        recurrent_cases.run(reference, recurrent_cases.with_options(case, resets=nothing)),
        recurrent_cases.run(reference, recurrent_cases.with_options(case, resets=None)),
    )


@given(recurrent_cases.cases(features=True))
def test_flags_beyond_the_end_do_not_count(case):
    if case.options.get("resets") is None:
        return
    filled = recurrent_cases.with_beyond(case, case.options["resets"], True)
    cleared = recurrent_cases.with_beyond(case, case.options["resets"], False)
    assert_same_bytes(
        recurrent_cases.run(reference, recurrent_cases.with_options(case, resets=filled)),
        recurrent_cases.run(reference, recurrent_cases.with_options(case, resets=cleared)),
    )


@given(recurrent_cases.cases(features=True, reverse=True))
def test_reverse_is_the_turned_input(case):
    turned = recurrent_cases.with_options(case, reverse=False)._replace(
        x=recurrent_cases.turned(case, case.x), d_output=recurrent_cases.turned(case, case.d_output)
    )
    if case.options.get("resets") is not None:
        turned = recurrent_cases.with_options(turned, resets=recurrent_cases.turned_resets(case))
    expected = recurrent_cases.run(reference, turned)
    for name in ("output", "d_x"):
        expected[name] = recurrent_cases.turned(case, expected[name])
    assert_same_bytes(recurrent_cases.run(reference, case), expected)


@given(recurrent_cases.cases(features=True))
def test_a_sequence_of_a_batch_is_the_same_alone(case):
    together = recurrent_cases.run(reference, case)
    d_weights = {name: np.zeros_like(array) for name, array in case.weights.items()}
    for b, length in enumerate(recurrent_cases.lengths_of(case)):
        for name, expected in recurrent_cases.run(reference, recurrent_cases.alone(case, b)).items():
            if name in ("output", "d_x"):
                assert_close(together[name][:length, b : b + 1], expected, name)
                assert not together[name][length:, b].any()
            elif name.removeprefix("d_") in d_weights:
                d_weights[name.removeprefix("d_")] += expected
            else:
                assert_close(together[name][b : b + 1], expected, name)
    for name, expected in d_weights.items():
        assert_close(together[f"d_{name}"], expected, name)


def test_resets_are_private():
    case = drawn(1, "gru", resets=RESETS.copy(), lengths=LENGTHS)
    expected = recurrent_cases.run(reference, case)
    *_, tape = reference.gru_forward(case.x, case.state[0], **case.weights, **case.options)
    case.options["resets"][...] = True
    d_x, d_h_0, _ = reference.gru_backward(tape, case.d_output, case.d_state_n[0])
    assert d_x.tobytes() == expected["d_x"].tobytes() and d_h_0.tobytes() == expected["d_h_0"].tobytes()


# Other promises that the options have to keep


@given(recurrent_cases.cases(features=True))
def test_inference_is_the_forward_pass(case):
    results = recurrent_cases.run(reference, case)
    names = ["output", *(f"{name}_n" for name in recurrent_cases.STATES[case.cell])]
    for name, array in zip(names, recurrent_cases.infer(reference, case), strict=True):
        assert array.tobytes() == results[name].tobytes(), name


@given(recurrent_cases.cases(features=True))
def test_float32_stays_float32_and_is_close_to_float64(case):
    single = case._replace(weights={name: w.astype(np.float32) for name, w in case.weights.items()})
    expected = recurrent_cases.run(reference, case)
    for name, array in recurrent_cases.run(reference, single).items():
        assert (array.dtype, expected[name].dtype) == (np.float32, np.float64)
        if name.startswith("d_") and kinks(case):
            continue  # rounding takes numbers over a kink
        scale = max(1.0, np.abs(expected[name]).max(initial=0))
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5 * scale, err_msg=name)


@given(recurrent_cases.cases(cells=recurrent_cases.CELLS, features=True))
def test_a_wide_clip_does_nothing(case):
    assert_same_bytes(
        recurrent_cases.run(reference, recurrent_cases.with_options(case, clip=1e6)),
        recurrent_cases.run(reference, recurrent_cases.with_options(case, clip=None)),
    )


def test_one_state_for_all_sequences():
    for cell in recurrent_cases.GATES:
        case = drawn(1, cell, lengths=LENGTHS, resets=RESETS)
        one = case._replace(state=tuple(s[:1] for s in case.state))
        every = case._replace(state=tuple(np.repeat(s[:1], 4, axis=0) for s in case.state))
        results, expected = recurrent_cases.run(reference, one), recurrent_cases.run(reference, every)
        for name in recurrent_cases.STATES[cell]:
            expected[f"d_{name}_0"] = np.add.accumulate(expected[f"d_{name}_0"])[-1:]
        assert_same_bytes(results, expected)


# The other GRU, and the sLSTM


def test_the_two_grus_are_one_where_the_reset_gate_is_open():
    """With r = 1 both are the same function: the sums differ in their order alone."""
    case = drawn(3, "gru", recurrent_activation="hard_sigmoid_sixth")
    case.weights["weight_ih"][:4] = case.weights["weight_hh"][:4] = 0
    case.weights["bias_ih"][:4] = case.weights["bias_hh"][:4] = 5
    after, before = (
        recurrent_cases.run(reference, recurrent_cases.with_options(case, reset_after=flag)) for flag in (True, False)
    )
    for name, array in after.items():
        assert_close(before[name], array, name)


def test_the_slstm_in_scalars():
    """One unit of one sequence, with the exponentials as they are in the paper: h needs no stabilizer."""
    case = recurrent_cases.draw(np.random.default_rng(4), "slstm", 6, 1, 2, 3, num_heads=3, empty=[0], reverse=False)
    output, *state_n = recurrent_cases.infer(reference, case._replace(state=(case.state[0], None, None, None)))
    w = case.weights
    for j in range(3):
        h, c, n = case.state[0][0, j], 0.0, 0.0
        for t in range(6):
            i, f, z, o = (
                math.fsum([*(w["weight_ih"][row] * case.x[t, 0]), w["weight_hh"][row, 0] * h])
                + w["bias_ih"][row] + w["bias_hh"][row]
                for row in range(j, 12, 3)
            )  # fmt: skip
            c = c / (1 + math.exp(-f)) + math.exp(i) * math.tanh(z)
            n = n / (1 + math.exp(-f)) + math.exp(i)
            h = c / n / (1 + math.exp(-o))
            assert math.isclose(output[t, 0, j], h, rel_tol=1e-12)
        _, c_n, n_n, m_n = (s[0, j] for s in state_n)
        assert math.isclose(c_n * math.exp(m_n), c, rel_tol=1e-12)
        assert math.isclose(n_n * math.exp(m_n), n, rel_tol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_slstm_does_not_overflow(dtype, gate, sign):
    """Nor warn, at pre-activations of 10,000, whose exponentials no float has. The normalizer cannot vanish."""
    case = drawn(5, "slstm", empty=[0, 2], dtype=dtype)
    case.weights["bias_ih"][4 * gate : 4 * gate + 4] = sign * 1e4
    for name, array in recurrent_cases.run(reference, case).items():
        assert np.isfinite(array).all(), name
        if name == "n_n":
            assert (array >= 0.5).all()  # as large as a drawn n_0 at least


def test_heads_are_blocks_of_one_matrix():
    case = drawn(6, "slstm", num_heads=2, lengths=LENGTHS)
    full = np.zeros((4, 4, 4))
    for gate, half in itertools.product(range(4), (slice(0, 2), slice(2, 4))):
        full[gate, half, half] = case.weights["weight_hh"].reshape(4, 4, 2)[gate, half]
    results = recurrent_cases.run(reference, case)
    expected = recurrent_cases.run(reference, case._replace(weights=case.weights | {"weight_hh": full.reshape(16, 4)}))
    d_full = expected["d_weight_hh"].reshape(4, 2, 2, 2, 2)  # gate, head, row, head, column
    expected["d_weight_hh"] = np.stack([d_full[:, k, :, k] for k in range(2)], axis=1).reshape(16, 2)
    for name, array in expected.items():
        assert_close(results[name], array, name)


def test_an_empty_state_does_not_count():
    """Where n_0 is 0, c_0 and m_0 change nothing and have no gradient."""
    case = drawn(7, "slstm", empty=range(4))
    h, c, n, m = case.state
    results = recurrent_cases.run(reference, case._replace(state=(h, c + 1, n, m + 1e5)))
    assert_same_bytes(results, recurrent_cases.run(reference, case._replace(state=(h, None, None, None))))
    for name in ("d_c_0", "d_n_0", "d_m_0"):
        assert not results[name].any()


# Arguments


def zeros(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


NAMES = r"'sigmoid' or 'hard_sigmoid_fifth' or 'hard_sigmoid_sixth'"
REFUSED_RESETS = [
    (TypeError, "resets: expected booleans, got float64", {"resets": zeros(4, 4)}),
    (TypeError, "resets: expected booleans, got int64", {"resets": zeros(4, 4, dtype=np.int64)}),
    (TypeError, "resets: expected booleans, got <U1", {"resets": "1"}),
    (ValueError, "resets: expected (T=4, B=4), got (4,)", {"resets": zeros(4, dtype=bool)}),
    (ValueError, "resets: expected (T=4, B=4), got (4, 5)", {"resets": zeros(4, 5, dtype=bool)}),
    (ValueError, "resets: expected (T=4, B=4), got ()", {"resets": True}),
]
REFUSED_CLIPS = [
    (TypeError, "clip: expected None or a positive number, got '1'", {"clip": "1"}),
    (TypeError, "clip: expected None or a positive number, got True", {"clip": True}),
    (TypeError, "clip: expected None or a positive number, got [1.0]", {"clip": [1.0]}),
    *((ValueError, "clip: expected None or a positive finite number, got ", {"clip": clip})
      for clip in (0, -1.0, math.inf, math.nan, np.float32(-2))),
]  # fmt: skip
REFUSED_ACTIVATIONS = [
    (ValueError, "recurrent_activation: 'hard_sigmoid' names two functions; give 'hard_sigmoid_fifth', ",
     {"recurrent_activation": "hard_sigmoid"}),
    (ValueError, f"recurrent_activation: expected {NAMES}, got 'tanh'", {"recurrent_activation": "tanh"}),
    (TypeError, f"recurrent_activation: expected {NAMES}, got None", {"recurrent_activation": None}),
    (ValueError, "activation: expected 'tanh' or 'relu', got 'sigmoid'", {"activation": "sigmoid"}),
    (TypeError, "activation: expected 'tanh' or 'relu', got 0", {"activation": 0}),
]  # fmt: skip
REFUSED = {
    "lstm": REFUSED_RESETS + REFUSED_CLIPS + REFUSED_ACTIVATIONS,
    "gru": [
        *REFUSED_RESETS, *REFUSED_CLIPS, *REFUSED_ACTIVATIONS,
        (TypeError, "reset_after: expected True or False, got 1", {"reset_after": 1}),
    ],
    "rnn": REFUSED_RESETS + REFUSED_CLIPS,
    "slstm": [
        *REFUSED_RESETS,
        (ValueError, "weight_ih: expected (4*H, I), got (15, 2)", {"weight_ih": zeros(15, 2)}),
        (TypeError, "weight_ih: expected float32 or float64, got int64", {"weight_ih": zeros(16, 2, dtype=np.int64)}),
        (ValueError, "weight_hh: expected (4*H=16, H/num_heads), got (16, 3)", {"weight_hh": zeros(16, 3)}),
        (ValueError, "weight_hh: expected (4*H=16, H/num_heads), got (16, 0)", {"weight_hh": zeros(16, 0)}),
        (ValueError, "weight_hh: expected (4*H=16, H/num_heads), got (15, 2)", {"weight_hh": zeros(15, 2)}),
        (ValueError, "weight_hh: expected (4*H=16, H/num_heads), got (16,)", {"weight_hh": zeros(16)}),
        (TypeError, "weight_hh: cannot be cast", {"weight_hh": zeros(16, 4, dtype=complex)}),
        (ValueError, "bias_ih: expected (4*H=16,), got (15,)", {"bias_ih": zeros(15)}),
        (ValueError, "bias_hh: expected (4*H=16,), got (4, 4)", {"bias_hh": zeros(4, 4)}),
        (ValueError, "x: expected (T, B, I=2), got (4, 4, 3)", {"x": zeros(4, 4, 3)}),
        (ValueError, "lengths: expected 0 to T=4, got 5", {"lengths": [5, 0, 0, 0]}),
        (TypeError, "reverse: expected True or False", {"reverse": 0}),
        (TypeError, "state: expected a tuple (h_0, c_0, n_0, m_0), got ndarray", {"state": zeros(4, 4)}),
        (ValueError, "state: expected a tuple (h_0, c_0, n_0, m_0), got 2 items", {"state": (None, None)}),
        (ValueError, "state (n_0): expected (B=4, H=4), got (4, 5)", {"state": (None, None, zeros(4, 5), None)}),
    ],
    "ugrnn": [
        *REFUSED_RESETS, *REFUSED_CLIPS, *REFUSED_ACTIVATIONS,
        (ValueError, "weight_ih: expected (2*H, I), got (7, 2)", {"weight_ih": zeros(7, 2)}),
        (ValueError, "weight_hh: expected (2*H=8, H=4), got (8, 3)", {"weight_hh": zeros(8, 3)}),
        (ValueError, "bias_hh: expected (2*H=8,), got (4,)", {"bias_hh": zeros(4)}),
        (ValueError, "state: expected (B=4, H=4), got (4, 5)", {"state": zeros(4, 5)}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("cell", REFUSED)
def test_refused_arguments(cell):
    case = drawn(1, cell)
    arguments = {"x": case.x, "state": recurrent_cases.of_cell(case, case.state), **case.weights}
    for function in (getattr(reference, cell), getattr(reference, f"{cell}_forward")):
        function(**arguments)
        for exception, message, changed in REFUSED[cell]:
            with pytest.raises(exception, match="^" + re.escape(message)):
                function(**(arguments | changed))


def test_refused_gradients_of_the_slstm():
    case = drawn(1, "slstm")
    *_, tape = reference.slstm_forward(case.x, case.state, **case.weights)
    for exception, message, gradients in [
        (ValueError, "d_output: expected (T=4, B=4, H=4), got (4, 4)", (zeros(4, 4), None)),
        (TypeError, "d_state_n: expected a tuple (d_h_n, d_c_n, d_n_n, d_m_n), got ndarray", (None, zeros(4, 4))),
        (ValueError, "d_state_n (d_m_n): expected (B=4, H=4), got (4, 3)", (None, (None, None, None, zeros(4, 3)))),
        (ValueError, "d_output, d_state_n: neither is given", (None, None)),
    ]:
        with pytest.raises(exception, match="^" + re.escape(message)):
            reference.slstm_backward(tape, *gradients)
    with pytest.raises(TypeError, match=r"^tape: expected a fastrnn\.reference\.LSTMTape, got a .*SLSTMTape"):
        reference.lstm_backward(tape, case.d_output)
    assert repr(tape) == "<reference.SLSTMTape T=4 B=4 I=2 H=4 float64>"


def test_accepted_arguments():
    case = drawn(1, "lstm")
    arguments = (case.x, case.state, *case.weights.values())
    expected = reference.lstm(*arguments, clip=1.0, resets=RESETS)[0].tobytes()
    for clip, resets in ((1, RESETS.tolist()), (np.float32(1), np.asfortranarray(RESETS)), (np.int8(1), RESETS[::1])):
        assert reference.lstm(*arguments, clip=clip, resets=resets)[0].tobytes() == expected
