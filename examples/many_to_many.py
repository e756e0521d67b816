"""Many to many: a class for every character of Python source, read forward or from both ends.

The classes are keyword, name, call, docstring and so on. The standard library's tokenize labels the sources of the
standard library; every fifth file is held out. One LSTM reads from left to right and classifies each character at once;
a bidirectional LSTM (Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997) has the same number of
parameters and also reads from the end. The comparison follows the labelling of speech by Graves and Schmidhuber
("Framewise phoneme classification with bidirectional LSTM and other neural network architectures", 2005).

    python examples/many_to_many.py

Results: earlier characters decide whether a character is in a comment or a string, and there the two are close. Later
characters decide whether `in` is `in` or `index`, and whether a name is called: there the forward LSTM can only guess,
and is wrong many times as often.
"""

import inspect
import io
import keyword
import sysconfig
import tokenize
from dataclasses import dataclass
from pathlib import Path

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

# The data ---------------------------------------------------------------------------------------

CLASSES = ("space", "operator", "keyword", "name", "call", "definition", "number", "string", "docstring", "comment")
SPACE, OPERATOR, KEYWORD, NAME, CALL, DEFINITION, NUMBER, STRING, DOCSTRING, COMMENT = range(len(CLASSES))

# Characters by their ASCII code; all other and non-printable characters share one code.
V, OTHER = 128, 127


@dataclass
class Source:
    """Character ids (n,), their classes (n,), and the position of each character in its token (n,)."""

    ids: np.ndarray
    classes: np.ndarray
    place: np.ndarray

    def __len__(self):
        return len(self.ids)


def label(text):
    """The Source of a Python text."""
    codes = np.array([ord(character) for character in text])
    source = Source(np.where(codes < OTHER, codes, OTHER), np.full(len(codes), SPACE), np.zeros(len(codes), int))
    line_starts = np.cumsum([0, *(len(line) for line in io.StringIO(text))])
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    tokens = [token for token in tokens if token.type not in (tokenize.COMMENT, tokenize.NL)]
    begin = tokenize.TokenInfo(tokenize.NEWLINE, "", (0, 0), (0, 0), "")
    triples = [*zip([begin, *tokens], tokens, tokens[1:]), *((begin, comment, begin) for comment in comments)]
    for before, token, after in triples:
        found = classify(before, token, after)
        if found is not None:
            start, end = (line_starts[line - 1] + column for line, column in (token.start, token.end))
            at = slice(start, end)
            source.classes[at] = found
            source.place[at] = np.arange(end - start)
    return source


STRINGS = {tokenize.STRING} | {
    getattr(tokenize, name) for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END") if hasattr(tokenize, name)
}


def classify(before, token, after):
    """The class of a token between two others, or None for a token without text."""
    if token.type == tokenize.COMMENT:
        return COMMENT
    if token.type == tokenize.NUMBER:
        return NUMBER
    if token.type == tokenize.OP:
        return OPERATOR
    if token.type in STRINGS:
        alone = before.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT) and after.type == tokenize.NEWLINE
        return DOCSTRING if alone else STRING
    if token.type == tokenize.NAME:
        if keyword.iskeyword(token.string):
            return KEYWORD
        if before.string in ("def", "class"):
            return DEFINITION
        return CALL if after.string == "(" else NAME
    return None


