"""The check: every row, part, vector and index entry agree, or it says which do not; and the repair."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from mmsearch.catalog import Catalog
from mmsearch.database import translated
from mmsearch.errors import CatalogBusy, StoreError
from mmsearch.rows import FLOAT16, CollectionInfo
from mmsearch.snapshots import Snapshots

_NO_VECTOR = "SELECT p.item_id FROM parts p LEFT JOIN vectors v ON v.part_id = p.id WHERE v.part_id IS NULL"
_NO_PARTS = "SELECT i.id FROM items i LEFT JOIN parts p ON p.item_id = i.id WHERE p.id IS NULL"
_NO_ITEM = "SELECT rowid FROM parts WHERE item_id NOT IN (SELECT id FROM items)"
_NO_PART = "SELECT part_id FROM vectors WHERE part_id NOT IN (SELECT id FROM parts)"
_NO_OWNER = "SELECT DISTINCT item_id FROM attributes WHERE item_id NOT IN (SELECT id FROM items)"


def check(
    catalog: Catalog, collection: CollectionInfo, snapshots: Snapshots, *, repair: bool = False
) -> list[str]:
    """What is wrong, a line each; empty if all agree. The catalog is checked whole, the index of one collection.

    ``repair`` removes what refers to nothing and items that lost a vector (the next ``mmsearch index`` brings their
    files back), and rebuilds the full text and the index. Raises ``StoreError`` if SQLite finds the file damaged.
    """
    problems: list[str] = []
    with catalog.reading() as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreError(
                f"{catalog.path} is damaged ({verdict}): restore a backup, or move it away and index again"
            )
        broken = sorted(
            {*_ids(connection, _NO_VECTOR), *_ids(connection, _NO_PARTS), *_bad_vectors(connection)}
        )
        orphans = {
            "parts": _ids(connection, _NO_ITEM),
            "vectors": _ids(connection, _NO_PART),
            "attributes": _ids(connection, _NO_OWNER),
        }
    problems += [f"item {item_id} has a part without a sound vector" for item_id in broken]
    problems += [
        f"{len(ids)} {table} belong to nothing (first: {ids[0]})" for table, ids in orphans.items() if ids
    ]
    words = _full_text_problem(catalog)
    problems += [words] if words else []
    if not broken:  # else reading the vectors would stop at the first
        problems += _index_problems(catalog, collection, snapshots)
    if repair and problems:
        with catalog.writing(what="repairing the catalog"):
            _repair(catalog, broken, orphans)
            with translated(snapshots.path):
                snapshots.path.unlink(missing_ok=True)
            snapshots.forget()
            snapshots.save()
    return problems


def _ids(connection: sqlite3.Connection, query: str) -> list[int]:
    return [int(found) for (found,) in connection.execute(query)]


def _bad_vectors(connection: sqlite3.Connection) -> list[int]:
    """Items with a vector of the wrong length or encoding, or that is not finite and of unit length."""
    query = (
        "SELECT i.id, c.dim, v.encoding, v.data FROM vectors v JOIN parts p ON p.id = v.part_id"
        " JOIN items i ON i.id = p.item_id JOIN collections c ON c.id = i.collection_id"
    )
    bad: list[int] = []
    for item_id, dim, encoding, data in connection.execute(query):
        if encoding != FLOAT16 or len(data) != 2 * dim:
            bad.append(item_id)
            continue
        length = float(np.linalg.norm(np.frombuffer(data, "<f2").astype(np.float32)))
        if not abs(length - 1) < 0.02:  # also true of nan
            bad.append(item_id)
    return bad


def _full_text_problem(catalog: Catalog) -> str | None:
    if catalog.read_only:
        return None  # FTS5 checks itself through an INSERT
    try:
        with catalog.transaction("checking the full text") as connection:
            connection.exec_driver_sql("INSERT INTO fulltext(fulltext, rank) VALUES ('integrity-check', 1)")
    except CatalogBusy:
        raise
    except StoreError:
        return "the full-text table does not match the texts of the parts"
    return None


def _index_problems(catalog: Catalog, collection: CollectionInfo, snapshots: Snapshots) -> list[str]:
    problems: list[str] = []
    snapshots.refresh()
    while (changes := catalog.changes(collection.id, 0, {})).revision != snapshots.current().revision:
        snapshots.refresh()  # somebody wrote in between: compare the same moment of both
    indexes = snapshots.current().indexes
    for modality in changes.parts.keys() | indexes.keys():
        nothing: Any = (np.zeros(0, np.int64), None)
        stored = changes.parts.get(modality, nothing)[0]
        index = indexes.get(modality)
        indexed = index.ids() if index else nothing[0]
        for ids, where in (
            (np.setdiff1d(stored, indexed), "missing from"),
            (np.setdiff1d(indexed, stored), "only in"),
        ):
            if len(ids):
                problems.append(f"{len(ids)} {modality} parts are {where} the vector index (first: {ids[0]})")
    return problems


def _repair(catalog: Catalog, broken: list[int], orphans: dict[str, list[int]]) -> None:
    columns = {"parts": "id", "vectors": "part_id", "attributes": "item_id"}
    with catalog.reading() as connection:
        owners = {
            item_id: collection_id
            for item_id, collection_id in connection.execute("SELECT id, collection_id FROM items")
            if item_id in set(broken)
        }
    for item_id, collection_id in owners.items():
        catalog.remove(collection_id, [item_id])
    with catalog.transaction("repairing the catalog") as connection:
        from mmsearch.writes import new_revision

        new_revision(connection)
        for table, ids in orphans.items():
            for one in ids:
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE {columns[table]} = ?", (one,))
        connection.exec_driver_sql("INSERT INTO fulltext(fulltext) VALUES ('rebuild')")
