"""The libraries that take part: fastrnn, its NumPy reference, PyTorch, ONNX Runtime, OpenVINO.

A library is a class, made once in a process of its own with a number of threads. It has a method for each
mode that it offers (forward, train, step; see shapes.py), which sets a problem up and returns a Task.
Whatever a user does once (loading weights, packing them, compiling a model, binding buffers) happens there,
outside the timing; each peer is set up in the way that its documentation names as the fastest, weights
packed beforehand where it can. A new one is a class like these and a line in LIBRARIES.

None of them is imported before it is used: the process that steers the others needs none.
"""

import contextlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from typing import Callable

import numpy as np

# Largest difference that counts as rounding, relative to the largest number of the array (or to one).
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

# A stream is compared over so many steps before one step is timed.
COMPARED_STEPS = 8

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass
class Problem:
    """What every library is given, made anew from the same seed in each process: nothing large is sent."""

    x: np.ndarray  # (T, B, I)
    d_output: np.ndarray  # (T, B, H)
    params: dict  # by torch's names; uniform in +-1/sqrt(H), as torch and fastrnn initialize

    @classmethod
    def of(cls, shape, dtype):
        T, B, I, H = shape
        random = np.random.default_rng(0)
        shapes = (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)
        params = {}
        for name, its_shape in zip(PARAMETERS, shapes, strict=True):
            params[name + "_l0"] = values = random.random(its_shape, dtype)
            values -= 0.5
            values *= 2 * H**-0.5
        x = random.standard_normal((T, B, I), dtype)
        d_output = random.standard_normal((T, B, H), dtype)
        return cls(x, d_output, params)

    @property
    def sizes(self):
        """T, B, I, H."""
        return *self.x.shape, self.d_output.shape[2]


@dataclass
class Task:
    """What is timed, and what it computes."""

    call: Callable  # without arguments
    results: Callable  # makes the call, and returns what came out of it by name
    around: Callable = contextlib.nullcontext  # entered once around many calls
    keeps: tuple = ()  # arrays of which a library holds the address alone


# ---------------------------------------------------------------------------------------------------


