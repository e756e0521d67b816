"""How many threads a call may use: the one place that decides.

The kernels use fewer threads where that is faster; no result depends on their number.
"""

import os

from fastrnn import _core
from fastrnn._validation import integer

MOST_THREADS = 1024

__all__ = ["get_num_threads", "set_num_threads"]


def _positive(variable: str) -> int | None:
    """The first number in an environment variable of OpenMP, which may be a list; None without one."""
    try:
        number = int(os.environ.get(variable, "").split(",")[0])
    except ValueError:
        return None
    return min(number, MOST_THREADS) if number > 0 else None


# None: a thread for each core that the calling thread may use at the time of the call.
_limit = _positive("OMP_THREAD_LIMIT") or MOST_THREADS
_num_threads = min(_positive("OMP_NUM_THREADS") or 0, _limit) or None


def set_num_threads(num_threads: int) -> None:
    """Set the number of threads that a call may use, in this process.

    Parameters
    ----------
    num_threads : int
        From 1 to 1024. The default is ``OMP_NUM_THREADS`` if that is set, else the number of physical cores that the
        calling thread may use at the time of the call; its affinity and the CPU quotas of its cgroups are read again
        while the process runs. ``OMP_THREAD_LIMIT`` limits both. A call never uses more threads than there are
        processors available to the calling thread.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is less than 1, or more than 1024.

    Notes
    -----
    No bit of a result depends on the number of threads.

    In a process made by ``fork`` every call uses one thread. Start processes that need more by "spawn", or by a
    "forkserver" that has not imported fastrnn.
    """
    global _num_threads
    number = integer("num_threads", num_threads)
    if not 1 <= number <= MOST_THREADS:
        raise ValueError(f"num_threads: expected 1 to {MOST_THREADS}, got {number}")
    _num_threads = min(number, _limit)


def get_num_threads() -> int:
    """The number of threads that a call may use now: the number set by `set_num_threads`, or its default.

    In a process made by ``fork`` it is 1.
    """
    return 1 if _forked else min(_num_threads or _core.processors()[1], _limit)


def most_threads() -> int:
    """The number of threads for a call of the kernels; with 0 the kernels count the processors themselves."""
    return 1 if _forked else _num_threads or (get_num_threads() if _limit < MOST_THREADS else 0)


_forked = False


def _after_fork() -> None:
    """A child has none of its parent's helper threads, and is often one of many workers."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
