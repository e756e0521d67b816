"""The process: dispatch of the instruction set, threads, fork, the floating-point mode, the import."""

import ctypes
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _config, _core, functional

FORCED = "import fastrnn._config as c; print(c.instruction_set())"


def python(*arguments, **environment):
    """Runs Python with these arguments and environment variables."""
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def outputs():
    """The results of each kind of layer, as text with every bit."""
    x = np.linspace(-2, 2, 6 * 3 * 5).reshape(6, 3, 5)
    layers = [cls(5, 21, dtype=np.float64, rng=1) for cls in (fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN)]
    return " ".join(layer(x)[0].tobytes().hex() for layer in layers)


@pytest.mark.parametrize("name", _config.runnable())
def test_instruction_set_can_be_forced(name):
    result = python("-c", FORCED, FASTRNN_ISA=name)
    assert result.stdout.strip() == name


def test_forced_instruction_sets_compute(isa):
    """`generic` gives other bits than the sets with fused multiply-add, so the bits show the set in use."""
    code = f"import numpy as np, fastrnn\n{inspect.getsource(outputs)}\nprint(outputs())"
    assert python("-c", code, FASTRNN_ISA=isa).stdout.strip() == outputs()


def test_fastest_set_is_the_default():
    assert python("-c", FORCED, FASTRNN_ISA="").stdout.strip() == _config.runnable()[-1]


@pytest.mark.parametrize("name", ["avx1024", "AVX2", " "])
def test_unknown_instruction_set_is_an_error(name):
    result = python("-c", "import fastrnn", FASTRNN_ISA=name)
    assert result.returncode == 1
    assert f"ImportError: FASTRNN_ISA={name!r}: unknown; this machine can run: generic" in result.stderr


def test_self_check_passes_and_names_every_set():
    result = python("-m", "fastrnn")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in _config.runnable():
        instructions = sum(map(len, _core.narrow_instructions(name).values()))
        assert result.stdout.count(f"\n{name} ") == 2 + instructions  # a line for each precision, and of each format
    assert "OFF" not in result.stdout


def test_self_check_notices_a_kernel_that_is_off():
    """The self-check detects a kernel function that is wrong by one part in a thousand."""
    code = """
import sys, fastrnn.__main__ as m
lstm = m.functional.lstm
m.functional.lstm = lambda *a, **k: (lstm(*a, **k)[0] * 1.001, None)
sys.exit(0 if m.self_check() else 1)
"""
    result = python("-c", code)
    assert result.returncode == 1
    assert "OFF: inference" in result.stdout


def test_self_check_notices_a_quantized_kernel_that_is_off():
    """By one unit in the last place."""
    code = """
import sys, numpy as np, fastrnn.__main__ as m
quantized = m.reference.quantized
m.reference.quantized = lambda *a: (np.nextafter(quantized(*a)[0], 1, dtype=np.float32), None)
sys.exit(0 if m.quantized_check() else 1)
"""
    result = python("-c", code)
    assert result.returncode == 1
    assert "same bits   OFF" in result.stdout or _config.runnable() == ["generic"]


def test_show_config_tells_what_is_used(capsys, threads):
    threads(3)
    with _config.using("generic"):
        fastrnn.show_config()
    shown = capsys.readouterr().out
    assert fastrnn.__version__ in shown and "[generic]" in shown and "threads            3" in shown


def test_config_is_what_show_config_prints(capsys, threads):
    threads(3)
    with _config.using("generic"):
        config = fastrnn.config()
        assert fastrnn.show_config() is None
    shown = capsys.readouterr().out
    assert config == {
        "version": fastrnn.__version__,
        "compiler": _core.compiler(),
        "instruction_set": "generic",
        "instruction_set_forced": bool(os.environ.get("FASTRNN_ISA")),
        "instruction_sets_runnable": _config.runnable(),
        "instruction_sets_built": list(_core.instruction_sets()),
        "quantized_instructions": dict.fromkeys(("int8", "float16", "bfloat16", "float8"), "generic"),
        "threads": 3,
        "helper_threads": _core.has_threads(),
    }
    assert json.loads(json.dumps(config)) == config
    assert "quantized layers   int8: generic, float16: generic, bfloat16: generic, float8: generic" in shown
    assert config["version"] in shown and config["compiler"] in shown and "threads            3" in shown
    config["instruction_sets_built"].clear()
    assert fastrnn.config()["instruction_sets_built"]


