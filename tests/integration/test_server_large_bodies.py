"""Large bodies: nobody waits for them, strangers have none read, and none of them costs more than its size."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from mmsearch.server import bodies
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from mmsearch.server.schemas import ItemsBody, UpdatesBody
from tests.abused import ITEMS, SEARCH, connected, make_home, png, request, status_of
from tests.serving import serving

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def http(home: Path) -> Iterator[httpx.Client]:
    with serving(home) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_a_large_body_says_what_a_small_one_says(http: httpx.Client) -> None:
    filler = " ".join(["red"] * 40_000)[:90_000]
    pictures = [{"base64": base64.b64encode(png("blue")).decode()}]

    def item(key: str) -> dict[str, Any]:
        return {
            "key": key,
            "title": "large thing",
            "images": pictures,
            "attributes": {"n": 7, "sizes": ["S"]},
        }

    assert len(json.dumps(item("a"))) < bodies.LARGE < len(filler)
    told = http.post(ITEMS, json={"items": [item("a"), {**item("b"), "description": filler}]}).json()
    assert (told["added"], told["rejected"]) == (2, [])
    small, large = (
        http.get(ITEMS, params={"key": key}).json()["items"][0]["attributes"] for key in ("a", "b")
    )
    assert small == large == {"n": 7, "sizes": ["S"]}


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ('{"items": [{"key": "a", "price": 1}]', "items.0.price"),
        ('{"items": [{"key": 7}]', "items.0.key"),
        ('{"items": []', "items"),
        ('{"item": []', "items"),
    ],
)
def test_what_is_wrong_is_told_by_field_however_large_the_body(
    http: httpx.Client, wrong: str, field: str, size: int
) -> None:
    answer = http.post(ITEMS, content=wrong + " " * size + "}", headers=JSON)
    assert answer.status_code == 422
    told = answer.json()
    assert told["errors"][0]["field"] == field
    assert told["code"] == "Invalid"


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "large"])
@pytest.mark.parametrize(
    "text", ['{"text": "a', '{"text": NaN}', "{'text': 'a'}", '{"text": "\\ud800"}', "[" * 2000, "nonsense"]
)
def test_what_is_no_json_is_told_as_such(http: httpx.Client, text: str, size: int) -> None:
    answer = http.post(SEARCH, content=text + " " * size, headers=JSON)
    assert answer.status_code == 422
    assert "not JSON" in answer.json()["detail"]


@pytest.mark.parametrize("piece", ["[],", '{"a":1},', '"a",', "1,"])
def test_a_body_of_millions_of_little_things_is_refused(http: httpx.Client, piece: str) -> None:
    body = '{"terms":[' + piece * ((20 << 20) // len(piece)) + "[]]}"
    answer = http.post(SEARCH, content=body, headers=JSON)
    assert (answer.status_code, "too many values" in answer.json()["detail"]) == (413, True)


def test_the_thread_that_answers_everybody_reads_no_large_body(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[str] = set()

    def read(body: bytes) -> Any:
        readers.add(threading.current_thread().name)
        return orjson.loads(body)

    monkeypatch.setattr(bodies, "_loads", read)
    big = {"items": [{"key": str(n), "description": "words, " * 2000} for n in range(100)]}
    assert http.post("/v1/collections/nobody/items", json=big).status_code == 404
    assert {name.partition("_")[0] for name in readers} == {"bodies"}


@pytest.mark.parametrize("name", ["items", "updates"])
def test_others_have_their_turn_while_a_large_body_is_checked(name: str) -> None:
    """Pydantic lets no other thread in as long as it needs no line of Python: here it needs one for each item."""
    model = ItemsBody if name == "items" else UpdatesBody
    values = {f"attribute {n}": f"value {n}" for n in range(300)}
    body = {name: [{"key": str(n), "attributes": values} for n in range(1000)]}
    begun = threading.Event()

    def check() -> None:
        begun.set()
        model.model_validate(body)

    thread = threading.Thread(target=check)
    thread.start()
    begun.wait()
    turns = 0
    while thread.is_alive():
        time.sleep(0)
        turns += 1
    assert turns > 2, "one is what it takes to see that the thread has ended"


def test_of_a_stranger_nothing_is_read_and_the_refusal_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path)
    _, secret = Keys(home).create("shop", "search", rate=4)
    read: list[int] = []
    monkeypatch.setattr(bodies, "_loads", lambda body: read.append(len(body)))
    large = b'{"items":[' + b"[]," * (5 << 20) + b"[]]}"
    with serving(home, Options(needs_key=True)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(3):  # on the same connection: nothing of the body is left in it
            assert client.post(ITEMS, content=large, headers=JSON).status_code == 401
        mine = {**JSON, "authorization": f"Bearer {secret}"}
        assert client.post(ITEMS, content=large, headers=mine).status_code == 403
        assert client.post(ITEMS, content=b"{}", headers=JSON).status_code == 401
        form = {"files": ("a.png", png(), "image/png")}
        assert client.post(f"{SEARCH}/files", files=form).status_code == 401
        assert read == []
        statuses = [client.post(SEARCH, content=b"x" * 70_000, headers=mine).status_code for _ in range(4)]
        assert statuses[-1] == 429
        assert sum(read) < 4 * 70_000


def test_a_request_counts_once_against_its_rate(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    _, secret = Keys(home).create("shop", "search", rate=5)
    with serving(home) as url, httpx.Client(base_url=url, headers={"x-api-key": secret}) as client:
        statuses = [client.post(SEARCH, json={"text": "red"}).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]


def test_a_stranger_that_drips_its_body_is_left(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    answer = b""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(home, Options(needs_key=True, body_timeout=0.5)))
        connection = stack.enter_context(connected(url))
        connection.settimeout(0.02)
        connection.sendall(request(ITEMS, headers="X-None: 1\r\n").replace(b"Length: 0", b"Length: 100000"))
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b" ")
                with contextlib.suppress(socket.timeout):
                    if not (piece := connection.recv(65_536)):
                        break
                    answer += piece
    assert status_of(answer) == 408
