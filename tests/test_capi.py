"""The C interface from other packages: Cython without the GIL, cffi, ctypes and Numba; and the bits of its streams."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _config, capi

HERE = Path(__file__).parent
CC = os.environ.get("CC", "cc").split()

LAYERS = [
    lambda **dtype: fastrnn.LSTM(3, 40, num_layers=2, rng=0, **dtype),
    lambda **dtype: fastrnn.LSTM(1, 17, bias=False, rng=0, **dtype),
    lambda **dtype: fastrnn.LSTM(3, 21, num_layers=3, proj_size=5, peephole=True, rng=0, **dtype),
    lambda **dtype: fastrnn.LSTM(5, 8, recurrent_activation="hard_sigmoid_sixth", activation="relu", rng=0, **dtype),
    lambda **dtype: fastrnn.LSTM(5, 8, clip=0.1, rng=0, **dtype),
    lambda **dtype: fastrnn.GRU(3, 33, num_layers=2, rng=0, **dtype),
    lambda **dtype: fastrnn.GRU(2, 9, reset_after=False, clip=0.5, rng=0, **dtype),
    lambda **dtype: fastrnn.GRU(2, 50, reset_after=False, recurrent_activation="hard_sigmoid_fifth", rng=0, **dtype),
    lambda **dtype: fastrnn.RNN(3, 130, rng=0, **dtype),
    lambda **dtype: fastrnn.RNN(3, 7, nonlinearity="relu", num_layers=2, rng=0, **dtype),
    lambda **dtype: fastrnn.RNN(3, 7, nonlinearity="sigmoid", clip=0.3, rng=0, **dtype),
    lambda **dtype: fastrnn.SLSTM(3, 24, num_heads=3, num_layers=2, rng=0, **dtype),
    lambda **dtype: fastrnn.SLSTM(3, 100, num_heads=5, rng=0, **dtype),
    lambda **dtype: fastrnn.UGRNN(3, 37, num_layers=2, rng=0, **dtype),
    lambda **dtype: fastrnn.UGRNN(2, 9, recurrent_activation="hard_sigmoid_fifth", clip=0.5, rng=0, **dtype),
]


def inputs(layer, T=30):
    return np.random.default_rng(0).standard_normal((T, layer.input_size)).astype(layer.dtype)


POINTER = ctypes.c_void_p
step = ctypes.CFUNCTYPE(None, POINTER, POINTER, POINTER, POINTER)(capi.function("stream_step"))
steps = ctypes.CFUNCTYPE(None, POINTER, POINTER, ctypes.c_ssize_t, POINTER, POINTER)(capi.function("stream_steps"))
get_state = ctypes.CFUNCTYPE(None, POINTER, POINTER, ctypes.c_int, ctypes.c_int, POINTER)(
    capi.function("stream_get_state")
)
set_state = ctypes.CFUNCTYPE(None, POINTER, POINTER, ctypes.c_int, ctypes.c_int, POINTER)(
    capi.function("stream_set_state")
)
reset = ctypes.CFUNCTYPE(None, POINTER, POINTER)(capi.function("stream_reset"))


def stepped(packed, state, x):
    y = np.full((len(x), packed.outputs), np.nan, packed.dtype)
    for x_t, y_t in zip(x, y):
        step(packed.address, state.ctypes.data, x_t.ctypes.data, y_t.ctypes.data)
    return y


def states(packed, layer, state):
    """The state as layer.stream().state gives it."""
    arrays = [np.empty_like(s) for s in as_tuple(layer.stream().state)]
    for n, array in enumerate(arrays):
        for k, row in enumerate(array):
            get_state(packed.address, state.ctypes.data, k, n, row.ctypes.data)
    return arrays


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make()))
def test_a_stream_has_the_bits_of_the_layers_own(make, dtype, isa):
    layer = make(dtype=dtype)
    packed, own, x = capi.PackedStream(layer), layer.stream(), inputs(layer)
    assert (packed.inputs, packed.outputs, packed.dtype) == (layer.input_size, layer(x)[0].shape[-1], layer.dtype)
    expected = np.stack([own.step(x_t) for x_t in x])
    state = packed.new_state()
    assert stepped(packed, state, x).tobytes() == expected.tobytes()
    assert [s.tobytes() for s in states(packed, layer, state)] == [s.tobytes() for s in as_tuple(own.state)]

    reset(packed.address, state.ctypes.data)
    y = np.empty_like(expected)
    steps(packed.address, state.ctypes.data, 20, x.ctypes.data, y.ctypes.data)
    moved = np.concatenate([state, np.zeros(8, np.uint8)])[:-8]  # a state may be moved between two steps
    steps(packed.address, moved.ctypes.data, 10, x[20:].ctypes.data, y[20:].ctypes.data)
    assert y.tobytes() == expected.tobytes()


def test_states_are_exchanged_with_those_of_a_layer():
    layer = fastrnn.LSTM(3, 21, num_layers=2, proj_size=5, rng=0)
    packed, x = capi.PackedStream(layer), inputs(layer)
    _, (h, c) = layer(x[:12])
    state = packed.new_state()
    for n, arrays in enumerate((h, c)):
        for k, row in enumerate(arrays):
            set_state(packed.address, state.ctypes.data, k, n, np.ascontiguousarray(row).ctypes.data)
    assert stepped(packed, state, x[12:]).tobytes() == layer(x)[0][12:].tobytes()


def test_the_weights_are_a_copy_and_the_output_may_be_the_input():
    layer = fastrnn.GRU(6, 6, rng=0)
    packed, x, expected = capi.PackedStream(layer), inputs(layer), layer(inputs(layer))[0]
    layer.params.flat[:] = 0
    state = packed.new_state()
    steps(packed.address, state.ctypes.data, len(x), x.ctypes.data, x.ctypes.data)
    assert x.tobytes() == expected.tobytes()


def test_what_is_no_stream_is_refused():
    for layer, kind in (
        (fastrnn.LSTM(2, 3, bidirectional=True), "bidirectional"),
        (fastrnn.GRU(2, 3, reverse=True), "reverse"),
    ):
        with pytest.raises(ValueError, match=f"^layer: a {kind} layer"):
            capi.PackedStream(layer)
    with pytest.raises(TypeError, match="^layer: C has no streams of quantized layers"):
        capi.PackedStream(fastrnn.LSTM(1, 2, rng=0).quantize("int8"))
    with pytest.raises(TypeError, match="^layer: expected a layer of fastrnn, got LSTMCell$"):
        capi.PackedStream(fastrnn.LSTMCell(2, 3))
    with pytest.raises(ValueError, match="^isa: expected 'generic'.*, got 'mmx'$"):
        capi.PackedStream(fastrnn.GRU(1, 4), isa="mmx")
    with pytest.raises(TypeError, match="^isa: expected 'generic'.*, got 3$"):
        capi.PackedStream(fastrnn.GRU(1, 4), isa=3)
    with pytest.raises(ValueError, match="^name: expected one of isa_at, .*, got 'stream'$"):
        capi.function("stream")
    packed = capi.PackedStream(fastrnn.RNN(2, 3))
    with pytest.raises(TypeError, match="constant"):
        packed.__init__(fastrnn.RNN(2, 3))
    empty = capi.PackedStream.__new__(capi.PackedStream)
    for use in (
        lambda: empty.address,
        lambda: empty.nbytes,
        lambda: empty.state_bytes,
        empty.new_state,
        empty.contents,
    ):
        with pytest.raises(TypeError, match="constructor has not been called"):
            use()
    with pytest.raises(TypeError, match="cannot be copied"):
        packed.__reduce__()


def test_the_versions_agree():
    header = (Path(capi.get_include()) / "fastrnn.h").read_text()
    assert f'#define FASTRNN_VERSION "{fastrnn.__version__}"' in header
    table = capi._Table.from_address(capi.address())
    assert f"#define FASTRNN_ABI {table.abi}\n" in header
    assert f"#define FASTRNN_API_VERSION {table.version}\n" in (Path(capi.get_include()) / "fastrnn_api.h").read_text()
    assert all(capi.function(name) for name in capi._FUNCTIONS)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The extension module of tests/client, compiled against the headers of the package."""
    if shutil.which(CC[0]) is None:
        pytest.skip("needs a C compiler")
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("client")
    for file in (HERE / "client").iterdir():
        shutil.copy(file, folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(fastrnn.__file__).parents[1]), *sys.path])}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, env=environment, check=True
    )
    sys.path.insert(0, str(folder))
    try:
        import fastrnn_client
    finally:
        sys.path.remove(str(folder))
    return fastrnn_client


