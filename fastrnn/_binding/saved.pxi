# The buffer `saved`: the saved activations of one direction of one layer, for its backward pass. fastrnn.h calls it the
# tape.

cdef enum:
    _ALIGNMENT = 64  # bytes: a cache line, and the widest vector

ALIGNMENT = _ALIGNMENT


cdef inline size_t _padded(size_t bytes) noexcept nogil:
    return (bytes + _ALIGNMENT - 1) & ~<size_t>(_ALIGNMENT - 1)


cdef fastrnn_tape _layout(Packed packed, size_t rows) noexcept:
    """The offsets of the arrays in `saved`."""
    return fastrnn_tape_layout(_dtype(packed.type_number), packed.cell, rows, packed.H, packed.projection)


def saved_bytes(Packed packed not None, size_t rows):
    """The size of `saved` for so many rows (time steps of all sequences)."""
    return _layout(packed, rows).bytes


def saved_arrays(Packed packed not None, cnp.ndarray saved not None, size_t rows):
    """A copy of the gates (gates, rows, H), and views (rows, P) or (rows, H) of the states; None if not saved."""
    cdef fastrnn_tape at = _layout(packed, rows)
    cdef fastrnn_cell_properties properties = fastrnn_cell_at(packed.cell)
    cdef char *data = _saved(packed, saved, rows)
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray columns, gates = None
    cdef list states = []
    cdef int n
    shape[0] = rows
    if at.gates != <size_t>-1:
        shape[1] = properties.gates * packed.H
        columns = cnp.PyArray_EMPTY(1, &shape[1], cnp.NPY_INTP, 0)
        fastrnn_gate_columns(_dtype(packed.type_number), packed.cell, packed.H,
                             <Py_ssize_t *>cnp.PyArray_DATA(columns))
        gates = _view(saved, data + at.gates, 2, shape, packed.type_number).take(columns, axis=1)
        gates = gates.reshape(rows, properties.gates, packed.H).swapaxes(0, 1).copy()
    for n in range(properties.states):
        shape[1] = packed.P if n == 0 else packed.H
        if at.states[n] == <size_t>-1:
            states.append(None)
        else:
            states.append(_view(saved, data + at.states[n], 2, shape, packed.type_number))
    return gates, states


cdef char *_saved(Packed packed, cnp.ndarray saved, size_t rows) except NULL:
    """Pointer to an array `saved`, whose size and alignment are checked."""
    cdef size_t size = _layout(packed, rows).bytes
    cdef char *data = <char *>cnp.PyArray_DATA(saved)
    if (
        cnp.PyArray_TYPE(saved) != cnp.NPY_UINT8 or not cnp.PyArray_IS_C_CONTIGUOUS(saved)
        or <size_t>saved.shape[0] != size
    ):
        raise ValueError(f"saved: expected {size} contiguous bytes, got {saved.shape[0]} of {saved.dtype}")
    if size and <size_t>data % _ALIGNMENT:
        raise ValueError(f"saved: its memory does not begin at a multiple of {_ALIGNMENT} bytes")
    return data


def sums(Packed packed not None, Py_ssize_t rows):
    """Memory that the backward calls for one sequence of `rows` rows share; None if they need none."""
    cdef size_t element = 4 if packed.type_number == cnp.NPY_FLOAT else 8
    cdef size_t bytes = fastrnn_sums_bytes(packed.pointer, rows)
    cdef cnp.npy_intp numbers = <cnp.npy_intp>(bytes // element)
    return cnp.PyArray_EMPTY(1, &numbers, packed.type_number, 0) if numbers else None
