"""Compares a recurrent layer with its unrolled chain of cells: the same network, bit for bit.

After Olah, "Understanding LSTM Networks" (2015). A layer computes T steps; a cell computes one step. A chain of T
cells, each passing its state to the next, must compute the same outputs and the same gradients.

    python examples/unrolled.py

Results: outputs, states and the gradients of inputs and states are equal to the last bit, in float32 and float64, for
LSTM, GRU and RNN. The gradients of weights are equal to rounding: the layer adds each term with one fused multiply-add,
while the chain rounds the terms before it adds them. Gradients of biases have no product to round, so for one sequence
they are equal to the last bit, too. The figure shows the loop and the chain, with the values of a run.
"""

import training  # isort: skip, before NumPy

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

import fastrnn
import figures

PAIRS = {
    "RNN": (fastrnn.RNN, fastrnn.RNNCell),
    "GRU": (fastrnn.GRU, fastrnn.GRUCell),
    "LSTM": (fastrnn.LSTM, fastrnn.LSTMCell),
}

# The loop and the chain --------------------------------------------------------------------------


def members(state):
    """(h,) or (h, c), of a cell or of a single layer."""
    return state if isinstance(state, tuple) else (state,)


def forward_chain(cell, x):
    """x (T, B, I) -> output (T, B, H), the last state, and a tape for each step."""
    state, output, tapes = None, [], []
    for x_t in x:
        state, tape = cell.forward(x_t, state)
        output.append(members(state)[0])
        tapes.append(tape)
    return np.stack(output), state, tapes


def backward_chain(cell, tapes, state, d_output):
    """d_x (T, B, I), d_state of the state before the first step, and d_params, the sum over all steps."""
    d_state = tuple(np.zeros_like(s) for s in members(state))
    d_x, d_params = [], cell.params.zeros_like()
    for tape, d_output_t in zip(reversed(tapes), reversed(d_output)):
        # h_t is both the next step's input and the output
        d_h, *d_c = d_state
        d_h = d_h + d_output_t
        d_x_t, d_state, d_step = cell.backward(tape, (d_h, *d_c) if d_c else d_h)
        d_state = members(d_state)
        d_x.append(d_x_t)
        d_params.flat += d_step.flat
    return np.stack(d_x[::-1]), d_state, d_params


def same(a, b):
    """Whether all bits are equal."""
    return all(u.tobytes() == v.tobytes() for u, v in zip(members(a), members(b), strict=True))


def compare(name, T, B, I, H, dtype, seed):
    """The arrays that are equal to the last bit, and the differences of the gradients of the parameters."""
    rng = np.random.default_rng(seed)
    Layer, Cell = PAIRS[name]
    layer, cell = Layer(I, H, dtype=dtype, rng=rng), Cell(I, H, dtype=dtype)
    cell.load_state_dict({key.removesuffix("_l0"): array for key, array in layer.params.items()})
    x = rng.standard_normal((T, B, I)).astype(dtype)
    d_output = rng.standard_normal((T, B, H)).astype(dtype)

    output, state, tape = layer.forward(x)
    d_x, d_state, d_params = layer.backward(tape, d_output)
    chain_output, chain_state, tapes = forward_chain(cell, x)
    chain_d_x, chain_d_state, chain_d_params = backward_chain(cell, tapes, chain_state, d_output)

    biases = [key for key in cell.params if key.startswith("bias")]
    return {
        "output": same(output, chain_output),
        "state": same(tuple(s[0] for s in members(state)), members(chain_state)),
        "d_x": same(d_x, chain_d_x),
        "d_state": same(tuple(d[0] for d in members(d_state)), chain_d_state),
        "d_biases": all(same(d_params[f"{key}_l0"], chain_d_params[key]) for key in biases),
        "d_weights": all(same(d_params[f"{key}_l0"], chain_d_params[key]) for key in cell.params if key not in biases),
        "d_params_apart": max(
            float(abs(d_params[f"{key}_l0"] - d).max() / abs(d).max()) for key, d in chain_d_params.items()
        ),
    }


# The picture -------------------------------------------------------------------------------------