def test_cython_without_the_gil(client):
    assert client.versions()[:2] == client.versions()[2:]
    layer = fastrnn.LSTM(1, 40, rng=0)
    x = inputs(layer, 500)
    y = np.empty((500, 40), np.float32)
    h = client.run(capi.PackedStream(layer), x, y)
    expected, (h_n, _) = layer(x)
    assert y.tobytes() == expected.tobytes() and np.asarray(h).tobytes() == h_n.tobytes()


def test_cython_packs_weights_and_calls_forward(client):
    layer = fastrnn.RNN(3, 10, bias=False, rng=0)
    x, output = inputs(layer), np.empty((30, 10), np.float32)
    client.forward(layer.params["weight_ih_l0"].copy(), layer.params["weight_hh_l0"].copy(), x, output)
    with _config.using(_config.runnable()[-1]):  # the best one, which the client takes
        assert output.tobytes() == layer(x)[0].tobytes()


def declarations(*names):
    """The headers as cffi reads them: without the preprocessor, comments and inline functions."""
    text = "".join((Path(capi.get_include()) / name).read_text() for name in names)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"#if defined\(Py_PYTHON_H\).*?#endif", "", text, flags=re.DOTALL)
    text = re.sub(r"^#(.*\\\n)*.*", "", text, flags=re.MULTILINE)
    text = re.sub(r'^extern "C" {|^}$|^FASTRNN_PUBLIC_\w+|__(attribute|declspec)\S*', "", text, flags=re.MULTILINE)
    return text


