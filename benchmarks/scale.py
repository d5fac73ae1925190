"""Search among 100,000 items: time, recall against exact search, opening, building, bytes.

    python -m benchmarks.scale DATA WORK

The vectors are those of all photos of the data folder, encoded by ``mini`` once, and seeded interpolations between
random pairs of them; the queries are real captions, each used once; the filters allow a given share of the items
and no filter value comes twice, so that nothing about a filter can be remembered. Times are those of
``Engine.search`` in this process, text encoding included; recall counts the exact nearest ten of the stored vectors
(ties are equal).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure, photos
from benchmarks.reindex import bytes_below
from mmsearch import Engine
from mmsearch.encoders import Encoder, load_encoder, model_folder
from mmsearch.media import load_image
from mmsearch.types import Image, Modality, NewItem, NewPart, Query, Term, Vectors

ITEMS = 100_000
K = 10
QUERIES = 250
SHARES = (0.001, 0.01, 0.1, 0.5, None)
SEED = 20261122

OPENING = """
import json, sys, time
import numpy as np
from mmsearch import Engine
from mmsearch.types import Query, Term
vector = np.eye(1, int(sys.argv[2]), dtype=np.float32)[0]
started = time.perf_counter()
with Engine.open(sys.argv[1], create=False) as engine:
    engine.search(Query(terms=[Term(vector=vector)]))
    first = time.perf_counter() - started
    started = time.perf_counter()
    engine.search(Query(terms=[Term(vector=vector)], where="place < 0.5"))
    print(json.dumps({"open_s": round(first, 3), "first_filter_s": round(time.perf_counter() - started, 3)}))
"""


def real_vectors(data: Path, work: Path, encoder: Encoder) -> Vectors:
    """All photos of the data folder encoded, in the order of their paths; kept in WORK for this very model."""
    digest = json.loads((model_folder("mini") / "model.json").read_text())["files"]["image.onnx"]["sha256"][
        :12
    ]
    kept = work / f"vectors-{digest}.npy"
    if not kept.exists():
        paths = [
            *sorted((data / "flickr8k" / "images").iterdir()),
            *sorted((data / "fashion" / "images").iterdir()),
        ]

        def prepared(path: Path) -> Image:
            return encoder.prepare_image(load_image(path, min_side=encoder.image_size))

        rows = []
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(paths), encoder.batch_size):
                rows.append(
                    encoder.encode_images(list(pool.map(prepared, paths[start : start + encoder.batch_size])))
                )
        np.save(kept, np.concatenate(rows))
    vectors: Vectors = np.load(kept)
    return vectors


def enlarged(real: Vectors, count: int) -> Vectors:
    """``real`` and interpolations between random pairs of its rows, ``count`` rows in all."""
    rng = np.random.default_rng(SEED)
    one, other = rng.integers(len(real), size=(2, count - len(real)))
    weight = rng.uniform(0.1, 0.9, (count - len(real), 1)).astype(np.float32)
    mixed = weight * real[one] + (1 - weight) * real[other]
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.ascontiguousarray(np.concatenate([real, mixed]), np.float32)


def build(home: Path, vectors: Vectors, places: NDArray[np.float64], model: str) -> float:
    """Put the items into a new home; returns seconds."""
    shutil.rmtree(home, ignore_errors=True)
    started = time.perf_counter()
    with Engine.open(home, model=model) as engine, engine.writing(what="benchmark"):
        for start in range(0, len(vectors), 1000):
            engine.add(
                NewItem(
                    key=f"item-{row}",
                    modality=Modality.IMAGE,
                    parts=[NewPart(modality=Modality.IMAGE, vector=vectors[row])],
                    attributes={"place": float(places[row])},
                )
                for row in range(start, min(start + 1000, len(vectors)))
            )
        engine.save()
    return time.perf_counter() - started


def searched(
    engine: Engine, queries: Sequence[str], share: float | None, vectors: Vectors, places: NDArray[np.float64]
) -> dict[str, Any]:
    """Search with each caption among ``share`` of the items; times and recall."""
    rng = np.random.default_rng(SEED)
    lows = [0.0 if share is None else float(rng.uniform(0, 1 - share)) for _ in queries]
    walls, cpus, answers = [], [], []
    for words, low in zip(queries, lows, strict=True):
        where = None if share is None else f"place >= {low!r} and place < {low + share!r}"
        query = Query(terms=[Term(text=words)], k=K, where=where)
        wall, cpu = time.perf_counter(), time.process_time()
        hits = engine.search(query)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        answers.append(np.array([int(hit.item.key.removeprefix("item-")) for hit in hits]))
    # The oracle comes afterwards: numpy's threads go on spinning for a while and would disturb the next search.
    recalls = []
    for words, low, rows in zip(queries, lows, answers, strict=True):
        allowed = np.arange(len(places))
        if share is not None:
            allowed = np.flatnonzero((places >= low) & (places < low + share))
        (vector,) = engine.encoder.encode_texts([words])
        last_of_best = np.partition(vectors[allowed] @ vector, -K)[-K]
        assert len(set(rows.tolist())) == K
        assert np.isin(rows, allowed).all()
        recalls.append(np.mean(vectors[rows] @ vector >= last_of_best - 1e-6))
    return {
        "queries": len(queries),
        **measure.milliseconds(walls),
        "cpu_p50_ms": measure.milliseconds(cpus)["p50_ms"],
        "recall_at_10": round(float(np.mean(recalls)), 4),
        "worst_recall": round(float(np.min(recalls)), 2),
    }


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    vectors = enlarged(real_vectors(data, work, load_encoder("mini")), ITEMS)
    places = np.random.default_rng(SEED).uniform(size=ITEMS)
    home = work / "home100k"
    build_s = build(home, vectors, places, "mini")
    opening = [measure.run([sys.executable, "-c", OPENING, home, str(vectors.shape[1])]) for _ in range(5)]
    opened = [json.loads(cost.output) for cost in opening]
    queries = photos.captions(data)
    stored = vectors.astype(np.float16).astype(np.float32)
    with Engine.open(home, create=False) as engine:
        for words in queries[-20:]:
            engine.search(Query(terms=[Term(text=words)], where="place < 0.987654"))
        results = {}
        for number, share in enumerate(SHARES):
            asked = queries[number * QUERIES : (number + 1) * QUERIES]
            name = "all" if share is None else f"{share:.1%}"
            results[name] = searched(engine, asked, share, stored, places)
        kinds = engine.status().index_kind
    result = {
        "items": ITEMS,
        "index": kinds,
        "build_s": round(build_s, 1),
        "open_s": float(np.median([run["open_s"] for run in opened])),
        "first_filter_s": float(np.median([run["first_filter_s"] for run in opened])),
        "opening_process_s": round(float(np.median([cost.wall_s for cost in opening])), 3),
        "opening_rss_mb": round(max(cost.rss_mb for cost in opening)),
        "bytes_per_item": round(bytes_below(home) / ITEMS),
        "allowed": results,
    }
    measure.report("scale", result, work)


if __name__ == "__main__":
    main()
