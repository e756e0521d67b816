"""Measures fastrnn beside JAX and Keras, which compile the loop over the steps with XLA.

    python benchmarks/scans.py                                        # some shapes, LSTM and GRU, some minutes
    python benchmarks/scans.py --kinds gru --shapes 100,1,64,64

JAX runs `jax.jit` of a `lax.scan` over the steps, after one product with the inputs of all steps; training adds
`jax.vjp` in the same compiled function. Keras, on JAX, runs `predict_on_batch`. Compilation is outside the timing. Each
library runs in a process of its own, and the processes take turns, see interleaved.py. Results are compared before
anything is timed. A ratio is the other library's time divided by fastrnn's: the median over the rounds, and the
quartiles.
"""

import argparse
import os

import numpy as np

from interleaved import Pace, Process, measure
from libraries import FASTRNN, Fastrnn, Task, named
from report import Ratio, geometric_mean
from shapes import PLAIN, Shape
from suite import default_threads, parse_shape, processor

SHAPES = (
    Shape(1, 1, 64, 64),
    Shape(100, 1, 64, 64),
    Shape(100, 32, 64, 64),
    Shape(100, 32, 200, 200),
    Shape(25, 16, 512, 512),
)
MODES = ("forward", "train")
KINDS = (PLAIN, "gru")


class Jax:
    """A jitted scan.

    XLA takes as many threads as the process may use processors. Neither a transposed copy of the recurrent weight nor
    `unroll` made it faster over all shapes.
    """

    modules = ("jax",)
    dtypes = ("float32",)
    kinds = KINDS

    def __init__(self, threads):
        import jax

        self.jax = jax
        self.version = f"JAX {jax.__version__}"

    def layer(self, problem):
        """(a function of parameters and x that returns output and state_n, the parameters, x)."""
        jax, np = self.jax, self.jax.numpy
        sigmoid = jax.nn.sigmoid
        is_lstm = problem.kind.layer == "LSTM"

        def lstm_step(state, projected, weight_hh, bias_hh):
            h, c = state
            i, f, g, o = np.split(projected + h @ weight_hh.T + bias_hh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            return (h, c), h

        def gru_step(state, projected, weight_hh, bias_hh):
            (h,) = state
            (r, z, n), (r_h, z_h, n_h) = (np.split(a, 3, axis=1) for a in (projected, h @ weight_hh.T + bias_hh))
            z = sigmoid(z + z_h)
            h = (1 - z) * np.tanh(n + sigmoid(r + r_h) * n_h) + z * h
            return (h,), h

        def layer(params, x):
            projected = x @ params["weight_ih_l0"].T + params["bias_ih_l0"]
            start = (np.zeros((x.shape[1], problem.sizes[3]), x.dtype),) * (2 if is_lstm else 1)
            step = lstm_step if is_lstm else gru_step
            weights = params["weight_hh_l0"], params["bias_hh_l0"]
            state, output = jax.lax.scan(lambda state, row: step(state, row, *weights), start, projected)
            return output, tuple(one[None] for one in state)

        return layer, {name: np.asarray(value) for name, value in problem.params.items()}, np.asarray(problem.x)

    def task(self, function, arguments, names):
        compiled = self.jax.jit(function)

        def call():
            return self.jax.block_until_ready(compiled(*arguments))

        return Task(call, lambda: {name: np.asarray(value) for name, value in names(*call()).items()})

    def forward(self, problem):
        layer, params, x = self.layer(problem)
        return self.task(layer, (params, x), named)

    def train(self, problem):
        layer, params, x = self.layer(problem)
        jax, d_output = self.jax, self.jax.numpy.asarray(problem.d_output)

        def step(params, x, d_output):
            (output, state_n), backward = jax.vjp(layer, params, x)
            d_params, d_x = backward((d_output, jax.tree.map(jax.numpy.zeros_like, state_n)))
            return output, state_n, d_x, d_params

        def names(output, state_n, d_x, d_params):
            return named(output, state_n) | {"d_x": d_x, **d_params}

        return self.task(step, (params, x, d_output), names)


class Keras:
    """A model of one layer, with the JAX backend."""

    modules = ("keras", "jax")
    dtypes = ("float32",)
    kinds = KINDS
    train = None

    def __init__(self, threads):
        os.environ["KERAS_BACKEND"] = "jax"
        import keras

        self.keras = keras
        self.version = f"Keras {keras.__version__}"

    def forward(self, problem):
        keras, (T, _, I, H) = self.keras, problem.sizes
        layer = getattr(keras.layers, problem.kind.layer)(H, return_sequences=True, return_state=True)
        entry = keras.Input((T, I))
        model = keras.Model(entry, layer(entry))
        layer.set_weights(self.weights(problem))
        x = problem.x.swapaxes(0, 1).copy()  # (B, T, I)

        def results():
            output, *state_n = model.predict_on_batch(x)
            return named(output.swapaxes(0, 1), [one[None] for one in state_n])

        return Task(lambda: model.predict_on_batch(x), results)

    @staticmethod
    def weights(problem):
        """The kernel, the recurrent kernel and the bias in the layout of Keras."""
        weight_ih, weight_hh, bias_ih, bias_hh = problem.params.values()
        if problem.kind.layer == "LSTM":
            return [weight_ih.T, weight_hh.T, bias_ih + bias_hh]

        def reordered(rows):  # from r, z, n
            r, z, n = np.split(rows, 3)
            return np.concatenate([z, r, n])

        return [reordered(weight_ih).T, reordered(weight_hh).T, np.stack([reordered(bias_ih), reordered(bias_hh)])]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    threads = default_threads()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    libraries = {FASTRNN: Fastrnn, "JAX": Jax, "Keras": Keras}
    processes = [Process(name, library, threads) for name, library in libraries.items()]
    print(f"{processor()}, {threads} threads, float32; {', '.join(process.version for process in processes[1:])}\n")
    print("| mode | kind | T, B, I, H | fastrnn, us | JAX | Keras |\n|---|---|---|--:|--:|--:|")
    for mode in arguments.modes:
        for kind in arguments.kinds:
            found = {"JAX": [], "Keras": []}
            for shape in arguments.shapes:
                takers = [process for process in processes if process.call("takes_part", mode, "float32", kind)]
                seconds = measure(takers, mode, "float32", shape, Pace(rounds=arguments.rounds), kind)
                columns = []
                for name, medians in found.items():
                    if name not in seconds:
                        columns.append("")
                        continue
                    low, median, high = Ratio.of(seconds[name], seconds[FASTRNN])
                    medians.append(median)
                    columns.append(f"{median:.2f} ({low:.2f}-{high:.2f})")
                ours = np.median(seconds[FASTRNN]) * 1e6
                print(f"| {mode} | {kind} | {shape} | {ours:,.0f} | {' | '.join(columns)} |", flush=True)
            means = " | ".join(f"{geometric_mean(of):.2f}" if of else "" for of in found.values())
            print(f"| {mode} | {kind} | geometric mean | | {means} |", flush=True)
    for process in processes:
        process.stop()


if __name__ == "__main__":
    main()
