"""A character language model, after Karpathy's char-rnn, on NumPy and fastrnn.

    python examples/char_lm.py                          # the manual of Python, about a minute
    python examples/char_lm.py --text book.txt --layers 2 --hidden 384 --iterations 10000
    python examples/char_lm.py --resume                 # go on from the checkpoint, bit for bit
    mpiexec -n 4 python examples/char_lm.py --distributed    # on four processes, with the same bits as on one

Each character is an embedding, the LSTM reads the embeddings, and a linear head scores the next character. Every number
of a training step is computed by fastrnn, so that a run has the same bits on any number of threads and with any
instruction set, and no BLAS competes for the cores.

char_lm_text.py        the text, in streams and windows
char_lm_model.py       the model, its cost on a text, its samples
char_lm_training.py    the training, on one process or several
char_lm_checkpoint.py  files from which a training goes on
char_lm_speed.py       the same step with NumPy and with PyTorch
char_lm_options.py     the command line
"""

import contextlib
import os
import signal
import sys

from training import Failure  # first, because NumPy's threads are set there
import numpy as np
from char_lm_checkpoint import load_checkpoint
from char_lm_model import bits_per_character, sample
from char_lm_options import parse
from char_lm_speed import compare
from char_lm_text import read_text
from char_lm_training import Training, train

import fastrnn


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