@pytest.fixture
def ffi():
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(declarations("fastrnn.h", "fastrnn_stream.h", "fastrnn_api.h"))
    return ffi


def test_cffi(ffi):
    api = ffi.cast("fastrnn_api *", capi.address())
    layer = fastrnn.GRU(3, 20, num_layers=2, rng=0)
    x, packed = inputs(layer), capi.PackedStream(layer)
    stream = ffi.cast("fastrnn_stream *", packed.address)
    state = ffi.new("char[]", api.stream_state_bytes(stream))
    y = np.empty((len(x), api.stream_outputs(stream)), np.float32)
    api.stream_steps(stream, state, len(x), ffi.from_buffer(x), ffi.from_buffer(y))
    assert y.tobytes() == layer(x)[0].tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        [], [{"cell": -1}], [{"cell": 16}], [{"H": 0}], [{"I": -1}], [{"H": 1 << 40, "P": 1 << 40}], [{"P": 5}],
        [{"heads": 4}], [{"peephole": True}], [{"heads": 2, "weight_hr": True, "P": 4}], [{}, {"I": 3}],
        [{"format": 1}],
    ],
    ids=str,
)  # fmt: skip
def test_weights_that_fit_no_stream_are_refused(ffi, wrong):
    api = ffi.cast("fastrnn_api *", capi.address())
    numbers = ffi.new("float[]", 1000)
    good = {"cell": api.find_cell(b"gru"), "I": 6, "H": 6, "P": 6, "weight_ih": numbers, "weight_hh": numbers}

    def pack(changes):
        layers = ffi.new("fastrnn_weights[]", len(changes) or 1)
        for layer, change in zip(layers, changes):
            for field, value in (good | change).items():
                setattr(layer, field, numbers if value is True else value)
        stream = ffi.new("fastrnn_stream **")
        return api.stream_pack(ffi.NULL, ffi.cast("fastrnn_dtype", 0), layers, len(changes), stream), stream[0]

    status, stream = pack([{}] * max(1, len(wrong)))
    assert status == 0
    api.stream_free(stream)
    assert pack(wrong) == (3, ffi.NULL)  # FASTRNN_INVALID


def test_numba():
    numba = pytest.importorskip("numba")

    @numba.njit
    def run(stream, state, x, y):
        for t in range(x.shape[0]):
            step(stream, state.ctypes, x[t:].ctypes, y[t:].ctypes)

    layer = fastrnn.LSTM(3, 20, rng=0)
    x, packed = inputs(layer), capi.PackedStream(layer)
    y = np.empty((len(x), packed.outputs), packed.dtype)
    run(packed.address, packed.new_state(), x, y)
    assert y.tobytes() == layer(x)[0].tobytes()
