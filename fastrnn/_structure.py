"""Numbers, arrays, Parameters and sequences of these as one flat array for each dtype, and back."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _core
from fastrnn._core import ALIGNMENT
from fastrnn._engine.pool import POOL
from fastrnn._validation import FLOAT32, FLOAT64, Array, is_number, real
from fastrnn.parameters import Parameters


@dataclass(frozen=True)
class Structure:
    """The form of a value: equal for values whose numbers can be added one by one."""

    kind: str  # "number", "array", "Parameters", "list" or "tuple"
    dtype: str = ""
    shapes: tuple[Any, ...] = ()  # the shape of an array; (name, shape) of each of Parameters
    members: tuple[Structure, ...] = ()

    def __str__(self) -> str:
        if self.kind == "number":
            return "a number"
        if self.kind == "array":
            return f"{self.dtype} {self.shapes}"
        if self.kind == "Parameters":
            return f"Parameters of {self.dtype} " + ", ".join(f"{name} {shape}" for name, shape in self.shapes)
        return f"a {self.kind} of " + "; ".join(map(str, self.members))

    @property
    def digest(self) -> int:
        """63 bits that differ, in all probability, where structures do."""
        return int.from_bytes(hashlib.blake2b(repr(self).encode(), digest_size=8).digest(), "little") >> 1


def flattened(name: str, value: Any) -> tuple[Structure, list[Array]]:
    """The structure of a value and its leaves, arrays of one axis, which share its memory if they can."""
    if isinstance(value, (list, tuple)):
        pairs = [flattened(f"{name}[{k}]", one) for k, one in enumerate(value)]
        kind = "list" if isinstance(value, list) else "tuple"
        return Structure(kind, members=tuple(s for s, _ in pairs)), [leaf for _, leaves in pairs for leaf in leaves]
    if isinstance(value, Parameters):
        flat = value._flat
        return Structure("Parameters", flat.dtype.name, tuple(value._shapes().items())), [flat]
    if is_number(value):
        return Structure("number", FLOAT64.name), [np.array([real(name, value)], FLOAT64)]
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a number, an ndarray, Parameters or a sequence, got {type(value).__name__}")
    if value.dtype not in (FLOAT32, FLOAT64):
        raise TypeError(f"{name}: expected float32 or float64, got {value.dtype}")
    array = _core.native(value.view(np.ndarray), value.dtype.newbyteorder("="))
    return Structure("array", array.dtype.name, array.shape), [array.reshape(-1)]


class Buffer:
    """Memory for the leaves of a structure: for each dtype one array, `flats`, of which the `leaves` are views.

    The memory is of the pool; `give_back` returns it, if nothing refers to it any more.
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        kinds = list(_leaves(structure))
        self._memory: list[Array] = []
        self.flats: dict[str, Array] = {}
        self.leaves: list[Array] = [np.empty(0)] * len(kinds)
        for dtype in sorted({dtype for dtype, _ in kinds}):
            places = [k for k, (kind, _) in enumerate(kinds) if kind == dtype]
            self._allocate(np.dtype(dtype), places, [kinds[k][1] for k in places])

    def _allocate(self, dtype, places, sizes):
        # Each leaf begins at a multiple of ALIGNMENT bytes, because that is where those of Parameters do.
        step = ALIGNMENT // dtype.itemsize
        starts = list(itertools.accumulate((-(-n // step) * step for n in sizes[:-1]), initial=0))
        memory = POOL.bytes((starts[-1] + sizes[-1]) * dtype.itemsize)
        self._memory.append(memory)
        flat = self.flats[dtype.name] = memory.view(dtype)
        end = 0
        for place, start, n in zip(places, starts, sizes):
            flat[end:start] = 0
            end = start + n
            self.leaves[place] = flat[start:end]

    def give_back(self) -> None:
        """Give the memory back to the pool."""
        POOL.give_back_all(self._memory)

    def value(self) -> Any:
        """The value, whose arrays are views of this memory."""
        return _built(self._structure, iter(self.leaves))


def _leaves(structure):
    """The dtype and the size of each leaf."""
    if structure.kind in ("list", "tuple"):
        for member in structure.members:
            yield from _leaves(member)
    elif structure.kind == "Parameters":
        yield structure.dtype, sum(math.prod(shape) for _, shape in structure.shapes)
    else:
        yield structure.dtype, math.prod(structure.shapes)


def _built(structure, leaves):
    if structure.kind in ("list", "tuple"):
        members = [_built(member, leaves) for member in structure.members]
        return members if structure.kind == "list" else tuple(members)
    leaf = next(leaves)
    if structure.kind == "number":
        return float(leaf[0])
    if structure.kind == "array":
        return leaf.reshape(structure.shapes)
    return Parameters._over(dict(structure.shapes), leaf)
