# Inference. After some milliseconds of sleep the caches are empty, and the Python code of fastrnn._engine.stack takes
# longer than dozens of steps: so calls whose arrays between layers and directions are small are made here.

cdef enum:
    MOST_BYTES_BETWEEN = 1 << 20  # of all arrays between layers or directions


# Every array of a caller is replaced by a view before its shape is read, because other code may assign to the shape
# during the call: another thread, or a finalizer that runs when an object is allocated here.

cdef bint _fits(stack, cnp.ndarray rows) except -1:
    """Whether this array of the stack's dtype is an x (T, B, I) for it, with steps and sequences."""
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(rows)
    if cnp.PyArray_NDIM(rows) != 3 or shape[2] != <cnp.npy_intp>stack.I or not shape[0] or not shape[1]:
        return False
    return shape[0] <= <cnp.npy_intp>stack.most_rows // shape[1]


def plain_inputs(stack, x, padded not None):
    """The Inputs of a call without a state and lengths, whose x (T, B, I) a kernel can read in place.

    Returns None for any other x, which takes the slower way with all checks. ``padded(T, B)`` returns a layout.
    """
    if not _is_plain(x, stack.dtype):
        return None
    cdef cnp.ndarray rows = _view_of(<cnp.ndarray>x)
    if not _fits(stack, rows):
        return None
    cdef list state_0 = zero_states(stack.leading, rows.shape[1], stack.widths, stack.dtype)
    return Inputs(stack, padded(rows.shape[0], rows.shape[1]), rows, False, state_0, None, True)


cdef cnp.ndarray _empty_rows(cnp.ndarray x, Py_ssize_t columns, Pool pool):
    """An uninitialised array (T, B, columns) for x (T, B, ..), or (N, columns) for x (N, ..)."""
    cdef cnp.npy_intp shape[3]
    cdef int k, last = cnp.PyArray_NDIM(x) - 1
    for k in range(last):
        shape[k] = cnp.PyArray_DIMS(x)[k]
    shape[last] = columns
    return pool._empty(last + 1, shape, cnp.PyArray_TYPE(x), cnp.PyArray_ITEMSIZE(x))


cdef cnp.ndarray _reversed(cnp.ndarray x, PackedSequences sequences, int num_threads, Pool pool):
    """A copy of x (T, B, I), or of the rows (N, I) of these sequences, with the last step of each first."""
    cdef cnp.ndarray result = _empty_rows(x, cnp.PyArray_DIMS(x)[cnp.PyArray_NDIM(x) - 1], pool)
    if sequences is not None:
        sequences.reverse(x, result, num_threads)
        return result
    cdef const char *step = <const char *>cnp.PyArray_DATA(x)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    cdef size_t bytes = x.shape[1] * x.shape[2] * cnp.PyArray_ITEMSIZE(x)
    cdef Py_ssize_t t, T = x.shape[0]
    for t in range(T):
        memcpy(to + t * bytes, step + (T - 1 - t) * bytes, bytes)
    return result


cdef cnp.ndarray _joined(cnp.ndarray forward, cnp.ndarray backward, PackedSequences sequences, Pool pool):
    """The output (T, B, 2*P) or (N, 2*P) of both directions from those of each, in the order in which it reads."""
    cdef Py_ssize_t P = cnp.PyArray_DIMS(forward)[cnp.PyArray_NDIM(forward) - 1]
    cdef cnp.ndarray result = _empty_rows(forward, 2 * P, pool)
    cdef const char *row = <const char *>cnp.PyArray_DATA(forward)
    cdef const char *rows_back = <const char *>cnp.PyArray_DATA(backward)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    cdef size_t bytes = P * cnp.PyArray_ITEMSIZE(forward)
    cdef Py_ssize_t t, t_back, b, T, B = 0
    if sequences is None:
        T, B = forward.shape[0], forward.shape[1]
    else:
        T = sequences.rows.steps
    for t in range(T):
        if sequences is not None:
            B = sequences.rows.offsets[t + 1] - sequences.rows.offsets[t]
        for b in range(B):
            memcpy(to, row, bytes)
            if sequences is None:
                memcpy(to + bytes, rows_back + ((T - 1 - t) * B + b) * bytes, bytes)
            else:
                t_back = sequences.rows.lengths[b] - 1 - t
                memcpy(to + bytes, rows_back + (sequences.rows.offsets[t_back] + b) * bytes, bytes)
            row, to = row + bytes, to + 2 * bytes
    return result


