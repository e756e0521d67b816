"""The shapes that are measured, where they come from, and what each of them costs at least.

A shape is T steps, B sequences, I inputs and H hidden units of one LSTM layer. There are three modes:

forward   an inference pass over T steps
train     forward and backward over T steps, with all gradients
step      one step of a sequence that is never seen as a whole: T = 1, the state is carried from call to call
"""

from typing import NamedTuple

MODES = ("forward", "train", "step")
DTYPES = ("float32", "float64")
ITEMSIZE = {"float32": 4, "float64": 8}


class Shape(NamedTuple):
    T: int
    B: int
    I: int
    H: int

    def __str__(self):
        return ", ".join(map(str, self))


class Table(NamedTuple):
    title: str
    modes: tuple
    shapes: list


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
}

# What runs by default: a few of every table, of every kind of limit, none that takes a second.
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


class Cell(NamedTuple):
    """One thing to measure; `table` is where it was found first, None for a shape of the user's own."""

    mode: str
    dtype: str
    shape: Shape
    table: str | None


def select(modes, dtypes, tables=None, full=False, shapes=None):
    """The cells of a run, each once, mode by mode.

    `shapes` replaces the tables, and then every mode applies; `tables` names those wanted, whole; without
    either it is all of them, cut down to QUICK unless `full`. A step has T = 1, whatever the shape's T.
    """
    if shapes:
        candidates = [(shape, MODES, None) for shape in shapes]
    else:
        candidates = [
            (shape, table.modes, name)
            for name, table in TABLES.items()
            if tables is None or name in tables
            for shape in table.shapes
            if full or tables is not None or shape in QUICK
        ]
    cells = {}
    for mode in modes:
        for dtype in dtypes:
            for shape, its_modes, table in candidates:
                if mode in its_modes:
                    shape = shape._replace(T=1) if mode == "step" else shape
                    cells.setdefault((mode, dtype, shape), Cell(mode, dtype, shape, table))
    return list(cells.values())


def flops(mode, shape):
    """Operations of the matrix products, which are all that is counted; a training step is three forward passes."""
    T, B, I, H = shape
    return (3 if mode == "train" else 1) * 2 * T * B * (I + H) * 4 * H


def weight_traffic(mode, dtype, shape):
    """(bytes of the weights that every step has to read again, how often they are read).

    A pass over a sequence can keep the input weights out of its steps, by one product for all of them; a step
    that comes alone cannot. Backward reads the recurrent weights once more.
    """
    T, _, I, H = shape
    columns = I + H if mode == "step" else H
    return 4 * H * columns * ITEMSIZE[dtype], 2 * T if mode == "train" else T
