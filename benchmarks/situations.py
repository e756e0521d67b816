"""The situations in which company.py measures calls, and the work of a process in one of them.

A situation defines the activity beside the calls: NumPy products or pauses before each call, other Python threads,
other processes, a reduced affinity. `Caller` is the worker (see interleaved.py) that makes the calls. Each call is
timed; the work before it is timed separately.
"""

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import NamedTuple

import numpy as np

import interleaved

FEWEST_CALLS = 5  # of a turn, however long they take
WARM_UP = 0.1  # of a turn's time, not counted

SERVERS = 2
THINK_TIME = 0.0005  # seconds from an answer to the next request of the same server, on average


@dataclass(frozen=True)
class Situation:
    """Everything beside the calls; the defaults are a tight loop, alone."""

    title: str
    before: tuple = ()  # one of COMPANIONS and its arguments: done before each call
    sleep: float = 0.0  # seconds, after that
    threads: int = 0  # Python threads that call; 0: the main thread alone
    processes: int = 1  # that do all of this at the same time
    busy: bool = False  # another process spins during the turn
    extra_threads: int = 0  # the setting beyond the cores, in place of fastrnn's default
    one_processor: str | None = None  # affinity, after "import" of the library or after the first "calls"
    served: str | None = None  # calls answer requests, in SERVERS processes: "forked" after the import, or "spawned"
    environment: tuple = ()  # (name, value) pairs

    @property
    def concurrent(self):
        """Whether calls are concurrent, so that the call rate counts and not the time of each call."""
        return self.threads > 1 or self.processes > 1

    @property
    def missing(self):
        """The name of a missing requirement, or None."""
        if self.one_processor and not hasattr(os, "sched_setaffinity"):
            return "os.sched_setaffinity"
        if self.served and not hasattr(os, "fork"):
            return "os.fork, or select on pipes"
        module = COMPANIONS[self.before[0]].module if self.before else None
        return module if module is not None and importlib.util.find_spec(module) is None else None


# ---------------------------------------------------------------------------------------------------
# Work before a call


def numpy_product(M, K, N):
    """(M, K) @ (K, N)."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal((M, K), np.float32), random.standard_normal((K, N), np.float32)
    return lambda: a @ b


def torch_product(M, K, N):
    import torch

    a, b = torch.rand(M, K), torch.rand(K, N)
    return lambda: a @ b


def clustering(samples, features):
    """fit and predict of scikit-learn's k-means, which uses OpenMP and BLAS."""
    from sklearn.cluster import KMeans

    X = np.random.default_rng(0).standard_normal((samples, features))
    return lambda: KMeans(8, n_init=1, max_iter=5, tol=0, random_state=0).fit(X).predict(X)


class Companion(NamedTuple):
    make: Callable
    module: str | None = None


COMPANIONS = {
    "numpy": Companion(numpy_product),
    "torch": Companion(torch_product, "torch"),
    "sklearn": Companion(clustering, "sklearn"),
}

SMALL_PRODUCT = ("numpy", 104, 64, 200)
PRODUCT = ("numpy", 256, 256, 256)
LARGE_PRODUCT = ("numpy", 1024, 1024, 1024)

SITUATIONS = {
    "alone": Situation("tight loop, alone"),
    "product-small": Situation("each call after a NumPy product (104, 64) @ (64, 200)", SMALL_PRODUCT),
    "product-256": Situation("each call after a NumPy product, 256^3", PRODUCT),
    "product-1024": Situation("each call after a NumPy product, 1024^3", LARGE_PRODUCT),
    "sleep-1": Situation("each call after 1 ms of sleep", sleep=0.001),
    "sleep-20": Situation("each call after 20 ms of sleep", sleep=0.02),
    "sleep-200": Situation("each call after 200 ms of sleep", sleep=0.2),
    "product-sleep": Situation("each call after a NumPy product, 256^3, and 20 ms of sleep", PRODUCT, sleep=0.02),
    "product-sleep-blas1": Situation(
        "the same with OPENBLAS_NUM_THREADS=1",
        PRODUCT,
        sleep=0.02,
        environment=(("OPENBLAS_NUM_THREADS", "1"),),
    ),
    "torch": Situation("each call after a product of PyTorch, 256^3", ("torch", 256, 256, 256)),
    "sklearn": Situation("each call after fit and predict of scikit-learn", ("sklearn", 1000, 16)),
    "threads-1": Situation("one Python thread, not the main one", threads=1),
    "threads-2": Situation("2 Python threads, one layer", threads=2),
    "threads-3": Situation("3 Python threads, one layer", threads=3),
    "processes-2": Situation("2 processes", processes=2),
    "processes-3": Situation("3 processes", processes=3),
    "busy": Situation("beside one busy process", busy=True),
    "extra-thread": Situation("one thread more set than there are cores", extra_threads=1),
    "one-processor": Situation("affinity cut to one processor after the import", one_processor="import"),
    "one-processor-late": Situation("affinity of all threads cut to one processor after calls", one_processor="calls"),
    "forked": Situation("2 servers forked after the import, random requests", served="forked"),
    "spawned": Situation("2 server processes, random requests", served="spawned"),
}


@contextlib.contextmanager
def busy_process():
    """Runs a process that only spins, for the duration of the context."""
    code = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


