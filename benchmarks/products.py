"""What feeds and fused vectors are worth: ``python -m benchmarks.products FEED.csv HOME``.

FEED.csv has ``id``, ``title``, ``image``, and ``articleType``, ``baseColour`` and ``gender`` for judging. It is indexed
into HOME if that is not there; then it is run again, prices are changed one by one, and products that are held out ask
for others of their kind by title, by words for what they are, and by photo: nDCG@10 and mAP of each way to search.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.feeds import index_feed
from mmsearch import Engine, Modality
from mmsearch.fusing import fused_scales
from mmsearch.ranking import centred
from mmsearch.types import Vector, Vectors

IMAGE, TEXT, FUSED = Modality.IMAGE, Modality.TEXT, Modality.FUSED
QUERIES = 600
UPDATES = 200


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(feed: Path, home: Path) -> None:
    with Engine.open(home) as engine:
        for run in ("first run", "second run"):
            report = index_feed(engine, feed)
            say(f"{run}: {report.added:,} added, {report.unchanged:,} unchanged, {report.total:.1f} s")
        judge(engine, feed)
        update(engine)


def update(engine: Engine) -> None:
    """Prices, one a transaction."""
    keys = [item.key for item in engine.items()]
    engine.update({key: {"price": 1.0} for key in keys})
    spent = []
    for n in range(UPDATES):
        wall, cpu = time.perf_counter(), time.process_time()
        engine.update({keys[7 * n % len(keys)]: {"price": n + 0.5, "stock": n}})
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall_ms, cpu_ms = 1000 * np.median(spent, axis=0)
    say(f"an update of one product: {wall_ms:.1f} ms, of which {cpu_ms:.1f} ms are computing")
    engine.update({key: {"price": None, "stock": None} for key in keys})


def judge(engine: Engine, feed: Path) -> None:
    with feed.open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    owned: dict[Modality, list[Vector]] = {IMAGE: [], TEXT: [], FUSED: []}
    kept = []
    for item in engine.items():
        by_modality = dict(zip((part.modality for part in item.parts), engine.vectors(item), strict=True))
        if owned.keys() <= by_modality.keys():
            kept.append(rows[item.key])
            for modality, found in owned.items():
                found.append(by_modality[modality])
    vectors = {modality: np.stack(found) for modality, found in owned.items()}
    order = np.random.default_rng(0).permutation(len(kept))
    asking, gallery = order[:QUERIES], order[QUERIES:]
    kind, colour, gender = (
        np.array([row[name] for row in kept]) for name in ("articleType", "baseColour", "gender")
    )
    words = [f"{gender[n]} {colour[n]} {kind[n]}".lower() for n in asking]
    queries = {
        "title": (TEXT, vectors[TEXT][asking]),
        "words": (TEXT, engine.encoder.encode_texts(words)),
        "photo": (IMAGE, vectors[IMAGE][asking]),
    }
    same = [kind[gallery] == kind[n] for n in asking]
    grades = [
        np.where(found, 1.0 + (colour[gallery] == colour[n]) + (gender[gallery] == gender[n]), 0.0)
        for found, n in zip(same, asking, strict=True)
    ]
    goods = {modality: found[gallery] for modality, found in vectors.items()}
    for name, searched in {
        "pictures": (IMAGE,),
        "texts": (TEXT,),
        "pictures or texts": (IMAGE, TEXT),
        "fused": (FUSED,),
        "fused or pictures": (FUSED, IMAGE),
    }.items():
        figures = [
            "{:.3f}/{:.3f}".format(*measure(scores(engine, asked, rows, goods, searched), grades))
            for asked, rows in queries.values()
        ]
        say("  ".join([f"{name:<18}", *figures]))


def scores(
    engine: Engine,
    asked: Modality,
    queries: Vectors,
    goods: Mapping[Modality, Vectors],
    searched: tuple[Modality, ...],
) -> NDArray[np.float32]:
    """(queries, goods): of each thing the best of the lists that are searched, on one scale."""
    if len(searched) == 1:
        return np.asarray(queries @ goods[searched[0]].T)
    known = {modality: engine.encoder.means[modality] for modality in engine.encoder.spreads}
    means, spreads = fused_scales(known, engine.encoder.spreads)
    best = np.full((len(queries), len(goods[IMAGE])), -np.inf, np.float32)
    for n, query in enumerate(queries):
        scales = centred(query, {asked: 1.0}, means, spreads)
        for modality in searched:
            factor, offset = scales[modality]
            best[n] = np.maximum(best[n], factor * (goods[modality] @ query) + offset)
    return best


def measure(found: NDArray[np.float32], grades: list[NDArray[Any]]) -> tuple[float, float]:
    """nDCG@10 over grades of 0 to 3, and mAP of those of 3 within the first 500."""
    discounts = 1 / np.log2(np.arange(2, 12))
    gains, precisions = [], []
    for row, grade in zip(found, grades, strict=True):
        order = np.argsort(-row, kind="stable")
        if (ideal := np.sort(grade)[::-1][:10] @ discounts) > 0:
            gains.append(grade[order[:10]] @ discounts / ideal)
        if right := (grade == 3).sum():
            hits = grade[order[:500]] == 3
            precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1) * hits).sum() / right)
    return float(np.mean(gains)), float(np.mean(precisions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
