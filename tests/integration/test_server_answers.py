"""Answers are what the OpenAPI document and the types of the client say of them, to the last field."""

from __future__ import annotations

import base64
import copy
import io
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import PIL.Image
import pytest

from mmsearch.client import answers as of_client
from mmsearch.server import answer_shapes
from mmsearch.server.app import create_app
from mmsearch.server.options import Options
from tests.abused import ITEMS, SEARCH, make_home, png
from tests.serving import serving

DOCUMENT = create_app(Path("nowhere")).openapi()
SHOP = "/v1/collections/shop"


def strict(told: Any) -> Any:
    """A schema that allows no field which it does not name."""
    if isinstance(told, dict):
        told = {name: strict(value) for name, value in told.items()}
        return told | {"additionalProperties": False} if "properties" in told else told
    return [strict(one) for one in told] if isinstance(told, list) else told


STRICT = strict({"components": DOCUMENT["components"]})


def check(response: httpx.Response, method: str, route: str) -> Any:
    """The JSON of an answer, which is as its route's schema says."""
    told = DOCUMENT["paths"][route][method]["responses"][str(response.status_code)]
    schema = told["content"]["application/json"]["schema"]
    assert schema.get("$ref"), f"{method} {route} has no schema"
    jsonschema.Draft202012Validator({**STRICT, **schema}).validate(response.json())
    return response.json()


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("answers")
    home = make_home(folder)
    options = Options(keep_queries=True)
    with serving(home, options) as url, httpx.Client(base_url=url, timeout=30) as client:
        made = client.post("/v1/collections", json={"name": "shop", "model": str(folder / "model")})
        check(made, "post", "/v1/collections")
        told = client.post(f"{SHOP}/items", json={"items": [*map(product, range(6)), {"key": "empty"}]})
        assert check(told, "post", "/v1/collections/{collection}/items")["rejected"][0]["key"] == "empty"
        yield client


def product(number: int) -> dict[str, Any]:
    colours = ["red", "green", "blue"][number % 3 :] if number < 4 else []  # 3, 2, 1, 3 pictures, and none
    images: list[dict[str, str]] = [
        {"base64": base64.b64encode(png(colour, (40, 30 + number))).decode()} for colour in colours
    ]
    if number == 0:
        images.append({"url": "http://127.0.0.1:1/inside.png"})  # not fetched: a note
    return {
        "key": f"sku-{number}",
        "title": f"red {'summer' * (number % 2)} dress {number}",
        "images": images,
        "attributes": {
            "price": 10.5 * number,
            "sizes": ["S", "M"],
            "sale": number == 1,
            "launched": {"datetime": f"2026-03-0{number + 1}"},
            "parent": f"dress-{number // 2}",
        },
    }


EVERYTHING = {
    "text": "red summer dress",
    "facets": [
        {"attribute": "parent"},
        {"attribute": "sale"},
        {"attribute": "launched"},
        {"attribute": "price", "ranges": [[None, 20], [20, None]]},
    ],
    "group_by": "parent",
    "group_size": 2,
    "pinned": ["sku-3"],
    "k": 2,
    "highlight": True,
    "explain": True,
}


def test_a_search_with_everything_is_as_its_schema_says(http: httpx.Client) -> None:
    found = check(http.post(f"{SHOP}/search", json=EVERYTHING), "post", "/v1/collections/{collection}/search")
    assert {"facets", "cursor"} <= set(found)
    assert {"pinned", "group", "highlights", "explanation"} <= set(found["hits"][0])
    assert len(found["hits"][0]["group"]["hits"]) == 2
    check(
        http.post(f"{SHOP}/similar", json={"like": ["sku-1"]}), "post", "/v1/collections/{collection}/similar"
    )
    meant = http.post(f"{SHOP}/search", json={"text": "sumner dress", "text_weight": 1})
    assert check(meant, "post", "/v1/collections/{collection}/search")["corrections"][0]["used"] == ["summer"]
    several = {"searches": [{"collection": "shop", **EVERYTHING}, {"collection": "default", "text": "red"}]}
    check(http.post("/v1/multi-search", json=several), "post", "/v1/multi-search")
    files = http.post(f"{SEARCH}/files", files={"files": ("a.png", png("red"), "image/png")})
    check(files, "post", "/v1/collections/{collection}/search/files")
    sounds = http.post(SEARCH, json={"modality": "audio"})  # a file with a part that begins and ends
    assert "start" in check(sounds, "post", "/v1/collections/{collection}/search")["hits"][0]["part"]


