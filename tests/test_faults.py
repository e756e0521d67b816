"""Faults: failed allocations and killed processes; and no leaks without faults."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

HERE = Path(__file__).parent
FOUND = {"PYTHONPATH": str(Path(fastrnn.__file__).parents[1])}  # for programs run under emulation
CC = os.environ.get("CC", "cc").split()

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at memory as Linux shows it")


@pytest.fixture(scope="module")
def failing_malloc(tmp_path_factory):
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("stands in front of glibc's malloc")
    library = tmp_path_factory.mktemp("faults") / "failing_malloc.so"
    subprocess.run([*CC, "-O1", "-shared", "-fPIC", HERE / "c" / "failing_malloc.c", "-o", library], check=True)
    return str(library)


@pytest.mark.skipif(shutil.which(CC[0]) is None, reason="needs a C compiler")
@pytest.mark.parametrize("cases", ["functional", "LSTM", "GRU", "RNN"])
def test_each_allocation_may_fail(failing_malloc, cases):
    """Each failed allocation raises MemoryError, leaks nothing and changes nothing; a retry gives the same bits."""
    done = subprocess.run(
        [sys.executable, HERE / "failing_allocations.py", failing_malloc, cases],
        env=os.environ | FOUND | {"LD_PRELOAD": failing_malloc}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(cases)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("options", [{}, {"lengths": [3, 0, 4, 1]}, {"checkpoint_every": 2}], ids=str)
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU])
def test_memory_is_flat(cls, options):
    layer = cls(5, 6, num_layers=2, rng=0)
    x = np.ones((4, 4, 5), np.float32)

    def train(times):
        for _ in range(times):
            output, _, tape = layer.forward(x, **options)
            layer.backward(tape, output)

    train(1000)
    grown = []
    for _ in range(3):  # Python allocates a MiB at a time, once: a leak shows in every round
        before = resident_bytes()
        train(10_000)
        grown.append(resident_bytes() - before)
        if grown[-1] < 500_000:  # 50 bytes a call
            return
    pytest.fail(f"grew by {grown} bytes")


SAVE = {
    "save": """
def save(path, k):
    fastrnn.save(path, LAYERS[k])
def saved(path):
    return any(fastrnn.load(path).params == layer.params for layer in LAYERS)
""",
    "char_lm": """
sys.path.insert(0, EXAMPLES)
import char_lm_checkpoint
CONTENTS = [layer.params.flat.tobytes() for layer in LAYERS]
def save(path, k):
    char_lm_checkpoint.write_atomically(path, CONTENTS[k])
def saved(path):
    with open(path, "rb") as file:
        return file.read() in CONTENTS
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", SAVE)
def test_a_kill_while_saving_leaves_a_whole_file(tmp_path, way):
    """A child writes two layers alternately until it is killed, each time at another moment."""
    if way == "save":
        pytest.importorskip("safetensors")
    code = f"""
import os, random, signal, sys, time, fastrnn
EXAMPLES = {str(HERE.parent / "examples")!r}
LAYERS = [fastrnn.LSTM(64, 128, rng=seed) for seed in range(2)]
{SAVE[way]}
path = "saved"
save(path, 0)
random.seed(0)
replaced = 0
for _ in range(100):
    before = os.stat(path).st_ino
    child = os.fork()
    if child == 0:
        k = 0
        while True:
            save(path, k)
            k = 1 - k
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert saved(path)
    replaced += os.stat(path).st_ino != before
assert replaced > 0
assert len(os.listdir(".")) > 1  # some were killed in the middle
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path, env=os.environ | FOUND, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
