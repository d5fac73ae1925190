"""What the server says when something is asked in the wrong way, and a few things that shops ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmsearch.server.app import create_app
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from tests.abused import DEFAULT, ITEMS, SEARCH, make_home, png
from tests.serving import serving

BERLIN, MUNICH, HAMBURG = (52.52, 13.405), (48.137, 11.575), (53.551, 9.993)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = make_home(tmp_path_factory.mktemp("told"))
    with serving(home, Options(keep_queries=True)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", SEARCH, {"POST"}),
        ("GET", SEARCH, {"POST"}),
        ("PUT", ITEMS, {"GET", "POST", "PATCH"}),
        ("POST", DEFAULT, {"GET", "DELETE"}),
        ("POST", f"{ITEMS}/1", {"GET", "DELETE"}),
        ("GET", "/v1/multi-search", {"POST"}),
    ],
)
def test_the_wrong_method_is_told_with_the_right_ones(
    http: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert {*answer.headers["allow"].split(", ")} == allowed
    assert answer.json()["status"] == 405


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/v1/collections", "/v1/collections/default"]
)
def test_who_asks_for_the_head_alone_gets_it(http: httpx.Client, path: str) -> None:
    """Load balancers and monitors do."""
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert http.get("/healthz").json()["status"] == "ok", "nothing is left over on the connection"
    assert http.head(SEARCH).status_code == 405
    assert 'method="HEAD",route="/healthz",status="200"' in http.get("/metrics").text or path != "/healthz"


def test_an_address_that_is_none_stays_not_found(http: httpx.Client) -> None:
    for path in ("/v1/nowhere", "/v1", f"{DEFAULT}/nothing", f"{ITEMS}/1/parts"):
        assert http.get(path).status_code == 404, path


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_json_that_is_not_called_json_is_told_what_to_do(http: httpx.Client, kind: str) -> None:
    answer = http.post(SEARCH, content=b'{"text": "red"}', headers={"content-type": kind} if kind else {})
    assert (answer.status_code, "Content-Type: application/json" in answer.json()["detail"]) == (415, True)


@pytest.mark.parametrize(
    ("wrong", "row", "reason"),
    [
        ({"collection": "default", "where": "width >"}, 1, "bad filter"),
        ({"collection": "nowhere", "text": "red"}, 1, "there is no such collection"),
        ({"collection": "default", "terms": [{"item": "nobody"}]}, 1, "no item with the key 'nobody'"),
        ({"collection": "default", "facets": [{"attribute": "nope"}]}, 1, "no item has an attribute nope"),
    ],
)
def test_of_several_searches_the_wrong_one_is_named(
    http: httpx.Client, wrong: dict[str, Any], row: int, reason: str
) -> None:
    right = {"collection": "default", "text": "red", "k": 1}
    answer = http.post("/v1/multi-search", json={"searches": [right, wrong, right]})
    assert answer.status_code in (404, 422)
    assert answer.json()["detail"].startswith(f"searches.{row}: {reason}")


def test_reasons_are_ours_and_not_those_of_a_library(http: httpx.Client) -> None:
    answer = http.post(SEARCH, json={"terms": [{"text": "a", "item": 1}]})
    assert answer.json()["errors"] == [
        {"field": "terms.0", "reason": "a term is exactly one of text, image, audio or item"}
    ]


@pytest.mark.parametrize("value", [None, {"b": 1}, [1, "x"], [["x"]], "x" * 10_001, {"datetime": 3}])
def test_an_attribute_of_no_kind_is_told_once(http: httpx.Client, value: object) -> None:
    items = [{"key": "a", "title": "a", "attributes": {"price": 3, "odd": value}}]
    (told,) = http.post(ITEMS, json={"items": items}).json()["errors"]
    assert told["field"] == "items.0.attributes.odd"
    assert told["reason"].startswith("an attribute is a number, a text")


def test_of_a_product_that_comes_twice_the_last_counts_and_that_is_told(http: httpx.Client) -> None:
    items = [{"key": "twice", "title": title} for title in ("first", "second")]
    told = http.post(ITEMS, json={"items": items}).json()
    assert (told["added"], [note["key"] for note in told["notes"]]) == (1, ["twice"])
    assert http.get(ITEMS, params={"key": "twice"}).json()["items"][0]["title"] == "second"
    http.post(ITEMS + "/remove", json={"keys": ["twice"]})


@pytest.mark.parametrize("number", [0, -1, 1 << 62, 1 << 63, 10**30])
def test_a_number_that_no_item_can_have_is_refused(http: httpx.Client, number: int) -> None:
    for path in (f"{ITEMS}/{number}", f"{ITEMS}/{number}/file", f"{ITEMS}/1/parts/{number}/thumbnail"):
        assert http.get(path).status_code == 422, path
    assert http.get(ITEMS, params={"after": number - 1 if number < 1 else number}).status_code == 422
    asked: list[dict[str, Any]] = [{"terms": [{"item": number}]}, {"taste": {"liked": [number]}}]
    for body in asked:
        assert http.post(SEARCH, json=body).status_code == 422, body
    assert http.post(f"{DEFAULT}/similar", json={"like": [number]}).status_code == 422


def test_a_product_of_blanks_is_none(http: httpx.Client) -> None:
    told = http.post(ITEMS, json={"items": [{"key": "blank", "title": " \n", "description": "\t"}]}).json()
    assert [one["key"] for one in told["rejected"]] == ["blank"]


def test_two_files_of_one_name_are_two_pictures(http: httpx.Client) -> None:
    def best(*colours: str) -> tuple[float, str]:
        files = [("files", ("image.png", png(colour), "image/png")) for colour in colours]
        asked = {"query": '{"modality": "image", "k": 1}'}
        (hit,) = http.post(f"{SEARCH}/files", files=files, data=asked).json()["hits"]
        return hit["score"], Path(hit["item"]["key"]).name

    score, name = best("red", "blue")
    assert best("red")[1] == "red.png"
    assert best("blue")[1] == "blue.png"
    assert score < best("blue")[0] - 0.05, f"{name} is but one of the two"


@pytest.mark.parametrize(
    ("names", "place"), [(("latitude", "longitude"), None), (("lat", "lon"), None), (("y", "x"), ("y", "x"))]
)
def test_nearest_first_by_whatever_attributes_tell_the_place(
    tmp_path: Path, names: tuple[str, str], place: tuple[str, str] | None
) -> None:
    home = make_home(tmp_path)
    towns = {"munich": MUNICH, "berlin": BERLIN, "hamburg": HAMBURG}
    items = [
        {"key": key, "title": "a shop", "attributes": dict(zip(names, town, strict=True))}
        for key, town in towns.items()
    ]
    sort = {"near": [52.5, 13.4], **({"place": place} if place else {})}
    with serving(home) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post(ITEMS, json={"items": items}).json()["added"] == 3
        asked = {"where": f"{names[0]} > 0", "sort": [sort]}
        found = client.post(SEARCH, json=asked).json()["hits"]
        assert [hit["item"]["key"] for hit in found] == ["berlin", "hamburg", "munich"]
        wrong = client.post(SEARCH, json={"sort": [{"near": [52.5, 13.4], "place": ["up", "down"]}]})
        assert (wrong.status_code, "attribute up" in wrong.json()["detail"]) == (422, True)
        for bad in ({}, {"attribute": "key", "place": ["lat", "lon"]}):
            assert client.post(SEARCH, json={"sort": [bad]}).status_code == 422


def test_what_was_just_asked_completes_where_queries_are_kept(http: httpx.Client) -> None:
    assert http.put(f"{DEFAULT}/settings", json={"keep_queries": True}).status_code == 200
    deadline = time.monotonic() + 10
    while not http.get(DEFAULT + "/settings").json()["keep_queries"]:
        assert time.monotonic() < deadline
    assert http.post(SEARCH, json={"text": "purple rain"}).status_code == 200
    told = http.get(f"{DEFAULT}/suggest", params={"text": "pur"}).json()["suggestions"]
    assert told == [{"text": "purple rain", "source": "query", "count": 1}]


def test_every_body_of_the_document_has_an_example() -> None:
    document = create_app(Path("nowhere")).openapi()
    schemas = document["components"]["schemas"]
    without = []
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {})
            if (body := content.get("application/json")) is not None:
                schema = schemas[body["schema"]["$ref"].rpartition("/")[2]]
                if not {"example", "examples"} & {*schema}:
                    without.append(f"{method} {path}")
    assert without == []


def test_who_asks_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    _, secret = Keys(home).create("shop", "search", rate=2)
    with serving(home) as url, httpx.Client(base_url=url, headers={"x-api-key": secret}) as client:
        answers = [client.get("/v1/collections") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert 28 <= int(answers[-1].headers["retry-after"]) <= 30, (
        "two a minute: the next comes after half of one"
    )
    assert answers[-1].json()["code"] == "TooManyRequests"
