"""Makes each allocation of a call fail in turn: `python failing_allocations.py LIBRARY CASES`, for test_faults.py.

LIBRARY is the compiled tests/c/failing_malloc.c, which must be loaded first; CASES is the common prefix of the names of
the cases. The allocations of the extension and NumPy's allocations of arrays fail; Python's allocations of small
objects do not.
"""

import ctypes
import gc
import sys
import threading

import numpy as np

import fastrnn
from fastrnn import _core
from fastrnn._engine.pool import POOL

T, B, I, H = 12, 10, 24, 48
X = np.random.default_rng(1).standard_normal((T, B, I), dtype=np.float32)
RAGGED = {"lengths": np.arange(B) % (T + 1)}


def flat(*results):
    """The bytes of arrays in nested tuples."""
    return b"".join(flat(*r) if isinstance(r, tuple) else r.tobytes() for r in results)


# A case is a function that returns two functions: an action, whose result is bytes, and a check, whose bytes are equal
# before and after a failed action.


def observed(layer):
    return lambda: layer.params.flat.tobytes() + bytes([layer.frozen, layer.params.flat.flags.writeable])


def call(layer, **options):
    return lambda: flat(layer(X, **options)), observed(layer)


def train(layer, frozen=False, **options):
    if frozen:
        layer.freeze()

    def action():
        output, state_n, tape = layer.forward(X, **options)
        d_x, d_state, d_params = layer.backward(tape, output, state_n)
        return flat(output, state_n, d_x, d_state, d_params.flat)

    return action, observed(layer)


def backward(layer, **options):
    """Backward of one tape, after any failures."""
    output, state_n, tape = layer.forward(X, **options)

    def action():
        d_x, d_state, d_params = layer.backward(tape, output, state_n)
        return flat(d_x, d_state, d_params.flat)

    return action, observed(layer)


def freeze(layer):
    return lambda: layer.freeze() or b"", observed(layer)


def load_parameters(layer):
    other = {name: 2 * array for name, array in layer.params.items()}
    return lambda: layer.load_state_dict(other) or b"", observed(layer)


def make_stream(layer):
    return lambda: flat(layer.stream(B).step(X[0])), observed(layer)


def step(layer, x=X):
    stream = layer.stream(x.shape[1])
    stream.step(x[0])
    other = x[1].astype(np.float16)  # has to be cast
    return lambda: flat(stream.step(other)), lambda: flat(stream.state)


def set_state(layer):
    stream = layer.stream(B)
    stream.step(X[0])
    new = tuple(2 * part for part in stream.state)

    def action():
        stream.state = new
        return b""

    return action, lambda: flat(stream.state)


def quantize(layer, format):
    """A quantized layer, made and called."""
    return lambda: flat(layer.quantize(format)(X)), observed(layer)


def quantized_step(layer, format):
    return step(layer.quantize(format))


def functional(**options):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in [(4 * H, I), (4 * H, H), (4 * H,), (4 * H,)]]

    def action():
        output, state_n, tape = fastrnn.functional.lstm_forward(X, None, *weights, **options)
        d_x, d_state, d_params = fastrnn.functional.lstm_backward(tape, output, state_n)
        return flat(output, state_n, d_x, d_state, *d_params.values())

    return action, lambda: flat(X, *weights)


def of(way, cls, options, **more):
    return lambda: way(cls(I, H, **options, rng=0), **more)


def long_stack():
    """More layers than run side by side, with more workspace than is kept."""
    return step(fastrnn.RNN(1, 1, num_layers=17, rng=0), np.ones((2, 260_000, 1), np.float32))


