"""One list of photos, texts and sounds: is each kind found as often as it is the right answer?

    python -m benchmarks.mixed_list DATA WORK

The gallery: 400 photos of Flickr8k's development split, a caption each of 400 others, and the first part of each of
the everyday recordings of ``sounds/`` (the sound tower learned from these; photos and captions are unseen). The
queries: another caption of each photo and of each text's photo, and "the sound of ..." for each recording. Reported
are the share of each kind in the first ten, and how often the right item is there, with plain cosines, with scores on
one scale (``mmsearch.ranking.centred``, what a search does), and within its own kind alone.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from mmsearch.encoders import load_encoder
from mmsearch.media import load_image
from mmsearch.ranking import centred
from mmsearch.sound import read_sound
from mmsearch.types import Modality, Vectors

EACH = 400
K = 10


def shares(
    scores: NDArray[np.float32], kinds: NDArray[np.str_], rows: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Of scores (q, n): per cent of each kind among the first ten, and of queries whose own row is there."""
    best = np.argsort(-scores, axis=1)[:, :K]
    found = (best == rows[:, None]).any(axis=1)
    return {
        "share": {kind: round(float((kinds[best] == kind).mean() * 100), 1) for kind in np.unique(kinds)},
        "recall_at_10": {
            kind: round(float(found[kinds[rows] == kind].mean() * 100), 1) for kind in np.unique(kinds)
        },
    }


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    encoder = load_encoder("mini")
    captions: dict[str, list[str]] = {}
    with (data / "flickr8k" / "captions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["image"], []).append(row["caption"])
    names = (data / "flickr8k" / "dev.txt").read_text().split()[: 2 * EACH]
    with (data / "sounds" / "sounds.csv").open(encoding="utf-8") as file:
        recordings = list(csv.DictReader(file))
    clips = [
        next(iter(read_sound(data / "sounds" / row["file"], encoder.audio_window).clips()))
        for row in recordings
    ]
    photos = [load_image(data / "flickr8k" / "images" / name) for name in names[:EACH]]
    gallery: dict[Modality, Vectors] = {
        Modality.IMAGE: encoder.encode_images(photos),
        Modality.TEXT: encoder.encode_texts([captions[name][0] for name in names[EACH:]]),
        Modality.AUDIO: encoder.encode_audio(clips),
    }
    asked = [captions[name][1] for name in names] + [f"the sound of {row['caption']}" for row in recordings]
    queries = encoder.encode_texts(asked)
    kinds = np.repeat([str(kind) for kind in gallery], [len(rows) for rows in gallery.values()])
    rows = np.arange(len(kinds))
    plain = queries @ np.concatenate([*gallery.values()]).T
    scaled = plain.copy()
    for number, query in enumerate(queries):
        scales = centred(query, {Modality.TEXT: 1.0}, encoder.means, encoder.spreads)
        for kind in gallery:
            factor, offset = scales[kind]
            scaled[number, kinds == kind] = scaled[number, kinds == kind] * factor + offset
    same = kinds[:, None] == kinds[None, :]
    result = {
        "right": {str(kind): round(100 * len(rows) / len(kinds), 1) for kind, rows in gallery.items()},
        "plain": shares(plain, kinds, rows),
        "one_scale": shares(scaled, kinds, rows),
        "alone": shares(np.where(same, plain, -np.inf).astype(np.float32), kinds, rows)["recall_at_10"],
    }
    measure.report("mixed_list", result, work)


if __name__ == "__main__":
    main()
