"""Many calls of one frozen layer: threads within a call, threads across calls, joblib, processes.

    python benchmarks/calls.py
    python benchmarks/calls.py --threads 8 --calls 400

Turns of all ways alternate; the figures are medians. A call is a batch of a service: B sequences of T steps.
"""

import argparse
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import joblib
import numpy as np

import fastrnn

I = 64
SHAPES = ((50, 1, 64), (50, 16, 256), (200, 4, 128))  # T, B, H


def initialize(layer):
    """Of a worker process."""
    global LAYER
    fastrnn.set_num_threads(1)
    LAYER = layer


def call_in_worker(x):
    return LAYER(x)[0]


def seconds_of(ways, rounds):
    """name -> the median seconds of a turn."""
    found = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if turn:  # the first warms up
                found[name].append(time.perf_counter() - begin)
    return {name: statistics.median(some) for name, some in found.items()}


def with_threads(number, way):
    def turn():
        fastrnn.set_num_threads(number)
        way()

    return turn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads(), help="default: the cores")
    parser.add_argument("--calls", type=int, default=64, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (default: %(default)s)")
    options = parser.parse_args()
    number, spawn = options.threads, get_context("spawn")
    for T, B, H in SHAPES:
        layer = fastrnn.LSTM(I, H, rng=1)
        layer.freeze()
        batches = [np.random.default_rng(k).standard_normal((T, B, I), np.float32) for k in range(options.calls)]
        with (
            ThreadPoolExecutor(number) as threads,
            ProcessPoolExecutor(number, spawn, initialize, (layer,)) as processes,
            joblib.parallel_config(backend="threading", n_jobs=number),
        ):
            parallel, call = joblib.Parallel(), joblib.delayed(layer)
            ways = {
                "one call after the other, 1 thread": with_threads(1, lambda: list(map(layer, batches))),
                f"one call after the other, {number} threads": with_threads(number, lambda: list(map(layer, batches))),
                f"{number} threads across calls, 1 inside": with_threads(1, lambda: list(threads.map(layer, batches))),
                f"{number} threads across calls, {number} inside": with_threads(
                    number, lambda: list(threads.map(layer, batches))
                ),
                f"joblib, {number} threads across, 1 inside": with_threads(
                    1, lambda: parallel(call(x) for x in batches)
                ),
                f"{number} processes": lambda: list(processes.map(call_in_worker, batches, chunksize=4)),
            }
            found = seconds_of(ways, options.rounds)
        print(f"\n{options.calls} calls of LSTM({I}, {H}), T = {T}, B = {B}")
        first = next(iter(found.values()))
        for name, seconds in found.items():
            print(f"  {name:<40}{1e3 * seconds:9.1f} ms{first / seconds:7.2f} times")


if __name__ == "__main__":
    main()