LSTM, GRU, RNN = fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN
STACKED, BOTH = {"num_layers": 3}, {"num_layers": 2, "bidirectional": True}
CASES = {
    "functional": functional,
    "functional, ragged": lambda: functional(**RAGGED),
    "LSTM, call": of(call, LSTM, {}),
    "LSTM, call, ragged": of(call, LSTM, {}, **RAGGED),
    "LSTM, training": of(train, LSTM, {"proj_size": 20, "peephole": True}),
    "LSTM, training, ragged": of(train, LSTM, {}, **RAGGED),
    "LSTM, training, checkpoints": of(train, LSTM, {}, **RAGGED, checkpoint_every=5),
    "LSTM, training, frozen": of(train, LSTM, {}, frozen=True),
    "LSTM, backward": of(backward, LSTM, {}),
    "LSTM, backward, checkpoints": of(backward, LSTM, {}, checkpoint_every=5),
    "LSTM, freeze": of(freeze, LSTM, STACKED),
    "LSTM, parameters": of(load_parameters, LSTM, {}),
    "LSTM, stream": of(make_stream, LSTM, STACKED),
    "LSTM, step": of(step, LSTM, STACKED),
    "LSTM, state": of(set_state, LSTM, STACKED),
    "LSTM, stacked, call": of(call, LSTM, STACKED),
    "LSTM, stacked, training": of(train, LSTM, STACKED),
    "LSTM, int8": of(quantize, LSTM, {"num_layers": 2, "proj_size": 20}, format="int8"),
    "LSTM, int8, step": of(quantized_step, LSTM, STACKED, format="int8"),
    "GRU, bfloat16": of(quantize, GRU, {"reset_after": False}, format="bfloat16"),
    "RNN, float16": of(quantize, RNN, BOTH, format="float16"),
    "GRU, directions, call": of(call, GRU, BOTH),
    "GRU, directions, training": of(train, GRU, BOTH, **RAGGED),
    "GRU, step": of(step, GRU, {}),
    "RNN, training": of(train, RNN, STACKED),
    "RNN, step of a long stack": long_stack,
}


def address_range(path):
    """The address range of a library's code."""
    with open("/proc/self/maps") as maps:
        places = [line.split()[0].split("-") for line in maps if line.rstrip().endswith(path)]
    return min(int(low, 16) for low, _ in places), max(int(high, 16) for _, high in places)


MEM_HANDLER = b"mem_handler"  # the name that NumPy requires


def numpy_handler(structure):
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(("PyCapsule_New", ctypes.pythonapi))(ctypes.addressof(structure), MEM_HANDLER, None)


def use_handler(handler):
    """Sets the allocator of this thread's new arrays: PyDataMem_SetHandler of NumPy's C interface."""
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    table = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(np._core._multiarray_umath._ARRAY_API, None)
    address = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[304]
    ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)(handler)


class Faults:
    def __init__(self, library):
        self.library = ctypes.CDLL(library)
        self.library.faults_fail.argtypes, self.library.faults_fail.restype = [ctypes.c_long], ctypes.c_long
        self.library.faults_live.restype = ctypes.c_long
        self.library.faults_watch.argtypes = [ctypes.c_size_t] * 2
        self.library.faults_watch(*address_range(_core.__file__))
        self.handler = numpy_handler(ctypes.c_char.in_dll(self.library, "faults_numpy_handler"))

    def live(self):
        gc.collect()
        POOL.clear()
        return self.library.faults_live()

    def attempt(self, case, n):
        """Runs the case with its n-th allocation failing, then without failure: (failed, result, allocations).

        It runs in a new thread, so that it starts without a workspace and leaves none.
        """
        found = {}

        def work():
            use_handler(self.handler)
            action, observe = case()
            before = observe()
            self.library.faults_fail(n)
            try:
                result = action()
            except MemoryError:
                result = None
            found["allocations"] = self.library.faults_fail(0)
            found["failed"] = result is None
            if result is None:
                assert observe() == before, f"allocation {n}: the failed call has changed something"
                result = action()
            found["result"] = result, observe()

        live = self.live()
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert "result" in found, f"allocation {n}: see above"
        assert self.live() == live, f"allocation {n}: {self.live() - live} blocks more than before"
        return found

    def run(self, case):
        """Makes allocations fail one after the other; returns their number."""
        self.attempt(case, 0)  # one-time allocations, including NumPy's
        expected = self.attempt(case, 0)
        assert expected["allocations"] > 0
        for n in range(1, expected["allocations"] + 1):
            found = self.attempt(case, n)
            assert found["failed"], f"allocation {n}: its failure went unnoticed"
            assert found["result"] == expected["result"], f"allocation {n}: other bits after it has failed"
        assert not self.attempt(case, expected["allocations"] + 1)["failed"]
        return expected["allocations"]


if __name__ == "__main__":
    fastrnn.set_num_threads(1)  # a team allocates nothing
    faults = Faults(sys.argv[1])
    for name, case in CASES.items():
        if name.startswith(sys.argv[2]):
            print(name, faults.run(case), flush=True)
