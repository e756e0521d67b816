"""Random unusual and invalid arguments for every public function.

A drawn argument has valid values in an unusual form (strides, byte order, alignment, kind of number, class, file): then
the result must equal the result for a plain array, bit for bit. Or it is invalid: then the call must raise an error
that begins with the argument's name. No argument is ever written.

`make fuzz` draws more than 100,000 cases, 40 times as many as the tests.
"""

import functools
import io
import os
import re
import tempfile
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn import functional
from layer_cases import layers, members, state_like

# The warnings of NumPy about casts to float32 that overflow, and of fastrnn about dropout with one layer.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning", "ignore:dropout")


def fuzz(cases):
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=cases * DEPTH, suppress_health_check=checks, deadline=None)


# Values -----------------------------------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e30, -1e30, 1e300, np.inf, -np.inf, np.nan]


@st.composite
def values(draw, shape):
    """Numbers of a shape, a few of them special; exact in float16."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = rng.integers(-8, 9, shape) / 8
    for place in draw(st.lists(st.integers(0, 2**16), max_size=3)):
        if array.size:
            array.flat[place % array.size] = draw(st.sampled_from(SPECIAL))
    return array


class Plain(np.ndarray):
    """A subclass without changes."""


class Sum(np.ndarray):
    """A subclass with overridden arithmetic."""

    def __array_ufunc__(self, *arguments, **options):
        raise RuntimeError("no ufunc wanted")


class Convertible:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    shifted = memory[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def apart(array):
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


def backwards(array):
    every = (slice(None, None, -1),) * array.ndim
    return array[every].copy()[every]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def in_a_file(array):
    if not array.size:
        return array
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped


def as_integers(array):
    return np.nan_to_num(array, posinf=3, neginf=-3).clip(-100, 100).astype(np.int16)


def narrow(array):
    return array.astype(np.float16)


FORMS = {
    "plain": lambda a: a,
    "Fortran": np.asfortranarray,
    "apart": apart,
    "backwards": backwards,
    "misaligned": misaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": read_only,
    "file": in_a_file,
    "list": lambda a: a.tolist() if a.size else a,
    "subclass": lambda a: a.view(Plain),
    "odd subclass": lambda a: a.view(Sum),
    "masked": np.ma.MaskedArray,
    "convertible": Convertible,
    "float16": narrow,
    "float32": lambda a: a.astype(np.float32),
    "long double": lambda a: a.astype(np.longdouble),
    "int16": as_integers,
    "bool": lambda a: a > 0,
}


def changed_shapes(shape):
    """Shapes that are not this one."""
    if not shape:
        return [(1,), (0,), (2, 2)]
    yield (*shape, 1)
    yield (1, 1, 1, *shape)
    yield shape[:-1]
    for k, n in enumerate(shape):
        yield (*shape[:k], n + 1, *shape[k + 1 :])
        if n > 1:
            yield (*shape[:k], n - 1, *shape[k + 1 :])
            yield (*shape[:k], 1, *shape[k + 1 :])
    if len(shape) > 1 and shape != shape[::-1]:
        yield shape[::-1]


def changed_inputs(shape):
    """Shapes that x of the layer cannot have for any T and B."""
    *_, I = shape
    return [(*shape[:-1], I + 1), (*shape[:-1], I + 7), (*shape, 1, 1), (1, 1, 1, *shape), ()]


def changed_states(shape):
    """Shapes that an initial state, which may be broadcast to all sequences, cannot have."""
    return [one for one in changed_shapes(shape) if one != (*shape[:-2], 1, *shape[-1:])]


WRONG_KINDS = [
    lambda a: a.astype(np.complex64),
    lambda a: a.astype(object),
    lambda a: a.astype("U8"),
    lambda a: np.zeros(a.shape, "datetime64[s]"),
    lambda a: np.zeros(a.shape, [("a", "f4")]),
    lambda a: "text",
    lambda a: {"a": 1},
    lambda a: object(),
    lambda a: [[1.0], [1.0, 2.0]],
    lambda a: range,
    lambda a: np.broadcast_to(np.float32(1), (2**30, 2**20, 2**10)),  # 2**60 numbers that lie in four bytes
    lambda a: np.broadcast_to(np.float32(1), (2**60,)),
]


@st.composite
def forms(draw, array, changed=changed_shapes):
    """(argument, whether it is valid)."""
    if draw(st.integers(0, 4)):
        return FORMS[draw(st.sampled_from(sorted(FORMS)))](array), True
    if draw(st.booleans()):
        return draw(st.sampled_from(WRONG_KINDS))(array), False
    return np.zeros(draw(st.sampled_from(list(changed(array.shape)))), array.dtype), False


def plain(value, dtype):
    """The plain array that a call must make of a valid argument."""
    if value is None:
        return None
    if isinstance(value, np.ma.MaskedArray):
        value = value.data
    if isinstance(value, Convertible):
        value = value.array
    return np.array(np.asarray(value), dtype, order="C", subok=False)


def bytes_of(value):
    if isinstance(value, (tuple, list)):
        return [bytes_of(item) for item in value]
    if isinstance(value, Convertible):
        value = value.array
    if isinstance(value, np.ndarray) and value.dtype != object and value.nbytes < 2**20:
        return np.asarray(value).tobytes()
    return repr(type(value))


def flattened(results):
    for item in results:
        if isinstance(item, (tuple, list)):
            yield from flattened(item)
        elif isinstance(item, Mapping):
            yield from item.values()
        elif item is not None:
            yield item


def assert_same(results, expected):
    results, expected = list(flattened(results)), list(flattened(expected))
    assert len(results) == len(expected)
    for a, b in zip(results, expected, strict=True):
        assert type(a) is np.ndarray and a.dtype == b.dtype and a.shape == b.shape
        assert np.array_equal(a, b, equal_nan=True)


def check(call, arguments, dtype, wrong):
    """Calls with arguments, name -> value or tuple of values; `wrong` has the names of the invalid ones."""
    before = {name: bytes_of(value) for name, value in arguments.items()}
    if wrong:
        with pytest.raises((TypeError, ValueError)) as caught:
            call(**arguments)
        assert re.match("|".join(map(re.escape, wrong)), str(caught.value)), str(caught.value)
    else:
        results = call(**arguments)
    assert before == {name: bytes_of(value) for name, value in arguments.items()}
    if not wrong:
        expected = {
            name: tuple(plain(v, dtype) for v in value) if isinstance(value, tuple) else plain(value, dtype)
            for name, value in arguments.items()
        }
        assert_same(results, call(**expected))


CHANGED = {"x": changed_inputs, "state": changed_states}


@st.composite
def arguments(draw, shapes, most_odd=2):
    """name -> value for name -> shape, or list of shapes, some unusual or invalid; and the names of the invalid
    ones."""
    odd = draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1, max_size=most_odd))
    given, wrong = {}, set()
    for name, shape in shapes.items():
        parts = list(shape) if isinstance(shape, list) else [shape]
        chosen = []
        for part in parts:
            value, right = draw(values(part)), True
            if name in odd:
                value, right = draw(forms(value, CHANGED.get(name, changed_shapes)))
            chosen.append(value)
            if not right:
                wrong.add(name)
        given[name] = tuple(chosen) if isinstance(shape, list) else chosen[0]
    return given, wrong


dtypes = st.sampled_from([np.float32, np.float64])


# Functions --------------------------------------------------------------------------------------


@st.composite
def functional_calls(draw):
    """A function of one layer, its arguments by name, and the dtype of the weights."""
    T, B, I, H = (draw(st.integers(low, 4)) for low in (0, 0, 0, 1))
    cell = draw(st.sampled_from(["lstm", "gru", "rnn", "slstm", "ugrnn"]))
    G = {"lstm": 4, "gru": 3, "rnn": 1, "slstm": 4, "ugrnn": 2}[cell] * H
    P = draw(st.sampled_from([H, H + 2])) if cell == "lstm" else H
    states = {"lstm": [(B, P), (B, H)], "slstm": [(B, H)] * 4}
    shapes = {
        "x": (T, B, I),
        "state": states.get(cell, (B, H)),
        "weight_ih": (G, I),
        "weight_hh": (G, P),
    }
    if draw(st.booleans()):
        shapes["bias_ih"] = (G,)
    if draw(st.booleans()):
        shapes["bias_hh"] = (G,)
    if P != H:
        shapes["weight_hr"] = (P, H)
    if cell == "lstm" and draw(st.booleans()):
        shapes["weight_peephole"] = (3, H)
    gradients = {"d_output": (T, B, P), "d_state_n": shapes["state"]}
    return cell, shapes, gradients, draw(dtypes)


# The weights determine the dtype of the call, and so are not cast.
AS_THEY_ARE = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole")


@fuzz(400)
@given(functional_calls(), st.data())
def test_functions(drawn, data):
    cell, shapes, gradients, dtype = drawn
    given, wrong = data.draw(arguments({name: shapes[name] for name in ("x", "state")}))
    weights = {name: data.draw(values(shapes[name])).astype(dtype) for name in shapes if name in AS_THEY_ARE}
    d_given, d_wrong = data.draw(arguments(gradients))

    def infer(**arguments):
        return getattr(functional, cell)(**arguments, **weights)

    def forward_backward(**arguments):
        *results, tape = getattr(functional, f"{cell}_forward")(**given, **weights)
        return *results, *getattr(functional, f"{cell}_backward")(tape, **arguments)

    check(infer, given, dtype, wrong)
    if not wrong:
        check(forward_backward, d_given, dtype, d_wrong)


@fuzz(300)
@given(functional_calls(), st.data())
def test_weights_of_functions(drawn, data):
    """Each weight in an unusual form of its own dtype, or invalid."""
    cell, shapes, _, dtype = drawn
    name = data.draw(st.sampled_from([name for name in shapes if name in AS_THEY_ARE]))
    given = {"x": data.draw(values(shapes["x"])), "state": None}
    weights = {n: data.draw(values(shapes[n])).astype(dtype) for n in shapes if n in AS_THEY_ARE}
    kept = (
        "plain",
        "Fortran",
        "apart",
        "backwards",
        "misaligned",
        "byte-swapped",
        "read-only",
        "file",
        "subclass",
        "odd subclass",
    )
    if data.draw(st.booleans()):
        weights[name], wrong = FORMS[data.draw(st.sampled_from(kept))](weights[name]), set()
    else:
        shape = data.draw(st.sampled_from(list(changed_shapes(weights[name].shape))))
        if name in ("weight_ih", "weight_hh", "weight_hr"):
            # Each weight determines the sizes of the others and of x: this shape is invalid for every weight.
            shape = (*weights[name].shape, 1)
        weights[name], wrong = np.zeros(shape, dtype), {name}
    check(lambda **weights: getattr(functional, cell)(**given, **weights), weights, dtype, wrong)


# Layers -----------------------------------------------------------------------------------------


@st.composite
def layer_calls(draw):
    """A layer, the shapes of its arguments, and lengths."""
    layer = draw(layers())
    layer = type(layer)(**{**layer._constructor_arguments(), "dtype": draw(dtypes)}, rng=1)
    T, B = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    state = [s.shape for s in members(state_like(layer, B, 0))]
    width = state[0][-1] * (1 + layer.bidirectional)
    sizes = (B, T) if layer.batch_first else (T, B)
    shapes = {"x": (*sizes, layer.input_size), "state": state if len(state) > 1 else state[0]}
    gradients = {"d_output": (*sizes, width), "d_state_n": shapes["state"]}
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    return layer, shapes, gradients, lengths


@fuzz(500)
@given(layer_calls(), st.data())
def test_layers(drawn, data):
    layer, shapes, gradients, lengths = drawn
    if data.draw(st.booleans()):
        layer.freeze()
    given, wrong = data.draw(arguments(shapes))
    d_given, d_wrong = data.draw(arguments(gradients))

    def call(**arguments):
        return layer(**arguments, lengths=lengths)

    def train(**arguments):
        *results, tape = layer.forward(**given, lengths=lengths)
        return *results, *layer.backward(tape, **arguments)

    check(call, given, layer.dtype, wrong)
    if not wrong:
        check(train, d_given, layer.dtype, d_wrong)


FORMATS = ("int8", "float16", "bfloat16", "float8")


@fuzz(200)
@given(layer_calls(), st.sampled_from(FORMATS), st.data())
def test_quantized_layers(drawn, format, data):
    layer, shapes, _, lengths = drawn
    if layer.dtype == np.float64:
        with pytest.raises(ValueError, match="^layer"):
            layer.quantize(format)
        return
    quantized = layer.quantize(format)
    given, wrong = data.draw(arguments(shapes))
    check(lambda **arguments: quantized(**arguments, lengths=lengths), given, np.float32, wrong)


@fuzz(100)
@given(layer_calls(), st.lists(st.integers(0, 40), min_size=10, max_size=10), st.booleans())
def test_arguments_may_be_views_of_each_other(drawn, starts, own):
    """And of the layer's parameters."""
    layer, shapes, gradients, lengths = drawn
    memory = np.random.default_rng(0).normal(size=4000).astype(layer.dtype)
    starts = iter(starts)

    def view(shape):
        if isinstance(shape, list):
            return tuple(view(part) for part in shape)
        start, size = next(starts), int(np.prod(shape))
        whole = layer.params.flat if own and start + size <= layer.params.flat.size else memory
        return whole[start : start + size].reshape(shape)

    given = {name: view(shape) for name, shape in (shapes | gradients).items()}

    def train(x, state, d_output, d_state_n):
        *results, tape = layer.forward(x, state, lengths)
        return *results, *layer.backward(tape, d_output, d_state_n)

    check(train, given, layer.dtype, set())


