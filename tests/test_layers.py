"""fastrnn.LSTM: its call forms, the guarantees for tapes and parameters, and the refused arguments."""

import copy
import gc
import pickle
import re
import tracemalloc
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import functional
from fastrnn._engine.pool import POOL

T, B, I, H, L = 4, 3, 5, 6, 2


def draw(*shape, dtype=np.float32, seed=5):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def draw_state(*shape, dtype=np.float32):
    return draw(*shape, dtype=dtype, seed=6), draw(*shape, dtype=dtype, seed=7)


def flattened(values):
    """All arrays in nested tuples, lists and mappings, in order."""
    if isinstance(values, np.ndarray):
        return [values]
    if isinstance(values, fastrnn.Parameters):
        return [values.flat]
    if isinstance(values, dict):
        values = values.values()
    return [array for value in values for array in flattened(value)]


def assert_same_bytes(actual, expected):
    for a, b in zip(flattened(actual), flattened(expected), strict=True):
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def everything(layer, x, state=None, d_seed=8):
    """All results of forward and backward except the tape."""
    output, state_n, tape = layer.forward(x, state)
    d_output = draw(*output.shape, dtype=layer.dtype, seed=d_seed)
    d_state_n = draw_state(*state_n[0].shape, dtype=layer.dtype)
    return output, state_n, layer.backward(tape, d_output, d_state_n)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def layer(request):
    return fastrnn.LSTM(I, H, L, dtype=request.param, rng=1)


# Call forms


