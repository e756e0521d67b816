"""A layer with reverse=True is a chain of cells that begins at the last step."""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
layer, cell = fastrnn.GRU(8, 16, reverse=True, rng=rng), fastrnn.GRUCell(8, 16)
for name in cell.params:
    cell.params[name][...] = layer.params[f"{name}_l0"]
x = rng.standard_normal((50, 4, 8), np.float32)

output, _ = layer(x)
h, differing = None, 0
for t in reversed(range(50)):
    h = cell(x[t], h)
    differing += np.count_nonzero(h != output[t])
print(differing)
