"""The layouts in which other libraries keep the weights of a cell, and their conversion to the layout of torch.nn.

A layout has names, symbolic shapes and an order of gates. `directions` turns the arrays of one mapping into the weights
of torch.nn, (rows of gates, columns), for each direction; `reordered` puts the gates into the order of the cell.
Sources: the documentation of torch.nn, of Keras' layers LSTM, GRU and SimpleRNN, of the ONNX operators LSTM, GRU and
RNN, of cuDNN's cudnnGetRNNWeightParams, and of tf.compat.v1.nn.rnn_cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from fastrnn._engine.spec import LSTM, RNN, CellSpec, Weight
from fastrnn._validation import Array

# The weights of one direction, by the names of torch.nn without a suffix.
Weights: TypeAlias = dict[str, Array]

NAMES = ("torch", "keras", "cudnn", "onnx", "tf1")
CUDNN_CELLS = ("lstm", "gru", "rnn")


@dataclass(frozen=True)
class Layout:
    """A layout of the weights of one cell.

    Parameters
    ----------
    weights : tuple of Weight
        Names and shapes, in the order of sequences. Those with an `option` may be absent, but only together.
    gates : tuple of str
        The order of the gates, in the letters of the cell.
    split : callable
        ``split(arrays, sizes)`` returns a list with the `Weights` of each direction, gates in the order of `gates`.
    known : callable, optional
        ``known(arrays)`` returns sizes that have to be known before shapes are compared.
    """

    weights: tuple[Weight, ...]
    gates: tuple[str, ...]
    split: Callable[[Mapping[str, Array], Mapping[str, int]], list[Weights]]
    known: Callable[[Mapping[str, Array]], dict[str, int]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(weight.name for weight in self.weights)

    def fits(self, arrays: Mapping[str, Array]) -> bool:
        """Whether the names are right and every array has the right number of axes."""
        axes = {weight.name: len(weight.shape) for weight in self.weights}
        given = {weight.option for weight in self.weights if weight.name in arrays}
        required = [weight.name for weight in self.weights if not weight.option or weight.option in given]
        return all(name in arrays for name in required) and all(
            axes.get(name) == array.ndim for name, array in arrays.items()
        )

    def directions(self, spec: CellSpec, arrays: Mapping[str, Array], labels: Mapping[str, str]) -> list[Weights]:
        """The weights of each direction; a ValueError that begins with a label if shapes do not fit together."""
        known = {} if self.known is None else self.known(arrays)
        shapes = [arrays[name].shape if name in arrays else None for name in self.names]
        # The messages of `solve` begin with the names that it is given.
        names = [labels.get(name, name) for name in self.names]
        sizes = replace(spec, weights=self.weights).solve(shapes, {}, names, known)
        return self.split(arrays, sizes)


def reordered(
    spec: CellSpec,
    weights: Weights,
    gates: Sequence[str],
    *,
    forget_bias: float = 0.0,
    input_forget: bool = False,
    update_gate: str = "old",
) -> Weights:
    """The weights with the gates in the order of the cell.

    Both sigmoid and hard sigmoid have s(-a) = 1 - s(a), so a gate that is one minus another has its rows, negated.

    Parameters
    ----------
    spec : CellSpec
    weights : dict of str to ndarray
        Of one direction, named as in torch.nn.
    gates : sequence of str
        The order of the gates in `weights`. With `input_forget` i or f may be missing.
    forget_bias : float
        Added to the bias of f.
    input_forget : bool
        Whether f = 1 - i; without i among `gates`, i = 1 - f.
    update_gate : {"old", "new"}
        Which state z of a GRU weighs; "old" is that of torch.nn.
    """
    H = weights["weight_hh"].shape[0] // len(gates)
    source, derived = ("i", "f") if "i" in gates else ("f", "i")
    if forget_bias and "bias_ih" not in weights:
        rows = weights["weight_ih"].shape[:1]
        weights = weights | {name: np.zeros(rows, weights["weight_ih"].dtype) for name in ("bias_ih", "bias_hh")}

    def of_cell(name, array):
        blocks = {gate: array[k * H : (k + 1) * H] for k, gate in enumerate(gates)}
        if forget_bias and name == "bias_ih":
            blocks["f"] = blocks["f"] + array.dtype.type(forget_bias)
        if input_forget:
            blocks[derived] = -blocks[source]
        if update_gate == "new":
            blocks["z"] = -blocks["z"]
        return np.concatenate([blocks[gate] for gate in spec.gates])

    of_gates = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    result = {name: of_cell(name, array) if name in of_gates else array for name, array in weights.items()}
    if input_forget and "weight_peephole" in result:
        i, f, o = result["weight_peephole"]
        result["weight_peephole"] = np.stack([i, -i, o] if source == "i" else [-f, f, o])
    return result


# The parts of layouts


def _rows(gates):
    return f"{len(gates)}*H" if len(gates) > 1 else "H"


def _two_biases(named, bias):
    """Biases of torch.nn from a single one, which is added outside of the reset gate's product."""
    return {} if bias not in named else {"bias_ih": named[bias], "bias_hh": np.zeros_like(named[bias])}


