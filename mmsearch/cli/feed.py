"""The options of ``mmsearch index`` that say how a table of products is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.errors import ConfigError

if TYPE_CHECKING:
    from indexer.product_rows import Layout

Feed = Annotated[
    Path | None,
    typer.Option(
        "--feed",
        metavar="FILE",
        help="A table of products: .csv, .tsv, .jsonl or .parquet. It is remembered, with the options below.",
        show_default=False,
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        metavar="FILE",
        help="TOML or JSON that says which column of --feed is what: columns, types, ignore, root.",
        show_default=False,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN[,...]",
        help="The columns of id, title, description, images, parent, delete or an attribute. Repeatable.",
        show_default=False,
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="NAME=KIND",
        help="The kind of an attribute: number, text, list, boolean or datetime. Repeatable.",
        show_default=False,
    ),
]
Ignored = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="COLUMN", help="Leave out a column of --feed. Repeatable.", show_default=False
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Where paths of pictures start. Not given: beside --feed.",
        show_default=False,
    ),
]
Partial = Annotated[
    bool | None,
    typer.Option(
        "--partial/--whole",
        help="--feed only changes attributes (price, stock) of products that are there; nothing is encoded.",
        show_default=False,
    ),
]
DeleteMissing = Annotated[
    bool | None,
    typer.Option(
        "--delete-missing/--keep-missing",
        help="Remove products that came from --feed and are not in it any more.",
        show_default=False,
    ),
]


def build_layout(
    mapping: Path | None,
    columns: Sequence[str] | None,
    types: Sequence[str] | None,
    ignored: Sequence[str] | None,
    root: Path | None,
) -> Layout | None:
    """The layout of a mapping file and of flags, which win; None if nothing is given. Raises ``ConfigError``."""
    if mapping is None and columns is None and types is None and ignored is None and root is None:
        return None
    from indexer.feeds import read_layout
    from indexer.product_rows import Layout

    given = Layout() if mapping is None else read_layout(mapping.expanduser())
    plain = given.as_dict()
    flags = {
        "columns": {
            **given.columns,
            **{name: value.split(",") for name, value in _pairs("--column", columns)},
        },
        "types": {**given.types, **dict(_pairs("--type", types))},
        "ignore": [*given.ignore, *(ignored or ())],
    }
    if root is not None:
        flags["root"] = str(root.expanduser().absolute())
    elif given.root is not None and mapping is not None:
        flags["root"] = str(mapping.expanduser().absolute().parent / given.root)
    return Layout.from_dict(plain | flags, "the options of --feed")


def _pairs(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    found = []
    for pair in given or ():
        name, sign, value = pair.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise ConfigError(f"{option} {pair}: write NAME=VALUE")
        found.append((name.strip(), value.strip()))
    return found
