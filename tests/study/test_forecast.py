"""examples/forecast.py: no forecast uses later years; the gradients; and the result of the example."""

import numpy as np
import pytest

import forecast
from test_training import finite_differences

SERIES = np.abs(np.random.default_rng(0).normal(size=90)).cumsum() % 7


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(0)
    model = forecast.Forecaster(2, rng, np.float64)
    T = forecast.WARM_UP + 3
    x, targets, scale = rng.normal(size=(T, 2, 1)), rng.normal(size=(3, 1, forecast.K)), np.array([[0.5], [2.0]])
    _, gradient = model.gradient(x, targets, scale)
    for part, d_params in zip(model.parts, gradient, strict=True):
        expected = finite_differences(part.params.flat, lambda: model.gradient(x, targets, scale)[0])
        np.testing.assert_allclose(d_params.flat, expected, rtol=1e-6, atol=1e-9)


FORECASTERS = {
    "persistence": lambda series: forecast.persistence(series),
    "cycle_before": lambda series: forecast.cycle_before(series),
    "autoregression": lambda series: forecast.autoregression(series, 60, 2),
    "network": lambda series: forecast.network(series, 60, 4, 0.1, 5, 2.0, 0),
}


@pytest.mark.parametrize("name", FORECASTERS)
def test_no_forecast_depends_on_later_years(name):
    before = FORECASTERS[name](SERIES)
    assert before.shape == (90, forecast.K) and np.isfinite(before[60:]).all()
    changed = SERIES.copy()
    changed[70:] += 5
    after = FORECASTERS[name](changed)
    np.testing.assert_array_equal(before[:70], after[:70])
    assert not np.array_equal(before[70:], after[70:])


def test_the_rules_and_the_errors_are_of_the_years_they_should_be():
    series = np.arange(40.0)
    np.testing.assert_allclose(forecast.errors(forecast.persistence(series), series, 20, 30), np.arange(1, 12))
    np.testing.assert_allclose(forecast.errors(forecast.cycle_before(series), series, 22, 30), 11)
    cycles = 5 + np.sin(np.arange(90) * 2 * np.pi / 11)  # an autoregression of order 2 without noise
    linear = forecast.autoregression(cycles, 60, 2)
    np.testing.assert_allclose(forecast.errors(linear, cycles, 60, 90), 0, atol=1e-9)
    assert np.isnan(linear[: 60 - forecast.K]).all()


def test_the_network_comes_near_the_autoregression_and_both_beat_the_rules(quick):
    numbers, folder = quick("forecast")
    mean = {name: np.mean(errors) for name, errors in numbers["errors"].items()}
    line, network = mean["autoregression"], mean["LSTM, mean of all"]
    assert max(line, network) < mean["11 years before"] < mean["persistence"]
    assert abs(network / line - 1) < 0.1
    assert network < mean["LSTM, not scaled"]
    # one year ahead the autoregression is the best there is
    assert numbers["errors"]["autoregression"][0] == min(errors[0] for errors in numbers["errors"].values())
    for name in "forecast_years.png", "forecast_errors.png":
        assert 20_000 < (folder / name).stat().st_size < 150_000
