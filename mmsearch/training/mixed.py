"""One list of photos, texts and sounds: ``python -m mmsearch.training.mixed --model FOLDER --data FOLDER [--write]``.

Measures how fairly a finished model ranks such a list, before and after its modalities are centred, and with
``--write`` stores means and spreads in the folder. Half of the photos give the scales, the other half are searched.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import Encoder
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.media import modality_of, read_sound
from mmsearch.ranking import centred
from mmsearch.training.centring import means_of, spreads_of, write_scales
from mmsearch.training.evaluate_mini import encode_pictures
from mmsearch.training.pairs import read_flickr
from mmsearch.types import Modality, Vector, Vectors

PHOTOS = 1000
LISTED = 10  # of a list so many are looked at
Spreads = Mapping[Modality, Mapping[Modality, float]]
Scorer = Callable[[Vector, Modality, Modality], NDArray[np.float32]]
"""(query, its modality, the items' modality) -> scores (n,) of all items of that modality."""


def encode_sounds(encoder: Encoder, files: Sequence[Path]) -> tuple[Vectors, NDArray[np.int64]]:
    """Vectors (n, dim) of the parts of recordings, and of each part the number of its file. Raises ``MediaError``."""
    vectors, owners = [], []
    for number, path in enumerate(files):
        for clip in read_sound(path, encoder.audio_window).clips():
            vectors.append(encoder.encode_audio([clip])[0])
            owners.append(number)
    return np.stack(vectors), np.array(owners)


def shares(
    queries: Mapping[str, tuple[Modality, Vectors, Mapping[Modality, Sequence[NDArray[np.int64]]]]],
    sizes: Mapping[Modality, int],
    score: Scorer,
) -> dict[str, Any]:
    """Of each kind of query: what share of its first ten are of each modality, and of the right answers of a modality
    how often one is among the first ten (``found``), and would be if the list were of that modality only (``alone``).

    ``queries``: name -> the queries' modality, their vectors, and the right rows of each by modality.
    """
    results: dict[str, Any] = {}
    kinds = np.concatenate([np.full(size, number) for number, size in enumerate(sizes.values())])
    firsts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    for name, (asked, vectors, right) in queries.items():
        listed = np.zeros(len(sizes))
        found = dict.fromkeys(right, 0)
        alone = dict.fromkeys(right, 0)
        for row, query in enumerate(vectors):
            scores = {modality: score(query, asked, modality) for modality in sizes}
            best = np.argsort(-np.concatenate(list(scores.values())), kind="stable")[:LISTED]
            listed += np.bincount(kinds[best], minlength=len(sizes)) / len(best)
            for modality, rows in right.items():
                found[modality] += bool(np.isin(rows[row] + firsts[modality], best).any())
                nearest = np.argsort(-scores[modality], kind="stable")[:LISTED]
                alone[modality] += bool(np.isin(rows[row], nearest).any())
        results[name] = {
            "queries": len(vectors),
            "share": {
                str(modality): _percent(n, len(vectors)) for modality, n in zip(sizes, listed, strict=True)
            },
            "found": {str(modality): _percent(n, len(vectors)) for modality, n in found.items()},
            "alone": {str(modality): _percent(n, len(vectors)) for modality, n in alone.items()},
        }
    return results


def scorers(
    items: Mapping[Modality, Vectors],
    levels: Mapping[Modality, float],
    means: Mapping[Modality, Vector],
    spreads: Spreads,
) -> dict[str, Scorer]:
    """The ways to score a list: by plain cosines, by a model's ``levels``, by ``mmsearch.ranking.centred``."""

    def plain(query: Vector, asked: Modality, modality: Modality) -> NDArray[np.float32]:
        return np.asarray(items[modality] @ query, np.float32)

    def levelled(query: Vector, asked: Modality, modality: Modality) -> NDArray[np.float32]:
        known = asked is Modality.TEXT and modality in levels
        return plain(query, asked, modality) - np.float32(levels[modality] if known else 0)

    def fair(query: Vector, asked: Modality, modality: Modality) -> NDArray[np.float32]:
        factor, offset = centred(query, {asked: 1.0}, means, spreads)[modality]
        return plain(query, asked, modality) * np.float32(factor) + np.float32(offset)

    return {"plain": plain, "levels": levelled, "centred": fair}


def measure(model: Path, data: Path, sounds: Sequence[Path], write: bool) -> dict[str, Any]:
    """The figures; ``sounds`` are recordings whose file names say what is heard. Stores the scales if ``write``."""
    encoder = OnnxEncoder(model)
    photos = read_flickr(data, "dev")[:PHOTOS]
    half = len(photos) // 2
    vectors = {
        Modality.IMAGE: encode_pictures(encoder, photos),
        Modality.TEXT: encoder.encode_texts([photo.texts[1] for photo in photos]),
    }
    captions = encoder.encode_texts([photo.texts[0] for photo in photos[half:]])
    items = {modality: rows[half:] for modality, rows in vectors.items()}
    scale = {modality: rows[:half] for modality, rows in vectors.items()}
    itself = [np.array([row]) for row in range(len(photos) - half)]
    pictured = {Modality.IMAGE: itself, Modality.TEXT: itself}
    queries = {
        "caption": (Modality.TEXT, captions, pictured),
        "photo": (Modality.IMAGE, items[Modality.IMAGE], {Modality.TEXT: itself}),
    }
    if Modality.AUDIO in encoder.modalities and sounds:
        heard, owners = encode_sounds(encoder, sounds)
        # A recording is on one side only; every second one gives the scale.
        items[Modality.AUDIO], scale[Modality.AUDIO] = heard[owners % 2 == 1], heard[owners % 2 == 0]
        kept = owners[owners % 2 == 1]
        named = [number for number in range(len(sounds)) if number % 2]
        parts = [np.flatnonzero(kept == number) for number in named]
        words = [sounds[number].stem.replace("-", " ").replace("_", " ") for number in named]
        queries["sound by name"] = (
            Modality.TEXT,
            encoder.encode_texts(words),
            {Modality.AUDIO: parts},
        )
    means = means_of(scale)
    spreads = spreads_of(scale, means)
    if write:
        write_scales(model, means, spreads)
    sizes = {modality: len(rows) for modality, rows in items.items()}
    ways = scorers(items, encoder.levels, means, spreads)
    return {
        "items": {str(modality): size for modality, size in sizes.items()},
        "spreads": {
            str(asked): {str(m): round(s, 3) for m, s in row.items()} for asked, row in spreads.items()
        },
        **{name: shares(queries, sizes, score) for name, score in ways.items()},
    }


def _percent(count: float, of: int) -> float:
    return round(100 * float(count) / of, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m mmsearch.training.mixed", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder with flickr8k/")
    parser.add_argument("--sounds", type=Path, help="a folder of recordings named by what is heard")
    parser.add_argument("--write", action="store_true", help="store means and spreads in the model folder")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    found = sorted(given.sounds.iterdir()) if given.sounds else []
    found = [path for path in found if modality_of(path) is Modality.AUDIO]
    figures = measure(given.model, given.data, found, given.write)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
