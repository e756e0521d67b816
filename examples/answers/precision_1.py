"""Steps until bfloat16 loses a sum: a cell state of 1 that a gate of 1 keeps gets 0.003 at each step."""

import numpy as np


def bfloat16(value):
    bits = np.float32(value).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


c = np.float32(1)
for _ in range(1000):
    c = bfloat16(c + np.float32(0.003))
print(c)
