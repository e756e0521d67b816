"""One step after the other, as the inputs come: a stack of layers that carries its own state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn import _core
from fastrnn._threads import get_num_threads
from fastrnn._validation import as_array, native, pair, shape_error, shaped_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastrnn._validation import State

__all__ = ["LSTMStream"]


class LSTMStream(_core.LSTMSteps):
    """What `LSTM.stream` returns: the layer, one step a call, from a state of zeros.

    Each `step` gives the bits that the layer would give for the whole sequence. The weights are those of the moment
    when the stream was made. A stream is one sequence (or batch) in progress: it is for one thread at a time, while
    any number of streams of one frozen layer share its packed weights.
    """

    def __init__(self, packed, input_size, state_shape, dtype, batched):
        h, c = np.zeros(state_shape, dtype), np.zeros(state_shape, dtype)
        super().__init__(packed, h, c, batched, get_num_threads)
        self._batched = batched
        self._input_size = input_size

    def __reduce__(self):
        raise TypeError("a stream cannot be copied or pickled; make another and give it the state")

    # What step() asks for where an argument is not as the kernel takes it

    def _native_x(self, x_t):
        _, B, _ = self._h.shape
        symbols, sizes = ("B", "input_size"), (B, self._input_size)
        if not self._batched:
            symbols, sizes = symbols[1:], sizes[1:]
        dtype = self._h.dtype
        x_t = as_array("x_t", x_t, dtype)
        if x_t.shape != sizes:
            raise shape_error("x_t", symbols, sizes, x_t.shape)
        return native(x_t, dtype)

    def _check_out(self, out):
        _, B, H = self._h.shape
        symbols, sizes = ("B", "hidden_size"), (B, H)
        if not self._batched:
            symbols, sizes = symbols[1:], sizes[1:]
        if type(out) is not np.ndarray or out.dtype != self._h.dtype:
            given = f"an array of {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise TypeError(f"out: expected an array of {self._h.dtype}, got {given}")
        if out.shape != sizes:
            raise shape_error("out", symbols, sizes, out.shape)
        if not out.flags.writeable:
            raise ValueError("out: is read-only")

    @property
    def state(self) -> tuple[NDArray, NDArray]:
        """(h, c), copies, each (num_layers, B, H) or (num_layers, H); can be assigned to."""
        return tuple(s.copy() if self._batched else s[:, 0].copy() for s in (self._h, self._c))

    @state.setter
    def state(self, value: State | None) -> None:
        L, B, H = self._h.shape
        symbols, sizes = ("num_layers", "B", "hidden_size"), (L, B, H)
        if not self._batched:
            symbols, sizes = ("num_layers", "hidden_size"), (L, H)
        members = pair("state", value, "(h, c)")
        new = [
            shaped_array(f"state ({name})", member, symbols, sizes, self._h.dtype)
            for name, member in zip("hc", members, strict=True)
        ]
        # Each is copied before either is written: it may be a view of the other.
        new = [0 if s is None else np.array(s, self._h.dtype).reshape(L, B, H) for s in new]
        self._h[...], self._c[...] = new

    def reset(self) -> None:
        """Set the state to zeros."""
        self.state = None
