"""Checks of the options of a cell, of `resets`, and of states with any number of members.

As in `fastrnn._validation`, every message starts with the argument's name.
"""

from __future__ import annotations

import math
import numbers
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._validation import (
    array_or_none,
    as_array,
    as_lengths,
    check_array,
    check_given,
    check_state,
    checked_lengths,
    checked_x,
    choice,
    flag,
    float_dtype,
    native_or_none,
    shape_error,
    single,
)

RecurrentActivation = Literal["sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"]
FourStates = tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None, ArrayLike | None] | list[ArrayLike | None]

RECURRENT_ACTIVATIONS = ("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth")
ACTIVATIONS = ("tanh", "relu")


def checked_options(recurrent_activation, activation, clip):
    """The two names and the clip of an LSTM or a GRU."""
    if isinstance(recurrent_activation, str) and recurrent_activation == "hard_sigmoid":
        raise ValueError(
            "recurrent_activation: 'hard_sigmoid' names two functions; give 'hard_sigmoid_fifth', "
            "max(0, min(1, 0.2 * x + 0.5)), or 'hard_sigmoid_sixth', max(0, min(1, x / 6 + 0.5))"
        )
    return (
        choice("recurrent_activation", recurrent_activation, RECURRENT_ACTIVATIONS),
        choice("activation", activation, ACTIVATIONS),
        checked_clip(clip),
    )


def checked_clip(clip):
    """None, or a float that is positive and finite."""
    if clip is None:
        return None
    if not isinstance(clip, numbers.Real) or isinstance(clip, (bool, np.bool_)):
        raise TypeError(f"clip: expected None or a positive number, got {clip!r}")
    number = float(clip)
    if not 0 < number < math.inf:
        raise ValueError(f"clip: expected None or a positive finite number, got {clip!r}")
    return number


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


def checked_slstm(x, state, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse):
    """The arguments of slstm and slstm_forward: as checked_lstm, of four states (B, H) and four weights.

    The number of heads is H divided by the number of columns of weight_hh, (4*H, H/num_heads).
    """
    weight_ih = as_array("weight_ih", weight_ih)
    dtype = float_dtype("weight_ih", weight_ih.dtype)
    if weight_ih.ndim != 2 or weight_ih.shape[0] % 4 or not weight_ih.shape[0]:
        raise shape_error("weight_ih", ("4*H", "I"), (None, None), weight_ih.shape)
    rows, I = weight_ih.shape
    H = rows // 4
    weight_hh = as_array("weight_hh", weight_hh)
    columns = weight_hh.shape[1] if weight_hh.ndim == 2 else 0
    if not columns or H % columns:
        raise shape_error("weight_hh", ("4*H", "H/num_heads"), (rows, None), weight_hh.shape, f"; H is {H}")
    check_array("weight_hh", weight_hh, ("4*H", "H/num_heads"), (rows, columns), dtype)
    bias_ih, bias_hh = array_or_none("bias_ih", bias_ih), array_or_none("bias_hh", bias_hh)
    check_array("bias_ih", bias_ih, ("4*H",), (rows,), dtype)
    check_array("bias_hh", bias_hh, ("4*H",), (rows,), dtype)
    x = checked_x(x, I, max(rows, I), dtype)
    T, B, _ = x.shape
    symbols = ("h_0", "c_0", "n_0", "m_0")
    state = [array_or_none(f"state ({s})", a) for s, a in zip(symbols, members("state", state, symbols))]
    for symbol, array in zip(symbols, state):
        check_state(f"state ({symbol})", array, ("B", "H"), (B, H), dtype)
    lengths = checked_lengths(as_lengths(lengths), T, B)
    reverse = flag("reverse", reverse)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return x, tuple(state), tuple(native_or_none(w, dtype) for w in weights), lengths, reverse


def members(name, value, symbols):
    """The members of a state; None stands for a None of each. A state of one member is the member itself."""
    if len(symbols) == 1:
        return (single(name, value, 2),)
    if value is None:
        return (None,) * len(symbols)
    expected = f"({', '.join(symbols)})"
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple {expected}, got {type(value).__name__}")
    value = tuple(value)  # a list could change while its members are converted
    if len(value) != len(symbols):
        raise ValueError(f"{name}: expected a tuple {expected}, got {len(value)} items")
    return value


def checked_gradients(d_output, d_state_n, states, T, B, widths, dtype):
    """d_output and the members of d_state_n, castable to the dtype but not yet cast, each may be None.

    `states` are the names of the cell's states. `widths` maps the symbol of a width to it, for h first and then for
    the other states.
    """
    symbols = [f"d_{s}_n" for s in states]
    names = ["d_state_n"] if len(states) == 1 else [f"d_state_n ({s})" for s in symbols]
    d_output = array_or_none("d_output", d_output)
    d_state_n = members("d_state_n", d_state_n, symbols)
    check_given(d_output, *d_state_n)
    d_state_n = [array_or_none(name, d) for name, d in zip(names, d_state_n)]
    check_array("d_output", d_output, ("T", "B", widths[0][0]), (T, B, widths[0][1]), dtype)
    for name, d, (symbol, width) in zip(names, d_state_n, widths):
        check_array(name, d, ("B", symbol), (B, width), dtype)
    return d_output, d_state_n
