"""Clients that are slow, leave, or come in crowds: they hold no thread, no place and no connection for long."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmsearch.engine import Engine
from mmsearch.server import logs
from mmsearch.server.options import Options
from mmsearch.types import Modality, NewItem, NewPart
from tests.abused import (
    ITEMS,
    SEARCH,
    connected,
    figure,
    is_idle,
    make_home,
    request,
    status_of,
    until,
)
from tests.serving import serving

OPTIONS = Options(head_timeout=0.4, body_timeout=0.4, send_timeout=0.4, rate=10**9, connections=150)
BODY = b'{"text":"red"}'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    home = make_home(folder)
    (folder / "media" / "large.txt").write_text("large " * 10)
    with Engine.open(home, create=False) as engine:
        part = NewPart(modality=Modality.TEXT, content="large")
        key = str(folder / "media" / "large.txt")
        engine.add([NewItem(key=key, modality=Modality.TEXT, parts=[part], is_file=True)])
    with open(key, "wb") as file:
        file.truncate(64 << 20)  # more than all buffers on the way take
    return home


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with serving(home, OPTIONS) as address:
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
        assert client.post(SEARCH, json={"text": "red"}).status_code == 200
        until(lambda: is_idle(client))


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side ends."""
    found = b""
    try:
        while piece := connection.recv(65_536):
            found += piece
    except ConnectionError:
        pass
    return found


