"""A character language model, after Karpathy's char-rnn, on NumPy and fastrnn.

    python examples/char_lm.py                          # the manual of Python, about a minute
    python examples/char_lm.py --text book.txt --layers 2 --hidden 384 --iterations 10000
    python examples/char_lm.py --resume                 # go on from the checkpoint, bit for bit
    mpiexec -n 4 python examples/char_lm.py --distributed    # on four processes, with the same bits as on one

Each character is an embedding, the LSTM reads the embeddings, and a linear head scores the next character. Every number
of a training step is computed by fastrnn, so that a run has the same bits on any number of threads and with any
instruction set, and no BLAS competes for the cores.

The text is cut into B streams, read in parallel in windows of T characters; the state is carried from window to window
while gradients stop at a window's edge (truncated backpropagation through time). The last twentieth of the text is held
out for evaluation.

Sizes: T steps, B streams, N = T*B, V distinct characters, E embedding, H hidden, L layers.
A gradient is named after its array: d_logits, d_embedding.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import signal
import statistics
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from training import Failure  # first, because NumPy's threads are set there
import numpy as np
from tqdm import tqdm

import fastrnn

BITS = 1 / math.log(2)  # bits per nat

# The text ---------------------------------------------------------------------------------------


class Text:
    """The characters as indices into the vocabulary: `train`, and `held_out`, the last twentieth."""

    def __init__(self, characters):
        codes = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
        distinct, ids = np.unique(codes, return_inverse=True)
        self.vocabulary = "".join(map(chr, distinct))
        self.sha256 = hashlib.sha256(codes).hexdigest()
        self.ids = ids
        self.train, self.held_out = np.split(ids, [len(ids) - len(ids) // 20])

    def encode(self, characters):
        unknown = sorted(set(characters) - set(self.vocabulary))
        if unknown:
            raise Failure(f"--prompt: {unknown[0]!r} does not occur in the text")
        return np.array([self.vocabulary.index(character) for character in characters])

    def decode(self, ids):
        return "".join(self.vocabulary[i] for i in ids)

    def window(self, k, T, B):
        """Inputs (T, B), targets (T, B), and whether the window is the first of a pass."""
        length = (len(self.train) - 1) // B  # of each stream
        k %= length // T
        here = slice(k * T, (k + 1) * T)
        inputs = self.train[: B * length].reshape(B, length)[:, here].T
        targets = self.train[1 : B * length + 1].reshape(B, length)[:, here].T
        return inputs, targets, k == 0


def read_text(path, T, B):
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise Failure("this Python comes without pydoc_data.topics: give a --text") from None
        characters = "".join(topics[name] for name in sorted(topics))
    else:
        try:
            characters = Path(path).read_bytes().decode("utf-8")
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise Failure(f"{path}: not UTF-8 at byte {error.start}") from None
    # B streams of T characters and one last target, once a twentieth of at least 2 is held out
    least = max(40, B * T + 1 + B * T // 19)
    if len(characters) < least:
        name = path or "pydoc_data.topics"
        found = f"{len(characters):,} characters" if characters else "no text"
        raise Failure(f"{name}: {found}; --batch {B} --unroll {T} needs at least {least:,}")
    return Text(characters)


# The model --------------------------------------------------------------------------------------


class CharModel:
    """Embedding, LSTM layers, linear head, softmax cross-entropy.

    The embedding is a linear layer without bias on the one-hot vectors of the characters. So its gradient is a product
    of the kernels, too, with one order of its sums.
    """

    def __init__(self, V, E, H, layers=1, *, dtype=np.float32, rng=None):
        rng = np.random.default_rng(rng)
        self.lstm = fastrnn.LSTM(E, H, layers, dtype=dtype, rng=rng)
        self.embedding = fastrnn.Linear(V, E, bias=False, dtype=dtype, rng=0)
        self.embedding.params["weight"][...] = rng.normal(size=(V, E)).T
        self.head = fastrnn.Linear(H, V, dtype=dtype, rng=0)
        self.head.params["weight"][...] = rng.uniform(-1, 1, size=(V, H)) / math.sqrt(H)
        self.head.params["bias"][...] = 0
        self.one_hot = np.eye(V, dtype=dtype)

    @property
    def params(self):
        """Every parameter, of the embedding, the LSTM and the head."""
        return [self.embedding.params, self.lstm.params, self.head.params]

    def gradient(self, inputs, targets, state, fraction=1.0):
        """inputs, targets (T, B), state (h, c) -> mean loss in nats, state, its gradient by `params`.

        Loss and gradient are multiplied by `fraction`, the part that the B streams are of all.
        """
        # 1. embed                                                        x      (T, B, E)
        x, embedding_tape = self.embedding.forward(self.one_hot[inputs])
        # 2. read                                                         output (T, B, H)
        output, state, tape = self.lstm.forward(x, state)
        # 3. score                                                        logits (T, B, V)
        logits, head_tape = self.head.forward(output)
        # 4. compare, forward and backward
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
        d_logits *= fraction
        # 3. the head
        d_output, d_head = self.head.backward(head_tape, d_logits)
        # 2. the LSTM
        d_x, _, d_lstm = self.lstm.backward(tape, d_output)
        # 1. each character's embedding sums the gradients at its positions
        _, d_embedding = self.embedding.backward(embedding_tape, d_x)
        return fraction * loss, state, [d_embedding, d_lstm, d_head]

    def embed(self, inputs):
        """inputs (...) -> their embeddings (..., E)."""
        return np.ascontiguousarray(self.embedding.params["weight"].T)[inputs]

    def predict(self, inputs, state):
        """inputs (T, B) -> the logits of the next characters (T, B, V), state."""
        output, state = self.lstm(self.embed(inputs), state)
        return self.head(output), state


# Training ---------------------------------------------------------------------------------------


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


def bits_per_character(model, ids, shortest=16384):
    """The cost of reading `ids` (n,) once from beginning to end, with the state carried.

    Every character but the first is predicted from all before it. A long text is read as several parallel streams, none
    shorter than `shortest`; the remainder of the division is left out.
    """
    n = len(ids) - 1
    B = max(1, n // shortest)
    inputs = ids[: n // B * B].reshape(B, -1).T
    targets = ids[1 : n // B * B + 1].reshape(B, -1).T
    T = max(1, 4096 // B)
    total, state = 0.0, None
    for start in range(0, len(inputs), T):
        logits, state = model.predict(inputs[start : start + T], state)
        loss, _ = fastrnn.softmax_cross_entropy(logits, targets[start : start + T])
        total += loss * logits[..., 0].size
    return total / targets.size * BITS


def sample(model, prompt, samples, length, temperature, rng):
    """Continues prompt (P,) by `length` characters, `samples` times; returns ids (P + length, S)."""
    ids = np.repeat(np.asarray(prompt)[:, None], samples, axis=1)
    written, state = [ids], None
    for _ in range(length):
        logits, state = model.predict(ids, state)
        scores = logits[-1].astype(np.float64)  # (S, V)
        scores -= scores.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            scores /= temperature
        # the largest of score + Gumbel noise is a draw from softmax(scores)
        ids = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)[None]
        written.append(ids)
    return np.concatenate(written)


# Checkpoints ------------------------------------------------------------------------------------
# An .npz file with its own SHA-256 at the end: np.load reads it, and no damage goes unnoticed.

FORMAT = "fastrnn char_lm 2"
ADAM = "adam."  # before the names of the optimizer's state
HYPERPARAMETERS = (
    "embedding", "hidden", "layers", "batch", "unroll", "learning_rate", "warm_up", "decay",
    "clip", "seed", "shards",
)  # fmt: skip


def save_checkpoint(path, training, text, o):
    """Writes the state of all ranks, on rank 0."""
    training.gather_state()
    if training.group.rank:
        return
    about = {
        "format": FORMAT,
        "iteration": training.iteration,
        "text": text.sha256,
        "vocabulary": text.vocabulary,
        "hyperparameters": {name: getattr(o, name) for name in HYPERPARAMETERS},
    }
    payload = io.BytesIO()
    state = {ADAM + name: value for name, value in training.optimizer.state_dict().items()}
    np.savez(payload, about=np.array(json.dumps(about)), **model_arrays(training), **state)
    data = payload.getvalue()
    try:
        write_atomically(path, data + hashlib.sha256(data).digest())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def load_checkpoint(path, training, text, o):
    """Brings `training` to where the checkpoint was saved."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    data, digest = data[:-32], data[-32:]
    if hashlib.sha256(data).digest() != digest:
        raise Failure(f"{path}: damaged, or no checkpoint of this program")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            about = json.loads(str(saved["about"]))
            if about["format"] != FORMAT:
                raise Failure(f"{path}: has format {about['format']!r}, not {FORMAT!r}")
            for name, value in about["hyperparameters"].items():
                if value != getattr(o, name):
                    option = "--" + name.replace("_", "-")
                    raise Failure(f"{path}: made with {option} {value}, not {getattr(o, name)}")
            if about["text"] != text.sha256:
                raise Failure(f"{path}: made from another text")
            for name, array in model_arrays(training).items():
                array[...] = saved[name]
            training.optimizer.load_state_dict(
                {name.removeprefix(ADAM): saved[name] for name in saved if name.startswith(ADAM)}
            )
            training.iteration = about["iteration"]
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        raise Failure(f"{path}: no checkpoint of this program") from None


