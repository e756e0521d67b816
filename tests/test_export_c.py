"""`python -m fastrnn export-c`: a header alone computes the bits of the kernels for `generic`, on 32 bits, too."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _config, capi
from test_capi import LAYERS, inputs

CC = os.environ.get("CC", "cc").split()
FLAGS = ["-O1", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wno-overlength-strings"]
ARM = "arm-linux-gnueabihf-gcc"
# Every cell, with projections, peepholes, options and heads. A compiler takes seconds for each.
CASES = [(LAYERS[k], "float32") for k in (0, 2, 5, 7, 9, 11)] + [(LAYERS[k], "float64") for k in (4, 6)]
NAMES = [f"model_{k}" for k in range(len(CASES))]


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def all_layers():
    return [make(dtype=dtype) for make, dtype in CASES]


def expected(layer):
    """The layer's outputs for its inputs, by the kernels for `generic`."""
    with _config.using("generic"):
        return layer(inputs(layer))[0]


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """Headers of all layers, and a program that includes all of them: number of a model -> its outputs for stdin."""
    folder = tmp_path_factory.mktemp("headers")
    cases = []
    for name, layer in zip(NAMES, all_layers()):
        capi.export_c(layer, folder / f"{name}.h")
        real = "float" if layer.dtype == np.float32 else "double"
        cases.append(
            f"""
    if (atoi(argv[1]) == {name[6:]}) {{
        static {name}_state state;
        {real} x[{name}_inputs], y[{name}_outputs];
        memset(&state, 0xff, sizeof state);
        {name}_reset(&state);
        while (fread(x, sizeof x, 1, stdin) == 1) {{
            {name}_step(&state, x, y);
            fwrite(y, sizeof y, 1, stdout);
        }}
    }}"""
        )
    # <complex.h> has a macro I.
    lines = [
        "#include <complex.h>",
        "#include <stdio.h>",
        "#include <stdlib.h>",
        *(f'#include "{name}.h"' for name in NAMES),
    ]
    program = folder / "program.c"
    program.write_text("\n".join([*lines, "int main(int argc, char **argv)", "{", "    if (argc != 2) return 1;"]))
    with program.open("a") as file:
        file.write("".join(cases) + "\n    return 0;\n}\n")
    return folder


def check(program, *emulator):
    for k, layer in enumerate(all_layers()):
        outputs = subprocess.run(
            [*emulator, program, str(k)], input=inputs(layer).tobytes(), check=True, stdout=subprocess.PIPE
        ).stdout
        assert outputs == expected(layer).tobytes(), layer


@pytest.mark.skipif(shutil.which(CC[0]) is None, reason="needs a C compiler")
def test_all_layers_in_one_program(headers):
    program = headers / "here"
    subprocess.run([*CC, *FLAGS, "-std=c99", "-ffp-contract=off", headers / "program.c", "-o", program], check=True)
    check(program)


@pytest.mark.skipif(not shutil.which(ARM) or not shutil.which("qemu-arm"), reason=f"needs {ARM} and qemu-user")
def test_32_bit_arm(headers):
    program = headers / "arm"
    subprocess.run([ARM, *FLAGS, "-std=c11", "-static", headers / "program.c", "-o", program], check=True)
    check(program, "qemu-arm")


def test_a_header_leaves_no_macro_behind_and_calls_nothing_but_memory_functions(headers):
    """No allocation, lock or system call: what the object file of a step needs are memcpy and memset at most."""
    if shutil.which(CC[0]) is None or shutil.which("nm") is None:
        pytest.skip("needs a C compiler and nm")
    source = headers / "one.c"
    source.write_text(
        '#include "model_0.h"\nvoid step(model_0_state *s, const float *x, float *y) { model_0_step(s, x, y); }\n'
    )
    before = "#include <float.h>\n#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n"
    (headers / "none.c").write_text(before)

    def macros(file):
        return set(run(*CC, "-dM", "-E", headers / file).split("\n"))

    assert [line.split()[1] for line in macros("one.c") - macros("none.c")] == ["MODEL_0_H"]
    run(*CC, "-O2", "-std=c11", "-c", source, "-o", headers / "one.o")
    symbols = run("nm", "-u", headers / "one.o")
    assert set(re.findall(r"\w+$", symbols, re.MULTILINE)) - {"U"} <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_command(tmp_path):
    pytest.importorskip("safetensors")
    layer = fastrnn.GRU(2, 5, rng=0)
    fastrnn.save(tmp_path / "model.safetensors", layer)
    capi.export_c(layer, tmp_path / "expected.h", "filter")
    environment = os.environ | {"PYTHONPATH": str(Path(fastrnn.__file__).parents[1])}

    def run(*arguments):
        command = [sys.executable, "-m", "fastrnn", "export-c", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("model.safetensors", "filter.h").returncode == 0
    assert run("model.safetensors", "another.h", "--name", "filter").returncode == 0
    for name in ("filter.h", "another.h"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "expected.h").read_bytes()
    for arguments, message in (
        (("missing.safetensors", "x.h"), "missing.safetensors"),
        (("model.safetensors", "2nd.h"), "export-c: name: expected an identifier of C, a letter first, got '2nd'\n"),
        (("filter.h", "x.h"), "filter.h"),
    ):
        failed = run(*arguments)
        assert failed.returncode == 1 and message in failed.stderr, failed.stderr
    assert not (tmp_path / "x.h").exists()


def test_what_has_no_header_is_refused(tmp_path):
    layer = fastrnn.LSTM(2, 3, rng=0)
    layer.params.flat[4] = np.inf
    with pytest.raises(ValueError, match="^layer: has weights that are not finite"):
        capi.export_c(layer, tmp_path / "model.h")
    with pytest.raises(ValueError, match="^name: expected an identifier of C"):
        capi.export_c(fastrnn.LSTM(2, 3), tmp_path / "model.h", "a-b")
    with pytest.raises(ValueError, match="^layer: a bidirectional layer"):
        capi.export_c(fastrnn.LSTM(2, 3, bidirectional=True), tmp_path / "model.h")
    assert not list(tmp_path.iterdir())
