"""fastrnn side by side with other libraries, in one run: forward passes and training steps of an LSTM layer.

    python benchmarks/peers.py
    python benchmarks/peers.py --peers torch --modes train --shapes 25,16,512,512 100,1,64,64
    python benchmarks/peers.py --peers --baseline ../before    # two builds of fastrnn

Each library has a process of its own, because the idle threads of one spin for a while after a call and
slow down whatever runs next in their process. The processes take turns, with a pause between turns that
lets the threads of the last one fall asleep. A round is one turn each, so that a drift of the machine
(frequency, neighbours) hits all of them alike: the ratio is taken within a round, and what is printed is
its median over the rounds, with the quartiles. Before anything is timed, all have to agree on the result.
"""

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from table import PASSES, gflops

# (T, B, I, H)
SHAPES = [
    (100, 1, 32, 32),
    (100, 1, 64, 64),
    (100, 32, 64, 64),
    (150, 64, 256, 256),
    (25, 1, 512, 512),
    (25, 16, 512, 512),
    (25, 64, 512, 512),
    (25, 1, 2048, 2048),
    (25, 16, 2048, 2048),
    (25, 64, 2048, 2048),
]

# Largest difference that counts as rounding, relative to the largest number of the array.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

US = "fastrnn"


# ---------------------------------------------------------------------------------------------------
# The libraries. prepare() takes a problem: x (T, B, I), d_output (T, B, H), params by torch's names.
# forward() and train() are what is timed; what they return, results() turns into named arrays.
# A new peer is a class like these and a line in PEERS.


class Fastrnn:
    modules = ("fastrnn",)
    modes = ("forward", "train")
    dtypes = ("float32", "float64")

    def __init__(self, threads):
        import fastrnn

        fastrnn.set_num_threads(threads)
        self.fastrnn = fastrnn
        self.version = fastrnn.__version__

    def prepare(self, x, d_output, params):
        I, H = x.shape[2], d_output.shape[2]
        self.x, self.d_output = x, d_output
        self.layer = self.fastrnn.LSTM(I, H, dtype=x.dtype)
        self.layer.load_state_dict(params)

    def forward(self):
        return self.layer(self.x)

    def train(self):
        output, state_n, tape = self.layer.forward(self.x)
        d_x, _, d_params = self.layer.backward(tape, self.d_output)
        return output, state_n, d_x, d_params

    def results(self, returned):
        output, (h_n, c_n), *gradients = returned
        named = {"output": output, "h_n": h_n, "c_n": c_n}
        if gradients:
            d_x, d_params = gradients
            named |= {"d_x": d_x, **d_params}
        return named


class Torch:
    modules = ("torch",)
    modes = ("forward", "train")
    dtypes = ("float32", "float64")

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.version = torch.__version__

    def prepare(self, x, d_output, params):
        I, H = x.shape[2], d_output.shape[2]
        torch = self.torch
        self.x = torch.from_numpy(x)
        self.x_with_gradient = torch.from_numpy(x).requires_grad_()
        self.d_output = torch.from_numpy(d_output)
        self.layer = torch.nn.LSTM(I, H, dtype=self.x.dtype)
        self.layer.load_state_dict({name: torch.from_numpy(p) for name, p in params.items()})

    def forward(self):
        with self.torch.inference_mode():
            return self.layer(self.x)

    def train(self):
        # Without last step's gradients there is nothing to add to: what an optimizer's zero_grad does.
        self.layer.zero_grad(set_to_none=True)
        self.x_with_gradient.grad = None
        returned = self.layer(self.x_with_gradient)
        returned[0].backward(self.d_output)
        return returned

    def results(self, returned):
        output, (h_n, c_n) = returned
        named = {"output": output, "h_n": h_n, "c_n": c_n}
        if output.requires_grad:
            named["d_x"] = self.x_with_gradient.grad
            named |= {name: p.grad for name, p in self.layer.named_parameters()}
        return {name: tensor.detach().numpy() for name, tensor in named.items()}


def onnx_model(x, d_output, params):
    """The layer as the bytes of an ONNX model with input x and outputs output, h_n, c_n."""
    from onnx import TensorProto, helper, numpy_helper

    (T, B, I), H = x.shape, d_output.shape[2]

    def in_onnx_order(rows):
        i, f, g, o = np.split(rows, 4)
        return np.concatenate([i, o, f, g])

    bias = [in_onnx_order(params[name]) for name in ("bias_ih_l0", "bias_hh_l0")]
    weights = {
        "W": in_onnx_order(params["weight_ih_l0"])[None],
        "R": in_onnx_order(params["weight_hh_l0"])[None],
        "B": np.concatenate(bias)[None],
    }
    real = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [
            helper.make_node("LSTM", ["x", "W", "R", "B"], ["y", "h_n", "c_n"], hidden_size=H),
            # The axis of the directions, which has length one.
            helper.make_node("Squeeze", ["y", "direction"], ["output"]),
        ],
        "lstm",
        [helper.make_tensor_value_info("x", real, (T, B, I))],
        [
            helper.make_tensor_value_info("output", real, (T, B, H)),
            helper.make_tensor_value_info("h_n", real, (1, B, H)),
            helper.make_tensor_value_info("c_n", real, (1, B, H)),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()]
        + [helper.make_tensor("direction", TensorProto.INT64, [1], [1])],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model.SerializeToString()


