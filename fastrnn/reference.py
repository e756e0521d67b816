"""The definition of every kernel in plain NumPy, with the signatures of `fastrnn.functional`.

It is written to be read and compared with, not to be fast. It computes in the dtype of the weights; with float64
weights it is the standard for the errors of the float32 kernels.

Notation: T steps, B sequences, I inputs, H hidden units, P numbers of a projected output (H without a
projection); `d_a` is the gradient of the loss with respect to `a` and has a's shape. First come the parts
that the cells share: the time loop with ragged batches and resets, the products with the weights, and the
activations. Then come the cells. A cell is a step forward, the same step backward, whose parts carry the
numbers of the forward parts that they undo, and its functions. In a step, B counts the sequences that have
not ended yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import functional
from fastrnn._engine import spec
from fastrnn._engine.arguments import checked_arguments, checked_output_gradients
from fastrnn._validation import (
    Arguments,
    Array,
    FourStates,
    State,
    as_lengths,
    check_tape,
    checked_lengths,
    flag,
    initial_state,
    is_shared,
    over_sequences,
    takes,
)

__all__ = [
    "adam_step",
    "gru",
    "gru_backward",
    "gru_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "quantized",
    "rnn",
    "rnn_backward",
    "rnn_forward",
    "sgd_step",
    "slstm",
    "slstm_backward",
    "slstm_forward",
    "ugrnn",
    "ugrnn_backward",
    "ugrnn_forward",
]

if TYPE_CHECKING:
    from fastrnn.quantization import Quantized

FourArrays = tuple[Array, Array, Array, Array]


# Shared by the cells: a call


class Cell(NamedTuple):
    """A cell: its specification, and one step in both directions.

    ``step(weights, x_t, state_prev, **options)`` maps x_t (B, I) and the list of states before the step to the list
    of states after it, and to the tuple that the backward step needs: x_t, the arrays that decide its branches, and
    the rest.
    ``step_backward(weights, d_weights, saved, d_state_t, **options)`` maps that tuple and the gradient of the states
    after the step to d_x_t and the gradient of the states before it. It adds to `d_weights`. Their options are the
    result of ``activations(**options)``, of the checked options of the call: `Activation`s in place of names.
    """

    spec: spec.CellSpec
    step: Callable[..., Any]
    step_backward: Callable[..., Any]
    activations: Callable[..., dict[str, Any]]


class Tape:
    """The values that a backward needs from its forward: private copies, never altered."""

    __slots__ = ("cell", "options", "sizes", "weights", "steps", "shared")

    def __init__(self, cell, options, x, state, weights):
        T, B, I = x.shape
        self.cell, self.options = cell, options
        self.sizes = T, B, I, weights[0].shape[0] // len(cell.spec.gates)
        self.weights = {name: w.copy() for name, w in zip(cell.spec.weight_names, weights) if w is not None}
        self.steps = []
        self.shared = [is_shared(s, B) for s in state]  # one state for all sequences

    @property
    def dtype(self):
        return self.weights["weight_ih"].dtype

    @property
    def widths(self):
        """The symbol and the number of the columns of each state; h has P with a projection."""
        H = self.sizes[3]
        h = ("P", self.weights["weight_hr"].shape[0]) if "weight_hr" in self.weights else ("H", H)
        return [h] + [("H", H)] * (len(self.cell.spec.states) - 1)

    def __repr__(self):
        T, B, I, H = self.sizes
        return f"<reference.{type(self).__name__} T={T} B={B} I={I} H={H} {self.dtype}>"


def as_state(members):
    """The members of a state as the caller sees them."""
    return tuple(members) if len(members) > 1 else members[0]


def steps(T, B, lengths, resets, reverse):
    """Yield t, b, cut of each time step: it reads x[t, b], of the sequences b that have not ended yet.

    `cut` are the indices into b of the sequences whose state becomes zeros before the step. A flag resets[t, b]
    separates t from t - 1. From the end to the beginning, the step that comes after the separation is t - 1; flags
    beyond a sequence's end do not count, nor does one at 0.
    """
    lengths = np.full(B, T) if lengths is None else lengths
    for step in range(lengths.max(initial=0)):  # no sequences, no steps: T may then be astronomical
        b = np.flatnonzero(step < lengths)
        t = lengths[b] - 1 - step if reverse else np.full(b.size, step)
        if resets is None or reverse and step == 0:
            cut = np.empty(0, np.intp)
        else:
            cut = np.flatnonzero(resets[t + 1 if reverse else t, b])
        yield t, b, cut


def run_forward(tape_type, cell, arguments):
    """All the steps: output, state_n and the tape."""
    x, state_0, weights, checked, lengths, resets, reverse = checked_arguments(cell.spec, arguments)
    options = cell.activations(**dict(checked))
    tape = tape_type(cell, options, x, state_0, weights)
    _, B, _, _ = tape.sizes
    state = [initial_state(s, (B, n), tape.dtype, private=True) for s, (_, n) in zip(state_0, tape.widths, strict=True)]
    output, tape.steps = run_steps(cell, tape.weights, options, x, state, lengths, resets, reverse)
    return output, as_state(state), tape


def run_steps(cell, weights, options, x, state, lengths, resets, reverse):
    """The output (T, B, P), and t, b, cut and the saved arrays of each step; the states after it replace `state`."""
    (T, B, _), dtype, saved_steps = x.shape, state[0].dtype, []
    output = np.zeros((T, B, state[0].shape[1]), dtype)
    for t, b, cut in steps(T, B, lengths, resets, reverse):
        x_t = x[t, b].astype(dtype, copy=False)
        state_prev = [s[b] for s in state]
        for s_prev in state_prev:
            s_prev[cut] = 0
        state_t, saved = cell.step(weights, x_t, state_prev, **options)
        output[t, b] = state_t[0]
        for s, s_t in zip(state, state_t, strict=True):
            s[b] = s_t
        saved_steps.append((t, b, cut, saved))
    return output, saved_steps


def run_backward(tape_type, tape, d_output, d_state_n, input_gradient):
    """All the steps, the last one first: d_x, d_state_0 and d_params."""
    check_tape(tape, tape_type)
    cell, weights, dtype = tape.cell, tape.weights, tape.dtype
    T, B, I, _ = tape.sizes
    symbols, widths = zip(*tape.widths)
    d_output, d_state_n = checked_output_gradients(cell.spec, symbols, T, B, widths, d_output, d_state_n, dtype)
    # The gradient of the states between two steps; of the sequences that have ended, of state_n.
    d_state = [initial_state(d, (B, n), dtype, private=True) for d, (_, n) in zip(d_state_n, tape.widths, strict=True)]
    d_x = np.zeros((T, B, I), dtype)
    d_weights = {name: np.zeros_like(w) for name, w in weights.items()}
    for t, b, cut, saved in reversed(tape.steps):
        d_state_t = [d[b] for d in d_state]
        # h_t is the state of the next step, or state_n, whose gradient is in d_state by now; and it is the output.
        if d_output is not None:
            d_state_t[0] += d_output[t, b].astype(dtype, copy=False)
        d_x[t, b], d_state_prev = cell.step_backward(weights, d_weights, saved, d_state_t, **tape.options)
        for d, d_prev in zip(d_state, d_state_prev, strict=True):
            d[b] = d_prev
            d[b[cut]] = 0
    # The gradient of one state for all sequences is the sum over them.
    d_state_0 = [over_sequences(d) if shared else d for d, shared in zip(d_state, tape.shared)]
    return d_x if flag("input_gradient", input_gradient) else None, as_state(d_state_0), d_weights


# Shared by the cells: products and activations


def product(weights, suffix, a, z):
    """z plus the product of `a` (B, K) with weight_ih, weight_hh or weight_hr."""
    weight = weights[f"weight_{suffix}"]
    return weight.product(a, z) if isinstance(weight, Rounded) else z + a @ weight.T


def linear(weights, suffix, a):
    """The product of `a` with weight_ih, weight_hh or weight_hr, plus its bias if it has one."""
    return product(weights, suffix, a, weights.get(f"bias_{suffix}", 0))


def linear_input(weights, x_t):
    """The product of x_t with weight_ih, plus both biases: the sum that the product with the state goes on with."""
    return product(weights, "ih", x_t, weights.get("bias_ih", 0) + weights.get("bias_hh", 0))


def linear_backward(weights, d_weights, suffix, a, d_y):
    """d_a, of `linear` with the result y; adds to the gradients of the weight and of the bias."""
    d_weights[f"weight_{suffix}"] += d_y.T @ a
    if f"bias_{suffix}" in weights:
        d_weights[f"bias_{suffix}"] += d_y.sum(axis=0)
    return d_y @ weights[f"weight_{suffix}"]


def rows_of(weights, first, last):
    """weight_hh and bias_hh of some gates alone: views of their rows first to last - 1."""
    return {name: w[first:last] for name, w in weights.items() if name.endswith("_hh")}


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), of an exp that cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def hard_sigmoid(slope):
    """max(0, min(1, slope * z + 0.5)) and its derivative."""
    return (
        lambda z: np.clip(slope * z + 0.5, 0, 1),
        lambda y, d_y: np.where((y <= 0) | (y >= 1), 0, slope * d_y),
    )


# name -> y of z, and d_z of y and d_y. At its kinks, a function has the slope 0.
FUNCTIONS = {
    "sigmoid": (sigmoid, lambda y, d_y: d_y * y * (1 - y)),
    "tanh": (np.tanh, lambda y, d_y: d_y * (1 - y * y)),
    "relu": (lambda z: np.maximum(z, 0), lambda y, d_y: np.where(y <= 0, 0, d_y)),
    "hard_sigmoid_fifth": hard_sigmoid(1 / 5),  # of Keras 2 and ONNX
    "hard_sigmoid_sixth": hard_sigmoid(1 / 6),  # of Keras 3 and PyTorch
}


class Activation:
    """y = f(z) and its derivative, with z bounded to [-clip, clip] by a clip: then 0 where abs(z) >= clip.

    As in ONNX Runtime, z is a pre-activation of a gate with its biases and peepholes. In a GRU with reset_after=True
    the recurrent product that r scales is no pre-activation of its own. The cell state of an LSTM enters the output
    activation unbounded, although the ONNX specification speaks of the input of every activation; c_t itself is never
    bounded.
    """

    def __init__(self, name, clip=None):
        self.function, self.derivative = FUNCTIONS[name]
        self.clip = clip

    def __call__(self, z):
        if self.clip is not None:
            bound = min(self.clip, float(np.finfo(z.dtype).max))
            z = np.clip(z, -bound, bound)
        return self.function(z)

    def backward(self, z, y, d_y):
        d_z = self.derivative(y, d_y)
        return d_z if self.clip is None else np.where(np.abs(z) >= self.clip, 0, d_z)


def activations(recurrent_activation, activation, clip):
    """The two activations of a GRU's gates, by the names of the options."""
    return {
        "recurrent_activation": Activation(recurrent_activation, clip),
        "activation": Activation(activation, clip),
    }


