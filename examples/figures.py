"""The look of the figures, and how they are saved."""

import os
import sys

try:
    import matplotlib
except ImportError:
    print("error: the figures need matplotlib: pip install '.[study]'", file=sys.stderr)
    raise SystemExit(2) from None

matplotlib.use("agg")
from matplotlib import pyplot

INK, PAPER, GRID = "#22272e", "#ffffff", "#e3e6ea"
# Of the cells, in all figures.
COLOURS = {"RNN": "#c8553d", "GRU": "#3d8b7d", "LSTM": "#2f5fa8"}
# For other things, in this order.
CYCLE = ["#2f5fa8", "#c8553d", "#3d8b7d", "#d9a441", "#7a5ea8", "#6b7785"]

STYLE = {
    "figure.facecolor": PAPER,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
pyplot.rcParams.update(STYLE)


def figure(width=7.2, height=4.0, **subplots):
    """(figure, axes) of pyplot.subplots, in inches."""
    return pyplot.subplots(figsize=(width, height), **subplots)


def save(fig, path):
    """Saves a figure as PNG, atomically; the same figure gives the same bytes."""
    part = path.with_name(path.name + ".part")
    fig.savefig(part, format="png", metadata={"Software": None})
    pyplot.close(fig)
    os.replace(part, path)
