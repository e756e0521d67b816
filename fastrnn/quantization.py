"""Layers whose weights have fewer bits, for inference, and how far their outputs are from those of another layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import layers
from fastrnn._core import WEIGHTS
from fastrnn._engine.formats import FORMATS, Format, FormatName
from fastrnn._engine.spec import MATRICES, OPTIONS
from fastrnn._parametrized import LAYERS, Configured, Frozen, Given, Returned, no_draws
from fastrnn._validation import FLOAT32, Array, choice, names_arguments, number
from fastrnn.layers import InferenceLayer, Recurrent
from fastrnn.parameters import checked_version

__all__ = ["Comparison", "Quantized", "QuantizedParameters", "compare"]

PICKLE_VERSION = 1

REMEDY = "a quantized layer is for inference: train the float32 layer, or dequantized(), and quantize it again"


def _scale_of(name):
    """The name of the scales of a weight."""
    return name.replace("weight_", "scale_")


def _layout(shapes, form):
    """name -> (shape, dtype) of each array of a quantized layer, of the shapes of the parameters of the layer."""
    layout = {}
    for name, shape in shapes.items():
        layout[name] = shape, form.dtype if form.rounds(name) else FLOAT32
        if form.has_scales and form.rounds(name):
            layout[_scale_of(name)] = shape[:1], FLOAT32
    return layout


# A tuple of the weights of one direction as the kernels take them; None for absent ones.
KERNEL_WEIGHTS = (*WEIGHTS, *map(_scale_of, MATRICES))


class QuantizedParameters(Mapping[str, Array]):
    """The parameters of a quantized layer by name, read-only.

    The weights of matrix products have the dtype of their format, or are its bit patterns in an unsigned integer where
    NumPy lacks it. If the format has scales, those of `weight_ih_l0` (G, I) are `scale_ih_l0` (G,): the weight is
    ``scale_ih_l0[:, None] * weight_ih_l0``. Scales, biases, peephole weights and `weight_hr` of float16 and bfloat16
    are float32.
    """

    __slots__ = ("_arrays", "_frozen")

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        for array in self._arrays.values():
            array.flags.writeable = False

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name].view()  # whose shape, dtype and flags a caller may assign to
        except KeyError:
            raise KeyError(f"{name}: is not among the names {', '.join(self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        """The same names with the same shapes, dtypes and values."""
        if not isinstance(other, QuantizedParameters):
            return NotImplemented
        return list(self) == list(other) and all(
            a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(self.values(), other.values())
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def __repr__(self) -> str:
        lines = [f"    {name}: {array.dtype} {array.shape}\n" for name, array in self._arrays.items()]
        return f"QuantizedParameters({self.nbytes} bytes\n{''.join(lines)})"


class Quantized(InferenceLayer[Given, Returned]):
    """A layer whose weights have fewer bits, for inference: the result of ``layer.quantize(format)``.

    A call and `stream` are those of the layer, with its options and with float32 arrays in and out. The options of the
    layer are attributes here, too. The parameters are fixed; like those of a frozen layer they are packed once.

    Parameters
    ----------
    layer : LSTM or another recurrent layer
        A layer of float32, which is not changed.
    format : str
        The format of its weights, as of `fastrnn.LSTM.quantize`.

    Attributes
    ----------
    params : QuantizedParameters
        The weights in their format, the biases and peephole weights in float32.

    Raises
    ------
    TypeError, ValueError
        As `fastrnn.LSTM.quantize`.

    Examples
    --------
    >>> layer = fastrnn.LSTM(64, 128, rng=0)
    >>> q = layer.quantize("int8")
    >>> q, q.nbytes, layer.params.flat.nbytes
    (LSTM(64, 128).quantize('int8'), 106496, 397312)
    >>> output, (h_n, c_n) = q(np.zeros((25, 16, 64)))
    """

    __slots__ = ("_layer_class", "_format", "_layout", "_names")

    _layer_class: type[Recurrent[Given, Returned]]
    _format: Format
    _layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]  # the shape and dtype of each array of `params`
    _names: list[list[str]]

    def __init__(self, layer: Recurrent[Given, Returned], format: FormatName) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected one of {', '.join(layers.__all__)}, got {type(layer).__name__}")
        form = FORMATS[choice("format", format, tuple(FORMATS))]
        if layer.dtype != np.float32:
            raise ValueError(f"layer: expected float32, got {layer!r}; a layer of float32 can load its state_dict()")
        arrays: dict[str, Array] = {}
        for name, array in layer.params.items():
            if not form.rounds(name):
                arrays[name] = array.copy()
                continue
            try:
                arrays[name], scales = form.round(array)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if scales is not None:
                arrays[_scale_of(name)] = scales
        # A derived class may have a constructor with other arguments.
        public = next(cls for cls in type(layer).__mro__ if cls.__module__ == "fastrnn")
        new = object.__new__(Quantized)
        new._configure(public, layer._constructor_arguments(), form)
        self._become(new, arrays)

    def _become(self, new, arrays):
        """Take all from a layer that is only configured, whose parameters are these arrays of our own, by name."""
        new._fill(arrays)
        for name in (*Configured.__slots__, *Quantized.__slots__):
            setattr(self, name, getattr(new, name))

    def _configure(self, layer_class, arguments, form):
        """Set all but the parameters, from the class of the layer and the arguments of its constructor."""
        for name in arguments:
            if name not in layer_class._option_names:
                raise TypeError(f"{name}: is not an argument of {layer_class.__name__}")
        layer = object.__new__(layer_class)
        defaults = {name: OPTIONS[name].default for name in layer_class._option_names}
        self._options, self._names, shapes, self._stack = layer._configured(defaults | arguments, False)
        self._layer_class, self._format, self._layout = layer_class, form, _layout(shapes, form)

    def _check_values(self, arrays):
        """Raise a ValueError for arrays of numbers that no layer of this format has."""
        found = {name: self._format.problem_with(name, array) for name, array in arrays.items()}
        problems = [f"{name}: {problem}" for name, problem in found.items() if problem]
        if problems:
            raise ValueError("; ".join(problems))

    def _fill(self, arrays):
        """Set the parameters, arrays of our own by name, and pack them."""
        self._params = QuantizedParameters({name: np.ascontiguousarray(arrays[name]) for name in self._layout})
        self._weights = []
        for first, *_ in self._names:
            suffix = first.removeprefix("weight_ih")
            self._weights.append(tuple([self._params.get(name + suffix) for name in KERNEL_WEIGHTS]))
        self._params._frozen = Frozen(0, self._stack.pack(self._weights, False))

    def __getstate__(self):
        return {
            "version": PICKLE_VERSION,
            "class": self._layer_class.__name__,
            "arguments": self._constructor_arguments(),
            "format": self.format,
            "params": dict(self._params),
            "attributes": dict(self.__dict__),
        }

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, "a pickle of Quantized")
        arrays = {name: array.copy() for name, array in state["params"].items()}
        new = object.__new__(Quantized)
        new._configure(LAYERS[state["class"]], state["arguments"], FORMATS[state["format"]])
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != new._layout:
            raise ValueError(f"the parameters of a pickle do not fit {new!r}")
        new._check_values(arrays)
        self._become(new, arrays)
        self.__dict__.update(state["attributes"])

    if not TYPE_CHECKING:  # for a type checker it would be any attribute

        def __getattr__(self, name):
            if not name.startswith("_"):
                if name in self._options:
                    return self._options[name]
                if hasattr(self._layer_class, name):
                    raise AttributeError(f"{name}: {REMEDY}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"{self._call_of(self._layer_class.__name__)}.quantize({self.format!r})"

    @property
    def format(self) -> str:
        """The format of the weights, "int8" for example."""
        return self._format.name

    @property
    def params(self) -> QuantizedParameters:
        """The parameters as they are stored."""
        return self._params

    @property
    def nbytes(self) -> int:
        """The bytes of `params`; the packed weights of the kernels take as much again."""
        return self._params.nbytes

    @property
    def frozen(self) -> bool:
        """True: the parameters are fixed and packed."""
        return True

    def freeze(self) -> None:
        """Do nothing: see `frozen`."""

    def dequantized(self) -> Recurrent[Given, Returned]:
        """The float32 layer with the weights that this one computes with.

        Returns
        -------
        layer : LSTM or another recurrent layer
            A new layer with the same options. Its weights are those of `params` as float32, each multiplied by its
            scale, rounded, if the format has scales. Its outputs have the bits of this layer if the format rounds
            weights alone; they differ if it also rounds x and h, as int8 does.
        """
        layer = self._layer_class(**self._constructor_arguments(), rng=no_draws())  # type: ignore[call-arg]
        for name, array in layer.params.items():
            values = self._params[name]
            if self._format.rounds(name):
                values = self._format.widen(values, self._params._arrays.get(_scale_of(name)))
            array[...] = values
        layer._rng = np.random.default_rng()  # for the masks of dropout
        return layer


Quantized.__module__ = QuantizedParameters.__module__ = "fastrnn"


class Comparison(NamedTuple):
    """How far the outputs of two layers are apart: the result of `compare`."""

    largest: float
    """The largest difference."""
    rms: float
    """The root of the mean squared difference."""
    relative: float
    """`rms` divided by the root of the mean squared output of the first layer; 0 if there is no difference."""
    first: int | None
    """The first step at which any output differs by more than the tolerance; None if there is none."""


@names_arguments
def compare(
    layer: InferenceLayer[Given, Any],
    other: InferenceLayer[Given, Any],
    x: ArrayLike,
    state: Given | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    *,
    tolerance: float = 0.02,
) -> Comparison:
    """Compare the outputs of two layers for a sample of inputs, of a layer and its quantized form for example.

    Parameters
    ----------
    layer, other : LSTM, another recurrent layer or Quantized
        Two layers that take the same x and return outputs of the same shape; `layer` is the standard of comparison.
    x, state, lengths, resets
        As for a call of the layers. A sample of real data says more than random numbers.
    tolerance : float, default 0.02
        The difference that `first` looks for.

    Returns
    -------
    comparison : Comparison
        (largest, rms, relative, first), over all outputs of all steps of all sequences, up to their lengths.

    Raises
    ------
    TypeError, ValueError
        If one is not a layer, as in a call of the layers, if the shapes of their outputs differ, or if `tolerance` is
        not a number of at least 0.

    Examples
    --------
    >>> layer = fastrnn.LSTM(64, 128, rng=0)
    >>> x = np.random.default_rng(1).standard_normal((100, 8, 64), np.float32)
    >>> largest, rms, relative, first = fastrnn.compare(layer, layer.quantize("int8"), x)
    >>> bool(largest < 0.02), bool(relative < 0.011), first is None
    (True, True, True)
    """
    for name, one in (("layer", layer), ("other", other)):
        if not isinstance(one, InferenceLayer):
            raise TypeError(f"{name}: expected a layer, got {type(one).__name__}")
    tolerance = number("tolerance", tolerance)
    expected, actual = (one(x, state, lengths, resets)[0].astype(np.float64) for one in (layer, other))
    if actual.shape != expected.shape:
        raise ValueError(f"other: its outputs are {actual.shape}, those of layer {expected.shape}")
    # Beyond the end of a sequence both have zeros.
    count = expected.size if lengths is None else int(np.sum(lengths)) * expected.shape[-1]
    with np.errstate(invalid="ignore"):
        difference = np.where(actual == expected, 0, np.abs(actual - expected))  # 0 between equal infinities
    if difference.ndim == 3 and layer.batch_first:
        difference = difference.swapaxes(0, 1)
    parted = np.flatnonzero(~(difference <= tolerance).all(axis=tuple(range(1, difference.ndim))))
    rms, rms_output = (float(np.sqrt(np.square(a).sum() / max(count, 1))) for a in (difference, expected))
    return Comparison(
        float(difference.max(initial=0)),
        rms,
        rms and (rms / rms_output if rms_output else math.inf),
        int(parted[0]) if parted.size else None,
    )
