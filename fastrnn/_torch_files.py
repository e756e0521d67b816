"""Files that torch.save and torch.jit.save have written, read without PyTorch.

Both formats hold one pickle, in which a tensor is a call: of a storage (a persistent id), an offset, sizes and strides,
all counted in elements.

- Since PyTorch 1.6: a zip archive with the pickle as `NAME/data.pkl`, the bytes of each storage as `NAME/data/KEY`,
  and their byte order as `NAME/byteorder`. The records are not compressed.
- Before: five pickles in a row, which are a magic number, the version of the protocol, a description of the system,
  the object and the list of keys; then each storage as its number of elements and their bytes, little-endian.

The formats are those of `torch/serialization.py` of PyTorch 2.13. In an archive of TorchScript the pickle holds the
modules as objects of the namespace `__torch__`; their attributes are read. Objects of all other classes are left out.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import numpy as np

from fastrnn._engine.formats import widened
from fastrnn._leaves import Leaf, NumpyArray, NumpyDtype, Refused, check_sizes, integers, own
from fastrnn._unpickling import (
    Function,
    LeftOut,
    NewClass,
    Opaque,
    OrderedDict,
    Placeholder,
    checked_keys,
    read_pickle,
)
from fastrnn._validation import short

__all__ = ["Archive", "from_archive", "from_stacked_pickles"]

# Before 1.6 a file begins with the pickle of this number, at protocol 2.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

MOST_RECORDS = 1 << 17
MOST_PICKLE_BYTES = 1 << 26

# The storages of each class by their names; a dtype of None has no counterpart in NumPy.
STORAGES: dict[str, tuple[str, str | None]] = {
    "DoubleStorage": ("float64", "f8"),
    "FloatStorage": ("float32", "f4"),
    "HalfStorage": ("float16", "f2"),
    "BFloat16Storage": ("bfloat16", "bfloat16"),
    "LongStorage": ("int64", "i8"),
    "IntStorage": ("int32", "i4"),
    "ShortStorage": ("int16", "i2"),
    "CharStorage": ("int8", "i1"),
    "ByteStorage": ("uint8", "u1"),
    "BoolStorage": ("bool", "b1"),
    "ComplexFloatStorage": ("complex64", "c8"),
    "ComplexDoubleStorage": ("complex128", "c16"),
    "QInt8Storage": ("qint8", None),
    "QUInt8Storage": ("quint8", None),
    "QInt32Storage": ("qint32", None),
    "QUInt4x2Storage": ("quint4x2", None),
    "QUInt2x4Storage": ("quint2x4", None),
}
# Of dtypes without a class of storage, by the name of the dtype.
DTYPES: dict[str, str | None] = dict(STORAGES.values())
DTYPES |= {"uint16": "u2", "uint32": "u4", "uint64": "u8"}

# Bytes of an element of those storages that a legacy file may hold although they are refused.
REFUSED_WIDTHS = {"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}


class StorageType(Opaque):
    """A class of storages; `dtype` is the name of their elements' dtype, None if they are bytes."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, dtype: str | None) -> None:
        super().__init__(name)
        self.dtype = dtype


class Dtype(Opaque):
    """A dtype of PyTorch, by its name."""

    __slots__ = ()


class Storage(Leaf):
    """The elements that tensors share: `size` of them from `offset` on, under `key` of `source`."""

    __slots__ = ("source", "key", "dtype", "size", "offset")

    def __init__(self, source, key, dtype, size, offset=0):
        self.source, self.key, self.dtype, self.size, self.offset = source, key, dtype, size, offset

    def nbytes(self):
        raise ValueError("a storage without a tensor, which is not read")

    def width(self):
        """Bytes of an element."""
        if self.dtype is None:
            return 1
        return REFUSED_WIDTHS.get(self.dtype) or _element(self.dtype).itemsize


