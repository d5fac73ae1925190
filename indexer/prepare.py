"""From a file to something an encoder takes. Runs on the decode threads."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from indexer.plan import File
from mmsearch.encoders import Encoder
from mmsearch.errors import MediaError
from mmsearch.media import image_attributes, modality_of, read_file, read_image, read_text
from mmsearch.types import AttributeValue, Modality, NewPart

__all__ = ["Prepared", "Preparer", "content_hash"]


@dataclasses.dataclass(slots=True)
class Prepared:
    """A file that was read. ``parts`` have their content, and no vector yet; None if the content is known already.

    ``file`` has the size and time of the bytes that were read. ``title`` is what a document calls itself. ``notes``
    say what was odd. ``read_seconds`` and ``decode_seconds`` are the thread's time.
    """

    file: File
    content_hash: bytes
    modality: Modality
    title: str | None = None
    attributes: dict[str, AttributeValue] = dataclasses.field(default_factory=dict)
    parts: list[NewPart] | None = None
    notes: tuple[str, ...] = ()
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Preparer:
    """Reads, hashes and decodes files for ``encoder``; safe to use from several threads.

    A file whose content hash is among ``known``, or has come before, is not decoded. This is a short cut and no
    promise: whoever takes the result has to look where the content is, and may find that it is gone.
    """

    def __init__(self, encoder: Encoder, known: Iterable[bytes]) -> None:
        self._encoder = encoder
        self._seen = set(known)
        self._lock = threading.Lock()

    def __call__(self, file: File, *, decode: bool = False) -> Prepared | MediaError:
        """The prepared file, or what is wrong with it. ``decode``: even if its content is known."""
        started = time.perf_counter()
        try:
            data, file = _read(file)
            modality = modality_of(file.path) or Modality.TEXT
            prepared = Prepared(file, content_hash(data, file.path), modality)
            prepared.read_seconds = time.perf_counter() - started
            seen = self._is_seen(prepared.content_hash)
            self._decode(prepared, data, seen and not decode)
        except MediaError as error:
            return error
        prepared.decode_seconds = time.perf_counter() - started - prepared.read_seconds
        return prepared

    def _is_seen(self, digest: bytes) -> bool:
        with self._lock:
            seen = digest in self._seen
            self._seen.add(digest)
        return seen

    def _decode(self, prepared: Prepared, data: bytes, known: bool) -> None:
        path = prepared.file.path
        if prepared.modality is Modality.IMAGE:
            if known:
                prepared.attributes = image_attributes(data, name=path)
                return
            image, prepared.attributes = read_image(data, path, self._encoder.image_size)
            prepared.parts = [NewPart(modality=Modality.IMAGE, content=self._encoder.prepare_image(image))]
            return
        prepared.attributes = {"format": _TEXT_FORMATS[os.path.splitext(path)[1].lower()]}
        if not known:
            document = read_text(data, Path(path))
            prepared.title = document.title
            prepared.notes = document.notes
            prepared.parts = [
                NewPart(
                    modality=Modality.TEXT, content=part.text, start=part.start, end=part.end, page=part.page
                )
                for part in document.parts
            ]


_TEXT_FORMATS = {
    ".txt": "TEXT",
    ".text": "TEXT",
    ".md": "MARKDOWN",
    ".markdown": "MARKDOWN",
    ".html": "HTML",
    ".htm": "HTML",
    ".xhtml": "HTML",
    ".pdf": "PDF",
}


def content_hash(data: bytes, path: str) -> bytes:
    """16 bytes that name the content of a file: of a picture its bytes, of a text also how they are read.

    The same bytes called ``.txt`` and ``.html`` are two texts; called ``.jpg`` and ``.png`` they are one picture.
    """
    form = "" if modality_of(path) is Modality.IMAGE else _TEXT_FORMATS[os.path.splitext(path)[1].lower()]
    return blake2b(data, digest_size=16, person=form.encode()).digest()


def _read(file: File) -> tuple[bytes, File]:
    """The bytes of a file and the file as it was then. Raises ``MediaError`` if it changes meanwhile."""
    for _ in range(2):  # it may have changed since it was scanned
        data = read_file(Path(file.path))
        try:
            status = os.stat(file.path)
        except OSError as error:
            raise MediaError(file.path, f"went away while it was read ({error.strerror})") from None
        before, file = file, File(file.path, status.st_size, status.st_mtime_ns)
        if file == before and len(data) == file.size:
            return data, file
    raise MediaError(file.path, "changes while it is read; the next run will take it")