# LSTM


def lstm_step(weights, x_t, state_prev, *, recurrent_activation, activation, output_activation):
    """x_t (B, I), h_prev (B, P), c_prev (B, H) -> h_t (B, P), c_t (B, H)."""
    h_prev, c_prev = state_prev
    # (1) the pre-activations, (B, 4H)
    z = product(weights, "hh", h_prev, linear_input(weights, x_t))
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    # (2) the gates before the cell state; i and f may see the last one
    if "weight_peephole" in weights:
        p_i, p_f, p_o = weights["weight_peephole"]
        z_i = z_i + p_i * c_prev
        z_f = z_f + p_f * c_prev
    i, f, g = recurrent_activation(z_i), recurrent_activation(z_f), activation(z_g)
    # (3) the cell state
    c_t = f * c_prev + i * g
    # (4) the output gate; it may see the new cell state
    if "weight_peephole" in weights:
        z_o = z_o + p_o * c_t
    o = recurrent_activation(z_o)
    # (5) the output before the projection; clip does not bound c_t
    a_t = output_activation(c_t)
    m_t = o * a_t
    # (6) the output, (B, P)
    h_t = linear(weights, "hr", m_t) if "weight_hr" in weights else m_t
    return [h_t, c_t], (x_t, (z_i, z_f, z_g, z_o, c_t), h_prev, c_prev, i, f, g, o, a_t, m_t)


