"""benchmarks/: the arithmetic of its tables, floors and verdicts, almost without measurements."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from fastrnn import _config

FOLDER = Path(__file__).parents[1] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOLDER))
    import company
    import company_report
    import compare
    import interleaved
    import libraries
    import limits
    import report
    import scaling
    import shapes
    import situations
    import suite
from shapes import Shape

# One core that multiplies at 100 GFLOP/s, and reads at 200, 100 or 10 GB/s.
LIMITS = {
    "peak": {"float32": 1e11, "float64": 5e10},
    "bandwidth": [[1 << 14, 2e11], [1 << 20, 1e11], [1 << 28, 1e10]],
}


def run_of(*results, limits=LIMITS, **more):
    """The output of suite.py for (mode, shape, {library: seconds of each round}, kind if not plain)."""
    return {
        "machine": "a machine",
        "versions": {"fastrnn": "1", "torch": "2"},
        "threads": 1,
        "limits": limits and {"threads": {"1": limits}},
        "results": [
            {"mode": mode, "dtype": "float32", "shape": list(shape), "table": None, "seconds": seconds}
            | {"kind": name for name in kind}  # old files have none
            for mode, shape, seconds, *kind in results
        ],
    } | more


# ---------------------------------------------------------------------------------------------------
# Shapes


def test_tables_are_those_of_their_sources():
    assert len(shapes.TABLES["deepbench-train"].shapes) == 22
    assert len(shapes.TABLES["deepbench-server"].shapes) == 15
    assert {s.H for s in shapes.TABLES["zaremba"].shapes} == {200, 650, 1500}
    everywhere = [shape for table in shapes.TABLES.values() for shape in table.shapes]
    assert shapes.QUICK <= set(everywhere)
    assert shapes.QUICK_OF_OTHER_KINDS <= {
        shape for table in shapes.TABLES.values() if table.kinds != ("lstm",) for shape in table.shapes
    }
    assert all(shape.I == shape.H for shape in everywhere)


def test_inference_shapes_are_not_trained():
    served = shapes.select(("forward", "train", "step"), ("float32",), tables=["deepbench-server"])
    assert {cell.mode for cell in served} == {"forward"}


def test_every_cell_is_selected_once():
    for full in (False, True):
        cells = shapes.select(shapes.MODES, ("float32", "float64"), full=full)
        keys = [(cell.mode, cell.dtype, cell.kind, cell.shape) for cell in cells]
        assert len(keys) == len(set(keys))
    device = Shape(150, 1, 256, 256)  # in two tables
    assert [cell.shape for cell in cells if cell.mode == "forward"].count(device) == 2  # a dtype each


def test_shapes_of_ones_own_are_measured_in_every_mode():
    cells = shapes.select(shapes.MODES, ("float32",), shapes=[Shape(9, 2, 3, 4), Shape(7, 2, 3, 4)])
    assert [(c.mode, c.shape.T) for c in cells] == [
        ("forward", 9), ("forward", 7), ("train", 9), ("train", 7), ("step", 1)
    ]  # fmt: skip


def test_every_kind_is_measured_by_default_and_can_be_chosen():
    quick = shapes.select(shapes.MODES, ("float32",))
    for kind in shapes.KINDS:
        of_kind = [cell for cell in quick if cell.kind == kind]
        assert {"forward", "train"} <= {cell.mode for cell in of_kind}
        assert shapes.select(shapes.MODES, ("float32",), kinds=[kind]) == of_kind
    two_layers = [cell for cell in quick if cell.kind == "lstm-two-layers" and cell.mode == "step"]
    assert [cell.shape for cell in two_layers] == [(1, 1, 128, 128)]


def test_plain_lstms_come_first_and_have_no_kind_to_tell():
    quick = shapes.select(("forward",), ("float32",))
    plain = [cell.kind == "lstm" for cell in quick]
    assert plain == sorted(plain, reverse=True)
    shape = Shape(5, 1, 8, 8)
    assert shapes.label("lstm", shape) == "5, 1, 8, 8" and shapes.label("gru", shape) == "gru 5, 1, 8, 8"


def test_shapes_of_ones_own_are_measured_with_every_kind_asked_for():
    kinds = ["gru", "lstm-bidirectional"]
    cells = shapes.select(shapes.MODES, ("float32",), shapes=[Shape(9, 2, 3, 4)], kinds=kinds)
    assert [(cell.kind, cell.mode) for cell in cells] == [
        ("gru", "forward"), ("lstm-bidirectional", "forward"), ("gru", "train"), ("lstm-bidirectional", "train"),
        ("gru", "step"),  # the other one has no output before the last step
    ]  # fmt: skip


def parsed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["suite.py", "--peers", "reference", *arguments])
    return suite.parse_arguments()


def test_kinds_on_the_command_line(monkeypatch):
    arguments = parsed(monkeypatch, "--kinds", "rnn", "gru-ragged")
    assert {cell.kind for cell in suite.selected(arguments)} == {"rnn", "gru-ragged"}
    arguments = parsed(monkeypatch, "--shapes", "9,2,3,4", "--modes", "train", "--kinds", "lstm-projected")
    assert suite.selected(arguments) == [shapes.Cell("train", "float32", Shape(9, 2, 3, 4), None, "lstm-projected")]
    assert {cell.kind for cell in suite.selected(parsed(monkeypatch))} == shapes.KINDS.keys()


@pytest.mark.parametrize("chosen", [["--kinds", "elman"], ["--tables", "small", "--kinds", "gru"]])
def test_kinds_of_which_there_is_nothing(monkeypatch, capsys, chosen):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *chosen)
    assert "invalid choice" in (error := capsys.readouterr().err) or "nothing to measure" in error


def test_flops():
    assert shapes.flops("forward", (3, 2, 5, 7)) == 2 * 3 * 2 * (5 + 7) * 4 * 7
    assert shapes.flops("train", (3, 2, 5, 7)) == 3 * shapes.flops("forward", (3, 2, 5, 7))


STEPS_OF_RAGGED = sum(shapes.lengths_of((9, 2, 5, 8)))


@pytest.mark.parametrize(
    "kind, operations",
    [
        ("lstm", 2 * 9 * 2 * 4 * 8 * (5 + 8)),
        ("gru", 2 * 9 * 2 * 3 * 8 * (5 + 8)),
        ("gru-reset-before", 2 * 9 * 2 * 3 * 8 * (5 + 8)),
        ("rnn", 2 * 9 * 2 * 1 * 8 * (5 + 8)),
        ("lstm-ragged", 2 * STEPS_OF_RAGGED * 4 * 8 * (5 + 8)),
        ("gru-ragged", 2 * STEPS_OF_RAGGED * 3 * 8 * (5 + 8)),
        ("lstm-projected", 2 * 9 * 2 * (4 * 8 * (5 + 4) + 4 * 8)),
        ("lstm-bidirectional", 2 * 9 * 2 * 2 * 4 * 8 * (5 + 8)),
        ("lstm-two-layers", 2 * 9 * 2 * 4 * 8 * (5 + 8 + 8 + 8)),
        ("slstm", 2 * 9 * 2 * 4 * 8 * (5 + 8)),
        ("slstm-heads", 2 * 9 * 2 * 4 * 8 * (5 + 2)),
        ("ugrnn", 2 * 9 * 2 * 2 * 8 * (5 + 8)),
    ],
)
def test_flops_of_a_kind(kind, operations):
    assert shapes.flops("forward", (9, 2, 5, 8), kind) == operations
    assert shapes.flops("train", (9, 2, 5, 8), kind) == 3 * operations


def test_every_kind_is_counted():
    counted = test_flops_of_a_kind.pytestmark[0].args[1]
    assert [kind for kind, _ in counted] == list(shapes.KINDS)


@pytest.mark.parametrize(
    "kind, numbers, reads",
    [
        ("gru", 3 * 8 * 8, 9),
        ("rnn", 8 * 8, 9),
        ("lstm-ragged", 4 * 8 * 8, max(shapes.lengths_of((9, 2, 5, 8)))),
        ("lstm-projected", 4 * 8 * 4 + 4 * 8, 9),
        ("lstm-bidirectional", 4 * 8 * 8, 2 * 9),
        ("lstm-two-layers", 4 * 8 * 8, 2 * 9),
    ],
)
def test_weight_traffic_of_a_kind(kind, numbers, reads):
    shape = (9, 2, 5, 8)
    assert shapes.weight_traffic("forward", "float32", shape, kind) == (4 * numbers, reads)
    assert shapes.weight_traffic("train", "float64", shape, kind) == (8 * numbers, 2 * reads)


def test_a_step_reads_all_layers():
    both = 4 * 8 * (5 + 8) + 4 * 8 * (8 + 8)
    assert shapes.weight_traffic("step", "float32", (1, 2, 5, 8), "lstm-two-layers") == (4 * both, 1)


def test_lengths_are_between_a_quarter_and_all_of_the_steps():
    for T in (1, 2, 4, 5, 100):
        lengths = shapes.lengths_of((T, 500, 1, 1))
        assert lengths.shape == (500,) and 4 * min(lengths) >= T and max(lengths) == T
    assert min(lengths) == 25 and any(np.diff(lengths) > 0) and any(np.diff(lengths) < 0)
    assert np.array_equal(lengths, shapes.lengths_of((100, 500, 7, 9)))
    assert shapes.share_of_steps("lstm-ragged", (100, 500, 1, 1)) == pytest.approx(lengths.mean() / 100)
    assert shapes.share_of_steps("lstm", (100, 500, 1, 1)) == 1


# ---------------------------------------------------------------------------------------------------
# Limits


def test_floor_of_a_large_batch_is_its_operations():
    shape = Shape(10, 1000, 64, 64)
    expected = shapes.flops("forward", shape) / 1e11
    assert limits.floor(LIMITS, 1, "forward", "float32", shape) == pytest.approx(expected)
    assert limits.floor(LIMITS, 1, "forward", "float64", shape) == pytest.approx(2 * expected)
    assert limits.floor(LIMITS, 1, "train", "float32", shape) == pytest.approx(3 * expected)


def test_floor_of_one_sequence_is_its_weights():
    slow_reads = LIMITS | {"bandwidth": [[1 << 14, 1e9], [1 << 28, 1e9]]}
    shape = Shape(25, 1, 512, 512)
    weight_hh = 4 * 512 * 512 * 4
    assert limits.floor(slow_reads, 1, "forward", "float32", shape) == pytest.approx(25 * weight_hh / 1e9)
    assert limits.floor(slow_reads, 1, "train", "float32", shape) == pytest.approx(50 * weight_hh / 1e9)
    step = limits.floor(slow_reads, 1, "step", "float32", shape._replace(T=1))
    assert step == pytest.approx(2 * weight_hh / 1e9)  # and those of the input


def test_bandwidth_between_and_beyond_the_measured_working_sets():
    assert limits.bandwidth_at(LIMITS, 1 << 20) == pytest.approx(1e11)
    assert limits.bandwidth_at(LIMITS, 1 << 17) == pytest.approx(1.5e11)
    assert limits.bandwidth_at(LIMITS, 1 << 10) == pytest.approx(2e11)
    assert limits.bandwidth_at(LIMITS, 1 << 30) == pytest.approx(1e10)
    disturbed = {"bandwidth": [[1 << 14, 1e9], [1 << 20, 1e11]]}
    assert limits.bandwidth_at(disturbed, 1 << 14) == pytest.approx(1e11)


def test_threads_share_the_weights():
    shape = Shape(1, 1, 1, 1 << 9)  # 4 MiB: 2 MiB each
    quarter, half = (limits.bandwidth_at(LIMITS, size << 20) for size in (4, 2))
    alone, shared = (limits.floor(LIMITS, n, "forward", "float32", shape) for n in (1, 2))
    assert alone / shared == pytest.approx(half / quarter)


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="needs a C compiler")
@pytest.mark.skipif(not limits.HEADERS.is_dir(), reason="needs csrc/")
@pytest.mark.parametrize("instruction_set", _config.runnable())
def test_limits_can_be_measured(instruction_set, monkeypatch):
    monkeypatch.setattr(limits, "WORKING_SETS", [1 << 14, 1 << 16])
    measured = limits.measure([2, 1], instruction_set, seconds=1e-3, attempts=2)
    assert list(measured["threads"]) == ["1", "2"]
    for numbers in measured["threads"].values():
        assert all(1e5 < rate < 1e15 for rate in numbers["peak"].values())
        assert [size for size, _ in numbers["bandwidth"]] == [1 << 14, 1 << 16]
        assert all(1e5 < rate < 1e15 for _, rate in numbers["bandwidth"])


def test_without_a_compiler_there_are_no_limits(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(limits.Unavailable, match="no C compiler"):
        limits.measure([1], "generic")


# ---------------------------------------------------------------------------------------------------
# Report


def test_geometric_mean():
    assert report.geometric_mean([0.5, 2]) == pytest.approx(1)
    assert report.geometric_mean([1e300, 1e300, 1e300]) == pytest.approx(1e300)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (2.346, "2.35 s"),
        (0.9999, "1.00 s"),
        (0.0123, "12.3 ms"),
        (0.9994e-3, "999 µs"),
        (9.1e-6, "9.10 µs"),
        (4e-8, "0.04 µs"),
    ],  # fmt: skip
)
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def test_ratio_is_taken_within_a_round():
    """The machine becomes ten times slower in the second round, and the ratio stays."""
    ratio = report.Ratio.of([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert ratio == (2, 2, 2) and str(ratio) == "**2.00** (2.00–2.00)"


def test_best_peer_is_another_project():
    seconds = {"fastrnn": [1.0], "baseline": [0.5], "reference": [0.4], "torch": [3.0], "onnxruntime": [2.0]}
    (row,) = report.rows_of(run_of(("forward", (1, 1, 1, 1), seconds)))
    name, ratio = row.best_peer
    assert name == "onnxruntime" and ratio.median == 2


def test_markdown_has_every_number_and_hides_no_loss():
    quick, slow = {"fastrnn": [1e-3], "torch": [4e-3]}, {"fastrnn": [1e-3] * 2, "torch": [0.25e-3] * 2}
    text = report.markdown(run_of(("forward", (25, 16, 64, 64), quick), ("forward", (5, 1, 8, 8), slow)))
    gigaflops = 2 * 25 * 16 * 128 * 256 / 1e-3 / 1e9
    of_peak = f"{gigaflops:.0f}%"
    assert f"| 25, 16, 64, 64 | 1.00 ms | {gigaflops:.3g} | {of_peak} | {of_peak} | **4.00** (4.00–4.00) |" in text
    assert "| **geometric mean** |" in text and "| **1.00** |" in text and "| **0.25** |" in text
    assert "Below 1, 1 of 2:\n\n- torch, 5, 1, 8, 8: **0.25** (0.25–0.25)\n" in text


def test_markdown_says_so_when_nothing_is_lost():
    text = report.markdown(run_of(("train", (5, 1, 8, 8), {"fastrnn": [1.0], "torch": [2.0]})))
    assert "No ratio of 1 is below 1." in text


def test_markdown_without_limits_and_without_others():
    text = report.markdown(run_of(("step", (1, 1, 8, 8), {"fastrnn": [1.0]}), limits=None))
    assert "not measured" in text and "| of peak |" not in text and "Below 1" not in text


def test_other_kinds_have_a_table_of_their_own():
    shape = (25, 16, 64, 64)
    text = report.markdown(
        run_of(
            ("forward", shape, {"fastrnn": [1e-3], "torch": [4e-3]}),
            ("forward", shape, {"fastrnn": [1e-3], "torch": [0.5e-3]}, "gru"),
            ("forward", shape, {"fastrnn": [1e-3], "torch": [2e-3]}, "lstm-two-layers"),
        )
    )
    _, plain, others = text.split("### ")
    assert plain.startswith("Forward, float32\n") and "| **4.00** |" in plain and "No ratio of 1 is" in plain
    assert others.startswith("Forward, float32: other kinds of layers\n")
    assert others.index("| *GRU* |") < others.index("**0.50**") < others.index("| *LSTM, two layers* |")
    gigaflops = 2 * 25 * 16 * 128 * 192 / 1e-3 / 1e9  # three gates
    assert f"| 25, 16, 64, 64 | 1.00 ms | {gigaflops:.3g} |" in others
    assert "- torch, gru 25, 16, 64, 64: **0.50**" in others


def test_ragged_is_set_against_padded_by_its_steps():
    """The machine becomes ten times slower in the second round, and the ratio stays."""
    shape = (100, 32, 8, 8)
    share = shapes.share_of_steps("gru-ragged", shape)
    seconds = {"fastrnn": [1e-3, 1e-2, 1e-3], "fastrnn padded": [2e-3, 2e-2, 2e-3], "torch": [3e-3] * 3}
    run = run_of(("forward", shape, seconds, "gru-ragged"))
    (row,) = report.rows_of(run)
    assert row.of_padded.median == pytest.approx(0.5 / share) and row.of_padded.low == pytest.approx(0.5 / share)
    assert row.ratios.keys() == {"torch"} and row.best_peer[0] == "torch"
    text = report.markdown(run)
    assert "### Ragged against padded" in text and "| torch |" in text and "| fastrnn padded |" not in text
    assert f"| 1.00 ms | 2.00 ms | {100 * share:.0f}% | **{0.5 / share:.2f}** " in text
    assert "Ragged against" not in report.markdown(run_of(("forward", shape, {"fastrnn": [1.0]}, "gru")))


def test_cold_calls_have_columns_and_hide_no_loss():
    """The machine becomes ten times slower in the second round, and the ratio stays."""
    seconds = {"fastrnn": [1e-3] * 3, "torch": [2e-3] * 3}
    run = run_of(("forward", (5, 1, 8, 8), seconds), ("forward", (6, 1, 8, 8), seconds))
    run["results"][0]["cold"] = {"fastrnn": [4e-3, 4e-2, 4e-3], "torch": [1e-3, 1e-2, 1e-3]}
    cold, older = report.rows_of(run)
    assert cold.cold == 4e-3 and cold.cold_ratios["torch"] == (0.25, 0.25, 0.25)
    assert older.cold is None and older.cold_ratios == {}
    text = report.markdown(run)
    assert "| torch | cold | cold, torch |" in text and "| 4.00 ms | **0.25** (0.25–0.25) |" in text
    assert "No ratio of 2 is below 1." in text
    assert "Cold, below 1, 1 of 1:\n\n- cold, torch, 5, 1, 8, 8: **0.25** (0.25–0.25)\n" in text


def test_tables_have_equally_many_cells_in_every_row():
    seconds = {"fastrnn": [1.0], "reference": [2.0], "torch": [3.0], "openvino": [4.0]}
    run = run_of(("forward", (5, 1, 8, 8), seconds), ("forward", (6, 1, 8, 8), {"fastrnn": [1.0]}))
    run["results"][0] |= {"table": "small", "cold": {"fastrnn": [1.0], "torch": [2.0]}}
    rows = [line for line in report.markdown(run).splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


# ---------------------------------------------------------------------------------------------------
# Compare


def comparison(before, after, shape=(5, 1, 8, 8)):
    """The verdict on two runs in which torch took these multiples of fastrnn's time."""
    runs = [run_of(("forward", shape, {"fastrnn": [1.0] * len(ratios), "torch": ratios})) for ratios in (before, after)]
    return compare.verdict(compare.changes(*runs))


