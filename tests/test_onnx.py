"""fastrnn.from_onnx and fastrnn.to_onnx: the vectors of the ONNX project, ONNX Runtime, and files that are damaged."""

import doctest
import importlib
import itertools
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import fastrnn
from depth import DEPTH
from layer_cases import members

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

TOLERANCE = 3e-6  # of float32, relative to the largest number of an array, or to 1
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
CONSTANT = ("W", "R", "B", "P")
T, B, I, H = 5, 3, 4, 6


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max(initial=0)))


def draw(rng, *shape, dtype=np.float32):
    return rng.uniform(-1, 1, shape).astype(dtype)


def arrays_of(kind, D=1, seed=0, I=I, H=H, dtype=np.float32, **which):
    """Inputs of a node: X, W, R and B; and others that are asked for by their names."""
    rng, G = np.random.default_rng(seed), GATES[kind]
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H)}
    shapes |= {"initial_h": (D, B, H), "initial_c": (D, B, H), "P": (D, 3 * H)}
    arrays = {name: draw(rng, *shape, dtype=dtype) for name, shape in shapes.items()}
    lengths = rng.integers(1, T, B, endpoint=True).astype(np.int32)
    arrays["sequence_lens"] = lengths
    if kind != "LSTM":
        which |= {"initial_c": False, "P": False}
    wanted = {"X": True, "W": True, "R": True, "B": True} | which
    return {name: arrays[name] for name in INPUTS if wanted.get(name)}


def node_of(kind, arrays, name="net", prefix="", **attributes):
    """A node whose inputs have the names of the arrays, those but X with a prefix."""
    inputs = [(name if name == "X" else prefix + name) if name in arrays else "" for name in INPUTS]
    while not inputs[-1]:
        inputs.pop()
    outputs = [prefix + name for name in ("Y", "Y_h", "Y_c")[: 3 if kind == "LSTM" else 2]]
    attributes = {"hidden_size": arrays["R"].shape[2]} | attributes
    return helper.make_node(kind, inputs, outputs, name=name, **attributes)


def info(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, constants, inputs=("X",), outputs=("Y",), opset=14, **options):
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, TensorProto.INT32 if name == "sequence_lens" else TensorProto.FLOAT) for name in inputs],
        [info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **options)


def single(kind, arrays, constant=CONSTANT, opset=14, **attributes):
    """A model of one node; the arrays that are not constant are its inputs."""
    node = node_of(kind, arrays, **attributes)
    inputs = [name for name in arrays if name not in constant]
    constants = {name: array for name, array in arrays.items() if name in constant}
    return model_of([node], constants, inputs, [name for name in node.output if name], opset)


def run(model, **inputs):
    """The outputs of a model by ONNX Runtime, by name."""
    onnxruntime = pytest.importorskip("onnxruntime")
    one_thread = onnxruntime.SessionOptions()
    one_thread.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, one_thread, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def call(layer, arrays):
    """output, and the members of the state, of a layer for the inputs of a node with layout 0."""
    state = [arrays.get("initial_h"), arrays.get("initial_c")][: 2 if isinstance(layer, fastrnn.LSTM) else 1]
    given = None if all(s is None for s in state) else tuple(state) if len(state) == 2 else state[0]
    output, state_n = layer(arrays["X"], given, arrays.get("sequence_lens"))
    return output, *members(state_n)


def joined(Y):
    """Y (T, D, B, H) with the directions side by side."""
    T, D, B, H = Y.shape
    return Y.transpose(0, 2, 1, 3).reshape(T, B, D * H)


def assert_as_runtime(kind, arrays, model, layer):
    inputs = {one.name: arrays[one.name] for one in model.graph.input}
    expected = run(model, **inputs)
    found = call(layer, arrays)
    for name, array in zip(("Y", "Y_h", "Y_c"), found):
        if name in expected:
            assert_close(array, joined(expected[name]) if name == "Y" else expected[name])


# The vectors of the ONNX project


def node_cases():
    """(name, node, inputs, outputs) of the cases with which the ONNX project tests the three operators."""
    found = []

    def expect(node, inputs, outputs, name):
        found.append((name, node, inputs, outputs))

    for module in ("lstm", "gru", "rnn"):
        module = importlib.import_module(f"onnx.backend.test.case.node.{module}")
        with mock.patch.object(module, "expect", expect):
            for cls in [one for one in vars(module).values() if isinstance(one, type)]:
                for name in sorted(name for name in dir(cls) if name.startswith("export")):
                    getattr(cls, name)()
    return found


NODE_CASES = node_cases()


def test_the_vectors_of_the_onnx_project_are_known():
    """None is refused; a newer onnx may add cases, which then are tested, too."""
    names = {name for name, *_ in NODE_CASES}
    variants = ("batchwise", "defaults", "with_initial_bias")
    assert names >= {f"test_{kind}_{variant}" for kind in ("lstm", "gru", "simple_rnn") for variant in variants}
    assert names >= {"test_lstm_with_peepholes", "test_gru_seq_length", "test_rnn_seq_length"}


@pytest.mark.parametrize("all_constant", [False, True])
@pytest.mark.parametrize("case", NODE_CASES, ids=[name for name, *_ in NODE_CASES])
def test_vectors_of_the_onnx_project(case, all_constant):
    _, node, inputs, outputs = case
    arrays = {name: array for name, array in zip(node.input, inputs) if name}
    layout = sum(a.i for a in node.attribute if a.name == "layout")
    constant = [name for name in arrays if name != "X" and (all_constant or name in CONSTANT)]
    names = [name for name in arrays if name not in constant]
    model = model_of([node], {name: arrays[name] for name in constant}, names, filter(None, node.output), opset=22)
    layer, arguments = fastrnn.from_onnx(model, with_arguments=True)
    assert layer.batch_first == bool(layout)
    if not all_constant:
        assert arguments == {}
        found = call(layer, arrays)
    else:
        assert set(arguments) <= {"state", "lengths"}
        output, state_n = layer(arrays["X"], **arguments)
        found = output, *members(state_n)
    expected = dict(zip(filter(None, node.output), outputs, strict=True))
    assert expected
    for name, array in zip(("Y", "Y_h", "Y_c"), found):
        if name in expected:
            wanted = expected[name]
            if layout:
                wanted = wanted.transpose(1, 2, 0, 3) if name == "Y" else wanted.transpose(1, 0, 2)
            wanted = joined(wanted) if name == "Y" else wanted
            assert_close(array.transpose(1, 0, 2) if name == "Y" and layout else array, wanted.astype(np.float32))


# Against ONNX Runtime

HARD = {"activation_alpha": [0.2], "activation_beta": [0.5]}
SIXTH = {"activation_alpha": [1 / 6], "activation_beta": [0.5]}


@st.composite
def nodes(draw_one):
    """The kind, the inputs, and the attributes of a node that a layer expresses and ONNX Runtime runs."""
    kind = draw_one(st.sampled_from(sorted(GATES)))
    direction = draw_one(st.sampled_from(["forward", "reverse", "bidirectional"]))
    D = 1 + (direction == "bidirectional")
    optional = ("B", "sequence_lens", "initial_h", "initial_c", "P")
    arrays = arrays_of(kind, D, draw_one(st.integers(0, 99)), **{name: draw_one(st.booleans()) for name in optional})
    attributes = {"direction": direction}
    other = draw_one(st.sampled_from(["Tanh", "Relu", "tanh", "RELU"]))
    gate, values = draw_one(
        st.sampled_from(
            [("Sigmoid", {}), ("sigmoid", {}), ("HardSigmoid", {}), ("hardsigmoid", HARD), ("HardSigmoid", SIXTH)]
        )
    )
    if kind == "RNN":
        # ONNX Runtime asks for the exact name.
        attributes["activations"] = [draw_one(st.sampled_from(["Tanh", "Relu", "Sigmoid"]))] * D
    elif draw_one(st.booleans()):
        attributes["activations"] = [gate, other, other][: 3 if kind == "LSTM" else 2] * D
        attributes |= {name: value * D for name, value in values.items()}
    if draw_one(st.booleans()):
        attributes["clip"] = draw_one(st.sampled_from([0.3, 1.0, 7.5]))
    if kind == "GRU":
        attributes["linear_before_reset"] = draw_one(st.sampled_from([0, 1]))
    if kind == "LSTM":
        attributes["input_forget"] = draw_one(st.sampled_from([0, 1]))
    return kind, arrays, attributes


@settings(max_examples=150 * DEPTH)
@given(nodes(), st.sampled_from([7, 14, 21]))
def test_every_attribute_against_onnx_runtime(case, opset):
    kind, arrays, attributes = case
    for name in ("W", "R", "B"):  # as far as the kinks of the gates
        arrays = arrays | ({name: 2 * arrays[name]} if name in arrays else {})
    model = single(kind, arrays, opset=opset, **attributes)
    layer = fastrnn.from_onnx(model)
    assert layer.reverse == (attributes["direction"] == "reverse")
    assert_as_runtime(kind, arrays, model, layer)
    # The same, with states and lengths as constants.
    model = single(kind, arrays, [name for name in arrays if name != "X"], opset=opset, **attributes)
    layer, arguments = fastrnn.from_onnx(model.SerializeToString(), "net", with_arguments=True)
    assert set(arguments) == {
        name
        for name, inputs in (("state", ("initial_h", "initial_c")), ("lengths", ("sequence_lens",)))
        if any(one in arrays for one in inputs)
    }
    output, state_n = layer(arrays["X"], **arguments)
    for found, expected in zip((output, *members(state_n)), call(layer, arrays), strict=True):
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", GATES)
def test_batch_first_is_layout_1(kind):
    """ONNX Runtime has no layout=1, so against the same node with layout 0; the vectors above have nodes of both."""
    arrays = arrays_of(kind, initial_h=True, initial_c=True)
    turned = arrays | {n: arrays[n].transpose(1, 0, 2) for n in ("X", "initial_h", "initial_c") if n in arrays}
    model = single(kind, arrays)
    expected = run(model, **{one.name: arrays[one.name] for one in model.graph.input})
    for constant in (CONSTANT, [name for name in arrays if name != "X"]):
        layer, arguments = fastrnn.from_onnx(single(kind, turned, constant, layout=1), with_arguments=True)
        assert layer.batch_first
        if constant is CONSTANT:
            state = arrays["initial_h"], arrays.get("initial_c")
            arguments = {"state": state if kind == "LSTM" else state[0]}
        output, state_n = layer(turned["X"], **arguments)
        assert_close(output.transpose(1, 0, 2), joined(expected["Y"]))
        for name, array in zip(("Y_h", "Y_c"), members(state_n)):
            assert_close(array, expected[name])


