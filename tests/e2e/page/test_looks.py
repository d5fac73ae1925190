"""The page by keyboard alone, on a phone, light and dark; what axe and a look at the screenshots say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.page.conftest import EVIL, Opener, names

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

TILES = "#results .tile"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TABLET: dict[str, Any] = {"viewport": {"width": 820, "height": 1100}}
DARK: dict[str, Any] = {"color_scheme": "dark"}
FILTERED = ['category|"Shirts"', 'colour|"Red"']

Prepare = Callable[["Page"], object]


def detail(page: Page) -> None:
    page.locator(f"{TILES} > a").nth(1).click()
    page.wait_for_function("() => document.querySelector('#detail .media :is(img, audio, blockquote)')")
    page.wait_for_function("() => [...document.querySelectorAll('#detail img')].every((one) => one.complete)")


def filters(page: Page) -> None:
    page.click("#filters")
    page.wait_for_selector("#facets.open")


def helped(page: Page) -> None:
    page.click("#help")


def suggested(page: Page) -> None:
    page.fill("#q", "")
    page.type("#q", "ki")
    page.wait_for_selector("#suggestions li")


def pick(page: Page) -> None:
    page.click("#pick")


def cut(page: Page) -> None:
    detail(page)
    page.click("#detail .part")
    page.wait_for_selector("#crop button.go:not([disabled])")


def recording(page: Page) -> None:
    page.click("#speak")
    page.wait_for_selector("#notice >> text=Press again")


LOOKS: list[tuple[str, dict[str, Any], dict[str, Any], Prepare | None]] = [
    ("photos-light", {}, {"c": "photos", "q": "a bird", "t": "-0.5|text|sea"}, None),
    ("photos-dark", DARK, {"c": "photos", "q": "a bird", "why": "1"}, None),
    ("photos-phone", PHONE, {"c": "photos", "q": "a bird", "t": "1|text|a tree in the evening sun"}, None),
    ("photos-phone-dark", PHONE | DARK, {"c": "photos"}, None),
    ("texts-light", {}, {"c": "photos", "q": "how long may I keep a book", "m": "text"}, None),
    ("sounds-dark", DARK, {"c": "photos", "q": "a choir", "m": "audio"}, None),
    ("detail-light", {}, {"c": "photos", "q": "a bird", "m": "image"}, detail),
    ("detail-phone-dark", PHONE | DARK, {"c": "shop", "view": "shop"}, detail),
    ("shop-light", {}, {"c": "shop", "view": "shop", "f": 'colour|"Red"'}, None),
    ("shop-dark", DARK, {"c": "shop", "view": "shop", "q": "green hat"}, None),
    ("shop-phone", PHONE, {"c": "shop", "view": "shop"}, None),
    ("shop-phone-filters", PHONE, {"c": "shop", "view": "shop"}, filters),
    ("help-light", {}, {"c": "photos"}, helped),
    ("suggestions-dark", DARK, {"c": "photos", "q": "a bird"}, suggested),
    ("empty-light", {}, {"c": "photos", "r": "99||duration"}, None),
    ("empty-phone-dark", PHONE | DARK, {"c": "photos", "r": "99||duration"}, None),
    ("shop-filtered-dark", DARK, {"c": "shop", "view": "shop", "r": "20|40|price", "f": FILTERED}, None),
    ("shop-filtered-phone", PHONE, {"c": "shop", "view": "shop", "r": "20|40|price", "f": FILTERED}, None),
    ("shop-tablet", TABLET, {"c": "shop", "view": "shop", "f": 'category|"Shirts"'}, None),
    ("shop-phone-filters-dark", PHONE | DARK, {"c": "shop", "view": "shop"}, filters),
    ("shop-detail-light", {}, {"c": "shop", "view": "shop", "q": "green hat"}, detail),
    ("picker-light", {}, {"c": "shop", "view": "shop"}, pick),
    ("picker-phone-dark", PHONE | DARK, {"c": "shop", "view": "shop"}, pick),
    ("crop-light", {}, {"c": "photos", "q": "a bird", "m": "image"}, cut),
    ("crop-phone-dark", PHONE | DARK, {"c": "photos", "q": "a bird", "m": "image"}, cut),
    ("recording-phone", PHONE, {"c": "photos"}, recording),
    ("corrected-light", {}, {"c": "photos", "q": "kingfsher"}, None),
    ("corrected-phone-dark", PHONE | DARK, {"c": "photos", "q": "kingfsher"}, None),
    ("sounds-phone-dark", PHONE | DARK, {"c": "photos", "q": "a choir", "m": "audio"}, None),
    ("tablet-dark", TABLET | DARK, {"c": "photos", "q": "a dog", "why": "1"}, None),
]


@pytest.mark.parametrize(
    ("options", "asked", "prepare"), [look[1:] for look in LOOKS], ids=[look[0] for look in LOOKS]
)
def test_axe_finds_nothing_serious(
    opened: Opener,
    options: dict[str, Any],
    asked: dict[str, Any],
    prepare: Prepare | None,
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = opened(options=options, **asked)
    names(page)
    if prepare is not None:
        prepare(page)
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        (one["id"], node["html"][:200], node["failureSummary"])
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert not serious


def test_light_and_dark_follow_the_system(opened: Opener) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = opened(options={"color_scheme": scheme}, c="colours")
        names(page)
        told = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        grounds.append(sum(int(part) for part in told[4:-1].split(",")[:3]))
    assert grounds[0] > 3 * 220
    assert grounds[1] < 3 * 40


@pytest.mark.parametrize("view", ["grid", "shop"])
def test_everything_fits_a_phone(opened: Opener, view: str) -> None:
    page = opened(
        options=PHONE,
        c="shop",
        view=view,
        q="red",
        t=["1|text|a rather long term that does not end soon", "-0.5|text|blue"],
    )
    names(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    boxes = page.eval_on_selector_all(
        "h1, .tools > :not([hidden]), .box, #chips > li:first-child, .bar > :not([hidden])",
        """(all) => all.filter((one) => one.offsetWidth).map((one) => {
            const box = one.getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom];
        })""",
    )
    assert len(boxes) > 6
    rest = page.locator("#chips > li").last
    rest.scroll_into_view_if_needed()  # terms are a row that is moved sideways
    assert rest.bounding_box()["x"] >= 0  # type: ignore[index]
    page.evaluate("() => { document.getElementById('chips').scrollLeft = 0; }")
    for n, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= 390
        for other in boxes[n + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top, (
                "nothing overlaps"
            )
    small = page.eval_on_selector_all(
        "header :is(button, select), .bar :is(button, select), #tabs button",
        """(all) => all
            .filter((one) => one.offsetWidth && Math.min(one.offsetWidth, one.offsetHeight) < 30)
            .map((one) => one.outerHTML)""",
    )
    assert not small, "fingers need room"
    page.click("#filters")
    assert page.evaluate("() => document.activeElement.matches('#facets *')")
    sheet = page.locator("#facets").bounding_box()
    assert sheet == {"x": 0, "y": 0, "width": 390, "height": 844}, "nothing of the page is seen below"
    page.keyboard.press("Escape")
    page.wait_for_selector("#facets", state="hidden")
    assert page.evaluate("() => document.activeElement.id") == "filters"
    page.click("#filters")
    page.locator("#facets label", has_text="Red").first.tap()
    page.wait_for_selector("#filters >> text=Filters (1)", state="attached")
    found = page.inner_text("#facets .done")
    page.click("#facets .done")
    assert page.inner_text("#status").startswith(found.removeprefix("Show "))
    page.wait_for_selector("#filters >> text=Filters (1)")
    assert page.is_hidden("#facets")
    assert all("Red" in name or EVIL in name for name in names(page))


def test_the_page_is_used_by_keyboard_alone(opened: Opener) -> None:
    page = opened(c="photos", m="image")
    names(page)
    press = page.keyboard.press

    def focused(what: str) -> bool:
        return bool(page.evaluate("(what) => document.activeElement.matches(what)", what))

    order = [
        ".skip",
        "#home",
        "#q",
        "#pick",
        "#record",
        "#speak",
        ".go",
        "#collection",
        "#as-grid",
        "#as-shop",
        "#help",
    ]
    for what in order:
        press("Tab")
        assert focused(what), what
    for _ in range(40):
        if focused("#tabs button"):
            break
        press("Tab")
    assert focused("#tabs button")
    press("/")
    assert focused("#q")
    page.keyboard.type("a koala in a tree")
    press("Enter")
    page.wait_for_selector(f"{TILES} >> nth=0 >> text=koala")
    press("Escape")
    assert page.input_value("#q") == "a koala in a tree"
    page.focus(".skip")
    press("Enter")
    press("ArrowDown")
    assert focused("#results .tile:first-child > a")
    press("ArrowRight")
    assert focused("#results .tile:nth-child(2) > a")
    press("ArrowLeft")
    press("ArrowDown")
    below = page.evaluate(
        "() => document.activeElement.closest('.tile').offsetTop > document.querySelector('#results .tile').offsetTop"
    )
    assert below
    press("ArrowUp")
    assert focused("#results .tile:first-child > a")
    press("Enter")
    page.wait_for_selector("#detail[open] h2 >> text=koala")
    assert focused("#detail-title")
    press("Tab")
    assert page.evaluate("() => document.getElementById('detail').contains(document.activeElement)")
    press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    assert focused("#results .tile:first-child > a")
    press("w")
    page.wait_for_selector(f"{TILES} .reason")
    press("w")
    page.wait_for_selector(f"{TILES} .reason", state="detached")
