"""Pickles of layers, cells and parameters: public names and plain data, with a version for later releases."""

import copy
import os
import pickle
import pickletools
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn._engine.spec import FORMAT_VERSION

OBJECTS = {
    "LSTM": lambda: fastrnn.LSTM(3, 4, 2, dropout=0.5, bidirectional=True, proj_size=2, peephole=True, rng=1),
    "LSTM, defaults": lambda: fastrnn.LSTM(3, 4, rng=1),
    "GRU": lambda: fastrnn.GRU(3, 4, bias=False, batch_first=True, dtype=np.float64, rng=1),
    "GRU, one mask": lambda: fastrnn.GRU(3, 4, 2, dropout=0.5, dropout_per_sequence=True, rng=1),
    "RNN": lambda: fastrnn.RNN(3, 4, nonlinearity="relu", rng=1),
    "LSTMCell": lambda: fastrnn.LSTMCell(3, 4, rng=1),
    "GRUCell": lambda: fastrnn.GRUCell(3, 4, bias=False, rng=1),
    "RNNCell": lambda: fastrnn.RNNCell(3, 4, nonlinearity="relu", dtype=np.float64, rng=1),
    "UGRNN": lambda: fastrnn.UGRNN(3, 4, 2, reverse=True, clip=2.0, rng=1),
    "UGRNNCell": lambda: fastrnn.UGRNNCell(3, 4, activation="relu", rng=1),
    "Linear": lambda: fastrnn.Linear(3, 4, rng=1),
    "Linear, no bias": lambda: fastrnn.Linear(3, 4, bias=False, dtype=np.float64, rng=1),
    "Parameters": lambda: fastrnn.GRU(3, 4, rng=1).params,
    "Parameters, none": lambda: fastrnn.Parameters({}, np.float64),
}
LAYERS = {name: make for name, make in OBJECTS.items() if not name.startswith(("Parameters", "Linear"))}
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def names_in(data):
    """The (module, name) of everything that a pickle imports, and all its other strings."""
    found, strings = set(), []
    memo = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(tuple(argument.split(" ")))
        elif opcode.name == "STACK_GLOBAL":
            found.add(tuple(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
        if opcode.name == "MEMOIZE":
            memo.append(strings[-1] if strings else None)
        elif opcode.name in ("BINGET", "LONG_BINGET") and argument < len(memo) and isinstance(memo[argument], str):
            strings.append(memo[argument])
    return found, set(strings)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", OBJECTS)
def test_only_public_names(name, frozen, protocol):
    one = OBJECTS[name]()
    if frozen and name in LAYERS:
        one.freeze()
    imported, strings = names_in(pickle.dumps(one, protocol))
    ours = {
        (module, what) for module, what in imported if module.split(".")[0] not in ("numpy", "_codecs", "__builtin__")
    }
    assert ours <= {("fastrnn", what) for what in fastrnn.__all__} and ours
    assert not any(text.startswith("_") for text in strings - {what for _, what in imported} if "numpy" not in text)
    assert not any("fastrnn." in text or text.startswith("fastrnn_") for text in strings)


def test_classes_have_their_public_names():
    for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "UGRNN", "UGRNNCell", "Parameters"):
        assert repr(getattr(fastrnn, name)) == f"<class 'fastrnn.{name}'>"


@pytest.mark.parametrize("name", LAYERS)
def test_the_state_is_plain_and_complete(name):
    """The format is stable: later versions must read this version's pickles, or refuse them by their version."""
    layer = LAYERS[name]()
    layer.note = "kept"
    state = layer.__getstate__()
    assert list(state) == ["version", "arguments", "params", "rng", "frozen", "attributes"]
    assert state["version"] == FORMAT_VERSION and state["frozen"] is False
    assert type(layer)(**state["arguments"]).__getstate__()["arguments"] == state["arguments"]
    assert state["params"] is layer.params and isinstance(state["rng"], np.random.Generator)
    assert state["attributes"] == {"note": "kept"}  # so each attribute of the class is known
    state = layer.params.__getstate__()
    assert list(state) == ["version", "shapes", "values"] and state["version"] == 1
    assert state["shapes"] == {name: array.shape for name, array in layer.params.items()}
    assert state["values"].tobytes() == layer.params.flat.tobytes()


def ways():
    yield "copy", copy.copy
    yield "deepcopy", copy.deepcopy
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle {protocol}", lambda one, protocol=protocol: pickle.loads(pickle.dumps(one, protocol))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_copies_are_as_the_original(name, frozen):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3))
    for way, duplicate in ways():
        layer = LAYERS[name]()
        layer.note = ["kept"]
        if frozen:
            layer.freeze()
        other = duplicate(layer)
        assert type(other) is type(layer) and repr(other) == repr(layer) and other.note == ["kept"], way
        assert other.frozen == frozen and other.params == layer.params, way
        assert (other.params is layer.params) == (way == "copy")
        assert np.asarray(other(x)[0]).tobytes() == np.asarray(layer(x)[0]).tobytes(), way
        assert set(other.__dict__) == set(layer.__dict__), way
        if way != "copy":  # which shares the generator, too
            assert other._rng.bit_generator.state == layer._rng.bit_generator.state, way
            other.unfreeze()
            other.params.flat[...] = 0
            assert layer.params.flat.any(), way


def test_objects_that_are_shared_stay_shared():
    layer = fastrnn.LSTM(3, 4, rng=1)
    shared = copy.copy(layer)
    layer.other = shared
    shared.other = layer
    layer, shared, params = pickle.loads(pickle.dumps((layer, shared, layer.params)))
    assert layer.params is shared.params is params and layer._rng is shared._rng
    assert layer.other is shared and shared.other is layer


class NamedLinear(fastrnn.Linear):
    """A user's class with attributes."""


@pytest.mark.parametrize("bias", [True, False])
def test_copies_of_a_linear(bias):
    one = NamedLinear(3, 4, bias, rng=1)
    one.note, x = "kept", np.ones((2, 3), np.float32)
    for _, duplicate in ways():
        other = duplicate(one)
        assert type(other) is NamedLinear and other.note == "kept" and repr(other) == repr(one)
        assert other(x).tobytes() == one(x).tobytes() and other.params == one.params


@pytest.mark.parametrize("make", [
    lambda p: fastrnn.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    lambda p: fastrnn.optim.SGD(p, 0.1),
    lambda p: fastrnn.optim.Adam(p, betas=(0.8, 0.99)),
    lambda p: fastrnn.optim.AdamW(p, weight_decay=0.1),
])  # fmt: skip
@pytest.mark.parametrize("is_single", [False, True])
def test_optimizers(make, is_single):
    """Public names and a version; a pickle of a layer and its optimizer goes on with the bits of the original."""
    layer, array = fastrnn.GRU(3, 4, rng=1), np.ones(5)
    optimizer = make(layer.params if is_single else [layer.params, array])
    gradient = layer.params.copy()
    gradients = gradient if is_single else [gradient, np.arange(5.0)]
    optimizer.step(gradients)
    optimizer.note = "kept"
    imported, strings = names_in(pickle.dumps(optimizer))
    strings -= {name for _, name in imported}
    assert {"version", "lr", "steps"} <= strings and not any(text.startswith("_") for text in strings)
    for freeze in (False, True):
        if freeze:
            layer.freeze()
        other, array_2, twin = pickle.loads(pickle.dumps((layer, array, optimizer)))
        other.unfreeze()
        layer.unfreeze()
        for one in (optimizer, twin):
            one.step(gradients)
        assert twin.note == "kept" and twin.steps == optimizer.steps and twin.lr == optimizer.lr
        assert other.params == layer.params and array_2.tobytes() == array.tobytes()
    with pytest.raises(ValueError, match="a pickle of [A-Za-z]+: version 2, from a newer fastrnn"):
        optimizer.__setstate__({"version": 2})


def test_a_copy_does_not_warn_again():
    with pytest.warns(UserWarning, match="^dropout"):
        layer = fastrnn.LSTM(3, 4, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(pickle.loads(pickle.dumps(layer))) == repr(copy.deepcopy(layer)) == repr(layer)


class Named(fastrnn.GRU):
    """A user's class with its own constructor."""

    def __init__(self, name):
        super().__init__(3, 4, num_layers=2, rng=1)
        self._name = name
        self.params["bias_ih_l0"][...] = 7


def test_derived_classes():
    layer = Named("somebody")
    for _, duplicate in ways():
        other = duplicate(layer)
        assert type(other) is Named and other._name == "somebody" and other.params == layer.params


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**30])
@pytest.mark.parametrize("name", OBJECTS)
def test_a_newer_version_says_so(name, version):
    one = OBJECTS[name]()
    blank = type(one).__new__(type(one))
    with pytest.raises(
        ValueError, match=f"a pickle of {type(one).__name__}: version {version}, from a newer fastrnn; thi"
    ):
        blank.__setstate__(one.__getstate__() | {"version": version, "values": 0, "arguments": 0})


