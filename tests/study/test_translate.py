"""examples/translate.py: unambiguous dates, gradients through attention, and the result of training."""

import datetime

import numpy as np
import pytest

import translate_dates
import translate_model
from test_training import finite_differences


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_reader_who_puts_the_day_first_and_one_who_does_not_read_the_same(rng):
    from dateutil import parser  # matplotlib needs it, too

    ordinals, held_out = translate_dates.all_dates(rng)
    assert not set(ordinals) & set(held_out) and len(ordinals) + len(held_out) == 73049
    assert not set(translate_dates.SEEN) & set(translate_dates.UNSEEN)
    for form in translate_dates.SEEN + translate_dates.UNSEEN:
        for ordinal in held_out[:300]:
            date = datetime.date.fromordinal(int(ordinal))
            if translate_dates.clear(form, date):
                text = translate_dates.write(form, date)
                # of 2004/03/02 dateutil with dayfirst says February, of which no reader would think
                for dayfirst in (False,) if form.startswith("{Y}") else (False, True):
                    assert parser.parse(text, dayfirst=dayfirst, fuzzy=True).date() == date, text


def test_what_is_not_clear_is_not_drawn(rng):
    date = datetime.date(2004, 3, 2)
    assert not translate_dates.clear("{d}/{m}/{Y}", date) and not translate_dates.clear("{dd}.{mm}.{Y}", date)
    assert translate_dates.clear("{d}/{m}/{Y}", datetime.date(2004, 3, 13))
    assert translate_dates.clear("{Y}/{mm}/{dd}", date) and translate_dates.clear("{d} {mon} {Y}", date)
    pairs = translate_dates.draw_pairs(
        ["{d}/{m}/{Y}", "{weekday} the {th} of {month} {Y}"], [date.toordinal(), 700000], 6, rng
    )
    assert {pairs.text(b) for b in (0, 2, 4)} == {"15/7/1917"}
    again = pairs[np.array([4, 0])]
    assert again.x.shape == (9, 2) and again.text(1) == "15/7/1917"
    assert "".join(translate_dates.SYMBOLS[i] for i in again.targets[:, 0]) == "1917-07-15"


def test_gradients_of_attention(rng):
    S, T, B, H, M = 5, 3, 2, 3, 4
    attention = translate_model.Attention(H, M, rng, np.float64)
    attention.params.flat[...] = rng.normal(size=attention.params.flat.shape)
    queries, read, lengths = rng.normal(size=(T, B, H)), rng.normal(size=(S, B, M)), np.array([5, 2])
    d_means = rng.normal(size=(T, B, M))
    _, weights, tape = attention(queries, read, lengths)
    np.testing.assert_allclose(weights.sum(axis=2), 1)
    assert (weights[1, :, 2:] == 0).all() and (weights[1, :, :2] > 0).all()
    gradients = attention.backward(tape, d_means)

    def loss():
        return np.sum(attention(queries, read, lengths)[0] * d_means)

    for array, gradient in zip((queries, read), gradients[:2], strict=True):
        expected = finite_differences(array.reshape(-1), loss)
        np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-6, atol=1e-9)
    expected = finite_differences(attention.params.flat, loss)
    np.testing.assert_allclose(gradients[2].flat, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("attention", [True, False])
def test_gradients_of_the_translator(rng, attention):
    model = translate_model.Translator(2, 3, attention, rng, np.float64)
    dates = [datetime.date(2004, 3, 2), datetime.date(1987, 12, 31)]
    pairs = translate_dates.encode(["2 Mar 2004", "12/31/1987 ."], dates)
    _, gradient = model.gradient(pairs)
    for part, d_part in zip(model.parts, gradient, strict=True):
        expected = finite_differences(part.params.flat, lambda: model.gradient(pairs)[0])
        np.testing.assert_allclose(d_part.flat, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("attention", [True, False])
def test_step_by_step_and_in_one_call_are_the_same_model(rng, attention):
    """With the stream's output as targets, its symbols are the most probable ones of the training call."""
    model = translate_model.Translator(4, 8, attention, rng, np.float64)
    pairs = translate_dates.draw_pairs(translate_dates.SEEN, np.arange(700000, 700100), 24, rng)
    written, weights = model.translate(pairs)
    losses = []
    for symbol in range(len(translate_dates.SYMBOLS)):  # none is more probable in the last place than the one written
        targets = written.copy()
        targets[-1] = symbol
        losses.append(
            [model.gradient(translate_dates.Pairs(pairs.x, pairs.lengths, targets)[[b]])[0] for b in range(24)]
        )
    np.testing.assert_array_equal(np.argmin(losses, axis=0), written[-1])
    assert (weights is not None) == attention


def test_attention_learns_to_read_dates_and_formats_never_seen(quick):
    numbers, folder = quick("translate")
    assert numbers["exact"]["attention"][0] > 0.98 > 0.5 > numbers["exact"]["without"][0]
    assert np.mean(numbers["unseen formats"]["attention"]) > 0.75
    ((on_the_year, later),) = numbers["weight on the year"]
    assert on_the_year > 0.9 and later < 0.1
    for name in "translate", "translate_attention":
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 150_000