def lstm_step_backward(
    weights, d_weights, saved, d_state_t, *, recurrent_activation, activation, output_activation
):  # fmt: skip
    """d_h (B, P), d_c (B, H) -> d_x_t (B, I), d_h_prev, d_c_prev."""
    d_h, d_c = d_state_t
    x_t, (z_i, z_f, z_g, z_o, c_t), h_prev, c_prev, i, f, g, o, a_t, m_t = saved
    # (6) the output
    d_m = linear_backward(weights, d_weights, "hr", m_t, d_h) if "weight_hr" in weights else d_h
    # (5) the output before the projection
    d_o = d_m * a_t
    d_c = d_c + output_activation.backward(c_t, a_t, d_m * o)
    # (4) the output gate
    d_z_o = recurrent_activation.backward(z_o, o, d_o)
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
    # (2) the gates before the cell state
    d_z_i = recurrent_activation.backward(z_i, i, d_i)
    d_z_f = recurrent_activation.backward(z_f, f, d_f)
    d_z_g = activation.backward(z_g, g, d_g)
    if "weight_peephole" in weights:
        d_p_i += (d_z_i * c_prev).sum(axis=0)
        d_p_f += (d_z_f * c_prev).sum(axis=0)
        d_c_prev = d_c_prev + d_z_i * p_i + d_z_f * p_f
    # (1) the pre-activations
    d_z = np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1)
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = linear_backward(weights, d_weights, "hh", h_prev, d_z)
    return d_x_t, [d_h_prev, d_c_prev]


def lstm_activations(recurrent_activation, activation, clip):
    """The three activations of an LSTM, of which clip bounds the first two."""
    return activations(recurrent_activation, activation, clip) | {"output_activation": Activation(activation)}


LSTM = Cell(spec.LSTM, lstm_step, lstm_step_backward, lstm_activations)


class LSTMTape(Tape):
    """The values that `lstm_backward` needs from an `lstm_forward`."""

    __slots__ = ()


@takes(functional.lstm_arguments)
def lstm(arguments: Arguments) -> tuple[Array, tuple[Array, Array]]:
    """The same as `fastrnn.functional.lstm`, in plain NumPy."""
    return run_forward(LSTMTape, LSTM, arguments)[:2]