@pytest.mark.parametrize("kind", GATES)
def test_dtypes(kind):
    arrays = arrays_of(kind)
    expected = fastrnn.from_onnx(single(kind, arrays))
    assert expected.dtype == np.float32
    layer = fastrnn.from_onnx(single(kind, {name: a.astype(np.float64) for name, a in arrays.items()}, clip=0.7))
    assert layer.dtype == np.float64 and layer.clip == float(np.float32(0.7))
    assert layer.params.flat.astype(np.float32).tobytes() == expected.params.flat.tobytes()
    half = {name: a.astype(np.float16) for name, a in arrays.items()}
    layer = fastrnn.from_onnx(single(kind, half))
    wanted = fastrnn.from_onnx(single(kind, {name: a.astype(np.float32) for name, a in half.items()}))
    assert layer.dtype == np.float32 and layer.params == wanted.params
    # bfloat16 is the upper half of a float32.
    model = single(kind, arrays)
    for tensor in model.graph.initializer:
        bits = np.frombuffer(tensor.raw_data, np.uint32) & 0xFFFF0000
        arrays[tensor.name] = bits.view(np.float32).reshape(tensor.dims)
        tensor.raw_data = (bits >> 16).astype(np.uint16).tobytes()
        tensor.data_type = TensorProto.BFLOAT16
    assert fastrnn.from_onnx(model).params == fastrnn.from_onnx(single(kind, arrays)).params


def test_operators_of_opset_1():
    arrays = arrays_of("LSTM")
    layer = fastrnn.from_onnx(single("LSTM", arrays, opset=1, output_sequence=1))
    assert layer.params == fastrnn.from_onnx(single("LSTM", arrays)).params
    with pytest.raises(ValueError, match="'output_sequence': LSTM of opset 14 has no such attribute"):
        fastrnn.from_onnx(single("LSTM", arrays, output_sequence=1))
    assert not fastrnn.from_onnx(single("GRU", arrays_of("GRU"), opset=1)).reset_after
    with pytest.raises(ValueError, match="'linear_before_reset': GRU of opset 1 has no such attribute"):
        fastrnn.from_onnx(single("GRU", arrays_of("GRU"), opset=1, linear_before_reset=1))


def test_the_clip_is_the_shortest_decimal_of_its_float32():
    for clip in (0.1, 0.6, 1 / 3, 5.0, 3e38):
        layer = fastrnn.from_onnx(single("RNN", arrays_of("RNN"), clip=clip))
        assert np.float32(layer.clip) == np.float32(clip)
    assert fastrnn.from_onnx(single("RNN", arrays_of("RNN"), clip=0.6)).clip == 0.6


# Constants


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array), name))


def ints(name, *values):
    return constant(name, np.array(values, np.int64))


def behind_operators(W):
    """Nodes that compute W (1, G*H, I), and the initializers they need, by name of the way."""
    rows, I = W.shape[1:]
    scale, zero = np.float32(0.03), np.int8(3)
    q = np.random.default_rng(0).integers(-100, 100, W.shape).astype(np.int8)
    by_row = np.linspace(0.01, 0.02, rows, dtype=np.float32)
    return {
        "Constant": ([constant("W", W)], {}),
        "Identity": ([helper.make_node("Identity", ["w"], ["W"])], {"w": W}),
        "Unsqueeze": ([ints("a", 0), helper.make_node("Unsqueeze", ["w", "a"], ["W"])], {"w": W[0]}),
        "Squeeze": ([ints("a", 0), helper.make_node("Squeeze", ["w", "a"], ["W"])], {"w": W[None]}),
        "Slice": (
            [ints("s", 2), ints("e", 2 + rows), ints("a", 1), helper.make_node("Slice", ["w", "s", "e", "a"], ["W"])],
            {"w": np.concatenate([W[:, :2], W, W], axis=1)},
        ),
        "Concat": (
            [helper.make_node("Concat", ["a", "b"], ["W"], axis=1)],
            {"a": W[:, :5], "b": W[:, 5:]},
        ),
        "Transpose": (
            [helper.make_node("Transpose", ["w"], ["W"], perm=[0, 2, 1])],
            {"w": W.transpose(0, 2, 1).copy()},
        ),
        "Reshape": ([ints("a", 1, -1, I), helper.make_node("Reshape", ["w", "a"], ["W"])], {"w": W.ravel()}),
        "Split": (
            [ints("a", 1, 2), helper.make_node("Split", ["w", "a"], ["W", "rest"], axis=0)],
            {"w": np.concatenate([W, W + 1, W])},
        ),
        "Cast": ([helper.make_node("Cast", ["w"], ["W"], to=TensorProto.FLOAT)], {"w": W.astype(np.float64)}),
        "Gather": (
            [ints("a", 3), helper.make_node("Gather", ["w", "a"], ["W"], axis=0)],
            {"w": np.concatenate([W - 1, W + 1, W * 2, W])},
        ),
        "DequantizeLinear": (
            [constant("s", scale), constant("z", zero), helper.make_node("DequantizeLinear", ["w", "s", "z"], ["W"])],
            {"w": q},
        ),
        "DequantizeLinear by row": (
            [constant("s", by_row), helper.make_node("DequantizeLinear", ["w", "s"], ["W"], axis=1)],
            {"w": q},
        ),
        "Mul and Sub": (
            [helper.make_node("Sub", ["w", "one"], ["v"]), helper.make_node("Mul", ["v", "half"], ["W"])],
            {"w": W, "one": np.float32(1), "half": np.full((1, rows, 1), 0.5, np.float32)},
        ),
        "a chain": (
            [
                ints("a", 0),
                helper.make_node("Transpose", ["w"], ["t"]),
                helper.make_node("Identity", ["t"], ["u"]),
                helper.make_node("Unsqueeze", ["u", "a"], ["v"]),
                helper.make_node("Cast", ["v"], ["W"], to=TensorProto.FLOAT),
            ],
            {"w": W[0].T.astype(np.float16)},
        ),
    }


ARRAYS = {kind: arrays_of(kind) for kind in GATES}


@pytest.mark.parametrize("way", behind_operators(ARRAYS["LSTM"]["W"]))
def test_weights_behind_operators(way):
    arrays = dict(ARRAYS["LSTM"])
    before, constants = behind_operators(arrays["W"])[way]
    others = {name: array for name, array in arrays.items() if name in ("R", "B")}
    model = model_of([*before, node_of("LSTM", arrays)], constants | others)
    layer = fastrnn.from_onnx(model)
    # ONNX Runtime computes W of its own.
    _, W = run(
        model_of([*before, node_of("LSTM", arrays)], constants | others, outputs=["Y", "W"]), X=arrays["X"]
    ).values()
    assert layer.params == fastrnn.from_onnx(single("LSTM", arrays | {"W": W})).params
    assert_as_runtime("LSTM", arrays, model, layer)


@pytest.mark.parametrize(
    ("opset", "nodes"),
    [
        (11, [helper.make_node("Unsqueeze", ["w"], ["W"], axes=[0])]),
        (
            12,
            [
                helper.make_node("Unsqueeze", ["w"], ["v"], axes=[0, 0 + 1]),
                helper.make_node("Squeeze", ["v"], ["W"], axes=[1]),
            ],
        ),
        (
            9,
            [
                helper.make_node("Unsqueeze", ["w"], ["v"], axes=[0]),
                helper.make_node("Slice", ["v"], ["W"], axes=[1], starts=[0], ends=[99]),
            ],
        ),
    ],
    ids=["11", "12", "9"],
)
def test_operators_of_earlier_versions(opset, nodes):
    arrays = ARRAYS["GRU"]
    model = model_of(
        [*nodes, node_of("GRU", arrays)], {"w": arrays["W"][0], "R": arrays["R"], "B": arrays["B"]}, opset=opset
    )
    assert fastrnn.from_onnx(model).params == fastrnn.from_onnx(single("GRU", arrays)).params


def test_initializers_that_are_inputs_too():
    """So were all initializers before version 4 of the format; a caller might give others."""
    model = single("GRU", ARRAYS["GRU"])
    model.graph.input.extend([info(name) for name in ("W", "R", "B")])
    assert fastrnn.from_onnx(model).params == fastrnn.from_onnx(single("GRU", ARRAYS["GRU"])).params


@pytest.mark.parametrize("name", ["W", "R", "B", "P"])
def test_weights_that_are_not_constant(name):
    arrays = arrays_of("LSTM", P=True)
    with pytest.raises(
        ValueError, match=f"^model: node 'net': {name}: is not constant: '{name}' is an input of the graph"
    ):
        fastrnn.from_onnx(single("LSTM", arrays, [one for one in CONSTANT if one != name]))
    weights = {one: arrays[one] for one in CONSTANT if one != name} | {"v": arrays[name]}
    square = helper.make_node("Abs", ["v"], [name], name="rectifier")
    with pytest.raises(ValueError, match=f"net': {name}: is not constant: '{name}' is computed by Abs 'rectifier'"):
        fastrnn.from_onnx(model_of([square, node_of("LSTM", arrays)], weights))


def test_external_data(tmp_path):
    path = tmp_path / "net.onnx"
    model = single("LSTM", ARRAYS["LSTM"])
    expected = fastrnn.from_onnx(model)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert b"net.data" in path.read_bytes() and path.stat().st_size < 1000
    assert fastrnn.from_onnx(path).params == expected.params
    assert fastrnn.from_onnx(str(path)).params == expected.params
    with pytest.raises(ValueError, match="node 'net': W: the tensor 'W': its data are in another file; give the path"):
        fastrnn.from_onnx(path.read_bytes())
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(ValueError, match="net.onnx: node 'net': W: the tensor 'W': "):
        fastrnn.from_onnx(path)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ValueError, match="net.onnx: node 'net': W: the tensor 'W': "):
        fastrnn.from_onnx(path)
    # Files elsewhere are not read.
    (tmp_path / "net.data").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="net.onnx: node 'net': W: the tensor 'W': "):
        fastrnn.from_onnx(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    model = onnx.load(path, load_external_data=False)
    onnx.save(
        single("LSTM", ARRAYS["LSTM"]),
        tmp_path / "other.onnx",
        save_as_external_data=True,
        location="o.data",
        size_threshold=0,
    )
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../o.data"
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="net.onnx: node 'net': W: the tensor 'W': "):
        fastrnn.from_onnx(folder / "net.onnx")


# Graphs in nodes


