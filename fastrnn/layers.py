"""Layers: parameters, several layers deep, around the functions of `fastrnn.functional`."""

from __future__ import annotations

import collections
import sys
import weakref
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import _core
from fastrnn._config import instruction_set
from fastrnn._threads import get_num_threads
from fastrnn._validation import (
    as_array,
    check_bytes,
    check_tape,
    flag,
    float_dtype,
    initial_state,
    native,
    pair,
    probability,
    shape_error,
    shaped_array,
    size,
)
from fastrnn.functional import unchecked_lstm, unchecked_lstm_backward, unchecked_lstm_forward
from fastrnn.parameters import Parameters
from fastrnn.stream import LSTMStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from fastrnn._validation import State

__all__ = ["LSTM"]

# A tape leaves no more than that to the next one.
MOST_LEFT_BYTES = 256 << 20


class LayerTape:
    """What a layer's `backward` needs of its `forward`; opaque, and never altered by a backward.

    When it goes, it leaves its memory to the layer for the next tape: the system takes time to clear new memory.
    """

    __slots__ = ("layer", "tapes", "batched", "memory", "heir")

    def __init__(self, layer, tapes, batched, memory, heir):
        self.layer = weakref.ref(layer)
        self.tapes = tapes  # of fastrnn.functional, the layer nearest to x first
        self.batched = batched
        self.memory = memory  # of each of tapes: gates, c, and what was packed for it alone or None
        self.heir = heir

    def __del__(self):
        # A tape may come to life again in its last moment: it is then empty.
        memory, self.memory, self.tapes = self.memory, (), ()
        if memory and sum(one.nbytes for of_layer in memory for one in of_layer if one is not None) <= MOST_LEFT_BYTES:
            self.heir.append(memory)

    def __reduce__(self):
        raise TypeError("a tape cannot be copied or pickled; it belongs to one forward pass of one layer")

    def __repr__(self):
        if not self.tapes:
            return f"<LayerTape, finalized, of {self.layer()}>"
        T, B, _ = self.tapes[0].x.shape
        return f"<LayerTape T={T} B={B} of {self.layer()}>"