def model_arrays(training):
    """Name -> array, the very arrays that training works on."""
    names = ("embedding", "lstm", "head")
    h, c = training.state
    return {"h": h, "c": c} | {name: params.flat for name, params in zip(names, training.model.params)}


def write_atomically(path, data):
    """Replaces `path` atomically: after a power failure it holds either the old content or all of `data`."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # make the new name last too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


# The same step elsewhere ------------------------------------------------------------------------


class ReferenceLSTM:
    """The layers of an LSTM, with the same parameters, computed by fastrnn.reference."""

    NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def __init__(self, lstm):
        self.params = lstm.params

    def forward(self, x, state):
        tapes, states = [], []
        for layer, state_0 in enumerate(zip(*state)):
            weights = [self.params[f"{name}_l{layer}"] for name in self.NAMES]
            x, state_n, tape = fastrnn.reference.lstm_forward(x, state_0, *weights)
            tapes.append(tape)
            states.append(state_n)
        h_n, c_n = (np.stack(part) for part in zip(*states))
        return x, (h_n, c_n), tapes

    def backward(self, tapes, d_output):
        d_params = self.params.empty_like()
        for layer, tape in reversed(list(enumerate(tapes))):
            d_output, _, d_weights = fastrnn.reference.lstm_backward(tape, d_output)
            for name in self.NAMES:
                d_params[f"{name}_l{layer}"][...] = d_weights[name]
        return d_output, None, d_params


def median_seconds(step, times, limit=5.0):
    """Of up to `times` steps, once two have warmed up; fewer where they would exceed `limit`."""
    seconds = []
    while len(seconds) < 5 or len(seconds) < 2 + times and sum(seconds) < limit:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def reference_seconds(text, o, threads):
    """The loss of the next step on fastrnn.reference, and the median time of such steps."""
    fastrnn.set_num_threads(threads)  # for embedding and head
    training = Training.begin(len(text.vocabulary), o)
    load_checkpoint(o.checkpoint, training, text, o)
    training.model.lstm = ReferenceLSTM(training.model.lstm)
    loss = training.step(text, o)
    return loss, median_seconds(lambda: training.step(text, o), 5)


def torch_seconds(V, o, threads):
    """PyTorch's name, and its median time of the same step."""
    import torch

    torch.set_num_threads(threads)
    embedding = torch.nn.Embedding(V, o.embedding)
    lstm = torch.nn.LSTM(o.embedding, o.hidden, o.layers)
    head = torch.nn.Linear(o.hidden, V)
    parameters = [*embedding.parameters(), *lstm.parameters(), *head.parameters()]
    adam = torch.optim.Adam(parameters, o.learning_rate)
    inputs, targets = torch.randint(V, (2, o.unroll, o.batch))
    state = None

    def step():
        nonlocal state
        adam.zero_grad()
        output, (h, c) = lstm(embedding(inputs), state)
        loss = torch.nn.functional.cross_entropy(head(output).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, o.clip)
        adam.step()
        loss.item()
        state = h.detach(), c.detach()

    return f"PyTorch {torch.__version__}", median_seconds(step, 30)


