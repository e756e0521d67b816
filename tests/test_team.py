"""The team of a call: helper threads that join and leave change no bit, and do not slow other threads down.

test_coexistence.py is about other libraries and processes; test_quotas.py about how many processors there are.
"""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _core

HERE = Path(__file__).parent
FOUND = {"PYTHONPATH": str(Path(fastrnn.__file__).parents[1])}
CC = os.environ.get("CC", "cc").split()

needs_threads = pytest.mark.skipif(not _core.has_threads(), reason="built without helper threads")
needs_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at threads as Linux shows them")
needs_compiler = pytest.mark.skipif(shutil.which(CC[0]) is None, reason="needs a C compiler")

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
before_import = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
import fastrnn
from fastrnn import _core
layer = fastrnn.LSTM(64, 192, num_layers=2, rng=0)
x = np.random.default_rng(0).standard_normal((20, 40, 64)).astype(np.float32)

def results():
    output, _, tape = layer.forward(x)
    d_x, _, d_params = layer.backward(tape, output)
    return layer(x)[0].tobytes() + output.tobytes() + d_x.tobytes() + d_params.flat.tobytes()

def with_one_thread():
    before = fastrnn._threads._num_threads
    fastrnn.set_num_threads(1)
    found = results()
    fastrnn._threads._num_threads = before
    return found

def helpers():
    "The folders of the helper threads that there are."
    return [task for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text().strip() == "fastrnn"]
"""


def run(code, **environment):
    """Runs code in a new Python, which must exit successfully and in time; returns its output."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + textwrap.dedent(code)],
        env=outer | FOUND | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Bits -------------------------------------------------------------------------------------------

# class, T, B, I, H, options of the layer and of forward: each arrangement of sequence.c, see tests/c/team_threads.c.
CASES = {
    "units shared": (fastrnn.LSTM, 6, 4, 32, 128, dict(peephole=True), {}),
    "units shared, projected": (fastrnn.LSTM, 6, 4, 32, 128, dict(proj_size=48, peephole=True), {}),
    "units shared, ragged": (fastrnn.GRU, 6, 5, 32, 128, {}, dict(lengths=[6, 2, 0, 5, 1])),
    "units shared, checkpoints": (fastrnn.GRU, 7, 4, 32, 128, {}, dict(checkpoint_every=3)),
    "rows shared": (fastrnn.LSTM, 5, 64, 16, 16, {}, {}),
    "rows shared, projected": (fastrnn.LSTM, 5, 64, 16, 16, dict(proj_size=9, peephole=True), {}),
    "rows shared, ragged": (fastrnn.RNN, 6, 96, 32, 32, {}, dict(lengths=np.arange(96) % 7)),
    "rows shared, checkpoints": (fastrnn.LSTM, 7, 64, 16, 16, {}, dict(checkpoint_every=2)),
    "rows shared in several phases": (fastrnn.LSTM, 60, 32, 64, 64, dict(peephole=True), {}),
    "rows shared in several phases, two parts": (fastrnn.GRU, 60, 32, 64, 64, dict(reset_after=False), {}),
    "rows shared in several phases, ragged": (fastrnn.LSTM, 60, 40, 64, 64, dict(proj_size=24),
                                              dict(lengths=60 - np.arange(40))),
    "rows shared in several phases, resets": (fastrnn.GRU, 60, 32, 64, 64, {}, dict(resets=np.eye(60, 32, -9, bool))),
    "rows shared in several phases, four states": (fastrnn.SLSTM, 60, 32, 64, 64, {}, dict(lengths=60 - np.arange(32))),
    "columns of a gradient in several parts": (fastrnn.RNN, 20, 4, 800, 352, {}, {}),
    "rows shared, columns of a gradient": (fastrnn.RNN, 700, 48, 40, 3, {}, {}),  # groups of blocks, see sums.h
    "products shared": (fastrnn.LSTM, 60, 1, 200, 16, dict(peephole=True), {}),
    "products shared, projected": (fastrnn.LSTM, 40, 2, 300, 24, dict(proj_size=9), {}),
    "products shared, two parts": (fastrnn.GRU, 40, 2, 300, 24, dict(reset_after=False), {}),
    "products shared, ragged": (fastrnn.GRU, 40, 3, 300, 24, {}, dict(lengths=[40, 3, 11])),
    "products shared, checkpoints": (fastrnn.RNN, 90, 2, 300, 24, {}, dict(checkpoint_every=30)),
    "products shared in several parts": (fastrnn.LSTM, 300, 1, 600, 16, {}, {}),
    "units shared, products in several parts": (fastrnn.GRU, 40, 3, 700, 128, {}, {}),
    "products shared by columns": (fastrnn.LSTM, 3, 2, 2000, 40, {}, {}),
    "directions": (fastrnn.GRU, 20, 4, 48, 48, dict(bidirectional=True), {}),
    "directions, ragged": (fastrnn.LSTM, 20, 5, 48, 48, dict(bidirectional=True), dict(lengths=[20, 3, 11, 20, 7])),
    "two layers": (fastrnn.LSTM, 40, 2, 32, 32, dict(num_layers=2), {}),
    "two layers, projected": (fastrnn.LSTM, 40, 2, 40, 40, dict(num_layers=2, proj_size=12, peephole=True), {}),
    "two layers, ragged": (fastrnn.RNN, 40, 5, 64, 64, dict(num_layers=2, nonlinearity="relu"),
                           dict(lengths=[40, 3, 11, 0, 7])),
    "two layers, checkpoints": (fastrnn.GRU, 40, 4, 48, 48, dict(num_layers=2), dict(checkpoint_every=9)),
    "three layers": (fastrnn.GRU, 12, 8, 64, 64, dict(num_layers=3), {}),
    "three layers, both directions, ragged": (fastrnn.LSTM, 12, 12, 64, 64, dict(num_layers=3, bidirectional=True),
                                              dict(lengths=np.arange(12) + 1)),
}  # fmt: skip


