"""Feeds of products on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import PIL.Image
import pytest

from tests.colour_model import save_colour_model
from tests.e2e.conftest import ROOT, Cli, in_process
from tests.shop_server import shop
from tests.toy import COLOURS


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """A feed with a column for each kind of trouble, beside its pictures."""
    for colour in ("red", "green", "blue"):
        PIL.Image.new("RGB", (16, 16), COLOURS[colour]).save(tmp_path / f"{colour}.png")
    path = tmp_path / "feed.csv"
    path.write_text(
        "sku,name,photo,photo2,price,size\n"
        "a,red shirt,red.png,,12.99 USD,38\n"
        "b,blue shirt,blue.png,green.png,9.00 USD,M\n"
        "c,green hat,none.png,,5.00 USD,40\n"
        ",lost,red.png,,1.00 USD,40\n"
        "a,again,red.png,,1.00 USD,40\n"
    )
    return path


@pytest.fixture
def new(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process on a home that is not there yet."""
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MMSEARCH_MODEL", str(model))
    return in_process


def test_a_feed_goes_in_and_what_is_wrong_is_told_with_its_line(new: Cli, feed: Path) -> None:
    ran = new("index", "--feed", feed)
    assert ran.code == 0, ran.err
    assert f"skipped  {feed}: line 5: it has no id" in ran.out
    assert f"skipped  {feed}: line 6: the id 'a' is that of line 2, too" in ran.out
    assert f"note     {feed}: line 4 (c): {feed.parent / 'none.png'}: no such file" in ran.out
    assert "3 added, 2 skipped" in ran.out
    (record,) = new("show", "--key", "a", "--json").records()
    assert record["attributes"] == {"price": 12.99, "price_currency": "USD", "size": "38"}
    assert [part["source"] for part in record["parts"]] == [None, str(feed.parent / "red.png"), None]
    (status,) = new("status", "--json").records()
    assert status["feeds"] == [str(feed)]
    assert f"feed        {feed}" in new("status").out


def test_without_arguments_feeds_are_brought_up_to_date_too(new: Cli, feed: Path) -> None:
    new("index", "--feed", feed, "--type", "size=text", "--ignore", "price")
    feed.write_text(feed.read_text().replace("38", "39"))
    ran = new("index")
    assert "1 updated (1 in attributes only), 2 unchanged, 2 skipped" in ran.out
    assert "price" not in new("status").out
    feed.unlink()
    gone = new("index", "--json")
    assert gone.code == 0
    (report,) = gone.records()
    assert report["skipped"] == [
        {"path": str(feed), "reason": "no such file; to forget it, run it again with --prune"}
    ]
    assert new("index", "--prune").code == 0
    assert new("index").code == 2, "there is nothing left to index"
    assert new("status", "--json").records()[0]["items"] == 3


