# Weights packed for the kernels.

WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole"


cdef class Packed:
    """A copy of the weights of one direction of one layer, packed for one pass of the kernels of an instruction set."""
    cdef fastrnn_packed *pointer
    cdef const fastrnn_isa *isa
    cdef int type_number
    cdef fastrnn_cell cell
    cdef bint backward
    cdef bint has_input  # whether weight_ih is packed
    cdef readonly Py_ssize_t I, H, P
    cdef Py_ssize_t heads
    cdef readonly Py_ssize_t projection  # P with a projection, else 0

    @property
    def nbytes(self):
        return fastrnn_packed_bytes(self.pointer)

    def __dealloc__(self):
        fastrnn_packed_free(self.pointer)


cdef const fastrnn_packed *_packed(Packed packed, int type_number, bint backward) except NULL:
    if packed.pointer == NULL or packed.type_number != type_number:
        raise ValueError("these weights were not packed in the precision of the other arrays")
    if packed.backward != backward:
        raise ValueError("these weights were packed for the other pass")
    return packed.pointer


cdef inline cnp.ndarray _weight(tuple weights, Py_ssize_t index):
    return weights[index] if index < len(weights) else None


cdef int _weights(fastrnn_weights *w, Kernel kernel, tuple weights) except -1:
    """Fill w from a tuple of weights; returns the type number of the other arrays of a call."""
    cdef cnp.ndarray weight_ih = weights[0], weight_hh = weights[1], weight_hr = _weight(weights, 4)
    cdef int weight_type = cnp.PyArray_TYPE(weight_ih), type_number
    cdef fastrnn_format_properties narrow
    w.format = _formats_of_types.get(weight_type, FASTRNN_NATIVE)
    type_number = cnp.NPY_FLOAT if w.format else _type_of(weight_ih)
    if not w.format:
        weight_type = type_number
    w.cell, w.options = kernel.cell, kernel.options
    w.I, w.H = weight_ih.shape[1], weight_ih.shape[0] // fastrnn_cell_at(w.cell).gates
    w.P = w.H if weight_hr is None else weight_hr.shape[0]
    w.heads = w.P // weight_hh.shape[1]
    w.weight_ih, w.weight_hh = _readable(weight_ih, weight_type), _readable(weight_hh, weight_type)
    w.bias_ih = _readable(_weight(weights, 2), type_number)
    w.bias_hh = _readable(_weight(weights, 3), type_number)
    narrow = fastrnn_format_at(w.format)
    w.weight_hr = _readable(weight_hr, weight_type if narrow.rounds_projection else type_number)
    w.peephole = _readable(_weight(weights, 5), type_number)
    w.scale_ih = <const float *>_readable(_weight(weights, 6), cnp.NPY_FLOAT)
    w.scale_hh = <const float *>_readable(_weight(weights, 7), cnp.NPY_FLOAT)
    w.scale_hr = <const float *>_readable(_weight(weights, 8), cnp.NPY_FLOAT)
    w.instructions = NULL
    if w.format:
        if narrow.has_scales and (
            w.scale_ih == NULL or w.scale_hh == NULL or (weight_hr is not None and w.scale_hr == NULL)
        ):
            raise ValueError(f"weights: {narrow.name.decode()} needs the scales of their rows")
        if max(w.I, w.P, w.H) > narrow.most_columns:
            raise ValueError(f"weights: {narrow.name.decode()} allows {narrow.most_columns} columns")
    return type_number


cdef Packed _pack(const fastrnn_isa *kernels, const fastrnn_weights *w, int type_number, bint backward,
                  int num_threads, Pool pool):
    cdef fastrnn_status status
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef Packed packed = None if pool is None else pool.take_packed(w, type_number, backward, kernels)
    if packed is None:
        packed = Packed.__new__(Packed)
    workspace.in_use = True
    with nogil:
        status = fastrnn_pack(kernels, _dtype(type_number), FASTRNN_BACKWARD if backward else FASTRNN_FORWARD, w,
                              interruption, num_threads, &packed.pointer)
    workspace.in_use = False
    workspace.check(status)
    packed.cell, packed.isa = w.cell, kernels
    packed.type_number, packed.backward, packed.has_input = type_number, backward, w.weight_ih != NULL
    packed.I, packed.H, packed.P, packed.projection = w.I, w.H, w.P, 0 if w.weight_hr == NULL else w.P
    packed.heads = w.heads
    return packed


def pack(Kernel kernel not None, list weights not None, bint backward, int num_threads, str isa not None,
         Pool pool=None, int without_input=0):
    """Pack the weights of several layers and directions for one pass: a list of Packed, in memory of the pool.

    Of the first `without_input` of them, packed for backward, weight_ih is left out, and there is no d_x. If the dtype
    of weight_ih is that of a narrow format, the weights that the format rounds, with the scales of their rows if it has
    them, are packed in that format, for forward calls in float32.
    """
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_weights w
    cdef int type_number
    cdef list result = []
    cdef bytes instructions = isa.partition("+")[2].encode()
    for one in weights:
        type_number = _weights(&w, kernel, one)
        w.instructions = <const char *>instructions
        if w.format and backward:
            raise ValueError("weights of a narrow format are for inference alone")
        if backward and len(result) < without_input:
            w.weight_ih = NULL
        result.append(_pack(kernels, &w, type_number, backward, num_threads, pool))
    return result
