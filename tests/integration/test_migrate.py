"""Giving a collection another model: what comes out, what goes on meanwhile, the way back, what cannot be encoded."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import indexer.migrate
from indexer import index
from indexer.mapping import LEAST
from indexer.migrate import Migrated, finish, migrate, rollback, shadow_of
from mmsearch import Engine, Hit, Modality, NewItem, NewPart, Query, Term, shadows
from mmsearch.admission import identity_of
from mmsearch.catalog import Catalog
from mmsearch.encoders import load_encoder
from mmsearch.errors import ConfigError, MigrationRefused, SpaceMismatch, StoreError
from mmsearch.media import load_image, load_sound
from mmsearch.rows import FileUpdate
from mmsearch.types import Space
from mmsearch.vectors import VectorIndex
from tests.colour_model import save_colour_model
from tests.oracle import Piece, Thing, assert_best, directions, groups, unit
from tests.sounds import save_sound
from tests.toy import ToyEncoder, tone

TURN = (np.eye(4, 6) + 0.15 * np.random.default_rng(8).normal(size=(4, 6))).astype(np.float32)
NOTES = "The red car stood there.\n\nLater on a green one came."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old`` (4 dimensions), ``new`` (6, and half the window for sounds), ``silent`` (6, no sounds)."""
    folder = tmp_path_factory.mktemp("models")
    save_colour_model(folder / "old", space="old-1")
    save_colour_model(folder / "new", space="new-1", turn=TURN, seconds=1.0)
    save_colour_model(folder / "silent", space="new-1", turn=TURN, audio=False)
    return folder


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``home`` and ``media``: pictures (two of the same content), texts and sounds that are indexed, and texts of a
    program.
    """
    folder = tmp_path_factory.mktemp("made")
    media = folder / "media"
    media.mkdir()
    for n, colour in enumerate([(255, 0, 0), (10, 240, 30), (0, 20, 250), (250, 250, 245), (90, 60, 30)]):
        PIL.Image.new("RGB", (20, 16), colour).save(media / f"{n}.png")
    shutil.copy(media / "1.png", media / "twin.png")
    (media / "notes.txt").write_text(NOTES)
    (media / "long.txt").write_text("\n\n".join(f"A {c} thing. " * 120 for c in ("red", "blue", "white")))
    save_sound(media / "beep.wav", tone("green", seconds=0.8))
    save_sound(media / "song.wav", np.concatenate([tone("red", seconds=2.5), tone("blue", seconds=2.5)]))
    with Engine.open(folder / "home", model=models / "old", exact_limit=LIMIT) as engine:
        index(engine, [media])
        engine.add(
            [program("shop:1", "a red lamp", n=1, tags=["x"]), program("shop:2", "blue and green", n=2)]
        )
    return folder


LIMIT = 4


def program(key: str, *texts: str, **attributes: Any) -> NewItem:
    parts = [NewPart(modality=Modality.TEXT, content=text) for text in texts]
    return NewItem(key=key, modality=Modality.TEXT, parts=parts, attributes=attributes)


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "home", tmp_path / "home"))


@pytest.fixture
def media(made: Path) -> Path:
    return made / "media"


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    with opened(home) as found:
        yield found


def opened(home: Path) -> Engine:
    return Engine.open(home, create=False, exact_limit=LIMIT)


QUERIES = [
    Query(terms=(Term(text="red"),), k=50),
    Query(terms=(Term(text="green"), Term(text="blue", weight=0.5)), k=50, modality=Modality.IMAGE),
    Query(terms=(Term(text="blue"),), k=3, where="n = 2 or modality = 'image'"),
    Query(terms=(Term(text="white"),), k=50, path="*.png", min_score=0.1),
    Query(terms=(Term(item=1),), k=50),
    Query(terms=(Term(text="a red thing"),), k=50, hybrid=True),
    Query(terms=(Term(text="green"),), k=5, modality=Modality.AUDIO),
]


def answers(engine: Engine) -> list[list[Hit]]:
    """All that a search can tell, scores and parts included."""
    return [engine.search(query) for query in QUERIES]


def kept(engine: Engine) -> list[Any]:
    """What a change of the model must not change."""
    return [dataclasses.replace(item, parts=()) for item in engine.items()]


def encoded(engine: Engine, model: Path) -> dict[str, Thing]:
    """Every item as this model encodes it, from its file or from the texts of the catalog."""
    encoder = load_encoder(model)
    things = {}
    for item in engine.items():
        pieces = []
        if item.modality is Modality.IMAGE:
            vectors = encoder.encode_images([load_image(item.key, min_side=encoder.image_size)])
            pieces = [Piece(Modality.IMAGE, vectors[0])]
        elif item.modality is Modality.AUDIO:
            clips = list(load_sound(item.key, encoder.audio_window))
            pieces = [Piece(Modality.AUDIO, encoder.encode_audio([clip])[0]) for clip in clips]
        for part in item.parts:
            if part.modality is Modality.TEXT:
                assert part.text
                pieces.append(Piece(Modality.TEXT, encoder.encode_texts([part.text])[0], part.text))
        things[item.key] = Thing(pieces, content=item.content_hash)
    return things


def assert_encoded_by(engine: Engine, model: Path) -> None:
    """The collection is what this model makes of it: vectors, search results, and nothing is damaged."""
    assert engine.check() == []
    things = encoded(engine, model)
    for item in engine.items():
        expected = np.stack([piece.vector for piece in things[item.key].pieces])
        np.testing.assert_allclose(engine.vectors(item), expected, atol=2e-3, err_msg=item.key)
    encoder = load_encoder(model)
    for words in ("red", "green white", "nothing of it"):
        for modality in Modality:
            query = Query(terms=(Term(text=words),), k=50, modality=modality)
            vector = encoder.encode_texts([words])[0]
            assert_best(engine.search(query), groups(things, vector, modality=modality), 50, tolerance=2e-3)


# -- there and back ----------------------------------------------------------------------------------------------------


def test_everything_is_encoded_again_and_items_stay_what_they_are(
    engine: Engine, models: Path, media: Path
) -> None:
    before = kept(engine)
    seen: list[tuple[int, int]] = []
    report = migrate(engine, models / "new", progress=lambda done, total: seen.append((done, total)))
    assert (report.items, report.encoded, report.mapped) == (12, 12, [])
    assert seen[:12] == [(n, 12) for n in range(1, 13)]
    assert (report.model, report.former) == (str(models / "new"), str(models / "old"))
    assert kept(engine) == before
    assert engine.roots() == {str(media): []}
    assert engine.space == Space("new-1", 6)
    assert engine.status().model == str(models / "new")
    assert_encoded_by(engine, models / "new")
    with opened(engine.home) as another:
        assert_encoded_by(another, models / "new")
    song = engine.find(str(media / "song.wav"))
    assert song is not None
    assert len(song.parts) > 5, "cut as the new model hears"


def test_indexing_goes_on_with_the_new_model(
    engine: Engine, models: Path, media: Path, tmp_path: Path
) -> None:
    migrate(engine, models / "new")
    report = index(engine, [media])
    assert (report.unchanged, report.added, report.updated) == (10, 0, 0), "nothing is encoded twice"
    more = tmp_path / "more"
    more.mkdir()
    PIL.Image.new("RGB", (9, 9), (200, 0, 90)).save(more / "new.png")
    shutil.copy(media / "0.png", more / "known.png")
    report = index(engine, [more])
    assert (report.added, report.copies) == (2, 1)
    assert_encoded_by(engine, models / "new")


def test_the_way_back_leads_to_the_very_same_results(engine: Engine, models: Path) -> None:
    before = answers(engine)
    migrate(engine, models / "new")
    there = answers(engine)
    assert there != before
    back = rollback(engine)
    assert (back.encoded, back.items, back.model) == (0, 12, str(models / "old"))
    assert answers(engine) == before
    with opened(engine.home) as another:
        assert answers(another) == before
    forth = migrate(engine, models / "new")
    assert forth.encoded == 0
    assert answers(engine) == there
    rollback(engine)
    assert finish(engine) == 12
    assert answers(engine) == before
    assert_encoded_by(engine, models / "old")


def test_the_way_back_encodes_what_changed_since_and_nothing_else(
    engine: Engine, models: Path, tmp_path: Path
) -> None:
    migrate(engine, models / "new")
    engine.add([program("shop:1", "now it is white"), program("shop:9", "a black one")])
    engine.remove([3])
    PIL.Image.new("RGB", (9, 9), (20, 200, 90)).save(tmp_path / "late.png")
    index(engine, [tmp_path / "late.png"])
    before = kept(engine)
    report = rollback(engine)
    assert report.encoded == 3
    assert kept(engine) == before
    assert_encoded_by(engine, models / "old")


def test_a_rollback_without_the_old_model_needs_it_only_for_what_changed(
    home: Path, models: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(models / "old", tmp_path / "own"))
    with Engine.open(tmp_path / "other", model=own) as engine:
        engine.add([program("a", "red"), program("b", "green")])
        before = [hit.score for hit in engine.search("red")]
        migrate(engine, models / "new")
    shutil.move(own, tmp_path / "away")
    with Engine.open(tmp_path / "other", create=False) as engine:
        assert rollback(engine).encoded == 0
    shutil.move(tmp_path / "away", own)
    with Engine.open(tmp_path / "other", create=False) as engine:
        assert [hit.score for hit in engine.search("red")] == before


def rows(home: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(home / "catalog.db")
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_finishing_frees_the_room(models: Path, tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=models / "old") as engine:
        engine.add([program(f"n{n}", f"red {n} " * 40) for n in range(2000)])
        small = [engine.status().catalog_bytes, *rows(tmp_path, "SELECT count(*) FROM vectors")]
        assert small[1] == (2000,)
        migrate(engine, models / "new")
        assert rows(tmp_path, "SELECT count(*) FROM vectors") == [(4000,)]
        full = engine.status().catalog_bytes
        assert finish(engine) == 2000
        assert rows(tmp_path, "SELECT count(*) FROM vectors") == [(2000,)]
        assert rows(tmp_path, "SELECT count(*) FROM collections") == [(1,)]
        assert rows(tmp_path, "SELECT count(*) FROM shadows") == [(0,)]
        assert engine.status().catalog_bytes < 0.7 * full
        assert engine.check() == []
        assert shadow_of(engine) is None
        assert finish(engine) == 0
        with pytest.raises(ConfigError, match="no former vectors"):
            rollback(engine)
        assert engine.search("red")[0].score == pytest.approx(1, abs=1e-3)


def test_a_shadow_is_no_collection_that_one_sees(engine: Engine, models: Path, home: Path) -> None:
    migrate(engine, models / "new")
    assert [(info.name, info.items) for info in engine.catalog.collections()] == [("default", 12)]
    shadow = shadow_of(engine)
    assert shadow is not None
    assert (shadow.switched, shadow.done, shadow.total, shadow.info.space) == (True, 12, 12, "old-1")
    assert engine.catalog.delete_collection("default") == 12
    for table in ("collections", "shadows", "items", "parts", "vectors", "canonicals", "admitted"):
        assert rows(home, f"SELECT count(*) FROM {table}") == [(0,)], table


def test_other_collections_are_left_alone(home: Path, models: Path) -> None:
    with Engine.open(home, collection="other", model=models / "old", exact_limit=LIMIT) as other:
        other.add([program(f"k{n}", text) for n, text in enumerate(["red", "green", "blue red"])])
        before = other.search("red")
        with opened(home) as engine:
            migrate(engine, models / "new")
        assert other.search("red") == before
        assert other.check() == []
        assert other.space == Space("old-1", 4)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_model_that_made_the_vectors_is_no_other_model(
    engine: Engine, models: Path, tmp_path: Path
) -> None:
    half = save_colour_model(tmp_path / "half", space="old-1", half=True)
    for same in (models / "old", half):
        with pytest.raises(ConfigError, match="already"):
            migrate(engine, same)
    with pytest.raises(ConfigError, match="--model"):
        migrate(engine)
    assert shadow_of(engine) is None


def test_another_checkpoint_of_the_same_space_can_be_migrated_to(
    engine: Engine, models: Path, tmp_path: Path
) -> None:
    turn = np.linalg.qr(directions(4, 4, seed=5))[0].astype(np.float32)
    other = save_colour_model(tmp_path / "other", space="old-1", turn=turn)
    with pytest.raises(SpaceMismatch, match="mmsearch migrate default"):
        Engine.open(engine.home, model=other, create=False)
    migrate(engine, other)
    assert_encoded_by(engine, other)
    with pytest.raises(SpaceMismatch):
        Engine.open(engine.home, model=models / "old", create=False)
    rollback(engine)
    assert_encoded_by(engine, models / "old")


def test_one_migration_at_a_time(engine: Engine, models: Path, tmp_path: Path) -> None:
    third = save_colour_model(tmp_path / "third", space="third-1", turn=TURN[:, :5])
    migrate(engine, models / "new")
    with pytest.raises(ConfigError, match="--finish"):
        migrate(engine, third)
    with pytest.raises(ConfigError, match="already"):
        migrate(engine, models / "new")
    finish(engine)
    migrate(engine, third)
    assert_encoded_by(engine, third)


def test_a_model_without_a_tower_is_refused_with_the_items_that_need_it(
    engine: Engine, models: Path, media: Path
) -> None:
    before = answers(engine)
    for map_vanished in (False, True):
        with pytest.raises(MigrationRefused, match="audio") as refused:
            migrate(engine, models / "silent", map_vanished=map_vanished)
        assert set(refused.value.items) == {str(media / "beep.wav"), str(media / "song.wav")}
    assert answers(engine) == before
    engine.remove([item.id for item in engine.items() if item.modality is Modality.AUDIO])
    assert migrate(engine, models / "silent").encoded == 0, "the others were encoded before"
    assert_encoded_by(engine, models / "silent")


def test_vanished_changed_and_ready_made_items_are_refused_and_named(
    home: Path, models: Path, made: Path, tmp_path: Path
) -> None:
    media = Path(shutil.copytree(made / "media", tmp_path / "media"))
    with opened(home) as engine:
        engine.remove([item.id for item in engine.items() if item.is_file])
        index(engine, [media])
        vector = unit(np.ones(4))
        engine.add(
            [
                NewItem(
                    key="ready",
                    modality=Modality.IMAGE,
                    parts=[NewPart(modality=Modality.IMAGE, vector=vector)],
                ),
                NewItem(
                    key="said",
                    modality=Modality.TEXT,
                    parts=[NewPart(modality=Modality.TEXT, vector=vector, text="blue")],
                ),
            ]
        )
        (media / "0.png").unlink()
        (media / "notes.txt").unlink()
        PIL.Image.new("RGB", (20, 16), (1, 2, 3)).save(media / "2.png")
        (media / "beep.wav").write_bytes(b"")
        before = engine.search(QUERIES[0])
        with pytest.raises(MigrationRefused) as refused:
            migrate(engine, models / "new")
        reasons = refused.value.items
        assert set(reasons) == {"ready", *(str(media / name) for name in ("0.png", "2.png", "beep.wav"))}
        assert "no such file" in reasons[str(media / "0.png")]
        assert "changed since it was indexed" in reasons[str(media / "2.png")]
        assert str(media / "0.png") in str(refused.value)
        assert "--map-vanished" in str(refused.value)
        assert engine.search(QUERIES[0]) == before
        shadow = shadow_of(engine)
        assert shadow is not None
        assert (shadow.switched, shadow.done, shadow.total) == (False, 10, 14)
        shutil.copy(made / "media" / "0.png", media)
        shutil.copy(made / "media" / "beep.wav", media)
        engine.remove([item.id for item in engine.items() if item.key == "ready"])
        index(engine, [media])  # finds that 2.png changed and notes.txt is gone
        assert migrate(engine, models / "new").encoded == 3
        assert_encoded_by(engine, models / "new")


def test_no_room_on_the_disk_is_told_before_anything_is_encoded(
    engine: Engine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(engine.home)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="MB are free"):
        migrate(engine, models / "new")
    shadow = shadow_of(engine)
    assert shadow is not None
    assert shadow.done == 0


def test_the_cost_is_told(models: Path, tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=models / "old") as engine:
        engine.add([program(f"n{n}", f"red {n} " * 60) for n in range(3000)])
        engine.catalog.shrink()
        before = (tmp_path / "catalog.db").stat().st_size
        notices: list[str] = []
        migrate(engine, models / "new", notice=notices.append)
        engine.catalog.shrink()
        (said,) = [line for line in notices if "grows" in line]
        promised = float(said.split("about ")[1].split(" MB")[0]) * 1e6
        grown = (tmp_path / "catalog.db").stat().st_size - before
        assert 0.4 * grown < promised < 2.5 * grown


# -- what goes on meanwhile --------------------------------------------------------------------------------------------


def hooked(engine: Engine, models: Path, at: int, do: Callable[[], object]) -> Migrated:
    """Migrate, and do something in the middle."""

    def progress(done: int, total: int) -> None:
        nonlocal at
        if done == at:
            at = 0
            do()

    return migrate(engine, models / "new", progress=progress)


def test_what_is_written_meanwhile_by_the_old_model_is_there_in_the_end(
    engine: Engine, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.migrate, "COMMIT_ITEMS", 2)
    late = tmp_path / "late"
    late.mkdir()

    def write() -> None:
        with opened(engine.home) as writer:
            assert writer.space == Space("old-1", 4)
            writer.remove([1, 12])
            writer.add([program("shop:1", "white now", n=5), program("shop:3", "black")])
            PIL.Image.new("RGB", (9, 9), (20, 200, 90)).save(late / "late.png")
            index(writer, [late])
            moved = writer.files()
            (record,) = [moved[key] for key in moved if key.endswith("4.png")]
            shutil.copy(next(key for key in moved if key.endswith("4.png")), late / "renamed.png")
            writer.update_files(
                [FileUpdate(record.id, str(late / "renamed.png"), record.size, record.mtime_ns)]
            )
            seen.append([hit.item.key for hit in writer.search("white")])

    seen: list[list[str]] = []
    for_sure = kept(engine)
    report = hooked(engine, models, 7, write)
    assert seen[0], "searched meanwhile"
    names = {item.key for item in kept(engine)}
    assert {"shop:1", "shop:3", str(late / "late.png"), str(late / "renamed.png")} <= names
    assert len(names) == len(for_sure)
    assert 12 <= report.encoded <= 15
    assert_encoded_by(engine, models / "new")


def test_a_reader_and_a_writer_of_other_engines_go_on_and_follow(
    engine: Engine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is wholly that of one model, and the last one is the new model's."""
    monkeypatch.setattr(indexer.migrate, "COMMIT_ITEMS", 1)
    queries = [
        query for query in QUERIES if not query.hybrid
    ]  # word statistics are those of the whole catalog

    def scores(found: Engine) -> list[list[tuple[str, float]]]:
        return [
            [(hit.item.key, hit.score) for hit in found.search(query) if hit.item.key != "late"]
            for query in queries
        ]

    old = scores(engine)
    with opened(engine.home) as ahead:
        migrate(ahead, models / "new")
        new = scores(ahead)
        rollback(ahead)
        finish(ahead)
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: list[int] = []

    def read() -> None:
        try:
            with opened(engine.home) as reader:
                while not stop.is_set():
                    for number, query in enumerate(queries):
                        found = [
                            (hit.item.key, hit.score)
                            for hit in reader.search(query)
                            if hit.item.key != "late"
                        ]
                        assert found in (old[number][: len(found)], new[number][: len(found)]), number
                        seen.append(found == new[number])
                    reader.refresh()
                assert scores(reader) == new
        except BaseException as error:
            failures.append(error)

    def write() -> None:
        try:
            with opened(engine.home) as writer:
                while not stop.is_set():
                    writer.add([program("late", "late")])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    while len(seen) < 20 and not failures:
        time.sleep(0.01)
    for _ in range(3):
        migrate(engine, models / "new")
        rollback(engine)
    migrate(engine, models / "new")
    settled = len(seen)
    while len(seen) < settled + 40 and not failures:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {False, True} == set(map(bool, seen))
    assert_encoded_by(engine, models / "new")


