"""``mmsearch serve`` as a process of its own, what it costs, and a load generator beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, shop_goods

Told = dict[str, Any]


class Server:
    """A server over a home, on a free port of the loopback."""

    def __init__(self, home: Path, workers: int | None = None) -> None:
        command = [sys.executable, "-m", "mmsearch", "serve", "--port", "0", "--home", str(home)]
        command += ["--rate", "1000000", "--log-level", "warning"]
        command += [] if workers is None else ["--workers", str(workers)]
        self.port = _free_port()
        command[command.index("--port") + 1] = str(self.port)
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz")[0] == 200:
                    break
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - started

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get_content_type()
        return answer.status, json.loads(raw) if kind.endswith("json") else raw.decode()

    def search(self, body: shop_goods.Request) -> tuple[float, Any]:
        """Milliseconds of a search, and its answer."""
        started = time.perf_counter()
        status, told = self.ask("POST", f"{shop_goods.COLLECTION}/search", body)
        if status != 200:
            raise RuntimeError(f"{status}: {told}")
        return 1000 * (time.perf_counter() - started), told

    def kept_vectors(self) -> tuple[int, int]:
        """How many query texts were encoded, and of how many the vector was kept."""
        _, text = self.ask("GET", "/metrics")
        found = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[:1] != "#"}
        name = "mmsearch_query_vectors_total"
        return int(found.get(name + '{kept="no"}', 0)), int(found.get(name + '{kept="yes"}', 0))

    @property
    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes), the mapped catalog file not counted."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(home: Path, workers: int | None = None) -> Iterator[Server]:
    """A server that is ready, ended afterwards."""
    server = Server(home, workers)
    try:
        yield server
    finally:
        code = server.stop()
        if sys.exc_info()[0] is None and code not in (0, -signal.SIGTERM):
            raise RuntimeError(f"the server ended with {code}")


def send(server: Server, plan: Sequence[shop_goods.Request], work: Path) -> list[Told]:
    """Send a plan from a second process; what came of each request, see ``benchmarks.shop_traffic``."""
    file, answers = work / "plan.jsonl", work / "answers.jsonl"
    shop_goods.write(plan, file)
    answers.unlink(missing_ok=True)
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("shop_traffic.py"))]
    command += ["--headless", "--users", "1", "--host", f"http://127.0.0.1:{server.port}"]
    command += ["--only-summary", "--loglevel", "ERROR", "--exit-code-on-error", "0"]
    environ = os.environ | {"SHOP_PLAN": str(file), "SHOP_ANSWERS": str(answers)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if not answers.exists():
        raise RuntimeError(f"the load generator failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [json.loads(line) for line in answers.read_text("utf-8").splitlines()]


def loaded(server: Server, plan: Sequence[shop_goods.Request], work: Path) -> Told:
    """Figures of a plan: latency of each kind of request, errors, and who used the processor meanwhile."""
    before = measure.processor_seconds(), server.cpu_s, os.times(), time.perf_counter()
    answers = send(server, plan, work)
    busy, own, times, wall = measure.processor_seconds(), server.cpu_s, os.times(), time.perf_counter()
    wall -= before[3]
    generator = times.children_user + times.children_system
    generator -= before[2].children_user + before[2].children_system
    own, busy = own - before[1], busy - before[0]
    told: Told = {}
    for kind in dict.fromkeys(one["kind"] for one in plan):
        mine = [one for one in answers if one["kind"] == kind]
        told[kind] = latencies([one["ms"] for one in mine]) | {
            "errors": sum(not 200 <= one["status"] < 300 for one in mine),
            "late_p99_ms": round(float(np.percentile([one["late_ms"] for one in mine], 99)), 2),
        }
    spread = max(one["at"] for one in plan)
    done = max(one["at"] + one["ms"] / 1000 for one in answers)
    return told | {
        "requests_per_s": round(len(answers) / max(done, spread), 1),
        "server_cores": round(own / wall, 2),
        "generator_cores": round(generator / wall, 2),
        "others_cores": round(max(0.0, busy - own - generator) / wall, 2),
        "rss_mb": round(server.rss_mb),
    }


def latencies(ms: Sequence[float]) -> Told:
    """Count, median, 99th percentile and maximum."""
    p50, p99 = np.percentile(ms, [50, 99])
    return {
        "count": len(ms),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(ms), 2),
    }


def spin() -> float:
    """Milliseconds of a fixed piece of computing, the median of 20: says how busy or slow the machine is just now."""
    spent = []
    for _ in range(20):
        started = time.perf_counter()
        sum(range(200_000))
        spent.append(1000 * (time.perf_counter() - started))
    return round(float(np.median(spent)), 2)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
