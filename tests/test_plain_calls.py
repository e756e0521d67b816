"""Plain calls, which the binding makes without the engine: the same bits and errors as other calls."""

import copy
import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn import _core, functional
from layer_cases import layers, members, state_like

MOST_BYTES_BETWEEN = 1 << 20


@pytest.fixture
def engine_is_off(monkeypatch):
    """No call reaches the engine."""
    monkeypatch.setattr(fastrnn.layers, "infer", None)
    monkeypatch.setattr(fastrnn.layers.InferenceLayer, "_inputs", None)


def bytes_of(results):
    output, state = results
    return [(a.dtype, a.shape, a.tobytes()) for a in (output, *members(state))]


def by_the_engine(layer, x, state=None, lengths=None):
    """The results of a forward pass in training, which the engine computes."""
    return layer.forward(x, state, lengths)[:2]


def in_float32(layer):
    """A layer with the options of this one, in float32."""
    return type(layer)(**layer._constructor_arguments() | {"dtype": np.float32}, rng=0)


@settings(max_examples=200 * DEPTH)
@given(
    layer=layers() | layers().map(in_float32),
    T=st.integers(1, 6),
    B=st.integers(1, 5),
    has_state=st.booleans(),
    batched=st.booleans(),
    freeze=st.booleans(),
    dtype_of_lengths=st.sampled_from([None, np.int64, np.int32, np.uint64, np.uint8, list]),
    seed=st.integers(0, 2**32),
)
def test_the_bits_of_other_calls(layer, T, B, has_state, batched, freeze, dtype_of_lengths, seed):
    shape = ((B, T) if layer.batch_first else (T, B)) if batched else (T,)
    x = np.random.default_rng(seed).standard_normal((*shape, layer.input_size)).astype(layer.dtype)
    state = state_like(layer, B, seed) if has_state else None
    if has_state and not batched:
        states = [s[:, 0].copy() for s in members(state)]
        state = tuple(states) if isinstance(state, tuple) else states[0]
    lengths = np.random.default_rng(seed).integers(0, T, B, endpoint=True) if batched and dtype_of_lengths else None
    expected = bytes_of(by_the_engine(layer, x, state, lengths))
    if lengths is not None:
        lengths = lengths.tolist() if dtype_of_lengths is list else lengths.astype(dtype_of_lengths)
        for b, length in enumerate(lengths):  # values beyond the lengths are not read
            (x[b] if layer.batch_first else x[:, b])[length:] = np.nan
    if freeze:
        layer.freeze()
    arguments = [x, *(members(state) if has_state else [])]
    before = [array.tobytes() for array in arguments]
    for flags in (None, np.zeros(x.shape[:-1], bool)):
        assert bytes_of(layer(x, state, lengths, flags)) == expected
    assert [array.tobytes() for array in arguments] == before


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "batch_first": True}, {"bidirectional": True},
                                     {"reverse": True}, {"bidirectional": True, "num_layers": 2, "proj_size": 3}],
                         ids=str)  # fmt: skip
def test_layers_do_without_the_engine(options, has_state, engine_is_off):
    layer = fastrnn.LSTM(5, 6, **options, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 5), np.float32)
    frozen = copy.deepcopy(layer)
    frozen.freeze()
    for one in (layer, frozen, layer.quantize("int8")):
        output, state = one(x)
        assert output.shape == (4, 2, one(x)[0].shape[2]) and len(state) == 2
        one(x[0])
        T, B = (2, 4) if one.batch_first else (4, 2)
        of_all = [np.arange(B) % (T + 1), np.full(B, T, np.int32), [T - 1] * B, np.zeros(B, np.uint64)]
        for lengths in of_all:
            one(x, lengths=lengths)
        if has_state:
            one(x, state)
            one(x, state, of_all[0])
            with pytest.raises(TypeError):  # the engine, which is off
                one(x, list(state))
    with pytest.raises(TypeError):
        layer(x[:, ::2])


