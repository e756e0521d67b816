"""The pages of docs/ and the docstrings: their examples run unchanged and print the documented output."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from adapters import skip_without_packages
from fastrnn._engine.pool import POOL

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Each recipe of the cookbook is a program of its own: tests/test_cookbook.py runs them.
PROSE = [page for page in PAGES if page.parent.name != "cookbook"]
MODULES = [module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")]
MODULES.remove("fastrnn.__main__")
MODULES.append("fastrnn")  # whose classes are defined in the others

TEXTS = [DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
GUIDE = (DOCS / "api" / "README.md").read_text(encoding="utf-8")

FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def blocks_of(text):
    """(line, packages, code) of each block marked python.

    The words after "python" on the line that opens a block are the packages that the block needs and fastrnn does not,
    or the adapter of fastrnn that needs them.
    """
    for fence in FENCE.finditer(text):
        language, *packages = fence[1].split() or [""]
        if language == "python":
            yield text.count("\n", 0, fence.start(2)), packages, fence[2]


def run_doctest(test):
    """Fails with doctest's report unless every example prints the expected output."""
    report = []
    if doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False).failed:
        pytest.fail("".join(report), pytrace=False)


def run_block(page, line, code, names):
    """Runs code with prompts as a doctest, other code unchanged, with the page's line numbers."""
    if ">>> " in code:
        test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), line)
        test.globs = names
        run_doctest(test)
    else:
        exec(compile("\n" * line + code, str(page), "exec"), names)


def run_page(page, installed=()):
    """Runs all blocks in order in one namespace, except blocks that need a package not in `installed`."""
    POOL.clear()  # some examples measure memory
    names = {"__name__": "__main__"}
    for line, packages, code in blocks_of(page.read_text(encoding="utf-8")):
        if set(packages) <= set(installed):
            run_block(page, line, code, names)


def packages_of(page):
    return sorted({package for _, packages, _ in blocks_of(page.read_text(encoding="utf-8")) for package in packages})


def named(page):
    return page.relative_to(DOCS).as_posix()


@pytest.fixture
def somewhere(tmp_path, monkeypatch, threads):
    """A folder for the files of a page; the number of threads is restored."""
    monkeypatch.chdir(tmp_path)
    # Processes that a page starts find this fastrnn, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(fastrnn.__file__).parent.parent))
    threads(fastrnn.get_num_threads())


@pytest.mark.parametrize("page", PROSE, ids=named)
def test_page(page, somewhere):
    run_page(page)


# Keras saves through an __array__ that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PROSE if packages_of(page)], ids=named)
def test_page_with_other_packages(page, somewhere):
    packages = packages_of(page)
    for package in packages:
        if package.startswith("fastrnn."):
            skip_without_packages(package)
        else:
            pytest.importorskip(package)
    run_page(page, packages)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    needs = {
        "fastrnn.distributed": "safetensors",
        "fastrnn.serialization": "safetensors",
        "fastrnn.onnx": "onnx",
        "fastrnn._threadpoolctl": "threadpoolctl",
    }
    if module in needs:
        pytest.importorskip(needs[module])
    skip_without_packages(module)
    module = importlib.import_module(module)
    for test in doctest.DocTestFinder().find(module, extraglobs={"np": np, "fastrnn": fastrnn}):
        run_doctest(test)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_prompt_is_run(page):
    text = page.read_text(encoding="utf-8")
    prompts = len(re.findall(r"^\s*>>> ", text, re.MULTILINE))
    assert prompts == sum(len(doctest.DocTestParser().get_examples(code)) for _, _, code in blocks_of(text))


@pytest.mark.parametrize("page", PAGES + TEXTS, ids=lambda page: page.relative_to(DOCS.parent).as_posix())
def test_every_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img src="([^"]+)"', text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", target.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], link


def public_names():
    """The names in __all__ of fastrnn and of the modules that the guide calls public, without importing them.

    The layers of Keras are described by Keras, which the site is built without.
    """
    (paragraph,) = re.findall(r"^The public interface is (.*?)\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    modules = [name for name in re.findall(r"`fastrnn\.(\w+)`", paragraph) if name != "keras_layers"]
    assert {"functional", "optim", "reference"} <= set(modules)
    yield from (f"fastrnn.{name}" for name in fastrnn.__all__ if name not in (*modules, "__version__"))
    for module in modules:
        source = (Path(fastrnn.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from (f"fastrnn.{module}.{name}" for name in ast.literal_eval(node.value))


def test_the_reference_lists_everything_public():
    page = (DOCS / "reference" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   (fastrnn\.[\w.]+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted([*public_names(), "fastrnn.stream.Stream"])


def test_the_gallery_has_every_example():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for program in (DOCS.parent / "examples").glob("*.py"):
        if '__name__ == "__main__"' in program.read_text(encoding="utf-8"):
            assert f"(../examples/{program.name})" in page, program.name


def test_the_guide_names_everything_public():
    for name in fastrnn.__all__:
        assert f"`{name}`" in GUIDE or f"`fastrnn.{name}`" in GUIDE, name


@pytest.mark.parametrize(
    "code",
    [
        ">>> 1 + 1\n3\n",
        ">>> 1 + 1\n",
        ">>> 1\n1\n>>> 1 / 0\n1\n",
        "assert 1 == 2\n",
        "x = 1\n```\n\n```python\n>>> x\n2\n",
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path, code):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n```python\n{code}```\n", encoding="utf-8")
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_page(page)


def test_what_needs_a_package_runs_with_it_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = []\n```\n\n```python other\nx.append(1)\nassert not x\n```\n", encoding="utf-8")
    run_page(page)
    assert packages_of(page) == ["other"]
    with pytest.raises(AssertionError):
        run_page(page, ["other"])
