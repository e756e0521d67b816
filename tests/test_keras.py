"""`from_keras` of live layers and models, and of the files that Keras 3 writes, against the outputs of Keras."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH

keras = pytest.importorskip("keras")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

B, T, I, H = 3, 6, 5, 4
SAID = {"recurrent_activation": "sigmoid"}


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def randomize(layer, seed=0):
    """Random weights, biases included."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(-0.7, 0.7, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def batch(seed=1, features=I):
    return np.random.default_rng(seed).standard_normal((B, T, features)).astype(np.float32)


def built(layer):
    layer.build((None, None, I))
    return randomize(layer)


@st.composite
def descriptions(draw):
    """The name of a class, its form, and its options."""
    name = draw(st.sampled_from(["LSTM", "GRU", "SimpleRNN"]))
    activations = ["tanh", "relu", "sigmoid"][: 3 if name == "SimpleRNN" else 2]
    options = {"use_bias": draw(st.booleans()), "activation": draw(st.sampled_from(activations))}
    if name != "SimpleRNN":
        options["recurrent_activation"] = draw(st.sampled_from(["sigmoid", "hard_sigmoid"]))
    if name == "GRU":
        options["reset_after"] = draw(st.booleans())
    return name, draw(st.sampled_from(["layer", "backwards", "bidirectional", "cell"])), options


def layer_of(name, form, options):
    """A recurrent layer of Keras, which returns sequences and states."""
    returned = {"return_sequences": True, "return_state": True}
    if form == "cell":
        return L.RNN(getattr(L, f"{name}Cell")(H, **options), **returned)
    layer = getattr(L, name)(H, go_backwards=form == "backwards", **returned, **options)
    return L.Bidirectional(layer) if form == "bidirectional" else layer