def test_a_fall_beyond_tolerance_and_spread_is_worse():
    status, lines = comparison([2.0, 2.02, 1.98], [1.5, 1.52, 1.48])
    assert status == 1
    assert any("5, 1, 8, 8" in line and "| 0.75 |" in line for line in lines)


def test_a_fall_within_the_tolerance_is_not():
    assert comparison([2.0, 2.0, 2.0], [1.92, 1.92, 1.92])[0] == 0


def test_a_fall_within_the_spread_is_not():
    assert comparison([1.2, 2.0, 2.8], [1.0, 1.7, 2.6])[0] == 0


def test_a_rise_is_not():
    assert comparison([1.0, 1.0, 1.0], [3.0, 3.0, 3.0])[0] == 0


def test_kinds_are_not_confused():
    shape = (5, 1, 8, 8)
    runs = [
        run_of(
            ("forward", shape, {"fastrnn": [1.0] * 3, "torch": [2.0] * 3}),
            ("forward", shape, {"fastrnn": [1.0] * 3, "torch": [gru] * 3}, "gru"),
        )
        for gru in (5.0, 3.0)
    ]
    status, lines = compare.verdict(compare.changes(*runs))
    assert status == 1 and lines[0].startswith("1 of 2 ")
    assert "| gru 5, 1, 8, 8 | torch |" in lines[-1]


