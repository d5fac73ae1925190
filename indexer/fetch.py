"""Pictures behind http(s) addresses, fetched without trusting whoever wrote the addresses or whoever answers.

A feed may name any address, and a server that fetches what it is told to can be turned against its own network
(server-side request forgery). So every name is resolved here, every address that it has must be a public one or lie in
a network that the settings allow, and the connection goes to the very address that was looked at: a name that means
another address a moment later gains nothing. Redirects are requests like any other. Proxies of the environment are not
used, since it would be they who resolve the names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from indexer.addresses import Network, Resolver, refusal, resolve
from mmsearch.errors import MediaError, MissingExtra

if TYPE_CHECKING:
    import httpcore2

__all__ = ["Fetched", "Fetcher"]

MAX_BYTES = 32 << 20
"""A larger picture is given up as soon as so much has arrived."""

AT_ONCE = 16
PER_HOST = 8
"""So many requests are under way at once, of all and to one host."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
TOTAL_SECONDS = 30.0
"""How long a connection, the next bytes, and one answer as a whole may take."""

TRIES = 4
BACKOFF_SECONDS = 0.5
LONGEST_WAIT = 60.0
"""What may pass is tried again after 0.5, 1 and 2 s, or when ``Retry-After`` says so, if that is within 60."""

REDIRECTS = 5

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """What came. ``data`` is None if the answer was "not modified"; ``etag`` and ``modified`` name the version."""

    data: bytes | None
    etag: str | None
    modified: str | None


class _Refused(Exception):
    """An address that must not be asked."""


class _Host:
    """How one host is treated: a few requests at once, none before ``until`` (monotonic seconds)."""

    def __init__(self) -> None:
        self.places = threading.BoundedSemaphore(PER_HOST)
        self.until = 0.0


class Fetcher:
    """Fetches pictures; safe to share between threads. Use it as a context manager, or close it.

    ``allowed`` are networks that are not public and may be asked all the same, ``budget`` the seconds from now on after
    which nothing is fetched any more. Needs the extra ``shop``: raises
    ``MissingExtra``.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        max_bytes: int = MAX_BYTES,
        seconds: float = TOTAL_SECONDS,
        budget: float = math.inf,
        resolver: Resolver = resolve,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._end = time.monotonic() + budget
        self._wait = wait
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._clock = threading.local()  # of each thread's request: when it must be over
        self._pool = _pool(self._clock, allowed, resolver)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def get(self, url: str, *, etag: str | None = None, modified: str | None = None) -> Fetched:
        """What is at ``url``; ``etag`` and ``modified`` are those of the version that is known already.

        Raises ``MediaError`` that says why nothing came.
        """
        reason, delay = "", 0.0
        for attempt in range(TRIES):
            if attempt:
                delay = max(delay, BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
                if delay > LONGEST_WAIT:
                    raise MediaError(url, f"{reason}, and asks to wait {delay:.0f} s")
                if delay > self._end - time.monotonic():
                    raise MediaError(url, f"{reason}, and there is no time to try again")
                self._wait(delay)
            reason, delay = "", 0.0
            try:
                answer = self._follow(url, etag, modified)
            except _Refused as error:
                raise MediaError(url, str(error)) from None
            except self._passing() as error:
                reason = _told(error, self._seconds)
                continue
            if isinstance(answer, Fetched):
                return answer
            reason, delay = answer
        raise MediaError(url, f"{reason} ({TRIES} tries)")

    def _passing(self) -> tuple[type[Exception], ...]:
        """What may go better at the next try."""
        import httpcore2

        return (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError)

    def _follow(self, url: str, etag: str | None, modified: str | None) -> Fetched | tuple[str, float]:
        """The answer to a request and its redirects; or why it is worth another try, and how long to wait for it."""
        where = url
        for _ in range(REDIRECTS + 1):
            scheme, host, port, target = _parsed(url, where)
            with self._place(host):
                # What is not a picture is not unpacked, either: an answer that is compressed all the same is refused.
                headers = {
                    "Host": _authority(scheme, host, port),
                    "User-Agent": "mmsearch",
                    "Accept": "image/*",
                }
                headers |= {"Accept-Encoding": "identity"}
                headers |= {"If-None-Match": etag} if etag else {}
                headers |= {"If-Modified-Since": modified} if modified and not etag else {}
                with self._answer(scheme, host, port, target, headers) as response:
                    status, told = response.status, _headers(response)
                    if status in _MOVED and "location" in told:
                        where = _joined(url, where, told["location"])
                        continue
                    if status in _AGAIN:
                        delay = _retry_after(told.get("retry-after"))
                        self._hold(host, delay)
                        return f"the server answers {status}", delay
                    if status == 304 and (etag or modified):
                        return Fetched(None, told.get("etag", etag), told.get("last-modified", modified))
                    if status != 200:
                        raise MediaError(url, f"the server answers {status}")
                    return Fetched(
                        self._body(url, response, told), told.get("etag"), told.get("last-modified")
                    )
        raise MediaError(url, f"is redirected more than {REDIRECTS} times")

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[None]:
        """Wait until the host may be asked."""
        with self._lock:
            host = self._hosts.setdefault(name, _Host())
        with host.places, self._places:
            if (left := min(host.until, self._end) - time.monotonic()) > 0:
                self._wait(min(left, LONGEST_WAIT))
            if (now := time.monotonic()) >= self._end:
                raise _Refused("there was no time left to fetch it")
            self._clock.deadline = min(now + self._seconds, self._end)
            yield

    def _hold(self, name: str, seconds: float) -> None:
        """Let nobody ask a host for a while."""
        host = self._hosts[name]
        host.until = max(host.until, time.monotonic() + min(seconds, LONGEST_WAIT))

    @contextlib.contextmanager
    def _answer(
        self, scheme: str, host: str, port: int, target: str, headers: Mapping[str, str]
    ) -> Iterator[httpcore2.Response]:
        import httpcore2

        timeout = {
            "connect": CONNECT_SECONDS,
            "read": READ_SECONDS,
            "write": READ_SECONDS,
            "pool": self._seconds,
        }
        address = httpcore2.URL(scheme=scheme, host=host, port=port, target=target)
        asked = {name.encode(): value.encode("latin-1", "replace") for name, value in headers.items()}
        with self._pool.stream(
            "GET", address, headers=list(asked.items()), extensions={"timeout": timeout}
        ) as response:
            yield response

    def _body(self, url: str, response: httpcore2.Response, told: Mapping[str, str]) -> bytes:
        if told.get("content-encoding", "identity").lower() != "identity":
            raise MediaError(url, f"comes packed ({told['content-encoding']}), which was not asked for")
        if (kind := told.get("content-type", "").partition(";")[0].strip().lower()).startswith("text/"):
            raise MediaError(url, f"is no picture, it is {kind}")
        limit = f"is larger than {self._max_bytes / (1 << 20):g} MiB"
        if (size := told.get("content-length", "")).isdecimal() and int(size) > self._max_bytes:
            raise MediaError(url, limit)
        pieces: list[bytes] = []
        received = 0
        for piece in response.iter_stream():
            received += len(piece)
            if received > self._max_bytes:
                raise MediaError(url, limit)
            pieces.append(piece)
        if not received:
            raise MediaError(url, "is empty (zero bytes)")
        return b"".join(pieces)


def _joined(url: str, where: str, location: str) -> str:
    try:
        return urljoin(where, location)
    except ValueError:
        raise MediaError(url, f"leads to {location[:200]!r}, which is no address") from None


def _parsed(url: str, where: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and target of an address; ``url`` is what errors call it."""
    try:
        parts = urlsplit(where.strip())
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port
    except ValueError:
        raise MediaError(url, "is no address") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise MediaError(url, f"only http and https addresses are fetched{_leads(url, where)}")
    if parts.username is not None or parts.password is not None:
        raise MediaError(url, f"an address with a user name is not fetched{_leads(url, where)}")
    if not host:
        raise MediaError(url, f"the address has no host{_leads(url, where)}")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    target += f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    return scheme, host, port or (443 if scheme == "https" else 80), target


