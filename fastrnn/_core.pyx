# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=False
# cython: freethreading_compatible=True
"""Binding of csrc/fastrnn.h: arrays to pointers, status to exception.

Arrays are NumPy arrays, C-contiguous, aligned and of one precision, which is looked at here; their shapes are not: the
callers have checked them and allocated the results. Steps does both, for a call that lasts microseconds.

A cell is "lstm", "gru", "rnn_tanh" or "rnn_relu". Weights are tuples (weight_ih, weight_hh, bias_ih, bias_hh,
weight_hr, weight_peephole), what there is not being None; and c_0 and the like are None but for the LSTM.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

import os
import threading

cnp.import_array()


cdef extern from *:
    """
    #undef I /* a macro of complex.h, which NumPy's headers include; here the number of inputs */
    """

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_dtype:
        FASTRNN_F32
        FASTRNN_F64
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_OUT_OF_MEMORY
        FASTRNN_INTERRUPTED
    ctypedef enum fastrnn_pass:
        FASTRNN_FORWARD
        FASTRNN_BACKWARD
    enum:
        FASTRNN_MOST_STATES
    ctypedef int fastrnn_cell
    ctypedef struct fastrnn_isa:
        pass
    ctypedef struct fastrnn_packed:
        pass
    ctypedef struct fastrnn_workspace:
        pass
    ctypedef struct fastrnn_cell_properties:
        const char *name
        int gates, states, peepholes
    ctypedef struct fastrnn_tape:
        size_t bytes, gates
        size_t states[FASTRNN_MOST_STATES]
        size_t extra
    ctypedef struct fastrnn_interruption:
        int (*should_cancel)(void *) noexcept
        void *context
    ctypedef struct fastrnn_weights:
        fastrnn_cell cell
        Py_ssize_t I, H, P
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
    ctypedef struct fastrnn_forward_args:
        Py_ssize_t T, B
        const Py_ssize_t *offsets
        const fastrnn_packed *packed
        const void *x
        const void *state_0[FASTRNN_MOST_STATES]
        void *output
        void *state_n[FASTRNN_MOST_STATES]
        void *tape
    ctypedef struct fastrnn_backward_args:
        Py_ssize_t T, B
        const Py_ssize_t *offsets
        const fastrnn_packed *packed
        const void *x
        const void *state_0[FASTRNN_MOST_STATES]
        const void *tape
        const void *d_output
        const void *d_state_n[FASTRNN_MOST_STATES]
        void *d_x
        void *d_state_0[FASTRNN_MOST_STATES]
        void *d_weight_ih
        void *d_weight_hh
        void *d_bias_ih
        void *d_bias_hh
        void *d_weight_hr
        void *d_peephole
        Py_ssize_t rows_after, rows_before
        void *sums

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
    enum:
        FASTRNN_MOST_CALLS
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
    void fastrnn_activate(const fastrnn_isa *, fastrnn_dtype, int use_tanh, Py_ssize_t n, const void *x, void *y)
    enum:
        FASTRNN_KEY_WORDS
    uint64_t fastrnn_fingerprint(const uint64_t *key, const void *data, size_t bytes)


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


def has_threads():
    """Whether the kernels were built with helper threads."""
    return fastrnn_has_threads()


def processors():
    """The processors that this thread may use now: (logical ones, cores)."""
    cdef fastrnn_processors_count count = fastrnn_count_processors(fastrnn_clock())
    return count.logical, count.cores


cdef dict _policies = {"adaptive": FASTRNN_ADAPTIVE, "patient": FASTRNN_PATIENT, "erratic": FASTRNN_ERRATIC}


def team_policy(str policy not None):
    """How calls treat their helper threads, see team.h: for tests."""
    fastrnn_team_policy(_policies[policy])


cdef const fastrnn_isa *_find(str name) except NULL:
    cdef bytes wanted = name.encode()
    cdef int index = 0
    while fastrnn_isa_at(index) != NULL:
        if fastrnn_isa_name(fastrnn_isa_at(index)) == wanted:
            return fastrnn_isa_at(index)
        index += 1
    raise ValueError(f"isa: no instruction set is named {name!r}")


cdef fastrnn_cell _cell(str name) except -1:
    """A cell by its name."""
    cdef bytes encoded = name.encode()
    cdef fastrnn_cell cell = fastrnn_find_cell(encoded)
    if cell < 0:
        raise ValueError(f"cell: no cell is named {name!r}")
    return cell


# Arrays to pointers. None, where it is allowed, becomes NULL.

cdef int _type_of(cnp.ndarray array) except -1:
    """NPY_FLOAT or NPY_DOUBLE: what all the arrays of a call have to be."""
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


def tape_arrays(str cell not None, cnp.ndarray tape not None, dtype, Py_ssize_t rows, Py_ssize_t H,
                Py_ssize_t projection):
    """Views of a tape: gates (rows, gates * H), the states from h on, (rows, P) or (rows, H), and the extra array.

    None stands for an array that the cell does not save.
    """
    cdef fastrnn_cell index = _cell(cell)
    cdef fastrnn_tape at = fastrnn_tape_layout(_dtype(dtype.num), index, rows, H, projection)
    cdef fastrnn_cell_properties properties = fastrnn_cell_at(index)

    def view(offset, columns):
        if offset == <size_t>-1:
            return None
        return tape[offset : offset + rows * columns * dtype.itemsize].view(dtype).reshape(rows, columns)

    states = [view(at.states[n], projection if projection and n == 0 else H) for n in range(properties.states)]
    return view(at.gates, properties.gates * H), states, view(at.extra, H)


def tape_bytes(str cell not None, dtype, Py_ssize_t rows, Py_ssize_t H, Py_ssize_t projection):
    """The size of a tape of so many rows; projection is P, or 0."""
    return fastrnn_tape_layout(_dtype(dtype.num), _cell(cell), rows, H, projection).bytes


def gate_columns(str cell not None, dtype, Py_ssize_t H):
    """(gates, H) of intp: where each gate of each hidden unit is in a row of a tape's gates."""
    cdef fastrnn_cell index = _cell(cell)
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = fastrnn_cell_at(index).gates, H
    cdef cnp.ndarray columns = cnp.PyArray_EMPTY(2, shape, cnp.NPY_INTP, 0)
    fastrnn_gate_columns(_dtype(dtype.num), index, H, <Py_ssize_t *>cnp.PyArray_DATA(columns))
    return columns


