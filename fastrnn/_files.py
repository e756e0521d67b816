"""Files of any format: paths, writing without a trace of a failure, JSON without duplicate keys, safetensors."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from fastrnn._validation import short

# Limits of safetensors, as a parsed header takes some 30 times its size: enough for 341 layers of the kind with the
# most parameters (an LSTM with biases, projections and peepholes in both directions has 12), and for more than any
# parameter needs in the header (its longest entry, with numbers of 20 digits, has less than 180 bytes).
MOST_TENSORS = 4096
MOST_HEADER_BYTES = 256 * MOST_TENSORS


def path_of(given: Any, name: str = "path") -> str:
    """An argument that is a path as text; `name` is for messages."""
    try:
        path = os.fsdecode(given)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    if not path:
        raise ValueError(f"{name}: is empty")
    if "\0" in path:
        raise ValueError(f"{name}: has a null character, {short(path)}")
    return path


# Writing


def write_atomically(path: str, data: bytes) -> None:
    """Replace `path` by a file of `data`, so that a loss of power leaves either the file before or the new one."""
    if not os.path.basename(path) or (os.path.exists(path) and not os.path.isfile(path)):
        raise ValueError(f"{path}: not a file")
    path = os.path.realpath(path)
    # A name of fixed length, because that of `path` may be as long as the system allows.
    temporary = os.path.join(os.path.dirname(path), f".fastrnn-{os.urandom(8).hex()}")
    try:
        file = open(temporary, "xb", opener=_opener_like(path))
    except OSError as error:  # which would name the temporary file
        raise OSError(error.errno, error.strerror, path) from None
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The new name lasts from here on. Not every file system can do that, and an error would say that nothing was saved.
    if os.name == "posix":
        with contextlib.suppress(OSError):
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _opener_like(path):
    """For a new file with the permissions of that under `path` from the start; for a new file, those of the umask."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if before is None or os.name != "posix":
        return None

    def opener(name, flags):
        descriptor = os.open(name, flags, 0o600)
        mode = stat.S_IMODE(before.st_mode) & 0o777
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except OSError:
            try:
                os.fchown(descriptor, -1, before.st_gid)
            except OSError:  # the group is now another, which may do no more than everybody
                mode = mode & 0o707 | (mode & 0o007) << 3
        with contextlib.suppress(OSError):  # of a file system without permissions
            os.fchmod(descriptor, mode)
        return descriptor

    return opener


# Reading. Callers put the path in front of the message of every ValueError.


def import_safetensors() -> Any:
    """The package safetensors, or an ImportError that says how to install it."""
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            "fastrnn.save and fastrnn.load need the package safetensors: pip install safetensors"
        ) from error
    return safetensors


def content_of(path: str) -> bytes:
    """The bytes of a safetensors file, whose header is within the limits."""
    # A directory cannot be read, a pipe or a device perhaps without end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a file")
    # Read rather than mapped: if a mapped file is truncated, the process dies.
    with open(path, "rb") as file:
        length = file.read(8)
        header_bytes = int.from_bytes(length, "little")
        if header_bytes > MOST_HEADER_BYTES:
            known = other_format(length)
            if known is not None:
                raise ValueError(known)
            problem = f"a header of {header_bytes} bytes, at most {MOST_HEADER_BYTES} are read"
            raise ValueError(f"damaged, or not a safetensors file of a layer: {problem}")
        header = file.read(header_bytes)
        # Each tensor has one brace; so have the header, its metadata, the description and the arguments in it.
        if header.count(b"{") > MOST_TENSORS + 4:
            raise ValueError(f"damaged, or not a safetensors file of a layer: more than {MOST_TENSORS} tensors")
        return b"".join((length, header, file.read()))


WITH_TENSORS = "fastrnn.from_state_dict(fastrnn.load_tensors(path)) makes a layer from it"

# By the first bytes of a file.
OTHER_FORMATS = (
    (
        rb"PK\x03\x04",
        f"a zip archive: if of PyTorch or NumPy, {WITH_TENSORS}; if of Keras, fastrnn.from_keras(path) does",
    ),
    (rb"\x80[\x02-\x05]", f"a pickle: if of torch.save, {WITH_TENSORS}"),
    (rb"\x93NUMPY", "an array of NumPy, which fastrnn.load_tensors reads"),
    (rb"\x89HDF\r\n", "an HDF5 file: if of Keras, fastrnn.from_keras(path) makes a layer from it"),
    # The version of the format, and the next field: of text, the graph or the operator sets.
    (rb"\x08[\x01-\x1f][\x12\x1a\x22\x32\x3a\x42]", "an ONNX model: fastrnn.from_onnx(path) makes a layer from it"),
)


def other_format(start: bytes) -> str | None:
    """The format of a file that begins so, and how it is read; None if it is none of `OTHER_FORMATS`."""
    import re

    return next((text for begin, text in OTHER_FORMATS if re.match(begin, start, re.DOTALL)), None)


def parts_of(data: bytes, key: str, writer: str) -> tuple[str, dict[str, Any]]:
    """The text under a key of the metadata, and of each tensor "dtype", "shape" and "data"; from content_of."""
    safetensors = import_safetensors()
    try:
        tensors = dict(safetensors.deserialize(data))
        # It leaves out the metadata, so the header, which is now known to be well-formed, is read once more.
        end = 8 + int.from_bytes(data[:8], "little")
        metadata = from_json(data[8:end].decode()).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"damaged, or not a safetensors file: {error}") from error
    if key not in metadata:
        raise ValueError(f"not written by {writer}: the metadata have no {key!r}; of weights alone, {WITH_TENSORS}")
    return metadata[key], tensors


def from_json(text: str | bytes) -> Any:
    """The value of which `text` is the JSON, in which no key stands twice: readers differ in which one they take."""
    import json

    def unique(pairs):
        found = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"the key {short(name)} stands there twice")
            found[name] = value
        return found

    return json.loads(text, object_pairs_hook=unique)
