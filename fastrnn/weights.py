"""Layers from the weights of other libraries: arrays in any layout, and state_dicts of torch.nn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _layouts
from fastrnn._engine.spec import SPECS, CellSpec
from fastrnn._layouts import Layout, Weights
from fastrnn._parametrized import LAYERS, Parametrized, generator, no_draws
from fastrnn._torch_modules import is_module, state_of
from fastrnn._validation import Array, as_array, choice, detached, flag, item_of, number, shape_error, short, size
from fastrnn.cells import Cell
from fastrnn.layers import Recurrent

__all__ = ["from_state_dict", "from_weights"]

UPDATE_GATES = ("old", "new")
FUSED = ("xh", "hx")

# A parameter of torch.nn: its name without a suffix, the number of its layer, "" for a cell's, and the direction.
PARAMETER = re.compile(r"(weight_[a-z]+|bias_[a-z]+)(?:_l([0-9]{1,9})(_reverse)?)?")

# The first weight of a layer or cell, with its prefix, also of a layer with weights that are computed from others.
FIRST = re.compile(r"(.*\.)?weight_ih(?:_l0)?(?:_orig|_g|_raw|\.original[01]?)?", re.DOTALL)

# The ends of other names, and the remedy.
VARIANTS = (
    (
        re.compile(r"parametrizations\..*", re.DOTALL),
        "torch.nn.utils.parametrize.remove_parametrizations(module, name)",
    ),
    (re.compile(r"\w+_mask"), "make the pruning permanent with torch.nn.utils.prune.remove(module, name)"),
    (re.compile(r"\w+_u"), "torch.nn.utils.remove_spectral_norm(module, name)"),
    (re.compile(r"\w+_g"), "torch.nn.utils.remove_weight_norm(module, name)"),
)

# In an archive of TorchScript, a list of the same tensors.
FLAT = re.compile(r"_flat_weights\.[0-9]+")

MOST_NAMES_SHOWN = 12


class Module(Protocol):
    """A torch.nn.Module, for annotations."""

    def named_modules(self) -> Iterable[tuple[str, Any]]: ...

    def get_submodule(self, target: str) -> Any: ...


def from_weights(
    kind: str,
    arrays: Mapping[str, ArrayLike] | Sequence[Any] | Array,
    *,
    layout: str | None = None,
    gates: str | None = None,
    transposed: bool = False,
    fused: str | None = None,
    update_gate: str = "old",
    forget_bias: float | None = None,
    input_forget: bool = False,
    **options: Any,
) -> Recurrent[Any, Any]:
    """A new layer from arrays of weights in the layout of another library.

    Parameters
    ----------
    kind : str
        The cell, by the name of its function in `fastrnn.functional`: "lstm", "gru", "rnn" and so on.
    arrays : mapping of str to array_like, or sequence
        The weights of one direction of one layer: a mapping by the names of the layout, or a sequence in their order,
        from which biases at the end may be missing. For several layers and directions a sequence of such mappings or
        sequences: layer by layer, and in a layer the forward direction first. A sequence of arrays alone is divided
        into `num_layers` times 1 or 2 equal parts (2 with `bidirectional`), as from `get_weights()` of Keras. Arrays of
        float64 make a layer of float64, others of float32; arrays of integers are refused.
    layout : {"torch", "keras", "cudnn", "onnx", "tf1"}, optional
        The layout, see Notes. Default: spelled out by `gates`, `transposed` and `fused`.
    gates : str, optional
        Without `layout`, the order of the gates in the rows of the matrices, one letter for each: "ifgo" for the order
        of torch.nn. The new values of an LSTM may be called g, c, j or z; the gates of a GRU r, z or u, and n, h or c.
    transposed : bool, default False
        Without `layout`, whether a matrix has one column, not one row, for each gate and hidden unit.
    fused : {"xh", "hx"}, optional
        Without `layout`, one matrix "weight" for [x_t, h_(t-1)] or for [h_(t-1), x_t] in place of two.
    update_gate : {"old", "new"}, default "old"
        Of a GRU, the state that z weights: "old" for h_t = (1 - z) n + z h_(t-1), as in torch.nn, Keras and ONNX, or
        "new" for h_t = z n + (1 - z) h_(t-1), as in Chung et al. 2014 and in Olah's "Understanding LSTM Networks".
    forget_bias : float, optional
        A number that the other library adds to the bias of f when it runs. Default: 1.0 for the LSTM of "tf1", as
        BasicLSTMCell, LSTMCell and LSTMBlockCell have it; else 0.0.
    input_forget : bool, default False
        Of an LSTM, whether f = 1 - i (ONNX's input_forget, coupled gates). The weights of f are ignored, and `gates`
        may leave out the f. Without i in `gates`, i = 1 - f.
    **options
        Arguments of the layer that weights do not show: `batch_first`, `reverse`, `recurrent_activation`, `activation`,
        `nonlinearity`, `clip`, `reset_after`, `dropout`, `dtype`, `rng`. `num_layers`, `bidirectional`, `input_size`,
        `hidden_size`, `bias`, `proj_size`, `peephole` and `num_heads` follow from the arrays; if given, they must
        agree.

    Returns
    -------
    layer : LSTM or another recurrent layer
        Its parameters are copies.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or an array holds no floating-point numbers.
    ValueError
        If a name is missing or not known, if shapes do not fit together, if an option contradicts the arrays, or if
        the order of the gates is not known. The message names the array.

    See Also
    --------
    from_state_dict, from_onnx, from_keras

    Notes
    -----
    The names of each layout, in the order of sequences (G is the number of gates):

    ========= ============================================================================= =======================
    layout    names and shapes                                                              gates
    ========= ============================================================================= =======================
    "torch"   weight_ih (G*H, I), weight_hh (G*H, H), bias_ih, bias_hh (G*H,), for an LSTM  ifgo, rzn
              also weight_hr (P, H) and weight_peephole (3, H) of i, f, o
    "keras"   kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,), of a GRU with        ifco, zrh
              reset_after (2, 3*H)
    "cudnn"   kernel, recurrent_kernel, bias (2*G*H,) of Keras' CuDNNLSTM and CuDNNGRU;     ifco, zrh
              or one flat array, cuDNN's buffer of parameters, with `input_size`,           ifgo, rzn
              `hidden_size`, and `num_layers` and `bidirectional` if they are not 1 and
              False
    "onnx"    W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H), of an LSTM P (D, 3*H) of i, o, f  iofc, zrh
    "tf1"     LSTM: kernel (I+H, 4*H), bias, w_i_diag, w_f_diag, w_o_diag (H,),             ijfo
              projection_kernel (H, P)
              GRU: gates_kernel (I+H, 2*H), gates_bias, candidate_kernel (I+H, H),          ru, c
              candidate_bias
              RNN: kernel (I+H, H), bias
    spelled   as "torch", or with one "bias"; with `fused` "weight" and "bias"              `gates`
    ========= ============================================================================= =======================

    The reset gate of a GRU comes after the recurrent product (`reset_after=True`) by default. It comes before in
    layout "tf1", in "onnx", whose default is linear_before_reset=0, in "keras" with a bias of one axis, and with
    `fused`, because a product of [x_t, r * h_(t-1)] has it before.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> kernel, recurrent_kernel, bias = np.ones((8, 64)), np.ones((16, 64)), np.zeros(64)
    >>> layer = fastrnn.from_weights("lstm", [kernel, recurrent_kernel, bias], layout="keras", batch_first=True)
    >>> layer
    LSTM(8, 16, batch_first=True, dtype=float64)
    """
    spec = _spec_of(kind)
    if layout is not None:
        choice("layout", layout, _layouts.NAMES)
        _refuse_given(f"layout={layout!r} says it", gates=gates, transposed=transposed or None, fused=fused)
    choice("update_gate", update_gate, UPDATE_GATES)
    if fused is not None:
        choice("fused", fused, FUSED)
    if flag("input_forget", input_forget) and spec.name != "lstm":
        raise ValueError("input_forget: only an LSTM has an input gate and a forget gate")
    if update_gate != "old" and spec.name != "gru":
        raise ValueError("update_gate: is only for a GRU")
    forget_bias = _forget_bias(spec, layout, forget_bias)
    order = None if layout is not None else _order(spec, gates, input_forget)
    if forget_bias and input_forget and order is not None and "f" not in order:
        raise ValueError("forget_bias: not with input_forget, in which f follows from i")

    found: list[Weights] = []
    labels: list[str] = []  # of each direction, for messages
    if layout == "cudnn" and getattr(arrays, "ndim", None) == 1:
        found = _from_buffer(spec, arrays, options)
        labels = ["arrays: "] * len(found)
        read = spec.gates
    else:
        candidates = _layouts.variants(spec, layout, order, flag("transposed", transposed), fused)
        if not candidates:
            raise ValueError(f"layout: {layout!r} has no {spec.name}")
        for position, one in _divided(arrays, layout, options):
            label = "arrays" if position is None else f"arrays[{position}]"
            named, variant = _named(one, candidates, label)
            if spec.name == "gru":
                options["reset_after"] = _reset_after(layout, fused, named, options.get("reset_after"))
            ends = {name: f"{label}[{name!r}]" for name in named}
            of_directions = variant.directions(spec, named, ends)
            found += of_directions
            labels += [f"{label}: "] * len(of_directions)
            if len(of_directions) == 2:
                options.setdefault("bidirectional", True)
        read = candidates[0].gates
    found = [
        _layouts.reordered(spec, one, read, forget_bias=forget_bias, input_forget=input_forget, update_gate=update_gate)
        for one in found
    ]
    return _layer(spec, found, labels, options)


def from_state_dict(
    mapping: Mapping[str, ArrayLike] | Module,
    prefix: str | None = None,
    *,
    kind: str | None = None,
    **options: Any,
) -> Recurrent[Any, Any] | Cell[Any, Any]:
    """A new layer or cell from one of PyTorch: from a module, or from parameters by their names.

    Sizes, layers, directions, biases, projection, peepholes and heads follow from the names and shapes, and so does the
    kind, unless it is given. A state_dict shows neither `batch_first` nor `dropout` nor the `nonlinearity` of an RNN;
    from a module they follow, too.

    Parameters
    ----------
    mapping : mapping of str to array_like, or torch.nn.Module
        A state_dict of torch.nn.LSTM, GRU, RNN or one of their cells, or of a module that contains one; the
        `state_dict()` of a layer or cell of fastrnn; or a result of `load_tensors`. Tensors and arrays alike; integers
        are refused. Or such a module itself, or a module that contains one; its class may be derived from those of
        torch.nn, but only its parameters and attributes are read, not its `forward`.
    prefix : str, optional
        The part of the names before "weight_ih_l0", or before "weight_ih" of a cell; a dot at its end may be left out.
        Of a module, the name of a submodule as in `get_submodule`. Default: found, if there is one layer or cell.
    kind : {"lstm", "gru", "rnn", "slstm", "ugrnn"}, optional
        The cell. Default: that of torch.nn with this shape of weight_hh. (4*H, H) is read as an LSTM, (3*H, H) as a
        GRU, (H, H) as an RNN; with weight_hr or weight_peephole it is an LSTM. Of the cells that torch.nn lacks, an
        sLSTM of two or more heads is found by its shape, (4*H, H/num_heads). An sLSTM of one head has the shapes of an
        LSTM, and other libraries order the two gates of a UGRNN in another way: both need `kind`.
    **options
        Arguments of the layer that parameters do not show: `nonlinearity` of an RNN (default "tanh"), `batch_first`
        (default False), `dropout` (default 0.0), `dtype`, `rng` and those that torch.nn does not have. Others have to
        agree with the parameters, and with a module all but `dtype`, `rng` and those that torch.nn does not have.

    Returns
    -------
    layer : recurrent layer or cell
        Its parameters are copies. float64 parameters make a layer of float64, others of float32.

    Raises
    ------
    TypeError
        If `mapping` is neither a mapping nor a module, or an array holds no floating-point numbers.
    ValueError
        If there is no layer or more than one (the message names the prefixes), if a name under the prefix is not a
        parameter of such a layer, if `kind` is unknown or contradicts the module, if another argument does, or if
        shapes do not fit together or fit no `kind`. Layers with weight normalisation, pruning or other parameters of
        their own are refused so; and so are modules that are quantized or TorchScript.

    See Also
    --------
    from_weights, load_tensors

    Examples
    --------
    >>> import fastrnn
    >>> model = {f"encoder.{name}": w for name, w in fastrnn.GRU(8, 16, num_layers=2).state_dict().items()}
    >>> fastrnn.from_state_dict(model)
    GRU(8, 16, num_layers=2)
    >>> fastrnn.from_state_dict(fastrnn.SLSTM(8, 16).state_dict(), kind="slstm")
    SLSTM(8, 16)
    """
    given = None if kind is None else _spec_of(kind)
    if is_module(mapping):
        mapping, prefix, found, attributes = state_of(mapping, prefix, options)
        if given is not None and given.name != found:
            raise ValueError(f"kind: {kind!r} does not agree with the module, which is of kind {found!r}")
        given, options = SPECS[found], attributes | options
        names = keys(mapping)
    else:
        names = keys(mapping)
        prefix = _prefix(mapping, names, prefix)
    parameters = _parameters(names, prefix)
    arrays = {name: floats(name, item_of(mapping, name)) for name in parameters}
    suffixes = _suffixes(parameters, prefix)
    directions: list[Weights] = []
    for suffix in suffixes:
        directions.append({p.weight: arrays[name] for name, p in parameters.items() if p.suffix == suffix})
    spec = given or _kind(directions[0], prefix, suffixes[0])
    (layout,) = _layouts.variants(spec, "torch", None, False, None)
    for suffix, weights in zip(suffixes, directions):
        labels = {name: prefix + name + suffix for name in layout.names}
        missing = [name for name in layout.names[:2] if name not in weights]
        missing += [name for name in ("bias_ih", "bias_hh") if "bias_ih" in directions[0] and name not in weights]
        unknown = [name for name in weights if name not in layout.names]
        if missing or unknown:
            problems = [f"{labels[name]}: missing" for name in missing]
            problems += [f"{prefix}{name}{suffix}: not a parameter of {spec.name.upper()}" for name in unknown]
            raise ValueError("mapping: " + "; ".join(problems))
        layout.directions(spec, weights, labels)
    options = {"bidirectional": any(s.endswith("_reverse") for s in suffixes)} | options if suffixes[0] else options
    return _layer(spec, directions, [prefix] * len(directions), options, is_cell=not suffixes[0])


def _spec_of(kind: str) -> CellSpec:
    """The cell that the argument `kind` names."""
    return SPECS[choice("kind", kind.lower() if isinstance(kind, str) else kind, tuple(SPECS))]


# Arrays as they are given


def _refuse_given(reason, **arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name}: not together with layout: {reason}")


def _order(spec: CellSpec, gates: str | None, input_forget: bool) -> tuple[str, ...]:
    """The letters of the cell for those of `gates`."""
    if gates is None:
        if len(spec.gates) == 1:
            return spec.gates
        raise ValueError(
            f"layout: expected one of {', '.join(map(repr, _layouts.NAMES))}; or give gates, the order of the gates, "
            f"such as gates={''.join(spec.gates)!r}"
        )
    if not isinstance(gates, str):
        raise TypeError(f"gates: expected a string such as {''.join(spec.gates)!r}, got {gates!r}")
    order = tuple(spec.letters.get(letter, "") for letter in gates.lower())
    allowed = [set(spec.gates)]
    if input_forget:
        allowed += [set(spec.gates) - {"f"}, set(spec.gates) - {"i"}]
    if set(order) not in allowed or len(set(order)) != len(order):
        raise ValueError(f"gates: expected the letters of {''.join(spec.gates)!r} in any order, got {gates!r}")
    return order


def _forget_bias(spec: CellSpec, layout: str | None, given: float | None) -> float:
    """The number that is added to the bias of f."""
    if given is None:
        return 1.0 if layout == "tf1" and spec.name == "lstm" else 0.0
    added = number("forget_bias", given, -math.inf)
    if added and spec.name != "lstm":
        raise ValueError("forget_bias: is only for an LSTM")
    return added


def _from_buffer(spec, buffer, options):
    """The weights in cuDNN's buffer of parameters, whose sizes are among the options."""
    if spec.name not in _layouts.CUDNN_CELLS:
        raise ValueError(f"layout: 'cudnn' has no {spec.name}")
    missing = [name for name in ("input_size", "hidden_size") if name not in options]
    if missing:
        raise ValueError(f"{', '.join(missing)}: needed to divide the buffer of cuDNN")
    if spec.name == "gru":
        options["reset_after"] = _reset_after("cudnn", None, {}, options.get("reset_after"))
    if options.get("proj_size"):
        raise ValueError("proj_size: a buffer of cuDNN with projections is not supported")
    I, H, L = (size(name, options.get(name, 1)) for name in ("input_size", "hidden_size", "num_layers"))
    D = 1 + flag("bidirectional", options.get("bidirectional", False))
    return _layouts.cudnn_buffer(spec, floats("arrays", buffer), I, H, L, D)