VALUES = LinearSegmentedColormap.from_list("values", [figures.COLOURS["RNN"], figures.PAPER, figures.COLOURS["LSTM"]])
SCALE = Normalize(-0.6, 0.6)
LOOK_OF_BELT = {"color": figures.COLOURS["LSTM"], "linewidth": 3}
BELT, PATH = 0.62, -0.62  # the heights of c and of h
IN, OUT = -0.62, 0.66  # where x_t comes in and h_t goes out, from the middle of a cell
SQUARE, PITCH = 0.16, 2.9  # of a number, and from one cell to the next


def box(axes, left, bottom, width, height, rounding, **look):
    style = f"round,pad=0,rounding_size={rounding}"
    look = {"edgecolor": figures.INK} | look
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, **look))


def arrow(axes, start, end):
    look = {"color": figures.INK, "linewidth": 1.1, "mutation_scale": 9, "zorder": 1}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", shrinkA=0, shrinkB=0, **look))


def numbers(axes, x, y, values):
    """A row of squares around (x, y), one for each number; without numbers, empty ones."""
    left = x - len(values) * SQUARE / 2
    for k, value in enumerate(values):
        colour = figures.PAPER if np.isnan(value) else VALUES(SCALE(value))
        place = left + k * SQUARE, y - SQUARE / 2
        box(axes, *place, SQUARE, SQUARE, 0, facecolor=colour, linewidth=0.5, zorder=3)


def draw_cell(axes, x):
    """The box of an LSTM's step: c is multiplied by f at the cross, and i * g is added at the plus."""
    box(axes, x - 0.75, -0.95, 1.5, 1.9, 0.14, facecolor="#f3f5f8", linewidth=1.1, zorder=2)
    line = {"color": figures.INK, "linewidth": 0.9, "zorder": 3}
    small = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 5}
    axes.plot([x - 0.75, x + 0.75], [BELT, BELT], **line | LOOK_OF_BELT)
    axes.plot([x - 0.75, x + 0.53], [PATH, PATH], **line)
    gates = {"f": -0.5, "i": -0.2, "g": 0.12, "o": 0.53}
    for gate, at in gates.items():
        top = BELT if gate in "fo" else 0.27
        axes.plot([x + at, x + at], [PATH, top], **line)
        amber = {"facecolor": figures.CYCLE[3], "linewidth": 0.7, "zorder": 4}
        box(axes, x + at - 0.12, -0.28, 0.24, 0.26, 0.05, **amber)
        axes.text(x + at, -0.155, gate, **small, style="italic")
    axes.plot([x - 0.2, x + 0.12], [0.27, 0.27], **line)
    axes.plot([x - 0.04, x - 0.04], [0.27, BELT], **line)
    axes.plot([x + 0.53, x + OUT, x + OUT, x + 0.75], [0.27, 0.27, PATH, PATH], **line)
    axes.plot([x + OUT, x + OUT], [0.27, 0.95], **line | {"zorder": 2.5})
    joints = (-0.5, BELT, "×"), (-0.04, 0.27, "×"), (-0.04, BELT, "+"), (0.53, 0.27, "×")
    for at, y, sign in joints:
        white = {"facecolor": figures.PAPER, "edgecolor": figures.INK, "linewidth": 0.8}
        axes.add_patch(Circle((x + at, y), 0.095, zorder=4, **white))
        axes.text(x + at, y - 0.005, sign, **small)


def draw_step(axes, x, name, x_t, h_t):
    """A cell with its input from below and its output above."""
    draw_cell(axes, x)
    arrow(axes, (x + IN, -1.62), (x + IN, PATH))
    numbers(axes, x + IN, -1.7, x_t)
    axes.text(x + IN, -2.06, f"$x_{{{name}}}$", ha="center", va="center", fontsize=11)
    arrow(axes, (x + OUT, 0.95), (x + OUT, 1.55))
    numbers(axes, x + OUT, 1.66, h_t)
    axes.text(x + OUT, 1.98, f"$h_{{{name}}}$", ha="center", va="center", fontsize=11)


