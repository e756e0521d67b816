"""Which part of a cell state is left after 1000 steps, if the forget gate's pre-activation of 7 is off by 0.05?"""

import numpy as np


def left(z, steps=1000):
    return (1 / (1 + np.exp(-z))) ** steps


print(f"{left(7):.3f}, {left(6.95):.3f}")
