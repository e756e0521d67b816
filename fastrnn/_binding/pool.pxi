# Memory that later calls reuse.

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
        if self.pool is not None:
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
