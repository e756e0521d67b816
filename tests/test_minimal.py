"""examples/minimal.py: it learns, and a run has the same bits with any number of threads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

SCRIPT = Path(__file__).parent.parent / "examples" / "minimal.py"


def run(*arguments, **environment):
    environment = os.environ | environment | {"PYTHONPATH": str(Path(fastrnn.__file__).parent.parent)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_it_is_minimal():
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    path = tmp_path_factory.mktemp("minimal") / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog; " * 40, encoding="utf-8")
    return path, run("--text", str(path), "--steps", "200")


def test_it_learns(printed):
    bits = [float(number) for number in re.findall(r"([\d.]+) bits per character", printed[1])]
    assert len(bits) == 2 and bits[-1] < 0.5  # 27 characters that are equally probable have 4.75
    assert "brown fox" in printed[1]


def test_it_has_the_same_bits_with_one_thread(printed):
    path, expected = printed
    assert run("--text", str(path), "--steps", "200", OMP_NUM_THREADS="1") == expected
