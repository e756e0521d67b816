"""The layers as a function that JAX transforms: `forward`, the stateless form with gradients, under jit, grad and vmap.

XLA calls the kernels through `jax.pure_callback` on the CPU, and `jax.custom_vjp` gives the gradients. A call therefore
copies its arrays between XLA and NumPy; docs/api/jax.md has the costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from fastrnn import functional
from fastrnn._engine.arguments import stateless_call
from fastrnn._engine.ragged import padded

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ImportError("fastrnn.jax needs the package jax: pip install 'fastrnn[jax]'") from error

__all__ = ["forward"]

SIZE_BYTES = 8  # at the end of a reserve in XLA: how many of its bytes the kernels wrote


def forward(
    kind: str,
    x: Any,
    state: Sequence[Any] | None,
    weights: Sequence[Mapping[str, Any]],
    *,
    lengths: Any = None,
    resets: Any = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    seed: Any = 0,
    **options: Any,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Run layers over a sequence: `fastrnn.functional.forward` less its reserve, for the transformations of JAX.

    Parameters
    ----------
    kind, bidirectional, dropout, **options
        As in `fastrnn.functional.forward`. They are static: a traced value is refused.
    x, state, weights
        As in `fastrnn.functional.forward`, as arrays of JAX or NumPy. Gradients flow to `x`, to the members of `state`
        and to the arrays in `weights`.
    lengths : array_like of int, (B,), optional
    resets : array_like of bool, (T, B), optional
        As in `fastrnn.functional.forward`; they may be traced. Their values are checked when the call runs.
    seed : int, or scalar array of int, default 0
        Decides the elements that `dropout` sets to zero; it may be traced. It has the bits of JAX's integers, 32 by
        default. From a key of JAX: ``jax.random.randint(key, (), 0, 2**31 - 1)``.

    Returns
    -------
    output : jax.Array, (T, B, D*P)
    state_n : tuple of jax.Array, (L*D, B, P) and (L*D, B, H)

    Raises
    ------
    TypeError, ValueError
        As in `fastrnn.functional.forward`, when the call is traced; for the values of `lengths`, `resets` and `seed`
        when it runs.

    See Also
    --------
    fastrnn.functional.weights_of : the weights of a layer in this form.

    Notes
    -----
    The results have the bits of `fastrnn.functional`. `jax.vmap` runs one call for each element, one after the other,
    so sequences belong on the axis B. There are no second derivatives and no forward mode.

    Examples
    --------
    >>> import jax
    >>> layer = fastrnn.GRU(2, 3, rng=0)
    >>> x = np.ones((4, 1, 2), np.float32)
    >>> @jax.jit
    ... def loss(weights):
    ...     output, (h_n,) = fastrnn.jax.forward("gru", x, None, weights)
    ...     return (h_n**2).sum()
    >>> (gradient,) = jax.grad(loss)(fastrnn.functional.weights_of(layer))
    >>> gradient["weight_hh"].shape
    (9, 3)
    """
    state = None if state is None else tuple(state)
    weights = tuple([dict(one) for one in weights])
    settings = Settings(kind, bidirectional, dropout, tuple(sorted(options.items())))
    call = _call_of_shapes(settings, (x, state, weights), lengths, resets)
    x, state, weights = jax.tree.map(partial(jnp.asarray, dtype=call.inputs.stack.dtype), (x, state, weights))
    lengths, resets = [None if a is None else jnp.asarray(a) for a in (lengths, resets)]
    return _layers(settings, Arguments(x, state, weights), Constants(lengths, resets, jnp.asarray(seed)))


class Settings(NamedTuple):
    """The static arguments of a call."""

    kind: str
    bidirectional: bool
    dropout: float
    options: tuple[tuple[str, Any], ...]

    def named(self) -> dict[str, Any]:
        """The keyword arguments of the functions of `fastrnn.functional`."""
        return {"bidirectional": self.bidirectional, "dropout": self.dropout, **dict(self.options)}


class Arguments(NamedTuple):
    """The arguments of a call that have gradients."""

    x: Any
    state: Any
    weights: Any


class Constants(NamedTuple):
    """The other arrays of a call."""

    lengths: Any
    resets: Any
    seed: Any


