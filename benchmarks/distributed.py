"""`fastrnn.distributed` on two ranks and more: sums beside MPI.Allreduce, and a training step beside that of one rank.

    mpiexec -n 2 python benchmarks/distributed.py
    mpiexec -n 2 python benchmarks/distributed.py --hidden 512 --batches 32,64 --shards 2,4

Each rank has one thread. Turns of some steps of all ways alternate; the figures are medians. While rank 0 trains alone,
the others sleep.
"""

import argparse
import math
import os
import statistics
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from mpi4py import MPI

import fastrnn
from fastrnn.distributed import Group

COMM = MPI.COMM_WORLD


def alternating(ways, rounds):
    """name -> the median seconds of a turn, of which the slowest rank decides."""
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            COMM.Barrier()
            begin = time.perf_counter()
            way()
            elapsed = COMM.allreduce(time.perf_counter() - begin, MPI.MAX)
            if turn:  # the first warms up
                seconds[name].append(elapsed)
    return {name: statistics.median(some) for name, some in seconds.items()}


def on_rank_0(way):
    """The way, on rank 0 alone while the others sleep."""

    def alone():
        if COMM.rank == 0:
            way()
        request = COMM.Ibarrier()
        while not request.Test():
            time.sleep(0.001)

    return alone


def report(line):
    if COMM.rank == 0:
        print(line, flush=True)


def sums(group, numbers, rounds):
    """The reduction of one contribution per rank."""
    for size in numbers:
        mine, total = np.full(size, 0.5 + COMM.rank, np.float32), np.empty(size, np.float32)
        ways = {"Allreduce": lambda: COMM.Allreduce(mine, total), "reduce": lambda: group.reduce([mine])}
        found = alternating(ways, rounds)
        ratio = found["reduce"] / found["Allreduce"]
        texts = [f"{name} {1e6 * seconds:10.1f} us" for name, seconds in found.items()]
        report(f"sum of {4 * size:>10,} bytes   {'   '.join(texts)}   ratio {ratio:.2f}")


class Step:
    """A training step of a layer and its head, of random data."""

    def __init__(self, T, B, H, classes=96):
        rng = np.random.default_rng(1)
        self.layer, self.head = fastrnn.LSTM(64, H, rng=1), fastrnn.Linear(H, classes, rng=1)
        self.optimizer = fastrnn.optim.Adam([self.layer.params, self.head.params])
        self.x = rng.standard_normal((T, B, 64), np.float32)
        self.targets = rng.integers(0, classes, (T, B))

    def gradient(self, shard):
        output, _, tape = self.layer.forward(self.x[:, shard.rows])
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, self.targets[:, shard.rows])
        d_logits *= np.float32(shard.fraction)
        d_output, d_head = self.head.backward(head_tape, d_logits)
        _, _, d_layer = self.layer.backward(tape, d_output)
        return shard.fraction * loss, [d_layer, d_head]

    def run(self, group):
        _, gradients = group.reduce(map(self.gradient, group.my_shards(self.x.shape[1])))
        self.update(gradients)

    def without_sum(self, group):
        """Every rank computes its shards and updates the parameters by the gradient of the last one."""
        for shard in group.my_shards(self.x.shape[1]):
            _, gradients = self.gradient(shard)
        self.update(gradients)

    def update(self, gradients):
        fastrnn.optim.clip_by_global_norm(gradients, 1.0)
        self.optimizer.step(gradients)