class Tensor(Leaf):
    """A view of a storage, with offset and strides in elements."""

    __slots__ = ("storage", "dtype", "offset", "shape", "strides", "conjugate", "negative")

    def __init__(self, storage, dtype, offset, shape, strides, flags):
        self.storage, self.dtype, self.offset, self.shape, self.strides = storage, dtype, offset, shape, strides
        self.conjugate, self.negative = flags.get("conj", False), flags.get("neg", False)

    def nbytes(self):
        check_sizes(self.shape)
        return math.prod(self.shape) * (4 if self.dtype == "bfloat16" else _element(self.dtype).itemsize)

    def array(self):
        data, order = self.storage.source.bytes_of(self.storage)
        dtype = _element(self.dtype).newbyteorder(order)
        elements = len(data) // dtype.itemsize
        first = self.offset
        last = first + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if min((first, *self.strides)) < 0 or (0 not in self.shape and last >= elements):
            raise ValueError(
                f"offset {short(first)}, sizes {short(self.shape)} and strides {short(self.strides)}: "
                f"outside of the storage {short(self.storage.key)} of {elements} elements"
            )
        if 0 in self.shape:
            array = np.empty(self.shape, dtype)
        else:
            strides = [stride * dtype.itemsize for stride in self.strides]
            # NumPy compares the strides of axes of one element, too.
            strides = [stride if n > 1 else 0 for n, stride in zip(self.shape, strides, strict=True)]
            array = np.ndarray(self.shape, dtype, data, first * dtype.itemsize, strides)
        array = widened(array) if self.dtype == "bfloat16" else own(array)
        if self.conjugate:
            np.conjugate(array, out=array)
        if self.negative:
            np.negative(array, out=array)
        return array


def _element(dtype):
    """The dtype in which the elements of a dtype of PyTorch are stored."""
    found = DTYPES.get(dtype)
    if found is None:
        raise ValueError(f"a tensor of dtype {dtype}, which is not read")
    return np.dtype("u2" if found == "bfloat16" else found)


# The functions and classes that a pickle may call


def _tensor(storage, offset, shape, strides, dtype, flags):
    if isinstance(storage, Placeholder):
        return Refused(f"a tensor with a storage of {short(storage.name)[1:-1]}")
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor without a storage, with a {type(storage).__name__}")
    (offset,) = integers("offset", (offset,))
    shape, strides = integers("sizes", shape), integers("strides", strides)
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides")
    if type(flags) is not dict or not flags.keys() <= {"conj", "neg"} or set(map(type, flags.values())) - {bool}:
        raise ValueError("a tensor with unknown flags")
    if DTYPES.get(dtype) is None:
        return Refused(f"a tensor of dtype {dtype}")
    if any(flags.values()) and _element(dtype).kind not in "fc":
        raise ValueError(f"a tensor of dtype {dtype} with flags")
    return Tensor(storage, dtype, offset, shape, strides, flags)


def _rebuild_tensor(storage, offset, shape, strides):
    dtype = getattr(storage, "dtype", None) or "uint8"
    return _tensor(storage, offset, shape, strides, dtype, {})


def _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, flags=None):
    dtype = getattr(storage, "dtype", None) or "uint8"
    return _tensor(storage, offset, shape, strides, dtype, flags or {})


def _rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, flags=None):
    if not isinstance(dtype, Dtype):
        raise ValueError(f"dtype: expected a dtype, got {type(dtype).__name__}")
    return _tensor(storage, offset, shape, strides, dtype.name, flags or {})


def _rebuild_parameter(tensor, *_):
    if isinstance(tensor, Placeholder):
        return Refused(f"a parameter of the class {short(tensor.name)[1:-1]}")
    if not isinstance(tensor, Leaf):
        raise ValueError(f"a parameter without a tensor, of {type(tensor).__name__}")
    return tensor


def _rebuild_from_type(function, cls, arguments, state):
    """A tensor with attributes, which are ignored."""
    if isinstance(cls, Placeholder):
        return Refused(f"a tensor of the class {short(cls.name)[1:-1]}")
    if isinstance(function, Placeholder):
        return Refused(f"a tensor that {short(function.name)[1:-1]} makes")
    if not isinstance(cls, Opaque) or cls.name not in TENSOR_CLASSES:
        raise ValueError("a tensor of an unknown class")
    if not isinstance(function, Function) or function not in REBUILD or type(arguments) is not tuple:
        raise ValueError("a tensor that no known function makes")
    if not function.least <= len(arguments) <= function.most:
        raise ValueError(f"a tensor made with {len(arguments)} arguments")
    return function.call(*arguments)


def _refusing(reason):
    def refuse(*_):
        return Refused(reason)

    return Function(refuse, 0, 16)


def _items(value, kind, name):
    if type(value) is not kind:
        raise ValueError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}")
    return value


def _ordered_dict(pairs=()):
    if type(pairs) not in (tuple, list) or any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
        raise ValueError("OrderedDict: expected pairs of key and value")
    made = OrderedDict()
    for key, value in pairs:
        for checked in checked_keys([key]):
            made[checked] = value
    return made


def _default_dict(default=None, items=None):
    return dict(_items(items or {}, dict, "defaultdict"))


def _counter(counts=None):
    return dict(_items(counts or {}, dict, "Counter"))


def _set(members=None):
    return set(checked_keys(_items(members or [], list, "set")))


