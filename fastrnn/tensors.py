"""The arrays in files of other libraries: NumPy's, safetensors, and those of torch.save, without PyTorch.

The format is recognised by the content, not by the suffix. Nothing in a file is executed, and sizes are compared with
the length of the file before anything is allocated.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from fastrnn._files import from_json, other_format, path_of
from fastrnn._leaves import Bfloat16Array, Leaf, NumpyArray, NumpyDtype, Refused, integers
from fastrnn._torch_files import MOST_RECORDS, Archive, from_archive, from_stacked_pickles, without_tensors
from fastrnn._unpickling import LeftOut
from fastrnn._validation import Array, short

__all__ = ["load_tensors"]

# Limits. Shared and broadcast tensors, bfloat16 and compressed records take more memory than bytes of the file.
MOST_TIMES_THE_FILE = 8
MOST_BYTES_BESIDES = 1 << 26
MOST_DEPTH = 64
MOST_VALUES = 1 << 21
MOST_TENSORS = 1 << 16
MOST_CHARACTERS = 1 << 24
MOST_HEADER_BYTES = 1 << 23

# Of safetensors; the others of its dtypes have no counterpart in NumPy.
SAFETENSORS = {
    "BOOL": "b1", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8", "BF16": "u2", "C64": "c8",
}  # fmt: skip


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays in a file by their names: `.npz`, `.npy`, `.safetensors`, or a file of `torch.save`.

    PyTorch is not needed. The format is recognised by the content, not by the suffix. Nothing in a file is executed:
    files of unknown origin can be read.

    Parameters
    ----------
    path : str or os.PathLike
        The file. Of PyTorch both formats are read, that of 1.6 and later (a zip archive) and the one before (stacked
        pickles), and the archives of `torch.jit.save`, in which the attributes of the modules are found.

    Returns
    -------
    tensors : dict of str to ndarray
        In the order of the file. Nested dicts, lists and tuples are flattened, with "." between keys; the key of an
        item of a list is its index. A single array without a name, such as that of a `.npy` file, has the file's name
        without suffix. Each array is C-contiguous, in native byte order, writeable, and shares no memory with others.
        Its dtype is that in the file, except that bfloat16 is widened to float32, which is exact. Values that are
        neither tensors nor arrays of numbers, such as epochs, text, hyperparameters and objects of any class, are left
        out with everything in them.

    Raises
    ------
    ImportError
        If the file is in safetensors format and the package `safetensors` is not installed.
    TypeError
        If `path` is not a path.
    ValueError
        If the file is damaged or in another format; if objects of classes are left out, a pickled module for example,
        and no tensor is found; if a tensor is quantized, sparse or of float8; if two tensors have the same name; if it
        needs more than 8 times its size and 64 MiB, or has more than 65536 tensors, or deeper nesting than 64. The
        message starts with `path`.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    See Also
    --------
    load : layers that `fastrnn.save` has written.

    Notes
    -----
    Of a whole module that was pickled (``torch.save(model, path)``) the tensors are not read, because that takes the
    classes of the model. In PyTorch, save its state_dict: ``torch.save(model.state_dict(), path)``.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.npz")
    ...     np.savez(path, weight=np.ones((2, 3), np.float32), bias=np.zeros(2))
    ...     tensors = fastrnn.load_tensors(path)
    >>> {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    {'weight': ((2, 3), 'float32'), 'bias': ((2,), 'float64')}
    """
    path = path_of(path)
    # A directory cannot be read, a pipe or a device perhaps without end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: not a file")
    # Read rather than mapped: if a mapped file is truncated, the process dies.
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _collected(_named(data, os.path.splitext(os.path.basename(path))[0]), len(data))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _named(data: bytes, stem: str) -> Iterator[tuple[str, Leaf]]:
    """Name and `Leaf` of each array of a file; `stem` is the name of an array without one."""
    if data.startswith(b"\x93NUMPY"):
        return iter([(stem, NumpyFile(io.BytesIO(data), len(data)))])
    if data.startswith((b"PK\3\4", b"PK\5\6")):
        return _of_zip(data, stem)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return _of_safetensors(data)
    if data.startswith(b"\x80"):
        return _flattened(*from_stacked_pickles(memoryview(data)), stem)
    for known, reason in OTHER_FORMATS:
        if known(data):
            raise ValueError(reason)
    raise ValueError(
        other_format(data[:8]) or "damaged, or none of the formats .npz, .npy, .safetensors and of torch.save"
    )


