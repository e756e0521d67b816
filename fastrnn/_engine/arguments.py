"""Arguments of layers, cells and functions: converted, checked, and made `Inputs` of the engine.

All arguments are converted to private views first and checked afterwards: see fastrnn._validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn._config import instruction_set
from fastrnn._core import Inputs, KnownWeights, native, zero_states
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import layout_of, padded
from fastrnn._engine.spec import OPTIONS, SPECS, member_names
from fastrnn._engine.stack import Dropout, Stack
from fastrnn._threads import most_threads
from fastrnn._validation import (
    array_or_none,
    as_array,
    as_lengths,
    as_x,
    check_array,
    check_bytes,
    check_cast,
    check_flags,
    check_given,
    check_state,
    checked_lengths,
    choice,
    flag,
    float_dtype,
    initial_state,
    is_shared,
    members,
    probability,
    shape_error,
    single,
    size,
    x_hint,
)

# States


def as_states(spec, argument, pattern, value, ndim):
    """The states of an argument as a list of arrays or None, converted and not yet checked.

    Parameters
    ----------
    spec : CellSpec
    argument, pattern : str
        See `member_names`.
    value : object
        A tuple or list of array_like or None, one for each state; of a cell with one state an array_like; or None.
    ndim : int
        The axes of a state, for the message about a tuple in place of an array.
    """
    if len(spec.states) == 1:
        return [array_or_none(argument, single(argument, value, ndim))]
    return as_state_tuple(spec, argument, pattern, value)


def as_state_tuple(spec, argument, pattern, value):
    """The states of an argument that is a tuple for every cell, also of one state: see `as_states`."""
    names, both = member_names(spec, argument, pattern)
    arrays = []
    for name, array in zip(names, members(argument, value, len(names), both)):
        arrays.append(None if array is None else as_array(name, array))
    return arrays


def check_states(spec, argument, pattern, arrays, symbols, sizes, dtype, check):
    """Check each array of a state that is given.

    Parameters
    ----------
    symbols, sizes : list of tuple
        Of each state; see `shape_error`.
    check : callable
        check_array or check_state.
    """
    if len(spec.states) > 1:
        check_members(spec, argument, pattern, arrays, symbols, sizes, dtype, check)
    elif arrays[0] is not None:
        check(argument, arrays[0], symbols[0], sizes[0], dtype)


def check_members(spec, argument, pattern, arrays, symbols, sizes, dtype, check):
    """check_states for an argument that is a tuple for every cell, also of one state."""
    names, _ = member_names(spec, argument, pattern)
    for name, array, its_symbols, its_sizes in zip(names, arrays, symbols, sizes):
        if array is not None:
            check(name, array, its_symbols, its_sizes, dtype)


def initial_states(stack, layout, given, private):
    """The initial state as the kernels read it, from checked arrays (L*D, B, n), (L*D, 1, n) or None.

    Returns
    -------
    state_0 : list of ndarray, (L*D, B, n)
        With `private`, in memory that the caller does not share.
    shared : list of bool
        Whether each state was given as one state for all sequences.
    """
    B, state_0, shared = layout.B, [], []
    for array, width in zip(layout.sort(given), stack.widths):
        shared.append(is_shared(array, B))
        sizes = (stack.leading, B, width) if stack.leading else (B, width)
        state_0.append(initial_state(array, sizes, stack.dtype, private))
    return state_0, shared


# Functions of one layer and one direction


def checked_options(spec, options):
    """The options of a cell, given as a tuple in the order of spec.options, checked: ((name, value), ...)."""
    for value, (_, default) in zip(options, spec.defaults):
        if value is not default:
            return tuple([(name, OPTIONS[name].check(name, value)) for name, value in zip(spec.options, options)])
    return spec.defaults


@lru_cache(maxsize=256)
def _stack_of(spec, dtype, shapes, options, reverse):
    """The stack of one direction of one layer, whose weights have these shapes."""
    by_name = dict(options)
    sizes = spec.solve(shapes, by_name, spec.weight_names)
    return Stack(spec, spec.kernel_of(by_name), dtype, sizes, directions=(reverse,), weight_shapes=shapes)


# The stacks of checked weights and options.
KNOWN_WEIGHTS = KnownWeights()


def checked_weights(spec, weights, options=(), reverse=False):
    """The stack of one direction of one layer, and its weights as native arrays of our own.

    Parameters
    ----------
    spec : CellSpec
    weights : tuple of array_like or None
        In the order of spec.weights; the first two have to be given.
    options : tuple of (name, value)
        Checked.
    reverse : bool
    """
    names = spec.weight_names
    arrays = [as_array(names[k], w) if k < 2 else array_or_none(names[k], w) for k, w in enumerate(weights)]
    dtype = float_dtype("weight_ih", arrays[0].dtype)
    for name, array in zip(names, arrays):
        if array is not None:
            check_cast(name, array, dtype)
    shapes = tuple([None if array is None else array.shape for array in arrays])
    return _stack_of(spec, dtype, shapes, options, reverse), tuple(
        [None if array is None else native(array, dtype) for array in arrays]
    )


def _checked_call(stack, x, given, lengths, resets):
    """Check converted arguments of a function or of the stateless form; returns the layout of the batch."""
    dtype, shape = stack.dtype, x.shape
    if x.dtype is not dtype:
        check_cast("x", x, dtype)
    if len(shape) != 3 or shape[2] != stack.I:
        raise shape_error("x", ("T", "B", "I"), (None, None, stack.I), shape, x_hint(x))
    T, B, _ = shape
    if (T or 1) * (B or 1) > stack.most_rows:
        check_bytes("x", (T, B), stack.widest, dtype.itemsize)
    if given is not None:
        leading, names = ((stack.leading,), ("L*D",)) if stack.leading else ((), ())
        symbols, sizes = [(*names, "B", s) for s in state_symbols(stack)], [(*leading, B, n) for n in stack.widths]
        check = check_members if stack.leading else check_states
        check(stack.spec, "state", "{}_0", given, symbols, sizes, dtype, check_state)
    if lengths is None and resets is None:
        return padded(T, B)
    return layout_of(T, B, checked_lengths(lengths, T, B), checked_resets(resets, T, B))


def checked_arguments(spec, arguments):
    """The checked arguments of a function of one layer and one direction, not yet in the layout of kernels.

    Parameters are those of `function_inputs`.

    Returns
    -------
    x : ndarray, (T, B, I)
        Not yet cast.
    state : list of ndarray or None, (B, P) or (1, P), and (B, H) or (1, H)
        Not yet cast.
    weights : tuple of ndarray or None
        Native.
    options : tuple of (name, value)
    lengths : ndarray of intp, (B,), or None
    resets : ndarray of bool, (T, B), or None
    reverse : bool
    """
    x, state, weights, options, lengths, resets, reverse = arguments
    options, reverse = checked_options(spec, options), flag("reverse", reverse)
    stack, weights = checked_weights(spec, weights, options, reverse)
    x = as_x(x)
    given = as_states(spec, "state", "{}_0", state, 2)
    lengths, resets = as_lengths(lengths), array_or_none("resets", resets)
    layout = _checked_call(stack, x, given, lengths, resets)
    return (
        x,
        given,
        weights,
        options,
        checked_lengths(lengths, layout.T, layout.B),
        checked_resets(resets, layout.T, layout.B),
        reverse,
    )


def state_symbols(stack):
    """The symbols of the widths of the states in messages of functions: "H", or "P" for h with a projection."""
    symbols = ["H"] * len(stack.widths)
    for weight, shape in zip(stack.spec.weights, stack.weight_shapes):
        if shape is not None and weight.shape[0] == "P":
            symbols[0] = "P"
    return symbols


def output_symbol(stack):
    """The symbol of the width of h in messages of layers."""
    return "hidden_size" if stack.P == stack.H else "proj_size"


def function_inputs(spec, arguments, training):
    """The inputs of a function of one layer and one direction, and its weights packed for forward and backward.

    Parameters
    ----------
    spec : CellSpec
    arguments : tuple (x, state, weights, options, lengths, resets, reverse)
        As callers give them, weights and options as tuples in the order of spec.weights and spec.options.
    training : bool
        Whether weights are packed for backward, too, and the state is in memory that the caller does not share.
    """
    threads, isa = most_threads(), instruction_set()
    x, state, weights, options, lengths, resets, reverse = arguments
    if state is None and lengths is None and resets is None:
        found = KNOWN_WEIGHTS.pack(spec, options, reverse, weights, training, threads, isa, POOL, x, padded)
        if found is not None:
            return found
    checked, reverse = checked_options(spec, options), flag("reverse", reverse)
    x = x.view() if type(x) is np.ndarray else as_x(x)
    given = None if state is None else as_states(spec, "state", "{}_0", state, 2)
    lengths = None if lengths is None else as_lengths(lengths)
    resets = None if resets is None else as_array("resets", resets)
    found = KNOWN_WEIGHTS.pack(spec, options, reverse, weights, training, threads, isa, POOL)
    if found is None:
        stack, arrays = checked_weights(spec, weights, checked, reverse)
        KNOWN_WEIGHTS.add(spec, options, reverse, arrays, stack)
        for_forward, for_backward = stack.pack([arrays], False), stack.pack([arrays], True) if training else None
    else:
        stack, for_forward, for_backward = found
    layout = _checked_call(stack, x, given, lengths, resets)
    if given is None:
        state_0, shared = zero_states(0, layout.B, stack.widths, stack.dtype), None
    else:
        state_0, shared = initial_states(stack, layout, given, training)
    rows = layout.pack(x, stack.dtype)
    return Inputs(stack, layout, rows, rows is not x, state_0, shared, True), for_forward, for_backward


def checked_output_gradients(spec, symbols, T, B, widths, d_output, d_state_n, dtype):
    """The checked gradients of a backward function, not yet cast; at least one has to be given.

    Parameters
    ----------
    symbols : tuple of str
        The symbol of the width of each state in messages; the first one is used for d_output, too.
    widths : tuple of int
        The width of each state.

    Returns
    -------
    d_output : ndarray, (T, B, P), or None
    d_state_n : list of ndarray or None, (B, P) and (B, H)
    """
    d_output = array_or_none("d_output", d_output)
    given = as_states(spec, "d_state_n", "d_{}_n", d_state_n, 2)
    check_given(d_output, *given)
    check_array("d_output", d_output, ("T", "B", symbols[0]), (T, B, widths[0]), dtype)
    shapes = [("B", symbol) for symbol in symbols], [(B, width) for width in widths]
    check_states(spec, "d_state_n", "d_{}_n", given, *shapes, dtype, check_array)
    return d_output, given


def checked_resets(array, T, B):
    """A private copy of converted resets, (T, B) of bool, after a check; None for None."""
    if array is None:
        return None
    check_flags("resets", array, ("T", "B"), (T, B))
    return array.copy()


# The stateless form: any number of layers and directions


class StatelessCall(NamedTuple):
    """The checked arguments of `fastrnn.functional.forward` or `backward`."""

    inputs: Inputs
    weights: list[tuple[Any, ...]]  # native, of each direction of each layer
    dropout: Dropout | None


def stateless_call(kind, x, state, weights, lengths, resets, bidirectional, dropout, seed, options, convert=None):
    """Convert and then check the arguments of the stateless form.

    Parameters
    ----------
    kind, x, state, weights, lengths, resets, bidirectional, dropout, seed
        As callers give them: see `fastrnn.functional.forward`.
    options : dict
        Other keyword arguments.
    convert : callable, optional
        ``convert(spec)`` converts further arguments before any check.

    Returns
    -------
    call : StatelessCall
    """
    spec = SPECS[choice("kind", kind, tuple(SPECS))]
    known = dict(spec.defaults) | {"reverse": False}
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: is not an option of {spec.name!r}, which has {', '.join(known)}")
    given_options = known | options
    reverse = flag("reverse", given_options.pop("reverse"))
    bidirectional = flag("bidirectional", bidirectional)
    if reverse and bidirectional:
        raise ValueError("reverse: not with bidirectional=True, which has both directions")
    dropout, seed = probability("dropout", dropout), size("seed", seed, minimum=0)
    checked = checked_options(spec, tuple([given_options[name] for name in spec.options]))
    arrays = _weights_by_name(spec, weights)
    x, lengths, resets = as_x(x), as_lengths(lengths), array_or_none("resets", resets)
    given = as_state_tuple(spec, "state", "{}_0", state)
    if convert is not None:
        convert(spec)

    D = 1 + bidirectional
    if not arrays or len(arrays) % D:
        raise ValueError(f"weights: expected one or more layers of {D} directions, got {len(arrays)} mappings")
    dtype = float_dtype("weights[0]['weight_ih']", arrays[0][0].dtype)
    for k, of_direction in enumerate(arrays):
        for name, array in zip(spec.weight_names, of_direction):
            if array is not None:
                check_cast(f"weights[{k}][{name!r}]", array, dtype)
    shapes = tuple([tuple([None if w is None else w.shape for w in one]) for one in arrays])
    stack = _stack_of_layers(spec, dtype, shapes, checked, (False, True) if bidirectional else (reverse,))
    layout = _checked_call(stack, x, given, lengths, resets)
    state_0, shared = initial_states(stack, layout, given, False)
    rows = layout.pack(x, dtype)
    inputs = Inputs(stack, layout, rows, rows is not x, state_0, shared, True)
    native_weights = [tuple([None if w is None else native(w, dtype) for w in one]) for one in arrays]
    noise = Dropout(dropout, seed) if dropout and stack.num_layers > 1 else None
    return StatelessCall(inputs, native_weights, noise)


def _weights_by_name(spec, weights):
    """The arrays of a sequence of mappings, in the order of the cell's weights, converted and not yet checked."""
    if isinstance(weights, Mapping) or not isinstance(weights, Iterable):
        raise TypeError(f"weights: expected a sequence of mappings, got {type(weights).__name__}")
    arrays = []
    for k, mapping in enumerate(list(weights)):
        if not isinstance(mapping, Mapping):
            raise TypeError(f"weights[{k}]: expected a mapping of names to arrays, got {type(mapping).__name__}")
        given = dict(mapping)
        unknown = [name for name in given if name not in spec.weight_names]
        if unknown:
            raise ValueError(f"weights[{k}]: {unknown[0]!r} is not a weight of {spec.name!r}")
        of_direction = []
        for weight in spec.weights:
            name = f"weights[{k}][{weight.name!r}]"
            value = given.get(weight.name)
            if value is None and not weight.option:
                raise ValueError(f"{name}: is missing")
            of_direction.append(array_or_none(name, value))
        arrays.append(of_direction)
    return arrays


@lru_cache(maxsize=256)
def _stack_of_layers(spec, dtype, shapes, options, directions):
    """The stack of layers whose weights have these shapes, a tuple for each direction of each layer."""
    by_name, sizes = dict(options), None
    given = [shape is not None for shape in shapes[0]]
    for k, of_direction in enumerate(shapes):
        names = [f"weights[{k}][{name!r}]" for name in spec.weight_names]
        if [shape is not None for shape in of_direction] != given:
            raise ValueError(f"weights[{k}]: has other weights than weights[0]; all need the same names")
        known = None
        if sizes is not None:
            known = sizes if k < len(directions) else sizes | {"I": len(directions) * sizes["P"]}
        solved = spec.solve(of_direction, by_name, names, known)
        sizes = sizes or {symbol: solved[symbol] for symbol in "IHP"}
    assert sizes is not None
    num_layers = len(shapes) // len(directions)
    return Stack(spec, spec.kernel_of(by_name), dtype, sizes, num_layers, directions, True, shapes[0])
