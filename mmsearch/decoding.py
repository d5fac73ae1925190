"""How much is decoded at once: pictures are small files and large bitmaps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Room", "decoding"]


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