def in_branches(nested=False):
    """A model whose LSTMs stand in the branches of an If; the weights of one outside of it."""
    then, otherwise = arrays_of("LSTM", seed=1), arrays_of("LSTM", seed=2)
    branches = []
    for arrays, prefix in ((then, "t_"), (otherwise, "e_")):
        node = node_of("LSTM", arrays, f"LSTM_{prefix[0]}", prefix)
        constants = [] if prefix == "t_" else [numpy_helper.from_array(arrays[n], prefix + n) for n in ("W", "R", "B")]
        branches.append(helper.make_graph([node], prefix, [], [info(f"{prefix}Y")], constants))
    chosen = helper.make_node("If", ["flag"], ["Y"], name="If_0", then_branch=branches[0], else_branch=branches[1])
    if nested:
        empty = helper.make_graph([constant("none", np.zeros((1, 1, 1, 1), np.float32))], "no", [], [info("none")])
        inner = helper.make_graph([chosen], "inner", [], [info("Y")])
        chosen = helper.make_node("If", ["flag"], ["Z"], name="outer", then_branch=inner, else_branch=empty)
    model = model_of([chosen], {f"t_{n}": then[n] for n in ("W", "R", "B")}, outputs=["Z" if nested else "Y"])
    model.graph.input.append(info("flag", TensorProto.BOOL, []))
    return model, then, otherwise


@pytest.mark.parametrize("nested", [False, True])
def test_nodes_in_the_branches_of_an_if(nested):
    model, then, otherwise = in_branches(nested)
    prefix = "outer/then_branch/" if nested else ""
    for names, arrays in (
        ((f"{prefix}If_0/then_branch/LSTM_t", "LSTM_t", "t_Y", "t_Y_c"), then),
        ((f"{prefix}If_0/else_branch/LSTM_e", "LSTM_e", "e_Y"), otherwise),
    ):
        for name in names:
            layer = fastrnn.from_onnx(model, name)
            assert layer.params == fastrnn.from_onnx(single("LSTM", arrays)).params
        if not nested:
            (expected,) = run(model, X=arrays["X"], flag=np.array(arrays is then)).values()
            assert_close(layer(arrays["X"])[0], joined(expected))
    with pytest.raises(ValueError, match=rf"^model: 2 recurrent nodes: '{prefix}If_0/.*_branch/LSTM_.', .*; choose"):
        fastrnn.from_onnx(model)


def test_a_node_in_the_body_of_a_loop():
    arrays = arrays_of("GRU")
    node = node_of("GRU", arrays)
    body = helper.make_graph(
        [node, helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [info("step", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])],
        [info("go_on", TensorProto.BOOL, []), info("Y")],
    )
    loop = helper.make_node("Loop", ["times", ""], ["Ys"], name="loop", body=body)
    model = model_of([ints("times", 2), loop], {n: arrays[n] for n in ("W", "R", "B")}, outputs=["Ys"])
    layer = fastrnn.from_onnx(model, "loop/body/net")
    assert_close(layer(arrays["X"])[0], joined(run(model, X=arrays["X"])["Ys"][1]))


def test_nodes_with_the_same_name():
    first, second = arrays_of("RNN", seed=1), arrays_of("RNN", seed=2)
    nodes = [node_of("RNN", first, "twin", "a_"), node_of("RNN", second, "twin", "b_")]
    constants = {p + n: a[n] for p, a in (("a_", first), ("b_", second)) for n in ("W", "R", "B")}
    model = model_of(nodes, constants, outputs=["a_Y", "b_Y"])
    with pytest.raises(ValueError, match="node: 'twin' names 2 nodes: 'twin', 'twin', with the outputs 'a_Y', 'b_Y'"):
        fastrnn.from_onnx(model, "twin")
    assert fastrnn.from_onnx(model, "b_Y_h").params == fastrnn.from_onnx(single("RNN", second)).params


def test_long_names_are_shown_as_far_as_they_help():
    path = "/encoder/layers/encoder/layers.0/recurrent/LSTM"
    with pytest.raises(ValueError, match=f"^model: node '{path}': clip: "):
        fastrnn.from_onnx(single("RNN", ARRAYS["RNN"], name=path, clip=0.0))
    with pytest.raises(ValueError, match=r"^model: node 'x+\.\.\.x+': clip: ") as raised:
        fastrnn.from_onnx(single("RNN", ARRAYS["RNN"], name="x" * 10**6, clip=0.0))
    assert len(str(raised.value)) < 300


def test_a_node_without_a_name_is_called_as_its_output():
    model = single("RNN", ARRAYS["RNN"])
    model.graph.node[0].ClearField("name")
    model.graph.node[0].input[1] = "X"
    with pytest.raises(ValueError, match="^model: node 'Y': W: is not constant: 'X' is an input of the graph"):
        fastrnn.from_onnx(model)


# Which node


def test_other_operators_are_refused_by_name():
    quantized = helper.make_node("DynamicQuantizeLSTM", ["X", "W"], ["Y"], name="q", domain="com.microsoft")
    model = model_of([quantized], {"W": np.zeros((1, 1), np.int8)})
    with pytest.raises(
        ValueError, match=r"no node LSTM.*; not supported: 'q \(com.microsoft.DynamicQuantizeLSTM\)'; deq"
    ):
        fastrnn.from_onnx(model)
    with pytest.raises(ValueError, match="^model: node 'q': com.microsoft.DynamicQuantizeLSTM is not supported"):
        fastrnn.from_onnx(model, "q")
    with pytest.raises(
        ValueError, match="^model: node: no recurrent node or output is called 'r'; there are: none; not"
    ):
        fastrnn.from_onnx(model, "r")
    with pytest.raises(ValueError, match="^model: no node LSTM, GRU or RNN of ai.onnx$"):
        fastrnn.from_onnx(model_of([helper.make_node("Relu", ["X"], ["Y"])], {}))


def test_a_loop_instead_of_a_node():
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Tanh", ["h"], ["h_n"])],
        "body",
        [info("k", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("h")],
        [info("go_on", TensorProto.BOOL, []), info("h_n")],
    )
    loop = helper.make_node("Loop", ["", "", "X"], ["Y"], name="steps", body=body)
    with pytest.raises(
        ValueError, match="^model: no node LSTM, GRU or RNN of ai.onnx; 'Loop steps' may run over .*from_keras"
    ):
        fastrnn.from_onnx(model_of([loop], {}))
    with pytest.raises(ValueError, match="^model: no node .*'Scan net/body/Y' may run over"):
        inner = helper.make_node("Scan", ["h"], ["Y"], body=body, num_scan_inputs=0)
        outer = helper.make_graph([inner], "outer", [info("h")], [info("Y")])
        fastrnn.from_onnx(model_of([helper.make_node("Other", ["X"], ["Z"], "net", domain="own", body=outer)], {}))


def test_steps_that_are_unrolled():
    nodes = []
    for k in range(3):
        nodes.append(helper.make_node("MatMul", [f"h{k}" if k else "X", "W"], [f"a{k}"]))
        nodes.append(helper.make_node("Tanh", [f"a{k}"], [f"h{k + 1}" if k < 2 else "Y"]))
    with pytest.raises(
        ValueError,
        match="^model: no node .*; 3 MatMul and Gemm and 3 Sigmoid and Tanh may be .* unrolled: .*dynamo=Fal",
    ):
        fastrnn.from_onnx(model_of(nodes, {"W": np.zeros((I, I), np.float32)}))
    for few in (nodes[:1], nodes[:2], [nodes[1], nodes[3]]):
        with pytest.raises(ValueError, match="^model: no node LSTM, GRU or RNN of ai.onnx$"):
            fastrnn.from_onnx(model_of(few, {"W": np.zeros((I, I), np.float32), "X0": np.zeros(1), "a1": np.zeros(1)}))


def reversed_by(*nodes, **constants):
    """A model whose node takes "x" from such nodes."""
    arrays = ARRAYS["LSTM"]
    node = node_of("LSTM", arrays)
    node.input[0] = "x"
    constants = {name: np.array([value]) for name, value in constants.items()}
    return model_of([*nodes, node], {name: arrays[name] for name in "WRB"} | constants)


REVERSE = {"time_axis": 0, "batch_axis": 1}
CUT = {"start": -1, "end": -(2**62), "axis": 0, "step": -1}


@pytest.mark.parametrize("way", ["ReverseSequence", "Slice", "transposed", "cast"])
def test_an_input_that_is_reversed(way):
    if way == "ReverseSequence":
        model = reversed_by(helper.make_node("ReverseSequence", ["X", "lens"], ["x"], "r", **REVERSE))
    elif way == "Slice":
        model = reversed_by(helper.make_node("Slice", ["X", *CUT], ["x"], "r"), **CUT)
    elif way == "transposed":
        model = reversed_by(
            helper.make_node("Transpose", ["X"], ["a"], perm=[1, 0, 2]),
            helper.make_node("ReverseSequence", ["a", "lens"], ["b"], "r", time_axis=1, batch_axis=0),
            helper.make_node("Transpose", ["b"], ["x"], perm=[1, 0, 2]),
        )
    else:
        model = reversed_by(
            helper.make_node("ReverseSequence", ["X", "lens"], ["a"], "r", **REVERSE),
            helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["b"], ["x"]),
        )
    model.graph.initializer.append(numpy_helper.from_array(np.full(B, T), "lens"))
    with pytest.warns(UserWarning, match="^model: node 'net': X comes from .* 'r', which reverses the steps") as warned:
        layer = fastrnn.from_onnx(model)
    assert warned[0].filename == __file__
    X = ARRAYS["LSTM"]["X"]
    assert_close(layer(X[::-1])[0], joined(run(model, X=X)["Y"]))


