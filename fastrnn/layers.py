"""Layers: parameters, and the equations of `fastrnn.functional` in any number of layers and in both directions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._config import instruction_set
from fastrnn._core import Inputs, empty_states, infer_plain, plain_inputs, zero_states
from fastrnn._engine import spec
from fastrnn._engine.arguments import as_states, check_states, initial_states, output_symbol
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import layout_of, padded
from fastrnn._engine.stack import Dropout, infer
from fastrnn._engine.tape import Tape
from fastrnn._parametrized import Activated, Clipped, Configured, Given, Parametrized, Returned
from fastrnn._threads import most_threads
from fastrnn._validation import (
    Array,
    FourStates,
    Nonlinearity,
    RecurrentActivation,
    RNNNonlinearity,
    State,
    as_array,
    as_lengths,
    as_x,
    check_array,
    check_bytes,
    check_cast,
    check_flags,
    check_given,
    check_state,
    check_tape,
    checked_lengths,
    flag,
    names_arguments,
    shape_error,
    size,
    x_hint,
)
from fastrnn.parameters import Parameters
from fastrnn.stream import Stream

if TYPE_CHECKING:
    from fastrnn._engine.formats import FormatName
    from fastrnn.quantization import Quantized

__all__ = ["GRU", "LSTM", "RNN", "SLSTM", "UGRNN"]


class LayerTape(Tape):
    """The saved activations of one `forward` of a layer, for its `backward`; opaque, and never altered by that."""

    __slots__ = ()

    def __repr__(self):
        return f"<LayerTape T={self.inputs.layout.T} B={self.inputs.layout.B} of {self.owner_name()}>"


class SequenceDropout(Dropout):
    """Dropout with one mask for all steps of a sequence.

    The mask of a sequence depends on the seed, the number of the layer that reads it and the number of the sequence in
    the caller's batch alone, so not on lengths.

    Parameters
    ----------
    probability, seed
        As of `Dropout`.
    layout : Layout
        Of the batch.
    """

    __slots__ = ("B", "sequences")

    def __init__(self, probability, seed, layout):
        super().__init__(probability, seed)
        self.B, self.sequences = layout.B, None
        if layout.offsets is not None:  # the sequence of each row
            numbers = np.broadcast_to(np.arange(layout.B)[:, None], (layout.T, layout.B, 1))
            rows = layout.pack(numbers, numbers.dtype)
            self.sequences = rows[:, 0].copy()
            POOL.give_back(rows)

    def mask(self, layer, first_row, x):
        of_sequences = super().mask(layer, 0, np.empty((self.B, x.shape[-1]), bool))
        if self.sequences is None:
            return of_sequences  # for all steps of x (T, B, n)
        return of_sequences[self.sequences[first_row : first_row + len(x)]]


class InferenceLayer(Configured, Generic[Given, Returned]):
    """The base of all layers, quantized ones included: their configuration, a call, a stream."""

    # Configuration

    @property
    def num_layers(self) -> int:
        """The number of stacked layers."""
        return self._options["num_layers"]

    @property
    def batch_first(self) -> bool:
        """Whether `x` and `output` are (B, T, ...)."""
        return self._options["batch_first"]

    @property
    def dropout(self) -> float:
        """The probability with which `forward` sets a number between two layers to zero."""
        return self._options["dropout"]

    @property
    def dropout_per_sequence(self) -> bool:
        """Whether all steps of a sequence have the same mask of `dropout`."""
        return self._options["dropout_per_sequence"]

    @property
    def bidirectional(self) -> bool:
        """Whether each layer also reads the sequences from the end."""
        return self._options["bidirectional"]

    @property
    def reverse(self) -> bool:
        """Whether each layer reads the sequences from the end only."""
        return self._options["reverse"]

    # Computation

    def stream(self, batch_size: int | None = None) -> Stream[Given, Returned]:
        """Return a stream: the layer, computing one step per call and carrying its state.

        Parameters
        ----------
        batch_size : int, optional
            B, at least 1. Default: a single sequence, without a batch axis.

        Returns
        -------
        stream : Stream
            ``y_t = stream.step(x_t)``, ``stream.state``, ``stream.reset()``. It has a copy of the present weights, or
            shares the packed weights of a frozen layer.

        Raises
        ------
        TypeError, ValueError
            If `batch_size` is no integer of at least 1, or if the layer is bidirectional or reverse, because then its
            output at a step depends on all later steps.

        Examples
        --------
        >>> layer = fastrnn.LSTM(64, 128, rng=0)
        >>> stream = layer.stream()
        >>> stream.step(np.zeros(64)).shape
        (128,)
        """
        B = 1 if batch_size is None else size("batch_size", batch_size)
        stack = self._stack
        if len(stack.directions) == 2:
            raise ValueError("stream: a bidirectional layer has no output before it has seen the last step")
        if stack.directions[0]:
            raise ValueError("stream: a reverse layer has no output before it has seen the last step")
        check_bytes("batch_size", (stack.count, B), stack.widest, stack.dtype.itemsize)
        frozen = self._params._frozen
        packed = frozen.for_forward if frozen else stack.pack(self._weights, False)
        return Stream(stack, packed, B, batch_size is not None, repr(self))

    @names_arguments
    def __call__(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[Array, Returned]:
        """Run the layer over a sequence and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
            The input: T steps of B sequences, or of a single one. T and B may be 0. It is cast to the layer's dtype by
            NumPy's "same_kind" rule; any strides and byte order are accepted. A list of arrays of two or more axes is
            refused: stack it.
        state : tuple (h_0, c_0) of array_like, or h_0 if h is the only state, optional
            The state before the first step, (num_layers*D, B, H_out), and c_0 (num_layers*D, B, H), or without B as x
            is; of an SLSTM (h_0, c_0, n_0, m_0). D is 2 for a bidirectional layer, else 1; H_out is `proj_size` if
            there is one, else H. A member may be None. A state with a batch axis of 1, such as a
            learned initial state, is shared by all sequences. Default: zeros.
        lengths : array_like of int, (B,), optional
            Steps of each sequence, 0 to T, in any order; values of x beyond them are ignored. The reverse
            direction begins at each sequence's own end. Default: T.
        resets : array_like of bool, (T, B), or (B, T) with `batch_first`, or (T,), optional
            The steps before which the states of a sequence become zeros in all layers, as if another sequence began
            there. No gradient passes a reset. A flag at t separates t from t - 1 in both directions. Default: none.

        Returns
        -------
        output : ndarray, (T, B, D*H_out), or (B, T, D*H_out) with `batch_first`, or (T, D*H_out)
            h_t of the last layer at every step; zero beyond a sequence's length.
        state_n : tuple (h_n, c_n) of ndarray, or h_n if h is the only state
            The state after each sequence's last step, of the shapes of `state`.

        Raises
        ------
        TypeError
            If a dtype cannot be cast, or an argument is a tensor that requires grad.
        ValueError
            If a shape or a length does not fit. The message starts with the argument's name.
        """
        if resets is None:
            frozen = self._params._frozen
            packed = None if frozen is None else frozen.for_forward
            results = infer_plain(
                self._stack, x, state, lengths, packed, self._weights, self._options["batch_first"], most_threads(),
                instruction_set(), POOL,
            )  # fmt: skip
            if results is not None:
                return results
        inputs = self._inputs(x, state, lengths, resets, private=False)
        stack, frozen = inputs.stack, self._params._frozen  # after conversions, which may run code of the caller
        packed = stack.pack(self._weights, False) if frozen is None else frozen.for_forward
        state_n = empty_states(inputs.state_0)
        output = infer(inputs, packed, state_n)
        if frozen is None:
            POOL.give_back_all(packed)
        if inputs.layout.offsets is not None:
            POOL.give_back(inputs.x)
            state_n = inputs.layout.unsort(state_n)
        return self._returned(output, state_n, inputs.batched)

    # Between the caller's shapes and (T, B, I), (num_layers * D, B, H)

    def _inputs(self, x, state, lengths, resets, private):
        """The arguments of a call, converted and checked; with `private`, the state in memory of our own."""
        if state is None and lengths is None and resets is None and not self._options["batch_first"]:
            inputs = plain_inputs(self._stack, x, padded)
            if inputs is not None:
                return inputs
        x = x.view() if type(x) is np.ndarray else as_x(x)
        given = None if state is None else as_states(self._stack.spec, "state", "{}_0", state, x.ndim)
        lengths = None if lengths is None else as_lengths(lengths)
        resets = None if resets is None else as_array("resets", resets)
        stack = self._stack
        dtype, shape = stack.dtype, x.shape
        if x.dtype is not dtype:
            check_cast("x", x, dtype)
        batched = len(shape) == 3
        if len(shape) not in (2, 3) or shape[-1] != stack.I:
            raise self._x_error(shape, x_hint(x))
        if not batched:
            x = x[:, None]
            if lengths is not None:
                raise ValueError("lengths: expected None for an x without a batch axis")
        elif self._options["batch_first"]:
            x = x.transpose(1, 0, 2)
        T, B, _ = x.shape
        if (T or 1) * (B or 1) > stack.most_rows:
            check_bytes("x", (T, B), stack.widest, dtype.itemsize)
        if lengths is None and resets is None:
            layout = padded(T, B)
        else:
            layout = layout_of(T, B, checked_lengths(lengths, T, B), self._checked_resets(resets, T, B, batched))
        if given is None:
            state_0, shared = zero_states(stack.count, B, stack.widths, dtype), None
        else:
            check = check_state if batched else check_array
            given = self._checked_states(stack, "state", "{}_0", given, B, batched, check)
            state_0, shared = initial_states(stack, layout, given, private)
        rows = layout.pack(x, dtype)
        return Inputs(stack, layout, rows, rows is not x, state_0, shared, batched)

    def _checked_resets(self, resets, T, B, batched):
        """A private array of bool, (T, B), or None."""
        if resets is None:
            return None
        if not batched:
            check_flags("resets", resets, ("T",), (T,))
            return resets[:, None].copy()
        if not self._options["batch_first"]:
            check_flags("resets", resets, ("T", "B"), (T, B))
            return resets.copy()
        check_flags("resets", resets, ("B", "T"), (B, T))
        return resets.T.copy()

    def _x_error(self, given, hint):
        I = self._stack.I
        axes = ("B", "T") if self._options["batch_first"] else ("T", "B")
        if len(given) == 3:
            return shape_error("x", (*axes, "input_size"), (None, None, I), given)
        if len(given) == 2:
            return shape_error("x", ("T", "input_size"), (None, I), given, hint)
        return ValueError(f"x: expected ({', '.join(axes)}, input_size={I}) or (T, input_size={I}), got {given}{hint}")

    def _checked_states(self, stack, argument, pattern, given, B, batched, check):
        """Arrays of `as_states`, checked, with an axis of sequences."""
        axes = slice(0, 3) if batched else slice(0, 3, 2)
        layers = "num_layers" if len(stack.directions) == 1 else "2*num_layers"
        symbols, sizes = [], []
        for k, width in enumerate(stack.widths):
            symbols.append((layers, "B", "hidden_size" if k else output_symbol(stack))[axes])
            sizes.append((stack.count, B, width)[axes])
        check_states(stack.spec, argument, pattern, given, symbols, sizes, stack.dtype, check)
        return given if batched else [None if array is None else array[:, None] for array in given]

    def _returned(self, output, states, batched):
        """Time-major results in the caller's axes: an array, and a state."""
        if not batched:
            states = [s[:, 0] for s in states]
        if not batched or self._options["batch_first"]:
            output = self._as_given(output, batched)
        return output, states[0] if len(states) == 1 else tuple(states)

    def _as_given(self, array, batched):
        """(T, B, n) in the caller's axes; None for None."""
        if array is None:
            return None
        if not batched:
            return array[:, 0]
        return array.transpose(1, 0, 2) if self._options["batch_first"] else array


