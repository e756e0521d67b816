"""The kernels inside PyTorch models: `LSTM`, `GRU` and `RNN` are modules with the autograd of PyTorch.

They are subclasses of their namesakes in `torch.nn`, with the same parameters, arguments and results; `replace` turns
the recurrent modules of a model into them, and `restore` turns them back. Between PyTorch and the kernels lies the
stateless form of `fastrnn.functional`: arrays, and one array of bytes for the backward pass.

In eager mode a call is one `torch.autograd.Function`. Where PyTorch traces (torch.compile, torch.export), it is one
operator, ``torch.ops.fastrnn.forward``, or ``torch.ops.fastrnn.infer`` if no gradient is needed.
"""

from __future__ import annotations

import ctypes
import os
import types
import warnings
from abc import ABCMeta
from functools import lru_cache, wraps
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from fastrnn._config import instruction_set
from fastrnn._core import (
    Inputs,
    ModuleWeights,
    PackedModule,
    PackedSequences,
    Samples,
    Tensors,
    aligned,
    borrow_threads,
    empty_states,
    native,
    plain_inputs,
    set_lender,
    zero_states,
)
from fastrnn._engine import stack as engine
from fastrnn._engine import stateless
from fastrnn._engine.pool import POOL
from fastrnn._engine.ragged import PackedRows, padded
from fastrnn._engine.spec import SPECS
from fastrnn._engine.stack import Dropout, Stack
from fastrnn._threads import most_threads
from fastrnn._torch_modules import unfit_kind
from fastrnn._validation import flag

try:
    import torch
    from torch import from_numpy
    from torch._C import _are_functorch_transforms_active, _is_any_autocast_enabled, _is_tracing
    from torch._C import _len_torch_dispatch_stack as dispatch_modes
    from torch._C._dynamo.eval_frame import get_eval_frame_callback
    from torch._C._functorch import is_legacy_batchedtensor
    from torch._compile import _disable_dynamo
    from torch.autograd import forward_ad
    from torch.nn.utils.rnn import PackedSequence
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("fastrnn.torch needs the package torch: pip install 'fastrnn[torch]'") from error

__all__ = ["GRU", "LSTM", "RNN", "Replaced", "replace", "restore"]

NUMPY_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
TORCH_KERNELS = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)
TORCH_DTYPES = {dtype: of_torch for of_torch, dtype in NUMPY_DTYPES.items()}
TENSORS = Tensors(PLAIN_TENSORS, TORCH_DTYPES, from_numpy, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))

# Of a tensor, for `map`.
requires_grad, version = attrgetter("requires_grad"), attrgetter("_version")


# Threads


def _find_lender():
    """Let calls borrow the threads of PyTorch's OpenMP, if it is one with the functions of GNU's.

    A library sees the symbols that are global, and then those of its own dependencies.
    """
    names = "GOMP_parallel_start", "GOMP_parallel_end", "omp_get_max_threads"
    for library in (None, torch._C.__file__):
        try:
            loaded = ctypes.CDLL(library, mode=getattr(os, "RTLD_NOLOAD", 0))
            functions = [getattr(loaded, name) for name in names]
        except (OSError, TypeError, AttributeError):
            continue
        set_lender(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))
        return


_find_lender()


def _borrows(run):
    """A pass whose calls borrow PyTorch's threads, which spin on the other cores after each operation of PyTorch."""

    @wraps(run)
    def borrowing(*arguments):
        before = borrow_threads(True)
        try:
            return run(*arguments)
        finally:
            borrow_threads(before)

    return borrowing


# Between tensors and the engine


class Arrangement(NamedTuple):
    """The layers of a module, as the engine and PyTorch's own kernels need them."""

    stack: Stack
    mode: str
    bias: bool
    shapes: tuple[tuple[int, ...], ...]  # of the flat weights
    per_direction: int

    def grouped(self, flat):
        """A tuple of weights for each direction of each layer, in the order of the cell's specification."""
        n = self.per_direction
        groups = [tuple(flat[k : k + n]) for k in range(0, len(flat), n)]
        return groups if self.bias else [(*one[:2], None, None, *one[2:]) for one in groups]


