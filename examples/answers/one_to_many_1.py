"""The entropy of the name of a digit, and of the name once its first letter is known, in bits."""

import numpy as np

NAMES = "zero one two three four five six seven eight nine".split()
first = np.array([name[0] for name in NAMES])
_, counts = np.unique(first, return_counts=True)
of_the_letter = -np.sum(counts / 10 * np.log2(counts / 10))
print(f"{np.log2(10) - of_the_letter:.1f} of {np.log2(10):.2f}")