@pytest.mark.parametrize(
    ("batch_first", "x_shape", "state_shape"),
    [
        (False, (T, B), (L, B, H)),
        (True, (B, T), (L, B, H)),
        (False, (T,), (L, H)),
        (True, (T,), (L, H)),
        (False, (1, 1), (L, 1, H)),
        (True, (1, 1), (L, 1, H)),
        (False, (0, B), (L, B, H)),
        (True, (B, 0), (L, B, H)),
        (False, (T, 0), (L, 0, H)),
        (True, (0, T), (L, 0, H)),
        (False, (0,), (L, H)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_of_everything_returned(batch_first, x_shape, state_shape, dtype):
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, dtype=dtype, rng=1)
    x = draw(*x_shape, I)
    for state in (None, draw_state(*state_shape), (None, draw(*state_shape)), [draw(*state_shape), None]):
        inferred = layer(x, state)
        output, state_n, (d_x, d_state, d_params) = everything(layer, x, state)
        assert_same_bytes(inferred, (output, state_n))
        assert output.shape == (*x_shape, H)
        assert d_x.shape == (*x_shape, I)
        assert type(state_n) is tuple and type(d_state) is tuple
        for array in (*state_n, *d_state):
            assert array.shape == state_shape
        assert list(d_params) == list(layer.params)
        assert {array.dtype for array in flattened((output, state_n, d_x, d_state, d_params))} == {np.dtype(dtype)}


def test_two_layers_equal_chained_functional_calls(layer):
    x, (h_0, c_0) = draw(T, B, I, dtype=layer.dtype), draw_state(L, B, H, dtype=layer.dtype)
    weights = list(layer.params.values())
    below, (h_below, c_below), tape_below = functional.lstm_forward(x, (h_0[0], c_0[0]), *weights[:4])
    above, (h_above, c_above), tape_above = functional.lstm_forward(below, (h_0[1], c_0[1]), *weights[4:])

    output, (h_n, c_n), tape = layer.forward(x, (h_0, c_0))
    assert_same_bytes((output, h_n, c_n), (above, np.stack([h_below, h_above]), np.stack([c_below, c_above])))

    d_output, (d_h_n, d_c_n) = draw(T, B, H, dtype=layer.dtype, seed=8), draw_state(L, B, H, dtype=layer.dtype)
    d_below, d_state_above, d_params_above = functional.lstm_backward(tape_above, d_output, (d_h_n[1], d_c_n[1]))
    d_x_expected, d_state_below, d_params_below = functional.lstm_backward(tape_below, d_below, (d_h_n[0], d_c_n[0]))
    d_x, d_state, d_params = layer.backward(tape, d_output, (d_h_n, d_c_n))
    assert_same_bytes(d_x, d_x_expected)
    for actual, *pair in zip(d_state, d_state_below, d_state_above, strict=True):
        assert_same_bytes(actual, np.stack(pair))
    assert_same_bytes(dict(d_params), [d_params_below, d_params_above])


@pytest.mark.parametrize("bias", [True, False])
def test_batch_first_swaps_the_axes_and_nothing_else(bias):
    plain = fastrnn.LSTM(I, H, L, bias=bias, rng=1)
    batch_first = fastrnn.LSTM(I, H, L, bias=bias, batch_first=True, rng=1)
    x, state = draw(T, B, I), draw_state(L, B, H)
    d_output, d_state_n = draw(T, B, H, seed=8), draw_state(L, B, H)

    output, state_n, tape = plain.forward(x, state)
    d_x, d_state, d_params = plain.backward(tape, d_output, d_state_n)
    swapped, state_n_swapped, tape = batch_first.forward(x.swapaxes(0, 1), state)
    d_x_swapped, d_state_swapped, d_params_swapped = batch_first.backward(tape, d_output.swapaxes(0, 1), d_state_n)

    assert_same_bytes((swapped.swapaxes(0, 1), d_x_swapped.swapaxes(0, 1)), (output, d_x))
    assert_same_bytes((state_n_swapped, d_state_swapped, d_params_swapped), (state_n, d_state, d_params))
    # Contiguous in the layer's own axes, too.
    assert_same_bytes(batch_first(x.swapaxes(0, 1).copy(), state)[0], swapped)


@pytest.mark.parametrize("batch_first", [True, False])
def test_unbatched_equals_a_batch_of_one(batch_first):
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, rng=1)
    axis = 0 if batch_first else 1
    x, (h_0, c_0) = draw(T, I), draw_state(L, H)
    output, state_n, (d_x, d_state, d_params) = everything(layer, x, (h_0, c_0))
    batched = everything(layer, np.expand_dims(x, axis), (h_0[:, None], c_0[:, None]))
    expected, expected_state_n, (expected_d_x, expected_d_state, expected_d_params) = batched
    assert_same_bytes((output, d_x), (expected.squeeze(axis), expected_d_x.squeeze(axis)))
    assert_same_bytes((state_n, d_state), [a.squeeze(1) for a in (*expected_state_n, *expected_d_state)])
    assert_same_bytes(d_params, expected_d_params)


def test_a_sequence_does_not_depend_on_its_batch(layer):
    x, (h_0, c_0) = draw(T, B, I), draw_state(L, B, H)
    output, (h_n, c_n) = layer(x, (h_0, c_0))
    for b in range(B):
        alone = layer(x[:, b], (h_0[:, b], c_0[:, b]))
        assert_same_bytes(alone, (output[:, b], h_n[:, b], c_n[:, b]))


@pytest.mark.parametrize("cut", range(T + 1))
def test_a_sequence_may_be_cut_in_time(layer, cut):
    x, state = draw(T, B, I), draw_state(L, B, H)
    whole, state_n = layer(x, state)
    first, between = layer(x[:cut], state)
    second, end = layer(x[cut:], between)
    assert_same_bytes((np.concatenate([first, second]), end), (whole, state_n))


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.astype(np.float64),
        lambda a: a.tolist(),
        lambda a: np.ma.masked_array(a, mask=a > 0),
        memoryview,
    ],
    ids=["fortran", "reversed", "every_other", "byte_swapped", "float64", "list", "masked", "memoryview"],
)
@pytest.mark.parametrize("batch_first", [True, False])
def test_any_layout_gives_the_same_bytes(convert, batch_first):
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, rng=1)
    x, state = draw(T, B, I), draw_state(L, T if batch_first else B, H)
    d_output, d_state_n = draw(T, B, H, seed=8), draw_state(*state[0].shape)
    output, state_n, tape = layer.forward(x, state)
    expected = layer.backward(tape, d_output, d_state_n)
    converted = convert(x), tuple(map(convert, state))
    *actual, tape = layer.forward(*converted)
    assert_same_bytes(actual, (output, state_n))
    assert_same_bytes(layer(*converted), (output, state_n))
    assert_same_bytes(layer.backward(tape, convert(d_output), tuple(map(convert, d_state_n))), expected)


def test_read_only_input(layer):
    x, state = draw(T, B, I, dtype=layer.dtype), draw_state(L, B, H, dtype=layer.dtype)
    expected = everything(layer, x, state)
    for array in (x, *state, layer.params.flat, *layer.params.values()):
        array.flags.writeable = False
    assert_same_bytes(everything(layer, x, state), expected)


