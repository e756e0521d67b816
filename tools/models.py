"""Runs examples/models, each in an environment of its own, and writes the table of docs/models.md: `make models`.

An environment lies in build/models/NAME. It has the packages that the example names and the fastrnn of this
interpreter, by a link, and nothing else. The example runs in a fresh process with default settings. An example that
fails has its error in the table. Arguments are names of examples; without any, all run.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "models"
ENVIRONMENTS = ROOT / "build" / "models"
PAGE = ROOT / "docs" / "models.md"
# What stands between these is written by `table`, the rest of the page by hand.
BEGIN, END = "<!-- written by make models -->\n", "<!-- end -->\n"
ROW = re.compile(r"^\| \[(\w+)\].*\n", re.MULTILINE)

sys.path.append(str(EXAMPLES))
from comparison import metadata  # noqa: E402

sys.path.pop()


def scripts():
    """The examples, by name: the files with metadata."""
    return {path.stem: path for path in sorted(EXAMPLES.glob("*.py")) if "\n# /// script\n" in path.read_text("utf-8")}


def command(*words, limit=1800):
    """What a command prints; RuntimeError with the end of its output if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in words]
    try:
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{words[-1]}: stopped after {limit} s") from None
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)}\nfailed with status {done.returncode}\n{done.stdout}{done.stderr}".strip()
        )
    return done.stdout


def environment(script):
    """The Python of the example's environment, made unless it exists with the same packages.

    Raises
    ------
    RuntimeError
        If a package cannot be installed, with pip's message.
    """
    import fastrnn

    about = metadata(script)
    folder = ENVIRONMENTS / script.stem
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    package = str(Path(fastrnn.__file__).parent.resolve())
    packages, alone = about["dependencies"], about["tool"]["fastrnn"].get("no-deps", [])
    wanted = json.dumps([sys.version, package, packages, alone])
    stamp = folder / "installed.json"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    command(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
    install = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--no-input", "install"]
    command(*install, "-q", "numpy>=1.26", *packages)
    if alone:
        command(*install, "-q", "--no-deps", *alone)
    site = command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "fastrnn").symlink_to(package, target_is_directory=True)
    stamp.write_text(wanted)
    return python


def run(script, *options):
    """The results of one example, a list of dict as `comparison.compare` prints them.

    Raises
    ------
    RuntimeError
        If the environment cannot be made, or the example fails.
    """
    printed = command(environment(script), script, "--json", *options)
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def rows(name, results):
    """The rows of the table for one example."""
    return "".join(
        f"{start_of_row(name, r, r['version'])} {r['what']} | {r['error']:.1e} "
        f"| {r['theirs_us']:,.0f} | {r['ours_us']:,.0f} | {r['ratio']:.2f} |\n"
        for r in results
    )


def failed_row(name, script, error):
    """The row of the table for an example that failed: the last line of the error."""
    reason = str(error).splitlines()[-1].replace("|", "/")
    return f"{start_of_row(name, metadata(script)['tool']['fastrnn'], '')} failed: {reason} | | | | |\n"


def start_of_row(name, about, version):
    """The cells of the table that the metadata fill."""
    link = f"[{name}](../examples/models/{name}.py)"
    return f"| {link} | {about['package']} {version} | {about['licence']} | {about['cell']} | `{about['line']}` |"


def processor():
    """The name of the processor, as far as the system says it."""
    try:
        return re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def table(new, before):
    """The text between the marks: `new` rows by name, and those of `before` from the same machine.

    Parameters
    ----------
    new : dict of str
        The rows of each example that has run.
    before : str
        The text between the marks so far.
    """
    machine = f"Python {platform.python_version()} on {processor()}, {os.cpu_count()} processors.\n"
    kept = {}
    if machine in before:
        for row in ROW.finditer(before):
            kept[row[1]] = kept.get(row[1], "") + row[0]
    lines = {name: rows for name, rows in (kept | new).items() if name in scripts()}
    heads = ["model", "package", "licence", "cell", "line", "what runs", "error", "theirs, us", "ours, us"]
    head = f"| {' | '.join([*heads, 'theirs / ours'])} |\n|{'---|' * 6}{'--:|' * 4}\n"
    return f"{machine}\n{head}{''.join(lines[name] for name in sorted(lines))}"


def main(names):
    unknown = set(names) - set(scripts())
    if unknown:
        sys.exit(f"no such example: {', '.join(sorted(unknown))}; there are {', '.join(scripts())}")
    new, failed = {}, []
    for name, script in scripts().items():
        if names and name not in names:
            continue
        try:
            new[name] = rows(name, run(script))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            new[name] = failed_row(name, script, error)
            failed.append(name)
        print(new[name], end="", flush=True)
    page = PAGE.read_text(encoding="utf-8")
    start, rest = page.split(BEGIN)
    before, end = rest.split(END)
    PAGE.write_text(start + BEGIN + table(new, before) + END + end, encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
