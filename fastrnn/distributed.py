"""Training on many processes by MPI, with the same bytes for any number of them.

The batch is cut into a fixed number of shards. Each process computes the gradients of its run of shards, and `reduce`
adds those of all shards along one binary tree over the shards. So losses, gradients and parameters do not depend on the
number of processes. A process without MPI is a group of one.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from fastrnn import _config, _threads, _training_files, functional, optim
from fastrnn._core import ALIGNMENT
from fastrnn._engine.pool import POOL
from fastrnn._structure import Buffer, Structure, flattened
from fastrnn._tree import PartialSums, additions, nodes_of_ranks, run_of
from fastrnn._validation import Array, size
from fastrnn._version import __version__
from fastrnn.losses import softmax_cross_entropy

__all__ = ["Group", "Shard", "group"]

T = TypeVar("T")

# Numbers that are added at a time, so that intermediate sums stay in the cache.
BLOCK = 16384
# Up to so many bytes each rank receives all partial sums and adds them itself: one message instead of two.
SMALL_BYTES = 16384

# mpiexec may lose the last output of a rank that aborts.
SECONDS_TO_FORWARD = 0.5

# The messages of a rank to the others before they exchange numbers.
HAS_NUMBERS, HAS_NO_SHARDS, HAS_FAILED = range(3)


@dataclass(frozen=True)
class Shard:
    """A part of the batch, the same for any number of ranks.

    Attributes
    ----------
    index : int
        0 to one less than the number of shards of the batch.
    rows : slice
        The sequences of the batch that belong to the shard: ``x[:, shard.rows]``.
    fraction : float
        The shard's fraction of the batch: the weight of a mean over the shard in the mean over the batch.
    """

    index: int
    rows: slice
    fraction: float

    def seed(self, rng: np.random.Generator, *key: int) -> None:
        """Set a random generator to a state that depends on `key` and the index of the shard alone.

        With the generator of a layer with dropout, the masks of a shard do not depend on the rank that draws them.

        Parameters
        ----------
        rng : numpy.random.Generator
            The generator, which was given as `rng` to a layer.
        *key : int
            At least 0: a seed and the step, for example.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, or is negative.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> rng = np.random.default_rng()
        >>> shard, = fastrnn.distributed.group(shards=1).my_shards(8)
        >>> shard.seed(rng, 1, 1000)
        >>> int(rng.integers(10**6))
        830379
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        words = [size("key", one, minimum=0) for one in key]
        seeds = np.random.SeedSequence(words, spawn_key=(self.index,))
        rng.bit_generator.state = type(rng.bit_generator)(seeds).state


@dataclass
class _Sum:
    """The sum of a node of the tree: its leaves, and the memory if it belongs to this module and not to the caller."""

    leaves: list[Array]
    buffer: Buffer | None = None


def group(shards: int, comm: Any = None) -> Group:
    """The processes of an MPI job, or this process alone, for the training of one model.

    Every process of the job calls this function before anything that depends on the other processes. It detects ranks
    whose kernels give different bits. AVX2, AVX-512 and NEON may be mixed, since their bits are the same.

    Parameters
    ----------
    shards : int
        S, the number of parts into which each batch is cut, at least the number of ranks and the same on all. The
        results depend on it. A power of 2 that is a multiple of the number of ranks gives the fastest reduction.
    comm : mpi4py.MPI.Intracomm, optional
        The processes. Default: COMM_WORLD if the process was started by mpiexec or has imported ``mpi4py.MPI``, and
        otherwise this process alone, for which mpi4py need not be installed.

    Returns
    -------
    group : Group

    Raises
    ------
    ImportError
        If mpiexec has started the process and mpi4py is not installed.
    TypeError, ValueError
        If an argument has the wrong type, `shards` is out of range, or differs between ranks.
    RuntimeError
        If the versions of fastrnn or NumPy or the bits of the kernels differ between ranks, or if mpiexec and mpi4py
        belong to different implementations of MPI.

    Notes
    -----
    If the group has more than one rank, an uncaught exception ends all ranks (``Comm.Abort``, by ``sys.excepthook``);
    otherwise the others would wait for ever. ``python -m mpi4py program.py`` ends them after a ``sys.exit`` of one
    rank, too.

    If several ranks may use the same cores, each uses an equal part of them, unless ``OMP_NUM_THREADS`` or
    `fastrnn.set_num_threads` has set the number of threads.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.distributed.group(shards=16)
    <Group: rank 0 of 1, 16 shards>
    """
    number = size("shards", shards)
    if comm is None:
        comm = _world()
    elif not all(hasattr(comm, name) for name in ("Allgather", "Alltoallv", "Dup")):
        raise TypeError(f"comm: expected an intracommunicator of mpi4py, got {type(comm).__name__}")
    return Group(number, None if comm is None or comm.Get_size() == 1 else comm)


