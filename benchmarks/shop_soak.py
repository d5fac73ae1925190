"""A server at moderate load for an hour: ``python -m benchmarks.shop_soak WORK [--data DATA] [--seconds 3600]``

Ten searches a second, each another one, ten price updates, and a new product each second that is removed half a minute
later, so that what the shop holds stays the same. The shop is that of DATA, or one of ``--products`` products in words
only. Before, as many texts are encoded as the server keeps vectors of: it would grow by those for half an hour. Memory
is looked at all the while: what it grew by from the end of the first third to the end of the run, and how fast (the
slope of a straight line), beside errors and latency of each fifth.

Fails (exit code 1) if a request was not answered well, or if memory grew by more than ``GROWTH``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, shop_goods
from benchmarks.shop_server import Server, latencies, send, serving
from indexer.products import Product, upsert
from mmsearch import Engine
from mmsearch.server.batching import KEPT

SEARCHES, UPDATES, ADDITIONS = 10.0, 10.0, 1.0
STAYS = 30.0
"""Seconds until a new product is removed."""

GROWTH = 0.05
"""Memory may be so much more at the end than after the first third: rows of what was removed are kept for a while."""

PRODUCTS = 2000

SHORT = 300.0
"""Seconds; a shorter run is no measure of memory: nothing is encoded before it, and it does not fail by growth."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, help="default: made-up products")
    parser.add_argument("--products", type=int, default=PRODUCTS, help="how many are made up")
    parser.add_argument("--seconds", type=float, default=3600.0)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        data = shop_goods.made_up(work / "made-up", options.products)
        home = in_words(data, work / "made-up-home")
    else:
        data = options.data.resolve()
        home = shop_goods.copied(shop_goods.real(data, work), work / "shop-copy")
    with serving(home) as server:
        if options.seconds >= SHORT:
            fill(server)
        result = soak(server, data, work, home, options.seconds)
    measure.report("shop_soak", {"machine": measure.machine(), "seconds": options.seconds, **result}, work)
    grown = result["rss_end_mb"] / result["rss_warm_mb"] - 1
    if result["errors"] or result["unanswered"] or (grown > GROWTH and options.seconds >= SHORT):
        sys.exit(
            f"{result['errors']} errors, {result['unanswered']} requests without an answer, "
            f"{100 * grown:.1f} % more memory at the end (allowed: {100 * GROWTH:.0f} %)"
        )


def in_words(data: Path, home: Path) -> Path:
    """A new shop of the products of DATA, without their pictures."""
    shutil.rmtree(home, ignore_errors=True)
    columns = ("gender", "masterCategory", "articleType", "season", "baseColour")
    with Engine.open(home) as engine:
        products = [
            Product(
                key=row["id"],
                title=row["title"],
                description=None,
                images=[],
                attributes={name: row[name] for name in columns}
                | {"year": int(row["year"]), "price": 20.0 + n % 200, "stock": n % 5},
            )
            for n, row in enumerate(shop_goods.rows(data))
        ]
        upsert(engine, products, files=False)
    return home


def fill(server: Server) -> None:
    """Make the server keep as many query vectors as it ever does."""
    for start in range(0, KEPT, 250):
        texts = [f"number {n} of those that fill the memory" for n in range(start, start + 250)]
        status, told = server.ask("POST", f"{shop_goods.COLLECTION}/encode", {"texts": texts})
        if status != 200:
            raise RuntimeError(f"{status}: {told}")


def soak(server: Server, data: Path, work: Path, home: Path, seconds: float) -> dict[str, Any]:
    """Memory, errors and latency over the time of the run."""
    with Engine.open(home, create=False) as engine:
        keys = [item.key for item in engine.items()]
    plan = shop_goods.searches(shop_goods.questions(data, 5), SEARCHES, seconds)
    plan += shop_goods.prices(keys, UPDATES, seconds, 1)
    added = shop_goods.additions(ADDITIONS, max(seconds - STAYS, 0.0), 1)
    plan += added + shop_goods.removals(added, STAYS)
    memory: list[tuple[float, float]] = []
    done = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while not done.wait(seconds / 500):
            memory.append((time.monotonic() - started, server.rss_mb))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = send(server, plan, work)
    finally:
        done.set()
        watcher.join()
    at, mb = np.array(memory).T
    warm = at >= at[-1] / 3
    edge = max(1, len(mb) // 20)
    fifths = [
        latencies([one["ms"] for one in answers if one["kind"] == "search" and low <= one["at"] < high])
        for low, high in ((n * seconds / 5, (n + 1) * seconds / 5) for n in range(5))
    ]
    return {
        "requests": len(answers),
        "errors": sum(not 200 <= one["status"] < 300 for one in answers),
        "unanswered": len(plan) - len(answers),
        "rss_warm_mb": round(float(np.median(mb[warm][:edge])), 1),
        "rss_end_mb": round(float(np.median(mb[-edge:])), 1),
        "rss_slope_mb_per_hour": round(float(np.polyfit(at[warm], mb[warm], 1)[0]) * 3600, 1),
        "fifths": fifths,
    }


if __name__ == "__main__":
    main()
