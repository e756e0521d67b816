"""Many to one: a label for a whole sequence, read from the last state of an LSTM.

The head sees nothing but the state after the last step, so whatever tells the classes apart has to be carried there. Of
Karpathy's shapes of a recurrent network ("The Unreasonable Effectiveness of Recurrent Neural Networks", 2015) it is the
many to one, on two tasks:

- vowels: which of nine men says /ae/? 12 cepstral coefficients a step, 7 to 29 steps, as published (Kudo, Toyama and
  Shimbo, "Multidimensional curve classification using passing-through regions", 1999): 270 utterances for training, 370
  for testing. A batch of unequal lengths goes to the layer with its `lengths`, and no step of padding is computed.
- digits: scikit-learn's handwritten digits, read row by row, 8 steps of 8 pixels; the last quarter is held out.

    python examples/many_to_one.py

What to see: both are told apart in more than 95 of 100 cases, the same head asked before the end shows how certainty
grows from step to step, and the state of an utterance does not depend on what else is in its batch.
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
        """Those at these indices, with no more steps than the longest of them has."""
        lengths = self.lengths[at]
        return Sequences(self.x[: lengths.max(), at], lengths, self.labels[at])

    def standardized(self, mean, deviation):
        inside = np.arange(len(self.x))[:, None] < self.lengths
        x = np.where(inside[..., None], (self.x - mean) / deviation, 0)
        return Sequences(x.astype(np.float32), self.lengths, self.labels)


def standardize(train, test):
    """Both, by the mean and the deviation of each feature over the steps of the training sequences."""
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
    """1347 handwritten digits for training and 450 for testing, row by row, standardized."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8).transpose(1, 0, 2)
    digits = Sequences(x, np.full(len(labels), 8), labels)
    return standardize(digits[:1347], digits[1347:])


# The model --------------------------------------------------------------------------------------


class Classifier:
    """An LSTM and a linear head on its state after the last step."""

    def __init__(self, n_in, n_classes, hidden, rng, dtype=np.float32):
        self.lstm = fastrnn.LSTM(n_in, hidden, dtype=dtype, rng=rng)
        self.head = training.Linear(hidden, n_classes, rng, dtype)
        self.parts = [self.lstm, self.head]

    def gradient(self, x, lengths, labels):
        """The mean loss in nats, and its gradient by `parts`."""
        _, (h, _), tape = self.lstm.forward(x, lengths=lengths)
        loss, d_logits = training.softmax_loss(self.head(h[-1]), labels)
        d_h, d_head = self.head.backward(h[-1], d_logits)
        _, _, d_lstm = self.lstm.backward(tape, None, (d_h[None], None))
        return loss, [d_lstm, d_head]

    def __call__(self, sequences):
        """The probabilities of the classes after each step (T, B, K), those after the end as at the end."""
        output, _ = self.lstm(sequences.x, lengths=sequences.lengths)
        steps = np.minimum(np.arange(len(output))[:, None], sequences.lengths - 1)
        logits = self.head(output[steps, np.arange(len(sequences))])
        T, B, K = logits.shape
        _, softmax = training.cross_entropy(logits.reshape(T * B, K), np.zeros(T * B, int))
        return softmax.reshape(T, B, K)


def accuracy(model, sequences):
    return float(np.mean(model(sequences)[-1].argmax(axis=1) == sequences.labels))


BATCH, RATE = 32, 0.005


def fit(train, hidden, noise, passes, seed):
    """A classifier, trained with normal noise on its inputs, so that it meets no sequence twice."""
    rng = np.random.default_rng(seed)
    model = Classifier(train.x.shape[2], train.labels.max() + 1, hidden, rng)
    optimizer = training.Optimizer(model.parts, RATE, clip=1.0)
    drawn = training.batches(len(train), BATCH, rng)
    iterations = passes * (len(train) // BATCH)

    def step(iteration):
        batch = train[next(drawn)]
        x = batch.x + noise * rng.standard_normal(batch.x.shape, dtype=np.float32)
        loss, gradient = model.gradient(x, batch.lengths, batch.labels)
        optimizer.step(gradient, RATE * (1 - iteration / iterations))
        return loss

    training.run(step, iterations, None)
    return model


FOLDS = 3


def folds(labels):
    """Of each sequence the fold (B,): in each class the first third, the second, the third, as they were recorded."""
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
    candidates = [(hidden, noise) for hidden in (32, 64, 128) for noise in (0.0, 0.3, 0.6, 1.0)]
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


def certainty(probabilities, sequences, parts):
    """The probability of the right class (len(parts), B) when so large a part of a sequence has been read."""
    steps = np.ceil(np.outer(parts, sequences.lengths)).astype(int) - 1
    each = np.arange(len(sequences))
    return probabilities[np.maximum(steps, 0), each, sequences.labels]


def draw_vowels(probabilities, test, path):
    fig, (left, right) = figures.figure(9, 3.9, ncols=2, width_ratios=[1.35, 1])
    parts = np.linspace(0.02, 1, 99)
    right_one = certainty(probabilities, test, parts)
    said = probabilities[-1].argmax(axis=1)
    wrong = said != test.labels
    blue, red = figures.CYCLE[:2]
    for low, high, alpha in (5, 95, 0.15), (25, 75, 0.25):
        band = np.percentile(right_one, [low, high], axis=1)
        left.fill_between(100 * parts, *band, color=blue, alpha=alpha, linewidth=0)
    left.plot(100 * parts, np.median(right_one, axis=1), color=blue)
    left.plot(100 * parts, right_one[:, wrong], color=red, linewidth=0.8)
    left.set(xlabel="per cent of the utterance heard", ylim=(0, 1.01), xlim=(0, 100))
    left.set_title("Probability of the right speaker")
    left.text(40, 0.9, "median; half and nine tenths\nof all utterances", color=blue, va="top")
    left.text(55, 0.13, f"the {wrong.sum()} of {len(test)} mistaken in the end", color=red)

    counts = np.zeros((9, 9), int)
    np.add.at(counts, (test.labels, said), 1)
    right.imshow(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), cmap="Blues", vmax=1.3)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            right.text(column, row, count, ha="center", va="center", color=red if row != column else figures.INK)
    names = range(1, 10)
    right.set(xticks=range(9), yticks=range(9), xticklabels=names, yticklabels=names)
    right.set(xlabel="said to be", ylabel="speaker")
    right.set_title("Utterances of the test set")
    right.grid(False)
    figures.save(fig, path)


