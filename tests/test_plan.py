"""Plans (csrc/layer/plan.c) by a table: how many threads a call gets, and the work they share."""

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
UNITS, ROWS, PRODUCTS = 0, 1, 2  # fastrnn_sharing

# T, B, I, H, cell, panel width, threads -> threads of the plan, the work they share
TABLE = [
    (1, 1, 64, 64, LSTM, AVX2, 2, 1, UNITS),
    (300, 1, 128, 128, LSTM, AVX2, 2, 2, UNITS),
    (300, 1, 128, 16, LSTM, AVX2, 2, 2, PRODUCTS),  # one block of units cannot be shared
    (300, 1, 16, 16, LSTM, AVX2, 2, 1, UNITS),
    (46, 1, 577, 26, LSTM, AVX512, 2, 2, PRODUCTS),  # short steps, and a wide input
    (40, 2, 300, 24, GRU, AVX512, 2, 2, PRODUCTS),
    (3, 2, 2000, 40, LSTM, AVX512, 2, 2, PRODUCTS),
    (10, 1, 2000, 8, LSTM, AVX512, 2, 1, UNITS),  # neither rows nor blocks are enough for two
    (100, 32, 64, 64, LSTM, AVX2, 2, 2, ROWS),
    (100, 7, 8, 8, LSTM, AVX2, 2, 1, UNITS),
    (153, 7, 16, 33, LSTM, AVX2, 2, 2, ROWS),  # no phases, and 33 units are 24 and 16
    (100, 64, 128, 128, LSTM, AVX512, 2, 2, ROWS),
    (25, 1, 2048, 2048, LSTM, AVX512, 2, 2, UNITS),
    (25, 1, 2048, 2048, LSTM, AVX512, 16, 16, UNITS),
    (10, 64, 1536, 1536, LSTM, AVX512, 2, 2, UNITS),  # weights beyond the caches are read once
    (100, 256, 128, 128, GRU, AVX512, 16, 16, ROWS),
    (100, 32, 128, 128, GRU, AVX2, 1, 1, UNITS),
    (100, 1, 32, 32, RNN, AVX2, 2, 1, UNITS),
    (0, 4, 64, 64, LSTM, AVX2, 2, 1, UNITS),
    (5, 0, 64, 64, LSTM, AVX2, 2, 1, UNITS),
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """(T, B, I, H, cell, width, threads, options) -> threads, sharing, time, alone, and of two calls: side_by_side if
    they are stacked, side_by_side if they are not, and then the phases.
    """
    program = tmp_path_factory.mktemp("plan") / "plan"
    sources = [ROOT / "tests" / "c" / "plan.c", ROOT / "csrc" / "layer" / "plan.c"]
    flags = ["-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "csrc"]
    subprocess.run([*CC, *flags, *sources, "-o", program], check=True)

    def planned(T, B, I, H, cell, width, threads, weight=4, rate=1, empty_phase=0, sums=0, rounded=0):
        gates, parts = cell
        block = 16 if cell == LSTM else 32
        arguments = [T, T * B, I, H, H, gates, parts, 4, weight, width, block, threads]
        arguments += [rate, empty_phase, sums, rounded]
        line = subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout
        threads, sharing, time, alone, *of_two = line.split()
        return int(threads), int(sharing), float(time), float(alone), *map(int, of_two)

    return planned


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_plan(plan, row):
    *shape, threads, sharing = row
    assert plan(*shape)[:2] == (threads, sharing)


@pytest.mark.parametrize(("H", "side_by_side"), [(128, 1), (400, 1), (746, 0), (1024, 0), (1536, 0)])
def test_layers_whose_weights_leave_the_caches_run_in_turn(plan, H, side_by_side):
    """Side by side, each step of each layer would read them from memory."""
    assert plan(50, 1, 64, H, LSTM, AVX512, 2)[4] == side_by_side


def test_directions_read_a_large_weight_ih_in_few_phases(plan):
    """Each phase reads it again."""
    assert plan(300, 1, 64, 128, LSTM, AVX512, 2)[5:] == (1, 16)
    assert plan(27, 1, 959, 249, LSTM, AVX512, 2)[5:] in ((0, 1), (1, 1), (1, 2))


def test_gradients_of_weights_are_shared_where_steps_are_not(plan):
    """Backward computes more products of many steps than forward."""
    shape = (100, 1, 64, 64, LSTM, AVX512, 2)
    assert plan(*shape, empty_phase=250)[:2] == (1, UNITS)
    assert plan(*shape, empty_phase=250, sums=128)[:2] == (2, PRODUCTS)


def test_small_steps_backward_are_shared_by_near_cores_alone(plan):
    """Members with neighbouring rows both write some cache lines, and the sums read the rows of all members."""
    shape = (25, 69, 7, 9, LSTM, AVX512, 2)
    assert [plan(*shape, empty_phase=ns)[:2] for ns in (100, 500)] == [(2, ROWS), (2, ROWS)]
    assert [plan(*shape, empty_phase=ns, sums=16)[:2] for ns in (100, 500)] == [(2, ROWS), (1, UNITS)]


def test_few_units_take_as_long_as_a_vector_of_them(plan):
    """A step computes whole vectors, and its kernels are called for no rows, too."""
    one, vector = (plan(100, 64, 4, H, LSTM, AVX512, 1)[3] for H in (1, 16))
    assert 0.6 * vector < one < vector
    assert plan(1000, 1, 1, 1, RNN, AVX512, 1)[3] > 50_000


def test_rounding_counts_for_each_row(plan):
    shape = (100, 64, 4, 8, LSTM, AVX512, 1)
    assert plan(*shape, weight=1, rate=4, rounded=2)[3] > plan(*shape, weight=1, rate=4)[3] + 100 * 64 * 2 * 5


@pytest.mark.parametrize("B, I, H", [(1, 128, 128), (9, 64, 300), (64, 32, 32)])
def test_more_threads_are_never_planned_to_be_slower(plan, B, I, H):
    times = [plan(50, B, I, H, LSTM, AVX512, threads) for threads in (1, 2, 4, 8)]
    assert all(slow[2] >= fast[2] for slow, fast in zip(times, times[1:]))
    assert {row[3] for row in times} == {times[0][2]}
    assert all(row[0] <= threads for row, threads in zip(times, (1, 2, 4, 8)))


def test_weights_in_memory_are_read_by_one_core_each(plan):
    """Two cores that share the batch would both wait for all of them, in float32 and in int8."""
    for shape, options in [((10, 32, 2048, 2048), {}), ((10, 64, 2600, 2600), {"weight": 1, "rate": 4})]:
        assert plan(*shape, LSTM, AVX512, 2, empty_phase=600, **options)[:2] == (2, UNITS)


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