@pytest.mark.parametrize("num_layers", [6, 20])
@pytest.mark.parametrize("lengths", [None, [3000, 1500, 0, 2900]], ids=["padded", "ragged"])
def test_inference_of_a_long_stack_keeps_little_beside_its_output(monkeypatch, num_layers, lengths):
    layer = fastrnn.LSTM(16, 16, num_layers=num_layers, rng=1)
    x, state = draw(3000, 4, 16), draw_state(num_layers, 4, 16)
    expected = layer(x, state, lengths)
    monkeypatch.setattr(fastrnn._engine.stack, "MOST_OUTPUT_BYTES", 200_000)
    layer(x[:1])
    gc.collect()
    POOL.clear()  # the memory of earlier results is not traced
    tracemalloc.start()
    try:
        actual = layer(x, state, lengths)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same_bytes(actual, expected)
    arrays = 1 if lengths is None else 3  # the rows of x and of the output, too
    assert expected[0].nbytes <= peak < arrays * expected[0].nbytes + 400_000


# Tapes


def test_tapes_are_independent(layer):
    inputs = [draw(T, B, I, seed=seed) for seed in (1, 2, 3)]
    one_by_one = [everything(layer, x)[2] for x in inputs]
    tapes = [layer.forward(x)[2] for x in inputs]
    gradients = draw(T, B, H, dtype=layer.dtype, seed=8), draw_state(L, B, H, dtype=layer.dtype)
    for k in (1, 0, 2):
        assert_same_bytes(layer.backward(tapes[k], *gradients), one_by_one[k])


def test_backward_may_be_repeated_and_accumulates_nothing(layer):
    *_, tape = layer.forward(draw(T, B, I), draw_state(L, B, H))
    d_output = draw(T, B, H)
    first = layer.backward(tape, d_output)
    kept = copy.deepcopy(first)
    layer.backward(tape, 2 * d_output)
    second = layer.backward(tape, d_output)
    assert_same_bytes(second, kept)
    for a, b in zip(flattened(first), flattened(second), strict=True):
        assert not np.shares_memory(a, b)
        a[...] = np.nan
    assert_same_bytes(layer.backward(tape, d_output), kept)


def test_no_gradient_means_zeros(layer):
    *_, tape = layer.forward(draw(T, B, I), draw_state(L, B, H))
    for nothing in ((), (None, None), (None, (None, None))):
        with pytest.raises(ValueError, match="^d_output, d_state_n: neither is given.*; give one or both$"):
            layer.backward(tape, *nothing)
    zero = np.zeros((L, B, H))
    d_h_n = draw(L, B, H)
    assert_same_bytes(
        layer.backward(tape, None, (d_h_n, None)), layer.backward(tape, np.zeros((T, B, H)), (d_h_n, zero))
    )


def test_backward_takes_the_weights_as_they_were(layer):
    x = draw(T, B, I)
    expected = everything(layer, x)[2]
    *_, tape = layer.forward(x)
    for array in layer.params.values():
        array *= 1.5
    layer.load_state_dict({name: array + 1 for name, array in layer.params.items()})
    gradients = draw(T, B, H, dtype=layer.dtype, seed=8), draw_state(L, B, H, dtype=layer.dtype)
    assert_same_bytes(layer.backward(tape, *gradients), expected)
    *_, after = layer.forward(x)
    assert layer.backward(after, *gradients)[2] != expected[2]


@pytest.mark.parametrize("sizes", [(300, 500), (3, 2), (1, 4), (3, 4, 2)])
def test_a_tape_of_a_layer_that_was_constructed_anew(sizes):
    """Its gradients have the sizes of the weights of then."""
    layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((5, 2, 3), np.float32)
    output, _, tape = layer.forward(x)
    layer.__init__(*sizes, rng=0)
    with pytest.raises(ValueError, match="tape: made before the layer was constructed again"):
        layer.backward(tape, output)
    cell = fastrnn.GRUCell(3, 4, rng=0)
    h, tape = cell.forward(x[0])
    cell.__init__(*sizes[:2], rng=0)
    with pytest.raises(ValueError, match="tape: made before the cell was constructed again"):
        cell.backward(tape, h)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_changed_x_is_noticed(batch_first):
    # A batch of one, so that x is read in place with batch_first, too.
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, rng=1)
    x = draw(1, T, I) if batch_first else draw(T, 1, I)
    output, _, tape = layer.forward(x)
    expected = layer.backward(tape, output)
    kept = x[0, 0, 0]
    x[0, 0, 0] += 1
    with pytest.raises(ValueError, match="^x: changed between forward and backward"):
        layer.backward(tape, output)
    x[0, 0, 0] = kept
    assert_same_bytes(layer.backward(tape, output), expected)