def _divided(arrays, layout, options):
    """The arrays of each direction, or in layout "onnx" of each layer, and their place among those given."""
    if isinstance(arrays, Mapping):
        return [(None, arrays)]
    if isinstance(arrays, (str, bytes)) or not isinstance(arrays, Iterable) or hasattr(arrays, "dtype"):
        raise TypeError(f"arrays: expected a mapping or a sequence of arrays, got {type(arrays).__name__}")
    arrays = list(arrays)
    if not arrays:
        raise ValueError("arrays: is empty")
    if all(isinstance(one, (Mapping, list, tuple)) for one in arrays):
        return list(enumerate(arrays))
    D = 1 + flag("bidirectional", options.get("bidirectional", False))
    parts = size("num_layers", options.get("num_layers", 1)) * (1 if layout == "onnx" else D)
    if len(arrays) % parts:
        raise ValueError(f"arrays: {len(arrays)} arrays cannot be divided among {parts} directions of layers")
    n = len(arrays) // parts
    return [(None if parts == 1 else k, arrays[k * n : k * n + n]) for k in range(parts)]


def _named(given: Any, candidates: Sequence[Layout], label: str) -> tuple[dict[str, Array], Layout]:
    """The arrays by name, and the first variant of the layout that they fit."""
    if isinstance(given, Mapping):
        named = {name: floats(f"{label}[{name!r}]", value) for name, value in given.items() if value is not None}
        for variant in candidates:
            if variant.fits(named):
                return named, variant
        described = "{" + ", ".join(f"{short(name)}: {array.shape}" for name, array in named.items()) + "}"
    else:
        values = [floats(f"{label}[{k}]", value) for k, value in enumerate(given)]
        for variant in candidates:
            named = dict(zip(variant.names, values))
            if len(values) <= len(variant.names) and variant.fits(named):
                return named, variant
        described = "[" + ", ".join(str(array.shape) for array in values) + "]"
    expected = " or ".join(", ".join(w.described() for w in v.weights) for v in candidates)
    raise ValueError(f"{label}: expected {expected}, got {described}")


