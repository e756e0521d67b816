"""fastrnn and its reference under pytest-benchmark: compare first, then time, shape by shape, in this process.

    python -m pytest benchmarks
    python -m pytest benchmarks -k "train and 100x1x64x64"
    python -m pytest benchmarks --benchmark-disable               # compares only

Use it for one shape during work on a kernel. Published ratios come from suite.py, which runs each library in its own
process.
"""

from functools import lru_cache

import pytest

import fastrnn
from libraries import FASTRNN, LIBRARIES, REFERENCE, check_agreement, set_up
from shapes import flops, select

CELLS = select(("forward", "train", "step"), ("float32",), kinds=("lstm",))


@lru_cache(maxsize=1)
def expected(cell):
    task = set_up(LIBRARIES[REFERENCE](fastrnn.get_num_threads()), cell.mode, cell.dtype, cell.shape)
    return task.results()


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.mode}-{'x'.join(map(str, cell.shape))}")
@pytest.mark.parametrize("name", [FASTRNN, REFERENCE])
def test_lstm(benchmark, name, cell):
    task = set_up(LIBRARIES[name](fastrnn.get_num_threads()), cell.mode, cell.dtype, cell.shape)
    check_agreement(name, expected(cell), task.results(), cell.dtype)
    benchmark.group = f"{cell.mode} {cell.shape}"
    benchmark.extra_info["gigaflops"] = flops(cell.mode, cell.shape) / 1e9
    benchmark(task.call)
