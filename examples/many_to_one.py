"""Many to one: a label for a whole sequence, read from the last state of an LSTM.

The head sees only the state after the last step, so that state must separate the classes. This is the many-to-one case
of Karpathy ("The Unreasonable Effectiveness of Recurrent Neural Networks", 2015), on two tasks:

- vowels: nine men say /ae/. 12 cepstral coefficients per step, 7 to 29 steps, split as published (Kudo, Toyama and
  Shimbo, "Multidimensional curve classification using passing-through regions", 1999): 270 utterances for training, 370
  for testing. The layer takes a batch of unequal lengths with `lengths`; padding is not computed.
- digits: scikit-learn's handwritten digits, read row by row, 8 steps of 8 pixels; the last quarter is held out.

The size and the noise on the inputs are chosen by cross-validation within the training set.

    python examples/many_to_one.py

Results: both accuracies are above 95%. Before the last step, a network trained only at the last step predicts poorly,
above all if all sequences are equally long; trained at every step it predicts early, and slightly worse at the end. An
utterance has the same bits alone as in any batch.
"""

from dataclasses import dataclass

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

# The data ---------------------------------------------------------------------------------------


@dataclass
class Sequences:
    """x (T, B, I), zero beyond each one's length, lengths (B,) and labels (B,), from 0."""

    x: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, at):
        """The sequences at these indices, cut to the longest of them."""
        lengths = self.lengths[at]
        return Sequences(self.x[: lengths.max(), at], lengths, self.labels[at])

    def standardized(self, mean, deviation):
        inside = np.arange(len(self.x))[:, None] < self.lengths
        x = np.where(inside[..., None], (self.x - mean) / deviation, 0)
        return Sequences(x.astype(np.float32), self.lengths, self.labels)


def standardize(train, test):
    """Standardizes both sets by the mean and the deviation of each feature over the steps of the training sequences."""
    inside = np.arange(len(train.x))[:, None] < train.lengths
    steps = train.x[inside]
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    deviation[deviation == 0] = 1  # a pixel that is white in all of them
    return train.standardized(mean, deviation), test.standardized(mean, deviation)


def load_vowels():
    """The 270 training and 370 test utterances of nine speakers, standardized."""
    from sktime.datasets import load_japanese_vowels

    def load(split):
        table, names = load_japanese_vowels(split=split, return_type="nested_univ")
        utterances = [np.stack(row, axis=1) for row in table.to_numpy()]  # (length, 12) each
        lengths = np.array([len(utterance) for utterance in utterances])
        x = np.zeros((lengths.max(), len(utterances), utterances[0].shape[1]))
        for b, utterance in enumerate(utterances):
            x[: len(utterance), b] = utterance
        return Sequences(x, lengths, names.astype(int) - 1)

    return standardize(load("train"), load("test"))


