"""examples/training.py: how its heads begin, its embeddings, its loop."""

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


def test_a_head_begins_with_the_draws_of_its_weights_alone(rng):
    head = training.linear(3, 4, rng, np.float64)
    drawn = np.random.default_rng(0).uniform(-1, 1, size=(4, 3)) / math.sqrt(3)
    np.testing.assert_array_equal(head.params["weight"], drawn)
    assert not head.params["bias"].any() and head.dtype == np.float64


def test_gradients_of_an_embedding(rng):
    embedding = training.Embedding(5, 3, rng, np.float64)
    ids, targets = np.array([[4, 0, 4], [1, 4, 0]]), rng.normal(size=(2, 3, 3))
    _, d_vectors = fastrnn.mean_squared_error(embedding(ids), targets)
    d_params = embedding.backward(ids, d_vectors)
    expected = finite_differences(embedding.params.flat, lambda: np.mean((embedding(ids) - targets) ** 2))
    np.testing.assert_allclose(d_params.flat, expected, rtol=1e-6, atol=1e-9)
    assert not embedding.backward(np.zeros((0, 2), int), np.zeros((0, 2, 3))).flat.any()


def test_embeddings_compute_in_single_precision(rng):
    embedding, ids = training.Embedding(5, 3, rng), np.array([1, 2, 2])
    vectors = embedding(ids)
    assert vectors.dtype == embedding.backward(ids, vectors).flat.dtype == np.float32


def test_softmax_of_extreme_scores_and_of_what_does_not_count():
    scores = np.array([[[1000.0, 1000], [-1000, 0], [-np.inf, 3]]], np.float32)
    result = training.softmax(scores)
    assert result is scores
    np.testing.assert_array_equal(result, [[[0.5, 0.5], [0, 1], [0, 1]]])


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
