"""The meaning of every kernel, in plain NumPy: same signatures as `fastrnn.functional`.

Written to be read and to be compared with, not to be fast. It computes in the dtype of the weights;
with float64 weights it is the yardstick of the float32 kernels.

Notation: T steps, B sequences, I inputs, H hidden units, P numbers of a projected output (H without a
projection); `d_a` is the gradient of the loss with respect to `a` and has a's shape. First comes what
the cells share: the way through the sequences, and the products with the weights. Then come the cells,
each with the equations of one step forward and of the same step backward, whose steps carry the numbers
of the forward steps that they undo. In a step, B counts the sequences that have not ended yet.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._engine.arguments import (
    checked_gradients,
    checked_gru,
    checked_lstm,
    checked_lstm_gradients,
    checked_rnn,
)
from fastrnn._validation import (
    Array,
    Nonlinearity,
    State,
    check_tape,
    initial_state,
    is_shared,
    names_arguments,
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

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole")


# What the cells share


class Tape:
    """What a backward needs of its forward: private copies, never altered."""

    __slots__ = ("sizes", "weights", "steps", "shared")

    def __init__(self, x, state, weights, gates):
        T, B, I = x.shape
        self.sizes = T, B, I, weights[0].shape[0] // gates
        self.weights = {name: w.copy() for name, w in zip(WEIGHTS, weights) if w is not None}
        self.steps = []
        self.shared = [is_shared(s, B) for s in state]  # one state for all sequences

    @property
    def dtype(self):
        return self.weights["weight_ih"].dtype

    def __repr__(self):
        T, B, I, H = self.sizes
        return f"<reference.{type(self).__name__} T={T} B={B} I={I} H={H} {self.dtype}>"


def places(T, B, lengths, reverse):
    """For each step the places (t, b) of `x` that it reads: b are the sequences that have not ended yet."""
    lengths = np.full(B, T) if lengths is None else lengths
    for step in range(lengths.max(initial=0)):  # no sequences, no steps: T may then be astronomical
        b = np.flatnonzero(step < lengths)
        t = lengths[b] - 1 - step if reverse else np.full(b.size, step)
        yield t, b


def run_forward(tape, step, x, state, lengths, reverse):
    """All the steps. Fills the tape, turns the arrays of `state` into state_n, and returns the output.

    `step` maps the weights, x_t and the state before it to the state after it, h_t first, and to what its
    backward wants to know.
    """
    T, B, _, _ = tape.sizes
    output = np.zeros((T, B, state[0].shape[1]), tape.dtype)
    for t, b in places(T, B, lengths, reverse):
        x_t = x[t, b].astype(tape.dtype, copy=False)
        state_t, known = step(tape.weights, x_t, *(s[b] for s in state))
        output[t, b] = state_t[0]
        for s, s_t in zip(state, state_t, strict=True):
            s[b] = s_t
        tape.steps.append((t, b, known))
    return output


def run_backward(tape, step_backward, d_output, d_state):
    """All the steps, the last one first. Turns d_state_n into d_state_0; returns d_x and d_params.

    `step_backward` maps the weights, the gradient of the state after its step and what the step knew to
    the gradients of x_t and of the state before it, and adds to those of the weights.
    """
    T, B, I, _ = tape.sizes
    d_x = np.zeros((T, B, I), tape.dtype)
    d_weights = {name: np.zeros_like(w) for name, w in tape.weights.items()}
    for t, b, known in reversed(tape.steps):
        d_state_t = [d[b] for d in d_state]
        # h_t is the state of the next step, or state_n, whose share is there by now; and it is the output.
        if d_output is not None:
            d_state_t[0] += d_output[t, b].astype(tape.dtype, copy=False)
        d_x[t, b], d_state_prev = step_backward(tape.weights, d_weights, d_state_t, known)
        for d, d_prev in zip(d_state, d_state_prev, strict=True):
            d[b] = d_prev
    return d_x, d_weights


def given_shapes(tape, d_state):
    """d_state_0 in the shapes of the state: that of one state for all sequences is the sum over them."""
    return tuple(over_sequences(d) if shared else d for d, shared in zip(d_state, tape.shared))


def linear(weights, suffix, a):
    """The product of `a` with weight_ih, weight_hh or weight_hr, plus its bias if it has one."""
    return a @ weights[f"weight_{suffix}"].T + weights.get(f"bias_{suffix}", 0)


def linear_backward(weights, d_weights, suffix, a, d_y):
    """d_a, of `linear` with the result y; adds to the gradients of the weight and of the bias."""
    d_weights[f"weight_{suffix}"] += d_y.T @ a
    if f"bias_{suffix}" in weights:
        d_weights[f"bias_{suffix}"] += d_y.sum(axis=0)
    return d_y @ weights[f"weight_{suffix}"]


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), of an exp that cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


# LSTM


class LSTMTape(Tape):
    """What `lstm_backward` needs of an `lstm_forward`."""

    __slots__ = ()


def lstm_step(weights, x_t, h_prev, c_prev):
    """x_t (B, I), h_prev (B, P), c_prev (B, H) -> (h_t (B, P), c_t (B, H)), and what goes back."""
    # (1) the gates before their activation, (B, 4H)
    z = linear(weights, "ih", x_t) + linear(weights, "hh", h_prev)
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    # (2) the gates before the cell; i and f may see its last state
    if "weight_peephole" in weights:
        p_i, p_f, p_o = weights["weight_peephole"]
        z_i = z_i + p_i * c_prev
        z_f = z_f + p_f * c_prev
    i, f, g = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g)
    # (3) the cell state
    c_t = f * c_prev + i * g
    # (4) the gate behind it; it may see the new state
    if "weight_peephole" in weights:
        z_o = z_o + p_o * c_t
    o = sigmoid(z_o)
    # (5) what the cell gives
    m_t = o * np.tanh(c_t)
    # (6) the output, (B, P)
    h_t = linear(weights, "hr", m_t) if "weight_hr" in weights else m_t
    return (h_t, c_t), (x_t, h_prev, c_prev, i, f, g, o, c_t, m_t)


def lstm_step_backward(weights, d_weights, d_state_t, known):
    """(d_h (B, P), d_c (B, H)) -> d_x_t (B, I), (d_h_prev, d_c_prev); adds to d_weights."""
    d_h, d_c = d_state_t
    x_t, h_prev, c_prev, i, f, g, o, c_t, m_t = known
    # (6) the output
    d_m = linear_backward(weights, d_weights, "hr", m_t, d_h) if "weight_hr" in weights else d_h
    # (5) what the cell gives
    tanh_c = np.tanh(c_t)
    d_o = d_m * tanh_c
    d_c = d_c + d_m * o * (1 - tanh_c * tanh_c)
    # (4) the gate behind it
    d_z_o = d_o * o * (1 - o)
    if "weight_peephole" in weights:
        p_i, p_f, p_o = weights["weight_peephole"]
        d_p_i, d_p_f, d_p_o = d_weights["weight_peephole"]
        d_p_o += (d_z_o * c_t).sum(axis=0)
        d_c = d_c + d_z_o * p_o
    # (3) the cell state
    d_i = d_c * g
    d_f = d_c * c_prev
    d_g = d_c * i
    d_c_prev = d_c * f
    # (2) the gates before the cell
    d_z_i = d_i * i * (1 - i)
    d_z_f = d_f * f * (1 - f)
    d_z_g = d_g * (1 - g * g)
    if "weight_peephole" in weights:
        d_p_i += (d_z_i * c_prev).sum(axis=0)
        d_p_f += (d_z_f * c_prev).sum(axis=0)
        d_c_prev = d_c_prev + d_z_i * p_i + d_z_f * p_f
    # (1) the gates before their activation
    d_z = np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1)
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = linear_backward(weights, d_weights, "hh", h_prev, d_z)
    return d_x_t, (d_h_prev, d_c_prev)


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
    """The same as `fastrnn.functional.lstm`, in plain NumPy."""
    output, state_n, _ = lstm_forward(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh,
        weight_hr=weight_hr, weight_peephole=weight_peephole, lengths=lengths, reverse=reverse,
    )  # fmt: skip
    return output, state_n


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
    """The same as `fastrnn.functional.lstm_forward`, in plain NumPy."""
    x, (h, c), weights, lengths, reverse = checked_lstm(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_peephole, lengths, reverse
    )
    tape = LSTMTape(x, (h, c), weights, gates=4)
    _, B, _, H = tape.sizes
    P = tape.weights["weight_hh"].shape[1]
    h = initial_state(h, (B, P), tape.dtype, private=True)
    c = initial_state(c, (B, H), tape.dtype, private=True)
    output = run_forward(tape, lstm_step, x, (h, c), lengths, reverse)
    return output, (h, c), tape


def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """The same as `fastrnn.functional.lstm_backward`, in plain NumPy."""
    check_tape(tape, LSTMTape)
    T, B, _, H = tape.sizes
    P = tape.weights["weight_hh"].shape[1]
    d_output, (d_h, d_c) = checked_lstm_gradients(
        d_output, d_state_n, (T, B, H), P if "weight_hr" in tape.weights else None, tape.dtype
    )
    d_h = initial_state(d_h, (B, P), tape.dtype, private=True)
    d_c = initial_state(d_c, (B, H), tape.dtype, private=True)
    d_x, d_params = run_backward(tape, lstm_step_backward, d_output, (d_h, d_c))
    return d_x, given_shapes(tape, (d_h, d_c)), d_params


# GRU


class GRUTape(Tape):
    """What `gru_backward` needs of a `gru_forward`."""

    __slots__ = ()


def gru_step(weights, x_t, h_prev):
    """x_t (B, I), h_prev (B, H) -> (h_t (B, H),), and what goes back."""
    # (1) what the input and the state have to say to the gates, (B, 3H) each
    x_r, x_z, x_n = np.split(linear(weights, "ih", x_t), 3, axis=1)
    h_r, h_z, h_n = np.split(linear(weights, "hh", h_prev), 3, axis=1)
    # (2) the gates r and z
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    # (3) the new value; r also scales the bias of the state's share
    n = np.tanh(x_n + r * h_n)
    # (4) the output
    h_t = (1 - z) * n + z * h_prev
    return (h_t,), (x_t, h_prev, h_n, r, z, n)


def gru_step_backward(weights, d_weights, d_state_t, known):
    """(d_h (B, H),) -> d_x_t (B, I), (d_h_prev,); adds to d_weights."""
    (d_h,) = d_state_t
    x_t, h_prev, h_n, r, z, n = known
    # (4) the output
    d_z = d_h * (h_prev - n)
    d_n = d_h * (1 - z)
    d_h_prev = d_h * z
    # (3) the new value
    d_x_n = d_n * (1 - n * n)
    d_r = d_x_n * h_n
    d_h_n = d_x_n * r
    # (2) the gates r and z
    d_x_r = d_r * r * (1 - r)
    d_x_z = d_z * z * (1 - z)
    # (1) what the input and the state have to say to the gates; of r and z it is their sum that counts
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, np.concatenate([d_x_r, d_x_z, d_x_n], axis=1))
    d_h_prev = d_h_prev + linear_backward(
        weights, d_weights, "hh", h_prev, np.concatenate([d_x_r, d_x_z, d_h_n], axis=1)
    )
    return d_x_t, (d_h_prev,)


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
    """The same as `fastrnn.functional.gru`, in plain NumPy."""
    output, h_n, _ = gru_forward(x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths=lengths, reverse=reverse)
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
    """The same as `fastrnn.functional.gru_forward`, in plain NumPy."""
    x, h, weights, lengths, reverse = checked_gru(x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse)
    tape = GRUTape(x, (h,), weights, gates=3)
    _, B, _, H = tape.sizes
    h = initial_state(h, (B, H), tape.dtype, private=True)
    output = run_forward(tape, gru_step, x, (h,), lengths, reverse)
    return output, h, tape


def gru_backward(
    tape: GRUTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """The same as `fastrnn.functional.gru_backward`, in plain NumPy."""
    check_tape(tape, GRUTape)
    T, B, _, H = tape.sizes
    d_output, d_h = checked_gradients(d_output, d_state_n, (T, B, H), tape.dtype)
    d_h = initial_state(d_h, (B, H), tape.dtype, private=True)
    d_x, d_params = run_backward(tape, gru_step_backward, d_output, (d_h,))
    return d_x, *given_shapes(tape, (d_h,)), d_params


# RNN


class RNNTape(Tape):
    """What `rnn_backward` needs of an `rnn_forward`."""

    __slots__ = ("nonlinearity",)
    nonlinearity: str


def rnn_step(nonlinearity, weights, x_t, h_prev):
    """x_t (B, I), h_prev (B, H) -> (h_t (B, H),), and what goes back."""
    # (1) the output before its activation, (B, H)
    z = linear(weights, "ih", x_t) + linear(weights, "hh", h_prev)
    # (2) the output
    h_t = np.tanh(z) if nonlinearity == "tanh" else np.maximum(z, 0)
    return (h_t,), (x_t, h_prev, h_t)


def rnn_step_backward(nonlinearity, weights, d_weights, d_state_t, known):
    """(d_h (B, H),) -> d_x_t (B, I), (d_h_prev,); adds to d_weights."""
    (d_h,) = d_state_t
    x_t, h_prev, h_t = known
    # (2) the output; relu has the slope 0 at 0
    d_z = d_h * (1 - h_t * h_t) if nonlinearity == "tanh" else np.where(h_t <= 0, 0, d_h)
    # (1) the output before its activation
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = linear_backward(weights, d_weights, "hh", h_prev, d_z)
    return d_x_t, (d_h_prev,)


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
    """The same as `fastrnn.functional.rnn`, in plain NumPy."""
    output, h_n, _ = rnn_forward(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh,
        nonlinearity=nonlinearity, lengths=lengths, reverse=reverse,
    )  # fmt: skip
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
    """The same as `fastrnn.functional.rnn_forward`, in plain NumPy."""
    x, h, weights, lengths, reverse, nonlinearity = checked_rnn(
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity, lengths, reverse
    )
    tape = RNNTape(x, (h,), weights, gates=1)
    tape.nonlinearity = nonlinearity
    _, B, _, H = tape.sizes
    h = initial_state(h, (B, H), tape.dtype, private=True)
    output = run_forward(tape, partial(rnn_step, nonlinearity), x, (h,), lengths, reverse)
    return output, h, tape


def rnn_backward(
    tape: RNNTape,
    d_output: ArrayLike | None = None,
    d_state_n: ArrayLike | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """The same as `fastrnn.functional.rnn_backward`, in plain NumPy."""
    check_tape(tape, RNNTape)
    T, B, _, H = tape.sizes
    d_output, d_h = checked_gradients(d_output, d_state_n, (T, B, H), tape.dtype)
    d_h = initial_state(d_h, (B, H), tape.dtype, private=True)
    d_x, d_params = run_backward(tape, partial(rnn_step_backward, tape.nonlinearity), d_output, (d_h,))
    return d_x, *given_shapes(tape, (d_h,)), d_params
