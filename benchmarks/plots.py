"""Draws the ratios of a run: the JSON file that suite.py has written, or a page with the tables that report.py made.

    python benchmarks/plots.py build/benchmarks.json                 # PNG files beside it
    python benchmarks/plots.py docs/performance.md docs/speed        # docs/speed.png, ...

PREFIX.png          the ratio of each library at each shape, float32; the smallest first
PREFIX-float64.png  the same in float64
PREFIX-summary.png  the ratios of each library on one line
PREFIX-scaling.png  the speed of fastrnn along T, B and H, and with more threads; of a JSON file with these figures
"""

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

import limits
from libraries import BASELINE, PEERS, REFERENCE, UNFROZEN
from report import TITLES, Ratio, curves, geometric_mean, rows_of, short
from shapes import PLAIN, Shape, label

# Okabe and Ito's colours, distinguishable with every kind of colour vision; markers repeat the distinction.
STYLES = {
    UNFROZEN: ("#E69F00", "o", "fastrnn, packing in every call"),
    BASELINE: ("#000000", "o", "baseline"),
    "torch": ("#0072B2", "s", "PyTorch"),
    "onnxruntime": ("#009E73", "^", "ONNX Runtime"),
    "openvino": ("#CC79A7", "D", "OpenVINO"),
    REFERENCE: ("#999999", "v", "NumPy reference"),
}
LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))
GREY = "#777777"
MODE_TITLES = {"forward": "Forward", "train": "Training", "step": "One step"}
LOSS = "#B3261E"
LOSS_AREA = "#FBE9E7"
TICKS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)

STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}


class Line(NamedTuple):
    """The ratios of one shape and mode: each library's time divided by that of fastrnn."""

    mode: str
    dtype: str
    kind: str  # as in the tables; empty for a plain LSTM
    shape: str
    ratios: dict[str, Ratio]

    @property
    def smallest(self):
        return min(ratio.median for ratio in self.ratios.values())

    @property
    def label(self):
        of_kind = self.kind or "LSTM"
        return f"{of_kind}, one step  {self.shape}" if self.mode == "step" else f"{of_kind}  {self.shape}"


def lines_of(run):
    """The lines of a run; those without another library have nothing to show."""
    return [
        Line(row.mode, row.dtype, row.title if row.kind != PLAIN else "", str(row.shape), row.ratios)
        for row in rows_of(run)
        if row.ratios
    ]


def lines_of_page(text):
    """The lines of the tables in a page of Markdown, as report.py writes them."""
    modes, lines = {title: mode for mode, title in TITLES.items()}, []
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        heading = re.match(r"(.*), (float\d\d)(: other kinds of layers)?\n", section)
        rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
        if not heading or heading[1] not in modes or not rows:
            continue
        head, kind = rows[0].split(" | "), ""
        for row in rows[1:]:
            cells = row.split(" | ")
            if re.fullmatch(r"\*[^*]+\*", cells[0].strip()) and heading[3]:
                kind = cells[0].strip().strip("*")
            elif re.fullmatch(r"\d+(, \d+){3}", cells[0]):
                ratios = {}
                for name, cell in zip(head, cells, strict=True):
                    found = re.fullmatch(r"\*\*([\d.]+)\*\* \(([\d.]+)–([\d.]+)\)", cell)
                    if name in STYLES and found:
                        median, low, high = map(float, found.groups())
                        ratios[name] = Ratio(low, median, high)
                lines.append(Line(modes[heading[1]], heading[2], kind, cells[0], ratios))
    return lines


def draw(lines, prefix, scaling_run=None):
    """Writes the figures; returns the paths written."""
    prefix, written = Path(prefix), []
    with plt.rc_context(STYLE):
        pictures = []
        for dtype in dict.fromkeys(line.dtype for line in lines):
            end = "" if dtype == "float32" else f"-{dtype}"
            pictures.append((end, ratios([line for line in lines if line.dtype == dtype], dtype)))
        single = [line for line in lines if line.dtype == "float32"]
        if any(name in PEERS for line in single for name in line.ratios):
            pictures.append(("-summary", summary(single)))
        if scaling_run:
            pictures.append(("-scaling", scaling(scaling_run)))
        for end, figure in pictures:
            written.append(prefix.with_name(f"{prefix.name}{end}.png"))
            figure.savefig(written[-1], bbox_inches="tight")
            plt.close(figure)
    return written


