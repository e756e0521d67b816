"""One step after the other, as the inputs come: a stack of layers that carries its own state."""

from __future__ import annotations

from typing import Generic

import numpy as np

from fastrnn import _core
from fastrnn._parametrized import Given, Returned
from fastrnn._threads import most_threads
from fastrnn._validation import array_or_none, as_array, check_array, check_state, native, pair, shape_error, single

__all__ = ["Stream"]


class Stream(_core.Steps, Generic[Given, Returned]):
    """What a layer's `stream` returns: the layer, one step a call, from a state of zeros.

    Each `step` gives the bits that the layer would give for the whole sequence. The weights are those of the moment
    when the stream was made. A stream is one sequence (or batch) in progress: it is for one thread at a time, while
    any number of streams of one frozen layer share its packed weights.
    """

    def __init__(self, packed, input_size, h, c, batched, layer):
        super().__init__(packed, h, c, batched, most_threads)
        self._batched = batched
        self._layer = layer  # its representation
        self._input_size = input_size
        self._output_symbol = "hidden_size" if c is None or c.shape == h.shape else "proj_size"

    def __reduce__(self):
        raise TypeError("a stream cannot be copied or pickled; make another and give it the state")

    def __repr__(self) -> str:
        batch = f" B={self._h.shape[1]}" if self._batched else ""
        return f"<Stream{batch} of {self._layer}>"

    # What step() asks for where an argument is not as the kernel takes it

    def _native_x(self, x_t):
        x_t = as_array("x_t", x_t)
        _, B, _ = self._h.shape
        symbols, sizes = ("B", "input_size"), (B, self._input_size)
        if not self._batched:
            symbols, sizes = symbols[1:], sizes[1:]
        check_array("x_t", x_t, symbols, sizes, self._h.dtype)
        return native(x_t, self._h.dtype)

    def _check_out(self, out):
        _, B, H = self._h.shape
        symbols, sizes = ("B", self._output_symbol), (B, H)
        if not self._batched:
            symbols, sizes = symbols[1:], sizes[1:]
        if type(out) is not np.ndarray or out.dtype != self._h.dtype:
            given = f"an array of {out.dtype}" if type(out) is np.ndarray else type(out).__name__
            raise TypeError(f"out: expected an array of {self._h.dtype}, got {given}")
        if out.shape != sizes:
            raise shape_error("out", symbols, sizes, out.shape)
        if not out.flags.writeable:
            raise ValueError("out: is read-only")

    @property
    def state(self) -> Returned:
        """(h, c), or h of a GRU or an RNN: copies, (num_layers, B, ...) or (num_layers, ...).

        It can be assigned to, also (num_layers, 1, ...) for all sequences.
        """
        h, c = (None if s is None else s.copy() if self._batched else s[:, 0].copy() for s in (self._h, self._c))
        return h if c is None else (h, c)  # type: ignore[return-value]  # which of them, the layer's class says

    @state.setter
    def state(self, value: Given | None) -> None:
        parts = [("state", self._h, self._output_symbol)]
        members = [single("state", value, 3 if self._batched else 2) if self._c is None else None]
        if self._c is not None:
            parts = [("state (h)", self._h, self._output_symbol), ("state (c)", self._c, "hidden_size")]
            members = pair("state", value, "(h, c)")
        arrays = [array_or_none(name, member) for (name, _, _), member in zip(parts, members, strict=True)]
        axes, check = (slice(0, 3), check_state) if self._batched else (slice(0, 3, 2), check_array)
        new = []
        for (name, old, symbol), array in zip(parts, arrays):
            check(name, array, ("num_layers", "B", symbol)[axes], old.shape[axes], old.dtype)
            # Each is copied before either is written: it may be a view of the other.
            values = np.zeros(1, old.dtype) if array is None else np.array(array, old.dtype)
            new.append(values if self._batched or array is None else values[:, None])
        for (_, old, _), values in zip(parts, new):
            old[...] = values

    def reset(self) -> None:
        """Set the state to zeros."""
        self.state = None
