"""Cursors: where a page ended, as a text that a client keeps and gives back."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.errors import QueryError
from mmsearch.types import Query

_PER_PAGE = {"k", "cursor", "facets", "fields", "highlight", "explain", "group_size"}
"""What a page may ask for otherwise than the one before."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the query's digest, the revision that its order was made at, how many places it came to, and
    the keys and id of the last item.
    """

    query: str
    revision: int
    place: int
    keys: Sequence[float | str]
    item: int


def encode(cursor: Cursor, secret: str) -> str:
    """A cursor as text, with a checksum that only who knows ``secret`` (the catalog's UUID) can make."""
    body = json.dumps(dataclasses.astuple(cursor), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sum(body, secret) + body).decode().rstrip("=")


def decode(text: str, secret: str) -> Cursor:
    """What ``encode`` wrote. Raises ``QueryError`` for anything else."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        checksum, body = data[:8], data[8:]
        if checksum != _sum(body, secret):
            raise ValueError
        query, revision, place, keys, item = json.loads(body)
    except ValueError:  # also what is no base64, no UTF-8 and no JSON
        raise QueryError(
            "the cursor is not one of this catalog, or was changed: give it back as it came, or start without"
        ) from None
    return Cursor(query, revision, place, keys, item)


def _sum(body: bytes, secret: str) -> bytes:
    return hashlib.blake2b(body, digest_size=8, key=secret.encode()).digest()


def digest(query: Query) -> str:
    """What the pages of one result have in common, as 16 hexadecimal digits."""
    fields = {
        field.name: getattr(query, field.name)
        for field in dataclasses.fields(query)
        if field.name not in _PER_PAGE
    }
    found = hashlib.blake2b(digest_size=8)
    _feed(found, fields)
    return found.hexdigest()


def _feed(found: Any, value: object) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for name, entry in value.items():
            found.update(f"{name}=".encode())
            _feed(found, entry)
    elif isinstance(value, bytes):
        found.update(b"b%d:" % len(value) + value)
    elif isinstance(value, np.ndarray):
        found.update(f"a{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, str | Path | int | float | None):
        text = repr(value).encode(errors="surrogatepass")
        found.update(b"r%d:" % len(text) + text)
    elif isinstance(value, Sequence):
        found.update(b"s%d:" % len(value))
        for entry in value:
            _feed(found, entry)
    else:  # a picture
        found.update(repr(value.size).encode() + value.tobytes())  # type: ignore[attr-defined]
