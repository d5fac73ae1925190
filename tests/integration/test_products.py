"""Products into a collection, against a plain model of what must be there, and what must not be done again."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.addresses import networks
from indexer.feeds import forget_feed, index_feed, remembered_feeds
from indexer.migrate import migrate
from indexer.product import Product
from indexer.product_rows import Layout
from indexer.products import upsert
from indexer.report import Report
from indexer.transfer import Format, export_collection, import_collection
from mmsearch import Engine, Item, Modality, NewItem, NewPart, Query, Term
from mmsearch.cutting import cut
from mmsearch.errors import ConfigError, ItemError, MediaError, PruneRefused, SpaceMismatch
from mmsearch.fusing import fuse
from mmsearch.types import AttributeValue
from tests.oracle import directions
from tests.shop_server import Shop, picture, shop
from tests.toy import COLOURS, ToyEncoder

IMAGE, TEXT, AUDIO, FUSED = Modality
LOOPBACK = networks(["127.0.0.1"])
LONG = " ".join(f"Sentence {n} is about a red thing and a blue one." for n in range(40))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for colour, rgb in COLOURS.items():
        PIL.Image.new("RGB", (16, 12), rgb).save(folder / f"{colour}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def engine(tmp_path: Path, toy: ToyEncoder) -> Iterator[Engine]:
    with Engine.open(tmp_path / "home", model=toy) as made:
        toy.encoded_images = toy.encoded_texts = 0  # what making a collection encodes is another matter
        yield made


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop() as made:
        yield made


def product(key: str, title: str | None = None, *images: object, **attributes: AttributeValue) -> Product:
    return Product(key=key, title=title, images=[str(image) for image in images], attributes=attributes)


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.removed, report.unchanged


def assert_is(engine: Engine, item: Item, expected: Product) -> None:
    """The item is what a fresh encoder makes of the product."""
    toy = ToyEncoder()
    passages = [(expected.description or "")[start:end] for start, end in cut(expected.description or "")]
    said = [*([expected.title] if expected.title else []), *passages]
    kinds = [FUSED, *[IMAGE] * len(expected.images), *[TEXT] * len(said)]
    assert (item.title, item.modality, item.is_file) == (expected.title, FUSED, False)
    assert item.attributes == expected.attributes
    assert [part.modality for part in item.parts] == kinds
    assert [part.source for part in item.parts if part.modality is IMAGE] == list(expected.images)
    assert [part.text for part in item.parts if part.modality is TEXT] == said
    rows = [
        *(toy.encode_images([PIL.Image.open(str(image)).convert("RGB")])[0] for image in expected.images),
        *(toy.encode_texts([text])[0] for text in said),
    ]
    stored = engine.vectors(item)
    np.testing.assert_array_equal(stored[1:], np.stack(rows).astype(np.float16).astype(np.float32))
    parts = [NewPart(modality=part.modality, start=part.start) for part in item.parts[1:]]
    fused = fuse(parts, np.stack(rows), {})
    assert fused is not None
    np.testing.assert_array_equal(stored[0], fused.astype(np.float16).astype(np.float32))


# -- against a model -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcdef")
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "price": st.integers(0, 3) | st.just(2.5),
        "sold": st.booleans(),
        "brand": st.sampled_from(["x", "y"]),
        "tags": st.lists(st.sampled_from("pq"), min_size=1, max_size=2),
        "since": st.sampled_from([datetime(2024, 5, 1), datetime(2025, 1, 1, 12, 30, 0, 250)]),
    },
)
PRODUCTS = st.tuples(
    KEYS,
    st.sampled_from([None, "red shirt", "blue hat"]),
    st.sampled_from([None, "A green thing.", LONG]),
    st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3, unique=True),
    ATTRIBUTES,
)
STEPS = st.one_of(
    st.tuples(st.just("upsert"), st.lists(PRODUCTS, max_size=4)),
    st.tuples(st.just("update"), st.dictionaries(KEYS, ATTRIBUTES, max_size=3)),
    st.tuples(
        st.just("take"), st.dictionaries(KEYS, st.sampled_from(["price", "brand", "none"]), max_size=3)
    ),
    st.tuples(st.just("remove"), st.lists(KEYS, max_size=2, unique=True)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=8))
def test_a_collection_of_products_is_what_was_done_to_it(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, steps: list[tuple[str, Any]]
) -> None:
    model: dict[str, Product] = {}
    ids: dict[str, int] = {}
    with Engine.open(tmp_path_factory.mktemp("home"), model=ToyEncoder()) as engine:
        for what, given_now in steps:
            if what == "upsert":
                drawn = [
                    Product(
                        key=key,
                        title=title,
                        description=description,
                        images=[str(pictures / f"{colour}.png") for colour in images],
                        attributes=attributes,
                    )
                    for key, title, description, images, attributes in given_now
                ]
                latest = {one.key: one for one in drawn}
                whole = {
                    key: one for key, one in latest.items() if one.title or one.description or one.images
                }
                report = upsert(engine, drawn)
                assert report.added == len(whole.keys() - model.keys())
                assert report.unchanged == sum(model.get(key) == one for key, one in whole.items())
                assert report.added + report.updated + report.unchanged == len(whole)
                assert len(report.skipped) == len(latest) - len(whole)
                model |= whole
            elif what in ("update", "take"):
                changes = (
                    given_now if what == "update" else {key: {name: None} for key, name in given_now.items()}
                )
                assert set(engine.update(changes)) == changes.keys() - model.keys()
                for key in changes.keys() & model.keys():
                    merged = {**model[key].attributes, **changes[key]}
                    kept = {name: value for name, value in merged.items() if value is not None}
                    model[key] = dataclasses.replace(model[key], attributes=kept)
            else:
                engine.remove([ids[key] for key in given_now if key in model])
                for key in given_now:
                    model.pop(key, None)
            items = {item.key: item for item in engine.items()}
            assert items.keys() == model.keys()
            for key, item in items.items():
                assert_is(engine, item, model[key])
                assert ids.setdefault(key, item.id) == item.id or key not in model
            ids = {key: item.id for key, item in items.items()}
            for where in ("price >= 2", 'brand = "x"', "sold = true"):
                name = where.split()[0]
                if name in engine.attribute_kinds():
                    found = {engine.get([one])[0].key for one in engine.select(where)}
                    assert found == {
                        key for key, one in model.items() if _passes(one.attributes.get(name), where)
                    }
        assert engine.check() == []


def _passes(value: Any, where: str) -> bool:
    return value is not None and (value >= 2 if ">=" in where else value in ("x", True))


# -- what is not done again ------------------------------------------------------------------------------------------


def test_unchanged_products_cost_nothing(engine: Engine, toy: ToyEncoder, pictures: Path) -> None:
    products = [product("a", "red shirt", pictures / "red.png", price=1), product("b", "blue hat", price=2)]
    assert counts(upsert(engine, products)) == (2, 0, 0, 0)
    assert (toy.encoded_images, toy.encoded_texts) == (1, 2)
    revision = engine.catalog.revision()
    assert counts(upsert(engine, products)) == (0, 0, 0, 2)
    assert (toy.encoded_images, toy.encoded_texts) == (1, 2)
    assert engine.catalog.revision() == revision


def test_what_changed_is_encoded_and_nothing_else(engine: Engine, toy: ToyEncoder, pictures: Path) -> None:
    upsert(engine, [product("a", "red shirt", pictures / "red.png", pictures / "blue.png")])
    toy.encoded_images = toy.encoded_texts = 0
    assert counts(upsert(engine, [product("a", "red hat", pictures / "red.png", pictures / "blue.png")])) == (
        0,
        1,
        0,
        0,
    )
    assert (toy.encoded_images, toy.encoded_texts) == (0, 1)
    upsert(engine, [product("a", "red hat", pictures / "blue.png", pictures / "green.png")])
    assert (toy.encoded_images, toy.encoded_texts) == (1, 1)
    (item,) = engine.items()
    assert_is(engine, item, product("a", "red hat", pictures / "blue.png", pictures / "green.png"))


def test_attributes_alone_are_no_work(engine: Engine, toy: ToyEncoder, pictures: Path) -> None:
    upsert(engine, [product("a", "red shirt", pictures / "red.png", price=1, tags=["x"])])
    (before,) = engine.items()
    vectors = engine.vectors(before)
    toy.encoded_images = toy.encoded_texts = 0
    report = upsert(engine, [product("a", "red shirt", pictures / "red.png", price=2)])
    assert (report.updated, report.attributes_only) == (1, 1)
    (after,) = engine.items()
    assert (toy.encoded_images, toy.encoded_texts) == (0, 0)
    assert [part.id for part in after.parts] == [part.id for part in before.parts]
    assert engine.vectors(after).tobytes() == vectors.tobytes()
    assert after.attributes == {"price": 2}


def test_variants_share_their_pictures_and_are_no_copies(
    engine: Engine, toy: ToyEncoder, pictures: Path
) -> None:
    sizes = ["S", "M", "L"]
    variants = [
        product(f"a-{size}", "red shirt", pictures / "red.png", parent="a", size=size) for size in sizes
    ]
    assert upsert(engine, variants).added == 3
    assert (toy.encoded_images, toy.encoded_texts) == (1, 1)
    hits = engine.search(Query(terms=[Term(text="red")]))
    assert {hit.item.key for hit in hits} == {"a-S", "a-M", "a-L"}
    assert all(hit.copies == () for hit in hits)
    upsert(engine, [*variants, product("a-XL", "red shirt", pictures / "red.png", parent="a", size="XL")])
    assert len(engine.select('parent = "a"')) == 4


def test_a_picture_that_moved_or_was_touched_is_not_encoded(
    engine: Engine, toy: ToyEncoder, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "red.png", tmp_path / "one.png")
    upsert(engine, [product("a", None, tmp_path / "one.png")])
    shutil.move(tmp_path / "one.png", tmp_path / "two.png")
    os.utime(tmp_path / "two.png", ns=(1, 1))
    assert upsert(engine, [product("a", None, tmp_path / "two.png")]).unchanged == 1
    assert toy.encoded_images == 1
    (item,) = engine.items()
    assert item.parts[1].source == str(tmp_path / "two.png")
    shutil.copy(pictures / "blue.png", tmp_path / "two.png")
    assert upsert(engine, [product("a", None, tmp_path / "two.png")]).updated == 1
    assert_is(engine, next(engine.items()), product("a", None, tmp_path / "two.png"))


def test_bytes_are_pictures_too(engine: Engine, toy: ToyEncoder) -> None:
    given_now = Product(key="a", title="shirt", images=[picture("red"), picture("blue")])
    upsert(engine, [given_now])
    assert upsert(engine, [given_now]).unchanged == 1
    toy.encoded_images = 0
    upsert(engine, [dataclasses.replace(given_now, images=[picture("blue"), picture("green")])])
    assert toy.encoded_images == 1
    (item,) = engine.items()
    assert [part.source for part in item.parts] == [None] * 4


# -- what cannot be had ----------------------------------------------------------------------------------------------


def test_a_product_goes_in_without_a_picture_that_cannot_be_read(engine: Engine, pictures: Path) -> None:
    report = upsert(engine, [product("a", "red shirt", pictures / "broken.png", pictures / "red.png")])
    assert (report.added, report.skipped) == (1, [])
    (note,) = report.notes
    assert note.path == "a"
    assert "broken.png" in note.reason
    assert "is not a picture" in note.reason
    assert_is(engine, next(engine.items()), product("a", "red shirt", pictures / "red.png"))


def test_a_product_of_which_nothing_can_be_had_is_skipped(engine: Engine, pictures: Path) -> None:
    report = upsert(engine, [product("a", None, pictures / "none.png"), product("b"), product("c", "blue")])
    assert report.added == 1
    assert [line.path for line in report.skipped] == ["a", "b"]
    assert "none.png: no such file" in report.skipped[0].reason


def test_a_picture_that_is_gone_for_now_keeps_its_vector(
    engine: Engine, toy: ToyEncoder, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "red.png", tmp_path / "red.png")
    upsert(engine, [product("a", "shirt", tmp_path / "red.png")])
    before = engine.vectors(next(engine.items()))[1]
    (tmp_path / "red.png").unlink()
    report = upsert(engine, [product("a", "blue shirt", tmp_path / "red.png")])
    assert report.updated == 1
    assert "its vector from before is kept" in report.notes[0].reason
    assert engine.vectors(next(engine.items()))[1].tobytes() == before.tobytes()
    assert toy.encoded_images == 1


def test_an_attribute_of_another_kind_leaves_out_its_product_alone(engine: Engine) -> None:
    upsert(engine, [product(f"p{n}", f"thing {n}", price=n) for n in range(9)])
    report = upsert(
        engine, [product(f"p{n}", f"other {n}", price="cheap" if n == 4 else n) for n in range(9)]
    )
    assert report.updated == 8
    (line,) = report.skipped
    assert line.path == "p4"
    assert line.reason == "attribute 'price' is a number in this collection, but 'cheap' is a text"
    titles = {item.key: item.title for item in engine.items()}
    assert titles["p4"] == "thing 4"
    report = upsert(
        engine, [product(f"p{n}", titles[f"p{n}"], price="cheap" if n == 5 else n + 1) for n in range(9)]
    )
    assert [line.path for line in report.skipped] == ["p5"]
    assert report.attributes_only == 8


def test_paths_from_elsewhere_are_refused(engine: Engine, pictures: Path) -> None:
    report = upsert(engine, [product("a", "shirt", pictures / "red.png")], files=False)
    assert "only addresses and uploads" in report.notes[0].reason
    assert [part.modality for part in next(engine.items()).parts] == [FUSED, TEXT]


def test_vectors_of_a_former_model_never_go_in(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert(engine, [product("a", "red shirt")])
    monkeypatch.setattr(engine.catalog, "epoch", lambda collection: 10**6)
    with pytest.raises(SpaceMismatch, match="another model meanwhile"):
        upsert(engine, [product("a", "blue shirt")])


# -- addresses -------------------------------------------------------------------------------------------------------


def test_pictures_at_addresses_are_fetched_once_and_asked_for_again(
    engine: Engine, toy: ToyEncoder, server: Shop
) -> None:
    server.versions = {"/red.png": '"1"', "/blue.png": '"1"'}
    red, blue = f"{server.url}/red.png", f"{server.url}/blue.png"
    products = [product("a", "shirt", red, blue), product("b", "hat", red)]
    assert upsert(engine, products, allowed=LOOPBACK).added == 2
    assert (server.asked["/red.png"], toy.encoded_images) == (1, 2)
    assert upsert(engine, products, allowed=LOOPBACK).unchanged == 2
    assert (server.asked["/red.png"], toy.encoded_images) == (2, 2)
    assert server.headers["if-none-match"] == '"1"'
    server.pictures["/red.png"], server.versions["/red.png"] = picture("green"), '"2"'
    assert upsert(engine, products, allowed=LOOPBACK).updated == 2
    assert toy.encoded_images == 3
    green = ToyEncoder().encode_images([PIL.Image.new("RGB", (8, 8), COLOURS["green"])])[0]
    for item in engine.items():
        np.testing.assert_array_equal(engine.vectors(item)[1], green.astype(np.float16).astype(np.float32))
        assert item.parts[1].source == red


def test_an_address_inside_is_refused_and_the_product_goes_in(engine: Engine, server: Shop) -> None:
    report = upsert(engine, [product("a", "shirt", f"{server.url}/red.png")])
    assert report.added == 1
    assert "only public addresses are fetched" in report.notes[0].reason
    assert not server.asked


# -- feeds -----------------------------------------------------------------------------------------------------------


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def keys(engine: Engine) -> set[str]:
    return {item.key for item in engine.items()}


def test_a_feed_is_brought_in_and_up_to_date(engine: Engine, toy: ToyEncoder, pictures: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "title": "red shirt", "image": "red.png", "price": "12.99 USD", "stock": 3},
        {"id": "b", "title": "blue hat", "image": "blue.png|green.png", "price": "5.00 USD", "stock": 0},
    ]
    feed = write(pictures / "feed.csv", rows)
    assert counts(index_feed(engine, feed)) == (2, 0, 0, 0)
    expected = product("a", "red shirt", pictures / "red.png", price=12.99, price_currency="USD", stock=3)
    item = engine.find("a")
    assert item is not None
    assert_is(engine, item, expected)
    assert remembered_feeds(engine) == [str(feed)]
    toy.encoded_images = toy.encoded_texts = 0
    assert counts(index_feed(engine, feed)) == (0, 0, 0, 2)
    rows[1] = {**rows[1], "price": "4.00 USD"}
    rows.append({"id": "c", "title": "green scarf", "stock": 1})
    report = index_feed(engine, write(feed, rows))
    assert (counts(report), report.attributes_only) == ((1, 1, 0, 1), 1)
    assert (toy.encoded_images, toy.encoded_texts) == (0, 1)
    rows[0] = {**rows[0], "delete": "yes"}
    assert counts(index_feed(engine, write(feed, rows))) == (0, 0, 1, 2)
    assert keys(engine) == {"b", "c"}
    forget_feed(engine, str(feed))
    assert remembered_feeds(engine) == []


def test_products_that_are_missing_are_removed_only_if_asked_for_and_only_those_of_the_feed(
    engine: Engine, tmp_path: Path
) -> None:
    def titled(*names: str) -> list[dict[str, object]]:
        return [{"id": name, "title": f"thing {name}"} for name in names]

    one, two = write(tmp_path / "one.csv", titled(*"abcd")), write(tmp_path / "two.csv", titled("x"))
    upsert(engine, [product("hand", "made")])
    index_feed(engine, one)
    index_feed(engine, two)
    write(one, titled(*"abc"))
    assert index_feed(engine, one).removed == 0
    assert index_feed(engine, one, delete_missing=True).removed == 1
    assert keys(engine) == {*"abc", "x", "hand"}
    write(one, titled(*"ab"))
    assert index_feed(engine, one).removed == 1, "it is remembered"
    write(one, titled("e"))
    with pytest.raises(PruneRefused, match="2 of the 3 products"):
        index_feed(engine, one)
    assert keys(engine) == {*"abe", "x", "hand"}, "the rest was done"
    assert index_feed(engine, one, prune=True).removed == 2
    write(two, titled("e", "x"))
    index_feed(engine, two)  # now the product is the other feed's
    write(one, titled("f"))
    assert index_feed(engine, one, prune=True).removed == 0
    assert keys(engine) == {*"ef", "x", "hand"}


def test_rows_that_cannot_be_read_are_told_and_nothing_is_removed_for_them(
    engine: Engine, tmp_path: Path
) -> None:
    feed = tmp_path / "feed.jsonl"
    feed.write_text('{"id": 1, "title": "a"}\n{"id": 2, "title": "b"}\n{"id": 3, "title": "c"}\n')
    index_feed(engine, feed)
    feed.write_text(
        '{"id": 1, "title": "a"}\n{"id": 2, "title": "b"\n{"id": 3, "title": "c", "price": {}}\n{"title": 4}\n'
    )
    report = index_feed(engine, feed)
    assert [line.path for line in report.skipped] == [f"{feed}: line {n}" for n in (2, 3, 4)]
    assert report.unchanged == 1
    with pytest.raises(PruneRefused, match="3 of its rows cannot be read"):
        index_feed(engine, feed, delete_missing=True)
    assert keys(engine) == {"1", "2", "3"}


def test_a_partial_feed_changes_attributes_of_products_that_are_there(
    engine: Engine, toy: ToyEncoder, pictures: Path, tmp_path: Path
) -> None:
    upsert(
        engine,
        [product("a", "red shirt", pictures / "red.png", price=1, brand="x"), product("b", "hat", price=2)],
    )
    before = {item.key: engine.vectors(item).tobytes() for item in engine.items()}
    feed = write(
        tmp_path / "prices.csv", [{"id": "a", "price": 3}, {"id": "b", "price": 2}, {"id": "c", "price": 9}]
    )
    report = index_feed(engine, feed, partial=True)
    assert (counts(report), report.attributes_only) == ((0, 1, 0, 1), 1)
    assert [line.reason for line in report.skipped] == ["no product has this id"]
    assert {item.key: dict(item.attributes) for item in engine.items()} == {
        "a": {"price": 3, "brand": "x"},
        "b": {"price": 2},
    }
    assert {item.key: engine.vectors(item).tobytes() for item in engine.items()} == before
    assert counts(index_feed(engine, feed)) == (0, 0, 0, 2), "it is remembered to be partial"
    with pytest.raises(ConfigError, match="only changes attributes"):
        index_feed(engine, feed, delete_missing=True)


def test_a_layout_is_remembered(engine: Engine, tmp_path: Path) -> None:
    feed = write(tmp_path / "feed.csv", [{"nr": "7", "name": "shirt", "size": 38}])
    layout = Layout(columns={"id": ("nr",)}, types={"size": "text"})
    index_feed(engine, feed, layout)
    assert engine.attribute_kinds() == {"size": "text"}
    assert index_feed(engine, feed).unchanged == 1
    with pytest.raises(ConfigError, match="no column has the ids"):
        index_feed(engine, feed, Layout())


def test_a_feed_that_is_no_table_is_refused_whole(engine: Engine, tmp_path: Path) -> None:
    for name, told in [("none.csv", "no such file"), ("empty.csv", "has no rows"), ("a.parquet", "Parquet")]:
        if name != "none.csv":
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(MediaError, match=told):
            index_feed(engine, tmp_path / name)
    with pytest.raises(ConfigError, match="suffix"):
        index_feed(engine, tmp_path / "feed.xls")


# -- updates of attributes -------------------------------------------------------------------------------------------


def test_an_update_of_a_wrong_kind_changes_nothing(engine: Engine) -> None:
    upsert(engine, [product("a", "shirt", price=1), product("b", "hat", price=2)])
    revision = engine.catalog.revision()
    with pytest.raises(ItemError, match="b: attribute 'price' is a number"):
        engine.update({"a": {"price": 5}, "b": {"price": "x"}})
    assert engine.catalog.revision() == revision
    assert [item.attributes for item in engine.items()] == [{"price": 1}, {"price": 2}]


def test_an_update_is_found_by_the_next_search_and_by_other_engines(engine: Engine, tmp_path: Path) -> None:
    upsert(engine, [product("a", "red shirt", price=1), product("b", "red hat", price=2)])
    with Engine.open(tmp_path / "home", model=ToyEncoder()) as reader:
        query = Query(terms=[Term(text="red")], where="price > 1")
        assert [hit.item.key for hit in reader.search(query)] == ["b"]
        assert engine.update({"a": {"price": 7, "new": "x"}, "z": {}}) == ["z"]
        assert {hit.item.key for hit in engine.search(query)} == {"a", "b"}
        assert {hit.item.key for hit in reader.search(query)} == {"a", "b"}
        engine.update({"a": {"colour": "red"}}, replace=True)
        item = engine.find("a")
        assert item is not None
        assert item.attributes == {"colour": "red"}
        assert [hit.item.key for hit in reader.search(query)] == ["b"]


# -- another model -----------------------------------------------------------------------------------------------------


def test_products_are_given_another_model(engine: Engine, pictures: Path) -> None:
    class Other(ToyEncoder):
        """Maps into the toy's space with its axes turned."""

        def _embed(self, colours: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.ascontiguousarray(super()._embed(colours)[:, ::-1])

    given_now = product("a", "red shirt", pictures / "red.png", pictures / "blue.png", price=1)
    upsert(engine, [given_now, product("b", "blue hat", price=2)])
    before = {item.key: engine.vectors(item) for item in engine.items()}
    migrate(engine, Other("turned"))
    assert engine.space.id == "turned"
    for item in engine.items():
        np.testing.assert_array_equal(engine.vectors(item)[1:], before[item.key][1:, ::-1])
        np.testing.assert_allclose(engine.vectors(item)[0], before[item.key][0, ::-1], atol=1e-3)
        assert [part.source for part in item.parts if part.modality is IMAGE] == (
            list(given_now.images) if item.key == "a" else []
        )
    assert upsert(engine, [given_now]).unchanged == 1
    assert engine.check() == []


# -- exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_products_come_back_from_an_export_and_their_feed_encodes_nothing(
    engine: Engine, pictures: Path, tmp_path: Path, format: Format
) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "title": "red shirt", "image": "red.png", "price": 1, "description": LONG},
        {"id": "b", "title": "blue hat", "image": "blue.png", "price": 2},
    ]
    feed = write(pictures / "exported.csv", rows)
    index_feed(engine, feed)
    export_collection(engine, tmp_path / f"file.{format}")
    toy = ToyEncoder()
    with Engine.open(tmp_path / "other", model=toy) as other:
        assert import_collection(other, tmp_path / f"file.{format}") == 2
        for one, two in zip(engine.items(), other.items(), strict=True):
            assert (one.key, one.title, one.attributes, one.content_hash) == (
                two.key,
                two.title,
                two.attributes,
                two.content_hash,
            )
            kept = [
                [dataclasses.replace(part, id=0, stamp=None) for part in item.parts] for item in (one, two)
            ]
            assert kept[0] == kept[1]
            assert engine.vectors(one).tobytes() == other.vectors(two).tobytes()
        toy.encoded_images = toy.encoded_texts = 0
        assert counts(index_feed(other, feed)) == (0, 0, 0, 2)
        assert (toy.encoded_images, toy.encoded_texts) == (0, 0)
        assert index_feed(other, feed, delete_missing=True).removed == 0
        assert other.check() == []


def test_an_export_of_the_first_version_is_read(engine: Engine, tmp_path: Path) -> None:
    engine.add(
        [
            NewItem(
                key="k", modality=TEXT, parts=[NewPart(modality=TEXT, vector=directions(1, 4)[0], text="x")]
            )
        ]
    )
    export_collection(engine, tmp_path / "new.jsonl")
    old = (
        (tmp_path / "new.jsonl").read_text().replace('"format":2', '"format":1').replace('"source":null,', "")
    )
    assert '"source"' not in old
    (tmp_path / "old.jsonl").write_text(old)
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as other:
        assert import_collection(other, tmp_path / "old.jsonl") == 1
