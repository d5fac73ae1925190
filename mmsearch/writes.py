"""Everything that writes to the catalog, through SQLAlchemy Core, inside the caller's transaction."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select, text, update
from sqlalchemy.pool import QueuePool

from mmsearch.attributes import kind_of, to_seconds
from mmsearch.database import chunks
from mmsearch.errors import ItemError
from mmsearch.rows import FLOAT16
from mmsearch.schema import (
    attribute_names,
    attributes,
    collections,
    commits,
    items,
    kept_queries,
    parts,
    roots,
    settings,
    tombstones,
    vectors,
)
from mmsearch.types import Modality, NewItem, Vectors

if TYPE_CHECKING:
    from mmsearch.catalog import FileUpdate


def make_engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
    """SQLAlchemy's engine over connections that ``connect`` opens. Every transaction writes, so it says so at once."""
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def new_revision(connection: Connection) -> int:
    """Open the next revision inside a write transaction and return its number."""
    row = insert(commits).values(tag=secrets.randbits(62), at=time.time()).returning(commits.c.revision)
    return int(connection.execute(row).scalar_one())


def create_collection(connection: Connection, name: str, *, model: str, space: str, dim: int) -> None:
    """Make a collection unless there is one of that name."""
    if connection.execute(select(collections.c.id).where(collections.c.name == name)).first() is None:
        row = {"name": name, "model": model, "space": space, "dim": dim, "created": time.time()}
        connection.execute(insert(collections).values(row))


def delete_collection(connection: Connection, collection: int) -> int:
    """Delete a collection with everything in it; returns the number of items."""
    ids = connection.execute(select(items.c.id).where(items.c.collection_id == collection)).scalars().all()
    new_revision(connection)
    drop_parts(connection, collection, ids, None)
    connection.execute(delete(tombstones).where(tombstones.c.collection_id == collection))
    connection.execute(delete(collections).where(collections.c.id == collection))
    return len(ids)


def remember_root(connection: Connection, collection: int, path: str, exclude: str) -> None:
    """Note an indexed folder with its globs, a JSON list."""
    connection.execute(insert(roots).values(collection_id=collection, path=path, exclude=exclude))


def forget_root(connection: Connection, collection: int, path: str) -> None:
    """Forget an indexed folder."""
    connection.execute(delete(roots).where(roots.c.collection_id == collection, roots.c.path == path))


def change_settings(connection: Connection, collection: int, data: str) -> None:
    """Replace the settings of a collection, a JSON object."""
    new_revision(connection)
    connection.execute(delete(settings).where(settings.c.collection_id == collection))
    connection.execute(insert(settings).values(collection_id=collection, data=data))


