"""Media of a table as vectors: files are decoded ahead on threads, and each thing is encoded once."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import Encoder
from mmsearch.errors import MediaError
from mmsearch.manifests import Media, Terms
from mmsearch.media import load_image, load_sound
from mmsearch.ranking import compose
from mmsearch.tables import Problems
from mmsearch.types import Modality, Vector, Vectors

__all__ = ["Encoded", "Progress", "ahead", "decode", "encode"]

Progress = Callable[[int, int], None]
"""Called with the number of media encoded so far, and of all."""

AHEAD = 4
"""So many batches are decoded before the encoder asks for them."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Encoded:
    """Vectors of media, each encoded once, with the seconds that it took."""

    def __init__(
        self, encoder: Encoder, media: Iterable[Media], problems: Problems, progress: Progress
    ) -> None:
        distinct = list(dict.fromkeys(media))
        vectors, self._seconds = encode(encoder, distinct, problems, progress, one_by_one=True)
        self._rows = {found: row for row, found in enumerate(distinct)}
        self._vectors = vectors

    def gallery(self, media: Sequence[Media]) -> Vectors:
        rows = [self._rows[found] for found in media]
        found: Vectors = self._vectors[rows]
        return found

    def query(self, terms: Terms) -> Vector:
        if len(terms) == 1:
            vector: Vector = self._vectors[self._rows[terms[0][0]]]
            return vector
        return compose(
            [self._vectors[self._rows[media]] for media, _ in terms], [weight for _, weight in terms]
        )

    def seconds(self, terms: Terms) -> float:
        return float(sum(self._seconds[self._rows[media]] for media, _ in terms))


def encode(
    encoder: Encoder,
    media: Sequence[Media],
    problems: Problems,
    progress: Progress = lambda done, total: None,
    *,
    one_by_one: bool = False,
) -> tuple[Vectors, NDArray[np.float64]]:
    """Vectors (n, dim) of n media and the seconds (n,) each took: decoding, and its share of its batch.

    Files are decoded on threads meanwhile. ``one_by_one``: texts are encoded so, as queries are, and not in batches.
    What cannot be read is added to ``problems`` and has a row of zeros.
    """
    vectors = np.zeros((len(media), encoder.space.dim), np.float32)
    seconds = np.zeros(len(media))
    done = 0
    if any(found.modality is Modality.TEXT for found in media):
        encoder.encode_texts(["warm up"])  # loading the tower is no part of a query's time
    texts = [row for row, found in enumerate(media) if found.modality is Modality.TEXT]
    size = 1 if one_by_one else encoder.batch_size
    for rows in (texts[start : start + size] for start in range(0, len(texts), size)):
        started = time.perf_counter()
        vectors[rows] = encoder.encode_texts([str(media[row].content) for row in rows])
        seconds[rows] = (time.perf_counter() - started) / len(rows)
        progress(done := done + len(rows), len(media))
    batches: list[list[int]] = []
    for modality, size in ((Modality.IMAGE, encoder.batch_size), (Modality.AUDIO, 1)):
        files = [row for row, found in enumerate(media) if found.modality is modality]
        batches += [files[start : start + size] for start in range(0, len(files), size)]
    warm: set[Modality] = set()

    def decoded(rows: list[int]) -> list[tuple[Any, float]]:
        return [decode(encoder, media[row]) for row in rows]

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for rows, ready in zip(batches, ahead(pool, decoded, batches), strict=True):
            good = []
            for row, (content, spent) in zip(rows, ready, strict=True):
                seconds[row] = spent
                if isinstance(content, MediaError):
                    problems.add(media[row].place, str(content))
                else:
                    good.append((row, content))
            if good:
                modality = media[rows[0]].modality
                if modality not in warm:
                    _encode(encoder, modality, [good[0][1]])  # nor is loading this one
                    warm.add(modality)
                started = time.perf_counter()
                vectors[[row for row, _ in good]] = _encode(
                    encoder, modality, [content for _, content in good]
                )
                seconds[[row for row, _ in good]] += (time.perf_counter() - started) / len(good)
            progress(done := done + len(rows), len(media))
    return vectors, seconds


def decode(encoder: Encoder, media: Media) -> tuple[Any, float]:
    """A picture, the parts of a recording, or what is wrong with the file; and the seconds it took."""
    started = time.perf_counter()
    content: Any
    try:
        if media.modality is Modality.IMAGE:
            content = encoder.prepare_image(load_image(media.content, min_side=encoder.image_size))
        else:
            content = list(load_sound(media.content, encoder.audio_window))
    except MediaError as error:
        content = error
    return content, time.perf_counter() - started


def _encode(encoder: Encoder, modality: Modality, contents: Sequence[Any]) -> Vectors:
    """Vectors of pictures, or of recordings: the mean direction of their parts."""
    if modality is Modality.IMAGE:
        return encoder.encode_images(contents)
    parts = [encoder.encode_audio(clips) for clips in contents]
    return np.stack([compose(list(found), [1.0] * len(found)) for found in parts])


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[_T], _R], items: Iterable[_T], most: int = AHEAD
) -> Iterator[_R]:
    """What ``work`` makes of each item, up to ``most`` of them ahead of whoever asks."""
    rest = iter(items)
    waiting: collections.deque[Future[_R]] = collections.deque(
        pool.submit(work, item) for item in islice(rest, most)
    )
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        yield result
