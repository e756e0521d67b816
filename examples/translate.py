"""Many to many with attention: written dates, translated into ISO dates character by character.

"Tuesday the 2nd of March, 2004" is "2004-03-02". A bidirectional LSTM (the encoder) reads the characters, a second LSTM
(the decoder) writes the date. For each character, attention scores the encoder's outputs against the decoder's query
and weights them (Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
2015; here as Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015: after
the decoder, which in training therefore runs over all steps in one call): translate_model.py. No day is both in
training and in test, and some formats are only in the test: translate_dates.py.

    python examples/translate.py

Results: the weights, learned without supervision, align the output with the input. Without attention the model must
encode the whole date in one vector, and learns later if at all. Accuracy on unseen formats depends on the similarity of
their parts to those of the training formats.
"""

import datetime

import training  # first, because NumPy's threads are set there
import numpy as np
from translate_dates import SEEN, SYMBOLS, UNSEEN, all_dates, draw_pairs, encode, write
from translate_model import Translator

import fastrnn
import figures

# Training ---------------------------------------------------------------------------------------

KINDS = {  # (E, H), rate, whether with attention
    "attention": ((16, 32), 0.01, True),
    "without": ((16, 32), 0.01, False),
    "without, H = 128": ((32, 128), 0.005, False),
}
BATCH = 64
CURVE = 24  # points, evenly apart on a logarithmic scale


def fit(sizes, rate, attention, train, test, iterations, seed):
    """A trained translator, and its test accuracies during training: (iterations, share) each."""
    rng = np.random.default_rng(seed)
    model = Translator(*sizes, attention, rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=rate)
    drawn = training.batches(len(train), BATCH, rng)
    points = set(np.geomspace(20, iterations, CURVE).astype(int))
    curve = []

    def step(iteration):
        loss, gradient = model.gradient(train[next(drawn)])
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = rate * (1 - iteration / iterations)
        optimizer.step(gradient)
        if iteration + 1 in points:
            curve.append((iteration + 1, float(model.exact(test).mean())))
        return loss

    training.run(step, iterations, None)
    return model, curve


# Figures ----------------------------------------------------------------------------------------


def draw_maps(model, pairs, path):
    """The weights of each pair: a row for each symbol written, a column for each character read."""
    written, weights = model.translate(pairs)
    width, gap = 46, 2.5  # of the picture and between maps, in letters
    corners, left, row = [], 0, 0
    for length in pairs.lengths:
        if left + length > width:
            left, row = 0, row + 1
        corners.append((left, row))
        left += length + gap
    inch = 9 / (width + 2)
    height = 12.5 * (row + 1)
    fig = figures.pyplot.figure(figsize=(9, inch * height), layout="none")
    for b, (left, row) in enumerate(corners):
        text = pairs.text(b)
        box = [(left + 1.5) / (width + 2), 1 - (12.5 * row + 11.7) / height, len(text) / (width + 2), 10 / height]
        axis = fig.add_axes(box)
        axis.imshow(weights[b, :, : len(text)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(text)), text, family="DejaVu Sans Mono")
        axis.set_yticks(range(len(written)), [SYMBOLS[i] for i in written[:, b]], family="DejaVu Sans Mono")
        for label, wrong in zip(axis.get_yticklabels(), written[:, b] != pairs.targets[:, b], strict=True):
            label.set_color(figures.CYCLE[1] if wrong else figures.INK)
        axis.xaxis.tick_top()
        axis.tick_params(length=0, pad=2)
        axis.grid(False)
        axis.spines[:].set_color(figures.GRID)
        axis.spines[:].set_visible(True)
    figures.save(fig, path)


def draw_learning(curves, unseen, path):
    """The share of right dates during training, for each model of each kind, and the final share of each unseen
    format."""
    fig, (left, right) = figures.figure(9, 3.8, ncols=2, width_ratios=[1.25, 1])
    for (name, runs), colour in zip(curves.items(), figures.CYCLE):
        runs = np.array(runs) * [1, 100]
        for run in runs:
            left.plot(*run.T, color=colour, linewidth=0.8, alpha=0.5)
        mean = runs.mean(axis=0)
        (_, H), _, attention = KINDS[name]
        left.plot(*mean.T, color=colour, label=f"{'with' if attention else 'without'} attention, H = {H}")
    left.plot([], [], "o-", color=figures.CYCLE[5], linewidth=0.8, alpha=0.5, markersize=4, label="one seed")
    last = int(mean[-1, 0])
    left.set(xscale="log", xlabel="batches", xlim=(20, 1.1 * last), ylim=(-1, 102))
    ticks = [k for k in (30, 100, 300, 1000, 3000) if k <= last]
    left.set_xticks(ticks, [f"{k:,}" for k in ticks])
    left.minorticks_off()
    left.set(ylabel="% of unseen dates without an error")
    left.set_title("With attention and without")

    attention = next(iter(unseen.values()))
    order = sorted(attention, key=lambda form: np.mean(attention[form]))
    for shares, colour in zip(unseen.values(), figures.CYCLE):
        for place, form in enumerate(order):
            percent = 100 * np.array(shares[form])
            right.plot(percent, np.full(len(percent), place), "o", color=colour, alpha=0.5, markersize=4)
    right.set_yticks(range(len(order)), [write(form, datetime.date(2031, 8, 22)) for form in order], fontsize=8)
    right.tick_params(axis="y", length=0)
    right.set(xlabel="% of unseen dates without an error", xlim=(-3, 103))
    right.set_title("Formats that were not in training")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(curves) + 1)
    figures.save(fig, path)