@takes(functional.lstm_arguments)
def lstm_forward(arguments: Arguments) -> tuple[Array, tuple[Array, Array], LSTMTape]:
    """The same as `fastrnn.functional.lstm_forward`, in plain NumPy."""
    return run_forward(LSTMTape, LSTM, arguments)


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
    """The same as `fastrnn.functional.lstm_backward`, in plain NumPy."""
    return run_backward(LSTMTape, tape, d_output, d_state_n, input_gradient)


# GRU: the reset gate after the recurrent product, or before it


def gru_step(weights, x_t, state_prev, *, recurrent_activation, activation):
    """x_t (B, I), h_prev (B, H) -> h_t (B, H); with reset_after=True."""
    (h_prev,) = state_prev
    # (1) the products with the input and with the state, (B, 3H) each
    x_r, x_z, x_n = np.split(linear(weights, "ih", x_t), 3, axis=1)
    h_r, h_z, h_n = np.split(linear(weights, "hh", h_prev), 3, axis=1)
    # (2) the gates r and z
    z_r, z_z = x_r + h_r, x_z + h_z
    r, z = recurrent_activation(z_r), recurrent_activation(z_z)
    # (3) the candidate; r also scales the bias of the recurrent product
    z_n = x_n + r * h_n
    n = activation(z_n)
    # (4) the output
    h_t = (1 - z) * n + z * h_prev
    return [h_t], (x_t, (z_r, z_z, z_n), h_prev, h_n, r, z, n)


def gru_step_backward(weights, d_weights, saved, d_state_t, *, recurrent_activation, activation):
    """d_h (B, H) -> d_x_t (B, I), d_h_prev."""
    (d_h,) = d_state_t
    x_t, (z_r, z_z, z_n), h_prev, h_n, r, z, n = saved
    # (4) the output
    d_z = d_h * (h_prev - n)
    d_n = d_h * (1 - z)
    d_h_prev = d_h * z
    # (3) the candidate
    d_z_n = activation.backward(z_n, n, d_n)
    d_r = d_z_n * h_n
    d_h_n = d_z_n * r
    # (2) the gates r and z
    d_z_r = recurrent_activation.backward(z_r, r, d_r)
    d_z_z = recurrent_activation.backward(z_z, z, d_z)
    # (1) the products with the input and with the state
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, np.concatenate([d_z_r, d_z_z, d_z_n], axis=1))
    d_h_prev = d_h_prev + linear_backward(
        weights, d_weights, "hh", h_prev, np.concatenate([d_z_r, d_z_z, d_h_n], axis=1)
    )
    return d_x_t, [d_h_prev]


def gru_before_step(weights, x_t, state_prev, *, recurrent_activation, activation):
    """x_t (B, I), h_prev (B, H) -> h_t (B, H); with reset_after=False."""
    (h_prev,) = state_prev
    H = h_prev.shape[1]
    # (1) the product with the input, (B, 3H), and that of r and z with the state, (B, 2H)
    x_t_product = linear_input(weights, x_t)
    z_r, z_z = np.split(product(rows_of(weights, 0, 2 * H), "hh", h_prev, x_t_product[:, : 2 * H]), 2, axis=1)
    # (2) the gates r and z
    r, z = recurrent_activation(z_r), recurrent_activation(z_z)
    # (3) the candidate, of a product with the state that r has scaled
    s = r * h_prev
    z_n = product(rows_of(weights, 2 * H, 3 * H), "hh", s, x_t_product[:, 2 * H :])
    n = activation(z_n)
    # (4) the output
    h_t = (1 - z) * n + z * h_prev
    return [h_t], (x_t, (z_r, z_z, z_n), h_prev, s, r, z, n)


def gru_before_step_backward(weights, d_weights, saved, d_state_t, *, recurrent_activation, activation):
    """d_h (B, H) -> d_x_t (B, I), d_h_prev."""
    (d_h,) = d_state_t
    x_t, (z_r, z_z, z_n), h_prev, s, r, z, n = saved
    H = h_prev.shape[1]
    # (4) the output
    d_z = d_h * (h_prev - n)
    d_n = d_h * (1 - z)
    d_h_prev = d_h * z
    # (3) the candidate
    d_z_n = activation.backward(z_n, n, d_n)
    of_n = rows_of(weights, 2 * H, 3 * H), rows_of(d_weights, 2 * H, 3 * H)
    d_s = linear_backward(*of_n, "hh", s, d_z_n)
    d_r = d_s * h_prev
    d_h_prev = d_h_prev + d_s * r
    # (2) the gates r and z
    d_z_r = recurrent_activation.backward(z_r, r, d_r)
    d_z_z = recurrent_activation.backward(z_z, z, d_z)
    # (1) the products with the input and with the state
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, np.concatenate([d_z_r, d_z_z, d_z_n], axis=1))
    of_r_and_z = rows_of(weights, 0, 2 * H), rows_of(d_weights, 0, 2 * H)
    d_h_prev = d_h_prev + linear_backward(*of_r_and_z, "hh", h_prev, np.concatenate([d_z_r, d_z_z], axis=1))
    return d_x_t, [d_h_prev]


