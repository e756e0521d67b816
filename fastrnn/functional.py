"""Functions on raw arrays: each computes one direction of one layer; the stateless form computes any number of both.

Each function checks its arguments and calls the engine, as the layers do. `fastrnn.reference` has the same functions in
plain NumPy.

Every array argument may be anything that `np.asarray` takes, of any strides, alignment, byte order
and writeability; an array that cannot be read in place is copied. Everything is cast to the dtype of
`weight_ih`, float32 or float64, by NumPy's "same_kind" rule. Shapes: T steps, B sequences, I
inputs, H hidden units, P numbers in h: H, except for an LSTM with a projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._config import instruction_set
from fastrnn._core import aligned, empty_states, native
from fastrnn._engine import stack, stateless
from fastrnn._engine.arguments import (
    KNOWN_WEIGHTS,
    StatelessCall,
    as_state_tuple,
    check_members,
    checked_output_gradients,
    function_inputs,
    state_symbols,
    stateless_call,
)
from fastrnn._engine.pool import POOL
from fastrnn._engine.spec import GRU, LSTM, RNN, SLSTM, UGRNN, CellSpec
from fastrnn._engine.tape import Tape as EngineTape
from fastrnn._parametrized import Parametrized
from fastrnn._threads import most_threads
from fastrnn._validation import (
    Arguments,
    Array,
    FourStates,
    Nonlinearity,
    RecurrentActivation,
    RNNNonlinearity,
    State,
    array_or_none,
    as_array,
    check_array,
    check_given,
    check_tape,
    flag,
    names_arguments,
    over_sequences,
    shape_error,
    takes,
)

__all__ = [
    "backward",
    "forward",
    "gru",
    "gru_backward",
    "gru_forward",
    "infer",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "rnn",
    "rnn_backward",
    "rnn_forward",
    "slstm",
    "slstm_backward",
    "slstm_forward",
    "ugrnn",
    "ugrnn_backward",
    "ugrnn_forward",
    "weights_of",
]


# The functions of all cells. `arguments` is a tuple (x, state, weights, options, lengths, resets, reverse) as callers
# give them, with weights and options as tuples in the order of the cell's specification.


class Tape(EngineTape):
    __slots__ = ()
    __doc__ = EngineTape.__doc__
    spec: CellSpec

    def __repr__(self):
        layout, sizes = self.inputs.layout, self.inputs.stack
        text = f"T={layout.T} B={layout.B} I={sizes.I} H={sizes.H}"
        return f"<functional.{type(self).__name__} {text} {sizes.dtype}>"


def _infer(spec, arguments):
    """output and state_n of a function that keeps nothing."""
    results = KNOWN_WEIGHTS.infer(spec, arguments, most_threads(), instruction_set(), POOL)
    if results is not None:
        return results
    inputs, packed, _ = function_inputs(spec, arguments, False)
    state_n = empty_states(inputs.state_0)
    output = stack.infer(inputs, packed, state_n)
    POOL.give_back_all(packed)
    if inputs.layout.offsets is not None:
        POOL.give_back(inputs.x)
        state_n = inputs.layout.unsort(state_n)
    return output, state_n[0] if len(state_n) == 1 else tuple(state_n)


def _forward(kind, arguments):
    """output, state_n and a tape of that kind."""
    inputs, for_forward, packed = function_inputs(kind.spec, arguments, True)
    tape = kind(inputs, packed)
    output, state_n = tape.run(for_forward, packed)
    POOL.give_back_all(for_forward)
    return output, state_n[0] if len(state_n) == 1 else tuple(state_n), tape


def _backward(kind, tape, d_output, d_state_n, input_gradient):
    """d_x, d_state and d_params of a tape of that kind."""
    check_tape(tape, kind)
    sizes, layout = tape.inputs.stack, tape.inputs.layout
    d_output, given = checked_output_gradients(
        kind.spec, state_symbols(sizes), layout.T, layout.B, sizes.widths, d_output, d_state_n, sizes.dtype
    )
    d_weights = tuple([None if shape is None else np.empty(shape, sizes.dtype) for shape in sizes.weight_shapes])
    d_x, d_state = tape.backward(d_output, given, [d_weights], flag("input_gradient", input_gradient))
    d_state = d_state[0] if len(d_state) == 1 else tuple(d_state)
    return d_x, d_state, {name: d for name, d in zip(kind.spec.weight_names, d_weights) if d is not None}


# LSTM


class LSTMTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__
    spec = LSTM


def lstm_arguments(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    weight_hr: ArrayLike | None = None,
    weight_peephole: ArrayLike | None = None,
    recurrent_activation: RecurrentActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    clip: float | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> Arguments:
    """The arguments of `lstm` and `lstm_forward`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole
    options = recurrent_activation, activation, clip
    return x, state, weights, options, lengths, resets, reverse


