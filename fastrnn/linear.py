"""A fully connected layer, on the product kernels and threads of the recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _config, _core, _threads
from fastrnn._engine.pool import POOL
from fastrnn._engine.tape import X_CHANGED, AnyTape
from fastrnn._parametrized import generator, no_draws
from fastrnn._validation import (
    Array,
    as_array,
    check_cast,
    check_tape,
    detached,
    flag,
    float_dtype,
    item_of,
    names_arguments,
    shape_error,
    size,
)
from fastrnn.parameters import Parameters, check_loaded, checked_version

__all__ = ["Linear"]

PICKLE_VERSION = 1


class LinearTape(AnyTape):
    """The input and the weight of one `forward` of a `Linear`, for its `backward`; opaque."""

    __slots__ = ("x", "weight", "shape")

    def __init__(self, owner, x, rows):
        super().__init__(owner, rows)
        self.x, self.shape = rows, x.shape
        self.weight = owner.params._views()["weight"].copy()

    def __repr__(self):
        return f"<LinearTape of {self.owner_name()}>"


class Linear:
    """A fully connected layer, y = x weight^T + bias, as torch.nn.Linear.

    Its results and gradients keep the contract of the recurrent layers: no row of a result depends on the other rows,
    on the number of threads or on the instruction set (except `generic`). The gradients of the parameters are sums over
    all rows.

    Parameters
    ----------
    in_features : int
        I, the size of the last axis of `x`, at least 1.
    out_features : int
        O, the size of the last axis of the result, at least 1.
    bias : bool, default True
        Whether there is a bias.
    dtype : data-type, default float32
        float32 or float64: of the parameters, of the computation and of everything returned.
    rng : None, int or numpy.random.Generator, optional
        Where the initial parameters come from: uniform in [-1/sqrt(I), 1/sqrt(I)). An int is a seed. Default: different
        at each construction.

    Attributes
    ----------
    params : Parameters
        weight (O, I) and bias (O,).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> head = fastrnn.Linear(128, 10, rng=0)
    >>> head(np.zeros((25, 16, 128))).shape
    (25, 16, 10)
    """

    __slots__ = ("_params", "_bias", "__weakref__")

    @names_arguments
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        I, O = size("in_features", in_features), size("out_features", out_features)
        has_bias, rng = flag("bias", bias), generator(rng)
        params = Parameters({"weight": (O, I)} | ({"bias": (O,)} if has_bias else {}), float_dtype("dtype", dtype))
        bound = 1 / math.sqrt(I)
        for array in params.values():
            array[...] = rng.uniform(-bound, bound, array.shape)
        self._bias, self._params = has_bias, params

    @classmethod
    def from_state_dict(cls, mapping: Mapping[str, ArrayLike], prefix: str = "") -> Linear:
        """A new layer from the parameters of a torch.nn.Linear, whose sizes follow from them.

        Parameters
        ----------
        mapping : mapping of str to array_like
            The `state_dict` of a torch.nn.Linear, of a module that contains one or of a `Linear`; or a
            result of `load_tensors`.
        prefix : str, default ""
            The part of the names before "weight" and "bias"; a dot at its end may be left out.

        Returns
        -------
        layer : Linear
            Its parameters are copies. float64 parameters make a layer of float64, others of float32.

        Raises
        ------
        TypeError
            If `mapping` is not a mapping, or an array holds no floating-point numbers.
        ValueError
            If the weight is missing (the message names the prefixes found), if a name under the prefix is neither
            "weight" nor "bias", or if the shapes do not fit.

        See Also
        --------
        from_state_dict : the same for recurrent layers.

        Examples
        --------
        >>> import fastrnn
        >>> model = {f"head.{name}": array for name, array in fastrnn.Linear(16, 3).state_dict().items()}
        >>> fastrnn.Linear.from_state_dict(model, "head")
        Linear(16, 3)
        """
        from fastrnn.weights import floats, keys

        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected a string, got {prefix!r}")
        names = keys(mapping)
        start = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        own = [name for name in names if name.startswith(start) and (start or "." not in name)]
        given = {name.removeprefix(start): floats(name, item_of(mapping, name)) for name in own}
        if "weight" not in given:
            found = sorted(name.removesuffix("weight") for name in names if name.endswith(".weight"))
            raise ValueError(
                f"mapping: {start}weight: missing; prefixes found: {', '.join(map(repr, found)) or 'none'}"
            )
        unknown = [f"{start}{name}" for name in given if name not in ("weight", "bias")]
        if unknown:
            raise ValueError(f"mapping: not of a Linear: {', '.join(unknown)}")
        weight = given["weight"]
        if weight.ndim != 2:
            raise shape_error(f"{start}weight", ("out_features", "in_features"), (None, None), weight.shape)
        O, I = weight.shape
        dtype = np.float64 if any(array.dtype == np.float64 for array in given.values()) else np.float32
        layer = cls(I, O, "bias" in given, dtype=dtype, rng=no_draws())
        layer.load_state_dict(given)
        return layer

    @property
    def in_features(self) -> int:
        """Size of the last axis of the input."""
        return self._params._shapes()["weight"][1]

    @property
    def out_features(self) -> int:
        """Size of the last axis of the result."""
        return self._params._shapes()["weight"][0]

    @property
    def bias(self) -> bool:
        """Whether there is a bias."""
        return self._bias

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._params._flat.dtype

    @property
    def params(self) -> Parameters:
        """The parameters; their values may be changed at any time."""
        return self._params

    def __repr__(self) -> str:
        options = ("" if self._bias else ", bias=False") + ("" if self.dtype == np.float32 else ", dtype=float64")
        return f"Linear({self.in_features}, {self.out_features}{options})"

    # Pickles and copies have public names alone.

    def __getstate__(self):
        return {"version": PICKLE_VERSION, "params": self._params, "attributes": dict(getattr(self, "__dict__", {}))}

    def __setstate__(self, state):
        checked_version(state, PICKLE_VERSION, "a pickle of Linear")
        self._params = state["params"]
        self._bias = "bias" in self._params
        for name, value in state["attributes"].items():
            setattr(self, name, value)

    @names_arguments
    def __call__(self, x: ArrayLike) -> Array:
        """Compute the layer and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (..., I)
            The input, cast to the layer's dtype by NumPy's "same_kind" rule.

        Returns
        -------
        y : ndarray, (..., O)

        Raises
        ------
        TypeError
            If the dtype cannot be cast.
        ValueError
            If the shape does not fit.
        """
        x, rows = self._rows("x", x, "in_features")
        return self._compute(x, rows)

    @names_arguments
    def forward(self, x: ArrayLike) -> tuple[Array, LinearTape]:
        """Compute the layer and keep a tape for `backward`.

        Parameters
        ----------
        x : array_like, (..., I)
            As for a call of the layer. It must not be changed before the backward pass; the parameters may be.

        Returns
        -------
        y : ndarray, (..., O)
            As from a call of the layer, the same bits.
        tape : LinearTape
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            As in a call of the layer.
        """
        x, rows = self._rows("x", x, "in_features")
        tape = LinearTape(self, x, rows)
        return self._compute(x, rows), tape

    @overload
    def backward(
        self,
        tape: LinearTape,
        d_y: ArrayLike,
        *,
        input_gradient: Literal[True] = True,
    ) -> tuple[Array, Parameters]: ...

    @overload
    def backward(
        self,
        tape: LinearTape,
        d_y: ArrayLike,
        *,
        input_gradient: bool,
    ) -> tuple[Array | None, Parameters]: ...

    def backward(
        self,
        tape: LinearTape,
        d_y: ArrayLike,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, Parameters]:
        """The gradients of a loss through one `forward`.

        Parameters
        ----------
        tape : LinearTape
            The tape that `forward` of this layer returned. It can be used any number of times.
        d_y : array_like, (..., O)
            The gradient with respect to the result of `forward`.
        input_gradient : bool, default True
            Whether `d_x` is computed. Without it, as for the first layer of a network, backward takes less time.

        Returns
        -------
        d_x : ndarray, (..., I), or None without `input_gradient`
        d_params : Parameters
            The names and shapes of `params`.

        Raises
        ------
        TypeError
            If `tape` is not a tape of a `Linear`, or a dtype cannot be cast.
        ValueError
            If the tape is another layer's, if a shape does not fit, or if the `x` of the forward pass has been changed.
        """
        check_tape(tape, LinearTape, "second", self, "layer")
        array, d_rows = self._rows("d_y", d_y, "out_features")
        expected = (*tape.shape[:-1], self.out_features)
        if array.shape != expected:
            raise shape_error("d_y", ("...",) * (len(expected) - 1) + ("out_features",), expected, array.shape)
        if _core.fingerprint(tape.x) != tape.fingerprint:
            raise ValueError(X_CHANGED)
        d_params = self._params._like(POOL.empty)
        gradients = d_params._views()
        d_x = POOL.empty(tape.shape, self.dtype) if flag("input_gradient", input_gradient) else None
        _core.linear_backward(
            tape.x,
            tape.weight,
            d_rows,
            None if d_x is None else d_x.reshape(-1, self.in_features),
            gradients["weight"],
            gradients.get("bias"),
            _threads.most_threads(),
            _config.instruction_set(),
        )
        return d_x, d_params

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter, by name."""
        return {name: array.copy() for name, array in self._params.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Set every parameter.

        Parameters
        ----------
        mapping : mapping of str to array_like
            Exactly the names and shapes of `params`, as the `state_dict` of torch.nn.Linear has them.

        Raises
        ------
        TypeError
            If `mapping` is not a mapping, or a dtype cannot be cast.
        ValueError
            If names or shapes differ. Nothing has been changed then.
        """
        try:
            given = {name: as_array(str(name), detached(item_of(mapping, name))) for name in mapping.keys()}
        except AttributeError:
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}") from None
        views = self._params._views()
        if given.keys() != views.keys():
            raise ValueError(f"mapping: expected {', '.join(views)}, got {', '.join(map(str, given)) or 'nothing'}")
        for name, array in views.items():
            check_loaded(name, given[name], array)
        # Copied first: a cast may fail, and arrays may share memory with the parameters.
        new = self._params.empty_like()
        for name in views:
            new[name] = given[name]
        self._params._flat[...] = new._flat

    # Between the caller's shapes and rows

    def _rows(self, name, value, symbol):
        """The argument as an array, and as rows of `symbol` numbers, in_features or out_features, for a kernel."""
        array = as_array(name, value)
        width = getattr(self, symbol)  # after the conversion, which may run code of the caller
        check_cast(name, array, self.dtype)
        if array.ndim == 0 or array.shape[-1] != width:
            raise shape_error(name, ("...", symbol), (None, width), array.shape)
        return array, _core.native(array, self.dtype).reshape(-1, width)

    def _compute(self, x, rows):
        views = self._params._views()
        y = POOL.empty((*x.shape[:-1], self.out_features), self.dtype)
        flat = y.reshape(-1, self.out_features)
        num_threads, isa = _threads.most_threads(), _config.instruction_set()
        _core.linear(rows, views["weight"], views.get("bias"), flat, num_threads, isa)
        return y


Linear.__module__ = "fastrnn"  # the public name, also in pickles
