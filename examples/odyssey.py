"""Removes one part of an LSTM at a time, and measures the effect.

    python examples/odyssey.py

After Greff, Srivastava, Koutník, Steunebrink and Schmidhuber, "LSTM: A Search Space Odyssey" (2015; IEEE TNNLS 28,
2017). They compare an LSTM with peepholes with eight variants that differ in one part each, see VARIANTS. They use a
random search for every variant, over the size and the learning rate among others. Here all variants are tried at the
same random settings, and then from several seeds at the setting with the best average over all variants; Welch's t-test
shows which differ from the first.

The task is of that paper's kind, too: to name a class at every frame. The nine men of many_to_one.py, who say /ae/ in
7 to 29 frames of twelve coefficients, are concatenated here without pauses and with noise, and the network names the
speaker of each frame. It must accumulate evidence, and discard it when the speaker changes.

Six of the nine run on the fused kernels, by their parameters alone:

- a gate that is always open is one of weights 0 and bias 40. Its sigmoid is exactly 1, and its gradient exactly 0;
- coupled gates, f = 1 - i, have opposite weights, because sigmoid(-z) = 1 - sigmoid(z).

The kernels cannot compute the other three with any parameters. They run in plain NumPy, in `Block`.

Results: without its forget gate the LSTM is worse, at nearly every setting. The other parts make a much smaller
difference, or none that is significant, and the setting matters more than any of them.

Sizes: T steps, B windows, I coefficients, H hidden units.
"""

import math
import time
from functools import partial
from typing import NamedTuple
from collections.abc import Callable

import training  # first: it sets NumPy's threads
import figures
import numpy as np
from many_to_one import Sequences, load_vowels

import fastrnn

# The variants -----------------------------------------------------------------------------------

GATES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # of rows i, f, g, o, H of each
OPEN_BIAS = 40.0


class Fused:
    """The variants that are a fastrnn.LSTM: with peepholes or without, with a gate held open, with coupled gates."""

    def __init__(self, I, H, rng, dtype=np.float32, *, peephole=True, held_open=None, coupled=False):
        self.lstm = fastrnn.LSTM(I, H, dtype=dtype, rng=0, peephole=peephole)
        self.params, self.coupled = self.lstm.params, coupled
        self.params.flat[...] = rng.normal(scale=0.1, size=self.params.flat.size)
        if held_open:
            weight_ih, weight_hh, bias_ih, bias_hh, peepholes = rows(self.params, held_open)
            for held in (weight_ih, weight_hh, bias_hh, peepholes):
                held[...] = 0
            bias_ih[...] = OPEN_BIAS
        if coupled:
            for of_i, of_f in zip(rows(self.params, "i"), rows(self.params, "f")):
                of_f[...] = -of_i

    def forward(self, x):
        output, _, tape = self.lstm.forward(x)
        return output, tape

    def backward(self, tape, d_output):
        _, _, d_params = self.lstm.backward(tape, d_output)
        if self.coupled:
            # Keeps W_f = -W_i. From opposite gradients, Adam's steps are opposite to the last bit.
            for d_i, d_f in zip(rows(d_params, "i"), rows(d_params, "f")):
                d_i[...] = (d_i - d_f) / 2
                d_f[...] = -d_i
        return d_params


def rows(params, gate):
    """The parameters of one of the gates i, f and o: its rows of the weights and biases, and its peepholes."""
    H = params["weight_hh_l0"].shape[1]
    k = "ifgo".index(gate)
    return [params[name][k * H : (k + 1) * H] for name in GATES] + [params["weight_peephole_l0"]["ifo".index(gate)]]


class Activation(NamedTuple):
    """y, of z, and dy/dz, of y."""

    value: Callable
    slope: Callable


SIGMOID = Activation(lambda z: (1 + np.tanh(z / 2)) / 2, lambda y: y * (1 - y))
TANH = Activation(np.tanh, lambda y: 1 - y * y)
IDENTITY = Activation(lambda z: z, np.ones_like)
OPEN = Activation(np.ones_like, np.zeros_like)


