"""The pool of unused buffers of this process, which bounds the memory that is kept for later calls.

It holds the memory of deallocated tapes and large results, packed weights of layers that are not frozen, and arrays
that a call needs between its arguments and its results. The pool belongs to no layer: others use the memory of a
deallocated layer, or it is dropped for newer buffers.
"""

import os

from fastrnn._core import Pool

MOST_BYTES = 256 << 20

POOL = Pool(MOST_BYTES)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.after_fork)