def function_of(name, dtype):
    """A function that returns the bytes of inference and of training."""
    cls, T, B, I, H, of_layer, of_call = CASES[name]
    layer = cls(I, H, dtype=dtype, rng=0, **of_layer)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(dtype)
    inferring = {key: value for key, value in of_call.items() if key != "checkpoint_every"}

    def flat(*found):
        return b"".join(flat(*f) if isinstance(f, tuple) else f.tobytes() for f in found)

    def results():
        output, state_n, tape = layer.forward(x, **of_call)
        d_x, d_state, d_params = layer.backward(tape, output, state_n)
        return flat(layer(x, **inferring), output, state_n, d_x, d_state, d_params.flat)

    return results


@pytest.fixture
def policy(threads):
    """A function that sets the policy for helper threads, which is restored after the test."""
    return _core.team_policy


@pytest.mark.parametrize("name", CASES)
def test_helpers_that_come_and_go_change_no_bit(name, isa, dtype, threads, policy):
    results = function_of(name, dtype)
    threads(1)
    expected = results()
    policy("erratic")
    for num_threads in (2, 3, 5):
        threads(num_threads)
        for _ in range(4 if isa == "generic" else 12):
            assert results() == expected, num_threads


@pytest.mark.parametrize("how", ["adaptive", "erratic"])
def test_callers_that_share_the_helpers_change_no_bit(how, threads, policy):
    """Threads make calls of different kinds that begin and end during other calls, while the policy changes."""
    threads(1)
    functions = [function_of(name, dtype) for name in CASES for dtype in (np.float32, np.float64)]
    expected = [results() for results in functions]
    threads(3)
    policy(how)
    seen, begin = [], threading.Barrier(5)

    def work(first):
        begin.wait()
        for k in range(first, len(functions), 4):
            for _ in range(6):
                seen.append(functions[k]() == expected[k])

    workers = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for worker in workers:
        worker.start()
    begin.wait()
    while any(worker.is_alive() for worker in workers):
        policy("erratic" if how == "adaptive" else "adaptive")
        workers[0].join(0.003)
        policy(how)
        workers[1].join(0.003)
    for worker in workers:
        worker.join()
    assert len(seen) == 6 * len(functions) and all(seen)


@pytest.mark.parametrize("num_threads", [17, 1000])
def test_more_threads_than_processors(num_threads):
    """And than a call may have members."""
    run(f"""
    wide = fastrnn.LSTM(16, 32, rng=1)
    rows = np.random.default_rng(1).standard_normal((3, 1100, 16)).astype(np.float32)
    expected, expected_rows = with_one_thread(), wide(rows)[0].tobytes()
    fastrnn.set_num_threads({num_threads})
    for policy in ("adaptive", "erratic"):
        _core.team_policy(policy)
        for _ in range(10):
            assert results() == expected and wide(rows)[0].tobytes() == expected_rows
    """)


# Borrowed helpers -------------------------------------------------------------------------------

