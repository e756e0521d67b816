"""The pool of buffers: what it lends is nobody else's, and what it keeps has one limit."""

import gc
import os
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from fastrnn._engine import spec
from fastrnn._engine.pool import POOL

FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def pool():
    return _core.Pool(1 << 20)


def packed(H=64, backward=False, pool=None, peephole=False):
    weights = [np.zeros((4 * H, H), np.float32), np.zeros((4 * H, H), np.float32)]
    if peephole:
        weights += [None, None, None, np.zeros((3, H), np.float32)]
    (one,) = _core.pack(_core.Kernel("lstm"), [tuple(weights)], backward, 1, "generic", pool)
    return one


@pytest.mark.parametrize("shape, columns", [((3, 5), 7), ((40, 50), 33), ((2000,), 9), ((0, 4), 3), ((1,), 0)])
def test_arrays(pool, shape, columns, dtype):
    array = pool.array(shape, columns, np.dtype(dtype))
    assert array.shape == (*shape, columns) and array.dtype is np.dtype(dtype)
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    assert array.ctypes.data % 64 == 0
    array[...] = 1
    assert pool.bytes(100_000).ctypes.data % 64 == 0


def test_memory_comes_back(pool):
    first = pool.array((100, 10), 20, FLOAT32)
    address = first.ctypes.data
    pool.give_back(first)
    assert len(pool) == 1 and pool.nbytes >= first.nbytes
    second = pool.array((99, 10), 20, FLOAT32)
    assert second.ctypes.data == address and len(pool) == 0 and pool.nbytes == 0
    third = pool.array((100, 10), 20, FLOAT32)
    assert not np.shares_memory(second, third)


def test_a_buffer_much_too_large_is_left_alone(pool):
    large = pool.bytes(500_000)
    pool.give_back(large)
    assert not np.shares_memory(pool.bytes(20_000), large) and len(pool) == 1
    assert np.shares_memory(pool.bytes(400_000), large)


def test_what_the_pool_has_not_lent_is_ignored(pool):
    lent = pool.bytes(100_000)
    small = pool.bytes(10)  # quickly allocated, and not worth keeping
    others = [
        np.zeros(100_000),
        np.zeros(100_000)[1:],
        lent[1:],
        lent.view(),
        small,
        None,
        "text",
        pool.lease((100_000,), np.dtype(np.uint8)),
    ]
    pool.give_back_all(others)
    assert len(pool) == 0
    pool.give_back(lent)
    pool.give_back(lent)  # not twice
    assert len(pool) == 1


def test_a_lease_ends_with_its_last_view(pool):
    array = pool.lease((10, 20, 30), FLOAT32)
    assert array.shape == (10, 20, 30) and array.flags.c_contiguous and array.ctypes.data % _core.ALIGNMENT == 0
    address, view = array.ctypes.data, array[5:]
    del array
    assert len(pool) == 0
    del view
    assert len(pool) == 1
    assert pool.lease((6000,), FLOAT32).ctypes.data == address
    pool.lease((3,), FLOAT32)  # small ones are not kept
    assert len(pool) == 1


def test_the_limit(pool):
    arrays = [pool.bytes(200_000) for _ in range(9)]
    for array in arrays:
        pool.give_back(array)
        assert pool.nbytes <= 1 << 20
    assert len(pool) == 5
    kept = pool.bytes(200_000)
    assert any(np.shares_memory(kept, array) for array in arrays[-5:])  # the others went first
    pool.give_back(pool.bytes(2 << 20))
    assert len(pool) == 4
    pool.clear()
    assert len(pool) == 0 and pool.nbytes == 0


def test_many_small_buffers(pool):
    for array in [pool.bytes(4096) for _ in range(400)]:
        pool.give_back(array)
    assert len(pool) == pool.nbytes // (4096 + 64) <= 256


def test_packed_weights(pool):
    one = packed()
    pool.give_back(one)
    assert len(pool) == 1 and pool.nbytes == one.nbytes > 0
    assert packed(63, pool=pool) is not one
    assert packed(backward=True, pool=pool) is not one
    assert packed(pool=pool) is one and len(pool) == 0
    pool.give_back(one)
    assert packed(peephole=True, pool=pool).nbytes == packed(peephole=True).nbytes > packed().nbytes


def test_calls_give_back_what_they_take():
    POOL.clear()
    x = np.ones((50, 8, 32), np.float32)
    for options in ({}, {"num_layers": 3}, {"num_layers": 2, "bidirectional": True}):
        layer = fastrnn.LSTM(32, 64, **options, rng=0)
        for lengths in (None, np.arange(8) + 1):
            sizes = []
            for _ in range(4):
                layer(x, lengths=lengths)
                output, _, tape = layer.forward(x, lengths=lengths)
                layer.backward(tape, output)
                del output, tape
                sizes.append((len(POOL), POOL.nbytes))
            assert sizes[-1] == sizes[-2], (options, lengths)
    assert POOL.nbytes <= POOL.most_bytes


def test_results_are_never_lent_again():
    layer, x = fastrnn.GRU(32, 64, num_layers=2, bidirectional=True, rng=0), np.ones((50, 8, 32), np.float32)
    lengths = np.arange(8) + 1
    kept, expected = [], []
    for _ in range(5):
        output, h_n, tape = layer.forward(x, lengths=lengths)
        d_x, d_h_0, d_params = layer.backward(tape, output)
        kept += [layer(x)[0], output, h_n, d_x, d_h_0, d_params.flat]
        expected += [array.tobytes() for array in kept[-6:]]
    assert [array.tobytes() for array in kept] == expected
    assert not any(np.shares_memory(a, b) for k, a in enumerate(kept) for b in kept[:k])


