"""Live modules of torch.nn as state_dicts and options, without importing PyTorch: whoever has a module has imported it.

A state_dict does not show `batch_first`, `dropout` and the `nonlinearity` of an RNN; a module does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn._validation import short

__all__ = ["ModuleState", "is_module", "unfit_kind", "state_of"]

MODES = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "rnn"}
CELLS = {"LSTMCell": "lstm", "GRUCell": "gru", "RNNCell": "rnn"}
RECURRENT = frozenset(("LSTM", "GRU", "RNN", *CELLS))
MOST_NAMES_SHOWN = 12


class ModuleState(NamedTuple):
    """The recurrent module that was found in a model.

    Parameters
    ----------
    mapping : mapping of str to Tensor
        Its state_dict.
    prefix : str
        The beginning of all names in the mapping: "", or the name of the module and a dot.
    kind : str
        The cell, "lstm" for example.
    options : dict
        Those that the state_dict does not show.
    """

    mapping: Mapping[str, Any]
    prefix: str
    kind: str
    options: dict[str, Any]


def is_module(value: object) -> bool:
    """Whether the value is a torch.nn.Module, other than a mapping of names to parameters."""
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    return nn is not None and isinstance(value, nn.Module) and not isinstance(value, nn.ParameterDict)


def unfit_kind(module: Any) -> str | None:
    """Why a recurrent module of PyTorch has no floating-point parameters of torch.nn; None for any other module."""
    script = getattr(module, "original_name", None) if _is_script(module) else None
    if script in RECURRENT:
        return f"{script} is TorchScript"
    for cls in type(module).__mro__:
        if cls.__name__ in RECURRENT and cls.__module__.startswith(("torch.ao.nn.quantiz", "torch.nn.quantiz")):
            return f"{cls.__module__}.{cls.__name__} is quantized"
    return None


def state_of(model: Any, prefix: str | None, given: Mapping[str, Any]) -> ModuleState:
    """The state of the module of torch.nn with the name `prefix`, or of the only recurrent one.

    Raises
    ------
    TypeError
        If `prefix` is not a string.
    ValueError
        If there is no such module or more than one, or if an option of `given` contradicts the module.
    """
    name, module = _find(model, prefix)
    begin = f"{name}." if name else ""
    kind, options = _options(begin, module)
    for option, value in options.items():
        if option in given and not np.array_equal(given[option], value):
            raise ValueError(
                f"{option}: {short(given[option])} does not agree with the module, in which it is {value!r}"
            )
    if module.__dict__.get("num_layers") == 1:
        options.pop("dropout", None)  # it has no effect, of which PyTorch has warned
    return ModuleState(module.state_dict(prefix=begin), begin, kind, options)


def _is_script(module):
    script = getattr(getattr(sys.modules.get("torch"), "jit", None), "ScriptModule", None)
    return script is not None and isinstance(module, script)


def _is_recurrent(module):
    nn = sys.modules["torch"].nn
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def _find(model, prefix):
    """Name and module of a recurrent module."""
    modules = dict(model.named_modules())
    found = [name for name, module in modules.items() if _is_recurrent(module)]
    if prefix is None:
        if len(found) == 1:
            return found[0], modules[found[0]]
        if found:
            raise ValueError(
                f"mapping: more than one recurrent layer; give its prefix; prefixes found: {_shown(found)}"
            )
        for name, module in modules.items():
            _refuse_unfit(name, module)
        raise ValueError(f"mapping: no recurrent module of torch.nn within the {type(model).__name__}")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a string, got {prefix!r}")
    name = prefix.removesuffix(".")
    try:
        module = model.get_submodule(name)
    except AttributeError:
        module = None
    if not _is_recurrent(module):
        if module is not None:
            _refuse_unfit(name, module)
        raise ValueError(f"prefix: {prefix!r} is no recurrent module of torch.nn; prefixes found: {_shown(found)}")
    return name, module


def _shown(found):
    more = f" and {len(found) - MOST_NAMES_SHOWN} more" if len(found) > MOST_NAMES_SHOWN else ""
    return (", ".join(map(repr, found[:MOST_NAMES_SHOWN])) or "none") + more


def _refuse_unfit(name, module):
    reason = unfit_kind(module)
    if reason is not None:
        remedy = "give the module that was not yet quantized"
        if _is_script(module):
            remedy = "give its state_dict(), with batch_first, and the nonlinearity of an RNN"
        raise ValueError(f"mapping: {name + ': ' if name else ''}{reason}; {remedy}")


def _options(begin, module):
    """The cell of a module of torch.nn, and its options beyond those that the state_dict shows."""
    nn = sys.modules["torch"].nn
    if isinstance(module, nn.RNNCellBase):
        for name, kind in CELLS.items():
            if isinstance(module, getattr(nn, name)):
                return kind, {"nonlinearity": module.nonlinearity} if kind == "rnn" else {}
        raise ValueError(f"mapping: {begin}{type(module).__name__} is no LSTMCell, GRUCell or RNNCell")
    if module.mode not in MODES:
        raise ValueError(f"mapping: {begin}mode: expected one of {', '.join(MODES)}, got {short(module.mode)}")
    options = {"batch_first": bool(module.batch_first), "dropout": float(module.dropout)}
    if MODES[module.mode] == "rnn":
        options["nonlinearity"] = module.mode.partition("_")[2].lower()
    return MODES[module.mode], options