@pytest.mark.parametrize(
    "model",
    [
        reversed_by(helper.make_node("Slice", ["X", *CUT], ["x"]), **CUT | {"axis": 2}),
        reversed_by(helper.make_node("Slice", ["X", *CUT], ["x"]), **CUT | {"start": 0, "step": 1, "end": 9}),
        reversed_by(helper.make_node("Slice", ["X", "start", "end"], ["x"]), start=0, end=3),
        reversed_by(helper.make_node("Relu", ["X"], ["x"])),
        reversed_by(helper.make_node("Transpose", ["X"], ["x"], perm=[1, 0, 2])),
    ],
)
def test_an_input_that_is_not_reversed(model):
    fastrnn.from_onnx(model)  # without a warning


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("D", [1, 2])
def test_the_recipe_for_quantized_lstms(tmp_path, per_channel, unsigned, D):
    """The recipe of docs/from-onnx.md: weights within half a step, and outputs close to those of the runtime."""
    onnxruntime = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    layer = fastrnn.LSTM(8, 16, bidirectional=D == 2, rng=0)
    fastrnn.to_onnx(layer, tmp_path / "a.onnx")
    quantization.quantize_dynamic(
        tmp_path / "a.onnx",
        tmp_path / "b.onnx",
        op_types_to_quantize=["LSTM"],
        per_channel=per_channel,
        weight_type=quantization.QuantType.QUInt8 if unsigned else quantization.QuantType.QInt8,
        reduce_range=True,  # else ONNX Runtime saturates on processors without VNNI
    )
    with pytest.raises(ValueError, match="no node LSTM.*not supported: .*DynamicQuantizeLSTM.*; dequantize W and R"):
        fastrnn.from_onnx(tmp_path / "b.onnx")
    page = (Path(__file__).parent.parent / "docs" / "from-onnx.md").read_text(encoding="utf-8")
    prompts = [example.source for example in doctest.DocTestParser().get_examples(page)]
    recipe = {"onnx": onnx, "np": np}
    for source in prompts:
        if source.startswith(("INPUTS = ", "def dequantized(")):
            exec(source, recipe)
    model = onnx.load(tmp_path / "b.onnx")
    (node,) = [node for node in model.graph.node if node.op_type == "DynamicQuantizeLSTM"]
    ours = fastrnn.from_weights("lstm", [recipe["dequantized"](model, node)], layout="onnx", bidirectional=D == 2)
    for name, array in layer.params.items():
        np.testing.assert_allclose(ours.params[name], array, rtol=0, atol=0.0 if "bias" in name else 0.5 / 127)
    x = np.random.default_rng(0).standard_normal((25, 4, 8), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    for one in (ours, ours.quantize("int8")):
        np.testing.assert_allclose(one(x)[0], session.run(None, {"x": x})[0], rtol=0, atol=0.02)


def test_nodes_in_functions_are_refused():
    import onnx.inliner

    arrays = ARRAYS["GRU"]
    body = node_of("GRU", arrays)
    function = helper.make_function("own", "Net", list(body.input), ["Y"], [body], [helper.make_opsetid("", 14)])
    call_node = helper.make_node("Net", list(body.input), ["Y"], domain="own")
    model = model_of([call_node], {n: arrays[n] for n in ("W", "R", "B")}, functions=[function])
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(
        ValueError, match=r"'Net/net \(GRU in the function own.Net; onnx.inliner.inline_local_functions"
    ):
        fastrnn.from_onnx(model)
    inlined = onnx.inliner.inline_local_functions(model)
    assert fastrnn.from_onnx(inlined).params == fastrnn.from_onnx(single("GRU", arrays)).params


@pytest.mark.parametrize("value", [3, 2.5, ("a", 3), {"a"}, b"a"])
def test_what_is_no_node(value):
    with pytest.raises(TypeError, match="^node: expected a name or a sequence of names, got"):
        fastrnn.from_onnx(b"", value)


@pytest.mark.parametrize("value", [None, 3, [], object()])
def test_what_is_no_model(value):
    with pytest.raises(TypeError, match="^model: expected a path, bytes or an onnx.ModelProto, got"):
        fastrnn.from_onnx(value)


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="^node: is empty"):
        fastrnn.from_onnx(b"", [])
    with pytest.raises(TypeError, match="^with_arguments: "):
        fastrnn.from_onnx(b"", with_arguments=2)
    with pytest.raises(FileNotFoundError):
        fastrnn.from_onnx(tmp_path / "none")
    with pytest.raises(ValueError, match="not a file$"):
        fastrnn.from_onnx(tmp_path)
    with pytest.raises(ValueError, match="^node: 1000000 names"):
        fastrnn.from_onnx(b"", ["LSTM_0"] * 10**6)
    fastrnn.to_onnx(fastrnn.RNN(2, 3), tmp_path / "rnn.onnx")
    with pytest.raises(ValueError, match=r"called 'x+\.\.\.x+'; there are: 'RNN_0'$"):
        fastrnn.from_onnx(tmp_path / "rnn.onnx", "x" * 10**6)
    with pytest.raises(ValueError, match="^model: has a null character"):
        fastrnn.from_onnx("a\0b")
    with pytest.raises(ValueError, match="^model: is empty"):
        fastrnn.from_onnx("")
    with pytest.raises(ValueError, match="^model: damaged, or not an ONNX model: it has no graph"):
        fastrnn.from_onnx(b"")
    (tmp_path / "text").write_bytes(b"neither here nor there")
    with pytest.raises(ValueError, match=f"^{tmp_path / 'text'}: damaged, or not an ONNX model: "):
        fastrnn.from_onnx(tmp_path / "text")


def test_without_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name, use in (
        ("from_onnx", lambda: fastrnn.from_onnx(b"")),
        ("to_onnx", lambda: fastrnn.to_onnx(fastrnn.RNN(1, 1), tmp_path / "x")),
    ):
        with pytest.raises(
            ImportError, match=rf"^fastrnn.{name} needs the package onnx: pip install 'fastrnn\[onnx\]'$"
        ):
            use()
    assert not list(tmp_path.iterdir())


def test_the_import_leaves_onnx_alone():
    code = "import sys, fastrnn; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# Stacks


def stack(kind, D, layers=3, join=None, seed=0, **attributes):
    """A model of some layers, and the arrays of each; `join` makes the nodes between two of them."""
    join = join or joining(D)
    nodes, constants, all_arrays = [], {}, []
    attributes = {"direction": "bidirectional" if D == 2 else "forward"} | attributes
    for k in range(layers):
        arrays = arrays_of(kind, D, seed + k, I=D * H if k else I)
        node = node_of(kind, arrays, f"layer_{k}", f"l{k}_", **attributes)
        node.input[0] = f"x{k}" if k else "X"
        nodes.append(node)
        constants |= {f"l{k}_{name}": arrays[name] for name in ("W", "R", "B")}
        all_arrays.append(arrays)
        if k < layers - 1:
            nodes += join(f"l{k}_Y", f"x{k + 1}")
    return model_of(nodes, constants, outputs=[f"l{layers - 1}_Y", "l0_Y_h"]), all_arrays


def joining(D):
    if D == 1:
        return lambda y, x: [ints(f"{x}_a", 1), helper.make_node("Squeeze", [y, f"{x}_a"], [x])]
    return lambda y, x: [
        helper.make_node("Transpose", [y], [f"{x}_t"], perm=[0, 2, 1, 3]),
        ints(f"{x}_s", 0, 0, -1),
        helper.make_node("Reshape", [f"{x}_t", f"{x}_s"], [x]),
    ]


def reshaped(*shape, perm=(0, 2, 1, 3), **attributes):
    return lambda y, x: [
        helper.make_node("Transpose", [y], [f"{x}_t"], perm=perm),
        ints(f"{x}_s", *shape),
        helper.make_node("Reshape", [f"{x}_t", f"{x}_s"], [x], **attributes),
    ]


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("kind", GATES)
def test_a_stack_is_one_layer(kind, D):
    model, all_arrays = stack(kind, D)
    layer = fastrnn.from_onnx(model)
    assert (layer.num_layers, layer.bidirectional) == (3, D == 2)
    expected = run(model, X=all_arrays[0]["X"])
    output, state_n = layer(all_arrays[0]["X"])
    assert_close(output, joined(expected["l2_Y"]))
    assert_close(members(state_n)[0][:D], expected["l0_Y_h"])
    names = ["layer_0", "l1_Y", "layer_2"]
    assert fastrnn.from_onnx(model, names).params == layer.params
    assert fastrnn.from_onnx(model, names[:2]).num_layers == 2
    assert fastrnn.from_onnx(model, "layer_1").input_size == D * H
    with pytest.raises(ValueError, match="node 'layer_2': X: expected Y of 'layer_0', but it comes from 'layer_1'"):
        fastrnn.from_onnx(model, ["layer_0", "layer_2"])
    with pytest.raises(ValueError, match="node 'layer_0': X: expected Y of 'layer_1', but it comes from 'X'"):
        fastrnn.from_onnx(model, ["layer_1", "layer_0"])


def through(*operators):
    """Identity, Dropout and Cast between two layers of one direction, and the squeeze at one place."""

    def join(y, x):
        nodes = joining(1)(y, f"{x}_0")
        for k, (operator, attributes) in enumerate(operators):
            nodes.append(helper.make_node(operator, [f"{x}_{k}"], [f"{x}_{k + 1}"], **attributes))
        nodes[-1].output[0] = x
        return nodes

    return join


def side_by_side(slices=((0, 1), (1, 2)), axis=1, squeezed=1, at=2, steps=(1, 1), perms=((0, 1, 2),) * 2, cut=None):
    """The two directions as tf2onnx joins them: a Slice and a Squeeze of each, and a Concat."""

    def join(y, x):
        nodes = [ints(f"{x}_axes", axis), ints(f"{x}_squeezed", squeezed)]
        for d, (start, end) in enumerate(slices):
            nodes += [ints(f"{x}_start{d}", start), ints(f"{x}_end{d}", end), ints(f"{x}_step{d}", steps[d])]
            inputs = [(cut or (y, y))[d], f"{x}_start{d}", f"{x}_end{d}", f"{x}_axes", f"{x}_step{d}"]
            nodes.append(helper.make_node("Slice", inputs, [f"{x}_slice{d}"]))
            nodes.append(helper.make_node("Squeeze", [f"{x}_slice{d}", f"{x}_squeezed"], [f"{x}_squeeze{d}"]))
            nodes.append(helper.make_node("Transpose", [f"{x}_squeeze{d}"], [f"{x}_part{d}"], perm=perms[d]))
        return [*nodes, helper.make_node("Concat", [f"{x}_part0", f"{x}_part1"], [x], axis=at)]

    return join


def computed(*parts):
    """A Reshape to a shape that is computed from that of Y: of each dimension the axes of which it is the product."""

    def join(y, x):
        nodes = [
            helper.make_node("Transpose", [y], [f"{x}_t"], perm=[0, 2, 1, 3]),
            helper.make_node("Shape", [f"{x}_t"], [f"{x}_s"]),
            ints(f"{x}_flat", -1),
        ]
        names = []
        for part in parts:
            factors = []
            for k in part if isinstance(part, tuple) else (part,):
                factors.append(f"{x}_{part}_{k}")
                if k % 2:
                    nodes += [
                        ints(f"{x}_{part}_{k}_i", k),
                        helper.make_node("Gather", [f"{x}_s", f"{x}_{part}_{k}_i"], factors[-1:]),
                    ]
                else:
                    nodes += [
                        ints(f"{x}_{part}_{k}_i", k),
                        ints(f"{x}_{part}_{k}_j", k + 1),
                        helper.make_node("Slice", [f"{x}_s", f"{x}_{part}_{k}_i", f"{x}_{part}_{k}_j"], factors[-1:]),
                    ]
            names.append(factors[0])
            if len(factors) == 2:
                names[-1] = f"{x}_{part}"
                nodes += [
                    helper.make_node("Mul", factors, [f"{x}_{part}_p"]),
                    helper.make_node("Reshape", [f"{x}_{part}_p", f"{x}_flat"], names[-1:]),
                ]
        nodes.append(helper.make_node("Concat", names, [f"{x}_c"], axis=0))
        return [*nodes, helper.make_node("Reshape", [f"{x}_t", f"{x}_c"], [x])]

    return join


