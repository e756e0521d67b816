"""Draws a run, as suite.py has written it: PNG files beside it.

    python benchmarks/plots.py build/benchmarks.json

NAME.png          each shape's floor as a fraction of the time that each library took: how near the machine's limit
NAME-scaling.png  the speed of fastrnn along T, B and H, and with more threads
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

import limits
from libraries import BASELINE, FASTRNN, REFERENCE, UNFROZEN
from report import grouped, rows_of
from shapes import TABLES, Shape, flops

import numpy as np

# Okabe and Ito's colours, told apart with every kind of colour vision; markers say the same once more.
STYLES = {
    FASTRNN: ("#D55E00", "o", "fastrnn"),
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


def draw(run, prefix):
    """Writes what can be drawn of a run; the paths written."""
    prefix, written = Path(prefix), []
    with plt.rc_context(STYLE):
        pictures = []
        if run["results"] and limits.of_run(run):
            dtypes = dict.fromkeys(result["dtype"] for result in run["results"])
            for dtype in dtypes:
                end = "" if dtype == "float32" else f"-{dtype}"
                pictures.append((end, floors(run, dtype)))
        if run.get("scaling"):
            pictures.append(("-scaling", scaling(run)))
        for end, figure in pictures:
            written.append(prefix.with_name(f"{prefix.name}{end}.png"))
            figure.savefig(written[-1], bbox_inches="tight")
            plt.close(figure)
    return written


# ---------------------------------------------------------------------------------------------------


def floors(run, dtype):
    """Points on a line for each shape, a panel for each mode."""
    groups = {mode: rows for (mode, its_dtype), rows in grouped(rows_of(run)).items() if its_dtype == dtype}
    heights = [len(rows) + headings(rows) for rows in groups.values()]
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(8, 1.6 + 0.27 * sum(heights) + 0.6 * len(groups)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    names = {}
    for panel, (mode, rows) in zip(panels[:, 0], groups.items(), strict=True):
        floors_of_mode(panel, mode, rows)
        for row in rows:
            names |= dict.fromkeys(row.medians)
    panels[-1, 0].set_xlabel("fraction of what the machine allows: the floor of the time, divided by the time")
    figure.suptitle(
        f"How near the limit, {dtype}, {run['threads']} {'thread' if run['threads'] == 1 else 'threads'}",
        x=0.01,
        ha="left",
        fontsize=13,
    )
    handles = [
        plt.Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], linestyle="", label=STYLES[name][2])
        for name in STYLES
        if name in names
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5), borderaxespad=0.2)
    return figure


def headings(rows):
    return len({row.table for row in rows} - {None})


def floors_of_mode(panel, mode, rows):
    y, ticks, labels, source = 0, [], [], None
    for row in rows:
        if row.table is not None and row.table != source:
            panel.text(
                0, y, TABLES[row.table].title, va="center", style="italic", color=GREY, fontsize=9
            )
            y += 1
        source = row.table
        fractions = {name: row.of_floor(name) for name in row.medians}
        panel.plot([0, max(fractions.values())], [y, y], color="#DDDDDD", linewidth=1, zorder=1)
        for name, fraction in fractions.items():
            colour, marker, _ = STYLES[name]
            ours = name == FASTRNN
            panel.plot(fraction, y, marker, color=colour, markersize=7 if ours else 5, zorder=3 if ours else 2)
        ticks.append(y)
        labels.append(str(row.shape))
        y += 1
    panel.set_yticks(ticks, labels, fontsize=9)
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(y - 0.4, -0.6)
    panel.spines["left"].set_visible(False)
    panel.axvline(1, color=GREY, linewidth=1)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.tick_params(axis="x", labelbottom=True)
    panel.set_title(f"{MODE_TITLES[mode]}  (T, B, I, H)")


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
        figsize=(3.1 * len(axes), 2.7 * len(modes) + 0.5),
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
                    panel.annotate("peak", (1, peak), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY, fontsize=8)
                panel.set_ylim(bottom=0)
            if mode == modes[-1]:
                panel.set_xlabel(AXIS_TITLES[axis])
            if axis in (axes[0], "threads"):
                panel.set_ylabel("times one thread" if axis == "threads" else "GFLOP/s")
            panel.set_title(MODE_TITLES[mode])
            panel.legend(fontsize=8, handlelength=2.2)
    return figure


def curves(points, axis):
    """{label: {number along the axis: GFLOP/s}}: shapes that differ in that number alone make a curve."""
    found = {}
    for point in points:
        shape = Shape(*point["shape"])
        fixed = {"T": shape.T, "B": shape.B, "H": shape.H}
        number = fixed.pop(axis)
        label = ", ".join(f"{name} {value}" for name, value in fixed.items() if (axis, name) != ("T", "T"))
        rate = flops(point["mode"], shape) / np.median(point["seconds"]) / 1e9
        found.setdefault(label, {})[number] = rate
    return found


def along(panel, axis, points):
    for (label, curve), (colour, line) in zip(curves(points, axis).items(), LINES, strict=False):
        panel.plot(list(curve), list(curve.values()), line, color=colour, marker="o", markersize=3, label=label)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def against_one_thread(panel, points):
    seconds = {}
    for point in points:
        of_shape = seconds.setdefault(Shape(*point["shape"]), {})
        of_shape[point["threads"]] = np.median(point["seconds"])
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(seconds)))
    most = max(point["threads"] for point in points)
    panel.plot([1, most], [1, most], color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    for (shape, times), colour in zip(seconds.items(), colours, strict=True):
        speedups = [times[1] / times[n] for n in times]
        panel.plot(list(times), speedups, color=colour, marker="o", markersize=3, label=str(shape))
    panel.set_xticks(sorted({point["threads"] for point in points}))
    panel.set_ylim(bottom=0)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    run = json.loads(path.read_text(encoding="utf-8"))
    for picture in draw(run, path.with_suffix("")):
        print(picture)


if __name__ == "__main__":
    main()
