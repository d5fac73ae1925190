"""``mmsearch export`` and ``mmsearch import``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmsearch.cli.options import Collection, Home, NewModel, open_engine

Format = Literal["jsonl", "parquet"]
InFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        metavar="jsonl|parquet",
        help="Format of the file. Not given: by its suffix.",
        show_default=False,
    ),
]


def export_to(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="FILE.jsonl or FILE.parquet to write; - writes JSONL to stdout."),
    ],
    format: InFormat = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    collection: Collection = None,
    home: Home = None,
) -> None:
    """Write a collection, vectors included, to one file. Parquet needs the extra `parquet`."""
    from indexer.transfer import export_collection, export_lines
    from mmsearch.cli.text import many, note, safe

    with open_engine(home, collection) as engine:
        if file == "-":
            count = export_lines(engine, sys.stdout.buffer)
        else:
            count = export_collection(engine, Path(file).expanduser(), format=format, overwrite=force)
    note(f"exported {many(count, 'item')} to {safe('stdout' if file == '-' else file)}")


def import_from(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A file that `mmsearch export` wrote; - reads JSONL from stdin."),
    ],
    format: InFormat = None,
    model: NewModel = None,
    collection: Collection = None,
    home: Home = None,
) -> None:
    """Add the items of an exported file to a collection. Items with the same key are replaced.

    A missing collection is made. The file is read to its end before anything is written: a damaged one changes nothing.
    """
    from indexer.transfer import import_collection, read_header
    from mmsearch.cli.text import many, note, safe

    with _file(file) as path:
        format = "jsonl" if file == "-" else format
        header = read_header(path, format)
        with open_engine(home, collection, model=model, create=True, made_for=header) as engine:
            count = import_collection(engine, path, format=format)
            note(f"imported {many(count, 'item')} from {safe(file)} into {engine.collection!r}")


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """The file of this name; what comes on stdin is kept in a file meanwhile, because it is read twice."""
    if name != "-":
        yield Path(name).expanduser()
        return
    import shutil
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="stdin-", suffix=".jsonl") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        yield Path(kept.name)
