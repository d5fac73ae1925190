"""The same vector queries with a filter, answered by other engines that run in a process: Qdrant's local mode, LanceDB.

Each gets the fused vectors of a home (768 dimensions, float32) and the attributes of the filters, in an environment of
its own in WORK/peer (PyPI: ``qdrant-client``, ``lancedb``), with its defaults: Qdrant's local mode compares with all
vectors (numpy), and so does a LanceDB table without an index. They know nothing of hybrid ranking with typos, facets,
rules or groups, so ours is asked by vector alone, without facets. One query at a
time, in turns of blocks; ``same`` is the share of the first 20 that agrees with an exact scan by numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peer, shop_goods
from benchmarks.shop_server import latencies
from mmsearch import Engine, Modality, Query, Term
from mmsearch.types import Vectors

K, QUERIES, ROUNDS = 20, 40, 3

PACKAGES = {"qdrant_local": "qdrant-client==1.20.0", "lancedb": "lancedb==0.40.0"}

ASK = """
import json, sys, time
import numpy as np
engine, folder = sys.argv[1:]
goods, asked = np.load(folder + "/goods.npy"), np.load(folder + "/asked.npy")
facts = json.load(open(folder + "/facts.json"))
filters = json.load(open(folder + "/filters.json"))
if engine == "qdrant_local":
    from qdrant_client import QdrantClient, models as m
    client = QdrantClient(":memory:")
    client.create_collection("goods", m.VectorParams(size=goods.shape[1], distance=m.Distance.COSINE))
    client.upload_collection("goods", vectors=goods, payload=facts, ids=range(len(goods)))
    def search(vector, where):
        must = [m.FieldCondition(key="gender", match=m.MatchValue(value=where["gender"])),
                m.FieldCondition(key="price", range=m.Range(lt=where["price"]))]
        found = client.query_points("goods", query=vector, query_filter=m.Filter(must=must), limit=20)
        return [point.id for point in found.points]
else:
    import lancedb, pyarrow as pa
    table = pa.table({"id": range(len(goods)),
                      "vector": pa.FixedSizeListArray.from_arrays(goods.ravel(), goods.shape[1]),
                      **{name: [fact[name] for fact in facts] for name in facts[0]}})
    table = lancedb.connect(folder + "/lance").create_table("goods", table, mode="overwrite")
    def search(vector, where):
        said = f"gender = '{where['gender']}' AND price < {where['price']}"
        found = table.search(vector).distance_type("cosine").where(said, prefilter=True).limit(20)
        return found.select(["id"]).to_arrow()["id"].to_pylist()
def run():
    spent, found = [], []
    for vector, where in zip(asked, filters):
        started = time.perf_counter()
        found.append(search(vector, where))
        spent.append(1000 * (time.perf_counter() - started))
    return {"ms": spent, "found": found}
run()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(run()), flush=True)
"""


class _Ours:
    """This engine, in this process."""

    def __init__(self, engine: Engine, asked: Vectors, filters: list[dict[str, Any]]) -> None:
        self.engine = engine
        self.queries = [
            Query(
                terms=(Term(vector=vector),),
                modality=Modality.FUSED,
                k=K,
                where=f"gender = '{where['gender']}' and price < {where['price']}",
                fields=("gender", "price"),
            )
            for vector, where in zip(asked, filters, strict=True)
        ]
        self.run()

    def run(self) -> dict[str, Any]:
        spent, found = [], []
        for query in self.queries:
            started = time.perf_counter()
            hits = self.engine.results(query).hits
            spent.append(1000 * (time.perf_counter() - started))
            found.append([hit.item.key for hit in hits])
        return {"ms": spent, "found": found}


class _Peer:
    """Another engine, in a process of its own."""

    def __init__(self, name: str, work: Path, folder: Path) -> None:
        python = peer.environment(work / "peer" / f"{name}-env", PACKAGES[name]) / "python"
        self.process = subprocess.Popen(
            [python, "-c", ASK, name, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")},
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.answers, self.asks = self.process.stdout, self.process.stdin
        if self.answers.readline().strip() != "ready":
            raise RuntimeError(f"{name} did not start")

    def run(self) -> dict[str, Any]:
        self.asks.write("again\n")
        self.asks.flush()
        told: dict[str, Any] = json.loads(self.answers.readline())
        return told

    def close(self) -> None:
        self.asks.close()
        self.process.wait(60)


def compare(home: Path, data: Path, work: Path) -> dict[str, Any]:
    """Latency of each engine over the fused vectors of a home, and our share of each peer's."""
    folder = work / "peer" / "goods"
    folder.mkdir(parents=True, exist_ok=True)
    questions = shop_goods.questions(data, 7)
    texts = [next(questions)["text"] for _ in range(QUERIES)]
    rng = np.random.default_rng(shop_goods.SEED)
    with Engine.open(home, create=False) as engine:
        items = [item for item in engine.items() if item.modality is Modality.FUSED]
        whole = [next(p.id for p in item.parts if p.modality is Modality.FUSED) for item in items]
        goods = np.concatenate(
            [engine.catalog.vectors_of(whole[n : n + 4096]) for n in range(0, len(whole), 4096)]
        )
        facts = [
            {"gender": str(item.attributes.get("gender", "")), "price": float(item.attributes["price"])}  # type: ignore[arg-type]
            for item in items
        ]
        filters = [
            {"gender": ("Men", "Women", "Unisex")[n % 3], "price": int(rng.integers(20, 150))}
            for n in range(QUERIES)
        ]
        asked = engine.encoder.encode_texts(texts)
        np.save(folder / "goods.npy", goods)
        np.save(folder / "asked.npy", asked)
        (folder / "facts.json").write_text(json.dumps(facts), "utf-8")
        (folder / "filters.json").write_text(json.dumps(filters), "utf-8")
        exact = _exact(goods, asked, facts, filters)
        row_of = {item.key: row for row, item in enumerate(items)}
        peers = {name: _Peer(name, work, folder) for name in PACKAGES}
        try:
            runs: dict[str, Any] = {"mmsearch": _Ours(engine, asked, filters), **peers}
            spent: dict[str, list[float]] = {name: [] for name in runs}
            same: dict[str, float] = {}
            for _ in range(ROUNDS):
                for name, one in runs.items():
                    told = one.run()
                    spent[name] += told["ms"]
                    found = [
                        [row_of[key] for key in some] if name == "mmsearch" else some
                        for some in told["found"]
                    ]
                    shares = [len(set(a) & b) / len(b) for a, b in zip(found, exact, strict=True)]
                    same[name] = round(float(np.mean(shares)), 3)
        finally:
            for one in peers.values():
                one.close()
    told = {name: latencies(some) | {"same": same[name]} for name, some in spent.items()}
    for name in peers:
        told["mmsearch"][f"share_of_{name}"] = round(
            float(np.median(spent["mmsearch"]) / np.median(spent[name])), 2
        )
    return {"products": len(items), **told}


def _exact(
    goods: np.ndarray[Any, Any],
    asked: np.ndarray[Any, Any],
    facts: list[dict[str, Any]],
    filters: list[dict[str, Any]],
) -> list[set[int]]:
    gender = np.array([fact["gender"] for fact in facts])
    price = np.array([fact["price"] for fact in facts])
    found = []
    for vector, where in zip(asked, filters, strict=True):
        scores = goods @ vector
        scores[(gender != where["gender"]) | (price >= where["price"])] = -np.inf
        found.append(set(np.argsort(-scores)[:K].tolist()))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))) + "\n")
