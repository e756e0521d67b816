"""The relative error of an LSTM's output in int8, after 100 and after 1000 steps of noise."""

import numpy as np

import fastrnn

H = 64
layer = fastrnn.LSTM(8, H, rng=1)
layer.params["bias_ih_l0"][H : 2 * H] = 5  # of the forget gate
x = np.random.default_rng(1).standard_normal((1000, 16, 8), np.float32)
q = layer.quantize("int8")
short, long = (fastrnn.compare(layer, q, x[:T]).relative for T in (100, 1000))
print(f"{short:.2f}, {long:.2f}")
