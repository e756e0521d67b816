"""The C library by itself: built by CMake, installed, found by pkg-config and CMake, and safe in a real-time thread."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).parents[1]
CC = os.environ.get("CC", "cc").split()
HEADERS = ("fastrnn.h", "fastrnn_stream.h", "fastrnn_api.h")

pytestmark = pytest.mark.skipif(
    shutil.which(CC[0]) is None or shutil.which("cmake") is None,
    reason="needs a C compiler and CMake; .ci/run installs them",
)


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folders of the build and of the installation. A debug build takes a fifth of the time."""
    folder = tmp_path_factory.mktemp("c")
    build, prefix = folder / "build", folder / "prefix"
    flags = [
        "-DCMAKE_BUILD_TYPE=Debug",
        f"-DCMAKE_C_COMPILER={CC[0]}",
        "-DFASTRNN_EXAMPLES=ON",
        "-DCMAKE_INSTALL_LIBDIR=lib",
    ]
    flags += [f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    run("cmake", "-S", ROOT, "-B", build, *flags)
    run("cmake", "--build", build, "--parallel", os.cpu_count())
    run("cmake", "--install", build)
    return build, prefix


def declared():
    """The functions of the public headers."""
    text = "".join((ROOT / "csrc" / name).read_text() for name in HEADERS)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return set(re.findall(r"^[a-z][\w ]*[ *](fastrnn_\w+)\([^;{]*\);", text, flags=re.MULTILINE))


def test_examples(built):
    build, _ = built
    assert "the same bits as one call" in run(build / "example_stream")
    assert "step 300   mean squared error 0.000" in run(build / "example_training")


@pytest.mark.skipif(sys.platform != "linux", reason="ELF")
def test_exactly_the_functions_of_the_headers_are_exported(built):
    library = built[1] / "lib" / "libfastrnn.so"
    symbols = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    assert symbols == declared()
    (abi,) = re.findall(r"#define FASTRNN_ABI (\d+)", (ROOT / "csrc" / "fastrnn.h").read_text())
    assert library.readlink() == Path(f"libfastrnn.so.{abi}")
    assert library.resolve().name == f"libfastrnn.so.{abi}.{fastrnn.__version__}"


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_pkg_config(built, tmp_path):
    _, prefix = built
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    assert run("pkg-config", "--modversion", "fastrnn", env=environment).strip() == fastrnn.__version__
    flags = run("pkg-config", "--cflags", "--libs", "fastrnn", env=environment).split()
    run(*CC, "-std=c11", ROOT / "examples" / "c" / "stream.c", "-o", tmp_path / "stream", *flags)
    libraries = os.environ | {"LD_LIBRARY_PATH": str(prefix / "lib"), "DYLD_LIBRARY_PATH": str(prefix / "lib")}
    assert "the same bits as one call" in run(tmp_path / "stream", env=libraries)


@pytest.mark.parametrize("target", ["fastrnn::fastrnn", "fastrnn::fastrnn_static"])
def test_cmake_finds_it(built, tmp_path, target):
    (tmp_path / "CMakeLists.txt").write_text(
        f"""
        cmake_minimum_required(VERSION 3.16)
        project(client LANGUAGES C)
        find_package(fastrnn {fastrnn.__version__} REQUIRED)
        add_executable(client {ROOT.as_posix()}/examples/c/stream.c)
        target_link_libraries(client PRIVATE {target})
        """
    )
    run(
        "cmake",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        f"-DCMAKE_PREFIX_PATH={built[1]}",
        f"-DCMAKE_C_COMPILER={CC[0]}",
    )
    run("cmake", "--build", tmp_path / "build")
    assert "the same bits as one call" in run(tmp_path / "build" / "client")


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_headers_are_cpp(tmp_path):
    (tmp_path / "client.cpp").write_text("".join(f'#include "{name}"\n' for name in HEADERS))
    run(
        "c++", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I", ROOT / "csrc", tmp_path / "client.cpp"
    )


def test_the_headers_after_complex(tmp_path):
    """NumPy's headers include <complex.h>, which has a macro I."""
    text = "#include <complex.h>\n" + "".join(f'#include "{name}"\n' for name in HEADERS)
    (tmp_path / "client.c").write_text(text + "ptrdiff_t inputs(const fastrnn_weights *w) { return w->I; }\n")
    run(*CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", ROOT / "csrc", tmp_path / "client.c")


@pytest.fixture(scope="module")
def real_time(built, tmp_path_factory):
    if not sys.platform.startswith("linux"):
        pytest.skip("seccomp is Linux'")
    program = tmp_path_factory.mktemp("real_time") / "real_time"
    wrap = ",".join(f"--wrap={name}" for name in ("malloc", "calloc", "realloc", "aligned_alloc", "free"))
    flags = ["-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "csrc", "-pthread", f"-Wl,{wrap}"]
    sources = ROOT / "tests" / "c" / "real_time.c", built[1] / "lib" / "libfastrnn.a"
    run(*CC, *flags, *sources, "-lm", "-o", program)
    return program


def test_steps_make_no_system_call_and_no_allocation(real_time):
    assert subprocess.run([real_time]).returncode == 0
    assert subprocess.run([real_time, "call"]).returncode == -signal.SIGSYS
    assert subprocess.run([real_time, "allocate"]).returncode < 0