RIGHT = {
    "a shape from that of Y": (2, computed(0, 1, (2, 3))),
    "a shape from that of Y, of one direction": (1, computed(0, 1, (2, 3))),
    "0, 0, -1": (2, reshaped(0, 0, -1)),
    "0, 0, 12": (2, reshaped(0, 0, 2 * H)),
    "0, -1, 12": (2, reshaped(0, -1, 2 * H)),
    "-1, 0, 12 of (B, T, D, H)": (
        2,
        lambda y, x: [
            *reshaped(0, 0, -1, perm=(2, 0, 1, 3))(y, f"{x}_b"),
            helper.make_node("Transpose", [f"{x}_b"], [x], perm=[1, 0, 2]),
        ],
    ),
    "0, 0, -1 of one direction": (1, reshaped(0, 0, -1)),
    "0, 0, 6 of one direction": (1, reshaped(0, 0, H)),
    "of one direction, without a transpose": (
        1,
        lambda y, x: [ints(f"{x}_s", 0, -1, H), helper.make_node("Reshape", [y, f"{x}_s"], [x])],
    ),
    "directions that are cut out": (2, side_by_side()),
    "directions that are cut out from the end": (2, side_by_side(((-2, -1), (-1, 2**62)), axis=-3, at=-1)),
    "directions that are cut out in large steps": (2, side_by_side(((0, 2), (1, 2)), steps=(2, 2))),
    "directions that are cut out of (T, B, D, H)": (
        2,
        lambda y, x: [
            helper.make_node("Transpose", [y], [f"{x}_t"], perm=[0, 2, 1, 3]),
            *side_by_side(axis=2, squeezed=2)(f"{x}_t", x),
        ],
    ),
    "directions that are cut out and transposed": (
        2,
        lambda y, x: [
            *side_by_side(perms=((1, 0, 2),) * 2)(y, f"{x}_b"),
            helper.make_node("Transpose", [f"{x}_b"], [x], perm=[1, 0, 2]),
        ],
    ),
    "Identity": (1, through(("Identity", {}), ("Identity", {}))),
    "Dropout": (1, through(("Dropout", {}))),
    "Cast": (1, through(("Cast", {"to": TensorProto.FLOAT}))),
}
WRONG = {
    "directions not side by side": (2, reshaped(0, -1, 2 * H, perm=(0, 1, 2, 3)), "does not keep the axes|comes as"),
    "hidden units first": (
        2,
        reshaped(0, 0, -1, perm=(0, 2, 3, 1)),
        r"comes as \(T, B, H\*D\), expected \(T, B, D\*H\)",
    ),
    "steps and sequences swapped": (2, reshaped(0, 0, -1, perm=(2, 0, 1, 3)), r"comes as \(B, T, D\*H\)"),
    "sizes of T and B": (2, reshaped(T, B, 2 * H), "Reshape 'x1' does not keep the axes: .* to an axis of 5"),
    "a size for T": (2, reshaped(T, -1, 2 * H), "Reshape 'x1' does not keep the axes: .* to an axis of 5"),
    "a squeeze of sequences": (
        1,
        lambda y, x: [ints(f"{x}_a", 2), helper.make_node("Squeeze", [y, f"{x}_a"], [x])],
        "Squeeze 'x1' does not",
    ),
    "a squeeze of all ones": (
        1,
        lambda y, x: [helper.make_node("Squeeze", [y], [x])],
        "Squeeze 'x1' does not keep the axes: axes .. of",
    ),
    "a computed shape": (
        2,
        lambda y, x: [
            helper.make_node("Shape", [y], [f"{x}_s"]),
            helper.make_node("Abs", [f"{x}_s"], [f"{x}_u"]),
            helper.make_node("Reshape", [y, f"{x}_u"], [x]),
        ],
        "the shape 'x1_u' is computed by Abs 'x1_u'",
    ),
    "the shape of X": (
        2,
        lambda y, x: [helper.make_node("Shape", ["X"], [f"{x}_s"]), helper.make_node("Reshape", [y, f"{x}_s"], [x])],
        "the shape 'x1_s' is that of 'X'",
    ),
    "the shape of Y with two axes swapped": (2, computed((0, 2), (1,), 3), "Reshape 'x1' does not keep the axes: "),
    "another operator": (1, through(("Relu", {})), "it comes from Relu 'x1'|do not take the output of another"),
    "a rounding": (
        1,
        through(("Cast", {"to": TensorProto.FLOAT16}), ("Cast", {"to": TensorProto.FLOAT})),
        "Cast 'x1_1' does not keep the axes: to float16",
    ),
    "the backward direction first": (2, side_by_side(((1, 2), (0, 1))), "Slice 'x1_slice0' of .* is not the forward"),
    "the forward direction twice": (2, side_by_side(((0, 1), (0, 1))), "Slice 'x1_slice1' of .* not the backward"),
    "steps that are cut out": (2, side_by_side(axis=0), r"Slice 'x1_slice0' of \(T, D, B, H\) is not the forward"),
    "a direction of both": (2, side_by_side(((0, 2), (1, 2))), "Slice 'x1_slice0' of .* is not the forward"),
    "directions after each other": (2, side_by_side(at=0), r"\(T, B, H\) and \(T, B, H\) on axis 0"),
    "one direction transposed": (2, side_by_side(perms=((0, 1, 2), (1, 0, 2))), r"\(T, B, H\) and \(B, T, H\) on"),
    "sequences squeezed": (2, side_by_side(squeezed=2), "Concat 'x1' does not keep the axes: axes .2. of"),
    "directions of two values": (2, side_by_side(cut=("l0_Y", "X")), "X of the other comes from Concat 'x1'"),
    "zeros that stay": (2, reshaped(0, 0, 2 * H, allowzero=1), "allowzero"),
}


@pytest.mark.parametrize("way", RIGHT)
def test_ways_to_join_layers(way):
    D, join = RIGHT[way]
    model, all_arrays = stack("GRU", D, 2, join)
    layer = fastrnn.from_onnx(model)
    assert layer.num_layers == 2
    assert_close(layer(all_arrays[0]["X"])[0], joined(run(model, X=all_arrays[0]["X"])["l1_Y"]))


@pytest.mark.parametrize("way", WRONG)
def test_what_does_not_join_layers_is_refused(way):
    D, join, message = WRONG[way]
    model, _ = stack("GRU", D, 2, join)
    with pytest.raises(
        ValueError, match="^model: 2 recurrent nodes: 'layer_0', 'layer_1'; they are not one stack"
    ) as raised:
        fastrnn.from_onnx(model)
    assert raised.match(message)
    with pytest.raises(ValueError, match="^model: node 'layer_1': X: "):
        fastrnn.from_onnx(model, ["layer_0", "layer_1"])
    assert fastrnn.from_onnx(model, "layer_0").num_layers == 1


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize(("T", "B"), [(5, 3), (3, 3), (1, 3), (3, 1), (1, 1), (5, None), (None, 3)])
@pytest.mark.parametrize("stated", ["X", "Y"])
def test_joins_for_one_size_alone(D, T, B, stated):
    """As torch writes models of fixed sizes: the Reshape has them, and the model states them."""
    model, all_arrays = stack("GRU", D, 2, reshaped(T or -1, B or -1, D * H))
    with pytest.raises(ValueError, match="node 'layer_1': X: Reshape 'x1' does not keep the axes: .* to an axis of"):
        fastrnn.from_onnx(model)
    if stated == "X":
        model.graph.input[0].CopyFrom(info("X", shape=[T, B, I]))
    else:
        model.graph.value_info.append(info("l0_Y", shape=[T, D, B, H]))
    layer = fastrnn.from_onnx(model)
    x = np.resize(all_arrays[0]["X"], (T or 4, B or 4, I))
    assert_close(layer(x)[0], joined(run(model, X=x)["l1_Y"]))
    # Two sizes that are stated the other way round.
    if T != B:
        model.graph.input[0].CopyFrom(info("X", shape=[B, T, I]))
        del model.graph.value_info[:]
        with pytest.raises(ValueError, match="node 'layer_1': X: "):
            fastrnn.from_onnx(model)


def test_dropout_in_training_is_no_inference():
    def join(y, x):
        nodes = joining(1)(y, f"{x}_0")
        return [*nodes, constant("ratio", np.float32(0.5)), constant("training", np.array(True)),
                helper.make_node("Dropout", [f"{x}_0", "ratio", "training"], [x])]  # fmt: skip

    model, _ = stack("RNN", 1, 2, join)
    with pytest.raises(ValueError, match="Dropout 'x1' does not keep the axes: in training"):
        fastrnn.from_onnx(model)


@pytest.mark.parametrize(
    ("attribute", "value"), [("clip", 2.0), ("linear_before_reset", 1), ("direction", "reverse"), ("layout", 1)]
)
def test_layers_of_a_stack_have_the_same_attributes(attribute, value):
    model, _ = stack("GRU", 1, 2, direction="forward")
    node = [node for node in model.graph.node if node.name == "layer_1"][0]
    for one in [one for one in node.attribute if one.name == attribute]:
        node.attribute.remove(one)
    node.attribute.append(helper.make_attribute(attribute, value))
    names = {"linear_before_reset": "reset_after", "direction": "reverse", "layout": "batch_first"}
    with pytest.raises(ValueError, match=f"{names.get(attribute, attribute)}: not the same as of 'layer_0'"):
        fastrnn.from_onnx(model)


def test_kinds_and_sizes_of_a_stack():
    model, _ = stack("GRU", 1, 2)
    other = arrays_of("RNN", I=H)
    node = [node for node in model.graph.node if node.name == "layer_1"][0]
    node.op_type = "RNN"
    for tensor in model.graph.initializer:
        if tensor.name.startswith("l1_"):
            tensor.CopyFrom(numpy_helper.from_array(other[tensor.name[3:]], tensor.name))
    with pytest.raises(ValueError, match="operator: not the same as of 'layer_0'"):
        fastrnn.from_onnx(model)


def test_layers_of_a_stack_without_biases():
    model, all_arrays = stack("LSTM", 1, 2)
    node = [node for node in model.graph.node if node.name == "layer_0"][0]
    del node.input[3:]
    layer = fastrnn.from_onnx(model)
    assert layer.bias and not layer.params["bias_ih_l0"].any() and layer.params["bias_ih_l1"].all()
    assert_close(layer(all_arrays[0]["X"])[0], joined(run(model, X=all_arrays[0]["X"])["l1_Y"]))


