"""The pool of unused buffers of this process: the one place that decides how much memory waits for the next call.

In it are the `saved` memory of tapes that are gone, packed weights of calls that pack for themselves, and arrays that
a call needs between its arguments and its results. The pool belongs to no layer: a layer that is gone leaves its memory
to others, until newer buffers take its place.
"""

import os

import numpy as np

from fastrnn._core import ALIGNMENT, Pool

MOST_BYTES = 256 << 20

POOL = Pool(MOST_BYTES)


def aligned_bytes(size):
    """A new array of uint8 for a caller, which begins at a multiple of ALIGNMENT bytes and is none of the pool's."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.after_fork)
