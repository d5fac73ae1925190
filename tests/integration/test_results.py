"""Whole results against brute force: filters, full text, boosts, sorting, groups, pins, facets, pages."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ItemNotFound, QueryError
from mmsearch.fulltext import B_TEXT, B_TITLE, K1, TITLE_WEIGHT
from mmsearch.shapes import Boost, Examples, Facet, Results, Sort, Taste
from mmsearch.types import AttributeValue
from tests.oracle import directions
from tests.shop import Product, bm25f, counts, plain_words
from tests.toy import ToyEncoder

DIM = 6
POOL = directions(40, DIM, seed=3)
QUERY = directions(1, DIM, seed=9)[0]
WORDS = ["zorb", "quil", "fonk", "plim", "drat", "wump"]  # no suffix that a stemmer knows
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
DAYS = [datetime(2024, 5, day) for day in (1, 2, 9)]
NUMBERS = st.sampled_from([-1.5, 0.0, 1.0, 2.0, 10.0])
ATTRIBUTES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "price": NUMBERS,
        "colour": st.sampled_from(["red", "Blue", "green"]),
        "tags": st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True),
        "sale": st.booleans(),
        "day": st.sampled_from(DAYS),
        "parent": st.sampled_from(["p", "q"]),
    },
)


@st.composite
def shops(draw: st.DrawFn) -> list[Product]:
    sizes = draw(st.lists(st.tuples(TEXTS, TEXTS, ATTRIBUTES, st.booleans()), min_size=1, max_size=12))
    order = draw(st.permutations(range(len(POOL))))
    products, place = [], 0
    for n, (title, text, attributes, two) in enumerate(sizes):
        vectors = [POOL[order[place]]] + ([POOL[order[place + 1]]] if two else [])
        place += len(vectors)
        products.append(Product(f"k{n}", vectors, title, text, attributes))
    return products


FILTERS: dict[str | None, Any] = {
    None: lambda a: True,
    "price >= 1": lambda a: a.get("price", -9) >= 1,
    'colour = "red" and price < 10': lambda a: a.get("colour") == "red" and a.get("price", 99) < 10,
    'tags = "x" or sale = true': lambda a: "x" in a.get("tags", ()) or a.get("sale") is True,
}
SORTS: dict[Sort, Any] = {
    Sort("price"): lambda a: (a.get("price") is None, a.get("price", 0)),
    Sort("price", descending=True): lambda a: (a.get("price") is None, -a.get("price", 0)),
    Sort("colour"): lambda a: (a.get("colour") is None, a.get("colour", "").lower()),
    Sort("day", descending=True): lambda a: (
        a.get("day") is None,
        -a["day"].timestamp() if "day" in a else 0,
    ),
    Sort("tags"): lambda a: ("tags" not in a, min(a.get("tags", [""]))),
}
BOOSTS: dict[Boost, Any] = {
    Boost(where="sale = true", factor=3.0): lambda a, top: 3.0 if a.get("sale") is True else 1.0,
    Boost(where='colour = "red"', factor=0.2): lambda a, top: 0.2 if a.get("colour") == "red" else 1.0,
    Boost(attribute="price", weight=0.7, curve="linear"): lambda a, top: (
        1 + 0.7 * max(a.get("price", 0.0), 0) / top if top > 0 else 1.0
    ),
    Boost(attribute="price", weight=0.7): lambda a, top: (
        1 + 0.7 * np.log1p(max(a.get("price", 0.0), 0)) / np.log1p(top) if top > 0 else 1.0
    ),
}
QUERIES = st.fixed_dictionaries(
    {
        "where": st.sampled_from(list(FILTERS)),
        "said": st.sampled_from(["", "zorb", "quil fonk", "plim plim drat zorb"]),
        "hybrid": st.booleans(),
        "text_weight": st.sampled_from([0.0, 0.3, 1.0]),
        "min_score": st.sampled_from([None, 0.0, 0.4]),
        "sort": st.lists(st.sampled_from(list(SORTS)), max_size=2, unique=True),
        "boosts": st.lists(st.sampled_from(list(BOOSTS)), max_size=2, unique=True),
        "hidden": st.sampled_from([(), ("k0", "gone"), ("k1",)]),
        "pinned": st.sampled_from([(), ("k3", "k1"), ("k2", "k2", "nobody")]),
        "group_by": st.sampled_from([None, "parent"]),
        "k": st.integers(1, 5),
    }
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home: making one takes longer than all else."""
    folder: Path = tmp_path_factory.mktemp("home")
    Engine.open(folder, model=ToyEncoder(dim=DIM)).close()
    return folder


@pytest.fixture
def engine(template: Path, tmp_path: Path) -> Iterator[Engine]:
    shutil.copytree(template, tmp_path / "home")
    with Engine.open(tmp_path / "home", model=ToyEncoder(dim=DIM)) as opened:
        yield opened