cdef void *_tape(cnp.ndarray tape) except? NULL:
    """The memory of a tape, or NULL for None."""
    if tape is None:
        return NULL
    if cnp.PyArray_TYPE(tape) != cnp.NPY_UINT8 or not cnp.PyArray_ISCARRAY(tape):
        raise ValueError(f"a tape is an array of bytes, got {tape.dtype}")
    return cnp.PyArray_DATA(tape)


cdef const Py_ssize_t *_indices(cnp.ndarray indices) except? NULL:
    """What tells where the rows of a ragged batch are, or NULL for None."""
    if indices is None:
        return NULL
    if cnp.PyArray_TYPE(indices) != cnp.NPY_INTP or not cnp.PyArray_ISCARRAY_RO(indices):
        raise ValueError(f"a kernel cannot read these indices of {indices.dtype} as they lie in memory")
    return <const Py_ssize_t *>cnp.PyArray_DATA(indices)


# Packed weights

cdef class Packed:
    """A copy of a layer's weights, packed for the forward or the backward kernels of one instruction set."""
    cdef fastrnn_packed *pointer
    cdef int type_number
    cdef Py_ssize_t I
    cdef readonly Py_ssize_t H

    @property
    def nbytes(self):
        return fastrnn_packed_bytes(self.pointer)

    def __dealloc__(self):
        fastrnn_packed_free(self.pointer)


cdef const fastrnn_packed *_packed(Packed packed, int type_number) except NULL:
    if packed.pointer == NULL or packed.type_number != type_number:
        raise ValueError("these weights were not packed in the precision of the other arrays")
    return packed.pointer


cdef int _weights(fastrnn_weights *w, str cell, tuple weights) except -1:
    """Fills w; returns the type number."""
    cdef cnp.ndarray weight_ih = weights[0], weight_hh = weights[1], weight_hr = weights[4]
    cdef int type_number = _type_of(weight_ih)
    w.cell = _cell(cell)
    w.I, w.P = weight_ih.shape[1], weight_hh.shape[1]
    w.H = w.P if weight_hr is None else weight_hr.shape[1]
    w.weight_ih, w.weight_hh = _readable(weight_ih, type_number), _readable(weight_hh, type_number)
    w.bias_ih, w.bias_hh = _readable(weights[2], type_number), _readable(weights[3], type_number)
    w.weight_hr, w.peephole = _readable(weight_hr, type_number), _readable(weights[5], type_number)
    return type_number


