"""The latch over a gap of 50 steps, by a GRU whose update gates begin with time constants of 2 to 60 steps."""

import numpy as np

import fastrnn

T, H, B, rng = 60, 32, 32, np.random.default_rng(1)


def latch(n):
    """Signs and a mark (T, n, 2), and whether the marked sign is positive (n,)."""
    x = np.zeros((T, n, 2), np.float32)
    x[..., 0] = np.sign(rng.uniform(-1, 1, (T, n)))
    marked = rng.integers(10, size=n), np.arange(n)
    x[..., 1][marked] = 1
    return x, (x[..., 0][marked] > 0).astype(int)


layer, head = fastrnn.GRU(2, H, rng=rng), fastrnn.Linear(H, 2, rng=rng)
layer.params["bias_ih_l0"][H : 2 * H] = np.log(rng.uniform(1, T - 1, H))  # the order is r, z, n
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)
for _ in range(300):
    x, targets = latch(B)
    _, h_n, tape = layer.forward(x)
    logits, head_tape = head.forward(h_n[0])
    _, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    d_h, d_head = head.backward(head_tape, d_logits)
    _, _, d_layer = layer.backward(tape, None, d_h[None])
    fastrnn.optim.clip_by_global_norm([d_layer, d_head], 1.0)
    optimizer.step([d_layer, d_head])
x, targets = latch(1000)
print(f"{np.mean(head(layer(x)[1][0]).argmax(axis=1) == targets):.0%}")
