"""fastrnn.load_tensors: the tensors as PyTorch reads them, and errors for hostile and damaged files.

The files of `torch_files.py` are written without PyTorch, so that they are read where it is not installed; where it is,
files that it has written are compared, too.
"""

import collections
import io
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import fastrnn
import torch_files
from depth import DEPTH
from fastrnn import _torch_files, _unpickling, tensors
from torch_files import (
    Call,
    Name,
    New,
    Persistent,
    Raw,
    State,
    archive,
    contiguous,
    pickled,
    stacked,
    storage,
    tensor,
    view,
)

F = np.arange(12, dtype=np.float32).reshape(3, 4)
FORMATS = [archive, stacked]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.fixture
def load(path):
    """The tensors of a file with these bytes."""

    def read(data):
        path.write_bytes(data)
        return fastrnn.load_tensors(path)

    return read


@pytest.fixture
def refused(path, load):
    """Asserts that a file is refused, with a message that starts with its path."""

    def check(data, message=None):
        with pytest.raises(ValueError, match=message) as caught:
            load(data)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    return check


@pytest.fixture(params=FORMATS, ids=lambda write: write.__name__)
def write(request):
    """The writer of a format, and whether it is the one before PyTorch 1.6."""
    return request.param


def is_plain(array):
    """Whether the array is as the docstring says."""
    return (
        type(array) is np.ndarray
        and array.dtype.isnative
        and array.flags.c_contiguous
        and array.flags.writeable
        and array.flags.owndata
    )


def assert_tensors(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert is_plain(actual[name]), name
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


def little(array):
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


# Formats, without PyTorch


@pytest.mark.parametrize("name", torch_files.CLASSES)
@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_dtypes(load, write, name, module):
    array = np.array([[0, 1, 2], [3, 100, 0]]).astype(name)
    value = tensor("0", array, location="cuda:0", module=module, legacy=write is stacked)
    options = {"widths": {"0": array.itemsize}} if write is stacked else {}
    assert_tensors(load(write({"a": value}, {"0": little(array)}, **options)), {"a": array})


def v3(key, size, dtype, shape):
    stored = storage(key, size, "UntypedStorage", module="torch.storage")
    hooks = Call(Name("collections", "OrderedDict"), ())
    arguments = (stored, 0, shape, tuple(contiguous(shape)), False, hooks, Name("torch", dtype))
    return Call(Name("torch._utils", "_rebuild_tensor_v3"), arguments)


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64"])
def test_dtypes_without_a_class_of_storage(load, name):
    array = np.array([1, 2, 2**16 - 1], name)
    assert_tensors(load(archive({"a": v3("0", array.nbytes, name, (3,))}, {"0": little(array)})), {"a": array})


@pytest.mark.parametrize("name", sorted(torch_files.CLASSES))
def test_a_big_endian_archive(load, name):
    array = np.array([0, 1, 2, 3]).astype(name)
    data = array.astype(array.dtype.newbyteorder(">")).tobytes()
    assert_tensors(load(archive({"a": tensor("0", array)}, {"0": data}, byteorder="big")), {"a": array})


def test_an_archive_without_a_byte_order_is_little_endian(load, refused):
    assert_tensors(load(archive({"a": tensor("0", F)}, {"0": little(F)}, byteorder=None)), {"a": F})
    refused(archive({"a": tensor("0", F)}, {"0": little(F)}, byteorder="middle"), "byteorder: expected little or big")


def test_bfloat16_is_widened_exactly(load, write):
    bits = np.array([0, 0x8000, 0x3F80, 0x7F80, 0xFF80, 0x7FC1, 0xFF81, 1, 0x8001, 0x7F7F], np.uint16)
    stored = storage("0", bits.size, "BFloat16Storage", legacy=write is stacked)
    options = {"widths": {"0": 2}} if write is stacked else {}
    actual = load(write([view(stored, (2, 5), (5, 1))], {"0": little(bits)}, **options))["0"]
    assert actual.dtype == np.float32 and is_plain(actual)
    assert actual.view(np.uint32).ravel().tolist() == [int(bit) << 16 for bit in bits]


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((3, 4), (4, 1), 0),
        ((4, 3), (1, 4), 0),
        ((2, 2), (4, 2), 5),
        ((), (), 7),
        ((0,), (1,), 3),
        ((2, 0, 3), (9, 3, 1), 0),
        ((5, 3), (0, 1), 2),
        ((1, 3), (1000, 1), 9),
        ((2, 6), (0, 2), 1),
        ((12,), (1,), 0),
    ],
)
def test_views(load, write, shape, strides, offset):
    legacy = write is stacked
    value = {"v": view(storage("0", 12, legacy=legacy), shape, strides, offset), "all": tensor("0", F, legacy=legacy)}
    expected = np.zeros(shape, np.float32)
    for index in np.ndindex(shape):
        expected[index] = F.ravel()[offset + sum(i * stride for i, stride in zip(index, strides))]
    loaded = load(write(value, {"0": little(F)}))
    assert_tensors(loaded, {"v": expected, "all": F})
    assert not np.shares_memory(loaded["v"], loaded["all"])


def test_flags_of_complex_views(load):
    z = np.array([1 + 2j, -3j], np.complex64)
    value = [
        view(storage("0", 2, "ComplexFloatStorage"), (2,), (1,), 0, flags) for flags in ({"conj": True}, {"neg": True})
    ]
    assert_tensors(load(archive(value, {"0": little(z)})), {"0": z.conj(), "1": -z})


@pytest.mark.parametrize("flags", [{"neg": True}, {"conj": True}, {"else": True}, {"neg": 1}, [1]])
def test_flags_of_other_tensors(refused, flags):
    value = [view(storage("0", 12, "ByteStorage"), (2,), (1,), 0, flags)]
    refused(archive(value, {"0": bytes(12)}), "flags|expected")