@pytest.mark.parametrize(
    "options", [{"num_layers": 2}, {"bidirectional": True}, {"bidirectional": True, "num_layers": 2}], ids=str
)
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_largest_arrays_between_layers(options, more, monkeypatch):
    """Those of more bytes are for the engine, which needs less memory."""
    H, count = (64, 2 * options.get("num_layers", 1)) if "bidirectional" in options else (128, 2)
    layer = fastrnn.GRU(3, H, **options, rng=0)
    T = MOST_BYTES_BETWEEN // (count * 128 * 4) + more
    x = np.random.default_rng(0).standard_normal((T, 1, 3), np.float32)
    expected = bytes_of(by_the_engine(layer, x))
    layer.freeze()
    assert bytes_of(layer(x)) == expected
    monkeypatch.setattr(fastrnn.layers.InferenceLayer, "_inputs", None)
    if more <= 0:
        layer(x)
    else:
        with pytest.raises(TypeError):
            layer(x)


@pytest.mark.parametrize("count", [_core.MOST_CALLS, _core.MOST_CALLS + 1])
def test_as_many_layers_as_run_together_and_one_more(count):
    layer = fastrnn.RNN(3, 4, count, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3), np.float32)
    expected = bytes_of(by_the_engine(layer, x))
    layer.freeze()
    assert bytes_of(layer(x)) == expected


def outcome(function):
    try:
        return bytes_of(function())
    except Exception as error:
        return type(error), str(error)


def strange_arguments(layer):
    """x, state and lengths of all kinds that are not plain, or are wrong."""
    x = np.random.default_rng(0).standard_normal((4, 2, 5), np.float32)
    _, state = layer(x)
    first = members(state)[0]

    def same_kind(states):
        return tuple(states) if isinstance(state, tuple) else next(iter(states))

    for one in (x[:0], x[:, :0], x[..., :4], x[0, 0], x[0], x[None], x.astype(np.float64), x.astype(">f4"), x[::-1],
                x.tolist(), np.asfortranarray(x), x.astype(int), None, "x", x.astype(complex)):  # fmt: skip
        yield one, None, None
        yield one, state, None
        yield one, state, [1, 4]
    for change in (
        np.float64,
        lambda s: s[:, :1],
        lambda s: s[0],
        lambda s: s[..., :-1],
        lambda s: s[:, ::-1],
        lambda s: s[:, :0],
        lambda s: np.concatenate([s, s]),
        lambda s: s.astype(">f4"),
        lambda s: None,
    ):
        yield x, same_kind(change(s) for s in members(state)), None
        yield x, same_kind(change(s) for s in members(state)), [4, 2]
    for one in (list(members(state)), first, (), (first,), (first,) * 3, 1, "h"):
        yield x, one, None
    counts = np.array([3, 1])
    for one in (counts, counts.astype(np.int8), counts.astype(">i8"), counts.astype(np.uint64), counts.astype(float),
                counts.astype(bool), counts.astype("m8[s]"), counts.astype("M8[s]"), counts.astype(object),
                np.repeat(counts, 2)[::2], counts.view(np.recarray), counts[None], counts[:1], counts[:0], counts[0],
                counts - 2, counts + 2, counts.astype(np.uint32) - 2, counts.astype(np.uint64) - 2, counts - 2**40,
                [3, 1], (3, 1), [3, 5], [-1, 1], [3], [3, 1, 1], [True, 2], [3.0, 1], [2**70, 1], [None, 1], ["3", 1],
                [np.int8(3), 1], range(1, 3), 3, "31", None):  # fmt: skip
        yield x, None, one


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.SLSTM])
def test_all_other_arguments_have_the_results_and_errors_of_the_longer_way(cls, bidirectional):
    layer, frozen = (cls(5, 6, bidirectional=bidirectional, rng=0) for _ in range(2))
    frozen.freeze()
    for x, state, lengths in strange_arguments(layer):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fastrnn.layers, "infer_plain", lambda *_: None)
            expected = outcome(lambda: layer(x, state, lengths))
        assert outcome(lambda: frozen(x, state, lengths)) == outcome(lambda: layer(x, state, lengths)) == expected