def opened(template: Path) -> Engine:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return Engine.open(folder, model=ToyEncoder(dim=DIM))


@dataclasses.dataclass
class Expected:
    """The items of a result: scores, and the tuples by which they are ordered (the best of each group)."""

    scores: dict[str, float]
    order: dict[str, tuple[Any, ...]]
    chosen: list[Product]
    pins: list[str]


def text_scores(products: Sequence[Product], said: str) -> list[dict[str, float]]:
    """Of each word of the query the score of each product that holds it."""
    words = plain_words(said)
    found = bm25f(
        products,
        dict.fromkeys(words, 1.0),
        title_weight=TITLE_WEIGHT,
        b_title=B_TITLE,
        b_text=B_TEXT,
        k1=K1,
    )
    return [found[word] for word in words]


def full_match(products: Sequence[Product], holding: float) -> float:
    """What a word that so many products hold scores in a title of the usual length."""
    n = sum(bool(plain_words(product.title + product.text)) for product in products)
    return (
        float(np.log(1 + (n - holding + 0.5) / (holding + 0.5)))
        * TITLE_WEIGHT
        * (K1 + 1)
        / (K1 + TITLE_WEIGHT)
    )


def hybrid(
    products: Sequence[Product],
    said: Sequence[dict[str, float]],
    near: dict[str, float] | None,
    chosen: Sequence[str],
    weight: float,
) -> dict[str, float]:
    """The scores of a hybrid query, by the formulas of ``mmsearch.ranking``. ``near``: None if only words count."""
    cosines = [near[key] for key in chosen] if near and chosen else [0.0]
    spread = float(np.std(cosines))
    apart = {
        p.key: (near[p.key] - float(np.mean(cosines))) / spread if near and spread > 1e-9 else 0.0
        for p in products
    }
    silent = {p.key for p in products if not plain_words(p.title + p.text)}
    full = [full_match(products, len(one)) for one in said]
    usual, rare = (full_match(products, max(1.0, s * (len(products) - len(silent)))) for s in (0.1, 0.02))
    if near is not None:  # rare words count no more than others
        said = [
            {key: score * min(1, rare / ideal) for key, score in one.items()}
            for one, ideal in zip(said, full, strict=True)
        ]
        full = [min(ideal, rare) for ideal in full]
    asked = max(sum(full), usual)
    trusted = []
    for one in said:
        those = [apart[key] for key in one if key in chosen]
        share = min(max((sum(those) + 2) / (len(those) + 2), 0.1), 1.0) if near is not None else 1.0
        trusted.append(share if one else 0.0)
    judged = sum(share * ideal for share, ideal in zip(trusted, full, strict=True))
    text = {
        p.key: sum(share * one.get(p.key, 0.0) for share, one in zip(trusted, said, strict=True))
        for p in products
    }
    if near is None:
        return {key: score / asked for key, score in text.items()}
    if not judged:
        return {key: z / 3 for key, z in apart.items()}
    weight *= judged / asked
    return {
        key: (1 - weight) * apart[key] / 3
        + weight * (apart[key] / 3 if key in silent else text[key] / judged)
        for key in apart
    }


def expected(products: Sequence[Product], asked: dict[str, Any]) -> Expected:
    words = plain_words(asked["said"])
    said_by = text_scores(products, asked["said"])
    holding = {key for one in said_by for key in one}
    only_text = asked["hybrid"] and asked["text_weight"] == 1
    near = {product.key: 0.0 if only_text else product.cosine(QUERY) for product in products}
    chosen = []
    for product in products:
        said = set(plain_words(product.title + " " + product.text))
        every = bool(words) and set(words) <= said
        if not FILTERS[asked["where"]](product.attributes) or product.key in asked["hidden"]:
            continue
        low = not only_text and asked["min_score"] is not None and near[product.key] < asked["min_score"]
        if low and not (asked["hybrid"] and every):
            continue
        if only_text and asked["said"] and product.key not in holding:
            continue
        chosen.append(product)
    scores = dict(near)
    if asked["hybrid"]:
        chosen_keys = [product.key for product in chosen]
        scores = hybrid(products, said_by, None if only_text else near, chosen_keys, asked["text_weight"])
        if only_text and not holding:
            scores = dict.fromkeys(scores, 1.0)
    greatest = max((p.attributes.get("price", 0.0) for p in products), default=0.0)
    for product in products:
        factor = float(np.prod([BOOSTS[b](product.attributes, greatest) for b in asked["boosts"]] or [1.0]))
        score = scores[product.key]
        scores[product.key] = score * factor if score >= 0 else score / factor
    order = {
        product.key: (*(SORTS[sort](product.attributes) for sort in asked["sort"]), -scores[product.key])
        for product in chosen
    }
    keys = [product.key for product in chosen]
    pins = [] if asked["sort"] else [key for key in dict.fromkeys(asked["pinned"]) if key in keys]
    return Expected(scores, order, chosen, pins)


