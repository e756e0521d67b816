"""Makes Markdown of a run, as suite.py has written it.

    python benchmarks/report.py build/benchmarks.json

The ratio to another library is its time divided by fastrnn's, taken within each round: above 1, fastrnn is
faster. The tables show the median over the rounds and the quartiles. `cold` is the time of a call after 20 ms of sleep,
and `cold, NAME` the ratio to such a call of another library. Below each table are the geometric means and every shape
with a ratio below 1, because a mean hides losses. Kinds other than the plain LSTM have separate tables, so that a mean
covers one kind.
"""

import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import limits
from libraries import FASTRNN, PADDED, PEERS
from shapes import KINDS, PLAIN, TABLES, Shape, flops, label, share_of_steps

TITLES = {"forward": "Forward", "train": "Training (forward, backward, all gradients)", "step": "One step"}
OTHER_KINDS = "other kinds of layers"


class Ratio(NamedTuple):
    """Median and quartiles over the rounds of a library's time divided by fastrnn's."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, theirs, ours):
        return cls(*(float(q) for q in np.quantile(np.divide(theirs, ours), [0.25, 0.5, 0.75])))

    def __str__(self):
        return f"**{short(self.median)}** ({short(self.low)}–{short(self.high)})"


def short(number):
    """Three digits at most, two places at most."""
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def duration(seconds):
    """Three digits and a unit."""
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * unit or name == "µs":
            digits = 2 if seconds < 9.995 * unit else 1 if seconds < 99.95 * unit else 0
            return f"{seconds / unit:.{digits}f} {name}"


def percent(fraction):
    return f"{100 * fraction:.0f}%" if fraction >= 0.0995 else f"{100 * fraction:.1f}%"


def geometric_mean(values):
    return math.exp(math.fsum(map(math.log, values)) / len(values))


class Row:
    """One cell of a run (a mode, a dtype, a kind, a shape) with figures derived from its times."""

    def __init__(self, result, run):
        self.mode, self.dtype, self.table = result["mode"], result["dtype"], result["table"]
        self.kind = result.get("kind", PLAIN)  # older files have no other
        self.shape = Shape(*result["shape"])
        self.rounds = {name: seconds for name, seconds in result["seconds"].items() if name != PADDED}
        self.medians = {name: float(np.median(seconds)) for name, seconds in self.rounds.items()}
        self.seconds = self.medians[FASTRNN]
        self.ratios = {
            name: Ratio.of(seconds, self.rounds[FASTRNN]) for name, seconds in self.rounds.items() if name != FASTRNN
        }
        cold = {name: times for name, times in result.get("cold", {}).items() if name != PADDED}
        self.cold = float(np.median(cold[FASTRNN])) if cold else None  # older files have none
        self.cold_ratios = {name: Ratio.of(cold[name], cold[FASTRNN]) for name in cold if name != FASTRNN}
        self.of_padded = None
        if PADDED in result["seconds"]:
            self.padded = np.array(result["seconds"][PADDED])
            self.steps = share_of_steps(self.kind, self.shape)
            self.of_padded = Ratio.of(self.rounds[FASTRNN], self.steps * self.padded)
        self.rate = flops(self.mode, self.shape, self.kind) / self.seconds
        measured = limits.of_run(run)
        self.of_peak = self.floor = None
        if measured:
            self.of_peak = self.rate / measured[0]["peak"][self.dtype]
            self.floor = limits.floor(*measured, self.mode, self.dtype, self.shape, self.kind)

    @property
    def key(self):
        return self.mode, self.dtype, self.kind, self.shape

    @property
    def label(self):
        return label(self.kind, self.shape)

    @property
    def title(self):
        """The heading of the row's group: the kind, or the table of a plain LSTM; None without one."""
        if self.kind != PLAIN:
            return KINDS[self.kind].title
        return TABLES[self.table].title if self.table is not None else None

    def of_floor(self, name=FASTRNN):
        """The floor as a fraction of a library's time: 1 is the machine's limit."""
        return None if self.floor is None else self.floor / self.medians[name]

    @property
    def best_peer(self):
        """(name, ratio) of the fastest of the other projects' libraries; None without any."""
        peers = [(ratio.median, name) for name, ratio in self.ratios.items() if name in PEERS]
        return (min(peers)[1], self.ratios[min(peers)[1]]) if peers else None


def rows_of(run):
    return [Row(result, run) for result in run["results"]]


def grouped(rows):
    """{heading: its rows}, in the order of the run: a mode, a dtype, and the plain LSTM apart from the other kinds."""
    groups = {}
    for row in rows:
        heading = [f"{TITLES[row.mode]}, {row.dtype}"] + ([OTHER_KINDS] if row.kind != PLAIN else [])
        groups.setdefault(": ".join(heading), []).append(row)
    return groups