def test_nested_containers_are_flattened_and_other_values_left_out(load, write):
    def a():
        return tensor("0", F, legacy=write is stacked)

    ordered = Call(Name("collections", "OrderedDict"), ())
    value = {
        "epoch": 3,
        "model": State(
            Raw(torch_files.opcodes(ordered) + torch_files.opcodes("w") + torch_files.opcodes(a()) + b"s"),
            {"_metadata": {}},
        ),
        "list": [a(), 1.5, (None, a())],
        7: {"x.y": a()},
        "args": New(Name("argparse", "Namespace"), {"lr": 0.1, "mean": a()}),
        "size": Call(Name("torch", "Size"), ((2, 3),)),
        "dtype": Name("torch", "float32"),
        "device": Call(Name("torch", "device"), ("cuda", 0)),
        "set": Call(Name("__builtin__", "set"), ([1, "a"],)),
        "best": Call(Name("numpy.core.multiarray", "scalar"), (Call(Name("numpy", "dtype"), ("f8", 0, 1)), b"\0" * 8)),
        "parameter": Call(Name("torch._utils", "_rebuild_parameter"), (a(), True, ordered)),
        "subclass": Call(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (a().function, Name("torch.nn.parameter", "Parameter"), a().arguments, {"tag": 1}),
        ),
        "pairs": Call(Name("collections", "OrderedDict"), ([["b", a()], ["c", 2]],)),
        "default": Call(Name("collections", "defaultdict"), (Name("__builtin__", "dict"),)),
        "big": 1 << 100,
        "text": "lstm",
        "bytes": Call(Name("_codecs", "encode"), ("\xff", "latin1")),
        "old": Call(Name("torch._utils", "_rebuild_tensor"), (a().arguments[0], 0, (12,), (1,))),
    }
    names = ["model.w", "list.0", "list.2.1", "7.x.y", "args.mean", "parameter", "subclass", "pairs.b"]
    loaded = load(write(value, {"0": little(F)}))
    assert_tensors(loaded, {**dict.fromkeys(names, F), "old": F.ravel()})


def test_a_single_tensor_has_the_name_of_the_file(load, write):
    assert_tensors(load(write(tensor("0", F, legacy=write is stacked), {"0": little(F)})), {"model": F})


def test_no_tensor(load, write):
    assert load(write({"epoch": 1})) == {}


def test_two_tensors_of_one_name(refused, write):
    a = tensor("0", F, legacy=write is stacked)
    refused(write({"a.b": a, "a": {"b": a}}, {"0": little(F)}), "'a.b': two tensors of this name")
    refused(write({1: a, "1": a}, {"0": little(F)}), "'1': two tensors of this name")


@pytest.mark.parametrize("key", [1.5, None, True, (1, 2), b"a"])
def test_tensors_under_other_keys(load, refused, key):
    refused(archive({key: tensor("0", F)}, {"0": little(F)}), "neither text nor an integer")
    assert load(archive({key: 1})) == {}


def test_arrays_of_numpy_in_a_pickle(load, refused):
    def array(code, order, shape, data, fortran=False):
        dtype = State(Call(Name("numpy", "dtype"), (code, False, True)), (3, order, None, None, None, -1, -1, 0))
        made = Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"))
        return State(made, (1, shape, dtype, fortran, data))

    value = [
        array("f4", ">", (3, 4), F.astype(">f4").tobytes()),
        array("f4", "<", (3, 4), F.tobytes("F"), True),
        array("b1", "|", (2,), b"\2\0"),
        array("f8", "<", (), Raw(b"U\x08" + struct.pack("<d", 2.5))),
        array("f8", "<", (0, 3), b""),
        array("U3", "<", (1,), b"\0" * 12),
        Call(
            Name("numpy._core.numeric", "_frombuffer"),
            (
                F.tobytes(),
                State(Call(Name("numpy", "dtype"), ("f4", False, True)), (3, "<", None, None, None, -1, -1, 0)),
                (12,),
                "C",
            ),
        ),
    ]
    empty = np.zeros((0, 3))
    expected = [F, F, np.array([True, False]), np.array(2.5), empty, None, F.ravel()]
    assert_tensors(load(archive(value)), {str(i): a for i, a in enumerate(expected) if a is not None})
    for code, data in (("O8", [New(Name("a", "B"), {"t": tensor("0", F)})]), ("M8", b"\0" * 8), ("m8", b"\0" * 8)):
        stored = {"0": little(F)}
        assert_tensors(load(archive([array(code, "|", (1,), data), tensor("0", F)], stored)), {"1": F})
        refused(archive(array(code, "|", (1,), data), stored), "no tensors; .*numpy.ndarray")
    refused(archive([array("V8", "|", (1,), b"\0" * 8)]), "0: .*V8")
    refused(archive([array("f4", "<", (3,), b"\0" * 8)]), "0: sizes .3,. of float32 with 8 bytes")
    refused(archive([array("f4", "<", (-1,), b"")]), "0: sizes")


def test_the_pickles_of_numpy(load):
    for protocol in (2, 3, 4, 5):
        value = {
            "a": F,
            "b": F[:, ::2],
            "c": np.float64(3),
            "d": np.asfortranarray(F).astype(">f8"),
            "e": np.array(True),
        }
        expected = {
            name: np.array(array, array.dtype.newbyteorder("="), order="C")
            for name, array in value.items()
            if name != "c"
        }
        assert_tensors(load(archive(pickle.dumps(value, protocol))), expected)


def test_parts_of_a_storage_in_old_files(load, refused):
    def part(offset, size):
        saved = ("storage", Name("torch", "FloatStorage"), "0", "cpu", 12, ("1", offset, size))
        return view(Persistent(saved), (2,), (1,), 1)

    assert_tensors(load(stacked([part(4, 3)], {"0": little(F)})), {"0": F.ravel()[5:7]})
    refused(stacked([part(4, 2)], {"0": little(F)}), "outside of the storage '0' of 2 elements")
    for offset, size in ((4, 9), (-1, 3), (3, -1), (2**70, 1)):
        refused(stacked([part(offset, size)], {"0": little(F)}), "a part of a storage")


def test_the_attributes_of_torchscript(load, refused):
    inner = New(
        Name("__torch__.torch.nn.modules.rnn.___torch_mangle_0", "LSTM"),
        {"weight_ih_l0": tensor("0", F), "training": True},
    )
    ints = Call(Name("torch.jit._pickle", "build_intlist"), ([1, 2],))
    value = New(Name("__torch__", "Net"), {"rnn": inner, "sizes": ints, "training": True})
    assert_tensors(load(archive(value, {"0": little(F)})), {"rnn.weight_ih_l0": F})
    packed = New(Name("__torch__.torch.classes.quantized", "LinearPackedParamsBase"), {"a": 1})
    refused(archive(packed), "__torch__.torch.classes.quantized.LinearPackedParamsBase. .*quantized; save the")
    refused(archive(Call(Name("torch", "ScriptObject"), (1,))), "torch.ScriptObject. .*quantized; save the")


# Refusals


@pytest.mark.parametrize(
    "function, message",
    [
        ("_rebuild_qtensor", "a.0: a quantized tensor"),
        ("_rebuild_sparse_tensor", "a.0: a sparse tensor"),
        ("_rebuild_nested_tensor", "a.0: a nested tensor"),
        ("_rebuild_meta_tensor_no_storage", "a.0: a tensor of the meta device"),
    ],
)
def test_other_kinds_of_tensors(refused, write, function, message):
    refused(write({"a": [Call(Name("torch._utils", function), (1, 2))]}), message)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "complex32", "float4_e2m1fn_x2", "bits8"])