def test_flags_and_a_mapping_file_name_the_columns(new: Cli, feed: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        'root = "."\nignore = ["photo2"]\n[columns]\nimages = "photo"\n[types]\nsize = "text"\n'
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(feed, other / "feed.csv")
    columns = ["--column", "id=sku", "--column", "title=name", "--column", "cost=price"]
    ran = new("index", "--feed", other / "feed.csv", "--mapping", mapping, *columns)
    assert ran.code == 0, ran.err
    (record,) = new("show", "--key", "b", "--json").records()
    assert record["attributes"] == {"cost": 9, "cost_currency": "USD", "size": "M"}
    assert [part["source"] for part in record["parts"] if part["modality"] == "image"] == [
        str(tmp_path / "blue.png")
    ]


def test_prices_are_changed_and_missing_products_removed(new: Cli, feed: Path, tmp_path: Path) -> None:
    new("index", "--feed", feed, "--delete-missing")
    prices = tmp_path / "prices.jsonl"
    prices.write_text(
        json.dumps({"id": "a", "price": 1.5}) + "\n" + json.dumps({"id": "z", "price": 1}) + "\n"
    )
    ran = new("index", "--feed", prices, "--partial")
    assert "1 updated (1 in attributes only), 1 skipped" in ran.out
    assert f"skipped  {prices}: line 2 (z): no product has this id" in ran.out
    assert new("search", "shirt", "--where", "price < 2", "--json").records()[0]["key"] == "a"
    lines = feed.read_text().splitlines()
    feed.write_text("\n".join([*lines[:3], ""]))
    assert "1 removed" in new("index", "--feed", feed).out
    feed.write_text("\n".join([lines[0], ""]) + "q,new,,,1 USD,1\n")
    refused = new("index", "--feed", feed)
    assert refused.code == 4
    assert "2 of the 3 products" in refused.err
    assert "2 removed" in new("index", "--feed", feed, "--prune").out
    assert new("remove", "--key", "q", "--yes").code == 0
    assert new("remove", "--key", "q", "--yes").code == 4


def test_addresses_are_fetched_from_where_the_settings_allow(
    new: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop() as server:
        path = tmp_path / "feed.jsonl"
        path.write_text(
            json.dumps({"id": 7, "title": "thing", "image_link": [f"{server.url}/red.png"]}) + "\n"
        )
        refused = new("index", "--feed", path)
        assert refused.code == 0
        assert "127.0.0.1 is a loopback address: only public addresses are fetched" in refused.out
        monkeypatch.setenv("MMSEARCH_FETCH_FROM", "127.0.0.0/8")
        assert "1 updated" in new("index", "--feed", path).out
        assert new("search", "red", "--modality", "image", "--json").records()[0]["key"] == "7"
        assert "1 unchanged" in new("index").out
    monkeypatch.setenv("MMSEARCH_FETCH_FROM", "everywhere")
    wrong = new("index", "--feed", path)
    assert wrong.code == 2
    assert "MMSEARCH_FETCH_FROM: fetch_from must be networks" in wrong.err


def test_another_model_gets_the_pictures_from_where_the_settings_allow(
    new: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_colour_model(tmp_path / "other", space="other-1")
    with shop() as server:
        path = tmp_path / "feed.jsonl"
        path.write_text(json.dumps({"id": 7, "title": "thing", "image": f"{server.url}/red.png"}) + "\n")
        monkeypatch.setenv("MMSEARCH_FETCH_FROM", "127.0.0.0/8")
        assert new("index", "--feed", path).code == 0
        monkeypatch.delenv("MMSEARCH_FETCH_FROM")
        refused = new("migrate", "--model", other)
        assert (refused.code, "is a loopback address" in refused.err) == (4, True), refused.err
        monkeypatch.setenv("MMSEARCH_FETCH_FROM", "127.0.0.0/8")
        done = new("migrate", "--json")
        assert (done.code, done.records()[0]["encoded"]) == (0, 1), done.err
        assert server.asked["/red.png"] == 2, "when it was indexed, and for the new model"
    assert new("search", "red", "--modality", "image", "--json").records()[0]["key"] == "7"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--feed", "none.csv"], 3, "none.csv: no such file"),
        (["--feed", "feed.xls"], 2, "suffix"),
        (["--feed", "feed.csv", "--column", "id"], 2, "--column id: write NAME=VALUE"),
        (["--feed", "feed.csv", "--type", "size=float"], 2, "types.size is 'float'"),
        (["--feed", "feed.csv", "--mapping", "none.toml"], 2, "none.toml: no such file"),
        (["--feed", "feed.csv", "--column", "id=nr"], 2, "no column has the ids"),
        (["--delete-missing"], 2, "and no --feed"),
        (["--feed", "feed.csv", "--partial", "--delete-missing"], 2, "only changes attributes"),
    ],
)
def test_mistakes_are_told_in_a_line(
    new: Cli, feed: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(feed.parent)
    (feed.parent / "feed.xls").touch()
    ran = new("index", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err


def test_a_feed_of_which_nothing_can_be_indexed_has_an_exit_code(new: Cli, tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,title\n1,\n,x\n")
    assert new("index", "--feed", path).code == 3


def test_the_sample_feed_goes_in_whole(new: Cli) -> None:
    ran = new("index", "--feed", ROOT / "data" / "products.csv", "--json")
    (report,) = ran.records()
    assert (report["added"], report["skipped"], report["notes"]) == (25, [], [])
    (status,) = new("status", "--json").records()
    assert status["parts"] == {"fused": 25, "image": 28, "text": status["parts"]["text"]}
    assert status["attributes"]["price"] == "number"
    assert status["attributes"]["since"] == "datetime"
    assert status["attributes"]["on_sale"] == "boolean"
    found = new("search", "red", "--where", 'parent = "poster-macaw"', "--json").records()
    assert {record["attributes"]["size"] for record in found} == {"A2", "A3"}