def test_seconds_are_not_compared():
    """A machine of half the speed."""
    fast, slow = ({"fastrnn": [s] * 3, "torch": [2 * s] * 3} for s in (1.0, 2.0))
    runs = [run_of(("train", (5, 1, 8, 8), seconds)) for seconds in (fast, slow)]
    assert compare.verdict(compare.changes(*runs))[0] == 0


def test_a_baseline_is_compared_within_its_run():
    shape = (5, 1, 8, 8)
    slower = run_of(("forward", shape, {"fastrnn": [1.0] * 3, "baseline": [0.8, 0.81, 0.82]}))
    equal = run_of(("forward", shape, {"fastrnn": [1.0] * 3, "baseline": [0.8, 0.99, 1.1]}))
    assert compare.verdict(compare.changes_from_baseline(slower))[0] == 1
    assert compare.verdict(compare.changes_from_baseline(equal))[0] == 0


def test_packing_faster_is_no_loss():
    runs = [
        run_of(("forward", (5, 1, 8, 8), {"fastrnn": [1.0] * 3, "fastrnn unfrozen": [seconds] * 3}))
        for seconds in (2.0, 1.1)
    ]
    assert compare.changes(*runs) == []


def test_nothing_in_common_is_no_success():
    assert compare.verdict([])[0] == 2


