"""Arrays of files before they are read: their sizes are known, their numbers still in the file."""

from __future__ import annotations

import math
import re
import sys

import numpy as np

from fastrnn._engine.formats import widened
from fastrnn._unpickling import Opaque, StandIn
from fastrnn._validation import Array, short

__all__ = ["Bfloat16Array", "Leaf", "NumpyArray", "NumpyDtype", "Refused", "check_sizes", "integers", "own"]

MOST_AXES = 32  # of NumPy 1; NumPy 2 has 64


class Leaf(StandIn):
    """A tensor or array of a pickle, whose numbers are read later."""

    __slots__ = ()

    def nbytes(self) -> int:
        """The bytes of `array()`."""
        raise NotImplementedError

    def array(self) -> Array:
        """A new array, in native byte order."""
        raise NotImplementedError

    def is_text(self) -> bool:
        """Whether it is an array of text, which is no tensor."""
        return False

    def is_of_objects(self) -> bool:
        """Whether it is an array of Python objects or dates."""
        return False


class Refused(Leaf):
    """A tensor that NumPy cannot express, refused under its name in the file."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def nbytes(self) -> int:
        raise ValueError(f"{self.reason}, which is not read")


class NumpyDtype(Opaque):
    """A dtype of NumPy: its code, without byte order, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code):
        super().__init__("numpy.dtype")
        self.code, self.order = code, "="

    def build(self, state):
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("the state of a NumPy dtype")
        self.order = state[1]
        if state[3] is not None or state[4] is not None:
            self.code = "V"  # a structured dtype


class NumpyArray(Leaf):
    """An array of NumPy; without a state it is empty."""

    __slots__ = ("shape", "dtype", "fortran", "data")

    def __init__(self, shape=(0,), dtype=None, fortran=False, data=b""):
        self.shape, self.dtype, self.fortran, self.data = shape, dtype or NumpyDtype("u1"), fortran, data

    def build(self, state):
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], NumpyDtype):
            raise ValueError("the state of a NumPy array")
        _, shape, self.dtype, self.fortran, self.data = state
        self.shape = integers("shape", shape)

    def numpy_dtype(self):
        if not re.fullmatch(r"[biufc]\d{1,2}", self.dtype.code):
            raise ValueError(f"a NumPy array of dtype {short(self.dtype.code)}, which is not read")
        try:
            return np.dtype(self.dtype.code).newbyteorder(self.dtype.order)
        except TypeError as error:
            raise ValueError(f"a NumPy array of dtype {short(self.dtype.code)}, which is unknown") from error

    def nbytes(self):
        dtype = self.numpy_dtype()
        check_sizes(self.shape)
        nbytes = math.prod(self.shape) * dtype.itemsize
        if self.data_size() != nbytes:
            raise ValueError(f"sizes {short(self.shape)} of {dtype} with {self.data_size()} bytes of data")
        return nbytes

    def data_size(self):
        """Bytes of the data, which Python 2 writes as a str."""
        if type(self.data) is str:
            self.data = self.data.encode()
        return len(self.data) if isinstance(self.data, (bytes, bytearray)) else -1

    def array(self):
        if self.fortran is True:
            return own(np.ndarray(self.shape, self.numpy_dtype(), self.data, order="F"))
        return own(np.ndarray(self.shape, self.numpy_dtype(), self.data))

    def is_text(self):
        return self.dtype.code[:1] in ("U", "S")

    def is_of_objects(self):
        return self.dtype.code[:1] in ("O", "M", "m")


class Bfloat16Array(NumpyArray):
    """An array of bfloat16 numbers, whose dtype in NumPy is uint16; read as float32."""

    __slots__ = ()

    def nbytes(self):
        return 2 * super().nbytes()

    def array(self):
        return widened(super().array())


def own(array: Array) -> Array:
    """A C-contiguous copy in native byte order; the bytes of its booleans are 0 and 1."""
    if array.dtype == bool:
        return np.not_equal(array.view(np.uint8), 0, out=np.empty(array.shape, bool))
    return array.astype(array.dtype.newbyteorder("="), order="C")


def integers(name, value):
    """A tuple of integers of 64 bits, one for each axis, from a tuple or list."""
    if type(value) in (tuple, list) and len(value) > MOST_AXES:
        raise ValueError(f"{name}: {len(value)} axes, at most {MOST_AXES} are read")
    if type(value) not in (tuple, list) or any(type(i) is not int or not -(2**63) <= i < 2**63 for i in value):
        raise ValueError(f"{name}: expected integers of 64 bits")
    return tuple(value)


def check_sizes(shape):
    """Refuse sizes of which NumPy could make no array; those of an empty one are not limited by its bytes."""
    if any(size < 0 for size in shape) or math.prod(size or 1 for size in shape) > sys.maxsize >> 4:
        raise ValueError(f"sizes {short(shape)}")
