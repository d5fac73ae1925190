"""Search through the whole engine against a brute-force collection: the best items, filters, copies, mixed lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import Engine, Hit, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ItemNotFound, QueryError
from mmsearch.search import FUSED
from mmsearch.types import AttributeValue
from tests.oracle import Piece, Thing, assert_best, directions, groups, unit
from tests.toy import ToyEncoder

DIM = 12
IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
QUERIES = directions(6, DIM, seed=77)
WORDS = ["otter", "heron", "moss", "kayak", "fog", "granite"]


def collection(count: int = 160, seed: int = 5) -> dict[str, Thing]:
    """Photos of one part, documents of a few, some of 200; every tenth thing has byte-identical copies."""
    rng = np.random.default_rng(seed)
    things: dict[str, Thing] = {}
    for n in range(count):
        number = 200 if n % 60 == 5 else int(rng.integers(1, 6)) if n % 2 else 1
        modality = TEXT if n % 2 else IMAGE
        centre = directions(1, DIM, seed * 1000 + n)[0]
        pieces = [
            Piece(
                modality,
                unit(centre + 0.4 * rng.normal(size=DIM)),
                " ".join(rng.choice(WORDS, 3)) if modality is TEXT else None,
            )
            for _ in range(number)
        ]
        attributes: dict[str, AttributeValue] = {"n": n, "shelf": "abc"[n % 3], "rare": n % 50 == 1}
        copies = 1 + (n % 10 == 3) * (n % 4)
        for copy in range(copies):
            content = f"content {n:8}".encode() if copies > 1 or n % 3 == 0 else None
            things[f"/pictures/{'abc'[n % 3]}/{n}-{copy}.x"] = Thing(
                pieces, attributes, content, is_file=True
            )
    return things


THINGS = collection()


@pytest.fixture(scope="module", params=["exact", "compressed", "compressed with a tail"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    limit = 10**6 if request.param == "exact" else 50
    encoder = ToyEncoder(dim=DIM)
    home = tmp_path_factory.mktemp("home")
    with (
        pytest.MonkeyPatch.context() as patched,
        Engine.open(home, model=encoder, exact_limit=limit) as opened,
    ):
        # The base proposes from every list: what it can miss otherwise is measured in tests/unit/test_vectors.py.
        patched.setattr("mmsearch.vectors._PROBED", 1.0)
        new = [thing.new(key) for key, thing in THINGS.items()]
        late = len(new) // 10 if "tail" in request.param else 0
        opened.add(new[late:])
        if late:
            opened.save()
            # Some are replaced and some are removed after the base was built; what is left is the same collection.
            gone = opened.add([new[0], new[1]])
            opened.add([NewItem(key=item.key, modality=IMAGE, parts=[part(DIM)]) for item in new[-20:]])
            opened.remove(gone)
            opened.add(new[:late])
            opened.add(new[-20:])
        kinds = set(opened.status().index_kind.values())
        assert kinds == ({"exact"} if limit == 10**6 else {"ivf8"})
        yield opened


def part(dim: int, seed: int = 0) -> NewPart:
    return NewPart(modality=IMAGE, vector=directions(1, dim, seed)[0])


def near(vector: NDArray[np.float32], **options: object) -> Query:
    return Query(terms=(Term(vector=vector),), **options)  # type: ignore[arg-type]


# -- the best k items ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7, 60, 10_000])
@pytest.mark.parametrize("modality", [None, IMAGE, TEXT])
def test_the_best_items_of_parts_that_crowd_the_front(
    engine: Engine, k: int, modality: Modality | None
) -> None:
    for query in QUERIES[:3]:
        hits = engine.search(near(query, k=k, modality=modality))
        assert_best(hits, groups(THINGS, query, modality=modality), k)


def test_a_hit_names_the_part_that_matched(engine: Engine) -> None:
    for hit in engine.search(near(QUERIES[0], k=20)):
        thing = THINGS[hit.item.key]
        scores = [piece.score(QUERIES[0]) for piece in thing.pieces]
        assert hit.part.ordinal == int(np.argmax(scores))
        assert hit.part.text == thing.pieces[hit.part.ordinal].text
        assert hit.part.modality is thing.pieces[0].modality
        assert hit.item.attributes == thing.attributes


def test_a_query_by_item_leaves_that_item_and_its_copies_out(engine: Engine) -> None:
    for key in ("/pictures/a/0-0.x", "/pictures/c/5-0.x", "/pictures/b/13-0.x"):
        item = engine.find(key)
        assert item is not None
        vectors = [p.vector.astype(np.float16).astype(np.float64) for p in THINGS[key].pieces]
        mean = unit(np.sum(vectors, axis=0))
        hits = engine.search(Query(terms=(Term(item=item.id),), k=15))
        content = THINGS[key].content
        alike = {other for other, thing in THINGS.items() if content is not None and thing.content == content}
        assert_best(hits, groups(THINGS, mean, excluded={key, *alike}), 15, tolerance=1e-5)


def test_weighted_terms_are_one_query_vector(engine: Engine) -> None:
    a, b, c = QUERIES[:3].astype(np.float64)
    terms = (
        Term(vector=QUERIES[0], weight=2.0),
        Term(vector=5 * QUERIES[1]),  # any length: it is a direction
        Term(vector=QUERIES[2], weight=-0.5),
    )
    assert_best(engine.search(Query(terms=terms, k=12)), groups(THINGS, unit(2 * a + b - 0.5 * c)), 12, 1e-5)


@pytest.mark.parametrize("floor", [-1.0, 0.3, 0.7, 0.999])
def test_nothing_below_the_least_score(engine: Engine, floor: float) -> None:
    for query in QUERIES[:3]:
        hits = engine.search(near(query, k=50, min_score=floor))
        assert_best(hits, groups(THINGS, query, min_score=floor), 50)


# -- filters -------------------------------------------------------------------------------------------------------

Allowed = Callable[[str, Thing], bool]
FILTERS: list[tuple[dict[str, str], Allowed]] = [
    ({"where": "n < 80"}, lambda key, thing: number(thing) < 80),
    ({"where": "rare = true"}, lambda key, thing: bool(thing.attributes["rare"])),
    (
        {"where": "shelf in ('a', 'b') and not (n >= 100)"},
        lambda key, thing: number(thing) < 100 and key[10] in "ab",
    ),
    ({"where": "n = 5"}, lambda key, thing: number(thing) == 5),
    ({"where": "n < 0"}, lambda key, thing: False),
    ({"where": "n >= 0"}, lambda key, thing: True),
    ({"where": "modality = 'text'"}, lambda key, thing: thing.pieces[0].modality is TEXT),
    ({"where": "path like '%/7-%'"}, lambda key, thing: "/7-" in key),
    ({"where": "size = 1 and title is null"}, lambda key, thing: True),
    ({"path": "/pictures/a"}, lambda key, thing: key.startswith("/pictures/a/")),
    ({"path": "b/*-1.x"}, lambda key, thing: "/b/" in key and key.endswith("-1.x")),
    ({"path": "*1*", "where": "shelf = 'c'"}, lambda key, thing: "1" in key and "/c/" in key),
]


def number(thing: Thing) -> int:
    return int(str(thing.attributes["n"]))


@pytest.mark.parametrize(("options", "allowed"), FILTERS, ids=[str(options) for options, _ in FILTERS])
def test_what_a_filter_lets_pass_and_nothing_else(
    engine: Engine, options: dict[str, str], allowed: Allowed
) -> None:
    for modality in (None, TEXT):
        expected = groups(THINGS, QUERIES[1], modality=modality, allowed=allowed)
        assert_best(engine.search(near(QUERIES[1], k=25, modality=modality, **options)), expected, 25)


def test_a_filter_over_many_parts_asks_the_index(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.search.SCAN", 10)
    for options, allowed in FILTERS[:3]:
        expected = groups(THINGS, QUERIES[2], allowed=allowed)
        assert_best(engine.search(near(QUERIES[2], k=30, **options)), expected, 30)


def test_select_lists_what_passes(engine: Engine) -> None:
    for options, allowed in FILTERS[:5]:
        keys = {item.key for item in engine.get(engine.select(**options))}
        assert keys == {key for key, thing in THINGS.items() if allowed(key, thing)}


# -- mixed lists and full text -------------------------------------------------------------------------------------


class Levelled(ToyEncoder):
    """Texts lie 0.3 nearer to a text query than pictures do."""

    def __init__(self) -> None:
        super().__init__(dim=DIM)
        self.levels = {IMAGE: 0.1, TEXT: 0.4}
        self.asked: NDArray[np.float32] = QUERIES[:1]

    def encode_texts(self, texts: object) -> NDArray[np.float32]:
        return self.asked


@pytest.fixture
def levelled(engine: Engine) -> Iterator[Engine]:
    encoder = Levelled()
    with Engine.open(engine.home, model=encoder, exact_limit=50, create=False) as opened:
        yield opened


def test_scores_of_texts_are_moved_to_where_relevance_of_pictures_begins(levelled: Engine) -> None:
    assert_best(levelled.search("anything", k=40), groups(THINGS, QUERIES[0], shift={TEXT: -0.3}), 40)


def test_scores_stay_cosines_in_a_list_of_one_modality_and_for_queries_that_are_no_text(
    levelled: Engine,
) -> None:
    hits = levelled.search(Query(terms=(Term(text="anything"),), modality=TEXT, k=40))
    assert_best(hits, groups(THINGS, QUERIES[0], modality=TEXT), 40)
    assert_best(levelled.search(near(QUERIES[0], k=40)), groups(THINGS, QUERIES[0]), 40)


def fused(things: dict[str, Thing], order: list[str], allowed: Allowed, k: int) -> dict[str, float]:
    """Reciprocal rank fusion written out; ``order`` is the full-text list. Copies count once, under any name."""
    most = max(FUSED, k)
    by_vector = [sorted(keys)[0] for _, keys in groups(things, QUERIES[0], allowed=allowed)][:most]
    scores: dict[str, float] = {}
    for ranked in (by_vector, order[:most]):
        for rank, key in enumerate(ranked, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (60 + rank)
    return scores


@pytest.mark.parametrize("where", [None, "shelf = 'b'", "n > 150 or n < 4"])
@pytest.mark.parametrize(
    "words", ["granite", "otter heron", "nothing of the kind", 'moss!? (fog) "kayak* NEAR -otter']
)
def test_hybrid_search_fuses_the_nearest_with_those_that_hold_the_words(
    levelled: Engine, words: str, where: str | None
) -> None:
    levelled.encoder.levels = {}  # type: ignore[misc]
    allowed: Allowed = lambda key, thing: (  # noqa: E731
        where is None
        or (thing.attributes["shelf"] == "b" if "shelf" in where else not 4 <= number(thing) <= 150)
    )
    hits = levelled.search(Query(terms=(Term(text=words),), hybrid=True, k=12, where=where))
    matched = [word for word in WORDS if word in words]
    ids = {part.id: item.key for item in levelled.items() for part in item.parts}
    alike = {key: sorted(keys)[0] for _, keys in groups(THINGS, QUERIES[0], allowed=allowed) for key in keys}
    # BM25 itself is SQLite's; what is checked is which parts match, their filter, and the fusion.
    asked = levelled.catalog.full_text(1, matched, 10**6) if matched else []
    assert {ids[part] for part, _, _ in asked} == {
        key
        for key, thing in THINGS.items()
        if any(w in (p.text or "").split() for p in thing.pieces for w in matched)
    }
    order = list(dict.fromkeys(alike[ids[part]] for part, _, _ in asked if ids[part] in alike))
    expected = fused(THINGS, order, allowed, 12)
    assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[: len(hits)])
    assert len(hits) == min(12, len(expected))
    for hit in hits:
        assert hit.score == pytest.approx(expected[alike[hit.item.key]])


def test_a_long_text_can_be_a_hybrid_query(levelled: Engine) -> None:
    words = " ".join(f"word{n}" for n in range(3000)) + " granite"
    assert len(levelled.search(Query(terms=(Term(text=words),), hybrid=True, k=5))) == 5


# -- the toy encoder -----------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "home", model=ToyEncoder()) as opened:
        opened.add(
            [
                NewItem(key=words, modality=TEXT, parts=[NewPart(modality=TEXT, content=words)])
                for words in ("red", "green", "blue", "red green", "white")
            ]
        )
        yield opened


def keys(hits: list[Hit]) -> list[str]:
    return [hit.item.key for hit in hits]


def test_words_find_what_shares_their_colour(toy: Engine) -> None:
    assert keys(toy.search("red", k=3)) == ["red", "red green", "white"]
    assert toy.search("red")[0].score == pytest.approx(1.0, abs=1e-3)


def test_a_term_steers_away(toy: Engine) -> None:
    query = Query(terms=(Term(text="red green"), Term(text="green", weight=-0.6)), k=1)
    assert keys(toy.search(query)) == ["red"]


def test_each_item_alike_is_left_out_of_what_is_like_it(toy: Engine) -> None:
    red, green = toy.find("red"), toy.find("green")
    assert red
    assert green
    found = keys(toy.search(Query(terms=(Term(item=red.id), Term(item=green.id)), k=9)))
    assert found[0] == "red green"
    assert not {"red", "green"} & set(found)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (Query(terms=()), "empty"),
        (" \t\n", "empty"),
        (Query(terms=(Term(),)), "exactly one"),
        (Query(terms=(Term(text="red", item=1),)), "exactly one"),
        (Query(terms=(Term(text="red"), Term(text="red", weight=-1.0))), "cancel"),
        (Query(terms=(Term(text="red", weight=0.0),)), "not all zero"),
        (Query(terms=(Term(text="red", weight=math.nan),)), "finite"),
        (Query(terms=(Term(vector=np.ones(5, np.float32)),)), "4 finite"),
        (Query(terms=(Term(vector=np.zeros(4, np.float32)),)), "not all zero"),
        (Query(terms=(Term(vector=np.full(4, np.nan, np.float32)),)), "finite"),
        (Query(terms=(Term(text="red"),), k=0), "k must be at least 1"),
        (Query(terms=(Term(text="red"),), k=-3), "k must be at least 1"),
        (Query(terms=(Term(text="red"),), where="colour = 'red'"), "colour"),
        (Query(terms=(Term(text="red"),), where="id ="), "end"),
    ],
)
def test_a_query_that_cannot_be_understood(toy: Engine, query: Query | str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        toy.search(query)


@pytest.mark.parametrize("unknown", [999, 0, -1, 2**63, 10**30])
def test_an_unknown_item_is_named(toy: Engine, unknown: int) -> None:
    with pytest.raises(ItemNotFound, match=str(unknown)):
        toy.search(Query(terms=(Term(item=unknown),)))
    with pytest.raises(ItemNotFound, match=str(unknown)):
        toy.get([1, unknown])
    assert toy.remove([unknown]) == 0


def test_an_empty_collection_finds_nothing(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        assert engine.search("red") == []
        assert engine.search(Query(terms=(Term(text="red"),), hybrid=True, where="id > 0")) == []
        assert engine.select("id > 0") == []
        assert list(engine.items()) == []
        assert engine.check() == []
        engine.save()
        assert not list((tmp_path / "index").glob("*"))


def test_the_vectors_of_an_item_that_has_gone_are_no_other_items_vectors(toy: Engine) -> None:
    red, green = toy.find("red"), toy.find("green")
    assert red
    assert green
    toy.remove([red.id])
    with pytest.raises(ItemNotFound):
        toy.vectors(red)
    np.testing.assert_allclose(np.linalg.norm(toy.vectors(green), axis=1), 1, atol=1e-3)


def test_more_like_an_item_leaves_out_its_byte_identical_copies(tmp_path: Path) -> None:
    def photo(key: str, content_hash: bytes) -> NewItem:
        part = NewPart(modality=Modality.IMAGE, vector=np.array([1, 0, 0, 0], np.float32))
        return NewItem(key=key, modality=Modality.IMAGE, parts=[part], content_hash=content_hash)

    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        engine.add([photo("a", b"1" * 16), photo("copy of a", b"1" * 16), photo("b", b"2" * 16)])
        assert [hit.item.key for hit in engine.search(Query(terms=[Term(item=1)]))] == ["b"]