def _encode(text, encoding="latin1"):
    """Bytes, which Python 3 writes so at protocol 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("encode: expected text, as latin1")
    return text.encode("latin1")


def _bytes(value=b""):
    return _items(value, bytes, "bytes")


def _bytearray(value=b"", encoding="latin1"):
    return bytearray(_encode(value, encoding) if type(value) is str else _bytes(value))


def _complex(real, imaginary):
    return complex(_items(real, float, "complex"), _items(imaginary, float, "complex"))


def _size(sizes=()):
    return integers("Size", sizes)


def _opaque(name):
    def make(*_):
        return Opaque(name)

    return Function(make, 0, 4)


def _numpy_dtype(code, *_):
    return NumpyDtype(_items(code, str, "dtype"))


def _numpy_array(*_):
    return NumpyArray()


def _numpy_from_buffer(data, dtype, shape, order):
    if not isinstance(dtype, NumpyDtype):
        raise ValueError("a NumPy array without a dtype")
    return NumpyArray(integers("shape", shape), dtype, order == "F", data)


# The names of a pickle

TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}

REBUILDERS: dict[str, Function] = {
    "_rebuild_tensor": Function(_rebuild_tensor, 4, 4),
    "_rebuild_tensor_v2": Function(_rebuild_tensor_v2, 6, 7),
    "_rebuild_tensor_v3": Function(_rebuild_tensor_v3, 7, 8),
    "_rebuild_parameter": Function(_rebuild_parameter, 1, 3),
    "_rebuild_parameter_with_state": Function(_rebuild_parameter, 4, 4),
    "_rebuild_qtensor": _refusing("a quantized tensor"),
    "_rebuild_sparse_tensor": _refusing("a sparse tensor"),
    "_rebuild_sparse_csr_tensor": _refusing("a sparse tensor"),
    "_rebuild_nested_tensor": _refusing("a nested tensor"),
    "_rebuild_meta_tensor_no_storage": _refusing("a tensor of the meta device, without numbers"),
    "_rebuild_wrapper_subclass": _refusing("a tensor without a storage"),
    "_rebuild_xla_tensor": _refusing("a tensor of an XLA device"),
    "_rebuild_device_tensor_from_numpy": _refusing("a tensor of a device without storages"),
    "_rebuild_device_tensor_from_cpu_tensor": _refusing("a tensor of a device without storages"),
}
REBUILD = frozenset(REBUILDERS.values())

NAMES: dict[str, object] = {
    "collections.OrderedDict": Function(_ordered_dict, 0, 1),
    "collections.defaultdict": Function(_default_dict, 0, 2),
    "collections.Counter": Function(_counter, 0, 1),
    "builtins.set": Function(_set, 0, 1),
    "builtins.frozenset": Function(_set, 0, 1),
    "builtins.bytes": Function(_bytes, 0, 1),
    "builtins.bytearray": Function(_bytearray, 0, 2),
    "builtins.complex": Function(_complex, 2, 2),
    "_codecs.encode": Function(_encode, 1, 2),
    "argparse.Namespace": NewClass(),
    "torch.Size": Function(_size, 0, 1),
    "torch.device": _opaque("torch.device"),
    "torch.serialization._get_layout": _opaque("torch.layout"),
    "torch._tensor._rebuild_from_type": Function(_rebuild_from_type, 4, 4),
    "torch._tensor._rebuild_from_type_v2": Function(_rebuild_from_type, 4, 4),
    "torch.tensor._rebuild_from_type": Function(_rebuild_from_type, 4, 4),
    "torch.storage.UntypedStorage": StorageType("torch.storage.UntypedStorage", None),
    "torch.UntypedStorage": StorageType("torch.UntypedStorage", None),
    "numpy.ndarray": Opaque("numpy.ndarray"),
    "numpy.dtype": Function(_numpy_dtype, 1, 3),
    # Of TorchScript: lists of numbers or tensors, and values with the names of their types.
    "torch.jit._pickle.build_intlist": Function(lambda values: values, 1, 1),
    "torch.jit._pickle.build_doublelist": Function(lambda values: values, 1, 1),
    "torch.jit._pickle.build_boollist": Function(lambda values: values, 1, 1),
    "torch.jit._pickle.build_tensorlist": Function(lambda values: values, 1, 1),
    "torch.jit._pickle.restore_type_tag": Function(lambda value, name: value, 2, 2),
}
NAMES |= {f"torch._utils.{name}": function for name, function in REBUILDERS.items()}
NAMES |= {name: Opaque(name) for name in TENSOR_CLASSES}
NAMES |= {f"builtins.{name}": Opaque(f"builtins.{name}") for name in ("list", "dict", "int", "float", "bool", "str")}
for _name, (_dtype, _) in STORAGES.items():
    NAMES |= {f"{_module}.{_name}": StorageType(_name, _dtype) for _module in ("torch", "torch.cuda")}
for _core in ("numpy.core", "numpy._core"):
    NAMES[f"{_core}.multiarray._reconstruct"] = Function(_numpy_array, 3, 3)
    NAMES[f"{_core}.multiarray.scalar"] = _opaque("a scalar")
    NAMES[f"{_core}.numeric._frombuffer"] = Function(_numpy_from_buffer, 4, 4)
TORCH_DTYPE = re.compile(r"(float|bfloat|int|uint|complex|bits|qint|quint|bool)[0-9a-z_]{0,16}")
SCHEMES = re.compile(r"per_(tensor|channel)_(affine|symmetric)(_float_qparams)?")


def find(left: LeftOut, module: str, name: str) -> object:
    """The stand-in for a name of a pickle; a `Placeholder`, which `left` notes, for names that are not known."""
    full = f"{module}.{name}"
    if full in NAMES:
        return NAMES[full]
    if module == "torch" and TORCH_DTYPE.fullmatch(name):
        return Dtype(name)
    if module == "torch" and SCHEMES.fullmatch(name):
        return Opaque(full)
    if full.startswith("__torch__.") and not full.startswith("__torch__.torch.classes."):
        return NewClass()
    if module == "torch._utils" and name.startswith("_rebuild_"):
        return _refusing(f"a tensor that {short(full)[1:-1]} makes")
    left.add(full)  # of at most as many bytes as the pickle; objects that are made share the name
    return Placeholder(full, left)


def without_tensors(left: LeftOut) -> str:
    """The message for a file whose only tensors, if any, are in values that were left out."""
    names = ", ".join(short(name)[1:-1] for name in left.names) + (" and others" if left.has_more else "")
    reason = f"no tensors; classes and functions are not read, and objects made with them are left out: {names}"
    if any(name == "torch.ScriptObject" or "torch.classes.quantized." in name for name in left.names):
        return f"{reason}. These layers are quantized; save the state_dict() of the model before it is quantized"
    if left.has_model:
        return f"{reason}. Of a whole model, save its state_dict() in PyTorch: torch.save(model.state_dict(), path)"
    return reason


def find_in_header(module: str, name: str) -> object:
    """For pickles that hold numbers and text alone."""
    raise ValueError(f"the class or function {short(f'{module}.{name}')[1:-1]} where numbers and text belong")


# Storages


def _storage_of(source, saved, members):
    """Key and `Storage` of a persistent id of `members` members, and the id's members beyond the fifth."""
    if type(saved) is not tuple or not saved or saved[0] != "storage":
        raise ValueError("a persistent id other than that of a storage")
    if len(saved) not in members or not isinstance(saved[1], StorageType):
        raise ValueError(f"the persistent id of a storage: {len(saved)} members")
    _, cls, key, _, size, *rest = saved
    if type(key) is not str or type(size) is not int or not 0 <= size < 2**63:
        raise ValueError("the persistent id of a storage: its key or size")
    return key, Storage(source, key, cls.dtype, size), rest


