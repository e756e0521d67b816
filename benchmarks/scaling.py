"""Measures the scaling of fastrnn alone: in T, B, H and threads; with denormal numbers; in memory.

`suite.py --scaling` runs this, in float32, frozen for inference, and stores the result in its JSON file.
"""

import time
from functools import partial

import numpy as np

from interleaved import Pace, Process, measure
from libraries import Fastrnn, Problem
from shapes import ITEMSIZE, PLAIN, Shape, label, square

DTYPE = "float32"
STEPS = (1, 2, 5, 10, 25, 50, 100, 200, 400, 800)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
HIDDEN = (16, 32, 64, 100, 128, 200, 256, 400, 512, 1024)

# The curves along each axis, each a list of shapes.
CURVES = {
    "T": [[Shape(T, B, H, H) for T in STEPS] for B, H in ((1, 64), (20, 200), (16, 512))],
    "B": [square(25, BATCHES, H) for H in (64, 256, 512)],
    "H": [[Shape(25, B, H, H) for H in HIDDEN] for B in (1, 16)],
}
THREADED = [
    (PLAIN, Shape(100, 1, 64, 64)),
    (PLAIN, Shape(100, 32, 64, 64)),
    (PLAIN, Shape(20, 20, 200, 200)),
    (PLAIN, Shape(25, 1, 512, 512)),
    (PLAIN, Shape(25, 16, 512, 512)),
    (PLAIN, Shape(25, 1, 1024, 1024)),
    # For a single sequence, directions and layers can run side by side.
    ("lstm-bidirectional", Shape(100, 1, 128, 128)),
    ("lstm-two-layers", Shape(100, 1, 128, 128)),
]
MODES = ("forward", "train")

# The number of time steps, over all sequences, of the training step to which a call's fixed cost is compared.
TYPICAL_TIME_STEPS = 400

PACE = Pace(rounds=3, turn=0.05, pause=0.01, budget=1.5)
THREADS_PACE = Pace(rounds=7, turn=0.05, pause=0.05, budget=5)


def thread_counts(most):
    """All of them up to eight, then powers of two."""
    return [n for n in range(1, most + 1) if n <= 8 or n == most or n & (n - 1) == 0]


def run(threads, say=lambda line: None):
    """All results, as JSON data."""
    points = []
    with Process("fastrnn", Fastrnn, threads) as process:
        for axis, curves in CURVES.items():
            for curve in curves:
                for mode in MODES:
                    say(f"scaling in {axis}, {mode}: {curve[0]} to {curve[-1]}")
                    for shape in curve:
                        seconds = measure([process], mode, DTYPE, shape, PACE)["fastrnn"]
                        points.append(point(axis, mode, shape, threads, seconds))
        say("denormals")
        slow_numbers = process.call("run", denormals, Shape(100, 8, 128, 128))
    points += scaling_in_threads(threads, say)
    say("memory")
    return {
        "points": points,
        "intercepts": [intercept([p for p in points if is_of(p, curve)]) for curve in CURVES["T"]],
        "denormals": slow_numbers,
        "memory": memory(threads),
    }


def point(axis, mode, shape, threads, seconds, kind=PLAIN):
    return {
        "axis": axis,
        "mode": mode,
        "kind": kind,
        "shape": list(shape),
        "threads": threads,
        "seconds": seconds,
    }


def is_of(point, curve):
    return point["axis"] == "T" and point["mode"] == "train" and Shape(*point["shape"]) in curve


def scaling_in_threads(most, say):
    """Measures the same shapes with every number of threads, in rounds: one process per number."""
    counts = thread_counts(most)
    if len(counts) == 1:
        return []
    processes = [Process(str(n), Fastrnn, n) for n in counts]
    points = []
    for kind, shape in THREADED:
        for mode in MODES:
            say(f"scaling in threads, {mode}: {label(kind, shape)}")
            for n, seconds in measure(processes, mode, DTYPE, shape, THREADS_PACE, kind).items():
                points.append(point("threads", mode, shape, int(n), seconds, kind))
    for process in processes:
        process.stop()
    return points


