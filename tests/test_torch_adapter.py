"""fastrnn.torch: the results, gradients and errors of torch.nn, in every way in which PyTorch runs a module."""

import abc
import collections
import copy
import gc
import io
import pickle
import subprocess
import sys
import warnings
import weakref
from typing import Generic, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.utils.checkpoint import checkpoint

import fastrnn.torch as fast
from fastrnn import _config, _core
from fastrnn._engine.ragged import padded

NAMES = ["LSTM", "GRU", "RNN"]
T = TypeVar("T")
I, H = 3, 4


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(fast, "_warned", set())


def pair(name, *args, dtype=torch.float64, **options):
    """A module of torch.nn and one of fastrnn.torch with the same weights."""
    original = getattr(torch.nn, name)(*(args or (I, H)), dtype=dtype, **options)
    module = getattr(fast, name)(*(args or (I, H)), dtype=dtype, **options)
    module.load_state_dict(original.state_dict())
    return original, module


def tensors_of(results):
    """The tensors of a module's results, however they are nested."""
    if isinstance(results, PackedSequence):
        return [results.data]
    return [results] if isinstance(results, torch.Tensor) else [t for one in results for t in tensors_of(one)]


def loss_of(results):
    """A sum of the results with different weights."""
    generator = torch.Generator().manual_seed(5)
    return sum((t * torch.randn(t.shape, dtype=t.dtype, generator=generator)).sum() for t in tensors_of(results))


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def same(found, expected, bound=1e-10):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=0, atol=bound)


# Results and gradients


@st.composite
def configurations(draw):
    name = draw(st.sampled_from(NAMES))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if name == "LSTM":
        options["proj_size"] = draw(st.sampled_from([0, 2]))
    if name == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return name, options


def batch(kind, batch_first, T, lengths):
    """An input of that kind, and the tensors in it that need gradients."""
    B = len(lengths)
    if kind == "packed":
        sequences = [random(n, I).requires_grad_() for n in lengths]
        return pack_sequence(sequences, enforce_sorted=False), sequences
    x = random(T, I) if kind == "unbatched" else random(B, T, I) if batch_first else random(T, B, I)
    if kind == "strided":
        x = torch.randn(*x.shape[:-1], 2 * I, dtype=x.dtype)
    x.requires_grad_()
    return x if kind != "strided" else x[..., ::2], [x]


def initial(module, kind, B):
    shapes = module._state_shapes(B)
    state = [random(L, width) if kind == "unbatched" else random(L, B, width) for L, B, width in shapes]
    return [s.requires_grad_() for s in state]


@given(configuration=configurations(), data=st.data())
@settings(max_examples=1000)
def test_equals_torch_nn(configuration, data):
    name, options = configuration
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    original, module = pair(name, **options)
    kind = data.draw(st.sampled_from(["padded", "strided", "packed", "unbatched"]))
    T, lengths = data.draw(st.integers(1, 6)), data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    x, leaves = batch(kind, options["batch_first"], T, lengths)
    state = None
    if data.draw(st.booleans()):
        leaves += (state := initial(module, kind, len(lengths)))
        state = tuple(state) if name == "LSTM" else state[0]
    for one, other in zip(module.parameters(), original.parameters()):
        needed = data.draw(st.booleans())
        one.requires_grad_(needed), other.requires_grad_(needed)
    expected, found = original(x, state), module(x, state)
    same(tensors_of(found), tensors_of(expected))
    if kind == "packed":
        assert all(a is b for a, b in zip(found[0][1:], x[1:]))
    wanted = [[*leaves, *[p for p in m.parameters() if p.requires_grad]] for m in (module, original)]
    results = (torch.autograd.grad(loss_of(r), w, retain_graph=True) for r, w in zip((found, expected), wanted))
    same(*results)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(module.eval()(x, state)), tensors_of(found)))


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    original, module = pair(name, 40, 70, num_layers=2, dtype=torch.float32)
    x = random(20, 5, 40, dtype=torch.float32).requires_grad_()
    gradients = [torch.autograd.grad(loss_of(m(x)), [x, *m.parameters()]) for m in (module, original)]
    same(tensors_of(module(x)), tensors_of(original(x)), 1e-5)
    for found, expected in zip(*gradients):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


CASES = [
    ("LSTM", {"num_layers": 2, "proj_size": 2, "dropout": 0.4}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "dropout": 0.5}),
    ("RNN", {"num_layers": 2, "bias": False}),
]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name, options", CASES)
def test_gradcheck(name, options, packed):
    module = getattr(fast, name)(I, H, dtype=torch.float64, **options)
    sizes = torch.tensor([2, 1, 1])

    def run(x, *others):
        torch.manual_seed(3)  # of dropout
        return tuple(tensors_of(module(PackedSequence(x, sizes) if packed else x)))

    x = random(4, I) if packed else random(3, 2, I)
    arguments = x.requires_grad_(), *module.parameters()
    assert torch.autograd.gradcheck(run, arguments)
    assert torch.autograd.gradgradcheck(run, arguments[:3])


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_with_tied_weights(name):
    original, module = pair(name, H, H, num_layers=2)
    x = random(3, 2, H).requires_grad_()

    def second(m):
        m.weight_hh_l1 = m.weight_hh_l0
        (d_x, d_weight) = torch.autograd.grad(loss_of(m(x)), [x, m.weight_hh_l0], create_graph=True)
        return torch.autograd.grad((d_x**2).sum() + (d_weight**3).sum(), [x, *m.parameters()])

    same(second(module), second(original))


@pytest.mark.parametrize("name, options", CASES)
def test_batches_of_gradients(name, options):
    module, x = getattr(fast, name)(I, H, dtype=torch.float64, **options), random(3, 2, I).requires_grad_()
    wanted = [x, *module.parameters()]
    output, _ = module(x)
    batch = random(4, *output.shape)
    expected = [torch.autograd.grad(output, wanted, d, retain_graph=True) for d in batch]
    expected = [torch.stack(of_one) for of_one in zip(*expected)]
    same(torch.autograd.grad(output, wanted, batch, is_grads_batched=True, retain_graph=True), expected)
    same(torch.func.vmap(lambda d: torch.autograd.grad(output, wanted, d, retain_graph=True))(batch), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_parameter_gets_no_gradient(name):
    module = getattr(fast, name)(I, H)
    module.weight_hh_l0.requires_grad_(False)
    x, state = torch.randn(5, 2, I), [torch.randn(shape) for shape in module._state_shapes(2)]
    loss_of(module(x, tuple(state) if name == "LSTM" else state[0])).backward()
    assert [p.grad is None for p in module.parameters()] == [False, True, False, False]
    assert all(t.grad is None for t in (x, *state))


@pytest.mark.parametrize("results", ["output", "state"])
def test_a_gradient_of_some_results(results):
    original, module = pair("LSTM", bidirectional=True)
    x = random(5, 2, I).requires_grad_()
    pick = (lambda r: r[0][1:3]) if results == "output" else (lambda r: r[1][1])
    same(*[torch.autograd.grad(loss_of(pick(m(x))), [x, *m.parameters()]) for m in (module, original)])


def outcome(function):
    """The results, or the type and the message of the exception."""
    try:
        return [t.tolist() for t in tensors_of(function())]
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "x, state",
    [
        (torch.zeros(0, 2, I), None),
        (torch.zeros(2, 0, I), None),
        (torch.zeros(2, 2, I + 1), None),
        (torch.zeros(I), None),
        (torch.zeros(2, 2, 2, I), None),
        (torch.zeros(2, 2, I, dtype=torch.float64), None),
        (torch.zeros(2, 2, I, dtype=torch.int64), None),
        (torch.zeros(2, 2, I), (1, 3, H)),
        (torch.zeros(2, 2, I), (2, H)),
        (torch.zeros(2, 2, I), (1, 2, H + 1)),
        (torch.zeros(2, I), (1, 1, H)),
        (PackedSequence(torch.zeros(3, I), torch.tensor([2, 1])), (1, 1, H)),
    ],
)
def test_empty_and_wrong_arguments_are_those_of_torch_nn(name, x, state):
    original, module = pair(name, dtype=torch.float32)
    if state is not None:
        state = (torch.zeros(state),) * 2 if name == "LSTM" else torch.zeros(state)
    assert outcome(lambda: module(x, state)) == outcome(lambda: original(x, state))


