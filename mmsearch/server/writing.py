"""Products that come over HTTP, into a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from indexer.addresses import Network
from indexer.product import Product
from indexer.products import upsert
from mmsearch.engine import Engine
from mmsearch.errors import ItemError, MediaError
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from mmsearch.server.schemas import Blob, Date, ItemBody, UpdateBody, Value
from mmsearch.server.uploads import Uploads
from mmsearch.types import AttributeValue, Modality

__all__ = ["put", "update"]


def put(
    engine: Engine,
    items: Sequence[ItemBody],
    options: Options,
    thumbnails: Thumbnails,
    allowed: Sequence[Network],
) -> dict[str, Any]:
    """Add or replace products; those that cannot be are told with their reason, the rest go in."""
    kinds, uploads = engine.attribute_kinds(), Uploads(options)
    rejected: list[dict[str, str]] = []
    products: dict[str, Product] = {}
    for item in items:
        try:
            products[item.key] = Product(
                key=item.key,
                title=item.title,
                description=item.description,
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
        "notes": [{"key": one.path, "note": one.reason} for one in report.notes],
    }


def update(engine: Engine, updates: Sequence[UpdateBody]) -> dict[str, Any]:
    """Change attributes in one transaction; keys that no item has are told. Raises ``ItemError``."""
    kinds = engine.attribute_kinds()
    changes: dict[str, dict[str, AttributeValue | None]] = {}
    for one in updates:
        values = {
            name: None if value is None else _value(name, value, kinds)
            for name, value in one.attributes.items()
        }
        changes.setdefault(one.key, {}).update(values)
    unknown = engine.update(changes)
    return {"updated": len(changes) - len(unknown), "unknown": unknown}


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
    pictures = [part for part in item.parts if part.modality is Modality.IMAGE] if item else []
    if len(pictures) == len(product.images):  # else one of them was no good
        for part, image in zip(pictures, product.images, strict=True):
            if isinstance(image, bytes):
                thumbnails.keep(part, image)
