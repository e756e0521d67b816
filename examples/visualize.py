"""Finds interpretable cells of a character model, by its gates and cell states.

After A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and Understanding Recurrent Networks", 2015. The model is
that of char_lm.py, and it reads the sources of Python's standard library, a text with strings, brackets, comments and
indentation, so that each character has labels.

    python examples/visualize.py            # four models, a few minutes
    python examples/visualize.py --quick

For each label (the position in the line, the depth of the brackets and so on) the program selects the cell with the
largest correlation over one half of the held-out text. The correlation over the other half excludes selection by
chance, and an untrained model is the baseline.

Output: visualize-gates.png, how often each gate is closed or open; visualize-cells.png, text in the colours of the
selected cells; visualize-correlations.png, all cells over both halves; and visualize.html, a self-contained page that
colours a text by any cell or gate.
"""

import io
import json
import re
import string
import sysconfig
import tokenize
from pathlib import Path

import training  # before NumPy
import numpy as np

import figures
from char_lm_model import bits_per_character
from char_lm_options import parse
from char_lm_text import Text
from char_lm_training import Training

# The labels of a character.
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
QUOTE = re.compile("['\"]")
LAYERS = 2
HELD_OUT = 100_000  # characters of the held-out text, at most
COLUMNS = 90
PASSAGE = 20  # lines of the page
# The colours of -1, 0 and 1, light enough for text on them to be read.
PALETTE = [(0.42, 0.66, 0.90), (1, 1, 1), (0.95, 0.58, 0.33)]
ABOUT = """An LSTM of {layers} layers of {units} units predicts the next character of Python sources, at {bits:.2f} bits
per character. Here it reads a text that it was not trained on. The colour of a character is the value of the chosen
unit after the LSTM has read the character."""

# The text ---------------------------------------------------------------------------------------


def sources(limit):
    """Modules of the standard library, of 10 to 100 kB in ASCII, in an order drawn once: about `limit` characters."""
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
    """name -> (n,): the labels of a Python source of n characters, after each character."""
    lines = list(io.StringIO(source))
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
        if kind == "FSTRING_START":  # from Python 3.12 on
            opened.append(begin)
        elif kind in ("STRING", "FSTRING_END"):
            begin = opened.pop() if kind == "FSTRING_END" else begin
            quote = QUOTE.search(source, begin).start()  # past a prefix
            several = source[quote : quote + 3] in ("'''", '"""')
            named["docstring" if several else "string"][quote : end - 1] = 1  # once it is closed, it has been left
        elif kind == "COMMENT":
            named["comment"][begin:end] = 1
        elif kind == "OP" and not opened and token.string in "([{":
            named["brackets"][begin] = 1
        elif kind == "OP" and not opened and token.string in ")]}":
            named["brackets"][begin] = -1
    np.cumsum(named["brackets"], out=named["brackets"])
    return named


# The cells --------------------------------------------------------------------------------------


def options_of(seed, quick):
    """The hyperparameters, as char_lm.py has them."""
    size = ["--hidden=64", "--iterations=700"] if quick else ["--hidden=128", "--iterations=3000", "--decay=600"]
    return parse([*size, f"--layers={LAYERS}", "--batch=16", f"--seed={seed}"])


def recorded(model, ids, window=2000):
    """name -> (n, L * H) of ids (n,), read from beginning to end: the gates, and "c", the tanh of the cell state."""
    shape = len(ids), model.lstm.num_layers * model.lstm.hidden_size
    record, state = {name: np.empty(shape, np.float32) for name in (*GATES, "c")}, None
    for start in range(0, len(ids), window):
        here = slice(start, start + window)
        x = model.embed(ids[here])
        _, state, _, gates = model.lstm.forward(x, state, return_gates=True)
        for name, array in record.items():
            np.concatenate([layer[name] for layer in gates], axis=1, out=array[here])
    np.tanh(record["c"], out=record["c"])
    return record


def correlations(states, label):
    """Correlations r (M,) of states (n, M) with label (n,); 0 for constant arrays."""
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


def oriented(r):
    """Its two correlations, the first made positive."""
    k = best(r)
    return r[:, k] * np.sign(r[0, k])


