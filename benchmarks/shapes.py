"""The measured shapes, their sources, and the minimal cost of each.

A shape is T steps, B sequences, I inputs and H hidden units of a layer, an LSTM unless the kind says otherwise. There
are three modes:

forward   an inference pass over T steps
train     forward and backward over T steps, with all gradients
step      one step of an online sequence: T = 1, the state is carried from call to call
"""

import math
from typing import NamedTuple

import numpy as np

MODES = ("forward", "train", "step")
DTYPES = ("float32", "float64")
ITEMSIZE = {"float32": 4, "float64": 8}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "SLSTM": 4, "UGRNN": 2}
OF_TORCH = ("LSTM", "GRU", "RNN")  # the layers of torch.nn, of ONNX and of the libraries that run its models


class Shape(NamedTuple):
    T: int
    B: int
    I: int
    H: int

    def __str__(self):
        return ", ".join(map(str, self))


class Kind(NamedTuple):
    """A kind of layer: a class of fastrnn, mostly also of torch.nn, its options, equal or ragged lengths."""

    title: str
    layer: str = "LSTM"
    num_layers: int = 1
    bidirectional: bool = False
    projected: bool = False  # proj_size is H // 2
    ragged: bool = False
    heads: int = 1
    reset_after: bool = True  # of a GRU; torch has no other

    @property
    def modes(self):
        """Single steps need a layer that is not bidirectional, and torch has no cell with a projection."""
        return MODES[:2] if self.bidirectional or self.projected or self.ragged else MODES

    @property
    def suffixes(self):
        """The suffixes of the parameter names of each layer and direction, one list per layer."""
        directions = ("", "_reverse")[: 1 + self.bidirectional]
        return [[f"_l{k}{direction}" for direction in directions] for k in range(self.num_layers)]

    def options(self, H):
        """The constructor's arguments by name, only those that the class has."""
        options = {"num_layers": self.num_layers, "bidirectional": self.bidirectional}
        options |= {"proj_size": H // 2} if self.projected else {}
        options |= {} if self.reset_after else {"reset_after": False}
        return options | ({"num_heads": self.heads} if self.layer == "SLSTM" else {})

    def output_size(self, H):
        """The length of a step's output, over all directions."""
        return (1 + self.bidirectional) * (H // 2 if self.projected else H)

    def parameters(self, I, H):
        """{torch's name: shape}."""
        rows, columns, shapes = self.gates * H, I, {}
        H_out = H // 2 if self.projected else H
        for of_layer in self.suffixes:
            for suffix in of_layer:
                shapes["weight_ih" + suffix] = rows, columns
                shapes["weight_hh" + suffix] = rows, H_out // self.heads
                shapes["bias_ih" + suffix] = (rows,)
                shapes["bias_hh" + suffix] = (rows,)
                if self.projected:
                    shapes["weight_hr" + suffix] = H_out, H
            columns = self.output_size(H)
        return shapes

    def matrices(self, I, H):
        """{torch's name: size} of the weights in matrix products."""
        shapes = self.parameters(I, H)
        return {name: math.prod(shape) for name, shape in shapes.items() if name.startswith("weight")}

    @property
    def gates(self):
        return GATES[self.layer]


KINDS = {
    "lstm": Kind("LSTM"),
    "gru": Kind("GRU", "GRU"),
    "gru-reset-before": Kind("GRU, reset before the product", "GRU", reset_after=False),
    "rnn": Kind("RNN, tanh", "RNN"),
    "lstm-ragged": Kind("LSTM, ragged", ragged=True),
    "gru-ragged": Kind("GRU, ragged", "GRU", ragged=True),
    "lstm-projected": Kind("LSTM, projected to H/2", projected=True),
    "lstm-bidirectional": Kind("LSTM, bidirectional", bidirectional=True),
    "lstm-two-layers": Kind("LSTM, two layers", num_layers=2),
    "slstm": Kind("sLSTM", "SLSTM"),
    "slstm-heads": Kind("sLSTM, four heads", "SLSTM", heads=4),
    "ugrnn": Kind("UGRNN", "UGRNN"),
}
PLAIN = "lstm"


def label(kind, shape):
    """The name of a shape, including its kind."""
    return str(shape) if kind == PLAIN else f"{kind} {shape}"


def lengths_of(shape):
    """The lengths of a ragged batch, (B,): uniform in T/4..T, unsorted, the same in every process."""
    T, B, _, _ = shape
    return np.random.default_rng(1).integers(-(-T // 4), T, B, endpoint=True)


def share_of_steps(kind, shape):
    """The sum of the lengths as a fraction of T B."""
    T, B, _, _ = shape
    return float(lengths_of(shape).sum() / (T * B)) if KINDS[kind].ragged else 1.0


class Table(NamedTuple):
    title: str
    modes: tuple
    shapes: list
    kinds: tuple = (PLAIN,)  # each of them at every shape


def square(T, batches, H):
    """One shape for each batch size, with as many inputs as hidden units."""
    return [Shape(T, B, H, H) for B in batches]


# DeepBench: github.com/baidu-research/DeepBench, the LSTM problems of code/kernels/rnn_problems.h and of its
# README. Zaremba 2014: arXiv:1409.2329, the small, medium and large language model of section 4.1.
TABLES = {
    "small": Table(
        "Small layers",
        ("forward", "train"),
        [shape for H in (16, 32, 64, 100, 128, 200) for shape in square(100, (1, 8, 32), H)],
    ),
    "step": Table(
        "One step",
        ("forward", "train", "step"),
        [
            *square(1, (1, 8), 16),
            *square(1, (1, 8, 32), 64),
            *square(1, (1, 8), 128),
            *square(1, (1, 8), 256),
            *square(1, (1,), 512),
            *square(1, (1,), 1024),
        ],
    ),
    "zaremba": Table(
        "Language models (Zaremba 2014)",
        ("forward", "train"),
        [*square(20, (20,), 200), *square(35, (20,), 650), *square(35, (20,), 1500)],
    ),
    "deepbench-train": Table(
        "DeepBench, training",
        ("forward", "train"),
        [
            *square(150, (16, 32, 64), 256),
            *square(25, (16, 32, 64, 128), 512),
            *square(25, (16, 32, 64, 128), 1024),
            *square(50, (8, 16, 32), 1536),
            *square(25, (16, 32, 64, 128), 2048),
            *square(25, (16, 32, 64, 128), 4096),
        ],
    ),
    "deepbench-server": Table(
        "DeepBench, server inference",
        ("forward",),
        [
            *square(150, (1, 2, 4), 256),
            *square(25, (1, 2, 4), 512),
            *square(25, (1, 2, 4), 1024),
            *square(50, (1, 2, 4), 1536),
            *square(25, (1, 2, 4), 2048),
        ],
    ),
    "deepbench-device": Table("DeepBench, device inference", ("forward",), square(150, (1,), 256)),
    "family-small": Table(
        "Other kinds, small layers", ("forward", "train"), square(100, (1, 32), 64), kinds=("gru", "rnn")
    ),
    "family-single": Table(
        "Other kinds, one sequence",
        ("forward", "train"),
        [*square(100, (1,), 128), *square(25, (1,), 512)],
        kinds=tuple(name for name, kind in KINDS.items() if name != PLAIN and not kind.ragged),
    ),
    "family": Table(
        "Other kinds",
        ("forward", "train"),
        [*square(100, (32,), 128), *square(25, (16, 64), 512)],
        kinds=tuple(name for name in KINDS if name != PLAIN),
    ),
    "family-step": Table("Other kinds, one step", ("step",), square(1, (1,), 128), kinds=("lstm-two-layers",)),
}

# The default shapes: a few of every table and of every kind of limit, all under a second.
QUICK = {
    *square(100, (1, 32), 64),
    *square(100, (1,), 16),
    *square(100, (8,), 128),
    *square(100, (32,), 200),
    *square(1, (1,), 64),
    *square(1, (1,), 256),
    *square(20, (20,), 200),
    *square(35, (20,), 650),
    *square(150, (1, 64), 256),
    *square(25, (1, 16, 64), 512),
    *square(50, (4,), 1536),
    *square(25, (1, 16), 2048),
}
QUICK_OF_OTHER_KINDS = {
    *square(100, (1, 32), 128),
    *square(25, (16,), 512),
    *square(1, (1,), 128),
}


class Cell(NamedTuple):
    """One measurement; `table` is the first table that has it, None for a user's shape."""

    mode: str
    dtype: str
    shape: Shape
    table: str | None
    kind: str = PLAIN


def select(modes, dtypes, tables=None, full=False, shapes=None, kinds=None):
    """The cells of a run, each once, mode by mode and in each of them kind by kind.

    `shapes` replaces the tables, and then every mode applies, to the plain kind or to `kinds`. `tables` selects whole
    tables; by default all tables are used, reduced to the quick shapes unless `full`. `kinds` restricts the tables to
    these kinds. A step always has T = 1.
    """
    if shapes:
        candidates = [(kind, shape, MODES, None) for kind in kinds or (PLAIN,) for shape in shapes]
    else:
        candidates = [
            (kind, shape, table.modes, name)
            for kind in KINDS
            for name, table in TABLES.items()
            if kind in table.kinds and (kinds is None or kind in kinds) and (tables is None or name in tables)
            for shape in table.shapes
            if full or tables is not None or shape in (QUICK if kind == PLAIN else QUICK_OF_OTHER_KINDS)
        ]
    cells = {}
    for mode in modes:
        for dtype in dtypes:
            for kind, shape, its_modes, table in candidates:
                if mode in its_modes and mode in KINDS[kind].modes:
                    shape = shape._replace(T=1) if mode == "step" else shape
                    cells.setdefault((mode, dtype, kind, shape), Cell(mode, dtype, shape, table, kind))
    return list(cells.values())


def flops(mode, shape, kind=PLAIN):
    """Operations of the matrix products only; a training step counts as three forward passes."""
    T, B, I, H = shape
    steps = int(lengths_of(shape).sum()) if KINDS[kind].ragged else T * B
    return (3 if mode == "train" else 1) * 2 * steps * sum(KINDS[kind].matrices(I, H).values())


def weight_traffic(mode, dtype, shape, kind=PLAIN):
    """(bytes of the weights that every step must read, number of reads).

    A pass over a sequence can compute the input projection of all steps in one product, outside the steps, and can run
    layer by layer and direction by direction, with one recurrent matrix in the cache at a time. A single step can do
    neither. Backward reads the recurrent weights once more.
    """
    T, _, I, H = shape
    matrices = KINDS[kind].matrices(I, H)
    steps = int(lengths_of(shape).max(initial=0)) if KINDS[kind].ragged else T
    if mode == "step":
        return sum(matrices.values()) * ITEMSIZE[dtype], steps
    recurrent = matrices["weight_hh_l0"] + matrices.get("weight_hr_l0", 0)
    passes = sum(map(len, KINDS[kind].suffixes)) * (2 if mode == "train" else 1)
    return recurrent * ITEMSIZE[dtype], passes * steps