def load_library(largest, every=1):
    """The standard library's sources, of files up to so many bytes: those to train on, and every fifth, held out."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    paths = [path for path in paths if 1000 < path.stat().st_size <= largest][::every]
    if len(paths) < 10:
        raise training.Failure("this Python comes without the sources of its library")
    sources = [label(path.read_text(encoding="utf-8")) for path in paths]
    held_out = sources[::5]  # whole files: nothing of them has been seen
    return [source for number, source in enumerate(sources) if number % 5], held_out


# The model --------------------------------------------------------------------------------------


class Labeller:
    """Embeddings, an LSTM in one direction or in both, and a linear head at every step."""

    def __init__(self, E, hidden, bidirectional, rng, dtype=np.float32):
        self.embedding = training.Embedding(V, E, rng, dtype)
        self.lstm = fastrnn.LSTM(E, hidden, bidirectional=bidirectional, dtype=dtype, rng=rng)
        self.head = training.linear(hidden * (1 + bidirectional), len(CLASSES), rng, dtype)
        self.parts = [self.embedding, self.lstm, self.head]

    def gradient(self, ids, classes):
        """The mean loss in nats of ids and classes (T, B), and its gradient by `parts`."""
        output, _, tape = self.lstm.forward(self.embedding(ids))
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, classes)
        d_output, d_head = self.head.backward(head_tape, d_logits)
        d_x, _, d_lstm = self.lstm.backward(tape, d_output)
        return loss, [self.embedding.backward(ids, d_x), d_lstm, d_head]

    def __call__(self, sources):
        """The class of each character of some sources, one after the other."""
        lengths = np.array([len(source) for source in sources])
        ids = np.zeros((lengths.max(), len(sources)), int)
        for b, source in enumerate(sources):
            ids[: len(source), b] = source.ids
        output, _ = self.lstm(self.embedding(ids), lengths=lengths)
        return np.concatenate([self.head(output[:length, b]).argmax(axis=1) for b, length in enumerate(lengths)])


# The experiment ---------------------------------------------------------------------------------

E, HIDDEN = 32, {False: 96, True: 64}  # by `bidirectional`: as many parameters, within about a hundredth
RATE = 0.005


def fit(train, T, B, iterations, bidirectional, seed):
    """A labeller, trained on windows of T characters from anywhere in the sources."""
    rng = np.random.default_rng(seed)
    model = Labeller(E, HIDDEN[bidirectional], bidirectional, rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=RATE)
    ids, classes = (np.concatenate([getattr(source, of) for source in train]) for of in ("ids", "classes"))

    def step(iteration):
        window = rng.integers(len(ids) - T, size=B) + np.arange(T)[:, None]
        loss, gradient = model.gradient(ids[window], classes[window])
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = RATE * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model


def fit_and_read(train, held_out, *how):
    """A labeller's classes for the held-out sources, whole files at a time."""
    model = fit(train, *how)
    return np.concatenate([model(held_out[k : k + 8]) for k in range(0, len(held_out), 8)])


# Figures ----------------------------------------------------------------------------------------

WAYS = {False: "forward", True: "in both directions"}
COLOURS = {False: figures.CYCLE[1], True: figures.CYCLE[0]}


def draw_errors(wrong, classes, place, path):
    """wrong[bidirectional] (seeds, n) by class, and by how much of a token has been read; all axes begin at zero."""
    fig, axes = figures.pyplot.subplot_mosaic(
        [["classes", "call"], ["classes", "keyword"]], figsize=(9, 4.6), width_ratios=[1.25, 1]
    )
    left = axes["classes"]
    of_class = [classes == k for k in range(len(CLASSES))]
    rates = {way: np.array([100 * wrong[way][:, chosen].mean(axis=1) for chosen in of_class]) for way in WAYS}
    order = np.argsort(rates[False].mean(axis=1))
    for way, above in zip(WAYS, (0.2, -0.2)):
        means = rates[way][order].mean(axis=1)
        heights = np.arange(len(order)) + above
        left.barh(heights, means, 0.36, color=COLOURS[way], label=WAYS[way])
        left.hlines(heights, *np.quantile(rates[way][order], [0, 1], axis=1), color=figures.INK, linewidth=0.9)
        for height, mean, end in zip(heights, means, rates[way][order].max(axis=1)):
            left.text(end + 0.5, height, f"{mean:.2f}", color=COLOURS[way], fontsize=7.5, va="center")
    left.set(yticks=range(len(order)), yticklabels=[CLASSES[k] for k in order], xlim=(0, 41))
    left.tick_params(axis="y", length=0)
    left.grid(False, axis="y")
    left.set_title("Error rate by class, % of the characters")
    left.legend(loc="center right", title="the network reads", alignment="left")

    places = np.arange(6)
    for k in CALL, KEYWORD:
        axis = axes[CLASSES[k]]
        for way in WAYS:
            at = [of_class[k] & (place == p) for p in places]
            rate = np.array([100 * wrong[way][:, of_place].mean() for of_place in at])
            axis.plot(places + 1, rate, color=COLOURS[way], marker="o", markersize=3.5)
        axis.set(xticks=places + 1, ylim=0)
        axis.set_title(f"Error rate within a {CLASSES[k]}, %")
    axes["keyword"].set_xlabel("position of the character in its token")
    figures.save(fig, path)


