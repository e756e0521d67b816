"""ONNX models as `fastrnn.from_onnx` reads them: the graphs, their recurrent nodes, and the constants in them.

A model is data of unknown origin. Its constants are computed node by node, by the reference implementation of the
package onnx, of operators in a list that only move, convert or combine numbers. The size of each result is known before
it is computed, and bounded.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastrnn._files import path_of
from fastrnn._validation import Array, short

OPERATORS = ("LSTM", "GRU", "RNN")
DOMAINS = ("", "ai.onnx")

# The bytes that all constants of a call may take together: so many, and so many times those of the file.
LEAST_BYTES = 1 << 26
MOST_TIMES_FILE = 32

MOST_AXES = 64  # of NumPy; the reference implementation may take memory for an axis of any number

MOST_NAMES_SHOWN = 8


def import_onnx(function: str) -> Any:
    """The package onnx, or an ImportError that says which extra has it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"fastrnn.{function} needs the package onnx: pip install 'fastrnn[onnx]'") from error
    return onnx


class NotConstant(ValueError):
    """The value is known only when the model runs."""


class Value(NamedTuple):
    """A value of a graph: by an initializer, a node, or, if both are None, an input of the graph."""

    graph: Graph
    name: str
    tensor: Any = None  # TensorProto
    node: Any = None  # NodeProto


class Graph:
    """A graph of a model, and the values that are defined in it.

    Parameters
    ----------
    proto : onnx.GraphProto
    opset : int
        The version of the operators.
    outer : Graph, optional
        The graph whose node has this one as an attribute; its values are visible here.
    path : str
        The names of the nodes and attributes that lead here, each followed by "/".
    """

    def __init__(self, proto: Any, opset: int, outer: Graph | None = None, path: str = "") -> None:
        self.proto, self.opset, self.outer, self.path = proto, opset, outer, path
        self.values: dict[str, Value] = {}
        for node in proto.node:
            _check_text(node.name, node.op_type, node.domain, *node.input, *node.output)
            _check_text(*(attribute.name for attribute in node.attribute))
            for name in filter(None, node.output):
                self._define(Value(self, name, node=node))
        for tensor in proto.initializer:
            self._define(Value(self, tensor.name, tensor=tensor))
        for name in (one.name for one in proto.input):
            if name not in self.values:  # an initializer is the default of the input of its name
                self._define(Value(self, name))

    def _define(self, value):
        _check_text(value.name)
        if value.name in self.values:
            raise ValueError(f"{short(value.name)}: is defined twice")
        self.values[value.name] = value

    def find(self, name: str) -> Value:
        """The value of this name, in this graph or around it."""
        graph: Graph | None = self
        while graph is not None:
            if name in graph.values:
                return graph.values[name]
            graph = graph.outer
        raise ValueError(f"{short(name)}: is not defined in the graph")

    def declared_shape(self, name: str) -> list[int]:
        """The shape that the file states for a value, with 0 for a dimension of any size; [] if it states none."""
        for one in (*self.proto.input, *self.proto.output, *self.proto.value_info):
            if one.name == name and one.type.HasField("tensor_type"):
                return [dimension.dim_value for dimension in one.type.tensor_type.shape.dim]
        return []

    def walk(self) -> Iterator[tuple[Graph, Any]]:
        """Each node with its graph, here and in the graphs inside nodes."""
        for node in self.proto.node:
            yield self, node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from Graph(
                        attribute.g, self.opset, self, f"{self.path}{label(node)}/{attribute.name}/"
                    ).walk()


