"""LSTM, fused and reference: an inference pass and a training step per shape; compare first, then time.

`make bench` runs this and prints the table. By hand:

    python -m pytest benchmarks --benchmark-json=benchmarks.json && python benchmarks/table.py benchmarks.json
"""

from functools import lru_cache

import numpy as np
import pytest

import fastrnn

# (T, B, I, H)
SHAPES = [
    (1, 1, 64, 64),
    (100, 1, 32, 32),
    (100, 1, 64, 64),
    (25, 1, 512, 512),
    (100, 8, 16, 16),
    (100, 8, 128, 128),
    (100, 32, 64, 64),
    (35, 20, 200, 200),
    (35, 20, 650, 650),
    (25, 16, 512, 512),
    (25, 64, 512, 512),
    (150, 64, 256, 256),
    (25, 4, 1024, 1024),
]

# Rounding alone sets the two apart. The bound grows with the size of the array's largest number, because
# a sum of many terms that cancel is no more accurate than its terms.
TOLERANCE = 1e-4


class Fused:
    """The layer as a user calls it."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        output, _ = self.layer(x)
        return {"output": output}

    def train(self, x, d_output):
        output, _, tape = self.layer.forward(x)
        d_x, _, d_params = self.layer.backward(tape, d_output)
        return {"output": output, "d_x": d_x, **d_params}


class Reference:
    """The same weights through plain NumPy."""

    def __init__(self, layer):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.weights = [layer.params[name + "_l0"] for name in names]

    def forward(self, x):
        output, _ = fastrnn.reference.lstm(x, None, *self.weights)
        return {"output": output}

    def train(self, x, d_output):
        output, _, tape = fastrnn.reference.lstm_forward(x, None, *self.weights)
        d_x, _, d_params = fastrnn.reference.lstm_backward(tape, d_output)
        return {"output": output, "d_x": d_x, **{name + "_l0": d for name, d in d_params.items()}}


IMPLEMENTATIONS = {"fused": Fused, "reference": Reference}


@lru_cache(maxsize=1)
def case(shape):
    """The layer and the arguments of forward and train, the same for both implementations."""
    T, B, I, H = shape
    layer = fastrnn.LSTM(I, H, dtype=np.float32, rng=0)
    random = np.random.default_rng(1)
    x = random.standard_normal((T, B, I), dtype=np.float32)
    d_output = random.standard_normal((T, B, H), dtype=np.float32)
    return layer, {"forward": (x,), "train": (x, d_output)}


@lru_cache(maxsize=2)
def expected(shape, mode):
    layer, arguments = case(shape)
    return getattr(Reference(layer), mode)(*arguments[mode])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_lstm(benchmark, shape, mode, implementation):
    layer, arguments = case(shape)
    run = getattr(IMPLEMENTATIONS[implementation](layer), mode)

    result = run(*arguments[mode])
    for name, value in expected(shape, mode).items():
        np.testing.assert_allclose(
            result[name], value, rtol=0, atol=TOLERANCE * max(1, np.abs(value).max()), err_msg=name
        )

    T, B, I, H = shape
    benchmark.group = f"{mode} {T}, {B}, {I}, {H}"
    benchmark.extra_info.update(shape=shape, mode=mode, implementation=implementation)
    benchmark(run, *arguments[mode])
