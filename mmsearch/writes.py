"""Everything that writes to the catalog, through SQLAlchemy Core, inside the caller's transaction."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Connection,
    Engine,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.pool import QueuePool

from mmsearch.attributes import kind_of, to_seconds
from mmsearch.database import chunks
from mmsearch.errors import ItemError
from mmsearch.rows import FLOAT16
from mmsearch.schema import (
    admitted,
    attribute_names,
    attributes,
    canonicals,
    collections,
    commits,
    items,
    kept_queries,
    parts,
    roots,
    settings,
    shadows,
    tombstones,
    vectors,
)
from mmsearch.types import AttributeChanges, Attributes, Modality, NewItem, Vectors

if TYPE_CHECKING:
    from mmsearch.rows import FileUpdate, Identity


def make_engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
    """SQLAlchemy's engine over connections that ``connect`` opens. Every transaction writes, so it says so at once."""
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def new_revision(connection: Connection) -> int:
    """Open the next revision inside a write transaction and return its number."""
    row = insert(commits).values(tag=secrets.randbits(62), at=time.time()).returning(commits.c.revision)
    return int(connection.execute(row).scalar_one())


def create_collection(connection: Connection, name: str, identity: Identity) -> int:
    """Make a collection unless there is one of that name; returns its id."""
    known = connection.execute(select(collections.c.id).where(collections.c.name == name)).scalar()
    if known is not None:
        return int(known)
    row = {
        "name": name,
        "model": identity.model,
        "space": identity.space.id,
        "dim": identity.space.dim,
        "created": time.time(),
    }
    made = connection.execute(insert(collections).values(row).returning(collections.c.id)).scalar_one()
    admit(connection, made, identity.fingerprint, identity.canonicals)
    return int(made)


def admit(
    connection: Connection,
    collection: int,
    fingerprint: str | None,
    fresh: Mapping[Modality, NDArray[np.floating]],
) -> None:
    """Remember that an encoder may encode for a collection, and canonical vectors that it did not have yet."""
    if fingerprint is not None:
        values = {"collection_id": collection, "fingerprint": fingerprint}
        connection.execute(insert(admitted).prefix_with("OR IGNORE").values(values))
    for modality, rows in fresh.items():
        values = {
            "collection_id": collection,
            "modality": modality.value,
            "data": rows.astype("<f2").tobytes(),
        }
        connection.execute(insert(canonicals).prefix_with("OR IGNORE").values(values))


def delete_collection(connection: Connection, collection: int) -> int:
    """Delete a collection with everything in it, its shadow too; returns the number of items."""
    shadow = select(shadows.c.shadow_id).where(shadows.c.collection_id == collection)
    for hidden in connection.execute(shadow).scalars().all():
        delete_collection(connection, hidden)
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
    given = {ids[key]: (key, item.attributes) for key, (item, _) in latest.items()}
    _write_attributes(connection, collection, given)
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


def update_attributes(
    connection: Connection, collection: int, changes: AttributeChanges, *, replace: bool
) -> list[str]:
    """Change attributes of items by key; returns the keys that no item has. See ``Engine.update``.

    In plain SQL: a shop does this dozens of times a second, and putting statements together took half of the time.
    """
    run = connection.exec_driver_sql
    ids: dict[str, int] = {}
    for keys in chunks(changes):
        query = f"SELECT key, id FROM items WHERE collection_id = ? AND key IN ({','.join('?' * len(keys))})"
        ids.update((key, item_id) for key, item_id in run(query, (collection, *keys)))
    if ids:
        known = run("SELECT name, id FROM attribute_names WHERE collection_id = ?", (collection,))
        names = {row.name: row.id for row in known}
        if replace:
            old = [(name_id, item_id) for item_id in ids.values() for name_id in names.values()]
        else:
            old = [(names[name], ids[key]) for key in ids for name in changes[key] if name in names]
        if old:
            run("DELETE FROM attributes WHERE name_id = ? AND item_id = ?", old)
        _write_attributes(
            connection,
            collection,
            {
                item_id: (key, {name: new for name, new in changes[key].items() if new is not None})
                for key, item_id in ids.items()
            },
        )
        revision = new_revision(connection)
        run("UPDATE items SET revision = ? WHERE id = ?", [(revision, item_id) for item_id in ids.values()])
    return [key for key in changes if key not in ids]


def stamp_parts(connection: Connection, stamps: Mapping[int, tuple[str | None, str | None]]) -> None:
    """Note sources and stamps of parts: other files or versions with the same content."""
    values: dict[str, Any] = {"source": bindparam("at"), "stamp": bindparam("now")}
    mine = update(parts).where(parts.c.id == bindparam("part")).values(values)
    connection.execute(mine, [{"part": part, "at": at, "now": now} for part, (at, now) in stamps.items()])


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
        "feed_id": item.feed,
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
            row = {name: getattr(part, name) for name in ("start", "end", "page", "source", "stamp")}
            row |= {"item_id": item_id, "ordinal": ordinal, "revision": revision, "text": said}
            rows.append(row | {"modality": part.modality.value})
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


def _write_attributes(
    connection: Connection, collection: int, added: Mapping[int, tuple[str, Attributes]]
) -> None:
    """Write the attributes of the items with these ids (and keys), which have none of these names yet.

    Raises ``ItemError`` naming item and attribute if a value's kind is not the attribute's.
    """
    known = {name: (name_id, kind) for name_id, name, kind in connection.execute(_names(collection))}
    rows: list[dict[str, Any]] = []
    for item_id, (key, given) in added.items():
        for name, value in given.items():
            kind = kind_of(value)
            if kind is None:
                raise ItemError(
                    f"{key}: attribute {name!r} cannot hold {value!r}; give a text, a list of texts, a finite "
                    "number (whole ones up to 2**53), a boolean or a datetime"
                )
            if name not in known:
                row = {"collection_id": collection, "name": name, "kind": kind}
                added_name = insert(attribute_names).values(row).returning(attribute_names.c.id)
                known[name] = (connection.execute(added_name).scalar_one(), kind)
            name_id, wanted = known[name]
            if kind != wanted:
                shown = str(value) if kind == "datetime" else repr(value)
                raise ItemError(
                    f"{key}: attribute {name!r} is a {wanted} in this collection, but {shown} is a {kind}"
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
