"""Products into a collection: only what is new or changed is fetched, decoded and encoded.

An item's content hash names all that is embedded of a product: its title, its description and the bytes of its
pictures. If that is what the catalog has, nothing is encoded, and if the attributes are the same as well, nothing is
written. What is encoded is what is new: a product with another title keeps the vectors of its pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from indexer.addresses import Network, is_url
from indexer.fetch import AT_ONCE
from indexer.pictures import REMEMBERED, Picture, Pictures, PictureVectors, hash_in
from indexer.product import Product, alike, content_of, passages, texts_of
from indexer.report import Listener, Progress, Report, Skipped, printable
from mmsearch import products as stored
from mmsearch.engine import Engine
from mmsearch.errors import ItemError, ItemNotFound, MediaError, SpaceMismatch
from mmsearch.media import MAX_PIXELS
from mmsearch.types import (
    AttributeChanges,
    Attributes,
    Item,
    Modality,
    NewItem,
    NewPart,
    Vector,
)

__all__ = ["Product", "update_each", "upsert"]

BATCH = 128
"""Products of one commit: so much at most is lost when a run is killed."""


def upsert(
    engine: Engine,
    products: Sequence[Product],
    *,
    allowed: Sequence[Network] = (),
    files: bool = True,
    fetch_seconds: float = math.inf,
    max_pixels: int = MAX_PIXELS,
    feed: stored.Feed | None = None,
    report: Report | None = None,
    progress: Listener | None = None,
    workers: int | None = None,
) -> Report:
    """Add products, or replace those whose key exists (they keep their id); of a key that comes twice the last counts.

    ``allowed`` are networks that pictures are fetched from although they are not public (``indexer.fetch.networks``);
    without ``files`` paths are refused, as is right for products that come from elsewhere; ``fetch_seconds`` is how
    long fetching may take in all, ``max_pixels`` the size of picture that is decoded. ``feed`` is the one they
    are from, ``report`` one to go on with, ``workers`` the number of decode threads.

    A product that cannot be indexed is in ``report.skipped`` with its reason, and stays as it was; so is one whose
    attributes have another kind in the collection. A picture that cannot be had is in ``report.notes``: the product is
    indexed without it, or keeps the one that it had from there. What was committed before an interruption stays.

    Raises ``MissingExtra`` if there are addresses and the extra ``shop`` is not installed, and what ``Engine.add``
    raises about the catalog or the model.
    """
    started = time.perf_counter()
    report = report if report is not None else Report()
    latest = list({product.key: product for product in products}.values())
    pictures = Pictures(
        engine.encoder, allowed, files=files, fetch_seconds=fetch_seconds, max_pixels=max_pixels
    )
    run = _Upsert(engine, pictures, feed, report, progress)
    addressed = any(
        isinstance(image, str) and is_url(image) for product in latest for image in product.images
    )
    if addressed:
        run.pictures.fetcher  # noqa: B018  a missing extra is told before anything is done
    threads = workers or max(2, min(16, os.cpu_count() or 2), AT_ONCE if addressed else 0)
    try:
        run.take_all(latest, threads)
    finally:
        run.pictures.close()
        report.total += time.perf_counter() - started
    return report


@dataclasses.dataclass(slots=True)
class _Batch:
    """Products on their way: what the catalog has of them, and their pictures as they arrive."""

    products: Sequence[Product]
    known: Mapping[str, Item]
    looks: Mapping[str, Sequence[Future[Picture | MediaError]]]


class _Upsert:
    """One run. All but fetching and decoding happens on the caller's thread."""

    def __init__(
        self,
        engine: Engine,
        pictures: Pictures,
        feed: stored.Feed | None,
        report: Report,
        progress: Listener | None,
    ) -> None:
        self.pictures = pictures
        self._engine = engine
        self._catalog = engine.catalog
        self._collection = engine.catalog.collection(engine.collection)
        self._feed = feed
        self._mine: Collection[str] = ()
        self._report = report
        self._progress = progress
        self._looks: OrderedDict[str, Future[Picture | MediaError]] = OrderedDict()
        self._seen = PictureVectors(lambda: engine.encoder, pictures)
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()

    def take_all(self, products: Sequence[Product], workers: int) -> None:
        """Take the products in batches; the pictures of one are made ready while those before are encoded."""
        self._places = {product.key: product.place or product.key for product in products}
        if self._feed is not None:
            self._mine = stored.keys_of(self._catalog, self._collection.id, self._feed).keys()
        waiting: deque[_Batch] = deque()
        done = 0
        with ThreadPoolExecutor(workers, "decode") as pool:
            try:
                for start in [*range(0, len(products), BATCH), None]:
                    if start is not None:
                        waiting.append(self._start(products[start : start + BATCH], pool))
                    if waiting and (start is None or len(waiting) > 1):
                        batch = waiting.popleft()
                        try:
                            self._finish(batch)
                        except ItemNotFound:  # another process changed one of them meanwhile
                            self._finish(self._start(batch.products, pool))
                        done += len(batch.products)
                        if self._progress:
                            at = printable(self._places[batch.products[-1].key])
                            self._progress(Progress("index", done, len(products), at))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    # -- looking ---------------------------------------------------------------------------------------------------

    def _start(self, products: Sequence[Product], pool: ThreadPoolExecutor) -> _Batch:
        with self._timed("scan"):
            known = stored.by_key(self._catalog, self._collection.id, [product.key for product in products])
        looks = {}
        for product in products:
            item = known.get(product.key)
            stamps = {part.source: part.stamp for part in item.parts if part.source} if item else {}
            looks[product.key] = [self._look(image, stamps, pool) for image in product.images]
        return _Batch(products, known, looks)

    def _look(
        self, image: str | bytes, stamps: Mapping[str, str | None], pool: ThreadPoolExecutor
    ) -> Future[Picture | MediaError]:
        if isinstance(image, bytes):
            return pool.submit(self._looked, image, None)
        if image not in self._looks:
            self._looks[image] = pool.submit(self._looked, image, stamps.get(image))
            if len(self._looks) > REMEMBERED:
                self._looks.popitem(last=False)
        self._looks.move_to_end(image)
        return self._looks[image]

    def _looked(self, image: str | bytes, stamp: str | None) -> Picture | MediaError:
        started = time.perf_counter()
        try:
            return self.pictures.look(image, stamp)
        except MediaError as error:
            return error
        finally:
            with self._lock:
                self._report.seconds["decode"] += time.perf_counter() - started

    # -- deciding --------------------------------------------------------------------------------------------------

    def _finish(self, batch: _Batch) -> None:
        """Find out what is new in a batch, encode and commit it."""
        changed: list[tuple[Product, list[Picture], bytes]] = []
        attributes: dict[str, Attributes] = {}
        stamps: dict[int, tuple[str | None, str | None]] = {}
        claimed: list[int] = []
        notes: list[Skipped] = []
        skipped: list[Skipped] = []
        same = 0
        for product in batch.products:
            item = batch.known.get(product.key)
            pictures, reasons = self._pictures(batch.looks[product.key], product.images, item)
            if not pictures and not product.title and not passages(product.description):
                told = "; ".join(reasons)
                skipped.append(
                    _line(product, f"it has no picture, title or description{': ' if told else ''}{told}")
                )
                continue
            notes += [_line(product, reason) for reason in reasons]
            digest = content_of(product, [picture.content_hash for picture in pictures])
            if item is None or item.content_hash != digest or not item.parts:
                changed.append((product, pictures, digest))
                continue
            stored_pictures = [part for part in item.parts if part.modality is Modality.IMAGE]
            for part, picture in zip(stored_pictures, pictures, strict=True):
                picture.image = None
                if (part.source, part.stamp) != (picture.source, picture.stamp):
                    stamps[part.id] = (picture.source, picture.stamp)
            if not alike(item.attributes, product.attributes):
                attributes[product.key] = product.attributes
            else:
                same += 1
            if self._feed is not None and product.key not in self._mine:
                claimed.append(item.id)
        new = self._built(changed, batch.known, skipped)
        with self._timed("commit"):
            self._commit(new, attributes, stamps, claimed, batch.known, skipped)
        self._report.unchanged += same
        self._report.notes += notes
        self._report.skipped += skipped

    def _pictures(
        self, looks: Sequence[Future[Picture | MediaError]], images: Sequence[str | bytes], item: Item | None
    ) -> tuple[list[Picture], list[str]]:
        """The pictures of a product that can be had, and what is wrong with the others."""
        found: list[Picture] = []
        reasons: list[str] = []
        parts = {part.source: part for part in item.parts if part.source} if item else {}
        for image, look in zip(images, looks, strict=True):
            picture = look.result()
            if isinstance(picture, Picture):
                found.append(picture)
                continue
            part = parts.get(image) if isinstance(image, str) else None
            digest = hash_in(part.stamp) if part else None
            if part is not None and digest is not None:
                found.append(Picture(part.source, digest, part.stamp or ""))
            reasons.append(f"{picture}{'' if digest is None else '; its vector from before is kept'}")
        return found, reasons

    # -- encoding and storing --------------------------------------------------------------------------------------

    def _built(
        self,
        changed: Sequence[tuple[Product, list[Picture], bytes]],
        known: Mapping[str, Item],
        skipped: list[Skipped],
    ) -> list[NewItem]:
        """Items with all vectors: those of parts that they had, and fresh ones."""
        said: dict[str, Vector] = {}  # what texts of these items have as vectors already
        for product, _, _ in changed:
            if (item := known.get(product.key)) is not None:
                for part, vector in zip(item.parts, self._engine.vectors(item), strict=True):
                    if part.modality is Modality.TEXT and part.text:
                        said[part.text] = vector
                    elif part.modality is Modality.IMAGE and (digest := hash_in(part.stamp)):
                        self._seen.keep(digest, vector)
        with self._timed("encode"):
            lost = self._seen.encode([picture for _, pictures, _ in changed for picture in pictures])
            texts = list(dict.fromkeys(text for product, _, _ in changed for text, _ in texts_of(product)))
            fresh = [text for text in texts if text not in said]
            if fresh:
                said.update(zip(fresh, self._engine.encoder.encode_texts(fresh), strict=True))
        built = []
        for product, pictures, digest in changed:
            if reasons := [lost[one.content_hash] for one in pictures if one.content_hash in lost]:
                skipped.append(_line(product, reasons[0]))
                continue
            parts = [NewPart(modality=Modality.FUSED)]
            for one in pictures:
                parts.append(
                    NewPart(modality=Modality.IMAGE, vector=one.vector, source=one.source, stamp=one.stamp)
                )
            for text, span in texts_of(product):
                start, end = span or (None, None)
                vector = said[text]
                parts.append(NewPart(modality=Modality.TEXT, vector=vector, text=text, start=start, end=end))
            built.append(
                NewItem(
                    key=product.key,
                    modality=Modality.FUSED,
                    parts=parts,
                    title=product.title,
                    attributes=product.attributes,
                    content_hash=digest,
                    feed=self._feed.id if self._feed else None,
                )
            )
        return built

    def _commit(
        self,
        new: list[NewItem],
        attributes: dict[str, Attributes],
        stamps: Mapping[int, tuple[str | None, str | None]],
        claimed: Sequence[int],
        known: Mapping[str, Item],
        skipped: list[Skipped],
    ) -> None:
        if not (new or attributes or stamps or claimed):
            return
        with self._engine.writing(wait=60.0, what="indexing products"):
            if self._catalog.epoch(self._collection.id) != self._collection.epoch:
                raise SpaceMismatch(
                    f"collection {self._engine.collection!r} was given another model meanwhile: run it again"
                )
            for item in self._stored(new, skipped):
                self._report.added += item.key not in known
                self._report.updated += item.key in known
            changed = self._updated(attributes, skipped)
            self._report.updated += changed
            self._report.attributes_only += changed
            if stamps:
                stored.stamp(self._catalog, stamps)
            if claimed and self._feed is not None:
                stored.claim(self._catalog, self._feed, claimed)

    def _stored(self, new: list[NewItem], skipped: list[Skipped]) -> list[NewItem]:
        """Add the items; if one of them is refused, those that are not."""
        try:
            self._engine.add(new)
            return new
        except ItemError as error:
            if len(new) == 1:
                key = new[0].key
                skipped.append(Skipped(printable(self._places[key]), _reason(key, error)))
                return []
        half = len(new) // 2
        return [*self._stored(new[:half], skipped), *self._stored(new[half:], skipped)]

    def _updated(self, changes: Mapping[str, Attributes], skipped: list[Skipped]) -> int:
        """Replace attributes; returns of how many items."""
        refused: dict[str, str] = {}
        changed = update_each(self._engine, changes, refused, replace=True)
        skipped += [Skipped(printable(self._places[key]), reason) for key, reason in refused.items()]
        return changed

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._report.seconds[stage] += time.perf_counter() - started


def update_each(
    engine: Engine, changes: AttributeChanges, refused: dict[str, str], *, replace: bool = False
) -> int:
    """``Engine.update`` of those whose attributes have the right kinds; returns how many there were.

    Of the others the reason goes to ``refused``, and of keys that no item has.
    """
    if not changes:
        return 0
    try:
        missing = engine.update(changes, replace=replace)
    except ItemError as error:
        if len(changes) == 1:
            (key,) = changes
            refused[key] = _reason(key, error)
            return 0
        pairs = list(changes.items())
        halves = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
        return sum(update_each(engine, dict(half), refused, replace=replace) for half in halves)
    refused |= dict.fromkeys(missing, "no product has this id")
    return len(changes) - len(missing)


def _reason(key: str, error: ItemError) -> str:
    return printable(str(error).removeprefix(f"{key}: "))


def _line(product: Product, reason: str) -> Skipped:
    return Skipped(printable(product.place or product.key), reason)
