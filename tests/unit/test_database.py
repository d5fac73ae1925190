"""The database file: made by migrations, as the tables say; what is no catalog, too new or read-only."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term, schema
from mmsearch.catalog import Catalog
from mmsearch.database import SCHEMA, chunks
from mmsearch.errors import SchemaTooNew, StoreError
from tests.toy import ToyEncoder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    Catalog(tmp_path, create=True).close()
    return tmp_path / "catalog.db"


def rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    found = connection.execute(query).fetchall()
    connection.commit()
    connection.close()
    return found


def test_the_migrations_make_the_tables_of_the_schema(made: Path) -> None:
    def ours(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        return not (kind == "table" and name is not None and name.startswith("fulltext"))

    engine = create_engine(f"sqlite:///{made}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_pages_log_and_ids_are_as_they_must_be(made: Path) -> None:
    assert rows(made, "PRAGMA page_size") == [(16384,)]
    assert rows(made, "PRAGMA journal_mode") == [("wal",)]
    made_by = dict(rows(made, "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    for table in ("items", "parts", "collections", "commits", "roots", "attribute_names"):
        assert "AUTOINCREMENT" in made_by[table]
    assert rows(made, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]
    assert len(rows(made, "SELECT uuid FROM catalog")) == 1


def test_connections_enforce_foreign_keys_and_wait_for_the_disk(made: Path) -> None:
    catalog = Catalog(made.parent, create=False)
    with catalog.reading() as connection:
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    with catalog.transaction() as writer:
        assert writer.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    catalog.close()


def test_opening_again_changes_nothing(made: Path) -> None:
    before = made.read_bytes()
    Catalog(made.parent, create=True).close()
    assert made.read_bytes() == before


@pytest.fixture
def of_0001(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog as the first schema made it: a collection of one item, which has one text part, and a root."""
    with monkeypatch.context() as patch:
        patch.setattr("mmsearch.database.SCHEMA", "0001")
        Catalog(tmp_path, create=True).close()
    path = tmp_path / "catalog.db"
    vector = np.array([1, 0, 0, 0.25]) / np.sqrt(1.0625)
    connection = sqlite3.connect(path)
    connection.executescript(
        "INSERT INTO commits VALUES (1, 77, 1.0);"
        "INSERT INTO collections VALUES (3, 'notes', 'toy', 'toy', 4, 1.0);"
        "INSERT INTO roots VALUES (1, 3, '/notes', '[]');"
        "INSERT INTO items VALUES (5, 3, '/notes/a.txt', 'text', 1, 'a', 3, 1, x'00', 1.0, 1);"
        "INSERT INTO parts VALUES (9, 5, 'text', 0, 0.0, 3.0, NULL, 'red', 1);"
        "INSERT INTO fulltext(rowid, text) VALUES (9, 'red');"
    )
    connection.execute("INSERT INTO vectors VALUES (9, 1, ?)", (vector.astype("<f2").tobytes(),))
    connection.commit()
    connection.close()
    return path


def test_a_catalog_of_the_first_schema_is_brought_up_to_date_as_it_is(of_0001: Path) -> None:
    uuid = rows(of_0001, "SELECT uuid FROM catalog")
    kept = {name: rows(of_0001, f"SELECT * FROM {name}") for name in ("items", "parts", "vectors", "roots")}
    with Engine.open(of_0001.parent, collection="notes", model=ToyEncoder(), create=False) as engine:
        assert engine.search("red")[0].score == pytest.approx(1, abs=1e-3)
        assert engine.search(Query(terms=(Term(text="red"),), hybrid=True))[0].item.id == 5
        assert engine.check() == []
        assert engine.catalog.collection("notes").epoch == 0
    assert rows(of_0001, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]
    assert rows(of_0001, "SELECT uuid FROM catalog") == uuid
    for name, before in kept.items():  # later schemas add columns at the end
        assert [row[: len(before[0])] for row in rows(of_0001, f"SELECT * FROM {name}")] == before
    assert rows(of_0001, "SELECT * FROM canonicals") == [], "a search does not fill them in"
    test_the_migrations_make_the_tables_of_the_schema(of_0001)
    with Engine.open(of_0001.parent, collection="notes", model=ToyEncoder()) as engine:
        engine.add(
            [
                NewItem(
                    key="b", modality=Modality.TEXT, parts=[NewPart(modality=Modality.TEXT, content="blue")]
                )
            ]
        )
        assert {hit.item.key for hit in engine.search("blue")} == {"b", "/notes/a.txt"}
    assert len(rows(of_0001, "SELECT * FROM canonicals")) == 3


def test_a_catalog_of_the_first_schema_that_may_not_be_written_says_what_it_needs(
    of_0001: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(StoreError, match=r"older mmsearch \(schema 0001\)"):
        Catalog(of_0001.parent, create=False)


def test_a_catalog_of_a_newer_schema_is_left_alone(made: Path) -> None:
    rows(made, "UPDATE alembic_version SET version_num = '9999'")
    before = made.read_bytes()
    with pytest.raises(SchemaTooNew, match="9999"):
        Catalog(made.parent, create=True)
    assert made.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"catalog\.db"):
        Catalog(tmp_path, create=True)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(tmp_path: Path) -> None:
    rows(tmp_path / "catalog.db", "CREATE TABLE songs (id INTEGER)")
    with pytest.raises(StoreError, match="not a catalog"):
        Catalog(tmp_path, create=True)
    assert rows(tmp_path / "catalog.db", "SELECT name FROM sqlite_master") == [("songs",)]


def test_a_home_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    for home in (tmp_path / "home", tmp_path / "home" / "below"):
        with pytest.raises(StoreError, match="home"):
            Catalog(home, create=True)


def test_an_empty_file_becomes_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").touch()
    with pytest.raises(StoreError, match="no catalog"):
        Catalog(tmp_path, create=False)
    Catalog(tmp_path, create=True).close()
    assert rows(tmp_path / "catalog.db", "PRAGMA page_size") == [(16384,)]


def test_odd_names_of_homes(tmp_path: Path) -> None:
    for name in ("a b", "100%", "what?", "#1", "ü", "new\nline"):
        Catalog(tmp_path / name, create=True).close()
        assert (tmp_path / name / "catalog.db").is_file()


def test_a_failed_transaction_leaves_nothing(made: Path) -> None:
    catalog = Catalog(made.parent, create=False)

    def fails() -> None:
        with catalog.transaction() as writer:
            writer.exec_driver_sql("INSERT INTO commits (tag, at) VALUES (1, 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert catalog.revision() == (0, 0)
    catalog.close()


def test_chunks_are_all_of_it_in_order() -> None:
    assert [len(some) for some in chunks(range(12_000))] == [5000, 5000, 2000]
    assert [one for some in chunks(range(12_000)) for one in some] == list(range(12_000))
    assert list(chunks([])) == []