def pack(str cell not None, tuple weights not None, bint backward, int num_threads, str isa not None,
         Packed spare=None):
    """The weights packed for one pass, in the memory of `spare` if one is given, which nobody uses any more."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_weights w
    cdef int type_number = _weights(&w, cell, weights)
    cdef fastrnn_status status
    cdef Packed packed = Packed.__new__(Packed) if spare is None else spare
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    workspace.in_use = True
    with nogil:
        status = fastrnn_pack(kernels, _dtype(type_number), FASTRNN_BACKWARD if backward else FASTRNN_FORWARD, &w,
                              interruption, num_threads, &packed.pointer)
    workspace.in_use = False
    workspace.check(status)
    packed.type_number, packed.I, packed.H = type_number, w.I, w.H
    return packed


@cython.no_gc  # it holds arrays and packed weights, which refer to nothing
@cython.auto_pickle(False)
cdef class TapeMemory:
    """The buffers of a layer's tape. Deallocated, it leaves them to the next tape, unless they are too large.

    It is no `__del__` that does this, because Python ignores the exceptions of signal handlers that run within one.

    `buffers` is a list of tuples of arrays, packed weights and None; `heir` a deque, to which they are appended.
    """
    cdef readonly list buffers
    cdef object heir

    def __init__(self, list buffers not None, heir, size_t most_bytes):
        cdef size_t size = 0
        cdef tuple some
        for some in buffers:
            for one in some:
                if type(one) is Packed:
                    size += fastrnn_packed_bytes((<Packed>one).pointer)
                elif one is not None:
                    size += cnp.PyArray_NBYTES(<cnp.ndarray?>one)
        self.buffers, self.heir = buffers, heir if size <= most_bytes else None

    def __dealloc__(self):
        if self.heir is not None:
            try:
                self.heir.append(self.buffers)
            except MemoryError:
                pass


def sums(Packed packed not None, Py_ssize_t rows):
    """Memory that the backward calls for one sequence of so many rows share; None if they need none."""
    cdef size_t element = 4 if packed.type_number == cnp.NPY_FLOAT else 8
    cdef size_t bytes = fastrnn_sums_bytes(packed.pointer, rows)
    cdef cnp.npy_intp numbers = <cnp.npy_intp>(bytes // element)
    return cnp.PyArray_EMPTY(1, &numbers, packed.type_number, 0) if numbers else None


# Memory that calls use one after the other: one for each Python thread.

cdef size_t KEPT_BYTES = 32 << 20


cdef class Workspace:
    cdef fastrnn_workspace *pointer
    cdef fastrnn_packed *packed[FASTRNN_MOST_CALLS]  # of the calls that run together
    cdef fastrnn_interruption signals
    cdef object error  # what interrupted the call
    cdef bint in_use

    def __cinit__(self):
        self.signals.should_cancel, self.signals.context = _signalled, <void *>self
        self.pointer = fastrnn_workspace_create()
        if self.pointer == NULL:
            raise MemoryError("no memory for a workspace")

    def __dealloc__(self):
        fastrnn_workspace_free(self.pointer)
        for k in range(FASTRNN_MOST_CALLS):
            fastrnn_packed_free(self.packed[k])

    cdef const fastrnn_interruption *interruption(self) noexcept nogil:
        """For a call of this thread: NULL but for the main thread, because Python handles signals nowhere else.

        A daemon thread must not ask for the GIL once the interpreter has ended: there is no thread state to take it
        with, and the process would die.
        """
        return &self.signals if PyThread_get_thread_ident() == _main_thread else NULL

    cdef void keep_some(self) noexcept nogil:
        """Frees what is more than KEPT_BYTES of packed weights."""
        cdef size_t kept = 0
        cdef int k
        for k in range(FASTRNN_MOST_CALLS):
            kept += fastrnn_packed_bytes(self.packed[k])
            if kept > KEPT_BYTES:
                kept -= fastrnn_packed_bytes(self.packed[k])
                fastrnn_packed_free(self.packed[k])
                self.packed[k] = NULL

    cdef int check(self, fastrnn_status status) except -1:
        if status == FASTRNN_INTERRUPTED:
            error, self.error = self.error, None
            raise error
        if status != FASTRNN_OK:
            raise MemoryError("no memory for the kernels' weights or workspace")
        return 0


_of_this_thread = threading.local()


cdef Workspace _workspace():
    """This thread's, or a new one within a call: the handlers of signals, which a call runs, may make calls, too."""
    cdef Workspace workspace
    try:
        workspace = _of_this_thread.workspace
    except AttributeError:
        workspace = _of_this_thread.workspace = Workspace()
    return Workspace() if workspace.in_use else workspace