def in_own_process(function, *arguments):
    """Gives a library all cores, for NumPy's products too."""
    os.environ["OPENBLAS_NUM_THREADS"] = str(fastrnn.get_num_threads())
    spawn = multiprocessing.get_context("spawn")
    quiet = signal.signal, (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it silently
    with ProcessPoolExecutor(1, spawn, *quiet) as process:
        return process.submit(function, *arguments).result()


def compare(training, text, o):
    """Times the next training step on fastrnn, on the reference, and in PyTorch."""
    threads = fastrnn.get_num_threads()
    reference_loss, reference = in_own_process(reference_seconds, text, o, threads)
    loss = training.step(text, o)
    if not math.isclose(loss, reference_loss, rel_tol=1e-3):  # compare first, then time
        raise Failure(f"fastrnn and its reference disagree: losses {loss} and {reference_loss}")
    rows = {
        "fastrnn": median_seconds(lambda: training.step(text, o), 30),
        "fastrnn.reference, NumPy": reference,
    }
    if importlib.util.find_spec("torch"):
        try:
            name, seconds = in_own_process(torch_seconds, len(text.vocabulary), o, threads)
            rows[name] = seconds
        except Exception as error:  # a broken installation of torch must not end the run
            print(f"\nPyTorch could not be timed: {error}")
    print(f"\none training step, {o.batch} x {o.unroll} characters; threads: {threads}")
    for name, seconds in rows.items():
        speed = o.unroll * o.batch / seconds
        times = f"{seconds / rows['fastrnn']:.2f}"
        print(f"  {name:28}{seconds * 1e3:9.1f} ms{speed:12,.0f} characters/s{times:>8} x the time")


# The command line -------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Failure(f"{message} (--help lists the options)")


def whole(least, most=2**31 - 1):
    def convert(given):
        try:
            value = int(given)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            expected = f"expected a whole number from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{expected}, got {given!r}")
        return value

    return convert


