"""The README's examples run unchanged, with the documented results."""

import re
from pathlib import Path

import numpy as np


def test_examples():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    inference, serving, training, more = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(inference, names)
    assert names["output"].shape == (100, 16, 128) and names["h_n"].shape == (2, 16, 128)
    exec(serving, names)
    exec(training, names)
    assert np.mean(names["error"] ** 2) < 0.5 * np.mean(names["target"] ** 2)
    exec(more, names)
    assert names["output"].shape == (100, 16, 256) and names["h"].shape == (16, 128)