def pages(engine: Engine, query: Query) -> list[Results]:
    found = [engine.results(query)]
    while found[-1].cursor is not None:
        found.append(engine.results(dataclasses.replace(query, cursor=found[-1].cursor)))
    return found


def asked_for(asked: dict[str, Any], **more: Any) -> Query:
    fields = {name: value for name, value in asked.items() if name != "said"}
    words = asked["said"] if asked["hybrid"] else ""
    # The words steer the vector by nothing: what they mean to a toy is nobody's business here.
    terms = [Term(vector=QUERY)] + ([Term(text=words, weight=1e-12)] if words else [])
    return Query(terms=terms, typos=False, **fields, **more)


def flat(keys: tuple[Any, ...]) -> list[Any]:
    return [part for key in keys for part in (key if isinstance(key, tuple) else (key,))]


@given(shops(), QUERIES)
@settings(max_examples=40)
def test_pages_are_what_brute_force_finds(
    template: Path, products: list[Product], asked: dict[str, Any]
) -> None:
    with opened(template) as engine:
        known = {name for product in products for name in product.attributes}
        wanted = {"price", "colour", "tags", "sale", "day", "parent"} - known
        filler = Product(
            "filler", [POOL[-1]], "", "", {name: value for name, value in FILLER.items() if name in wanted}
        )
        engine.add([product.new() for product in [*products, filler]])  # so that every attribute is known
        engine.remove([engine.find("filler").id])  # type: ignore[union-attr]
        found = pages(engine, asked_for(asked))
        want = expected(products, asked)
        hits = [hit for page in found for hit in page.hits]
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert all(len(page.hits) == asked["k"] for page in found[:-1])
        assert len({hit.item.key for hit in hits}) == len(hits)
        for hit in hits:
            assert hit.score == pytest.approx(want.scores[hit.item.key], abs=2e-5)
        group = {
            p.key: p.attributes.get("parent", p.key) if asked["group_by"] else p.key for p in want.chosen
        }
        assert {group[hit.item.key] for hit in hits} == set(group.values())
        assert {page.total for page in found} == {len(set(group.values()))}
        pins: list[str] = []
        for key in want.pins:
            if group[key] not in [group[pin] for pin in pins]:
                pins.append(key)
        assert (
            [hit.item.key for hit in hits if hit.pinned]
            == pins
            == [hit.item.key for hit in hits][: len(pins)]
        )
        # Behind the pins: the best of each group, in order.
        best: dict[Any, tuple[Any, ...]] = {}
        for key, keys in want.order.items():
            if group[key] not in [group[pin] for pin in pins]:
                best[group[key]] = min(best.get(group[key], keys), keys)
        mine = [flat(want.order[hit.item.key]) for hit in hits[len(pins) :]]
        for got, right in zip(mine, sorted(map(flat, best.values())), strict=True):
            assert got[:-1] == right[:-1]
            assert got[-1] == pytest.approx(right[-1], abs=2e-5)
        if asked["group_by"]:
            for hit in hits:
                assert hit.group is not None
                assert hit.group.size == list(group.values()).count(group[hit.item.key])
                assert hit.group.value == group[hit.item.key]
        shutil.rmtree(engine.home)


FILLER: dict[str, AttributeValue] = {
    "price": 1.0,
    "colour": "red",
    "tags": ["x"],
    "sale": True,
    "day": DAYS[0],
    "parent": "p",
}


@given(shops(), st.sampled_from(list(FILTERS)), st.booleans())
@settings(max_examples=20)
def test_facets_count_what_is_there(
    template: Path, products: list[Product], where: str | None, grouped: bool
) -> None:
    with opened(template) as engine:
        engine.add([product.new() for product in products])
        kinds = engine.attribute_kinds()
        names = [name for name in ("price", "colour", "tags", "sale", "day") if name in kinds]
        filters_on = {"price", "colour", "tags", "sale"} if where else set()
        if filters_on - set(kinds) or (grouped and "parent" not in kinds):
            return
        result = engine.results(
            Query(
                where=where,
                group_by="parent" if grouped else None,
                facets=[Facet(name, k=2) for name in names],
            )
        )
        chosen = [product for product in products if FILTERS[where](product.attributes)]
        assert list(result.facets) == names
        for name in names:
            facet = result.facets[name]
            having = [product for product in chosen if name in product.attributes]

            def owner(product: Product) -> object:
                return product.attributes.get("parent", product.key) if grouped else product.key

            pairs = {
                (owner(product), value)
                for product in having
                for value in counts([product], lambda p, name=name: p.attributes[name])  # type: ignore[misc]
            }
            often: dict[Any, int] = {}
            for _, value in pairs:
                often[value] = often.get(value, 0) + 1
            right = sorted(often.items(), key=lambda pair: (-pair[1], pair[0]))
            assert [(bucket.value, bucket.count) for bucket in facet.buckets] == right[:2]
            assert facet.distinct == len(often)
            owners = {owner(product) for product in having}
            assert facet.missing == len({owner(product) for product in chosen}) - len(owners)
            shown = {value for value, _ in right[:2]}
            assert facet.others == len(owners - {who for who, value in pairs if value in shown})
            if name in ("price", "day"):
                values: list[Any] = [product.attributes[name] for product in having]
                ends = (min(values), max(values)) if values else (None, None)
                assert (facet.least, facet.greatest) == ends
        shutil.rmtree(engine.home)


