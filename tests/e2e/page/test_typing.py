"""What is suggested while one types, and what is marked of what was typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from indexer.pipeline import index
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.e2e.page.conftest import TILES, Opener, names, until
from tests.e2e.page.test_shop import CARDS, status
from tests.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

LATE = (
    "👩‍👩‍👧 Nobody came to see it. " * 20
    + "Then 🙂 a Cafe\u0301 opened, size XL, with 𝒢reen chairs. "
    + "Many came. " * 40
)
TEXTS = {
    "early": "🙂👍🏽 The green bottle is XL 🎉 and green again.",
    "late": LATE,
    "עברית": "הדלת הירוקה green נסגרה 🙂 לאט מאוד",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over a few texts with characters beyond the first 65,536 and from right to left."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "in").mkdir()
    for name, text in TEXTS.items():
        (folder / "in" / f"{name}.txt").write_text(text, encoding="utf-8")
    with Engine.open(folder / "home", model=save_colour_model(folder / "model")) as engine:
        index(engine, [folder / "in"])
    with serving(folder / "home") as address:
        yield address


def marks(page: Page, title: str) -> list[str]:
    return page.locator(TILES, has_text=title).locator("p mark").all_text_contents()


def test_marks_are_where_the_words_are_whatever_stands_before_them(opened: Opener, texts: str) -> None:
    page = opened(at=texts, q="green xl")
    names(page)
    assert marks(page, "early") == ["green", "XL", "green"], "words of two letters too"
    assert page.locator(TILES, has_text="early").locator("p").text_content() == TEXTS["early"]
    page = opened(at=texts, q="café")
    names(page)
    assert marks(page, "late") == ["Cafe\u0301"]
    shown = page.locator(TILES, has_text="late").locator("p").text_content() or ""
    assert shown.startswith("… ")
    assert shown[2:] in LATE
    assert shown.index("Cafe\u0301") < 200
    page = opened(at=texts, q="הירוקה")
    names(page)
    assert marks(page, "עברית") == ["הירוקה"]


def test_what_is_written_from_right_to_left_begins_on_the_right(opened: Opener, texts: str) -> None:
    page = opened(at=texts, q="green")
    names(page)
    gaps = """(one) => {
        const range = document.createRange();
        range.selectNodeContents(one);
        const [text, box] = [range.getBoundingClientRect(), one.getBoundingClientRect()];
        return [Math.round(text.left - box.left), Math.round(box.right - text.right)];
    }"""
    left, right = page.locator(TILES, has_text="עברית").locator("strong").evaluate(gaps)
    assert (left > 20, right < 50) == (True, True)
    left, right = page.locator(TILES, has_text="early").locator("strong").evaluate(gaps)
    assert left == 0


def test_a_value_narrows_and_the_words_before_it_are_searched_for(opened: Opener, site: str) -> None:
    page = opened(c="shop")
    names(page)
    page.type("#q", "red ha")
    page.wait_for_selector("#suggestions li")
    told = [" ".join(one.split()) for one in page.locator("#suggestions li").all_inner_texts()]
    found = httpx.get(f"{site}/v1/collections/shop/suggest", params={"text": "red ha", "k": 7}).json()
    assert [one["source"] for one in found["suggestions"]] == ["phrase", "value", *["title"] * 5]
    assert told[:2] == ["red hat", "red in Hats Category"]
    while page.locator("#suggestions [aria-selected=true]").all_inner_texts()[:1] != [
        "red in Hats\nCategory"
    ]:
        page.press("#q", "ArrowDown")
    page.press("#q", "Enter")
    page.wait_for_url("**f=*")
    asked = parse_qs(urlsplit(page.url).query)
    assert (asked["q"], asked["f"]) == (["red"], ['category|"Hats"'])
    assert page.input_value("#q") == "red"
    assert page.is_hidden("#suggestions")
    status(page, "30 products" if page.locator(CARDS).count() else "30 results")


def test_a_narrow_category_that_is_chosen_alone_is_told(opened: Opener) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    page.type("#q", "blou")
    page.wait_for_selector("#suggestions li >> text=Blouses")
    page.locator("#suggestions li", has_text="Blouses").click()
    page.wait_for_selector("#applied >> text=Blouses")
    assert page.input_value("#q") == ""
    page.click("#applied >> text=Blouses")
    page.wait_for_selector("#applied >> text=Blouses", state="detached")


def test_what_is_misspelt_is_put_right_while_it_is_typed(opened: Opener) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    page.type("#q", "grene shrit")
    page.wait_for_selector("#suggestions li >> text=green shirt")
    page.locator("#suggestions li").first.click()
    page.wait_for_url("**q=green+shirt*")
    assert "Green" in names(page)[0]


def test_all_modules_are_asked_for_at_once(opened: Opener) -> None:
    page = opened(c="colours")
    until(page, names(page)[0])
    loaded = page.evaluate(
        """performance.getEntriesByType('resource').map((one) => one.name.split('/').pop())
            .filter((one) => one.endsWith('.js'))"""
    )
    told = page.locator("link[rel=modulepreload]").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('href'))"
    )
    assert sorted([*told, "app.js"]) == sorted(set(loaded))
