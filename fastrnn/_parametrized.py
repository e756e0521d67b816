"""What layers and cells have in common: named parameters, and what becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _core
from fastrnn._levels import pack_stack
from fastrnn._validation import Array, array_or_none, as_array, detached, flag, float_dtype, pair, single, size
from fastrnn.functional import GATES, WEIGHTS
from fastrnn.parameters import Parameters, check_values, checked_version

# A state as callers may give it and as it is returned: (h, c) of an LSTM, h of the others.
Given = TypeVar("Given")
Returned = TypeVar("Returned")

# Arguments in the order of a representation, which leaves them out where they have these values.
DEFAULTS = {
    "num_layers": 1, "nonlinearity": "tanh", "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
    "proj_size": 0, "peephole": False, "dtype": "float32",
}  # fmt: skip


# Of pickles of layers and cells. It has to grow when a class gets another argument, too: those of before then lack it.
PICKLE_VERSION = 1


class Restored(NamedTuple):
    """In place of the argument `rng`: parameters that exist, and their generator."""

    params: Parameters
    rng: np.random.Generator


class Frozen:
    """What is kept of frozen parameters, packed of each direction of each layer.

    One object, so that a call in another thread never mixes those of two freezes.
    """

    __slots__ = ("fingerprint", "for_forward", "for_backward")

    def __init__(self, fingerprint, for_forward):
        self.fingerprint = fingerprint  # of the parameters as they were
        self.for_forward = for_forward
        self.for_backward = None  # until the first `forward`


def owner(reference):
    """A tape's layer or cell, for a message."""
    alive = reference()
    return "one that is gone" if alive is None else alive


