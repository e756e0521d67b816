# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
# cython: freethreading_compatible=True
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

import os
import threading

import numpy as np

cnp.import_array()


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "fastrnn.h" nogil:
    enum:
        FASTRNN_FORMATS
    ctypedef struct fastrnn_format_properties:
        const char *name
        const char *numbers
        int has_scales
        int rounds_projection
        Py_ssize_t most_columns
    fastrnn_format_properties fastrnn_format_at(fastrnn_format)
    const char *fastrnn_narrow_instructions(const fastrnn_isa *, fastrnn_format, int index)
    ctypedef enum fastrnn_fit:
        FASTRNN_FITS
        FASTRNN_NOT_FINITE
        FASTRNN_TOO_LARGE
    fastrnn_fit fastrnn_round_weight(fastrnn_format, Py_ssize_t rows, Py_ssize_t columns, const float *weight,
                                     void *values, float *scales, int threads)

    ctypedef struct fastrnn_ragged:
        Py_ssize_t T, B, steps
        const Py_ssize_t *offsets
        const Py_ssize_t *order
        const Py_ssize_t *lengths

    const fastrnn_isa *fastrnn_isa_at(int index)
    const char *fastrnn_isa_name(const fastrnn_isa *)
    bint fastrnn_isa_is_supported(const fastrnn_isa *)
    bint fastrnn_has_threads()
    const char *fastrnn_compiler()
    fastrnn_status fastrnn_pack(const fastrnn_isa *, fastrnn_dtype, fastrnn_pass, const fastrnn_weights *,
                                const fastrnn_interruption *, int threads, fastrnn_packed **)
    fastrnn_cell fastrnn_find_cell(const char *name)
    fastrnn_cell_properties fastrnn_cell_at(fastrnn_cell)
    fastrnn_tape fastrnn_tape_layout(fastrnn_dtype, fastrnn_cell, Py_ssize_t N, Py_ssize_t H, Py_ssize_t projection)
    void fastrnn_gate_columns(fastrnn_dtype, fastrnn_cell, Py_ssize_t H, Py_ssize_t *columns)
    size_t fastrnn_packed_bytes(const fastrnn_packed *)
    void fastrnn_packed_free(fastrnn_packed *)
    size_t fastrnn_sums_bytes(const fastrnn_packed *, Py_ssize_t rows)
    fastrnn_workspace *fastrnn_workspace_create()
    void fastrnn_workspace_free(fastrnn_workspace *)
    fastrnn_status fastrnn_forward(const fastrnn_forward_args *, int count, bint stacked, fastrnn_workspace *,
                                   const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_backward(const fastrnn_backward_args *, int count, bint stacked, fastrnn_workspace *,
                                    const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_gather(const fastrnn_ragged *, size_t bytes, const void *array, Py_ssize_t step,
                                  Py_ssize_t sequence, void *to, const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_scatter(const fastrnn_ragged *, size_t bytes, const void *rows, void *array, Py_ssize_t step,
                                   Py_ssize_t sequence, const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_reverse(const fastrnn_ragged *, size_t bytes, const void *rows, void *to,
                                   const fastrnn_interruption *, int threads)
    ctypedef enum fastrnn_function:
        FASTRNN_ACTIVATE_SIGMOID
        FASTRNN_ACTIVATE_TANH
        FASTRNN_ACTIVATE_LOG_SIGMOID
    void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, fastrnn_function, Py_ssize_t n, const void *x, void *y)
    ctypedef struct fastrnn_linear_args:
        Py_ssize_t N, I, O
        const void *x
        const void *weight
        const void *bias
        void *y
    ctypedef struct fastrnn_linear_back_args:
        Py_ssize_t N, I, O
        const void *x
        const void *weight
        const void *d_y
        void *d_x
        void *d_weight
        void *d_bias
    fastrnn_status fastrnn_linear(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_args *, fastrnn_workspace *,
                                  const fastrnn_interruption *, int threads)
    fastrnn_status fastrnn_linear_backward(const fastrnn_isa *, fastrnn_dtype, const fastrnn_linear_back_args *,
                                           fastrnn_workspace *, const fastrnn_interruption *, int threads)
    double fastrnn_softmax_cross_entropy(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t N, Py_ssize_t C,
                                         const void *logits, const int64_t *targets, double scale, void *d,
                                         double *losses, int threads)
    double fastrnn_squared_error(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, const void *prediction,
                                 const void *target, double scale, void *d, double *sums, int threads)
    ctypedef struct fastrnn_sgd:
        double rate, momentum, dampening, weight_decay
        bint nesterov, is_first
    ctypedef struct fastrnn_adam:
        double rate, beta_1, beta_2, eps, weight_decay
        bint decoupled
        int64_t step
    enum:
        FASTRNN_SQUARES_BLOCK
    void fastrnn_sgd_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_sgd *, Py_ssize_t n, void *p, const void *g,
                          void *buffer, int threads)
    void fastrnn_adam_step(const fastrnn_isa *, fastrnn_dtype, const fastrnn_adam *, Py_ssize_t n, void *p,
                           const void *g, void *m, void *v, int threads)
    void fastrnn_scale(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, double factor, void *a, int threads)
    double fastrnn_sum_squares(const fastrnn_isa *, fastrnn_dtype, Py_ssize_t n, const void *a, double *sums,
                               int threads)
    enum:
        FASTRNN_KEY_WORDS
    uint64_t fastrnn_fingerprint(const uint64_t *key, const void *data, size_t bytes)


cdef extern from "fastrnn_api.h" nogil:
    ctypedef struct fastrnn_api:
        pass
    const char *FASTRNN_CAPSULE
    const fastrnn_api *fastrnn_get_api()
    ctypedef struct fastrnn_stream
    fastrnn_status fastrnn_stream_pack(const fastrnn_isa *, fastrnn_dtype, const fastrnn_weights *, int count,
                                       fastrnn_stream **)
    void fastrnn_stream_free(fastrnn_stream *)
    size_t fastrnn_stream_packed_bytes(const fastrnn_stream *)
    size_t fastrnn_stream_state_bytes(const fastrnn_stream *)

cdef extern from "stream/stream.h" nogil:
    ctypedef struct fastrnn_stream_matrix:
        Py_ssize_t rows, vectors
        Py_ssize_t K[2]
        Py_ssize_t group_vectors, group_units, head, last
    ctypedef struct fastrnn_stream_layer:
        Py_ssize_t U, V, H, P, inputs
        int cell, gates, states, has_options
        fastrnn_options options
        fastrnn_stream_matrix part[2]
        fastrnn_stream_matrix recurrent
        fastrnn_stream_matrix projection
        Py_ssize_t peephole, state
    ctypedef struct fastrnn_stream:
        int count
        Py_ssize_t numbers_count, states, scratch
        void *numbers
        fastrnn_stream_layer *layers

cdef extern from "runtime/processors.h" nogil:
    ctypedef struct fastrnn_processors_count:
        int logical, cores
    int64_t fastrnn_clock()
    fastrnn_processors_count fastrnn_count_processors(int64_t now)

cdef extern from "runtime/team.h" nogil:
    ctypedef enum fastrnn_policy:
        FASTRNN_ADAPTIVE
        FASTRNN_PATIENT
        FASTRNN_ERRATIC
    void fastrnn_team_policy(fastrnn_policy)
    ctypedef struct fastrnn_lender:
        void (*start)(void (*)(void *) noexcept, void *, unsigned) noexcept
        void (*end)() noexcept
        int (*most)() noexcept
    void fastrnn_set_lender(const fastrnn_lender *)
    int fastrnn_borrow_threads(int on)
    unsigned long long fastrnn_borrowed_shares()


def instruction_sets():
    """The instruction sets built in, the slowest first: name to whether this processor runs it."""
    names = {}
    cdef int index = 0
    while fastrnn_isa_at(index) != NULL:
        names[fastrnn_isa_name(fastrnn_isa_at(index)).decode()] = fastrnn_isa_is_supported(fastrnn_isa_at(index))
        index += 1
    return names


def compiler():
    return fastrnn_compiler().decode()


def has_threads():
    """Whether the kernels were built with helper threads."""
    return fastrnn_has_threads()


def processors():
    """The numbers of logical processors and of cores that this thread may use now."""
    cdef fastrnn_processors_count count = fastrnn_count_processors(fastrnn_clock())
    return count.logical, count.cores


cdef dict _policies = {"adaptive": FASTRNN_ADAPTIVE, "patient": FASTRNN_PATIENT, "erratic": FASTRNN_ERRATIC}


def team_policy(str policy not None):
    """Set how calls treat their helper threads (see runtime/team.h), for tests."""
    fastrnn_team_policy(_policies[policy])


def set_lender(size_t start, size_t end, size_t most):
    """Set the OpenMP that lends its threads: addresses of GOMP_parallel_start, GOMP_parallel_end, omp_get_max_threads.

    The library that contains them must stay loaded.
    """
    cdef fastrnn_lender lender
    lender.start = <void (*)(void (*)(void *) noexcept, void *, unsigned) noexcept> <void *> start
    lender.end = <void (*)() noexcept> <void *> end
    lender.most = <int (*)() noexcept> <void *> most
    fastrnn_set_lender(&lender)


def borrow_threads(bint on):
    """Set whether calls of this Python thread borrow the threads of the lender; returns the previous setting."""
    return bool(fastrnn_borrow_threads(on))


def borrowed_shares():
    """The number of shares of phases that borrowed threads have computed."""
    return fastrnn_borrowed_shares()


cdef dict _isa_indices = {name: index for index, name in enumerate(instruction_sets())}


cdef const fastrnn_isa *_find(str name) except NULL:
    """An instruction set; its name may be followed by "+" and instructions for narrow formats."""
    index = _isa_indices.get(name)
    if index is None:
        index = _isa_indices.get(name.partition("+")[0])
    if index is None:
        raise ValueError(f"isa: no instruction set is named {name!r}")
    return fastrnn_isa_at(index)


# Narrow formats: name to number, and the type number of their weights in NumPy to number.
cdef dict _formats = {}
cdef dict _formats_of_types = {}


def _narrow_formats():
    """The narrow formats of the library: name to the fields of `Format` from `dtype` to `most_columns`."""
    cdef fastrnn_format_properties properties
    cdef dict result = {}
    for number in range(FASTRNN_NATIVE + 1, FASTRNN_FORMATS):
        properties = fastrnn_format_at(<fastrnn_format><int>number)
        name, dtype = properties.name.decode(), np.dtype(properties.numbers.decode())
        _formats[name] = _formats_of_types[dtype.num] = number
        result[name] = dtype, bool(properties.has_scales), bool(properties.rounds_projection), properties.most_columns
    return result


NARROW_FORMATS = _narrow_formats()


def narrow_instructions(str isa not None):
    """The instructions that this processor can use for each narrow format: name to list of str, the fastest first."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef const char *name
    cdef dict result = {}
    cdef int index
    for format_name, format_number in _formats.items():
        result[format_name] = []
        index = 0
        while True:
            name = fastrnn_narrow_instructions(kernels, format_number, index)
            if name == NULL:
                break
            result[format_name].append(name.decode())
            index += 1
    return result


def round_weight(str name not None, cnp.ndarray weight not None, cnp.ndarray values not None, cnp.ndarray scales,
                 int num_threads):
    """Round a weight (rows, columns), float32, to a narrow format: values written, and scales if the format has them.

    Raises a ValueError, whose message lacks the name of the weight, if the format cannot express a number of it.
    """
    cdef fastrnn_format narrow = _formats[name]
    cdef Py_ssize_t rows = weight.shape[0], columns = weight.shape[1]
    cdef const float *source = <const float *>_readable(weight, cnp.NPY_FLOAT)
    cdef void *numbers = _writable(values, NARROW_FORMATS[name][0].num)
    cdef float *of_rows = <float *>_writable(scales, cnp.NPY_FLOAT)
    cdef fastrnn_fit fit
    _same_size(weight, (values,))
    if fastrnn_format_at(narrow).has_scales and (of_rows == NULL or cnp.PyArray_SIZE(scales) != rows):
        raise ValueError(f"scales: expected {rows} numbers")
    with nogil:
        fit = fastrnn_round_weight(narrow, rows, columns, source, numbers, of_rows, num_threads)
    if fit == FASTRNN_NOT_FINITE:
        raise ValueError(f"has a number that is not finite, which {name} cannot express")
    if fit == FASTRNN_TOO_LARGE:
        raise ValueError(f"has a number that is too large for {name}")


cdef fastrnn_cell _cell(str name) except -1:
    """The cell of a name; raises a ValueError for an unknown one."""
    cdef bytes encoded = name.encode()
    cdef fastrnn_cell cell = fastrnn_find_cell(encoded)
    if cell < 0:
        raise ValueError(f"cell: no cell is named {name!r}")
    return cell


cdef dict _recurrent_activations = {
    "sigmoid": FASTRNN_SIGMOID, "hard_sigmoid_fifth": FASTRNN_HARD_SIGMOID_FIFTH,
    "hard_sigmoid_sixth": FASTRNN_HARD_SIGMOID_SIXTH,
}
cdef dict _activations = {"tanh": FASTRNN_TANH, "relu": FASTRNN_RELU}


cdef class Kernel:
    """A cell in C with the options of its activations.

    Parameters
    ----------
    name : str
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}
    activation : {"tanh", "relu"}
    clip : float or None
    """
    cdef readonly str name
    cdef fastrnn_cell cell
    cdef fastrnn_options options

    def __init__(self, str name not None, str recurrent_activation="sigmoid", str activation="tanh", clip=None):
        self.name, self.cell = name, _cell(name)
        self.options.recurrent_activation = _recurrent_activations[recurrent_activation]
        self.options.activation = _activations[activation]
        self.options.clip = 0 if clip is None else clip


# Arrays to pointers. None becomes NULL.

cdef int _type_of(cnp.ndarray array) except -1:
    """NPY_FLOAT or NPY_DOUBLE, the type of all arrays of a call."""
    cdef int type_number = cnp.PyArray_TYPE(array)
    if type_number != cnp.NPY_FLOAT and type_number != cnp.NPY_DOUBLE:
        raise ValueError(f"expected float32 or float64, got {array.dtype}")
    return type_number


cdef const void *_readable(cnp.ndarray array, int type_number) except? NULL:
    if array is None:
        return NULL
    if cnp.PyArray_TYPE(array) != type_number or not cnp.PyArray_ISCARRAY_RO(array):
        raise ValueError(f"a kernel cannot read this array of {array.dtype} as it lies in memory")
    return cnp.PyArray_DATA(array)


cdef void *_writable(cnp.ndarray array, int type_number) except? NULL:
    if array is None:
        return NULL
    if cnp.PyArray_TYPE(array) != type_number or not cnp.PyArray_ISCARRAY(array):
        raise ValueError(f"a kernel cannot write this array of {array.dtype} as it lies in memory")
    return cnp.PyArray_DATA(array)


cdef fastrnn_dtype _dtype(int type_number) noexcept nogil:
    return FASTRNN_F32 if type_number == cnp.NPY_FLOAT else FASTRNN_F64


def native(cnp.ndarray array not None, cnp.dtype dtype not None):
    """The array itself if a kernel can read it in place, else a private copy in the dtype that a kernel can read."""
    if cnp.PyArray_TYPE(array) == dtype.num and cnp.PyArray_ISCARRAY_RO(array):
        return array
    return array.astype(dtype, order="C", casting="same_kind")


cdef const Py_ssize_t *_indices(cnp.ndarray indices) except? NULL:
    """Pointer to the offsets, order or lengths of a ragged batch; NULL for None."""
    if indices is None:
        return NULL
    if cnp.PyArray_TYPE(indices) != cnp.NPY_INTP or not cnp.PyArray_ISCARRAY_RO(indices):
        raise ValueError(f"a kernel cannot read these indices of {indices.dtype} as they lie in memory")
    return <const Py_ssize_t *>cnp.PyArray_DATA(indices)


cdef const unsigned char *_resets(cnp.ndarray resets, size_t rows) except? NULL:
    """Pointer to the flags of so many rows; NULL for None."""
    if resets is None:
        return NULL
    if (
        cnp.PyArray_TYPE(resets) != cnp.NPY_BOOL or not cnp.PyArray_ISCARRAY_RO(resets)
        or <size_t>cnp.PyArray_SIZE(resets) != rows
    ):
        raise ValueError(f"resets: a kernel expects {rows} contiguous booleans, got {resets.dtype}")
    return <const unsigned char *>cnp.PyArray_DATA(resets)


cdef char *_state(cnp.ndarray array, Py_ssize_t index, int type_number, bint writable) except? NULL:
    """Pointer to array[index], (B, n) and contiguous, of an array (L, B, n) of any stride along its first axis.

    For a contiguous array (B, n) the pointer is that of the array, and index has to be 0.
    """
    if array is None:
        return NULL
    cdef cnp.npy_intp itemsize = cnp.PyArray_ITEMSIZE(array)
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(array)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(array)
    cdef cnp.npy_intp L = 1, skip = 0
    if cnp.PyArray_NDIM(array) == 3:
        L, skip, shape, strides = shape[0], strides[0], shape + 1, strides + 1
    if (
        cnp.PyArray_TYPE(array) != type_number
        or not (cnp.PyArray_ISBEHAVED(array) if writable else cnp.PyArray_ISBEHAVED_RO(array))
        or not 2 <= cnp.PyArray_NDIM(array) <= 3 or not 0 <= index < L
        or shape[0] and shape[1] and (
            shape[1] > 1 and strides[1] != itemsize
            or shape[0] > 1 and strides[0] != shape[1] * itemsize
        )
    ):
        raise ValueError(f"a kernel cannot use this state of {array.dtype} as it lies in memory")
    return <char *>cnp.PyArray_DATA(array) + index * skip


# Packed weights

WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole"


cdef class Packed:
    """A copy of the weights of one direction of one layer, packed for one pass of the kernels of an instruction set."""
    cdef fastrnn_packed *pointer
    cdef const fastrnn_isa *isa
    cdef int type_number
    cdef fastrnn_cell cell
    cdef bint backward
    cdef bint has_input  # whether weight_ih is packed
    cdef readonly Py_ssize_t I, H, P
    cdef readonly Py_ssize_t projection  # P with a projection, else 0

    @property
    def nbytes(self):
        return fastrnn_packed_bytes(self.pointer)

    def __dealloc__(self):
        fastrnn_packed_free(self.pointer)


cdef const fastrnn_packed *_packed(Packed packed, int type_number, bint backward) except NULL:
    if packed.pointer == NULL or packed.type_number != type_number:
        raise ValueError("these weights were not packed in the precision of the other arrays")
    if packed.backward != backward:
        raise ValueError("these weights were packed for the other pass")
    return packed.pointer


cdef inline cnp.ndarray _weight(tuple weights, Py_ssize_t index):
    return weights[index] if index < len(weights) else None


cdef int _weights(fastrnn_weights *w, Kernel kernel, tuple weights) except -1:
    """Fill w from a tuple of weights; returns the type number of the other arrays of a call."""
    cdef cnp.ndarray weight_ih = weights[0], weight_hh = weights[1], weight_hr = _weight(weights, 4)
    cdef int weight_type = cnp.PyArray_TYPE(weight_ih), type_number
    cdef fastrnn_format_properties narrow
    w.format = _formats_of_types.get(weight_type, FASTRNN_NATIVE)
    type_number = cnp.NPY_FLOAT if w.format else _type_of(weight_ih)
    if not w.format:
        weight_type = type_number
    w.cell, w.options = kernel.cell, kernel.options
    w.I, w.H = weight_ih.shape[1], weight_ih.shape[0] // fastrnn_cell_at(w.cell).gates
    w.P = w.H if weight_hr is None else weight_hr.shape[0]
    w.heads = w.P // weight_hh.shape[1]
    w.weight_ih, w.weight_hh = _readable(weight_ih, weight_type), _readable(weight_hh, weight_type)
    w.bias_ih = _readable(_weight(weights, 2), type_number)
    w.bias_hh = _readable(_weight(weights, 3), type_number)
    narrow = fastrnn_format_at(w.format)
    w.weight_hr = _readable(weight_hr, weight_type if narrow.rounds_projection else type_number)
    w.peephole = _readable(_weight(weights, 5), type_number)
    w.scale_ih = <const float *>_readable(_weight(weights, 6), cnp.NPY_FLOAT)
    w.scale_hh = <const float *>_readable(_weight(weights, 7), cnp.NPY_FLOAT)
    w.scale_hr = <const float *>_readable(_weight(weights, 8), cnp.NPY_FLOAT)
    w.instructions = NULL
    if w.format:
        if narrow.has_scales and (
            w.scale_ih == NULL or w.scale_hh == NULL or (weight_hr is not None and w.scale_hr == NULL)
        ):
            raise ValueError(f"weights: {narrow.name.decode()} needs the scales of their rows")
        if max(w.I, w.P, w.H) > narrow.most_columns:
            raise ValueError(f"weights: {narrow.name.decode()} allows {narrow.most_columns} columns")
    return type_number


cdef Packed _pack(const fastrnn_isa *kernels, const fastrnn_weights *w, int type_number, bint backward,
                  int num_threads, Pool pool):
    cdef fastrnn_status status
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef Packed packed = None if pool is None else pool.take_packed(w, type_number, backward, kernels)
    if packed is None:
        packed = Packed.__new__(Packed)
    workspace.in_use = True
    with nogil:
        status = fastrnn_pack(kernels, _dtype(type_number), FASTRNN_BACKWARD if backward else FASTRNN_FORWARD, w,
                              interruption, num_threads, &packed.pointer)
    workspace.in_use = False
    workspace.check(status)
    packed.cell, packed.isa = w.cell, kernels
    packed.type_number, packed.backward, packed.has_input = type_number, backward, w.weight_ih != NULL
    packed.I, packed.H, packed.P, packed.projection = w.I, w.H, w.P, 0 if w.weight_hr == NULL else w.P
    return packed


def pack(Kernel kernel not None, list weights not None, bint backward, int num_threads, str isa not None,
         Pool pool=None, int without_input=0):
    """Pack the weights of several layers and directions for one pass: a list of Packed, in memory of the pool.

    Of the first `without_input` of them, packed for backward, weight_ih is left out, and there is no d_x. If the dtype
    of weight_ih is that of a narrow format, the weights that the format rounds, with the scales of their rows if it has
    them, are packed in that format, for forward calls in float32.
    """
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_weights w
    cdef int type_number
    cdef list result = []
    cdef bytes instructions = isa.partition("+")[2].encode()
    for one in weights:
        type_number = _weights(&w, kernel, one)
        w.instructions = <const char *>instructions
        if w.format and backward:
            raise ValueError("weights of a narrow format are for inference alone")
        if backward and len(result) < without_input:
            w.weight_ih = NULL
        result.append(_pack(kernels, &w, type_number, backward, num_threads, pool))
    return result


cdef enum:
    MOST_OPTIONS = 8
    MOST_NUMBERS = 64


cdef int _weights_key(spec, tuple options, reverse, tuple weights, cnp.npy_intp *key) except -1:
    """Write a key of the addresses of the specification and of its options, and of the type and shapes of weights.

    Returns how many numbers were written to `key`, at most MOST_NUMBERS; 0 for weights that a kernel cannot read in
    place. None may be among them.
    """
    cdef int type_number = -1, k, ndim, n = 3
    cdef cnp.ndarray array
    if len(options) > MOST_OPTIONS:
        return 0
    key[0], key[1] = <cnp.npy_intp><void *>spec, <cnp.npy_intp><void *>reverse
    for option in options:
        key[n] = <cnp.npy_intp><void *>option
        n += 1
    for one in weights:
        if one is None:
            if n == MOST_NUMBERS:
                return 0
            key[n] = -1
            n += 1
            continue
        if type(one) is not cnp.ndarray:
            return 0
        array = <cnp.ndarray>one
        if type_number < 0:
            type_number = cnp.PyArray_TYPE(array)
            if type_number != cnp.NPY_FLOAT and type_number != cnp.NPY_DOUBLE:
                return 0
        ndim = cnp.PyArray_NDIM(array)
        if (
            cnp.PyArray_TYPE(array) != type_number or not cnp.PyArray_ISCARRAY_RO(array)
            or n + 1 + ndim > MOST_NUMBERS
        ):
            return 0
        key[n] = ndim
        for k in range(ndim):
            key[n + 1 + k] = cnp.PyArray_DIMS(array)[k]
        n += 1 + ndim
    key[2] = type_number
    return n


cdef class KnownWeights:
    """The stacks of weights and options that have been checked, of functions of one direction of one layer.

    A stack is found by the type and shapes of the weights, and by the options themselves: the same objects, which are
    immutable, so nothing is compared, and no code of a caller runs. At most MOST_KNOWN stacks are remembered.
    """
    cdef dict known  # key to (stack, the objects whose addresses are in the key)
    cdef tuple last  # (key, stack) of the latest find

    def __cinit__(self):
        self.known = {}

    cdef object find(self, spec, tuple options, reverse, tuple weights):
        """The stack, or None if the weights are not plain arrays or not known."""
        cdef cnp.npy_intp numbers[MOST_NUMBERS]
        cdef tuple last = self.last
        cdef bytes key
        cdef size_t size = _weights_key(spec, options, reverse, weights, numbers) * sizeof(cnp.npy_intp)
        if size == 0:
            return None
        if last is not None:
            key = <bytes>last[0]
            if <size_t>len(key) == size and memcmp(<const char *>key, numbers, size) == 0:
                return last[1]
        key = (<char *>numbers)[:size]
        found = self.known.get(key)
        if found is None:
            return None
        self.last = key, found[0]
        return found[0]

    def add(self, spec, tuple options not None, reverse, tuple weights not None, stack):
        """Remember the stack of checked weights and options, the latter as callers gave them."""
        cdef cnp.npy_intp numbers[MOST_NUMBERS]
        cdef size_t size = _weights_key(spec, options, reverse, weights, numbers) * sizeof(cnp.npy_intp)
        for option in (*options, reverse):
            if option is not None and type(option) not in (bool, int, float, str):
                return  # it may change
        if size and len(self.known) < MOST_KNOWN:
            self.known[(<char *>numbers)[:size]] = stack, spec, options, reverse

    def infer(self, spec, tuple arguments not None, int num_threads, str isa not None, Pool pool not None,
              padded not None):
        """The results of a function for plain arrays whose shapes are known, without a state, lengths and resets.

        Parameters
        ----------
        arguments : tuple (x, state, weights, options, lengths, resets, reverse)
            As callers give them.

        Returns
        -------
        results : tuple or None
            output, (T, B, P), and state_n: an array (B, n), or a tuple of several. None for other arguments.
        """
        x, state, weights, options, lengths, resets, reverse = arguments
        if state is not None or lengths is not None or resets is not None or reverse is not False:
            return None
        found = self.pack(spec, options, reverse, weights, False, num_threads, isa, pool, x, padded)
        if found is None:
            return None
        cdef Inputs inputs = found[0]
        stack = inputs.stack
        cdef list states = empty_states(inputs.state_0)
        output = _infer(stack, found[1], inputs.x, inputs.state_0, states, num_threads, pool)
        pool.give_back_all(found[1])
        return output, states[0] if len(states) == 1 else tuple(states)

    cpdef tuple pack(self, spec, tuple options, reverse, tuple weights, bint training, int num_threads, str isa,
                     Pool pool, x=None, padded=None):
        """Pack plain arrays whose shapes are known, one direction of one layer, without a conversion or a check.

        The shapes and pointers are read without running Python code in between, so that no view is needed.

        Parameters
        ----------
        x, padded
            As for `plain_inputs`, for a call without a state and lengths.

        Returns
        -------
        found : tuple or None
            The Inputs, or without x the Stack; the weights packed for forward; and with `training` those packed for
            backward, else None; each a list of one. None if the arrays are not plain or not known.
        """
        stack = self.find(spec, options, reverse, weights)
        if stack is None:
            return None
        cdef fastrnn_weights w
        cdef int type_number = _weights(&w, <Kernel?>stack.kernel, weights)
        first = stack
        if padded is not None:
            first = plain_inputs(stack, x, padded)
            if first is None:
                return None
        cdef const fastrnn_isa *kernels = _find(isa)
        cdef Packed for_backward = None
        if training:
            for_backward = _pack(kernels, &w, type_number, True, num_threads, pool)
        return first, [_pack(kernels, &w, type_number, False, num_threads, pool)], [for_backward]


cdef enum:
    MOST_KNOWN = 4096


def sums(Packed packed not None, Py_ssize_t rows):
    """Memory that the backward calls for one sequence of `rows` rows share; None if they need none."""
    cdef size_t element = 4 if packed.type_number == cnp.NPY_FLOAT else 8
    cdef size_t bytes = fastrnn_sums_bytes(packed.pointer, rows)
    cdef cnp.npy_intp numbers = <cnp.npy_intp>(bytes // element)
    return cnp.PyArray_EMPTY(1, &numbers, packed.type_number, 0) if numbers else None


# The buffer `saved`: the saved activations of one direction of one layer, for its backward pass. fastrnn.h calls it the
# tape.

cdef enum:
    _ALIGNMENT = 64  # bytes: a cache line, and the widest vector

ALIGNMENT = _ALIGNMENT


cdef inline size_t _padded(size_t bytes) noexcept nogil:
    return (bytes + _ALIGNMENT - 1) & ~<size_t>(_ALIGNMENT - 1)


cdef fastrnn_tape _layout(Packed packed, size_t rows) noexcept:
    """The offsets of the arrays in `saved`."""
    return fastrnn_tape_layout(_dtype(packed.type_number), packed.cell, rows, packed.H, packed.projection)


def saved_bytes(Packed packed not None, size_t rows):
    """The size of `saved` for so many rows (time steps of all sequences)."""
    return _layout(packed, rows).bytes


def saved_arrays(Packed packed not None, cnp.ndarray saved not None, size_t rows):
    """A copy of the gates (gates, rows, H), and views (rows, P) or (rows, H) of the states; None if not saved."""
    cdef fastrnn_tape at = _layout(packed, rows)
    cdef fastrnn_cell_properties properties = fastrnn_cell_at(packed.cell)
    cdef char *data = _saved(packed, saved, rows)
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray columns, gates = None
    cdef list states = []
    cdef int n
    shape[0] = rows
    if at.gates != <size_t>-1:
        shape[1] = properties.gates * packed.H
        columns = cnp.PyArray_EMPTY(1, &shape[1], cnp.NPY_INTP, 0)
        fastrnn_gate_columns(_dtype(packed.type_number), packed.cell, packed.H,
                             <Py_ssize_t *>cnp.PyArray_DATA(columns))
        gates = _view(saved, data + at.gates, 2, shape, packed.type_number).take(columns, axis=1)
        gates = gates.reshape(rows, properties.gates, packed.H).swapaxes(0, 1).copy()
    for n in range(properties.states):
        shape[1] = packed.P if n == 0 else packed.H
        if at.states[n] == <size_t>-1:
            states.append(None)
        else:
            states.append(_view(saved, data + at.states[n], 2, shape, packed.type_number))
    return gates, states


cdef char *_saved(Packed packed, cnp.ndarray saved, size_t rows) except NULL:
    """Pointer to an array `saved`, whose size and alignment are checked."""
    cdef size_t size = _layout(packed, rows).bytes
    cdef char *data = <char *>cnp.PyArray_DATA(saved)
    if (
        cnp.PyArray_TYPE(saved) != cnp.NPY_UINT8 or not cnp.PyArray_IS_C_CONTIGUOUS(saved)
        or <size_t>saved.shape[0] != size
    ):
        raise ValueError(f"saved: expected {size} contiguous bytes, got {saved.shape[0]} of {saved.dtype}")
    if size and <size_t>data % _ALIGNMENT:
        raise ValueError(f"saved: its memory does not begin at a multiple of {_ALIGNMENT} bytes")
    return data


# Memory that later calls reuse

cdef cnp.ndarray _view(object owner, char *data, int ndim, cnp.npy_intp *shape, int type_number):
    """An array whose memory belongs to the owner."""
    cdef cnp.ndarray view = cnp.PyArray_SimpleNewFromData(ndim, shape, type_number, data)
    cnp.set_array_base(view, owner)
    return view


cdef cnp.ndarray _with_shape(cnp.ndarray array, int axes, cnp.npy_intp first, cnp.npy_intp second, cnp.npy_intp third):
    """A view of a contiguous array with another shape of two or three axes."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = first, second, third
    return _view(array, <char *>cnp.PyArray_DATA(array), axes, shape, cnp.PyArray_TYPE(array))


@cython.freelist(32)
cdef class Buffer:
    """A piece of memory of a pool, the base of the array that the pool lends."""
    cdef cnp.ndarray memory
    cdef bint is_lent


cdef class Pool:
    """Unused buffers, arrays and packed weights, for the next call: the system takes time to clear new memory.

    An array that is taken and never given back is freed like any other. Only an array that the pool has lent can be
    given back, not a view of it. The pool holds at most `most_bytes`: the buffers that were given back last. Any thread
    may use it at any time: an operation that finds another one in progress, as a finalizer may, bypasses the pool.
    """
    cdef PyThread_type_lock lock
    cdef list buffers  # of Buffer and Packed, those given back last at the end
    cdef readonly size_t nbytes
    cdef public size_t most_bytes

    def __cinit__(self, size_t most_bytes):
        self.buffers, self.most_bytes = [], most_bytes
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("no memory for a lock")

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def after_fork(self):
        """Replace the lock in a child process, where another thread may have held it at the fork."""
        cdef PyThread_type_lock lock = PyThread_allocate_lock()
        if lock != NULL:
            self.lock = lock

    def __len__(self):
        return len(self.buffers)

    def clear(self):
        """Free all buffers."""
        cdef list buffers = []
        if PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            buffers, self.buffers, self.nbytes = self.buffers, buffers, 0
            PyThread_release_lock(self.lock)
        buffers.clear()  # without the lock

    cdef size_t size_of(self, object buffer) noexcept:
        if type(buffer) is Packed:
            return fastrnn_packed_bytes((<Packed>buffer).pointer)
        return cnp.PyArray_NBYTES((<Buffer>buffer).memory)

    cdef Packed take_packed(self, const fastrnn_weights *w, int type_number, bint backward,
                            const fastrnn_isa *isa):
        """Packed weights of the same sizes, whose memory can be reused, or None."""
        cdef Py_ssize_t k
        cdef Packed packed, found = None
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            return None
        for k in range(len(self.buffers) - 1, -1, -1):
            if type(self.buffers[k]) is Packed:
                packed = <Packed>self.buffers[k]
                if (
                    packed.isa == isa and packed.I == w.I and packed.H == w.H and packed.P == w.P
                    and packed.type_number == type_number and packed.backward == backward and packed.cell == w.cell
                    and packed.has_input == (w.weight_ih != NULL)
                ):
                    found = packed
                    self.nbytes -= self.size_of(found)
                    del self.buffers[k]
                    break
        PyThread_release_lock(self.lock)
        return found

    cdef Buffer take_buffer(self, size_t size, size_t best_bytes):
        """The smallest buffer of at least `size` and less than `best_bytes` bytes, or None."""
        cdef Py_ssize_t k, best = -1
        cdef size_t nbytes
        cdef Buffer found = None
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            return None
        for k in range(len(self.buffers) - 1, -1, -1):
            if type(self.buffers[k]) is Buffer:
                nbytes = cnp.PyArray_NBYTES((<Buffer>self.buffers[k]).memory)
                if size <= nbytes < best_bytes:
                    best, best_bytes = k, nbytes
        if best >= 0:
            found = <Buffer>self.buffers[best]
            found.is_lent = True
            self.nbytes -= cnp.PyArray_NBYTES(found.memory)
            del self.buffers[best]
        PyThread_release_lock(self.lock)
        return found

    cdef cnp.ndarray take(self, int ndim, cnp.npy_intp *shape, int type_number, size_t itemsize, bint as_result=False):
        """Callers may keep a result for long: its buffer is at most a quarter larger, that of others at most twice."""
        cdef size_t size = itemsize, best_bytes
        cdef int k
        cdef cnp.npy_intp length
        cdef Buffer buffer = None
        cdef cnp.ndarray memory
        for k in range(ndim):
            size *= shape[k]
        length = size + _ALIGNMENT
        if size >= SMALL_BYTES:
            best_bytes = (size + size // 4 if as_result else 2 * size) + SMALL_BYTES
            buffer = self.take_buffer(length, best_bytes)
        if buffer is not None:
            memory = buffer.memory
        else:
            memory = cnp.PyArray_EMPTY(1, &length, cnp.NPY_UINT8, 0)
            if size >= SMALL_BYTES:
                buffer = Buffer.__new__(Buffer)
                buffer.memory, buffer.is_lent = memory, True
        cdef char *data = <char *>cnp.PyArray_DATA(memory)
        data += (-<size_t>data) % _ALIGNMENT
        return _view(memory if buffer is None else buffer, data, ndim, shape, type_number)

    def array(self, tuple shape not None, Py_ssize_t columns, cnp.dtype dtype not None):
        """Take an uninitialised array (*shape, columns); `shape` has one or two axes."""
        cdef cnp.npy_intp sizes[3]
        cdef int k, ndim = <int>len(shape) + 1
        if ndim > 3:
            raise ValueError("shape: has too many axes")
        for k in range(ndim - 1):
            sizes[k] = shape[k]
        sizes[ndim - 1] = columns
        return self.take(ndim, sizes, dtype.num, dtype.itemsize)

    def bytes(self, Py_ssize_t size):
        """Take an array of uint8, whose memory begins at a multiple of ALIGNMENT bytes."""
        cdef cnp.npy_intp shape = size
        return self.take(1, &shape, cnp.NPY_UINT8, 1)

    cdef cnp.ndarray _lease(self, int ndim, cnp.npy_intp *shape, int type_number, size_t itemsize):
        cdef cnp.ndarray array = self.take(ndim, shape, type_number, itemsize, True)
        if cnp.PyArray_NBYTES(array) < SMALL_BYTES:
            return array
        cdef Lease lease = Lease.__new__(Lease)
        lease.array, lease.pool = array, self
        # NumPy sets the flag `writeable` again only if the base of an array is a writeable array: so a view of it.
        return _view(lease, <char *>cnp.PyArray_DATA(array), ndim, shape, type_number).view()

    def empty(self, shape, dtype):
        """An array as numpy.empty makes it, for a result; a large one is a lease.

        The C library hands large blocks back to the system, and new memory costs a page fault for each 4 KiB.
        """
        cdef cnp.dtype of = np.dtype(dtype)
        cdef cnp.npy_intp sizes[64]  # as many as an array can have
        cdef int ndim = 0
        for n in shape if type(shape) is tuple else (shape,):
            sizes[ndim] = n
            ndim += 1
        return self._empty(ndim, sizes, of.num, of.itemsize)

    cdef cnp.ndarray _empty(self, int ndim, cnp.npy_intp *shape, int type_number, size_t itemsize):
        cdef size_t size = itemsize
        cdef int k
        for k in range(ndim):
            size *= shape[k]
        if size < LARGE_BYTES:
            return cnp.PyArray_EMPTY(ndim, shape, type_number, 0)
        return self._lease(ndim, shape, type_number, itemsize)

    def lease(self, tuple shape not None, cnp.dtype dtype not None):
        """Take an uninitialised array, of at most three axes, that gives its memory back when it is deallocated.

        It begins at a multiple of ALIGNMENT bytes. Unlike other arrays of the pool, it may be the result of a call.
        """
        cdef cnp.npy_intp sizes[3]
        cdef int k, ndim = <int>len(shape)
        if ndim > 3:
            raise ValueError("shape: has too many axes")
        for k in range(ndim):
            sizes[k] = shape[k]
        return self._lease(ndim, sizes, dtype.num, dtype.itemsize)

    def give_back(self, buffer):
        """Give back an array that was taken, or packed weights, that are unused; any other object is ignored."""
        cdef size_t size
        cdef list dropped = None
        if type(buffer) is cnp.ndarray:
            buffer = cnp.get_array_base(<cnp.ndarray>buffer)
            if type(buffer) is not Buffer or not (<Buffer>buffer).is_lent:
                return
        elif type(buffer) is not Packed:
            return
        size = self.size_of(buffer)
        if size > self.most_bytes:
            return
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            return
        try:
            self.buffers.append(buffer)
            self.nbytes += size
            if type(buffer) is Buffer:
                (<Buffer>buffer).is_lent = False
            dropped = []  # freed without the lock
            while self.nbytes > self.most_bytes or len(self.buffers) > MOST_BUFFERS:
                buffer = self.buffers.pop(0)
                self.nbytes -= self.size_of(buffer)
                dropped.append(buffer)
        finally:
            PyThread_release_lock(self.lock)

    def give_back_all(self, list buffers not None):
        """Give back each of a list."""
        for buffer in buffers:
            self.give_back(buffer)


cdef enum:
    SMALL_BYTES = 4096  # smaller arrays are allocated as quickly
    LARGE_BYTES = 65536  # smaller arrays stay in the C library's memory
    MOST_BUFFERS = 256


@cython.no_gc  # it holds an array of bytes
@cython.auto_pickle(False)
@cython.final
cdef class Lease:
    """The owner of the memory of a lease, which gives it back to the pool when it is deallocated."""
    cdef cnp.ndarray array
    cdef Pool pool

    def __dealloc__(self):
        try:
            self.pool.give_back(self.array)
        except MemoryError:
            pass


@cython.no_gc  # it holds arrays and packed weights, which refer to nothing
@cython.auto_pickle(False)
cdef class TapeMemory:
    """The buffers of a tape. When it is deallocated, it gives them back to the pool.

    It does so in `__dealloc__`, because Python ignores exceptions of signal handlers that run within `__del__`.
    """
    cdef readonly list buffers
    cdef Pool pool

    def __init__(self, list buffers not None, Pool pool not None):
        self.buffers, self.pool = buffers, pool

    def __dealloc__(self):
        if self.pool is not None:
            try:
                self.pool.give_back_all(self.buffers)
            except MemoryError:
                pass


cdef class Sections:
    """Cuts one array of bytes into consecutive arrays, each at a multiple of ALIGNMENT bytes.

    `buffer` is contiguous and begins at such a multiple. With `clear` the bytes between the arrays are set to zero.
    """
    cdef cnp.ndarray buffer
    cdef size_t begin
    cdef bint clear

    def __init__(self, cnp.ndarray buffer not None, bint clear=False):
        self.buffer, self.begin, self.clear = buffer, 0, clear

    cdef cnp.ndarray take(self, int ndim, cnp.npy_intp *shape, int type_number, size_t bytes):
        cdef char *data = <char *>cnp.PyArray_DATA(self.buffer) + self.begin
        cdef size_t padded = _padded(bytes)
        if padded > <size_t>self.buffer.shape[0] - self.begin:
            raise ValueError("the buffer is too small for its sections")
        if self.clear:
            memset(data + bytes, 0, padded - bytes)
        self.begin += padded
        return _view(self.buffer, data, ndim, shape, type_number)

    def saved(self, Packed packed not None, size_t rows):
        """Take the buffer `saved` of one direction of one layer."""
        cdef cnp.npy_intp size = _layout(packed, rows).bytes
        return self.take(1, &size, cnp.NPY_UINT8, size)

    def array(self, tuple shape not None, Py_ssize_t columns, cnp.dtype dtype not None):
        """Take an array (*shape, columns)."""
        cdef cnp.npy_intp sizes[3]
        cdef size_t bytes = columns * <size_t>dtype.itemsize
        cdef int k, ndim = <int>len(shape) + 1
        if ndim > 3:
            raise ValueError("shape: has too many axes")
        for k in range(ndim - 1):
            sizes[k] = shape[k]
            bytes *= sizes[k]
        sizes[ndim - 1] = columns
        return self.take(ndim, sizes, dtype.num, bytes)


def padded_bytes(size_t bytes):
    """The size of an array of `bytes` bytes in `Sections`, with its padding."""
    return _padded(bytes)


# States

def zero_states(Py_ssize_t L, Py_ssize_t B, tuple widths not None, cnp.dtype dtype not None):
    """A state of zeros: an array (L, B, n) for each n in `widths`, or (B, n) if L is 0."""
    cdef cnp.npy_intp shape[3]
    cdef int skip = 0 if L else 1
    cdef list states = []
    shape[0], shape[1] = L, B
    for n in widths:
        shape[2] = n
        states.append(cnp.PyArray_ZEROS(3 - skip, shape + skip, dtype.num, 0))
    return states


def empty_states(list states not None):
    """Uninitialised arrays of the shapes and dtypes of a state."""
    cdef list empty = []
    cdef cnp.ndarray one
    for one in states:
        empty.append(cnp.PyArray_EMPTY(cnp.PyArray_NDIM(one), cnp.PyArray_DIMS(one), cnp.PyArray_TYPE(one), 0))
    return empty


# The workspace of calls: one for each Python thread.

cdef class Workspace:
    cdef fastrnn_workspace *pointer
    cdef fastrnn_interruption signals
    cdef object error  # the exception that interrupted the call
    cdef bint in_use

    def __cinit__(self):
        self.signals.should_cancel, self.signals.context = _signalled, <void *>self
        self.pointer = fastrnn_workspace_create()
        if self.pointer == NULL:
            raise MemoryError("no memory for a workspace")

    def __dealloc__(self):
        fastrnn_workspace_free(self.pointer)

    cdef const fastrnn_interruption *interruption(self) noexcept nogil:
        """The interruption of a call: NULL except in the main thread, because Python handles signals nowhere else.

        A daemon thread must not take the GIL once the interpreter has ended: it has no thread state then, and the
        process would die.
        """
        return &self.signals if PyThread_get_thread_ident() == _main_thread else NULL

    cdef int check(self, fastrnn_status status) except -1:
        if status == FASTRNN_INTERRUPTED:
            error, self.error = self.error, None
            raise error
        if status != FASTRNN_OK:
            raise MemoryError("no memory for the kernels' weights or workspace")
        return 0


_of_this_thread = threading.local()


cdef Workspace _workspace():
    """The workspace of this thread; a new one within a call, because signal handlers may make calls, too."""
    cdef Workspace workspace
    try:
        workspace = _of_this_thread.workspace
    except AttributeError:
        workspace = _of_this_thread.workspace = Workspace()
    return Workspace() if workspace.in_use else workspace


cdef int _signalled(void *context) noexcept with gil:
    """Run the handlers of pending signals; an exception of a handler, such as KeyboardInterrupt, cancels the call."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<Workspace>context).error = error
        return 1
    return 0


cdef unsigned long _main_thread = threading.main_thread().ident


def _after_fork():
    """Make the thread that forked the main thread of the child, whose only thread it is."""
    global _main_thread
    _main_thread = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MOST_CALLS = FASTRNN_MOST_CALLS


# Records of calls

@cython.freelist(32)
cdef class ForwardCall:
    """The forward pass of one direction of one layer over the time steps of a batch.

    Parameters
    ----------
    packed : Packed
        The weights, packed for forward.
    index : int
        The row of the state arrays that belongs to this call.
    x : ndarray, (T, B, I), or (N, I) with offsets
    offsets : ndarray of intp, (steps + 1,), or None
        Of a batch in packed layout, the first of the N rows of each step, and N.
    state_0, state_n : list of ndarray, (L, B, P) and (L, B, H)
        The state before the first step; and after each sequence's last step, written. They may be the same arrays.
    output : ndarray, (T, B, P) or (N, P)
        Written.
    saved : ndarray of uint8, (saved_bytes(packed, rows),), or None
        Written: the saved activations for the backward pass. None for inference.
    resets : ndarray of bool, (T, B) or (N,), or None
        The steps before which the states become zeros.
    """
    cdef readonly Packed packed
    cdef readonly Py_ssize_t index
    cdef readonly cnp.ndarray x, offsets, output, saved, resets
    cdef readonly list state_0, state_n

    def __init__(self, Packed packed not None, Py_ssize_t index, cnp.ndarray x not None, cnp.ndarray offsets,
                 list state_0 not None, list state_n not None, cnp.ndarray output not None, cnp.ndarray saved=None,
                 cnp.ndarray resets=None):
        self.packed, self.index, self.x, self.offsets = packed, index, x, offsets
        self.state_0, self.state_n, self.output = state_0, state_n, output
        self.saved, self.resets = saved, resets


@cython.freelist(32)
cdef class BackwardCall:
    """The backward pass of one direction of one layer.

    Parameters
    ----------
    packed : Packed
        The weights of the forward pass, packed for backward.
    index, x, offsets, state_0, saved
        As of the forward pass.
    d_output : ndarray, (T, B, P) or (N, P), or None for zeros
    d_state_n : list of ndarray or None, (L, B, P) and (L, B, H)
        None for zeros.
    d_x : ndarray, (T, B, I) or (N, I), or None
        Written; None if it is not needed.
    d_state_0 : list of ndarray, (L, B, P) and (L, B, H)
        Written; not in the memory of d_state_n.
    d_weights : tuple of ndarray, like the weights
        Written.
    rows_after, rows_before : int
        Rows of the same sequences after and before the time steps of this call, if other calls compute them, the last
        steps first; the gradients of the weights are complete after the call with rows_before = 0.
    sums : ndarray or None
        Memory that such calls share, made by `sums`.
    resets : ndarray of bool, (T, B) or (N,), or None
        As of the forward pass.
    """
    cdef readonly Packed packed
    cdef readonly Py_ssize_t index, rows_after, rows_before
    cdef readonly cnp.ndarray x, offsets, saved, d_output, d_x, sums, resets
    cdef readonly list state_0, d_state_n, d_state_0
    cdef readonly tuple d_weights

    def __init__(self, Packed packed not None, Py_ssize_t index, cnp.ndarray x not None, cnp.ndarray offsets,
                 list state_0 not None, cnp.ndarray saved not None, cnp.ndarray d_output, list d_state_n not None,
                 cnp.ndarray d_x, list d_state_0 not None, tuple d_weights not None, Py_ssize_t rows_after=0,
                 Py_ssize_t rows_before=0, cnp.ndarray sums=None, cnp.ndarray resets=None):
        self.packed, self.index, self.x, self.offsets = packed, index, x, offsets
        self.state_0, self.saved, self.d_output, self.d_state_n = state_0, saved, d_output, d_state_n
        self.d_x, self.d_state_0, self.d_weights = d_x, d_state_0, d_weights
        self.rows_after, self.rows_before, self.sums, self.resets = rows_after, rows_before, sums, resets


@cython.freelist(8)
cdef class Inputs:
    """The checked arguments of a forward pass, as the kernels read them.

    Parameters
    ----------
    stack : fastrnn._engine.stack.Stack
    layout : fastrnn._engine.ragged.Layout
    x : ndarray, (T, B, I), or (N, I) in packed layout
    is_private : bool
        Whether x is memory that the caller does not share.
    state_0 : list of ndarray, (L, B, n)
    shared : list of bool, or None
        Whether each state was given once for all sequences; None if none was.
    batched : bool
        Whether the caller's arrays have an axis of sequences.
    """
    cdef readonly object stack, layout
    cdef readonly cnp.ndarray x
    cdef readonly bint is_private, batched
    cdef readonly list state_0, shared

    def __init__(self, stack, layout, cnp.ndarray x not None, bint is_private, list state_0 not None, list shared,
                 bint batched):
        self.stack, self.layout, self.x, self.is_private = stack, layout, x, is_private
        self.state_0, self.shared, self.batched = state_0, shared, batched


cdef bint _is_plain(array, cnp.dtype dtype) noexcept:
    """Whether a kernel can read this in place: an array of the dtype, contiguous and aligned."""
    if type(array) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray>array) != dtype.num:
        return False
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array)


cdef cnp.ndarray _plain_rows(stack, x):
    """A view of an x (T, B, I) for this stack that a kernel can read in place; None for any other x."""
    cdef cnp.ndarray array
    cdef cnp.npy_intp *shape
    cdef cnp.dtype dtype = stack.dtype
    if not _is_plain(x, dtype) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 3:
        return None
    array = <cnp.ndarray>x
    shape = cnp.PyArray_DIMS(array)
    if shape[2] != <cnp.npy_intp>stack.I or not shape[0] or not shape[1]:
        return None
    if shape[0] > <cnp.npy_intp>stack.most_rows // shape[1]:
        return None
    # A view, because another thread may assign to the shape of x while the call computes.
    return _view(array, <char *>cnp.PyArray_DATA(array), 3, shape, dtype.num)


def plain_inputs(stack, x, padded not None):
    """The Inputs of a call without a state and lengths, whose x (T, B, I) a kernel can read in place.

    Returns None for any other x, which takes the slower way with all checks. ``padded(T, B)`` returns a layout.
    """
    cdef cnp.ndarray rows = _plain_rows(stack, x)
    if rows is None:
        return None
    cdef list state_0 = zero_states(stack.leading, rows.shape[1], stack.widths, stack.dtype)
    return Inputs(stack, padded(rows.shape[0], rows.shape[1]), rows, False, state_0, None, True)


@cython.freelist(8)
cdef class Gradients:
    """The gradients of a backward pass, except that of x.

    Parameters
    ----------
    d_output : ndarray, (T, B, D*P) or (N, D*P), or None for zeros
    d_state_n : list of ndarray or None, (L*D, B, n)
        None for zeros.
    d_state_0 : list of ndarray, (L*D, B, n)
        Written.
    d_weights : list of tuple of ndarray or None
        Of each direction of each layer, like its weights; written.
    """
    cdef readonly cnp.ndarray d_output
    cdef readonly list d_state_n, d_state_0, d_weights

    def __init__(self, cnp.ndarray d_output, list d_state_n not None, list d_state_0 not None, list d_weights not None):
        self.d_output, self.d_state_n = d_output, d_state_n
        self.d_state_0, self.d_weights = d_state_0, d_weights


@cython.freelist(8)
cdef class Chain:
    """Layers on top of each other in one direction, with their inputs and their saved activations.

    Parameters
    ----------
    layout : fastrnn._engine.ragged.Layout
        Of all steps, or of a segment of them.
    inputs : list of ndarray, (..., I) and (..., P)
        The input of each layer, with the sequences in the order in which they are read; all but the first are written.
    state_0 : list of ndarray, (L, B, n)
    saved : list of ndarray of uint8
        The buffer `saved` of each layer, written by the forward pass.
    """
    cdef readonly object layout
    cdef readonly list inputs, state_0, saved

    def __init__(self, layout, list inputs not None, list state_0 not None, list saved not None):
        self.layout, self.inputs, self.state_0, self.saved = layout, inputs, state_0, saved


cdef int _fill_forward(fastrnn_forward_args *args, ForwardCall call) except -1:
    cdef int type_number = _type_of(call.x), n
    cdef cnp.ndarray h_0 = call.state_0[0]
    args.packed = _packed(call.packed, type_number, False)
    args.offsets = _indices(call.offsets)
    args.resets = _resets(call.resets, _rows(call.x))
    args.T = call.x.shape[0] if call.offsets is None else call.offsets.shape[0] - 1
    args.B = cnp.PyArray_DIMS(h_0)[cnp.PyArray_NDIM(h_0) - 2]
    args.x, args.output = _readable(call.x, type_number), _writable(call.output, type_number)
    for n in range(len(call.state_0)):
        args.state_0[n] = _state(call.state_0[n], call.index, type_number, False)
        args.state_n[n] = _state(call.state_n[n], call.index, type_number, True)
    args.tape = NULL
    if call.saved is not None:
        args.tape = _saved(call.packed, call.saved, _rows(call.x))
        if not cnp.PyArray_ISWRITEABLE(call.saved):
            raise ValueError("saved: is read-only")
    return type_number


cdef int _fill_backward(fastrnn_backward_args *args, BackwardCall call) except -1:
    cdef int type_number = _type_of(call.x), n
    cdef cnp.ndarray h_0 = call.state_0[0]
    args.packed = _packed(call.packed, type_number, True)
    args.offsets = _indices(call.offsets)
    args.resets = _resets(call.resets, _rows(call.x))
    args.T = call.x.shape[0] if call.offsets is None else call.offsets.shape[0] - 1
    args.B = cnp.PyArray_DIMS(h_0)[cnp.PyArray_NDIM(h_0) - 2]
    args.x, args.tape = _readable(call.x, type_number), _saved(call.packed, call.saved, _rows(call.x))
    args.d_output, args.d_x = _readable(call.d_output, type_number), _writable(call.d_x, type_number)
    if args.d_x != NULL and not call.packed.has_input:
        raise ValueError("d_x: these weights were packed without weight_ih")
    for n in range(len(call.state_0)):
        args.state_0[n] = _state(call.state_0[n], call.index, type_number, False)
        args.d_state_n[n] = _state(call.d_state_n[n], call.index, type_number, False)
        args.d_state_0[n] = _state(call.d_state_0[n], call.index, type_number, True)
    args.d_weight_ih = _writable(_weight(call.d_weights, 0), type_number)
    args.d_weight_hh = _writable(_weight(call.d_weights, 1), type_number)
    args.d_bias_ih = _writable(_weight(call.d_weights, 2), type_number)
    args.d_bias_hh = _writable(_weight(call.d_weights, 3), type_number)
    args.d_weight_hr = _writable(_weight(call.d_weights, 4), type_number)
    args.d_peephole = _writable(_weight(call.d_weights, 5), type_number)
    args.rows_after, args.rows_before = call.rows_after, call.rows_before
    args.sums = _writable(call.sums, type_number)
    return type_number


cdef size_t _rows(cnp.ndarray x) noexcept:
    """The number of rows, the time steps of all sequences: T * B, or N."""
    return x.shape[0] * x.shape[1] if cnp.PyArray_NDIM(x) == 3 else x.shape[0]


cdef int _count(list calls) except -1:
    cdef int count = <int>len(calls)
    if not 0 < count <= FASTRNN_MOST_CALLS:
        raise ValueError(f"calls: expected 1 to {FASTRNN_MOST_CALLS}, got {count}")
    return count


def forward(list calls not None, bint stacked, int num_threads):
    """Run the forward pass of a list of ForwardCalls of one layout, side by side where that is faster.

    The calls are independent of each other; or, with `stacked`, layers on top of each other: the x of each call is the
    output of the call before.
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_forward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status
    cdef int k, count = _count(calls)
    for k in range(count):
        _fill_forward(&args[k], <ForwardCall?>calls[k])
    workspace.in_use = True
    with nogil:
        status = fastrnn_forward(args, count, stacked, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


def backward(list calls not None, bint stacked, int num_threads):
    """Run the backward pass of a list of BackwardCalls of one layout, side by side where that is faster.

    The calls are independent of each other; or, with `stacked`, layers on top of each other, the top layer first: the
    d_output of each call is the d_x of the call before.
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_backward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status
    cdef int k, count = _count(calls)
    for k in range(count):
        _fill_backward(&args[k], <BackwardCall?>calls[k])
    workspace.in_use = True
    with nogil:
        status = fastrnn_backward(args, count, stacked, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


cdef enum:
    MOST_BYTES_BETWEEN = 1 << 20  # of all arrays between layers or directions


# Inference of sequences of one length. After some milliseconds of sleep the caches are empty, and the Python code of
# fastrnn._engine.stack takes longer than dozens of steps: so calls whose arrays are small are made here.

cdef cnp.ndarray _empty_rows(cnp.ndarray x, Py_ssize_t columns, Pool pool):
    """An uninitialised array (T, B, columns) for x (T, B, ..)."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = x.shape[0], x.shape[1], columns
    return pool._empty(3, shape, cnp.PyArray_TYPE(x), cnp.PyArray_ITEMSIZE(x))


cdef cnp.ndarray _reversed(cnp.ndarray x, Pool pool):
    """A copy of x (T, B, I) with the last step first."""
    cdef cnp.ndarray result = _empty_rows(x, x.shape[2], pool)
    cdef const char *step = <const char *>cnp.PyArray_DATA(x)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    cdef size_t bytes = x.shape[1] * x.shape[2] * cnp.PyArray_ITEMSIZE(x)
    cdef Py_ssize_t t, T = x.shape[0]
    for t in range(T):
        memcpy(to + t * bytes, step + (T - 1 - t) * bytes, bytes)
    return result


cdef cnp.ndarray _joined(cnp.ndarray forward, cnp.ndarray backward, Pool pool):
    """The output (T, B, 2*P) of both directions from those of each, (T, B, P), in the order in which it reads."""
    cdef cnp.ndarray result = _empty_rows(forward, 2 * forward.shape[2], pool)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    cdef size_t bytes = forward.shape[2] * cnp.PyArray_ITEMSIZE(forward)
    cdef Py_ssize_t t, b, T = forward.shape[0], B = forward.shape[1]
    for t in range(T):
        for b in range(B):
            memcpy(to, <const char *>cnp.PyArray_DATA(forward) + (t * B + b) * bytes, bytes)
            memcpy(to + bytes, <const char *>cnp.PyArray_DATA(backward) + ((T - 1 - t) * B + b) * bytes, bytes)
            to += 2 * bytes
    return result


cdef cnp.ndarray _infer(stack, list packed, cnp.ndarray x, list state_0, list state_n, int num_threads, Pool pool):
    """The output (T, B, D*P) of all layers, a large one as a lease.

    x is (T, B, I), the states are lists of ndarray (L*D, B, n), of which state_n is written.
    """
    cdef Py_ssize_t P = (<Packed>packed[0]).P
    cdef Py_ssize_t k, count = len(packed), D = len(<tuple>stack.directions)
    cdef cnp.ndarray output, back
    cdef list calls = []
    if D == 1:
        for k in range(count):
            output = _empty_rows(x, P, pool)
            calls.append(ForwardCall(packed[k], k, x, None, state_0, state_n, output, None))
            x = output
        forward(calls, count > 1, num_threads)
        return output
    for k in range(0, count, 2):
        output, back = _empty_rows(x, P, pool), _empty_rows(x, P, pool)
        calls = [
            ForwardCall(packed[k], k, x, None, state_0, state_n, output, None),
            ForwardCall(packed[k + 1], k + 1, _reversed(x, pool), None, state_0, state_n, back, None),
        ]
        forward(calls, False, num_threads)
        x = _joined(output, back, pool)
    return x


cdef bint _is_small(stack, Py_ssize_t count, Py_ssize_t T, Py_ssize_t B) except -1:
    """Whether `_infer` is for calls of this size: forwards or in both directions, all layers of a direction together,
    and little memory between layers. One layer forwards is always small.
    """
    cdef tuple directions = stack.directions
    cdef Py_ssize_t width = max(<Py_ssize_t>stack.I, <Py_ssize_t>stack.output_width)
    if directions[0]:
        return False
    if count == 1:
        return True
    if len(directions) == 1 and count > FASTRNN_MOST_CALLS:
        return False
    return T <= MOST_BYTES_BETWEEN // (count * B * width * (<cnp.dtype>stack.dtype).itemsize)


def infer(Inputs inputs not None, list packed not None, list state_n not None, int num_threads, Pool pool not None):
    """Inference of layers that read sequences of one length without resets, forwards or in both directions.

    Writes state_n, a list of ndarray like inputs.state_0. Returns the output, (T, B, D*P), a large one as a lease; or
    None for a call of another kind or with large arrays between layers.
    """
    cdef cnp.ndarray x = inputs.x
    if inputs.layout.offsets is not None or inputs.layout.resets is not None or not x.shape[0] or not x.shape[1]:
        return None
    if not _is_small(inputs.stack, len(packed), x.shape[0], x.shape[1]):
        return None
    return _infer(inputs.stack, packed, inputs.x, inputs.state_0, state_n, num_threads, pool)


cdef cnp.ndarray _by_steps(cnp.ndarray x, Pool pool):
    """A copy (T, B, I) of a contiguous x (B, T, I)."""
    cdef Py_ssize_t b, t, B = x.shape[0], T = x.shape[1]
    cdef cnp.ndarray result = _empty_rows(_with_shape(x, 3, T, B, x.shape[2]), x.shape[2], pool)
    cdef size_t bytes = x.shape[2] * cnp.PyArray_ITEMSIZE(x)
    cdef const char *row = <const char *>cnp.PyArray_DATA(x)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    for b in range(B):
        for t in range(T):
            memcpy(to + (t * B + b) * bytes, row, bytes)
            row += bytes
    return result


cdef list _plain_states(stack, tuple given, Py_ssize_t B, int axes):
    """The arrays (L*D, B, n) of a state for an x with so many axes, zeros for None; None if one is not plain."""
    cdef tuple widths = stack.widths
    cdef cnp.ndarray array
    cdef list states = []
    cdef Py_ssize_t k, count = stack.leading
    if given is None:
        return zero_states(count, B, widths, stack.dtype)
    if len(given) != len(widths):
        return None
    for k in range(len(widths)):
        if not _is_plain(given[k], stack.dtype) or cnp.PyArray_NDIM(<cnp.ndarray>given[k]) != axes:
            return None
        array = <cnp.ndarray>given[k]
        if array.shape[0] != count or array.shape[axes - 1] != <cnp.npy_intp>widths[k]:
            return None
        if axes == 3 and array.shape[1] != B:
            return None
        states.append(_with_shape(array, 3, count, B, array.shape[axes - 1]))
    return states


cdef cnp.ndarray _as_given(cnp.ndarray array, int axes, bint batch_first):
    """An array (T, B, n) or (L*D, B, n) in the axes of the caller."""
    if axes == 2:
        return _with_shape(array, 2, array.shape[0], array.shape[2], 1)
    return <cnp.ndarray>cnp.PyArray_SwapAxes(array, 0, 1) if batch_first else array


cdef tuple _infer_plain(stack, list packed, x, tuple state, bint batch_first, int num_threads, Pool pool):
    """The output and a list of the states after, in the axes of the caller; None if the call is not plain."""
    cdef cnp.ndarray given, rows
    cdef list state_0, state_n
    if not _is_plain(x, stack.dtype):
        return None
    given = rows = <cnp.ndarray>x
    cdef int axes = cnp.PyArray_NDIM(given)
    if axes == 2:
        rows = _with_shape(given, 3, given.shape[0], 1, given.shape[1])
    elif axes == 3 and batch_first:
        rows = _with_shape(given, 3, given.shape[1], given.shape[0], given.shape[2])
    rows = _plain_rows(stack, rows)
    if rows is None or not _is_small(stack, len(packed), rows.shape[0], rows.shape[1]):
        return None
    state_0 = _plain_states(stack, state, rows.shape[1], axes)
    if state_0 is None:
        return None
    if axes == 3 and batch_first and rows.shape[0] > 1 and rows.shape[1] > 1:
        rows = _by_steps(given, pool)
    state_n = empty_states(state_0)
    output = _infer(stack, packed, rows, state_0, state_n, num_threads, pool)
    return _as_given(output, axes, batch_first), [_as_given(one, axes, False) for one in state_n]


def infer_plain(stack, x, state, list packed not None, bint batch_first, int num_threads, Pool pool not None):
    """The results of a call of a layer for plain arrays: x, and a state that is None, an array or a tuple of several.

    Returns the output and the state after, in the axes of x; None for another call.
    """
    cdef tuple given = None
    if type(state) is tuple:
        given = <tuple>state
    elif state is not None:
        given = (state,)
    if given is not None and (len(given) > 1) != (type(state) is tuple):
        return None
    results = _infer_plain(stack, packed, x, given, batch_first, num_threads, pool)
    if results is None:
        return None
    output, state_n = results
    return output, state_n[0] if len(state_n) == 1 else tuple(state_n)


def aligned(cnp.ndarray reserve not None, Pool pool not None):
    """A reserve in contiguous memory that begins at a multiple of ALIGNMENT bytes: the array itself, or a copy."""
    if not <size_t>cnp.PyArray_DATA(reserve) % _ALIGNMENT and cnp.PyArray_IS_C_CONTIGUOUS(reserve):
        return reserve
    cdef cnp.ndarray copy = pool._lease(1, cnp.PyArray_DIMS(reserve), cnp.NPY_UINT8, 1)
    copy[...] = reserve
    return copy


def forward_one(Inputs inputs not None, Packed packed not None, int num_threads, Pool pool not None):
    """The forward pass with a reserve of one layer that reads sequences of one length from their beginnings.

    Returns output (T, B, P), state_n as a list of ndarray like inputs.state_0, and the reserve.
    """
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = inputs.x.shape[0], inputs.x.shape[1], packed.P
    cdef cnp.npy_intp bytes = _layout(packed, _rows(inputs.x)).bytes
    cdef cnp.ndarray output = pool._lease(3, shape, packed.type_number, cnp.PyArray_ITEMSIZE(inputs.x))
    cdef cnp.ndarray reserve = pool._lease(1, &bytes, cnp.NPY_UINT8, 1)
    cdef list state_n = empty_states(inputs.state_0)
    forward([ForwardCall(packed, 0, inputs.x, None, inputs.state_0, state_n, output, reserve)], False, num_threads)
    return output, state_n, reserve


def backward_one(Inputs inputs not None, Packed packed not None, tuple weights not None, cnp.ndarray reserve not None,
                 cnp.ndarray d_output, list d_state_n not None, bint input_gradient, int num_threads,
                 Pool pool not None):
    """The backward pass of `forward_one`.

    Returns d_x (T, B, I), or None without `input_gradient`, d_state_0, and the gradients of the weights.
    """
    cdef cnp.ndarray one, d_x = None
    cdef int itemsize = cnp.PyArray_ITEMSIZE(inputs.x)
    cdef list d_state_0 = empty_states(inputs.state_0), d_weights = []
    if input_gradient:
        d_x = pool._lease(3, cnp.PyArray_DIMS(inputs.x), packed.type_number, itemsize)
    for one in weights:
        if one is None:
            d_weights.append(None)
        else:
            d_weights.append(pool._lease(cnp.PyArray_NDIM(one), cnp.PyArray_DIMS(one), packed.type_number, itemsize))
    cdef tuple gradients = tuple(d_weights)
    call = BackwardCall(
        packed, 0, inputs.x, None, inputs.state_0, reserve, d_output, d_state_n, d_x, d_state_0, gradients
    )
    backward([call], False, num_threads)
    return d_x, d_state_0, gradients


cdef class Steps:
    """A stack of packed layers that takes one step at a time, the base of `fastrnn.stream.Stream`.

    `_states` is the state, a list of arrays (L, B, n), which each step overwrites and no caller may hold. An argument
    that a kernel can read or write in place costs only a check of its type, precision and shape; the subclass handles
    other arguments.
    """
    cdef list packed
    cdef readonly list _states
    cdef cnp.ndarray between  # (L, B, P): h_t of the layers below the last
    cdef object num_threads
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef int ndim, type_number
    cdef Py_ssize_t B

    def __init__(self, list packed, list states not None, bint batched, num_threads):
        """packed for forward; states: h (L, B, P) and others (L, B, H); x_t is (B, I) if batched, else (I,)."""
        cdef cnp.ndarray h = states[0]
        self.type_number = _type_of(h)
        for state in states:
            _writable(state, self.type_number)
        for k in range(len(packed)):
            _packed(packed[k], self.type_number, False)
        self.packed, self._states, self.num_threads = packed, states, num_threads
        self.between = h.copy()
        self.ndim = 2 if batched else 1
        self.B = self.x_shape[0] = self.y_shape[0] = h.shape[1]
        self.x_shape[self.ndim - 1] = (<Packed>packed[0]).I
        self.y_shape[self.ndim - 1] = h.shape[2]

    cdef bint _fits(self, object array, cnp.npy_intp *shape) noexcept:
        if type(array) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray>array) != self.type_number:
            return False
        if not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array) or cnp.PyArray_NDIM(<cnp.ndarray>array) != self.ndim:
            return False
        cdef cnp.npy_intp *given = cnp.PyArray_DIMS(<cnp.ndarray>array)
        return given[0] == shape[0] and given[self.ndim - 1] == shape[self.ndim - 1]

    cdef bint _overlap(self, cnp.ndarray a, cnp.ndarray b) noexcept:
        cdef char *a_data = <char *>cnp.PyArray_DATA(a)
        cdef char *b_data = <char *>cnp.PyArray_DATA(b)
        return a_data < b_data + cnp.PyArray_NBYTES(b) and b_data < a_data + cnp.PyArray_NBYTES(a)

    def step(self, x_t, out=None, *, resets=None):
        """Take one step.

        Parameters
        ----------
        x_t : array_like, (B, I), or (I,) without a batch size
            The input of this step, cast to the layer's dtype by NumPy's "same_kind" rule.
        out : ndarray, (B, H_out) or (H_out,), optional
            Where to write the result: an array of the layer's dtype, of any strides; it may be `x_t`. Default: a
            new array, the only allocation of a step.
        resets : array_like of bool, (B,), or a bool without a batch size, optional
            Which sequences' states become zeros before this step. Default: none.

        Returns
        -------
        y_t : ndarray, (B, H_out) or (H_out,)
            h_t of the last layer; `out` if that was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t`, `out` or `resets` does not fit. The state is then unchanged, also after a MemoryError.
        """
        if self.packed is None:
            raise TypeError("this stream was not made by a layer")
        if not self._fits(x_t, self.x_shape):
            x_t = self._native_x(x_t)
        if out is None:
            out = cnp.PyArray_EMPTY(self.ndim, self.y_shape, self.type_number, 0)
        elif not self._fits(out, self.y_shape) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            self._check_out(out)
            out[...] = self.step(x_t, resets=resets)
            return out
        elif self._overlap(<cnp.ndarray>x_t, <cnp.ndarray>out):
            x_t = x_t.copy()
        cdef const unsigned char *flags = NULL
        if resets is not None:
            resets = self._checked_resets(resets)
            flags = _resets(resets, self.B)
        cdef int threads = self.num_threads()
        cdef Workspace workspace = _workspace()
        cdef fastrnn_forward_args args[FASTRNN_MOST_CALLS]
        cdef fastrnn_status status = FASTRNN_OK
        cdef Py_ssize_t k, layers = len(self.packed), row = cnp.PyArray_STRIDE(self.between, 0)
        cdef int count = 0, i, states = <int>len(self._states)
        cdef char *state[FASTRNN_MOST_STATES]
        cdef Py_ssize_t rows[FASTRNN_MOST_STATES]
        cdef char *between = <char *>cnp.PyArray_DATA(self.between)
        cdef const void *x = cnp.PyArray_DATA(<cnp.ndarray>x_t)
        cdef list before = None
        for i in range(states):
            state[i] = <char *>cnp.PyArray_DATA(<cnp.ndarray>self._states[i])
            rows[i] = cnp.PyArray_STRIDE(<cnp.ndarray>self._states[i], 0)
        if layers > FASTRNN_MOST_CALLS:  # several calls, of which a later one may run out of memory
            before = [one.copy() for one in self._states]
        for k in range(layers):
            args[count].T, args[count].B, args[count].offsets = 1, self.B, NULL
            args[count].packed = (<Packed>self.packed[k]).pointer
            args[count].tape, args[count].resets = NULL, flags
            args[count].x = x
            for i in range(states):
                args[count].state_0[i] = args[count].state_n[i] = state[i] + k * rows[i]
            x = args[count].output = cnp.PyArray_DATA(<cnp.ndarray>out) if k == layers - 1 else between + k * row
            count += 1
            if count == FASTRNN_MOST_CALLS or k == layers - 1:
                with nogil:
                    status = fastrnn_forward(args, count, True, workspace.pointer, NULL, threads)
                if status != FASTRNN_OK and before is not None:
                    for i in range(states):
                        self._states[i][...] = before[i]
                workspace.check(status)
                count = 0
        return out


# The table of functions for other extension modules, see csrc/fastrnn_api.h.
_C_API = PyCapsule_New(<void *>fastrnn_get_api(), FASTRNN_CAPSULE, NULL)


def api_address():
    """The address of the table of functions, a fastrnn_api."""
    return <size_t>fastrnn_get_api()


cdef class PackedStream:
    """A stack of layers packed as a fastrnn_stream, the base of `fastrnn.capi.PackedStream`.

    Parameters
    ----------
    kernel : Kernel
    weights : list of tuple
        Those of each layer, the lowest first.
    isa : str
    """
    cdef fastrnn_stream *pointer

    def __init__(self, Kernel kernel not None, list weights not None, str isa not None):
        cdef Py_ssize_t k, count = len(weights)
        cdef int type_number = -1
        cdef fastrnn_status status
        cdef const fastrnn_isa *kernels = _find(isa)
        cdef fastrnn_weights *layers = <fastrnn_weights *>PyMem_Calloc(count, sizeof(fastrnn_weights))
        if layers == NULL:
            raise MemoryError
        if self.pointer != NULL:
            raise TypeError("a packed stream is constant")
        try:
            for k in range(count):
                type_number = _weights(&layers[k], kernel, weights[k])
            with nogil:
                status = fastrnn_stream_pack(kernels, _dtype(type_number), layers, <int>count, &self.pointer)
        finally:
            PyMem_Free(layers)
        if status == FASTRNN_OUT_OF_MEMORY:
            raise MemoryError
        if status != FASTRNN_OK:
            raise ValueError("weights: no stream has these weights")

    def __dealloc__(self):
        fastrnn_stream_free(self.pointer)

    @property
    def address(self):
        """The address of the fastrnn_stream, for C, Cython, cffi, ctypes and Numba; valid as long as this object."""
        return <size_t>self.pointer

    @property
    def nbytes(self):
        """The bytes of the packed weights."""
        return fastrnn_stream_packed_bytes(self.pointer)

    @property
    def state_bytes(self):
        """The bytes of the state of one sequence."""
        return fastrnn_stream_state_bytes(self.pointer)

    def contents(self):
        """The numbers and records of a header of export-c.

        Returns
        -------
        numbers : bytes
            The packed weights of all layers.
        layers : list of dict
            The fields of each fastrnn_stream_layer.
        states, scratch : int
            The numbers of the states and of the scratch memory in a block of state.
        """
        cdef fastrnn_stream *s = self.pointer
        cdef list layers = []
        cdef size_t size = fastrnn_stream_state_bytes(s) // (s.states + s.scratch)
        for k in range(s.count):
            layer = s.layers[k]
            layers.append(layer)
        return (<char *>s.numbers)[:s.numbers_count * size], layers, s.states, s.scratch


cdef class PackedSequences:
    """Moves the time steps of a ragged batch between padded and packed layout, for arrays of any dtype.

    Parameters
    ----------
    T : int
        Time steps of the padded layout.
    offsets : ndarray of intp, (steps + 1,)
        The first of the N rows of each step, and N: the sums of `batch_sizes`.
    order : ndarray of intp, (B,)
        The sequences by their lengths, the longest first.
    lengths : ndarray of intp, (B,)
        Their lengths, in that order.
    """
    cdef fastrnn_ragged rows
    cdef readonly cnp.ndarray order
    cdef cnp.ndarray offsets, lengths

    def __init__(self, Py_ssize_t T, cnp.ndarray offsets not None, cnp.ndarray order not None,
                 cnp.ndarray lengths not None):
        self.offsets, self.order, self.lengths = offsets, order, lengths
        self.rows.T, self.rows.B, self.rows.steps = T, order.shape[0], offsets.shape[0] - 1
        self.rows.offsets, self.rows.order, self.rows.lengths = _indices(offsets), _indices(order), _indices(lengths)

    cdef size_t check(self, cnp.ndarray rows, cnp.ndarray array) except? 0:
        """The bytes of a row of rows (N, n), contiguous, and of array (T, B, n), whose rows are contiguous; checked."""
        cdef size_t bytes = rows.shape[1] * cnp.PyArray_ITEMSIZE(rows)
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows) or rows.shape[0] != self.rows.offsets[self.rows.steps]:
            raise ValueError("these are not the rows of this batch")
        if array is not None and (
            array.shape[0] != self.rows.T or array.shape[1] != self.rows.B or array.shape[2] != rows.shape[1]
            or cnp.PyArray_ITEMSIZE(array) != cnp.PyArray_ITEMSIZE(rows)
            or array.shape[2] > 1 and array.strides[2] != cnp.PyArray_ITEMSIZE(array)
        ):
            raise ValueError("rows cannot be moved between this array and those rows")
        return bytes

    def pack(self, cnp.ndarray array not None, cnp.ndarray rows not None, int num_threads):
        """Fill packed rows (N, n) from a padded array (T, B, n)."""
        self.move(0, self.check(rows, array), array, array.strides[0], array.strides[1], rows, num_threads)

    def pad(self, cnp.ndarray rows not None, cnp.ndarray array not None, int num_threads):
        """Fill a padded array (T, B, n) from packed rows (N, n), with zeros beyond the lengths."""
        self.move(1, self.check(rows, array), rows, array.strides[0], array.strides[1], array, num_threads)

    def reverse(self, cnp.ndarray rows not None, cnp.ndarray reversed_rows not None, int num_threads):
        """Fill reversed_rows (N, n) from rows (N, n), each sequence in the opposite order."""
        if self.check(rows, None) != self.check(reversed_rows, None):
            raise ValueError("rows cannot be moved between these")
        self.move(2, self.check(rows, None), rows, 0, 0, reversed_rows, num_threads)

    cdef int move(self, int how, size_t bytes, cnp.ndarray array, Py_ssize_t step, Py_ssize_t sequence,
                  cnp.ndarray result, int num_threads) except -1:
        cdef Workspace workspace = _workspace()
        cdef const fastrnn_interruption *interruption = workspace.interruption()
        cdef fastrnn_status status
        cdef const void *source = cnp.PyArray_DATA(array)
        cdef void *to = cnp.PyArray_DATA(result)
        workspace.in_use = True
        with nogil:
            if how == 0:
                status = fastrnn_gather(&self.rows, bytes, source, step, sequence, to, interruption, num_threads)
            elif how == 1:
                status = fastrnn_scatter(&self.rows, bytes, source, to, step, sequence, interruption, num_threads)
            else:
                status = fastrnn_reverse(&self.rows, bytes, source, to, interruption, num_threads)
        workspace.in_use = False
        return workspace.check(status)