def gru_activations(reset_after, **options):
    """The two activations of a GRU's gates; `reset_after` has chosen the cell."""
    return activations(**options)


GRU = Cell(spec.GRU, gru_step, gru_step_backward, gru_activations)
GRU_BEFORE = Cell(spec.GRU, gru_before_step, gru_before_step_backward, gru_activations)


def gru_cell(arguments):
    """The cell that `reset_after`, the first option, chooses."""
    _, _, _, (reset_after, *_), _, _, _ = arguments
    return GRU if reset_after else GRU_BEFORE


class GRUTape(Tape):
    """The values that `gru_backward` needs from a `gru_forward`."""

    __slots__ = ()


@takes(functional.gru_arguments)
def gru(arguments: Arguments) -> tuple[Array, Array]:
    """The same as `fastrnn.functional.gru`, in plain NumPy."""
    return run_forward(GRUTape, gru_cell(arguments), arguments)[:2]


@takes(functional.gru_arguments)
def gru_forward(arguments: Arguments) -> tuple[Array, Array, GRUTape]:
    """The same as `fastrnn.functional.gru_forward`, in plain NumPy."""
    return run_forward(GRUTape, gru_cell(arguments), arguments)


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
    """The same as `fastrnn.functional.gru_backward`, in plain NumPy."""
    return run_backward(GRUTape, tape, d_output, d_state_n, input_gradient)


# RNN


def rnn_step(weights, x_t, state_prev, *, nonlinearity):
    """x_t (B, I), h_prev (B, H) -> h_t (B, H)."""
    (h_prev,) = state_prev
    # (1) the pre-activation, (B, H)
    z = product(weights, "hh", h_prev, linear_input(weights, x_t))
    # (2) the output
    h_t = nonlinearity(z)
    return [h_t], (x_t, (z,), h_prev, h_t)


def rnn_step_backward(weights, d_weights, saved, d_state_t, *, nonlinearity):
    """d_h (B, H) -> d_x_t (B, I), d_h_prev."""
    (d_h,) = d_state_t
    x_t, (z,), h_prev, h_t = saved
    # (2) the output
    d_z = nonlinearity.backward(z, h_t, d_h)
    # (1) the pre-activation
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = linear_backward(weights, d_weights, "hh", h_prev, d_z)
    return d_x_t, [d_h_prev]


def rnn_activation(nonlinearity, clip):
    """The activation of an RNN."""
    return {"nonlinearity": Activation(nonlinearity, clip)}


RNN = Cell(spec.RNN, rnn_step, rnn_step_backward, rnn_activation)


class RNNTape(Tape):
    """The values that `rnn_backward` needs from an `rnn_forward`."""

    __slots__ = ()


@takes(functional.rnn_arguments)
def rnn(arguments: Arguments) -> tuple[Array, Array]:
    """The same as `fastrnn.functional.rnn`, in plain NumPy."""
    return run_forward(RNNTape, RNN, arguments)[:2]


@takes(functional.rnn_arguments)
def rnn_forward(arguments: Arguments) -> tuple[Array, Array, RNNTape]:
    """The same as `fastrnn.functional.rnn_forward`, in plain NumPy."""
    return run_forward(RNNTape, RNN, arguments)


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
    """The same as `fastrnn.functional.rnn_backward`, in plain NumPy."""
    return run_backward(RNNTape, tape, d_output, d_state_n, input_gradient)


# sLSTM (Beck and others, "xLSTM: Extended Long Short-Term Memory", 2024, section 2.2)
#
# The gates i and f are exponentials, of sums that the stabilizer m_t keeps from overflowing: c_t and n_t are the sums
# of the paper times exp(-m_t), which cancels in c_t / n_t. A normalizer of 0 says that the state is empty.


def log_sigmoid(z):
    """log(sigmoid(z)), of an exp that cannot overflow."""
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


def slstm_step(weights, x_t, state_prev):
    """x_t (B, I), and h_prev, c_prev, n_prev, m_prev -> h_t, c_t, n_t, m_t, all (B, H)."""
    h_prev, c_prev, n_prev, m_prev = state_prev
    # (1) the pre-activations, (B, 4H)
    z = heads(weights, h_prev, linear_input(weights, x_t))
    z_i, z_f, z_z, z_o = np.split(z, 4, axis=1)
    # (2) the stabilizer: the larger of the logarithms of the two gates, i alone where the state is empty
    log_f = log_sigmoid(z_f) + m_prev
    forgets = n_prev != 0  # whether there is a state for f to scale
    keeps = forgets & (log_f > z_i)
    m_t = np.where(keeps, log_f, z_i)
    # (3) the gates, times exp(-m_t)
    i = np.exp(z_i - m_t)
    f = np.exp(np.where(forgets, log_f - m_t, -np.inf))
    # (4) the cell state and its normalizer
    g = np.tanh(z_z)
    c_t = f * c_prev + i * g
    n_t = f * n_prev + i
    # (5) the output
    o = sigmoid(z_o)
    h_t = o * (c_t / n_t)
    return [h_t, c_t, n_t, m_t], (x_t, (z_f, keeps), h_prev, c_prev, n_prev, i, f, g, o, c_t, n_t, m_t)