class OnnxRuntime:
    modules = ("onnxruntime", "onnx")
    modes = ("forward",)
    dtypes = ("float32",)

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.version = onnxruntime.__version__

    def prepare(self, x, d_output, params):
        self.x = x
        self.session = self.onnxruntime.InferenceSession(
            onnx_model(x, d_output, params), self.options, providers=["CPUExecutionProvider"]
        )

    def forward(self):
        return self.session.run(None, {"x": self.x})

    def results(self, returned):
        return dict(zip(("output", "h_n", "c_n"), returned, strict=True))


class OpenVino:
    modules = ("openvino", "onnx")
    modes = ("forward",)
    dtypes = ("float32",)

    def __init__(self, threads):
        import openvino

        self.core = openvino.Core()
        self.threads = threads
        self.version = openvino.__version__

    def prepare(self, x, d_output, params):
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Otherwise bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = self.core.read_model(onnx_model(x, d_output, params))
        self.request = self.core.compile_model(model, "CPU", settings).create_infer_request()
        self.x = x

    def forward(self):
        return self.request.infer({"x": self.x}, share_inputs=True, share_outputs=True)

    def results(self, returned):
        return {name: returned[name] for name in ("output", "h_n", "c_n")}


PEERS = {"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}


# ---------------------------------------------------------------------------------------------------
# The process of a library.


def serve(pipe, library, threads, import_from):
    """Answers (method, *arguments) messages until None arrives."""
    try:
        if import_from is not None:
            sys.path.insert(0, os.path.abspath(import_from))
        worker = Worker(library(threads))
        pipe.send((worker.library.version, None))
        for method, *arguments in iter(pipe.recv, None):
            pipe.send((getattr(worker, method)(*arguments), None))
    except Exception:
        pipe.send((None, traceback.format_exc()))


class Worker:
    def __init__(self, library):
        self.library = library

    def prepare(self, mode, problem):
        """Takes on a problem and returns its result."""
        self.library.prepare(*problem)
        self.call = getattr(self.library, mode)
        named = self.library.results(self.call())
        return {name: np.array(value) for name, value in named.items()}

    def time(self, calls):
        """Seconds of each of so many calls, after some that are not counted: threads wake, caches fill."""
        call, clock = self.call, time.perf_counter
        seconds = []
        gc.disable()
        for _ in range(1 + calls // 10):
            call()
        for _ in range(calls):
            start = clock()
            call()
            seconds.append(clock() - start)
        gc.enable()
        return seconds


class Process:
    """The other end of the pipe: a worker's methods, called from here."""

    def __init__(self, name, library, threads, import_from=None):
        context = multiprocessing.get_context("spawn")
        self.name, self.library = name, library
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, library, threads, import_from)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.version = self._answer()

    def _answer(self):
        try:
            answer, error = self.pipe.recv()
        except EOFError:
            self.process.join()
            sys.exit(f"error: the process of {self.name} died, exit code {self.process.exitcode}")
        if error is not None:
            sys.exit(f"error: in the process of {self.name}:\n{error}")
        return answer

    def prepare(self, mode, problem):
        self.pipe.send(("prepare", mode, problem))
        return self._answer()

    def time(self, calls):
        self.pipe.send(("time", calls))
        return self._answer()

    def stop(self):
        self.pipe.send(None)
        self.process.join()


# ---------------------------------------------------------------------------------------------------
# One problem, measured.


def make_problem(shape, dtype):
    """x, d_output and params, as torch initializes an LSTM."""
    T, B, I, H = shape
    random = np.random.default_rng(0)
    bound = H**-0.5
    shapes = {
        "weight_ih_l0": (4 * H, I),
        "weight_hh_l0": (4 * H, H),
        "bias_ih_l0": (4 * H,),
        "bias_hh_l0": (4 * H,),
    }
    params = {name: random.uniform(-bound, bound, s).astype(dtype) for name, s in shapes.items()}
    x = random.standard_normal((T, B, I)).astype(dtype)
    d_output = random.standard_normal((T, B, H)).astype(dtype)
    return x, d_output, params


def check_agreement(name, ours, theirs, tolerance):
    assert theirs.keys() == ours.keys(), (name, theirs.keys(), ours.keys())
    for key, value in ours.items():
        np.testing.assert_allclose(
            theirs[key],
            value,
            rtol=0,
            atol=tolerance * max(1, np.abs(value).max()),
            err_msg=f"{name} and {US} disagree on {key}",
        )


def measure(processes, mode, shape, dtype, rounds, turn, pause):
    """Median seconds of every round, per library: a dict of lists."""
    problem = make_problem(shape, dtype)
    results = {process.name: process.prepare(mode, problem) for process in processes}
    for name, result in results.items():
        check_agreement(name, results[US], result, TOLERANCE[dtype])

    # As many calls as fill a turn; an odd number, whose median is one of them.
    calls = {}
    for process in processes:
        time.sleep(pause)
        estimate = min(process.time(3))
        calls[process.name] = 1 + 2 * min(int(turn / estimate / 2), 500)

    medians = {process.name: [] for process in processes}
    for k in range(rounds):
        # There and back, so that nobody always comes after the same neighbour.
        for process in processes if k % 2 == 0 else reversed(processes):
            time.sleep(pause)
            medians[process.name].append(float(np.median(process.time(calls[process.name]))))
    return medians


def table_row(shape, mode, medians):
    cells = [", ".join(map(str, shape))]
    for name, seconds in medians.items():
        median = np.median(seconds)
        cells += [f"{median * 1e6:.1f}", f"{gflops(shape, mode, median):.1f}"]
        if name != US:
            low, ratio, high = np.quantile(np.divide(seconds, medians[US]), [0.25, 0.5, 0.75])
            cells.append(f"**{ratio:.2f}** ({low:.2f} to {high:.2f})")
    return f"| {' | '.join(cells)} |"


def table_head(names):
    columns = ["T, B, I, H"]
    for name in names:
        columns += [f"{name} µs", "GFLOP/s"]
        if name != US:
            columns.append(f"{name} / {US}")
    return f"| {' | '.join(columns)} |\n|---|{'--:|' * (len(columns) - 1)}"


# ---------------------------------------------------------------------------------------------------


def processor():
    """The processor's name, as Linux calls it, or whatever Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def is_installed(peer):
    return all(importlib.util.find_spec(module) is not None for module in peer.modules)


def parse_shape(text):
    T, B, I, H = map(int, text.split(","))
    return T, B, I, H


def parse_arguments():
    # Not at the top: the processes import this file too, and one of them wants another fastrnn.
    from fastrnn import get_num_threads

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default: those installed")
    parser.add_argument(
        "--baseline",
        metavar="FOLDER",
        help="compare with another build of fastrnn, imported from this folder",
    )
    parser.add_argument("--modes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--threads", type=int, default=get_num_threads(), help="here %(default)s")
    parser.add_argument("--rounds", type=int, default=11, help="default %(default)s")
    parser.add_argument(
        "--turn", type=float, default=0.1, help="seconds per library and round, default %(default)s"
    )
    parser.add_argument(
        "--pause", type=float, default=0.05, help="seconds between turns, default %(default)s"
    )
    parser.add_argument("--json", metavar="FILE", help="also write every round's medians to FILE")
    arguments = parser.parse_args()
    if arguments.peers is None:
        arguments.peers = [name for name, peer in PEERS.items() if is_installed(peer)]
    for name in arguments.peers:
        if not is_installed(PEERS[name]):
            parser.error(f"{name} needs {' and '.join(PEERS[name].modules)}: pip install '.[peers]'")
    if arguments.baseline is not None and not Path(arguments.baseline, "fastrnn").is_dir():
        parser.error(f"--baseline {arguments.baseline}: there is no fastrnn in it")
    if not arguments.peers and arguments.baseline is None:
        parser.error("no peer is installed: pip install '.[torch]' or '.[peers]'")
    return arguments


def main():
    arguments = parse_arguments()
    # For libraries that read it when they are loaded; the processes inherit it.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

    processes = [Process(US, Fastrnn, arguments.threads)]
    if arguments.baseline is not None:
        processes.append(Process("baseline", Fastrnn, arguments.threads, arguments.baseline))
    processes += [Process(name, PEERS[name], arguments.threads) for name in arguments.peers]

    libraries = ", ".join(f"{process.name} {process.version}" for process in processes)
    print(f"{processor()}, {platform.system()}, Python {platform.python_version()}; {libraries}.")
    print(
        f"{arguments.dtype}, {arguments.threads} threads; {arguments.rounds} rounds: the median, and of the "
        f"ratio the quartiles. A ratio above 1: {US} is faster."
    )

    report = {
        "machine": processor(),
        "versions": {process.name: process.version for process in processes},
        "arguments": vars(arguments),
        "results": [],
    }
    for mode in arguments.modes:
        taking_part = [
            process
            for process in processes
            if mode in process.library.modes and arguments.dtype in process.library.dtypes
        ]
        if len(taking_part) < 2:
            continue
        print(f"\n### {mode}\n\n{table_head([process.name for process in taking_part])}", flush=True)
        for shape in arguments.shapes:
            medians = measure(
                taking_part, mode, shape, arguments.dtype, arguments.rounds, arguments.turn, arguments.pause
            )
            print(table_row(shape, mode, medians), flush=True)
            report["results"].append({"mode": mode, "shape": shape, "seconds": medians})

    for process in processes:
        process.stop()
    if arguments.json is not None:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
