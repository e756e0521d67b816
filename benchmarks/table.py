"""Prints the JSON file of a pytest-benchmark run of this folder as Markdown tables.

    python benchmarks/table.py benchmarks.json
"""

import json
import math
import sys
from pathlib import Path

# Each counts as so many forward passes.
PASSES = {"forward": 1, "train": 3}


def gflops(shape, mode, seconds):
    """GFLOP/s of the matrix products, which are all that is counted."""
    T, B, I, H = shape
    return PASSES[mode] * 2 * T * B * (I + H) * 4 * H / seconds / 1e9


def geometric_mean(values):
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def main(path):
    medians = {}  # (mode, shape) -> implementation -> seconds
    for entry in json.loads(Path(path).read_text())["benchmarks"]:
        info = entry["extra_info"]
        key = info["mode"], tuple(info["shape"])
        medians.setdefault(key, {})[info["implementation"]] = entry["stats"]["median"]

    for mode in PASSES:
        # A run cut down by -k may lack one of the two.
        rows = {
            shape: by_implementation
            for (its_mode, shape), by_implementation in medians.items()
            if its_mode == mode and len(by_implementation) == 2
        }
        if not rows:
            continue
        print(f"\n### {mode}, float32, medians\n")
        print("| T, B, I, H | fused µs | fused GFLOP/s | reference µs | reference / fused |")
        print("|---|--:|--:|--:|--:|")
        ratios = []
        rates = []
        for shape, seconds in rows.items():
            fused, reference = seconds["fused"], seconds["reference"]
            ratios.append(reference / fused)
            rates.append(gflops(shape, mode, fused))
            print(
                f"| {', '.join(map(str, shape))} | {fused * 1e6:.1f} | {rates[-1]:.1f} "
                f"| {reference * 1e6:.1f} | {ratios[-1]:.1f} |"
            )
        print(f"| geometric mean | | {geometric_mean(rates):.1f} | | {geometric_mean(ratios):.1f} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
