"""What a shop's page has beside words: a price slider, ways through categories, filters in use, parts of pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import PIL.Image
import pytest

from tests.e2e.page.conftest import Opener, names, type_in, until
from tests.e2e.page.test_shop import CARDS, prices, status
from tests.toy import COLOURS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PRICES = [5.0 + n for n in range(60)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def box(found: Locator) -> tuple[float, float, float, float]:
    """Left, top, width, height."""
    told = found.bounding_box()
    assert told is not None
    return told["x"], told["y"], told["width"], told["height"]


# -- the price


def test_the_price_slider_filters_by_keyboard(opened: Opener) -> None:
    page = opened(c="shop", view="shop", f='category|"Hats"')
    status(page, "30 products")
    low, high = "[aria-label='Price from, slider']", "[aria-label='Price to, slider']"
    assert page.get_attribute(low, "aria-valuetext") == "€5.00"
    page.focus(low)
    page.keyboard.press("PageUp")
    page.wait_for_url("**r=*")
    page.wait_for_selector("#applied >> text=Price from")
    least = float(page.input_value("[aria-label='Price, from']"))
    assert 5 < least < 20
    wanted = [price for price in PRICES[1::2] if price >= least]
    status(page, f"{len(wanted)} products")
    assert sorted(prices(page)) == wanted
    assert page.evaluate("document.activeElement.dataset.facet") == "price|thumb0", (
        "the thumb keeps the focus"
    )
    page.focus(high)
    page.keyboard.press("Home")
    page.wait_for_selector("#applied >> text=–")
    assert page.input_value("[aria-label='Price, to']") == f"{least:g}", "no thumb passes the other one"
    page.focus(high)
    page.keyboard.press("End")
    page.wait_for_selector("#applied >> text=Price from")
    page.focus(low)
    page.keyboard.press("Home")
    status(page, "30 products")
    assert page.locator("#applied li").count() == 0


def test_the_price_slider_is_drawn_and_shows_what_lies_where(opened: Opener) -> None:
    page = opened(c="shop")
    status(page, "60 results")
    bars = page.locator("#facets fieldset:has-text('Price') .bars span")
    heights = bars.evaluate_all("(all) => all.map((one) => one.offsetHeight)")
    assert len(heights) == 25
    assert min(heights) > 0, "prices are spread evenly"
    left, top, width, height = box(page.locator(".slider").first)
    page.mouse.move(left + 10, top + height - 12)
    page.mouse.down()
    page.mouse.move(left + width / 2, top + height - 12, steps=5)
    assert page.input_value("[aria-label='Price, from']") in ("34", "35"), "it is told while it is moved"
    assert "r=" not in page.url, "and searched for when it is let go"
    page.mouse.up()
    page.wait_for_url("**r=*")
    least = float(page.input_value("[aria-label='Price, from']"))
    status(page, f"{sum(price >= least for price in PRICES)} results")
    inside = bars.evaluate_all("(all) => all.filter((one) => one.classList.contains('in')).length")
    assert inside in (12, 13)
    page.reload()
    status(page, f"{sum(price >= least for price in PRICES)} results")


def test_a_product_has_a_way_to_the_shop_itself(opened: Opener) -> None:
    page = opened(c="shop", view="shop", s="price|up")
    names(page)
    page.locator(f"{CARDS} > a").nth(1).click()
    page.wait_for_selector("#detail h2 >> text=Hat 1")
    assert page.get_attribute("#detail >> text=To the shop", "href") == "https://shop.example/1"
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#detail h2 >> text=Shirt")
    assert page.locator("#detail >> text=To the shop").count() == 0, (
        "an address that is a script leads nowhere"
    )


def test_what_is_sold_out_can_be_left_out(opened: Opener) -> None:
    page = opened(c="shop", view="shop", f='category|"Hats"')
    status(page, "30 products")
    assert page.locator(f"{CARDS} .badge").count() == 0, "hats have 1 or 3"
    page.click("#tabs button:has-text('Shirts')")
    page.locator("#facets label", has_text="In stock").click()
    page.wait_for_selector("#applied >> text=In stock")
    names(page)
    assert page.locator(f"{CARDS} .badge").count() == 0
    assert names(page)


# -- categories and filters in use


def test_categories_lead_down_and_back_up(opened: Opener) -> None:
    page = opened(c="shop", view="shop")
    names(page)
    assert page.is_hidden("#way")
    page.wait_for_function("() => document.querySelectorAll('#tabs img').length === 2")
    page.click("#tabs button:has-text('Shirts')")
    page.wait_for_selector("#way >> text=Shirts")
    assert page.locator("#tabs button").all_inner_texts() == ["All Shirts", "Blouses", "Polos", "Polos, 100%"]
    page.wait_for_function(
        """() => {
            const all = [...document.querySelectorAll("#tabs img")];
            return all.length === 3 && all.every((one) => one.naturalWidth > 0);
        }"""
    )
    page.click("#tabs button:has-text('100%')")
    wanted = {f"shirt-{n // 4}" for n in range(0, 60, 2) if n % 3 == 2}
    status(page, f"{len(wanted)} products")
    page.reload()
    status(page, f"{len(wanted)} products")
    page.click("#way >> text=Shirts")
    status(page, "15 products")
    page.go_back()
    status(page, f"{len(wanted)} products")
    page.click("#way >> text=Everything")
    status(page, "45 products")
    assert page.is_hidden("#way")


def test_filters_in_use_are_told_and_taken_back_one_by_one(opened: Opener) -> None:
    page = opened(c="shop", f=['colour|"Red"', 'colour|"Blue"', 'category|"Hats"'], r="20|40|price")
    names(page)
    told = page.locator("#applied li").all_inner_texts()
    assert [text.split("\n")[0].rstrip("×") for text in told] == [
        "Red",
        "Blue",
        "Hats",
        "Price €20.00 – €40.00",
        "Clear all",
    ]
    page.click("#applied button:has-text('Price')")
    page.wait_for_url(lambda url: "r=" not in url)
    page.click("#applied button:has-text('Blue')")
    status(page, "6 results")
    page.click("#applied >> text=Clear all")
    status(page, "60 results")
    assert page.locator("#applied li").count() == 0


def test_words_that_were_read_otherwise_are_told(opened: Opener) -> None:
    page = opened(c="photos", q="kingfsher")
    names(page)
    assert page.inner_text("#said").startswith("“kingfsher” was read as kingfisher.")
    page.click("#said >> text=Search for it as typed")
    page.wait_for_url("**typed=1*")
    page.wait_for_selector("#said >> text=Only words as they are typed")
    page.click("#said >> text=Allow for mistakes")
    page.wait_for_selector("#said button:text-is('kingfisher')")
    page.click("#said button:text-is('kingfisher')")
    page.wait_for_url("**q=kingfisher*")
    page.wait_for_selector("#said", state="hidden")
    assert page.input_value("#q") == "kingfisher"
    assert "kingfisher" in names(page)[:3]


# -- pictures


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Red on the left, blue on the right."""
    picture = PIL.Image.new("RGB", (300, 200), COLOURS["red"])
    picture.paste(COLOURS["blue"], (150, 0, 300, 200))
    picture.save(tmp_path / "flag.png")
    return tmp_path / "flag.png"


