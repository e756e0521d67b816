"""The stateless form: the bits of layers, from arrays alone, wherever backward runs."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import functional
from fastrnn._core import Inputs
from fastrnn._engine import stateless
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import PackedRows
from layer_cases import draw, layers, members, state_like

T, B = 7, 4


def arguments_of(layer, x, state, lengths):
    """The positional and the keyword arguments of `functional.forward` that make it this layer."""
    options = {"lengths": lengths, "bidirectional": layer.bidirectional, "dropout": layer.dropout}
    options["seed"] = int(copy.deepcopy(layer._rng).integers(2**63)) if layer.dropout else 0
    options |= {name: layer._options[name] for name in layer._spec.options}
    kind = type(layer).__name__.lower()
    return (kind, x, None if state is None else members(state), functional.weights_of(layer)), options


def flat(*arrays):
    """The bytes of arrays, however deep they lie in sequences and dicts."""
    found = b""
    for one in arrays:
        if isinstance(one, dict):
            one = list(one.values())
        found += flat(*one) if isinstance(one, (tuple, list)) else one.tobytes()
    return found


def run(arguments, options, d_output, d_state_n):
    """output, state_n, reserve, and the results of backward."""
    output, state_n, reserve = functional.forward(*arguments, **options)
    kind, *others = arguments
    return output, state_n, reserve, *functional.backward(kind, reserve, *others, d_output, d_state_n, **options)


def check(layer, x, state, lengths, d_output, d_state_n):
    arguments, options = arguments_of(layer, x, state, lengths)
    given = None if d_state_n is None else members(d_state_n)
    output, state_n, _, d_x, d_state, d_weights = run(arguments, options, d_output, given)
    assert flat(*functional.infer(*arguments, **options)) == flat(output, state_n)
    e_output, e_state_n, tape = layer.forward(x, state, lengths)
    e_x, e_state, e_params = layer.backward(tape, d_output, d_state_n)
    assert flat(output, state_n) == flat(e_output, members(e_state_n))
    assert flat(d_x, d_state) == flat(e_x, members(e_state))
    assert flat(d_weights) == e_params.flat.tobytes()
    assert [list(one) for one in d_weights] == [list(one) for one in arguments[3]]


def test_weights_of_are_the_parameters_themselves():
    layer = fastrnn.LSTM(2, 3, num_layers=2, bidirectional=True, proj_size=2, bias=False, rng=0)
    weights = functional.weights_of(layer)
    assert [list(one) for one in weights] == [["weight_ih", "weight_hh", "weight_hr"]] * 4
    assert sum(w.size for one in weights for w in one.values()) == layer.params.flat.size
    weights[3]["weight_hr"][...] = 7
    assert (layer.params["weight_hr_l1_reverse"] == 7).all()
    assert list(functional.weights_of(fastrnn.GRUCell(2, 3))[0]) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert fastrnn.from_weights("lstm", weights, layout="torch", bidirectional=True).params == layer.params
    with pytest.raises(TypeError, match="^layer: expected a layer or a cell, got dict"):
        functional.weights_of({})


@given(layer=layers(batch_first=False), data=st.data())
def test_the_bits_of_the_layer(layer, data):
    T, B = data.draw(st.sampled_from([0, 1, 2, 9])), data.draw(st.sampled_from([0, 1, 3, 5]))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    state = data.draw(st.sampled_from(["given", "none", "shared"]))
    state = None if state == "none" else state_like(layer, 1 if state == "shared" else B, 1)
    width = (1 + layer.bidirectional) * (getattr(layer, "proj_size", 0) or layer.hidden_size)
    d_state_n = data.draw(st.sampled_from([None, state_like(layer, B, 2)]))
    check(layer, draw(3, T, B, layer.input_size), state, lengths, draw(4, T, B, width), d_state_n)


@pytest.mark.parametrize("lengths", [None, [3, 0, 7, 2]], ids=["padded", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN])
def test_dropout_by_seed(cls, bidirectional, lengths, dtype):
    layer = cls(5, 6, num_layers=3, dropout=0.4, bidirectional=bidirectional, dtype=dtype, rng=1)
    d_output = draw(1, T, B, 6 * (1 + bidirectional), dtype=dtype)
    check(layer, draw(0, T, B, 5, dtype=dtype), None, lengths, d_output, None)


def test_more_layers_than_run_together(dtype):
    layer = fastrnn.LSTM(5, 6, num_layers=19, dtype=dtype, rng=1)
    check(layer, draw(0, T, B, 5, dtype=dtype), state_like(layer, B, 1), None, draw(1, T, B, 6, dtype=dtype), None)


@pytest.mark.parametrize("lengths", [None, [3, 0, 7, 2]], ids=["padded", "ragged"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "slstm", "ugrnn"])
def test_one_layer_read_from_the_ends(name, lengths, dtype):
    layer = getattr(fastrnn, name.upper())(5, 6, dtype=dtype, rng=1)
    x, d_output, (weights,) = draw(0, T, B, 5, dtype=dtype), draw(1, T, B, 6, dtype=dtype), functional.weights_of(layer)
    state_n, options = members(state_like(layer, B, 2)), {"lengths": lengths, "reverse": True}
    found = run((name, x, None, [weights]), options, d_output, state_n)
    output, last, tape = getattr(functional, f"{name}_forward")(x, None, **weights, **options)
    d_last = tuple(s[0] for s in state_n) if len(state_n) > 1 else state_n[0][0]
    expected = getattr(functional, f"{name}_backward")(tape, d_output, d_last)
    assert flat(*found[:2]) == flat(output, last) and flat(*found[3:]) == flat(*expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_sizes", [[4, 3, 3, 2, 2, 2, 2], [4, 4], [1, 1, 1], [3]])
def test_rows_that_are_packed_already(batch_sizes, bidirectional, dtype):
    batch_sizes = np.array(batch_sizes)
    T, B = len(batch_sizes), int(batch_sizes[0])
    lengths = (batch_sizes[:, None] > np.arange(B)).sum(axis=0)
    valid = np.arange(T)[:, None] < lengths
    layer = fastrnn.GRU(5, 6, num_layers=2, bidirectional=bidirectional, dtype=dtype, rng=1)
    x, d_output = draw(0, T, B, 5, dtype=dtype), draw(1, T, B, 6 * (1 + bidirectional), dtype=dtype)
    state, d_state_n = state_like(layer, B, 1), state_like(layer, B, 2)
    output, state_n, tape = layer.forward(x, state, lengths)
    d_x, d_state, d_params = layer.backward(tape, d_output, d_state_n)

    weights = [tuple(one.values()) for one in functional.weights_of(layer)]
    inputs = Inputs(layer._stack, PackedRows(batch_sizes), x[valid], False, [state], None, True)
    found, after, reserve = stateless.forward(inputs, layer._stack.pack(weights, False))
    assert flat(found, after) == flat(output[valid], state_n)
    packed = layer._stack.pack(weights, True)
    found = stateless.backward(inputs, packed, weights, reserve, d_output[valid], [d_state_n])
    assert flat(*found) == flat(d_x[valid], d_state) + d_params.flat.tobytes()


# A layer of each kind, some of them with options that have memory of their own, and sizes that leave paddings.
CASES = {
    "LSTM": (fastrnn.LSTM, {"num_layers": 3}),
    "LSTM, projection": (fastrnn.LSTM, {"num_layers": 2, "proj_size": 3, "peephole": True}),
    "LSTM, directions": (fastrnn.LSTM, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}),
    "GRU": (fastrnn.GRU, {"num_layers": 2}),
    "GRU, directions": (fastrnn.GRU, {"num_layers": 2, "bidirectional": True}),
    "RNN": (fastrnn.RNN, {"num_layers": 2, "nonlinearity": "relu", "dropout": 0.5}),
    "SLSTM": (fastrnn.SLSTM, {"num_layers": 2, "num_heads": 7}),
    "UGRNN": (fastrnn.UGRNN, {"num_layers": 2}),
}


def case_of(name, dtype, lengths, T=T):
    cls, options = CASES[name]
    layer = cls(5, 7, **options, dtype=dtype, rng=1)
    x, state = draw(0, T, B, 5, dtype=dtype), state_like(layer, B, 1)
    d_output = draw(1, T, B, (1 + layer.bidirectional) * (options.get("proj_size") or 7), dtype=dtype)
    return (*arguments_of(layer, x, state, lengths), d_output, members(state_like(layer, B, 2)))


@pytest.mark.parametrize("lengths", [None, [30, 0, 70, 20]], ids=["padded", "ragged"])
@pytest.mark.parametrize("name", CASES)
def test_every_byte_of_a_reserve_is_defined(name, lengths, dtype, isa):
    arguments, options, *_ = case_of(name, dtype, lengths, 70)
    size, found = functional.forward(*arguments, **options)[2].size, []
    for poison in (0x00, 0xFF, 0x5A):
        POOL.clear()
        buffers = [POOL.bytes(size) for _ in range(9)]  # the reserve, which is large enough for the pool, takes one
        for buffer in buffers:
            buffer[...] = poison
        POOL.give_back_all(buffers)
        assert len(POOL) == 9
        found.append(functional.forward(*arguments, **options)[2])
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert found[0].dtype == np.uint8 and found[0].shape == (size,)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_reserve_does_not_depend_on_threads(name, num_threads, threads):
    arguments, options, d_output, d_state_n = case_of(name, np.float32, [3, 0, 7, 2])
    expected = run(arguments, options, d_output, d_state_n)
    threads(num_threads)
    assert flat(*run(arguments, options, d_output, d_state_n)) == flat(*expected)


@pytest.mark.parametrize("name", CASES)
def test_copies_of_a_reserve(name, dtype):
    (kind, *others), options, d_output, d_state_n = case_of(name, dtype, [3, 0, 7, 2])
    _, _, reserve, *expected = run((kind, *others), options, d_output, d_state_n)
    room = np.zeros(reserve.size + 1, np.uint8)
    room[1:] = reserve
    for one in (np.frombuffer(reserve.tobytes(), np.uint8), room[1:], np.repeat(reserve, 2)[::2], reserve.tolist()):
        one = np.array(one, np.uint8) if isinstance(one, list) else one
        before = one.tobytes()
        for _ in range(2):
            found = functional.backward(kind, one, *others, d_output, d_state_n, **options)
            assert flat(*found) == flat(*expected)
        assert one.tobytes() == before


def test_a_reserve_in_another_process(tmp_path):
    arguments, options, d_output, d_state_n = case_of("LSTM, directions", np.float32, [3, 0, 7, 2])
    output, state_n, reserve, *expected = run(arguments, options, d_output, d_state_n)
    kind, x, state, weights = arguments
    import pickle

    given = kind, reserve.tobytes(), x, state, weights, d_output, d_state_n, options
    (tmp_path / "given").write_bytes(pickle.dumps(given))
    code = """
