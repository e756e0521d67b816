"""Does a memory survive rounding? Networks that remember across a gap, evaluated with fewer bits.

RNN, GRU and LSTM learn two tasks of `long_gap.py` in float32: latch, which needs one bit of memory, and adding, which
needs a number. Then the same weights answer after gaps up to five times as long, in float64 and after `layer.quantize`:

    int8        weights, x and h are integers from -127 to 127 in the products
    float16     weights have 11 significant bits
    bfloat16    weights, x and h have 8 significant bits in the products

In all of these the state itself stays in float32. The last experiment rounds it, too, after each step.

    python examples/precision.py            # both tasks, two seeds
    python examples/precision.py --quick    # the latch, one seed, gaps up to 50
"""

import training  # isort: skip, before NumPy

import numpy as np

import fastrnn
import figures
import long_gap

# The model ----------------------------------------------------------------------------------------

FORMATS = ("float64", "float32", "float16", "bfloat16", "int8")
STORED = ("float16", "bfloat16", "int8")  # of states


class Memory:
    """A recurrent layer and a linear head on its last h."""

    def __init__(self, cell, task, memory, rng, H=64):
        I, O = long_gap.SIZES[task]
        self.task = task
        self.layer, self.head = long_gap.CELLS[cell](I, H, rng=rng), training.linear(H, O, rng)
        long_gap.begin(self.layer, memory, rng)
        self.parts = [self.layer, self.head]

    def gradient(self, x, targets):
        """The mean loss, and its gradient by `parts`."""
        output, _, tape = self.layer.forward(x)
        answers, head_tape = self.head.forward(output[-1])
        if self.task == "adding":
            loss, d_answers = fastrnn.mean_squared_error(answers, targets[:, None])
        else:
            loss, d_answers = fastrnn.softmax_cross_entropy(answers, targets)
        d_output = np.zeros_like(output)
        d_output[-1], d_head = self.head.backward(head_tape, d_answers)
        _, _, d_layer = self.layer.backward(tape, d_output)
        return loss, [d_layer, d_head]

    def success(self, h, targets):
        """The fraction of right answers from the last h (B, H)."""
        answers = self.head(h.astype(np.float32))
        if self.task == "adding":
            return float(np.mean(np.abs(answers[:, 0] - targets) < 0.04))
        return float(np.mean(answers.argmax(axis=1) == targets))


def converted(layer, name):
    """The layer in float64, itself, or quantized."""
    if name == "float32":
        return layer
    if name != "float64":
        return layer.quantize(name)
    wide = type(layer)(layer.input_size, layer.hidden_size, dtype=np.float64)
    wide.load_state_dict({key: array.astype(np.float64) for key, array in layer.params.items()})
    return wide


def rounded(state, name):
    """A state (1, B, H) as if it were stored in a format; int8 with a scale for each sequence."""
    if name == "float16":
        return state.astype(np.float16).astype(np.float32)
    if name == "bfloat16":
        bits = state.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    scale = np.abs(state).max(axis=-1, keepdims=True) / 127 + 1e-30
    return np.rint(state / scale) * scale


# The experiment -----------------------------------------------------------------------------------

LONGEST = {"RNN": 10, "GRU": 200, "LSTM": 200}  # gaps in training; an RNN learns short ones only


def fit(task, cell, seed, iterations):
    """A network trained on gaps drawn anew for each batch."""
    rng = np.random.default_rng(seed)
    model = Memory(cell, task, long_gap.PRELUDE + LONGEST[cell], rng)
    optimizer = fastrnn.optim.Adam([part.params for part in model.parts], lr=long_gap.RATES[cell])

    def step(iteration):
        gap = int(rng.integers(1, LONGEST[cell] + 1))
        loss, gradient = model.gradient(*long_gap.TASKS[task](gap, 32, rng))
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.lr = long_gap.RATES[cell] * (1 - iteration / iterations)
        optimizer.step(gradient)
        return loss

    training.run(step, iterations, None)
    return model


def steps_of(layer, x, name):
    """The last h (B, H) of a layer whose state is rounded after each step."""
    state = None
    for x_t in x:
        _, state = layer(x_t[None], state)
        if isinstance(state, tuple):
            state = tuple(rounded(part, name) for part in state)
        else:
            state = rounded(state, name)
    return (state[0] if isinstance(state, tuple) else state)[0]