# The functions that XLA calls, with arrays of NumPy


def _call_of_shapes(settings, arguments, lengths=None, resets=None):
    """The checked call with arguments of these shapes and dtypes, all zeros; lengths and resets as far as known."""
    x, state, weights = jax.tree.map(_zeros, tuple(arguments))
    lengths, resets = [_zeros(a) if isinstance(a, jax.core.Tracer) else a for a in (lengths, resets)]
    kind, bidirectional, dropout, options = settings
    return stateless_call(kind, x, state, weights, lengths, resets, bidirectional, dropout, 0, dict(options))


def _zeros(array):
    return np.zeros(np.shape(array), jax.dtypes.result_type(array))


def _result_shapes(settings, arguments):
    """The shapes of output and state_n, and the largest number of bytes of a reserve."""
    call = _call_of_shapes(settings, arguments)
    stack, (T, B, _) = call.inputs.stack, arguments.x.shape
    packed = stack.pack(call.weights, False)
    output = jax.ShapeDtypeStruct((T, B, stack.output_width), stack.dtype)
    state_n = tuple([jax.ShapeDtypeStruct((stack.count, B, width), stack.dtype) for width in stack.widths])
    return (output, state_n), stack.reserve_bytes(packed, padded(T, B))


def _on_host(arguments: Arguments, constants: Constants) -> tuple[Any, dict[str, Any]]:
    """The arguments of `fastrnn.functional` as arrays of NumPy."""
    given, (lengths, resets, seed) = jax.tree.map(np.asarray, (arguments, constants))
    return given, {"lengths": lengths, "resets": resets, "seed": int(seed)}


def _host_infer(settings, arguments, constants):
    (x, state, weights), named = _on_host(arguments, constants)
    return functional.infer(settings.kind, x, state, weights, **named, **settings.named())


def _host_forward(settings, most_bytes, arguments, constants):
    (x, state, weights), named = _on_host(arguments, constants)
    output, state_n, exact = functional.forward(settings.kind, x, state, weights, **named, **settings.named())
    reserve = np.zeros(most_bytes + SIZE_BYTES, np.uint8)
    reserve[: exact.size] = exact
    reserve[most_bytes:].view(np.int64)[0] = exact.size
    return output, state_n, reserve


def _host_backward(settings, reserve, arguments, constants, d_output, d_state_n):
    (x, state, weights), named = _on_host(arguments, constants)
    reserve, d_output, d_state_n = jax.tree.map(np.asarray, (reserve, d_output, d_state_n))
    exact = reserve[: int(reserve[-SIZE_BYTES:].copy().view(np.int64)[0])]
    d_x, d_state, d_weights = functional.backward(
        settings.kind, exact, x, state, weights, d_output, d_state_n, **named, **settings.named()
    )
    if state is not None:
        state = tuple([None if s is None else d for s, d in zip(state, d_state)])
    return Arguments(d_x, state, tuple(d_weights))


@lru_cache(maxsize=256)
def _host(function, *static):
    """A function of the host with its static arguments: the same object each time, which JAX compiles once."""
    return partial(function, *static)


def _callback(function, static, results, *arrays):
    return jax.pure_callback(_host(function, *static), results, *arrays, vmap_method="sequential")


# The functions that JAX differentiates


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layers(settings, arguments, constants):
    """output, state_n."""
    results, _ = _result_shapes(settings, arguments)
    return _callback(_host_infer, (settings,), results, arguments, constants)


def _layers_forward(settings, arguments, constants):
    results, most_bytes = _result_shapes(settings, arguments)
    kept = jax.ShapeDtypeStruct((most_bytes + SIZE_BYTES,), np.uint8)
    output, state_n, reserve = _callback(
        _host_forward, (settings, most_bytes), (*results, kept), arguments, constants
    )  # fmt: skip
    return (output, state_n), (reserve, arguments, constants)


def _layers_backward(settings, kept, gradients):
    reserve, arguments, constants = kept
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    d_arguments = _callback(_host_backward, (settings,), shapes, reserve, arguments, constants, *gradients)
    return d_arguments, None


_layers.defvjp(_layers_forward, _layers_backward)
