"""The figures of odyssey.py, of the numbers that it writes."""

import figures
import numpy as np
from odyssey_variants import VARIANTS

WORSE, BETTER, SAME = "#c8553d", "#3d8b7d", "#2f5fa8"


def colour(variant, about):
    if not about[variant]["differs"]:
        return SAME
    return WORSE if about[variant]["mean"] > about["V"]["mean"] else BETTER


def draw_seeds(about, path):
    fig, axes = figures.figure(7.2, 3.9)
    order = sorted(about, key=lambda one: about[one]["mean"], reverse=True)
    low, high = np.quantile(about["V"]["errors"], [0.25, 0.75])
    axes.axvspan(low, high, color=figures.GRID, zorder=0, linewidth=0)
    axes.annotate("middle half of V", (high, -0.75), (4, 0), textcoords="offset points", va="center", fontsize=8)
    labels = axes.get_yaxis_transform()
    for k, variant in enumerate(order):
        one, paint = about[variant], colour(variant, about)
        # one below the other, in the order of the seeds
        heights = k + np.linspace(-0.22, 0.22, len(one["errors"]))
        axes.scatter(one["errors"], heights, s=16, color=paint, alpha=0.55, linewidths=0)
        axes.plot([np.median(one["errors"])] * 2, [k - 0.34, k + 0.34], color=paint, linewidth=2.4)
        beside = {"xycoords": labels, "textcoords": "offset points", "va": "center"}
        axes.annotate(variant, (0, k), (-140, 0), weight="bold", color=paint, **beside)
        axes.annotate(VARIANTS[variant][0], (0, k), (-105, 0), **beside)
    axes.set_yticks([])
    axes.set_ylim(-1.05, len(order) - 0.4)
    axes.set_xlabel("frames whose speaker is named wrongly, % of the test set; bars are medians")
    figures.save(fig, path)


HIGHEST = 36  # of the axis of the errors, %


def draw_search(numbers, path):
    about, (sizes, rates) = numbers["variants"], np.transpose(numbers["settings"])
    fig, grid = figures.figure(7.2, 5.6, nrows=3, ncols=3, sharex=True, sharey=True)
    dots, rings = {"alpha": 0.8, "linewidths": 0}, {"facecolors": "none", "edgecolors": "#9aa3ad", "linewidths": 0.9}
    for variant, axes in zip(VARIANTS, grid.flat):
        errors = np.array(about[variant]["search"])
        axes.scatter(rates, about["V"]["search"], 1.6 * sizes, **rings)
        axes.scatter(rates, errors, 1.6 * sizes, color=colour(variant, about), **dots)
        for rate, error in zip(rates[errors > HIGHEST], errors[errors > HIGHEST]):
            axes.annotate(f"{error:.0f}%", (rate, HIGHEST), (rate, HIGHEST - 5), ha="center", fontsize=7.5,
                          arrowprops={"arrowstyle": "->", "color": colour(variant, about)})  # fmt: skip
        axes.set(xscale="log", ylim=(14, HIGHEST))
        axes.set_title(f"{variant}  {VARIANTS[variant][0]}", fontsize=8.5)
    handles = [grid[0, 0].scatter([], [], 1.6 * size, color=SAME, **dots) for size in (10, 20, 40)]
    handles.append(grid[0, 0].scatter([], [], 1.6 * 20, color=WORSE, **dots))
    handles.append(grid[0, 0].scatter([], [], 1.6 * 40, **rings))
    labels = ["10 units", "20 units", "40 units", "worse than V over the seeds", "V at the same setting"]
    fig.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=8, columnspacing=1.2)
    fig.supxlabel("learning rate", fontsize=9)
    fig.supylabel("frames whose speaker is named wrongly, %", fontsize=9)
    figures.save(fig, path)
