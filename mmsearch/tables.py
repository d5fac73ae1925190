"""Tables that people hand in (CSV, TSV, JSON lines, Parquet), as rows that know their place in the file."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmsearch.errors import ConfigError, MediaError, MissingExtra

__all__ = ["Problems", "Row", "read_table"]

SHOWN = 20
"""So many wrong rows are named; of the others the number is told."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = {".jsonl", ".ndjson"}
PARQUET = {".parquet", ".pq"}

Cell = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row. ``place`` is what errors call it: ``line 5`` of a text, ``row 5`` of a Parquet file, both from 1.

    ``cells`` has the columns (lower case) that are not empty; a cell is a text, or a tuple of texts where the file has
    a list. Numbers are texts as the file writes them.
    """

    place: str
    cells: Mapping[str, Cell]

    def all(self, *columns: str) -> tuple[str, ...]:
        """What stands in the first of the columns that is not empty, as a tuple; () if all of them are."""
        for column in columns:
            if (cell := self.cells.get(column)) is not None:
                return (cell,) if isinstance(cell, str) else cell
        return ()

    def one(self, *columns: str) -> str | None:
        """The same where one text is expected. Raises ``ValueError`` if there is a list of several."""
        found = self.all(*columns)
        if len(found) > 1:
            raise ValueError(f"{columns[0]} has {len(found)} values where one is expected")
        return found[0] if found else None


class Problems:
    """What is wrong with the rows of a file, collected so that all of it is told at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[str] = []

    def add(self, place: str, reason: str) -> None:
        self._found.append(f"{place}: {reason}")

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raise ``MediaError`` with the first ``SHOWN`` problems if there are any."""
        if not self._found:
            return
        if len(self._found) == 1:
            raise MediaError(self._path, self._found[0])
        shown = "".join(f"\n  {problem}" for problem in self._found[:SHOWN])
        more = len(self._found) - SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        raise MediaError(self._path, f"{len(self._found)} problems{shown}{rest}")


def read_table(path: Path) -> list[Row]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file, at least one.

    Raises ``MediaError`` that names file and row, ``ConfigError`` if the suffix does not tell the format, and
    ``MissingExtra`` for Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in {*SEPARATORS, *LINES, *PARQUET}:
        raise ConfigError(f"{path}: the suffix does not tell the format: call it .csv, .jsonl or .parquet")
    if not path.is_file():
        raise MediaError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    if suffix in PARQUET:
        rows = list(_parquet(path))
    else:
        try:
            text = path.read_bytes().decode("utf-8-sig")  # as it is: a cell may hold line ends
        except UnicodeDecodeError as error:
            raise MediaError(path, f"is not UTF-8 (byte {error.start}); save it as UTF-8") from None
        except OSError as error:
            raise MediaError(path, f"cannot be read ({error.strerror})") from None
        rows = list(
            _separated(path, text, SEPARATORS[suffix]) if suffix in SEPARATORS else _lines(path, text)
        )
    if not rows:
        raise MediaError(path, "has no rows")
    return rows


def _separated(path: Path, text: str, separator: str) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        names = [name.strip().lower() for name in next(lines, [])]
        if doubled := {name for name in names if name and names.count(name) > 1}:
            raise MediaError(path, f"line 1: the column {min(doubled)!r} is there twice")
        number = lines.line_num + 1
        for values in lines:
            if len(values) > len(names):
                raise MediaError(
                    path, f"line {number}: has {len(values)} cells, the heading has {len(names)}"
                )
            cells = {name: value.strip() for name, value in zip(names, values, strict=False)}
            if any(cells.values()):
                yield Row(f"line {number}", {name: cell for name, cell in cells.items() if cell})
            number = lines.line_num + 1
    except csv.Error as error:
        raise MediaError(path, f"line {number}: {error}") from None


def _lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MediaError(path, f"{place}: is no JSON ({error})") from None
        if not isinstance(fields, dict):
            raise MediaError(path, f"{place}: is no JSON object")
        yield _row(path, place, fields)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    try:
        records = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise MediaError(path, f"is no readable Parquet file ({error})") from None
    for number, fields in enumerate(records, start=1):
        yield _row(path, f"row {number}", fields)


def _row(path: Path, place: str, fields: Mapping[str, object]) -> Row:
    cells: dict[str, Cell] = {}
    for name, value in fields.items():
        entries = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if not all(isinstance(entry, str | int | float | None) for entry in entries):
            raise MediaError(path, f"{place}: {name} is neither a text, a number nor a list of them")
        present = (entry for entry in entries if entry is not None and entry == entry)  # NaN is nothing, too
        found = tuple(text for entry in present if (text := str(entry).strip()))
        if found:
            cells[name.strip().lower()] = found if entries is value else found[0]
    return Row(place, cells)
