"""Attributes: typed values of items, stored one row a value and clustered by name.

A name has one kind in a collection, set by its first value: ``number`` (int and float), ``text`` (a string or a list
of strings), ``boolean``, or ``datetime`` (stored as UTC seconds since 1970; a naive value is read as UTC).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from mmsearch.database import listed
from mmsearch.types import AttributeValue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 2**53  # whole numbers up to here are stored exactly


def kind_of(value: object) -> str | None:
    """The kind of a value: number, text, boolean or datetime; None if it can be no attribute."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "number" if abs(value) <= _EXACT else None
    if isinstance(value, float):
        return "number" if math.isfinite(value) else None
    if isinstance(value, datetime):
        return "datetime"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "text" if all(isinstance(entry, str) for entry in value) else None
    return None


def to_seconds(value: datetime) -> float:
    """UTC seconds since 1970; a naive value is read as UTC."""
    return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


def from_seconds(seconds: float) -> datetime:
    """The naive UTC datetime of ``to_seconds``, to the microsecond (between the years 1835 and 2105)."""
    try:
        return _EPOCH.replace(tzinfo=None) + timedelta(microseconds=round(seconds * 1e6))
    except OverflowError:  # a zone carried it over the edge of the calendar
        return datetime.max if seconds > 0 else datetime.min


def read_attributes(
    connection: sqlite3.Connection,
    collection: int,
    item_ids: Sequence[int],
    fields: Collection[str] | None = None,
) -> dict[int, dict[str, AttributeValue]]:
    """Attributes (those of ``fields``; None: all) by item id. A stored list comes back as a list, whole numbers as
    int, datetimes naive in UTC.
    """
    found: dict[int, dict[str, AttributeValue]] = {}
    query = f"SELECT id, name, kind FROM attribute_names WHERE collection_id = {collection} ORDER BY name"
    names = {
        name_id: (name, kind)
        for name_id, name, kind in connection.execute(query)
        if fields is None or name in fields
    }
    if not names or not item_ids:
        return found
    query = (
        f"SELECT item_id, name_id, ordinal, number, text FROM attributes WHERE name_id IN ({listed(names)})"
        f" AND item_id IN ({listed(item_ids)}) ORDER BY name_id, item_id, ordinal"
    )
    for item_id, name_id, ordinal, number, words in connection.execute(query):
        name, kind = names[name_id]
        mapping = found.setdefault(item_id, {})
        if kind == "text":
            mapping[name] = words if ordinal == 0 else [*_as_list(mapping.get(name)), words]
        elif kind == "boolean":
            mapping[name] = bool(number)
        elif kind == "datetime":
            mapping[name] = from_seconds(number)
        else:
            whole = number.is_integer() and abs(number) <= _EXACT  # what can be added is what comes back
            mapping[name] = int(number) if whole else number
    return found


def _as_list(value: object) -> list[str]:
    return value if isinstance(value, list) else []
