"""What the catalog knows of products: items by key, updates of their attributes, and the feeds they came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch.catalog import Catalog
from mmsearch.database import chunks, listed, named_rows
from mmsearch.rows import read_items
from mmsearch.types import AttributeChanges, Item

__all__ = ["Feed", "by_key", "claim", "feeds_of", "forget", "keys_of", "remember", "stamp", "update"]


def by_key(catalog: Catalog, collection: int, keys: Sequence[str]) -> dict[str, Item]:
    """Items with their parts by key; keys that no item has are left out."""
    found: dict[str, Item] = {}
    with catalog.reading() as connection:
        for some in chunks(keys):
            asked = ",".join("?" * len(some))
            query = f"SELECT * FROM items WHERE collection_id = {int(collection)} AND key IN ({asked})"
            rows = named_rows(connection, query, some)
            found.update((item.key, item) for item in read_items(connection, collection, rows, True))
    return found


def update(
    catalog: Catalog,
    collection: int,
    changes: AttributeChanges,
    *,
    replace: bool = False,
) -> list[str]:
    """Change attributes of items by key in one transaction. See ``Engine.update``."""
    from mmsearch import writes

    with catalog.transaction() as connection:
        return writes.update_attributes(connection, collection, changes, replace=replace)


def stamp(catalog: Catalog, stamps: Mapping[int, tuple[str | None, str | None]]) -> None:
    """Note sources and stamps of parts (by id), where those are other files or versions with the same content."""
    from mmsearch import writes

    with catalog.transaction() as connection:
        writes.stamp_parts(connection, stamps)


@dataclasses.dataclass(frozen=True, slots=True)
class Feed:
    """A table that was indexed. ``options`` are plain values that say how it is read (``indexer.feeds``)."""

    id: int
    path: str
    options: dict[str, Any]


def claim(catalog: Catalog, feed: Feed, ids: Sequence[int]) -> None:
    """Note that items are from this feed now."""
    with catalog.transaction("noting the feed of products") as connection:
        for some in chunks(ids):
            connection.exec_driver_sql(
                f"UPDATE items SET feed_id = ? WHERE id IN ({listed(some)})", (feed.id,)
            )


def feeds_of(catalog: Catalog, collection: int) -> dict[str, Feed]:
    """The feeds of a collection by path, oldest first."""
    query = "SELECT id, path, options FROM feeds WHERE collection_id = ? ORDER BY id"
    with catalog.reading() as connection:
        rows = connection.execute(query, (collection,)).fetchall()
    return {path: Feed(feed_id, path, json.loads(options)) for feed_id, path, options in rows}


def remember(catalog: Catalog, collection: int, path: str, options: dict[str, Any]) -> Feed:
    """Note that a table was indexed with these options, or that they are others now."""
    known = feeds_of(catalog, collection).get(path)
    if known is None or known.options != options:
        with catalog.transaction("remembering a feed") as connection:
            connection.exec_driver_sql(
                "INSERT INTO feeds (collection_id, path, options) VALUES (?, ?, ?)"
                " ON CONFLICT (collection_id, path) DO UPDATE SET options = excluded.options",
                (collection, path, json.dumps(options, ensure_ascii=False, sort_keys=True)),
            )
    return feeds_of(catalog, collection)[path]


def forget(catalog: Catalog, collection: int, path: str) -> None:
    """Leave a feed out of the next run without arguments. Its items stay."""
    with catalog.transaction("forgetting a feed") as connection:
        connection.exec_driver_sql(
            "DELETE FROM feeds WHERE collection_id = ? AND path = ?", (collection, path)
        )


def keys_of(catalog: Catalog, collection: int, feed: Feed) -> dict[str, int]:
    """Ids of the items that came from a feed last, by key."""
    query = "SELECT key, id FROM items WHERE collection_id = ? AND feed_id = ?"
    with catalog.reading() as connection:
        return dict(connection.execute(query, (collection, feed.id)).fetchall())
