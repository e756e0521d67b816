"""The instruction set in use, and everything else that was chosen at run time."""

import contextlib
import os
from collections.abc import Iterator

from fastrnn import _core, _threads
from fastrnn._version import __version__

__all__ = ["instruction_set", "runnable", "show_config", "using"]


def runnable() -> list[str]:
    """The instruction sets that this processor can run, the fastest last."""
    return [name for name, supported in _core.instruction_sets().items() if supported]


def _checked(name: str, source: str) -> str:
    if name not in runnable():
        what = "not supported by this processor" if name in _core.instruction_sets() else "unknown"
        raise ImportError(f"{source}={name!r}: {what}; this machine can run: {', '.join(runnable())}")
    return name


_forced = os.environ.get("FASTRNN_ISA", "")
_chosen = _checked(_forced, "FASTRNN_ISA") if _forced else runnable()[-1]


def instruction_set() -> str:
    """The name of the instruction set whose kernels are used."""
    return _chosen


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Use another instruction set for a while, in all threads: for tests and the self-check."""
    global _chosen
    before, _chosen = _chosen, _checked(name, "instruction set")
    try:
        yield
    finally:
        _chosen = before


def show_config() -> None:
    """Print the version, the compiler, the instruction sets found and chosen, and the number of threads.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.show_config()                                   # doctest: +SKIP
    fastrnn            0.1.0
    compiler           gcc 12.2.0
    instruction sets   generic avx2 [avx512]   (built: generic avx2 avx512)
    threads            2 (own helper threads)
    """
    marked = " ".join(f"[{name}]" if name == _chosen else name for name in runnable())
    forced = ", forced by FASTRNN_ISA" if _forced else ""
    print(f"fastrnn            {__version__}")
    print(f"compiler           {_core.compiler()}")
    print(f"instruction sets   {marked}{forced}   (built: {' '.join(_core.instruction_sets())})")
    kind = "own helper threads" if _core.has_threads() else "built without threads"
    print(f"threads            {_threads.get_num_threads()} ({kind})")