def test_results_are_memory_of_their_own():
    for options in ({}, {"num_layers": 2}, {"bidirectional": True}):
        layer = fastrnn.GRU(5, 6, **options, rng=0)
        layer.freeze()
        x = np.ones((4, 2, 5), np.float32)
        results = [layer(x, lengths=lengths) for lengths in (None, None, [4, 4], [3, 1], [1, 3])]
        arrays = [a for output, state in results for a in (output, state)]
        assert all(a.flags.writeable and a.flags.c_contiguous for a in arrays)
        assert not any(np.may_share_memory(a, b) for k, a in enumerate(arrays) for b in (x, *arrays[:k]))


def test_calls_in_threads():
    layer = fastrnn.LSTM(8, 16, 2, bidirectional=True, rng=0)
    layer.freeze()
    inputs = [np.random.default_rng(k).standard_normal((20, 1 + k, 8), np.float32) for k in range(4)]
    lengths = [None, [3, 20], np.array([1, 7, 19]), None]
    expected = [bytes_of(layer(inputs[k], lengths=lengths[k])) for k in range(4)]
    found = [None] * 4

    def run(k):
        found[k] = [bytes_of(layer(inputs[k], lengths=lengths[k])) for _ in range(50)]

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one == expected[k] for k in range(4) for one in found[k])


