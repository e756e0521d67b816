"""The libraries of the benchmarks: fastrnn, its NumPy reference, PyTorch, ONNX Runtime, OpenVINO; quantized, too.

A library is a class, instantiated once in its own process with a number of threads (None: its default). It has a method
for each mode that it supports (forward, train, step; see shapes.py), which sets up a problem and returns a Task, and
lists its dtypes and kinds of layers. One-time work (loading and packing weights, compiling a model, binding buffers)
happens in the set-up, outside the timing. Each peer is configured as its documentation recommends for speed, with
weights packed in advance if possible. To add a library, add a class and a line in LIBRARIES.

Libraries are imported on first use: the parent process needs none.
"""

import contextlib
import importlib.util
import warnings
from dataclasses import dataclass, replace
from functools import partial
from collections.abc import Callable, Sequence

import numpy as np

from shapes import GATES, KINDS, OF_TORCH, PLAIN, Kind, Shape, lengths_of

# Largest difference that counts as rounding, relative to the largest number of the array (or to one).
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
OF_QUANTIZED = 0.3  # with few hidden units a single number may be so far off; the tables of errors are elsewhere

# The number of steps over which a stream is compared before one step is timed.
COMPARED_STEPS = 8


@dataclass
class Problem:
    """The arguments of every library, generated from the same seed in each process: no large messages."""

    kind: Kind
    sizes: Shape
    x: np.ndarray  # (T, B, I)
    d_output: np.ndarray  # (T, B, D*H_out); zero past a sequence's end
    params: dict  # by torch's names; uniform in +-1/sqrt(H), as torch and fastrnn initialize
    lengths: np.ndarray | None = None  # (B,), of a ragged batch

    @classmethod
    def of(cls, shape, dtype, kind=PLAIN):
        shape, kind = Shape(*shape), KINDS[kind]
        T, B, I, H = shape
        random = np.random.default_rng(0)
        params = {}
        for name, its_shape in kind.parameters(I, H).items():
            params[name] = values = random.random(its_shape, dtype)
            values -= 0.5
            values *= 2 * H**-0.5
        x = random.standard_normal((T, B, I), dtype)
        d_output = random.standard_normal((T, B, kind.output_size(H)), dtype)
        lengths = lengths_of(shape) if kind.ragged else None
        if lengths is not None:
            d_output[past_end(lengths, T)] = 0
        return cls(kind, shape, x, d_output, params, lengths)

    @property
    def with_lengths(self):
        """The keyword arguments of a call of fastrnn or of its reference."""
        return {} if self.lengths is None else {"lengths": self.lengths}


def past_end(lengths, T):
    """(T, B), True for padded steps."""
    return np.arange(T)[:, None] >= lengths


def named(output, state_n):
    """The results of a layer by name; the state of a GRU or an RNN is h_n alone."""
    members = state_n if isinstance(state_n, (tuple, list)) else [state_n]
    return {"output": output} | dict(zip(("h_n", "c_n", "n_n", "m_n"), members, strict=False))


@dataclass
class Task:
    """A timed call, and the results it computes."""

    call: Callable  # without arguments
    results: Callable  # makes the call, and returns its results by name
    around: Callable = contextlib.nullcontext  # entered once around many calls
    keeps: Sequence = ()  # arrays of which a library holds only the address
    another: Callable | None = None  # the same call for one more Python thread; None: `call` serves all of them


# ---------------------------------------------------------------------------------------------------