@lru_cache(maxsize=256)
def _arrangement(mode, input_size, hidden_size, proj_size, num_layers, bidirectional, bias, dtype):
    """The Arrangement of a module with these attributes."""
    spec = SPECS[mode.partition("_")[0].lower()]
    options = dict(spec.defaults)
    if mode == "RNN_RELU":
        options["nonlinearity"] = "relu"
    P = proj_size or hidden_size
    sizes = {"I": input_size, "H": hidden_size, "P": P}
    directions = (False, True) if bidirectional else (False,)
    stack = Stack(spec, spec.kernel_of(options), NUMPY_DTYPES[dtype], sizes, num_layers, directions, True)
    shapes: list[tuple[int, ...]] = []
    for layer in range(num_layers):
        inputs = len(directions) * P if layer else input_size
        one = spec.shapes(sizes | {"I": inputs}, {"bias": bias, "proj_size": proj_size})
        shapes += [*one.values()] * len(directions)
    return Arrangement(stack, mode, bias, tuple(shapes), len(shapes) // stack.count)


def _array(tensor, dtype, shared=False):
    """A tensor of the CPU as an array that the kernels can read, if possible its own memory.

    `Tensor.numpy` would keep others from resizing the memory, as FSDP does: so it is called for a copy, or with
    `shared` for a tensor whose values the array has to follow.
    """
    array = TENSORS.array(tensor, dtype)
    if array is not None:
        return array
    source = tensor if shared else tensor.clone(memory_format=torch.contiguous_format)
    return native(source.numpy(force=True), dtype)


def _layout(x, batch_sizes):
    """The layout of x, (T, B, I), or (N, I) with batch_sizes."""
    return padded(*x.shape[:2]) if batch_sizes is None else PackedRows(batch_sizes.numpy())


def _inputs(arrangement, x, batch_sizes, states):
    """The Inputs of a pass; zeros for absent states."""
    stack = arrangement.stack
    dtype = stack.dtype
    array = _array(x, dtype)
    if not states and batch_sizes is None:
        inputs = plain_inputs(stack, array, padded)
        if inputs is not None:
            return inputs
    layout = _layout(x, batch_sizes)
    if states:
        state_0 = [_array(state, dtype) for state in states]
    else:
        state_0 = zero_states(stack.count, layout.B, stack.widths, dtype)
    return Inputs(stack, layout, array, False, state_0, None, True)


@_borrows
def _infer(weights, packs, x, batch_sizes, states, dropout):
    """output and state_n, as arrays."""
    if dropout is not None:
        return _forward(weights, packs, x, batch_sizes, states, dropout)[:2]
    packed = packs.forward(weights)
    inputs = _inputs(weights.arrangement, x, batch_sizes, states)
    state_n = empty_states(inputs.state_0)
    output = engine.infer(inputs, packed, state_n)
    packs.done(packed)
    return output, state_n


@_borrows
def _forward(weights, packs, x, batch_sizes, states, dropout):
    """output, state_n and reserve, as arrays."""
    packed = packs.forward(weights)
    results = stateless.forward(_inputs(weights.arrangement, x, batch_sizes, states), packed, dropout)
    packs.done(packed)
    return results


def _backward(weights, packed, reserve, x, batch_sizes, states, dropout, gradients, input_gradient):
    """d_x or None, d_state_0 and the gradients of the flat weights, as arrays; from those of output and state_n."""
    dtype = weights.arrangement.stack.dtype
    inputs, kept = _inputs(weights.arrangement, x, batch_sizes, states), aligned(reserve, POOL)
    d_rows, *d_after = [None if d is None else _array(d, dtype) for d in gradients]
    d_x, d_state_0, d_weights = stateless.backward(
        inputs, packed, weights.groups, kept, d_rows, d_after, dropout, input_gradient
    )
    return d_x, d_state_0, [d for one in d_weights for d in one if d is not None]


# Weights between calls


FEWEST_SAMPLES = 64  # at least so many elements of each weight are compared
MOST_COMPARED_BYTES = 128 << 10  # in training, a weight of at most so many bytes is compared as a whole


class Weights(ModuleWeights):
    """The weights of a module as the kernels read them, and packed.

    Parameters
    ----------
    arrangement : Arrangement
    tensors : list of Tensor
        Of its shapes and its dtype, in any layout in memory.
    """

    __slots__ = "arrangement", "are_counted", "arrays", "groups", "latest", "kept"

    def __init__(self, arrangement, tensors):
        tensors, addresses = list(tensors), [w.data_ptr() for w in tensors]
        super().__init__(TENSORS, arrangement.stack, tensors, arrangement.shapes, addresses)
        self.arrangement, are_counted = arrangement, _are_counted(tensors)
        # In memory that is gone once a tensor has been given other memory: the addresses tell.
        self.arrays = [_array(w, self.dtype, are_counted) for w in tensors]
        # A copy, of memory that no kernel can read in place, is of the values as they are now.
        self.are_counted = are_counted and addresses == [a.__array_interface__["data"][0] for a in self.arrays]
        self.groups = arrangement.grouped(self.arrays)
        self.latest = self.kept = None

    def packs(self, exact):
        """The Packs of the weights as they are now, kept ones if the weights have not changed.

        PyTorch counts the changes of a parameter, but not those through `.data` or through an array of NumPy that
        shares its memory: therefore some of the elements of each weight are compared, too. With `exact`, small weights
        are compared as a whole, so that finite differences through `.data` are seen, and packed weights are kept once
        two calls have met the same weights: during training, most calls meet others.
        """
        if not self.are_counted:
            return Packs()
        stamp, kept = [instruction_set(), *map(version, self.tensors)], self.kept
        if kept is not None and kept.stamp == stamp and kept.are_current(exact):
            return kept
        packs = Packs(stamp)
        if not exact or self.latest == stamp:
            packs.keep(self, exact)
            self.kept = packs
        else:
            self.kept = None
        self.latest = stamp
        return packs


def _are_counted(tensors):
    """Whether PyTorch counts the changes of all tensors, which are the same in every call."""
    for w in tensors:
        if type(w) is not torch.nn.Parameter or w.is_inference() or not w.is_contiguous():
            return False
    return True


class Packs:
    """The packed weights of the passes of one call, or of several calls if they are kept.

    Parameters
    ----------
    stamp : list, optional
        The instruction set and the versions of the weights.
    """

    __slots__ = "stamp", "is_kept", "samples", "exact", "module", "_forward", "_backward"

    def __init__(self, stamp=None):
        self.stamp, self.is_kept = stamp, False
        self._forward = self._backward = self.module = None
        self.samples: Any = None
        self.exact: Any = None

    def keep(self, weights, exact):
        """Note the values of the weights, before they are packed: another thread may change them."""
        self.is_kept, self.samples = True, Samples(weights.arrays, FEWEST_SAMPLES)
        if exact:
            self.exact = Samples(weights.arrays, FEWEST_SAMPLES, MOST_COMPARED_BYTES)

    def are_current(self, exact):
        """Whether the weights have the values they had."""
        samples = self.exact if exact else self.samples
        return samples is not None and not samples.have_changed()

    def forward(self, weights):
        """The weights packed for forward; for `done` after the pass."""
        packed = self._forward
        if packed is None:
            packed = weights.arrangement.stack.pack(weights.groups, False)
            if self.is_kept:
                self._forward, (_, *versions) = packed, self.stamp
                self.module = PackedModule(packed, versions, self.samples, self.exact)
        return packed

    def backward(self, weights, input_gradient):
        """The weights packed for backward, with d_x or without; for `done` after the pass."""
        packed, has_input = self._backward or (None, False)
        if packed is None or input_gradient and not has_input:
            packed = weights.arrangement.stack.pack(weights.groups, True, input_gradient)
            if self.is_kept:
                self._backward = packed, input_gradient
        return packed

    def done(self, packed):
        """Give the memory of packed weights back that are not kept."""
        if not self.is_kept:
            POOL.give_back_all(packed)


# The computation of PyTorch itself, for derivatives of derivatives and for batches of gradients


def _by_torch(arrangement, x, batch_sizes, states, weights, dropout):
    """output and state_n, as PyTorch computes them, with the masks of this dropout."""
    bidirectional = len(arrangement.stack.directions) == 2
    kernel, is_lstm = TORCH_KERNELS[arrangement.mode], arrangement.mode == "LSTM"
    rows = (x,) if batch_sizes is None else (x, batch_sizes)
    last = () if batch_sizes is not None else (False,)

    def run(rows, states, weights, num_layers):
        given = tuple(states) if is_lstm else states[0]
        return kernel(*rows, given, weights, arrangement.bias, num_layers, 0.0, False, bidirectional, *last)

    if dropout is None:
        return run(rows, states, list(weights), arrangement.stack.num_layers)
    D, n, after = 1 + bidirectional, arrangement.per_direction, []
    for layer in range(arrangement.stack.num_layers):
        if layer:
            rows = (rows[0] * from_numpy(dropout.mask(layer, 0, rows[0])) * dropout.scale, *rows[1:])
        one = [s[D * layer : D * (layer + 1)] for s in states]
        output, *state_n = run(rows, one, list(weights[D * n * layer : D * n * (layer + 1)]), 1)
        rows = (output, *rows[1:])
        after.append(state_n)
    return (rows[0], *[torch.cat(of_layers) for of_layers in zip(*after)])


def _differentiable_backward(arrangement, batch_sizes, dropout, needed, tensors, states, gradients):
    """The gradients with respect to the tensors (x, states, weights) that are needed, by operators of PyTorch."""
    with torch.enable_grad():
        # Views: a tensor that is given twice has two gradients.
        tensors = [tensor.view_as(tensor) for tensor in tensors]
        x, given, weights = tensors[0], tensors[1 : 1 + states], tensors[1 + states :]
        if not given:
            B = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
            given = [x.new_zeros(arrangement.stack.count, B, width) for width in arrangement.stack.widths]
        results = _by_torch(arrangement, x, batch_sizes, given, weights, dropout)
    pairs = [(result, d) for result, d in zip(results, gradients) if d is not None and result.requires_grad]
    wanted = [tensor for tensor, need in zip(tensors, needed) if need]
    outputs, d_outputs = zip(*pairs)
    create_graph = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(outputs, wanted, d_outputs, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needed]


def _are_batched(gradients):
    """Whether gradients are batches of gradients, as of vmap over a backward pass."""
    return _are_functorch_transforms_active() or any(map(is_legacy_batchedtensor, gradients))


# Eager mode


class Layers(torch.autograd.Function):
    """All layers of a module over a batch in order of time, (T, B, I), or over the rows of a PackedSequence."""

    @staticmethod
    def forward(ctx, call, x, *tensors):
        weights, batch_sizes, dropout, states = call
        packs = weights.packs(True)
        output, state_n, reserve = _forward(weights, packs, x, batch_sizes, tensors[:states], dropout)
        ctx.call = *call, packs
        ctx.save_for_backward(from_numpy(reserve), x, *tensors)
        ctx.set_materialize_grads(False)
        return tuple(map(from_numpy, (output, *state_n)))

    @staticmethod
    @_borrows
    def backward(ctx, *gradients):
        weights, batch_sizes, dropout, states, packs = ctx.call
        reserve, x, *others = ctx.saved_tensors
        needed, given, tensors = ctx.needs_input_grad[1:], others[:states], others[states:]
        defined = [d for d in gradients if d is not None]
        if not defined:
            return (None,) * (1 + len(needed))
        if torch.is_grad_enabled() or _are_batched(defined):
            found = _differentiable_backward(
                weights.arrangement, batch_sizes, dropout, needed, [x, *others], states, gradients
            )
            return (None, *found)
        if not weights.are_at(tensors):  # they have other memory, or hooks of saved tensors have made others
            if tuple([tuple(w.shape) for w in tensors]) != weights.shapes:
                raise RuntimeError("a weight has another shape than in the forward pass")
            weights, packs = Weights(weights.arrangement, tensors), Packs()
        packed = packs.backward(weights, needed[0])
        d_x, d_state_0, d_weights = _backward(
            weights, packed, reserve.numpy(), x, batch_sizes, given, dropout, gradients, needed[0]
        )
        packs.done(packed)
        d_x = None if d_x is None else from_numpy(d_x)
        # PyTorch ignores the gradients of tensors that need none.
        return None, d_x, *map(from_numpy, (*d_state_0[:states], *d_weights))

    @classmethod
    def run(cls, *arguments):
        """`apply` without the checks for torch.func, which `_are_usual` and `_reason` have made."""
        return super(torch.autograd.Function, cls).apply(*arguments)


# Operators, for tracing


ARGUMENTS = (
    "Tensor x, Tensor? batch_sizes, Tensor[] state, Tensor[] weights, str mode, int num_layers, bool bidirectional, "
    "float dropout, Tensor? seed"
)
GROUP_ROWS = 16  # the bytes of a reserve are proportional to the rows if these are a multiple of it


def _arrangement_of(x, state, weights, mode, num_layers, bidirectional):
    """The Arrangement of an operator's arguments, after a check of all shapes but those of x and batch_sizes."""
    if mode not in TORCH_KERNELS:
        raise ValueError(f"mode: expected one of {', '.join(TORCH_KERNELS)}, got {mode!r}")
    count = num_layers * (1 + bidirectional)
    per_direction = len(weights) // count if count > 0 else 0
    if per_direction not in (2, 3, 4, 5) or len(weights) != per_direction * count:
        raise ValueError(f"weights: {len(weights)} tensors are not those of {count} directions of layers")
    gates = len(SPECS[mode.partition("_")[0].lower()].gates)
    H, P = int(weights[0].shape[0]) // gates, int(weights[1].shape[-1])
    proj_size = P if per_direction % 2 else 0
    sizes = mode, int(x.shape[-1]), H, proj_size, num_layers, bidirectional, per_direction >= 4, weights[0].dtype
    arrangement = _arrangement(*sizes)
    found = tuple([tuple([int(n) for n in w.shape]) for w in weights])
    if found != arrangement.shapes:
        raise ValueError(f"weights: expected the shapes {arrangement.shapes}, got {found}")
    if len(state) != len(arrangement.stack.widths):
        raise ValueError(f"state: expected {len(arrangement.stack.widths)} tensors, got {len(state)}")
    return arrangement


def _check_batch(arrangement, x, batch_sizes, state):
    """Refuse shapes and dtypes that the kernels would not see."""
    if x.dim() != (3 if batch_sizes is None else 2):
        raise ValueError(f"x: expected {3 if batch_sizes is None else 2} axes, got {x.dim()}")
    if batch_sizes is not None and not _valid_batch_sizes(batch_sizes, x.shape[0]):
        raise ValueError("batch_sizes: expected positive numbers that never increase and whose sum is the rows of x")
    B = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
    for tensor, width in zip(state, arrangement.stack.widths):
        if tuple(tensor.shape) != (arrangement.stack.count, B, width):
            expected = arrangement.stack.count, B, width
            raise ValueError(f"state: expected {expected}, got {tuple(tensor.shape)}")
    if any(tensor.dtype != x.dtype for tensor in state) or NUMPY_DTYPES.get(x.dtype) != arrangement.stack.dtype:
        raise TypeError("x, state, weights: expected the same dtype, float32 or float64")


def _checked(x, batch_sizes, state, weights, mode, num_layers, bidirectional, dropout, seed):
    """The Arrangement and the Dropout of an operator's arguments."""
    arrangement = _arrangement_of(x, state, weights, mode, num_layers, bidirectional)
    _check_batch(arrangement, x, batch_sizes, state)
    return arrangement, Dropout(dropout, int(seed)) if dropout and num_layers > 1 else None


@lru_cache(maxsize=256)
def _group_bytes(arrangement):
    """The bytes of the reserve of GROUP_ROWS rows."""
    stack = arrangement.stack
    weights = arrangement.grouped([np.zeros(shape, stack.dtype) for shape in arrangement.shapes])
    return stack.reserve_bytes(stack.pack(weights, False), padded(GROUP_ROWS, 1))


def _reserve_bytes(arrangement, rows):
    """The bytes of the reserve of an operator: a formula of the rows, which may be a symbol."""
    return (rows + GROUP_ROWS - 1) // GROUP_ROWS * _group_bytes(arrangement)


def _rows(x, batch_sizes):
    """The rows of x: its time steps of all sequences."""
    return x.shape[0] if batch_sizes is not None else x.shape[0] * x.shape[1]


def _results(arrangement, output, state_n):
    """output, h_n and c_n as tensors, the last without elements where the cell has none."""
    absent = [np.empty(0, arrangement.stack.dtype)] * (2 - len(state_n))
    return [from_numpy(array) for array in (output, *state_n, *absent)]


def _operator_forward(x, batch_sizes, state, weights, *options):
    arrangement, dropout = _checked(x, batch_sizes, state, weights, *options)
    output, state_n, exact = _forward(Weights(arrangement, weights), Packs(), x, batch_sizes, state, dropout)
    reserve = np.zeros(_reserve_bytes(arrangement, _rows(x, batch_sizes)), np.uint8)
    reserve[: exact.size] = exact
    return (*_results(arrangement, output, state_n), from_numpy(reserve))


def _operator_infer(x, batch_sizes, state, weights, *options):
    arrangement, dropout = _checked(x, batch_sizes, state, weights, *options)
    output, state_n = _infer(Weights(arrangement, weights), Packs(), x, batch_sizes, state, dropout)
    return tuple(_results(arrangement, output, state_n))


@_borrows
def _operator_backward(reserve, d_output, d_h_n, d_c_n, x, batch_sizes, state, weights, *options):
    options, input_gradient = options[:-1], options[-1]
    arrangement, dropout = _checked(x, batch_sizes, state, weights, *options)
    weights, packs, gradients = Weights(arrangement, weights), Packs(), (d_output, d_h_n, d_c_n)[: 1 + len(state)]
    packed = packs.backward(weights, input_gradient)
    exact = reserve.numpy()[: arrangement.stack.reserve_bytes(packed, _layout(x, batch_sizes))]
    d_x, d_state_0, d_weights = _backward(
        weights, packed, exact, x, batch_sizes, state, dropout, gradients, input_gradient
    )
    packs.done(packed)
    d_x = np.empty(0, arrangement.stack.dtype) if d_x is None else d_x
    return [from_numpy(d) for d in (d_x, *d_state_0, *d_weights)]


def _fake_infer(x, batch_sizes, state, weights, mode, num_layers, bidirectional, dropout, seed):
    width = (1 + bidirectional) * state[0].shape[-1]
    after = [torch.empty_like(s, memory_format=torch.contiguous_format) for s in state]
    return (x.new_empty(*x.shape[:-1], width), *after, *[x.new_empty(0)] * (2 - len(state)))


def _fake_forward(x, batch_sizes, state, weights, mode, num_layers, bidirectional, dropout, seed):
    arrangement = _arrangement_of(x, state, weights, mode, num_layers, bidirectional)
    results = _fake_infer(x, batch_sizes, state, weights, mode, num_layers, bidirectional, dropout, seed)
    return (*results, x.new_empty(_reserve_bytes(arrangement, _rows(x, batch_sizes)), dtype=torch.uint8))


def _fake_backward(reserve, d_output, d_h_n, d_c_n, x, batch_sizes, state, weights, *options):
    d_x, *found = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, *state, *weights)]
    return [d_x if options[-1] else x.new_empty(0), *found]


