"""fastrnn.keras_layers: the results and gradients of Keras' own layers, masks, training, files, `replace`."""

import numpy as np
import pytest

from adapters import skip_without_packages

skip_without_packages("fastrnn.keras_layers")
import keras
import torch

import fastrnn
import fastrnn.keras_layers as ours

# Keras' variables have an __array__ that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

B, T, I, H = 4, 6, 5, 3
NAMES = ("LSTM", "GRU", "SimpleRNN")
SETTINGS = {
    "last output": {},
    "sequences": {"return_sequences": True},
    "sequences backwards, states": {"return_sequences": True, "go_backwards": True, "return_state": True},
    "last output, states, no bias": {"return_state": True, "use_bias": False},
    "relu": {"activation": "relu"},
    "zeros for masked steps": {"return_sequences": True, "zero_output_for_mask": True},
    "zeros for masked steps, last output": {"zero_output_for_mask": True},
    "unrolled": {"unroll": True, "return_sequences": True},
    "hard sigmoid": {"recurrent_activation": "hard_sigmoid"},
    "reset before": {"reset_after": False, "return_sequences": True},
    "reset before, no bias": {"reset_after": False, "use_bias": False},
}
MASKS = {
    "no mask": None,
    "right": np.arange(T) < np.array([6, 2, 0, 4])[:, None],
    "left": np.arange(T) >= np.array([0, 3, 6, 1])[:, None],
    "holes": np.random.default_rng(7).random((B, T)) < 0.5,
}


def settings_of(name):
    """The settings that a layer has, by id."""
    refused = {"LSTM": ("reset",), "SimpleRNN": ("reset", "hard")}.get(name, ())
    return [one for one in SETTINGS if not one.startswith(refused or ("-",))]


CASES = [(name, one) for name in NAMES for one in settings_of(name)]


def as_list(results):
    return list(results) if isinstance(results, (list, tuple)) else [results]


def pair(name, **settings):
    """A layer of ours and one of Keras with the same weights."""
    layers = [getattr(module, name)(H, **settings) for module in (ours, keras.layers)]
    for layer in layers:
        layer.build((B, T, I))
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.set_weights([rng.normal(size=w.shape) / 2 for w in layer.weights])
        rng = np.random.default_rng(0)
    return layers


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("name", "settings"), CASES, ids=[", ".join(case) for case in CASES])
def test_results_and_gradients_of_keras(name, settings, mask):
    rng, found = np.random.default_rng(1), []
    x, states = rng.normal(size=(B, T, I)), [rng.normal(size=(B, H)) for _ in range(1 + (name == "LSTM"))]
    weighting = [rng.normal(size=(B, T, H)) for _ in range(3)]
    for layer in pair(name, **SETTINGS[settings]):
        given = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in (x, *states)]
        results = as_list(layer(given[0], initial_state=given[1:], mask=None if mask is None else torch.tensor(mask)))
        loss = 0
        for result, weights in zip(results, weighting):
            weights = torch.tensor(weights, dtype=torch.float32)
            loss = loss + (result * (weights if result.ndim == 3 else weights[:, 0])).sum()
        loss.backward()
        gradients = [tensor.grad for tensor in given] + [w.value.grad for w in layer.weights]
        found.append([a.detach().numpy() for a in results + gradients])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_and_the_bits_with_and_without_gradients(name):
    layer, _ = pair(name, dtype="float64", return_sequences=True)
    x = np.random.default_rng(1).normal(size=(B, T, I))
    with_tape = layer(torch.tensor(x)).detach().numpy()
    with torch.no_grad():
        assert layer(torch.tensor(x)).numpy().tobytes() == with_tape.tobytes()
    translated = fastrnn.from_keras(layer)
    assert translated.dtype == np.float64
    assert translated(x)[0].tobytes() == with_tape.tobytes()


def test_gradients_by_the_test_tool_of_pytorch():
    layer, _ = pair("GRU", dtype="float64", return_sequences=True, return_state=True)
    mask = torch.tensor(MASKS["holes"])
    x = torch.tensor(np.random.default_rng(1).normal(size=(B, T, I)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(layer(x, mask=mask)), (x,))
    with pytest.raises(NotImplementedError, match="the gradient of a gradient is not computed"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


def test_input_dropout_draws_as_keras_does():
    x, found = torch.tensor(np.random.default_rng(1).normal(size=(B, T, I)), dtype=torch.float32), []
    for layer in pair("LSTM", dropout=0.5, seed=3, return_sequences=True):
        found.append(layer(x, training=True).detach().numpy())
        found.append(layer(x, training=False).detach().numpy())
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], found[3], atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-2)