def _spelled(spec, gates, transposed, two_biases):
    """Named as in torch.nn, with any order of gates, and matrices that may be transposed."""
    rows, turn = _rows(gates), np.transpose if transposed else np.asarray
    flip = slice(None, None, -1 if transposed else 1)
    weights = [
        Weight(weight.name, tuple(rows if n.endswith("*H") else n for n in weight.shape)[flip], weight.option)
        for weight in spec.weights
        if weight.name not in ("bias_ih", "bias_hh", "weight_peephole")
    ]
    biases = ("bias_ih", "bias_hh") if two_biases else ("bias",)
    weights[2:2] = [Weight(name, (rows,), "bias") for name in biases]
    weights += [weight for weight in spec.weights if weight.name == "weight_peephole"]

    def split(arrays, sizes):
        result = {name: turn(a) if name in ("weight_ih", "weight_hh", "weight_hr") else a for name, a in arrays.items()}
        single = _two_biases(result, "bias")
        result.pop("bias", None)
        return [result | single]

    return Layout(tuple(weights), gates, split)


def _fused(spec, gates, order, names, transposed=True, peepholes=(), projection=None):
    """One matrix for [x, h] ("xh") or [h, x] ("hx"), and one bias; `names` are theirs."""
    G, (kernel, bias) = len(gates), names
    shape = ("I+P", _rows(gates))
    weights = [Weight(kernel, shape if transposed else shape[::-1]), Weight(bias, (_rows(gates),), "bias")]
    weights += [Weight(name, ("H",), "peephole") for name in peepholes]
    if projection:
        weights.append(Weight(projection, ("H", "P"), "proj_size"))

    def known(arrays):
        H = arrays[kernel].shape[1 if transposed else 0] // G
        return {"H": H, "P": arrays[projection].shape[1] if projection in arrays else H}

    def split(arrays, sizes):
        both = arrays[kernel].T if transposed else arrays[kernel]
        I, P = sizes["I"], sizes["P"]
        x, h = (both[:, :I], both[:, I:]) if order == "xh" else (both[:, P:], both[:, :P])
        result = {"weight_ih": x, "weight_hh": h} | _two_biases(arrays, bias)
        if peepholes and peepholes[0] in arrays:
            result["weight_peephole"] = np.stack([arrays[name] for name in peepholes])
        if projection in arrays:
            result["weight_hr"] = arrays[projection].T
        return [result]

    return Layout(tuple(weights), gates, split, known)


def _keras(gates, bias_shape):
    """Keras' LSTM, GRU and SimpleRNN; `bias_shape` tells the forms of the bias apart."""
    rows = _rows(gates)
    weights = (
        Weight("kernel", ("I", rows)),
        Weight("recurrent_kernel", ("H", rows)),
        Weight("bias", bias_shape, "bias"),
    )

    def split(arrays, sizes):
        result = {"weight_ih": arrays["kernel"].T, "weight_hh": arrays["recurrent_kernel"].T}
        if len(bias_shape) == 1 or "bias" not in arrays:
            return [result | _two_biases(arrays, "bias")]
        return [result | dict(zip(("bias_ih", "bias_hh"), arrays["bias"]))]

    return Layout(weights, gates, split)


def _keras_cudnn(gates):
    """Keras' CuDNNLSTM and CuDNNGRU: a kernel holds for each gate the memory of (H, I) in the shape (I, H)."""
    rows, G = _rows(gates), len(gates)
    weights = (
        Weight("kernel", ("I", rows)),
        Weight("recurrent_kernel", ("H", rows)),
        Weight("bias", (f"{2 * G}*H",), "bias"),
    )

    def split(arrays, sizes):
        I, H = sizes["I"], sizes["H"]
        kernels, recurrent = (np.split(arrays[name], G, axis=1) for name in ("kernel", "recurrent_kernel"))
        result = {
            "weight_ih": np.concatenate([gate.reshape(H, I) for gate in kernels]),
            "weight_hh": np.concatenate(recurrent),
        }
        if "bias" in arrays:
            result |= dict(zip(("bias_ih", "bias_hh"), np.split(arrays["bias"], 2)))
        return [result]

    return Layout(weights, gates, split)


