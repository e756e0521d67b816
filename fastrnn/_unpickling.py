"""A reader of pickles that executes nothing: plain values, and stand-ins for an explicit list of names.

The pickle module imports the names that a pickle gives and calls them. This reader is an interpreter of the opcodes
that `pickle` and PyTorch write at the protocols 2 to 5, without text opcodes, EXT and OBJ. A name is looked up in a
table of the caller; the objects found there belong to fastrnn. The opcodes are those of `pickletools` in the standard
library.

Every length is compared with the bytes that are left before anything is allocated. Keys of dicts and members of sets
are scalars, or tuples of scalars: hashing a tuple of tuples recurses in C. The interpreter itself does not recurse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Attributes", "Function", "NewClass", "Opaque", "OrderedDict", "checked_key", "read_pickle"]

# Each opcode makes at most one object, the largest an empty set of 216 bytes: at most 500 MB.
MOST_OPCODES = 1 << 21

SCALARS = (str, bytes, int, float, bool, type(None))
MARK = object()

# Python 2's modules. Protocol 2 has them also in pickles of Python 3.
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Opaque:
    """A value that is neither a tensor nor a container: a dtype, a device, a type."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Function:
    """A stand-in for a function or class that a pickle may call, with `least` to `most` arguments."""

    __slots__ = ("call", "least", "most")

    def __init__(self, call: Callable[..., Any], least: int, most: int) -> None:
        self.call, self.least, self.most = call, least, most


class NewClass:
    """A stand-in for a class of which a pickle may make an instance without arguments, a dict of its attributes."""


class OrderedDict(dict[Any, Any]):
    """A dict whose attributes are ignored, such as the _metadata of a state_dict."""

    def build(self, state: object) -> None:
        pass


class Attributes(dict[Any, Any]):
    """An object with attributes alone, by their names."""

    def build(self, state: object) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"attributes: expected a dict, got {type(state).__name__}")
        self.update(state)


def checked_key(key: Any) -> Any:
    """The key of a dict or member of a set, unchanged; refuses all but scalars and tuples of up to 16 of them.

    Integers of more than 64 bits are refused: their hashes can be made equal, which makes dicts slow.
    """
    if type(key) is tuple and len(key) > 16:
        raise ValueError(f"the key of a dict, or member of a set: a tuple of {len(key)}")
    for part in key if type(key) is tuple else (key,):
        if type(part) not in SCALARS or (type(part) is int and not -(2**63) <= part < 2**64):
            raise ValueError(
                f"the key of a dict, or member of a set: {type(part).__name__} within {type(key).__name__}"
            )
    return key


def read_pickle(
    data: memoryview,
    start: int,
    find: Callable[[str, str], object],
    persistent: Callable[[object], object] | None = None,
) -> tuple[Any, int]:
    """The value of the pickle that begins at `start`, and the position after it.

    Parameters
    ----------
    data : memoryview of bytes
    start : int
    find : callable
        Of module and name: the stand-in, an `Opaque`, `Function` or `NewClass`. Raises ValueError for others.
    persistent : callable, optional
        Of the persistent id: the object. Without it persistent ids are refused.

    Raises
    ------
    ValueError
        If the pickle is damaged, ends early, or needs more than plain values and stand-ins.
    """
    machine = Machine(data, start, find, persistent)
    return machine.run(), machine.position