def _check_text(*names):
    """Refuse names that are not UTF-8: protobuf gives them as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"damaged, or not an ONNX model: a name is not UTF-8, {short(name)}")


def label(node: Any) -> str:
    """The name of a node; without one, its first output."""
    return node.name or next(filter(None, node.output), node.op_type)


@dataclass(frozen=True, eq=False)
class Recurrent:
    """An LSTM, GRU or RNN node of ai.onnx, and its graph."""

    graph: Graph
    node: Any
    path: str

    def is_called(self, name: str) -> bool:
        return name in (self.path, self.node.name, *filter(None, self.node.output))


@dataclass
class Model:
    """A model that has been parsed, with its recurrent nodes.

    Parameters
    ----------
    name : str
        The file for messages, "model" if there is none.
    folder : str or None
        Where tensors in other files lie.
    proto : onnx.ModelProto
    """

    name: str
    folder: str | None
    proto: Any
    graph: Graph = field(init=False)
    recurrent: list[Recurrent] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)  # nodes that look recurrent: path to description

    def __post_init__(self):
        if not self.proto.HasField("graph"):
            raise ValueError("damaged, or not an ONNX model: it has no graph")
        self.graph = Graph(self.proto.graph, self._opset())
        for graph, node in self.graph.walk():
            path = graph.path + label(node)
            if node.op_type in OPERATORS and node.domain in DOMAINS:
                self.recurrent.append(Recurrent(graph, node, path))
            elif any(word in node.op_type.upper() for word in OPERATORS):
                self.others[path] = f"{node.domain}.{node.op_type}"
        for function in self.proto.functions:
            for node in function.node:
                if node.op_type in OPERATORS and node.domain in DOMAINS:
                    _check_text(function.name, function.domain, node.name, *node.output)
                    place = f"the function {function.domain}.{function.name}; onnx.inliner.inline_local_functions helps"
                    self.others[f"{function.name}/{label(node)}"] = f"{node.op_type} in {place}"

    def _opset(self):
        versions = {entry.version for entry in self.proto.opset_import if entry.domain in DOMAINS}
        newest = import_onnx("from_onnx").defs.onnx_opset_version()
        if len(versions) != 1:
            found = f"versions {sorted(versions)}" if versions else "none"
            raise ValueError(f"opset_import: expected one version of the operators of ai.onnx, got {found}")
        (version,) = versions
        if not 1 <= version <= newest:
            raise ValueError(f"opset_import: version {version}; this onnx package knows 1 to {newest}")
        return version


def read_model(model: Any) -> Model:
    """Parse the argument of `from_onnx`: a path, the content of a file, or a ModelProto."""
    onnx = import_onnx("from_onnx")
    if isinstance(model, onnx.ModelProto):
        return named_file("model", lambda: Model("model", None, model))
    if isinstance(model, (bytes, bytearray, memoryview)):
        return named_file("model", lambda: Model("model", None, _parsed(onnx, bytes(model))))
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model: expected a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    path = path_of(model, "model")
    # A directory cannot be read, a pipe or a device perhaps without end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: not a file")
    with open(path, "rb") as file:
        data = file.read()
    folder = os.path.dirname(os.path.abspath(path))
    return named_file(path, lambda: Model(path, folder, _parsed(onnx, data)))


def named_file(name: str, read: Callable[[], Any]) -> Any:
    """The result of `read`, whose ValueErrors then begin with the name of the file."""
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _parsed(onnx, data):
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"damaged, or not an ONNX model: {error}") from error


# Constants


class Constants:
    """The constants of a model, each computed once.

    Raises NotConstant for a value that depends on an input of the graph, or on an operator that is not in `SIZES`, and
    a ValueError for one that is malformed or too large.
    """

    def __init__(self, model: Model) -> None:
        self.onnx = import_onnx("from_onnx")
        self.folder = model.folder
        self.bytes_left = LEAST_BYTES + MOST_TIMES_FILE * model.proto.ByteSize()
        self.known: dict[tuple[int, str], Array] = {}
        self.repeating_left = MOST_REPEATING

    def array(self, graph: Graph, name: str) -> Array:
        """The value called `name` in the graph."""
        wanted = graph.find(name)
        todo, begun = [wanted], set()
        while todo:
            value = todo[-1]
            key = self._key(value)
            if key in self.known:
                todo.pop()
                continue
            missing = [needed for needed in self._needed(value) if self._key(needed) not in self.known]
            if not missing:
                self._compute(value)
            elif key in begun:
                raise ValueError(f"{short(value.name)}: depends on itself")
            else:
                begun.add(key)
                todo += missing
        return self.known[self._key(wanted)]

    def for_any_batch(self, graph: Graph, name: str, axis: int) -> Array:
        """The value of three axes, of which `axis` counts sequences and is 1 if the value is the same for all of them.

        A constant, or one that the model repeats for as many sequences as there are. A value that is the same number
        everywhere has no axes. Raises NotConstant for others.
        """
        try:
            return self.array(graph, name)
        except NotConstant:
            value = graph.find(name)
            graph, node = value.graph, value.node
            self.repeating_left -= 1
            if node is None or node.domain not in DOMAINS or node.op_type not in REPEATING or self.repeating_left < 0:
                raise
        if node.op_type == "ConstantOfShape":
            return self._from_tensor(node.attribute[0].t).reshape(()) if node.attribute else np.zeros((), np.float32)
        sources = dict.fromkeys(node.input if node.op_type == "Concat" else node.input[:1])
        arrays = [self.for_any_batch(graph, source, axis) for source in sources]
        first = arrays[0].ravel()[:1].reshape(())
        if all((array == first).all() for array in arrays):
            return first
        repeated = node.op_type == "Expand" and arrays[0].ndim == 3 and arrays[0].shape[axis] == 1
        if node.op_type == "Identity" or repeated:
            return arrays[0]
        cut = node.op_type == "Slice" and len(node.input) > 3
        axes = self.array(graph, node.input[3]).ravel().tolist() if cut else [axis]
        if axis in axes or axis - 3 in axes:
            raise NotConstant(f"{short(name)} is computed by {node.op_type} {short(label(node))}")
        others = {name: self.array(graph, name) for name in node.input[1:] if name}
        return self._outputs(node, graph.opset, {node.input[0]: arrays[0]} | others)[0]

    def _key(self, value):
        return id(value.graph), value.name

    def _needed(self, value):
        """The values from which this one is computed."""
        if value.tensor is not None:
            return []
        if value.node is None:
            raise NotConstant(f"{short(value.name)} is an input of the graph")
        node = value.node
        if node.domain not in DOMAINS or node.op_type not in SIZES:
            raise NotConstant(f"{short(value.name)} is computed by {node.op_type} {short(label(node))}")
        return [value.graph.find(name) for name in node.input if name]

    def _compute(self, value):
        """Add the value, and the other outputs of its node, to those that are known."""
        if value.tensor is not None:
            self.known[self._key(value)] = self._from_tensor(value.tensor)
            return
        node, graph = value.node, value.graph
        inputs = {name: self.known[self._key(graph.find(name))] for name in node.input if name}
        arrays = self._outputs(node, graph.opset, inputs)
        for name, array in zip(node.output, arrays):
            if name:
                self.known[id(graph), name] = array

    def _outputs(self, node, opset, inputs):
        """The outputs of a node; a ValueError if it cannot be computed."""
        try:
            arrays = self._run(node, opset, inputs)
            if len(arrays) != len(node.output) or not all(isinstance(array, np.ndarray) for array in arrays):
                raise ValueError(f"expected {len(node.output)} arrays")
        except MemoryError:
            raise
        except Exception as error:  # of any kind, of operators whose inputs do not fit
            raise ValueError(f"{node.op_type} {short(label(node))} cannot be computed: {error}") from error
        return arrays

    def _run(self, node, opset, inputs):
        if node.op_type == "Constant":
            return [self._constant(node)]
        helper = self.onnx.helper
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for name, value in attributes.items():
            if isinstance(value, self.onnx.TensorProto) and value.data_location != value.EXTERNAL:
                self._from_tensor(value)
            elif not isinstance(value, (int, float)) and not all(isinstance(n, (int, float)) for n in value):
                raise ValueError(f"{short(name)}: expected numbers")
            elif name in ("axis", "axes", "perm") and np.abs(value).max(initial=0) > MOST_AXES:
                raise ValueError(f"{name}: {short(value)}, where arrays have at most {MOST_AXES} axes")
        given = [inputs.get(name) for name in node.input]
        widest = 8 if node.op_type in CONVERTING else max(array.itemsize for array in inputs.values())
        self._reserve(int(SIZES[node.op_type](attributes, len(node.output), *given)) * widest)
        untyped = [
            [helper.make_value_info(n, self.onnx.TypeProto()) for n in names if n] for names in (inputs, node.output)
        ]
        if node.op_type == "DequantizeLinear":  # the first version that the reference has, of the same meaning
            opset = max(opset, 19)
        model = helper.make_model(
            helper.make_graph([node], "constant", *untyped), opset_imports=[helper.make_opsetid("", opset)]
        )
        from onnx.reference import ReferenceEvaluator

        computed = dict(zip(filter(None, node.output), ReferenceEvaluator(model).run(None, inputs)))
        return [np.asarray(computed.get(name, 0)) for name in node.output]

    def _constant(self, node):
        """The value of a Constant."""
        if len(node.attribute) != 1:
            raise ValueError(f"expected one attribute, got {len(node.attribute)}")
        (attribute,) = node.attribute
        if attribute.name == "value":
            return self._from_tensor(attribute.t)
        if attribute.name not in ("value_float", "value_floats", "value_int", "value_ints"):
            raise ValueError(f"{short(attribute.name)}: not supported")
        dtype = np.float32 if "float" in attribute.name else np.int64
        return np.array(self.onnx.helper.get_attribute_value(attribute), dtype)

    def _from_tensor(self, tensor):
        """The numbers of a TensorProto."""
        types = self.onnx.TensorProto
        try:
            kind = types.DataType.Name(tensor.data_type)
            if kind in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128"):
                raise ValueError(f"holds no real numbers, but {kind}")
            if any(n < 0 for n in tensor.dims):
                raise ValueError(f"a dimension is negative: {list(tensor.dims)}")
            if tensor.data_location == types.EXTERNAL:
                if self.folder is None:
                    raise ValueError("its data are in another file; give the path of the model")
                tensor = self._with_external_data(tensor, self.folder)
            itemsize = self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            self._reserve(math.prod(tensor.dims) * itemsize)
            return self.onnx.numpy_helper.to_array(tensor)
        except MemoryError:
            raise
        except Exception as error:  # of any kind, of a tensor whose data do not fit
            raise ValueError(f"the tensor {short(tensor.name)}: {error}") from error

    def _with_external_data(self, tensor, folder):
        """A copy of the TensorProto with its data, from a file in the model's folder or below it."""
        from onnx.external_data_helper import load_external_data_for_tensor

        other = self.onnx.TensorProto()
        other.CopyFrom(tensor)
        load_external_data_for_tensor(other, folder)
        other.data_location = self.onnx.TensorProto.DEFAULT
        self.bytes_left += MOST_TIMES_FILE * len(other.raw_data)
        return other

    def _reserve(self, n):
        self.bytes_left -= n
        if self.bytes_left < 0:
            raise ValueError("the constants are much larger than the file")


