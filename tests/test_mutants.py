"""tools/mutations.toml: each mutation fits the sources and names tests that there are; `make mutants` runs them."""

import sys
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
import mutants

sys.path.pop()

MUTATIONS = mutants.mutations()
# Tests of a wheel run beside a tree without fastrnn/: then the sources are those installed, which lack the binding's.
PACKAGE = ROOT / "fastrnn" if (ROOT / "fastrnn").exists() else Path(fastrnn.__file__).parent
HERE = [one for one in MUTATIONS if PACKAGE == ROOT / "fastrnn" or not one.file.endswith((".pyx", ".pxi"))]


@pytest.mark.parametrize("mutation", HERE, ids=lambda mutation: mutation.name)
def test_what_is_replaced_stands_there_once(mutation):
    text = mutants.find(mutation.file, ROOT / "csrc", PACKAGE).read_text()
    assert mutants.mutated(mutation, text) not in (None, text)


def test_names_are_unique_and_tests_exist():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 40
    for mutation in MUTATIONS:
        for test in mutation.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).is_file(), test
