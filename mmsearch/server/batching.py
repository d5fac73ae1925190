"""Encoding for many requests at once: what waits while a batch is encoded makes up the next one.

Nobody waits for a batch to fill: the first request is encoded at once, and those that come meanwhile go together. A
query that was encoded lately is not encoded again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np
from cachetools import LRUCache

from mmsearch.encoders import Encoder
from mmsearch.types import AudioWindow, Image, Modality, Space, Vector, Vectors, Waveform

__all__ = ["SharedEncoder"]

_T = TypeVar("_T")

KEPT = 20_000  # query vectors; 60 MB at 768 dimensions


class SharedEncoder:
    """An ``Encoder`` that many threads share: ``encode_texts`` and ``encode_images`` of concurrent callers are joined
    into batches, and vectors of texts are kept. ``hits`` and ``misses`` count kept and encoded texts.
    """

    def __init__(self, encoder: Encoder, *, kept: int = KEPT) -> None:
        self.inner = encoder
        self.hits = 0
        self.misses = 0
        # In rows of one matrix: blocks of their own, given up after half an hour among short-lived ones, would leave
        # holes that nothing else fits in.
        self._rows: LRUCache[str, int] = LRUCache(kept)
        self._kept = np.empty((kept, encoder.space.dim), np.float32)
        self._lock = threading.Lock()
        self._texts: _Joined[str] = _Joined(encoder.encode_texts, lambda: encoder.batch_size)
        self._images: _Joined[Image] = _Joined(encoder.encode_images, lambda: encoder.batch_size)

    @property
    def space(self) -> Space:
        return self.inner.space

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.inner.modalities

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    @property
    def image_size(self) -> int:
        return self.inner.image_size

    @property
    def audio_window(self) -> AudioWindow:
        return self.inner.audio_window

    @property
    def batch_size(self) -> int:
        return self.inner.batch_size

    @property
    def levels(self) -> Mapping[Modality, float]:
        return self.inner.levels

    @property
    def means(self) -> Mapping[Modality, Vector]:
        return self.inner.means

    @property
    def spreads(self) -> Mapping[Modality, Mapping[Modality, float]]:
        return self.inner.spreads

    def knows(self, word: str) -> bool | None:
        return self.inner.knows(word)

    def prepare_image(self, image: Image) -> Image:
        return self.inner.prepare_image(image)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        return self._images([self.inner.prepare_image(image) for image in images], self.space.dim)

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors:
        return self.inner.encode_audio(clips)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.space.dim), np.float32)
        missing = []
        with self._lock:
            for n, text in enumerate(texts):
                if (row := self._rows.get(text)) is None:
                    missing.append(n)
                else:
                    vectors[n] = self._kept[row]
        if missing:
            vectors[missing] = self._texts([texts[n] for n in missing], self.space.dim)
        with self._lock:
            for n in missing:
                self._keep(texts[n], vectors[n])
            self.misses += len(missing)
            self.hits += len(texts) - len(missing)
        return vectors

    def _keep(self, text: str, vector: Vector) -> None:
        """Keep the vector of a text instead of that which was not asked for the longest. Under the lock."""
        row = self._rows.get(text)
        if row is None:
            row = len(self._rows) if len(self._rows) < len(self._kept) else self._rows.popitem()[1]
            self._rows[text] = row
        self._kept[row] = vector


class _Joined(Generic[_T]):
    """Calls of several threads as one, made by a thread of its own."""

    def __init__(self, encode: Callable[[Sequence[_T]], Vectors], most: Callable[[], int]) -> None:
        self._encode = encode
        self._most = most
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Sequence[_T], Future[Vectors]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, inputs: Sequence[_T], dim: int) -> Vectors:
        if not inputs:
            return np.zeros((0, dim), np.float32)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
                self._thread.start()
        future: Future[Vectors] = Future()
        self._queue.put((inputs, future))
        return future.result()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            try:
                size, most = len(batch[0][0]), self._most()
                while size < most:
                    try:
                        batch.append(self._queue.get_nowait())
                    except queue.Empty:
                        break
                    size += len(batch[-1][0])
                vectors = self._encode([one for inputs, _ in batch for one in inputs])
            except Exception:
                self._alone(batch)
                continue
            start = 0
            for inputs, future in batch:
                future.set_result(vectors[start : start + len(inputs)])
                start += len(inputs)

    def _alone(self, batch: list[tuple[Sequence[_T], Future[Vectors]]]) -> None:
        """One bad input must not fail its neighbours: each call again by itself."""
        for inputs, future in batch:
            try:
                future.set_result(self._encode(inputs))
            except Exception as error:
                future.set_exception(error)
