"""Pictures of products: read or fetched if they are others than they were, decoded if their content is new."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from indexer.addresses import Network, is_url
from indexer.fetch import Fetcher
from mmsearch.decoding import decoding
from mmsearch.encoders import Encoder
from mmsearch.errors import MediaError
from mmsearch.media import MAX_PIXELS, pixels_of, read_file, read_image
from mmsearch.types import Image, Vector

__all__ = ["REMEMBERED", "Picture", "PictureVectors", "Pictures", "hash_in"]

REMEMBERED = 4096
"""So many pictures are looked at and encoded once in a run, however many products (variants) have them."""


@dataclasses.dataclass(slots=True)
class Picture:
    """A picture as it is now. ``content_hash`` (16 bytes) names its bytes, ``stamp`` this version of its source.

    ``image`` is what the encoder takes, None if the content is that of the stamp that was known; ``vector`` is for
    whoever encodes it. ``source`` is None for bytes that somebody handed over.
    """

    source: str | None
    content_hash: bytes
    stamp: str
    image: Image | None = None
    vector: Vector | None = None


class Pictures:
    """Looks at pictures for ``encoder``; safe to use from several threads. Close it.

    ``allowed`` are networks that are fetched from although they are not public; without ``files`` paths are refused.
    ``fetch_seconds`` is how long fetching may take in all, ``max_pixels`` the size of picture that is decoded.
    """

    def __init__(
        self,
        encoder: Encoder,
        allowed: Sequence[Network] = (),
        *,
        files: bool = True,
        fetch_seconds: float = math.inf,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._encoder = encoder
        self._allowed = allowed
        self._files = files
        self._fetch_seconds = fetch_seconds
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._made: Fetcher | None = None

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made.close()

    @property
    def fetcher(self) -> Fetcher:
        """What fetches addresses, made when it is first needed. Raises ``MissingExtra``."""
        with self._lock:
            if self._made is None:
                self._made = Fetcher(self._allowed, budget=self._fetch_seconds)
            return self._made

    def look(self, source: str | bytes, stamp: str | None = None) -> Picture:
        """The picture at a path or address, or of bytes; ``stamp`` is that of the version that is known.

        A file of the same size and time is not read, an address whose server says "not modified" sends nothing, and
        what has the bytes of the known version is not decoded. Raises ``MediaError``.
        """
        known = _read_stamp(stamp)
        if isinstance(source, bytes):
            return self._decoded(None, source, "picture", known, {})
        if is_url(source):
            fetched = self.fetcher.get(source, etag=known.get("etag"), modified=known.get("modified"))
            version: dict[str, object] = {"etag": fetched.etag, "modified": fetched.modified}
            if fetched.data is None:
                return Picture(source, hash_in(stamp) or b"", _stamp(known["hash"], version))
            return self._decoded(source, fetched.data, source, known, version)
        if not self._files:
            raise MediaError(source, "is a path, and only addresses and uploads are taken here")
        try:
            status = os.stat(source)
        except (OSError, ValueError):
            status = None  # reading it will say what is wrong
        version = {"size": status.st_size, "mtime": status.st_mtime_ns} if status else {}
        if known and version == {name: known.get(name) for name in ("size", "mtime")}:
            return Picture(source, bytes.fromhex(known["hash"]), stamp or "")
        return self._decoded(source, read_file(Path(source)), source, known, version)

    def _decoded(
        self, source: str | None, data: bytes, name: str, known: dict[str, Any], version: dict[str, object]
    ) -> Picture:
        digest = blake2b(data, digest_size=16).digest()
        found = Picture(source, digest, _stamp(digest.hex(), version))
        if digest.hex() != known.get("hash"):
            side, most = self._encoder.image_size, self._max_pixels
            with decoding(pixels_of(data, name, side, most)):
                image, _ = read_image(data, name, side, most)
                found.image = self._encoder.prepare_image(image)
                del image
        return found


class PictureVectors:
    """Vectors of pictures by their content, so that what several products have is encoded once."""

    def __init__(self, encoder: Callable[[], Encoder], pictures: Pictures) -> None:
        self._encoder = encoder
        self._pictures = pictures
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()

    def keep(self, content_hash: bytes, vector: Vector) -> None:
        """Note the vector that a picture has already."""
        self._vectors[content_hash] = vector
        self._vectors.move_to_end(content_hash)

    def encode(self, pictures: Sequence[Picture]) -> dict[bytes, str]:
        """Give pictures their vectors; returns why some have none, by content: they are others than a moment ago."""
        lost: dict[bytes, str] = {}
        fresh: dict[bytes, Image] = {}
        for picture in pictures:
            digest = picture.content_hash
            if picture.vector is not None or digest in self._vectors or digest in fresh or digest in lost:
                continue
            if picture.image is None:  # what had this vector is gone: it is needed again
                try:
                    again = self._pictures.look(picture.source or b"")
                except MediaError as error:
                    lost[digest] = str(error)
                    continue
                picture.image = again.image if again.content_hash == digest else None
            if picture.image is None:
                lost[digest] = f"{picture.source}: changes while it is read; the next run will take it"
            else:
                fresh[digest] = picture.image
        if fresh:
            vectors = self._encoder().encode_images(list(fresh.values()))
            for digest, vector in zip(fresh, vectors, strict=True):
                self.keep(digest, vector)
        for picture in pictures:
            if picture.content_hash not in lost and picture.vector is None:
                picture.vector = self._vectors[picture.content_hash]
            picture.image = None
        while len(self._vectors) > REMEMBERED:
            self._vectors.popitem(last=False)
        return lost


def hash_in(stamp: str | None) -> bytes | None:
    """The content hash that a stamp tells."""
    return bytes.fromhex(known["hash"]) if (known := _read_stamp(stamp)) else None


def _stamp(digest: str, version: dict[str, object]) -> str:
    told = {name: value for name, value in version.items() if value is not None}
    return json.dumps({"hash": digest} | told, separators=(",", ":"))


def _read_stamp(stamp: str | None) -> dict[str, Any]:
    return dict(json.loads(stamp)) if stamp else {}
