# The types of _core.pyx, whose docstrings describe shapes and meaning.

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base

ALIGNMENT: int
MOST_CALLS: int
WEIGHTS: tuple[str, ...]

_Weights: TypeAlias = tuple[NDArray[Any] | None, ...]
_States: TypeAlias = list[NDArray[Any]]

def instruction_sets() -> dict[str, bool]: ...
def compiler() -> str: ...
def has_threads() -> bool: ...
def processors() -> tuple[int, int]: ...
def team_policy(policy: str) -> None: ...
def set_lender(start: int, end: int, most: int) -> None: ...
def borrow_threads(on: bool) -> bool: ...
def borrowed_shares() -> int: ...
def native(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]: ...

@disjoint_base
class Kernel:
    @property
    def name(self) -> str: ...
    def __init__(
        self,
        name: str,
        recurrent_activation: str = "sigmoid",
        activation: str = "tanh",
        clip: float | None = None,
    ) -> None: ...

@disjoint_base
class Packed:
    @property
    def I(self) -> int: ...  # noqa: E743
    @property
    def H(self) -> int: ...
    @property
    def P(self) -> int: ...
    @property
    def projection(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

NARROW_FORMATS: dict[str, tuple[np.dtype[Any], bool, bool, int]]

def narrow_instructions(isa: str) -> dict[str, list[str]]: ...
def round_weight(
    name: str, weight: NDArray[Any], values: NDArray[Any], scales: NDArray[Any] | None, num_threads: int
) -> None: ...
def pack(
    kernel: Kernel,
    weights: Sequence[_Weights],
    backward: bool,
    num_threads: int,
    isa: str,
    pool: Pool | None = None,
    without_input: int = 0,
) -> list[Packed]: ...

@disjoint_base
class KnownWeights:
    def add(self, spec: Any, options: tuple[Any, ...], reverse: Any, weights: tuple[Any, ...], stack: Any) -> None: ...
    def infer(
        self, spec: Any, arguments: tuple[Any, ...], num_threads: int, isa: str, pool: Pool
    ) -> tuple[NDArray[Any], Any] | None: ...
    def pack(
        self,
        spec: Any,
        options: tuple[Any, ...],
        reverse: Any,
        weights: tuple[Any, ...],
        training: bool,
        num_threads: int,
        isa: str,
        pool: Pool,
        x: Any = None,
        padded: Callable[[int, int], Any] | None = None,
    ) -> Any: ...

def sums(packed: Packed, rows: int) -> NDArray[Any] | None: ...
def saved_bytes(packed: Packed, rows: int) -> int: ...
def saved_arrays(
    packed: Packed, saved: NDArray[np.uint8], rows: int
) -> tuple[NDArray[Any] | None, list[NDArray[Any] | None]]: ...
def padded_bytes(bytes: int) -> int: ...

@disjoint_base
class Buffer: ...

@disjoint_base
class Pool:
    most_bytes: int
    @property
    def nbytes(self) -> int: ...
    def __new__(cls, most_bytes: int) -> Pool: ...
    def __len__(self) -> int: ...
    def after_fork(self) -> None: ...
    def clear(self) -> None: ...
    def array(self, shape: tuple[int, ...], columns: int, dtype: np.dtype[Any]) -> NDArray[Any]: ...
    def bytes(self, size: int) -> NDArray[np.uint8]: ...
    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]: ...
    def lease(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
    def give_back(self, buffer: NDArray[Any] | Packed | None) -> None: ...
    def give_back_all(self, buffers: Sequence[NDArray[Any] | Packed | None]) -> None: ...

@final
class Lease: ...

@disjoint_base
class TapeMemory:
    @property
    def buffers(self) -> list[Any]: ...
    def __init__(self, buffers: list[Any], pool: Pool) -> None: ...

@disjoint_base
class Sections:
    def __init__(self, buffer: NDArray[np.uint8], clear: bool = False) -> None: ...
    def saved(self, packed: Packed, rows: int) -> NDArray[np.uint8]: ...
    def array(self, shape: tuple[int, ...], columns: int, dtype: np.dtype[Any]) -> NDArray[Any]: ...

def zero_states(L: int, B: int, widths: tuple[int, ...], dtype: np.dtype[Any]) -> _States: ...
def empty_states(states: _States) -> _States: ...

@disjoint_base
class Workspace: ...

@disjoint_base
class ForwardCall:
    @property
    def packed(self) -> Packed: ...
    @property
    def index(self) -> int: ...
    @property
    def x(self) -> NDArray[Any]: ...
    @property
    def offsets(self) -> NDArray[np.intp] | None: ...
    @property
    def state_0(self) -> _States: ...
    @property
    def state_n(self) -> _States: ...
    @property
    def output(self) -> NDArray[Any]: ...
    @property
    def saved(self) -> NDArray[np.uint8] | None: ...
    @property
    def resets(self) -> NDArray[np.bool_] | None: ...
    def __init__(
        self,
        packed: Packed,
        index: int,
        x: NDArray[Any],
        offsets: NDArray[np.intp] | None,
        state_0: _States,
        state_n: _States,
        output: NDArray[Any],
        saved: NDArray[np.uint8] | None = None,
        resets: NDArray[np.bool_] | None = None,
    ) -> None: ...

@disjoint_base
class BackwardCall:
    @property
    def packed(self) -> Packed: ...
    @property
    def index(self) -> int: ...
    @property
    def x(self) -> NDArray[Any]: ...
    @property
    def offsets(self) -> NDArray[np.intp] | None: ...
    @property
    def state_0(self) -> _States: ...
    @property
    def saved(self) -> NDArray[np.uint8]: ...
    @property
    def d_output(self) -> NDArray[Any] | None: ...
    @property
    def d_state_n(self) -> list[Any]: ...
    @property
    def d_x(self) -> NDArray[Any] | None: ...
    @property
    def d_state_0(self) -> _States: ...
    @property
    def d_weights(self) -> _Weights: ...
    @property
    def rows_after(self) -> int: ...
    @property
    def rows_before(self) -> int: ...
    @property
    def sums(self) -> NDArray[Any] | None: ...
    @property
    def resets(self) -> NDArray[np.bool_] | None: ...
    def __init__(
        self,
        packed: Packed,
        index: int,
        x: NDArray[Any],
        offsets: NDArray[np.intp] | None,
        state_0: _States,
        saved: NDArray[np.uint8],
        d_output: NDArray[Any] | None,
        d_state_n: list[Any],
        d_x: NDArray[Any] | None,
        d_state_0: _States,
        d_weights: _Weights,
        rows_after: int = 0,
        rows_before: int = 0,
        sums: NDArray[Any] | None = None,
        resets: NDArray[np.bool_] | None = None,
    ) -> None: ...

@disjoint_base
class Inputs:
    @property
    def stack(self) -> Any: ...
    @property
    def layout(self) -> Any: ...
    @property
    def x(self) -> NDArray[Any]: ...
    @property
    def is_private(self) -> bool: ...
    @property
    def batched(self) -> bool: ...
    @property
    def state_0(self) -> _States: ...
    @property
    def shared(self) -> list[bool] | None: ...
    def __init__(
        self,
        stack: Any,
        layout: Any,
        x: NDArray[Any],
        is_private: bool,
        state_0: _States,
        shared: list[bool] | None,
        batched: bool,
    ) -> None: ...

def plain_inputs(stack: Any, x: Any, padded: Callable[[int, int], Any]) -> Inputs | None: ...

@disjoint_base
class PlainCall: ...

@disjoint_base
class Gradients:
    @property
    def d_output(self) -> NDArray[Any] | None: ...
    @property
    def d_state_n(self) -> list[Any]: ...
    @property
    def d_state_0(self) -> _States: ...
    @property
    def d_weights(self) -> list[_Weights]: ...
    def __init__(
        self, d_output: NDArray[Any] | None, d_state_n: list[Any], d_state_0: _States, d_weights: list[_Weights]
    ) -> None: ...

@disjoint_base
class Chain:
    @property
    def layout(self) -> Any: ...
    @property
    def inputs(self) -> list[Any]: ...
    @property
    def state_0(self) -> _States: ...
    @property
    def saved(self) -> list[NDArray[np.uint8]]: ...
    def __init__(self, layout: Any, inputs: list[Any], state_0: _States, saved: list[NDArray[np.uint8]]) -> None: ...

def infer(
    inputs: Inputs, packed: list[Packed], state_n: _States, num_threads: int, pool: Pool
) -> NDArray[Any] | None: ...
def infer_plain(
    stack: Any,
    x: Any,
    state: Any,
    lengths: Any,
    frozen: list[Packed] | None,
    weights: list[_Weights],
    batch_first: bool,
    num_threads: int,
    isa: str,
    pool: Pool,
) -> tuple[NDArray[Any], Any] | None: ...
def infer_step(
    stack: Any,
    x: Any,
    state: Any,
    frozen: list[Packed] | None,
    weights: list[_Weights],
    num_threads: int,
    isa: str,
    pool: Pool,
) -> Any: ...
def forward(calls: list[ForwardCall], stacked: bool, num_threads: int) -> None: ...
def backward(calls: list[BackwardCall], stacked: bool, num_threads: int) -> None: ...
def aligned(reserve: NDArray[np.uint8], pool: Pool) -> NDArray[np.uint8]: ...
def forward_one(
    inputs: Inputs, packed: Packed, num_threads: int, pool: Pool
) -> tuple[NDArray[Any], _States, NDArray[np.uint8]]: ...
def backward_one(
    inputs: Inputs,
    packed: Packed,
    weights: _Weights,
    reserve: NDArray[np.uint8],
    d_output: NDArray[Any] | None,
    d_state_n: list[NDArray[Any] | None],
    input_gradient: bool,
    num_threads: int,
    pool: Pool,
) -> tuple[NDArray[Any] | None, _States, _Weights]: ...

@disjoint_base
class Steps:
    @property
    def _states(self) -> _States: ...
    def __init__(
        self, packed: list[Packed], states: _States, batched: bool, num_threads: Callable[[], int]
    ) -> None: ...
    def step(
        self, x_t: ArrayLike, out: NDArray[Any] | None = None, *, resets: ArrayLike | None = None
    ) -> NDArray[Any]: ...

_C_API: Any

def api_address() -> int: ...

@disjoint_base
class PackedStream:
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...
    def __init__(self, kernel: Kernel, weights: list[_Weights], isa: str) -> None: ...
    def contents(self) -> tuple[bytes, list[dict[str, Any]], int, int]: ...

@disjoint_base
class PackedSequences:
    @property
    def offsets(self) -> NDArray[np.intp]: ...
    @property
    def order(self) -> NDArray[np.intp]: ...
    @staticmethod
    def of(T: int, lengths: NDArray[np.intp]) -> PackedSequences: ...
    @staticmethod
    def of_batch_sizes(
        batch_sizes: NDArray[np.intp], rows: int, order: NDArray[np.intp] | None = None
    ) -> PackedSequences | None: ...
    def __init__(
        self, T: int, offsets: NDArray[np.intp], order: NDArray[np.intp], lengths: NDArray[np.intp]
    ) -> None: ...
    def reordered(self, state: NDArray[Any], back: bool) -> NDArray[Any]: ...
    def pack(self, array: NDArray[Any], rows: NDArray[Any], num_threads: int) -> None: ...
    def pad(self, rows: NDArray[Any], array: NDArray[Any], num_threads: int) -> None: ...
    def reverse(self, rows: NDArray[Any], reversed_rows: NDArray[Any], num_threads: int) -> None: ...

def activate(function: str, x: NDArray[Any], y: NDArray[Any], isa: str) -> None: ...
def linear(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, y: NDArray[Any], num_threads: int, isa: str
) -> None: ...
def linear_backward(
    x: NDArray[Any],
    weight: NDArray[Any],
    d_y: NDArray[Any],
    d_x: NDArray[Any] | None,
    d_weight: NDArray[Any],
    d_bias: NDArray[Any] | None,
    num_threads: int,
    isa: str,
) -> None: ...
def mark_ignored(targets: NDArray[np.int64], C: int, ignored: int) -> tuple[int, int]: ...
def softmax_cross_entropy(
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    factor: float,
    d: NDArray[Any],
    losses: NDArray[np.float64],
    num_threads: int,
    isa: str,
) -> float: ...
def squared_error(
    prediction: NDArray[Any], target: NDArray[Any], factor: float, d: NDArray[Any], num_threads: int, isa: str
) -> float: ...
def sgd_step(
    p: NDArray[Any],
    g: NDArray[Any],
    buffer: NDArray[Any] | None,
    rate: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    is_first: bool,
    num_threads: int,
    isa: str,
) -> None: ...
def adam_step(
    p: NDArray[Any],
    g: NDArray[Any],
    m: NDArray[Any],
    v: NDArray[Any],
    step: int,
    rate: float,
    beta_1: float,
    beta_2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    num_threads: int,
    isa: str,
) -> None: ...
def scale(array: NDArray[Any], factor: float, num_threads: int, isa: str) -> None: ...
def sum_squares(array: NDArray[Any], num_threads: int, isa: str) -> float: ...

@disjoint_base
class Samples:
    def __init__(self, arrays: list[NDArray[Any]], count: int, whole_bytes: int = 0) -> None: ...
    def have_changed(self) -> bool: ...

@disjoint_base
class Tensors:
    def __init__(
        self,
        types: tuple[type, ...],
        dtypes: dict[Any, Any],
        from_numpy: Callable[[NDArray[Any]], Any],
        api: Any = None,
    ) -> None: ...
    def are_plain(self, tensors: tuple[Any, ...], dtype: np.dtype[Any]) -> bool: ...
    def array(self, tensor: Any, dtype: np.dtype[Any]) -> NDArray[Any] | None: ...

@disjoint_base
class ModuleWeights:
    stack: Any
    dtype: np.dtype[Any]
    tensors: list[Any]
    addresses: list[int]
    shapes: tuple[tuple[int, ...], ...]
    def __init__(
        self,
        reader: Tensors,
        stack: Any,
        tensors: list[Any],
        shapes: tuple[tuple[int, ...], ...],
        addresses: list[int],
    ) -> None: ...
    def are_at(self, tensors: list[Any]) -> bool: ...
    def are_those_of(self, parameters: Mapping[str, Any], names: list[str]) -> bool: ...
    def arguments(
        self, parameters: Mapping[str, Any], names: list[str], x: Any, hx: Any, batch_first: bool
    ) -> tuple[tuple[Any, ...], int] | None: ...

@disjoint_base
class PackedModule:
    def __init__(
        self,
        packed: list[Packed],
        versions: list[int],
        samples: Samples,
        exact: Samples | None,
    ) -> None: ...
    def infer(
        self,
        weights: ModuleWeights,
        parameters: Mapping[str, Any],
        names: list[str],
        x: Any,
        packing: tuple[Any, Any, Any] | None,
        hx: Any,
        batch_first: bool,
        exact: bool,
        num_threads: int,
        isa: str,
        pool: Pool,
    ) -> tuple[Any, Any] | None: ...

def fingerprint(array: NDArray[Any]) -> int: ...
