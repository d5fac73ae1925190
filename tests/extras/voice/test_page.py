"""A query that is spoken on the page: a real Chromium whose microphone hears a voice. Needs the extra ``voice``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from indexer.pipeline import index
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.e2e.page.conftest import chromium, names, until
from tests.serving import serving
from tests.sounds import save_sound
from tests.toy import COLOURS

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SPEECH = Path(__file__).parents[2] / "fixtures" / "speech"
RATE = 44_100


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Pictures of a colour each."""
    folder = tmp_path / "colours"
    folder.mkdir()
    for colour, rgb in COLOURS.items():
        PIL.Image.new("RGB", (48, 32), rgb).save(folder / f"{colour}.png")
    with Engine.open(tmp_path / "home", model=save_colour_model(tmp_path / "model")) as engine:
        index(engine, [folder])
    return tmp_path / "home"


def test_a_spoken_query_is_searched_for(home: Path, tmp_path: Path) -> None:
    voice, rate = soundfile.read(SPEECH / "question.flac", dtype="float32")
    assert 2 * rate == RATE
    pause = np.zeros(RATE, np.float32)
    # Twice its rate. The browser plays the file again and again: somewhere in two rounds the question is whole.
    save_sound(tmp_path / "question.wav", np.concatenate([np.repeat(voice, 2), pause]), rate=RATE)
    seconds = 2 * (len(voice) / rate + 1)
    with chromium(tmp_path / "question.wav") as browser, serving(home) as address:
        page = browser.new_page()
        page.set_default_timeout(60_000)  # the first words wait until the model is loaded
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(address)
        names(page)
        page.click("#speak")
        page.wait_for_selector("#notice >> text=Press again")
        page.wait_for_timeout(1000 * seconds)
        page.click("#speak")
        page.wait_for_selector("#notice >> text=Listening to what you said")
        page.wait_for_function("() => document.getElementById('q').value")
        assert "red car" in page.input_value("#q").lower()
        until(page, "red")
        assert "q=" in page.url, "a link holds the words"
        assert page.is_hidden("#notice")
        assert not told
        page.goto("about:blank")


@pytest.mark.parametrize("level", [0.0, 0.2], ids=["silence", "noise"])
def test_what_holds_no_words_is_told(home: Path, tmp_path: Path, level: float) -> None:
    noise = np.random.default_rng(0).uniform(-level, level, 2 * RATE).astype(np.float32)
    save_sound(tmp_path / "noise.wav", noise, rate=RATE)
    with chromium(tmp_path / "noise.wav") as browser, serving(home) as address:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        before = names(page)
        page.click("#speak")
        page.wait_for_selector("#notice >> text=Press again")
        page.wait_for_timeout(1500)
        page.click("#speak")
        page.wait_for_selector("#notice.error >> text=No words were heard: what was recorded")
        assert ("silent" in page.inner_text("#notice")) == (level == 0)
        assert names(page) == before, "what was there stays"
        page.goto("about:blank")
