"""The reproducibility contract: every claim, of every cell and of its options, with == on bytes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
import recurrent_cases
from depth import DEPTH
from fastrnn import _config, functional
from layer_cases import members
from recurrent_cases import BIASES, STATES, alone, of_cell, with_beyond

KINDS = {
    "lstm": ("lstm", {}),
    "lstm, projected": ("lstm", {"P": 7}),
    "lstm, peepholes": ("lstm", {"P": 5, "peephole": True, "recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7}),
    "lstm, hard": (
        "lstm",
        {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu", "clip": 0.9, "biases": BIASES[:1]}
    ),
    "gru": ("gru", {}),
    "gru, hard": (
        "gru", {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu", "clip": 0.6, "biases": ()}
    ),
    "gru, reset before": ("gru", {"reset_after": False}),
    "gru, reset before, clipped": (
        "gru", {"reset_after": False, "recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7}
    ),
    "rnn": ("rnn", {}),
    "rnn, sigmoid": ("rnn", {"nonlinearity": "sigmoid", "clip": 0.7, "biases": BIASES}),
    "rnn, relu": ("rnn", {"nonlinearity": "relu", "clip": 0.6, "biases": BIASES[1:]}),
    "slstm": ("slstm", {}),
    "slstm, heads": ("slstm", {"num_heads": 3, "empty": [0]}),
    "ugrnn": ("ugrnn", {}),
    "ugrnn, hard": (
        "ugrnn", {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu", "clip": 0.6, "biases": BIASES[1:]}
    ),
}  # fmt: skip
LAYERS = {
    "lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN, "slstm": fastrnn.SLSTM, "ugrnn": fastrnn.UGRNN,
}  # fmt: skip

# T, B, I, H of all kinds: below and above one panel, block, tile. The last two are large enough for two threads, which
# share the sequences of one and the hidden units of the other.
SMALL, MANY_ROWS, FEW_ROWS = (7, 5, 3, 9), (12, 19, 40, 72), (4, 2, 24, 321)
# Of the plain LSTM, too: few and many rows; the last three are large enough for two threads.
LSTM_SHAPES = [
    (6, 16, 33, 33),
    (5, 29, 20, 64),
    (9, 1, 40, 100),
    (20, 40, 64, 96),
    (6, 70, 300, 260),
    (30, 2, 64, 600),
]

# Kind, sizes, features: those that may be cut in time, and all.
CUTTABLE = [(kind, SMALL, ()) for kind in KINDS] + [(kind, MANY_ROWS, ("resets",)) for kind in KINDS]
CUTTABLE += [("lstm", sizes, ()) for sizes in LSTM_SHAPES]
RAGGED = [("lengths", "resets"), ("lengths", "resets", "reverse")]
CASES = CUTTABLE + [(kind, (6, 9, 5, 36), features) for kind in KINDS for features in RAGGED]


def draw(kind, sizes, dtype, seed=11, lengths=False, resets=False, reverse=False):
    """A case of a kind; with `lengths`, of ragged sequences."""
    rng = np.random.default_rng(seed)
    cell, options = KINDS[kind]
    T, B, _, _ = sizes
    if lengths:
        options = options | {"lengths": rng.integers(0, T + 1, B)}
    if resets:
        options = options | {"resets": rng.random((T, B)) < 0.3}
    return recurrent_cases.draw(rng, cell, *sizes, dtype=dtype, **options | ({"reverse": True} if reverse else {}))


def inferred(case):
    """name -> array: output and the states after the last step, of the function that keeps no tape."""
    output, *state_n = recurrent_cases.infer(functional, case)
    return {"output": output} | {f"{name}_n": s for name, s in zip(STATES[case.cell], state_n)}


def run(case):
    """name -> array: the results of inference, of the training forward pass and of the backward pass."""
    results = {f"inferred {name}": array for name, array in inferred(case).items()}
    return results | recurrent_cases.run(functional, case)


def part_of(case, sequences=slice(None), steps=slice(None)):
    """Some sequences and some steps of a case."""
    options = dict(case.options)
    if options.get("lengths") is not None:
        options["lengths"] = options["lengths"][sequences]
    if options.get("resets") is not None:
        options["resets"] = options["resets"][steps, sequences]
    return case._replace(
        x=case.x[steps, sequences], d_output=case.d_output[steps, sequences], options=options,
        state=tuple(s[sequences] for s in case.state), d_state_n=tuple(d[sequences] for d in case.d_state_n),
    )  # fmt: skip


def assert_same_bytes(actual, expected, names=None):
    """The same names, shapes and dtypes, and every byte the same."""
    assert names is not None or actual.keys() == expected.keys()
    for name in expected if names is None else names:
        array = expected[name]
        assert actual[name].shape == array.shape and actual[name].dtype == array.dtype, name
        assert actual[name].tobytes() == array.tobytes(), name


def names_of_states(case, *patterns):
    return [pattern.format(name) for pattern in patterns for name in STATES[case.cell]]


def fixture_of(cases):
    def case(request, dtype):
        kind, sizes, features = request.param
        return draw(kind, sizes, dtype, **dict.fromkeys(features, True))

    names = [f"{kind}-{sizes}-{' '.join(features) or 'plain'}" for kind, sizes, features in cases]
    return pytest.fixture(params=cases, ids=names)(case)


case = fixture_of(CASES)
cuttable = fixture_of(CUTTABLE)
shareable = fixture_of(CASES + [(kind, FEW_ROWS, ("resets",)) for kind in KINDS])
kind = pytest.fixture(params=KINDS)(lambda request: request.param)


def test_batch(case, isa, threads):
    """A sequence's results do not depend on the other sequences of the batch."""
    B = case.x.shape[1]
    by_step = ["inferred output", "output", "d_x"]
    by_sequence = names_of_states(case, "inferred {}_n", "{}_n", "d_{}_0")
    for num_threads in (1, 2):
        threads(num_threads)
        whole = run(case)
        for cut in sorted({0, 1, B // 2, B - 1} & set(range(B))):
            for part in (slice(0, cut), slice(cut, B)):
                expected = {name: whole[name][:, part] for name in by_step}
                expected |= {name: whole[name][part] for name in by_sequence}
                assert_same_bytes(run(part_of(case, part)), expected, expected)


def test_chunks(cuttable, isa, threads):
    """Calls on chunks with the state carried equal one call; so do the gradients of input and state."""
    case, T = cuttable, cuttable.x.shape[0]
    forward, backward = (getattr(functional, f"{case.cell}_{direction}") for direction in ("forward", "backward"))
    threads(2)
    whole, states = run(case), names_of_states(case, "{}_n")
    for cut in sorted({0, 1, T // 2, T - 1}):
        first, second = part_of(case, steps=slice(0, cut)), part_of(case, steps=slice(cut, T))
        begun = inferred(first)
        ended = inferred(second._replace(state=tuple(begun[name] for name in states)))
        assert np.concatenate([begun["output"], ended["output"]]).tobytes() == whole["output"].tobytes()
        assert_same_bytes(ended, whole, states)

        _, state, tape_1 = forward(first.x, of_cell(case, case.state), **case.weights, **first.options)
        _, _, tape_2 = forward(second.x, state, **case.weights, **second.options)
        d_x_2, d_state, _ = backward(tape_2, second.d_output, of_cell(case, case.d_state_n))
        d_x_1, d_state, _ = backward(tape_1, first.d_output, d_state)
        assert np.concatenate([d_x_1, d_x_2]).tobytes() == whole["d_x"].tobytes()
        for name, d in zip(STATES[case.cell], members(d_state), strict=True):
            assert d.tobytes() == whole[f"d_{name}_0"].tobytes(), name


def test_one_step_at_a_time(cuttable, isa):
    case, whole = cuttable, inferred(cuttable)
    states = names_of_states(case, "{}_n")
    for t in range(case.x.shape[0]):
        one = inferred(part_of(case, steps=slice(t, t + 1))._replace(state=case.state))
        assert one["output"][0].tobytes() == whole["output"][t].tobytes()
        case = case._replace(state=tuple(one[name] for name in states))
    assert_same_bytes(one, whole, states)


def test_threads(shareable, isa, threads):
    """Gradients of the parameters included."""
    case = shareable
    results = []
    for num_threads in (1, 2, 3, 5):
        threads(num_threads)
        results.append(run(case))
    for other in results[1:]:
        assert_same_bytes(other, results[0])


def with_fma():
    """The instruction sets with fused multiply-add, each in use for one iteration."""
    for name in _config.runnable():
        if name != "generic":
            with _config.using(name):
                yield name


def test_instruction_sets(case):
    results = [run(case) for _ in with_fma()]
    for other in results[1:]:
        assert_same_bytes(other, results[0])


def test_training_equals_inference(case, isa):
    result = run(case)
    for name in ("output", *names_of_states(case, "{}_n")):
        assert result[name].tobytes() == result[f"inferred {name}"].tobytes(), name


def test_a_second_run_gives_the_same_bytes(case, isa, threads):
    threads(2)
    assert_same_bytes(run(case), run(case))


def test_other_python_threads(kind, dtype, threads):
    """Calls of the same function by four threads of Python at a time, and of the function alone."""
    threads(2)
    cases = [draw(kind, MANY_ROWS, dtype, seed) for seed in range(4)]
    expected = [run(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for actual in pool.map(lambda k: (k, run(cases[k])), [0, 1, 2, 3] * 2):
            assert_same_bytes(actual[1], expected[actual[0]])


# Ragged batches


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_a_ragged_sequence_alone(kind, resets, reverse, dtype, isa):
    """Each sequence has the same bits as alone; beyond its end there are zeros."""
    case = draw(kind, (11, 9, 6, 33), dtype, lengths=True, resets=resets, reverse=reverse)
    results = run(case)
    for b, length in enumerate(case.options["lengths"]):
        expected = run(alone(case, b))
        for name in ("inferred output", "output", "d_x"):
            assert results[name][:length, b].tobytes() == expected[name].tobytes(), name
            assert not results[name][length:, b].any()
        for name in names_of_states(case, "inferred {}_n", "{}_n", "d_{}_0"):
            assert results[name][b].tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("reverse", [False, True])
def test_padding(kind, reverse, dtype):
    """Lengths that are all T change no bit; the values of the padding change no bit."""
    case = draw(kind, (6, 5, 4, 21), dtype, reverse=reverse)
    full = case._replace(options=case.options | {"lengths": [6] * 5})
    assert_same_bytes(run(full), run(case))
    case = draw(kind, (6, 5, 4, 21), dtype, lengths=True, reverse=reverse)
    expected = run(case)
    for value in (np.nan, np.inf, -0.0):
        beyond = case._replace(x=with_beyond(case, case.x, value), d_output=with_beyond(case, case.d_output, value))
        assert_same_bytes(run(beyond), expected)


# Arrays


def strided(array):
    """The same numbers with a stride of two along each axis of a larger array, read-only."""
    room = np.full([2 * n + 1 for n in array.shape], array.dtype.type(111), array.dtype)
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
def test_strides_alignment_and_byte_order(kind, change, dtype, isa):
    case = draw(kind, (6, 9, 10, 36), dtype, 12, resets=True)
    changed = case._replace(
        x=change(case.x), state=tuple(change(s) for s in case.state), d_output=change(case.d_output),
        d_state_n=tuple(change(d) for d in case.d_state_n),
        options=case.options | {"resets": change(case.options["resets"]), "lengths": change(np.full(9, 6))},
        weights={name: w if change is byteswapped else change(w) for name, w in case.weights.items()},
    )  # fmt: skip
    assert_same_bytes(run(changed), run(case))


def test_not_a_number_is_in_the_same_places(kind, dtype, threads):
    """NaNs are at the same positions; all other numbers are equal to the last bit."""

    def without_nan(result):
        return {name: np.where(np.isnan(array), dtype(7), array) for name, array in result.items()}

    case = draw(kind, (6, 30, 20, 72), dtype, 13)
    case.x[2, 3, 4], case.x[4, 7, 1] = np.nan, -np.nan
    results = []
    for _ in with_fma():
        for num_threads in (1, 2):
            threads(num_threads)
            results.append(run(case))
    for other in results[1:]:
        assert np.isnan(other["output"][2:, 3]).all()
        assert_same_bytes(without_nan(other), without_nan(results[0]))


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


# Layers


def make_layer(kind, I, H, num_layers, dtype):
    cell, options = KINDS[kind]
    names = {name: {"P": "proj_size"}.get(name, name) for name in options if name not in ("biases", "empty")}
    options = {names[name]: options[name] for name in names} | {"bias": options.get("biases") != ()}
    return LAYERS[cell](I, H, num_layers, dtype=dtype, rng=1, **options)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_entry_points_of_layers(kind, num_layers, dtype, isa):
    """A call, `forward`, checkpoints, a stream, and all of these of a frozen layer."""
    layer = make_layer(kind, 5, 36, num_layers, dtype)
    rng = np.random.default_rng(3)
    x, resets = rng.uniform(-1, 1, (9, 4, 5)).astype(dtype), rng.random((9, 4)) < 0.2
    output, state_n = layer(x, resets=resets)
    d_output, gradients = rng.uniform(-1, 1, output.shape).astype(dtype), []
    for freeze in (lambda: None, layer.freeze):
        freeze()
        results = [layer(x, resets=resets)]
        for every in (None, 2, 4):
            *trained, tape = layer.forward(x, resets=resets, checkpoint_every=every)
            results.append(trained)
            d_x, d_state, d_params = layer.backward(tape, d_output)
            gradients.append([d.tobytes() for d in (d_x, *members(d_state), d_params.flat)])
        stream = layer.stream(4)
        results.append((np.stack([stream.step(x[t], resets=resets[t]) for t in range(9)]), stream.state))
        for y, state in results:
            assert y.tobytes() == output.tobytes()
            assert [s.tobytes() for s in members(state)] == [s.tobytes() for s in members(state_n)]
    assert all(one == gradients[0] for one in gradients)


@settings(max_examples=60 * DEPTH)
@given(
    kind=st.sampled_from(list(KINDS)),
    T=st.integers(1, 9),
    B=st.integers(1, 40),
    I=st.integers(1, 70),
    H=st.integers(3, 46),
    layers=st.integers(1, 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
def test_layers_of_random_shape(kind, T, B, I, H, layers, dtype, data):
    """All lines at once: a part of the batch, two chunks in time, other threads and another instruction set."""
    layer = make_layer(kind, I, 3 * H, layers, dtype)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    whole, state_n = layer(x)
    cut, part = data.draw(st.integers(0, T)), slice(data.draw(st.integers(0, B - 1)), B)
    agreeing = [n for n in _config.runnable() if (n == "generic") == (_config.instruction_set() == "generic")]
    name = data.draw(st.sampled_from(agreeing))
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        with _config.using(name):
            first, state = layer(x[:cut, part])
            second, state = layer(x[cut:, part], state)
    finally:
        fastrnn.set_num_threads(before)
    assert np.concatenate([first, second]).tobytes() == np.ascontiguousarray(whole[:, part]).tobytes()
    for some, s in zip(members(state), members(state_n), strict=True):
        assert some.tobytes() == np.ascontiguousarray(s[:, part]).tobytes()