LENGTHS = [
    -1, 2**31, 2**63, -(2**63), 1.5, np.nan, "1", None, [], True, [1], 5, np.float32(1), np.datetime64(1, "s"),
]  # fmt: skip


@fuzz(200)
@given(layer_calls(), st.data())
def test_lengths(drawn, data):
    layer, shapes, _, _ = drawn
    x = data.draw(values(shapes["x"])).astype(layer.dtype)
    T, B = shapes["x"][1::-1] if layer.batch_first else shapes["x"][:2]
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    expected = layer(x, lengths=lengths)
    kind = data.draw(st.sampled_from([list, tuple, np.int8, np.uint64, np.dtype(">i4"), object]))
    if isinstance(kind, type) and issubclass(kind, (list, tuple)):
        given = kind(lengths)
    else:
        given = np.array(lengths, np.int64 if kind is object else kind)
    assert_same(layer(x, lengths=given), expected)
    wrong = list(lengths)
    wrong[data.draw(st.integers(0, B - 1)) if B else 0 : 0] = [data.draw(st.sampled_from(LENGTHS))]
    for bad in (
        wrong,
        wrong[:B] if B and wrong[:B] != lengths and not valid(wrong[:B], T) else wrong,
        3,
        "lengths",
        {},
    ):
        with pytest.raises((TypeError, ValueError), match="^lengths"):
            layer(x, lengths=bad)


