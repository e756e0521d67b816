"""Layers from Keras: live layers and models, and the files that Keras 2 and 3 write.

A source becomes a list of candidates (`Candidate`), the recurrent layers found in it, each with its configuration and
its weights by direction (`Weight`, read only when wanted). `_settings` translates the configuration; the arrays go
through `fastrnn.from_weights`.

Four layouts of files are read:

    .keras       a zip archive of metadata.json, config.json and model.weights.h5
    .h5          a whole model: the attribute model_config, the group model_weights
    .h5          weights alone, of Keras 2: the attributes layer_names and weight_names
    .weights.h5  weights alone, of Keras 3: groups such as layers/lstm/cell/vars, with datasets 0, 1 and 2

Nothing in a file is executed. Its configuration is read as JSON, and no object of Keras is made from it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn._engine.spec import NONLINEARITIES, OPTIONS, RNN_NONLINEARITIES, SPECS
from fastrnn._files import from_json, path_of
from fastrnn._hdf5 import SIGNATURE, File, Weight, attribute, child, dataset_in, has_names, names_in
from fastrnn._validation import choice, flag, short
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.weights import from_weights

__all__ = ["from_keras"]

# Limits of a file, because parsed JSON takes many times its size, and because an archive may be compressed.
MOST_JSON_BYTES = 2**24
MOST_EXPANSION = 8
SMALL = 2**20
MOST_OBJECTS = 2**15
MOST_DEPTH = 64

MOST_NAMES_SHOWN = 12

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
JSON_MEMBERS = ("metadata.json", "config.json")

# The cell of each recurrent layer, and of each cell that keras.layers.RNN runs.
KINDS = {
    "LSTM": "lstm",
    "GRU": "gru",
    "SimpleRNN": "rnn",
    "CuDNNLSTM": "lstm",
    "CuDNNGRU": "gru",
    "LSTMCell": "lstm",
    "GRUCell": "gru",
    "SimpleRNNCell": "rnn",
}
GATES = {kind: len(SPECS[kind].gates) for kind in ("lstm", "gru", "rnn")}

# Layers that are found and named, whether or not they can be translated.
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU", "RNN", "Bidirectional")
NO_EQUIVALENT = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
MODELS = ("Sequential", "Functional", "Model")
LIVE_PACKAGES = ("keras", "tf_keras")
PACKAGES = (*LIVE_PACKAGES, "tensorflow")
OWN_LAYERS = "fastrnn.keras_layers"  # whose classes have the settings and weights of their namesakes in Keras

# Keys of a configuration that do not change the function from inputs and state to outputs at every step: which of
# them are returned, how they are computed, names, and settings of training.
WITHOUT_EFFECT = frozenset(
    """
    name trainable dtype autocast batch_input_shape batch_shape input_dim input_length input_shape
    return_sequences return_state stateful unroll implementation use_cudnn zero_output_for_mask
    dropout recurrent_dropout seed unit_forget_bias activity_regularizer
    kernel_initializer recurrent_initializer bias_initializer
    kernel_regularizer recurrent_regularizer bias_regularizer
    kernel_constraint recurrent_constraint bias_constraint
    """.split()
)
WITH_EFFECT = frozenset("units activation recurrent_activation use_bias reset_after go_backwards time_major".split())

LEAVES = ("kernel", "recurrent_kernel", "bias")

RECURRENT_ACTIVATION_IS_NOT_SAID = (
    "the file holds weights alone and does not say the recurrent_activation; give 'sigmoid', the default of Keras "
    "since 2.3; 'hard_sigmoid_fifth' (0.2 * x + 0.5), that of Keras 2, the default before; or 'hard_sigmoid_sixth' "
    "(x / 6 + 0.5), that of Keras 3"
)


def from_keras(
    source: Any,
    layer: str | None = None,
    *,
    recurrent_activation: str | None = None,
    activation: str | None = None,
    go_backwards: bool | None = None,
) -> LSTM | GRU | RNN:
    """A new layer with the weights and the settings of a recurrent layer of Keras.

    Neither Keras nor TensorFlow nor h5py is needed for a file.

    Parameters
    ----------
    source : layer or model of Keras, or str or os.PathLike
        A layer that has been built, a model, or a file: `.keras`, a whole model in `.h5`, or weights alone in
        `.weights.h5` or `.h5`, of Keras 2 and of Keras 3.
    layer : str, optional
        The name of the layer in a model. A layer of a nested model has a path, such as "encoder/lstm_1"; the last part
        of the path is enough if it is unique. One direction of a Bidirectional is a layer, too, such as
        "bidirectional/forward_lstm" and "bidirectional/backward_lstm", or "bidirectional/forward_layer" and
        "bidirectional/backward_layer". Default: the only recurrent layer of the source.
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}, optional
        The activation of the gates. A file of weights alone does not contain it, so it must be given for an LSTM or a
        GRU. For other sources it may be given, and must agree.
    activation : {"tanh", "relu"}, optional
        The activation of new values and outputs. Default: that of the layer; "tanh", the default of every Keras, for a
        file of weights alone. Weights of CuDNNLSTM and CuDNNGRU have "sigmoid" and "tanh".
    go_backwards : bool, optional
        Whether the layer has the reverse direction only. Default: that of the layer. A file of weights alone does not
        contain it; there the default is True for the backward direction of a Bidirectional and False for the rest.

    Returns
    -------
    layer : LSTM, GRU or RNN
        One layer, with `batch_first` except where the layer of Keras was `time_major`; `reverse` for `go_backwards`,
        and `bidirectional` for a Bidirectional. `output` is that of `return_sequences=True`, in order of time. Weights
        are copies: of float64 they make a layer of float64, of float32 and float16 one of float32.

    Raises
    ------
    TypeError
        If `source` is neither a path nor a layer or model of Keras.
    ValueError
        If there is no recurrent layer, or several and `layer` does not choose one; if a setting has no equivalent; if a
        required activation is missing, or a given one differs from the source's; if the file is damaged. The message
        starts with the path, and names the layer and the dataset or setting.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    See Also
    --------
    from_weights, masked

    Notes
    -----
    The weights are those that Keras documents and `get_weights()` returns: kernel (I, G*H), recurrent_kernel (H, G*H)
    and bias, with gates in the order i, f, c, o (keras/src/layers/rnn/lstm.py) and z, r, h (gru.py). Files of CuDNNLSTM
    and CuDNNGRU are converted as by Keras 2 (keras/saving/legacy/hdf5_format.py, `_convert_rnn_weights`).

    "hard_sigmoid" is ``max(0, min(1, 0.2 * x + 0.5))`` in Keras 2 and ``max(0, min(1, x / 6 + 0.5))`` in Keras 3: the
    version that wrote the file decides, or that of the live layer's package.

    Files are read in plain Python, by `fastrnn._hdf5`; nothing in them is executed. No more of a file is read than its
    structure, its configuration and the weights of the layer, after their sizes have been compared with that of the
    file; a .keras archive is held in memory meanwhile.

    Examples
    --------
    >>> fastrnn.from_keras("no such file.keras")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no such file.keras'
    """
    said = {
        "recurrent_activation": recurrent_activation,
        "activation": activation,
        "go_backwards": None if go_backwards is None else flag("go_backwards", go_backwards),
    }
    if recurrent_activation is not None:
        OPTIONS["recurrent_activation"].check("recurrent_activation", recurrent_activation)
    if activation is not None:
        choice("activation", activation, RNN_NONLINEARITIES)
    if layer is not None and not isinstance(layer, str):
        raise TypeError(f"layer: expected the name of one layer, got {short(layer)}")
    if not isinstance(source, (str, bytes, os.PathLike)):
        return _translated(_choose(_live(source), layer), said)
    path = path_of(source)
    try:
        with _candidates(path) as candidates:
            return _translated(_choose(candidates, layer), said)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# One direction: kernel, recurrent_kernel, and bias if there is one.
Direction = list[Weight]


@dataclass(frozen=True)
class Candidate:
    """A recurrent layer of the source.

    Parameters
    ----------
    name : str
        Its name, after those of the models that it is in.
    class_name : str
        Its class in Keras.
    config : dict or None
        Its configuration, as `get_config()` returns it; None if the file has weights alone.
    version : str or None
        The version of Keras that made the configuration.
    weights : callable
        Returns the weights of each direction, the forward direction first.
    directions : tuple of tuple of str
        Of a Bidirectional the names of its forward and of its backward layer.
    backward : bool
        Whether this is the backward direction of a Bidirectional.
    """

    name: str
    class_name: str
    config: dict[str, Any] | None
    version: str | None
    weights: Callable[[], list[Direction]]
    directions: tuple[tuple[str, ...], ...] = ()
    backward: bool = False

    def direction(self, k: int) -> Candidate:
        """The forward (0) or the backward (1) layer of a Bidirectional as a candidate."""
        class_name, config = self.class_name.removeprefix("Bidirectional of "), None
        if self.config is not None:
            described, own = self.config.get("layer"), self.config.get("backward_layer")
            if k == 1 and own is not None:
                described = own
            class_name = _class_name(described)
            if class_name not in RECURRENT or class_name == "Bidirectional":
                raise ValueError(f"layer: a Bidirectional of {class_name or short(described)} has no equivalent")
            config = _config(described)
            if k == 1 and own is None:
                config = {**config, "go_backwards": not _flag("go_backwards", config.get("go_backwards", False))}
        name = f"{self.name}/{self.directions[k][0]}"
        return Candidate(name, class_name, config, self.version, lambda: [self.weights()[k]], backward=k == 1)


def _choose(candidates: Sequence[Candidate], layer: str | None) -> Candidate:
    """The candidate of that name, or the only one."""
    listed = ", ".join(f"{one.name!r} ({_described(one)})" for one in candidates[:MOST_NAMES_SHOWN])
    if len(candidates) > MOST_NAMES_SHOWN:
        listed += f" and {len(candidates) - MOST_NAMES_SHOWN} more"
    if not candidates:
        raise ValueError(
            "no recurrent layer found; layers are looked for in Sequential and Functional models, not inside wrappers "
            "such as TimeDistributed or models that are subclasses: save the weights alone, or give the layer itself"
        )
    if layer is None:
        if len(candidates) > 1:
            raise ValueError(f"layer: there is more than one recurrent layer; give the name of one: {listed}")
        return candidates[0]
    found = [one for one in candidates if one.name == layer]
    found = found or [one for one in candidates if one.name.rpartition("/")[2] == layer]
    found = found or _directions_called(candidates, layer)
    if len(found) != 1:
        problem = f"{len(found)} layers have the name" if found else "no recurrent layer has the name"
        raise ValueError(f"layer: {problem} {short(layer)}; there are {listed}")
    return found[0]


def _directions_called(candidates, name):
    """The directions of Bidirectionals with this name, after the name of the Bidirectional or by itself."""
    owner, _, own = name.rpartition("/")
    return [
        one.direction(k)
        for one in candidates
        if owner in ("", one.name, one.name.rpartition("/")[2])
        for k, names in enumerate(one.directions)
        if own in names
    ]


def _names_of_directions(forward, backward=None):
    """The names of the two layers of a Bidirectional: their own, and those of its attributes and groups.

    Keras puts forward_ and backward_ before the name of the layer that it was given.
    """
    inner = re.sub("^(forward|backward)_", "", forward)
    return (f"forward_{inner}", "forward_layer"), (backward or f"backward_{inner}", "backward_layer")


def _described(candidate):
    if candidate.class_name == "Bidirectional" and candidate.config is not None:
        return f"Bidirectional of {_class_name(candidate.config.get('layer'))}"
    return candidate.class_name


# From settings and weights to a layer


@dataclass(frozen=True)
class Settings:
    """The settings of one direction; None for those that are not known."""

    kind: str
    cudnn: bool = False
    units: int | None = None
    use_bias: bool | None = None
    activation: str | None = None
    recurrent_activation: str | None = None
    reset_after: bool | None = None
    go_backwards: bool = False
    time_major: bool = False


def _translated(candidate: Candidate, said: dict[str, Any]) -> LSTM | GRU | RNN:
    try:
        return _translate(candidate, said)
    except ValueError as error:
        raise ValueError(f"layer {short(candidate.name)}: {error}") from error


def _translate(candidate, said):
    if candidate.config is None:
        directions = candidate.weights()
        both = [_inferred(weights) for weights in directions]
        _check_equal(both)
        settings = replace(both[0], go_backwards=bool(said["go_backwards"]))
        if said["go_backwards"] is None:
            settings = replace(settings, go_backwards=candidate.backward)
    else:
        both = _settings_of_directions(candidate, said)
        settings = both[0]
        directions = candidate.weights()
        if len(directions) != len(both):
            raise ValueError(f"expected the weights of {len(both)} directions, found those of {len(directions)}")
    I = None
    for weights in directions:
        I = _check_shapes(settings, weights, I)
    options: dict[str, Any] = {"batch_first": not settings.time_major}
    if said["go_backwards"] not in (None, settings.go_backwards):
        raise ValueError(f"go_backwards: {said['go_backwards']} is given, and the layer has {settings.go_backwards}")
    if len(directions) == 2:
        if settings.go_backwards:
            raise ValueError("go_backwards: True is given, and the layer has both directions")
        options["bidirectional"] = True
    elif settings.go_backwards:
        options["reverse"] = True
    options |= _activations(settings, said)
    if settings.kind == "gru" and settings.reset_after is not None and not settings.cudnn:
        options["reset_after"] = settings.reset_after
    arrays = [[weight.read() for weight in weights] for weights in directions]
    return from_weights(settings.kind, arrays, layout="cudnn" if settings.cudnn else "keras", **options)


def _activations(settings, said):
    """The activations that the configuration or the caller says, as options of the layer."""
    names = ("activation",) if settings.kind == "rnn" else ("recurrent_activation", "activation")
    if settings.kind == "rnn" and said["recurrent_activation"] is not None:
        raise ValueError("recurrent_activation: a SimpleRNN has none")
    options = {}
    for name in names:
        value, given = getattr(settings, name), said[name]
        if value is None and given is None:
            if name == "recurrent_activation":
                raise ValueError(RECURRENT_ACTIVATION_IS_NOT_SAID)
            given = "tanh"
        if value is not None and given is not None and value != given:
            raise ValueError(f"{name}: {given!r} is given, and the layer has {value!r}")
        options["nonlinearity" if settings.kind == "rnn" else name] = value if given is None else given
    return options


def options_of(class_name: str, config: dict[str, Any], version: str) -> tuple[str, dict[str, Any]]:
    """The kind of a layer of Keras, not a Bidirectional, and its options for the functions of `fastrnn.functional`.

    Raises ValueError for a setting that has no equivalent.
    """
    nothing_said = {"activation": None, "recurrent_activation": None, "go_backwards": None}
    settings = _settings(class_name, config, version, nothing_said)
    options = _activations(settings, nothing_said)
    if settings.kind == "gru":
        options["reset_after"] = settings.reset_after
    return settings.kind, options


def _check_equal(both):
    """Refuse two directions that differ in more than the direction."""
    if len(both) == 2:
        for name in Settings.__dataclass_fields__:
            first, second = (getattr(one, name) for one in both)
            if name != "go_backwards" and first != second:
                raise ValueError(
                    f"{name}: {first!r} forward and {second!r} backward; the directions of a layer are alike"
                )


def _inferred(weights: Direction) -> Settings:
    """The settings that the shapes of weights alone show."""
    shapes = [weight.shape for weight in weights]
    place = weights[1].place
    if len(shapes[1]) != 2 or not shapes[1][0] or shapes[1][1] % shapes[1][0]:
        raise ValueError(f"{place}: expected (H, G*H), got {shapes[1]}")
    H, columns = shapes[1]
    kinds = [kind for kind, G in GATES.items() if G == columns // H]
    if not kinds:
        raise ValueError(f"{place}: {columns // H} gates; an LSTM has 4, a GRU 3, a SimpleRNN 1")
    (kind,) = kinds
    bias = shapes[2] if len(shapes) == 3 else None
    if kind != "rnn" and bias == (2 * columns,):
        return _of_cudnn(kind, H)
    if kind == "gru" and bias is None:
        raise ValueError("reset_after: the weights of a GRU without bias do not show it; use fastrnn.from_weights")
    return Settings(
        kind=kind,
        units=H,
        use_bias=bias is not None,
        reset_after=bias is not None and len(bias) == 2 if kind == "gru" else None,
    )


def _of_cudnn(kind, units, **options):
    """The settings of CuDNNLSTM and CuDNNGRU, most of which are fixed."""
    return Settings(
        kind=kind,
        cudnn=True,
        units=units,
        use_bias=True,
        activation="tanh",
        recurrent_activation="sigmoid",
        reset_after=True if kind == "gru" else None,
        **options,
    )


def _check_shapes(settings, weights, I):
    """The number of inputs; refuses weights that do not fit the settings."""
    wanted = 2 + bool(settings.use_bias)
    if len(weights) != wanted:
        places = ", ".join(weight.place for weight in weights)
        raise ValueError(f"expected {', '.join(LEAVES[:wanted])}, found {len(weights)} arrays: {places}")
    H, columns = settings.units, GATES[settings.kind] * settings.units
    kernel = weights[0]
    if len(kernel.shape) != 2 or kernel.shape[1] != columns or not kernel.shape[0] or I not in (None, kernel.shape[0]):
        raise ValueError(f"{kernel.place}: expected ({I or 'I'}, {columns}), got {kernel.shape}")
    expected: list[tuple[int, ...]] = [(H, columns)]
    if settings.use_bias:
        bias = (2 * columns,) if settings.cudnn else (2, columns) if settings.reset_after else (columns,)
        expected.append(bias)
    for weight, shape in zip(weights[1:], expected):
        if weight.shape != shape:
            raise ValueError(f"{weight.place}: expected {shape}, got {weight.shape}")
    return kernel.shape[0]


# From configurations to settings


def _class_name(described):
    """The class of a serialized object of Keras; "" for one of another package, or for something else."""
    if not isinstance(described, dict) or not isinstance(described.get("class_name"), str):
        return ""
    module, registered = described.get("module"), described.get("registered_name")
    if module == OWN_LAYERS:
        return described["class_name"]
    if module is not None and (not isinstance(module, str) or module.partition(".")[0] not in PACKAGES):
        return ""
    # Keras registers its own classes without a package; a class registered by others may have no module.
    if isinstance(registered, str) and ">" in registered:
        return ""
    return described["class_name"]


def _group_name(described):
    """The name of the group of a layer in .weights.h5, less its number: the class in lower case with underscores."""
    class_name = described.get("class_name") if isinstance(described, dict) else None
    if not isinstance(class_name, str):
        return ""
    if _class_name(described) == "Model":  # the name that Keras 2 has for Functional
        return "functional"
    name = re.sub(r"\W", "", class_name.rpartition(">")[2])
    # An underscore before each capital letter that begins a word: simple_rnn, cu_dnnlstm.
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _config(described):
    config = described.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"config of {short(described.get('class_name'))}: expected a JSON object, got {short(config)}")
    return config


# How the outputs of two directions become those of a merge mode.
MERGED = {"sum": "forward + backward", "ave": "(forward + backward) / 2", "mul": "forward * backward"}


def _settings_of_directions(candidate, said):
    class_name, config, version = candidate.class_name, candidate.config, candidate.version
    if class_name != "Bidirectional":
        return [_settings(class_name, config, version, said)]
    _check_keys(class_name, config, {"merge_mode", "layer", "backward_layer"})
    if config.get("merge_mode", "concat") != "concat":
        mode = config["merge_mode"]
        forward, backward = (f"{candidate.name}/{names[0]}" for names in candidate.directions)
        merged = MERGED.get(mode) if isinstance(mode, str) else None
        result = f"the output of Keras is {merged} of their outputs" if merged else "each has its own output"
        raise ValueError(
            f"merge_mode: {short(mode)} has no equivalent, only 'concat'; make a layer of each direction, "
            f"from_keras(source, {short(forward)}) and from_keras(source, {short(backward)}): {result}"
        )
    described = config.get("layer")
    name = _class_name(described)
    if name not in RECURRENT or name == "Bidirectional":
        raise ValueError(f"layer: a Bidirectional of {name or short(described)} has no equivalent")
    forward = _settings(name, _config(described), version, said)
    if forward.go_backwards:
        raise ValueError("go_backwards: True for the forward layer of a Bidirectional has no equivalent")
    described = config.get("backward_layer")
    if described is None:
        return [forward, forward]
    if _class_name(described) != name:
        raise ValueError(
            f"backward_layer: expected {name} as forward, got {short(described.get('class_name', described))}"
        )
    backward = _settings(name, _config(described), version, said)
    if not backward.go_backwards:
        raise ValueError("backward_layer: go_backwards: False has no equivalent")
    _check_equal([forward, backward])
    return [forward, backward]


def _check_keys(class_name, config, known):
    """Refuse settings that are not known, because they may change the result; those of value None are not set."""
    others = [
        key for key, value in config.items() if key not in known and key not in WITHOUT_EFFECT and value is not None
    ]
    if others:
        shown = ", ".join(f"{key}={short(config[key])}" for key in sorted(others)[:MOST_NAMES_SHOWN])
        raise ValueError(f"{shown}: not a known setting of {class_name}")


def _settings(class_name, config, version, said):
    """The settings of a recurrent layer that is not a Bidirectional."""
    if class_name == "RNN":
        cell = config.get("cell")
        class_name = _class_name(cell)
        if class_name not in KINDS or not class_name.endswith("Cell"):
            what = class_name or (short(cell.get("class_name")) if isinstance(cell, dict) else short(cell))
            raise ValueError(f"cell: an RNN of {what} has no equivalent, only of LSTMCell, GRUCell or SimpleRNNCell")
        config = {**{key: value for key, value in config.items() if key != "cell"}, **_config(cell)}
    if class_name not in KINDS:
        raise ValueError(f"a {class_name} has no equivalent")
    _check_keys(class_name, config, WITH_EFFECT)
    kind = KINDS[class_name]
    units = config.get("units")
    if type(units) is not int or units < 1:
        raise ValueError(f"units: expected an integer of at least 1, got {short(units)}")
    flags = {name: _flag(name, config.get(name, False)) for name in ("go_backwards", "time_major")}
    if class_name.startswith("CuDNN"):
        return _of_cudnn(kind, units, **flags)
    return Settings(
        kind=kind,
        units=units,
        use_bias=_flag("use_bias", config.get("use_bias")),
        activation=_activation(config.get("activation"), kind),
        recurrent_activation=None
        if kind == "rnn"
        else _gate_activation(config.get("recurrent_activation"), version, said["recurrent_activation"]),
        # Versions of Keras before 2.1.3 do not have it, and apply the gate before the product.
        reset_after=_flag("reset_after", config.get("reset_after", False)) if kind == "gru" else None,
        **flags,
    )


def _flag(name, value):
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {short(value)}")
    return value


def _function_name(name, value):
    """The name of a function of keras.activations."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        module, function = value.get("module"), value.get("config")
        if module in (None, "builtins") or isinstance(module, str) and module.partition(".")[0] in PACKAGES:
            value = function
    if not isinstance(value, str):
        shown = value.get("registered_name") or value.get("class_name") if isinstance(value, dict) else value
        raise ValueError(f"{name}: {short('linear' if value is None else shown)} has no equivalent")
    return value