def test_dtypes_that_numpy_does_not_have(refused, dtype):
    refused(archive({"a": v3("0", 4, dtype, (2,))}, {"0": bytes(4)}), f"a: a tensor of dtype {dtype}")


@pytest.mark.parametrize("cls", ["QInt8Storage", "QUInt4x2Storage"])
def test_quantized_storages(refused, cls, write):
    value = {"a": view(storage("0", 2, cls, legacy=write is stacked), (2,), (1,))}
    refused(
        write(value, {"0": bytes(2)}, **({"widths": {"0": 1}} if write is stacked else {})), "a: a tensor of dtype q"
    )


@pytest.mark.parametrize(
    "module, name", [("torch.nn.modules.rnn", "LSTM"), ("mymodel", "Net"), ("torch.storage", "_load_from_bytes")]
)
def test_other_classes_are_named_with_the_remedy(refused, write, module, name):
    value = New(Name(module, name), {"_parameters": {}, "_modules": {}})
    refused(write(value), rf"no tensors; .*: {module}\.{name}\. Of a whole model, save its state_dict\(\)")
    assert "state_dict" not in refused(
        write([New(Name(module, name), {"a": 1})]), rf"no tensors; .*: {module}\.{name}$"
    )
    refused(stacked(Persistent(("module", "Net", "net.py", "class Net: pass"))), "Of a whole model, .*state_dict")


