"""The arguments that fastrnn.functional and fastrnn.reference accept, and the errors for all others."""

import copy
import re
import warnings

import numpy as np
import pytest

from fastrnn import _core, functional, reference

T, B, I, H = 3, 2, 4, 5


@pytest.fixture(params=[functional, reference], ids=["functional", "reference"])
def module(request):
    return request.param


def good_arguments(dtype=np.float32):
    rng = np.random.default_rng(3)

    def draw(*shape):
        # Multiples of 1/8, so that a cast to float16 is exact.
        return (rng.integers(-8, 9, shape) / 8).astype(dtype)

    return {
        "x": draw(T, B, I),
        "state": (draw(B, H), draw(B, H)),
        "weight_ih": draw(4 * H, I),
        "weight_hh": draw(4 * H, H),
        "bias_ih": draw(4 * H),
        "bias_hh": draw(4 * H),
    }


def good_gradients(dtype=np.float32):
    rng = np.random.default_rng(4)
    shapes = (T, B, H), (B, H), (B, H)
    d_output, d_h_n, d_c_n = ((rng.integers(-8, 9, shape) / 8).astype(dtype) for shape in shapes)
    return {"d_output": d_output, "d_state_n": (d_h_n, d_c_n)}


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


class Unconvertible:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("cannot be an array")


def refused_as_arrays(name, shape):
    """Invalid values of every array argument: exception, start of the message, value."""
    cannot_cast = f"{name}: cannot be cast"
    return [
        (TypeError, cannot_cast, zeros(*shape, dtype=np.complex64)),
        (TypeError, cannot_cast, np.empty(shape, object)),
        (TypeError, cannot_cast, np.full(shape, "1.0")),
        (TypeError, cannot_cast, np.full(shape, b"1.0")),
        (TypeError, cannot_cast, np.full(shape, "2020-01-01", "datetime64[D]")),
        (TypeError, cannot_cast, np.zeros(shape, "timedelta64[s]")),
        (TypeError, cannot_cast, np.zeros(shape, [("a", "f4")])),
        (TypeError, cannot_cast, "text"),
        (TypeError, cannot_cast, {"a": 1}),
        (TypeError, f"{name}: not an array: cannot be an array", Unconvertible()),
        (ValueError, f"{name}: not an array", [[1.0], [1.0, 2.0]]),
    ]


def refused_as_weight_ih():
    name = "weight_ih: expected float32 or float64, got "
    return [
        (TypeError, name + "complex64", zeros(4 * H, I, dtype=np.complex64)),
        (TypeError, name + "float16", zeros(4 * H, I, dtype=np.float16)),
        (TypeError, name + "int64", zeros(4 * H, I, dtype=np.int64)),
        (TypeError, name + "bool", zeros(4 * H, I, dtype=bool)),
        (TypeError, "weight_ih: expected an array, got None", None),
        (TypeError, name + "object", np.empty((4 * H, I), object)),
        (TypeError, name + "datetime64", np.full((4 * H, I), "2020-01-01", "datetime64[D]")),
        (TypeError, name, "text"),
        (TypeError, "weight_ih: not an array: cannot be an array", Unconvertible()),
        (ValueError, "weight_ih: not an array", [[1.0], [1.0, 2.0]]),
        (ValueError, "weight_ih: expected (4*H, I), got ()", 1.0),
        (ValueError, "weight_ih: expected (4*H, I), got (20,)", zeros(20)),
        (ValueError, "weight_ih: expected (4*H, I), got (0, 4)", zeros(0, I)),
        (ValueError, "weight_ih: expected (4*H, I), got (21, 4)", zeros(21, I)),
        (ValueError, "weight_ih: expected (4*H, I), got (1, 20, 4)", zeros(1, 20, I)),
    ]


def refused_shapes(name, expected, *shapes):
    return [(ValueError, f"{name}: expected {expected}, got {shape}", zeros(*shape)) for shape in shapes]


def placed(rows, place):
    """Rows of (exception, message, arguments that differ from the valid ones)."""
    return [(exception, message, place(value)) for exception, message, value in rows]


