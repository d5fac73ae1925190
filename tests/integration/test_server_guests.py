"""Who may see what: keys of other collections on every route, cookies, other hosts and sites, rates, files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.pipeline import index
from mmsearch.engine import Engine
from mmsearch.server.app import create_app
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from tests.abused import DEFAULT, ITEMS, SEARCH, connected, make_home, png, request, status_of
from tests.serving import serving

OTHERS = "/v1/collections/others"
DOCUMENT = create_app(Path("nowhere")).openapi()
OF_COLLECTION = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if "{collection}" in path
]
BODIES: dict[str, Any] = {
    "/items": {"items": [{"key": "a", "title": "red"}], "updates": [{"key": "a", "attributes": {"a": 1}}]},
    "/items/remove": {"keys": ["a"]},
    "/similar": {"like": [1]},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guests")
    home = make_home(folder)
    other = folder / "other"
    other.mkdir()
    (other / "secret.png").write_bytes(png("blue"))
    with Engine.open(home, collection="others", model=folder / "model") as engine:
        index(engine, [other])
    return home


@pytest.fixture(scope="module")
def keys(home: Path) -> dict[str, str]:
    made = Keys(home)
    return {
        "mine": made.create("mine", "admin", collections=["default", "mine"])[1],
        "reader": made.create("reader", "search")[1],
        "all": made.create("all", "admin")[1],
    }


@pytest.fixture(scope="module")
def url(home: Path, keys: dict[str, str]) -> Iterator[str]:
    with serving(home, Options(rate=10**9)) as address:
        yield address


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, headers={"authorization": f"Bearer {key}"})


@pytest.mark.parametrize(("method", "path"), OF_COLLECTION, ids=lambda value: value)
def test_a_key_of_one_collection_does_nothing_in_another(
    url: str, keys: dict[str, str], method: str, path: str
) -> None:
    tail = path.removeprefix("/v1/collections/{collection}")
    where = "/v1/collections/{}" + tail.replace("{item}", "1").replace("{part}", "1")
    body: dict[str, Any] | None = None
    if method in ("POST", "PUT", "PATCH"):
        name = "updates" if method == "PATCH" else "items"
        body = {name: BODIES[tail][name]} if tail == "/items" else BODIES.get(tail, {})
    more: dict[str, Any] = {"json": body} if body is not None else {}
    if tail.endswith("/files"):
        more = {"files": {"files": ("a.png", png(), "image/png")}}
    with client(url, keys["mine"]) as http:
        for name in ("others", "nowhere", "Default", "default%00", "default%20"):
            answer = http.request(method, where.format(name), **more)
            assert answer.status_code == 403, (name, answer.text)
            assert "secret" not in answer.text
    assert httpx.request(method, url + where.format("default"), **more).status_code == 401
    writes = tail in ("/items", "/items/remove") and method != "GET"
    if writes or method == "DELETE" or tail == "/settings":
        with client(url, keys["reader"]) as http:
            assert http.request(method, where.format("default"), **more).status_code == 403


def test_a_key_of_one_collection_neither_sees_nor_makes_others(
    url: str, home: Path, keys: dict[str, str]
) -> None:
    with client(url, keys["mine"]) as http:
        assert [one["name"] for one in http.get("/v1/collections").json()["collections"]] == ["default"]
        figures = http.get("/metrics").text
        assert 'collection="default"' in figures
        assert "others" not in figures
        model = str(home.parent / "model")
        assert http.post("/v1/collections", json={"name": "new", "model": model}).status_code == 403
        searches = [{"collection": "default", "text": "red"}, {"collection": "others", "text": "red"}]
        assert http.post("/v1/multi-search", json={"searches": searches}).status_code == 403
        assert http.post("/v1/multi-search", json={"searches": searches[:1]}).status_code == 200
        gone = http.get("/v1/collections/mine")
        assert gone.status_code == 404
        assert str(home) not in gone.text
        assert "others" not in gone.text
    with client(url, keys["reader"]) as http:
        assert http.post("/v1/collections", json={"name": "new", "model": model}).status_code == 403


def test_ids_of_another_collection_are_not_found(url: str, keys: dict[str, str]) -> None:
    with client(url, keys["all"]) as http:
        (secret,) = http.get(OTHERS + "/items").json()["items"]
        number, part = secret["id"], secret["parts"][0]["id"]
        for path in (
            f"{ITEMS}/{number}",
            f"{ITEMS}/{number}/file",
            f"{ITEMS}/{number}/parts/{part}/thumbnail",
        ):
            assert http.get(path).status_code == 404
        mine = http.get(ITEMS).json()["items"][0]["id"]
        assert http.get(f"{ITEMS}/{mine}/parts/{part}/thumbnail").status_code == 404
        assert http.delete(f"{ITEMS}/{number}").status_code == 404
        for body in ({"terms": [{"item": number}]}, {"examples": {"like": [secret["key"]]}}):
            assert http.post(SEARCH, json=body).status_code == 404
        assert http.post(DEFAULT + "/similar", json={"like": [number]}).status_code == 404
        cursor = http.post(SEARCH, json={"k": 1}).json()["cursor"]
        page = http.post(OTHERS + "/search", json={"k": 1, "cursor": cursor})
        assert page.status_code in (200, 422)
        assert "media" not in page.text


@pytest.mark.parametrize(
    "secret", ["x", "mms_", "mms__", "mms_x_y", "Bearer", "é", "\x80\xff", "a" * 60_000, "mms_' OR 1=1 --_x"]
)
def test_what_is_no_key_is_refused(url: str, secret: str) -> None:
    headers = {b"authorization": b"Bearer " + secret.encode("latin-1")}
    assert httpx.post(url + SEARCH, json={"text": "red"}, headers=headers, timeout=30).status_code == 401
    headers = {b"x-api-key": secret.encode("latin-1")}
    assert httpx.post(url + SEARCH, json={"text": "red"}, headers=headers, timeout=30).status_code == 401


def test_a_cookie_reads_and_never_writes(url: str, keys: dict[str, str]) -> None:
    with httpx.Client(base_url=url, timeout=30, headers={"cookie": f"mmsearch_key={keys['all']}"}) as http:
        assert http.get(ITEMS).status_code == 200
        for method, path in (
            ("POST", SEARCH),
            ("DELETE", OTHERS),
            ("DELETE", ITEMS + "/1"),
            ("PATCH", ITEMS),
            ("PUT", DEFAULT + "/settings"),
        ):
            more: dict[str, Any] = {} if method == "DELETE" else {"json": {}}
            assert http.request(method, path, **more).status_code in (401, 422), path
        assert http.get(OTHERS).status_code == 200


def test_an_address_may_hold_a_key_that_only_reads(url: str, keys: dict[str, str]) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        assert http.get(ITEMS).status_code == 401
        found = http.get(ITEMS, params={"api_key": keys["reader"]})
        part = found.json()["items"][0]["parts"][0]["thumbnail"]
        assert http.get("/" + part, params={"api_key": keys["reader"]}).status_code == 200
        assert http.get("/" + part, params={"api_key": keys["reader"] + "x"}).status_code == 401
        assert http.post(SEARCH, json={"text": "red"}, params={"api_key": keys["reader"]}).status_code == 401
        refused = http.get(ITEMS, params={"api_key": keys["all"]})
        assert refused.status_code == 403
        assert "only a key of scope search" in refused.json()["detail"]
        assert keys["all"] not in refused.text


def test_a_method_cannot_be_changed_by_a_header_or_a_field(url: str, keys: dict[str, str]) -> None:
    with client(url, keys["all"]) as http:
        for name in ("x-http-method-override", "x-http-method", "x-method-override"):
            assert http.get(OTHERS, headers={name: "DELETE"}, params={"_method": "DELETE"}).status_code == 200
        assert http.get(OTHERS).status_code == 200
        for method in ("TRACE", "CONNECT", "PROPFIND", "OPTIONS"):
            assert http.request(method, OTHERS).status_code in (400, 404, 405)
        assert 'method="PROPFIND"' not in http.get("/metrics").text


def test_when_the_last_key_is_taken_away_the_door_stays_shut(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    key, secret = Keys(home).create("only", "search")
    with serving(home) as url:
        assert httpx.get(url + ITEMS, headers={"x-api-key": secret}).status_code == 200
        Keys(home).revoke(key.id)
        assert httpx.get(url + ITEMS, headers={"x-api-key": secret}).status_code == 401
        assert httpx.get(url + ITEMS).status_code == 401
        (home / "keys.json").unlink()
        assert httpx.get(url + ITEMS).status_code == 401
    with serving(home, Options(needs_key=True)) as url:
        assert httpx.get(url + ITEMS).status_code == 401
    with serving(home) as url:
        assert httpx.get(url + ITEMS).status_code == 200


def test_each_key_has_its_own_rate(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    slow, quick = (Keys(home).create(name, "search", rate=rate)[1] for name, rate in (("a", 3), ("b", 100)))
    with serving(home) as url:

        def ask(key: str) -> int:
            return httpx.get(url + ITEMS, headers={"x-api-key": key}).status_code

        assert [ask(slow) for _ in range(5)] == [200, 200, 200, 429, 429]
        assert [ask(quick) for _ in range(5)] == [200] * 5
        assert httpx.get(url + "/healthz").status_code == 200


def test_host_headers_that_lie_are_refused(home: Path) -> None:
    with serving(home, Options(hosts=("127.0.0.1",))) as url:

        def status(head: str) -> int:
            with connected(url) as connection:
                connection.sendall(head.encode("latin-1") + b"Connection: close\r\n\r\n")
                return status_of(connection.recv(65_536))

        assert status("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n") == 200
        assert status("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:80\r\n") == 200
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "",
            "[::1",
            "127.0.0.1:x:y",
        ):
            assert status(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n") == 421, host
        assert status("GET /healthz HTTP/1.1\r\n") == 421
        assert status("GET /healthz HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1\r\n") == 400
        assert status("GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n") == 421
        assert status("GET /healthz HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: 127.0.0.1\r\n") == 421


def test_sites_may_ask_before_only_if_they_are_allowed(home: Path) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with serving(home, Options(origins=("https://shop.example",))) as url:
        good = httpx.options(url + SEARCH, headers=asked | {"origin": "https://shop.example"})
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-credentials" not in good.headers
        for origin in (
            "https://evil.example",
            "https://shop.example.evil.example",
            "null",
            "http://shop.example",
        ):
            bad = httpx.options(url + SEARCH, headers=asked | {"origin": origin})
            assert bad.status_code == 400
            assert "access-control-allow-origin" not in bad.headers
    with serving(home) as url:
        none = httpx.options(url + SEARCH, headers=asked | {"origin": "https://shop.example"})
        assert none.status_code == 405
        assert not [name for name in none.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/..\\..\\..\\etc\\passwd",
        "//etc/passwd",
        "/%00",
        "/app.js%00.html",
        "/....//....//etc/passwd",
        "/%252e%252e/etc/passwd",
        "/%c0%ae%c0%ae/etc/passwd",
        "/../server/keys.py",
        "/" + "a" * 5000,
        "/v1/collections/..%2f..%2fkeys.json/items",
        ITEMS + "/..%2f1/file",
        ITEMS + "/1/parts/..%2f..%2fkeys/thumbnail",
        ITEMS + "/1%00/file",
    ],
)
def test_no_path_leads_out_of_the_page(url: str, keys: dict[str, str], path: str) -> None:
    head = f"x-api-key: {keys['all']}\r\nConnection: close\r\n"
    with connected(url) as connection:
        connection.sendall(request(path, method="GET", headers=head))
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    assert status_of(answer) in (400, 404, 422), answer[:200]
    assert b"root:" not in answer
    assert b"digest" not in answer


def test_links_lead_out_of_no_indexed_folder(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (tmp_path / "secret.png").write_bytes(png("white"))
    (tmp_path / "media2").mkdir()
    (tmp_path / "media2" / "secret.txt").write_text(
        "a folder whose name begins like the one that was indexed"
    )
    (home / "keys.json").write_text("[]")
    with serving(home) as url, httpx.Client(base_url=url, timeout=30) as http:
        items = http.get(ITEMS).json()["items"]
        victim = next(item for item in items if item["key"].endswith("red.png"))
        path, kept = Path(victim["key"]), Path(victim["key"]).read_bytes()
        shown = f"{ITEMS}/{victim['id']}/parts/{victim['parts'][0]['id']}/thumbnail"
        for target in (
            tmp_path / "secret.png",
            home / "keys.json",
            home / "catalog.db",
            tmp_path / "media2" / "secret.txt",
        ):
            path.unlink()
            path.symlink_to(target)
            assert http.get(f"{ITEMS}/{victim['id']}/file").status_code == 404
            assert http.get(shown).status_code == 404
        path.unlink()
        os.mkfifo(path)  # nobody writes into it: opening it would wait for ever
        assert http.get(f"{ITEMS}/{victim['id']}/file").status_code == 404
        assert http.get(shown).status_code == 404
        path.unlink()
        path.mkdir()
        assert http.get(f"{ITEMS}/{victim['id']}/file").status_code == 404
        path.rmdir()
        path.write_bytes(kept)
        assert http.get(f"{ITEMS}/{victim['id']}/file").content == kept
        assert http.get(shown).status_code == 200
        folder = path.parent
        folder.rename(tmp_path / "elsewhere")
        folder.write_bytes(b"now a file")
        assert http.get(f"{ITEMS}/{victim['id']}/file").status_code == 404


def test_file_names_cannot_add_headers(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    odd = 'a"; x="\r\nX-Evil: 1\r\n\r\n<b>é\u202e.txt'
    (tmp_path / "media" / odd).write_text("all about odd things")
    with Engine.open(home, create=False) as engine:
        index(engine, [tmp_path / "media"])
        item = next(item for item in engine.items() if "X-Evil" in item.key)
    with serving(home) as url:
        answer = httpx.get(f"{url}{ITEMS}/{item.id}/file")
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    assert answer.headers["content-type"].startswith("text/plain")
    assert "sandbox" in answer.headers["content-security-policy"]