def table(head, lines):
    return [
        f"| {' | '.join(head)} |",
        f"|---|{'--:|' * (len(head) - 1)}",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]


def results_table(rows):
    """The lines of the table of one group, with the geometric means and the losses below it."""
    others = list(dict.fromkeys(name for row in rows for name in row.ratios))
    with_best = sum(name in PEERS for name in others) > 1
    with_limits = rows[0].of_peak is not None
    head = ["T, B, I, H", FASTRNN, "GFLOP/s"]
    head += ["of peak", "of floor"] if with_limits else []
    head += others + (["best peer"] if with_best else [])
    with_cold = any(row.cold is not None for row in rows)
    cold_others = [name for name in others if any(name in row.cold_ratios for row in rows)]
    head += ["cold", *(f"cold, {name}" for name in cold_others)] if with_cold else []

    lines, title = [], None
    for row in rows:
        if row.title != title and row.title is not None:
            lines.append([f"*{row.title}*"] + [""] * (len(head) - 1))
        title = row.title
        cells = [str(row.shape), duration(row.seconds), f"{row.rate / 1e9:.3g}"]
        if with_limits:
            cells += [percent(row.of_peak), percent(row.of_floor())]
        cells += [str(row.ratios[name]) if name in row.ratios else "" for name in others]
        if with_best:
            cells.append(f"{row.best_peer[0]} {short(row.best_peer[1].median)}" if row.best_peer else "")
        if with_cold:
            cells.append(duration(row.cold) if row.cold is not None else "")
            cells += [str(row.cold_ratios[name]) if name in row.cold_ratios else "" for name in cold_others]
        lines.append(cells)

    summary = []
    columns = {name: [(r.ratios[name].median, r) for r in rows if name in r.ratios] for name in others}
    if with_best:
        columns["best peer"] = [(r.best_peer[1].median, r) for r in rows if r.best_peer]
    for title, value in (("geometric mean", geometric_mean), ("minimum", min)):
        if not others and not with_limits:
            break
        cells = [f"**{title}**", "", ""]
        if with_limits:
            cells += [percent(value([r.of_peak for r in rows])), percent(value([r.of_floor() for r in rows]))]
        cells += [f"**{short(value([ratio for ratio, _ in column]))}**" for column in columns.values()]
        if with_cold:
            cells.append("")
            for name in cold_others:
                medians = [row.cold_ratios[name].median for row in rows if name in row.cold_ratios]
                cells.append(f"**{short(value(medians))}**")
        summary.append(cells)
    return table(head, lines + summary)


def losses(rows):
    """A line for each peer and shape that is faster than fastrnn, in tight loops and cold."""
    lines = below_one((row.label, name, ratio) for row in rows for name, ratio in row.ratios.items())
    cold = below_one(((row.label, name, ratio) for row in rows for name, ratio in row.cold_ratios.items()), "cold, ")
    return lines + ([""] if cold else []) + cold


def below_one(ratios, what=""):
    """Lines that list the ratios below 1 among (label, library, Ratio), only of peers."""
    compared = [(label, name, ratio) for label, name, ratio in ratios if name in PEERS]
    lost = [
        f"- {what}{name}, {label}: {ratio}" + (", within the spread" if ratio.high >= 1 else "")
        for label, name, ratio in compared
        if ratio.median < 1
    ]
    if not compared:
        return []
    if not lost:
        return [f"{what.capitalize()}{'no' if what else 'No'} ratio of {len(compared)} is below 1."]
    return [f"{what.capitalize()}{'below' if what else 'Below'} 1, {len(lost)} of {len(compared)}:", "", *lost]


def ragged_lines(rows):
    """Lines that compare the ragged batches of these rows with the same batches padded; none without such rows."""
    ragged = [row for row in rows if row.of_padded]
    if not ragged:
        return []
    lines = [
        [
            f"{row.mode}, {row.dtype}; {row.label}", duration(row.seconds), duration(float(np.median(row.padded))),
            percent(row.steps), str(row.of_padded),
        ]
        for row in ragged
    ]  # fmt: skip
    return [
        "",
        "### Ragged against padded",
        "",
        "The same sequences with their lengths and as if all of them had T steps, in the same rounds. Set against the "
        "padded time in proportion to the steps, 1 is a time that goes by the steps alone.",
        "",
        *table(["mode; T, B, I, H", "ragged", "padded", "steps, of T B", "of the padded time by steps"], lines),
    ]


