"""Pictures of products by address: no way leads inside, and no slow host holds the server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from mmsearch.server.options import Options
from tests.abused import SEARCH, is_idle, make_home, png, png_bomb, until
from tests.serving import serving

pytest.importorskip("httpcore2")

ITEMS = "/v1/collections/default/items"
OPEN, SHUT = "127.0.0.2", "127.0.0.1"
"""Only the first of the two loopback addresses is one that may be asked."""


class Host(ThreadingHTTPServer):
    """A picture host. ``asked`` counts requests by path."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        self.asked: Counter[str] = Counter()
        self.leave = threading.Event()
        self.redirect = ""
        super().__init__((address, 0), Answer)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answer(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        if self.path.startswith("/later"):
            self.send_response(503)
            self.send_header("Retry-After", "50")
            self.end_headers()
            return
        data = png_bomb(8000, 8000) if self.path == "/bomb" else png("red")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.path.startswith("/slow"):
            self.server.leave.wait(20)
        with contextlib.suppress(OSError):
            self.wfile.write(data)


@contextlib.contextmanager
def host(address: str) -> Iterator[Host]:
    found = Host(address)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        found.leave.set()
        found.shutdown()
        thread.join()
        found.server_close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Host]:
    with host(OPEN) as found:
        yield found


@pytest.fixture(scope="module")
def inside() -> Iterator[Host]:
    with host(SHUT) as found:
        yield found


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = make_home(tmp_path_factory.mktemp("fetching"))
    options = Options(
        fetch_from=(f"{OPEN}/32",), fetch_timeout=2, timeout=8, rate=10**9, max_pixels=1_000_000
    )
    with serving(home, options) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
        assert client.post(SEARCH, json={"text": "red"}).status_code == 200
        until(lambda: is_idle(client))


def put(http: httpx.Client, address: str) -> str:
    """What the server has to say about a product with its picture there; empty if nothing."""
    item = {"key": "k", "title": "red", "images": [{"url": address}]}
    response = http.post(ITEMS, json={"items": [item]})
    assert response.status_code == 200, response.text
    told = response.json()
    assert not told["rejected"]
    return " ".join(note["note"] for note in told["notes"])


def test_a_picture_of_a_host_that_may_be_asked_is_fetched_and_shown(
    http: httpx.Client, outside: Host
) -> None:
    assert put(http, f"http://{OPEN}:{outside.port}/red.png") == ""
    parts = http.get(ITEMS, params={"key": "k"}).json()["items"][0]["parts"]
    (picture,) = (part for part in parts if "thumbnail" in part)
    assert picture["url"] == f"http://{OPEN}:{outside.port}/red.png"
    assert not any("url" in part for part in parts if part is not picture)
    shown = http.get("/" + picture["thumbnail"])
    assert shown.headers["content-type"] == "image/webp"


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "①②⑦.⓪.⓪.①",
    ],
)
def test_no_way_of_writing_an_inner_address_reaches_it(http: httpx.Client, inside: Host, name: str) -> None:
    before = inside.asked.total()
    assert put(http, f"http://{name}:{inside.port}/secret") != ""
    assert inside.asked.total() == before


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "//127.0.0.1:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "http://user@127.0.0.1:{port}/secret",
        "http://{open}@127.0.0.1:{port}/secret",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/_GET",
        "ftp://127.0.0.1/secret",
        "data:image/png;base64,AAAA",
        "http://",
        "http://[",
        "/away",
    ],
)
def test_a_redirect_leads_no_further_than_the_address_itself(
    http: httpx.Client, outside: Host, inside: Host, target: str
) -> None:
    outside.redirect = target.format(port=inside.port, open=OPEN)
    before = inside.asked.total()
    assert put(http, f"http://{OPEN}:{outside.port}/away") != ""
    assert inside.asked.total() == before


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "javascript:alert(1)",
        "/etc/passwd",
        "http://",
        "http:///a.png",
        "http://user:secret@example.com/a.png",
        "http://a b/",
        "http://" + "a" * 300 + ".example/",
        "http://[::1/",
        "http://example.com:99999/",
        "http://127.0.0.1%00.example/",
        "http://127.0.0.1\r\nX: y/",
        "http://\ud7ff\ufffe/",
    ],
)
def test_what_is_no_address_is_not_asked(http: httpx.Client, address: str) -> None:
    item = {"key": "k2", "title": "red", "images": [{"url": address}]}
    response = http.post(ITEMS, json={"items": [item]})
    assert response.status_code in (200, 422)
    assert response.status_code == 422 or response.json()["notes"]


def test_a_name_that_means_another_address_a_moment_later_gains_nothing(
    http: httpx.Client, outside: Host, inside: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved once for a connection; each later connection is looked at again."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def stub(name: Any, port: Any, *more: Any, **named: Any) -> Any:
        if name == "both.test":
            found = [OPEN, SHUT]
        elif name == "turning.test":
            asked.append(name)
            found = [OPEN] if len(asked) == 1 else [SHUT]
        else:
            return real(name, port, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    before = inside.asked.total()
    assert "public" in put(http, f"http://both.test:{outside.port}/red.png"), "every address of a name counts"
    assert put(http, f"http://turning.test:{outside.port}/turned.png") == ""
    assert outside.asked["/turned.png"] == 1
    assert asked == ["turning.test"]
    assert "public" in put(http, f"http://turning.test:{outside.port}/again.png")
    parts = http.get(ITEMS, params={"key": "k"}).json()["items"][0]["parts"]
    for part in parts:
        if "thumbnail" in part:  # made of the address once more: it means the inside now
            assert http.get("/" + part["thumbnail"], params={"size": 1280}).status_code == 415
    assert outside.asked["/again.png"] == 0
    assert inside.asked.total() == before


def test_a_bomb_by_address_is_not_unpacked(http: httpx.Client, outside: Host) -> None:
    assert "bomb" in put(http, f"http://{OPEN}:{outside.port}/bomb")


def test_slow_hosts_and_those_that_say_later_hold_no_write_for_long(
    http: httpx.Client, outside: Host
) -> None:
    """All pictures of a request have ``fetch_timeout`` together: a write behind them is answered before ``timeout``."""
    addresses = [f"http://{OPEN}:{outside.port}/{name}?{n}" for n in range(20) for name in ("slow", "later")]
    items = [{"key": f"s{n}", "title": "blue", "images": [{"url": one}]} for n, one in enumerate(addresses)]
    told: list[httpx.Response] = []
    outside.leave.clear()
    thread = threading.Thread(target=lambda: told.append(http.post(ITEMS, json={"items": items})))
    thread.start()
    with httpx.Client(base_url=http.base_url, timeout=30) as other:
        assert other.post(SEARCH, json={"text": "red"}).status_code == 200
        change = {"updates": [{"key": "k", "attributes": {"price": 1}}]}
        assert other.patch(ITEMS, json=change).status_code == 200
    thread.join()
    assert told[0].status_code == 200
    assert len(told[0].json()["notes"]) == len(items), json.dumps(told[0].json())[:500]
    outside.leave.set()
