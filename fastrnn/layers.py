"""Layers: parameters, several layers deep and in both directions, around the functions of `fastrnn.functional`."""

from __future__ import annotations

import collections
import sys
import warnings
import weakref
from typing import Any, Generic, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._core import TapeMemory
from fastrnn._levels import (
    ALL,
    CheckpointedLevel,
    Dropout,
    TapedLevel,
    infer_level,
    kept_memory,
    of_layers,
    pack_stack,
)
from fastrnn._parametrized import Given, Parametrized, Restored, Returned, owner
from fastrnn._rows import Rows, give_back
from fastrnn._validation import (
    NONLINEARITIES,
    Array,
    Nonlinearity,
    State,
    array_or_none,
    as_lengths,
    as_x,
    check_array,
    check_bytes,
    check_cast,
    check_given,
    check_state,
    check_tape,
    checked_lengths,
    choice,
    flag,
    initial_state,
    is_shared,
    names_arguments,
    native_or_none,
    over_sequences,
    probability,
    shape_error,
    size,
    x_hint,
)
from fastrnn.functional import GATES, empty_like, tape_bytes
from fastrnn.parameters import Parameters
from fastrnn.stream import Stream

__all__ = ["GRU", "LSTM", "RNN"]

# What messages call a state, its members, and both of an LSTM.
STATE = "state", "state (h_0)", "state (c_0)", "(h_0, c_0)"
D_STATE_N = "d_state_n", "d_state_n (d_h_n)", "d_state_n (d_c_n)", "(d_h_n, d_c_n)"

NOT_SHARED = False, False

# A tape leaves no more than that to the next one.
MOST_LEFT_BYTES = 256 << 20


class LayerTape:
    """What a layer's `backward` needs of its `forward`; opaque, and never altered by a backward.

    When it goes, it leaves its memory to the layer for the next tape: the system takes time to clear new memory.
    """

    __slots__ = ("layer", "rows", "levels", "masks", "dropout", "batched", "shared", "memory")

    def __init__(self, layer, rows, levels, masks, dropout, batched, shared, memory):
        self.layer = weakref.ref(layer)
        self.rows = rows
        self.levels = levels  # of fastrnn._levels, that nearest to x first
        self.masks, self.dropout = masks, dropout  # of what comes into each level, or None
        self.batched = batched
        self.shared = shared  # whether h_0 and c_0 are each one for all sequences
        self.memory = memory  # (tape, weights packed for this tape alone) of each layer and direction

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one layer")

    def __repr__(self):
        return f"<LayerTape T={self.rows.T} B={self.rows.B} of {owner(self.layer)}>"


