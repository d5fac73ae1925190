"""What every request passes: its id, its host, its size and pace, the headers of the answer, the log and the figures.

Plain ASGI, because each layer that wraps requests and responses into objects costs a tenth of a fast search.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mmsearch.server.options import Options
from mmsearch.server.problems import Problem, problem

__all__ = ["Figures", "Gate"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

access = logging.getLogger("mmsearch.access")
logger = logging.getLogger("mmsearch.server")

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'; form-action 'self'",
    ),
]
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_CLOSE = {"Connection": "close"}
GONE = 499
"""How a request is counted whose client left before it was whole; nobody gets to see it."""

_BROKEN = "The server failed; its log tells why under this request id."


class Figures:
    """What ``/metrics`` tells, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ("method", "route", "status")
        self.requests = Counter("mmsearch_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "mmsearch_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("route",),
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.running = Gauge("mmsearch_requests_running", "Requests in work.", registry=self.registry)
        self.working = Gauge(
            "mmsearch_work",
            "Requests that the threads of a pool are on, or have before them.",
            ("pool",),
            registry=self.registry,
        )
        self.encoded = Counter(
            "mmsearch_query_vectors",
            "Query texts, by whether their vector was kept.",
            ("kept",),
            registry=self.registry,
        )
        self._counted = {"yes": 0, "no": 0}

    def count_encoded(self, kept: int, encoded: int) -> None:
        """Tell how many query texts there were until now."""
        for name, count in (("yes", kept), ("no", encoded)):
            self.encoded.labels(name).inc(count - self._counted[name])
            self._counted[name] = count


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: App, options: Options, figures: Figures) -> None:
        self.app = app
        self.options = options
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        if (
            method == "HEAD"
        ):  # GET without a body, which the connection leaves out: it looks at a scope of its own
            scope = {**scope, "method": "GET"}
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        scope["request_id"] = request_id
        status = 0
        failures: list[Problem] = []

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if failures and not status:
                return  # the application's answer to a body that never came whole
            if message["type"] == "http.response.start":
                status = message["status"]
                own = list(message.get("headers", ()))
                named = {name.lower() for name, _ in own}
                own += [pair for pair in _HEADERS if pair[0] not in named]
                own.append((b"x-request-id", request_id.encode()))
                message["headers"] = own
            await send(message)

        self.figures.running.inc()
        try:
            refused = self._refused(scope["headers"], headers)
            if refused is None:
                try:
                    await self.app(scope, self._metered(receive, failures), answer)
                except Exception as error:
                    if not failures:
                        logger.error("unexpected: %s", error, exc_info=error)
                        if status:
                            raise  # the answer breaks off, and the client must see that
                        refused = Problem(500, _BROKEN)
            if failures and not status:
                refused = failures.pop()
            if refused is not None:
                response = problem(
                    refused.http_status, str(refused), request_id=request_id, headers=refused.headers
                )
                await response(scope, receive, answer)
        finally:
            self.figures.running.dec()
            spent = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self.figures.requests.labels(method, route, status).inc()
            self.figures.seconds.labels(route).observe(spent)
            access.info(
                "request",
                extra={
                    "told": {
                        "request_id": request_id,
                        "method": method,
                        "route": route,
                        "status": status,
                        "ms": round(1000 * spent, 2),
                        "key": scope.get("key_id"),
                        **scope.get("told", {}),
                    }
                },
            )

    def _refused(
        self, pairs: Iterable[tuple[bytes, bytes]], headers: Mapping[bytes, bytes]
    ) -> Problem | None:
        if sum(name == b"host" for name, _ in pairs) > 1:
            return Problem(400, "the request has several Host headers")
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.options.hosts and name.lower() not in self.options.hosts:
            # A page of another site may have its own name point here (DNS rebinding).
            return Problem(421, f"this server does not answer to the name {name[:200]!r}")
        length = headers.get(b"content-length", b"")
        if length and (not length.isdigit() or len(length) > 15 or int(length) > self.options.max_body):
            return Problem(413, f"the body is larger than {self.options.max_body} bytes", _CLOSE)
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            return Problem(415, "packed bodies are not taken: send it without Content-Encoding", _CLOSE)
        return None

    def _metered(self, receive: Receive, failures: list[Problem]) -> Receive:
        """The body, no larger than allowed and no slower: a slow client must not hold a place for ever.

        What is wrong is also added to ``failures``, since whoever parses the body makes another error of it.
        """
        received = 0
        until = time.monotonic() + self.options.body_timeout
        whole = False

        async def read() -> MutableMapping[str, Any]:
            nonlocal received, whole
            if whole:
                return await receive()  # waits for the client to go away: no matter of pace
            try:
                message = await asyncio.wait_for(receive(), max(0.01, until - time.monotonic()))
            except TimeoutError:
                failures.append(
                    Problem(408, f"the body did not come within {self.options.body_timeout:g} s", _CLOSE)
                )
                raise failures[-1] from None
            if message["type"] == "http.disconnect":
                failures.append(Problem(GONE, "the client left before its request was whole", _CLOSE))
                raise failures[-1]
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if received > self.options.max_body:
                    failures.append(
                        Problem(413, f"the body is larger than {self.options.max_body} bytes", _CLOSE)
                    )
                    raise failures[-1]
            return message

        return read
