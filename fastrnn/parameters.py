"""Named parameters, or their gradients, in one contiguous array."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, ValuesView

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._validation import Array, as_array, float_dtype, shape_error, size

__all__ = ["Parameters"]

# The start of `flat` in memory: a cache line, and the widest vector.
ALIGNMENT = 64

PICKLE_VERSION = 1


def checked_version(state, newest, what):
    """Raises a ValueError unless `state`, of a pickle, has a version from 1 to `newest`."""
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{what}: expected a version of at least 1, got {version!r}")
    if version > newest:
        raise ValueError(f"{what}: version {version}, from a newer fastrnn; this one reads up to {newest}")


class Parameters(Mapping[str, Array]):
    """A fixed set of named arrays, each of them a view of one flat array.

    ``params[name]`` is the array itself, so that writing to it, or to a part of `flat`, changes the
    parameter. ``params[name] = value`` copies the value into it. Names are neither added nor
    removed; they come in the order in which their arrays lie in `flat`.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The names in order, and the shape of each array.
    dtype : data-type, default float32
        float32 or float64.

    Notes
    -----
    All arrays start as zeros. A whole optimizer step is one line: ``params.flat -= rate * d_params.flat``.
    """

    __slots__ = ("_arrays", "_flat", "_layout", "_frozen")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32) -> None:
        if not isinstance(shapes, Mapping):
            raise TypeError(f"shapes: expected a mapping of names to shapes, got {type(shapes).__name__}")
        layout = []
        start = 0
        for name, shape in shapes.items():
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"shapes: expected a tuple of integers for {name!r}, got {type(shape).__name__}")
            shape = tuple(size(name, n, minimum=0) for n in shape)
            stop = start + math.prod(shape)
            layout.append((name, shape, start, stop))
            start = stop
        self._allocate(layout, float_dtype("dtype", dtype), np.zeros)

    def _allocate(self, layout, dtype, allocate):
        size = layout[-1][3] if layout else 0
        memory = allocate(size * dtype.itemsize + ALIGNMENT, np.uint8)
        start = -memory.__array_interface__["data"][0] % ALIGNMENT
        flat = np.ndarray(size, dtype, memory, start)
        self._layout = layout
        self._frozen = None  # what a layer that has frozen these makes of them
        self._flat = flat
        self._arrays = self._views()

    def _views(self):
        """name -> new array; they do not see the shapes that are assigned to those given out."""
        flat = self._flat.reshape(-1)
        return {name: flat[i:j].reshape(shape) for name, shape, i, j in self._layout}

    @property
    def flat(self) -> Array:
        """All values as one contiguous 1-D array, to be read and written in place."""
        return self._flat

    @flat.setter
    def flat(self, value: Array) -> None:
        # `params.flat -= step` works in place and then assigns the same object.
        if value is not self._flat:
            raise AttributeError("flat: can only be written in place, as in params.flat[...] = values")

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        array = self._arrays[name]
        if value is array:  # as after `params[name] -= step`
            return
        value = as_array(name, value, array.dtype)
        if value.shape != array.shape:
            raise shape_error(name, array.shape, (None,) * array.ndim, value.shape)
        if not array.flags.writeable:
            raise ValueError(f"{name}: is read-only; of a frozen layer, unfreeze() makes it writeable")
        array[...] = value.astype(array.dtype, copy=False)  # a cast that fails has written nothing

    def values(self) -> ValuesView[Array]:
        return self._arrays.values()  # ten times as fast as Mapping's, and on the way of every backward

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        """The same names with the same shapes and values."""
        if not isinstance(other, Parameters):
            return NotImplemented
        return self._layout == other._layout and np.array_equal(self._flat, other._flat)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Parameters:
        """The same names and values in memory of their own."""
        other = self.empty_like()
        other._flat[...] = self._flat
        return other

    def zeros_like(self) -> Parameters:
        """The same names and shapes, all zeros: a start for momentum or for accumulated gradients."""
        return self._like(np.zeros)

    def empty_like(self) -> Parameters:
        """The same names and shapes with values not yet set."""
        return self._like(np.empty)

    def _like(self, allocate):
        other = object.__new__(Parameters)
        other._allocate(self._layout, self._flat.dtype, allocate)
        return other

    def _set_writeable(self, writeable):
        """Of all arrays, and of the memory below them, without which none of them can be made writeable again."""
        for array in (self._flat.base, self._flat, *self._arrays.values()):
            array.flags.writeable = writeable

    def _shapes(self):
        return {name: shape for name, shape, _, _ in self._layout}

    # Pickles and deep copies have public names and the values, once; the views are made again.

    def __getstate__(self):
        return {"version": PICKLE_VERSION, "shapes": self._shapes(), "values": self._flat.reshape(-1)}

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, "a pickle of Parameters")
        Parameters.__init__(self, state["shapes"], state["values"].dtype)
        self._flat[...] = state["values"]

    def __repr__(self) -> str:
        lines = [f"    {name}: {shape}\n" for name, shape, _, _ in self._layout]
        return f"Parameters({self._flat.dtype}, {self._flat.size} values\n{''.join(lines)})"
