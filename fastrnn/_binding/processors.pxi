# Instruction sets, processors, and the team of threads.

def instruction_sets():
    """The instruction sets built in, the slowest first: name to whether this processor runs it."""
    names = {}
    cdef int index = 0
    while fastrnn_isa_at(index) != NULL:
        names[fastrnn_isa_name(fastrnn_isa_at(index)).decode()] = fastrnn_isa_is_supported(fastrnn_isa_at(index))
        index += 1
    return names


def compiler():
    return fastrnn_compiler().decode()


def has_threads():
    """Whether the kernels were built with helper threads."""
    return fastrnn_has_threads()


def processors():
    """The numbers of logical processors and of cores that this thread may use now."""
    cdef fastrnn_processors_count count = fastrnn_count_processors(fastrnn_clock())
    return count.logical, count.cores


cdef dict _policies = {"adaptive": FASTRNN_ADAPTIVE, "patient": FASTRNN_PATIENT, "erratic": FASTRNN_ERRATIC}


def team_policy(str policy not None):
    """Set how calls treat their helper threads (see runtime/team.h), for tests."""
    fastrnn_team_policy(_policies[policy])


def set_lender(size_t start, size_t end, size_t most):
    """Set the OpenMP that lends its threads: addresses of GOMP_parallel_start, GOMP_parallel_end, omp_get_max_threads.

    The library that contains them must stay loaded.
    """
    cdef fastrnn_lender lender
    lender.start = <void (*)(void (*)(void *) noexcept, void *, unsigned) noexcept> <void *> start
    lender.end = <void (*)() noexcept> <void *> end
    lender.most = <int (*)() noexcept> <void *> most
    fastrnn_set_lender(&lender)


def borrow_threads(bint on):
    """Set whether calls of this Python thread borrow the threads of the lender; returns the previous setting."""
    return bool(fastrnn_borrow_threads(on))


def borrowed_shares():
    """The number of shares of phases that borrowed threads have computed."""
    return fastrnn_borrowed_shares()


cdef dict _isa_indices = {name: index for index, name in enumerate(instruction_sets())}


cdef const fastrnn_isa *_find(str name) except NULL:
    """An instruction set; its name may be followed by "+" and instructions for narrow formats."""
    index = _isa_indices.get(name)
    if index is None:
        index = _isa_indices.get(name.partition("+")[0])
    if index is None:
        raise ValueError(f"isa: no instruction set is named {name!r}")
    return fastrnn_isa_at(index)
