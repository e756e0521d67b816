"""examples/many_to_one.py: its predictions, and the gradients of its model."""

import numpy as np
import pytest

import many_to_one
from test_training import finite_differences


@pytest.mark.parametrize("always", [False, True])
def test_gradients_by_finite_differences(always):
    rng = np.random.default_rng(0)
    model = many_to_one.Classifier(3, 4, 2, rng, np.float64)
    x, lengths, labels = rng.normal(size=(5, 3, 3)), np.array([5, 2, 3]), np.array([0, 3, 1])
    _, gradient = model.gradient(x, lengths, labels, always)
    for part, d_params in zip(model.parts, gradient, strict=True):
        expected = finite_differences(part.params.flat, lambda: model.gradient(x, lengths, labels, always)[0])
        np.testing.assert_allclose(d_params.flat, expected, rtol=1e-6, atol=1e-9)


def test_the_vowels_are_those_published_and_standardized_by_the_training_set():
    train, test = many_to_one.load_vowels()
    assert (len(train), len(test)) == (270, 370) and train.x.dtype == np.float32
    assert train.x.shape == (26, 270, 12) and test.x.shape == (29, 370, 12)
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    steps = np.concatenate([train.x[:length, b] for b, length in enumerate(train.lengths)])
    np.testing.assert_allclose(steps.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(steps.std(axis=0), 1, atol=1e-5)
    assert abs(np.concatenate([test.x[:length, b] for b, length in enumerate(test.lengths)]).mean()) > 1e-4
    for sequences in train, test:
        assert not any(sequences.x[length:, b].any() for b, length in enumerate(sequences.lengths))


def test_folds_keep_what_was_recorded_together():
    labels = np.tile([0, 1], 9)
    assert many_to_one.folds(labels).tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_speakers_and_digits_are_told_apart(quick):
    numbers, folder = quick("many_to_one")
    for name in "vowels", "digits":
        found = numbers[name]
        assert min(found["accuracy"]) >= 0.95
        assert found["alone as in a batch"]
        # only the network trained at every step predicts early
        late, early = found["certainty"], found["certainty, trained always"]
        assert late[-1] > 0.9 and early[1] > late[1] + 0.2
        assert 20_000 < (folder / f"many_to_one_{name}.png").stat().st_size < 150_000
    # all digits have the same length, so predictions before the last row are near chance
    assert numbers["digits"]["certainty"][1] < 0.3
    assert numbers["digits"]["without order"] < 0.7
