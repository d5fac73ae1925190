"""What the page says when there is nothing, when it takes long, and when the server is gone, closed or busy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mmsearch.engine import Engine
from mmsearch.server.keys import Keys
from mmsearch.server.options import Options
from tests.e2e.page.conftest import Opener, names
from tests.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

TILES = "#results .tile"
AGAIN = "#results button:text-is('Try again')"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_nothing_found_says_why_and_offers_a_way_out(opened: Opener) -> None:
    page = opened(c="photos", r="99||duration")
    page.wait_for_selector("text=Nothing passes these filters.")
    assert page.locator(TILES).count() == 0
    page.click("text=Search without them")
    page.wait_for_selector("#status >> text=93 results")


def test_a_home_without_a_collection_and_an_empty_one_say_how_to_fill_them(
    opened: Opener, tmp_path: Path
) -> None:
    with serving(tmp_path / "home") as address:
        page = opened(at=address)
        page.wait_for_selector("text=There is no collection yet.")
        Engine.open(tmp_path / "home").close()
        page.reload()
        page.wait_for_selector("text=This collection is empty.")
        assert "mmsearch index FOLDER" in page.inner_text("#results")
        page.goto("about:blank")


def test_waiting_is_shown(opened: Opener) -> None:
    page = opened(c="photos", q="a bird")
    names(page)
    go = threading.Event()

    def late(route: Route) -> None:
        route.continue_() if go.is_set() else held.append(route)

    held: list[Route] = []
    page.route("**/search", late)
    page.fill("#q", "a dog")
    page.press("#q", "Enter")
    page.wait_for_selector("#results[aria-busy=true]")
    assert page.inner_text("#status") == "Searching …"
    page.click("#as-shop")  # another view: nothing that was there can stay
    page.wait_for_selector("#results .skeleton")
    go.set()
    for route in held[1:]:
        route.continue_()
    page.wait_for_selector("#results .product")
    page.unroute_all(behavior="ignoreErrors")


def test_a_server_that_stops_is_told_and_tried_again(opened: Opener, served_home: Path) -> None:
    with serving(served_home) as address:
        page = opened(at=address, quiet=False, c="photos", q="a bird")
        first = names(page)
    page.mouse.wheel(0, 20_000)
    page.wait_for_selector("#end >> text=The server does not answer.")
    assert names(page) == first, "what was there stays"
    page.fill("#q", "a dog")
    page.press("#q", "Enter")
    page.wait_for_selector("#results >> text=The server does not answer. Is it running?")
    with serving(served_home, port=port_of(address)):
        page.click(AGAIN)
        page.wait_for_selector(TILES)
        assert page.input_value("#q") == "a dog"
        page.goto("about:blank")


def test_a_busy_server_is_told_and_tried_again(opened: Opener, served_home: Path) -> None:
    with serving(served_home, Options(timeout=1e-6)) as address:
        page = opened(at=address, quiet=False, c="photos", q="a bird")
        page.wait_for_selector("#results [role=alert]")
        told = page.inner_text("#results")
        assert "too busy" in told or "takes longer" in told
        assert "Request " in told, "what to look for in the log"
    with serving(served_home, port=port_of(address)):
        page.click(AGAIN)
        page.wait_for_selector(TILES)
        page.goto("about:blank")


def test_a_server_with_keys_asks_for_one_and_pictures_come_too(opened: Opener, served_home: Path) -> None:
    keys = Keys(served_home)
    key, secret = keys.create("page", "search")
    try:
        with serving(served_home) as address:
            page = opened(at=address, quiet=False, c="photos", m="image")
            page.wait_for_selector("#ask[open]")
            page.fill("#key", "mms_wrong")
            page.click("#ask >> text=Use it")
            page.wait_for_selector("#ask-why >> text=refused")
            page.fill("#key", secret)
            page.press("#key", "Enter")
            names(page)
            page.wait_for_function("() => document.querySelector('#results img').naturalWidth > 0")
            page.reload()
            names(page)
            assert page.is_hidden("#ask")
            refused = opened(at=address, quiet=False)
            refused.wait_for_selector("#ask[open]")
            refused.keyboard.press("Escape")
            refused.wait_for_selector("#results [role=alert]")
            assert "give a key" in refused.inner_text("#results")
            for one in (page, refused):
                one.goto("about:blank")
    finally:
        keys.revoke(key.id)
