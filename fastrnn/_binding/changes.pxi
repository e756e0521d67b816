# Whether arrays have changed since they were seen.

ctypedef fused _word:
    uint32_t
    uint64_t


@lru_cache(maxsize=256)
def _sampled(tuple shape, Py_ssize_t count):
    """Indices into a flat array of this shape: one in each row and each column, and at least `count`, or all."""
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    number = max(rows, columns)
    diagonal = np.arange(number, dtype=np.intp)
    equidistant = diagonal[:0]
    if number < count:
        equidistant = np.arange(0, rows * columns, max(1, rows * columns // count), np.intp)
    return np.unique(np.concatenate([diagonal % rows * columns + diagonal % columns, equidistant]))


cdef bint _differ(const _word *numbers, const Py_ssize_t *indices, cnp.ndarray values) noexcept:
    """Whether a bit of the values differs from those of the numbers with these indices."""
    cdef const _word *expected = <const _word *>cnp.PyArray_DATA(values)
    cdef _word difference = 0
    cdef Py_ssize_t k
    for k in range(cnp.PyArray_SIZE(values)):
        difference |= expected[k] ^ numbers[indices[k]]
    return difference != 0


cdef class Samples:
    """Some of the numbers of arrays, to detect most changes of them in little time.

    Parameters
    ----------
    arrays : list of ndarray
        Float32 or float64, contiguous, not empty; kept.
    count : int
        Of each array, at least so many numbers, with one in each row and each column.
    whole_bytes : int
        All numbers of an array of at most so many bytes.
    """
    cdef list arrays, indices, values

    def __init__(self, list arrays not None, Py_ssize_t count, Py_ssize_t whole_bytes=0):
        cdef cnp.ndarray array
        self.arrays, self.indices, self.values = arrays, [], []
        for array in arrays:
            _readable(array, _type_of(array))
            indices = None if cnp.PyArray_NBYTES(array) <= whole_bytes else _sampled((<object>array).shape, count)
            if indices is not None and len(indices) == cnp.PyArray_SIZE(array):
                indices = None
            self.indices.append(indices)
            self.values.append(array.copy() if indices is None else array.reshape(-1)[indices])

    def have_changed(self):
        """Whether one of these numbers is another than at first."""
        cdef cnp.ndarray array, values, indices
        cdef const void *numbers
        cdef Py_ssize_t k
        cdef bint have_changed = False
        for k in range(len(self.arrays)):
            array, indices, values = self.arrays[k], self.indices[k], self.values[k]
            numbers = _readable(array, _type_of(array))
            if indices is None:
                have_changed |= memcmp(numbers, cnp.PyArray_DATA(values), cnp.PyArray_NBYTES(values)) != 0
            elif cnp.PyArray_ITEMSIZE(array) == 4:
                have_changed |= _differ(<const uint32_t *>numbers, _indices(indices), values)
            else:
                have_changed |= _differ(<const uint64_t *>numbers, _indices(indices), values)
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
