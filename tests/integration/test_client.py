"""The clients against a real server: every route, both ways, with the types that they promise."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mmsearch.client import AsyncClient, Client, Refused, calls
from mmsearch.engine import Engine
from mmsearch.server.app import create_app
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from tests.abused import make_home, png
from tests.serving import serving
from tests.sounds import save_sound
from tests.toy import tone

Routes = set[tuple[str, str]]


class Both:
    """Makes each call with either client, and says what both answered; writes are repeated, so they answer alike."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.asked: Routes = set()

    def _note(self, request: httpx.Request) -> None:
        self.asked.add((request.method, request.url.path))

    def now(self, name: str, *args: Any, **named: Any) -> Any:
        with Client(self.url, key=self.key) as client:
            client._http.event_hooks["request"] = [self._note]
            return getattr(client, name)(*args, **named)

    def later(self, name: str, *args: Any, **named: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(self.url, key=self.key) as client:
                return await getattr(client, name)(*args, **named)

        return asyncio.run(call())

    def __call__(self, name: str, *args: Any, **named: Any) -> Any:
        told = self.now(name, *args, **named)
        assert steady(self.later(name, *args, **named)) == steady(told)
        return told


def steady(told: Any) -> Any:
    """An answer without what differs from one time to the next."""
    if isinstance(told, dict):
        return {
            name: steady(value) for name, value in told.items() if name not in ("ms", "cursor", "revision")
        }
    return [steady(one) for one in told] if isinstance(told, list) else told


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def both(home: Path) -> Iterator[Both]:
    _, key = Keys(home).create("me", "admin")
    with serving(home, Options(keep_queries=True)) as url:
        yield Both(url, key)


def keys(page: Any) -> list[str]:
    return [Path(hit["item"]["key"]).name for hit in page["hits"]]


def test_every_route_has_a_method_in_both_clients(both: Both, home: Path, tmp_path: Path) -> None:
    model = str(home.parent / "model")
    sound = save_sound(tmp_path / "tone.wav", tone("green", seconds=1.0))
    assert both("health")["status"] == "ok"
    assert both("ready")["status"] == "ready"
    assert "mmsearch_requests_total" in both.now("metrics")
    assert "mmsearch_requests_total" in both.later("metrics")

    assert both.now("create_collection", "a", model)["items"] == 0
    with pytest.raises(Refused, match="already") as refused:
        both.later("create_collection", "a", model)
    assert (refused.value.status, refused.value.code) == (409, "Conflict")
    assert [one["name"] for one in both("collections")] == ["a", "default"]
    assert both("collection", "default")["attributes"]["width"] == "number"

    images = [{"base64": base64.b64encode(png("blue")).decode()}]
    items = [
        {"key": "x", "title": "blue thing", "images": images, "attributes": {"price": 3}},
        {"key": "y", "title": "y"},
    ]
    assert both.now("put", "a", items)["added"] == 2
    assert both.later("put", "a", items)["unchanged"] == 2
    assert both(
        "update", "a", [{"key": "x", "attributes": {"price": 4}}, {"key": "z", "attributes": {"price": 4}}]
    ) == {
        "updated": 1,
        "unknown": ["z"],
    }
    item = both("item", "a", "x")
    assert item["attributes"] == {"price": 4}
    assert both("item", "a", item["id"]) == item
    some, after = both("items_page", "a", k=1)
    assert ([one["key"] for one in some], after) == (["x"], item["id"])
    picture = next(part for part in item["parts"] if "thumbnail" in part)
    assert both("thumbnail", picture, size=160)[8:12] == b"WEBP"
    red = both.now("item", "default", str(home.parent / "media" / "red.png"))
    assert both("file", "default", red["id"]) == (home.parent / "media" / "red.png").read_bytes()

    assert keys(both("search", "default", "red", modality="image", hybrid=False, k=1)) == ["red.png"]
    assert keys(both("search", "default", image=png("blue"), modality="image", k=1)) == ["blue.png"]
    assert keys(both("search", "default", audio=sound, modality="image", k=1)) == ["green.png"]
    assert both("search", "a", where="price > 3", facets=["price"])["facets"]["price"]["kind"] == "number"
    assert both("similar", "a", ["x"], unlike=["y"], strategy="best")["total"] == 0
    found = both("multi_search", [{"collection": "a", "text": "blue", "k": 1, "facets": ["price"]}])
    assert (keys(found[0]), "price" in found[0]["facets"]) == (["x"], True)
    assert both("suggest", "a", "blu")[0]["text"] == "blue thing"
    with Engine.open(home, create=False) as engine:
        expected = engine.encoder.encode_texts(["red"])[0]
    encoded = both("encode", "default", ["red"], [png("red")])
    np.testing.assert_allclose(encoded["texts"][0], expected, atol=1e-6)
    assert len(encoded["images"]) == 1
    with pytest.raises(Refused) as missing:
        both("transcribe", b"")
    assert missing.value.status in (415, 422, 501)

    rules = [{"query": "party", "pinned": ["y"]}]
    told = both("change_settings", "a", synonyms=[{"words": ["blue", "azure"]}], rules=rules)
    assert told["synonyms"] == [{"words": ["blue", "azure"], "of": None}]
    assert both("settings", "a") == told
    assert keys(both.now("search", "a", "party"))[0] == "y"

    assert both.now("remove", "a", ["x", "nobody"]) == {"removed": 1, "unknown": ["nobody"]}
    assert both.later("remove", "a", ["x"]) == {"removed": 0, "unknown": ["x"]}
    assert both.now("remove_item", "a", both.now("item", "a", "y")["id"]) == 1
    assert both.now("delete_collection", "a") == 0
    with pytest.raises(Refused, match="no such collection"):
        both.later("delete_collection", "a")

    document = create_app(Path("nowhere")).openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in document.items() for method in methods}
    uncalled = {
        (method, path)
        for method, path in routes
        if not any(
            one == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), at) for one, at in both.asked
        )
    }
    assert uncalled == set()


