"""Runs PyTorch's own tests of recurrent modules with torch.nn.LSTM, GRU and RNN replaced by those of fastrnn.torch.

    git clone --depth 1 --branch v2.13.0 https://github.com/pytorch/pytorch
    pip install 'fastrnn[torch]' pytest expecttest hypothesis
    python tools/torch_tests.py pytorch                       # the cases of RNN, LSTM, GRU and PackedSequence
    python tools/torch_tests.py pytorch -k variable_sequence  # further arguments go to pytest

The checkout has to be of the version of PyTorch that is installed; its tests alone are used. For each test the table
says whether the kernels have computed a part of it, and how often torch.nn has instead. A test without a line of its
own in the table has not built a recurrent module. The exit status is that of pytest.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import fastrnn.torch

FILES = "test/test_nn.py", "test/test_modules.py", "test/nn/test_packed_sequence.py"
CASES = "rnn or lstm or gru or packed or variable_sequence"
NAMES = "LSTM", "GRU", "RNN"


def replace_classes(calls):
    """Put the modules of fastrnn.torch where torch.nn has its own; `calls` counts who computes."""
    for name in NAMES:
        original, replacement = getattr(torch.nn, name), getattr(fastrnn.torch, name)
        original.forward = counted(calls, "torch.nn", original.forward)
        for place in (torch.nn, torch.nn.modules, torch.nn.modules.rnn):
            setattr(place, name, replacement)
    fastrnn.torch._forward = counted(calls, "kernels", fastrnn.torch._forward)
    fastrnn.torch._infer = counted(calls, "kernels", fastrnn.torch._infer)
    recurrent = fastrnn.torch.Recurrent
    recurrent._infer_plain = counted(calls, "kernels", recurrent._infer_plain)


def counted(calls, who, function):
    """The function, whose calls with results are counted."""

    def call(*arguments, **options):
        results = function(*arguments, **options)
        calls[who] += results is not None
        return results

    return call


class Table:
    """A plugin of pytest that notes who has computed each test, and its outcome."""

    def __init__(self, calls):
        self.calls, self.rows = calls, []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self.calls.clear()
        return (yield)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.rows.append((report.nodeid.partition("::")[2], report.outcome, self.calls.copy()))

    def show(self):
        print("\n| test | outcome | calls of kernels | calls of torch.nn |\n|---|---|--:|--:|")
        for name, outcome, calls in self.rows:
            if calls or outcome == "failed":
                print(f"| {name} | {outcome} | {calls['kernels']} | {calls['torch.nn']} |")
        outcomes = Counter(outcome for _, outcome, calls in self.rows if calls["kernels"])
        print(
            f"\nWith the kernels: {', '.join(f'{n} {outcome}' for outcome, n in sorted(outcomes.items())) or 'none'}."
        )


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    root = Path(sys.argv[1])
    files = [str(root / name) for name in FILES if (root / name).exists()]
    if not files:
        sys.exit(f"{root}: has none of {', '.join(FILES)}")
    calls = Counter()
    replace_classes(calls)
    table = Table(calls)
    sys.path[:0] = [str(root / "test")]
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-o", "addopts=", f"--rootdir={root}"]
    status = pytest.main([*files, "-c", "/dev/null", *options, "-k", CASES, *sys.argv[2:]], plugins=[table])
    table.show()
    sys.exit(status)


if __name__ == "__main__":
    main()