@pytest.mark.parametrize("state", [None, {}, {"version": 0}, {"version": True}, {"version": "1"}, np.zeros(3)])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_has_no_version_says_so(name, state):
    one = OBJECTS[name]()
    blank = type(one).__new__(type(one))
    with pytest.raises(ValueError, match=f"a pickle of {type(one).__name__}: expected a version of at least 1, got "):
        blank.__setstate__(state)


def test_parameters_that_do_not_fit_are_refused():
    """Unpickling must check shapes, because the kernels trust them."""
    layer = fastrnn.LSTM(3, 4, rng=1)
    swapped = dict(reversed(layer.params._shapes().items()))
    for params in (
        fastrnn.LSTM(3, 3).params,
        fastrnn.LSTM(3, 4, bias=False).params,
        fastrnn.LSTM(3, 4, dtype=np.float64).params,
        fastrnn.Parameters(swapped),
    ):
        blank = fastrnn.LSTM.__new__(fastrnn.LSTM)
        with pytest.raises(ValueError, match="do not fit its arguments"):
            blank.__setstate__(layer.__getstate__() | {"params": params})


def test_values_of_another_byte_order(dtype):
    params = fastrnn.LSTM(3, 4, dtype=dtype, rng=1).params
    state = params.__getstate__()
    blank = fastrnn.Parameters.__new__(fastrnn.Parameters)
    values = state["values"]
    blank.__setstate__(state | {"values": values.astype(values.dtype.newbyteorder("S"))})
    assert blank == params and blank.flat.dtype.isnative and blank.flat.dtype == dtype


def test_another_process_reads_it(tmp_path):
    """Unpickles in a process that has not imported fastrnn."""
    layer = OBJECTS["LSTM"]()
    layer.freeze()
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3)).astype(np.float32)
    (tmp_path / "layer").write_bytes(pickle.dumps((layer, x)))
    code = (
        "import pickle, sys; layer, x = pickle.load(sys.stdin.buffer); print(layer.frozen, layer(x)[0].tobytes().hex())"
    )
    with open(tmp_path / "layer", "rb") as file:
        run = subprocess.run(
            [sys.executable, "-c", code], stdin=file, capture_output=True, text=True, timeout=120, env=os.environ
        )
    assert run.stdout.split() == ["True", layer(x)[0].tobytes().hex()], run.stderr