def _keep_for_operator(ctx, inputs, output):
    x, batch_sizes, state, weights, *ctx.options, seed = inputs
    ctx.states = len(state)
    ctx.save_for_backward(output[-1], x, batch_sizes, seed, *state, *weights)


def _operator_gradient(ctx, d_output, d_h_n, d_c_n, d_reserve):
    reserve, x, batch_sizes, seed, *others = ctx.saved_tensors
    state, weights = others[: ctx.states], others[ctx.states :]
    given, needs_d_x = (d_output, d_h_n, d_c_n if ctx.states == 2 else None), ctx.needs_input_grad[0]
    options = *ctx.options, seed, needs_d_x
    d_x, *found = torch.ops.fastrnn.backward(reserve, *given, x, batch_sizes, state, weights, *options)
    gradients = d_x if needs_d_x else None, None, found[: ctx.states], found[ctx.states :]
    return (*gradients, None, None, None, None, None)


def _operator(name, function, fake, schema):
    """Register an operator of the CPU."""
    operator = torch.library.custom_op(f"fastrnn::{name}", function, mutates_args=(), device_types="cpu", schema=schema)
    operator.register_fake(fake)
    return operator


_operator("infer", _operator_infer, _fake_infer, f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
_operator("forward", _operator_forward, _fake_forward, f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)")
_operator(
    "backward",
    _operator_backward,
    _fake_backward,
    f"(Tensor reserve, Tensor? d_output, Tensor? d_h_n, Tensor? d_c_n, {ARGUMENTS}, bool input_gradient) -> Tensor[]",
)
torch.library.register_autograd("fastrnn::forward", _operator_gradient, setup_context=_keep_for_operator)


# The modules

_warned: set[str] = set()


def _warn_once(reason):
    """Warn that torch.nn computes, once for each reason."""
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"fastrnn.torch: torch.nn computes this module: {reason}", stacklevel=7)


