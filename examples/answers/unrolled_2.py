"""The cell state with a forget gate of sigmoid(3), step by step, until half of it is forgotten."""

import numpy as np

import fastrnn

cell = fastrnn.LSTMCell(1, 1)
for weight in cell.params.values():
    weight[...] = 0
cell.params["bias_ih"][1] = 3  # the order is i, f, g, o

state, steps = (np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)), 0
while state[1] >= 0.5:
    state = cell(np.zeros((1, 1), np.float32), state)
    steps += 1
print(steps)
