"""The layers as a function that HIPS autograd differentiates: `forward`, the stateless form with gradients.

`autograd.grad` and its relatives compute gradients with respect to the input, the states and the weights. One call is
one node of autograd's graph; its gradient is `fastrnn.functional.backward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import functional

try:
    from autograd.extend import defvjp_argnums, primitive
    from autograd.tracer import isbox
except ModuleNotFoundError as error:
    if error.name != "autograd":
        raise
    raise ImportError("fastrnn.autograd needs the package autograd: pip install 'fastrnn[autograd]'") from error

__all__ = ["forward"]


def forward(
    kind: str,
    x: Any,
    state: Sequence[Any] | None,
    weights: Sequence[Mapping[str, Any]],
    **arguments: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """Run layers over a sequence, differentiably: `fastrnn.functional.forward` less its reserve.

    Parameters
    ----------
    kind, x, state, weights, **arguments
        As in `fastrnn.functional.forward`. Gradients flow to `x`, to the members of `state` and to the arrays in
        `weights`. The other arguments, `lengths` and so on, are constants.

    Returns
    -------
    output : ndarray, (T, B, D*P)
    state_n : tuple of ndarray, (L*D, B, P) and (L*D, B, H)

    Raises
    ------
    TypeError, ValueError
        As in `fastrnn.functional.forward`.
    NotImplementedError
        In the computation of a gradient, if its own derivative is asked for: there are no second derivatives. autograd
        raises it for forward mode, too.

    See Also
    --------
    fastrnn.functional.weights_of : the weights of a layer in this form.

    Examples
    --------
    >>> import autograd
    >>> layer = fastrnn.GRU(2, 3, dtype=np.float64, rng=0)
    >>> x = np.ones((4, 1, 2))
    >>> def loss(weights):
    ...     output, (h_n,) = fastrnn.autograd.forward("gru", x, None, weights)
    ...     return (h_n**2).sum()
    >>> (gradient,) = autograd.grad(loss)(fastrnn.functional.weights_of(layer))
    >>> gradient["weight_hh"].shape
    (9, 3)
    """
    states = () if state is None else tuple(state)
    groups = [dict(group.items()) for group in weights]
    call = _Call(kind, arguments, state is None, len(states), [tuple(group) for group in groups])
    found = _layers(call, x, *states, *[w for group in groups for w in group.values()])
    return found[0], tuple([found[k] for k in range(1, len(found))])


class _Call:
    """The arguments of one `forward` that are not differentiated, and the reserve that it kept."""

    def __init__(self, kind, arguments, is_stateless, states, names):
        self.kind, self.arguments, self.is_stateless = kind, arguments, is_stateless
        self.states, self.names = states, names
        self.reserve = None

    def structured(self, arrays):
        """x, state and weights from the flat arrays."""
        x, *rest = arrays
        state, flat = (None if self.is_stateless else rest[: self.states]), iter(rest[self.states :])
        return x, state, [{name: next(flat) for name in group} for group in self.names]


@primitive
def _layers(call, *arrays):
    """(output, *state_n)."""
    output, state_n, call.reserve = functional.forward(call.kind, *call.structured(arrays), **call.arguments)
    return (output, *state_n)


def _gradients(argnums, ans, args, kwargs):
    """The function from the gradients of (output, *state_n) to those of the arguments `argnums`."""
    call, *arrays = args

    def vjp(gradients):
        if any(isbox(value) for value in (gradients, *arrays, *gradients)):
            raise NotImplementedError("fastrnn.autograd: the gradient of a gradient is not computed")
        x, state, weights = call.structured(arrays)
        d_output, *d_state_n = gradients
        d_x, d_state, d_weights = functional.backward(
            call.kind, call.reserve, x, state, weights, d_output, d_state_n, **call.arguments
        )
        flat = [d_x, *d_state[: call.states], *[d[name] for d, names in zip(d_weights, call.names) for name in names]]
        return tuple([flat[k - 1].astype(np.asarray(args[k]).dtype, copy=False) for k in argnums])

    return vjp


defvjp_argnums(_layers, _gradients)
