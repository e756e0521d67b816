"""The tests that docs/reproducibility.md names exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "reproducibility.md").read_text(encoding="utf-8")


def test_every_test_it_names_exists():
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE)
    for name, function in named:
        tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], f"{name}::{function}"
    lines = re.findall(r"^\| \d+ \|.*\|$", PAGE, re.MULTILINE)
    assert len(lines) == 12 and all("::" in line for line in lines)
    assert len(named) == PAGE.count("::")
