"""Checks and conversions of arguments at the Python boundary; below it every array is trusted.

Every error starts with the argument's name. Nothing is formatted unless an error occurs.

A conversion may run the caller's code (`__array__`, `__len__`, `__index__`, ...), and that code may assign to the shape
of another argument, or call the layer. Therefore `as_array` returns an array object of our own, so that
its shape and dtype remain as they were checked; and a method of a layer converts all its arguments before it reads the
layer. The array also keeps the memory alive. Only ``ndarray.resize(refcheck=False)`` can take it away, as it can from
every view in NumPy.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
import reprlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core

# Of float32 or float64: the arguments of a call decide, which no type checker can follow.
Array = NDArray[Any]
State = tuple[ArrayLike | None, ArrayLike | None] | list[ArrayLike | None]
FourStates = tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None, ArrayLike | None] | list[ArrayLike | None]
Nonlinearity = Literal["tanh", "relu"]
RNNNonlinearity = Literal["tanh", "relu", "sigmoid"]
RecurrentActivation = Literal["sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

SHORT = reprlib.Repr()
SHORT.maxstring = 200  # for the names of classes and tensors


def short(value: object) -> str:
    """A representation of any value that is short enough for a message."""
    try:
        return SHORT.repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return "a huge number"


# Arrays


def shape_error(
    name: str, symbols: Sequence[object], sizes: Sequence[int | None], given: tuple[int, ...], hint: str = ""
) -> ValueError:
    """`x: expected (T, B, I=64), got (25, 16, 32)`, and a hint; of a size of None, only the symbol is shown."""
    axes = [str(s) if n is None else f"{s}={n}" for s, n in zip(symbols, sizes, strict=True)]
    expected = ", ".join(axes) + ("," if len(axes) == 1 else "")
    return ValueError(f"{name}: expected ({expected}), got {given}{hint}")


def as_array(name: str, value: Any) -> Array:
    """The value as a plain array object of our own, still in the value's layout and memory."""
    return value.view() if type(value) is np.ndarray else converted(name, value)


def array_or_none(name, value):
    return None if value is None else as_array(name, value)


def converted(name, value):
    """as_array of anything but a plain array."""
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    if requires_grad(value) or isinstance(value, (tuple, list)) and any(map(requires_grad, value)):
        raise TypeError(
            f"{name}: a tensor that requires grad, and no gradient would flow back to it; give its .detach(), "
            "or use the modules of fastrnn.torch"
        )
    if isinstance(value, tuple) and hasattr(value, "batch_sizes"):
        raise TypeError(
            f"{name}: a PackedSequence; unpack it with torch.nn.utils.rnn.pad_packed_sequence and pass lengths="
        )
    try:
        array = np.asarray(value).view()
    except MemoryError:
        raise
    except ValueError as error:
        remedy = RAGGED if name == "x" and "inhomogeneous" in str(error) else ""
        raise ValueError(f"{name}: not an array: {error}{remedy}") from error
    except Exception as error:  # of any kind, of an object's own __array__
        remedy = "; give its .float()" if str(getattr(value, "dtype", "")) == "torch.bfloat16" else ""
        raise TypeError(f"{name}: not an array: {error}{remedy}") from error
    if array.dtype == object and hasattr(value, "to_numpy"):
        raise TypeError(
            f"{name}: a {type(value).__name__} of text or of nullable numbers; "
            "take the columns of numbers and give their .to_numpy(np.float32)"
        )
    return array


RAGGED = "; sequences of different lengths: pad them to one array and pass lengths=; fastrnn.pad(x) makes both"


def as_x(value):
    """as_array of x, the sequences of a batch: in a list of arrays the order of the axes is not clear."""
    if isinstance(value, (tuple, list)) and not hasattr(value, "batch_sizes"):
        shapes = [getattr(item, "shape", None) for item in value]
        lengths = {shape[0] for shape in shapes if isinstance(shape, tuple) and len(shape) > 1}
        if len(lengths) == 1:
            raise TypeError(
                "x: a list of arrays, whose axes can be read in two ways; give np.stack(x) of time steps (B, I), or "
                "np.stack(x, axis=1) of sequences (T, I); with batch_first=True, np.stack(x) of sequences"
            )
        if lengths:
            raise ValueError(f"x: not an array: a list of arrays of different lengths{RAGGED}")
    return as_array("x", value)


def x_hint(array):
    """The remedy, where the number of axes of x shows a usual mistake, for the end of a message."""
    if array.ndim == 1:
        return "; a series of single numbers is x[:, None]"
    if array.ndim == 2 and array.dtype.kind in "iu":
        return "; integers that stand for words or classes have to become vectors first: one-hot, or an embedding"
    return ""


def requires_grad(value):
    """Whether the value is a torch tensor that requires grad, which torch does not convert to an array."""
    return getattr(value, "requires_grad", False) is True


def item_of(mapping, name):
    """The value under a name; a mapping may lack one of its keys."""
    try:
        return mapping[name]
    except LookupError as error:
        raise ValueError(f"mapping: {name!r} is among the keys, but has no value") from error


