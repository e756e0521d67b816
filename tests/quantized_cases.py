"""Quantized layers of every kind, with the options of their equations, and their results as bytes."""

import numpy as np

import fastrnn
from fastrnn._engine.formats import FORMATS
from layer_cases import members

KINDS = {
    "lstm": (fastrnn.LSTM, {}),
    "lstm, projected": (fastrnn.LSTM, {"proj_size": 7}),
    "lstm, peepholes": (
        fastrnn.LSTM,
        {"proj_size": 5, "peephole": True, "recurrent_activation": "hard_sigmoid_sixth", "clip": 0.7},
    ),
    "lstm, relu": (fastrnn.LSTM, {"proj_size": 8, "activation": "relu", "clip": 0.9, "bias": False}),
    "gru": (fastrnn.GRU, {}),
    "gru, relu": (fastrnn.GRU, {"recurrent_activation": "hard_sigmoid_fifth", "activation": "relu", "bias": False}),
    "gru, reset before": (fastrnn.GRU, {"reset_after": False}),
    "gru, reset before, relu": (fastrnn.GRU, {"reset_after": False, "activation": "relu", "clip": 0.7}),
    "rnn": (fastrnn.RNN, {}),
    "rnn, sigmoid": (fastrnn.RNN, {"nonlinearity": "sigmoid", "clip": 0.7}),
    "rnn, relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "slstm": (fastrnn.SLSTM, {}),
    "slstm, heads": (fastrnn.SLSTM, {"num_heads": 3}),
    "ugrnn": (fastrnn.UGRNN, {}),
    "ugrnn, relu": (fastrnn.UGRNN, {"recurrent_activation": "hard_sigmoid_sixth", "activation": "relu", "clip": 0.7}),
}  # fmt: skip
ALL_FORMATS = tuple(FORMATS)


def is_rounded(name, form):
    """Whether a parameter of a quantized layer has the numbers of the format."""
    return name.startswith(("weight_ih", "weight_hh")) or (
        name.startswith("weight_hr") and form not in ("float16", "bfloat16")
    )


def make(kind, I, H, *, seed=1, **options):
    """A layer of float32 of a kind; H is a multiple of 3 for heads."""
    cls, its_options = KINDS[kind]
    return cls(I, H, **its_options, **options, rng=seed)


def state_of(layer, B, bound=1.0, seed=5):
    """A state of a batch of B, with numbers up to `bound` in h."""
    rng, stack = np.random.default_rng(seed), layer._stack
    states = [rng.uniform(-bound if k == 0 else -1, bound if k == 0 else 1, (stack.count, B, n)).astype(np.float32)
              for k, n in enumerate(stack.widths)]  # fmt: skip
    if len(states) == 4:
        states[2] = np.abs(states[2]) + 1  # a normalizer is a sum of positive numbers
    return states[0] if len(states) == 1 else tuple(states)


def arrays_of(results):
    """The arrays of the results of a call: output and the members of the state."""
    output, state_n = results
    return [output, *members(state_n)]


def bytes_of(results):
    return [np.ascontiguousarray(array).tobytes() for array in arrays_of(results)]
