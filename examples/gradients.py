"""Why long memories are hard to learn: gradients vanish or explode on their way back through time.

After Bengio, Simard and Frasconi, "Learning Long-Term Dependencies with Gradient Descent is Difficult" (1994), and
Pascanu, Mikolov and Bengio, "On the Difficulty of Training Recurrent Neural Networks" (2013).

    python examples/gradients.py

Results. First: a gradient that starts at the last step shrinks or grows by about the same factor in each step back. In
an RNN the factor is the spectral radius of its recurrent matrix, reduced by the derivative of tanh. In an LSTM with
biases that keep its gates open, the gradient of c hardly changes, for every matrix; in a GRU the gradient of h. Second:
by plain gradient descent, an RNN with a large matrix does not learn, because a single steep step destroys the solution;
with gradients clipped to a norm of one it learns at the same rate.
"""

import training  # isort: skip, before NumPy


import numpy as np

import fastrnn
import figures
import long_gap

RADII = (0.5, 1.0, 1.5, 2.0)
CELLS = {"RNN": fastrnn.RNNCell, "GRU": fastrnn.GRUCell, "LSTM": fastrnn.LSTMCell}

REMEMBER = {"RNN": (0.0,), "GRU": (0.0, 5.0), "LSTM": (0.0, 5.0)}  # biases of the gate that keeps
TITLES = {"RNN": "RNN, dL/dh", "GRU": "GRU, dL/dh", "LSTM": "LSTM, dL/dc"}
SHADES = ["#86afdd", "#5286c6", "#2f5fa8", "#152f57"]  # of the radii
# Rates and limits of plain gradient descent.
UNLIMITED = 1e30  # a norm that no gradient has
TRAININGS = {
    "not clipped": (0.1, UNLIMITED),
    "clipped to norm 1": (0.1, 1.0),
    "not clipped, a tenth of the rate": (0.01, UNLIMITED),
}

# Backward ----------------------------------------------------------------------------------------


def recurrent_matrix(H, radius, rng):
    matrix = rng.normal(size=(H, H))
    return matrix * (radius / abs(np.linalg.eigvals(matrix)).max())


def begin(cell, radius, rng, remember=0.0):
    """Sets recurrent matrices of a spectral radius, and zero biases except for the gate that keeps the state."""
    H = cell.hidden_size
    for matrix in cell.params["weight_hh"].reshape(-1, H, H):
        matrix[...] = recurrent_matrix(H, radius, rng)
    for name in ("bias_ih", "bias_hh"):
        cell.params[name][...] = 0
    if not isinstance(cell, fastrnn.RNNCell):
        cell.params["bias_ih"][H : 2 * H] = remember  # f of an LSTM, z of a GRU
    if isinstance(cell, fastrnn.LSTMCell):
        cell.params["bias_ih"][:H] = -remember  # i: kept values are not overwritten


def norms_back(cell, x, d_h):
    """The norms of dL/dh_t (B,), and of dL/dc_t of an LSTM, for the steps of x (T, B, I) from the last to the first.

    Each of the T cells' backward computes the gradient of the state before it. d_h (B, H) is dL/dh_T.
    """
    state, tapes = None, []
    for x_t in x:
        state, tape = cell.forward(x_t, state)
        tapes.append(tape)
    lstm = isinstance(cell, fastrnn.LSTMCell)
    d_state = (d_h, np.zeros_like(d_h)) if lstm else d_h
    norms = []
    for tape in reversed(tapes):
        norms.append([np.linalg.norm(d, axis=1) for d in (d_state if lstm else (d_state,))])
        _, d_state, _ = cell.backward(tape, d_state)
    return np.moveaxis(np.array(norms), 0, 1)


def flow(name, radius, remember, T, rng, B=16, I=8, H=64):
    """The norms of `norms_back`, from a gradient of norm 1, in the geometric mean over B sequences."""
    cell = CELLS[name](I, H, dtype=np.float64, rng=rng)
    begin(cell, radius, rng, remember)
    x = rng.normal(scale=0.1, size=(T, B, I))
    d_h = rng.normal(size=(B, H))
    d_h /= np.linalg.norm(d_h, axis=1, keepdims=True)
    norms = norms_back(cell, x, d_h)
    norms[1:, 0] = np.nan  # the loss depends on c_T only through h_T
    return np.exp(np.log(norms).mean(axis=-1))


def factor(norms):
    """The factor of the norm per step back, averaged over the middle half of the steps."""
    quarter = len(norms) // 4
    return float((norms[-quarter] / norms[quarter]) ** (1 / (len(norms) - 2 * quarter)))


# Clipping ----------------------------------------------------------------------------------------


