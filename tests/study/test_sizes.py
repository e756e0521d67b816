"""The examples stay short: at most 60 lines for a model, and fewer than 250 for a file of the long examples."""

import ast
import re
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
SECTIONS = {
    name: section.strip()
    for name, text in TEXTS.items()
    for section in re.findall(r"^# The model -+\n(.*?)^# .*? -+$", text, re.MULTILINE | re.DOTALL)
}
LONG = [name for name in TEXTS if name.startswith(("char_lm", "odyssey", "translate"))]


def test_the_models_are_found():
    assert CLASSES.keys() >= {"char_lm_model.CharModel", "odyssey_variants.Block", "translate_model.Attention"}
    assert SECTIONS.keys() == {"forecast", "many_to_many", "many_to_one", "one_to_many", "precision", "speech"}
    assert len(LONG) >= 12


@pytest.mark.parametrize("name", CLASSES)
def test_a_model_is_at_most_60_lines(name):
    assert CLASSES[name] <= MODEL


@pytest.mark.parametrize("name", SECTIONS)
def test_the_model_stands_apart_from_the_experiment(name):
    assert len(SECTIONS[name].splitlines()) <= MODEL
    assert "optimizer" not in SECTIONS[name] and "figures." not in SECTIONS[name]


@pytest.mark.parametrize("name", LONG)
def test_a_file_is_below_250_lines(name):
    assert len(TEXTS[name].splitlines()) < FILE