def valid(lengths, T):
    return all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 0 <= n <= T for n in lengths)


@fuzz(200)
@given(layer_calls(), st.data())
def test_state_dicts(drawn, data):
    """Nothing is written unless all fits."""
    layer, *_ = drawn
    names = list(layer.params)
    given = {name: data.draw(values(array.shape)) for name, array in layer.params.items()}
    wrong = False
    for name in data.draw(st.sets(st.sampled_from(names), max_size=2)):
        given[name], right = data.draw(forms(given[name]))
        wrong |= not right
    match data.draw(st.integers(0, 5)):
        case 0:
            del given[data.draw(st.sampled_from(names))]
            wrong = True
        case 1:
            given[data.draw(st.sampled_from(["weight", "", "weight_ih_l9", 3, None]))] = np.zeros(3)
            wrong = True
    before = layer.params.copy()
    if wrong:
        with pytest.raises(ValueError, match="^mapping: does not fit"):
            layer.load_state_dict(given)
        assert layer.params == before
    else:
        layer.load_state_dict(given)
    for name in () if wrong else names:
        assert np.array_equal(layer.params[name], plain(given[name], layer.dtype), equal_nan=True)


# Cells and streams ------------------------------------------------------------------------------


@fuzz(200)
@given(st.sampled_from([fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell, fastrnn.UGRNNCell]), dtypes, st.data())
def test_cells(cls, dtype, data):
    I, H = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 18))
    cell = cls(I, H, dtype=dtype, rng=0)
    batch = data.draw(st.sampled_from([(), (0,), (1,), (3,)]))
    state = [(*batch, H), (*batch, H)] if cls is fastrnn.LSTMCell else (*batch, H)
    given, wrong = data.draw(arguments({"x": (*batch, I), "state": state}))
    check(lambda **arguments: (cell(**arguments),), given, dtype, wrong)
    if not wrong:
        d_given, d_wrong = data.draw(arguments({"d_state": state}))

        def train(d_state):
            state_n, tape = cell.forward(**given)
            return state_n, *cell.backward(tape, d_state)

        check(train, d_given, dtype, d_wrong)


