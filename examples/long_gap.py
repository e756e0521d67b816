"""How far back can a recurrent network remember?

The problem of long-term dependencies, after Bengio, Simard and Frasconi, "Learning Long-Term Dependencies with Gradient
Descent is Difficult" (1994), on their tasks and those of Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997).
In each task, all information comes in the first ten steps; a gap of noise follows; then the network must answer.

    latch     the one marked sign among others
    adding    the sum of two marked numbers; right is an error below 0.04, as in 1997
    order     which of XX, XY, YX, YY came, scattered among other symbols

    python examples/long_gap.py            # gaps of 10 to 500 steps, three seeds
    python examples/long_gap.py --quick    # gaps of 10 and 100, one seed

Results: with a short gap all three cells learn; as it grows, the plain RNN falls to chance, while the GRU and the LSTM
still answer over hundreds of steps. All start with orthogonal recurrent matrices, which help a plain RNN; each cell
uses a good learning rate from trials. The initial biases of the gates give memory spans of 2 to T steps (Tallec and
Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018); an RNN has no gates. The last lines of the output show that
gates without such biases are not enough.
"""

import training  # isort: skip, before NumPy

import numpy as np

import fastrnn
import figures

CELLS = {"RNN": fastrnn.RNN, "GRU": fastrnn.GRU, "LSTM": fastrnn.LSTM}
RATES = {"RNN": 0.001, "GRU": 0.005, "LSTM": 0.005}
PRELUDE = 10  # steps, which have all that matters
SOLVED = 0.99

# Tasks: (gap, B, rng) -> x (T, B, I) and targets (B,), where T = PRELUDE + gap -----------------------


def latch(gap, B, rng):
    x, marked = marked_numbers(gap, B, rng, marks=1)
    x[..., 0] = np.sign(x[..., 0])
    return x, (marked[0] > 0).astype(int)


def adding(gap, B, rng):
    x, marked = marked_numbers(gap, B, rng, marks=2)
    return x, 0.5 + marked.sum(axis=0) / 4


def order(gap, B, rng):
    symbols = rng.integers(2, 6, size=(PRELUDE + gap, B))
    marks = rng.integers(2, size=(2, B))
    symbols[places(2, B, rng), np.arange(B)] = marks
    return np.eye(6, dtype=np.float32)[symbols], 2 * marks[0] + marks[1]


def marked_numbers(gap, B, rng, marks):
    """Numbers and marks (T, B, 2), and the marked numbers, (marks, B)."""
    x = np.zeros((PRELUDE + gap, B, 2), np.float32)
    x[..., 0] = rng.uniform(-1, 1, size=x.shape[:2])
    marked = places(marks, B, rng), np.arange(B)
    x[..., 1][marked] = 1
    return x, x[..., 0][marked]


def places(n, B, rng):
    """n different steps of the prelude in order, (n, B)."""
    return np.sort(rng.permuted(np.tile(np.arange(PRELUDE), (B, 1)), axis=1)[:, :n]).T


TASKS = {"latch": latch, "adding": adding, "order": order}
SIZES = {"latch": (2, 2), "adding": (2, 1), "order": (6, 4)}  # inputs and outputs
CHANCE = {
    "latch": 1 / 2,
    "adding": 1 - 0.92**2,
    "order": 1 / 4,
}  # of the adding problem, by saying 0.5

# Training ----------------------------------------------------------------------------------------


def begin(layer, memory, rng):
    """Sets orthogonal recurrent matrices, and gate biases for memory spans of 2 to `memory` steps."""
    H, bias = layer.hidden_size, layer.params["bias_ih_l0"]
    for matrix in layer.params["weight_hh_l0"].reshape(-1, H, H):
        matrix[...] = np.linalg.qr(rng.normal(size=(H, H)))[0]
    if isinstance(layer, fastrnn.RNN):
        return
    layer.params["bias_hh_l0"][...] = 0
    keep = np.log(rng.uniform(1, memory - 1, size=H))
    if isinstance(layer, fastrnn.GRU):
        bias[H : 2 * H] = keep  # z keeps h
    else:
        bias[:H], bias[H : 2 * H] = -keep, keep  # i = 1 - f initially


