"""Where requests are worked on: a bounded number at once, a bounded number waiting, none without an end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mmsearch.server.options import Options
from mmsearch.server.pace import Pace
from mmsearch.server.problems import Problem

__all__ = ["Work"]

logger = logging.getLogger("mmsearch.server")

_T = TypeVar("_T")

MEDIA_THREADS = 2

SEEN = 1.0
"""Seconds that a write is waited for until searches see it."""


class _Pool:
    """Some threads, and how many requests they are on or have before them: ``most`` at most."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self.threads = ThreadPoolExecutor(threads, name)
        self.most = threads + waiting
        self.inside = 0
        self._lock = threading.Lock()

    def submit(self, do: Callable[[], _T]) -> Future[_T]:
        with self._lock:
            if self.inside >= self.most:
                raise Problem(
                    503, "too many requests wait already; try again in a moment", {"Retry-After": "1"}
                )
            self.inside += 1
        future = self.threads.submit(do)
        future.add_done_callback(self._left)
        return future

    def _left(self, _: Future[Any]) -> None:
        with self._lock:
            self.inside -= 1


class Work:
    """Threads for searches, one for writes, and some for pictures and speech, so that none keeps another waiting: a
    small copy may have to be fetched from a slow host first. ``pace`` is told of searches. ``wrote`` is called after a
    write; what it returns is done when searches see it.
    """

    def __init__(self, options: Options, pace: Pace, wrote: Callable[[], Future[None]]) -> None:
        self._timeout = options.timeout
        self._pace = pace
        self._wrote = wrote
        self._pools = {
            "search": _Pool("search", options.workers, options.waiting),
            "write": _Pool("write", 1, 4 * options.waiting),  # updates are gathered while they wait
            "media": _Pool("media", MEDIA_THREADS, options.waiting),
        }

    async def search(self, do: Callable[[], _T]) -> _T:
        """What ``do`` returns, on a search thread. Raises ``Problem`` 503 if too many wait or it takes too long."""
        return await self._run("search", do)

    async def write(self, do: Callable[[], _T]) -> _T:
        """The same on the thread that writes, answered when searches see what was written.

        A write that takes too long is answered 503 and goes on.
        """
        told = await self._run("write", do)
        await asyncio.wait([asyncio.wrap_future(self._wrote())], timeout=SEEN)
        return told

    async def media(self, do: Callable[[], _T]) -> _T:
        """The same on a thread for pictures and speech."""
        return await self._run("media", do)

    def inside(self) -> dict[str, int]:
        """How many requests each pool is on, or has before it."""
        return {name: pool.inside for name, pool in self._pools.items()}

    async def _run(self, name: str, do: Callable[[], _T]) -> _T:
        future = self._pools[name].submit(do)
        if name == "search":
            self._pace.entered()
            future.add_done_callback(lambda _: self._pace.left())
        try:
            # Shielded: a thread cannot be stopped, and its place is free only once it is done.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self._timeout)
        except TimeoutError:
            if future.cancel():
                raise Problem(
                    503, "the server is too busy; try again in a moment", {"Retry-After": "2"}
                ) from None
            future.add_done_callback(_log_failure)
            raise Problem(
                503,
                f"this takes longer than {self._timeout:g} s; ask for less at once",
                {"Retry-After": "5"},
            ) from None

    def close(self) -> None:
        """Finish what is being worked on."""
        for pool in self._pools.values():
            pool.threads.shutdown(wait=True)


def _log_failure(future: Future[Any]) -> None:
    """Nobody waits any more for what failed."""
    if (error := future.exception()) is not None:
        logger.error("failed after its request was given up: %s", error, exc_info=error)