class Source:
    """The bytes of storages, and their byte order."""

    def __init__(self, records, order):
        self.records, self.order = records, order

    def bytes_of(self, storage):
        data = self.records[storage.key]
        width = storage.width()
        return data[storage.offset * width : (storage.offset + storage.size) * width], self.order


class Archive:
    """The uncompressed records of a zip archive, which lies in memory."""

    def __init__(self, data: memoryview, zipped: Any) -> None:
        self.data, self.zipped = data, zipped
        self.entries = {entry.filename: entry for entry in zipped.infolist()}
        if len(self.entries) != len(zipped.infolist()):
            raise ValueError("two records of one name")

    def record(self, name: str, most: int | None = None) -> memoryview:
        """The bytes of a record, of at most `most` if that is given."""
        import zlib

        if name not in self.entries:
            raise ValueError(f"the record {short(name)} is missing")
        entry = self.entries[name]
        if entry.compress_type != 0 or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise ValueError(f"the record {short(name)} is compressed or encrypted, which PyTorch never does")
        if most is not None and entry.file_size > most:
            raise ValueError(f"the record {short(name)} has {entry.file_size} bytes, at most {most} are read")
        # The local header has lengths of its own for the name and the extra field, which aligns the data.
        local = bytes(self.data[entry.header_offset : entry.header_offset + 30])
        if len(local) < 30 or not local.startswith(b"PK\3\4"):
            raise ValueError(f"the record {short(name)} has no header")
        name_bytes, extra_bytes = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        start = entry.header_offset + 30 + name_bytes + extra_bytes
        data = self.data[start : start + entry.file_size]
        if len(data) != entry.file_size:
            raise ValueError(f"the record {short(name)} ends early")
        # 0: not computed, see torch.serialization.set_crc32_options.
        if entry.CRC not in (0, zlib.crc32(data)):
            raise ValueError(f"the record {short(name)} is damaged: its checksum differs")
        return data