def draw_digits(probabilities, test, path):
    """Those about which the model changed its mind most often, and two on which it ended wrong."""
    said = probabilities.argmax(axis=2)
    changes = np.count_nonzero(said[1:] != said[:-1], axis=0) + probabilities[-1].max(axis=1)
    wrong = said[-1] != test.labels
    order = np.argsort(-changes, kind="stable")
    right_ones, used = [], set()
    for b in order[~wrong[order]]:  # of every class one
        if test.labels[b] not in used:
            right_ones.append(b)
            used.add(test.labels[b])
    shown = [*right_ones[:6], *order[wrong[order]][:2]]
    fig, axes = figures.figure(9, 4.6, nrows=2, ncols=8, width_ratios=[8, 10] * 4)
    for (image, bars), b in zip(axes.reshape(-1, 2), shown):
        image.imshow(test.x[:, b], cmap="Greys")
        bars.imshow(probabilities[:, b], cmap="Blues", vmin=0, vmax=1)
        for row in range(8):
            bars.text(said[row, b], row, said[row, b], color="w" if probabilities[row, b].max() > 0.5 else figures.INK,
                      ha="center", va="center", fontsize=7)  # fmt: skip
        good = not wrong[b]
        title = f"a {test.labels[b]}" if good else f"a {test.labels[b]}, taken for a {said[-1, b]}"
        image.set_title(title, color=figures.INK if good else figures.CYCLE[1], fontsize=9)
        for axis in image, bars:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        bars.set_xticks(range(10), range(10), fontsize=6)
        bars.tick_params(length=0, pad=1)
    figures.save(fig, path)


# What was found ---------------------------------------------------------------------------------

LOADERS = {"vowels": load_vowels, "digits": load_digits}
PASSES = {"vowels": 40, "digits": 30}
CHOSEN = {"vowels": (64, 0.6), "digits": (128, 0.6)}  # by the full run, for the quick one
DRAW = {"vowels": draw_vowels, "digits": draw_digits}


def study_task(name, options):
    train, test = LOADERS[name]()
    passes = PASSES[name]
    numbers = {}
    if options.quick:
        hidden, noise = CHOSEN[name]
        passes //= 2
    else:
        (hidden, noise), numbers["validation"] = choose(train, passes, f"choosing for {name}")
    seeds = range(options.seed, options.seed + (2 if options.quick else 6))
    models = training.side_by_side(fit, [(train, hidden, noise, passes, seed) for seed in seeds], name)
    accuracies = [accuracy(model, test) for model in models]
    probabilities = models[0](test)
    parts = [0.25, 0.5, 0.75, 1]
    growing = np.mean([certainty(model(test), test, parts).mean(axis=1) for model in models], axis=0)
    alone = np.stack([models[0](test[[b]])[-1, 0] for b in range(len(test))])
    DRAW[name](probabilities, test, options.output / f"many_to_one_{name}.png")
    numbers |= {
        "hidden": hidden,
        "noise": noise,
        "accuracy": accuracies,
        "without order": without_order(train, test),
        "certainty": dict(zip(map(str, parts), growing.tolist())),
        "alone as in a batch": alone.tobytes() == probabilities[-1].tobytes(),
    }
    print(
        f"{name}: {len(train)} to train on, {len(test)} to test, H = {hidden}, noise {noise}\n"
        f"  test accuracy {np.mean(accuracies):.2%}, {min(accuracies):.2%} to {max(accuracies):.2%}"
        f" over {len(seeds)} seeds\n"
        f"  mean and deviation of the steps, without their order: {numbers['without order']:.2%}\n"
        f"  probability of the right one after {', '.join(f'{p:.0%}' for p in parts)} of the steps:"
        f" {', '.join(f'{c:.2f}' for c in growing)}\n"
        f"  one by one instead of in a batch: {'the same' if numbers['alone as in a batch'] else 'OTHER'} bits"
    )
    return numbers


def main(options):
    return {name: study_task(name, options) for name in LOADERS}


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
