"""The gradient of attention, checked by finite differences: the derivative by one number of the encoder's output."""

import numpy as np

rng = np.random.default_rng(1)
T, S, M = 3, 5, 4
queries, read, d_means = rng.normal(size=(T, M)), rng.normal(size=(S, M)), rng.normal(size=(T, M))


def attention():
    scores = np.exp(queries @ read.T)
    weights = scores / scores.sum(axis=1, keepdims=True)
    return weights, weights @ read


weights, means = attention()
d_weights = d_means @ read.T
d_scores = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True))
d_read = weights.T @ d_means + d_scores.T @ queries  # read is used twice

measured = np.zeros_like(read)
for at in np.ndindex(read.shape):
    for step in (1e-6, -1e-6):
        read[at] += step
        measured[at] += np.sum(d_means * attention()[1]) / (2 * step)
        read[at] -= step
assert np.max(np.abs(d_read - measured)) < 1e-7 * np.max(np.abs(measured))
print(f"{d_read[0, 0]:.4f}")
