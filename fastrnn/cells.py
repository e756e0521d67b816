"""Cells: one step of one layer, with its parameters, as torch.nn has them."""

from __future__ import annotations

import sys
import weakref
from typing import Generic

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._levels import kept_memory, pack_stack
from fastrnn._parametrized import Given, Parametrized, Returned, owner
from fastrnn._rows import Rows
from fastrnn._validation import (
    NONLINEARITIES,
    Array,
    Nonlinearity,
    State,
    as_array,
    check_array,
    check_bytes,
    check_cast,
    check_state,
    check_tape,
    choice,
    initial_state,
    is_shared,
    names_arguments,
    native,
    native_or_none,
    over_sequences,
    shape_error,
)
from fastrnn.functional import GATES, Tape, empty_like, infer_rows, run_back, run_tapes
from fastrnn.parameters import Parameters

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


# What messages call a state, its members, and both of an LSTM.
STATE = "state", "state (h)", "state (c)", "(h, c)"
D_STATE = "d_state", "d_state (d_h)", "d_state (d_c)", "(d_h, d_c)"


class CellTape:
    """What a cell's `backward` needs of its `forward`; opaque, and never altered by a backward."""

    __slots__ = ("cell", "tape", "batched", "shared")

    def __init__(self, cell, tape, batched, shared):
        self.cell = weakref.ref(cell)
        self.tape = tape
        self.batched = batched
        self.shared = shared  # whether h and c are each one for all sequences

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one cell")

    def __repr__(self):
        return f"<CellTape B={self.tape.rows.B} of {owner(self.cell)}>"