cdef int _signalled(void *context) noexcept with gil:
    """Runs the handlers of signals that have come; what one raises, as Ctrl-C does, ends the call."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<Workspace>context).error = error
        return 1
    return 0


cdef unsigned long _main_thread = threading.main_thread().ident


def _after_fork():
    """The thread that has forked is the only one of the child, and its main thread."""
    global _main_thread
    _main_thread = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MOST_CALLS = FASTRNN_MOST_CALLS


def forward(str cell not None, list calls not None, bint stacked, int num_threads, str isa not None):
    """Runs some calls, independent of each other or stacked, as fastrnn.h has them.

    A call is a tuple (x, h_0, c_0, offsets, weights, output, h_n, c_n, tape). It fills output, h_n and c_n, and the
    tape if there is one. Without offsets x and output are (T, B, ...),
    with them (N, ...). The weights are packed for forward, or a tuple to be packed by `isa` for this call alone.
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef const fastrnn_isa *kernels = NULL
    cdef fastrnn_weights weights[FASTRNN_MOST_CALLS]
    cdef fastrnn_forward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status = FASTRNN_OK
    cdef cnp.ndarray x, h_0, offsets
    cdef int type_number = 0, k, n, count = <int>len(calls)
    cdef bint pack = False
    cdef tuple call
    if not 0 < count <= FASTRNN_MOST_CALLS:
        raise ValueError(f"calls: expected 1 to {FASTRNN_MOST_CALLS}, got {count}")
    for k in range(count):
        call = calls[k]
        x, h_0, offsets = call[0], call[1], call[3]
        type_number = _type_of(x)
        if type(call[4]) is Packed:
            args[k].packed = _packed(<Packed>call[4], type_number)
        else:
            args[k].packed = NULL
            pack = True
            if _weights(&weights[k], cell, call[4]) != type_number:
                raise ValueError("x and weights differ in precision")
        args[k].offsets = _indices(offsets)
        args[k].T, args[k].B = x.shape[0] if offsets is None else offsets.shape[0] - 1, h_0.shape[0]
        args[k].x, args[k].output = _readable(x, type_number), _writable(call[5], type_number)
        for n in range(2):
            args[k].state_0[n] = _readable(call[1 + n], type_number)
            args[k].state_n[n] = _writable(call[6 + n], type_number)
        args[k].tape = _tape(call[8])
    if pack:
        kernels = _find(isa)
    workspace.in_use = True
    with nogil:
        for k in range(count):
            if status == FASTRNN_OK and args[k].packed == NULL:
                status = fastrnn_pack(kernels, _dtype(type_number), FASTRNN_FORWARD, &weights[k], interruption,
                                      num_threads, &workspace.packed[k])
                args[k].packed = workspace.packed[k]
        if status == FASTRNN_OK:
            status = fastrnn_forward(args, count, stacked, workspace.pointer, interruption, num_threads)
        if pack:
            workspace.keep_some()
    workspace.in_use = False
    workspace.check(status)


