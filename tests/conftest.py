"""Common fixtures: one test run covers every instruction set and precision this machine can run."""

import importlib.util
import os
import shutil

# Before NumPy is imported: the references' products are small, and on a busy machine a BLAS team waits for time slices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before Keras is: its NumPy backend, which needs JAX and SciPy, or that of torch.
_with_jax = importlib.util.find_spec("jax") and importlib.util.find_spec("scipy")
os.environ.setdefault("KERAS_BACKEND", "numpy" if _with_jax else "torch")

import hypothesis
import numpy as np
import pytest

import fastrnn
from depth import DEPTH, RANDOM
from fastrnn import _config, _core, _threads

hypothesis.settings.register_profile(
    "fastrnn", deadline=None, print_blob=True, derandomize=not RANDOM, max_examples=100 * DEPTH
)
hypothesis.settings.load_profile("fastrnn")


@pytest.fixture(params=_config.runnable())
def isa(request):
    """Every instruction set that this machine can run, in use during the test."""
    with _config.using(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads; all of them take part, for any number of processors.

    The previous number is restored after the test.
    """
    before = _threads._num_threads
    _core.team_policy("patient")
    yield fastrnn.set_num_threads
    _core.team_policy("adaptive")
    _threads._num_threads = before


@pytest.fixture
def browser():
    """Chromium, if it is installed."""
    reason = "the page is not opened: no browser (pip install '.[browser]', and Chromium)"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        if not found and not shutil.which(driver.chromium.executable_path):
            pytest.skip(reason)
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def every_isa():
    """A function that iterates over the instruction sets of this machine, with each in use for one iteration."""

    def turns():
        for name in _config.runnable():
            with _config.using(name):
                yield name

    return turns
