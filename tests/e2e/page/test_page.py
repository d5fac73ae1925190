"""Searching on the page: by words, files, sounds and items; what is shown; what a link holds."""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.e2e.page.conftest import EVIL, TILES, Opener, names, type_in, until
from tests.toy import COLOURS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

DATA = Path(__file__).parents[3] / "data"


def transfer(page: Page, path: Path, kind: str) -> Any:
    """A ``DataTransfer`` with a file, as a drop or a paste carries one."""
    return page.evaluate_handle(
        """([name, kind, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type: kind }));
            return transfer;
        }""",
        [path.name, kind, base64.b64encode(path.read_bytes()).decode()],
    )


# -- asking


def test_words_find_the_photo(opened: Opener) -> None:
    page = opened(c="photos")
    names(page)
    type_in(page, "a bird with blue feathers")
    page.click("#tabs >> text=Pictures")
    until(page, "kingfisher")
    assert "a+bird" in page.url
    assert page.title() == "a bird with blue feathers · mmsearch"
    assert page.inner_text("#status").startswith("64 results")


def test_suggestions_complete_what_is_typed_by_keyboard(opened: Opener) -> None:
    page = opened(c="photos")
    names(page)
    page.type("#q", "kin")
    options = page.locator("#suggestions [role=option]")
    options.first.wait_for()
    assert "kingfisher" in options.all_inner_texts()
    while page.locator("#suggestions [aria-selected=true]").all_inner_texts() != ["kingfisher"]:
        page.press("#q", "ArrowDown")
    chosen = page.get_attribute("#q", "aria-activedescendant")
    assert page.inner_text(f"#{chosen}") == "kingfisher"
    page.press("#q", "Enter")
    page.wait_for_url("**q=kingfisher")
    assert "kingfisher" in names(page)[:3]
    assert page.input_value("#q") == "kingfisher"
    page.fill("#q", "kit")
    options.first.wait_for()
    page.press("#q", "Escape")
    page.wait_for_selector("#suggestions", state="hidden")
    assert page.input_value("#q") == "kit"


def test_a_chosen_a_dropped_and_a_pasted_picture_are_searched_with(opened: Opener, blue: Path) -> None:
    page = opened(c="colours", m="image")
    names(page)
    page.set_input_files("#file", blue)
    until(page, "blue")
    assert page.locator("#chips li").count() == 1
    page.wait_for_function("() => document.querySelector('#chips img').naturalWidth === 48")
    page.click("#chips [aria-label='Remove blue.png']")
    page.wait_for_selector("#chips li", state="detached")
    data = transfer(page, blue.with_name("red.png"), "image/png")
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    assert page.is_visible("#drop")
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    assert page.is_hidden("#drop")
    until(page, "red")
    page.click("#chips [aria-label='Remove red.png']")
    page.evaluate(
        "(data) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, cancelable: true }))",
        transfer(page, blue.with_name("green.png"), "image/png"),
    )
    until(page, "green")
    page.set_input_files("#file", blue.with_name("notes.txt"))
    assert "Only pictures and sounds" in page.inner_text("#notice")


def test_a_recorded_sound_is_searched_with(opened: Opener) -> None:
    page = opened(c="colours", m="image")
    names(page)
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_selector("#notice >> text=Press again")
    page.wait_for_timeout(1200)
    page.click("#record")
    until(page, "green")
    assert page.locator("#chips .name").inner_text().startswith("recording.wav")
    page.click("#record")
    page.wait_for_selector("#notice >> text=Press again")
    page.keyboard.press("Escape")
    page.wait_for_selector("#record[aria-pressed=false]")
    assert page.locator("#chips li").count() == 1, "what was thrown away is no term"
    for end, terms in (("Discard", 1), ("Done", 2)):
        page.click("#record")
        page.wait_for_selector("#notice.recording")
        page.wait_for_timeout(600)
        page.click(f"#notice button:text-is('{end}')")
        page.wait_for_selector("#record[aria-pressed=false]")
        page.wait_for_selector("#notice", state="hidden")
        assert page.locator("#chips li").count() == terms
    until(page, "green")


@pytest.mark.skipif(importlib.util.find_spec("faster_whisper") is not None, reason="the extra is installed")
def test_speaking_without_the_extra_says_what_to_install(opened: Opener) -> None:
    page = opened(c="photos", quiet=False)
    names(page)
    page.click("#speak")
    page.wait_for_selector("#notice >> text=Press again")
    page.wait_for_timeout(600)
    page.click("#speak")
    page.wait_for_selector("#notice.error")
    told = page.inner_text("#notice")
    assert told.startswith("This server does not understand speech yet:")
    assert "mmsearch[voice]" in told, "what to install"
    assert page.is_visible(f"{TILES} >> nth=0")


