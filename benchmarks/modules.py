"""Measures the modules of fastrnn.torch beside those of torch.nn, in PyTorch's eager mode.

    python benchmarks/modules.py                      # forward and training, LSTM, GRU and ragged batches, minutes
    python benchmarks/modules.py --kinds gru --modes train --shapes 1,1,64,64 25,16,512,512
    python benchmarks/modules.py --after-product      # as inside a network: a product of PyTorch before each call
    python benchmarks/modules.py --full               # all shapes of the tables, an hour and more

Both run PyTorch in a process of their own, and the processes take turns, see interleaved.py. forward is in eval mode
without gradients; train is forward and backward with all gradients. Ragged batches come and go padded. The weights stay
as they are, so packed ones are kept. After an operation the threads of PyTorch spin for some milliseconds, as they do
around each layer of a network; --after-product measures that. The results are compared before anything is timed. A
ratio is the time of torch.nn divided by that of fastrnn.torch: the median over the rounds, and the quartiles.
"""

import argparse
import os

import numpy as np

from interleaved import Pace, Process, Worker, measure
from libraries import Torch
from report import Ratio, geometric_mean
from shapes import KINDS, OF_TORCH, select
from suite import default_threads, parse_shape, processor

OURS, THEIRS = "fastrnn.torch", "torch.nn"


class TorchModules(Torch):
    modules = ("torch", "fastrnn")
    kinds = tuple(name for name in Torch.kinds if KINDS[name].layer in OF_TORCH)

    def __init__(self, threads):
        super().__init__(threads)
        import fastrnn.torch

        if threads is not None:
            fastrnn.set_num_threads(threads)
        self.namesakes = fastrnn.torch

    def layer_class(self, problem):
        return getattr(self.namesakes, problem.kind.layer)


class AfterProduct(Worker):
    """A product of PyTorch, large enough for several threads, before each call."""

    def __init__(self, library):
        super().__init__(library)
        self.matrix = library.torch.ones(256, 256)

    def before_call(self):
        self.matrix @ self.matrix


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["lstm", "gru", "lstm-ragged", "gru-ragged"]
    parser.add_argument("--kinds", nargs="+", choices=TorchModules.kinds, default=default, metavar="KIND")
    parser.add_argument("--modes", nargs="+", choices=("forward", "train"), default=["forward", "train"])
    parser.add_argument("--shapes", nargs="+", type=parse_shape, metavar="T,B,I,H")
    parser.add_argument("--full", action="store_true", help="all shapes of the tables")
    parser.add_argument("--after-product", action="store_true", help="a product of PyTorch before each call")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.05, help="seconds of a turn")
    return parser.parse_args()


def shapes_of(kind, mode, arguments):
    """The shapes of the suite; a kind other than the LSTM also has those of the LSTM, unless it is ragged."""
    kinds = (kind,) if KINDS[kind].ragged else ("lstm", kind)
    cells = select([mode], ["float32"], full=arguments.full, kinds=kinds)
    return list(dict.fromkeys(cell.shape for cell in cells))


def main():
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    classes = {OURS: TorchModules, THEIRS: Torch}
    worker = AfterProduct if arguments.after_product else Worker
    processes = [Process(name, library, arguments.threads, worker=worker) for name, library in classes.items()]
    situation = ", a product of PyTorch before each call" if arguments.after_product else ""
    print(f"{processor()}, {arguments.threads} threads, float32{situation}\n")
    print("| kind | mode | T, B, I, H | fastrnn.torch, us | torch.nn |\n|---|---|---|--:|--:|")
    pace = Pace(rounds=arguments.rounds, turn=arguments.turn)
    for kind in arguments.kinds:
        for mode in arguments.modes:
            medians = []
            for shape in arguments.shapes or shapes_of(kind, mode, arguments):
                seconds = measure(processes, mode, "float32", shape, pace, kind)
                ratio = Ratio.of(seconds[THEIRS], seconds[OURS])
                medians.append(ratio.median)
                ours = np.median(seconds[OURS]) * 1e6
                print(f"| {kind} | {mode} | {shape} | {ours:,.0f} | {ratio} |", flush=True)
            mean, lowest = geometric_mean(medians), min(medians)
            print(f"| {kind} | {mode} | geometric mean; lowest | | {mean:.2f}; {lowest:.2f} |")
    for process in processes:
        process.stop()


if __name__ == "__main__":
    main()
