"""``mmsearch eval`` on colours and their names."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from tests.colour_model import save_colour_model
from tests.e2e.conftest import in_process
from tests.toy import COLOURS

NAMES = ("red", "green", "blue", "white")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Captions of four pictures, of which two are swapped in the split ``odd``."""
    for name in NAMES:
        PIL.Image.new("RGB", (8, 8), COLOURS[name]).save(tmp_path / f"{name}.png")
    lines = [f"{name}.png,{name},good" for name in NAMES]
    lines += ["red.png,green,odd", "green.png,red,odd", "blue.png,blue,odd"]
    path = tmp_path / "asked.csv"
    path.write_text("\n".join(["image,text,split", *lines]) + "\n")
    return path


def test_json_has_every_measure_with_interval_and_chance(asked: Path, model: Path) -> None:
    ran = in_process("eval", asked, "--model", model, "--split", "odd", "--json")
    assert ran.code == 0, ran.err
    (record,) = ran.records()
    assert record["seed"] == 0
    (measured,) = record["models"]
    assert [result["name"] for result in measured["results"]] == ["text->image", "image->text"]
    result = measured["results"][0]
    assert (result["queries"], result["candidates"]) == (3, 3)
    recall = result["figures"]["recall@1"]
    assert recall["value"] == recall["chance"] == pytest.approx(1 / 3)
    assert recall["low"] <= recall["value"] <= recall["high"]
    assert {wrong["query"] for wrong in result["worst"]} == {"red", "green"}
    assert len(result["slowest"]) == 3
    assert record["differences"] == {}


def test_the_table_tells_the_figures_and_the_worst(asked: Path, model: Path) -> None:
    ran = in_process("eval", asked, "--model", model, "--split", "odd")
    assert ran.code == 0, ran.err
    assert "text->image: 3 queries, 3 candidates" in ran.out
    assert "recall@1" in ran.out
    assert "33.3 (0.0 to 100.0)" in ran.out
    assert "worst ranked" in ran.out
    assert "slowest query" in ran.out


def test_two_models_stand_side_by_side(asked: Path, model: Path, tmp_path: Path) -> None:
    other = save_colour_model(tmp_path / "other", space="colours-2")
    ran = in_process(
        "eval", asked, "--split", "good", "--model", model, "--compare", other, "--json", "--seed", "3"
    )
    (record,) = ran.records()
    assert [found["model"] for found in record["models"]] == [str(model), str(other)]
    assert record["differences"]["text->image"]["recall@1"] == {"value": 0, "low": 0, "high": 0}
    shown = in_process("eval", asked, "--split", "good", "--model", model, "--compare", other).out
    assert "difference" in shown
    assert "+0.0 (+0.0 to +0.0)" in shown


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("image,text\nno.png,red\n", 3, "line 2: image"),
        ("image,text\nred.png,\n", 3, "line 2: only image is given"),
        ("colour\nred\n", 2, "its columns (colour) ask nothing"),
        ("", 3, "has no rows"),
    ],
)
def test_mistakes_in_the_manifest_are_told_in_one_message(
    asked: Path, model: Path, text: str, code: int, message: str
) -> None:
    asked.write_text(text)
    ran = in_process("eval", asked, "--model", model)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"mmsearch: {asked}")
    assert message in ran.err


def test_a_missing_manifest_is_named(model: Path, tmp_path: Path) -> None:
    ran = in_process("eval", tmp_path / "no.csv", "--model", model)
    assert ran.code == 3
    assert "no.csv: no such file" in ran.err


def test_files_may_lie_elsewhere(asked: Path, model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "lists" / "asked.csv"
    moved.parent.mkdir()
    asked.rename(moved)
    assert in_process("eval", moved, "--model", model, "--split", "good").code == 3
    assert in_process("eval", moved, "--model", model, "--split", "good", "--root", tmp_path).code == 0
