# Records of calls, copied into the structs of fastrnn.h.

MOST_CALLS = FASTRNN_MOST_CALLS


@cython.freelist(32)
cdef class ForwardCall:
    """The forward pass of one direction of one layer over the time steps of a batch.

    Parameters
    ----------
    packed : Packed
        The weights, packed for forward.
    index : int
        The row of the state arrays that belongs to this call.
    x : ndarray, (T, B, I), or (N, I) with offsets
    offsets : ndarray of intp, (steps + 1,), or None
        Of a batch in packed layout, the first of the N rows of each step, and N.
    state_0, state_n : list of ndarray, (L, B, P) and (L, B, H)
        The state before the first step; and after each sequence's last step, written. They may be the same arrays.
    output : ndarray, (T, B, P) or (N, P)
        Written.
    saved : ndarray of uint8, (saved_bytes(packed, rows),), or None
        Written: the saved activations for the backward pass. None for inference.
    resets : ndarray of bool, (T, B) or (N,), or None
        The steps before which the states become zeros.
    """
    cdef readonly Packed packed
    cdef readonly Py_ssize_t index
    cdef readonly cnp.ndarray x, offsets, output, saved, resets
    cdef readonly list state_0, state_n

    def __init__(self, Packed packed not None, Py_ssize_t index, cnp.ndarray x not None, cnp.ndarray offsets,
                 list state_0 not None, list state_n not None, cnp.ndarray output not None, cnp.ndarray saved=None,
                 cnp.ndarray resets=None):
        self.packed, self.index, self.x, self.offsets = packed, index, x, offsets
        self.state_0, self.state_n, self.output = state_0, state_n, output
        self.saved, self.resets = saved, resets


@cython.freelist(32)
cdef class BackwardCall:
    """The backward pass of one direction of one layer.

    Parameters
    ----------
    packed : Packed
        The weights of the forward pass, packed for backward.
    index, x, offsets, state_0, saved
        As of the forward pass.
    d_output : ndarray, (T, B, P) or (N, P), or None for zeros
    d_state_n : list of ndarray or None, (L, B, P) and (L, B, H)
        None for zeros.
    d_x : ndarray, (T, B, I) or (N, I), or None
        Written; None if it is not needed.
    d_state_0 : list of ndarray, (L, B, P) and (L, B, H)
        Written; not in the memory of d_state_n.
    d_weights : tuple of ndarray, like the weights
        Written.
    rows_after, rows_before : int
        Rows of the same sequences after and before the time steps of this call, if other calls compute them, the last
        steps first; the gradients of the weights are complete after the call with rows_before = 0.
    sums : ndarray or None
        Memory that such calls share, made by `sums`.
    resets : ndarray of bool, (T, B) or (N,), or None
        As of the forward pass.
    """
    cdef readonly Packed packed
    cdef readonly Py_ssize_t index, rows_after, rows_before
    cdef readonly cnp.ndarray x, offsets, saved, d_output, d_x, sums, resets
    cdef readonly list state_0, d_state_n, d_state_0
    cdef readonly tuple d_weights

    def __init__(self, Packed packed not None, Py_ssize_t index, cnp.ndarray x not None, cnp.ndarray offsets,
                 list state_0 not None, cnp.ndarray saved not None, cnp.ndarray d_output, list d_state_n not None,
                 cnp.ndarray d_x, list d_state_0 not None, tuple d_weights not None, Py_ssize_t rows_after=0,
                 Py_ssize_t rows_before=0, cnp.ndarray sums=None, cnp.ndarray resets=None):
        self.packed, self.index, self.x, self.offsets = packed, index, x, offsets
        self.state_0, self.saved, self.d_output, self.d_state_n = state_0, saved, d_output, d_state_n
        self.d_x, self.d_state_0, self.d_weights = d_x, d_state_0, d_weights
        self.rows_after, self.rows_before, self.sums, self.resets = rows_after, rows_before, sums, resets


