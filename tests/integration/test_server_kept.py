"""What the server keeps of pictures, for how long, and who may show it."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mmsearch.engine import Engine
from mmsearch.errors import StoreUnwritable
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from tests.abused import ITEMS, SEARCH, make_home, png, until
from tests.serving import serving


@dataclasses.dataclass
class Shop:
    http: httpx.Client
    home: Path

    def put(self, key: str, *colours: str) -> None:
        images = [{"base64": base64.b64encode(png(colour, (40, 30))).decode()} for colour in colours]
        told = self.http.post(
            ITEMS, json={"items": [{"key": key, "title": f"thing {key}", "images": images}]}
        )
        assert told.json()["rejected"] == [], told.text

    def show(self, key: str) -> list[int]:
        """Have small copies made of all pictures of an item; returns their parts."""
        item = self.http.get(ITEMS, params={"key": key}).json()["items"][0]
        pictures = [part for part in item["parts"] if "thumbnail" in part]
        for part in pictures:
            for size in (160, 320):
                assert self.http.get("/" + part["thumbnail"], params={"size": size}).status_code == 200
        return [part["id"] for part in pictures]

    def kept(self) -> set[int]:
        """The parts that something is kept of; each has its original and two small copies."""
        files = [path for path in (self.home / "thumbnails").rglob("*") if path.is_file()]
        parts = [int(path.name.partition("-")[0]) for path in files]
        assert all(parts.count(part) == 3 for part in parts), files
        return set(parts)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


@pytest.fixture
def shop(home: Path) -> Iterator[Shop]:
    with serving(home) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Shop(http, home)


def test_pictures_of_items_that_are_removed_or_replaced_are_not_kept(shop: Shop) -> None:
    for key in "abcd":
        shop.put(key, "red", "blue")
    parts = {key: shop.show(key) for key in "abcd"}
    assert shop.kept() == {part for some in parts.values() for part in some}
    assert shop.http.post(f"{ITEMS}/remove", json={"keys": ["a", "nobody"]}).json()["removed"] == 1
    assert shop.kept() == {*parts["b"], *parts["c"], *parts["d"]}
    number = shop.http.get(ITEMS, params={"key": "b"}).json()["items"][0]["id"]
    assert shop.http.delete(f"{ITEMS}/{number}").json() == {"removed": 1}
    assert shop.kept() == {*parts["c"], *parts["d"]}
    shop.put("c", "green")
    (fresh,) = shop.show("c")
    assert shop.kept() == {fresh, *parts["d"]}
    shop.http.patch(ITEMS, json={"updates": [{"key": "d", "attributes": {"price": 1}}]})
    assert shop.kept() == {fresh, *parts["d"]}


def test_a_full_disk_is_told_as_such_and_stops_no_search(shop: Shop) -> None:
    items = {"items": [{"key": "a", "title": "a"}]}
    (shop.home / "writer.json").symlink_to("/dev/full")
    refused = shop.http.post(ITEMS, json=items)
    assert refused.status_code == 507, refused.text
    assert "disk is full" in refused.json()["detail"]
    assert str(shop.home) not in refused.text
    assert shop.http.post(SEARCH, json={"text": "red"}).status_code == 200
    (shop.home / "writer.json").unlink(missing_ok=True)
    assert shop.http.post(ITEMS, json=items).json()["added"] == 1


def test_a_small_copy_that_cannot_be_kept_is_told_as_such(shop: Shop) -> None:
    shop.put("a", "red")
    folder = shop.home / "thumbnails"
    (part,) = shop.show("a")
    with Engine.open(shop.home, create=False) as engine:
        (found,) = (one for one in engine.items() if one.key == "a")
        kept = next(one for one in found.parts if one.id == part)
    (folder / "originals" / f"{part % 1000:03}" / f"{part}.part").symlink_to("/dev/full")
    with pytest.raises(StoreUnwritable, match="No space left"):
        Thumbnails(shop.home).keep(kept, png("blue"))


def test_a_picture_that_came_along_is_shown_though_the_address_beside_it_led_nowhere(shop: Shop) -> None:
    red, blue = ({"base64": base64.b64encode(png(colour)).decode()} for colour in ("red", "blue"))
    images = [red, {"url": "http://127.0.0.1:1/inside.png"}, blue]
    told = shop.http.post(ITEMS, json={"items": [{"key": "a", "title": "thing", "images": images}]}).json()
    assert (told["rejected"], len(told["notes"])) == ([], 1)
    assert len(shop.show("a")) == 2


def test_pictures_of_a_deleted_collection_are_not_kept(shop: Shop) -> None:
    model = shop.http.get("/v1/collections/default").json()["model"]
    assert shop.http.post("/v1/collections", json={"name": "other", "model": model}).status_code == 201
    shop.put("a", "red")
    mine = shop.show("a")
    image = {"base64": base64.b64encode(png("red")).decode()}
    body = {"items": [{"key": "x", "title": "thing", "images": [image]}]}
    assert shop.http.post("/v1/collections/other/items", json=body).json()["added"] == 1
    assert len(list((shop.home / "thumbnails" / "originals").rglob("*/*"))) == 2
    assert shop.http.delete("/v1/collections/other").json() == {"deleted": "other", "items": 1}
    assert shop.kept() == set(mine)


def test_what_others_removed_while_no_server_ran_goes_at_the_next_start(home: Path) -> None:
    with serving(home) as url, httpx.Client(base_url=url, timeout=30) as http:
        shop = Shop(http, home)
        shop.put("a", "red")
        shop.put("b", "blue")
        gone, stays = shop.show("a"), shop.show("b")
        assert shop.kept() == {*gone, *stays}
    with Engine.open(home, create=False) as engine:
        found = engine.find("a")
        assert found is not None
        engine.remove([found.id])
    torn = home / "thumbnails" / "originals" / "001" / f"{gone[0]}.part"
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(b"half")
    with serving(home):
        until(lambda: not torn.exists())
        until(lambda: shop.kept() == set(stays))


@pytest.mark.parametrize(
    ("origins", "policy"), [((), "same-origin"), (("https://shop.example",), "cross-origin")]
)
def test_pages_of_other_sites_show_pictures_only_where_some_are_allowed(
    home: Path, origins: tuple[str, ...], policy: str
) -> None:
    with serving(home, Options(origins=origins)) as url, httpx.Client(base_url=url, timeout=30) as http:
        item = next(one for one in http.get(ITEMS).json()["items"] if one["modality"] == "image")
        name = "cross-origin-resource-policy"
        shown = http.get("/" + item["parts"][0]["thumbnail"])
        whole = http.get(f"{ITEMS}/{item['id']}/file")
        assert (shown.status_code, shown.headers.get_list(name)) == (200, [policy])
        assert (whole.status_code, whole.headers.get_list(name)) == (200, [policy])
        assert http.get(f"{ITEMS}/{item['id']}").headers.get_list(name) == ["same-origin"]


def test_dates_are_text_in_answers_and_text_or_objects_in_requests(shop: Shop) -> None:
    def put(key: str, made: object) -> list[str]:
        body = {"items": [{"key": key, "title": "thing", "attributes": {"made": made}}]}
        return [one["reason"] for one in shop.http.post(ITEMS, json=body).json()["rejected"]]

    def made(key: str) -> str:
        return str(shop.http.get(ITEMS, params={"key": key}).json()["items"][0]["attributes"]["made"])

    both = [
        {"key": "a", "title": "thing", "attributes": {"made": "2026-01-02", "name": "2026-01-02"}},
        {"key": "b", "title": "thing", "attributes": {"made": {"datetime": "2026-02-02T12:00:00+02:00"}}},
    ]
    assert shop.http.post(ITEMS, json={"items": both}).json()["added"] == 2
    assert put("c", "2026-03-02T00:00:00Z") == []
    assert (made("a"), made("b"), made("c")) == (
        "2026-01-02T00:00:00+00:00",
        "2026-02-02T10:00:00+00:00",
        "2026-03-02T00:00:00+00:00",
    )
    for key in "abc":
        assert put(key, made(key)) == [], "what was read can be written back"
    assert put("d", "soon") == ["attribute 'made': 'soon' is no date; write it as 2026-11-25T12:00:00Z"]
    (reason,) = shop.http.post(
        ITEMS,
        json={"items": [{"key": "e", "title": "t", "attributes": {"name": {"datetime": "2026-01-02"}}}]},
    ).json()["rejected"]
    assert (
        reason["reason"]
        == "attribute 'name' is a text in this collection, but 2026-01-02 00:00:00 is a datetime"
    )
    asked = {
        "where": "made >= '2026-02-01'",
        "sort": [{"attribute": "made", "descending": True}],
        "facets": [{"attribute": "made", "ranges": [["2026-01-01", "2026-03-01"], ["2026-03-01", None]]}],
    }
    told = shop.http.post("/v1/collections/default/search", json=asked).json()
    assert [hit["item"]["key"] for hit in told["hits"]] == ["c", "b"]
    assert told["facets"]["made"]["buckets"] == [
        {"low": "2026-01-01T00:00:00+00:00", "high": "2026-03-01T00:00:00+00:00", "count": 1},
        {"low": "2026-03-01T00:00:00+00:00", "high": None, "count": 1},
    ]
    assert shop.http.get("/v1/collections/default").json()["attributes"]["made"] == "datetime"