def test_terms_add_up_with_their_weights_and_signs(opened: Opener) -> None:
    page = opened(c="colours", q="red", m="image", why="1")
    until(page, "red")
    type_in(page, "+ green")
    page.wait_for_selector("#chips li.plus")
    assert page.input_value("#q") == "red"
    assert shown_scores(page) == pytest.approx(expected({"red": 1, "green": 1}), abs=1e-3)
    page.click("#chips [aria-label='More weight for green']")
    page.click("#chips [aria-label='More weight for green']")
    page.wait_for_url(re.compile(r"t=1\.5%7Ctext%7Cgreen"))
    until(page, "green")
    assert shown_scores(page) == pytest.approx(expected({"red": 1, "green": 1.5}), abs=1e-3)
    page.click("#chips button:text-is('+')")
    page.wait_for_selector("#chips li.minus")
    until(page, "red")
    assert shown_scores(page) == pytest.approx(expected({"red": 1, "green": -1.5}), abs=1e-3)
    page.focus("#q")
    page.fill("#q", "")
    page.press("#q", "Backspace")
    page.wait_for_selector("#chips li", state="detached")


def expected(weights: dict[str, float]) -> dict[str, float]:
    """The cosines of the colours' pictures with the query, from the toy model's definition."""

    def unit(rgb: Any) -> Any:
        vector = np.array([*(np.array(rgb) / 255), 0.25])
        return vector / np.linalg.norm(vector)

    query = sum(weight * unit(COLOURS[name]) for name, weight in weights.items())
    query = query / np.linalg.norm(query)
    return {name: float(unit(rgb) @ query) for name, rgb in COLOURS.items()}


def shown_scores(page: Page) -> dict[str, float]:
    titles = names(page)
    told = page.locator(f"{TILES} .reason").all_inner_texts()
    found = {
        title: float(re.findall(r"vector (-?[\d.]+)", text)[0])
        for title, text in zip(titles, told, strict=True)
    }
    return {title: score for title, score in found.items() if title in COLOURS}


def test_more_and_less_like_an_item(opened: Opener) -> None:
    page = opened(c="photos", m="image", q="a bird")
    names(page)
    tile = page.locator(TILES, has_text="kingfisher")
    tile.hover()
    tile.locator(".more").click()
    page.wait_for_selector("#chips li.plus >> text=kingfisher")
    page.wait_for_function("() => !document.querySelector('#results').hasAttribute('aria-busy')")
    assert "kingfisher" not in names(page)
    assert page.input_value("#q") == ""
    first = names(page)[0]
    page.locator(f"{TILES} > a").first.click()
    page.click("#detail >> text=Less like this")
    page.wait_for_selector("#chips li.minus")
    page.wait_for_function("() => !document.querySelector('#results').hasAttribute('aria-busy')")
    assert first not in names(page)
    assert page.locator("#chips li").count() == 2


# -- what is shown


def test_the_grid_is_justified_and_cuts_nothing_off(opened: Opener, site: str) -> None:
    page = opened(c="photos", m="image")
    names(page)
    page.wait_for_function(
        "() => [...document.images].filter((one) => one.complete && one.naturalWidth).length > 5"
    )
    boxes = page.eval_on_selector_all(
        TILES,
        """(tiles) => tiles.map((one) => {
            const box = one.getBoundingClientRect(), image = one.querySelector("img");
            const shape = image?.naturalWidth / image?.naturalHeight || 0;
            return [box.left, box.top, box.right, box.height, box.width / box.height, shape];
        })""",
    )
    rows: dict[int, list[list[float]]] = {}
    for box in boxes:
        rows.setdefault(round(box[1]), []).append(box)
    edges = {round(max(box[2] for box in row)) for row in list(rows.values())[:-1]}
    assert len(edges) == 1, "all rows but the last are as long as the page"
    assert len(rows) > 5
    for row in rows.values():
        assert np.ptp([box[3] for box in row]) < 1, "one height for a row"
    loaded = [box for box in boxes if box[5]]
    assert all(abs(box[4] / box[5] - 1) < 0.02 for box in loaded if 0.5 < box[5] < 3)
    assert len(loaded) < len(boxes), "pictures far below wait"
    upright = opened(c="colours", m="image")
    names(upright)
    page = upright
    page.wait_for_function("() => [...document.images].every((one) => one.complete)")
    shape = page.eval_on_selector(
        f"{TILES}:has-text('sideways')",
        """(one) => {
            const image = one.querySelector("img");
            return [image.naturalWidth, image.naturalHeight, one.offsetWidth / one.offsetHeight];
        }""",
    )
    assert shape == [40, 60, pytest.approx(2 / 3, abs=0.02)]