def _activation(value, kind):
    value = _function_name("activation", value)
    allowed = RNN_NONLINEARITIES if kind == "rnn" else NONLINEARITIES
    if value not in allowed:
        raise ValueError(f"activation: {short(value)} has no equivalent, only {' and '.join(map(repr, allowed))}")
    return value


def _gate_activation(value, version, given):
    """The name that fastrnn has for the activation of the gates."""
    value = _function_name("recurrent_activation", value)
    if value == "hard_sigmoid":
        by_version = {2: "hard_sigmoid_fifth", 3: "hard_sigmoid_sixth"}.get(_major(version))
        if by_version is None and given in (None, "sigmoid"):
            raise ValueError(
                "recurrent_activation: 'hard_sigmoid' is one function in Keras 2 and another in Keras 3, and the "
                f"file does not say its version ({short(version)}); give 'hard_sigmoid_fifth' or 'hard_sigmoid_sixth'"
            )
        return by_version or given
    if value != "sigmoid":
        raise ValueError(f"recurrent_activation: {short(value)} has no equivalent, only 'sigmoid' and 'hard_sigmoid'")
    return value


def _major(version):
    digits = version.partition(".")[0] if version else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else None


# The layers in the configuration of a model


@dataclass(frozen=True)
class Place:
    """A recurrent layer in the configuration of a model.

    Parameters
    ----------
    names : tuple of str
        The names of the models that it is in, but for the outermost, and its own.
    class_name, config
        As of a Candidate.
    group : str
        The path of its group in .weights.h5.
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    group: str


def _places(config, names=(), group=""):
    """All recurrent layers, in order, of the configuration of a model."""
    if len(names) > MOST_DEPTH:
        raise ValueError(f"config: models inside models, more than {MOST_DEPTH} deep")
    layers = config.get("layers") if isinstance(config, dict) else config  # a list: Sequential, before Keras 2.2.3
    if not isinstance(layers, list):
        return
    used: dict[str, int] = {}
    for described in layers:
        # Layers of other packages have groups, too, which may have the same names.
        base = _group_name(described)
        number = used[base] = used.get(base, -1) + 1
        here = f"{group}layers/{base}" + (f"_{number}" if number else "")
        class_name = _class_name(described)
        if not class_name:
            continue
        own = described.get("config")
        name = (own.get("name") if isinstance(own, dict) else None) or described.get("name")
        if not isinstance(name, str):
            name = class_name
        if class_name in MODELS:
            yield from _places(own, (*names, name), here + "/")
        elif class_name in RECURRENT or class_name in NO_EQUIVALENT:
            yield Place((*names, name), class_name, _config(described), here)


def _candidate_at(place, version, weights):
    directions = ()
    if place.class_name == "Bidirectional":
        names = [_own_config(place.config.get(key)).get("name") for key in ("layer", "backward_layer")]
        forward, backward = [name if isinstance(name, str) else None for name in names]
        directions = _names_of_directions(forward or "layer", backward)
    return Candidate("/".join(place.names), place.class_name, place.config, version, weights, directions)


def _own_config(described):
    config = described.get("config") if isinstance(described, dict) else None
    return config if isinstance(config, dict) else {}


def _parsed(what, text):
    try:
        return from_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: not JSON: {error}") from error


def _model_config(what, text):
    """The configuration of the model, or of the layer alone."""
    described = _parsed(what, text)
    if not isinstance(described, dict):
        raise ValueError(f"{what}: expected a JSON object, got {short(described)}")
    return described.get("config")


# Files


@contextlib.contextmanager
def _candidates(path):
    """The candidates of the file, whose weights can be read inside of the context."""
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise ValueError("a folder, perhaps a SavedModel of TensorFlow; save the model as .keras")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a file")
    with open(path, "rb") as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
        if start[:4] == b"PK\x03\x04":
            config, version, weights = _unzipped(file, size)
            yield _in_archive(config, version, File(io.BytesIO(weights), len(weights)).root)
        elif start == SIGNATURE:
            yield _in_hdf5(File(file, size).root)
        else:
            raise ValueError("damaged, or neither a .keras archive nor an HDF5 file")


# .keras


def _unzipped(file, size):
    """The configuration, the version of Keras and the bytes of model.weights.h5."""
    import struct
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(file) as archive:
            metadata, config, weights = _members(archive, size)
    except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, OSError, struct.error) as error:
        raise ValueError(f"damaged: {type(error).__name__}: {error}") from error
    about = _parsed("metadata.json", metadata)
    version = about.get("keras_version") if isinstance(about, dict) else None
    config = _model_config("config.json", config)
    return config, version if isinstance(version, str) else None, weights


def _members(archive, size):
    """The bytes of metadata.json, config.json and model.weights.h5."""
    members = {}
    for info in archive.infolist():
        if info.filename in members:
            raise ValueError(f"{info.filename}: stands in the archive twice")
        members[info.filename] = info
    if "model.weights.h5" not in members and "model.weights.json" in members:
        raise ValueError("model.weights.json: weights in several files are not read; save with max_shard_size=None")
    most = MOST_EXPANSION * size + SMALL
    metadata, config = (_member(archive, members, name, min(most, MOST_JSON_BYTES)) for name in JSON_MEMBERS)
    return metadata, config, _member(archive, members, "model.weights.h5", most)


def _member(archive, members, name, most):
    """The bytes of a file in the archive, at most that many."""
    if name not in members:
        raise ValueError(f"{name}: not in the archive")
    info = members[name]
    if info.file_size > most:
        raise ValueError(f"{name}: {info.file_size} bytes, at most {most} are read")
    if info.flag_bits & 1:
        raise ValueError(f"{name}: encrypted")
    with archive.open(info) as file:
        return file.read(most + 1)[:most]  # to the end, where the checksum is compared


def _in_archive(config, version, root):
    def weights(place):
        def directions():
            name = _own_name(root, place.group)
            if name not in (None, place.names[-1]):
                raise ValueError(f"model.weights.h5: {place.group}: the weights of {short(name)}")
            if place.class_name != "Bidirectional":
                return [_numbered(root, place.group)]
            return [_numbered(root, f"{place.group}/{one}_layer") for one in ("forward", "backward")]

        return directions

    return [_candidate_at(place, version, weights(place)) for place in _places(config)]


# Groups such as layers/lstm/cell/vars, with datasets 0, 1 and 2


def _numbered(root, path):
    """The weights under the path of a layer.

    Keras 2.12 and 2.13 have groups under another name, in which layers of one class are not counted by one; so only the
    first of a class is known.
    """
    paths = [path]
    if not any(part[-1].isdigit() for part in path.split("/")):
        paths.append(path.replace(*(f"{name}/" for name in CONTAINERS)))
    for group in paths:
        for end in ("/cell/vars", "/vars"):  # a CuDNN layer has no cell
            found = child(root, group + end, missing=True)
            if found is not None and "0" in found.links:
                return [dataset_in(found, str(k)) for k in range(min(len(found.links), 4))]
    raise ValueError(f"model.weights.h5: {path}/cell/vars: missing, or without weights")


def _layers_in_groups(root):
    """The recurrent layers of a .weights.h5 file, which does not say their classes."""
    found: dict[str, Direction] = {}
    for path, group in _groups(root):
        if path[-2:] == ("cell", "vars") and _looks_recurrent(group):
            found["/".join(path[:-2])] = [dataset_in(group, str(k)) for k in range(len(group.links))]
    layers: dict[str, list[Direction]] = {}
    for path, weights in found.items():
        owner, _, own = path.rpartition("/")
        other = {"forward_layer": "backward_layer", "backward_layer": "forward_layer"}.get(own)
        if other is None or f"{owner}/{other}" not in found:
            layers[path] = [weights]
        elif own == "forward_layer":
            layers[owner] = [weights, found[f"{owner}/{other}"]]
    alone = []
    for path, directions in layers.items():
        inner = _own_name(root, f"{path}/forward_layer"), _own_name(root, f"{path}/backward_layer")
        alone.append(_weights_alone(_name_in_groups(root, path), directions, *inner))
    return alone


def _weights_alone(name, weights, forward=None, backward=None):
    """A candidate without a configuration, of which the shapes show the class; the names of its directions."""
    shape = weights[0][1].shape
    gates = shape[1] // shape[0] if len(shape) == 2 and shape[0] else 0
    class_name = {GATES[KINDS[cls]]: cls for cls in ("LSTM", "GRU", "SimpleRNN")}.get(gates, "not known")
    directions = _names_of_directions(forward or "layer", backward) if len(weights) == 2 else ()
    class_name = "Bidirectional of " * (len(weights) - 1) + class_name
    return Candidate(name, class_name, None, None, lambda: weights, directions)


def _own_name(root, path):
    """The name of the layer whose group this is, which newer versions of Keras write, or None."""
    group = child(root, f"{path}/vars", missing=True)
    return None if group is None else attribute(group, "name")


def _name_in_groups(root, path):
    """The names of the layer and of the models that it is in, or those of their groups if the file lacks names."""
    parts = path.split("/")
    ends = [k + 1 for k, part in enumerate(parts) if part not in CONTAINERS]
    return "/".join(_own_name(root, "/".join(parts[:end])) or parts[end - 1] for end in ends)


def _looks_recurrent(group):
    """Whether these are a kernel (I, G*H), a recurrent kernel (H, G*H) and perhaps a bias."""
    if len(group.links) not in (2, 3) or any(str(k) not in group.links for k in range(len(group.links))):
        return False
    kernel, recurrent_kernel = (dataset_in(group, name).shape for name in ("0", "1"))
    if len(kernel) != 2 or len(recurrent_kernel) != 2:
        return False
    return kernel[1] == recurrent_kernel[1] and kernel[1] in [G * recurrent_kernel[0] for G in GATES.values()]


def _groups(root):
    """All groups with their paths."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    count = 0
    while waiting:
        path, group = waiting.pop()
        yield path, group
        if len(path) >= MOST_DEPTH:
            raise ValueError(f"groups inside groups, more than {MOST_DEPTH} deep")
        names = list(group.links)
        count += len(names)
        if count > MOST_OBJECTS:
            raise ValueError(f"more than {MOST_OBJECTS} groups and datasets")
        for name in reversed(names):
            member = child(group, name)
            if member.is_group:
                waiting.append(((*path, name), member))


