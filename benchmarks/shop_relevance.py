"""Relevance in a shop: nDCG@10 of vectors, of full text, and of both, for products whose words are not in the index.

    python -m benchmarks.shop_relevance DATA WORK

DATA has ``fashion/products.csv`` (id, title, image, gender, articleType, baseColour) and the pictures. All products are
indexed with picture and title, but 600 of them (seeded) with the picture alone; their titles are the queries. A product
answers such a query if its type is the same; it gains 2**g - 1, where g is 1 for that and 1 more each for the colour,
the gender, and the brand (the first word of the title). The weight of the text is chosen on the first half of the
queries, and the figures are of the other half. The index, three minutes of encoding, stays in WORK.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ItemError, MediaError
from mmsearch.ranking import reciprocal_rank_fusion

SEED = 20261125
HELD = 600
WEIGHTS = (0.2, 0.3, 0.4)
DEEP = 100
"""So many of either list go into reciprocal rank fusion."""

Row = dict[str, str]


def products(data: Path) -> tuple[list[Row], list[Row]]:
    """All products, and those whose words are not indexed."""
    with (data / "fashion" / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [rows[n] for n in np.random.default_rng(SEED).permutation(len(rows))[:HELD]]


def index(data: Path, home: Path) -> None:
    """Index the products, unless that was done."""
    rows, held = products(data)
    silent = {row["id"] for row in held}
    with Engine.open(home) as engine:
        if engine.status().items:
            return
        for start in range(0, len(rows), 256):
            new = []
            for row in rows[start : start + 256]:
                title = None if row["id"] in silent else row["title"]
                parts = [NewPart(modality=Modality.IMAGE, content=data / "fashion" / row["image"])]
                parts += [NewPart(modality=Modality.TEXT, content=title)] if title else []
                new.append(NewItem(key=row["id"], modality=Modality.IMAGE, parts=parts, title=title))
            try:
                engine.add(new)
            except (ItemError, MediaError):  # a picture among them cannot be read
                for item in new:
                    try:
                        engine.add([item])
                    except (ItemError, MediaError) as error:
                        sys.stderr.write(f"{item.key}: {error}\n")


def gains(query: Row, rows: Sequence[Row]) -> NDArray[np.float64]:
    """What each product is worth as an answer."""

    def brand(row: Row) -> str:
        return row["title"].split()[0].lower()

    grades = [
        (row["articleType"] == query["articleType"])
        * (
            1
            + (row["baseColour"] == query["baseColour"])
            + (row["gender"] == query["gender"])
            + (brand(row) == brand(query))
        )
        for row in rows
    ]
    found: NDArray[np.float64] = 2.0 ** np.array(grades) - 1
    return found


def main() -> None:
    """Print nDCG@10, per cent, of the second half of the queries."""
    data, work = Path(sys.argv[1]), Path(sys.argv[2])
    home = work / "shop"
    index(data, home)
    rows, held = products(data)
    discounts = 1 / np.log2(np.arange(2, 12))
    with Engine.open(home) as engine:
        rows = [row for row in rows if engine.find(row["id"])]
        place = {row["id"]: n for n, row in enumerate(rows)}
        held = [row for row in held if row["id"] in place]
        worth = [gains(row, rows) for row in held]
        ideal = np.array([np.sort(one)[::-1][:10] @ discounts for one in worth])

        def found(k: int = 10, text_weight: float | None = None) -> list[list[int]]:
            hybrid = text_weight is not None
            asked = [
                Query(
                    terms=[Term(text=row["title"])],
                    k=k,
                    hybrid=hybrid,
                    fields=(),
                    text_weight=text_weight or 0.0,
                )
                for row in held
            ]
            pages = [page for n in range(0, len(asked), 50) for page in engine.results_of(asked[n : n + 50])]
            return [[place[hit.item.key] for hit in page.hits] for page in pages]

        def quality(lists: Sequence[Sequence[int]]) -> NDArray[np.float64]:
            sums = [
                one[ranked[:10]] @ discounts[: len(ranked[:10])]
                for one, ranked in zip(worth, lists, strict=True)
            ]
            scores: NDArray[np.float64] = 100 * np.array(sums) / ideal
            return scores

        near = found(DEEP)
        said = found(DEEP, 1.0)
        ways = {
            "vector": quality(near),
            "text": quality(said),
            "reciprocal_ranks": quality(
                [list(reciprocal_rank_fusion(pair)) for pair in zip(near, said, strict=True)]
            ),
        }
        hybrid = {weight: quality(found(text_weight=weight)) for weight in WEIGHTS}
    half = len(held) // 2
    best = max(WEIGHTS, key=lambda weight: float(hybrid[weight][:half].mean()))
    ways["hybrid"] = hybrid[best]
    rng = np.random.default_rng(SEED)
    ahead = (ways["hybrid"] - ways["vector"])[half:]
    means = ahead[rng.integers(0, len(ahead), (10_000, len(ahead)))].mean(axis=1)
    measure.report(
        "shop_relevance",
        {
            "queries": len(held) - half,
            "text_weight": best,
            **{name: round(float(scores[half:].mean()), 2) for name, scores in ways.items()},
            "hybrid_by_weight": {str(w): round(float(s[half:].mean()), 2) for w, s in hybrid.items()},
            "hybrid_by_weight_tuning": {str(w): round(float(s[:half].mean()), 2) for w, s in hybrid.items()},
            "hybrid_over_vector_95": [round(float(edge), 2) for edge in np.percentile(means, [2.5, 97.5])],
        },
        work,
    )


if __name__ == "__main__":
    main()