# In models


def model_of(module):
    """Embeddings with a mask, both directions, a stack, and a head."""
    ids = keras.Input((None,), dtype="int32")
    h = keras.layers.Embedding(20, 8, mask_zero=True)(ids)
    h = keras.layers.Bidirectional(module.LSTM(6, return_sequences=True))(h)
    h = module.GRU(7, return_sequences=True)(h)
    h = module.SimpleRNN(5)(h)
    return keras.Model(ids, keras.layers.Dense(2, activation="softmax")(h))


@pytest.fixture
def data():
    """Sequences of 1 to 6 symbols, padded with zeros, and whether the symbols are large on average."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 20, (64, 6))
    ids[np.arange(6) >= rng.integers(1, 7, 64)[:, None]] = 0
    return ids, (ids.sum(axis=1) > 10 * (ids > 0).sum(axis=1)).astype(int)


def predict(model, ids):
    return model.predict(ids, verbose=0)


def test_a_model_trains_as_with_the_layers_of_keras(data):
    keras.utils.set_random_seed(0)
    models = [model_of(module) for module in (ours, keras.layers)]
    models[1].set_weights(models[0].get_weights())
    losses = []
    for model in models:
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(*data, epochs=2, batch_size=32, shuffle=False, verbose=0).history
        losses.append(history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert models[0].fit(*data, epochs=25, batch_size=16, verbose=0).history["accuracy"][-1] > 0.9


def test_files(data, tmp_path):
    keras.utils.set_random_seed(0)
    ids, model = data[0], model_of(ours)
    expected = predict(model, ids)
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert [type(layer) for layer in loaded.layers[3:5]] == [ours.GRU, ours.SimpleRNN]
    assert type(loaded.layers[2].forward_layer) is ours.LSTM
    np.testing.assert_array_equal(predict(loaded, ids), expected)

    model.save_weights(tmp_path / "a.weights.h5")
    other = model_of(keras.layers)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(predict(other, ids), expected, atol=1e-6)
    for source in (tmp_path / "a.keras", model):
        gru = fastrnn.from_keras(source, model.layers[3].name)
        assert isinstance(gru, fastrnn.GRU) and gru.hidden_size == 7
        np.testing.assert_array_equal(
            gru.params["weight_hh_l0"][7:14], model.layers[3].cell.recurrent_kernel.numpy().T[:7]
        )


def test_replace_and_restore_change_classes_alone(data):
    keras.utils.set_random_seed(0)
    ids, model = data[0], model_of(keras.layers)
    extra = keras.layers.LSTM(4, recurrent_dropout=0.5)
    model = keras.Model(model.inputs, [model.output, extra(model.layers[3].output)])
    variables = [id(v) for v in model.variables]
    before = predict(model, ids)
    replaced = ours.replace(model)
    assert sorted(path.rpartition("/")[2].rstrip("_0123456789") for path in replaced) == [
        "backward_lstm", "forward_lstm", "gru", "simple_rnn",
    ]  # fmt: skip
    assert type(extra) is keras.layers.LSTM  # its recurrent_dropout has no equivalent
    assert [id(v) for v in model.variables] == variables
    for mine, theirs in zip(predict(model, ids), before):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert sorted(ours.restore(model)) == sorted(replaced)
    for mine, theirs in zip(predict(model, ids), before):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(TypeError, match="^model: expected a layer or a model of Keras, got dict"):
        ours.replace({})


def test_replace_says_why_layers_are_left():
    class Custom(keras.layers.LSTM):
        pass

    policies = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
    layers = {
        "fits": keras.layers.LSTM(H, return_sequences=True),
        "double": keras.layers.GRU(H, return_sequences=True, dtype="float64"),
        "dropped": keras.layers.LSTM(H, return_sequences=True, recurrent_dropout=0.5),
        "custom": Custom(H, return_sequences=True),
        "cell": keras.layers.RNN(keras.layers.LSTMCell(H), return_sequences=True),
        "both": keras.layers.Bidirectional(
            keras.layers.GRU(H, return_sequences=True, activation="elu"), dtype="float32"
        ),
    }
    for policy in policies:
        options = {"return_sequences": True, "recurrent_initializer": "glorot_uniform"}
        layers[policy] = keras.layers.LSTM(H, dtype=policy, **options)
    model = keras.Sequential([keras.Input((T, I)), *layers.values()], name="model")
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype(np.float32)
    model(x)
    result = ours.replace(model)
    assert result == result.replaced == [layers["fits"].path, layers["double"].path]
    both = layers["both"]
    elu = "activation: 'elu' has no equivalent, only 'tanh' and 'relu'; keras.layers.GRU computes it"
    assert result.left == {
        layers["dropped"].path: "recurrent_dropout: 0.5 has no equivalent, only 0; keras.layers.LSTM computes it",
        layers["custom"].path: "Custom is a subclass",
        layers["cell"].path: "an RNN of LSTMCell has no equivalent, only LSTM, GRU and SimpleRNN",
        both.forward_layer.path: elu,
        both.backward_layer.path: elu,
    } | {
        layers[policy].path: f"dtype: {policy} computes in {policy.removeprefix('mixed_')}, "
        "only float32 and float64 are supported"
        for policy in policies
    }
    model(x)  # of which no layer fails
    assert ours.replace(keras.layers.ConvLSTM1D(2, 3, name="conv")).left == {"conv": "ConvLSTM1D has no equivalent"}
    again = ours.replace(model)
    assert again == [] and again.left == result.left


def test_stateful_layers_carry_their_states():
    rng, found = np.random.default_rng(0), []
    x = rng.normal(size=(3, B, T, I)).astype(np.float32)
    for layer in pair("LSTM"):
        stateful = type(layer)(H, stateful=True)
        model = keras.Sequential([keras.Input((T, I), batch_size=B), stateful])
        model.set_weights(layer.get_weights())
        found.append([predict(model, piece) for piece in x])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found[0][0], found[0][1])


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
def test_stateful_layers_learn(name):
    """The states that a backward pass needs are overwritten after each batch."""
    rng, found = np.random.default_rng(0), []
    x, y = rng.normal(size=(B, T, I)).astype(np.float32), np.zeros((B, H), np.float32)
    layers = pair(name)
    for layer in layers:
        model = keras.Sequential([keras.Input((T, I), batch_size=B), type(layer)(H, stateful=True)])
        model.set_weights(layer.get_weights())
        model.compile("sgd", "mse")
        try:
            found.append(model.fit(x, y, epochs=3, batch_size=B, shuffle=False, verbose=0).history["loss"])
        except RuntimeError:  # Keras itself cannot, for cells of several gates
            assert name != "SimpleRNN" and layer is layers[1]
    assert len(set(found[0])) == 3  # the states and the weights of each epoch
    np.testing.assert_allclose(found[0], found[-1], rtol=1e-5)


def test_shapes_without_data():
    layer = ours.LSTM(H, return_sequences=True, return_state=True)
    output, h, c = layer(keras.Input((None, I)))
    assert output.shape == (None, None, H) and h.shape == c.shape == (None, H)
    meta = layer(torch.zeros(B, T, I, device="meta"))
    assert [tuple(result.shape) for result in meta] == [(B, T, H), (B, H), (B, H)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": "elu"}, "activation: 'elu' has no equivalent"),
        ({"recurrent_activation": "tanh"}, "recurrent_activation: 'tanh' has no equivalent"),
        ({"recurrent_dropout": 0.1}, "recurrent_dropout: 0.1 has no equivalent"),
        ({"dropout": 0.1, "implementation": 1}, "dropout: with implementation=1"),
        ({"use_cudnn": True}, "use_cudnn: True has no equivalent"),
    ],
)
def test_settings_without_an_equivalent_are_refused(settings, words):
    with pytest.raises(ValueError, match=f"^{words}.*; keras.layers.LSTM computes it$"):
        ours.LSTM(H, **settings)


def test_other_precisions_are_refused():
    layer = ours.SimpleRNN(H, dtype="bfloat16", recurrent_initializer="glorot_uniform")
    with pytest.raises(ValueError, match="expected tensors of float32 or float64 on the CPU, got torch.bfloat16"):
        layer(torch.zeros(B, T, I))