def _world():
    """COMM_WORLD, or None for a process by itself."""
    counts = [os.environ.get(name, "") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")]
    started = max([int(count) for count in counts if count.isdecimal()], default=1)
    if started == 1 and "PMIX_RANK" not in os.environ and "mpi4py.MPI" not in sys.modules:
        return None
    try:
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        raise ImportError(
            "fastrnn.distributed: processes that mpiexec has started need the package mpi4py: "
            "pip install 'fastrnn[mpi]'"
        ) from error
    if MPI.COMM_WORLD.size == 1 < started:
        raise RuntimeError(
            f"fastrnn.distributed: mpiexec has started {started} processes, but mpi4py finds one; "
            f"mpi4py uses another implementation of MPI: {MPI.Get_library_version().splitlines()[0]}"
        )
    return MPI.COMM_WORLD


class Group:
    """The ranks that train one model, as `group` returns them.

    The methods that communicate are called by all ranks, in the same order.

    Attributes
    ----------
    rank : int
        The number of this process, 0 to ``size - 1``.
    size : int
        The number of processes.
    shards : int
        S, the number of parts of each batch.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> group = fastrnn.distributed.group(shards=4)
    >>> layer = fastrnn.LSTM(8, 16)
    >>> group.broadcast(layer.params)
    >>> optimizer = fastrnn.optim.Adam(layer.params)
    >>> x, target = np.ones((20, 32, 8), np.float32), np.zeros((20, 32, 16), np.float32)
    >>> def gradient(shard):
    ...     output, state_n, tape = layer.forward(x[:, shard.rows])
    ...     loss, d_output = fastrnn.mean_squared_error(output, target[:, shard.rows])
    ...     d_output *= shard.fraction
    ...     d_x, d_state, d_params = layer.backward(tape, d_output)
    ...     return shard.fraction * loss, d_params
    >>> loss, d_params = group.reduce(map(gradient, group.my_shards(32)))
    >>> optimizer.step(d_params)
    """

    def __init__(self, shards: int, comm: Any) -> None:
        self.shards, self.rank, self.size = shards, 0, 1
        self._comm: Any = None
        if comm is not None:
            self._comm = comm.Dup()
            self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
            _abort_at_exceptions()
            self._check_ranks()
            _share_cores(self._comm)

    def __repr__(self) -> str:
        return f"<Group: rank {self.rank} of {self.size}, {self.shards} shards>"

    def _check_ranks(self):
        about = self.shards, __version__, np.__version__, _digest_of_kernels()
        found = self._comm.allgather((about, _config.instruction_set()))
        shards = [one[0] for one, _ in found]
        if len(set(shards)) > 1:
            raise ValueError(f"shards: expected the same number on all ranks, got {_by_rank(shards)}")
        if self.shards < self.size:
            raise ValueError(f"shards: expected at least the number of ranks, {self.size}, got {self.shards}")
        if len({one for one, _ in found}) > 1:
            texts = [f"fastrnn {one[1]}, NumPy {one[2]}, {isa}, bits {one[3][:8]}" for one, isa in found]
            raise RuntimeError(
                f"fastrnn.distributed: the ranks would compute different bits; expected the same versions and "
                f"instruction sets with fused multiply-add, got {_by_rank(texts)}"
            )

    # Shards

    def my_shards(self, batch: int) -> list[Shard]:
        """The shards of this rank: a run of those of the batch, in their order.

        Parameters
        ----------
        batch : int
            B, the number of sequences of the batch, at least 1.

        Returns
        -------
        shards : list of Shard
            The batch has min(S, B) shards, whose numbers of sequences differ by one at most, and so do the numbers of
            shards of the ranks. A rank may have none if the batch has fewer sequences than the group has ranks.

        Raises
        ------
        TypeError, ValueError
            If `batch` is no integer, or less than 1.

        Examples
        --------
        >>> import fastrnn
        >>> [shard.rows for shard in fastrnn.distributed.group(shards=3).my_shards(8)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        B = size("batch", batch)
        n = self._number_of_shards(B)
        rows = [run_of(k, n, B) for k in self._run(n)]
        return [Shard(k, slice(run.start, run.stop), len(run) / B) for k, run in zip(self._run(n), rows)]

    def _number_of_shards(self, batch):
        return self.shards if batch is None else min(self.shards, size("batch", batch))

    def _run(self, n):
        return run_of(self.rank, self.size, n)

    # Sums

    def reduce(self, contributions: Iterable[T], *, batch: int | None = None) -> T:
        """Add the contributions of all shards of all ranks, in one order.

        The sum of the shards 0..n-1 is a binary tree: neighbours are added in pairs, then the sums of pairs, and so on;
        one that has no neighbour is passed on. An addition is that of NumPy, number by number.

        Parameters
        ----------
        contributions : iterable
            For each shard of this rank, in the order of `my_shards`: a number, an array of float32 or float64,
            `Parameters`, or a tuple or list of these. All have the same structure, shapes and dtypes, on all ranks.
            Each has arrays of its own, which may not be changed before `reduce` returns. An iterator saves memory:
            about log2(S) partial sums are kept, instead of all contributions.
        batch : int, optional
            B. Needed if it may be less than the number of shards.

        Returns
        -------
        total : as the contributions
            In new memory, the same bytes on all ranks. Numbers become float.

        Raises
        ------
        TypeError
            If a contribution has another type or dtype.
        ValueError
            If their number is not that of the shards, their structures differ, or two share memory.
        RuntimeError
            If another rank has raised an exception in its contributions, so that no rank waits for it.
        """
        n = self._number_of_shards(batch)
        sums, structure, error = self._add_own(contributions, n)
        structure = self._agree("contributions", structure, error)
        return self._add_all(sums, structure, n)

    def _add_own(self, contributions, n):
        """The sums of the nodes of this rank, their structure or None, and the exception if there was one."""
        structure: Structure | None = None
        free: list[Buffer] = []
        sums = PartialSums(n, lambda lefts, right: _added(structure, lefts, right, free))
        try:
            for value, k in zip(_exactly("contributions", len(self._run(n)), contributions), self._run(n)):
                found, leaves = flattened("contributions", value)
                if structure not in (None, found):
                    raise ValueError(f"contributions: expected {structure} for each shard, got {found} for shard {k}")
                structure = found
                for one in sums.values:
                    if one.buffer is None and any(map(np.may_share_memory, one.leaves, leaves)):
                        raise ValueError(f"contributions: that of shard {k} shares memory with one before it")
                sums.push((0, k), _Sum(leaves))
        except Exception as error:
            if self.size == 1:
                raise
            return sums, structure, error
        return sums, structure, None

    def _agree(self, name, structure, error=None):
        """The structure of all ranks, or an exception on all of them."""
        if self.size == 1:
            return structure
        status = HAS_FAILED if error else HAS_NUMBERS if structure else HAS_NO_SHARDS
        mine = np.array([status, structure.digest if status == HAS_NUMBERS else 0], np.int64)
        found = np.empty((self.size, 2), np.int64)
        self._comm.Allgather(mine, found)
        if (found[:, 0] == HAS_FAILED).any():
            texts = self._comm.allgather(f"{type(error).__name__}: {error}" if error else None)
            if error:
                raise error
            rank = next(rank for rank, text in enumerate(texts) if text)
            raise RuntimeError(f"{name}: rank {rank} has raised {texts[rank]}")
        having = found[found[:, 0] == HAS_NUMBERS]
        if (having[:, 1] != having[0, 1]).any():
            texts = self._comm.allgather(str(structure or "none"))
            raise ValueError(f"{name}: expected the same shapes and dtypes on all ranks, got {_by_rank(texts)}")
        if len(having) < self.size:
            structure = self._comm.bcast(structure, int(np.argmax(found[:, 0] == HAS_NUMBERS)))
        return structure

    def _add_all(self, sums, structure, n):
        """The sum of the nodes of all ranks."""
        if self.size == 1:
            (root,) = sums.values
            return (root.buffer or _copied(structure, root)).value()
        for one in sums.values:
            if one.buffer is None and len(one.leaves) > 1:
                one.buffer = _copied(structure, one)
        total = Buffer(structure)
        nodes = nodes_of_ranks(self.size, n)
        steps = additions(tuple(node for of_rank in nodes for node in of_rank), n)
        counts = [len(of_rank) for of_rank in nodes]
        for dtype, flat in total.flats.items():
            mine = [one.buffer.flats[dtype] if one.buffer else one.leaves[0] for one in sums.values]
            if flat.nbytes * sum(counts) <= SMALL_BYTES:
                self._add_everything(mine, counts, steps, flat)
            else:
                self._add_slice(mine, counts, steps, flat)
        for one in sums.values:
            if one.buffer:
                one.buffer.give_back()
        return total.value()

    def _add_everything(self, mine, counts, steps, flat):
        """Each rank receives all nodes and adds them."""
        nodes = np.empty((sum(counts), flat.size), flat.dtype)
        own = np.concatenate(mine) if mine else np.empty(0, flat.dtype)
        self._comm.Allgatherv(own, [nodes, [count * flat.size for count in counts]])
        _add_nodes(list(nodes), [False] * len(nodes), steps, flat)

    def _add_slice(self, mine, counts, steps, flat):
        """Each rank adds its slice of the numbers, then each receives all slices."""
        slices = _slices(flat, self.size)
        starts, lengths = [part.start for part in slices], [part.stop - part.start for part in slices]
        here, is_other = slices[self.rank], [rank != self.rank for rank in range(self.size)]
        # To each other rank the numbers of its slice, of all own nodes.
        sizes = [len(mine) * length * other for length, other in zip(lengths, is_other)]
        if len(mine) == 1:
            sent, places = mine[0], starts
        else:
            parts = [node[part] for part, other in zip(slices, is_other) if other for node in mine]
            sent, places = np.concatenate(parts) if parts else np.empty(0, flat.dtype), _starts(sizes)
        received_sizes = [count * lengths[self.rank] * other for count, other in zip(counts, is_other)]
        memory = POOL.bytes(sum(received_sizes) * flat.dtype.itemsize)
        received = memory.view(flat.dtype)
        self._comm.Alltoallv([sent, (sizes, places)], [received, (received_sizes, _starts(received_sizes))])

        rows = received.reshape(sum(counts) - len(mine), lengths[self.rank])
        before = sum(counts[: self.rank])
        nodes = [*rows[:before], *(node[here] for node in mine), *rows[before:]]
        is_own = [before <= place < before + len(mine) for place in range(len(nodes))]
        _add_nodes(nodes, is_own, steps, flat[here])
        POOL.give_back(memory)
        self._comm.Allgatherv(_in_place(), [flat, (lengths, starts)])

    def global_norm(self, gradients: optim.Given) -> float:
        """The root of the sum of the squares of all numbers, the same bits on all ranks.

        Parameters
        ----------
        gradients : Parameters, ndarray, or a sequence of these
            As for `fastrnn.optim.clip_by_global_norm`, which returns the same number: results of `reduce`, which all
            ranks have.

        Returns
        -------
        norm : float

        Raises
        ------
        TypeError, ValueError
            As in `fastrnn.optim.clip_by_global_norm`.
        """
        return optim.norm_of(optim.arrays_of("gradients", gradients))

    # Values of one rank, or of all

    def broadcast(self, params: optim.Given) -> None:
        """Give all ranks the values that rank 0 has.

        Parameters
        ----------
        params : Parameters, ndarray, or a sequence of these
            Arrays of float32 or float64, C-contiguous and writeable, of the same shapes and dtypes on all ranks.
            Written in place.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be written, or shapes or dtypes differ between ranks. Nothing has been written then.
        """
        structure, arrays, error = None, [], None
        try:
            arrays = optim.arrays_of("params", params)
            structure, _ = flattened("params", arrays)
        except (TypeError, ValueError) as caught:
            error = caught
        if error and self.size == 1:
            raise error
        self._agree("params", structure, error)
        if self._comm is not None:
            for array in arrays:
                self._comm.Bcast(array, root=0)

    def gather(self, values: Iterable[T], *, batch: int | None = None) -> list[T]:
        """Collect a value for each shard from all ranks.

        Parameters
        ----------
        values : iterable
            A value for each shard of this rank, in the order of `my_shards`. The ranks exchange them by pickle.
        batch : int, optional
            B. Needed if it may be less than the number of shards.

        Returns
        -------
        values : list
            Those of all shards in their order, on all ranks.

        Raises
        ------
        ValueError
            If the number of values is not that of the shards.
        RuntimeError
            If another rank has raised an exception in its values.
        """
        mine: list[T] = []
        error = None
        try:
            mine = list(_exactly("values", len(self._run(self._number_of_shards(batch))), values))
        except Exception as caught:
            error = caught
        if self._comm is None:
            if error:
                raise error
            return mine
        self._agree("values", Structure("list"), error)
        return [value for of_rank in self._comm.allgather(mine) for value in of_rank]

    def abort(self, status: int = 1) -> NoReturn:
        """End all ranks at once, where `sys.exit` of one rank would let the others wait for ever.

        Parameters
        ----------
        status : int, default 1
            The exit status, from 1 to 255. The group of one raises SystemExit with it.

        Raises
        ------
        TypeError, ValueError
            If `status` is no integer, or out of range.
        """
        number = size("status", status)
        if number > 255:
            raise ValueError(f"status: expected 1 to 255, got {number}")
        if self._comm is None:
            sys.exit(number)
        _abort(number)

    # Files

    def checkpoint(
        self,
        path: str | os.PathLike[str],
        params: optim.Given,
        optimizer: optim.Optimizer | None = None,
        *,
        step: int,
        rng: np.random.Generator | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        """Write the state of training to a file, from which any number of ranks can continue.

        Rank 0 writes a safetensors file. An existing file is replaced atomically: if a rank dies, the file is either
        the old one or the complete new one.

        Parameters
        ----------
        path : str or os.PathLike
            The file, as for `fastrnn.save`.
        params : Parameters, ndarray, or a sequence of these
            The parameters.
        optimizer : fastrnn.optim.SGD, Adam or AdamW, optional
            Its state, its number of steps and its learning rate are saved.
        step : int
            The number of steps of training so far, or another position from which the caller can continue, at least 0.
        rng : numpy.random.Generator, optional
            A generator that all ranks use alike, to shuffle for example; its state is saved.
        arrays : mapping of str to ndarray, optional
            Further arrays, of any dtype that safetensors has: the states that are carried between batches, for example.

        Raises
        ------
        ImportError
            If the package `safetensors` is not installed.
        TypeError, ValueError
            If an argument has the wrong type or is out of range.
        OSError
            If the file cannot be written.
        RuntimeError
            If the states of the ranks are not the same bytes; nothing is written then.

        Examples
        --------
        >>> import os, tempfile, numpy as np, fastrnn
        >>> group, layer = fastrnn.distributed.group(shards=4), fastrnn.GRU(8, 16)
        >>> optimizer, rng = fastrnn.optim.Adam(layer.params), np.random.default_rng(1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "training.safetensors")
        ...     group.checkpoint(path, layer.params, optimizer, step=100, rng=rng)
        ...     group.resume(path, layer.params, optimizer, rng=rng)
        100
        """
        state = _training_files.State(self.shards, params, optimizer, rng, arrays)
        data = state.to_bytes(size("step", step, minimum=0))
        if self._comm is not None:
            digests = self._comm.allgather(hashlib.blake2b(data).digest())
            differ = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
            if differ:
                ranks = ", ".join(map(str, differ))
                raise RuntimeError(f"checkpoint: the state of rank {ranks} differs from that of rank 0")
        self._on_rank_0(lambda: _training_files.write(path, data))

    def resume(
        self,
        path: str | os.PathLike[str],
        params: optim.Given,
        optimizer: optim.Optimizer | None = None,
        *,
        rng: np.random.Generator | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> int:
        """Set the state of training on all ranks to that in a file of `checkpoint`.

        Rank 0 reads the file. Nothing in it is executed.

        Parameters
        ----------
        path, params, optimizer, rng, arrays
            As for `checkpoint`, of the same names, shapes, dtypes and classes. They are written in place.

        Returns
        -------
        step : int
            As it was given to `checkpoint`.

        Raises
        ------
        ImportError
            If the package `safetensors` is not installed.
        TypeError
            If an argument has the wrong type.
        ValueError
            If the file is damaged, not one of `checkpoint`, does not fit, or was made with another number of shards.
            Nothing has been written then.
        OSError
            If the file cannot be read.
        """
        state = _training_files.State(self.shards, params, optimizer, rng, arrays)
        return state.restore(path, self._on_rank_0(lambda: _training_files.read(path)))

    def _on_rank_0(self, function):
        """The result or the error of the function, which rank 0 calls, on all ranks."""
        if self._comm is None:
            return function()
        result = error = None
        if self.rank == 0:
            try:
                result = function()
            except Exception as caught:
                error = caught
        result, error = self._comm.bcast((result, error))
        if error:
            raise error
        return result


# Sums


def _added(structure: Any, lefts: list[_Sum], right: _Sum, free: list[Buffer]) -> _Sum:
    """lefts[-1] + (... + (lefts[0] + right)), in memory of `lefts` or `free` if there is some."""
    *others, last = lefts
    buffer = last.buffer or (free.pop() if free else Buffer(structure))
    with np.errstate(all="ignore"):  # gradients may be infinite
        for k, out in enumerate(buffer.leaves):
            scratch = np.empty(min(BLOCK, out.size), out.dtype)
            for here in _blocks(out):
                total = right.leaves[k][here]
                for other in others:
                    total = np.add(other.leaves[k][here], total, out=scratch[: total.size])
                np.add(last.leaves[k][here], total, out=out[here])
    free += [one.buffer for one in (*others, right) if one.buffer]
    return _Sum(buffer.leaves, buffer)


def _add_nodes(nodes: list[Array], is_kept: list[bool], steps: Sequence[tuple[int, int]], out: Array) -> None:
    """Add the nodes of a tree into `out`; nodes are overwritten, except those to be kept."""
    if not steps:
        out[...] = nodes[0]
        return
    places, program = list(range(len(nodes))), []
    for left, right in steps:
        target = places[right] if is_kept[places[left]] else places[left]
        program.append((places[left], places[right], target))
        places[left] = target
    *first, (left, right, _) = program
    assert not any(is_kept[target] for _, _, target in first), "a rank has added its own nodes before"
    with np.errstate(all="ignore"):
        for here in _blocks(out):
            for a, b, target in first:
                np.add(nodes[a][here], nodes[b][here], out=nodes[target][here])
            np.add(nodes[left][here], nodes[right][here], out=out[here])


def _copied(structure, one):
    buffer = Buffer(structure)
    for copy, leaf in zip(buffer.leaves, one.leaves):
        copy[...] = leaf
    return buffer


def _blocks(array):
    return [slice(start, start + BLOCK) for start in range(0, array.size, BLOCK)]


def _slices(flat, count):
    """`count` slices of nearly equal length that begin at multiples of ALIGNMENT bytes; the last may be empty."""
    step = ALIGNMENT // flat.dtype.itemsize
    length = math.ceil(flat.size / (count * step)) * step
    limits = [min(k * length, flat.size) for k in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(limits, limits[1:])]


def _starts(sizes):
    return [sum(sizes[:k]) for k in range(len(sizes))]


def _exactly(name, count, values):
    """The values, of which there are `count`."""
    try:
        iterator = iter(values)
    except TypeError:
        raise TypeError(f"{name}: expected an iterable, got {type(values).__name__}") from None
    expected = f"{name}: expected {count}, one for each shard of this rank"
    for k in range(count):
        try:
            value = next(iterator)
        except StopIteration:
            raise ValueError(f"{expected}, got {k}") from None
        yield value
    for _ in iterator:
        raise ValueError(f"{expected}, got more")


# Ranks


def _by_rank(values):
    return "; ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))


def _in_place():
    from mpi4py import MPI

    return MPI.IN_PLACE


def _abort(status: int) -> NoReturn:
    from mpi4py import MPI

    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(SECONDS_TO_FORWARD)
    MPI.COMM_WORLD.Abort(status)
    raise AssertionError("MPI_Abort has returned")


@functools.cache
def _abort_at_exceptions() -> None:
    """Make every uncaught exception end all ranks from now on."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        previous(kind, value, traceback)
        _abort(1)

    sys.excepthook = hook


def _share_cores(comm):
    """Set the number of threads where nobody has and ranks of this machine may use the same cores."""
    from mpi4py import MPI

    if _threads._num_threads is not None:
        limits = None
    else:
        limits = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    others = [one for one in machine.allgather(limits) if one is not None and limits is not None and one & limits]
    machine.Free()
    if len(others) > 1:
        _threads.set_num_threads(max(1, _threads.get_num_threads() // len(others)))


def _numbers(shape, dtype):
    """Numbers from -0.5 to 0.5 without a random generator."""
    count = math.prod(shape)
    return (np.arange(count, dtype=dtype) * 37 % 101 / 101 - 0.5).astype(dtype).reshape(shape)


@functools.cache
def _digest_of_kernels() -> str:
    """A digest of results of the kernels, the same where the kernels have the same bits."""
    digest = hashlib.blake2b(digest_size=16)
    for dtype in (np.float32, np.float64):
        x, weight_ih, weight_hh = (_numbers(shape, dtype) for shape in ((9, 3, 5), (76, 5), (76, 19)))
        output, _, tape = functional.lstm_forward(x, None, weight_ih, weight_hh)
        _, d_logits = softmax_cross_entropy(output, np.arange(27).reshape(9, 3) % 19)
        d_x, _, d_params = functional.lstm_backward(tape, d_logits)
        optim.Adam(weight_hh).step(d_params["weight_hh"])
        for array in (output, d_logits, d_x, *d_params.values(), weight_hh):
            digest.update(array.tobytes())
    return digest.hexdigest()