def load_digits():
    """1347 handwritten digits for training, the last 450 for testing, row by row, standardized."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8).transpose(1, 0, 2)
    digits = Sequences(x, np.full(len(labels), 8), labels)
    return standardize(digits[:1347], digits[1347:])


# The model --------------------------------------------------------------------------------------


IGNORED = -1  # the target of a step that does not count


class Classifier:
    """An LSTM and a linear head on its state after the last step."""

    def __init__(self, n_in, n_classes, hidden, rng, dtype=np.float32):
        self.lstm = fastrnn.LSTM(n_in, hidden, dtype=dtype, rng=rng)
        self.head = training.linear(hidden, n_classes, rng, dtype)
        self.parts = [self.lstm, self.head]

    def gradient(self, x, lengths, labels, always=False):
        """The mean loss in nats, and its gradient by `parts`: of the last step, or of `always` every one."""
        output, (h, _), tape = self.lstm.forward(x, lengths=lengths)
        if always:
            targets = np.where(np.arange(len(x))[:, None] < lengths, labels, IGNORED)
            logits, head_tape = self.head.forward(output)
            loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets, ignore_index=IGNORED)
            d_output, d_head = self.head.backward(head_tape, d_logits)
            _, _, d_lstm = self.lstm.backward(tape, d_output)
        else:
            logits, head_tape = self.head.forward(h[-1])
            loss, d_logits = fastrnn.softmax_cross_entropy(logits, labels)
            d_h, d_head = self.head.backward(head_tape, d_logits)
            _, _, d_lstm = self.lstm.backward(tape, None, (d_h[None], None))
        return loss, [d_lstm, d_head]

    def __call__(self, sequences):
        """The probabilities of the classes after each step (T, B, K), those after the end as at the end."""
        output, _ = self.lstm(sequences.x, lengths=sequences.lengths)
        steps = np.minimum(np.arange(len(output))[:, None], sequences.lengths - 1)
        return training.softmax(self.head(output[steps, np.arange(len(sequences))]))


def accuracy(model, sequences):
    return float(np.mean(model(sequences)[-1].argmax(axis=1) == sequences.labels))


# The experiment ---------------------------------------------------------------------------------

BATCH, RATE = 32, 0.005


def fit(train, hidden, noise, passes, seed, always=False):
    """A classifier, trained with normal noise on its inputs, so that it meets no sequence twice."""
    rng = np.random.default_rng(seed)
    model = Classifier(train.x.shape[2], train.labels.max() + 1, hidden, rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=RATE)
    drawn = training.batches(len(train), BATCH, rng)
    iterations = passes * (len(train) // BATCH)

    def step(iteration):
        batch = train[next(drawn)]
        x = batch.x + noise * rng.standard_normal(batch.x.shape, dtype=np.float32)
        loss, gradient = model.gradient(x, batch.lengths, batch.labels, always)
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = RATE * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model


FOLDS = 3


def folds(labels):
    """The fold of each sequence (B,): in each class the first, second and last third, in the order of recording."""
    fold = np.empty(len(labels), int)
    for label in np.unique(labels):
        (at,) = np.nonzero(labels == label)
        fold[at] = np.arange(len(at)) * FOLDS // len(at)
    return fold


def validated(train, hidden, noise, passes, k):
    """The accuracy on fold k of a classifier that was trained on the other folds."""
    fold = folds(train.labels)
    return accuracy(fit(train[fold != k], hidden, noise, passes, seed=0), train[fold == k])


def choose(train, passes, description):
    """The (hidden, noise) with the best mean accuracy over the folds of the training set."""
    candidates = [(hidden, noise) for hidden in (64, 128) for noise in (0.0, 0.3, 0.6, 1.0)]
    jobs = [(train, *candidate, passes, k) for candidate in candidates for k in range(FOLDS)]
    scores = training.side_by_side(validated, jobs, description)
    means = np.reshape(scores, (-1, FOLDS)).mean(axis=1)
    best = int(means.argmax())
    return candidates[best], float(means[best])


def without_order(train, test):
    """The accuracy of logistic regression on the mean and the deviation of each feature over the steps."""
    from sklearn.linear_model import LogisticRegression

    def features(sequences):
        inside = np.arange(len(sequences.x))[:, None, None] < sequences.lengths[:, None]
        return np.hstack([sequences.x.mean(axis=0, where=inside), sequences.x.std(axis=0, where=inside)])

    model = LogisticRegression(max_iter=1000).fit(features(train), train.labels)
    return float(model.score(features(test), test.labels))


# Figures ----------------------------------------------------------------------------------------

BLUE, RED, GREEN = figures.CYCLE[:3]


def certainty(model, sequences, parts):
    """The probability of the right class (len(parts), B) after each part of a sequence."""
    steps = np.ceil(np.outer(parts, sequences.lengths)).astype(int) - 1
    each = np.arange(len(sequences))
    return model(sequences)[np.maximum(steps, 0), each, sequences.labels]


def draw_vowels(at_the_end, always, test, path):
    fig, (left, right) = figures.figure(9, 4.3, ncols=2, width_ratios=[1.35, 1])
    parts = np.linspace(0.02, 1, 99)
    right_one = certainty(at_the_end, test, parts)
    said = at_the_end(test)[-1].argmax(axis=1)
    wrong = said != test.labels
    others = np.median(certainty(always, test, parts), axis=1)
    left.plot(100 * parts, others, color=GREEN, linestyle="--", label="trained at every step: median")
    left.plot(100 * parts, np.median(right_one, axis=1), color=BLUE, label="trained at the last step: median")
    bands = [("last step: middle half", 25, 75, 0.2), ("last step: middle nine tenths", 5, 95, 0.12)]
    for label, low, high, alpha in bands:
        band = np.percentile(right_one, [low, high], axis=1)
        left.fill_between(100 * parts, *band, color=BLUE, alpha=alpha, linewidth=0, label=label)
    lines = left.plot(100 * parts, right_one[:, wrong], color=RED, linewidth=0.8)
    for line in lines[:1]:
        line.set_label(f"last step: the {len(lines)} of {len(test)} wrong at the end")
    left.set(xlabel="% of the utterance heard", ylim=(0, 1.01), xlim=(0, 100))
    left.set_title("Probability of the right speaker")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8)

    counts = np.zeros((9, 9), int)
    np.add.at(counts, (test.labels, said), 1)
    right.imshow(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), cmap="Blues", vmax=1.3)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            right.text(column, row, count, ha="center", va="center", color=RED if row != column else "w")
    names = range(1, 10)
    right.set(xticks=range(9), yticks=range(9), xticklabels=names, yticklabels=names)
    right.set(xlabel="predicted speaker", ylabel="true speaker")
    right.set_title("Utterances of the test set")
    right.grid(False)
    figures.save(fig, path)


def draw_digits(at_the_end, always, test, path):
    """The probabilities after each row of some images, for both ways of training; the last image ends wrong."""
    from sklearn.datasets import load_digits

    images = load_digits().images[-len(test) :]
    both = [always(test), at_the_end(test)]
    said = both[0].argmax(axis=2)
    wrong = said[-1] != test.labels
    changes = np.count_nonzero(said[1:] != said[:-1], axis=0) + both[0][-1].max(axis=1)
    order = np.argsort(-changes, kind="stable")
    shown = []
    for b in order[~wrong[order]]:
        if test.labels[b] not in test.labels[shown]:
            shown.append(b)
    shown = [*shown[:3], order[wrong[order]][0]]
    fig, axes = figures.figure(8, 5.6, nrows=4, ncols=3, width_ratios=[8, 14, 14])
    for (image, *maps), b in zip(axes, shown):
        image.imshow(images[b], cmap="Greys")
        for axis, probabilities in zip(maps, both):
            axis.imshow(probabilities[:, b], cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for row, of_row in enumerate(probabilities[:, b]):
                best = of_row.argmax()
                axis.text(best, row, best, color="w" if of_row[best] > 0.5 else figures.INK, ha="center", va="center",
                          fontsize=7)  # fmt: skip
            axis.spines[:].set_visible(False)
            axis.set(xticks=range(10), yticks=range(8), yticklabels=range(1, 9))
            axis.tick_params(length=0, labelsize=7)
            axis.get_xticklabels()[test.labels[b]].set(fontweight="bold", color=RED)
            axis.grid(False)
        image.axis("off")
    for axis, title in zip(axes[0], ["", "Trained at every row", "Trained at the last row"]):
        axis.set_title(title)
    for axis in axes[:, 1]:
        axis.set_ylabel("rows read")
    for axis in axes[-1, 1:]:
        axis.set_xlabel("digit")
    figures.save(fig, path)


# Results ----------------------------------------------------------------------------------------

LOADERS = {"vowels": load_vowels, "digits": load_digits}
PASSES = {"vowels": 40, "digits": 30}
CHOSEN = {"vowels": (128, 1.0), "digits": (128, 0.6)}  # by the full run, for the quick one
DRAW = {"vowels": draw_vowels, "digits": draw_digits}


def study_task(name, options):
    train, test = LOADERS[name]()
    passes = PASSES[name]
    numbers = {}
    if options.quick:
        hidden, noise = CHOSEN[name]
    else:
        (hidden, noise), numbers["validation"] = choose(train, passes, f"choosing for {name}")
    seeds = range(options.seed, options.seed + (1 if options.quick else 6))
    jobs = [(train, hidden, noise, passes, seed, always) for always in (False, True) for seed in seeds]
    models = training.side_by_side(fit, jobs, name)
    at_the_end, always = models[: len(seeds)], models[len(seeds) :]
    parts = [0.25, 0.5, 0.75, 1]
    growth = [np.mean([certainty(one, test, parts) for one in some], axis=(0, 2)) for some in (at_the_end, always)]

    lstm = at_the_end[0].lstm
    _, (together, _) = lstm(test.x, lengths=test.lengths)
    alone = [lstm(test.x[:length, b])[1][0] for b, length in enumerate(test.lengths)]
    DRAW[name](at_the_end[0], always[0], test, options.output / f"many_to_one_{name}.png")
    numbers |= {
        "hidden": hidden,
        "noise": noise,
        "accuracy": [accuracy(model, test) for model in at_the_end],
        "accuracy, trained always": [accuracy(model, test) for model in always],
        "without order": without_order(train, test),
        "certainty": growth[0].tolist(),
        "certainty, trained always": growth[1].tolist(),
        "alone as in a batch": np.stack(alone, axis=1).tobytes() == together.tobytes(),
    }
    print(f"{name}: {len(train)} to train on, {len(test)} to test, H = {hidden}, noise {noise}")
    for way, key, of_parts in zip(("the last step", "every step"), ("", ", trained always"), growth):
        found = numbers["accuracy" + key]
        print(
            f"  trained at {way:13}  accuracy {training.spread(found, '.2%')},"
            f" probability of the right one after {', '.join(f'{p:.0%}' for p in parts)}:"
            f" {', '.join(f'{c:.2f}' for c in of_parts)}"
        )
    print(f"  logistic regression on mean and deviation of the steps, without order: {numbers['without order']:.2%}")
    print(f"  alone and in a batch: {'the same' if numbers['alone as in a batch'] else 'OTHER'} bits")
    return numbers


def main(options):
    return {name: study_task(name, options) for name in LOADERS}


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