class Records(dict[str, memoryview]):
    """The records of storages by their keys, each read and checked once."""

    def __init__(self, archive, folder):
        super().__init__()
        self.archive, self.folder = archive, folder

    def __missing__(self, key):
        self[key] = self.archive.record(f"{self.folder}{key}")
        return self[key]


def from_archive(archive: Archive, pickle: str) -> tuple[Any, LeftOut]:
    """The object in the record `pickle` of an archive, whose tensors are `Leaf`s, and the names that are left out."""
    folder = pickle.removesuffix("data.pkl")
    order = b"little"
    if f"{folder}byteorder" in archive.entries:
        order = bytes(archive.record(f"{folder}byteorder", 16))
    if order not in (b"little", b"big"):
        raise ValueError(f"byteorder: expected little or big, got {short(order)}")
    source = Source(Records(archive, f"{folder}data/"), "<" if order == b"little" else ">")

    def persistent(saved):
        key, storage, _ = _storage_of(source, saved, (5,))
        entry = archive.entries.get(f"{folder}data/{key}")
        if entry is None:
            raise ValueError(f"the record {short(f'{folder}data/{key}')} is missing")
        if storage.size * storage.width() != entry.file_size - entry.file_size % storage.width():
            raise ValueError(f"the storage {short(key)}: {storage.size} elements, {entry.file_size} bytes in the file")
        return storage

    left, data = LeftOut(), archive.record(pickle, MOST_PICKLE_BYTES)
    try:
        return read_pickle(data, 0, partial(find, left), persistent)[0], left
    except ValueError as error:
        raise ValueError(f"{pickle}, {error}") from error


def from_stacked_pickles(data: memoryview) -> tuple[Any, LeftOut]:
    """The object in a file of the format before PyTorch 1.6, and the names that are left out, as `from_archive`."""
    try:
        magic, position = read_pickle(data, 0, find_in_header)
    except ValueError as error:
        raise ValueError(f"a pickle that torch.save has not written ({error})") from error
    if magic != MAGIC_NUMBER:
        raise ValueError("a pickle that torch.save has not written: it does not begin with the magic number")
    version, position = read_pickle(data, position, find_in_header)
    if version != PROTOCOL_VERSION:
        raise ValueError(f"the version of the protocol: expected {PROTOCOL_VERSION}, got {short(version)}")
    _, position = read_pickle(data, position, find_in_header)
    records: dict[str, memoryview] = {}
    roots: dict[str, Storage] = {}
    source, left = Source(records, "<"), LeftOut()

    def persistent(saved):
        if type(saved) is tuple and len(saved) == 4 and saved[0] == "module":
            left.has_model = True
            left.add("a module")
            return Placeholder("a module", left)
        key, storage, rest = _storage_of(source, saved, (5, 6))
        root = roots.setdefault(key, storage)
        if root.dtype != storage.dtype or root.size != storage.size:
            raise ValueError(f"the storage {short(key)} with two dtypes or sizes")
        return root if rest in ([], [None]) else _view_of(root, rest[0])

    value, position = read_pickle(data[: position + MOST_PICKLE_BYTES], position, partial(find, left), persistent)
    keys, position = read_pickle(data, position, find_in_header)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(roots):
        raise ValueError("the list of storages: others than those of the tensors")
    for key in keys:
        storage = roots[key]
        size = int.from_bytes(data[position : position + 8], "little", signed=True)
        end = position + 8 + size * storage.width()
        if size != storage.size or end > len(data):
            raise ValueError(f"the storage {short(key)}: expected {storage.size} elements, the file ends or has {size}")
        records[key] = data[position + 8 : end]
        position = end
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes after the last storage")
    return value, left


def _view_of(root, view):
    """A part of a storage, as PyTorch before 0.4 shared them: its key, offset and size."""
    if type(view) is not tuple or len(view) != 3:
        raise ValueError("a part of a storage")
    offset, size = integers("a part of a storage", view[1:])
    if min(offset, size) < 0 or offset + size > root.size:
        raise ValueError(f"a part of a storage beyond its {root.size} elements")
    return Storage(root.source, root.key, root.dtype, size, offset)
