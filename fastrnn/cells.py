"""Cells: one step of one layer, with its parameters, as torch.nn has them."""

from __future__ import annotations

from typing import Generic, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._config import instruction_set
from fastrnn._core import Inputs, empty_states, infer_step, zero_states
from fastrnn._engine import spec
from fastrnn._engine.arguments import as_states, check_states, initial_states
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import padded
from fastrnn._engine.stack import infer
from fastrnn._engine.tape import Tape
from fastrnn._parametrized import Activated, Clipped, Given, Parametrized, Returned
from fastrnn._threads import most_threads
from fastrnn._validation import (
    Array,
    Nonlinearity,
    RecurrentActivation,
    RNNNonlinearity,
    State,
    as_array,
    check_array,
    check_bytes,
    check_cast,
    check_state,
    check_tape,
    flag,
    names_arguments,
    shape_error,
)
from fastrnn.parameters import Parameters

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "UGRNNCell"]


class CellTape(Tape):
    """The saved activations of one `forward` of a cell, for its `backward`; opaque, and never altered by that."""

    __slots__ = ()

    def __repr__(self):
        return f"<CellTape B={self.inputs.layout.B} of {self.owner_name()}>"


class Cell(Parametrized, Generic[Given, Returned]):
    """The base of all cells: everything but their names and options."""

    _states_have_layers = False

    def _arrangement(self, options):
        return 1, (False,), ("",)

    @names_arguments
    def __call__(self, x: ArrayLike, state: Given | None = None) -> Returned:
        """Take one step and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (B, I) or (I,)
            The input of this step, cast to the cell's dtype by NumPy's "same_kind" rule. B may be 0.
        state : tuple (h, c) of array_like, or h if h is the only state, each (B, H), or (H,) as x is, optional
            The state before; a member may be None, or (1, H) for all sequences. Default: zeros.

        Returns
        -------
        state : tuple (h, c) of ndarray, or h if h is the only state
            The state after the step, whose h is the output.

        Raises
        ------
        TypeError
            If a dtype cannot be cast.
        ValueError
            If a shape does not fit. The message starts with the argument's name.
        """
        frozen = self._params._frozen
        packed = None if frozen is None else frozen.for_forward
        results = infer_step(self._stack, x, state, packed, self._weights, most_threads(), instruction_set(), POOL)
        if results is not None:
            return results
        inputs = self._inputs(x, state, private=False)
        stack, frozen = inputs.stack, self._params._frozen  # after conversions, which may run code of the caller
        packed = stack.pack(self._weights, False) if frozen is None else frozen.for_forward
        state_n = empty_states(inputs.state_0)
        infer(inputs, packed, state_n)
        if frozen is None:
            POOL.give_back_all(packed)
        return self._returned(state_n, inputs.batched)

    @names_arguments
    def forward(self, x: ArrayLike, state: Given | None = None) -> tuple[Returned, CellTape]:
        """Take one step and keep a tape for `backward`.

        Parameters
        ----------
        x, state
            As for a call of the cell.

        Returns
        -------
        state
            As from a call of the cell, the same bits.
        tape : CellTape
            For `backward`. Tapes are independent of each other. The parameters may be changed before the backward
            pass, `x` may not.

        Raises
        ------
        TypeError, ValueError
            As in a call of the cell.
        """
        inputs = self._inputs(x, state, private=True)
        stack, frozen = inputs.stack, self._params._frozen
        if frozen is None:
            for_forward, for_backward = stack.pack_for_training(self._weights)
        else:
            for_forward, for_backward = self._packed_for_training(frozen)
        tape = CellTape(inputs, for_backward, self)
        _, state_n = tape.run(for_forward, for_backward if frozen is None else [])
        if frozen is None:
            POOL.give_back_all(for_forward)
        return self._returned(state_n, inputs.batched), tape

    @overload
    def backward(
        self,
        tape: CellTape,
        d_state: Given | None,
        *,
        input_gradient: Literal[True] = True,
    ) -> tuple[Array, Returned, Parameters]: ...

    @overload
    def backward(
        self,
        tape: CellTape,
        d_state: Given | None,
        *,
        input_gradient: bool,
    ) -> tuple[Array | None, Returned, Parameters]: ...

    def backward(
        self,
        tape: CellTape,
        d_state: Given | None,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, Returned, Parameters]:
        """The gradients of a loss through one `forward`.

        May be called any number of times with one tape; it accumulates nothing. The parameters are taken as they
        were at the `forward`.

        Parameters
        ----------
        tape : CellTape
            The tape that `forward` of this cell returned.
        d_state : tuple (d_h, d_c) of array_like, or d_h if h is the only state
            The gradient with respect to the state that `forward` returned, of its shapes; a member may be None for
            zeros.
        input_gradient : bool, default True
            Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

        Returns
        -------
        d_x : ndarray, shape of `x`, or None without `input_gradient`
        d_state : tuple (d_h, d_c) of ndarray, or d_h if h is the only state
            The gradient with respect to the state before; of a state (1, H) for all sequences the sum over them,
            (1, H), as in `LSTM.backward`.
        d_params : Parameters
            The names and shapes of `params`.

        Raises
        ------
        TypeError
            If `tape` is not a cell's tape, or a dtype cannot be cast.
        ValueError
            If the tape is another cell's, if no gradient is given, if a shape does not fit, or if the `x` of the
            forward pass has been changed since.
        """
        check_tape(tape, CellTape, "second", self, "cell")
        inputs = tape.inputs
        if inputs.stack is not self._stack:
            raise ValueError("tape: made before the cell was constructed again")
        given = as_states(self._spec, "d_state", "d_{}", d_state, 2 if inputs.batched else 1)
        if all(array is None for array in given):
            raise ValueError("d_state: is not given, so all gradients would be zero")
        stack, B = inputs.stack, inputs.layout.B
        given = self._checked_states(stack, "d_state", "d_{}", given, B, inputs.batched, check_array)
        d_params = self._params._like(POOL.empty)
        is_needed = flag("input_gradient", input_gradient)
        d_x, d_before = tape.backward(None, given, self._split(d_params._arrays), is_needed)
        if is_needed:
            d_x = d_x[0] if inputs.batched else d_x[0, 0]
        return d_x, self._returned(d_before, inputs.batched), d_params

    # Between the caller's shapes and (1, B, I), (B, H)

    def _inputs(self, x, state, private):
        """The arguments of a call, converted and checked; with `private`, the state in memory of our own."""
        x = as_array("x", x)
        shape = x.shape
        given = None if state is None else as_states(self._spec, "state", "{}", state, len(shape))
        stack = self._stack
        I, dtype = stack.I, stack.dtype
        if x.dtype is not dtype:
            check_cast("x", x, dtype)
        batched = len(shape) == 2
        if len(shape) not in (1, 2):
            raise ValueError(f"x: expected (B, input_size={I}) or (input_size={I},), got {shape}")
        if shape[-1] != I:
            raise shape_error("x", ("B", "input_size")[-len(shape) :], (None, I)[-len(shape) :], shape)
        x, B = (x[None], shape[0]) if batched else (x[None, None], 1)
        if B > stack.most_rows:
            check_bytes("x", (1, B), stack.widest, dtype.itemsize)
        layout = padded(1, B)
        if given is None:
            state_0, shared = zero_states(0, B, stack.widths, dtype), None
        else:
            check = check_state if batched else check_array
            given = self._checked_states(stack, "state", "{}", given, B, batched, check)
            state_0, shared = initial_states(stack, layout, given, private)
        rows = layout.pack(x, dtype)
        return Inputs(stack, layout, rows, rows is not x, state_0, shared, batched)

    def _checked_states(self, stack, argument, pattern, given, B, batched, check):
        """Arrays of `as_states`, checked, with an axis of sequences."""
        axes = slice(0 if batched else 1, 2)
        symbols, sizes = ("B", "hidden_size")[axes], (B, stack.H)[axes]
        count = len(stack.widths)
        check_states(self._spec, argument, pattern, given, [symbols] * count, [sizes] * count, stack.dtype, check)
        return given if batched else [None if array is None else array[None] for array in given]

    def _returned(self, states, batched):
        """States (B, H) in the caller's axes."""
        if not batched:
            states = [s[0] for s in states]
        return states[0] if len(states) == 1 else tuple(states)


