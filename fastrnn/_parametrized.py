"""The base of layers and cells: named parameters, freezing, loading, pickles."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _core  # type: ignore[attr-defined]  # a submodule
from fastrnn._engine.spec import FORMAT_VERSION, OPTIONS, REQUIRED, CellSpec
from fastrnn._engine.stack import Stack
from fastrnn._validation import Array, as_array, detached, item_of
from fastrnn.parameters import Parameters, check_loaded, checked_version

# A state as callers may give it and as it is returned: (h, c) of an LSTM, h of the others.
Given = TypeVar("Given")
Returned = TypeVar("Returned")

# The classes of layers and cells, by name.
LAYERS: dict[str, type[Parametrized]] = {}


def generator(rng: Any) -> np.random.Generator:
    """The generator of the argument `rng`."""
    if isinstance(rng, bool):
        raise TypeError(f"rng: expected None, an int or a numpy.random.Generator, got {rng!r}")
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng: {error}") from error


def no_draws() -> np.random.Generator:
    """A generator for a constructor whose initial parameters will be replaced: drawing them takes longer than the rest.

    The layer needs another generator afterwards, for the masks of dropout.
    """

    class NoDraws(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):
            return np.broadcast_to(np.float64(low), size or ())

    return NoDraws(np.random.PCG64(0))


class Restored(NamedTuple):
    """Existing parameters and their generator, given in place of the argument `rng` by unpickling."""

    params: Parameters
    rng: np.random.Generator


class Frozen:
    """Frozen parameters, packed for each direction of each layer.

    They are one object, so that a call in another thread never mixes the weights of two freezes.
    """

    __slots__ = ("fingerprint", "for_forward", "for_backward")

    fingerprint: int
    for_forward: list[_core.Packed]
    for_backward: list[_core.Packed] | None

    def __init__(self, fingerprint, for_forward):
        self.fingerprint = fingerprint  # of the parameters as they were
        self.for_forward = for_forward
        self.for_backward = None  # until the first `forward`


class Configured:
    """The options of one or more directions of one or more layers of a cell, and the weights of each direction."""

    __slots__ = ("_options", "_params", "_stack", "_weights")

    _options: dict[str, Any]
    _params: Any  # Parameters, or those of a quantized layer
    _stack: Stack
    _weights: list[tuple[Array | None, ...]]

    @property
    def input_size(self) -> int:
        """Size of each step's input."""
        return self._options["input_size"]

    @property
    def hidden_size(self) -> int:
        """Size of the state."""
        return self._options["hidden_size"]

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._options["bias"]

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._options["dtype"]

    def _constructor_arguments(self) -> dict[str, Any]:
        """All arguments that make such an object, less `rng`, as plain Python values."""
        return {name: OPTIONS[name].plain(value) for name, value in self._options.items()}

    def _call_of(self, name: str) -> str:
        """The call of the constructor `name` that makes such an object."""
        parts = []
        for option, value in self._constructor_arguments().items():
            if OPTIONS[option].default is REQUIRED:
                parts.append(repr(value))
            elif value != OPTIONS[option].default:
                parts.append(f"{option}={value if option == 'dtype' else repr(value)}")
        return f"{name}({', '.join(parts)})"


