"""Synonyms, rules and kept queries of a collection; suggestions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch import Engine, Query, Term
from mmsearch.errors import QueryError
from mmsearch.shapes import Boost, CollectionSettings, Results, Rule, Suggestion, Synonym
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

POOL = directions(20, 4)
TITLES = ["Red running shoes", "Blue sofa", "Leather couch", "Running socks", "Sofa cushion"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder()) as opened:
        opened.add([Product(f"k{n}", [POOL[n]], title).new() for n, title in enumerate(TITLES)])
        yield opened


def keys(result: Results) -> list[str]:
    return [hit.item.key for hit in result.hits]


def asking(text: str, **more: object) -> Query:
    return Query(terms=[Term(text=text)], hybrid=True, text_weight=1.0, **more)  # type: ignore[arg-type]


def test_settings_are_kept_and_followed_by_other_engines(engine: Engine) -> None:
    settings = CollectionSettings(
        synonyms=(Synonym(words=("sofa", "couch")), Synonym(of="footwear", words=("shoes", "socks"))),
        rules=(
            Rule(query="SOFAS", pinned=("k2",)),
            Rule(
                query="running", match="contains", hidden=("k3",), boosts=(Boost(where="id = 1", factor=2.0),)
            ),
        ),
        keep_queries=True,
    )
    with Engine.open(engine.home, model=ToyEncoder()) as other:
        assert other.settings() == CollectionSettings()
        assert keys(other.results(asking("couch"))) == ["k2"]
        engine.change_settings(settings)
        assert engine.settings() == other.settings() == settings
        assert set(keys(other.results(asking("couch")))) == {"k1", "k2", "k4"}
        assert keys(other.results(asking("couch", settings=False))) == ["k2"]
        assert set(keys(other.results(asking("footwear")))) == {"k0", "k3"}
        pinned = other.results(asking("sofa"))
        assert keys(pinned)[0] == "k2"
        assert [hit.pinned for hit in pinned.hits] == [True, False, False]
        assert keys(other.results(asking("blue sofa")))[0] == "k1", "the rule is for the whole query"
        lifted, plain = (other.results(asking("red running", settings=on)) for on in (True, False))
        assert (keys(lifted), keys(plain)) == (["k0"], ["k0", "k3"])
        assert lifted.hits[0].score == pytest.approx(2 * plain.hits[0].score)
    engine.change_settings(CollectionSettings())
    assert engine.settings() == CollectionSettings()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (CollectionSettings(synonyms=(Synonym(words=("one",)),)), "two texts"),
        (CollectionSettings(synonyms=(Synonym(words=("a", "!")),)), "two texts"),
        (CollectionSettings(rules=(Rule(query="!"),)), "needs words"),
        (CollectionSettings(rules=(Rule(match="like"),)), "match"),  # type: ignore[arg-type]
        (CollectionSettings(rules=(Rule(boosts=(Boost(where="a = 1", factor=-1),)),)), "factor"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    engine: Engine, settings: CollectionSettings, words: str
) -> None:
    with pytest.raises(QueryError, match=words):
        engine.change_settings(settings)
    assert engine.settings() == CollectionSettings()


def test_phrases_and_titles_complete_what_is_typed(engine: Engine) -> None:
    assert engine.suggest("so")[0] == Suggestion(text="sofa", source="phrase", count=2)
    titles = [found.text for found in engine.suggest("so") if found.source == "title"]
    assert titles == ["Sofa cushion", "Blue sofa", "Running socks"]
    assert engine.suggest("running sh") == [Suggestion(text="Red running shoes", source="title", key="k0")]
    assert [found.text for found in engine.suggest("run", k=1)] == ["running"]
    assert [found.text for found in engine.suggest("running", k=1)] == ["Running socks"]
    assert engine.suggest("xyz") == engine.suggest("  ") == []
    with pytest.raises(QueryError, match="k must be"):
        engine.suggest("so", k=0)
    engine.remove([engine.find("k4").id])  # type: ignore[union-attr]
    assert [found.text for found in engine.suggest("so")] == ["Blue sofa", "Running socks"], (
        "of one title alone"
    )


def test_past_queries_complete_only_if_they_are_kept(engine: Engine) -> None:
    engine.note_query("sofa bed")
    with Engine.open(engine.home, model=ToyEncoder()) as other:
        other.note_query("sofa bed")
    assert [found.source for found in engine.suggest("sofa be")] == []
    engine.change_settings(CollectionSettings(keep_queries=True))
    with Engine.open(engine.home, model=ToyEncoder()) as other:
        for text in ("Sofa bed", "sofa  bed!", "sofa beige", "!!"):
            other.note_query(text)
    assert engine.suggest("SOFA be") == [
        Suggestion(text="sofa  bed!", source="query", count=2),
        Suggestion(text="sofa beige", source="query", count=1),
    ]
    assert [found.text for found in engine.suggest("sofa", k=3)] == [
        "sofa  bed!",
        "sofa beige",
        "Sofa cushion",
    ]
    revision = engine.status().revision
    for _ in range(60):
        engine.note_query("sofa beige")
    assert engine.suggest("sofa be")[0] == Suggestion(text="sofa beige", source="query", count=52)
    assert engine.status().revision == revision, "nothing that is searched has changed"
    engine.change_settings(CollectionSettings())
    assert [found.source for found in engine.suggest("sofa be")] == []


def test_a_collection_takes_its_settings_and_queries_with_it(engine: Engine) -> None:
    engine.change_settings(CollectionSettings(keep_queries=True))
    engine.note_query("sofa")
    engine.close()
    with Engine.open(engine.home, model=ToyEncoder()) as again:
        again.catalog.delete_collection("default")
        with again.catalog.reading() as connection:
            for table in ("settings", "kept_queries"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
