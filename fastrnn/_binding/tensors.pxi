# Tensors of PyTorch. The structs are those of DLPack's dlpack.h, version 1: its API of C functions reads a tensor in a
# tenth of the time of a call in Python.

cdef enum:
    _OF_CPU = 1  # kDLCPU
    _INTEGERS = 0  # kDLInt
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
    void *before
    void *allocate
    void *managed_from
    void *managed_to
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

    cdef cnp.ndarray indices(self, tensor):
        """A private array of intp of a tensor of int64 with one axis; None of any other."""
        cdef DLTensor read
        cdef cnp.npy_intp k, size
        if not self.is_plain(tensor) or tensor.is_neg() or not self.read(tensor, &read):
            return None
        if read.code != _INTEGERS or read.bits != 64 or read.lanes != 1:
            return None
        if read.ndim != 1 or not _is_contiguous(&read) or not _address(&read) or _address(&read) % sizeof(int64_t):
            return None
        size = read.shape[0]
        cdef cnp.ndarray result = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INTP, 0)
        for k in range(size):
            (<Py_ssize_t *>cnp.PyArray_DATA(result))[k] = <Py_ssize_t>(<const int64_t *>_address(&read))[k]
        return result

    cdef PackedSequences sequences(self, tuple packing, cnp.ndarray rows):
        """The sequences of a PackedSequence with these rows and other tensors; None if it is not a usual one."""
        cdef cnp.ndarray order = None, back, sizes
        cdef Py_ssize_t b
        batch_sizes, sorted_indices, unsorted_indices = packing
        sizes = self.indices(batch_sizes)
        if rows is None or cnp.PyArray_NDIM(rows) != 2 or sizes is None:
            return None
        if (sorted_indices is None) != (unsorted_indices is None):
            return None
        if sorted_indices is not None:
            order, back = self.indices(sorted_indices), self.indices(unsorted_indices)
            if order is None or back is None or order.shape[0] != back.shape[0]:
                return None
        cdef PackedSequences sequences = PackedSequences.of_batch_sizes(sizes, rows.shape[0], order)
        if sequences is not None and order is not None:
            for b in range(order.shape[0]):
                if (<Py_ssize_t *>cnp.PyArray_DATA(back))[(<Py_ssize_t *>cnp.PyArray_DATA(order))[b]] != b:
                    return None
        return sequences


cdef class ModuleWeights:
    """The weights of a module in the memory where they were found, the base of `fastrnn.torch.Weights`.

    Parameters
    ----------
    reader : Tensors
    stack : fastrnn._engine.stack.Stack
    tensors : list of Tensor
        The parameters of the module.
    shapes : tuple of tuple
        Theirs.
    addresses : list of int
        Of their memory.
    """
    cdef Tensors reader
    cdef readonly object stack
    cdef readonly cnp.dtype dtype
    cdef readonly list tensors, addresses
    cdef readonly tuple shapes

    def __init__(self, Tensors reader not None, stack, list tensors not None, tuple shapes not None,
                 list addresses not None):
        self.reader, self.stack, self.dtype = reader, stack, stack.dtype
        self.tensors, self.shapes, self.addresses = tensors, shapes, addresses

    cdef bint is_at(self, Py_ssize_t k, tensor) except -1:
        """Whether this is the tensor k, contiguous, at its address and of its shape."""
        cdef DLTensor read
        cdef tuple shape = self.shapes[k]
        cdef int axis
        if tensor is not self.tensors[k]:
            return False
        if self.reader.api == NULL or not self.reader.is_plain(tensor):
            return tensor.data_ptr() == self.addresses[k] and tensor.is_contiguous() and tensor.shape == shape
        if not self.reader.read(tensor, &read) or not _is_contiguous(&read) or read.ndim != len(shape):
            return False
        for axis in range(read.ndim):
            if read.shape[axis] != <int64_t>shape[axis]:
                return False
        return _address(&read) == <size_t>self.addresses[k]

    def are_at(self, list tensors not None):
        """Whether these are the tensors, contiguous, at their addresses and of their shapes."""
        cdef Py_ssize_t k
        for k in range(len(tensors)):
            if not self.is_at(k, tensors[k]):
                return False
        return True

    def are_those_of(self, parameters not None, list names not None):
        """Whether the parameters with these names, of a mapping, are the tensors, as `are_at`."""
        cdef Py_ssize_t k
        if len(names) != len(self.tensors):
            return False
        for k in range(len(names)):
            if not self.is_at(k, parameters.get(names[k])):
                return False
        return True

    def arguments(self, parameters not None, list names not None, x, hx, bint batch_first):
        """The tensors (x, *states, *weights) of a pass, and the number of states, if some of them need gradients.

        None if the arguments need the longer way, which has all checks: if the tensors are not plain ones of shapes
        (T, B, I), with `batch_first` (B, T, I), and (L*D, B, n), or none of them needs a gradient.
        """
        cdef DLTensor read
        cdef Py_ssize_t k, B
        cdef tuple widths = self.stack.widths, given = ()
        if self.reader.api == NULL or not self.are_those_of(parameters, names):
            return None
        if not self.reader.read(x, &read) or not _is_of(&read, self.dtype) or read.ndim != 3:
            return None
        B = read.shape[0 if batch_first else 1]
        if not read.shape[0] or not read.shape[1] or read.shape[2] != <Py_ssize_t>self.stack.I:
            return None
        if hx is not None:
            given = <tuple>hx if type(hx) is tuple else (hx,)
            if len(given) != len(widths) or (len(given) > 1) != (type(hx) is tuple):
                return None
            for k in range(len(given)):
                if not self.reader.read(given[k], &read) or not _is_of(&read, self.dtype) or read.ndim != 3:
                    return None
                if read.shape[0] != <Py_ssize_t>self.stack.count or read.shape[1] != B:
                    return None
                if read.shape[2] != <Py_ssize_t>widths[k]:
                    return None
        cdef tuple tensors = (x, *given, *self.tensors)
        for tensor in tensors:
            if tensor.requires_grad:
                return tensors, len(given)
        return None