class Fastrnn:
    """As it is used for serving: frozen (weights packed once) in `forward`, a stream in `step`.

    A build that lacks freeze() or stream() packs in every call, or carries the state from call to call.
    """

    modules = ("fastrnn",)
    dtypes = ("float32", "float64")
    freezes = True

    def __init__(self, threads):
        import fastrnn

        fastrnn.set_num_threads(threads)
        self.fastrnn = fastrnn
        self.version = fastrnn.__version__

    def layer(self, problem, frozen):
        _, _, I, H = problem.sizes
        layer = self.fastrnn.LSTM(I, H, dtype=problem.x.dtype)
        layer.load_state_dict(problem.params)
        if frozen and hasattr(layer, "freeze"):
            layer.freeze()
        return layer

    def forward(self, problem):
        call = partial(self.layer(problem, self.freezes), problem.x)

        def results():
            output, (h_n, c_n) = call()
            return {"output": output, "h_n": h_n, "c_n": c_n}

        return Task(call, results)

    def train(self, problem):
        layer, x, d_output = self.layer(problem, frozen=False), problem.x, problem.d_output

        def call():
            output, state_n, tape = layer.forward(x)
            return output, state_n, *layer.backward(tape, d_output)

        def results():
            output, (h_n, c_n), d_x, _, d_params = call()
            return {"output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x, **d_params}

        return Task(call, results)

    def step(self, problem):
        layer, x = self.layer(problem, self.freezes), problem.x
        _, B, _, H = problem.sizes
        step, final_state = (
            self.streaming(layer.stream(B), np.empty((B, H), x.dtype))
            if hasattr(layer, "stream")
            else self.carrying(layer)
        )

        def results():
            output = np.stack([step(x_t).copy() for x_t in x])
            h_n, c_n = final_state()
            return {"output": output, "h_n": h_n, "c_n": c_n}

        return Task(partial(step, x[0]), results)

    @staticmethod
    def streaming(stream, h_t):
        return partial(stream.step, out=h_t), lambda: stream.state

    @staticmethod
    def carrying(layer):
        state = None

        def step(x_t):
            nonlocal state
            output, state = layer(x_t[None], state)
            return output[0]

        return step, lambda: state


class FastrnnUnfrozen(Fastrnn):
    """Weights packed in every call, as PyTorch packs them."""

    freezes = False
    train = None  # frozen or not, training packs in every call


class Reference:
    """fastrnn.reference: plain NumPy, the meaning of every kernel."""

    modules = ("fastrnn",)
    dtypes = ("float32", "float64")

    def __init__(self, threads):
        from fastrnn import reference

        self.reference = reference  # NumPy's products take OMP_NUM_THREADS threads
        self.version = f"numpy {np.__version__}"

    @staticmethod
    def weights(problem):
        return [problem.params[name + "_l0"] for name in PARAMETERS]

    def forward(self, problem):
        call = partial(self.reference.lstm, problem.x, None, *self.weights(problem))

        def results():
            output, (h_n, c_n) = call()
            return {"output": output, "h_n": h_n[None], "c_n": c_n[None]}

        return Task(call, results)

    def train(self, problem):
        reference, x, d_output = self.reference, problem.x, problem.d_output
        weights = self.weights(problem)

        def call():
            output, state_n, tape = reference.lstm_forward(x, None, *weights)
            return output, state_n, *reference.lstm_backward(tape, d_output)

        def results():
            output, (h_n, c_n), d_x, _, d_params = call()
            named = {"output": output, "h_n": h_n[None], "c_n": c_n[None], "d_x": d_x}
            return named | {f"{name}_l0": gradient for name, gradient in d_params.items()}

        return Task(call, results)

    def step(self, problem):
        lstm, x, weights = self.reference.lstm, problem.x, self.weights(problem)
        state = None

        def step(x_t):
            nonlocal state
            output, state = lstm(x_t[None], state, *weights)
            return output[0]

        def results():
            output = np.stack([step(x_t) for x_t in x])
            h_n, c_n = state
            return {"output": output, "h_n": h_n[None], "c_n": c_n[None]}

        return Task(partial(step, x[0]), results)


# ---------------------------------------------------------------------------------------------------


class Torch:
    """nn.LSTM, and nn.LSTMCell for a step; inference mode is entered once, outside the timing."""

    modules = ("torch",)
    dtypes = ("float32", "float64")

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.version = torch.__version__

    def load(self, module, problem, suffix="_l0"):
        params = {
            name.removesuffix("_l0") + suffix: self.torch.from_numpy(value)
            for name, value in problem.params.items()
        }
        module.load_state_dict(params)
        return module

    def layer(self, problem):
        _, _, I, H = problem.sizes
        x = self.torch.from_numpy(problem.x)
        return self.load(self.torch.nn.LSTM(I, H, dtype=x.dtype), problem), x

    def forward(self, problem):
        layer, x = self.layer(problem)
        call = partial(layer.eval(), x)

        def results():
            output, (h_n, c_n) = call()
            return {"output": output.numpy(), "h_n": h_n.numpy(), "c_n": c_n.numpy()}

        return Task(call, results, self.torch.inference_mode)

    def train(self, problem):
        layer, x = self.layer(problem)
        x.requires_grad_()
        d_output = self.torch.from_numpy(problem.d_output)

        def call():
            # Without the last step's gradients there is nothing to add to: an optimizer's zero_grad.
            layer.zero_grad(set_to_none=True)
            x.grad = None
            returned = layer(x)
            returned[0].backward(d_output)
            return returned

        def results():
            output, (h_n, c_n) = call()
            named = {"output": output, "h_n": h_n, "c_n": c_n, "d_x": x.grad}
            named |= {name: parameter.grad for name, parameter in layer.named_parameters()}
            return {name: tensor.detach().numpy() for name, tensor in named.items()}

        return Task(call, results)

    def step(self, problem):
        _, B, I, H = problem.sizes
        torch = self.torch
        x = torch.from_numpy(problem.x)
        cell = self.load(torch.nn.LSTMCell(I, H, dtype=x.dtype), problem, suffix="").eval()
        state = torch.zeros(B, H, dtype=x.dtype), torch.zeros(B, H, dtype=x.dtype)

        def step(x_t):
            nonlocal state
            state = cell(x_t, state)
            return state[0]

        def results():
            output = torch.stack([step(x_t) for x_t in x])
            h_n, c_n = state
            return {"output": output.numpy(), "h_n": h_n[None].numpy(), "c_n": c_n[None].numpy()}

        return Task(partial(step, x[0]), results, torch.inference_mode)


# ---------------------------------------------------------------------------------------------------


def onnx_model(problem, T, with_state=False):
    """The layer as the bytes of an ONNX model: x, and maybe h_0 and c_0, to output, h_n and c_n."""
    from onnx import TensorProto, helper, numpy_helper

    _, B, I, H = problem.sizes

    def in_onnx_order(rows):
        i, f, g, o = np.split(rows, 4)
        return np.concatenate([i, o, f, g])

    weight_ih, weight_hh, bias_ih, bias_hh = (
        in_onnx_order(problem.params[name + "_l0"]) for name in PARAMETERS
    )
    weights = {"W": weight_ih[None], "R": weight_hh[None], "B": np.concatenate([bias_ih, bias_hh])[None]}
    real = helper.np_dtype_to_tensor_dtype(problem.x.dtype)
    layer, states = {"x": (T, B, I)}, {"h_0": (1, B, H), "c_0": (1, B, H)} if with_state else {}
    results = {"output": (T, B, H), "h_n": (1, B, H), "c_n": (1, B, H)}
    graph = helper.make_graph(
        [
            # The empty name stands for the sequences' lengths, which are all T.
            helper.make_node(
                "LSTM", ["x", "W", "R", "B", "", *states], ["y", "h_n", "c_n"], hidden_size=H
            ),
            # The axis of the directions, which has length one.
            helper.make_node("Squeeze", ["y", "direction"], ["output"]),
        ],
        "lstm",
        [helper.make_tensor_value_info(name, real, shape) for name, shape in (layer | states).items()],
        [helper.make_tensor_value_info(name, real, shape) for name, shape in results.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()]
        + [helper.make_tensor("direction", TensorProto.INT64, [1], [1])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def result_arrays(problem, T):
    _, B, _, H = problem.sizes
    shapes = {"output": (T, B, H), "h_n": (1, B, H), "c_n": (1, B, H)}
    return {name: np.zeros(shape, problem.x.dtype) for name, shape in shapes.items()}


class BoundModel:
    """What ONNX Runtime and OpenVINO have in common: a compiled model that runs between arrays bound once.

    A subclass compiles a model, and gives a function that runs it from these arrays into those.
    """

    modules = ()
    dtypes = ("float32",)

    def compile(self, model):
        raise NotImplementedError

    def bind(self, compiled, inputs, outputs):
        raise NotImplementedError

    def forward(self, problem):
        T, _, _, _ = problem.sizes
        outputs = result_arrays(problem, T)
        run = self.bind(self.compile(onnx_model(problem, T)), {"x": problem.x}, outputs)

        def results():
            run()
            return outputs

        return Task(run, results, keeps=(problem.x, outputs))

    def step(self, problem):
        """Two bindings take turns, each of which reads the state that the other one has written."""
        compiled = self.compile(onnx_model(problem, 1, with_state=True))
        x, x_t = problem.x, problem.x[:1].copy()
        ends = result_arrays(problem, 1), result_arrays(problem, 1)
        runs = [
            self.bind(compiled, {"x": x_t, "h_0": start["h_n"], "c_0": start["c_n"]}, end)
            for start, end in (ends[::-1], ends)
        ]
        latest = 1

        def step():
            nonlocal latest
            latest = 1 - latest
            runs[latest]()

        def results():
            outputs = []
            for row in x:
                x_t[0] = row
                step()
                outputs.append(ends[latest]["output"][0].copy())
            return ends[latest] | {"output": np.stack(outputs)}

        return Task(step, results, keeps=(x_t, ends))


class OnnxRuntime(BoundModel):
    """A session, which packs the weights when it is made, and its I/O binding."""

    modules = ("onnxruntime", "onnx")

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.version = onnxruntime.__version__

    def compile(self, model):
        return self.onnxruntime.InferenceSession(
            model, self.options, providers=["CPUExecutionProvider"]
        )

    def bind(self, compiled, inputs, outputs):
        value = self.onnxruntime.OrtValue.ortvalue_from_numpy
        binding = compiled.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, value(array))
        return partial(compiled.run_with_iobinding, binding)


class OpenVino(BoundModel):
    """A model compiled for latency and for float32 arithmetic, and its request with tensors set."""

    modules = ("openvino", "onnx")

    def __init__(self, threads):
        import openvino

        self.openvino = openvino
        self.core = openvino.Core()
        self.version = openvino.__version__.split("-")[0]
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Otherwise bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def compile(self, model):
        return self.core.compile_model(self.core.read_model(model), "CPU", self.settings)

    def bind(self, compiled, inputs, outputs):
        request = compiled.create_infer_request()
        for name, array in (inputs | outputs).items():
            request.set_tensor(name, self.openvino.Tensor(array, shared_memory=True))
        return partial(request.infer, share_outputs=True)


# ---------------------------------------------------------------------------------------------------

FASTRNN, UNFROZEN, BASELINE, REFERENCE = "fastrnn", "fastrnn unfrozen", "baseline", "reference"

PEERS = {"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}
LIBRARIES = {
    FASTRNN: Fastrnn,
    UNFROZEN: FastrnnUnfrozen,
    BASELINE: Fastrnn,
    REFERENCE: Reference,
    **PEERS,
}


def is_installed(library):
    return all(importlib.util.find_spec(module) is not None for module in library.modules)


def takes_part(library, mode, dtype):
    return getattr(library, mode, None) is not None and dtype in library.dtypes


def set_up(library, mode, dtype, shape):
    """The task of a library, an object of one of the classes above, for a shape."""
    steps = COMPARED_STEPS if mode == "step" else shape[0]
    return getattr(library, mode)(Problem.of((steps, *shape[1:]), np.dtype(dtype)))


def check_agreement(name, expected, actual, dtype):
    """Stops with an error unless both have the same arrays, equal up to rounding."""
    if actual.keys() != expected.keys():
        raise AssertionError(f"{name} returns {sorted(actual)}, {FASTRNN} {sorted(expected)}")
    for key, value in expected.items():
        np.testing.assert_allclose(
            actual[key],
            value,
            rtol=0,
            atol=TOLERANCE[dtype] * max(1, np.abs(value).max(initial=0)),
            err_msg=f"{name} and {FASTRNN} disagree on {key}",
        )