class Machine:
    """The stack, the memo and the position of one pickle."""

    def __init__(self, data, start, find, persistent):
        self.data, self.position = data, start
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps, self.copies = MOST_OPCODES, len(data)

    def run(self):
        while True:
            at = self.position
            self.spend(1)
            code = self.take(1)[0]
            if code == STOP:
                value = self.pop()
                if self.stack:
                    raise ValueError(f"byte {at}: the pickle ends with {len(self.stack)} values too many")
                return value
            if code not in OPCODES:
                raise ValueError(f"byte {at}: the pickle opcode {_opcode_name(code)} is not read")
            try:
                OPCODES[code](self)
            except (ValueError, struct.error) as error:
                raise ValueError(f"byte {at}: {error}") from error

    def spend(self, steps, copies=0):
        """Count opcodes and copied members of containers as steps, and copied bytes and characters."""
        self.steps -= steps
        self.copies -= copies
        if self.steps < 0:
            raise ValueError(f"a pickle of more than {MOST_OPCODES} opcodes")
        if self.copies < 0:
            raise ValueError("a pickle that copies its text or bytes again and again")

    def spend_on(self, argument):
        """Count an argument that is copied by a call: one that the memo holds could be copied any number of times."""
        if isinstance(argument, (str, bytes, bytearray)):
            self.spend(0, len(argument))
        elif isinstance(argument, (list, tuple, dict, set, frozenset)):
            self.spend(len(argument))

    # Bytes

    def take(self, count):
        """The next `count` bytes."""
        if count > len(self.data) - self.position:
            raise ValueError(f"the pickle ends early: {count} bytes, {len(self.data) - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, width, signed=False):
        """The next `width` bytes as a little-endian integer."""
        return int.from_bytes(self.take(width), "little", signed=signed)

    def counted(self, width, signed=False):
        """As many bytes as the number of `width` bytes before them says."""
        count = self.number(width, signed)
        if count < 0:
            raise ValueError(f"a negative length, {count}")
        return bytes(self.take(count))

    def text(self, width):
        return str(self.counted(width), "utf-8", "surrogatepass")

    def line(self):
        """The text up to the end of the line."""
        window = bytes(self.data[self.position : self.position + 1024])
        end = window.find(b"\n")
        if end < 0:
            raise ValueError("a name of more than 1023 bytes, or the pickle ends early")
        return str(self.take(end + 1)[:-1], "utf-8")

    # Stack

    def push(self, value):
        self.stack.append(value)

    def pop(self):
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError("the stack is empty")
        return self.stack.pop()

    def top(self, kind):
        """The object on the stack, of this class."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"expected a {kind.__name__} on the stack")
        return self.stack[-1]

    def since_mark(self):
        """The values above the last mark, which are removed with it."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("there is no mark")

    def tuple_of(self, count):
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def memoize(self, index):
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError("the stack is empty")
        self.memo[index] = self.stack[-1]

    def recall(self, index):
        if index not in self.memo:
            raise ValueError(f"the memo has no object {index}")
        self.push(self.memo[index])

    # Containers

    def append(self, values):
        self.top(list).extend(values)

    def set_items(self, values):
        if len(values) % 2:
            raise ValueError("a key without a value")
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def set_item(self):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self, values):
        self.top(set).update(map(checked_key, values))

    # Stand-ins

    def find_global(self, module, name):
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is not text")
        self.spend(0, len(module) + len(name))
        self.push(self.find(PYTHON_2.get(module, module), name))

    def find_on_stack(self):
        name, module = self.pop(), self.pop()
        self.find_global(module, name)

    def reduce(self):
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise ValueError(f"a call of {_described(function)}, which is not read")
        if not function.least <= len(arguments) <= function.most:
            raise ValueError(f"a call with {len(arguments)} arguments, of {function.least} to {function.most}")
        for argument in arguments:
            self.spend_on(argument)
        self.push(function.call(*arguments))

    def new(self):
        arguments, cls = self.pop(), self.pop()
        if not isinstance(cls, NewClass) or arguments != ():
            raise ValueError(f"an instance of {_described(cls)}, which is not read")
        self.push(Attributes())

    def build(self):
        state = self.pop()
        if not self.stack or not hasattr(self.stack[-1], "build"):
            raise ValueError(f"the state of {_described(self.stack[-1] if self.stack else None)}, which is not read")
        self.spend_on(state)
        self.stack[-1].build(state)

    def load_persistent(self):
        if self.persistent is None:
            raise ValueError("a persistent id where none belongs")
        self.push(self.persistent(self.pop()))


def _described(value):
    return value.name if isinstance(value, Opaque) else f"a {type(value).__name__}"


def _opcode_name(code):
    import pickletools

    name = next((opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code), "unknown")
    return f"{name} (0x{code:02x})"


def _text_or_bytes(data):
    """The bytes of a str of Python 2 as text, or unchanged if they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


STOP = ord(".")
OPCODES: Mapping[int, Callable[[Machine], object]] = {
    ord("("): lambda m: m.push(MARK),
    ord("0"): lambda m: m.pop(),
    ord("1"): lambda m: m.since_mark(),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    0x8A: lambda m: m.push(int.from_bytes(m.counted(1), "little", signed=True)),
    0x8B: lambda m: m.push(int.from_bytes(m.counted(4, signed=True), "little", signed=True)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push(m.text(4)),
    0x8C: lambda m: m.push(m.text(1)),
    0x8D: lambda m: m.push(m.text(8)),
    ord("T"): lambda m: m.push(_text_or_bytes(m.counted(4, signed=True))),
    ord("U"): lambda m: m.push(_text_or_bytes(m.counted(1))),
    ord("B"): lambda m: m.push(m.counted(4)),
    ord("C"): lambda m: m.push(m.counted(1)),
    0x8E: lambda m: m.push(m.counted(8)),
    0x96: lambda m: m.push(bytearray(m.counted(8))),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.since_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_item(),
    ord("u"): lambda m: m.set_items(m.since_mark()),
    0x8F: lambda m: m.push(set()),
    0x90: lambda m: m.add_items(m.since_mark()),
    0x91: lambda m: m.push(frozenset(map(checked_key, m.since_mark()))),
    ord("h"): lambda m: m.recall(m.number(1)),
    ord("j"): lambda m: m.recall(m.number(4)),
    ord("q"): lambda m: m.memoize(m.number(1)),
    ord("r"): lambda m: m.memoize(m.number(4)),
    0x94: lambda m: m.memoize(len(m.memo)),
    ord("c"): lambda m: m.find_global(m.line(), m.line()),
    0x93: lambda m: m.find_on_stack(),
    ord("R"): lambda m: m.reduce(),
    ord("b"): lambda m: m.build(),
    0x81: lambda m: m.new(),
    ord("Q"): lambda m: m.load_persistent(),
    0x80: lambda m: m.number(1),  # the protocol, which the opcodes show
    0x95: lambda m: m.number(8),  # a frame, for readers from a pipe
}
