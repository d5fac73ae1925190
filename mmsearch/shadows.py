"""Shadows: the vectors of another model for the items of a collection, and the exchange of the two.

A shadow is a hidden collection. Its items have only what vectors need: parts, and the content hash. Each is called by
the lowest part id of the item that it stands for. A part id names one immutable vector, and an item that changes gets
new parts, so a shadow item is up to date as long as there is a part of that name, whatever else happened to the item.

``switch`` exchanges the parts of all pairs, the models, and what is known of them, in one transaction. Items keep their
ids, attributes and titles. The former vectors are then those of the shadow: switching again is the way back.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog
from mmsearch.database import blocks, chunks, listed
from mmsearch.rows import CollectionInfo, Identity, float16
from mmsearch.types import Ids, Modality, Vectors

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "MAPPED",
    "Pairs",
    "Shadow",
    "drop_stale",
    "find",
    "forget",
    "make",
    "missing",
    "models",
    "pairs",
    "switch",
]

MAPPED = "mapped"
"""Title of a shadow item with vectors that were not encoded but worked out from the other ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shadow:
    """A hidden collection and what it is: the coming vectors, or (``switched``) the former ones. Counts of items:
    ``done`` are up to date, ``mapped`` among them were worked out, ``total`` has the collection.
    """

    info: CollectionInfo
    switched: bool
    done: int
    mapped: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Vectors of the same parts in both spaces, (n, dim) each."""

    here: Vectors
    there: Vectors


def find(catalog: Catalog, collection: int) -> Shadow | None:
    """The shadow of a collection, if it has one."""
    with catalog.reading() as connection:
        query = "SELECT shadow_id, switched FROM shadows WHERE collection_id = ?"
        row = connection.execute(query, (collection,)).fetchone()
        if row is None:
            return None
        counted = f"SELECT count(*), coalesce(sum(s.title = '{MAPPED}'), 0) FROM {_pairs(collection, row[0])}"
        done, mapped = connection.execute(counted).fetchone()
        (total,) = connection.execute(
            "SELECT count(*) FROM items WHERE collection_id = ?", (collection,)
        ).fetchone()
    info = catalog.collection_by_id(row[0])
    return None if info is None else Shadow(info, bool(row[1]), done, mapped, total)


def models(catalog: Catalog) -> dict[int, str]:
    """The other model of each collection that has a shadow, by the collection's id."""
    query = "SELECT s.collection_id, c.model FROM shadows s JOIN collections c ON c.id = s.shadow_id"
    with catalog.reading() as connection:
        return dict(connection.execute(query).fetchall())


def make(catalog: Catalog, collection: int, identity: Identity) -> None:
    """Give a collection an empty shadow in another space."""
    from mmsearch import writes

    with catalog.transaction() as connection:
        shadow = writes.create_collection(connection, f"\0{collection}", identity)
        row = "INSERT INTO shadows (shadow_id, collection_id, switched) VALUES (?, ?, 0)"
        connection.exec_driver_sql(row, (shadow, collection))


def forget(catalog: Catalog, collection: int) -> int:
    """Delete a collection's shadow with its vectors; returns the number of its items."""
    from mmsearch import writes

    shadow = find(catalog, collection)
    if shadow is None:
        return 0
    with catalog.transaction() as connection:
        return writes.delete_collection(connection, shadow.info.id)


def missing(catalog: Catalog, collection: int, shadow: int) -> list[tuple[int, int]]:
    """Items (ascending ids, with their lowest part ids) that have no counterpart yet."""
    query = (
        "SELECT first.item, first.part FROM (SELECT p.item_id AS item, min(p.id) AS part FROM items i"
        f" JOIN parts p ON p.item_id = i.id WHERE i.collection_id = {collection} GROUP BY p.item_id) AS first"
        f" LEFT JOIN items s ON s.collection_id = {shadow} AND s.key = CAST(first.part AS TEXT)"
        " WHERE s.id IS NULL ORDER BY first.item"
    )
    with catalog.reading() as connection:
        return [row for rows in blocks(connection, query) for row in rows]


def drop_stale(catalog: Catalog, collection: int, shadow: int) -> int:
    """Drop shadow items whose counterparts were removed or changed; returns how many."""
    query = (
        "SELECT s.id FROM items s LEFT JOIN parts p ON p.id = CAST(s.key AS INTEGER)"
        f" LEFT JOIN items i ON i.id = p.item_id AND i.collection_id = {collection}"
        f" WHERE s.collection_id = {shadow} AND i.id IS NULL"
    )
    with catalog.reading() as connection:
        stale = [item_id for (item_id,) in connection.execute(query)]
    return catalog.remove(shadow, stale) if stale else 0


