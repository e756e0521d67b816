"""Writes the examples of the study as Jupyter notebooks: `make notebooks`.

    python tools/notebooks.py                       # all, into build/notebooks
    python tools/notebooks.py unrolled --execute    # one, with its results and figures

The docstring of a program becomes the first cell. Its sections become headings, and each definition a cell. The last
cell runs the experiment with the settings of --quick and shows the figures.
"""

import argparse
import ast
import os
import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
RUN = "\n\n\nif __name__ == "  # the last lines of a program
SECTION = re.compile(r"^# (.+?) -{10,}\n+", re.MULTILINE)

FIRST = """\
import sys

sys.path.insert(0, {examples!r})  # what the programs share"""
LAST = """\
from pathlib import Path
from types import SimpleNamespace

from IPython.display import Image, display

options = SimpleNamespace(quick=True, seed=1, output=Path({name!r}))  # quick=False: the numbers of docs/study.md
options.output.mkdir(exist_ok=True)
numbers = main(options)
for path in sorted(options.output.glob("*.png")):
    display(Image(path))"""


def programs():
    """The examples of the study, by name: the programs that end with a call of training.study."""
    paths = sorted(EXAMPLES.glob("*.py"))
    return {path.stem: path for path in paths if "training.study(main" in path.read_text("utf-8").rpartition(RUN)[2]}


def notebook_of(path, folder):
    """The notebook of a program, to be run in a folder."""
    text = path.read_text(encoding="utf-8").rpartition(RUN)[0]
    docstring = ast.parse(text).body[0]
    title, _, rest = docstring.value.value.partition("\n")
    link = f"Made from `examples/{path.name}` by `make notebooks`."
    examples = Path(os.path.relpath(EXAMPLES, folder)).as_posix()
    cells = [new_markdown_cell(f"# {title}\n{rest}\n{link}"), new_code_cell(FIRST.format(examples=examples))]
    body = "\n".join(text.splitlines()[docstring.end_lineno :])
    imports, *sections = SECTION.split(body)
    cells += code_cells(imports)
    for heading, section in zip(sections[::2], sections[1::2], strict=True):
        cells += [new_markdown_cell(f"## {heading}"), *code_cells(section)]
    cells += [new_markdown_cell("## Run"), new_code_cell(LAST.format(name=path.stem))]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # not at random, so that equal programs make equal notebooks
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def code_cells(code):
    """A cell for each definition, and for the lines between two of them; two empty lines separate them."""
    return [new_code_cell(part.strip("\n")) for part in code.split("\n\n\n") if part.strip()]


def execute(notebook, folder):
    """Runs a notebook in a folder, and adds the results to its cells."""
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def main():
    found = programs()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(found)}")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "notebooks", metavar="FOLDER")
    parser.add_argument("--execute", action="store_true", help="also run them: seconds to minutes each")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(found))
    if unknown:
        parser.error(f"{unknown[0]}: no example of the study")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or found:
        notebook, path = notebook_of(found[name], arguments.output), arguments.output / f"{name}.ipynb"
        if arguments.execute:
            execute(notebook, arguments.output)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