def chip(page: Page, text: str) -> None:
    page.wait_for_selector(f"#chips .name >> text={text}")
    names(page)


def test_a_part_of_a_picture_is_searched_with(opened: Opener, flag: Path) -> None:
    page = opened(c="colours", m="image")
    names(page)
    page.set_input_files("#file", flag)
    chip(page, "flag.png")
    page.click("#chips .seen")
    page.wait_for_selector("#crop button.go:not([disabled])")
    left, top, width, height = box(page.locator("#crop img"))
    assert width / height == pytest.approx(1.5, abs=0.01)
    page.mouse.move(left + 0.95 * width, top + 0.05 * height)
    page.mouse.down()
    page.mouse.move(left + 0.6 * width, top + 0.9 * height, steps=4)
    page.mouse.up()
    page.click("#crop >> text=Search with this part")
    chip(page, "part of flag.png")
    until(page, "blue")
    page.reload()
    until(page, "blue")
    page.go_back()
    chip(page, "flag.png")
    page.click("#chips .seen")
    page.wait_for_selector("#crop button.go:not([disabled])")
    for _ in range(50):
        page.keyboard.press("Shift+ArrowLeft")  # as narrow as it gets
    for _ in range(50):
        page.keyboard.press("ArrowLeft")  # and to the left edge
    page.keyboard.press("Enter")
    chip(page, "part of flag.png")
    until(page, "red")


def test_a_part_of_a_result_is_searched_with(opened: Opener) -> None:
    page = opened(c="colours", m="image")
    names(page)
    page.locator("#results .tile", has_text="sideways").locator("a").click()
    page.click("#detail .part")
    page.wait_for_selector("#crop button.go:not([disabled])")
    left, top, width, height = box(page.locator("#crop img"))
    page.mouse.move(left + 0.1 * width, top + 0.04 * height)
    page.mouse.down()
    page.mouse.move(left + 0.9 * width, top + 0.28 * height, steps=4)
    page.mouse.up()
    page.click("#crop >> text=Search with this part")
    chip(page, "part of sideways")
    until(page, "blue")  # upright, blue is the top third
    assert page.is_hidden("#detail")


