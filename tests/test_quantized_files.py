"""fastrnn.save and fastrnn.load of quantized layers: exact round trips, small files, errors for damaged ones."""

import json
import tracemalloc

import numpy as np
import pytest

import fastrnn
from fastrnn._engine.formats import FORMATS
from fastrnn.serialization import QUANTIZED_VERSION
from quantized_cases import ALL_FORMATS, KINDS, bytes_of, is_rounded, make

safetensors = pytest.importorskip("safetensors")
from safetensors.numpy import load_file

IN_FILE = {"int8": "I8", "float16": "F16", "bfloat16": "BF16", "float8": "F8_E4M3"}

form = pytest.fixture(params=ALL_FORMATS)(lambda request: request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layer.safetensors"


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def header_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def changed(path, tensors=(), data=None, **about):
    """Rewrite the file with another description, with other entries of tensors, or with other bytes of one tensor."""
    header, body = header_of(path)
    description = json.loads(header["__metadata__"]["fastrnn"]) | about
    header["__metadata__"]["fastrnn"] = json.dumps({name: v for name, v in description.items() if v is not None})
    for name, entry in dict(tensors).items():
        header[name] = header[name] | entry
    for name, values in (data or {}).items():
        start, end = header[name]["data_offsets"]
        assert end - start == len(values)
        body = body[:start] + values + body[end:]
    rewrite(path, header, body)


def refused(path, *messages):
    with pytest.raises(ValueError) as error:
        fastrnn.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and all(message in text for message in messages), text


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(path, kind, form):
    q, x = make(kind, 7, 12, num_layers=2, bidirectional=True, batch_first=True).quantize(form), numbers(3, 4, 7)
    fastrnn.save(path, q)
    other = fastrnn.load(path)
    assert type(other) is fastrnn.Quantized and repr(other) == repr(q) and other.params == q.params
    assert bytes_of(other(x)) == bytes_of(q(x))
    assert all(array.dtype.isnative and not array.flags.writeable for array in other.params.values())
    again = path.with_name("again")
    fastrnn.save(again, other)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("options", "half"), [({}, 0.51), ({"proj_size": 64}, 0.56)], ids=str)
def test_the_file(path, form, options, half):
    """The description is stable, and the file has the size of its format."""
    layer = fastrnn.LSTM(100, 128, rng=0, **options)
    fastrnn.save(path, layer)
    whole = path.stat().st_size
    q = layer.quantize(form)
    fastrnn.save(path, q)
    assert path.stat().st_size < whole * (0.28 if form in ("int8", "float8") else half)
    header, body = header_of(path)
    about = json.loads(header.pop("__metadata__")["fastrnn"])
    assert about == {
        "format_version": QUANTIZED_VERSION,
        "class": "LSTM",
        "arguments": layer._constructor_arguments(),
        "format": form,
    }
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == (IN_FILE[form] if is_rounded(name, form) else "F32")
        assert entry["shape"] == list(q.params[name].shape) and body[start:end] == q.params[name].tobytes()
    assert (len(path.read_bytes()) - len(body)) % 8 == 0


def test_other_readers(path, form):
    """safetensors itself, for PyTorch too, and load_tensors read the arrays."""
    q = fastrnn.GRU(5, 6, rng=0).quantize(form)
    fastrnn.save(path, q)
    weight, expected = "weight_ih_l0", q.params["weight_ih_l0"]
    if form in ("int8", "float16"):
        assert {name: a.tobytes() for name, a in load_file(path).items()} == {
            n: a.tobytes() for n, a in q.params.items()
        }
    if form != "int8":
        expected = q.dequantized().params[weight]
    if form == "float8":
        expected = expected / q.params["scale_ih_l0"][:, None]
        with pytest.raises(ValueError, match="a tensor of dtype F8_E4M3, which is not read$"):
            fastrnn.load_tensors(path)
    else:
        assert (np.asarray(fastrnn.load_tensors(path)[weight], np.float32) == expected).all()
    pytest.importorskip("torch")
    from safetensors.torch import load_file as load_into_torch

    assert (load_into_torch(path)[weight].float().numpy() == expected).all()


def test_float32_files_are_as_before(path):
    """An older fastrnn can read them."""
    fastrnn.save(path, fastrnn.LSTM(3, 4, rng=0))
    header, _ = header_of(path)
    about = json.loads(header["__metadata__"]["fastrnn"])
    assert about["format_version"] < QUANTIZED_VERSION and "format" not in about


def test_unusual_numbers_come_back(path):
    layer = fastrnn.LSTM(3, 4, rng=0)
    layer.params["weight_ih_l0"].flat[:6] = np.inf, -np.inf, np.nan, -0.0, 1e-7, 1e-40
    for form in ("float16", "bfloat16"):
        q = layer.quantize(form)
        fastrnn.save(path, q)
        assert fastrnn.load(path).params["weight_ih_l0"].tobytes() == q.params["weight_ih_l0"].tobytes()


class Derived(fastrnn.Quantized):
    pass


def test_derived_classes_are_not_saved(path):
    with pytest.raises(TypeError, match="^layer: expected a layer"):
        fastrnn.save(path, Derived(fastrnn.LSTM(3, 4), "int8"))


# Damage


@pytest.fixture
def saved(path, form):
    fastrnn.save(path, fastrnn.LSTM(3, 4, 2, proj_size=2, rng=0).quantize(form))
    return path


