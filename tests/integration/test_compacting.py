"""Rows and places of what is gone are given up: whoever keeps up answers as somebody who reads all anew."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import Engine, columns, fulltext, matrix
from mmsearch.columns import Columns
from mmsearch.shapes import Facet, Results, Sort
from mmsearch.types import Query, Term
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

POOL = directions(30, 4)
WORDS = st.lists(st.sampled_from(["zorb", "quil", "fonk", "plim", "blue"]), min_size=1, max_size=4).map(
    " ".join
)
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 7), st.sampled_from(["put", "put", "remove", "price"]), WORDS, st.integers(0, 29)
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    Engine.open(folder, model=ToyEncoder()).close()
    return folder


@pytest.fixture
def home(template: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(template, folder, dirs_exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def asked(engine: Engine) -> list[object]:
    """What some searches say, all but the time."""
    if not engine.status().items:
        return []
    facets = [Facet("colour"), Facet("price")]
    vector = Term(vector=POOL[3])
    known = engine.attribute_kinds()
    queries = [
        Query(terms=(Term(text="zorb quill"),), hybrid=True, typos=True, highlight=True),
        Query(terms=(vector,), facets=facets if "price" in known else [], where="id > 0"),
        Query(terms=(Term(text="blue zorb"), vector), hybrid=True, where="title like '%o%'"),
        Query(sort=[Sort("title"), Sort("key", descending=True)]),
    ]
    if "colour" in known:
        queries.append(Query(terms=(Term(text="fonk"),), hybrid=True, group_by="colour"))
    return [_told(found) for found in engine.results_of([dataclasses.replace(q, k=20) for q in queries])]


def _told(found: Results) -> object:
    hits = [
        (hit.item.key, hit.item.id, hit.item.title, round(hit.score, 5), hit.highlights) for hit in found.hits
    ]
    return found.total, hits, found.facets


@given(steps=st.lists(CHANGES, min_size=2, max_size=6), projected=st.booleans())
@settings(max_examples=25)
def test_who_gives_up_what_is_gone_answers_as_who_reads_all_anew(
    template: Path, steps: list[list[tuple[int, str, str, int]]], projected: bool
) -> None:
    home = Path(tempfile.mkdtemp())
    shutil.copytree(template, home, dirs_exist_ok=True)
    with (
        patch.object(columns, "_DEAD", 0),
        patch.object(columns, "_SHARE", 0.0),
        patch.object(matrix, "EXACT", 2 if projected else 4000),
        Engine.open(home, model=ToyEncoder()) as engine,
        Engine.open(home, model=ToyEncoder()) as writer,
    ):
        writer.add([Product("first", [POOL[0]], "zorb", attributes={"colour": "red", "price": 1.0}).new()])
        asked(engine)
        engine.keep_up()
        for step in steps:
            for n, do, words, vector in step:
                key = f"k{n}"
                item = writer.find(key)
                if do == "put":
                    attributes = {"colour": words.split()[0], "price": float(vector)}
                    made = Product(key, [POOL[vector], POOL[n]], words, words[::-1], attributes)
                    writer.add([made.new()])
                elif item is not None and do == "remove":
                    writer.remove([item.id])
                elif item is not None:
                    writer.update({key: {"price": float(vector) + 0.5}})
            engine.keep_up()
            with Engine.open(home, model=ToyEncoder(), create=False) as fresh:
                assert asked(engine) == asked(fresh)
    shutil.rmtree(home)


def test_what_is_kept_is_not_read_again(home: Path) -> None:
    with (
        patch.object(columns, "_DEAD", 10),
        Engine.open(home, model=ToyEncoder()) as engine,
        Engine.open(home, model=ToyEncoder()) as writer,
    ):
        writer.add([Product(f"k{n}", [POOL[n % 30]], f"zorb {n}").new() for n in range(40)])
        asked(engine)
        engine.keep_up()
        before = engine.current_columns()
        with (
            patch.object(fulltext, "read", side_effect=AssertionError),
            patch("mmsearch.view.read_matrix", side_effect=AssertionError),
        ):
            for n in range(30):
                writer.remove([engine.find(f"k{n}").id])  # type: ignore[union-attr]
                engine.keep_up()
                assert asked(engine)
        after = engine.current_columns()
        assert after.origin is not before.origin
        assert len(before.item_ids) == 40
        assert len(after.item_ids) <= 21
        assert engine.results(Query(sort=[Sort("id")], k=50)).total == 10


def test_words_that_nobody_says_any_more_are_forgotten(home: Path) -> None:
    with Engine.open(home, model=ToyEncoder()) as engine:
        engine.add([Product(f"k{n}", [POOL[n % 30]], f"common rare{n}").new() for n in range(20)])
        state = Columns(engine.catalog, 1)
        said = fulltext.read(engine.catalog, 1, state)
        assert state.keys.codes.keys() >= {"k0", "k19"}
        engine.remove([engine.find(f"k{n}").id for n in range(15)])  # type: ignore[union-attr]
        with patch.object(columns, "_DEAD", 0):
            after = state.advance()
        assert after.survivors is not None
        assert after.survivors.rows.tolist() == list(range(15, 20))
        kept = said.kept(after.origin, after.survivors.rows).advance(engine.catalog, 1, after)
        assert set(kept.surfaces) == {"common", *(f"rare{n}" for n in range(15, 20))}
        assert len(kept.stems) == 6
        assert set(after.keys.vocabulary) == {f"k{n}" for n in range(15, 20)}
        np.testing.assert_array_equal(kept.rows, np.arange(5))
