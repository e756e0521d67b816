"""Layers for thinc: `LSTM`, `GRU` and `RNN` make models that take Padded, Ragged, lists and arrays.

Their arguments are those of thinc's own LSTM. Each model is a `with_padded` around one of `Model[Padded, Padded]`, and
runs the stateless form of `fastrnn.functional` with the lengths of the sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastrnn import functional
from fastrnn._engine.spec import SPECS
from fastrnn._validation import flag, probability, size

try:
    from thinc.api import Model, NumpyOps, glorot_uniform_init, registry, with_padded, zero_init
    from thinc.types import Padded
    from thinc.util import get_width
except ModuleNotFoundError as error:
    if error.name != "thinc":
        raise
    raise ImportError("fastrnn.thinc needs the package thinc: pip install 'fastrnn[thinc]'") from error

__all__ = ["GRU", "LSTM", "RNN"]


def LSTM(
    nO: int | None = None,
    nI: int | None = None,
    *,
    bi: bool = False,
    depth: int = 1,
    dropout: float = 0.0,
    init_W: Callable[..., Any] | None = None,
    init_b: Callable[..., Any] | None = None,
) -> Model[Any, Any]:
    """Make an LSTM for thinc, with the arguments of thinc.api.LSTM.

    Parameters
    ----------
    nO : int, optional
        The width of the output; of both directions together with `bi`, and then even. Default: that of the sample of
        outputs in `initialize`.
    nI : int, optional
        The width of the input. Default: that of the sample of inputs in `initialize`.
    bi : bool, default False
        Whether there are two directions.
    depth : int, default 1
        The number of layers.
    dropout : float, default 0.0
        The probability with which a number between two layers is set to zero in training, as in torch.nn.LSTM. It is
        the attribute "dropout_rate" of the model, which thinc.api.set_dropout_rate sets, and draws from
        ``numpy.random``, as thinc does.
    init_W, init_b : callable, optional
        Initializers of thinc for the matrices of each gate and for the biases. Default: glorot_uniform_init and
        zero_init, as in thinc.api.LSTM.

    Returns
    -------
    model : thinc.api.Model
        From Padded, Ragged, a list of arrays or an array (T, B, nI) to the same with nO. Its parameters, in the layer
        that it wraps, have the names, shapes and gate order of torch.nn: "weight_ih_l0" and so on.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range. On initialization, if the operations are not those of
        NumPy: there are no kernels for GPUs.

    Examples
    --------
    >>> from thinc.api import Softmax, chain, with_array
    >>> model = chain(fastrnn.thinc.LSTM(8, bi=True), with_array(Softmax(3)))
    >>> sequences = [np.ones((n, 5), np.float32) for n in (3, 2)]
    >>> model = model.initialize(sequences)
    >>> [y.shape for y in model.predict(sequences)]
    [(3, 3), (2, 3)]
    """
    return _model("lstm", nO, nI, bi, depth, dropout, init_W, init_b)


def GRU(
    nO: int | None = None,
    nI: int | None = None,
    *,
    bi: bool = False,
    depth: int = 1,
    dropout: float = 0.0,
    init_W: Callable[..., Any] | None = None,
    init_b: Callable[..., Any] | None = None,
) -> Model[Any, Any]:
    """Make a GRU for thinc, as `LSTM`."""
    return _model("gru", nO, nI, bi, depth, dropout, init_W, init_b)


def RNN(
    nO: int | None = None,
    nI: int | None = None,
    *,
    bi: bool = False,
    depth: int = 1,
    dropout: float = 0.0,
    init_W: Callable[..., Any] | None = None,
    init_b: Callable[..., Any] | None = None,
) -> Model[Any, Any]:
    """Make an RNN with tanh for thinc, as `LSTM`."""
    return _model("rnn", nO, nI, bi, depth, dropout, init_W, init_b)


for _layer in (LSTM, GRU, RNN):
    registry.layers(f"fastrnn.{_layer.__name__}.v1")(_layer)


def _model(kind, nO, nI, bi, depth, dropout, init_W, init_b):
    dirs = 1 + flag("bi", bi)
    nO, nI = (None if n is None else size(name, n) for name, n in (("nO", nO), ("nI", nI)))
    if nO is not None:
        _hidden(nO, dirs)
    depth = size("depth", depth)
    layer: Model[Padded, Padded] = Model(
        f"fastrnn_{kind}",
        _forward,
        dims={"nO": nO, "nI": nI, "depth": depth, "dirs": dirs},
        attrs={"kind": kind, "dropout_rate": probability("dropout", dropout)},
        params={name: None for group in _names(kind, depth, dirs) for name in group.values()},
        init=partial(_initialize, init_W or glorot_uniform_init, init_b or zero_init),
    )
    return with_padded(layer)


def _hidden(nO, dirs):
    """The hidden units of each direction."""
    if nO % dirs:
        raise ValueError(f"nO: expected an even number for two directions, got {nO}")
    return nO // dirs


def _names(kind, depth, dirs):
    """For each direction of each layer, the names of its parameters by those of `fastrnn.functional`."""
    weights = [weight.name for weight in SPECS[kind].weights if weight.name[-2:] in ("ih", "hh")]
    ends = [f"_l{k}{direction}" for k in range(depth) for direction in ("", "_reverse")[:dirs]]
    return [{name: name + end for name in weights} for end in ends]


def _initialize(init_W, init_b, model, X=None, Y=None):
    """Set the parameters, each gate by itself, as thinc.api.LSTM does."""
    if not isinstance(model.ops, NumpyOps):
        raise ValueError(f"ops: expected those of NumPy, got {type(model.ops).__name__}")
    if X is not None:
        model.set_dim("nI", get_width(X))
    if Y is not None:
        model.set_dim("nO", get_width(Y))
    kind, dirs = model.attrs["kind"], model.get_dim("dirs")
    H, gates = _hidden(model.get_dim("nO"), dirs), len(SPECS[kind].gates)
    for k, names in enumerate(_names(kind, model.get_dim("depth"), dirs)):
        n = model.get_dim("nI") if k < dirs else dirs * H
        shapes = {"weight_ih": (H, n), "weight_hh": (H, H), "bias_ih": (H,), "bias_hh": (H,)}
        for name, full in names.items():
            init = init_b if name.startswith("bias") else init_W
            model.set_param(full, np.concatenate([init(model.ops, shapes[name]) for _ in range(gates)]))


def _forward(model, Xp, is_train):
    """The outputs of a batch, and the function from their gradient to that of the inputs."""
    kind, dirs = model.attrs["kind"], model.get_dim("dirs")
    names = _names(kind, model.get_dim("depth"), dirs)
    weights = [{name: model.get_param(full) for name, full in one.items()} for one in names]
    options = {"lengths": Xp.lengths, "bidirectional": dirs == 2}
    if is_train and model.attrs["dropout_rate"]:
        options |= {"dropout": model.attrs["dropout_rate"], "seed": int(model.ops.xp.random.randint(2**31))}
    if not is_train:
        return _like(Xp, functional.infer(kind, Xp.data, None, weights, **options)[0]), _no_backprop
    output, _, reserve = functional.forward(kind, Xp.data, None, weights, **options)

    def backprop(dYp):
        d_x, _, gradients = functional.backward(kind, reserve, Xp.data, None, weights, dYp.data, **options)
        for one, found in zip(names, gradients):
            for name, full in one.items():
                model.inc_grad(full, found[name])
        return _like(dYp, d_x)

    return _like(Xp, output), backprop


def _no_backprop(dYp):
    raise ValueError("is_train: was False in the forward pass, which kept nothing for a backward pass")


def _like(padded, data):
    return Padded(data, padded.size_at_t, padded.lengths, padded.indices)
