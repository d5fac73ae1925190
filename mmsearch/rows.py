"""Rows of the catalog as the collections, files, items, parts and vectors that they stand for."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mmsearch.attributes import read_attributes
from mmsearch.database import listed, named_rows
from mmsearch.errors import StoreError
from mmsearch.types import Ids, Item, Modality, Part, Space, Vectors

FLOAT16 = 1
"""``vectors.encoding``: little-endian IEEE half precision, ``dim`` values."""


@dataclasses.dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A named set of items that share one encoder. ``model`` is the name or folder it was made with, ``epoch`` the
    revision at which it last was given another (0: never).
    """

    id: int
    name: str
    model: str
    space: str
    dim: int
    created: datetime
    epoch: int = 0
    items: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """The model of a new collection: its name or folder, its space, its fingerprint, and its canonical vectors."""

    model: str
    space: Space
    fingerprint: str | None = None
    canonicals: Mapping[Modality, Vectors] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class FileRecord:
    """What the catalog knows of a file without opening it."""

    id: int
    size: int
    mtime_ns: int
    content_hash: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class FileUpdate:
    """A file that was renamed or touched: its content, and so its parts and vectors, are the same."""

    id: int
    key: str
    size: int
    mtime_ns: int
    title: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What happened to a collection up to a revision (and its tag). ``parts``: new ids, ascending, and vectors.

    If ``epoch`` is later than the revision asked about, all vectors are others now, and these changes mean nothing.
    ``products``: every item that was added or changed has a fused vector.
    """

    revision: int
    tag: int
    epoch: int
    space: str
    parts: Mapping[Modality, tuple[Ids, NDArray[np.float16]]]
    removed: Ids
    products: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Candidates:
    """Parts, ascending by id: ``ids`` (n,), ``owners`` (n,) item ids, content hashes of the items, vectors (n, dim)."""

    ids: Ids
    owners: Ids
    hashes: Sequence[bytes | None]
    vectors: NDArray[np.float16]


def read_items(
    connection: sqlite3.Connection,
    collection: int,
    rows: Sequence[sqlite3.Row],
    with_parts: bool,
    fields: Collection[str] | None = None,
) -> list[Item]:
    """The items of these rows of ``items``, in their order, with some of their attributes or (None) all."""
    ids = [row["id"] for row in rows]
    attributes = read_attributes(connection, collection, ids, fields)
    owned: dict[int, list[Part]] = {}
    if with_parts:
        mine = f"SELECT * FROM parts WHERE item_id IN ({listed(ids)}) ORDER BY item_id, ordinal"
        for row in named_rows(connection, mine):
            owned.setdefault(row["item_id"], []).append(part_of(row))
    return [
        Item(
            id=row["id"],
            key=row["key"],
            modality=Modality(row["modality"]),
            title=row["title"],
            is_file=bool(row["is_file"]),
            size=row["size"],
            mtime_ns=row["mtime_ns"],
            content_hash=row["content_hash"],
            added=datetime.fromtimestamp(row["added"], UTC),
            attributes=attributes.get(row["id"], {}),
            parts=tuple(owned.get(row["id"], ())),
        )
        for row in rows
    ]


def part_of(row: sqlite3.Row) -> Part:
    """A row of ``parts``."""
    return Part(
        id=row["id"],
        modality=Modality(row["modality"]),
        ordinal=row["ordinal"],
        start=row["start"],
        end=row["end"],
        page=row["page"],
        text=row["text"],
        source=row["source"],
        stamp=row["stamp"],
    )


def only_products(connection: sqlite3.Connection, collection: int, since: int = 0) -> bool:
    """Whether all items that were added or changed after a revision have a fused vector."""
    query = (
        f"SELECT 1 FROM items WHERE collection_id = {collection} AND revision > {since}"
        f" AND modality <> '{Modality.FUSED}' LIMIT 1"
    )
    return connection.execute(query).fetchone() is None


def float16(blobs: Sequence[bytes]) -> NDArray[np.float16]:
    """Stored vectors as one matrix (n, dim); (0, 0) if there are none. Raises ``StoreError`` if one is damaged."""
    if not blobs:
        return np.zeros((0, 0), np.float16)
    if len(set(map(len, blobs))) > 1:
        raise StoreError("a stored vector is damaged: run `mmsearch check --repair`")
    return np.frombuffer(b"".join(blobs), "<f2").reshape(len(blobs), -1)
