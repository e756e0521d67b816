# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
# cython: freethreading_compatible=True
"""Binding of csrc/fastrnn.h: arrays to pointers, status to exception.

Arrays are C-contiguous and of one precision; the callers, in functional.py, have checked their shapes and allocated the
results. Nothing here looks at either again, beyond what a typed memoryview demands.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

import threading


cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_dtype:
        FASTRNN_F32
        FASTRNN_F64
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_OUT_OF_MEMORY
    ctypedef struct fastrnn_isa:
        pass
    ctypedef struct fastrnn_packed:
        pass
    ctypedef struct fastrnn_workspace:
        pass
    ctypedef struct fastrnn_lstm_forward_args:
        Py_ssize_t T, B, I, H
        const void *x
        const void *h_0
        const void *c_0
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        void *output
        void *h_n
        void *c_n
        void *gates
        void *c
        fastrnn_packed **snapshot
    ctypedef struct fastrnn_lstm_backward_args:
        Py_ssize_t T, B, I, H
        const fastrnn_packed *snapshot
        const void *x
        const void *h_0
        const void *c_0
        const void *gates
        const void *c
        const void *d_output
        const void *d_h_n
        const void *d_c_n
        void *d_x
        void *d_h_0
        void *d_c_0
        void *d_weight_ih
        void *d_weight_hh
        void *d_bias

    const fastrnn_isa *fastrnn_isa_at(int index)
    const char *fastrnn_isa_name(const fastrnn_isa *)
    bint fastrnn_isa_is_supported(const fastrnn_isa *)
    bint fastrnn_has_openmp()
    const char *fastrnn_compiler()
    void fastrnn_packed_free(fastrnn_packed *)
    fastrnn_workspace *fastrnn_workspace_create()
    void fastrnn_workspace_free(fastrnn_workspace *)
    fastrnn_status fastrnn_lstm_forward(const fastrnn_isa *, fastrnn_dtype, const fastrnn_lstm_forward_args *,
                                        fastrnn_workspace *, int threads)
    fastrnn_status fastrnn_lstm_backward(const fastrnn_lstm_backward_args *, fastrnn_workspace *, int threads)
    void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, int use_tanh, Py_ssize_t n, const void *x, void *y)
    uint64_t fastrnn_fingerprint(const void *data, size_t size)


ctypedef fused real:
    float
    double


def instruction_sets():
    """The names of the instruction sets built in, the slowest first, each with whether this processor runs it."""
    names = {}
    cdef int index = 0
    while fastrnn_isa_at(index) != NULL:
        names[fastrnn_isa_name(fastrnn_isa_at(index)).decode()] = fastrnn_isa_is_supported(fastrnn_isa_at(index))
        index += 1
    return names


def compiler():
    return fastrnn_compiler().decode()


def has_openmp():
    return fastrnn_has_openmp()


cdef const fastrnn_isa *_find(str name) except NULL:
    cdef bytes wanted = name.encode()
    cdef int index = 0
    while fastrnn_isa_at(index) != NULL:
        if fastrnn_isa_name(fastrnn_isa_at(index)) == wanted:
            return fastrnn_isa_at(index)
        index += 1
    raise ValueError(f"isa: no instruction set is named {name!r}")


cdef int _check(fastrnn_status status) except -1:
    if status != FASTRNN_OK:
        raise MemoryError("no memory for the kernel's workspace")
    return 0


cdef class Packed:
    """A copy of a layer's weights, packed for the backward kernels of one instruction set."""
    cdef fastrnn_packed *pointer

    def __dealloc__(self):
        fastrnn_packed_free(self.pointer)


cdef class Workspace:
    """Memory that calls use one after the other: one for each Python thread."""
    cdef fastrnn_workspace *pointer

    def __cinit__(self):
        self.pointer = fastrnn_workspace_create()
        if self.pointer == NULL:
            raise MemoryError("no memory for a workspace")

    def __dealloc__(self):
        fastrnn_workspace_free(self.pointer)


_of_this_thread = threading.local()


cdef Workspace _workspace():
    try:
        return _of_this_thread.workspace
    except AttributeError:
        _of_this_thread.workspace = Workspace()
        return _of_this_thread.workspace


