"""Builds fastrnn._core from the Cython binding and every C file of csrc/.

Everything that is not code lives in pyproject.toml.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# One list for every file. An instruction set is chosen by a target pragma inside its own source, so no
# -march here; and no -ffast-math, which would flush denormals for the whole process and reorder sums.
# -ffp-contract=off: a fused multiply-add happens where the source says fma and nowhere else.
UNIX_FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
MSVC_FLAGS = ["/O2", "/std:c11", "/fp:precise"]

# (compile flags, link flags), the first pair that builds a program wins.
UNIX_OPENMP = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
MSVC_OPENMP = [(["/openmp"], [])]

OPENMP_PROBE = """
#include <omp.h>
int main(void) {
    int total = 0;
    #pragma omp parallel reduction(+ : total)
    total += omp_get_num_threads();
    return total == 0;
}
"""


class BuildExtension(build_ext):
    """build_ext with this project's flags, an OpenMP probe, and the C files compiled side by side."""

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        flags = list(MSVC_FLAGS if msvc else UNIX_FLAGS)
        if not msvc and not self.debug:
            # Python's own CFLAGS often carry -g, which would make the wheel several times larger.
            # Symbols stay, so profilers still see names; `build_ext --debug` keeps the line numbers.
            flags.append("-g0")
        flags += os.environ.get("CFLAGS", "").split()  # Python puts them before ours, where they lose
        openmp_compile, openmp_link = self.find_openmp(MSVC_OPENMP if msvc else UNIX_OPENMP)
        for extension in self.extensions:
            extension.extra_compile_args = flags + openmp_compile
            extension.extra_link_args = openmp_link
        if not msvc:
            self.compile_side_by_side()
        super().build_extensions()

    def find_openmp(self, candidates):
        """The first pair of flags that compiles and links an OpenMP program, or none."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp_probe.c")
            source.write_text(OPENMP_PROBE)
            for compile_flags, link_flags in candidates:
                try:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=compile_flags
                    )
                    self.compiler.link_executable(
                        objects, "openmp_probe", output_dir=folder, extra_postargs=link_flags
                    )
                    return compile_flags, link_flags
                except (CompileError, LinkError):
                    continue
        self.warn(
            "OpenMP was not found (see the compiler's message above): fastrnn is being built "
            "SINGLE-THREADED. Install libgomp (gcc) or libomp (clang) and build again for threads."
        )
        return [], []

    def compile_side_by_side(self):
        """Hands each source to a compiler process of its own; the kernels take most of the build time."""
        compile_in_turn = self.compiler.compile

        def compile(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = pool.map(lambda source: compile_in_turn([source], **options), sources)
                return [path for part in parts for path in part]

        self.compiler.compile = compile


setup(
    ext_modules=[
        Extension(
            "fastrnn._core",
            sources=["fastrnn/_core.pyx", *sorted(glob("csrc/*.c"))],
            depends=sorted(glob("csrc/*.h")),
            include_dirs=["csrc", numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            language="c",
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
