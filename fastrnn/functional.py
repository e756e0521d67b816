"""One layer, one direction, stateless, on raw arrays: the kernels with nothing around them.

Each public function checks its arguments, allocates what it returns and hands both to `infer_rows` or to a tape,
which is what the layers call. `fastrnn.reference` has the same functions in plain NumPy.

Every array argument may be anything that `np.asarray` takes, of any strides, alignment, byte order
and writeability; what cannot be read in place is copied. Everything is cast to the dtype of
`weight_ih`, float32 or float64, by NumPy's "same_kind" rule. Shapes: T steps, B sequences, I
inputs, H hidden units, P numbers in h, which are H but for an LSTM with a projection.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._rows import Rows
from fastrnn._threads import most_threads
from fastrnn._validation import (
    Array,
    Nonlinearity,
    State,
    check_tape,
    checked_gradients,
    checked_gru,
    checked_lstm,
    checked_lstm_gradients,
    checked_rnn,
    initial_state,
    is_shared,
    names_arguments,
    native_or_none,
    over_sequences,
)

__all__ = [
    "gru",
    "gru_backward",
    "gru_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "rnn",
    "rnn_backward",
    "rnn_forward",
]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# What a tape keeps of them, in the order of the weights' rows.
GATE_NAMES = {"lstm": "ifgo", "gru": "rzn"}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole")


# What the cells share, on rows as fastrnn._rows has them. A state is the tuple (h, c), whose c is None but for the
# LSTM. Weights are tuples in the order of WEIGHTS, with None for what there is not.


def infer_rows(cell, rows, inputs, stacked=False, into=None):
    """The outputs of native arrays: of directions of one layer, or stacked, of layers on top of each other.

    Those of a ragged batch are in borrowed memory.

    Each input is (reverse, x, state_0, weights, state_n), of a stacked one but the first without x and in the same
    direction. `weights` may be what _core.pack has made of them; state_n is written. The last output is made in the
    rows `into` if they are given.
    """
    calls, outputs = [], []
    for reverse, x, state_0, weights, state_n in inputs:
        if stacked and outputs:
            x = outputs[-1]
        elif reverse:
            x = np.ascontiguousarray(rows.turned(x))
        h_0 = state_0[0]
        is_last = len(outputs) == len(inputs) - 1
        output = rows.empty(h_0.shape[-1], h_0.dtype) if into is None or not is_last else into
        calls.append((x, *state_0, rows.offsets, weights, output, *state_n, None))
        outputs.append(output)
    _core.forward(cell, calls, stacked, most_threads(), instruction_set())
    return [rows.turned(output) if one[0] else output for one, output in zip(inputs, outputs)]


class Tape:
    """What a backward needs of its forward, of one direction of one layer; opaque, and never altered by a backward.

    The weights are in it as they were, `packed` for backward. `x` is in it by reference where it could be read in
    place, and then `fingerprint` tells whether it has been changed since. Both are as the kernel reads them, from the
    end if the direction is the reverse.

    Nobody may write to packed, kept and state_0 while the tape lives, and nobody else to x if it is called private;
    kept is an array of tape_bytes bytes.
    """

    __slots__ = ("rows", "reverse", "x", "fingerprint", "state_0", "kept", "packed", "weights", "shared")
    # Of a tape of this module alone: names and shapes, and whether h_0 and c_0 are each one for all sequences.
    weights: list[tuple[str, tuple[int, ...]]]
    shared: list[bool]

    def __init__(self, rows, reverse, x, x_is_private, state_0, packed, kept):
        self.x, self.fingerprint = kept_x(rows, reverse, x, x_is_private)
        self.rows, self.reverse, self.state_0, self.packed, self.kept = rows, reverse, state_0, packed, kept

    def check_x(self):
        check_x(self.x, self.fingerprint)

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one process")

    def __repr__(self):
        T, B, I = self.rows.T, self.rows.B, self.x.shape[-1]
        H = self.packed.H
        return f"<functional.{type(self).__name__} T={T} B={B} I={I} H={H} {self.x.dtype}>"


def kept_x(rows, reverse, x, x_is_private):
    """x as the kernel reads it, to be kept; and its fingerprint, or None if nobody else can write to it."""
    if reverse:
        turned = np.ascontiguousarray(rows.turned(x))
        x, x_is_private = turned, x_is_private or not np.may_share_memory(turned, x)  # of one step it is x
    return x, None if x_is_private else _core.fingerprint(x)


def check_x(x, fingerprint):
    """Of what kept_x has returned."""
    if fingerprint is not None and _core.fingerprint(x) != fingerprint:
        raise ValueError("x: changed between forward and backward")


def run_tapes(cell, tapes, weights, states_n, stacked=False, gates=None):
    """Fills the tapes, of directions of one layer or of stacked layers; returns the outputs. See infer_rows.

    The x of a stacked tape but the first is the output of the one before. To `gates`, a list if it is given, it adds
    the gates_of each tape.
    """
    calls, outputs = [], []
    for tape, of_tape, state_n in zip(tapes, weights, states_n):
        if stacked and outputs:
            tape.x = outputs[-1]
        h_0 = tape.state_0[0]
        output = np.empty((*tape.rows.shape, h_0.shape[-1]), h_0.dtype)
        calls.append((tape.x, *tape.state_0, tape.rows.offsets, of_tape, output, *state_n, tape.kept))
        outputs.append(output)
    _core.forward(cell, calls, stacked, most_threads(), instruction_set())
    if gates is not None:
        gates += [gates_of(cell, tape, output) for tape, output in zip(tapes, outputs)]
    return [tape.rows.turned(output) if tape.reverse else output for tape, output in zip(tapes, outputs)]


def gates_of(cell, tape, output):
    """name -> copy (T, B, n): every step's gates, c of the LSTM, and h, which is the output as the kernel left it."""
    rows, dtype, H = tape.rows, tape.x.dtype, tape.packed.H
    gates, states, _ = _core.tape_arrays(cell, tape.kept, dtype, math.prod(rows.shape), H, projection_of(tape))
    named = {}
    if gates is not None:
        columns = _core.gate_columns(cell, dtype, H)
        named |= {name: gates.take(c, axis=1).reshape(*rows.shape, H) for name, c in zip(GATE_NAMES[cell], columns)}
    if cell == "lstm":
        named["c"] = states[1].reshape(*rows.shape, H).copy()
    named["h"] = output.copy()
    return {name: rows.scatter(rows.turned(array) if tape.reverse else array) for name, array in named.items()}