def test_the_camera_button_offers_files_a_photo_and_a_recording(opened: Opener, flag: Path) -> None:
    page = opened(options=PHONE, c="colours", m="image")
    names(page)
    page.tap("#pick")
    assert page.is_visible("#photograph")
    assert page.get_attribute("#camera", "capture") == "environment"
    with page.expect_file_chooser() as asked:
        page.tap("#photograph")
    asked.value.set_files(flag)
    chip(page, "flag.png")
    assert page.is_hidden("#picker")
    page.tap("#pick")
    with page.expect_file_chooser() as asked:
        page.tap("#choose")
    assert asked.value.is_multiple()
    asked.value.set_files([])
    page.tap("#pick") if page.is_hidden("#picker") else None
    page.tap("#hear")
    page.wait_for_selector("#notice >> text=Press again")
    page.keyboard.press("Escape")
    page.wait_for_selector("#record[aria-pressed=false]", state="attached")
    desk = opened(c="colours", m="image")
    names(desk)
    desk.click("#pick")
    assert desk.is_hidden("#photograph"), "a desk has no camera to point"


def test_an_open_product_shows_others_like_it(opened: Opener, site: str) -> None:
    page = opened(c="shop", view="shop", q="green hat")
    names(page)
    first = int(page.locator(CARDS).first.get_attribute("data-item") or 0)
    page.locator(f"{CARDS} > a").first.click()
    shown = page.locator("#detail .alike button")
    shown.first.wait_for()
    body = {
        "terms": [{"item": first}],
        "k": 8,
        "modality": "image",
        "group_by": "parent",
        "group_size": 6,
    }
    found = httpx.post(f"{site}/v1/collections/shop/search", json=body).json()["hits"]
    assert shown.all_inner_texts() == [hit["item"]["title"] for hit in found if hit["item"]["id"] != first]
    title = shown.nth(2).inner_text()
    shown.nth(2).click()
    page.wait_for_function("(title) => document.querySelector('#detail h2').textContent === title", arg=title)


# -- moving about


def test_back_leads_to_the_same_place(opened: Opener) -> None:
    page = opened(c="photos")
    first = names(page)
    while page.locator("#results .tile").count() < 93:
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
    page.evaluate("() => scrollTo(0, document.body.scrollHeight - innerHeight - 300)")
    page.wait_for_timeout(300)  # pictures come in
    place = page.evaluate("() => Math.round(scrollY)")
    assert place > 2000
    type_in(page, "a choir")
    until(page, "choir")
    assert page.evaluate("() => scrollY") < 100, "new results are seen from the first on"
    page.go_back()
    until(page, first[0])
    assert page.locator("#results .tile").count() == 93
    page.wait_for_function("(place) => Math.abs(scrollY - place) < 20", arg=place)
    page.reload()
    until(page, first[0])
    page.wait_for_function("(place) => Math.abs(scrollY - place) < 20", arg=place)


@pytest.mark.parametrize("view", ["grid", "shop"])
def test_pictures_that_come_late_move_nothing(opened: Opener, view: str) -> None:
    page = opened(c="photos", m="image")
    names(page)
    held: list[Route] = []
    go: list[bool] = []
    page.route("**/thumbnail?*", lambda route: route.continue_() if go else held.append(route))
    page.goto(page.url + f"&view={view}")
    names(page)
    where = """() => [...document.querySelectorAll("#results .tile")].map((one) => {
        const box = one.getBoundingClientRect();
        return [box.left, box.top, box.width, box.height].map(Math.round);
    })"""
    loaded = "[...document.querySelectorAll('#results img')].filter((one) => one.naturalWidth).length"
    page.wait_for_timeout(300)
    assert page.evaluate(loaded) == 0
    before = page.evaluate(where)
    assert len(before) >= 40
    go.append(True)
    for route in held:
        route.continue_()
    page.wait_for_function(f"() => {loaded} > 15")
    assert page.evaluate(where)[: len(before)] == before
    page.unroute_all(behavior="ignoreErrors")


def test_a_sound_is_played_and_stopped_by_its_button(opened: Opener) -> None:
    page = opened(c="colours", q="green", m="audio")
    until(page, "tones")
    page.evaluate("() => { document.querySelector('#results audio').muted = true; }")
    page.click("[aria-label='Play tones']")
    page.wait_for_function("() => document.querySelector('#results audio').currentTime > 4")
    assert page.is_visible(".playing .play")
    page.click("[aria-label='Pause tones']")
    page.wait_for_selector("[aria-label='Play tones']")
    track = page.locator("[aria-label='Position in tones']")
    assert float(track.get_attribute("max") or 0) == pytest.approx(8, abs=0.1)
    assert float(track.input_value()) >= 4, "green is the second half"
    track.focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#results audio').currentTime < 0.5")
    passage = page.eval_on_selector(
        ".player", "(one) => [one.style.getPropertyValue('--from'), one.style.getPropertyValue('--to')]"
    )
    told = [float(value) for value in re.findall(r"[\d.]+", page.inner_text("#results .small >> nth=0"))]
    assert [8 * float(value) for value in passage] == pytest.approx(told, abs=0.1)
