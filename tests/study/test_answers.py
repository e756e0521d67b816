"""examples/answers: each program prints the numbers that docs/study.md states for its exercise."""

import re
import runpy
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "docs" / "study.md"
ANSWERS = STUDY.parents[1] / "examples" / "answers"
EXERCISE = re.compile(
    r"^(\d)\. ((?:.+\n   )*.*)Expected:\s+`(.*)`\.\s+\[Answer\]\(\.\./examples/answers/(.*)\.py\)$", re.M
)
TEXT = STUDY.read_text(encoding="utf-8")
EXPECTED = {name: expected for _, _, expected, name in EXERCISE.findall(TEXT)}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_answer_prints_what_the_page_expects(name, capsys):
    runpy.run_path(str(ANSWERS / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == f"{EXPECTED[name]}\n"


def test_every_answer_belongs_to_an_exercise():
    assert sorted(EXPECTED) == sorted(path.stem for path in ANSWERS.glob("*.py"))


def test_exercises_come_in_threes():
    sections = re.split(r"^\*\*Exercises\*\*$", TEXT, flags=re.M)[1:]
    assert sections
    for section in sections:
        exercises = EXERCISE.findall(re.split(r"^## ", section, flags=re.M)[0])
        assert [number for number, *_ in exercises] == ["1", "2", "3"]


@pytest.mark.parametrize("name", EXPECTED)
def test_an_answer_is_short(name):
    lines = (ANSWERS / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 40
