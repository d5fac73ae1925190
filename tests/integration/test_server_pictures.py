"""Pictures of a feed's products over HTTP: those of its folder, and no others."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import PIL.Image

from indexer.feeds import index_feed
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.serving import serving
from tests.toy import COLOURS


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
