"""The arguments of layers, cells and functions: from what callers give to `Inputs` of the engine.

All are converted to private views first and checked afterwards: see fastrnn._validation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastrnn._core import Inputs, native, plain_arrays, shapes_of_key, zero_states
from fastrnn._engine.ragged import layout_of, padded
from fastrnn._engine.spec import OPTIONS, state_names
from fastrnn._engine.stack import Stack
from fastrnn._validation import (
    array_or_none,
    as_array,
    as_lengths,
    as_x,
    check_array,
    check_bytes,
    check_cast,
    check_given,
    check_state,
    checked_lengths,
    flag,
    float_dtype,
    initial_state,
    is_shared,
    members,
    shape_error,
    single,
    x_hint,
)

# States


def as_states(spec, argument, pattern, value, ndim):
    """The states of an argument as a list of arrays or None, converted and not yet checked.

    Parameters
    ----------
    spec : CellSpec
    argument, pattern : str
        See `state_names`.
    value : object
        A tuple or list of array_like or None, one for each state; of a cell with one state an array_like; or None.
    ndim : int
        The axes of a state, for the message about a tuple in place of an array.
    """
    names, both = state_names(spec, argument, pattern)
    if len(names) == 1:
        return [array_or_none(argument, single(argument, value, ndim))]
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
    names, _ = state_names(spec, argument, pattern)
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
        Whether each was given once for all sequences.
    """
    B, state_0, shared = layout.B, [], []
    for array, width in zip(layout.sort(given), stack.widths):
        shared.append(is_shared(array, B))
        state_0.append(initial_state(array, (stack.count, B, width), stack.dtype, private))
    return state_0, shared


def shown(stack, states):
    """States as callers see them: a tuple, or the array of a cell with one state."""
    return states[0] if len(states) == 1 else tuple(states)


# Functions of one layer and one direction


def checked_options(spec, **options):
    """The options that a cell's functions take besides weights, checked: ((name, value), ...)."""
    return tuple([(name, OPTIONS[name].check(name, options[name])) for name in spec.options if name in options])


@lru_cache(maxsize=256)
def _solved(spec, key, options, reverse):
    """The Stack of one direction of one layer, with weights that have this key."""
    dtype, shapes = shapes_of_key(key)
    return _stack_of(spec, dtype, shapes, options, reverse)


def _stack_of(spec, dtype, shapes, options, reverse):
    options = dict(options)
    sizes = spec.solve(shapes, options, spec.weight_names)
    return Stack(spec, spec.kernel_of(options), dtype, sizes, 1, (reverse,))


def checked_weights(spec, weights, options=(), reverse=False):
    """The stack of one direction of one layer, and its weights, native.

    Parameters
    ----------
    spec : CellSpec
    weights : tuple of array_like or None
        In the order of spec.weights; the first two have to be given.
    options : tuple of (name, value)
        Checked.
    reverse : bool
    """
    plain, key = plain_arrays(weights)
    if plain is not None and plain[0] is not None and plain[1] is not None:
        return _solved(spec, key, options, reverse), plain
    names = spec.weight_names
    arrays = [as_array(names[k], w) if k < 2 else array_or_none(names[k], w) for k, w in enumerate(weights)]
    dtype = float_dtype("weight_ih", arrays[0].dtype)
    for name, array in zip(names, arrays):
        if array is not None:
            check_cast(name, array, dtype)
    stack = _stack_of(spec, dtype, [None if w is None else w.shape for w in arrays], options, reverse)
    return stack, tuple([None if w is None else native(w, dtype) for w in arrays])


def checked_arguments(spec, x, state, weights, lengths, reverse, options=()):
    """The arguments of a function of one layer and one direction, checked.

    Parameters
    ----------
    spec : CellSpec
    x, state, weights, lengths, reverse
        As callers give them, the weights as a tuple in the order of spec.weights.
    options : tuple of (name, value)
        Other options of the cell, checked.

    Returns
    -------
    stack : Stack
    x : ndarray, (T, B, I)
        Not yet cast: so it shows whether a cast copied, and what lies beyond a sequence's end need not be cast.
    state : list of ndarray or None, (B, P) or (1, P), and (B, H) or (1, H); or None
        Not yet cast; None if no state was given.
    weights : tuple of ndarray or None
        Native.
    lengths : ndarray of intp, (B,), or None
        In memory that the caller does not share.
    """
    if type(reverse) is not bool:
        reverse = flag("reverse", reverse)
    stack, weights = checked_weights(spec, weights, options, reverse)
    x = x.view() if type(x) is np.ndarray else as_x(x)
    given = None if state is None else as_states(spec, "state", "{}_0", state, 2)
    lengths = None if lengths is None else as_lengths(lengths)
    dtype = stack.dtype
    if x.dtype is not dtype:
        check_cast("x", x, dtype)
    shape = x.shape
    if len(shape) != 3 or shape[2] != stack.I:
        raise shape_error("x", ("T", "B", "I"), (None, None, stack.I), shape, x_hint(x))
    T, B, _ = shape
    if (T or 1) * (B or 1) > stack.most_rows:
        check_bytes("x", (T, B), stack.widest, dtype.itemsize)
    if given is not None:
        symbols, sizes = state_shapes(stack, weights, B)
        check_states(spec, "state", "{}_0", given, symbols, sizes, dtype, check_state)
    return stack, x, given, weights, None if lengths is None else checked_lengths(lengths, T, B)


def state_shapes(stack, weights, B):
    """The symbols and the shapes of the states of a function of one layer and one direction."""
    P = "P" if has_projection(stack.spec, weights) else "H"
    return [("B", P), *(("B", "H") for _ in stack.widths[1:])], [(B, width) for width in stack.widths]


def has_projection(spec, weights):
    """Whether the weights that are given decide P, which is H otherwise."""
    return any(w is not None and weight.shape[0] == "P" for weight, w in zip(spec.weights, weights))


def function_inputs(spec, x, state, weights, lengths, reverse, options, private):
    """Inputs and native weights for a function of one layer and one direction: see `checked_arguments`."""
    stack, x, given, weights, lengths = checked_arguments(spec, x, state, weights, lengths, reverse, options)
    T, B, _ = x.shape
    layout = padded(T, B) if lengths is None else layout_of(T, B, lengths)
    rows = layout.pack(x, stack.dtype)
    if given is None:
        state_0, shared = zero_states(1, B, stack.widths, stack.dtype), None
    else:
        given = [None if s is None else s[None] for s in given]
        state_0, shared = initial_states(stack, layout, given, private)
    return Inputs(stack, layout, rows, rows is not x, state_0, shared, True), weights


def checked_output_gradients(spec, symbols, T, B, widths, d_output, d_state_n, dtype):
    """The gradients that are given to a backward function, checked and not yet cast; one of them has to be given.

    Parameters
    ----------
    symbols : tuple of str
        What messages call the elements of each state; d_output has those of h.
    widths : tuple of int
        Their numbers.

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


def checked_resets(resets, T, B):
    """A private array of bool, (T, B); None stays None."""
    if resets is None:
        return None
    array = as_array("resets", resets)
    if array.dtype != bool:
        raise TypeError(f"resets: expected booleans, got {array.dtype}")
    if array.shape != (T, B):
        raise shape_error("resets", ("T", "B"), (T, B), array.shape)
    return array.copy()
