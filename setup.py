"""Builds fastrnn._core from the Cython binding and every C file of csrc/.

Everything that is not code lives in pyproject.toml.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One list for every file. An instruction set is chosen by a target pragma inside its own source, so no
# -march here; and no -ffast-math, which would flush denormals for the whole process and reorder sums.
# -O2, because -O3 adds 0.33 MB and no speed: the loops that must be unrolled say so (UNROLL).
# -ffp-contract=off: a fused multiply-add happens where the source says fma and nowhere else.
# -fno-asynchronous-unwind-tables: no exception passes through C, and the tables would add 0.04 MB to the wheel.
UNIX_FLAGS = ["-O2", "-std=c11", "-pthread", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
UNIX_FLAGS += ["-fno-asynchronous-unwind-tables"]
MSVC_FLAGS = ["/O2", "/std:c11", "/fp:precise", "/experimental:c11atomics"]


class BuildExtension(build_ext):
    """build_ext with this project's flags, and the C files compiled side by side."""

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        flags = list(MSVC_FLAGS if msvc else UNIX_FLAGS)
        if not msvc and not self.debug:
            # Python's own CFLAGS often carry -g, which would make the wheel several times larger.
            # Symbols stay, so profilers still see names; `build_ext --debug` keeps the line numbers.
            flags.append("-g0")
            flags += os.environ.get("CFLAGS", "").split()  # once more, after ours
        for extension in self.extensions:
            extension.extra_compile_args = flags
            if not msvc:
                extension.extra_link_args = ["-pthread"]
                extension.libraries = ["m"]  # fenv.h, on processors other than x86-64 and AArch64
        if not msvc:
            self.compile_side_by_side()
        super().build_extensions()

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
            sources=["fastrnn/_core.pyx", *sorted(glob("csrc/*/*.c"))],
            depends=sorted(glob("csrc/**/*.h", recursive=True) + glob("fastrnn/_binding/*.pxi")),
            include_dirs=["csrc", numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            language="c",
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