# .h5 with layer_names and weight_names


def _in_hdf5(root):
    """The candidates of a file that is not in an archive."""
    text = attribute(root, "model_config")
    group = child(root, "model_weights", missing=True)
    if group is None and not has_names(root, "layer_names"):
        return _layers_in_groups(root)
    group = root if group is None else group
    version = attribute(group, "keras_version") or attribute(root, "keras_version")
    if _major(version) == 1:
        raise ValueError(
            f"keras_version: {short(version)}: files of Keras 1 are not read; load and save them with Keras 2"
        )
    if text is None:
        return [
            _weights_alone(*found)
            for owner in names_in(group, "layer_names")
            for found in _layers_by_names(group, owner)
        ]

    def weights(place):
        return lambda: _directions_by_names(group, place)

    places = _places(_model_config("model_config", text))
    return [_candidate_at(place, version, weights(place)) for place in places]


def _parents(group, owner):
    """The weights of a layer or of a model inside the model: by path, and then by name."""
    own = child(group, owner)
    parents: dict[tuple[str, ...], dict[str, Weight]] = {}
    for name in names_in(own, "weight_names"):
        *path, leaf = name.split("/")
        leaf = leaf.partition(":")[0]
        if leaf in LEAVES:
            of_parent = parents.setdefault(tuple(path), {})
            if leaf in of_parent:
                raise ValueError(f"{own.name}: weight_names: {'/'.join((*path, leaf))} stands there twice")
            of_parent[leaf] = dataset_in(own, name)
    return {path: weights for path, weights in parents.items() if "recurrent_kernel" in weights}


