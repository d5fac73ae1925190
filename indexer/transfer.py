"""A collection as one file, vectors included: written, and read back exactly.

JSON lines: a header, one item a line, and a last line that counts them, so that a file cut short is noticed. Vectors
are base64 of little-endian float16, as the catalog stores them; datetimes are ISO 8601 in UTC. Parquet (extra
``parquet``) holds the same, one row an item, the header in the schema's metadata. Ids and the time an item was added
belong to a catalog: they are written for information and given anew on import.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from mmsearch.errors import ConfigError, ItemError, MediaError, SchemaTooNew, SpaceMismatch
from mmsearch.types import AttributeValue, Item, Modality, NewItem, NewPart, Space, Vector

if TYPE_CHECKING:
    from mmsearch.engine import Engine

__all__ = [
    "Format",
    "Header",
    "export_collection",
    "export_lines",
    "format_of",
    "import_collection",
    "read_header",
]

Format: TypeAlias = Literal["jsonl", "parquet"]
Progress: TypeAlias = Callable[[int], None]

VERSION = 2
"""Of the files that are written. Version 1 did not know of products: its parts have no ``source``."""

BATCH = 500
"""Items of one transaction on import, of one row group on export."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself: the collection it was, its model, its space, and the kinds of its attributes."""

    collection: str
    model: str
    space: Space
    attributes: Mapping[str, str]


class _Reader(Protocol):
    """An open file of one format. ``records`` may be called again and starts over; places are for error messages."""

    header: Header

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]: ...


def format_of(path: Path, format: Format | None = None) -> Format:
    """The format of a file: as said, or by its suffix. Raises ``ConfigError`` if neither tells."""
    if format is not None:
        return format
    formats: dict[str, Format] = {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".parquet": "parquet",
        ".pq": "parquet",
    }
    if path.suffix.lower() not in formats:
        raise ConfigError(
            f"{path}: the suffix does not tell the format: call it .jsonl or .parquet, or give --format"
        )
    return formats[path.suffix.lower()]


