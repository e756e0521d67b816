# The workspace of calls, one for each Python thread, and the signals that interrupt a call.

cdef class Workspace:
    cdef fastrnn_workspace *pointer
    cdef fastrnn_interruption signals
    cdef object error  # the exception that interrupted the call
    cdef bint in_use

    def __cinit__(self):
        self.signals.should_cancel, self.signals.context = _signalled, <void *>self
        self.pointer = fastrnn_workspace_create()
        if self.pointer == NULL:
            raise MemoryError("no memory for a workspace")

    def __dealloc__(self):
        fastrnn_workspace_free(self.pointer)

    cdef const fastrnn_interruption *interruption(self) noexcept nogil:
        """The interruption of a call: NULL except in the main thread, because Python handles signals nowhere else.

        A daemon thread must not take the GIL once the interpreter has ended: it has no thread state then, and the
        process would die.
        """
        return &self.signals if PyThread_get_thread_ident() == _main_thread else NULL

    cdef int check(self, fastrnn_status status) except -1:
        if status == FASTRNN_INTERRUPTED:
            error, self.error = self.error, None
            raise error
        if status != FASTRNN_OK:
            raise MemoryError("no memory for the kernels' weights or workspace")
        return 0


_of_this_thread = threading.local()


cdef Workspace _workspace():
    """The workspace of this thread; a new one within a call, because signal handlers may make calls, too."""
    cdef Workspace workspace
    try:
        workspace = _of_this_thread.workspace
    except AttributeError:
        workspace = _of_this_thread.workspace = Workspace()
    return Workspace() if workspace.in_use else workspace


cdef int _signalled(void *context) noexcept with gil:
    """Run the handlers of pending signals; an exception of a handler, such as KeyboardInterrupt, cancels the call."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<Workspace>context).error = error
        return 1
    return 0


cdef unsigned long _main_thread = threading.main_thread().ident


def _after_fork():
    """Make the thread that forked the main thread of the child, whose only thread it is."""
    global _main_thread
    _main_thread = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