@cython.freelist(8)
cdef class Inputs:
    """The checked arguments of a forward pass, as the kernels read them.

    Parameters
    ----------
    stack : fastrnn._engine.stack.Stack
    layout : fastrnn._engine.ragged.Layout
    x : ndarray, (T, B, I), or (N, I) in packed layout
    is_private : bool
        Whether x is memory that the caller does not share.
    state_0 : list of ndarray, (L, B, n)
    shared : list of bool, or None
        Whether each state was given once for all sequences; None if none was.
    batched : bool
        Whether the caller's arrays have an axis of sequences.
    """
    cdef readonly object stack, layout
    cdef readonly cnp.ndarray x
    cdef readonly bint is_private, batched
    cdef readonly list state_0, shared

    def __init__(self, stack, layout, cnp.ndarray x not None, bint is_private, list state_0 not None, list shared,
                 bint batched):
        self.stack, self.layout, self.x, self.is_private = stack, layout, x, is_private
        self.state_0, self.shared, self.batched = state_0, shared, batched


@cython.freelist(8)
cdef class Gradients:
    """The gradients of a backward pass, except that of x.

    Parameters
    ----------
    d_output : ndarray, (T, B, D*P) or (N, D*P), or None for zeros
    d_state_n : list of ndarray or None, (L*D, B, n)
        None for zeros.
    d_state_0 : list of ndarray, (L*D, B, n)
        Written.
    d_weights : list of tuple of ndarray or None
        Of each direction of each layer, like its weights; written.
    """
    cdef readonly cnp.ndarray d_output
    cdef readonly list d_state_n, d_state_0, d_weights

    def __init__(self, cnp.ndarray d_output, list d_state_n not None, list d_state_0 not None, list d_weights not None):
        self.d_output, self.d_state_n = d_output, d_state_n
        self.d_state_0, self.d_weights = d_state_0, d_weights


@cython.freelist(8)
cdef class Chain:
    """Layers on top of each other in one direction, with their inputs and their saved activations.

    Parameters
    ----------
    layout : fastrnn._engine.ragged.Layout
        Of all steps, or of a segment of them.
    inputs : list of ndarray, (..., I) and (..., P)
        The input of each layer, with the sequences in the order in which they are read; all but the first are written.
    state_0 : list of ndarray, (L, B, n)
    saved : list of ndarray of uint8
        The buffer `saved` of each layer, written by the forward pass.
    """
    cdef readonly object layout
    cdef readonly list inputs, state_0, saved

    def __init__(self, layout, list inputs not None, list state_0 not None, list saved not None):
        self.layout, self.inputs, self.state_0, self.saved = layout, inputs, state_0, saved


cdef int _check_size(cnp.ndarray array, Py_ssize_t size) except -1:
    """Refuse an array of another size than the weights need: a layer may have been constructed again meanwhile."""
    if array is not None and cnp.PyArray_SIZE(array) != size:
        raise ValueError(f"an array of {cnp.PyArray_SIZE(array)} numbers where these weights need {size}")
    return 0


cdef Py_ssize_t _sequences(cnp.ndarray x, cnp.ndarray offsets, cnp.ndarray h_0) except -1:
    """The number of sequences of a call, which is that of its states."""
    cdef int axes = cnp.PyArray_NDIM(h_0)
    if not 2 <= axes <= 3 or cnp.PyArray_NDIM(x) != (3 if offsets is None else 2):
        raise ValueError("x or a state has not the axes of a call")
    cdef Py_ssize_t B = cnp.PyArray_DIMS(h_0)[axes - 2]
    if offsets is None and x.shape[1] != B:
        raise ValueError(f"{B} states for {x.shape[1]} sequences")
    return B


