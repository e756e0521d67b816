# Arrays to pointers, views, and the arrays of states.

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


cdef char *_state(cnp.ndarray array, Py_ssize_t index, Py_ssize_t B, Py_ssize_t n, int type_number,
                  bint writable) except? NULL:
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
        or not 2 <= cnp.PyArray_NDIM(array) <= 3 or not 0 <= index < L or shape[0] != B or shape[1] != n
        or shape[0] and shape[1] and (
            shape[1] > 1 and strides[1] != itemsize
            or shape[0] > 1 and strides[0] != shape[1] * itemsize
        )
    ):
        raise ValueError(f"a kernel cannot use this state of {array.dtype} as it lies in memory")
    return <char *>cnp.PyArray_DATA(array) + index * skip


cdef bint _is_plain(array, cnp.dtype dtype) noexcept:
    """Whether a kernel can read this in place: an array of the dtype, contiguous and aligned."""
    if type(array) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray>array) != dtype.num:
        return False
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array)


cdef cnp.ndarray _view(object owner, char *data, int ndim, cnp.npy_intp *shape, int type_number):
    """An array whose memory belongs to the owner."""
    cdef cnp.ndarray view = cnp.PyArray_SimpleNewFromData(ndim, shape, type_number, data)
    cnp.set_array_base(view, owner)
    return view


cdef cnp.ndarray _view_of(cnp.ndarray array):
    """A view of a contiguous array, which does not see the shapes that are assigned to the array."""
    cdef char *data = <char *>cnp.PyArray_DATA(array)
    return _view(array, data, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array))


cdef cnp.ndarray _with_shape(cnp.ndarray array, int axes, cnp.npy_intp first, cnp.npy_intp second, cnp.npy_intp third):
    """A view of a contiguous array with another shape of two or three axes."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = first, second, third
    return _view(array, <char *>cnp.PyArray_DATA(array), axes, shape, cnp.PyArray_TYPE(array))


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
