"""Counts the numbers whose bits depend on something that should not matter, for each library.

    python benchmarks/bits.py              # a minute; the libraries that are installed
    python benchmarks/bits.py docs/bits    # writes docs/bits.png, and the shares in docs/bits.json

An LSTM of float32 is computed twice, with one difference: a sequence alone or in a batch, whole or in single steps,
with one thread or two, with the instructions of AVX-512 or of AVX2. The figure is the share of the numbers that differ
in at least one bit, the largest over the shapes below. Each library is configured as in the benchmarks of speed
(libraries.py). A place is empty where a library has no gradients, or no switch for the instruction set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from libraries import FASTRNN, LIBRARIES, PEERS, REFERENCE, Problem, is_installed, takes_part
from shapes import Shape

SHAPES = [Shape(*sizes) for sizes in ((100, 16, 64, 128), (50, 7, 37, 53), (20, 20, 200, 200), (100, 33, 40, 250))]
SEQUENCE = 3  # of the batch, computed alone

# The environment that forces AVX2 where a library would take AVX-512.
AVX2 = {
    FASTRNN: {"FASTRNN_ISA": "avx2"},
    "torch": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    REFERENCE: {"OPENBLAS_CORETYPE": "Haswell"},
}
TITLES = {
    FASTRNN: "fastrnn",
    "torch": "PyTorch",
    "onnxruntime": "ONNX\nRuntime",
    "openvino": "OpenVINO",
    REFERENCE: "loop in\nNumPy",
}
ALONE, STEPS, THREADS, ISA = "alone, or in a batch", "whole, or step by step", "1 thread, or 2", "AVX-512, or AVX2"


def results(name, threads):
    """{array of a shape: numbers} of one process: outputs of the batch, of a sequence alone, of steps; gradients."""
    library, found = LIBRARIES[name](threads), {}
    for shape in SHAPES:
        problem = Problem.of(shape, "float32")
        alone = replace(problem, x=problem.x[:, [SEQUENCE]].copy(), sizes=shape._replace(B=1))
        for array, mode, given in (
            ("output", "forward", problem),
            ("alone", "forward", alone),
            ("steps", "step", problem),
        ):
            task = getattr(library, mode)(given)
            with task.around():
                found[f"{array} {shape}"] = np.array(task.results()["output"])
        if takes_part(library, "train", "float32"):
            gradients = library.train(problem).results()
            found[f"gradients {shape}"] = np.concatenate(
                [np.ravel(gradients[parameter]) for parameter in problem.params]
            )
    return found


def in_a_process(name, threads, environment=()):
    """`results` of a fresh process with these variables."""
    variables = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")} | dict(environment)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.npz")
        command = [sys.executable, __file__, "--worker", name, str(threads), str(file)]
        subprocess.run(command, env=os.environ | variables, check=True)
        with np.load(file) as arrays:
            return dict(arrays)


def differing(a, b):
    """The share of the numbers that differ in at least one bit."""
    return float(np.mean(a.view(np.uint32) != b.view(np.uint32)))


def largest(first, second, array, other=None):
    """The largest share over the shapes between two processes, or two arrays; None without such an array."""
    pairs = [(f"{array} {shape}", f"{other or array} {shape}") for shape in SHAPES]
    if second is None or pairs[0][0] not in first:
        return None
    cut = (lambda a: a[:, [SEQUENCE]]) if other == "alone" else (lambda a: a)
    return max(differing(cut(first[one]), second[another]) for one, another in pairs)


def measured(name):
    """{what differs: the share of the outputs, or of the gradients of the parameters} of a library."""
    one, two = in_a_process(name, 1), in_a_process(name, 2)
    avx2 = in_a_process(name, 1, AVX2[name]) if name in AVX2 else None
    return {
        f"output: {ALONE}": largest(two, two, "output", "alone"),
        f"output: {STEPS}": largest(two, two, "output", "steps"),
        f"output: {THREADS}": largest(one, two, "output"),
        f"output: {ISA}": largest(one, avx2, "output"),
        f"gradients: {THREADS}": largest(one, two, "gradients"),
        f"gradients: {ISA}": largest(one, avx2, "gradients"),
    }


def draw(run, path):
    """A table with the shares as colours."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(next(iter(run.values())))
    figure, panel = plt.subplots(figsize=(6.4, 0.42 * len(rows) + 1.0), layout="constrained")
    for y, row in enumerate(rows):
        for x, shares in enumerate(run.values()):
            share = shares[row]
            colour = "#F4F4F4" if share is None else "#D8ECE3" if share == 0 else "#F2C6B4"
            panel.add_patch(plt.Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, color=colour))
            text = "–" if share is None else "same bits" if share == 0 else f"{share:.0%} differ"
            panel.text(x, y, text, ha="center", va="center", fontsize=8.5, color="#222222")
    panel.set_xlim(-0.5, len(run) - 0.5)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xticks(range(len(run)), [TITLES[name] for name in run], fontsize=9)
    panel.set_yticks(range(len(rows)), rows, fontsize=9)
    panel.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    panel.spines[:].set_visible(False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def main():
    if sys.argv[1:2] == ["--worker"]:
        name, threads, file = sys.argv[2:]
        np.savez(file, **results(name, int(threads)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="?", default="build/bits", help="of the files written; default %(default)s")
    prefix = Path(parser.parse_args().prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = [FASTRNN, *(name for name in PEERS if is_installed(LIBRARIES[name])), REFERENCE]
    run = {name: measured(name) for name in names}
    for name, found in run.items():
        for what, share in found.items():
            print(f"{name:12} {what:32} {'-' if share is None else f'{share:6.1%}'}")
    prefix.with_suffix(".json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    draw(run, prefix.with_suffix(".png"))


if __name__ == "__main__":
    main()