cdef int _fill_forward(fastrnn_forward_args *args, ForwardCall call) except -1:
    cdef int type_number = _type_of(call.x), n
    cdef Packed packed = call.packed
    cdef Py_ssize_t B = _sequences(call.x, call.offsets, call.state_0[0]), columns
    cdef Py_ssize_t rows = _rows(call.x)
    args.packed = _packed(packed, type_number, False)
    _check_size(call.x, rows * packed.I)
    _check_size(call.output, rows * packed.P)
    args.offsets = _indices(call.offsets)
    args.resets = _resets(call.resets, rows)
    args.T = call.x.shape[0] if call.offsets is None else call.offsets.shape[0] - 1
    args.B = B
    args.x, args.output = _readable(call.x, type_number), _writable(call.output, type_number)
    for n in range(len(call.state_0)):
        columns = packed.H if n else packed.P
        args.state_0[n] = _state(call.state_0[n], call.index, B, columns, type_number, False)
        args.state_n[n] = _state(call.state_n[n], call.index, B, columns, type_number, True)
    args.tape = NULL
    if call.saved is not None:
        args.tape = _saved(call.packed, call.saved, _rows(call.x))
        if not cnp.PyArray_ISWRITEABLE(call.saved):
            raise ValueError("saved: is read-only")
    return type_number