# The first is valid for an initial state: one for all sequences.
BAD_STATES = (1, 5), (), (5,), (2, 1), (5, 2), (1, 2, 5)
REFUSED_ARGUMENTS = [
    *placed(refused_as_arrays("x", (T, B, I)), lambda v: {"x": v}),
    *placed(refused_as_weight_ih(), lambda v: {"weight_ih": v}),
    *placed(refused_as_arrays("weight_hh", (4 * H, H)), lambda v: {"weight_hh": v}),
    *placed(refused_as_arrays("bias_ih", (4 * H,)), lambda v: {"bias_ih": v}),
    *placed(refused_as_arrays("bias_hh", (4 * H,)), lambda v: {"bias_hh": v}),
    *placed(refused_as_arrays("state (h_0)", (B, H)), lambda v: {"state": (v, None)}),
    *placed(refused_as_arrays("state (c_0)", (B, H)), lambda v: {"state": (None, v)}),
    *placed(
        refused_shapes("x", "(T, B, I=4)", (), (4,), (T, I), (T, B, 5), (T, B, 0), (B, I, T), (1, T, B, I)),
        lambda v: {"x": v},
    ),
    *placed(
        refused_shapes("weight_hh", "(4*H=20, H=5)", (), (20,), (20, 4), (5, 20), (16, 4), (1, 20, 5)),
        lambda v: {"weight_hh": v},
    ),
    *placed(refused_shapes("bias_ih", "(4*H=20,)", (), (1,), (5,), (21,), (20, 1), (1, 20)), lambda v: {"bias_ih": v}),
    *placed(refused_shapes("bias_hh", "(4*H=20,)", (), (1,), (5,), (21,), (20, 1), (1, 20)), lambda v: {"bias_hh": v}),
    *placed(refused_shapes("state (h_0)", "(B=2, H=5)", *BAD_STATES[1:]), lambda v: {"state": (v, zeros(B, H))}),
    *placed(refused_shapes("state (c_0)", "(B=2, H=5)", *BAD_STATES[1:]), lambda v: {"state": (zeros(B, H), v)}),
    (TypeError, "x: expected an array, got None", {"x": None}),
    (TypeError, "weight_hh: expected an array, got None", {"weight_hh": None}),
    (TypeError, "state: expected a tuple (h_0, c_0), got ndarray", {"state": zeros(2, B, H)}),
    (TypeError, "state: expected a tuple (h_0, c_0), got int", {"state": 0}),
    (TypeError, "state: expected a tuple (h_0, c_0), got str", {"state": "hc"}),
    (ValueError, "state: expected a tuple (h_0, c_0), got 0 items", {"state": ()}),
    (ValueError, "state: expected a tuple (h_0, c_0), got 1 items", {"state": [zeros(B, H)]}),
    (ValueError, "state: expected a tuple (h_0, c_0), got 3 items", {"state": (zeros(B, H),) * 3}),
    # x itself can be addressed, the gates cannot.
    *placed(
        [
            (ValueError, "x: too large", np.empty((2**30, 2**30, 0), np.float32)),
            (ValueError, "x: too large", np.broadcast_to(np.float32(0), (2**30, 2**30, 1))),
            (ValueError, "x: too large", np.empty((2**58, 0, I), np.float32)),
            (ValueError, "x: too large", np.empty((0, 2**58, I), np.float32)),
        ],
        lambda v: {"x": v, "state": None, "weight_ih": zeros(4 * H, v.shape[2])},
    ),
]
REFUSED_GRADIENTS = [
    *placed(refused_as_arrays("d_output", (T, B, H)), lambda v: {"d_output": v}),
    *placed(refused_as_arrays("d_state_n (d_h_n)", (B, H)), lambda v: {"d_state_n": (v, None)}),
    *placed(refused_as_arrays("d_state_n (d_c_n)", (B, H)), lambda v: {"d_state_n": (None, v)}),
    *placed(
        refused_shapes("d_output", "(T=3, B=2, H=5)", (), (5,), (B, H), (T, B, 1), (B, T, H), (1, T, B, H)),
        lambda v: {"d_output": v},
    ),
    *placed(refused_shapes("d_state_n (d_h_n)", "(B=2, H=5)", *BAD_STATES), lambda v: {"d_state_n": (v, None)}),
    *placed(refused_shapes("d_state_n (d_c_n)", "(B=2, H=5)", *BAD_STATES), lambda v: {"d_state_n": (None, v)}),
    (TypeError, "d_state_n: expected a tuple (d_h_n, d_c_n), got ndarray", {"d_state_n": zeros(2, B, H)}),
    (ValueError, "d_state_n: expected a tuple (d_h_n, d_c_n), got 1 items", {"d_state_n": (zeros(B, H),)}),
]


def flattened(arguments):
    for value in arguments.values():
        yield from value if isinstance(value, (tuple, list)) else (value,)