cdef class Steps:
    """A stack of packed layers that takes one step at a time; `fastrnn.stream` makes a user's class of it.

    `_h` (L, B, P) and `_c` (L, B, H), None but for the LSTM, are the state, which each step replaces and nobody else
    may hold. What a kernel can read and write as it is costs no more than a look at its type, precision and shape; a
    subclass says what becomes of the rest.
    """
    cdef list packed
    cdef readonly cnp.ndarray _h, _c
    cdef cnp.ndarray between  # (L, B, P): h_t of the layers below the last
    cdef object num_threads
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef int ndim, type_number

    def __init__(self, list packed, cnp.ndarray h not None, cnp.ndarray c, bint batched, num_threads):
        """packed for forward; h (L, B, P), c (L, B, H) or None; x_t (B, I) if batched, else (I,); num_threads()."""
        self.type_number = _type_of(h)
        _writable(h, self.type_number)
        if c is not None:
            _writable(c, self.type_number)
        for k in range(len(packed)):
            _packed(packed[k], self.type_number)
        self.packed, self._h, self._c, self.num_threads = packed, h, c, num_threads
        self.between = h.copy()
        self.ndim = 2 if batched else 1
        self.x_shape[0] = self.y_shape[0] = h.shape[1]
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

    def step(self, x_t, out=None):
        """Take one step.

        Parameters
        ----------
        x_t : array_like, (B, I), or (I,) without a batch size
            The input of this step, cast to the layer's dtype by NumPy's "same_kind" rule.
        out : ndarray, (B, H_out) or (H_out,), optional
            Where to write the result: an array of the layer's dtype, of any strides; it may be `x_t`. Default: a
            new one, the only thing that a step allocates.

        Returns
        -------
        y_t : ndarray, (B, H_out) or (H_out,)
            h_t of the last layer; `out` if that was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t` or `out` does not fit. The state is then as before, as it is where memory is lacking.
        """
        if self.packed is None:
            raise TypeError("this stream was not made by a layer")
        if not self._fits(x_t, self.x_shape):
            x_t = self._native_x(x_t)
        if out is None:
            out = cnp.PyArray_EMPTY(self.ndim, self.y_shape, self.type_number, 0)
        elif not self._fits(out, self.y_shape) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            self._check_out(out)
            out[...] = self.step(x_t)
            return out
        elif self._overlap(<cnp.ndarray>x_t, <cnp.ndarray>out):
            x_t = x_t.copy()
        cdef int threads = self.num_threads()
        cdef Workspace workspace = _workspace()
        cdef fastrnn_forward_args args[FASTRNN_MOST_CALLS]
        cdef fastrnn_status status = FASTRNN_OK
        cdef Py_ssize_t k, layers = len(self.packed), row = cnp.PyArray_STRIDE(self._h, 0), c_row = 0
        cdef int count = 0
        cdef char *h = <char *>cnp.PyArray_DATA(self._h)
        cdef char *between = <char *>cnp.PyArray_DATA(self.between)
        cdef char *c = NULL
        cdef const void *x = cnp.PyArray_DATA(<cnp.ndarray>x_t)
        if self._c is not None:
            c, c_row = <char *>cnp.PyArray_DATA(self._c), cnp.PyArray_STRIDE(self._c, 0)
        cdef cnp.ndarray h_before = None, c_before = None
        if layers > FASTRNN_MOST_CALLS:  # in several calls, of which a later one may lack memory
            h_before = self._h.copy()
            c_before = None if self._c is None else self._c.copy()
        for k in range(layers):
            args[count].T, args[count].B, args[count].offsets = 1, self._h.shape[1], NULL
            args[count].packed = (<Packed>self.packed[k]).pointer
            args[count].tape = NULL
            args[count].x = x
            args[count].state_0[0] = args[count].state_n[0] = h + k * row
            args[count].state_0[1] = args[count].state_n[1] = c + k * c_row if c != NULL else NULL
            x = args[count].output = cnp.PyArray_DATA(<cnp.ndarray>out) if k == layers - 1 else between + k * row
            count += 1
            if count == FASTRNN_MOST_CALLS or k == layers - 1:
                with nogil:
                    status = fastrnn_forward(args, count, True, workspace.pointer, NULL, threads)
                if status != FASTRNN_OK and h_before is not None:
                    self._h[...] = h_before
                    if c_before is not None:
                        self._c[...] = c_before
                workspace.check(status)
                count = 0
        return out