def learn(rate, clip, seed, iterations, gap=10, radius=1.5, H=64, B=32):
    """Trains an RNN by plain gradient descent, on the temporal order of long_gap.py.

    Returns the loss and the norm of the gradient before it is clipped, of each iteration.
    """
    rng = np.random.default_rng(seed)
    I, O = long_gap.SIZES["order"]
    layer, head = fastrnn.RNN(I, H, rng=rng), training.linear(H, O, rng)
    layer.params["weight_hh_l0"][...] = recurrent_matrix(H, radius, rng)
    optimizer, norms = fastrnn.optim.SGD([layer.params, head.params], lr=rate), []

    def step(iteration):
        x, targets = long_gap.order(gap, B, rng)
        _, h_n, tape = layer.forward(x)
        logits, head_tape = head.forward(h_n[0])
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
        d_h, d_head = head.backward(head_tape, d_logits)
        _, _, d_layer = layer.backward(tape, None, d_h[None])
        norms.append(fastrnn.optim.clip_by_global_norm([d_layer, d_head], clip))
        optimizer.step([d_layer, d_head])
        return loss

    return training.run(step, iterations, None), norms


# Results -----------------------------------------------------------------------------------------


def draw_flow(flows, path):
    """The norm against the way back, on a logarithmic scale: one panel for each cell, one line for each radius."""
    fig, panels = figures.figure(9.6, 3.6, ncols=len(CELLS), sharex=True, sharey=True)
    low, high = 1e-12, 1e8
    for axes, name in zip(panels, CELLS):
        for radius, colour in zip(RADII, SHADES):
            for remember in REMEMBER[name]:
                norms = flows[name, radius, remember][-1]
                style = "--" if remember == 0 and name != "RNN" else "-"
                axes.plot(norms, style, color=colour, linewidth=1.8 if style == "-" else 1.2)
            # each line of biases of zero has its radius where it ends
            norms = flows[name, radius, 0.0][-1]
            end = np.flatnonzero(~(norms < 10 * low))[-1]
            label = {"color": colour, "fontsize": 8, "weight": "bold", "va": "center"}
            axes.text(end + len(norms) / 33, norms[end], f"{radius:g}", **label)
        axes.axhline(1, color=figures.INK, linewidth=0.8)
        axes.set(title=TITLES[name], xlabel="steps back", yscale="log", ylim=(low, high))
        note = {"fontsize": 8, "transform": axes.transAxes}
        if name == "RNN":
            axes.text(0.03, 0.93, "numbers: spectral radius", **note)
        else:
            axes.text(0.03, 0.93, "dashed: biases of zero, spectral radius beside", **note)
            axes.text(0.03, 0.64, "gates that remember, all four radii", **note)
    panels[0].set_xlim(right=1.13 * len(norms))
    panels[0].set_ylabel("norm of the gradient")
    figures.save(fig, path)


def smooth(values, width=25):
    """The running mean of `values`, shorter by width - 1."""
    return np.convolve(values, np.full(width, 1 / width), "valid")


def draw_clipping(trainings, path):
    """The losses of all seeds, one panel for each training; the gradients' norms of one in the last."""
    fig, panels = figures.figure(8.4, 2.8, ncols=len(trainings), sharey=True)
    for axes, (title, runs), colour in zip(panels, trainings.items(), figures.CYCLE[1:]):
        for losses, _ in runs:
            axes.plot(smooth(losses), color=colour, linewidth=1.1)
        axes.axhline(np.log(4), color=figures.CYCLE[5], linewidth=1, linestyle=(0, (4, 3)))
        axes.set(title=title, xlabel="iteration", ylim=(0, 1.75))
    chance = {"ha": "right", "fontsize": 8, "color": figures.CYCLE[5]}
    panels[1].text(len(runs[0][0]), np.log(4) + 0.03, "chance", **chance)
    panels[0].set_ylabel("loss, nats")
    figures.save(fig, path)


def main(options):
    T = 60 if options.quick else 100
    flows, factors = {}, {}
    print("change of a gradient's norm in a step back (of the GRU and the LSTM: gates that remember)")
    print(f"{'spectral radius':18}" + "".join(f"{radius:>9}" for radius in RADII))
    for name in CELLS:
        for remember in REMEMBER[name]:
            rows = {}
            for radius in RADII:
                rng = np.random.default_rng(options.seed)
                norms = flows[name, radius, remember] = flow(name, radius, remember, T, rng)
                rows[radius] = factor(norms[-1])
            label = f"{name}, dL/d{'c' if name == 'LSTM' else 'h'}" + (", open" if remember else "")
            factors[label] = rows
            print(f"  {label:16}" + "".join(f"{value:9.3f}" for value in rows.values()))
    draw_flow(flows, options.output / "gradients_flow.png")

    iterations, seeds = (500, 3) if options.quick else (1500, 5)
    jobs = [(rate, clip, options.seed + k, iterations) for rate, clip in TRAININGS.values() for k in range(seeds)]
    done = iter(training.side_by_side(learn, jobs, "trainings"))
    trainings = {title: [next(done) for _ in range(seeds)] for title in TRAININGS}
    print(f"loss in the end, of {seeds} seeds (chance: {np.log(4):.2f}), and the largest gradient")
    clipping = {}
    for title, runs in trainings.items():
        ends = sorted(float(np.mean(losses[-100:])) for losses, _ in runs)
        largest = max(max(norms) for _, norms in runs)
        clipping[title] = {"losses": ends, "largest_norm": largest}
        print(f"  {title:33}" + " ".join(f"{end:.3f}" for end in ends) + f"  {largest:9.1f}")
    draw_clipping(trainings, options.output / "gradients_clipping.png")
    return {"factors": factors, "clipping": clipping}


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