def slstm_step_backward(weights, d_weights, saved, d_state_t):
    """d_h, d_c, d_n, d_m -> d_x_t (B, I), and d_h_prev, d_c_prev, d_n_prev, d_m_prev, all (B, H)."""
    d_h, d_c, d_n, d_m = d_state_t
    x_t, (z_f, keeps), h_prev, c_prev, n_prev, i, f, g, o, c_t, n_t, _ = saved
    # (5) the output
    d_o = d_h * (c_t / n_t)
    d_c = d_c + d_h * o / n_t
    d_n = d_n - d_h * o * (c_t / n_t) / n_t
    d_z_o = d_o * o * (1 - o)
    # (4) the cell state and its normalizer
    d_i = d_c * g + d_n
    d_g = d_c * i
    d_f = d_c * c_prev + d_n * n_prev
    d_c_prev = d_c * f
    d_n_prev = d_n * f
    d_z_z = d_g * (1 - g * g)
    # (3) the gates; an empty state has f = 0
    d_z_i = d_i * i
    d_log_f = d_f * f
    d_m = d_m - d_z_i - d_log_f
    # (2) the stabilizer
    d_z_i = d_z_i + np.where(keeps, 0, d_m)
    d_m_prev = d_log_f + np.where(keeps, d_m, 0)
    d_z_f = d_m_prev * sigmoid(-z_f)
    # (1) the pre-activations
    d_z = np.concatenate([d_z_i, d_z_f, d_z_z, d_z_o], axis=1)
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = heads_backward(weights, d_weights, h_prev, d_z)
    return d_x_t, [d_h_prev, d_c_prev, d_n_prev, d_m_prev]


def heads(weights, h, z):
    """z plus the product of h (B, H) with weight_hh (4*H, H/num_heads): (B, 4*H).

    Each head multiplies its own H/num_heads numbers of h with its own rows of each of the gates.
    """
    if isinstance(weights["weight_hh"], Rounded):  # a block-diagonal matrix
        return product(weights, "hh", h, z)
    of_heads, h = by_heads(weights["weight_hh"], h)
    return z + np.einsum("gkqp,bkp->bgkq", of_heads, h).reshape(len(h), -1)


def heads_backward(weights, d_weights, h, d_y):
    """d_h, of `heads` with the result y; adds to the gradients of weight_hh and of bias_hh."""
    of_heads, h = by_heads(weights["weight_hh"], h)
    d_of_heads, _ = by_heads(d_weights["weight_hh"], h)
    d_y = d_y.reshape(len(h), *of_heads.shape[:3])
    d_of_heads += np.einsum("bgkq,bkp->gkqp", d_y, h)
    if "bias_hh" in weights:
        d_weights["bias_hh"] += d_y.sum(axis=0).ravel()
    return np.einsum("gkqp,bgkq->bkp", of_heads, d_y).reshape(len(h), -1)


def by_heads(weight_hh, h):
    """Views: weight_hh by gate, head, row and column, (4, K, S, S), and h by head, (B, K, S)."""
    S = weight_hh.shape[1]
    K = weight_hh.shape[0] // (4 * S)
    return weight_hh.reshape(4, K, S, S), h.reshape(-1, K, S)


SLSTM = Cell(spec.SLSTM, slstm_step, slstm_step_backward, dict)


class SLSTMTape(Tape):
    """The values that `slstm_backward` needs from an `slstm_forward`."""

    __slots__ = ()


@takes(functional.slstm_arguments)
def slstm(arguments: Arguments) -> tuple[Array, FourArrays]:
    """The same as `fastrnn.functional.slstm`, in plain NumPy."""
    return run_forward(SLSTMTape, SLSTM, arguments)[:2]


@takes(functional.slstm_arguments)
def slstm_forward(arguments: Arguments) -> tuple[Array, FourArrays, SLSTMTape]:
    """The same as `fastrnn.functional.slstm_forward`, in plain NumPy."""
    return run_forward(SLSTMTape, SLSTM, arguments)


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
    """The same as `fastrnn.functional.slstm_backward`, in plain NumPy."""
    return run_backward(SLSTMTape, tape, d_output, d_state_n, input_gradient)


# UGRNN (Collins, Sohl-Dickstein and Sussillo, "Capacity and Trainability in Recurrent Neural Networks", 2017)