class Block:
    """An LSTM with peepholes in NumPy, with arbitrary activations.

    With `recurrent_gates`, each gate also sees all three gates of the step before (full gate recurrence).
    """

    def __init__(
        self, I, H, rng, dtype=np.float32, *,
        i=SIGMOID, f=SIGMOID, g=TANH, o=SIGMOID, a=TANH, recurrent_gates=False,
    ):  # fmt: skip
        shapes = {name: array.shape for name, array in fastrnn.LSTM(I, H, peephole=True, rng=0).params.items()}
        if recurrent_gates:
            shapes["weight_gates"] = 3 * H, 3 * H
        self.params = fastrnn.Parameters(shapes, dtype)
        self.params.flat[...] = rng.normal(scale=0.1, size=self.params.flat.size)
        self.activations, self.recurrent_gates = (i, f, g, o, a), recurrent_gates

    def forward(self, x):
        """x (T, B, I) -> output (T, B, H), and a tape for `backward`."""
        i_of, f_of, g_of, o_of, a_of = (activation.value for activation in self.activations)
        params, W_hh = self.params, self.params["weight_hh_l0"]
        p_i, p_f, p_o = params["weight_peephole_l0"]
        (T, B, _), H = x.shape, W_hh.shape[1]
        output = np.empty((T, B, H), x.dtype)
        h, c, gates = (np.zeros((B, n), x.dtype) for n in (H, H, 3 * H))
        steps = []
        # (1) the input projection, at all steps
        z_x = x @ params["weight_ih_l0"].T + (params["bias_ih_l0"] + params["bias_hh_l0"])
        for t in range(T):
            h_prev, c_prev, gates_prev = h, c, gates
            # (2) and the recurrent product
            z_i, z_f, z_g, z_o = np.split(z_x[t] + h_prev @ W_hh.T, 4, axis=1)
            if self.recurrent_gates:
                r_i, r_f, r_o = np.split(gates_prev @ params["weight_gates"].T, 3, axis=1)
                z_i, z_f, z_o = z_i + r_i, z_f + r_f, z_o + r_o
            # (3) the gates before the cell
            i, f, g = i_of(z_i + p_i * c_prev), f_of(z_f + p_f * c_prev), g_of(z_g)
            # (4) the cell
            c = f * c_prev + i * g
            # (5) the gate behind it
            o = o_of(z_o + p_o * c)
            # (6) the output
            a = a_of(c)
            h = output[t] = o * a
            if self.recurrent_gates:
                gates = np.concatenate([i, f, o], axis=1)
            steps.append((h_prev, c_prev, gates_prev, i, f, g, o, c, a))
        return output, (x, steps)

    def backward(self, tape, d_output):
        """The gradient of `params`."""
        i_slope, f_slope, g_slope, o_slope, a_slope = (activation.slope for activation in self.activations)
        params, d_params = self.params, self.params.zeros_like()
        W_hh, (p_i, p_f, p_o) = params["weight_hh_l0"], params["weight_peephole_l0"]
        d_p_i, d_p_f, d_p_o = d_params["weight_peephole_l0"]
        (x, steps), H = tape, W_hh.shape[1]
        d_z = np.empty((len(x), x.shape[1], 4 * H), x.dtype)
        d_h, d_c, d_gates = (np.zeros((x.shape[1], n), x.dtype) for n in (H, H, 3 * H))
        for t in reversed(range(len(x))):
            h_prev, c_prev, gates_prev, i, f, g, o, c, a = steps[t]
            # (6) the output
            d_h = d_h + d_output[t]
            d_i, d_f, d_o = np.split(d_gates, 3, axis=1)
            d_o = d_o + d_h * a
            d_c = d_c + d_h * o * a_slope(a)
            # (5) the gate behind the cell
            d_z_o = d_o * o_slope(o)
            d_p_o += (d_z_o * c).sum(axis=0)
            d_c = d_c + d_z_o * p_o
            # (4) the cell
            d_i, d_f, d_g = d_i + d_c * g, d_f + d_c * c_prev, d_c * i
            d_c = d_c * f
            # (3) the gates before the cell
            d_z_i, d_z_f, d_z_g = d_i * i_slope(i), d_f * f_slope(f), d_g * g_slope(g)
            d_p_i += (d_z_i * c_prev).sum(axis=0)
            d_p_f += (d_z_f * c_prev).sum(axis=0)
            d_c = d_c + d_z_i * p_i + d_z_f * p_f
            # (2) the recurrent product
            if self.recurrent_gates:
                d_r = np.concatenate([d_z_i, d_z_f, d_z_o], axis=1)
                d_params["weight_gates"] += d_r.T @ gates_prev
                d_gates = d_r @ params["weight_gates"]
            np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1, out=d_z[t])
            d_h = d_z[t] @ W_hh
        # (2), (1) the weights, of all steps
        d_z = d_z.reshape(-1, 4 * H)
        d_params["weight_hh_l0"] = d_z.T @ np.concatenate([h_prev for h_prev, *_ in steps])
        d_params["weight_ih_l0"] = d_z.T @ x.reshape(len(d_z), -1)
        d_params["bias_ih_l0"] = d_params["bias_hh_l0"] = d_z.sum(axis=0)
        return d_params