class Recurrent(InferenceLayer[Given, Returned], Parametrized):
    """The base of the layers of all cells: everything but their names and options."""

    def _check_options(self, options, is_new):
        if options["reverse"] and options["bidirectional"]:
            raise ValueError("reverse: not with bidirectional, which has both directions")
        if is_new and options["dropout"] and options["num_layers"] == 1:
            warnings.warn("dropout: is between layers, and has no effect with num_layers=1", stacklevel=6)
        if is_new and options["dropout_per_sequence"] and not options["dropout"]:
            warnings.warn("dropout_per_sequence: has no effect with dropout=0", stacklevel=6)

    def _arrangement(self, options):
        if options["bidirectional"]:
            return options["num_layers"], (False, True), ("_l{}", "_l{}_reverse")
        return options["num_layers"], (options["reverse"],), ("_l{}",)

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
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
        resets: ArrayLike | None = None,
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
        resets: ArrayLike | None = None,
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
        resets: ArrayLike | None = None,
        *,
        checkpoint_every: int | None = None,
        return_gates: bool = False,
    ) -> Any:
        """Run the layer over a sequence and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths, resets
            As for a call of the layer.
        checkpoint_every : int, optional
            Keep only the state of every `checkpoint_every`-th step; `backward` computes the steps in between again.
            This needs memory for T / checkpoint_every + checkpoint_every steps instead of T, and gives the same bits.
            The inner layers of a bidirectional stack also keep their inputs. Default: keep everything.
        return_gates : bool, default False
            Whether to return `gates`, too. Not with `checkpoint_every`, which does not keep them.

        Returns
        -------
        output, state_n
            As from a call of the layer, the same bits, except with `dropout`.
        tape : LayerTape
            For `backward`. Tapes are independent of each other. The parameters may be changed before
            the backward pass, `x` may not.
        gates : list of dict of ndarray, only with `return_gates`
            For each layer and direction, in the order of `state`, its gates at every step: "i", "f", "g", "o" and
            "c" of an LSTM, "r", "z" and "n" of a GRU, "i", "f", "z", "o", "c", "n" and "m" of an SLSTM, "g" and "c" of
            a UGRNN, after their activations, (T, B, H); and "h", the output of that layer before any `dropout`,
            (T, B, H_out). Each in the axes of `output`, zero beyond a sequence's length, and a copy.

        Raises
        ------
        TypeError, ValueError
            As in a call of the layer, or if `checkpoint_every` and `return_gates` are given together.

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
        gates: list[dict[str, Array]] | None = None
        if return_gates is not False and flag("return_gates", return_gates):
            gates = []
        if checkpoint_every and gates is not None:
            raise ValueError("return_gates: not with checkpoint_every, which does not keep gates")
        inputs = self._inputs(x, state, lengths, resets, private=True)
        stack, frozen = inputs.stack, self._params._frozen
        if frozen is None:
            for_forward, for_backward = stack.pack_for_training(self._weights)
            owned = for_backward
            if checkpoint_every:  # backward runs forward again, with the weights as they are now
                owned = owned + for_forward
        else:
            for_forward, for_backward = self._packed_for_training(frozen)
            owned = []
        dropout = self._drawn_dropout(inputs.layout) if self._options["dropout"] and stack.num_layers > 1 else None
        tape = LayerTape(inputs, for_backward, self)
        output, state_n = tape.run(for_forward, owned, dropout, checkpoint_every, gates)
        if frozen is None and not checkpoint_every:
            POOL.give_back_all(for_forward)
        results = *self._returned(output, state_n, inputs.batched), tape
        if gates is None:
            return results
        return *results, [{name: self._as_given(a, inputs.batched) for name, a in one.items()} for one in gates]

    def _drawn_dropout(self, layout):
        """The dropout of one forward pass."""
        probability, seed = self._options["dropout"], int(self._rng.integers(2**63))
        if self._options["dropout_per_sequence"]:
            return SequenceDropout(probability, seed, layout)
        return Dropout(probability, seed)

    @overload
    def backward(
        self,
        tape: LayerTape,
        d_output: ArrayLike | None = None,
        d_state_n: Given | None = None,
        *,
        input_gradient: Literal[True] = True,
    ) -> tuple[Array, Returned, Parameters]: ...

    @overload
    def backward(
        self,
        tape: LayerTape,
        d_output: ArrayLike | None = None,
        d_state_n: Given | None = None,
        *,
        input_gradient: bool,
    ) -> tuple[Array | None, Returned, Parameters]: ...

    def backward(
        self,
        tape: LayerTape,
        d_output: ArrayLike | None = None,
        d_state_n: Given | None = None,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, Returned, Parameters]:
        """The gradients of a loss through one `forward`.

        May be called any number of times with one tape; it accumulates nothing. The gradient is that of
        the parameters at the `forward`.

        Parameters
        ----------
        tape : LayerTape
            The tape that `forward` of this layer returned.
        d_output : array_like, shape of `output`, optional
            The gradient with respect to `output`; values beyond a sequence's length are ignored.
            Default: zeros.
        d_state_n : tuple (d_h_n, d_c_n) of array_like, or d_h_n if h is the only state, optional
            The gradient with respect to `state_n`, of its shapes; a member may be None. Default: zeros. At least one
            gradient must be given.
        input_gradient : bool, default True
            Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

        Returns
        -------
        d_x : ndarray, shape of `x`, or None without `input_gradient`
            Zero beyond a sequence's length.
        d_state : tuple (d_h_0, d_c_0) of ndarray, or d_h_0 if h is the only state
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
        check_tape(tape, LayerTape, owner=self, kind="layer")
        if d_output is not None:
            d_output = d_output.view() if type(d_output) is np.ndarray else as_array("d_output", d_output)
        inputs = tape.inputs
        stack, batched = inputs.stack, inputs.batched
        if stack is not self._stack:
            raise ValueError("tape: made before the layer was constructed again")
        given = [None] * len(stack.widths)
        if d_state_n is not None:
            given = as_states(self._spec, "d_state_n", "d_{}_n", d_state_n, 3 if batched else 2)
        check_given(d_output, *given)
        T, B = inputs.layout.T, inputs.layout.B
        if d_output is not None:
            d_output = self._output_gradient(stack, d_output, T, B, batched)
        if d_state_n is not None:
            given = self._checked_states(stack, "d_state_n", "d_{}_n", given, B, batched, check_array)
        d_params = self._params._like(POOL.empty)
        is_needed = input_gradient if input_gradient is True else flag("input_gradient", input_gradient)
        d_x, d_state = tape.backward(d_output, given, self._split(d_params._arrays), is_needed)
        return *self._returned(d_x, d_state, batched), d_params

    def quantize(self, format: FormatName) -> Quantized[Given, Returned]:
        """Return a layer for inference whose weights have fewer bits.

        Biases, peephole weights, sums, activations, states and everything passed in and out stay float32.
        docs/quantization.md describes the rounding and its effect on outputs.

        Parameters
        ----------
        format : {"int8", "float16", "bfloat16", "float8"}
            "int8": weights are integers from -127 to 127 with a scale for each row; so are x and h, with a scale for
            each sequence and step, which is 1/127 for an h bounded by 1. "float16": weights are rounded, and products
            are those of float32. "bfloat16": weights, x and h are rounded. In both, the weight of a recurrent
            projection stays float32. "float8": weights are rounded to 4 significant bits, with a power of two as the
            scale of each row, and products are those of float32.

        Returns
        -------
        q : Quantized
            It has a copy of the present weights, rounded.

        Raises
        ------
        TypeError
            If `format` is not a string.
        ValueError
            If `format` is not one of these, if the layer is of float64, or if a weight has a number that the format
            cannot express: a NaN or an infinity for int8 or float8, a finite one too large for the other formats.

        See Also
        --------
        fastrnn.compare : how much the outputs change.

        Examples
        --------
        >>> layer = fastrnn.LSTM(64, 128, rng=0)
        >>> q = layer.quantize("int8")
        >>> output, (h_n, c_n) = q(np.zeros((25, 16, 64)))
        >>> q
        LSTM(64, 128).quantize('int8')
        """
        from fastrnn.quantization import Quantized

        return Quantized(self, format)

    def _output_gradient(self, stack, d_output, T, B, batched):
        """d_output (T, B, D * H_out), checked and not yet native."""
        batch_first = batched and self._options["batch_first"]
        shape: tuple[int, ...] = (B, T, stack.output_width) if batch_first else (T, B, stack.output_width)
        if not batched:
            shape = T, stack.output_width
        if d_output.shape != shape or d_output.dtype is not stack.dtype:
            last = output_symbol(stack) if len(stack.directions) == 1 else f"2*{output_symbol(stack)}"
            symbols = (("B", "T", last) if batch_first else ("T", "B", last)) if batched else ("T", last)
            check_array("d_output", d_output, symbols, shape, stack.dtype)
        if not batched:
            return d_output[:, None]
        return d_output.transpose(1, 0, 2) if batch_first else d_output