class Parametrized:
    """Parameters of one or more directions of one or more layers of a cell.

    Parameters
    ----------
    cell : str
        As fastrnn._core calls it.
    input_size, hidden_size, bias, dtype, rng
        As of fastrnn.LSTM, not yet checked.
    num_layers, proj_size, peephole
        The same, checked.
    suffix, directions : str, tuple of str
        What the names of the parameters end in: the suffix with the number of the layer, then each direction.
    """

    def __init__(
        self, cell, input_size, hidden_size, bias, dtype, rng, num_layers=1, suffix="", directions=("",), proj_size=0,
        peephole=False,
    ):  # fmt: skip
        input_size = size("input_size", input_size)
        hidden_size = size("hidden_size", hidden_size)
        bias = flag("bias", bias)
        dtype = float_dtype("dtype", dtype)
        if proj_size >= hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size={hidden_size}, got {proj_size}")
        if isinstance(rng, bool):
            raise TypeError(f"rng: expected None, an int or a numpy.random.Generator, got {rng!r}")
        params = None
        if isinstance(rng, Restored):
            params, rng = rng
        try:
            rng = np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise type(error)(f"rng: {error}") from error

        G, P, D = GATES[cell] * hidden_size, proj_size or hidden_size, len(directions)
        columns = input_size + (num_layers - 1) * D * P + num_layers * (P + 2 * bias)
        numbers = D * (G * columns + num_layers * (proj_size + 3 * peephole) * hidden_size)
        if numbers * dtype.itemsize > sys.maxsize:
            raise ValueError(
                f"input_size, hidden_size: too large: the parameters of input_size={input_size}, "
                f"hidden_size={hidden_size}, num_layers={num_layers} are more than memory can address"
            )
        names, shapes = [], {}
        for k in range(num_layers):
            sizes = [(G, D * P if k else input_size), (G, P), (G,), (G,), (P, hidden_size), (3, hidden_size)]
            present = [True, True, bias, bias, proj_size > 0, peephole]
            for direction in directions:
                names.append([f"{name}{suffix.format(k)}{direction}" for name in WEIGHTS])
                shapes |= {name: n for name, n, there in zip(names[-1], sizes, present) if there}
        if params is None:
            params = Parameters(shapes, dtype)
            bound = hidden_size**-0.5
            for array in params.values():
                array[...] = rng.uniform(-bound, bound, array.shape)
        elif list(params._shapes().items()) != list(shapes.items()) or params.flat.dtype != dtype:
            raise ValueError(f"the parameters of a pickle do not fit its arguments: {params!r}")
        self._cell = cell
        self._input_size = input_size
        self._hidden_size = hidden_size
        self._output_size = P
        self._bias = bias
        self._proj_size = proj_size
        self._names = names
        self._rng = rng
        self._params = params
        self._derive()

    def _derive(self):
        """Everything that follows from the parameters."""
        self._dtype = self._params._flat.dtype
        self._weights = self._split(self._params._views())

    def _split(self, arrays):
        """The arrays of each direction of each layer, in the order of functional.WEIGHTS."""
        return [tuple([arrays.get(name) for name in names]) for names in self._names]

    # Pickles and copies have public names alone, so that they do not depend on how an object keeps its things: the
    # arguments of the constructor, the parameters, the generator; and the attributes that others have added.

    _OWN: tuple[str, ...] = (
        "_cell", "_input_size", "_hidden_size", "_output_size", "_bias", "_proj_size", "_names", "_rng", "_params",
        "_dtype", "_weights",
    )  # fmt: skip

    def __getstate__(self):
        return {
            "version": PICKLE_VERSION,
            "arguments": self._constructor_arguments(),
            "params": self._params,
            "rng": self._rng,
            "frozen": self.frozen,
            "attributes": {name: value for name, value in self.__dict__.items() if name not in self._OWN},
        }

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, f"a pickle of {type(self).__name__}")
        # A derived class may have a constructor with other arguments, and was not called for the original's state.
        public = next(cls for cls in type(self).__mro__ if cls.__module__ == "fastrnn")
        public.__init__(self, **state["arguments"], rng=Restored(state["params"], state["rng"]))
        self.__dict__.update(state["attributes"])
        if state["frozen"] and not self.frozen:
            self.freeze()

    # States

    def _as_state(self, names, value, ndim):
        """The members h and c of a state, each (name, array or None), not yet checked; without c but for an LSTM."""
        name, h_name, c_name, both = names
        if self._cell != "lstm":
            return ((name, array_or_none(name, single(name, value, ndim))),)
        h, c = pair(name, value, both)
        return (h_name, array_or_none(h_name, h)), (c_name, array_or_none(c_name, c))

    # Configuration

    @property
    def input_size(self) -> int:
        """Size of each step's input."""
        return self._input_size

    @property
    def hidden_size(self) -> int:
        """Size of the state."""
        return self._hidden_size

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._bias

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._dtype

    def _constructor_arguments(self):
        """All arguments that make such an object, less `rng`, as plain Python values."""
        return {
            "input_size": self._input_size,
            "hidden_size": self._hidden_size,
            "bias": self._bias,
            "dtype": self._dtype.name,
        }

    def __repr__(self) -> str:
        arguments = self._constructor_arguments()
        parts = [str(self._input_size), str(self._hidden_size)]
        for name, default in DEFAULTS.items():
            value = arguments.get(name, default)
            if value != default:
                parts.append(f"{name}={value if name == 'dtype' else repr(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

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
            value = mapping[name]
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
                    check_values(name, given[name], array)
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
        # Whatever can fail or warn, and whatever shares memory with a parameter, is copied first.
        new = self._params.empty_like()
        for name, array in given.items():
            new[name] = array
        self._params._flat[...] = new._flat

    def _prefixes(self, names):
        """What stands before all names of parameters, as in the state_dict of a module that has such a layer."""
        *_, last = self._params
        found = [name.removesuffix(last) for name in names if isinstance(name, str) and name.endswith("." + last)]
        return [prefix for prefix in found if all(prefix + name in names for name in self._params)]

    @property
    def frozen(self) -> bool:
        """Whether the parameters are read-only and their packed form is kept: see `freeze`."""
        return self._params._frozen is not None

    def freeze(self) -> None:
        """Make the parameters read-only and keep them as the kernels read them, for calls that pack nothing.

        The results are the same bits. The packed weights take as much memory as the parameters, and as much again from
        the first `forward` on. Any number of threads may call a frozen layer at once.

        Notes
        -----
        Every array that `params` gives out becomes read-only, those given out before included. What cannot be seen is
        a writeable view that somebody has made of one of them before: writing to it changes `params` and not the
        results; only the first `forward` would raise a ValueError.
        """
        params = self._params
        try:
            params._set_writeable(False)
            frozen = Frozen(_core.fingerprint(params._flat), pack_stack(self._cell, self._weights, False))
        except BaseException:  # Ctrl-C, too
            params._set_writeable(params._frozen is None)
            raise
        params._frozen = frozen  # of the parameters, because layers may share these
        self._forget()

    def _forget(self):
        """Drop what is kept between calls besides."""

    def _for_training(self, frozen):
        """The packed weights for forward, and those for backward."""
        if frozen.for_backward is None:
            if _core.fingerprint(self._params._flat) != frozen.fingerprint:
                raise ValueError("params: written to while frozen, through a view made before; unfreeze() and freeze()")
            frozen.for_backward = pack_stack(self._cell, self._weights, True)
        return frozen.for_forward, frozen.for_backward

    def unfreeze(self) -> None:
        """Make the parameters writeable again, and drop their packed form."""
        self._params._frozen = None
        self._params._set_writeable(True)
