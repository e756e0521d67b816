# One step at a time, and the functions for other extension modules, see csrc/fastrnn_api.h.

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
        if self.pointer != NULL:
            raise TypeError("a packed stream is constant")
        cdef fastrnn_weights *layers = <fastrnn_weights *>PyMem_Calloc(count, sizeof(fastrnn_weights))
        if layers == NULL:
            raise MemoryError
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

    cdef fastrnn_stream *packed(self) except NULL:
        if self.pointer == NULL:
            raise TypeError("a packed stream whose constructor has not been called")
        return self.pointer

    @property
    def address(self):
        """The address of the fastrnn_stream, for C, Cython, cffi, ctypes and Numba; valid as long as this object."""
        return <size_t>self.packed()

    @property
    def nbytes(self):
        """The bytes of the packed weights."""
        return fastrnn_stream_packed_bytes(self.packed())

    @property
    def state_bytes(self):
        """The bytes of the state of one sequence."""
        return fastrnn_stream_state_bytes(self.packed())

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
        cdef fastrnn_stream *s = self.packed()
        cdef list layers = []
        cdef size_t size = fastrnn_stream_state_bytes(s) // (s.states + s.scratch)
        for k in range(s.count):
            layer = s.layers[k]
            layers.append(layer)
        return (<char *>s.numbers)[:s.numbers_count * size], layers, s.states, s.scratch
