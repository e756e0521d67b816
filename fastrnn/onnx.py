"""ONNX: layers from the LSTM, GRU and RNN nodes of a model, and models from layers."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from fastrnn._engine.spec import SPECS
from fastrnn._files import path_of, write_atomically
from fastrnn._layouts import variants
from fastrnn._onnx_axes import BETWEEN, Axes, directions
from fastrnn._onnx_graph import (
    DOMAINS,
    Constants,
    Graph,
    Model,
    NotConstant,
    Recurrent,
    import_onnx,
    label,
    listed,
    named_file,
    read_model,
)
from fastrnn._validation import Array, flag, short
from fastrnn._version import __version__
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.layers import Recurrent as Layer
from fastrnn.quantization import Quantized
from fastrnn.weights import from_weights

__all__ = ["from_onnx", "to_onnx"]

GATES = {kind: len(SPECS[kind.lower()].gates) for kind in ("LSTM", "GRU", "RNN")}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

# The names of activations in ONNX, which has no difference of upper and lower case there.
DEFAULT_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
NONLINEARITIES = {"tanh": "Tanh", "relu": "Relu"}
RNN_NONLINEARITIES = NONLINEARITIES | {"sigmoid": "Sigmoid"}

# Where an activation acts, for messages, and those that a layer has there.
PLACES = {
    "gate": ("the gates", ("Sigmoid", "HardSigmoid")),
    "other": ("the new values", ("Tanh", "Relu")),
    "RNN": ("the output", ("Tanh", "Relu", "Sigmoid")),
}
HARD_SIGMOID = (0.2, 0.5)  # alpha and beta by default
HARD_SIGMOIDS = {"hard_sigmoid_fifth": np.float32(0.2), "hard_sigmoid_sixth": np.float32(1 / 6)}  # their alpha

# Operators between two layers, and layers of a stack: at most so many.
MOST_BETWEEN = 64
MOST_LAYERS = 256

# The key of a model's metadata by which `to_onnx` says that the layer has batch_first, and its only value.
BATCH_FIRST = "fastrnn.batch_first", "transposes x"

# A node of ONNX Runtime, for which docs/from-onnx.md has a recipe.
QUANTIZED = "com.microsoft.DynamicQuantizeLSTM"

# The operators that exporters write instead of recurrent nodes, and the remedy.
LOOPS = ("Loop", "Scan")
PRODUCTS = ("MatMul", "Gemm")
ACTIVATIONS = ("Sigmoid", "Tanh")
OTHER_WAYS = (
    "take the weights from the framework with from_state_dict, from_keras or from_weights, or let the exporter write "
    "recurrent nodes (for torch.nn.RNN torch.onnx.export(..., dynamo=False))"
)

OPSET, IR_VERSION = 14, 8
MOST_FILE_BYTES = 2**31 - 2**20  # of a protobuf message, less all but the parameters


@overload
def from_onnx(
    model: Any, node: str | Sequence[str] | None = None, *, with_arguments: Literal[False] = False
) -> LSTM | GRU | RNN: ...


@overload
def from_onnx(
    model: Any, node: str | Sequence[str] | None = None, *, with_arguments: Literal[True]
) -> tuple[LSTM | GRU | RNN, dict[str, Any]]: ...


def from_onnx(model: Any, node: str | Sequence[str] | None = None, *, with_arguments: bool = False) -> Any:
    """A new layer that computes the same as LSTM, GRU or RNN nodes of an ONNX model.

    The layer takes the input X of the (first) node: (T, B, I), or (B, T, I) for a node with layout=1, which becomes
    `batch_first`. Its output is Y of the (last) node with the directions side by side, (T, B, D*H), and its state_n
    Y_h and Y_c.

    Parameters
    ----------
    model : str, os.PathLike, bytes or onnx.ModelProto
        The path of a file, the content of a file, or a model. Nothing in it is executed. Tensors in other files are
        read from the folder of the path, so a model with such tensors needs a path.
    node : str or sequence of str, optional
        A node by its name, by one of its outputs, or by its path, the names of the nodes and attributes around it and
        its own: "If_0/then_branch/LSTM_3". Several nodes become one layer with `num_layers`, if X of each is Y of the
        node before, with the directions side by side. Default: all recurrent nodes of the model: one, or several that
        form such a stack.
    with_arguments : bool, default False
        Whether to return `arguments`, too: the states and lengths that are constants of the model.

    Returns
    -------
    layer : LSTM, GRU or RNN
        float64 if the weights are, else float32, to which float16 and bfloat16 are cast. Dropout between layers is
        ignored, because a model for inference has none.
    arguments : dict, only with `with_arguments`
        ``layer(x, **arguments)`` computes the same as the node: "state" and "lengths", as far as the model has them as
        constants; a state that it repeats for all sequences has one, (num_layers*D, 1, H). States and lengths that are
        inputs of the model, or that it computes from them, are the caller's to give.

    Raises
    ------
    ImportError
        If the package `onnx` is not installed.
    TypeError
        If an argument has the wrong type.
    ValueError
        If the file is damaged, if there is no such node or more than one, if its weights are not constant or their
        shapes do not fit together, if a state or the lengths are constants other than zero without `with_arguments`,
        or if the node is a variant that no layer computes exactly. The message begins with the file and names node
        and input or attribute.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If X of the (first) node is the result of a ReverseSequence, or of a Slice with step -1, over the steps: the
        layer takes the reversed sequences, as the node does.

    See Also
    --------
    to_onnx, from_weights

    Notes
    -----
    The operators and their attributes are those of ONNX's "Operators.md", all versions up to opset 28: `direction`,
    `layout`, `clip`, `linear_before_reset` and `input_forget`; `activations` Sigmoid or HardSigmoid, with alpha 0.2 or
    1/6 and beta 0.5, for the gates, and Tanh or Relu for the rest (of an RNN also Sigmoid), the same in both
    directions. Nodes inside the graphs of If, Loop and Scan are found, too; those inside functions of the model are
    refused.

    Examples
    --------
    >>> import os, tempfile, fastrnn
    >>> layer = fastrnn.GRU(8, 16, num_layers=2, bidirectional=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "gru.onnx")
    ...     fastrnn.to_onnx(layer, path)
    ...     other = fastrnn.from_onnx(path)
    >>> other, other.params == layer.params
    (GRU(8, 16, num_layers=2, bidirectional=True), True)
    """
    with_arguments = flag("with_arguments", with_arguments)
    if node is not None and not isinstance(node, str):
        if not isinstance(node, Sequence) or not all(isinstance(name, str) for name in node):
            raise TypeError(f"node: expected a name or a sequence of names, got {node!r}")
        if not node:
            raise ValueError("node: is empty")
        if len(node) > MOST_LAYERS:
            raise ValueError(f"node: {len(node)} names, where a stack has at most {MOST_LAYERS} layers")
    parsed = read_model(model)
    reader = named_file(parsed.name, lambda: Reader(parsed))
    result = named_file(parsed.name, lambda: reader.layer(node, with_arguments))
    if reader.reversal:
        warnings.warn(f"{parsed.name}: {reader.reversal}", stacklevel=2)
    return result


class Read(NamedTuple):
    """A node as it has been read.

    `options` are those of `from_weights`, `weights` the names W, R, B and P with arrays, `state` the constant initial
    states, (D, B, H) each, None for zeros, or NotConstant; `lengths` the constant (B,), None or NotConstant.
    """

    kind: str
    D: int
    H: int
    options: dict[str, Any]
    weights: dict[str, Array | None]
    state: tuple[Any, ...]
    lengths: Any


class Reader:
    """Reads the recurrent nodes of one model."""

    def __init__(self, model: Model) -> None:
        self.onnx = import_onnx("from_onnx")
        self.model = model
        self.constants = Constants(model)
        self.reversal = ""  # the words of a warning about the input of the layer
        self.producers = {(id(one.graph), name): one for one in model.recurrent for name in one.node.output if name}

    def layer(self, names, with_arguments):
        """The result of `from_onnx`."""
        nodes = (
            self._all() if names is None else [self._called(n) for n in ([names] if isinstance(names, str) else names)]
        )
        read = []
        for one in nodes:
            with named_node(one.path):
                read.append(self._read(one))
                if not with_arguments:
                    self._refuse_constants(read[-1])
        try:
            for before, after, of_before, of_after in zip(nodes, nodes[1:], read, read[1:]):
                with named_node(after.path):
                    self._check_stacked(before, after, of_before, of_after)
        except ValueError as error:
            if names is None:
                raise self._several(error) from error
            raise
        with named_node(nodes[0].path):
            arguments = self._arguments(read)
            layer = self._layer(read, self._is_batch_first(nodes[0]))
            self.reversal = self._reversal(nodes[0], read[0].options["batch_first"])
        return (layer, arguments) if with_arguments else layer

    # Which nodes

    def _all(self) -> list[Recurrent]:
        nodes = self.model.recurrent
        if not nodes:
            raise ValueError(f"no node LSTM, GRU or RNN of ai.onnx{self._and_others()}{self._computed_otherwise()}")
        if len(nodes) == 1:
            return nodes
        try:
            return self._chain(nodes)
        except ValueError as error:
            raise self._several(error) from error

    def _several(self, reason):
        return ValueError(
            f"{len(self.model.recurrent)} recurrent nodes: {self._names()}; they are not one stack of layers "
            f"({reason}); choose with node=..., by name or output: one call for each node makes a layer of each"
        )

    def _called(self, name):
        found = [one for one in self.model.recurrent if one.path == name]
        found = found or [one for one in self.model.recurrent if one.is_called(name)]
        if len(found) == 1:
            return found[0]
        if found:
            outputs = [next(filter(None, one.node.output), "") for one in found]
            paths = listed([one.path for one in found])
            raise ValueError(
                f"node: {short(name)} names {len(found)} nodes: {paths}, with the outputs {listed(outputs)}"
            )
        for path, description in self.model.others.items():
            if name == path or name == path.rpartition("/")[2]:
                raise ValueError(f"node {name!r}: {description} is not supported, but LSTM, GRU and RNN of ai.onnx")
        raise ValueError(f"node: no recurrent node or output is called {short(name)}; there are: {self._names()}")

    def _names(self):
        return (listed([one.path for one in self.model.recurrent]) or "none") + self._and_others()

    def _and_others(self):
        others = [f"{path} ({description})" for path, description in self.model.others.items()]
        quantized = any(description == QUANTIZED for description in self.model.others.values())
        remedy = (
            f"; dequantize W and R of {QUANTIZED} for fastrnn.from_weights(..., layout='onnx')" if quantized else ""
        )
        return f"; not supported: {listed(others)}{remedy}" if others else ""

    def _computed_otherwise(self):
        """The operators that may be a layer in a model without recurrent nodes, and the remedy."""
        operators: Counter[str] = Counter()
        loops = []
        for graph, node in self.model.graph.walk():
            if node.domain in DOMAINS:
                operators[node.op_type] += 1
                if node.op_type in LOOPS:
                    loops.append(f"{node.op_type} {graph.path}{label(node)}")
        products, activations = (sum(operators[name] for name in names) for names in (PRODUCTS, ACTIVATIONS))
        if loops:
            found = f"{listed(loops)} may run over the steps of a layer"
        elif products > 1 and activations > 1:
            found = (
                f"{products} {' and '.join(PRODUCTS)} and {activations} {' and '.join(ACTIVATIONS)} may be the steps "
                "of a layer that the exporter has unrolled"
            )
        else:
            return ""
        return f"; {found}: {OTHER_WAYS}"

    def _reversal(self, recurrent, batch_first):
        """The words of a warning about the operator that reverses the steps of X; "" without one."""
        try:
            found = self._reversing(recurrent.graph, recurrent.node.input[0], int(batch_first))
        except (IndexError, TypeError, ValueError):  # of an operator that does not concern the layer
            found = None
        if found is None:
            return ""
        return (
            f"node {short(recurrent.path)}: X comes from {found.op_type} {short(label(found))}, which reverses the "
            "steps; the layer takes the reversed sequences, too. from_keras makes a layer with reverse=True of "
            "go_backwards=True"
        )

    def _reversing(self, graph, name, axis):
        """The node that reverses the axis of a value of three; None without one."""
        for _ in range(MOST_BETWEEN):
            value = graph.find(name)
            graph, node = value.graph, value.node
            if node is None or node.domain not in DOMAINS:
                return None
            given = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Transpose":
                perm = given.get("perm", (2, 1, 0))
                if sorted(perm) != [0, 1, 2]:
                    return None
                axis = perm[axis]
            elif node.op_type == "ReverseSequence":
                return node if given.get("time_axis", 0) == axis else None
            elif node.op_type == "Slice":
                axes, steps = (
                    self.constants.array(graph, optional(node, k)).ravel().tolist() if optional(node, k) else []
                    for k in (3, 4)
                )
                return node if (axis, -1) in ((k % 3, step) for k, step in zip(axes or range(3), steps)) else None
            elif node.op_type not in ("Cast", "Identity"):
                return None
            name = node.input[0]
        return None

    # Stacks

    def _chain(self, nodes):
        """The nodes in the order in which each takes the output of the one before."""
        if len(nodes) > MOST_LAYERS:
            raise ValueError(f"more than {MOST_LAYERS}")
        befores = {one: self._before(one)[0] for one in nodes}
        first, *more = [one for one in nodes if befores[one] is None] or [None]
        if first is None:
            raise ValueError("each takes the output of another")
        if more:
            reasons = f"X of one {self._before(first)[1]}, X of the other {self._before(more[0])[1]}"
            raise ValueError(f"{first.path!r} and {more[0].path!r} do not take the output of another: {reasons}")
        after = {before: one for one, before in befores.items()}
        chain = [first]
        while len(chain) < len(nodes):
            if chain[-1] not in after:
                raise ValueError("an output goes to several of them")
            chain.append(after[chain[-1]])
        return chain

    def _before(self, recurrent):
        """The recurrent node from which X comes through operators that keep its numbers, and these operators.

        Without one None, and the place where X comes from.
        """
        graph, name = recurrent.graph, recurrent.node.input[0] if recurrent.node.input else ""
        between: list[tuple[Graph, Any]] = []
        for _ in range(MOST_BETWEEN):
            value = graph.find(name)
            graph, node = value.graph, value.node
            if node is None:
                return None, f"comes from {short(name)}"
            one = self.producers.get((id(graph), name))
            if one is not None:
                if name != node.output[0]:
                    return None, f"comes from {short(name)}, which is not Y of {short(one.path)}"
                return one, between[::-1]
            parts = directions(graph, node)
            if parts is not None:
                name = parts[0][0].input[0]
            elif node.domain in DOMAINS and node.op_type in BETWEEN and node.input and name == node.output[0]:
                name = node.input[0]
            else:
                return None, f"comes from {node.op_type} {short(label(node))}"
            between.append((graph, node))
        return None, f"comes through more than {MOST_BETWEEN} operators"

    def _check_stacked(self, before, after, of_before, of_after):
        """Refuse two nodes that are not two layers of one stack."""
        source, between = self._before(after)
        if source is not before:
            comes = between if source is None else f"comes from {short(source.path)}"
            raise ValueError(f"X: expected Y of {short(before.path)}, but it {comes}")
        differing = [
            name for name, a, b in zip(("operator", "direction", "hidden_size"), of_before, of_after) if a != b
        ] or [name for name, value in of_after.options.items() if of_before.options[name] != value]
        if differing:
            raise ValueError(f"{differing[0]}: not the same as of {short(before.path)}, so they are no stack")
        lens = [self._definition(one, 4) for one in (before, after)]
        if lens[0] != lens[1] and not (
            isinstance(of_before.lengths, np.ndarray)
            and isinstance(of_after.lengths, np.ndarray)
            and np.array_equal(of_before.lengths, of_after.lengths)
        ):
            raise ValueError(f"sequence_lens: not the same as of {short(before.path)}, so they are no stack")
        options = of_before.options
        axes = Axes(
            before.graph,
            before.node,
            of_before.D,
            of_before.H,
            options["batch_first"],
            options["dtype"],
            self.constants,
        )
        for graph, node in between:
            axes.apply(graph, node)
        if axes.axes != axes.expected:
            raise ValueError(f"X: Y of {short(before.path)} comes as {axes}, expected {Axes.text(axes.expected)}")
        columns = of_after.weights["W"].shape[2]
        if columns != of_before.D * of_before.H:
            raise ValueError(f"W: expected {of_before.D * of_before.H} columns, got {columns}")

    def _definition(self, recurrent, position):
        """Where the input of this position is defined; None without it."""
        name = optional(recurrent.node, position)
        if not name:
            return None
        value = recurrent.graph.find(name)
        return id(value.graph), value.name

    # One node

    def _read(self, recurrent: Recurrent) -> Read:
        node, graph = recurrent.node, recurrent.graph
        kind = node.op_type
        attributes = self._attributes(node, graph.opset)
        direction = attributes.get("direction", "forward")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction: expected {', '.join(DIRECTIONS)}, got {short(direction)}")
        D = DIRECTIONS[direction]
        options = self._activations(kind, D, attributes)
        options |= {"reverse": direction == "reverse", "bidirectional": D == 2}
        options["batch_first"] = bool(zero_or_one(attributes, "layout"))
        if kind == "GRU":
            options["reset_after"] = bool(zero_or_one(attributes, "linear_before_reset"))
        if kind == "LSTM":
            options["input_forget"] = bool(zero_or_one(attributes, "input_forget"))
        weights = self._weights(recurrent, D, attributes.get("hidden_size"))
        assert weights["R"] is not None
        options["dtype"] = weights["R"].dtype
        options["clip"] = self._clip(attributes.get("clip"), options["dtype"])
        H = weights["R"].shape[2]
        for position in range(8 if kind == "LSTM" else 6, len(node.input)):
            if node.input[position]:
                raise ValueError(f"input {short(node.input[position])}: {kind} has no input number {position + 1}")
        members = ("initial_h", "initial_c") if kind == "LSTM" else ("initial_h",)
        state = tuple(self._initial(recurrent, name, D, H, options["batch_first"]) for name in members)
        return Read(kind, D, H, options, weights, state, self._lengths(recurrent))

    def _attributes(self, node, opset):
        """Attributes by name, as far as this version of the operator has them."""
        schema = self.onnx.defs.get_schema(node.op_type, opset, "")
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            name = attribute.name
            if name not in schema.attributes:
                raise ValueError(f"{short(name)}: {node.op_type} of opset {opset} has no such attribute")
            if name in found:
                raise ValueError(f"{name}: stands there twice")
            if attribute.ref_attr_name or attribute.type != int(schema.attributes[name].type.value):
                raise ValueError(f"{name}: has the wrong type")
            value = self.onnx.helper.get_attribute_value(attribute)
            found[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        return found

    def _activations(self, kind, D, attributes):
        """The options that the attributes about activations mean."""
        names = [name.decode(errors="replace") for name in attributes.get("activations", ())]
        names = names or [*DEFAULT_ACTIVATIONS[kind]] * D
        number = len(DEFAULT_ACTIVATIONS[kind])
        if len(names) != number * D:
            raise ValueError(f"activations: expected {number * D} names for direction and cell, got {listed(names)}")
        found = []
        for position, name in enumerate(names):
            is_gate = kind != "RNN" and position % number == 0
            place, allowed = PLACES["RNN" if kind == "RNN" else "gate" if is_gate else "other"]
            if name.lower() not in map(str.lower, allowed):
                raise ValueError(f"activations: {short(name)} for {place} is not supported, but {' or '.join(allowed)}")
            found.append(name.lower())
        for position, parameters in self._hard_sigmoids(found, attributes).items():
            slopes = [option for option, slope in HARD_SIGMOIDS.items() if np.float32(parameters[0]) == slope]
            alpha, beta = parameters
            if not slopes or beta != HARD_SIGMOID[1]:
                raise ValueError(
                    f"activation_alpha, activation_beta: HardSigmoid with {alpha:.9g} and {beta:.9g} is not supported, "
                    "but with 0.2 or 1/6 and 0.5"
                )
            found[position] = slopes[0]
        directions = [tuple(found[d * number : d * number + number]) for d in range(D)]
        if directions[0] != directions[-1]:
            raise ValueError(f"activations: the directions have different ones, {listed(names)}")
        if kind == "RNN":
            return {"nonlinearity": found[0]}
        if kind == "LSTM" and found[1] != found[2]:
            raise ValueError(f"activations: g and h are different, {names[1]} and {names[2]}; a layer has one for both")
        return {"recurrent_activation": found[0], "activation": found[1]}

    def _hard_sigmoids(self, names, attributes):
        """(alpha, beta) of each HardSigmoid by its position.

        Values belong to the activations that take one, in their order (so ONNX Runtime reads them). A list with a value
        for each activation can also be read position by position; it is accepted if both readings are the same.
        """
        positions = [k for k, name in enumerate(names) if name == "hardsigmoid"]
        columns = []
        for attribute, default in zip(("activation_alpha", "activation_beta"), HARD_SIGMOID):
            values = [*attributes.get(attribute, ())] if positions else []
            column = [values[k] if k < len(values) else default for k in range(len(positions))]
            if len(values) > len(positions):
                if len(values) != len(names) or [values[k] for k in positions] != column:
                    raise ValueError(
                        f"{attribute}: {len(values)} values for {len(positions)} HardSigmoid among {len(names)} "
                        "activations can be read in several ways"
                    )
            columns.append(column)
        return dict(zip(positions, zip(*columns)))

    def _clip(self, value, dtype):
        if value is None:
            return None
        if not 0 < value < math.inf:
            raise ValueError(f"clip: expected a positive finite number, got {value}")
        # The shortest decimal that is the same number in float32, in which the attribute stands.
        return float(str(np.float32(value))) if dtype == np.float32 else value

    # The inputs of a node

    def _weights(self, recurrent, D, hidden_size):
        """W, R, B and P, of one dtype; the last two None if they are absent."""
        kind = recurrent.node.op_type
        arrays: dict[str, Array | None] = {}
        for name in ("W", "R", "B", "P"):
            if name == "P" and kind != "LSTM":
                continue
            arrays[name] = self._constant(recurrent, name)
            if arrays[name] is None and name in "WR":
                raise ValueError(f"{name}: missing")
        W, R = arrays["W"], arrays["R"]
        assert W is not None and R is not None
        if hidden_size is None:
            hidden_size = R.shape[2] if R.ndim == 3 else 0
        H, G = hidden_size, GATES[kind]
        if H < 1:
            raise ValueError(f"hidden_size: expected at least 1, got {H}")
        I = W.shape[2] if W.ndim == 3 else "input_size"
        shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
        for name, array in arrays.items():
            if array is None:
                continue
            if array.shape != shapes[name]:
                expected = f"({', '.join(map(str, shapes[name]))}), of hidden_size {H} and {D} direction{'s' * (D - 1)}"
                raise ValueError(f"{name}: expected {expected}, got {array.shape}")
            if array.dtype != W.dtype:
                raise ValueError(f"{name}: expected {W.dtype} as W is, got {array.dtype}")
            arrays[name] = single_or_double(name, array)
        if I == 0:
            raise ValueError("W: has no columns")
        return arrays

    def _constant(self, recurrent, name):
        """The input as an array; None if it is absent."""
        given = optional(recurrent.node, INPUTS.index(name))
        if not given:
            return None
        try:
            return self.constants.array(recurrent.graph, given)
        except NotConstant as error:
            raise NotConstant(f"{name}: is not constant: {error}") from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _initial(self, recurrent, name, D, H, batch_first):
        """An initial state as in `Read`."""
        given = optional(recurrent.node, INPUTS.index(name))
        if not given:
            return None
        try:
            array = self.constants.for_any_batch(recurrent.graph, given, 0 if batch_first else 1)
        except NotConstant:
            return NotConstant
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if array.ndim == 0:
            array = np.broadcast_to(array, (D, 1, H))
        elif batch_first and array.ndim == 3:
            array = array.transpose(1, 0, 2)
        if array.ndim != 3 or (array.shape[0], array.shape[2]) != (D, H):
            raise ValueError(f"{name}: expected ({D}, B, {H}), got {array.shape}")
        array = single_or_double(name, array)
        return array if array.any() else None

    def _lengths(self, recurrent):
        """sequence_lens as in `Read`."""
        try:
            array = self._constant(recurrent, "sequence_lens")
        except NotConstant:
            return NotConstant
        if array is not None and (array.ndim != 1 or array.dtype.kind not in "iu" or (array < 0).any()):
            raise ValueError(
                f"sequence_lens: expected (B,) of integers of at least 0, got {array.shape} of {array.dtype}"
            )
        return array

    def _refuse_constants(self, read):
        """An error for states and lengths that are constants."""
        for name, value in zip(("sequence_lens", "initial_h", "initial_c"), (read.lengths, *read.state)):
            if isinstance(value, np.ndarray):
                constant = "a constant" if name == "sequence_lens" else "a constant other than zero"
                raise ValueError(f"{name}: is {constant}; with_arguments=True returns it beside the layer")

    def _arguments(self, read):
        """The arguments of a call that are constants of the model."""
        arguments: dict[str, Any] = {}
        members = [
            self._stacked(name, member)
            for name, member in zip(("initial_h", "initial_c"), zip(*(one.state for one in read)))
        ]
        if any(member is not None for member in members):
            arguments["state"] = tuple(members) if len(members) > 1 else members[0]
        if isinstance(read[0].lengths, np.ndarray):
            arguments["lengths"] = read[0].lengths
        return arguments

    def _stacked(self, name, states):
        """One member of the state of all layers, (L*D, B, H), or None."""
        constant = [state for state in states if isinstance(state, np.ndarray)]
        if not constant:
            return None
        if any(state is NotConstant for state in states):
            raise ValueError(f"{name}: is constant in some layers of the stack only")
        if len({state.shape for state in constant}) != 1:
            raise ValueError(f"{name}: the batches of the layers differ, {listed([str(s.shape) for s in constant])}")
        return np.concatenate([np.zeros_like(constant[0]) if state is None else state for state in states])

    # The layer

    def _layer(self, read, batch_first):
        options = dict(read[0].options)
        if batch_first:
            options["batch_first"] = True
        present = {name for one in read for name, array in one.weights.items() if array is not None}
        G, H, D, dtype = GATES[read[0].kind], read[0].H, read[0].D, options["dtype"]
        zeros = {"B": (D, 2 * G * H), "P": (D, 3 * H)}
        arrays = [
            {
                name: np.zeros(zeros[name], dtype) if one.weights[name] is None else one.weights[name]
                for name in one.weights
                if name in present
            }
            for one in read
        ]
        kind = read[0].kind.lower()
        return from_weights(kind, arrays, layout="onnx", **options)

    def _is_batch_first(self, first):
        """Whether `to_onnx` has written the model from a layer with batch_first."""
        key, text = BATCH_FIRST
        if not any((entry.key, entry.value) == (key, text) for entry in self.model.proto.metadata_props):
            return False
        node = first.graph.find(first.node.input[0]).node
        perm = [] if node is None or node.op_type != "Transpose" else [list(a.ints) for a in node.attribute]
        return perm == [[1, 0, 2]]


class named_node:
    """A context in which a ValueError's message begins with the node."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if isinstance(error, ValueError):
            raise ValueError(f"node {short(self.path)}: {error}") from error