@pytest.mark.parametrize("sizes", [[1, 2], [2, 2], [2, 0, 1], [3, 1], [3, 0]])
def test_wrong_batch_sizes_never_reach_a_kernel(sizes, monkeypatch):
    module = fast.GRU(I, H)
    monkeypatch.setattr(fast, "_inputs", None)
    monkeypatch.setattr(torch.nn.GRU, "forward", lambda *args: "torch.nn")
    assert module(PackedSequence(torch.zeros(3, I), torch.tensor(sizes))) == "torch.nn"


def test_an_input_that_changes_before_backward():
    module = fast.LSTM(I, H)
    x = torch.zeros(3, 2, I)
    output, _ = module(x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# Dropout


@pytest.mark.parametrize("name", NAMES)
def test_dropout(name):
    original, module = pair(name, num_layers=2, dropout=0.5)
    x = random(5, 2, I)

    def run():
        return tensors_of(module(x))[0]

    torch.manual_seed(1)
    first, second = run(), run()
    torch.manual_seed(1)
    assert torch.equal(run(), first) and not torch.equal(first, second)
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(run(), first)
    original.dropout = module.dropout = 1.0
    same(tensors_of(module(x)), tensors_of(original(x)))
    same(tensors_of(module.eval()(x)), tensors_of(original.eval()(x)))


def test_how_much_dropout_keeps():
    module = fast.RNN(1, 1000, num_layers=2, nonlinearity="relu", dropout=0.3, bias=False)
    for name, weight in module.named_parameters():
        torch.nn.init.eye_(weight) if name == "weight_ih_l1" else torch.nn.init.zeros_(weight)
    module.weight_ih_l0.data += 1
    output, _ = module(torch.ones(1, 50, 1))
    assert torch.equal(output.unique(), torch.tensor([0, 1 / (1 - 0.3)]))
    assert abs((output > 0).double().mean() - 0.7) < 0.01


# In a model


class Tagger(torch.nn.Module):
    def __init__(self, name="LSTM", **options):
        super().__init__()
        self.rnn = getattr(torch.nn, name)(I, H, dtype=torch.float64, **options)
        self.head = torch.nn.Linear(H * (1 + self.rnn.bidirectional), 2, dtype=torch.float64)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Mine(torch.nn.LSTM):
    pass


class Features(abc.ABC, torch.nn.RNNBase):
    """As pytorch-forecasting derives its modules."""

    @abc.abstractmethod
    def initial(self): ...


class OfTwoBases(Features, torch.nn.LSTM, Generic[T]):
    tag: str = "a"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scale = torch.nn.Parameter(torch.ones(2))

    def initial(self):
        return self.hidden_size

    def reset_parameters(self):
        super().reset_parameters()

    def train(self, mode=True):
        self.trained = mode
        return super().train(mode)


class WithForward(torch.nn.GRU):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


class WithLengths(Features, torch.nn.LSTM):
    """As in pytorch-forecasting, whose forward has more arguments."""

    def forward(self, x, hx=None, lengths=None):
        if lengths is None:
            return super().forward(x, hx=hx)
        packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        return super().forward(packed, hx=hx)

    def initial(self): ...


class WithOwnForward(torch.nn.GRU):
    def forward(self, input, hx=None):
        return torch.nn.GRU.forward(self, 2 * input, hx)


class WithFlatWeights(torch.nn.LSTM):
    def forward(self, input, hx=None):
        self._flat_weights = [2 * w for w in self._flat_weights]
        return super().forward(input, hx)


class WithCheck(torch.nn.LSTM):
    def check_forward_args(self, *arguments):
        pass


class WithWeight(torch.nn.LSTM):
    @property
    def weight_hh_l0(self):
        if "weight_hh_l0" not in self._parameters:
            raise AttributeError
        return 2 * self._parameters["weight_hh_l0"]


class WithAttributes(torch.nn.LSTM):
    def __getattr__(self, name):
        return super().__getattr__(name)


class Registered(torch.nn.LSTM):
    def __init_subclass__(cls, name):
        pass


class Counted(type):
    pass


class WithMetaclass(torch.nn.RNN, metaclass=Counted):
    pass


class OfBase(torch.nn.RNNBase):
    pass


class OfFast(fast.LSTM):
    pass


@pytest.mark.parametrize("cls", [Mine, OfTwoBases, WithForward, WithLengths])
def test_subclasses_that_override_nothing_that_forward_uses(cls, monkeypatch):
    module, other = cls(I, H, 2, batch_first=True), cls(I, H)
    model = torch.nn.ModuleList([module, other])
    x = random(2, 5, I, dtype=torch.float32)
    before = module(x)
    expected = torch.autograd.grad(loss_of(before), [module.weight_hh_l0])
    assert fast.replace(model) == (["0", "1"], {}) and fast.replace(model) == ([], {})
    assert type(module) is type(other) and isinstance(module, cls) and isinstance(module, fast.Recurrent)
    assert repr(module).startswith(f"{cls.__name__}(3, 4, num_layers=2")
    monkeypatch.setattr(torch, "_VF", None)
    monkeypatch.setattr(torch.nn.modules.rnn, "_VF", None)  # torch.nn cannot compute
    results = module(x)
    same(tensors_of(results), tensors_of(before), 1e-6)
    same(torch.autograd.grad(loss_of(results), [module.weight_hh_l0]), expected, 1e-5)
    with torch.no_grad():
        module.eval()(x)
        assert "_known" in module.__dict__
        for one in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.copy(module)):
            assert type(one) is type(module) and "_known" not in one.__dict__
            same(tensors_of(one(x)), tensors_of(before), 1e-6)
    if cls is OfTwoBases:
        assert module.initial() == H and not module.trained and module.tag == "a"
    assert fast.replace(model, whole_graph=True).left.keys() == {"0", "1"}
    assert fast.restore(model) == ["0", "1"] and type(module) is type(other) is cls
    assert "_known" not in module.__dict__


def test_a_forward_with_more_arguments():
    module = WithLengths(I, H, batch_first=True)
    x, lengths = random(3, 5, I, dtype=torch.float32), torch.tensor([2, 5, 1])
    expected = module(x, lengths=lengths)
    assert fast.replace(module).replaced == [""]
    same(tensors_of(module(x, lengths=lengths)), tensors_of(expected), 1e-6)


