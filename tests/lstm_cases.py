"""Random arguments for one LSTM layer, and the results of its functions."""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    x: np.ndarray
    state: tuple
    weights: list
    d_output: np.ndarray
    d_state_n: tuple


def draw(rng, dtype, T, B, I, H, bias=True, scale=1.0):
    """Random numbers for which the gates are neither closed nor fully open."""

    def uniform(*shape):
        return (scale * rng.uniform(-1, 1, shape)).astype(dtype)

    depth = max(1, I + H) ** 0.5
    weights = [(2 * uniform(4 * H, I) / depth).astype(dtype), (2 * uniform(4 * H, H) / depth).astype(dtype)]
    if bias:
        weights += [uniform(4 * H), uniform(4 * H)]
    return Case(
        uniform(T, B, I), (uniform(B, H), uniform(B, H)), weights, uniform(T, B, H), (uniform(B, H), uniform(B, H))
    )


def run(module, case):
    """name -> array: the results of inference, of the training forward pass and of the backward pass."""
    inferred, (h, c) = module.lstm(case.x, case.state, *case.weights)
    output, (h_n, c_n), tape = module.lstm_forward(case.x, case.state, *case.weights)
    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, case.d_output, case.d_state_n)
    return {
        "inferred output": inferred, "inferred h_n": h, "inferred c_n": c,
        "output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0,
    } | {f"d_{name}": value for name, value in d_params.items()}  # fmt: skip


def as_float64(case):
    return Case(
        case.x.astype(np.float64),
        tuple(a.astype(np.float64) for a in case.state),
        [a.astype(np.float64) for a in case.weights],
        case.d_output.astype(np.float64),
        tuple(a.astype(np.float64) for a in case.d_state_n),
    )