def test_what_makes_runs_unlike_is_said():
    before, after = run_of(), run_of(versions={"fastrnn": "2", "torch": "3"}, threads=4)
    assert compare.unlike(before, after) == ["threads: 1 before, 4 after.", "torch: 2 before, 3 after."]


def test_compare_command(tmp_path):
    paths = []
    for name, ratio in (("before", 2.0), ("after", 1.0)):
        run = run_of(("forward", (5, 1, 8, 8), {"fastrnn": [1.0] * 3, "torch": [ratio] * 3}))
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(run))
    assert python("compare.py", *paths).returncode == 1
    assert python("compare.py", *reversed(paths)).returncode == 0
    assert python("compare.py", paths[0]).returncode == 2


# ---------------------------------------------------------------------------------------------------
# Scaling and measuring


def test_intercept_of_a_straight_line():
    points = [scaling.point("T", "train", Shape(T, 4, 8, 8), 1, [0.5 + 0.01 * T]) for T in (1, 10, 100, 800)]
    fit = scaling.intercept(points)
    assert fit["intercept"] == pytest.approx(0.5) and fit["per_step"] == pytest.approx(0.01)
    assert fit["share"] == pytest.approx(0.5 / (0.5 + 0.01 * 100))
    assert fit["deviation"] == pytest.approx(0, abs=1e-9)


