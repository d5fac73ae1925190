"""Relevance in a shop: nDCG@10 of vectors, of full text, and of both, for products whose words are not in the index.

    python -m benchmarks.shop_relevance DATA WORK

DATA has ``fashion/products.csv`` (id, title, image, gender, articleType, subCategory, baseColour, season, usage) and
the pictures. All products are indexed as a shop's, with picture and title; but those 837 that the built-in model was
not trained on with their picture alone. Each of these is asked for in seven ways (``asked``), by its title and by what
its row says, distinct texts only. What an answer is worth depends on how many of the things that the query *names* are
true of it (``GRADINGS``); nobody is to find a product that the query does not describe.

Half of the held-out products are for choosing (weights, and all else about the ranking: ``--choose`` shows them alone);
the figures are of the other half, and no text of the first is asked there again. Intervals are of 95 %, by a bootstrap
over products (a product's queries stay together); kinds of queries count alike. The index, three minutes of encoding,
stays in WORK.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from indexer.products import Product, upsert
from mmsearch import Engine, Query, Term
from mmsearch.ranking import reciprocal_rank_fusion
from mmsearch.training.pairs import HELD_OUT

SEED = 20261125
WEIGHTS = (0.3, 0.4, 0.5, 0.6)
DEEP = 100
"""So many of either list go into reciprocal rank fusion."""

Row = dict[str, str]
Floats = NDArray[np.float64]

WEARER = re.compile(r"\b(men|women|unisex|boys|girls|kids)('?s)?\b", re.IGNORECASE)
SENTENCES = (
    "a {colour} {one} for {wearer}",
    "I am looking for {many} in {colour} for {wearer}",
    "do you have {many} for {wearer} that are {colour}",
    "show me some {colour} {many} a {person} can wear",
)
PERSON = {"Men": "man", "Women": "woman", "Boys": "boy", "Girls": "girl"}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A query: its kind and text, the place of the product it was made of, and what it names besides the type."""

    kind: str
    text: str
    product: int
    names: tuple[str, ...]


def products(data: Path) -> list[Row]:
    """The table, with a ``brand``: what a title says before the wearer, else its first word."""
    with (data / "fashion" / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        before = WEARER.split(row["title"])[0].split()
        row["brand"] = " ".join(before[:3] if before else row["title"].split()[:1]).lower()
    return rows


def held_out(row: Row) -> bool:
    """Whether the built-in model has not seen this product."""
    return int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % HELD_OUT == 0


def index(data: Path, home: Path) -> None:
    """Index the products, unless that was done."""
    with Engine.open(home) as engine:
        if not engine.status().items:
            made = [
                Product(
                    key=row["id"],
                    title=None if held_out(row) else row["title"],
                    images=[str((data / "fashion" / row["image"]).resolve())],
                )
                for row in products(data)
            ]
            upsert(engine, made)


def asked(rows: Sequence[Row], held: Sequence[int]) -> list[Asked]:
    """The queries, distinct within a kind; ``held`` are places in ``rows``."""
    rng = np.random.default_rng(SEED)
    found: dict[tuple[str, str], Asked] = {}
    for place in held:
        row = rows[place]
        colour, wearer = row["baseColour"].lower(), row["gender"].lower()
        many = row["articleType"].lower()
        one = many if many in ("jeans", "trousers", "shorts", "briefs", "tights") else many.removesuffix("s")
        sentence = SENTENCES[rng.integers(len(SENTENCES))].format(
            colour=colour, wearer=wearer, many=many, one=one, person=PERSON.get(row["gender"], "person")
        )
        misspelt = _misspelt(f"{row['brand']} {colour} {many}", rng)
        for kind, text, names in (
            ("title", row["title"], ("baseColour", "gender", "brand")),
            ("wearer colour type", f"{wearer} {colour} {many}", ("baseColour", "gender")),
            ("colour type", f"{colour} {many}", ("baseColour",)),
            ("brand type", f"{row['brand']} {many}", ("brand",)),
            ("misspelt brand colour type", misspelt, ("brand", "baseColour")),
            ("season usage type", f"{row['season']} {row['usage']} {many}".lower(), ("season", "usage")),
            ("sentence", sentence, ("baseColour", "gender")),
        ):
            found.setdefault((kind, text.lower()), Asked(kind, text, place, names))
    return list(found.values())


def _misspelt(text: str, rng: np.random.Generator) -> str:
    """The text with an edit in its two longest words (of at least four letters): one left out, doubled, swapped, or
    replaced, behind the first letter.
    """
    words = text.split()
    for place in sorted(range(len(words)), key=lambda place: -len(words[place]))[:2]:
        word = words[place]
        if len(word) < 4 or not word.isalpha():
            continue
        at = int(rng.integers(1, len(word) - 1))
        other = chr(ord("a") + int(rng.integers(26)))
        words[place] = (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + other + word[at + 1 :],
        )[rng.integers(4)]
    return " ".join(words)


Columns = dict[str, NDArray[np.str_]]


def _true(query: Asked, columns: Columns) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """Of each product: whether the type is right, how many other named things are, and whether the wider class is."""
    right = {
        name: columns[name] == columns[name][query.product]
        for name in ("articleType", "subCategory", *query.names)
    }
    others = np.sum([right[name] for name in query.names], axis=0)
    return right["articleType"], others, right["subCategory"]


def graded(query: Asked, columns: Columns) -> Floats:
    """2**g - 1, where g is 1 for the type and 1 more for each other thing; nothing of another type."""
    right, others, _ = _true(query, columns)
    return np.asarray(right * (2.0 ** (1 + others) - 1))


def linear(query: Asked, columns: Columns) -> Floats:
    """The number of things that are right; nothing of another type."""
    right, others, _ = _true(query, columns)
    return np.asarray(right * (1.0 + others))


def strict(query: Asked, columns: Columns) -> Floats:
    """1 for what is right in all, else 0."""
    right, others, _ = _true(query, columns)
    return np.asarray(right & (others == len(query.names)), np.float64)


def lenient(query: Asked, columns: Columns) -> Floats:
    """As ``graded`` by the wider class (shoes), with 1 more for the type (sandals)."""
    right, others, wide = _true(query, columns)
    return np.asarray(wide * (2.0 ** (1 + right + others) - 1))


GRADINGS: dict[str, Callable[[Asked, Columns], Floats]] = {
    "graded": graded,
    "linear": linear,
    "strict": strict,
    "lenient": lenient,
}


def quality(queries: Sequence[Asked], lists: Sequence[Sequence[int]], columns: Columns) -> dict[str, Floats]:
    """nDCG@10 in per cent of each query, by grading."""
    discounts = 1 / np.log2(np.arange(2, 12))
    found = {name: np.zeros(len(queries)) for name in GRADINGS}
    for n, (query, ranked) in enumerate(zip(queries, lists, strict=True)):
        for name, grading in GRADINGS.items():
            worth = grading(query, columns)
            best = np.sort(np.partition(worth, -10)[-10:])[::-1] @ discounts
            found[name][n] = 100 * (worth[list(ranked[:10])] @ discounts[: len(ranked[:10])]) / best
    return found


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws of products, with a product's queries together: how often each query (q,) is in each draw."""

    kinds: NDArray[np.str_]
    counts: Floats  # (draws, q)

    @classmethod
    def of(cls, queries: Sequence[Asked], draws: int = 4000) -> Sample:
        _, owner = np.unique([query.product for query in queries], return_inverse=True)
        n = int(owner.max()) + 1
        drawn = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), draws)
        return cls(np.array([query.kind for query in queries]), drawn[:, owner].astype(np.float64))

    def interval(self, ahead: Floats, kinds: Sequence[str]) -> list[float]:
        """The 95 % interval of a difference (q,), as the mean over these kinds."""
        means = [
            self.counts[:, self.kinds == name]
            @ ahead[self.kinds == name]
            / self.counts[:, self.kinds == name].sum(axis=1)
            for name in kinds
        ]
        return [round(float(edge), 2) for edge in np.percentile(np.mean(means, axis=0), [2.5, 97.5])]

    def mean(self, scores: Floats, kinds: Sequence[str]) -> float:
        """The mean over the means of these kinds."""
        return round(float(np.mean([scores[self.kinds == name].mean() for name in kinds])), 2)