def test_both_clients_have_the_same_methods_and_those_of_the_calls() -> None:
    def methods(kind: type) -> dict[str, str]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: str(inspect.signature(one)) for name, one in found if not name.startswith("_")}

    plain, awaited = methods(Client), methods(AsyncClient)
    assert plain.keys() == awaited.keys()
    own = {"close", "send", "pages", "items"}
    own_functions = (
        one for _, one in inspect.getmembers(calls, inspect.isfunction) if one.__module__ == calls.__name__
    )
    made = {one.__name__ for one in own_functions if not one.__name__.startswith("_")}
    assert plain.keys() - own == made - {"answer"}
    for name in plain.keys() - own:
        assert plain[name] == awaited[name]
        assert (getattr(Client, name).__doc__ or "").strip(), name


def test_all_pages_and_all_items_in_their_order(both: Both) -> None:
    async def later() -> tuple[list[int], list[int]]:
        async with AsyncClient(both.url, key=both.key) as client:
            hits = [
                hit["item"]["id"]
                async for page in client.pages("default", "red", k=3)
                for hit in page["hits"]
            ]
            return hits, [item["id"] async for item in client.items("default")]

    with Client(both.url, key=both.key) as client:
        pages = list(client.pages("default", "red", k=3))
        items = [item["id"] for item in client.items("default")]
        whole = client.search("default", "red", k=100)
    found = [hit["item"]["id"] for page in pages for hit in page["hits"]]
    assert len(pages) > 2
    assert found == [hit["item"]["id"] for hit in whole["hits"]]
    assert items == sorted(items)
    assert len(items) == both.now("collection", "default")["items"]
    assert asyncio.run(later()) == (found, items)


def test_dates_go_in_as_objects_and_come_back_as_text(both: Both) -> None:
    made: dict[str, Any] = {"first": date(2026, 3, 1), "last": datetime(2026, 3, 1, 12, tzinfo=UTC)}
    with Client(both.url, key=both.key) as client:
        assert client.put("default", [{"key": "dated", "title": "t", "attributes": made}])["added"] == 1
        kinds = client.collection("default")["attributes"]
        assert (kinds["first"], kinds["last"]) == ("datetime", "datetime")
        client.update("default", [{"key": "dated", "attributes": {"last": datetime(2027, 1, 2, tzinfo=UTC)}}])
        assert client.item("default", "dated")["attributes"] == {
            "first": "2026-03-01T00:00:00+00:00",
            "last": "2027-01-02T00:00:00+00:00",
        }
        ranges = [[date(2026, 1, 1), None]]
        page = client.search("default", facets=[{"attribute": "first", "ranges": ranges}], k=1)
        assert page["facets"]["first"]["buckets"][0]["count"] == 1
        client.remove("default", ["dated"])


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), float("nan")])
def test_what_is_no_json_is_an_error_before_anything_is_sent(both: Both, value: object) -> None:
    with Client(both.url) as client, pytest.raises((TypeError, ValueError)):
        client.put("default", [{"key": "a", "attributes": {"x": value}}])


def test_a_refusal_tells_status_code_and_fields(both: Both) -> None:
    with Client(both.url) as client, pytest.raises(Refused) as refused:
        client.collections()
    assert refused.value.status == 401
    with Client(both.url, key=both.key) as client, pytest.raises(Refused) as refused:
        client.search("default", k=0)
    assert [one["field"] for one in refused.value.errors] == ["k"]
    assert refused.value.request_id


@pytest.mark.parametrize("answer", [b"<html>gone</html>", b"[1]", b""])
def test_a_refusal_that_is_no_problem_document_is_one_too(answer: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, content=answer))
    with Client("http://proxy.example", transport=transport) as client, pytest.raises(Refused) as refused:
        client.collections()
    assert refused.value.status == 502


def test_a_server_that_is_not_there_is_a_refusal_with_status_0() -> None:
    def reached(call: Callable[[], Any]) -> int:
        with pytest.raises(Refused, match="not reached") as refused:
            call()
        return refused.value.status

    async def later() -> None:
        async with AsyncClient("http://127.0.0.1:9", timeout=2) as client:
            await client.collections()

    with Client("http://127.0.0.1:9", timeout=2) as client:
        assert reached(client.collections) == 0
    assert reached(lambda: asyncio.run(later())) == 0


def test_names_with_odd_characters_are_quoted(both: Both, home: Path) -> None:
    name = "Schuhe & Co. #1 100%"
    with Client(both.url, key=both.key) as client:
        client.create_collection(name, str(home.parent / "model"))
        assert client.put(name, [{"key": "ä/ö?", "title": "thing"}])["added"] == 1
        assert client.item(name, "ä/ö?")["title"] == "thing"
        assert client.search(name, "thing")["total"] == 1
        assert client.delete_collection(name) == 1
