"""What the benchmarks of the shop search: real products, synthetic ones, what people ask, and plans of requests.

Real products are ``DATA/fashion/products.csv`` with its photos, and a price and a stock that are made up (seeded).
Synthetic ones have the vectors of real ones, turned by a random angle, and titles made of real words.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.feeds import index_feed
from mmsearch import Engine, Modality, NewItem, NewPart

SEED = 20261125
TURNED = 0.35
"""A synthetic product's vector is a real one plus so much random: its cosine with the real one is about 0.94."""

COLLECTION = "/v1/collections/default"
FACETS = [
    {"attribute": "baseColour", "ignore_own_filter": True},
    {"attribute": "articleType", "k": 20},
    {"attribute": "season"},
    {"attribute": "price", "ranges": [[None, 20], [20, 50], [50, 100], [100, None]]},
]

Request = dict[str, Any]


def real(data: Path, work: Path) -> Path:
    """The home with the real products, indexed once (three minutes of encoding)."""
    home = work / "shop-home"
    with Engine.open(home) as engine:
        if engine.status().items == 0:
            index_feed(engine, data / "fashion" / "products.csv")
        if "price" not in engine.attribute_kinds():
            rng = np.random.default_rng(SEED)
            keys = [item.key for item in engine.items()]
            prices = np.round(rng.lognormal(3.6, 0.7, len(keys)), 2)
            engine.update(
                {
                    key: {"price": float(price), "stock": int(rng.integers(0, 40))}
                    for key, price in zip(keys, prices, strict=True)
                }
            )
    return home


def synthetic(real_home: Path, work: Path, count: int) -> Path:
    """The home with ``count`` synthetic products, made once from the real ones."""
    home = work / f"shop-home-{count}"
    with Engine.open(real_home, create=False) as source:
        items = [item for item in source.items() if len(item.parts) == 3]
        vectors = np.stack([source.vectors(item) for item in items])
    words = sorted({word for item in items for word in (item.title or "").split() if word.isalpha()})
    rng = np.random.default_rng(SEED)
    with Engine.open(home) as engine:
        known = engine.status().items
        for start in range(0, count, 2000):
            rows = rng.integers(0, len(items), (2000, 3))
            noise = rng.normal(size=(2000, 3, vectors.shape[2])) * TURNED / np.sqrt(vectors.shape[2])
            said = rng.integers(0, len(words), (2000, 2))
            prices = np.round(rng.lognormal(3.6, 0.7, 2000), 2)
            if start < known:
                continue
            turned = vectors[rows[:, 0]] + noise
            turned /= np.linalg.norm(turned, axis=2, keepdims=True)
            new = []
            for n in range(min(2000, count - start)):
                base, colour, other = (items[row] for row in rows[n])
                attributes = dict(base.attributes) | {"price": float(prices[n]), "stock": n % 40}
                attributes["baseColour"] = colour.attributes.get("baseColour", "Black")
                attributes["season"] = other.attributes.get("season", "Fall")
                title = (
                    f"{words[said[n, 0]]} {words[said[n, 1]]} {attributes.get('gender', '')} "
                    f"{attributes['baseColour']} {attributes.get('articleType', '')} {start + n}"
                )
                parts = [
                    NewPart(
                        modality=part.modality,
                        vector=turned[n, place].astype(np.float32),
                        text=title if part.modality is Modality.TEXT else None,
                    )
                    for place, part in enumerate(base.parts)
                ]
                new.append(
                    NewItem(
                        key=f"synthetic-{start + n}",
                        modality=base.modality,
                        parts=parts,
                        title=title,
                        attributes=attributes,
                    )
                )
            engine.add(new)
    return home


