"""The C library alone, built for this and for other processors under qemu, with the results compared.

`processors.c` runs the same problems everywhere. It checks the requirements of every machine itself (no access outside
an array, the caller's floating-point mode unchanged).
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import recurrent_cases
from fastrnn import _core, functional

ROOT = Path(__file__).parents[1]
FLAGS = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]

# compiler, emulator, and flags: 64 bits with neon, 64 bits big-endian, 32 bits.
MACHINES = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64", ["-O2", "-pthread"]),
    "s390x": ("s390x-linux-gnu-gcc", "qemu-s390x", ["-O1"]),
    "arm": ("arm-linux-gnueabihf-gcc", "qemu-arm", ["-O1"]),
}


def results(folder, compiler, flags, emulator=()):
    """{instruction set: {problem: {name: array}}} of the program that this compiler makes, all numbers in float64."""
    program = folder / "processors"

    def compile(source):
        target = folder / f"{source.parent.name}-{source.name}.o"  # there are two processors.c
        subprocess.run([compiler, *FLAGS, *flags, "-I", ROOT / "csrc", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile, [*(ROOT / "csrc").glob("*/*.c"), ROOT / "tests" / "processors.c"]))
    subprocess.run([compiler, *flags, *objects, "-o", program, "-lm"], check=True)
    written = subprocess.run([*emulator, program, "--values"], check=True, stdout=subprocess.PIPE, timeout=300).stdout
    found, at = {}, 0
    while at < len(written):
        header = written.index(b"\n", at)
        isa, problem, name, rows, columns = written[at:header].decode().split()
        array = np.frombuffer(written, "<f8", int(rows) * int(columns), header + 1).reshape(int(rows), int(columns))
        assert not np.isnan(array).any(), (isa, problem, name)
        found.setdefault(isa, {}).setdefault(problem, {})[name] = array
        at = header + 1 + array.nbytes
    return found


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for problem, arrays in expected.items():
        assert list(actual[problem]) == list(arrays), problem
        for name, array in arrays.items():
            assert actual[problem][name].tobytes() == array.tobytes(), (problem, name)


def assert_close(actual, expected):
    assert list(actual) == list(expected)
    for problem, arrays in expected.items():
        tolerance = 3e-5 if ".f32" in problem else 3e-13  # as for the reference, see test_kernels.py
        for name, array in arrays.items():
            scale = max(1.0, np.abs(array).max(initial=0))
            np.testing.assert_allclose(
                actual[problem][name], array, rtol=0, atol=tolerance * scale, err_msg=f"{problem} {name}"
            )


def fused(found):
    """The results of the sets with fused multiply-add."""
    return {isa: problems for isa, problems in found.items() if isa != "generic"}


@pytest.fixture(scope="module")
def compiler():
    name = os.environ.get("CC", "gcc")
    if not shutil.which(name):
        pytest.skip(f"needs a C compiler, here {name}")
    return name


# The function of the package, and its options, for each cell of the C interface.
PUBLIC = {
    "lstm": ("lstm", {}),
    "gru": ("gru", {}),
    "gru_reset_before": ("gru", {"reset_after": False}),
    "rnn_tanh": ("rnn", {"nonlinearity": "tanh"}),
    "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
    "rnn_sigmoid": ("rnn", {"nonlinearity": "sigmoid"}),
    "slstm": ("slstm", {}),
    "ugrnn": ("ugrnn", {}),
}


@pytest.fixture(scope="module")
def native(compiler, tmp_path_factory):
    return results(tmp_path_factory.mktemp("native"), compiler, ["-O1", "-pthread"])


def test_sets_agree(native):
    assert list(native) == [name for name, supported in _core.instruction_sets().items() if supported]
    for problems in fused(native).values():
        assert_same(problems, list(native.values())[-1])
        assert_close(native["generic"], problems)


def test_without_threads_and_wide_integers(native, compiler, tmp_path):
    alone = results(tmp_path, compiler, ["-O1", "-DFASTRNN_NO_THREADS", "-U__SIZEOF_INT128__"])
    assert list(alone) == list(native)
    for isa, problems in alone.items():
        assert_same(problems, native[isa])


def test_the_fingerprint_is_what_it_is_said_to_be(native, isa):
    """The fingerprint as sums of products and a polynomial over blocks, in unbounded integers."""
    seed, words = 1, []
    for _ in range(129 + 300):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        words.append(seed)
    key, words, prime = words[:129], words[129:], 2**61 - 1
    for n, parts in enumerate(native[isa]["fingerprint"]["0.hashes"]):
        padded = words[:n] + [0] * (2 - n % 2)  # a pair of zeros, too, where there is no half
        coefficients = []
        for start in range(0, len(padded), 128):
            block = padded[start : start + 128]
            pairs = zip(block[::2], block[1::2], key[::2], key[1::2])
            products = [(a + k) % 2**64 * ((b + m) % 2**64) for a, b, k, m in pairs]
            coefficients += [sum(p % 2**64 for p in products), sum(p // 2**64 for p in products)]
        hash = 0
        for c in [*coefficients, 8 * n]:
            hash = (hash + c % 2**61) * (key[128] >> 4) % prime
        assert sum(int(part) << 16 * k for k, part in enumerate(parts)) % prime == hash, n


def test_package_gives_the_same_bits(native, isa):
    compared = 0
    for problem, arrays in native[isa].items():
        if ".x1" not in problem or ".ragged" in problem:
            continue
        cell, dtype, T, B = problem.split(".")[:4]
        cell, options = PUBLIC[cell]
        if ".resets" in problem:
            options = options | {"resets": arrays["0.resets"].reshape(int(T[1:]), int(B[1:])) > 0}
        if ".heads" in problem and cell != "slstm":
            continue
        given = {name.removeprefix("0."): array.astype(f"f{int(dtype[1:]) // 8}") for name, array in arrays.items()}

        def steps(array, T=int(T[1:]), B=int(B[1:])):
            return array.reshape(T, B, array.shape[1])

        case = recurrent_cases.Case(
            cell, steps(given["x"]), tuple(given[f"{name}_0"] for name in recurrent_cases.STATES[cell]),
            {name: given[name].reshape(-1) if name.startswith("bias") else given[name] for name in _core.WEIGHTS
             if name in given},
            options, steps(given["d_output"]),
            tuple(given[f"d_{name}_n"] for name in recurrent_cases.STATES[cell]),
        )  # fmt: skip
        for name, array in recurrent_cases.run(functional, case).items():
            assert array.tobytes() == given[name].tobytes(), (problem, name)
            compared += 1
    assert compared > 0


@pytest.fixture(scope="module", params=MACHINES)
def foreign(request, tmp_path_factory):
    compiler, emulator, flags = MACHINES[request.param]
    emulator = shutil.which(emulator) or shutil.which(f"{emulator}-static")
    if not shutil.which(compiler) or not emulator:
        pytest.skip(f"needs {compiler} and qemu-user; .ci/run installs them")
    found = results(tmp_path_factory.mktemp(request.param), compiler, ["-static", *flags], [emulator])
    assert list(found) == (["generic", "neon"] if request.param == "aarch64" else ["generic"])
    return found


def test_other_processors(foreign, native):
    """To the last bit with fused multiply-add, to rounding without."""
    assert_close(foreign["generic"], native["generic"])
    for here in fused(native).values():
        for there in fused(foreign).values():
            assert_same(there, here)
