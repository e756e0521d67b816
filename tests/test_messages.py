"""Common mistakes, each with an error that names the remedy.

Stand-ins replace objects of torch and pandas, so that the tests need neither; if one is installed, the real objects are
tried, too.
"""

import collections
import inspect
import re

import numpy as np
import pytest

import fastrnn
from fastrnn import functional, reference

T, B, I, H = 5, 3, 4, 6
CLASSES = [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN]
CELLS = [fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def layer(request):
    return request.param(I, H, rng=0)


def refused(error, message, call, *arguments, **options):
    with pytest.raises(error, match="^" + message):
        call(*arguments, **options)


class Tensor:
    """A stand-in for torch.Tensor."""

    def __init__(self, array, requires_grad=False, dtype="torch.float32"):
        self.array, self.requires_grad, self.dtype = np.asarray(array), requires_grad, dtype
        self.shape, self.ndim = self.array.shape, self.array.ndim

    def detach(self):
        return Tensor(self.array)

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


PackedSequence = collections.namedtuple("PackedSequence", "data batch_sizes sorted_indices unsorted_indices")


class Table:
    """A DataFrame whose numbers NumPy holds as objects."""

    def to_numpy(self, dtype=None):
        return np.ones((T, I), dtype)

    def __array__(self, dtype=None, copy=None):
        return np.ones((T, I), object)


# x


def both(module):
    return lambda x: module.rnn(x, None, np.zeros((H, I)), np.zeros((H, H)))


@pytest.mark.parametrize("call", [fastrnn.LSTM(I, H), fastrnn.RNN(I, H).forward, both(functional), both(reference)])
def test_x(call):
    ragged = [np.zeros((5, I)), np.zeros((3, I))]
    refused(ValueError, "x: not an array: .*different lengths: pad them to one array and pass lengths=", call, ragged)
    ragged = [array.tolist() for array in ragged]
    refused(ValueError, "x: not an array: .*different lengths: pad them to one array and pass lengths=", call, ragged)
    for equal in ([np.zeros((T, I))] * B, (Tensor(np.zeros((T, I))),) * B):
        refused(TypeError, r"x: a list of arrays, .* np\.stack\(x, axis=1\) of sequences", call, equal)
    packed = PackedSequence(np.zeros((7, I)), np.array([3, 2, 2]), None, None)
    refused(TypeError, r"x: a PackedSequence; .*pad_packed_sequence and pass lengths=", call, packed)
    refused(TypeError, r"x: a Table of text or of nullable numbers; .*\.to_numpy\(np\.float32\)", call, Table())
    refused(TypeError, r"x: a tensor that requires grad, .*\.detach\(\)", call, Tensor(np.zeros((T, B, I)), True))
    refused(
        TypeError, r"x: .*BFloat16; give its \.float\(\)", call, Tensor(np.zeros((T, B, I)), dtype="torch.bfloat16")
    )
    refused(ValueError, r"x: expected .* got \(9,\); a series of single numbers is x\[:, None\]", call, np.zeros(9))
    integers = np.zeros((T, B), np.int64)
    refused(ValueError, r"x: expected .* got \(5, 3\); integers .*one-hot, or an embedding", call, integers)


def test_lists_that_say_what_they_mean(layer):
    x = np.random.default_rng(0).uniform(-1, 1, (T, B, I)).astype(np.float32)
    expected = layer(x)[0].tobytes()
    assert layer(x.tolist())[0].tobytes() == expected
    assert layer(np.stack(list(x)))[0].tobytes() == expected
    assert layer(list(x[:, 0]))[0].tobytes() == layer(x[:, 0])[0].tobytes()


# Gradients that would be lost


@pytest.mark.parametrize("module", [functional, reference])
def test_tensors_that_require_grad(module):
    given = {"x": np.zeros((T, B, I)), "state": np.zeros((B, H)), "weight_ih": np.zeros((H, I))}
    given |= {"weight_hh": np.zeros((H, H)), "bias_ih": np.zeros(H), "bias_hh": np.zeros(H)}
    for name, array in given.items():
        refused(TypeError, rf"{name}: a tensor .*\.detach\(\)", module.rnn, **given | {name: Tensor(array, True)})


def test_learned_states_that_require_grad():
    x, h = np.zeros((T, B, I)), Tensor(np.zeros((1, B, H)), True)
    refused(TypeError, r"state \(c_0\): a tensor .*\.detach\(\)", fastrnn.LSTM(I, H), x, (None, h))
    refused(TypeError, r"state: a tensor .*\.detach\(\)", fastrnn.GRU(I, H), x, h)
    refused(TypeError, r"state: a tensor .*\.detach\(\)", fastrnn.GRU(I, H, 2), x, [Tensor(np.zeros((B, H)), True)] * 2)
    refused(TypeError, r"x_t: a tensor .*\.detach\(\)", fastrnn.GRU(I, H).stream().step, Tensor(np.zeros(I), True))
    refused(TypeError, r"x: a tensor .*\.detach\(\)", fastrnn.GRUCell(I, H), Tensor(np.zeros((B, I)), True))


def test_state_dicts_may_require_grad(layer):
    arrays = {name: np.full_like(array, k) for k, (name, array) in enumerate(layer.params.items())}
    layer.load_state_dict({name: Tensor(array, True) for name, array in arrays.items()})
    for name, array in arrays.items():
        assert layer.params[name].tobytes() == array.tobytes()
        layer.params[name] = Tensor(array + 1, True)
        assert layer.params[name].tobytes() == (array + 1).tobytes()


# Backward


def test_no_gradients():
    message = "d_output, d_state_n: neither is given, so all gradients would be zero; give one or both"
    for cls in CLASSES:
        _, _, tape = (layer := cls(I, H)).forward(np.zeros((T, B, I)))
        refused(ValueError, message, layer.backward, tape)
    for module in (functional, reference):
        _, _, tape = module.rnn_forward(np.zeros((T, B, I)), None, np.zeros((H, I)), np.zeros((H, H)))
        refused(ValueError, message, module.rnn_backward, tape)
    for cls in CELLS:
        _, tape = (cell := cls(I, H)).forward(np.zeros((B, I)))
        refused(ValueError, "d_state: is not given, so all gradients would be zero", cell.backward, tape, None)
    refused(
        ValueError, "d_state: is not", (cell := fastrnn.LSTMCell(I, H)).backward, cell.forward([0] * I)[1], (None,) * 2
    )


def test_a_forgotten_tape(layer):
    output, _, _ = layer.forward(np.zeros((T, B, I)))
    refused(
        TypeError, "tape: expected .* got a numpy.ndarray; it is what forward returns third", layer.backward, output
    )
    cell = fastrnn.GRUCell(I, H)
    refused(TypeError, "tape: expected .*; it is what forward returns second", cell.backward, output, output)


@pytest.mark.parametrize("cls", [fastrnn.GRU, fastrnn.RNN])
def test_the_pair_of_an_lstm(cls):
    layer = cls(I, H)
    message = r"{}: expected one array, got a tuple of length 2; an LSTM's is \(h, c\)"
    h, x = np.zeros((1, B, H)), np.zeros((T, B, I))
    refused(TypeError, message.format("state"), layer, x, (h, h))
    output, _, tape = layer.forward(x)
    refused(TypeError, message.format("d_state_n"), layer.backward, tape, output, (h, h))
    cell = getattr(fastrnn, cls.__name__ + "Cell")(I, H)
    refused(TypeError, message.format("state"), cell, x[0], (h[0], h[0]))
    stream = layer.stream(B)
    with pytest.raises(TypeError, match="^" + message.format("state")):
        stream.state = h, h


# Names


def test_names_of_other_libraries(layer):
    x = np.zeros((T, B, I))
    for call in (layer, layer.forward):
        refused(TypeError, "hx: is called state here", call, x, hx=None)
        message = r"mask: .* lengths, integers \(B,\), .* fastrnn.masked\(layer, x, mask\)"
        refused(TypeError, message, call, x, mask=np.ones((T, B), bool))
        refused(TypeError, "input: is called x here", call, input=x)
        with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
            call(x, masks=None)
    refused(TypeError, "seed: is called rng here", type(layer), I, H, seed=0)
    name = type(layer).__name__
    for module in (functional, reference):
        function = getattr(module, name.lower())
        refused(TypeError, "hx: is called state here", function, x, hx=None, weight_ih=x, weight_hh=x)
    cell = getattr(fastrnn, name + "Cell")
    refused(TypeError, "seed: is called rng here", cell, I, H, seed=0)
    refused(TypeError, "hx: is called state here", cell(I, H), x[0], hx=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        cell(I, H)(x[0], mask=None)


@pytest.mark.parametrize("function", [fastrnn.LSTM, fastrnn.LSTM.__call__, fastrnn.GRUCell.forward, functional.lstm])
def test_signatures_are_those_of_the_source(function):
    signature = inspect.signature(function)
    assert not any(p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())


def test_names_of_parameters(layer):
    for get in (lambda: layer.params["weight_ih"], lambda: layer.params.__setitem__("weight_ih", 0)):
        with pytest.raises(KeyError, match="weight_ih: is not among the names weight_ih_l0, weight_hh_l0, bias_ih_l0"):
            get()


def test_state_dicts_with_a_prefix(layer):
    given = {f"encoder.rnn.{name}": array for name, array in layer.params.items()} | {"head.weight": np.zeros(3)}
    with pytest.raises(
        ValueError, match="^mapping: does not fit .*\n.*the names begin with 'encoder.rnn.'; give"
    ) as caught:
        layer.load_state_dict(given)
    advice = re.search("give ({.*})", str(caught.value))[1]
    layer.load_state_dict(eval(advice, {"mapping": given}))
    with pytest.raises(ValueError, match="missing") as caught:
        layer.load_state_dict(dict(list(given.items())[1:]))
    assert "begin" not in str(caught.value)


@pytest.mark.parametrize(
    "compute",
    [
        lambda p: p - 1, lambda p: 0.1 * p, lambda p: p + p, lambda p: np.float32(0.1) * p, lambda p: p / 2,
        lambda p: -p, lambda p: np.ones(3) - p, lambda p: p**2, lambda p: p // 2, lambda p: p % 2,
        lambda p: np.sum(p), lambda p: np.linalg.norm(p), lambda p: np.asarray(p), lambda p: np.array([p]),
    ],
)  # fmt: skip
def test_arithmetic_on_parameters(compute):
    params = fastrnn.LSTM(I, H).params
    refused(TypeError, "Parameters: have no arithmetic; use .flat", compute, params)


def test_parameters_are_compared_as_wholes():
    params = fastrnn.LSTM(I, H).params
    assert (params == np.ones(3)) is (np.ones(3) == params) is (np.float32(1) == params) is False
    assert (params != np.ones(3)) is (np.ones(3) != params) is True and params not in [np.ones(3)]


# The real objects


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    layer, x = fastrnn.GRU(I, H, rng=0), torch.ones(T, B, I)
    assert layer(x)[0].tobytes() == layer(x.numpy())[0].tobytes()
    refused(TypeError, r"x: a tensor that requires grad, .*\.detach\(\)", layer, x.clone().requires_grad_())
    refused(TypeError, r"x: .*BFloat16; give its \.float\(\)", layer, x.bfloat16())
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [5, 3, 1])
    refused(TypeError, "x: a PackedSequence", layer, packed)
    refused(TypeError, "x: a list of arrays", layer, list(x))
    refused(TypeError, "state: a tensor that requires grad", layer, x, [torch.zeros(B, H, requires_grad=True)])
    module = torch.nn.GRU(I, H)
    layer.load_state_dict(dict(module.named_parameters()))
    layer.load_state_dict(module.state_dict(keep_vars=True))


def test_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    layer = fastrnn.GRU(2, H, rng=0)
    numbers = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    assert layer(numbers)[0].tobytes() == layer(numbers.to_numpy())[0].tobytes()
    text = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    nullable = pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.array([3, None], "Int64")})
    for table in (text, nullable):
        refused(TypeError, r"x: a DataFrame of text .*\.to_numpy\(np\.float32\)", layer, table)
    refused(ValueError, r"x: expected .*; a series of single numbers is x\[:, None\]", layer, numbers["a"])
