"""The meaning of every kernel, in plain NumPy: same signatures as `fastrnn.functional`.

Written to be read and to be compared with, not to be fast. It computes in the dtype of the weights;
with float64 weights it is the yardstick of the float32 kernels.

Notation: T steps, B sequences, I inputs, H hidden units; `d_a` is the gradient of the loss with
respect to `a` and has a's shape. The steps of the backward pass carry the numbers of the forward
steps that they undo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn._validation import check_tape, initial_state, lstm_arguments, lstm_gradients

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastrnn._validation import State

__all__ = ["lstm", "lstm_forward", "lstm_backward"]


class LSTMTape:
    """What `lstm_backward` needs of an `lstm_forward`: private copies, never altered."""

    __slots__ = ("x", "h", "c", "gates", "weight_ih", "weight_hh", "biases")

    def __repr__(self):
        T, B, I = self.x.shape
        H = self.weight_hh.shape[1]
        return f"<reference.LSTMTape T={T} B={B} I={I} H={H} {self.x.dtype}>"


def sigmoid(z: NDArray) -> NDArray:
    """1 / (1 + exp(-z)), of an exp that cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def lstm(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray]]:
    """The same as `fastrnn.functional.lstm`, in plain NumPy."""
    output, state_n, _ = lstm_forward(x, state, weight_ih, weight_hh, bias_ih, bias_hh)
    return output, state_n


def lstm_forward(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray], LSTMTape]:
    """The same as `fastrnn.functional.lstm_forward`, in plain NumPy."""
    x, h_0, c_0, weights = lstm_arguments(x, state, weight_ih, weight_hh, bias_ih, bias_hh)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    dtype = weight_ih.dtype
    T, B, _ = x.shape
    H = weight_hh.shape[1]

    tape = LSTMTape()
    tape.x = x = x.astype(dtype)
    tape.weight_ih = weight_ih.copy()
    tape.weight_hh = weight_hh.copy()
    tape.biases = [n for n, b in (("bias_ih", bias_ih), ("bias_hh", bias_hh)) if b is not None]
    tape.gates = gates = np.empty((T, B, 4 * H), dtype)  # activated: i f g o
    tape.h = h = np.empty((T + 1, B, H), dtype)  # h[t] enters step t, h[t + 1] leaves it
    tape.c = c = np.empty((T + 1, B, H), dtype)
    h[0] = initial_state(h_0, (B, H), dtype, private=False)
    c[0] = initial_state(c_0, (B, H), dtype, private=False)

    bias = np.zeros(4 * H, dtype)
    for b in (bias_ih, bias_hh):
        if b is not None:
            bias = bias + b

    for t in range(T if B else 0):  # no sequences, no steps: T may then be astronomical
        # (1) the gates before their activation, (B, 4H)
        z = bias + x[t] @ weight_ih.T + h[t] @ weight_hh.T
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
        # (2) the gates
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        # (3) the cell state
        c[t + 1] = f * c[t] + i * g
        # (4) the output
        h[t + 1] = o * np.tanh(c[t + 1])
        gates[t] = np.concatenate([i, f, g, o], axis=1)

    return h[1:].copy(), (h[T].copy(), c[T].copy()), tape


def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray], dict[str, NDArray]]:
    """The same as `fastrnn.functional.lstm_backward`, in plain NumPy."""
    check_tape(tape, LSTMTape)
    x, h, c, gates = tape.x, tape.h, tape.c, tape.gates
    weight_ih, weight_hh = tape.weight_ih, tape.weight_hh
    dtype = x.dtype
    T, B, _ = x.shape
    H = weight_hh.shape[1]
    d_output, d_h_n, d_c_n = lstm_gradients(d_output, d_state_n, (T, B, H), dtype)

    d_x = np.empty_like(x)
    d_h = initial_state(d_h_n, (B, H), dtype, private=True)
    d_c = initial_state(d_c_n, (B, H), dtype, private=True)
    d_weight_ih = np.zeros_like(weight_ih)
    d_weight_hh = np.zeros_like(weight_hh)
    d_bias = np.zeros(4 * H, dtype)

    for t in reversed(range(T if B else 0)):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        tanh_c = np.tanh(c[t + 1])
        # h_t goes to step t + 1, whose share d_h holds by now, and to the output.
        if d_output is not None:
            d_h = d_h + d_output[t]
        # (4) the output
        d_o = d_h * tanh_c
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        # (3) the cell state
        d_i = d_c * g
        d_f = d_c * c[t]
        d_g = d_c * i
        d_c = d_c * f
        # (2) the gates
        d_z_i = d_i * i * (1 - i)
        d_z_f = d_f * f * (1 - f)
        d_z_g = d_g * (1 - g * g)
        d_z_o = d_o * o * (1 - o)
        # (1) the gates before their activation
        d_z = np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1)
        d_x[t] = d_z @ weight_ih
        d_h = d_z @ weight_hh
        d_weight_ih += d_z.T @ x[t]
        d_weight_hh += d_z.T @ h[t]
        d_bias += d_z.sum(axis=0)

    d_params = {"weight_ih": d_weight_ih, "weight_hh": d_weight_hh}
    for name in tape.biases:
        d_params[name] = d_bias.copy()
    return d_x, (d_h, d_c), d_params