class Fastrnn:
    """fastrnn as used for serving: frozen (weights packed once) in `forward`, a stream in `step`.

    A build without freeze() or stream() packs in every call, or carries the state from call to call.
    """

    modules = ("fastrnn",)
    dtypes = ("float32", "float64")
    kinds = tuple(KINDS)
    freezes = True

    def __init__(self, threads):
        import fastrnn

        if threads is not None:
            fastrnn.set_num_threads(threads)
        self.fastrnn = fastrnn
        self.version = fastrnn.__version__

    def layer(self, problem, frozen):
        _, _, I, H = problem.sizes
        options = problem.kind.options(H)
        layer = getattr(self.fastrnn, problem.kind.layer)(I, H, dtype=problem.x.dtype, **options)
        layer.load_state_dict(problem.params)
        if frozen and hasattr(layer, "freeze"):
            layer.freeze()
        return layer

    def forward(self, problem):
        call = partial(self.layer(problem, self.freezes), problem.x, **problem.with_lengths)
        return Task(call, lambda: named(*call()))

    def train(self, problem):
        layer, x, d_output = self.layer(problem, frozen=False), problem.x, problem.d_output
        with_lengths = problem.with_lengths

        def call():
            output, state_n, tape = layer.forward(x, **with_lengths)
            return output, state_n, *layer.backward(tape, d_output)

        def results():
            output, state_n, d_x, _, d_params = call()
            return named(output, state_n) | {"d_x": d_x, **d_params}

        return Task(call, results)

    def step(self, problem):
        layer, x = self.layer(problem, self.freezes), problem.x
        _, B, _, H = problem.sizes
        step, final_state = (
            self.streaming(layer.stream(B), np.empty((B, problem.kind.output_size(H)), x.dtype))
            if hasattr(layer, "stream")
            else self.carrying(layer)
        )

        def results():
            output = np.stack([step(x_t).copy() for x_t in x])
            return named(output, final_state())

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


class FastrnnBaseline(Fastrnn):
    """Another build, which may be older than some of the kinds."""

    def __init__(self, threads):
        super().__init__(threads)
        self.kinds = tuple(filter(self.has, KINDS))

    def has(self, kind):
        try:
            set_up(self, "forward", "float32", Shape(2, 2, 2, 4), kind).call()
        except (AttributeError, NotImplementedError):
            return False
        return True


class FastrnnPadded(Fastrnn):
    """fastrnn on ragged sequences padded to T steps, without lengths.

    It is no competitor. The report compares the time of the ragged batch with it, in proportion to the steps.
    """

    kinds = tuple(name for name, kind in KINDS.items() if kind.ragged)
    step = None

    def forward(self, problem):
        task = super().forward(replace(problem, lengths=None))
        return replace(task, results=lambda: self.cut(problem, task.results()))

    def train(self, problem):
        task = super().train(replace(problem, lengths=None))
        return replace(task, results=lambda: self.cut(problem, task.results()))

    def cut(self, problem, results):
        """Cuts the output to the lengths, with the states of each sequence alone; the gradients need no change."""
        results["output"][past_end(problem.lengths, len(problem.x))] = 0
        layer = self.layer(problem, frozen=False)
        alone = [named(*layer(problem.x[:length, b : b + 1])) for b, length in enumerate(problem.lengths)]
        states = {name: np.concatenate([one[name] for one in alone], 1) for name in alone[0] if name != "output"}
        return results | states


class FastrnnInt8(Fastrnn):
    """A quantized layer."""

    format = "int8"
    dtypes = ("float32",)
    train = None
    tolerance = OF_QUANTIZED

    def layer(self, problem, frozen):
        return super().layer(problem, frozen=False).quantize(self.format)


class FastrnnFloat16(FastrnnInt8):
    format = "float16"


class FastrnnBfloat16(FastrnnInt8):
    format = "bfloat16"


class FastrnnFloat8(FastrnnInt8):
    format = "float8"


