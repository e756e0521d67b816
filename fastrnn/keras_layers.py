"""Layers for Keras models on the backend of PyTorch: `LSTM`, `GRU` and `SimpleRNN`, computed by the kernels.

They are subclasses of their namesakes in `keras.layers`, with the same arguments, weights, configuration and files.
`replace` turns the recurrent layers of a model into them, and `restore` turns them back. Between Keras and the kernels
lies the stateless form of `fastrnn.functional`, as a function of PyTorch's autograd.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from fastrnn import functional
from fastrnn.keras import options_of

BACKEND = "the backend of PyTorch: set KERAS_BACKEND=torch before keras is imported"

try:
    import keras
    import torch
except ModuleNotFoundError as error:
    if error.name in ("keras", "torch"):
        raise ImportError(
            f"fastrnn.keras_layers needs the packages keras and torch, and {error.name} is missing: "
            "pip install 'fastrnn[keras,torch]'"
        ) from error
    if error.name != "tensorflow":  # the default backend
        raise
    raise ImportError(f"fastrnn.keras_layers needs {BACKEND}") from error
if keras.backend.backend() != "torch":
    raise ImportError(f"fastrnn.keras_layers needs {BACKEND}; Keras runs on {keras.backend.backend()}")

__all__ = ["GRU", "LSTM", "Replaced", "SimpleRNN", "replace", "restore"]

NUMPY_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class Steps(torch.autograd.Function):
    """A layer over (T, B, I), from its states (B, H) and weights: output (T, B, H) and the states after."""

    @staticmethod
    def forward(ctx, kind, names, options, states, x, *tensors):
        array, state, weights = _arrays(names, states, x, *tensors)
        output, state_n, reserve = functional.forward(kind, array, state, weights, **options)
        ctx.kind, ctx.names, ctx.options, ctx.states = kind, names, options, states
        ctx.save_for_backward(torch.from_numpy(reserve), x, *tensors)
        ctx.set_materialize_grads(False)
        return (torch.from_numpy(output), *[torch.from_numpy(s[0]) for s in state_n])

    @staticmethod
    def backward(ctx, d_output, *d_state_n):
        if torch.is_grad_enabled():  # create_graph=True
            raise NotImplementedError(
                "fastrnn.keras_layers: the gradient of a gradient is not computed; "
                "after fastrnn.keras_layers.restore(model), Keras computes it"
            )
        reserve, x, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        if d_output is None and all(d is None for d in d_state_n):
            return (None,) * (4 + len(needed))
        x, state, weights = _arrays(ctx.names, ctx.states, x, *tensors)
        d_output = None if d_output is None else d_output.numpy()
        d_after = [None if d is None else d.numpy()[None] for d in d_state_n]
        d_x, d_state, (d_weights,) = functional.backward(
            ctx.kind, reserve.numpy(), x, state, weights, d_output, d_after, **ctx.options
        )
        found = [d_x, *[d[0] for d in d_state], *[d_weights[name] for name in ctx.names]]
        return (None, None, None, None, *[torch.from_numpy(d) if need else None for d, need in zip(found, needed)])


def _arrays(names, states, x, *tensors):
    """x, state and weights for the functions of `fastrnn.functional`."""
    x, *others = [tensor.numpy(force=True) for tensor in (x, *tensors)]
    return x, tuple([s[None] for s in others[:states]]), [dict(zip(names, others[states:]))]


class Recurrent(keras.layers.RNN):
    """The base of the layers: the loop over the steps of a layer of Keras, by the kernels."""

    _base: ClassVar[Any]

    @cached_property
    def _kernel(self):
        """The kind and the options of the kernels; raises ValueError for a setting without an equivalent."""
        name = self._base.__name__
        try:
            config = self._base.get_config(self)
            if config["recurrent_dropout"]:
                raise ValueError(f"recurrent_dropout: {config['recurrent_dropout']} has no equivalent, only 0")
            if config["dropout"] and getattr(self.cell, "implementation", 2) == 1:
                raise ValueError("dropout: with implementation=1 has no equivalent, only with 2")
            if getattr(self, "use_cudnn", "auto") is True:
                raise ValueError("use_cudnn: True has no equivalent, only 'auto' and False")
            return options_of(name, config, keras.__version__)
        except ValueError as error:
            raise ValueError(f"{error}; keras.layers.{name} computes it") from None

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """last_output (B, H), outputs (B, T, H) and the states, of sequences (B, T, I)."""
        if sequences.is_meta:  # Keras asks for shapes
            return super().inner_loop(sequences, initial_state, mask, training)
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if training and self.cell.dropout:
            sequences = sequences * self.cell.get_dropout_mask(sequences[:, 0]).unsqueeze(1)
        x, mask = sequences.transpose(0, 1), None if mask is None else mask.bool().transpose(0, 1)
        if self.go_backwards:
            x, mask = x.flip(0), None if mask is None else mask.flip(0)
        if mask is None:
            output, *states = self._run(x, initial_state, None)
            last_output = states[0]
        else:
            order = torch.argsort(~mask, dim=0, stable=True)
            output, *states = self._run(x.take_along_dim(order.unsqueeze(-1), 0), initial_state, mask.sum(0))
            last_output, output = self._masked(output, states[0], mask)
        outputs = output.transpose(0, 1) if self.return_sequences else last_output.unsqueeze(1)
        return last_output, outputs, states

    def _run(self, x, initial_state, lengths):
        """output (T, B, H) and the states after, of x (T, B, I)."""
        kind, options = self._kernel
        # A layer that keeps its states overwrites them, also those that a backward pass still needs.
        states = [state.clone() for state in initial_state] if self.stateful else list(initial_state)
        weights = self._weights_by_name()
        tensors = [x, *states, *weights.values()]
        for tensor in tensors:
            if tensor.device.type != "cpu" or tensor.dtype not in NUMPY_DTYPES:
                raise ValueError(
                    f"{self.name}: expected tensors of float32 or float64 on the CPU, got {tensor.dtype} on "
                    f"{tensor.device}"
                )
        if lengths is not None:
            options = options | {"lengths": lengths.numpy()}
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return Steps.apply(kind, tuple(weights), options, len(states), *tensors)
        array, state, arrays = _arrays(tuple(weights), len(states), *tensors)
        output, state_n = functional.infer(kind, array, state, arrays, **options)
        return [torch.from_numpy(array) for array in (output, *[s[0] for s in state_n])]

    def _masked(self, output, h_n, mask):
        """last_output and outputs, of the outputs of the valid steps, which lie in front."""
        before = mask.cumsum(0)  # valid steps up to this one
        empty = ~mask if self.zero_output_for_mask else before == 0
        last_output = h_n.masked_fill(empty[-1].unsqueeze(-1), 0)
        if self.return_sequences:
            output = output.take_along_dim((before - 1).clamp(min=0).unsqueeze(-1), 0)
            output = output.masked_fill(empty.unsqueeze(-1), 0)
        return last_output, output

    def _weights_by_name(self):
        """The weights of the cell in the layout of the kernels, by their names there."""
        cell = self.cell
        weights = {"weight_ih": cell.kernel, "weight_hh": cell.recurrent_kernel}
        weights = {name: self._rows(tensor.value.t().contiguous()) for name, tensor in weights.items()}
        if cell.bias is not None:
            biases = cell.bias.value.reshape(-1, weights["weight_ih"].shape[0])
            weights |= {name: self._rows(bias) for name, bias in zip(("bias_ih", "bias_hh"), biases)}
        return weights

    def _rows(self, array):
        """The rows of all gates in the order of the kernels."""
        return array


class LSTM(Recurrent, keras.layers.LSTM):
    """keras.layers.LSTM, computed by the kernels of fastrnn."""

    _base = keras.layers.LSTM

    def __init__(self, *arguments: Any, **named: Any) -> None:
        keras.layers.LSTM.__init__(self, *arguments, **named)
        self._kernel  # noqa: B018


class GRU(Recurrent, keras.layers.GRU):
    """keras.layers.GRU, computed by the kernels of fastrnn."""

    _base = keras.layers.GRU

    def __init__(self, *arguments: Any, **named: Any) -> None:
        keras.layers.GRU.__init__(self, *arguments, **named)
        self._kernel  # noqa: B018

    def _rows(self, array):
        z, r, n = array.chunk(3)
        return torch.cat([r, z, n])


class SimpleRNN(Recurrent, keras.layers.SimpleRNN):
    """keras.layers.SimpleRNN, computed by the kernels of fastrnn."""

    _base = keras.layers.SimpleRNN

    def __init__(self, *arguments: Any, **named: Any) -> None:
        keras.layers.SimpleRNN.__init__(self, *arguments, **named)
        self._kernel  # noqa: B018


for _layer in (LSTM, GRU, SimpleRNN):
    keras.saving.register_keras_serializable(package="fastrnn")(_layer)
FAST = {cls._base: cls for cls in (LSTM, GRU, SimpleRNN)}


class Replaced(list[str]):
    """The result of `replace`: the paths of the layers that are now of fastrnn.keras_layers.

    Attributes
    ----------
    left : dict of str to str
        The paths of the other recurrent layers, and why they were not replaced.
    """

    def __init__(self, replaced: Iterable[str], left: dict[str, str]) -> None:
        super().__init__(replaced)
        self.left = left

    @property
    def replaced(self) -> list[str]:
        """The list itself, under the name that the result of `fastrnn.torch.replace` has for it."""
        return list(self)


def replace(model: Any) -> Replaced:
    """Turn the recurrent layers of a model into layers of fastrnn.keras_layers, in place.

    Only the class of a layer changes: the layer, its variables and its name stay the same objects, and so do the
    optimizer and the keys of saved weights. Subclasses of keras.layers.LSTM, GRU and SimpleRNN are left as they are,
    and so are layers with a setting that has no equivalent, such as ``recurrent_dropout``, and layers whose dtype
    policy computes in another precision than float32 and float64, such as "mixed_bfloat16".

    Parameters
    ----------
    model : keras.Layer
        A model or a layer. It is searched with all layers inside it.

    Returns
    -------
    replaced : Replaced
        The list of the paths of the layers that were replaced. Its attribute `left` has the paths of those that were
        left, with the reason.

    Raises
    ------
    TypeError
        If `model` is no layer or model of Keras.

    See Also
    --------
    restore
    """
    replaced, left = [], {}
    for layer in _layers(model):
        if not isinstance(layer, keras.layers.RNN) or isinstance(layer, Recurrent):
            continue
        path, reason = layer.path or layer.name, _unfit(layer)
        if reason is not None:
            left[path] = reason
            continue
        original, layer.__class__ = type(layer), FAST[type(layer)]
        try:
            layer._kernel  # noqa: B018
        except ValueError as error:
            layer.__class__ = original
            left[path] = str(error)
        else:
            replaced.append(path)
    return Replaced(replaced, left)


def _unfit(layer):
    """Why a recurrent layer cannot be replaced, whatever its settings; None if it can."""
    if type(layer) not in FAST:
        name = type(layer).__name__
        if type(layer) is keras.layers.RNN:
            return f"an RNN of {type(layer.cell).__name__} has no equivalent, only LSTM, GRU and SimpleRNN"
        return f"{name} is a subclass" if isinstance(layer, tuple(FAST)) else f"{name} has no equivalent"
    if layer.compute_dtype not in ("float32", "float64"):
        policy = f"{layer.dtype_policy.name} computes in {layer.compute_dtype}"
        return f"dtype: {policy}, only float32 and float64 are supported"
    return None


def restore(model: Any) -> list[str]:
    """Turn the layers of fastrnn.keras_layers in a model into their namesakes of keras.layers, in place.

    Parameters
    ----------
    model : keras.Layer

    Returns
    -------
    restored : list of str
        The paths of the layers that were turned back.

    Raises
    ------
    TypeError
        If `model` is no layer or model of Keras.

    See Also
    --------
    replace
    """
    restored = []
    for layer in _layers(model):
        if isinstance(layer, Recurrent) and FAST.get(layer._base) is type(layer):
            layer.__class__ = layer._base
            restored.append(layer.path or layer.name)
    return restored


def _layers(model):
    """A layer, and all layers inside it."""
    if not isinstance(model, keras.Layer):
        raise TypeError(f"model: expected a layer or a model of Keras, got {type(model).__name__}")
    return list(model._flatten_layers())