def optional(node: Any, position: int) -> str:
    """The name of an input, "" if it is absent."""
    return node.input[position] if position < len(node.input) else ""


def single_or_double(name: str, array: Array) -> Array:
    """The array in float64 if it has that, other floating-point numbers in float32."""
    if array.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"{name}: expected floating-point numbers, got {array.dtype}")
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def zero_or_one(attributes: Mapping[str, Any], name: str) -> int:
    """An attribute that is a flag, 0 by default."""
    value = attributes.get(name, 0)
    if value not in (0, 1):
        raise ValueError(f"{name}: expected 0 or 1, got {value}")
    return value


# Models


def to_onnx(
    layer: Layer[Any, Any], path: str | os.PathLike[str], *, state: bool = False, lengths: bool = False
) -> None:
    """Write a layer to a file as an ONNX model, of one LSTM, GRU or RNN node for each layer of a stack.

    The input of the model is ``x``, (T, B, I), or (B, T, I) with `batch_first`; T and B are free. Its outputs are
    ``output``, (T, B, D*H) or (B, T, D*H), ``h_n`` and, of an LSTM, ``c_n``, (num_layers*D, B, H), as from a call of
    the layer. A file under `path` is replaced atomically, or left as it is on any error.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Of float32. `dropout` is for training and is not in the model.
    path : str or os.PathLike
        The file, as for `save`.
    state : bool, default False
        Whether the model has the inputs ``h_0`` and, of an LSTM, ``c_0``, (num_layers*D, B, H), float32. Default: the
        initial state is zeros.
    lengths : bool, default False
        Whether the model has the input ``lengths``, (B,), int32. Default: all sequences have T steps.

    Raises
    ------
    ImportError
        If the package `onnx` is not installed.
    TypeError
        If `path` is not a path, or `layer` not such a layer; a subclass is not one.
    ValueError
        If the layer has `proj_size`, or is of float64, which ONNX Runtime does not run, or is larger than 2 GiB; or if
        `path` exists and is not a file.
    OSError
        If the file cannot be written.

    See Also
    --------
    from_onnx

    Notes
    -----
    The model is of opset 14 and of version 8 of the format, from 2021: ONNX Runtime 1.10 and later versions are to run
    it. `clip` is written as a float32.

    Examples
    --------
    See `from_onnx`.
    """
    cls = type(layer)
    if cls not in (LSTM, GRU, RNN):
        hint = "; its dequantized() is one of float32" if issubclass(cls, Quantized) else ""
        given = f"{cls.__module__}.{cls.__qualname__}{hint}"
        raise TypeError(f"layer: expected LSTM, GRU or RNN, which ONNX has, got {given}")
    state, lengths = flag("state", state), flag("lengths", lengths)
    path = path_of(path)
    proj_size = getattr(layer, "proj_size", 0)
    if proj_size:
        raise ValueError(f"layer: proj_size={proj_size}, and ONNX's LSTM has no projection")
    if layer.dtype != np.float32:
        raise ValueError(f"layer: is {layer.dtype}, which ONNX Runtime does not run; make it float32")
    if layer.params.flat.nbytes > MOST_FILE_BYTES:
        raise ValueError(f"layer: has {layer.params.flat.nbytes} bytes of parameters, a model holds {MOST_FILE_BYTES}")
    onnx = import_onnx("to_onnx")
    model = Writer(onnx, layer, state, lengths).model()
    write_atomically(path, model.SerializeToString(deterministic=True))


