"""Layers of every kind with drawn options, and their results by the reference, one direction of one layer at a time."""

import numpy as np
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference

CLASSES = (fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN, fastrnn.SLSTM, fastrnn.UGRNN)
STATES = {fastrnn.LSTM: "hc", fastrnn.SLSTM: "hcnm"}

# Options of layers that are arguments of the reference, too.
OPTIONS = ("nonlinearity", "reset_after", "recurrent_activation", "activation", "clip")


def draw(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


@st.composite
def layers(draw_one, **fixed):
    """A layer in float64."""
    cls = draw_one(st.sampled_from(CLASSES))
    options = {
        "num_layers": draw_one(st.integers(1, 3)),
        "bias": draw_one(st.booleans()),
        "batch_first": draw_one(st.booleans()),
        "bidirectional": draw_one(st.booleans()),
    }
    if cls in (fastrnn.LSTM, fastrnn.GRU, fastrnn.UGRNN):
        options["recurrent_activation"] = draw_one(st.sampled_from(["sigmoid", "hard_sigmoid_fifth"]))
        options["clip"] = draw_one(st.sampled_from([None, 1.5]))
    hidden_size = draw_one(st.sampled_from([1, 3, 17]))
    if cls is fastrnn.LSTM:
        options["proj_size"] = draw_one(st.integers(0, min(hidden_size - 1, 4)))
        options["peephole"] = draw_one(st.booleans())
    if cls is fastrnn.GRU:
        options["reset_after"] = draw_one(st.booleans())
    if cls is fastrnn.RNN:
        options["nonlinearity"] = draw_one(st.sampled_from(["tanh", "sigmoid", "relu"]))
    if cls is fastrnn.SLSTM:
        options["num_heads"] = draw_one(st.integers(1, 3))
        hidden_size *= options["num_heads"]
    rng = draw_one(st.integers(0, 2**32))
    input_size = draw_one(st.sampled_from([1, 2, 9]))
    return cls(input_size, hidden_size, **(options | fixed), dtype=np.float64, rng=rng)


def states_of(layer):
    """The letters of its states."""
    return STATES.get(type(layer), "h")


def members(state):
    return state if isinstance(state, tuple) else (state,)


def state_like(layer, B, seed):
    """A state, or the gradient of one, of a batch of B."""
    layers = layer.num_layers * (1 + layer.bidirectional)
    h = draw(seed, layers, B, getattr(layer, "proj_size", 0) or layer.hidden_size, dtype=layer.dtype)
    others = [draw(seed + k, layers, B, layer.hidden_size, dtype=layer.dtype) for k in range(1, len(states_of(layer)))]
    if len(others) == 3:
        others[1] += 2  # a normalizer is a sum of positive numbers
    return (h, *others) if others else h


def results(layer, x, state, lengths, d_output, d_state_n, **options):
    """name -> array: the results of forward and of backward."""
    output, state_n, tape = layer.forward(x, state, lengths, **options)
    d_x, d_state, d_params = layer.backward(tape, d_output, d_state_n)
    named = {"output": output, "d_x": d_x}
    for name, after, d_before in zip(states_of(layer), members(state_n), members(d_state), strict=True):
        named |= {f"{name}_n": after, f"d_{name}_0": d_before}
    return named | {f"d_{name}": array for name, array in d_params.items()}


def directions_of(layer):
    return ("", "_reverse")[: 1 + layer.bidirectional]


def turn(layer, array):
    return array.swapaxes(0, 1) if layer.batch_first else array


def of_part(state, k):
    return tuple(s[k] for s in state) if isinstance(state, tuple) else state[k]


def reference_forward(layer, x, state, lengths):
    """By fastrnn.reference, time-major: outputs and tapes, lists of each layer's directions, and states_n in order."""
    name = type(layer).__name__.lower()
    forward = getattr(reference, f"{name}_forward")
    arguments = layer._constructor_arguments()
    options = {name: arguments[name] for name in OPTIONS if name in arguments}
    directions = directions_of(layer)
    x, outputs, tapes, states_n = turn(layer, x), [], [], []
    for k in range(layer.num_layers):
        outputs.append([])
        tapes.append([])
        for d, direction in enumerate(directions):
            suffix = f"_l{k}{direction}"
            weights = {n.removesuffix(suffix): w for n, w in layer.params.items() if n.endswith(suffix)}
            before = of_part(state, len(directions) * k + d)
            y, last, tape = forward(x, before, **weights, **options, lengths=lengths, reverse=d == 1)
            outputs[k].append(y)
            tapes[k].append(tape)
            states_n.append(members(last))
        x = np.concatenate(outputs[k], axis=-1)
    return outputs, tapes, states_n


def reference_results(layer, x, state, lengths, d_output, d_state_n):
    """The results of `results`, by fastrnn.reference."""
    backward = getattr(reference, f"{type(layer).__name__.lower()}_backward")
    directions = directions_of(layer)
    outputs, tapes, states_n = reference_forward(layer, x, state, lengths)
    d_y, d_state, d_params = turn(layer, d_output), {}, {}
    for k in reversed(range(layer.num_layers)):
        d_x = 0
        for d, direction in enumerate(directions):
            at = len(directions) * k + d
            part = np.split(d_y, len(directions), axis=-1)[d]
            d_part, d_before, d_weights = backward(tapes[k][d], part, of_part(d_state_n, at))
            d_x = d_x + d_part
            d_state[at] = members(d_before)
            d_params |= {f"d_{n}_l{k}{direction}": g for n, g in d_weights.items()}
        d_y = d_x
    named = {"output": turn(layer, np.concatenate(outputs[-1], axis=-1)), "d_x": turn(layer, d_y)}
    d_states = [d_state[at] for at in sorted(d_state)]
    for name, after, d_before in zip(states_of(layer), zip(*states_n), zip(*d_states), strict=True):
        named |= {f"{name}_n": np.stack(after), f"d_{name}_0": np.stack(d_before)}
    return named | {f"d_{n}": d_params[f"d_{n}"] for n in layer.params}


# The gates of a step and the states other than h: their names, and the arrays among those that the reference has saved.
SAVED_GATES = {
    fastrnn.LSTM: ("ifgoc", lambda saved: (*saved[4:8], saved[1][4])),
    fastrnn.GRU: ("rzn", lambda saved: saved[4:7]),
    fastrnn.RNN: ("", lambda saved: ()),
    fastrnn.SLSTM: ("ifzocnm", lambda saved: saved[5:12]),
    fastrnn.UGRNN: ("gc", lambda saved: saved[3:5]),
}


def reference_gates(layer, x, state, lengths):
    """The gates of `forward(..., return_gates=True)`, by fastrnn.reference."""
    outputs, tapes, _ = reference_forward(layer, x, state, lengths)
    found = []
    for output, tape in zip(sum(outputs, []), sum(tapes, [])):
        names, arrays_of = SAVED_GATES[type(layer)]
        named = {name: np.zeros((*output.shape[:2], layer.hidden_size), layer.dtype) for name in names}
        for t, b, _, saved in tape.steps:
            for name, array in zip(names, arrays_of(saved), strict=True):
                named[name][t, b] = array
        found.append({name: turn(layer, array) for name, array in (named | {"h": output}).items()})
    return found