class Switch:
    """Does something before the so many-th read of a catalog."""

    plain = Catalog.reading

    def __init__(self, catalog: Catalog, at: int, do: Callable[[], object]) -> None:
        self.catalog, self.at, self.do = catalog, at, do
        self.reads = 0

    def reading(self, catalog: Catalog) -> Any:
        if catalog is self.catalog:
            self.reads += 1
            if self.reads == self.at:
                self.do()
        return Switch.plain(catalog)


def test_a_search_that_straddles_the_switch_is_asked_again(
    engine: Engine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(engine.home) as other:
        migrate(other, models / "new")
        new = answers(other)
        rollback(other)
        for at in (1, 2, 4):
            for query, expected in zip(QUERIES, new, strict=True):
                with opened(engine.home) as reader, monkeypatch.context() as patch:
                    reader.search("red")
                    switch = Switch(reader.catalog, at, lambda: migrate(other, models / "new"))
                    patch.setattr(Catalog, "reading", lambda self, s=switch: s.reading(self))
                    found = reader.search(query)
                    assert switch.reads >= at
                assert found == expected, (at, query)
                rollback(other)


def test_a_live_engine_adds_with_the_model_of_the_day(engine: Engine, models: Path, media: Path) -> None:
    with opened(engine.home) as other:
        assert other.search("red")
        migrate(engine, models / "new")
        other.add([program("shop:4", "green and white")])  # encoded with the old one first
        assert other.space == Space("new-1", 6)
    assert_encoded_by(engine, models / "new")
    with opened(engine.home) as other:
        other.search("red")
        rollback(engine)
        vector = [NewPart(modality=Modality.IMAGE, vector=unit(np.ones(6)))]
        with pytest.raises(SpaceMismatch, match="anew"):
            other.add([NewItem(key="ready", modality=Modality.IMAGE, parts=vector)])
        report = index(other, [media])
        assert report.unchanged == 10
    assert_encoded_by(engine, models / "old")


def test_filters_of_a_live_engine_follow(engine: Engine, models: Path) -> None:
    query = Query(terms=(Term(text="red"),), where="n >= 1", k=9)
    with opened(engine.home) as other:
        old = [hit.score for hit in other.search(query)]
        migrate(engine, models / "new")
        found = other.search(query)
        assert {hit.item.key for hit in found} == {"shop:1", "shop:2"}
        assert [hit.score for hit in found] != old
        assert other.select("n >= 1") == engine.select("n >= 1")
        rollback(engine)
        assert [hit.score for hit in other.search(query)] == old


def test_a_stale_index_file_is_not_believed(engine: Engine, models: Path) -> None:
    engine.save()
    path = engine.home / "index" / "1.mmx"
    stale = path.read_bytes()
    migrate(engine, models / "new")
    assert path.read_bytes() != stale, "the new one is there for the next start"
    assert not list(path.parent.glob("*.tmp"))
    assert [found.name for found in path.parent.iterdir()] == ["1.mmx"]
    notices: list[str] = []
    with Engine.open(engine.home, create=False, exact_limit=LIMIT, notice=notices.append) as other:
        other.search("red")
    assert notices == []
    path.write_bytes(stale)
    with Engine.open(engine.home, create=False, exact_limit=LIMIT, notice=notices.append) as other:
        assert_encoded_by(other, models / "new")
    assert ["former model" in line for line in notices] == [True]


def test_the_index_is_ready_when_the_switch_is_made(
    engine: Engine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers load it; to build it would take them long."""
    built: list[int] = []
    plain = VectorIndex.build

    def build(ids: Any, vectors: Any, **options: Any) -> VectorIndex:
        built.append(len(ids))
        return plain(ids, vectors, **options)

    engine.save()
    with opened(engine.home) as reader:
        reader.search("red")
        steps: list[Callable[[], object]] = [
            lambda: migrate(engine, models / "new"),
            lambda: rollback(engine),
        ]
        for switch in steps:
            switch()
            with monkeypatch.context() as patch, opened(engine.home) as other:
                patch.setattr(VectorIndex, "build", build)
                reader.search("red")
                other.search("red")
                assert all(count <= LIMIT for count in built), "what is exact is read from the catalog"
    assert_encoded_by(engine, models / "old")


def test_two_migrations_at_once_do_not_undo_each_other(engine: Engine, models: Path) -> None:
    def other() -> None:
        with opened(engine.home) as second:
            migrate(second, models / "new")

    with pytest.raises(StoreError, match="another process switched"):
        hooked(engine, models, 5, other)
    assert_encoded_by(engine, models / "new")


def test_a_migration_that_was_given_up_meanwhile_stops(engine: Engine, models: Path) -> None:
    with pytest.raises(StoreError, match="gave its migration up"):
        hooked(engine, models, 5, lambda: finish(engine))
    assert_encoded_by(engine, models / "old")
    assert shadow_of(engine) is None


def test_a_migration_waits_for_another_writer(
    engine: Engine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Catalog.writing
    monkeypatch.setattr(
        Catalog, "writing", lambda self, wait=10.0, what="": plain(self, 0.05 if wait == 10 else wait, what)
    )
    notices: list[str] = []
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with opened(engine.home) as other, other.writing(what="a long run"):
            held.set()
            free.wait(30)

    def notice(line: str) -> None:
        notices.append(line)
        if "waiting" in line:
            free.set()

    shadows.make(engine.catalog, 1, identity_of(load_encoder(models / "new"), str(models / "new")))
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    migrate(engine, models / "new", notice=notice)
    holder.join()
    assert ["a long run" in line for line in notices if "waiting" in line] == [True]
    assert_encoded_by(engine, models / "new")


# -- what has vanished -------------------------------------------------------------------------------------------------


@pytest.fixture
def many(models: Path, tmp_path: Path) -> Path:
    """300 pictures of 300 colours, indexed; 30 of them are gone."""
    media = tmp_path / "many"
    media.mkdir()
    colours = np.random.default_rng(3).integers(0, 256, (300, 3))
    for n, colour in enumerate(colours.tolist()):
        PIL.Image.new("RGB", (8, 8), tuple(colour)).save(media / f"{n:03}.png")
    with Engine.open(tmp_path / "manyhome", model=models / "old") as engine:
        index(engine, [media])
        engine.add([program("shop:1", "red")])
    for n in range(0, 300, 10):
        os.rename(media / f"{n:03}.png", tmp_path / f"{n:03}.png")
    return tmp_path


def test_vanished_files_are_mapped_and_it_is_told_how_well(many: Path, models: Path) -> None:
    with Engine.open(many / "manyhome", create=False) as engine:
        before = [item for item in engine.items() if item.modality is Modality.IMAGE]
        old = {item.key: engine.vectors(item)[0] for item in before}
        report = migrate(engine, models / "new", map_vanished=True)
        gone = {str(many / "many" / f"{n:03}.png") for n in range(0, 300, 10)}
        assert set(report.mapped) == gone
        assert report.encoded == 271
        (quality,) = report.quality.values()
        assert quality.learnt + quality.held_out == 270
        new = {item.key: engine.vectors(item)[0] for item in engine.items() if item.key in old}
        assert_map_is_right(old, new, gone, quality.cosine)
        encoder = load_encoder(models / "new")
        for key in sorted(gone):
            (true,) = encoder.encode_images([load_image(many / Path(key).name)])
            assert new[key] @ true > 0.95, "the two spaces are nearly linear to each other"
        assert engine.check() == []
        shadow = shadow_of(engine)
        assert shadow is not None
        assert shadow.mapped == 30
        rollback(engine)
        assert {
            item.key: engine.vectors(item)[0].tobytes() for item in engine.items() if item.key in old
        } == {key: vector.tobytes() for key, vector in old.items()}


def assert_map_is_right(old: dict[str, Any], new: dict[str, Any], gone: set[str], cosine: float) -> None:
    """Against scikit-learn: the ridge regression of what was encoded, at the strength that fits what was mapped."""
    import sklearn.linear_model

    there = [key for key in old if key not in gone]
    order = np.random.default_rng(0).permutation(len(there))
    held, kept = order[:54], order[54:]
    x, y = (np.stack([side[key] for key in there]).astype(np.float64) for side in (old, new))
    unit_energy = ((x[kept] - x[kept].mean(axis=0)) ** 2).sum() / len(kept)
    best = np.inf
    for strength in 10.0 ** np.arange(-6, 2) * unit_energy:
        ridge = sklearn.linear_model.Ridge(strength, solver="cholesky").fit(x[kept], y[kept])
        mapped = ridge.predict(np.stack([old[key] for key in sorted(gone)]).astype(np.float64))
        mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
        error = np.abs(mapped - np.stack([new[key] for key in sorted(gone)])).max()
        if error < best:
            best = error
            test = ridge.predict(x[held])
            test /= np.linalg.norm(test, axis=1, keepdims=True)
            expected = float((test * y[held]).sum(axis=1).mean())
    assert best < 1e-3  # half precision
    assert cosine == pytest.approx(expected, abs=1e-3)


def test_nothing_is_learnt_from_what_was_mapped(many: Path, models: Path) -> None:
    """The items that were mapped before are no evidence of how good a map is."""
    with Engine.open(many / "manyhome", create=False) as engine:
        migrate(engine, models / "new", map_vanished=True)
        rollback(engine)
        engine.remove([item.id for item in engine.items() if item.key.endswith("1.png")])
        (lost,) = [item for item in engine.items() if item.key.endswith("002.png")]
        (many / "many" / "002.png").unlink()
        part = [NewPart(modality=Modality.IMAGE, vector=engine.vectors(lost)[0])]
        engine.add(
            [NewItem(key=lost.key, modality=Modality.IMAGE, parts=part, is_file=True, size=1, mtime_ns=1)]
        )
        report = migrate(engine, models / "new", map_vanished=True)
        assert report.mapped == [lost.key]
        (quality,) = report.quality.values()
        assert quality.learnt + quality.held_out == 300 - 30 - 30 - 1


def test_too_few_pairs_teach_nothing(many: Path, models: Path) -> None:
    for path in sorted((many / "many").iterdir())[: 271 - LEAST]:
        path.unlink()
    with Engine.open(many / "manyhome", create=False) as engine:
        with pytest.raises(MigrationRefused, match=f"takes {LEAST} parts of modality image .* {LEAST - 1}"):
            migrate(engine, models / "new", map_vanished=True)
        shadow = shadow_of(engine)
        assert shadow is not None
        assert not shadow.switched
        assert engine.space == Space("old-1", 4)


def test_a_vanished_recording_keeps_what_was_said_in_it(models: Path, tmp_path: Path) -> None:
    """Its sound is mapped, its words are encoded from the catalog and keep their seconds."""
    drawn = np.random.default_rng(4).random((LEAST + 40, 3))
    waves = [tone(colour, seconds=0.2, amplitude=0.2) for colour in ("red", "green", "blue")]
    for n, shares in enumerate(drawn):
        mixed = sum(share * wave for share, wave in zip(shares, waves, strict=True))
        save_sound(tmp_path / f"{n:03}.wav", np.asarray(mixed, np.float32))
    with Engine.open(tmp_path / "home", model=models / "old") as engine:
        index(engine, [tmp_path])
        (item,) = [item for item in engine.items() if item.key.endswith("000.wav")]
        spoken = NewPart(modality=Modality.TEXT, content="green and blue", start=0.05, end=0.2)
        again = NewItem(
            key=item.key,
            modality=Modality.AUDIO,
            parts=[*engine.copy_parts(item.id), spoken],
            is_file=True,
            size=item.size,
            mtime_ns=item.mtime_ns,
            content_hash=item.content_hash,
        )
        engine.add([again])
        (tmp_path / "000.wav").unlink()
        report = migrate(engine, models / "new", map_vanished=True)
        assert report.mapped == [item.key]
        assert set(report.quality) == {Modality.AUDIO}
        found = engine.find(item.key)
        assert found is not None
        assert [(part.modality, part.text) for part in found.parts] == [
            (Modality.AUDIO, None),
            (Modality.TEXT, "green and blue"),
        ]
        assert (found.parts[1].start, found.parts[1].end) == (0.05, 0.2)
        (words,) = load_encoder(models / "new").encode_texts(["green and blue"])
        np.testing.assert_allclose(engine.vectors(found)[1], words, atol=1e-3)


def test_copies_of_a_file_are_encoded_once(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(12):
        PIL.Image.new("RGB", (8, 8), (20 * (n // 4), 9, 9)).save(tmp_path / f"{n:02}.png")
    monkeypatch.setattr(indexer.migrate, "COMMIT_ITEMS", 1)
    with Engine.open(tmp_path / "home", model=models / "old") as engine:
        index(engine, [tmp_path])
        toy = ToyEncoder("next", 7)
        report = migrate(engine, toy, workers=1)
        assert report.copied > 0
        assert (report.copied, toy.encoded_images) == (9, 3 + 3), "three are the canonical ones"
        assert engine.space == Space("next", 7)
        assert engine.check() == []
        assert engine.search("red")
