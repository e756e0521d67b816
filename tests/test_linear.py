"""`Linear`: against NumPy in higher precision, PyTorch and the contract; invalid arguments."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

# Around the widths of vectors, panels and tiles, and of blocks of rows.
SHAPES = [
    *[(0, 3, 4), (1, 1, 1), (3, 5, 7), (5, 1, 33), (7, 33, 1), (14, 16, 16), (15, 17, 31)],
    *[(512, 8, 9), (513, 9, 8), (1300, 5, 40), (40_000, 2, 3)],
]


def drawn(rng, *shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def results(layer, x, d_y):
    """Everything that a training step computes, as bytes."""
    y, tape = layer.forward(x)
    d_x, d_params = layer.backward(tape, d_y)
    assert layer(x).tobytes() == y.tobytes()
    return [y.tobytes(), d_x.tobytes(), d_params.flat.tobytes()]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("N, I, O", SHAPES)
def test_equals_numpy_in_higher_precision(N, I, O, bias, dtype, isa):
    rng = np.random.default_rng(0)
    layer = fastrnn.Linear(I, O, bias, dtype=dtype, rng=0)
    x, d_y = drawn(rng, N, I, dtype=dtype), drawn(rng, N, O, dtype=dtype)
    weight = layer.params["weight"].astype(np.longdouble)
    y, tape = layer.forward(x)
    d_x, d_params = layer.backward(tape, d_y)
    eps = float(np.finfo(dtype).eps)
    expected = {
        "y": (y, x @ weight.T + (layer.params["bias"] if bias else 0), I + 1),
        "d_x": (d_x, d_y @ weight, O),
        "d_weight": (d_params["weight"], d_y.T @ x.astype(np.longdouble), 600),
    }
    if bias:
        expected["d_bias"] = (d_params["bias"], d_y.sum(axis=0, dtype=np.longdouble), 600)
    for name, (actual, exact, terms) in expected.items():
        # A running sum of so many terms, each of them at most about 5 * 5, or of blocks of 512 rows.
        bound = 25 * eps * terms * max(1, np.sqrt(N) / 30)
        np.testing.assert_allclose(actual, exact.astype(np.float64), rtol=0, atol=bound, err_msg=name)
        assert actual.dtype == dtype


def test_equals_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    theirs = torch.nn.Linear(9, 5, dtype=torch.float64)
    ours = fastrnn.Linear(9, 5, dtype=np.float64)
    ours.load_state_dict(theirs.state_dict())
    x, d_y = drawn(rng, 4, 6, 9), drawn(rng, 4, 6, 5)
    tensor = torch.from_numpy(x).requires_grad_()
    expected = theirs(tensor)
    expected.backward(torch.from_numpy(d_y))
    y, tape = ours.forward(x)
    d_x, d_params = ours.backward(tape, d_y)
    for actual, desired in [
        (y, expected.detach()),
        (d_x, tensor.grad),
        (d_params["weight"], theirs.weight.grad),
        (d_params["bias"], theirs.bias.grad),
    ]:
        np.testing.assert_allclose(actual, desired.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("N, I, O", [(1, 40, 70), (64, 128, 65), (1025, 33, 50), (3000, 100, 30)])
def test_bits_do_not_depend_on_threads_and_instruction_sets(N, I, O, dtype, threads, every_isa):
    rng = np.random.default_rng(1)
    layer = fastrnn.Linear(I, O, dtype=dtype, rng=0)
    x, d_y = drawn(rng, N, I, dtype=dtype), drawn(rng, N, O, dtype=dtype)
    found = set()
    for name in every_isa():
        if name != "generic":
            for count in (1, 2, 3):
                threads(count)
                found.add(tuple(results(layer, x, d_y)))
    assert len(found) <= 1


@given(N=st.integers(1, 40), cut=st.integers(0, 40), I=st.integers(1, 20), O=st.integers(1, 40))
def test_bits_do_not_depend_on_the_batch(N, cut, I, O):
    rng = np.random.default_rng(N)
    layer = fastrnn.Linear(I, O, rng=0)
    x, d_y = drawn(rng, N, I, dtype=np.float32), drawn(rng, N, O, dtype=np.float32)
    y, tape = layer.forward(x)
    d_x, _ = layer.backward(tape, d_y)
    for part in (slice(0, cut), slice(cut, N)):
        y_part, tape = layer.forward(x[part])
        d_x_part, _ = layer.backward(tape, d_y[part])
        assert y_part.tobytes() == y[part].tobytes() and d_x_part.tobytes() == d_x[part].tobytes()


def test_any_axes_strides_and_dtypes():
    rng = np.random.default_rng(0)
    layer = fastrnn.Linear(6, 3, rng=0)
    x = drawn(rng, 4, 5, 6)
    y = layer(x)
    assert y.shape == (4, 5, 3) and y.dtype == np.float32
    assert layer(x.astype(np.float32).transpose(1, 0, 2)).tobytes() == y.transpose(1, 0, 2).tobytes()
    assert layer(x[0, 0]).shape == (3,) and layer(x.tolist()).tobytes() == y.tobytes()
    assert layer(np.zeros((0, 2, 6))).shape == (0, 2, 3)


def test_gradients_are_those_of_the_forward_pass():
    """Parameters may change between forward and backward, x may not; a tape serves any number of times."""
    layer = fastrnn.Linear(3, 2, rng=0)
    x = np.ones((4, 3), np.float32)
    y, tape = layer.forward(x)
    expected = layer.backward(tape, y)
    layer.params.flat *= 2
    again = layer.backward(tape, y)
    assert expected[0].tobytes() == again[0].tobytes() and expected[1] == again[1]
    x[2, 1] = 5
    with pytest.raises(ValueError, match="^x: changed between forward and backward"):
        layer.backward(tape, y)


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(3)
    layer = fastrnn.Linear(4, 3, dtype=np.float64, rng=0)
    x, weights = drawn(rng, 6, 4), drawn(rng, 6, 3)
    _, tape = layer.forward(x)
    d_x, d_params = layer.backward(tape, weights)
    step = 1e-3
    for array, gradient in ((x, d_x), (layer.params.flat, d_params.flat)):
        for k in range(array.size):
            start = array.flat[k]
            sides = []
            for sign in (1, -1):
                array.flat[k] = start + sign * step
                sides.append(np.sum(weights * layer(x)))
            array.flat[k] = start
            np.testing.assert_allclose(gradient.flat[k], (sides[0] - sides[1]) / (2 * step), rtol=0, atol=1e-9)


def test_large_outputs_split_rows_and_panels(threads):
    """One row shares panels, many rows share rows; both have the bits of one thread."""
    rng = np.random.default_rng(0)
    layer = fastrnn.Linear(300, 1500, rng=0)
    x = drawn(rng, 60, 300, dtype=np.float32)
    threads(1)
    expected = layer(x)
    threads(2)
    assert layer(x).tobytes() == expected.tobytes()
    assert layer(x[:1]).tobytes() == expected[:1].tobytes()


LAYER = fastrnn.Linear(3, 2, rng=0)


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "in_features: expected at least 1", lambda: fastrnn.Linear(0, 3)),
        (TypeError, "out_features: expected an integer", lambda: fastrnn.Linear(3, 2.0)),
        (TypeError, "bias: expected True or False", lambda: fastrnn.Linear(3, 2, 1)),
        (TypeError, "dtype: expected float32 or float64", lambda: fastrnn.Linear(3, 2, dtype=int)),
        (TypeError, "rng: expected None, an int", lambda: fastrnn.Linear(3, 2, rng=True)),
        (ValueError, r"x: expected \(..., in_features=3\), got \(4, 2\)", lambda: LAYER(np.zeros((4, 2)))),
        (ValueError, r"x: expected \(..., in_features=3\), got \(\)", lambda: LAYER(1.0)),
        (TypeError, "x: cannot be cast from complex128", lambda: LAYER(np.zeros((4, 3), complex))),
        (TypeError, "seed: is called rng here", lambda: fastrnn.Linear(3, 2, seed=1)),
        (TypeError, "input: is called x here", lambda: LAYER(input=np.zeros((4, 3)))),
        (TypeError, "input: is called x here", lambda: LAYER.forward(input=np.zeros((4, 3)))),
        (
            TypeError,
            "weight: uint16, as of a quantized layer",
            lambda: LAYER.load_state_dict({"weight": np.zeros((2, 3), np.uint16), "bias": np.zeros(2)}),
        ),
        (TypeError, "tape: expected a fastrnn.linear.LinearTape", lambda: LAYER.backward(3, 4)),
        (TypeError, "mapping: expected a mapping", lambda: LAYER.load_state_dict([1])),
        (ValueError, "mapping: expected weight, bias, got weight", lambda: LAYER.load_state_dict({"weight": 1.0})),
    ],
)
def test_invalid_arguments(error, message, call):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_a_tape_is_no_copy_and_does_not_keep_its_layer():
    layer, other = fastrnn.Linear(3, 2, rng=0), fastrnn.Linear(3, 2, rng=0)
    y, tape = layer.forward(np.zeros((4, 3)))
    assert repr(tape) == "<LinearTape of Linear(3, 2)>"
    for copy_of in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="^a tape cannot be copied or pickled"):
            copy_of(tape)
    del layer
    assert repr(tape) == "<LinearTape of one that is gone>"
    with pytest.raises(ValueError, match="^tape: made by another layer, one that is gone"):
        other.backward(tape, y)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix, start", [("", ""), ("head", "head."), ("a.head.", "a.head.")])
def test_from_state_dict(bias, prefix, start, dtype):
    original = fastrnn.Linear(4, 3, bias, dtype=dtype, rng=0)
    model = {f"{start}{name}": array for name, array in original.state_dict().items()}
    model["another.weight"] = np.zeros(5)
    layer = fastrnn.Linear.from_state_dict(model, prefix)
    assert repr(layer) == repr(original) and layer.params == original.params
    model[f"{start}weight"][...] = 0
    assert layer.params == original.params


def test_from_a_state_dict_of_torch():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2, bias=False)).bfloat16()
    first, last = (fastrnn.Linear.from_state_dict(model.state_dict(), prefix) for prefix in ("0", "2"))
    assert repr(first) == "Linear(4, 3)" and repr(last) == "Linear(3, 2, bias=False)"
    assert np.array_equal(first.params["weight"], model[0].weight.detach().float().numpy())
    assert np.array_equal(first.params["bias"], model[0].bias.detach().float().numpy())


@pytest.mark.parametrize(
    "error, message, mapping, prefix",
    [
        (TypeError, "mapping: expected a mapping of names to arrays, got list$", [1], ""),
        (TypeError, "mapping: .* got Linear; give its state_dict", LAYER, ""),
        (TypeError, "prefix: expected a string, got 3", {}, 3),
        (ValueError, "mapping: weight: missing; prefixes found: none", {"bias": np.zeros(3)}, ""),
        (
            ValueError,
            "mapping: head.weight: missing; prefixes found: 'a.', 'b.'",
            {"a.weight": 1, "b.weight": 2},
            "head",
        ),
        (ValueError, "mapping: not of a Linear: a.scale", {"a.weight": np.ones((2, 3)), "a.scale": np.ones(2)}, "a"),
        (ValueError, r"a.weight: expected \(out_features, in_features\), got \(3,\)", {"a.weight": np.ones(3)}, "a"),
        (ValueError, r"bias: expected \(2,\), got \(3,\)", {"weight": np.ones((2, 3)), "bias": np.ones(3)}, ""),
        (TypeError, "a.weight: expected floating-point numbers, got int64", {"a.weight": np.ones((2, 3), int)}, "a"),
    ],
)
def test_state_dicts_that_are_not_of_a_linear(error, message, mapping, prefix):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.Linear.from_state_dict(mapping, prefix)


def test_gradients_that_do_not_fit():
    layer, other = fastrnn.Linear(3, 2, rng=0), fastrnn.Linear(3, 2, rng=0)
    _, tape = layer.forward(np.zeros((4, 5, 3)))
    with pytest.raises(ValueError, match=r"^d_y: expected .*out_features=2\), got \(4, 5, 3\)"):
        layer.backward(tape, np.zeros((4, 5, 3)))
    with pytest.raises(ValueError, match=r"^d_y: expected .*got \(20, 2\)"):
        layer.backward(tape, np.zeros((20, 2)))
    with pytest.raises(ValueError, match=r"^tape: made by another layer, Linear\(3, 2\)"):
        other.backward(tape, np.zeros((4, 5, 2)))
    with pytest.raises(ValueError, match=r"^weight: expected \(2, 3\), got \(3, 2\)"):
        layer.load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(2)})


def test_repr_and_attributes():
    layer = fastrnn.Linear(3, 2, False, dtype=np.float64)
    assert repr(layer) == "Linear(3, 2, bias=False, dtype=float64)"
    assert (layer.in_features, layer.out_features, layer.bias, layer.dtype) == (3, 2, False, np.float64)


def test_a_state_dict_in_the_memory_of_the_parameters():
    layer = fastrnn.Linear(2, 2, rng=0)
    flat = layer.params.flat
    flat[...] = np.arange(1, 7)
    layer.load_state_dict({"weight": flat[2:6].reshape(2, 2), "bias": flat[:2]})
    assert flat.tolist() == [3, 4, 5, 6, 1, 2]


def test_a_state_dict_that_cannot_be_cast_changes_nothing():
    layer = fastrnn.Linear(2, 2, rng=0)
    before = layer.params.flat.copy()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        layer.load_state_dict({"weight": np.ones((2, 2)), "bias": np.array([1e300, 0])})
    assert np.array_equal(layer.params.flat, before)


def test_a_constructor_that_is_called_again():
    """It changes nothing if it fails, and a call whose argument does it is refused."""
    layer = fastrnn.Linear(3, 2, rng=0)
    before = layer.params.flat.tobytes()
    with pytest.raises(TypeError, match="rng"):
        layer.__init__(3, 2, bias=False, rng="bad")
    assert layer.bias and layer.params.flat.tobytes() == before

    class Evil:
        def __array__(self, dtype=None, copy=None):
            layer.__init__(400_000, 8)
            return np.zeros((3, 3), np.float32)

    with pytest.raises(ValueError, match="x: expected"):
        layer(Evil())
