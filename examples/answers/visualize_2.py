"""The share of the time that untrained forget gates are above 0.9, with a bias of 2."""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
layer = fastrnn.LSTM(8, 64, rng=rng)
for name in ("bias_ih_l0", "bias_hh_l0"):
    layer.params[name][...] = 0
layer.params["bias_ih_l0"][64:128] = 2
x = rng.standard_normal((500, 16, 8), np.float32)
_, _, _, (gates,) = layer.forward(x, return_gates=True)
print(f"{np.mean(gates['f'] > 0.9):.0%}")