LEND = """
import ctypes
JOB = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
regions, ends, halves = [], [], set()

def serve(job, context):
    job(context)
    halves.add(sys.float_info.min * 0.5)  # a denormal number, unless the thread's mode was changed

@ctypes.CFUNCTYPE(None, JOB, ctypes.c_void_p, ctypes.c_uint)
def start(job, context, threads):
    regions.append([threading.Thread(target=serve, args=(job, context)) for _ in range(2)])
    for thread in regions[-1]:
        thread.start()

@ctypes.CFUNCTYPE(None)
def end():
    for thread in regions[-1]:
        thread.join()
    ends.append(1)

@ctypes.CFUNCTYPE(ctypes.c_int)
def most():
    return 3

_core.set_lender(*(ctypes.cast(function, ctypes.c_void_p).value for function in (start, end, most)))

def in_new_thread(work):
    "The result of work() in a thread that borrows, whose first call begins a region."
    found = []
    def borrowing():
        assert not _core.borrow_threads(True)
        found.append(work())
        assert _core.borrow_threads(False)
    thread = threading.Thread(target=borrowing)
    thread.start()
    thread.join()
    return found[0]
"""


@needs_threads
@needs_linux
def test_borrowed_helpers_change_no_bit():
    """Every region ends, whether or not its threads have come in time."""
    run(f"""
    {textwrap.indent(LEND, "    ").strip()}
    expected = with_one_thread()
    fastrnn.set_num_threads(3)
    for policy in ("adaptive", "erratic"):
        _core.team_policy(policy)
        limit, before = time.time() + 60, _core.borrowed_shares()
        for k in range(1000):
            assert in_new_thread(results) == expected
            if k >= 30 and (_core.borrowed_shares() > before or time.time() > limit):
                break
    if _core.processors()[1] > 1:
        assert _core.borrowed_shares() > 0
    assert len(regions) == len(ends) and 0.0 not in halves
    """)


@needs_threads
@needs_linux
def test_threads_are_borrowed_only_where_that_was_said_and_never_after_a_fork():
    run(f"""
    {textwrap.indent(LEND, "    ").strip()}
    expected = with_one_thread()
    fastrnn.set_num_threads(3)
    assert results() == expected and not regions
    _core.team_policy("patient")  # which waits for every helper, so these have to be its own
    assert in_new_thread(results) == expected and not regions
    _core.team_policy("erratic")
    assert in_new_thread(results) == expected
    child = os.fork()
    if not child:
        regions.clear()
        fastrnn._threads._forked = False
        os._exit(not (in_new_thread(results) == expected and not regions))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """)


# Affinity and the variables of OpenMP -----------------------------------------------------------

AFFINITY = """
default = fastrnn.get_num_threads()
results()
_core.team_policy("erratic")
fastrnn.set_num_threads(3)
results()
print(default, sorted(before_import), sorted(os.sched_getaffinity(0)))
"""


@needs_linux
@pytest.mark.parametrize(
    "environment",
    [{"OMP_PROC_BIND": "true"}, {"OMP_PROC_BIND": "close"}, {"OMP_PROC_BIND": "spread"}, {"OMP_PLACES": "cores"},
     {"GOMP_CPU_AFFINITY": "0 1"}, {"OMP_PROC_BIND": "true", "OMP_PLACES": "{0}"}],
    ids=str,
)  # fmt: skip
def test_variables_that_bind_threads_do_not_matter(environment):
    """OpenMP's variables change neither the default nor the affinity of the importing and calling thread."""
    assert run(AFFINITY, **environment) == run(AFFINITY)


@pytest.mark.parametrize(
    "limit, wanted, number, later",
    [("1", None, 1, 1), ("2", "4", 2, 2), ("2", "1", 1, 2), ("2", None, None, 2), ("5", "3", 3, 5), ("x", "3", 3, 7),
     ("0", "3", 3, 7), ("", "2", 2, 7), ("-2", "2", 2, 7), ("99999999999999999999", "3", 3, 7)],
)  # fmt: skip
def test_omp_thread_limit(limit, wanted, number, later):
    """number: the default; later: after set_num_threads(7)."""
    code = """
    print(fastrnn.get_num_threads(), fastrnn._threads.most_threads())
    fastrnn.set_num_threads(7)
    print(fastrnn.get_num_threads(), fastrnn._threads.most_threads())
    """
    found = run(code, OMP_THREAD_LIMIT=limit, **({"OMP_NUM_THREADS": wanted} if wanted else {})).split()
    assert found[2:] == [str(later)] * 2
    if number:
        assert found[:2] == [str(number)] * 2
    else:
        assert found[0] == found[1] and int(found[0]) <= int(limit)