OTHER_FORMATS = (
    (
        lambda data: data[257:262] == b"ustar",
        "a tar archive, the format of PyTorch before 0.1.10, which is not read; load and save it with a newer PyTorch",
    ),
    (
        lambda data: data.startswith(b"\x89HDF\r\n\x1a\n"),
        "an HDF5 file, which is not read; those of Keras are the business of fastrnn.from_keras",
    ),
    (lambda data: data.startswith(b"\x1f\x8b"), "compressed with gzip, which is not read; decompress it first"),
    (lambda data: not data, "the file is empty"),
)


def _collected(named: Iterable[tuple[str, Leaf]], file_bytes: int) -> dict[str, Array]:
    """The arrays by their names, as long as they are within the limits."""
    most = MOST_TIMES_THE_FILE * file_bytes + MOST_BYTES_BESIDES
    total = characters = 0
    tensors: dict[str, Array] = {}
    for name, leaf in named:
        if name in tensors:
            raise ValueError(f"{short(name)}: two tensors of this name")
        characters += len(name)
        if len(tensors) == MOST_TENSORS or characters > MOST_CHARACTERS:
            raise ValueError(f"more than {MOST_TENSORS} tensors, or {MOST_CHARACTERS} characters in their names")
        try:
            total += leaf.nbytes()
            if total > most:
                raise ValueError(f"the tensors up to this one have {total} bytes, at most {most} are read of this file")
            tensors[name] = leaf.array()
        except ValueError as error:
            raise ValueError(f"{short(name)[1:-1]}: {error}") from error
    return tensors


# Pickles