def test_lengths_and_states_of_a_stack():
    model, all_arrays = stack("LSTM", 1, 2)
    lengths = np.array([2, 5, 1], np.int32)
    h_0 = draw(np.random.default_rng(9), 1, B, H)
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input.extend(["lengths", "h_0" if node.name == "layer_1" else ""])
    model.graph.initializer.extend([numpy_helper.from_array(lengths, "lengths"), numpy_helper.from_array(h_0, "h_0")])
    with pytest.raises(
        ValueError, match="node 'layer_0': sequence_lens: is a constant; with_arguments=True returns it"
    ):
        fastrnn.from_onnx(model)
    layer, arguments = fastrnn.from_onnx(model, with_arguments=True)
    np.testing.assert_array_equal(arguments["lengths"], lengths)
    state_h, state_c = arguments["state"]
    assert state_h.shape == (2, B, H) and not state_h[0].any() and state_c is None
    assert_close(layer(all_arrays[0]["X"], **arguments)[0], joined(run(model, X=all_arrays[0]["X"])["l1_Y"]))
    # Lengths of one layer alone are no lengths of the stack.
    node = [node for node in model.graph.node if node.name == "layer_0"][0]
    node.input[4] = ""
    with pytest.raises(ValueError, match="sequence_lens: not the same as of 'layer_0'"):
        fastrnn.from_onnx(model, with_arguments=True)


def test_zeros_are_no_arguments():
    arrays = arrays_of("LSTM", initial_h=True, initial_c=True)
    zeros = {name: np.zeros_like(arrays[name]) for name in ("initial_h", "initial_c")}
    layer, arguments = fastrnn.from_onnx(single("LSTM", arrays | zeros, list(arrays)[1:]), with_arguments=True)
    assert arguments == {} and layer.params == fastrnn.from_onnx(single("LSTM", arrays)).params
    with pytest.raises(ValueError, match="node 'net': initial_c: is a constant other than zero; with_arguments=True"):
        fastrnn.from_onnx(single("LSTM", arrays | {"initial_h": zeros["initial_h"]}, list(arrays)[1:]))


def test_states_that_the_model_computes_are_the_callers():
    arrays = arrays_of("GRU")
    before = [
        helper.make_node("ReduceMax", ["X"], ["m"], keepdims=1),
        helper.make_node("Mul", ["m", "ones"], ["initial_h"]),
    ]
    constants = {n: arrays[n] for n in ("W", "R", "B")} | {"ones": np.ones((1, B, H), np.float32)}
    model = model_of([*before, node_of("GRU", arrays | {"initial_h": 0})], constants)
    layer, arguments = fastrnn.from_onnx(model, with_arguments=True)
    assert arguments == {}
    given = arrays | {"initial_h": np.full((1, B, H), arrays["X"].max())}
    assert_as_runtime("GRU", given, model, fastrnn.from_onnx(model))


def for_the_batch(value, *slices):
    """Nodes that compute initial_h (1, B, H): a value expanded to the batch of X, and cut."""
    expanded = "expanded" if slices else "initial_h"
    nodes = [
        ints("one", 1), ints("layers", 2 if slices else 1), ints("units", H),
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["batch"]),
        helper.make_node("Concat", ["layers", "batch", "units"], ["sizes"], axis=0),
        helper.make_node("Expand", ["value", "sizes"], [expanded]),
    ]  # fmt: skip
    if slices:
        nodes += [ints(name, n) for name, n in zip(("start", "end", "axis"), slices)]
        nodes.append(helper.make_node("Slice", ["expanded", "start", "end", "axis"], ["initial_h"]))
    return nodes, {"value": np.asarray(value, np.float32)}


LEARNED = draw(np.random.default_rng(5), 2, 1, H)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (for_the_batch(0.0), None),
        (for_the_batch(0.0, 1, 2, 0), None),
        (for_the_batch(np.zeros((1, 1, H))), None),
        (for_the_batch(0.5), np.full((1, 1, H), 0.5)),
        (for_the_batch(LEARNED[:1]), LEARNED[:1]),
        (for_the_batch(LEARNED, 1, 2, 0), LEARNED[1:]),
        (for_the_batch(LEARNED, -2, -1, -3), LEARNED[:1]),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_learned_states_for_any_batch(nodes, expected, batch):
    """A constant that is expanded to the batch is a state of one sequence for all."""
    before, constants = nodes
    arrays = arrays_of("GRU")
    constants = constants | {n: arrays[n] for n in ("W", "R", "B")}
    model = model_of([*before, node_of("GRU", arrays | {"initial_h": 0})], constants)
    layer, arguments = fastrnn.from_onnx(model, with_arguments=True)
    assert list(arguments) == ([] if expected is None else ["state"])
    if expected is not None:
        np.testing.assert_array_equal(arguments["state"], expected.astype(np.float32))
        with pytest.raises(ValueError, match="^model: node 'net': initial_h: is a constant other than zero; with_arg"):
            fastrnn.from_onnx(model)
    x = np.resize(arrays["X"], (T, batch, I))
    assert_close(layer(x, **arguments)[0], joined(run(model, X=x)["Y"]))


def test_states_for_any_batch_with_layout_1():
    arrays = arrays_of("GRU")
    x = arrays["X"].transpose(1, 0, 2)
    nodes = [
        helper.make_node("Shape", ["X"], ["shape"]), ints("zero", 0), ints("rest", 1, H),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["sizes"], axis=0),
        helper.make_node("Expand", ["value", "sizes"], ["initial_h"]),
    ]  # fmt: skip
    constants = {n: arrays[n] for n in ("W", "R", "B")} | {"value": LEARNED[:1]}
    model = model_of([*nodes, node_of("GRU", arrays | {"initial_h": 0}, layout=1)], constants)
    layer, arguments = fastrnn.from_onnx(model, with_arguments=True)
    np.testing.assert_array_equal(arguments["state"], LEARNED[:1])
    given = arrays | {"initial_h": np.repeat(LEARNED[:1], B, axis=1)}
    (expected,) = run(
        model_of([node_of("GRU", given)], {n: a for n, a in given.items() if n != "X"}), X=arrays["X"]
    ).values()
    assert_close(layer(x, **arguments)[0].transpose(1, 0, 2), joined(expected))


# Models of torch


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False}, {"batch_first": True}])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.filterwarnings("ignore")
def test_models_that_torch_has_written(tmp_path, kind, num_layers, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, num_layers, **options).eval()
    path = tmp_path / "net.onnx"
    x = torch.rand(T, B, I)
    steps = 1 if options.get("batch_first") else 0
    torch.onnx.export(
        module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {steps: "T", 1 - steps: "B"}}
    )
    layer = fastrnn.from_onnx(path)
    options.pop("batch_first", None)  # torch transposes x before the node
    expected = getattr(fastrnn, kind)(I, H, num_layers, **options)
    expected.load_state_dict(module.state_dict())
    assert repr(layer) == repr(expected) and layer.params == expected.params


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_models_of_the_newer_exporter_of_torch(tmp_path, dynamic):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, H, 2, bidirectional=True, batch_first=True).eval()
    path = tmp_path / "net.onnx"
    shapes = ({0: "B"},) if dynamic else None
    torch.onnx.export(module, (torch.rand(B, T, I),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    layer = fastrnn.from_onnx(path)
    expected = fastrnn.LSTM(I, H, 2, bidirectional=True)
    expected.load_state_dict(module.state_dict())
    assert repr(layer) == repr(expected) and layer.params == expected.params


# Refusals


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "activations: g and h are different, Tanh and Relu"),
        ("LSTM", {"activations": ["Tanh", "Tanh", "Tanh"]}, "activations: 'Tanh' for the gates is not supported"),
        ("LSTM", {"activations": ["Sigmoid", "Softsign", "Tanh"]}, "activations: 'Softsign' for the new values is not"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh"]}, "activations: expected 3 names for direction and cell, got"),
        ("GRU", {"activations": ["Sigmoid", "Affine"], "activation_alpha": [1.0]}, "activations: 'Affine' for the new"),
        (
            "GRU",
            {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.25]},
            "activation_.*: HardSigmoid with 0.25 and 0.5 is",
        ),
        (
            "GRU",
            {"activations": ["HardSigmoid", "Tanh"], "activation_beta": [0.6]},
            "activation_.*: HardSigmoid with 0.2 and 0.6.* is",
        ),
        (
            "GRU",
            {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.2] * 3},
            "activation_alpha: 3 values for 1",
        ),
        ("RNN", {"activations": ["Softsign"]}, "activations: 'Softsign' for the output is not supported"),
        ("RNN", {"direction": "backward"}, "direction: expected forward, reverse, bidirectional, got 'backward'"),
        ("RNN", {"clip": 0.0}, "clip: expected a positive finite number, got 0.0"),
        ("RNN", {"clip": -1.0}, "clip: expected a positive finite number, got -1.0"),
        ("RNN", {"clip": float("inf")}, "clip: expected a positive finite number, got inf"),
        ("RNN", {"clip": 1}, "clip: has the wrong type"),
        ("RNN", {"layout": 2}, "layout: expected 0 or 1, got 2"),
        ("GRU", {"linear_before_reset": -1}, "linear_before_reset: expected 0 or 1, got -1"),
        ("LSTM", {"input_forget": 2}, "input_forget: expected 0 or 1, got 2"),
        ("GRU", {"input_forget": 1}, "'input_forget': GRU of opset 14 has no such attribute"),
        ("LSTM", {"hidden_size": 7}, r"W: expected \(1, 28, 4\), of hidden_size 7 and 1 direction, got \(1, 24, 4\)"),
        ("LSTM", {"hidden_size": 0}, "hidden_size: expected at least 1, got 0"),
        ("LSTM", {"hidden_size": 2**62}, "W: expected"),
        ("LSTM", {"direction": "bidirectional"}, r"W: expected \(2, 24, 4\), of hidden_size 6 and 2 directions, got"),
    ],
)
def test_attributes_that_are_refused(kind, attributes, message):
    with pytest.raises(ValueError, match=f"^model: node 'net': {message}"):
        fastrnn.from_onnx(single(kind, ARRAYS[kind], **attributes))


