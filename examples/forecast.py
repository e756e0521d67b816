"""Forecasts: the sunspots of the next eleven years, by an LSTM, a linear autoregression and simpler rules.

Yule fitted the first autoregression to the yearly sunspot numbers ("On a method of investigating periodicities in
disturbed series", 1927), and Weigend, Huberman and Rumelhart a network ("Predicting the future: a connectionist
approach", 1990), trained on 1700 to 1920. This program does the same; the test years are 1921 to 2008. The LSTM reads
the series once and predicts, after each year, the next eleven. Its size and training, and the order of the
autoregression (statsmodels' AutoReg), are chosen in the same way: by three periods of forty years before 1921, each
forecast by a model fitted to the earlier years. No forecast uses later test years.

    python examples/forecast.py

Result: the autoregression wins. It is clearly better than the LSTM for the next year, and slightly later; the mean of
several LSTMs beats the value of eleven years before, some single LSTMs do not. A nearly linear series of 221 numbers,
and test values above all of them, favour the autoregression: an LSTM trained without randomly scaled copies of the
series is much worse.
"""

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

K = 11  # years ahead
TRAINED, TESTED = 1921, 2009  # the first year that no training sees, and the first after the test
FOLDS = (1801, 1841, 1881)  # validation begins, for forty years each


def load_sunspots():
    """Years (n,) and the mean sunspot numbers (n,) of them."""
    from statsmodels.datasets import sunspots

    table = sunspots.load_pandas().data
    return table["YEAR"].to_numpy().astype(int), table["SUNACTIVITY"].to_numpy()


def errors(forecasts, series, begin, end):
    """The root mean square error (K,) of 1, ..., K years ahead, each for the same years `begin` to `end`.

    forecasts[t, k], made at t, is for t + 1 + k; the forecasts of the first test years are from the last training
    years.
    """
    made = [forecasts[begin - 1 - k : end - 1 - k, k] for k in range(K)]
    return np.sqrt(np.mean((np.array(made) - series[begin:end]) ** 2, axis=1))


# Rules and the autoregression -------------------------------------------------------------------


def persistence(series):
    return np.repeat(series[:, None], K, axis=1)


def cycle_before(series):
    """Forecasts each year by the value of eleven years before."""
    forecasts = np.full((len(series), K), np.nan)
    forecasts[K - 1 :] = np.lib.stride_tricks.sliding_window_view(series, K)
    return forecasts


def autoregression(series, trained, order):
    """Forecasts (n, K) by an autoregression fitted to series[:trained], for the years from `trained` on."""
    from statsmodels.tsa.ar_model import AutoReg

    fitted = AutoReg(series[:trained], order).fit()
    forecasts = np.full((len(series), K), np.nan)
    for t in range(trained - K, len(series)):
        forecasts[t] = fitted.apply(series[: t + 1]).forecast(K)
    return forecasts


# The model --------------------------------------------------------------------------------------

WARM_UP = 11  # years read before a forecast counts


class Forecaster:
    """An LSTM that reads the series, and a linear head that predicts, after each step, the next K values."""

    def __init__(self, hidden, rng, dtype=np.float32):
        self.lstm = fastrnn.LSTM(1, hidden, dtype=dtype, rng=rng)
        self.head = training.linear(hidden, K, rng, dtype)
        self.parts = [self.lstm, self.head]

    def gradient(self, x, targets, scale):
        """The loss of x (T, B, 1), its gradient by `parts`.

        targets (T - WARM_UP, 1, K) have scale 1, and scale (B, 1) is the scale of each sequence.
        """
        output, _, tape = self.lstm.forward(x)
        rows = output[WARM_UP:]
        scaled, head_tape = self.head.forward(rows)
        forecasts = scaled / scale
        loss, d_forecasts = fastrnn.mean_squared_error(forecasts, np.broadcast_to(targets, forecasts.shape))
        d_output = np.zeros_like(output)
        d_output[WARM_UP:], d_head = self.head.backward(head_tape, d_forecasts / scale)
        _, _, d_lstm = self.lstm.backward(tape, d_output)
        return loss, [d_lstm, d_head]

    def __call__(self, x):
        output, _ = self.lstm(x)
        return self.head(output)


