"""The page as a storefront."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page.conftest import EVIL, Opener, names
from tests.toy import COLOURS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CARDS = "#results .product"
KIND = ("Shirt", "Hat")


def prices(page: Page) -> list[float]:
    """Of each card the price, or the highest of its variants."""
    names(page)
    told = page.locator(f"{CARDS} .price").all_inner_texts()
    return [float(text.rpartition("€")[2]) for text in told]


def status(page: Page, text: str) -> None:
    page.wait_for_selector(f"#results:not([aria-busy]) >> xpath=//ancestor::main >> #status >> text={text}")


def test_products_are_cards_with_variants_collapsed(opened: Opener) -> None:
    page = opened(c="shop", view="shop", s="price|up")
    names(page)
    status(page, "45 products")  # thirty hats, and thirty shirts of which two each share a parent
    first = page.locator(CARDS).first
    assert first.locator(".price").inner_text() == "€5.00 – €7.00"
    assert first.locator(".facts").inner_text().endswith("2 variants")
    assert first.locator(".badge").inner_text() == "Sold out"
    assert first.locator(".name").inner_text() == f"White {EVIL} Shirt"
    assert first.locator(".dot").count() == 2
    assert page.locator(CARDS).nth(1).locator(".price").inner_text() == "€6.00"
    first.locator("a").click()
    page.wait_for_selector("#detail .variants")
    assert page.inner_text("#detail .facts .variants") == "Blue · €7.00", "what is different about it"
    page.click("#detail .variants button")
    page.wait_for_selector("#detail h2 >> text=Blue Shirt 2")
    assert page.inner_text("#detail .price") == "€7.00"
    assert page.title() != "1"


def test_categories_are_tabs(opened: Opener) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    assert page.locator("#tabs button").all_inner_texts() == ["Everything", "Hats", "Shirts"]
    page.click("#tabs >> text=Hats")
    status(page, "30 products")
    assert all("Hat" in name for name in names(page))
    assert page.get_attribute("#tabs button:has-text('Hats')", "aria-pressed") == "true"
    page.reload()
    status(page, "30 products")
    page.click("#tabs >> text=Everything")
    status(page, "45 products")


def test_price_and_colour_narrow_with_counts_and_swatches(opened: Opener) -> None:
    page = opened(c="shop", view="shop", f='category|"Hats"')
    names(page)
    colours = page.locator("#facets .colours label")
    counts = {row.inner_text().split("\n")[0]: row.locator(".count").inner_text() for row in colours.all()}
    assert counts == {name.title(): "6" for name in COLOURS}
    dots = colours.locator(".dot").evaluate_all(
        "(dots) => dots.map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(dots)) == len(COLOURS)
    page.fill("[aria-label='Price, from']", "20")
    page.press("[aria-label='Price, from']", "Tab")
    status(page, str(sum(5 + n >= 20 for n in range(1, 60, 2))))
    page.fill("[aria-label='Price, to']", "30")
    page.press("[aria-label='Price, to']", "Tab")
    wanted = [5.0 + n for n in range(1, 60, 2) if 20 <= 5 + n <= 30]
    status(page, f"{len(wanted)} products")
    assert sorted(prices(page)) == wanted
    colours.filter(has_text="Red").click()
    colours.filter(has_text="Blue").click()
    wanted = [
        5.0 + n for n in range(1, 60, 2) if 20 <= 5 + n <= 30 and list(COLOURS)[n % 5] in ("red", "blue")
    ]
    status(page, f"{len(wanted)} product")
    assert sorted(prices(page)) == wanted
    assert page.inner_text("#facets .clear") == "Clear 3 filters"


def test_values_with_quotes_are_filtered_by(opened: Opener) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    page.locator("#facets label", has_text="Acme's").click()
    status(page, "8 products")  # five hats, and five shirts of which four share a parent
    page.reload()
    status(page, "8 products")


def test_products_are_sorted_and_found_by_words(opened: Opener) -> None:
    page = opened(c="shop", view="shop", q="green hat")
    names(page)
    assert all(name.startswith("Green Hat") for name in names(page)[:6])
    assert set(page.locator(f"{CARDS} mark").all_inner_texts()) >= {"Green", "Hat"}
    page.select_option("#sort", "price|down")
    page.wait_for_url(re.compile("price%7Cdown"))
    found = prices(page)
    assert found == sorted(found, reverse=True)


def test_a_photo_finds_the_product(opened: Opener, served_home: Path) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    page.set_input_files("#file", served_home.parent / "products" / "11.png")  # a hat
    page.wait_for_selector("#chips li")
    names(page)
    assert names(page)[0].startswith("Green Hat"), "the same drawing, of which there are six"
    page.click("#as-grid")
    page.wait_for_selector("#results .picture")
    page.wait_for_url(lambda url: "view=shop" not in url)


def test_shirts_of_one_parent_are_apart_outside_the_shop(opened: Opener) -> None:
    page = opened(c="shop")
    names(page)
    status(page, "60 results")
