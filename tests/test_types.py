"""The public interface is annotated, and the file that mypy checks also runs."""

import inspect
import runpy
from pathlib import Path

import pytest

import fastrnn
from fastrnn import functional, reference
from fastrnn.stream import Stream

PUBLIC = [getattr(module, name) for module in (fastrnn, functional, reference) for name in module.__all__]
CALLABLE = [*(thing for thing in PUBLIC if callable(thing)), Stream.state.fget, Stream.state.fset, Stream.reset]


def functions_of(thing):
    """The public functions of a class, its constructor and its operators included; of a function, itself."""
    if not inspect.isclass(thing):
        return [thing]
    members = {
        name: getattr(thing, name)
        for cls in thing.__mro__
        for name in vars(cls)
        if cls.__module__.startswith("fastrnn")
    }
    wanted = [
        m for name, m in members.items() if not name.startswith("_") or name in ("__init__", "__call__", "__getitem__")
    ]
    return [m.fget if isinstance(m, property) else m for m in wanted if callable(m) or isinstance(m, property)]


@pytest.mark.parametrize("thing", CALLABLE, ids=lambda thing: thing.__qualname__)
def test_everything_public_is_annotated(thing):
    if hasattr(thing, "_fields"):  # a named tuple, which has nothing else
        assert set(thing.__annotations__) == set(thing._fields)
        return
    functions = functions_of(thing)
    assert functions
    for function in functions:
        signature = inspect.signature(function)
        given = [p.annotation for name, p in signature.parameters.items() if name != "self"]
        assert inspect.Signature.empty not in [*given, signature.return_annotation], function.__qualname__


def test_the_typed_file_runs():
    runpy.run_path(str(Path(__file__).parent / "typed_usage.py"))