class Reference:
    """fastrnn.reference: plain NumPy, the definition of every kernel's results."""

    modules = ("fastrnn",)
    dtypes = ("float32", "float64")
    # Its functions are those of one layer and one direction.
    kinds = tuple(name for name, kind in KINDS.items() if kind.num_layers == 1 and not kind.bidirectional)

    def __init__(self, threads):
        from fastrnn import reference

        self.reference = reference  # NumPy's products take OMP_NUM_THREADS threads
        self.version = f"numpy {np.__version__}"

    def function(self, problem, suffix=""):
        """lstm, lstm_forward or lstm_backward of the kind."""
        function = getattr(self.reference, problem.kind.layer.lower() + suffix)
        if problem.kind.reset_after or suffix == "_backward":
            return function
        return partial(function, reset_after=False)

    @staticmethod
    def weights(problem):
        return {name.removesuffix("_l0"): value for name, value in problem.params.items()}

    @staticmethod
    def named(output, state_n):
        """With the axis of the layers, which has length one."""
        results = named(output, state_n)
        return {name: value if name == "output" else value[None] for name, value in results.items()}

    def forward(self, problem):
        function = self.function(problem)
        call = partial(function, problem.x, None, **self.weights(problem), **problem.with_lengths)
        return Task(call, lambda: self.named(*call()))

    def train(self, problem):
        forward, backward = (self.function(problem, suffix) for suffix in ("_forward", "_backward"))
        forward = partial(forward, problem.x, None, **self.weights(problem), **problem.with_lengths)
        d_output = problem.d_output

        def call():
            output, state_n, tape = forward()
            return output, state_n, *backward(tape, d_output)

        def results():
            output, state_n, d_x, _, d_params = call()
            d_params = {f"{name}_l0": gradient for name, gradient in d_params.items()}
            return self.named(output, state_n) | {"d_x": d_x} | d_params

        return Task(call, results)

    def step(self, problem):
        function, x, weights = self.function(problem), problem.x, self.weights(problem)
        state = None

        def step(x_t):
            nonlocal state
            output, state = function(x_t[None], state, **weights)
            return output[0]

        def results():
            output = np.stack([step(x_t) for x_t in x])
            return self.named(output, state)

        return Task(partial(step, x[0]), results)


# ---------------------------------------------------------------------------------------------------


