"""The instruction set in use, and the other choices made at run time."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from fastrnn import _core, _threads
from fastrnn._version import __version__

__all__ = ["config", "instruction_set", "runnable", "show_config", "using"]


def runnable() -> list[str]:
    """The instruction sets that this processor can run, the fastest last."""
    return [name for name, supported in _core.instruction_sets().items() if supported]


def _checked(name: str, source: str) -> str:
    """The name of an instruction set, which may be followed by "+" and instructions for narrow formats."""
    isa, plus, instructions = name.partition("+")
    if isa not in runnable():
        what = "not supported by this processor" if isa in _core.instruction_sets() else "unknown"
        raise ImportError(f"{source}={name!r}: {what}; this machine can run: {', '.join(runnable())}")
    known = [one for names in _core.narrow_instructions(isa).values() for one in names]
    if plus and instructions not in known:
        raise ImportError(
            f"{source}={name!r}: {instructions!r} is unknown or not supported by this processor; "
            f"for narrow formats {isa} can use: {', '.join(dict.fromkeys(known))}"
        )
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


def _quantized_instructions():
    """format -> the instructions in use."""
    isa, _, forced = _chosen.partition("+")
    return {form: forced if forced in known else known[0] for form, known in _core.narrow_instructions(isa).items()}


def config() -> dict[str, Any]:
    """The version, the compiler, the instruction sets found and chosen, and the number of threads, as a dict.

    Returns
    -------
    config : dict
        "version", "compiler" : str; "instruction_set" : str, the one in use; "instruction_set_forced" : bool, whether
        by FASTRNN_ISA; "instruction_sets_runnable", "instruction_sets_built" : list of str, the slowest first;
        "quantized_instructions" : dict of str, the instructions that quantized layers use, by format;
        "threads" : int, as `get_num_threads`; "helper_threads" : bool, whether built with them. A new one each time.

    See Also
    --------
    show_config : the same as text.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.config()["instruction_sets_built"][0]
    'generic'
    """
    return {
        "version": __version__,
        "compiler": _core.compiler(),
        "instruction_set": _chosen,
        "instruction_set_forced": bool(_forced),
        "instruction_sets_runnable": runnable(),
        "instruction_sets_built": list(_core.instruction_sets()),
        "quantized_instructions": _quantized_instructions(),
        "threads": _threads.get_num_threads(),
        "helper_threads": _core.has_threads(),
    }


def show_config() -> None:
    """Print the version, the compiler, the instruction sets found and chosen, and the number of threads.

    See Also
    --------
    config : the same as a dict.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.show_config()                                   # doctest: +SKIP
    fastrnn            0.1.0
    compiler           gcc 12.2.0
    instruction sets   generic avx2 [avx512]   (built: generic avx2 avx512)
    quantized layers   int8: amx_int8, float16: avx512, ...
    threads            2 (own helper threads)
    """
    found = config()
    chosen, _, _ = found["instruction_set"].partition("+")
    marked = [f"[{name}]" if name == chosen else name for name in found["instruction_sets_runnable"]]
    forced = ", forced by FASTRNN_ISA" if found["instruction_set_forced"] else ""
    print(f"fastrnn            {found['version']}")
    print(f"compiler           {found['compiler']}")
    print(f"instruction sets   {' '.join(marked)}{forced}   (built: {' '.join(found['instruction_sets_built'])})")
    quantized = [f"{form}: {instructions}" for form, instructions in found["quantized_instructions"].items()]
    print(f"quantized layers   {', '.join(quantized)}")
    kind = "own helper threads" if found["helper_threads"] else "built without threads"
    print(f"threads            {found['threads']} ({kind})")