def test_both_directions_have_the_same_activations():
    arrays = arrays_of("LSTM", 2)
    names = ["Sigmoid", "Tanh", "Tanh", "HardSigmoid", "Tanh", "Tanh"]
    with pytest.raises(ValueError, match="net': activations: the directions have different ones, 'Sigmoid', "):
        fastrnn.from_onnx(single("LSTM", arrays, direction="bidirectional", activations=names))
    names[0] = "HardSigmoid"
    values = {"activation_alpha": [0.2, 1 / 6], "activation_beta": [0.5, 0.5]}
    with pytest.raises(ValueError, match="net': activations: the directions have different ones"):
        fastrnn.from_onnx(single("LSTM", arrays, direction="bidirectional", activations=names, **values))
    # A value for each activation: read one way, the second direction has another alpha than read the other way.
    values = {"activation_alpha": [0.2, 0.0, 0.0, 0.2, 0.0, 0.0]}
    with pytest.raises(ValueError, match="net': activation_alpha: 6 values for 2 HardSigmoid among 6 activations"):
        fastrnn.from_onnx(single("LSTM", arrays, direction="bidirectional", activations=names, **values))
    values = {"activation_alpha": [0.2] * 6, "activation_beta": [0.5] * 6}
    layer = fastrnn.from_onnx(single("LSTM", arrays, direction="bidirectional", activations=names, **values))
    assert layer.recurrent_activation == "hard_sigmoid_fifth"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"W": np.zeros((1, 24, 0), np.float32)}, "W: has no columns"),
        ({"W": np.zeros((24, 4), np.float32)}, r"W: expected \(1, 24, input_size\), .* got \(24, 4\)"),
        ({"R": np.zeros((1, 24, 5), np.float32)}, r"R: expected \(1, 24, 6\), .* got \(1, 24, 5\)"),
        ({"R": np.zeros((1, 24, 6))}, "R: expected float32 as W is, got float64"),
        ({"B": np.zeros((1, 24), np.float32)}, r"B: expected \(1, 48\), .* got \(1, 24\)"),
        ({"P": np.zeros((1, 24), np.float32)}, r"P: expected \(1, 18\), .* got \(1, 24\)"),
        (
            {name: np.zeros_like(ARRAYS["LSTM"][name], np.int32) for name in ("W", "R", "B")},
            "W: expected floating-point",
        ),
        ({"initial_h": np.ones((2, B, H), np.float32)}, r"initial_h: expected \(1, B, 6\), got \(2, 3, 6\)"),
        ({"initial_c": np.ones((1, B, 5), np.float32)}, r"initial_c: expected \(1, B, 6\), got \(1, 3, 5\)"),
        ({"sequence_lens": np.array([1, -1], np.int32)}, r"sequence_lens: expected \(B,\) of integers of at least 0"),
    ],
)
def test_arrays_that_are_refused(changed, message):
    arrays = ARRAYS["LSTM"] | changed
    arrays = {name: arrays[name] for name in INPUTS if name in arrays}
    node = node_of("LSTM", arrays, hidden_size=H)
    constants = {name: array for name, array in arrays.items() if name != "X"}
    with pytest.raises(ValueError, match=f"^model: node 'net': {message}"):
        fastrnn.from_onnx(model_of([node], constants))


def test_models_that_are_refused():
    model = single("GRU", ARRAYS["GRU"])
    for versions, message in (
        ([], "got none"),
        ([14, 15], r"got versions \[14, 15\]"),
        ([99], "version 99"),
        ([0], "n 0"),
    ):
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", version) for version in versions])
        with pytest.raises(ValueError, match=f"^model: opset_import: .*{message}"):
            fastrnn.from_onnx(model)
    model = single("GRU", ARRAYS["GRU"])
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(ValueError, match="^model: 'W': is defined twice"):
        fastrnn.from_onnx(model)
    model = single("GRU", ARRAYS["GRU"])
    model.graph.node[0].input[2] = "nowhere"
    with pytest.raises(ValueError, match="^model: node 'net': R: 'nowhere': is not defined in the graph"):
        fastrnn.from_onnx(model)
    del model.graph.node[0].input[2:]
    with pytest.raises(ValueError, match="^model: node 'net': R: missing"):
        fastrnn.from_onnx(model)
    model = single("GRU", ARRAYS["GRU"])
    model.graph.node[0].input.extend(["", "", "W"])
    with pytest.raises(ValueError, match="^model: node 'net': input 'W': GRU has no input number 7"):
        fastrnn.from_onnx(model)


# Export


@st.composite
def exportable(draw_one):
    """A layer that ONNX expresses."""
    cls = draw_one(st.sampled_from([fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN]))
    options = {
        "num_layers": draw_one(st.integers(1, 3)),
        "bias": draw_one(st.booleans()),
        "batch_first": draw_one(st.booleans()),
        "clip": draw_one(st.sampled_from([None, 0.6, 3.0])),
        draw_one(st.sampled_from(["bidirectional", "reverse"])): draw_one(st.booleans()),
    }
    if cls is fastrnn.RNN:
        options["nonlinearity"] = draw_one(st.sampled_from(["tanh", "relu", "sigmoid"]))
    else:
        gates = ["sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"]
        options["recurrent_activation"] = draw_one(st.sampled_from(gates))
        options["activation"] = draw_one(st.sampled_from(["tanh", "relu"]))
    if cls is fastrnn.LSTM:
        options["peephole"] = draw_one(st.booleans())
    if cls is fastrnn.GRU:
        options["reset_after"] = draw_one(st.booleans())
    sizes = draw_one(st.sampled_from([1, 2, 5])), draw_one(st.sampled_from([1, 3, 6]))
    return cls(*sizes, **options, rng=draw_one(st.integers(0, 99)))


@settings(max_examples=100 * DEPTH)
@given(exportable(), st.booleans(), st.booleans(), st.integers(1, 4), st.integers(1, 5))
def test_exported_models(tmp_path_factory, layer, state, lengths, B, T):
    path = tmp_path_factory.mktemp("model") / "layer.onnx"
    assert fastrnn.to_onnx(layer, path, state=state, lengths=lengths) is None
    onnx.checker.check_model(path, full_check=True)
    other = fastrnn.from_onnx(path)
    assert repr(other) == repr(layer)
    assert other.params.flat.tobytes() == layer.params.flat.tobytes()

    rng = np.random.default_rng(0)
    inputs = {"x": draw(rng, *((B, T) if layer.batch_first else (T, B)), layer.input_size)}
    given_state = given_lengths = None
    D = 1 + layer.bidirectional
    if state:
        names = ["h_0", "c_0"][: 2 if isinstance(layer, fastrnn.LSTM) else 1]
        inputs |= {name: draw(rng, layer.num_layers * D, B, layer.hidden_size) for name in names}
        given_state = tuple(inputs[name] for name in names) if len(names) == 2 else inputs["h_0"]
    if lengths:
        inputs["lengths"] = given_lengths = rng.integers(1, T, B, endpoint=True).astype(np.int32)
    expected = run(path.read_bytes(), **inputs)
    output, state_n = layer(inputs["x"], given_state, given_lengths)
    found = dict(zip(("output", "h_n", "c_n"), (output, *members(state_n))))
    assert list(expected) == list(found)
    for name, array in found.items():
        assert_close(expected[name], array)


def test_dropout_is_not_in_the_model(tmp_path):
    path = tmp_path / "layer.onnx"
    layer = fastrnn.GRU(I, H, 2, dropout=0.5, rng=0)
    fastrnn.to_onnx(layer, path)
    other = fastrnn.from_onnx(path)
    assert other.dropout == 0 and other.params == layer.params


