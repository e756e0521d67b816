"""Times quantized layers beside float32 and beside the quantized layers of other libraries, in one interleaved run.

    python benchmarks/quantization_speed.py                                  # an LSTM at all shapes, some minutes
    python benchmarks/quantization_speed.py --shapes 25,1,512,512 --peers onnxruntime --modes forward

Prints a table of microseconds, medians over the rounds, and of ratios taken within the rounds: float32 divided by each
format of fastrnn; the int8 of ONNX Runtime divided by that of fastrnn; the best of the other libraries, in its best
format, divided by the best of fastrnn.
"""

import argparse
import os

import numpy as np

from interleaved import Pace, Process, measure
from libraries import FASTRNN, KINDS, LIBRARIES, PEERS, QUANTIZED, QUANTIZED_PEERS, is_installed, takes_part
from shapes import PLAIN, Shape
from suite import default_threads, parse_shape, processor

SHAPES = [
    Shape(25, 1, 512, 512), Shape(25, 16, 512, 512), Shape(25, 1, 2048, 2048), Shape(25, 16, 2048, 2048),
    Shape(100, 1, 64, 64), Shape(100, 32, 128, 128), Shape(150, 64, 256, 256), Shape(1, 1, 256, 256),
    Shape(1, 1, 512, 512),
]  # fmt: skip
ONNXRUNTIME_INT8 = "onnxruntime int8"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--kind", choices=KINDS, default=PLAIN)
    parser.add_argument("--modes", nargs="+", choices=("forward", "step"), default=["forward", "step"])
    peers = parser.add_argument_group("who takes part, beside fastrnn")
    peers.add_argument(
        "--peers", nargs="*", choices=PEERS, help="default: the libraries installed, in all their formats"
    )
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for name in arguments.peers or []:
        if not is_installed(LIBRARIES[name]):
            parser.error(f"{name} needs {' and '.join(LIBRARIES[name].modules)}: pip install '.[peers]'")
    return arguments


def libraries_of(arguments):
    """The names of the libraries that take part; fastrnn, whose results the others are compared with, comes first."""
    peers = [name for name in (*PEERS, *QUANTIZED_PEERS) if is_installed(LIBRARIES[name])]
    if arguments.peers is not None:
        peers = [name for name in peers if name.split()[0] in arguments.peers]
    return [name for name in (FASTRNN, *QUANTIZED, *peers) if arguments.kind in LIBRARIES[name].kinds]


def ratio(of, to):
    """The median over the rounds of one time divided by another."""
    return float(np.median(np.divide(of, to)))


def ratios(seconds):
    """name -> ratio, of the times of each round by library."""
    found = {f"float32 / {name.removeprefix('fastrnn ')}": ratio(seconds[FASTRNN], seconds[name]) for name in QUANTIZED}
    if ONNXRUNTIME_INT8 in seconds:
        found["ONNX Runtime int8 / int8"] = ratio(seconds[ONNXRUNTIME_INT8], seconds["fastrnn int8"])
    ours = [np.array(s) for name, s in seconds.items() if name in (FASTRNN, *QUANTIZED)]
    peers = [np.array(s) for name, s in seconds.items() if name in (*PEERS, *QUANTIZED_PEERS)]
    if peers:
        found["best peer / best of ours"] = ratio(np.min(peers, axis=0), np.min(ours, axis=0))
    return found


def table_line(cells):
    return f"| {' | '.join(cells)} |"


def main():
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    names = libraries_of(arguments)
    processes = [Process(name, LIBRARIES[name], arguments.threads) for name in names]
    print(f"{processor()}, {arguments.threads} threads, {KINDS[arguments.kind].title}\n")
    for mode in arguments.modes:
        columns = [name for name in names if takes_part(LIBRARIES[name], mode, "float32", arguments.kind)]
        shapes = [shape for shape in arguments.shapes if (mode == "step") == (shape.T == 1)]
        lines, means = [], {}
        for shape in shapes:
            taking_part = [process for process in processes if process.name in columns]
            seconds = measure(taking_part, mode, "float32", shape, Pace(rounds=arguments.rounds), arguments.kind)
            of_shape = ratios(seconds)
            for name, value in of_shape.items():
                means.setdefault(name, []).append(value)
            if not lines:
                head = [mode, *(f"{name}, us" for name in columns), *of_shape]
                print(table_line(head), f"|---|{'--:|' * (len(head) - 1)}", sep="\n")
            micros = [f"{np.median(seconds[name]) * 1e6:,.4g}" for name in columns]
            lines.append(table_line([str(shape), *micros, *(f"{value:.2f}" for value in of_shape.values())]))
            print(lines[-1], flush=True)
        if lines:
            averages = [f"{np.exp(np.mean(np.log(values))):.2f}" for values in means.values()]
            print(table_line(["geometric mean", *("" for _ in columns), *averages]), end="\n\n")
    for process in processes:
        process.stop()


if __name__ == "__main__":
    main()
