"""mmsearch as a library: its public names, what it takes and refuses, threads, closing, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Space, Term
from mmsearch.errors import (
    CollectionNotFound,
    ItemError,
    ItemNotFound,
    MediaError,
    ModelError,
    SpaceMismatch,
    StoreError,
)
from mmsearch.types import AttributeValue
from tests.oracle import directions
from tests.toy import COLOURS, ToyEncoder

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
DAY = datetime(2024, 5, 1, 12, 30)


def text(key: str, said: str | None = None, /, **attributes: AttributeValue) -> NewItem:
    return NewItem(
        key=key,
        modality=TEXT,
        parts=[NewPart(modality=TEXT, content=said or key)],
        attributes=attributes,
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "home", model=ToyEncoder()) as opened:
        yield opened


# -- opening -------------------------------------------------------------------------------------------------------


def test_a_collection_remembers_what_was_added(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        (red,) = engine.add([text("red", shade=1)])
    with Engine.open(tmp_path, model=ToyEncoder(), create=False) as engine:
        assert engine.find("red") == engine.get([red])[0]
        assert engine.search("red")[0].item.attributes == {"shade": 1}
        assert engine.space == Space("toy", 4)
        assert (engine.home, engine.collection) == (tmp_path, "default")


def test_no_catalog_and_no_collection_are_errors_unless_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="mmsearch index"):
        Engine.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    Engine.open(tmp_path, model=ToyEncoder()).close()
    with pytest.raises(CollectionNotFound, match="default"):
        Engine.open(tmp_path, collection="other", create=False)


def test_collections_do_not_see_each_other(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with (
        Engine.open(tmp_path, collection="a", model=encoder) as a,
        Engine.open(tmp_path, collection="b", model=encoder) as b,
    ):
        (one,) = a.add([text("red", shelf="x")])
        (two,) = b.add([text("red", shelf=7)])  # another collection, another kind
        assert one != two
        b.refresh()
        assert [hit.item.id for hit in a.search(Query(terms=(Term(text="red"),), hybrid=True))] == [one]
        assert [hit.item.id for hit in b.search("red")] == [two]
        assert a.select("shelf = 'x'") == [one]
        assert b.select("shelf = 7") == [two]
        with pytest.raises(ItemNotFound):
            b.get([one])
        assert b.remove([one]) == 0
        assert a.catalog.delete_collection("a") == 1
        assert [hit.item.id for hit in b.search("red")] == [two]
        assert b.check() == []


def test_a_deleted_collection_is_empty_for_who_still_has_it_open(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with (
        Engine.open(tmp_path, collection="a", model=encoder) as a,
        Engine.open(tmp_path, collection="b", model=encoder) as b,
    ):
        a.add([text("red")])
        assert a.search("red")
        b.catalog.delete_collection("a")
        b.add([text("green"), text("red")])
        assert a.search("red") == []
        a.refresh()
        assert a.search("red") == []
        with pytest.raises(StoreError):
            a.add([text("blue")])
        assert len(b.search("red")) == 2


def test_spaces_never_meet(tmp_path: Path) -> None:
    Engine.open(tmp_path, model=ToyEncoder("one")).close()
    for other in (ToyEncoder("two"), ToyEncoder("one", dim=5)):
        with pytest.raises(SpaceMismatch, match="one"):
            Engine.open(tmp_path, model=other)


def test_a_collection_of_a_programs_own_encoder_says_so_when_it_is_missing(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        (red,) = engine.add([text("red")])
    with Engine.open(tmp_path) as engine:  # opening needs no encoder, nor does a query by item or vector
        assert engine.search(Query(terms=(Term(vector=np.ones(4, np.float32)),)))[0].item.id == red
        with pytest.raises(ModelError, match="toy"):
            engine.search("red")


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path, model=ToyEncoder())
    engine.add([text("red")])
    engine.close()
    engine.close()
    with pytest.raises(StoreError, match="closed"):
        engine.search("red")


def test_the_last_to_close_leaves_one_file(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        engine.add([text("red")])
        engine.search("red")
        engine.select("id > 0")
    assert {path.name for path in tmp_path.iterdir()} <= {"catalog.db", "writer.lock"}


# -- adding --------------------------------------------------------------------------------------------------------


def test_a_key_keeps_its_id_and_gets_new_parts(engine: Engine) -> None:
    (first,) = engine.add([text("a", "red")])
    before = engine.get([first])[0].parts
    (again,) = engine.add([text("a", "green")])
    after = engine.get([again])[0].parts
    assert first == again
    assert before[0].id != after[0].id
    assert engine.search("green")[0].score > 0.99
    assert engine.search("red")[0].score < 0.5


def test_of_one_key_given_twice_the_last_counts(engine: Engine) -> None:
    ids = engine.add([text("a", "red", n=1), text("b", "blue"), text("a", "green", n=2)])
    assert ids[0] == ids[2] != ids[1]
    assert engine.get([ids[0]])[0].attributes == {"n": 2}
    assert len(list(engine.items())) == 2
    assert engine.check() == []


def test_pictures_are_taken_as_objects_and_as_files(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "blue.png"
    PIL.Image.new("RGB", (30, 20), COLOURS["blue"]).save(file)
    red = PIL.Image.new("RGB", (9, 9), COLOURS["red"])
    engine.add(
        [
            NewItem(key="r", modality=IMAGE, parts=[NewPart(modality=IMAGE, content=red)]),
            NewItem(key="b", modality=IMAGE, parts=[NewPart(modality=IMAGE, content=file)]),
        ]
    )
    assert engine.search("blue")[0].item.key == "b"
    assert engine.search(Query(terms=(Term(image=red),)))[0].item.key == "r"
    assert engine.search(Query(terms=(Term(image=str(file)),)))[0].item.key == "b"
    with pytest.raises(MediaError, match=r"missing\.png"):
        engine.search(Query(terms=(Term(image=tmp_path / "missing.png"),)))


def test_ready_vectors_need_no_encoder_and_count_by_direction(engine: Engine) -> None:
    vector = np.array([3.0, 0.0, 4.0, 0.0], np.float32)
    engine.add(
        [NewItem(key="v", modality=Modality.AUDIO, parts=[NewPart(modality=Modality.AUDIO, vector=vector)])]
    )
    (hit,) = engine.search(Query(terms=(Term(vector=vector),)))
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(
        engine.vectors(hit.item if hit.item.parts else engine.get([hit.item.id])[0]),
        [[0.6, 0, 0.8, 0]],
        atol=1e-3,
    )
    assert engine.check() == []


BAD_ITEMS: list[tuple[NewItem, str]] = [
    (NewItem(key="", modality=TEXT, parts=[NewPart(modality=TEXT, content="red")]), "key"),
    (NewItem(key="bad", modality=TEXT, parts=[]), "bad.*part"),
    (NewItem(key="bad", modality=TEXT, parts=[NewPart(modality=TEXT)]), "bad.*part 0"),
    (NewItem(key="bad", modality=TEXT, parts=[NewPart(modality=TEXT, content=" \n")]), "bad.*part 0"),
    (
        NewItem(key="bad", modality=TEXT, parts=[NewPart(modality=TEXT, content=Path("red.txt"))]),
        "bad.*string",
    ),
    (
        NewItem(key="bad", modality=Modality.AUDIO, parts=[NewPart(modality=Modality.AUDIO, content=" ")]),
        "neither content",
    ),
    *(
        (NewItem(key="bad", modality=IMAGE, parts=[NewPart(modality=IMAGE, vector=vector)]), "bad.*4 finite")
        for vector in (
            np.ones(3, np.float32),
            np.ones((1, 4), np.float32),
            np.full(4, np.inf, np.float32),
            np.full(4, np.nan, np.float32),
            np.zeros(4, np.float32),
        )
    ),
    (text("bad\udc80"), "surrogate"),
    (text("bad", "red \ud800"), "surrogate"),
    (text("bad", "red", word="\udfff"), "surrogate"),
    (text("bad", "red", words=["x", "\udfff"]), "surrogate"),
    (text("bad", "red", n=float("nan")), "bad.*'n'"),
    (text("bad", "red", n=2**53 + 1), "bad.*'n'"),
    (text("bad", "red", n=10**400), "bad.*'n'"),
    (text("bad", "red", n=b"bytes"), "bad.*'n'"),  # type: ignore[arg-type]
    (text("bad", "red", n=None), "bad.*'n'"),  # type: ignore[arg-type]
    (text("bad", "red", n=["x", 1]), "bad.*'n'"),  # type: ignore[list-item]
    (text("bad", "red", kept="a text"), "bad.*'kept'.*number"),
    (text("bad", "red", kept=True), "bad.*'kept'.*number"),
    (text("bad", "red", kept=DAY), "bad.*'kept'.*number"),
]


@pytest.mark.parametrize(("bad", "says"), BAD_ITEMS, ids=[f"{n}" for n in range(len(BAD_ITEMS))])
def test_a_wrong_item_is_named_and_nothing_is_stored(engine: Engine, bad: NewItem, says: str) -> None:
    (kept,) = engine.add([text("red", kept=1)])
    with pytest.raises(ItemError, match=says):
        engine.add([text("green", new="name"), bad, text("red", "blue", kept=2)])
    assert [item.key for item in engine.items()] == ["red"]
    assert engine.get([kept])[0].attributes == {"kept": 1}
    assert engine.attribute_kinds() == {"kept": "number"}
    assert [hit.item.key for hit in engine.search("green")] == ["red"]
    assert engine.check() == []
    assert engine.add([text("green", new=5)])[0] > kept  # the failed kind was not remembered


def test_a_missing_picture_stores_nothing(engine: Engine, tmp_path: Path) -> None:
    bad = NewItem(key="p", modality=IMAGE, parts=[NewPart(modality=IMAGE, content=tmp_path / "no.png")])
    with pytest.raises(MediaError, match=r"no\.png"):
        engine.add([text("red"), bad])
    assert list(engine.items()) == []


def test_odd_keys_and_texts_come_back(engine: Engine) -> None:
    odd = [
        "/a b/ü 🦦.txt",
        "new\nline",
        "nul\0byte",
        "'; DROP TABLE items; --",
        "x" * 5000,
        "%_*?[",
        " ",
        "\ufeff",
    ]
    engine.add([text(key, f"red {key}", **{f"name {key}": key}) for key in odd])
    for key in odd:
        item = engine.find(key)
        assert item
        assert (item.key, item.parts[0].text, item.attributes) == (key, f"red {key}", {f"name {key}": key})
    engine.add([text(key, "green") for key in odd[::2]])
    engine.remove([item.id for item in engine.items()][1::2])
    assert engine.check() == []


def test_copies_take_over_parts_with_their_vectors(engine: Engine) -> None:
    parts = [
        NewPart(modality=TEXT, content="red", start=0, end=3, page=1),
        NewPart(modality=TEXT, content="green", start=4, end=9, page=2),
    ]
    (first,) = engine.add([NewItem(key="a", modality=TEXT, parts=parts, content_hash=b"h" * 16)])
    encoder = engine.encoder
    assert isinstance(encoder, ToyEncoder)
    count = encoder.encoded_texts
    copy = NewItem(key="b", modality=TEXT, parts=engine.copy_parts(first), content_hash=b"h" * 16)
    (second,) = engine.add([copy])
    assert encoder.encoded_texts == count
    a, b = engine.get([first, second])
    np.testing.assert_array_equal(engine.vectors(a), engine.vectors(b))
    for one, two in zip(a.parts, b.parts, strict=True):
        assert (one.start, one.end, one.page, one.text) == (two.start, two.end, two.page, two.text)
    (hit,) = engine.search(Query(terms=(Term(text="green"),), hybrid=True))
    assert {hit.item.key, *hit.copies} == {"a", "b"}
    assert engine.by_hash([b"h" * 16, b"x" * 16]) == {b"h" * 16: first}


def test_attributes_of_every_kind_come_back(engine: Engine) -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    given: dict[str, AttributeValue] = {
        "text": "x",
        "empty": "",
        "tags": ["b", "a", "b"],
        "one": ["x"],
        "number": 1.5,
        "whole": 3,
        "most": -(2**53),
        "yes": True,
        "no": False,
        "naive": DAY,
        "zoned": DAY.replace(tzinfo=there),
        "utc": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    }
    (item_id,) = engine.add([NewItem(key="red", modality=TEXT, parts=text("red").parts, attributes=given)])
    back = dict(engine.get([item_id])[0].attributes)
    assert back.pop("zoned") == DAY - timedelta(hours=5, minutes=30)
    assert back.pop("utc") == datetime(1969, 12, 31, 23, 59, 59, 999999)
    assert back == {name: value for name, value in given.items() if name in back}
    assert isinstance(back["yes"], bool)
    assert not isinstance(back["whole"], bool)
    assert engine.select("yes = true and tags = 'a' and zoned < '2024-05-01T08:00'") == [item_id]


# -- threads -------------------------------------------------------------------------------------------------------


def test_threads_share_an_engine(tmp_path: Path) -> None:
    """Searches while another thread adds, replaces and removes: each sees whole items, and every score is right."""
    vectors = directions(100, 8)
    stop = threading.Event()
    stored = vectors.astype(np.float16).astype(np.float32)

    def search(engine: Engine, seed: int) -> int:
        rng = np.random.default_rng(seed)
        done = 0
        while not stop.is_set():
            query = vectors[rng.integers(100)]
            where = [None, "n >= 0", "n < 50"][rng.integers(3)]
            for hit in engine.search(Query(terms=(Term(vector=query),), k=20, where=where)):
                n = int(str(hit.item.attributes["n"]))
                assert hit.score == pytest.approx(float(stored[n] @ query), abs=1e-5)
                assert where != "n < 50" or n < 50
            done += 1
        return done

    def new(n: int) -> NewItem:
        part = NewPart(modality=IMAGE, vector=vectors[n])
        return NewItem(key=f"{n}", modality=IMAGE, parts=[part], attributes={"n": n})

    with (
        Engine.open(tmp_path, model=ToyEncoder(dim=8), exact_limit=30) as engine,
        ThreadPoolExecutor(3) as pool,
    ):
        engine.add([new(n) for n in range(10)])
        runs = [pool.submit(search, engine, seed) for seed in range(3)]
        try:
            for n in range(10, 100, 10):
                ids = engine.add([new(m) for m in range(n, n + 10)])
                engine.add([new(n - 1)])
                assert engine.search(Query(terms=(Term(vector=vectors[n]),)))[0].item.id == ids[0]
                engine.remove(ids[5:6])
            engine.save()
        finally:
            stop.set()
        assert all(run.result(60) > 0 for run in runs)
        assert len(list(engine.items())) == 100 - 9
        assert engine.check() == []


def test_many_threads_search_at_once(engine: Engine) -> None:
    engine.add([text(key) for key in COLOURS])
    engine.search("red")
    with ThreadPoolExecutor(24) as pool:
        found = list(
            pool.map(lambda _: engine.search(Query(terms=(Term(text="red"),), where="id > 0"))[0], range(48))
        )
    assert {hit.item.key for hit in found} == {"red"}


# -- imports -------------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
import mmsearch
before = sorted(sys.modules)
from mmsearch import Engine, Query, Term
from tests.toy import ToyEncoder
with Engine.open(sys.argv[1], model=ToyEncoder(), create=False) as engine:
    hits = engine.search(Query(terms=(Term(text="red"),), where="n = 1", hybrid=True))
print(json.dumps([before, sorted(sys.modules), [hit.item.key for hit in hits]]))
"""


def test_a_search_imports_neither_torch_nor_what_only_writing_needs(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        engine.add([text("red", n=1)])
    out = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    before, after, keys = json.loads(out)
    assert keys == ["red"]
    heavy = {"torch", "transformers", "onnx", "pyarrow", "alembic", "sqlalchemy", "pypdf", "typer", "rich"}
    assert not heavy & set(after)
    assert not {"soundfile", "soxr", "av"} & set(after)
    assert not {"numpy", "faiss", "PIL", "onnxruntime"} & set(before)
