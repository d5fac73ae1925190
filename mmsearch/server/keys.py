"""Keys of an HTTP server: who may do what. Kept in ``keys.json`` of the home, the secrets as hashes only.

A key is 32 random bytes, so one round of a fast hash is enough: there is nothing to guess that a slow one would guard
(NIST SP 800-63B, 5.1.2.2, on secrets of at least 112 bits).
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mmsearch.errors import ConfigError, StoreError

__all__ = ["SCOPES", "Key", "Keys", "Scope"]

Scope = Literal["search", "write", "admin"]

SCOPES: tuple[Scope, ...] = ("search", "write", "admin")
"""Each may do all that those before it may: search; change items; make and delete collections, and set rules."""

FILE_NAME = "keys.json"
_PREFIX = "mms"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it is kept. ``collections`` empty: all. ``rate``: requests a minute, None: the server's own limit."""

    id: str
    name: str
    digest: str
    scope: Scope
    collections: tuple[str, ...] = ()
    rate: int | None = None
    created: str = ""
    expires: str | None = None

    def allows(self, scope: Scope, collection: str | None) -> bool:
        """Whether it may do what ``scope`` names, in this collection (None: in none in particular)."""
        known = not self.collections or collection is None or collection in self.collections
        return known and SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC) >= datetime.fromisoformat(self.expires)


class Keys:
    """The keys of one home; the file is read again when it changed. Safe to share between threads."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> list[Key]:
        """Every key, the oldest first. Raises ``StoreError`` if the file is damaged."""
        with self._lock:
            self._refresh()
            return list(self._keys.values())

    def find(self, secret: str) -> Key | None:
        """The key with this secret, if there is one and it has not expired."""
        _, _, rest = secret.partition("_")
        name, _, _ = rest.partition("_")
        with self._lock:
            self._refresh()
            key = self._keys.get(name)
        if key is None or key.expired:
            return None
        return key if hmac.compare_digest(key.digest, _digest(secret)) else None

    def create(
        self,
        name: str,
        scope: Scope,
        *,
        collections: Sequence[str] = (),
        rate: int | None = None,
        expires: datetime | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, which is told once and never kept. Raises ``ConfigError``, ``StoreError``."""
        if not name.strip():
            raise ConfigError("a key needs a name, so that you know later whose it is")
        if not name.isprintable():
            raise ConfigError(f"the name {name!r} holds characters that cannot be shown")
        if rate is not None and rate < 1:
            raise ConfigError("the rate of a key is at least 1 request a minute")
        number = secrets.token_hex(4)
        secret = f"{_PREFIX}_{number}_{secrets.token_urlsafe(32)}"
        key = Key(
            id=number,
            name=name,
            digest=_digest(secret),
            scope=scope,
            collections=tuple(collections),
            rate=rate,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            expires=expires.astimezone(UTC).isoformat(timespec="seconds") if expires else None,
        )
        self._change(lambda keys: keys | {key.id: key})
        return key, secret

    def revoke(self, number: str) -> Key:
        """Forget a key. Raises ``ConfigError`` if there is none."""
        known = {key.id: key for key in self.all()}
        if number not in known:
            raise ConfigError(f"no key {number!r}: `mmsearch keys list` shows them")
        self._change(lambda keys: {name: key for name, key in keys.items() if name != number})
        return known[number]

    def _change(self, change: object) -> None:
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(FILE_NAME + ".lock"), timeout=10), self._lock:
            self._read_at = None
            self._refresh()
            keys = change(self._keys)  # type: ignore[operator]
            partial = self.path.with_name(FILE_NAME + ".part")
            text = json.dumps([dataclasses.asdict(key) for key in keys.values()], indent=1)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
            self._read_at = None

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._keys, self._read_at = {}, None
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._read_at:
            return
        try:
            rows = json.loads(self.path.read_text("utf-8"))
            found = [Key(**{**row, "collections": tuple(row["collections"])}) for row in rows]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{self.path}: cannot be read ({error}); delete it and make new keys with `mmsearch keys create`"
            ) from error
        self._keys = {key.id: key for key in found}
        self._read_at = stamp


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
