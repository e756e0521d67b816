"""The pool of unused buffers of this process, which bounds the memory that is kept for later calls.

It holds the memory of deallocated tapes, packed weights of layers that are not frozen, and arrays that a call needs
between its arguments and its results. The pool belongs to no layer: others use the memory of a deallocated layer, or
it is dropped for newer buffers.
"""

import os

import numpy as np

from fastrnn._core import ALIGNMENT, Pool

MOST_BYTES = 256 << 20

POOL = Pool(MOST_BYTES)


def aligned_bytes(size):
    """A new array of uint8 for a caller, outside the pool, that begins at a multiple of ALIGNMENT bytes."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.after_fork)