# The experiment ---------------------------------------------------------------------------------

B, RATE = 8, 0.01


def network(series, trained, hidden, noise, iterations, widest, seed):
    """Forecasts (n, K) by an LSTM trained on series[:trained], with noise on it, scaled by 1/widest to widest."""
    rng = np.random.default_rng(seed)
    unit = series[:trained].std()
    z = (series / unit).astype(np.float32)
    model = Forecaster(hidden, rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=RATE)
    T = trained - K
    targets = np.lib.stride_tricks.sliding_window_view(z[1:trained], K)[WARM_UP:, None]

    def step(iteration):
        scale = np.exp(rng.uniform(-1, 1, size=(B, 1)) * np.log(widest)).astype(np.float32)
        x = scale * z[:T, None, None] + noise * rng.standard_normal((T, B, 1), dtype=np.float32)
        loss, gradient = model.gradient(x, targets, scale)
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = RATE * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model(z[:, None, None])[:, 0] * unit


ORDERS = [(order,) for order in range(1, 21)]
WIDEST = 2.0
SETTINGS = [(H, noise, n, WIDEST) for H in (8, 16, 32) for noise in (0.1, 0.3) for n in (150, 300, 600)]


def networks(series, trained, *setting):
    """The mean forecast of three LSTMs."""
    return np.mean([network(series, trained, *setting, seed) for seed in range(3)], axis=0)


def validation_error(forecaster, series, begin, *setting):
    """The mean error, in the next forty years, of models fitted to series[:begin]."""
    return float(errors(forecaster(series[: begin + 40], begin, *setting), series, begin, begin + 40).mean())


def choose(forecaster, series, begins, settings, description):
    """The setting with the least mean error over the validation periods, and that error."""
    jobs = [(forecaster, series, begin, *setting) for setting in settings for begin in begins]
    found = np.reshape(training.side_by_side(validation_error, jobs, description), (len(settings), -1)).mean(axis=1)
    best = int(found.argmin())
    return settings[best], float(found[best])


# Figures ----------------------------------------------------------------------------------------

LSTM, AR, *_, GREY = figures.CYCLE


def draw_years(years, series, forecasts, runs, path):
    """The test years, and their forecasts of one year and five years before."""
    fig, axes = figures.figure(7.6, 4.4, nrows=2, sharex=True, sharey=True, dpi=110)
    test = slice(TRAINED - years[0], TESTED - years[0])
    for axis, k in zip(axes, (0, 4)):
        made = slice(test.start - 1 - k, test.stop - 1 - k)
        axis.fill_between(years[test], series[test], color=figures.GRID, linewidth=0)
        axis.plot(years[test], series[test], color=figures.INK, linewidth=0.8)
        of_runs = [run[made, k] for run in runs]
        band = np.min(of_runs, axis=0), np.max(of_runs, axis=0)
        axis.fill_between(years[test], *band, color=LSTM, alpha=0.2, linewidth=0)
        axis.plot(years[test], forecasts["autoregression"][made, k], color=AR, linewidth=1.4)
        axis.plot(years[test], forecasts["LSTM, mean of all"][made, k], color=LSTM, linewidth=1.4)
        axis.set_title("One year ahead" if k == 0 else "Five years ahead")
        axis.set(ylabel="sunspot number", ylim=(-10, 225))
    axes[0].set_xlim(TRAINED, TESTED - 1)
    names = (0.02, "measured", GREY), (0.13, "autoregression", AR), (0.3, "LSTM, mean and range of seeds", LSTM)
    for x, text, colour in names:
        axes[0].text(x, 0.97, text, color=colour, transform=axes[0].transAxes, va="top")
    figures.save(fig, path)