def projection_of(tape):
    """P, or 0 without a projection."""
    P = tape.state_0[0].shape[-1]
    return P if P != tape.packed.H else 0


def run_back(tapes, d_outputs, states, stacked=False):
    """d_x of each tape, of directions of one layer, or of stacked layers, the top one first; of native arrays.

    d_outputs is one for each tape, None for zeros, and for those stacked below another not looked at. The states are
    (d_state_n, d_state_0, d_weights, stretch) of each tape; d_state_0 and d_weights are written. stretch is None, or as
    _core.backward has it if the tape has some steps of a sequence. It does not look whether x was changed: check_x
    does.
    """
    calls, results = [], []
    for tape, d_output, (d_state_n, d_state_0, d_weights, stretch) in zip(tapes, d_outputs, states):
        if stacked and results:
            d_output = results[-1]
        elif d_output is not None:
            d_output = np.ascontiguousarray(tape.rows.turned(d_output) if tape.reverse else d_output)
        d_x = np.empty(tape.x.shape, tape.x.dtype)
        calls.append((
            tape.packed, tape.x, *tape.state_0, tape.rows.offsets, tape.kept, d_output, *d_state_n, d_x, *d_state_0,
            d_weights, stretch,
        ))  # fmt: skip
        results.append(d_x)
    _core.backward(calls, stacked, most_threads())
    return [tape.rows.turned(d_x) if tape.reverse else d_x for tape, d_x in zip(tapes, results)]


