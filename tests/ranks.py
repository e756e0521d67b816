"""Programs that the tests of `fastrnn.distributed` run on several ranks: ``mpiexec -n 2 python ranks.py NAME ...``.

The tests call `train` and `sums` in their own process, too, as a group of one.
"""

import hashlib
import json
import os
import signal
import sys

import numpy as np

# By rank, before fastrnn is imported.
RANK = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", 0)))
if "ISA_OF_RANKS" in os.environ:
    os.environ["FASTRNN_ISA"] = os.environ["ISA_OF_RANKS"].split(",")[RANK]

import fastrnn
from fastrnn import distributed

# shards, sequences, dtype
TRAININGS = [(4, 16, "float32"), (5, 23, "float32"), (16, 16, "float64"), (7, 3, "float32"), (4, 2, "float64")]


class Training:
    """A layer with dropout, a head and Adam on random batches; `run` makes it go on to a step."""

    def __init__(self, group, B, dtype):
        self.group, self.B, self.dtype = group, B, dtype
        self.masks, self.rng = np.random.default_rng(), np.random.default_rng(7)
        rng = np.random.default_rng(group.rank)  # so that the ranks begin with different parameters
        self.layer = fastrnn.LSTM(6, 20, 2, dropout=0.3, dtype=dtype, rng=self.masks)
        self.layer.params.flat[...] = rng.uniform(-0.2, 0.2, self.layer.params.flat.size)
        self.head = fastrnn.Linear(20, 5, dtype=dtype, rng=rng)
        self.params = [self.layer.params, self.head.params]
        group.broadcast(self.params)
        self.optimizer = fastrnn.optim.Adam(self.params, lr=0.01)
        self.step, self.losses = 0, np.zeros(32)

    def gradient(self, shard):
        shard.seed(self.masks, 1, self.step)
        output, _, tape = self.layer.forward(self.x[:, shard.rows])
        logits, head_tape = self.head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, self.targets[:, shard.rows])
        d_logits *= d_logits.dtype.type(shard.fraction)
        d_output, d_head = self.head.backward(head_tape, d_logits)
        _, _, d_layer = self.layer.backward(tape, d_output)
        return shard.fraction * loss, [d_layer, d_head]

    def run(self, last):
        while self.step < last:
            self.x = self.rng.standard_normal((9, self.B, 6)).astype(self.dtype)
            self.targets = self.rng.integers(0, 5, (9, self.B))
            contributions = map(self.gradient, self.group.my_shards(self.B))
            loss, gradients = self.group.reduce(contributions, batch=self.B)
            norm = self.group.global_norm(gradients)
            assert norm == fastrnn.optim.clip_by_global_norm(gradients, 0.1)
            self.optimizer.step(gradients)
            self.losses[self.step] = loss
            self.step += 1

    def digest(self):
        arrays = [*(params.flat for params in self.params), *self.optimizer.state_dict().values(), self.losses]
        return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()

    def save(self, path):
        arrays = {"losses": self.losses}
        self.group.checkpoint(path, self.params, self.optimizer, step=self.step, rng=self.rng, arrays=arrays)

    def resume(self, path):
        arrays = {"losses": self.losses}
        self.step = self.group.resume(path, self.params, self.optimizer, rng=self.rng, arrays=arrays)


def train():
    """A digest of each of TRAININGS after 4 steps."""
    digests = []
    for shards, B, dtype in TRAININGS:
        if shards >= int(os.environ.get("PMI_SIZE", os.environ.get("OMPI_COMM_WORLD_SIZE", 1))):
            training = Training(distributed.group(shards), B, dtype)
            training.run(4)
            digests.append(training.digest())
    return digests


def sums():
    """A digest of sums of random arrays, short and long, of numbers of many magnitudes."""
    digest = hashlib.sha256()
    for shards in (4, 5, 8, 13):
        group = distributed.group(shards)
        for n, dtype in (1, np.float64), (333, np.float32), (40_001, np.float32), (3_001, np.float64):
            arrays = [
                np.ldexp(rng.standard_normal(n), rng.integers(-9, 9, n)).astype(dtype)
                for rng in map(np.random.default_rng, range(shards))
            ]
            mine = [arrays[shard.index] for shard in group.my_shards(shards)]
            before = [array.tobytes() for array in mine]
            total, [doubled], _ = group.reduce((array, [array + array], np.float64(0.1)) for array in mine)
            assert [array.tobytes() for array in mine] == before
            assert doubled.tobytes() == (total + total).tobytes()
            digest.update(total.tobytes())
        indices = [shard.index for shard in group.my_shards(3)]
        assert group.gather(indices, batch=3) == [0, 1, 2]
    return digest.hexdigest()


def resumed(path, stop, die):
    """Training that goes on from a checkpoint, if there is one, and saves one each third step; a rank may die."""
    training = Training(distributed.group(4), 10, "float32")
    if os.path.exists(path):
        training.resume(path)
    while training.step < int(stop):
        training.run(training.step + 1)
        if training.step % 3 == 0:
            training.save(path)
        if training.step == int(die) and training.group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return training.digest()


def versions():
    distributed.__version__ = f"0.{RANK}"
    distributed.group(4)


def shards():
    distributed.group(4 + RANK)


def more_ranks_than_shards():
    distributed.group(1)


def float_formats():
    distributed.group(4).reduce(np.zeros(3, ["float32", "float64"][RANK]) for _ in range(2))


def float_formats_of_parameters():
    distributed.group(4).broadcast(fastrnn.GRU(2, 3, dtype=["float32", "float64"][RANK]).params)


def error_in_a_contribution():
    def contributions():
        yield 1.0
        if RANK == 1:
            raise ZeroDivisionError("in the second shard")
        yield 2.0

    distributed.group(4).reduce(contributions())


def error_elsewhere():
    group = distributed.group(4)
    if RANK == 1:
        raise ZeroDivisionError("outside of the group")
    group.reduce([1.0] * 2)


def abort():
    group = distributed.group(4)
    if RANK == 1:
        print("rank 1 ends all", flush=True)
        group.abort(3)
    group.reduce([1.0] * 2)


def error_of_a_file(path):
    group, layer = distributed.group(4), fastrnn.GRU(2, 3, rng=0)
    try:
        group.checkpoint(path, layer.params, step=1)
    except OSError:
        return group.gather([True] * len(group.my_shards(4)))


def parameters_that_differ(path):
    group, layer = distributed.group(4), fastrnn.GRU(2, 3, rng=RANK)
    group.checkpoint(path, layer.params, step=1)


def threads():
    """The threads that each rank takes, of those that one process would."""
    group = distributed.group(4)
    return group.gather([fastrnn.get_num_threads()] * len(group.my_shards(4)))


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    found = distributed.group(64).gather([result] * len(distributed.group(64).my_shards(64)))
    assert all(one == result for one in found), "the ranks differ"
    if RANK == 0:
        print("RESULT", json.dumps(result), flush=True)