@needs_linux
def test_affinity_that_changes_after_the_import():
    """The default follows the affinity, the bits do not change, and no call changes its caller's affinity."""
    run("""
    expected, default = with_one_thread(), fastrnn.get_num_threads()
    everywhere = sorted(before_import)
    for processors in (everywhere[:1], everywhere, everywhere[-1:], everywhere):
        os.sched_setaffinity(0, processors)
        time.sleep(0.02)
        cores = fastrnn.get_num_threads()
        assert cores == (default if processors == everywhere else min(cores, len(processors)))
        for policy in ("adaptive", "erratic", "adaptive"):
            _core.team_policy(policy)
            for number in (None, 2, 5):
                fastrnn._threads._num_threads = number
                for _ in range(3):
                    assert results() == expected
                    assert sorted(os.sched_getaffinity(0)) == processors
            fastrnn._threads._num_threads = None
    """)


@needs_linux
def test_affinities_of_several_callers():
    run("""
    expected, everywhere, failed = with_one_thread(), sorted(before_import), []
    fastrnn.set_num_threads(3)
    _core.team_policy("erratic")

    def work(processors):
        os.sched_setaffinity(0, processors)
        for _ in range(8):
            if results() != expected or sorted(os.sched_getaffinity(0)) != processors:
                failed.append(processors)

    workers = [threading.Thread(target=work, args=[p]) for p in (everywhere, everywhere[:1], everywhere[-1:])]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert not failed and sorted(os.sched_getaffinity(0)) == everywhere
    """)


@needs_linux
def test_each_thread_has_its_own_number_of_processors():
    run("""
    expected, found = _core.processors(), []

    def work():
        os.sched_setaffinity(0, sorted(before_import)[:1])
        found.append(_core.processors())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    time.sleep(0.02)
    assert found == [(1, 1)] and _core.processors() == expected
    """)


# The helper threads -----------------------------------------------------------------------------


@needs_threads
@needs_linux
def test_helpers_take_no_signals():
    run("""
    _core.team_policy("patient")
    fastrnn.set_num_threads(4)
    results()
    assert helpers()
    for task in helpers():
        status = dict(line.split(":\\t", 1) for line in (task / "status").read_text().splitlines() if ":\\t" in line)
        blocked = int(status["SigBlk"], 16)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            assert blocked >> (number - 1) & 1, number
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # of the caller

    seen = []
    _core.team_policy("erratic")
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.current_thread() is threading.main_thread()))
    for k in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        results()
    assert len(seen) == 20 and all(seen)
    """)


@needs_threads
@needs_linux
def test_no_helper_spins_once_calls_are_over():
    """Spinning helpers would take at least a third of the processors' time, under any other load."""
    run("""
    fastrnn.set_num_threads(3)
    for policy in ("adaptive", "erratic"):
        _core.team_policy(policy)
        for _ in range(6):
            results()
        time.sleep(0.1)
        began = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - began < 0.03, policy
        results()
    """)


@needs_threads
@needs_linux
def test_helpers_that_sleep_are_woken():
    """As many as the call wants, though it wakes one alone: each that is woken wakes two more."""
    run("""
    def naps():
        "How often each helper has gone to sleep."
        found = {}
        for task in helpers():
            lines = (task / "status").read_text().splitlines()
            (found[task.name],) = [int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")]
        return found

    _core.team_policy("erratic")
    fastrnn.set_num_threads(5)
    deadline = time.monotonic() + 20  # for a busy machine
    while len(helpers()) < 4 and time.monotonic() < deadline:
        results()
    time.sleep(0.1)
    before, woken = naps(), []
    while len(woken) < 4 and time.monotonic() < deadline:
        results()
        time.sleep(0.1)
        woken = [name for name, times in naps().items() if times > before.get(name, times)]
    assert len(woken) == 4, (before, woken)
    """)


@needs_threads
@needs_linux
def test_helpers_are_made_when_they_are_wanted():
    run("""
    small = fastrnn.LSTM(8, 8, rng=0)
    for _ in range(100):
        output, _, tape = small.forward(x[:4, :2, :8])
        small.backward(tape, output)
        small(x[:4, :2, :8])
    assert not helpers()
    fastrnn.set_num_threads(1)
    for policy in ("adaptive", "erratic", "patient"):
        _core.team_policy(policy)
        results()
    assert not helpers()
    _core.team_policy("erratic")
    fastrnn.set_num_threads(3)
    for _ in range(10):
        results()
        assert 0 < len(helpers()) < 3
    """)