def head_lines(run):
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    threads = run["threads"]
    lines = [
        f"{run['machine']}; {versions}; {threads} {'thread' if threads == 1 else 'threads'} for each. "
        f"A ratio is the other library's time divided by fastrnn's: the median over the rounds, and the quartiles."
    ]
    measured = limits.of_run(run)
    if measured:
        numbers, _ = measured
        peaks = ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in numbers["peak"].items())
        levels = ", ".join(
            f"{size_name(size)} {rate / 1e9:.0f} GB/s"
            for size, rate in numbers["bandwidth"]
            if size in (1 << 14, 1 << 18, 1 << 22, 1 << 24, 1 << 28)
        )
        lines.append(
            f"Measured limits: {peaks}; reading, by the bytes that each thread goes over, {levels}. The floor is the "
            f"time of the operations at peak, or of reading the recurrent weights in every step, whichever is longer."
        )
    elif "limits" in run:
        lines.append("The limits of the machine were not measured, so nothing is said of peak and floor.")
    return lines


def size_name(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def curves(points, axis):
    """{label: {number along the axis: FLOP/s}}: shapes that differ only in that number form a curve."""
    found = {}
    for point in points:
        shape = Shape(*point["shape"])
        fixed = {"T": shape.T, "B": shape.B, "H": shape.H}
        number = fixed.pop(axis)
        label = ", ".join(f"{name} {value}" for name, value in fixed.items())
        rate = flops(point["mode"], shape) / float(np.median(point["seconds"]))
        found.setdefault(label, {})[number] = rate
    return found


def curve_table(axis, points):
    """The lines of a table with a row for each mode and curve along an axis."""
    rows = {
        f"{mode}, {label}": curve
        for mode in dict.fromkeys(point["mode"] for point in points)
        for label, curve in curves([p for p in points if p["mode"] == mode], axis).items()
    }
    numbers = sorted({number for curve in rows.values() for number in curve})
    return table(
        [f"GFLOP/s by {axis}", *map(str, numbers)],
        [
            [label, *(f"{curve[number] / 1e9:.3g}" if number in curve else "" for number in numbers)]
            for label, curve in rows.items()
        ],
    )


def scaling_lines(scaling):
    lines = ["", "### Scaling"]
    for axis in ("T", "B", "H"):
        along = [point for point in scaling["points"] if point["axis"] == axis]
        if along:
            lines += ["", *curve_table(axis, along)]
    lines += ["", "### What a call costs apart from its steps", ""]
    lines += table(
        ["training, B, H", "apart from its steps", "of a call with T B = 400", "line off by at most"],
        [
            [
                f"{fit['B']}, {fit['H']}",
                duration(max(fit["intercept"], 0)),
                percent(max(fit["share"], 0)),
                percent(fit["deviation"]),
            ]
            for fit in scaling["intercepts"]
        ],
    )
    threads = [point for point in scaling["points"] if point["axis"] == "threads"]
    if threads:
        counts = sorted({point["threads"] for point in threads})
        lines += ["", "### Threads", ""]
        seconds = {}
        for point in threads:
            where = label(point.get("kind", PLAIN), Shape(*point["shape"]))
            of_shape = seconds.setdefault((point["mode"], where), {})
            of_shape[point["threads"]] = point["seconds"]
        lines += table(
            ["mode; T, B, I, H", *(f"{n} against 1" for n in counts[1:])],
            [
                [f"{mode}; {where}", *(str(Ratio.of(times[1], times[n])) for n in counts[1:])]
                for (mode, where), times in seconds.items()
            ],
        )
    denormals = scaling["denormals"]
    layer, numpy = (Ratio.of(denormals[w]["denormal"], denormals[w]["normal"]) for w in ("layer", "numpy"))
    lines += ["", "### Denormals and memory", ""]
    lines.append(
        f"- A state of denormal numbers takes {layer} of the time of a normal one (T, B, I, H = "
        f"{Shape(*denormals['shape'])}); products of NumPy take {numpy} on this processor."
    )
    for what, entry in scaling["memory"].items():
        lines.append(
            f"- {what.capitalize()}, T, B, I, H = {Shape(*entry['shape'])}: the process grows by "
            f"{entry['growth'] / 2**20:.1f} MiB, {entry['growth'] / entry['expected']:.2f} of the "
            f"{entry['expected'] / 2**20:.1f} MiB of {entry['of']}."
        )
    return lines


def markdown(run):
    lines = head_lines(run)
    rows = rows_of(run)
    for heading, group in grouped(rows).items():
        lines += ["", f"### {heading}", "", *results_table(group), "", *losses(group)]
    lines += ragged_lines(rows)
    if run.get("scaling"):
        lines += scaling_lines(run["scaling"])
    return "\n".join(lines).rstrip() + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")


if __name__ == "__main__":
    main()
