"""Arguments whose conversion runs code that changes other arguments or the layer.

A call first converts all its arguments into private arrays, and checks these. So it returns the right result or raises
an error that names the argument, and never writes out of bounds. A failure could crash the process, so every case runs
in a new process.
"""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastrnn

PRELUDE = """
import numpy as np
import fastrnn
from fastrnn import functional, reference

T, B, I, H = 60, 40, 3, 5


class Evil:
    '''Stands for `array`; its conversion calls `act` first.'''

    def __init__(self, array, act):
        self.array, self.act = array, act

    def __array__(self, dtype=None, copy=None):
        self.act()
        return self.array


def reshape(array, shape):
    return lambda: setattr(array, "shape", shape)


def draw(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def refused(call, *names):
    try:
        call()
    except (TypeError, ValueError) as error:
        assert str(error).startswith(names), error
    else:
        raise AssertionError("not refused")


def many(call):  # what was written beyond a block shows when others are allocated and freed
    for _ in range(30):
        call()


x, flat_x = draw(T, B, I), (T * B * I, 1, 1)
weights = draw(H, I), draw(H, H)
h = draw(B, H)
"""

CASES = {
    "functional": """
        def call():
            y = x.copy()
            output, h_n = functional.rnn(y, Evil(h, reshape(y, flat_x)), *weights)
            assert output.tobytes() == functional.rnn(x, h, *weights)[0].tobytes()
    """,
    "a weight": """
        def call():
            w = draw(H, I)
            act = reshape(w, (1, H * I))
            output, h_n = functional.rnn(x, h, w, Evil(weights[1], act))
            assert output.tobytes() == functional.rnn(x, h, *weights)[0].tobytes()
    """,
    "the array that __array__ returns": """
        def call():
            given = [draw(T, B, I), h.copy()]
            state = Evil(given[1], lambda: setattr(given[0], "shape", flat_x))
            lengths = Evil(np.full(B, T), lambda: setattr(given[1], "shape", (1, B * H)))
            output, h_n = functional.rnn(Evil(given[0], int), state, *weights, lengths=lengths)
            assert output.tobytes() == functional.rnn(x, h, *weights)[0].tobytes()
    """,
    "layer": """
        layer = fastrnn.LSTM(I, H, rng=0)
        c = draw(1, B, H)
        expected = layer(x, (c, c))[0].tobytes()
        def call():
            y = x.copy()
            assert layer(y, (Evil(c, reshape(y, flat_x)), c))[0].tobytes() == expected
            y = x.copy()
            d = c.copy()
            assert layer(y, (d, Evil(c, reshape(d, (B, 1, H)))))[0].tobytes() == expected
            layer.forward(y, (Evil(c, reshape(y, flat_x)), c))
    """,
    "layer with lengths": """
        layer = fastrnn.GRU(I, H, bidirectional=True, rng=0)
        expected = layer(x, lengths=range(B))[0].tobytes()
        def call():
            y = x.copy()
            assert layer(y, lengths=Evil(np.arange(B), reshape(y, flat_x)))[0].tobytes() == expected
    """,
    "gradients": """
        layer = fastrnn.RNN(I, H, rng=0)
        _, _, tape = layer.forward(x)
        _, _, raw = functional.rnn_forward(x, h, *weights)
        expected = layer.backward(tape, np.ones((T, B, H), np.float32), h[None])[0].tobytes()
        def call():
            d_output = np.ones((T, B, H), np.float32)
            evil = Evil(h[None], reshape(d_output, (T * B * H, 1, 1)))
            assert layer.backward(tape, d_output, evil)[0].tobytes() == expected
            d_output.shape = T, B, H
            functional.rnn_backward(raw, d_output, Evil(h, reshape(d_output, (T * B * H, 1, 1))))
    """,
    "cell": """
        cell = fastrnn.GRUCell(I, H, rng=0)
        x_t, tape = draw(B, I), cell.forward(draw(B, I))[1]
        expected = cell(x_t, h).tobytes()
        def call():
            y = x_t.copy()
            assert cell(y, Evil(h, reshape(y, (B * I, 1))) if B else None).tobytes() == expected
            y = x_t.copy()
            cell.forward(y, Evil(h, reshape(y, (B * I, 1))))
    """,
    "lengths that are other numbers when compared": """
        class Lying(int):
            __lt__ = __gt__ = lambda self, other: False

        class Longer(list):
            __iter__ = lambda self: iter([T] * 4000)

        class Shrinking(int):
            def __index__(self):
                return 10**6
        def call():
            layer = fastrnn.GRU(I, H, rng=0)
            refused(lambda: layer(x, lengths=[Lying(10**6)] * B), "lengths: expected 0 to T=60, got 1000000")
            refused(lambda: layer(x, lengths=Longer([T] * B)), "lengths: expected (B=40,), got (4000,)")
            functional.rnn(x, h, *weights, lengths=[Shrinking(3)] * B)
    """,
    "a state that shrinks": """
        def call():
            layer = fastrnn.LSTM(I, H, rng=0)
            state = [None, draw(1, B, H)]
            state[0] = Evil(draw(1, B, H), state.clear)
            layer(x, state)
            refused(lambda: functional.lstm(x, Endless([h, h, h]), draw(4 * H, I), draw(4 * H, H)), "state: expected")

        class Endless(list):
            __len__ = lambda self: 2
    """,
    "stream": """
        def call():
            stream = fastrnn.LSTM(I, H, 2, rng=0).stream(B)
            out = np.zeros((B, H), np.float32)
            refused(lambda: stream.step(Evil(draw(B, I), reshape(out, (B * H,))), out), "out: expected")
            c = draw(2, B, H)
            stream.state = c, Evil(c.copy(), reshape(c, (B, 2, H)))
            stream.step(Evil(draw(B, I), lambda: stream.step(draw(B, I))))
    """,
    "another layer in its place": """
        def call():
            layer = fastrnn.LSTM(I, H, rng=0)
            evil = Evil(None, lambda: layer.__init__(I + 200, 70, 2))
            evil.array = draw(1, B, H)
            refused(lambda: layer(x, (evil, None)), "x: expected", "state (h_0): expected")
            cell = fastrnn.LSTMCell(I, H, rng=0)
            evil = Evil(draw(B, H), lambda: cell.__init__(I + 200, 70))
            refused(lambda: cell(draw(B, I), (evil, None)), "x: expected", "state (h): expected")
            for frozen, given in ((fastrnn.LSTM(I, H, rng=0), draw(1, B, H)), (fastrnn.LSTMCell(I, H), draw(B, H))):
                frozen.freeze()
                evil = Evil(given, lambda: (frozen.__init__(I, 1, rng=0), frozen.freeze()))
                refused(lambda: frozen(x if given.ndim == 3 else draw(B, I), (evil, None)), "state")
    """,
    "freezing": """
        def call():
            layer = fastrnn.RNN(I, H, rng=0)
            given = dict(layer.state_dict())
            given["bias_hh_l0"] = Evil(given["bias_hh_l0"], layer.freeze)
            refused(lambda: layer.load_state_dict(given), "params: the layer is frozen")
            layer.unfreeze()
            expected = layer(x)[0].tobytes()
            assert layer(x, Evil(np.zeros((1, B, H)), layer.freeze))[0].tobytes() == expected
            assert layer(x, Evil(np.zeros((1, B, H)), layer.unfreeze))[0].tobytes() == expected
            assert layer(x, Evil(np.zeros((1, B, H)), lambda: layer.forward(x)))[0].tobytes() == expected
            assert layer(x, Evil(np.zeros((1, B, H)), lambda: fastrnn.set_num_threads(2)))[0].tobytes() == expected
    """,
    "state dict": """
        def call():
            layer = fastrnn.RNN(I, H, rng=0)
            given = dict(layer.state_dict())
            w = given["weight_ih_l0"]
            given["bias_hh_l0"] = Evil(given["bias_hh_l0"], reshape(w, (I, H)))
            before = layer.params.copy()
            layer.load_state_dict(given)
            assert layer.params == before
    """,
    "parameters": """
        def call():
            params = fastrnn.Parameters({"a": (20, 30), "b": (4,)})
            params["a"] = Evil(draw(20, 30), reshape(params["a"], (600,)))
            assert params["a"].shape == (20, 30) and params["a"].tobytes() == draw(20, 30).tobytes()
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_conversions_run_code(case):
    program = PRELUDE + textwrap.dedent(CASES[case]) + "\nmany(call)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


# Random cases: a conversion makes arbitrary changes to the arguments. The call then raises an error that names an
# argument, or returns results of the right shape.
FUZZ = (
    PRELUDE
    + """
import sys

seed, cases = map(int, sys.argv[1:])


def mischief(rng, given, layer):
    '''A function that does one of many things to one of the given arrays, or to the layer.'''

    def act():
        if depth[0] > 2:
            return
        depth[0] += 1
        try:
            target = given[rng.integers(len(given))]
            match rng.integers(9):
                case 0:
                    target.shape = (target.size, *[1] * (target.ndim - 1))
                case 1:
                    target.shape = target.shape[::-1]
                case 2:
                    target.resize(rng.integers(1, 5))  # NumPy refuses it as long as the array is in use
                case 3:
                    given[rng.integers(len(given))] = np.zeros(1, np.float32)  # frees the array that was there
                case 4:
                    layer.freeze()
                case 5:
                    layer.unfreeze()
                case 6:
                    fastrnn.set_num_threads(int(rng.integers(1, 4)))
                case 7:
                    fuzz_one(rng, layer)
                case 8:
                    layer.load_state_dict(layer.state_dict())
        except ValueError:
            pass
        finally:
            depth[0] -= 1

    return act


def fuzz_one(rng, layer):
    B, T = map(int, rng.integers(1, 30, 2))
    D, L = 1 + layer.bidirectional, layer.num_layers
    state = draw(D * L, B, H), draw(D * L, B, H)
    given = [draw(T, B, I), *state, rng.integers(0, T + 1, B), draw(T, B, D * H), draw(D * L, B, H), draw(B, I)]
    act = mischief(rng, given, layer)

    def one(k):
        '''The array, or one that acts when it is converted.'''
        match rng.integers(4):
            case 0:
                return Evil(given[k].copy(), act)
            case 1:
                return Evil(given[k], act)
            case 2 if k == 3:
                return [Index(n, act) for n in given[k]]
        return given[k]

    pair = isinstance(layer, fastrnn.LSTM)
    try:
        state = [one(1), one(2)] if pair else one(1)
        x, lengths = one(0), one(3) if rng.integers(2) else None
        if rng.integers(2):
            checked(layer(x, state, lengths), (T, B, D * H))
        else:
            every = int(rng.integers(1, 4)) if rng.integers(2) else None
            *results, tape = layer.forward(x, state, lengths, checkpoint_every=every)
            checked(results, (T, B, D * H))
            d_state = [one(5), None] if pair else one(5)
            checked(layer.backward(tape, one(4) if rng.integers(2) else None, d_state), (T, B, I))
        if not layer.bidirectional:
            stream = layer.stream(B)
            stream.state = [one(1), one(2)] if pair else one(1)
            checked((stream.step(one(6), np.zeros((B, H), np.float32)),), (B, H))
    except (TypeError, ValueError) as error:
        names = "x", "state", "d_output", "d_state_n", "lengths", "params", "tape", "out"
        assert str(error).startswith(names), error


class Index:
    def __init__(self, number, act):
        self.number, self.act = int(number), act

    def __index__(self):
        self.act()
        return self.number


def checked(results, shape):
    assert results[0].ndim == len(shape)


depth = [0]
for case in range(cases):
    rng = np.random.default_rng([seed, case])
    cls = [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN][rng.integers(3)]
    fuzz_one(rng, cls(I, H, int(rng.integers(1, 3)), bidirectional=bool(rng.integers(2)), rng=0))
"""
)


def test_a_constructor_that_is_called_again_and_fails():
    """It leaves the layer as it was, and not weights of one shape and options of another."""
    for make in (lambda: fastrnn.LSTM(4, 512, rng=0), lambda: fastrnn.GRUCell(4, 512, rng=0)):
        layer = make()
        before = layer.params.flat.tobytes()
        with pytest.raises(TypeError, match="rng"):
            layer.__init__(4, 1, rng="bad")
        with pytest.raises(ValueError, match="do not fit its arguments"):
            layer.__setstate__(type(layer)(4, 1).__getstate__() | {"params": type(layer)(4, 2).params})
        assert layer.hidden_size == 512 and layer.params.flat.tobytes() == before
        layer(np.zeros((2, 3, 4) if isinstance(layer, fastrnn.LSTM) else (3, 4), np.float32))
        layer.__init__(4, 1, rng=0)
        assert layer.params.flat.tobytes() == type(layer)(4, 1, rng=0).params.flat.tobytes()


def test_too_many_layers_are_refused_before_they_are_named():
    with pytest.raises(MemoryError):
        fastrnn.LSTM(2, 2, num_layers=10**12)


@pytest.mark.parametrize("seed", range(2))
def test_drawn_conversions(seed):
    many = int(os.environ.get("FASTRNN_FUZZ", "1"))
    command = [sys.executable, "-W", "ignore", "-c", FUZZ, str(seed), str(1000 * many)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
