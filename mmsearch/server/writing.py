"""Products that come over HTTP, into a collection."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from indexer.addresses import Network
from indexer.product import Product
from indexer.products import upsert
from mmsearch.engine import Engine
from mmsearch.errors import ItemError, MediaError
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from mmsearch.server.pace import Pace, Turns
from mmsearch.server.schemas import Blob, Date, ItemBody, UpdateBody, Value
from mmsearch.server.uploads import Uploads
from mmsearch.types import AttributeValue, Modality

__all__ = ["Updates", "put"]


def put(
    engine: Engine,
    items: Sequence[ItemBody],
    options: Options,
    thumbnails: Thumbnails,
    allowed: Sequence[Network],
) -> dict[str, Any]:
    """Add or replace products; those that cannot be are told with their reason, the rest go in."""
    kinds, uploads = dict(engine.attribute_kinds()), Uploads(options)
    for name, value in ((name, value) for item in items for name, value in item.attributes.items()):
        if isinstance(value, Date):  # the other items of the request may write theirs as text
            kinds.setdefault(name, "datetime")
    rejected: list[dict[str, str]] = []
    notes: list[dict[str, str]] = []
    products: dict[str, Product] = {}
    for item in items:
        if products.pop(item.key, None) is not None:
            notes.append({"key": item.key, "note": "came twice in one request; the last one counts"})
        try:
            products[item.key] = Product(
                key=item.key,
                title=(item.title or "").strip() or None,
                description=(item.description or "").strip() or None,
                images=[image.url or _checked(uploads, image.base64) for image in item.images],
                attributes={name: _value(name, value, kinds) for name, value in item.attributes.items()},
            )
        except (ItemError, MediaError) as error:
            rejected.append({"key": item.key, "reason": str(error)})
    report = upsert(
        engine,
        list(products.values()),
        files=False,
        allowed=allowed,
        fetch_seconds=options.fetch_timeout,
        max_pixels=options.max_pixels,
    )
    for product in products.values():
        if any(isinstance(image, bytes) for image in product.images):
            _keep(engine, product, thumbnails)
    rejected += [{"key": one.path, "reason": one.reason} for one in report.skipped]
    return {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "rejected": rejected,
        "notes": notes + [{"key": one.path, "note": one.reason} for one in report.notes],
    }


class Updates:
    """Changes of attributes that wait for the thread that writes: all that wait for one collection are one transaction.

    Each request still has an answer, or an error, of its own.
    """

    def __init__(self, pace: Pace) -> None:
        self._turns = Turns(pace)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Update]] = {}

    def join(self, collection: str, updates: Sequence[UpdateBody]) -> Update:
        """Queue the changes of one request."""
        update = Update(collection, updates)
        with self._lock:
            self._waiting.setdefault(collection, []).append(update)
        return update

    def leave(self, update: Update) -> None:
        """Forget a request that gave up waiting, if it was not written yet."""
        with self._lock:
            if update in (waiting := self._waiting.get(update.collection, [])):
                waiting.remove(update)

    def answer(
        self, update: Update, writing: Callable[[str], contextlib.AbstractContextManager[Engine]]
    ) -> dict[str, Any]:
        """The answer to a request, made with those of all others that wait. On the thread that writes.

        ``writing`` gives the engine that writes into a collection, see ``Engines.writing``. Raises ``ItemError`` and
        what ``writing`` and ``Engine.update`` raise.
        """
        if not update.done:
            with self._turns, writing(update.collection) as engine:
                with self._lock:
                    group = self._waiting.pop(update.collection, [])
                if group:
                    _write(engine, group)
            for one in group:
                one.done = True
        if update.error is not None:
            raise update.error
        return update.told


@dataclasses.dataclass(eq=False)
class Update:
    """The changes that one request asks for, and what became of them."""

    collection: str
    updates: Sequence[UpdateBody]
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: Exception | None = None
    done: bool = False


def _write(engine: Engine, group: Sequence[Update]) -> None:
    """Write the changes of some requests in one transaction: as if one after the other."""
    kinds = engine.attribute_kinds()
    together: dict[str, dict[str, AttributeValue | None]] = {}
    asked = []
    try:
        for one in group:
            changes = _changes(one.updates, kinds)
            asked.append(changes)
            for key, values in changes.items():
                together.setdefault(key, {}).update(values)
        unknown = set(engine.update(together))
    except Exception as error:
        if len(group) == 1:
            group[0].error = error
            return
        for one in group:  # one bad update must not fail its neighbours
            _write(engine, [one])
        return
    for one, changes in zip(group, asked, strict=True):
        missing = [key for key in changes if key in unknown]
        one.told = {"updated": len(changes) - len(missing), "unknown": missing}


def _changes(
    updates: Sequence[UpdateBody], kinds: Mapping[str, str]
) -> dict[str, dict[str, AttributeValue | None]]:
    """Changes by key. Raises ``ItemError``."""
    changes: dict[str, dict[str, AttributeValue | None]] = {}
    for one in updates:
        values = {
            name: None if value is None else _value(name, value, kinds)
            for name, value in one.attributes.items()
        }
        changes.setdefault(one.key, {}).update(values)
    return changes


def _checked(uploads: Uploads, text: str | None) -> bytes:
    data = uploads.data(Blob(base64=text, upload=None))
    uploads.check_picture(data, "picture")
    return data


def _value(name: str, value: Value, kinds: Mapping[str, str]) -> AttributeValue:
    """A date is written as an object, or as text where the collection knows that the attribute holds dates."""
    text = value.datetime if isinstance(value, Date) else value
    if isinstance(value, Date) or (isinstance(value, str) and kinds.get(name) == "datetime"):
        try:
            return datetime.fromisoformat(str(text))
        except ValueError:
            raise ItemError(
                f"attribute {name!r}: {text!r} is no date; write it as 2026-11-25T12:00:00Z"
            ) from None
    return text


def _keep(engine: Engine, product: Product, thumbnails: Thumbnails) -> None:
    """Keep the pictures that came as bytes: the catalog has their vectors, and the page wants to show them."""
    item = engine.find(product.key)
    parts = item.parts if item else ()
    mine = [part for part in parts if part.modality is Modality.IMAGE and part.source is None]
    given = [image for image in product.images if isinstance(image, bytes)]
    if len(mine) == len(given):  # else one of them was no good
        for part, image in zip(mine, given, strict=True):
            thumbnails.keep(part, image)
