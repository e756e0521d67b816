"""Training code of the examples: embeddings and linear heads, losses, Adam, clipping, batches and the training loop.

Import it before NumPy. Gradients are named after their arrays, d_logits or d_rows, and a model is a list of parts, each
with its `params`: an `Embedding`, a `Linear`, a fastrnn layer.

    lstm, head = fastrnn.LSTM(I, H, rng=rng), training.Linear(H, V, rng)
    optimizer = training.Optimizer([lstm, head], rate=0.003, clip=1.0)

    def step(iteration):
        output, (h, _), tape = lstm.forward(x)
        loss, d_logits = training.softmax_loss(head(h[-1]), targets)
        d_h, d_head = head.backward(h[-1], d_logits)
        _, _, d_lstm = lstm.backward(tape, None, (d_h[None], None))
        optimizer.step([d_lstm, d_head])
        return loss

    training.run(step, iterations=1000)
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# NumPy's products stay on one thread, so that a run gives the same bits on any number of cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import fastrnn

try:
    from tqdm import tqdm
except ImportError:
    print("error: the examples need tqdm: pip install '.[demo]'", file=sys.stderr)
    raise SystemExit(2) from None

# `run` checks the loss for divergence; NumPy's warnings before that are suppressed.
DIVERGING = {"over": "ignore", "invalid": "ignore"}


class Failure(Exception):
    """An error that the user can correct: one line on stderr, exit status 2."""


# Parts of a model -------------------------------------------------------------------------------


class Linear:
    """logits = rows @ weight.T + bias, for rows (..., n_in)."""

    def __init__(self, n_in, n_out, rng, dtype=np.float32):
        self.params = fastrnn.Parameters({"weight": (n_out, n_in), "bias": (n_out,)}, dtype)
        self.params["weight"][...] = rng.uniform(-1, 1, size=(n_out, n_in)) / math.sqrt(n_in)

    def __call__(self, rows):
        return rows @ self.params["weight"].T + self.params["bias"]

    def backward(self, rows, d_logits):
        """d_rows (..., n_in), and the gradient of `params`."""
        d_params = self.params.empty_like()
        d_flat = d_logits.reshape(-1, d_logits.shape[-1])
        np.matmul(d_flat.T, rows.reshape(-1, rows.shape[-1]), out=d_params["weight"])
        np.sum(d_flat, axis=0, out=d_params["bias"])
        return d_logits @ self.params["weight"], d_params


class Embedding:
    """A vector (E,) for each of V symbols."""

    def __init__(self, V, E, rng, dtype=np.float32):
        self.params = fastrnn.Parameters({"weight": (V, E)}, dtype)
        self.params["weight"][...] = rng.normal(size=(V, E))

    def __call__(self, ids):
        return self.params["weight"][ids]

    def backward(self, ids, d_vectors):
        """The gradient of `params`, of ids (...) and d_vectors (..., E)."""
        d_params = self.params.zeros_like()
        add_by_symbol(d_params["weight"], ids, d_vectors)
        return d_params


def add_by_symbol(d_embedding, ids, d_vectors):
    """Adds to each row of d_embedding (V, E) the d_vectors (..., E) at the positions of its symbol in ids (...)."""
    if ids.size == 0:
        return
    # sort by symbol, sum the runs
    order = np.argsort(ids, axis=None, kind="stable")
    present, starts = np.unique(ids.ravel()[order], return_index=True)
    d_places = d_vectors.reshape(ids.size, -1)[order]
    d_embedding[present] += np.add.reduceat(d_places, starts, axis=0)


# Losses -----------------------------------------------------------------------------------------


def cross_entropy(logits, targets):
    """logits (N, V), targets (N,) -> -log softmax(logits)[target] in nats (N,), and the softmax, computed in place of
    logits."""
    logits -= logits.max(axis=1, keepdims=True)
    wanted = logits[np.arange(len(targets)), targets]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    logits /= total
    return np.log(total[:, 0]) - wanted, logits


def softmax(scores):
    """The softmax of scores along the last axis, in place; -inf becomes 0."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def softmax_loss(logits, targets, mask=None):
    """The mean cross-entropy in nats, and its gradient d_logits.

    logits (..., V), targets (...), and an optional mask (...) of the counted positions. Overwrites logits.
    """
    V = logits.shape[-1]
    with np.errstate(**DIVERGING):
        losses, d_logits = cross_entropy(logits.reshape(-1, V), targets.ravel())
    d_logits[np.arange(targets.size), targets.ravel()] -= 1
    if mask is None:
        d_logits *= 1 / targets.size
        loss = losses.mean(dtype=np.float64)
    else:
        weights = mask.ravel() / max(1, np.count_nonzero(mask))
        d_logits *= weights[:, None]
        loss = losses @ weights
    return float(loss), d_logits.reshape(logits.shape)


