"""The README's examples run unchanged, with the documented results."""

import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn


def test_examples(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    fastrnn.save("model.safetensors", fastrnn.LSTM(3, 4, 2, rng=0))
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    first, model, inference, serving, training, more = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(first, names)
    assert names["output"].shape == (100, 16, 128)
    names |= {"x": np.zeros((5, 2, 3))}
    exec(model, names)
    assert repr(names["layer"]) == "LSTM(3, 4, num_layers=2)" and names["output"].shape == (5, 2, 4)
    exec(inference, names)
    assert names["output"].shape == (100, 16, 128) and names["h_n"].shape == (2, 16, 128)
    exec(serving, names)
    exec(training, names)
    assert names["loss"] < 0.7 * np.log(len(names["letters"]))
    exec(more, names)
    assert names["output"].shape == (100, 16, 256) and names["h"].shape == (16, 128)
