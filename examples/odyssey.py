"""Removes one part of an LSTM at a time, and measures the effect.

    python examples/odyssey.py

After Greff, Srivastava, Koutník, Steunebrink and Schmidhuber, "LSTM: A Search Space Odyssey" (2015; IEEE TNNLS 28,
2017). They compare an LSTM with peepholes with eight variants that differ in one part each: odyssey_variants.py has
them. They use a random search for every variant, over the size and the learning rate among others. Here all variants
are tried at the same random settings, and then from several seeds at the setting with the best average over all
variants; Welch's t-test shows which differ from the first.

The task is of that paper's kind, too: to name a class at every frame. The nine men of many_to_one.py, who say /ae/ in
7 to 29 frames of twelve coefficients, are concatenated here without pauses and with noise, and the network names the
speaker of each frame. It must accumulate evidence, and discard it when the speaker changes.

Results: without its forget gate the LSTM is worse, at nearly every setting. The other parts make a much smaller
difference, or none that is significant, and the setting matters more than any of them.

Sizes: T steps, B windows, I coefficients, H hidden units.
"""

import math
import time
from typing import NamedTuple

import training  # first: it sets NumPy's threads
import numpy as np
import odyssey_figures
from many_to_one import Sequences, load_vowels
from odyssey_variants import VARIANTS

import fastrnn

# The task ---------------------------------------------------------------------------------------

T = 60  # steps of a window, about four utterances
NOISE = 1.0  # of each coefficient, whose own deviation is 1


def conversation(utterances, T, noise, rng):
    """All utterances in a new order, concatenated, with noise, cut into B windows of T steps.

    Returns x (T, B, I), and the speaker, (T, B).
    """
    mixed = utterances[rng.permutation(len(utterances))]
    inside = np.arange(len(mixed.x)) < mixed.lengths[:, None]
    frames, speakers = mixed.x.swapaxes(0, 1)[inside], np.repeat(mixed.labels, mixed.lengths)
    B = len(frames) // T
    frames, speakers = frames[: T * B].reshape(B, T, -1), speakers[: T * B].reshape(B, T)
    x = frames + noise * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.ascontiguousarray(x.swapaxes(0, 1)), speakers.T


class Task(NamedTuple):
    """The data of each training."""

    train: Sequences
    held_out: tuple  # a conversation, to choose the setting and the moment to stop
    test: tuple  # a conversation of the official test utterances
    updates: int

    @classmethod
    def of_vowels(cls, seed, updates):
        """Every third of the official training utterances is held out."""
        train, test = load_vowels()
        rng = np.random.default_rng(seed)
        third = np.arange(len(train)) % 3 == 2
        held_out = conversation(train[third], T, NOISE, rng)
        return cls(train[~third], held_out, conversation(test, T, NOISE, rng), updates)


def error_of_single_frames(task):
    """The error of logistic regression on single frames, a baseline without memory."""
    from sklearn.linear_model import LogisticRegression  # here, because the processes of the trials need none of it

    x, speakers = conversation(task.train, T, NOISE, np.random.default_rng(0))
    x_test, speakers_test = task.test
    I = x.shape[-1]
    model = LogisticRegression(max_iter=1000).fit(x.reshape(-1, I), speakers.ravel())
    return 1 - float(model.score(x_test.reshape(-1, I), speakers_test.ravel()))


# A training -------------------------------------------------------------------------------------

BATCH = 23  # windows, about half of all
CHECK_EVERY = 20  # updates


class Trial(NamedTuple):
    held_out: float  # the lowest held-out error, and the test error at that moment
    test: float
    seconds: float  # of a processor


HELD_OUT, TEST, SECONDS = range(3)


def trial(variant, task, H, rate, seed):
    begin = time.process_time()
    rng = np.random.default_rng(seed)
    make = VARIANTS[variant][1]
    block = make(task.test[0].shape[-1], H, rng)
    head = training.linear(H, task.train.labels.max() + 1, rng)
    optimizer = fastrnn.optim.Adam([block.params, head.params], lr=rate)
    batches = windows(task, rng)
    best = math.inf, math.inf

    def error(x, speakers):
        output, _ = block.forward(x)
        return float(np.mean(head(output).argmax(axis=-1) != speakers))

    def step(_):
        x, speakers = next(batches)
        output, tape = block.forward(x)
        logits, head_tape = head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, speakers)
        d_output, d_head = head.backward(head_tape, d_logits)
        gradient = [block.backward(tape, d_output), d_head]
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.step(gradient)
        return loss

    def check(update):
        nonlocal best
        if (update + 1) % CHECK_EVERY == 0 and (held_out := error(*task.held_out)) < best[0]:
            best = held_out, error(*task.test)

    training.run(step, task.updates, None, until=check)
    return Trial(*best, time.process_time() - begin)