def keys(mapping: Any) -> list[str]:
    """The names in the argument `mapping`."""
    try:
        return [name for name in mapping.keys() if isinstance(name, str)]
    except AttributeError:
        hint = "; give its state_dict()" if hasattr(mapping, "state_dict") else ""
        raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}{hint}") from None


def floats(name: str, value: Any) -> Array:
    """The value as an array of floating-point numbers."""
    value = detached(value)
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # which NumPy lacks
        value = value.float()
    array = as_array(name, value)
    if array.dtype.name == "bfloat16":  # of the package ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind != "f":
        hint = "; dequantize them first" if array.dtype.kind in "iu" else ""
        raise TypeError(f"{name}: expected floating-point numbers, got {array.dtype}{hint}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _reset_after(layout: str | None, fused: str | None, named: Mapping[str, Array], given: bool | None) -> bool:
    """Whether the reset gate comes after the product, from the option and from the layout."""
    shown = None
    if layout == "keras" and "bias" in named:
        shown = named["bias"].ndim == 2
    elif layout == "cudnn":
        shown = True
    elif layout == "tf1":
        shown = False
    if given is None:
        if layout == "keras" and shown is None:
            raise ValueError("reset_after: a GRU of Keras without bias does not show it; give it")
        return layout != "onnx" and fused is None if shown is None else shown
    if shown is not None and flag("reset_after", given) != shown:
        raise ValueError(f"reset_after: {given} does not agree with the arrays, in which it is {shown}")
    return given


# Names of a state_dict


class Parameter(NamedTuple):
    """A parameter of torch.nn: its name without a suffix, and the suffix."""

    weight: str
    suffix: str


def _prefix(mapping, names, prefix):
    """The prefix of the only layer or cell, or the one that is given."""
    matches = filter(None, map(FIRST.fullmatch, names))
    candidates = sorted({(match[1] or "").removesuffix("parametrizations.") for match in matches})
    if prefix is not None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected a string, got {prefix!r}")
        for one in (prefix, prefix + "."):
            if one in candidates:
                return one
        raise ValueError(f"prefix: no recurrent layer begins with {prefix!r}; {_found(candidates, names)}")
    if len(candidates) != 1:
        number = "more than one recurrent layer; give its prefix" if candidates else "no recurrent layer"
        inner = [name for name in names if not candidates and isinstance(item_of(mapping, name), Mapping)]
        if inner:
            number += f"; mappings are under {', '.join(map(repr, inner[:MOST_NAMES_SHOWN]))}: give one of them"
        raise ValueError(f"mapping: {number}; {_found(candidates, names)}")
    return candidates[0]


def _found(candidates, names):
    shown = candidates or sorted(names)
    more = f" and {len(shown) - MOST_NAMES_SHOWN} more" if len(shown) > MOST_NAMES_SHOWN else ""
    what = "prefixes found" if candidates else "no name ends with weight_ih_l0 or weight_ih; the names"
    return f"{what}: {', '.join(map(repr, shown[:MOST_NAMES_SHOWN]))}{more}"


def _parameters(names: Sequence[str], prefix: str) -> dict[str, Parameter]:
    """The parameters under the prefix; a ValueError if other names stand there."""
    parameters, others = {}, []
    for name in names:
        end = name.removeprefix(prefix)
        if not name.startswith(prefix) or FLAT.fullmatch(end):
            continue
        if not prefix and "." in end and not end.startswith("parametrizations."):
            continue
        match = PARAMETER.fullmatch(end)
        if match:
            parameters[name] = Parameter(match[1], end.removeprefix(match[1]))
        else:
            others.append(name)
    if others:
        shown = ", ".join(map(repr, others[:MOST_NAMES_SHOWN]))
        ends = [name.removeprefix(prefix) for name in others]
        remedy = next((f"; in PyTorch: {text}" for known, text in VARIANTS if any(map(known.fullmatch, ends))), "")
        raise ValueError(
            f"mapping: {shown}: not among the parameters of a layer of torch.nn, so that the layer is a variant{remedy}"
        )
    return parameters


def _suffixes(parameters, prefix):
    """The suffixes of each direction of each layer, in order, without a gap."""
    found = {p.suffix for p in parameters.values()}
    if "" in found:
        if len(found) > 1:
            raise ValueError(f"mapping: {prefix!r} has the parameters of a cell and those of a layer")
        return [""]
    numbers = {int(re.match(r"_l(\d+)", suffix)[1]) for suffix in found}  # type: ignore[index]
    ends = ("", "_reverse") if any(suffix.endswith("_reverse") for suffix in found) else ("",)
    expected = [f"_l{k}{end}" for k in range(len(numbers)) for end in ends]
    missing = [suffix for suffix in expected if suffix not in found]
    if missing or len(found) != len(expected):
        raise ValueError(
            f"mapping: expected the parameters of layers {', '.join(s[1:] for s in expected)} under {prefix!r}, "
            f"got those of {', '.join(sorted(s[1:] for s in found))}"
        )
    return expected


def _kind(weights: Weights, prefix: str, suffix: str) -> CellSpec:
    """The cell whose weights have these names and shapes."""
    shape: tuple[int, ...] = weights["weight_hh"].shape if "weight_hh" in weights else ()
    if "weight_hr" in weights or "weight_peephole" in weights:
        return SPECS["lstm"]
    if len(shape) == 2 and shape[1] > 0:
        ratio, rest = divmod(shape[0], shape[1])
        of_ratio = {len(SPECS[name].gates): SPECS[name] for name in ("lstm", "gru", "rnn")}
        if not rest and ratio in of_ratio:
            return of_ratio[ratio]
        if not rest and ratio > 4 and ratio % 4 == 0:  # heads, each with H/num_heads columns
            return SPECS["slstm"]
    name = f"{prefix}weight_hh{suffix}"
    if not shape:
        raise ValueError(f"mapping: {name}: missing")
    raise ValueError(f"mapping: {name}: expected (4*H, H), (3*H, H) or (H, H), got {shape}; other cells need kind=")


# The layer


def _layer(
    spec: CellSpec, directions: list[Weights], labels: Sequence[str], options: dict[str, Any], is_cell: bool = False
) -> Any:
    """A new layer or cell with these weights, of which the messages begin with the labels."""
    has = directions[0].keys()
    for label, weights in zip(labels, directions):
        if weights.keys() != has:
            names = ", ".join(sorted(weights.keys() ^ has))
            raise ValueError(f"{label}some directions have {names}, others do not")
    rows, columns = directions[0]["weight_hh"].shape
    H = rows // len(spec.gates)
    seen: dict[str, Any] = {
        "input_size": directions[0]["weight_ih"].shape[1],
        "hidden_size": H,
        "bias": "bias_ih" in has,
        "proj_size": columns if "weight_hr" in has else 0,
        "peephole": "weight_peephole" in has,
    }
    if spec.name == "slstm":
        seen["num_heads"] = H // columns
    if not is_cell:
        D = 1 + flag("bidirectional", options.get("bidirectional", False))
        if len(directions) % D:
            raise ValueError(f"bidirectional: {len(directions)} directions are given, an odd number")
        seen |= {"num_layers": len(directions) // D, "bidirectional": D == 2}
    class_name = f"{spec.name.upper()}Cell" if is_cell else spec.name.upper()
    if class_name not in LAYERS:
        raise ValueError(f"mapping: {labels[0]}weight_hh: of an {class_name}, which fastrnn does not have")
    cls = LAYERS[class_name]
    for name, value in seen.items():
        if value and name not in cls._option_names:
            raise ValueError(f"{labels[0]}{cls.__name__} has no {name}, which the arrays have")
        if name in options and not np.array_equal(options[name], value):
            shown = short(options[name])
            raise ValueError(f"{name}: {shown} does not agree with the arrays, in which it is {value!r}")
    widest = np.result_type(*(array.dtype for weights in directions for array in weights.values()))
    arguments = {name: value for name, value in seen.items() if name in cls._option_names}
    arguments |= {"dtype": np.float64 if widest.itemsize > 4 else np.float32} | options
    rng = generator(arguments.pop("rng", None))
    layer: Parametrized = cls(**arguments, rng=no_draws())  # type: ignore[call-arg]
    layer._rng = rng
    _fill(layer, directions, labels)
    return layer


def _fill(layer: Parametrized, directions: list[Weights], labels: Sequence[str]) -> None:
    """Set the parameters, after all shapes have been compared."""
    values = {}
    for label, names, weights in zip(labels, layer._names, directions):
        for name, array in zip(names, map(weights.get, layer._spec.weight_names)):
            if array is None:
                continue
            expected = layer.params[name].shape
            if array.shape != expected:
                raise shape_error(label + name, expected, (None,) * len(expected), array.shape, BIDIRECTIONAL_HINT)
            values[name] = array
    assert values.keys() == layer.params.keys()
    for name, array in values.items():
        layer.params[name][...] = array


BIDIRECTIONAL_HINT = "; each layer takes the output of the one below; two directions need bidirectional=True"
