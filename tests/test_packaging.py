"""The files that repeat what pyproject.toml says: the recipe for conda and the citation."""

import re
import tomllib
from pathlib import Path

import fastrnn

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
RECIPE = (REPOSITORY / "conda" / "recipe.yaml").read_text(encoding="utf-8")
CITATION = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")


def requirements(section):
    """The packages under `section` of the recipe, without spaces and in lower case."""
    (block,) = re.findall(rf"^  {section}:\n((?:    - .*\n)+)", RECIPE, re.MULTILINE)
    return {line.removeprefix("    - ").replace(" ", "") for line in block.splitlines()}


def test_versions():
    assert re.findall(r'^  version: "(.*)"$', RECIPE, re.MULTILINE) == [fastrnn.__version__]
    assert re.findall(r"^version: (.*)$", CITATION, re.MULTILINE) == [fastrnn.__version__]


def test_the_recipe_requires_what_the_project_requires():
    needed = {name.lower() for name in PROJECT["build-system"]["requires"]}
    assert requirements("host") == needed | {"python", "pip"}
    assert requirements("run") == {*PROJECT["project"]["dependencies"], "python"}
    assert f'match(python, "<{PROJECT["project"]["requires-python"].removeprefix(">=")}")' in RECIPE


def test_licenses():
    license = PROJECT["project"]["license"]
    assert f"license: {license}\n" in RECIPE and f"license: {license}\n" in CITATION
