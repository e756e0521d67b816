"""Many to many with attention: dates as people write them, translated into ISO dates character by character.

"Tuesday the 2nd of March, 2004" is "2004-03-02". A bidirectional LSTM reads the characters, a second LSTM writes the
date, and before each character it looks back: it weights what the first one made of each place by how well it answers
what it asks for (Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
2015; here as Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015, do:
after the second LSTM, which in training thus runs over all steps in one call). The dates are those of many tutorials on
attention, made by rule. No day is both in training and in test, some formats are in the test alone, and there is
no 02/03/2004, of which nobody could say what it means.

    python examples/translate.py

What to see: the weights, which nobody taught, are an alignment of what is written with what is read; without them the
same model, which then has to put the whole date into one vector, learns later if at all. Formats never seen are read as
well as their parts resemble those seen.
"""

import datetime
from dataclasses import dataclass

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

# The data ---------------------------------------------------------------------------------------

MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

SEEN = """\
{Y}/{mm}/{dd}
{Y}{mm}{dd}
{d}/{m}/{Y}
{m}/{d}/{Y}
{dd}/{mm}/{Y}
{mm}/{dd}/{Y}
{d}.{m}.{Y}
{d} {month} {Y}
{dd} {mon} {Y}
{d}-{mon}-{Y}
{mon} {d}, {Y}
{mon}. {dd}, {Y}
{month} {d}, {Y}
{month} {th}, {Y}
{th} {month} {Y}
{th} of {month}, {Y}
the {th} of {month} {Y}
{Y} {month} {d}
{Y}, {mon} {dd}
{day} {dd} {mon} {Y}
{day}, {mon} {d} {Y}
{weekday}, {d} {month} {Y}
{weekday}, {month} {d}, {Y}
{weekday} the {th} of {month} {Y}""".split("\n")

UNSEEN = """\
{day}, {month} {th} {Y}
{weekday} {d}-{mon}-{Y}
{d}. {month} {Y}
{mon}/{dd}/{Y}
{dd}.{mm}.{Y}
{Y}.{mm}.{dd}
{Y}, the {th} of {month}
{month} {Y}, the {th}
{d} {month} {Y}, {weekday}""".split("\n")


def write(form, date):
    """The date in that format, which is a str.format of the fields below."""
    d, month, weekday = date.day, MONTHS[date.month - 1], WEEKDAYS[date.weekday()]
    ending = "th" if 10 < d < 20 else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    return form.format(
        Y=date.year, m=date.month, mm=f"{date.month:02}", month=month, mon=month[:3],
        d=d, dd=f"{d:02}", th=f"{d}{ending}", weekday=weekday, day=weekday[:3],
    )  # fmt: skip


def clear(form, date):
    """Whether a reader can tell day and month apart: by a name, by the year before them, or by the numbers."""
    numbers_alone = "{mon" not in form and not form.startswith("{Y}")
    return not numbers_alone or date.day > 12 or date.day == date.month