cdef int _fill_backward(fastrnn_backward_args *args, BackwardCall call) except -1:
    cdef int type_number = _type_of(call.x), n
    cdef Packed packed = call.packed
    cdef Py_ssize_t B = _sequences(call.x, call.offsets, call.state_0[0]), columns
    cdef Py_ssize_t rows = _rows(call.x), gate_rows = fastrnn_cell_at(packed.cell).gates * packed.H
    args.packed = _packed(packed, type_number, True)
    _check_size(call.x, rows * packed.I)
    _check_size(call.d_x, rows * packed.I)
    _check_size(call.d_output, rows * packed.P)
    _check_size(_weight(call.d_weights, 0), gate_rows * packed.I)
    _check_size(_weight(call.d_weights, 1), gate_rows * (packed.P // packed.heads))
    _check_size(_weight(call.d_weights, 2), gate_rows)
    _check_size(_weight(call.d_weights, 3), gate_rows)
    _check_size(_weight(call.d_weights, 4), packed.P * packed.H)
    _check_size(_weight(call.d_weights, 5), 3 * packed.H)
    args.offsets = _indices(call.offsets)
    args.resets = _resets(call.resets, rows)
    args.T = call.x.shape[0] if call.offsets is None else call.offsets.shape[0] - 1
    args.B = B
    args.x, args.tape = _readable(call.x, type_number), _saved(packed, call.saved, rows)
    args.d_output, args.d_x = _readable(call.d_output, type_number), _writable(call.d_x, type_number)
    if args.d_x != NULL and not call.packed.has_input:
        raise ValueError("d_x: these weights were packed without weight_ih")
    for n in range(len(call.state_0)):
        columns = packed.H if n else packed.P
        args.state_0[n] = _state(call.state_0[n], call.index, B, columns, type_number, False)
        args.d_state_n[n] = _state(call.d_state_n[n], call.index, B, columns, type_number, False)
        args.d_state_0[n] = _state(call.d_state_0[n], call.index, B, columns, type_number, True)
    args.d_weight_ih = _writable(_weight(call.d_weights, 0), type_number)
    args.d_weight_hh = _writable(_weight(call.d_weights, 1), type_number)
    args.d_bias_ih = _writable(_weight(call.d_weights, 2), type_number)
    args.d_bias_hh = _writable(_weight(call.d_weights, 3), type_number)
    args.d_weight_hr = _writable(_weight(call.d_weights, 4), type_number)
    args.d_peephole = _writable(_weight(call.d_weights, 5), type_number)
    args.rows_after, args.rows_before = call.rows_after, call.rows_before
    args.sums = _writable(call.sums, type_number)
    return type_number


cdef size_t _rows(cnp.ndarray x) noexcept:
    """The number of rows, the time steps of all sequences: T * B, or N."""
    return x.shape[0] * x.shape[1] if cnp.PyArray_NDIM(x) == 3 else x.shape[0]


cdef int _count(list calls) except -1:
    cdef int count = <int>len(calls)
    if not 0 < count <= FASTRNN_MOST_CALLS:
        raise ValueError(f"calls: expected 1 to {FASTRNN_MOST_CALLS}, got {count}")
    return count


def forward(list calls not None, bint stacked, int num_threads):
    """Run the forward pass of a list of ForwardCalls of one layout, side by side where that is faster.

    The calls are independent of each other; or, with `stacked`, layers on top of each other: the x of each call is the
    output of the call before.
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_forward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status
    cdef int k, count = _count(calls)
    for k in range(count):
        _fill_forward(&args[k], <ForwardCall?>calls[k])
    workspace.in_use = True
    with nogil:
        status = fastrnn_forward(args, count, stacked, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


def backward(list calls not None, bint stacked, int num_threads):
    """Run the backward pass of a list of BackwardCalls of one layout, side by side where that is faster.

    The calls are independent of each other; or, with `stacked`, layers on top of each other, the top layer first: the
    d_output of each call is the d_x of the call before.
    """
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_backward_args args[FASTRNN_MOST_CALLS]
    cdef fastrnn_status status
    cdef int k, count = _count(calls)
    for k in range(count):
        _fill_backward(&args[k], <BackwardCall?>calls[k])
    workspace.in_use = True
    with nogil:
        status = fastrnn_backward(args, count, stacked, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


def aligned(cnp.ndarray reserve not None, Pool pool not None):
    """A reserve in contiguous memory that begins at a multiple of ALIGNMENT bytes: the array itself, or a copy."""
    if not <size_t>cnp.PyArray_DATA(reserve) % _ALIGNMENT and cnp.PyArray_IS_C_CONTIGUOUS(reserve):
        return reserve
    cdef cnp.ndarray copy = pool._lease(1, cnp.PyArray_DIMS(reserve), cnp.NPY_UINT8, 1)
    copy[...] = reserve
    return copy


def forward_one(Inputs inputs not None, Packed packed not None, int num_threads, Pool pool not None):
    """The forward pass with a reserve of one layer that reads sequences of one length from their beginnings.

    Returns output (T, B, P), state_n as a list of ndarray like inputs.state_0, and the reserve.
    """
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = inputs.x.shape[0], inputs.x.shape[1], packed.P
    cdef cnp.npy_intp bytes = _layout(packed, _rows(inputs.x)).bytes
    cdef cnp.ndarray output = pool._lease(3, shape, packed.type_number, cnp.PyArray_ITEMSIZE(inputs.x))
    cdef cnp.ndarray reserve = pool._lease(1, &bytes, cnp.NPY_UINT8, 1)
    cdef list state_n = empty_states(inputs.state_0)
    forward([ForwardCall(packed, 0, inputs.x, None, inputs.state_0, state_n, output, reserve)], False, num_threads)
    return output, state_n, reserve


def backward_one(Inputs inputs not None, Packed packed not None, tuple weights not None, cnp.ndarray reserve not None,
                 cnp.ndarray d_output, list d_state_n not None, bint input_gradient, int num_threads,
                 Pool pool not None):
    """The backward pass of `forward_one`.

    Returns d_x (T, B, I), or None without `input_gradient`, d_state_0, and the gradients of the weights.
    """
    cdef cnp.ndarray one, d_x = None
    cdef int itemsize = cnp.PyArray_ITEMSIZE(inputs.x)
    cdef list d_state_0 = empty_states(inputs.state_0), d_weights = []
    if input_gradient:
        d_x = pool._lease(3, cnp.PyArray_DIMS(inputs.x), packed.type_number, itemsize)
    for one in weights:
        if one is None:
            d_weights.append(None)
        else:
            d_weights.append(pool._lease(cnp.PyArray_NDIM(one), cnp.PyArray_DIMS(one), packed.type_number, itemsize))
    cdef tuple gradients = tuple(d_weights)
    call = BackwardCall(
        packed, 0, inputs.x, None, inputs.state_0, reserve, d_output, d_state_n, d_x, d_state_0, gradients
    )
    backward([call], False, num_threads)
    return d_x, d_state_0, gradients