class LSTM(Recurrent[State, tuple[Array, Array]], Activated, spec=spec.LSTM):
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
        The number of stacked layers; each takes the output of the layer below.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        Whether `x` and `output` are (B, T, ...) rather than (T, B, ...). The state is not affected.
    dropout : float, default 0.0
        The probability with which `forward`, not a call of the layer, sets a number between two layers to zero; the
        others are divided by 1 - dropout.
    dropout_per_sequence : bool, default False
        Whether all steps of a sequence have the same mask of `dropout`: the variational dropout of Gal and Ghahramani
        2016, between layers alone.
    bidirectional : bool, default False
        Whether each layer also reads the sequences from the end, with weights of its own. The two outputs are
        concatenated.
    reverse : bool, default False
        Whether each layer reads the sequences from the end only. `output` stays in order of time. Not with
        `bidirectional`.
    proj_size : int, default 0
        Size H_out of a projection of each output, less than H; 0 for none, and H_out is H.
    peephole : bool, default False
        Whether the gates depend on the cell state: i and f on that of the step before, o on the new one.
    recurrent_activation, activation, clip
        The activations of the gates and of g and c_t, and a bound of their input: as in `fastrnn.functional.lstm`.
    dtype : data-type, default float32
        float32 or float64: of the parameters, of the computation and of everything returned.
    rng : None, int or numpy.random.Generator, optional
        The source of the initial parameters, uniform in [-1/sqrt(H), 1/sqrt(H)), and of the masks of `dropout`. An int
        is a seed. Default: different at each construction.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H_out), bias_ih_l0 (4*H,), bias_hh_l0 (4*H,), weight_hr_l0 (H_out, H)
        and weight_peephole_l0 (3, H), as far as they exist; then the same with the suffix _l0_reverse; and then those
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
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        reverse: bool = False,
        dropout_per_sequence: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def proj_size(self) -> int:
        """Size of the projected output; 0 for no projection."""
        return self._options["proj_size"]

    @property
    def peephole(self) -> bool:
        """Whether the gates see the cell state."""
        return self._options["peephole"]