def shop(
    engine: Engine, *attributes: Mapping[str, AttributeValue], titles: Sequence[str] = ()
) -> list[Product]:
    products = [
        Product(f"k{n}", [POOL[n]], titles[n] if n < len(titles) else "", "", each)
        for n, each in enumerate(attributes)
    ]
    engine.add([product.new() for product in products])
    return products


def keys(result: Results) -> list[str]:
    return [hit.item.key for hit in result.hits]


def test_ranges_of_numbers_and_dates_are_counted_with_their_low_end_in(engine: Engine) -> None:
    several: list[dict[str, AttributeValue]] = [
        {"price": float(n), "day": datetime(2024, 5, n + 1)} for n in range(10)
    ]
    shop(engine, *several)
    result = engine.results(
        Query(
            facets=[
                Facet("price", ranges=[(0, 3), (3, None), (None, 100), (4.5, 4.6)]),
                Facet(
                    "day",
                    ranges=[("2024-05-02", "2024-05-04"), (datetime(2024, 5, 10), None), ("2024", "2025")],
                ),
            ]
        )
    )
    assert [bucket.count for bucket in result.facets["price"].buckets] == [3, 7, 10, 0]
    days = result.facets["day"].buckets
    assert [bucket.count for bucket in days] == [2, 1, 10]
    assert (days[0].low, days[0].high) == (datetime(2024, 5, 2), datetime(2024, 5, 4))


def test_a_facet_may_ignore_its_own_filter(engine: Engine) -> None:
    shop(
        engine,
        {"colour": "red", "price": 1},
        {"colour": "blue", "price": 1},
        {"colour": "blue", "price": 9},
        {"price": 1},
    )
    where = 'colour = "red" and price < 5'
    own = engine.results(Query(where=where, facets=[Facet("colour"), Facet("price")]))
    assert [(b.value, b.count) for b in own.facets["colour"].buckets] == [("red", 1)]
    free = engine.results(
        Query(where=where, facets=[Facet("colour", ignore_own_filter=True), Facet("price")])
    )
    assert [(b.value, b.count) for b in free.facets["colour"].buckets] == [("blue", 1), ("red", 1)]
    assert free.facets["colour"].missing == 1
    assert [(b.value, b.count) for b in free.facets["price"].buckets] == [(1, 1)]
    assert free.total == own.total == 1


def test_byte_identical_items_come_once_and_count_once(engine: Engine) -> None:
    products = [Product(f"k{n}", [POOL[0]], attributes={"n": n}, content=b"same" * 4) for n in range(3)]
    engine.add([product.new() for product in [*products, Product("other", [POOL[1]], attributes={"n": 7})]])
    result = engine.results(Query(terms=[Term(vector=POOL[0])], facets=[Facet("n")]))
    assert result.total == 2
    assert keys(result) == ["k0", "other"]
    assert sorted(result.hits[0].copies) == ["k1", "k2"]
    assert sum(bucket.count for bucket in result.facets["n"].buckets) == 2
    narrowed = engine.results(Query(terms=[Term(vector=POOL[0])], where="n >= 1"))
    assert (keys(narrowed)[0], list(narrowed.hits[0].copies)) == ("k1", ["k2"])
    without_the_last = engine.results(Query(terms=[Term(vector=POOL[0])], where="n <= 1"))
    assert (keys(without_the_last), list(without_the_last.hits[0].copies)) == (["k0"], ["k1"])


def test_variants_come_with_their_group(engine: Engine) -> None:
    shop(engine, *({"parent": "p", "size": size} for size in "SML"), {"size": "S"})
    query = Query(terms=[Term(vector=POOL[1])], group_by="parent", group_size=2)
    result = engine.results(query)
    order = sorted(range(3), key=lambda n: -Product("", [POOL[n]]).cosine(POOL[1]))
    groups = {hit.item.key: hit.group for hit in result.hits}
    first = groups[f"k{order[0]}"]
    assert first is not None
    assert (first.value, first.size) == ("p", 3)
    assert [hit.item.key for hit in first.hits] == [f"k{order[0]}", f"k{order[1]}"]
    alone = groups["k3"]
    assert alone is not None
    assert (alone.value, alone.size, len(alone.hits)) == ("k3", 1, 1)