# Red and blue are left to the errors.
PURPLE, BROWN, GREEN, GREY = figures.CYCLE[4], "#8a6100", figures.CYCLE[2], figures.CYCLE[5]
OF_CLASS = {CALL: PURPLE, DEFINITION: PURPLE, NUMBER: BROWN}
OF_CLASS |= {STRING: GREEN, DOCSTRING: GREEN, OPERATOR: GREY, COMMENT: GREY}
BOLD, SLANTED = {KEYWORD, DEFINITION}, {DOCSTRING, COMMENT}


def type_of(k):
    """The keywords of a text of class k."""
    weight, slope = "bold" if k in BOLD else "normal", "oblique" if k in SLANTED else "normal"
    return {"color": OF_CLASS.get(k, figures.INK), "fontweight": weight, "fontstyle": slope}


def draw_snippet(text, classes, wrong, path):
    """The text in the types of its classes, and below the characters a stroke for each way that is wrong there."""
    lines = text.splitlines()
    widest, step = max(map(len, lines)), 1.75
    fig, axis = figures.figure(9, 0.235 * (len(lines) + 3.6))
    letter = {"family": "DejaVu Sans Mono", "fontsize": 8.4, "ha": "center", "va": "baseline"}
    stroke = {"linewidth": 2, "solid_capstyle": "butt"}
    at = 0
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            axis.text(column + 0.5, row * step, character, **letter, **type_of(classes[at]))
            for way, below in zip(WAYS, (0.37, 0.6)):
                if wrong[way][at]:
                    strip = [column + 0.05, column + 0.95], [row * step + below] * 2
                    axis.plot(*strip, color=COLOURS[way], **stroke)
            at += 1
        at += 1  # the end of the line
    below = (len(lines) + 0.6) * step
    axis.text(0, below, "classes:", fontsize=8.4)
    column = 9
    for k, name in enumerate(CLASSES):
        if k != SPACE:
            axis.text(column, below, name, family="DejaVu Sans Mono", fontsize=8.4, **type_of(k))
            column += len(name) + 2
    below += step
    axis.text(0, below, "errors:", fontsize=8.4)
    column = 9
    for way, name in WAYS.items():
        axis.plot([column, column + 4], [below - 0.3] * 2, color=COLOURS[way], **stroke)
        axis.text(column + 5, below, f"of the network that reads {name}", fontsize=8.4)
        column += 40
    axis.set(xlim=(-0.5, widest + 0.5), ylim=(below + 0.8, -step))
    axis.axis("off")
    figures.save(fig, path)


# Results ----------------------------------------------------------------------------------------


def main(options):
    if options.quick:
        (train, held_out), how, seeds = load_library(20_000, every=3), (128, 16, 300), 1
    else:
        (train, held_out), how, seeds = load_library(40_000), (200, 16, 1500), 3
    shown = inspect.getsource(load_library)
    everything = [*held_out, label(shown)]
    jobs = [(train, everything, *how, way, options.seed + s) for way in WAYS for s in range(seeds)]
    read = np.reshape(training.side_by_side(fit_and_read, jobs, "labelling"), (len(WAYS), seeds, -1))
    classes, place = (np.concatenate([getattr(source, of) for source in everything]) for of in ("classes", "place"))

    n = len(classes) - len(shown)
    wrong = {way: read[number, :, :n] != classes[:n] for number, way in enumerate(WAYS)}
    of_shown = {way: read[number, 0, n:] != classes[n:] for number, way in enumerate(WAYS)}
    draw_errors(wrong, classes[:n], place[:n], options.output / "many_to_many_errors.png")
    draw_snippet(shown, classes[n:], of_shown, options.output / "many_to_many_snippet.png")

    numbers = {"training": sum(map(len, train)), "held out": n, "share": {}}
    print(f"{numbers['training']:,} characters to train on, {n:,} held out; those of them that are wrong, in per cent,")
    print("one seed:" if seeds == 1 else f"the mean of {seeds} seeds and the range:")
    print(f"{'':12}{'share':>7}{'forward':>24}{'both directions':>24}")
    rows = {"all": np.ones(n, bool)}
    rows |= {name: classes[:n] == k for k, name in enumerate(CLASSES)}
    rows |= {"1st of keyword": (classes[:n] == KEYWORD) & (place[:n] == 0)}
    for name, chosen in rows.items():
        numbers["share"][name] = float(chosen.mean())
        line = f"{name:14}{100 * chosen.mean():5.1f}"
        for way, key in WAYS.items():
            rates = wrong[way][:, chosen].mean(axis=1)
            numbers.setdefault(key, {})[name] = rates.tolist()
            line += f"{training.spread(100 * rates):>24}"
        print(line)
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
