"""The modules of fastrnn.torch borrow PyTorch's threads: the same bits, whatever PyTorch does with them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")

import fastrnn
from fastrnn import _core

pytestmark = pytest.mark.skipif(
    not _core.has_threads() or not sys.platform.startswith("linux"), reason="threads are borrowed on Linux"
)

BEGIN = """
import os, threading, time
import torch, fastrnn, fastrnn.torch
from fastrnn import _core

torch.manual_seed(0)
x = torch.randn(30, 24, 96)
product = torch.ones(256, 256)
several = min(torch.get_num_threads(), fastrnn.get_num_threads()) > 1

def results(module):
    "The bytes of a module's results and gradients, between operations of PyTorch."
    product @ product
    leaf = x.clone().requires_grad_()
    output, state_n = module(leaf)
    output.square().sum().backward()
    with torch.inference_mode():
        again = module(x)[0]
    found = [output, *state_n, leaf.grad, again, *(weight.grad for weight in module.parameters())]
    module.zero_grad()
    return b"".join(one.detach().numpy().tobytes() for one in found)

modules = [fastrnn.torch.LSTM(96, 128), fastrnn.torch.GRU(96, 64, num_layers=2, bidirectional=True)]
fastrnn.set_num_threads(1)
expected = [results(module) for module in modules]
fastrnn.set_num_threads(os.cpu_count())
"""


def run(code, **environment):
    """Runs code in a new Python, which must exit successfully and in time."""
    found = {"PYTHONPATH": str(Path(fastrnn.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + textwrap.dedent(code)],
        env=os.environ | found | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("policy", ["adaptive", "erratic"])
def test_borrowed_threads_change_no_bit(policy):
    """They compute, too: within 1,000 rounds, because a busy machine may keep them away for a while."""
    run(f"""
    _core.team_policy({policy!r})
    for k in range(1000):
        assert [results(module) for module in modules] == expected
        if k >= 20 and (_core.borrowed_shares() or not several):
            break
    assert _core.borrowed_shares() or not several
    """)


@pytest.mark.parametrize("policy", ["adaptive", "erratic"])
def test_threads_that_sleep_between_operations(policy):
    run(f"""
    _core.team_policy({policy!r})
    for k in range(20):
        assert [results(module) for module in modules] == expected
    """, OMP_WAIT_POLICY="passive")  # fmt: skip


def test_denormals_of_pytorch_survive():
    """Its threads are created in the floating-point mode of the thread that first needs them."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent("""
    import numpy, torch, fastrnn.torch
    module, x = fastrnn.torch.LSTM(96, 128), torch.from_numpy(numpy.zeros((30, 24, 96), numpy.float32))
    with torch.inference_mode():
        for _ in range(3):
            module(x)
    assert (torch.full((1 << 20,), 1e-40) * 2).count_nonzero() == 1 << 20
    """)], timeout=120)  # fmt: skip
    assert done.returncode == 0


def test_without_threads_of_pytorch_helpers_are_own():
    run("""
    torch.set_num_threads(1)
    _core.team_policy("patient")
    assert [results(module) for module in modules] == expected and not _core.borrowed_shares()
    _core.team_policy("adaptive")
    assert [results(module) for module in modules] == expected and not _core.borrowed_shares()
    """)


def test_numpy_layers_do_not_borrow():
    run("""
    layer = fastrnn.LSTM(96, 128, rng=0)
    for _ in range(20):
        layer(x.numpy())
    assert not _core.borrowed_shares()
    """)


def test_several_threads_borrow_in_turn():
    """Each thread of Python has a pool of its own in OpenMP."""
    run("""
    _core.team_policy("erratic")
    right = []

    def work(k):
        module = modules[k % 2]
        for _ in range(10):
            with torch.inference_mode():
                right.append(torch.equal(module(x)[0], outputs[k % 2]))

    with torch.inference_mode():
        outputs = [module(x)[0] for module in modules]
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 40 and all(right)
    """)


def test_other_numbers_of_threads_and_a_fork():
    """The threads of a region may end at any time between two calls."""
    run("""
    for threads in (2, 3, 1, 2, 5):
        torch.set_num_threads(threads)
        assert [results(module) for module in modules] == expected
    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # in a child, GNU's OpenMP waits for its parent's threads
        os._exit([results(module) for module in modules] != expected)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """)
