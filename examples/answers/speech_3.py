"""Words that end at the same time with padding and without it, by their lengths."""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
words = [rng.standard_normal((length, 13), np.float32) for length in rng.integers(6, 93, 32)]
gru = fastrnn.GRU(13, 64, rng=1)
x, lengths = fastrnn.pad(words)
_, with_lengths = gru(x, lengths=lengths)
_, without = gru(x)
alone = np.stack([gru(word)[1][0] for word in words])
print(f"{(with_lengths[0] != alone).any(axis=1).sum()} and {(without[0] != alone).any(axis=1).sum()}")
