"""What a new model is to encode of an item that the catalog has: pictures and sounds from its file, texts as stored."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from indexer.addresses import Network
from indexer.pictures import Pictures, hash_in
from indexer.plan import File
from indexer.prepare import Preparer
from mmsearch.admission import Era
from mmsearch.catalog import Catalog
from mmsearch.contents import with_vector
from mmsearch.errors import MediaError
from mmsearch.shadows import MAPPED
from mmsearch.types import Item, Modality, NewItem, NewPart, Part

__all__ = ["Counterpart", "Counterparts", "Unable", "counterpart", "in_other_words"]


@dataclasses.dataclass(frozen=True, slots=True)
class Counterpart:
    """The shadow item of an item. ``copied``: its pictures and sounds are those of one with the same content."""

    new: NewItem
    copied: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Unable:
    """An item that cannot be encoded, and why."""

    item: Item
    reason: str


class Counterparts:
    """Makes the counterparts of items in the shadow collection of ``era``. Safe to use from several threads. Close it.

    ``allowed`` are networks that pictures are fetched from although they are not public.
    """

    def __init__(self, catalog: Catalog, era: Era, allowed: Sequence[Network] = ()) -> None:
        self._catalog = catalog
        self._era = era
        self._prepare = Preparer(era.encoder, ())
        self._pictures = Pictures(era.encoder, allowed)
        self._begun: set[bytes] = set()  # contents that are on their way
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._pictures.close()

    def __call__(self, item: Item) -> Counterpart | Unable | None:
        """The counterpart with all that is to be encoded as content, or why there is none.

        None if its content is on its way already, for another item: ask again when that is stored.
        """
        encoded = {part.modality for part in item.parts} - {Modality.FUSED}
        for modality in sorted(encoded - self._era.encoder.modalities):
            return Unable(item, f"{self._era.info.model} has no tower for modality {modality}")
        media = [part for part in item.parts if part.modality in (Modality.IMAGE, Modality.AUDIO)]
        fused = [part for part in map(in_other_words, item.parts) if part and part.modality is Modality.FUSED]
        texts = [in_other_words(part) for part in item.parts if part.modality is Modality.TEXT]
        said = [text for text in texts if text is not None]
        if len(said) < len(texts):
            return Unable(item, "it has the vector of a text that is not in the catalog")
        copied = self._copied(item) if media else []
        seen = copied
        if media and not copied:
            if not self._begin(item.content_hash):
                return None
            try:
                seen = self._read(item, media)
            except MediaError as error:
                self._begun.discard(item.content_hash or b"")
                return Unable(item, error.reason)
        # As indexed: a sound comes before what is said in it.
        return Counterpart(counterpart(item, [*fused, *seen, *said]), bool(copied))

    def _begin(self, content_hash: bytes | None) -> bool:
        """Whether nobody has begun with this content."""
        with self._lock:
            if content_hash is None or content_hash not in self._begun:
                self._begun.add(content_hash or b"")
                return True
            return False

    def _copied(self, item: Item) -> list[NewPart]:
        """The pictures and sounds of an item with the same content that has its counterpart already."""
        if item.content_hash is None:
            return []
        wanted = {part.modality for part in item.parts} - {Modality.TEXT}
        twins = list(self._catalog.by_hash(self._era.info.id, [item.content_hash]).values())
        for found in self._catalog.existing(self._era.info.id, twins, with_parts=True).values():
            parts = [part for part in found.parts if part.modality is not Modality.TEXT]
            if found.title != MAPPED and {part.modality for part in parts} == wanted:
                vectors = self._catalog.vectors_of([part.id for part in parts])
                return [with_vector(part, vector) for part, vector in zip(parts, vectors, strict=True)]
        return []

    def _read(self, item: Item, media: Sequence[Part]) -> list[NewPart]:
        """The pictures and sounds of an item from its files. Raises ``MediaError`` saying why that cannot be."""
        if media and all(part.source for part in media):
            return [self._picture(part) for part in media]
        if not item.is_file:
            raise MediaError(item.key, "it is no file that could be read again")
        ready = self._prepare(File(item.key, item.size or 0, item.mtime_ns or 0), decode=True)
        if isinstance(ready, MediaError):
            raise ready
        if item.content_hash is not None and ready.content_hash != item.content_hash:
            raise MediaError(item.key, "it has changed since it was indexed: run `mmsearch index` first")
        parts = [part for part in ready.parts or () if part.modality is not Modality.TEXT]
        kinds = [part.modality for part in parts]
        # The windows of sounds are the model's: there may be more or fewer of them.
        sounds = {*kinds} == {part.modality for part in media} == {Modality.AUDIO}
        if not sounds and kinds != [part.modality for part in media]:
            raise MediaError(item.key, "its parts were not made from its file alone")
        return parts

    def _picture(self, part: Part) -> NewPart:
        """A picture of a product. Raises ``MediaError`` saying why it cannot be had."""
        source = part.source or ""
        picture = self._pictures.look(source)
        if picture.content_hash != hash_in(part.stamp):
            raise MediaError(source, "it has changed since it was indexed: run `mmsearch index` first")
        return NewPart(modality=part.modality, content=picture.image, source=part.source, stamp=picture.stamp)


def counterpart(item: Item, parts: Sequence[NewPart]) -> NewItem:
    """The shadow item of an item, called by the lowest id of its parts."""
    first = min(part.id for part in item.parts)
    return NewItem(key=str(first), modality=item.modality, parts=parts, content_hash=item.content_hash)


def in_other_words(part: Part) -> NewPart | None:
    """A text to be encoded again, None if its words are not in the catalog; or what is fused, made of the others."""
    if part.modality is Modality.FUSED:
        return NewPart(modality=Modality.FUSED)
    if part.modality is not Modality.TEXT or part.text is None or not part.text.strip():
        return None
    return NewPart(modality=Modality.TEXT, content=part.text, start=part.start, end=part.end, page=part.page)