# Results ----------------------------------------------------------------------------------------

SHOWN = [  # format, date
    ("{weekday} the {th} of {month} {Y}", datetime.date(2004, 3, 2)),
    ("{mon}. {dd}, {Y}", datetime.date(1997, 9, 5)),
    ("{m}/{d}/{Y}", datetime.date(2023, 12, 31)),
    ("{d}/{m}/{Y}", datetime.date(2023, 12, 31)),
    ("{d} {month} {Y}, {weekday}", datetime.date(2062, 5, 19)),
    ("{weekday}, {d} {month} {Y}", datetime.date(2001, 7, 14)),
    ("{month} {Y}, the {th}", datetime.date(1914, 8, 3)),
]


def looks_at_the_year(model, pairs):
    """The weight on the year's digits while the year is written, and while the rest is written."""
    written, weights = model.translate(pairs)
    shares = []
    for b in range(len(pairs)):
        year = "".join(SYMBOLS[i] for i in pairs.targets[:4, b])
        start = pairs.text(b).index(year)
        on_it = weights[b, :, start : start + 4].sum(axis=1)
        shares.append((on_it[:4].mean(), on_it[5:].mean()))
    return np.mean(shares, axis=0).tolist()


def main(options):
    rng = np.random.default_rng(options.seed)
    ordinals, held_out = all_dates(rng)
    shown = [date.toordinal() for _, date in SHOWN]
    ordinals = ordinals[~np.isin(ordinals, shown)]
    n_pairs, n_each, iterations, seeds = (12_000, 30, 300, 1) if options.quick else (48_000, 250, 2400, 3)
    train = draw_pairs(SEEN, ordinals, n_pairs, rng)
    test = draw_pairs(SEEN, held_out, n_each * len(SEEN), rng)
    unseen = draw_pairs(UNSEEN, held_out, n_each * len(UNSEEN), rng)

    seeds = range(options.seed, options.seed + seeds)
    names = list(KINDS)[: 2 if options.quick else None]
    jobs = [(*KINDS[name], train, test[: 20 * len(SEEN)], iterations, seed) for name in names for seed in seeds]
    fitted = iter(training.side_by_side(fit, jobs, ", ".join(names)))
    fitted = {name: [next(fitted) for _ in seeds] for name in names}

    def by_format(model):
        return model.exact(unseen).reshape(-1, len(UNSEEN)).mean(axis=0)

    exact = {name: [float(model.exact(test).mean()) for model, _ in runs] for name, runs in fitted.items()}
    formats = {name: np.stack([by_format(model) for model, _ in runs], axis=1) for name, runs in fitted.items()}
    curves = {name: [curve for _, curve in runs] for name, runs in fitted.items()}
    translators = [model for model, _ in fitted["attention"]]
    numbers = {
        "exact": exact,
        "batches to 98%": [next((k for k, share in curve if share >= 0.98), None) for curve in curves["attention"]],
        "unseen formats": {name: shares.mean(axis=0).tolist() for name, shares in formats.items()},
        "each unseen format": {name: dict(zip(UNSEEN, shares.tolist())) for name, shares in formats.items()},
        "weight on the year": [looks_at_the_year(model, test) for model in translators],
    }
    draw_learning(curves, numbers["each unseen format"], options.output / "translate.png")
    pairs = encode([write(*one) for one in SHOWN], [date for _, date in SHOWN])
    draw_maps(translators[0], pairs, options.output / "translate_attention.png")

    def spread(shares):
        return training.spread(shares, ".2%").rjust(27)

    print(f"{len(train)} pairs to train on in {len(SEEN)} formats, {iterations} batches of {BATCH},"
          f" {training.number_of(seeds)}")  # fmt: skip
    print(f"without an error, of {len(test)} unseen dates in these formats, and of {len(unseen)} in unseen ones:")
    for name in names:
        print(f"  {name:18}{spread(exact[name])}   {spread(numbers['unseen formats'][name])}")
    print("each unseen format, with attention:")
    for form, shares in sorted(numbers["each unseen format"]["attention"].items(), key=lambda one: -np.mean(one[1])):
        print(f"  {spread(shares)}  {form}")
    on_year, later = np.mean(numbers["weight on the year"], axis=0)
    print(f"weight on the year's digits while they are written: {on_year:.1%}, while the rest is: {later:.1%}")
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
