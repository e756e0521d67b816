"""fastrnn beside other threads, other processes and other libraries: right results, no deadlock, no great loss of
speed.

Each case runs in a new process with a time limit: a deadlock fails.
"""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastrnn

LIMIT = 120  # seconds; a case takes a few

BEGIN = """
import os, sys, threading, time
import numpy as np, fastrnn
fastrnn.set_num_threads(2)
layer = fastrnn.LSTM(64, 192, rng=0)
x = np.random.default_rng(0).standard_normal((40, 40, 64)).astype(np.float32)

def results(layer=layer):
    output, _, tape = layer.forward(x)
    d_x, _, d_params = layer.backward(tape, output)
    return layer(x)[0].tobytes() + output.tobytes() + d_x.tobytes() + d_params.flat.tobytes()

expected = results()
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(code, begin=BEGIN, **environment):
    """Runs code in a new Python, which must exit successfully and in time; returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", begin + textwrap.dedent(code)],
        env=os.environ | environment, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", ["one frozen layer", "layers of their own"])
def test_sixteen_threads(shared):
    run(f"""
    shared = {shared == "one frozen layer"}
    seen = []
    if shared:
        layer.freeze()

    def work():
        mine = layer
        if not shared:
            mine = fastrnn.LSTM(64, 192, rng=1)
            mine.load_state_dict(layer.state_dict())
        for _ in range(4):
            seen.append(results(mine) == expected)

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert len(seen) == 64 and all(seen)
    """)


def test_freezing_and_thawing_while_others_call():
    run("""
    seen, over = [], threading.Event()

    def work():
        while not over.is_set():
            seen.append(layer(x)[0].tobytes() == expected[:len(seen_output)])

    seen_output = layer(x)[0].tobytes()
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers: worker.start()
    for _ in range(200):
        layer.freeze()
        layer.unfreeze()
    over.set()
    for worker in workers: worker.join()
    assert seen and all(seen)
    """)


def test_streams_of_one_layer_in_many_threads():
    run("""
    layer.freeze()
    output = layer(x[:, 0])[0].tobytes()
    seen = []

    def work():
        for _ in range(3):
            stream = layer.stream()
            seen.append(b"".join(stream.step(x_t).tobytes() for x_t in x[:, 0]) == output)

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert len(seen) == 48 and all(seen)
    """)


# Processes --------------------------------------------------------------------------------------


@needs_fork
def test_forks_while_other_threads_compute():
    """The child has only the forking thread; locks held by other threads at the fork must not block it."""
    run("""
    over = threading.Event()

    def work():
        while not over.is_set():
            results()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers: worker.start()
    for k in range(10):
        time.sleep(0.003)
        child = os.fork()
        if child == 0:
            os._exit(0 if results() == expected and fastrnn.get_num_threads() == 1 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    over.set()
    for worker in workers: worker.join()
    assert results() == expected
    """)


@needs_fork
def test_a_child_of_a_child():
    run("""
    def below(depth):
        child = os.fork()
        if child == 0:
            right = results() == expected
            if depth:
                below(depth - 1)
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    below(2)
    assert results() == expected
    """)


def output_of(layer, x):
    return layer(x)[0].tobytes()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_pools_of_processes(method):
    """Pickled layers compute the same in other processes; an outer time limit catches a deadlock."""
    layer = fastrnn.LSTM(16, 128, num_layers=2, rng=0)
    layer.freeze()
    batches = [np.random.default_rng(k).standard_normal((20, 8, 16)).astype(np.float32) for k in range(6)]
    expected = [output_of(layer, x) for x in batches]
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap_async(output_of, [(layer, x) for x in batches]).get(timeout=LIMIT)
    assert results == expected


# Signals ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_signals_in_the_middle_of_calls():
    """Signal handlers run during calls, and make calls themselves."""
    run("""
    import signal
    calls = []

    def handle(number, frame):
        calls.append(small(x[:2, :2])[0].tobytes() == wanted)

    small = fastrnn.GRU(64, 32, rng=0)
    wanted = small(x[:2, :2])[0].tobytes()
    long = np.tile(x, (40, 1, 1))
    output = layer(long)[0].tobytes()
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for _ in range(200):
        assert layer(long)[0].tobytes() == output
        if len(calls) > 2:
            break
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert calls and all(calls)
    """)


# Other libraries --------------------------------------------------------------------------------

OTHERS = {
    "numpy": """
a = np.random.default_rng(1).standard_normal((400, 400)).astype(np.float32)
def other():
    return a @ a
""",
    "torch": """
import torch
torch.manual_seed(0)
torch.set_num_threads(2)
theirs, given = torch.nn.LSTM(64, 192), torch.randn(10, 16, 64)
def other():
    with torch.no_grad():
        return theirs(given)[0].numpy()
""",
    "sklearn": """
from sklearn.cluster import KMeans
points = np.random.default_rng(1).standard_normal((2000, 20))
def other():
    return KMeans(8, n_init=1, max_iter=5, random_state=0).fit(points).cluster_centers_
""",
}


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("name", OTHERS)
def test_alternating_with(name, first):
    """Calls libraries alternately in one process, each with its own threads (speed: benchmarks/company.py)."""
    if name != "numpy":
        pytest.importorskip(name)
    parts = [BEGIN, "import numpy as np" + OTHERS[name]]
    begin = "".join(parts if first == "ours" else parts[::-1])
    run(
        """
    wanted = other()
    for _ in range(12):
        assert results() == expected
        assert np.allclose(other(), wanted, rtol=1e-4, atol=1e-5)
    """,
        begin,
        OPENBLAS_NUM_THREADS="2",
    )
