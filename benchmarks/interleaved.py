"""Compares the speed of libraries: one process per library, which take turns in rounds.

Libraries in one process disturb each other, because the idle threads of one library spin-wait after a call and slow
down the next. So each library has its own process. The processes take turns, with a pause between turns in which the
threads of the last one fall asleep. A round is one turn of each process, so that a drift of the machine (frequency,
neighbours) affects all of them alike. Ratios are taken within a round.
"""

import gc
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass

import numpy as np

import libraries
from shapes import PLAIN

FEWEST_ROUNDS = 3  # fewer have no quartiles
MOST_CALLS = 1001

# Calls of a service or of a loop that waits for events: threads sleep, caches are cold, clock frequencies have changed.
COLD_SLEEP = 0.02  # seconds
COLD_CALLS = 3  # of a turn


@dataclass
class Pace:
    """The duration of a measurement: seconds of a turn, of the pause before it, and of all turns at one cell.

    A turn has as many calls as fit, but at least one. There are `rounds` rounds, fewer if they would take more than
    `budget` seconds, but at least three.
    """

    rounds: int = 7
    turn: float = 0.1
    pause: float = 0.05
    budget: float = 15.0

    def calls(self, seconds):
        """Calls in a turn: an odd number, whose median is one of them."""
        return min(2 * int(self.turn / seconds / 2) + 1, MOST_CALLS)

    def rounds_within_budget(self, round_seconds):
        return min(self.rounds, max(FEWEST_ROUNDS, math.floor(self.budget / round_seconds)))


class Worker:
    """The worker in the process of a library."""

    def __init__(self, library):
        self.library = library

    def takes_part(self, mode, dtype, kind):
        return libraries.takes_part(self.library, mode, dtype, kind)

    def prepare(self, mode, dtype, shape, kind):
        """Prepares a problem and returns its result; the call also warms up caches and threads."""
        self.task = None  # its memory first
        self.task = libraries.set_up(self.library, mode, dtype, shape, kind)
        with self.task.around():
            return {name: np.array(value) for name, value in self.task.results().items()}

    def before_call(self):
        """The work of the process before each call, not timed."""

    def time(self, calls, warm_up, sleep=0.0):
        """Seconds of each of `calls` calls, after some uncounted ones that wake threads and fill caches.

        Before each counted call the process sleeps for `sleep` seconds.
        """
        call, clock = self.task.call, time.perf_counter
        seconds = []
        gc.disable()
        with self.task.around():
            for _ in range(warm_up):
                self.before_call()
                call()
            for _ in range(calls):
                self.before_call()
                if sleep:
                    time.sleep(sleep)
                start = clock()
                call()
                seconds.append(clock() - start)
        gc.enable()
        return seconds

    def run(self, function, *arguments):
        """Calls a function of some importable module with the library and these arguments."""
        return function(self.library, *arguments)


def serve(pipe, library, threads, import_from, worker):
    """Answers messages (method, *arguments) until None arrives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the parent, which ends this process
    try:
        if import_from is not None:
            sys.path.insert(0, os.path.abspath(import_from))
        worker = worker(library(threads))
        pipe.send((worker.library.version, None))
        for method, *arguments in iter(pipe.recv, None):
            pipe.send((getattr(worker, method)(*arguments), None))
    except Exception:
        pipe.send((None, traceback.format_exc()))


class Process:
    """The parent's end of the pipe to a worker: calls the worker's methods.

    `threads` is None for the library's default, `worker` creates the worker of the library.
    """

    def __init__(self, name, library, threads, import_from=None, worker=Worker):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, library, threads, import_from, worker)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.version = self.answer()

    def answer(self):
        try:
            answer, error = self.pipe.recv()
        except EOFError:
            self.process.join()
            sys.exit(f"error: the process of {self.name} died, exit code {self.process.exitcode}")
        if error is not None:
            sys.exit(f"error: in the process of {self.name}:\n{error}")
        return answer

    def call(self, method, *arguments):
        self.pipe.send((method, *arguments))
        return self.answer()

    def stop(self):
        self.pipe.send(None)
        self.process.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def turns(takers, k, pause):
    """The turns of round k, each after a pause, in alternating order, so that no process always follows the same
    one."""
    for taker in takers if k % 2 == 0 else reversed(takers):
        time.sleep(pause)
        yield taker


def measure(processes, mode, dtype, shape, pace, kind=PLAIN):
    """Compares the results of all processes, then times them: {name: median seconds of a call, per round}."""
    expected = None
    estimates = {}
    for process in processes:
        result = process.call("prepare", mode, dtype, shape, kind)
        if expected is None:
            expected = result
        libraries.check_agreement(process.name, expected, result, dtype)
        time.sleep(pace.pause)
        first = process.call("time", 1, 0)
        # A call that fills a turn alone needs no better estimate.
        estimates[process.name] = min(first if first[0] > pace.turn else process.call("time", 3, 1))
    del expected, result

    calls = {name: pace.calls(seconds) for name, seconds in estimates.items()}
    # The first call of a turn finds cold caches and sleeping threads, which a long call hides.
    warm_up = {name: 1 + n // 10 if n > 1 else 0 for name, n in calls.items()}
    round_seconds = sum(pace.pause + (calls[name] + warm_up[name]) * estimates[name] for name in calls)

    seconds = {name: [] for name in calls}
    for k in range(pace.rounds_within_budget(round_seconds)):
        for process in turns(processes, k, pace.pause):
            turn = process.call("time", calls[process.name], warm_up[process.name])
            seconds[process.name].append(float(np.median(turn)))
    return seconds


def measure_cold(processes, seconds, pace):
    """Times cold calls of the problem that `measure` has prepared: {name: median seconds of a call, per round}.

    `seconds` is the result of `measure`.
    """
    calls = {name: COLD_CALLS if np.median(of_name) < pace.turn else 1 for name, of_name in seconds.items()}
    round_seconds = sum(pace.pause + n * (COLD_SLEEP + np.median(seconds[name])) for name, n in calls.items())
    cold = {name: [] for name in seconds}
    for k in range(pace.rounds_within_budget(round_seconds)):
        for process in turns(processes, k, pace.pause):
            turn = process.call("time", calls[process.name], 0, COLD_SLEEP)
            cold[process.name].append(float(np.median(turn)))
    return cold
