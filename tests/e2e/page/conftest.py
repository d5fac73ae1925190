"""The page in a real Chromium, on a real server: photos of the sample, a collection of colours, and a shop."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode, urlsplit

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from indexer.pipeline import index
from mmsearch import Modality, NewItem, NewPart
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.serving import serving
from tests.sounds import save_sound
from tests.toy import COLOURS, tone

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

ROOT = Path(__file__).parents[3]
ARTEFACTS = "SCREENSHOTS"
"""Names the folder where screenshots are kept; without it pytest's own."""

Opener: TypeAlias = "Callable[..., Page]"

EVIL = "<img src=x onerror=document.title=1>"
"""What a careless page would run."""

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
    violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


TILES = "#results .tile"


# -- what is served


@pytest.fixture(scope="session")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three collections: ``photos`` (the built-in model), ``colours`` and ``shop`` (a toy model)."""
    folder = tmp_path_factory.mktemp("page")
    home = folder / "home"
    with Engine.open(home, collection="photos", model="mini", threads=2) as engine:
        index(engine, [ROOT / "data" / name for name in ("photos", "texts", "sounds")])
    model = save_colour_model(folder / "model")
    with Engine.open(home, collection="colours", model=model) as engine:
        index(engine, [_colours(folder / "colours")])
    pictures = folder / "products"
    pictures.mkdir()
    with Engine.open(home, collection="shop", model=model) as engine:
        engine.add(_products(pictures))
        engine.remember_root(str(pictures), [])
    return home


def _colours(folder: Path) -> Path:
    """Pictures of a colour each, one that a camera held sideways, texts, and a sound that is red, then green."""
    folder.mkdir()
    for colour, rgb in COLOURS.items():
        PIL.Image.new("RGB", (48, 32), rgb).save(folder / f"{colour}.png")
    sideways = PIL.Image.new("RGB", (60, 40), COLOURS["white"])
    sideways.paste(COLOURS["blue"], (0, 0, 20, 40))  # the left third: upright it is the top third
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(folder / "sideways.jpg", exif=exif, quality=95)
    (folder / "notes.txt").write_text(f"The green bottle stood on the wall. {EVIL} and <b>bold</b>")
    (folder / f"{EVIL}.txt").write_text("A red door.")
    both = np.concatenate([tone("red", seconds=4), tone("green", seconds=4)])
    save_sound(folder / "tones.wav", both)
    return folder


def _products(folder: Path) -> list[NewItem]:
    """Sixty shirts (of three kinds) and hats; of each shirt a variant in another colour. One title is markup."""
    made = []
    names = list(COLOURS)
    for n in range(60):
        colour, kind = names[n % 5], ("Shirt", "Hat")[n % 2]
        path = folder / f"{n:02}.png"
        picture = PIL.Image.new("RGB", (90, 120), "#ddd")
        draw = PIL.ImageDraw.Draw(picture)
        draw.rectangle((15, 25, 75, 110) if kind == "Shirt" else (10, 70, 80, 95), fill=COLOURS[colour])
        picture.save(path)
        attributes: dict[str, Any] = {
            "price": 5.0 + n,
            "currency": "EUR",
            "category": kind + "s",
            "colour": colour.title(),
            "brand": 'Acme\'s "Best" `50%`' if n < 10 else "Plain",
            "stock": float(n % 4),
            "link": f"https://shop.example/{n}" if n % 2 else "javascript:document.title=1",
        }
        if kind == "Shirt":
            attributes["parent"] = f"shirt-{n // 4}"
            attributes["subcategory"] = ("Polos", "Blouses", "Polos, 100%")[n % 3]
        made.append(
            NewItem(
                key=str(path),
                modality=Modality.IMAGE,
                parts=[
                    NewPart(modality=Modality.IMAGE, content=path),
                    NewPart(modality=Modality.TEXT, content=f"{colour} {kind.lower()} for every day"),
                ],
                title=f"{colour.title()} {kind} {n}" if n else f"White {EVIL} Shirt",
                attributes=attributes,
                is_file=True,
                size=path.stat().st_size,
                mtime_ns=path.stat().st_mtime_ns,
            )
        )
    return made


@pytest.fixture(scope="session")
def site(served_home: Path) -> Iterator[str]:
    """The address of a server over ``served_home``."""
    with serving(served_home) as address:
        yield address


@pytest.fixture
def blue(served_home: Path) -> Path:
    return served_home.parent / "colours" / "blue.png"


# -- who looks at it


@contextlib.contextmanager
def chromium(heard: Path) -> Iterator[Browser]:
    """The Chromium of this machine, with a microphone that hears a WAV file; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={heard}",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium with a microphone that hears green."""
    heard = tmp_path_factory.mktemp("microphone") / "green.wav"
    save_sound(heard, tone("green", seconds=3, rate=48_000), rate=48_000)
    with chromium(heard) as started:
        yield started