cdef cnp.ndarray _infer(stack, list packed, cnp.ndarray x, PackedSequences sequences, tuple resets, list state_0,
                        list state_n, int num_threads, Pool pool):
    """The output (T, B, D*P) or (N, D*P) of all layers, a large one as a lease.

    x is (T, B, I), or the rows (N, I) of these sequences; `resets` has the flags of its rows as each direction reads
    them. The states are lists of ndarray (L*D, B, n), of which state_n is written.
    """
    cdef Py_ssize_t P = (<Packed>packed[0]).P
    cdef Py_ssize_t k, count = len(packed)
    cdef tuple directions = stack.directions
    cdef cnp.ndarray offsets = None if sequences is None else sequences.offsets
    cdef cnp.ndarray output, back
    cdef list calls = []
    if len(directions) == 1:
        if directions[0]:
            x = _reversed(x, sequences, num_threads, pool)
        for k in range(count):
            output = _empty_rows(x, P, pool)
            calls.append(ForwardCall(packed[k], k, x, offsets, state_0, state_n, output, None, resets[0]))
            x = output
        forward(calls, count > 1, num_threads)
        return _reversed(output, sequences, num_threads, pool) if directions[0] else output
    for k in range(0, count, 2):
        output, back = _empty_rows(x, P, pool), _empty_rows(x, P, pool)
        from_ends = _reversed(x, sequences, num_threads, pool)
        calls = [
            ForwardCall(packed[k], k, x, offsets, state_0, state_n, output, None, resets[0]),
            ForwardCall(packed[k + 1], k + 1, from_ends, offsets, state_0, state_n, back, None, resets[1]),
        ]
        forward(calls, False, num_threads)
        x = _joined(output, back, sequences, pool)
    return x


cdef bint _is_small(stack, Py_ssize_t count, Py_ssize_t T, Py_ssize_t B) except -1:
    """Whether `_infer` is for calls of this size: all layers of a direction together, and little memory between them.

    One layer is always small, unless it reads in both directions.
    """
    cdef Py_ssize_t width = max(<Py_ssize_t>stack.I, <Py_ssize_t>stack.output_width)
    if count == 1:
        return True
    if len(<tuple>stack.directions) == 1 and count > FASTRNN_MOST_CALLS:
        return False
    return T <= MOST_BYTES_BETWEEN // (count * max(1, B) * width * (<cnp.dtype>stack.dtype).itemsize)


cdef tuple NO_RESETS = (None, None)


def infer(Inputs inputs not None, list packed not None, list state_n not None, int num_threads, Pool pool not None):
    """Inference of one layer, or of several with small arrays between layers and directions.

    Writes state_n, a list of ndarray like inputs.state_0. Returns the output, (T, B, D*P), or (N, D*P) in packed
    layout, a large one as a lease; or None for a call with large arrays.
    """
    layout = inputs.layout
    cdef tuple resets = NO_RESETS
    if not _is_small(inputs.stack, len(packed), layout.T, layout.B):
        return None
    if layout.resets is not None:
        resets = tuple([layout.of_direction(reverse).resets for reverse in <tuple>inputs.stack.directions])
    return _infer(
        inputs.stack, packed, inputs.x, layout.sequences, resets, inputs.state_0, state_n, num_threads, pool
    )


cdef cnp.ndarray _by_steps(cnp.ndarray x, Pool pool):
    """A copy (T, B, I) of a contiguous x (B, T, I)."""
    cdef Py_ssize_t b, t, B = x.shape[0], T = x.shape[1]
    cdef cnp.ndarray result = _empty_rows(_with_shape(x, 3, T, B, x.shape[2]), x.shape[2], pool)
    cdef size_t bytes = x.shape[2] * cnp.PyArray_ITEMSIZE(x)
    cdef const char *row = <const char *>cnp.PyArray_DATA(x)
    cdef char *to = <char *>cnp.PyArray_DATA(result)
    for b in range(B):
        for t in range(T):
            memcpy(to + (t * B + b) * bytes, row, bytes)
            row += bytes
    return result


