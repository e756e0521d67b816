"""What the cells of a character model keep track of, seen in its gates and cell states.

After A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and Understanding Recurrent Networks", 2015. The model is that
of char_lm.py, and it reads the sources of Python's standard library: a text with quotes, brackets, comments and
indentation, of which one can say at every character whether it is inside of them.

    python examples/visualize.py            # three models, a few minutes
    python examples/visualize.py --quick

A cell is looked for whose state goes with the position in the line, one with the depth of the brackets, and so on: by its
correlation over one part of the held-out text. The correlation over another part then tells whether it was found or
picked, and the cells of a model that has not been trained tell what there is to find without learning.

Written are visualize-gates.png, how often each gate is shut or open; visualize-cells.png, text coloured by the cells that
were found; visualize-correlations.png, all cells over both parts; and visualize.html, a page without need of anything
else, in which every cell and gate can be chosen to colour a text.
"""

import base64
import io
import json
import re
import sysconfig
import tokenize
from pathlib import Path

import training  # before NumPy
import numpy as np

import char_lm
import figures

# What a cell might keep track of.
FEATURES = {
    "position": "position in the line",
    "indentation": "indentation of the line",
    "brackets": "depth of brackets",
    "string": "inside a string of one line",
    "docstring": "inside a string of several lines",
    "comment": "inside a comment",
}
GATES = {"i": "input gate", "f": "forget gate", "o": "output gate"}
SHUT, OPEN = 0.1, 0.9
LAYERS = 2
# Of what is least and what is most in a picture, light enough to read what stands on them.
PALETTE = [(0.42, 0.66, 0.90), (1, 1, 1), (0.95, 0.58, 0.33)]
COLOURS = figures.matplotlib.colors.LinearSegmentedColormap.from_list("cells", PALETTE)
ABOUT = """An LSTM of {layers} layers with {units} units each has learnt to tell the next character of Python sources, at \
{bits:.2f} bits a character. It reads this text, which it has not seen before, character by character; the colour of a \
character is the value of the chosen unit once the character has been read."""
HELD_OUT = 60_000  # characters of the held-out text, at most

# The text ---------------------------------------------------------------------------------------


def sources(limit):
    """Modules of the standard library of 10 to 100 kB in ASCII, in an order drawn once, up to a number of characters."""
    found, total = [], 0
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in np.random.default_rng(0).permutation(paths):
        data = path.read_bytes()
        if 10_000 <= len(data) <= 100_000 and data.isascii() and b"\t" not in data and total < limit:
            found.append(data.decode("ascii").replace("\r\n", "\n"))
            total += len(found[-1])
    if total < 200_000:
        raise training.Failure("this Python comes without the sources of its standard library")
    return found


def features(source):
    """name -> (n,): of Python source of n characters, what is so once each of them has been read."""
    lines = source.splitlines(keepends=True)
    starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    named = {name: np.zeros(len(source), np.float32) for name in FEATURES}
    for start, line in zip(starts, lines):
        count = np.arange(1, len(line) + 1)
        if line.endswith("\n"):
            count[-1] = 0
        named["position"][start : start + len(line)] = count
        indentation = np.minimum(count, len(line) - len(line.lstrip(" ")))
        named["indentation"][start : start + len(line)] = indentation
    opened = []  # where the f-strings begin that have not ended
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin, end = (int(starts[row - 1]) + column for row, column in (token.start, token.end))
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":  # these came with Python 3.12
            opened.append(begin)
        elif kind == "STRING" or kind == "FSTRING_END":
            begin = opened.pop() if kind == "FSTRING_END" else begin
            # not before its quote, and no longer once it is closed
            quote = re.compile("['\"]").search(source, begin).start()
            several = source[quote : quote + 3] in ("'''", '"""')
            named["docstring" if several else "string"][quote : end - 1] = 1
        elif kind == "COMMENT":
            named["comment"][begin:end] = 1
        elif kind == "OP" and token.string in "([{":
            named["brackets"][begin:] += 1
        elif kind == "OP" and token.string in ")]}":
            named["brackets"][begin:] -= 1
    return named


# The model --------------------------------------------------------------------------------------


def options_of(seed, quick):
    """The hyperparameters, as char_lm.py has them."""
    size = ["--hidden=64", "--batch=16"] if quick else ["--hidden=128", "--batch=32", "--unroll=100", "--decay=600"]
    return char_lm.parse([*size, f"--layers={LAYERS}", f"--seed={seed}"])


def recorded(model, ids):
    """name -> (n, L * H) of ids (n,), read from beginning to end: the gates, and "c", which is tanh of the cell state."""
    parts, state = [], None
    for start in range(0, len(ids), 2000):
        x = model.ends["embedding"][ids[start : start + 2000], None]
        _, state, _, gates = model.lstm.forward(x, state, return_gates=True)
        parts.append({name: np.concatenate([layer[name][:, 0] for layer in gates], axis=1) for name in (*GATES, "c")})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.tanh(whole["c"], out=whole["c"])
    return whole


