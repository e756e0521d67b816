# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
# cython: freethreading_compatible=True, auto_pickle=False
"""Binding of csrc/fastrnn.h: records of calls to C structs, arrays to pointers, status to exception.

Arrays are NumPy arrays, C-contiguous, aligned and of one precision, which is checked here. Their shapes are not
checked: the callers have checked them and have allocated the results. `Steps` and the plain calls do both, because
such a call lasts microseconds.

The weights of one direction of one layer are a tuple in the order of WEIGHTS; absent weights are None, and may be left
out at the end. A state is a list of arrays (L, B, n), one for each state of the cell, h first. The first axis counts
the directions of the layers of a stack; the field `index` of a call is the row of these arrays that belongs to the
call. The arrays may also be (B, n); `index` is then 0.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock,
)
# Types of csrc/fastrnn.h that other packages use, too, from __init__.pxd.
from fastrnn cimport (
    FASTRNN_BACKWARD, FASTRNN_F32, FASTRNN_F64, FASTRNN_FORWARD, FASTRNN_HARD_SIGMOID_FIFTH,
    FASTRNN_HARD_SIGMOID_SIXTH, FASTRNN_INTERRUPTED, FASTRNN_MOST_CALLS, FASTRNN_MOST_STATES, FASTRNN_NATIVE,
    FASTRNN_OK, FASTRNN_OUT_OF_MEMORY, FASTRNN_RELU, FASTRNN_SIGMOID, FASTRNN_TANH, fastrnn_backward_args,
    fastrnn_cell, fastrnn_cell_properties, fastrnn_dtype, fastrnn_format, fastrnn_forward_args, fastrnn_interruption,
    fastrnn_isa, fastrnn_options, fastrnn_packed, fastrnn_pass, fastrnn_status, fastrnn_tape, fastrnn_weights,
    fastrnn_workspace,
)

import math
import os
import threading
from functools import lru_cache

import numpy as np

cnp.import_array()

include "_binding/declarations.pxi"
include "_binding/processors.pxi"
include "_binding/kernels.pxi"
include "_binding/arrays.pxi"
include "_binding/weights.pxi"
include "_binding/pool.pxi"
include "_binding/saved.pxi"
include "_binding/workspace.pxi"
include "_binding/calls.pxi"
include "_binding/ragged.pxi"
include "_binding/plain.pxi"
include "_binding/streams.pxi"
include "_binding/training.pxi"
include "_binding/changes.pxi"
include "_binding/tensors.pxi"
