"""The Parquet form of an exported collection (extra ``parquet``): one row an item, streamed in row groups.

Vectors are lists of float16; attributes are one JSON object a row, because their columns would differ from collection
to collection and a list of one text from a text. The header is JSON under ``mmsearch`` in the schema's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from indexer.transfer import BATCH, Header, Progress, header_from, header_record
from mmsearch.errors import MediaError, MissingExtra

__all__ = ["ParquetReader", "write"]


def write(
    header: Header, records: Iterable[dict[str, Any]], file: IO[bytes], progress: Progress | None
) -> int:
    """Write the records of ``indexer.transfer`` and return their number. Raises ``MissingExtra``."""
    pa, pq = _arrow()
    schema = _schema(pa, header)
    count = 0
    rest = iter(records)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(rest, BATCH)):
            for record in batch:
                record["attributes"] = json.dumps(record["attributes"], ensure_ascii=False)
                for part in record["parts"]:
                    part["vector"] = np.frombuffer(part["vector"], "<f2")
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
            count += len(batch)
            if progress is not None:
                progress(count)
    return count


class ParquetReader:
    """An open Parquet file. Raises ``MediaError`` if it is damaged or no export, ``MissingExtra``."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        pa, pq = _arrow()
        self._damages = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError)
        try:
            self._file = pq.ParquetFile(file)
            metadata = self._file.schema_arrow.metadata or {}
            self.header = header_from(json.loads(metadata.get(b"mmsearch", b"null")))
            schemas = [_schema(pa, self.header), _schema(pa, self.header, sources=False)]
            if not any(map(self._file.schema_arrow.equals, schemas)):
                raise ValueError("its columns are not those of an export")
        except self._damages as error:
            raise MediaError(
                path, f"cannot be read: {error}. Is this a file of `mmsearch export`?"
            ) from error

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row with its place."""
        number = 0
        batches = self._file.iter_batches(batch_size=BATCH)
        while True:
            try:
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
                for row in rows:
                    row["attributes"] = json.loads(row["attributes"])
                    for part in row["parts"]:
                        part["vector"] = np.array(part["vector"], "<f2").tobytes()
            except self._damages as error:
                raise MediaError(
                    self._path, f"is damaged behind row {number}: {error}. Nothing was imported"
                ) from error
            if batch is None:
                return
            for row in rows:
                number += 1
                yield f"row {number}", row


def _schema(pa: Any, header: Header, *, sources: bool = True) -> Any:
    """The columns of an export; without ``sources`` those of version 1."""
    part = pa.struct(
        [
            ("modality", pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("page", pa.int64()),
            ("text", pa.string()),
            *([("source", pa.string())] if sources else []),
            ("vector", pa.list_(pa.float16(), header.space.dim)),
        ]
    )
    fields = [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("modality", pa.string()),
        ("title", pa.string()),
        ("is_file", pa.bool_()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("content_hash", pa.string()),
        ("added", pa.string()),
        ("attributes", pa.string()),
        ("parts", pa.list_(part)),
    ]
    return pa.schema(fields, metadata={"mmsearch": json.dumps(header_record(header))})


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    return pyarrow, parquet
