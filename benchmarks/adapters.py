"""Measures forward and backward of an LSTM inside autograd, JAX, thinc and Keras, by fastrnn's adapter and without it.

    python benchmarks/adapters.py                                # those that are installed, some minutes
    python benchmarks/adapters.py --only JAX --shapes 100,32,64,64

Without an adapter: a loop in NumPy under autograd, `jax.lax.scan` under jit, thinc's PyTorchLSTM, Keras' own layer on
the backend of PyTorch. Each runs in a process of its own, and the processes take turns, see interleaved.py; the
gradients of all are compared first. The table has the time of a layer of fastrnn, the time of each adapter divided by
it, and the time without an adapter divided by that of the adapter: medians over the rounds.
"""

import argparse
import importlib.util
import os


import numpy as np

from interleaved import Pace, Process, measure
from libraries import FASTRNN, Fastrnn, Task
from shapes import Shape
from suite import default_threads, parse_shape, processor

SHAPES = (Shape(100, 1, 64, 64), Shape(100, 32, 64, 64), Shape(25, 16, 512, 512))
NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def gradients(call):
    """The task of a call that returns the gradients of x and of the recurrent matrix."""

    def results():
        d_x, d_weight_hh = call()
        return {"d_x": np.asarray(d_x), "d_weight_hh": np.asarray(d_weight_hh)}

    return Task(call, results)


def weights_of(problem):
    return {name: problem.params[f"{name}_l0"] for name in NAMES}


class Layer(Fastrnn):
    """A layer of fastrnn: the time that an adapter cannot undercut."""

    def learn(self, problem):
        layer, x, d_output = self.layer(problem, frozen=False), problem.x, problem.d_output

        def call():
            _, _, tape = layer.forward(x)
            d_x, _, d_params = layer.backward(tape, d_output)
            return d_x, d_params["weight_hh_l0"]

        return gradients(call)


class Autograd(Fastrnn):
    modules = ("autograd",)

    def learn(self, problem):
        import autograd

        def loss(x, weights):
            return (self.output(x, weights) * problem.d_output).sum()

        gradient, x, weights = autograd.grad(loss, (0, 1)), problem.x, weights_of(problem)

        def call():
            d_x, d_weights = gradient(x, weights)
            return d_x, d_weights["weight_hh"]

        return gradients(call)

    def output(self, x, weights):
        import fastrnn.autograd

        return fastrnn.autograd.forward("lstm", x, None, [weights])[0]


class AutogradLoop(Autograd):
    def output(self, x, weights):
        import autograd.numpy as anp

        def sigmoid(z):
            return 0.5 * (anp.tanh(0.5 * z) + 1)

        outputs, H = [], weights["weight_hh"].shape[1]
        h = c = np.zeros((x.shape[1], H), x.dtype)
        ahead = anp.dot(x, weights["weight_ih"].T) + weights["bias_ih"] + weights["bias_hh"]
        for t in range(x.shape[0]):
            z = ahead[t] + anp.dot(h, weights["weight_hh"].T)
            i, f, g, o = (z[:, k * H : (k + 1) * H] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * anp.tanh(g)
            h = sigmoid(o) * anp.tanh(c)
            outputs.append(h)
        return anp.stack(outputs)


class Jax(Fastrnn):
    modules = ("jax",)

    def learn(self, problem):
        import jax

        def loss(x, weights):
            return (self.output(x, weights) * problem.d_output).sum()

        gradient = jax.jit(jax.grad(loss, (0, 1)))
        x, weights = jax.device_put((problem.x, weights_of(problem)))

        def call():
            d_x, d_weights = jax.block_until_ready(gradient(x, weights))
            return d_x, d_weights["weight_hh"]

        return gradients(call)

    def output(self, x, weights):
        import fastrnn.jax

        return fastrnn.jax.forward("lstm", x, None, [weights])[0]


class JaxScan(Jax):
    def output(self, x, weights):
        import jax
        import jax.numpy as jnp

        def step(state, a):
            h, c = state
            i, f, g, o = jnp.split(a + h @ weights["weight_hh"].T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        ahead = x @ weights["weight_ih"].T + weights["bias_ih"] + weights["bias_hh"]
        zeros = jnp.zeros((x.shape[1], weights["weight_hh"].shape[1]), x.dtype)
        return jax.lax.scan(step, (zeros, zeros), ahead)[1]


class Thinc(Fastrnn):
    modules = ("thinc",)

    def learn(self, problem):
        model, x, d_output = self.model(problem), problem.x, problem.d_output

        def call():
            _, backprop = model.begin_update(x)
            d_x = backprop(d_output)
            return d_x, self.taken(model)

        return gradients(call)

    def model(self, problem):
        import fastrnn.thinc

        model = fastrnn.thinc.LSTM(problem.sizes[3], problem.sizes[2]).initialize()
        for name, array in problem.params.items():
            model.layers[0].set_param(name, array)
        return model

    def taken(self, model):
        """The gradient of the recurrent matrix; zeros take its place, because thinc adds the next one to it."""
        inner = model.layers[0]
        d_weight_hh = inner.get_grad("weight_hh_l0").copy()
        for name in inner.param_names:
            inner.get_grad(name).fill(0)
        return d_weight_hh


class ThincTorch(Thinc):
    modules = ("thinc", "torch")

    def model(self, problem):
        import warnings

        import torch
        from thinc.api import PyTorchLSTM

        warnings.simplefilter("ignore", FutureWarning)
        torch.set_num_threads(self.fastrnn.get_num_threads())
        model = PyTorchLSTM(problem.sizes[3], problem.sizes[2])
        model.initialize()
        self.module = model.layers[0].shims[0]._model
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in problem.params.items()})
        return model

    def taken(self, model):
        d_weight_hh = self.module.weight_hh_l0.grad.numpy()
        self.module.zero_grad(set_to_none=True)
        return d_weight_hh