def test_what_onnx_does_not_have_is_refused(tmp_path):
    path = tmp_path / "layer.onnx"
    for layer in (fastrnn.SLSTM(2, 3), fastrnn.UGRNN(2, 3), fastrnn.LSTMCell(2, 3), None, fastrnn.LSTM):
        with pytest.raises(TypeError, match="^layer: expected LSTM, GRU or RNN, which ONNX has, got "):
            fastrnn.to_onnx(layer, path)
    for layer, message in (
        (fastrnn.LSTM(2, 3, proj_size=2), "layer: proj_size=2, and ONNX's LSTM has no projection"),
        (fastrnn.GRU(2, 3, dtype=np.float64), "layer: is float64, which ONNX Runtime does not run; make it float32"),
        (fastrnn.GRU(2, 3, clip=1e-50), "layer: clip=1e-50 is 0 in float32"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            fastrnn.to_onnx(layer, path)
    with pytest.raises(TypeError, match="^state: "):
        fastrnn.to_onnx(fastrnn.RNN(2, 3), path, state=2)
    with pytest.raises(TypeError, match="^path: "):
        fastrnn.to_onnx(fastrnn.RNN(2, 3), 3)
    assert not list(tmp_path.iterdir())


def test_float64_is_what_onnx_runtime_does_not_run():
    """If this fails, `to_onnx` may write layers of float64."""
    pytest.importorskip("onnxruntime")
    arrays = {name: array.astype(np.float64) for name, array in ARRAYS["LSTM"].items()}
    model = single("LSTM", arrays)
    for one in (*model.graph.input, *model.graph.output):
        one.type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(Exception, match="LSTM"):
        run(model, X=arrays["X"])


def test_a_clip_beyond_float32(tmp_path):
    fastrnn.to_onnx(fastrnn.RNN(I, H, clip=1e300), tmp_path / "layer.onnx")
    assert np.float32(fastrnn.from_onnx(tmp_path / "layer.onnx").clip) == np.finfo(np.float32).max


def test_models_are_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "layer.onnx"
    fastrnn.to_onnx(fastrnn.RNN(1, 1, rng=0), path)
    before = path.read_bytes()
    fastrnn.to_onnx(fastrnn.RNN(1, 1, rng=0), path)
    assert path.read_bytes() == before

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        fastrnn.to_onnx(fastrnn.RNN(2, 2), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_transpose_of_batch_first_has_to_be_there(tmp_path):
    """A model whose metadata have stayed, but whose first node has another x, has no batch_first."""
    path = tmp_path / "layer.onnx"
    fastrnn.to_onnx(fastrnn.RNN(I, H, batch_first=True), path)
    model = onnx.load(path)
    assert fastrnn.from_onnx(model).batch_first
    assert [node.name for node in model.graph.node][1] == "RNN_0"
    model.graph.node[1].input[0] = "x"
    assert not fastrnn.from_onnx(model).batch_first


# Damaged and hostile files


def outcome(data):
    """A layer, or None if the data are refused with a ValueError that names the model."""
    try:
        return fastrnn.from_onnx(data)
    except ValueError as error:
        assert str(error).startswith("model: ")
        return None


def a_file(tmp_path):
    fastrnn.to_onnx(fastrnn.LSTM(2, 3, 2, bidirectional=True, peephole=True, rng=0), tmp_path / "net.onnx", state=True)
    return (tmp_path / "net.onnx").read_bytes()


def test_truncated_files_are_refused(tmp_path):
    data = a_file(tmp_path)
    assert outcome(data) is not None
    refused = [outcome(data[:n]) is None for n in range(0, len(data), 7)]
    assert all(refused[: len(refused) * 3 // 4])


def test_changed_bytes(tmp_path):
    data = a_file(tmp_path)
    generator = random.Random(0)
    refused = 0
    for _ in range(600 * DEPTH):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(data))] = generator.randrange(256)
        refused += outcome(bytes(changed)) is None
    assert 20 < refused


def test_random_bytes():
    generator = random.Random(0)
    for n in range(200):
        assert outcome(generator.randbytes(n)) is None


HUGE = 2**40


def hostile(nodes, constants=(), opset=14):
    """A model whose W is computed by nodes."""
    arrays = ARRAYS["GRU"]
    return model_of([*nodes, node_of("GRU", arrays)], dict(constants) | {n: arrays[n] for n in ("R", "B")}, opset=opset)


def doubling():
    nodes = [helper.make_node("Concat", [f"w{k}"] * 2, [f"w{k + 1}"], axis=0) for k in range(60)]
    return [*nodes, helper.make_node("Identity", ["w60"], ["W"])]


VECTOR, ONES = {"w": np.ones(4, np.float32)}, {"w": np.ones((1, 300), np.float32), "v": np.ones((300, 1), np.float32)}
HOSTILE = {
    "ConstantOfShape": ([ints("s", HUGE), helper.make_node("ConstantOfShape", ["s"], ["W"])], {}),
    "ConstantOfShape, negative": ([ints("s", -1, -HUGE), helper.make_node("ConstantOfShape", ["s"], ["W"])], {}),
    "Expand": ([ints("s", HUGE, 4), helper.make_node("Expand", ["w", "s"], ["W"])], VECTOR),
    "Concat": (doubling(), {"w0": np.ones(4, np.float32)}),
    "Concat at no axis": ([helper.make_node("Concat", ["w", "w"], ["W"], axis=HUGE)], VECTOR),
    "Gather": (
        [helper.make_node("Gather", [f"w{k}", "i"], [f"w{k + 1}"], axis=0) for k in range(9)]
        + [helper.make_node("Identity", ["w9"], ["W"])],
        {"w0": np.ones(4, np.float32), "i": np.zeros((1000,) * 2, np.int64)},
    ),
    "a product of columns and rows": (
        [
            helper.make_node("Mul", ["w", "v"], ["a"]),
            helper.make_node("Reshape", ["a", "s"], ["b"]),
            ints("s", 1, 90000),
            ints("t", 90000, 1),
            helper.make_node("Reshape", ["a", "t"], ["c"]),
            helper.make_node("Add", ["b", "c"], ["W"]),
        ],
        ONES,
    ),
    "DequantizeLinear": (
        [helper.make_node("DequantizeLinear", ["w", "v"], ["W"])],
        {"w": np.ones((4000, 1), np.int8), "v": np.ones(4000, np.float32)},
    ),
    "DequantizeLinear by blocks": (
        [helper.make_node("DequantizeLinear", ["w", "v"], ["W"], block_size=HUGE, axis=0)],
        {"w": np.ones((4, 1), np.int8), "v": np.ones((4, 1), np.float32)},
    ),
    "Split": ([helper.make_node("Split", ["w"], ["W"], num_outputs=HUGE)], VECTOR),
    "Unsqueeze": ([ints("a", *range(2000)), helper.make_node("Unsqueeze", ["w", "a"], ["W"])], VECTOR),
    "Reshape": ([ints("a", HUGE, -1), helper.make_node("Reshape", ["w", "a"], ["W"])], VECTOR),
    "Transpose": ([helper.make_node("Transpose", ["w"], ["W"], perm=[HUGE])], VECTOR),
    "Cast to strings": ([helper.make_node("Cast", ["w"], ["W"], to=TensorProto.STRING)], VECTOR),
    "Cast to nothing": ([helper.make_node("Cast", ["w"], ["W"])], VECTOR),
    "a cycle": ([helper.make_node("Identity", ["a"], ["W"]), helper.make_node("Identity", ["W"], ["a"])], {}),
    "a graph": ([helper.make_node("Identity", ["w"], ["W"], body=helper.make_graph([], "g", [], []))], VECTOR),
    "too many inputs": ([helper.make_node("Identity", ["w"] * 1000, ["W"])], VECTOR),
    "no inputs": ([helper.make_node("Concat", [], ["W"], axis=0)], {}),
    "too many outputs": ([helper.make_node("Identity", ["w"], ["a", "b", "W"])], VECTOR),
    "strings": ([helper.make_node("Constant", [], ["W"], value_string="text")], {}),
    "two values": ([helper.make_node("Constant", [], ["W"], value_int=1, value_float=2.0)], {}),
    "no value": ([helper.make_node("Constant", [], ["W"])], {}),
}


def memory_of(run_it):
    """The most bytes that Python and NumPy held at a time."""
    tracemalloc.start()
    try:
        run_it()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opset", [14, 22])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_constants(name, opset):
    nodes, constants = HOSTILE[name]
    data = hostile(nodes, constants, opset).SerializeToString()

    def refused():
        with pytest.raises(ValueError, match="^model: node 'net': W: "):
            fastrnn.from_onnx(data)

    assert memory_of(refused) < (1 << 27) + 64 * len(data)


@pytest.mark.parametrize("dims", [[HUGE], [1, 18, HUGE], [-1], [2**62, 2**62], [0, HUGE], [1] * 100, [1, 18, 5], []])
def test_hostile_sizes_of_tensors(dims):
    model = single("GRU", ARRAYS["GRU"])
    tensor = [tensor for tensor in model.graph.initializer if tensor.name == "W"][0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    data = model.SerializeToString()

    def refused():
        with pytest.raises(ValueError, match="^model: node 'net': W: "):
            fastrnn.from_onnx(data)

    assert memory_of(refused) < 1 << 27


@pytest.mark.parametrize(
    "kind", [0, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.INT4, TensorProto.INT64, 99]
)
def test_types_of_tensors(kind):
    model = single("GRU", ARRAYS["GRU"])
    [tensor for tensor in model.graph.initializer if tensor.name == "W"][0].data_type = kind
    with pytest.raises(ValueError, match="^model: node 'net': W: "):
        fastrnn.from_onnx(model)


def test_a_long_chain_is_no_deep_recursion():
    nodes = [helper.make_node("Identity", [f"w{k}"], [f"w{k + 1}"]) for k in range(3000)]
    nodes.append(helper.make_node("Identity", ["w3000"], ["W"]))
    model = hostile(nodes, {"w0": ARRAYS["GRU"]["W"]})
    assert fastrnn.from_onnx(model).params == fastrnn.from_onnx(single("GRU", ARRAYS["GRU"])).params


def test_states_that_double_are_no_long_computation():
    arrays = ARRAYS["GRU"]
    nodes = [helper.make_node("Expand", ["zero", "X"], ["s0"]), helper.make_node("Identity", ["s90"], ["initial_h"])]
    for k in range(90):
        nodes.append(helper.make_node("Identity", [f"s{k}"], [f"t{k}"]))
        nodes.append(helper.make_node("Concat", [f"s{k}", f"t{k}"], [f"s{k + 1}"], axis=0))
    model = model_of(
        [*nodes, node_of("GRU", arrays | {"initial_h": 0})],
        {n: arrays[n] for n in ("W", "R", "B")} | {"zero": np.float32(0)},
    )
    assert fastrnn.from_onnx(model, with_arguments=True)[1] == {}


def test_a_cycle_of_layers():
    nodes = []
    constants = {}
    for a, b in itertools.pairwise("aba"):
        arrays = arrays_of("RNN", I=H)
        node = node_of("RNN", arrays, f"net_{b}", f"{b}_")
        node.input[0] = f"x_{b}"
        nodes += [node, *joining(1)(f"{a}_Y", f"x_{b}")]
        constants |= {f"{b}_{name}": arrays[name] for name in ("W", "R", "B")}
    with pytest.raises(ValueError, match="2 recurrent nodes: 'net_b', 'net_a'; .*each takes the output of another"):
        fastrnn.from_onnx(model_of(nodes, constants, outputs=["a_Y"]))


# Models that are changed


def change(model, generator):
    """One change of a model: another input, operator, attribute, dimension or type."""
    nodes, tensors = list(model.graph.node), list(model.graph.initializer)
    names = [name for node in nodes for name in node.output] + [tensor.name for tensor in tensors] + ["X", ""]
    node, tensor = generator.choice(nodes), generator.choice(tensors)
    numbers = [0, -1, 1, 2, H, 2**40]
    kind = generator.randrange(6)
    if kind == 0 and node.input:
        node.input[generator.randrange(len(node.input))] = generator.choice(names)
    elif kind == 1:
        node.op_type = generator.choice(
            ["LSTM", "GRU", "Identity", "Squeeze", "Reshape", "Transpose", "Slice", "Concat"]
        )
    elif kind == 2 and node.attribute:
        attribute = generator.choice(list(node.attribute))
        if attribute.ints:
            attribute.ints[generator.randrange(len(attribute.ints))] = generator.choice(numbers)
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = generator.choice(numbers)
        elif attribute.t.dims:
            values = numpy_helper.to_array(attribute.t).copy()
            values.flat[generator.randrange(values.size)] = generator.choice(numbers[:5])
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
    elif kind == 3 and tensor.dims:
        tensor.dims[generator.randrange(len(tensor.dims))] = generator.choice(numbers)
    elif kind == 4:
        tensor.data_type = generator.randrange(24)
    elif kind == 5 and node.input:
        del node.input[-1]


@pytest.mark.filterwarnings("ignore")  # of numbers that overflow in the type that a change makes of them
def test_changed_models_are_refused_or_computed():
    """Each is refused with a ValueError, or the layer agrees with the reference implementation, if that runs the model.

    ONNX Runtime may crash on such models.
    """
    from onnx.reference import ReferenceEvaluator

    generator = random.Random(0)
    models = [stack("LSTM", D, 2, join)[0] for D, join in RIGHT.values()]
    for before, constants in behind_operators(ARRAYS["LSTM"]["W"]).values():
        others = {name: ARRAYS["LSTM"][name] for name in ("R", "B")}
        models.append(model_of([*before, node_of("LSTM", ARRAYS["LSTM"])], constants | others))
    x = ARRAYS["LSTM"]["X"]
    refused = compared = 0
    for _ in range(1500 * DEPTH):
        model = onnx.ModelProto()
        model.CopyFrom(generator.choice(models))
        for _ in range(generator.randint(1, 2)):
            change(model, generator)
        layer = outcome(model.SerializeToString())
        if layer is None or layer.input_size != I or layer.batch_first:
            refused += layer is None
            continue
        first, *_, last = [node for node in model.graph.node if node.op_type in GATES] * 2
        if first.input[0] != "X":
            continue
        del model.graph.output[:]
        model.graph.output.append(info(last.output[0]))
        try:
            (expected,) = ReferenceEvaluator(model).run(None, {"X": x})
        except Exception:
            continue  # of any kind: the model is not valid
        compared += 1
        assert_close(layer(x)[0], joined(expected))
    assert refused > 300 and compared > 100