def ugrnn_step(weights, x_t, state_prev, *, recurrent_activation, activation):
    """x_t (B, I), h_prev (B, H) -> h_t (B, H)."""
    (h_prev,) = state_prev
    # (1) the pre-activations, (B, 2H)
    z = product(weights, "hh", h_prev, linear_input(weights, x_t))
    z_g, z_c = np.split(z, 2, axis=1)
    # (2) the update gate and the candidate
    g, c = recurrent_activation(z_g), activation(z_c)
    # (3) the output
    h_t = g * h_prev + (1 - g) * c
    return [h_t], (x_t, (z_g, z_c), h_prev, g, c)


def ugrnn_step_backward(weights, d_weights, saved, d_state_t, *, recurrent_activation, activation):
    """d_h (B, H) -> d_x_t (B, I), d_h_prev."""
    (d_h,) = d_state_t
    x_t, (z_g, z_c), h_prev, g, c = saved
    # (3) the output
    d_g = d_h * (h_prev - c)
    d_c = d_h * (1 - g)
    d_h_prev = d_h * g
    # (2) the update gate and the candidate
    d_z_g = recurrent_activation.backward(z_g, g, d_g)
    d_z_c = activation.backward(z_c, c, d_c)
    # (1) the pre-activations
    d_z = np.concatenate([d_z_g, d_z_c], axis=1)
    d_x_t = linear_backward(weights, d_weights, "ih", x_t, d_z)
    d_h_prev = d_h_prev + linear_backward(weights, d_weights, "hh", h_prev, d_z)
    return d_x_t, [d_h_prev]


UGRNN = Cell(spec.UGRNN, ugrnn_step, ugrnn_step_backward, activations)


class UGRNNTape(Tape):
    """The values that `ugrnn_backward` needs from a `ugrnn_forward`."""

    __slots__ = ()


@takes(functional.ugrnn_arguments)
def ugrnn(arguments: Arguments) -> tuple[Array, Array]:
    """The same as `fastrnn.functional.ugrnn`, in plain NumPy."""
    return run_forward(UGRNNTape, UGRNN, arguments)[:2]


@takes(functional.ugrnn_arguments)
def ugrnn_forward(arguments: Arguments) -> tuple[Array, Array, UGRNNTape]:
    """The same as `fastrnn.functional.ugrnn_forward`, in plain NumPy."""
    return run_forward(UGRNNTape, UGRNN, arguments)


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
    """The same as `fastrnn.functional.ugrnn_backward`, in plain NumPy."""
    return run_backward(UGRNNTape, tape, d_output, d_state_n, input_gradient)


# Quantized layers: the same steps with other products. Denormal numbers count as zeros.


def flushed(a):
    """The array with zeros in place of denormal numbers of float32."""
    return np.where(np.abs(a) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), a), a)