@pytest.fixture
def opened(browser: Browser, site: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Open the page: ``opened(c="photos", q="a bird", options={...}, at=address, quiet=False)``.

    At the end no page may have asked another machine for anything, broken its own policy, or failed, and the console
    must be without errors and warnings; if it is not ``quiet``, answers of the server may be errors. What each page
    looks like then is kept.
    """
    contexts: list[BrowserContext] = []
    told: list[str] = []

    def watch(page: Page, base: str, quiet: bool) -> None:
        def asked(sent: Request) -> None:
            if urlsplit(sent.url).scheme not in ("blob", "data") and not sent.url.startswith(base + "/"):
                told.append(f"asked {sent.url}")

        def said(message: ConsoleMessage) -> None:
            # Of answers that are errors the browser speaks itself: nothing else may be there, in no test.
            expected = not quiet and message.text.startswith("Failed to load resource")
            if message.type in ("error", "warning") and not expected:
                told.append(f"console: {message.text}")

        page.on("request", asked)
        page.on("pageerror", lambda error: told.append(f"failed: {error}"))
        page.on("console", said)

    def go(
        options: dict[str, Any] | None = None, at: str | None = None, quiet: bool = True, **asked: Any
    ) -> Page:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **(options or {})}
        )
        context.set_default_timeout(15_000)
        context.add_init_script(WATCH)
        contexts.append(context)
        page = context.new_page()
        watch(page, at or site, quiet)
        page.goto(f"{at or site}/?{urlencode(asked, doseq=True)}")
        return page

    yield go
    for n, page in enumerate([page for context in contexts for page in context.pages]):
        told += page.evaluate("window.violations ?? []")
        if page.url != "about:blank":
            page.screenshot(path=_artefacts(tmp_path) / f"{request.node.name.replace('/', ' ')}-{n}.png")
    for context in contexts:
        context.close()
    assert not told


def _artefacts(otherwise: Path) -> Path:
    folder = Path(os.environ.get(ARTEFACTS) or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names(page: Page) -> list[str]:
    """Titles of the tiles, in their order; waits until results are there."""
    page.wait_for_selector("#results:not([aria-busy]) .tile > a, #results:not([aria-busy]) .empty")
    found: list[str] = page.eval_on_selector_all(
        "#results .tile",
        "(tiles) => tiles.map((one) => one.querySelector('strong, .name, .cap')?.textContent ?? '')",
    )
    return found


def until(page: Page, first: str) -> list[str]:
    """Wait until the first result is called so; the titles of all."""
    page.wait_for_function(
        """(title) => {
            const first = document.querySelector("#results:not([aria-busy]) .tile :is(strong, .name, .cap)");
            return first?.textContent === title;
        }""",
        arg=first,
    )
    return names(page)


def type_in(page: Page, text: str) -> None:
    page.fill("#q", text)
    page.press("#q", "Enter")
