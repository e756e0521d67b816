"""Ctrl-C ends a call that would take long, and everything can be used afterwards."""

import contextlib
import signal
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import _config

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")


@contextlib.contextmanager
def ctrl_c_after(seconds):
    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def long_case(cls, **options):
    """Seconds of work for the slowest instruction set, in little memory."""
    layer = cls(128, 128, **options, rng=0)
    return layer, np.random.default_rng(1).standard_normal((3000, 16, 128), dtype=np.float32)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN])
def test_forward(threads, num_threads, cls, options):
    threads(num_threads)
    layer, x = long_case(cls, **options)
    small = x[:3, :2].copy()
    with _config.using("generic"):
        expected = layer(small)[0].tobytes()
        for way in (layer, layer.forward):
            with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.05):
                for _ in range(100):  # a fast machine might be through before
                    way(x)
            assert layer(small)[0].tobytes() == expected


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("checkpoint_every", [None, 100])
def test_backward(threads, num_threads, checkpoint_every):
    threads(num_threads)
    layer, x = long_case(fastrnn.LSTM)
    x = x[:600]
    output, _, tape = layer.forward(x, checkpoint_every=checkpoint_every)
    expected = layer.backward(tape, output)[2].flat.tobytes()
    with _config.using("generic"):
        _, _, slow = layer.forward(x, checkpoint_every=checkpoint_every)
        with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.05):
            for _ in range(100):
                layer.backward(slow, output)
    assert layer.backward(tape, output)[2].flat.tobytes() == expected


def test_other_errors_of_handlers_arrive_as_they_are():
    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm("wake up")

    layer, x = long_case(fastrnn.LSTM)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with _config.using("generic"), pytest.raises(Alarm, match="wake up"):
            for _ in range(100):
                layer(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_handlers_that_return_interrupt_nothing():
    calls = []
    layer, x = long_case(fastrnn.LSTM)
    expected = layer(x)[0].tobytes()
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        assert layer(x)[0].tobytes() == expected
        for _ in range(5):
            layer(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls


@pytest.mark.parametrize("num_threads", [1, 2])
def test_handlers_compute_with_denormals(threads, num_threads):
    threads(num_threads)
    layer, x = long_case(fastrnn.LSTM)
    denormal, within = np.array([2.0**-1070]), []

    def handler(*_):
        within.append((float(denormal[0]) > 0, float("1e-310"), (denormal * 2).tobytes()))

    handler()
    before = signal.signal(signal.SIGALRM, handler)
    with _config.using("generic"):
        expected = layer(x)[0].tobytes()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            assert layer(x)[0].tobytes() == expected
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert within == [(True, 1e-310, (denormal * 2).tobytes())] * 2


@pytest.mark.parametrize("num_threads", [1, 2])
def test_handlers_may_make_calls_themselves(threads, num_threads):
    threads(num_threads)
    layer, x = long_case(fastrnn.LSTM)
    other, d_output = fastrnn.GRU(128, 200, rng=2), np.ones((10, 16, 200), np.float32)
    x = x[:600]

    def run(layer, x, d_output):
        output, _, tape = layer.forward(x)
        return output.tobytes() + layer.backward(tape, d_output)[2].flat.tobytes()

    within = []
    before = signal.signal(signal.SIGALRM, lambda *_: within.append(run(other, x[:10], d_output)))
    with _config.using("generic"):
        expected, of_other = run(layer, x, x), run(other, x[:10], d_output)
        try:
            for _ in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.02)  # once: a handler may take longer than any interval
                assert run(layer, x, x) == expected
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert within and within == [of_other] * len(within)


def test_threads_that_get_no_signals_compute_as_ever():
    layer, x = long_case(fastrnn.GRU)
    expected = layer(x[:200])[0].tobytes()
    found = []
    worker = threading.Thread(target=lambda: found.append(layer(x[:200])[0].tobytes()))
    worker.start()
    worker.join()
    assert found == [expected]
