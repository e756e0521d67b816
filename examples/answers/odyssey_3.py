"""A forget gate that is always open gets no gradient: how many numbers of its rows are not zero?"""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
layer = fastrnn.LSTM(12, 32, rng=rng)
f = slice(32, 64)  # the rows of the forget gate
for weight in layer.params.values():
    weight[f] = 0
layer.params["bias_ih_l0"][f] = 40
output, _, tape = layer.forward(rng.standard_normal((60, 16, 12), np.float32))
_, _, d_params = layer.backward(tape, output)
print(sum(np.count_nonzero(d_weight[f]) for d_weight in d_params.values()))
