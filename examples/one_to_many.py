"""One to many: the name of a handwritten digit, written by an LSTM that sees the image once.

This is the one-to-many case of Karpathy ("The Unreasonable Effectiveness of Recurrent Neural Networks", 2015), and a
small version of the captions of Vinyals et al. ("Show and Tell", 2015). The image is the first input of the LSTM, each
later input is the previous character, and each output scores the next one, up to the end mark. In training the previous
character is the true one (teacher forcing), afterwards the LSTM's own.

    python examples/one_to_many.py

Results: the model does not know that there are ten classes, but it writes one of the ten names, nearly always the right
one, about as often as a classifier with the same image encoder. Its uncertainty is where two names diverge.
"""

import training  # first, because NumPy's threads are set there
import numpy as np

import fastrnn
import figures

# The data ---------------------------------------------------------------------------------------

NAMES = "zero one two three four five six seven eight nine".split()
END = "."
ALPHABET = END + "".join(sorted(set("".join(NAMES))))
SPELLED = np.zeros((len(NAMES), 6), int)  # ids, filled up with END
for label, name in enumerate(NAMES):
    SPELLED[label, : len(name)] = [ALPHABET.index(character) for character in name]
LENGTHS = np.array([len(name) + 1 for name in NAMES])  # with the end mark
IGNORED = -1  # the target of a step that does not count


def decode(ids):
    """The text of ids (T,) before the end mark; without an end mark, the whole text and an ellipsis."""
    text, end, _ = "".join(ALPHABET[i] for i in ids).partition(END)
    return text if end else text + "…"