class GRU(Recurrent[ArrayLike, Array], Activated, spec=spec.GRU):
    """A layer of gated recurrent units, or a stack of them, as torch.nn.GRU.

    See `fastrnn.functional.gru` for the equations and their source; gate order, names and shapes of the parameters are
    those of torch.nn.GRU, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, dropout_per_sequence, bidirectional,
    reverse, dtype, rng
        As for `LSTM`.
    reset_after : bool, default True
        Whether the reset gate comes after the recurrent product, as in torch.nn.GRU, or before it, as in Cho et al.
        2014, with ONNX's linear_before_reset=0 and with Keras' reset_after=False.
    recurrent_activation, activation, clip
        The activations of r and z and of n, and a bound of their input: as in `fastrnn.functional.gru`.

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
        reset_after: bool = True,
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        reverse: bool = False,
        dropout_per_sequence: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def reset_after(self) -> bool:
        """Whether the reset gate comes after the recurrent product."""
        return self._options["reset_after"]


class RNN(Recurrent[ArrayLike, Array], Clipped, spec=spec.RNN):
    """A plain recurrent layer, or a stack of them, as torch.nn.RNN.

    See `fastrnn.functional.rnn` for the equation and its source; names and shapes of the parameters are those of
    torch.nn.RNN, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, dropout_per_sequence, bidirectional,
    reverse, dtype, rng
        As for `LSTM`.
    nonlinearity : {"tanh", "relu", "sigmoid"}, default "tanh"
        The activation; the argument comes after `num_layers`.
    clip : float, optional
        Bounds the input of the activation to [-clip, clip]. Default: no bound.

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
        nonlinearity: RNNNonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        clip: float | None = None,
        reverse: bool = False,
        dropout_per_sequence: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def nonlinearity(self) -> str:
        """The activation, "tanh", "relu" or "sigmoid"."""
        return self._options["nonlinearity"]


