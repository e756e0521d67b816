"""examples/lstm_in_numpy.py: at most 60 lines, the numbers of fastrnn.LSTM, and it learns."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import fastrnn
import lstm_in_numpy

PROGRAM = Path(lstm_in_numpy.__file__)
PAGE = PROGRAM.parents[1] / "docs" / "equations.md"


def test_it_can_be_typed_and_the_page_shows_it():
    source = PROGRAM.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert f"```python\n{source}```" in PAGE.read_text(encoding="utf-8")


def test_it_equals_the_layer():
    T, B, I, H = 30, 4, 3, 8
    rng = np.random.default_rng(1)
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=2)
    W_ih, W_hh, b_ih, b_hh = layer.params.values()
    params = [W_ih, W_hh, b_ih + b_hh]
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))

    output, tape = lstm_in_numpy.forward(params, x)
    d_x, (d_W_ih, d_W_hh, d_b) = lstm_in_numpy.backward(params, tape, d_output)
    expected, _, layer_tape = layer.forward(x)
    expected_d_x, _, expected_d_params = layer.backward(layer_tape, d_output)

    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_x, expected_d_x, rtol=0, atol=1e-13)
    for found, wanted in zip((d_W_ih, d_W_hh, d_b, d_b), expected_d_params.values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_it_learns():
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=True, timeout=300)
    errors = [float(error) for error in re.findall(r"error ([\d.]+)", done.stdout)]
    assert len(errors) == 6 and errors[-1] < 0.02  # 1/12 is the variance of the target