def test_every_other_answer_is_as_its_schema_says(http: httpx.Client) -> None:
    collection = "/v1/collections/{collection}"
    check(http.get("/healthz"), "get", "/healthz")
    check(http.get("/readyz"), "get", "/readyz")
    check(http.get("/v1/collections"), "get", "/v1/collections")
    check(http.get(SHOP), "get", collection)
    page = check(http.get(f"{SHOP}/items", params={"k": 2}), "get", f"{collection}/items")
    check(http.get(ITEMS), "get", f"{collection}/items")
    one = page["items"][0]["id"]
    check(http.get(f"{SHOP}/items/{one}"), "get", f"{collection}/items/{{item}}")
    for _ in range(2):
        http.post(f"{SHOP}/search", json={"text": "red dress"})
    suggested = check(http.get(f"{SHOP}/suggest", params={"text": "red"}), "get", f"{collection}/suggest")
    assert any("key" in found for found in suggested["suggestions"])
    image = {"base64": base64.b64encode(png("red")).decode()}
    encoded = http.post(f"{SHOP}/encode", json={"texts": ["red"], "images": [image]})
    check(encoded, "post", f"{collection}/encode")
    rules = [{"query": "x", "boosts": [{"attribute": "price", "weight": 1}]}]
    settings = {"synonyms": [{"words": ["a", "b"]}], "rules": rules}
    check(http.put(f"{SHOP}/settings", json=settings), "put", f"{collection}/settings")
    check(http.get(f"{SHOP}/settings"), "get", f"{collection}/settings")
    updates = {"updates": [{"key": key, "attributes": {"price": 3}} for key in ("sku-4", "nobody")]}
    check(http.patch(f"{SHOP}/items", json=updates), "patch", f"{collection}/items")
    put = http.post(f"{SHOP}/items", json={"items": [{"key": "a", "title": "a"}, {"key": "b", "title": "b"}]})
    check(put, "post", f"{collection}/items")
    number = http.get(f"{SHOP}/items", params={"key": "a"}).json()["items"][0]["id"]
    check(http.delete(f"{SHOP}/items/{number}"), "delete", f"{collection}/items/{{item}}")
    removed = http.post(f"{SHOP}/items/remove", json={"keys": ["b", "c"]})
    check(removed, "post", f"{collection}/items/remove")
    model = http.get(SHOP).json()["model"]
    http.post("/v1/collections", json={"name": "gone", "model": model})
    check(http.delete("/v1/collections/gone"), "delete", collection)


def test_every_answer_of_json_has_a_schema() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            told = operation["responses"]["201" if "201" in operation["responses"] else "200"]["content"]
            assert all(one.get("schema") for one in told.values()), f"{method} {path}"


def test_the_strict_schema_refuses_a_field_that_nobody_told_of(http: httpx.Client) -> None:
    answer = http.post(SEARCH, json={"k": 1})
    more = copy.deepcopy(answer.json())
    more["hits"][0]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.Draft202012Validator({**STRICT, "$ref": "#/components/schemas/SearchPage"}).validate(more)


SAME = [
    "CollectionTold",
    "Encoded",
    "Found",
    "FoundItem",
    "FoundPart",
    "SearchPage",
    "SettingsTold",
    "Suggested",
    "Written",
]


@pytest.mark.parametrize("name", SAME)
def test_the_types_of_the_client_have_the_fields_of_the_document(name: str) -> None:
    hints = typing.get_type_hints(getattr(of_client, name), include_extras=True)
    fields = getattr(answer_shapes, name).model_fields
    assert set(hints) == set(fields)
    for field, hint in hints.items():
        may_miss = typing.get_origin(hint) is typing.NotRequired
        said, told = hint, fields[field].annotation
        if may_miss:
            (said,), told = typing.get_args(hint), (*typing.get_args(told), told)[0]
        if (name, field) != ("SearchPage", "ms"):  # of a multi-search there is one for all
            assert may_miss is not fields[field].is_required(), field
            if told in (int, float, bool, str, list[str], list[int], dict[str, int], dict[str, str]):
                assert said == told, field


def pictures(http: httpx.Client, path: str) -> dict[str, str]:
    """Of each product the path of its first picture."""
    items = http.get(f"{path}/items").json()["items"]
    parts = {one["key"]: [part["thumbnail"] for part in one["parts"] if "thumbnail" in part] for one in items}
    return {key: some[0] for key, some in parts.items() if some}


@pytest.mark.parametrize("highlight", [False, True])
def test_every_hit_has_the_small_copy_of_its_first_picture(http: httpx.Client, highlight: bool) -> None:
    wanted = pictures(http, SHOP)
    assert set(wanted) == {"sku-0", "sku-1", "sku-2", "sku-3"}
    asked = {
        "text": "red dress",
        "highlight": highlight,
        "group_by": "parent",
        "group_size": 2,
        "settings": False,
    }
    found = http.post(f"{SHOP}/search", json=asked).json()["hits"]
    shown = [other["item"] for hit in found for other in hit["group"].get("hits", [hit])]
    assert {one["key"]: one["thumbnail"] for one in shown if "thumbnail" in one} == wanted
    assert len(shown) >= 6
    like = http.post(f"{SHOP}/similar", json={"like": ["sku-5"], "k": 10}).json()["hits"]
    assert {
        hit["item"]["key"]: hit["item"]["thumbnail"] for hit in like if "thumbnail" in hit["item"]
    } == wanted
    items = http.get(f"{SHOP}/items").json()["items"]
    assert {one["key"]: one["thumbnail"] for one in items if "thumbnail" in one} == wanted
    photo = http.post(SEARCH, json={"modality": "image", "k": 1}).json()["hits"][0]
    assert photo["item"]["thumbnail"] == photo["part"]["thumbnail"]


def test_a_picture_that_comes_to_the_front_is_the_first_one(http: httpx.Client) -> None:
    red, blue = ({"base64": base64.b64encode(png(colour)).decode()} for colour in ("red", "blue"))
    for images in ([red], [blue, red], [red, blue]):
        http.post(f"{SHOP}/items", json={"items": [{"key": "turned", "title": "lamp", "images": images}]})
        (hit,) = http.post(f"{SHOP}/search", json={"where": "key = 'turned'"}).json()["hits"]
        assert hit["item"]["thumbnail"] == pictures(http, SHOP)["turned"]
        small = PIL.Image.open(io.BytesIO(http.get("/" + hit["item"]["thumbnail"]).content)).convert("RGB")
        pixel = small.getpixel((4, 4))
        assert isinstance(pixel, tuple)
        assert (pixel[0] > pixel[2]) == (images[0] is red)
    http.post(f"{SHOP}/items/remove", json={"keys": ["turned"]})
