"""Rows of the catalog as the items, parts and vectors that they stand for."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mmsearch.attributes import read_attributes
from mmsearch.database import listed, named_rows
from mmsearch.errors import StoreError
from mmsearch.types import Item, Modality, Part

FLOAT16 = 1
"""``vectors.encoding``: little-endian IEEE half precision, ``dim`` values."""


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
    )


def float16(blobs: Sequence[bytes]) -> NDArray[np.float16]:
    """Stored vectors as one matrix (n, dim); (0, 0) if there are none. Raises ``StoreError`` if one is damaged."""
    if not blobs:
        return np.zeros((0, 0), np.float16)
    if len(set(map(len, blobs))) > 1:
        raise StoreError("a stored vector is damaged: run `mmsearch check --repair`")
    return np.frombuffer(b"".join(blobs), "<f2").reshape(len(blobs), -1)