def test_pages_stay_in_the_order_of_the_first_one_whatever_is_written(engine: Engine) -> None:
    products = shop(engine, *({"n": n} for n in range(12)))
    query = Query(terms=[Term(vector=QUERY)], k=4, where="n >= 0", facets=[Facet("n")])
    order = [p.key for p in sorted(products, key=lambda p: -p.cosine(QUERY))]
    first = engine.results(query)
    assert keys(first) == order[:4]
    gone, changed, shown = order[5], order[6], order[1]
    engine.remove([engine.find(gone).id])  # type: ignore[union-attr]
    engine.add([dataclasses.replace(products[int(changed[1:])], attributes={"n": -1}).new()])
    engine.add([Product("new", [QUERY], attributes={"n": 1}).new()])
    moved = dataclasses.replace(products[int(order[9][1:])], attributes={"n": 99})
    engine.add([moved.new()])
    engine.remove([engine.find(shown).id])  # type: ignore[union-attr]
    second = engine.results(dataclasses.replace(query, cursor=first.cursor))
    assert keys(second) == [order[4], order[7], order[8], order[9]]
    assert second.hits[-1].item.attributes["n"] == 99, "what a hit says is of now"
    third = engine.results(dataclasses.replace(query, cursor=second.cursor))
    assert keys(third) == order[10:]
    assert third.cursor is None
    assert keys(engine.results(query))[0] == "new"


@given(st.data())
@settings(max_examples=15)
def test_a_cursor_goes_on_where_it_was_in_another_process(template: Path, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.sampled_from([None, "b", "a", "C", "d"]), min_size=5, max_size=14))
    sort = data.draw(st.sampled_from([[], [Sort("word")], [Sort("word", descending=True)], [Sort("id")]]))
    with opened(template) as engine:
        products = shop(engine, *({"word": word} if word else {} for word in values), {"word": "zz"})
        query = Query(terms=[Term(vector=QUERY)], k=3, sort=sort)
        everything = keys(engine.results(dataclasses.replace(query, k=50)))
        first = engine.results(query)
        doomed = data.draw(st.sets(st.sampled_from(everything), max_size=3))
        engine.remove([engine.find(key).id for key in doomed])  # type: ignore[union-attr]
        engine.add(
            [Product("late", [POOL[30]], attributes={"word": data.draw(st.sampled_from("abcd"))}).new()]
        )
        with Engine.open(engine.home, model=ToyEncoder(dim=DIM)) as other:
            shown, cursor = [], first.cursor
            while cursor is not None:
                page = other.results(dataclasses.replace(query, cursor=cursor))
                shown += keys(page)
                cursor = page.cursor
        assert len(products) == len(everything)
        assert [key for key in shown if key != "late"] == [k for k in everything[3:] if k not in doomed]
        shutil.rmtree(engine.home)


def test_a_cursor_is_refused_for_another_query_catalog_or_when_changed(
    engine: Engine, tmp_path: Path
) -> None:
    shop(engine, *({"n": n} for n in range(4)))
    query = Query(terms=[Term(vector=QUERY)], k=1)
    cursor = engine.results(query).cursor
    assert cursor is not None
    with pytest.raises(QueryError, match="another query"):
        engine.results(dataclasses.replace(query, where="n > 0", cursor=cursor))
    for wrong in (
        cursor[:-2],
        "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:],
        "",
        "nonsense",
        "é",
    ):
        with pytest.raises(QueryError, match="cursor"):
            engine.results(dataclasses.replace(query, cursor=wrong))
    with Engine.open(tmp_path / "second", model=ToyEncoder(dim=DIM)) as other:
        shop(other, {"n": 1})
        with pytest.raises(QueryError, match="cursor"):
            other.results(dataclasses.replace(query, cursor=cursor))
    changed = dataclasses.replace(query, k=3, facets=[Facet("n")], fields=(), explain=True, cursor=cursor)
    assert len(engine.results(changed).hits) == 3