def _are_usual(tensors, dtype):
    """Whether tensors are plain ones of the CPU and of this dtype, and no mode of PyTorch is on that needs torch.nn."""
    return TENSORS.are_plain(tensors, dtype) and not _has_mode()


def _has_mode():
    """Whether a mode of PyTorch is on that needs torch.nn or an operator."""
    return (
        dispatch_modes() > 0
        or _is_any_autocast_enabled()
        and torch.is_autocast_enabled("cpu")
        or _is_tracing()
        or _are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )


def _is_traced():
    """Whether PyTorch records the operators that run."""
    return torch.compiler.is_compiling() or dispatch_modes() > 0


def _reason(tensors, traced):
    """Why the kernels cannot compute with these tensors of one dtype, or None."""
    for tensor in tensors:
        if not tensor.is_cpu:
            return f"it has tensors on {tensor.device.type}"
    if tensors[0].dtype not in NUMPY_DTYPES:
        return f"it has tensors of {tensors[0].dtype}"
    if traced:
        return None
    for tensor in tensors:
        if type(tensor) not in PLAIN_TENSORS:
            return f"it has a {type(tensor).__name__}"
        if tensor.layout is not torch.strided or tensor.is_nested:
            return f"it has a tensor of {'torch.nested' if tensor.is_nested else tensor.layout}"
    if torch.jit.is_tracing():
        return "torch.jit.trace records it"
    if _are_functorch_transforms_active():
        return "a transform of torch.func is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return None