OTHER_OBJECTS = {
    "path": Call(Name("pathlib", "PosixPath"), ("/", "data")),
    "date": Call(Name("datetime", "datetime"), (b"\7\xe8\1\1\0\0\0\0\0\0",)),
    "slice": Call(Name("builtins", "slice"), (1, 2, None)),
    "generator": Call(Name("torch", "Generator"), ()),
    "object": New(Name("other", "Config"), {"lr": 0.1, "hook": Name("other", "hook")}),
    "constructor": Call(Name("copyreg", "_reconstructor"), (Name("other", "C"), Name("builtins", "object"), None)),
    "method": Call(Call(Name("builtins", "getattr"), (Name("other", "C"), "make")), (1,)),
    "call of a result": Call(Call(Name("functools", "partial"), (Name("other", "f"),)), (1,)),
    "keywords": Raw(b"cother\nC\n)}\x92"),
    "state twice": State(State(Call(Name("other", "C"), ()), {"a": 1}), (None, {"b": 2})),
    "subclass of list": Raw(b"cother\nL\n)\x81N" + b"a(NNe"),
    "subclass of dict": Raw(b"cother\nD\n)\x81K\1Ns(](K\1eNu"),
    "subclass of set": Raw(b"cother\nS\n)\x81(](K\1e\x90"),
    "keys": {},
    "default": Call(Name("collections", "defaultdict"), (Name("other", "factory"), {"a": 1})),
    "quantized": Call(Name("torch", "ScriptObject"), (1,)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_OBJECTS)
def test_other_objects_are_left_out_with_everything_in_them(load, refused, write, name):
    def a():
        return tensor("0", F, legacy=write is stacked)

    other, stored = OTHER_OBJECTS[name], {"0": little(F)}
    value = {"before": a(), name: other, "in a list": [other, {"x": other, "t": a()}], "after": a()}
    assert_tensors(load(write(value, stored)), dict.fromkeys(["before", "in a list.1.t", "after"], F))


def test_what_belongs_to_other_objects_is_left_out(load, write):
    """As keys of dicts and members of sets, too; a tensor that is found elsewhere as well is read there."""

    def a():
        return torch_files.opcodes(tensor("0", F, legacy=write is stacked))

    path = torch_files.opcodes(OTHER_OBJECTS["path"])
    value = {
        "state": Raw(b"cother\nC\n" + a() + b"q\x10\x85R}X\1\0\0\0t" + a() + b"sb"),
        "items": Raw(b"cother\nL\n)\x81" + a() + b"a"),
        "again": Raw(b"h\x10"),
        "keys": Raw(b"}(" + path + a() + b"K\1" + a() + path + b"K\1\x86" + a() + a() + a() + b"u"),
        "set": Raw(b"\x8f(K\1" + path + b"\x90"),
        "frozen": Raw(b"(K\1" + path + b"\x91"),
        "called": Call(Name("builtins", "set"), ([1, OTHER_OBJECTS["path"]],)),
        "pairs": Call(Name("collections", "OrderedDict"), ([[OTHER_OBJECTS["path"], Raw(a())], ["c", Raw(a())]],)),
    }
    assert_tensors(load(write(value, {"0": little(F)})), dict.fromkeys(["again", "keys.1", "pairs.c"], F))


def test_tensors_of_other_classes_are_refused_under_their_names(refused, write):
    made = tensor("0", F, legacy=write is stacked)
    for function, cls in ((made.function, Name("other", "Tensor")), (Name("other", "f"), Name("torch", "Tensor"))):
        value = {"a": Call(Name("torch._tensor", "_rebuild_from_type_v2"), (function, cls, made.arguments, {}))}
        refused(write(value, {"0": little(F)}), "a: a tensor .*other")
    value = {"a": view(Call(Name("torch.storage", "_load_from_bytes"), (b"",)), (1,), (1,))}
    refused(write(value), "a: a tensor with a storage of torch.storage._load_from_bytes")
    refused(write({"a": Call(Name("torch._utils", "_rebuild_new"), (1,))}), "a: a tensor that .*_rebuild_new makes")
    value = {"a": Call(Name("torch._utils", "_rebuild_parameter"), (Call(Name("other", "T"), ()), True, {}))}
    refused(write(value), "a: a parameter of the class other.T")


def test_many_other_classes(refused, write):
    names = [Name("other", f"C{i}") for i in range(100)]
    assert refused(write(names)).endswith("other.C0, other.C1, other.C2, other.C3 and others")


def test_a_storage_alone(refused):
    refused(archive({"s": storage("0", 12)}, {"0": little(F)}), "s: a storage without a tensor")


def test_other_formats(refused, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused(file.getvalue(), "a tar archive, the format of PyTorch before 0.1.10")
    refused(b"\x89HDF\r\n\x1a\n", "an HDF5 file")
    refused(b"\x1f\x8b", "gzip")
    refused(b"", "the file is empty")
    refused(b"nonsense", "none of the formats")
    refused(b"\x08\x0a\x12\x07pytorch\x1a\x062.13.0", r"an ONNX model: fastrnn.from_onnx\(path\)")
    refused(pickle.dumps({"a": 1}, 2), "a pickle that torch.save has not written")
    refused(pickle.dumps(fastrnn.LSTM(2, 3)), "a pickle that torch.save has not written .*fastrnn")
    for name, message in (
        ("model.weights.h5", "Keras"),
        ("net/model.json", "TorchScript before"),
        ("net/archive_format", "torch.export.save"),
        ("a.txt", "without data.pkl"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr(name, "")
        refused(file.getvalue(), message)


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load_tensors(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not a file"):
        fastrnn.load_tensors(tmp_path)
    with pytest.raises(TypeError, match="^path: "):
        fastrnn.load_tensors(3)


# Hostile pickles


class Trap:
    """Called, it would write a file."""

    def __reduce__(self):
        import os

        return os.system, ("touch executed",)


HOSTILE = {
    "reduce": pickle.dumps(Trap(), 2),
    "stack_global": pickle.dumps(Trap(), 4),
    "eval": pickled(Call(Name("builtins", "eval"), ("open('executed', 'w')",))),
    "python 2": pickled(Call(Name("__builtin__", "eval"), ("open('executed', 'w')",))),
    "getattr": pickled(Call(Name("builtins", "getattr"), (1, "real"))),
    "getattr of a stand-in": pickled(Name("collections", "OrderedDict.fromkeys")),
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x13OrderedDict.__init__\x93.",
    "a name that is not text": b"\x80\x04K\x01K\x02\x93.",
    "inst": b"(X\x04\0\0\0trueios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x04\0\0\0trueo.",
    "ext1": b"\x82\x01.",
    "ext2": b"\x83\x01\0.",
    "ext4": b"\x84\x01\0\0\0.",
    "reconstructor": pickled(Call(Name("copy_reg", "_reconstructor"), (Name("torch", "Size"), None, None))),
    "newobj_ex of a placeholder": b"\x80\x04cos\nsystem\nX\x14\0\0\0touch executed......\x85}\x92.",
    "build of a placeholder": pickled(State(Name("os", "system"), ("touch executed",))),
    "a placeholder as persistent id": pickled(Persistent(Name("os", "system"))),
    "a storage of a placeholder": pickled(Persistent(("storage", Name("os", "system"), "0", "cpu", 1))),
    "newobj_ex": b"\x80\x04ctorch\nSize\n)}\x92.",
    "build of a dict": pickled(State({}, {"__class__": 1})),
    "build of a list": pickled(State([], {"__dict__": 1})),
    "build of a function": pickled(State(Name("torch", "Size"), {"call": 1})),
    "build of a type": pickled(State(Name("torch", "FloatStorage"), {"dtype": 1})),
    "build of a tensor": pickled(State(Call(Name("torch._utils", "_rebuild_sparse_tensor"), ()), {"reason": 1})),
    "attributes that are no dict": pickled(New(Name("argparse", "Namespace"), [1])),
    "newobj of a function": b"\x80\x02ctorch\nSize\n)\x81.",
    "newobj with arguments": b"\x80\x02cargparse\nNamespace\nK\x01\x85\x81.",
    "call of a text": pickled(Call("eval", ("1",))),
    "call of a list": pickled(Call([], ())),
    "call without a tuple": pickled(Call(Name("torch", "Size"), [1])),
    "call with too many": pickled(Call(Name("torch", "Size"), (1, 2, 3))),
    "nested persistent id": pickled(Persistent((Persistent(("storage", 1)), 2))),
    "persistent text": pickled(Persistent(("file", "/etc/passwd"))),
    "persistent number": pickled(Persistent(3)),
    "persid": b"Pabc\n.",
    "a storage of another class": pickled(Persistent(("storage", Name("torch", "float32"), "0", "cpu", 1))),
    "a storage of a path": pickled([view(storage("../../data.pkl", 1), (1,), (1,))]),
    "bytearray of a number": pickled(Call(Name("builtins", "bytearray"), (1 << 40,))),
    "bytes of a number": pickled(Call(Name("builtins", "bytes"), (1 << 40,))),
    "set of a number": pickled(Call(Name("builtins", "set"), (3,))),
    "encode by another codec": pickled(Call(Name("_codecs", "encode"), ("eA==", "base64"))),
    "rebuild of rebuild": pickled(Call(Name("torch._tensor", "_rebuild_from_type"), (
        Name("torch._tensor", "_rebuild_from_type"), Name("torch", "Tensor"),
        (Name("torch._utils", "_rebuild_tensor"), Name("torch", "Tensor"), (storage("0", 12), 0, (1,), (1,)), {}), {},
    ))),
    "rebuild by a list": pickled(Call(Name("torch._tensor", "_rebuild_from_type"),
        ([], Name("torch", "Tensor"), (), {}))),
    "rebuild by a deep tuple": pickled(Call(Name("torch._tensor", "_rebuild_from_type"),
        (Raw(b")" + b"\x85" * 100_000), Name("torch", "Tensor"), (), {}))),
    "a key of a deep tuple": b"})" + b"\x85" * 100_000 + b"Ns.",
    "a set of a deep tuple": b"\x8f()" + b"\x85" * 100_000 + b"\x90.",
    "a tensor of nothing": pickled(view(None, (1,), (1,))),
    "sizes that are no numbers": pickled(view(storage("0", 12), ("a",), (1,))),
    "huge text": b"X\xff\xff\xff\xffabc.",
    "huge text of 8": b"\x8d" + b"\xff" * 8 + b".",
    "huge bytes": b"\x8e" + b"\xff" * 7 + b"\x7f.",
    "huge bytearray": b"\x96" + b"\xff" * 7 + b"\x7f.",
    "huge integer": b"\x8b\xff\xff\xff\x7f.",
    "a negative length": b"\x8b\xff\xff\xff\xff.",
    "a negative length of text": b"T\xff\xff\xff\xff.",
    "a frame": b"\x80\x04\x95" + b"\xff" * 8,
    "memo": b"h\x05.",
    "a mark on the stack": b"(.",
    "a mark in the memo": b"(\x94.",
    "no mark": b"t.",
    "an empty stack": b".",
    "two values": b"NN.",
    "an odd dict": b"}(Nu.",
    "a key of a list": b"}]Ns.",
    "a key of nested tuples": b"})\x85\x85Ns.",
    "a key of a huge number": pickled({1 << 70: 1}),
    "append to a tuple": b")Na.",
    "items of a list": b"](NNu.",
    "text that is not UTF-8": b"X\x02\0\0\0\xff\xff.",
    "a name without an end": b"c" + b"a" * 5000,
    "no end": b"N",
    "unknown": b"\xfe.",
    "a dup": b"N2.",
    "a buffer": b"\x97.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(refused, write, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(write(HOSTILE[name], {"0": little(F)}))
    assert not (tmp_path / "executed").exists()


def test_headers_of_stacked_pickles_name_nothing(refused):
    good = stacked({"a": 1})
    refused(pickle.dumps(Trap(), 2) + good, "a pickle that torch.save has not written")
    refused(pickled(torch_files.MAGIC_NUMBER) + pickle.dumps(Trap(), 2), "where numbers and text belong")
    refused(pickled(torch_files.MAGIC_NUMBER) + pickled(1002), "expected 1001, got 1002")
    refused(stacked({"a": 1}, keys=[Name("torch", "Size")]), "where numbers and text belong")
    refused(stacked({"a": 1}, keys=Persistent(("0",))), "a persistent id where none belongs")


def peak_of(call):
    tracemalloc.start()
    try:
        try:
            call()
        except ValueError:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(levels, width):
    """Lists of lists of lists ..., each the same list `width` times: width**levels items in a small pickle."""
    code = b"]q\0"
    for level in range(1, levels):
        code += b"0](" + (b"h" + bytes([level - 1])) * width + b"eq" + bytes([level])
    return b"\x80\x02" + code + b"."


MEMORY_BOMBS = {
    "shared lists": (bomb(20, 20), "more than .* values"),
    "a list in itself": (b"]q\0h\0a.", "nested deeper"),
    "a deep list": (b"]" * 50_000 + b"a" * 49_999 + b".", "nested deeper"),
    "a deep tuple": (b")" + b"\x85" * 50_000 + b".", "nested deeper"),
    "a deep dict": (b"}" + b"K\1}" * 30_000 + b"s" * 30_000 + b".", "nested deeper"),
    "copied text": (
        b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\0](" + b"c_codecs\nencode\nh\0\x85R" * 1000 + b"e.",
        "copies its text",
    ),
    "copied names": (
        b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\0](" + b"h\0h\0\x93" * 1000 + b"e.",
        "copies its text",
    ),
    "a state of placeholders": (b"}" + b"cother\nC\n)Rh\0b" * 30_000 + b".", "memo"),
    "placeholders": (b"](" + b"cother\nC\n)R}b" * 40_000 + b"e.", "opcodes"),
    "copied names of placeholders": (
        b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\0](" + b"h\0h\0\x93)R" * 1000 + b"e.",
        "copies its text",
    ),
    "a key of many placeholders": (b"](" + b"cother\nC\n" * 100 + b"tq\0}h\0Ns0e.", "a tuple of 100"),
    "a key of many": (b"](" + b"K\1" * 100 + b"tq\0}h\0Ns0e.", "a tuple of 100"),
    "copied lists": (
        b"](" + b"K\1" * 20_000 + b"eq\0](" + b"c__builtin__\nset\nh\0\x85R" * 1000 + b"e.",
        "opcodes",
    ),
    "copied attributes": (
        b"}("
        + b"".join(b"M" + struct.pack("<H", i) + b"N" for i in range(60_000))
        + b"uq\0]("
        + b"cargparse\nNamespace\n)\x81h\0b" * 1000
        + b"e.",
        "opcodes",
    ),
}


@pytest.mark.parametrize("name", MEMORY_BOMBS)
def test_bombs_of_containers(path, refused, name, monkeypatch):
    """With limits at which a bomb takes some MB, and no second."""
    monkeypatch.setattr(tensors, "MOST_VALUES", 1 << 17)
    monkeypatch.setattr(_unpickling, "MOST_OPCODES", 1 << 17)
    data, message = MEMORY_BOMBS[name]
    refused(archive(data), message)
    assert peak_of(lambda: fastrnn.load_tensors(path)) < 20 << 20


def test_containers_as_deep_as_is_read(load, refused):
    for depth, read in ((64, True), (65, False)):
        data = archive(b"]" * depth + torch_files.opcodes(tensor("0", F)) + b"a" * depth + b".", {"0": little(F)})
        if read:
            assert_tensors(load(data), {".".join("0" * depth): F})
        else:
            refused(data, "nested deeper than 64")


def test_too_many_opcodes(refused, monkeypatch):
    monkeypatch.setattr(_unpickling, "MOST_OPCODES", 100)
    refused(archive([None] * 100), "more than 100 opcodes")


def test_many_copies_of_one_storage(path, refused):
    """One storage of 4 MB under 60,000 names would take 240 GB."""
    n, copies = 1 << 20, 60_000
    one = torch_files.opcodes(view(storage("0", n), (n,), (1,)))
    value = b"\x80\x02](" + one + b"q\0" + b"h\0" * copies + b"e."
    data = archive(value, {"0": bytes(4 * n)})
    refused(data, "at most .* are read of this file")
    assert peak_of(lambda: fastrnn.load_tensors(path)) < 9 * len(data) + (100 << 20)


def test_too_many_tensors(refused, monkeypatch):
    monkeypatch.setattr(tensors, "MOST_TENSORS", 2)
    refused(archive([tensor("0", F)] * 3, {"0": little(F)}), "more than 2 tensors")
    monkeypatch.setattr(tensors, "MOST_TENSORS", 3)
    monkeypatch.setattr(tensors, "MOST_CHARACTERS", 2)
    refused(archive([tensor("0", F)] * 3, {"0": little(F)}), "more than 3 tensors, or 2 characters")


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((3, 4), (5, 1), 0),
        ((2,), (12,), 0),
        ((1,), (1,), 12),
        ((), (), 12),
        ((2,), (-1,), 5),
        ((1,), (1,), -1),
        ((-1,), (1,), 0),
        ((-1, 0), (1, 1), 0),
        ((2, 2), (2**62, 1), 0),
        ((2,), (2**63 - 1,), 1),
        ((2,), (2**64,), 0),
        ((2**62,), (0,), 0),
        ((2**40, 2**40), (0, 0), 0),
        ((2**64, 0), (0, 0), 0),
        ((2**40, 2**40, 0), (0, 0, 0), 0),
        ((1,) * 33, (1,) * 33, 0),
        ((1, 2), (1,), 0),
        ((True,), (1,), 0),
        ((1.0,), (1,), 0),
        ((10**9,), (0,), 0),
        ((0,), (1,), -1),
        ((0,), (-1,), 0),
        ((1,), (1,), 1 << 20_000),
        ((2,) * 31, (0,) * 31, 0),
    ],
    ids=map(str, range(26)),
)
def test_views_outside_of_their_storage(refused, write, shape, strides, offset):
    value = [view(storage("0", 12, legacy=write is stacked), shape, strides, offset)]
    refused(write(value, {"0": little(F)}))


@given(st.data())
def test_random_views(tmp_path_factory, data):
    """What is accepted is what NumPy reads at the same places; the rest lies outside."""
    ndim = data.draw(st.integers(0, 3))
    shape, strides = (tuple(data.draw(st.integers(0, 5)) for _ in range(ndim)) for _ in range(2))
    offset = data.draw(st.integers(0, 13))
    places = [offset + sum(i * s for i, s in zip(index, strides)) for index in np.ndindex(shape)]
    path = tmp_path_factory.getbasetemp() / "views.pt"
    path.write_bytes(archive([view(storage("0", 12), shape, strides, offset)], {"0": little(F)}))
    if all(place < 12 for place in places):
        assert fastrnn.load_tensors(path)["0"].ravel().tolist() == [float(place) for place in places]
    else:
        with pytest.raises(ValueError, match="outside of the storage"):
            fastrnn.load_tensors(path)


@pytest.mark.parametrize("size", [11, 13, -1, 2**40, 2**62, 2**63, True, "12"])
def test_storages_of_other_sizes_than_the_file(path, refused, write, size):
    value = [view(storage("0", size, legacy=write is stacked), (2,), (1,))]
    refused(write(value, {"0": little(F)}))
    assert peak_of(lambda: fastrnn.load_tensors(path)) < 1 << 20


def test_storages_of_stacked_pickles(refused):
    a = tensor("0", F, legacy=True)
    good = stacked({"a": a}, {"0": little(F)})
    refused(good + b"\0", "1 bytes after the last storage")
    refused(good[:-1], "the file ends")
    refused(stacked({"a": a}, {"1": little(F)}), "the list of storages")
    refused(stacked({"a": a}, {"0": little(F)}, keys=["0", "0"]), "the list of storages")
    refused(stacked({"a": a}, {"0": little(F)}, keys=[0]), "the list of storages")
    refused(stacked([a, view(storage("0", 12, "IntStorage", legacy=True), (1,), (1,))], {"0": little(F)}), "two dtypes")
    huge = good[: -F.nbytes - 8] + struct.pack("<q", 2**60)
    refused(huge, "expected 12 elements")


# Hostile archives


def test_damaged_records(refused, load):
    good = archive({"a": tensor("0", F)}, {"0": little(F)})
    at = good.index(little(F))
    refused(good[:at] + b"\1" + good[at + 1 :], "a: the record 'archive/data/0' is damaged: its checksum differs")
    refused(
        archive({"a": tensor("0", F)}, {"0": little(F)}, compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted"
    )
    refused(archive({"a": tensor("0", F)}), "the record 'archive/data/0' is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, about the name
        refused(archive({"a": 1}, **{"archive/data.pkl": "x"}), "two records")
        refused(archive({"a": 1}, **{"archive/byteorder": "x"}), "two records of one name")
    refused(archive({"a": 1}, **{"other/data.pkl": "x"}), "two records data.pkl")


def test_a_checksum_of_zero_was_not_computed(load):
    """As with torch.serialization.set_crc32_options(False)."""
    import zlib

    good = archive({"a": tensor("0", F)}, {"0": little(F)})
    assert_tensors(load(good.replace(struct.pack("<I", zlib.crc32(little(F))), bytes(4))), {"a": F})


def test_a_bomb_in_a_record(path, refused):
    refused(archive({"a": 1}, **{"x": "y"}, compression=zipfile.ZIP_DEFLATED), "compressed")
    bytes_of_zeros = io.BytesIO()
    np.savez_compressed(bytes_of_zeros, a=np.zeros(30_000_000))
    refused(bytes_of_zeros.getvalue(), "a: the tensors up to this one have 240000000 bytes")
    assert peak_of(lambda: fastrnn.load_tensors(path)) < 20 << 20


def test_too_many_records(refused, monkeypatch):
    monkeypatch.setattr(tensors, "MOST_RECORDS", 3)
    refused(archive({"a": 1}, {"0": b"", "1": b""}), "more than 3 records")


def test_a_huge_pickle(refused, monkeypatch):
    monkeypatch.setattr(_torch_files, "MOST_PICKLE_BYTES", 40)
    refused(archive({"a": "x" * 100}), "at most 40 are read")


def sample(write):
    """A small file with all kinds of records, and its tensors."""
    legacy = write is stacked
    half = np.arange(6, dtype=np.float16)
    value = {
        "model": {"w": tensor("0", F, legacy=legacy), "h": tensor("1", half, legacy=legacy)},
        "epoch": 5,
        "more": [view(storage("0", 12, legacy=legacy), (4, 3), (1, 4)), 1.5, "text"],
    }
    options = {"widths": {"1": 2}} if legacy else {}
    data = write(value, {"0": little(F), "1": little(half)}, **options)
    return data, {"model.w": F, "model.h": half, "more.0": np.ascontiguousarray(F.T)}


def attempt(path, data):
    """The tensors, or None if the file is refused; any other error fails."""
    path.write_bytes(data)
    try:
        return fastrnn.load_tensors(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return None


def test_truncated_at_every_byte(path, write):
    data, _ = sample(write)
    for end in range(len(data)):
        assert attempt(path, data[:end]) is None, end


def test_flipped_bytes(path, write):
    data, expected = sample(write)
    rng = random.Random(0)
    tracemalloc.start()
    try:
        for _ in range(400 * DEPTH):
            damaged = bytearray(data)
            for _ in range(rng.choice([1, 1, 2, 4])):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
            loaded = attempt(path, bytes(damaged))
            for name, array in (loaded or {}).items():
                assert is_plain(array), name
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert_tensors(attempt(path, data), expected)


@pytest.mark.parametrize("seed", range(3))
def test_random_opcodes(path, seed):
    rng = random.Random(seed)
    parts = [bytes([code]) for code in _unpickling.OPCODES] + [
        b"K\1",
        b"X\1\0\0\0a",
        b"ctorch\nSize\n",
        b"ccollections\nOrderedDict\n",
        b"cargparse\nNamespace\n",
        b"}",
        b"]",
        b"(",
        b")",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cother\nC\n",
        b"cother\nf\n)R",
        b"ctorch\nFloatStorage\n",
        b"h\0",
        b"q\0",
        b"cnumpy\ndtype\n",
        b"\x85",
        b"R",
        b"b",
        b"\x81",
    ]
    for _ in range(400 * DEPTH):
        attempt(path, archive(b"".join(rng.choices(parts, k=rng.randrange(1, 30))) + b"."))


FUNCTIONS = [name.rpartition(".")[::2] for name, found in _torch_files.NAMES.items() if hasattr(found, "call")]


@pytest.mark.parametrize("module, name", FUNCTIONS)
def test_any_arguments(path, module, name):
    """Of each function that a pickle may call."""
    rng = random.Random(name)
    stored = storage("0", 12)
    dtype = State(Call(Name("numpy", "dtype"), ("f4", False, True)), (3, "<", None, None, None, -1, -1, 0))
    values = [
        None,
        True,
        0,
        1,
        -1,
        12,
        1 << 62,
        1 << 80,
        1.5,
        float("nan"),
        "",
        "cpu",
        "latin1",
        b"",
        bytes(48),
        (),
        (1,),
        (3, 4),
        (4, 1),
        (1 << 40, 1 << 40),
        [],
        [1],
        [[1, 2]],
        [([], 1)],
        [((1,), 1)],
        {},
        {"conj": True},
        {1: 2},
        Name("torch", "float32"),
        stored,
        Name("torch", "Tensor"),
        Name("torch", "Size"),
        Name("torch._utils", "_rebuild_tensor"),
        Raw(b"\x8f"),
        dtype,
        view(stored, (3,), (1,)),
        (stored, 0, (2,), (1,)),
        Name("torch", "FloatStorage"),
        Name("numpy", "ndarray"),
        New(Name("argparse", "Namespace"), {"a": 1}),
        Call(Name("collections", "OrderedDict"), ()),
    ]
    for _ in range(60 * DEPTH):
        call = Call(Name(module, name), tuple(rng.choices(values, k=rng.randrange(9))))
        if rng.random() < 0.3:
            call = State(call, rng.choice([{}, 1, tuple(rng.choices(values, k=rng.choice([5, 5, 8])))]))
        for array in (attempt(path, archive([call], {"0": little(F)})) or {}).values():
            assert is_plain(array)


# NumPy's formats


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(path, save):
    arrays = {
        "f": F,
        "t": np.asfortranarray(F),
        "big": F.astype(">f8"),
        "scalar": np.array(3),
        "b": np.array([True, False]),
        "half": F.astype(np.float16),
        "z": F + 1j,
        "empty": np.zeros((0, 3)),
        "a/b": F[::2],
        "u": np.arange(3, dtype=np.uint64),
    }
    with open(path, "wb") as file:
        save(file, **arrays, text=np.array(["a"]))
    expected = {name: np.array(a, a.dtype.newbyteorder("="), order="C") for name, a in arrays.items()}
    assert_tensors(fastrnn.load_tensors(path), expected)


def test_npy(path, tmp_path):
    for array in (F, np.asfortranarray(F), np.array(2.5), F.astype(">i2")):
        with open(path, "wb") as file:
            np.save(file, array)
        expected = np.array(array, array.dtype.newbyteorder("="), order="C")
        assert_tensors(fastrnn.load_tensors(path), {"model": expected})


def test_npz_refusals(path, refused):
    def npz(**records):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in records.items():
                zipped.writestr(f"{name}.npy", data)
        return file.getvalue()

    def npy(array, pickles=False):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=pickles)
        return file.getvalue()

    refused(npz(a=npy(np.array([None]), True)), "a: .*'O'")
    refused(npz(a=npy(np.zeros(2, [("x", "f4")]))), "a: .*not an array of plain numbers")
    refused(npz(a=npy(np.zeros(2, "M8[s]"))), "a: ")
    refused(npz(a=npy(F)[:-1]), "a: sizes .3, 4. of float32 with 47 bytes")
    refused(npz(a=npy(F).replace(b"(3, 4)", b"(9, 9)")), "a: sizes .9, 9.")
    refused(npz(a=npy(F).replace(b"<f4", b"<f9")), "a: ")
    refused(npz(a=b"abc"), "a: damaged")
    refused(npy(np.array([None]), True), "model: .*'O'")
    good = npz(a=npy(F))
    for end in range(len(good)):
        assert attempt(path, good[:end]) is None
    rng = random.Random(1)
    for _ in range(400 * DEPTH):
        damaged = bytearray(good)
        damaged[rng.randrange(len(good))] = rng.randrange(256)
        attempt(path, bytes(damaged))


# safetensors


def test_safetensors(load, refused):
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {name: np.array([[0, 1, 2]]).astype(name) for name in [*torch_files.CLASSES, "uint16", "uint32", "uint64"]}
    del arrays["complex128"]
    arrays["scalar"], arrays["empty"] = np.array(1.5), np.zeros((0, 3), np.float32)
    del arrays["complex64"]
    loaded = load(safetensors.save(arrays))
    assert_tensors({name: loaded[name] for name in arrays}, arrays)
    assert set(loaded) == set(arrays)


def raw_safetensors(header, data):
    header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def test_safetensors_of_other_dtypes(load, refused):
    pytest.importorskip("safetensors")
    bits = np.array([0x3F80, 0x7FC1], np.uint16)
    loaded = load(raw_safetensors('{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', little(bits)))
    assert loaded["a"].view(np.uint32).tolist() == [0x3F800000, 0x7FC10000] and is_plain(loaded["a"])
    refused(
        raw_safetensors('{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', b"\0\0"),
        "a: a tensor of dtype F8_E4M3",
    )


def test_damaged_safetensors(path, refused):
    pytest.importorskip("safetensors")
    entry = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    good = raw_safetensors(f"{{{entry}}}", bytes(8))
    assert attempt(path, good)["a"].tolist() == [0, 0]
    empty = '"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    refused(raw_safetensors(f"{{{empty},{empty}}}", b""), "damaged")
    refused(raw_safetensors(f"{{{entry}}}", bytes(7)), "damaged, or not a safetensors file")
    refused(struct.pack("<Q", 1 << 24) + b"{" + bytes(1 << 24), "at most .* are read")
    for end in range(len(good)):
        assert attempt(path, good[:end]) is None
    for at in range(len(good) - 8):
        for byte in (0, 0x22, 0x39, 0x5B, 0xFF):
            attempt(path, good[:at] + bytes([byte]) + good[at + 1 :])


def test_without_safetensors(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path.write_bytes(raw_safetensors("{}", b""))
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[safetensors\]'"):
        fastrnn.load_tensors(path)


def test_nothing_else_is_imported(path):
    path.write_bytes(sample(archive)[0])
    code = (
        "import sys, fastrnn; before = set(sys.modules); fastrnn.load_tensors(sys.argv[1]); "
        "sys.exit(bool({'torch', 'pickle', 'safetensors'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0


# Files of PyTorch


def numpy_of(tensor):
    import torch

    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor.resolve_conj().resolve_neg()).numpy()


def flat(value, *keys):
    """The tensors of a loaded object by the names that load_tensors gives them."""
    import torch

    if isinstance(value, torch.Tensor):
        return {".".join(map(str, keys)): np.ascontiguousarray(numpy_of(value)).reshape(value.shape)}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {name: array for key, item in items for name, array in flat(item, *keys, key).items()}


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def torch_save(request, path):
    torch = pytest.importorskip("torch")

    def save(value, **options):
        torch.save(value, path, _use_new_zipfile_serialization=request.param, **options)

    return save


def assert_as_torch(path, value):
    loaded = fastrnn.load_tensors(path)
    expected = flat(value)
    assert list(loaded) == list(expected)
    assert_tensors(loaded, expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_checkpoint_of_torch(path, torch_save, protocol):
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.LSTM(3, 4, 2, bidirectional=True), torch.nn.Linear(8, 2), torch.nn.BatchNorm1d(2)
    )
    optimizer = torch.optim.Adam(model.parameters())
    model[1](model[0](torch.randn(2, 3, 3))[0]).sum().backward()
    optimizer.step()
    value = {
        "epoch": 3,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": np.float64(0.5),
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "parameters": list(model.parameters()),
        "rng": torch.get_rng_state(),
        "counter": collections.Counter("aab"),
        "set": {1, 2},
        "bytes": b"\0\xff",
        "complex": 1j,
        "none": None,
        "frozen": frozenset([1]),
        "array": bytearray(b"a"),
    }
    torch_save(value, pickle_protocol=protocol)
    assert_as_torch(path, value)


def test_tensors_of_torch(path, torch_save):
    import torch

    base = torch.arange(24, dtype=torch.float32)
    z = torch.tensor([1 + 2j, 3 - 1j])
    value = {
        "t": base.reshape(4, 6).t(),
        "offset": base[5:11],
        "step": base[::3],
        "zero": torch.tensor(2.5),
        "empty": torch.zeros(2, 0, 3),
        "expanded": base[:3].expand(4, 3),
        "conj": z.conj(),
        "imag": z.conj().imag,
        "real": z.real,
        "base": base,
        "diagonal": base.reshape(4, 6).diagonal(),
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
    }
    for name in ("imag", "real"):  # which share a storage in another dtype, as torch.save refuses
        value[name] = value[name].clone()
    for dtype in (
        "float64",
        "float16",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    ):
        value[dtype] = (base - 3).to(getattr(torch, dtype))
    for dtype in ("uint16", "uint32", "uint64"):
        value[dtype] = base.to(getattr(torch, dtype))
    tagged = torch.nn.Parameter(base.clone())
    tagged.tag = "x"
    value["tagged"] = tagged
    torch_save(value)
    assert_as_torch(path, value)
    torch_save(base)
    assert_tensors(fastrnn.load_tensors(path), {"model": base.numpy()})
    torch_save([base, (base,)])
    assert_as_torch(path, [base, (base,)])


def test_every_bfloat16_of_torch(path, torch_save):
    import torch

    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    torch_save([bits.view(torch.bfloat16)])
    loaded = fastrnn.load_tensors(path)["0"]
    assert loaded.view(np.uint32).tolist() == (bits.numpy().view(np.uint16).astype(np.uint32) << 16).tolist()


def test_refusals_of_torch(path, torch_save):
    import torch

    def refused(value, message):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_save(value)
        with pytest.raises(ValueError, match=message):
            fastrnn.load_tensors(path)

    a = torch.ones(3, 4)
    refused({"a": a.to_sparse()}, "a: a sparse tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused({"a": a.to_sparse_csr()}, "a: a sparse tensor")
        refused({"a": torch.quantize_per_tensor(a, 0.1, 0, torch.qint8)}, "a: a quantized tensor")
    refused({"a": a.to("meta")}, "a: a tensor of the meta device")
    refused({"a": a.to(torch.float8_e4m3fn)}, "a: a tensor of dtype float8_e4m3fn")
    refused(torch.nn.LSTM(2, 3), "no tensors; .*torch.nn.modules.rnn.LSTM.*state_dict")
    refused({"model": torch.nn.Linear(2, 3)}, "no tensors; .*torch.nn.modules.linear.Linear.*state_dict")
    refused({"path": Path("a")}, r"no tensors; .*: pathlib\S*Path$")


def test_a_checkpoint_with_other_objects_of_torch(path, torch_save):
    import datetime

    import torch

    module = torch.nn.LSTM(2, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 1, 2))[0].sum().backward()
    optimizer.step()
    others = {
        "path": Path("data"),
        "date": datetime.datetime(2024, 1, 1),
        "slice": slice(1, 2),
        "generator": torch.Generator(),
        "optimizer": optimizer,
        "by parameter": optimizer.state,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3),
        "loss": torch.nn.MSELoss(),
        "objects": np.array([None, "a"], object),
        "dates": np.array(["2024-01-01"], "M8[D]"),
        "rng": np.random.default_rng(0),
        "keys": {Path("a"): 1, torch.float32: 2},
        "members": {Path("a")},
        "deque": collections.deque([1]),
        "error": ValueError("a"),
    }
    for protocol in (2, 5):
        torch_save({**others, "model": module.state_dict()}, pickle_protocol=protocol)
        state_dict = {f"model.{name}": w.numpy() for name, w in module.state_dict().items()}
        assert_tensors(fastrnn.load_tensors(path), state_dict)


def test_damaged_files_of_torch(path, torch_save):
    import torch

    torch.manual_seed(0)
    torch_save({"model": torch.nn.LSTM(2, 2).state_dict(), "epoch": 1})
    data = path.read_bytes()
    for end in range(0, len(data), 1 + len(data) // 500):
        assert attempt(path, data[:end]) is None
    rng = random.Random(2)
    for _ in range(400 * DEPTH):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        attempt(path, bytes(damaged))


def test_checksums_that_torch_has_not_computed(path):
    torch = pytest.importorskip("torch")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_tensors(fastrnn.load_tensors(path), {"a": np.arange(3)})


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_torchscript_of_torch(path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GRU(3, 4))
    scripted = torch.jit.script(model.eval())
    torch.jit.save(scripted, str(path))
    loaded = fastrnn.load_tensors(path)
    for name, value in model.state_dict().items():
        assert loaded[name].tobytes() == value.numpy().tobytes()
    torch.jit.save(torch.jit.freeze(scripted), str(path))
    with pytest.raises(ValueError, match="constants without names"):
        fastrnn.load_tensors(path)


def test_the_state_dict_of_torch_in_a_layer(path, torch_save):
    import torch

    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 4)
    torch_save({"epoch": 1, "model": module.state_dict()})
    layer = fastrnn.from_state_dict(fastrnn.load_tensors(Path(path)))
    assert repr(layer) == "LSTM(3, 4)"
    assert layer.params["weight_ih_l0"].tobytes() == module.weight_ih_l0.detach().numpy().tobytes()