cdef list _plain_states(stack, state, Py_ssize_t B, int axes):
    """The arrays (L*D, B, n) of a state for an x with so many axes; None if it is not plain.

    A state is None, for zeros, an array or a tuple of several.
    """
    cdef tuple widths = stack.widths, given
    cdef Py_ssize_t k, L = stack.leading  # 0: states are (B, n)
    cdef int ndim = 2 if not L or axes == 2 else 3
    cdef cnp.npy_intp *shape
    cdef cnp.ndarray array
    cdef list states = []
    if state is None:
        return zero_states(max(L, 1), B, widths, stack.dtype)
    given = <tuple>state if type(state) is tuple else (state,)
    if len(given) != len(widths) or (len(given) > 1) != (type(state) is tuple):
        return None
    for k in range(len(widths)):
        if not _is_plain(given[k], stack.dtype):
            return None
        array = _view_of(<cnp.ndarray>given[k])
        shape = cnp.PyArray_DIMS(array)
        if cnp.PyArray_NDIM(array) != ndim or shape[0] != (L if L else B) or shape[ndim - 1] != <cnp.npy_intp>widths[k]:
            return None
        if ndim == 3 and shape[1] != B:
            return None
        states.append(_with_shape(array, 3, max(L, 1), B, shape[ndim - 1]))
    return states


cdef cnp.ndarray _plain_lengths(lengths, Py_ssize_t T, Py_ssize_t B):
    """A private array of intp of lengths that are an array of 32 or 64 bits or a list of int; None for any others."""
    cdef cnp.npy_intp size = B
    cdef cnp.ndarray given = None, result
    cdef Py_ssize_t b, *to
    cdef int64_t length
    if type(lengths) is cnp.ndarray:
        given = <cnp.ndarray>lengths
        if not cnp.PyArray_ISINTEGER(given) or cnp.PyArray_NDIM(given) != 1 or not cnp.PyArray_ISCARRAY_RO(given):
            return None
        given = _view_of(given)
        if given.shape[0] != B or cnp.PyArray_ITEMSIZE(given) not in (4, 8):
            return None
    elif type(lengths) is not list or len(<list>lengths) != B:
        return None
    result = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INTP, 0)
    to = <Py_ssize_t *>cnp.PyArray_DATA(result)
    for b in range(B):
        if given is None:
            one = (<list>lengths)[b]
            if type(one) is not int or not 0 <= one <= T:
                return None
            length = one
        elif cnp.PyArray_ITEMSIZE(given) == 4:
            length = (<const int32_t *>cnp.PyArray_DATA(given))[b]
        else:
            length = (<const int64_t *>cnp.PyArray_DATA(given))[b]
        if not 0 <= length <= T:
            return None  # also for unsigned numbers that are negative here
        to[b] = <Py_ssize_t>length
    return result


cdef bint _are_all(cnp.ndarray lengths, Py_ssize_t T) noexcept:
    """Whether each of the lengths, an array of intp, is T."""
    cdef Py_ssize_t b
    for b in range(lengths.shape[0]):
        if (<const Py_ssize_t *>cnp.PyArray_DATA(lengths))[b] != T:
            return False
    return True


