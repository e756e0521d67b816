"""The comparison at the end of char_lm.py: the time of one training step with fastrnn, with NumPy and with PyTorch."""

import importlib.util
import math
import multiprocessing
import os
import signal
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

from training import Failure  # first, because NumPy's threads are set there
import numpy as np
from char_lm_checkpoint import load_checkpoint
from char_lm_training import Training

import fastrnn


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