def detached(value):
    """The value without its autograd graph, for values that are copied, as from one state_dict to another."""
    return value.detach() if requires_grad(value) else value


def check_cast(name, array, dtype):
    """Refuse an array that NumPy's "same_kind" rule does not cast to the dtype."""
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: cannot be cast from {array.dtype} to {dtype} by NumPy's 'same_kind' rule")


def check_array(name, array, symbols, sizes, dtype):
    """Refuse an array that cannot be cast or is not of exactly these sizes; None passes."""
    if array is not None:
        if array.dtype is not dtype:
            check_cast(name, array, dtype)
        if array.shape != sizes:
            raise shape_error(name, symbols, sizes, array.shape)


def check_flags(name, array, symbols, sizes):
    """Refuse an array that is not of bool and of exactly these sizes."""
    if array.dtype != bool:
        raise TypeError(f"{name}: expected booleans, got {array.dtype}")
    if array.shape != sizes:
        raise shape_error(name, symbols, sizes, array.shape)


def check_state(name, array, symbols, sizes, dtype):
    """check_array for an initial state, whose batch axis may also be 1: one state for all B sequences."""
    if array is not None and array.shape != sizes:
        check_cast(name, array, dtype)
        if array.shape != (*sizes[:-2], 1, sizes[-1]):
            raise shape_error(name, symbols, sizes, array.shape)
    else:
        check_array(name, array, symbols, sizes, dtype)


def initial_state(array, sizes, dtype, private):
    """An initial state as the kernels read it: zeros for None, a single state broadcast to all sequences.

    With `private` the memory is not shared with the caller.
    """
    if array is None:
        return np.zeros(sizes, dtype)
    if array.shape != sizes:
        array = np.broadcast_to(array, sizes)
    if private:
        return array.astype(dtype, order="C", casting="same_kind")
    return _core.native(array, dtype)


def is_shared(given, B):
    """Whether a given initial state, or None, is one for all of B sequences."""
    return given is not None and given.shape[-2] == 1 != B


def over_sequences(d_state):
    """The gradient (..., 1, n) of a shared state: the sum of (..., B, n), from the first sequence to the last.

    The sum is computed in float64 and rounded once to the dtype of d_state.
    """
    if not d_state.shape[-2]:
        return np.zeros((*d_state.shape[:-2], 1, d_state.shape[-1]), d_state.dtype)
    with np.errstate(all="ignore"):  # gradients may be infinite
        return np.add.accumulate(d_state, axis=-2, dtype=np.float64)[..., -1:, :].astype(d_state.dtype)


def members(name, value, count, names):
    """The `count` members of a tuple or list, which messages show as `names`; None stands for a tuple of None."""
    if value is None:
        return (None,) * count
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple {names}, got {type(value).__name__}")
    value = tuple(value)  # a list could change while its members are converted
    if len(value) != count:
        raise ValueError(f"{name}: expected a tuple {names}, got {len(value)} items")
    return value


def single(name, value, ndim):
    """The state of a cell with one state, unchanged; refuses a tuple or list that looks like an LSTM's."""
    if isinstance(value, (tuple, list)):
        for member in value:
            if member is None or getattr(member, "ndim", 0) == ndim:
                given = f"{type(value).__name__} of length {len(value)}"
                raise TypeError(f"{name}: expected one array, got a {given}; an LSTM's is (h, c)")
    return value


def check_bytes(name, shape, width, itemsize):
    """Refuse T and B for which memory could not address an array (T, B, width)."""
    T, B = shape
    # NumPy, too, counts an empty axis as one.
    if (T or 1) * (B or 1) * width * itemsize > sys.maxsize:
        raise ValueError(
            f"{name}: too large: {T} * {B} steps and sequences of {width} numbers "
            f"of {itemsize} bytes are more than memory can address"
        )


# Names of arguments

# Names of arguments in other libraries, and here.
ALIASES = {
    "hx": "state", "initial_state": "state", "input": "x", "seq_lengths": "lengths", "seed": "rng",
    "random_state": "rng",
}  # fmt: skip
MASK = (
    "mask: is not an argument; give lengths, integers (B,), for padding at the end, or call "
    "fastrnn.masked(layer, x, mask) for a mask of booleans"
)

Function = TypeVar("Function", bound=Callable[..., Any])
A = ParamSpec("A")
R = TypeVar("R")
Arguments = tuple[Any, ...]


def names_arguments(function: Function) -> Function:
    """The function; an argument under another library's name raises a TypeError with the name used here."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except TypeError:
            refuse_aliases(function, kwargs)
            raise

    return call  # type: ignore[return-value]


def refuse_aliases(function, kwargs):
    """Raise a TypeError for an argument under another library's name."""
    parameters = inspect.signature(function).parameters
    for name in kwargs:
        if ALIASES.get(name) in parameters:
            raise TypeError(f"{name}: is called {ALIASES[name]} here") from None
        if name == "mask" and "lengths" in parameters and name not in parameters:
            raise TypeError(MASK) from None