def test_texts_are_snippets_with_marks_and_nothing_becomes_markup(opened: Opener) -> None:
    page = opened(c="colours", q="green bottle", m="text")
    until(page, "notes")
    assert page.locator(f"{TILES} mark").first.inner_text() == "green"
    assert {"bottle", "green"} <= set(page.locator(f"{TILES} mark").all_inner_texts())
    told = page.locator(f"{TILES} p").first.inner_text()
    assert told == f"The green bottle stood on the wall. {EVIL} and <b>bold</b>"
    assert EVIL in names(page)
    assert page.locator("#results :is(b, img)").count() == 0
    page.locator(f"{TILES} > a", has_text="red door").click()
    page.wait_for_selector("#detail blockquote")
    assert page.inner_text("#detail h2") == EVIL
    page.keyboard.press("Escape")
    page.locator(f"{TILES} .more").nth(1).click(force=True)
    page.wait_for_selector("#chips li")
    assert page.locator("#chips .name").inner_text().startswith(EVIL)
    assert page.title() != "1"


def test_a_sound_plays_from_the_second_that_matched(opened: Opener, site: str) -> None:
    page = opened(c="colours", q="green", m="audio")
    until(page, "tones")
    hit = httpx.post(
        f"{site}/v1/collections/colours/search", json={"text": "green", "modality": "audio"}
    ).json()["hits"][0]
    start = hit["part"]["start"]
    assert start >= 4, "green is the second half"
    assert page.inner_text(f"{TILES} .small") == f"best from {start:.1f} s to {hit['part']['end']:.1f} s"
    at = page.evaluate(
        """async () => {
            const player = document.querySelector("#results audio");
            player.muted = true;
            await player.play();
            await new Promise((heard) => player.addEventListener("timeupdate", heard, { once: true }));
            return player.currentTime;
        }"""
    )
    assert start <= at < start + 2


def test_filters_narrow_and_are_cleared(opened: Opener) -> None:
    page = opened(c="photos")
    names(page)
    label = page.locator("#facets label", has_text="HTML")
    assert label.locator(".count").inner_text() == "4"
    label.click()
    page.wait_for_selector("#status >> text=4 results")
    page.locator("#facets label", has_text="PDF").click()
    page.wait_for_selector("#status >> text=5 results")
    assert page.evaluate("document.activeElement.dataset.facet") == "format|PDF", (
        "the focus stays where it was"
    )
    page.click("#facets >> text=Clear the filter")
    page.wait_for_selector("#status >> text=93 results")
    page.fill("#facets [aria-label='Duration, from']", "6")
    page.press("#facets [aria-label='Duration, from']", "Enter")
    long = [path for path in (DATA / "sounds").glob("*.flac") if soundfile.info(path).duration >= 6]
    assert long
    page.wait_for_selector(f"#status >> text=/^{len(long)} result/")
    assert page.locator(f"{TILES} audio").count() == len(long)


def test_scores_and_reasons_are_shown_on_demand(opened: Opener) -> None:
    page = opened(c="colours", q="red", m="image")
    until(page, "red")
    assert page.locator(f"{TILES} .reason").count() == 0
    page.click("#why")
    page.wait_for_selector(f"{TILES} .reason")
    reason = page.locator(f"{TILES} .reason").first.inner_text()
    assert "vector 1.000 (no. 1)" in reason
    page.click("#why")
    page.wait_for_selector(f"{TILES} .reason", state="detached")
    page.locator(f"{TILES} > a").first.click()
    assert page.inner_text("#detail .reason") == reason.partition(" · ")[0]
    page.click("#detail >> text=Why this?")
    page.wait_for_selector("#detail .reason >> text=vector 1.000 (no. 1)")
    assert page.inner_text("#detail .reason") == reason


def test_scrolling_brings_everything_once_and_in_order(opened: Opener, site: str) -> None:
    page = opened(c="photos", q="a bird")
    assert 40 <= len(names(page)) < 93
    while page.locator(TILES).count() < 93:
        before = page.locator(TILES).count()
        page.mouse.wheel(0, 20_000)
        page.wait_for_function(f"() => document.querySelectorAll('{TILES}').length > {before}")
    told = httpx.post(f"{site}/v1/collections/photos/search", json={"text": "a bird", "k": 93}).json()
    shown = page.eval_on_selector_all(TILES, "(tiles) => tiles.map((one) => Number(one.dataset.item))")
    assert shown == [hit["item"]["id"] for hit in told["hits"]]


def test_after_an_update_no_part_of_the_page_is_an_old_one(site: str) -> None:
    for name in ("", "app.js", "style.css"):
        told = httpx.get(f"{site}/{name}")
        assert told.headers["cache-control"] == "no-cache"
        assert httpx.get(f"{site}/{name}", headers={"If-None-Match": told.headers["etag"]}).status_code == 304
