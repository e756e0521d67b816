"""HDF5 files in plain Python: groups, attributes of text, and plain arrays of floating-point numbers.

This is the part of the format that h5py and Keras write: version 0 of the superblock, version 1 of object headers,
symbol tables or a few links in the header, and contiguous datasets. Everything else is refused by name. The names of
the structures, and the section numbers, are those of the "HDF5 File Format Specification Version 3.0"
(docs.hdfgroup.org).

HDF5's own library is not used: version 2.0.0 looped, crashed and allocated 564 MB for files of Keras in which one to
four random bytes were changed, all in the heaps of texts. Here each address and size is compared with the size of the
file before it is used, the number of reads is limited, and nothing but the arrays that are asked for takes more than
16 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np

from fastrnn._validation import Array, short

SIGNATURE = b"\x89HDF\r\n\x1a\n"

MOST_TEXT_BYTES = 2**24  # of all texts of one attribute
MOST_NAME_BYTES = 2**12  # of a link
MOST_ENTRIES = 2**16  # of a group, and objects of a heap
MOST_READS = 2**22  # of all, in parts of up to 4 KiB

UNDEFINED = 2**64 - 1  # the address of an absent object

# Header messages, section IV.A.2.
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL_FILES = 0x01, 0x02, 0x03, 0x06, 0x07
LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x08, 0x0B, 0x0C, 0x10, 0x11, 0x15

# Classes of datatypes.
FLOAT, STRING, VARIABLE_LENGTH = 1, 3, 9

# By the size: bit offset, precision, location and size of exponent and mantissa, and bias of the exponent.
IEEE = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}

NEWER = "a form of HDF5 that Keras does not write; write the file again with h5py's default libver"


@dataclass(frozen=True)
class Weight:
    """An array of a layer of Keras: its place, for messages, its shape, and how it is read."""

    place: str
    shape: tuple[int, ...]
    read: Callable[[], Array]


class File:
    """An open file; every read is inside of it, and their number is limited."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.reads = file, size, 0
        start = self.read(0, 96, "superblock")
        if start[:8] != SIGNATURE:
            raise ValueError("damaged, or not an HDF5 file")
        if start[8] not in (0, 1) or start[13:15] != b"\x08\x08":
            raise ValueError(f"superblock: version {start[8]}: {NEWER}")
        base, self.root_address = (int.from_bytes(start[k + 4 * start[8] :][:8], "little") for k in (24, 64))
        if base:
            raise ValueError(f"superblock: a base address of {base}: {NEWER}")

    @property
    def root(self) -> Node:
        return Node(self, self.root_address, "")

    def read(self, address: int, count: int, what: str) -> bytes:
        """Exactly that many bytes."""
        if not 0 <= address <= self.size - count:
            raise ValueError(f"damaged: {what}: {count} bytes at {address}, in a file of {self.size}")
        self.reads += 1 + count // 4096
        if self.reads > MOST_READS:
            raise ValueError("damaged, or too large: more structures than are read")
        self.file.seek(address)
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError(f"damaged: {what}: the file ends")
        return data

    def tagged(self, address: int, tag: bytes, count: int) -> bytes:
        """Bytes that begin with a signature."""
        data = self.read(address, count, tag.decode())
        if data[:4] != tag:
            raise ValueError(f"damaged: {short(data[:4])} at {address}, expected {tag.decode()}")
        return data