def takes(arguments: Callable[A, Arguments]) -> Callable[[Callable[[Arguments], R]], Callable[A, R]]:
    """A decorator that gives a function of a tuple the signature of `arguments`, which returns that tuple.

    Messages and `inspect.signature` show the name and the result of the decorated function, as if the signature stood
    there. An argument under another library's name raises a TypeError, as with `names_arguments`.
    """
    assert isinstance(arguments, types.FunctionType)

    def decorate(function):
        collect = types.FunctionType(
            arguments.__code__, arguments.__globals__, function.__name__, arguments.__defaults__, arguments.__closure__
        )
        collect.__kwdefaults__ = arguments.__kwdefaults__
        collect.__annotations__ = arguments.__annotations__ | {"return": function.__annotations__["return"]}
        for name in ("__module__", "__qualname__", "__doc__"):
            setattr(collect, name, getattr(function, name))

        @functools.wraps(collect)
        def call(*args, **kwargs):
            try:
                given = collect(*args, **kwargs)
            except TypeError:
                refuse_aliases(collect, kwargs)
                raise
            return function(given)

        return call

    return decorate


# Constructor arguments


def integer(name, value):
    """An int; a bool is not one."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return int(operator.index(value))  # a subclass of int could compare as another number
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None


def size(name, value, minimum=1):
    """An integer of at least `minimum`."""
    number = integer(name, value)
    if number < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {short(number)}")
    return number


def flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def is_number(value: object) -> bool:
    """Whether the value is a real number; a bool is not one."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def real(name: str, value: Any, expected: str = "a number") -> float:
    """A float, which is infinite for an integer that no float can hold; `expected` is for the message."""
    if not is_number(value):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def probability(name, value):
    result = real(name, value, "a number from 0 to 1")
    if not 0 <= result <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {short(value)}")
    return result


def number(name: str, value: Any, minimum: float = 0.0, below: float = math.inf) -> float:
    """A finite float of at least `minimum`."""
    result = real(name, value)
    if not minimum <= result < below or not math.isfinite(result):
        bound = (
            ""
            if minimum == -math.inf
            else f" of at least {minimum:g}" + (f" and less than {below:g}" if below < math.inf else "")
        )
        raise ValueError(f"{name}: expected a finite number{bound}, got {short(value)}")
    return result


def float_dtype(name, value):
    """float32 or float64, in native byte order."""
    # Not np.dtype(None), nor a comparison of a dtype with None: both take None for float64.
    if value is not None:
        try:
            dtype = np.dtype(value).newbyteorder("=")
        except (TypeError, ValueError):
            pass
        else:
            if dtype == FLOAT32:
                return FLOAT32
            if dtype == FLOAT64:
                return FLOAT64
    given = value if isinstance(value, np.dtype) else repr(value)
    raise TypeError(f"{name}: expected float32 or float64, got {given}")


def choice(name, value, options):
    """One of these strings."""
    expected = " or ".join(map(repr, options))
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    value = str.__str__(value)  # a subclass could compare as another string
    if value not in options:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return value


# Arguments of calls


def as_lengths(lengths):
    """as_array of lengths, or None; those of a list or another sequence are integers, one by one."""
    if lengths is None:
        return None
    array = as_array("lengths", lengths)
    if array.ndim == 1 and isinstance(lengths, Sequence):
        # NumPy makes 1 of a True among ints, and floats of no ints or of large ones.
        return np.array([integer("lengths", value) for value in lengths], object)
    if array.ndim == 1 and array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    return array


def checked_lengths(array, T, B):
    """Of as_lengths, a private array of intp, (B,), each number from 0 to T; None stays None."""
    if array is None:
        return None
    if array.shape != (B,):
        raise shape_error("lengths", ("B",), (B,), array.shape)
    array = array.copy()  # another thread may write to the caller's
    outside = np.flatnonzero((array < 0) | (array > T))
    if outside.size:
        b = outside[0]
        raise ValueError(f"lengths: expected 0 to T={T}, got {array[b]} for sequence {b}")
    return array.astype(np.intp)


def check_given(*gradients):
    """Refuse a backward call without any gradient of the results."""
    for gradient in gradients:
        if gradient is not None:
            return
    raise ValueError("d_output, d_state_n: neither is given, so all gradients would be zero; give one or both")


def check_tape(tape, expected, place="third", owner=None, kind=None):
    """Refuse an object that is not a tape of the expected class, or one of another owner: a layer or a cell.

    For messages, `place` is the place of the tape among the results of forward, and `kind` is "layer" or "cell".
    """
    if type(tape) is not expected:
        given = type(tape)
        raise TypeError(
            f"tape: expected a {expected.__module__}.{expected.__qualname__}, "
            f"got a {given.__module__}.{given.__qualname__}; it is what forward returns {place}"
        )
    if owner is not None and tape.owner() is not owner:
        raise ValueError(f"tape: made by another {kind}, {tape.owner_name()}")