def of_seed(seed, quick):
    """Trains a model and reads the held-out text with it; returns the data of the figures."""
    modules = sources(1_000_000 if quick else 3_000_000)
    text = Text("".join(modules))
    ids = text.held_out[-HELD_OUT:]
    labels = [features(module) for module in modules[-10:]]
    labels = {name: np.concatenate([label[name] for label in labels])[-len(ids) :] for name in FEATURES}
    o = options_of(seed, quick)
    learner = Training.begin(len(text.vocabulary), o)
    untrained = both(recorded(learner.model, ids), labels)
    training.run(lambda _: learner.step(text, o), o.iterations, None)
    record = recorded(learner.model, ids)
    trained = both(record, labels)

    half = len(ids) // 2
    characters = text.decode(ids[half:])
    labels = {name: label[half:] for name, label in labels.items()}
    lines = {name: telling(characters, [label], 6) for name, label in labels.items()}
    passage = telling(characters, list(labels.values()), PASSAGE)
    other = {name: array[half:] for name, array in record.items()}
    return {
        "bits": bits_per_character(learner.model, text.held_out),
        "untrained": untrained,
        "trained": trained,
        "shut": {gate: (record[gate] < SHUT).mean(axis=0).reshape(LAYERS, -1) for gate in GATES},
        "open": {gate: (record[gate] > OPEN).mean(axis=0).reshape(LAYERS, -1) for gate in GATES},
        "lines": {name: (characters[at], other["c"][at, best(trained[name])]) for name, at in lines.items()},
        "passage": characters[passage],
        "record": {name: array[passage].T for name, array in other.items()},
    }


def telling(characters, labels, count):
    """The slice of `count` lines that fit in a picture in which labels (n,) change most, each on its own scale."""
    begins = np.flatnonzero(np.array(["\n", *characters]) == "\n")
    lengths = np.diff(begins)

    def change(k):
        if lengths[k : k + count].max() > COLUMNS:
            return -1
        here = slice(begins[k], begins[k + count])
        filled = (lengths[k : k + count] > 1).mean()
        return filled * sum(label[here].std() / max(label.std(), 1e-9) for label in labels)

    k = max(range(1, len(lengths) - count), key=change)
    return slice(begins[k], begins[k + count])


# Pictures ---------------------------------------------------------------------------------------


def draw_gates(seen, path):
    """Plots each unit by how often its gate is open, and how often closed."""
    fig, axes = figures.figure(7.2, 3.1, ncols=len(GATES), sharex=True, sharey=True)
    ticks = np.linspace(0, 1, 6)
    for axis, (gate, name) in zip(axes, GATES.items()):
        axis.plot([0, 1], [1, 0], color=figures.GRID, linewidth=1, zorder=0)
        for layer in range(LAYERS):
            x, y = seen["open"][gate][layer], seen["shut"][gate][layer]
            style = {"s": 14, "alpha": 0.55, "linewidths": 0, "color": figures.CYCLE[layer]}
            axis.scatter(x, y, clip_on=False, label=f"a unit of layer {layer}", **style)
        axis.set(title=name, xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, aspect="equal")
        axis.set_xlabel(f"share of the time above {OPEN}")
    axes[0].set_ylabel(f"share of the time below {SHUT}")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=LAYERS)
    figures.save(fig, path)


def draw_correlations(seen, path):
    """All cells, over one half of the text and over the other, before and after training; the best over the first."""
    fig, axes = figures.figure(7.2, 5.6, nrows=2, ncols=3, sharex=True, sharey=True)
    trained, untrained, chosen = figures.CYCLE[0], figures.CYCLE[3], figures.CYCLE[1]
    for axis, (name, title) in zip(axes.flat, FEATURES.items()):
        r = seen["trained"][name]
        k = best(r)
        axis.plot([-1, 1], [-1, 1], color=figures.GRID, linewidth=1, zorder=0)
        axis.scatter(*seen["untrained"][name], s=10, linewidths=0, color=untrained, label="a cell before training")
        axis.scatter(*r, s=6, linewidths=0, color=trained, alpha=0.8, label="a cell after training")
        axis.scatter(*r[:, k], s=60, facecolors="none", edgecolors=chosen, linewidths=1.5, label="the selected cell")
        axis.set_title(f"{title}\n", fontsize=8.5)
        about = f"{place(r, k)}: {r[0, k]:.2f}, then {r[1, k]:.2f}"
        axis.text(0, 1.03, about, transform=axis.transAxes, fontsize=8, color=chosen)
        axis.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    fig.supxlabel("correlation over the half in which the cell is selected", fontsize=9)
    fig.supylabel("correlation over the other half", fontsize=9)
    fig.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figures.save(fig, path)