def positive(given):
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {given!r}")
    return value


def parse(arguments):
    parser = Parser(description="Train a character language model, and let it write.", allow_abbrev=False)

    def option(name, help, **settings):
        if settings.get("default") is not None:
            help += " (default: %(default)s)"
        parser.add_argument(name, help=help, **settings)

    count = whole(1)
    option("--text", "UTF-8 text (default: the prose in pydoc_data.topics)", metavar="FILE")
    option("--embedding", "size of an embedding", type=count, default=64, metavar="E")
    option("--hidden", "size of an LSTM layer", type=count, default=256, metavar="H")
    option("--layers", "LSTM layers", type=count, default=1, metavar="L")
    option("--batch", "streams read side by side", type=count, default=32, metavar="B")
    option("--unroll", "steps of backpropagation", type=count, default=64, metavar="T")
    option("--learning-rate", "of Adam, at most", type=positive, default=0.01, metavar="R")
    option("--warm-up", "iterations of rising rate", type=positive, default=100.0, metavar="W")
    option(
        "--decay",
        "iteration t trains at R * min(1, t/W) / (1 + t/D)",
        type=positive,
        default=300.0,
        metavar="D",
    )
    option("--clip", "norm of the gradient, at most", type=positive, default=0.5, metavar="NORM")
    option("--iterations", "in all, resumed ones too", type=count, default=2000, metavar="N")
    option("--seconds", "train no longer than this", type=positive, metavar="S")
    option("--evaluate-every", "iterations", type=count, default=500, metavar="N")
    option("--seed", "the same seed, the same run", type=whole(0), default=1)
    option("--distributed", "train on all processes that mpiexec has started", action="store_true")
    option("--shards", "parts of the batch, at least the processes, with --distributed", type=count, metavar="S")
    option("--threads", "for fastrnn (default: all cores)", type=whole(1, 1024), metavar="N")
    option("--checkpoint", "replaced if it exists", default="char_lm.npz", metavar="FILE")
    option("--checkpoint-every", "iterations", type=count, default=500, metavar="N")
    option("--resume", "go on from the checkpoint", action="store_true")
    option("--samples", "how many to write", type=count, default=3, metavar="S")
    option("--sample-length", "characters", type=count, default=400, metavar="N")
    option("--temperature", "below 1 safer, above wilder", type=positive, default=0.6)
    option("--prompt", "what a sample begins with (default: as the text, 4 characters)")
    option("--no-compare", "leave out the timing at the end", action="store_true")
    o = parser.parse_args(arguments)
    if o.shards and not o.distributed:
        parser.error("--shards: needs --distributed")
    o.shards = o.shards or (8 if o.distributed else 1)
    return o


