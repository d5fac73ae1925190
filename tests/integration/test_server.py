"""The HTTP server as its clients meet it: over a real socket, on a real catalog."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest

from indexer.pipeline import index
from mmsearch.engine import Engine
from mmsearch.errors import ItemError
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from mmsearch.server.pace import Pace
from mmsearch.server.schemas import UpdateBody
from mmsearch.server.writing import Update, Updates
from tests.colour_model import save_colour_model
from tests.serving import serving
from tests.sounds import save_sound
from tests.toy import COLOURS, tone

SEARCH = "/v1/collections/default/search"


def png(colour: str, size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    media = folder / "media"
    media.mkdir()
    for colour in COLOURS:
        (media / f"{colour}.png").write_bytes(png(colour))
        (media / f"{colour}.txt").write_text(f"all about {colour} things")
    (folder / "secret.txt").write_text("not indexed")
    with Engine.open(folder / "home", model=save_colour_model(folder / "model")) as engine:
        index(engine, [media])
    return folder / "home"


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with serving(home, Options(max_body=200_000, max_pixels=50_000, max_k=50)) as address:
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def hits(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return list(response.json()["hits"])


def names(response: httpx.Response) -> list[str]:
    return [Path(hit["item"]["key"]).name for hit in hits(response)]


def test_words_find_the_picture_with_the_cosine_as_score(http: httpx.Client, home: Path) -> None:
    found = hits(http.post(SEARCH, json={"text": "red", "modality": "image", "hybrid": False, "k": 3}))
    with Engine.open(home, create=False) as engine:
        vectors = {item.title: engine.vectors(item)[0] for item in engine.items() if item.modality == "image"}
        query = engine.encoder.encode_texts(["red"])[0]
    expected = sorted(((float(vector @ query), title) for title, vector in vectors.items()), reverse=True)[:3]
    assert [hit["item"]["title"] for hit in found] == [title for _, title in expected]
    np.testing.assert_allclose([hit["score"] for hit in found], [score for score, _ in expected], atol=2e-3)


def test_a_picture_finds_itself_as_base64_and_as_a_file(http: httpx.Client) -> None:
    data = base64.b64encode(png("blue")).decode()
    terms = [{"image": {"base64": data}}]
    by_text = http.post(SEARCH, json={"terms": terms, "modality": "image", "k": 1})
    by_url = http.post(
        SEARCH,
        json={"terms": [{"image": {"base64": "data:image/png;base64," + data}}], "modality": "image", "k": 1},
    )
    query = json.dumps({"modality": "image", "k": 1})
    by_file = http.post(
        SEARCH + "/files", data={"query": query}, files={"files": ("x.png", png("blue"), "image/png")}
    )
    assert names(by_text) == names(by_url) == names(by_file) == ["blue.png"]


def test_a_recording_is_a_term(http: httpx.Client, tmp_path: Path) -> None:
    path = save_sound(tmp_path / "tone.wav", tone("green", seconds=1.0))
    query = json.dumps(
        {"terms": [{"audio": {"upload": "tone.wav"}, "weight": 2}], "modality": "image", "k": 1}
    )
    files = {"files": ("tone.wav", path.read_bytes(), "audio/wav")}
    assert names(http.post(SEARCH + "/files", data={"query": query}, files=files)) == ["green.png"]


def test_several_searches_in_one_request_are_those_searches(http: httpx.Client) -> None:
    bodies = [{"text": colour, "modality": "image", "hybrid": False, "k": 2} for colour in ("red", "blue")]
    told = http.post(
        "/v1/multi-search", json={"searches": [{**one, "collection": "default"} for one in bodies]}
    )
    assert told.status_code == 200
    assert [found["hits"] for found in told.json()["results"]] == [
        hits(http.post(SEARCH, json=one)) for one in bodies
    ]


def test_encode_gives_the_vectors_of_the_encoder(http: httpx.Client, home: Path) -> None:
    told = http.post("/v1/collections/default/encode", json={"texts": ["red blue", "green"]}).json()
    with Engine.open(home, create=False) as engine:
        np.testing.assert_allclose(
            told["texts"], engine.encoder.encode_texts(["red blue", "green"]), atol=1e-6
        )


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (SEARCH, {"text": "red", "tekst": 1}, 422),
        (SEARCH, {"text": "red", "k": 51}, 422),
        (SEARCH, {"text": "red", "k": 0}, 422),
        (SEARCH, {"text": "red", "where": "price <"}, 422),
        (SEARCH, {"text": "red", "where": "price < 1'; DROP TABLE items; --"}, 422),
        (SEARCH, {"terms": [{"text": "a", "item": 1}]}, 422),
        (SEARCH, {"terms": [{"item": 10**15}]}, 404),
        (SEARCH, {"terms": [{"image": {"base64": "%%%"}}]}, 422),
        (SEARCH, {"terms": [{"image": {"base64": base64.b64encode(b"no picture").decode()}}]}, 415),
        (SEARCH, {"terms": [{"image": {"upload": "x"}}]}, 422),
        (SEARCH, {"terms": [{"text": "red", "weight": float("1e9")}]}, 422),
        ("/v1/collections/nowhere/search", {"text": "red"}, 404),
        ("/v1/nothing", {}, 404),
    ],
)
def test_what_cannot_be_done_is_a_problem_with_a_status_and_a_reason(
    http: httpx.Client, path: str, body: dict[str, Any], status: int
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status
    assert told["detail"]
    assert told["request_id"] == response.headers["x-request-id"]


def test_limits_on_body_and_pixels_answer_413(http: httpx.Client) -> None:
    assert http.post(SEARCH, content=b"{" + b" " * 300_000 + b"}").status_code == 413

    def pieces() -> Iterator[bytes]:  # chunked: no length is told beforehand
        for _ in range(400):
            yield b" " * 1000

    assert (
        http.post(SEARCH, content=pieces(), headers={"content-type": "application/json"}).status_code == 413
    )
    large = base64.b64encode(png("red", (400, 400))).decode()
    assert http.post(SEARCH, json={"terms": [{"image": {"base64": large}}]}).status_code == 413


def test_thumbnails_are_small_upright_and_kept(http: httpx.Client, home: Path) -> None:
    (hit,) = hits(http.post(SEARCH, json={"text": "red", "modality": "image", "hybrid": False, "k": 1}))
    path = "/" + hit["part"]["thumbnail"]
    first = http.get(path, params={"size": 160})
    assert first.headers["content-type"] == "image/webp"
    assert "immutable" in first.headers["cache-control"]
    with PIL.Image.open(io.BytesIO(first.content)) as picture:
        assert max(picture.size) <= 160
        red, green, blue = picture.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)
    assert any((home / "thumbnails").rglob("*-160.webp"))
    assert http.get(path, params={"size": 161}).status_code == 422


def test_files_are_served_with_ranges_and_nothing_outside_the_indexed_folders(
    http: httpx.Client, home: Path
) -> None:
    items = http.get("/v1/collections/default/items").json()["items"]
    picture = next(item for item in items if item["key"].endswith("red.png"))
    path = f"/v1/collections/default/items/{picture['id']}/file"
    whole = http.get(path)
    assert whole.content == Path(picture["key"]).read_bytes()
    assert http.get(path, headers={"range": "bytes=0-3"}).content == whole.content[:4]
    victim = Path(next(item["key"] for item in items if item["key"].endswith("white.txt")))
    text = victim.read_text()
    victim.unlink()
    victim.symlink_to(home.parent / "secret.txt")
    try:
        number = next(item["id"] for item in items if item["key"] == str(victim))
        assert http.get(f"/v1/collections/default/items/{number}/file").status_code == 404
    finally:
        victim.unlink()
        victim.write_text(text)
    for attempt in (
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
    ):
        assert http.get(attempt).status_code in (404, 400), attempt


def test_a_request_id_is_taken_over_only_if_it_is_harmless(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for odd in ("a b", "x" * 65, '{"level":"error"}'):
        assert http.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"] != odd


def test_figures_count_requests_by_route_and_status(http: httpx.Client) -> None:
    before = http.get("/metrics").text
    http.post(SEARCH, json={"text": "red"})
    line = 'mmsearch_requests_total{method="POST",route="/v1/collections/{collection}/search",status="200"}'

    def count(text: str) -> float:
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line))

    assert count(http.get("/metrics").text) == count(before) + 1
    assert 'mmsearch_items{collection="default"}' in before


def test_a_write_is_seen_by_searches_within_a_second_and_a_new_collection_at_once(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "model")
    with serving(tmp_path / "home") as url, httpx.Client(base_url=url, timeout=30) as http:
        made = http.post("/v1/collections", json={"name": "new", "model": str(model)})
        assert made.status_code == 201
        assert http.post("/v1/collections", json={"name": "new", "model": str(model)}).status_code == 409
        media = tmp_path / "media"
        media.mkdir()
        (media / "red.png").write_bytes(png("red"))
        path = "/v1/collections/new/search"
        assert hits(http.post(path, json={"text": "red", "hybrid": False})) == []
        with Engine.open(tmp_path / "home", collection="new", create=False) as engine:
            index(engine, [media])
        deadline = time.monotonic() + 5
        while not (found := names(http.post(path, json={"text": "red", "hybrid": False}))):
            assert time.monotonic() < deadline
        assert found == ["red.png"]
        assert http.delete("/v1/collections/new").json() == {"deleted": "new", "items": 1}
        assert http.post(path, json={"text": "red"}).status_code == 404


def test_keys_open_what_their_scope_and_collections_say_and_nothing_else(home: Path) -> None:
    keys = Keys(home)
    _, search = keys.create("reader", "search")
    _, other = keys.create("other", "admin", collections=["elsewhere"])
    _, slow = keys.create("slow", "search", rate=2)
    try:
        with serving(home) as url, httpx.Client(base_url=url, timeout=30) as http:

            def status(method: str, path: str, key: str | None, **more: Any) -> int:
                headers = {"authorization": f"Bearer {key}"} if key else {}
                return http.request(method, path, headers=headers, **more).status_code

            body: dict[str, Any] = {"json": {"text": "red"}}
            assert status("POST", SEARCH, None, **body) == 401
            assert status("POST", SEARCH, "mms_deadbeef_no", **body) == 401
            assert status("POST", SEARCH, search, **body) == 200
            assert http.post(SEARCH, headers={"x-api-key": search}, **body).status_code == 200
            assert status("POST", "/v1/collections/default/items/remove", search, json={"keys": ["a"]}) == 403
            assert status("POST", SEARCH, other, **body) == 403
            searches = {"searches": [{"collection": "default", "text": "red"}]}
            assert status("POST", "/v1/multi-search", other, json=searches) == 403
            seen = http.get("/v1/collections", headers={"authorization": f"Bearer {other}"}).json()
            assert seen == {"collections": []}
            assert [status("POST", SEARCH, slow, **body) for _ in range(3)] == [200, 200, 429]
            assert status("GET", "/healthz", None) == 200
            cookie = {"cookie": f"mmsearch_key={search}"}
            assert http.get("/v1/collections", headers=cookie).status_code == 200
            assert http.post(SEARCH, headers=cookie, **body).status_code == 401
    finally:
        (home / "keys.json").unlink()


def test_other_sites_and_other_names_are_refused(home: Path) -> None:
    options = Options(hosts=("127.0.0.1",), origins=("https://shop.example",))
    with serving(home, options) as url, httpx.Client(base_url=url, timeout=30) as http:
        assert http.get("/healthz", headers={"host": "evil.example"}).status_code == 421
        strange = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
        refused = http.post(SEARCH, json={"text": "red"}, headers=strange)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        known = {"sec-fetch-site": "cross-site", "origin": "https://shop.example"}
        allowed = http.post(SEARCH, json={"text": "red"}, headers=known)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"


def test_a_slow_client_and_one_that_leaves_hold_no_place(home: Path) -> None:
    options = Options(workers=1, waiting=1, body_timeout=0.3)
    with serving(home, options) as url:
        port = httpx.URL(url).port
        head = (
            f"POST {SEARCH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n"
        )
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for connection in slow:
            connection.sendall(head.encode() + b'{"text"')
        leaving = socket.create_connection(("127.0.0.1", port))
        leaving.sendall(head.replace("100", "14").encode() + b'{"text":"red"}')
        leaving.close()
        assert names(httpx.post(url + SEARCH, json={"text": "red", "k": 1}, timeout=30))
        for connection in slow:
            connection.settimeout(10)
            assert b" 408 " in connection.recv(1000)
            connection.close()


def test_more_than_may_wait_are_told_to_come_again(home: Path) -> None:
    options = Options(workers=1, waiting=0)
    statuses: list[int] = []
    with serving(home, options) as url:

        def ask() -> None:
            statuses.append(httpx.post(url + SEARCH, json={"text": "red"}, timeout=30).status_code)

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert httpx.post(url + SEARCH, json={"text": "red"}, timeout=30).status_code == 200


def test_products_are_put_changed_shown_and_removed(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "model")
    with serving(tmp_path / "home") as url, httpx.Client(base_url=url, timeout=30) as http:
        assert http.post("/v1/collections", json={"name": "shop", "model": str(model)}).status_code == 201
        base = "/v1/collections/shop"
        picture = {"base64": base64.b64encode(png("red")).decode()}
        items = [
            {
                "key": "r1",
                "title": "red thing",
                "images": [picture],
                "attributes": {"price": 10, "sale": True},
            },
            {"key": "b1", "title": "blue thing", "attributes": {"price": 30.5, "tags": ["a", "b"]}},
            {"key": "bad", "attributes": {"price": 1}},
        ]
        told = http.post(base + "/items", json={"items": items}).json()
        assert (told["added"], [one["key"] for one in told["rejected"]]) == (2, ["bad"])
        assert http.post(base + "/items", json={"items": items[:2]}).json()["unchanged"] == 2
        page = http.post(base + "/search", json={"text": "blue", "facets": [{"attribute": "price"}]}).json()
        assert page["hits"][0]["item"]["key"] == "b1"
        assert {bucket["value"] for bucket in page["facets"]["price"]["buckets"]} == {10, 30.5}
        changes = {
            "updates": [
                {"key": "b1", "attributes": {"price": 5, "tags": None}},
                {"key": "x", "attributes": {"a": 1}},
            ]
        }
        assert http.patch(base + "/items", json=changes).json() == {"updated": 1, "unknown": ["x"]}
        (cheap,) = http.post(base + "/search", json={"where": "price < 7"}).json()["hits"]
        assert cheap["item"]["attributes"] == {"price": 5}
        item = http.get(base + "/items", params={"key": "r1"}).json()["items"][0]
        shown = next(part["thumbnail"] for part in item["parts"] if "thumbnail" in part)
        assert http.get("/" + shown).status_code == 200
        wrong = {"updates": [{"key": "b1", "attributes": {"price": "cheap"}}]}
        assert http.patch(base + "/items", json=wrong).status_code == 422
        assert http.post(base + "/items/remove", json={"keys": ["b1", "?"]}).json() == {
            "removed": 1,
            "unknown": ["?"],
        }
        assert [hit["item"]["key"] for hit in http.post(base + "/search", json={}).json()["hits"]] == ["r1"]


def test_updates_that_come_together_are_answered_each_for_itself_and_seen_at_once(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "model")
    with serving(tmp_path / "home") as url, httpx.Client(base_url=url, timeout=30) as http:
        assert http.post("/v1/collections", json={"name": "shop", "model": str(model)}).status_code == 201
        base = "/v1/collections/shop"
        items = [{"key": f"k{n}", "title": f"thing {n}", "attributes": {"price": 0}} for n in range(40)]
        assert http.post(base + "/items", json={"items": items}).json()["added"] == 40

        def change(n: int) -> tuple[int, Any, int]:
            price: Any = "cheap" if n % 10 == 3 else n + 1
            keys = [f"k{n}", f"nobody{n}"]
            updates = [{"key": key, "attributes": {"price": price}} for key in keys]
            told = http.patch(base + "/items", json={"updates": updates})
            found = http.post(base + "/search", json={"where": f"price = {n + 1}"}).json()["total"]
            return told.status_code, told.json(), found

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(change, range(40)))
        for n, (status, told, found) in enumerate(answers):
            if n % 10 == 3:
                assert (status, found) == (422, 0)
                assert f"k{n}: attribute 'price' is a number" in told["detail"]
            else:
                assert (status, found) == (200, 1)
                assert told == {"updated": 1, "unknown": [f"nobody{n}"]}


def test_updates_that_wait_are_one_transaction_as_if_one_after_the_other(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "home", model=save_colour_model(tmp_path / "model")) as engine:
        index(engine, [_one_file(tmp_path)])
        (item,) = engine.items()
        updates = Updates(Pace())

        def asked(**attributes: Any) -> list[UpdateBody]:
            return [UpdateBody(key=item.key, attributes=attributes)]

        first, second = updates.join("c", asked(a=1, b=1)), updates.join("c", asked(b=2))
        given_up, other = updates.join("c", asked(a=9)), updates.join("d", asked(a=8))
        updates.leave(given_up)
        before = engine.catalog.revision()[0]

        def answer(update: Update) -> dict[str, Any]:
            return updates.answer(update, lambda _: contextlib.nullcontext(engine))

        assert answer(second) == answer(first) == {"updated": 1, "unknown": []}
        assert engine.catalog.revision()[0] == before + 1
        assert engine.get([item.id])[0].attributes == {**item.attributes, "a": 1, "b": 2}
        wrong, right = updates.join("c", asked(a="text")), updates.join("c", asked(b=3))
        with pytest.raises(ItemError, match="'a' is a number"):
            answer(wrong)
        assert answer(right) == {"updated": 1, "unknown": []}
        assert engine.get([item.id])[0].attributes == {**item.attributes, "a": 1, "b": 3}
        assert answer(other)["updated"] == 1
        assert engine.get([item.id])[0].attributes["a"] == 8


def _one_file(folder: Path) -> Path:
    path = folder / "red.png"
    path.write_bytes(png("red"))
    return path


def test_figures_tell_how_many_texts_were_encoded_and_how_many_were_known(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "home", model=save_colour_model(tmp_path / "model")) as engine:
        index(engine, [_one_file(tmp_path)])
    with serving(tmp_path / "home") as url, httpx.Client(base_url=url, timeout=30) as http:

        def counted() -> tuple[float, float]:
            lines = dict(
                line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[0] != "#"
            )
            name = 'mmsearch_query_vectors_total{kept="%s"}'
            return float(lines[name % "no"]), float(lines[name % "yes"])

        encoded, kept = counted()
        for text in ("red", "blue", "red", "red"):
            hits(http.post("/v1/collections/default/search", json={"text": text}))
        assert counted() == (encoded + 2, kept + 2)


def test_pictures_by_address_are_not_fetched_from_inside(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "model")
    with serving(tmp_path / "home") as url, httpx.Client(base_url=url, timeout=30) as http:
        http.post("/v1/collections", json={"name": "shop", "model": str(model)})
        for address in (
            f"{url}/icon.svg",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://0x7f.1/",
        ):
            item = {"key": "k", "title": "red", "images": [{"url": address}]}
            told = http.post("/v1/collections/shop/items", json={"items": [item]}).json()
            assert "public" in json.dumps(told), (address, told)
        bad = {"items": [{"key": "k", "images": [{"url": "file:///etc/passwd"}]}]}
        assert http.post("/v1/collections/shop/items", json=bad).status_code == 422
