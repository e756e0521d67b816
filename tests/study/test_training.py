"""examples/training.py: its gradients by finite differences, its optimizer, its loop."""

import math

import numpy as np
import pytest

import fastrnn
import training


def finite_differences(flat, loss, step=1e-6):
    """The gradient of loss() with respect to flat (n,)."""
    gradient = np.empty_like(flat)
    for i, value in enumerate(flat.copy()):
        flat[i] = value + step
        above = loss()
        flat[i] = value - step
        gradient[i] = (above - loss()) / (2 * step)
        flat[i] = value
    return gradient


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_a_linear_head_and_the_softmax_loss(rng, masked):
    head = training.Linear(3, 4, rng, np.float64)
    head.params["bias"][...] = rng.normal(size=4)
    rows, targets = rng.normal(size=(5, 2, 3)), rng.integers(4, size=(5, 2))
    mask = np.arange(5)[:, None] < [3, 5] if masked else None
    loss, d_logits = training.softmax_loss(head(rows), targets, mask)
    d_rows, d_params = head.backward(rows, d_logits)

    p = np.exp(head(rows)) / np.exp(head(rows)).sum(axis=-1, keepdims=True)
    losses = -np.log(np.take_along_axis(p, targets[..., None], axis=-1))[..., 0]
    assert loss == pytest.approx(losses[mask].mean() if masked else losses.mean(), rel=1e-12)

    def value():
        return training.softmax_loss(head(rows), targets, mask)[0]

    np.testing.assert_allclose(d_params.flat, finite_differences(head.params.flat, value), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(d_rows.ravel(), finite_differences(rows.reshape(-1), value), rtol=1e-6, atol=1e-9)


def test_nothing_counts_is_a_loss_of_zero(rng):
    loss, d_logits = training.softmax_loss(rng.normal(size=(2, 3)), np.array([0, 1]), np.zeros(2, bool))
    assert loss == 0 and not d_logits.any()


def test_gradients_of_an_embedding_and_the_squared_loss(rng):
    embedding = training.Embedding(5, 3, rng, np.float64)
    ids, targets = np.array([[4, 0, 4], [1, 4, 0]]), rng.normal(size=(2, 3, 3))
    loss, d_vectors = training.squared_loss(embedding(ids), targets)
    assert loss == pytest.approx(np.mean((embedding(ids) - targets) ** 2))
    d_params = embedding.backward(ids, d_vectors)
    expected = finite_differences(embedding.params.flat, lambda: training.squared_loss(embedding(ids), targets)[0])
    np.testing.assert_allclose(d_params.flat, expected, rtol=1e-6, atol=1e-9)
    assert not embedding.backward(np.zeros((0, 2), int), np.zeros((0, 2, 3))).flat.any()


def test_all_computes_in_single_precision(rng):
    head, embedding = training.Linear(3, 4, rng), training.Embedding(5, 3, rng)
    ids = np.array([1, 2, 2])
    rows = embedding(ids)
    logits = head(rows)
    _, d_logits = training.softmax_loss(logits.copy(), np.array([0, 1, 3]))
    d_rows, d_head = head.backward(rows, d_logits)
    _, d_outputs = training.squared_loss(logits, np.zeros_like(logits))
    arrays = rows, logits, d_logits, d_rows, d_head.flat, d_outputs, embedding.backward(ids, d_rows).flat
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_cross_entropy_of_extreme_scores():
    logits = np.array([[1000.0, 0, -1000], [0, 0, 0]], np.float32)
    losses, softmax = training.cross_entropy(logits, np.array([1, 2]))
    np.testing.assert_allclose(losses, [1000, math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(softmax, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_softmax_of_extreme_scores_and_of_what_does_not_count():
    scores = np.array([[[1000.0, 1000], [-1000, 0], [-np.inf, 3]]], np.float32)
    result = training.softmax(scores)
    assert result is scores
    np.testing.assert_array_equal(result, [[[0.5, 0.5], [0, 1], [0, 1]]])


def test_adam_follows_the_paper(monkeypatch):
    monkeypatch.setattr(training.Adam, "BLOCK", 4)  # several blocks, the last one shorter
    rng = np.random.default_rng(0)
    flats = [rng.normal(size=11), rng.normal(size=3)]
    expected = [flat.copy() for flat in flats]
    adam = training.Adam(flats)
    m, v = np.zeros((2, 14))
    for t in range(1, 6):
        d_flats = [rng.normal(size=11), rng.normal(size=3)]
        g = 0.3 * np.concatenate(d_flats)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        step = 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected = [expected[0] - step[:11], expected[1] - step[11:]]
        adam.step(flats, d_flats, rate=0.01, t=t, scale=0.3)
    np.testing.assert_allclose(np.concatenate(flats), np.concatenate(expected), rtol=1e-12)


def test_clipping_limits_the_norm_of_the_whole_gradient():
    d_flats = [np.array([3.0, 0]), np.array([4.0])]
    assert training.clip_scale(d_flats, 1.0) == pytest.approx(1 / 5)
    assert training.clip_scale(d_flats, 6.0) == 1
    assert training.clip_scale([np.zeros(2)], 1.0) == 1


def test_the_optimizer_clips_the_gradient_of_all_parts_together(rng):
    parts = [training.Linear(2, 1, rng, np.float64), training.Linear(1, 1, rng, np.float64)]
    before = [part.params.copy() for part in parts]
    twin = [part.copy() for part in before]
    optimizer = training.Optimizer(parts, rate=0.1, clip=1.0)
    d = [part.params.zeros_like() for part in parts]
    d[0].flat[...], d[1].flat[...] = 3, 4
    scale = training.clip_scale([one.flat for one in d], 1.0)
    training.Adam([one.flat for one in twin]).step(
        [one.flat for one in twin], [one.flat.copy() for one in d], 0.1, 1, scale
    )
    optimizer.step(d)
    for part, expected, start in zip(parts, twin, before, strict=True):
        assert part.params == expected and part.params != start


def test_batches_show_every_example_once_a_pass(rng):
    drawn = training.batches(10, 3, rng)
    first, second = (np.concatenate([next(drawn) for _ in range(3)]) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 9 and set(first) <= set(range(10))
    assert not np.array_equal(first, second)
    assert len(next(training.batches(2, 5, rng))) == 2


def test_a_run_returns_its_losses_ends_when_told_and_stops_where_it_diverges(capsys):
    assert training.run(lambda k: 1 / (k + 1), 4) == [1, 1 / 2, 1 / 3, 1 / 4]
    assert len(training.run(lambda k: 0.0, 10, until=lambda k: k == 4)) == 5
    with pytest.raises(training.Failure, match="toy: the loss is nan at iteration 2"):
        training.run(lambda k: math.nan if k == 2 else 1.0, 5, "toy")


def test_jobs_side_by_side_come_back_in_order_and_run_on_one_thread_each():
    assert training.side_by_side(divmod, [(7, 2), (9, 4), (5, 5)]) == [(3, 1), (2, 1), (1, 0)]
    assert training.side_by_side(fastrnn.get_num_threads, [()]) == [1]
