"""Tables that people hand in (CSV, TSV, JSON lines, Parquet), as rows that know their place in the file."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
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

    ``cells`` has the columns (lower case unless asked otherwise) that are not empty; a cell is a text, or a tuple of
    texts where the file has a list. Numbers are texts as the file writes them, dates ISO 8601.
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
        self._found: list[tuple[str, str]] = []

    def add(self, place: str, reason: str) -> None:
        self._found.append((place, reason))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Places and reasons."""
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raise ``MediaError`` with the first ``SHOWN`` problems if there are any."""
        if not self._found:
            return
        lines = [f"{place}: {reason}" for place, reason in self._found]
        if len(lines) == 1:
            raise MediaError(self._path, lines[0])
        shown = "".join(f"\n  {line}" for line in lines[:SHOWN])
        more = len(self._found) - SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        raise MediaError(self._path, f"{len(self._found)} problems{shown}{rest}")


def read_table(path: Path, *, fold: bool = True, problems: Problems | None = None) -> list[Row]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file, at least one. Semicolons separate cells if the heading of a
    .csv has them and no comma. ``fold``: names of columns in lower case.

    Raises ``MediaError`` that names file and row, ``ConfigError`` if the suffix does not tell the format, and
    ``MissingExtra`` for Parquet without pyarrow. With ``problems`` a row that cannot be read is added there instead;
    if that leaves none it is an error after all.
    """
    bad = problems if problems is not None else _Raising(path)
    suffix = path.suffix.lower()
    if suffix not in {*SEPARATORS, *LINES, *PARQUET}:
        raise ConfigError(f"{path}: the suffix does not tell the format: call it .csv, .jsonl or .parquet")
    if not path.is_file():
        raise MediaError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    if suffix in PARQUET:
        rows = list(_parquet(path, bad, fold))
    else:
        try:
            text = path.read_bytes().decode("utf-8-sig")  # as it is: a cell may hold line ends
        except UnicodeDecodeError as error:
            raise MediaError(path, f"is not UTF-8 (byte {error.start}); save it as UTF-8") from None
        except OSError as error:
            raise MediaError(path, f"cannot be read ({error.strerror})") from None
        rows = list(
            _separated(path, text, suffix, bad, fold) if suffix in SEPARATORS else _lines(text, bad, fold)
        )
    if not rows:
        bad.raise_any()
        raise MediaError(path, "has no rows")
    return rows


class _Raising(Problems):
    """The first problem is an error."""

    def add(self, place: str, reason: str) -> None:
        super().add(place, reason)
        self.raise_any()


def _separated(path: Path, text: str, suffix: str, bad: Problems, fold: bool) -> Iterator[Row]:
    separator, heading = SEPARATORS[suffix], text.partition("\n")[0]
    if separator == "," and "," not in heading and ";" in heading:
        separator = ";"
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        names = [name.strip().lower() if fold else name.strip() for name in next(lines, [])]
        if doubled := {name for name in names if name and names.count(name) > 1}:
            raise MediaError(path, f"line 1: the column {min(doubled)!r} is there twice")
        number = lines.line_num + 1
        for values in lines:
            if len(values) > len(names):
                bad.add(f"line {number}", f"has {len(values)} cells, the heading has {len(names)}")
            else:
                cells = {name: value.strip() for name, value in zip(names, values, strict=False)}
                if any(cells.values()):
                    yield Row(f"line {number}", {name: cell for name, cell in cells.items() if cell})
            number = lines.line_num + 1
    except csv.Error as error:
        bad.add(f"line {number}", f"{error}; nothing from here on can be read")


def _lines(text: str, bad: Problems, fold: bool) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(place, f"is no JSON ({error})")
            continue
        if not isinstance(fields, dict):
            bad.add(place, "is no JSON object")
        elif (row := _row(place, fields, bad, fold)) is not None:
            yield row


def _parquet(path: Path, bad: Problems, fold: bool) -> Iterator[Row]:
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
        if (row := _row(f"row {number}", fields, bad, fold)) is not None:
            yield row


def _row(place: str, fields: Mapping[str, object], bad: Problems, fold: bool) -> Row | None:
    """The row, or None if it was added to the bad ones."""
    cells: dict[str, Cell] = {}
    for name, value in fields.items():
        entries = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if not all(isinstance(entry, str | int | float | Decimal | date | None) for entry in entries):
            bad.add(place, f"{name} is neither a text, a number, a date nor a list of them")
            return None
        present = (entry for entry in entries if entry is not None and entry == entry)  # NaN is nothing, too
        found = tuple(text for entry in present if (text := _text(entry).strip()))
        if found:
            cells[name.strip().lower() if fold else name.strip()] = found if entries is value else found[0]
    return Row(place, cells)


def _text(entry: object) -> str:
    return entry.isoformat() if isinstance(entry, date) else str(entry)  # a datetime is a date, too
