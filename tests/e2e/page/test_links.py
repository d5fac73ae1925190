"""What the address of the page holds."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.page.conftest import TILES, Opener, names, type_in, until

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def test_a_link_finds_the_same_and_so_do_back_and_forth(opened: Opener) -> None:
    page = opened(c="photos")
    start = names(page)
    type_in(page, "a bird")
    birds = until(page, "crow")
    type_in(page, "- sea")
    page.wait_for_selector("#chips li.minus")
    page.locator("#facets label", has_text="JPEG").click()
    page.wait_for_selector("#status >> text=64 results")
    page.select_option("#sort", "title|up")
    last = until(page, "arch")
    page.keyboard.press("Escape")
    other = opened(**_parameters(page.url))
    assert until(other, "arch") == last
    assert other.locator("#chips li.minus").count() == 1
    page.reload()
    assert until(page, "arch") == last
    for _ in range(3):
        page.go_back()
    assert until(page, birds[0]) == birds
    assert page.input_value("#q") == "a bird"
    page.go_back()
    assert until(page, start[0]) == start
    assert page.input_value("#q") == ""
    page.go_forward()
    assert until(page, birds[0]) == birds


def _parameters(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


def test_a_picture_stays_after_a_reload_and_is_told_missing_elsewhere(opened: Opener, blue: Path) -> None:
    page = opened(c="colours", m="image")
    names(page)
    page.set_input_files("#file", blue)
    until(page, "blue")
    page.reload()
    until(page, "blue")
    assert page.locator("#chips .name").inner_text().startswith("blue.png")
    page.click("#home")
    page.wait_for_selector("#chips li", state="detached")
    page.go_back()
    until(page, "blue")
    other = opened(**_parameters(page.url))
    other.wait_for_selector("#notice.error >> text=blue.png")
    assert len(names(other)) == 6


def test_an_item_has_a_link_and_back_closes_it(opened: Opener) -> None:
    page = opened(c="photos", q="a koala in a tree", m="image")
    until(page, "koala")
    page.locator(f"{TILES} > a").first.click()
    page.wait_for_selector("#detail[open] h2 >> text=koala")
    link = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#detail h2').textContent !== 'koala'")
    page.go_back()
    page.wait_for_selector("#detail", state="hidden")
    assert until(page, "koala")
    other = opened(**_parameters(link))
    other.wait_for_selector("#detail[open] h2 >> text=koala")
    other.wait_for_function("() => document.querySelector('#detail img')?.naturalWidth > 300")
    other.click("#detail [aria-label=Close]")
    other.wait_for_url(lambda url: "item=" not in url)
    other.reload()
    assert until(other, "koala")
    assert other.is_hidden("#detail")
