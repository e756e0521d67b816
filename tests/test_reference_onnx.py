"""The reference against ONNX Runtime: models of one node, LSTM, GRU or RNN, in float32, which is all it has.

They tell the meaning of `clip`: it bounds the pre-activations of the gates, with their biases and peepholes, and not
the cell state where it enters the output activation of an LSTM.
"""

import itertools

import numpy as np
import pytest

import recurrent_cases
from fastrnn import reference

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 3e-6  # of float32, relative to the largest number of an array, or to 1
ORDERS = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}  # of gates: i, o, f, g; z, r, n
SIGMOIDS = {  # and their alpha
    "sigmoid": ("Sigmoid", None),
    "hard_sigmoid_fifth": ("HardSigmoid", 0.2),
    "hard_sigmoid_sixth": ("HardSigmoid", 1 / 6),
}
OTHERS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}


def by_gate(cell, array):
    """Rows in the order of ONNX."""
    parts = np.split(array, recurrent_cases.CELLS[cell])
    return np.concatenate([parts[k] for k in ORDERS[cell]])


def onnx_results(case):
    """output and the members of state_n; lengths have to be 1 at least."""
    cell, options, weights = case.cell, case.options, case.weights
    T, B, _ = case.x.shape
    H = len(weights["weight_ih"]) // recurrent_cases.CELLS[cell]
    biases = [by_gate(cell, weights[name]) for name in recurrent_cases.BIASES]
    inputs = {
        "X": case.x, "W": by_gate(cell, weights["weight_ih"])[None], "R": by_gate(cell, weights["weight_hh"])[None],
        "B": np.concatenate(biases)[None], "sequence_lens": np.array(recurrent_cases.lengths_of(case), np.int32),
        "initial_h": case.state[0][None],
    }  # fmt: skip
    other = OTHERS[options.get("activation", options.get("nonlinearity", "tanh"))]
    attributes = {"hidden_size": H, "direction": "reverse" if options["reverse"] else "forward"}
    if cell == "rnn":
        attributes["activations"] = [other]
    else:
        gate, alpha = SIGMOIDS[options["recurrent_activation"]]
        attributes["activations"] = [gate, other] + [other] * (cell == "lstm")
        if alpha is not None:
            attributes |= {"activation_alpha": [alpha], "activation_beta": [0.5]}
    if options.get("clip") is not None:
        attributes["clip"] = options["clip"]
    if cell == "gru":
        attributes["linear_before_reset"] = int(options["reset_after"])
    if cell == "lstm":
        p_i, p_f, p_o = weights.get("weight_peephole", np.zeros((3, H), np.float32))
        inputs |= {"initial_c": case.state[1][None], "P": np.concatenate([p_i, p_o, p_f])[None]}
    outputs = ["Y", "Y_h", *(["Y_c"] if cell == "lstm" else [])]

    helper, FLOAT, INT32 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    node = helper.make_node(cell.upper(), list(inputs), outputs, **attributes)
    kinds = {name: INT32 if array.dtype == np.int32 else FLOAT for name, array in inputs.items()}
    graph = helper.make_graph(
        [node], cell,
        [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    one_thread = onnxruntime.SessionOptions()
    one_thread.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), one_thread, providers=["CPUExecutionProvider"])
    output, *state_n = session.run(None, inputs)
    return output[:, 0], *(s[0] for s in state_n)


CLIPS = (None, 0.6, 3.0)
ACTIVATIONS = [
    {"recurrent_activation": gate, "activation": activation, "clip": clip}
    for gate, activation, clip in itertools.product(SIGMOIDS, ("tanh", "relu"), CLIPS)
]
CASES = [
    *(("lstm", options | {"peephole": peephole}) for options in ACTIVATIONS for peephole in (False, True)),
    *(("gru", options | {"reset_after": flag}) for options in ACTIVATIONS for flag in (False, True)),
    *(("rnn", {"nonlinearity": name, "clip": clip}) for name in OTHERS for clip in CLIPS),
]


@pytest.mark.parametrize(("cell", "options"), CASES, ids=str)
def test_against_onnx_runtime(cell, options):
    shapes = [(1, 1, 1, 1, None), (5, 3, 4, 7, None), (6, 4, 3, 16, [6, 1, 3, 5])]
    for (T, B, I, H, lengths), reverse in itertools.product(shapes, (False, True)):
        case = recurrent_cases.draw(
            np.random.default_rng(T), cell, T, B, I, H, **options, lengths=lengths, reverse=reverse, dtype=np.float32
        )
        # As far as the kinks of the gates, and a cell state beyond the clip.
        for name in recurrent_cases.BIASES:
            case.weights[name] *= 2
        if cell == "lstm":
            case.state[1][...] *= 4
        exact = case._replace(weights={name: w.astype(np.float64) for name, w in case.weights.items()})
        for found, expected in zip(onnx_results(case), recurrent_cases.infer(reference, exact), strict=True):
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


def test_the_cell_state_is_not_clipped():
    """One unit with f = 1 and i = 0 keeps c = 5, and with o = 1 puts out tanh(5) and not tanh(clip)."""
    weights = {"weight_ih": np.zeros((4, 1), np.float32), "weight_hh": np.zeros((4, 1), np.float32)}
    weights |= {"bias_ih": np.array([-4, 4, 0, 4], np.float32), "bias_hh": np.zeros(4, np.float32)}
    state = np.zeros((1, 1), np.float32), np.full((1, 1), 5, np.float32)
    options = {"recurrent_activation": "hard_sigmoid_fifth", "activation": "tanh", "clip": 2.5, "reverse": False}
    case = recurrent_cases.Case("lstm", np.zeros((3, 1, 1), np.float32), state, weights, options, None, None)
    for results in (onnx_results(case), recurrent_cases.infer(reference, case)):
        output, h_n, c_n = results
        np.testing.assert_allclose(output, np.tanh(5), rtol=1e-6)
        np.testing.assert_allclose(c_n, 5, rtol=1e-6)
