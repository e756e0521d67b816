"""Measures calls in company: beside NumPy, sleeps, other Python threads, other processes and other libraries.

    python benchmarks/company.py                                # a few shapes in every situation, some minutes
    python benchmarks/company.py --full                         # all shapes in every situation
    python benchmarks/company.py --situations product-small busy --shapes 300,1,128,128 --peers
    python benchmarks/company.py --baseline ../before           # another build of fastrnn takes part

fastrnn runs with its defaults and with fixed numbers of threads (--threads), the peers with their defaults. Writes
build/company.json (every round) and build/company.md. situations.py defines the situations, interleaved.py the turns of
the processes; company_report.py makes the tables of a JSON file.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import company_report
import interleaved
import situations
from libraries import BASELINE, FASTRNN, LIBRARIES, PEERS, check_agreement, is_installed
from shapes import PLAIN, Shape
from situations import SITUATIONS
from suite import default_threads, parse_shape, processor, say

BIDIRECTIONAL, TWO_LAYERS = "lstm-bidirectional", "lstm-two-layers"
STEP, SHORT, LONG = Shape(1, 1, 64, 64), Shape(19, 1, 200, 128), Shape(300, 1, 128, 128)
SMALL, BIG = Shape(100, 1, 64, 64), Shape(132, 1, 80, 512)
BATCH, SMALL_BATCH = Shape(50, 8, 256, 256), Shape(100, 32, 64, 64)
SERVED = Shape(50, 1, 128, 128)

SHAPES = (SHORT, STEP, SMALL, LONG, BIG, BATCH, SMALL_BATCH)
TRAINED = "train", PLAIN, SMALL_BATCH
EVERYWHERE = [("forward", kind, shape) for kind in (PLAIN, BIDIRECTIONAL) for shape in SHAPES] + [TRAINED]


def inferred(*shapes):
    return [("forward", PLAIN, shape) for shape in shapes]


OF_SHORT = [("forward", BIDIRECTIONAL, SHORT)]

# (mode, kind, shape) of the situations in a run without --full and --shapes; LONG in those that are not listed.
QUICK = {
    "alone": [*OF_SHORT, *inferred(STEP, LONG, BIG, BATCH), TRAINED],
    "product-small": [*OF_SHORT, *inferred(STEP, BIG)],
    "product-256": [*OF_SHORT, *inferred(SMALL_BATCH)],
    "product-1024": OF_SHORT,
    "sleep-1": OF_SHORT,
    "sleep-20": [*OF_SHORT, *inferred(BATCH)],
    "sleep-200": OF_SHORT,
    "product-sleep": OF_SHORT,
    "product-sleep-blas1": OF_SHORT,
    "threads-2": inferred(LONG, BATCH),
    "processes-2": inferred(LONG, BATCH),
    "busy": inferred(LONG, BATCH),
}


class Cell(NamedTuple):
    situation: str
    mode: str
    kind: str
    shape: Shape


def select(names, full=False, shapes=None, kinds=(PLAIN, BIDIRECTIONAL)):
    """The cells of a run, situation by situation."""
    cells = []
    for name in names:
        if shapes:
            problems = [("forward", kind, shape) for kind in kinds for shape in shapes]
        elif SITUATIONS[name].served:
            problems = [("forward", TWO_LAYERS, SERVED)]
        elif full:
            problems = EVERYWHERE
        else:
            problems = QUICK.get(name, inferred(LONG))
        cells += [Cell(name, *problem) for problem in problems]
    return cells


class Setting(NamedTuple):
    """A library with a number of threads, None for its default."""

    name: str
    library: str
    threads: int | None = None


def settings_of(arguments):
    return [
        Setting(FASTRNN, FASTRNN),
        *(Setting(company_report.fixed_name(threads), FASTRNN, threads) for threads in arguments.threads),
        *([Setting(BASELINE, BASELINE)] if arguments.baseline is not None else []),
        *(Setting(name, name) for name in arguments.peers),
    ]


@contextlib.contextmanager
def environment(pairs):
    """Sets environment variables for the processes started within the context."""
    before = {name: os.environ.get(name) for name, _ in pairs}
    os.environ.update(pairs)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Entrant:
    """The processes of one setting in a situation, which call at the same time."""

    def __init__(self, setting, situation, cores, baseline):
        self.name, self.situation = setting.name, situation
        threads = setting.threads
        if situation.extra_threads and setting.name in (FASTRNN, BASELINE):
            threads = cores + situation.extra_threads
        self.processes = [
            interleaved.Process(
                setting.name,
                LIBRARIES[setting.library],
                threads,
                baseline if setting.name == BASELINE else None,
                partial(situations.Caller, situation),
            )
            for _ in range(situations.SERVERS if situation.served == "spawned" else situation.processes)
        ]
        self.version = self.processes[0].version

    def together(self, method, *arguments):
        """Calls a method in all processes at the same time; returns the list of results."""
        for process in self.processes:
            process.pipe.send((method, *arguments))
        return [process.answer() for process in self.processes]

    def takes_part(self, mode, dtype, kind):
        return self.processes[0].call("takes_part", mode, dtype, kind)

    def turn(self, seconds):
        """The Calls of every caller."""
        with situations.busy_process() if self.situation.busy else contextlib.nullcontext():
            if self.situation.served == "spawned":
                return situations.load([process.pipe for process in self.processes], seconds)
            return [calls for of_process in self.together("turn", seconds) for calls in of_process]

    def stop(self):
        for process in self.processes:
            process.stop()


class Measured:
    """The turns of one setting at a cell: figures per round, and all calls.

    costs    median seconds per call; for concurrent callers the inverse of their total call rate
    rates    calls per second: of all callers, or, without concurrency, of the time spent in calls
    before   median seconds of the work before a call; zero without such work
    """

    def __init__(self, concurrent):
        self.concurrent = concurrent
        self.costs, self.rates, self.before, self.seconds = [], [], [], []

    def add(self, turn):
        seconds = np.concatenate([calls.seconds for calls in turn])
        self.seconds.append(seconds)
        before = np.concatenate([calls.before for calls in turn])
        self.before.append(float(np.median(before)) if len(before) else 0.0)
        if self.concurrent:
            self.rates.append(sum(len(calls.seconds) / calls.elapsed for calls in turn))
            self.costs.append(1 / self.rates[-1])
        else:
            self.rates.append(float(len(seconds) / seconds.sum()))
            self.costs.append(float(np.median(seconds)))

    def as_json(self):
        seconds = np.concatenate(self.seconds)
        low, median, high, p99 = (float(q) for q in np.quantile(seconds, [0.25, 0.5, 0.75, 0.99]))
        return {
            "costs": self.costs,
            "rates": self.rates,
            "before": self.before,
            "calls": len(seconds),
            "quartiles": [low, median, high],
            "p99": p99,
        }


def measure(entrants, cell, situation, pace):
    """{name of a setting: its numbers, see Measured} at a cell, after a comparison of all results."""
    expected = None
    for entrant in entrants:
        for result in entrant.together("prepare", cell.mode, "float32", cell.shape, cell.kind):
            expected = result if expected is None else expected
            check_agreement(entrant.name, expected, result, "float32")
    del expected

    measured = {entrant.name: Measured(situation.concurrent) for entrant in entrants}
    began = time.perf_counter()
    for k in itertools.count():
        for entrant in interleaved.turns(entrants, k, pace.pause):
            measured[entrant.name].add(entrant.turn(pace.turn))
        if k + 1 >= pace.rounds_within_budget((time.perf_counter() - began) / (k + 1)):
            break
    return {name: of_setting.as_json() for name, of_setting in measured.items()}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--full", action="store_true", help="all shapes in all situations: about an hour")
    what.add_argument("--situations", nargs="+", choices=SITUATIONS, default=list(SITUATIONS), metavar="NAME",
                      help=f"of {', '.join(SITUATIONS)}")  # fmt: skip
    what.add_argument("--shapes", nargs="+", type=parse_shape, metavar="T,B,I,H", help="these shapes")
    what.add_argument(
        "--kinds",
        nargs="+",
        choices=(PLAIN, BIDIRECTIONAL, TWO_LAYERS),
        default=[PLAIN, BIDIRECTIONAL],
        help="the --shapes for each of them; default: %(default)s",
    )
    who = parser.add_argument_group("who takes part, beside fastrnn with its defaults")
    who.add_argument("--threads", nargs="*", type=int, help="fixed numbers of threads; default: 1 and the cores")
    who.add_argument("--peers", nargs="*", choices=PEERS, help="default: PyTorch and ONNX Runtime where installed")
    who.add_argument("--baseline", metavar="FOLDER", help="also another build of fastrnn, in FOLDER")
    how = parser.add_argument_group("how")
    pace = interleaved.Pace(rounds=5, turn=0.2, budget=9.0)
    how.add_argument("--rounds", type=int, default=pace.rounds, help="at most; default %(default)s")
    how.add_argument("--turn", type=float, default=pace.turn, help="seconds; default %(default)s")
    how.add_argument("--pause", type=float, default=pace.pause, help="seconds; default %(default)s")
    how.add_argument("--budget", type=float, default=pace.budget, help="seconds of a shape; default %(default)s")
    then = parser.add_argument_group("what is done with it")
    then.add_argument(
        "--output",
        metavar="PREFIX",
        default="build/company",
        help="of the .json and .md files; default %(default)s",
    )
    arguments = parser.parse_args()

    cores = default_threads()
    if arguments.threads is None:
        arguments.threads = sorted({1, cores})
    if arguments.peers is None:
        arguments.peers = [name for name in ("torch", "onnxruntime") if is_installed(PEERS[name])]
    for name in arguments.peers:
        if not is_installed(LIBRARIES[name]):
            parser.error(f"{name} needs {' and '.join(LIBRARIES[name].modules)}: pip install '.[peers]'")
    if arguments.baseline is not None and not Path(arguments.baseline, "fastrnn").is_dir():
        parser.error(f"--baseline {arguments.baseline}: there is no fastrnn in it")
    if min(arguments.threads, default=1) < 1 or arguments.rounds < 1:
        parser.error("--threads and --rounds: at least 1")
    arguments.cores = cores
    return arguments


def measure_situation(name, cells, arguments, run):
    """Adds the results of all cells of a situation, in new processes."""
    situation = SITUATIONS[name]
    pace = interleaved.Pace(arguments.rounds, arguments.turn, arguments.pause, arguments.budget)
    settings = settings_of(arguments)
    with environment(situation.environment), ThreadPoolExecutor(len(settings)) as executor:
        entrants = list(
            executor.map(lambda setting: Entrant(setting, situation, arguments.cores, arguments.baseline), settings)
        )
    run["versions"] |= {entrant.name: entrant.version for entrant in entrants if entrant.name in (FASTRNN, *PEERS)}
    for cell in cells:
        taking_part = [e for e in entrants if e.takes_part(cell.mode, "float32", cell.kind)]
        result = {**cell._asdict(), "shape": list(cell.shape)}
        result["settings"] = measure(taking_part, cell, situation, pace)
        run["results"].append(result)
        say(company_report.line(result))
    for entrant in entrants:
        entrant.stop()


def main():
    arguments = parse_arguments()
    run = {
        "machine": f"{processor()}, {os.cpu_count()} processors, {platform.system()}",
        "versions": {"Python": platform.python_version(), "NumPy": np.__version__},
        "cores": arguments.cores,
        "arguments": vars(arguments),
        "results": [],
    }
    try:
        for name in arguments.situations:
            if SITUATIONS[name].missing is not None:
                say(f"without {name}, which needs {SITUATIONS[name].missing}")
                continue
            measure_situation(name, select([name], arguments.full, arguments.shapes, arguments.kinds), arguments, run)
    finally:
        # Results measured before an interruption are kept.
        prefix = Path(arguments.output)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        written = [prefix.with_name(prefix.name + end) for end in (".json", ".md")]
        written[0].write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        written[1].write_text(company_report.markdown(run), encoding="utf-8")
        say(f"written: {', '.join(map(str, written))}")
    print(company_report.markdown(run), end="")


if __name__ == "__main__":
    main()
