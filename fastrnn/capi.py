"""The C interface from Python: headers, the table of functions, and layers packed for it.

Cython, cffi, ctypes and Numba call a function of the C library without Python's overhead, so a step of a stream costs
little more than its arithmetic. docs/c.md describes the interface; csrc/fastrnn_stream.h is the manual of streams.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import _core  # type: ignore[attr-defined]  # a submodule
from fastrnn._config import instruction_set, runnable
from fastrnn._validation import choice

if TYPE_CHECKING:
    from fastrnn.layers import Recurrent

__all__ = ["PackedStream", "address", "export_c", "function"]


def get_include() -> str:
    """Return the folder of the headers, for the ``include_dirs`` of an extension module.

    Returns
    -------
    folder : str
        It contains ``fastrnn.h``, ``fastrnn_stream.h`` and ``fastrnn_api.h``.

    Examples
    --------
    >>> import os
    >>> os.path.exists(os.path.join(fastrnn.get_include(), "fastrnn_stream.h"))
    True
    """
    return str(_sources("include", "."))


def _sources(installed: str, folder: str) -> Path:
    """A folder of csrc/: as a part of the package that was installed, or in the source tree."""
    package = Path(__file__).resolve().parent
    return package / installed if (package / installed).is_dir() else (package.parent / "csrc" / folder).resolve()


# The functions of fastrnn_api in csrc/fastrnn_api.h, which follow two ints.
_FUNCTIONS = (
    "isa_at", "isa_name", "isa_is_supported", "find_cell", "cell_at", "pack", "packed_free", "workspace_create",
    "workspace_free", "tape_layout", "forward", "backward", "stream_pack", "stream_free", "stream_inputs",
    "stream_outputs", "stream_packed_bytes", "stream_state_bytes", "stream_reset", "stream_step", "stream_steps",
    "stream_get_state", "stream_set_state",
)  # fmt: skip


class _Table(ctypes.Structure):
    _fields_ = [("abi", ctypes.c_int), ("version", ctypes.c_int), *((name, ctypes.c_void_p) for name in _FUNCTIONS)]


def address() -> int:
    """Return the address of the table of functions, a constant ``fastrnn_api`` of ``fastrnn_api.h``.

    Examples
    --------
    With cffi: ``api = ffi.cast("fastrnn_api *", fastrnn.capi.address())``, then ``api.stream_step(...)``.
    """
    return _core.api_address()


def function(name: str) -> int:
    """Return the address of one function of the table.

    Parameters
    ----------
    name : str
        A field of ``fastrnn_api``, ``"stream_step"`` for ``fastrnn_stream_step``.

    Returns
    -------
    address : int

    Raises
    ------
    ValueError
        If the table has no such function.

    Examples
    --------
    >>> import ctypes, fastrnn.capi
    >>> abi = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(fastrnn.capi.function("isa_name"))
    >>> abi(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(fastrnn.capi.function("isa_at"))(0))
    b'generic'
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"name: expected one of {', '.join(_FUNCTIONS)}, got {name!r}")
    return getattr(_Table.from_address(address()), name)


class PackedStream(_core.PackedStream):
    """The weights of a layer as a ``fastrnn_stream``, for the functions ``fastrnn_stream_*``.

    A constant copy of the weights from the time of construction, which any number of threads may use. A step has the
    bits of ``layer.stream().step``.

    Parameters
    ----------
    layer : LSTM or another recurrent layer
        Of one direction, forward; any number of layers.
    isa : str, optional
        The instruction set whose kernels run the stream, one that this processor supports. Default: the one in use,
        ``fastrnn.config()["instruction_set"]``.

    Attributes
    ----------
    address : int
        The address of the ``fastrnn_stream``. It is valid as long as this object exists.
    dtype : dtype
        Of the weights, of x and of y: float32 or float64.
    inputs, outputs : int
        The numbers of x and of y.
    state_bytes, nbytes : int
        The bytes of the state of one sequence, and of the packed weights.

    Raises
    ------
    TypeError
        If `layer` is no layer of fastrnn, or a quantized one, or `isa` is no string.
    ValueError
        If the layer is bidirectional or reverse, because then its output at a step depends on all later steps; or if
        `isa` is unknown or not supported by this processor.

    Examples
    --------
    >>> import fastrnn.capi
    >>> packed = fastrnn.capi.PackedStream(fastrnn.LSTM(1, 40, rng=0))
    >>> packed.inputs, packed.outputs
    (1, 40)
    >>> packed.new_state().nbytes == packed.state_bytes
    True
    """

    def __init__(self, layer: Recurrent[Any, Any], *, isa: str | None = None) -> None:
        from fastrnn.layers import Recurrent
        from fastrnn.quantization import Quantized

        if isinstance(layer, Quantized):
            raise TypeError("layer: C has no streams of quantized layers; layer.dequantized() has the same weights")
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected a layer of fastrnn, got {type(layer).__name__}")
        stack = layer._stack
        if stack.directions != (False,):
            kind = "bidirectional" if len(stack.directions) == 2 else "reverse"
            raise ValueError(f"layer: a {kind} layer has no output before it has seen the last step")
        in_use = instruction_set()
        isa = in_use if isa is None else choice("isa", isa, dict.fromkeys((*runnable(), in_use)))
        super().__init__(stack.kernel, layer._weights, isa)
        self.dtype = stack.dtype
        self.inputs, self.outputs = stack.I, stack.P
        self._layer = repr(layer)

    def __reduce__(self):
        raise TypeError("a packed stream cannot be copied or pickled; make another from the layer")

    def __repr__(self) -> str:
        return f"<PackedStream of {self._layer}>"

    def new_state(self) -> NDArray[np.uint8]:
        """Return memory for the state of one sequence, zeros: the state before the first step.

        Returns
        -------
        state : ndarray of uint8, (state_bytes,)
            At a multiple of 64 bytes. ``state.ctypes.data`` is the pointer.
        """
        memory = np.zeros(self.state_bytes + _core.ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _core.ALIGNMENT
        return memory[start : start + self.state_bytes]


def export_c(layer: Recurrent[Any, Any], path: str | os.PathLike[str], name: str | None = None) -> None:
    """Write a layer as one self-contained C header, for microcontrollers and for programs that link no library.

    The header has the weights as constants, and the kernels in plain C that a step needs. Its comment describes its
    use. It computes the bits of the ``generic`` kernels, on any processor with IEEE 754 arithmetic.

    Parameters
    ----------
    layer : LSTM or another recurrent layer
        Of one direction, forward; any number of layers.
    path : str or path
        The header, written atomically.
    name : str, optional
        The beginning of the names in it, an identifier of C. Default: the stem of `path`.

    Raises
    ------
    TypeError
        If `layer` is no layer of fastrnn.
    ValueError
        If it is bidirectional or reverse, or has weights that are not finite; or if `name` is no identifier.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import fastrnn.capi, os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "amplifier.h")
    >>> fastrnn.capi.export_c(fastrnn.LSTM(1, 8, rng=0), path)
    >>> with open(path) as file:
    ...     "amplifier_step(amplifier_state *state, const float *x, float *y)" in file.read()
    True
    >>> folder.cleanup()
    """
    from fastrnn._export_c import header
    from fastrnn._files import path_of, write_atomically

    path = path_of(path)
    text = header(layer, Path(path).stem if name is None else name)
    write_atomically(path, text.encode())