def windows(task, rng):
    """Endless batches of windows, each pass over another conversation."""
    while True:
        x, speakers = conversation(task.train, T, NOISE, rng)
        for start in range(0, x.shape[1] - BATCH + 1, BATCH):
            at = slice(start, start + BATCH)
            yield np.ascontiguousarray(x[:, at]), speakers[:, at]


# The comparison ---------------------------------------------------------------------------------

LEVEL = 0.05


def draw_settings(n, rng, H, rate):
    """n times (H, rate), the logarithm of each uniform between its bounds."""
    sizes, rates = (np.exp(rng.uniform(*np.log(bounds), size=n)) for bounds in (H, rate))
    return [(round(float(size)), float(rate)) for size, rate in zip(sizes, rates)]


def trials(task, settings, seed, stage):
    """A trial of each variant at each setting, as an array of Trials (variants, settings, Trial's fields).

    The k-th of each variant has the same seed.
    """
    jobs = [(variant, task, *setting, (*seed, k)) for variant in VARIANTS for k, setting in enumerate(settings)]
    return np.reshape(training.side_by_side(trial, jobs, stage), (len(VARIANTS), len(settings), len(Trial._fields)))


def main(options):
    if options.quick:
        task, n_seeds = Task.of_vowels(options.seed, updates=40), 3
        settings = [(16, 0.03)]
    else:
        task, n_seeds = Task.of_vowels(options.seed, updates=300), 12
        settings = draw_settings(20, np.random.default_rng(options.seed), H=(8, 40), rate=(2e-3, 1e-1))
    searched = trials(task, settings, (options.seed, 0), "search")
    # for all variants the setting with the best average over them
    best = settings[searched[..., HELD_OUT].mean(axis=0).argmin()]
    repeated = trials(task, [best] * n_seeds, (options.seed, 1), "seeds")

    numbers = {
        "single_frames": 100 * error_of_single_frames(task),
        "H": best[0],
        "rate": best[1],
        "settings": settings,
        "variance": shares_of_variance(searched[..., TEST]),
        "variants": compare(searched, repeated),
    }
    report(numbers, task.test[1].size, n_seeds)
    odyssey_figures.draw_seeds(numbers["variants"], options.output / "odyssey.png")
    odyssey_figures.draw_search(numbers, options.output / "odyssey_search.png")
    return numbers


def compare(searched, repeated):
    """The results of each variant, errors in per cent."""
    from scipy.stats import ttest_ind, wilcoxon

    found = {}
    for variant, of_search, of_seeds in zip(VARIANTS, searched, repeated):
        errors, at_settings = 100 * of_seeds[:, TEST], 100 * of_search[:, TEST]
        if variant == "V":
            errors_of_v, at_settings_of_v = errors, at_settings
        p = p_search = 1.0
        if variant != "V":
            p = float(ttest_ind(errors, errors_of_v, equal_var=False).pvalue)
            p_search = float(wilcoxon(at_settings, at_settings_of_v).pvalue)
        found[variant] = {
            "errors": errors.tolist(),
            "mean": float(errors.mean()),
            "deviation": float(errors.std(ddof=1)),
            "p": p,
            "differs": p < LEVEL / (len(VARIANTS) - 1),  # of so many tests
            "search": at_settings.tolist(),
            "search_difference": float(np.median(at_settings - at_settings_of_v)),
            "search_p": p_search,
            "seconds": float(np.median(of_seeds[:, SECONDS])),
        }
    return found


def shares_of_variance(errors):
    """The parts of the variance of errors (variants, settings) explained by the setting and by the variant."""
    settings, variants = (errors.mean(axis=axis).var() / errors.var() for axis in (0, 1))
    return {"settings": float(settings), "variants": float(variants)}


def report(numbers, n_frames, n_seeds):
    H, rate, n_settings = numbers["H"], numbers["rate"], len(numbers["settings"])
    print(f"speakers of {n_frames} frames, from each frame alone: {numbers['single_frames']:.1f}% wrong")
    print(f"{n_seeds} seeds with {H} units at a learning rate of {rate:.2g}; medians over {n_settings} settings")
    print(f"{'':30}        wrong   p against V   at all settings         p    time")
    for variant, of in sorted(numbers["variants"].items(), key=lambda item: item[1]["mean"]):
        p, more, p_search = f"{of['p']:.2g}", f"{of['search_difference']:+.1f}", f"{of['search_p']:.2g}"
        if variant == "V":
            p = more = p_search = ""
        print(
            f"{variant:4}  {VARIANTS[variant][0]:24}  {of['mean']:4.1f} ± {of['deviation']:.1f}%  "
            f"{p:>11}{'*' if of['differs'] else ' '}  {more:>15}  {p_search:>8}  {of['seconds']:4.1f} s"
        )
    print(f"* p of Welch's t-test below {LEVEL} / {len(VARIANTS) - 1}, of so many tests; the last p is Wilcoxon's")
    if n_settings > 1:
        share = {name: f"{part:.0%}" for name, part in numbers["variance"].items()}
        print(f"of the variance {share['settings']} goes with the setting, {share['variants']} with the variant")


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
