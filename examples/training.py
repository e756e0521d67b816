"""Training code of the examples: heads that begin as those of the study, embeddings, batches and the training loop.

Import it before NumPy. The parts of a model are fastrnn layers, heads of `linear` and `Embedding`s; losses, clipping
and optimizers are those of fastrnn. Gradients are named after their arrays, d_logits or d_rows.

    lstm, head = fastrnn.LSTM(I, H, rng=rng), training.linear(H, V, rng)
    optimizer = fastrnn.optim.Adam([lstm.params, head.params], lr=0.003)

    def step(iteration):
        output, (h, _), tape = lstm.forward(x)
        logits, head_tape = head.forward(h[-1])
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
        d_h, d_head = head.backward(head_tape, d_logits)
        _, _, d_lstm = lstm.backward(tape, None, (d_h[None], None))
        fastrnn.optim.clip_by_global_norm([d_lstm, d_head], 1.0)
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


class Failure(Exception):
    """An error that the user can correct: one line on stderr, exit status 2."""


# Parts of a model -------------------------------------------------------------------------------


def linear(n_in, n_out, rng, dtype=np.float32):
    """A fastrnn.Linear whose bias begins at zero."""
    part = fastrnn.Linear(n_in, n_out, dtype=dtype, rng=0)
    part.params["weight"][...] = rng.uniform(-1, 1, size=(n_out, n_in)) / math.sqrt(n_in)
    part.params["bias"][...] = 0
    return part


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


def softmax(scores):
    """The softmax of scores along the last axis, in place; -inf becomes 0."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


# Training ---------------------------------------------------------------------------------------


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
    In a notebook, whose functions other processes cannot import, one job follows the other.
    """
    jobs = list(jobs)
    if not hasattr(sys.modules["__main__"], "__file__"):
        return [function(*job) for job in tqdm(jobs, description)]
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


def spread(values, form=".2f"):
    """The mean as text, and the least and the greatest value in brackets if there are several."""
    mean = format(np.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def number_of(seeds):
    """The number of seeds, as text."""
    return "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"


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