@cython.freelist(8)
cdef class PlainCall:
    """The arguments of a plain call, as kernels read them, and the axes of its results."""
    cdef object stack
    cdef cnp.ndarray rows  # (T, B, I), or (N, I) of sequences
    cdef PackedSequences sequences
    cdef list state_0
    cdef int axes  # of x
    cdef bint batch_first, is_packed  # whether the caller has rows in packed layout

    cdef cnp.ndarray as_given(self, cnp.ndarray output):
        """The output (T, B, n) in the axes of x."""
        if self.axes == 2:
            return _with_shape(output, 2, output.shape[0], output.shape[2], 1)
        return <cnp.ndarray>cnp.PyArray_SwapAxes(output, 0, 1) if self.batch_first else output

    cdef cnp.ndarray state_as_given(self, cnp.ndarray state):
        """A state (L*D, B, n) in the axes of the caller."""
        if self.axes == 2:
            return _with_shape(state, 2, state.shape[0], state.shape[2], 1)
        return state if self.stack.leading else _with_shape(state, 2, state.shape[1], state.shape[2], 1)

    cdef tuple run(self, list packed, int num_threads, Pool pool):
        """The output and a list of the states after, in the axes of the caller."""
        cdef list state_n = empty_states(self.state_0)
        cdef cnp.ndarray output = _infer(
            self.stack, packed, self.rows, self.sequences, NO_RESETS, self.state_0, state_n, num_threads, pool
        )
        if self.sequences is not None:
            if not self.is_packed:
                output = self.sequences.padded(output, num_threads, pool)
            state_n = [self.sequences.reordered(one, True) for one in state_n]
        return self.as_given(output), [self.state_as_given(one) for one in state_n]


cdef PlainCall _plain_call(stack, Py_ssize_t count, x, state, lengths, bint batch_first, int num_threads, Pool pool):
    """The call of so many directions of layers with the arguments of a caller; None if one of them is not plain."""
    cdef PlainCall call = PlainCall.__new__(PlainCall)
    cdef cnp.ndarray given, rows, steps
    if not _is_plain(x, stack.dtype):
        return None
    given = rows = _view_of(<cnp.ndarray>x)
    cdef int axes = cnp.PyArray_NDIM(given)
    if axes == 2 and stack.leading:
        rows = _with_shape(given, 3, given.shape[0], 1, given.shape[1])
    elif axes == 3 and batch_first:
        rows = _with_shape(given, 3, given.shape[1], given.shape[0], given.shape[2])
    if not _fits(stack, rows) or not _is_small(stack, count, rows.shape[0], rows.shape[1]):
        return None
    cdef Py_ssize_t T = rows.shape[0], B = rows.shape[1]
    if lengths is not None:
        steps = _plain_lengths(lengths, T, B)
        if steps is None or axes == 2:
            return None
        if not _are_all(steps, T):
            call.sequences = PackedSequences.of(T, steps)
    call.state_0 = _plain_states(stack, state, B, axes)
    if call.state_0 is None:
        return None
    if call.sequences is not None:
        if batch_first:
            given = <cnp.ndarray>cnp.PyArray_SwapAxes(given, 0, 1)
        rows = call.sequences.packed(given, num_threads, pool)
        if state is not None:
            call.state_0 = [call.sequences.reordered(one, False) for one in call.state_0]
    elif axes == 3 and batch_first and T > 1 and B > 1:
        rows = _by_steps(given, pool)
    call.stack, call.rows, call.axes, call.batch_first = stack, rows, axes, batch_first
    return call


cdef PlainCall _packed_call(stack, Py_ssize_t count, x, PackedSequences sequences, state):
    """The same for rows x (N, I) of these sequences."""
    cdef PlainCall call = PlainCall.__new__(PlainCall)
    if not _is_plain(x, stack.dtype):
        return None
    cdef cnp.ndarray rows = _view_of(<cnp.ndarray>x)
    if cnp.PyArray_NDIM(rows) != 2 or rows.shape[1] != <cnp.npy_intp>stack.I:
        return None
    if rows.shape[0] > <cnp.npy_intp>stack.most_rows or rows.shape[0] != sequences.rows.offsets[sequences.rows.steps]:
        return None
    if not _is_small(stack, count, sequences.rows.T, sequences.rows.B):
        return None
    call.state_0 = _plain_states(stack, state, sequences.rows.B, 3)
    if call.state_0 is None:
        return None
    if state is not None:
        call.state_0 = [sequences.reordered(one, False) for one in call.state_0]
    call.stack, call.rows, call.sequences, call.axes, call.is_packed = stack, rows, sequences, 3, True
    return call