def draw_errors(table, of_runs, path):
    """table: name -> errors (K,); of_runs (seeds, K)."""
    fig, axis = figures.figure(7.2, 4.4)
    ahead = np.arange(1, K + 1)
    for name, look in (
        ("persistence", {"color": GREY, "linestyle": "-.", "linewidth": 1.2}),
        ("mean until 1920", {"color": GREY, "linestyle": ":"}),
        ("11 years before", {"color": GREY, "linestyle": "--", "linewidth": 1.2}),
        ("LSTM, not scaled", {"color": LSTM, "linestyle": "--"}),
        ("LSTM, mean of all", {"color": LSTM}),
        ("autoregression", {"color": AR}),
    ):
        axis.plot(ahead, table[name], label=name, **look)
    band = {"color": LSTM, "alpha": 0.2, "linewidth": 0, "label": "LSTM, range of seeds"}
    axis.fill_between(ahead, of_runs.min(axis=0), of_runs.max(axis=0), **band)
    axis.set(xlabel="years ahead", xticks=ahead, xlim=(0.8, K + 0.2), ylim=(0, None))
    axis.set(ylabel="sunspot number", title="Root mean square error, 1921 to 2008")
    fig.legend(loc="outside lower center", ncols=4)
    figures.save(fig, path)


# Results ----------------------------------------------------------------------------------------

CHOSEN = {"order": 9, "setting": (32, 0.3, 150, WIDEST)}  # by the full run, for the quick one


def main(options):
    years, series = load_sunspots()
    trained, end = TRAINED - years[0], TESTED - years[0]
    numbers = {}
    order, setting = CHOSEN["order"], CHOSEN["setting"]
    if not options.quick:
        begins = [year - years[0] for year in FOLDS]
        (order,), error = choose(autoregression, series, begins, ORDERS, "validation of orders")
        numbers["validation of the autoregression"] = error
        setting, error = choose(networks, series, begins, SETTINGS, "validation of networks")
        numbers["validation of the LSTM"] = error
    seeds = range(options.seed, options.seed + (4 if options.quick else 10))
    not_scaled = (*setting[:-1], 1.0)
    jobs = [(series, trained, *how, seed) for how in (setting, not_scaled) for seed in seeds]
    made = np.reshape(training.side_by_side(network, jobs, "networks"), (2, len(seeds), -1, K))

    forecasts = {
        "autoregression": autoregression(series, trained, order),
        "LSTM, mean of all": made[0].mean(axis=0),
        "LSTM, not scaled": made[1].mean(axis=0),
        "11 years before": cycle_before(series),
        "persistence": persistence(series),
        "mean until 1920": np.full((len(series), K), series[:trained].mean()),
    }
    table = {name: errors(of, series, trained, end) for name, of in forecasts.items()}
    of_runs = np.array([errors(of, series, trained, end) for of in made[0]])
    draw_years(years, series, forecasts, made[0], options.output / "forecast_years.png")
    draw_errors(table, of_runs, options.output / "forecast_errors.png")

    shown = [0, 1, 4, 10]
    hidden, noise, iterations, widest = setting
    print(f"{years[0]} to {TRAINED - 1} to train on, {TRAINED} to {TESTED - 1} to test: AR({order}), LSTM of {hidden},")
    print(f"noise {noise}, {iterations} iterations, scaled by 1/{widest:g} to {widest:g}; root mean square errors:")
    print(f"{'years ahead':20}" + "".join(f"{k + 1:>8}" for k in shown) + f"{'1 to 11':>10}")
    for name, error in table.items():
        print(f"{name:20}" + "".join(f"{error[k]:8.1f}" for k in shown) + f"{error.mean():10.1f}")
    mean = of_runs.mean(axis=1)
    print(f"each of {len(seeds)} LSTMs alone: 1 to 11 {mean.mean():.1f}, {mean.min():.1f} to {mean.max():.1f}")
    numbers |= {
        "order": order,
        "setting": dict(zip(("hidden", "noise", "iterations", "widest"), setting)),
        "errors": {name: error.tolist() for name, error in table.items()},
        "LSTM of each seed": of_runs.tolist(),
    }
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