class Node:
    """A group or a dataset: its object header."""

    def __init__(self, file: File, address: int, path: str) -> None:
        self.file, self.address, self.path = file, address, path

    @property
    def name(self) -> str:
        return self.path or "/"

    @cached_property
    def messages(self) -> list[tuple[int, bytes]]:
        """Types and contents of the messages, section IV.A.1.a."""
        start = self.file.read(self.address, 16, "object header")
        version, _, count, _, size = struct.unpack_from("<BBHII", start)
        if start[:4] == b"OHDR" or version != 1:
            raise ValueError(f"{self.name}: object header of version {version}: {NEWER}")
        blocks, seen, total = [(self.address + 16, size)], {self.address + 16}, 0
        messages: list[tuple[int, bytes]] = []
        while blocks and len(messages) < count:
            address, size = blocks.pop(0)
            total += size
            if total > MOST_TEXT_BYTES:
                raise ValueError(f"{self.name}: an object header of {total} bytes")
            block = self.file.read(address, size, "object header")
            at = 0
            while at + 8 <= size and len(messages) < count:
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                content = block[at + 8 : at + 8 + length]
                if len(content) != length:
                    raise ValueError(f"damaged: {self.name}: a message of {length} bytes")
                if flags & 2 and kind in (DATASPACE, DATATYPE, LAYOUT, ATTRIBUTE):
                    raise ValueError(f"{self.name}: a shared message: {NEWER}")
                messages.append((kind, content))
                if kind == CONTINUATION and length >= 16:
                    block_address, block_size = struct.unpack_from("<QQ", content)
                    if block_address in seen:
                        raise ValueError(f"damaged: {self.name}: an object header that leads back to itself")
                    seen.add(block_address)
                    blocks.append((block_address, block_size))
                at += 8 + length
        return messages

    def message(self, kind: int) -> bytes | None:
        """The first message of a kind."""
        return next((content for one, content in self.messages if one == kind), None)

    @property
    def is_group(self) -> bool:
        return any(kind in (SYMBOL_TABLE, LINK_INFO) for kind, _ in self.messages)

    @property
    def is_dataset(self) -> bool:
        return self.message(LAYOUT) is not None

    # Groups

    @cached_property
    def links(self) -> dict[str, int | None]:
        """The addresses of the members by name; None for a link that is not a hard link."""
        info = self.message(LINK_INFO)
        if info is not None:
            return self._links_in_messages(info)
        table = self.message(SYMBOL_TABLE)
        if table is None or len(table) < 16:
            raise ValueError(f"{self.name}: expected a group")
        tree, heap = struct.unpack_from("<QQ", table)
        _, _, names = struct.unpack_from("<QQQ", self.file.tagged(heap, b"HEAP", 32), 8)
        links: dict[str, int | None] = {}
        for offset, address, cached in self._entries(tree):
            links[self._link_name(names + offset)] = None if cached == 2 else address
        return links

    def _links_in_messages(self, info: bytes) -> dict[str, int | None]:
        """The links of a group with names beyond ASCII or links of other kinds, sections IV.A.2.c and g."""
        at = 10 if info[1:2] == b"\1" else 2
        if len(info) < at + 8 or struct.unpack_from("<Q", info, at)[0] != UNDEFINED:
            raise ValueError(f"{self.name}: a group with many links of another kind: {NEWER}")
        links: dict[str, int | None] = {}
        for content in (content for kind, content in self.messages if kind == LINK):
            flags = content[1] if len(content) > 1 else 0
            is_hard = not flags & 8 or content[2:3] == b"\0"
            at = 2 + (flags >> 3 & 1) + 8 * (flags >> 2 & 1) + (flags >> 4 & 1)
            width = 1 << (flags & 3)
            length = int.from_bytes(content[at : at + width], "little")
            name, target = content[at + width :][:length], content[at + width + length :][:8]
            if content[:1] != b"\1" or len(name) != length or is_hard and len(target) != 8:
                raise ValueError(f"damaged: {self.name}: a link of {len(content)} bytes")
            links[_decoded(self.name, name)] = int.from_bytes(target, "little") if is_hard else None
        return links

    def _entries(self, tree: int) -> Iterator[tuple[int, int, int]]:
        """Offset of the name, address and type of each entry of a symbol table, sections III.A.1 and III.B."""
        waiting, seen, count = [(tree, 256)], {tree}, 0
        while waiting:
            address, below = waiting.pop()
            head = self.file.tagged(address, b"TREE", 24)
            kind, level, used = struct.unpack_from("<BBH", head, 4)
            if kind != 0 or level >= below:
                raise ValueError(f"damaged: {self.name}: a symbol table of type {kind} and level {level}")
            body = self.file.read(address + 24, 16 * used + 8, "TREE")
            children = [struct.unpack_from("<Q", body, 8 + 16 * k)[0] for k in range(used)]
            for child_address in children:
                if child_address in seen:
                    raise ValueError(f"damaged: {self.name}: a symbol table that leads back to itself")
                seen.add(child_address)
                if level:
                    waiting.append((child_address, level))
                    continue
                (symbols,) = struct.unpack_from("<H", self.file.tagged(child_address, b"SNOD", 8), 6)
                count += symbols
                if count > MOST_ENTRIES:
                    raise ValueError(f"{self.name}: more than {MOST_ENTRIES} members")
                entries = self.file.read(child_address + 8, 40 * symbols, "SNOD")
                for at in range(0, 40 * symbols, 40):
                    yield struct.unpack_from("<QQI", entries, at)

    def _link_name(self, address: int) -> str:
        data = self.file.read(address, max(0, min(MOST_NAME_BYTES, self.file.size - address)), "HEAP")
        name, end, _ = data.partition(b"\0")
        if not end:
            raise ValueError(f"damaged: {self.name}: a name without an end")
        return _decoded(self.name, name)

    # Attributes

    @cached_property
    def attributes(self) -> dict[str, bytes]:
        """The messages of the attributes, by name, section IV.A.2.m."""
        found = {}
        for kind, content in self.messages:
            if kind == ATTRIBUTE_INFO:
                raise ValueError(f"{self.name}: attributes outside of its object header: {NEWER}")
            if kind == ATTRIBUTE:
                name, _, _, _ = _attribute_parts(self.name, content)
                found[name] = content
        return found

    def texts(self, name: str) -> tuple[tuple[int, ...], list[str]]:
        """The shape and the texts of an attribute; an empty one of any type has none."""
        what = f"{self.name}: {name}"
        _, datatype, dataspace, data = _attribute_parts(self.name, self.attributes[name])
        shape = _shape(what, dataspace)
        count = _product(shape)
        if count == 0:
            return shape, []
        kind, bits, size = _datatype(what, datatype)
        is_text = kind == STRING or kind == VARIABLE_LENGTH and bits[0] & 15 == 1
        if not is_text or kind == VARIABLE_LENGTH and size != 16:
            raise ValueError(f"{what}: expected text")
        if count * size > len(data):
            raise ValueError(f"damaged: {what}: {count} texts in {len(data)} bytes")
        parts = [data[k * size : k * size + size] for k in range(count)]
        if kind == STRING:
            return shape, [_decoded(what, part.rstrip(b"\0")) for part in parts]
        references = [struct.unpack("<IQI", part) for part in parts]
        if sum(length for length, _, _ in references) > MOST_TEXT_BYTES:
            raise ValueError(f"{what}: more than {MOST_TEXT_BYTES} bytes")
        heaps = {address: self._heap(address) for address in {a for length, a, _ in references if length}}
        texts = []
        for length, address, index in references:
            if not length:
                texts.append("")
                continue
            at, available = heaps[address].get(index, (0, 0))
            if length > available:
                raise ValueError(f"damaged: {what}: a text of {length} bytes where there are {available}")
            texts.append(_decoded(what, self.file.read(at, length, "GCOL").rstrip(b"\0")))
        return shape, texts

    def _heap(self, address: int) -> dict[int, tuple[int, int]]:
        """Addresses and lengths of the objects of a global heap collection, section III.E."""
        (size,) = struct.unpack_from("<Q", self.file.tagged(address, b"GCOL", 16), 8)
        objects: dict[int, tuple[int, int]] = {}
        at, end = address + 16, address + size
        while at + 16 <= end and len(objects) < MOST_ENTRIES:
            index, _, _, length = struct.unpack("<HHIQ", self.file.read(at, 16, "GCOL"))
            if index == 0:  # free space, which is the last
                break
            if at + 16 + length > end:
                raise ValueError(f"damaged: {self.name}: a heap of texts of {size} bytes with one of {length}")
            objects[index] = (at + 16, length)
            at += 16 + -(-length // 8) * 8
        return objects


def _decoded(what, data):
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: {error}") from error


def _product(shape):
    count = 1
    for n in shape:
        count *= n
    return count


def _attribute_parts(what, content):
    """Name, datatype, dataspace and data of the message of an attribute."""
    if len(content) < 9 or content[0] not in (1, 2, 3) or content[0] > 1 and content[1]:
        raise ValueError(f"{what}: an attribute of version {short(content[:2])}: {NEWER}")
    sizes = struct.unpack_from("<HHH", content, 2)
    at = 9 if content[0] == 3 else 8
    parts = []
    for size in sizes:
        parts.append(content[at : at + size])
        at += -(-size // 8) * 8 if content[0] == 1 else size
    if at > len(content):
        raise ValueError(f"damaged: {what}: an attribute of {len(content)} bytes")
    name, datatype, dataspace = parts
    return _decoded(what, name.partition(b"\0")[0]), datatype, dataspace, content[at:]


def _shape(what, dataspace):
    """The shape of a dataspace message, section IV.A.2.b."""
    if len(dataspace) < 4 or dataspace[0] not in (1, 2):
        raise ValueError(f"{what}: a dataspace of version {short(dataspace[:1])}: {NEWER}")
    version, rank = dataspace[0], dataspace[1]
    if version == 2 and dataspace[3] == 2:
        return (0,)
    at = 8 if version == 1 else 4
    if len(dataspace) < at + 8 * rank:
        raise ValueError(f"damaged: {what}: a dataspace of {len(dataspace)} bytes")
    return struct.unpack_from(f"<{rank}Q", dataspace, at)


def _datatype(what, datatype):
    """Class, bits of the class and size of a datatype message, section IV.A.2.d."""
    if len(datatype) < 8:
        raise ValueError(f"damaged: {what}: a datatype of {len(datatype)} bytes")
    (size,) = struct.unpack_from("<I", datatype, 4)
    return datatype[0] & 15, datatype[1:4], size


def _float_dtype(what, datatype):
    """The NumPy dtype of an IEEE 754 number, or None."""
    kind, bits, size = _datatype(what, datatype)
    if kind != FLOAT or len(datatype) < 20 or size not in IEEE or bits[0] & 0x40:
        return None
    if struct.unpack_from("<HHBBBBI", datatype, 8) != IEEE[size] or bits[1] != 8 * size - 1 or bits[0] >> 4 & 3 != 2:
        return None
    return np.dtype(f"{'>' if bits[0] & 1 else '<'}f{size}")


# Access by names


def child(node: Node, path: str, missing: bool = False) -> Any:
    """The group or dataset under a path, reached by hard links alone.

    With `missing` it is None if there is none.
    """
    for name in path.split("/"):
        if not name:
            continue
        links = node.links if node.is_group else {}
        if name not in links:
            if missing:
                return None
            raise ValueError(f"{node.name}: {short(name)}: missing")
        address = links[name]
        place = f"{node.path}/{name}".lstrip("/")
        if address is None:
            raise ValueError(f"{place}: a soft or external link, which is not followed")
        node = Node(node.file, address, place)
    return node


def dataset_in(group: Node, name: str) -> Weight:
    """A dataset of floating-point numbers, whose bytes lie in the file as they are."""
    node = child(group, name)
    what, file = node.name, node.file
    if not node.is_dataset:
        raise ValueError(f"{what}: expected a dataset")
    if node.message(EXTERNAL_FILES) is not None:
        raise ValueError(f"{what}: its numbers lie in another file, which is not read")
    if node.message(FILTERS) is not None:
        raise ValueError(f"{what}: compressed, which Keras does not write; use h5repack -f NONE")
    datatype, dataspace, layout = (node.message(kind) or b"" for kind in (DATATYPE, DATASPACE, LAYOUT))
    shape, dtype = _shape(what, dataspace), _float_dtype(what, datatype)
    if dtype is None or "dtype" in node.attributes:  # "bfloat16", in which the numbers have another type
        raise ValueError(f"{what}: expected float16, float32 or float64; convert the model to float32")
    nbytes = _product(shape) * dtype.itemsize
    if len(layout) < 18 or layout[0] not in (3, 4) or layout[1] != 1:
        raise ValueError(f"{what}: not contiguous, as Keras writes datasets; use h5repack -l CONTI")
    address, stored = struct.unpack_from("<QQ", layout, 2)
    if nbytes and (address == UNDEFINED or stored != nbytes or not address <= file.size - nbytes):
        raise ValueError(f"{what}: {nbytes} bytes, of which the file of {file.size} bytes does not hold all")

    def read():
        data = file.read(address, nbytes, what) if nbytes else b""
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))

    return Weight(what, shape, read)


def attribute(node: Node, name: str) -> str | None:
    """An attribute that is one text, or None."""
    if name not in node.attributes:
        return None
    shape, texts = node.texts(name)
    if shape:
        raise ValueError(f"{node.name}: {name}: expected text")
    return texts[0]


def has_names(node: Node, name: str) -> bool:
    """Whether there is such a list, as of `names_in`."""
    return name in node.attributes or f"{name}0" in node.attributes


def names_in(node: Node, name: str) -> list[str]:
    """A list of names in an attribute, which Keras divides into name0, name1, ... if it is long."""
    parts = [name]
    if name not in node.attributes:
        parts = []
        while f"{name}{len(parts)}" in node.attributes:
            parts.append(f"{name}{len(parts)}")
        if not parts:
            raise ValueError(f"{node.name}: the attribute {name} is missing")
    names = []
    for part in parts:
        shape, texts = node.texts(part)
        if len(shape) != 1:
            raise ValueError(f"{node.name}: {part}: expected a list of names")
        names += texts
    return names
