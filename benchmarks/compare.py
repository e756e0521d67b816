"""Detects a loss of speed between two runs, by ratios, because seconds drift with the machine.

    python benchmarks/compare.py before.json after.json
    python benchmarks/compare.py after.json                  # against the `baseline` that took part in it

The ratio of another library to fastrnn (its time divided by fastrnn's, above 1 is good) must not become worse by more
than the tolerance. It counts as worse if the upper quartile of the later run is below the lower quartile of the earlier
run by more than the tolerance, so that spread alone gives no verdict. For a baseline, another build of fastrnn in the
same run, the ratio must not be below 1 in the same sense.

Exit status: 0 no loss, 1 a ratio became worse, 2 nothing could be compared.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from libraries import BASELINE, PEERS, REFERENCE
from report import Ratio, rows_of, short, table
from shapes import label

TOLERANCE = 0.05


class Change(NamedTuple):
    """A library at one cell, in both runs; for a baseline `before` is the ratio of equals, one."""

    mode: str
    dtype: str
    kind: str
    shape: tuple
    library: str
    before: Ratio
    after: Ratio

    @property
    def label(self):
        return label(self.kind, self.shape)

    @property
    def factor(self):
        return self.after.median / self.before.median

    def is_worse(self, tolerance):
        return self.after.high < (1 - tolerance) * self.before.low

    def cells(self):
        what = f"{self.mode} {self.dtype}", self.label, self.library
        return [*what, str(self.before), str(self.after), short(self.factor)]


def changes(before, after):
    """The changes of libraries other than fastrnn at cells that both runs have."""
    ratios = {row.key: row.ratios for row in rows_of(before)}
    return [
        Change(*row.key, library, ratios[row.key][library], ratio)
        for row in rows_of(after)
        for library, ratio in row.ratios.items()
        if library in (*PEERS, REFERENCE) and library in ratios.get(row.key, {})
    ]


def changes_from_baseline(run):
    """The changes of a run relative to its own baseline."""
    equal = Ratio(1.0, 1.0, 1.0)
    return [Change(*row.key, BASELINE, equal, row.ratios[BASELINE]) for row in rows_of(run) if BASELINE in row.ratios]


def unlike(before, after):
    """The reasons why two runs are hard to compare, one sentence each."""
    sentences = []
    for what in ("machine", "threads"):
        if before[what] != after[what]:
            sentences.append(f"{what}: {before[what]} before, {after[what]} after.")
    for name in before["versions"].keys() & after["versions"].keys():
        old, new = before["versions"][name], after["versions"][name]
        if old != new and name in (*PEERS, REFERENCE, "Python"):
            sentences.append(f"{name}: {old} before, {new} after.")
    return sorted(sentences)


def verdict(found, tolerance=TOLERANCE):
    """(exit status, lines to print) for these changes."""
    if not found:
        return 2, ["Nothing to compare: no shape, kind, mode and dtype with the same library in both."]
    worse = [change for change in found if change.is_worse(tolerance)]
    if not worse:
        least = min(found, key=lambda change: change.factor)
        return 0, [
            f"None of {len(found)} ratios is worse by more than {tolerance:.0%}, the spread considered. "
            f"The lowest after / before: {short(least.factor)}, {least.mode} {least.dtype} {least.label}, "
            f"to {least.library}."
        ]
    worse.sort(key=lambda change: change.factor)
    return 1, [
        f"{len(worse)} of {len(found)} ratios are worse by more than {tolerance:.0%}:",
        "",
        *table(["mode", "T, B, I, H", "to", "before", "after", "after / before"], [c.cells() for c in worse]),
    ]


def report_changes(before, after, tolerance=TOLERANCE):
    """Prints the verdict on two runs, or on one (`before` is None), and returns the exit status."""
    found = changes_from_baseline(after)
    if before is not None:
        found += changes(before, after)
        for sentence in unlike(before, after):
            print(f"Caution, {sentence}")
    status, lines = verdict(found, tolerance)
    print("\n".join(lines))
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN.json", type=Path)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="default %(default)s")
    arguments = parser.parse_args()
    if len(arguments.runs) > 2:
        parser.error("one run or two")
    *before, after = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.runs]
    sys.exit(report_changes(before[0] if before else None, after, arguments.tolerance))


if __name__ == "__main__":
    main()
