"""Measures the machine's limits and derives the floor under the time of a call.

Two limits: the rate of fused multiply-adds on registers, and the read bandwidth of each cache level, both with the
widest vectors that fastrnn has for this machine. limits.c measures them; $CC or cc compiles it for the run.
"""

import ctypes
import math
import os
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from shapes import PLAIN, flops, weight_traffic

HERE = Path(__file__).parent
HEADERS = HERE.parent / "csrc"

# Compiler flags that make limits.c include the vector header of csrc/ for an instruction set.
TARGET_FLAGS = {"avx512": ["-mavx512f"], "avx2": ["-mavx2", "-mfma"]}
SUFFIX = {"float32": "f32", "float64": "f64"}

WORKING_SETS = [1 << k for k in range(14, 29)]  # bytes a thread: 16 KiB to 256 MiB
PREFETCH_DISTANCES = [0, 1024, 4096]  # bytes
CACHE_LINE = 64
PAGE = 4096


class Unavailable(Exception):
    """The limits cannot be measured here."""


def compile_and_load(instruction_set, folder):
    """limits.c as a library; ctypes releases the GIL during a call."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    library = Path(folder, "limits.so")
    command = [
        *compiler,
        *("-O3", "-std=c11", "-ffp-contract=off", "-shared", "-fPIC"),
        *TARGET_FLAGS.get(instruction_set, []),
        *("-I", str(HEADERS), str(HERE / "limits.c"), "-o", str(library)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"no C compiler: {error}") from None
    if done.returncode != 0:
        raise Unavailable(f"{shlex.join(command)}\n{done.stderr}")
    loaded = ctypes.CDLL(str(library))
    for name in ("operations_f32", "operations_f64", "read_block"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded


def together(tasks):
    """Runs the tasks concurrently, one thread each; returns seconds from the first start to the last end."""
    starts, ends = [], []
    barrier = threading.Barrier(len(tasks))

    def run(task):
        barrier.wait()
        starts.append(time.perf_counter())
        task()
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(ends) - min(starts)


def best_rate(tasks_of, seconds, attempts):
    """Repetitions per second of the best attempt; `tasks_of(n)` returns tasks of n repetitions each."""
    n = 1
    # Twice, because an attempt may be arbitrarily long if a thread waits for its processor.
    while (taken := min(together(tasks_of(n)) for _ in range(2))) < seconds / 2:
        n = math.ceil(n * min(1000, seconds / max(taken, 1e-6)))
    return n / min([taken, *(together(tasks_of(n)) for _ in range(attempts - 2))])


def fma_peak(library, dtype, threads, seconds, attempts):
    """FLOP/s of `threads` threads that multiply and add in registers."""
    suffix = SUFFIX[dtype]
    multiply_add = getattr(library, f"multiply_add_{suffix}")
    factors = np.array([0.5, 0.5, *range(1, CACHE_LINE)], dtype)  # s = s*0.5 + 0.5, which tends to one
    sums = np.empty((threads, CACHE_LINE), dtype)

    def tasks_of(n):
        def task(own_sums):
            pointers = ctypes.c_void_p(factors.ctypes.data), ctypes.c_void_p(own_sums.ctypes.data)
            return lambda: multiply_add(*pointers, ctypes.c_int64(n))

        return [task(own_sums) for own_sums in sums]

    operations = getattr(library, f"operations_{suffix}")()
    return threads * operations * best_rate(tasks_of, seconds, attempts)


def read_bandwidth(library, memory, size, seconds, attempts):
    """Bytes per second read by threads, each repeatedly from the first `size` bytes of its array of `memory`."""
    block = library.read_block()
    numbers = max(size // 4 // block, 1) * block
    sums = np.empty((len(memory), CACHE_LINE), np.float32)

    def rate(ahead):
        def tasks_of(n):
            def task(array, own_sums):
                pointers = ctypes.c_void_p(array.ctypes.data), ctypes.c_void_p(own_sums.ctypes.data)
                counts = [ctypes.c_int64(count) for count in (numbers, n, ahead // 4)]
                return lambda: library.read_all(pointers[0], *counts, pointers[1])

            return [task(array, own_sums) for array, own_sums in zip(memory, sums, strict=True)]

        return best_rate(tasks_of, seconds, attempts)

    return len(memory) * 4 * numbers * max(rate(ahead) for ahead in PREFETCH_DISTANCES)


def affordable(threads):
    """The working-set sizes that take, for all threads together, at most a quarter of the machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 4 << 30
    return [size for size in WORKING_SETS if size * threads <= memory / 4]


def first_touched(size, threads):
    """An array of `size` bytes for each thread, page-aligned, first written by its own thread."""
    memory = []
    for _ in range(threads):
        array = np.empty((size + PAGE) // 4, np.float32)
        start = -array.ctypes.data % PAGE // 4
        memory.append(array[start : start + size // 4])
    together([lambda array=array: array.fill(1) for array in memory])
    return memory


def measure(thread_counts, instruction_set, seconds=0.005, attempts=5):
    """The limits of this machine for each number of threads, as JSON data.

    {"instruction_set": name, "threads": {"2": {"peak": {dtype: FLOP/s},
                                                "bandwidth": [[bytes of a thread, bytes a second of all], ...]}}}
    """
    with tempfile.TemporaryDirectory() as folder:
        library = compile_and_load(instruction_set, folder)
        by_threads = {}
        for threads in sorted(set(thread_counts)):
            sizes = affordable(threads)
            memory = first_touched(sizes[-1], threads)
            by_threads[str(threads)] = {
                "peak": {dtype: fma_peak(library, dtype, threads, seconds, 2 * attempts) for dtype in SUFFIX},
                "bandwidth": [[size, read_bandwidth(library, memory, size, seconds, attempts)] for size in sizes],
            }
        return {"instruction_set": instruction_set, "threads": by_threads}


# ---------------------------------------------------------------------------------------------------
# Derived figures. `limits` is the result of measure() for one number of threads.


def bandwidth_at(limits, size):
    """Bytes per second for a working set of `size` bytes per thread, interpolated between two measured sizes."""
    sizes, rates = zip(*limits["bandwidth"], strict=True)
    # The bandwidth of a larger working set is a lower bound for a smaller one.
    rates = np.maximum.accumulate(rates[::-1])[::-1]
    return float(np.interp(math.log(size), np.log(sizes), rates))


def floor(limits, threads, mode, dtype, shape, kind=PLAIN):
    """The lower bound of a call's seconds: all its operations at peak, or its weights read in each step.

    The weights are divided among the threads, and each thread reads its part from the cache level that holds it. (If
    some of it stays in a nearer level from step to step, a call can be slightly faster.)
    """
    weights, reads = weight_traffic(mode, dtype, shape, kind)
    computing = flops(mode, shape, kind) / limits["peak"][dtype]
    reading = reads * weights / bandwidth_at(limits, weights / threads)
    return max(computing, reading)


def of_run(run):
    """(limits, threads) of a run's number of threads, or None if they were not measured."""
    threads = run["threads"]
    limits = (run.get("limits") or {"threads": {}})["threads"].get(str(threads))
    return limits and (limits, threads)
