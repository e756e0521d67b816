# Rows of ragged batches.

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
    cdef readonly cnp.ndarray offsets, order
    cdef cnp.ndarray lengths

    def __init__(self, Py_ssize_t T, cnp.ndarray offsets not None, cnp.ndarray order not None,
                 cnp.ndarray lengths not None):
        self.offsets, self.order, self.lengths = offsets, order, lengths
        self.rows.T, self.rows.B, self.rows.steps = T, order.shape[0], offsets.shape[0] - 1
        self.rows.offsets, self.rows.order, self.rows.lengths = _indices(offsets), _indices(order), _indices(lengths)

    @staticmethod
    def of(Py_ssize_t T, cnp.ndarray lengths not None):
        """Those of a batch with these lengths, an array of intp, (B,), each from 0 to T, in any order."""
        cdef const Py_ssize_t *of_caller = _indices(lengths)
        cdef cnp.npy_intp b, B = lengths.shape[0], steps = 0, size
        for b in range(B):
            if not 0 <= of_caller[b] <= T:
                raise ValueError(f"lengths: expected 0 to T={T}, got {of_caller[b]}")
            steps = max(steps, of_caller[b])
        cdef cnp.ndarray order = cnp.PyArray_EMPTY(1, &B, cnp.NPY_INTP, 0)
        cdef cnp.ndarray in_order = cnp.PyArray_EMPTY(1, &B, cnp.NPY_INTP, 0)
        size = steps + 1
        cdef cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INTP, 0)
        fastrnn_sort_lengths(
            B, steps, of_caller, <Py_ssize_t *>cnp.PyArray_DATA(order), <Py_ssize_t *>cnp.PyArray_DATA(in_order),
            <Py_ssize_t *>cnp.PyArray_DATA(offsets)
        )
        return PackedSequences(T, offsets, order, in_order)

    @staticmethod
    def of_batch_sizes(cnp.ndarray batch_sizes not None, Py_ssize_t rows, cnp.ndarray order=None):
        """Those of rows in packed layout, or None if the arguments do not describe so many rows.

        Parameters
        ----------
        batch_sizes : ndarray of intp, (T,)
            The sequences of each step: positive, and none larger than the one before. It must not change.
        rows : int
            N, their sum.
        order : ndarray of intp, (B,), optional
            The sequences of the caller, each once, in the order of the layout. Default: 0 to B - 1. It must not change.
        """
        cdef const Py_ssize_t *sizes = _indices(batch_sizes)
        cdef cnp.npy_intp t, b, T = batch_sizes.shape[0], B, length, following
        if T == 0 or not 0 < sizes[0] <= rows:
            return None
        B, length = sizes[0], T + 1
        cdef cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &length, cnp.NPY_INTP, 0)
        cdef cnp.ndarray lengths = cnp.PyArray_ZEROS(1, &B, cnp.NPY_INTP, 0)
        cdef Py_ssize_t *first = <Py_ssize_t *>cnp.PyArray_DATA(offsets)
        cdef Py_ssize_t *steps = <Py_ssize_t *>cnp.PyArray_DATA(lengths)
        if order is None:
            order = cnp.PyArray_Arange(0, B, 1, cnp.NPY_INTP)
        elif order.shape[0] != B:
            return None
        cdef const Py_ssize_t *sequences = _indices(order)
        for b in range(B):
            if not 0 <= sequences[b] < B or steps[sequences[b]]:
                return None
            steps[sequences[b]] = 1  # seen
        first[0] = 0
        for t in range(T):
            following = sizes[t + 1] if t + 1 < T else 0
            if not 0 <= following <= sizes[t] or sizes[t] > rows - first[t] or (following == 0 and t + 1 < T):
                return None
            first[t + 1] = first[t] + sizes[t]
            for b in range(following, sizes[t]):
                steps[b] = t + 1
        if first[T] != rows:
            return None
        return PackedSequences(T, offsets, order, lengths)

    cpdef cnp.ndarray reordered(self, cnp.ndarray state, bint back):
        """A contiguous state (L, B, n) or (B, n) in this order; with `back`, one in this order as before: a copy."""
        cdef int ndim = cnp.PyArray_NDIM(state)
        cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(state)
        if not 2 <= ndim <= 3 or shape[ndim - 2] != self.rows.B or not cnp.PyArray_IS_C_CONTIGUOUS(state):
            raise ValueError("this is not a contiguous state of these sequences")
        cdef cnp.ndarray result = cnp.PyArray_EMPTY(ndim, shape, cnp.PyArray_TYPE(state), 0)
        cdef size_t bytes = shape[ndim - 1] * cnp.PyArray_ITEMSIZE(state)
        cdef const char *source = <const char *>cnp.PyArray_DATA(state)
        cdef char *to = <char *>cnp.PyArray_DATA(result)
        cdef Py_ssize_t k, b, first
        for k in range(shape[0] if ndim == 3 else 1):
            first = k * self.rows.B
            for b in range(self.rows.B):
                if back:
                    memcpy(to + (first + self.rows.order[b]) * bytes, source + (first + b) * bytes, bytes)
                else:
                    memcpy(to + (first + b) * bytes, source + (first + self.rows.order[b]) * bytes, bytes)
        return result

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

    cdef cnp.ndarray packed(self, cnp.ndarray array, int num_threads, Pool pool):
        """The packed rows (N, n), new, of a padded array (T, B, n)."""
        cdef cnp.npy_intp shape[2]
        shape[0], shape[1] = self.rows.offsets[self.rows.steps], array.shape[2]
        cdef cnp.ndarray rows = pool._empty(2, shape, cnp.PyArray_TYPE(array), cnp.PyArray_ITEMSIZE(array))
        self.pack(array, rows, num_threads)
        return rows

    cdef cnp.ndarray padded(self, cnp.ndarray rows, int num_threads, Pool pool):
        """The padded array (T, B, n), new, of packed rows (N, n)."""
        cdef cnp.npy_intp shape[3]
        shape[0], shape[1], shape[2] = self.rows.T, self.rows.B, rows.shape[1]
        cdef cnp.ndarray array = pool._empty(3, shape, cnp.PyArray_TYPE(rows), cnp.PyArray_ITEMSIZE(rows))
        self.pad(rows, array, num_threads)
        return array

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