def tape_bytes(cell, rows, H, projection, dtype):
    """The size of a tape, in bytes."""
    return _core.tape_bytes(cell, dtype, math.prod(rows.shape), H, projection)


# What the public functions share


def empty_like(state):
    h, c = state
    return np.empty(h.shape, h.dtype), None if c is None else np.empty(c.shape, c.dtype)


def inferred(cell, x, state, weights, lengths, reverse):
    """output and the state_n of infer_rows, for checked arguments."""
    rows, x, state_0 = arranged(cell, x, state, weights, lengths, private=False)
    state_n = empty_like(state_0)
    (output,) = infer_rows(cell, rows, [(reverse, x, state_0, weights, state_n)])
    return rows.scatter(output), tuple(rows.scatter_state(s) for s in state_n)


def taped(kind, cell, x, state, weights, lengths, reverse):
    """output, state_n and a tape of that kind, for checked arguments."""
    rows, native_x, state_0 = arranged(cell, x, state, weights, lengths, private=True)
    dtype = native_x.dtype
    H, P = weights[0].shape[0] // GATES[cell], weights[1].shape[1]
    kept = np.empty(tape_bytes(cell, rows, H, 0 if weights[4] is None else P, dtype), np.uint8)
    packed = _core.pack(cell, weights, True, most_threads(), instruction_set())
    state_n = empty_like(state_0)
    tape = kind(rows, reverse, native_x, native_x is not x, state_0, packed, kept)
    (output,) = run_tapes(cell, [tape], [weights], [state_n])
    tape.shared = [is_shared(given, rows.B) for given in state]
    tape.weights = [(name, w.shape) for name, w in zip(WEIGHTS, weights) if w is not None]
    return rows.scatter(output), tuple(rows.scatter_state(s) for s in state_n), tape


def arranged(cell, x, state, weights, lengths, private):
    """The rows of checked arguments; x and the state by rows, native."""
    dtype = weights[0].dtype
    T, B, _ = x.shape
    H, P = weights[0].shape[0] // GATES[cell], weights[1].shape[1]
    rows = Rows(T, B, lengths)
    h_0, c_0 = (rows.gather_state(s) for s in state)
    h_0 = initial_state(h_0, (B, P), dtype, private)
    c_0 = initial_state(c_0, (B, H), dtype, private) if cell == "lstm" else None
    return rows, rows.gather(x, dtype), (h_0, c_0)


def gradients(tape, d_output, d_state_n):
    """d_x, d_state_0 and d_params of a tape, for checked gradients."""
    rows, dtype = tape.rows, tape.x.dtype
    tape.check_x()
    d_state_n = [native_or_none(rows.gather_state(d), dtype) for d in d_state_n]
    d_state_0 = empty_like(tape.state_0)
    d_params = {name: np.empty(shape, dtype) for name, shape in tape.weights}
    d_weights = tuple(d_params.get(name) for name in WEIGHTS)
    (d_x,) = run_back([tape], [rows.gather(d_output, dtype)], [(d_state_n, d_state_0, d_weights, None)])
    d_state_0 = [rows.scatter_state(d) for d in d_state_0]
    d_state_0 = tuple(over_sequences(d) if shared else d for d, shared in zip(d_state_0, tape.shared))
    return rows.scatter(d_x), d_state_0, d_params


# LSTM


class LSTMTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__