def _onnx(gates, has_peepholes):
    """The inputs of ONNX's LSTM, GRU and RNN, which have an axis of directions first."""
    rows, G = _rows(gates), len(gates)
    weights = [
        Weight("W", ("D", rows, "I")),
        Weight("R", ("D", rows, "H")),
        Weight("B", ("D", f"{2 * G}*H"), "bias"),
    ]
    if has_peepholes:
        weights.append(Weight("P", ("D", "3*H"), "peephole"))

    def split(arrays, sizes):
        result = []
        for d in range(sizes["D"]):
            result.append({"weight_ih": arrays["W"][d], "weight_hh": arrays["R"][d]})
            if "B" in arrays:
                result[d] |= dict(zip(("bias_ih", "bias_hh"), np.split(arrays["B"][d], 2)))
            if "P" in arrays:
                result[d]["weight_peephole"] = arrays["P"][d].reshape(3, sizes["H"])[[0, 2, 1]]  # from i, o, f
        return result

    return Layout(tuple(weights), gates, split)


def _tf1_gru(gates):
    """TensorFlow 1's GRUCell, whose candidate has a kernel of its own."""
    weights = (
        Weight("gates_kernel", ("I+P", "2*H")),
        Weight("gates_bias", ("2*H",)),
        Weight("candidate_kernel", ("I+P", "H")),
        Weight("candidate_bias", ("H",)),
    )

    def known(arrays):
        H = arrays["candidate_kernel"].shape[1]
        return {"H": H, "P": H}

    def split(arrays, sizes):
        I = sizes["I"]
        both = np.concatenate([arrays["gates_kernel"], arrays["candidate_kernel"]], axis=1).T
        bias = np.concatenate([arrays["gates_bias"], arrays["candidate_bias"]])
        return [{"weight_ih": both[:, :I], "weight_hh": both[:, I:]} | _two_biases({"bias": bias}, "bias")]

    return Layout(weights, gates, split, known)


# The named layouts

_KERNEL_AND_BIAS = ("kernel", "bias")
_PEEPHOLES = ("w_i_diag", "w_f_diag", "w_o_diag")

# For each layout and cell its variants, told apart by their names and their numbers of axes.
NAMED: dict[tuple[str, str], tuple[Layout, ...]] = {
    ("keras", "lstm"): (_keras(("i", "f", "g", "o"), ("4*H",)),),
    ("keras", "gru"): (_keras(("z", "r", "n"), ("2", "3*H")), _keras(("z", "r", "n"), ("3*H",))),
    ("keras", "rnn"): (_keras(("h",), ("H",)),),
    ("cudnn", "lstm"): (_keras_cudnn(("i", "f", "g", "o")),),
    ("cudnn", "gru"): (_keras_cudnn(("z", "r", "n")),),
    ("onnx", "lstm"): (_onnx(("i", "o", "f", "g"), True),),
    ("onnx", "gru"): (_onnx(("z", "r", "n"), False),),
    ("onnx", "rnn"): (_onnx(("h",), False),),
    ("tf1", "lstm"): (
        _fused(LSTM, ("i", "g", "f", "o"), "xh", _KERNEL_AND_BIAS, True, _PEEPHOLES, "projection_kernel"),
    ),
    ("tf1", "gru"): (_tf1_gru(("r", "z", "n")),),
    ("tf1", "rnn"): (_fused(RNN, ("h",), "xh", _KERNEL_AND_BIAS),),
}


def variants(
    spec: CellSpec, layout: str | None, gates: Sequence[str] | None, transposed: bool, fused: str | None
) -> tuple[Layout, ...]:
    """The variants of a layout, named or spelled out; none if the layout does not have the cell."""
    order = spec.gates if gates is None else tuple(gates)
    if layout is not None and layout != "torch":
        return NAMED.get((layout, spec.name), ())
    if fused is not None:
        return (_fused(spec, order, fused, ("weight", "bias"), transposed),)
    spelled = partial(_spelled, spec, order, transposed)
    return (spelled(True),) if layout == "torch" else (spelled(False), spelled(True))


def cudnn_buffer(spec: CellSpec, flat: Array, I: int, H: int, num_layers: int, D: int) -> list[Weights]:
    """The weights of each direction from cuDNN's buffer of parameters, of which the weights come first, then biases.

    Raises a ValueError if the buffer does not have as many numbers as parameters with two biases.
    """
    G = len(spec.gates)
    expected = D * G * H * (I + H + 2 + (num_layers - 1) * (D * H + H + 2))
    if flat.size != expected:
        raise ValueError(
            f"arrays: expected the ({expected},) numbers of input_size={I}, hidden_size={H}, num_layers={num_layers}, "
            f"bidirectional={D == 2}, got {flat.shape}"
        )
    inputs = [I if k < D else D * H for k in range(num_layers * D)]
    start = 0

    def take(*shape):
        nonlocal start
        start += math.prod(shape)
        return flat[start - math.prod(shape) : start].reshape(shape)

    result = [{"weight_ih": take(G * H, n), "weight_hh": take(G * H, H)} for n in inputs]
    for weights in result:
        weights |= {name: take(G * H) for name in ("bias_ih", "bias_hh")}
    return result
