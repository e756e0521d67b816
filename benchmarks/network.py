"""Measures a whole training step: layer, fully connected head, cross-entropy, clipping and Adam.

    python benchmarks/network.py                                       # some shapes, LSTM and GRU, some minutes
    python benchmarks/network.py --kinds lstm --shapes 25,16,512,512
    python benchmarks/network.py --replaced                            # PyTorch with the layer of fastrnn.torch, too
    python benchmarks/network.py --compiled                            # torch.compile takes part, too

PyTorch has its fused Adam. Each library runs in a process of its own, and the processes take turns, see interleaved.py.
Before anything is timed, the losses of the first steps are compared. A ratio is PyTorch's time divided by fastrnn's:
the median over the rounds, and the quartiles.
"""

import argparse
import os


import numpy as np

from interleaved import Pace, Process, measure
from libraries import FASTRNN, Fastrnn, Task, Torch
from report import Ratio, geometric_mean
from shapes import KINDS, PLAIN, Shape
from suite import default_threads, parse_shape, processor

CLASSES = 65  # of a model of characters
LEARNING_RATE, MAX_NORM = 1e-3, 1.0
COMPARED_LOSSES = 3
COMPILED = "PyTorch, compiled"
REPLACED = "PyTorch, replaced layer"

SHAPES = (
    Shape(100, 1, 64, 64),
    Shape(100, 32, 64, 64),
    Shape(28, 128, 28, 128),
    Shape(50, 16, 256, 256),
    Shape(25, 16, 512, 512),
    Shape(35, 20, 650, 650),
)


def head_of(problem):
    """The weight (CLASSES, H_out) and the bias of the head, and the target of each step."""
    rng = np.random.default_rng(1)
    width = problem.d_output.shape[2]
    weight = ((rng.random((CLASSES, width)) - 0.5) * 2 * width**-0.5).astype(problem.x.dtype)
    bias = np.zeros(CLASSES, problem.x.dtype)
    return weight, bias, rng.integers(0, CLASSES, problem.x.shape[:2])


def learning(step):
    """The task of a training step, which returns its loss."""
    return Task(step, lambda: {"losses": np.array([step() for _ in range(COMPARED_LOSSES)])})


class FastrnnNetwork(Fastrnn):
    def learn(self, problem):
        fastrnn, x = self.fastrnn, problem.x
        weight, bias, targets = head_of(problem)
        layer = self.layer(problem, frozen=False)
        head = fastrnn.Linear(weight.shape[1], CLASSES, dtype=x.dtype)
        head.load_state_dict({"weight": weight, "bias": bias})
        optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=LEARNING_RATE)

        def step():
            output, _, tape = layer.forward(x)
            logits, head_tape = head.forward(output)
            loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
            d_output, d_head = head.backward(head_tape, d_logits)
            d_layer = layer.backward(tape, d_output, input_gradient=False)[2]
            fastrnn.optim.clip_by_global_norm([d_layer, d_head], MAX_NORM)
            optimizer.step([d_layer, d_head])
            return loss

        return learning(step)


class TorchNetwork(Torch):
    compiled = False

    def learn(self, problem):
        torch = self.torch
        weight, bias, targets = map(torch.from_numpy, head_of(problem))
        layer, _, x = self.layer(problem)
        head = torch.nn.Linear(weight.shape[1], CLASSES, dtype=x.dtype)
        head.load_state_dict({"weight": weight, "bias": bias})
        parameters = [*layer.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
        targets = targets.reshape(-1)

        def loss_of(x):
            logits = head(layer(x)[0])
            return torch.nn.functional.cross_entropy(logits.reshape(-1, CLASSES), targets)

        if self.compiled:
            loss_of = torch.compile(loss_of)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()
            return loss.item()

        return learning(step)


class CompiledTorchNetwork(TorchNetwork):
    compiled = True


class ReplacedTorchNetwork(TorchNetwork):
    modules = ("torch", "fastrnn")

    def layer_class(self, problem):
        import fastrnn.torch

        return getattr(fastrnn.torch, problem.kind.layer)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[PLAIN, "gru"], metavar="KIND")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--replaced", action="store_true", help="the modules of fastrnn.torch take part, too")
    parser.add_argument("--compiled", action="store_true", help="torch.compile takes part, too")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    classes = {FASTRNN: FastrnnNetwork, "PyTorch": TorchNetwork}
    if arguments.replaced:
        classes[REPLACED] = ReplacedTorchNetwork
    if arguments.compiled:
        classes[COMPILED] = CompiledTorchNetwork
    processes = [Process(name, library, arguments.threads) for name, library in classes.items()]
    print(f"{processor()}, {arguments.threads} threads, {CLASSES} classes, float32\n")
    others = [name for name in classes if name != FASTRNN]
    print(f"| kind | T, B, I, H | fastrnn, us | {' | '.join(others)} |")
    print(f"|---|---|--:|{'--:|' * len(others)}")
    found = {name: [] for name in others}
    for kind in arguments.kinds:
        for shape in arguments.shapes:
            seconds = measure(processes, "learn", "float32", shape, Pace(rounds=arguments.rounds), kind)
            columns = []
            for name in others:
                low, median, high = Ratio.of(seconds[name], seconds[FASTRNN])
                found[name].append(median)
                columns.append(f"{median:.2f} ({low:.2f}-{high:.2f})")
            ours = np.median(seconds[FASTRNN]) * 1e6
            print(f"| {kind} | {shape} | {ours:,.0f} | {' | '.join(columns)} |", flush=True)
        means = " | ".join(f"{geometric_mean(found[name]):.2f}" for name in others)
        print(f"| {kind} | geometric mean | | {means} |")
        found = {name: [] for name in others}
    for process in processes:
        process.stop()


if __name__ == "__main__":
    main()