def fma(a, b, c):
    """a * b + c in float32, rounded once, with denormal numbers as zeros.

    A product of two float32 numbers is exact in float64. Its sum with c is rounded to odd: towards the error where the
    last bit is even. So the rounding to float32 sees on which side of a tie the exact sum lies (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums", 2008).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product, c = flushed(a).astype(np.float64) * flushed(b), flushed(c).astype(np.float64)
        total = product + c
        of_c = total - product
        error = (product - (total - of_c)) + (c - of_c)
        to_odd = np.isfinite(total) & (error != 0) & (total.view(np.int64) % 2 == 0)
        total = np.where(to_odd, np.nextafter(total, np.copysign(np.inf, error)), total)
        return flushed(total).astype(np.float32)


def unrounded(rows, is_bounded):
    """An operand that no format rounds, as `Format.round_operand` returns one."""
    return rows, None


class Rounded:
    """A weight of a quantized layer and the product with it: integers with scales (G,), or numbers without.

    `values` (G, K) are float32. `round_operand` is that of a `Format`. `is_bounded` says whether the operand of the
    product is bounded by 1. The operand of a weight with `has_rest` has two parts: the rounded operand, and the rounded
    rest. `present` (G, K) says which values there are; None for all.
    """

    def __init__(self, round_operand, values, scales, is_bounded, has_rest, present=None):
        self.round_operand, self.values, self.scales = round_operand, values, scales
        self.is_bounded, self.has_rest, self.present = is_bounded, has_rest, present

    def __getitem__(self, rows):
        scales, present = (None if a is None else a[rows] for a in (self.scales, self.present))
        return Rounded(self.round_operand, self.values[rows], scales, self.is_bounded, self.has_rest, present)

    def product(self, a, z):
        """z plus the product with `a` (B, K), whose rows are rounded."""
        rounded, scales = self.round_operand(a, self.is_bounded)
        z = self.rounded_product(rounded, scales, z)
        if not self.has_rest:
            return z
        rest, scales = self.round_operand(fma(-rounded, scales[:, None], a), False)
        return self.rounded_product(rest, scales, z)

    def rounded_product(self, a, scales, z):
        """z plus the product with rounded rows."""
        if scales is not None:
            sums = a.astype(np.float64) @ self.values.T  # exact
            return fma(sums.astype(np.float32), flushed(scales[:, None] * self.scales), z)
        z = np.broadcast_to(z, (len(a), len(self.values)))
        for k, (w_k, a_k) in enumerate(zip(self.values.T, a.T)):
            added = fma(w_k, a_k[:, None], z)
            z = added if self.present is None else np.where(self.present[:, k], added, z)
        return z


def block_diagonal(weight_hh, H):
    """weight_hh (4*H, H/num_heads) as one matrix (4*H, H)."""
    of_heads, _ = by_heads(weight_hh, weight_hh[:0])
    _, K, S, _ = of_heads.shape
    matrix = np.zeros((4, K, S, K, S), weight_hh.dtype)
    for k in range(K):
        matrix[:, k, :, k] = of_heads[:, k]
    return matrix.reshape(4 * H, H)


def rounded_weights(layer, suffix):
    """The weights of one direction of one layer of a quantized layer, whose names end in `suffix`, by name."""
    cell, form = layer._stack.spec, layer._format
    is_exact = form.has_scales and form.round_operand is not None  # sums of integers, which are scaled afterwards
    is_bounded = cell is not spec.SLSTM and "relu" not in layer._options.values()
    weights = {}
    for name in cell.weight_names:
        values = layer.params.get(name + suffix)
        if name in spec.MATRICES and values is not None:
            scales, is_rounded = layer.params.get(name.replace("weight", "scale") + suffix), form.rounds(name)
            if is_rounded:
                values = values.astype(np.float32) if is_exact else form.widen(values, scales)
            present = None
            if cell is spec.SLSTM and name == "weight_hh" and form.round_operand is not None:
                present = block_diagonal(np.ones(values.shape, bool), layer.hidden_size)
                values = block_diagonal(values, layer.hidden_size)
            if form.round_operand is not None:
                of_h = name == "weight_hh" and "weight_hr" + suffix not in layer.params
                round_operand = form.round_operand if is_rounded else unrounded
                has_rest = form.has_scales and name == "weight_hr"
                values = Rounded(round_operand, values, scales, is_bounded and of_h, has_rest, present)
        if values is not None:
            weights[name] = values
    return weights


def quantized(
    layer: Quantized[Any, Any],
    x: ArrayLike,
    state: Any = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, Any]:
    """The same as a call of a quantized layer, in plain NumPy.

    All pre-activations of int8 and bfloat16 have the bits of the kernels if the operands have them. Activations, and
    sums of float16, agree to rounding.
    """
    layer._inputs(x, state, lengths, resets, private=False)  # checks all of them
    given = layer._inputs(x, state, None, None, private=True)
    rows, states = given.x, given.state_0  # (T, B, I), and (L*D, B, n) each
    T, B, _ = rows.shape
    lengths = checked_lengths(as_lengths(lengths), T, B)
    if resets is not None:
        resets = layer._checked_resets(np.asarray(resets), T, B, given.batched)
    stack = layer._stack
    cell = KERNELS[stack.kernel.name]
    options = cell.activations(**{name: layer._options[name] for name in cell.spec.options})
    states_n: list[list[Array]] = []
    for k in range(stack.num_layers):
        outputs: list[Array] = []
        for reverse in stack.directions:
            weights = rounded_weights(layer, f"_l{k}_reverse" if len(outputs) else f"_l{k}")
            state_n = [s[len(states_n)].copy() for s in states]
            output, _ = run_steps(cell, weights, options, rows, state_n, lengths, resets, reverse)
            outputs.append(output)
            states_n.append(state_n)
        rows = np.concatenate(outputs, axis=-1)
    return layer._returned(rows, [np.stack(s) for s in zip(*states_n)], given.batched)


# The cells by the names of their kernels.
KERNELS = {"lstm": LSTM, "gru": GRU, "gru_reset_before": GRU_BEFORE, "slstm": SLSTM, "ugrnn": UGRNN}
KERNELS |= {f"rnn_{name}": RNN for name in spec.RNN_NONLINEARITIES}


# Optimizers: one step of `fastrnn.optim`


def sgd_step(
    p: Array,
    g: Array,
    b: Array | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    is_first: bool = False,
) -> tuple[Array, Array | None]:
    """The parameters p and the velocity b after a step of `fastrnn.optim.SGD` with gradient g; b is None without it."""
    d = g + weight_decay * p
    if b is not None:
        b = d if is_first else momentum * b + (1 - dampening) * d
        d = d + momentum * b if nesterov else b
    return p - lr * d, b


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Array, Array]:
    """The parameters p and the means m and v after step 1, 2, ... of `fastrnn.optim.Adam`, or AdamW if `decoupled`."""
    beta_1, beta_2 = betas
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    m_hat, v_hat = m / (1 - beta_1**step), math.sqrt(1 / (1 - beta_2**step)) * np.sqrt(v)
    return p - lr * m_hat / (v_hat + eps), m, v
