"""The index file is a cache: lost, damaged, foreign, newer or older than the catalog, the results are right."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import StoreError
from tests.oracle import Piece, Thing, assert_best, directions, groups
from tests.toy import ToyEncoder

DIM, LIMIT = 6, 20
POOL = directions(200, DIM)
ENCODER = ToyEncoder(dim=DIM)
Things = dict[str, Thing]


def things(first: int, last: int) -> Things:
    return {f"k{n}": Thing([Piece(Modality.IMAGE, POOL[n])]) for n in range(first, last)}


def add(engine: Engine, some: Things) -> list[int]:
    return engine.add([thing.new(key) for key, thing in some.items()])


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with opened(tmp_path / "home") as engine:
        add(engine, things(0, 50))
        engine.save()
    assert index_of(tmp_path / "home").is_file()
    return tmp_path / "home"


def opened(home: Path, notices: list[str] | None = None) -> Engine:
    return Engine.open(
        home, model=ENCODER, exact_limit=LIMIT, notice=(notices if notices is not None else []).append
    )


def index_of(home: Path) -> Path:
    return home / "index" / "1.mmx"


def assert_right(engine: Engine, expected: Things) -> None:
    for query in POOL[:4]:
        assert_best(engine.search(Query(terms=(Term(vector=query),), k=300)), groups(expected, query), 300)
    assert engine.check() == []


def test_a_large_collection_has_a_file_and_a_small_one_has_none(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        ids = add(engine, things(0, LIMIT))
        engine.save()
        assert not index_of(tmp_path).exists()
        ids += add(engine, things(LIMIT, LIMIT + 1))
        engine.save()
        assert index_of(tmp_path).exists()
        assert engine.status().index_bytes > 0
        engine.remove(ids[:10])
        engine.save()
        assert not index_of(tmp_path).exists()
        assert_right(engine, things(10, LIMIT + 1))


def test_the_first_save_of_a_large_collection_finds_nothing_missing(
    tmp_path: Path, notices: list[str]
) -> None:
    with opened(tmp_path, notices) as engine:
        add(engine, things(0, 50))
        engine.save()
    assert notices == []


def test_a_good_file_is_used_and_what_came_later_is_read(home: Path, notices: list[str]) -> None:
    with opened(home) as engine:
        ids = add(engine, things(50, 52))
        engine.remove(ids[:1])
        engine.add(
            [
                NewItem(
                    key="k0",
                    modality=Modality.IMAGE,
                    parts=[NewPart(modality=Modality.IMAGE, vector=POOL[99])],
                )
            ]
        )
    before = index_of(home).read_bytes()
    with opened(home, notices) as engine:
        assert_right(
            engine, things(1, 50) | things(51, 52) | {"k0": Thing([Piece(Modality.IMAGE, POOL[99])])}
        )
    assert notices == []
    assert index_of(home).read_bytes() == before, "a few changes are not worth a new file"


def test_many_changes_are_worth_a_new_file(home: Path, notices: list[str]) -> None:
    before = index_of(home).read_bytes()
    with opened(home, notices) as engine:
        add(engine, things(50, 60))
        engine.save()
    assert index_of(home).read_bytes() != before
    with opened(home, notices) as engine:
        assert_right(engine, things(0, 60))
    assert notices == []


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_text("not an index")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(gone, "missing"), (empty, "damaged"), (cut, "damaged"), (flipped, "damaged"), (text, "damaged")],
)
def test_a_lost_or_damaged_file_is_made_again(
    home: Path, notices: list[str], damage: Callable[[Path], None], says: str
) -> None:
    damage(index_of(home))
    with opened(home, notices) as engine:
        assert_right(engine, things(0, 50))
    assert [says in line for line in notices] == [True]
    with opened(home, notices) as engine:
        assert_right(engine, things(0, 50))
    assert len(notices) == 1, "mended for good"


def test_a_file_that_cannot_be_written_does_not_stop_a_search(home: Path, notices: list[str]) -> None:
    folder(index_of(home))
    with opened(home, notices) as engine:
        assert_right(engine, things(0, 50))
        with pytest.raises(StoreError, match=r"1\.mmx"):
            engine.save()
    assert any("not saved" in line for line in notices)


def test_a_foreign_file_is_not_used(home: Path, tmp_path: Path, notices: list[str]) -> None:
    with opened(tmp_path / "other") as engine:
        add(engine, things(100, 190))
        engine.save()
    shutil.copy(index_of(tmp_path / "other"), index_of(home))
    with opened(home, notices) as engine:
        assert_right(engine, things(0, 50))
    assert ["another catalog" in line for line in notices] == [True]


def backup(home: Path, to: Path) -> None:
    source, target = sqlite3.connect(home / "catalog.db"), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


@pytest.mark.parametrize("further", [0, 10, 30])
def test_a_restored_backup_beside_a_newer_file(
    home: Path, tmp_path: Path, notices: list[str], further: int
) -> None:
    """Part ids and revisions come again after a restore and mean other vectors: only the tag tells."""
    backup(home, tmp_path / "backup.db")
    with opened(home) as engine:
        add(engine, things(50, 80))
        engine.save()
    shutil.copy(tmp_path / "backup.db", home / "catalog.db")
    expected = things(0, 50)
    if further:
        with opened(home) as engine:
            more = things(100, 100 + further)
            add(engine, more)
            expected |= more
    with opened(home, notices) as engine:
        assert_right(engine, expected)
        add(engine, things(150, 155))
        assert_right(engine, expected | things(150, 155))
    if not further:
        assert ["backup" in line for line in notices] == [True]


def test_an_older_file_beside_a_newer_catalog_catches_up(home: Path, notices: list[str]) -> None:
    old = index_of(home).read_bytes()
    with opened(home) as engine:
        add(engine, things(50, 100))
        engine.remove([1, 2, 3])
        engine.save()
    index_of(home).write_bytes(old)
    with opened(home, notices) as engine:
        assert_right(engine, things(3, 100))
    assert notices == []


def test_a_backup_restored_under_a_running_reader(home: Path, tmp_path: Path) -> None:
    backup(home, tmp_path / "backup.db")
    with opened(home) as reader:
        with opened(home) as engine:
            add(engine, things(50, 60))
        assert_right(reader, things(0, 60))
        assert reader.select("id > 50")
        source, target = sqlite3.connect(tmp_path / "backup.db"), sqlite3.connect(home / "catalog.db")
        source.backup(target)
        source.close()
        target.close()
        with opened(home) as engine:
            add(engine, things(100, 110))  # the same part ids and revision again
        reader.refresh()
        assert_right(reader, things(0, 50) | things(100, 110))
        (hit,) = reader.search(Query(terms=(Term(vector=POOL[105]),), k=1, where="key = 'k105'"))
        assert hit.item.key == "k105"


def test_a_deleted_collection_takes_its_file_along(home: Path) -> None:
    with opened(home) as engine:
        engine.catalog.delete_collection("default")
    assert not index_of(home).exists()


def test_an_index_grows_out_of_its_base(home: Path) -> None:
    with opened(home) as engine:
        assert_right(engine, things(0, 50))
        for n in range(50, 200, 10):
            add(engine, things(n, n + 10))
            assert_right(engine, things(0, n + 10))
            (index,) = engine.snapshots.current().indexes.values()
            assert index.tail <= max(LIMIT, len(index) // 4), "so many are searched exactly, not more"
        engine.save()
    before = index_of(home).read_bytes()
    with opened(home) as engine:
        engine.search("red")
    assert index_of(home).read_bytes() == before, "the new base was saved, the next start makes no other"


@pytest.fixture
def writer_and_reader(home: Path) -> Iterator[tuple[Engine, Engine]]:
    with opened(home) as writer, opened(home) as reader:
        yield writer, reader


def test_a_reader_sees_what_another_wrote_when_it_refreshes(writer_and_reader: tuple[Engine, Engine]) -> None:
    writer, reader = writer_and_reader
    near = Query(terms=(Term(vector=POOL[120]),), k=1)
    assert_right(reader, things(0, 50))
    (new,) = add(writer, things(120, 121))
    assert reader.search(near)[0].item.id != new
    assert reader.refresh()
    assert reader.search(near)[0].item.id == new
    writer.remove([new])
    assert new not in {hit.item.id for hit in reader.search(near)}, "what is gone is gone at once"
    assert reader.refresh()
    assert not reader.refresh()


def test_scores_are_those_of_the_stored_vectors(home: Path) -> None:
    with opened(home) as engine:
        for hit in engine.search(Query(terms=(Term(vector=POOL[3]),), k=50)):
            stored = engine.vectors(engine.get([hit.item.id])[0])[0]
            assert hit.score == pytest.approx(float(stored @ POOL[3]), abs=1e-6)
            np.testing.assert_array_equal(
                stored, POOL[int(hit.item.key[1:])].astype(np.float16).astype(np.float32)
            )


def test_no_temporary_file_stays(home: Path) -> None:
    leftover = index_of(home).with_name("1.mmx.tmp")
    leftover.write_bytes(b"half")
    with opened(home) as engine:
        add(engine, things(50, 80))
        engine.save()
    assert os.listdir(home / "index") == ["1.mmx"]