def _flattened(value: Any, left: LeftOut, stem: str) -> Iterator[tuple[str, Leaf]]:
    """Name and `Leaf` of each tensor in nested containers, in their order; a single tensor has the name `stem`.

    If there is none, the values that were left out are named in an error.
    """
    if isinstance(value, Leaf) and value.is_of_objects():
        value = [value]
    elif isinstance(value, Leaf):
        yield stem, value
        return
    # The containers from the outermost to the current one, each with its key in the one before.
    within: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(None, _items(value))]
    visited = found = 0
    while within:
        key, item = next(within[-1][1], (None, within))
        if item is within:  # the end
            within.pop()
            continue
        visited += 1
        if visited > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if isinstance(item, (dict, list, tuple)):
            if len(within) == MOST_DEPTH:
                raise ValueError(f"containers nested deeper than {MOST_DEPTH}, or one that contains itself")
            within.append((key, _items(item)))
        elif isinstance(item, Leaf) and item.is_of_objects():
            left.add("numpy.ndarray of objects")
        elif isinstance(item, Leaf) and not item.is_text():
            found += 1
            yield _joined([*(key for key, _ in within[1:]), key]), item
    if left and not found:
        raise ValueError(without_tensors(left))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a container; of anything else, none."""
    if isinstance(value, dict):
        return iter(value.items())
    return iter(enumerate(value)) if isinstance(value, (list, tuple)) else iter(())


def _joined(keys: list[Any]) -> str:
    """The name of a tensor from its keys, from the outermost."""
    for key in keys:
        if type(key) not in (str, int):
            raise ValueError(f"a tensor under a key that is neither text nor an integer, but {type(key).__name__}")
    return ".".join(map(str, keys))


# Archives


def _of_zip(data: bytes, stem: str) -> Iterator[tuple[str, Leaf]]:
    """Name and `Leaf` of each array of an archive of NumPy or PyTorch."""
    import zipfile

    # A parsed record takes some ten times its bytes in the directory.
    if data.count(b"PK\1\2") > MOST_RECORDS:
        raise ValueError(f"more than {MOST_RECORDS} records")
    with _zip_errors():
        zipped = zipfile.ZipFile(io.BytesIO(data))
    names = zipped.namelist()
    pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(pickles) == 1:
        found = _flattened(*from_archive(Archive(memoryview(data), zipped), pickles[0]), stem)
        first = list(itertools.islice(found, 1))
        if not first and any(name.startswith(pickles[0].removesuffix("data.pkl") + "constants/") for name in names):
            raise ValueError("an archive of TorchScript whose tensors are constants without names (torch.jit.freeze)")
        return itertools.chain(first, found)
    if len(pickles) > 1:
        raise ValueError("two records data.pkl")
    if any(name.endswith(".npy") for name in names) or not names:
        return _of_npz(zipped)
    if any(name.rpartition("/")[2] == "archive_format" for name in names):
        raise ValueError("an archive of torch.export.save, which is not read; save the state_dict() of the program")
    if any(name.rpartition("/")[2] == "model.json" for name in names):
        raise ValueError("an archive of TorchScript before PyTorch 1.4, which is not read; save its state_dict()")
    if "model.weights.h5" in names:
        raise ValueError("a Keras archive, which is not read here, but by fastrnn.from_keras")
    raise ValueError("a zip archive without data.pkl, of PyTorch, and without arrays .npy, of NumPy")


def _of_npz(zipped: Any) -> Iterator[tuple[str, Leaf]]:
    for entry in zipped.infolist():
        if not entry.filename.endswith(".npy"):
            continue
        name = entry.filename.removesuffix(".npy")
        try:
            if entry.compress_type not in (0, 8) or entry.flag_bits & 1:
                raise ValueError("encrypted, or compressed other than NumPy does")
            with _zip_errors():
                leaf = NumpyFile(zipped.open(entry), entry.file_size)
        except ValueError as error:
            raise ValueError(f"{short(name)[1:-1]}: {error}") from error
        if not leaf.is_text():
            yield name, leaf


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    """Turns every error of zipfile for a damaged archive into a ValueError."""
    import struct
    import zipfile
    import zlib

    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError) as error:
        raise ValueError(f"damaged: {error}") from error


# The header of the format, a literal of Python, as every writer writes it: with the keys in order.
NPY_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'([<>|=]?)(\w+)'\s*,\s*'fortran_order'\s*:\s*(True|False)\s*,"
    r"\s*'shape'\s*:\s*\(([\d\sL,]*)\)\s*(?:,\s*)?\}\s*"
)
MOST_NPY_HEADER_BYTES = 10_000


class NumpyFile(NumpyArray):
    """A .npy file, of which the header is read at once and the numbers on demand."""

    __slots__ = ("file", "rest")

    def __init__(self, file: Any, size: int) -> None:
        start = file.read(12)
        width = 2 if start[6:7] == b"\1" else 4
        length = int.from_bytes(start[8 : 8 + width], "little")
        if not start.startswith(b"\x93NUMPY") or length > MOST_NPY_HEADER_BYTES:
            raise ValueError("damaged: the header of a .npy file")
        begun = start[8 + width :]
        header = (begun + file.read(length - len(begun))).decode("latin1")
        match = NPY_HEADER.fullmatch(header)
        if match is None:
            raise ValueError(f"damaged, or not an array of plain numbers: {short(header)}")
        order, code, fortran, shape = match.groups()
        dtype = NumpyDtype(code)
        dtype.order = order or "="
        sizes = [int(size) for size in re.findall(r"\d{1,19}", shape)]
        super().__init__(integers("shape", sizes), dtype, fortran == "True")
        self.file, self.rest = file, size - 8 - width - length

    def data_size(self) -> int:
        return self.rest

    def array(self) -> Array:
        with _zip_errors():
            self.data = self.file.read(self.rest + 1)  # one more, at which zipfile compares the checksum
        if len(self.data) != self.rest:
            raise ValueError(f"damaged: {len(self.data)} bytes of data, expected {self.rest}")
        return super().array()


# safetensors


def _of_safetensors(data: bytes) -> Iterator[tuple[str, Leaf]]:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            "fastrnn.load_tensors needs the package safetensors for this file: pip install 'fastrnn[safetensors]'"
        ) from error
    length = int.from_bytes(data[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a safetensors header of {length} bytes, at most {MOST_HEADER_BYTES} are read")
    try:
        tensors = safetensors.deserialize(data)
        # It takes one of two tensors of the same name. The header is now known to be well-formed.
        from_json(data[8 : 8 + length].decode())
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"damaged, or not a safetensors file: {error}") from error
    tensors.reverse()
    return _safetensors(tensors)


def _safetensors(tensors: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Leaf]]:
    """Name and `Leaf` of each tensor, from the last; the list is emptied, which frees their memory."""
    while tensors:
        name, tensor = tensors.pop()
        yield name, _safetensor(**tensor)


def _safetensor(dtype: str, shape: list[int], data: bytearray) -> Leaf:
    if dtype not in SAFETENSORS:
        return Refused(f"a tensor of dtype {dtype}")
    code = NumpyDtype(SAFETENSORS[dtype])
    code.order = "<"
    return (Bfloat16Array if dtype == "BF16" else NumpyArray)(integers("shape", shape), code, False, data)