VARIANTS = {  # in the order of the paper, and under its names
    "V": ("all parts", Fused),
    "NIG": ("no input gate", partial(Fused, held_open="i")),
    "NFG": ("no forget gate", partial(Fused, held_open="f")),
    "NOG": ("no output gate", partial(Fused, held_open="o")),
    "NIAF": ("no input activation", partial(Block, g=IDENTITY)),
    "NOAF": ("no output activation", partial(Block, a=IDENTITY)),
    "CIFG": ("coupled gates", partial(Fused, coupled=True)),
    "NP": ("no peepholes", partial(Fused, peephole=False)),
    "FGR": ("gates see gates", partial(Block, recurrent_gates=True)),
}

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
    draw_seeds(numbers["variants"], options.output / "odyssey.png")
    draw_search(numbers, options.output / "odyssey_search.png")
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


# The figures ------------------------------------------------------------------------------------

WORSE, BETTER, SAME = "#c8553d", "#3d8b7d", "#2f5fa8"


def colour(variant, about):
    if not about[variant]["differs"]:
        return SAME
    return WORSE if about[variant]["mean"] > about["V"]["mean"] else BETTER


def draw_seeds(about, path):
    fig, axes = figures.figure(7.2, 3.9)
    order = sorted(about, key=lambda one: about[one]["mean"], reverse=True)
    low, high = np.quantile(about["V"]["errors"], [0.25, 0.75])
    axes.axvspan(low, high, color=figures.GRID, zorder=0, linewidth=0)
    axes.annotate("middle half of V", (high, -0.75), (4, 0), textcoords="offset points", va="center", fontsize=8)
    labels = axes.get_yaxis_transform()
    for k, variant in enumerate(order):
        one, paint = about[variant], colour(variant, about)
        # one below the other, in the order of the seeds
        heights = k + np.linspace(-0.22, 0.22, len(one["errors"]))
        axes.scatter(one["errors"], heights, s=16, color=paint, alpha=0.55, linewidths=0)
        axes.plot([np.median(one["errors"])] * 2, [k - 0.34, k + 0.34], color=paint, linewidth=2.4)
        beside = {"xycoords": labels, "textcoords": "offset points", "va": "center"}
        axes.annotate(variant, (0, k), (-140, 0), weight="bold", color=paint, **beside)
        axes.annotate(VARIANTS[variant][0], (0, k), (-105, 0), **beside)
    axes.set_yticks([])
    axes.set_ylim(-1.05, len(order) - 0.4)
    axes.set_xlabel("frames whose speaker is named wrongly, % of the test set; bars are medians")
    figures.save(fig, path)


def draw_search(numbers, path):
    about, (sizes, rates) = numbers["variants"], np.transpose(numbers["settings"])
    fig, grid = figures.figure(7.2, 5.4, nrows=3, ncols=3, sharex=True, sharey=True)
    for variant, axes in zip(VARIANTS, grid.flat):
        for name, paint in (("V", "#c3c9d0"), (variant, colour(variant, about))):
            axes.scatter(rates, about[name]["search"], s=1.6 * sizes, color=paint, alpha=0.8, linewidths=0)
        axes.set_xscale("log")
        axes.set_title(f"{variant}  {VARIANTS[variant][0]}", fontsize=8.5)
    fig.supxlabel("learning rate; the larger the dot, the more units", fontsize=9)
    fig.supylabel("frames named wrongly, %   (V in grey)", fontsize=9)
    figures.save(fig, path)


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