def sizes(T, H, rounds):
    """What a sequence costs in shards of some sizes, on rank 0 alone."""
    step, alone = Step(T, 32, H), Group(1, None)
    seconds = {}
    for b in (1, 2, 4, 8, 16, 32):
        (shard,) = alone.my_shards(b)
        turn = on_rank_0(lambda shard=shard, b=b: repeat(32 // b, step.gradient, shard))
        seconds[f"{b:2} per shard"] = turn
    report(f"\nLSTM(64, {H}), T = {T}: the gradient of 32 sequences on one thread")
    for name, found in alternating(seconds, rounds).items():
        report(f"  {name:<22}{1e3 * found:9.2f} ms")


def constants(rounds):
    """Of the model of the cost: seconds of a message, bytes per second between two ranks, bytes added per second."""
    one, many = np.zeros(COMM.size, np.float32), np.zeros(2**21, np.float32)
    received, gathered = np.empty_like(one), np.empty((COMM.size, many.size), np.float32)
    ways = {
        "Alltoall of 4 bytes": lambda: repeat(100, COMM.Alltoall, one, received),
        "Allgather of 8 MiB": lambda: COMM.Allgather(many, gathered),
        "addition of 8 MiB": lambda: add_in_blocks(many, gathered[0]),
    }
    found = alternating(ways, rounds)
    exchange, gather, addition = found.values()
    report(f"a message {1e4 * exchange / (COMM.size - 1):.2f} us")
    report(f"{many.nbytes * (COMM.size - 1) / gather / 1e9:.2f} GB/s into each rank")
    report(f"{many.nbytes / addition / 1e9:.2f} GB/s are added")


def add_in_blocks(array, out):
    for start in range(0, array.size, 16384):
        np.add(out[start : start + 16384], array[start : start + 16384], out=out[start : start + 16384])


def steps(T, batches, H, shards, rounds, calls):
    for B in batches:
        step = Step(T, B, H)
        groups = {S: fastrnn.distributed.group(S) for S in shards if COMM.size <= S <= B}
        ways = {"1 shard": turn_alone(step, 1, calls)}
        for S, group in groups.items():
            ways[f"{S} shards"] = turn_alone(step, S, calls)
            ways[f"{S} shards on all"] = lambda group=group: repeat(calls, step.run, group)
            ways[f"{S} shards, no sum"] = lambda group=group: repeat(calls, step.without_sum, group)
            _, gradients = group.reduce(map(step.gradient, group.my_shards(B)))
        ways["reduction"] = lambda: repeat(calls, lambda: group.reduce([(1.0, gradients)], batch=COMM.size))
        ways["clipping and Adam"] = lambda: repeat(calls, step.update, gradients)
        found = {name: seconds / calls for name, seconds in alternating(ways, rounds).items()}
        number = step.layer.params.flat.size + step.head.params.flat.size
        report(f"\nLSTM(64, {H}), T = {T}, B = {B}, {number:,} parameters, {COMM.size} ranks")
        for name, seconds in found.items():
            report(f"  {name:<22}{1e3 * seconds:9.2f} ms")
        for S in groups:
            alone, together = found[f"{S} shards"], found[f"{S} shards on all"]
            cost = alone / found["1 shard"]
            report(f"  {S} shards: {alone / together:.2f} times one rank; on one rank {cost:.2f} times 1 shard")


def repeat(calls, function, *arguments):
    for _ in range(calls):
        function(*arguments)


def turn_alone(step, shards, calls):
    group = Group(shards, None)
    return on_rank_0(lambda: repeat(calls, step.run, group))


# A call of `reduce`, a message (seconds); exchange between ranks, additions (bytes per second): see docs/scale.md.
NETWORKS = {
    "shared memory": (60e-6, 2.9e-6, 4.8e9, 14.4e9),
    "10 Gbit/s Ethernet": (60e-6, 30e-6, 1.1e9, 14.4e9),
    "200 Gbit/s InfiniBand": (60e-6, 2e-6, 20e9, 14.4e9),
}


# Of LSTM(64, 256), T = 64, on one thread: the gradient of a shard of 4 sequences, clipping and Adam.
MODEL_PARAMETERS, MODEL_SHARDS = 354_400, 1024
SHARD_SECONDS, UPDATE_SECONDS = 4.8e-3, 0.36e-3


def reduction_seconds(P, nbytes, call, message, exchange, add):
    """The model of docs/scale.md."""
    return call + message * (P - 1 + 2 * math.log2(P)) + 2 * nbytes * (1 - 1 / P) / exchange + nbytes / add


def print_model():
    """A table of the times of a step on 1 to 1,024 ranks."""
    print("| ranks | " + " | ".join(NETWORKS) + " |")
    print("|---:|" + "---:|" * len(NETWORKS))
    one = MODEL_SHARDS * SHARD_SECONDS + UPDATE_SECONDS
    for P in (1, 8, 16, 32, 64, 128, 256, 512, 1024):
        cells = []
        for constants in NETWORKS.values():
            reduction = reduction_seconds(P, 4 * MODEL_PARAMETERS, *constants) if P > 1 else 0
            step = MODEL_SHARDS // P * SHARD_SECONDS + UPDATE_SECONDS + reduction
            cells.append(f"{1e3 * step:,.1f} ms, {one / step:,.0f} times")
        print(f"| {P:,} | " + " | ".join(cells) + " |")


def main():
    def numbers(text):
        return [int(one) for one in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=64, help="T (default: %(default)s)")
    parser.add_argument("--batches", type=numbers, default=[32, 64, 128], help="B (default: 32,64,128)")
    parser.add_argument("--hidden", type=int, default=256, help="H (default: %(default)s)")
    parser.add_argument("--shards", type=numbers, default=[2, 4, 8, 16], help="S (default: 2,4,8,16)")
    parser.add_argument(
        "--numbers", type=numbers, default=[1, 2**12, 2**18, 2**21, 2**23], help="of a sum (default: 1 to 8,388,608)"
    )
    parser.add_argument("--rounds", type=int, default=11, help="turns of each way (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=8, help="training steps of a turn (default: %(default)s)")
    parser.add_argument("--model", action="store_true", help="print the model of the cost instead")
    options = parser.parse_args()
    if options.model:
        return print_model()
    if COMM.size == 1:
        sys.exit("start it with mpiexec -n 2")
    report(f"{COMM.size} ranks, {MPI.Get_library_version().split(chr(10))[0]}, {fastrnn.config()['instruction_set']}")
    constants(options.rounds)
    sums(fastrnn.distributed.group(COMM.size), options.numbers, 3 * options.rounds)
    sizes(options.steps, options.hidden, options.rounds)
    steps(options.steps, options.batches, options.hidden, options.shards, options.rounds, options.calls)


if __name__ == "__main__":
    main()