class Cell(Parametrized, Generic[Given, Returned]):
    """What LSTMCell, GRUCell and RNNCell share: everything but their names and options."""

    def _derive(self):
        super()._derive()
        self._widest = max(self._input_size, GATES[self._cell] * self._hidden_size)
        self._most_rows = sys.maxsize // (self._widest * self._dtype.itemsize)

    _OWN = (*Parametrized._OWN, "_widest", "_most_rows")

    @names_arguments
    def __call__(self, x: ArrayLike, state: Given | None = None) -> Returned:
        """Take one step and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (B, I) or (I,)
            The input of this step, cast to the cell's dtype by NumPy's "same_kind" rule. B may be 0.
        state : tuple (h, c) of array_like, or h for a GRU or an RNN, each (B, H), or (H,) as x is, optional
            The state before; a member may be None, or (1, H) for all sequences. Default: zeros.

        Returns
        -------
        state : tuple (h, c) of ndarray, or h for a GRU or an RNN
            The state after the step, whose h is the output.

        Raises
        ------
        TypeError
            If a dtype cannot be cast.
        ValueError
            If a shape does not fit. The message starts with the argument's name.
        """
        rows, given, batched, state_0, _ = self._arguments(x, state, private_state=False)
        state_n = empty_like(state_0)
        frozen = self._params._frozen
        weights = frozen.for_forward[0] if frozen else self._weights[0]
        infer_rows(self._cell, rows, [(False, native(given, self._dtype), state_0, weights, state_n)])
        return self._returned(state_n, batched)

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
        rows, given, batched, state_0, shared = self._arguments(x, state, private_state=True)
        x = native(given, self._dtype)
        state_n = empty_like(state_0)
        frozen = self._params._frozen
        if frozen is None:
            weights, packed = self._weights, pack_stack(self._cell, self._weights, True)
        else:
            weights, packed = self._for_training(frozen)
        kept = kept_memory(self._cell, rows, self._hidden_size, 0, self._dtype)
        tape = Tape(rows, False, x, x is not given, state_0, packed[0], kept)
        run_tapes(self._cell, [tape], weights[:1], [state_n])
        return self._returned(state_n, batched), CellTape(self, tape, batched, shared)

    def backward(self, tape: CellTape, d_state: Given | None) -> tuple[Array, Returned, Parameters]:
        """The gradients of a loss through one `forward`.

        May be called any number of times with one tape; it accumulates nothing. The parameters are taken as they
        were at the `forward`.

        Parameters
        ----------
        tape : CellTape
            What `forward` of this cell returned.
        d_state : tuple (d_h, d_c) of array_like, or d_h for a GRU or an RNN
            The gradient with respect to the state that `forward` returned, of its shapes; a member may be None for
            zeros.

        Returns
        -------
        d_x : ndarray, shape of `x`
        d_state : tuple (d_h, d_c) of ndarray, or d_h for a GRU or an RNN
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
        check_tape(tape, CellTape, "second")
        members = self._as_state(D_STATE, d_state, 2 if tape.batched else 1)
        if tape.cell() is not self:
            raise ValueError(f"tape: made by another cell, {owner(tape.cell)}")
        if all(array is None for _, array in members):
            raise ValueError("d_state: is not given, so all gradients would be zero")
        members = self._checked_state(members, tape.tape.rows.B, tape.batched, check_array)
        tape.tape.check_x()
        d_state_n = tuple(native_or_none(d, self._dtype) for d in members)
        d_state_0 = empty_like(tape.tape.state_0)
        d_params = self._params.empty_like()
        ((d_x,),) = run_back([tape.tape], [None], [(d_state_n, d_state_0, self._split(d_params._arrays)[0], None)])
        d_state_0 = tuple(over_sequences(d) if one else d for d, one in zip(d_state_0, tape.shared))
        return d_x if tape.batched else d_x[0], self._returned(d_state_0, tape.batched), d_params

    # Between the caller's shapes and (1, B, I), (B, H)

    def _arguments(self, x, state, private_state):
        """The rows; x (1, B, I) not yet cast, and whether it had a batch axis; the state, native, and what of it was
        given once for all sequences.
        """
        x = as_array("x", x)
        shape = x.shape
        members = None if state is None else self._as_state(STATE, state, len(shape))
        I, dtype = self._input_size, self._dtype
        if x.dtype is not dtype:
            check_cast("x", x, dtype)
        batched = len(shape) == 2
        if len(shape) not in (1, 2):
            raise ValueError(f"x: expected (B, input_size={I}) or (input_size={I},), got {shape}")
        if shape[-1] != I:
            raise shape_error("x", ("B", "input_size")[-len(shape) :], (None, I)[-len(shape) :], shape)
        x, B = (x[None], shape[0]) if batched else (x[None, None], 1)
        if B > self._most_rows:
            check_bytes("x", (1, B), self._widest, dtype.itemsize)
        h, c, shared = None, None, (False, False)
        if members is not None:
            h, c = self._checked_state(members, B, batched, check_state if batched else check_array)
            shared = is_shared(h, B), is_shared(c, B)
        sizes = (B, self._hidden_size)
        h = initial_state(h, sizes, dtype, private_state)
        c = initial_state(c, sizes, dtype, private_state) if self._cell == "lstm" else None
        return Rows(1, B), x, batched, (h, c), shared

    def _checked_state(self, members, B, batched, check):
        """(h, c) of _as_state, checked but not yet native, each may be None."""
        axes = slice(0 if batched else 1, 2)
        symbols, sizes = ("B", "hidden_size")[axes], (B, self._hidden_size)[axes]
        checked = [None, None]
        for k, (name, array) in enumerate(members):
            if array is not None:
                check(name, array, symbols, sizes, self._dtype)
                checked[k] = array if batched else array[None]
        return checked

    def _returned(self, state, batched):
        h, c = state if batched else (None if s is None else s[0] for s in state)
        return h if c is None else (h, c)


class LSTMCell(Cell[State, tuple[Array, Array]]):
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
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__("lstm", input_size, hidden_size, bias, dtype, rng)


class GRUCell(Cell[ArrayLike, Array]):
    """One step of a layer of gated recurrent units, as torch.nn.GRUCell.

    See `fastrnn.functional.gru` for the equations and their source.

    Parameters
    ----------
    input_size, hidden_size, bias, dtype, rng
        As for `LSTMCell`.

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
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__("gru", input_size, hidden_size, bias, dtype, rng)


class RNNCell(Cell[ArrayLike, Array]):
    """One step of a plain recurrent layer, as torch.nn.RNNCell.

    See `fastrnn.functional.rnn` for the equation and its source.

    Parameters
    ----------
    input_size, hidden_size, bias, dtype, rng
        As for `LSTMCell`.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        What makes the state of its sum; it comes after `bias`.

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
        nonlinearity: Nonlinearity = "tanh",
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        nonlinearity = choice("nonlinearity", nonlinearity, NONLINEARITIES)
        super().__init__(f"rnn_{nonlinearity}", input_size, hidden_size, bias, dtype, rng)

    @property
    def nonlinearity(self) -> str:
        """What makes the state of its sum, "tanh" or "relu"."""
        return self._cell.removeprefix("rnn_")

    def _constructor_arguments(self):
        return super()._constructor_arguments() | {"nonlinearity": self.nonlinearity}
