"""Draws a run, as suite.py has written it: PNG files beside it.

    python benchmarks/plots.py build/benchmarks.json

NAME.png          each shape's floor as a fraction of each library's time
NAME-scaling.png  the speed of fastrnn along T, B and H, and with more threads
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

import limits
from libraries import BASELINE, FASTRNN, REFERENCE, UNFROZEN
from report import curves, rows_of
from shapes import PLAIN, Shape, label

# Okabe and Ito's colours, distinguishable with every kind of colour vision; markers repeat the distinction.
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
    """Writes the figures of a run; returns the paths written."""
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
    """A line for each shape, a panel for inference and one for training, a point for each library."""
    rows = [row for row in rows_of(run) if row.dtype == dtype]
    lines = lines_of(rows)
    panel_of_mode = {mode: int(mode == "train") for mode in MODE_TITLES}
    shown = sorted({panel_of_mode[row.mode] for row in rows})
    figure, panels = plt.subplots(
        1,
        len(shown),
        figsize=(1.2 + 3.8 * len(shown), 1.1 + 0.23 * len(lines)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
    for number, panel in zip(shown, panels[0], strict=True):
        panel.axvline(1, color=GREY, linewidth=1.2, zorder=1)
        for row in rows:
            if panel_of_mode[row.mode] == number:
                draw_row(panel, row, lines.index(line_of(row)))
        panel.set_title(f"{('Inference', 'Training')[number]}, {dtype}, {threads}")
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    fastest = max(row.of_floor(name) for row in rows for name in row.medians)
    panel.set_xlim(0, max(1.02, 1.02 * fastest))
    panel.set_ylim(len(lines) - 0.4, -0.6)
    panels[0, 0].set_yticks(range(len(lines)), [label for _, label in lines], fontsize=9)
    for tick, (_, name) in zip(panels[0, 0].get_yticklabels(), lines, strict=True):
        if not name[0].isdigit():
            tick.set(style="italic", color=GREY)
    figure.get_layout_engine().set(wspace=0.06)
    figure.supxlabel("speed, as a fraction of what the machine allows at that shape (T, B, I, H)", fontsize=10)
    taking_part = {name for row in rows for name in row.medians}
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=label)
        for name, (colour, marker, label) in STYLES.items()
        if name in taking_part
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 4), columnspacing=1.5)
    return figure


def line_of(row):
    """(title of the group, label) of the line on which a row is drawn."""
    if row.mode == "step":
        of_kind = f", {row.title}" if row.kind != PLAIN else ""
        return f"One step of a stream{of_kind}", str(row.shape)
    return row.title or "Shapes of this run", str(row.shape)


def lines_of(rows):
    """All the lines from top to bottom: shapes in the order of the run, a title above each group."""
    groups = {}
    for row in rows:
        group, label = line_of(row)
        groups.setdefault(group, {})[label] = None
    return [(group, label) for group, labels in groups.items() for label in (group, *labels)]


def draw_row(panel, row, y):
    fractions = {name: row.of_floor(name) for name in row.medians}
    panel.plot([0, max(fractions.values())], [y, y], color="#CCCCCC", linewidth=1, zorder=1)
    for name, fraction in fractions.items():
        colour, marker, _ = STYLES[name]
        size, order = (7.5, 4) if name == FASTRNN else (6 if marker != "^" else 7, 3)
        panel.plot(
            fraction, y, marker, color=colour, markersize=size, zorder=order,
            markeredgecolor="white", markeredgewidth=0.6, clip_on=False,
        )  # fmt: skip


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
                    panel.annotate(
                        "peak", (1, peak), xycoords=("axes fraction", "data"),
                        ha="right", va="bottom", color=GREY, fontsize=8,
                    )  # fmt: skip
                    panel.set_ylim(top=1.12 * peak)
                panel.set_ylim(bottom=0)
            panel.set_title(f"{MODE_TITLES[mode]}, by {AXIS_TITLES[axis]}")
            if mode == modes[-1]:
                panel.set_xlabel(AXIS_TITLES[axis])
            if axis in (axes[0], "threads"):
                panel.set_ylabel("speed against one thread" if axis == "threads" else "GFLOP/s")
            title = "T, B, I, H" if axis == "threads" else None
            panel.legend(fontsize=8, title=title, title_fontsize=8, alignment="left", labelspacing=0.3)
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
    panel.plot([1, most], [1, most], color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    for (where, times), colour in zip(seconds.items(), colours, strict=True):
        speedups = [times[1] / times[n] for n in times]
        panel.plot(list(times), speedups, color=colour, marker="o", markersize=3, label=where)
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
