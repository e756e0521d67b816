"""A package that uses fastrnn from Cython."""

import fastrnn
from setuptools import Extension, setup

setup(
    name="fastrnn-client",
    version="1.0",
    ext_modules=[Extension("fastrnn_client", ["fastrnn_client.pyx"], include_dirs=[fastrnn.get_include()])],
)