def _valid_batch_sizes(batch_sizes, rows):
    """Whether batch_sizes describe so many rows."""
    return PackedSequences.of_batch_sizes(batch_sizes.numpy().astype(np.intp), rows) is not None


@_disable_dynamo  # torch.compiler.disable, which imports Dynamo only when it is called
def _outside_of_graphs(module, input, hx):
    """The forward of a module in eager mode, between two graphs of torch.compile."""
    return module.forward(input, hx)


class Recurrent(torch.nn.RNNBase):
    """The base of the modules: a forward that calls the kernels, or that of torch.nn."""

    def forward(self, input, hx=None):
        """Run all layers, as the namesake in torch.nn."""
        if torch.compiler.is_dynamo_compiling():
            if isinstance(input, PackedSequence):
                return _outside_of_graphs(self, input, hx)  # the number of its sequences is a value of a tensor
        elif get_eval_frame_callback() is not None:  # Dynamo refuses this module and would trace its functions
            return _outside_of_graphs(self, input, hx)
        else:
            results = (self._plain_with_graph if torch.is_grad_enabled() else self._infer_plain)(input, hx)
            if results is not None:
                return results
        is_packed = isinstance(input, PackedSequence)
        x, batch_sizes = (input.data, input.batch_sizes) if is_packed else (input, None)
        if hx is None:
            states = []
        elif self.mode == "LSTM":
            states = list(hx) if isinstance(hx, (tuple, list)) and hx else [hx]
        else:
            states = [hx]
        traced = _is_traced()
        weights = self._traced_weights(x, states) if traced else self._weights(x, states)
        if weights is None or not self._fit(x, batch_sizes, states, traced):
            if torch.compiler.is_dynamo_compiling():
                return _outside_of_graphs(self, input, hx)
            return NAMESAKES[self.mode].forward(self, input, hx)
        run = self._run_operator if traced else self._run
        if batch_sizes is not None:
            return self._of_packed(run, input, states, weights)
        if x.dim() == 2:
            output, *state_n = run(x.unsqueeze(1), None, [s.unsqueeze(1) for s in states], weights)
            output, state_n = output.squeeze(1), [s.squeeze(1) for s in state_n]
        elif self.batch_first:
            output, *state_n = run(x.transpose(0, 1), None, states, weights)
            output = output.transpose(0, 1)
        else:
            output, *state_n = run(x, None, states, weights)
        return output, tuple(state_n) if self.mode == "LSTM" else state_n[0]

    def _plain_with_graph(self, input, hx):
        """The results of a call with plain tensors some of which need gradients; None for the longer way."""
        known = self.__dict__.get("_known")
        if known is None or _has_mode() or self.training and self._dropout():
            return None
        found = known.arguments(self._parameters, self._flat_weights_names, input, hx, self.batch_first)
        if found is None:
            return None
        (x, *others), states = found
        if self.batch_first:
            x = x.transpose(0, 1)
        output, *state_n = Layers.run((known, None, None, states), x, *others)
        if self.batch_first:
            output = output.transpose(0, 1)
        return output, tuple(state_n) if len(state_n) > 1 else state_n[0]

    def _infer_plain(self, input, hx):
        """The results of a call with plain tensors without gradients, if packed weights are kept; None for another."""
        known = self.__dict__.get("_known")
        kept = None if known is None else known.kept
        if kept is None or kept.module is None or _has_mode() or self.training and self._dropout():
            return None
        x, packing = (input[0], input[1:]) if isinstance(input, PackedSequence) else (input, None)
        before = borrow_threads(True)
        try:
            results = kept.module.infer(
                known, self._parameters, self._flat_weights_names, x, packing, hx, self.batch_first, self.training,
                most_threads(), instruction_set(), POOL,
            )  # fmt: skip
        finally:
            borrow_threads(before)
        return results if packing is None or results is None else (PackedSequence(results[0], *packing), results[1])

    def _of_packed(self, run, input, states, weights):
        """The results for a PackedSequence."""
        x, batch_sizes, order, unsorted = input
        if order is not None:
            states = [s.index_select(1, order) for s in states]
        output, *state_n = run(x, batch_sizes, states, weights)
        if unsorted is not None:
            state_n = [s.index_select(1, unsorted) for s in state_n]
        output = PackedSequence(output, batch_sizes, order, unsorted)
        return output, tuple(state_n) if self.mode == "LSTM" else state_n[0]

    def _weights(self, x, states):
        """The Weights of a call in eager mode, or None for torch.nn to compute it or to refuse its arguments."""
        known = self.__dict__.get("_known")
        if known is not None:
            if not known.are_those_of(self._parameters, self._flat_weights_names):
                self._forget()
            elif _are_usual((x, *states), known.dtype):
                return known
        tensors: list[Any] = [getattr(self, name, None) for name in self._flat_weights_names]
        if self._is_refused([x, *states, *tensors], False):
            return None
        arrangement = self._arrangement(x.dtype)
        if tuple([w.shape for w in tensors]) != arrangement.shapes:
            return None
        weights = Weights(arrangement, tensors)
        if weights.are_counted:
            self.__dict__["_known"] = weights
        return weights

    def _traced_weights(self, x, states):
        """The weights as tensors for an operator, or None as from `_weights`."""
        tensors = [getattr(self, name, None) for name in self._flat_weights_names]
        return None if self._is_refused([x, *states, *tensors], True) else tensors

    @staticmethod
    def _is_refused(tensors, traced):
        """Whether torch.nn has to do with these arguments; says why if no kernel can compute it."""
        dtype = getattr(tensors[0], "dtype", None)
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
            return True
        autocast = torch.is_autocast_enabled("cpu")
        if not autocast and any(tensor.dtype != dtype for tensor in tensors):
            return True
        reason = "autocast is enabled" if autocast else _reason(tensors, traced)
        if reason is not None and not torch.compiler.is_compiling():
            _warn_once(reason)
        return reason is not None

    def _fit(self, x, batch_sizes, states, traced):
        """Whether the shapes of x, batch_sizes and the states are those that the module needs."""
        axes, shape = x.dim(), x.shape
        if axes not in (2, 3) or batch_sizes is not None and axes != 2 or shape[-1] != self.input_size:
            return False
        if states:
            if batch_sizes is None and axes == 2:
                expected = [(L, width) for L, _, width in self._state_shapes(1)]
            else:
                expected = self._state_shapes(self._sequences(x, batch_sizes, self.batch_first))
            if [tuple(s.shape) for s in states] != expected:
                return False
        if traced:
            return True
        return x.numel() > 0 and (batch_sizes is None or _valid_batch_sizes(batch_sizes, shape[0]))

    @staticmethod
    def _sequences(x, batch_sizes, batch_first):
        """The number of sequences of x, which has three axes or batch_sizes."""
        return x.shape[0 if batch_first else 1] if batch_sizes is None else int(batch_sizes[0])

    def _state_shapes(self, B):
        """The shapes of the states of so many sequences."""
        L = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [(L, B, self.proj_size or self.hidden_size)]
        return [*shapes, (L, B, self.hidden_size)] if self.mode == "LSTM" else shapes

    def _arrangement(self, dtype):
        proj_size, L, D = self.proj_size, self.num_layers, bool(self.bidirectional)
        return _arrangement(self.mode, self.input_size, self.hidden_size, proj_size, L, D, bool(self.bias), dtype)

    def _dropout(self):
        """The probability of dropout in this call."""
        return self.dropout if self.num_layers > 1 and self.training else 0.0

    def _run(self, x, batch_sizes, states, weights):
        """output and the states after, of x in order of time."""
        dropout = self._dropout()
        noise = Dropout(dropout, int(_seed())) if dropout else None
        if torch.is_grad_enabled():
            tensors = (x, *states, *weights.tensors)
            if any(map(requires_grad, tensors)):
                return Layers.run((weights, batch_sizes, noise, len(states)), *tensors)
        output, state_n = _infer(weights, weights.packs(self.training), x, batch_sizes, states, noise)
        return tuple(map(from_numpy, (output, *state_n)))

    def _run_operator(self, x, batch_sizes, states, weights):
        """`_run` by an operator, which PyTorch records."""
        if not states:
            states = [x.new_zeros(shape) for shape in self._state_shapes(self._sequences(x, batch_sizes, False))]
        needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *states, *weights))
        operator, dropout = torch.ops.fastrnn.forward if needs_grad else torch.ops.fastrnn.infer, self._dropout()
        sizes = self.mode, self.num_layers, bool(self.bidirectional), dropout
        results = operator(x, batch_sizes, states, weights, *sizes, _seed() if dropout else None)
        return results[: 1 + len(states)]

    def _forget(self):
        """Drop the arrays of the weights and the packed weights."""
        self.__dict__.pop("_known", None)

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def train(self, mode=True):
        """Set training mode, or eval mode; packed weights that are kept between calls are dropped."""
        self._forget()
        return super().train(mode)

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_known", None)
        return state


