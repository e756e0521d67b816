"""A reader of pickles that executes nothing: plain values, and stand-ins for an explicit list of names.

The pickle module imports the names that a pickle gives and calls them. This reader is an interpreter of the opcodes
that `pickle` and PyTorch write at the protocols 2 to 5, without text opcodes, EXT and OBJ. A name is looked up in a
table of the caller; the objects found there belong to fastrnn. The opcodes are those of `pickletools` in the standard
library.

Any other class or function is a `Placeholder`, and so is whatever the pickle makes of it: nothing is called, and the
arguments, states, items and attributes that belong to it are dropped.

Every length is compared with the bytes that are left before anything is allocated. Keys of dicts and members of sets
are scalars, or tuples of scalars: hashing a tuple of tuples recurses in C. The interpreter itself does not recurse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = [
    "Attributes",
    "Function",
    "LeftOut",
    "NewClass",
    "Opaque",
    "OrderedDict",
    "Placeholder",
    "StandIn",
    "checked_key",
    "checked_keys",
    "read_pickle",
]

# Each opcode makes at most one object, the largest an empty set of 216 bytes: at most 500 MB.
MOST_OPCODES = 1 << 21

MOST_PARTS_OF_A_KEY = 16
SCALARS = (str, bytes, int, float, bool, type(None))
MARK = object()

# Python 2's modules. Protocol 2 has them also in pickles of Python 3.
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class StandIn:
    """The base of the objects of fastrnn that stand for those of a pickle."""

    __slots__ = ()


class Opaque(StandIn):
    """A value that is neither a tensor nor a container: a dtype, a device, a type."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class LeftOut:
    """The first names of classes and functions that are not read, and whether an object is a torch.nn.Module."""

    __slots__ = ("names", "has_more", "has_model")

    MOST_NAMES = 4

    def __init__(self) -> None:
        self.names: list[str] = []
        self.has_more = self.has_model = False

    def __bool__(self) -> bool:
        return bool(self.names)

    def add(self, name: str) -> None:
        if name in self.names:
            return
        if len(self.names) < self.MOST_NAMES:
            self.names.append(name)
        else:
            self.has_more = True


class Placeholder(Opaque):
    """A class or function that is not read, or an object made with one: it keeps nothing but the name."""

    __slots__ = ("left",)

    def __init__(self, name: str, left: LeftOut) -> None:
        super().__init__(name)
        self.left = left

    def made(self) -> Placeholder:
        """The result of a call."""
        return Placeholder(self.name, self.left)

    def build(self, state: object) -> None:
        if type(state) is dict and "_parameters" in state and "_modules" in state:
            self.left.has_model = True


class Function(StandIn):
    """A stand-in for a function or class that a pickle may call, with `least` to `most` arguments."""

    __slots__ = ("call", "least", "most")

    def __init__(self, call: Callable[..., Any], least: int, most: int) -> None:
        self.call, self.least, self.most = call, least, most


class NewClass(StandIn):
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
    if type(key) is tuple and len(key) > MOST_PARTS_OF_A_KEY:
        raise ValueError(f"the key of a dict, or member of a set: a tuple of {len(key)}")
    for part in key if type(key) is tuple else (key,):
        if type(part) not in SCALARS or (type(part) is int and not -(2**63) <= part < 2**64):
            raise ValueError(
                f"the key of a dict, or member of a set: {type(part).__name__} within {type(key).__name__}"
            )
    return key


def checked_keys(keys: Iterable[Any]) -> Iterator[Any]:
    """The keys, without those that are objects or contain one."""
    return (checked_key(key) for key in keys if not _is_object_key(key))


def _is_object_key(key: Any) -> bool:
    """Whether the key of a dict, or a part of it, is a stand-in: its value is left out."""
    if type(key) is not tuple:
        return isinstance(key, StandIn)
    return len(key) <= MOST_PARTS_OF_A_KEY and any(isinstance(part, StandIn) for part in key)


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
        Of module and name: the stand-in, an `Opaque`, `Placeholder`, `Function` or `NewClass`. It may raise ValueError.
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

    def is_left_out(self):
        """Whether the object on the stack is a placeholder, which keeps no items."""
        return bool(self.stack) and isinstance(self.stack[-1], Placeholder)

    def append(self, values):
        if not self.is_left_out():
            self.top(list).extend(values)

    def set_items(self, values):
        if len(values) % 2:
            raise ValueError("a key without a value")
        if self.is_left_out():
            return
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not _is_object_key(key):
                target[checked_key(key)] = value

    def set_item(self):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self, values):
        if not self.is_left_out():
            self.top(set).update(checked_keys(values))

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
        if isinstance(function, Placeholder):
            return self.push(function.made())
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise ValueError(f"a call of {_described(function)}, which is not read")
        if not function.least <= len(arguments) <= function.most:
            raise ValueError(f"a call with {len(arguments)} arguments, of {function.least} to {function.most}")
        for argument in arguments:
            self.spend_on(argument)
        self.push(function.call(*arguments))

    def new(self):
        arguments, cls = self.pop(), self.pop()
        if isinstance(cls, Placeholder):
            return self.push(cls.made())
        if not isinstance(cls, NewClass) or arguments != ():
            raise ValueError(f"an instance of {_described(cls)}, which is not read")
        self.push(Attributes())

    def new_with_keywords(self):
        _, _, cls = self.pop(), self.pop(), self.pop()
        if not isinstance(cls, Placeholder):
            raise ValueError(f"an instance of {_described(cls)} with keywords, which is not read")
        self.push(cls.made())

    def build(self):
        state = self.pop()
        if not self.stack or not hasattr(self.stack[-1], "build"):
            raise ValueError(f"the state of {_described(self.stack[-1] if self.stack else None)}, which is not read")
        if not self.is_left_out():
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
    0x91: lambda m: m.push(frozenset(checked_keys(m.since_mark()))),
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
    0x92: lambda m: m.new_with_keywords(),
    ord("Q"): lambda m: m.load_persistent(),
    0x80: lambda m: m.number(1),  # the protocol, which the opcodes show
    0x95: lambda m: m.number(8),  # a frame, for readers from a pipe
}