def test_more_like_these_and_not_like_those(engine: Engine) -> None:
    products = shop(engine, *({} for _ in range(10)))
    by_key = {product.key: product for product in products}
    id_of = {key: engine.find(key).id for key in by_key}  # type: ignore[union-attr]

    def stored(key: str) -> NDArray[np.float64]:
        vector = by_key[key].vectors[0].astype(np.float16).astype(np.float64)
        unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
        return unit

    mean = 2 * (stored("k0") + stored("k1")) / 2 - stored("k2")
    query = (mean / np.linalg.norm(mean)).astype(np.float32)
    result = engine.results(Query(examples=Examples(like=["k0", id_of["k1"]], unlike=["k2"])))
    rest = [product for product in products if product.key not in ("k0", "k1", "k2")]
    assert keys(result) == [p.key for p in sorted(rest, key=lambda p: -p.cosine(query))]
    for hit in result.hits:
        assert hit.score == pytest.approx(by_key[hit.item.key].cosine(query), abs=2e-6)

    best = engine.results(Query(examples=Examples(like=["k0", "k1"], unlike=["k2"], strategy="best")))
    for hit in best.hits:
        vector = stored(hit.item.key)
        good = max(float(vector @ stored("k0")), float(vector @ stored("k1")))
        bad = float(vector @ stored("k2"))
        assert hit.score == pytest.approx(good if good > bad else -(bad**2), abs=1e-3)
    assert [hit.score for hit in best.hits] == sorted((hit.score for hit in best.hits), reverse=True)
    assert len(best.hits) == 7
    with pytest.raises(ItemNotFound, match="nobody"):
        engine.results(Query(examples=Examples(like=["nobody"])))


def test_taste_adds_the_standardised_likeness_to_what_is_liked(engine: Engine) -> None:
    products = shop(engine, *({} for _ in range(12)))
    liked = (POOL[0].astype(np.float16).astype(np.float64) + POOL[1].astype(np.float16)) / 2
    query = Query(terms=[Term(vector=QUERY)], k=50, taste=Taste(liked=["k0", "k1", "gone"], weight=0.8))
    near = np.array([product.cosine(QUERY) for product in products])
    like = np.array([float(p.vectors[0].astype(np.float16).astype(np.float64) @ liked) for p in products])
    right = near + 0.8 * near.std() * (like - like.mean()) / like.std()
    found = {hit.item.key: hit.score for hit in engine.results(query).hits}
    assert found == pytest.approx({p.key: s for p, s in zip(products, right, strict=True)}, abs=1e-5)
    nothing = dataclasses.replace(query, taste=Taste(liked=["gone"]))
    plain = engine.results(dataclasses.replace(query, taste=None))
    assert keys(engine.results(nothing)) == keys(plain)


def test_diversity_reorders_the_front_and_loses_nothing(engine: Engine) -> None:
    near = [POOL[0] + 0.1 * POOL[n] for n in range(1, 5)]
    units = [vector / np.linalg.norm(vector) for vector in [POOL[0], *near, *POOL[20:26]]]
    products = [Product(f"k{n}", [unit.astype(np.float32)]) for n, unit in enumerate(units)]
    engine.add([product.new() for product in products])
    query = Query(terms=[Term(vector=POOL[0])], k=4)
    plain = pages(engine, query)
    diverse = pages(engine, dataclasses.replace(query, diversity=0.6))
    assert sorted(key for page in plain for key in keys(page)) == sorted(
        key for page in diverse for key in keys(page)
    )
    assert set(keys(plain[0])) < {"k0", "k1", "k2", "k3", "k4"}
    assert keys(plain[0])[0] == keys(diverse[0])[0]
    assert not {"k0", "k1", "k2", "k3", "k4"} & set(keys(diverse[0])[1:]), "near copies come later"


def test_misspelt_words_find_what_was_meant_and_are_reported(engine: Engine) -> None:
    shop(engine, {}, {}, {}, titles=["Running shoes", "Leather wallet", "Shirt"])
    result = engine.results(Query(terms=[Term(text="lether walet")], hybrid=True, text_weight=1.0))
    assert keys(result) == ["k1"]
    assert [(c.word, list(c.used)) for c in result.corrections] == [
        ("lether", ["leather"]),
        ("walet", ["wallet"]),
    ]
    exact = engine.results(Query(terms=[Term(text="lether")], hybrid=True, text_weight=1.0, typos=False))
    assert (keys(exact), list(exact.corrections)) == ([], [])
    begun = Query(terms=[Term(text="leather wal")], hybrid=True, text_weight=1.0, typos=False, prefix=True)
    said = engine.results(begun)
    assert keys(said) == ["k1"]
    plural = engine.results(Query(terms=[Term(text="SHIRTS")], hybrid=True, text_weight=1.0))
    assert keys(plural) == ["k2"]


def test_highlights_point_at_the_words(engine: Engine) -> None:
    long = "Nothing to see. " * 30 + "The finest Leather, of one cow. " + "And so on. " * 50
    engine.add([Product("k", [POOL[0]], "Wallets of leather", long).new()])
    (hit,) = engine.results(Query(terms=[Term(text="leather wallet")], hybrid=True, highlight=True)).hits
    title, text = hit.highlights
    assert title.text == "Wallets of leather"
    assert [title.text[a:b] for a, b in title.spans] == ["Wallets", "leather"]
    assert [text.text[a:b] for a, b in text.spans] == ["Leather"]
    assert len(text.text) <= 200
    assert text.text in long