def snapshot(arguments):
    """All properties of the argument arrays that a call might change."""
    return [
        (value.shape, value.strides, value.dtype, value.flags.writeable, value.tobytes())
        for value in flattened(arguments)
        if isinstance(value, np.ndarray) and value.size < 1000
    ]


@pytest.mark.parametrize("function", ["lstm", "lstm_forward"])
def test_refused_arguments(module, function):
    for exception, message, changed in REFUSED_ARGUMENTS:
        arguments = good_arguments() | changed
        before = snapshot(arguments)
        with pytest.raises(exception, match="^" + re.escape(message)):
            getattr(module, function)(**arguments)
        assert snapshot(arguments) == before, message


def test_options_that_equal_earlier_ones_are_checked_too(module):
    x, weights = zeros(T, B, I), (zeros(3 * H, I), zeros(3 * H, H))
    expected, _ = module.gru(x, None, *weights, reset_after=True, clip=1.0)
    output, _ = module.gru(x, None, *weights, reset_after=np.bool_(True), clip=float("1"), reverse=np.bool_(False))
    assert output.tobytes() == expected.tobytes()
    for name in ("reset_after", "reverse"):
        with pytest.raises(TypeError, match=f"^{name}: expected True or False, got 1"):
            module.gru(x, None, *weights, **{name: 1})
    with pytest.raises(TypeError, match="^clip: expected None or a positive number, got True"):
        module.gru(x, None, *weights, clip=True)


def test_refused_gradients(module):
    *_, tape = module.lstm_forward(**good_arguments())
    expected = gradient_bytes(module.lstm_backward(tape, **good_gradients()))
    for exception, message, changed in REFUSED_GRADIENTS:
        arguments = good_gradients() | changed
        before = snapshot(arguments)
        with pytest.raises(exception, match="^" + re.escape(message)):
            module.lstm_backward(tape, **arguments)
        assert snapshot(arguments) == before, message
    assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == expected


def test_refused_tapes(module):
    other = reference if module is functional else functional
    *_, foreign = other.lstm_forward(**good_arguments())
    for tape in (None, 1, object(), (), foreign):
        with pytest.raises(TypeError, match=r"^tape: expected a fastrnn\.\w+\.LSTMTape, got a "):
            module.lstm_backward(tape, **good_gradients())


def test_missing_and_unknown_arguments(module):
    good = good_arguments()
    for name in ("x", "state", "weight_ih", "weight_hh"):
        with pytest.raises(TypeError, match=name):
            module.lstm(**{key: value for key, value in good.items() if key != name})
    with pytest.raises(TypeError, match="length"):
        module.lstm(**good, length=[1, 2])


def result_bytes(result):
    output, (h_n, c_n) = result[:2]
    assert all(type(array) is np.ndarray for array in (output, h_n, c_n))
    return [array.tobytes() for array in (output, h_n, c_n)]


def gradient_bytes(result):
    d_x, d_state, d_params = result
    return [array.tobytes() for array in (d_x, *d_state, *d_params.values())]


def reversed_strides(array):
    return array[::-1].copy()[::-1] if array.ndim else array


def every_other(array):
    spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    spread[..., ::2] = array
    return spread[..., ::2]


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder())


def matrix(array):
    if array.ndim != 2:
        return array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(array)


class Subclass(np.ndarray):
    def __array_finalize__(self, other):
        pass


class Convertible:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": reversed_strides,
    "every_other": every_other,
    "transposed": lambda array: array.T.copy().T,
    "unaligned": unaligned,
    "read_only": read_only,
    "byte_swapped": byte_swapped,
    "unaligned_byte_swapped": lambda array: unaligned(byte_swapped(array)),
    "subclass": lambda array: array.view(Subclass),
    "masked": lambda array: np.ma.masked_array(array, mask=array > 0),
    "matrix": matrix,
    "with_metadata": lambda array: array.astype(np.dtype(array.dtype, metadata={"unit": "mV"})),
    "convertible": Convertible,
    "memoryview": memoryview,
}
PRECISIONS = {
    "list": lambda array: array.tolist(),
    "float16": lambda array: array.astype(np.float16),
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array.astype(np.float64),
    "longdouble": lambda array: array.astype(np.longdouble),
}