def _seed():
    """A seed of dropout from PyTorch's generator."""
    return torch.randint(0, 2**63 - 1, (), device="cpu")


class LSTM(Recurrent, torch.nn.LSTM):
    """torch.nn.LSTM, computed by the kernels of fastrnn."""


class GRU(Recurrent, torch.nn.GRU):
    """torch.nn.GRU, computed by the kernels of fastrnn."""


class RNN(Recurrent, torch.nn.RNN):
    """torch.nn.RNN, computed by the kernels of fastrnn."""


class WholeGraphLSTM(Recurrent):
    """`LSTM`, but no instance of torch.nn.LSTM: Dynamo refuses to trace these."""

    check_forward_args = torch.nn.LSTM.check_forward_args
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    permute_hidden = torch.nn.LSTM.permute_hidden


class WholeGraphGRU(Recurrent):
    """`GRU`, but no instance of torch.nn.GRU."""


class WholeGraphRNN(Recurrent):
    """`RNN`, but no instance of torch.nn.RNN."""


NAMESAKES = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN_TANH": torch.nn.RNN, "RNN_RELU": torch.nn.RNN}
FAST = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}
WHOLE_GRAPH = {torch.nn.LSTM: WholeGraphLSTM, torch.nn.GRU: WholeGraphGRU, torch.nn.RNN: WholeGraphRNN}
ORIGINAL = {fast: original for classes in (FAST, WHOLE_GRAPH) for original, fast in classes.items()}


