"""What the words of a hybrid query do to a result: unknown, common, misspelt, tied, quoted and unwanted ones, codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.shapes import CollectionSettings, Results, Synonym
from mmsearch.types import Hit, Vector
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

POOL = directions(60, 4, seed=5)
QUERY = directions(1, 4, seed=6)[0]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder()) as opened:
        yield opened


def said(engine: Engine, *titles: str) -> None:
    engine.add([Product(f"k{n}", [POOL[n]], title).new() for n, title in enumerate(titles)])


def asked(engine: Engine, text: str, vector: Vector | None = None, **more: object) -> Results:
    """Ask by words, and by a vector that the words do not steer if there is one."""
    terms = [Term(text=text)] if vector is None else [Term(vector=vector), Term(text=text, weight=1e-12)]
    return engine.results(Query(terms=terms, hybrid=True, **more))  # type: ignore[arg-type]


def keys(result: Results) -> list[str]:
    return [hit.item.key for hit in result.hits]


def stage(hit: Hit, name: str) -> float:
    return next(one.score for one in hit.explanation if one.name == name)


def full_match(n: int, holding: float) -> float:
    """BM25 of a word in a title of the usual length (k1 1.2, titles twice)."""
    return float(np.log(1 + (n - holding + 0.5) / (holding + 0.5))) * 2 * 2.2 / 3.2


def test_a_word_that_nobody_has_lowers_what_all_texts_score(engine: Engine) -> None:
    said(engine, "zorb", "plim", "quil", "fonk")
    known = asked(engine, "zorb", text_weight=1.0, typos=False)
    partly = asked(engine, "zorb xylophone", text_weight=1.0, typos=False)
    assert [hit.score for hit in known.hits] == pytest.approx([1.0])
    share = full_match(4, 1) / (full_match(4, 1) + full_match(4, 0))
    assert [hit.score for hit in partly.hits] == pytest.approx([share])


def test_of_what_the_words_do_not_know_the_vectors_judge(engine: Engine) -> None:
    """Photos without a word, and captions that all say "a": the bird is in a photo."""
    towards = [QUERY * 3 + other for other in POOL[:3]]
    photos = [vector / np.linalg.norm(vector) for vector in towards]
    away = [vector if vector @ QUERY < 0 else -vector for vector in POOL[3:23]]
    items = [
        NewItem(
            key=f"photo{n}", modality=Modality.IMAGE, parts=[NewPart(modality=Modality.IMAGE, vector=vector)]
        )
        for n, vector in enumerate(photos)
    ]
    items += [Product(f"caption{n}", [vector], f"a zorb {n}").new() for n, vector in enumerate(away)]
    engine.add(items)
    for weight in (0.3, 0.5, 0.9):
        found = asked(engine, "a bird", QUERY, text_weight=weight, typos=False, k=3)
        assert sorted(keys(found)) == ["photo0", "photo1", "photo2"]


def test_a_query_of_common_words_is_no_full_match(engine: Engine) -> None:
    said(engine, *[f"the {word}" for word in ("zorb", "quil", "fonk", "plim")], "drat")
    result = asked(engine, "the", text_weight=1.0)
    want = full_match(5, 4) / full_match(5, 1)
    assert result.hits[0].score == pytest.approx(want, rel=0.2)  # a title of two words is longer than usual
    assert result.hits[0].score < 0.35


def test_a_word_that_means_something_to_the_query_counts_more_than_one_that_does_not(engine: Engine) -> None:
    """As many titles have "show" as "zorb", but only those with "zorb" lie near the query."""
    order = np.argsort(-(POOL @ QUERY))
    near, far, (first, second) = order[:5], order[-5:], order[29:31]
    titles = {int(n): "zorb" for n in [*near, second]} | {int(n): "show" for n in [*far, first]}
    engine.add([Product(f"k{n}", [POOL[n]], titles.get(n, f"quil{n}")).new() for n in range(60)])
    rank = {key: place for place, key in enumerate(keys(asked(engine, "show zorb", QUERY, k=60)))}
    assert rank[f"k{second}"] < rank[f"k{first}"], "although the vector of the other is a little nearer"


def test_a_misspelt_word_is_encoded_as_it_was_meant(engine: Engine) -> None:
    said(engine, "green coat", "red coat", "blue shoe")
    result = asked(engine, "grean", explain=True)
    right = asked(engine, "green", explain=True)
    assert [(c.word, list(c.used)) for c in result.corrections] == [("grean", ["green"])]
    vectors = {hit.item.key: stage(hit, "vector") for hit in right.hits}
    assert {hit.item.key: stage(hit, "vector") for hit in result.hits} == pytest.approx(vectors)
    both = engine.results_of([Query(terms=[Term(text=text)], hybrid=True) for text in ("grean", "green")])
    assert keys(both[0]) == keys(both[1]) == keys(right)
    plain = engine.results(Query(terms=[Term(text="grean")], explain=True))
    assert stage(plain.hits[0], "vector") != pytest.approx(vectors[plain.hits[0].item.key]), (
        "only in hybrid ones"
    )


def test_a_word_that_the_model_knows_is_not_taken_for_another(engine: Engine) -> None:
    said(engine, "greed", "envy")
    assert not asked(engine, "green").corrections
    assert [c.used[0] for c in asked(engine, "green", text_weight=1.0).corrections] == ["greed"], (
        "words alone"
    )
    assert [c.used[0] for c in asked(engine, "greeb").corrections] == ["greed"]


@pytest.mark.parametrize("text", ["tshirt", "t-shirt", "t shirt", "T-SHIRTS", "Tshirts"])
def test_words_written_as_one_apart_or_with_a_hyphen_find_each_other(engine: Engine, text: str) -> None:
    said(engine, "White tshirt", "White T-Shirts", "White shirt", "T square")
    found = asked(engine, text, text_weight=1.0)
    assert sorted(keys(found)) == ["k0", "k1"]
    assert found.hits[0].score == pytest.approx(found.hits[1].score, rel=0.1)


def test_words_that_nobody_writes_as_one_are_found_apart(engine: Engine) -> None:
    said(engine, "Blue flip flops", "flip chart", "H&M coat", "U.S. Polo")
    result = asked(engine, "flipflops", text_weight=1.0)
    assert keys(result)[0] == "k0"
    assert [(c.word, list(c.used)) for c in result.corrections] == [("flipflops", ["flip flops"])]
    assert keys(asked(engine, "hm", text_weight=1.0)) == ["k2"]
    assert keys(asked(engine, "us polo", text_weight=1.0)) == ["k3"]


def test_a_synonym_of_a_tied_word_counts(engine: Engine) -> None:
    said(engine, "t-shirt", "tee", "shirt")
    engine.change_settings(CollectionSettings(synonyms=[Synonym(words=["tshirt", "tee"])]))
    assert sorted(keys(asked(engine, "t-shirt", text_weight=1.0))) == ["k0", "k1"]


def test_a_code_is_found_before_all_that_is_near(engine: Engine) -> None:
    order = np.argsort(-(POOL @ QUERY))
    titles = {int(order[-1]): "watch A479", int(order[-2]): "watch A478"}
    engine.add([Product(f"sku-{n}", [POOL[n]], titles.get(n, "watch")).new() for n in range(60)])
    assert keys(asked(engine, "a479", QUERY))[0] == f"sku-{order[-1]}"
    assert keys(asked(engine, "A-479", QUERY))[0] == f"sku-{order[-1]}"
    assert keys(asked(engine, f"sku-{order[-3]}", QUERY))[0] == f"sku-{order[-3]}", "its key"
    assert not asked(engine, "a477", QUERY).corrections
    by_meaning = asked(engine, "a479", QUERY, text_weight=0.0)
    assert keys(by_meaning)[0] == f"sku-{order[0]}", "if words are not asked"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("coat -blue", ["k0", "k3"]),
        ("coat -coats", []),
        ('"blue winter coat"', ["k1"]),
        ("“winter coat”", ["k1"]),
        ('coat -"winter coat"', ["k0", "k2", "k3"]),
        ('coat -"winter', ["k0", "k1", "k2", "k3"]),
        ("coat - blue", ["k0", "k1", "k2", "k3"]),
        ("winter-coat", ["k0", "k1", "k2", "k3"]),
        ("-blue", ["k1", "k2"]),
        ('"no such words" coat', []),
    ],
)
def test_a_minus_leaves_out_and_quotes_ask_for_the_very_words(
    engine: Engine, text: str, found: Sequence[str]
) -> None:
    said(engine, "red coat", "Blue winter coat", "blue coat for the winter", "winter: a coat of snow")
    assert sorted(keys(asked(engine, text, text_weight=1.0, typos=False))) == found
    beside = asked(engine, text)
    assert set(found) <= set(keys(beside))
    unwanted = {"coat -blue": {"k1", "k2"}, '"blue winter coat"': {"k0", "k2", "k3"}}.get(text, set())
    assert not unwanted & set(keys(beside))


def test_what_is_left_out_is_not_encoded(engine: Engine) -> None:
    said(engine, "red coat", "blue coat")
    for text, plain in (("red -blue", "red"), ('"red" coat', "red coat")):
        wanted = asked(engine, plain, explain=True)
        vectors = {hit.item.key: stage(hit, "vector") for hit in wanted.hits}
        for hit in asked(engine, text, explain=True).hits:
            assert stage(hit, "vector") == pytest.approx(vectors[hit.item.key])
