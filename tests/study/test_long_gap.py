"""examples/long_gap.py: its tasks, and the longer memory of the gated cells."""

import numpy as np
import pytest

import fastrnn
import long_gap


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_tasks_can_be_solved_from_their_preludes(rng):
    gap, B = 30, 400
    for task in long_gap.TASKS:
        x, targets = long_gap.TASKS[task](gap, B, rng)
        assert x.shape == (long_gap.PRELUDE + gap, B, long_gap.SIZES[task][0]) and x.dtype == np.float32
        prelude, rest = x[: long_gap.PRELUDE], x[long_gap.PRELUDE :]
        if task == "order":
            first, second = (prelude[..., :2].sum(axis=-1).cumsum(axis=0) == n for n in (1, 2))
            marks = [prelude[shown.argmax(axis=0), np.arange(B), 1] for shown in (first, second)]
            np.testing.assert_array_equal(targets, 2 * marks[0] + marks[1])
            assert not rest[..., :2].any() and set(targets) == {0, 1, 2, 3}
            continue
        marked = (prelude[..., 0] * prelude[..., 1]).sum(axis=0)
        assert not rest[..., 1].any() and rest[..., 0].any()
        if task == "latch":
            np.testing.assert_array_equal(targets, marked > 0)
        else:
            np.testing.assert_allclose(targets, 0.5 + marked / 4, atol=1e-6)
            guessed = abs(0.5 - long_gap.adding(0, 20_000, rng)[1]) < 0.04
            assert guessed.mean() == pytest.approx(long_gap.CHANCE["adding"], abs=0.01)


def test_gates_begin_so_that_they_remember(rng):
    T, H = 100, 64
    lstm, gru = fastrnn.LSTM(2, H), fastrnn.GRU(2, H)
    for layer in (lstm, gru):
        long_gap.begin(layer, T, rng)
        for matrix in layer.params["weight_hh_l0"].reshape(-1, H, H):
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(H), atol=1e-5)
        keep = 1 / (1 + np.exp(-layer.params["bias_ih_l0"][H : 2 * H]))
        steps = 1 / (1 - keep)
        assert 2 <= steps.min() < 20 and 80 < steps.max() <= T


def test_gates_bridge_a_gap_that_a_plain_rnn_does_not(quick):
    numbers, folder = quick("long_gap")
    for task in long_gap.TASKS:
        chance = numbers["chance"][task]
        success = {
            (cell, gap): numbers[task][cell][gap][0]["success"] for cell in long_gap.CELLS for gap in ("10", "100")
        }
        assert success["RNN", "10"] > chance + 0.1, task
        assert success["RNN", "100"] < (chance + 1) / 2, task
        for cell in ("GRU", "LSTM"):
            assert min(success[cell, "10"], success[cell, "100"]) > 0.9, (task, cell)
    picture = (folder / "long_gap.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 150_000