# ---------------------------------------------------------------------------------------------------
# The process that calls


class Calls(NamedTuple):
    """The calls of one caller in a turn."""

    seconds: np.ndarray  # of each call
    before: np.ndarray  # of the work before each call; empty where there is none
    elapsed: float  # from the first call to the end of the last


def repeat(call, before, sleep, seconds, fewest):
    """Calls for a number of seconds, with a minimal number of calls."""
    clock = time.perf_counter
    of_calls, of_before = [], []
    end = began = clock()
    while end - began < seconds or len(of_calls) < fewest:
        if before is not None:
            start = clock()
            before()
            of_before.append(clock() - start)
        if sleep:
            time.sleep(sleep)
        start = clock()
        call()
        end = clock()
        of_calls.append(end - start)
    return Calls(np.array(of_calls), np.array(of_before), end - began)


class Caller(interleaved.Worker):
    """Makes the calls of one process in a situation; created after the import of the library, before its first call."""

    def __init__(self, situation, library):
        super().__init__(library)
        self.situation = situation
        self.children = []
        if situation.one_processor == "import":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        name, *sizes = situation.before or (None,)
        self.before = COMPANIONS[name].make(*sizes) if name else None

    def prepare(self, mode, dtype, shape, kind):
        if self.situation.served != "forked":
            result = super().prepare(mode, dtype, shape, kind)
            if self.situation.one_processor == "calls":
                self.confine_all_threads()
            return result
        self.end_children()
        for _ in range(SERVERS):
            self.children.append(Child(self, (mode, dtype, shape, kind)))
        return [answer_of(child.pipe) for child in self.children][-1]

    def turn(self, seconds):
        """The Calls of each caller in this process."""
        if self.children:
            return load([child.pipe for child in self.children], seconds)
        if not self.situation.threads:
            return [self.repeat(self.task.call, seconds)]
        # Bound output arrays cannot be shared.
        calls = [self.task.another() if self.task.another else self.task.call for _ in range(self.situation.threads)]
        barrier = threading.Barrier(len(calls))

        def caller(call):
            barrier.wait()
            return self.repeat(call, seconds)

        with ThreadPoolExecutor(len(calls)) as executor:
            return list(executor.map(caller, calls))

    @staticmethod
    def confine_all_threads():
        """Restricts the affinity as `taskset -a` or a container's cpuset does; child processes inherit it."""
        processor = {min(os.sched_getaffinity(0))}
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), processor)

    def repeat(self, call, seconds):
        how = call, self.before, self.situation.sleep
        with self.task.around():  # of a thread, not of a process
            repeat(*how, WARM_UP * seconds, 1)
            return repeat(*how, seconds, FEWEST_CALLS)

    def request(self):
        """Serves one request: the seconds of its call."""
        with self.task.around():
            start = time.perf_counter()
            self.task.call()
            return time.perf_counter() - start

    def end_children(self):
        for child in self.children:
            child.end()
        self.children = []


class Child:
    """A fork of a Caller's process, which answers requests."""

    def __init__(self, caller, problem):
        self.pipe, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.pipe.close()
                for earlier in caller.children:
                    earlier.pipe.close()
                caller.children = []
                self.serve(theirs, caller, problem)
            finally:
                os._exit(0)
        theirs.close()

    @staticmethod
    def serve(pipe, caller, problem):
        try:
            pipe.send((interleaved.Worker.prepare(caller, *problem), None))
            for method, *arguments in iter(pipe.recv, None):
                pipe.send((getattr(caller, method)(*arguments), None))
        except EOFError:  # the parent is gone
            pass
        except Exception:
            pipe.send((None, traceback.format_exc()))

    def end(self):
        self.pipe.send(None)
        self.pipe.close()
        os.waitpid(self.pid, 0)


def answer_of(pipe):
    answer, error = pipe.recv()
    if error is not None:
        raise RuntimeError(error)
    return answer


def load(pipes, seconds):
    """Sends requests to servers at random moments, one at a time to each; the Calls of each server.

    The moments are drawn from the same seed in every turn.
    """
    clock, random = time.perf_counter, np.random.default_rng(0)
    found = {pipe: [] for pipe in pipes}
    count_from = clock() + WARM_UP * seconds
    due = {pipe: clock() + random.exponential(THINK_TIME) for pipe in pipes}  # of idle servers
    while True:
        now = clock()
        over = now - count_from >= seconds and min(map(len, found.values())) >= FEWEST_CALLS
        if over and len(due) == len(pipes):
            break
        for pipe in [] if over else [pipe for pipe, moment in due.items() if moment <= now]:
            del due[pipe]
            pipe.send(("request",))
        # Not multiprocessing's wait, which rounds up to milliseconds.
        timeout = None if over or not due else max(min(due.values()) - clock(), 0)
        for pipe in select.select([pipe for pipe in pipes if pipe not in due], [], [], timeout)[0]:
            answer = answer_of(pipe)
            now = clock()
            due[pipe] = now + random.exponential(THINK_TIME)
            if now >= count_from:
                found[pipe].append(answer)
    elapsed = clock() - count_from
    return [Calls(np.array(of_server), np.array([]), elapsed) for of_server in found.values()]
