"""Random arguments for the functions of one layer and one direction, of every cell, and their results."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

CELLS = {"lstm": 4, "gru": 3, "rnn": 1}  # and how many gates they have
BIASES = ("bias_ih", "bias_hh")


class Case(NamedTuple):
    cell: str
    x: np.ndarray  # (T, B, I)
    state: tuple  # (h_0, c_0), or (h_0,)
    weights: dict
    options: dict  # lengths, reverse, nonlinearity, those that are given
    d_output: np.ndarray
    d_state_n: tuple


def draw(rng, cell, T, B, I, H, *, P=None, biases=BIASES, peephole=False, dtype=np.float64, **options):
    """Random numbers for which the gates are neither closed nor fully open; a P of None means no projection."""

    def uniform(*shape, bound=1.0):
        return rng.uniform(-bound, bound, shape).astype(dtype)

    rows = CELLS[cell] * H
    output_size = P or H
    bound = 2 / max(1, I + output_size) ** 0.5
    weights = {"weight_ih": uniform(rows, I, bound=bound), "weight_hh": uniform(rows, output_size, bound=bound)}
    weights |= {name: uniform(rows) for name in BIASES if name in biases}
    if P:
        weights["weight_hr"] = uniform(P, H, bound=2 / H**0.5)
    if peephole:
        weights["weight_peephole"] = uniform(3, H)
    sizes = (output_size, H) if cell == "lstm" else (H,)
    return Case(
        cell, uniform(T, B, I), tuple(uniform(B, n) for n in sizes), weights, options,
        uniform(T, B, output_size), tuple(uniform(B, n) for n in sizes),
    )  # fmt: skip


@st.composite
def cases(draw_one, cells=tuple(CELLS), relu=True, **fixed):
    """Cases in float64 of every cell and every combination of its options; `fixed` fixes arguments of draw."""
    cell = draw_one(st.sampled_from(cells))
    sizes = {
        "T": draw_one(st.sampled_from([4, 3, 1, 0])),
        "B": draw_one(st.sampled_from([3, 1, 5, 0])),
        "I": draw_one(st.sampled_from([3, 1, 0])),
        "H": draw_one(st.sampled_from([3, 1, 4])),
        "biases": draw_one(st.sampled_from([BIASES, BIASES[:1], BIASES[1:], ()])),
        "reverse": draw_one(st.booleans()),
    }
    lengths = st.lists(st.integers(0, sizes["T"]), min_size=sizes["B"], max_size=sizes["B"])
    sizes["lengths"] = draw_one(st.none() | lengths)
    if cell == "lstm":
        sizes["P"] = draw_one(st.sampled_from([None, 1, 2, 5]))
        sizes["peephole"] = draw_one(st.booleans())
    if cell == "rnn":
        sizes["nonlinearity"] = draw_one(st.sampled_from(["tanh", "relu"] if relu else ["tanh"]))
    return draw(np.random.default_rng(draw_one(st.integers(0, 2**32))), cell, **(sizes | fixed))


def lengths_of(case):
    T, B, _ = case.x.shape
    lengths = case.options.get("lengths")
    return [T] * B if lengths is None else list(lengths)


def with_options(case, **options):
    return case._replace(options=case.options | options)


def of_cell(case, state):
    """A state tuple as the cell's functions take it: unchanged for the LSTM, else its only member."""
    return state if case.cell == "lstm" else state[0]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def infer(module, case):
    """output and the members of state_n of the function without a tape."""
    function = getattr(module, case.cell)
    output, state_n = function(case.x, of_cell(case, case.state), **case.weights, **case.options)
    return output, *as_tuple(state_n)


def run(module, case):
    """name -> array: the results of the forward pass and of the backward pass."""
    forward, backward = (getattr(module, f"{case.cell}_{direction}") for direction in ("forward", "backward"))
    output, state_n, tape = forward(case.x, of_cell(case, case.state), **case.weights, **case.options)
    d_x, d_state, d_params = backward(tape, case.d_output, of_cell(case, case.d_state_n))
    assert list(d_params) == list(case.weights)
    results = {"output": output, "d_x": d_x}
    results |= dict(zip(("h_n", "c_n"), as_tuple(state_n)))
    results |= dict(zip(("d_h_0", "d_c_0"), as_tuple(d_state)))
    return results | {f"d_{name}": array for name, array in d_params.items()}


def alone(case, b):
    """Sequence b of the case, cut to its own length."""
    T = lengths_of(case)[b]
    rows = slice(b, b + 1)
    return case._replace(
        x=case.x[:T, rows], state=tuple(s[rows] for s in case.state), options=case.options | {"lengths": None},
        d_output=case.d_output[:T, rows], d_state_n=tuple(d[rows] for d in case.d_state_n),
    )  # fmt: skip


def turned(case, a):
    """(T, B, ...) with every sequence of the case reversed within its length; the padding is unchanged."""
    a = a.copy()
    for b, length in enumerate(lengths_of(case)):
        a[:length, b] = a[:length, b][::-1]
    return a


def with_beyond(case, a, value):
    """(T, B, ...) with a value written into the padding of each sequence."""
    a = a.copy()
    for b, length in enumerate(lengths_of(case)):
        a[length:, b] = value
    return a
