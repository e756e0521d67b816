"""The bases of the tapes of layers, cells and functions."""

from __future__ import annotations

import weakref
from typing import Any

from fastrnn import _core
from fastrnn._core import Gradients, TapeMemory, empty_states, native
from fastrnn._engine import checkpoint, stack
from fastrnn._engine.pool import POOL
from fastrnn._validation import over_sequences

X_CHANGED = "x: changed between forward and backward"


class AnyTape:
    """The common part of all tapes: the owner, and a fingerprint that detects a change of x since the forward pass.

    Parameters
    ----------
    owner : object or None
        The layer or cell that makes the tape; the tape does not keep it alive. None of functions.
    x : ndarray or None
        The input, in memory that the caller may write. None if the tape has its own copy.
    """

    __slots__ = ("owner", "fingerprint")

    owner: Any
    fingerprint: int | None

    def __init__(self, owner, x):
        self.owner = None if owner is None else weakref.ref(owner)
        self.fingerprint = None if x is None else _core.fingerprint(x)

    def owner_name(self):
        """The layer or cell in a message."""
        owner = self.owner()
        return "one that is gone" if owner is None else owner

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one process")


class Tape(AnyTape):
    """The saved activations of one forward pass, for its backward passes; opaque, and never altered by them.

    It has the weights of the forward pass, packed for backward. x is kept by reference if it could be read in place,
    with a fingerprint that detects a change since. When a tape is deallocated, its memory goes to the pool.

    Parameters
    ----------
    inputs : Inputs
        With states that the caller does not share.
    packed : list of Packed
        For backward.
    owner : object, optional
        The layer or cell that makes the tape; the tape does not keep it alive.
    """

    __slots__ = ("inputs", "packed", "for_forward", "kept", "masks", "dropout", "memory")

    inputs: Any
    packed: list[_core.Packed]
    for_forward: list[_core.Packed]
    kept: Any  # a reserve, or Checkpoints
    masks: list[Any] | None
    dropout: stack.Dropout | None
    memory: TapeMemory

    def __init__(self, inputs, packed, owner=None):
        super().__init__(owner, None if inputs.is_private else inputs.x)
        self.inputs, self.packed = inputs, packed

    def run(self, packed, owned, dropout=None, checkpoint_every=None, gates=None):
        """Run the forward pass.

        Parameters
        ----------
        packed : list of Packed
            For forward.
        owned : list of Packed
            The weights packed for this tape alone, whose memory goes to the pool with the tape.
        dropout : Dropout, optional
        checkpoint_every : int, optional
        gates : list, optional
            The gates of each direction of each layer are appended.

        Returns
        -------
        output : ndarray, (T, B, D*P)
        state_n : list of ndarray, (L*D, B, n)
            In the caller's order of sequences.
        """
        inputs, self.dropout = self.inputs, dropout
        layout, state_n = inputs.layout, empty_states(inputs.state_0)
        if checkpoint_every is None:
            self.kept = POOL.bytes(inputs.stack.reserve_bytes(packed, layout))
            output, self.masks = stack.forward(inputs, packed, state_n, self.kept, dropout, gates)
            self.memory = TapeMemory([self.kept, inputs.x, *owned], POOL)
        else:
            self.for_forward = packed
            output, self.kept = checkpoint.forward(inputs, packed, state_n, checkpoint_every, dropout)
            self.memory = TapeMemory([inputs.x, *owned], POOL)
        return output, state_n if layout.offsets is None else layout.unsort(state_n)

    def backward(self, d_output, d_state_n, d_weights, input_gradient=True):
        """Run a backward pass.

        Parameters
        ----------
        d_output : ndarray, (T, B, D*P), or None for zeros
            Of any layout in memory and of any dtype that can be cast.
        d_state_n : list of ndarray or None, (L*D, B, n)
            The same, in the caller's order of sequences.
        d_weights : list of tuple of ndarray
            Written.
        input_gradient : bool
            Whether d_x is computed.

        Returns
        -------
        d_x : ndarray, (T, B, I), or None
        d_state_0 : list of ndarray, (L*D, B, n)
            In the caller's order of sequences; (L*D, 1, n) for a state that was given as one for all sequences.
        """
        inputs = self.inputs
        if self.fingerprint is not None and _core.fingerprint(inputs.x) != self.fingerprint:
            raise ValueError(X_CHANGED)
        layout, dtype = inputs.layout, inputs.stack.dtype
        d_rows = None if d_output is None else layout.pack(d_output, dtype)
        d_after = []
        for d in d_state_n if layout.offsets is None else layout.sort(d_state_n):
            d_after.append(None if d is None else native(d, dtype))
        d_state_0 = empty_states(inputs.state_0)
        gradients = Gradients(d_rows, d_after, d_state_0, d_weights)
        if type(self.kept) is checkpoint.Checkpoints:
            passes = self.for_forward, self.packed
            d_x = checkpoint.backward(inputs, *passes, self.kept, gradients, self.dropout, input_gradient)
        else:
            d_x = stack.backward(inputs, self.packed, self.kept, gradients, self.dropout, self.masks, input_gradient)
        if layout.offsets is not None:
            POOL.give_back(d_rows)
            d_state_0 = layout.unsort(d_state_0)
        if inputs.shared is not None:
            for k, shared in enumerate(inputs.shared):
                if shared:
                    d_state_0[k] = over_sequences(d_state_0[k])
        return d_x, d_state_0