def _leads(url: str, where: str) -> str:
    return "" if url == where else f"; it leads to {where[:200]}"


def _authority(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port == (443 if scheme == "https" else 80) else f"{shown}:{port}"


def _headers(response: Any) -> dict[str, str]:
    """The headers by lower-case name; the last of several wins."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _retry_after(value: str | None) -> float:
    """Seconds to wait: the header is a number of them, or a date. 0 if it is neither."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _told(error: Exception, seconds: float) -> str:
    name = type(error).__name__
    if "Timeout" in name:
        return f"did not arrive within {seconds:g} s" if "Read" in name else f"does not answer ({name})"
    return f"cannot be fetched ({str(error) or name})"


def _pool(clock: threading.local, allowed: Sequence[Network], resolver: Resolver) -> httpcore2.ConnectionPool:
    """Connections that are made to checked addresses only, and whose every read ends when the request must be over."""
    try:
        import httpcore2
    except ImportError as error:
        raise MissingExtra("fetching pictures", "shop") from error

    class Stream(httpcore2.NetworkStream):
        """A stream that keeps the deadline however few bytes at a time arrive."""

        def __init__(self, stream: httpcore2.NetworkStream) -> None:
            self._stream = stream

        def _left(self, timeout: float | None) -> float:
            left = float(clock.deadline - time.monotonic())
            if left <= 0:
                raise httpcore2.ReadTimeout
            return left if timeout is None else min(left, timeout)

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._stream.read(max_bytes, self._left(timeout))

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._stream.write(buffer, self._left(timeout))

        def close(self) -> None:
            self._stream.close()

        def start_tls(
            self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
        ) -> httpcore2.NetworkStream:
            return Stream(self._stream.start_tls(ssl_context, server_hostname, self._left(timeout)))

        def get_extra_info(self, info: str) -> Any:
            return self._stream.get_extra_info(info)

    class Backend(httpcore2.SyncBackend):
        """Resolves a name, looks at all of its addresses, and connects to one of those."""

        def connect_tcp(self, host: str, port: int, *options: Any, **named: Any) -> httpcore2.NetworkStream:
            try:
                addresses = list(resolver(host, port))
            except (OSError, UnicodeError) as error:
                raise httpcore2.ConnectError(f"no address of {host} is known ({error})") from error
            for address in addresses:
                if (reason := refusal(address, allowed)) is not None:
                    raise _Refused(
                        f"{reason}: only public addresses are fetched, see `fetch_from` in the settings"
                    )
            failure: Exception = httpcore2.ConnectError(f"{host} has no address")
            for address in addresses:
                try:
                    return Stream(super().connect_tcp(address, port, *options, **named))
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

        def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
            raise _Refused("only http and https addresses are fetched")

    return httpcore2.ConnectionPool(
        max_connections=AT_ONCE,
        max_keepalive_connections=AT_ONCE,
        keepalive_expiry=5.0,
        network_backend=Backend(),
    )
