"""Categories whose levels are in one attribute: "Home > Kitchen > Pans"."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmsearch import Modality, NewItem, NewPart
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.e2e.page.conftest import Opener, names
from tests.e2e.page.test_shop import status
from tests.serving import serving

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PATHS = [
    "Home > Kitchen > Pans",
    "Home > Kitchen > Knives",
    "Home > Kitchenette > Ovens",
    "Home > Bath",
    "Garden > Tools",
]


@pytest.fixture(scope="module")
def site_of_paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ten products, two in each category."""
    folder = tmp_path_factory.mktemp("paths")
    with Engine.open(folder / "home", model=save_colour_model(folder / "model")) as engine:
        vector = engine.encoder.encode_texts(["red"])[0]
        engine.add(
            NewItem(
                key=f"k{n}",
                modality=Modality.FUSED,
                title=f"Thing {n}",
                parts=[NewPart(modality=Modality.FUSED, vector=vector)],
                attributes={"category": PATHS[n % 5], "price": float(n)},
            )
            for n in range(10)
        )
    with serving(folder / "home") as address:
        yield address


def test_paths_in_one_attribute_lead_down_and_back_up(opened: Opener, site_of_paths: str) -> None:
    page = opened(at=site_of_paths)
    names(page)
    tabs = page.locator("#tabs button")
    assert tabs.all_inner_texts() == ["Everything", "Home", "Garden"]
    tabs.nth(1).click()
    status(page, "8 products")
    assert sorted(tabs.all_inner_texts()) == ["All Home", "Bath", "Kitchen", "Kitchenette"]
    tabs.get_by_text("Kitchen", exact=True).click()
    status(page, "4 products")
    assert sorted(tabs.all_inner_texts()) == ["All Kitchen", "Knives", "Pans"]
    assert page.locator("#way button").all_inner_texts() == ["Everything", "Home", "Kitchen"]
    tabs.get_by_text("Pans", exact=True).click()
    status(page, "2 products")
    assert page.locator("#tabs [aria-pressed=true]").all_inner_texts() == ["Pans"]
    assert sorted(tabs.all_inner_texts()) == ["All Kitchen", "Knives", "Pans"]
    page.reload()
    status(page, "2 products")
    page.click("#way >> text=Home")
    status(page, "8 products")
    page.go_back()
    status(page, "2 products")
    page.click("#tabs >> text=All Kitchen")
    status(page, "4 products")
    page.click("#way >> text=Everything")
    status(page, "10 products")
    assert page.is_hidden("#way")
