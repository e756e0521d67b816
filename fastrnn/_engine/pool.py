"""The pool of unused buffers of this process: the one place that decides how much memory waits for the next call.

In it are the `saved` memory of tapes that are gone, packed weights of calls that pack for themselves, and arrays that
a call needs between its arguments and its results. The pool belongs to no layer: a layer that is gone leaves its memory
to others, until newer buffers take its place.
"""

import os

from fastrnn._core import Pool

MOST_BYTES = 256 << 20

POOL = Pool(MOST_BYTES)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.after_fork)
