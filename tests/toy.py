"""A toy encoder: colour words, pictures of those colours and tones that stand for them share a 4-d space, so every
expected score is plain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import MEDIA, AudioWindow, Image, Modality, Space, Vector, Vectors, Waveform

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}

TONES = {"red": 200, "green": 1000, "blue": 3000}
"""Hz. Each is a whole number of cycles in 5 ms, so that the tones do not leak into each other."""

RATE = 16_000


def tone(
    *colours: str, seconds: float = 1.0, rate: int = RATE, amplitude: float = 0.5
) -> NDArray[np.float32]:
    """The sound of some colours: their tones one upon the other; no colour is silence."""
    times = np.arange(round(seconds * rate)) / rate
    waves = [np.sin(2 * np.pi * TONES[colour] * times) for colour in colours]
    return np.asarray(amplitude * np.sum([np.zeros_like(times), *waves], axis=0), np.float32)


def normalise(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


class ToyEncoder:
    """(r, g, b, 1) / norm of a picture's mean colour; the sum of the colour words of a text.

    A text without a colour word lands on a direction of its own made from its hash, so that texts differ. A sound is
    the shares of the three tones in it.
    """

    def __init__(self, space: str = "toy", dim: int = 4) -> None:
        self.space = Space(space, dim)
        self.fingerprint = f"{space} {dim}"
        self.modalities = frozenset(MEDIA)
        self.levels: dict[Modality, float] = {}
        self.means: dict[Modality, Vector] = {}
        self.spreads: dict[Modality, dict[Modality, float]] = {}
        self.audio_window = AudioWindow(RATE, seconds=2.0, hop_seconds=1.0)
        self.image_size = 8
        self.batch_size = 4
        self.encoded_images = 0
        self.encoded_texts = 0
        self.encoded_sounds = 0

    def knows(self, word: str) -> bool | None:
        return word in COLOURS

    def prepare_image(self, image: Image) -> Image:
        return image if image.size == (8, 8) else image.resize((8, 8))

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        self.encoded_images += len(images)
        rows = [
            np.asarray(self.prepare_image(image), np.float32).reshape(-1, 3).mean(0) / 255 for image in images
        ]
        return self._embed(np.array(rows, np.float32).reshape(-1, 3))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.encoded_texts += len(texts)
        rows = []
        for text in texts:
            found = [COLOURS[word] for word in text.lower().split() if word in COLOURS]
            if found:
                rows.append(np.mean(found, axis=0) / 255)
            else:
                rows.append(
                    np.frombuffer(hashlib.blake2b(text.encode(), digest_size=3).digest(), np.uint8) / 255
                )
        return self._embed(np.array(rows, np.float32).reshape(-1, 3))

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors:
        self.encoded_sounds += len(clips)
        rows = []
        for clip in clips:
            times = np.arange(len(clip)) / RATE
            shares = [np.abs(clip @ np.exp(2j * np.pi * hertz * times)) ** 2 for hertz in TONES.values()]
            rows.append(np.array(shares) / max(sum(shares), 1e-9))
        return self._embed(np.array(rows, np.float32).reshape(-1, 3))

    def _embed(self, colours: Vectors) -> Vectors:
        vectors = np.zeros((len(colours), self.space.dim), np.float32)
        vectors[:, :3] = colours
        vectors[:, 3] = 0.25
        return normalise(vectors)
