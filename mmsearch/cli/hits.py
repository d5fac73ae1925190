"""How search results look: a table for people, one JSON object a line, bare paths."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.cli.text import json_line, near, safe, say, snippet, time_span, write_bytes
from mmsearch.types import Modality

if TYPE_CHECKING:
    from rich.text import Text

    from mmsearch.types import Hit, Item, Part

PLAIN_SNIPPET = 80


def as_json(hits: Iterable[Hit]) -> None:
    """One object a line, best hit first."""
    write_bytes(json_line(hit_record(hit)) for hit in hits)


def as_paths(hits: Iterable[Hit], *, end: bytes) -> None:
    """The keys of the items (the paths of files), each followed by ``end``, as the bytes the file system knows."""
    import os

    if sys.stdout.isatty() and end == b"\n":
        for hit in hits:
            say(safe(hit.item.key))
    else:
        write_bytes(os.fsencode(hit.item.key) + end for hit in hits)


def as_lines(hits: Sequence[Hit], words: Sequence[str]) -> None:
    """One plain line a hit, for pipes and logs."""
    ids = max(len(str(hit.item.id)) for hit in hits)
    ranks = len(str(hits[-1].rank))
    for hit in hits:
        line = f"{hit.rank:>{ranks}}  {hit.score:.3f}  {hit.item.id:>{ids}}  {safe(near(hit.item.key))}"
        extra = "  ".join(place(hit)) + ("  " if hit.part.text else "")
        said = f'"{snippet(hit.part.text, words, PLAIN_SNIPPET)}"' if hit.part.text else ""
        say(f"{line}  {extra}{said}".rstrip())


def as_table(hits: Sequence[Hit], words: Sequence[str], *, preview: bool) -> None:
    """A table as wide as the terminal; with ``preview`` each picture is drawn below its line."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    widths = len(str(hits[-1].rank)), 5, max(2, *(len(str(hit.item.id)) for hit in hits))
    room = max(20, console.width - sum(widths) - 3 * 2)

    def table(some: Sequence[Hit], *, header: bool) -> Table:
        grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=header, header_style="bold")
        for name, width in zip(("#", "score", "id"), widths, strict=True):
            grid.add_column(name, justify="right", width=width)
        grid.add_column("item", overflow="fold")
        for hit in some:
            grid.add_row(str(hit.rank), f"{hit.score:.3f}", str(hit.item.id), _cell(hit, words, room))
        return grid

    if not preview:
        console.print(table(hits, header=True))
        return
    from mmsearch.cli.preview import draw

    for hit in hits:
        console.print(table([hit], header=hit is hits[0]))
        draw(console, hit.item)


def _cell(hit: Hit, words: Sequence[str], width: int) -> Text:
    from rich.text import Text

    beside = place(hit)
    free = width - sum(len(word) + 2 for word in beside)
    link = f"link {Path(hit.item.path).as_uri()}" if hit.item.path else ""
    cell = Text(overflow="fold").append(shorten(safe(near(hit.item.key)), max(free, 16)), link)
    for word in beside:
        cell.append(f"  {word}", "dim")
    if hit.part.text:
        cell.append("\n" + snippet(hit.part.text, words, 2 * width - 8), "dim")
    return cell


def place(hit: Hit) -> list[str]:
    """Where in the item the hit lies, and how many copies it stands for, in words."""
    found = []
    if hit.part.page is not None:
        found.append(f"p. {hit.part.page}")
    if hit.item.modality is Modality.AUDIO and hit.part.start is not None and hit.part.end is not None:
        found.append(time_span(hit.part.start, hit.part.end))
    if hit.item.title and not hit.item.is_file:
        found.append(safe(hit.item.title))
    if hit.copies:
        found.append(f"+{len(hit.copies)} same")
    return found


def shorten(path: str, width: int) -> str:
    """Leave out the middle of a path that is wider than ``width`` cells, keeping the file name if it fits."""
    from rich.cells import cell_len, chop_cells

    if cell_len(path) <= width:
        return path
    folder, _, name = path.rpartition("/")
    tail = f"/{name}" if cell_len(name) + 6 <= width else path[-(width // 2) :]
    while cell_len(tail) > width - 2:
        tail = tail[1:]
    head = chop_cells(folder or path, max(1, width - cell_len(tail) - 1))[0]
    return f"{head}…{tail}"


def hit_record(hit: Hit) -> dict[str, Any]:
    """A hit as JSON: the contract of ``--json``."""
    item = item_record(hit.item)
    return {
        "rank": hit.rank,
        "score": round(float(hit.score), 6),
        **{name: item[name] for name in ("id", "modality", "path", "key", "title")},
        "part": part_record(hit.part),
        "copies": list(hit.copies),
        "attributes": item["attributes"],
    }


def item_record(item: Item) -> dict[str, Any]:
    """An item without its parts as JSON. Times are ISO 8601, in UTC unless an attribute is a local time."""
    return {
        "id": item.id,
        "key": item.key,
        "path": item.path,
        "modality": str(item.modality),
        "title": item.title,
        "size": item.size,
        "modified": None if item.mtime_ns is None else _iso(item.mtime_ns / 1e9),
        "added": item.added.isoformat(),
        "attributes": {name: _plain(value) for name, value in item.attributes.items()},
    }


def part_record(part: Part) -> dict[str, Any]:
    """A part as JSON."""
    return {
        "id": part.id,
        "modality": str(part.modality),
        "ordinal": part.ordinal,
        "start": part.start,
        "end": part.end,
        "page": part.page,
        "text": part.text,
        "source": part.source,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
