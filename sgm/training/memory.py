"""Memory that a process keeps."""

import ctypes
import platform

# Of malloc.h, with values that give nothing back to Linux: no block is mapped for itself (M_MMAP_MAX), the end of the
# heap is not cut off (M_TRIM_THRESHOLD), and every thread takes from the same heap (M_ARENA_MAX).
_KEPT = {-4: 0, -1: -1, -8: 1}


def keep_memory() -> bool:
    """Keep the memory of this process from one training step to the next, on Linux with glibc.

    XLA's CPU backend asks for the memory of a step when the step begins, and gives it back at its end. By default glibc
    passes both on to Linux, which fills every page with zeros anew. The command line calls this; call it in a program
    of your own before the first array is made, after which other threads have heaps of their own. What the process has
    once used it then keeps until its end.

    Returns:
        Whether memory is kept: False where the C library is not glibc.

    Example:
        >>> kept = keep_memory()

    Reference:
        mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all([library.mallopt(name, value) for name, value in _KEPT.items()])