@fuzz(200)
@given(layer_calls(), st.data())
def test_streams(drawn, data):
    layer, *_ = drawn
    if layer.dtype == np.float32 and data.draw(st.booleans()):
        layer = layer.quantize(data.draw(st.sampled_from(FORMATS)))
    if layer.bidirectional:
        with pytest.raises(ValueError, match="^stream"):
            layer.stream()
        return
    batch = data.draw(st.sampled_from([(), (1,), (3,)]))
    stream, twin = (layer.stream(*batch) for _ in range(2))
    width = members(stream.state)[0].shape[-1]
    for _ in range(3):
        given, wrong = data.draw(arguments({"x_t": (*batch, layer.input_size)}))
        before = bytes_of(stream.state)
        out = None
        if data.draw(st.booleans()):
            out, right = data.draw(outs((*batch, width), layer.dtype))
            if not right:
                wrong.add("out")
        if wrong:
            with pytest.raises((TypeError, ValueError), match="^x_t|^out"):
                stream.step(**given, out=out)
            assert bytes_of(stream.state) == before
            continue
        y_t = stream.step(**given, out=out)
        assert out is None or y_t is out
        assert_same(
            [np.array(y_t, layer.dtype), stream.state], [twin.step(plain(given["x_t"], layer.dtype)), twin.state]
        )