def dripping(connection: socket.socket, data: bytes, pause: float = 0.03) -> None:
    """Send a byte at a time until it is cut off."""
    for byte in data:
        try:
            connection.sendall(bytes((byte,)))
        except OSError:
            return
        time.sleep(pause)
    raise AssertionError("nobody minded")


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_who_does_not_finish_the_head_is_left(http: httpx.Client, url: str, start: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(start)
        assert all_of(connection) == b""


def test_a_head_byte_by_byte_is_left_on_a_fresh_and_on_a_kept_connection(
    http: httpx.Client, url: str
) -> None:
    slow = b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"a" * 1000
    with connected(url) as connection:
        dripping(connection, slow)
    with connected(url) as connection:
        connection.sendall(request("/healthz", method="GET"))
        assert status_of(connection.recv(65_536)) == 200
        dripping(connection, slow)


def test_a_body_byte_by_byte_is_answered_408(http: httpx.Client, url: str) -> None:
    with connected(url) as connection:
        connection.sendall(request(SEARCH, b" " * 1000)[:-1000])
        thread = threading.Thread(target=dripping, args=(connection, b" " * 1000))
        thread.start()
        assert status_of(connection.recv(65_536)) == 408
        connection.close()
        thread.join()


def test_a_body_that_was_refused_is_not_waited_for(http: httpx.Client, url: str) -> None:
    with connected(url) as connection:
        connection.sendall(
            request(SEARCH, headers="X: y\r\n").replace(b"Content-Length: 0", b"Content-Length: 999999999999")
        )
        assert status_of(connection.recv(65_536)) == 413
        assert all_of(connection) == b"", "the connection is closed"


def test_endless_and_enormous_heads_are_refused(http: httpx.Client, url: str) -> None:
    for head in (
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 30_000,
    ):
        with connected(url) as connection:
            connection.sendall(head)
            assert status_of(all_of(connection)) in (0, 400)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"EVIL / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        b"GET / HTTP/1.1\nHost a\n\n",
        request(SEARCH, BODY).replace(b"Content-Length: 14", b"Content-Length: -1"),
        request(SEARCH, BODY).replace(b"Content-Length: 14", b"Content-Length: " + b"9" * 5000),
        request(SEARCH, BODY).replace(b"Content-Length: 14", b"Content-Length: 14\r\nContent-Length: 15"),
        request(SEARCH, BODY, headers="Transfer-Encoding: chunked\r\n"),
        request(SEARCH, b"ZZ\r\n" + BODY).replace(b"Content-Length: 18", b"Transfer-Encoding: chunked"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: repr(data[:16]),
)
def test_what_is_no_http_is_refused(http: httpx.Client, url: str, data: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(data)
        assert status_of(all_of(connection)) in (0, 400, 408)


def test_a_web_socket_is_not_opened(http: httpx.Client, url: str) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with connected(url) as connection:
        connection.sendall(request("/v1/socket", method="GET", headers=upgrade))
        assert status_of(connection.recv(65_536)) in (400, 403, 404)


def test_who_does_not_take_the_answer_is_left(http: httpx.Client, url: str, home: Path) -> None:
    items = http.get(ITEMS, params={"k": 1000}).json()["items"]
    number = next(item["id"] for item in items if item["key"].endswith("large.txt"))
    with connected(url) as connection:
        connection.sendall(request(f"{ITEMS}/{number}/file", method="GET"))
        until(lambda: figure(http, "mmsearch_requests_running") == 2)
        until(lambda: figure(http, "mmsearch_requests_running") == 1)
        assert len(all_of(connection)) < 64 << 20
    reading = http.get(f"{ITEMS}/{number}/file")
    assert len(reading.content) == 64 << 20, "who takes it gets it"


def test_clients_that_leave_at_any_time_hold_nothing(http: httpx.Client, url: str, home: Path) -> None:
    whole = request(SEARCH, BODY)
    for length in range(1, len(whole) + 1, 7):
        with connected(url) as connection:
            connection.sendall(whole[:length])
    for _ in range(20):
        connection = connected(url)
        connection.sendall(whole)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
        connection.close()
    until(lambda: is_idle(http))
    page = http.get("/metrics").text
    assert 'status="499"' in page
    assert 'status="500"' not in page


def test_requests_one_behind_the_other_are_answered_in_their_order(http: httpx.Client, url: str) -> None:
    colours = ["red", "blue", "green"] * 5
    with connected(url) as connection:
        for colour in colours:
            asked = {"text": colour, "k": 1, "modality": "image", "hybrid": False}
            connection.sendall(request(SEARCH, json.dumps(asked).encode()))
        connection.sendall(request("/healthz", method="GET", headers="Connection: close\r\n"))
        answers = all_of(connection).decode()
    assert [part.split(".png", 1)[0].rsplit("/", 1)[-1] for part in answers.split('"key":')[1:]] == colours


def test_a_crowd_is_served_and_what_is_too_much_is_turned_away(http: httpx.Client, url: str) -> None:
    idle = [connected(url) for _ in range(100)]
    assert http.get("/healthz").status_code == 200
    more = [connected(url) for _ in range(100)]
    answered = 0
    for connection in more:
        try:
            connection.sendall(request("/healthz", method="GET", headers="Connection: close\r\n"))
            answered += status_of(all_of(connection)) == 200
        except ConnectionError:
            continue
    assert answered < 100, "there is an end to it"
    for connection in (*idle, *more):
        connection.close()
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            statuses.extend(client.post(SEARCH, json={"text": "red"}).status_code for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 200


def test_work_that_takes_too_long_is_given_up_and_its_place_comes_back(home: Path, monkeypatch: Any) -> None:
    leave = threading.Event()
    results = Engine.results

    def slow(engine: Engine, query: Any) -> Any:
        leave.wait(20)
        return results(engine, query)

    with serving(home, Options(timeout=0.3, workers=2, waiting=1)) as url, httpx.Client(base_url=url) as http:
        monkeypatch.setattr(Engine, "results", slow)
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(httpx.post(url + SEARCH, json={}).status_code))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [503] * 5
        leave.set()
        monkeypatch.setattr(Engine, "results", results)
        until(lambda: http.post(SEARCH, json={}).status_code == 200)
        until(lambda: is_idle(http))


class Lines(logging.Handler):
    """Keeps what the server would write to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logs.Lines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


EVIL = '\r\n{"level":"error"}\x1b[2J\u2028\x85\x9b"\\'


def test_nothing_that_a_client_sends_begins_a_line_of_the_log(home: Path) -> None:
    kept = Lines()
    loggers = [logging.getLogger(name) for name in ("mmsearch", "uvicorn")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(kept)
        logger.setLevel("INFO")
    try:
        with serving(home, Options(log_queries=True, max_k=100)) as url, httpx.Client(base_url=url) as http:
            http.post(SEARCH, json={"text": EVIL})
            http.post("/v1/multi-search", json={"searches": [{"collection": "default", "text": EVIL}]})
            http.get(ITEMS, params={"key": EVIL})
            http.get("/v1/collections/" + "%0d%0a%7b%22level%22%3a1%7d%e2%80%a8")
            http.get("/%0d%0aevil", headers={"user-agent": "{}", "x-request-id": '{"level":1}'})
            http.post("/v1/collections", json={"name": EVIL, "model": EVIL})
            http.get(ITEMS, headers={"x-api-key": '"}{'})
            with connected(url) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\x0bb\x1b\xff\r\n\r\n")
                connection.recv(1000)
            logging.getLogger("mmsearch.server").warning("a surrogate %s", "\ud800")
            try:
                raise ValueError(EVIL)
            except ValueError:
                logging.getLogger("mmsearch.server").exception("failed with %s", EVIL)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)
    assert len(kept.lines) > 10
    for line in kept.lines:
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["level"] in ("info", "warning", "error")
    asked = [json.loads(line).get("queries") for line in kept.lines if "queries" in line]
    assert asked == [[EVIL], [EVIL]]


def test_headers_of_answers_hold_nothing_of_the_request(http: httpx.Client, url: str) -> None:
    for value in (b"a\tb", b"a b", b"\xff", b"x" * 65, b"a,b", b""):
        with connected(url) as connection:
            head = (
                b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: "
                + value
                + b"\r\n\r\n"
            )
            connection.sendall(head)
            answer = all_of(connection)
        assert status_of(answer) in (200, 400)
        assert not value or b"x-request-id: " + value not in answer
    found = httpx.get(url + "/%0d%0aSet-Cookie:%20a=b", follow_redirects=False)
    assert found.status_code == 404
    assert "set-cookie" not in found.headers