@takes(lstm_arguments)
def lstm(arguments: Arguments) -> tuple[Array, tuple[Array, Array]]:
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
        The state before the first step; None, for the tuple or for a member of it, means zeros. A member
        (1, P) or (1, H) is shared by all sequences.
    weight_ih : array_like, (4*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (4*H, P)
    bias_ih, bias_hh : array_like, (4*H,), optional
        Default: no bias.
    weight_hr : array_like, (P, H), optional
        A projection of the output. Default: none, and P is H.
    weight_peephole : array_like, (3, H), optional
        Weights from the cell state to the gates i, f and o. Default: none.
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}, default "sigmoid"
        The activation of the gates i, f and o: sigmoid; max(0, min(1, x/5 + 1/2)) of Keras 2 and ONNX; or
        max(0, min(1, x/6 + 1/2)) of Keras 3 and torch.nn.Hardsigmoid.
    activation : {"tanh", "relu"}, default "tanh"
        The activation of g and of c_t.
    clip : float, optional
        Bounds the input of these activations, but not c_t, to [-clip, clip], as ONNX Runtime does. No gradient passes
        where the bound is reached. Default: no bound.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; values of x beyond them are not read. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, not those passed in; no gradient passes there. A
        flag at t separates t from t - 1, also where a sequence is read from its end. Default: none.
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
    return _infer(LSTM, arguments)


@takes(lstm_arguments)
def lstm_forward(arguments: Arguments) -> tuple[Array, tuple[Array, Array], LSTMTape]:
    """Run an LSTM over a sequence and keep a tape for `lstm_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole,
    recurrent_activation, activation, clip, lengths, resets, reverse
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
    return _forward(LSTMTape, arguments)


@overload
def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
    *,
    input_gradient: Literal[True] = True,
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]: ...


@overload
def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
    *,
    input_gradient: bool,
) -> tuple[Array | None, tuple[Array, Array], dict[str, Array]]: ...


def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
    *,
    input_gradient: bool = True,
) -> tuple[Array | None, tuple[Array, Array], dict[str, Array]]:
    """The gradients of a loss through one `lstm_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : LSTMTape
        The tape that `lstm_forward` returned.
    d_output : array_like, (T, B, P), optional
        The gradient with respect to `output`; values beyond a sequence's length are ignored.
        Default: zeros.
    d_state_n : tuple (d_h_n, d_c_n) of array_like, (B, P) and (B, H), optional
        The gradient with respect to `state_n`; a member may be None. Default: zeros. At least one gradient must be
        given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : tuple (d_h_0, d_c_0) of ndarray, (B, P) and (B, H)
        For a shared state (1, P) or (1, H), the sum over the sequences, of that shape: added in float64 from the first
        to the last, then rounded.
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
    return _backward(LSTMTape, tape, d_output, d_state_n, input_gradient)


# GRU


class GRUTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__
    spec = GRU


def gru_arguments(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    recurrent_activation: RecurrentActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    clip: float | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> Arguments:
    """The arguments of `gru` and `gru_forward`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    options = reset_after, recurrent_activation, activation, clip
    return x, state, weights, options, lengths, resets, reverse


@takes(gru_arguments)
def gru(arguments: Arguments) -> tuple[Array, Array]:
    """Run a GRU over a sequence and keep nothing for a backward pass.

    With rows of the weights in the order r, z, n, and a and b for the products of the input and of the state, step t
    computes ::

        a   = bias_ih + x_t @ weight_ih.T
        b   = bias_hh + h_(t-1) @ weight_hh.T
        r   = sigmoid(a_r + b_r)
        z   = sigmoid(a_z + b_z)
        n   = tanh(a_n + r * b_n)
        h_t = (1 - z) * n + z * h_(t-1)

    and with ``reset_after=False``, where the reset gate comes before the product ::

        n   = tanh(a_n + bias_hh_n + (r * h_(t-1)) @ weight_hh_n.T)

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : array_like, (B, H), or None
        h_0, the state before the first step; None means zeros, and (1, H) is shared by all sequences.
    weight_ih : array_like, (3*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (3*H, H)
    bias_ih, bias_hh : array_like, (3*H,), optional
        Default: no bias.
    reset_after : bool, default True
        Whether the reset gate comes after the recurrent product, as in torch.nn.GRU and cuDNN, or before it, as in
        [1]_, with ONNX's linear_before_reset=0 and with Keras' reset_after=False.
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}, default "sigmoid"
        The activation of the gates r and z: sigmoid; max(0, min(1, x/5 + 1/2)) of Keras 2 and ONNX; or
        max(0, min(1, x/6 + 1/2)) of Keras 3 and torch.nn.Hardsigmoid.
    activation : {"tanh", "relu"}, default "tanh"
        The activation of n.
    clip : float, optional
        Bounds the input of these activations to [-clip, clip], as ONNX Runtime does. No gradient passes where the bound
        is reached. Default: no bound.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; values of x beyond them are not read. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, not those passed in; no gradient passes there. A
        flag at t separates t from t - 1, also where a sequence is read from its end. Default: none.
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
    The equations are those of [1]_, except for the default place of the reset gate; layout and names are those of
    torch.nn.GRU.

    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
       translation", EMNLP 2014.
    """
    return _infer(GRU, arguments)


@takes(gru_arguments)
def gru_forward(arguments: Arguments) -> tuple[Array, Array, GRUTape]:
    """Run a GRU over a sequence and keep a tape for `gru_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, reset_after, recurrent_activation,
    activation, clip, lengths, resets, reverse
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
    return _forward(GRUTape, arguments)


