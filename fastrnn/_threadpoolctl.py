"""`threadpoolctl` limits the threads of fastrnn, too."""

import sys
from types import ModuleType

from fastrnn import _threads
from fastrnn._version import __version__

__all__ = ["register_threadpoolctl"]


class _Default(int):
    """The default number of threads at one time. Passed to `set_num_threads` below, it restores the default."""

    __slots__ = ()


def _controller(threadpoolctl):
    class FastrnnController(threadpoolctl.LibController):  # type: ignore[name-defined, misc]
        """Lets threadpoolctl find fastrnn's extension module, by its name and a symbol, and set its threads."""

        user_api = "fastrnn"
        internal_api = "fastrnn"
        filename_prefixes = ("_core",)
        check_symbols = ("fastrnn_has_threads",)

        def get_num_threads(self):
            number = _threads.get_num_threads()
            return number if _threads._num_threads else _Default(number)

        def set_num_threads(self, num_threads):
            if isinstance(num_threads, _Default):
                _threads._num_threads = None
            else:
                _threads.set_num_threads(min(max(int(num_threads), 1), _threads.MOST_THREADS))

        def get_version(self):
            return __version__

    return FastrnnController


_registered_with: ModuleType | None = None


def _register(threadpoolctl: ModuleType) -> None:
    global _registered_with
    if _registered_with is not threadpoolctl:
        threadpoolctl.register(_controller(threadpoolctl))
        _registered_with = threadpoolctl


def register_threadpoolctl() -> None:
    """Let `threadpoolctl` limit the threads of fastrnn.

    ``threadpoolctl.threadpool_limits(1)`` then limits fastrnn along with BLAS and OpenMP, and
    ``threadpool_limits(1, user_api="fastrnn")`` fastrnn alone. `import fastrnn` does this by itself where threadpoolctl
    was imported before; this function does it where fastrnn came first. A second call has no effect.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed, or older than 3.2.

    See Also
    --------
    set_num_threads : limits the threads of fastrnn without threadpoolctl.

    Examples
    --------
    >>> import fastrnn
    >>> import threadpoolctl
    >>> fastrnn.register_threadpoolctl()
    >>> with threadpoolctl.threadpool_limits(1):
    ...     fastrnn.get_num_threads()
    1
    """
    import threadpoolctl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if not hasattr(threadpoolctl, "register"):
        raise ImportError(f"threadpoolctl {threadpoolctl.__version__}: fastrnn needs 3.2 or newer")
    _register(threadpoolctl)


def register_if_imported() -> None:
    """The same where a threadpoolctl that can register has been imported already."""
    threadpoolctl = sys.modules.get("threadpoolctl")
    if threadpoolctl and hasattr(threadpoolctl, "register"):
        _register(threadpoolctl)