def keep_queries(connection: Connection, collection: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Count queries, rows of ``kept_queries``. No new revision: nothing that is searched changes."""
    mine = kept_queries.c.collection_id == collection
    for row in rows:
        known = mine & (kept_queries.c.folded == row["folded"])
        more = {"text": row["text"], "count": kept_queries.c.count + row["count"], "last": row["last"]}
        if not connection.execute(update(kept_queries).where(known).values(more)).rowcount:
            connection.execute(insert(kept_queries).values({"collection_id": collection, **row}))


def add(
    connection: Connection, collection: int, latest: Mapping[str, tuple[NewItem, Vectors]]
) -> dict[str, int]:
    """Store items by key with the vectors of their parts; returns their ids. See ``Catalog.add``."""
    revision = new_revision(connection)
    ids: dict[str, int] = {}
    for keys in chunks(latest):
        found = select(items.c.key, items.c.id).where(
            items.c.collection_id == collection, items.c.key.in_(keys)
        )
        ids.update((key, item_id) for key, item_id in connection.execute(found))
    drop_parts(connection, collection, ids.values(), revision)
    for key, item_id in ids.items():
        values = _item_row(latest[key][0], collection, revision)
        connection.execute(update(items).where(items.c.id == item_id).values(values))
    now = time.time()
    fresh = [
        _item_row(item, collection, revision) | {"added": now}
        for key, (item, _) in latest.items()
        if key not in ids
    ]
    if fresh:
        inserted = insert(items).returning(items.c.key, items.c.id)
        ids.update((key, item_id) for key, item_id in connection.execute(inserted, fresh))
    _write_attributes(connection, collection, {ids[key]: item for key, (item, _) in latest.items()})
    _insert_parts(connection, [(ids[key], item, rows) for key, (item, rows) in latest.items()], revision)
    return ids


def update_files(connection: Connection, collection: int, updates: Sequence[FileUpdate]) -> None:
    """Rename or touch files."""
    revision = new_revision(connection)
    # Two steps, so that files that swapped their names never share one for a moment.
    for number, file in enumerate(updates):
        mine = update(items).where(items.c.id == file.id, items.c.collection_id == collection)
        connection.execute(mine.values(key=f"\0{number}"))
    for file in updates:
        values: dict[str, Any] = {"key": file.key, "size": file.size, "mtime_ns": file.mtime_ns}
        if file.title is not None:
            values["title"] = file.title
        connection.execute(update(items).where(items.c.id == file.id).values(values | {"revision": revision}))


def remove(connection: Connection, collection: int, ids: Iterable[int]) -> int:
    """Remove items; returns how many there were."""
    removed = 0
    revision = new_revision(connection)
    for some in chunks(one for one in dict.fromkeys(ids) if 0 < one < 1 << 63):
        mine = select(items.c.id).where(items.c.collection_id == collection, items.c.id.in_(some))
        known = connection.execute(mine).scalars().all()
        drop_parts(connection, collection, known, revision)
        connection.execute(delete(items).where(items.c.id.in_(known)))
        removed += len(known)
    return removed


def _item_row(item: NewItem, collection: int, revision: int) -> dict[str, Any]:
    """The columns of ``items`` that a new or replaced item sets."""
    return {
        "collection_id": collection,
        "key": item.key,
        "modality": item.modality.value,
        "is_file": int(item.is_file),
        "title": item.title,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "content_hash": item.content_hash,
        "revision": revision,
    }


def _insert_parts(
    connection: Connection, owned: Sequence[tuple[int, NewItem, Vectors]], revision: int
) -> None:
    """Store parts, vectors (parts, dim) as float16, and full text of items, given with their ids."""
    rows: list[dict[str, Any]] = []
    for item_id, item, _ in owned:
        for ordinal, part in enumerate(item.parts):
            said = part.text
            if said is None and part.modality is Modality.TEXT and isinstance(part.content, str):
                said = part.content
            row = {
                "item_id": item_id,
                "modality": part.modality.value,
                "ordinal": ordinal,
                "revision": revision,
            }
            rows.append(row | {"start": part.start, "end": part.end, "page": part.page, "text": said})
    if not rows:
        return
    inserted = insert(parts).returning(parts.c.id, sort_by_parameter_order=True)
    ids = connection.execute(inserted, rows).scalars().all()
    stacked = np.concatenate([matrix for _, _, matrix in owned]).astype("<f2")
    blobs = [
        {"part_id": i, "encoding": FLOAT16, "data": row.tobytes()}
        for i, row in zip(ids, stacked, strict=True)
    ]
    connection.execute(insert(vectors), blobs)
    words = [{"rowid": i, "text": row["text"]} for i, row in zip(ids, rows, strict=True) if row["text"]]
    if words:
        connection.execute(text("INSERT INTO fulltext(rowid, text) VALUES (:rowid, :text)"), words)


def drop_parts(
    connection: Connection, collection: int, item_ids: Iterable[int], revision: int | None
) -> None:
    """Delete the parts (and with them the vectors), full text and attributes of items; tombstones unless None."""
    for some in chunks(item_ids):
        old = connection.execute(select(parts.c.id, parts.c.text).where(parts.c.item_id.in_(some))).all()
        said = [{"rowid": part_id, "text": words} for part_id, words in old if words]
        if said:
            forget = "INSERT INTO fulltext(fulltext, rowid, text) VALUES ('delete', :rowid, :text)"
            connection.execute(text(forget), said)
        connection.execute(delete(parts).where(parts.c.item_id.in_(some)))
        _drop_attributes(connection, collection, some)
        if old and revision is not None:
            stones = [
                {"revision": revision, "part_id": part_id, "collection_id": collection} for part_id, _ in old
            ]
            connection.execute(insert(tombstones), stones)


def _write_attributes(connection: Connection, collection: int, added: Mapping[int, NewItem]) -> None:
    """Write the attributes of the items with these ids, which have none yet.

    Raises ``ItemError`` naming item and attribute if a value's kind is not the attribute's.
    """
    known = {name: (name_id, kind) for name_id, name, kind in connection.execute(_names(collection))}
    rows: list[dict[str, Any]] = []
    for item_id, item in added.items():
        for name, value in item.attributes.items():
            kind = kind_of(value)
            if kind is None:
                raise ItemError(
                    f"{item.key}: attribute {name!r} cannot hold {value!r}; give a text, a list of texts, a finite "
                    "number (whole ones up to 2**53), a boolean or a datetime"
                )
            if name not in known:
                row = {"collection_id": collection, "name": name, "kind": kind}
                added_name = insert(attribute_names).values(row).returning(attribute_names.c.id)
                known[name] = (connection.execute(added_name).scalar_one(), kind)
            name_id, wanted = known[name]
            if kind != wanted:
                raise ItemError(
                    f"{item.key}: attribute {name!r} is a {wanted} in this collection, but {value!r} is a {kind}"
                )
            rows += [{"name_id": name_id, "item_id": item_id} | entry for entry in _entries(value, kind)]
    if rows:
        connection.execute(insert(attributes), rows)


def _drop_attributes(connection: Connection, collection: int, item_ids: Sequence[int]) -> None:
    """Delete the attributes of these items."""
    names = [name_id for name_id, _, _ in connection.execute(_names(collection))]
    if names:
        mine = attributes.c.name_id.in_(names) & attributes.c.item_id.in_(item_ids)
        connection.execute(delete(attributes).where(mine))


def _names(collection: int) -> Any:
    columns = (attribute_names.c.id, attribute_names.c.name, attribute_names.c.kind)
    return (
        select(*columns).where(attribute_names.c.collection_id == collection).order_by(attribute_names.c.name)
    )


def _entries(value: Any, kind: str) -> list[dict[str, Any]]:
    """Rows of one value. Ordinal 0 is a single value; a list counts from 1, so that [x] is not x when read back."""
    if kind == "text" and not isinstance(value, str):
        return [{"ordinal": n, "number": None, "text": entry} for n, entry in enumerate(value, start=1)]
    number = None if kind == "text" else to_seconds(value) if kind == "datetime" else float(value)
    return [{"ordinal": 0, "number": number, "text": value if kind == "text" else None}]
