"""The training of char_lm.py: its state, its steps on one process or several, and its end at a signal."""

import dataclasses
import hashlib
import math
import signal
import statistics
import sys
import time

from training import Failure  # first, because NumPy's threads are set there
import numpy as np
from char_lm_checkpoint import save_checkpoint
from char_lm_model import BITS, CharModel, bits_per_character
from tqdm import tqdm

import fastrnn


@dataclasses.dataclass
class Training:
    """The complete state of training, and the content of a checkpoint. The position in the text follows from the
    iteration, and no random generator is used after the initial weights. Each rank of `group` trains its shards of the
    streams."""

    group: fastrnn.distributed.Group
    model: CharModel
    optimizer: fastrnn.optim.Adam
    state: tuple  # h, c, each (L, B, H), of which a rank has the streams of its shards
    iteration: int = 0

    @classmethod
    def begin(cls, V, o):
        rng = np.random.default_rng(o.seed)
        try:
            model = CharModel(V, o.embedding, o.hidden, o.layers, rng=rng)
            optimizer = fastrnn.optim.Adam(model.params)
            state = tuple(np.zeros((2, o.layers, o.batch, o.hidden), np.float32))
        except ValueError as error:
            raise Failure(f"no model of this size: {error}") from None
        return cls(fastrnn.distributed.group(o.shards), model, optimizer, state)

    def step(self, text, o):
        """One window of the text; returns its mean loss in nats, before the step."""
        inputs, targets, first = text.window(self.iteration, o.unroll, o.batch)
        if first:
            self.state = tuple(np.zeros_like(part) for part in self.state)
        loss, state, gradient = self.gradient(inputs, targets)
        if not math.isfinite(loss):
            found = f"the loss is {loss} at iteration {self.iteration}"
            raise Failure(f"{found}: lower --learning-rate")
        t = self.iteration + 1
        # a function of the iteration alone, so that no run depends on where it was meant to end
        self.optimizer.lr = o.learning_rate * min(1, t / o.warm_up) / (1 + t / o.decay)
        fastrnn.optim.clip_by_global_norm(gradient, o.clip)
        self.optimizer.step(gradient)
        self.state, self.iteration = state, t
        return loss

    def gradient(self, inputs, targets):
        """As the model's, over the shards of all ranks."""
        B, state_n = inputs.shape[1], tuple(np.zeros_like(part) for part in self.state)

        def contribution(shard):
            here = shard.rows
            state = tuple(part[:, here] for part in self.state)
            loss, state, gradient = self.model.gradient(inputs[:, here], targets[:, here], state, shard.fraction)
            for whole, part in zip(state_n, state):
                whole[:, here] = part
            return loss, gradient

        loss, gradient = self.group.reduce(map(contribution, self.group.my_shards(B)), batch=B)
        return loss, state_n, gradient

    def gather_state(self):
        """Gives each rank the states of all streams."""
        B = self.state[0].shape[1]
        mine = [[part[:, shard.rows] for part in self.state] for shard in self.group.my_shards(B)]
        self.state = tuple(np.concatenate(parts, axis=1) for parts in zip(*self.group.gather(mine, batch=B)))

    def largest(self, number):
        """The largest of the ranks' numbers."""
        return max(self.group.gather([number] * len(self.group.my_shards(self.group.shards))))

    def digest(self):
        """The SHA-256 of the parameters."""
        return hashlib.sha256(b"".join(params.flat.tobytes() for params in self.model.params)).hexdigest()


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a flag polled between iterations; a second one acts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self):
        self.received = 0
        self.previous = [signal.signal(number, self.receive) for number in self.SIGNALS]
        return self

    def receive(self, number, frame):
        self.received = number
        self.__exit__()

    def __exit__(self, *exception):
        for number, handler in zip(self.SIGNALS, self.previous):
            signal.signal(number, handler)


def train(training, text, o):
    """Trains up to o.iterations, or o.seconds; returns the signal that ended it early on any rank, or 0."""
    characters = o.batch * o.unroll  # per iteration
    losses = []  # in bits, since the last report
    begin = reported = time.perf_counter()
    bar = tqdm(
        total=o.iterations * characters,
        initial=training.iteration * characters,
        unit="char",
        unit_scale=True,
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
        disable=training.group.rank > 0,
    )
    with bar, Interruption() as interruption:
        while training.iteration < o.iterations:
            is_late = bool(o.seconds) and time.perf_counter() - begin > o.seconds
            if training.largest(interruption.received or is_late):
                break
            losses.append(training.step(text, o) * BITS)
            bar.set_postfix_str(f"{losses[-1]:.3g} bits/char", refresh=False)
            bar.update(characters)
            if training.iteration % o.evaluate_every == 0 and training.group.rank == 0:
                now = time.perf_counter()
                speed = len(losses) * characters / (now - reported)
                held_out = bits_per_character(training.model, text.held_out)
                tqdm.write(
                    f"iteration {training.iteration:6}{now - begin:7.1f} s{speed:11,.0f} characters/s"
                    f"   bits per character: training {statistics.fmean(losses):.3f}"
                    f"  held-out {held_out:.3f}"
                )
                losses.clear()
                reported = time.perf_counter()
            if training.iteration % o.checkpoint_every == 0:
                save_checkpoint(o.checkpoint, training, text, o)
        save_checkpoint(o.checkpoint, training, text, o)
        return training.largest(interruption.received)