@settings(max_examples=50 * DEPTH)
@given(
    kind=st.sampled_from(["lstm", "gru", "rnn", "slstm", "ugrnn"]),
    T=st.integers(1, 5),
    B=st.integers(1, 4),
    I=st.integers(0, 5),
    has_state=st.booleans(),
    has_lengths=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_functions_of_one_layer(kind, T, B, I, has_state, has_lengths, reverse, seed):
    """Those of `functional` have the bits of their forward passes once the weights are known, and skip the engine."""
    rng = np.random.default_rng(seed)
    layer = {name.lower(): getattr(fastrnn, name) for name in ("LSTM", "GRU", "RNN", "SLSTM", "UGRNN")}[kind](8, 4)
    _, state = layer(np.zeros((1, 1, 8), np.float32))
    weight_ih, *others = layer.params.values()
    x, weights = rng.standard_normal((T, B, I), np.float32), (weight_ih[:, :I].copy(), *others)
    state = [rng.standard_normal((B, 4), np.float32) for _ in members(state)] if has_state else None
    state = tuple(state) if state and len(state) > 1 else state and state[0]
    lengths = rng.integers(0, T, B, endpoint=True) if has_lengths else None
    arguments = (x, state, *weights)
    function, options = getattr(functional, kind), {"lengths": lengths, "reverse": reverse}
    expected = bytes_of(getattr(functional, f"{kind}_forward")(*arguments, **options)[:2])
    assert bytes_of(function(*arguments, **options)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "function_inputs", None)
        assert bytes_of(function(*arguments, **options)) == expected
        with pytest.raises(TypeError):  # the engine, which is off
            function(*arguments, **options, resets=np.zeros((T, B), bool))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_all_other_arguments_of_functions_have_their_results_and_errors(name):
    layer = (fastrnn.LSTM if name == "lstm" else fastrnn.GRU)(5, 6, rng=0)
    weights, forward = list(layer.params.values()), getattr(functional, f"{name}_forward")
    for x, state, lengths in strange_arguments(layer):
        for one in (state, one_layer(state)):
            expected = outcome(lambda: forward(x, one, *weights, lengths=lengths)[:2])
            for _ in range(2):
                assert outcome(lambda: getattr(functional, name)(x, one, *weights, lengths=lengths)) == expected


@settings(max_examples=30 * DEPTH)
@given(
    cls=st.sampled_from([fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell, fastrnn.UGRNNCell]),
    B=st.integers(1, 5),
    has_state=st.booleans(),
    freeze=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_steps_of_cells(cls, B, has_state, freeze, seed):
    rng = np.random.default_rng(seed)
    cell, x = cls(3, 4, rng=seed), rng.standard_normal((B, 3), np.float32)
    state, _ = cell.forward(x)
    state = state if has_state else None
    expected, _ = cell.forward(x, state)
    if freeze:
        cell.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "_inputs", None)
        found = cell(x, state)
        with pytest.raises(TypeError):  # the longer way, which is off
            cell(x[0])
    assert type(found) is type(expected)
    assert [(a.shape, a.tobytes()) for a in members(found)] == [(a.shape, a.tobytes()) for a in members(expected)]


def test_all_other_arguments_of_cells_have_their_results_and_errors():
    cell, frozen = (fastrnn.LSTMCell(5, 6, rng=0) for _ in range(2))
    frozen.freeze()
    for x, state, _ in strange_arguments(fastrnn.LSTM(5, 6)):
        for rows in (x, x[0] if isinstance(x, np.ndarray) and len(x) else x):
            for one in (state, one_layer(state)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(fastrnn.cells, "infer_step", lambda *_: None)
                    expected = outcome(lambda: (np.zeros(1), cell(rows, one)))
                for each in (cell, frozen):
                    assert outcome(lambda: (np.zeros(1), each(rows, one))) == expected


def one_layer(state):
    """A state (1, B, n) as functions have it, (B, n)."""
    if isinstance(state, tuple):
        return tuple(one_layer(s) for s in state)
    return state[0] if isinstance(state, np.ndarray) and len(state) else state


class Finalizer:
    """Runs a function when the garbage is collected."""

    def __init__(self, function):
        self.function, self.itself = function, self

    def __del__(self):
        self.function()


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("has_lengths", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_collection_of_garbage_may_assign_to_shapes(batch_first, has_lengths, has_state):
    """At any allocation during a call: each call has the results for the old shape or for the new one."""
    layer = fastrnn.GRU(3, 4, batch_first=batch_first, rng=0)
    frozen = copy.deepcopy(layer)
    frozen.freeze()
    x = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(np.float32)
    turned = x.reshape(2, 6, 3)
    states = {shape: np.ones((1, shape[0 if batch_first else 1], 4), np.float32) for shape in (x.shape, turned.shape)}
    state = states[x.shape].copy() if has_state else None
    lengths = np.arange(1, 1 + states[x.shape].shape[1]) % 3 if has_lengths else None
    outcomes = [bytes_of(layer(x.copy(), states[x.shape] if has_state else None, lengths))]
    if not has_state and not has_lengths:
        outcomes.append(bytes_of(layer(turned.copy())))

    def other_shapes():
        x.shape = turned.shape
        if has_state:
            state.shape = (1, -1, 2)
        if has_lengths:
            lengths.shape = (1, -1)

    thresholds = gc.get_threshold()
    try:
        for objects in range(1, 40):
            x.shape = (6, 2, 3)
            if has_state:
                state.shape = (1, -1, 4)
            if has_lengths:
                lengths.shape = (-1,)
            gc.disable()
            gc.collect()
            Finalizer(other_shapes)
            gc.set_threshold(objects, 1000, 1000)
            gc.enable()
            try:
                found = frozen(x, state, lengths)
            except ValueError:
                found = None  # the new shapes of x and state do not fit each other
            finally:
                gc.set_threshold(*thresholds)
            assert bytes_of(found) in outcomes if found is not None else has_state or has_lengths
    finally:
        gc.enable()


def test_the_collection_of_garbage_may_assign_to_the_shapes_of_known_weights():
    """Each call of a function has the result for the old shape, or an error."""
    rng = np.random.default_rng(0)
    sets = [[rng.standard_normal((3 * H, 6), np.float32), rng.standard_normal((3 * H, H), np.float32)] for H in (2, 4)]
    x = rng.standard_normal((3, 2, 6), np.float32)
    expected = bytes_of(functional.gru(x, None, *sets[0]))
    thresholds, gc_objects = gc.get_threshold(), []

    def other_shape():
        sets[0][0].shape = (12, 3)

    try:
        for objects in range(1, 30):
            sets[0][0].shape = (6, 6)
            functional.gru(x, None, *sets[1])  # so that the others are looked up
            gc.disable()
            gc.collect()
            Finalizer(other_shape)
            gc_objects = [(k, k) for k in range(3000)]  # of which no free memory is left
            gc.set_threshold(objects, 1000, 1000)
            gc.enable()
            try:
                found = bytes_of(functional.gru(x, None, *sets[0]))
            except ValueError:
                continue
            finally:
                gc.set_threshold(*thresholds)
            assert found == expected
    finally:
        gc.enable()
    assert gc_objects
