"""Makes Markdown of a run in company, as company.py has written it.

    python benchmarks/company_report.py build/company.json            # everything
    python benchmarks/company_report.py build/company.json --short    # the table of the README

The time of fastrnn with its defaults is divided by that of the best fixed number of threads in the same situation, so
1 is as good as a choice made in advance and less is better. Of the other libraries it is, as in report.py, their time
divided by fastrnn's: above 1, fastrnn is faster. Ratios are taken within a round. The time is that of a call; where
calls run at the same time, it is the time over the number of calls that all callers make.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from libraries import BASELINE, FASTRNN, PEERS
from report import Ratio, duration, short, table
from shapes import PLAIN, label
from situations import SITUATIONS

MEDIAN_GOAL, P99_GOAL = 1.15, 1.3
TICK = 0.004  # seconds: the scheduler's


def fixed_name(threads):
    return f"{FASTRNN}, {threads} {'thread' if threads == 1 else 'threads'}"


class Row:
    """A situation at a shape, with what follows from its times."""

    def __init__(self, result):
        self.situation, self.mode, self.kind = result["situation"], result["mode"], result["kind"]
        self.shape, self.settings = tuple(result["shape"]), result["settings"]
        self.ours = self.settings[FASTRNN]
        fixed = [name for name in self.settings if name.startswith(f"{FASTRNN}, ")]
        self.best = min(fixed, key=lambda name: np.median(self.settings[name]["costs"]), default=None)
        self.of_best = self.p99_of_best = None
        if self.best is not None:
            best = self.settings[self.best]
            self.of_best = Ratio.of(self.ours["costs"], best["costs"])
            self.p99_of_best = self.ours["p99"] / best["p99"]
        self.ratios = {
            name: Ratio.of(numbers["costs"], self.ours["costs"])
            for name, numbers in self.settings.items()
            if name in (BASELINE, *PEERS)
        }

    @property
    def label(self):
        return ("training " if self.mode == "train" else "") + label(self.kind, ", ".join(map(str, self.shape)))

    @property
    def p99_beyond(self):
        """Seconds between the 99th percentiles."""
        return self.ours["p99"] - self.settings[self.best]["p99"]

    @property
    def verdict(self):
        """Whether the goals are met, in words."""
        missed = ["median"] if self.of_best.median > MEDIAN_GOAL else []
        missed += ["p99"] if self.p99_beyond > TICK else []
        if missed:
            return f"**no: {', '.join(missed)}**"
        return "yes" if self.p99_of_best <= P99_GOAL else "p99 within a tick"

    @property
    def of_work_before(self):
        """The time of the work before our calls, divided by that beside the fixed number of threads; None without."""
        ours, best = self.ours["before"], self.settings[self.best]["before"] if self.best else ()
        return Ratio.of(ours, best) if SITUATIONS[self.situation].before and best else None

    def time(self, name):
        """Seconds of a call, the median over the rounds."""
        return float(np.median(self.settings[name]["costs"]))


def rows_of(run):
    return [Row(result) for result in run["results"]]


def line(result):
    """A result in a line of text."""
    row = Row(result)
    parts = [f"{name} {duration(row.time(name))} (p99 {duration(row.settings[name]['p99'])})" for name in row.settings]
    verdict = f": {short(row.of_best.median)} of the best fixed" if row.best else ""
    return f"{row.situation}  {row.label}{verdict}; {'; '.join(parts)}"


def results_table(rows):
    others = list(dict.fromkeys(name for row in rows for name in row.ratios))
    with_best = any(row.best for row in rows)
    with_work = any(row.of_work_before for row in rows)
    head = ["T, B, I, H", "median", "quartiles", "p99", "calls"]
    head += ["best fixed", "its median", "its p99", "median / best", "p99 / best", "goal"] if with_best else []
    head += others + (["work before"] if with_work else [])
    lines, situation = [], None
    for row in rows:
        if row.situation != situation:
            lines.append([f"*{SITUATIONS[row.situation].title}*"] + [""] * (len(head) - 1))
        situation = row.situation
        low, _, high = row.ours["quartiles"]
        cells = [row.label, duration(row.time(FASTRNN)), f"{duration(low)}–{duration(high)}"]
        cells += [duration(row.ours["p99"]), str(row.ours["calls"])]
        if with_best:
            cells += [
                row.best.removeprefix(f"{FASTRNN}, "), duration(row.time(row.best)),
                duration(row.settings[row.best]["p99"]), str(row.of_best), short(row.p99_of_best), row.verdict,
            ] if row.best else [""] * 6  # fmt: skip
        cells += [str(row.ratios[name]) if name in row.ratios else "" for name in others]
        if with_work:
            cells.append(short(row.of_work_before.median) if row.of_work_before else "")
        lines.append(cells)
    return table(head, lines)


def losses(rows):
    """The cells that miss a goal, in a line each."""
    missed = [
        f"- {row.situation}, {row.label}: median {row.of_best}, p99 {short(row.p99_of_best)} of the best fixed number"
        for row in rows
        if row.best and row.verdict.startswith("**no")
    ]
    slower = [
        f"- {row.situation}, {row.label}: {name} {ratio}" + (", within the spread" if ratio.high >= 1 else "")
        for row in rows
        for name, ratio in row.ratios.items()
        if name in PEERS and ratio.median < 1
    ]
    lines = []
    with_best, compared = (
        sum(row.best is not None for row in rows),
        sum(name in PEERS for row in rows for name in row.ratios),
    )
    if with_best:
        lines += ["", f"Goals missed in {len(missed)} of {with_best}{':' if missed else '.'}", "", *missed]
    if compared:
        lines += ["", f"Below another library in {len(slower)} of {compared}{':' if slower else '.'}", "", *slower]
    return lines


def markdown(run):
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rows = rows_of(run)
    lines = [
        f"{run['machine']}; {versions}; {run['cores']} cores for fastrnn. float32, every library with its defaults. "
        f"`best fixed` is the number of threads, set in advance, with the least median; `median / best` and `p99 / best` "
        f"are the times of the default divided by its (goals: {MEDIAN_GOAL} and {P99_GOAL}, p99 never more than "
        f"{1000 * TICK:.0f} ms beyond). Of another library it is its time divided by fastrnn's. `work before` is the "
        f"time of the product or fit before each call, divided by that beside the best fixed number."
    ]
    if rows:
        lines += ["", *results_table(rows), *losses(rows)]
    return "\n".join(lines).rstrip() + "\n"