def draw(x, output, c, path):
    """The loop, and the chain of x (T, I), output (T, H) and c (T, H)."""
    (T, I), H = x.shape, c.shape[1]
    unknown = np.full(max(I, H), np.nan)
    fig, axes = figures.figure(9.6, 2.75)

    # The loop: c and h leave on the right and come back on the left.
    draw_step(axes, 0, "t", unknown[:I], unknown[:H])
    for bottom, back, colour, width in (
        (BELT, BELT + 0.66, figures.COLOURS["LSTM"], 3),
        (PATH - 0.66, PATH - 0.66, figures.INK, 1.1),
    ):
        thin = {"facecolor": "none", "edgecolor": colour, "linewidth": width, "zorder": 1}
        box(axes, -1.1, bottom, 2.2, 0.66, 0.2, **thin)
        axes.plot(0, back, marker="<", markersize=7, color=colour)
    axes.text(-1.25, BELT + 0.33, "$c$", ha="right", va="center", fontsize=11)
    axes.text(-1.25, PATH - 0.33, "$h$", ha="right", va="center", fontsize=11)
    axes.text(2.05, 0, "=", ha="center", va="center", fontsize=22)

    first = 4.3
    for t in range(T):
        middle = first + t * PITCH
        draw_step(axes, middle, str(t + 1), x[t], output[t])
        before = middle - 0.75
        if t == 0:
            axes.plot([before - 0.35, before], [BELT, BELT], zorder=1, **LOOK_OF_BELT)
            arrow(axes, (before - 0.35, PATH), (before, PATH))
            continue
        middle -= PITCH / 2
        axes.plot([before - PITCH + 1.5, before], [BELT, BELT], zorder=1, **LOOK_OF_BELT)
        arrow(axes, (before - PITCH + 1.5, PATH), (before, PATH))
        numbers(axes, middle, BELT, c[t - 1])
        numbers(axes, middle, PATH, output[t - 1])
        axes.text(middle, BELT + 0.3, f"$c_{{{t}}}$", ha="center", va="center", fontsize=11)
        axes.text(middle, PATH + 0.3, f"$h_{{{t}}}$", ha="center", va="center", fontsize=11)
    last = first + (T - 1) * PITCH + 0.75
    axes.plot([last, last + 0.35], [BELT, BELT], zorder=1, **LOOK_OF_BELT)
    arrow(axes, (last, PATH), (last + 0.35, PATH))

    axes.set(xlim=(-1.6, last + 0.5), ylim=(-2.3, 2.2), aspect="equal")
    axes.axis("off")
    figures.save(fig, path)


def impulse(T=5, I=3, H=6, seed=0):
    """x, output and c of an LSTM with one large input followed by zeros, its forget gates nearly open."""
    cell = fastrnn.LSTMCell(I, H, rng=seed)
    for bias in ("bias_ih", "bias_hh"):
        cell.params[bias][...] = 0
    cell.params["bias_ih"][H : 2 * H] = 3
    cell.params["weight_ih"][...] *= 3
    x = np.zeros((T, I), np.float32)
    x[0] = [1, -1, 0.5]
    state, states = None, []
    for x_t in x:
        state = cell(x_t, state)
        states.append(state)
    return x, *(np.stack(part) for part in zip(*states))


def main(options):
    T, B, I, H = (20, 4, 8, 16) if options.quick else (200, 32, 64, 128)
    results = {}
    print(f"{T} steps of a layer and {T} cells in a row, {I} inputs, {H} hidden units, {B} sequences")
    said = {True: "same bits", False: "-"}
    columns = ("output", "state", "d_x", "d_state", "d_biases", "d_weights")
    print(f"{'':18}" + "".join(f"{column:>11}" for column in columns) + "  d_params apart")
    for name in PAIRS:
        for dtype in (np.float32, np.float64):
            for sequences in (B, 1):
                found = compare(name, T, sequences, I, H, dtype, options.seed)
                label = f"{name} {np.dtype(dtype)}, {sequences}"
                results[label] = found
                cells = "".join(f"{said[found[column]]:>11}" for column in columns)
                print(f"{label:18}{cells}{found['d_params_apart']:14.1e}")
    draw(*impulse(seed=options.seed), options.output / "unrolled.png")
    return results


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
