"""tools/notebooks.py: every example of the study becomes a notebook, which runs and shows its figures."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    path.stem for path in (ROOT / "examples").glob("*.py") if "training.study(main" in path.read_text(encoding="utf-8")
)


def write_notebooks(folder, *arguments):
    package = str(Path(fastrnn.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), f"--output={folder}", *arguments]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_every_line_of_a_program_is_in_its_notebook(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="no notebooks: pip install '.[notebooks]'")
    write_notebooks(tmp_path)
    names = {path.stem for path in tmp_path.glob("*.ipynb")}
    assert len(names) == 12 and sorted(names) == PROGRAMS
    for name in names:
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        cells = "\n".join(cell.source for cell in notebook.cells)
        program = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").rpartition("\nif __name__")[0]
        wanted = [line for line in program.splitlines() if line.strip(' "') and not line.endswith("-----")]
        found = set(cells.splitlines())
        assert not [line for line in wanted[1:] if line.removesuffix('"""') not in found and line not in found], name


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_notebook_runs_and_shows_its_figures(name, tmp_path, quick):
    nbformat = pytest.importorskip("nbformat", reason="no notebooks: pip install '.[notebooks]'")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    write_notebooks(tmp_path / "notebooks", name, "--execute")
    notebook = nbformat.read(tmp_path / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type == "stream" and output.name == "stdout" for output in outputs)
    shown = [output.data["image/png"] for output in outputs if output.output_type == "display_data"]
    folder = tmp_path / "notebooks" / name
    if name in ("unrolled", "gradients"):  # the figures of the program
        _, folder = quick(name)
    drawn = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    assert [base64.b64decode(picture) for picture in shown] == drawn
    assert drawn or name == "speech"  # whose quick run trains too few networks for its figure
