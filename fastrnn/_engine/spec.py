"""The specifications of the cells, from which all Python code that depends on a cell follows.

A specification has the gates, the states, the weights with their shapes, and the options of a cell. The names and
shapes of parameters, the checks of arguments and their messages, the names of gates, representations, files, pickles,
and the name of the cell in C follow from it. A new cell is a `CellSpec` here, its equations in `fastrnn.reference` and
in C, and its public classes and functions.

Shapes are tuples of symbols: I inputs, H hidden units, P elements of h (H without a projection), and products and
quotients of these, such as "4*H". Layouts of other libraries also have sums, such as "I+P".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any, get_args

from fastrnn._core import Kernel
from fastrnn._validation import (
    Nonlinearity,
    RecurrentActivation,
    RNNNonlinearity,
    choice,
    flag,
    float_dtype,
    probability,
    real,
    shape_error,
    short,
    size,
)

NONLINEARITIES = get_args(Nonlinearity)
RNN_NONLINEARITIES = get_args(RNNNonlinearity)
RECURRENT_ACTIVATIONS = get_args(RecurrentActivation)
ACTIVATION_OPTIONS = ("recurrent_activation", "activation", "clip")
# The weights of matrix products, which a quantized layer has in fewer bits.
MATRICES = ("weight_ih", "weight_hh", "weight_hr")


# Options


class Required:
    """The type of REQUIRED, which marks an argument without a default."""

    def __repr__(self) -> str:
        return "no default"


REQUIRED = Required()


@dataclass(frozen=True)
class Option:
    """An argument of the constructors of layers and cells, or of some of them.

    Parameters
    ----------
    name : str
        The name of the argument, and of the property that shows it.
    check : callable
        ``check(name, value)`` returns the value to be stored, or raises a TypeError or a ValueError.
    default : object
        Its default in the signatures, in the form in which files, pickles and representations show it.
    since : int
        The first version of the format of files and pickles that has the option; older ones mean the default.
    plain : callable
        Turns the stored value into a plain one for files, pickles and representations.
    choices : tuple
        The values that it may have, if they are few.
    """

    name: str
    check: Callable[[str, Any], Any]
    default: Any = REQUIRED
    since: int = 1
    plain: Callable[[Any], Any] = lambda value: value
    choices: tuple[Any, ...] = ()


def _dtype_name(dtype):
    return dtype.name


def _recurrent_activation(name, value):
    """The name of the activation of the gates."""
    if isinstance(value, str) and value == "hard_sigmoid":
        raise ValueError(
            f"{name}: 'hard_sigmoid' names two functions; give 'hard_sigmoid_fifth', max(0, min(1, 0.2 * x + 0.5)), "
            "or 'hard_sigmoid_sixth', max(0, min(1, x / 6 + 0.5))"
        )
    return choice(name, value, RECURRENT_ACTIVATIONS)


def _clip(name, value):
    """The bound of `clip`: None, or a positive finite float."""
    if value is None:
        return None
    number = real(name, value, "None or a positive number")
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: expected None or a positive finite number, got {short(value)}")
    return number


# All options, in the order of representations and files. A class has the options that its constructor takes.
OPTIONS = {
    option.name: option
    for option in (
        Option("input_size", size),
        Option("hidden_size", size),
        Option("num_layers", size, 1),
        Option("nonlinearity", partial(choice, options=RNN_NONLINEARITIES), "tanh", choices=RNN_NONLINEARITIES),
        Option("reset_after", flag, True, since=2, choices=(True, False)),
        Option("recurrent_activation", _recurrent_activation, "sigmoid", since=2, choices=RECURRENT_ACTIVATIONS),
        Option("activation", partial(choice, options=NONLINEARITIES), "tanh", since=2, choices=NONLINEARITIES),
        Option("clip", _clip, None, since=2),
        Option("bias", flag, True),
        Option("batch_first", flag, False),
        Option("dropout", probability, 0.0),
        Option("dropout_per_sequence", flag, False, since=2),
        Option("bidirectional", flag, False),
        Option("reverse", flag, False, since=2),
        Option("proj_size", partial(size, minimum=0), 0),
        Option("peephole", flag, False),
        Option("num_heads", size, 1, since=2),
        Option("dtype", float_dtype, "float32", plain=_dtype_name),
    )
}

# The version of files and of pickles of layers and cells: the version that the newest option needs.
FORMAT_VERSION = max(option.since for option in OPTIONS.values())


# Shapes


def size_of(dimension: str, sizes: Mapping[str, int]) -> int:
    """The number that a symbol such as "4*H", "H/num_heads" or "I+P" stands for."""
    if "+" in dimension:
        return sum(size_of(term, sizes) for term in dimension.split("+"))
    product, _, divisor = dimension.partition("/")
    number = math.prod(int(factor) if factor.isdigit() else sizes[factor] for factor in product.split("*"))
    return number // sizes[divisor] if divisor else number


def _solve_dimension(dimension, number, sizes):
    """Add the size of the unknown symbol in the dimension if the dimension is `number`; returns whether one exists."""
    if "+" in dimension:
        unknown, known = dimension.split("+")
        return _solve_dimension(unknown, number - size_of(known, sizes), sizes)
    product, _, divisor = dimension.partition("/")
    *factors, symbol = product.split("*")
    if divisor and divisor not in sizes:
        size = size_of(product, sizes)
        fits = number > 0 and size % number == 0
        sizes[divisor] = size // number if fits else 1
        return fits
    if symbol.isdigit() or symbol in sizes:
        return number == size_of(dimension, sizes)
    factor = math.prod(map(int, factors))
    sizes[symbol] = number // factor
    return number % factor == 0 and (number > 0 or (symbol == "I" and number == 0))


def _is_known(dimension, sizes):
    """Whether the sizes of all its symbols are known."""
    symbols = dimension.replace("/", "*").replace("+", "*").split("*")
    return all(symbol.isdigit() or symbol in sizes for symbol in symbols)


@dataclass(frozen=True)
class Weight:
    """A weight of one direction of one layer.

    Parameters
    ----------
    name : str
        As in torch.nn, without the suffix of the layer.
    shape : tuple of str
    option : str
        The option that decides whether a layer has the weight; "" if every layer has it. For functions it is optional.
    """

    name: str
    shape: tuple[str, ...]
    option: str = ""

    def described(self) -> str:
        """`weight_ih (4*H, I)`, for messages."""
        return f"{self.name} ({', '.join(self.shape)}{',' if len(self.shape) == 1 else ''})"


# Cells


@dataclass(frozen=True, eq=False)
class CellSpec:
    """The specification of a cell.

    Parameters
    ----------
    name : str
        The name of its functions in `fastrnn.functional`.
    gates : tuple of str
        The gates in the order of the rows of the weights, as `forward(..., return_gates=True)` calls them.
    states : tuple of str
        The states, h first. h has P elements, every other state H.
    weights : tuple of Weight
        In the order of the kernels: weight_ih, weight_hh, bias_ih, bias_hh and others.
    options : tuple of str
        The options of its functions, besides weights.
    kernel : callable, optional
        ``kernel(options)`` returns the name of the cell in C. Default: `name`.
    check : callable
        ``check(options)`` raises a ValueError if options of a layer do not fit together.
    other_letters : mapping of str to str
        Letters of other libraries and papers for its gates, and the gate that each stands for.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    weights: tuple[Weight, ...]
    options: tuple[str, ...] = ()
    kernel: Callable[[Mapping[str, Any]], str] | None = None
    check: Callable[[Mapping[str, Any]], None] = lambda options: None
    other_letters: Mapping[str, str] = field(default_factory=dict)

    def kernel_of(self, options: Mapping[str, Any]) -> Kernel:
        """The Kernel, the cell in C, with these options."""
        name = self.name if self.kernel is None else self.kernel(options)
        activations = {option: options[option] for option in ACTIVATION_OPTIONS if option in options}
        return Kernel(name, **activations)

    @cached_property
    def defaults(self) -> tuple[tuple[str, Any], ...]:
        """The names of its options and their defaults."""
        return tuple((name, OPTIONS[name].default) for name in self.options)

    @cached_property
    def letters(self) -> dict[str, str]:
        """The gate that each letter stands for, whoever uses it."""
        return {gate: gate for gate in self.gates} | dict(self.other_letters)

    @cached_property
    def weight_names(self) -> tuple[str, ...]:
        return tuple(weight.name for weight in self.weights)

    def widths(self, H: int, P: int) -> tuple[int, ...]:
        """The numbers of elements of each state."""
        return (P, *(H for _ in self.states[1:]))

    def shapes(self, sizes: Mapping[str, int], options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights that a layer with these options has, by name."""
        return {
            weight.name: tuple(size_of(dimension, sizes) for dimension in weight.shape)
            for weight in self.weights
            if not weight.option or options.get(weight.option)
        }

    def solve(
        self,
        shapes: Sequence[tuple[int, ...] | None],
        options: Mapping[str, Any],
        names: Sequence[str],
        known: Mapping[str, int] | None = None,
    ) -> dict[str, int]:
        """The sizes I, H and P for which weights have these shapes.

        Parameters
        ----------
        shapes : sequence of tuple or None
            Of each weight, None where it is not given.
        options : mapping
            Options of the cell; those that are sizes may be symbols of shapes.
        names : sequence of str
            The names of the weights in messages.
        known : mapping of str to int
            Sizes that are known already.

        Raises
        ------
        ValueError
            If there are no such sizes.
        """
        sizes = dict(known or {}) | {name: n for name, n in options.items() if isinstance(n, int)}
        given = [(weight, name, n) for weight, name, n in zip(self.weights, names, shapes) if n is not None]
        # The projection decides P, so it comes second.
        given = sorted(given, key=lambda one: (one[0] is not self.weights[0], one[0].option != "proj_size"))
        has_projection = any(weight.option == "proj_size" for weight, _, _ in given)
        for weight, name, shape in given:
            symbols = weight.shape if has_projection else tuple(s.replace("P", "H") for s in weight.shape)
            expected = [size_of(s, sizes) if not s.isdigit() and _is_known(s, sizes) else None for s in symbols]
            fits = len(shape) == len(symbols)
            for symbol, number in zip(symbols, shape) if fits else ():
                fits &= _solve_dimension(symbol, number, sizes)
            if not fits:
                raise shape_error(name, symbols, expected, shape)
        return {"P": sizes["H"]} | sizes


def _weights(gates, columns="P"):
    """The four weights that every cell has, for so many gates; `columns` of weight_hh."""
    rows = f"{gates}*H" if gates > 1 else "H"
    return (
        Weight("weight_ih", (rows, "I")),
        Weight("weight_hh", (rows, columns)),
        Weight("bias_ih", (rows,), "bias"),
        Weight("bias_hh", (rows,), "bias"),
    )


def _check_projection(options):
    P, H = options.get("proj_size", 0), options["hidden_size"]
    if P >= H:
        raise ValueError(f"proj_size: expected less than hidden_size={H}, got {P}")


def _check_heads(options):
    heads, H = options["num_heads"], options["hidden_size"]
    if H % heads:
        raise ValueError(f"num_heads: expected a divisor of hidden_size={H}, got {heads}")


LSTM = CellSpec(
    name="lstm",
    gates=("i", "f", "g", "o"),
    states=("h", "c"),
    weights=(
        *_weights(4),
        Weight("weight_hr", ("P", "H"), "proj_size"),
        Weight("weight_peephole", ("3", "H"), "peephole"),
    ),
    options=("recurrent_activation", "activation", "clip"),
    check=_check_projection,
    # The new values are c in Keras and ONNX, j in TensorFlow 1, z in Greff et al. 2017.
    other_letters={"c": "g", "j": "g", "z": "g"},
)
GRU = CellSpec(
    name="gru",
    gates=("r", "z", "n"),
    states=("h",),
    weights=_weights(3),
    options=("reset_after", "recurrent_activation", "activation", "clip"),
    kernel=lambda options: "gru" if options["reset_after"] else "gru_reset_before",
    other_letters={"u": "z", "h": "n", "c": "n"},
)
RNN = CellSpec(
    name="rnn",
    gates=("h",),
    states=("h",),
    weights=_weights(1),
    options=("nonlinearity", "clip"),
    kernel=lambda options: f"rnn_{options['nonlinearity']}",
    other_letters={"n": "h"},
)
SLSTM = CellSpec(
    name="slstm",
    gates=("i", "f", "z", "o"),
    states=("h", "c", "n", "m"),
    weights=_weights(4, "H/num_heads"),
    check=_check_heads,
    other_letters={"g": "z", "c": "z"},
)
UGRNN = CellSpec(
    name="ugrnn",
    gates=("g", "c"),
    states=("h",),
    weights=_weights(2),
    options=("recurrent_activation", "activation", "clip"),
    other_letters={"u": "g", "z": "g", "n": "c", "h": "c"},
)

SPECS = {spec.name: spec for spec in (LSTM, GRU, RNN, SLSTM, UGRNN)}


# States as callers give them


@cache
def member_names(spec: CellSpec, argument: str, pattern: str) -> tuple[tuple[str, ...], str]:
    """The names in messages of the members of a tuple of states, "state (h_0)" etc., and of the tuple, "(h_0, c_0)".

    `pattern` names a state: "{}_0", for example.
    """
    members = [pattern.format(state) for state in spec.states]
    both = f"({', '.join(members)})" if len(members) > 1 else f"({members[0]},)"
    return tuple(f"{argument} ({member})" for member in members), both
