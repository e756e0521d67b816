# Whether arrays have changed since they were seen.

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
    whole_bytes : int
        All numbers of an array of at most so many bytes.
    """
    cdef list arrays, values

    def __init__(self, list arrays not None, Py_ssize_t count, Py_ssize_t whole_bytes=0):
        cdef cnp.ndarray array
        cdef Py_ssize_t every
        self.arrays, self.values = arrays, []
        for array in arrays:
            _readable(array, _type_of(array))
            every = 1 if cnp.PyArray_NBYTES(array) <= whole_bytes else max(1, cnp.PyArray_SIZE(array) // count)
            self.values.append((every, array.reshape(-1)[::every].copy()))

    def have_changed(self):
        """Whether one of these numbers is another than at first."""
        cdef cnp.ndarray array, values
        cdef const void *numbers
        cdef Py_ssize_t k, every
        cdef bint have_changed = False
        for k in range(len(self.arrays)):
            array, every, values = self.arrays[k], self.values[k][0], self.values[k][1]
            numbers = _readable(array, _type_of(array))
            if every == 1:
                have_changed |= memcmp(numbers, cnp.PyArray_DATA(values), cnp.PyArray_NBYTES(values)) != 0
            elif cnp.PyArray_ITEMSIZE(array) == 4:
                have_changed |= _differ(<const uint32_t *>numbers, every, values)
            else:
                have_changed |= _differ(<const uint64_t *>numbers, every, values)
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