def test_classes_made_for_subclasses_are_freed():
    class Local(torch.nn.GRU):
        pass

    module = Local(I, H)
    fast.replace(module)
    made = weakref.ref(type(module))
    del module, Local
    gc.collect()
    assert made() is None


@pytest.mark.parametrize(
    "cls, reason",
    [
        (WithOwnForward, "WithOwnForward is a subclass that overrides forward, without super().forward"),
        (WithFlatWeights, "WithFlatWeights is a subclass that uses _flat_weights"),
        (WithCheck, "WithCheck is a subclass that overrides check_forward_args"),
        (WithWeight, "WithWeight is a subclass that overrides weight_hh_l0"),
        (WithAttributes, "WithAttributes is a subclass that overrides __getattr__"),
        (Registered, "Registered is a subclass that overrides __init_subclass__"),
        (WithMetaclass, "WithMetaclass is a subclass with a metaclass, Counted"),
        (lambda *sizes: OfBase("LSTM", *sizes), "OfBase is a subclass of torch.nn.RNNBase"),
        (OfFast, "OfFast is a subclass of fastrnn.torch"),
    ],
)
def test_subclasses_that_are_left(cls, reason):
    module = cls(I, H)
    before = type(module)
    assert fast.replace(module) == ([], {"": reason})
    assert type(module) is before and fast.restore(module) == []


def test_parametrized_modules_and_other_forwards_are_left():
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(I, H), "weight_hh_l0")
    assert fast.replace(module) == ([], {"": "ParametrizedLSTM is a subclass with parametrizations"})
    module = torch.nn.LSTM(I, H)
    module.forward = lambda x: x
    assert fast.replace(module) == ([], {"": "its forward has been replaced by another function"})


@pytest.mark.filterwarnings("ignore")  # PyTorch deprecates both
def test_other_recurrent_modules_are_left_with_the_reason():
    cells = torch.nn.ModuleList([torch.nn.LSTMCell(I, H), torch.nn.GRUCell(I, H), torch.nn.RNNCell(I, H)])
    names = {str(i): f"{type(cell).__name__} is a cell" for i, cell in enumerate(cells)}
    assert fast.replace(cells) == ([], names)
    model = torch.nn.Sequential(torch.nn.LSTM(I, H))
    assert fast.replace(torch.jit.script(model)) == ([], {"0": "LSTM is TorchScript"})
    assert fast.replace(torch.jit.trace(model, torch.zeros(2, 1, I))) == ([], {"0": "LSTM is TorchScript"})
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM}, torch.qint8)
    replaced, left = fast.replace(quantized)
    assert replaced == [] and left["0"].endswith(".LSTM is quantized")


def test_replace_and_restore():
    model = torch.nn.ModuleDict(
        {"a": Tagger(), "b": torch.nn.ModuleList([torch.nn.GRU(I, H), torch.nn.RNN(I, H), WithOwnForward(I, H)])}
    )
    model["same"], model["fp16"], model["meta"] = (
        model["b"][0],
        torch.nn.GRU(I, H).half(),
        torch.nn.GRU(I, H).to("meta"),
    )
    model["cell"] = torch.nn.LSTMCell(I, H)
    modules, parameters, keys = list(model.modules()), list(model.parameters()), list(model.state_dict())
    replaced, left = fast.replace(model)
    assert replaced == ["a.rnn", "b.0", "b.1"]
    assert left == {
        "b.2": "WithOwnForward is a subclass that overrides forward, without super().forward",
        "cell": "LSTMCell is a cell",
        "fp16": "its parameters are of torch.float16",
        "meta": "its parameters are on meta",
    }
    assert [type(m) for m in (model["a"].rnn, *model["b"])] == [fast.LSTM, fast.GRU, fast.RNN, WithOwnForward]
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys and fast.replace(model).replaced == []
    assert repr(model["b"][0]) == "GRU(3, 4)"
    with torch.no_grad():
        model["b"][0].eval()(torch.zeros(2, 2, I))
    assert "_known" in model["b"][0].__dict__
    assert fast.restore(model) == replaced and fast.restore(model) == []
    assert "_known" not in model["b"][0].__dict__
    assert type(model["a"].rnn) is torch.nn.LSTM and type(model["b"][2]) is WithOwnForward
    alone = torch.nn.LSTM(I, H)
    assert fast.replace(alone) == ([""], {}) and type(alone) is fast.LSTM


@pytest.mark.parametrize("function", [fast.replace, fast.restore])
def test_replace_of_no_module(function):
    with pytest.raises(TypeError, match="^model: expected a torch.nn.Module, got list"):
        function([torch.nn.LSTM(I, H)])


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_after_replace(name):
    x, losses, calls = random(5, 2, I), {}, []
    for replaced in (False, True):
        torch.manual_seed(1)
        model = Tagger(name)
        model.rnn.register_forward_hook(lambda module, *_: calls.append(type(module)))
        model.rnn.weight_hh_l0.register_hook(lambda d: 2 * d)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses[replaced] = []
        for step in range(6):
            if replaced and step == 2:
                fast.replace(model)
            if replaced and step == 4:
                fast.restore(model)
            optimizer.zero_grad()
            loss = loss_of(model(x))
            loss.backward()
            optimizer.step()
            losses[replaced].append(loss.item())
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-9)
    original, fast_class = getattr(torch.nn, name), getattr(fast, name)
    assert calls == [original] * 8 + [fast_class] * 2 + [original] * 2


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles(name):
    model, x = Tagger(name), random(5, 2, I)
    fast.replace(model)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        assert "_known" in model.rnn.__dict__
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for one in (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            torch.load(file, weights_only=False),
        ):
            assert type(one.rnn) is getattr(fast, name) and "_known" not in one.rnn.__dict__
            assert torch.equal(one(x), expected)
            one.rnn.weight_hh_l0.zero_()
            assert not torch.equal(one(x), expected)
        assert torch.equal(model(x), expected)


def test_weights_of_others():
    original, module = pair("LSTM")
    x = random(3, 2, I)
    others = {name: 2 * w.detach() for name, w in module.named_parameters()}
    same(*[tensors_of(torch.func.functional_call(m, others, (x,))) for m in (module, original)])
    same(tensors_of(module(x)), tensors_of(original(x)))
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    torch.nn.utils.parametrizations.weight_norm(original, "weight_hh_l0")
    for m in (module, original):
        m.eval().parametrizations.weight_hh_l0.original0.data *= 2
    with torch.no_grad():
        same(tensors_of(module(x)), tensors_of(original(x)))
    assert "_known" not in module.__dict__


# Packed weights between calls


def scale(module):
    with torch.no_grad():
        module.weight_ih_l0.mul_(2)


def one_element(module):
    with torch.no_grad():
        module.weight_ih_l0[0, 1] += 1


def through_data(module):
    module.weight_ih_l0.data.mul_(2)


def one_element_through_data(module):
    module.weight_hh_l0.data[31, 41] += 1


def through_numpy(module):
    module.weight_ih_l0.detach().numpy()[...] *= 2


def other_parameter(module):
    module.weight_ih_l0 = torch.nn.Parameter(2 * module.weight_ih_l0.detach())


