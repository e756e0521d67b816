"""Makes Markdown of a run in company, as company.py has written it.

    python benchmarks/company_report.py build/company.json            # the whole table
    python benchmarks/company_report.py build/company.json --short    # the table of the README

fastrnn's default is compared with the best fixed number of threads in the same situation, the number with the most
calls per second. The ratio is the default's time divided by the best fixed number's: below 1 the default is faster.
Time is the median of a call; for concurrent callers it is the inverse of their total call rate. The 99th percentiles
are over all calls of all rounds. As in report.py, a ratio to another library is its time divided by fastrnn's; here
both are the inverse of the call rate, so a tail counts. Ratios are taken within a round.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from libraries import BASELINE, FASTRNN, PEERS
from report import Ratio, below_one, duration, short, table
from shapes import Shape, label
from situations import SITUATIONS

MEDIAN_GOAL, P99_GOAL = 1.15, 1.3
TICK = 0.004  # seconds, the scheduler's: by no more is the 99th percentile to exceed the best one's

TITLES = {BASELINE: "baseline", "torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}

# The rows of the README: the first shape of each of these situations.
SHORT = {
    "alone": "alone, in a tight loop",
    "product-small": "after a small NumPy product",
    "product-sleep": "after a NumPy product and 20 ms of sleep",
    "threads-2": "two Python threads, one layer",
    "processes-2": "two processes",
    "busy": "beside one busy process",
    "one-processor": "affinity cut to one processor",
    "spawned": "two servers, random requests",
}


def fixed_name(threads):
    """The name of the setting with this number of threads."""
    return f"{FASTRNN}, {threads} {'thread' if threads == 1 else 'threads'}"


class Row:
    """A situation at a shape, with the comparisons that follow from its times."""

    def __init__(self, result):
        self.name, self.situation = result["situation"], SITUATIONS[result["situation"]]
        self.settings = result["settings"]
        self.label = label(result["kind"], Shape(*result["shape"]))
        if result["mode"] == "train":
            self.label = f"training {self.label}"
        ours = self.ours = self.settings[FASTRNN]
        fixed = {name: numbers for name, numbers in self.settings.items() if name.startswith(f"{FASTRNN}, ")}
        self.best = max(fixed, key=lambda name: np.median(fixed[name]["rates"]), default=None)
        self.of_best = self.p99_of_best = self.of_work = None
        if self.best is not None:
            best = fixed[self.best]
            self.of_best = Ratio.of(ours["costs"], best["costs"])
            self.p99_of_best = ours["p99"] / best["p99"]
            self.p99_beyond = ours["p99"] - best["p99"]  # seconds
            if self.situation.before:
                # The first one has the fewest threads that could disturb.
                self.of_work = Ratio.of(ours["before"], next(iter(fixed.values()))["before"])
        self.ratios = {}
        for name, theirs in self.settings.items():
            if name in PEERS:
                self.ratios[name] = Ratio.of(ours["rates"], theirs["rates"])
            elif name == BASELINE:
                self.ratios[name] = Ratio.of(theirs["costs"], ours["costs"])

    @property
    def missed(self):
        """The goals that the default misses."""
        missed = ["median"] if self.of_best.median > MEDIAN_GOAL else []
        return missed + (["p99"] if self.p99_beyond > TICK else [])

    @property
    def verdict(self):
        if self.missed:
            return f"**no: {', '.join(self.missed)}**"
        return "yes" if self.p99_of_best <= P99_GOAL else "p99 within a tick"

    def time(self, name=FASTRNN):
        """The median of a call; of concurrent calls also how many all callers make in a second."""
        median = duration(self.settings[name]["quartiles"][1])
        if not self.situation.concurrent:
            return median
        return f"{median}, {np.median(self.settings[name]['rates']):,.0f}/s"


def rows_of(run):
    return [Row(result) for result in run["results"]]


def line(result):
    """A result in one line, while others are still measured."""
    row = Row(result)
    of_best = f" {short(row.of_best.median)} (p99 {short(row.p99_of_best)}) of {row.best};" if row.best else ""
    times = [f"{name} {row.time(name)} (p99 {duration(row.settings[name]['p99'])})" for name in row.settings]
    return f"{row.name}  {row.label}:{of_best} {'; '.join(times)}"


def results_table(rows):
    others = list(dict.fromkeys(name for row in rows for name in row.ratios))
    with_best = any(row.best for row in rows)
    with_work = any(row.of_work for row in rows)
    head = ["T, B, I, H", "median", "quartiles", "p99", "calls"]
    head += ["best fixed", "its median", "its p99", "time / best", "p99 / best", "goal"] if with_best else []
    head += [TITLES[name] for name in others] + (["work before"] if with_work else [])
    lines, name = [], None
    for row in rows:
        if row.name != name:
            lines.append([f"*{row.situation.title}*"] + [""] * (len(head) - 1))
        name = row.name
        low, _, high = row.ours["quartiles"]
        cells = [row.label, row.time(), f"{duration(low)}–{duration(high)}", duration(row.ours["p99"])]
        cells.append(str(row.ours["calls"]))
        if row.best:
            best_p99 = duration(row.settings[row.best]["p99"])
            cells += [row.best.removeprefix(f"{FASTRNN}, "), row.time(row.best), best_p99]
            cells += [str(row.of_best), short(row.p99_of_best), row.verdict]
        elif with_best:
            cells += [""] * 6
        cells += [str(row.ratios[other]) if other in row.ratios else "" for other in others]
        if with_work:
            cells.append(short(row.of_work.median) if row.of_work else "")
        lines.append(cells)
    return table(head, lines)


def missed_lines(rows):
    """A line for each row that misses a goal."""
    rows = [row for row in rows if row.best]
    missed = [
        f"- {row.name}, {row.label}: time {row.of_best}, p99 {short(row.p99_of_best)} of {row.best}"
        for row in rows
        if row.missed
    ]
    if not rows:
        return []
    if not missed:
        return [f"No goal missed in {len(rows)} rows."]
    return [f"A goal missed in {len(missed)} of {len(rows)} rows:", "", *missed]


def short_markdown(run):
    """The table of the README: one row of each situation of SHORT that was measured."""
    rows = {}
    for row in rows_of(run):
        rows.setdefault(row.name, row)
    rows = [rows[name] for name in SHORT if name in rows]
    others = [name for name in PEERS if any(name in row.ratios for row in rows)]
    head = ["situation", "T, B, I, H", FASTRNN, "p99", "time / best fixed", "p99 / best fixed"]
    lines = [
        [
            SHORT[row.name],
            row.label,
            row.time(),
            duration(row.ours["p99"]),
            short(row.of_best.median) if row.best else "",
            short(row.p99_of_best) if row.best else "",
            *(short(row.ratios[name].median) if name in row.ratios else "" for name in others),
        ]
        for row in rows
    ]
    return "\n".join(table([*head, *(TITLES[name] for name in others)], lines)) + "\n"


def markdown(run):
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rows = rows_of(run)
    lines = [
        f"{run['machine']}; {versions}; {run['cores']} cores. Every library runs with its defaults, in float32. `best "
        f"fixed` is the number of threads, set in advance, with the most calls a second. `time / best` is the time of "
        f"the default divided by that one's, `p99 / best` so for the 99th percentiles of all calls, of which there "
        f"are few where `calls` is small. Goals: at most {MEDIAN_GOAL} and {P99_GOAL}, and a p99 that exceeds the best "
        f"one's by {1000 * TICK:.0f} ms at most. A ratio to another library is the calls a second of fastrnn divided "
        f"by its own: above 1, fastrnn is faster. `work before` is the time of the work before each call, divided by "
        f"that beside fastrnn with the first of the fixed numbers.",
        "",
        *results_table(rows),
        "",
        *missed_lines(rows),
        "",
        *below_one((f"{row.name}, {row.label}", name, ratio) for row in rows for name, ratio in row.ratios.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN.json", type=Path)
    parser.add_argument("--short", action="store_true", help="the table of the README alone")
    arguments = parser.parse_args()
    run = json.loads(arguments.run.read_text(encoding="utf-8"))
    print(short_markdown(run) if arguments.short else markdown(run), end="")


if __name__ == "__main__":
    main()