def intercept(points):
    """Fits a straight line to the times over T; its intercept is the cost of a call apart from its steps (packing,
    allocation).

    The fit minimizes relative distances. `share` is the part of a call of TYPICAL_TIME_STEPS outside the steps,
    `deviation` the largest relative distance of a point from the line.
    """
    _, B, _, H = points[0]["shape"]
    T = np.array([point["shape"][0] for point in points])
    seconds = np.array([np.median(point["seconds"]) for point in points])
    slope, at_zero = np.polyfit(T, seconds, 1, w=1 / seconds)
    line = at_zero + slope * T
    return {
        "B": B,
        "H": H,
        "intercept": float(at_zero),
        "per_step": float(slope),
        "share": float(at_zero / (at_zero + slope * TYPICAL_TIME_STEPS / B)),
        "deviation": float(np.abs(line / seconds - 1).max()),
    }


# ---------------------------------------------------------------------------------------------------
# Run in a process of fastrnn.


def denormals(library, shape, rounds=11, calls=5):
    """Median seconds per round of a call with a denormal cell state throughout, and of a call with normal numbers.

    The forget gates are one and the input gates are zero, so that the cell state neither grows nor decays. Denormals
    are not slow on all processors: a NumPy product of the same numbers shows whether they are.
    """
    T, B, I, H = shape
    problem = Problem.of(shape, np.dtype(DTYPE))
    problem.params["bias_ih_l0"][:] = np.repeat(np.array([-30, 30, 0, 0], DTYPE), H)
    problem.params["bias_hh_l0"][:] = 0
    layer = library.layer(problem, frozen=True)
    silence = np.zeros_like(problem.x)
    calls_of = {}
    for kind, value in (("denormal", 1e-39), ("normal", 1e-3)):
        state = np.full((1, B, H), value, DTYPE), np.full((1, B, H), value, DTYPE)
        row = np.full(1 << 16, value, DTYPE)
        calls_of["layer", kind] = partial(layer, silence, state)
        calls_of["numpy", kind] = partial(np.multiply, row, np.float32(0.9), out=np.empty_like(row))

    seconds = {"layer": {"denormal": [], "normal": []}, "numpy": {"denormal": [], "normal": []}}
    for call in calls_of.values():
        call()
    for k in range(rounds):
        for (what, kind), call in list(calls_of.items())[:: 1 if k % 2 == 0 else -1]:
            turn = []
            for _ in range(calls):
                start = time.perf_counter()
                call()
                turn.append(time.perf_counter() - start)
            seconds[what][kind].append(float(np.median(turn)))
    return seconds | {"shape": list(shape)}


def resident(field):
    """Resident bytes of this process: now (VmRSS) or the maximum so far (VmHWM). None without /proc."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith(field + ":"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def growth(library, mode, shape):
    """Bytes by which the process grows at the peak of a call; the preceding call was a short one."""
    problem = Problem.of(shape, np.dtype(DTYPE))
    layer = library.layer(problem, frozen=mode == "forward")
    call = layer.forward if mode == "train" else layer
    call(problem.x[:1])
    before = resident("VmRSS")
    if before is None:
        return None
    call(problem.x)
    return resident("VmHWM") - before


def memory(threads):
    """Growth of the process in a long call, and the bytes that the call must keep; each in a new process."""
    shape = Shape(4000, 16, 128, 128)
    T, B, _, H = shape
    numbers = ITEMSIZE[DTYPE] * T * B * H
    entries = {}
    for mode, what, expected, of in (
        ("forward", "inference", numbers, "the output"),
        ("train", "a training forward", 6 * numbers, "output, gates and cell states: 6 H numbers a step and sequence"),
    ):
        with Process("fastrnn", Fastrnn, threads) as process:
            grown = process.call("run", growth, mode, shape)
        if grown is not None:
            entries[what] = {"shape": list(shape), "growth": grown, "expected": expected, "of": of}
    return entries