def converted(arguments, convert, keep=()):
    """The arguments, each array (of a tuple, too) converted."""
    return {
        name: value
        if name in keep
        else tuple(convert(v) for v in value)
        if isinstance(value, tuple)
        else convert(value)
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("convert", [*LAYOUTS.values(), *PRECISIONS.values()], ids=[*LAYOUTS, *PRECISIONS])
def test_any_layout_gives_the_same_bytes(module, convert, dtype):
    keep = ("weight_ih",) if convert in PRECISIONS.values() else ()
    good, gradients = good_arguments(dtype), good_gradients(dtype)
    *expected, expected_tape = module.lstm_forward(**good)

    arguments = converted(good, convert, keep)
    before = snapshot(arguments)
    assert result_bytes(module.lstm(**arguments)) == result_bytes(expected)
    *actual, tape = module.lstm_forward(**arguments)
    assert result_bytes(actual) == result_bytes(expected)
    d_arguments = converted(gradients, convert)
    d_before = snapshot(d_arguments)
    for _ in range(2):
        assert gradient_bytes(module.lstm_backward(tape, **d_arguments)) == gradient_bytes(
            module.lstm_backward(expected_tape, **gradients)
        )
    assert snapshot(arguments) == before and snapshot(d_arguments) == d_before


def checked(kernel, fields, seen):
    """A function of fastrnn._core with checks of the layout of the arrays of its calls."""

    def call(calls, *others):
        for one in calls:
            values = [getattr(one, field) for field in fields]
            for array in [a for value in values for a in (value if isinstance(value, (list, tuple)) else [value])]:
                if array is not None:
                    assert type(array) is np.ndarray and array.dtype.isnative
                    assert array.flags.c_contiguous and array.flags.aligned
                    seen.append(array)
        return kernel(calls, *others)

    return call


@pytest.mark.parametrize("convert", LAYOUTS.values(), ids=LAYOUTS)
def test_a_kernel_is_given_plain_arrays(convert, monkeypatch):
    seen = []
    forward = checked(_core.forward, ("x", "state_0", "state_n", "output", "saved"), seen)
    monkeypatch.setattr(_core, "forward", forward)
    fields = "x", "state_0", "saved", "d_output", "d_state_n", "d_x", "d_state_0", "d_weights"
    monkeypatch.setattr(_core, "backward", checked(_core.backward, fields, seen))
    arguments = converted(good_arguments(), convert)
    functional.lstm(**arguments)
    *_, tape = functional.lstm_forward(**arguments)
    d_x, _, _ = functional.lstm_backward(tape, **converted(good_gradients(), convert))
    assert d_x.any() and len(seen) > 20


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, bool])
def test_integers_and_bools_are_cast(module, kind):
    good = good_arguments()
    x = (np.arange(T * B * I).reshape(T, B, I) % 2).astype(kind)
    expected = module.lstm(**good | {"x": x.astype(np.float32)})
    assert result_bytes(module.lstm(**good | {"x": x})) == result_bytes(expected)


def test_one_value_broadcast_over_everything(module):
    good = good_arguments()
    one = np.broadcast_to(np.float32(0.5), (T, B, I))
    expected = module.lstm(**good | {"x": one.copy()})
    assert result_bytes(module.lstm(**good | {"x": one})) == result_bytes(expected)


def test_the_weights_decide_the_dtype(module):
    for dtype in (np.float32, np.float64):
        good = good_arguments(np.float64)
        good["weight_ih"] = good["weight_ih"].astype(dtype)
        output, state_n, tape = module.lstm_forward(**good)
        d_x, d_state, d_params = module.lstm_backward(tape, output)
        returned = [output, *state_n, d_x, *d_state, *d_params.values()]
        assert {array.dtype for array in returned} == {np.dtype(dtype)}


def test_what_is_returned_is_the_callers_alone(module):
    good = good_arguments()
    output, (h_n, c_n), tape = module.lstm_forward(**good)
    expected = gradient_bytes(module.lstm_backward(tape, **good_gradients()))
    for array in (output, h_n, c_n, *good["state"]):
        array[...] = np.nan
    d_x, d_state, d_params = module.lstm_backward(tape, **good_gradients())
    assert gradient_bytes((d_x, d_state, d_params)) == expected
    for array in (d_x, *d_state, *d_params.values()):
        array[...] = np.nan
    assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == expected
    d_biases = [d_params["bias_ih"], d_params["bias_hh"]]
    assert not np.shares_memory(*d_biases)


def test_the_weights_may_change_before_backward(module):
    good = good_arguments()
    *_, tape = module.lstm_forward(**good)
    expected = gradient_bytes(module.lstm_backward(tape, **good_gradients()))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        good[name] += 1
    assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == expected