class Parametrized(Configured):
    """Parameters of one or more directions of one or more layers of a cell.

    A public class names its cell, ``class GRU(Recurrent, spec=spec.GRU)``, and has a constructor whose arguments are
    options of fastrnn._engine.spec and then `rng`; it hands ``locals()`` to `_construct`. Everything else about options
    follows from their specification.
    """

    __slots__ = ("_rng", "_names")

    _spec: ClassVar[CellSpec]
    _option_names: ClassVar[tuple[str, ...]]
    _states_have_layers: ClassVar[bool] = True

    _params: Parameters
    _rng: np.random.Generator
    _names: list[list[str]]

    def __init_subclass__(cls, spec: CellSpec | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if spec is not None:
            code = cls.__init__.__wrapped__.__code__  # type: ignore[attr-defined]
            arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            cls._spec, cls._option_names = spec, tuple(name for name in OPTIONS if name in arguments)
            cls.__module__ = "fastrnn"  # the public name, also in pickles, rather than that of the module
            LAYERS[cls.__name__] = cls

    def _construct(self, arguments: dict[str, Any]) -> None:
        """Construct the object from the arguments of its constructor, not yet checked, by name.

        A constructor that is called again, and fails, changes nothing.
        """
        rng, params = arguments["rng"], None
        if isinstance(rng, Restored):
            params, rng = rng
        options, names, shapes, stack = self._configured(arguments, params is None)
        rng = generator(rng)
        if params is None:
            params = Parameters(shapes, options["dtype"])
            bound = options["hidden_size"] ** -0.5
            for array in params.values():
                array[...] = rng.uniform(-bound, bound, array.shape)
        elif list(params._shapes().items()) != list(shapes.items()) or params.flat.dtype != options["dtype"]:
            raise ValueError(f"the parameters of a pickle do not fit its arguments: {params!r}")
        self._options, self._names, self._stack, self._rng, self._params = options, names, stack, rng, params
        self._weights = self._split(params._views())

    def _configured(self, arguments: dict[str, Any], is_new: bool) -> tuple[Any, ...]:
        """The checked options, names of the parameters of each direction, their shapes by name, and the stack."""
        options = {name: OPTIONS[name].check(name, arguments[name]) for name in self._option_names}
        self._spec.check(options)
        self._check_options(options, is_new)

        spec, dtype = self._spec, options["dtype"]
        H, P = options["hidden_size"], options.get("proj_size") or options["hidden_size"]
        sizes = {"I": options["input_size"], "H": H, "P": P}
        num_layers, directions, suffixes = self._arrangement(options)
        of_layer = [spec.shapes(options | sizes | {"I": n}, options) for n in (sizes["I"], len(directions) * P)]
        first, other = (sum(int(np.prod(n, dtype=object)) for n in shapes.values()) for shapes in of_layer)
        if len(directions) * (first + (num_layers - 1) * other) * dtype.itemsize > sys.maxsize:
            raise ValueError(
                f"input_size, hidden_size: too large: the parameters of input_size={sizes['I']}, "
                f"hidden_size={H}, num_layers={num_layers} are more than memory can address"
            )
        if num_layers > 1000:  # a MemoryError before all names are made
            np.empty(len(directions) * (first + (num_layers - 1) * other), dtype)
        names: list[list[str]] = []
        shapes: dict[str, tuple[int, ...]] = {}
        for k in range(num_layers):
            for suffix in suffixes:
                end = suffix.format(k)
                names.append([name + end for name in spec.weight_names])
                shapes |= {name + end: shape for name, shape in of_layer[min(k, 1)].items()}
        stack = Stack(spec, spec.kernel_of(options), dtype, sizes, num_layers, directions, self._states_have_layers)
        return options, names, shapes, stack

    def _check_options(self, options: dict[str, Any], is_new: bool) -> None:
        """Check options together, and warn of those that have no effect if the object is not a copy."""

    def _arrangement(self, options: dict[str, Any]) -> tuple[int, tuple[bool, ...], tuple[str, ...]]:
        """The number of layers; the directions of each, whether reverse; and the suffixes of parameter names.

        A suffix is a format string of the number of the layer, one for each direction.
        """
        raise NotImplementedError

    def _split(self, arrays):
        """The arrays of each direction of each layer, in the order of the cell's weights; None for an absent one."""
        weights = []
        for names in self._names:
            weights.append(tuple(map(arrays.get, names)))
        return weights

    # Pickles and copies have public names alone, so that they do not depend on the attributes of this class: the
    # arguments of the constructor, the parameters, the generator; and the attributes that others have added.

    def __getstate__(self):
        return {
            "version": FORMAT_VERSION,
            "arguments": self._constructor_arguments(),
            "params": self._params,
            "rng": self._rng,
            "frozen": self.frozen,
            "attributes": dict(self.__dict__),
        }

    def __setstate__(self, state):
        checked_version(state, FORMAT_VERSION, f"a pickle of {type(self).__name__}")
        # A derived class may have a constructor with other arguments, and was not called for the original's state.
        public: Any = next(cls for cls in type(self).__mro__ if cls.__module__ == "fastrnn")
        public.__init__(self, **state["arguments"], rng=Restored(state["params"], state["rng"]))
        self.__dict__.update(state["attributes"])
        if state["frozen"] and not self.frozen:
            self.freeze()

    def __repr__(self) -> str:
        return self._call_of(type(self).__name__)

    # Parameters

    @property
    def params(self) -> Parameters:
        """The parameters; their values may be changed at any time."""
        return self._params

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter, by name."""
        return {name: array.copy() for name, array in self._params.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Set every parameter.

        Parameters
        ----------
        mapping : mapping of str to array_like
            Exactly the names and shapes of `params`: another layer's `state_dict()` or that of torch's layer of the
            same name, for example. Nothing is written unless everything fits.

        Raises
        ------
        TypeError
            If `mapping` is not a mapping.
        ValueError
            If a name is missing or not known, or an array does not fit: the message lists them all. Or if
            the layer is frozen.
        """
        try:
            names = list(mapping.keys())
        except AttributeError:
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}") from None
        given, unusable = {}, {}
        for name in names:
            value = item_of(mapping, name)
            try:
                given[name] = as_array(name, detached(value)) if name in self._params else None
            except (TypeError, ValueError) as error:
                unusable[name] = str(error)
        if self.frozen:
            raise ValueError("params: the layer is frozen; call unfreeze() first")
        problems = []
        for name, array in self._params._views().items():
            if name in unusable:
                problems.append(unusable[name])
            elif name not in given:
                problems.append(f"{name}: missing")
            else:
                try:
                    check_loaded(name, given[name], array)
                except (TypeError, ValueError) as error:
                    problems.append(str(error))
        problems += [f"{name}: not a parameter" for name, array in given.items() if array is None]
        if problems:
            for prefix in self._prefixes(given):
                problems[:0] = [
                    f"the names begin with {prefix!r}; "
                    f"give {{k.removeprefix({prefix!r}): v for k, v in mapping.items() if k.startswith({prefix!r})}}"
                ]
            raise ValueError("mapping: does not fit " + "\n    ".join([f"{self!r}:", *problems]))
        # Copied first: a cast may fail or warn, and arrays may share memory with the parameters.
        new = self._params.empty_like()
        for name, array in given.items():
            new[name] = array  # type: ignore[assignment]  # None is among the problems
        self._params._flat[...] = new._flat

    def _prefixes(self, names):
        """The prefix of all names of parameters, as in the state_dict of a module that contains such a layer."""
        *_, last = self._params
        found = [name.removesuffix(last) for name in names if isinstance(name, str) and name.endswith("." + last)]
        return [prefix for prefix in found if all(prefix + name in names for name in self._params)]

    @property
    def frozen(self) -> bool:
        """Whether the parameters are read-only and their packed form is kept: see `freeze`."""
        return self._params._frozen is not None

    def freeze(self) -> None:
        """Make the parameters read-only and keep them packed, so that calls need not pack them.

        The results have the same bits. The packed weights take as much memory as the parameters, and as much again from
        the first `forward` on. Any number of threads may call a frozen layer at once.

        Notes
        -----
        Every array of `params` becomes read-only, including arrays that were read before. A writeable view that was
        made before stays writeable: writing to it changes `params` but not the results. The first `forward` after
        `freeze` detects such a change and raises a ValueError.
        """
        flat = self._params._flat
        # Of the parameters, because layers may share these.
        self._params._freeze(lambda: Frozen(_core.fingerprint(flat), self._stack.pack(self._weights, False)))

    def _packed_for_training(self, frozen):
        """The frozen weights packed for forward, and those packed for backward."""
        if frozen.for_backward is None:
            if _core.fingerprint(self._params._flat) != frozen.fingerprint:
                raise ValueError("params: written to while frozen, through a view made before; unfreeze() and freeze()")
            frozen.for_backward = self._stack.pack(self._weights, True)
        return frozen.for_forward, frozen.for_backward

    def unfreeze(self) -> None:
        """Make the parameters writeable again, and drop their packed form."""
        self._params._unfreeze()


class Clipped(Parametrized):
    """A layer or cell with the option `clip`."""

    __slots__ = ()

    @property
    def clip(self) -> float | None:
        """The bound of the input of activations, or None."""
        return self._options["clip"]


class Activated(Clipped):
    """A layer or cell with options for the activations of its gates."""

    __slots__ = ()

    @property
    def recurrent_activation(self) -> str:
        """The activation of the gates."""
        return self._options["recurrent_activation"]

    @property
    def activation(self) -> str:
        """The activation of the new values, "tanh" or "relu"."""
        return self._options["activation"]