# How many numbers the outputs of an operator have: of its attributes, the number of its outputs and its inputs. An
# operator is in this table if it may compute a constant.


def _as_many(attributes, outputs, x, *others):
    return x.size


def _split(attributes, outputs, x, *others):
    if attributes.get("num_outputs", outputs) != outputs:
        raise ValueError(f"num_outputs: expected {outputs}")
    return x.size


def _concat(attributes, outputs, *inputs):
    return sum(x.size for x in inputs)


def _gather(attributes, outputs, x, indices):
    return indices.size * (x.size // max(x.shape[attributes.get("axis", 0)], 1))


def _broadcast(attributes, outputs, *inputs):
    return math.prod(np.broadcast_shapes(*(x.shape for x in inputs)))


def _expand(attributes, outputs, x, shape):
    return math.prod(np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _of_shape(attributes, outputs, shape):
    return math.prod(shape.tolist())


def _dequantize(attributes, outputs, x, scale, zero_point=None):
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block < 0 or (block and block > x.shape[axis]):
        raise ValueError(f"block_size: {block} does not fit {x.shape}")
    for name, other in (("x_scale", scale), ("x_zero_point", zero_point)):
        if other is None or other.size == 1:
            continue
        expected = [x.shape[axis]]
        if block:
            expected = list(x.shape)
            expected[axis] = -(-expected[axis] // block)
        if list(other.shape) != expected:
            raise ValueError(f"{name}: expected {tuple(expected)}, got {other.shape}")
    return x.size


def _cast(attributes, outputs, x):
    from onnx import TensorProto

    if attributes.get("to") in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        raise ValueError("to: no type of real numbers")
    return x.size


SIZES: dict[str, Callable[..., int]] = {
    "Add": _broadcast,
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _as_many,
    "ConstantOfShape": _of_shape,
    "DequantizeLinear": _dequantize,
    "Div": _broadcast,
    "Expand": _expand,
    "Flatten": _as_many,
    "Gather": _gather,
    "Identity": _as_many,
    "Mul": _broadcast,
    "Neg": _as_many,
    "Reshape": _as_many,
    "Slice": _as_many,
    "Split": _split,
    "Squeeze": _as_many,
    "Sub": _broadcast,
    "Transpose": _as_many,
    "Unsqueeze": _as_many,
}

# The operators that repeat or move numbers: a state of which all numbers are the same keeps this. At most so many are
# followed.
REPEATING = (
    "Concat",
    "ConstantOfShape",
    "Expand",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
MOST_REPEATING = 100

# The operators whose outputs may have a wider type than their inputs.
CONVERTING = ("Cast", "ConstantOfShape", "DequantizeLinear")


# Messages


def listed(names: list[str]) -> str:
    """Names from a file, the first of them if there are many."""
    more = f" and {len(names) - MOST_NAMES_SHOWN} more" if len(names) > MOST_NAMES_SHOWN else ""
    return ", ".join(map(short, names[:MOST_NAMES_SHOWN])) + more
