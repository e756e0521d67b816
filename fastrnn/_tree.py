"""One binary tree of sums over the leaves 0..n-1, of which a process may hold any run.

A node (level, index) is the sum of the leaves from ``index << level`` up to ``(index + 1) << level``, or up to n. It is
the sum of the nodes (level - 1, 2 * index) and (level - 1, 2 * index + 1); where the second has no leaves, it is the
first. So the order of all additions follows from n, whoever computes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
Node = tuple[int, int]


def run_of(rank: int, size: int, n: int) -> range:
    """The leaves of one of `size` ranks: runs in the order of the ranks, whose lengths differ by one at most."""
    return range(rank * n // size, (rank + 1) * n // size)


def _highest(level: int, index: int, n: int) -> Node:
    """The highest node with the same leaves."""
    while (1 << level) < n and index % 2 == 0 and (index + 1) << level >= n:
        level, index = level + 1, index // 2
    return level, index


class PartialSums(Generic[Value]):
    """The nodes of a tree of n leaves after some neighbouring nodes have been added, from left to right.

    Parameters
    ----------
    n : int
        The number of leaves of the tree.
    add : function
        ``add(lefts, value)`` returns ``lefts[-1] + (... + (lefts[0] + value))``; there is at least one in `lefts`.
    """

    def __init__(self, n: int, add: Callable[[list[Value], Value], Value]) -> None:
        self._n, self._add = n, add
        self._nodes: list[tuple[Node, Value]] = []

    def push(self, node: Node, value: Value) -> None:
        """Add the next node, and every sum that it completes."""
        level, index = _highest(*node, self._n)
        lefts = []
        while index % 2 and self._nodes and self._nodes[-1][0] == (level, index - 1):
            lefts.append(self._nodes.pop()[1])
            level, index = _highest(level + 1, index // 2, self._n)
        self._nodes.append(((level, index), self._add(lefts, value) if lefts else value))

    @property
    def nodes(self) -> list[Node]:
        """The nodes whose sums are complete, from left to right."""
        return [node for node, _ in self._nodes]

    @property
    def values(self) -> list[Value]:
        """The values of `nodes`."""
        return [value for _, value in self._nodes]


@functools.lru_cache(maxsize=64)
def nodes_of_ranks(size: int, n: int) -> tuple[tuple[Node, ...], ...]:
    """The nodes to which each rank adds up its leaves."""
    found = []
    for rank in range(size):
        sums: PartialSums[None] = PartialSums(n, lambda lefts, value: None)
        for leaf in run_of(rank, size, n):
            sums.push((0, leaf), None)
        found.append(tuple(sums.nodes))
    return tuple(found)


@functools.lru_cache(maxsize=64)
def additions(nodes: tuple[Node, ...], n: int) -> tuple[tuple[int, int], ...]:
    """The additions, pairs of places in `nodes`, in their order, that turn all nodes of a tree into its root.

    The sum of a pair takes the first place.
    """
    steps: list[tuple[int, int]] = []

    def add(lefts: list[int], place: int) -> int:
        for left in lefts:
            steps.append((left, place))
            place = left
        return place

    sums: PartialSums[int] = PartialSums(n, add)
    for place, node in enumerate(nodes):
        sums.push(node, place)
    assert sums.values == [0], "the nodes are not those of a whole tree"
    return tuple(steps)