def other_data(module):
    module.weight_ih_l0.data = 2 * module.weight_ih_l0.data


def loaded(module):
    module.load_state_dict({name: 2 * w for name, w in module.state_dict().items()})


@pytest.mark.parametrize(
    "change", [scale, one_element, through_data, through_numpy, other_parameter, other_data, loaded]
)
def test_kept_weights_are_those_of_the_module(change):
    original, module = pair("LSTM", 10, 50)
    x = random(3, 2, 10)
    module.eval()
    with torch.no_grad():
        module(x)
        kept = module._known.kept
        module(x)
        assert module._known.kept is kept
        change(module), change(original)
        same(tensors_of(module(x)), tensors_of(original(x)))
        assert module._known.kept is not kept
    module.train()
    assert "_known" not in module.__dict__


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize(
    "change",
    [scale, one_element, one_element_through_data, through_data, through_numpy, other_parameter, other_data, loaded],
)
def test_kept_weights_in_training(change, with_gradients):
    original, module = pair("LSTM", 100, 50)
    x = random(3, 2, 100)

    def results(m):
        with torch.set_grad_enabled(with_gradients):
            found = m(x)
        if not with_gradients:
            return tensors_of(found)
        return [*tensors_of(found), *torch.autograd.grad(loss_of(found), list(m.parameters()))]

    results(module)
    assert module._known.kept is None  # as weights mostly change between two calls
    results(module)
    kept = module._known.kept
    same(results(module), results(original))
    assert module._known.kept is kept and kept.is_kept
    change(module), change(original)
    same(results(module), results(original))
    assert module._known.kept is not kept


def test_kept_weights_with_and_without_gradients():
    _, module = pair("LSTM", 100, 50)
    x = random(3, 2, 100)
    module.eval()
    module(x), module(x)
    for change in (through_data, one_element_through_data):  # of a weight that is compared in part, and as a whole
        module(x), module(x)
        kept = module._known.kept
        with torch.no_grad():
            module(x)
        module(x)
        assert module._known.kept is kept
        change(module)
        module(x)
        assert module._known.kept is not kept


@pytest.mark.parametrize("with_gradients", [False, True])
def test_weights_with_other_strides_in_the_same_memory(with_gradients):
    modules, x = pair("GRU"), random(3, 2, I)
    with torch.set_grad_enabled(with_gradients):
        for _ in range(2):
            same(*[tensors_of(m(x)) for m in modules])
        for m in modules:
            m.weight_ih_l0.data = m.weight_ih_l0.data[:1].expand_as(m.weight_ih_l0)
        same(*[tensors_of(m(x)) for m in modules])


def test_kept_weights_and_instruction_sets():
    module = fast.GRU(I, H).eval()
    with torch.no_grad():
        for name in _config.runnable():
            with _config.using(name):
                output, _ = module(torch.ones(3, 2, I))
                kept = module._known.kept
                assert torch.equal(module(torch.ones(3, 2, I))[0], output) and module._known.kept is kept
        assert kept.stamp[0] == name


def test_inference_mode_parameters_are_not_kept():
    with torch.inference_mode():
        module = fast.GRU(I, H).eval()
        before = module(torch.ones(3, 2, I))[0]
        module.weight_ih_l0[5, 1] += 1
        assert not torch.equal(module(torch.ones(3, 2, I))[0], before)
    assert "_known" not in module.__dict__


@pytest.mark.parametrize("size", [4, 70])
def test_a_change_of_a_row_or_a_column_is_seen(size):
    """Made through `.data`, in eval mode: what pruning and ablation do."""
    original, module = pair("LSTM", size, size + 3)
    x = random(3, 2, size)
    original.eval(), module.eval()
    with torch.no_grad():
        for name, w in module.named_parameters():
            for axis in range(w.dim()):
                for k in range(w.shape[axis]):
                    module(x), module(x)
                    for m in (module, original):
                        dict(m.named_parameters())[name].data.select(axis, k).mul_(2)
                    same(tensors_of(module(x)), tensors_of(original(x)))


def other_memory(module):
    """As `share_memory` gives it, and a queue of torch.multiprocessing to which the state_dict goes."""
    module.share_memory()


def memory_freed_for_a_while(module):
    """As FSDP frees and fills it, without a new version."""
    storages = [w.untyped_storage() for w in module.parameters()]
    values, sizes = [w.detach().clone() for w in module.parameters()], [storage.nbytes() for storage in storages]
    for storage in storages:
        storage.resize_(0)
    taken = [torch.full((size,), 255, dtype=torch.uint8) for size in sizes]
    for storage, size, w, value in zip(storages, sizes, module.parameters(), values):
        storage.resize_(size)
        with torch.autograd._unsafe_preserve_version_counter(w), torch.no_grad():
            w.copy_(value)
    assert taken


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("change", [other_memory, memory_freed_for_a_while])
@pytest.mark.parametrize("calls", [1, 3])
def test_other_memory_of_the_weights_before_the_backward_pass(change, calls, batch_first):
    original, module = pair("LSTM", 30, 60, num_layers=2, batch_first=batch_first)
    x = random(3, 2, 30)
    found = []
    for m in (module, original):
        for _ in range(calls):
            output, _ = m(x)
            change(m)
            found.append(torch.autograd.grad(loss_of(output), list(m.parameters())))
    for one, other in zip(found[:calls], found[calls:]):
        same(one, other)


@pytest.mark.parametrize("shape", [(4 * H, 3000), (4 * H, I - 1), (1,), (0,)])
def test_another_shape_of_a_weight_before_the_backward_pass(shape):
    module = fast.LSTM(I, H)
    output, _ = module(torch.randn(40, 20, I))
    module.weight_ih_l0.data = torch.randn(shape)
    with pytest.raises(RuntimeError, match="^a weight has another shape than in the forward pass$"):
        output.sum().backward()


def test_another_shape_of_a_weight_in_the_same_memory():
    original, module = pair("GRU")
    x = random(3, 2, I)
    for m in (module, original):
        m.eval()
    with torch.no_grad():
        module(x), module(x)
        for m in (module, original):
            m.weight_ih_l0.data = m.weight_ih_l0.data[:H]
        assert outcome(lambda: module(x)) == outcome(lambda: original(x))


def unaligned(w):
    """The values in memory that begins at no multiple of their size."""
    memory = bytearray(w.numel() * w.element_size() + 1)
    copy = torch.frombuffer(memory, dtype=w.dtype, offset=1, count=w.numel()).view(w.shape)
    return copy.copy_(w)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
@pytest.mark.parametrize("grad", [False, True])
def test_weights_that_no_kernel_reads_in_place(grad):
    """Unaligned ones: later changes are seen."""
    original, module = pair("LSTM")
    for m in (module, original):
        for w in m.parameters():
            w.data = unaligned(w.detach())
    x = random(4, 2, I)
    for _ in range(3):
        with torch.set_grad_enabled(grad):
            same(tensors_of(module(x)), tensors_of(original(x)))
        with torch.no_grad():
            for m in (module, original):
                for w in m.parameters():
                    w.mul_(1.5)


