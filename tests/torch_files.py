"""Files as torch.save writes them, without PyTorch: pickles from opcodes, in a zip archive or stacked."""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage",
    "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage", "complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage",
}  # fmt: skip
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


@dataclass
class Raw:
    """Opcodes as they are."""

    code: bytes


@dataclass
class Name:
    module: str
    name: str


@dataclass
class Call:
    function: Any
    arguments: Any


@dataclass
class New:
    """An instance of a class without arguments, with a state."""

    cls: Name
    state: Any


@dataclass
class State:
    made: Any
    state: Any


@dataclass
class Persistent:
    saved: tuple


def opcodes(value):
    """The opcodes that push the value."""
    if isinstance(value, Raw):
        return value.code
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8b" + struct.pack("<i", len(data)) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8")
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(item) for pair in value.items() for item in pair) + b"u"
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return opcodes(value.function) + opcodes(value.arguments) + b"R"
    if isinstance(value, New):
        return opcodes(value.cls) + b")\x81" + opcodes(value.state) + b"b"
    if isinstance(value, State):
        return opcodes(value.made) + opcodes(value.state) + b"b"
    if isinstance(value, Persistent):
        return opcodes(value.saved) + b"Q"
    raise TypeError(value)


def pickled(value):
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key, size, cls="FloatStorage", location="cpu", module="torch", legacy=False):
    rest = (None,) if legacy else ()
    return Persistent(("storage", Name(module, cls), key, location, size, *rest))


def view(storage, shape, strides, offset=0, flags=None):
    """A tensor of a storage; strides and offset in elements."""
    rest = () if flags is None else (flags,)
    hooks = Call(Name("collections", "OrderedDict"), ())
    arguments = (storage, offset, tuple(shape), tuple(strides), False, hooks, *rest)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def contiguous(shape):
    return [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]


def tensor(key, array, **options):
    """The tensor of a contiguous array that is stored under the key."""
    stored = storage(key, array.size, CLASSES[array.dtype.name], **options)
    return view(stored, array.shape, contiguous(array.shape))


def archive(value, storages=None, byteorder="little", compression=zipfile.ZIP_STORED, **records):
    """A file since PyTorch 1.6; `storages` are bytes by their keys."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        zipped.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickled(value))
        if byteorder is not None:
            zipped.writestr("archive/byteorder", byteorder)
        for key, data in (storages or {}).items():
            zipped.writestr(f"archive/data/{key}", data)
        zipped.writestr("archive/version", "3\n")
        for name, data in records.items():
            zipped.writestr(name, data)
    return file.getvalue()


def stacked(value, storages=None, widths=None, keys=None):
    """A file before PyTorch 1.6; `widths` are bytes of an element by the storages' keys, 4 by default."""
    storages = storages or {}
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickled(MAGIC_NUMBER), pickled(1001), pickled(about)]
    parts += [
        value if isinstance(value, bytes) else pickled(value),
        pickled(sorted(storages) if keys is None else keys),
    ]
    for key in sorted(storages):
        width = (widths or {}).get(key, 4)
        parts += [struct.pack("<q", len(storages[key]) // width), storages[key]]
    return b"".join(parts)