def rows(data: Path) -> list[dict[str, str]]:
    """The table of the real products."""
    with (data / "fashion" / "products.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def made_up(folder: Path, count: int) -> Path:
    """A table of products in words only, to be given where DATA is asked for. Returns the folder."""
    colours = ("Red", "Blue", "Green", "Black", "White", "Brown", "Pink", "Grey")
    kinds = (
        "Shirts",
        "Shoes",
        "Watches",
        "Handbags",
        "Belts",
        "Jeans",
        "Dresses",
        "Sandals",
        "Caps",
        "Socks",
    )
    columns = (
        "id",
        "title",
        "image",
        "gender",
        "masterCategory",
        "articleType",
        "baseColour",
        "season",
        "year",
    )
    rng = np.random.default_rng(SEED)
    (folder / "fashion").mkdir(parents=True, exist_ok=True)
    with (folder / "fashion" / "products.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for n in range(count):
            gender, colour, kind = (
                some[rng.integers(len(some))] for some in (("Men", "Women"), colours, kinds)
            )
            season = ("Summer", "Fall", "Winter", "Spring")[rng.integers(4)]
            title = f"Maker{n % 50} {gender} {colour} {kind[:-1]} {n}"
            table.writerow((n, title, "", gender, "Apparel", kind, colour, season, 2008 + n % 8))
    return folder


def copied(home: Path, to: Path) -> Path:
    """A copy that may be written to."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(home, to)
    return to


def questions(data: Path, seed: int) -> Iterator[Request]:
    """Searches without end, no two with the same words: hybrid, with a filter and facets, 20 hits a page.

    Their words are colours, kinds, genders and words of titles, put together as they come; one in ten has a typo.
    """
    table = rows(data)
    rng = np.random.default_rng([SEED, seed])
    asked: set[str] = set()
    while True:
        one, two, three = (table[n] for n in rng.integers(0, len(table), 3))
        title = three["title"].split()
        said = [one["baseColour"], two["articleType"], title[rng.integers(0, len(title))]]
        if rng.random() < 0.3:
            said.insert(0, one["gender"])
        text = " ".join(said).lower()
        if rng.random() < 0.1:
            at = int(rng.integers(0, len(text) - 1))
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        if text in asked:
            continue
        asked.add(text)
        price = int(rng.integers(20, 150))
        where = (
            f"price < {price} and gender = '{two['gender']}'",
            f"price < {price} and stock > 0",
            f"gender = '{two['gender']}' and year >= {rng.integers(2008, 2014)}",
            f"masterCategory = '{two['masterCategory']}' and (season = 'Summer' or price >= {price})",
        )[int(rng.integers(0, 4))]
        yield {"text": text, "k": 20, "where": where, "facets": FACETS}


def searches(
    asked: Iterator[Request], rate: float, seconds: float, *, poisson: bool = False
) -> list[Request]:
    """A plan of searches at a steady rate, or at random moments of that rate."""
    count = round(rate * seconds)
    rng = np.random.default_rng(SEED)
    at = np.cumsum(rng.exponential(1 / rate, count)) if poisson else np.arange(count) / rate
    return [_request(float(at[n]), "search", "POST", "/search", next(asked)) for n in range(count)]


def repeated(asked: Iterator[Request], rate: float, seconds: float, distinct: int = 1000) -> list[Request]:
    """The same of searches that come again by Zipf's law: the n-th of ``distinct`` with a frequency of 1/n."""
    pool = [next(asked) for _ in range(distinct)]
    chances = 1 / np.arange(1, distinct + 1)
    count = round(rate * seconds)
    drawn = np.random.default_rng(SEED).choice(distinct, count, p=chances / chances.sum())
    return [_request(n / rate, "search", "POST", "/search", pool[row]) for n, row in enumerate(drawn)]


def prices(keys: Sequence[str], rate: float, seconds: float, seed: int) -> list[Request]:
    """A plan of price updates, one product each, no two with the same price."""
    rng = np.random.default_rng([SEED, seed])
    chosen = rng.choice(len(keys), round(rate * seconds))
    return [
        _request(
            (n + 0.5) / rate,
            "update",
            "PATCH",
            "/items",
            {"updates": [{"key": keys[row], "attributes": {"price": round(100 * seed + n / 100, 2)}}]},
        )
        for n, row in enumerate(chosen)
    ]


def additions(rate: float, seconds: float, seed: int) -> list[Request]:
    """A plan of new products without pictures, one a request."""
    return [
        _request(
            (n + 0.25) / rate,
            "add",
            "POST",
            "/items",
            {
                "items": [
                    {
                        "key": f"new-{seed}-{n}",
                        "title": f"Newcomer {seed} {n} linen shirt",
                        "description": f"Number {n} of those that came during the load.",
                        "attributes": {"price": float(n % 90 + 9), "gender": "Men", "year": 2013},
                    }
                ]
            },
        )
        for n in range(round(rate * seconds))
    ]


def removals(added: Sequence[Request], after: float) -> list[Request]:
    """A plan that removes each added product so many seconds later."""
    return [
        _request(
            one["at"] + after,
            "remove",
            "POST",
            "/items/remove",
            {"keys": [one["body"]["items"][0]["key"]]},
        )
        for one in added
    ]


def _request(at: float, kind: str, method: str, path: str, body: Request) -> Request:
    return {"at": at, "kind": kind, "method": method, "path": COLLECTION + path, "body": body}


def write(plan: Sequence[Request], file: Path) -> None:
    """A plan as JSON lines, in the order of time."""
    lines = [json.dumps(one) for one in sorted(plan, key=lambda one: float(one["at"]))]
    file.write_text("\n".join(lines) + "\n", "utf-8")