def test_explanations_add_up(engine: Engine) -> None:
    shop(engine, {"sale": True}, {"sale": False}, {}, titles=["zorb quil", "zorb", "quil"])
    query = Query(
        terms=[Term(vector=QUERY), Term(text="zorb", weight=1e-12)],
        hybrid=True,
        explain=True,
        boosts=[Boost(where="sale = true", factor=2)],
        pinned=["k2"],
    )
    result = engine.results(query)
    for hit in result.hits:
        stages = {stage.name: stage for stage in hit.explanation}
        fused, factor = stages["fused"].score, stages["boost"].score
        assert hit.score == pytest.approx(fused * factor if fused >= 0 else fused / factor)
        assert factor == (2 if hit.item.key == "k0" else 1)
        assert ("pinned" in stages) == hit.pinned == (hit.item.key == "k2")
        assert (stages["text"].note, stages["text"].rank is None) == (
            ("", True) if hit.item.key == "k2" else ("zorb", False)
        )
    by_vector = sorted(result.hits, key=lambda hit: -{s.name: s.score for s in hit.explanation}["vector"])
    assert [next(s.rank for s in hit.explanation if s.name == "vector") for hit in by_vector] == [1, 2, 3]


def test_several_searches_at_once_answer_like_one_by_one(engine: Engine) -> None:
    shop(engine, *({"n": n} for n in range(8)), titles=["red shoe", "blue shoe", "green hat"])
    queries: list[Query | str] = [
        "red shoe",
        Query(terms=[Term(text="blue"), Term(text="red", weight=-0.5)], where="n < 6"),
        Query(where="n > 3", sort=[Sort("n", descending=True)]),
    ]
    together = engine.results_of(queries)
    alone = [engine.results(query) for query in queries]
    assert [keys(result) for result in together] == [keys(result) for result in alone]
    for one, other in zip(together, alone, strict=True):
        assert [h.score for h in one.hits] == pytest.approx([h.score for h in other.hits], abs=1e-6)
    assert keys(alone[2]) == ["k7", "k6", "k5", "k4"]


def test_nearest_shops_come_first_and_those_without_a_place_last(engine: Engine) -> None:
    berlin, paris = {"latitude": 52.52, "longitude": 13.405}, {"latitude": 48.8566, "longitude": 2.3522}
    shop(engine, paris, berlin, {"latitude": 52.4, "longitude": 13.07}, {"n": 1})
    near = (52.52, 13.4)
    assert keys(engine.results(Query(sort=[Sort("distance", near=near)]))) == ["k1", "k2", "k0", "k3"]
    far = engine.results(Query(sort=[Sort("distance", descending=True, near=near)]))
    assert keys(far) == ["k0", "k2", "k1", "k3"]
    assert keys(engine.results(Query(where="distance(latitude, longitude, 52.52, 13.4) < 50"))) == [
        "k1",
        "k2",
    ]


