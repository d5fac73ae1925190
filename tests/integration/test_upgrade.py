"""A catalog of the first schema, opened today: everything is there, and products go in beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine

from indexer.product import Product
from indexer.products import upsert
from mmsearch import Engine, Modality, migrations
from mmsearch.database import SCHEMA
from tests.oracle import directions
from tests.toy import ToyEncoder

VECTORS = directions(3, 4, 5)


def first_catalog(home: Path) -> None:
    """What the first release wrote, row by row: two photos with an attribute, one text."""
    home.mkdir()
    engine = create_engine(f"sqlite:///{home / 'catalog.db'}")
    with engine.begin() as connection:
        migrations.upgrade(connection, "0001")
    engine.dispose()
    database = sqlite3.connect(home / "catalog.db")
    database.executescript(
        """
        PRAGMA journal_mode = WAL;
        INSERT INTO catalog VALUES ('0123456789abcdef0123456789abcdef');
        INSERT INTO commits (tag, at) VALUES (7, 1), (8, 2);
        INSERT INTO collections (name, model, space, dim, created) VALUES ('default', 'toy', 'toy', 4, 1);
        INSERT INTO roots (collection_id, path, exclude) VALUES (1, '/photos', '[]');
        INSERT INTO attribute_names (collection_id, name, kind) VALUES (1, 'width', 'number');
        """
    )
    for n, kind in enumerate(["image", "image", "text"], start=1):
        words = "a red kite" if kind == "text" else None
        row = (n, f"/photos/{n}", kind, f"title {n}", bytes([n]) * 16, n)
        database.execute(
            "INSERT INTO items (id, collection_id, key, modality, is_file, title, size, mtime_ns, content_hash, added,"
            " revision) VALUES (?, 1, ?, ?, 1, ?, 5, 6, ?, 1, ?)",
            row,
        )
        database.execute(
            "INSERT INTO parts (id, item_id, modality, ordinal, text, revision) VALUES (?, ?, ?, 0, ?, ?)",
            (n, n, kind, words, n),
        )
        database.execute("INSERT INTO vectors VALUES (?, 1, ?)", (n, VECTORS[n - 1].astype("<f2").tobytes()))
        database.execute("INSERT INTO attributes VALUES (1, ?, 0, ?, NULL)", (n, 100.0 * n))
        if words:
            database.execute("INSERT INTO fulltext(rowid, text) VALUES (?, ?)", (n, words))
    database.commit()
    database.close()


def test_a_catalog_of_the_first_schema_is_migrated_and_whole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first_catalog(home)
    with Engine.open(home, model=ToyEncoder()) as engine:
        items = list(engine.items())
        assert [item.key for item in items] == ["/photos/1", "/photos/2", "/photos/3"]
        assert [item.attributes for item in items] == [{"width": 100 * n} for n in (1, 2, 3)]
        stored = np.concatenate([engine.vectors(item) for item in items])
        np.testing.assert_array_equal(stored, VECTORS.astype(np.float16).astype(np.float32))
        assert [part.source for item in items for part in item.parts] == [None] * 3
        assert engine.roots() == {"/photos": []}
        assert engine.status().feeds == []
        assert engine.check() == []
        assert upsert(engine, [Product(key="p", title="red hat", attributes={"width": 7})]).added == 1
        assert engine.update({"p": {"width": 8}, "/photos/1": {"width": 9}}) == []
        assert len(engine.search("red", k=9)) == 4
        (product,) = engine.get(engine.select("width = 8"))
        assert [part.modality for part in product.parts] == [Modality.FUSED, Modality.TEXT]
        assert min(part.id for part in product.parts) > 3
    version = (
        sqlite3.connect(home / "catalog.db").execute("SELECT version_num FROM alembic_version").fetchone()
    )
    assert version == (SCHEMA,)
