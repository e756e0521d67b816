"""Plans (csrc/layer/plan.c) by a table: how many threads a call gets, and whether they share its batch or its units."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CC = os.environ.get("CC", "cc").split()

pytestmark = pytest.mark.skipif(shutil.which(CC[0]) is None, reason="needs a C compiler")

LSTM, GRU, RNN = (4, 1), (3, 1), (1, 1)  # gates, parts
AVX2, AVX512 = 16, 32  # numbers of a float32 panel's row

# T, B, I, H, cell, panel width, threads -> threads of the plan, whether they share the batch
TABLE = [
    (1, 1, 64, 64, LSTM, AVX2, 2, 1, 0),
    (300, 1, 128, 128, LSTM, AVX2, 2, 2, 0),
    (300, 1, 128, 16, LSTM, AVX2, 2, 1, 0),  # one block of units cannot be shared
    (100, 32, 64, 64, LSTM, AVX2, 2, 2, 1),
    (100, 7, 8, 8, LSTM, AVX2, 2, 1, 0),  # neither the batch nor the units are enough for two
    (100, 64, 128, 128, LSTM, AVX512, 2, 2, 1),
    (25, 1, 2048, 2048, LSTM, AVX512, 2, 2, 0),
    (25, 1, 2048, 2048, LSTM, AVX512, 16, 16, 0),
    (100, 256, 128, 128, GRU, AVX512, 16, 16, 1),
    (100, 32, 128, 128, GRU, AVX2, 1, 1, 0),
    (100, 1, 32, 32, RNN, AVX2, 2, 1, 0),
    (0, 4, 64, 64, LSTM, AVX2, 2, 1, 0),
    (5, 0, 64, 64, LSTM, AVX2, 2, 1, 0),
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """(T, B, I, H, cell, width, threads, weight, rate, empty_phase) -> threads, split_rows, time, alone."""
    program = tmp_path_factory.mktemp("plan") / "plan"
    sources = [ROOT / "tests" / "c" / "plan.c", ROOT / "csrc" / "layer" / "plan.c"]
    flags = ["-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "csrc"]
    subprocess.run([*CC, *flags, *sources, "-o", program], check=True)

    def planned(T, B, I, H, cell, width, threads, weight=4, rate=1, empty_phase=0):
        gates, parts = cell
        block = 16 if cell == LSTM else 32
        arguments = [T, T * B, I, H, H, gates, parts, 4, weight, width, block, threads, rate, empty_phase]
        line = subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout
        threads, split_rows, time, alone = line.split()
        return int(threads), int(split_rows), float(time), float(alone)

    return planned


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_plan(plan, row):
    *shape, threads, split_rows = row
    assert plan(*shape)[:2] == (threads, split_rows)


@pytest.mark.parametrize("B, I, H", [(1, 128, 128), (9, 64, 300), (64, 32, 32)])
def test_more_threads_are_never_planned_to_be_slower(plan, B, I, H):
    times = [plan(50, B, I, H, LSTM, AVX512, threads) for threads in (1, 2, 4, 8)]
    assert all(slow[2] >= fast[2] for slow, fast in zip(times, times[1:]))
    assert {alone for *_, alone in times} == {times[0][2]}
    assert all(row[0] <= threads for row, threads in zip(times, (1, 2, 4, 8)))


def test_a_barrier_within_each_step_counts(plan):
    """A cell of two parts has two phases a step."""
    one, two = (plan(100, 4, 64, 256, cell, AVX2, 2) for cell in ((3, 1), (3, 2)))
    assert one[0] == 2 and one[2] < two[2]


@pytest.mark.parametrize(
    "T, B, H, threads", [(100, 1, 64, 1), (300, 1, 128, 1), (50, 4, 128, 1), (50, 16, 128, 2), (50, 1, 512, 2)]
)
def test_weights_of_int8_are_read_and_multiplied_faster(plan, T, B, H, threads):
    """They leave less to share: one thread where it is the faster one on a Xeon, with its distance between cores."""
    assert plan(T, B, H, H, LSTM, AVX512, 2, weight=1, rate=4, empty_phase=300)[0] == threads


def test_units_are_shared_by_more_threads_where_cores_are_near(plan):
    near, usual, far = (plan(300, 1, 96, 96, LSTM, AVX512, 2, empty_phase=ns) for ns in (50, 0, 600))
    assert (near[0], far[0]) == (2, 1)
    assert near[2] < usual[2] <= far[2] == far[3]