cdef class PackedModule:
    """The packed weights of a module, for calls without gradients. It does not refer to their ModuleWeights.

    Parameters
    ----------
    packed : list of Packed
        For forward.
    versions : list of int
        Of the values of the weights, as PyTorch counts them.
    samples, exact : Samples
        Of their values: a few of each, and as many as training mode compares, or None for calls in eval mode alone.
    """
    cdef list packed, versions
    cdef Samples samples, exact

    def __init__(self, list packed not None, list versions not None, Samples samples not None, Samples exact):
        self.packed, self.versions, self.samples, self.exact = packed, versions, samples, exact

    def infer(self, ModuleWeights weights not None, parameters not None, list names not None, x, tuple packing, hx,
              bint batch_first, bint exact, int num_threads, str isa not None, Pool pool not None):
        """The results of a call, or None if its arguments need the longer way, which has all checks.

        Parameters
        ----------
        weights : ModuleWeights
            Those that were packed.
        parameters, names : mapping of str to Tensor, list of str
            The parameters of the module, and the names of its weights.
        x : Tensor, (T, B, I), with `batch_first` (B, T, I), or (T, I); or (N, I) of a PackedSequence
        packing : tuple or None
            The other tensors of the PackedSequence: batch_sizes, sorted_indices and unsorted_indices.
        hx : Tensor, tuple of Tensor, or None
        exact : bool
            Whether the module is in training mode.

        Returns
        -------
        results : tuple, or None
            The output, in the axes of x, and the state after: a tensor, or a tuple of several.
        """
        cdef Tensors reader = weights.reader
        cdef Samples samples = self.exact if exact else self.samples
        cdef tuple results
        state = None
        cdef Py_ssize_t k
        if samples is None or _find(isa) != (<Packed>self.packed[0]).isa:
            return None
        if not weights.are_those_of(parameters, names):
            return None
        for k in range(len(weights.tensors)):
            if weights.tensors[k]._version != self.versions[k]:
                return None
        if samples.have_changed():
            return None
        if hx is not None:
            if type(hx) is tuple:
                state = tuple([reader.array(one, weights.dtype) for one in <tuple>hx])
            else:
                state = reader.array(hx, weights.dtype)
                if state is None:
                    return None
        array = reader.array(x, weights.dtype)
        cdef PlainCall call
        cdef PackedSequences sequences
        if packing is None:
            call = _plain_call(weights.stack, len(self.packed), array, state, None, batch_first, num_threads, pool)
        else:
            sequences = reader.sequences(packing, array)
            if sequences is None:
                return None
            call = _packed_call(weights.stack, len(self.packed), array, sequences, state)
        if call is None:
            return None
        results = call.run(self.packed, num_threads, pool)
        after = [reader.from_numpy(one) for one in results[1]]
        return reader.from_numpy(results[0]), after[0] if len(after) == 1 else tuple(after)
