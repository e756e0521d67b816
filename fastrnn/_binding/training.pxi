# A fully connected layer and losses.

def linear(cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias, cnp.ndarray y not None,
           int num_threads, str isa not None):
    """Write y (N, O) = x (N, I) weight (O, I)^T + bias (O), or None for zeros."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(weight)
    cdef fastrnn_linear_args args
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_status status
    args.N, args.I, args.O = x.shape[0], weight.shape[1], weight.shape[0]
    args.x, args.weight, args.bias = (
        _readable(x, type_number), _readable(weight, type_number), _readable(bias, type_number)
    )
    args.y = _writable(y, type_number)
    workspace.in_use = True
    with nogil:
        status = fastrnn_linear(kernels, _dtype(type_number), &args, workspace.pointer, interruption, num_threads)
    workspace.in_use = False
    workspace.check(status)


def linear_backward(cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray d_y not None, cnp.ndarray d_x,
                    cnp.ndarray d_weight not None, cnp.ndarray d_bias, int num_threads, str isa not None):
    """Write d_x (N, I), d_weight (O, I) and d_bias (O), each of the first and the last if it is not None."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(weight)
    cdef fastrnn_linear_back_args args
    cdef Workspace workspace = _workspace()
    cdef const fastrnn_interruption *interruption = workspace.interruption()
    cdef fastrnn_status status
    args.N, args.I, args.O = x.shape[0], weight.shape[1], weight.shape[0]
    args.x, args.weight, args.d_y = (
        _readable(x, type_number), _readable(weight, type_number), _readable(d_y, type_number)
    )
    args.d_x, args.d_weight = _writable(d_x, type_number), _writable(d_weight, type_number)
    args.d_bias = _writable(d_bias, type_number)
    workspace.in_use = True
    with nogil:
        status = fastrnn_linear_backward(
            kernels, _dtype(type_number), &args, workspace.pointer, interruption, num_threads
        )
    workspace.in_use = False
    workspace.check(status)


def mark_ignored(cnp.ndarray targets not None, Py_ssize_t C, int64_t ignored):
    """Replaces the ignored ones of targets (N,) of int64 by -1; returns the number of the others, and the row of the
    first that is not 0 to C - 1, or -1."""
    cdef int64_t *target = <int64_t *>_writable(targets, cnp.NPY_INT64)
    cdef Py_ssize_t n, N = targets.shape[0], count = 0, wrong = -1
    with nogil:
        for n in range(N):
            if target[n] == ignored:
                target[n] = -1
            elif 0 <= target[n] < C:
                count += 1
            else:
                wrong = n
                break
    return count, wrong


cdef double *_doubles(cnp.ndarray sums) except? NULL:
    return <double *>_writable(sums, cnp.NPY_DOUBLE)


def softmax_cross_entropy(cnp.ndarray logits not None, cnp.ndarray targets not None, double factor,
                          cnp.ndarray d not None, cnp.ndarray losses not None, int num_threads, str isa not None):
    """The sum of the losses of rows (N, C), a float; d (N, C) and losses (N,) of float64 written."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(logits)
    cdef Py_ssize_t N = logits.shape[0], C = logits.shape[1]
    cdef const void *rows = _readable(logits, type_number)
    cdef void *gradient = _writable(d, type_number)
    cdef double *of_rows = _doubles(losses)
    cdef const int64_t *of_targets
    cdef double result
    if cnp.PyArray_TYPE(targets) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(targets):
        raise ValueError(f"a kernel cannot read targets of {targets.dtype} as they lie in memory")
    of_targets = <const int64_t *>cnp.PyArray_DATA(targets)
    with nogil:
        result = fastrnn_softmax_cross_entropy(
            kernels, _dtype(type_number), N, C, rows, of_targets, factor, gradient, of_rows, num_threads
        )
    return result


def squared_error(cnp.ndarray prediction not None, cnp.ndarray target not None, double factor, cnp.ndarray d not None,
                  int num_threads, str isa not None):
    """The sum of (prediction - target)^2, a float; d written: 2 * factor * (prediction - target)."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(prediction)
    cdef Py_ssize_t n = _same_size(prediction, (target, d))
    cdef const void *predicted = _readable(prediction, type_number)
    cdef const void *wanted = _readable(target, type_number)
    cdef void *gradient = _writable(d, type_number)
    cdef cnp.ndarray memory = _sums_of_blocks(n)
    cdef double *sums = _doubles(memory)
    cdef double result
    with nogil:
        result = fastrnn_squared_error(
            kernels, _dtype(type_number), n, predicted, wanted, factor, gradient, sums, num_threads
        )
    return result