class LSTMCell(Cell[State, tuple[Array, Array]], Activated, spec=spec.LSTM):
    """One step of a long short-term memory layer, as torch.nn.LSTMCell.

    See `fastrnn.functional.lstm` for the equations and their source.

    Parameters
    ----------
    input_size : int
        Size I of the input, at least 1.
    hidden_size : int
        Size H of the state, at least 1.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    recurrent_activation, activation, clip
        The activations of the gates and of g and c_t, and a bound of their input: as in `fastrnn.functional.lstm`.
    dtype : data-type, default float32
        float32 or float64: of the parameters, of the computation and of everything returned.
    rng : None, int or numpy.random.Generator, optional
        Where the initial parameters come from: uniform in [-1/sqrt(H), 1/sqrt(H)). An int is a seed.
        Default: different at each construction.

    Attributes
    ----------
    params : Parameters
        weight_ih (4*H, I), weight_hh (4*H, H), bias_ih (4*H,), bias_hh (4*H,); rows in the order i, f, g, o.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> cell = fastrnn.LSTMCell(64, 128, rng=0)
    >>> h, c = cell(np.zeros((16, 64)))
    >>> h, c = cell(np.zeros((16, 64)), (h, c))
    >>> h.shape, c.shape
    ((16, 128), (16, 128))
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())


class GRUCell(Cell[ArrayLike, Array], Activated, spec=spec.GRU):
    """One step of a layer of gated recurrent units, as torch.nn.GRUCell.

    See `fastrnn.functional.gru` for the equations and their source.

    Parameters
    ----------
    input_size, hidden_size, bias, dtype, rng
        As for `LSTMCell`.
    reset_after : bool, default True
        As for `GRU`.
    recurrent_activation, activation, clip
        The activations of r and z and of n, and a bound of their input: as in `fastrnn.functional.gru`.

    Attributes
    ----------
    params : Parameters
        weight_ih (3*H, I), weight_hh (3*H, H), bias_ih (3*H,), bias_hh (3*H,); rows in the order r, z, n.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> cell = fastrnn.GRUCell(64, 128, rng=0)
    >>> h = cell(np.zeros(64))
    >>> cell(np.zeros(64), h).shape
    (128,)
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def reset_after(self) -> bool:
        """Whether the reset gate comes after the recurrent product."""
        return self._options["reset_after"]