def test_curves_are_of_shapes_that_differ_in_one_number():
    points = [scaling.point("B", "train", Shape(5, B, H, H), 1, [1.0]) for H in (8, 16) for B in (1, 2)]
    rate = shapes.flops("train", (5, 1, 8, 8))
    assert report.curves(points, "B")["T 5, H 8"] == {1: rate, 2: 2 * rate}
    assert [line.split("|")[1] for line in report.curve_table("B", points)] == [
        " GFLOP/s by B ", "---", " train, T 5, H 8 ", " train, T 5, H 16 "
    ]  # fmt: skip


def test_threads_are_told_apart_by_kind():
    points = [
        scaling.point("threads", "train", Shape(9, 1, 8, 8), n, [seconds / n] * 3, kind)
        for kind, seconds in (("lstm", 1.0), ("lstm-bidirectional", 2.0)) for n in (1, 2)
    ]  # fmt: skip
    denormals = {what: {"denormal": [1.0], "normal": [1.0]} for what in ("layer", "numpy")}
    lines = report.scaling_lines(
        {"points": points, "intercepts": [], "denormals": denormals | {"shape": [1, 1, 1, 1]}, "memory": {}}
    )
    for where in ("9, 1, 8, 8", "lstm-bidirectional 9, 1, 8, 8"):
        assert f"| train; {where} | **2.00** (2.00–2.00) |" in lines
    assert {"lstm-bidirectional", "lstm-two-layers"} <= {kind for kind, shape in scaling.THREADED if shape.B == 1}


def test_thread_counts():
    assert scaling.thread_counts(1) == [1]
    assert scaling.thread_counts(3) == [1, 2, 3]
    assert scaling.thread_counts(24) == [1, 2, 3, 4, 5, 6, 7, 8, 16, 24]


def test_long_calls_get_few_rounds_and_short_ones_many_calls():
    pace = interleaved.Pace(rounds=9, turn=0.1, pause=0.05, budget=10)
    assert pace.calls(10.0) == 1 and pace.calls(1e-3) == 101 and pace.calls(1e-7) == interleaved.MOST_CALLS
    assert pace.calls(3e-3) % 2 == 1
    assert pace.rounds_within_budget(30.0) == 3 and pace.rounds_within_budget(0.5) == 9
    assert interleaved.Pace(rounds=2).rounds_within_budget(30.0) == 2


@pytest.mark.parametrize("dtype", shapes.DTYPES)
@pytest.mark.parametrize("mode", shapes.MODES)
def test_fastrnn_agrees_with_the_reference(mode, dtype, threads):
    ours, reference = (libraries.LIBRARIES[name](1) for name in ("fastrnn", "reference"))
    shape = (1 if mode == "step" else 4, 3, 5, 7)
    results = [libraries.set_up(library, mode, dtype, shape).results() for library in (ours, reference)]
    libraries.check_agreement("reference", *results, dtype)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch takes its slower code
@pytest.mark.parametrize("kind", shapes.KINDS)
@pytest.mark.parametrize("name", [n for n in libraries.LIBRARIES if n not in ("fastrnn", "fastrnn unfrozen")])
def test_every_library_agrees_on_every_kind(name, kind, threads):
    of_library = libraries.LIBRARIES[name]
    for module in of_library.modules:
        pytest.importorskip(module, exc_type=ImportError)
    if kind not in of_library.kinds:
        pytest.skip(f"{name} does not take part in {kind}")
    ours, theirs = libraries.LIBRARIES["fastrnn"](1), of_library(1)
    for mode in shapes.KINDS[kind].modes:
        for dtype in shapes.DTYPES:
            if libraries.takes_part(theirs, mode, dtype, kind):
                shape = (1 if mode == "step" else 9, 3, 5, 8)
                expected = libraries.set_up(ours, mode, dtype, shape, kind).results()
                task = libraries.set_up(theirs, mode, dtype, shape, kind)
                with task.around():
                    libraries.check_agreement(name, expected, task.results(), dtype)
                    if task.another:
                        task.another()()


def test_an_old_baseline_takes_part_in_what_it_has(threads):
    baseline = libraries.LIBRARIES["baseline"](1)
    assert baseline.kinds == tuple(shapes.KINDS)
    baseline.fastrnn = SimpleNamespace(LSTM=fastrnn.LSTM)
    assert baseline.has("lstm") and not baseline.has("gru")


def test_disagreement_is_an_error():
    good = {"output": np.zeros(3)}
    with pytest.raises(AssertionError, match="torch and fastrnn disagree on output"):
        libraries.check_agreement("torch", good, {"output": np.full(3, 1e-3)}, "float32")
    with pytest.raises(AssertionError, match="torch returns"):
        libraries.check_agreement("torch", good, {}, "float32")


def python(script, *arguments):
    package = str(Path(fastrnn.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, inherited]))}
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *map(str, arguments)],
        env=environment, capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip


def test_scans():
    for package in ("jax", "keras"):
        pytest.importorskip(package)
    result = python("scans.py", "--shapes", "7,3,5,8", "--rounds", "1")
    assert not result.returncode, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines() if "7, 3, 5, 8" in line]
    assert [row[:2] for row in rows] == [
        [f"| {mode}", kind] for mode in ("forward", "train") for kind in ("lstm", "gru")
    ]
    ratio = r"[\d.]+ \([\d.]+-[\d.]+\)"
    for row in rows:
        assert re.fullmatch(ratio, row[4])
        assert re.fullmatch(ratio if row[0] == "| forward" else " *", row[5].removesuffix("|").strip())


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import plots
    seconds = {"fastrnn": [1e-3], "torch": [2e-3], "reference": [5e-3]}
    run = run_of(*((mode, (1, 2, 8, 8), seconds) for mode in shapes.MODES))
    points = [
        scaling.point(axis, mode, Shape(4, 2, 8, 8)._replace(**{axis: n} if axis in "TBH" else {}), n, [1e-3 / n])
        for axis in ("T", "B", "H", "threads") for mode in scaling.MODES for n in (1, 2)
    ]  # fmt: skip
    scaling_run = run | {"scaling": {"points": points}}
    written = plots.draw(plots.lines_of(run), tmp_path / "results", scaling_run)
    assert [path.name for path in written] == ["results.png", "results-summary.png", "results-scaling.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert plots.draw(plots.lines_of(run_of()), tmp_path / "none") == []

    # The tables of a page have the same ratios, to the digits that they show.
    page = plots.lines_of_page(report.markdown(run))
    assert page == plots.lines_of(run) and page[0].smallest == 2
    page = (FOLDER.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    lines = plots.lines_of_page(page)
    for heading, count in (("Forward, float32", 17), ("Training (forward, backward, all gradients), float64", 13)):
        table = page[page.index(f"# {heading}\n") :].partition("\n\n")[2].partition("\n\n")[0]
        title, dtype = heading.rsplit(", ", 1)
        mode = next(mode for mode, its in report.TITLES.items() if its == title)
        of_table = [line for line in lines if (line.mode, line.dtype, line.kind) == (mode, dtype, "")]
        assert len(of_table) == count
        minimum = re.search(r"\| \*\*minimum\*\* .*\*\*([\d.]+)\*\* \|$", table, re.MULTILINE)
        assert float(minimum[1]) == min(line.smallest for line in of_table)


def test_bits_are_counted():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import bits
    a = np.array([0.0, 1.0, np.nan, 2.0], np.float32)
    assert bits.differing(a, a) == 0 and bits.differing(a, np.float32([-0.0, 1.0, np.nan, 3.0])) == 0.5
    found = {
        f"{array} {shape}": np.zeros((2, 4, 1), np.float32) for shape in bits.SHAPES for array in ("output", "alone")
    }
    found[f"output {bits.SHAPES[-1]}"][0, bits.SEQUENCE] = 1
    found |= {name: array[:, :1] for name, array in found.items() if name.startswith("alone")}
    assert bits.largest(found, found, "output", "alone") == 0.5
    assert bits.largest(found, found, "gradients") is None and bits.largest(found, None, "output") is None


def test_the_bits_of_fastrnn_are_the_same(monkeypatch, threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import bits
    monkeypatch.setattr(bits, "SHAPES", [Shape(6, 5, 3, 20)])
    monkeypatch.setattr(bits, "in_a_process", lambda name, count, environment=(): bits.results(name, count))
    assert set(bits.measured("fastrnn").values()) == {0.0}


def test_the_suite_from_end_to_end(tmp_path):
    prefix = tmp_path / "folder" / "results"
    options = ["--shapes=3,2,8,8", "--peers", "reference", "--rounds=2", "--turn=0.001", "--pause=0"]
    done = python("suite.py", *options, "--no-limits", f"--output={prefix}")
    assert done.returncode == 0, done.stderr
    run = json.loads(prefix.with_suffix(".json").read_text(encoding="utf-8"))
    assert [result["mode"] for result in run["results"]] == list(shapes.MODES)
    for result in run["results"]:
        assert result["seconds"].keys() == {"fastrnn", "reference"}
        assert result["cold"].keys() == {"fastrnn", "reference"}
        for rounds in (*result["seconds"].values(), *result["cold"].values()):
            assert len(rounds) == 2 and min(rounds) > 0
    assert run["versions"]["fastrnn"] == fastrnn.__version__
    assert prefix.with_suffix(".md").read_text(encoding="utf-8") == report.markdown(run)


def test_the_quick_suite(tmp_path):
    prefix = tmp_path / "results"
    done = python("suite.py", "--quick", "--scaling", "--peers", "reference", f"--output={prefix}")
    assert done.returncode == 0, done.stderr
    run = json.loads(prefix.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(run["results"]) == 6 and run["limits"] is None and "scaling" not in run
    assert "| 100, 1, 64, 64 |" in done.stdout


def test_the_suite_with_kinds(tmp_path):
    prefix = tmp_path / "results"
    options = ["--shapes=4,3,8,8", "--peers", "reference", "--rounds=1", "--turn=0.001", "--pause=0"]
    kinds = ["--kinds", "lstm", "gru-ragged", "lstm-two-layers"]
    done = python("suite.py", *options, *kinds, "--no-limits", "--no-cold", f"--output={prefix}")
    assert done.returncode == 0, done.stderr
    run = json.loads(prefix.with_suffix(".json").read_text(encoding="utf-8"))
    assert {(result["mode"], result["kind"]): set(result["seconds"]) for result in run["results"]} == {
        ("forward", "lstm"): {"fastrnn", "reference"},
        ("forward", "gru-ragged"): {"fastrnn", "fastrnn padded", "reference"},
        ("forward", "lstm-two-layers"): {"fastrnn"},
        ("train", "lstm"): {"fastrnn", "reference"},
        ("train", "gru-ragged"): {"fastrnn", "fastrnn padded", "reference"},
        ("train", "lstm-two-layers"): {"fastrnn"},
        ("step", "lstm"): {"fastrnn", "reference"},
        ("step", "lstm-two-layers"): {"fastrnn"},
    }
    text = prefix.with_suffix(".md").read_text(encoding="utf-8")
    assert "| *GRU, ragged* |" in text and "### Ragged against padded" in text


# ---------------------------------------------------------------------------------------------------
# In company


def numbers_of(costs, p99, before=0.0, rates=None):
    """The output of company.py for a setting."""
    quartiles = [float(q) for q in np.quantile(costs, [0.25, 0.5, 0.75])]
    rates = [1 / cost for cost in costs] if rates is None else rates
    return {
        "costs": costs, "rates": rates, "before": [before] * len(costs),
        "calls": 100, "quartiles": quartiles, "p99": p99,
    }  # fmt: skip


def company_result(settings, situation="alone", kind="lstm", shape=(5, 1, 8, 8), mode="forward"):
    return {"situation": situation, "mode": mode, "kind": kind, "shape": list(shape), "settings": settings}


def company_run(*results):
    return {"machine": "a machine", "versions": {"fastrnn": "1"}, "cores": 2, "results": list(results)}


ONE, TWO = company_report.fixed_name(1), company_report.fixed_name(2)


def verdict(ours, best):
    return company_report.Row(company_result({"fastrnn": numbers_of(*ours), ONE: numbers_of(*best)})).verdict


def test_every_situation_is_measured_at_some_shape():
    names = list(situations.SITUATIONS)
    assert company.QUICK.keys() <= set(names)
    assert company_report.SHORT.keys() <= set(names)
    for full in (False, True):
        cells = company.select(names, full)
        assert [name for k, name in enumerate(names) if name in {cell.situation for cell in cells}] == names
        assert len(cells) == len(set(cells))
        assert company.Cell("alone", "train", "lstm", (100, 32, 64, 64)) in cells
    assert {cell.kind for cell in cells} == {"lstm", "lstm-bidirectional", "lstm-two-layers"}
    assert {cell.shape for cell in cells if cell.situation == "busy"} == set(company.SHAPES)
    assert {(cell.kind, cell.shape) for cell in cells if cell.situation == "forked"} == {
        ("lstm-two-layers", (50, 1, 128, 128))
    }
    mine = company.select(["busy", "spawned"], shapes=[Shape(3, 2, 8, 8)], kinds=["lstm"])
    assert [cell.situation for cell in mine] == ["busy", "spawned"]
    assert {(cell.mode, cell.kind, cell.shape) for cell in mine} == {("forward", "lstm", (3, 2, 8, 8))}


def test_the_best_fixed_number_has_the_most_calls_a_second():
    """The setting with the best median is not the best if some calls take a hundred times as long."""
    settings = {
        "fastrnn": numbers_of([2.4e-3] * 3, 3e-3),
        ONE: numbers_of([2e-3] * 3, 2.5e-3),
        TWO: numbers_of([1e-3] * 3, 0.3, rates=[50.0] * 3),
    }
    row = company_report.Row(company_result(settings))
    assert row.best == ONE and row.of_best.median == pytest.approx(1.2) and row.p99_of_best == pytest.approx(1.2)
    assert row.missed == ["median"]


def test_verdicts():
    steady = [1e-3] * 3
    assert verdict((steady, 1.2e-3), (steady, 1e-3)) == "yes"
    assert verdict((steady, 4.9e-3), (steady, 1e-3)) == "p99 within a tick"
    assert verdict((steady, 5.1e-3), (steady, 1e-3)) == "**no: p99**"
    assert verdict(([1.2e-3] * 3, 1e-3), (steady, 1e-3)) == "**no: median**"
    # Within the ratio, but more than a tick.
    assert verdict(([20e-3] * 3, 25e-3), ([20e-3] * 3, 20e-3)) == "**no: p99**"


def test_ratios_are_taken_within_a_round():
    """The machine becomes ten times slower in the second round."""
    ours, best = numbers_of([3e-3, 3e-2, 3e-3], 0.1), numbers_of([1e-3, 1e-2, 1e-3], 0.1)
    settings = {"fastrnn": ours, ONE: best, "torch": numbers_of([6e-3, 6e-2, 6e-3], 0.1), "baseline": best}
    row = company_report.Row(company_result(settings))
    assert row.of_best == pytest.approx((3, 3, 3))
    assert row.ratios["torch"] == pytest.approx((2, 2, 2)) and row.ratios["baseline"] == pytest.approx((1 / 3,) * 3)


def test_work_before_is_held_against_the_fewest_threads():
    settings = {
        "fastrnn": numbers_of([1e-3] * 3, 1e-3, before=3e-3),
        ONE: numbers_of([2e-3] * 3, 2e-3, before=1e-3),
        TWO: numbers_of([1e-3] * 3, 1e-3, before=3e-3),
    }
    with_work, without = (company_report.Row(company_result(settings, name)) for name in ("product-256", "alone"))
    assert with_work.best == TWO and with_work.of_work.median == pytest.approx(3) and without.of_work is None


def test_markdown_of_a_run_in_company():
    fast, slow = numbers_of([1e-3] * 3, 1e-3), numbers_of([4e-3] * 3, 9e-3)
    bidirectional = dict(kind="lstm-bidirectional", shape=Shape(19, 1, 200, 128))
    run = company_run(
        company_result({"fastrnn": fast, ONE: slow, TWO: fast, "torch": slow, "onnxruntime": fast}, **bidirectional),
        company_result({"fastrnn": fast, ONE: fast}, mode="train"),
        company_result({"fastrnn": slow, ONE: fast, "torch": fast}, "threads-2"),
    )
    text = company_report.markdown(run)
    assert "| *tight loop, alone* |" in text and "| *2 Python threads, one layer* |" in text
    assert "| training 5, 1, 8, 8 | 1.00 ms |" in text and "| 4.00 ms, 250/s |" in text
    assert "A goal missed in 1 of 3 rows:\n\n- threads-2, 5, 1, 8, 8: time **4.00** (4.00–4.00), p99 9.00" in text
    assert "Below 1, 1 of 3:\n\n- torch, threads-2, 5, 1, 8, 8: **0.25**" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1

    first, rule, *rows = company_report.short_markdown(run).splitlines()
    assert first == (
        "| situation | T, B, I, H | fastrnn | p99 | time / best fixed | p99 / best fixed | PyTorch | ONNX Runtime |"
    )
    times = "1.00 ms | 1.00 ms | 1.00 | 1.00"
    assert rows == [
        f"| alone, in a tight loop | lstm-bidirectional 19, 1, 200, 128 | {times} | 4.00 | 1.00 |",
        "| two Python threads, one layer | 5, 1, 8, 8 | 4.00 ms, 250/s | 9.00 ms | 4.00 | 9.00 | 0.25 |  |",
    ]


def test_fastrnn_alone_in_company():
    run = company_run(company_result({"fastrnn": numbers_of([1e-3] * 3, 1e-3)}))
    assert "best" not in company_report.markdown(run).split("\n", 1)[1]
    assert "| alone, in a tight loop | 5, 1, 8, 8 | 1.00 ms | 1.00 ms |  |  |" in company_report.short_markdown(run)


def test_sequential_calls_count_by_their_own_time_and_concurrent_ones_by_the_clock():
    turn = [situations.Calls(np.full(4, seconds), np.array([]), elapsed=10.0) for seconds in (1.0, 3.0)]
    sequential, concurrent = company.Measured(concurrent=False), company.Measured(concurrent=True)
    for measured in (sequential, concurrent):
        measured.add(turn)
    assert sequential.costs == [2.0] and sequential.rates == [0.5]
    assert concurrent.rates == pytest.approx([0.8]) and concurrent.costs == pytest.approx([1.25])
    assert sequential.as_json()["calls"] == 8 and sequential.as_json()["quartiles"] == [1.0, 2.0, 3.0]


def test_calls_are_timed_without_the_work_before_them():
    order = []
    calls = situations.repeat(lambda: order.append("call"), lambda: order.append("work"), 0.0, 0.0, fewest=3)
    assert order == ["work", "call"] * 3
    assert len(calls.seconds) == len(calls.before) == 3
    assert calls.seconds.sum() + calls.before.sum() <= calls.elapsed
    assert len(situations.repeat(lambda: None, None, 0.0, 0.0, fewest=3).before) == 0


def test_each_server_gets_one_request_at_a_time():
    pipes, theirs = zip(*(multiprocessing.Pipe() for _ in range(2)))
    seen = []

    def serve(pipe, answer):
        for message in iter(pipe.recv, None):
            seen.append((message, pipe.poll()))
            pipe.send((answer, None))

    servers = [threading.Thread(target=serve, args=item) for item in zip(theirs, (1.0, 2.0))]
    for server in servers:
        server.start()
    found = situations.load(pipes, 0.0)
    for pipe, server in zip(pipes, servers):
        pipe.send(None)
        server.join()
    assert set(seen) == {(("request",), False)}
    assert [set(calls.seconds) for calls in found] == [{1.0}, {2.0}]
    assert all(len(calls.seconds) >= situations.FEWEST_CALLS for calls in found)


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("FASTRNN_TEST_ONE", "before")
    monkeypatch.delenv("FASTRNN_TEST_TWO", raising=False)
    with company.environment([("FASTRNN_TEST_ONE", "1"), ("FASTRNN_TEST_TWO", "2")]):
        assert os.environ["FASTRNN_TEST_ONE"] == "1" and os.environ["FASTRNN_TEST_TWO"] == "2"
    assert os.environ["FASTRNN_TEST_ONE"] == "before" and "FASTRNN_TEST_TWO" not in os.environ


def test_company_from_end_to_end(tmp_path):
    """Runs each kind of call and disturbance once, with calls of microseconds."""
    prefix = tmp_path / "folder" / "company"
    names = ["product-small", "threads-2", "processes-2", "busy", "extra-thread", "one-processor-late", "forked"]
    names = [name for name in [*names, "spawned"] if situations.SITUATIONS[name].missing is None]
    options = ["--shapes=3,2,8,8", "--kinds=lstm", "--peers", "--threads=1", "--rounds=1", "--turn=0.001", "--pause=0"]
    done = python("company.py", *options, f"--output={prefix}", "--situations", *names)
    assert done.returncode == 0, done.stderr
    run = json.loads(prefix.with_suffix(".json").read_text(encoding="utf-8"))
    assert [result["situation"] for result in run["results"]] == names
    for result in run["results"]:
        assert result["settings"].keys() == {"fastrnn", ONE}
        for numbers in result["settings"].values():
            low, median, high = numbers["quartiles"]
            assert 0 < low <= median <= high and min(*numbers["costs"], *numbers["rates"]) > 0
            assert numbers["calls"] >= situations.FEWEST_CALLS
            assert (min(numbers["before"]) > 0) == (result["situation"] == "product-small")
    assert done.stdout == prefix.with_suffix(".md").read_text(encoding="utf-8") == company_report.markdown(run)
    short = python("company_report.py", prefix.with_suffix(".json"), "--short")
    assert short.returncode == 0 and short.stdout == company_report.short_markdown(run)


def test_a_default_is_left_alone():
    """Without a number of threads nothing is set, in fastrnn and in all other installed libraries."""
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(3)
        libraries.LIBRARIES["fastrnn"](None)
        assert fastrnn.get_num_threads() == 3
    finally:
        fastrnn.set_num_threads(before)