def test_weights_are_freed_with_their_module():
    """Without the collection of garbage."""
    module, x = fast.LSTM(I, H), torch.zeros(3, 2, I)
    gc.collect()
    gc.disable()
    try:
        for is_training in (True, False):
            ready(module, x, is_training)
            module(x)[0].sum().backward()
        weight = weakref.ref(module.weight_hh_l0)
        del module
        assert weight() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("batch_first", [False, True])
def test_memory_stays_resizable(batch_first):
    """Of weights, inputs and states, also of those that are not contiguous."""
    module = fast.LSTM(I, H, batch_first=batch_first, dtype=torch.float64)
    x = random(3, 3, I)
    state = tuple(random(1, H, 3).transpose(1, 2) for _ in range(2))
    output, _ = module(x, state)
    output.sum().backward()
    with torch.no_grad():
        module(x, state), module.eval()(x), module(x.transpose(0, 1))
    for tensor in (x, *state, *module.parameters()):
        assert tensor.untyped_storage().resizable()


# Plain calls, which read tensors in C


class Refusing:
    """In place of the packed weights of a module: no call may reach them."""

    def infer(self, *arguments):
        raise AssertionError


def ready(module, x, is_training=False):
    """The module after calls without gradients, whose packed weights are kept: in training mode, from the second."""
    module.train(is_training)
    with torch.no_grad():
        for _ in range(1 + is_training):
            module(x)
    assert module._known.kept.module is not None
    return module


def state_for(module, x, dtype=torch.float64):
    """A state for x, as a caller gives it."""
    shapes = [(L, width) if x.dim() == 2 else (L, B, width) for L, B, width in module._state_shapes(
        1 if x.dim() == 2 else x.shape[0 if module.batch_first else 1])]  # fmt: skip
    states = [random(*shape, dtype=dtype) for shape in shapes]
    return tuple(states) if module.mode == "LSTM" else states[0]


PLAIN = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"bias": False}),
    ("GRU", {}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("GRU", {"bidirectional": True}),
    ("LSTM", {"bidirectional": True, "num_layers": 2, "proj_size": 2}),
]


