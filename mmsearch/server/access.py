"""Who may do what: keys, scopes, collections, rates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated

from cachetools import TTLCache
from fastapi import Depends, Request

from mmsearch.server.keys import Key, Keys, Scope
from mmsearch.server.options import Options
from mmsearch.server.problems import Problem

__all__ = ["COOKIE", "Access", "Buckets", "needs"]

MOST = 100_000
"""So many keys and addresses are remembered."""

COOKIE = "mmsearch_key"
"""Where the page keeps its key for pictures and sounds, which a browser fetches without our headers."""

IN_ADDRESS = "api_key"
"""The parameter of an address that holds the key of a page of another site, for the same reason."""


class Access:
    """The keys of a home and how often each may ask. As long as there was none everybody may do everything, on this
    machine.
    """

    def __init__(self, keys: Keys, options: Options) -> None:
        self.keys = keys
        self._rate = options.rate
        self._needed = options.needs_key
        self._buckets = Buckets()

    def check(self, request: Request, scope: Scope, collection: str | None) -> None:
        """Raises ``Problem`` 401, 403 or 429."""
        self._refuse_strangers(request)
        key = self._key(request)
        who = key.id if key else (request.client.host if request.client else "unknown")
        rate = (key.rate if key else None) or self._rate
        if late := self._buckets.take(who, rate):
            told = {"Retry-After": str(math.ceil(late))}
            raise Problem(429, f"more than {rate} requests in a minute", told)
        request.scope["key"] = key
        # Once there were keys, or where others can come in: taking the last one away opens no door.
        self._needed = self._needed or bool(self.keys.all())
        if key is None:
            if self._needed:
                raise Problem(
                    401,
                    "give a key: `Authorization: Bearer mms_...` (made by `mmsearch keys create`)",
                    {"WWW-Authenticate": "Bearer"},
                )
            return
        request.scope["key_id"] = key.id
        self.check_collection(request, scope, collection)

    @staticmethod
    def check_collection(request: Request, scope: Scope, collection: str | None) -> None:
        """Raises ``Problem`` 403 if the key of a request that was checked may not do this in a collection."""
        key: Key | None = request.scope.get("key")
        if key is not None and not key.allows(scope, collection):
            where = f" in collection {collection!r}" if collection else ""
            raise Problem(403, f"this key may not {_VERBS[scope]}{where}")

    @staticmethod
    def may_see(request: Request, collection: str) -> bool:
        """Whether the key of a request that was checked knows of a collection."""
        key: Key | None = request.scope.get("key")
        return key is None or key.allows("search", collection)

    def _key(self, request: Request) -> Key | None:
        header = request.headers.get("authorization", "")
        kind, _, secret = header.partition(" ")
        in_address = False
        if kind.lower() != "bearer":
            secret = request.headers.get("x-api-key", "")
            if not secret and request.method in ("GET", "HEAD"):
                secret = request.cookies.get(COOKIE, "")
                if address := request.query_params.get(IN_ADDRESS, ""):
                    secret, in_address = address, True
        if not secret:
            return None
        if (key := self.keys.find(secret.strip())) is None:
            raise Problem(401, "this key is unknown, revoked or expired", {"WWW-Authenticate": "Bearer"})
        if in_address and key.scope != "search":
            raise Problem(
                403,
                f"an address is seen by many: only a key of scope search may be in one as `{IN_ADDRESS}`; send this "
                "one as a header",
            )
        return key

    @staticmethod
    def _refuse_strangers(request: Request) -> None:
        """A page of another site must not make a visitor's browser write to a server that trusts the machine."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        if request.headers.get("sec-fetch-site", "") in ("cross-site", "same-site"):
            allowed = request.app.state.options.origins
            if request.headers.get("origin", "") not in allowed:
                raise Problem(403, "pages of other sites may not call this server")


class Buckets:
    """Token buckets: each holds as many requests as its owner may make in a minute, and fills up again in a minute.

    Of one that is full nothing need be known: they are forgotten a minute after their last request, and the oldest
    where there are too many at once. For one thread, that of the event loop. (Kept here, because the stores of
    ``limits`` look through all that they hold on a thread of their own after each request.)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: TTLCache[str, float] = TTLCache(MOST, 60.0, clock)

    def take(self, who: str, rate: int) -> float:
        """Take one request of ``rate`` a minute. Returns 0, or the seconds until there is one."""
        now, each = self._clock(), 60.0 / rate
        full_at = max(now, self._full_at.get(who, now))
        if (late := full_at + each - now - 60.0) > 1e-6:
            return late
        self._full_at[who] = full_at + each
        return 0.0


_VERBS = {"search": "search", "write": "change items", "admin": "administer"}


class needs:  # noqa: N801  reads as what it says in a signature
    """A dependency: the request's key has ``scope`` in the collection of its path. A request is checked once."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> None:  # a plain function would be given a thread each time
        if request.scope.get("checked") != self.scope:
            access: Access = request.app.state.access
            access.check(request, self.scope, request.path_params.get("collection"))
            request.scope["checked"] = self.scope


Search = Annotated[None, Depends(needs("search"))]
Write = Annotated[None, Depends(needs("write"))]
Admin = Annotated[None, Depends(needs("admin"))]
