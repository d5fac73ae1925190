"""The server under load: ``python -m benchmarks.shop_load DATA WORK [--seconds 30] [--products 100000] [--skip PART]``

`mmsearch serve` runs as a process over the real products of DATA/fashion, then over synthetic ones; Locust, in a second
process, sends it requests over the loopback when they are due, whether or not those before were answered. Both share
the machine's cores. Every search asks something else, with a filter, four facets and hybrid ranking; searches that come
again by Zipf's law are reported apart. Server, generator, and whoever else uses the machine are told in cores; ``spin``
is a fixed piece of computing that takes longer when the machine is busy.

``writes``: 40 price updates and 10 new products a second beside the searches; afterwards each of them is looked up.
``peers`` (see ``benchmarks.shop_peers``) answers the same vector queries with other engines. Homes stay in WORK.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure, shop_goods, shop_peers
from benchmarks.shop_server import Server, latencies, loaded, serving, spin

RATE, FAST = 20.0, 60.0
UPDATES, ADDITIONS = 40.0, 10.0
STARTS = 3
WARM = 5.0
"""Seconds of searches before anything is measured."""

Told = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load")
    parser.add_argument("--products", type=int, default=100_000, help="number of synthetic products")
    parser.add_argument("--workers", type=int, help="as of mmsearch serve")
    parser.add_argument(
        "--skip", action="append", default=[], choices=["real", "synthetic", "writes", "peers"]
    )
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    homes = {"real": shop_goods.real(data, work)}
    if "synthetic" not in options.skip:
        homes["synthetic"] = shop_goods.synthetic(homes["real"], work, options.products)
    result: Told = {"machine": measure.machine(), "seconds": options.seconds, "workers": options.workers}
    for name, home in homes.items():
        if name not in options.skip:
            result[name] = of(home, data, work, options)
    if "peers" not in options.skip:
        result["peers"] = {name: shop_peers.compare(home, data, work) for name, home in homes.items()}
    measure.report("shop_load", result, work)


def of(home: Path, data: Path, work: Path, options: argparse.Namespace) -> Told:
    """All figures of one home; the copy that is written to is thrown away."""
    home = shop_goods.copied(home, work / "shop-copy")
    asked = shop_goods.questions(data, 0)
    told: Told = {"spin_ms": spin(), "start": starts(home, asked, options.workers)}
    seconds = options.seconds
    with serving(home, options.workers) as server:
        loaded(server, shop_goods.searches(asked, RATE, WARM), work)
        told["steady"] = loaded(server, shop_goods.searches(asked, RATE, seconds), work)
        told["random_arrivals"] = loaded(
            server, shop_goods.searches(asked, RATE, seconds, poisson=True), work
        )
        told["fast"] = loaded(server, shop_goods.searches(asked, FAST, seconds), work)
        encoded, kept = server.kept_vectors()
        told["searches_that_came_again"] = kept
        told["searches_encoded"] = encoded
        told["zipf"] = loaded(server, shop_goods.repeated(asked, RATE, seconds), work)
        again = server.kept_vectors()
        told["zipf"]["vectors_kept"] = round((again[1] - kept) / max(1, sum(again) - encoded - kept), 2)
        told["deep"] = deep(server)
        told["visible_ms"] = visible(server)
        if "writes" not in options.skip:
            told["writes"] = writes(server, asked, work, seconds)
        told["spin_after_ms"] = spin()
    return told


def starts(home: Path, asked: Iterator[shop_goods.Request], workers: int | None) -> Told:
    """The first query after the server said that it is ready, beside warm ones."""
    ready, first, warm = [], [], []
    for _ in range(STARTS):
        with serving(home, workers) as server:
            ready.append(server.ready_s)
            first.append(server.search(next(asked))[0])
            some = [server.search(next(asked))[0] for _ in range(25)]
            warm.append(statistics.median(some[5:]))
    told = {
        "ready_s": round(statistics.median(ready), 2),
        "first_query_ms": round(statistics.median(first), 1),
    }
    told["warm_query_ms"] = round(statistics.median(warm), 1)
    return told | {
        "first_to_warm": round(statistics.median(a / b for a, b in zip(first, warm, strict=True)), 2)
    }


def deep(server: Server) -> Told:
    """2,000 results with all their attributes: in one page, in pages of 100 by cursor, and the last of those."""
    body: shop_goods.Request = {"text": "casual shirts and shoes", "text_weight": 0.3}
    whole, paged, last = [], [], []
    for n in range(6):
        asked = body | {"text": f"{body['text']} {n}"}
        ms, told = server.search(asked | {"k": 2000})
        assert len(told["hits"]) == 2000, len(told["hits"])
        whole.append(ms)
        spent, found, cursor = [], [], None
        for _ in range(20):
            ms, told = server.search(asked | {"k": 100, "cursor": cursor})
            spent.append(ms)
            found += [hit["item"]["id"] for hit in told["hits"]]
            cursor = told["cursor"]
        assert len(set(found)) == 2000
        paged.append(sum(spent))
        last.append(spent[-1])
    names = ("one_page_ms", "pages_of_100_ms", "last_page_ms")
    return {
        name: round(statistics.median(some), 1)
        for name, some in zip(names, (whole, paged, last), strict=True)
    }


def visible(server: Server) -> Told:
    """Milliseconds from a price update being sent until a search finds the product by it."""
    _, listed = server.ask("GET", f"{shop_goods.COLLECTION}/items?k=10")
    spent = []
    for n, item in enumerate(listed["items"]):
        price = 90_000 + n
        started = time.perf_counter()
        update = {"updates": [{"key": item["key"], "attributes": {"price": price}}]}
        status, told = server.ask("PATCH", f"{shop_goods.COLLECTION}/items", update)
        if status != 200 or told["unknown"]:
            raise RuntimeError(f"{status}: {told}")
        while not server.search({"where": f"price = {price}", "k": 1})[1]["hits"]:
            pass
        spent.append(1000 * (time.perf_counter() - started))
    return latencies(spent)


def writes(server: Server, asked: Iterator[shop_goods.Request], work: Path, seconds: float) -> Told:
    """Searches alone, then the same number with updates and additions beside them, and what of those was lost.

    In turns, twice, because the machine's speed drifts.
    """
    keys = [item["key"] for item in everything(server)]
    told: Told = {"alone": [], "together": []}
    sent: list[shop_goods.Request] = []
    for turn in (1, 2):
        told["alone"].append(loaded(server, shop_goods.searches(asked, RATE, seconds), work))
        more = shop_goods.prices(keys, UPDATES, seconds, turn)
        more += shop_goods.additions(ADDITIONS, seconds, turn)
        sent += sorted(more, key=lambda one: float(one["at"]))
        plan = shop_goods.searches(asked, RATE, seconds) + more
        told["together"].append(loaded(server, plan, work))
    for percentile in ("p50_ms", "p99_ms"):
        alone, together = (
            statistics.median(run["search"][percentile] for run in told[name])
            for name in ("alone", "together")
        )
        told[f"{percentile[:3]}_ratio"] = round(together / alone, 2)
    return told | {"lost": lost(server, sent), "sent": len(sent)}


def lost(server: Server, sent: Sequence[shop_goods.Request]) -> int:
    """How many products do not have the price that they were given last, or are not there, or cannot be found."""
    stored = {item["key"]: item for item in everything(server)}
    wanted: dict[str, Any] = {}
    for one in sent:
        if one["kind"] == "update":
            (update,) = one["body"]["updates"]
            wanted.setdefault(update["key"], {}).update(update["attributes"])
        else:
            (item,) = one["body"]["items"]
            wanted[item["key"]] = dict(item["attributes"])
    missing = sum(
        key not in stored or any(stored[key]["attributes"].get(name) != value for name, value in some.items())
        for key, some in wanted.items()
    )
    for one in sent[:: max(1, len(sent) // 200)]:
        if one["kind"] == "add":
            item = one["body"]["items"][0]
            hits = server.search({"text": item["title"], "k": 1})[1]["hits"]
            missing += not hits or hits[0]["item"]["key"] != item["key"]
    return missing


def everything(server: Server) -> Iterator[Told]:
    """All items, a page at a time."""
    after: int | None = 0
    while after is not None:
        _, told = server.ask("GET", f"{shop_goods.COLLECTION}/items?after={after}&k=1000")
        yield from told["items"]
        after = told["after"]


if __name__ == "__main__":
    main()