@overload
def gru_backward(
    tape: GRUTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: Literal[True] = True,
) -> tuple[Array, Array, dict[str, Array]]: ...


@overload
def gru_backward(
    tape: GRUTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool,
) -> tuple[Array | None, Array, dict[str, Array]]: ...


def gru_backward(
    tape: GRUTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, dict[str, Array]]:
    """The gradients of a loss through one `gru_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : GRUTape
        The tape that `gru_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; values beyond a sequence's length are ignored.
        Default: zeros.
    d_state_n : array_like, (B, H), optional
        The gradient with respect to `state_n`. Default: zeros. At least one gradient must be given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : ndarray, (B, H)
        For a shared state (1, H), the sum over the sequences, (1, H): added in float64 from the first to the last, then
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
    return _backward(GRUTape, tape, d_output, d_state_n, input_gradient)


# RNN


class RNNTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__
    spec = RNN


def rnn_arguments(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    nonlinearity: RNNNonlinearity = "tanh",
    clip: float | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> Arguments:
    """The arguments of `rnn` and `rnn_forward`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    options = nonlinearity, clip
    return x, state, weights, options, lengths, resets, reverse


@takes(rnn_arguments)
def rnn(arguments: Arguments) -> tuple[Array, Array]:
    """Run a plain recurrent network over a sequence and keep nothing for a backward pass.

    Step t computes, with max(0, z) or the logistic function in place of tanh if `nonlinearity` says so ::

        h_t = tanh(bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T)

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : array_like, (B, H), or None
        h_0, the state before the first step; None means zeros, and (1, H) is shared by all sequences.
    weight_ih : array_like, (H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (H, H)
    bias_ih, bias_hh : array_like, (H,), optional
        Default: no bias.
    nonlinearity : {"tanh", "relu", "sigmoid"}, default "tanh"
    clip : float, optional
        Bounds the input of the activation to [-clip, clip], as ONNX does. No gradient passes where the bound is
        reached. Default: no bound.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; values of x beyond them are not read. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, not those passed in; no gradient passes there. A
        flag at t separates t from t - 1, also where a sequence is read from its end. Default: none.
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
    return _infer(RNN, arguments)


@takes(rnn_arguments)
def rnn_forward(arguments: Arguments) -> tuple[Array, Array, RNNTape]:
    """Run a plain recurrent network over a sequence and keep a tape for `rnn_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, clip, lengths, resets, reverse
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
    return _forward(RNNTape, arguments)


@overload
def rnn_backward(
    tape: RNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: Literal[True] = True,
) -> tuple[Array, Array, dict[str, Array]]: ...


@overload
def rnn_backward(
    tape: RNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool,
) -> tuple[Array | None, Array, dict[str, Array]]: ...


def rnn_backward(
    tape: RNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, dict[str, Array]]:
    """The gradients of a loss through one `rnn_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : RNNTape
        The tape that `rnn_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; values beyond a sequence's length are ignored.
        Default: zeros.
    d_state_n : array_like, (B, H), optional
        The gradient with respect to `state_n`. Default: zeros. At least one gradient must be given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : ndarray, (B, H)
        For a shared state (1, H), the sum over the sequences, (1, H): added in float64 from the first to the last, then
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
    return _backward(RNNTape, tape, d_output, d_state_n, input_gradient)


# sLSTM


class SLSTMTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__
    spec = SLSTM


def slstm_arguments(
    x: ArrayLike,
    state: FourStates | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> Arguments:
    """The arguments of `slstm` and `slstm_forward`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    return x, state, weights, (), lengths, resets, reverse


@takes(slstm_arguments)
def slstm(arguments: Arguments) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """Run an sLSTM over a sequence and keep nothing for a backward pass.

    The sLSTM is an LSTM whose input gate is an exponential. With rows of the weights in the order i, f, z, o, step t
    computes ::

        a   = bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T
        l   = log(sigmoid(a_f)) + m_(t-1)
        m_t = max(a_i, l)
        i   = exp(a_i - m_t)
        f   = exp(l - m_t)
        z   = tanh(a_z)
        o   = sigmoid(a_o)
        c_t = f * c_(t-1) + i * z
        n_t = f * n_(t-1) + i
        h_t = o * c_t / n_t

    where n_(t-1) is 0, the state is empty: m_t is a_i, and f is 0. The stabilizer m keeps the exponentials from
    overflowing: c and n are the sums of the paper times exp(-m), which cancels in h.

    The recurrence is block-diagonal. Each of `num_heads` heads has S = H/num_heads hidden units: row j of each gate in
    `weight_hh` belongs to head j // S, and multiplies the S numbers of that head in h_(t-1). The shape of `weight_hh`
    decides their number.

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : tuple (h_0, c_0, n_0, m_0) of array_like, (B, H) each, or None
        The state before the first step; None, for the tuple or for a member of it, means zeros. A member
        (1, H) is shared by all sequences.
    weight_ih : array_like, (4*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (4*H, H/num_heads)
    bias_ih, bias_hh : array_like, (4*H,), optional
        Default: no bias.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; values of x beyond them are not read. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, not those passed in; no gradient passes there. A
        flag at t separates t from t - 1, also where a sequence is read from its end. Default: none.
    reverse : bool, default False
        Whether each sequence is read from its end to its beginning. `output` stays where its input is.

    Returns
    -------
    output : ndarray, (T, B, H)
        h_t of every step; zero beyond a sequence's length.
    state_n : tuple (h_n, c_n, n_n, m_n) of ndarray, (B, H) each
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
    slstm_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The equations are those of [1]_, section 2.2, with the sigmoid as the activation of the forget gate.

    .. [1] M. Beck and others, "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, 2024.
    """
    return _infer(SLSTM, arguments)


@takes(slstm_arguments)
def slstm_forward(arguments: Arguments) -> tuple[Array, tuple[Array, Array, Array, Array], SLSTMTape]:
    """Run an sLSTM over a sequence and keep a tape for `slstm_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, reverse
        As in `slstm`.

    Returns
    -------
    output, state_n
        As in `slstm`, the same bits.
    tape : SLSTMTape
        For `slstm_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `slstm`.
    """
    return _forward(SLSTMTape, arguments)


@overload
def slstm_backward(
    tape: SLSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: FourStates | None = None,
    *,
    input_gradient: Literal[True] = True,
) -> tuple[Array, tuple[Array, Array, Array, Array], dict[str, Array]]: ...


@overload
def slstm_backward(
    tape: SLSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: FourStates | None = None,
    *,
    input_gradient: bool,
) -> tuple[Array | None, tuple[Array, Array, Array, Array], dict[str, Array]]: ...


def slstm_backward(
    tape: SLSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: FourStates | None = None,
    *,
    input_gradient: bool = True,
) -> tuple[Array | None, tuple[Array, Array, Array, Array], dict[str, Array]]:
    """The gradients of a loss through one `slstm_forward`.

    The stabilizer is differentiated like the rest of the equations: where a_i and l are equal, the gradient of their
    maximum goes to a_i. May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : SLSTMTape
        The tape that `slstm_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; values beyond a sequence's length are ignored.
        Default: zeros.
    d_state_n : tuple (d_h_n, d_c_n, d_n_n, d_m_n) of array_like, (B, H) each, optional
        The gradient with respect to `state_n`; a member may be None. Default: zeros. At least one gradient must be
        given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : tuple (d_h_0, d_c_0, d_n_0, d_m_0) of ndarray, (B, H) each
        For a shared state (1, H), the sum over the sequences, (1, H): added in float64 from the first to the last, then
        rounded.
    d_params : dict of ndarray
        "weight_ih" (4*H, I), "weight_hh" (4*H, H/num_heads), and "bias_ih", "bias_hh" (4*H,) of those biases that
        were given.

    Raises
    ------
    TypeError
        If `tape` is not a tape of `slstm_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, no gradient is given, or the `x` of the forward pass has been changed since.
    """
    return _backward(SLSTMTape, tape, d_output, d_state_n, input_gradient)


# UGRNN


class UGRNNTape(Tape):
    __slots__ = ()
    __doc__ = Tape.__doc__
    spec = UGRNN


def ugrnn_arguments(
    x: ArrayLike,
    state: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    recurrent_activation: RecurrentActivation = "sigmoid",
    activation: Nonlinearity = "tanh",
    clip: float | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> Arguments:
    """The arguments of `ugrnn` and `ugrnn_forward`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    options = recurrent_activation, activation, clip
    return x, state, weights, options, lengths, resets, reverse


@takes(ugrnn_arguments)
def ugrnn(arguments: Arguments) -> tuple[Array, Array]:
    """Run a UGRNN over a sequence and keep nothing for a backward pass.

    With rows of the weights in the order g, c, step t computes ::

        z   = bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T
        g   = sigmoid(z_g)
        c   = tanh(z_c)
        h_t = g * h_(t-1) + (1 - g) * c

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : array_like, (B, H), or None
        h_0, the state before the first step; None means zeros, and (1, H) is shared by all sequences.
    weight_ih : array_like, (2*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (2*H, H)
    bias_ih, bias_hh : array_like, (2*H,), optional
        Default: no bias.
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}, default "sigmoid"
        The activation of the update gate g: sigmoid; max(0, min(1, x/5 + 1/2)) of Keras 2 and ONNX; or
        max(0, min(1, x/6 + 1/2)) of Keras 3 and torch.nn.Hardsigmoid.
    activation : {"tanh", "relu"}, default "tanh"
        The activation of c.
    clip : float, optional
        Bounds the input of these activations to [-clip, clip], as ONNX Runtime does. No gradient passes where the bound
        is reached. Default: no bound.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order; values of x beyond them are not read. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, not those passed in; no gradient passes there. A
        flag at t separates t from t - 1, also where a sequence is read from its end. Default: none.
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
    ugrnn_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The equations are (2) to (4) of [1]_, whose s is `activation`: a GRU without the reset gate, whose z is g. Names and
    shapes are those of torch.nn, which has no such cell; the order of the gates is that of tf.contrib.rnn.UGRNNCell in
    TensorFlow 1.

    The paper adds a scalar b_fg to z_g, a hyperparameter by which g begins near 1, and tf.contrib.rnn.UGRNNCell adds
    `forget_bias`, 1.0 by default. Here it is part of `bias_ih`: add it to the first H numbers.

    .. [1] J. Collins, J. Sohl-Dickstein and D. Sussillo, "Capacity and trainability in recurrent neural networks",
       ICLR 2017.
    """
    return _infer(UGRNN, arguments)


@takes(ugrnn_arguments)
def ugrnn_forward(arguments: Arguments) -> tuple[Array, Array, UGRNNTape]:
    """Run a UGRNN over a sequence and keep a tape for `ugrnn_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, recurrent_activation, activation, clip,
    lengths, resets, reverse
        As in `ugrnn`.

    Returns
    -------
    output, state_n
        As in `ugrnn`, the same bits.
    tape : UGRNNTape
        For `ugrnn_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `ugrnn`.
    """
    return _forward(UGRNNTape, arguments)


@overload
def ugrnn_backward(
    tape: UGRNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: Literal[True] = True,
) -> tuple[Array, Array, dict[str, Array]]: ...


@overload
def ugrnn_backward(
    tape: UGRNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool,
) -> tuple[Array | None, Array, dict[str, Array]]: ...


def ugrnn_backward(
    tape: UGRNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
    *,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, dict[str, Array]]:
    """The gradients of a loss through one `ugrnn_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : UGRNNTape
        The tape that `ugrnn_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`; values beyond a sequence's length are ignored.
        Default: zeros.
    d_state_n : array_like, (B, H), optional
        The gradient with respect to `state_n`. Default: zeros. At least one gradient must be given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : ndarray, (B, H)
        For a shared state (1, H), the sum over the sequences, (1, H): added in float64 from the first to the last, then
        rounded.
    d_params : dict of ndarray
        "weight_ih" (2*H, I), "weight_hh" (2*H, H), and "bias_ih", "bias_hh" (2*H,) of those biases that
        were given.

    Raises
    ------
    TypeError
        If `tape` is not a tape of `ugrnn_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, no gradient is given, or the `x` of the forward pass has been changed since.
    """
    return _backward(UGRNNTape, tape, d_output, d_state_n, input_gradient)


# Any number of layers and directions, with nothing kept but arrays


@names_arguments
def infer(
    kind: str,
    x: ArrayLike,
    state: Sequence[ArrayLike | None] | None,
    weights: Sequence[Mapping[str, ArrayLike]],
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> tuple[Array, tuple[Array, ...]]:
    """Run layers over a sequence and keep nothing for a backward pass: the stateless form of inference.

    Parameters
    ----------
    kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, **options
        As in `forward`.

    Returns
    -------
    output, state_n
        As from `forward`, the same bits.

    Raises
    ------
    TypeError, ValueError
        As in `forward`.

    See Also
    --------
    forward
    """
    call = stateless_call(kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, options)
    if call.dropout is not None:  # the masks belong to a pass that keeps a reserve
        return _with_reserve(call)[:2]
    inputs = call.inputs
    packed, state_n = inputs.stack.pack(call.weights, False), empty_states(inputs.state_0)
    output = stack.infer(inputs, packed, state_n)
    POOL.give_back_all([*packed, inputs.x])
    return output, tuple(inputs.layout.unsort(state_n))


@names_arguments
def forward(
    kind: str,
    x: ArrayLike,
    state: Sequence[ArrayLike | None] | None,
    weights: Sequence[Mapping[str, ArrayLike]],
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> tuple[Array, tuple[Array, ...], Array]:
    """Run layers over a sequence and return the activations for their backward pass as one array of bytes.

    This is the stateless form, for the autograd of other libraries: between `forward` and `backward` only arrays are
    kept, which may be copied, saved and sent to other processes. The layers run side by side as in `fastrnn.LSTM`,
    and the results have the same bits.

    Parameters
    ----------
    kind : {"lstm", "gru", "rnn", "slstm", "ugrnn"}
        The cell.
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : tuple of array_like, (L*D, B, P) and (L*D, B, H), or None
        The state before the first step: ``(h_0, c_0)`` of an LSTM, ``(h_0, c_0, n_0, m_0)`` of an sLSTM, ``(h_0,)`` of
        others. L layers of D directions; P is H without a projection. None, for the tuple or for a member of it, means
        zeros. A member (L*D, 1, n) is shared by all sequences.
    weights : sequence of mapping of str to array_like
        For each direction of each layer, in the order of `state`, the weights under the names and of the shapes that
        the function of the cell has; all with the same names. I of the layers above the first is D*P. The dtype of the
        first "weight_ih", float32 or float64, is that of the computation and of everything returned.
    lengths : array_like of int, (B,), optional
        Steps of each sequence, 0 to T, in any order. Default: T.
    resets : array_like of bool, (T, B), optional
        The steps before which the states of a sequence become zeros, as in `lstm`.
    bidirectional : bool, default False
        Whether D is 2: the second direction of each layer reads the sequences from their ends.
    dropout : float, default 0.0
        The probability with which a number between two layers is set to zero; the others are divided by 1 - dropout.
    seed : int, default 0
        Decides, with the shapes, which elements `dropout` sets to zero. At least 0.
    **options
        ``reverse=True``, which excludes `bidirectional`, reads the sequences from their ends. The others are the
        options of the cell: `recurrent_activation`, `activation` and `clip` of an LSTM, a GRU and a UGRNN,
        `reset_after` of a GRU, `nonlinearity` and `clip` of an RNN.

    Returns
    -------
    output : ndarray, (T, B, D*P)
        h_t of the last layer at every step, both directions side by side; zero beyond a sequence's length.
    state_n : tuple of ndarray, (L*D, B, P) and (L*D, B, H)
        The state after each sequence's last step.
    reserve : ndarray of uint8, one axis
        The saved activations for `backward`. Every byte is defined by the arguments.

    Raises
    ------
    TypeError
        If an argument has a wrong type or a dtype that cannot be cast, or an option is unknown.
    ValueError
        If a shape or a value does not fit.

    See Also
    --------
    backward

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sizes = {"weight_ih": (12, 3), "weight_hh": (12, 4)}, {"weight_ih": (12, 4), "weight_hh": (12, 4)}
    >>> weights = [{name: rng.uniform(-1, 1, n) for name, n in layer.items()} for layer in sizes]
    >>> x = rng.uniform(-1, 1, (5, 2, 3))
    >>> output, (h_n,), reserve = fastrnn.functional.forward("gru", x, None, weights)
    >>> output.shape, h_n.shape, reserve.dtype
    ((5, 2, 4), (2, 2, 4), dtype('uint8'))
    >>> d_x, (d_h_0,), d_weights = fastrnn.functional.backward("gru", reserve, x, None, weights, output)
    >>> d_x.shape, d_h_0.shape, d_weights[1]["weight_hh"].shape
    ((5, 2, 3), (2, 2, 4), (12, 4))
    """
    return _with_reserve(
        stateless_call(kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, options)
    )


def _with_reserve(call: StatelessCall) -> tuple[Array, tuple[Array, ...], Array]:
    """The results of `forward` from its checked arguments."""
    inputs = call.inputs
    packed = inputs.stack.pack(call.weights, False)
    output, state_n, reserve = stateless.forward(inputs, packed, call.dropout)
    POOL.give_back_all([inputs.x, *packed])
    return output, tuple(inputs.layout.unsort(state_n)), reserve


@overload
def backward(
    kind: str,
    reserve: ArrayLike,
    x: ArrayLike,
    state: Sequence[ArrayLike | None] | None,
    weights: Sequence[Mapping[str, ArrayLike]],
    d_output: ArrayLike | None = None,
    d_state_n: Sequence[ArrayLike | None] | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    input_gradient: Literal[True] = True,
    **options: Any,
) -> tuple[Array, tuple[Array, ...], list[dict[str, Array]]]: ...


@overload
def backward(
    kind: str,
    reserve: ArrayLike,
    x: ArrayLike,
    state: Sequence[ArrayLike | None] | None,
    weights: Sequence[Mapping[str, ArrayLike]],
    d_output: ArrayLike | None = None,
    d_state_n: Sequence[ArrayLike | None] | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    input_gradient: bool,
    **options: Any,
) -> tuple[Array | None, tuple[Array, ...], list[dict[str, Array]]]: ...


@names_arguments
def backward(
    kind: str,
    reserve: ArrayLike,
    x: ArrayLike,
    state: Sequence[ArrayLike | None] | None,
    weights: Sequence[Mapping[str, ArrayLike]],
    d_output: ArrayLike | None = None,
    d_state_n: Sequence[ArrayLike | None] | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    input_gradient: bool = True,
    **options: Any,
) -> tuple[Array | None, tuple[Array, ...], list[dict[str, Array]]]:
    """The gradients of a loss through one `forward`, from its arguments and its reserve.

    May be called any number of times, in any process; it modifies nothing.

    Parameters
    ----------
    reserve : array_like of uint8
        The reserve that `forward` returned, or a copy of it.
    kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, **options
        As in `forward`. Only their shapes are checked.
    d_output : array_like, (T, B, D*P), optional
        The gradient with respect to `output`. Default: zeros.
    d_state_n : tuple of array_like, (L*D, B, P) and (L*D, B, H), optional
        The gradient with respect to `state_n`; a member may be None. Default: zeros. At least one gradient must be
        given.
    input_gradient : bool, default True
        Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

    Returns
    -------
    d_x : ndarray, (T, B, I), or None without `input_gradient`
        Zero beyond a sequence's length.
    d_state : tuple of ndarray, (L*D, B, P) and (L*D, B, H)
        For a shared state (L*D, 1, n), the sum over the sequences, of that shape.
    d_weights : list of dict of ndarray
        The names and shapes of `weights`.

    Raises
    ------
    TypeError, ValueError
        As in `forward`; or if `reserve` is not of these shapes, or no gradient is given.

    See Also
    --------
    forward
    """
    given: Any = [reserve, d_output, d_state_n]

    def convert(spec):
        given[0] = as_array("reserve", reserve)
        given[1] = array_or_none("d_output", d_output)
        given[2] = as_state_tuple(spec, "d_state_n", "d_{}_n", d_state_n)

    call = stateless_call(kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, options, convert)
    input_gradient = flag("input_gradient", input_gradient)
    kept, d_y, d_after = given
    inputs, sizes, layout = call.inputs, call.inputs.stack, call.inputs.layout
    check_given(d_y, *d_after)
    shape = layout.T, layout.B, sizes.output_width
    symbol = state_symbols(sizes)[0]
    check_array(
        "d_output", d_y, ("T", "B", symbol if len(sizes.directions) == 1 else f"2*{symbol}"), shape, sizes.dtype
    )
    symbols = [("L*D", "B", s) for s in state_symbols(sizes)]
    shapes = [(sizes.count, layout.B, width) for width in sizes.widths]
    check_members(sizes.spec, "d_state_n", "d_{}_n", d_after, symbols, shapes, sizes.dtype, check_array)
    packed = sizes.pack(call.weights, True, input_gradient)
    kept = _checked_reserve(kept, sizes.reserve_bytes(packed, layout))
    d_rows = None if d_y is None else layout.pack(d_y, sizes.dtype)
    d_after = [None if d is None else native(d, sizes.dtype) for d in layout.sort(d_after)]
    d_x, d_state_0, d_weights = stateless.backward(
        inputs, packed, call.weights, kept, d_rows, d_after, call.dropout, input_gradient
    )
    POOL.give_back_all([inputs.x, d_rows, *packed])
    d_state = layout.unsort(d_state_0)
    d_state = tuple([over_sequences(d) if shared else d for d, shared in zip(d_state, inputs.shared)])
    names = sizes.spec.weight_names
    return d_x, d_state, [{name: d for name, d in zip(names, one) if d is not None} for one in d_weights]


def weights_of(layer: Parametrized) -> list[dict[str, Array]]:
    """The weights of a layer or cell in the form that `forward` takes.

    `fastrnn.from_weights` with ``layout="torch"`` makes a layer of such weights.

    Parameters
    ----------
    layer : LSTM, GRU, RNN, SLSTM, UGRNN, LSTMCell, GRUCell, RNNCell or UGRNNCell

    Returns
    -------
    weights : list of dict of ndarray
        For each direction of each layer the arrays of ``layer.params``, not copies, under their names without suffixes.

    Raises
    ------
    TypeError
        If `layer` is neither a layer nor a cell.

    Examples
    --------
    >>> layer = fastrnn.GRU(2, 3, num_layers=2, rng=0)
    >>> [one["weight_ih"].shape for one in fastrnn.functional.weights_of(layer)]
    [(9, 2), (9, 3)]
    """
    if not isinstance(layer, Parametrized):
        raise TypeError(f"layer: expected a layer or a cell, got {type(layer).__name__}")
    params = layer.params
    return [
        {short: params[name] for short, name in zip(layer._spec.weight_names, names) if name in params}
        for names in layer._names
    ]


def _checked_reserve(reserve, size):
    """A reserve of so many bytes, in memory that begins at a multiple of ALIGNMENT bytes."""
    if reserve.dtype != np.uint8:
        raise TypeError(f"reserve: expected an array of uint8, got {reserve.dtype}")
    if reserve.shape != (size,):
        raise shape_error("reserve", ("bytes",), (size,), reserve.shape, "; it belongs to a forward of other shapes")
    return aligned(reserve, POOL)