def eager_layer(torch):
    """The base of layers that PyTorch lacks: an eager loop over the steps, after one product with all inputs.

    A derived class has `states`, the number of states, and ``step(projected, weight, *state)``, which returns the state
    after a step, h first.
    """

    class EagerLayer(torch.nn.Module):
        def __init__(self, I, H, *, num_layers, bidirectional, dtype, num_heads=1):
            super().__init__()
            assert num_layers == 1 and not bidirectional
            self.num_heads, self.H = num_heads, H
            rows = GATES[type(self).__name__] * H
            shapes = {"weight_ih": (rows, I), "weight_hh": (rows, H // num_heads), "bias_ih": rows, "bias_hh": rows}
            for name, shape in shapes.items():
                self.register_parameter(name + "_l0", torch.nn.Parameter(torch.zeros(shape, dtype=dtype)))

        def recurrent(self):
            """weight_hh, transposed: (H, rows)."""
            return self.weight_hh_l0.T

        def forward(self, x, state=None):
            projected = torch.nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
            if state is None:
                state = (x.new_zeros(x.shape[1], self.H),) * self.states
            else:
                state = tuple(s[0] for s in (state if self.states > 1 else [state]))
            weight, output = self.recurrent(), []
            for of_step in projected:
                state = self.step(of_step, weight, *state)
                output.append(state[0])
            state = tuple(s[None] for s in state)
            return torch.stack(output), state if self.states > 1 else state[0]

    return EagerLayer


def eager_slstm(torch):
    """A class of one sLSTM layer in PyTorch. The heads of a step are one batched product."""

    class SLSTM(eager_layer(torch)):
        states = 4

        def recurrent(self):
            """weight_hh, transposed: (H, 4*H), or of each head (num_heads, S, 4*S)."""
            heads, S = self.num_heads, self.H // self.num_heads
            if heads == 1:
                return super().recurrent()
            return self.weight_hh_l0.view(4, heads, S, S).permute(1, 3, 0, 2).reshape(heads, S, 4 * S)

        def step(self, projected, weight, h, c, n, m):
            B, heads = len(h), self.num_heads
            if heads == 1:
                z = torch.addmm(projected, h, weight)
            else:
                of_heads = torch.bmm(h.view(B, heads, -1).transpose(0, 1), weight).view(heads, B, 4, -1)
                z = projected + of_heads.permute(1, 2, 0, 3).reshape(B, -1)
            z_i, z_f, z_z, z_o = z.chunk(4, dim=1)
            a = torch.nn.functional.logsigmoid(z_f) + m
            m = torch.where(n == 0, z_i, torch.maximum(z_i, a))
            i, f = torch.exp(z_i - m), torch.exp(a - m)
            c = f * c + i * torch.tanh(z_z)
            n = f * n + i
            return torch.sigmoid(z_o) * (c / n), c, n, m

    return SLSTM


def eager_ugrnn(torch):
    """A class of one UGRNN layer in PyTorch."""

    class UGRNN(eager_layer(torch)):
        states = 1

        def step(self, projected, weight, h):
            g, c = torch.addmm(projected, h, weight).chunk(2, dim=1)
            return (torch.lerp(torch.tanh(c), h, torch.sigmoid(g)),)

    return UGRNN


EAGER = {"SLSTM": eager_slstm, "UGRNN": eager_ugrnn}  # those that torch.nn lacks


class Torch:
    """nn.LSTM, and nn.LSTMCell for a step; inference mode is entered once, outside the timing.

    Ragged sequences are padded in input and output, as for all libraries, and packed for the layer.
    """

    modules = ("torch",)
    dtypes = ("float32", "float64")
    kinds = tuple(name for name, kind in KINDS.items() if kind.reset_after)

    def __init__(self, threads):
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.torch = torch
        self.version = torch.__version__

    def parameters(self, problem):
        return {name: self.torch.from_numpy(value) for name, value in problem.params.items()}

    def layer_class(self, problem):
        layer = problem.kind.layer
        return EAGER[layer](self.torch) if layer in EAGER else getattr(self.torch.nn, layer)

    def layer(self, problem):
        """(the layer, the function that runs it, x)."""
        T, _, I, H = problem.sizes
        rnn = self.torch.nn.utils.rnn
        x = self.torch.from_numpy(problem.x)
        layer = self.layer_class(problem)(I, H, dtype=x.dtype, **problem.kind.options(H))
        layer.load_state_dict(self.parameters(problem))
        if problem.lengths is None:
            return layer, partial(layer, x), x
        lengths = self.torch.from_numpy(problem.lengths)

        def call():
            packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, state_n = layer(packed)
            return rnn.pad_packed_sequence(output, total_length=T)[0], state_n

        return layer, call, x

    def forward(self, problem):
        layer, call, _ = self.layer(problem)
        layer.eval()

        def results():
            return {name: tensor.numpy() for name, tensor in named(*call()).items()}

        return Task(call, results, self.torch.inference_mode)

    def train(self, problem):
        layer, forward, x = self.layer(problem)
        x.requires_grad_()
        d_output = self.torch.from_numpy(problem.d_output)

        def call():
            # As an optimizer's zero_grad: gradients are set, not accumulated.
            layer.zero_grad(set_to_none=True)
            x.grad = None
            returned = forward()
            returned[0].backward(d_output)
            return returned

        def results():
            tensors = named(*call()) | {"d_x": x.grad}
            tensors |= {name: parameter.grad for name, parameter in layer.named_parameters()}
            return {name: tensor.detach().numpy() for name, tensor in tensors.items()}

        return Task(call, results)

    def step(self, problem):
        """A cell for each layer; of a layer that torch.nn lacks, the layer on one step."""
        if problem.kind.layer in EAGER:
            return self.step_of_layer(problem)
        _, B, I, H = problem.sizes
        torch, kind, params = self.torch, problem.kind, self.parameters(problem)
        x = torch.from_numpy(problem.x)
        cells = []
        for k, (suffix,) in enumerate(kind.suffixes):
            cells.append(getattr(torch.nn, kind.layer + "Cell")(H if k else I, H, dtype=x.dtype).eval())
            own = {name: value for name, value in params.items() if name.endswith(suffix)}
            cells[k].load_state_dict({name.removesuffix(suffix): value for name, value in own.items()})
        zeros = torch.zeros(B, H, dtype=x.dtype)
        has_c = kind.layer == "LSTM"
        states = [(zeros, zeros) if has_c else zeros for _ in cells]

        def step(x_t):
            for k, cell in enumerate(cells):
                states[k] = cell(x_t, states[k])
                x_t = states[k][0] if has_c else states[k]
            return x_t

        def results():
            output = torch.stack([step(x_t) for x_t in x])
            members = zip(*states, strict=True) if has_c else [states]
            state_n = [torch.stack(list(of_layers)) for of_layers in members]
            return {name: tensor.numpy() for name, tensor in named(output, state_n).items()}

        return Task(partial(step, x[0]), results, torch.inference_mode)

    def step_of_layer(self, problem):
        layer, _, x = self.layer(problem)
        state = None

        def step(x_t):
            nonlocal state
            output, state = layer(x_t[None], state)
            return output[0]

        def results():
            output = self.torch.stack([step(x_t) for x_t in x])
            return {name: tensor.numpy() for name, tensor in named(output, state).items()}

        return Task(partial(step, x[0]), results, self.torch.inference_mode)


class TorchInt8(Torch):
    """Dynamic quantization: int8 weights, x and h rounded with one scale for a whole array. It has no other layers."""

    dtypes = ("float32",)
    kinds = tuple(
        name
        for name in Torch.kinds
        if KINDS[name].layer in ("LSTM", "GRU") and not KINDS[name].projected and not KINDS[name].ragged
    )
    train = step = None
    engine = "x86"
    tolerance = OF_QUANTIZED

    def layer(self, problem):
        torch = self.torch
        torch.backends.quantized.engine = self.engine
        layer, _, x = super().layer(problem)
        with warnings.catch_warnings(action="ignore"):  # deprecated, and torch's only quantized LSTM
            quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {type(layer)})[0]
        return quantized, partial(quantized, x), x


class TorchInt8OneDnn(TorchInt8):
    engine = "onednn"


class TorchBfloat16(Torch):
    """Weights and x of bfloat16, converted outside the timing."""

    dtypes = ("float32",)
    kinds = tuple(name for name in Torch.kinds if not KINDS[name].ragged and KINDS[name].layer in OF_TORCH)
    train = step = None
    tolerance = OF_QUANTIZED

    def forward(self, problem):
        layer, _, x = self.layer(problem)
        layer, x = layer.to(self.torch.bfloat16).eval(), x.to(self.torch.bfloat16)
        call = partial(layer, x)

        def results():
            return {name: tensor.float().numpy() for name, tensor in named(*call()).items()}

        return Task(call, results, self.torch.inference_mode)


# ---------------------------------------------------------------------------------------------------


# Positions of ONNX's gates in torch's order: ONNX's LSTM has i o f c, its GRU z r h.
ONNX_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def onnx_model(problem, T, with_state=False):
    """The layers as the bytes of an ONNX model: x, and maybe lengths, h_0 and c_0, to output, h_n and c_n.

    The states of each layer have separate names, h_0_l0 and so on, so that the model needs no slices or concatenations.
    """
    from onnx import TensorProto, helper, numpy_helper

    _, B, I, H = problem.sizes
    kind, params = problem.kind, problem.params
    real = helper.np_dtype_to_tensor_dtype(problem.x.dtype)
    states = {name: array.shape for name, array in result_arrays(problem, T).items()}
    inputs, results = {"x": (real, (T, B, I))}, {name: (real, shape) for name, shape in states.items()}
    # The empty name stands for lengths that are all T.
    lengths = "lengths" if problem.lengths is not None else ""
    if lengths:
        inputs[lengths] = TensorProto.INT32, (B,)
    options = {"direction": "bidirectional"} if kind.bidirectional else {}
    options |= {"linear_before_reset": int(kind.reset_after)} if kind.layer == "GRU" else {}

    def in_onnx_order(rows):
        parts = np.split(rows, kind.gates)
        return np.concatenate([parts[gate] for gate in ONNX_GATES[kind.layer]])

    weights, nodes, below = {}, [], "x"
    for k, suffixes in enumerate(kind.suffixes):
        of_directions = [
            [in_onnx_order(params[name + suffix]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            for suffix in suffixes
        ]
        weights[f"W_l{k}"] = np.stack([weight_ih for weight_ih, *_ in of_directions])
        weights[f"R_l{k}"] = np.stack([weight_hh for _, weight_hh, *_ in of_directions])
        weights[f"B_l{k}"] = np.stack([np.concatenate(biases) for _, _, *biases in of_directions])
        ends = [name for name in states if name.endswith(f"_l{k}")]
        starts = [name.replace("_n_", "_0_") for name in ends] if with_state else []
        inputs |= {start: results[end] for start, end in zip(starts, ends, strict=False)}
        y, output = f"y_l{k}", "output" if k == kind.num_layers - 1 else f"output_l{k}"
        arguments = [below, f"W_l{k}", f"R_l{k}", f"B_l{k}", lengths, *starts]
        nodes.append(helper.make_node(kind.layer, arguments, [y, *ends], hidden_size=H, **options))
        # y is (T, D, B, H).
        if kind.bidirectional:
            nodes.append(helper.make_node("Transpose", [y], [y + "_turned"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [y + "_turned", "T, B, D H"], [output]))
        else:
            nodes.append(helper.make_node("Squeeze", [y, "axis of directions"], [output]))
        below = output

    integers = {"axis of directions": [1]} if not kind.bidirectional else {"T, B, D H": [0, 0, -1]}
    graph = helper.make_graph(
        nodes,
        kind.layer.lower(),
        [helper.make_tensor_value_info(name, *type_and_shape) for name, type_and_shape in inputs.items()],
        [helper.make_tensor_value_info(name, *type_and_shape) for name, type_and_shape in results.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()]
        + [helper.make_tensor(name, TensorProto.INT64, [len(n)], n) for name, n in integers.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def result_arrays(problem, T):
    """The output arrays of a problem's model: the output, and the states of each layer."""
    _, B, _, H = problem.sizes
    kind = problem.kind
    shapes = {"output": (T, B, kind.output_size(H))}
    for k, directions in enumerate(kind.suffixes):
        for name in ("h_n", "c_n") if kind.layer == "LSTM" else ("h_n",):
            shapes[f"{name}_l{k}"] = len(directions), B, H
    return {name: np.zeros(shape, problem.x.dtype) for name, shape in shapes.items()}


def stacked(arrays):
    """The results of a model with the states of all layers together."""
    states = {}
    for name, array in arrays.items():
        if name != "output":
            states.setdefault(name[: name.index("_l")], []).append(array)
    return {"output": arrays["output"]} | {name: np.concatenate(parts) for name, parts in states.items()}


class BoundModel:
    """The common base of ONNX Runtime and OpenVINO: a compiled model that runs between arrays bound once.

    A subclass compiles a model, and returns a function that runs it on bound input and output arrays. ONNX has neither
    a projection nor the layers that torch.nn lacks.
    """

    modules = ()
    dtypes = ("float32",)
    kinds = tuple(name for name, kind in KINDS.items() if not kind.projected and kind.layer in OF_TORCH)

    def compile(self, model):
        raise NotImplementedError

    def bind(self, compiled, inputs, outputs):
        raise NotImplementedError

    def forward(self, problem):
        T, _, _, _ = problem.sizes
        inputs, outputs = {"x": problem.x}, result_arrays(problem, T)
        if problem.lengths is not None:
            inputs["lengths"] = problem.lengths.astype(np.int32)
        compiled = self.compile(onnx_model(problem, T))
        run = self.bind(compiled, inputs, outputs)
        keeps = [inputs, outputs]

        def results():
            run()
            return stacked(outputs)

        def another():
            keeps.append(result_arrays(problem, T))
            return self.bind(compiled, inputs, keeps[-1])

        return Task(run, results, keeps=keeps, another=another)

    def step(self, problem):
        """Two bindings alternate; each reads the state that the other wrote."""
        compiled = self.compile(onnx_model(problem, 1, with_state=True))
        x, x_t = problem.x, problem.x[:1].copy()
        ends = result_arrays(problem, 1), result_arrays(problem, 1)

        def inputs(start):
            states = {name.replace("_n_", "_0_"): array for name, array in start.items() if name != "output"}
            return {"x": x_t} | states

        runs = [self.bind(compiled, inputs(start), end) for start, end in (ends[::-1], ends)]
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
            return stacked(ends[latest]) | {"output": np.stack(outputs)}

        return Task(step, results, keeps=(x_t, ends))


class OnnxRuntime(BoundModel):
    """A session, which packs the weights when it is made, and its I/O binding."""

    modules = ("onnxruntime", "onnx")

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        if threads is not None:
            self.options.intra_op_num_threads = threads
            self.options.inter_op_num_threads = 1
        self.version = onnxruntime.__version__

    def compile(self, model):
        return self.onnxruntime.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])

    def bind(self, compiled, inputs, outputs):
        value = self.onnxruntime.OrtValue.ortvalue_from_numpy
        binding = compiled.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, value(array))
        return partial(compiled.run_with_iobinding, binding)


class OnnxRuntimeInt8(OnnxRuntime):
    """DynamicQuantizeLSTM with a scale for each row of the weights; there is no other quantized layer.

    On x86 processors without VNNI it adds products in 16 bits, which saturate. There the weights have 7 bits, as its
    documentation advises.
    """

    kinds = tuple(name for name in BoundModel.kinds if KINDS[name].layer == "LSTM")
    tolerance = OF_QUANTIZED

    def compile(self, model):
        import logging
        import tempfile

        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        import fastrnn

        logging.getLogger().setLevel(logging.ERROR)  # it advises to prepare the model, which has shapes already
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            saturates = fastrnn.config()["quantized_instructions"]["int8"] in ("avx2", "avx512bw")
            options = {"per_channel": True, "weight_type": QuantType.QInt8, "op_types_to_quantize": ["LSTM"]}
            quantize_dynamic(onnx.load_from_string(model), file.name, reduce_range=saturates, **options)
            return super().compile(file.read())


class OpenVino(BoundModel):
    """A model compiled for latency and for float32 arithmetic, and its request with tensors set."""

    modules = ("openvino", "onnx")
    precision = "f32"  # otherwise bfloat16 where the processor has it

    def __init__(self, threads):
        import openvino

        self.openvino = openvino
        self.core = openvino.Core()
        self.version = openvino.__version__.split("-")[0]
        self.settings = {
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
        }

    def compile(self, model):
        return self.core.compile_model(self.core.read_model(model), "CPU", self.settings)

    def bind(self, compiled, inputs, outputs):
        request = compiled.create_infer_request()
        for name, array in (inputs | outputs).items():
            request.set_tensor(name, self.openvino.Tensor(array, shared_memory=True))
        return partial(request.infer, share_outputs=True)


class OpenVinoBfloat16(OpenVino):
    precision = "bf16"
    tolerance = OF_QUANTIZED


# ---------------------------------------------------------------------------------------------------

FASTRNN, UNFROZEN, PADDED = "fastrnn", "fastrnn unfrozen", "fastrnn padded"
BASELINE, REFERENCE = "baseline", "reference"

PEERS = {"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}
# Inference with fewer bits, beside that of float32.
QUANTIZED = {
    "fastrnn int8": FastrnnInt8,
    "fastrnn float16": FastrnnFloat16,
    "fastrnn bfloat16": FastrnnBfloat16,
    "fastrnn float8": FastrnnFloat8,
}
QUANTIZED_PEERS = {
    "onnxruntime int8": OnnxRuntimeInt8,
    "torch int8": TorchInt8,
    "torch int8 onednn": TorchInt8OneDnn,
    "torch bfloat16": TorchBfloat16,
    "openvino bfloat16": OpenVinoBfloat16,
}
LIBRARIES = {
    FASTRNN: Fastrnn,
    UNFROZEN: FastrnnUnfrozen,
    PADDED: FastrnnPadded,
    BASELINE: FastrnnBaseline,
    REFERENCE: Reference,
    **PEERS,
    **QUANTIZED,
    **QUANTIZED_PEERS,
}


def is_installed(library):
    return all(importlib.util.find_spec(module) is not None for module in library.modules)


def takes_part(library, mode, dtype, kind=PLAIN):
    """Whether a library, as a class or an object, supports a mode; for a baseline only the object knows."""
    return getattr(library, mode, None) is not None and dtype in library.dtypes and kind in library.kinds


def set_up(library, mode, dtype, shape, kind=PLAIN):
    """The task of a library, an object of one of the classes above, for a shape."""
    steps = COMPARED_STEPS if mode == "step" else shape[0]
    return getattr(library, mode)(Problem.of((steps, *shape[1:]), np.dtype(dtype), kind))


def check_agreement(name, expected, actual, dtype):
    """Stops with an error unless both have the same arrays, equal up to rounding of the dtype or of quantization."""
    tolerance = getattr(LIBRARIES.get(name), "tolerance", TOLERANCE[dtype])
    if actual.keys() != expected.keys():
        raise AssertionError(f"{name} returns {sorted(actual)}, {FASTRNN} {sorted(expected)}")
    for key, value in expected.items():
        np.testing.assert_allclose(
            actual[key],
            value,
            rtol=0,
            atol=tolerance * max(1, np.abs(value).max(initial=0)),
            err_msg=f"{name} and {FASTRNN} disagree on {key}",
        )