# ---------------------------------------------------------------------------------------------------


def ratios(lines, dtype):
    """A panel for inference and one for training, a row for each shape, the smallest ratio first."""
    parts = {
        "Inference": [line for line in lines if line.mode != "train"],
        "Training": [line for line in lines if line.mode == "train"],
    }
    parts = {title: sorted(part, key=lambda line: line.smallest) for title, part in parts.items() if part}
    figure, panels = plt.subplots(
        1,
        len(parts),
        figsize=(5.6 * len(parts), 1.3 + 0.2 * max(map(len, parts.values()))),
        squeeze=False,
        layout="constrained",
    )
    for panel, (title, part) in zip(panels[0], parts.items(), strict=True):
        as_ratios(panel, [ratio for line in part for ratio in line.ratios.values()])
        for y, line in enumerate(part):
            draw_line(panel, line, y)
        panel.set_ylim(max(map(len, parts.values())) - 0.4, -0.6)
        panel.set_yticks(range(len(part)), [line.label for line in part], fontsize=8)
        panel.set_title(f"{title}, {dtype}")
    legend(figure, lines)
    figure.supxlabel("time of the library / time of fastrnn; the number is the smallest ratio of the row", fontsize=9)
    return figure


def summary(lines):
    """A line for each library and mode, a mark for each shape, with the geometric mean and the smallest."""
    rows = {}
    for line in lines:
        for name, ratio in line.ratios.items():
            if name in PEERS:
                title = f"{STYLES[name][2]}, {'training' if line.mode == 'train' else 'inference'}"
                rows.setdefault(title, (name, []))[1].append(ratio)
    figure, panel = plt.subplots(figsize=(6.4, 0.55 * len(rows) + 1.4), layout="constrained")
    as_ratios(panel, [ratio for _, row in rows.values() for ratio in row])
    for y, (name, row) in enumerate(rows.values()):
        medians = [ratio.median for ratio in row]
        mean, smallest = geometric_mean(medians), min(medians)
        colour, marker, _ = STYLES[name]
        panel.plot(medians, [y] * len(row), marker, color=colour, alpha=0.5, markersize=5, markeredgewidth=0)
        panel.plot([mean, mean], [y - 0.28, y + 0.28], color=colour, linewidth=2.5)
        panel.annotate(f"{short(mean)}", (mean, y - 0.3), ha="center", va="bottom", fontsize=8, color=colour)
        number_at_the_left(panel, y, smallest)
    panel.set_ylim(len(rows) - 0.4, -0.7)
    panel.set_yticks(range(len(rows)), rows, fontsize=9)
    panel.set_xlabel(
        "time of the library / time of fastrnn, a mark for each shape\n"
        "line: geometric mean; number at the left: the smallest ratio", fontsize=9,
    )  # fmt: skip
    return figure


def as_ratios(panel, shown):
    """A logarithmic axis of ratios with a red area where the other library is faster."""
    low = min(0.65, 0.7 * min(ratio.median for ratio in shown))
    high = max(2.0, 1.15 * max(ratio.median for ratio in shown))
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.axvspan(low, 1, color=LOSS_AREA, zorder=0, linewidth=0)
    panel.axvline(1, color=LOSS, linewidth=1, zorder=1)
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_minor_locator(FixedLocator([]))
    panel.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)


def draw_line(panel, line, y):
    smallest, largest = line.smallest, max(ratio.median for ratio in line.ratios.values())
    panel.plot([min(1, smallest), largest], [y, y], color="#CCCCCC", linewidth=1, zorder=1)
    for name, ratio in sorted(line.ratios.items(), key=lambda item: -item[1].median):  # the smallest on top
        colour, marker, _ = STYLES[name]
        panel.plot(
            ratio.median, y, marker, color=colour, markersize=5.5, zorder=3,
            markeredgecolor="white", markeredgewidth=0.5, clip_on=False,
        )  # fmt: skip
    number_at_the_left(panel, y, smallest)


