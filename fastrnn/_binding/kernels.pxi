# The cells with their options, the weight formats, and the functions of a cell by themselves.

# Narrow formats: name to number, and the type number of their weights in NumPy to number.
cdef dict _formats = {}
cdef dict _formats_of_types = {}


def _narrow_formats():
    """The narrow formats of the library: name to the fields of `Format` from `dtype` to `most_columns`."""
    cdef fastrnn_format_properties properties
    cdef dict result = {}
    for number in range(FASTRNN_NATIVE + 1, FASTRNN_FORMATS):
        properties = fastrnn_format_at(<fastrnn_format><int>number)
        name, dtype = properties.name.decode(), np.dtype(properties.numbers.decode())
        _formats[name] = _formats_of_types[dtype.num] = number
        result[name] = dtype, bool(properties.has_scales), bool(properties.rounds_projection), properties.most_columns
    return result


NARROW_FORMATS = _narrow_formats()


def narrow_instructions(str isa not None):
    """The instructions that this processor can use for each narrow format: name to list of str, the fastest first."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef const char *name
    cdef dict result = {}
    cdef int index
    for format_name, format_number in _formats.items():
        result[format_name] = []
        index = 0
        while True:
            name = fastrnn_narrow_instructions(kernels, format_number, index)
            if name == NULL:
                break
            result[format_name].append(name.decode())
            index += 1
    return result


def round_weight(str name not None, cnp.ndarray weight not None, cnp.ndarray values not None, cnp.ndarray scales,
                 int num_threads):
    """Round a weight (rows, columns), float32, to a narrow format: values written, and scales if the format has them.

    Raises a ValueError, whose message lacks the name of the weight, if the format cannot express a number of it.
    """
    cdef fastrnn_format narrow = _formats[name]
    cdef Py_ssize_t rows = weight.shape[0], columns = weight.shape[1]
    cdef const float *source = <const float *>_readable(weight, cnp.NPY_FLOAT)
    cdef void *numbers = _writable(values, NARROW_FORMATS[name][0].num)
    cdef float *of_rows = <float *>_writable(scales, cnp.NPY_FLOAT)
    cdef fastrnn_fit fit
    _same_size(weight, (values,))
    if fastrnn_format_at(narrow).has_scales and (of_rows == NULL or cnp.PyArray_SIZE(scales) != rows):
        raise ValueError(f"scales: expected {rows} numbers")
    with nogil:
        fit = fastrnn_round_weight(narrow, rows, columns, source, numbers, of_rows, num_threads)
    if fit == FASTRNN_NOT_FINITE:
        raise ValueError(f"has a number that is not finite, which {name} cannot express")
    if fit == FASTRNN_TOO_LARGE:
        raise ValueError(f"has a number that is too large for {name}")


cdef fastrnn_cell _cell(str name) except -1:
    """The cell of a name; raises a ValueError for an unknown one."""
    cdef bytes encoded = name.encode()
    cdef fastrnn_cell cell = fastrnn_find_cell(encoded)
    if cell < 0:
        raise ValueError(f"cell: no cell is named {name!r}")
    return cell


cdef dict _recurrent_activations = {
    "sigmoid": FASTRNN_SIGMOID, "hard_sigmoid_fifth": FASTRNN_HARD_SIGMOID_FIFTH,
    "hard_sigmoid_sixth": FASTRNN_HARD_SIGMOID_SIXTH,
}
cdef dict _activations = {"tanh": FASTRNN_TANH, "relu": FASTRNN_RELU}


cdef class Kernel:
    """A cell in C with the options of its activations.

    Parameters
    ----------
    name : str
    recurrent_activation : {"sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"}
    activation : {"tanh", "relu"}
    clip : float or None
    """
    cdef readonly str name
    cdef fastrnn_cell cell
    cdef fastrnn_options options

    def __init__(self, str name not None, str recurrent_activation="sigmoid", str activation="tanh", clip=None):
        self.name, self.cell = name, _cell(name)
        self.options.recurrent_activation = _recurrent_activations[recurrent_activation]
        self.options.activation = _activations[activation]
        self.options.clip = 0 if clip is None else clip


cdef dict _functions = {
    "sigmoid": FASTRNN_ACTIVATE_SIGMOID, "tanh": FASTRNN_ACTIVATE_TANH, "log_sigmoid": FASTRNN_ACTIVATE_LOG_SIGMOID,
}


def activate(str function not None, cnp.ndarray x not None, cnp.ndarray y not None, str isa not None):
    """Write y = sigmoid(x), tanh(x) or log_sigmoid(x), as the cells compute them."""
    cdef const fastrnn_isa *kernels = _find(isa)
    cdef fastrnn_function number = _functions[function]
    cdef int type_number = _type_of(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    cdef const void *source = _readable(x, type_number)
    cdef void *result = _writable(y, type_number)
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"y: expected ({x.shape[0]},), got ({y.shape[0]},)")
    with nogil:
        fastrnn_activate(kernels, _dtype(type_number), number, n, source, result)