cdef dict _functions = {
    "sigmoid": FASTRNN_ACTIVATE_SIGMOID, "tanh": FASTRNN_ACTIVATE_TANH, "log_sigmoid": FASTRNN_ACTIVATE_LOG_SIGMOID,
}


def activate(str function not None, cnp.ndarray x not None, cnp.ndarray y not None, str isa not None):
    """Write y = sigmoid(x), tanh(x) or log_sigmoid(x), as the cells compute them."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_function number = _functions[function]
    cdef int type_number = _type_of(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef const void *source = _readable(x, type_number)
    cdef void *result = _writable(y, type_number)
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"y: expected ({x.shape[0]},), got ({y.shape[0]},)")
    with nogil:
        fastrnn_activate(kernels, _dtype(type_number), number, n, source, result)


# A fully connected layer and losses.

def linear(cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias, cnp.ndarray y not None,
           int num_threads, str isa not None):
    """Write y (N, O) = x (N, I) weight (O, I)^T + bias (O), or None for zeros."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(weight)
    cdef fastrnn_linear_args args
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_status status
    args.N, args.I, args.O = x.shape[0], weight.shape[1], weight.shape[0]
    args.x, args.weight, args.bias = (
        _readable(x, type_number), _readable(weight, type_number), _readable(bias, type_number)
    )
    args.y = _writable(y, type_number)
    workspace.in_use = True
    with nogil:
        status = fastrnn_linear(kernels, _dtype(type_number), &args, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


def linear_backward(cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray d_y not None, cnp.ndarray d_x,
                    cnp.ndarray d_weight not None, cnp.ndarray d_bias, int num_threads, str isa not None):
    """Write d_x (N, I), d_weight (O, I) and d_bias (O), each of the first and the last if it is not None."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(weight)
    cdef fastrnn_linear_back_args args
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_status status
    args.N, args.I, args.O = x.shape[0], weight.shape[1], weight.shape[0]
    args.x, args.weight, args.d_y = (
        _readable(x, type_number), _readable(weight, type_number), _readable(d_y, type_number)
    )
    args.d_x, args.d_weight = _writable(d_x, type_number), _writable(d_weight, type_number)
    args.d_bias = _writable(d_bias, type_number)
    workspace.in_use = True
    with nogil:
        status = fastrnn_linear_backward(
            kernels, _dtype(type_number), &args, workspace.pointer, interruption, num_threads
        )
    workspace.in_use = False
    workspace.check(status)


def mark_ignored(cnp.ndarray targets not None, Py_ssize_t C, int64_t ignored):
    """Replaces the ignored ones of targets (N,) of int64 by -1; returns the number of the others, and the row of the
    first that is not 0 to C - 1, or -1."""
    cdef int64_t *target = <int64_t *>_writable(targets, cnp.NPY_INT64)
    cdef Py_ssize_t n, N = targets.shape[0], count = 0, wrong = -1
    with nogil:
        for n in range(N):
            if target[n] == ignored:
                target[n] = -1
            elif 0 <= target[n] < C:
                count += 1
            else:
                wrong = n
                break
    return count, wrong


cdef double *_doubles(cnp.ndarray sums) except? NULL:
    return <double *>_writable(sums, cnp.NPY_DOUBLE)


def softmax_cross_entropy(cnp.ndarray logits not None, cnp.ndarray targets not None, double factor,
                          cnp.ndarray d not None, cnp.ndarray losses not None, int num_threads, str isa not None):
    """The sum of the losses of rows (N, C), a float; d (N, C) and losses (N,) of float64 written."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(logits)
    cdef Py_ssize_t N = logits.shape[0], C = logits.shape[1]
    cdef const void *rows = _readable(logits, type_number)
    cdef void *gradient = _writable(d, type_number)
    cdef double *of_rows = _doubles(losses)
    cdef const int64_t *of_targets
    cdef double result
    if cnp.PyArray_TYPE(targets) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(targets):
        raise ValueError(f"a kernel cannot read targets of {targets.dtype} as they lie in memory")
    of_targets = <const int64_t *>cnp.PyArray_DATA(targets)
    with nogil:
        result = fastrnn_softmax_cross_entropy(
            kernels, _dtype(type_number), N, C, rows, of_targets, factor, gradient, of_rows, num_threads
        )
    return result


def squared_error(cnp.ndarray prediction not None, cnp.ndarray target not None, double factor, cnp.ndarray d not None,
                  int num_threads, str isa not None):
    """The sum of (prediction - target)^2, a float; d written: 2 * factor * (prediction - target)."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(prediction)
    cdef Py_ssize_t n = _same_size(prediction, (target, d))
    cdef const void *predicted = _readable(prediction, type_number)
    cdef const void *wanted = _readable(target, type_number)
    cdef void *gradient = _writable(d, type_number)
    cdef cnp.ndarray memory = _sums_of_blocks(n)
    cdef double *sums = _doubles(memory)
    cdef double result
    with nogil:
        result = fastrnn_squared_error(
            kernels, _dtype(type_number), n, predicted, wanted, factor, gradient, sums, num_threads
        )
    return result


cdef cnp.ndarray _sums_of_blocks(Py_ssize_t n):
    """Memory for the sums of blocks of n numbers."""
    cdef cnp.npy_intp blocks = n // FASTRNN_SQUARES_BLOCK + 1
    return cnp.PyArray_EMPTY(1, &blocks, cnp.NPY_DOUBLE, 0)


# Optimizers. The arrays of a step have one shape.

cdef Py_ssize_t _same_size(cnp.ndarray first, tuple others) except -1:
    cdef Py_ssize_t n = cnp.PyArray_SIZE(first)
    cdef cnp.ndarray other
    for other in others:
        if other is not None and cnp.PyArray_SIZE(other) != n:
            raise ValueError(f"expected {n} numbers, got {cnp.PyArray_SIZE(other)}")
    return n


def sgd_step(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray buffer, double rate, double momentum,
             double dampening, double weight_decay, bint nesterov, bint is_first, int num_threads, str isa not None):
    """One step of SGD, in place: p and buffer (None without momentum) are written."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(p)
    cdef Py_ssize_t n = _same_size(p, (g, buffer))
    cdef fastrnn_sgd options
    cdef void *parameters = _writable(p, type_number)
    cdef void *velocities = _writable(buffer, type_number)
    cdef const void *gradients = _readable(g, type_number)
    options.rate, options.momentum, options.dampening, options.weight_decay = rate, momentum, dampening, weight_decay
    options.nesterov, options.is_first = nesterov, is_first
    with nogil:
        fastrnn_sgd_step(kernels, _dtype(type_number), &options, n, parameters, gradients, velocities, num_threads)


def adam_step(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray m not None, cnp.ndarray v not None,
              int64_t step, double rate, double beta_1, double beta_2, double eps, double weight_decay, bint decoupled,
              int num_threads, str isa not None):
    """One step of Adam, or of AdamW if `decoupled`, in place: p, m and v are written. The first step is 1."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(p)
    cdef Py_ssize_t n = _same_size(p, (g, m, v))
    cdef fastrnn_adam options
    cdef void *parameters = _writable(p, type_number)
    cdef void *first = _writable(m, type_number)
    cdef void *second = _writable(v, type_number)
    cdef const void *gradients = _readable(g, type_number)
    options.rate, options.beta_1, options.beta_2, options.eps = rate, beta_1, beta_2, eps
    options.weight_decay, options.decoupled, options.step = weight_decay, decoupled, step
    with nogil:
        fastrnn_adam_step(
            kernels, _dtype(type_number), &options, n, parameters, gradients, first, second, num_threads
        )


def scale(cnp.ndarray array not None, double factor, int num_threads, str isa not None):
    """array *= factor, in place."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(array)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef void *data = _writable(array, type_number)
    with nogil:
        fastrnn_scale(kernels, _dtype(type_number), n, factor, data, num_threads)


def sum_squares(cnp.ndarray array not None, int num_threads, str isa not None):
    """The sum of the squares of all numbers, a float, added in double precision in an order that the size decides."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(array)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef const void *data = _readable(array, type_number)
    cdef cnp.ndarray sums = _sums_of_blocks(n)
    cdef double *of_blocks = _doubles(sums)
    cdef double result
    with nogil:
        result = fastrnn_sum_squares(kernels, _dtype(type_number), n, data, of_blocks, num_threads)
    return result


ctypedef fused _word:
    uint32_t
    uint64_t


cdef bint _differ(const _word *numbers, Py_ssize_t every, cnp.ndarray values) noexcept:
    """Whether a bit of the values differs from that of each number that is a multiple of `every`."""
    cdef const _word *expected = <const _word *>cnp.PyArray_DATA(values)
    cdef _word difference = 0
    cdef Py_ssize_t k
    for k in range(cnp.PyArray_SIZE(values)):
        difference |= expected[k] ^ numbers[k * every]
    return difference != 0


cdef class Samples:
    """Some of the numbers of arrays, to detect most changes of them in little time.

    Parameters
    ----------
    arrays : list of ndarray
        Float32 or float64, contiguous; kept.
    count : int
        Of each array, at least so many numbers at equal distances, or all.
    """
    cdef list arrays, values

    def __init__(self, list arrays not None, Py_ssize_t count):
        cdef cnp.ndarray array
        cdef Py_ssize_t every
        self.arrays, self.values = arrays, []
        for array in arrays:
            _readable(array, _type_of(array))
            every = max(1, cnp.PyArray_SIZE(array) // count)
            self.values.append((every, array.reshape(-1)[::every].copy()))

    def have_changed(self):
        """Whether one of these numbers is another than at first."""
        cdef cnp.ndarray array, values
        cdef Py_ssize_t k, every
        cdef bint have_changed = False
        for k in range(len(self.arrays)):
            array, every, values = self.arrays[k], self.values[k][0], self.values[k][1]
            if cnp.PyArray_ITEMSIZE(array) == 4:
                have_changed |= _differ(<const uint32_t *>_readable(array, _type_of(array)), every, values)
            else:
                have_changed |= _differ(<const uint64_t *>_readable(array, _type_of(array)), every, values)
        return have_changed


# Drawn once in each process, so that no change goes undetected in all processes.
cdef uint64_t _key[FASTRNN_KEY_WORDS]
cdef bytes _drawn = os.urandom(sizeof(_key))
memcpy(_key, <const char *>_drawn, sizeof(_key))


def fingerprint(cnp.ndarray array not None):
    """A hash of the array's bytes, to detect that it has changed; its key differs from process to process."""
    cdef uint64_t result
    cdef size_t size = cnp.PyArray_NBYTES(array)
    cdef const void *data = _readable(array, _type_of(array))
    with nogil:
        result = fastrnn_fingerprint(_key, data, size)
    return result


# Tensors of PyTorch. The structs are those of DLPack's dlpack.h, version 1: its API of C functions reads a tensor in a
# tenth of the time of a call in Python.

cdef enum:
    _OF_CPU = 1  # kDLCPU
    _FLOATS = 2  # kDLFloat
    _MOST_AXES = 3


cdef struct DLTensor:
    void *data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides
    uint64_t byte_offset


cdef struct DLPackExchangeAPI:
    uint32_t major, minor
    void *before, *allocate, *managed_from, *managed_to
    int (*read)(void *, DLTensor *) noexcept  # non-zero, with an exception set, for a tensor without such a description
    void *stream


cdef size_t _address(const DLTensor *tensor) noexcept:
    return <size_t>tensor.data + tensor.byte_offset


cdef bint _is_of(const DLTensor *tensor, cnp.dtype dtype) noexcept:
    """Whether the numbers are of this dtype, float32 or float64."""
    return tensor.code == _FLOATS and tensor.bits == 8 * dtype.itemsize and tensor.lanes == 1


cdef bint _is_contiguous(const DLTensor *tensor) noexcept:
    """Whether the numbers lie in the order of C, without gaps, and there are any."""
    cdef int64_t stride = 1
    cdef int k
    for k in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[k] != 1 and tensor.strides[k] != stride:
            return False
        stride *= tensor.shape[k]
    return stride > 0


cdef class Tensors:
    """Reads plain tensors in the memory of the CPU.

    Parameters
    ----------
    types : tuple of type
        The types of plain tensors.
    dtypes : dict of dtype to torch.dtype
    from_numpy : callable
        Makes a tensor of an array.
    api : PyCapsule, optional
        ``Tensor.__dlpack_c_exchange_api__``, of PyTorch 2.10 or later. Without it, methods in Python are called, and
        `array` finds no tensor that it can read.
    """
    cdef tuple types
    cdef dict dtypes
    cdef object from_numpy
    cdef DLPackExchangeAPI *api

    def __init__(self, tuple types not None, dict dtypes not None, from_numpy, api=None):
        self.types, self.dtypes, self.from_numpy = types, dtypes, from_numpy
        if PyCapsule_IsValid(api, "dlpack_exchange_api"):
            self.api = <DLPackExchangeAPI *>PyCapsule_GetPointer(api, "dlpack_exchange_api")
            if self.api.major != 1 or self.api.read == NULL:
                self.api = NULL

    cdef bint is_plain(self, tensor) noexcept:
        for one in self.types:
            if type(tensor) is one:
                return True
        return False

    cdef bint read(self, tensor, DLTensor *to) noexcept:
        """Whether the API describes a plain tensor of the CPU; the description is then written."""
        if not self.is_plain(tensor) or self.api == NULL:
            return False
        if self.api.read(<void *>tensor, to) != 0:  # a sparse one, for example
            PyErr_Clear()
            return False
        return to.device_type == _OF_CPU

    def are_plain(self, tuple tensors not None, cnp.dtype dtype not None):
        """Whether all are plain tensors of this dtype, float32 or float64."""
        cdef DLTensor read
        for tensor in tensors:
            if self.api == NULL:
                if not self.is_plain(tensor) or not tensor.is_cpu or str(tensor.layout) != "torch.strided":
                    return False
                if tensor.dtype is not self.dtypes[dtype]:
                    return False
            elif not self.read(tensor, &read) or not _is_of(&read, dtype):
                return False
        return True

    def are_in_place(self, parameters not None, list names not None, list tensors not None,
                     list addresses not None):
        """Whether the parameters with these names are these tensors, contiguous and at these addresses.

        `parameters` is a mapping from names to tensors.
        """
        cdef DLTensor read
        cdef Py_ssize_t k
        if len(names) != len(tensors):
            return False
        for k in range(len(names)):
            tensor = parameters.get(names[k])
            if tensor is not tensors[k]:
                return False
            if self.api == NULL:
                if tensor.data_ptr() != addresses[k] or not tensor.is_contiguous():
                    return False
            elif (
                not self.read(tensor, &read) or not _is_contiguous(&read) or _address(&read) != <size_t>addresses[k]
            ):
                return False
        return True

    def array(self, tensor, cnp.dtype dtype not None):
        """An array in the memory of a plain tensor, which it keeps alive; None if no kernel can read the tensor there.

        The tensor must not be given other memory while the array is in use.
        """
        cdef DLTensor read
        cdef cnp.npy_intp shape[_MOST_AXES]
        cdef int k
        if not self.is_plain(tensor) or tensor.is_neg():  # which may run a caller's code, so it comes first
            return None
        if not self.read(tensor, &read) or not _is_of(&read, dtype) or read.ndim > _MOST_AXES:
            return None
        # No address: zeros without memory.
        if not _is_contiguous(&read) or not _address(&read) or _address(&read) % dtype.itemsize:
            return None
        for k in range(read.ndim):
            shape[k] = read.shape[k]
        return _view(tensor, <char *>_address(&read), read.ndim, shape, dtype.num)


cdef class PackedModule:
    """The packed weights of a module, for calls in eval mode without gradients.

    Parameters
    ----------
    reader : Tensors
    stack : fastrnn._engine.stack.Stack
    packed : list of Packed
        For forward.
    weights : list of Tensor
        The parameters that were packed.
    addresses, versions : list of int
        Of their memory, and of their values as PyTorch counts these.
    samples : Samples
        Of their values.
    """
    cdef Tensors reader
    cdef object stack
    cdef list packed, weights, addresses, versions
    cdef Samples samples
    cdef cnp.dtype dtype

    def __init__(self, Tensors reader not None, stack, list packed not None, list weights not None,
                 list addresses not None, list versions not None, Samples samples not None):
        self.reader, self.stack, self.packed, self.dtype = reader, stack, packed, stack.dtype
        self.weights, self.addresses, self.versions, self.samples = weights, addresses, versions, samples

    cdef bint are_weights_of(self, parameters, list names) except -1:
        """Whether the parameters with these names have the values that were packed, so far as `Packs` can tell."""
        cdef Py_ssize_t k
        if not self.reader.are_in_place(parameters, names, self.weights, self.addresses):
            return False
        for k in range(len(self.weights)):
            if self.weights[k]._version != self.versions[k]:
                return False
        return not self.samples.have_changed()

    def infer(self, parameters not None, list names not None, x, hx, bint batch_first, int num_threads,
              str isa not None, Pool pool not None):
        """The results of a call, or None if its arguments need the longer way, which has all checks.

        Parameters
        ----------
        parameters, names : mapping of str to Tensor, list of str
            The parameters of the module, and the names of its weights.
        x : Tensor, (T, B, I), with `batch_first` (B, T, I), or (T, I)
        hx : Tensor, tuple of Tensor, or None

        Returns
        -------
        results : tuple, or None
            The output, in the axes of x, and the state after: a tensor, or a tuple of several.
        """
        cdef list states
        cdef tuple state = None, results
        if _find(isa) != (<Packed>self.packed[0]).isa or not self.are_weights_of(parameters, names):
            return None
        if hx is not None:
            states = [self.reader.array(one, self.dtype) for one in (hx if type(hx) is tuple else (hx,))]
            if (len(states) > 1) != (type(hx) is tuple):
                return None
            state = tuple(states)
        array = self.reader.array(x, self.dtype)
        results = _infer_plain(self.stack, self.packed, array, state, batch_first, num_threads, pool)
        if results is None:
            return None
        after = [self.reader.from_numpy(one) for one in results[1]]
        return self.reader.from_numpy(results[0]), after[0] if len(after) == 1 else tuple(after)