# Of subclasses: the names that the forward of torch.nn and that of `Recurrent` use.
# A forward of their own stays, and its super().forward is that of `Recurrent`.
MAY_BE_OVERRIDDEN = {"forward", "reset_parameters", "extra_repr", "train", "all_weights"}
USED = {
    *(name for cls in (Recurrent, torch.nn.RNNBase, *FAST) for name in vars(cls) if not name.startswith("__")),
    "mode", "input_size", "hidden_size", "proj_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
    "training", "_parameters", "_flat_weights", "_flat_weights_names", "_known", "_original",
    "__new__", "__init_subclass__", "__getattr__", "__getattribute__", "__setattr__", "__delattr__",
    "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__",
} - MAY_BE_OVERRIDDEN  # fmt: skip
PLAIN_BASES = {"abc", "builtins", "typing"}  # the modules of classes such as ABC and Generic


def _original(cls):
    """The class from which `replace` has made this one, or the class itself."""
    return ORIGINAL.get(cls) or vars(cls).get("_original") or cls


def _unfit_subclass(module, cls, whole_graph):
    """Why the class of a module of torch.nn's, derived from one of FAST, cannot be derived further, or None."""
    name = cls.__name__
    if torch.nn.utils.parametrize.is_parametrized(module):
        return f"{name} is a subclass with parametrizations"
    base = next((base for base in FAST if issubclass(cls, base)), None)
    if base is None or issubclass(cls, Recurrent):
        return f"{name} is a subclass of {'fastrnn.torch' if issubclass(cls, Recurrent) else 'torch.nn.RNNBase'}"
    if whole_graph:
        return f"{name} is a subclass, which Dynamo does not trace"
    if type(cls) not in (type, ABCMeta):
        return f"{name} is a subclass with a metaclass, {type(cls).__name__}"
    used = USED.union(module._flat_weights_names)
    for one in cls.__mro__:
        if one in base.__mro__ or one.__module__ in PLAIN_BASES:
            continue
        if one.__module__.partition(".")[0] == "torch":
            return f"{name} is a subclass of {one.__name__}"
        overridden = sorted(used & vars(one).keys())
        if overridden:
            return f"{name} is a subclass that overrides {overridden[0]}"
        codes = [getattr(value, "__code__", None) for value in vars(one).values()]
        if any(code is not None and "_flat_weights" in code.co_names for code in codes):
            return f"{name} is a subclass that uses _flat_weights"  # which `Recurrent` does not read
        if "forward" in vars(one) and not _calls_super(vars(one)["forward"]):
            return f"{name} is a subclass that overrides forward, without super().forward"
    return _unfit(module)


