"""What every encoder is asked to tell whether it is what it says: a few fixed texts, pictures and sounds.

A space id is a name, and names are given twice. Vectors of the same inputs tell: an export of a model gives those of
the model, another checkpoint gives others. The inputs are made here and nowhere kept; catalogs hold vectors of them, so
they must stay as they are for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import Encoder
from mmsearch.types import Image, Modality, Vectors, Waveform

__all__ = ["CANONICAL_COSINE", "TEXTS", "canonical_vectors", "nearness", "pictures", "sounds", "strangers"]

CANONICAL_COSINE = 0.99
"""Two towers map into the same space when each canonical input comes out with at least this cosine."""

TEXTS = (
    "a photo of a dog on grass",
    "red",
    "two people ride bicycles along a river at sunset",
    "Invoice no. 2024-117: 3 chairs, 1 table",
)

SECONDS = 3.0
"""Length of a canonical sound, or the encoder's window if that is shorter."""


def canonical_vectors(encoder: Encoder, modalities: Iterable[Modality]) -> dict[Modality, Vectors]:
    """Vectors (n, dim) of the canonical inputs of these modalities, all of which the encoder has. Loads its towers.

    Raises ``ModelError`` if a tower cannot be loaded.
    """
    vectors: dict[Modality, Vectors] = {}
    for modality in sorted(modalities):
        if modality is Modality.TEXT:
            vectors[modality] = encoder.encode_texts(TEXTS)
        elif modality is Modality.IMAGE:
            vectors[modality] = encoder.encode_images([encoder.prepare_image(one) for one in pictures()])
        else:
            window = encoder.audio_window
            vectors[modality] = encoder.encode_audio(sounds(window.sample_rate, min(SECONDS, window.seconds)))
    return vectors


def nearness(found: Vectors, expected: NDArray[np.floating]) -> float:
    """The smallest cosine of rows (n, dim) with their counterparts; -1 if the shapes differ."""
    if found.shape != expected.shape:
        return -1.0
    mine, theirs = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((mine * theirs).sum(axis=1) / np.maximum(lengths, 1e-12)).min(initial=1.0))


def strangers(
    found: Mapping[Modality, Vectors], known: Mapping[Modality, NDArray[np.floating]]
) -> dict[Modality, float]:
    """Modalities whose canonical vectors are not the known ones, with the smallest cosine."""
    near = {modality: nearness(found[modality], known[modality]) for modality in found.keys() & known.keys()}
    return {modality: cosine for modality, cosine in sorted(near.items()) if cosine < CANONICAL_COSINE}


def pictures() -> list[Image]:
    """A landscape of plain shapes, a board of coloured fields with a disc, and a texture; RGB, 320 x 240."""
    import PIL.Image

    x, y = np.meshgrid(np.linspace(0, 1, 320), np.linspace(0, 1, 240))
    sky = np.stack([0.35 + 0.4 * y, 0.55 + 0.3 * y, 0.95 - 0.1 * y], axis=-1)
    ground = np.stack([0.25 + 0.15 * x, 0.5 - 0.2 * (y - 0.6), 0.15 + 0.1 * x], axis=-1)
    landscape = np.where((y > 0.62 + 0.06 * np.sin(9 * x))[..., None], ground, sky)
    landscape[(x - 0.75) ** 2 * 1.78 + (y - 0.25) ** 2 < 0.012] = (1.0, 0.9, 0.4)
    fields = np.stack(
        [(np.floor(8 * x) % 2), (np.floor(6 * y) % 2), ((np.floor(8 * x) + np.floor(6 * y)) % 3) / 2], axis=-1
    )
    board = 0.15 + 0.7 * fields
    board[(x - 0.4) ** 2 * 1.78 + (y - 0.5) ** 2 < 0.06] = (0.85, 0.1, 0.1)
    waves = sum(
        np.sin(2 * np.pi * (2**n) * (x * np.cos(2.4 * n) + y * np.sin(2.4 * n)) + n) / (n + 1)
        for n in range(6)
    )
    grey = np.asarray(0.5 + 0.2 * waves)
    texture = np.stack([grey, grey * 0.8 + 0.05, grey * 0.6 + 0.1], axis=-1)
    return [
        PIL.Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        for pixels in (landscape, board, texture)
    ]


def sounds(rate: int, seconds: float) -> list[Waveform]:
    """A chord that dies away again and again, and a tone that rises through the octaves; mono samples at ``rate``."""
    times = np.arange(round(rate * seconds)) / rate
    chord = sum(np.sin(2 * np.pi * hertz * times) / n for n, hertz in enumerate((220, 277, 330, 440, 880), 1))
    struck = np.asarray(chord) * np.exp(-4 * (times % 0.75))
    # The phase of a tone from 110 Hz that rises by two octaves a second.
    risen = np.sin(2 * np.pi * 110 * (4.0**times - 1) / np.log(4.0)) * (0.6 + 0.4 * np.sin(12 * times))
    return [np.asarray(0.4 * wave / np.abs(wave).max(), np.float32) for wave in (struck, risen)]