def both_ways(module, original, x, state, monkeypatch):
    """The results of a module by the longer way and as a plain call, and those of torch.nn."""
    with torch.no_grad():
        module._known.kept.module, kept = None, module._known.kept.module
        first = module(x, state)
        module._known.kept.module = kept
        monkeypatch.setattr(fast.Recurrent, "_weights", None)
        return first, module(x, state), original(x, state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize(
    "shape, batch_first",
    [
        ((1, 1, I), False),
        ((5, 3, I), False),
        ((5, I), False),
        ((5, I), True),
        ((1, 5, I), True),
        ((3, 1, I), True),
        ((3, 4, I), True),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("name, options", PLAIN)
def test_plain_calls(name, options, shape, batch_first, has_state, is_training, dtype, monkeypatch):
    original, module = pair(name, dtype=dtype, batch_first=batch_first, **options)
    x = random(*shape, dtype=dtype)
    state = state_for(module, x, dtype) if has_state else None
    ready(module, x, is_training)
    first, found, expected = both_ways(module, original, x, state, monkeypatch)
    assert type(found[1]) is type(expected[1])
    for one, other, reference in zip(tensors_of(found), tensors_of(first), tensors_of(expected), strict=True):
        assert torch.equal(one, other) and one.shape == reference.shape and one.dtype == dtype
        assert one.is_contiguous() == reference.is_contiguous() and not one.requires_grad
    same(tensors_of(found), tensors_of(expected), 1e-10 if dtype == torch.float64 else 1e-6)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("lengths", [[3, 5, 1, 5], [5, 3, 3, 1], [4, 4], [1]], ids=str)
@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("name, options", PLAIN)
def test_plain_calls_of_packed_sequences(name, options, has_state, is_sorted, lengths, monkeypatch):
    original, module = pair(name, dtype=torch.float32, **options)
    if is_sorted:
        lengths = sorted(lengths, reverse=True)
    padded = random(max(lengths), len(lengths), I, dtype=torch.float32)
    x = pack_padded_sequence(padded, lengths, enforce_sorted=is_sorted)
    state = state_for(module, padded, torch.float32) if has_state else None
    ready(module, x)
    first, found, expected = both_ways(module, original, x, state, monkeypatch)
    assert type(found[0]) is PackedSequence and type(found[1]) is type(expected[1])
    for one, other in zip(found[0][1:], expected[0][1:], strict=True):
        assert one is None and other is None or torch.equal(one, other)
    results = [[r[0].data, *tensors_of(r[1])] for r in (found, first, expected)]
    assert all(torch.equal(one, other) for one, other in zip(*results[:2], strict=True))
    same(results[0], results[2], 1e-6)


def test_packed_sequences_that_are_not_plain():
    """They have the results and errors of torch.nn."""
    original, module = pair("LSTM", dtype=torch.float32)
    x = random(4, 3, I, dtype=torch.float32)
    data, sizes, order, back = pack_padded_sequence(x, [2, 4, 3], enforce_sorted=False)
    ready(module, x)
    for packed in (
        PackedSequence(data, sizes, order, order),  # which is not the inverse
        PackedSequence(data, sizes, order, back[:2]),
        PackedSequence(data, sizes, torch.tensor([0, 0, 1]), back),
        PackedSequence(data, sizes, torch.tensor([0, 1, 3]), back),
        PackedSequence(data, sizes.flip(0), order, back),
        PackedSequence(data[:-1], sizes, order, back),
        PackedSequence(data[:, :2], sizes, order, back),
        PackedSequence(data.double(), sizes, order, back),
        PackedSequence(data[:0], sizes[:0], None, None),
        PackedSequence(data.t().contiguous().t(), sizes, order, back),
        PackedSequence(data, torch.tensor([3, -(10**9)])),
        PackedSequence(data, torch.tensor([3, 3, -1, 4])),
        PackedSequence(data[:1], torch._efficientzerotensor((1,), dtype=torch.int64)),
        PackedSequence(torch.tensor(1.0), torch.tensor([1])),
    ):
        outcomes = []
        for m in (original, module):
            try:
                with torch.no_grad():
                    output, state = m(packed)
                outcomes.append([output.data, *state])
            except (IndexError, RuntimeError, ValueError) as error:
                outcomes.append(type(error))
        if isinstance(outcomes[0], list):
            same(*outcomes, 1e-6)
        else:
            assert outcomes[0] is outcomes[1]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("name, options", PLAIN)
def test_plain_calls_with_gradients(name, options, has_state, batch_first, monkeypatch):
    original, module = pair(name, batch_first=batch_first, **options)
    x = random(5, 3, I)
    state = state_for(module, x) if has_state else None
    module(x)
    monkeypatch.setattr(fast.Recurrent, "_weights", None)
    for of_x, of_state, of_weights in [(True, True, True), (False, False, True), (True, True, False)]:
        states = [s.requires_grad_(of_state) for s in tensors_of(state)] if has_state else []
        tensors = [x.requires_grad_(of_x), *states]
        for m in (module, original):
            for name, parameter in m.named_parameters():
                parameter.requires_grad_(of_weights or name == "weight_hh_l0")
        found = []
        for m in (module, original):
            wanted = [tensor for tensor in [*tensors, *m.parameters()] if tensor.requires_grad]
            results = tensors_of(m(x, state))
            assert all(tensor.requires_grad for tensor in results)
            loss = sum((tensor * tensor).sum() for tensor in results)
            found.append([*results, *torch.autograd.grad(loss, wanted)])
        same(*found)


def test_plain_calls_without_a_tensor_that_needs_gradients():
    original, module = pair("GRU")
    x = random(4, 3, I)
    for _ in range(3):
        for m in (original, module):
            m.requires_grad_(False)
        found, expected = module(x), original(x)
        assert not found[0].requires_grad
        same(tensors_of(found), tensors_of(expected))


@pytest.mark.filterwarnings("ignore:fastrnn.torch. torch.nn computes:UserWarning")
@pytest.mark.parametrize("has_gradients", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_are_not_plain(name, has_gradients):
    """They take the longer way, or that of torch.nn."""
    original, module = pair(name, dtype=torch.float32)
    x = random(4, 3, I, dtype=torch.float32)
    ready(module, x)
    state = state_for(module, x, torch.float32)
    negative = torch._neg_view(x)
    strided = random(4, 3, 2 * I, dtype=torch.float32)[..., ::2]
    packed = pack_sequence([x[:, 0], x[:2, 1]])
    of_list = list(state) if name == "LSTM" else state
    strange = [(negative, None), (strided, None), (x.transpose(0, 1), None), (packed, None), (x, of_list)]
    strange += [(x, tuple(torch._neg_view(s) for s in state) if name == "LSTM" else torch._neg_view(state))]
    strange += [
        (x[:0], None),
        (x[..., :2], None),
        (x[0, 0], None),
        (x[None], None),
        (x.double(), None),
        (x.long(), None),
    ]
    strange += [(x.to_sparse(), None), (x, (state,)), (x, (state, state)), (x, x), (x, 1), (None, None), (x, ())]
    strange += [(x[0], state), (x[:, :2], state)]
    with torch.set_grad_enabled(has_gradients):
        for one, other in strange:
            found, expected = (outcome(lambda m=m: m(one, other)) for m in (module, original))
            if isinstance(found, list):
                same(*[tensors_of([m(one, other)]) for m in (module, original)], 1e-6)
            else:
                assert found == expected


def test_zeros_without_memory():
    """As input, state and gradient."""
    original, module = pair("GRU")
    x, zeros = random(4, 3, I).requires_grad_(), torch._efficientzerotensor((4, 3, H), dtype=torch.float64)
    for _ in range(3):
        gradients = [torch.autograd.grad(m(x, zeros[:1])[0], [x, *m.parameters()], zeros) for m in (module, original)]
        same(*gradients)
    ready(module, x)
    with torch.no_grad():
        same(*[tensors_of(module(torch._efficientzerotensor((4, 3, I), dtype=torch.float64), zeros[:1])),
               tensors_of(module(torch.zeros_like(x)))])  # fmt: skip


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_tensor():
    original, module = pair("GRU")
    x = torch.nested.nested_tensor([random(3, I), random(2, I)])
    with pytest.warns(UserWarning, match="torch.nn computes this module: it has a tensor of torch.nested"):
        found = outcome(lambda: module(x))
    assert found == outcome(lambda: original(x))


def test_parameters_in_another_mapping():
    """As of modules that old versions of PyTorch have pickled."""
    original, module = pair("GRU")
    module._parameters = collections.OrderedDict(module._parameters)
    x = random(4, 3, I)
    for is_training in (True, False):
        module.train(is_training)
        for _ in range(3):
            same(*[tensors_of(m(x)) for m in (module, original)])
            with torch.no_grad():
                same(*[tensors_of(m(x)) for m in (module, original)])


def with_dropout(module, x):
    module.training, module.dropout = True, 1.0
    return module(x)


def with_gradients(module, x):
    with torch.enable_grad():
        output, _ = module(x)
    assert output.requires_grad
    return output.detach()


def in_autocast(module, x):
    with torch.autocast("cpu", torch.bfloat16):
        return module(x)


def in_a_trace(module, x):
    return torch.jit.trace(module, x, check_trace=False)(2 * x)


def in_a_transform(module, x):
    return torch.func.grad(lambda x: module(x)[0].sum())(x)


def at_a_dual_level(module, x):
    from torch.autograd import forward_ad

    with forward_ad.dual_level(), torch.enable_grad():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(x, x))[0]).tangent


def in_make_fx(module, x):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(lambda x: module(x)[0])(x)(2 * x)


@pytest.mark.filterwarnings("ignore:fastrnn.torch. torch.nn computes:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # since PyTorch 2.14
@pytest.mark.parametrize(
    "call", [with_dropout, with_gradients, in_autocast, in_a_trace, in_a_transform, at_a_dual_level, in_make_fx]
)
def test_modes_that_are_not_plain(call):
    original, module = pair("GRU", num_layers=2, dtype=torch.float32)
    x = random(4, 3, I, dtype=torch.float32)
    ready(module, x)._known.kept.module = Refusing()
    original.eval()
    with torch.no_grad():
        with pytest.raises(AssertionError):
            module(x)
        same(*[tensors_of(call(m, x)) for m in (module, original)], 1e-2 if call is in_autocast else 1e-6)


def test_large_arrays_between_layers():
    """They are for the engine."""
    original, module = pair("GRU", num_layers=2, dtype=torch.float32)
    x = random(40000, 2, I, dtype=torch.float32)
    ready(module, x[:3])
    with torch.no_grad():
        same(tensors_of(module(x)), tensors_of(original(x)), 1e-5)


def test_plain_calls_keep_nothing_of_their_arguments():
    module, x = fast.LSTM(I, H), torch.zeros(3, 2, I)
    ready(module, x)
    with torch.no_grad():
        output, state = module(x)
        before = sys.getrefcount(x), sys.getrefcount(state[0])
        for _ in range(10):
            module(x, state)
        assert (sys.getrefcount(x), sys.getrefcount(state[0])) == before
        x.fill_(1), state[0].fill_(1)
        assert not torch.equal(module(x)[0], output) and output.data_ptr() not in (x.data_ptr(), state[0].data_ptr())


@pytest.mark.parametrize("name", NAMES)
def test_a_pytorch_without_the_functions_of_dlpack(name, monkeypatch):
    monkeypatch.setattr(fast, "TENSORS", _core.Tensors(fast.PLAIN_TENSORS, fast.TORCH_DTYPES, torch.from_numpy))
    original, module = pair(name)
    x = random(4, 3, I)
    for is_training in (True, False):
        module.train(is_training)
        for _ in range(3):
            same(*[tensors_of(m(x)) for m in (module, original)])
        known, kept = module._known, module._known.kept
        module(x)
        assert module._known is known and known.kept is kept is not None
        with torch.no_grad():
            same(*[tensors_of(m(x)) for m in (module, original)])
        gradients = [torch.autograd.grad(loss_of(m(x)), list(m.parameters())) for m in (module, original)]
        same(*gradients)
        for change in (scale, other_data, other_parameter):
            change(module), change(original)
            same(*[tensors_of(m(x)) for m in (module, original)])
            assert module._known.kept is not kept
    with torch.no_grad():
        same(*[tensors_of(m(torch._neg_view(x))) for m in (module, original)])
        with pytest.warns(UserWarning, match="torch.sparse_coo"):
            found = outcome(lambda: module(x.to_sparse()))
        assert found == outcome(lambda: original(x.to_sparse()))


# What torch.nn computes


class Tensor(torch.Tensor):
    pass


def in_bfloat16(name, x):
    module = getattr(fast, name)(I, H, dtype=torch.bfloat16)
    return module, lambda m: m(x.bfloat16())


def on_meta(name, x):
    return getattr(fast, name)(I, H, device="meta"), lambda m: [t.shape for t in tensors_of(m(x.to("meta")))]


def with_autocast(name, x):
    def run(m):
        with torch.autocast("cpu", torch.bfloat16):
            try:
                return m(x)
            except RuntimeError as error:  # torch.nn.LSTM has no such product on processors without AVX-512
                return str(error)

    return getattr(fast, name)(I, H), run


def with_a_subclass(name, x):
    return getattr(fast, name)(I, H), lambda m: m(x.as_subclass(Tensor))


def traced(name, x):
    return getattr(fast, name)(I, H), lambda m: torch.jit.trace(m, x, check_trace=False)(2 * x)


def with_func(name, x):
    return getattr(fast, name)(I, H), lambda m: torch.func.grad(lambda x: m(x)[0].sum())(x)


def with_forward_mode(name, x):
    from torch.autograd import forward_ad

    def run(m):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(m(forward_ad.make_dual(x.double(), torch.ones_like(x).double()))[0]).tangent

    return getattr(fast, name)(I, H, dtype=torch.float64), run


# Of torch.jit.trace of a module of torch.nn.
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # since PyTorch 2.14
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "case, reason",
    [
        (in_bfloat16, "it has tensors of torch.bfloat16"),
        (on_meta, "it has tensors on meta"),
        (with_autocast, "autocast is enabled"),
        (with_a_subclass, "it has a Tensor"),
        (traced, "torch.jit.trace records it"),
        (with_func, "a transform of torch.func is active"),
        (with_forward_mode, "forward-mode differentiation is active"),
    ],
)
def test_torch_nn_computes_with_one_warning(name, case, reason):
    module, run = case(name, torch.randn(3, 2, I))
    with pytest.warns(UserWarning, match=f"^fastrnn.torch: torch.nn computes this module: {reason}$") as caught:
        found = run(module)
    (ours,) = [w for w in caught if str(w.message).startswith("fastrnn.torch: ")]
    assert ours.filename == __file__ or case is traced
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert str(run(module)) == str(found)
    fast.restore(module)
    assert str(run(module)) == str(found)


# Where PyTorch runs the module otherwise


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name, options", CASES)
def test_checkpoint(name, options, use_reentrant):
    module, x = getattr(fast, name)(I, H, **options), torch.randn(5, 2, I).requires_grad_()

    def gradients(run):
        torch.manual_seed(2)
        return torch.autograd.grad(loss_of(run()), [x, *module.parameters()], allow_unused=True)

    def run_all(x):
        return tensors_of(module(x))[0]

    module.zero_grad()
    expected = gradients(lambda: run_all(x))
    if use_reentrant:  # which has backward alone
        torch.manual_seed(2)
        loss_of(checkpoint(run_all, x, use_reentrant=True)).backward()
        found = [x.grad, *[p.grad for p in module.parameters()]]
    else:
        found = gradients(lambda: checkpoint(run_all, x, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_saved_tensors_pass_through_hooks():
    module, x = fast.LSTM(I, H), torch.randn(5, 2, I).requires_grad_()
    expected = torch.autograd.grad(loss_of(module(x)), [x, *module.parameters()])
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor.clone().tolist(), tensor.dtype

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: torch.tensor(kept[0], dtype=kept[1])):
        results = module(x)
    found = torch.autograd.grad(loss_of(results), [x, *module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert sum(t.dtype == torch.uint8 for t in packed) == 1


def operator_arguments(name, options, packed, dtype=torch.float64):
    module = getattr(fast, name)(I, H, dtype=dtype, **{**options, "dropout": 0.0})
    x, sizes = random(5, 2, I, dtype=dtype), None
    if packed:
        x, sizes = random(6, I, dtype=dtype), torch.tensor([2, 2, 1, 1])
    state = [random(*shape, dtype=dtype).requires_grad_() for shape in module._state_shapes(2)]
    dropout = options.get("dropout", 0.0)
    weights = list(module.parameters())
    seed = torch.tensor(7) if dropout else None
    rest = module.mode, module.num_layers, module.bidirectional, dropout, seed
    return (x.requires_grad_(), sizes, state, weights, *rest)


def detached(arguments):
    def of(a):
        return [of(b) for b in a] if isinstance(a, list) else a.detach() if isinstance(a, torch.Tensor) else a

    return tuple(of(a) for a in arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name, options", CASES)
def test_opcheck(name, options, packed):
    arguments = operator_arguments(name, options, packed)
    operators = torch.ops.fastrnn
    torch.library.opcheck(operators.forward.default, arguments)
    torch.library.opcheck(operators.infer.default, detached(arguments))
    output, h_n, c_n, reserve = operators.forward(*detached(arguments))
    gradients = torch.ones_like(output), None, torch.ones_like(c_n) if name == "LSTM" else None
    for input_gradient in (True, False):
        arguments_of_backward = reserve, *gradients, *detached(arguments), input_gradient
        torch.library.opcheck(operators.backward.default, arguments_of_backward)


@pytest.mark.parametrize("name, options", CASES)
def test_operators_have_the_bits_of_eager_mode(name, options):
    x, sizes, state, weights, *rest = operator_arguments(name, {**options, "dropout": 0.0}, False)
    module = getattr(fast, name)(I, H, dtype=x.dtype, **{**options, "dropout": 0.0})
    module.load_state_dict(dict(zip(module.state_dict(), weights)))
    expected = module(x, tuple(state) if name == "LSTM" else state[0])
    found = torch.ops.fastrnn.forward(x, sizes, state, weights, *rest)[: 1 + len(state)]
    assert all(torch.equal(a, b) for a, b in zip(found, tensors_of(expected), strict=True))
    wanted = torch.autograd.grad(loss_of(expected), [x, *state, *module.parameters()])
    gradients = torch.autograd.grad(loss_of(found), [x, *state, *weights])
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", fast.TORCH_KERNELS)
def test_the_bytes_of_an_operator_are_enough(mode, dtype):
    for H, proj_size, L, bidirectional in [(1, 0, 1, False), (17, 0, 2, True), (33, 3, 3, False), (16, 5, 2, True)]:
        proj_size = proj_size if mode == "LSTM" else 0
        arrangement = fast._arrangement(mode, 3, H, proj_size, L, bidirectional, True, dtype)
        stack = arrangement.stack
        weights = arrangement.grouped([np.zeros(shape, stack.dtype) for shape in arrangement.shapes])
        packed = stack.pack(weights, False)
        for rows in [*range(70), 1000, 12345]:
            exact, bound = stack.reserve_bytes(packed, padded(rows, 1)), fast._reserve_bytes(arrangement, rows)
            assert exact <= bound and (rows % fast.GROUP_ROWS or exact == bound)


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: torch.zeros(5, I)}, "x: expected 3 axes"),
        ({1: torch.tensor([3, 2])}, "x: expected 2 axes"),
        ({0: torch.zeros(5, I), 1: torch.tensor([2, 4])}, "batch_sizes: expected positive numbers"),
        ({0: torch.zeros(5, 3, I)}, "state: expected"),
        ({0: torch.zeros(5, 2, I, dtype=torch.float64)}, "x, state, weights: expected the same dtype"),
        ({0: torch.zeros(5, 2, I + 1)}, "weights: expected the shapes"),
        ({2: []}, "state: expected 1 tensors, got 0"),
        ({3: []}, "weights: 0 tensors are not those"),
        ({4: "CELL"}, "mode: expected one of LSTM, GRU"),
        ({5: 2}, "weights: 4 tensors are not those of 2|weights: expected the shapes"),
    ],
)
def test_operators_refuse(change, message):
    arguments = detached(operator_arguments("GRU", {}, False, torch.float32))
    arguments = [change.get(k, argument) for k, argument in enumerate(arguments)]
    with pytest.raises((TypeError, ValueError), match="^" + message):
        torch.ops.fastrnn.infer(*arguments)


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("whole_graph", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_compile_without_graph_breaks(name, whole_graph, dynamo):
    bidirectional = name == "GRU"
    model = Tagger(name, num_layers=2, bidirectional=bidirectional, batch_first=True, dropout=0.5).eval()
    fast.replace(model, whole_graph=whole_graph)
    with torch._dynamo.config.patch(allow_rnn=not whole_graph):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for B, T in ((2, 5), (3, 4), (4, 7)):
            x = random(B, T, I).requires_grad_()
            found, expected = compiled(x), model(x)
            assert torch.equal(found, expected)
            gradients = [torch.autograd.grad(loss_of(y), [x, *model.parameters()]) for y in (found, expected)]
            same(*gradients, bound=1e-12)
        with torch.no_grad():
            assert torch.equal(compiled(x), model(x))
        model.train()
        assert not torch.equal(compiled(x), compiled(x))


def test_compile_with_dynamic_shapes(dynamo):
    model = Tagger()
    fast.replace(model, whole_graph=True)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for T, B in ((5, 2), (4, 3), (9, 7)):
            x = random(T, B, I)
            found, expected = compiled(x), model(x)
            gradients = [torch.autograd.grad(loss_of(y), list(model.parameters())) for y in (found, expected)]
            same([found, *gradients[0]], [expected, *gradients[1]], 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_modules_for_whole_graphs(name):
    original, module = pair(name)
    assert fast.replace(module, whole_graph=True).replaced == [""]
    assert fast.replace(module, whole_graph=True).replaced == []
    assert not isinstance(module, getattr(torch.nn, name)) and isinstance(module, torch.nn.RNNBase)
    x = random(5, 2, I)
    same(tensors_of(module(x)), tensors_of(original(x)))
    for wrong in (x[..., :2], random(5, 2, I, 1)):
        assert outcome(lambda: module(wrong)) == outcome(lambda: original(wrong))
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="torch.nn computes"):
        assert outcome(lambda: module(x.float())) == outcome(lambda: original(x.float()))
    one = pickle.loads(pickle.dumps(module))
    assert type(one) is type(module) and torch.equal(tensors_of(one(x))[0], tensors_of(module(x))[0])
    assert fast.replace(module).replaced == [""] and type(module) is getattr(fast, name)
    fast.replace(module, whole_graph=True)
    assert fast.restore(module) == [""] and type(module) is getattr(torch.nn, name)
    with pytest.raises(TypeError, match="^whole_graph: "):
        fast.replace(module, whole_graph="yes")


# Of Dynamo, which looks at the .grad of the results between two graphs.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("allow_rnn", [False, True])
def test_compile_with_graph_breaks(allow_rnn, packed, dynamo, monkeypatch):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = fast.GRU(I, H)

        def forward(self, x):
            return tensors_of(self.rnn(x))[0].relu()

    model = Model()
    sequences = [random(n, I, dtype=torch.float32) for n in (4, 2)]
    x = pack_sequence(sequences) if packed else sequences[0][:, None]
    expected = torch.autograd.grad(loss_of(model(x)), list(model.parameters()))
    forward, callers = fast._forward, []

    def noted(*arguments):
        callers.append(sys._getframe(1).f_code.co_qualname)
        return forward(*arguments)

    monkeypatch.setattr(fast, "_forward", noted)
    with torch._dynamo.config.patch(allow_rnn=allow_rnn):
        compiled = torch.compile(model, backend="aot_eager")
        found = torch.autograd.grad(loss_of(compiled(x)), list(model.parameters()))
    same(found, expected, 0)
    assert callers == ["_operator_forward" if allow_rnn and not packed else "Layers.forward"]


class Above(torch.nn.Module):
    """Calls an RNN in its own forward, or within a submodule."""

    def __init__(self, within):
        super().__init__()
        gru = torch.nn.GRU(I, I)
        self.first, self.rnn = torch.nn.Linear(I, I), torch.nn.Sequential(gru) if within else gru

    def forward(self, x):
        return self.rnn(self.first(x))[0].relu()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_what_dynamo_skips(dynamo):
    """As docs/api/torch.md has it."""
    graphs, x = [], random(5, 2, I, dtype=torch.float32)

    def run(model, **options):
        graphs.clear()
        compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph.forward, **options)
        same([compiled(x)], [model(x)], 1e-6)
        return len(graphs)

    inside, alone = Above(True), Above(False)
    fast.replace(inside)
    assert run(inside) == 2
    torch._dynamo.reset()
    assert run(alone) == 0  # of torch.nn, too
    assert fast.replace(alone).replaced == ["rnn"]
    assert run(alone) == 0
    fast.replace(alone, whole_graph=True)
    assert run(alone) == 0
    with pytest.raises(RuntimeError, match="found no compiled frames"):
        run(alone, fullgraph=True)
    torch._dynamo.reset()
    assert run(alone, fullgraph=True) == 1


def test_compile_of_what_torch_nn_computes(dynamo):
    original, module = pair("GRU", dtype=torch.bfloat16)
    x = torch.ones(5, 2, I, dtype=torch.bfloat16)
    with torch._dynamo.config.patch(allow_rnn=True), pytest.warns(UserWarning, match="tensors of torch.bfloat16"):
        found = torch.compile(module, backend="aot_eager")(x)
    same(tensors_of(found), tensors_of(original(x)), 0)


@pytest.mark.parametrize("name", NAMES)
def test_export(name):
    model = Tagger(name, num_layers=2, batch_first=True).eval()
    fast.replace(model)
    axes = {"x": {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}}
    for with_grad, operator in ((True, "forward"), (False, "infer")):
        with torch.set_grad_enabled(with_grad):
            program = torch.export.export(model, (random(2, 5, I),), dynamic_shapes=axes)
        assert f"torch.ops.fastrnn.{operator}.default" in program.graph_module.code
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        program = torch.export.load(file)
        for B, T in ((3, 9), (6, 2)):
            x = random(B, T, I)
            same([program.module()(x)], [model(x)], 1e-12)


def test_import_leaves_dynamo_alone():
    code = "import sys, torch, fastrnn.torch; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_without_torch():
    code = "import sys; sys.modules['torch'] = None; import fastrnn.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.rstrip().endswith(
        "ImportError: fastrnn.torch needs the package torch: pip install 'fastrnn[torch]'"
    )