def learn(task, cell, gap, seed, iterations, memory=None, H=64, B=32, every=50):
    """Trains one network; the fraction of a thousand new sequences it gets right, and the iterations it took."""
    rng = np.random.default_rng([seed, gap])
    I, O = SIZES[task]
    layer, head = CELLS[cell](I, H, rng=rng), training.linear(H, O, rng)
    begin(layer, memory or PRELUDE + gap, rng)
    optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=RATES[cell])

    def step(iteration):
        x, targets = TASKS[task](gap, B, rng)
        _, state, tape = layer.forward(x)
        h = (state[0] if cell == "LSTM" else state)[0]
        outputs, head_tape = head.forward(h)
        if task == "adding":
            loss, d_outputs = fastrnn.mean_squared_error(outputs, targets[:, None])
        else:
            loss, d_outputs = fastrnn.softmax_cross_entropy(outputs, targets)
        d_h, d_head = head.backward(head_tape, d_outputs)
        d_state = (d_h[None], None) if cell == "LSTM" else d_h[None]
        _, _, d_layer = layer.backward(tape, None, d_state)
        gradient = [d_layer, d_head]
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.step(gradient)
        return loss

    def success(x, targets):
        output, _ = layer(x)
        answers = head(output[-1])
        if task == "adding":
            return float(np.mean(np.abs(answers[:, 0] - targets) < 0.04))
        return float(np.mean(answers.argmax(axis=1) == targets))

    watched = TASKS[task](gap, 200, rng)
    losses = training.run(
        step,
        iterations,
        None,
        until=lambda iteration: iteration % every == every - 1 and success(*watched) >= SOLVED,
    )
    return success(*TASKS[task](gap, 1000, rng)), len(losses)


# Results -----------------------------------------------------------------------------------------


def draw(runs, gaps, path):
    """Success against the gap: a line through the means, a point for each seed."""
    fig, panels = figures.figure(9.6, 3.6, ncols=len(TASKS), sharey=True)
    chance = {"color": figures.CYCLE[5], "linewidth": 1, "linestyle": (0, (4, 3))}
    point = {"marker": "o", "linestyle": "", "markersize": 4, "alpha": 0.7, "markeredgewidth": 0}
    for axes, task in zip(panels, TASKS):
        axes.axhline(100 * CHANCE[task], label="chance", **chance)
        for k, cell in enumerate(CELLS):
            look = {"color": figures.COLOURS[cell]}
            # side by side, so that none hides behind another
            places = [gap * 1.05 ** (k - 1) for gap in gaps]
            rows = [[100 * success for success, _ in runs[task, cell, gap]] for gap in gaps]
            axes.plot(places, [np.mean(row) for row in rows], label=f"{cell}, mean", **look)
            axes.plot(places, rows, **point, **look)
        axes.set(title=task, xscale="log", xlabel="gap, steps", ylim=(0, 103))
        axes.set_xticks(gaps, gaps)
        axes.minorticks_off()
    panels[0].set_ylabel("right, % of 1000 new sequences")
    panels[0].plot([], [], color=figures.CYCLE[5], label="one seed", **point)
    handles, names = panels[0].get_legend_handles_labels()
    fig.legend([*handles[1:], handles[0]], [*names[1:], names[0]], loc="outside lower center", ncols=len(names))
    figures.save(fig, path)


def main(options):
    gaps = (10, 100) if options.quick else (10, 20, 50, 100, 200, 500)
    seeds = range(options.seed, options.seed + (1 if options.quick else 3))
    iterations = 600 if options.quick else 1500
    # the longest first, so that no core has one left at the end
    jobs = [(t, c, g, s, iterations) for g in gaps[::-1] for c in reversed(CELLS) for t in TASKS for s in seeds]
    if not options.quick:  # gates with zero initial biases are half open: their memory span is 2 steps
        jobs += [("adding", c, 100, s, iterations, 2) for c in ("GRU", "LSTM") for s in seeds]
    runs, half_open = {}, {}
    for (task, cell, gap, _, _, *memory), found in zip(jobs, training.side_by_side(learn, jobs, "trainings")):
        if memory:
            half_open.setdefault(cell, []).append(found[0])
        else:
            runs.setdefault((task, cell, gap), []).append(found)
    shown = "one seed" if len(seeds) == 1 else f"mean (least) of {len(seeds)} seeds"
    print(f"right, % of 1000 new sequences: {shown}, {iterations} iterations")
    print(f"{'gap':14}" + "".join(f"{gap:>15}" for gap in gaps))
    for task in TASKS:
        print(f"{task}, by chance {100 * CHANCE[task]:.0f}%")
        for cell in CELLS:
            rows = [[100 * success for success, _ in runs[task, cell, gap]] for gap in gaps]
            texts = [f"{np.mean(row):.1f}" + (f" ({min(row):.1f})" if len(row) > 1 else "") for row in rows]
            print(f"  {cell:12}" + "".join(f"{text:>15}" for text in texts))
    for cell, row in half_open.items():
        texts = " ".join(f"{100 * success:.1f}" for success in row)
        print(f"adding at gap 100, {cell} whose gates begin with biases of zero: {texts}")
    draw(runs, gaps, options.output / "long_gap.png")
    numbers = {"chance": CHANCE, "half_open": half_open} | {task: {cell: {} for cell in CELLS} for task in TASKS}
    for (task, cell, gap), row in runs.items():
        numbers[task][cell][gap] = [{"success": success, "iterations": n} for success, n in row]
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
