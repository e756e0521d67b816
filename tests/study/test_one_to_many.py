"""examples/one_to_many.py: it writes the names of digits, and its gradient is right."""

import numpy as np
import pytest

from test_training import finite_differences


@pytest.fixture
def one_to_many():
    pytest.importorskip("matplotlib")
    import one_to_many

    return one_to_many


@pytest.mark.parametrize("kind", ["Writer", "Classifier"])
def test_gradients(one_to_many, kind):
    rng = np.random.default_rng(0)
    model = getattr(one_to_many, kind)(3, 4, rng, np.float64)
    for part in model.parts:  # away from biases of zero, where a rectifier with zero input has its kink
        part.params.flat += 0.1 * rng.normal(size=part.params.flat.shape)
    images, labels = rng.normal(size=(3, 64)), np.array([6, 7, 1])  # six, seven and one: of unequal lengths
    _, gradient = model.gradient(images, labels)
    for part, d_part in zip(model.parts, gradient, strict=True):
        expected = finite_differences(part.params.flat, lambda: model.gradient(images, labels)[0])
        np.testing.assert_allclose(d_part.flat, expected, rtol=1e-5, atol=1e-8)


def test_what_is_written_is_what_the_chain_rule_says(one_to_many):
    """The stream, step by step, and the layer, name by name, give the same probabilities."""
    rng = np.random.default_rng(0)
    writer = one_to_many.Writer(8, 16, rng, np.float64)
    images = rng.normal(size=(5, 64))
    ids, probabilities = writer.write(images, steps=1)
    first = np.eye(len(one_to_many.ALPHABET))[one_to_many.SPELLED[:, 0]]  # of each name
    assert (ids == probabilities.argmax(axis=2)).all()
    assert (writer.probabilities(images) <= probabilities[0] @ first.T).all()
    loss, _ = writer.gradient(images, np.full(5, 3))
    mean = -np.log(writer.probabilities(images)[:, 3]).mean() / one_to_many.LENGTHS[3]
    assert loss == pytest.approx(mean, rel=1e-12)


def test_a_name_is_read_up_to_the_end_mark(one_to_many):
    assert [one_to_many.decode(ids) for ids in one_to_many.SPELLED] == one_to_many.NAMES
    assert one_to_many.decode(one_to_many.SPELLED[3, :5]) == "three…"


def test_names_are_written_as_well_as_digits_are_told_apart(quick):
    numbers, folder = quick("one_to_many")
    (exact,), (classifier,), (bits,) = numbers["exact"], numbers["classifier"], numbers["bits"]
    assert exact > 0.92 and exact > classifier - 0.05
    assert numbers["no name"][0] <= 2 and numbers["on the ten names"][0] > 0.98
    first, parting, rest = bits
    assert first > 10 * rest and parting > 3 * rest
    picture = (folder / "one_to_many.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 150_000