class Writer:
    """The ONNX model of one layer."""

    def __init__(self, onnx, layer, state, lengths):
        self.onnx, self.layer = onnx, layer
        self.arguments = layer._constructor_arguments()
        self.kind = type(layer).__name__
        self.D = 1 + layer.bidirectional
        self.members = ("h", "c") if self.kind == "LSTM" else ("h",)
        self.state, self.lengths = state, lengths
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def model(self):
        helper, types = self.onnx.helper, self.onnx.TensorProto
        layer, D = self.layer, self.D
        L, H = layer.num_layers, layer.hidden_size
        steps = ("B", "T") if layer.batch_first else ("T", "B")
        inputs = [helper.make_tensor_value_info("x", types.FLOAT, [*steps, layer.input_size])]
        outputs = [helper.make_tensor_value_info("output", types.FLOAT, [*steps, D * H])]
        for member in self.members:
            if self.state:
                inputs.append(helper.make_tensor_value_info(f"{member}_0", types.FLOAT, [L * D, "B", H]))
            outputs.append(helper.make_tensor_value_info(f"{member}_n", types.FLOAT, [L * D, "B", H]))
        if self.lengths:
            inputs.append(helper.make_tensor_value_info("lengths", types.INT32, ["B"]))
        self._add_nodes()
        graph = helper.make_graph(self.nodes, f"fastrnn {self.kind}", inputs, outputs, self.tensors)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fastrnn",
            producer_version=__version__,
        )
        if layer.batch_first:
            helper.set_model_props(model, dict([BATCH_FIRST]))
        return model

    def _add_nodes(self):
        layer, D = self.layer, self.D
        L, H = layer.num_layers, layer.hidden_size
        x = "x"
        if layer.batch_first:
            x = self._node("Transpose", ["x"], ["x_by_steps"], perm=[1, 0, 2])
        if self.state and L > 1:
            sizes = self._tensor("sizes", np.full(L, D, np.int64))
            for member in self.members:
                self._node("Split", [f"{member}_0", sizes], [f"{member}_0_l{k}" for k in range(L)], axis=0)
        if D == 1:
            axis = self._tensor("axis", np.array([1], np.int64))
        else:
            shape = self._tensor("shape", np.array([0, 0, D * H], np.int64))
        for k in range(L):
            suffix = f"_l{k}"
            self._recurrent(x, k, "" if L == 1 else suffix)
            x = f"output{suffix}"
            if k == L - 1:
                x = "output_by_steps" if layer.batch_first else "output"
            if D == 1:
                self._node("Squeeze", [f"Y{suffix}", axis], [x])
            else:
                self._node("Transpose", [f"Y{suffix}"], [f"Y{suffix}_by_sequences"], perm=[0, 2, 1, 3])
                self._node("Reshape", [f"Y{suffix}_by_sequences", shape], [x])
        if layer.batch_first:
            self._node("Transpose", [x], ["output"], perm=[1, 0, 2])
        if L > 1:
            for member in self.members:
                self._node("Concat", [f"{member}_n_l{k}" for k in range(L)], [f"{member}_n"], axis=0)

    def _recurrent(self, x, k, suffix):
        """Add the node of layer k; the suffix is that of its states, which are those of the model without one."""
        weights = self._weights(k)
        names = {name: self._tensor(f"{name}_l{k}", array) for name, array in weights.items()}
        names |= {"X": x, "sequence_lens": "lengths" if self.lengths else ""}
        names |= {f"initial_{member}": f"{member}_0{suffix}" if self.state else "" for member in self.members}
        inputs = [names.get(name, "") for name in INPUTS]
        while not inputs[-1]:
            inputs.pop()
        outputs = [f"Y_l{k}", *(f"{member}_n{suffix}" for member in self.members)]
        self._node(self.kind, inputs, outputs, name=f"{self.kind}_{k}", **self._attributes())

    def _weights(self, k):
        """W, R, B and P of layer k, as far as it has them, with the gates in the order of ONNX."""
        spec = self.layer._spec
        (layout,) = variants(spec, "onnx", None, False, None)
        order = [spec.gates.index(gate) for gate in layout.gates]

        def by_gate(array):
            return array.reshape(len(order), -1, *array.shape[1:])[order].reshape(array.shape)

        found: dict[str, list[Array]] = {}
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: self.D]:
            params = {
                name: self.layer.params[name + suffix]
                for name in spec.weight_names
                if name + suffix in self.layer.params
            }
            arrays = {"W": by_gate(params["weight_ih"]), "R": by_gate(params["weight_hh"])}
            if "bias_ih" in params:
                arrays["B"] = np.concatenate([by_gate(params["bias_ih"]), by_gate(params["bias_hh"])])
            if "weight_peephole" in params:
                arrays["P"] = params["weight_peephole"][[0, 2, 1]].ravel()
            for name, array in arrays.items():
                found.setdefault(name, []).append(array)
        return {name: np.stack(of_directions) for name, of_directions in found.items()}

    def _attributes(self):
        """The attributes of each node, of which defaults are left out."""
        options, D = self.arguments, self.D
        direction = "bidirectional" if D == 2 else "reverse" if options["reverse"] else "forward"
        attributes: dict[str, Any] = {"hidden_size": options["hidden_size"], "direction": direction}
        if self.kind == "RNN":
            names = [RNN_NONLINEARITIES[options["nonlinearity"]]]
        else:
            other = NONLINEARITIES[options["activation"]]
            alpha = HARD_SIGMOIDS.get(options["recurrent_activation"])
            names = ["Sigmoid" if alpha is None else "HardSigmoid", other, *([other] if self.kind == "LSTM" else [])]
            if alpha is not None:
                attributes |= {"activation_alpha": [float(alpha)] * D, "activation_beta": [HARD_SIGMOID[1]] * D}
        if tuple(names) != DEFAULT_ACTIVATIONS[self.kind]:
            attributes["activations"] = names * D
        if options["clip"] is not None:
            clip = np.float32(min(options["clip"], float(np.finfo(np.float32).max)))
            if not clip > 0:
                raise ValueError(f"layer: clip={options['clip']} is 0 in float32")
            attributes["clip"] = float(clip)
        if self.kind == "GRU":
            attributes["linear_before_reset"] = int(options["reset_after"])
        return attributes

    def _node(self, operator, inputs, outputs, name=None, **attributes):
        """Add a node; returns its first output."""
        name = name or f"{operator}_{outputs[0]}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def _tensor(self, name, array):
        """Add an initializer; returns its name."""
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        self.tensors.append(self.onnx.numpy_helper.from_array(little_endian, name))
        return name
