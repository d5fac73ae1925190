"""A server from its start to its end: ready means ready, and the end loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.pipeline import index
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.engine import Engine
from mmsearch.server.keys import Keys
from mmsearch.server.warming import warm
from mmsearch.types import Modality
from tests.abused import ITEMS, SEARCH, connected, make_home, request, status_of, until

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}

FIRST_REQUESTS = """
import json, sys
from pathlib import Path
import httpx
import mmsearch.columns, mmsearch.fulltext, mmsearch.view
import mmsearch.encoders.onnx as onnx
from mmsearch.server.options import Options
from tests.abused import SEARCH, png
from tests.serving import serving

home, loaded = Path(sys.argv[1]), []

def counted(owner, name):
    inner = getattr(owner, name)
    def outer(*arguments, **named):
        loaded.append(name)
        return inner(*arguments, **named)
    setattr(owner, name, outer)

for owner, name in (
    (mmsearch.view, "read_matrix"),
    (mmsearch.fulltext, "read"),
    (mmsearch.columns.Columns, "_read"),
    (onnx, "_load"),
):
    counted(owner, name)
with serving(home, Options()) as url, httpx.Client(base_url=url, timeout=30) as http:
    http.get("/healthz")
    warmed, before = len(loaded), set(sys.modules)
    loaded.clear()
    asked = {
        "text": "red thinks", "where": "width > 1", "highlight": True, "explain": True, "diversity": 0.2,
        "facets": [{"attribute": "format"}, {"attribute": "width", "ranges": [[None, 20], [20, None]]}],
        "group_by": "format",
    }
    for body in (asked, {"sort": [{"attribute": "width"}]}, {"text": "blue", "modality": "image", "hybrid": False}):
        assert http.post(SEARCH, json=body).status_code == 200
    files = {"files": ("a.png", png(), "image/png")}
    assert http.post(SEARCH + "/files", files=files).status_code == 200
    assert http.get(SEARCH.replace("search", "suggest"), params={"text": "re"}).status_code == 200
    print(json.dumps({"warmed": warmed, "loaded": loaded, "modules": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("life"))


def test_a_first_request_loads_nothing(home: Path) -> None:
    """Neither vectors, words, attributes, models nor code: all of that is there when the server says it is ready."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_REQUESTS, str(home)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["warmed"] > 5
    assert told["loaded"] == []
    assert [name for name in told["modules"] if not name.startswith(("httpx", "encodings"))] == []


@pytest.mark.parametrize(
    ("suffixes", "loaded"),
    [
        ((".txt",), {Modality.TEXT}),
        ((".txt", ".png"), {Modality.TEXT, Modality.IMAGE}),
        ((".png", ".wav"), {Modality.TEXT, Modality.IMAGE, Modality.AUDIO}),
    ],
)
def test_what_is_loaded_is_what_the_collection_holds(
    tmp_path: Path, suffixes: tuple[str, ...], loaded: set[Modality]
) -> None:
    make_home(tmp_path)
    with Engine.open(tmp_path / "other", model=tmp_path / "model") as engine:
        index(engine, [path for path in (tmp_path / "media").iterdir() if path.suffix in suffixes])
    with Engine.open(tmp_path / "other", create=False) as engine:
        warm(engine)
        assert isinstance(engine.encoder, OnnxEncoder)
        assert engine.encoder._sessions.keys() == loaded


class Served:
    """A ``mmsearch serve`` of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmsearch", "serve", "--port", "0", "--home", str(home), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self.url != "" or self.process.poll() is not None, 60)
        assert self.process.poll() is None, "\n".join(self.lines)
        until(lambda: httpx.get(self.url + "/readyz").status_code == 200, 60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
        self.process.stderr.close()

    @property
    def url(self) -> str:
        told = [line for line in list(self.lines) if "running on http" in line]
        return "http://" + told[0].split("http://", 1)[1].split(" ", 1)[0] if told else ""

    def ended(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        return code


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(make_home(tmp_path), "--workers", "2")
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.ended()


def writes_begun(url: str) -> bool:
    return re.search(r'mmsearch_work\{pool="write"\} [1-9]', httpx.get(url + "/metrics").text) is not None


def test_sigterm_ends_it_when_all_is_answered_and_written(served: Served, tmp_path: Path) -> None:
    items = [
        {"key": f"k{n}", "title": f"red thing {n}", "description": "blue and green. " * 200}
        for n in range(200)
    ]
    told: dict[str, list[Any]] = {"write": [], "search": [], "refused": []}
    begun = threading.Barrier(10)

    def write() -> None:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            assert http.get("/healthz").status_code == 200
            begun.wait()
            told["write"].append(http.post(ITEMS, json={"items": items}).json())

    def search() -> None:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            assert http.get("/healthz").status_code == 200
            begun.wait()
            for _ in range(200):
                try:
                    told["search"].append(http.post(SEARCH, json={"text": "red"}).status_code)
                except httpx.TransportError:
                    told["refused"].append(1)  # nothing new is taken any more
                    return

    threads = [threading.Thread(target=write), *(threading.Thread(target=search) for _ in range(8))]
    for thread in threads:
        thread.start()
    idle = connected(served.url)
    kept = connected(served.url)
    kept.sendall(request("/healthz", method="GET"))
    assert status_of(kept.recv(65_536)) == 200
    begun.wait()
    until(lambda: len(told["search"]) > 8)
    until(lambda: bool(told["write"]) or writes_begun(served.url))
    served.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert served.ended() == 0
    idle.close()
    kept.close()
    assert told["write"] == [{"added": 200, "updated": 0, "unchanged": 0, "rejected": [], "notes": []}]
    assert set(told["search"]) == {200}
    routes = [json.loads(line).get("route", "") for line in served.lines]
    begun_there = sum(route.endswith("/search") for route in routes)
    assert begun_there == len(told["search"]), "whatever was begun was answered"
    with Engine.open(tmp_path / "home", create=False) as engine:
        assert len([item for item in engine.items() if item.key.startswith("k")]) == 200
        assert engine.check() == []
    for line in served.lines:
        assert json.loads(line)["level"] in ("info", "warning"), line


def test_a_public_server_with_a_name_still_tells_this_machine_whether_it_is_well(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    Keys(home).create("me", "search")
    found = Served(home, "--host", "0.0.0.0", "--allow-host", "Shop.Example")
    port = httpx.URL(found.url).port
    named = {"127.0.0.1": 200, "localhost": 200, "shop.example": 200, "other.example": 421}
    for name, status in named.items():
        asked = httpx.get(f"http://127.0.0.1:{port}/readyz", headers={"Host": f"{name}:{port}"})
        assert asked.status_code == status, name
    found.process.send_signal(signal.SIGTERM)
    assert found.ended() == 0


def test_a_port_that_is_taken_is_told_in_a_line(served: Served, tmp_path: Path) -> None:
    port = str(httpx.URL(served.url).port)
    command = [sys.executable, "-m", "mmsearch", "serve", "--home", str(tmp_path / "home"), "--port", port]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=60, check=False
    )
    assert ran.returncode == 2
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("mmsearch: ")
    assert port in last
    assert "--port" in last
    assert "Traceback" not in ran.stderr
    assert httpx.get(served.url + "/healthz").status_code == 200


def test_ctrl_c_ends_it_without_a_traceback(served: Served) -> None:
    served.process.send_signal(signal.SIGINT)
    assert served.ended() in (0, 130)
    assert not [line for line in served.lines if "Traceback" in line]


def test_what_other_libraries_complain_about_is_a_line_of_json_too(served: Served) -> None:
    # python-multipart logs this one under its own name, and would write it as plain text.
    broken = b'--x\r\nContent-Disposition: form-data; name="a"\rb: c\r\n\r\n1\r\n--x--\r\n'
    answer = httpx.post(
        served.url + SEARCH + "/files",
        content=broken,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code in (400, 422)
    with connected(served.url) as connection:
        connection.sendall(b"no http\r\n\r\n")
        assert status_of(connection.recv(1000)) == 400
    served.process.send_signal(signal.SIGTERM)
    assert served.ended() == 0
    assert {json.loads(line)["logger"] for line in served.lines} >= {"uvicorn.error", "mmsearch.access"}
