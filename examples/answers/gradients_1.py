"""Fifty steps back through an RNN whose recurrent matrix is 0.9 times an orthogonal one, at h = 0."""

import numpy as np

import fastrnn

T, H, rng = 50, 16, np.random.default_rng(1)
layer = fastrnn.RNN(1, H, bias=False, dtype=np.float64, rng=rng)
layer.params["weight_hh_l0"][...] = 0.9 * np.linalg.qr(rng.normal(size=(H, H)))[0]
_, _, tape = layer.forward(np.zeros((T, 1)))
d_h = rng.normal(size=(1, H))
_, d_h_0, _ = layer.backward(tape, None, d_h)
print(f"{np.linalg.norm(d_h_0) / np.linalg.norm(d_h):.5f}")
