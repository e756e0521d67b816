"""Ctrl-C cancels a long call, and all objects can be used afterwards."""

import contextlib
import gc
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from adapters import missing_packages
from fastrnn import _config, _core
from fastrnn._core import ForwardCall

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
                for _ in range(100):  # a fast machine might finish earlier
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
    """And nobody else: the call, to which they are zeros, goes on to the same bits."""
    threads(num_threads)
    layer, x = long_case(fastrnn.LSTM)
    x[..., 0] *= np.float32(1e-40)
    x[..., 1:] = 0  # denormals are slow
    layer.params["weight_ih_l0"][...] *= np.float32(1e38)
    denormal, within = np.array([2.0**-1070]), []

    def handler(*_):
        within.append((float(denormal[0]) > 0, float("1e-310"), (denormal * 2).tobytes()))

    handler()
    before = signal.signal(signal.SIGALRM, handler)
    with _config.using("generic"):
        expected = layer(np.zeros_like(x))[0].tobytes()
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


def test_no_alarm_is_lost_in_a_training_loop():
    """Python ignores exceptions of signal handlers within `__del__` and other finalizers."""

    class Alarm(Exception):
        pass

    def handler(*_):
        nonlocal raised
        raised += 1
        raise Alarm

    def train_until_alarm(n):  # a function, since `try` does not cover the jump of a loop within it in Python 3.13
        while raised == n:
            output, _, tape = layer.forward(x)
            layer.backward(tape, output)

    layer, x = fastrnn.LSTM(4, 5, num_layers=2, rng=0), np.ones((3, 2, 4), np.float32)
    raised = lost = 0
    gc.collect()
    gc.disable()  # other tests' objects have finalizers
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for n in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 50e-6 + n % 150 * 1e-6)
                train_until_alarm(n)
                lost += 1
            except Alarm:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert (raised, lost) == (1000, 0)


def test_no_class_has_a_finalizer_in_python():
    names = [module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")]
    names = [name for name in names if not missing_packages(name)]
    modules = [importlib.import_module(name) for name in names]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    classes = [cls for cls in classes if cls.__module__.startswith("fastrnn")]
    assert fastrnn.layers.LayerTape in classes
    assert [cls for cls in classes if hasattr(cls, "__del__")] == []


class Running:
    """A running call, of the slowest instruction set and on one thread, with access to its output."""

    def __init__(self, T):
        self.layer, x = long_case(fastrnn.LSTM)
        self.x, self.output = np.resize(x, (T, 16, 128)), np.zeros((T, 16, 128), np.float32)

    def run(self):
        packed = _core.pack(_core.Kernel("lstm"), self.layer._weights, False, 1, _config.instruction_set())
        state_0, state_n = ([np.zeros((1, 16, 128), np.float32) for _ in "hc"] for _ in range(2))
        _core.forward([ForwardCall(packed[0], 0, self.x, None, state_0, state_n, self.output)], False, 1)

    def has_begun(self):
        return bool(self.output[0, -1, -1] != 0)

    def has_ended(self):
        return bool(self.output[-1, -1, -1] != 0)


def test_other_threads_than_the_main_one_do_not_ask_for_the_gil(threads):
    """This thread holds the GIL until the call has computed its last step."""
    threads(1)
    call, before = Running(1000), sys.getswitchinterval()
    worker = threading.Thread(target=call.run)
    with _config.using("generic"):
        worker.start()
        while not call.has_begun():
            time.sleep(1e-4)
        sys.setswitchinterval(1000)  # seconds until other threads may request it
        try:
            deadline = time.monotonic() + 60
            while not call.has_ended() and time.monotonic() < deadline:
                pass
            ended = call.has_ended()
        finally:
            sys.setswitchinterval(before)
        worker.join()
    assert ended


def test_a_question_that_takes_long_is_not_asked_again_at_once(threads):
    """The 50 ms count from the answer of the poll, which waits for the GIL if other threads hold it."""
    threads(1)

    def handler(_, frame):
        if call.has_ended():
            return
        if frame.f_code is not handler.__code__:  # signals that arrive within this handler do not count as polls
            begins.append(time.time())
            while time.time() < begins[-1] + 0.06:
                pass
            ends.append(time.time())
        signal.setitimer(signal.ITIMER_REAL, 0.005)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for T in 1000 * 2 ** np.arange(6):  # until a call is long enough for two polls, which depends on the machine
            call, begins, ends = Running(T), [], []
            with _config.using("generic"):
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                call.run()
            signal.setitimer(signal.ITIMER_REAL, 0)
            if len(begins) > 1:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(begins) > 1
    assert all(begin - end > 0.049 for begin, end in zip(begins[1:], ends))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_thread_that_forked_is_interrupted_in_the_child():
    """It is the child's main thread."""
    code = """
import os, signal, sys, threading
sys.path.insert(0, TESTS)
import fastrnn
from fastrnn import _config
from test_interrupt import Running, ctrl_c_after

def fork():
    child = os.fork()
    if child == 0:
        call = Running(10000)
        try:
            with ctrl_c_after(0.05), _config.using("generic"):
                call.run()
        except KeyboardInterrupt:
            os._exit(call.has_ended())
        os._exit(2)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

statuses = []
worker = threading.Thread(target=fork)
worker.start()
worker.join()
assert statuses == [0], statuses
"""
    code = code.replace("TESTS", repr(str(Path(__file__).parent)))
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
