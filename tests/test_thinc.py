"""fastrnn.thinc: the results of the layers and of PyTorch's LSTM in thinc, gradients, chains that learn, files."""

import warnings

import numpy as np
import pytest

from adapters import skip_without_packages

skip_without_packages("fastrnn.thinc")
from thinc.api import (
    Adam,
    Config,
    Model,
    Padded,
    Ragged,
    Softmax,
    chain,
    fix_random_seed,
    list2ragged,
    reduce_last,
    registry,
    set_dropout_rate,
    with_array,
)

import fastrnn
import fastrnn.thinc
from layer_cases import draw

LENGTHS = (4, 7, 2, 7, 1)
I, H = 5, 6
KINDS = {"LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU, "RNN": fastrnn.RNN}


def sequences(seed=0):
    return [draw(seed + k, n, I, dtype=np.float32) for k, n in enumerate(LENGTHS)]


def initialized(kind="LSTM", **options):
    fix_random_seed(0)
    model = getattr(fastrnn.thinc, kind)(H, I, **options)
    return model.initialize()


def layer_of(model):
    """The layer of fastrnn with the parameters of a model."""
    inner = model.layers[0]
    cls = KINDS[inner.name.removeprefix("fastrnn_").upper()]
    directions = inner.get_dim("dirs")
    layer = cls(I, H // directions, inner.get_dim("depth"), bidirectional=directions == 2)
    layer.load_state_dict({name: inner.get_param(name) for name in inner.param_names})
    return layer


@pytest.mark.parametrize("options", [{}, {"bi": True, "depth": 2}], ids=["plain", "two layers, both directions"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_has_the_bits_of_the_layer(kind, options):
    model, given = initialized(kind, **options), sequences()
    layer = layer_of(model)
    expected = [layer(x[:, None])[0][:, 0] for x in given]
    padded = model.ops.list2padded(given)
    ragged = Ragged(np.concatenate(given), np.array(LENGTHS, dtype="i"))
    for found in (
        model.predict(given),
        model(given, is_train=True)[0],
        model.ops.padded2list(model.predict(padded)),
        model.ops.unflatten(model.predict(ragged).data, ragged.lengths),
        [model.predict(x[:, None])[:, 0] for x in given],
    ):
        assert [y.tobytes() for y in found] == [y.tobytes() for y in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_the_layer(kind):
    model, given = initialized(kind, bi=True, depth=2), sequences()
    d_output = [draw(50 + k, n, H, dtype=np.float32) for k, n in enumerate(LENGTHS)]
    _, backprop = model(given, is_train=True)
    d_x = backprop(d_output)
    layer = layer_of(model)
    x, lengths = fastrnn.pad(given)
    _, _, tape = layer.forward(x, lengths=lengths)
    expected, _, d_params = layer.backward(tape, fastrnn.pad(d_output)[0])
    for b, n in enumerate(LENGTHS):
        np.testing.assert_array_equal(d_x[b], expected[:n, b])
    inner = model.layers[0]
    for name in inner.param_names:
        np.testing.assert_allclose(inner.get_grad(name), d_params[name], rtol=1e-4, atol=1e-6)
    before = inner.get_grad("weight_hh_l0").copy()
    backprop(d_output)  # gradients add up until the optimizer takes them
    np.testing.assert_allclose(inner.get_grad("weight_hh_l0"), 2 * before, rtol=1e-6)


def test_one_direction_equals_pytorch_in_thinc():
    pytest.importorskip("torch")
    from thinc.api import PyTorchLSTM

    model, theirs = initialized(depth=2), PyTorchLSTM(H, I, depth=2)
    theirs.initialize()
    inner, module = model.layers[0], theirs.layers[0].shims[0]._model
    for name, tensor in module.state_dict().items():
        inner.set_param(name, tensor.numpy().copy())
    given = sequences()
    d_output = [draw(50 + k, n, H, dtype=np.float32) for k, n in enumerate(LENGTHS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # thinc calls autocast of PyTorch by an old name
        expected, their_backprop = theirs(given, is_train=True)
        expected_x = their_backprop(d_output)
    output, backprop = model(given, is_train=True)
    d_x = backprop(d_output)
    np.testing.assert_allclose(np.concatenate(output), np.concatenate(expected), atol=2e-7)
    np.testing.assert_allclose(np.concatenate(d_x), np.concatenate(expected_x), atol=2e-6)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(inner.get_grad(name), parameter.grad.numpy(), atol=1e-5)


def tags(given):
    """For each step the class of the sum of the features so far."""
    return [np.eye(2, dtype=np.float32)[(x.cumsum(axis=0).sum(axis=1) > 0).astype(int)] for x in given]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_chain_learns_to_tag(kind):
    fix_random_seed(0)
    given = [draw(k, 5 + k % 6, I, dtype=np.float32) for k in range(64)]
    wanted = tags(given)
    model = chain(getattr(fastrnn.thinc, kind)(16, bi=True), with_array(Softmax()))
    model.initialize(given[:4], wanted[:4])
    assert model.layers[0].layers[0].get_dim("nI") == I
    optimizer, target = Adam(0.02), np.concatenate(wanted)
    for _ in range(60):
        scores, backprop = model.begin_update(given)
        backprop([(y - w) / len(target) for y, w in zip(scores, wanted)])
        model.finish_update(optimizer)
    found = np.concatenate(model.predict(given))
    assert (found.argmax(axis=1) == target.argmax(axis=1)).mean() > 0.95


def test_a_chain_of_ragged_learns_to_classify():
    fix_random_seed(0)
    given = [draw(k, 3 + k % 6, I, dtype=np.float32) for k in range(64)]
    wanted = np.stack([one[-1] for one in tags(given)])
    model = chain(list2ragged(), fastrnn.thinc.GRU(16), reduce_last(), Softmax())
    model.initialize(given[:4], wanted[:4])
    optimizer = Adam(0.02)
    for _ in range(80):
        scores, backprop = model.begin_update(given)
        backprop((scores - wanted) / len(wanted))
        model.finish_update(optimizer)
    assert (model.predict(given).argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.95


def test_gradients_of_a_chain_by_finite_differences():
    """Of the model, with a loss of the outputs, with respect to a matrix; the kernels compute in the weights' dtype."""
    model, given = initialized("GRU", depth=2), [x.astype(np.float64) for x in sequences()]
    inner = model.layers[0]
    weight = inner.get_param("weight_hh_l1").astype(np.float64)
    for name in inner.param_names:
        inner.set_param(name, inner.get_param(name).astype(np.float64))

    def loss(value):
        inner.set_param("weight_hh_l1", value)
        return sum(float((y**2).sum()) for y in model.predict(given))

    output, backprop = model(given, is_train=True)
    backprop([2 * y for y in output])
    found = inner.get_grad("weight_hh_l1")
    expected = np.zeros_like(weight)
    for k in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[k] = 1e-6
        expected[k] = (loss(weight + step) - loss(weight - step)) / 2e-6
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_dropout_is_thincs_attribute_and_follows_its_seed():
    model, given = initialized(depth=2, dropout=0.5), sequences()

    def trained(seed):
        fix_random_seed(seed)
        return np.concatenate(model(given, is_train=True)[0])

    assert np.array_equal(trained(1), trained(1)) and not np.array_equal(trained(1), trained(2))
    without = np.concatenate(model.predict(given))
    assert not np.array_equal(trained(1), without)
    set_dropout_rate(model, 0.0)
    assert np.array_equal(trained(1), without)


def test_bytes_restore_a_model(tmp_path):
    model, given = initialized(bi=True), sequences()
    model.to_disk(tmp_path / "model")
    other = fastrnn.thinc.LSTM(H, I, bi=True).from_disk(tmp_path / "model")
    assert np.array_equal(np.concatenate(other.predict(given)), np.concatenate(model.predict(given)))


def test_a_configuration_names_a_layer():
    config = Config().from_str('[model]\n@layers = "fastrnn.GRU.v1"\nnO = 6\nnI = 5\nbi = true\n')
    model = registry.resolve(config)["model"]
    assert isinstance(model, Model) and model.layers[0].get_dim("dirs") == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="^nO: expected an even number for two directions, got 5"):
        fastrnn.thinc.LSTM(5, bi=True)
    with pytest.raises(ValueError, match="^depth: "):
        fastrnn.thinc.LSTM(5, depth=0)
    with pytest.raises(TypeError, match="^bi: "):
        fastrnn.thinc.GRU(5, bi=2)
    with pytest.raises(ValueError, match="^dropout: "):
        fastrnn.thinc.RNN(5, dropout=1.5)
    model = initialized()
    _, backprop = model(sequences(), is_train=False)
    with pytest.raises(ValueError, match="^is_train: was False"):
        backprop(sequences())
    assert isinstance(model.predict(model.ops.list2padded(sequences())), Padded)