def _ordered(weights, place):
    if "kernel" not in weights:
        raise ValueError(f"{'/'.join(place)}/kernel: missing")
    return [weights[leaf] for leaf in LEAVES if leaf in weights]


def _directions_by_names(group, place):
    parents = _parents(group, place.names[0])
    if len(place.names) > 1:
        parents = {path: weights for path, weights in parents.items() if place.names[-1] in path}
    wanted = 2 if place.class_name == "Bidirectional" else 1
    if len(parents) != wanted:
        raise ValueError(
            f"{group.name}/{place.names[0]}: weight_names: expected {wanted} times kernel, recurrent_kernel and bias, "
            f"found {len(parents)} times"
        )
    paths = _forward_first(list(parents)) if wanted == 2 else list(parents)
    return [_ordered(parents[path], path) for path in paths]


def _direction_of(path):
    """The place in a path of the part that begins with forward_ or backward_, and the direction; or None."""
    for k in reversed(range(len(path))):
        for direction in ("forward", "backward"):
            if path[k].startswith(f"{direction}_"):
                return k, direction
    return None


def _forward_first(paths):
    """Two paths of weights, that of the forward direction first, by the names that Bidirectional gives its layers."""
    first, second = paths
    common = os.path.commonprefix(paths)
    for path in paths:
        others = path[len(common) :]
        found = _direction_of(others)
        if found is not None:
            forward = path if found[1] == "forward" else second if path == first else first
            return [forward, second if forward == first else first]
    raise ValueError(f"{'/'.join(first)}, {'/'.join(second)}: the names do not show which direction is which")


