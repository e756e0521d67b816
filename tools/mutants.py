"""Would the tests notice? Small mistakes put into the sources, one at a time, and the tests that have to fail.

    make mutants                            all of them, most of an hour
    make mutants ARGS="--list"              their names, files and reasons
    make mutants ARGS="a_tail b_chunk"      some of them
    make mutants ARGS="--table"             the table of CONTRIBUTING.md, from the latest result of each

The list is tools/mutations.toml. The tree is copied to build/mutants and built there once, with gcc -O1 and assertions,
for some mutations a second time with AddressSanitizer. The tests that are named have to pass there. Then each mutation
is applied to the copy, what includes its file is compiled again, its tests run until the first failure, and the
original comes back. A mutation is

    killed      a test failed, or the process crashed, or it was still running after the time limit
    survived    all its tests passed: a test is missing. With a `reason` in the list it is "harmless" instead
    stale       its old text does not stand exactly once in its file any more

The status is 1 if a mutation survived or is stale.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutations.toml")
COMPILERS = 2  # processes at a time
TIME_LIMIT = 240  # seconds for the tests of a mutation
FLAGS = ["-O1", "-g1", "-std=c11", "-pthread", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-UNDEBUG", "-w"]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", ".*_cache", ".hypothesis", "build", "dist", "*.so", "__pycache__")


@dataclass
class Mutation:
    name: str
    file: str  # a file of csrc/ or fastrnn/: its name, with the folder if others have it, too
    old: str  # stands there once
    new: str
    tests: list[str]  # what pytest is given
    why: str
    reason: str = ""  # why no test can notice it, if none can
    isa: str = ""  # the instruction set that it is about, if only one
    sanitizer: bool = False  # whether only AddressSanitizer can notice it


def mutations():
    with LIST.open("rb") as file:
        return [Mutation(**entry) for entry in tomllib.load(file)["mutation"]]


def find(name, *folders):
    """The one file of that name in the first of the folders that has any: a wheel has headers of csrc/, too."""
    found = next((paths for folder in folders if (paths := list(Path(folder).rglob(name)))), [])
    if len(found) != 1:
        raise LookupError(f"{name}: {len(found)} files have this name")
    return found[0]


def mutated(mutation, text):
    """The text with the mutation; None if it is stale."""
    return text.replace(mutation.old, mutation.new) if text.count(mutation.old) == 1 else None


class Tree:
    """The copy, built."""

    def __init__(self, folder):
        self.folder, self.tree = folder, folder / "tree"
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(ROOT, self.tree, ignore=NOT_COPIED, symlinks=True)
        self.csrc = self.tree / "csrc"
        self.package = self.tree / "fastrnn"
        self.extension = self.package / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"

    def build(self, sanitizer, changed=None):
        """Compiles what is older than its sources, or, if a source is `changed`, what includes that, and links all."""
        kind = "asan" if sanitizer else "plain"
        objects, again = self.folder / kind, self.folder / f"{kind}-mutated"
        shutil.rmtree(again, ignore_errors=True)
        for folder in (objects, again):
            folder.mkdir(parents=True, exist_ok=True)
        units = [*sorted(self.csrc.rglob("*.c")), *self.package.glob("*.pyx")]
        used, missing = [], []
        for unit in units:
            target = objects / ("-".join(unit.relative_to(self.tree).parts) + ".o")
            sources = dependencies(target)
            if unit.suffix == ".pyx":
                sources += sorted(self.package.rglob("*.pxi"))
            if changed is not None and (changed in sources or changed == unit):
                target = again / target.name
                missing.append((unit, target))
            elif changed is None and newest([unit, *sources]) > newest([target]):
                missing.append((unit, target))
            used.append(target)
        with ThreadPoolExecutor(COMPILERS) as pool:
            list(pool.map(lambda job: self.compile(*job, sanitizer), missing))
        link = [*compiler(sanitizer), "-shared", "-pthread", *used, "-o", self.extension, "-lm"]
        self.extension.unlink(missing_ok=True)  # a process may have mapped the one before
        run(link)

    def compile(self, unit, target, sanitizer):
        source = unit
        if unit.suffix == ".pyx":
            source = target.with_suffix(".c")
            run([sys.executable, "-m", "cython", "-3", unit, "-o", source])
        import numpy

        includes = ["-I", self.csrc, "-I", numpy.get_include(), "-I", sysconfig.get_path("include")]
        run([*compiler(sanitizer), *FLAGS, *includes, "-MMD", "-MT", "o", "-c", source, "-o", target])

    def test(self, tests, sanitizer, *options):
        """The status of pytest, None after the time limit, and what it printed."""
        environment = os.environ | {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("FASTRNN_ISA", None)
        if sanitizer:
            libraries = ["libasan.so", "libstdc++.so.6"]
            paths = [output([*compiler(False), f"-print-file-name={library}"]) for library in libraries]
            environment |= {"LD_PRELOAD": " ".join(paths)}
            environment |= {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *options, *tests],
            cwd=self.tree, env=environment, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=TIME_LIMIT if "-x" in options else None)
            return process.returncode, printed
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def changed(self, path, text):
        """The file has this text, and afterwards its own again."""
        original, times = path.read_bytes(), path.stat()
        path.write_text(text)
        try:
            yield
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def compiler(sanitizer):
    return [*shlex.split(os.environ.get("CC", "gcc")), *(["-fsanitize=address"] if sanitizer else [])]


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}\n{done.stderr}")


def output(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def dependencies(target):
    """The files that were read when it was compiled."""
    rule = target.with_suffix(".d")
    if not rule.exists():
        return []
    return [Path(os.path.normpath(name)) for name in rule.read_text().replace("\\\n", " ").split()[1:]]


def newest(paths):
    return max(path.stat().st_mtime if path.exists() else 0 if path.suffix == ".o" else float("inf") for path in paths)


def judged(mutation, status, printed):
    """killed, survived or harmless, and by what it was killed."""
    if status is None:
        return "killed", "the time limit"
    if status < 0:
        return "killed", f"a crash ({signal.Signals(-status).name})"
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py(?:::\w+)?)", printed, re.MULTILINE)
    if status in (1, 2) and failed:
        return "killed", failed[1]
    if status == 1:
        return "killed", "AddressSanitizer" if mutation.sanitizer else "a crash"
    if status == 0:
        return ("harmless", mutation.reason) if mutation.reason else ("survived", "")
    raise RuntimeError(f"pytest ended with status {status}:\n{printed}")


def tried(tree, mutation):
    """Its result: state, by what, seconds."""
    began = time.monotonic()
    try:
        path = find(mutation.file, tree.csrc, tree.package)
        text = mutated(mutation, path.read_text())
    except LookupError as error:
        return {"state": "stale", "by": str(error), "seconds": 0}
    if text is None:
        return {"state": "stale", "by": "its old text does not stand exactly once", "seconds": 0}
    with tree.changed(path, text):
        try:
            tree.build(mutation.sanitizer, None if path.suffix == ".py" else path)
        except RuntimeError as error:
            return {"state": "stale", "by": f"it does not compile: {error}", "seconds": 0}
        state, by = judged(mutation, *tree.test(mutation.tests, mutation.sanitizer, "-x"))
    return {"state": state, "by": by, "seconds": round(time.monotonic() - began)}


def table(results):
    """The results as Markdown."""
    lines = ["| mutation | file | noticed by |", "|---|---|---|"]
    for mutation in mutations():
        result = results.get(mutation.name, {"state": "not run", "by": ""})
        by = f"`{result['by']}`" if ".py" in result["by"] else result["by"]
        lines.append(f"| {mutation.name} | `{mutation.file}` | {by or result['state']} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mutations; default: all")
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    parser.add_argument("--table", action="store_true", help="print the latest results as Markdown and run nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="for the copy and the results")
    arguments = parser.parse_args()
    chosen = {mutation.name: mutation for mutation in mutations()}
    unknown = set(arguments.names) - set(chosen)
    if unknown:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    if arguments.names:
        chosen = {name: chosen[name] for name in arguments.names}
    folder = arguments.folder.absolute()
    recorded = folder / "results.json"
    results = json.loads(recorded.read_text()) if recorded.exists() else {}
    if arguments.table:
        print(table(results))
        return 0
    if arguments.list:
        for mutation in chosen.values():
            print(f"{mutation.name:32} {mutation.file:20} {mutation.why}")
        return 0

    from fastrnn import _config

    runnable = _config.runnable()
    tree = Tree(folder)
    states = []
    for sanitizer in (False, True):
        some = [mutation for mutation in chosen.values() if mutation.sanitizer == sanitizer]
        if not some:
            continue
        print(f"building{' with AddressSanitizer' if sanitizer else ''}", flush=True)
        tree.build(sanitizer)
        tests = sorted({test for mutation in some for test in mutation.tests})
        began = time.monotonic()
        status, printed = tree.test(tests, sanitizer)
        if status:
            sys.exit(f"the tests fail without any mutation:\n{printed}")
        print(f"the tests pass without a mutation ({time.monotonic() - began:.0f} s)", flush=True)
        for mutation in some:
            if mutation.isa and mutation.isa not in runnable:
                print(f"not run   {mutation.name}: this processor has no {mutation.isa}", flush=True)
                continue
            result = results[mutation.name] = tried(tree, mutation)
            states.append(result["state"])
            print(f"{result['state']:9} {mutation.name} ({result['seconds']} s) {result['by']}", flush=True)
            recorded.write_text(json.dumps(results, indent=1))
    print(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    return int("survived" in states or "stale" in states)


if __name__ == "__main__":
    sys.exit(main())