def _calls_super(function):
    """Whether a function calls super().forward; otherwise the kernels would compute nothing."""
    code = getattr(function, "__code__", None)
    return code is not None and "__class__" in code.co_freevars and {"super", "forward"} <= {*code.co_names}


def _derived(cls):
    """The class of modules of a subclass of torch.nn.LSTM, GRU or RNN that run the kernels."""
    for one in type.__subclasses__(cls):
        if vars(one).get("_original") is cls:
            return one

    def body(names):
        names["__module__"], names["__doc__"] = __name__, f"{cls.__name__}, computed by the kernels of fastrnn."
        names["_original"], names["__reduce_ex__"] = cls, _reduced

    # The bases in this order, so that the forward of `Recurrent` lies between that of `cls` and that of torch.nn, and
    # because a module can only be given a class with the same layout in memory.
    base = next(base for base in FAST if issubclass(cls, base))
    return types.new_class(cls.__name__, (cls, FAST[base]), exec_body=body)


def _reduced(self, protocol):
    """For copies and pickles of modules of a derived class, which has no name that can be imported."""
    return _new, (self._original,), self.__getstate__()


def _new(cls):
    """A module of the class derived from `cls`, without attributes."""
    derived = _derived(cls)
    return derived.__new__(derived)


def _unfit_kind(module):
    """Why a module that is not of torch.nn.RNNBase is left, if it is recurrent."""
    if isinstance(module, torch.nn.RNNCellBase):
        return f"{type(module).__name__} is a cell"
    return unfit_kind(module)


class Replaced(NamedTuple):
    """The result of `replace`.

    Parameters
    ----------
    replaced : list of str
        The names of the modules that are now of fastrnn.torch; "" is the model itself.
    left : dict of str to str
        The names of the other recurrent modules, and why they were not replaced.
    """

    replaced: list[str]
    left: dict[str, str]


def replace(model: torch.nn.Module, *, whole_graph: bool = False) -> Replaced:
    """Turn the recurrent modules of a model into modules of fastrnn.torch, in place.

    Only the class of a module changes: the module, its parameters, hooks and attributes stay the same objects, and so
    do optimizers and the keys of its state_dict. A module of a subclass of torch.nn.LSTM, GRU or RNN gets a class that
    is derived from this subclass, if the subclass overrides nothing that the forward of torch.nn uses; a `forward` of
    its own stays, if it calls ``super().forward``, which then runs the kernels. Other subclasses, cells, TorchScript,
    quantized modules, and modules that are not on the CPU in float32 or float64, are left as they are.

    Parameters
    ----------
    model : torch.nn.Module
        It may be a recurrent module itself.
    whole_graph : bool, default False
        Whether torch.compile can trace the modules with the rest of the model, as ``fullgraph=True`` needs. Such a
        module is an instance of torch.nn.RNNBase, but not of torch.nn.LSTM, GRU or RNN, at which Dynamo breaks the
        graph. Subclasses are left. A model that has already been compiled needs ``torch._dynamo.reset()`` before.

    Returns
    -------
    replaced : Replaced
        The names of the modules that were replaced, and of those that were left, with the reason.

    Raises
    ------
    TypeError
        If `model` is no torch.nn.Module.

    See Also
    --------
    restore

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LSTM(4, 5))
    >>> fastrnn.torch.replace(model)
    Replaced(replaced=['1'], left={})
    >>> type(model[1])
    <class 'fastrnn.torch.LSTM'>
    """
    whole = flag("whole_graph", whole_graph)
    replaced, left, classes = [], {}, WHOLE_GRAPH if whole else FAST
    for name, module in _modules(model):
        original = _original(type(module))
        if not isinstance(module, torch.nn.RNNBase):
            unfit = _unfit_kind(module)
            if unfit is not None:
                left[name] = unfit
            continue
        if type(module) is classes.get(original) or original is not type(module) and original not in FAST and not whole:
            continue
        unfit = _unfit(module) if original in classes else _unfit_subclass(module, original, whole)
        if unfit is not None:
            left[name] = unfit
            continue
        module.__class__ = classes.get(original) or _derived(original)
        replaced.append(name)
    return Replaced(replaced, left)


def restore(model: torch.nn.Module) -> list[str]:
    """Turn the modules of fastrnn.torch in a model into their namesakes of torch.nn, in place.

    Parameters
    ----------
    model : torch.nn.Module
        It may be a module of fastrnn.torch itself.

    Returns
    -------
    restored : list of str
        The names of the modules that were turned back.

    Raises
    ------
    TypeError
        If `model` is no torch.nn.Module.

    See Also
    --------
    replace
    """
    restored = []
    for name, module in _modules(model):
        original = _original(type(module))
        if original is not type(module):
            module._forget()
            module.__class__ = original
            restored.append(name)
    return restored


def _modules(model):
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return list(model.named_modules())


def _unfit(module):
    """Why a module's parameters do not fit the kernels, or None."""
    if "forward" in module.__dict__:
        return "its forward has been replaced by another function"
    for parameter in module.parameters():
        if parameter.device.type != "cpu":
            return f"its parameters are on {parameter.device.type}"
        if parameter.dtype not in NUMPY_DTYPES:
            return f"its parameters are of {parameter.dtype}"
    return None