@needs_threads
@needs_linux
@needs_compiler
def test_no_thread_can_be_made(tmp_path):
    """Calls run without helpers if none can be created, and later use helpers once they can."""
    library = tmp_path / "failing_threads.so"
    source = HERE / "c" / "failing_threads.c"
    subprocess.run([*CC, "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    code = f"""
    import ctypes
    threads_fail = ctypes.CDLL({str(library)!r}).threads_fail
    expected = with_one_thread()
    assert threads_fail(1) == 0
    fastrnn.set_num_threads(3)
    for policy in ("erratic", "adaptive"):
        _core.team_policy(policy)
        for _ in range(20):
            assert results() == expected
    assert threads_fail(0) > 0 and not helpers()
    _core.team_policy("patient")
    assert results() == expected and helpers()
    """
    run(code, LD_PRELOAD=f"{os.environ.get('LD_PRELOAD', '')} {library}")  # behind a sanitizer's


@pytest.fixture
def pause_after(tmp_path):
    """A function of the cost of a try, ns, and of the threads that run in the system.

    It returns the pause, ns, and the members that a team of two may have at its beginning, after an eighth and a
    quarter of it, and after it.
    """
    sources = [
        HERE / "c" / "pauses.c",
        *(HERE.parent / "csrc" / name for name in ("runtime/threads.c", "runtime/processors.c")),
    ]
    flags = ["-O1", "-std=c11", "-pthread", '-DFASTRNN_ROOT="."', "-I", HERE.parent / "csrc"]
    subprocess.run([*CC, *flags, *sources, "-o", tmp_path / "pauses"], check=True)
    (tmp_path / "proc").mkdir()

    def pause_after(cost, running):
        (tmp_path / "proc" / "loadavg").write_text(f"0.20 0.18 0.12 {running}/80 11206\n")
        done = subprocess.run([tmp_path / "pauses", str(cost)], cwd=tmp_path, capture_output=True, check=True)
        return tuple(map(int, done.stdout.split()))

    return pause_after


@needs_threads
@needs_compiler
def test_a_process_that_was_stopped_tries_helpers_again_soon(pause_after):
    """A try during which the process is stopped for an hour seems to cost an hour."""
    for cost, expected in ((0, 0), (100_000, 8_000_000), (10_000_000, 800_000_000), (3600 * 10**9, 10**9)):
        assert pause_after(cost, 1)[0] == expected


@needs_threads
@needs_linux
@needs_compiler
def test_idle_processors_end_a_pause(pause_after):
    """Two looks have to find them. Other threads that run keep it up."""
    processors = os.cpu_count()
    assert pause_after(10_000_000, processors - 1)[1:] == (1, 1, 2 if processors > 1 else 1, 2)
    assert pause_after(10_000_000, processors)[1:] == (1, 1, 1, 2)
    assert pause_after(10_000_000, processors + 5)[1:] == (1, 1, 1, 2)
    assert pause_after(10_000_000, "unknown")[1:] == (1, 1, 1, 2)


@needs_linux
@pytest.mark.parametrize("how", ["adaptive", "erratic"])
def test_forks_while_helpers_come_and_go(how):
    """A forked child has no helpers and creates none; its parent's continue."""
    run(f"""
    expected = with_one_thread()
    fastrnn.set_num_threads(3)
    _core.team_policy({how!r})
    over, seen = threading.Event(), []

    def work():
        while not over.is_set():
            seen.append(results() == expected)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers: worker.start()
    for k in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0 if results() == expected and not helpers() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert results() == expected
    over.set()
    for worker in workers: worker.join()
    assert seen and all(seen)
    """)


@needs_threads
@needs_linux
def test_a_child_can_make_helpers():
    """The library could, with none of its parent's; `fastrnn` lets it use one thread there."""
    run("""
    expected = with_one_thread()
    fastrnn.set_num_threads(3)
    _core.team_policy("erratic")
    while len(helpers()) < 2:
        results()
    child = os.fork()
    if child == 0:
        assert not helpers()
        fastrnn._threads._forked = False
        right = all([results() == expected for _ in range(20)])
        os._exit(0 if right and helpers() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert results() == expected
    """)


def test_the_process_ends_while_helpers_come_and_go():
    for _ in range(3):
        run("""
        fastrnn.set_num_threads(3)
        _core.team_policy("erratic")

        def work():
            while True:
                results()

        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
        """)