def test_what_is_returned_is_the_callers_alone(layer):
    x, state = draw(T, B, I, dtype=layer.dtype), draw_state(L, B, H, dtype=layer.dtype)
    output, state_n, tape = layer.forward(x, state)
    d_output = draw(T, B, H)
    expected = copy.deepcopy(layer.backward(tape, d_output))
    inferred = layer(x, state)
    kept = copy.deepcopy(inferred)
    for array in flattened((output, state_n, state, layer.backward(tape, d_output))):
        array[...] = np.nan
    assert_same_bytes(layer.backward(tape, d_output), expected)
    assert_same_bytes(inferred, kept)
    assert np.isfinite(layer.params.flat).all()


def test_refused_tapes(layer):
    x = draw(T, B, I)
    output, _, tape = layer.forward(x)
    *_, functional_tape = functional.lstm_forward(x, None, *list(layer.params.values())[:4])
    for other in (None, 1, object(), output, functional_tape, (tape,)):
        with pytest.raises(TypeError, match=r"^tape: expected a fastrnn\.layers\.LayerTape, got a "):
            layer.backward(other, output)
    twin = copy.deepcopy(layer)
    with pytest.raises(ValueError, match=r"^tape: made by another layer, LSTM\(5, 6, num_layers=2"):
        twin.backward(tape, output)
    assert repr(tape).startswith("<LayerTape T=4 B=3 of LSTM(5, 6, num_layers=2")


def test_a_tape_does_not_keep_its_layer_alive():
    layer = fastrnn.LSTM(I, H, rng=1)
    *_, tape = layer.forward(draw(T, B, I))
    other = fastrnn.LSTM(I, H, rng=1)
    del layer
    gc.collect()
    with pytest.raises(ValueError, match="^tape: made by another layer"):
        other.backward(tape, np.zeros((T, B, H)))
    assert repr(tape).endswith("of one that is gone>")


# Refused calls


@pytest.mark.parametrize(
    ("batch_first", "x", "state", "exception", "message"),
    [
        (False, (T, B, I + 1), None, ValueError, "x: expected (T, B, input_size=5), got (4, 3, 6)"),
        (True, (B, T, I + 1), None, ValueError, "x: expected (B, T, input_size=5), got (3, 4, 6)"),
        (False, (T, I + 1), None, ValueError, "x: expected (T, input_size=5), got (4, 6)"),
        (False, (I,), None, ValueError, "x: expected (T, B, input_size=5) or (T, input_size=5), got (5,)"),
        (True, (), None, ValueError, "x: expected (B, T, input_size=5) or (T, input_size=5), got ()"),
        (False, (1, T, B, I), None, ValueError, "x: expected (T, B, input_size=5) or (T, input_size=5), got (1, 4"),
        (False, None, None, TypeError, "x: expected an array, got None"),
        (False, (T, B, I), ((L, 2, H), None), ValueError, "state (h_0): expected (num_layers=2, B=3, hidden_size=6), "),
        (False, (T, B, I), (None, (1, B, H)), ValueError, "state (c_0): expected (num_layers=2, B=3, hidden_size=6), "),
        (False, (T, B, I), ((B, H), None), ValueError, "state (h_0): expected (num_layers=2, B=3, hidden_size=6), "),
        (True, (B, T, I), ((L, T, H), None), ValueError, "state (h_0): expected (num_layers=2, B=3, hidden_size=6), "),
        (True, (B, T, I), (None, (B, L, H)), ValueError, "state (c_0): expected (num_layers=2, B=3, hidden_size=6), "),
        (False, (T, I), ((L, 1, H), None), ValueError, "state (h_0): expected (num_layers=2, hidden_size=6), got (2"),
        (False, (T, B, I), ((L, B, H),), ValueError, "state: expected a tuple (h_0, c_0), got 1 items"),
    ],
)
def test_refused_x_and_state(batch_first, x, state, exception, message):
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, rng=1)
    x = None if x is None else np.zeros(x)
    state = None if state is None else tuple(None if shape is None else np.zeros(shape) for shape in state)
    for call in (layer, layer.forward):
        with pytest.raises(exception, match="^" + re.escape(message)):
            call(x, state)


