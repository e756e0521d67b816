"""Makes the examples of the study importable, and runs them as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

EXAMPLES = Path(__file__).parents[2] / "examples"

with pytest.MonkeyPatch.context() as patch:
    # set here, so that the examples' settings do not affect other tests
    patch.setenv("OPENBLAS_NUM_THREADS", "1")
    sys.path.append(str(EXAMPLES))
    import training  # noqa: F401


@pytest.fixture
def quick(tmp_path):
    """A function that runs an example by name with --quick: its numbers, and the folder with its pictures."""

    def run(name, *options):
        package = str(Path(fastrnn.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", f"--output={tmp_path}", *options],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")), tmp_path

    return run