class Recurrent(Parametrized, Generic[Given, Returned]):
    """What LSTM, GRU and RNN share: everything but their names and options."""

    def __init__(
        self, cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
        dtype, rng, proj_size=0, peephole=False,
    ):  # fmt: skip
        num_layers = size("num_layers", num_layers)
        batch_first = flag("batch_first", batch_first)
        dropout = probability("dropout", dropout)
        bidirectional = flag("bidirectional", bidirectional)
        proj_size = size("proj_size", proj_size, minimum=0)
        peephole = flag("peephole", peephole)
        self._num_layers = num_layers
        self._batch_first = batch_first
        self._dropout = dropout
        self._bidirectional = bidirectional
        self._peephole = peephole
        if dropout and num_layers == 1 and not isinstance(rng, Restored):
            warnings.warn("dropout: is between layers, and has no effect with num_layers=1", stacklevel=4)
        directions = ("", "_reverse")[: 1 + bidirectional]
        super().__init__(
            cell, input_size, hidden_size, bias, dtype, rng, num_layers, "_l{}", directions, proj_size, peephole
        )

    def _derive(self):
        super()._derive()
        self._tape_memory = collections.deque(maxlen=1)
        D = 1 + self._bidirectional
        self._widest = max(self._input_size, GATES[self._cell] * self._hidden_size, D * self._output_size)
        self._most_rows = sys.maxsize // (self._widest * self._dtype.itemsize)
        # What runs one after the other: of each direction its layers among all, and whether it is the reverse.
        self._levels = [[(ALL, False)]]
        if self._bidirectional:
            self._levels = [
                [(slice(k, k + 1), False), (slice(k + 1, k + 2), True)] for k in range(0, len(self._weights), 2)
            ]

    _OWN = (
        *Parametrized._OWN, "_num_layers", "_batch_first", "_dropout", "_bidirectional", "_peephole",
        "_tape_memory", "_levels", "_widest", "_most_rows",
    )  # fmt: skip

    def _forget(self):
        self._tape_memory.clear()

    # Configuration

    @property
    def num_layers(self) -> int:
        """How many layers lie on top of each other."""
        return self._num_layers

    @property
    def batch_first(self) -> bool:
        """Whether `x` and `output` are (B, T, ...)."""
        return self._batch_first

    @property
    def dropout(self) -> float:
        """The probability with which `forward` sets a number between two layers to zero."""
        return self._dropout

    @property
    def bidirectional(self) -> bool:
        """Whether each layer also reads the sequences from their ends."""
        return self._bidirectional

    def _constructor_arguments(self):
        return super()._constructor_arguments() | {
            "num_layers": self._num_layers,
            "batch_first": self._batch_first,
            "dropout": self._dropout,
            "bidirectional": self._bidirectional,
        }

    # Computation

    def stream(self, batch_size: int | None = None) -> Stream[Given, Returned]:
        """The layer, one step a call, carrying its state.

        Parameters
        ----------
        batch_size : int, optional
            B, at least 1. Default: a single sequence, without a batch axis.

        Returns
        -------
        stream : Stream
            ``y_t = stream.step(x_t)``, ``stream.state``, ``stream.reset()``. It has the weights of this moment,
            and shares them if the layer is frozen.

        Raises
        ------
        TypeError, ValueError
            If `batch_size` is no integer of at least 1, or the layer is bidirectional: its output at a step depends
            on all steps after it.

        Examples
        --------
        >>> layer = fastrnn.LSTM(64, 128, rng=0)
        >>> stream = layer.stream()
        >>> stream.step(np.zeros(64)).shape
        (128,)
        """
        B = 1 if batch_size is None else size("batch_size", batch_size)
        if self._bidirectional:
            raise ValueError("stream: a bidirectional layer has no output before it has seen the last step")
        L, H, P = self._num_layers, self._hidden_size, self._output_size
        check_bytes("batch_size", (L, B), max(self._input_size, GATES[self._cell] * H), self._dtype.itemsize)
        frozen = self._params._frozen
        packed = frozen.for_forward if frozen else pack_stack(self._cell, self._weights, False)
        h = np.zeros((L, B, P), self._dtype)
        c = np.zeros((L, B, H), self._dtype) if self._cell == "lstm" else None
        return Stream(packed, self._input_size, h, c, batch_size is not None, repr(self))

    @names_arguments
    def __call__(
        self, x: ArrayLike, state: Given | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Returned]:
        """Run the layer over a sequence and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
            The input: T steps of B sequences, or of a single one. T and B may be 0. It is cast to the
            layer's dtype by NumPy's "same_kind" rule; any strides and any byte order will do. A list of arrays of two
            or more axes is refused: stack it.
        state : tuple (h_0, c_0) of array_like, or h_0 for a GRU or an RNN, optional
            The state before the first step, (num_layers*D, B, H_out), and c_0 (num_layers*D, B, H), or without B as
            x is. D is 2 for a bidirectional layer, else 1; H_out is `proj_size` if there is one, else H. A member may
            be None. With a B of 1 it is one state for all sequences, as a learned initial state is. Default: zeros.
        lengths : array_like of int, (B,), optional
            Steps of each sequence, 0 to T, in any order; what x has beyond them is not looked at. The reverse
            direction begins at each sequence's own end. Default: T.

        Returns
        -------
        output : ndarray, (T, B, D*H_out), or (B, T, D*H_out) with `batch_first`, or (T, D*H_out)
            h_t of the last layer at every step; zero beyond a sequence's length.
        state_n : tuple (h_n, c_n) of ndarray, or h_n for a GRU or an RNN
            The state after each sequence's last step, of the shapes of `state`.

        Raises
        ------
        TypeError
            If a dtype cannot be cast, or an argument is a tensor that requires grad.
        ValueError
            If a shape or a length does not fit. The message starts with the argument's name.
        """
        rows, x, batched, state_0, _ = self._arguments(x, state, lengths, private_state=False)
        x = given = rows.gather(x, self._dtype, borrowed=True)
        state_n = empty_like(state_0)
        frozen = self._params._frozen
        weights = frozen.for_forward if frozen else self._weights
        for level in self._levels:
            directions = [
                (reverse, of_layers(state_0, at), of_layers(state_n, at), weights[at]) for at, reverse in level
            ]
            x = infer_level(self._cell, rows, x, directions)
        if rows.offsets is None:
            return self._returned(x, rows, state_n, batched)
        output = rows.scatter(x)
        give_back(given)
        give_back(x)
        return self._returned(output, rows, state_n, batched)

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        *,
        checkpoint_every: int | None = None,
        return_gates: Literal[False] = False,
    ) -> tuple[Array, Returned, LayerTape]: ...

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        *,
        checkpoint_every: int | None = None,
        return_gates: Literal[True],
    ) -> tuple[Array, Returned, LayerTape, list[dict[str, Array]]]: ...

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        *,
        checkpoint_every: int | None = None,
        return_gates: bool,
    ) -> tuple[Array, Returned, LayerTape] | tuple[Array, Returned, LayerTape, list[dict[str, Array]]]: ...

    @names_arguments
    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        *,
        checkpoint_every: int | None = None,
        return_gates: bool = False,
    ) -> Any:
        """Run the layer over a sequence and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths
            As for a call of the layer.
        checkpoint_every : int, optional
            Keep the state of each so many steps only, and let `backward` run forward again in between: memory for
            T / checkpoint_every + checkpoint_every steps instead of T, and the same bits. A bidirectional
            layer's inner layers keep their inputs, too. Default: keep everything.
        return_gates : bool, default False
            Whether to return `gates`, too. Not with `checkpoint_every`, which is there to do without them.

        Returns
        -------
        output, state_n
            As from a call of the layer, the same bits, but for `dropout`.
        tape : LayerTape
            For `backward`. Tapes are independent of each other. The parameters may be changed before
            the backward pass, `x` may not.
        gates : list of dict of ndarray, only with `return_gates`
            Of each layer and direction, in the order of `state`, what it computed at every step: "i", "f", "g", "o" and
            "c" of an LSTM, "r", "z" and "n" of a GRU, after their activations, (T, B, H); and "h", the output of that
            layer before any `dropout`, (T, B, H_out). Each in the axes of `output`, zero beyond a sequence's length,
            and a copy.

        Raises
        ------
        TypeError, ValueError
            As in a call of the layer, or if there are to be both checkpoints and gates.

        Examples
        --------
        >>> layer = fastrnn.LSTM(64, 128, num_layers=2, rng=0)
        >>> output, (h_n, c_n), tape, gates = layer.forward(np.ones((25, 16, 64)), return_gates=True)
        >>> len(gates), list(gates[0]), gates[0]["f"].shape
        (2, ['i', 'f', 'g', 'o', 'c', 'h'], (25, 16, 128))
        >>> bool((gates[1]["c"][-1] == c_n[1]).all()), bool((gates[1]["h"] == output).all())
        (True, True)
        """
        if checkpoint_every is not None:
            checkpoint_every = size("checkpoint_every", checkpoint_every)
        gates: list[dict[str, Array]] | None = [] if flag("return_gates", return_gates) else None
        if checkpoint_every and return_gates:
            raise ValueError("return_gates: not with checkpoint_every, which does not keep gates")
        rows, given, batched, state_0, shared = self._arguments(x, state, lengths, private_state=True)
        x = rows.gather(given, self._dtype)
        x_is_private = x is not given
        state_n = empty_like(state_0)
        frozen, cell = self._params._frozen, self._cell
        memory = self._memory_for(rows, checkpoint_every)
        if frozen is None:
            weights = self._weights
            packed = pack_stack(cell, weights, True, [spare for *_, spare in memory])
            if checkpoint_every:  # backward runs forward again, with the weights as they are now
                weights = pack_stack(cell, weights, False)
        else:
            weights, packed = self._for_training(frozen)
        memory = [(kept, None if frozen else own) for (kept, _), own in zip(memory, packed)]
        dropout = None
        if self._dropout and self._num_layers > 1:
            dropout = Dropout(self._dropout, int(self._rng.integers(2**63)))

        levels, masks = [], []
        for number, level in enumerate(self._levels):
            mask = None
            if number > 0 and dropout:
                mask = dropout.mask(number, 0, x)
                x = dropout.applied(mask, x)
            masks.append(mask)
            arguments = cell, rows, x, x_is_private
            directions: list[tuple[Any, ...]] = [
                (reverse, of_layers(state_0, at), of_layers(state_n, at), weights[at], packed[at])
                for at, reverse in level
            ]
            if checkpoint_every:
                directions = [(*one, self._kept_of_part) for one in directions]
                run, x = CheckpointedLevel.run(*arguments, directions, dropout, checkpoint_every)
            else:
                directions = [(*one, [kept for kept, _ in memory[at]]) for one, (at, _) in zip(directions, level)]
                run, x = TapedLevel.run(*arguments, directions, dropout, gates=gates)
            levels.append(run)
            x_is_private = True
        tape_memory = TapeMemory(memory, self._tape_memory, MOST_LEFT_BYTES)
        tape = LayerTape(self, rows, levels, masks, dropout, batched, shared, tape_memory)
        results = *self._returned(rows.scatter(x), rows, state_n, batched), tape
        if gates is None:
            return results
        return *results, [{name: self._of_caller(a, batched) for name, a in one.items()} for one in gates]

    def backward(
        self, tape: LayerTape, d_output: ArrayLike | None = None, d_state_n: Given | None = None
    ) -> tuple[Array, Returned, Parameters]:
        """The gradients of a loss through one `forward`.

        May be called any number of times with one tape; it accumulates nothing. The parameters are taken
        as they were at the `forward`.

        Parameters
        ----------
        tape : LayerTape
            What `forward` of this layer returned.
        d_output : array_like, shape of `output`, optional
            The gradient with respect to `output`; what it has beyond a sequence's length is not looked at.
            Default: zeros.
        d_state_n : tuple (d_h_n, d_c_n) of array_like, or d_h_n for a GRU or an RNN, optional
            The gradient with respect to `state_n`, of its shapes; a member may be None. Default: zeros. One gradient
            has to be given.

        Returns
        -------
        d_x : ndarray, shape of `x`
            Zero beyond a sequence's length.
        d_state : tuple (d_h_0, d_c_0) of ndarray, or d_h_0 for a GRU or an RNN
            Of the shapes of `state_n`; of a state for all sequences the sum over them, (num_layers*D, 1, ...): in
            float64, from the first to the last, then rounded to the layer's dtype.
        d_params : Parameters
            The names and shapes of `params`.

        Raises
        ------
        TypeError
            If `tape` is not a layer's tape, or a dtype cannot be cast.
        ValueError
            If the tape is another layer's, if neither gradient is given, if a shape does not fit, or if the `x` of
            the forward pass has been changed since.
        """
        check_tape(tape, LayerTape)
        d_output = array_or_none("d_output", d_output)
        members = self._as_state(D_STATE_N, d_state_n, 3 if tape.batched else 2)
        levels = tape.levels
        if tape.layer() is not self:
            raise ValueError(f"tape: made by another layer, {owner(tape.layer)}")
        check_given(d_output, *(array for _, array in members))
        rows, dtype = tape.rows, self._dtype
        d_output = rows.gather(self._output_gradient(d_output, rows, tape.batched), dtype)
        members = self._checked_state(members, rows.B, tape.batched, check_array)
        levels[0].check_x()

        d_after = [native_or_none(rows.gather_state(d), dtype) for d in members]
        d_params = self._params.empty_like()
        d_weights = self._split(d_params._arrays)
        d_state_0 = tuple(None if sizes is None else np.empty(sizes, dtype) for sizes in self._state_sizes(rows.B))
        for level, run, mask in zip(self._levels[::-1], levels[::-1], tape.masks[::-1]):
            directions = [(of_layers(d_after, at), of_layers(d_state_0, at), d_weights[at]) for at, _ in level]
            d_output = run.backward(d_output, directions)
            if mask is not None:
                d_output = tape.dropout.applied(mask, d_output)
        return *self._returned(rows.scatter(d_output), rows, d_state_0, tape.batched, tape.shared), d_params

    def _memory_for(self, rows, checkpoint_every):
        """(tape, packed weights or None) of each layer and direction: new, or the last tape's."""
        none = [(None, None)] * len(self._weights)
        if checkpoint_every:
            return none
        try:
            memory = self._tape_memory.pop()
        except IndexError:
            memory = None
        size = tape_bytes(self._cell, rows, self._hidden_size, self._proj_size, self._dtype)
        if memory and memory[0][0] is not None and memory[0][0].size == size:
            return memory
        return [(self._kept(rows), None) for _ in self._weights]

    def _kept(self, rows):
        return kept_memory(self._cell, rows, self._hidden_size, self._proj_size, self._dtype)

    def _kept_of_part(self, rows):
        """For the stack of a part of the steps."""
        return [self._kept(rows) for _ in range(1 if self._bidirectional else self._num_layers)]

    # Between the caller's shapes and (T, B, I), (num_layers * D, B, H)

    def _arguments(self, x, state, lengths, private_state):
        """The rows; x (T, B, I) not yet cast, and whether it had a batch axis; the state, native and by rows, and what
        of it was given once for all sequences.
        """
        x = as_x(x)
        members = None if state is None else self._as_state(STATE, state, x.ndim)
        lengths = None if lengths is None else as_lengths(lengths)
        dtype = self._dtype
        if x.dtype is not dtype:
            check_cast("x", x, dtype)
        shape = x.shape
        batched = len(shape) == 3
        if len(shape) not in (2, 3) or shape[-1] != self._input_size:
            raise self._x_error(shape, x_hint(x))
        if not batched:
            x = x[:, None]
            if lengths is not None:
                raise ValueError("lengths: expected None for an x without a batch axis")
        elif self._batch_first:
            x = x.transpose(1, 0, 2)
        T, B, _ = x.shape
        if (T or 1) * (B or 1) > self._most_rows:
            check_bytes("x", (T, B), self._widest, dtype.itemsize)
        rows = Rows(T, B, None if lengths is None else checked_lengths(lengths, T, B))
        h_sizes, c_sizes = self._state_sizes(B)
        if members is None:
            return rows, x, batched, (np.zeros(h_sizes, dtype), c_sizes and np.zeros(c_sizes, dtype)), NOT_SHARED
        h_0, c_0 = self._checked_state(members, B, batched, check_state if batched else check_array)
        shared = is_shared(h_0, B), is_shared(c_0, B)
        h_0 = initial_state(rows.gather_state(h_0), h_sizes, dtype, private_state)
        c_0 = c_sizes and initial_state(rows.gather_state(c_0), c_sizes, dtype, private_state)
        return rows, x, batched, (h_0, c_0), shared

    def _x_error(self, given, hint):
        I = self._input_size
        axes = ("B", "T") if self._batch_first else ("T", "B")
        if len(given) == 3:
            return shape_error("x", (*axes, "input_size"), (None, None, I), given)
        if len(given) == 2:
            return shape_error("x", ("T", "input_size"), (None, I), given, hint)
        return ValueError(f"x: expected ({', '.join(axes)}, input_size={I}) or (T, input_size={I}), got {given}{hint}")

    def _state_sizes(self, B):
        """Of h and, of an LSTM, of c."""
        layers = len(self._weights)
        return (layers, B, self._output_size), (layers, B, self._hidden_size) if self._cell == "lstm" else None

    def _checked_state(self, members, B, batched, check):
        """(h, c) of _as_state, checked but not yet native, each may be None."""
        layers = "2*num_layers" if self._bidirectional else "num_layers"
        last = ("proj_size" if self._proj_size else "hidden_size", "hidden_size")
        axes = slice(0, 3) if batched else slice(0, 3, 2)
        checked = [None, None]
        for k, ((name, array), sizes) in enumerate(zip(members, self._state_sizes(B))):
            if array is not None:
                check(name, array, (layers, "B", last[k])[axes], sizes[axes], self._dtype)
                checked[k] = array if batched else array[:, None]
        return checked

    def _output_gradient(self, d_output, rows, batched):
        """(T, B, D * H_out), not yet native, or None."""
        if d_output is None:
            return None
        T, B, D = rows.T, rows.B, 1 + self._bidirectional
        last = "proj_size" if self._proj_size else "hidden_size"
        symbols, sizes = ("T", "B", f"2*{last}" if D == 2 else last), (T, B, D * self._output_size)
        if not batched:
            check_array("d_output", d_output, symbols[::2], sizes[::2], self._dtype)
            return d_output[:, None]
        if self._batch_first:
            symbols, sizes = ("B", "T", symbols[2]), (B, T, sizes[2])
        check_array("d_output", d_output, symbols, sizes, self._dtype)
        return d_output.transpose(1, 0, 2) if self._batch_first else d_output

    def _returned(self, output, rows, state, batched, shared=NOT_SHARED):
        """Time-major results in the caller's axes."""
        h, c = state
        if rows.offsets is not None:
            h, c = rows.scatter_state(h), rows.scatter_state(c)
        if shared is not NOT_SHARED:
            h, c = (over_sequences(s) if one else s for s, one in zip((h, c), shared))
        if not batched:
            h, c = h[:, 0], None if c is None else c[:, 0]
        if not batched or self._batch_first:
            output = self._of_caller(output, batched)
        return output, h if c is None else (h, c)

    def _of_caller(self, array, batched):
        """(T, B, n) in the caller's axes."""
        if not batched:
            return array[:, 0]
        return array.transpose(1, 0, 2) if self._batch_first else array