@pytest.mark.parametrize("gru", [fastrnn.GRU(I, H, rng=1), fastrnn.GRUCell(I, H, rng=1)])
def test_the_state_of_an_lstm_given_to_a_gru(gru):
    x = np.zeros((1, B, I)) if isinstance(gru, fastrnn.GRU) else np.zeros((B, I))
    for state in ((np.zeros((1, B, H)), None), [None, None]):
        with pytest.raises(TypeError, match=f"^state: expected one array, got a {type(state).__name__} of length"):
            gru(x, state)
    with pytest.raises(TypeError, match="^state: expected one array, got a tuple of length 2"):
        functional.gru(np.zeros((1, B, I)), (None, None), np.zeros((3 * H, I)), np.zeros((3 * H, H)))


def test_a_shape_assigned_to_a_parameter_changes_no_result(layer):
    x = np.ones((T, B, I))
    expected, state_dict = layer(x)[0].tobytes(), copy.deepcopy(layer).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        layer.params["weight_ih_l0"].shape = (-1,)
        layer.params.flat.shape = (1, -1)
    for one in (layer, copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert one(x)[0].tobytes() == expected
    layer.load_state_dict(state_dict)
    assert layer(x)[0].tobytes() == expected


def test_representation_of_a_stream():
    layer = fastrnn.GRU(I, H, rng=1)
    assert repr(layer.stream()) == f"<Stream of GRU({I}, {H})>"
    assert repr(layer.stream(batch_size=3)) == f"<Stream B=3 of GRU({I}, {H})>"


def test_refused_kinds(layer):
    x = np.zeros((T, B, I))
    for call in (layer, layer.forward):
        with pytest.raises(TypeError, match="^x: cannot be cast from complex128"):
            call(x + 0j)
        with pytest.raises(TypeError, match=r"^state: expected a tuple \(h_0, c_0\), got ndarray"):
            call(x, np.zeros((2, L, B, H)))
        with pytest.raises(TypeError, match=r"^state \(c_0\): cannot be cast from object"):
            call(x, (None, np.full((L, B, H), None)))
        with pytest.raises(TypeError, match="^lengths: expected integers"):
            call(x, None, np.full(B, T, float))
        with pytest.raises(ValueError, match=f"^lengths: expected 0 to T={T}, got {T + 1} for sequence 0"):
            call(x, lengths=[T + 1] * B)
        with pytest.raises(ValueError, match="^lengths: expected None for an x without a batch axis"):
            call(x[:, 0], lengths=[T])
        with pytest.raises(ValueError, match="^x: too large"):
            call(np.broadcast_to(np.float32(0), (2**29, 2**29, I)))


@pytest.mark.parametrize("batch_first", [True, False])
def test_refused_gradients(batch_first):
    layer = fastrnn.LSTM(I, H, L, batch_first=batch_first, rng=1)
    shape = (B, T) if batch_first else (T, B)
    output, state_n, tape = layer.forward(draw(*shape, I))
    kept = copy.deepcopy(layer.backward(tape, output, state_n))
    expected = "(B=3, T=4, hidden_size=6)" if batch_first else "(T=4, B=3, hidden_size=6)"
    state = "expected (num_layers=2, B=3, hidden_size=6), got "
    refused = [
        (np.zeros((*shape, I)), None, f"d_output: expected {expected}, got "),
        (np.zeros((*shape[::-1], H)), None, f"d_output: expected {expected}, got "),
        (np.zeros((T, H)), None, f"d_output: expected {expected}, got (4, 6)"),
        (0.0, None, f"d_output: expected {expected}, got ()"),
        (output, (np.zeros((L, T, H)), None), f"d_state_n (d_h_n): {state}(2, 4, 6)"),
        (output, (None, np.zeros((L, H))), f"d_state_n (d_c_n): {state}(2, 6)"),
        (output, (None,), "d_state_n: expected a tuple (d_h_n, d_c_n), got 1 items"),
    ]
    for d_output, d_state_n, message in refused:
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            layer.backward(tape, d_output, d_state_n)
    with pytest.raises(TypeError, match=r"^d_output: cannot be cast from complex64"):
        layer.backward(tape, output + 0j)
    with pytest.raises(TypeError, match=r"^d_state_n: expected a tuple \(d_h_n, d_c_n\), got ndarray"):
        layer.backward(tape, output, np.stack(state_n))
    assert_same_bytes(layer.backward(tape, output, state_n), kept)


def test_refused_gradients_of_an_unbatched_sequence(layer):
    *_, tape = layer.forward(draw(T, I))
    with pytest.raises(ValueError, match=re.escape("d_output: expected (T=4, hidden_size=6), got (4, 1, 6)")):
        layer.backward(tape, np.zeros((T, 1, H)))
    with pytest.raises(ValueError, match=re.escape("d_state_n (d_h_n): expected (num_layers=2, hidden_size=6), got")):
        layer.backward(tape, None, (np.zeros((L, 1, H)), None))


# Construction


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        ({"input_size": 0}, ValueError, "input_size: expected at least 1, got 0"),
        ({"input_size": -3}, ValueError, "input_size: expected at least 1, got -3"),
        ({"input_size": 2.0}, TypeError, "input_size: expected an integer, got 2.0"),
        ({"input_size": True}, TypeError, "input_size: expected an integer, got True"),
        ({"input_size": np.True_}, TypeError, "input_size: expected an integer, got"),
        ({"input_size": "2"}, TypeError, "input_size: expected an integer, got '2'"),
        ({"hidden_size": 0}, ValueError, "hidden_size: expected at least 1, got 0"),
        ({"hidden_size": None}, TypeError, "hidden_size: expected an integer, got None"),
        ({"hidden_size": np.float64(2)}, TypeError, "hidden_size: expected an integer, got"),
        ({"num_layers": 0}, ValueError, "num_layers: expected at least 1, got 0"),
        ({"num_layers": False}, TypeError, "num_layers: expected an integer, got False"),
        ({"bias": 1}, TypeError, "bias: expected True or False, got 1"),
        ({"bias": None}, TypeError, "bias: expected True or False, got None"),
        ({"batch_first": "yes"}, TypeError, "batch_first: expected True or False, got 'yes'"),
        ({"dropout": 1.5}, ValueError, "dropout: expected a number from 0 to 1, got 1.5"),
        ({"dropout": -0.1}, ValueError, "dropout: expected a number from 0 to 1, got -0.1"),
        ({"dropout": float("nan")}, ValueError, "dropout: expected a number from 0 to 1, got nan"),
        ({"dropout": True}, TypeError, "dropout: expected a number from 0 to 1, got True"),
        ({"dropout": "0"}, TypeError, "dropout: expected a number from 0 to 1, got '0'"),
        ({"bidirectional": 2}, TypeError, "bidirectional: expected True or False, got 2"),
        ({"proj_size": -1}, ValueError, "proj_size: expected at least 0, got -1"),
        ({"proj_size": 6}, ValueError, "proj_size: expected less than hidden_size=6, got 6"),
        ({"proj_size": 1.0}, TypeError, "proj_size: expected an integer, got 1.0"),
        ({"peephole": 0}, TypeError, "peephole: expected True or False, got 0"),
        ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64, got"),
        ({"dtype": np.longdouble}, TypeError, "dtype: expected float32 or float64, got"),
        ({"dtype": int}, TypeError, "dtype: expected float32 or float64, got"),
        ({"dtype": None}, TypeError, "dtype: expected float32 or float64, got None"),
        ({"dtype": "single precision"}, TypeError, "dtype: expected float32 or float64, got 'single precision'"),
        ({"rng": -1}, ValueError, "rng: "),
        ({"rng": 1.5}, TypeError, "rng: "),
        ({"rng": True}, TypeError, "rng: "),
        ({"rng": "seed"}, TypeError, "rng: "),
        ({"input_size": 2**62}, ValueError, "input_size, hidden_size: too large"),
        ({"hidden_size": 2**40}, ValueError, "input_size, hidden_size: too large"),
        ({"num_layers": 2**62}, ValueError, "input_size, hidden_size: too large"),
        ({"input_size": 10**30, "hidden_size": 10**30}, ValueError, "input_size, hidden_size: too large"),
    ],
)
def test_refused_constructions(arguments, exception, message):
    with pytest.raises(exception, match="^" + re.escape(message)):
        fastrnn.LSTM(**{"input_size": I, "hidden_size": H} | arguments)