def correlations(states, label):
    """Of states (n, M) with label (n,): r (M,), 0 where nothing changes."""
    states = states - states.mean(axis=0)
    label = label - label.mean()
    scale = np.sqrt((states * states).sum(axis=0) * (label @ label))
    return np.divide(label @ states, scale, out=np.zeros(states.shape[1]), where=scale > 0)


def both(record, labels):
    """feature -> r (2, M), over the first half of the record and over the second."""
    half = len(record["c"]) // 2
    return {
        name: np.stack([correlations(record["c"][part], label[part]) for part in (slice(half), slice(half, None))])
        for name, label in labels.items()
    }


def best(r):
    """The cell with the largest correlation over the first half."""
    return int(np.argmax(np.abs(r[0])))


def of_seed(seed, quick):
    """Trains a model: what is told of it, and the record of the second half."""
    modules = sources(600_000 if quick else 3_000_000)
    text = char_lm.Text("".join(modules))
    ids = text.held_out[-HELD_OUT:]
    labels = [features(module) for module in modules[-10:]]
    labels = {name: np.concatenate([label[name] for label in labels])[-len(ids) :] for name in FEATURES}
    o = options_of(seed, quick)
    state = char_lm.Training.begin(len(text.vocabulary), o)
    untrained = both(recorded(state.model, ids), labels)
    training.run(lambda _: state.step(text, o), 300 if quick else 2000, "training" if quick else None)
    record = recorded(state.model, ids)
    half = len(ids) // 2
    return {
        "bits": char_lm.bits_per_character(state.model, text.held_out),
        "untrained": untrained,
        "trained": both(record, labels),
        "shut": {gate: (record[gate] < SHUT).mean(axis=0).reshape(LAYERS, -1) for gate in GATES},
        "open": {gate: (record[gate] > OPEN).mean(axis=0).reshape(LAYERS, -1) for gate in GATES},
        "text": text.decode(ids[half:]),
        "labels": {name: label[half:] for name, label in labels.items()},
        "record": {name: array[half:] for name, array in record.items()},
    }


# Pictures ---------------------------------------------------------------------------------------


