"""The examples stay short: at most 60 lines for a model, and fewer than 250 for a file of the long examples."""

import ast
from pathlib import Path

import pytest

MODEL, FILE = 60, 250
EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py"))}
CLASSES = {
    f"{name}.{node.name}": node.end_lineno - node.lineno + 1
    for name, text in TEXTS.items()
    if not name.endswith("_training")  # the experiment
    for node in ast.parse(text).body
    if isinstance(node, ast.ClassDef)
}
LONG = [name for name in TEXTS if name.startswith(("char_lm", "odyssey", "translate"))]


def test_the_models_are_found():
    assert CLASSES.keys() >= {"char_lm_model.CharModel", "odyssey_variants.Block", "translate_model.Attention"}
    assert len(LONG) >= 12


@pytest.mark.parametrize("name", CLASSES)
def test_a_model_is_at_most_60_lines(name):
    assert CLASSES[name] <= MODEL


@pytest.mark.parametrize("name", LONG)
def test_a_file_is_below_250_lines(name):
    assert len(TEXTS[name].splitlines()) < FILE