def test_options_after_proj_size_need_their_names():
    with pytest.raises(TypeError, match="positional"):
        fastrnn.LSTM(I, H, 1, True, False, 0.0, False, 0, False)


def test_sizes_of_numpy_and_dtypes_of_any_spelling():
    layer = fastrnn.LSTM(np.int8(I), np.array(H), np.uint16(L), bias=np.True_)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (I, H, L)
    assert all(type(n) is int for n in (layer.input_size, layer.hidden_size, layer.num_layers))
    assert layer.bias is True
    for dtype in ("f4", ">f4", "<f4", np.float32, np.dtype(np.float32), "float32"):
        assert fastrnn.LSTM(I, H, dtype=dtype).dtype is np.dtype(np.float32)
    for dtype in ("f8", ">f8", "<f8", float, np.double):
        assert fastrnn.LSTM(I, H, dtype=dtype).dtype is np.dtype(np.float64)


def test_properties_are_read_only(layer):
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (I, H, L)
    assert (layer.bias, layer.batch_first) == (True, False)
    assert layer.dtype == layer.params.flat.dtype
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dtype", "params"):
        with pytest.raises(AttributeError):
            setattr(layer, name, getattr(layer, name))


def test_repr():
    assert repr(fastrnn.LSTM(64, 128)) == "LSTM(64, 128)"
    assert repr(fastrnn.LSTM(64, 128, num_layers=2)) == "LSTM(64, 128, num_layers=2)"
    assert (
        repr(fastrnn.LSTM(3, 4, bias=False, batch_first=True, dtype=float))
        == "LSTM(3, 4, bias=False, batch_first=True, dtype=float64)"
    )


