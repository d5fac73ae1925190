"""Who may do what: keys, scopes, collections, rates."""

from __future__ import annotations

import math
import time
from typing import Annotated

from fastapi import Depends, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from mmsearch.server.keys import Key, Keys, Scope
from mmsearch.server.options import Options
from mmsearch.server.problems import Problem

__all__ = ["COOKIE", "Access", "needs"]

COOKIE = "mmsearch_key"
"""Where the page keeps its key for pictures and sounds, which a browser fetches without our headers."""


class Access:
    """The keys of a home and how often each may ask. As long as there was none everybody may do everything, on this
    machine.
    """

    def __init__(self, keys: Keys, options: Options) -> None:
        self.keys = keys
        self._rate = options.rate
        self._needed = options.needs_key
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, request: Request, scope: Scope, collection: str | None) -> None:
        """Raises ``Problem`` 401, 403 or 429."""
        self._refuse_strangers(request)
        key = self._key(request)
        who = key.id if key else (request.client.host if request.client else "unknown")
        limit = RateLimitItemPerMinute((key.rate if key else None) or self._rate)
        if not self._limiter.hit(limit, who):
            free_at, _ = self._limiter.get_window_stats(limit, who)
            wait = max(1, math.ceil(free_at - time.time()))
            raise Problem(429, f"more than {limit.amount} requests in a minute", {"Retry-After": str(wait)})
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
        if kind.lower() != "bearer":
            secret = request.headers.get("x-api-key", "")
            if not secret and request.method in ("GET", "HEAD"):
                secret = request.cookies.get(COOKIE, "")
        if not secret:
            return None
        if (key := self.keys.find(secret.strip())) is None:
            raise Problem(401, "this key is unknown, revoked or expired", {"WWW-Authenticate": "Bearer"})
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