class RNNCell(Cell[ArrayLike, Array], Clipped, spec=spec.RNN):
    """One step of a plain recurrent layer, as torch.nn.RNNCell.

    See `fastrnn.functional.rnn` for the equation and its source.

    Parameters
    ----------
    input_size, hidden_size, bias, dtype, rng
        As for `LSTMCell`.
    nonlinearity : {"tanh", "relu", "sigmoid"}, default "tanh"
        The activation; the argument comes after `bias`.
    clip : float, optional
        Bounds the input of the activation to [-clip, clip]. Default: no bound.

    Attributes
    ----------
    params : Parameters
        weight_ih (H, I), weight_hh (H, H), bias_ih (H,), bias_hh (H,).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> cell = fastrnn.RNNCell(64, 128, nonlinearity="relu", rng=0)
    >>> cell(np.zeros((16, 64))).shape
    (16, 128)
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: RNNNonlinearity = "tanh",
        *,
        clip: float | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())

    @property
    def nonlinearity(self) -> str:
        """The activation, "tanh", "relu" or "sigmoid"."""
        return self._options["nonlinearity"]


class UGRNNCell(Cell[ArrayLike, Array], Activated, spec=spec.UGRNN):
    """One step of a layer of update gate units.

    See `fastrnn.functional.ugrnn` for the equations and their source.

    Parameters
    ----------
    input_size, hidden_size, bias, dtype, rng
        As for `LSTMCell`.
    recurrent_activation, activation, clip
        The activations of g and of c, and a bound of their input: as in `fastrnn.functional.ugrnn`.

    Attributes
    ----------
    params : Parameters
        weight_ih (2*H, I), weight_hh (2*H, H), bias_ih (2*H,), bias_hh (2*H,); rows in the order g, c.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> cell = fastrnn.UGRNNCell(64, 128, rng=0)
    >>> h = cell(np.zeros(64))
    >>> cell(np.zeros(64), h).shape
    (128,)
    """

    @names_arguments
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        recurrent_activation: RecurrentActivation = "sigmoid",
        activation: Nonlinearity = "tanh",
        clip: float | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._construct(locals())
