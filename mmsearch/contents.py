"""What programs hand in, as vectors: texts, pictures, sounds and ready vectors of items and of query terms, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.errors import ItemError, QueryError
from mmsearch.fusing import fuse
from mmsearch.ranking import compose
from mmsearch.types import Image, Modality, NewItem, NewPart, Part, Term, Vector, Vectors, Waveform


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
    wanted: dict[Modality, list[NewPart]] = {}
    for n, item in enumerate(new):
        for m, part in enumerate(item.parts):
            if part.vector is not None:
                unit = _unit(part.vector, dim)
                if unit is None:
                    raise ItemError(
                        f"{item.key}: the vector of part {m} needs {dim} finite numbers, not all zero"
                    )
                rows[n][m] = unit
            elif part.modality is Modality.FUSED:
                if all(other.modality is Modality.FUSED for other in item.parts):
                    raise ItemError(f"{item.key}: a fused part is made of others, and there are none")
            elif part.modality is Modality.TEXT and not isinstance(part.content, str | None):
                raise ItemError(f"{item.key}: part {m} is a text: its content must be a string")
            elif part.content is None or (isinstance(part.content, str) and not part.content.strip()):
                raise ItemError(f"{item.key}: part {m} has neither content nor a vector")
            else:
                places.setdefault(part.modality, []).append((n, m))
                wanted.setdefault(part.modality, []).append(part)
    for modality, found in wanted.items():
        if modality is Modality.TEXT:
            encoded = encoder().encode_texts([str(part.content) for part in found])
        elif modality is Modality.IMAGE:
            prepared = [encoder().prepare_image(_image(part.content, encoder())) for part in found]
            encoded = encoder().encode_images(prepared)
        else:
            encoded = np.stack([_sound(part.content, encoder(), _span(part)) for part in found])
        for (n, m), vector in zip(places[modality], encoded, strict=True):
            rows[n][m] = vector
    for item, owned in zip(new, rows, strict=True):
        if any(row is None for row in owned):
            _fuse(item, owned, encoder().means)
    return [np.stack([row for row in item if row is not None]).astype(np.float32) for item in rows]


def _fuse(item: NewItem, rows: list[Vector | None], means: Mapping[Modality, Vector]) -> None:
    """Give the fused parts of an item, which have none, their vector."""
    others = [(part, row) for part, row in zip(item.parts, rows, strict=True) if row is not None]
    vector = fuse([part for part, _ in others], np.stack([row for _, row in others]), means)
    if vector is None:
        raise ItemError(f"{item.key}: the vectors of its parts cancel out: no fused one can be made of them")
    for place, row in enumerate(rows):
        if row is None:
            rows[place] = vector


def with_vector(part: Part, vector: Vector) -> NewPart:
    """A part as it is stored, with this vector."""
    kept = (field.name for field in dataclasses.fields(Part) if field.name not in ("id", "ordinal"))
    return NewPart(vector=vector, **{name: getattr(part, name) for name in kept})


def encode_term(
    term: Term,
    dim: int,
    encoder: Callable[[], Encoder],
    parts_of: Callable[[int], tuple[Vectors, Modality]],
) -> tuple[Vector, Modality | None]:
    """The vector (dim,) of a term and its modality, None if that is unknown.

    ``parts_of`` gives the vectors of an item and their modality. Raises ``QueryError``, ``MediaError``, ``ModelError``.
    """
    given = [getattr(term, kind) for kind in ("text", "image", "audio", "item", "vector")]
    if sum(value is not None for value in given) != 1:
        raise QueryError("a term of a query is exactly one of text, image, audio, item or vector")
    if term.text is not None:
        if not term.text.strip():
            raise QueryError("the query is empty: give words, a picture, a sound or an item")
        return encoder().encode_texts([term.text])[0], Modality.TEXT
    if term.image is not None:
        return encoder().encode_images([_image(term.image, encoder())])[0], Modality.IMAGE
    if term.audio is not None:
        return _sound(term.audio, encoder()), Modality.AUDIO
    if term.item is not None:
        vectors, modality = parts_of(term.item)
        return compose(list(vectors), [1.0] * len(vectors)), modality
    unit = _unit(term.vector, dim)
    if unit is None:
        raise QueryError(f"a vector term needs {dim} finite numbers, not all zero")
    return unit, None


def _image(source: object, encoder: Encoder) -> Image:
    if not isinstance(source, str | Path):
        picture: Image = source.convert("RGB")  # type: ignore[attr-defined]
        return picture
    from mmsearch.media import load_image

    return load_image(source, min_side=encoder.image_size)


def _sound(source: object, encoder: Encoder, span: tuple[float, float] | None = None) -> Vector:
    """The mean direction of the parts of a recording: every part of a long one has a say, and none has the last."""
    from mmsearch.media import load_sound
    from mmsearch.sound import cut_waveform

    encoder.encode_audio(())  # a model without the tower says so before anything is decoded
    window = encoder.audio_window
    if isinstance(source, str | Path | bytes):
        clips: Iterable[Waveform] = load_sound(source, window, span=span)
    else:
        clips = cut_waveform(np.asarray(source), window)
    vectors = [encoder.encode_audio([clip])[0] for clip in clips]
    return compose(vectors, [1.0] * len(vectors))


def _span(part: NewPart) -> tuple[float, float] | None:
    return None if part.start is None or part.end is None else (part.start, part.end)


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
