"""The command line of char_lm.py."""

import argparse
import math

from training import Failure


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
