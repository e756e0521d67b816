"""How many files know a cell or a weight format: the lists of files in CONTRIBUTING.md stay true."""

import re
from pathlib import Path

import pytest

import fastrnn
from fastrnn._core import NARROW_FORMATS
from fastrnn._engine.formats import FORMATS
from fastrnn._engine.spec import SPECS

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
# Tests of a wheel run beside a tree without fastrnn/, and a wheel lacks the source of the binding.
PACKAGE = ROOT / "fastrnn" if (ROOT / "fastrnn").exists() else Path(fastrnn.__file__).parent

# Modules that would have to know a format if it were not in the tables. The others name dtypes of other libraries.
OF_QUANTIZED_LAYERS = (
    "_core.pyi", "_config.py", "__main__.py", "_parametrized.py", "layers.py", "quantization.py",
    "reference.py", "serialization.py", "stream.py",
)  # fmt: skip


def c_code(path):
    """A C file without its comments."""
    return re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def python_code(path):
    """A Python or Cython file without its comments and docstrings."""
    text = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"(^|\s)#.*", "", text)


def c_files(pattern):
    """The files of csrc/, by name, whose code has the pattern."""
    files = [path for suffix in "hc" for path in CSRC.rglob(f"*.{suffix}")]
    assert len(files) > 50
    return {path.relative_to(CSRC).as_posix() for path in files if re.search(pattern, c_code(path))}


@pytest.mark.parametrize("cell", SPECS)
def test_a_cell_is_named_in_its_files_and_their_list_alone(cell):
    word = rf"(?i)(?<![a-z]){cell}(?![a-z])"
    assert "kernels/cells/cells.inc.h" in c_files(word)
    assert [name for name in c_files(word) if not name.startswith("kernels/cells/")] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_is_named_in_the_files_of_contributing_alone(form):
    """Its value in fastrnn.h, the table, its own file, and the operations of each instruction set."""
    files = c_files(rf"\bFASTRNN_{form.upper()}\b")
    own = f"kernels/narrow/{form}.inc.h"
    # AMX has a product of its own for int8: its sums need no tile of vectors.
    assert files - {"kernels/narrow/amx.h"} == {"fastrnn.h", "kernels/pack_narrow.c", own}
    lists = {"kernels/narrow/every_set.inc.h", "kernels/narrow/halves.inc.h"}
    included = c_files(re.escape(own)) - lists
    assert included <= {f"kernels/narrow/{isa}.h" for isa in ("generic", "avx2", "avx512", "neon")}


def test_python_knows_formats_by_their_table():
    modules = [PACKAGE / name for name in OF_QUANTIZED_LAYERS if (PACKAGE / name).exists()]
    modules += [path for path in (PACKAGE / "_engine").glob("*.py") if path.name != "formats.py"]
    modules += (PACKAGE / "_binding").glob("*.pxi")
    names = "|".join(FORMATS)
    found = {path.name for path in modules if re.search(rf"(?i)(?<!u)({names})(?!\w)", python_code(path))}
    assert len(modules) > 10
    assert found == set()


def test_the_tables_of_formats_have_the_same_entries():
    assert list(FORMATS) == list(NARROW_FORMATS)
    for name, form in FORMATS.items():
        assert (form.name, *form[1:5]) == (name, *NARROW_FORMATS[name])


@pytest.mark.parametrize("section", ["Adding a cell", "Adding a weight format", "Adding an option"])
def test_the_files_that_contributing_lists_exist(section):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text[text.index(f"## {section}\n") :]
    text = text[: text.index("\n## ")]
    paths = [path for path in re.findall(r"`((?:csrc|fastrnn|tests)/[\w./]+)`", text) if "NAME" not in path]
    assert len(paths) >= 4
    for path in paths:
        root = PACKAGE.parent if path.startswith("fastrnn/") else ROOT
        assert (root / path).exists() or (path.endswith(".pxi") and PACKAGE.parent != ROOT), path