cdef tuple _results_of(PlainCall call, frozen, list weights, int num_threads, str isa, Pool pool):
    """The output and the state after, with the packed weights of a frozen layer, or else with weights packed here."""
    cdef list packed = pack(call.stack.kernel, weights, False, num_threads, isa, pool) if frozen is None else frozen
    cdef tuple results = _results(call.run(packed, num_threads, pool))
    if frozen is None:
        pool.give_back_all(packed)
    return results


def infer_plain(stack, x, state, lengths, list frozen, list weights not None, bint batch_first, int num_threads,
                str isa not None, Pool pool not None):
    """The results of a call of a layer for plain arrays.

    Parameters
    ----------
    x : object
    state : object
        None, an array, or a tuple of several.
    lengths : object
        None, an array of 32 or 64 bits, or a list of int.
    frozen : list of Packed, or None
        The weights, packed. None: `weights` are packed for this call.
    weights : list of tuple

    Returns
    -------
    results : tuple or None
        The output and the state after, in the axes of x; None for other arguments.
    """
    cdef PlainCall call = _plain_call(stack, len(weights), x, state, lengths, batch_first, num_threads, pool)
    return None if call is None else _results_of(call, frozen, weights, num_threads, isa, pool)


def infer_step(stack, x, state, list frozen, list weights not None, int num_threads, str isa not None,
               Pool pool not None):
    """The state after a step of a cell for plain arrays: x (B, I), and a state that is None, an array or a tuple.

    `frozen` and `weights` are those of `infer_plain`. Returns an array (B, n) or a tuple of several; None for other
    arguments.
    """
    if not _is_plain(x, stack.dtype):
        return None
    cdef cnp.ndarray given = _view_of(<cnp.ndarray>x)
    if cnp.PyArray_NDIM(given) != 2:
        return None
    given = _with_shape(given, 3, 1, given.shape[0], given.shape[1])
    cdef PlainCall call = _plain_call(stack, 1, given, state, None, False, num_threads, pool)
    return None if call is None else _results_of(call, frozen, weights, num_threads, isa, pool)[1]


cdef tuple _results(tuple found):
    """An output and a list of states as a caller gets them."""
    cdef list states = <list>found[1]
    return found[0], states[0] if len(states) == 1 else tuple(states)


cdef enum:
    MOST_KNOWN = 4096  # stacks
    MOST_OPTIONS = 8
    MOST_NUMBERS = 64


cdef int _weights_key(spec, tuple options, reverse, tuple weights, cnp.npy_intp *key) except -1:
    """Write a key of the addresses of the specification and of its options, and of the type and shapes of weights.

    Returns how many numbers were written to `key`, at most MOST_NUMBERS; 0 for weights that a kernel cannot read in
    place. None may be among them.
    """
    cdef int type_number = -1, k, ndim, n = 3
    cdef cnp.ndarray array
    if len(options) > MOST_OPTIONS:
        return 0
    key[0], key[1] = <cnp.npy_intp><void *>spec, <cnp.npy_intp><void *>reverse
    for option in options:
        key[n] = <cnp.npy_intp><void *>option
        n += 1
    for one in weights:
        if one is None:
            if n == MOST_NUMBERS:
                return 0
            key[n] = -1
            n += 1
            continue
        if type(one) is not cnp.ndarray:
            return 0
        array = <cnp.ndarray>one
        if type_number < 0:
            type_number = cnp.PyArray_TYPE(array)
            if type_number != cnp.NPY_FLOAT and type_number != cnp.NPY_DOUBLE:
                return 0
        ndim = cnp.PyArray_NDIM(array)
        if (
            cnp.PyArray_TYPE(array) != type_number or not cnp.PyArray_ISCARRAY_RO(array)
            or n + 1 + ndim > MOST_NUMBERS
        ):
            return 0
        key[n] = ndim
        for k in range(ndim):
            key[n + 1 + k] = cnp.PyArray_DIMS(array)[k]
        n += 1 + ndim
    key[2] = type_number
    return n


