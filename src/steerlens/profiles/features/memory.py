"""Memory that was freed, given back to the system, so that a long loop over batches holds as much as a short one.

glibc keeps what a batch freed for later use. Tensors of changing sizes leave gaps there that the next batch does not
fill, and the process grows although its tensors do not.
"""

import ctypes


def give_back_freed() -> None:
    """Gives freed memory back to the system; does nothing where the C library has no `malloc_trim` (not glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
