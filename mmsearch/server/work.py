"""Where requests are worked on: a bounded number at once, a bounded number waiting, none without an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmsearch.server.options import Options
from mmsearch.server.problems import Problem

__all__ = ["Work"]

_T = TypeVar("_T")

SEEN = 1.0
"""Seconds that a write is waited for until searches see it."""


class Work:
    """Threads for searches and one for writes, so that neither keeps the other waiting.

    ``wrote`` is called after each write; what it returns is done when searches see it.
    """

    def __init__(self, options: Options, wrote: Callable[[], Future[None]]) -> None:
        self._options = options
        self._wrote = wrote
        self._read = ThreadPoolExecutor(options.workers, "search")
        self._write = ThreadPoolExecutor(1, "write")
        self._lock = threading.Lock()
        self._inside = {id(self._read): 0, id(self._write): 0}

    async def search(self, do: Callable[[], _T]) -> _T:
        """What ``do`` returns, on a search thread. Raises ``Problem`` 503 if too many wait or it takes too long."""
        return await self._run(self._read, self._options.workers + self._options.waiting, do)

    async def write(self, do: Callable[[], _T]) -> _T:
        """The same on the thread that writes, answered when searches see what was written.

        A write that takes too long is answered 503 and goes on.
        """
        told = await self._run(self._write, 1 + self._options.waiting, do)
        await asyncio.wait([asyncio.wrap_future(self._wrote())], timeout=SEEN)
        return told

    async def _run(self, pool: ThreadPoolExecutor, most: int, do: Callable[[], _T]) -> _T:
        with self._lock:
            if self._inside[id(pool)] >= most:
                raise Problem(
                    503, "too many requests wait already; try again in a moment", {"Retry-After": "1"}
                )
            self._inside[id(pool)] += 1
        future = pool.submit(do)
        future.add_done_callback(lambda _: self._left(pool))
        try:
            # Shielded: a thread cannot be stopped, and its place is free only once it is done.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self._options.timeout)
        except TimeoutError:
            if future.cancel():
                raise Problem(
                    503, "the server is too busy; try again in a moment", {"Retry-After": "2"}
                ) from None
            raise Problem(
                503,
                f"this takes longer than {self._options.timeout:g} s; ask for less at once",
                {"Retry-After": "5"},
            ) from None

    def _left(self, pool: ThreadPoolExecutor) -> None:
        with self._lock:
            self._inside[id(pool)] -= 1

    def close(self) -> None:
        """Finish what is being worked on."""
        self._write.shutdown(wait=True)
        self._read.shutdown(wait=True)
