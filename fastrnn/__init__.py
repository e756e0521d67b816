"""Fast recurrent layers for NumPy: fused kernels, forward and backward, the same bits on every run.

A layer, such as `LSTM` or `GRU`, computes sequences; a cell, such as `LSTMCell`, computes one step.
`fastrnn.functional` has the same on raw arrays, and `fastrnn.reference` in plain NumPy.
"""

try:
    import fastrnn._core as _core  # noqa: F401
except ModuleNotFoundError as _missing:
    if _missing.name != "fastrnn._core":
        raise
    # With the name of the package `python -m fastrnn` prints the message alone.
    raise ImportError(
        f"{__path__[0]} is the source tree, not built: there is no fastrnn._core for this Python in it. Run "
        "`make build` and .venv/bin/python, or leave the folder, so that Python finds the package that was installed.",
        name="fastrnn",
    ) from None

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

from fastrnn import cells, functional, layers, reference
from fastrnn._config import config, show_config
from fastrnn._threadpoolctl import register_if_imported, register_threadpoolctl
from fastrnn._threads import get_num_threads, set_num_threads
from fastrnn._version import __version__
from fastrnn.cells import *  # noqa: F403
from fastrnn.layers import *  # noqa: F403
from fastrnn.parameters import Parameters
from fastrnn.quantization import Comparison, Quantized, QuantizedParameters, compare
from fastrnn.serialization import load, save

if _TYPE_CHECKING:
    from fastrnn import capi, distributed, optim
    from fastrnn.capi import get_include
    from fastrnn.keras import from_keras
    from fastrnn.linear import Linear
    from fastrnn.losses import mean_squared_error, softmax_cross_entropy
    from fastrnn.masking import masked
    from fastrnn.onnx import from_onnx, to_onnx
    from fastrnn.sequences import pad, unpad
    from fastrnn.tensors import load_tensors
    from fastrnn.weights import from_state_dict, from_weights

__all__ = [
    "Comparison",
    "Linear",
    "Parameters",
    "Quantized",
    "QuantizedParameters",
    "__version__",
    "capi",
    "compare",
    "config",
    "distributed",
    "from_keras",
    "from_onnx",
    "from_state_dict",
    "from_weights",
    "functional",
    "get_include",
    "get_num_threads",
    "load",
    "load_tensors",
    "masked",
    "mean_squared_error",
    "optim",
    "pad",
    "reference",
    "register_threadpoolctl",
    "save",
    "set_num_threads",
    "show_config",
    "softmax_cross_entropy",
    "to_onnx",
    "unpad",
]
__all__ += layers.__all__
__all__ += cells.__all__

# Names and the modules in which they stand, or which they are, imported at the first use.
_ON_DEMAND = {
    "capi": "capi",
    "distributed": "distributed",
    "from_keras": "keras",
    "from_onnx": "onnx",
    "from_state_dict": "weights",
    "from_weights": "weights",
    "get_include": "capi",
    "Linear": "linear",
    "load_tensors": "tensors",
    "masked": "masking",
    "mean_squared_error": "losses",
    "optim": "optim",
    "pad": "sequences",
    "softmax_cross_entropy": "losses",
    "to_onnx": "onnx",
    "unpad": "sequences",
}


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    module = _importlib.import_module(f"fastrnn.{_ON_DEMAND[name]}")
    value = globals()[name] = module if name == _ON_DEMAND[name] else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND})


# The public name, in pickles, too, which so do not depend on the module that the class stands in.
Parameters.__module__ = "fastrnn"

register_if_imported()
