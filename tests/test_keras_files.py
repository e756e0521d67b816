"""`from_keras` of HDF5 files in the layouts of Keras 2, written here with h5py alone, and of files that are refused."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import fastrnn
from depth import DEPTH

h5py = pytest.importorskip("h5py")

I, H = 5, 4
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "CuDNNLSTM": 4, "CuDNNGRU": 3}
SAID = {"recurrent_activation": "sigmoid"}


def weights_of(class_name, seed=0, use_bias=True, reset_after=True, inputs=I):
    """kernel, recurrent_kernel and bias as Keras has them."""
    rng = np.random.default_rng(seed)
    columns = GATES[class_name] * H
    bias = (columns,)
    if class_name.startswith("CuDNN"):
        bias = (2 * columns,)
    elif class_name == "GRU" and reset_after:
        bias = (2, columns)
    shapes = [(inputs, columns), (H, columns)] + [bias] * use_bias
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def config_of(class_name, name="rnn", **changes):
    """The configuration of a layer in Keras 2.15."""
    config = {
        "name": name, "trainable": True, "dtype": "float32", "batch_input_shape": [None, None, I],
        "return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False,
        "time_major": False, "units": H, "kernel_initializer": {"class_name": "Zeros", "config": {}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.1}}, "bias_constraint": None,
    }  # fmt: skip
    if not class_name.startswith("CuDNN"):
        config |= {
            "activation": "tanh",
            "use_bias": True,
            "dropout": 0.3,
            "recurrent_dropout": 0.1,
            "implementation": 2,
        }
        if class_name != "SimpleRNN":
            config["recurrent_activation"] = "sigmoid"
        if class_name == "LSTM":
            config["unit_forget_bias"] = True
        if class_name == "GRU":
            config["reset_after"] = True
    return {"class_name": class_name, "config": config | changes}


def bidirectional(described, name="rnn", **changes):
    config = {"name": name, "merge_mode": "concat", "layer": described}
    return {"class_name": "Bidirectional", "config": config | changes}


def write_weights(group, layers, version="2.15.0"):
    """Layers, a dict of names to dicts of datasets, as save_weights of Keras 2 writes them."""
    group.attrs["layer_names"] = [name.encode() for name in layers]
    group.attrs["backend"] = b"tensorflow"
    if version:
        group.attrs["keras_version"] = version.encode()
    for name, arrays in layers.items():
        of_layer = group.create_group(name)
        of_layer.attrs["weight_names"] = [one.encode() for one in arrays]
        for one, array in arrays.items():
            of_layer.create_dataset(one, data=array)


def named(weights, prefix="rnn/lstm_cell/", end=":0"):
    return {f"{prefix}{leaf}{end}": w for leaf, w in zip(("kernel", "recurrent_kernel", "bias"), weights)}


def write_model(path, layers, weights, version="2.15.0", class_name="Sequential"):
    config = {"name": "model", "layers": layers}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": class_name, "config": config}).encode()
        file.attrs["keras_version"] = version.encode()
        write_weights(file.create_group("model_weights"), weights, version)
    return path


def of_keras(class_name, *directions, **options):
    kind = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}[class_name]
    return fastrnn.from_weights(kind, list(directions), layout="keras", batch_first=True, **options)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("class_name", ["LSTM", "GRU", "SimpleRNN"])
def test_a_whole_model(tmp_path, class_name, use_bias):
    weights = weights_of(class_name, use_bias=use_bias)
    described = config_of(class_name, use_bias=use_bias)
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": 2}}
    other = {"dense": {"dense/kernel:0": np.zeros((H, 2)), "dense/bias:0": np.zeros(2)}}
    path = write_model(tmp_path / "model.h5", [described, dense], {"rnn": named(weights)} | other)
    options = {"reset_after": True} if class_name == "GRU" else {}
    expected = of_keras(class_name, weights, **options)
    for layer in (None, "rnn"):
        ours = fastrnn.from_keras(path, layer)
        assert repr(ours) == repr(expected) and ours.params == expected.params
    path = write_model(tmp_path / "old.h5", [described], {"rnn": named(weights, "rnn/")}, "2.2.0")  # without a cell
    assert fastrnn.from_keras(path).params == expected.params
    if use_bias or class_name != "GRU":
        with h5py.File(path, "w") as file:
            write_weights(file, {"rnn": named(weights)} | other)
        ours = fastrnn.from_keras(path, **(SAID if class_name != "SimpleRNN" else {}))
        assert repr(ours) == repr(expected) and ours.params == expected.params
        if class_name != "SimpleRNN":
            with pytest.raises(ValueError, match="layer 'rnn': the file holds weights alone and does not say"):
                fastrnn.from_keras(path)


def test_a_gru_with_the_gate_before(tmp_path):
    weights = weights_of("GRU", reset_after=False)
    expected = of_keras("GRU", weights)
    for changes in ({"reset_after": False}, {"reset_after": None}):
        described = config_of("GRU", **changes)
        described["config"] = {key: value for key, value in described["config"].items() if value is not None}
        ours = fastrnn.from_keras(write_model(tmp_path / "a.h5", [described], {"rnn": named(weights)}))
        assert not ours.reset_after and ours.params == expected.params
    path = write_model(tmp_path / "a.h5", [config_of("GRU")], {"rnn": named(weights)})
    with pytest.raises(
        ValueError, match=r"layer 'rnn': model_weights/rnn/rnn/lstm_cell/bias:0: expected \(2, 12\), got \(12,\)"
    ):
        fastrnn.from_keras(path)


def test_options(tmp_path):
    def loaded(class_name="LSTM", version="2.15.0", **changes):
        path = write_model(
            tmp_path / "a.h5", [config_of(class_name, **changes)], {"rnn": named(weights_of(class_name))}, version
        )
        return fastrnn.from_keras(path)

    assert loaded(recurrent_activation="hard_sigmoid").recurrent_activation == "hard_sigmoid_fifth"
    assert loaded(recurrent_activation="hard_sigmoid", version="2.2.4-tf").recurrent_activation == "hard_sigmoid_fifth"
    assert loaded(recurrent_activation="hard_sigmoid", version="3.4.1").recurrent_activation == "hard_sigmoid_sixth"
    assert loaded(activation="relu").activation == "relu"
    assert loaded("SimpleRNN", activation="relu").nonlinearity == "relu"
    assert loaded(go_backwards=True).reverse
    assert loaded().batch_first and not loaded(time_major=True).batch_first
    function = {"class_name": "function", "module": "builtins", "config": "relu", "registered_name": "function"}
    assert loaded(activation=function).activation == "relu"
    assert loaded(some_new_setting=None).hidden_size == H


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "elu"}, "activation: 'elu' has no equivalent, only 'tanh' and 'relu'"),
        ({"activation": {"class_name": "ReLU", "config": {"max_value": 6}}}, "activation: 'ReLU' has no equivalent"),
        (
            {"activation": {"class_name": "function", "module": "mine", "config": "tanh"}},
            "activation: 'function' has no",
        ),
        ({"recurrent_activation": "tanh"}, "recurrent_activation: 'tanh' has no equivalent"),
        ({"recurrent_activation": None}, "recurrent_activation: 'linear' has no equivalent"),
        ({"units": 4.0}, "units: expected an integer"),
        ({"units": 0}, "units: expected an integer"),
        ({"units": True}, "units: expected an integer"),
        ({"units": 3}, r"model_weights/rnn/rnn/lstm_cell/kernel:0: expected \(I, 12\), got \(5, 16\)"),
        ({"use_bias": 1}, "use_bias: expected true or false, got 1"),
        (
            {"use_bias": False},
            "expected kernel, recurrent_kernel, found 3 arrays: model_weights/rnn/rnn/lstm_cell/kernel:0",
        ),
        ({"go_backwards": "no"}, "go_backwards: expected true or false"),
        ({"peephole": True}, "peephole=True: not a known setting of LSTM"),
        ({"layer_norm": {"a": 1}, "zoneout": 0.1}, "layer_norm={'a': 1}, zoneout=0.1: not a known setting of LSTM"),
    ],
)
def test_settings_that_are_refused(tmp_path, changes, message):
    path = write_model(tmp_path / "a.h5", [config_of("LSTM", **changes)], {"rnn": named(weights_of("LSTM"))})
    with pytest.raises(ValueError, match=f"a.h5: layer 'rnn': {message}"):
        fastrnn.from_keras(path)


def test_bidirectional(tmp_path):
    forward, backward = weights_of("GRU", 1), weights_of("GRU", 2)
    expected = of_keras("GRU", forward, backward, bidirectional=True)
    names = named(forward, "rnn/forward_g/gru_cell/") | named(backward, "rnn/backward_g/gru_cell/")
    reordered = named(backward, "rnn/backward_g/gru_cell/") | named(forward, "rnn/forward_g/gru_cell/")
    for weights in (names, reordered):  # the latter where the forward layer alone is frozen
        path = write_model(tmp_path / "a.h5", [bidirectional(config_of("GRU", "g"))], {"rnn": weights})
        ours = fastrnn.from_keras(path)
        assert repr(ours) == repr(expected) and ours.params == expected.params
        with h5py.File(path, "w") as file:
            write_weights(file, {"rnn": weights})
        assert fastrnn.from_keras(path, **SAID).params == expected.params

    def refused(message, **changes):
        path = write_model(tmp_path / "a.h5", [bidirectional(config_of("GRU", "g"), **changes)], {"rnn": names})
        with pytest.raises(ValueError, match=f"layer 'rnn': {message}"):
            fastrnn.from_keras(path)

    refused("merge_mode: 'ave' has no equivalent", merge_mode="ave")
    refused("merge_mode: None has no equivalent", merge_mode=None)
    refused("layer: a Bidirectional of TimeDistributed has no", layer={"class_name": "TimeDistributed", "config": {}})
    refused("layer: a Bidirectional of 7 has no", layer=7)
    refused("recurrent_activation: 'sigmoid' forward and 'hard_sigmoid_fifth' backward", backward_layer=config_of(
        "GRU", recurrent_activation="hard_sigmoid", go_backwards=True))  # fmt: skip
    refused("backward_layer: go_backwards: False has no equivalent", backward_layer=config_of("GRU"))
    refused("number=3: not a known setting of Bidirectional", number=3)
    path = write_model(tmp_path / "a.h5", [bidirectional(config_of("GRU", "g"))], {
        "rnn": named(forward, "rnn/a/") | named(backward, "rnn/b/")})  # fmt: skip
    with pytest.raises(ValueError, match="rnn/a, rnn/b: the names do not show which direction is which"):
        fastrnn.from_keras(path)
    path = write_model(tmp_path / "a.h5", [bidirectional(config_of("GRU", "g"))], {"rnn": named(forward, "rnn/a/")})
    with pytest.raises(ValueError, match="model_weights/rnn: weight_names: expected 2 times kernel.* found 1 times"):
        fastrnn.from_keras(path)


def test_the_directions_of_a_bidirectional(tmp_path):
    forward, backward = weights_of("GRU", 1), weights_of("GRU", 2)
    names = named(forward, "both/forward_g/gru_cell/") | named(backward, "both/backward_g/gru_cell/")
    expected = [of_keras("GRU", forward), of_keras("GRU", backward, reverse=True)]

    def check(source, name, k, **options):
        ours = fastrnn.from_keras(source, name, **options)
        assert repr(ours) == repr(expected[k]) and ours.params == expected[k].params

    layers = [bidirectional(config_of("GRU", "g"), "both", merge_mode="sum")]
    path = write_model(tmp_path / "a.h5", layers, {"both": names})
    for k, direction in enumerate(("forward", "backward")):
        for name in (f"both/{direction}_g", f"both/{direction}_layer", f"{direction}_g"):
            check(path, name, k)
    for name in ("both/forward_h", "other/forward_g", "both/forward_g/g", "both/g", "both/"):
        with pytest.raises(ValueError, match=f"layer: no recurrent layer has the name '{name}'; there are 'both'"):
            fastrnn.from_keras(path, name)
    remedy = (
        r"from_keras\(source, 'both/forward_g'\) and from_keras\(source, 'both/backward_g'\): the output of Keras is "
    )
    with pytest.raises(ValueError, match=f"merge_mode: 'sum' .*{remedy}forward \\+ backward of their outputs"):
        fastrnn.from_keras(path)
    with pytest.raises(ValueError, match="layer 'both/backward_g': go_backwards: False is given, and the layer has T"):
        fastrnn.from_keras(path, "both/backward_g", go_backwards=False)

    # A layer of its own for the backward direction keeps its name.
    mine = config_of("GRU", "mine", go_backwards=True)
    layers = [bidirectional(config_of("GRU", "g"), "both", backward_layer=mine)]
    check(write_model(tmp_path / "b.h5", layers, {"both": names}), "both/mine", 1)
    # The forward layer may be the one that goes backwards.
    layers = [bidirectional(config_of("GRU", "g", go_backwards=True), "both")]
    path = write_model(tmp_path / "c.h5", layers, {"both": names})
    assert fastrnn.from_keras(path, "forward_g").reverse and not fastrnn.from_keras(path, "backward_g").reverse

    # Weights alone of Keras 2 and 3.
    with h5py.File(path, "w") as file:
        write_weights(file, {"both": names})
    check(path, "both/forward_g", 0, **SAID)
    check(path, "both/backward_g", 1, **SAID)
    assert not fastrnn.from_keras(path, "both/backward_g", go_backwards=False, **SAID).reverse
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for direction, weights in (("forward", forward), ("backward", backward)):
            for k, array in enumerate(weights):
                file[f"layers/bidirectional/{direction}_layer/cell/vars/{k}"] = array
    check(tmp_path / "a.weights.h5", "bidirectional/forward_layer", 0, **SAID)
    check(tmp_path / "a.weights.h5", "backward_layer", 1, **SAID)

    # A layer that has such a name itself comes first, and a name that several have is refused.
    layers = [bidirectional(config_of("GRU", "g"), name) for name in ("one", "two")] + [config_of("GRU", "forward_g")]
    path = write_model(tmp_path / "d.h5", layers, {"one": names, "two": names, "forward_g": named(backward, "f/")})
    assert fastrnn.from_keras(path, "forward_g").params == of_keras("GRU", backward).params
    check(path, "two/forward_g", 0)
    with pytest.raises(ValueError, match="layer: 2 layers have the name 'backward_g'"):
        fastrnn.from_keras(path, "backward_g")


@pytest.mark.parametrize(
    ("layer", "message"), [({"class_name": "TimeDistributed", "config": {}}, "TimeDistributed"), (7, "7")]
)
def test_directions_without_an_equivalent(tmp_path, layer, message):
    path = write_model(tmp_path / "a.h5", [bidirectional(layer)], {})
    with pytest.raises(ValueError, match=f"layer: a Bidirectional of {message} has no equivalent"):
        fastrnn.from_keras(path, "forward_layer")


def from_cudnn(class_name, kernel, recurrent_kernel, bias):
    """The weights of LSTM and GRU, by the rule that Keras 2 loads files of CuDNNLSTM and CuDNNGRU with."""
    n = GATES[class_name]
    kernel = np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, n)])
    recurrent_kernel = np.hstack([k.T for k in np.hsplit(recurrent_kernel, n)])
    bias = bias.reshape(2, -1) if class_name == "CuDNNGRU" else bias[: n * H] + bias[n * H :]
    return [kernel, recurrent_kernel, bias]


@pytest.mark.parametrize("class_name", ["CuDNNLSTM", "CuDNNGRU"])
def test_cudnn(tmp_path, class_name):
    one, two = weights_of(class_name, 1), weights_of(class_name, 2)
    converted = [from_cudnn(class_name, *w) for w in (one, two)]
    plain, both = class_name[5:], named(one, "rnn/forward_c/") | named(two, "rnn/backward_c/")
    x = np.random.default_rng(0).standard_normal((2, 6, I)).astype(np.float32)

    def check(ours, expected):
        assert repr(ours) == repr(expected)
        np.testing.assert_allclose(ours(x)[0], expected(x)[0], rtol=0, atol=1e-6)

    path = write_model(tmp_path / "a.h5", [config_of(class_name)], {"rnn": named(one, "rnn/")})
    check(fastrnn.from_keras(path), of_keras(plain, converted[0]))
    assert fastrnn.from_keras(path, recurrent_activation="sigmoid", activation="tanh").hidden_size == H
    with pytest.raises(
        ValueError, match="recurrent_activation: 'hard_sigmoid_fifth' is given, and the layer has 'sigmoid'"
    ):
        fastrnn.from_keras(path, recurrent_activation="hard_sigmoid_fifth")
    path = write_model(tmp_path / "a.h5", [bidirectional(config_of(class_name, "c"))], {"rnn": both})
    check(fastrnn.from_keras(path), of_keras(plain, *converted, bidirectional=True))
    with h5py.File(path, "w") as file:  # of which the weights say everything
        write_weights(file, {"rnn": both})
    check(fastrnn.from_keras(path), of_keras(plain, *converted, bidirectional=True))


def test_models_in_models_and_old_forms(tmp_path):
    low, high = weights_of("LSTM", 1), weights_of("LSTM", 2)
    inner = {"class_name": "Sequential", "config": {"name": "encoder", "layers": [
        config_of("LSTM", "low"), config_of("LSTM", "high")]}}  # fmt: skip
    old = {
        "class_name": "Sequential",
        "name": "encoder",
        "config": [config_of("LSTM", "low"), config_of("LSTM", "high")],
    }
    weights = {"encoder": named(low, "low/lstm_cell/") | named(high, "high/lstm_cell_1/")}
    path = write_model(tmp_path / "a.h5", [inner], weights, class_name="Functional")
    for name, of_name in (("encoder/low", low), ("high", high)):
        assert fastrnn.from_keras(path, name).params == of_keras("LSTM", of_name).params
    with pytest.raises(
        ValueError, match="a.h5: layer: there is more than one .*: 'encoder/low' .LSTM., 'encoder/high' .LSTM."
    ):
        fastrnn.from_keras(path)
    path = write_model(tmp_path / "b.h5", [old], {"Sequential": weights["encoder"]}, class_name="Model")
    with pytest.raises(ValueError, match="there are 'encoder/low' .LSTM., 'encoder/high' .LSTM."):
        fastrnn.from_keras(path, "lower")
    with h5py.File(path, "w") as file:
        write_weights(file, weights)
    assert fastrnn.from_keras(path, "encoder/high", **SAID).params == of_keras("LSTM", high).params
    with pytest.raises(ValueError, match="'encoder/low' .LSTM., 'encoder/high' .LSTM."):
        fastrnn.from_keras(path)


def test_long_lists_of_names(tmp_path):
    """More than 64 KiB of names, which Keras divides into layer_names0, layer_names1, ..."""
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as file:
        write_weights(file, {"rnn": named(weights_of("LSTM"))})
        names = np.array(["rnn"] + [f"{'d' * 900}{k}" for k in range(100)], "S")
        for name in names[1:]:
            file.create_group(name.decode()).attrs["weight_names"] = np.array([])
        del file.attrs["layer_names"]
        for k, part in enumerate(np.array_split(names, 3)):
            file.attrs[f"layer_names{k}"] = part
    assert fastrnn.from_keras(path, **SAID).params == of_keras("LSTM", weights_of("LSTM")).params


def write_archive(path, layers, groups, version):
    """A .keras archive, of which the groups are (path, weights)."""
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, weights in groups.items():
            for k, array in enumerate(weights):
                file[f"{name}/vars/{k}"] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
def test_archives_of_keras_2(tmp_path, container):
    """In those of 2.12 and 2.13 a second layer of a class may be number 2, so it is refused."""
    layers = [config_of("LSTM", "one"), config_of("LSTM", "two"), bidirectional(config_of("GRU", "g"), "three")]
    arrays = [weights_of("LSTM", 1), weights_of("LSTM", 2), weights_of("GRU", 3), weights_of("GRU", 4)]
    groups = {"lstm/cell": arrays[0], "lstm_1/cell": arrays[1], "bidirectional/forward_layer/cell": arrays[2],
              "bidirectional/backward_layer/cell": arrays[3]}  # fmt: skip
    groups = {f"{container}/{name}": weights for name, weights in groups.items()}
    path = write_archive(tmp_path / "a.keras", layers, groups, "2.13.1")
    assert fastrnn.from_keras(path, "one").params == of_keras("LSTM", arrays[0]).params
    assert fastrnn.from_keras(path, "three").params == of_keras("GRU", *arrays[2:], bidirectional=True).params
    if container == "layers":
        assert fastrnn.from_keras(path, "two").params == of_keras("LSTM", arrays[1]).params
    else:
        with pytest.raises(
            ValueError, match="a.keras: layer 'two': model.weights.h5: layers/lstm_1/cell/vars: missing"
        ):
            fastrnn.from_keras(path, "two")


def test_groups_of_other_packages_are_counted(tmp_path):
    """A class of others whose name in lower case is that of a class of Keras takes a number of its groups."""
    arrays = [weights_of("LSTM", seed) for seed in (1, 2)]
    groups = {"layers/lstm/cell": arrays[0], "layers/lstm_1/cell": arrays[1]}
    others = [
        {"class_name": "Lstm", "module": "mine", "registered_name": "Lstm"},
        {"class_name": "Lstm", "module": None, "registered_name": "mine>Lstm"},
        {"class_name": "LSTM", "module": None, "registered_name": "mine>LSTM"},
        {"class_name": "LSTM", "module": "mine", "registered_name": "LSTM"},
        {"class_name": "mine>LSTM"},
    ]
    for number, other in enumerate(others):
        layers = [config_of("LSTM", "first") | other, config_of("LSTM", "second")]
        path = write_archive(tmp_path / f"{number}.keras", layers, groups, "3.0.0")
        assert fastrnn.from_keras(path).params == of_keras("LSTM", arrays[1]).params
        with pytest.raises(ValueError, match="no recurrent layer has the name 'first'"):
            fastrnn.from_keras(path, "first")


def test_an_archive_of_a_cudnn_layer(tmp_path):
    weights = weights_of("CuDNNLSTM")
    path = write_archive(tmp_path / "a.keras", [config_of("CuDNNLSTM")], {"layers/cu_dnnlstm": weights}, "2.15.0")
    x = np.random.default_rng(0).standard_normal((2, 6, I)).astype(np.float32)
    expected = of_keras("LSTM", from_cudnn("CuDNNLSTM", *weights))
    np.testing.assert_allclose(fastrnn.from_keras(path)(x)[0], expected(x)[0], rtol=0, atol=1e-6)


# Files that are refused


@pytest.fixture
def change(tmp_path):
    """A function that writes a good file, changes it with h5py, and checks the message of the error."""

    def change_and_load(message, changed, path="a.h5", **options):
        path = write_model(tmp_path / path, [config_of("LSTM")], {"rnn": named(weights_of("LSTM"))})
        with h5py.File(path, "r+") as file:
            changed(file)
        with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
            fastrnn.from_keras(path, **options)

    return change_and_load


KERNEL = "model_weights/rnn/rnn/lstm_cell/kernel:0"


def replaced(file, **options):
    del file[KERNEL]
    file.create_dataset(KERNEL, **options)


def test_links_and_numbers_elsewhere(change, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((I, 4 * H), np.float32)

    def linked(link):
        def changed(file):
            del file[KERNEL]
            file[KERNEL] = link

        return changed

    change("kernel:0: a soft or external link, which is not followed", linked(h5py.ExternalLink("other.h5", "/secret")))
    change("kernel:0: a soft or external link, which is not followed", linked(h5py.SoftLink("/" + KERNEL)))

    def external(file):
        replaced(file, shape=(I, 4 * H), dtype="f4", external=[("other.h5", 0, 4 * 4 * H * I)])

    change("kernel:0: its numbers lie in another file", external)

    def virtual(file):
        layout = h5py.VirtualLayout((I, 4 * H), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "secret", (I, 4 * H))
        del file[KERNEL]
        file.create_virtual_dataset(KERNEL, layout)

    change("kernel:0: not contiguous", virtual)


def test_datasets(change):
    change("kernel:0: compressed", lambda file: replaced(file, data=np.zeros((I, 16), "f4"), compression="gzip"))
    change("kernel:0: 80000000000 bytes, of which the file of .* bytes does not hold all",
           lambda file: replaced(file, shape=(10**9, 20), dtype="f4"))  # fmt: skip
    change(
        "kernel:0: expected float16, float32 or float64",
        lambda file: replaced(file, data=np.zeros((I, 16), "i4")),
    )
    change(r"kernel:0: expected \(I, 16\), got \(0,\)", lambda file: replaced(file, data=h5py.Empty("f4")))
    change("kernel:0: expected a dataset", lambda file: (file.__delitem__(KERNEL), file.create_group(KERNEL)))
    change(r"kernel:0: expected \(I, 16\), got \(80,\)", lambda file: replaced(file, data=np.zeros(80, "f4")))
    change(r"kernel:0: expected \(I, 16\), got \(0, 16\)", lambda file: replaced(file, data=np.zeros((0, 16), "f4")))
    change("model_weights/rnn/rnn/lstm_cell: 'kernel:0': missing", lambda file: file.__delitem__(KERNEL))
    change("kernel:0: expected float16",
           lambda file: file[KERNEL].attrs.__setitem__("dtype", "bfloat16"))  # fmt: skip


def test_attributes(change):
    def attribute(place, name, value):
        return lambda file: file[place].attrs.__setitem__(name, value)

    rnn = "model_weights/rnn"
    change("weight_names: expected a list of names", attribute(rnn, "weight_names", "one"))
    change("weight_names: expected text", attribute(rnn, "weight_names", np.arange(3)))
    change("weight_names: rnn/lstm_cell/kernel stands there twice",
           attribute(rnn, "weight_names", [b"rnn/lstm_cell/kernel:0"] * 2))  # fmt: skip
    change("the attribute weight_names is missing", lambda file: file[rnn].attrs.__delitem__("weight_names"))
    change(
        "expected 1 times kernel, recurrent_kernel and bias, found 0 times", attribute(rnn, "weight_names", [b"x:0"])
    )
    change("rnn/lstm_cell/kernel: missing", attribute(rnn, "weight_names", [b"rnn/lstm_cell/recurrent_kernel:0"]))
    change("model_config: not JSON", attribute("/", "model_config", b"{"))
    change("model_config: expected text", attribute("/", "model_config", 5))
    change("model_config: expected a JSON object, got 5", attribute("/", "model_config", b"5"))
    change("keras_version: '1.2.2'", attribute("model_weights", "keras_version", b"1.2.2"))
    change("'model_weights/rnn'|'rnn': missing", lambda file: file["model_weights"].__delitem__("rnn"))


def test_weights_alone_of_other_shapes(tmp_path):
    def refused(message, *arrays):
        path = tmp_path / "w.h5"
        with h5py.File(path, "w") as file:
            write_weights(file, {"rnn": named(arrays)})
        with pytest.raises(ValueError, match=f"w.h5: .*{message}"):
            fastrnn.from_keras(path, **SAID)

    kernel, recurrent, bias = weights_of("LSTM")
    refused("recurrent_kernel:0: 2 gates; an LSTM has 4", kernel, recurrent[:, :8], bias)
    refused(r"recurrent_kernel:0: expected \(H, G\*H\), got \(16,\)", kernel, bias, bias)
    refused(r"recurrent_kernel:0: expected \(H, G\*H\), got \(4, 15\)", kernel, recurrent[:, :15], bias)
    refused(r"bias:0: expected \(16,\), got \(15,\)", kernel, recurrent, bias[:15])
    refused("reset_after: the weights of a GRU without bias do not show it", *weights_of("GRU", use_bias=False))


def test_layers_of_an_inner_model_that_are_called_forward_and_backward(tmp_path):
    """Two layers, of which the names in weights alone begin as those of the directions of a Bidirectional."""
    arrays = {name: weights_of("LSTM", seed) for seed, name in enumerate(("forward_lstm", "backward_lstm"))}
    inner = {}
    for name, weights in arrays.items():
        inner |= named(weights, f"{name}/lstm_cell/")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        write_weights(file, {"inner": inner})
    with pytest.raises(ValueError, match="there is more than one recurrent layer"):
        fastrnn.from_keras(tmp_path / "weights.h5", **SAID)
    for name, weights in arrays.items():
        ours = fastrnn.from_keras(tmp_path / "weights.h5", name, **SAID)
        assert repr(ours) == "LSTM(5, 4, batch_first=True)" and ours.params == of_keras("LSTM", weights).params


def test_go_backwards_of_weights_alone(tmp_path):
    weights = weights_of("LSTM")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        write_weights(file, {"one": named(weights)})
    path = tmp_path / "weights.h5"
    ours = fastrnn.from_keras(path, **SAID, go_backwards=True)
    assert ours.reverse and ours.params.flat.tobytes() == of_keras("LSTM", weights).params.flat.tobytes()
    assert not fastrnn.from_keras(path, **SAID, go_backwards=False).reverse
    for given in (0, "True"):
        with pytest.raises(TypeError, match="^go_backwards: expected True or False"):
            fastrnn.from_keras(path, **SAID, go_backwards=given)

    whole = write_model(tmp_path / "a.h5", [config_of("LSTM", go_backwards=True)], {"rnn": named(weights)})
    assert fastrnn.from_keras(whole, go_backwards=True).reverse
    with pytest.raises(ValueError, match="go_backwards: False is given, and the layer has True"):
        fastrnn.from_keras(whole, go_backwards=False)

    with h5py.File(tmp_path / "both.weights.h5", "w") as file:
        for direction in ("forward", "backward"):
            for k, array in enumerate(weights):
                file[f"layers/bidirectional/{direction}_layer/cell/vars/{k}"] = array
    assert fastrnn.from_keras(tmp_path / "both.weights.h5", **SAID, go_backwards=False).bidirectional
    with pytest.raises(ValueError, match="go_backwards: True is given, and the layer has both directions"):
        fastrnn.from_keras(tmp_path / "both.weights.h5", **SAID, go_backwards=True)


def test_groups_that_never_end(tmp_path):
    path = tmp_path / "loop.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a/b")
        group["back"] = file["a"]
    with pytest.raises(ValueError, match="loop.h5: groups inside groups, more than 64 deep"):
        fastrnn.from_keras(path)
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(40):
            group = group.create_group("x")
            group.parent["y"] = group
    with pytest.raises(ValueError, match="loop.h5: more than 32768 groups and datasets"):
        fastrnn.from_keras(path)


def test_things_that_are_not_files_of_keras(tmp_path):
    for content in (b"", b"neither here nor there", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"):
        path = tmp_path / "junk"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: damaged"):
            fastrnn.from_keras(path)
    with pytest.raises(ValueError, match="a folder, perhaps a SavedModel"):
        fastrnn.from_keras(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastrnn.from_keras(tmp_path / "absent.keras")
    with pytest.raises(ValueError, match="^path: is empty"):
        fastrnn.from_keras("")
    with zipfile.ZipFile(tmp_path / "sharded.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.json"):
            archive.writestr(name, "{}")
    with pytest.raises(ValueError, match="weights in several files are not read"):
        fastrnn.from_keras(tmp_path / "sharded.keras")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="no recurrent layer found"):
        fastrnn.from_keras(tmp_path / "empty.h5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a file"):
        fastrnn.from_keras(tmp_path / "pipe")


def test_a_heap_that_never_ends(tmp_path):
    """An object of a global heap whose size leads out of step, where HDF5 2.0.0 does not return."""
    path = write_model(tmp_path / "heap.h5", [config_of("LSTM")], {"rnn": named(weights_of("LSTM"))})
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 + 8] ^= 0x90  # the size of the first object
    path.write_bytes(data)
    with pytest.raises(ValueError, match="heap.h5: damaged: "):
        fastrnn.from_keras(path)


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_files(tmp_path, whole):
    path = tmp_path / "fuzz.h5"
    forward, backward = weights_of("CuDNNGRU", 1), weights_of("CuDNNGRU", 2)
    weights = {"rnn": named(forward, "rnn/forward_c/") | named(backward, "rnn/backward_c/")}
    write_model(path, [bidirectional(config_of("CuDNNGRU", "c"))], weights)
    if not whole:
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(150 * DEPTH):
        changed = bytearray(data)
        if rng.random() < 0.2:
            del changed[rng.integers(len(changed)) :]
        else:
            for place in rng.integers(0, len(changed), rng.integers(1, 5)):
                changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            ours = fastrnn.from_keras(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            outcomes["refused"] += 1
        else:
            assert ours.params["weight_hh_l0"].shape == (3 * H, H)
            outcomes["loaded"] += 1
    assert min(outcomes.values()) > 0


def test_without_h5py(tmp_path):
    path = write_model(tmp_path / "a.h5", [config_of("LSTM")], {"rnn": named(weights_of("LSTM"))})
    code = "import sys, fastrnn; print(fastrnn.from_keras(sys.argv[1])); assert 'h5py' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "LSTM(5, 4, batch_first=True)"


def test_importing_fastrnn_imports_neither_h5py_nor_keras():
    code = "import sys, fastrnn; print([name for name in ('h5py', 'keras', 'zipfile') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