def test_fields_are_those_asked_for(engine: Engine) -> None:
    shop(engine, {"price": 2, "colour": "red"})
    assert engine.results(Query()).hits[0].item.attributes == {"price": 2, "colour": "red"}
    assert engine.results(Query(fields=["price", "unknown"])).hits[0].item.attributes == {"price": 2}
    assert engine.results(Query(fields=[])).hits[0].item.attributes == {}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(k=0), "k must be"),
        (Query(text_weight=1.5), "text_weight"),
        (Query(diversity=-1), "diversity"),
        (Query(group_size=0), "group_size"),
        (Query(facets=[Facet("nmae")]), "nmae"),
        (Query(facets=[Facet("n"), Facet("n")]), "twice"),
        (Query(facets=[Facet("n", k=0)]), "k must be"),
        (Query(facets=[Facet("word", ranges=[(0, 1)])]), "ranges need"),
        (Query(facets=[Facet("n", ranges=[("a", 1)])]), "numbers, not 'a'"),
        (Query(facets=[Facet("n", ranges=[(float("nan"), 1)])]), "numbers"),
        (Query(facets=[Facet("n", ranges=[(0, 1), (5, 2)])]), "from 5 to 2 is the wrong way round"),
        (Query(sort=[Sort("nmae")]), "nmae"),
        (Query(sort=[Sort("distance", near=(91, 0))]), "no place on earth"),
        (Query(group_by="n"), "holds number"),
        (Query(boosts=[Boost(factor=2)]), "either a filter"),
        (Query(boosts=[Boost(where="n > 0", factor=0)]), "above 0"),
        (Query(boosts=[Boost(attribute="word", weight=1)]), "holds text"),
        (Query(boosts=[Boost(attribute="n", weight=-1)]), "above -1"),
        (Query(terms=[Term(text=" ")]), "empty"),
        (Query(examples=Examples(strategy="best")), "liked"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(engine: Engine, query: Query, words: str) -> None:
    shop(engine, {"n": 1, "word": "a", "latitude": 1.0, "longitude": 1.0})
    with pytest.raises(QueryError, match=words):
        engine.results(query)


def test_products_are_compared_as_a_whole_and_with_the_very_picture(engine: Engine) -> None:
    def product(key: str, image: int, text: int, fused: int) -> NewItem:
        kinds = {Modality.IMAGE: image, Modality.TEXT: text, Modality.FUSED: fused}
        parts = [NewPart(modality=kind, vector=POOL[n], text=kind.value) for kind, n in kinds.items()]
        return NewItem(key=key, modality=Modality.FUSED, parts=parts)

    engine.add([product("a", 1, 2, 3), product("b", 4, 5, 6)])
    vector = engine.results(Query(terms=[Term(vector=POOL[2])]))
    near = {"a": Product("", [POOL[3]]).cosine(POOL[2]), "b": Product("", [POOL[6]]).cosine(POOL[2])}
    assert {hit.item.key: hit.score for hit in vector.hits} == pytest.approx(near, abs=2e-6)
    assert {hit.part.modality for hit in vector.hits} == {Modality.FUSED}
    texts = engine.results(Query(terms=[Term(vector=POOL[2])], modality=Modality.TEXT))
    assert texts.hits[0].item.key == "a"
    assert texts.hits[0].score == pytest.approx(1, abs=1e-3)
    engine.add([Product("c", [POOL[2]]).new()])  # no product: now every part may match
    mixed = engine.results(Query(terms=[Term(vector=POOL[2])]))
    assert {hit.item.key for hit in mixed.hits[:2]} == {"a", "c"}


def test_who_keeps_up_sees_what_was_written_when_it_last_did(engine: Engine) -> None:
    query = Query(terms=[Term(vector=POOL[0])], facets=[Facet("n")])
    engine.add([Product("k0", [POOL[0]], attributes={"n": 0}).new()])
    assert keys(engine.results(query)) == ["k0"]
    engine.add([Product("k1", [POOL[1]], attributes={"n": 1}).new()])
    assert keys(engine.results(query)) == ["k0", "k1"], "nobody has kept up yet"
    engine.keep_up()
    for state in range(2, 5):
        before = engine.results(query)
        engine.add([Product(f"k{state}", [POOL[state]], attributes={"n": state}).new()])
        engine.update({"k0": {"n": -state}})
        still = engine.results(query)
        assert (keys(still), still.facets, still.revision) == (keys(before), before.facets, before.revision)
        engine.keep_up()
        after = engine.results(query)
        assert sorted(keys(after)) == [f"k{n}" for n in range(state + 1)]
        assert sorted(b.value for b in after.facets["n"].buckets) == [-state, *range(1, state + 1)]  # type: ignore[type-var]
        assert [hit.score for hit in after.hits] == pytest.approx(
            sorted((float(POOL[n] @ POOL[0]) for n in range(state + 1)), reverse=True), abs=1e-3
        )


def test_results_are_whole_while_others_write(engine: Engine) -> None:
    products = {f"k{n}": Product(f"k{n}", [POOL[n]], WORDS[n % 6], "", {"n": n}) for n in range(20)}
    engine.add([product.new() for product in products.values()])
    query = Query(
        terms=[Term(vector=QUERY), Term(text="zorb", weight=1e-12)],
        hybrid=True,
        where="n < 100",
        facets=[Facet("n", k=50)],
        explain=True,
        k=50,
    )
    wrong: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                result = engine.results(query)
                assert result.total == len(result.hits) == sum(b.count for b in result.facets["n"].buckets)
                for hit in result.hits:
                    near = next(stage.score for stage in hit.explanation if stage.name == "vector")
                    assert near == pytest.approx(products[hit.item.key].cosine(QUERY), abs=2e-6)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(60):
        key = f"k{n % 20}"
        changed = dataclasses.replace(products[key], title=WORDS[n % 5], attributes={"n": n})
        engine.add([changed.new()])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    result = engine.results(query)
    assert sorted(b.value for b in result.facets["n"].buckets) == list(range(40, 60))  # type: ignore[type-var]


def test_an_empty_collection_has_an_empty_result(engine: Engine) -> None:
    result = engine.results(Query(terms=[Term(text="red")], hybrid=True, diversity=0.5))
    assert (list(result.hits), result.total, result.cursor) == ([], 0, None)
    assert engine.suggest("re") == []
