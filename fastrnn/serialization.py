"""Layers in files: safetensors, with the constructor's arguments in the metadata.

The parameters lie in the file under their names, as torch.nn has them, little-endian. The metadata hold a single key,
"fastrnn", with a JSON object. A single key, because safetensors keeps no order among keys; so equal layers make equal
files:

    {"format_version": 2, "class": "LSTM", "arguments": {"input_size": 64, ..., "dtype": "float32"}}

Of a quantized layer the object also has "format", "int8" for example; scales stand beside their weights.
Nothing in a file is executed. Sizes are compared with the length of the file before anything is allocated.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np

from fastrnn._engine.formats import FORMATS
from fastrnn._engine.spec import FORMAT_VERSION, OPTIONS
from fastrnn._files import MOST_TENSORS, content_of, from_json, import_safetensors, parts_of, path_of, write_atomically
from fastrnn._parametrized import LAYERS, no_draws
from fastrnn._validation import flag, shape_error, short, size
from fastrnn.cells import Cell
from fastrnn.layers import Recurrent
from fastrnn.quantization import Quantized

__all__ = ["load", "save"]

Layer: TypeAlias = Recurrent[Any, Any] | Cell[Any, Any] | Quantized[Any, Any]

METADATA_KEY = "fastrnn"
QUANTIZED_VERSION = 3  # the version of files of quantized layers; others remain readable for an older fastrnn
NEWEST_VERSION = max(FORMAT_VERSION, QUANTIZED_VERSION)

# By the dtype among the arguments, or by the format: as safetensors calls it, and as it lies in the file.
DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32": ("F32", np.dtype("<f4")),
    "float64": ("F64", np.dtype("<f8")),
}
DTYPES |= {form.name: (form.name_in_files, form.dtype.newbyteorder("<")) for form in FORMATS.values()}

MOST_PROBLEMS_SHOWN = 8


def save(path: str | os.PathLike[str], layer: Layer) -> None:
    """Write a layer to a file: its parameters and the arguments it was made with.

    The file is in safetensors format, so that other programs can read the parameters; see `load`. A file
    under `path` is replaced atomically, or left as it is on any error.

    Parameters
    ----------
    path : str or os.PathLike
        The file. A new one has the permissions that the umask leaves. An existing file is replaced by a new one with
        its permissions, and with its owner and group as far as the system allows. If `path` is a symbolic link, the
        link stays and the file it points to is replaced, or made. Other hard links to the file keep the old content.
    layer : recurrent layer, cell or Quantized
        It may be frozen, which the file does not keep. `params` are written bit for bit.

    Raises
    ------
    ImportError
        If the package `safetensors` is not installed.
    TypeError
        If `path` is not a path, or `layer` not a layer; a subclass is not one, because `load` could not make it.
    ValueError
        If `path` exists and is not a file, or `layer` has more than 4096 parameters.
    OSError
        If the file cannot be written.

    See Also
    --------
    load

    Examples
    --------
    >>> import os, tempfile, fastrnn
    >>> layer = fastrnn.LSTM(64, 128, num_layers=2, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "layer.safetensors")
    ...     fastrnn.save(path, layer)
    ...     other = fastrnn.load(path)
    >>> other, other.params == layer.params
    (LSTM(64, 128, num_layers=2), True)
    """
    cls = layer._layer_class if type(layer) is Quantized else type(layer)
    if LAYERS.get(cls.__name__) is not cls:
        raise TypeError(f"layer: expected a layer ({', '.join(LAYERS)}), got {cls.__module__}.{cls.__qualname__}")
    path = path_of(path)
    if len(layer.params) > MOST_TENSORS:
        raise ValueError(f"layer: has {len(layer.params)} parameters, a file holds at most {MOST_TENSORS}")
    import_safetensors()
    import json

    from safetensors.numpy import save as to_bytes

    about = {"format_version": FORMAT_VERSION, "class": cls.__name__, "arguments": layer._constructor_arguments()}
    if isinstance(layer, Quantized):
        about |= {"format_version": QUANTIZED_VERSION, "format": layer.format}
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in layer.params.items()}
    data = to_bytes(arrays, {METADATA_KEY: json.dumps(about, allow_nan=False)})
    if isinstance(layer, Quantized) and layer._format.dtype.kind == "u":
        data = _with_dtype(data, layer._format.name_in_files)
    write_atomically(path, data)


def load(path: str | os.PathLike[str]) -> Layer:
    """A new layer from a file that `save` has written.

    Nothing in the file is executed, and no more memory is taken than about twice the file's size and 40 MB: files of
    unknown origin can be loaded.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    layer : recurrent layer, cell or Quantized
        Of the saved layer's class, made with the same arguments, with the same bits in `params`; not frozen. It does
        not depend on the file any more.

    Raises
    ------
    ImportError
        If the package `safetensors` is not installed.
    TypeError
        If `path` is not a path.
    ValueError
        If the file is damaged, or not one that `save` has written, or of a newer fastrnn. The message starts with
        `path`.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    See Also
    --------
    save

    Notes
    -----
    The parameters alone load into PyTorch, and into anything else that reads safetensors::

        torch_lstm = torch.nn.LSTM(64, 128, num_layers=2)
        torch_lstm.load_state_dict(safetensors.torch.load_file(path))

    For a file that torch or another program has written: ``fastrnn.from_state_dict(fastrnn.load_tensors(path))``.

    Examples
    --------
    See `save`.
    """
    path = path_of(path)
    import_safetensors()
    try:
        about, tensors = parts_of(content_of(path), METADATA_KEY, "fastrnn.save")
        return _build(about, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_dtype(data, dtype):
    """The file with another dtype in its header for unsigned integers, which NumPy has in place of bfloat16."""
    import json

    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["dtype"].startswith("U"):
            tensor["dtype"] = dtype
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays remain aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def _build(about, tensors):
    """The layer of which `about` is the description and `tensors` are the parameters."""
    cls, version, arguments, form = _parsed(about)
    dtype_name = arguments.get("dtype")
    allowed = ("float32", "float64") if form is None else ("float32",)
    if not isinstance(dtype_name, str) or dtype_name not in allowed:
        raise ValueError(f"dtype: expected {' or '.join(map(repr, allowed))}, got {short(dtype_name)}")

    def dtype_of(name):
        return DTYPES[form.name if form is not None and form.rounds(name) else dtype_name]

    others = [name for name, tensor in tensors.items() if tensor["dtype"] != dtype_of(name)[0]]
    _raise_if_any([f"{short(name)}: expected {dtype_of(name)[0]}, got {tensors[name]['dtype']}" for name in others])
    itemsize = DTYPES[dtype_name if form is None else form.name][1].itemsize
    try:
        _check_sizes(arguments, len(tensors), sum(len(t["data"]) for t in tensors.values()) // itemsize)
        layer, shapes = _without_values(cls, arguments, form)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of {cls.__name__}: {error}") from error
    _check_arguments(layer, cls, version, arguments)
    _raise_if_any(_misfits(shapes, tensors), f"the tensors do not fit {layer!r}: ")
    arrays = {name: np.frombuffer(tensors[name]["data"], dtype_of(name)[1]).reshape(shapes[name]) for name in shapes}
    if form is None:
        for name, array in layer.params.items():
            array[...] = arrays[name]
        layer._rng = np.random.default_rng()  # for the masks of dropout
    else:
        layer._check_values(arrays)
        layer._fill({name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()})
    return layer


def _without_values(cls, arguments, form):
    """A layer whose parameters are still to be set, quantized to the format if there is one, and their shapes."""
    if form is None:
        layer = cls(**arguments, rng=no_draws())
        return layer, {name: array.shape for name, array in layer.params.items()}
    layer = object.__new__(Quantized)
    layer._configure(cls, arguments, form)
    return layer, {name: shape for name, (shape, _) in layer._layout.items()}


def _check_arguments(layer, cls, version, arguments):
    """Refuse arguments that are not those of the layer made from them.

    The constructor has let an absent argument be its default, and might take another form of a value for the same.
    """
    expected = layer._constructor_arguments()
    for name in [name for name in expected if OPTIONS[name].since > version and name not in arguments]:
        del expected[name]
    if arguments != expected:
        names = [name for name in expected if name not in arguments or arguments[name] != expected[name]]
        raise ValueError(f"the arguments of {cls.__name__}: missing or unclear: {', '.join(names)}")


def _misfits(shapes, tensors):
    """The problems of tensors of a file that are not parameters of these shapes."""
    problems = []
    for name, shape in shapes.items():
        if name not in tensors:
            problems.append(f"{name}: missing")
        elif tuple(tensors[name]["shape"]) != shape:
            problems.append(str(shape_error(name, shape, (None,) * len(shape), tuple(tensors[name]["shape"]))))
    return problems + [f"{short(name)}: not a parameter" for name in tensors if name not in shapes]


def _parsed(about):
    """The class, the version of the file, the arguments, and the Format of a quantized layer or None."""
    try:
        about = from_json(about)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata are not JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"the metadata: expected a JSON object, got {short(about)}")
    version, name, arguments = (about.get(key) for key in ("format_version", "class", "arguments"))
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version: expected an integer of at least 1, got {short(version)}")
    if version > NEWEST_VERSION:
        raise ValueError(
            f"format_version: {short(version)}, from a newer fastrnn; this one reads up to {NEWEST_VERSION}"
        )
    if not isinstance(name, str) or name not in LAYERS:
        raise ValueError(f"class: expected one of {', '.join(LAYERS)}, got {short(name)}")
    if not isinstance(arguments, dict):
        raise ValueError(f"arguments: expected a JSON object, got {short(arguments)}")
    if "format" not in about:
        return LAYERS[name], version, arguments, None
    form = about["format"]
    if not isinstance(form, str) or form not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {short(form)}")
    if not issubclass(LAYERS[name], Recurrent):
        raise ValueError(f"format: a {name} is not quantized")
    return LAYERS[name], version, arguments, FORMATS[form]


def _check_sizes(arguments, tensors, numbers):
    """Refuses arguments that ask for more than the file holds, before anything is allocated.

    `least` counts a layer's weights as if it had one gate and neither biases nor projections. No layer has fewer
    numbers, and none has 16 times as many; so the constructor, after which the shapes are compared one by one, cannot
    take more than that.
    """
    I = size("input_size", arguments.get("input_size"))
    H = size("hidden_size", arguments.get("hidden_size"))
    L = size("num_layers", arguments.get("num_layers", 1))
    D = 1 + flag("bidirectional", arguments.get("bidirectional", False))
    H_out = size("proj_size", arguments.get("proj_size", 0), minimum=0) or H
    least = D * H * (I + H_out + (L - 1) * (D + 1) * H_out)
    if 2 * D * L > tensors or least > numbers:
        raise ValueError(
            f"input_size={short(I)}, hidden_size={short(H)}, num_layers={short(L)}: "
            f"more parameters than the file holds, {numbers} numbers in {tensors} tensors"
        )


def _raise_if_any(problems, prefix=""):
    if problems:
        more = len(problems) - MOST_PROBLEMS_SHOWN
        shown = problems[:MOST_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise ValueError(prefix + "; ".join(shown))
