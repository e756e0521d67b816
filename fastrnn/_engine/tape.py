"""What a backward pass needs of its forward pass: the base of the tapes of layers, cells and functions."""

from __future__ import annotations

from typing import Any

from fastrnn import _core
from fastrnn._core import TapeMemory, empty_states, native
from fastrnn._engine import checkpoint, stack
from fastrnn._engine.pool import POOL
from fastrnn._validation import over_sequences


class Tape:
    """What a backward pass needs of its forward pass; opaque, and never altered by a backward pass.

    The weights are in it as they were, packed for backward. x is in it by reference where it could be read in place,
    with a fingerprint that tells whether it has been changed since. When a tape goes, its memory goes to the pool.

    Parameters
    ----------
    inputs : Inputs
        With states that the caller does not share.
    packed : list of Packed
        For backward.
    """

    __slots__ = ("inputs", "fingerprint", "packed", "for_forward", "kept", "masks", "dropout", "memory")

    inputs: Any
    fingerprint: int | None
    packed: list[_core.Packed]
    for_forward: list[_core.Packed]
    kept: Any  # a reserve, or Checkpoints
    masks: list[Any] | None
    dropout: stack.Dropout | None
    memory: TapeMemory

    def __init__(self, inputs, packed):
        self.inputs, self.packed = inputs, packed
        self.fingerprint = None if inputs.is_private else _core.fingerprint(inputs.x)

    def run(self, packed, owned, dropout=None, checkpoint_every=None, gates=None):
        """The forward pass.

        Parameters
        ----------
        packed : list of Packed
            For forward.
        owned : list of Packed
            Those packed for this tape alone, whose memory is to go to the pool with the tape.
        dropout : Dropout, optional
        checkpoint_every : int, optional
        gates : list, optional
            Gets the gates of each direction of each layer.

        Returns
        -------
        output : ndarray, (T, B, D*P)
        state_n : list of ndarray, (L*D, B, n)
            In the caller's order of sequences.
        """
        inputs, self.dropout = self.inputs, dropout
        layout, state_n = inputs.layout, empty_states(inputs.state_0)
        arguments = inputs.stack, packed, layout, inputs.x, inputs.state_0, state_n
        if checkpoint_every is None:
            self.kept = POOL.bytes(inputs.stack.reserve_bytes(packed, layout))
            output, self.masks = stack.forward(*arguments, self.kept, dropout, gates)
            self.memory = TapeMemory([self.kept, inputs.x, *owned], POOL)
        else:
            self.for_forward = packed
            output, self.kept = checkpoint.forward(*arguments, checkpoint_every, dropout)
            self.memory = TapeMemory([inputs.x, *owned], POOL)
        return output, layout.unsort(state_n)

    def check_x(self):
        """Refuse an x that has been changed."""
        if self.fingerprint is not None and _core.fingerprint(self.inputs.x) != self.fingerprint:
            raise ValueError("x: changed between forward and backward")

    def backward(self, d_output, d_state_n, d_weights):
        """The backward pass.

        Parameters
        ----------
        d_output : ndarray, (T, B, D*P), or None for zeros
            Of any layout in memory and of any dtype that can be cast.
        d_state_n : list of ndarray or None, (L*D, B, n)
            The same, in the caller's order of sequences.
        d_weights : list of tuple of ndarray
            Written.

        Returns
        -------
        d_x : ndarray, (T, B, I)
        d_state_0 : list of ndarray, (L*D, B, n)
            In the caller's order of sequences; (L*D, 1, n) for a state that was given once for all.
        """
        self.check_x()
        inputs, stack_ = self.inputs, self.inputs.stack
        layout, dtype = inputs.layout, stack_.dtype
        d_rows = None if d_output is None else layout.pack(d_output, dtype)
        d_after = []
        for d in layout.sort(d_state_n):
            d_after.append(None if d is None else native(d, dtype))
        d_state_0 = empty_states(inputs.state_0)
        gradients = d_rows, d_after, d_state_0, d_weights, self.dropout
        if type(self.kept) is checkpoint.Checkpoints:
            d_x = checkpoint.backward(stack_, self.for_forward, self.packed, layout, inputs.x, self.kept, *gradients)
        else:
            d_x = stack.backward(
                stack_, self.packed, layout, inputs.x, inputs.state_0, self.kept, *gradients, self.masks
            )
        POOL.give_back(d_rows)
        d_state_0 = layout.unsort(d_state_0)
        if inputs.shared is not None:
            for k, shared in enumerate(inputs.shared):
                if shared:
                    d_state_0[k] = over_sequences(d_state_0[k])
        return d_x, d_state_0

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one process")
