"""A package that uses fastrnn from Cython."""

from setuptools import Extension, setup

import fastrnn

setup(
    name="fastrnn-client",
    version="1.0",
    ext_modules=[Extension("fastrnn_client", ["fastrnn_client.pyx"], include_dirs=[fastrnn.get_include()])],
)
