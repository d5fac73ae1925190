"""From a file to something an encoder takes. Runs on the decode threads."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b, file_digest
from pathlib import Path

from indexer.plan import File
from mmsearch.encoders import Encoder
from mmsearch.errors import MediaError, MissingExtra
from mmsearch.media import (
    image_attributes,
    modality_of,
    opened,
    read_file,
    read_image,
    read_sound,
    read_text,
)
from mmsearch.types import AttributeValue, Modality, NewPart

__all__ = ["Prepared", "Preparer", "content_hash"]


@dataclasses.dataclass(slots=True)
class Prepared:
    """A file that was read. ``parts`` have their content, and no vector yet, but those of sounds, which were encoded as
    they were decoded; None if the content is known already.

    ``file`` has the size and time of the bytes that were read. ``title`` is what a document calls itself. ``notes``
    say what was odd. ``read_seconds``, ``decode_seconds`` and ``encode_seconds`` are the thread's time.
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
    encode_seconds: float = 0.0


class Preparer:
    """Reads, hashes and decodes files for ``encoder``; safe to use from several threads.

    A file whose content hash is among ``known``, or has come before, is not decoded. This is a short cut and no
    promise: whoever takes the result has to look where the content is, and may find that it is gone. ``write_down`` is
    called with each decoded recording.
    """

    def __init__(
        self,
        encoder: Encoder,
        known: Iterable[bytes],
        write_down: Callable[[Prepared], None] = lambda _: None,
    ) -> None:
        self._encoder = encoder
        self._write_down = write_down
        self._seen = set(known)
        self._lock = threading.Lock()

    def __call__(self, file: File, *, decode: bool = False) -> Prepared | MediaError:
        """The prepared file, or what is wrong with it. ``decode``: even if its content is known."""
        started = time.perf_counter()
        try:
            modality = modality_of(file.path) or Modality.TEXT
            if modality is Modality.AUDIO:
                return self._sound(file, started, decode)
            data, file = _read(file)
            prepared = Prepared(file, content_hash(data, file.path), modality)
            prepared.read_seconds = time.perf_counter() - started
            seen = self._is_seen(prepared.content_hash)
            self._decode(prepared, data, seen and not decode)
        except MediaError as error:
            return error
        prepared.decode_seconds = time.perf_counter() - started - prepared.read_seconds
        return prepared

    def _sound(self, file: File, started: float, decode: bool) -> Prepared:
        """A recording, never whole in memory: its parts are encoded one by one as they are decoded."""
        digest, file = _digest(file)
        prepared = Prepared(file, digest, Modality.AUDIO)
        prepared.read_seconds = time.perf_counter() - started
        if self._is_seen(digest) and not decode:
            return prepared
        try:
            sound = read_sound(Path(file.path), self._encoder.audio_window)
        except MissingExtra as error:
            raise MediaError(file.path, str(error).removeprefix(f"{file.path}: ")) from error
        prepared.title, prepared.attributes, prepared.notes = sound.title, sound.attributes, sound.notes
        prepared.parts = []
        for (start, end), clip in zip(sound.spans, sound.clips(), strict=True):
            before = time.perf_counter()
            (vector,) = self._encoder.encode_audio([clip])
            prepared.encode_seconds += time.perf_counter() - before
            prepared.parts.append(NewPart(modality=Modality.AUDIO, vector=vector, start=start, end=end))
        before = time.perf_counter()
        self._write_down(prepared)
        prepared.encode_seconds += time.perf_counter() - before
        spent = time.perf_counter() - started
        prepared.decode_seconds = spent - prepared.read_seconds - prepared.encode_seconds
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
    """16 bytes that name the content of a file: of a picture or a sound its bytes, of a text also how they are read.

    The same bytes called ``.txt`` and ``.html`` are two texts; called ``.jpg`` and ``.png`` they are one picture.
    """
    form = _TEXT_FORMATS[os.path.splitext(path)[1].lower()] if modality_of(path) is Modality.TEXT else ""
    return blake2b(data, digest_size=16, person=form.encode()).digest()


def _read(file: File) -> tuple[bytes, File]:
    """The bytes of a file and the file as it was then. Raises ``MediaError`` if it changes meanwhile."""
    return _unchanged(file, lambda path: (data := read_file(path), len(data)))


def _digest(file: File) -> tuple[bytes, File]:
    """The content hash of a file that may be too large to read at once, and the file as it was then."""

    def digest(path: Path) -> tuple[bytes, int]:
        with opened(path) as stream:
            hashed = file_digest(stream, lambda: blake2b(digest_size=16))
            if not stream.tell():
                raise MediaError(path, "is empty (zero bytes)")
            return hashed.digest(), stream.tell()

    return _unchanged(file, digest)


def _unchanged(file: File, read: Callable[[Path], tuple[bytes, int]]) -> tuple[bytes, File]:
    """What ``read`` makes of a file, with the number of bytes it saw, and the file as it was then."""
    for _ in range(2):  # it may have changed since it was scanned
        found, size = read(Path(file.path))
        try:
            status = os.stat(file.path)
        except OSError as error:
            raise MediaError(file.path, f"went away while it was read ({error.strerror})") from None
        before, file = file, File(file.path, status.st_size, status.st_mtime_ns)
        if file == before and size == file.size:
            return found, file
    raise MediaError(file.path, "changes while it is read; the next run will take it")
