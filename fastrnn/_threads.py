"""How many threads a call may use: the one place that decides.

The kernels take fewer where fewer are faster; the results do not depend on it.
"""

import os

from fastrnn._validation import integer

MOST_THREADS = 1024

__all__ = ["get_num_threads", "set_num_threads"]


def _cgroup_limit() -> int | None:
    """The processors that a container's CPU quota amounts to, rounded up; None without a quota."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:  # cgroup 2
            limit = file.read().split()
    except OSError:
        try:
            with (
                open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as quota_file,  # cgroup 1
                open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as period_file,
            ):
                limit = [quota_file.read(), period_file.read()]
        except OSError:
            return None
    try:
        quota, period = map(int, limit)
    except ValueError:  # "max"
        return None
    return max(1, -(-quota // period)) if quota > 0 and period > 0 else None


def _physical_cores(processors: set[int]) -> int:
    """The cores behind these logical processors: two threads of one core share its arithmetic units."""
    cores = set()
    for processor in processors:
        try:
            with open(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list") as file:
                cores.add(file.read().strip())
        except OSError:
            return len(processors)
    return len(cores)


def _default() -> int:
    """OMP_NUM_THREADS where it is set to a number, else the cores that this process may use."""
    try:
        wanted = int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
        if wanted > 0:
            return min(wanted, MOST_THREADS)
    except ValueError:
        pass
    try:
        cores = _physical_cores(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores, _cgroup_limit() or cores))


_num_threads = _default()


def set_num_threads(num_threads: int) -> None:
    """Set the number of threads that a call may use, in this process.

    Parameters
    ----------
    num_threads : int
        At least 1. The default is ``OMP_NUM_THREADS`` where that is set, else the number of physical cores that
        the process may use (its affinity and its container's quota considered).

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is less than 1, or more than 1024.

    Notes
    -----
    No result depends on it, to the last bit.

    In a process made by ``fork`` every call uses one thread, whatever is set: an OpenMP team does not survive a fork.
    Processes that shall use more are to be started by "spawn", or by a "forkserver" that has not imported fastrnn.
    """
    global _num_threads
    number = integer("num_threads", num_threads)
    if not 1 <= number <= MOST_THREADS:
        raise ValueError(f"num_threads: expected 1 to {MOST_THREADS}, got {number}")
    _num_threads = number


def get_num_threads() -> int:
    """The number of threads that a call may use: what `set_num_threads` has set, but 1 in a forked child."""
    return 1 if _forked else _num_threads


_forked = False


def _after_fork() -> None:
    """The child has the OpenMP team's records and not its threads: entering a team would wait for ever."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
