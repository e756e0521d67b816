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
