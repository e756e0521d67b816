"""fastrnn.torch in DistributedDataParallel: two processes with gloo have the gradients of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch as fast

WORLD = 2
# Each process takes its share of the batch; the first writes the gradients, which gloo has averaged.
PROGRAM = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from test_torch_distributed import WORLD, model_and_batch, loss_of
import fastrnn

rank, folder = int(sys.argv[1]), sys.argv[2]
fastrnn.set_num_threads(1), torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
model, x = model_and_batch()
parallel = DistributedDataParallel(model)
share = x.chunk(WORLD, dim=1)[rank]
for _ in range(2):  # in the second, packed weights are kept
    model.zero_grad()
    loss_of(parallel(share)).backward()
if rank == 0:
    torch.save([p.grad for p in model.parameters()], f"{folder}/gradients")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.below = torch.nn.LSTM(3, 8, num_layers=2, bidirectional=True)
        self.above = torch.nn.GRU(16, 4)

    def forward(self, x):
        return self.above(self.below(x)[0])[0]


def model_and_batch():
    """A model of replaced modules, and its input (T, B, I), the same in every process."""
    torch.manual_seed(0)
    model = Model().double()
    fast.replace(model)
    return model, torch.randn(7, 4, 3, dtype=torch.float64)


def loss_of(output):
    return (output**2).mean()


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}
    processes = []
    for rank in range(WORLD):
        command = [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, errors
    model, x = model_and_batch()
    loss_of(model(x)).backward()
    found = torch.load(tmp_path / "gradients")
    for one, parameter in zip(found, model.parameters(), strict=True):
        assert parameter.grad.abs().max() > 1e-4
        torch.testing.assert_close(one, parameter.grad, rtol=0, atol=1e-12)
