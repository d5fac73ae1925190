"""Pictures and sounds of items: small copies, made once and kept, and the files, never one that was not indexed."""

from __future__ import annotations

import mimetypes
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mmsearch.catalog import Catalog
from mmsearch.database import translated
from mmsearch.engine import Engine
from mmsearch.errors import ItemNotFound, MediaError
from mmsearch.media import MAX_PIXELS, load_image
from mmsearch.products import feeds_of
from mmsearch.types import Item, Modality, Part

__all__ = ["SIZES", "Thumbnails", "content_type", "served_file"]

SIZES = (160, 320, 640, 1280)
"""Longer sides of small copies, in pixels."""

_INLINE = {"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"}


class Thumbnails:
    """Small copies (WebP) in a folder of the home. A part id names one picture for ever, so none is ever stale."""

    def __init__(
        self, home: Path, fetched: Callable[[str], bytes] | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._folder = home / "thumbnails"
        self._fetched = fetched
        self._max_pixels = max_pixels
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, engine: Engine, item: Item, part: Part, size: int) -> Path:
        """The small copy of a picture, ``size`` (one of ``SIZES``) on its longer side.

        Raises ``MediaError`` if the picture is gone or cannot be read, ``ItemNotFound`` if the part is no picture,
        ``StoreError`` if the copy cannot be kept.
        """
        if part.modality is not Modality.IMAGE:
            raise ItemNotFound(f"item {item.id} has no picture there")
        path = self._small(part.id, size)
        if path.is_file():
            return path
        with self._lock:
            lock = self._locks.setdefault(part.id, threading.Lock())
        try:
            with lock:
                if not path.is_file():
                    self._make(engine, item, part, size, path)
        finally:
            with self._lock:
                self._locks.pop(part.id, None)
        return path

    def keep(self, part: Part, data: bytes) -> None:
        """Keep a picture that came as bytes, to make small copies of. Raises ``StoreError``."""
        path = self._original(part.id)
        with translated(self._folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_bytes(data)
            os.replace(partial, path)

    def forget(self, parts: Iterable[int]) -> None:
        """Delete what is kept of parts that are no more."""
        for part in parts if self._folder.is_dir() else ():
            for path in (self._original(part), *(self._small(part, size) for size in SIZES)):
                path.unlink(missing_ok=True)

    def sweep(self, catalog: Catalog) -> int:
        """Delete what is kept of parts that are no more, whoever removed them and when; returns the number of files."""
        files = [path for path in self._folder.rglob("*") if path.stem[:1].isdecimal() and path.is_file()]
        owners = [int(re.match(r"\d+", path.name)[0]) for path in files]  # type: ignore[index]
        known = catalog.known_parts(sorted({*owners}))
        gone = [path for path, part in zip(files, owners, strict=True) if part not in known]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _small(self, part: int, size: int) -> Path:
        return self._folder / f"{part % 1000:03}" / f"{part}-{size}.webp"

    def _original(self, part: int) -> Path:
        return self._folder / "originals" / f"{part % 1000:03}" / str(part)

    def _make(self, engine: Engine, item: Item, part: Part, size: int, path: Path) -> None:
        source, most = part.source or item.path, self._max_pixels
        if (original := self._original(part.id)).is_file():
            image = load_image(original, min_side=size, name="picture", max_pixels=most)
        elif source is None:
            raise ItemNotFound(f"item {item.id} was added without a picture file")
        elif source.startswith(("http://", "https://")):
            if self._fetched is None:
                raise MediaError(source, "pictures by URL are not kept here")
            image = load_image(self._fetched(source), min_side=size, name=source, max_pixels=most)
        else:
            found = served_file(engine, source, indexed=item.is_file and source == item.path)
            image = load_image(found, min_side=size, max_pixels=most)
        image.thumbnail((size, size))
        with translated(self._folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{threading.get_ident()}.part")
            image.save(partial, "WEBP", quality=82, method=2)
            os.replace(partial, path)


def served_file(engine: Engine, path: str | None, *, indexed: bool = False) -> Path:
    """The file, if it is still there in a folder that was indexed, in that of a feed, or ``indexed`` by its own name.
    Raises ``ItemNotFound``.

    Links are followed before the comparison: one that leads elsewhere leads to nothing.
    """
    if path is None:
        raise ItemNotFound("this item is no file")
    real = Path(os.path.realpath(path))
    known = (indexed and str(real) == path) or _inside(real, [*engine.roots(), *_feed_roots(engine)])
    if not known or not real.is_file():
        raise ItemNotFound(f"{Path(path).name}: is not among the indexed files any more")
    return real


def _feed_roots(engine: Engine) -> Iterator[str]:
    """The folders that paths of pictures start from in the tables that were indexed."""
    for feed in feeds_of(engine.catalog, engine.collection_id).values():
        yield str(Path(feed.path).parent / (feed.options.get("layout", {}).get("root") or "."))


def _inside(path: Path, roots: Iterable[str]) -> bool:
    for root in roots:
        real = Path(os.path.realpath(root))
        if path.is_relative_to(real):
            return True
    return False


def content_type(path: Path, modality: Modality) -> str:
    """What a file is sent as: nothing that a browser would run."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    if modality is Modality.TEXT:
        return "text/plain; charset=utf-8"
    if kind in _INLINE or kind.startswith("audio/"):
        return kind
    return "application/octet-stream"