def export_collection(
    engine: Engine,
    path: Path,
    *,
    format: Format | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the collection to ``path`` and return the number of items. The file appears complete or not at all.

    ``progress`` is called with the number of items written so far. Raises ``ConfigError`` if the format is unclear or
    the file exists and ``overwrite`` is false, ``MissingExtra`` for Parquet without pyarrow, ``OSError`` of the disk.
    """
    format = format_of(path, format)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: the file exists; give --force to overwrite it")
    if format == "parquet":
        from indexer.parquet import write as write_parquet
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            if format == "parquet":
                count = write_parquet(_header_of(engine), _records(engine), file, progress)
            else:
                count = export_lines(engine, file, progress=progress)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def export_lines(engine: Engine, file: IO[bytes], *, progress: Progress | None = None) -> int:
    """Write the collection as JSON lines to an open file; returns the number of items."""
    file.write(_line(header_record(_header_of(engine))))
    count = 0
    for count, record in enumerate(_records(engine), start=1):
        for part in record["parts"]:
            part["vector"] = base64.b64encode(part["vector"]).decode("ascii")
        file.write(_line(record))
        if progress is not None:
            progress(count)
    file.write(_line({"items": count}))
    return count


def read_header(path: Path, format: Format | None = None) -> Header:
    """What the file at ``path`` says of itself. Raises as ``import_collection`` does."""
    with _opened(path, format) as reader:
        return reader.header


def import_collection(
    engine: Engine, path: Path, *, format: Format | None = None, progress: Progress | None = None
) -> int:
    """Add all items of an exported file and return their number; items with the same key are replaced.

    The file is read and checked to its end before the first item is written, so a damaged file changes nothing. Items
    are then committed in batches, and ``progress`` is called with the number of items in the catalog so far.

    Raises ``MediaError`` naming the line (or row) if the file is damaged or no export, ``SpaceMismatch`` if its vectors
    are of another space than the collection's, ``SchemaTooNew`` if a newer mmsearch wrote it, ``ItemError`` if an
    attribute has another kind in the collection, ``MissingExtra`` for Parquet without pyarrow.
    """
    with _opened(path, format) as reader:
        header = reader.header
        if header.space != engine.space:
            raise SpaceMismatch(
                f"{path} holds vectors of {header.space.id!r} ({header.space.dim} dimensions), collection "
                f"{engine.collection!r} those of {engine.space.id!r} ({engine.space.dim}): import into another "
                "--collection"
            )
        for name, kind in engine.attribute_kinds().items():
            if header.attributes.get(name, kind) != kind:
                raise ItemError(
                    f"{path}: attribute {name!r} is a {header.attributes[name]} there and a {kind} in collection "
                    f"{engine.collection!r}: import into another --collection"
                )
        for _ in _items(path, reader):
            pass
        count = 0
        with engine.writing(what=f"importing {path}"):
            items = _items(path, reader)
            while batch := list(islice(items, BATCH)):
                engine.add(batch)
                count += len(batch)
                if progress is not None:
                    progress(count)
            engine.save()
    return count


def _header_of(engine: Engine) -> Header:
    status = engine.status()
    return Header(
        collection=status.collection,
        model=status.model,
        space=Space(status.space, status.dim),
        attributes=engine.attribute_kinds(),
    )


def header_record(header: Header) -> dict[str, Any]:
    """A header as JSON."""
    return {"mmsearch": "collection", "format": VERSION, **dataclasses.asdict(header)}


def header_from(record: object) -> Header:
    """The header of a parsed JSON object; raises ``ValueError`` if it is none, ``SchemaTooNew``."""
    if not isinstance(record, dict) or record.get("mmsearch") != "collection":
        raise ValueError("this is no export of mmsearch")
    if record.get("format") not in (1, VERSION):
        raise SchemaTooNew(
            f"the file has format {record.get('format')!r}, this mmsearch reads up to {VERSION}: install a newer one"
        )
    space = record["space"]
    return Header(
        collection=_typed(record["collection"], str),
        model=_typed(record["model"], str),
        space=Space(_typed(space["id"], str), _typed(space["dim"], int)),
        attributes={_typed(name, str): _typed(kind, str) for name, kind in record["attributes"].items()},
    )


def _records(engine: Engine) -> Iterator[dict[str, Any]]:
    """Items as plain values, vectors as bytes. Items that another process removes meanwhile are left out."""
    items = engine.items()
    while batch := list(islice(items, BATCH)):
        found = engine.catalog.candidates(
            np.array([part.id for item in batch for part in item.parts], np.int64)
        )
        vectors = dict(zip(found.ids.tolist(), found.vectors.astype("<f2"), strict=True))
        for item in batch:
            if all(part.id in vectors for part in item.parts):
                yield _record(item, vectors)


def _record(item: Item, vectors: Mapping[int, Any]) -> dict[str, Any]:
    return {
        "id": item.id,
        "key": item.key,
        "modality": item.modality.value,
        "title": item.title,
        "is_file": item.is_file,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "content_hash": item.content_hash.hex() if item.content_hash else None,
        "added": item.added.isoformat(),
        "attributes": {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in item.attributes.items()
        },
        "parts": [
            {
                "modality": part.modality.value,
                "start": part.start,
                "end": part.end,
                "page": part.page,
                "text": part.text,
                "source": part.source,
                "vector": vectors[part.id].tobytes(),
            }
            for part in item.parts
        ],
    }


def _items(path: Path, reader: _Reader) -> Iterator[NewItem]:
    for place, record in reader.records():
        try:
            yield _new_item(record, reader.header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise MediaError(path, f"{place} is damaged: {what}. Nothing was imported") from error


def _new_item(record: dict[str, Any], header: Header) -> NewItem:
    hashed = _optional(record["content_hash"], str)
    return NewItem(
        key=_typed(record["key"], str),
        modality=Modality(record["modality"]),
        title=_optional(record["title"], str),
        is_file=_typed(record["is_file"], bool),
        size=_optional(record["size"], int),
        mtime_ns=_optional(record["mtime_ns"], int),
        content_hash=bytes.fromhex(hashed) if hashed else None,
        attributes={
            name: _attribute(name, value, header.attributes) for name, value in record["attributes"].items()
        },
        parts=[
            NewPart(
                modality=Modality(part["modality"]),
                start=_optional(part["start"], float, int),
                end=_optional(part["end"], float, int),
                page=_optional(part["page"], int),
                text=_optional(part["text"], str),
                source=_optional(part.get("source"), str),
                vector=_vector(part["vector"], header.space.dim),
            )
            for part in _typed(record["parts"], list)
        ],
    )


def _vector(data: str | bytes, dim: int) -> Vector:
    raw = base64.b64decode(data, validate=True) if isinstance(data, str) else data
    if len(raw) != 2 * dim:
        raise ValueError(f"a vector has {len(raw)} bytes, not {2 * dim}")
    vector = np.frombuffer(raw, "<f2").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("a vector holds a number that is not finite")
    return vector


def _attribute(name: str, value: object, kinds: Mapping[str, str]) -> AttributeValue:
    kind = kinds.get(name)
    if kind == "datetime":
        return datetime.fromisoformat(_typed(value, str))
    if kind == "boolean" and isinstance(value, bool):
        return value
    if (
        kind == "number"
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return value
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "text" and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise ValueError(f"attribute {name!r} is {value!r}, and the header says {kind or 'nothing of it'}")


def _typed(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{value!r} should be a {kinds[0].__name__}")
    return value


def _optional(value: Any, *kinds: type) -> Any:
    return None if value is None else _typed(value, *kinds)


@contextlib.contextmanager
def _opened(path: Path, format: Format | None) -> Iterator[_Reader]:
    format = format_of(path, format)
    if path.is_dir() or not path.exists():
        raise MediaError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror}") from error
    with file:
        if format == "parquet":
            from indexer.parquet import ParquetReader

            yield ParquetReader(path, file)
        else:
            yield _LineReader(path, file)


class _LineReader:
    """JSON lines of an open file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        try:
            self.header = header_from(_parsed(file.readline()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MediaError(
                path, f"line 1 is damaged: {error}. Is this a file of `mmsearch export`?"
            ) from error

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self._file.seek(0)
        self._file.readline()
        number = 1
        for number, line in enumerate(self._file, start=2):
            place = f"line {number}"
            try:
                record = _parsed(line)
            except ValueError as error:
                raise MediaError(self._path, f"{place} is damaged: {error}. Nothing was imported") from error
            if set(record) == {"items"}:
                if record["items"] != number - 2:
                    reason = f"{place} counts {record['items']} items, there are {number - 2}. Nothing was imported"
                    raise MediaError(self._path, reason)
                return
            yield place, record
        raise MediaError(
            self._path, f"was cut short after line {number}: its last line is missing. Nothing was imported"
        )


def _parsed(line: bytes) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
