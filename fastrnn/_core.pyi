# What _core.pyx gives to Python; its docstrings tell of shapes and meaning.

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike, NDArray
from typing_extensions import disjoint_base

MOST_CALLS: int

def instruction_sets() -> dict[str, bool]: ...
def compiler() -> str: ...
def has_openmp() -> bool: ...
def tape_columns(cell: str, H: int, projection: int) -> tuple[int, int, int]: ...

@disjoint_base
class Packed:
    @property
    def nbytes(self) -> int: ...

@disjoint_base
class Workspace: ...

def pack(
    cell: str, weights: tuple[Any, ...], backward: bool, num_threads: int, isa: str, spare: Packed | None = None
) -> Packed: ...
def forward(cell: str, calls: list[tuple[Any, ...]], stacked: bool, num_threads: int, isa: str) -> None: ...

@disjoint_base
class Steps:
    _h: NDArray[Any]
    _c: NDArray[Any] | None
    def __init__(
        self,
        packed: list[Packed],
        h: NDArray[Any],
        c: NDArray[Any] | None,
        batched: bool,
        num_threads: Callable[[], int],
    ) -> None: ...
    def step(self, x_t: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]: ...

def backward(calls: list[tuple[Any, ...]], stacked: bool, num_threads: int) -> None: ...
def activate(function: str, x: NDArray[Any], y: NDArray[Any], isa: str) -> None: ...
def fingerprint(array: NDArray[Any]) -> int: ...
