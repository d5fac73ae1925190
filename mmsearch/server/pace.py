"""Who goes first: searches, whatever is written meanwhile.

All threads of a process share one interpreter: a search that runs beside a write takes up to twice as long. So what is
written waits for a moment in which nobody searches, if that comes soon, and small writes are gathered.
"""

from __future__ import annotations

import math
import threading
import time

__all__ = ["Pace", "Turns"]

PATIENCE = 0.03
"""Seconds that a turn waits for a moment without a search: where searches never end, writes still go on."""

REST = 30
"""After a turn others rest for so many times as long as it computed: what comes meanwhile is done in one go."""

LONGEST = 0.1
"""Seconds of rest at most."""

LATELY = 1.0
"""Nobody rests unless there was a search in so many seconds: where nobody waits, writes are as fast as they can be."""


class Pace:
    """How many searches are in work, and when there was one last. Safe to share between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._searches = 0
        self._last = -math.inf

    def entered(self) -> None:
        """A search is in work, or waits for a thread."""
        with self._changed:
            self._searches += 1

    def left(self) -> None:
        """A search is done."""
        with self._changed:
            self._searches -= 1
            self._last = time.monotonic()
            if not self._searches:
                self._changed.notify_all()

    def calm(self) -> None:
        """Return as soon as nobody searches, or after ``PATIENCE`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._searches, PATIENCE)

    def rest(self, until: float) -> None:
        """Return at ``until`` (``time.monotonic``), or at once where there was no search ``LATELY``."""
        with self._changed:
            lately = bool(self._searches) or time.monotonic() - self._last < LATELY
        if lately and (rest := until - time.monotonic()) > 0:
            time.sleep(rest)


class Turns:
    """The turns of one thread that takes something up again and again: rest, wait for calm, compute."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._rested = 0.0

    def __enter__(self) -> None:
        self._pace.rest(self._rested)
        self._pace.calm()
        self._started = time.thread_time()

    def __exit__(self, *_: object) -> None:
        spent = time.thread_time() - self._started
        self._rested = time.monotonic() + min(REST * spent, LONGEST)