class Keras(Fastrnn):
    modules = ("keras", "torch")

    def learn(self, problem):
        import torch

        torch.set_num_threads(self.fastrnn.get_num_threads())
        x = torch.from_numpy(np.ascontiguousarray(problem.x.swapaxes(0, 1))).requires_grad_()
        d_output = torch.from_numpy(problem.d_output).transpose(0, 1)
        layer = self.layer_class()(problem.sizes[3], return_sequences=True)
        layer.build(x.shape)
        w = weights_of(problem)
        layer.set_weights([w["weight_ih"].T, w["weight_hh"].T, w["bias_ih"] + w["bias_hh"]])
        tensors = x, layer.cell.recurrent_kernel.value

        def call():
            d_x, d_kernel = torch.autograd.grad(layer(x), tensors, d_output)
            return d_x.transpose(0, 1).numpy(), d_kernel.T.numpy()

        return gradients(call)

    def layer_class(self):
        import fastrnn.keras_layers

        return fastrnn.keras_layers.LSTM


class KerasLoop(Keras):
    def layer_class(self):
        import keras

        return keras.layers.LSTM


PAIRS = {
    "autograd": (Autograd, AutogradLoop),
    "JAX": (Jax, JaxScan),
    "thinc": (Thinc, ThincTorch),
    "Keras": (Keras, KerasLoop),
}


def is_installed(library):
    return all(importlib.util.find_spec(module) for module in library.modules)


def quotient(seconds, above, below):
    """The median over the rounds of one time divided by another."""
    return float(np.median(np.array(seconds[above]) / np.array(seconds[below])))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="LIBRARY")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ.pop("OPENBLAS_NUM_THREADS", None)
    pairs = {name: PAIRS[name] for name in arguments.only if all(map(is_installed, PAIRS[name]))}
    print(f"{processor()}, {arguments.threads} threads, forward and backward, float32\n")
    print("| | T, B, I, H | a layer, us | adapter / layer | without / adapter |\n|---|---|--:|--:|--:|")
    for name, libraries in pairs.items():
        names = FASTRNN, f"{name}, adapter", f"{name}, without"
        processes = [Process(*of, arguments.threads) for of in zip(names, (Layer, *libraries))]
        for shape in arguments.shapes:
            seconds = measure(processes, "learn", "float32", shape, Pace(rounds=arguments.rounds, budget=8.0))
            ours = f"{np.median(seconds[FASTRNN]) * 1e6:,.0f}"
            columns = f"{quotient(seconds, names[1], names[0]):.2f} | {quotient(seconds, names[2], names[1]):.1f}"
            print(f"| {name} | {shape} | {ours} | {columns} |", flush=True)
        for process in processes:
            process.stop()


if __name__ == "__main__":
    main()
