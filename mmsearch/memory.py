"""Memory of a process that runs for long: given back to the system, where it runs on glibc (musl needs none of it).

Left to itself glibc keeps blocks of up to 32 MB for the thread that freed them: with 16 threads that decode, what few
pictures need at a time stays taken 16 times, each copy of a collection's vectors leaves a hole, and among blocks that
come and go in all sizes free pages pile up: 27 MB an hour in a server that holds 325.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

__all__ = ["set_up_allocator", "trim"]

_ALLOCATOR = {
    # M_MMAP_THRESHOLD: larger blocks are the system's. Pillow asks for 16 MB, arrays of a search for less.
    -3: 4 << 20,
    # M_TRIM_THRESHOLD: so much that is free at the end is kept.
    -1: 16 << 20,
    # M_ARENA_MAX: threads share two heaps, because nothing that one leaves in its own is of use to others.
    -8: 2,
}
"""By the numbers of ``malloc.h``."""


def set_up_allocator() -> None:
    """Have large blocks returned as soon as they are freed, and small ones shared. Call it before threads start."""
    if (library := _glibc()) is not None:
        for setting, value in _ALLOCATOR.items():
            library.mallopt(setting, value)


def trim() -> None:
    """Return free pages, wherever they are: some milliseconds in which other threads may wait for memory."""
    if (library := _glibc()) is not None:
        library.malloc_trim(ctypes.c_size_t(0))


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        with contextlib.suppress(AttributeError):
            if library.mallopt and library.malloc_trim:
                return library
    return None