class SLSTM(Recurrent[FourStates, tuple[Array, Array, Array, Array]], spec=spec.SLSTM):
    """A layer of sLSTM, or a stack of them: the LSTM with exponential gates and heads of the xLSTM.

    See `fastrnn.functional.slstm` for the equations and their source. The state is (h, c, n, m).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, dropout_per_sequence, bidirectional,
    reverse, dtype, rng
        As for `LSTM`.
    num_heads : int, default 1
        Heads, which divide `hidden_size`: each sees its own H/num_heads numbers of h_(t-1) alone.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H/num_heads), bias_ih_l0 (4*H,), bias_hh_l0 (4*H,); then the same with
        the suffix _l0_reverse if there is one; and then those of layer 1 with (4*H, D*H) for weight_ih_l1, and so on.
        Rows are in the order i, f, z, o, and in each of these in the order of the heads.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.SLSTM(64, 128, num_heads=4, rng=0)
    >>> output, (h_n, c_n, n_n, m_n) = layer(np.zeros((25, 16, 64)))
    >>> output.shape, n_n.shape, layer.params["weight_hh_l0"].shape
    ((25, 16, 128), (1, 16, 128), (512, 32))
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
        num_heads: int = 1,
        reverse: bool = False,
        dropout_per_sequence: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def num_heads(self) -> int:
        """Heads, each with a recurrence of its own."""
        return self._options["num_heads"]


class UGRNN(Recurrent[ArrayLike, Array], Activated, spec=spec.UGRNN):
    """A layer of update gate units, or a stack of them: a GRU without its reset gate.

    See `fastrnn.functional.ugrnn` for the equations and their source.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, dropout_per_sequence, bidirectional,
    reverse, dtype, rng
        As for `LSTM`.
    recurrent_activation, activation, clip
        The activations of g and of c, and a bound of their input: as in `fastrnn.functional.ugrnn`.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (2*H, I), weight_hh_l0 (2*H, H), bias_ih_l0 (2*H,), bias_hh_l0 (2*H,); then the same with the
        suffix _l0_reverse if there is one; and then those of layer 1 with (2*H, D*H) for weight_ih_l1, and so on.
        Rows are in the order g, c.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.UGRNN(64, 128, rng=0)
    >>> layer.params["bias_ih_l0"][:128] += 1  # so that g begins near 0.7 rather than 0.5
    >>> output, h_n = layer(np.zeros((25, 16, 64)))
    >>> output.shape, h_n.shape
    ((25, 16, 128), (1, 16, 128))
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
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        reverse: bool = False,
        dropout_per_sequence: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())