def _layers_by_names(group, owner):
    """The arguments of `_weights_alone` for the recurrent layers of one entry of layer_names."""
    parents = _parents(group, owner)
    layers: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in parents:
        found = _direction_of(path)
        # Before the name of a direction stands that of its Bidirectional; without one it is a layer of a model.
        is_direction = found is not None and found[0] > 0
        layers.setdefault(path[: found[0]] if is_direction else path, []).append(path)
    for key, paths in layers.items():
        if len(paths) == 2:
            paths = _forward_first(paths)
        elif len(paths) > 2:
            raise ValueError(f"{group.name}/{owner}: {'/'.join(key)}: more than two directions")
        # The path of a direction continues with its own name.
        inner = [path[len(key)] if len(path) > len(key) else None for path in paths] if len(paths) == 2 else []
        yield _name_by_path(owner, key), [_ordered(parents[path], path) for path in paths], *inner


def _name_by_path(owner, path):
    """The name of a layer whose weights have a path, in the group of the layer or of a model that it is in."""
    names = [owner, *path[path[:1] == (owner,) :]]
    if len(path) > 1 and "_cell" in names[-1]:
        del names[-1]
    return "/".join(names)


# Live layers and models


def _live(source):
    """The candidates of a layer or a model of Keras that is in this process."""
    base = _keras_class(source)
    if base is None:
        hint = "; arrays of get_weights() are for fastrnn.from_weights" if isinstance(source, (list, tuple)) else ""
        raise TypeError(f"source: expected a path, or a layer or a model of Keras, got {type(source).__name__}{hint}")
    if base.__name__ in RECURRENT or base.__name__ in NO_EQUIVALENT:
        return [_live_candidate(source, source.name)]
    found = list(_live_layers(source, ()))
    if not found and not hasattr(source, "layers"):
        raise ValueError(f"source: a {base.__name__} is not a recurrent layer, nor a model")
    return found