def squared_loss(outputs, targets):
    """The mean squared error, and its gradient d_outputs."""
    error = outputs - targets
    return float(np.mean(error * error, dtype=np.float64)), error * error.dtype.type(2 / error.size)


# Optimization -----------------------------------------------------------------------------------


class Adam:
    """Kingma and Ba 2015, on flat arrays, in blocks that stay in the cache."""

    BLOCK = 1 << 14

    def __init__(self, flats, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.first = [np.zeros_like(flat) for flat in flats]  # running mean of the gradient
        self.second = [np.zeros_like(flat) for flat in flats]  # and of its square

    def step(self, flats, d_flats, rate, t, scale=1.0):
        """The t-th step, t = 1, 2, ..., along scale * d_flats; overwrites d_flats."""
        beta1, beta2 = self.beta1, self.beta2
        correction = math.sqrt(1 - beta2**t)
        rate *= correction / (1 - beta1**t)
        epsilon = self.epsilon * correction
        for whole in zip(flats, d_flats, self.first, self.second):
            for start in range(0, len(whole[0]), self.BLOCK):
                p, g, m, v = (array[start : start + self.BLOCK] for array in whole)
                m *= beta1
                m += np.multiply(g, (1 - beta1) * scale)
                v *= beta2
                g *= g
                g *= (1 - beta2) * scale**2
                v += g
                np.sqrt(v, out=g)
                g += epsilon
                np.divide(m, g, out=g)
                g *= rate
                p -= g


def gradient_norm(d_flats):
    """The norm of the whole gradient."""
    return math.sqrt(sum(float(np.dot(d_flat, d_flat)) for d_flat in d_flats))


def clip_scale(d_flats, limit):
    """The factor that reduces a gradient's global norm to at most `limit` (Pascanu 2013)."""
    norm = gradient_norm(d_flats)
    return min(1.0, limit / norm) if norm else 1.0


class Optimizer:
    """Adam on the parts of a model, the whole gradient clipped by its norm."""

    def __init__(self, parts, rate, clip=math.inf):
        self.flats = [part.params.flat for part in parts]
        self.adam = Adam(self.flats)
        self.rate, self.clip, self.t = rate, clip, 0

    def step(self, d_params, rate=None):
        """One step along the gradients of the parts, in their order; overwrites them. `rate` applies to this step
        only."""
        d_flats = [d.flat for d in d_params]
        self.t += 1
        scale = clip_scale(d_flats, self.clip)
        self.adam.step(self.flats, d_flats, self.rate if rate is None else rate, self.t, scale)


def batches(n, size, rng):
    """Endless batches of indices (size,) of n examples: a new order in each pass, without an incomplete last batch."""
    size = min(size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def run(step, iterations, description="", *, until=None):
    """Calls step(iteration), which returns a loss, and shows a bar; returns the losses.

    Ends early if `until(iteration)`, called after each step, returns true.
    """
    losses = []
    interval = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=iterations, desc=description, mininterval=interval, disable=description is None) as bar:
        for iteration in range(iterations):
            loss = step(iteration)
            if not math.isfinite(loss):
                raise Failure(f"{description}: the loss is {loss} at iteration {iteration}")
            losses.append(loss)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()
            if until and until(iteration):
                break
    return losses


def side_by_side(function, jobs, description=""):
    """[function(*job) for job in jobs], in parallel on all cores, one job per core, with a bar.

    For many small trainings. The function and its arguments must be picklable; results are in the order of the jobs.
    """
    jobs = list(jobs)
    workers = min(len(jobs), fastrnn.get_num_threads())
    spawn = multiprocessing.get_context("spawn")
    interval = 0.1 if sys.stderr.isatty() else 10
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, spawn, fastrnn.set_num_threads, (1,)))
        bar = stack.enter_context(tqdm(total=len(jobs), desc=description, mininterval=interval))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        futures = [pool.submit(function, *job) for job in jobs]
        for future in futures:
            future.add_done_callback(lambda _: bar.update())
        return [future.result() for future in futures]


# The command line -------------------------------------------------------------------------------


def study(main, description):
    """Runs an example of the study: main(options) -> its numbers, which are written as JSON.

    `options` has `quick`, `seed` and `output`, the folder for figures. The numbers, a dictionary, go to NAME.json in
    that folder; NAME is the name of the example's file.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: seconds, and rougher numbers")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same numbers (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("build/study"), help="default: %(default)s", metavar="FOLDER"
    )
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    begin = time.perf_counter()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        numbers = main(options)
        name = Path(sys.modules["__main__"].__file__).stem
        about = {"quick": options.quick, "seed": options.seed, "seconds": round(time.perf_counter() - begin, 1)}
        path = options.output / f"{name}.json"
        path.write_text(json.dumps({**about, **numbers}, indent=1) + "\n", encoding="utf-8")
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{about['seconds']} s; numbers and pictures in {options.output}/")
