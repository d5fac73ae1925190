"""The load generator: requests of a plan, each sent when it is due, whether or not those before were answered.

Run by Locust (https://locust.io) in a process of its own, see ``benchmarks.shop_server.send``. ``SHOP_PLAN`` names a
file of JSON lines (``at``: seconds from the start, ``kind``, ``method``, ``path``, ``body``), ascending by ``at``;
``SHOP_ANSWERS`` one that gets a line for each: ``kind``, ``at``, ``status`` (0: no answer), ``ms`` from when it was due
to the last byte of its answer, and ``late_ms``, how late it was sent. So a server that stalls cannot hide behind a
generator that waits for it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, task

CONNECTIONS = 100
"""So many requests are under way at once at most; each has a connection, which is kept."""


class Shop(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """All visitors of a shop at once."""

    concurrency = CONNECTIONS
    network_timeout = connection_timeout = 30.0
    max_retries = 0

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def visit(self) -> None:
        lines = Path(os.environ["SHOP_PLAN"]).read_text("utf-8").splitlines()
        plan: list[dict[str, Any]] = [json.loads(line) for line in lines]
        pool = Pool(CONNECTIONS)
        self.answers: list[dict[str, Any]] = []
        self.started = time.perf_counter() + 0.1
        for one in plan:
            if (early := self.started + one["at"] - time.perf_counter()) > 0:
                gevent.sleep(early)
            pool.spawn(self.send, one)
        pool.join()
        Path(os.environ["SHOP_ANSWERS"]).write_text("\n".join(map(json.dumps, self.answers)) + "\n", "utf-8")
        self.environment.runner.quit()

    def send(self, one: dict[str, Any]) -> None:
        body = json.dumps(one["body"])  # ASCII
        late = time.perf_counter() - self.started - one["at"]
        answer = self.client.request(
            one["method"],
            one["path"],
            name=one["kind"],
            data=body,
            headers={"Content-Type": "application/json"},
        )
        spent = time.perf_counter() - self.started - one["at"]
        told = {"kind": one["kind"], "at": one["at"], "status": answer.status_code}
        self.answers.append(told | {"ms": round(1000 * spent, 2), "late_ms": round(1000 * late, 2)})
