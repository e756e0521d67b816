"""threadpoolctl limits the threads of fastrnn: the calls that do, the restored number, and the registration."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import _threads

threadpoolctl = pytest.importorskip("threadpoolctl")
if not hasattr(threadpoolctl, "register"):
    pytest.skip("needs threadpoolctl 3.2", allow_module_level=True)


@pytest.fixture
def registered():
    before = _threads._num_threads
    fastrnn.register_threadpoolctl()
    yield
    _threads._num_threads = before


def entries():
    return [entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "fastrnn"]


def test_info_has_an_entry(registered):
    fastrnn.set_num_threads(3)
    fastrnn.register_threadpoolctl()  # a second call: still one entry
    assert entries() == [
        {
            "user_api": "fastrnn",
            "internal_api": "fastrnn",
            "num_threads": 3,
            "prefix": "_core",
            "filepath": os.path.realpath(fastrnn._core.__file__),
            "version": fastrnn.__version__,
        }
    ]
    assert json.loads(json.dumps(entries())) == entries()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (dict(limits=1), 1),
        (dict(limits=2), 2),
        (dict(limits=1, user_api="fastrnn"), 1),
        (dict(limits={"fastrnn": 2}), 2),
        (dict(limits={"_core": 2}), 2),
        (dict(limits=5000, user_api="fastrnn"), 1024),
        (dict(limits=0, user_api="fastrnn"), 1),
        (dict(limits=1, user_api="blas"), 7),
        (dict(limits=1, user_api="openmp"), 7),
        (dict(limits=None), 7),
    ],
)
def test_limits(registered, arguments, expected):
    fastrnn.set_num_threads(7)
    with threadpoolctl.threadpool_limits(**arguments):
        assert fastrnn.get_num_threads() == min(expected, _threads._limit)
    assert fastrnn.get_num_threads() == min(7, _threads._limit)


def test_the_default_comes_back_as_the_default(registered):
    """The limit restores the default, which follows the processors, and not a fixed number."""
    _threads._num_threads = None
    with threadpoolctl.threadpool_limits(3):
        assert _threads._num_threads
        with threadpoolctl.threadpool_limits(1):
            assert fastrnn.get_num_threads() == 1
        assert fastrnn.get_num_threads() == min(3, _threads._limit)
    assert _threads._num_threads is None
    before = threadpoolctl.threadpool_info()
    fastrnn.set_num_threads(1)
    with threadpoolctl.threadpool_limits(before):
        assert _threads._num_threads is None
    assert _threads._num_threads == 1


def test_limits_change_no_bit(registered, threads):
    threads(3)
    layer = fastrnn.LSTM(64, 192, rng=0)
    x = np.random.default_rng(0).standard_normal((6, 40, 64)).astype(np.float32)
    output = layer(x)[0]
    for limit in (1, 2):
        with threadpoolctl.threadpool_limits(limit):
            assert layer(x)[0].tobytes() == output.tobytes()


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


COUNT = "print(sum(entry['user_api'] == 'fastrnn' for entry in threadpoolctl.threadpool_info()))\n"


def test_the_import_registers_where_threadpoolctl_came_before():
    assert run(f"import threadpoolctl, fastrnn\n{COUNT}fastrnn.register_threadpoolctl()\n{COUNT}") == ["1", "1"]


def test_fastrnn_does_not_import_it():
    code = "import sys, fastrnn; print('threadpoolctl' in sys.modules)\nimport threadpoolctl\n"
    assert run(f"{code}{COUNT}fastrnn.register_threadpoolctl()\n{COUNT}") == ["False", "0", "1"]


@pytest.mark.parametrize("stands_for", ["None", "types.ModuleType('threadpoolctl')"])
def test_without_it_or_with_an_old_one(stands_for):
    """The import still succeeds."""
    code = f"""
import sys, types
sys.modules["threadpoolctl"] = {stands_for}
if sys.modules["threadpoolctl"]:
    sys.modules["threadpoolctl"].__version__ = "3.1.0"
import fastrnn
try:
    fastrnn.register_threadpoolctl()
except ImportError as error:
    print("threadpoolctl" in str(error))
"""
    assert run(code) == ["True"]
