"""Parameters: named views of one flat array."""

import copy
import pickle
import warnings
from collections.abc import Mapping

import numpy as np
import pytest

import fastrnn
from fastrnn import Parameters

SHAPES = {"weight": (3, 2), "empty": (4, 0), "bias": (3,), "scalar": ()}


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def params(request):
    params = Parameters(SHAPES, request.param)
    params.flat[...] = np.arange(params.flat.size)
    return params


def assert_views_of_flat(params):
    """Every array is a view of its own range of flat, in order and without gaps."""
    assert params.flat.ndim == 1 and params.flat.flags.c_contiguous
    assert params.flat.ctypes.data % 64 == 0
    kept = params.flat.copy()
    params.flat[...] = np.arange(params.flat.size)
    start = 0
    for array in params.values():
        assert array.flags.c_contiguous and array.dtype == params.flat.dtype
        np.testing.assert_array_equal(array.ravel(), np.arange(start, start + array.size))
        start += array.size
    assert start == params.flat.size
    params.flat[...] = kept


def test_names_shapes_and_views(params):
    assert isinstance(params, Mapping)
    assert list(params) == list(SHAPES) and len(params) == 4
    assert {name: array.shape for name, array in params.items()} == SHAPES
    assert "weight" in params and "other" not in params
    assert params["weight"] is params["weight"]
    assert_views_of_flat(params)
    params["bias"][1] = -5
    assert params.flat[7] == -5


def test_start_as_zeros_of_float32():
    params = Parameters({"a": (1000,)})
    assert params.flat.dtype == np.float32 and not params.flat.any()
    assert Parameters({}).flat.shape == (0,)
    with pytest.raises(TypeError, match="^dtype: expected float32 or float64"):
        Parameters({"a": (1,)}, np.int64)


def test_assignment_copies_into_the_view(params):
    array = params["weight"]
    value = np.full((3, 2), 7.5)
    params["weight"] = value
    value[...] = 0
    assert params["weight"] is array and (array == 7.5).all()
    params["weight"] = [[1, 2], [3, 4], [5, 6]]
    np.testing.assert_array_equal(params.flat[:6], [1, 2, 3, 4, 5, 6])
    params["scalar"] = 3
    assert params.flat[-1] == 3
    np.testing.assert_array_equal(params["bias"], [6, 7, 8])


def test_assignment_of_its_own_memory(params):
    params["bias"] = params["bias"][::-1]
    np.testing.assert_array_equal(params["bias"], [8, 7, 6])


def test_an_assignment_that_overflows_changes_nothing():
    params = Parameters({"a": (3,)})
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        params["a"] = [1.0, 1e300, 2.0]
    assert not params.flat.any()


def test_augmented_assignment(params):
    expected = params.flat.copy()
    flat, bias = params.flat, params["bias"]
    params.flat -= 0.5 * params.flat
    assert params.flat is flat
    np.testing.assert_array_equal(flat, expected / 2)
    params["bias"] += 1
    assert params["bias"] is bias
    np.testing.assert_array_equal(flat[6:9], expected[6:9] / 2 + 1)


@pytest.mark.parametrize(
    ("name", "value", "exception", "message"),
    [
        ("other", 1.0, KeyError, "other"),
        ("weight", np.zeros((2, 3)), ValueError, r"weight: expected \(3, 2\), got \(2, 3\)"),
        ("weight", np.zeros(2), ValueError, r"weight: expected \(3, 2\), got \(2,\)"),
        ("weight", 0.0, ValueError, r"weight: expected \(3, 2\), got \(\)"),
        ("bias", np.zeros((1, 3)), ValueError, r"bias: expected \(3,\), got \(1, 3\)"),
        ("bias", np.zeros(3, complex), TypeError, "bias: cannot be cast from complex128"),
        ("bias", ["a", "b", "c"], TypeError, "bias: cannot be cast"),
        ("bias", None, TypeError, "bias: expected an array, got None"),
    ],
)
def test_refused_assignments_change_nothing(params, name, value, exception, message):
    before = params.flat.copy()
    with pytest.raises(exception, match=message):
        params[name] = value
    np.testing.assert_array_equal(params.flat, before)
    assert list(params) == list(SHAPES)


def test_the_structure_is_fixed(params):
    with pytest.raises((AttributeError, TypeError)):
        del params["bias"]
    for other in (params.flat.copy(), 0.0):
        with pytest.raises(AttributeError, match="^flat: "):
            params.flat = other
    with pytest.raises(AttributeError):
        params.anything = 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(params)