def measure(task, cell, seed, iterations, gaps, B):
    """The rows of one network: how each format answers after each gap, and how far its h is from that of float32."""
    model = fit(task, cell, seed, iterations)
    formats, stored = {}, {}
    for gap in gaps:
        x, targets = long_gap.TASKS[task](gap, B, np.random.default_rng([seed, gap]))
        for name in FORMATS:
            layer = converted(model.layer, name)
            _, _, relative, first = fastrnn.compare(model.layer, layer, x)
            success = model.success(layer(x)[0][-1], targets)
            formats.setdefault(name, []).append({"success": success, "relative": relative, "first": first})
        for name in STORED:
            stored.setdefault(name, []).append(model.success(steps_of(model.layer, x, name), targets))
    return {"formats": formats, "stored": stored}


LOOKS = {  # in the order of drawing: the wide lines lie below
    "float32": {"color": "#9aa5b1", "linewidth": 6},
    "float16": {"color": figures.CYCLE[2], "linewidth": 3.4},
    "bfloat16": {"color": figures.CYCLE[3], "linewidth": 2.2},
    "int8": {"color": figures.CYCLE[1], "linewidth": 1.2},
    "float64": {"color": figures.INK, "linewidth": 1.2, "linestyle": ":"},
}


def draw(task, means, gaps, path):
    """Success of a task: above, the weights are in each format; below, the state."""
    fig, panels = figures.figure(9.6, 5.8, nrows=2, ncols=3, sharex=True, sharey=True)
    longest = {"color": figures.CYCLE[5], "linewidth": 1, "linestyle": (0, (4, 3))}
    for column, cell in zip(panels.T, long_gap.CELLS):
        weights, state = means[task, cell]["success"], means[task, cell]["stored"]
        for axes, rows in zip(column, (weights, {"float32": weights["float32"]} | state)):
            for name in filter(rows.get, LOOKS):
                axes.plot(gaps, [100 * success for success in rows[name]], label=name, **LOOKS[name])
            axes.axvline(LONGEST[cell], label="longest gap in training", **longest)
        column[0].set(title=cell, ylim=(0, 104))
        column[1].set(xlabel="gap, steps", xscale="log")
        column[1].set_xticks(gaps, gaps, fontsize=7)
        column[1].minorticks_off()
    panels[0, 0].set_ylabel(f"{task}: right, %\nweights in that format")
    panels[1, 0].set_ylabel(f"{task}: right, %\nstate rounded at each step")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LOOKS) + 1)
    figures.save(fig, path)


def averaged(rows, gaps):
    """The means over the seeds of what `measure` returns, and the earliest step at which outputs part."""
    at = range(len(gaps))
    of = {name: [row["formats"][name] for row in rows] for name in FORMATS}
    return {
        "success": {n: [float(np.mean([r[k]["success"] for r in of[n]])) for k in at] for n in FORMATS},
        "relative": {n: [float(np.mean([r[k]["relative"] for r in of[n]])) for k in at] for n in FORMATS},
        "first": {n: [min((r[k]["first"] for r in of[n] if r[k]["first"] is not None), default=None) for k in at]
                  for n in FORMATS},
        "stored": {n: [float(np.mean([row["stored"][n][k] for row in rows])) for k in at] for n in STORED},
    }  # fmt: skip


def main(options):
    gaps = (10, 50) if options.quick else (10, 50, 200, 500, 1000)
    seeds = range(options.seed, options.seed + (1 if options.quick else 2))
    iterations, B = (300, 200) if options.quick else (1000, 250)
    tasks = ("latch",) if options.quick else ("adding", "latch")
    jobs = [(t, c, s, iterations, gaps, B) for c in ("LSTM", "GRU", "RNN") for t in tasks for s in seeds]
    rows = {}
    for (task, cell, *_), row in zip(jobs, training.side_by_side(measure, jobs, "networks")):
        rows.setdefault((task, cell), []).append(row)
    means = {key: averaged(some, gaps) for key, some in rows.items()}
    print(
        f"{training.number_of(seeds)}, {iterations} iterations;"
        f" right, % of {B} sequences, and the difference from float32"
    )
    print(f"{'':27}" + "".join(f"{gap:>17}" for gap in gaps))
    for (task, cell), mean in means.items():
        for name in FORMATS:
            texts = [f"{100 * s:.1f} {r:.0e} {'-' if f is None else f}" for s, r, f in
                     zip(mean["success"][name], mean["relative"][name], mean["first"][name])]  # fmt: skip
            print(f"{task:7}{cell:5}{name:15}" + "".join(f"{text:>17}" for text in texts))
        for name in STORED:
            print(f"{task:7}{cell:5}{name + ' state':15}"
                  + "".join(f"{f'{100 * s:.1f}':>17}" for s in mean["stored"][name]))  # fmt: skip
    draw(tasks[0], means, gaps, options.output / "precision.png")
    return {"gaps": gaps} | {f"{task}, {cell}": mean for (task, cell), mean in means.items()}


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