def place(r, k):
    """The name of cell k of all."""
    layer, unit = divmod(k, r.shape[1] // LAYERS)
    return f"layer {layer}, unit {unit}"


def draw_cells(seen, path):
    """Lines of the other half in the colours of the selected cells, from the least value of the label, blue, to the
    largest, orange."""
    fig, axes = figures.figure(7.2, 7.0, nrows=len(FEATURES))
    colours = figures.matplotlib.colors.LinearSegmentedColormap.from_list("cells", PALETTE)
    letter = {"family": "DejaVu Sans Mono", "size": 8, "ha": "center", "va": "center_baseline", "in_layout": False}
    for axis, (name, title) in zip(axes, FEATURES.items()):
        r = seen["trained"][name]
        k = best(r)
        characters, values = seen["lines"][name]
        grid, row, column = np.full((characters.count("\n"), COLUMNS), np.nan), 0, 0
        for character, value in zip(characters, values * np.sign(r[0, k])):
            if character == "\n":
                row, column = row + 1, 0
            else:
                grid[row, column] = value
                axis.text(column, row, character, **letter)
                column += 1
        axis.imshow(grid, cmap=colours, aspect="auto", interpolation="nearest")
        found = f"{place(r, k)}, r = {r[0, k]:.2f}, on the other half {r[1, k]:.2f}"
        axis.set_title(f"{title}: {found}", fontsize=8.5)
        axis.set_axis_off()
    figures.save(fig, path)


CODES = string.ascii_letters + string.digits + "+/"  # of 64 levels


def write_page(seen, path):
    """The page, with the gates and states of all units over a passage of the other half."""
    record = seen["record"]
    names = {"c": "tanh of the cell state", **GATES}
    low = {name: -1 if name == "c" else 0 for name in names}
    units = len(record["c"]) // LAYERS
    found = {}  # cell -> the labels that it was selected for
    for name, title in FEATURES.items():
        r = seen["trained"][name]
        k = best(r)
        found.setdefault(k, []).append({"feature": title} | dict(zip(("r", "confirmed"), map(float, r[:, k]))))

    def coded(name):
        levels = (record[name] - low[name]) / (1 - low[name]) * (len(CODES) - 1)
        return np.frombuffer(CODES.encode(), np.uint8)[np.rint(levels).astype(int)].tobytes().decode()

    data = {
        "about": ABOUT.format(units=units, layers=LAYERS, bits=seen["bits"]),
        "codes": CODES,
        "layers": LAYERS,
        "units": units,
        "text": seen["passage"],
        "colours": [[round(255 * part) for part in rgb] for rgb in PALETTE],
        "quantities": [{"name": names[name], "low": low[name], "high": 1, "values": coded(name)} for name in names],
        "found": [{"layer": k // units, "unit": k % units, "labels": labels} for k, labels in found.items()],
    }
    page = Path(training.__file__).with_name("visualize.html").read_text(encoding="utf-8")
    # no text ends the script that holds it
    path.write_text(page.replace("DATA", json.dumps(data).replace("<", "\\u003c"), 1), encoding="utf-8")


# The study --------------------------------------------------------------------------------------


def main(options):
    seeds = range(options.seed, options.seed + (1 if options.quick else 4))
    runs = training.side_by_side(of_seed, [(seed, options.quick) for seed in seeds], "models")
    bits = [seen["bits"] for seen in runs]
    print(f"held-out text: {training.spread(bits)} bits per character\n")
    print(f"{'correlation of a cell with the':36}{'looked for':^20}{'other half':^20}{'untrained, other half':^20}")
    numbers = {"bits": bits}
    for name, title in FEATURES.items():
        found, confirmed = np.transpose([oriented(seen["trained"][name]) for seen in runs])
        _, untrained = np.transpose([oriented(seen["untrained"][name]) for seen in runs])
        numbers[name] = {"found": found.tolist(), "confirmed": confirmed.tolist(), "untrained": untrained.tolist()}
        print(
            f"  {title:34}{training.spread(found):^20}{training.spread(confirmed):^20}{training.spread(untrained):^20}"
        )
    print(f"\n{'part of the time that a gate is':36}{f'below {SHUT}':^20}{f'above {OPEN}':^20}")
    for gate, title in GATES.items():
        for layer in range(LAYERS):
            shut, opened = ([seen[way][gate][layer].mean() for seen in runs] for way in ("shut", "open"))
            numbers[f"{gate}{layer}"] = {"shut": list(map(float, shut)), "open": list(map(float, opened))}
            print(f"  {f'{title}, layer {layer}':34}{training.spread(shut):^20}{training.spread(opened):^20}")
    print()
    seen, folder = runs[0], options.output
    draw_gates(seen, folder / "visualize-gates.png")
    draw_cells(seen, folder / "visualize-cells.png")
    draw_correlations(seen, folder / "visualize-correlations.png")
    write_page(seen, folder / "visualize.html")
    return numbers


if __name__ == "__main__":
    training.study(main, __doc__.splitlines()[0])
