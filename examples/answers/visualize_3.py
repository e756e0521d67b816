"""A network that closes brackets learns to count them: the correlation of its best cell with their depth."""

import numpy as np

import fastrnn

T, B, H, rng = 60, 32, 16, np.random.default_rng(1)
layer, head = fastrnn.LSTM(2, H, rng=rng), fastrnn.Linear(H, 2, rng=rng)
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)


def brackets(n):
    """x (T, n, 2), and the depth (T, n): each step opens or closes one, at random; at a depth of 0 it opens."""
    depth, opens = np.zeros((T + 1, n), int), np.empty((T, n), int)
    for t in range(T):
        opens[t] = (rng.random(n) < 0.5) | (depth[t] == 0)
        depth[t + 1] = depth[t] + 2 * opens[t] - 1
    return np.eye(2, dtype=np.float32)[opens], depth[1:]


for _ in range(600):
    x, depth = brackets(B)
    output, _, tape = layer.forward(x)
    logits, head_tape = head.forward(output)
    _, d_logits = fastrnn.softmax_cross_entropy(logits, (depth == 0).astype(int))
    d_output, d_head = head.backward(head_tape, d_logits)
    _, _, d_layer = layer.backward(tape, d_output)
    optimizer.step([d_layer, d_head])

x, depth = brackets(400)
_, _, _, (gates,) = layer.forward(x, return_gates=True)
c = gates["c"]  # (T, n, H); half of the sequences choose the cell, the others test it
search = [abs(np.corrcoef(c[:, :200, k].ravel(), depth[:, :200].ravel())[0, 1]) for k in range(H)]
best = int(np.argmax(search))
print(f"{abs(np.corrcoef(c[:, 200:, best].ravel(), depth[:, 200:].ravel())[0, 1]):.1f}")