import pickle, sys
import numpy as np
from fastrnn import functional
with open(sys.argv[1], "rb") as file:
    kind, reserve, *others, options = pickle.load(file)
d_x, d_state, d_weights = functional.backward(kind, np.frombuffer(reserve, np.uint8), *others, **options)
arrays = [d_x, *d_state, *(d for one in d_weights for d in one.values())]
sys.stdout.buffer.write(b"".join(a.tobytes() for a in arrays))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "given"], capture_output=True, timeout=120)
    assert done.stdout == flat(*expected), done.stderr.decode()


def test_nothing_is_modified_or_kept(dtype):
    arguments, options, d_output, d_state_n = case_of("LSTM", dtype, None)
    kind, x, state, weights = arguments
    arrays = [x, *state, d_output, *d_state_n, *(w for one in weights for w in one.values())]
    before = flat(*arrays)
    for array in arrays:
        array.flags.writeable = False
    output, state_n, reserve = functional.forward(*arguments, **options)
    expected = functional.backward(kind, reserve, x, state, weights, d_output, d_state_n, **options)
    kept = reserve.copy()
    reserve.flags.writeable = False
    output[...] = np.nan
    for one in state_n:
        one[...] = np.nan
    fastrnn.LSTM(5, 7, num_layers=3, dtype=dtype).forward(x)  # may use what the pool has
    found = functional.backward(kind, reserve, x, state, weights, d_output, d_state_n, **options)
    assert flat(*found) == flat(*expected) and flat(*arrays) == before
    assert reserve.tobytes() == kept.tobytes()
    assert not any(np.shares_memory(a, b) for a in (found[0], *found[1]) for b in (*arrays, reserve))


