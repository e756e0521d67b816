"""Sequences of unequal lengths: how many have other bits in a batch than alone?"""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
layer = fastrnn.LSTM(12, 64, bidirectional=True, rng=rng)
lengths = rng.integers(7, 30, size=100)
sequences = [rng.standard_normal((length, 12), np.float32) for length in lengths]
x, lengths = fastrnn.pad(sequences)
_, (h_n, _) = layer(x, lengths=lengths)
print(sum(layer(sequence)[1][0].tobytes() != h_n[:, b].tobytes() for b, sequence in enumerate(sequences)))