def pairs(catalog: Catalog, collection: int, shadow: int, modality: Modality, most: int) -> Pairs:
    """Vectors in both spaces of up to ``most`` parts that were encoded in both, spread evenly over the collection.

    A part has a counterpart if there is one with the same place in the item: for a recording the same seconds.
    """
    place = 'p.start IS q.start AND p."end" IS q."end" AND p.page IS q.page'
    alike = place if modality is Modality.AUDIO else f"p.ordinal = q.ordinal AND {place}"
    query = (
        f"SELECT p.id, q.id FROM {_pairs(collection, shadow)} JOIN parts p ON p.item_id = i.id"
        f" JOIN parts q ON q.item_id = s.id AND q.modality = p.modality AND {alike}"
        f" WHERE p.modality = '{modality.value}' AND s.title IS NULL ORDER BY p.id"
    )
    with catalog.reading() as connection:
        ids = np.array(connection.execute(query).fetchall(), np.int64).reshape(-1, 2)
        if len(ids) > most:
            ids = ids[np.linspace(0, len(ids) - 1, most).astype(np.int64)]
        return Pairs(_vectors(connection, ids[:, 0]), _vectors(connection, ids[:, 1]))


def switch(catalog: Catalog, collection: int, shadow: int) -> bool:
    """Exchange the vectors of a collection and its shadow, if every item has its counterpart; says whether it has.

    All in one transaction: whatever happens, a collection has the vectors of one model and no other.
    """
    from mmsearch.writes import new_revision

    with catalog.transaction("switching to another model") as connection:
        connection.exec_driver_sql(
            "CREATE TEMP TABLE exchanged (mine INTEGER PRIMARY KEY, other INTEGER NOT NULL)"
        )
        found = f"FROM {_pairs(collection, shadow)}"
        count = connection.exec_driver_sql(f"INSERT INTO exchanged SELECT i.id, s.id {found}").rowcount
        sizes = connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM items WHERE collection_id = ?), (SELECT count(*) FROM items WHERE"
            " collection_id = ?)",
            (collection, shadow),
        ).one()
        agreed = tuple(sizes) == (count, count)
        if agreed:
            connection.exec_driver_sql(f"INSERT INTO exchanged SELECT s.id, i.id {found}")
            _exchange(connection, collection, shadow, new_revision(connection))
        connection.exec_driver_sql("DROP TABLE exchanged")
    return agreed


def _exchange(connection: Connection, collection: int, shadow: int, revision: int) -> None:
    run = connection.exec_driver_sql
    run(
        "UPDATE parts SET revision = ?, item_id = (SELECT other FROM exchanged WHERE mine = item_id)"
        " WHERE item_id IN (SELECT mine FROM exchanged)",
        (revision,),
    )
    run(
        "UPDATE items SET key = CAST((SELECT min(id) FROM parts WHERE item_id = (SELECT other FROM exchanged WHERE"
        " mine = items.id)) AS TEXT) WHERE collection_id = ?",
        (shadow,),
    )
    both = f"({collection}, {shadow})"
    other = f"{collection + shadow} - "
    rows = run(f"SELECT id, model, space, dim FROM collections WHERE id IN {both}").all()
    for one, model, space, dim in rows:
        run(
            "UPDATE collections SET model = ?, space = ?, dim = ?, epoch = ? WHERE id = ?",
            (model, space, dim, revision, collection + shadow - one),
        )
    for table, columns in (("canonicals", "modality, data"), ("admitted", "fingerprint")):
        kept = run(
            f"SELECT {other} collection_id, {columns} FROM {table} WHERE collection_id IN {both}"
        ).all()
        run(f"DELETE FROM {table} WHERE collection_id IN {both}")
        places = ", ".join("?" * (columns.count(",") + 2))
        for row in kept:
            run(f"INSERT INTO {table} (collection_id, {columns}) VALUES ({places})", tuple(row))
    run(f"DELETE FROM tombstones WHERE collection_id IN {both}")  # nobody goes on from before the epoch
    run("UPDATE shadows SET switched = 1 - switched WHERE shadow_id = ?", (shadow,))


def _pairs(collection: int, shadow: int) -> str:
    """Tables of SQL: items ``i`` with their counterparts ``s``."""
    return (
        f"items s JOIN parts f ON f.id = CAST(s.key AS INTEGER) AND s.collection_id = {shadow}"
        f" JOIN items i ON i.id = f.item_id AND i.collection_id = {collection}"
    )


def _vectors(connection: sqlite3.Connection, ids: Ids) -> Vectors:
    found: dict[int, bytes] = {}
    for some in chunks(ids.tolist()):
        query = f"SELECT part_id, data FROM vectors WHERE part_id IN ({listed(some)})"
        found.update(connection.execute(query).fetchall())
    return float16([found[one] for one in ids.tolist()]).astype(np.float32)
