"""Many to many: a class for every character of Python source, read forward or from both ends.

Is this character part of a keyword, of a name, of a call, of a docstring? The standard library's tokenize knows, and
labels the sources of the standard library, of which every fifth file is held out. One LSTM reads from left to right and
has to decide at once; a bidirectional one (Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997) has as
many parameters and reads on to the end first. The labelling of speech by Graves and Schmidhuber ("Framewise phoneme
classification with bidirectional LSTM and other neural network architectures", 2005) is the model of this comparison.

    python examples/many_to_many.py

What to see: what stands to the left decides whether we are in a comment or a string, and there the two are close. What
is still to come decides whether `in` will be `in` or `index`, and whether a name will be called: the forward one can
only guess, and is wrong many times as often.
"""

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

# Characters by their ASCII code; all beyond, and what is not printed, are one.
V, OTHER = 128, 127


@dataclass
class Source:
    """What is read, ids (n,), their classes (n,), and how many characters of its token stand before each (n,)."""

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
    """The class of a token that stands between two others, or None for a token that is no text."""
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
    """Sources of the standard library, no file larger than so many bytes: (training, held out)."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    paths = [path for path in paths if 1000 < path.stat().st_size <= largest][::every]
    if len(paths) < 10:
        raise training.Failure("this Python comes without the sources of its library")
    sources = [label(path.read_text(encoding="utf-8")) for path in paths]
    held_out = sources[::5]
    return [source for number, source in enumerate(sources) if number % 5], held_out


# The model --------------------------------------------------------------------------------------


class Labeller:
    """Embeddings, an LSTM in one direction or in both, and a linear head at every step."""

    def __init__(self, E, hidden, bidirectional, rng, dtype=np.float32):
        self.embedding = training.Embedding(V, E, rng, dtype)
        self.lstm = fastrnn.LSTM(E, hidden, bidirectional=bidirectional, dtype=dtype, rng=rng)
        self.head = training.Linear(hidden * (1 + bidirectional), len(CLASSES), rng, dtype)
        self.parts = [self.embedding, self.lstm, self.head]

    def gradient(self, ids, classes):
        """The mean loss in nats of ids and classes (T, B), and its gradient by `parts`."""
        output, _, tape = self.lstm.forward(self.embedding(ids))
        loss, d_logits = training.softmax_loss(self.head(output), classes)
        d_output, d_head = self.head.backward(output, d_logits)
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


E, HIDDEN = 32, {False: 96, True: 64}  # by `bidirectional`: as many parameters, up to one in a hundred
RATE = 0.005


def fit(train, T, B, iterations, bidirectional, seed):
    """A labeller, trained on windows of T characters from anywhere in the sources."""
    rng = np.random.default_rng(seed)
    model = Labeller(E, HIDDEN[bidirectional], bidirectional, rng)
    optimizer = training.Optimizer(model.parts, RATE, clip=1.0)
    ids, classes = (np.concatenate([getattr(source, of) for source in train]) for of in ("ids", "classes"))

    def step(iteration):
        window = rng.integers(len(ids) - T, size=B) + np.arange(T)[:, None]
        loss, gradient = model.gradient(ids[window], classes[window])
        optimizer.step(gradient, RATE * (1 - iteration / iterations))
        return loss

    training.run(step, iterations, None)
    return model


def fit_and_read(train, held_out, *how):
    """What a labeller says of the held-out sources, whole files at a time."""
    model = fit(train, *how)
    return np.concatenate([model(held_out[k : k + 8]) for k in range(0, len(held_out), 8)])
