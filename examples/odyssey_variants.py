"""The model of odyssey.py: an LSTM with peepholes, and eight variants that differ from it in one part each.

Six of the nine run on the fused kernels, by their parameters alone:

- a gate that is always open is one of weights 0 and bias 40. Its sigmoid is exactly 1, and its gradient exactly 0;
- coupled gates, f = 1 - i, have opposite weights, because sigmoid(-z) = 1 - sigmoid(z).

The kernels cannot compute the other three with any parameters. They run in plain NumPy, in `Block`.

Sizes: T steps, B sequences, I inputs, H hidden units.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import training  # noqa: F401, before NumPy: it sets NumPy's threads
import numpy as np

import fastrnn

GATES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # of rows i, f, g, o, H of each
OPEN_BIAS = 40.0


class Fused:
    """The variants that are a fastrnn.LSTM: with peepholes or without, with a gate held open, with coupled gates."""

    def __init__(self, I, H, rng, dtype=np.float32, *, peephole=True, held_open=None, coupled=False):
        self.lstm = fastrnn.LSTM(I, H, dtype=dtype, rng=0, peephole=peephole)
        self.params, self.coupled = self.lstm.params, coupled
        self.params.flat[...] = rng.normal(scale=0.1, size=self.params.flat.size)
        if held_open:
            weight_ih, weight_hh, bias_ih, bias_hh, peepholes = rows(self.params, held_open)
            for held in (weight_ih, weight_hh, bias_hh, peepholes):
                held[...] = 0
            bias_ih[...] = OPEN_BIAS
        if coupled:
            for of_i, of_f in zip(rows(self.params, "i"), rows(self.params, "f")):
                of_f[...] = -of_i

    def forward(self, x):
        output, _, tape = self.lstm.forward(x)
        return output, tape

    def backward(self, tape, d_output):
        _, _, d_params = self.lstm.backward(tape, d_output)
        if self.coupled:
            # Keeps W_f = -W_i. From opposite gradients, Adam's steps are opposite to the last bit.
            for d_i, d_f in zip(rows(d_params, "i"), rows(d_params, "f")):
                d_i[...] = (d_i - d_f) / 2
                d_f[...] = -d_i
        return d_params


def rows(params, gate):
    """The parameters of one of the gates i, f and o: its rows of the weights and biases, and its peepholes."""
    H = params["weight_hh_l0"].shape[1]
    k = "ifgo".index(gate)
    return [params[name][k * H : (k + 1) * H] for name in GATES] + [params["weight_peephole_l0"]["ifo".index(gate)]]


class Activation(NamedTuple):
    """y, of z, and dy/dz, of y."""

    value: Callable
    slope: Callable


SIGMOID = Activation(lambda z: (1 + np.tanh(z / 2)) / 2, lambda y: y * (1 - y))
TANH = Activation(np.tanh, lambda y: 1 - y * y)
IDENTITY = Activation(lambda z: z, np.ones_like)
OPEN = Activation(np.ones_like, np.zeros_like)


class Block:
    """An LSTM with peepholes in NumPy, with arbitrary activations.

    With `recurrent_gates`, each gate also sees all three gates of the step before (full gate recurrence).
    """

    def __init__(
        self, I, H, rng, dtype=np.float32, *,
        i=SIGMOID, f=SIGMOID, g=TANH, o=SIGMOID, a=TANH, recurrent_gates=False,
    ):  # fmt: skip
        shapes = {name: array.shape for name, array in fastrnn.LSTM(I, H, peephole=True, rng=0).params.items()}
        if recurrent_gates:
            shapes["weight_gates"] = 3 * H, 3 * H
        self.params = fastrnn.Parameters(shapes, dtype)
        self.params.flat[...] = rng.normal(scale=0.1, size=self.params.flat.size)
        self.activations, self.recurrent_gates = (i, f, g, o, a), recurrent_gates

    def forward(self, x):
        """x (T, B, I) -> output (T, B, H), and a tape for `backward`."""
        i_of, f_of, g_of, o_of, a_of = (activation.value for activation in self.activations)
        params, W_hh = self.params, self.params["weight_hh_l0"]
        p_i, p_f, p_o = params["weight_peephole_l0"]
        (T, B, _), H = x.shape, W_hh.shape[1]
        output = np.empty((T, B, H), x.dtype)
        h, c, gates = (np.zeros((B, n), x.dtype) for n in (H, H, 3 * H))
        steps = []
        # (1) the input projection, at all steps
        z_x = x @ params["weight_ih_l0"].T + (params["bias_ih_l0"] + params["bias_hh_l0"])
        for t in range(T):
            h_prev, c_prev, gates_prev = h, c, gates
            # (2) and the recurrent product
            z_i, z_f, z_g, z_o = np.split(z_x[t] + h_prev @ W_hh.T, 4, axis=1)
            if self.recurrent_gates:
                r_i, r_f, r_o = np.split(gates_prev @ params["weight_gates"].T, 3, axis=1)
                z_i, z_f, z_o = z_i + r_i, z_f + r_f, z_o + r_o
            # (3) the gates before the cell
            i, f, g = i_of(z_i + p_i * c_prev), f_of(z_f + p_f * c_prev), g_of(z_g)
            # (4) the cell
            c = f * c_prev + i * g
            # (5) the gate behind it
            o = o_of(z_o + p_o * c)
            # (6) the output
            a = a_of(c)
            h = output[t] = o * a
            if self.recurrent_gates:
                gates = np.concatenate([i, f, o], axis=1)
            steps.append((h_prev, c_prev, gates_prev, i, f, g, o, c, a))
        return output, (x, steps)

    def backward(self, tape, d_output):
        """The gradient of `params`."""
        i_slope, f_slope, g_slope, o_slope, a_slope = (activation.slope for activation in self.activations)
        params, d_params = self.params, self.params.zeros_like()
        W_hh, (p_i, p_f, p_o) = params["weight_hh_l0"], params["weight_peephole_l0"]
        d_p_i, d_p_f, d_p_o = d_params["weight_peephole_l0"]
        (x, steps), H = tape, W_hh.shape[1]
        d_z = np.empty((len(x), x.shape[1], 4 * H), x.dtype)
        d_h, d_c, d_gates = (np.zeros((x.shape[1], n), x.dtype) for n in (H, H, 3 * H))
        for t in reversed(range(len(x))):
            h_prev, c_prev, gates_prev, i, f, g, o, c, a = steps[t]
            # (6) the output
            d_h = d_h + d_output[t]
            d_i, d_f, d_o = np.split(d_gates, 3, axis=1)
            d_o = d_o + d_h * a
            d_c = d_c + d_h * o * a_slope(a)
            # (5) the gate behind the cell
            d_z_o = d_o * o_slope(o)
            d_p_o += (d_z_o * c).sum(axis=0)
            d_c = d_c + d_z_o * p_o
            # (4) the cell
            d_i, d_f, d_g = d_i + d_c * g, d_f + d_c * c_prev, d_c * i
            d_c = d_c * f
            # (3) the gates before the cell
            d_z_i, d_z_f, d_z_g = d_i * i_slope(i), d_f * f_slope(f), d_g * g_slope(g)
            d_p_i += (d_z_i * c_prev).sum(axis=0)
            d_p_f += (d_z_f * c_prev).sum(axis=0)
            d_c = d_c + d_z_i * p_i + d_z_f * p_f
            # (2) the recurrent product
            if self.recurrent_gates:
                d_r = np.concatenate([d_z_i, d_z_f, d_z_o], axis=1)
                d_params["weight_gates"] += d_r.T @ gates_prev
                d_gates = d_r @ params["weight_gates"]
            np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1, out=d_z[t])
            d_h = d_z[t] @ W_hh
        # (2), (1) the weights, of all steps
        d_z = d_z.reshape(-1, 4 * H)
        d_params["weight_hh_l0"] = d_z.T @ np.concatenate([h_prev for h_prev, *_ in steps])
        d_params["weight_ih_l0"] = d_z.T @ x.reshape(len(d_z), -1)
        d_params["bias_ih_l0"] = d_params["bias_hh_l0"] = d_z.sum(axis=0)
        return d_params


VARIANTS = {  # in the order of the paper, and under its names
    "V": ("all parts", Fused),
    "NIG": ("no input gate", partial(Fused, held_open="i")),
    "NFG": ("no forget gate", partial(Fused, held_open="f")),
    "NOG": ("no output gate", partial(Fused, held_open="o")),
    "NIAF": ("no input activation", partial(Block, g=IDENTITY)),
    "NOAF": ("no output activation", partial(Block, a=IDENTITY)),
    "CIFG": ("coupled gates", partial(Fused, coupled=True)),
    "NP": ("no peepholes", partial(Fused, peephole=False)),
    "FGR": ("gates see gates", partial(Block, recurrent_gates=True)),
}