def all_dates(rng):
    """Every day from 1900 to 2099 in random order, the last tenth of them to be held out."""
    first, end = datetime.date(1900, 1, 1).toordinal(), datetime.date(2100, 1, 1).toordinal()
    dates = rng.permutation(np.arange(first, end))
    return np.split(dates, [len(dates) * 9 // 10])


SYMBOLS = "0123456789-"  # of ISO dates
START = len(SYMBOLS)


@dataclass
class Pairs:
    """x (S, B), ASCII codes, 0 beyond each one's length; lengths (B,); targets (10, B), indices into SYMBOLS."""

    x: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, at):
        """Those at these indices, with no more steps than the longest of them has."""
        lengths = self.lengths[at]
        return Pairs(self.x[: lengths.max(), at], lengths, self.targets[:, at])

    def text(self, b):
        return self.x[: self.lengths[b], b].tobytes().decode("ascii")


def encode(texts, dates):
    lengths = np.array([len(text) for text in texts])
    x = np.zeros((lengths.max(), len(texts)), np.uint8)
    for b, text in enumerate(texts):
        x[: len(text), b] = np.frombuffer(text.encode("ascii"), np.uint8)
    targets = np.array([[SYMBOLS.index(symbol) for symbol in date.isoformat()] for date in dates])
    return Pairs(x, lengths, targets.T)


def draw_pairs(forms, ordinals, n, rng):
    """n pairs, of each format as many; a fifth in capitals, a fifth in small letters."""
    texts, dates = [], []
    for k in range(n):
        form, date = forms[k % len(forms)], None
        while date is None or not clear(form, date):
            date = datetime.date.fromordinal(int(ordinals[rng.integers(len(ordinals))]))
        case = rng.integers(5)
        text = write(form, date)
        texts.append(text.upper() if case == 0 else text.lower() if case == 1 else text)
        dates.append(date)
    return encode(texts, dates)


# The model --------------------------------------------------------------------------------------


class Attention:
    """For each query a mean of what was read, weighted by the softmax of its scores: Luong's "general" ones.

    queries (T, B, H), read (S, B, M) of which each sequence's first lengths (B,) count -> (T, B, M).
    """

    def __init__(self, H, M, rng, dtype=np.float32):
        self.ask = training.Linear(H, M, rng, dtype)
        self.params = self.ask.params

    def __call__(self, queries, read, lengths):
        """The means (T, B, M) and the weights (B, T, S)."""
        # 1. what is asked for, as something that may have been read          asked   (B, T, M)
        asked = self.ask(queries).transpose(1, 0, 2)
        # 2. how well each place answers                                      scores  (B, T, S)
        scores = asked @ read.transpose(1, 2, 0)
        beyond = np.arange(len(read)) >= lengths[:, None]
        scores[np.broadcast_to(beyond[:, None], scores.shape)] = -np.inf
        # 3. the share of each place                                          weights (B, T, S)
        weights = training.softmax(scores)
        # 4. what they have to say together                                   means   (T, B, M)
        means = (weights @ read.transpose(1, 0, 2)).transpose(1, 0, 2)
        return means, weights

    def backward(self, queries, read, weights, d_means):
        """d_queries, d_read, and the gradient of `params`."""
        by_sequence, d_means = read.transpose(1, 0, 2), d_means.transpose(1, 0, 2)
        # 4.
        d_weights = d_means @ by_sequence.transpose(0, 2, 1)
        d_read = weights.transpose(0, 2, 1) @ d_means
        # 3.
        d_scores = weights * (d_weights - np.sum(weights * d_weights, axis=2, keepdims=True))
        # 2.
        asked = self.ask(queries).transpose(1, 0, 2)
        d_asked = d_scores @ by_sequence
        d_read += d_scores.transpose(0, 2, 1) @ asked
        # 1.
        d_queries, d_params = self.ask.backward(queries, d_asked.transpose(1, 0, 2))
        return d_queries, d_read.transpose(1, 0, 2), d_params


class Translator:
    """Reads with one LSTM in both directions, writes with another, which begins where the first one ended.

    E: embeddings, H: hidden, of each direction and of the writer. Without attention, all that the writer knows of what
    was read is the state in which it begins.
    """

    def __init__(self, E, H, attention, rng, dtype=np.float32):
        self.letters = training.Embedding(128, E, rng, dtype)
        self.reader = fastrnn.LSTM(E, H, bidirectional=True, dtype=dtype, rng=rng)
        self.bridge = training.Linear(2 * H, 2 * H, rng, dtype)
        self.symbols = training.Embedding(len(SYMBOLS) + 1, E, rng, dtype)
        self.writer = fastrnn.LSTM(E, H, dtype=dtype, rng=rng)
        self.attention = Attention(H, 2 * H, rng, dtype) if attention else None
        self.combine = training.Linear(3 * H if attention else H, H, rng, dtype)
        self.head = training.Linear(H, len(SYMBOLS), rng, dtype)
        parts = [self.letters, self.reader, self.bridge, self.symbols, self.writer, self.combine, self.head]
        self.parts = [*parts, self.attention] if attention else parts

    def begin(self, h):
        """The writer's first state (h, c), (1, B, H) each, of the reader's last h (2, B, H)."""
        ends = np.concatenate([h[0], h[1]], axis=1)
        first = np.tanh(self.bridge(ends))
        return ends, first, [half[None] for half in np.split(first, 2, axis=1)]

    def gradient(self, pairs):
        """The mean loss in nats, and its gradient by `parts`."""
        # 1. read                                                             read    (S, B, 2H)
        x = self.letters(pairs.x)
        read, (h, _), reader_tape = self.reader.forward(x, lengths=pairs.lengths)
        # 2. write, each symbol after the right one                           queries (T, B, H)
        ends, first, state = self.begin(h)
        last = np.concatenate([np.full_like(pairs.targets[:1], START), pairs.targets[:-1]])
        queries, _, writer_tape = self.writer.forward(self.symbols(last), state)
        # 3. look back                                                        seen    (T, B, 3H)
        seen = queries
        if self.attention:
            means, weights = self.attention(queries, read, pairs.lengths)
            seen = np.concatenate([queries, means], axis=2)
        # 4. combine and score                                                hidden  (T, B, H)
        hidden = np.tanh(self.combine(seen))
        loss, d_logits = training.softmax_loss(self.head(hidden), pairs.targets)

        # 4.
        d_hidden, d_head = self.head.backward(hidden, d_logits)
        d_seen, d_combine = self.combine.backward(seen, d_hidden * (1 - hidden**2))
        # 3.
        d_queries, d_read = d_seen, None
        if self.attention:
            d_queries, d_means = np.split(d_seen, [queries.shape[2]], axis=2)
            d_asking, d_read, d_attention = self.attention.backward(queries, read, weights, d_means)
            d_queries = d_queries + d_asking
        # 2.
        d_last, d_state, d_writer = self.writer.backward(writer_tape, d_queries)
        d_symbols = self.symbols.backward(last, d_last)
        d_first = np.concatenate([d[0] for d in d_state], axis=1)
        d_ends, d_bridge = self.bridge.backward(ends, d_first * (1 - first**2))
        # 1.
        d_h = np.stack(np.split(d_ends, 2, axis=1))
        d_x, _, d_reader = self.reader.backward(reader_tape, d_read, (d_h, None))
        d_letters = self.letters.backward(pairs.x, d_x)
        gradient = [d_letters, d_reader, d_bridge, d_symbols, d_writer, d_combine, d_head]
        return loss, [*gradient, d_attention] if self.attention else gradient

    def translate(self, pairs):
        """The most probable symbols one after the other (T, B), and the weights (B, T, S) or None."""
        read, (h, _) = self.reader(self.letters(pairs.x), lengths=pairs.lengths)
        stream = self.writer.stream(len(pairs))
        _, _, stream.state = self.begin(h)
        written, looked = [np.full(len(pairs), START)], []
        for _ in pairs.targets:
            seen = stream.step(self.symbols(written[-1]))
            if self.attention:
                means, weights = self.attention(seen[None], read, pairs.lengths)
                seen = np.concatenate([seen, means[0]], axis=1)
                looked.append(weights)
            hidden = np.tanh(self.combine(seen))
            written.append(self.head(hidden).argmax(axis=1))
        return np.stack(written[1:]), np.concatenate(looked, axis=1) if looked else None

    def exact(self, pairs):
        """Of each pair (B,) whether all ten symbols are right."""
        return (self.translate(pairs)[0] == pairs.targets).all(axis=0)


BATCH = 64
CURVE = 24  # points, evenly apart on a logarithmic scale


def fit(sizes, rate, attention, train, test, iterations, seed):
    """A translator, and the shares of the test pairs that it got right on the way: (iterations, share) each."""
    rng = np.random.default_rng(seed)
    model = Translator(*sizes, attention, rng)
    optimizer = training.Optimizer(model.parts, rate, clip=1.0)
    drawn = training.batches(len(train), BATCH, rng)
    points = set(np.geomspace(20, iterations, CURVE).astype(int))
    curve = []

    def step(iteration):
        loss, gradient = model.gradient(train[next(drawn)])
        optimizer.step(gradient, rate * (1 - iteration / iterations))
        if iteration + 1 in points:
            curve.append((iteration + 1, float(model.exact(test).mean())))
        return loss

    training.run(step, iterations, None)
    return model, curve


# Figures ----------------------------------------------------------------------------------------


def draw_maps(model, pairs, path):
    """Of each pair the weights: a row for each symbol written, a column for each letter read."""
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
    """How the share of right dates grows, of each model of each kind; and that of each unseen format in the end."""
    fig, (left, right) = figures.figure(9, 3.5, ncols=2, width_ratios=[1.25, 1])
    for (name, runs), colour in zip(curves.items(), figures.CYCLE):
        runs = np.array(runs) * [1, 100]
        for run in runs:
            left.plot(*run.T, color=colour, linewidth=0.8, alpha=0.5)
        mean = runs.mean(axis=0)
        left.plot(*mean.T, color=colour)
        at, place, side = mean[-1], (5, 0), "left"
        if at[1] > 50:  # beside the rise
            at, place, side = mean[np.argmax(mean[:, 1] > 40)], (-6, 0), "right"
        left.annotate(name, at, place, textcoords="offset points", color=colour, ha=side, va="center")
    last = int(mean[-1, 0])
    left.set(xscale="log", xlabel="batches", xlim=(20, 1.9 * last), ylim=(-1, 102))
    ticks = [k for k in (30, 100, 300, 1000, 3000) if k <= last]
    left.set_xticks(ticks, [f"{k:,}" for k in ticks])
    left.minorticks_off()
    left.set(ylabel="% of unseen dates without a fault")
    left.set_title("With attention and without")

    attention = next(iter(unseen.values()))
    order = sorted(attention, key=lambda form: np.mean(attention[form]))
    for shares, colour in zip(unseen.values(), figures.CYCLE):
        for place, form in enumerate(order):
            percent = 100 * np.array(shares[form])
            right.plot(percent, np.full(len(percent), place), "o", color=colour, alpha=0.5, markersize=4)
    right.set_yticks(range(len(order)), [write(form, datetime.date(2031, 8, 22)) for form in order], fontsize=8)
    right.tick_params(axis="y", length=0)
    right.set(xlabel="% of unseen dates without a fault", xlim=(-3, 103))
    right.set_title("Formats that were not in training")
    figures.save(fig, path)


# What was found ---------------------------------------------------------------------------------

SHOWN = [  # format, date
    ("{weekday} the {th} of {month} {Y}", datetime.date(2004, 3, 2)),
    ("{mon}. {dd}, {Y}", datetime.date(1997, 9, 5)),
    ("{m}/{d}/{Y}", datetime.date(2023, 12, 31)),
    ("{d}/{m}/{Y}", datetime.date(2023, 12, 31)),
    ("{d} {month} {Y}, {weekday}", datetime.date(2062, 5, 19)),
    ("{weekday}, {d} {month} {Y}", datetime.date(2001, 7, 14)),
    ("{month} {Y}, the {th}", datetime.date(1914, 8, 3)),
]


KINDS = {  # (E, H), rate, whether with attention
    "attention": ((16, 32), 0.01, True),
    "without": ((16, 32), 0.01, False),
    "without, H = 128": ((32, 128), 0.005, False),
}


def looks_at_the_year(model, pairs):
    """How much of the weight lies on the year's digits while the year is written, and while the rest is."""
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
        return f"{np.mean(shares):7.2%} ({min(shares):.2%} to {max(shares):.2%})"

    print(f"{len(train)} pairs to train on, {len(SEEN)} formats; {iterations} batches of {BATCH}, {len(seeds)} seeds")
    print(f"without a fault, of {len(test)} unseen dates in these formats, and of {len(unseen)} in unseen ones:")
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
