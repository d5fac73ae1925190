"""Make the photo folders that the benchmarks index. All are seeded; a folder that is there is kept.

    python -m benchmarks.photos DATA WORK

DATA is a data folder with ``flickr8k/images/*.jpg``, ``flickr8k/dev.txt`` and ``flickr8k/captions.csv``. WORK gets

- ``photos``: the 1,000 dev photos as they are (224 px);
- ``photos500``: the same photos at 500 x 375 with sensor noise, the size at which Flickr serves them;
- ``photos12mp``: 60 mosaics of 4000 x 3000 pixels with sensor noise;
- ``photos10k``: all photos and seeded crops and mirror images of them, 10,000 files.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SEED = 20261122
TILE = 1000


def folder(data: Path, work: Path, name: str) -> Path:
    """The photo folder ``name`` below ``work``, made first if need be."""
    done = work / name
    if not done.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        unfinished = work / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _MAKERS[name](data / "flickr8k", unfinished)
        unfinished.rename(done)
    return done


def captions(data: Path) -> list[str]:
    """All captions of the dev photos, shuffled (seeded)."""
    dev = set((data / "flickr8k" / "dev.txt").read_text().split())
    with (data / "flickr8k" / "captions.csv").open(encoding="utf-8", newline="") as file:
        found = [row["caption"] for row in csv.DictReader(file) if row["image"] in dev]
    return [found[row] for row in np.random.default_rng(SEED).permutation(len(found))]


def _dev(flickr: Path) -> list[Path]:
    return [flickr / "images" / name for name in (flickr / "dev.txt").read_text().split()]


def _noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add sensor noise of 4 grey levels: an enlarged photo alone compresses, and so decodes, too easily."""
    pixels = np.asarray(image, np.float32)
    pixels += rng.normal(0, 4, pixels.shape).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _originals(flickr: Path, target: Path) -> None:
    for photo in _dev(flickr):
        shutil.copyfile(photo, target / photo.name)


def _at_500(flickr: Path, target: Path) -> None:
    rng = np.random.default_rng(SEED)
    for photo in _dev(flickr):
        with Image.open(photo) as image:
            enlarged = ImageOps.fit(image.convert("RGB"), (500, 375), Image.Resampling.BICUBIC)
        _noisy(enlarged, rng).save(target / photo.name, quality=90)


def _at_12_megapixels(flickr: Path, target: Path) -> None:
    rng = np.random.default_rng(SEED)
    photos = _dev(flickr)
    for number in range(60):
        mosaic = Image.new("RGB", (4 * TILE, 3 * TILE))
        for place, index in enumerate(rng.choice(len(photos), 12, replace=False)):
            with Image.open(photos[index]) as image:
                tile = image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
            mosaic.paste(tile, (place % 4 * TILE, place // 4 * TILE))
        _noisy(mosaic, rng).save(target / f"{number:02}.jpg", quality=90)


def _ten_thousand(flickr: Path, target: Path) -> None:
    rng = np.random.default_rng(SEED)
    photos = sorted((flickr / "images").iterdir())
    for photo in photos:
        shutil.copyfile(photo, target / photo.name)
    for number in range(10_000 - len(photos)):
        photo = photos[rng.integers(len(photos))]
        with Image.open(photo) as image:
            side = int(rng.integers(150, 200))
            left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
            crop = image.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224))
        varied = ImageOps.mirror(crop) if rng.random() < 0.5 else crop
        varied.save(target / f"{photo.stem}-{number}.jpg", quality=85)


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "photos": _originals,
    "photos500": _at_500,
    "photos12mp": _at_12_megapixels,
    "photos10k": _ten_thousand,
}


def main() -> None:
    data, work = map(Path, sys.argv[1:])
    for name in _MAKERS:
        files = list(folder(data, work, name).iterdir())
        size = sum(file.stat().st_size for file in files)
        sys.stdout.write(json.dumps({"folder": name, "files": len(files), "bytes": size}) + "\n")


if __name__ == "__main__":
    main()
