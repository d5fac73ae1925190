"""What the tests of `mmsearch train` share."""

import csv
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.toy import COLOURS

SWAPPED = {"red": "green", "green": "blue", "blue": "red", "white": "white"}
"""What the owner of these pictures calls the colours."""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """160 pictures of four colours, no two alike, under the wrong names."""
    generator = np.random.default_rng(0)
    lines = [["image", "text", "split"]]
    for number in range(160):
        colour = list(SWAPPED)[number % 4]
        shade = np.clip(np.array(COLOURS[colour]) + generator.integers(-40, 41, 3), 0, 255)
        picture = PIL.Image.new("RGB", (8, 8), tuple(map(int, shade)))
        picture.putpixel((0, 0), (number, number, number))
        picture.save(tmp_path / f"{number}.png")
        lines.append([f"{number}.png", SWAPPED[colour], "val" if number >= 120 else "train"])
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path