cdef cnp.ndarray _sums_of_blocks(Py_ssize_t n):
    """Memory for the sums of blocks of n numbers."""
    cdef cnp.npy_intp blocks = n // FASTRNN_SQUARES_BLOCK + 1
    return cnp.PyArray_EMPTY(1, &blocks, cnp.NPY_DOUBLE, 0)


# Optimizers. The arrays of a step have one shape.

cdef Py_ssize_t _same_size(cnp.ndarray first, tuple others) except -1:
    cdef Py_ssize_t n = cnp.PyArray_SIZE(first)
    cdef cnp.ndarray other
    for other in others:
        if other is not None and cnp.PyArray_SIZE(other) != n:
            raise ValueError(f"expected {n} numbers, got {cnp.PyArray_SIZE(other)}")
    return n


def sgd_step(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray buffer, double rate, double momentum,
             double dampening, double weight_decay, bint nesterov, bint is_first, int num_threads, str isa not None):
    """One step of SGD, in place: p and buffer (None without momentum) are written."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(p)
    cdef Py_ssize_t n = _same_size(p, (g, buffer))
    cdef fastrnn_sgd options
    cdef void *parameters = _writable(p, type_number)
    cdef void *velocities = _writable(buffer, type_number)
    cdef const void *gradients = _readable(g, type_number)
    options.rate, options.momentum, options.dampening, options.weight_decay = rate, momentum, dampening, weight_decay
    options.nesterov, options.is_first = nesterov, is_first
    with nogil:
        fastrnn_sgd_step(kernels, _dtype(type_number), &options, n, parameters, gradients, velocities, num_threads)


def adam_step(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray m not None, cnp.ndarray v not None,
              int64_t step, double rate, double beta_1, double beta_2, double eps, double weight_decay, bint decoupled,
              int num_threads, str isa not None):
    """One step of Adam, or of AdamW if `decoupled`, in place: p, m and v are written. The first step is 1."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(p)
    cdef Py_ssize_t n = _same_size(p, (g, m, v))
    cdef fastrnn_adam options
    cdef void *parameters = _writable(p, type_number)
    cdef void *first = _writable(m, type_number)
    cdef void *second = _writable(v, type_number)
    cdef const void *gradients = _readable(g, type_number)
    options.rate, options.beta_1, options.beta_2, options.eps = rate, beta_1, beta_2, eps
    options.weight_decay, options.decoupled, options.step = weight_decay, decoupled, step
    with nogil:
        fastrnn_adam_step(
            kernels, _dtype(type_number), &options, n, parameters, gradients, first, second, num_threads
        )


def scale(cnp.ndarray array not None, double factor, int num_threads, str isa not None):
    """array *= factor, in place."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(array)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef void *data = _writable(array, type_number)
    with nogil:
        fastrnn_scale(kernels, _dtype(type_number), n, factor, data, num_threads)


def sum_squares(cnp.ndarray array not None, int num_threads, str isa not None):
    """The sum of the squares of all numbers, a float, added in double precision in an order that the size decides."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef int type_number = _type_of(array)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(array)
    cdef const void *data = _readable(array, type_number)
    cdef cnp.ndarray sums = _sums_of_blocks(n)
    cdef double *of_blocks = _doubles(sums)
    cdef double result
    with nogil:
        result = fastrnn_sum_squares(kernels, _dtype(type_number), n, data, of_blocks, num_threads)
    return result
