"""The axes of a sequence between two recurrent nodes of an ONNX model: which numbers stand where after each operator.

Two nodes are two layers of a stack if X of the second is Y of the first with its directions side by side. The operators
between them are followed with symbolic axes, so that the answer holds for every number of steps and sequences that the
model allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn._onnx_graph import DOMAINS, Constants, Graph, NotConstant, label
from fastrnn._validation import short

# Operators that keep the numbers of a sequence and may stand between two layers.
BETWEEN = ("Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

# Operators between a direction that a Slice cuts out of Y and the Concat that puts two directions side by side: these,
# and at most so many.
OF_A_DIRECTION = ("Identity", "Squeeze", "Transpose", "Unsqueeze")
MOST_OF_A_DIRECTION = 8

# Operators that compute a shape from shapes; the number that a hostile model may have of them.
MOST_SHAPE_OPERATORS = 200

# A dimension of a shape that is known only as letters, or a number.
Dimension: TypeAlias = int | str


def directions(graph: Graph, node: Any) -> list[list[Any]] | None:
    """The nodes from a value to the two inputs of a Concat, which begin with Slices of the same value; or None."""
    if node.op_type != "Concat" or node.domain not in DOMAINS or len(node.input) != 2:
        return None
    chains = []
    for name in node.input:
        chain: list[Any] = []
        while not chain or chain[-1].op_type != "Slice":
            one = graph.values[name].node if name in graph.values else None
            if one is None or one.domain not in DOMAINS or one.op_type not in (*OF_A_DIRECTION, "Slice"):
                return None
            if name != one.output[0] or not one.input or len(chain) > MOST_OF_A_DIRECTION:
                return None
            chain.append(one)
            name = one.input[0]
        chains.append(chain[::-1])
    return chains if chains[0][0].input[0] == chains[1][0].input[0] else None


class Axes:
    """The axes of Y on its way to the next node: of each, the letters of T, D, B and H that it runs over, in order.

    Parameters
    ----------
    graph : Graph
    node : onnx.NodeProto
        The node with the output Y, (T, D, B, H), or (B, T, D, H) with `batch_first`.
    D, H : int
        The sizes of directions and hidden units. If D is 1, its letter is left out.
    batch_first : bool
    dtype : dtype
        Of the layer, to which a Cast may cast.
    constants : Constants
    """

    def __init__(
        self, graph: Graph, node: Any, D: int, H: int, batch_first: bool, dtype: np.dtype[Any], constants: Constants
    ) -> None:
        self.constants, self.dtype = constants, dtype
        both = "D" if D == 2 else ""
        self.axes = ["B", "T", both, "H"] if batch_first else ["T", both, "B", "H"]
        self.expected = ["B", "T", both + "H"] if batch_first else ["T", "B", both + "H"]
        self.sizes = {"D": D, "H": H}
        # T and B, if the model is for one size of them alone.
        x_axes = [axis for axis in self.axes if axis in ("T", "B")]
        for name, axes in ((node.input[0], [*x_axes, ""]), (node.output[0], self.axes)):
            declared = graph.declared_shape(name)
            if len(declared) == len(axes):
                self.sizes |= {axis: n for axis, n in zip(axes, declared) if axis in ("T", "B") and n > 0}
        self.seen = {(id(graph), node.output[0]): self.axes}
        self.operators_left = MOST_SHAPE_OPERATORS

    @staticmethod
    def text(axes: Sequence[str]) -> str:
        return f"({', '.join('*'.join(axis) or '1' for axis in axes)})"

    def __str__(self):
        return self.text(self.axes)

    def apply(self, graph: Graph, node: Any) -> None:
        """The axes after one more operator; a ValueError if they cannot be determined."""
        try:
            self.axes = self._after(graph, node)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"X: {node.op_type} {short(label(node))} does not keep the axes: {error}") from error
        self.seen[id(graph), node.output[0]] = self.axes

    def _after(self, graph, node):
        return getattr(self, f"_{node.op_type.lower()}")(graph, node, self._attributes(node))

    def _attributes(self, node):
        return {a.name: self.constants.onnx.helper.get_attribute_value(a) for a in node.attribute}

    # Operators

    def _concat(self, graph, node, attributes):
        """Two directions, each cut out of the axes before, side by side."""
        before, found = self.axes, []
        for d, nodes in enumerate(directions(graph, node) or ()):
            axis, cut = self._cut(graph, nodes[0], self._attributes(nodes[0]))
            if before[axis] != "D" or [*range(2)[cut]] != [d]:
                which = ("forward", "backward")[d]
                raise ValueError(f"Slice {short(label(nodes[0]))} of {self.text(before)} is not the {which} direction")
            self.axes = list(before)
            self.axes[axis] = ""
            for one in nodes[1:]:
                self.axes = self._after(graph, one)
            found.append(self.axes)
        forward, backward = found
        if forward != backward or forward[attributes["axis"]] != "H":
            raise ValueError(f"{self.text(forward)} and {self.text(backward)} on axis {attributes['axis']}")
        result = list(forward)
        result[attributes["axis"]] = "DH"
        return result

    def _identity(self, graph, node, attributes):
        return self.axes

    def _cast(self, graph, node, attributes):
        to = self.constants.onnx.helper.tensor_dtype_to_np_dtype(attributes.get("to", 0))
        if to != self.dtype:
            raise ValueError(f"to {to}, where the layers are {self.dtype}")
        return self.axes

    def _dropout(self, graph, node, attributes):
        is_trained = graph.opset < 7 and not attributes.get("is_test", 0)
        if len(node.input) > 2 and node.input[2]:
            is_trained = bool(self.constants.array(graph, node.input[2]).any())
        if is_trained:
            raise ValueError("in training")
        return self.axes

    def _transpose(self, graph, node, attributes):
        perm = attributes.get("perm", range(len(self.axes))[::-1])
        if sorted(perm) != [*range(len(self.axes))]:
            raise ValueError(f"perm {short(list(perm))} of {self}")
        return [self.axes[k] for k in perm]

    def _given_axes(self, graph, node, attributes):
        """The attribute or the input `axes`."""
        if len(node.input) > 1:
            return self.constants.array(graph, node.input[1]).ravel().tolist()
        return list(attributes.get("axes", ()))

    def _squeeze(self, graph, node, attributes):
        rank = len(self.axes)
        axes = self._given_axes(graph, node, attributes)
        if not axes or not all(-rank <= axis < rank and not self.axes[axis] for axis in axes):
            raise ValueError(f"axes {short(axes)} of {self}")
        axes = [axis % rank for axis in axes]
        return [axis for k, axis in enumerate(self.axes) if k not in axes]

    def _unsqueeze(self, graph, node, attributes):
        axes = self._given_axes(graph, node, attributes)
        rank = len(self.axes) + len(axes)
        if rank > 8 or not all(-rank <= axis < rank for axis in axes):
            raise ValueError(f"axes {short(axes)} of {self}")
        result = list(self.axes)
        for axis in sorted(axis % rank for axis in axes):
            result.insert(axis, "")
        return result

    def _reshape(self, graph, node, attributes):
        shape = self._dimensions(graph, node.input[1])
        if len(shape) > 8 or (attributes.get("allowzero", 0) and 0 in shape):
            raise ValueError(f"{self} to {short(shape)}{' with allowzero' if 0 in shape else ''}")
        letters, front, back = "".join(self.axes), [], []
        cut = shape.index(-1) if -1 in shape else len(shape)
        for k, n in enumerate(shape[:cut]):
            front.append(self._taken(n, k, letters, 1))
            letters = letters[len(front[-1]) :]
        for k, n in reversed([*enumerate(shape)][cut + 1 :]):
            back.append(self._taken(n, k, letters, -1))
            letters = letters[: len(letters) - len(back[-1])]
        if cut < len(shape):
            front.append(letters)
        elif front and all(self.sizes.get(letter) == 1 for letter in letters):
            front[-1] += letters
        else:
            raise ValueError(f"{self} to {short(shape)}")
        return front + back[::-1]

    def _taken(self, n, k, letters, order):
        """The letters of axis k of a new shape, of n numbers: at the beginning, or with order -1 at the end."""
        letters = letters[::order]
        if n == 0 or isinstance(n, str):
            taken = n or (self.axes[k] if k < len(self.axes) else "no such axis")
            taken = taken[::order]
            fits = letters.startswith(taken)
        else:
            taken, product = "", 1
            for letter in letters:
                size = self.sizes.get(letter, 0)
                if not size or product * size > n or (product == n and n > 1):
                    break
                taken, product = taken + letter, product * size
                if n == 1:
                    break
            fits = product == n
        if not fits:
            raise ValueError(f"{self} to an axis of {n}")
        return taken[::order]

    # Shapes that are computed from those of the sequence

    def _dimensions(self, graph: Graph, name: str) -> list[Dimension]:
        """The dimensions in a tensor of integers, those of T and B as letters if they are not known."""
        try:
            return self.constants.array(graph, name).ravel().tolist()
        except NotConstant:
            value = graph.find(name)
        self.operators_left -= 1
        if value.node is None or value.node.domain not in DOMAINS or self.operators_left < 0:
            raise NotConstant(f"the shape {short(name)} is not known")
        graph, node = value.graph, value.node
        given = self._attributes(node)
        if node.op_type == "Shape":
            source = graph.find(node.input[0])
            axes = self.seen.get((id(source.graph), source.name))
            if axes is None:
                raise NotConstant(f"the shape {short(name)} is that of {short(source.name)}")
            return [self._dimension(axis) for axis in axes][given.get("start", 0) : given.get("end")]
        if node.op_type == "Concat":
            return [n for part in node.input for n in self._dimensions(graph, part)]
        if node.op_type not in ("Slice", "Gather", "Mul", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            raise NotConstant(f"the shape {short(name)} is computed by {node.op_type} {short(label(node))}")
        data = self._dimensions(graph, node.input[0])
        if node.op_type == "Slice":
            return data[self._slice(graph, node, given)]
        if node.op_type == "Gather":
            return [data[k] for k in self.constants.array(graph, node.input[1]).ravel().tolist()]
        if node.op_type == "Mul":
            others = self._dimensions(graph, node.input[1])
            if len(data) != len(others):
                raise ValueError(f"the shape {short(name)} is a product of several sizes")
            return [self._product(a, b) for a, b in zip(data, others)]
        return data

    def _slice(self, graph, node, given):
        """The slice of a tensor with one axis."""
        axis, cut = self._cut(graph, node, given)
        if axis not in (0, -1):
            raise ValueError(f"the shape {short(node.output[0])} is no slice of one axis")
        return cut

    def _cut(self, graph, node, given):
        """The only axis that a Slice cuts, and the slice."""
        names = ("starts", "ends", "axes", "steps")
        if len(node.input) > 1:
            given = {n: self.constants.array(graph, i).ravel().tolist() for n, i in zip(names, node.input[1:]) if i}
        start, end, axis, step = (list(given.get(n, (d,))) for n, d in zip(names, (None, None, 0, 1)))
        if [len(start), len(end), len(axis), len(step)] != [1, 1, 1, 1]:
            raise ValueError(f"{short(node.output[0])} is no slice of one axis")
        return axis[0], slice(start[0], end[0], step[0])

    def _dimension(self, axis: str) -> Dimension:
        sizes = [self.sizes.get(letter, 0) for letter in axis]
        return math.prod(sizes) if all(sizes) else axis

    def _product(self, a: Dimension, b: Dimension) -> Dimension:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if isinstance(a, str) and isinstance(b, str):
            return a + b
        if 1 not in (a, b):
            raise ValueError(f"a product of {a} and {b}")
        return b if a == 1 else a
