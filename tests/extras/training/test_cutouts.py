"""Cutouts show the colour that their texts name."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmsearch.training.cutouts import GROUNDS, SHADES, cutouts

PHOTOS = sorted((Path(__file__).parents[3] / "data" / "photos").glob("*.jpg"))[:40]


def test_a_cutout_is_mostly_of_the_colour_it_is_called(tmp_path: Path) -> None:
    """Judged by the nearest of all shades to the median of what is not ground."""
    shades = [(name, np.array(shade)) for name, found in SHADES.items() for shade in found]
    right = 0
    for pair in cutouts(PHOTOS, tmp_path):
        pixels = np.asarray(PIL.Image.open(pair.picture)).reshape(-1, 3).astype(int)
        seen = pixels[~(pixels[:, None] == np.array(GROUNDS)).all(2).any(1)]
        median = np.median(seen, axis=0)
        distances: dict[str, float] = {}
        for name, shade in shades:
            distances[name] = min(distances.get(name, np.inf), float(np.abs(shade - median).sum()))
        right += pair.texts[0] == min(distances, key=lambda name: distances[name])
    assert right >= 0.8 * len(PHOTOS)


def test_texts_name_the_colour_and_nothing_that_is_seen(tmp_path: Path) -> None:
    for pair in cutouts(PHOTOS[:8], tmp_path):
        name, something, thing = pair.texts
        assert name in SHADES
        assert something == f"something {name}"
        assert thing.startswith(f"{name} ")


@pytest.mark.parametrize("count", [3, 8])
def test_cutouts_are_the_same_at_every_call(tmp_path: Path, count: int) -> None:
    first, again = (cutouts(PHOTOS[:count], tmp_path / name) for name in ("first", "again"))
    assert [pair.texts for pair in first] == [pair.texts for pair in again]
    for one, other in zip(first, again, strict=True):
        assert one.picture.read_bytes() == other.picture.read_bytes()