def weights(H=4, I=3, gates=3, **others):
    return {"weight_ih": np.zeros((gates * H, I)), "weight_hh": np.zeros((gates * H, H))} | others


X = np.zeros((T, B, 3))
GRU = [weights(), weights(I=4)]


@pytest.mark.parametrize(
    "message, arguments, options",
    [
        ("kind: expected 'lstm' or 'gru' or 'rnn' or 'slstm' or 'ugrnn', got 'cell'", ("cell", X, None, GRU), {}),
        ("x: expected", ("gru", X[0], None, GRU), {}),
        ("x: expected", ("gru", X[..., :2], None, GRU), {}),
        ("weights: expected a sequence of mappings, got dict", ("gru", X, None, weights()), {}),
        ("weights: expected a sequence of mappings, got int", ("gru", X, None, 3), {}),
        (r"weights\[1\]: expected a mapping", ("gru", X, None, [weights(), 3]), {}),
        (r"weights\[0\]: 'weight_hr' is not a weight of 'gru'", ("gru", X, None, [weights(weight_hr=0)]), {}),
        (r"weights\[0\]\['weight_hh'\]: is missing", ("gru", X, None, [{"weight_ih": np.zeros((12, 3))}]), {}),
        (r"weights\[1\]\['weight_ih'\]: expected \(3\*H=12, I=4\)", ("gru", X, None, [weights(), weights()]), {}),
        (r"weights\[1\]\['weight_ih'\]: expected \(3\*H=12, I=3\)", ("gru", X, None, GRU), {"bidirectional": True}),
        (r"weights\[1\]: has other weights", ("gru", X, None, [weights(), weights(I=4, bias_ih=np.zeros(12))]), {}),
        (r"weights\[0\]\['bias_ih'\]: expected \(3\*H=12,\)", ("gru", X, None, [weights(bias_ih=np.zeros(3))]), {}),
        ("weights: expected one or more layers of 2", ("gru", X, None, GRU[:1]), {"bidirectional": True}),
        ("weights: expected one or more layers of 1", ("gru", X, None, []), {}),
        (r"state: expected a tuple \(h_0,\), got ndarray", ("gru", X, np.zeros((2, B, 4)), GRU), {}),
        (r"state: expected a tuple \(h_0,\), got 2 items", ("gru", X, (None, None), GRU), {}),
        (r"state \(h_0\): expected \(L\*D=2, B=4, H=4\)", ("gru", X, (np.zeros((1, B, 4)),), GRU), {}),
        ("lengths: expected", ("gru", X, None, GRU), {"lengths": [1]}),
        ("dropout: expected a number from 0 to 1", ("gru", X, None, GRU), {"dropout": 2}),
        ("seed: expected at least 0", ("gru", X, None, GRU), {"seed": -1}),
        ("bidirectional: expected True or False", ("gru", X, None, GRU), {"bidirectional": 1}),
        ("nonlinearity: is not an option of 'gru'", ("gru", X, None, GRU), {"nonlinearity": "tanh"}),
        ("nonlinearity: expected 'tanh' or 'relu'", ("rnn", X, None, [weights(gates=1)]), {"nonlinearity": "x"}),
        ("reverse: not with bidirectional", ("gru", X, None, GRU), {"reverse": True, "bidirectional": True}),
        ("hx: is called state here", ("gru", X), {"hx": None, "weights": GRU}),
    ],
)
def test_refused(message, arguments, options):
    with pytest.raises((TypeError, ValueError), match="^" + message):
        functional.forward(*arguments, **options)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_weights_of_an_iterator(dropout):
    """It can be read only once."""
    output, (h_n,), _ = functional.forward("gru", X, None, GRU, dropout=dropout, seed=3)
    inferred, (inferred_h_n,) = functional.infer("gru", X, None, iter(GRU), dropout=dropout, seed=3)
    assert inferred.tobytes() == output.tobytes() and inferred_h_n.tobytes() == h_n.tobytes()


def test_refused_by_backward():
    _, _, reserve = functional.forward("gru", X, None, GRU)
    d_output = np.zeros((T, B, 4))
    for message, changes in {
        r"reserve: expected \(bytes=\d+,\), got \(\d+,\); it belongs to a forward of other shapes": {
            "reserve": reserve[1:]
        },
        "reserve: expected an array of uint8, got int8": {"reserve": reserve.view(np.int8)},
        "d_output, d_state_n: neither is given": {"d_output": None},
        r"d_output: expected \(T=7, B=4, H=4\)": {"d_output": d_output[1:]},
        r"d_state_n: expected a tuple \(d_h_n,\)": {"d_state_n": np.zeros((2, B, 4))},
        r"d_state_n \(d_h_n\): expected \(L\*D=2, B=4, H=4\)": {"d_state_n": [np.zeros((2, 1, 4))]},
    }.items():
        given = {"reserve": reserve, "x": X, "state": None, "weights": GRU, "d_output": d_output} | changes
        with pytest.raises((TypeError, ValueError), match="^" + message):
            functional.backward("gru", **given)