def draw_gates(seen, path):
    """Each unit by how often a gate of it is open, and how often shut."""
    fig, axes = figures.figure(7.2, 2.9, ncols=len(GATES), sharex=True, sharey=True)
    for axis, (gate, name) in zip(axes, GATES.items()):
        axis.plot([0, 1], [1, 0], color=figures.GRID, linewidth=1)
        for layer in range(LAYERS):
            opened, shut = seen["open"][gate][layer], seen["shut"][gate][layer]
            axis.scatter(opened, shut, s=14, alpha=0.55, linewidths=0, color=figures.CYCLE[layer], label=f"layer {layer}")
        axis.set(title=name, xlabel=f"part of the time above {OPEN}", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes[0].set_ylabel(f"part of the time below {SHUT}")
    axes[-1].legend(loc="upper right", handletextpad=0.1, borderpad=0)
    figures.save(fig, path)


def draw_correlations(seen, path):
    """All cells, over one half of the text and over the other, those before training in grey; the best over the first."""
    fig, axes = figures.figure(7.2, 5.0, nrows=2, ncols=3, sharex=True, sharey=True)
    for axis, name in zip(axes.flat, FEATURES):
        before, after = seen["untrained"][name], seen["trained"][name]
        k = best(after)
        axis.plot([-1, 1], [-1, 1], color=figures.GRID, linewidth=1)
        axis.scatter(*after, s=9, linewidths=0, color=figures.CYCLE[0], alpha=0.6)
        axis.scatter(*before, s=5, linewidths=0, color=figures.CYCLE[5])
        axis.scatter(*after[:, k], s=60, facecolors="none", edgecolors=figures.CYCLE[1], linewidths=1.5)
        axis.set_title(FEATURES[name], fontsize=9)
        axis.text(0.04, 0.96, f"{place(after, k)}\n{after[1, k]:.2f} on the other half", transform=axis.transAxes, va="top",
                  fontsize=8, color=figures.CYCLE[1])  # fmt: skip
        axis.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    fig.supxlabel("correlation over the half where cells are looked for", fontsize=9)
    fig.supylabel("over the other half", fontsize=9)
    figures.save(fig, path)


def place(r, k):
    """The name of cell k of all."""
    layer, unit = divmod(k, r.shape[1] // LAYERS)
    return f"layer {layer}, unit {unit}"


def line_begins(characters):
    return np.flatnonzero(np.concatenate([[True], [character == "\n" for character in characters[:-1]]]))


def telling(characters, labels, count):
    """The slice of `count` lines, of 90 characters at most, in which the labels change most, each on its own scale."""
    begins = np.append(line_begins(characters), len(characters))

    def change(k):
        here = slice(begins[k], begins[k + count])
        if np.diff(begins[k : k + count + 1]).max() > 90:
            return -1
        return sum(label[here].std() / max(label.std(), 1e-9) for label in labels)

    k = max(range(1, len(begins) - count), key=change)
    return slice(begins[k], begins[k + count])


def draw_cells(seen, path, count=6):
    """Lines of the other half in the colours of the cells that were found, their sign such that what they follow is red."""
    fig, axes = figures.figure(7.2, 7.4, nrows=len(FEATURES))
    columns = 84
    for axis, name in zip(axes, FEATURES):
        r = seen["trained"][name]
        k = best(r)
        here = telling(seen["text"], [seen["labels"][name]], count)
        values = np.sign(r[0, k]) * seen["record"]["c"][here, k]
        grid, row, column = np.full((count, columns), np.nan), 0, 0
        for character, value in zip(seen["text"][here], values):
            if character == "\n":
                row, column = row + 1, 0
            else:
                if column < columns:
                    grid[row, column] = value
                    axis.text(column, row, character, family="DejaVu Sans Mono", fontsize=6.6, ha="center", va="center")
                column += 1
        axis.imshow(grid, cmap=COLOURS, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(f"{FEATURES[name]}: {place(r, k)}, r = {r[0, k]:.2f}, on the other half {r[1, k]:.2f}", fontsize=8.5)
        axis.set_axis_off()
    figures.save(fig, path)


def write_page(seen, path):
    """The page, with all that a passage of the other half does to all units."""
    here = telling(seen["text"], list(seen["labels"].values()), 32)
    record = {name: array[here].T for name, array in seen["record"].items()}  # (L * H, characters)
    names = {"c": "tanh of the cell state", **GATES}
    low = {name: -1 if name == "c" else 0 for name in names}
    cells = {name: best(seen["trained"][name]) for name in FEATURES}
    units = len(record["c"]) // LAYERS

    def coded(name):
        levels = (record[name] - low[name]) / (1 - low[name]) * 255
        return base64.b64encode(np.rint(levels).astype(np.uint8).tobytes()).decode("ascii")

    data = {
        "about": ABOUT.format(units=units, layers=LAYERS, bits=seen["bits"]),
        "layers": LAYERS,
        "units": units,
        "text": seen["text"][here],
        "colours": [[round(255 * part) for part in rgb] for rgb in PALETTE],
        "quantities": [{"name": names[name], "low": low[name], "high": 1, "values": coded(name)} for name in names],
        "found": [
            {"feature": FEATURES[name], "layer": k // units, "unit": k % units}
            | dict(zip(("r", "confirmed"), map(float, seen["trained"][name][:, k])))
            for name, k in cells.items()
        ],
    }
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    # no text ends the script that holds it
    path.write_text(page.replace("DATA", json.dumps(data).replace("<", "\\u003c"), 1), encoding="utf-8")


# The study --------------------------------------------------------------------------------------


def main(options):
    seeds = range(options.seed, options.seed + (1 if options.quick else 3))
    runs = training.side_by_side(of_seed, [(seed, options.quick) for seed in seeds], "models")
    bits = [seen["bits"] for seen in runs]
    print(f"held-out text: {spread(bits)} bits per character\n")
    print(f"{'correlation of a cell with the':33}{'looked for':^20}{'other half':^20}{'untrained, other half':^20}")
    numbers = {"bits": bits}
    for name, title in FEATURES.items():
        chosen = [np.abs(seen[when][name][:, best(seen[when][name])]) for seen in runs for when in ("trained", "untrained")]
        found, confirmed = np.transpose(chosen[0::2])
        _, untrained = np.transpose(chosen[1::2])
        numbers[name] = {"found": found.tolist(), "confirmed": confirmed.tolist(), "untrained": untrained.tolist()}
        print(f"  {title:31}{spread(found):^20}{spread(confirmed):^20}{spread(untrained):^20}")
    print(f"\n{'part of the time that a gate is':33}{f'below {SHUT}':^20}{f'above {OPEN}':^20}")
    for gate, title in GATES.items():
        for layer in range(LAYERS):
            shut, opened = ([seen[way][gate][layer].mean() for seen in runs] for way in ("shut", "open"))
            numbers[f"{gate}{layer}"] = {"shut": list(map(float, shut)), "open": list(map(float, opened))}
            print(f"  {f'{title}, layer {layer}':31}{spread(shut):^20}{spread(opened):^20}")
    print()
    seen, folder = runs[0], options.output
    draw_gates(seen, folder / "visualize-gates.png")
    draw_cells(seen, folder / "visualize-cells.png")
    draw_correlations(seen, folder / "visualize-correlations.png")
    write_page(seen, folder / "visualize.html")
    return numbers


def spread(values):
    """The mean, and the least and the largest where there are several."""
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
