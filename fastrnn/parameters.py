"""Named parameters, or their gradients, in one contiguous array."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._core import ALIGNMENT
from fastrnn._validation import Array, as_array, check_cast, detached, float_dtype, shape_error, size

__all__ = ["Parameters"]

PICKLE_VERSION = 1


def checked_version(state, newest, what):
    """Raise a ValueError unless `state`, of a pickle, has a version from 1 to `newest`."""
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{what}: expected a version of at least 1, got {version!r}")
    if version > newest:
        raise ValueError(f"{what}: version {version}, from a newer fastrnn; this one reads up to {newest}")


def check_loaded(name, value, array):
    """Refuse an array of a state_dict that does not fit, or has the stored numbers of a quantized layer."""
    if value.dtype in (np.int8, np.uint8, np.uint16):
        raise TypeError(f"{name}: {value.dtype}, as of a quantized layer; give the parameters of its dequantized()")
    check_values(name, value, array)


def check_values(name, value, array):
    """Refuse an array whose dtype or shape does not fit a parameter."""
    check_cast(name, value, array.dtype)
    if value.shape != array.shape:
        raise shape_error(name, array.shape, (None,) * array.ndim, value.shape)


# Guards the flags `writeable` of all Parameters, which other threads may change at the same time. The thread that holds
# it may take it again: a signal handler may freeze and unfreeze.
FLAGS = threading.RLock()


def _renew_flags():
    """In a child process, where another thread may have held the lock at the fork."""
    global FLAGS
    FLAGS = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_flags)


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

    # `flat` returns _whole, a view of _flat, and never _flat itself. _whole and the _arrays are replaced by new views
    # once their shape has been assigned to.
    __slots__ = ("_arrays", "_flat", "_whole", "_displaced", "_layout", "_frozen", "_unfrozen", "_attempts")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32) -> None:
        if not isinstance(shapes, Mapping):
            raise TypeError(f"shapes: expected a mapping of names to shapes, got {type(shapes).__name__}")
        layout = self._laid_out(shapes)
        total = sum(stop - start for _, start, stop in layout.values())
        self._allocate(layout, total, float_dtype("dtype", dtype), np.zeros)

    @staticmethod
    def _laid_out(shapes):
        """name -> shape, start and stop in `flat`."""
        layout: dict[str, tuple[tuple[int, ...], int, int]] = {}
        start = 0
        for name, shape in shapes.items():
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"shapes: expected a tuple of integers for {name!r}, got {type(shape).__name__}")
            shape = tuple(size(name, n, minimum=0) for n in shape)
            stop = start + math.prod(shape)
            layout[name] = shape, start, stop
            start = stop
        return layout

    @classmethod
    def _over(cls, shapes, flat):
        """Parameters whose values are the array `flat`, of a whole number of ALIGNMENT from the start of its memory."""
        other = object.__new__(cls)
        other._own(cls._laid_out(shapes), flat)
        return other

    def _allocate(self, layout, size, dtype, allocate):
        memory = allocate(size * dtype.itemsize + ALIGNMENT, np.uint8)
        start = -memory.__array_interface__["data"][0] % ALIGNMENT
        self._own(layout, np.ndarray(size, dtype, memory, start))

    def _own(self, layout, flat):
        self._layout = layout
        self._frozen = None  # the packed weights of a layer that has frozen these, or None
        self._unfrozen = 0  # how often these were unfrozen
        self._attempts: set[object] = set()  # to freeze these, in progress
        self._flat = flat
        self._whole = self._flat.view()
        self._arrays = self._views()
        self._displaced = []

    def _views(self):
        """name -> new array; they do not see the shapes that are assigned to those given out."""
        flat, views = self._flat, {}
        for name, (shape, i, j) in self._layout.items():
            views[name] = flat[i:j].reshape(shape)
        return views

    def _is_as_given_out(self, array, shape):
        return array.shape == shape and array.dtype == self._flat.dtype and array.flags.c_contiguous

    def _replacement(self, array, new):
        """The view `new`, returned from now on in place of `array`, whose shape was assigned to."""
        with FLAGS:
            new.flags.writeable = self._flat.flags.writeable
            # Its holder may go on writing to it; freeze has to reach it, too, and the new one.
            self._displaced = [one for one in self._displaced if one() is not None]
            self._displaced += [weakref.ref(array), weakref.ref(new)]
        return new

    @property
    def flat(self) -> Array:
        """All values as one contiguous 1-D array, to be read and written in place."""
        if not self._is_as_given_out(self._whole, self._flat.shape):
            self._whole = self._replacement(self._whole, self._flat.view())
        return self._whole

    @flat.setter
    def flat(self, value: Array) -> None:
        # `params.flat -= step` works in place and then assigns the same object.
        if value is not self._whole:
            raise AttributeError("flat: can only be written in place, as in params.flat[...] = values")

    def __getitem__(self, name: str) -> Array:
        try:
            array = self._arrays[name]
        except KeyError:
            raise KeyError(f"{name}: is not among the names {', '.join(self._arrays)}") from None
        shape, start, stop = self._layout[name]
        if not self._is_as_given_out(array, shape):
            array = self._arrays[name] = self._replacement(array, self._flat[start:stop].reshape(shape))
        return array

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        array = self[name]
        if value is array:  # as after `params[name] -= step`
            return
        value = as_array(name, detached(value))
        array = self[name]
        check_values(name, value, array)
        if not array.flags.writeable:
            raise ValueError(f"{name}: is read-only; of a frozen layer, unfreeze() makes it writeable")
        array[...] = value.astype(array.dtype, copy=False)  # a cast that fails has written nothing

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        """The same names with the same shapes and values."""
        if not isinstance(other, Parameters):
            return NotImplemented
        return [*self._layout.items()] == [*other._layout.items()] and np.array_equal(self._flat, other._flat)

    __hash__ = None  # type: ignore[assignment]

    # Arithmetic is that of `flat`. None, so that NumPy asks the operators here, `==` among them.
    __array_ufunc__ = None

    def _no_arithmetic(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("Parameters: have no arithmetic; use .flat, as in params.flat -= rate * d_params.flat")

    __array__ = __array_function__ = _no_arithmetic
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _no_arithmetic
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _no_arithmetic
    __neg__ = __abs__ = _no_arithmetic

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
        other._allocate(self._layout, self._flat.size, self._flat.dtype, allocate)
        return other

    def _set_writeable(self, writeable):
        """Of all arrays, and of the memory below them, without which none of them can be made writeable again."""
        with FLAGS:
            displaced = [array for one in self._displaced if (array := one()) is not None]
            for array in (self._flat.base, self._flat, self._whole, *self._arrays.values(), *displaced):
                array.flags.writeable = writeable

    def _freeze(self, pack: Callable[[], object]) -> None:
        """Make the arrays read-only and keep the result of `pack`, unless they are unfrozen in the meantime."""
        unfrozen, attempt = None, object()
        try:
            with FLAGS:
                self._attempts.add(attempt)
                while unfrozen != self._unfrozen:  # again if a signal handler has unfrozen them
                    unfrozen = self._unfrozen
                    self._set_writeable(False)
            frozen = pack()
            with FLAGS:
                if self._unfrozen == unfrozen:
                    self._frozen = frozen
                    if self._unfrozen != unfrozen and self._frozen is frozen:  # again
                        self._frozen = None
        finally:  # also after Ctrl-C
            with FLAGS:
                self._attempts.discard(attempt)
                if self._frozen is None and not self._attempts:
                    self._set_writeable(True)

    def _unfreeze(self) -> None:
        with FLAGS:
            self._unfrozen += 1
            self._frozen = None
            self._set_writeable(True)
            if self._frozen is not None:  # a signal handler has frozen them
                self._set_writeable(False)

    def _shapes(self):
        return {name: shape for name, (shape, _, _) in self._layout.items()}

    # Pickles and deep copies have public names and the values, once; the views are made again.

    def __getstate__(self):
        return {"version": PICKLE_VERSION, "shapes": self._shapes(), "values": self._flat.reshape(-1)}

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, "a pickle of Parameters")
        Parameters.__init__(self, state["shapes"], state["values"].dtype)
        self._flat[...] = state["values"]

    def __repr__(self) -> str:
        lines = [f"    {name}: {shape}\n" for name, (shape, _, _) in self._layout.items()]
        return f"Parameters({self._flat.dtype}, {self._flat.size} values\n{''.join(lines)})"