def test_threads_share_a_pool(pool):
    """Each finds in an array what it has written."""
    wrong = []

    def work(number):
        for k in range(300):
            array = pool.array((10, 10), 100 + k % 7 * 30, FLOAT32)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)
            pool.give_back(array)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and pool.nbytes <= pool.most_bytes


def test_the_memory_of_a_tape(pool):
    array = pool.bytes(100_000)
    memory = _core.TapeMemory([array, packed(), None], pool)
    assert memory.buffers[0] is array and len(pool) == 0
    del memory
    gc.collect()
    assert len(pool) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_in_a_child(pool):
    pool.give_back(pool.bytes(100_000))
    child = os.fork()
    if child == 0:
        POOL.after_fork()
        pool.after_fork()
        pool.give_back(pool.bytes(200_000))
        os._exit(0 if len(pool) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# The specifications on which shapes, checks, files and pickles stand


@pytest.mark.parametrize("cell", spec.SPECS.values(), ids=spec.SPECS)
def test_specifications(cell):
    """Every option of a class is specified, and the shapes of weights can be solved for the sizes that made them."""
    cls = getattr(fastrnn, cell.name.upper())
    assert cls._spec is cell and {"input_size", "hidden_size", "dtype"} <= set(cls._option_names)
    for present in ({}, {"bias": True}, {weight.option: True for weight in cell.weights}):
        has_projection = any(weight.shape[0] == "P" and present.get(weight.option) for weight in cell.weights)
        sizes = {"I": 3, "H": 8, "P": 5 if has_projection else 8}
        if cell.name == "slstm":
            sizes["num_heads"] = 2
        shapes = cell.shapes(sizes, present)
        given = [shapes.get(name) for name in cell.weight_names]
        assert cell.solve(given, {}, cell.weight_names) == sizes
        assert shapes["weight_ih"] == (len(cell.gates) * 8, 3)
    assert cell.widths(8, 5) == (5, *[8] * (len(cell.states) - 1))
    assert set(cell.options) <= set(spec.OPTIONS)


def test_dimensions():
    sizes = {"H": 12, "num_heads": 4}
    assert [spec.size_of(text, sizes) for text in ("H", "4*H", "3", "H/num_heads", "2*H/num_heads")] == [
        12,
        48,
        3,
        3,
        6,
    ]


def test_options_of_newer_versions_are_defaults_in_older_files(monkeypatch):
    """A file or a pickle of before an option was there lacks it, and so means its default."""
    layer = fastrnn.LSTM(3, 4, rng=1)
    newer = spec.OPTIONS["peephole"].__class__(**vars(spec.OPTIONS["peephole"]) | {"since": 2})
    monkeypatch.setitem(spec.OPTIONS, "peephole", newer)
    state = layer.__getstate__()
    del state["arguments"]["peephole"]
    other = fastrnn.LSTM.__new__(fastrnn.LSTM)
    other.__setstate__(state)
    assert repr(other) == repr(layer) and other.params == layer.params


def test_large_results_lie_in_the_pool_and_small_ones_do_not(pool):
    small, large = pool.empty((16, 16), np.float32), pool.empty((40, 8, 64), "f8")
    assert small.flags.owndata and len(pool) == 0
    assert large.shape == (40, 8, 64) and large.dtype == np.float64
    assert large.flags.c_contiguous and large.flags.writeable
    assert large.ctypes.data % 64 == 0
    address = large.ctypes.data
    del large
    assert len(pool) == 1 and pool.empty(20_000, np.float64).ctypes.data == address


@pytest.mark.parametrize("steps", [2, 200], ids=["small", "large"])
def test_results_can_be_made_read_only_and_writeable_again(steps):
    layer = fastrnn.LSTM(8, 64, rng=0)
    x = np.ones((steps, 16, 8), np.float32)
    output, _, tape = layer.forward(x)
    d_x, _, d_params = layer.backward(tape, output)
    for array in (layer(x)[0], output, d_x, d_params.flat):
        for writeable in (False, True):
            array.flags.writeable = writeable
            assert array.flags.writeable is writeable


def test_a_kept_result_wastes_little(pool):
    pool.give_back(pool.bytes(400_000))
    assert len(pool) == 1
    kept = pool.empty(250_000, np.uint8)
    assert len(pool) == 1  # a buffer of another size
    assert np.shares_memory(pool.bytes(250_000), kept) is False and len(pool) == 0


def test_a_result_keeps_its_memory_as_long_as_any_view_of_it(threads):
    threads(2)
    layer, head = fastrnn.LSTM(8, 64, rng=0), fastrnn.Linear(64, 40, rng=0)
    x = np.random.default_rng(0).standard_normal((50, 16, 8)).astype(np.float32)

    def results():
        output, _, tape = layer.forward(x)
        logits, head_tape = head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, np.zeros((50, 16), int))
        d_output, d_head = head.backward(head_tape, d_logits)
        d_x, _, d_params = layer.backward(tape, d_output)
        return [a[1:] for a in (layer(x)[0], output, logits, d_logits, d_output, d_x, d_params.flat)]

    first = results()
    expected = [a.copy() for a in first]
    for _ in range(5):
        again = results()
        assert not any(np.shares_memory(a, b) for a in first for b in again)
        del again
    for a, b in zip(first, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_objects_that_were_never_initialized_end_silently(monkeypatch):
    """`__dealloc__` of every class of the binding after `__new__` alone: its exceptions reach nobody but this hook."""
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    classes = [c for c in vars(_core).values() if isinstance(c, type) and c.__module__ == _core.__name__]
    assert _core.Lease in classes
    for c in classes:
        if c is not _core.Pool:  # which needs a limit
            c.__new__(c)
    gc.collect()
    assert [u.object for u in unraisable] == []