@pytest.mark.parametrize("share", [lambda x: x, Convertible, memoryview, lambda x: x.view(Subclass)])
def test_a_changed_x_is_noticed(share):
    good = good_arguments()
    x = good["x"]
    *_, tape = functional.lstm_forward(**good | {"x": share(x)})
    expected = gradient_bytes(functional.lstm_backward(tape, **good_gradients()))
    for index in ((0, 0, 0), (T - 1, B - 1, I - 1), (1, 0, 2)):
        kept = x[index]
        x[index] = np.nextafter(kept, np.float32(np.inf))
        with pytest.raises(ValueError, match="^x: changed between forward and backward"):
            functional.lstm_backward(tape, **good_gradients())
        x[index] = kept
        assert gradient_bytes(functional.lstm_backward(tape, **good_gradients())) == expected


@pytest.mark.parametrize("steps", [1, 2])
def test_a_changed_x_read_from_its_end_is_noticed_or_does_not_matter(steps):
    good = good_arguments()
    x = good["x"] = good["x"][:steps].copy()
    gradients = good_gradients() | {"d_output": good_gradients()["d_output"][:steps]}
    *_, tape = functional.lstm_forward(**good, reverse=True)
    expected = gradient_bytes(functional.lstm_backward(tape, **gradients))
    x += 1
    try:
        changed = gradient_bytes(functional.lstm_backward(tape, **gradients))
    except ValueError as error:
        assert str(error) == "x: changed between forward and backward"
    else:
        assert changed == expected


def test_a_copied_x_may_change(module):
    for convert in (byte_swapped, np.asfortranarray, lambda array: array.astype(np.float64)):
        good = good_arguments()
        good["x"] = convert(good["x"])
        *_, tape = module.lstm_forward(**good)
        expected = gradient_bytes(module.lstm_backward(tape, **good_gradients()))
        good["x"][...] = np.nan
        assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == expected


def test_an_x_of_nan_is_not_taken_for_changed(module):
    good = good_arguments()
    good["x"][0, 0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        *_, tape = module.lstm_forward(**good)
        d_x, _, _ = module.lstm_backward(tape, **good_gradients())
    assert np.isnan(d_x[:, 0]).any() and np.isfinite(d_x[:, 1]).all()


def test_a_new_shape_of_the_callers_array_does_not_matter(module):
    good = good_arguments()
    *_, tape = module.lstm_forward(**good)
    expected = gradient_bytes(module.lstm_backward(tape, **good_gradients()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        good["x"].shape = (I, B, T)
    assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == expected


def test_one_output_may_be_the_next_input(module):
    good = good_arguments() | {"weight_ih": good_arguments()["weight_hh"]}
    first, state_n, _ = module.lstm_forward(**good_arguments())
    *_, tape = module.lstm_forward(**good | {"x": first, "state": state_n})
    *_, expected = module.lstm_forward(**copy.deepcopy(good | {"x": first, "state": state_n}))
    for array in state_n:
        array[...] = np.nan
    assert gradient_bytes(module.lstm_backward(tape, **good_gradients())) == gradient_bytes(
        module.lstm_backward(expected, **good_gradients())
    )


def test_the_same_array_in_several_places(module):
    """x, both states and both weights in one memory; it is only read."""
    square = np.linspace(-1, 1, 4 * 16 * 2, dtype=np.float32).reshape(-1)
    H = I = 2
    weight = square[: 4 * H * I].reshape(4 * H, I)
    x = square[: 3 * 2 * I].reshape(3, 2, I)
    state = square[: 2 * H].reshape(2, H)
    output, _, tape = module.lstm_forward(x, (state, state), weight, weight, weight[:, 0], weight[:, 1])
    expected = module.lstm(
        x.copy(), (state.copy(), state.copy()), weight.copy(), weight.copy(), weight[:, 0].copy(), weight[:, 1].copy()
    )
    assert output.tobytes() == expected[0].tobytes()
    d_x, _, _ = module.lstm_backward(tape, output, (state, state))
    assert not np.shares_memory(d_x, square)


def test_the_repr_of_a_tape_tells_its_sizes(module):
    *_, tape = module.lstm_forward(**good_arguments(np.float64))
    assert re.fullmatch(r"<\w+\.LSTMTape T=3 B=2 I=4 H=5 float64>", repr(tape))
    with pytest.raises(AttributeError):
        tape.anything = 1
