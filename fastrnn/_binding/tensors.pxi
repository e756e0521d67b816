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