def _keras_class(thing):
    """The first class of Keras among those of an object."""
    for cls in type(thing).__mro__:
        if cls.__module__.partition(".")[0] in LIVE_PACKAGES:
            return cls
    return None


def _live_layers(model, names):
    for layer in getattr(model, "layers", ()):
        base = _keras_class(layer)
        path = (*names, getattr(layer, "name", ""))
        if base is not None and (base.__name__ in RECURRENT or base.__name__ in NO_EQUIVALENT):
            yield _live_candidate(layer, "/".join(path))
        elif hasattr(layer, "layers"):
            yield from _live_layers(layer, path)


def _live_candidate(layer, name):
    base = _keras_class(layer)
    package = sys.modules[base.__module__.partition(".")[0]]
    version = getattr(package, "__version__", None)
    described = _live_description(layer, package)

    def weights():
        if base.__name__ != "Bidirectional":
            return [_live_weights(layer)]
        return [_live_weights(layer.forward_layer), _live_weights(layer.backward_layer)]

    directions = ()
    if described["class_name"] == "Bidirectional":
        directions = _names_of_directions(layer.forward_layer.name, layer.backward_layer.name)
    return Candidate(name, described["class_name"], described["config"], version, weights, directions)


def _live_description(layer, package):
    """The class and the configuration of a layer or a cell, as in a file.

    An activation keeps its name only if it is the function of Keras that has this name.
    """
    base = _keras_class(layer)
    if base is not type(layer) and type(layer).__module__ != OWN_LAYERS:
        return {"class_name": f"{type(layer).__module__}.{type(layer).__qualname__}", "config": {}}
    config: dict[str, Any] = {}
    if base.__name__ == "RNN":
        config["cell"] = _live_description(layer.cell, package)
        if config["cell"]["class_name"] not in KINDS:  # which may have no configuration
            return {"class_name": "RNN", "config": config}
    elif base.__name__ == "Bidirectional":
        config["layer"] = _live_description(layer.forward_layer, package)
        config["backward_layer"] = _live_description(layer.backward_layer, package)
    config = {**layer.get_config(), **config}
    for name in ("activation", "recurrent_activation"):
        function = getattr(layer, name, None)
        if name in config and function is not getattr(package.activations, str(config[name]), None):
            config[name] = {"class_name": getattr(function, "__qualname__", type(function).__qualname__)}
    return {"class_name": base.__name__, "config": config}


def _live_weights(layer):
    if not layer.built:
        raise ValueError("source: the layer has no weights yet; build it, or call it once")
    direction = []
    for name, array in zip(LEAVES, layer.get_weights()):
        array = np.asarray(array)
        if array.dtype.kind != "f":
            raise ValueError(f"{name}: expected float16, float32 or float64, got {array.dtype}")
        direction.append(Weight(name, array.shape, lambda array=array: array))  # type: ignore[misc]
    return direction