cdef class KnownWeights:
    """The stacks of weights and options that have been checked, of functions of one direction of one layer.

    A stack is found by the type and shapes of the weights, and by the options themselves: the same objects, which are
    immutable, so nothing is compared, and no code of a caller runs. At most MOST_KNOWN stacks are remembered.
    """
    cdef dict known  # key to (stack, the objects whose addresses are in the key)
    cdef tuple last  # (key, stack) of the latest find

    def __cinit__(self):
        self.known = {}

    cdef object find(self, spec, tuple options, reverse, tuple weights, fastrnn_weights *w):
        """The stack, or None if the weights are not plain arrays or not known; fills w.

        No code of a caller may run between the shapes and the pointers, so no object is allocated that the collection
        of garbage tracks.
        """
        cdef cnp.npy_intp numbers[MOST_NUMBERS]
        cdef tuple last = self.last
        cdef bytes key
        cdef size_t size = _weights_key(spec, options, reverse, weights, numbers) * sizeof(cnp.npy_intp)
        if size == 0:
            return None
        if last is not None:
            key = <bytes>last[0]
            if <size_t>len(key) == size and memcmp(<const char *>key, numbers, size) == 0:
                _weights(w, <Kernel?>last[1].kernel, weights)
                return last[1]
        key = (<char *>numbers)[:size]
        found = self.known.get(key)
        if found is None:
            return None
        _weights(w, <Kernel?>found[0].kernel, weights)
        self.last = key, found[0]
        return found[0]

    def add(self, spec, tuple options not None, reverse, tuple weights not None, stack):
        """Remember the stack of checked weights and options, the latter as callers gave them."""
        cdef cnp.npy_intp numbers[MOST_NUMBERS]
        cdef size_t size = _weights_key(spec, options, reverse, weights, numbers) * sizeof(cnp.npy_intp)
        for option in (*options, reverse):
            if option is not None and type(option) not in (bool, int, float, str):
                return  # it may change
        if size and len(self.known) < MOST_KNOWN:
            self.known[(<char *>numbers)[:size]] = stack, spec, options, reverse

    def infer(self, spec, tuple arguments not None, int num_threads, str isa not None, Pool pool not None):
        """The results of a function for plain arrays whose shapes are known, without resets.

        Parameters
        ----------
        arguments : tuple (x, state, weights, options, lengths, resets, reverse)
            As callers give them.

        Returns
        -------
        results : tuple or None
            output, (T, B, P), and state_n: an array (B, n), or a tuple of several. None for other arguments.
        """
        x, state, weights, options, lengths, resets, reverse = arguments
        if resets is not None:
            return None
        cdef fastrnn_weights w
        stack = self.find(spec, options, reverse, weights, &w)
        if stack is None:
            return None
        cdef int type_number = (<cnp.dtype>stack.dtype).num
        cdef PlainCall call = _plain_call(stack, 1, x, state, lengths, False, num_threads, pool)
        if call is None:
            return None
        cdef Packed packed = _pack(_find(isa), &w, type_number, False, num_threads, pool)
        results = _results(call.run([packed], num_threads, pool))
        pool.give_back(packed)
        return results

    cpdef tuple pack(self, spec, tuple options, reverse, tuple weights, bint training, int num_threads, str isa,
                     Pool pool, x=None, padded=None):
        """Pack plain arrays whose shapes are known, one direction of one layer, without a conversion or a check.

        The shapes and pointers are read without running Python code in between, so that no view is needed.

        Parameters
        ----------
        x, padded
            As for `plain_inputs`, for a call without a state and lengths.

        Returns
        -------
        found : tuple or None
            The Inputs, or without x the Stack; the weights packed for forward; and with `training` those packed for
            backward, else None; each a list of one. None if the arrays are not plain or not known.
        """
        cdef fastrnn_weights w
        stack = self.find(spec, options, reverse, weights, &w)
        if stack is None:
            return None
        cdef int type_number = (<cnp.dtype>stack.dtype).num
        first = stack
        if padded is not None:
            first = plain_inputs(stack, x, padded)
            if first is None:
                return None
        cdef const fastrnn_isa *kernels = _find(isa)
        cdef Packed for_backward = None
        if training:
            for_backward = _pack(kernels, &w, type_number, True, num_threads, pool)
        return first, [_pack(kernels, &w, type_number, False, num_threads, pool)], [for_backward]
