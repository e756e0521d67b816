"""Digits whose rows are read in another order, the same for all images, by an LSTM."""

import numpy as np
from sklearn.datasets import load_digits

import fastrnn

images, labels = load_digits(return_X_y=True)
rng = np.random.default_rng(1)
order = rng.permutation(8)
x = (images / 16).astype(np.float32).reshape(-1, 8, 8).transpose(1, 0, 2)[order]  # (T, B, I)

layer, head = fastrnn.LSTM(8, 64, rng=rng), fastrnn.Linear(64, 10, rng=rng)
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.005)
for _ in range(800):
    batch = rng.integers(1347, size=32)
    _, (h_n, _), tape = layer.forward(x[:, batch])
    logits, head_tape = head.forward(h_n[0])
    _, d_logits = fastrnn.softmax_cross_entropy(logits, labels[batch])
    d_h, d_head = head.backward(head_tape, d_logits)
    _, _, d_layer = layer.backward(tape, None, (d_h[None], None))
    optimizer.step([d_layer, d_head])
_, (h_n, _) = layer(x[:, 1347:])
print(f"{np.mean(head(h_n[0]).argmax(axis=1) == labels[1347:]):.0%}")
