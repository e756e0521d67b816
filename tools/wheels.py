"""Builds, repairs and tests a wheel for each CPython of this machine: `make wheel`.

Interpreters are those on PATH, of pyenv and of uv, which first installs the available ones. For each, a wheel is built
from the sdist, and the tests run in a new environment with that wheel, the newest NumPy and the test dependencies; on
the oldest CPython they also run with the oldest NumPy. Arguments go to pytest. Wheels are written to build/wheels.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WHEELS = ROOT / "build" / "wheels"
UV_VERSIONS = ["3.11", "3.12", "3.13", "3.14", "3.14t"]
MOST_BYTES = 1_500_000
TELL = """
import json, os, sys, sysconfig
header = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
fits = sys.implementation.name == "cpython" and sys.version_info >= (3, 11) and header
print(json.dumps([fits, list(sys.version_info[:2]), bool(sysconfig.get_config_var("Py_GIL_DISABLED")), sys.version]))
"""


def run(*command, folder=None, **environment):
    # Only wheels: the newest NumPy with a wheel for this CPython, which may not be the newest.
    environment = os.environ | {"PIP_ONLY_BINARY": ":all:"} | environment
    subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL, cwd=folder, env=environment)


def interpreters():
    """One interpreter for each version, with and without GIL: (version, free-threaded) -> (path, its own
    description)."""
    subprocess.run(["uv", "python", "install", "--quiet", *UV_VERSIONS], stderr=subprocess.DEVNULL, check=False)
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    for others in (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin"):
        folders += sorted(Path.home().glob(others))
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.[1-9][0-9]")) + sorted(folder.glob("python3.[1-9][0-9]t")):
            told = subprocess.run([path, "-c", TELL], capture_output=True, text=True, check=False)
            if told.returncode == 0:
                fits, version, free_threaded, words = json.loads(told.stdout)
                if fits:
                    found.setdefault((tuple(version), free_threaded), (path, words.splitlines()[0]))
    return dict(sorted(found.items()))


def environment(python, folder, *requirements):
    """The Python of a new environment with these packages, from wheels."""
    run(python, "-m", "venv", "--clear", folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", *requirements)
    return folder / "bin" / "python"


def main(arguments):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["optional-dependencies"]["test-wheel"]
    oldest_numpy = project["project"]["dependencies"][0].removeprefix("numpy>=")
    found = interpreters()
    for _, words in found.values():
        print(words)
    failed = []
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        run(sys.executable, "-m", "build", "--sdist", "--outdir", work, ROOT)
        (sdist,) = work.glob("*.tar.gz")
        run("tar", "-xzf", sdist, "-C", work)
        tests = next(work.glob("*/tests")).parent
        (tests / "fastrnn").rename(work / "not_imported")  # so that the tests can import only the wheel
        for version, (python, words) in found.items():
            name = "{}.{}".format(*version[0]) + "t" * version[1]
            print(f"\n== {name}: {words}", flush=True)
            try:
                builder = environment(python, work / f"build{name}", "build")
                run(builder, "-m", "build", "--wheel", "--outdir", work / name, sdist)
                (wheel,) = (work / name).glob("*.whl")
                run(sys.executable, ROOT / "tools" / "repair_wheel.py", wheel, work / name / "repaired")
                (wheel,) = (work / name / "repaired").glob("*.whl")
                print(f"{wheel.name}: {wheel.stat().st_size} bytes", flush=True)
                assert wheel.stat().st_size <= MOST_BYTES
                numpys = ["numpy"]
                if version == min(found):
                    numpys.append(f"numpy=={oldest_numpy}.*")
                for numpy in numpys:
                    installed = environment(python, work / f"test{name}", wheel, numpy, *needed)
                    tell = "import numpy, fastrnn; print('NumPy', numpy.__version__, 'and', fastrnn.__file__)"
                    run(installed, "-c", tell, folder=work)
                    pytest = [
                        installed,
                        "-m",
                        "pytest",
                        "-q",
                        "tests",
                        "--ignore",
                        "tests/study",
                        "-m",
                        "not models",
                    ]
                    run(*pytest, *arguments, folder=tests, PYTHON_GIL="0" if version[1] else "")
                WHEELS.mkdir(parents=True, exist_ok=True)
                wheel.rename(WHEELS / wheel.name)
            except (subprocess.CalledProcessError, AssertionError) as error:
                print(f"FAILED: {error}")
                failed.append(name)
    print("\n" + "\n".join(sorted(path.name for path in WHEELS.glob("*.whl"))))
    if failed or not found:
        sys.exit(f"failed: {', '.join(failed) or 'no CPython found'}")


if __name__ == "__main__":
    main(sys.argv[1:])
