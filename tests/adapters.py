"""The modules that need packages which fastrnn does not depend on."""

import importlib

import pytest

ADAPTERS = {
    "fastrnn.autograd": ["autograd"],
    "fastrnn.jax": ["jax"],
    "fastrnn.keras_layers": ["torch", "keras"],
    "fastrnn.sklearn": ["sklearn"],
    "fastrnn.thinc": ["thinc"],
    "fastrnn.torch": ["torch"],
}


def missing_packages(module):
    """What the import of a module needs and does not find; an empty string if there is nothing."""
    for package in ADAPTERS.get(module, ()):
        try:
            imported = importlib.import_module(package)
        except ModuleNotFoundError as error:
            return f"no {error.name}"
        if package == "keras" and imported.backend.backend() != "torch":
            return f"Keras runs on {imported.backend.backend()}, not on PyTorch"
    return ""


def skip_without_packages(module):
    """Skip the test, or the file of tests, unless a module can be imported."""
    missing = missing_packages(module)
    if missing:
        pytest.skip(missing, allow_module_level=True)