class LSTM(Recurrent[State, tuple[Array, Array]]):
    """A long short-term memory layer, or a stack of them, as torch.nn.LSTM.

    See `fastrnn.functional.lstm` for the equations and their source; gate order, names and shapes of the
    parameters are those of torch.nn.LSTM, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size : int
        Size I of each step's input, at least 1.
    hidden_size : int
        Size H of the state, at least 1.
    num_layers : int, default 1
        Layers on top of each other, each taking the output of the one below.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        Whether `x` and `output` are (B, T, ...) rather than (T, B, ...). The state is not affected.
    dropout : float, default 0.0
        The probability with which `forward`, not a call of the layer, sets a number between two layers to zero; the
        others are divided by what remains of one.
    bidirectional : bool, default False
        Whether each layer also has weights that read the sequences from their ends; the outputs stand side by side.
    proj_size : int, default 0
        Size H_out of a projection of each output, less than H; 0 for none, and H_out is H.
    peephole : bool, default False
        Whether the gates see the cell state: i and f that of the step before, o the new one.
    dtype : data-type, default float32
        float32 or float64: of the parameters, of the computation and of everything returned.
    rng : None, int or numpy.random.Generator, optional
        Where the initial parameters come from: uniform in [-1/sqrt(H), 1/sqrt(H)); and then the masks of `dropout`.
        An int is a seed. Default: different at each construction.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H_out), bias_ih_l0 (4*H,), bias_hh_l0 (4*H,), weight_hr_l0 (H_out, H)
        and weight_peephole_l0 (3, H), those that there are; then the same with the suffix _l0_reverse; and then those
        of layer 1 with (4*H, D*H_out) for weight_ih_l1, and so on. Rows are in the order i, f, g, o.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(64, 128, num_layers=2, rng=0)
    >>> output, (h_n, c_n) = layer(np.zeros((25, 16, 64)))
    >>> output.shape, h_n.shape
    ((25, 16, 128), (2, 16, 128))
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng,
            proj_size, peephole,
        )  # fmt: skip

    @property
    def proj_size(self) -> int:
        """Size of the projected output; 0 for no projection."""
        return self._proj_size

    @property
    def peephole(self) -> bool:
        """Whether the gates see the cell state."""
        return self._peephole

    def _constructor_arguments(self):
        return super()._constructor_arguments() | {"proj_size": self._proj_size, "peephole": self._peephole}


class GRU(Recurrent[ArrayLike, Array]):
    """A layer of gated recurrent units, or a stack of them, as torch.nn.GRU.

    See `fastrnn.functional.gru` for the equations and their source: the reset gate comes after the product. Gate order,
    names and shapes of the parameters are those of torch.nn.GRU, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As for `LSTM`.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (3*H, I), weight_hh_l0 (3*H, H), bias_ih_l0 (3*H,), bias_hh_l0 (3*H,); then the same with the
        suffix _l0_reverse if there is one; and then those of layer 1 with (3*H, D*H) for weight_ih_l1, and so on.
        Rows are in the order r, z, n.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.GRU(64, 128, bidirectional=True, rng=0)
    >>> output, h_n = layer(np.zeros((25, 16, 64)))
    >>> output.shape, h_n.shape
    ((25, 16, 256), (2, 16, 128))
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        )


class RNN(Recurrent[ArrayLike, Array]):
    """A plain recurrent layer, or a stack of them, as torch.nn.RNN.

    See `fastrnn.functional.rnn` for the equation and its source; names and shapes of the parameters are those of
    torch.nn.RNN, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As for `LSTM`.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        What makes h_t of its sum; it comes after `num_layers`.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (H, I), weight_hh_l0 (H, H), bias_ih_l0 (H,), bias_hh_l0 (H,); then the same with the suffix
        _l0_reverse if there is one; and then those of layer 1 with (H, D*H) for weight_ih_l1, and so on.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.RNN(64, 128, nonlinearity="relu", batch_first=True, rng=0)
    >>> output, h_n = layer(np.zeros((16, 25, 64)))
    >>> output.shape, h_n.shape
    ((16, 25, 128), (1, 16, 128))
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        nonlinearity = choice("nonlinearity", nonlinearity, NONLINEARITIES)
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype, rng,
        )  # fmt: skip

    @property
    def nonlinearity(self) -> str:
        """What makes h_t of its sum, "tanh" or "relu"."""
        return self._cell.removeprefix("rnn_")

    def _constructor_arguments(self):
        return super()._constructor_arguments() | {"nonlinearity": self.nonlinearity}
