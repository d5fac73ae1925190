"""Pictures with the texts that belong to them, read from a data folder.

The folder holds ``flickr8k/`` (captions.csv with the columns image and caption, train.txt, dev.txt, images/) and
``fashion/`` (products.csv with the columns id, title, image, gender, articleType, baseColour, usage; images/).
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import ConfigError

HELD_OUT = 10  # one product in ten is kept for evaluation, by a hash of its id


@dataclass(frozen=True)
class Pair:
    """One picture and its texts; `kind` and `colour` are a product's (empty for photos)."""

    picture: Path
    texts: tuple[str, ...]
    kind: str = ""
    colour: str = ""


def read_flickr(folder: Path, split: str) -> list[Pair]:
    """The photos of an official split (``train`` or ``dev``) that exist, in its order, five captions each."""
    root = folder / "flickr8k"
    captions: dict[str, list[str]] = {}
    for row in _rows(root / "captions.csv"):
        captions.setdefault(row["image"], []).append(row["caption"])
    names = _text(root / f"{split}.txt").split()
    return [Pair(root / "images" / name, tuple(captions[name])) for name in names if name in captions]


def read_fashion(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Products to train on and products held out; texts: title, type with colour, type with colour and wearer."""
    root = folder / "fashion"
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for row in _rows(root / "products.csv"):
        kind = product_kind(row["articleType"])
        colour = row["baseColour"].lower()
        wearer = row["gender"].lower()
        texts = (
            row["title"],
            f"{colour} {kind}",
            f"{kind} for {wearer}, {colour}, {row['usage'].lower()}",
            kind,
        )
        held = int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % HELD_OUT == 0
        parts[held].append(Pair(root / row["image"], texts, kind, colour))
    return parts


def read_sample(folder: Path) -> list[Pair]:
    """The JPEG photos of the project's own sample, without texts: enough to set the ranges of an int8 graph."""
    photos = sorted(folder.glob("*.jpg"))
    if not photos:
        raise ConfigError(f"{folder} holds no JPEG photos; pass the project's data/photos with --sample")
    return [Pair(photo, ()) for photo in photos]


def product_kind(article_type: str) -> str:
    """The type as a shopper says it: ``Tshirts`` -> ``t-shirts``."""
    return article_type.lower().replace("tshirts", "t-shirts")


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(path).splitlines()))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; pass a data folder that holds flickr8k/ and fashion/"
        ) from None
