"""Frozen layers and streams: the bits of plain calls, immutable parameters, no shared memory."""

import contextlib
import copy
import gc
import pickle
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import _config, _core
from fastrnn._engine.pool import POOL
from fastrnn._engine.stack import Stack

T, B, I, H, L = 9, 5, 7, 35, 2


def draw(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def everything(layer, x):
    """The bytes of all results of a layer for x."""
    output, state_n = layer(x)
    trained, trained_n, tape = layer.forward(x)
    d_x, d_state, d_params = layer.backward(tape, draw(*output.shape, seed=3))
    arrays = [output, *state_n, trained, *trained_n, d_x, *d_state, d_params.flat]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_frozen_or_not_the_same_bits(dtype, isa, threads, bias, num_threads):
    threads(num_threads)
    layer = fastrnn.LSTM(I, H, L, bias=bias, dtype=dtype, rng=1)
    x = draw(T, B, I, dtype=dtype)
    expected = everything(layer, x)
    layer.freeze()
    assert layer.frozen
    assert everything(layer, x) == expected
    assert everything(layer, x) == expected  # the second time with the memory of the first
    layer.unfreeze()
    assert not layer.frozen
    assert everything(layer, x) == expected


def test_frozen_parameters_are_read_only_and_cannot_be_made_writeable():
    layer = fastrnn.LSTM(I, H, rng=1)
    earlier = layer.params["weight_hh_l0"]
    before = layer.params.flat.copy()
    layer.freeze()
    for array in (earlier, layer.params.flat, *layer.params.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError):
            array.flags.writeable = True
    with pytest.raises(ValueError, match="^bias_ih_l0: is read-only; of a frozen layer, unfreeze"):
        layer.params["bias_ih_l0"] = np.zeros(4 * H)
    with pytest.raises(ValueError, match="^params: the layer is frozen"):
        layer.load_state_dict(layer.state_dict())
    assert layer.params.flat.tobytes() == before.tobytes()


def test_an_array_of_another_shape_is_frozen_too():
    """One whose shape somebody has changed, in whose place `params` gives out another."""
    layer = fastrnn.LSTM(I, H, rng=1)
    earlier = layer.params["weight_hh_l0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        earlier.shape = (H, 4 * H)
    assert layer.params["weight_hh_l0"].shape == (4 * H, H)
    layer.freeze()
    assert not earlier.flags.writeable
    layer.unfreeze()
    assert earlier.flags.writeable


@pytest.mark.parametrize("make", [lambda: fastrnn.LSTM(I, H, rng=1), lambda: fastrnn.GRUCell(I, H, rng=1)])
def test_a_write_through_an_earlier_view_never_mixes_weights(make):
    x = np.ones((T, B, I)) if isinstance(make(), fastrnn.LSTM) else np.ones((B, I))

    def trained(layer):
        *results, tape = layer.forward(x)
        d_state = results[-1]
        return layer.backward(tape, d_state_n=d_state) if len(results) == 2 else layer.backward(tape, d_state)

    layer = make()
    earlier = next(iter(layer.params.values()))[:]
    layer.freeze()
    expected = trained(layer)[-1].flat.tobytes()  # packs the weights for backward
    earlier[...] = 0
    assert trained(layer)[-1].flat.tobytes() == expected

    layer = make()
    earlier = next(iter(layer.params.values()))[:]
    layer.freeze()
    earlier[...] = 0
    with pytest.raises(ValueError, match="^params: written to while frozen"):
        layer.forward(x)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_parameters_stay_writeable_if_freezing_fails(monkeypatch, error):
    def fail(*_):
        raise error

    layer = fastrnn.LSTM(I, H, rng=1)
    monkeypatch.setattr(_core, "pack", fail)
    with pytest.raises(error):
        layer.freeze()
    assert not layer.frozen
    layer.params.flat[...] = 0


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_a_layer_that_is_unfrozen_while_it_freezes_is_not_frozen(monkeypatch, error):
    """By a signal handler or another thread; also if packing fails then."""
    layer = fastrnn.LSTM(3, 4, rng=0)
    pack = Stack.pack

    def unfreezing(self, weights, backward):
        layer.unfreeze()
        if error is not None:
            raise error
        return pack(self, weights, backward)

    monkeypatch.setattr(Stack, "pack", unfreezing)
    with pytest.raises(error) if error else contextlib.nullcontext():
        layer.freeze()
    assert not layer.frozen
    assert all(array.flags.writeable for array in (layer.params.flat, *layer.params.values()))


def test_freezing_beside_freezing(monkeypatch):
    """One that was unfrozen, or fails, leaves another one frozen."""
    layer = fastrnn.LSTM(3, 4, rng=0)
    pack = Stack.pack

    def during(action):
        """Packing that first does something else, once."""

        def packing(self, weights, backward):
            monkeypatch.setattr(Stack, "pack", pack)
            action()
            return pack(self, weights, backward)

        monkeypatch.setattr(Stack, "pack", packing)

    def again():
        layer.unfreeze()
        layer.freeze()

    def failing():
        monkeypatch.setattr(Stack, "pack", None)
        with pytest.raises(TypeError):
            layer.freeze()
        monkeypatch.setattr(Stack, "pack", pack)

    for action in (again, failing):
        during(action)
        layer.freeze()
        assert layer.frozen and not layer.params.flat.flags.writeable
        layer.unfreeze()
        assert layer.params.flat.flags.writeable


def test_threads_freeze_and_unfreeze_and_assign_to_shapes():
    layer, errors, end = fastrnn.LSTM(3, 4, rng=0), [], time.monotonic() + 0.3

    def repeat(action):
        try:
            while time.monotonic() < end:
                action()
        except Exception as error:
            errors.append(error)

    def assign():
        for name in layer.params:
            layer.params[name].shape = (-1,)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=repeat, args=(f,)) for f in (layer.freeze, layer.unfreeze, assign, assign)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert {array.flags.writeable for array in (layer.params.flat, *layer.params.values())} == {not layer.frozen}


def test_after_unfreeze_the_parameters_count_again():
    layer = fastrnn.LSTM(I, H, rng=1)
    x = draw(T, B, I)
    layer.freeze()
    frozen, _ = layer(x)
    layer.unfreeze()
    layer.params.flat *= 0.5
    output, _ = layer(x)
    assert output.tobytes() != frozen.tobytes()
    layer.freeze()  # packs the current parameters
    assert layer(x)[0].tobytes() == output.tobytes()
    layer.freeze()  # a second call changes nothing
    assert layer(x)[0].tobytes() == output.tobytes()


def test_copies_of_a_frozen_layer_are_frozen_and_their_own():
    layer = fastrnn.LSTM(I, H, L, rng=1)
    x = draw(T, B, I)
    layer.freeze()
    expected = everything(layer, x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.frozen and everything(other, x) == expected
        other.unfreeze()
        other.params.flat[...] = 0
        assert not other(x)[0].any()
    assert everything(layer, x) == expected


def test_many_threads_share_a_frozen_layer():
    layer = fastrnn.LSTM(I, H, L, rng=1)
    layer.freeze()
    inputs = [draw(T, B, I, seed=k) for k in range(4)]
    expected = [layer(x)[0].tobytes() for x in inputs]
    wrong = []

    def work(k):
        for _ in range(50):
            if layer(inputs[k])[0].tobytes() != expected[k]:
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_tape_lives_through_freezing_and_through_other_tapes():
    """A released tape's memory may be reused only if no other tape uses it."""
    layer = fastrnn.LSTM(I, H, L, rng=1)
    inputs = [draw(T, B, I, seed=k) for k in range(4)]
    d_output = draw(T, B, H, seed=9)

    def gradient(tape):
        return layer.backward(tape, d_output)[2].flat.tobytes()

    expected = [gradient(layer.forward(x)[2]) for x in inputs]
    first = layer.forward(inputs[0])[2]
    second = layer.forward(inputs[1])[2]
    assert gradient(second) == expected[1]
    del second
    third = layer.forward(inputs[2])[2]
    layer.freeze()
    frozen = layer.forward(inputs[3])[2]
    assert gradient(frozen) == expected[3]
    also_frozen = layer.forward(inputs[2])[2]
    layer.unfreeze()
    del frozen
    gc.collect()
    layer.params.flat[...] = 0
    layer.forward(inputs[3])  # must not pack into memory that also_frozen still reads
    assert gradient(also_frozen) == expected[2]
    assert gradient(first) == expected[0]
    assert gradient(third) == expected[2]


def test_a_tape_of_another_shape_or_size_reuses_nothing_wrongly():
    layer = fastrnn.LSTM(I, H, rng=1)
    shapes = [(9, 5), (3, 5), (9, 5), (0, 2), (5, 9), (15, 3)]
    fresh = [everything(fastrnn.LSTM(I, H, rng=1), draw(*s, I)) for s in shapes]
    assert [everything(layer, draw(*s, I)) for s in shapes] == fresh


def test_a_layer_goes_before_its_tape():
    layer = fastrnn.LSTM(I, H, rng=1)
    _, _, tape = layer.forward(draw(T, B, I))
    del layer
    gc.collect()
    del tape
    gc.collect()


# Streams


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_stream_gives_the_bits_of_the_whole_sequence(dtype, isa, threads, frozen, layers, num_threads):
    threads(num_threads)
    layer = fastrnn.LSTM(I, H, layers, dtype=dtype, rng=1)
    x = draw(T, B, I, dtype=dtype)
    output, (h_n, c_n) = layer(x)
    if frozen:
        layer.freeze()
    stream = layer.stream(B)
    for t in range(T):
        y_t = stream.step(x[t])
        assert y_t.dtype == dtype and y_t.shape == (B, H)
        assert y_t.tobytes() == output[t].tobytes()
    h, c = stream.state
    assert h.tobytes() == h_n.tobytes() and c.tobytes() == c_n.tobytes()

    alone = layer.stream()
    for t in range(T):
        y_t = alone.step(x[t, 2])
        assert y_t.shape == (H,) and y_t.tobytes() == output[t, 2].tobytes()
    h, c = alone.state
    assert h.shape == (layers, H) and c.tobytes() == c_n[:, 2].tobytes()


def test_out_is_written_and_returned():
    layer = fastrnn.LSTM(H, H, rng=1)
    x = draw(T, B, H)
    output, _ = layer(x)
    stream = layer.stream(B)
    wide = np.zeros((B, 2 * H), np.float32)
    for t, out in enumerate([np.empty((B, H), np.float32), wide[:, ::2], np.empty((H, B), np.float32).T]):
        assert stream.step(x[t], out=out) is out
        np.testing.assert_array_equal(out, output[t])
    assert not wide[:, 1::2].any()
    both = x[3].copy()
    assert stream.step(both, both) is both
    assert both.tobytes() == output[3].tobytes()
    room = np.empty((B + 1, H), np.float32)  # x_t and out overlap in part
    room[1:] = x[4]
    assert stream.step(room[1:], out=room[:-1]).tobytes() == output[4].tobytes()


def test_out_may_overlap_x_while_threads_share_a_step(threads):
    """What the thread that is through first writes lies in the rows that the other still reads."""
    threads(2)
    layer = fastrnn.LSTM(1000, 8, rng=1)
    x = draw(100, 64, 1000)
    output, _ = layer(x)
    stream = layer.stream(64)
    room = np.empty((64, 1000), np.float32)
    for t, (x_t, expected) in enumerate(zip(x, output)):
        room[...] = x_t
        out = room[t % 64, : 64 * 8].reshape(64, 8)
        assert stream.step(room, out=out).tobytes() == expected.tobytes()


def test_any_array_like_is_an_input():
    layer = fastrnn.LSTM(3, 4, rng=1)
    x = draw(6, 2, 3)
    output, _ = layer(x)
    stream = layer.stream(2)
    read_only = x[2].copy()
    read_only.flags.writeable = False
    swapped = x[4].astype(x.dtype.newbyteorder())
    for t, x_t in enumerate([x[0].tolist(), x[1].astype(np.float64), read_only, np.asfortranarray(x[3]), swapped]):
        assert stream.step(x_t).tobytes() == output[t].tobytes()


def test_state_is_read_set_and_reset():
    layer = fastrnn.LSTM(I, H, L, rng=1)
    x = draw(T, B, I)
    output, _ = layer(x)
    _, middle = layer(x[:4])
    stream = layer.stream(B)
    stream.state = middle
    assert stream.step(x[4]).tobytes() == output[4].tobytes()
    kept = stream.state
    kept[0][...] = 7  # a copy
    assert stream.step(x[5]).tobytes() == output[5].tobytes()
    stream.reset()
    assert stream.step(x[0]).tobytes() == output[0].tobytes()
    h, c = stream.state
    stream.state = (h, None)
    assert np.array_equal(stream.state[0], h) and not stream.state[1].any()
    for wrong, message in [
        ((h[0], c), r"^state \(h\): expected \(num_layers=2, B=5, hidden_size=35\), got \(5, 35\)"),
        ((h, c[:, :2]), r"^state \(c\): expected"),
        ((h,), "^state: expected a tuple"),
    ]:
        before = [s.tobytes() for s in stream.state]
        with pytest.raises(ValueError, match=message):
            stream.state = wrong
        assert [s.tobytes() for s in stream.state] == before


def test_bad_arguments_change_nothing():
    layer = fastrnn.LSTM(3, 4, rng=1)
    read_only = np.zeros((2, 4), np.float32)
    read_only.flags.writeable = False
    x_t = np.ones((2, 3), np.float32)
    stream = layer.stream(2)
    stream.step(x_t)
    before = [s.tobytes() for s in stream.state]
    for arguments, error, message in [
        ((np.ones((3, 3), np.float32),), ValueError, r"^x_t: expected \(B=2, input_size=3\), got \(3, 3\)"),
        ((np.ones(3, np.float32),), ValueError, "^x_t: expected"),
        ((np.ones((2, 3), complex),), TypeError, "^x_t: cannot be cast"),
        ((None,), TypeError, "^x_t"),
        ((x_t, np.empty((2, 3), np.float32)), ValueError, r"^out: expected \(B=2, hidden_size=4\), got \(2, 3\)"),
        ((x_t, np.empty((2, 4))), TypeError, "^out: expected an array of float32, got an array of float64"),
        ((x_t, [[0] * 4] * 2), TypeError, "^out: expected an array of float32, got list"),
        (
            (x_t, np.empty((2, 4), np.float32).view(np.recarray)),
            TypeError,
            "^out: expected an array of float32, got recarray",
        ),
        ((x_t, read_only), ValueError, "^out: is read-only"),
    ]:
        with pytest.raises(error, match=message):
            stream.step(*arguments)
        assert [s.tobytes() for s in stream.state] == before
    for size, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (2**62, ValueError)]:
        with pytest.raises(error, match="^batch_size"):
            layer.stream(size)
    with pytest.raises(ValueError, match=r"^x_t: expected \(input_size=3,\), got \(1, 3\)"):
        layer.stream().step(np.ones((1, 3), np.float32))


def test_a_stream_keeps_the_weights_it_was_made_with():
    layer = fastrnn.LSTM(3, 4, rng=1)
    x = draw(3, 2, 3)
    output, _ = layer(x)
    stream = layer.stream(2)
    layer.params.flat[...] = 0
    for t in range(3):
        assert stream.step(x[t]).tobytes() == output[t].tobytes()
    layer.freeze()
    frozen = layer.stream(2)
    layer.unfreeze()
    layer.params.flat[...] = 1
    del layer
    assert not frozen.step(x[0]).any()


def test_streams_of_different_instruction_sets_may_meet():
    """Packed weights carry the table that packed them."""
    layer = fastrnn.LSTM(I, H, rng=1)
    x_t = draw(B, I)
    results = {}
    for name in _config.runnable():
        with _config.using(name):
            results[name] = layer(x_t[None])[0][0], layer.stream(B)
    for expected, stream in results.values():
        assert stream.step(x_t).tobytes() == expected.tobytes()


@pytest.mark.parametrize("use", ["copy", "deepcopy", "pickle"])
def test_a_stream_is_not_copied(use):
    stream = fastrnn.LSTM(3, 4, rng=1).stream()
    with pytest.raises(TypeError, match="^a stream cannot be copied"):
        {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickle.dumps}[use](stream)


def test_a_stream_that_no_layer_made_is_refused():
    stream = type(fastrnn.LSTM(3, 4).stream()).__new__(fastrnn.stream.Stream)
    with pytest.raises(TypeError, match="^this stream was not made by a layer"):
        stream.step(np.zeros(3, np.float32))


def test_layers_that_share_parameters_are_frozen_together():
    layer = fastrnn.LSTM(I, H, rng=1)
    x = draw(T, B, I)
    other = copy.copy(layer)
    assert other.params is layer.params
    layer.freeze()
    assert other.frozen
    assert other(x)[0].tobytes() == layer(x)[0].tobytes()
    third = copy.copy(layer)
    other.unfreeze()
    layer.params.flat[...] = 0
    for each in (layer, other, third):
        assert not each.frozen and not each(x)[0].any()


def test_a_tape_that_comes_to_life_again_keeps_its_memory():
    """The garbage collector calls __del__ of all objects of a cycle, and one of them may keep the tape alive."""
    layer = fastrnn.LSTM(I, H, rng=1)
    kept = []

    class Holder:
        def __init__(self, tape):
            self.tape, self.me = tape, self

        def __del__(self):
            kept.append(self.tape)

    output, _, tape = layer.forward(draw(T, B, I))
    expected = layer.backward(tape, output)[2].flat.tobytes()
    Holder(tape)
    del tape
    gc.collect()
    (tape,) = kept
    other = layer.forward(draw(T, B, I, seed=1))[2]
    assert not np.shares_memory(tape.memory.buffers[0], other.memory.buffers[0][0])
    if tape.owner() is layer:
        assert layer.backward(tape, output)[2].flat.tobytes() == expected
    else:  # some versions of the collector clear the weak references of garbage first
        with pytest.raises(ValueError, match="^tape: made by another layer, one that is gone"):
            layer.backward(tape, output)


@pytest.mark.parametrize("with_layer", [False, True])
def test_a_tape_in_a_cycle_goes(with_layer):
    """The tape's memory returns to the pool, also if its layer is in the cycle."""
    layer = fastrnn.LSTM(I, H, rng=1)
    POOL.clear()
    tape = layer.forward(draw(T, B, I))[2]
    kept = tape.kept.nbytes
    cycle = [tape, layer if with_layer else None]
    cycle.append(cycle)
    if with_layer:
        layer._tape = tape
        del layer
    before = POOL.nbytes
    del tape, cycle
    gc.collect()
    assert POOL.nbytes >= before + kept


@pytest.mark.parametrize("use", ["copy", "deepcopy", "pickle"])
def test_the_memory_of_a_tape_is_not_copied(use):
    memory = fastrnn.LSTM(I, H, rng=1).forward(draw(T, B, I))[2].memory
    with pytest.raises(TypeError, match="TapeMemory"):
        {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickle.dumps}[use](memory)


def test_large_tapes_leave_nothing(monkeypatch):
    monkeypatch.setattr(POOL, "most_bytes", 100_000)
    x = draw(T, B, I)
    for hidden_size, left in [(20, 3), (120, 0)]:  # gates, and packed weights for forward and backward
        POOL.clear()
        layer = fastrnn.LSTM(I, hidden_size, rng=1)
        layer.forward(x)
        assert len(POOL) == left
        assert POOL.nbytes <= 100_000


def test_weights_of_another_precision_are_refused():
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=1)
    layer.freeze()
    stream = layer.stream()
    (packed,) = layer.params._frozen.for_forward
    x, h, output = draw(T, B, I), draw(1, B, H), np.empty((T, B, H), np.float32)
    with pytest.raises(ValueError, match="precision"):
        _core.forward([_core.ForwardCall(packed, 0, x, None, [h, h], [h.copy(), h.copy()], output)], False, 1)
    assert stream.step(x[0, 0]).dtype == np.float64
