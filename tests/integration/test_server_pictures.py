"""Pictures of a feed's products over HTTP: those of its folder, and no others."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import PIL.Image

from indexer.feeds import index_feed
from indexer.pipeline import index
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.serving import serving
from tests.toy import COLOURS


def test_a_file_that_was_indexed_by_its_name_is_shown_as_long_as_it_is_that_file(tmp_path: Path) -> None:
    for name, colour in (("mine", "red"), ("swapped", "green"), ("private", "blue")):
        PIL.Image.new("RGB", (40, 20), COLOURS[colour]).save(tmp_path / f"{name}.png")
    with Engine.open(tmp_path / "home", model=save_colour_model(tmp_path / "model")) as engine:
        index(engine, [tmp_path / "mine.png", tmp_path / "swapped.png"])
        assert engine.roots() == {}
    (tmp_path / "swapped.png").unlink()
    (tmp_path / "swapped.png").symlink_to(tmp_path / "private.png")
    with serving(tmp_path / "home") as address, httpx.Client(base_url=address) as http:
        items = http.get("/v1/collections/default/items").json()["items"]
        statuses: dict[str, list[int]] = {}
        for item in items:
            for path in (item["parts"][0]["thumbnail"], f"v1/collections/default/items/{item['id']}/file"):
                statuses.setdefault(item["title"], []).append(http.get(f"/{path}").status_code)
    assert statuses == {"mine": [200, 200], "swapped": [404, 404]}


def test_pictures_below_the_folder_of_a_feed_are_shown_and_others_are_not(tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    (feed / "pictures").mkdir(parents=True)
    PIL.Image.new("RGB", (40, 20), COLOURS["red"]).save(feed / "pictures" / "red.png")
    PIL.Image.new("RGB", (40, 20), COLOURS["blue"]).save(tmp_path / "private.png")
    rows = [
        "id,title,image",
        "inside,Red thing,pictures/red.png",
        f"outside,Blue thing,{tmp_path / 'private.png'}",
    ]
    (feed / "products.csv").write_text("\n".join(rows))
    with Engine.open(
        tmp_path / "home", collection="shop", model=save_colour_model(tmp_path / "model")
    ) as engine:
        report = index_feed(engine, feed / "products.csv")
        assert not report.skipped
    with serving(tmp_path / "home") as address, httpx.Client(base_url=address) as http:
        search = http.post("/v1/collections/shop/search", json={"text": "red", "highlight": True}).json()
        pictures = {hit["item"]["key"]: hit["item"]["thumbnail"] for hit in search["hits"]}
        shown = http.get(f"/{pictures['inside']}?size=160")
        assert shown.headers["content-type"] == "image/webp"
        picture = PIL.Image.open(io.BytesIO(shown.content))
        assert picture.size == (40, 20)
        assert np.abs(np.asarray(picture.convert("RGB"), int) - COLOURS["red"]).max() < 8
        refused = http.get(f"/{pictures['outside']}?size=160")
        assert refused.status_code == 404
        assert str(tmp_path) not in refused.text