def number_at_the_left(panel, y, smallest):
    """The smallest ratio of row y, at the left end of the axis."""
    colour, weight = (LOSS, "bold") if smallest < 1 else ("#333333", "normal")
    panel.annotate(
        short(smallest), (0, y), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        fontsize=7.5, color=colour, fontweight=weight,
    )  # fmt: skip


def legend(figure, lines):
    taking_part = {name for line in lines for name in line.ratios}
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=title)
        for name, (colour, marker, title) in STYLES.items()
        if name in taking_part
    ]
    handles.append(plt.Rectangle((0, 0), 1, 1, color=LOSS_AREA, label="faster than fastrnn"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), columnspacing=1.5, fontsize=9)


# ---------------------------------------------------------------------------------------------------


AXIS_TITLES = {"T": "steps T", "B": "sequences B", "H": "hidden units H", "threads": "threads"}


def scaling(run):
    """Small multiples: a row for each mode, a column for each axis."""
    points = run["scaling"]["points"]
    axes = [axis for axis in AXIS_TITLES if any(point["axis"] == axis for point in points)]
    modes = list(dict.fromkeys(point["mode"] for point in points))
    figure, panels = plt.subplots(
        len(modes),
        len(axes),
        figsize=(3.1 * len(axes), 2.5 * len(modes) + 1.8),
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    measured = limits.of_run(run)
    for mode, in_row in zip(modes, panels, strict=True):
        for axis, panel in zip(axes, in_row, strict=True):
            chosen = [point for point in points if (point["mode"], point["axis"]) == (mode, axis)]
            if axis == "threads":
                against_one_thread(panel, chosen)
            else:
                along(panel, axis, chosen)
                if measured:
                    peak = measured[0]["peak"]["float32"] / 1e9
                    panel.axhline(peak, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
                    panel.annotate(
                        "peak", (1, peak), xycoords=("axes fraction", "data"),
                        ha="right", va="bottom", color=GREY, fontsize=8,
                    )  # fmt: skip
                    panel.set_ylim(top=1.12 * peak)
                panel.set_ylim(bottom=0)
            panel.set_title(f"{MODE_TITLES[mode]}, by {AXIS_TITLES[axis]}")
            if axis in (axes[0], "threads"):
                panel.set_ylabel("speed against one thread" if axis == "threads" else "GFLOP/s")
    for axis, panel in zip(axes, panels[-1], strict=True):  # the curves of a column are of the same shapes
        panel.set_xlabel(AXIS_TITLES[axis])
        panel.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.24), borderaxespad=0, fontsize=8, labelspacing=0.3,
            title="T, B, I, H" if axis == "threads" else None, title_fontsize=8, alignment="left",
        )  # fmt: skip
    return figure


def along(panel, axis, points):
    for (where, curve), (colour, line) in zip(curves(points, axis).items(), LINES, strict=False):
        rates = [rate / 1e9 for rate in curve.values()]
        panel.plot(list(curve), rates, line, color=colour, marker="o", markersize=3, label=where)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def against_one_thread(panel, points):
    seconds = {}
    for point in points:
        of_shape = seconds.setdefault(label(point.get("kind", PLAIN), Shape(*point["shape"])), {})
        of_shape[point["threads"]] = np.median(point["seconds"])
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(seconds)))
    most = max(point["threads"] for point in points)
    panel.plot([1, most], [1, most], color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="linear")
    for (where, times), colour in zip(seconds.items(), colours, strict=True):
        speedups = [times[1] / times[n] for n in times]
        panel.plot(list(times), speedups, color=colour, marker="o", markersize=3, label=where)
    panel.set_xticks(sorted({point["threads"] for point in points}))
    panel.set_ylim(bottom=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a JSON file of suite.py, or a page with its tables")
    parser.add_argument("prefix", type=Path, nargs="?", help="of the files written; default: the name of RUN")
    arguments = parser.parse_args()
    text, prefix = arguments.run.read_text(encoding="utf-8"), arguments.prefix or arguments.run.with_suffix("")
    if arguments.run.suffix == ".json":
        run = json.loads(text)
        written = draw(lines_of(run), prefix, run if run.get("scaling") else None)
    else:
        written = draw(lines_of_page(text), prefix)
    for picture in written:
        print(picture)


if __name__ == "__main__":
    main()
