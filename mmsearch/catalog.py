"""The catalog: items, parts, attributes and vectors of every collection. The one truth; everything else is derived.

A committed row is safe and nothing else needs to be. Every write is one transaction with a revision of its own, and
removed parts leave tombstones, so that a reader can ask for what changed since the revision it knows.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.database import Database, blocks, chunks, listed, named_rows, translated
from mmsearch.errors import CollectionNotFound, ItemError, ItemNotFound
from mmsearch.rows import (
    Candidates,
    Changes,
    CollectionInfo,
    FileRecord,
    FileUpdate,
    Identity,
    float16,
    only_products,
    part_of,
    read_items,
)
from mmsearch.types import Ids, Item, Modality, NewItem, Part, Vectors


class Catalog(Database):
    """All collections of one home. Methods with a ``collection`` take ``CollectionInfo.id``."""

    @property
    def uuid(self) -> str:
        """The catalog's identity; it travels with copies and backups of the file."""
        with self.reading() as connection:
            return str(connection.execute("SELECT uuid FROM catalog").fetchone()[0])

    def revision(self) -> tuple[int, int]:
        """The newest revision and its random tag; (0, 0) before the first write."""
        with self.reading() as connection:
            return newest(connection)

    def has_revision(self, revision: int, tag: int) -> bool:
        """Whether ``revision`` happened in this catalog's own history (a restored backup has another tag there)."""
        if revision == 0:
            return True
        with self.reading() as connection:
            row = connection.execute("SELECT tag FROM commits WHERE revision = ?", (revision,)).fetchone()
        return row is not None and row[0] == tag

    # -- collections ---------------------------------------------------------------------------------------------

    def collections(self) -> list[CollectionInfo]:
        """All collections with their number of items, by name; those that ``mmsearch.shadows`` hides are left out."""
        items = "(SELECT count(*) FROM items i WHERE i.collection_id = collections.id)"
        query = f"SELECT {_COLUMNS}, {items} FROM collections WHERE {_SHOWN} ORDER BY name"
        with self.reading() as connection:
            return [_collection(row) for row in connection.execute(query)]

    def collection(self, name: str) -> CollectionInfo:
        """The collection called ``name`` (its item count is left at 0). Raises ``CollectionNotFound``."""
        with self.reading() as connection:
            query = f"SELECT {_COLUMNS} FROM collections WHERE name = ? AND {_SHOWN}"
            row = connection.execute(query, (name,)).fetchone()
        if row is None:
            known = ", ".join(found.name for found in self.collections()) or "none yet"
            raise CollectionNotFound(f"no collection {name!r} in {self.home}; there are: {known}")
        return _collection(row)

    def collection_by_id(self, collection: int) -> CollectionInfo | None:
        """The collection with this id as it is now, hidden ones too; None if it was deleted."""
        query = f"SELECT {_COLUMNS} FROM collections WHERE id = ?"
        with self.reading() as connection:
            row = connection.execute(query, (collection,)).fetchone()
        return None if row is None else _collection(row)

    def epoch(self, collection: int) -> int:
        """The revision before which nothing that was derived from a collection is of use; 0 if it was deleted."""
        with self.reading() as connection:
            return epoch_of(connection, collection)[0]

    def create_collection(self, name: str, identity: Identity) -> CollectionInfo:
        """Make a collection, or return the one of that name."""
        if not name.strip():
            raise ItemError("the name of a collection must not be empty")
        from mmsearch import writes

        with self.transaction() as connection:
            writes.create_collection(connection, name, identity)
        return self.collection(name)

    def delete_collection(self, name: str) -> int:
        """Delete a collection with everything in it; returns the number of items. Raises ``CollectionNotFound``."""
        found = self.collection(name)
        from mmsearch import writes

        with self.transaction() as connection:
            count = writes.delete_collection(connection, found.id)
        index = index_path(self.home, found.id)
        with translated(index):
            index.unlink(missing_ok=True)
        return count

    # -- roots ---------------------------------------------------------------------------------------------------

    def roots(self, collection: int) -> dict[str, list[str]]:
        """Indexed folders (and files) with the globs that were excluded."""
        query = "SELECT path, exclude FROM roots WHERE collection_id = ? ORDER BY path"
        with self.reading() as connection:
            return {path: json.loads(exclude) for path, exclude in connection.execute(query, (collection,))}

    def remember_root(self, collection: int, path: str, exclude: Sequence[str]) -> None:
        """Note that ``path`` was indexed, for the next run without arguments."""
        from mmsearch import writes

        with self.transaction() as connection:
            writes.forget_root(connection, collection, path)
            writes.remember_root(connection, collection, path, json.dumps(list(exclude)))

    def forget_root(self, collection: int, path: str) -> None:
        """Leave ``path`` out of the next run without arguments."""
        from mmsearch import writes

        with self.transaction() as connection:
            writes.forget_root(connection, collection, path)

    # -- writes: they import SQLAlchemy, which a search does without -------------------------------------------

    def add(self, collection: int, new: Sequence[NewItem], encoded: Sequence[Vectors]) -> list[int]:
        """Store items with the vectors of their parts, (parts, dim) each, in one transaction; returns their ids.

        An item whose key exists keeps its id and gets new parts. Raises ``ItemError`` if an attribute's kind does
        not fit the one it has in this collection; then nothing is stored.
        """
        # Of items with the same key the last one counts.
        latest = {item.key: (item, rows) for item, rows in zip(new, encoded, strict=True)}
        from mmsearch import writes

        with self.transaction() as connection:
            ids = writes.add(connection, collection, latest)
        return [ids[item.key] for item in new]

    def update_files(self, collection: int, updates: Iterable[FileUpdate]) -> None:
        """Rename or touch files in one transaction; parts and vectors stay as they are."""
        from mmsearch import writes

        with self.transaction() as connection:
            writes.update_files(connection, collection, list(updates))

    def remove(self, collection: int, ids: Iterable[int]) -> int:
        """Remove items; returns how many there were."""
        from mmsearch import writes

        with self.transaction() as connection:
            return writes.remove(connection, collection, ids)

    # -- reads ---------------------------------------------------------------------------------------------------

    def changes(self, collection: int, since: int, after: Mapping[Modality, int]) -> Changes:
        """New vectors with ids above ``after`` (by modality) and ids removed later than revision ``since``."""
        with self.reading() as connection:
            revision, tag = newest(connection)
            epoch, space = epoch_of(connection, collection)
            starts = {after.get(modality, 0) for modality in Modality}
            newer = f"p.id > {min(starts)}"
            products = only_products(connection, collection, since)
            if len(starts) > 1:  # else the vectors of a modality that is known would all be read again
                each = [
                    f"(p.modality = '{modality}' AND p.id > {after.get(modality, 0)})"
                    for modality in Modality
                ]
                newer += f" AND ({' OR '.join(each)})"
            query = "SELECT p.id, p.modality, v.data FROM parts p JOIN vectors v ON v.part_id = p.id"
            others = f"SELECT id FROM collections WHERE id <> {collection} LIMIT 1"
            if (
                since and len(starts) == 1
            ):  # what is new belongs to items that changed: nothing of others is read
                query = (
                    "SELECT p.id, p.modality, v.data FROM items i CROSS JOIN parts p ON p.item_id = i.id"
                    " CROSS JOIN vectors v ON v.part_id = p.id"
                )
                newer += f" AND i.collection_id = {collection} AND i.revision > {since}"
            elif connection.execute(others).fetchone() is not None:
                query += f" JOIN items i ON i.id = p.item_id AND i.collection_id = {collection}"
            query += f" WHERE {newer} ORDER BY p.id"
            pieces: dict[Modality, list[tuple[Ids, NDArray[np.float16]]]] = {}
            for rows in blocks(connection, query):
                for modality in Modality:
                    fresh = [row for row in rows if row[1] == modality]
                    if fresh:
                        ids, _, blobs = zip(*fresh, strict=True)
                        pieces.setdefault(modality, []).append((np.array(ids, np.int64), float16(blobs)))
            # From the start everything that is gone is simply not there.
            gone = (
                f"SELECT part_id FROM tombstones WHERE revision > {since or revision}"
                f" AND collection_id = {collection}"
            )
            removed = np.array(connection.execute(gone).fetchall(), np.int64).reshape(-1)
        found = {
            modality: (
                np.concatenate([ids for ids, _ in some]),
                np.concatenate([rows for _, rows in some]),
            )
            for modality, some in pieces.items()
        }
        return Changes(revision, tag, epoch, space, found, removed, products)

    def removed_since(self, revision: int) -> list[int]:
        """Ids of the parts that were removed later than a revision, of collections that are still there."""
        query = "SELECT part_id FROM tombstones WHERE revision > ?"
        with self.reading() as connection:
            return [part for (part,) in connection.execute(query, (revision,))]

    def part_counts(self, collection: int) -> dict[Modality, int]:
        """Number of parts by modality."""
        query = (
            "SELECT p.modality, count(*) FROM parts p JOIN items i ON i.id = p.item_id"
            f" WHERE i.collection_id = {collection} GROUP BY p.modality"
        )
        with self.reading() as connection:
            return {Modality(name): count for name, count in connection.execute(query)}

    def candidates(self, part_ids: Ids) -> Candidates:
        """What ranking needs of these parts; those that no longer exist are left out."""
        rows: list[Any] = []
        with self.reading() as connection:
            for some in chunks(np.sort(part_ids).tolist()):
                query = (
                    "SELECT p.id, p.item_id, i.content_hash, v.data FROM parts p JOIN vectors v ON v.part_id = p.id"
                    f" JOIN items i ON i.id = p.item_id WHERE p.id IN ({listed(some)}) ORDER BY p.id"
                )
                rows += connection.execute(query).fetchall()
        return Candidates(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            [row[2] for row in rows],
            float16([row[3] for row in rows]),
        )

    def existing(
        self,
        collection: int,
        ids: Sequence[int],
        *,
        with_parts: bool = False,
        fields: Collection[str] | None = None,
    ) -> dict[int, Item]:
        """Items by id; those that are gone are left out. Without parts unless asked for, with these attributes (None:
        with all).
        """
        found: dict[int, Item] = {}
        with self.reading() as connection:
            for some in chunks(ids):
                # The collection is compared here: in the query SQLite would walk its index instead of the ids.
                rows = named_rows(connection, f"SELECT * FROM items WHERE id IN ({listed(some)})")
                mine = [row for row in rows if row["collection_id"] == collection]
                read = read_items(connection, collection, mine, with_parts, fields)
                found.update((item.id, item) for item in read)
        return found

    def get(self, collection: int, ids: Sequence[int]) -> list[Item]:
        """Items with their parts, in the order asked for. Raises ``ItemNotFound`` naming the first that is missing."""
        found = self.existing(collection, ids, with_parts=True)
        for wanted in ids:
            if wanted not in found:
                raise ItemNotFound(f"no item {wanted} in this collection; it may have been removed")
        return [found[wanted] for wanted in ids]

    def find(self, collection: int, key: str) -> Item | None:
        """The item with this key, or None."""
        query = "SELECT * FROM items WHERE collection_id = ? AND key = ?"
        with self.reading() as connection:
            rows = named_rows(connection, query, (collection, key))
            return next(iter(read_items(connection, collection, rows, True)), None)

    def page(self, collection: int, after: int = 0, limit: int = 1000) -> list[Item]:
        """The next ``limit`` items with ids above ``after``, ascending."""
        query = "SELECT * FROM items WHERE collection_id = ? AND id > ? ORDER BY id LIMIT ?"
        with self.reading() as connection:
            rows = named_rows(connection, query, (collection, after, limit))
            return read_items(connection, collection, rows, True)

    def parts_by_id(self, ids: Sequence[int]) -> dict[int, Part]:
        """Parts by id; ids that are gone are left out."""
        found: dict[int, Part] = {}
        with self.reading() as connection:
            for some in chunks(ids):
                rows = named_rows(connection, f"SELECT * FROM parts WHERE id IN ({listed(some)})")
                found.update((row["id"], part_of(row)) for row in rows)
        return found

    def known_parts(self, ids: Sequence[int]) -> set[int]:
        """Those of these parts that there are."""
        with self.reading() as connection:
            found = (
                connection.execute(f"SELECT id FROM parts WHERE id IN ({listed(some)})")
                for some in chunks(ids)
            )
            return {part for rows in found for (part,) in rows}

    def vectors_of(self, part_ids: Sequence[int]) -> Vectors:
        """Stored vectors (n, dim) float32, in the order asked for. Raises ``ItemNotFound`` if a part is gone."""
        order = np.array(part_ids, np.int64)
        found = self.candidates(order)
        missing = np.setdiff1d(order, found.ids)
        if len(missing):
            raise ItemNotFound(f"part {missing[0]} is gone: its item was removed or replaced a moment ago")
        return found.vectors[np.searchsorted(found.ids, order)].astype(np.float32)

    def files(self, collection: int, under: str | None = None) -> dict[str, FileRecord]:
        """File items by key: all, or those below the folder ``under`` (or that very file)."""
        query = (
            "SELECT key, id, size, mtime_ns, content_hash FROM items WHERE collection_id = ? AND is_file = 1"
        )
        values: list[object] = [collection]
        if under is not None:
            folder = under.rstrip(os.sep) + os.sep
            query += " AND (key >= ? AND key < ? OR key = ?)"
            values += [folder, folder[:-1] + chr(ord(os.sep) + 1), under]
        with self.reading() as connection:
            return {row[0]: FileRecord(*row[1:]) for row in connection.execute(query, values)}

    def by_hash(self, collection: int, hashes: Collection[bytes]) -> dict[bytes, int]:
        """Of each content hash that is known, the lowest id of an item with that content."""
        found: dict[bytes, int] = {}
        for item_id, _, content_hash in self.same_content(collection, hashes):
            found.setdefault(content_hash, item_id)
        return found

    def same_content(self, collection: int, hashes: Collection[bytes]) -> list[tuple[int, str, bytes]]:
        """Id, key and content hash of every item with one of these hashes, by id."""
        found: list[tuple[int, str, bytes]] = []
        if not hashes:
            return found
        with self.reading() as connection:
            for some in chunks(hashes):
                query = (
                    f"SELECT id, key, content_hash FROM items WHERE collection_id = {int(collection)}"
                    f" AND content_hash IN ({','.join('?' * len(some))})"
                )
                found += connection.execute(query, some).fetchall()
        return sorted(found)

    def full_text(
        self, collection: int, words: Sequence[str], limit: int
    ) -> list[tuple[int, Modality, float]]:
        """Parts that contain any of ``words``, best BM25 first: part id, modality, score (higher is better)."""
        match = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        query = (
            "SELECT p.id, p.modality, -bm25(fulltext) AS score FROM fulltext JOIN parts p ON p.id = fulltext.rowid"
            " JOIN items i ON i.id = p.item_id WHERE fulltext MATCH ? AND i.collection_id = ?"
            " ORDER BY score DESC, p.id LIMIT ?"
        )
        with self.reading() as connection:
            rows = connection.execute(query, (match, collection, limit))
            return [(part_id, Modality(modality), score) for part_id, modality, score in rows]

    def attribute_kinds(self, collection: int) -> dict[str, str]:
        """The attributes that items of this collection have, with their kinds."""
        query = "SELECT name, kind FROM attribute_names WHERE collection_id = ? ORDER BY name"
        with self.reading() as connection:
            return dict(connection.execute(query, (collection,)).fetchall())


def index_path(home: Path, collection: int) -> Path:
    """Where the index file of a collection lives."""
    return home / "index" / f"{collection}.mmx"


def newest(connection: sqlite3.Connection) -> tuple[int, int]:
    """The newest revision and its tag; (0, 0) before the first write."""
    row = connection.execute("SELECT revision, tag FROM commits ORDER BY revision DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, 0)


def epoch_of(connection: sqlite3.Connection, collection: int) -> tuple[int, str]:
    """The epoch of a collection and its space; (0, "") if it was deleted."""
    row = connection.execute("SELECT epoch, space FROM collections WHERE id = ?", (collection,)).fetchone()
    return (row[0], row[1]) if row else (0, "")


_COLUMNS = "id, name, model, space, dim, created, epoch"
_SHOWN = "id NOT IN (SELECT shadow_id FROM shadows)"


def _collection(row: Any) -> CollectionInfo:
    created = datetime.fromtimestamp(row[5], UTC)
    return CollectionInfo(row[0], row[1], row[2], row[3], row[4], created, *row[6:])
