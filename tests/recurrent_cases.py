"""Random arguments for the functions of one layer and one direction, of every cell, and all that they give for them."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

CELLS = {"lstm": 4, "gru": 3, "rnn": 1}  # and how many gates they have
GATES = CELLS | {"slstm": 4, "ugrnn": 2}  # of all cells
STATES = {"lstm": "hc", "gru": "h", "rnn": "h", "slstm": "hcnm", "ugrnn": "h"}
BIASES = ("bias_ih", "bias_hh")
RECURRENT_ACTIVATIONS = ("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth")


class Case(NamedTuple):
    cell: str
    x: np.ndarray  # (T, B, I)
    state: tuple  # (h_0, c_0), or (h_0,), or (h_0, c_0, n_0, m_0)
    weights: dict
    options: dict  # lengths, resets, reverse, and the options of the cell, those that are given
    d_output: np.ndarray
    d_state_n: tuple


def draw(
    rng, cell, T, B, I, H, *,
    P=None, biases=BIASES, peephole=False, num_heads=1, empty=(), dtype=np.float64, **options,
):  # fmt: skip
    """Numbers from a range in which the gates are neither shut nor open; a P of None is no projection.

    `empty` are the sequences of an sLSTM whose state before the first step has c and n of 0.
    """

    def uniform(*shape, bound=1.0):
        return rng.uniform(-bound, bound, shape).astype(dtype)

    rows = GATES[cell] * H
    output_size = P or H
    bound = 2 / max(1, I + output_size) ** 0.5
    weights = {
        "weight_ih": uniform(rows, I, bound=bound),
        "weight_hh": uniform(rows, output_size // num_heads, bound=bound),
    }
    weights |= {name: uniform(rows) for name in BIASES if name in biases}
    if P:
        weights["weight_hr"] = uniform(P, H, bound=2 / H**0.5)
    if peephole:
        weights["weight_peephole"] = uniform(3, H)
    sizes = (output_size,) + (H,) * (len(STATES[cell]) - 1)
    case = Case(
        cell, uniform(T, B, I), tuple(uniform(B, n) for n in sizes), weights, options,
        uniform(T, B, output_size), tuple(uniform(B, n) for n in sizes),
    )  # fmt: skip
    if cell == "slstm":
        _, c_0, n_0, _ = case.state
        n_0 += 1.5  # a normalizer is a sum of positive numbers
        c_0[list(empty)] = n_0[list(empty)] = 0
    return case


@st.composite
def cases(draw_one, cells=None, relu=True, features=False, **fixed):
    """Cases in float64 of every cell and every combination of its options; `fixed` fixes arguments of draw.

    With `features`, also of the sLSTM and the UGRNN, and of resets, reset_after, recurrent_activation, activation and
    clip.
    """
    cell = draw_one(st.sampled_from(tuple(cells or (GATES if features else CELLS))))
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
        sizes["nonlinearity"] = draw_one(st.sampled_from(["tanh", "sigmoid", "relu"][: 2 + relu]))
    if features:
        sizes |= draw_one(drawn_features(cell, sizes))
    return draw(np.random.default_rng(draw_one(st.integers(0, 2**32))), cell, **(sizes | fixed))


@st.composite
def drawn_features(draw_one, cell, sizes):
    T, B, H = sizes["T"], sizes["B"], sizes["H"]
    features = {}
    if cell == "gru":
        features["reset_after"] = draw_one(st.booleans())
    if cell in ("lstm", "gru", "ugrnn"):
        features["recurrent_activation"] = draw_one(st.sampled_from(RECURRENT_ACTIVATIONS))
        features["activation"] = draw_one(st.sampled_from(["tanh", "relu"]))
    if cell == "slstm":
        features["num_heads"] = draw_one(st.sampled_from([n for n in (1, 2, 3, 4) if H % n == 0]))
        features["empty"] = draw_one(st.sampled_from([(), range(0, B, 2), range(B)]))
    else:
        features["clip"] = draw_one(st.sampled_from([None, 0.4, 1.5]))
    share = draw_one(st.sampled_from([None, 0.3, 0.0, 1.0]))  # of the steps that have a flag
    if share is not None:
        features["resets"] = np.random.default_rng(draw_one(st.integers(0, 2**32))).random((T, B)) < share
    return features


def lengths_of(case):
    T, B, _ = case.x.shape
    lengths = case.options.get("lengths")
    return [T] * B if lengths is None else list(lengths)


def with_options(case, **options):
    return case._replace(options=case.options | options)


def of_cell(case, state):
    """A tuple as the cell's functions take it: of several members as it is, else its only member."""
    return state if len(STATES[case.cell]) > 1 else state[0]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def infer(module, case):
    """output and the members of state_n, of the function that keeps no tape."""
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
    results |= {f"{name}_n": s for name, s in zip(STATES[case.cell], as_tuple(state_n), strict=True)}
    results |= {f"d_{name}_0": s for name, s in zip(STATES[case.cell], as_tuple(d_state), strict=True)}
    return results | {f"d_{name}": array for name, array in d_params.items()}


def alone(case, b):
    """Sequence b of the case, cut to its own length."""
    T = lengths_of(case)[b]
    rows = slice(b, b + 1)
    options = case.options | {"lengths": None}
    if options.get("resets") is not None:
        options["resets"] = options["resets"][:T, rows]
    return case._replace(
        x=case.x[:T, rows], state=tuple(s[rows] for s in case.state), options=options,
        d_output=case.d_output[:T, rows], d_state_n=tuple(d[rows] for d in case.d_state_n),
    )  # fmt: skip


def turned(case, a):
    """(T, B, ...) with every sequence of the case read from its own end; what lies beyond stays."""
    a = a.copy()
    for b, length in enumerate(lengths_of(case)):
        a[:length, b] = a[:length, b][::-1]
    return a


def turned_resets(case):
    """The resets of the case for its turned sequences: a flag at t separates the same two steps."""
    resets = np.zeros_like(case.options["resets"])
    for b, length in enumerate(lengths_of(case)):
        for t in range(1, length):
            resets[length - t, b] = case.options["resets"][t, b]
    return resets


def with_beyond(case, a, value):
    """(T, B, ...) with a value written wherever a sequence of the case has ended."""
    a = a.copy()
    for b, length in enumerate(lengths_of(case)):
        a[length:, b] = value
    return a