# Parameters


def test_initial_parameters():
    layer = fastrnn.LSTM(30, 50, num_layers=2, dtype=np.float64, rng=1)
    bound = 50**-0.5
    for array in layer.params.values():
        assert -bound <= array.min() < -0.9 * bound and 0.9 * bound < array.max() <= bound
        assert abs(array.mean()) < 0.2 * bound


def test_the_generator_decides_the_parameters():
    seeded = fastrnn.LSTM(I, H, L, rng=1).params
    assert fastrnn.LSTM(I, H, L, rng=1).params == seeded
    assert fastrnn.LSTM(I, H, L, rng=np.random.default_rng(1)).params == seeded
    assert fastrnn.LSTM(I, H, L, rng=2).params != seeded
    assert fastrnn.LSTM(I, H, L).params != fastrnn.LSTM(I, H, L).params
    double = fastrnn.LSTM(I, H, L, rng=1, dtype=np.float64).params
    np.testing.assert_array_equal(double.flat.astype(np.float32), seeded.flat)
    generator = np.random.default_rng(1)
    assert fastrnn.LSTM(I, H, L, rng=generator).params != fastrnn.LSTM(I, H, L, rng=generator).params


def test_a_change_of_the_parameters_is_seen_by_the_next_call(layer):
    x = draw(T, B, I)
    before = layer(x)[0]
    layer.params.flat -= 0.5 * layer.params.flat
    after = layer(x)[0]
    assert (before != after).any()
    layer.params["bias_hh_l1"] = np.zeros(4 * H)
    assert (layer(x)[0] != after).any()


def test_state_dict_is_a_copy(layer):
    state_dict = layer.state_dict()
    assert type(state_dict) is dict and list(state_dict) == list(layer.params)
    kept = layer.params.copy()
    for array in state_dict.values():
        assert type(array) is np.ndarray
        array[...] = np.nan
    assert layer.params == kept


def test_load_state_dict(layer):
    other = fastrnn.LSTM(I, H, L, dtype=np.float64, rng=2)
    views = dict(layer.params)
    layer.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(layer.params.flat, other.params.flat.astype(layer.dtype))
    assert all(layer.params[name] is view for name, view in views.items())

    layer.load_state_dict({name: array.tolist() for name, array in reversed(other.state_dict().items())})
    np.testing.assert_array_equal(layer.params.flat, other.params.flat.astype(layer.dtype))

    layer.load_state_dict(fastrnn.LSTM(I, H, L, rng=3).params)
    np.testing.assert_allclose(layer.params.flat, fastrnn.LSTM(I, H, L, rng=3).params.flat)


