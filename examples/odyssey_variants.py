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


class Activations(NamedTuple):
    """Of the gates i, f and o, of the input g, and of the cell, a."""

    i: Activation = SIGMOID
    f: Activation = SIGMOID
    g: Activation = TANH
    o: Activation = SIGMOID
    a: Activation = TANH


USUAL = Activations()


class Block:
    """An LSTM with peepholes in NumPy, with arbitrary activations.

    With `recurrent_gates`, each gate also sees all three gates of the step before (full gate recurrence).
    """

    def __init__(self, I, H, rng, dtype=np.float32, *, activations=USUAL, recurrent_gates=False):
        shapes = {name: array.shape for name, array in fastrnn.LSTM(I, H, peephole=True, rng=0).params.items()}
        shapes["weight_gates"] = 3 * H, 3 * H if recurrent_gates else 0  # without columns its product is 0
        self.params, self.activations = fastrnn.Parameters(shapes, dtype), activations
        self.params.flat[...] = rng.normal(scale=0.1, size=self.params.flat.size)

    def forward(self, x):
        """x (T, B, I) -> output (T, B, H), and a tape for `backward`."""
        i_of, f_of, g_of, o_of, a_of = (activation.value for activation in self.activations)
        W_ih, W_hh, b_ih, b_hh, (p_i, p_f, p_o), W_gates = self.params.values()
        h, c, seen = (np.zeros((x.shape[1], W.shape[1]), x.dtype) for W in (W_hh, W_hh, W_gates))
        output, steps = [], []
        for z in x @ W_ih.T + (b_ih + b_hh):  # (1) the input projection
            h_prev, c_prev, seen_prev = h, c, seen
            z_i, z_f, z_g, z_o = np.split(z + h_prev @ W_hh.T, 4, axis=1)  # (2) the recurrent products
            r_i, r_f, r_o = np.split(seen_prev @ W_gates.T, 3, axis=1)
            i, f, g = i_of(z_i + r_i + p_i * c_prev), f_of(z_f + r_f + p_f * c_prev), g_of(z_g)  # (3) before the cell
            c = f * c_prev + i * g  # (4) the cell
            o = o_of(z_o + r_o + p_o * c)  # (5) the gate behind the cell
            a = a_of(c)  # (6) the output
            h = o * a
            seen = np.concatenate([i, f, o], axis=1)[:, : W_gates.shape[1]]
            output.append(h)
            steps.append((h_prev, c_prev, seen_prev, i, f, g, o, c, a))
        return np.stack(output), (x, steps)

    def backward(self, tape, d_output):
        """The gradient of `params`."""
        i_slope, f_slope, g_slope, o_slope, a_slope = (activation.slope for activation in self.activations)
        (x, steps), d_params = tape, self.params.zeros_like()
        _, W_hh, _, _, (p_i, p_f, p_o), W_gates = self.params.values()
        d_W_ih, d_W_hh, d_b_ih, d_b_hh, d_p, d_W_gates = d_params.values()
        d_h, d_c, d_gates, d_z = 0, 0, np.zeros((x.shape[1], len(W_gates)), x.dtype), []
        for d_output_t, (_, c_prev, seen_prev, i, f, g, o, c, a) in zip(reversed(d_output), reversed(steps)):
            d_i, d_f, d_o = np.split(d_gates, 3, axis=1)
            d_h = d_h + d_output_t
            d_o, d_c = d_o + d_h * a, d_c + d_h * o * a_slope(a)  # (6)
            d_z_o = d_o * o_slope(o)  # (5)
            d_c = d_c + d_z_o * p_o
            d_i, d_f, d_g, d_c = d_i + d_c * g, d_f + d_c * c_prev, d_c * i, d_c * f  # (4)
            d_z_i, d_z_f, d_z_g = d_i * i_slope(i), d_f * f_slope(f), d_g * g_slope(g)  # (3)
            d_c = d_c + d_z_i * p_i + d_z_f * p_f
            d_p += [(d_z_i * c_prev).sum(axis=0), (d_z_f * c_prev).sum(axis=0), (d_z_o * c).sum(axis=0)]
            d_r = np.concatenate([d_z_i, d_z_f, d_z_o], axis=1)  # (2)
            d_W_gates += d_r.T @ seen_prev
            d_gates[:, : W_gates.shape[1]] = d_r @ W_gates
            d_z.append(np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1))
            d_h = d_z[-1] @ W_hh
        d_z = np.concatenate(d_z[::-1])  # of all steps, (T * B, 4H)
        d_W_hh[...] = d_z.T @ np.concatenate([h_prev for h_prev, *_ in steps])
        d_W_ih[...] = d_z.T @ x.reshape(len(d_z), -1)  # (1)
        d_b_ih[...] = d_b_hh[...] = d_z.sum(axis=0)
        return d_params


VARIANTS = {  # in the order of the paper, and under its names
    "V": ("all parts", Fused),
    "NIG": ("no input gate", partial(Fused, held_open="i")),
    "NFG": ("no forget gate", partial(Fused, held_open="f")),
    "NOG": ("no output gate", partial(Fused, held_open="o")),
    "NIAF": ("no input activation", partial(Block, activations=Activations(g=IDENTITY))),
    "NOAF": ("no output activation", partial(Block, activations=Activations(a=IDENTITY))),
    "CIFG": ("coupled gates", partial(Fused, coupled=True)),
    "NP": ("no peepholes", partial(Fused, peephole=False)),
    "FGR": ("gates see gates", partial(Block, recurrent_gates=True)),
}