def main() -> None:
    """Print nDCG@10, per cent, of the second half of the products, or with ``--choose`` of the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--choose", action="store_true", help="the half for choosing")
    given = parser.parse_args()
    home = given.work / "shop-relevance"
    index(given.data, home)
    with Engine.open(home) as engine:
        rows = [row for row in products(given.data) if engine.find(row["id"])]
        columns = {name: np.array([row[name].lower() for row in rows]) for name in rows[0]}
        place = {row["id"]: n for n, row in enumerate(rows)}
        held = [n for n, row in enumerate(rows) if held_out(row)]
        held = np.random.default_rng(SEED).permutation(held).tolist()
        first = set(held[: len(held) // 2])
        every = asked(rows, held)  # the first half's products come first: what they ask is not asked again
        queries = [query for query in every if (query.product in first) is given.choose]

        def found(text_weight: float | None, k: int = 10) -> list[list[int]]:
            wanted = [
                Query(
                    terms=[Term(text=query.text)],
                    k=k,
                    hybrid=text_weight is not None,
                    text_weight=text_weight or 0.0,
                    fields=(),
                )
                for query in queries
            ]
            pages = [
                page for n in range(0, len(wanted), 50) for page in engine.results_of(wanted[n : n + 50])
            ]
            return [[place[hit.item.key] for hit in page.hits] for page in pages]

        lists = {"vector": found(None, DEEP), "text": found(1.0, DEEP)}
        lists["reciprocal ranks"] = [
            list(reciprocal_rank_fusion(pair)) for pair in zip(lists["vector"], lists["text"], strict=True)
        ]
        lists |= {f"hybrid {weight}": found(weight) for weight in WEIGHTS}
    scores = {way: quality(queries, ranked, columns) for way, ranked in lists.items()}
    sample = Sample.of(queries)
    kinds = list(dict.fromkeys(query.kind for query in queries))
    spelt = [kind for kind in kinds if not kind.startswith("misspelt")]
    default = f"hybrid {Query().text_weight}"

    def figures(grading: str, *some: str) -> dict[str, Any]:
        found: dict[str, Any] = {way: sample.mean(ways[grading], some) for way, ways in scores.items()}
        for way in ("vector", "text", "reciprocal ranks"):
            found[f"over {way}"] = sample.interval(scores[default][grading] - scores[way][grading], some)
        return found

    measure.report(
        "shop_relevance",
        {
            "queries": {kind: int((sample.kinds == kind).sum()) for kind in kinds},
            "hybrid": default,
            "all": {grading: figures(grading, *kinds) for grading in GRADINGS},
            "rightly_spelt": {grading: figures(grading, *spelt) for grading in GRADINGS},
            "by_kind": {kind: {grading: figures(grading, kind) for grading in GRADINGS} for kind in kinds},
        },
        given.work,
    )


if __name__ == "__main__":
    main()
