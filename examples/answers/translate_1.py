"""The score that puts 99% of the attention on one of 35 positions, if all others have the score 0."""

import numpy as np

scores = np.zeros(35)
while np.exp(scores[0]) / np.exp(scores).sum() < 0.99:
    scores[0] += 0.01
print(f"{scores[0]:.2f}")