def test_config_tells_what_was_forced():
    code = "import fastrnn; c = fastrnn.config(); print(c['instruction_set'], c['instruction_set_forced'])"
    assert python("-c", code, FASTRNN_ISA="generic").stdout == "generic True\n"
    assert python("-c", code, FASTRNN_ISA="").stdout == f"{_config.runnable()[-1]} False\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("option", [(), ("--help",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_the_program_without_a_word(unbuffered, option):
    """`python -m fastrnn | head -1` ends as other programs do."""
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "fastrnn", *option],
        stdout=writer, stderr=subprocess.PIPE, timeout=120, env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    os.close(writer)
    assert (run.returncode, run.stderr) == (-signal.SIGPIPE, b"")


def test_help_of_the_program():
    result = python("-m", "fastrnn", "--help")
    assert result.returncode == 0 and result.stdout.startswith("usage: python -m fastrnn")
    assert "FASTRNN_ISA" in result.stdout and "OMP_NUM_THREADS" in result.stdout
    assert python("-m", "fastrnn", "--version").stdout.strip() == fastrnn.__version__
    result = python("-m", "fastrnn", "--unknown")
    assert result.returncode == 2 and "unrecognized arguments: --unknown" in result.stderr


@pytest.mark.parametrize("arguments", [("-m", "fastrnn"), ("-c", "import fastrnn"), ("-c", "import fastrnn.layers")])
def test_the_source_tree_says_that_it_is_not_built(tmp_path, arguments):
    """As in a fresh clone, whose folder shadows the installed package."""
    package = Path(fastrnn.__file__).parent
    (tmp_path / "fastrnn").mkdir()
    for source in package.glob("*.py"):
        shutil.copy(source, tmp_path / "fastrnn")
    # Without -S an editable installation would lend its extension.
    run = subprocess.run(
        [sys.executable, "-S", *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(np.__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 1 and run.stdout == ""
    lines = run.stderr.splitlines()
    assert f"{tmp_path / 'fastrnn'} is the source tree, not built" in lines[-1] and "make build" in lines[-1]
    assert "circular" not in run.stderr and run.stderr.count("Traceback") == (arguments[0] == "-c")
    assert "During handling" not in run.stderr and "direct cause" not in run.stderr
    assert arguments[0] == "-c" or len(lines) == 1


def test_import_needs_nothing_but_numpy():
    others = {"torch", "scipy", "tqdm", "hypothesis"}
    code = f"import sys, fastrnn; print(sorted({{m.split('.')[0] for m in sys.modules}} & {others}))"
    assert python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "value, expected", [("1", "1"), ("3,2", "3"), ("99999999999", "1024"), ("0", None), ("many", None), ("", None)]
)
def test_omp_num_threads(value, expected):
    result = python("-c", "import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS=value)
    number = result.stdout.strip()
    assert int(number) >= 1
    if expected:
        assert number == expected


@pytest.mark.parametrize(
    "value, error",
    [
        (0, ValueError),
        (-1, ValueError),
        (1025, ValueError),
        (2.0, TypeError),
        (True, TypeError),
        ("2", TypeError),
        (None, TypeError),
    ],
)
def test_set_num_threads_refuses(value, error, threads):
    threads(2)
    with pytest.raises(error, match="^num_threads: expected"):
        fastrnn.set_num_threads(value)
    assert fastrnn.get_num_threads() == 2


LARGE = dict(T=6, B=40, I=64, H=192)  # large enough for a team


def large_case():
    rng = np.random.default_rng(0)
    layer = fastrnn.LSTM(LARGE["I"], LARGE["H"], rng=0)
    return layer, rng.standard_normal((LARGE["T"], LARGE["B"], LARGE["I"])).astype(np.float32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_the_same_bytes():
    """After a call with helper threads in the parent, which the child does not have."""
    code = """
import os, sys, numpy as np, fastrnn
fastrnn.set_num_threads(2)
layer = fastrnn.LSTM(64, 192, rng=0)
x = np.random.default_rng(0).standard_normal((6, 40, 64)).astype(np.float32)
expected = layer(x)[0].tobytes()
child = os.fork()
if child == 0:
    fastrnn.set_num_threads(2)  # as the initializer of a pool of processes may do
    os._exit(0 if layer(x)[0].tobytes() == expected and fastrnn.get_num_threads() == 1 else 1)
_, status = os.waitpid(child, 0)
assert layer(x)[0].tobytes() == expected
sys.exit(os.waitstatus_to_exitcode(status))
"""
    result = python("-W", "ignore", "-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_python_threads_share_a_layer(threads, cls, options):
    threads(2)
    layer = cls(LARGE["I"], LARGE["H"], **options, rng=0)
    _, x = large_case()

    def results():
        output, _, tape = layer.forward(x)
        d_output = np.ones_like(output)
        d_x, _, d_params = layer.backward(tape, d_output)
        return output.tobytes() + d_x.tobytes() + d_params.flat.tobytes()

    expected, seen = results(), []

    def work():
        for _ in range(5):
            seen.append(results())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 20 and set(seen) == {expected}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "__cxa_atexit"), reason="needs exit handlers in C")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_process_ends_cleanly_while_daemon_threads_compute(num_threads):
    """The process outlives the interpreter, because exit handlers of C libraries may take long."""
    code = """
import ctypes, sys, threading, time
import numpy as np
import fastrnn

libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.usleep, ctypes.c_void_p(400_000), None)
fastrnn.set_num_threads(int(sys.argv[1]))
long = fastrnn.LSTM(16, 512, rng=0)  # a step takes a tenth of a second or more
small = fastrnn.LSTM(16, 32, rng=0)
stream = small.stream(4)
x = np.ones((20, 1024, 16), np.float32)
short = np.ones((20, 4, 16), np.float32)

def train():
    while True:
        output, _, tape = small.forward(short)
        small.backward(tape, output)

def step():
    while True:
        stream.step(short[0])

for work in (lambda: long(x), lambda: long.forward(x), train, step):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
"""

    def run(_):
        # The slowest kernels: the long calls outlast the interpreter.
        return python("-c", code, str(num_threads), FASTRNN_ISA="generic")

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(4)))
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 4


def test_the_floating_point_mode_is_as_before(threads):
    """Denormals are flushed inside the kernels only."""
    smallest = np.full(64, np.finfo(np.float32).smallest_subnormal, np.float32)
    for num_threads in (1, 2):
        threads(num_threads)
        layer, x = large_case()
        output, _, tape = layer.forward(x)
        layer.backward(tape, output)
        assert np.all((smallest * np.float32(2)).view(np.uint32) == 2)  # as numbers, flushed ones would equal zero


def test_decayed_states_are_flushed_and_not_lost_early():
    """A forget gate of one half halves c each step, down to the smallest normal number and then to zero."""
    weights = np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32)
    c_0 = np.ones((1, 1), np.float32)
    _, (_, c_n) = functional.lstm(np.zeros((126, 1, 1), np.float32), (None, c_0), *weights)
    assert c_n[0, 0] == np.float32(2.0**-126)
    _, (_, c_n) = functional.lstm(np.zeros((127, 1, 1), np.float32), (None, c_0), *weights)
    assert c_n[0, 0] == 0


@pytest.mark.parametrize("B, H", [(64, 16), (4, 128)], ids=["rows shared", "units shared"])
def test_helpers_flush_decayed_states_too(B, H, threads):
    threads(3)
    weights = np.zeros((4 * H, 1), np.float32), np.zeros((4 * H, H), np.float32)
    _, (_, c_n) = functional.lstm(np.zeros((127, B, 1), np.float32), (None, np.ones((B, H), np.float32)), *weights)
    assert not c_n.any()


def test_denormal_inputs_are_zeros(isa, dtype):
    tiny, large = np.finfo(dtype).smallest_normal / 4, np.finfo(dtype).max / 4
    weights = np.full((4, 1), large, dtype), np.full((4, 1), large, dtype)
    x, h_0 = np.full((3, 2, 1), tiny, dtype), np.full((2, 1), tiny, dtype)
    output, _ = functional.lstm(x, (h_0, None), *weights)
    expected, _ = functional.lstm(np.zeros_like(x), None, *weights)
    assert output.tobytes() == expected.tobytes()
