"""Streams: a stack of layers that takes one step per call and carries its own state."""

from __future__ import annotations

from typing import Generic

import numpy as np

from fastrnn import _core
from fastrnn._engine.arguments import as_states, check_states, output_symbol
from fastrnn._parametrized import Given, Returned
from fastrnn._threads import most_threads
from fastrnn._validation import as_array, check_array, check_flags, check_state, shape_error

__all__ = ["Stream"]


class Stream(_core.Steps, Generic[Given, Returned]):
    """A layer that takes one step per call and carries its state; made by ``layer.stream()``.

    The outputs have the bits of a call of the layer with the whole sequence. The state begins as zeros. The stream
    keeps the weights from the time of its creation. A stream is one sequence (or batch) in progress, and is for one
    thread at a time. Any number of streams of one frozen layer share its packed weights.
    """

    def __init__(self, stack, packed, B, batched, layer):
        super().__init__(packed, _core.zero_states(stack.count, B, stack.widths, stack.dtype), batched, most_threads)
        self._stack, self._B, self._batched = stack, B, batched
        self._layer = layer  # its representation
        self._output_symbol = output_symbol(stack)

    def __reduce__(self):
        raise TypeError("a stream cannot be copied or pickled; make another and give it the state")

    def __repr__(self) -> str:
        batch = f" B={self._B}" if self._batched else ""
        return f"<Stream{batch} of {self._layer}>"

    # step() calls these for an argument that is not as the kernel takes it

    def _native_x(self, x_t):
        x_t = as_array("x_t", x_t)
        axes = slice(0 if self._batched else 1, 2)
        symbols, sizes = ("B", "input_size")[axes], (self._B, self._stack.I)[axes]
        check_array("x_t", x_t, symbols, sizes, self._stack.dtype)
        return _core.native(x_t, self._stack.dtype)

    def _checked_resets(self, resets):
        resets = as_array("resets", resets)
        check_flags("resets", resets, ("B",)[: self._batched], (self._B,)[: self._batched])
        return resets.copy()

    def _check_out(self, out):
        axes = slice(0 if self._batched else 1, 2)
        symbols, sizes = ("B", self._output_symbol)[axes], (self._B, self._stack.P)[axes]
        if type(out) is not np.ndarray or out.dtype != self._stack.dtype:
            given = f"an array of {out.dtype}" if type(out) is np.ndarray else type(out).__name__
            raise TypeError(f"out: expected an array of {self._stack.dtype}, got {given}")
        if out.shape != sizes:
            raise shape_error("out", symbols, sizes, out.shape)
        if not out.flags.writeable:
            raise ValueError("out: is read-only")

    @property
    def state(self) -> Returned:
        """h, or the tuple of all states, such as (h, c): copies, (num_layers, B, ...) or (num_layers, ...).

        Assign to it to set the state; (num_layers, 1, ...) sets the same state for all sequences.
        """
        copies = [s.copy() if self._batched else s[:, 0].copy() for s in self._states]
        return copies[0] if len(copies) == 1 else tuple(copies)  # type: ignore[return-value]  # the layer's class says

    @state.setter
    def state(self, value: Given | None) -> None:
        stack = self._stack
        arrays = as_states(stack.spec, "state", "{}", value, 3 if self._batched else 2)
        axes, check = (slice(0, 3), check_state) if self._batched else (slice(0, 3, 2), check_array)
        symbols = [("num_layers", "B", "hidden_size" if k else self._output_symbol)[axes] for k in range(len(arrays))]
        sizes = [s.shape[axes] for s in self._states]
        check_states(stack.spec, "state", "{}", arrays, symbols, sizes, stack.dtype, check)
        new = []
        for array in arrays:
            # Each is copied before any is written: it may be a view of another.
            values = np.zeros(1, stack.dtype) if array is None else np.array(array, stack.dtype)
            new.append(values if self._batched or array is None else values[:, None])
        for s, values in zip(self._states, new):
            s[...] = values

    def reset(self) -> None:
        """Set the state to zeros."""
        self.state = None