@pytest.mark.parametrize("value", ["", "int4", "I8", None, 8, ["int8"], {}, "x" * 9999])
def test_unknown_formats(saved, value):
    header, _ = header_of(saved)
    about = json.loads(header["__metadata__"]["fastrnn"]) | {"format": value}
    header["__metadata__"]["fastrnn"] = json.dumps(about)
    rewrite(saved, header, header_of(saved)[1])
    refused(saved, "format: expected one of int8, float16, bfloat16, float8, got ")


def test_without_its_format(saved, form):
    changed(saved, format=None)
    refused(saved, f"expected F32, got {IN_FILE[form]}")


def test_another_format(saved, form):
    for other in ALL_FORMATS:
        if other != form:
            changed(saved, format=other)
            refused(saved, f"expected {IN_FILE[other]}, got {IN_FILE[form]}")


def test_classes_that_are_not_quantized(saved):
    changed(saved, **{"class": "LSTMCell"})
    refused(saved, "format: a LSTMCell is not quantized")


def test_float64(saved):
    header, _ = header_of(saved)
    arguments = json.loads(header["__metadata__"]["fastrnn"])["arguments"]
    changed(saved, arguments=arguments | {"dtype": "float64"})
    refused(saved, "dtype: expected 'float32', got 'float64'")


@pytest.mark.parametrize("name", ["weight_hr_l1", "bias_ih_l0", "scale_hh_l1"])
def test_missing_tensors(saved, form, name):
    header, body = header_of(saved)
    if name not in header:
        return
    start, end = header[name]["data_offsets"]
    del header[name]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [n - (end - start) for n in entry["data_offsets"]]
    rewrite(saved, header, body[:start] + body[end:])
    refused(saved, f"the tensors do not fit LSTM(3, 4, num_layers=2, proj_size=2).quantize({form!r}): {name}: missing")


def test_wrong_shapes_and_names(saved):
    changed(saved, {"weight_hh_l0": {"shape": [2, 16]}})
    refused(saved, "weight_hh_l0: expected (16, 2), got (2, 16)")
    header, body = header_of(saved)
    header["more"] = header.pop("bias_hh_l0")
    rewrite(saved, header, body)
    refused(saved, "bias_hh_l0: missing", "'more': not a parameter")


@pytest.mark.parametrize("name", ["hidden_size", "bias", "dtype"])
def test_missing_and_unknown_arguments(saved, name):
    header, _ = header_of(saved)
    arguments = json.loads(header["__metadata__"]["fastrnn"])["arguments"]
    changed(saved, arguments={key: value for key, value in arguments.items() if key != name})
    refused(saved, name)
    changed(saved, arguments=arguments | {"unknown": 1})
    refused(saved, "the arguments of LSTM: unknown: is not an argument of LSTM")
    changed(saved, arguments=arguments | {name: "x"})
    refused(saved, name)


def test_numbers_that_int8_does_not_have(path):
    q = fastrnn.RNN(3, 4, rng=0).quantize("int8")
    fastrnn.save(path, q)
    values = q.params["weight_ih_l0"].copy()
    values[2, 1] = -128
    changed(path, data={"weight_ih_l0": values.tobytes()})
    refused(path, "weight_ih_l0: expected numbers from -127 to 127, got -128")


@pytest.mark.parametrize("format", [name for name, form in FORMATS.items() if form.has_scales])
@pytest.mark.parametrize("number", [np.nan, np.inf, -1, np.finfo(np.float32).max, "next"])
def test_scales_that_no_rounding_gives(path, format, number):
    q = fastrnn.RNN(3, 4, rng=0).quantize(format)
    fastrnn.save(path, q)
    largest = FORMATS[format].largest_scale
    scales = q.params["scale_hh_l0"].copy()
    scales[3] = largest
    changed(path, data={"scale_hh_l0": scales.tobytes()})
    assert np.isfinite(fastrnn.load(path).dequantized().params["weight_hh_l0"]).all()
    scales[3] = np.nextafter(largest, np.float32(np.inf)) if number == "next" else number
    changed(path, data={"scale_hh_l0": scales.tobytes()})
    refused(path, "scale_hh_l0: expected numbers from 0 to")


@pytest.mark.parametrize("number", [0x7F, 0xFF])
def test_a_nan_of_float8(path, number):
    q = fastrnn.RNN(3, 4, rng=0).quantize("float8")
    fastrnn.save(path, q)
    values = q.params["weight_ih_l0"].copy()
    values[2, 1] = number
    changed(path, data={"weight_ih_l0": values.tobytes()})
    refused(path, "weight_ih_l0: expected finite numbers, got NaN")


@pytest.mark.parametrize("changes", [{"input_size": 10**12}, {"hidden_size": 5000}, {"num_layers": 10**6}])
def test_absurd_sizes_allocate_nothing(saved, changes):
    header, _ = header_of(saved)
    arguments = json.loads(header["__metadata__"]["fastrnn"])["arguments"]
    changed(saved, arguments=arguments | changes)
    tracemalloc.start()
    try:
        refused(saved, "more parameters than the file holds")
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


def test_memory(path, form):
    """A file takes no more than about twice its size."""
    fastrnn.save(path, fastrnn.LSTM(600, 600, rng=0).quantize(form))
    tracemalloc.start()
    try:
        fastrnn.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_every_cut_and_some_damage(saved):
    """Files cut anywhere, or with a byte changed, are refused or give a layer."""
    whole, rng = saved.read_bytes(), np.random.default_rng(0)
    for end in range(0, len(whole), 37):
        saved.write_bytes(whole[:end])
        refused(saved)
    for at in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.integers(8)
        saved.write_bytes(damaged)
        try:
            layer = fastrnn.load(saved)
        except ValueError as error:
            assert str(error).startswith(f"{saved}: ")
        else:
            layer(np.ones((2, 3, layer.input_size)))