@names_arguments
def lstm(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    weight_hr: ArrayLike | None = None,
    weight_peephole: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
    """Run an LSTM over a sequence and keep nothing for a backward pass.

    With rows of the weights in the order i, f, g, o of the gates, step t computes ::

        z   = bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T
        i   = sigmoid(z_i + p_i * c_(t-1))
        f   = sigmoid(z_f + p_f * c_(t-1))
        g   = tanh(z_g)
        c_t = f * c_(t-1) + i * g
        o   = sigmoid(z_o + p_o * c_t)
        h_t = weight_hr @ (o * tanh(c_t))

    where p_i, p_f, p_o are the rows of `weight_peephole`, zero by default, and `weight_hr` is left out by default.

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : tuple (h_0, c_0) of array_like, (B, P) and (B, H), or None
        The state before the first step; None, for the tuple or for a member of it, means zeros. A member of (1, P) or
        (1, H) is one for all sequences.
    weight_ih : array_like, (4*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (4*H, P)
    bias_ih, bias_hh : array_like, (4*H,), optional
        Default: no bias.
    weight_hr : array_like, (P, H), optional
        A projection of the output. Default: none, and P is H.
    weight_peephole : array_like, (3, H), optional
        What the gates i, f and o see of the cell state. Default: nothing.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; what x has beyond them is not looked at. Default: T.
    reverse : bool, default False
        Whether each sequence is read from its end to its beginning. `output` stays where its input is.

    Returns
    -------
    output : ndarray, (T, B, P)
        h_t of every step; zero beyond a sequence's length.
    state_n : tuple (h_n, c_n) of ndarray, (B, P) and (B, H)
        The state after each sequence's last step.

    Raises
    ------
    TypeError
        If an argument has a dtype that cannot be cast, or `weight_ih` one that is not float32 or
        float64.
    ValueError
        If a shape does not fit. The message starts with the argument's name.

    See Also
    --------
    lstm_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The equations are those of [1]_ with the forget gate of [2]_, the peepholes of [3]_ and the projection of
    [4]_; layout and names are those of torch.nn.LSTM.

    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    .. [2] F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12(10), 2000.
    .. [3] F. A. Gers, N. N. Schraudolph and J. Schmidhuber, "Learning precise timing with LSTM recurrent
       networks", JMLR 3, 2002.
    .. [4] H. Sak, A. Senior and F. Beaufays, "Long short-term memory based recurrent neural network
       architectures for large vocabulary speech recognition", arXiv:1402.1128, 2014.
    """
    return inferred("lstm", *checked_lstm(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole, lengths, reverse
    ))  # fmt: skip


@names_arguments
def lstm_forward(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    weight_hr: ArrayLike | None = None,
    weight_peephole: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, tuple[Array, Array], LSTMTape]:
    """Run an LSTM over a sequence and keep a tape for `lstm_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole, lengths, reverse
        As in `lstm`.

    Returns
    -------
    output, state_n
        As in `lstm`, the same bits.
    tape : LSTMTape
        For `lstm_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `lstm`.
    """
    return taped(LSTMTape, "lstm", *checked_lstm(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole, lengths, reverse
    ))  # fmt: skip


def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """The gradients of a loss through one `lstm_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : LSTMTape
        What `lstm_forward` returned.
    d_output : array_like, (T, B, P), optional
        The gradient with respect to `output`; what it has beyond a sequence's length is not looked at.
        Default: zeros.
    d_state_n : tuple (d_h_n, d_c_n) of array_like, (B, P) and (B, H), optional
        The gradient with respect to `state_n`; a member may be None. Default: zeros. One gradient has to be given.

    Returns
    -------
    d_x : ndarray, (T, B, I)
        Zero beyond a sequence's length.
    d_state : tuple (d_h_0, d_c_0) of ndarray, (B, P) and (B, H)
        Of a state (1, P) or (1, H) for all sequences the sum over them, of that shape: in float64, from the first to
        the last, then rounded.
    d_params : dict of ndarray
        "weight_ih" (4*H, I), "weight_hh" (4*H, P), and of those that were given "bias_ih", "bias_hh" (4*H,),
        "weight_hr" (P, H) and "weight_peephole" (3, H).

    Raises
    ------
    TypeError
        If `tape` is not a tape of `lstm_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, no gradient is given, or the `x` of the forward pass has been changed since.
    """
    check_tape(tape, LSTMTape)
    T, B, H, P = tape.rows.T, tape.rows.B, tape.packed.H, tape.state_0[0].shape[1]
    has_projection = "weight_hr" in dict(tape.weights)
    d_output, d_state_n = checked_lstm_gradients(
        d_output, d_state_n, (T, B, H), P if has_projection else None, tape.x.dtype
    )
    return gradients(tape, d_output, d_state_n)


# GRU


class GRUTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__


@names_arguments
def gru(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array]:
    """Run a GRU over a sequence and keep nothing for a backward pass.

    With rows of the weights in the order r, z, n, and a and b for the products of the input and of the state, step t
    computes ::

        a   = bias_ih + x_t @ weight_ih.T
        b   = bias_hh + h_(t-1) @ weight_hh.T
        r   = sigmoid(a_r + b_r)
        z   = sigmoid(a_z + b_z)
        n   = tanh(a_n + r * b_n)
        h_t = (1 - z) * n + z * h_(t-1)

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : array_like, (B, H), or None
        h_0, the state before the first step; None means zeros, and (1, H) is one for all sequences.
    weight_ih : array_like, (3*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (3*H, H)
    bias_ih, bias_hh : array_like, (3*H,), optional
        Default: no bias.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; what x has beyond them is not looked at. Default: T.
    reverse : bool, default False
        Whether each sequence is read from its end to its beginning. `output` stays where its input is.

    Returns
    -------
    output : ndarray, (T, B, H)
        h_t of every step; zero beyond a sequence's length.
    state_n : ndarray, (B, H)
        h_n, the state after each sequence's last step.

    Raises
    ------
    TypeError
        If an argument has a dtype that cannot be cast, or `weight_ih` one that is not float32 or
        float64.
    ValueError
        If a shape or a value does not fit. The message starts with the argument's name.

    See Also
    --------
    gru_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The equations are those of [1]_ but for the reset gate, which comes after the product, as in torch.nn.GRU and
    cuDNN; layout and names are torch's, too.

    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
       translation", EMNLP 2014.
    """
    x, h_0, weights, lengths, reverse = checked_gru(x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse)
    weights = *weights, None, None
    output, (h_n, _) = inferred("gru", x, (h_0, None), weights, lengths, reverse)
    return output, h_n


@names_arguments
def gru_forward(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, GRUTape]:
    """Run a GRU over a sequence and keep a tape for `gru_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse
        As in `gru`.

    Returns
    -------
    output, state_n
        As in `gru`, the same bits.
    tape : GRUTape
        For `gru_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `gru`.
    """
    x, h_0, weights, lengths, reverse = checked_gru(x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse)
    weights = *weights, None, None
    output, (h_n, _), tape = taped(GRUTape, "gru", x, (h_0, None), weights, lengths, reverse)
    return output, h_n, tape


def gru_backward(
    tape: GRUTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """The gradients of a loss through one `gru_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : GRUTape
        What `gru_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; what it has beyond a sequence's length is not looked at.
        Default: zeros.
    d_state_n : array_like, (B, H), optional
        The gradient with respect to `state_n`. Default: zeros. One gradient has to be given.

    Returns
    -------
    d_x : ndarray, (T, B, I)
        Zero beyond a sequence's length.
    d_state : ndarray, (B, H)
        Of a state (1, H) for all sequences the sum over them, (1, H): in float64, from the first to the last, then
        rounded.
    d_params : dict of ndarray
        "weight_ih" (3*H, I), "weight_hh" (3*H, H), and "bias_ih", "bias_hh" (3*H,) of those biases that
        were given.

    Raises
    ------
    TypeError
        If `tape` is not a tape of `gru_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, no gradient is given, or the `x` of the forward pass has been changed since.
    """
    check_tape(tape, GRUTape)
    sizes = tape.rows.T, tape.rows.B, tape.packed.H
    d_output, d_h_n = checked_gradients(d_output, d_state_n, sizes, tape.x.dtype)
    d_x, (d_h_0, _), d_params = gradients(tape, d_output, (d_h_n, None))
    return d_x, d_h_0, d_params


# RNN


class RNNTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__


@names_arguments
def rnn(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array]:
    """Run a plain recurrent network over a sequence and keep nothing for a backward pass.

    Step t computes, with the rectifier max(0, z) in place of tanh if asked for ::

        h_t = tanh(bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T)

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : array_like, (B, H), or None
        h_0, the state before the first step; None means zeros, and (1, H) is one for all sequences.
    weight_ih : array_like, (H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (H, H)
    bias_ih, bias_hh : array_like, (H,), optional
        Default: no bias.
    nonlinearity : {"tanh", "relu"}, default "tanh"
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; what x has beyond them is not looked at. Default: T.
    reverse : bool, default False
        Whether each sequence is read from its end to its beginning. `output` stays where its input is.

    Returns
    -------
    output : ndarray, (T, B, H)
        h_t of every step; zero beyond a sequence's length.
    state_n : ndarray, (B, H)
        h_n, the state after each sequence's last step.

    Raises
    ------
    TypeError
        If an argument has a dtype that cannot be cast, or `weight_ih` one that is not float32 or
        float64.
    ValueError
        If a shape or a value does not fit. The message starts with the argument's name.

    See Also
    --------
    rnn_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The network of [1]_; layout and names are those of torch.nn.RNN.

    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14(2), 1990.
    """
    x, h_0, weights, lengths, reverse, nonlinearity = checked_rnn(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, reverse
    )
    weights = *weights, None, None
    output, (h_n, _) = inferred(f"rnn_{nonlinearity}", x, (h_0, None), weights, lengths, reverse)
    return output, h_n


@names_arguments
def rnn_forward(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, RNNTape]:
    """Run a plain recurrent network over a sequence and keep a tape for `rnn_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, reverse
        As in `rnn`.

    Returns
    -------
    output, state_n
        As in `rnn`, the same bits.
    tape : RNNTape
        For `rnn_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `rnn`.
    """
    x, h_0, weights, lengths, reverse, nonlinearity = checked_rnn(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, reverse
    )
    weights = *weights, None, None
    output, (h_n, _), tape = taped(RNNTape, f"rnn_{nonlinearity}", x, (h_0, None), weights, lengths, reverse)
    return output, h_n, tape


def rnn_backward(
    tape: RNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """The gradients of a loss through one `rnn_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : RNNTape
        What `rnn_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; what it has beyond a sequence's length is not looked at.
        Default: zeros.
    d_state_n : array_like, (B, H), optional
        The gradient with respect to `state_n`. Default: zeros. One gradient has to be given.

    Returns
    -------
    d_x : ndarray, (T, B, I)
        Zero beyond a sequence's length.
    d_state : ndarray, (B, H)
        Of a state (1, H) for all sequences the sum over them, (1, H): in float64, from the first to the last, then
        rounded.
    d_params : dict of ndarray
        "weight_ih" (H, I), "weight_hh" (H, H), and "bias_ih", "bias_hh" (H,) of those biases that
        were given.

    Raises
    ------
    TypeError
        If `tape` is not a tape of `rnn_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, no gradient is given, or the `x` of the forward pass has been changed since.
    """
    check_tape(tape, RNNTape)
    sizes = tape.rows.T, tape.rows.B, tape.packed.H
    d_output, d_h_n = checked_gradients(d_output, d_state_n, sizes, tape.x.dtype)
    d_x, (d_h_0, _), d_params = gradients(tape, d_output, (d_h_n, None))
    return d_x, d_h_0, d_params
