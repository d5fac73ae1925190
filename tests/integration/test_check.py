"""The check finds what does not agree, and the repair mends it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Modality, NewItem, NewPart
from mmsearch.errors import CatalogBusy, StoreError
from mmsearch.types import Ids
from tests.oracle import directions
from tests.toy import ToyEncoder

POOL = directions(40, 4)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder(), exact_limit=10) as opened:
        opened.add(
            [
                NewItem(
                    key=f"k{n}",
                    modality=Modality.TEXT,
                    parts=[NewPart(modality=Modality.TEXT, vector=POOL[n], text=f"word{n}")],
                    attributes={"n": n},
                )
                for n in range(20)
            ]
        )
        opened.save()
        yield opened


def spoil(engine: Engine, *statements: str) -> None:
    """Change the file behind the catalog's back."""
    connection = sqlite3.connect(engine.home / "catalog.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


DAMAGES = {
    "a vector is gone": ("DELETE FROM vectors WHERE part_id = 3", "item 3"),
    "a vector is too short": ("UPDATE vectors SET data = x'0011' WHERE part_id = 3", "item 3"),
    "a vector is nought": ("UPDATE vectors SET data = zeroblob(8) WHERE part_id = 3", "item 3"),
    "a vector is not a number": ("UPDATE vectors SET data = x'007e007e007e007e' WHERE part_id = 3", "item 3"),
    "an unknown encoding": ("UPDATE vectors SET encoding = 9 WHERE part_id = 3", "item 3"),
    "an item without parts": ("DELETE FROM parts WHERE id = 3", "item 3"),
    "a part of no item": ("UPDATE parts SET item_id = 999 WHERE id = 3", "1 parts"),
    "a vector of no part": (
        "INSERT INTO vectors SELECT 999, encoding, data FROM vectors LIMIT 1",
        "1 vectors",
    ),
    "attributes of no item": ("UPDATE attributes SET item_id = 999 WHERE item_id = 3", "1 attributes"),
    "other words in the full text": ("UPDATE parts SET text = 'other' WHERE id = 3", "full-text"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_agree_is_named_and_mended(engine: Engine, damage: str) -> None:
    statement, says = DAMAGES[damage]
    assert engine.check() == []
    spoil(engine, statement)
    problems = engine.check()
    assert any(says in problem for problem in problems), problems
    assert engine.check() == problems, "looking mends nothing"
    assert engine.check(repair=True) == problems
    assert engine.check() == []
    kept = {item.key for item in engine.items()}
    assert kept >= {f"k{n}" for n in range(20)} - {"k2"}
    with Engine.open(engine.home, model=ToyEncoder(), exact_limit=10) as again:
        assert {hit.item.key for hit in again.search("red", k=50)} == kept
        assert again.check() == []


def test_an_index_that_lost_and_invented_parts_is_named(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.search("red")
    (index,) = engine.snapshots.current().indexes.values()
    ids: Ids = np.concatenate([index.ids()[1:], [999]])
    monkeypatch.setattr(type(index), "ids", lambda self: ids)
    assert [problem.split(" are ")[1].split(" (")[0] for problem in engine.check()] == [
        "missing from the vector index",
        "only in the vector index",
    ]


def test_a_torn_page_is_damage_that_no_repair_hides(engine: Engine) -> None:
    engine.close()
    path = engine.home / "catalog.db"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(2, len(data) // size):
        data[page * size : page * size + 100] = b"\xff" * 100
    path.write_bytes(data)
    with (
        pytest.raises(StoreError, match=r"damaged|catalog"),
        Engine.open(engine.home, model=ToyEncoder()) as again,
    ):
        again.check(repair=True)


def test_a_busy_catalog_is_busy_not_broken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(engine.home, model=ToyEncoder()) as other:
        plain = type(engine.catalog).writing
        monkeypatch.setattr(
            type(engine.catalog), "writing", lambda self, wait=0.0, what="": plain(self, 0.05, what)
        )
        with other.writing(), pytest.raises(CatalogBusy):
            engine.check()


def test_every_collection_of_the_catalog_is_checked(engine: Engine) -> None:
    with Engine.open(engine.home, collection="other", model=ToyEncoder()) as other:
        spoil(engine, "DELETE FROM vectors WHERE part_id = 3")
        assert any("item 3" in problem for problem in other.check(repair=True))
        assert other.check() == []
    engine.refresh()
    assert engine.check() == []
    assert engine.find("k2") is None