def lstm_forward(const real[:, :, ::1] x not None, const real[:, ::1] h_0 not None, const real[:, ::1] c_0 not None,
                 const real[:, ::1] weight_ih not None, const real[:, ::1] weight_hh not None,
                 const real[::1] bias_ih, const real[::1] bias_hh,
                 real[:, :, ::1] output not None, real[:, ::1] h_n not None, real[:, ::1] c_n not None,
                 real[:, :, ::1] gates, real[:, :, ::1] c, int num_threads, str isa not None):
    """Fills output, h_n and c_n; with gates and c given, fills them too, and returns the weights for backward."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_dtype dtype = FASTRNN_F32 if real is float else FASTRNN_F64
    cdef fastrnn_packed *snapshot = NULL
    cdef fastrnn_lstm_forward_args args
    cdef fastrnn_status status
    memset(&args, 0, sizeof(args))
    args.T, args.B, args.I, args.H = x.shape[0], x.shape[1], x.shape[2], weight_hh.shape[1]
    args.x, args.h_0, args.c_0 = &x[0, 0, 0], &h_0[0, 0], &c_0[0, 0]
    args.weight_ih, args.weight_hh = &weight_ih[0, 0], &weight_hh[0, 0]
    if bias_ih is not None:
        args.bias_ih = &bias_ih[0]
    if bias_hh is not None:
        args.bias_hh = &bias_hh[0]
    args.output, args.h_n, args.c_n = &output[0, 0, 0], &h_n[0, 0], &c_n[0, 0]
    if gates is not None:
        args.gates = &gates[0, 0, 0]
    cdef Packed packed = None
    if c is not None:
        args.c = &c[0, 0, 0]
        args.snapshot = &snapshot
        packed = Packed.__new__(Packed)
    cdef Workspace workspace = _workspace()
    with nogil:
        status = fastrnn_lstm_forward(kernels, dtype, &args, workspace.pointer, num_threads)
    if packed is not None:
        packed.pointer = snapshot
    _check(status)
    return packed


def lstm_backward(Packed packed not None, const real[:, :, ::1] x not None, const real[:, ::1] h_0 not None,
                  const real[:, ::1] c_0 not None, const real[:, :, ::1] gates not None,
                  const real[:, :, ::1] c not None, const real[:, :, ::1] d_output, const real[:, ::1] d_h_n,
                  const real[:, ::1] d_c_n, real[:, :, ::1] d_x, real[:, ::1] d_h_0 not None,
                  real[:, ::1] d_c_0 not None, real[:, ::1] d_weight_ih not None, real[:, ::1] d_weight_hh not None,
                  real[::1] d_bias, int num_threads):
    """Fills the gradients; the given ones may be None for zeros, d_x and d_bias None if not wanted."""
    cdef fastrnn_lstm_backward_args args
    cdef fastrnn_status status
    memset(&args, 0, sizeof(args))
    args.T, args.B, args.I, args.H = x.shape[0], x.shape[1], x.shape[2], h_0.shape[1]
    args.snapshot = packed.pointer
    args.x, args.h_0, args.c_0 = &x[0, 0, 0], &h_0[0, 0], &c_0[0, 0]
    args.gates, args.c = &gates[0, 0, 0], &c[0, 0, 0]
    if d_output is not None:
        args.d_output = &d_output[0, 0, 0]
    if d_h_n is not None:
        args.d_h_n = &d_h_n[0, 0]
    if d_c_n is not None:
        args.d_c_n = &d_c_n[0, 0]
    if d_x is not None:
        args.d_x = &d_x[0, 0, 0]
    args.d_h_0, args.d_c_0 = &d_h_0[0, 0], &d_c_0[0, 0]
    args.d_weight_ih, args.d_weight_hh = &d_weight_ih[0, 0], &d_weight_hh[0, 0]
    if d_bias is not None:
        args.d_bias = &d_bias[0]
    cdef Workspace workspace = _workspace()
    with nogil:
        status = fastrnn_lstm_backward(&args, workspace.pointer, num_threads)
    _check(status)


def activate(str function not None, const real[::1] x not None, real[::1] y not None, str isa not None):
    """y = sigmoid(x) or tanh(x), as the cells compute them."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef bint use_tanh = {"sigmoid": False, "tanh": True}[function]
    cdef fastrnn_dtype dtype = FASTRNN_F32 if real is float else FASTRNN_F64
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"y: expected ({x.shape[0]},), got ({y.shape[0]},)")
    with nogil:
        fastrnn_activate(kernels, dtype, use_tanh, x.shape[0], &x[0], &y[0])


def fingerprint(const real[:, :, ::1] array not None):
    """A hash of the array's bytes, to notice that it has changed."""
    cdef uint64_t result
    with nogil:
        result = fastrnn_fingerprint(&array[0, 0, 0], array.shape[0] * array.shape[1] * array.shape[2] * sizeof(real))
    return result
