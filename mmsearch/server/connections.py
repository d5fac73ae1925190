"""Connections that wait for nobody: a client that is slow to ask, or slow to take its answer, is left.

uvicorn waits for ever for the head of a first request and for a client that reads nothing. What a body may take is in
``mmsearch.server.gate``.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mmsearch.server.options import Options

__all__ = ["connection"]

MAX_HEAD = 64 << 10
"""Bytes of a request's first line and headers."""


class _Connection(HttpToolsProtocol):
    """One connection. ``_late`` runs while the head of a request is awaited, ``_stuck`` while nothing is taken."""

    options: ClassVar[Options]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._head = 0
        if len(self.connections) > self.options.connections:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._head += len(data)
        super().data_received(data)
        if self._late is not None and self._head > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_headers_complete(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait until it is taken
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.options.send_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _await_head(self) -> None:
        self._head = 0
        self._late = self.loop.call_later(self.options.head_timeout, self.transport.abort)

    def _cancel(self) -> None:
        for timer in (self._late, self._stuck):
            if timer is not None:
                timer.cancel()
        self._late = self._stuck = None


def connection(options: Options) -> type[asyncio.Protocol]:
    """The class of the connections of a server with these options."""
    namespace: dict[str, Any] = {"options": options}
    return type("Connection", (_Connection,), namespace)