@given(descriptions())
@settings(max_examples=25 * DEPTH)
def test_live_layers(description):
    layer = built(layer_of(*description))
    x = batch()
    expected, *states = map(numbers, layer(x))
    ours = fastrnn.from_keras(layer)
    assert ours.batch_first and ours.input_size == I and ours.hidden_size == H
    output, state_n = ours(x)
    np.testing.assert_allclose(output[:, ::-1] if ours.reverse else output, expected, rtol=0, atol=2e-6)
    state_n = state_n if isinstance(state_n, tuple) else (state_n,)
    ours_by_direction = [s[d] for d in range(1 + ours.bidirectional) for s in state_n]
    for one, other in zip(ours_by_direction, states, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_float64():
    layer = built(L.GRU(H, return_sequences=True, dtype="float64"))
    layer.set_weights([w + 1e-12 for w in layer.get_weights()])
    ours = fastrnn.from_keras(layer)
    assert ours.params.flat.dtype == np.float64
    assert ours.params == fastrnn.from_weights("gru", layer.get_weights(), layout="keras").params


def test_the_weights_are_copies():
    layer = built(L.LSTM(H))
    ours = fastrnn.from_keras(layer)
    before = layer.get_weights()
    ours.params.flat[...] = 0
    assert all(np.array_equal(one, other) for one, other in zip(before, layer.get_weights()))


@pytest.fixture(scope="module")
def model():
    """A functional model with models in it, whose second layer of a kind has a number in .weights.h5."""
    inner = keras.Sequential([keras.Input((None, I)), L.LSTM(3, return_sequences=True, name="low")], name="encoder")
    x = keras.Input((None, I))
    a = inner(x)
    b = L.Bidirectional(L.GRU(4, return_sequences=True), name="both")(a)
    c = L.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid", dropout=0.2, name="first")(b)
    d = L.LSTM(3, use_bias=False, return_sequences=True, name="second")(c)
    e = L.SimpleRNN(2, activation="relu", return_sequences=True, name="plain")(d)
    f = L.RNN(L.GRUCell(3, reset_after=False), name="cell", return_sequences=True)(e)
    return randomize(keras.Model(x, [a, b, c, d, e, L.Dense(2)(f)]))


NAMES = ["encoder/low", "both", "first", "second", "plain", "cell"]


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    return folder


def test_a_live_model(model):
    x = batch()
    outputs = [numbers(one) for one in model(x)]
    for name, expected in zip(NAMES[:5], outputs):
        output, _ = fastrnn.from_keras(model, name)(x)
        np.testing.assert_allclose(output, expected, rtol=0, atol=3e-6)
        x = output
    assert fastrnn.from_keras(model, "low").params == fastrnn.from_keras(model, "encoder/low").params
    with pytest.raises(
        ValueError, match="^layer: there is more than one .*'encoder/low' .LSTM., 'both' .Bidirectional of GRU."
    ):
        fastrnn.from_keras(model)
    with pytest.raises(ValueError, match="^layer: no recurrent layer has the name 'other'; there are 'encoder/low'"):
        fastrnn.from_keras(model, "other")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
def test_whole_models(model, saved, file, name):
    expected, ours = fastrnn.from_keras(model, name), fastrnn.from_keras(saved / file, name)
    assert repr(ours) == repr(expected) and ours.params == expected.params


@pytest.mark.parametrize("name", NAMES)
def test_weights_alone(model, saved, name):
    expected = fastrnn.from_keras(model, name)
    path = saved / "model.weights.h5"
    options = {"activation": getattr(expected, "nonlinearity", None) or expected.activation}
    if options["activation"] == "tanh":
        del options["activation"]
    if name != "plain":
        with pytest.raises(
            ValueError, match=f"model.weights.h5: layer '{name}': .* does not say the recurrent_activation; give 'sig"
        ):
            fastrnn.from_keras(path, name)
        options["recurrent_activation"] = expected.recurrent_activation
    ours = fastrnn.from_keras(path, name, **options)
    assert repr(ours) == repr(expected) and ours.params == expected.params


def test_the_only_layer(tmp_path):
    model = keras.Sequential([keras.Input((None, I)), L.Masking(), L.GRU(3), L.Dense(2)])
    for name in ("a.keras", "a.h5"):
        model.save(tmp_path / name)
        assert fastrnn.from_keras(str(tmp_path / name)).params == fastrnn.from_keras(model).params


def rewritten(path, new, member, change):
    """A copy of an archive with a changed member."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            data = archive.read(name)
            other.writestr(name, change(data) if name == member else data)
    return new


def test_the_version_decides_which_hard_sigmoid(saved, tmp_path):
    for version, expected in (("2.15.0", "hard_sigmoid_fifth"), ("3.0.0", "hard_sigmoid_sixth")):
        about = json.dumps({"keras_version": version}).encode()
        path = rewritten(saved / "model.keras", tmp_path / "of.keras", "metadata.json", lambda _: about)
        assert fastrnn.from_keras(path, "first").recurrent_activation == expected
        assert fastrnn.from_keras(path, "first", recurrent_activation=expected).recurrent_activation == expected
        with pytest.raises(
            ValueError, match=f"recurrent_activation: 'sigmoid' is given, and the layer has '{expected}'"
        ):
            fastrnn.from_keras(path, "first", recurrent_activation="sigmoid")
    path = rewritten(saved / "model.keras", tmp_path / "of.keras", "metadata.json", lambda _: b"{}")
    with pytest.raises(ValueError, match="'hard_sigmoid' is one function in Keras 2 and another in Keras 3"):
        fastrnn.from_keras(path, "first")
    ours = fastrnn.from_keras(path, "first", recurrent_activation="hard_sigmoid_fifth")
    assert ours.recurrent_activation == "hard_sigmoid_fifth"


def test_archives_that_are_refused(saved, tmp_path):
    whole = saved / "model.keras"

    def refused(message, member, change):
        path = rewritten(whole, tmp_path / "changed.keras", member, change)
        with pytest.raises(ValueError, match=f"changed.keras: .*{message}"):
            fastrnn.from_keras(path, "second")

    refused("config.json: not JSON", "config.json", lambda data: data[:-1])
    refused("config.json: expected a JSON object", "config.json", lambda _: b"[]")
    refused("no recurrent layer found", "config.json", lambda _: b'{"config": {"layers": [7, {}, {"class_name": 3}]}}')
    refused("config of 'LSTM': expected a JSON object", "config.json",
            lambda _: b'{"config": {"layers": [{"class_name": "LSTM", "config": 5}]}}')  # fmt: skip
    level = b'{"layers": [{"class_name": "Model", "config": '
    deep = b'{"config": ' + level * 70 + b"{}" + b"}]}" * 70 + b"}"
    refused("models inside models", "config.json", lambda _: deep)
    refused("config.json: not JSON", "config.json", lambda _: b"[" * 100000)
    refused("config.json: 90000000 bytes, at most", "config.json", lambda _: b" " * 90000000)
    refused("model.weights.h5: 90000000 bytes, at most", "model.weights.h5", lambda _: bytes(90000000))
    refused("damaged: ", "model.weights.h5", lambda data: data[: len(data) // 2])
    refused("the weights of 'first'", "config.json", lambda data: data.replace(b'"second"', b'"2nd"').replace(
        b'"first"', b'"second"'))  # fmt: skip
    refused("layers/lstm_1/cell/vars: missing", "model.weights.h5", lambda data: data.replace(b"lstm_1\0", b"lstm_9\0"))
    refused(r"expected kernel, recurrent_kernel, bias, found 2 arrays: layers/lstm_1/cell/vars/0", "config.json",
            lambda data: data.replace(b'"use_bias": false', b'"use_bias": true'))  # fmt: skip
    with zipfile.ZipFile(tmp_path / "half.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="half.keras: metadata.json: not in the archive"):
        fastrnn.from_keras(tmp_path / "half.keras")


def test_live_things_that_are_refused():
    def refused(layer, message, error=ValueError):
        with pytest.raises(error, match=message):
            fastrnn.from_keras(layer)

    class Custom(L.LSTM):
        pass

    class Cell(L.Layer):
        state_size = 3

    def tanh(x):
        return x

    refused(np.zeros(3), "^source: expected a path, or a layer or a model of Keras, got ndarray", TypeError)
    refused(None, "^source: expected a path", TypeError)
    refused(L.Dense(3), "^source: a Dense is not a recurrent layer")
    refused(L.LSTM(3, name="new"), "^layer 'new': source: the layer has no weights yet")
    refused(built(Custom(3)), "Custom has no equivalent")
    refused(L.RNN(Cell()), "cell: an RNN of '?.*Cell'? has no equivalent")
    refused(L.RNN([L.LSTMCell(3), L.LSTMCell(3)]), "cell: an RNN of .*StackedRNNCells.* has no equivalent")
    refused(L.ConvLSTM1D(3, 2), "a ConvLSTM1D has no equivalent")
    refused(built(L.LSTM(3, activation="linear")), "activation: 'linear' has no equivalent")
    refused(built(L.LSTM(3, activation=None)), "activation: 'linear' has no equivalent")
    refused(built(L.GRU(3, activation=tanh)), "activation: '.*tanh' has no equivalent")
    refused(built(L.GRU(3, recurrent_activation="elu")), "recurrent_activation: 'elu' has no equivalent")
    refused(built(L.Bidirectional(L.GRU(3), merge_mode="sum")), "merge_mode: 'sum' has no equivalent")
    refused(built(L.Bidirectional(L.GRU(3), merge_mode=None)), "merge_mode: None has no equivalent")
    refused(
        built(L.Bidirectional(L.GRU(3), backward_layer=L.GRU(2, go_backwards=True))), "units: 3 forward and 2 backward"
    )
    refused(
        built(L.Bidirectional(L.GRU(3), backward_layer=L.LSTM(3, go_backwards=True))), "backward_layer: expected GRU"
    )
    refused(
        built(L.Bidirectional(L.GRU(3, go_backwards=True), backward_layer=L.GRU(3))),
        "go_backwards: True for the forward",
    )
    with pytest.raises(ValueError, match="^recurrent_activation: 'hard_sigmoid' names two functions"):
        fastrnn.from_keras(L.LSTM(3), recurrent_activation="hard_sigmoid")
    with pytest.raises(ValueError, match="^activation: .*'elu'"):
        fastrnn.from_keras(L.LSTM(3), activation="elu")
    with pytest.raises(TypeError, match="^layer: expected the name of one layer, got 3"):
        fastrnn.from_keras(L.LSTM(3), 3)
    with pytest.raises(ValueError, match="recurrent_activation: a SimpleRNN has none"):
        fastrnn.from_keras(built(L.SimpleRNN(3)), recurrent_activation="sigmoid")


MERGES = {"sum": np.add, "mul": np.multiply, "ave": lambda a, b: (a + b) / 2, None: lambda a, b: (a, b)}


@pytest.mark.parametrize("mode", MERGES)
@pytest.mark.parametrize("returned", [True, False])
def test_directions_one_by_one(tmp_path, mode, returned):
    bidirectional = L.Bidirectional(L.LSTM(H, return_sequences=returned), merge_mode=mode, name="both")
    inputs = keras.Input((None, I))
    model = randomize(keras.Model(inputs, bidirectional(inputs)))
    x, own = batch(), [bidirectional.forward_layer.name, bidirectional.backward_layer.name]
    expected = model(x)
    expected = [numbers(one) for one in expected] if mode is None else numbers(expected)
    model.save(tmp_path / "a.keras")
    model.save(tmp_path / "a.h5")
    model.save_weights(tmp_path / "a.weights.h5")
    for source in (model, bidirectional, tmp_path / "a.keras", tmp_path / "a.h5", tmp_path / "a.weights.h5"):
        said = SAID if str(source).endswith("weights.h5") else {}
        forward, backward = [fastrnn.from_keras(source, f"both/{name}", **said)(x)[0] for name in own]
        if not returned:
            forward, backward = forward[:, -1], backward[:, 0]
        np.testing.assert_allclose(MERGES[mode](forward, backward), expected, rtol=0, atol=2e-6)
        if not said:
            with pytest.raises(ValueError, match=f"merge_mode: .*'both/{own[0]}'.*'both/{own[1]}'"):
                fastrnn.from_keras(source)


def test_a_custom_backward_layer():
    layer = built(L.Bidirectional(L.LSTM(H, return_sequences=True), backward_layer=L.LSTM(
        H, return_sequences=True, go_backwards=True, name="mine")))  # fmt: skip
    x = batch()
    np.testing.assert_allclose(fastrnn.from_keras(layer)(x)[0], numbers(layer(x)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("file", ["model.keras", "model.h5", "model.weights.h5"])
def test_damaged_files(saved, tmp_path, file):
    """Truncated and flipped bytes: a ValueError that begins with the path, or a layer."""
    data = (saved / file).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / file
    outcomes = set()
    for _ in range(60 * DEPTH):
        changed = bytearray(data)
        if rng.random() < 0.2:
            del changed[rng.integers(len(changed)) :]
        else:
            for place in rng.integers(0, len(changed), rng.integers(1, 5)):
                changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            ours = fastrnn.from_keras(path, "second", **SAID)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            outcomes.add("refused")
        else:
            assert ours.params["weight_hh_l0"].shape == (12, 3)
            outcomes.add("loaded")
    assert "refused" in outcomes


def test_nothing_of_an_archive_is_executed(saved, tmp_path):
    """A Lambda beside the layer, with a function of Python bytecode, is passed over."""

    def with_lambda(data):
        config = json.loads(data)
        code = {"class_name": "__lambda__", "config": {"value": "cafe"}}
        config["config"]["layers"].insert(
            0, {"class_name": "Lambda", "module": "keras.layers", "config": {"function": code}}
        )
        return json.dumps(config).encode()

    path = rewritten(saved / "model.keras", tmp_path / "lambda.keras", "config.json", with_lambda)
    assert fastrnn.from_keras(path, "second").hidden_size == 3


def test_model_of_a_subclass(tmp_path):
    class Tagger(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = L.LSTM(3, return_sequences=True, name="inside")

        def call(self, x):
            return self.rnn(x)

    model = Tagger()
    model(batch())
    expected = fastrnn.from_keras(model.rnn)
    assert fastrnn.from_keras(model).params == expected.params
    model.save(tmp_path / "sub.keras")
    with pytest.raises(ValueError, match="no recurrent layer found; .*: save the weights alone"):
        fastrnn.from_keras(tmp_path / "sub.keras")
    model.save_weights(tmp_path / "sub.weights.h5")
    assert fastrnn.from_keras(tmp_path / "sub.weights.h5", **SAID).params == expected.params
    with zipfile.ZipFile(tmp_path / "sub.keras") as archive:
        (tmp_path / "out.h5").write_bytes(io.BytesIO(archive.read("model.weights.h5")).getvalue())
    assert fastrnn.from_keras(tmp_path / "out.h5", "inside", **SAID).params == expected.params