def test_load_state_dict_from_its_own_memory(layer):
    expected = layer.state_dict()
    expected["bias_ih_l0"], expected["bias_hh_l0"] = expected["bias_hh_l0"], expected["bias_ih_l0"]
    layer.load_state_dict(
        {**layer.params, "bias_ih_l0": layer.params["bias_hh_l0"], "bias_hh_l0": layer.params["bias_ih_l0"]}
    )
    assert_same_bytes(dict(layer.params), expected)


def test_load_state_dict_lists_all_problems_and_writes_nothing(layer):
    kept = layer.params.copy()
    state_dict = fastrnn.LSTM(I, H, L, rng=2).state_dict()
    del state_dict["bias_ih_l0"]
    state_dict["weight_ih_l0"] = state_dict["weight_ih_l0"].T
    state_dict["weight_hh_l1"] = np.zeros((4 * H, H), complex)
    state_dict["weight_ih_l0_reverse"] = np.zeros((4 * H, I))
    state_dict[7] = None
    with pytest.raises(ValueError, match="^mapping: does not fit LSTM") as error:
        layer.load_state_dict(state_dict)
    for problem in (
        "bias_ih_l0: missing",
        "weight_ih_l0: expected (24, 5), got (5, 24)",
        "weight_hh_l1: cannot be cast from complex128",
        "weight_ih_l0_reverse: not a parameter",
        "7: not a parameter",
    ):
        assert problem in str(error.value)
    assert str(error.value).count("\n") == 5
    assert layer.params == kept
    for other in (None, 3, [1, 2], "text", layer.params.flat):
        with pytest.raises(TypeError, match="^mapping: expected a mapping"):
            layer.load_state_dict(other)
    assert layer.params == kept


def test_an_overflow_while_loading_writes_nothing():
    layer = fastrnn.LSTM(I, H, rng=1)
    kept = layer.params.copy()
    state_dict = layer.state_dict()
    state_dict["weight_ih_l0"] += 1
    state_dict["bias_hh_l0"] = np.full(4 * H, 1e300)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        layer.load_state_dict(state_dict)
    assert layer.params == kept


def test_a_new_shape_of_an_array_given_out_does_not_matter(layer):
    x = draw(T, B, I)
    expected = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        layer.params["weight_ih_l0"].shape = (4 * H * I,)
    assert_same_bytes(layer(x), expected)


@pytest.mark.parametrize("options", [{}, {"bias": False, "batch_first": True}])
def test_pickles_and_copies(options):
    layer = fastrnn.LSTM(I, H, L, rng=1, **options)
    layer.note = "kept"
    x = draw(T, B, I)
    expected = everything(layer, x)
    duplicates = [copy.deepcopy(layer)]
    duplicates += [pickle.loads(pickle.dumps(layer, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in duplicates:
        assert repr(other) == repr(layer) and other.note == "kept"
        assert other.dtype is layer.dtype
        assert_same_bytes(everything(other, x), expected)
        assert not np.shares_memory(other.params.flat, layer.params.flat)
        other.params.flat[...] = 0  # its kernels read its params
        assert not other(x)[0].any()
    assert_same_bytes(everything(layer, x), expected)
    assert len(pickle.dumps(layer)) < layer.params.flat.nbytes + 2000  # each value once


def test_a_tape_is_neither_copied_nor_pickled():
    layer = fastrnn.LSTM(3, 4, rng=0)
    _, _, tape = layer.forward(np.zeros((2, 1, 3), np.float32))
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="^a tape cannot be copied or pickled"):
            attempt(tape)


def test_x_changed_while_the_kernel_runs_is_noticed(monkeypatch):
    layer = fastrnn.LSTM(3, 4, rng=0)
    x = np.zeros((2, 1, 3), np.float32)
    kernel = fastrnn._core.forward

    def meddled(*arguments):
        result = kernel(*arguments)
        x[0] = 1
        return result

    monkeypatch.setattr(fastrnn._core, "forward", meddled)
    output, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="^x: changed"):
        layer.backward(tape, np.ones_like(output))
