"""How much is decoded at once: pictures are small files and large bitmaps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Room", "decoding", "give_back_memory"]


class Room:
    """Lets threads in as long as ``most`` pixels hold all of them, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def __call__(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for a picture; one that is larger than all the room has it for itself."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify()  # only the one whose turn it is waits here


decoding = Room(120_000_000)
"""For whoever decodes pictures on many threads: a pixel takes 4 bytes, and as much again while it is converted."""


def give_back_memory() -> None:
    """Have this process return memory to the system when it is freed, where it runs on glibc.

    Left to itself glibc keeps blocks of up to 32 MB for the thread that freed them: with 16 threads that decode, what
    few pictures need at a time stays taken 16 times, and each copy of a collection's vectors leaves a hole. Call it
    before threads are started.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # musl has none, and needs none
            for setting, value in _ALLOCATOR.items():
                library.mallopt(setting, value)


_ALLOCATOR = {
    -3: 4
    << 20,  # M_MMAP_THRESHOLD: larger blocks are the system's; Pillow asks for 16 MB, arrays of a search for less
    -1: 16 << 20,  # M_TRIM_THRESHOLD: so much that is free at the end is kept
    -8: 2,  # M_ARENA_MAX: threads share two heaps, because nothing that one leaves in its own is of use to others
}
"""By the numbers of ``malloc.h``."""
