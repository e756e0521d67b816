"""The recipes of docs/cookbook: each is a complete program that prints the text below it."""

import doctest
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import fastrnn

COOKBOOK = Path(__file__).parent.parent / "docs" / "cookbook"
MOST_LINES = 30

SECTION = re.compile(r"^## (.*)\n((?:(?!## ).*\n)*)", re.MULTILINE)
PROGRAM = re.compile(r"^```python(.*)\n((?:.*\n)*?)```\n(?:\n```text\n((?:.*\n)*?)```$)?", re.MULTILINE)


class Recipe(NamedTuple):
    page: str
    title: str
    packages: list[str]  # that the program needs, besides NumPy
    code: str
    output: str

    def __str__(self):
        return f"{self.page}: {self.title}"


def recipes_of(page):
    for title, text in SECTION.findall(page.read_text(encoding="utf-8")):
        for packages, code, output in PROGRAM.findall(text):
            yield Recipe(page.stem, title, packages.split(), code, output)


RECIPES = [recipe for page in sorted(COOKBOOK.glob("*.md")) for recipe in recipes_of(page)]


def environment():
    """This fastrnn, installed or not, with its default number of threads."""
    others = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return others | {"PYTHONPATH": str(Path(fastrnn.__file__).parent.parent)}


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipe(recipe, tmp_path):
    for package in recipe.packages:
        pytest.importorskip(package)
    (tmp_path / "recipe.py").write_text(recipe.code, encoding="utf-8")
    warnings = [] if recipe.packages else ["-W", "error"]
    command = [sys.executable, *warnings, "recipe.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert not result.returncode, result.stderr
    assert doctest.OutputChecker().check_output(recipe.output, result.stdout, doctest.ELLIPSIS), result.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_is_short(recipe):
    lines = [line for line in recipe.code.splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 120


def test_the_index_names_every_recipe():
    index = (COOKBOOK / "README.md").read_text(encoding="utf-8")
    for page in COOKBOOK.glob("*.md"):
        for title, text in SECTION.findall(page.read_text(encoding="utf-8")):
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            assert len(PROGRAM.findall(text)) == 1 and f"({page.name}#{anchor})" in index, title


@pytest.fixture
def service(tmp_path):
    """The port of the service of the recipe, started by the command below it."""
    pytest.importorskip("gunicorn")
    text = (COOKBOOK / "serving.md").read_text(encoding="utf-8")
    [recipe] = [recipe for recipe in RECIPES if recipe.packages == ["gunicorn"]]
    (tmp_path / "service.py").write_text(recipe.code, encoding="utf-8")
    command = re.search(r"^```sh\n(gunicorn .*)\n```$", text, re.MULTILINE)[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = shlex.split(command.replace(":8000", f":{port}"))
    log = tmp_path / "log"
    with open(log, "wb") as file:
        server = subprocess.Popen([sys.executable, "-m", *arguments], cwd=tmp_path, env=environment(), stderr=file)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/", body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_clients_of_the_web_service(service):
    x = np.random.default_rng(0).standard_normal((12, 40, 8), np.float32)
    expected = [output.tobytes() for output, _ in map(fastrnn.GRU(8, 64, rng=0), x)]

    def client(sequence):
        outputs, h = [], None
        for start in range(0, 40, 8):
            status, answer = post(service, json.dumps({"x": sequence[start : start + 8].tolist(), "h": h}))
            assert status == 200, answer
            outputs += answer["output"]
            h = answer["h"]
        return np.array(outputs, np.float32).tobytes()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(client, x)) == expected
    for wrong, message in [
        ({"x": [[1, 2]]}, "x: expected (T, input_size=8), got (1, 2)"),
        ({"x": [[1] * 8], "h": [1]}, "state: expected (num_layers=1, hidden_size=64), got (1,)"),
        ({}, "'x'"),
    ]:
        assert post(service, json.dumps(wrong)) == (400, {"error": message})
    for body in ("no JSON", "[1]", "3", '{"x": "a"}'):
        assert post(service, body)[0] == 400