class LSTM:
    """A long short-term memory layer, or a stack of them, as torch.nn.LSTM.

    See `fastrnn.functional.lstm` for the equations and their source; gate order, names and shapes of the
    parameters are those of torch.nn.LSTM, so that its state_dict can be loaded.

    Parameters
    ----------
    input_size : int
        Size I of each step's input, at least 1.
    hidden_size : int
        Size H of the state, at least 1.
    num_layers : int, default 1
        Layers on top of each other, each taking the output of the one below.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        Whether `x` and `output` are (B, T, ...) rather than (T, B, ...). The state is not affected.
    dropout : float, default 0.0
        Only 0 is implemented.
    bidirectional : bool, default False
        Only False is implemented.
    proj_size : int, default 0
        Only 0 is implemented.
    peephole : bool, default False
        Only False is implemented.
    dtype : data-type, default float32
        float32 or float64: of the parameters, of the computation and of everything returned.
    rng : None, int or numpy.random.Generator, optional
        Where the initial parameters come from: uniform in [-1/sqrt(H), 1/sqrt(H)). An int is a seed.
        Default: different at each construction.

    Attributes
    ----------
    params : Parameters
        weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H), bias_ih_l0 (4*H,), bias_hh_l0 (4*H,), then
        those of layer 1 with (4*H, H) for weight_ih_l1, and so on; rows in the order i, f, g, o.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.
    NotImplementedError
        If an argument asks for what is not implemented.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(64, 128, num_layers=2, rng=0)
    >>> output, (h_n, c_n) = layer(np.zeros((25, 16, 64)))
    >>> output.shape, h_n.shape
    ((25, 16, 128), (2, 16, 128))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        input_size = size("input_size", input_size)
        hidden_size = size("hidden_size", hidden_size)
        num_layers = size("num_layers", num_layers)
        bias = flag("bias", bias)
        batch_first = flag("batch_first", batch_first)
        dropout = probability("dropout", dropout)
        bidirectional = flag("bidirectional", bidirectional)
        proj_size = size("proj_size", proj_size, minimum=0)
        if proj_size >= hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size={hidden_size}, got {proj_size}"
            )
        peephole = flag("peephole", peephole)
        dtype = float_dtype("dtype", dtype)
        if isinstance(rng, bool):
            raise TypeError(f"rng: expected None, an int or a numpy.random.Generator, got {rng!r}")
        try:
            rng = np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise type(error)(f"rng: {error}") from error
        for name, value in (
            ("dropout", dropout),
            ("bidirectional", bidirectional),
            ("proj_size", proj_size),
            ("peephole", peephole),
        ):
            if value:
                raise NotImplementedError(f"{name}: {value} is not implemented yet")

        columns = input_size + (2 * num_layers - 1) * hidden_size + 2 * num_layers * bias
        if 4 * hidden_size * columns * dtype.itemsize > sys.maxsize:
            raise ValueError(
                "input_size, hidden_size: too large: the parameters of "
                f"{num_layers} layers of input_size={input_size}, hidden_size={hidden_size} "
                "are more than memory can address"
            )
        shapes = {}
        for k in range(num_layers):
            shapes[f"weight_ih_l{k}"] = (4 * hidden_size, hidden_size if k else input_size)
            shapes[f"weight_hh_l{k}"] = (4 * hidden_size, hidden_size)
            if bias:
                shapes[f"bias_ih_l{k}"] = (4 * hidden_size,)
                shapes[f"bias_hh_l{k}"] = (4 * hidden_size,)
        params = Parameters(shapes, dtype)
        bound = hidden_size**-0.5
        for array in params.values():
            array[...] = rng.uniform(-bound, bound, array.shape)
        self._input_size = input_size
        self._hidden_size = hidden_size
        self._num_layers = num_layers
        self._bias = bias
        self._batch_first = batch_first
        self._params = params
        self._derive()

    def _derive(self):
        """Everything that follows from the parameters."""
        self._dtype = self._params.flat.dtype
        # weight_ih, weight_hh, bias_ih, bias_hh of each layer, as functional takes them. Views, because
        # the shapes of the array objects that `params` gives out can be assigned to.
        absent = () if self._bias else (None, None)
        self._weights = [
            (*(array.view() for array in arrays), *absent) for arrays in self._split(self._params)
        ]
        self._tape_memory = collections.deque(maxlen=1)

    # Pickles and deep copies take the parameters; what is derived from them is made again.

    _DERIVED = ("_dtype", "_weights", "_tape_memory")

    def __getstate__(self):
        state = {k: v for k, v in self.__dict__.items() if k not in self._DERIVED}
        return state | {"frozen": self.frozen}

    def __setstate__(self, state):
        frozen = state.pop("frozen")
        self.__dict__.update(state)
        self._derive()
        if frozen and not self.frozen:
            self.freeze()

    def _split(self, params):
        """The arrays of each layer."""
        arrays = list(params.values())
        count = len(arrays) // self._num_layers
        return [arrays[k : k + count] for k in range(0, len(arrays), count)]

    # Configuration

    @property
    def input_size(self) -> int:
        """Size of each step's input."""
        return self._input_size

    @property
    def hidden_size(self) -> int:
        """Size of the state."""
        return self._hidden_size

    @property
    def num_layers(self) -> int:
        """How many layers lie on top of each other."""
        return self._num_layers

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._bias

    @property
    def batch_first(self) -> bool:
        """Whether `x` and `output` are (B, T, ...)."""
        return self._batch_first

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._dtype

    def _constructor_arguments(self):
        """All arguments that make such a layer, less `rng`, as plain Python values."""
        return {
            "input_size": self._input_size,
            "hidden_size": self._hidden_size,
            "num_layers": self._num_layers,
            "bias": self._bias,
            "batch_first": self._batch_first,
            "dropout": 0.0,
            "bidirectional": False,
            "proj_size": 0,
            "peephole": False,
            "dtype": self._dtype.name,
        }

    def __repr__(self) -> str:
        parts = [str(self._input_size), str(self._hidden_size)]
        if self._num_layers != 1:
            parts.append(f"num_layers={self._num_layers}")
        if not self._bias:
            parts.append("bias=False")
        if self._batch_first:
            parts.append("batch_first=True")
        if self._dtype != np.float32:
            parts.append(f"dtype={self._dtype}")
        return f"LSTM({', '.join(parts)})"

    # Parameters

    @property
    def params(self) -> Parameters:
        """The parameters; their values may be changed at any time."""
        return self._params

    def state_dict(self) -> dict[str, NDArray]:
        """A copy of each parameter, by name."""
        return {name: array.copy() for name, array in self._params.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Set every parameter.

        Parameters
        ----------
        mapping : mapping of str to array_like
            Exactly the names and shapes of `params`: another layer's `state_dict()` or that of a
            torch.nn.LSTM, for example. Nothing is written unless everything fits.

        Raises
        ------
        TypeError
            If `mapping` is not a mapping.
        ValueError
            If a name is missing or not known, or an array does not fit: the message lists them all. Or if
            the layer is frozen.
        """
        if self.frozen:
            raise ValueError("params: the layer is frozen; call unfreeze() first")
        try:
            given = {name: mapping[name] for name in mapping.keys()}
        except AttributeError:
            raise TypeError(
                f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}"
            ) from None
        arrays = {}
        problems = []
        for name, array in self._params.items():
            if name not in given:
                problems.append(f"{name}: missing")
                continue
            try:
                value = as_array(name, given[name], self._dtype)
                if value.shape != array.shape:
                    raise shape_error(name, array.shape, (None,) * array.ndim, value.shape)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
                continue
            arrays[name] = value
        problems += [f"{name}: not a parameter" for name in given if name not in self._params]
        if problems:
            raise ValueError("mapping: does not fit " + "\n    ".join([f"{self!r}:", *problems]))
        # Whatever can fail or warn, and whatever shares memory with a parameter, is copied first.
        new = self._params.empty_like()
        for name, value in arrays.items():
            new[name] = value
        self._params.flat[...] = new.flat

    @property
    def frozen(self) -> bool:
        """Whether the parameters are read-only and their packed form is kept: see `freeze`."""
        return self._params._packed is not None

    def freeze(self) -> None:
        """Make the parameters read-only and keep them as the kernels read them, for calls that pack nothing.

        The results are the same bits. The packed weights take as much memory as the parameters, and as much again from
        the first `forward` on. Any number of threads may call a frozen layer at once.

        Notes
        -----
        Every array that `params` gives out becomes read-only, those given out before included. What cannot be seen is
        a writeable view that somebody has made of one of them before: writing to it changes `params` and not the
        results.
        """
        params = self._params
        params._set_writeable(False)
        try:
            packed = self._pack(backward=False)
        except MemoryError:
            params._set_writeable(params._packed is None)
            raise
        # For forward, and for backward from the first `forward` on: one object, so that a call in another thread never
        # mixes those of two freezes. It belongs to the parameters, because layers may share these.
        params._packed = [packed, None]
        self._tape_memory.clear()

    def unfreeze(self) -> None:
        """Make the parameters writeable again, and drop their packed form."""
        self._params._packed = None
        self._params._set_writeable(True)

    def _pack(self, backward, spare=None):
        """Of each layer, in the memory of spares that nobody uses any more, where there are some."""
        num_threads, isa = get_num_threads(), instruction_set()
        spare = spare or [None] * self._num_layers
        return [
            _core.lstm_pack(weights, backward, num_threads, isa, old)
            for weights, old in zip(self._weights, spare, strict=True)
        ]

    # Computation

    def stream(self, batch_size: int | None = None) -> LSTMStream:
        """The layer, one step a call, carrying its state.

        Parameters
        ----------
        batch_size : int, optional
            B, at least 1. Default: a single sequence, without a batch axis.

        Returns
        -------
        stream : LSTMStream
            ``y_t = stream.step(x_t)``, ``stream.state``, ``stream.reset()``. It has the weights of this moment,
            and shares them if the layer is frozen.

        Raises
        ------
        TypeError, ValueError
            If `batch_size` is no integer of at least 1.

        Examples
        --------
        >>> layer = fastrnn.LSTM(64, 128, rng=0)
        >>> stream = layer.stream()
        >>> stream.step(np.zeros(64)).shape
        (128,)
        """
        B = 1 if batch_size is None else size("batch_size", batch_size)
        sizes = (self._num_layers, B, self._hidden_size)
        check_bytes("batch_size", sizes[:2], max(self._input_size, 4 * self._hidden_size), self._dtype.itemsize)
        frozen = self._params._packed
        packed = frozen[0] if frozen else self._pack(backward=False)
        return LSTMStream(packed, self._input_size, sizes, self._dtype, batch_size is not None)

    def __call__(
        self, x: ArrayLike, state: State | None = None, lengths: None = None
    ) -> tuple[NDArray, tuple[NDArray, NDArray]]:
        """Run the layer over a sequence and keep nothing for a backward pass.

        Parameters
        ----------
        x : array_like, (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
            The input: T steps of B sequences, or of a single one. T and B may be 0. It is cast to the
            layer's dtype by NumPy's "same_kind" rule; any strides and any byte order will do.
        state : tuple (h_0, c_0) of array_like, each (num_layers, B, H) or (num_layers, H), optional
            The state before the first step; a member may be None. Default: zeros.
        lengths : None
            Not implemented yet.

        Returns
        -------
        output : ndarray, (T, B, H), or (B, T, H) with `batch_first`, or (T, H)
            h_t of the last layer at every step.
        state_n : tuple (h_n, c_n) of ndarray, each (num_layers, B, H) or (num_layers, H)
            The state after the last step.

        Raises
        ------
        TypeError
            If a dtype cannot be cast.
        ValueError
            If a shape does not fit. The message starts with the argument's name.
        """
        x, _, batched, h_0, c_0 = self._arguments(x, state, lengths, private_state=False)
        h_n = np.empty(h_0.shape, self._dtype)
        c_n = np.empty(c_0.shape, self._dtype)
        # Rebinding x lets go of the output below: at most two are alive.
        frozen = self._params._packed
        for k, weights in enumerate(frozen[0] if frozen else self._weights):
            output = np.empty((*x.shape[:2], self._hidden_size), self._dtype)
            unchecked_lstm(x, h_0[k], c_0[k], weights, output, h_n[k], c_n[k])
            x = output
        return self._returned(output, h_n, c_n, batched)

    def forward(
        self, x: ArrayLike, state: State | None = None, lengths: None = None
    ) -> tuple[NDArray, tuple[NDArray, NDArray], LayerTape]:
        """Run the layer over a sequence and keep a tape for `backward`.

        Parameters
        ----------
        x, state, lengths
            As for a call of the layer.

        Returns
        -------
        output, state_n
            As from a call of the layer, the same bits.
        tape : LayerTape
            For `backward`. Tapes are independent of each other. The parameters may be changed before
            the backward pass, `x` may not.

        Raises
        ------
        TypeError, ValueError
            As in a call of the layer.
        """
        x, x_is_private, batched, h_0, c_0 = self._arguments(x, state, lengths, private_state=True)
        h_n = np.empty(h_0.shape, self._dtype)
        c_n = np.empty(c_0.shape, self._dtype)
        T, B, _ = x.shape
        H = self._hidden_size
        shapes = (T, B, 4 * H), (T, B, H)
        try:
            memory = self._tape_memory.pop()
        except IndexError:
            memory = None
        if memory is None or memory[0][0].shape != shapes[0]:
            memory = [(*(np.empty(s, self._dtype) for s in shapes), None) for _ in h_0]
        frozen = self._params._packed
        if frozen is None:
            weights_of, packed = self._weights, self._pack(True, [spare for _, _, spare in memory])
        else:
            if frozen[1] is None:
                frozen[1] = self._pack(True)
            weights_of, packed = frozen
        memory = [(gates, c, None if frozen else own) for (gates, c, _), own in zip(memory, packed)]

        tapes = []
        for k, weights in enumerate(weights_of):
            output = np.empty((T, B, H), self._dtype)
            tapes.append(
                unchecked_lstm_forward(
                    x, x_is_private, h_0[k], c_0[k], weights, packed[k], *memory[k][:2],
                    output, h_n[k], c_n[k],
                )
            )  # fmt: skip
            x, x_is_private = output, True
        tape = LayerTape(self, tapes, batched, memory, self._tape_memory)
        return *self._returned(output, h_n, c_n, batched), tape

    def backward(
        self, tape: LayerTape, d_output: ArrayLike | None = None, d_state_n: State | None = None
    ) -> tuple[NDArray, tuple[NDArray, NDArray], Parameters]:
        """The gradients of a loss through one `forward`.

        May be called any number of times with one tape; it accumulates nothing. The parameters are taken
        as they were at the `forward`.

        Parameters
        ----------
        tape : LayerTape
            What `forward` of this layer returned.
        d_output : array_like, shape of `output`, optional
            The gradient with respect to `output`. Default: zeros.
        d_state_n : tuple (d_h_n, d_c_n) of array_like, shapes of `state_n`, optional
            The gradient with respect to `state_n`; a member may be None. Default: zeros.

        Returns
        -------
        d_x : ndarray, shape of `x`
        d_state : tuple (d_h_0, d_c_0) of ndarray, shapes of `state_n`
        d_params : Parameters
            The names and shapes of `params`.

        Raises
        ------
        TypeError
            If `tape` is not a layer's tape, or a dtype cannot be cast.
        ValueError
            If the tape is another layer's, if a shape does not fit, or if the `x` of the forward pass
            has been changed since.
        """
        check_tape(tape, LayerTape)
        if not tape.tapes:
            raise ValueError("tape: has been finalized, its memory given to another")
        if tape.layer() is not self:
            raise ValueError(f"tape: made by another layer, {tape.layer()!r}")
        T, B, _ = tape.tapes[0].x.shape
        L, H, dtype = self._num_layers, self._hidden_size, self._dtype
        d_output = self._output_gradient(d_output, T, B, tape.batched)
        d_h_n, d_c_n = pair("d_state_n", d_state_n, "(d_h_n, d_c_n)")
        d_h_n = self._state("d_state_n (d_h_n)", d_h_n, B, tape.batched)
        d_c_n = self._state("d_state_n (d_c_n)", d_c_n, B, tape.batched)
        tape.tapes[0].check_x()

        d_h_n = [None] * L if d_h_n is None else native(d_h_n, dtype)
        d_c_n = [None] * L if d_c_n is None else native(d_c_n, dtype)
        d_params = self._params.empty_like()
        d_weights = self._split(d_params)
        d_h_0 = np.empty((L, B, H), dtype)
        d_c_0 = np.empty((L, B, H), dtype)
        for k in reversed(range(L)):
            d_x = np.empty(tape.tapes[k].x.shape, dtype)
            unchecked_lstm_backward(
                tape.tapes[k], d_output, d_h_n[k], d_c_n[k], d_x, d_h_0[k], d_c_0[k], *d_weights[k]
            )
            d_output = d_x
        return *self._returned(d_x, d_h_0, d_c_0, tape.batched), d_params

    # Between the caller's shapes and (T, B, I), (num_layers, B, H)

    def _arguments(self, x, state, lengths, private_state):
        """x (T, B, I), whether nobody shares it, whether it had a batch axis, h_0, c_0."""
        if lengths is not None:
            raise NotImplementedError("lengths: not implemented yet")
        dtype = self._dtype
        x = as_array("x", x, dtype)
        batched = x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self._input_size:
            raise self._x_error(x.shape)
        if not batched:
            x = x[:, None]
        elif self._batch_first:
            x = x.transpose(1, 0, 2)
        T, B, I = x.shape
        H = self._hidden_size
        check_bytes("x", (T, B), max(I, 4 * H), dtype.itemsize)
        h_0, c_0 = pair("state", state, "(h_0, c_0)")
        h_0 = self._state("state (h_0)", h_0, B, batched)
        c_0 = self._state("state (c_0)", c_0, B, batched)
        h_0 = initial_state(h_0, (self._num_layers, B, H), dtype, private_state)
        c_0 = initial_state(c_0, (self._num_layers, B, H), dtype, private_state)
        native_x = native(x, dtype)
        return native_x, native_x is not x, batched, h_0, c_0

    def _x_error(self, given):
        I = self._input_size
        axes = ("B", "T") if self._batch_first else ("T", "B")
        if len(given) == 3:
            return shape_error("x", (*axes, "input_size"), (None, None, I), given)
        if len(given) == 2:
            return shape_error("x", ("T", "input_size"), (None, I), given)
        return ValueError(
            f"x: expected ({', '.join(axes)}, input_size={I}) or (T, input_size={I}), got {given}"
        )

    def _state(self, name, value, B, batched):
        """(num_layers, B, H), checked but not yet native, or None."""
        L, H = self._num_layers, self._hidden_size
        if batched:
            symbols = ("num_layers", "B", "hidden_size")
            return shaped_array(name, value, symbols, (L, B, H), self._dtype)
        array = shaped_array(name, value, ("num_layers", "hidden_size"), (L, H), self._dtype)
        return None if array is None else array[:, None]

    def _output_gradient(self, d_output, T, B, batched):
        """(T, B, H), native, or None."""
        if d_output is None:
            return None
        H, dtype = self._hidden_size, self._dtype
        if not batched:
            d_output = shaped_array("d_output", d_output, ("T", "hidden_size"), (T, H), dtype)
            return native(d_output[:, None], dtype)
        if self._batch_first:
            symbols = ("B", "T", "hidden_size")
            d_output = shaped_array("d_output", d_output, symbols, (B, T, H), dtype)
            return native(d_output.transpose(1, 0, 2), dtype)
        symbols = ("T", "B", "hidden_size")
        return native(shaped_array("d_output", d_output, symbols, (T, B, H), dtype), dtype)

    def _returned(self, output, h, c, batched):
        """Time-major results in the caller's axes."""
        if not batched:
            return output[:, 0], (h[:, 0], c[:, 0])
        if self._batch_first:
            output = output.transpose(1, 0, 2)
        return output, (h, c)