@st.composite
def outs(draw, shape, dtype):
    """(an `out`, whether it is valid)."""
    out = np.zeros(shape, dtype)
    match draw(st.integers(0, 8)):
        case 0 | 1 | 2 | 3:
            return FORMS[draw(st.sampled_from(["plain", "Fortran", "apart", "backwards", "misaligned"]))](out), True
        case 4:
            return np.zeros(draw(st.sampled_from(list(changed_shapes(shape)))), dtype), False
        case 5:
            return read_only(out), False
        case 6:
            return out.astype(np.float64 if dtype == np.float32 else np.float32), False
        case _:
            return draw(st.sampled_from([[0.0], 3, "out", out.tolist(), out.view(Plain)])), False


@fuzz(100)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 60), st.integers(0, 60), st.booleans(), dtypes)
def test_out_may_overlap_the_input(I, H, at, to, backward, dtype):
    layer = fastrnn.RNN(I, H, dtype=dtype, rng=0)
    memory = np.random.default_rng(0).normal(size=200).astype(dtype)
    x_t, out = memory[at : at + I], memory[to : to + H]
    if backward:
        x_t, out = memory[at + I - 1 : at - 1 if at else None : -1], out[::-1]
    rest = np.delete(memory, range(to, to + H))
    expected = layer.stream().step(x_t.copy())
    assert layer.stream().step(x_t, out=out) is out
    assert out.tobytes() == expected.tobytes()
    assert np.delete(memory, range(to, to + H)).tobytes() == rest.tobytes()


# Constructors and numbers -----------------------------------------------------------------------

JUNK = [
    None, -1, 0, 1, 2, 5, 2**31, 2**40, 2**62, 2**63, 2**64, -(2**63), 1.0, 1.5, float("nan"), float("inf"), "3", b"3",
    "tanh", "relu", True, False, [3], (3,), {}, np.int8(3), np.uint64(2**63), np.float32(3), np.array(3), np.array([3]),
    np.bool_(True), object(), np.float16, np.float32, "float64", ">f4", "f8", complex(1, 0), slice(3), Ellipsis, int,
]  # fmt: skip

ARGUMENTS = {
    fastrnn.LSTM: ("num_layers bias batch_first dropout bidirectional proj_size peephole dtype rng", ()),
    fastrnn.GRU: ("num_layers bias batch_first dropout dropout_per_sequence bidirectional dtype rng", ()),
    fastrnn.RNN: ("num_layers nonlinearity bias batch_first dropout bidirectional dtype rng", ()),
    fastrnn.LSTMCell: ("bias dtype rng", ()),
    fastrnn.GRUCell: ("bias dtype rng", ()),
    fastrnn.RNNCell: ("bias nonlinearity dtype rng", ()),
}


