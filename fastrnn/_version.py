"""The version, once: read by pyproject.toml at build time and by the package at run time."""

__version__ = "0.1.0"