def duplicates(params):
    return [
        params.copy(),
        copy.copy(params),
        copy.deepcopy(params),
        *(pickle.loads(pickle.dumps(params, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)),
    ]


def test_copies_are_equal_and_independent(params):
    for other in duplicates(params):
        assert type(other) is Parameters
        assert list(other) == list(params)
        assert other == params and other.flat.dtype == params.flat.dtype
        assert_views_of_flat(other)
        assert not np.shares_memory(other.flat, params.flat)
        other["bias"][0] = -1
        assert other != params and params["bias"][0] == 6


def test_zeros_like_and_empty_like(params):
    zeros = params.zeros_like()
    assert zeros == Parameters(SHAPES, params.flat.dtype)
    for other in (zeros, params.empty_like()):
        assert {name: array.shape for name, array in other.items()} == SHAPES
        assert other.flat.dtype == params.flat.dtype
        assert_views_of_flat(other)
        assert not np.shares_memory(other.flat, params.flat)


def test_equality(params):
    assert params == params.copy()
    assert params != Parameters({"other": (3, 2), **SHAPES}, params.flat.dtype)
    assert params != Parameters({"flat": (params.flat.size,)}, params.flat.dtype)
    assert params != dict(params)
    transposed = Parameters(SHAPES | {"weight": (2, 3)}, params.flat.dtype)
    transposed.flat[...] = params.flat
    assert params != transposed


def test_repr_shows_names_and_shapes(params):
    text = repr(params)
    for name, shape in SHAPES.items():
        assert f"{name}: {shape}" in text
    assert str(params.flat.dtype) in text and "10 values" in text


def test_a_layers_parameters_come_in_the_order_of_torch():
    layer = fastrnn.LSTM(3, 2, num_layers=2)
    assert {name: array.shape for name, array in layer.params.items()} == {
        "weight_ih_l0": (8, 3),
        "weight_hh_l0": (8, 2),
        "bias_ih_l0": (8,),
        "bias_hh_l0": (8,),
        "weight_ih_l1": (8, 2),
        "weight_hh_l1": (8, 2),
        "bias_ih_l1": (8,),
        "bias_hh_l1": (8,),
    }
    assert list(layer.params)[0] == "weight_ih_l0" and list(layer.params)[4] == "weight_ih_l1"
    assert list(fastrnn.LSTM(3, 2, bias=False).params) == ["weight_ih_l0", "weight_hh_l0"]
    assert_views_of_flat(layer.params)
    output, _, tape = layer.forward(np.zeros((1, 1, 3)))
    d_params = layer.backward(tape, output)[2]
    assert list(d_params) == list(layer.params)
    assert_views_of_flat(d_params)


@pytest.mark.parametrize("shape, error", [((-1,), ValueError), ((2.5,), TypeError), (("3",), TypeError)])
def test_axes_are_sizes(shape, error):
    with pytest.raises(error, match="^a: expected"):
        Parameters({"a": shape})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([("a", (1,))], "shapes: expected a mapping of names to shapes, got list"),
        ({"a": 3}, "shapes: expected a tuple of integers for 'a', got int"),
        ({"a": np.zeros(3)}, "shapes: expected a tuple of integers for 'a', got ndarray"),
    ],
)
def test_what_is_no_mapping_of_shapes(shapes, message):
    with pytest.raises(TypeError, match="^" + message):
        Parameters(shapes)


def assign(array, attribute, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer NumPys discourage it
        setattr(array, attribute, value)


def test_a_shape_that_somebody_assigns_is_theirs_alone(tmp_path):
    layer = fastrnn.LSTM(3, 2, rng=0)
    params, shapes = layer.params, {name: array.shape for name, array in layer.params.items()}
    before = params.flat.tobytes()
    reshaped = params["weight_ih_l0"]
    assign(reshaped, "shape", (3, 8))
    assign(params["bias_ih_l0"], "shape", (2, 2, 2))
    assign(params["bias_hh_l0"], "dtype", np.int32)
    assign(params.flat, "shape", (2, -1))
    for found in (params, layer.state_dict(), copy.deepcopy(params), params.copy(), dict(params)):
        assert {name: array.shape for name, array in found.items()} == shapes
        assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    assert params.flat.shape == (len(before) // 4,) and params.flat.tobytes() == before
    assert_views_of_flat(params)
    params["weight_ih_l0"] = np.ones((8, 3))
    assert (reshaped == 1).all() and reshaped.shape == (3, 8)
    params.flat -= 1
    params["weight_ih_l0"] += 2
    assert (reshaped == 2).all()
    layer.load_state_dict(layer.state_dict())
    layer.freeze()
    assert not reshaped.flags.writeable and not params["weight_ih_l0"].flags.writeable
    layer.unfreeze()
    assert reshaped.flags.writeable and params["weight_ih_l0"].flags.writeable
    safetensors = pytest.importorskip("safetensors.numpy")
    assign(params["weight_ih_l0"], "shape", (-1,))
    fastrnn.save(tmp_path / "layer", layer)
    assert {name: array.shape for name, array in safetensors.load_file(tmp_path / "layer").items()} == shapes
