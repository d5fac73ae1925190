"""From files to arrays: pictures at the tower's size, trunk features, caption features."""

import hashlib
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mmsearch.training.export import session
from mmsearch.training.trunks import tokenize

PICTURES = 8
TEXTS = 32

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

PART = 5000  # texts, of which a build that is cut short loses one part


def load_picture(path: Path, size: int, crop: random.Random | None = None) -> Pixels:
    """A picture squashed to (size, size, 3) uint8; with `crop`, a random part of it, mirrored every other time.

    The crop keeps at least half of the area and changes the proportions by up to a quarter, as squashing does.
    """
    with PIL.Image.open(path) as picture:
        rgb = picture.convert("RGB")
    if crop is None:
        return np.asarray(rgb.resize((size, size), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0))
    area, stretch = crop.uniform(0.5, 1.0), exp(crop.uniform(-0.25, 0.25))
    width = min(rgb.width, rgb.width * sqrt(area * stretch))
    height = min(rgb.height, rgb.height * sqrt(area / stretch))
    x, y = crop.uniform(0, rgb.width - width), crop.uniform(0, rgb.height - height)
    box = (x, y, x + width, y + height)
    part = rgb.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return np.asarray(part.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if crop.random() < 0.5 else part)


def image_features(tower: Path, pictures: Sequence[Path], size: int, seed: int | None = None) -> Floats:
    """What the graph `tower` makes of each picture, (n, d); `seed` asks for random crops, another set for each seed."""

    def pixels(rows: range) -> dict[str, Pixels]:
        crops = [None if seed is None else random.Random(f"{seed} {row}") for row in rows]
        return {
            "pixels": np.stack(
                [load_picture(pictures[i], size, crop) for i, crop in zip(rows, crops, strict=True)]
            )
        }

    starts = range(0, len(pictures), PICTURES)
    return _run(tower, [range(start, min(start + PICTURES, len(pictures))) for start in starts], pixels)


def text_features(tower: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> Floats:
    """What the graph `tower` makes of each text, (n, d); texts of like length share a batch."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))

    def tokens(rows: range) -> dict[str, NDArray[np.int64]]:
        ids, mask = tokenize(tokenizer, [texts[order[row]] for row in rows])
        return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}

    starts = range(0, len(texts), TEXTS)
    found = _run(tower, [range(start, min(start + TEXTS, len(texts))) for start in starts], tokens)
    out = np.empty_like(found)
    out[order] = found
    return out


def _run(
    tower: Path, batches: Sequence[range], feed: Callable[[range], Mapping[str, NDArray[Any]]]
) -> Floats:
    """One single-threaded graph run per core at a time, which outruns one graph on all cores."""
    graph = session(tower, threads=1)

    def run(rows: range) -> Floats:
        found: Floats = graph.run(None, feed(rows))[0]
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(run, batches)))


def cached(folder: Path | None, key: Sequence[object], make: Callable[[], Floats]) -> Floats:
    """What `make` returns, kept in `folder` under a hash of `key` when a folder is given."""
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    found: Floats = np.load(path)
    return found


class Kept:
    """Rows of features by text, kept in files ``{name}-*.npz`` of `folder` (in memory only when it is None)."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder, self.name = folder, name
        self.rows: dict[str, NDArray[np.float16]] = {}
        for path in sorted(folder.glob(f"{name}-*.npz")) if folder else ():
            with np.load(path) as kept:
                self.rows |= zip(kept["texts"].tolist(), kept["features"], strict=True)

    def __call__(self, texts: Sequence[str], make: Callable[[Sequence[str]], Floats]) -> Floats:
        """(n, d); `make` is asked for the texts that are not there, `PART` at a time."""
        missing = [text for text in dict.fromkeys(texts) if text not in self.rows]
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            found = make(part).astype(np.float16)
            self.rows |= zip(part, found, strict=True)
            if self.folder:
                self.folder.mkdir(parents=True, exist_ok=True)
                number = len(list(self.folder.glob(f"{self.name}-*.npz")))
                np.savez(self.folder / f"{self.name}-{number:04}.npz", texts=np.array(part), features=found)
        return np.stack([self.rows[text] for text in texts]).astype(np.float32)
