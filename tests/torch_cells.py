"""Every cell with every option in PyTorch, from the equations, with autograd: no code is shared with fastrnn.

One sequence after the other, one step after the other, every gate by itself.
"""

import numpy as np
import torch
from torch.nn.functional import linear, logsigmoid

import recurrent_cases

GATES = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid_fifth": lambda z: torch.clamp(0.2 * z + 0.5, 0, 1),
    # torch.nn.functional.hardsigmoid, whose derivative has the accuracy of a float32 in float64, too.
    "hard_sigmoid_sixth": lambda z: torch.clamp(z / 6 + 0.5, 0, 1),
}
OTHERS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class Unit:
    """The weights of one gate after the other, and the activations, of one case."""

    def __init__(self, case, weights):
        options = case.options
        self.weights = weights
        self.hidden_size = len(weights["weight_ih"]) // recurrent_cases.GATES[case.cell]
        self.gate = GATES[options.get("recurrent_activation", "sigmoid")]
        self.other = OTHERS[options.get("activation", options.get("nonlinearity", "tanh"))]
        self.clip = options.get("clip")
        self.reset_after = options.get("reset_after", True)

    def of(self, kind, gate):
        """The rows of a gate in weight_ih and bias_ih, or weight_hh and bias_hh."""
        weight, bias = self.weights[f"weight_{kind}"], self.weights.get(f"bias_{kind}")
        H = self.hidden_size
        rows = slice(gate * H, (gate + 1) * H)
        return weight[rows], None if bias is None else bias[rows]

    def bounded(self, z):
        return z if self.clip is None else torch.clamp(z, -self.clip, self.clip)


class LSTM(Unit):
    def __call__(self, x, h, c):
        peepholes = self.weights.get("weight_peephole")
        p_i, p_f, p_o = (0, 0, 0) if peepholes is None else peepholes
        z_i, z_f, z_g, z_o = (linear(x, *self.of("ih", k)) + linear(h, *self.of("hh", k)) for k in range(4))
        i = self.gate(self.bounded(z_i + p_i * c))
        f = self.gate(self.bounded(z_f + p_f * c))
        c = f * c + i * self.other(self.bounded(z_g))
        h = self.gate(self.bounded(z_o + p_o * c)) * self.other(c)
        return (linear(h, self.weights["weight_hr"]) if "weight_hr" in self.weights else h), c


class GRU(Unit):
    def __call__(self, x, h):
        r, z = (self.gate(self.bounded(linear(x, *self.of("ih", k)) + linear(h, *self.of("hh", k)))) for k in (0, 1))
        recurrent = r * linear(h, *self.of("hh", 2)) if self.reset_after else linear(r * h, *self.of("hh", 2))
        n = self.other(self.bounded(linear(x, *self.of("ih", 2)) + recurrent))
        return (h * z + n * (1 - z),)


class RNN(Unit):
    def __call__(self, x, h):
        return (self.other(self.bounded(linear(x, *self.of("ih", 0)) + linear(h, *self.of("hh", 0)))),)


class SLSTM(Unit):
    def __call__(self, x, h, c, n, m):
        i, f, z, o = (linear(x, *self.of("ih", k)) + self.of_heads(h, k) for k in range(4))
        empty = n == 0
        forgets = logsigmoid(f) + m
        m = torch.where(empty, i, torch.maximum(i, forgets))
        f = torch.where(empty, 0, torch.exp(torch.where(empty, m, forgets) - m))
        i = torch.exp(i - m)
        c = f * c + i * torch.tanh(z)
        n = f * n + i
        return torch.sigmoid(o) * c / n, c, n, m

    def of_heads(self, h, gate):
        """Each head by itself."""
        weight, bias = self.of("hh", gate)
        S = weight.shape[1]
        heads = [linear(h[k : k + S], weight[k : k + S]) for k in range(0, self.hidden_size, S)]
        return torch.cat(heads) + (0 if bias is None else bias)


class SLSTMWithoutStabilizer(SLSTM):
    """The sLSTM of the paper's first equations: m stays as it is, and only h is that of the SLSTM."""

    def __call__(self, x, h, c, n, m):
        i, f, z, o = (linear(x, *self.of("ih", k)) + self.of_heads(h, k) for k in range(4))
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        return torch.sigmoid(o) * c / n, c, n, m


class UGRNN(Unit):
    def __call__(self, x, h):
        g, c = (self.bounded(linear(x, *self.of("ih", k)) + linear(h, *self.of("hh", k))) for k in (0, 1))
        g, c = self.gate(g), self.other(c)
        return (h * g + c * (1 - g),)


CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "slstm": SLSTM, "ugrnn": UGRNN}


def run(case, kind=None):
    """The same as recurrent_cases.run."""
    x = torch.tensor(case.x, requires_grad=True)
    state_0 = [torch.tensor(s, requires_grad=True) for s in case.state]
    weights = {name: torch.tensor(w, requires_grad=True) for name, w in case.weights.items()}
    unit = (kind or CELLS[case.cell])(case, weights)
    resets, reverse = case.options.get("resets"), case.options.get("reverse", False)
    T, B, _ = case.x.shape
    output = torch.zeros(case.d_output.shape, dtype=x.dtype)
    state_n = [torch.zeros_like(s) for s in state_0]
    for b, length in enumerate(recurrent_cases.lengths_of(case)):
        state = tuple(s[b] for s in state_0)
        before = None  # the step before this one
        for t in range(length)[::-1] if reverse else range(length):
            border = max(t, before) if reverse and before is not None else None if reverse else t
            if resets is not None and border is not None and resets[border, b]:
                state = tuple(torch.zeros_like(s) for s in state)
            state = unit(x[t, b], *state)
            output[t, b] = state[0]
            before = t
        for s_n, s in zip(state_n, state, strict=True):
            s_n[b] = s
    loss = torch.sum(output * torch.tensor(case.d_output))
    for s_n, d in zip(state_n, case.d_state_n, strict=True):
        loss = loss + torch.sum(s_n * torch.tensor(d))
    inputs = [x, *state_0, *weights.values()]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True) if B else [
        torch.zeros_like(a) for a in inputs
    ]  # fmt: skip
    names = recurrent_cases.STATES[case.cell]
    results = {"output": output} | {f"{name}_n": s for name, s in zip(names, state_n)}
    named = ["x", *(f"{name}_0" for name in names), *weights]
    results |= {f"d_{name}": d for name, d in zip(named, gradients, strict=True)}
    return {name: np.asarray(array.detach()) for name, array in results.items()}
