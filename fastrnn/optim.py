"""Optimizers for NumPy arrays: SGD, Adam and AdamW, one pass over memory each, and the clipping of gradients.

The formulas and defaults are those of torch.optim. A step computes in place. Its results do not depend on the number of
threads or on the instruction set (`generic` apart, which rounds where others use fused multiply-add), and the norm of
`clip_by_global_norm` does not either. `fastrnn.reference` has the steps in plain NumPy.
"""

from __future__ import annotations

import bisect
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import _config, _core, _threads
from fastrnn._validation import Array, as_array, check_cast, flag, integer, number, shape_error
from fastrnn.parameters import Parameters, checked_version

__all__ = ["SGD", "Adam", "AdamW", "clip_by_global_norm"]

PICKLE_VERSION = 1
MOST_STEPS = 2**53  # every number of steps up to it is a double

# Parameters or gradients as callers give them: one, or several in an order.
Given: TypeAlias = Parameters | ArrayLike | Sequence[Parameters | ArrayLike]


class Optimizer:
    """The base of the optimizers: the parameters, their state, and one step over all of them."""

    # The arguments of the constructor beside `params`; each is an attribute with an underscore before its name.
    _arguments: tuple[str, ...] = ("lr",)

    def __init__(self, params: Given, lr: float) -> None:
        arrays = arrays_of("params", params)
        self._targets, self._is_single = _several("params", params)
        self._names = _names("params", self._targets, self._is_single)
        self._lr = number("lr", lr)
        self._steps = 0
        self._state = {name: [np.zeros_like(array) for array in arrays] for name in self._state_names}

    @property
    def _state_names(self) -> tuple[str, ...]:
        """The arrays of state of each array of parameters, as torch calls them."""
        return ()

    # Pickles and copies have public names alone; and the attributes that others have added.

    def __getstate__(self):
        own = {"_targets", "_is_single", "_names", "_steps", "_state", *[f"_{name}" for name in self._arguments]}
        return {
            "version": PICKLE_VERSION,
            "params": self._targets[0] if self._is_single else self._targets,
            "arguments": {name: getattr(self, f"_{name}") for name in self._arguments},
            "steps": self._steps,
            "state": self._state,
            "attributes": {name: value for name, value in vars(self).items() if name not in own},
        }

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, f"a pickle of {type(self).__name__}")
        self._targets, self._is_single = _several("params", state["params"])
        self._names = _names("params", self._targets, self._is_single)
        for name in self._arguments:
            setattr(self, f"_{name}", state["arguments"][name])
        self._steps, self._state = state["steps"], state["state"]
        self.__dict__.update(state["attributes"])

    @property
    def lr(self) -> float:
        """The learning rate, which may be set between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = number("lr", value)

    @property
    def steps(self) -> int:
        """The number of steps so far."""
        return self._steps

    def step(self, gradients: Given) -> None:
        """Update the parameters, in place.

        Parameters
        ----------
        gradients : Parameters, array_like, or a sequence of these
            In the form of `params`: of the same names and shapes, in the same order. They are cast to the dtype of the
            parameters by NumPy's "same_kind" rule, and not changed.

        Raises
        ------
        TypeError
            If an array cannot be cast.
        ValueError
            If number, names or shapes differ from those of `params`, or if an array of `params` is read-only, as those
            of a frozen layer are. No parameter has been changed then.
        """
        given, is_single = _several("gradients", gradients)
        if len(given) != len(self._targets) or is_single != self._is_single:
            expected = "one array or Parameters" if self._is_single else f"a sequence of {len(self._targets)}"
            got = "one" if is_single else f"a sequence of {len(given)}"
            raise ValueError(f"gradients: expected {expected}, as params, got {got}")
        arrays = [_parameters(name, target) for name, target in zip(self._names, self._targets)]
        of_caller = [
            _gradient(name, gradient, target, array)
            for name, gradient, target, array in zip(
                _names("gradients", given, is_single), given, self._targets, arrays
            )
        ]
        # Again: a conversion may have run code of the caller.
        arrays = [_parameters(name, target) for name, target in zip(self._names, self._targets)]
        for name, array, state in zip(self._names, arrays, zip(*self._state.values())):
            if array.shape != state[0].shape or array.dtype != state[0].dtype:
                was = f"{state[0].dtype} {state[0].shape}"
                raise ValueError(f"{name}: was {was} when the optimizer was made, and is {array.dtype} {array.shape}")
        if any(g.shape != p.shape or g.dtype != p.dtype for p, g in zip(arrays, of_caller)):
            raise ValueError("params: changed while the gradients were converted")
        of_caller = _apart_from(arrays, of_caller)
        self._steps += 1
        for k, (array, gradient) in enumerate(zip(arrays, of_caller)):
            states = [self._state[name][k] for name in self._state_names]
            self._update(array, gradient, states, _threads.most_threads(), _config.instruction_set())

    def _update(self, p: Array, g: Array, states: list[Array], num_threads: int, isa: str) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, by name: "steps", and an array "NAME.k" for array k of the parameters.

        ``np.savez(path, **optimizer.state_dict())`` saves it. The arguments of the constructor are not in it.
        """
        state: dict[str, Any] = {"steps": self._steps}
        for name, arrays in self._state.items():
            state |= {f"{name}.{k}": array.copy() for k, array in enumerate(arrays)}
        return state

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Set the state.

        Parameters
        ----------
        mapping : mapping of str to array_like
            The `state_dict` of an optimizer of the same class and of parameters of the same shapes, or such a
            mapping that `np.load` has read from a file.

        Raises
        ------
        TypeError
            If `mapping` is not a mapping or an array cannot be cast.
        ValueError
            If names or shapes differ. Nothing has been changed then.
        """
        try:
            given = {name: mapping[name] for name in mapping.keys()}
        except AttributeError:
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}") from None
        expected = self.state_dict()
        if given.keys() != expected.keys():
            missing, unknown = sorted(expected.keys() - given.keys()), sorted(map(str, given.keys() - expected.keys()))
            raise ValueError(
                f"mapping: missing: {', '.join(missing) or 'none'}; not known: {', '.join(unknown) or 'none'}"
            )
        steps = integer("steps", given.pop("steps"))
        if not 0 <= steps <= MOST_STEPS:
            raise ValueError(f"steps: expected 0 to {MOST_STEPS}, got {steps}")
        new = {name: as_array(name, value) for name, value in given.items()}
        for name, array in new.items():
            check_cast(name, array, expected[name].dtype)
            if array.shape != expected[name].shape:
                raise shape_error(name, expected[name].shape, (None,) * array.ndim, array.shape)
        # Copied first: a cast may fail, and arrays may share memory with the state.
        new = {name: array.astype(expected[name].dtype) for name, array in new.items()}
        self._steps = steps
        for name, arrays in self._state.items():
            for k, array in enumerate(arrays):
                array[...] = new[f"{name}.{k}"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, as torch.optim.SGD.

    Parameters
    ----------
    params : Parameters, ndarray, or a sequence of these
        The parameters, which `step` updates in place: ``layer.params``, ``[encoder.params, head.params]``, or arrays of
        float32 or float64, C-contiguous and writeable.
    lr : float, default 1e-3
        The learning rate, at least 0.
    momentum : float, default 0.0
        The factor of the velocity of the step before, at least 0.
    dampening : float, default 0.0
        The part of a gradient that does not enter the velocity.
    weight_decay : float, default 0.0
        The parameter, times this factor, is added to its gradient; at least 0.
    nesterov : bool, default False
        Whether the step looks ahead by the velocity; it needs `momentum`, and a dampening of 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if two arrays share memory.

    Notes
    -----
    With gradient g, parameter p and velocity b, zeros before the first step::

        d = g + weight_decay * p
        b = momentum * b + (1 - dampening) * d          b = d in the first step
        d = d + momentum * b  (nesterov)  or  b
        p = p - lr * d

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(8, 16, rng=0)
    >>> optimizer = fastrnn.optim.SGD(layer.params, lr=0.1, momentum=0.9)
    >>> output, state_n, tape = layer.forward(np.ones((5, 2, 8)))
    >>> d_x, d_state, d_params = layer.backward(tape, output)
    >>> optimizer.step(d_params)
    """

    _arguments = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        params: Given,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self._momentum, self._weight_decay = number("momentum", momentum), number("weight_decay", weight_decay)
        self._dampening, self._nesterov = number("dampening", dampening, -math.inf), flag("nesterov", nesterov)
        if self._nesterov and (self._momentum == 0 or self._dampening != 0):
            raise ValueError("nesterov: needs a momentum, and a dampening of 0")
        super().__init__(params, lr)

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self._momentum else ()

    def _update(self, p, g, states, num_threads, isa):
        _core.sgd_step(
            p,
            g,
            states[0] if states else None,
            self._lr,
            self._momentum,
            self._dampening,
            self._weight_decay,
            self._nesterov,
            self._steps == 1,
            num_threads,
            isa,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), as torch.optim.Adam.

    Parameters
    ----------
    params : Parameters, ndarray, or a sequence of these
        As for `SGD`.
    lr : float, default 1e-3
        The learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        The decay of the running means of the gradient and of its square, each at least 0 and less than 1.
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        The parameter, times this factor, is added to its gradient; at least 0.

    Raises
    ------
    TypeError, ValueError
        As for `SGD`.

    Notes
    -----
    With gradient g, parameter p and the means m and v, zeros before step t = 1::

        g = g + weight_decay * p
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        p = p - lr * m / (1 - beta_1**t) / (sqrt(v / (1 - beta_2**t)) + eps)

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer, head = fastrnn.GRU(8, 16, rng=0), np.zeros((16, 3), np.float32)
    >>> optimizer = fastrnn.optim.Adam([layer.params, head])
    >>> output, h_n, tape = layer.forward(np.ones((5, 2, 8)))
    >>> d_x, d_state, d_params = layer.backward(tape, output)
    >>> optimizer.step([d_params, np.ones((16, 3))])
    >>> float(head[0, 0])
    -0.0010000000474974513
    """

    _arguments = ("lr", "betas", "eps", "weight_decay")
    _decoupled = False

    def __init__(
        self,
        params: Given,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        try:
            beta_1, beta_2 = betas
        except (TypeError, ValueError):
            raise TypeError(f"betas: expected a pair of numbers, got {betas!r}") from None
        self._betas = number("betas[0]", beta_1, below=1), number("betas[1]", beta_2, below=1)
        self._eps, self._weight_decay = number("eps", eps), number("weight_decay", weight_decay)
        super().__init__(params, lr)

    @property
    def _state_names(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _update(self, p, g, states, num_threads, isa):
        m, v = states
        _core.adam_step(
            p,
            g,
            m,
            v,
            self._steps,
            self._lr,
            *self._betas,
            self._eps,
            self._weight_decay,
            self._decoupled,
            num_threads,
            isa,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as torch.optim.AdamW.

    Parameters
    ----------
    params, lr, betas, eps
        As for `Adam`.
    weight_decay : float, default 0.01
        A step first subtracts ``lr * weight_decay * p`` from each parameter p; at least 0.

    Raises
    ------
    TypeError, ValueError
        As for `SGD`.

    Notes
    -----
    A step begins with ``p = p - lr * weight_decay * p`` and goes on as `Adam` without weight decay.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = np.ones(1000, np.float32)
    >>> optimizer = fastrnn.optim.AdamW(weights, lr=0.1, weight_decay=0.5)
    >>> optimizer.step(np.zeros(1000))
    >>> float(weights[0])
    0.949999988079071
    """

    _decoupled = True

    def __init__(
        self,
        params: Given,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def clip_by_global_norm(gradients: Parameters | Array | Sequence[Parameters | Array], max_norm: float) -> float:
    """Scale gradients, in place, so that their norm is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    gradients : Parameters, ndarray, or a sequence of these
        Arrays of float32 or float64, C-contiguous and writeable, each of which counts once. The norm is the root of the
        sum of the squares of all numbers of all arrays, added in double precision.
    max_norm : float
        The largest norm, at least 0; `math.inf` for the norm alone.

    Returns
    -------
    norm : float
        The norm before clipping. If it is greater than `max_norm`, every number has been multiplied by
        ``max_norm / (norm + 1e-6)``, as `torch.nn.utils.clip_grad_norm_` does. If it is infinite or NaN, nothing has
        been changed: skip that step.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if two arrays share memory.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> gradient = np.array([3.0, 4.0])
    >>> fastrnn.optim.clip_by_global_norm(gradient, 1.0)
    5.0
    >>> gradient.round(3)
    array([0.6, 0.8])
    """
    largest = math.inf if isinstance(max_norm, float) and max_norm == math.inf else number("max_norm", max_norm)
    arrays = arrays_of("gradients", gradients)
    norm = norm_of(arrays)
    if largest < norm < math.inf:
        num_threads, isa = _threads.most_threads(), _config.instruction_set()
        factor = min(1.0, largest / (norm + 1e-6))
        for array in arrays:
            # A denormal factor would be taken for 0. A power of two rounds nothing.
            smallest = float(np.finfo(array.dtype).tiny)
            if 0 < factor < smallest:
                _core.scale(array, smallest, num_threads, isa)
            _core.scale(array, factor / smallest if factor < smallest else factor, num_threads, isa)
    return norm


def arrays_of(name: str, given: Given) -> list[Array]:
    """The numbers of all arrays given, to be written in place, none of them twice."""
    targets, is_single = _several(name, given)
    names = _names(name, targets, is_single)
    arrays = [_parameters(one, target) for one, target in zip(names, targets)]
    for k, array in enumerate(arrays):
        if any(np.may_share_memory(array, other) for other in arrays[:k]):
            raise ValueError(f"{names[k]}: shares memory with one before it, and would be written twice")
    return arrays


def norm_of(arrays: Sequence[Array]) -> float:
    """The root of the sum of the squares of all numbers, added in double precision in an order of the sizes."""
    num_threads, isa = _threads.most_threads(), _config.instruction_set()
    return math.sqrt(sum(_core.sum_squares(array, num_threads, isa) for array in arrays))


# Arguments


def _several(name: str, given: Any) -> tuple[list[Any], bool]:
    """A list of Parameters and arrays, and whether there was one alone."""
    if isinstance(given, (list, tuple)) and (not given or not isinstance(given[0], numbers.Real)):
        if not given:
            raise ValueError(f"{name}: is empty")
        return list(given), False
    return [given], True


def _names(name, given, is_single):
    """The name of each in messages."""
    return [name] if is_single else [f"{name}[{k}]" for k in range(len(given))]


def _parameters(name: str, target: Any) -> Array:
    """The numbers of Parameters, or an array, to be written in place."""
    if isinstance(target, Parameters):
        array = target._flat
    elif isinstance(target, np.ndarray):
        array = target.view(np.ndarray)
    elif isinstance(getattr(target, "params", None), Parameters):
        raise TypeError(f"{name}: a {type(target).__name__}; give its params")
    else:
        raise TypeError(f"{name}: expected Parameters or an ndarray, got {type(target).__name__}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{name}: read-only; of a frozen layer, unfreeze() makes it writeable")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError(f"{name}: not C-contiguous, so it cannot be updated in place")
    return array


def _span(array: Array) -> tuple[int, int]:
    """Where a contiguous array begins and ends in memory."""
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def _apart_from(targets: Sequence[Array], gradients: Sequence[Array]) -> list[Array]:
    """The gradients, with copies of those that share memory with the targets, which are written one by one."""
    spans = sorted(map(_span, targets))  # none overlaps another
    apart = []
    for gradient in gradients:
        start, stop = _span(gradient)
        k = bisect.bisect_left(spans, (stop, 0))  # the first target that begins after the gradient
        apart.append(gradient.copy() if k and spans[k - 1][1] > start else gradient)
    return apart


def _gradient(name: str, gradient: Any, target: Any, array: Array) -> Array:
    """The gradient of the parameters, as the kernels read it."""
    if isinstance(gradient, Parameters):
        if not isinstance(target, Parameters):
            raise ValueError(f"{name}: expected an array, got Parameters")
        if gradient._shapes() != target._shapes():
            raise ValueError(f"{name}: expected the names and shapes of params, got {gradient!r}")
        given = gradient._flat
    else:
        given = as_array(name, gradient)
        if given.shape != array.shape:
            raise shape_error(name, array.shape, (None,) * array.ndim, given.shape)
    check_cast(name, given, array.dtype)
    return _core.native(given, array.dtype)
