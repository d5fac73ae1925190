"""A product as a shop knows it: what of it is embedded, and when it is another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import blake2b

from mmsearch.attributes import to_seconds
from mmsearch.cutting import cut
from mmsearch.types import Attributes, AttributeValue, Item

__all__ = ["Product", "alike", "content_of", "differences", "passages", "texts_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product as a shop knows it. ``images`` are absolute paths, http(s) addresses, or the bytes of pictures.

    A variant has the attribute ``parent``: the id of the product it is a variant of. ``place`` is what the report calls
    it (its key if that is empty).
    """

    key: str
    title: str | None = None
    description: str | None = None
    images: Sequence[str | bytes] = ()
    attributes: Attributes = dataclasses.field(default_factory=dict)
    place: str = ""


def differences(item: Item, attributes: Attributes) -> Attributes:
    """Those of the attributes that the item does not have just so."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in item.attributes or not _same(item.attributes[name], value)
    }


def texts_of(product: Product) -> Iterator[tuple[str, tuple[float, float] | None]]:
    """The texts of a product's parts: its title, and the passages of its description with their places."""
    if product.title:
        yield product.title, None
    yield from passages(product.description)


def passages(description: str | None) -> list[tuple[str, tuple[float, float]]]:
    text = description or ""
    return [(text[start:end], (start, end)) for start, end in cut(text)]


def content_of(product: Product, pictures: Sequence[bytes]) -> bytes:
    """16 bytes that name all that is embedded of a product, given the content hashes of its pictures. Its key is in it:
    variants are no copies of each other.
    """
    digest = blake2b(digest_size=16, person=b"product")
    for text in (product.key, product.title or "", product.description or ""):
        digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    for picture in pictures:
        digest.update(picture)
    return digest.digest()


def alike(one: Attributes, other: Attributes) -> bool:
    """Whether attributes as the catalog gives them back are these; an empty list is none."""
    other = {
        name: value
        for name, value in other.items()
        if isinstance(value, str | int | float | datetime) or value
    }
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: AttributeValue, other: AttributeValue) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(to_seconds(one) - to_seconds(other)) < 1e-6
    if isinstance(one, bool) or isinstance(other, bool) or isinstance(one, str) or isinstance(other, str):
        return type(one) is type(other) and one == other
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return list(one) == list(other)
    return one == other