def backward(list calls not None, bint stacked, int num_threads):
    """Runs backward of some calls, independent of each other or stacked, the top layer first.

    A call is a tuple (packed, x, h_0, c_0, offsets, tape, d_output, d_h_n, d_c_n, d_x, d_h_0, d_c_0, d_weights,
    stretch). It fills the gradients from d_x on, d_weights being a tuple like the weights. The given gradients may be
    None for zeros; d_x and d_weights of biases None if not wanted. stretch is None, or (rows_after, rows_before, sums)
    where a call has some steps of a sequence; see sums().
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_backward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status
    cdef cnp.ndarray x, h_0, offsets, memory
    cdef int type_number, k, n, count = <int>len(calls)
    cdef tuple call, d_weights
    if not 0 < count <= FASTRNN_MOST_CALLS:
        raise ValueError(f"calls: expected 1 to {FASTRNN_MOST_CALLS}, got {count}")
    for k in range(count):
        call = calls[k]
        x, h_0, offsets, d_weights = call[1], call[2], call[4], call[12]
        type_number = _type_of(x)
        args[k].packed = _packed(call[0], type_number)
        args[k].offsets = _indices(offsets)
        args[k].T, args[k].B = x.shape[0] if offsets is None else offsets.shape[0] - 1, h_0.shape[0]
        args[k].x, args[k].tape = _readable(x, type_number), _tape(call[5])
        args[k].d_output, args[k].d_x = _readable(call[6], type_number), _writable(call[9], type_number)
        for n in range(2):
            args[k].state_0[n] = _readable(call[2 + n], type_number)
            args[k].d_state_n[n] = _readable(call[7 + n], type_number)
            args[k].d_state_0[n] = _writable(call[10 + n], type_number)
        args[k].d_weight_ih = _writable(d_weights[0], type_number)
        args[k].d_weight_hh = _writable(d_weights[1], type_number)
        args[k].d_bias_ih = _writable(d_weights[2], type_number)
        args[k].d_bias_hh = _writable(d_weights[3], type_number)
        args[k].d_weight_hr = _writable(d_weights[4], type_number)
        args[k].d_peephole = _writable(d_weights[5], type_number)
        args[k].rows_after = args[k].rows_before = 0
        args[k].sums = NULL
        if call[13] is not None:
            args[k].rows_after, args[k].rows_before, memory = call[13]
            args[k].sums = _writable(memory, type_number)
    workspace.in_use = True
    with nogil:
        status = fastrnn_backward(args, count, stacked, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


cdef class RaggedRows:
    """Moves the rows of a ragged batch, of any type of numbers; offsets (steps + 1), order and lengths (B,)."""
    cdef fastrnn_ragged rows
    cdef readonly cnp.ndarray order
    cdef cnp.ndarray offsets, lengths

    def __init__(self, Py_ssize_t T, cnp.ndarray offsets not None, cnp.ndarray order not None,
                 cnp.ndarray lengths not None):
        self.offsets, self.order, self.lengths = offsets, order, lengths
        self.rows.T, self.rows.B, self.rows.steps = T, order.shape[0], offsets.shape[0] - 1
        self.rows.offsets, self.rows.order, self.rows.lengths = _indices(offsets), _indices(order), _indices(lengths)

    cdef size_t check(self, cnp.ndarray rows, cnp.ndarray array) except? 0:
        """The bytes of a row of rows (N, n), contiguous, and of array (T, B, n), of any strides but in a row."""
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

    def gather(self, cnp.ndarray array not None, cnp.ndarray rows not None, int num_threads):
        """Fills rows (N, n) from array (T, B, n)."""
        self.move(0, self.check(rows, array), array, array.strides[0], array.strides[1], rows, num_threads)

    def scatter(self, cnp.ndarray rows not None, cnp.ndarray array not None, int num_threads):
        """Fills array (T, B, n) from rows (N, n), with zeros where there is no row."""
        self.move(1, self.check(rows, array), rows, array.strides[0], array.strides[1], array, num_threads)

    def turn(self, cnp.ndarray rows not None, cnp.ndarray turned not None, int num_threads):
        """Fills turned (N, n) from rows (N, n), each sequence in the opposite order."""
        if self.check(rows, None) != self.check(turned, None):
            raise ValueError("rows cannot be moved between these")
        self.move(2, self.check(rows, None), rows, 0, 0, turned, num_threads)

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


def activate(str function not None, cnp.ndarray x not None, cnp.ndarray y not None, str isa not None):
    """y = sigmoid(x) or tanh(x), as the cells compute them."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef bint use_tanh = {"sigmoid": False, "tanh": True}[function]
    cdef int type_number = _type_of(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef const void *source = _readable(x, type_number)
    cdef void *result = _writable(y, type_number)
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"y: expected ({x.shape[0]},), got ({y.shape[0]},)")
    with nogil:
        fastrnn_activate(kernels, _dtype(type_number), use_tanh, n, source, result)


# Drawn once for each process, so that no change is hidden from all of them.
cdef uint64_t _key[FASTRNN_KEY_WORDS]
cdef bytes _drawn = os.urandom(sizeof(_key))
memcpy(_key, <const char *>_drawn, sizeof(_key))


def fingerprint(cnp.ndarray array not None):
    """A hash of the array's bytes, to notice that it has changed; of the same bytes another in each process."""
    cdef uint64_t result
    cdef size_t size = cnp.PyArray_NBYTES(array)
    cdef const void *data = _readable(array, _type_of(array))
    with nogil:
        result = fastrnn_fingerprint(_key, data, size)
    return result
