"""The kernels of quantized layers against the reference, to the last bit, and the contract of docs/reproducibility.md.

Everything before the activations is exact: the reference computes it with the bits of the kernels. The step after it is
one of float32: a layer whose weight_ih is the identity and whose weight_hh is zero. So whole sequences can be compared
with == for every format, instruction and cell.
"""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn import _config, _core, functional, reference
from fastrnn._engine.formats import FORMATS
from layer_cases import members
from quantized_cases import ALL_FORMATS, KINDS, arrays_of, bytes_of, make, state_of

kind = pytest.fixture(params=KINDS)(lambda request: request.param)
form = pytest.fixture(params=ALL_FORMATS)(lambda request: request.param)


def variants(form):
    """The names of all instructions that this machine has for a format, for `_config.using`."""
    return [f"{isa}+{one}" for isa in _config.runnable() for one in _core.narrow_instructions(isa)[form]]


EVERY_VARIANT = [(form, name) for form in ALL_FORMATS for name in variants(form)]
variant = pytest.fixture(params=EVERY_VARIANT, ids=map("-".join, EVERY_VARIANT))(lambda request: request.param)


def draw(layer, T, B, seed=3):
    """x whose rows have sizes of several magnitudes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, B, layer.input_size)).astype(np.float32)
    return x * np.exp(rng.standard_normal((T, B, 1))).astype(np.float32)


# Against the reference


def rounded_twice(a, b, c):
    """a * b + c without fused multiply-add, as the generic kernels compute it."""
    flushed = reference.flushed
    with np.errstate(all="ignore"):
        products = flushed((flushed(a) * flushed(b)).astype(np.float32))
        return flushed((products + flushed(c)).astype(np.float32))


def float32_step(q, z, state, **weights):
    """The states after one step of float32 from the pre-activations z (B, G)."""
    cell, G = q._stack.spec, z.shape[1]
    function, H = getattr(functional, cell.name), q.hidden_size
    options = {name: q._options[name] for name in cell.options}
    identity, zeros = np.eye(G, dtype=np.float32), np.zeros((G, H), np.float32)
    h = np.zeros((len(z), H), np.float32) if "weight_hr_l0" in q.params else state[0]
    given = (h, *state[1:]) if len(state) > 1 else h
    _, after = function(z[None], given, identity, zeros, **weights, **options)
    return list(members(after))


def exact_step(q, weights, x_t, state):
    """The states after one step of a quantized layer of one direction."""
    h, spec = state[0], q._stack.kernel.name
    if spec == "gru":
        z, recurrent = reference.linear(weights, "ih", x_t), reference.linear(weights, "hh", h)
        steps = [float32_step(q, z[[b]], [h[[b]]], bias_hh=recurrent[b])[0] for b in range(len(h))]
        return [np.concatenate(steps)]
    z = reference.linear_input(weights, x_t)
    if spec == "gru_reset_before":
        H = q.hidden_size
        z[:, : 2 * H] = reference.product(reference.rows_of(weights, 0, 2 * H), "hh", h, z[:, : 2 * H])
        identity, zeros = np.eye(H, dtype=np.float32), np.zeros((H, H), np.float32)
        assert q.recurrent_activation == "sigmoid"
        (r,), _ = functional.rnn(z[None, :, :H], None, identity, zeros, nonlinearity="sigmoid", clip=q.clip)
        z[:, 2 * H :] = reference.product(reference.rows_of(weights, 2 * H, 3 * H), "hh", r * h, z[:, 2 * H :])
        return float32_step(q, z, state)
    z = reference.product(weights, "hh", h, z)
    peephole = {name: w for name, w in weights.items() if name == "weight_peephole"}
    state = float32_step(q, z, state, **peephole)
    if "weight_hr" in weights:
        state[0] = reference.linear(weights, "hr", state[0])
    return state


def exact(q, x, state):
    """The output and the states of a quantized layer of one direction, by steps that have the bits of the kernels."""
    weights, state, output = reference.rounded_weights(q, "_l0"), [s[0] for s in members(state)], []
    for x_t in x:
        state = exact_step(q, weights, x_t, state)
        output.append(state[0])
    return np.stack(output), tuple(s[None] for s in state)


def assert_exact(layer, form, x, state):
    q = layer.quantize(form)
    expected = q.dequantized()(x, state) if FORMATS[form].round_operand is None else exact(q, x, state)
    for actual, array in zip(arrays_of(q(x, state)), arrays_of(expected), strict=True):
        assert actual.shape == array.shape and actual.tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.fixture
def rounding(variant, monkeypatch):
    """The format and the instructions in use, with the reference rounding as they do."""
    form, name = variant
    if name.startswith("generic"):
        monkeypatch.setattr(reference, "fma", rounded_twice)
    with _config.using(name):
        yield form


# T, B, I, H: one and odd numbers; one below and above the widths of vectors, groups, tiles and panels.
SHAPES = [(3, 1, 1, 3), (2, 2, 3, 6), (2, 5, 15, 9), (3, 3, 17, 33), (2, 16, 31, 15), (2, 7, 65, 48), (1, 33, 130, 66)]


@pytest.mark.parametrize("bound", [1, 3])
def test_every_cell_has_the_bits_of_the_reference(kind, rounding, bound):
    """From states within 1 and beyond."""
    for T, B, I, H in SHAPES:
        if H > 8 or "projected" not in kind:
            layer = make(kind, I, max(H, 9))
            assert_exact(layer, rounding, draw(layer, T, B), state_of(layer, B, bound))


@settings(max_examples=30 * DEPTH)
@given(
    T=st.integers(1, 3),
    B=st.integers(1, 40),
    I=st.integers(1, 200),
    H=st.integers(1, 70),
    kind=st.sampled_from(["rnn, relu", "lstm", "gru"]),
    variant=st.sampled_from([one for one in EVERY_VARIANT if not one[1].startswith("generic")]),
    seed=st.integers(0, 2**32),
)
def test_random_shapes(T, B, I, H, kind, variant, seed):
    form, name = variant
    layer = make(kind, I, H, seed=seed)
    with _config.using(name):
        assert_exact(layer, form, draw(layer, T, B, seed), state_of(layer, B, 2, seed))


def test_unusual_rows(rounding):
    """Rows of zeros and denormals, of very large and very small numbers, of one number beside zeros."""
    I, H = 70, 20
    layer = make("rnn, relu", I, H)
    w = layer.params["weight_ih_l0"]
    w[1], w[2], w[3] = 0, 1e-39, 0
    w[3, 69] = 1e-25
    w[4] *= np.float32(1e-33)
    w[5] *= np.float32(1e-28)
    x = draw(layer, 1, 12)
    x[0, 0], x[0, 1], x[0, 2] = 0, 1e-40, 0
    x[0, 2, 69] = -3
    x[0, 3] *= np.float32(1e-33)
    x[0, 4] *= np.float32(1e-28)
    x[0, 5], x[0, 6, ::2] = 1e18, 2e20
    x[0, 7] = np.where(np.arange(I) % 2, 1e-39, 1)
    assert_exact(layer, rounding, x, np.zeros((1, 12, H), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_touch_their_sequence_alone(kind, form, value, threads):
    """In x and in the state, of any thread."""
    threads(2)
    layer = make(kind, 20, 72)
    q, x, state = layer.quantize(form), draw(layer, 6, 30), state_of(layer, 30)
    expected = arrays_of(q(x, state))
    x[2, 3, 4], members(state)[0][0, 7, 3] = value, value
    output, *state_n = arrays_of(q(x, state))
    others = np.delete(np.arange(30), (3, 7))
    assert output[:, others].tobytes() == expected[0][:, others].tobytes()
    for after, before in zip(state_n, expected[1:], strict=True):
        assert after[:, others].tobytes() == before[:, others].tobytes()
    assert output[:2, 3].tobytes() == expected[0][:2, 3].tobytes()
    if form == "int8":  # the scale of a row with such a number is NaN
        assert np.isnan(output[2:, 3]).all() and np.isnan(output[:, 7]).all()
    else:
        assert output[2:, 3].tobytes() != expected[0][2:, 3].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", variants("int8"))
def test_rows_of_nothing_finite(name, value):
    """All numbers of a row, whose sums of integers mean nothing but have to be defined."""
    for I in (3, 4, 20, 70, 2048):
        with _config.using(name):
            q = make("lstm", I, 10).quantize("int8")
            x = draw(q, 3, 5)
            expected = q(x)[0]
            x[1, 2] = value
            output = q(x)[0]
        others = np.delete(np.arange(5), 2)
        assert output[:, others].tobytes() == expected[:, others].tobytes()
        assert output[:1].tobytes() == expected[:1].tobytes() and np.isnan(output[1:, 2]).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_whole_reference(kind, form, reverse):
    """Stacks, directions, ragged batches, resets, axes: `reference.quantized`, from the states of each step alone."""
    options = {"num_layers": 2, "batch_first": True} if reverse else {"bidirectional": True}
    layer = make(kind, 7, 12, **options)
    q, rng = layer.quantize(form), np.random.default_rng(0)
    x, state, lengths = draw(layer, 5, 6), state_of(layer, 6, 1.5), [5, 0, 3, 5, 1, 2]
    resets = rng.random((5, 6)) < 0.3
    if layer.batch_first:
        x, resets = x.swapaxes(0, 1), resets.T
    actual = arrays_of(q(x, state, lengths, resets))
    expected = arrays_of(reference.quantized(q, x, state, lengths, resets))
    # Rounding of an activation may move an operand of a later step by one unit of int8 or of bfloat16.
    allowed = {"int8": 2e-3, "float16": 3e-6, "bfloat16": 5e-4, "float8": 3e-6}[form]
    for a, b in zip(actual, expected, strict=True):
        error = np.abs(a - b) / np.maximum(1, np.abs(b))
        assert a.shape == b.shape and error.max() <= allowed and np.median(error) <= 2e-7
    one, alone = q(x[0]), reference.quantized(q, x[0])
    assert [a.shape for a in arrays_of(one)] == [a.shape for a in arrays_of(alone)]


@pytest.mark.parametrize("form", ["float16", "float8"])
def test_formats_that_round_no_operand_are_the_float32_layer(kind, form):
    """With the rounded weights, bit for bit, and with every argument."""
    for name in variants(form):
        with _config.using(name):
            for options in ({"num_layers": 2}, {"bidirectional": True}, {"reverse": True}):
                layer = make(kind, 9, 39, **options)
                q, x, state = layer.quantize(form), draw(layer, 7, 5), state_of(layer, 5, 2)
                resets = np.random.default_rng(0).random((7, 5)) < 0.3
                for arguments in ((x,), (x, state), (x, state, [7, 3, 0, 5, 7], resets)):
                    assert bytes_of(q(*arguments)) == bytes_of(q.dequantized()(*arguments))


def test_deep_sums():
    """Sums near the limit of int32, whose operands are all of the largest magnitude."""
    I = 130_000
    layer = fastrnn.RNN(I, 3, nonlinearity="relu", bias=False, rng=0)
    layer.params.flat[...] = 0
    layer.params["weight_ih_l0"][...] = [[1], [-1], [0.5]]
    x = np.ones((1, 2, I), np.float32)
    x[0, 1] = -1
    third = np.float32(I * 127 * 127), np.float32(I * 127 * 64)
    unit = np.float32(1) / np.float32(127)
    for name in variants("int8"):
        with _config.using(name):
            q = layer.quantize("int8")
            (output,), _ = q(x)
            assert [q(x[:, b : b + 1])[0].tobytes() for b in range(2)] == [output[b].tobytes() for b in range(2)]
        expected = [[third[0] * (unit * unit), 0, third[0] * (np.float32(0.5) / np.float32(127) * unit)]]
        expected += [[0, third[0] * (unit * unit), 0]]
        assert output.tolist() == np.array(expected, np.float32).tolist()


# The contract

SHAPES_OF_THE_CONTRACT = [(7, 5, 3, 9), (12, 19, 40, 72), (4, 2, 24, 321)]
shape = pytest.fixture(params=SHAPES_OF_THE_CONTRACT, ids=str)(lambda request: request.param)


@pytest.fixture
def case(kind, form, shape):
    """q, x, state and resets."""
    T, B, I, H = shape
    layer = make(kind, I, H)
    resets = np.random.default_rng(0).random((T, B)) < 0.2
    return layer.quantize(form), draw(layer, T, B), state_of(layer, B), resets


def of_sequences(state, part):
    found = tuple(s[:, part] for s in members(state))
    return found if isinstance(state, tuple) else found[0]


def test_instructions(kind, form, shape):
    """All instructions of the sets with fused multiply-add, and any number of threads."""
    T, B, I, H = shape
    layer = make(kind, I, H)
    x, state = draw(layer, T, B), state_of(layer, B)
    results = set()
    for name in variants(form):
        if not name.startswith("generic"):
            with _config.using(name):
                results.add(tuple(bytes_of(layer.quantize(form)(x, state))))
    assert len(results) == 1


def test_batch(case, threads):
    q, x, state, resets = case
    B = x.shape[1]
    for num_threads in (1, 2):
        threads(num_threads)
        whole = arrays_of(q(x, state, resets=resets))
        for cut in {1, B // 2}:
            for part in (slice(0, cut), slice(cut, B)):
                some = bytes_of(q(x[:, part], of_sequences(state, part), resets=resets[:, part]))
                assert some == [np.ascontiguousarray(a[:, part]).tobytes() for a in whole]


def test_cuts_and_streams(case):
    q, x, state, resets = case
    output, *state_n = arrays_of(q(x, state, resets=resets))
    for cut in (0, 1, len(x) // 2):
        first, between = q(x[:cut], state, resets=resets[:cut])
        second, after = q(x[cut:], between, resets=resets[cut:])
        assert np.concatenate([first, second]).tobytes() == output.tobytes()
        assert [s.tobytes() for s in members(after)] == [s.tobytes() for s in state_n]
    stream = q.stream(x.shape[1])
    stream.state = state
    steps = [stream.step(x_t, resets=reset) for x_t, reset in zip(x, resets)]
    assert np.stack(steps).tobytes() == output.tobytes()
    assert [s.tobytes() for s in members(stream.state)] == [s.tobytes() for s in state_n]
    alone = q.stream()
    expected = q(x[:, 0])[0]
    assert np.stack([alone.step(x_t) for x_t in x[:, 0]]).tobytes() == expected.tobytes()
    out = np.empty(expected.shape[1:], np.float32)
    alone.reset()
    assert alone.step(x[0, 0], out=out) is out and out.tobytes() == expected[0].tobytes()


def test_threads_and_runs(case, threads):
    q, x, state, resets = case
    results = set()
    for num_threads in (1, 2, 3, 2):
        threads(num_threads)
        results.add(tuple(bytes_of(q(x, state, resets=resets))))
    assert len(results) == 1


def test_helpers_that_come_and_go(case, threads):
    q, x, state, resets = case
    threads(1)
    expected = bytes_of(q(x, state, resets=resets))
    _core.team_policy("erratic")  # until the fixture ends
    for num_threads in (2, 3):
        threads(num_threads)
        for _ in range(4):
            assert bytes_of(q(x, state, resets=resets)) == expected


@pytest.mark.parametrize("reverse", [False, True])
def test_a_ragged_sequence_alone(kind, form, reverse):
    layer = make(kind, 6, 33, reverse=reverse)
    q, x, state, rng = layer.quantize(form), draw(layer, 11, 9), state_of(layer, 9), np.random.default_rng(0)
    lengths, resets = rng.integers(0, 12, 9), rng.random((11, 9)) < 0.3
    output, *state_n = arrays_of(q(x, state, lengths, resets))
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        alone, *after = arrays_of(q(x[:length, one], of_sequences(state, one), resets=resets[:length, one]))
        assert output[:length, one].tobytes() == alone.tobytes() and not output[length:, b].any()
        assert [np.ascontiguousarray(s[:, one]).tobytes() for s in state_n] == [s.tobytes() for s in after]
        x[length:, b] = np.nan
    assert bytes_of(q(x, state, lengths, resets)) == bytes_of((output, tuple(state_n)))


@pytest.mark.parametrize("num_layers", [2, 3])
def test_stacks_are_their_layers(kind, form, num_layers, threads):
    """Each layer of a stack, in turn and side by side, equals a layer of its own."""
    threads(2)
    stack = make(kind, 10, 36, num_layers=num_layers)
    q, x = stack.quantize(form), draw(stack, 9, 4)
    y = x
    for k in range(num_layers):
        layer = make(kind, y.shape[2], 36)
        own = {name: array for name, array in stack.params.items() if name.endswith(f"_l{k}")}
        layer.load_state_dict({name.replace(f"_l{k}", "_l0"): array for name, array in own.items()})
        y, _ = layer.quantize(form)(y)
    assert q(x)[0].tobytes() == y.tobytes()


def test_directions_are_layers(kind, form, threads):
    threads(2)
    both = make(kind, 10, 36, bidirectional=True)
    q, x = both.quantize(form), draw(both, 9, 4)
    halves = np.split(q(x)[0], 2, axis=2)
    for suffix, half in zip(("_l0", "_l0_reverse"), halves):
        layer = make(kind, 10, 36, reverse=suffix != "_l0")
        layer.load_state_dict({name: both.params[name.removesuffix("_l0") + suffix] for name in layer.params})
        assert layer.quantize(form)(x)[0].tobytes() == half.tobytes()


def test_the_layout_of_arrays(kind, form):
    layer = make(kind, 10, 36)
    q, x, state = layer.quantize(form), draw(layer, 6, 9), state_of(layer, 9)
    expected = bytes_of(q(x, state))
    room = np.full((12, 18, 20), 111, np.float32)
    room[::2, ::2, ::2] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    for other in (room[::2, ::2, ::2], np.asfortranarray(x[::-1])[::-1], unaligned, x.astype(">f4"), x.astype(float)):
        assert bytes_of(q(other, state)) == expected


def test_python_threads_share_a_layer(kind, form):
    layer = make(kind, 40, 72)
    q, samples = layer.quantize(form), [draw(layer, 12, 19, seed) for seed in range(4)]
    expected = [bytes_of(q(x)) for x in samples]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda k: bytes_of(q(samples[k])), [0, 1, 2, 3] * 2)) == expected * 2


def _in_a_child(q, x, connection):
    connection.send(bytes_of(q(x)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child(form):
    layer = make("lstm", 40, 72)
    q, x = layer.quantize(form), draw(layer, 12, 19)
    expected = bytes_of(q(x))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_a_child, args=(q, x, there))
    child.start()
    assert here.recv() == expected
    child.join()


def test_denormals_and_the_mode_of_the_thread(form):
    """x, states and biases that are denormal count as zeros."""
    layer = make("gru", 10, 36)
    layer.params["bias_ih_l0"][...] = 1e-39
    with_zeros = make("gru", 10, 36)
    with_zeros.params["bias_ih_l0"][...] = 0
    x, h = draw(layer, 3, 4), state_of(layer, 4)
    x[:, 1], h[0, 2] = 1e-39, 1e-40
    zeros = [np.where(np.abs(a) < 1e-37, np.float32(0), a) for a in (x, h)]
    assert bytes_of(layer.quantize(form)(x, h)) == bytes_of(with_zeros.quantize(form)(*zeros))


@settings(max_examples=40 * DEPTH)
@given(
    kind=st.sampled_from(list(KINDS)),
    form=st.sampled_from(ALL_FORMATS),
    T=st.integers(1, 9),
    B=st.integers(1, 40),
    I=st.integers(1, 70),
    H=st.integers(3, 30),
    layers=st.integers(1, 2),
    data=st.data(),
)
def test_layers_of_random_shape(kind, form, T, B, I, H, layers, data):
    """All lines at once: a part of the batch, two chunks in time, other threads and instructions, a copy."""
    layer = make(kind, I, 3 * H, num_layers=layers)
    q, x = layer.quantize(form), draw(layer, T, B)
    output, *state_n = arrays_of(q(x))
    cut, part = data.draw(st.integers(0, T)), slice(data.draw(st.integers(0, B - 1)), B)
    is_generic = _config.instruction_set() == "generic"
    names = [name for name in variants(form) if name.startswith("generic") == is_generic]
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        with _config.using(data.draw(st.sampled_from(names))):
            other = data.draw(st.sampled_from([layer.quantize(form), pickle.loads(pickle.dumps(q))]))
            first, state = other(x[:cut, part])
            second, state = other(x[cut:, part], state)
    finally:
        fastrnn.set_num_threads(before)
    assert np.concatenate([first, second]).tobytes() == np.ascontiguousarray(output[:, part]).tobytes()
    for some, s in zip(members(state), state_n, strict=True):
        assert some.tobytes() == np.ascontiguousarray(s[:, part]).tobytes()