@fuzz(400)
@given(st.sampled_from(list(ARGUMENTS)), st.data())
def test_constructors(cls, data):
    names = ["input_size", "hidden_size", *ARGUMENTS[cls][0].split()]
    given = {"input_size": 2, "hidden_size": 3}
    for name in data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=3)):
        given[name] = data.draw(st.sampled_from(JUNK))
    sizes = [given.get(name, 1) for name in ("input_size", "hidden_size", "num_layers")]
    if any(isinstance(n, int) and 2**31 <= n < 2**62 for n in sizes):
        return  # might be available on a large machine; 2**62 bytes are not
    try:
        layer = cls(**given)
    except (TypeError, ValueError) as error:
        assert re.match("|".join([*given, "hidden_size", "input_size"]), str(error)), str(error)
    except MemoryError:
        assert any(isinstance(n, int) and n > 2**20 for n in sizes)
    else:
        assert layer.input_size == given["input_size"] and layer.hidden_size == given["hidden_size"]
        x = np.ones((2, 1, layer.input_size) if hasattr(layer, "num_layers") else (1, layer.input_size))
        layer(x)
        repr(layer)


@fuzz(100)
@given(st.sampled_from(JUNK), st.sampled_from(JUNK), st.integers(0, 4))
def test_numbers(a, b, which):
    layer = fastrnn.LSTM(2, 3, rng=0)
    x = np.ones((4, 1, 2), np.float32)
    threads = fastrnn.get_num_threads()
    calls = [
        lambda: fastrnn.set_num_threads(a),
        lambda: layer.stream(a).step(b),
        lambda: layer.forward(x, checkpoint_every=a),
        lambda: layer(a, b),
        lambda: layer.backward(a, b),
    ]
    try:
        calls[which]()
    except (TypeError, ValueError) as error:
        assert re.match("num_threads|batch_size|x_t|checkpoint_every|x|state|tape", str(error)), str(error)
    except MemoryError:
        assert which == 1 and a >= 2**31
    finally:
        fastrnn.set_num_threads(threads)


@fuzz(100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.data())
def test_parameters(shape, data):
    params = fastrnn.Parameters({"a": tuple(shape), "b": (2, 3)})
    given, right = data.draw(forms(data.draw(values(tuple(shape)))))
    before = params.copy()
    if right:
        params["a"] = given
        assert np.array_equal(params["a"], plain(given, np.float32), equal_nan=True)
        assert params["b"].tobytes() == before["b"].tobytes()
    else:
        with pytest.raises((TypeError, ValueError), match="^a:"):
            params["a"] = given
        assert params == before


# Files ------------------------------------------------------------------------------------------


@functools.cache
def saved(format):
    pytest.importorskip("safetensors")
    layer = fastrnn.LSTM(2, 3, 2, bidirectional=True, rng=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "layer")
        fastrnn.save(path, layer.quantize(format) if format else layer)
        with open(path, "rb") as file:
            return file.read()


@fuzz(400)
@given(st.data())
def test_files(data):
    """A damaged file raises an error with its path, or, if only values are damaged, gives a layer of the same shape."""
    whole = saved(data.draw(st.none() | st.sampled_from(FORMATS)))
    damaged = bytearray(whole)
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        # mostly in the header
        at = data.draw(st.integers(0, header - 1) | st.integers(0, len(damaged) - 1) | st.integers(0, 8))
        match data.draw(st.integers(0, 4)):
            case 0:
                damaged[at % max(1, len(damaged))] = data.draw(st.integers(0, 255))
            case 1:
                del damaged[at:]
            case 2:
                del damaged[at : at + data.draw(st.integers(1, 20))]
            case 3:
                damaged[at:at] = data.draw(st.binary(max_size=20))
            case 4:
                damaged[at : at + 1] = data.draw(st.sampled_from([b"9", b"0", b'"', b"}", b"-", b"\\", b"\0"]))
        if not damaged:
            break
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "damaged")
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            layer = fastrnn.load(path)
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            layer(np.ones((2, 1, layer.input_size)))


@fuzz(100)
@given(st.binary(max_size=300))
def test_files_of_anything(content):
    pytest.importorskip("safetensors")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "anything")
        with open(path, "wb") as file:
            file.write(content)
        with pytest.raises(ValueError, match="anything"):
            fastrnn.load(path)


def test_a_pickle_is_not_loaded(tmp_path):
    """`load` unpickles neither a file nor parts of it."""
    pytest.importorskip("safetensors")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], object), allow_pickle=True)
    (tmp_path / "bomb").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="bomb"):
        fastrnn.load(tmp_path / "bomb")
    assert not Bomb.exploded


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)
