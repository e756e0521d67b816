"""One layer, one direction, stateless, on raw arrays: the kernels with nothing around them.

Each public function checks its arguments, allocates what it returns and hands both to the `unchecked_`
function of the same name, which is what the layers call. `fastrnn.reference` has the same functions in
plain NumPy.

Every array argument may be anything that `np.asarray` takes, of any strides, alignment, byte order
and writeability; what cannot be read in place is copied. Everything is cast to the dtype of
`weight_ih`, float32 or float64, by NumPy's "same_kind" rule. Shapes: T steps, B sequences, I
inputs, H hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._threads import get_num_threads
from fastrnn._validation import check_tape, initial_state, lstm_arguments, lstm_gradients, native

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastrnn._validation import State

__all__ = ["lstm", "lstm_forward", "lstm_backward"]


class LSTMTape:
    """What `lstm_backward` needs of an `lstm_forward`; opaque, and never altered by a backward.

    The weights are in it as they were, `packed` for backward. `x` is in it by reference where it could
    be read in place, and then `fingerprint` tells whether it has been changed since. `biases` names those
    that there are.
    """

    __slots__ = ("x", "fingerprint", "h_0", "c_0", "gates", "c", "packed", "biases")

    def __init__(self, x, fingerprint, h_0, c_0, gates, c, packed):
        # A view, because the shape of the caller's own array object can be assigned to.
        self.x = x if fingerprint is None else x.view()
        self.fingerprint = fingerprint
        self.h_0 = h_0
        self.c_0 = c_0
        self.gates = gates
        self.c = c
        self.packed = packed
        self.biases = []

    def check_x(self):
        if self.fingerprint is not None and _core.fingerprint(self.x) != self.fingerprint:
            raise ValueError("x: changed between forward and backward")

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one process")

    def __repr__(self):
        T, B, I = self.x.shape
        H = self.c.shape[2]
        return f"<functional.LSTMTape T={T} B={B} I={I} H={H} {self.x.dtype}>"


def lstm(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray]]:
    """Run an LSTM over a sequence and keep nothing for a backward pass.

    With rows of the weights in the order i, f, g, o of the gates, step t computes ::

        z   = bias_ih + bias_hh + x_t @ weight_ih.T + h_(t-1) @ weight_hh.T
        i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)
        g   = tanh(z_g)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    Parameters
    ----------
    x : array_like, (T, B, I)
        The input. T, B and I may be 0.
    state : tuple (h_0, c_0) of array_like (B, H), or None
        The state before the first step; None, for the tuple or for a member of it, means zeros.
    weight_ih : array_like, (4*H, I), float32 or float64
        Its dtype is that of the computation and of everything returned.
    weight_hh : array_like, (4*H, H)
    bias_ih, bias_hh : array_like, (4*H,), optional
        Default: no bias.

    Returns
    -------
    output : ndarray, (T, B, H)
        h_t of every step.
    state_n : tuple (h_n, c_n) of ndarray (B, H)
        The state after the last step.

    Raises
    ------
    TypeError
        If an argument has a dtype that cannot be cast, or `weight_ih` one that is not float32 or
        float64.
    ValueError
        If a shape does not fit. The message starts with the argument's name.

    See Also
    --------
    lstm_forward : the same numbers, bit for bit, with a tape for the gradients.

    Notes
    -----
    The equations are those of [1]_ with the forget gate of [2]_; layout and names are those of
    torch.nn.LSTM.

    .. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    .. [2] F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12(10), 2000.
    """
    x, h_0, c_0, weights = lstm_arguments(x, state, weight_ih, weight_hh, bias_ih, bias_hh)
    dtype = weights[0].dtype
    T, B, _ = x.shape
    H = weights[1].shape[1]
    h_0 = initial_state(h_0, (B, H), dtype, private=False)
    c_0 = initial_state(c_0, (B, H), dtype, private=False)
    output = np.empty((T, B, H), dtype)
    h_n = np.empty((B, H), dtype)
    c_n = np.empty((B, H), dtype)
    unchecked_lstm(native(x, dtype), h_0, c_0, weights, output, h_n, c_n)
    return output, (h_n, c_n)


def unchecked_lstm(x, h_0, c_0, weights, output, h_n, c_n):
    """`lstm` on native arrays, written into output (T, B, H), h_n and c_n (B, H).

    `weights` is the tuple of lstm_arguments, or what _core.lstm_pack has made of it for forward.
    """
    _core.lstm_forward(
        x, h_0, c_0, weights, output, h_n, c_n, None, None, get_num_threads(), instruction_set()
    )


def lstm_forward(
    x: ArrayLike,
    state: State | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray], LSTMTape]:
    """Run an LSTM over a sequence and keep a tape for `lstm_backward`.

    Parameters
    ----------
    x, state, weight_ih, weight_hh, bias_ih, bias_hh
        As in `lstm`.

    Returns
    -------
    output, state_n
        As in `lstm`, the same bits.
    tape : LSTMTape
        For `lstm_backward`. Tapes are independent of each other. The weights may be changed before the
        backward pass, `x` may not.

    Raises
    ------
    TypeError, ValueError
        As in `lstm`.
    """
    x, h_0, c_0, weights = lstm_arguments(x, state, weight_ih, weight_hh, bias_ih, bias_hh)
    dtype = weights[0].dtype
    T, B, _ = x.shape
    H = weights[1].shape[1]
    native_x = native(x, dtype)
    h_0 = initial_state(h_0, (B, H), dtype, private=True)
    c_0 = initial_state(c_0, (B, H), dtype, private=True)
    output = np.empty((T, B, H), dtype)
    h_n = np.empty((B, H), dtype)
    c_n = np.empty((B, H), dtype)
    packed = _core.lstm_pack(weights, True, get_num_threads(), instruction_set())
    memory = np.empty((T, B, 4 * H), dtype), np.empty((T, B, H), dtype)
    tape = unchecked_lstm_forward(
        native_x, native_x is not x, h_0, c_0, weights, packed, *memory, output, h_n, c_n
    )
    tape.biases = [n for n, b in zip(("bias_ih", "bias_hh"), weights[2:]) if b is not None]
    return output, (h_n, c_n), tape


def unchecked_lstm_forward(
    x, x_is_private, h_0, c_0, weights, packed, gates, c, output, h_n, c_n
):
    """`lstm_forward` on native arrays, written into output (T, B, H), h_n and c_n (B, H).

    `weights` is as for unchecked_lstm, `packed` the same weights packed for backward. The tape keeps
    packed, gates (T, B, 4*H) and c (T, B, H), h_0 and c_0, to none of which anybody may write while it lives; and x,
    to which nobody else may write if it is called private.

    Returns
    -------
    tape : LSTMTape
    """
    # Taken first: what another thread does to x while the kernel runs is noticed, too.
    fingerprint = None if x_is_private else _core.fingerprint(x)
    _core.lstm_forward(
        x, h_0, c_0, weights, output, h_n, c_n, gates, c, get_num_threads(), instruction_set()
    )
    return LSTMTape(x, fingerprint, h_0, c_0, gates, c, packed)


def lstm_backward(
    tape: LSTMTape,
    d_output: ArrayLike | None = None,
    d_state_n: State | None = None,
) -> tuple[NDArray, tuple[NDArray, NDArray], dict[str, NDArray]]:
    """The gradients of a loss through one `lstm_forward`.

    May be called any number of times with one tape, with the same or with other arguments.

    Parameters
    ----------
    tape : LSTMTape
        What `lstm_forward` returned.
    d_output : array_like, (T, B, H), optional
        The gradient with respect to `output`. Default: zeros.
    d_state_n : tuple (d_h_n, d_c_n) of array_like (B, H), optional
        The gradient with respect to `state_n`; a member may be None. Default: zeros.

    Returns
    -------
    d_x : ndarray, (T, B, I)
    d_state : tuple (d_h_0, d_c_0) of ndarray (B, H)
    d_params : dict of ndarray
        "weight_ih" (4*H, I), "weight_hh" (4*H, H), and "bias_ih", "bias_hh" (4*H,) of those biases that
        were given.

    Raises
    ------
    TypeError
        If `tape` is not a tape of `lstm_forward`, or a dtype cannot be cast.
    ValueError
        If a shape does not fit, or the `x` of the forward pass has been changed since.
    """
    check_tape(tape, LSTMTape)
    T, B, H = tape.c.shape
    I = tape.x.shape[2]
    dtype = tape.c.dtype
    d_output, d_h_n, d_c_n = lstm_gradients(d_output, d_state_n, (T, B, H), dtype)
    tape.check_x()
    d_x = np.empty((T, B, I), dtype)
    d_h_0 = np.empty((B, H), dtype)
    d_c_0 = np.empty((B, H), dtype)
    d_params = {
        "weight_ih": np.empty((4 * H, I), dtype),
        "weight_hh": np.empty((4 * H, H), dtype),
    }
    for name in tape.biases:
        d_params[name] = np.empty(4 * H, dtype)
    unchecked_lstm_backward(tape, d_output, d_h_n, d_c_n, d_x, d_h_0, d_c_0, *d_params.values())
    return d_x, (d_h_0, d_c_0), d_params


def unchecked_lstm_backward(
    tape, d_output, d_h_n, d_c_n, d_x, d_h_0, d_c_0, d_weight_ih, d_weight_hh, *d_biases
):
    """`lstm_backward` on native arrays, written into d_x and the arrays after it.

    It does not look whether x was changed: tape.check_x does. There are as many d_biases, each
    (4*H,), as there were biases; they are equal.
    """
    d_bias = d_biases[0] if d_biases else None
    _core.lstm_backward(
        tape.packed, tape.x, tape.h_0, tape.c_0, tape.gates, tape.c,
        d_output, d_h_n, d_c_n,
        d_x, d_h_0, d_c_0, d_weight_ih, d_weight_hh, d_bias,
        get_num_threads(),
    )  # fmt: skip
    for other in d_biases[1:]:
        other[...] = d_bias
