"""What programs hand in, as vectors: texts, pictures and ready vectors of items and of query terms, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.errors import ItemError, QueryError
from mmsearch.types import Image, Modality, NewItem, Term, Vector, Vectors


def check_items(new: Sequence[NewItem]) -> None:
    """Raise ``ItemError`` if an item has no key, no parts, or text that no database can hold."""
    for item in new:
        if not item.key:
            raise ItemError("an item needs a key: its name within the collection")
        if not item.parts:
            raise ItemError(f"{item.key}: an item needs at least one part, or nothing could find it")
        try:
            "".join(_texts(item)).encode()
        except UnicodeEncodeError:
            raise ItemError(f"{item.key!r}: it has half a surrogate pair, which no text may hold") from None


def encode_items(new: Sequence[NewItem], dim: int, encoder: Callable[[], Encoder]) -> list[Vectors]:
    """Vectors (parts, dim) of each item; parts that came without are encoded in one go per modality.

    ``encoder`` is called only if there is something to encode. Raises ``ItemError`` naming item and part, and
    ``MediaError``.
    """
    rows: list[list[Vector | None]] = [[None] * len(item.parts) for item in new]
    places: dict[Modality, list[tuple[int, int]]] = {}
    contents: dict[Modality, list[str | Path | Image]] = {}
    for n, item in enumerate(new):
        for m, part in enumerate(item.parts):
            if part.vector is not None:
                unit = _unit(part.vector, dim)
                if unit is None:
                    raise ItemError(
                        f"{item.key}: the vector of part {m} needs {dim} finite numbers, not all zero"
                    )
                rows[n][m] = unit
            elif part.modality is Modality.TEXT and not isinstance(part.content, str | None):
                raise ItemError(f"{item.key}: part {m} is a text: its content must be a string")
            elif part.content is None or (isinstance(part.content, str) and not part.content.strip()):
                raise ItemError(f"{item.key}: part {m} has neither content nor a vector")
            else:
                places.setdefault(part.modality, []).append((n, m))
                contents.setdefault(part.modality, []).append(part.content)
    for modality, found in contents.items():
        if modality is Modality.TEXT:
            encoded = encoder().encode_texts([str(content) for content in found])
        elif modality is Modality.IMAGE:
            prepared = [encoder().prepare_image(_image(content, encoder())) for content in found]
            encoded = encoder().encode_images(prepared)
        else:
            raise ItemError(
                f"a part of modality {modality} needs a ready vector: this encoder cannot make one"
            )
        for (n, m), vector in zip(places[modality], encoded, strict=True):
            rows[n][m] = vector
    return [np.stack([row for row in item if row is not None]).astype(np.float32) for item in rows]


def encode_term(term: Term, dim: int, encoder: Callable[[], Encoder]) -> Vector:
    """The vector (dim,) of a text, image or vector term. Raises ``QueryError``, ``MediaError``, ``ModelError``."""
    given = [value for value in (term.text, term.image, term.item, term.vector) if value is not None]
    if len(given) != 1:
        raise QueryError("a term of a query is exactly one of text, image, item or vector")
    if term.text is not None:
        if not term.text.strip():
            raise QueryError("the query is empty: give words, a picture or an item")
        encoded: Vector = encoder().encode_texts([term.text])[0]
        return encoded
    if term.image is not None:
        encoded = encoder().encode_images([_image(term.image, encoder())])[0]
        return encoded
    unit = _unit(term.vector, dim)
    if unit is None:
        raise QueryError(f"a vector term needs {dim} finite numbers, not all zero")
    return unit


def _image(source: str | Path | Image, encoder: Encoder) -> Image:
    if not isinstance(source, str | Path):
        return source.convert("RGB")
    from mmsearch.media import load_image

    return load_image(source, min_side=encoder.image_size)


def _unit(vector: object, dim: int) -> Vector | None:
    """``vector`` at length 1; None if it is not ``dim`` finite numbers with a direction.

    One that has length 1 as far as float16 can tell is kept bit for bit: what was stored once stays the same.
    """
    given = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(given)) if given.shape == (dim,) else 0.0
    length = 1.0 if abs(length - 1) < 1e-3 else length
    return np.ascontiguousarray(given / length, np.float32) if 0 < length < np.inf else None


def _texts(item: NewItem) -> Iterator[str]:
    """All that an item says in words."""
    yield item.key
    yield item.title or ""
    for part in item.parts:
        yield part.text or ""
        yield part.content if isinstance(part.content, str) else ""
    for name, value in item.attributes.items():
        yield name
        if isinstance(value, str):
            yield value
        elif isinstance(value, Sequence):
            yield from (entry for entry in value if isinstance(entry, str))