def load():
    """scikit-learn's 1797 digits: images (N, 8, 8) of deviation 1, and labels. The last quarter is held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / images.std()).reshape(-1, 8, 8).astype(np.float32)
    return (images[:1347], labels[:1347]), (images[1347:], labels[1347:])


def variants(images, copies, rng):
    """(copies, N, 8, 8): each image randomly rotated, slanted, stretched and shifted."""
    from scipy import ndimage  # scikit-learn needs it, too

    result = np.empty((copies, *images.shape), np.float32)
    middle = np.full(2, 3.5)
    for at in np.ndindex(result.shape[:2]):
        turn, slant = rng.uniform(-0.2, 0.2, size=2)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        stretch = np.diag(np.exp(rng.uniform(-0.15, 0.15, size=2)))
        matrix = rotation @ [[1, slant], [0, 1]] @ stretch
        offset = middle - matrix @ middle + rng.uniform(-0.8, 0.8, size=2)
        ndimage.affine_transform(images[at[1]], matrix, offset, output=result[at], order=1)
    return result


# The model --------------------------------------------------------------------------------------


class Writer:
    """An image encoder, an LSTM that reads the encoded image and then characters, and a head that scores characters."""

    def __init__(self, E, H, rng, dtype=np.float32):
        self.eye = training.linear(64, E, rng, dtype)
        self.characters = training.Embedding(len(ALPHABET), E, rng, dtype)
        self.lstm = fastrnn.LSTM(E, H, dtype=dtype, rng=rng)
        self.head = training.linear(H, len(ALPHABET), rng, dtype)
        self.parts = [self.eye, self.characters, self.lstm, self.head]

    def gradient(self, images, labels):
        """The mean loss in nats, and its gradient by `parts`: images (B, 64), labels (B,)."""
        lengths = LENGTHS[labels]
        T = lengths.max()
        targets = SPELLED[labels, :T].T
        # 1. encode the image, then embed the previous characters             x      (T, B, E)
        scores, eye_tape = self.eye.forward(images)
        seen = np.maximum(scores, 0)
        x = np.concatenate([seen[None], self.characters(targets[:-1])])
        # 2. the LSTM                                                         output (T, B, H)
        output, _, tape = self.lstm.forward(x, lengths=lengths)
        # 3. score the next characters, up to each name's end mark
        counted = np.where(np.arange(T)[:, None] < lengths, targets, IGNORED)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, counted, ignore_index=IGNORED)

        d_output, d_head = self.head.backward(head_tape, d_logits)  # 3.
        d_x, _, d_lstm = self.lstm.backward(tape, d_output)  # 2.
        d_characters = self.characters.backward(targets[:-1], d_x[1:])  # 1.
        _, d_eye = self.eye.backward(eye_tape, d_x[0] * (seen > 0))
        return loss, [d_eye, d_characters, d_lstm, d_head]

    def write(self, images, steps=8):
        """ids (steps, B), each the most probable, and the probabilities of all characters (steps, B, V)."""
        stream = self.lstm.stream(len(images))
        x_t = np.maximum(self.eye(images), 0)
        ids, probabilities = [], []
        for _ in range(steps):
            p_t = training.softmax(self.head(stream.step(x_t)))
            probabilities.append(p_t)
            ids.append(p_t.argmax(axis=1))
            x_t = self.characters(ids[-1])
        return np.stack(ids), np.stack(probabilities)

    def probabilities(self, images):
        """The probability of each of the ten names by the chain rule: (B, 10)."""
        seen = np.maximum(self.eye(images), 0)
        each = np.arange(len(images))
        result = np.empty((len(images), len(NAMES)))
        for label, length in enumerate(LENGTHS):
            ids = SPELLED[label, :length]
            x = np.empty((length, *seen.shape), seen.dtype)
            x[0], x[1:] = seen, self.characters(ids[:-1])[:, None]
            output, _ = self.lstm(x)
            p = training.softmax(self.head(output))
            result[:, label] = p[np.arange(length)[:, None], each, ids[:, None]].prod(axis=0)
        return result

    def accuracy(self, images, labels):
        return float(np.mean([decode(ids) == NAMES[b] for ids, b in zip(self.write(images)[0].T, labels, strict=True)]))


# The classifier beside it -----------------------------------------------------------------------


class Classifier:
    """The same image encoder, and a head that scores the ten classes."""

    def __init__(self, E, H, rng, dtype=np.float32):
        self.eye = training.linear(64, E, rng, dtype)
        self.inner = training.linear(E, H, rng, dtype)
        self.head = training.linear(H, len(NAMES), rng, dtype)
        self.parts = [self.eye, self.inner, self.head]

    def gradient(self, images, labels):
        scores, eye_tape = self.eye.forward(images)
        seen = np.maximum(scores, 0)
        scores, inner_tape = self.inner.forward(seen)
        hidden = np.maximum(scores, 0)
        logits, head_tape = self.head.forward(hidden)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, labels)
        d_hidden, d_head = self.head.backward(head_tape, d_logits)
        d_seen, d_inner = self.inner.backward(inner_tape, d_hidden * (hidden > 0))
        _, d_eye = self.eye.backward(eye_tape, d_seen * (seen > 0))
        return loss, [d_eye, d_inner, d_head]

    def accuracy(self, images, labels):
        hidden = np.maximum(self.inner(np.maximum(self.eye(images), 0)), 0)
        return float(np.mean(self.head(hidden).argmax(axis=1) == labels))


# The experiment ---------------------------------------------------------------------------------

E, H = 256, 64
BATCH, RATE, NOISE = 64, 0.01, 0.5


def fit(kind, images, labels, passes, seed):
    """A model of a kind, trained on variants (copies, N, 8, 8) of the images with added normal noise."""
    rng = np.random.default_rng(seed)
    model = kind(E, H, rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=RATE)
    drawn = training.batches(len(labels), BATCH, rng)
    iterations = passes * (len(labels) // BATCH)

    def step(iteration):
        at = next(drawn)
        batch = images[rng.integers(len(images), size=BATCH), at].reshape(BATCH, -1)
        batch += NOISE * rng.standard_normal(batch.shape, dtype=np.float32)
        loss, gradient = model.gradient(batch, labels[at])
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = RATE * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model


# Results ----------------------------------------------------------------------------------------


def hesitation(ids, probabilities):
    """The mean entropy in bits of the first character, of the character after t, f or s, and of all others."""
    bits = -np.sum(probabilities * np.log2(np.maximum(probabilities, 1e-30)), axis=2)
    place = np.full(ids.shape, 2)
    place[1, np.isin(ids[0], [ALPHABET.index(character) for character in "tfs"])] = 1
    place[0] = 0
    ended = np.cumsum(ids == 0, axis=0) - (ids == 0) > 0  # the end mark itself counts
    place[ended] = -1
    return [float(bits[place == k].mean()) for k in range(3)]


def judge(writer, images, labels):
    """Statistics of the names written for images (N, 64)."""
    ids, probabilities = writer.write(images)
    written = [decode(one) for one in ids.T]
    of_names = writer.probabilities(images)
    best = of_names.argmax(axis=1)
    return {
        "exact": writer.accuracy(images, labels),
        "no name": sum(one not in NAMES for one in written),
        "on the ten names": float(of_names.sum(axis=1).mean()),
        "most probable name": float(np.mean(best == labels)),
        "greedy is not most probable": sum(one != NAMES[b] for one, b in zip(written, best, strict=True)),
        "bits": hesitation(ids, probabilities),
    }


def chosen(ids, probabilities, labels):
    """Indices of eight names written right, six of them the least certain, and of four written wrong."""
    right = np.array([decode(one) == NAMES[label] for one, label in zip(ids.T, labels, strict=True)])
    order = np.argsort(probabilities.max(axis=2).min(axis=0), kind="stable")  # the least certain first

    def different(indices, count, taken=()):
        found = dict.fromkeys(taken)
        for b in indices:
            found.setdefault(labels[b], b)
        return [b for b in found.values() if b is not None][:count]

    doubted = different(order[right[order]], 6)
    sure = different(order[right[order]][::-1], 2, labels[doubted])
    return doubted + sure + different(order[~right[order]], 4)


BLUE, RED, ALTERNATIVE = *figures.CYCLE[:2], "#dfe3e8"


def draw(writer, images, labels, path):
    ids, probabilities = writer.write(images)
    shown = chosen(ids, probabilities, labels)
    fig, axes = figures.figure(9, 5.0, nrows=3, ncols=8, width_ratios=[8, 15] * 4)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for (image, bars), b in zip(axes.reshape(-1, 2), shown):
        name, written = NAMES[labels[b]], decode(ids[:, b])
        image.imshow(images[b].reshape(8, 8), cmap="Greys")
        image.set_anchor("N")
        for t in range(min(len(written) + 1, len(ids))):
            lost = not (name + END).startswith((written + END)[: t + 1])  # from the first wrong character on
            p, floor = probabilities[t, b], 0.0
            for k in np.argsort(-p, kind="stable")[:4]:
                colour, ink = ALTERNATIVE, figures.INK
                if k == ids[t, b]:
                    colour, ink = (RED if lost else BLUE), figures.PAPER
                bars.bar(t, p[k], 0.92, floor, color=colour, edgecolor=figures.PAPER, linewidth=0.6)
                if p[k] > 0.1:
                    bars.text(t, floor + p[k] / 2, ALPHABET[k].replace(END, "■"), color=ink, ha="center", va="center")
                floor += p[k]
        bars.set(xlim=(-0.5, 6.5), ylim=(0, 1))
        right = written == name
        image.set_title(name if right else f"{written} instead of {name}", color=figures.INK if right else RED)
    patches = [figures.matplotlib.patches.Patch(color=colour) for colour in (BLUE, RED, ALTERNATIVE)]
    fig.legend(patches, ["written, right", "written, wrong", "an alternative; the height is the probability"],
               loc="outside lower center", ncols=3)  # fmt: skip
    figures.save(fig, path)


def main(options):
    (train, labels), (test, test_labels) = load()
    test = test.reshape(len(test), -1)
    passes, copies, seeds = (40, 8, 1) if options.quick else (120, 32, 6)
    images = variants(train, copies, np.random.default_rng(options.seed))
    seeds = range(options.seed, options.seed + seeds)
    jobs = [(kind, images, labels, passes, seed) for kind in (Writer, Classifier) for seed in seeds]
    models = training.side_by_side(fit, jobs, "writers, classifiers")
    writers, classifiers = models[: len(seeds)], models[len(seeds) :]
    found = [judge(writer, test, test_labels) for writer in writers]
    numbers = {name: [one[name] for one in found] for name in found[0]}
    numbers["classifier"] = [model.accuracy(test, test_labels) for model in classifiers]
    draw(writers[0], test, test_labels, options.output / "one_to_many.png")

    def spread(values):
        return training.spread(values, ".2%")

    first, parting, rest = np.mean(numbers["bits"], axis=0)
    n = len(test) * len(seeds)
    print(
        f"{len(train)} images to train on, {len(test)} to test, {training.number_of(seeds)}\n"
        f"  names written without a fault: {spread(numbers['exact'])}\n"
        f"  a classifier with the same image encoder: {spread(numbers['classifier'])}\n"
        f"  other than one of the ten names: {sum(numbers['no name'])} of {n};"
        f" probability of the ten together {np.mean(numbers['on the ten names']):.5f}\n"
        f"  other than the most probable name: {sum(numbers['greedy is not most probable'])} of {n}\n"
        f"  doubt: {first:.3f} bits in the first character, {parting:.3f} after t, f or s, {rest:.4f} in the others"
    )
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