def run(o):
    text = read_text(o.text, o.unroll, o.batch)
    prompt = text.encode(o.prompt) if o.prompt else text.ids[:4]
    if o.threads:
        fastrnn.set_num_threads(o.threads)
    training = Training.begin(len(text.vocabulary), o)
    with failing_together(training.group):
        return run_training(training, text, prompt, o)


@contextlib.contextmanager
def failing_together(group):
    """A failure of one rank ends all; ranks other than 0 print nothing else."""
    try:
        with contextlib.ExitStack() as stack:
            if group.rank:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except Failure as failure:
        if group.size > 1:
            print(f"error: {failure}", file=sys.stderr)
            group.abort(2)
        raise


def run_training(training, text, prompt, o):
    if o.resume:
        load_checkpoint(o.checkpoint, training, text, o)
    folder = os.path.dirname(os.path.realpath(o.checkpoint))
    if os.path.isdir(o.checkpoint) or not os.access(folder, os.W_OK):
        raise Failure(f"--checkpoint {o.checkpoint}: cannot be written")

    size = sum(params.flat.size for params in training.model.params)
    print(
        f"reading {o.text or 'the manual of Python (pydoc_data.topics)'}: "
        f"{len(text.ids):,} characters, {len(text.vocabulary)} distinct, the last twentieth held out; "
        f"{size:,} parameters: embedding {o.embedding}, {o.layers} x LSTM {o.hidden}; "
        f"{o.batch} x {o.unroll} characters a step; threads: {fastrnn.get_num_threads()}"
    )
    received = train(training, text, o)
    if received:
        print(
            f"stopped at iteration {training.iteration}, saved in {o.checkpoint}; --resume goes on from there",
            file=sys.stderr,
        )
        return 128 + received
    if training.group.rank:
        return 0
    held_out = bits_per_character(training.model, text.held_out)
    print(f"held-out text after {training.iteration} iterations: {held_out:.3f} bits per character")
    if o.distributed:
        print(f"SHA-256 of the parameters: {training.digest()}")

    rng = np.random.default_rng([o.seed, training.iteration])
    columns = sample(training.model, prompt, o.samples, o.sample_length, o.temperature, rng).T
    for ids in columns:
        print(f"\n--- a sample at temperature {o.temperature:g} ".ljust(80, "-"))
        print(text.decode(ids))
    print(
        f"\nthe model is saved in {o.checkpoint}; next, as in make demo ARGS='--resume':\n"
        f"  --resume --iterations {2 * training.iteration}   trains on from here\n"
        f"  --resume --temperature 0.9   writes other samples\n"
        f"  --text FILE --checkpoint FILE   learns another text; --help lists the rest"
    )
    if not o.no_compare and not o.distributed:
        compare(training, text, o)
    return 0


def main(arguments=None):
    # any text prints on any terminal, and a log can be followed
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        return run(parse(arguments))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: not enough memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
