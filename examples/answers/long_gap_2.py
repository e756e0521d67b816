"""The cell state after k steps, with the bias that gives the forget gate a time constant of k = 100 steps."""

import numpy as np

import fastrnn

k = 100
layer = fastrnn.LSTM(1, 1)
layer.params.flat[...] = 0
layer.params["bias_ih_l0"][1] = np.log(k - 1)  # sigmoid(log(k - 1)) = 1 - 1 / k
begin = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
_, (_, c) = layer(np.zeros((k, 1), np.float32), begin)
print(f"{c.item():.3f}")
