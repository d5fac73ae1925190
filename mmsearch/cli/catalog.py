"""Commands on what is indexed: ``status``, ``show``, ``remove``, ``check`` and ``collections``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.options import AsJson, Collection, Home, NewModel, Yes, has_catalog, open_engine

if TYPE_CHECKING:
    from mmsearch.catalog import Catalog
    from mmsearch.engine import Engine

collections = typer.Typer(help="List, create and delete collections.", no_args_is_help=True)


def status(json: AsJson = False, collection: Collection = None, home: Home = None) -> None:
    """Show what a collection holds and what it costs on disk."""
    from mmsearch.cli.text import json_line, safe, say, size, write_bytes

    with open_engine(home, collection) as engine:
        found = engine.status()
    if json:
        write_bytes([json_line({**dataclasses.asdict(found), "home": str(found.home)})])
        return
    parts = ", ".join(f"{count:,} {modality}" for modality, count in found.parts.items()) or "none"
    index = ", ".join(f"{modality} {kind}" for modality, kind in found.index_kind.items()) or "none yet"
    say(f"home        {safe(str(found.home))}")
    say(f"collection  {safe(found.collection)}")
    say(f"model       {safe(found.model)} (space {safe(found.space)}, {found.dim} dimensions)")
    say(f"items       {found.items:,}")
    say(f"parts       {parts}")
    say(f"index       {index}")
    per_item = (
        f" ({size(round((found.catalog_bytes + found.index_bytes) / found.items))} an item)"
        if found.items
        else ""
    )
    say(f"on disk     catalog {size(found.catalog_bytes)}, index {size(found.index_bytes)}{per_item}")
    say(f"revision    {found.revision}")
    for path, exclude in found.roots.items():
        left_out = f" (without {', '.join(exclude)})" if exclude else ""
        say(f"folder      {safe(path + left_out)}")
    for path in found.feeds:
        say(f"feed        {safe(path)}")
    if found.attributes:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in sorted(found.attributes.items()))
        say(f"attributes  {safe(kinds)}")
    if not found.items:
        say("The collection is empty: run `mmsearch index FOLDER`.")


Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Items by key: the id that a shop gave a product, the path of a file. Repeatable.",
        show_default=False,
    ),
]


def show(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Items to show, by id.", show_default=False)
    ] = None,
    key: Keys = None,
    json: AsJson = False,
    collection: Collection = None,
    home: Home = None,
) -> None:
    """Show everything known about items: file facts, attributes, parts and their texts."""
    from mmsearch.cli.hits import item_record, part_record
    from mmsearch.cli.text import json_line, safe, say, size, time_span, write_bytes
    from mmsearch.errors import QueryError
    from mmsearch.types import Modality

    if not ids and not key:
        raise QueryError("show what? Give ids, or --key KEY")
    with open_engine(home, collection) as engine:
        items = engine.get([*(ids or ()), *_ids_of_keys(engine, key)])
    for position, item in enumerate(items):
        record = item_record(item)
        if json:
            record["parts"] = [part_record(part) for part in item.parts]
            write_bytes([json_line(record)])
            continue
        if position:
            say()
        for name in ("id", "key", "modality", "title", "size", "modified", "added"):
            if record[name] is not None:
                value = size(record[name]) if name == "size" else record[name]
                say(f"{name:<12} {safe(str(value))}")
        for name, value in sorted(record["attributes"].items()):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            say(f"{safe(name):<12} {safe(text)}")
        for part in item.parts:
            where = [f"part {part.id}", str(part.modality)]
            where += [f"p. {part.page}"] if part.page is not None else []
            if part.start is not None and part.end is not None:
                heard = item.modality is Modality.AUDIO
                where += [time_span(part.start, part.end) if heard else f"{part.start:g} to {part.end:g}"]
            where += [safe(part.source)] if part.source else []
            say(", ".join(where))
            if part.text:
                say(f"    {safe(' '.join(part.text.split()))}")


def remove(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID|PATH]...",
            help="Items by id, files by path, folders with everything below. A file named by digits: ./12.",
            show_default=False,
        ),
    ] = None,
    key: Keys = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="FILTER", help="Remove items whose attributes match.")
    ] = None,
    yes: Yes = False,
    collection: Collection = None,
    home: Home = None,
) -> None:
    """Remove items from the collection. Files on disk are not touched."""
    from mmsearch.cli.text import many, note, safe, say
    from mmsearch.errors import QueryError

    if not targets and not key and where is None:
        raise QueryError("remove what? Give ids, paths, --key KEY, or --where FILTER")
    with open_engine(home, collection) as engine:
        ids = {found for target in targets or () for found in _ids_of(engine, target)}
        ids.update(_ids_of_keys(engine, key))
        if where is not None:
            ids.update(engine.select(where))
        if not ids:
            note("nothing matches; nothing was removed")
            return
        if not yes:
            for item in engine.get(sorted(ids)[:5]):
                say(f"{item.id:>8}  {safe(item.key)}")
            if len(ids) > 5:
                say(f"          and {len(ids) - 5:,} more")
            typer.confirm(f"Remove {many(len(ids), 'item')} from {engine.collection!r}?", abort=True)
        removed = engine.remove(ids)
        engine.save()
    say(f"removed {many(removed, 'item')}")


def _ids_of(engine: Engine, target: str) -> list[int]:
    """The items that an argument of ``remove`` means. Raises ``ItemNotFound`` if there are none."""
    from mmsearch.errors import ItemNotFound

    if target.isdecimal():
        return [item.id for item in engine.get([int(target)])]
    path = os.path.abspath(os.path.expanduser(target))
    if found := [record.id for record in engine.files(under=path).values()]:
        return found
    if item := engine.find(target):
        return [item.id]
    raise ItemNotFound(
        f"{target}: no item of collection {engine.collection!r} has this path or lies below it"
    )


def _ids_of_keys(engine: Engine, keys: list[str] | None) -> list[int]:
    """The items with these keys. Raises ``ItemNotFound`` naming the first that is missing."""
    from mmsearch.errors import ItemNotFound

    ids = []
    for key in keys or ():
        if (item := engine.find(key)) is None:
            raise ItemNotFound(f"{key}: no item of collection {engine.collection!r} has this key")
        ids.append(item.id)
    return ids


def check(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    collection: Collection = None,
    home: Home = None,
) -> None:
    """Check that every row, part, vector and index entry agree. Exit code 4 if something stays wrong."""
    from mmsearch.cli.text import many, safe, say
    from mmsearch.errors import StoreError

    with open_engine(home, collection) as engine:
        problems = engine.check(repair=repair)
        left = engine.check() if repair and problems else problems
    for problem in problems:
        say(safe(problem))
    if left:
        advice = "restore a backup, or index again" if repair else "run `mmsearch check --repair`"
        raise StoreError(f"{many(len(left), 'problem')} in collection {engine.collection!r}: {advice}")
    say(f"{many(len(problems), 'problem')} mended" if problems else "everything agrees")


@collections.command("list")
def list_collections(json: AsJson = False, home: Home = None) -> None:
    """List the collections of a home."""
    from mmsearch import shadows
    from mmsearch.cli.text import json_line, safe, say, write_bytes

    with _catalog(home) as catalog:
        found = catalog.collections()
        others = shadows.models(catalog)
    for info in found:
        if json:
            write_bytes([json_line(dataclasses.asdict(info) | {"created": info.created.isoformat()})])
        else:
            other = (
                f" (and vectors of {safe(others[info.id])}, see `migrate --status`)"
                if info.id in others
                else ""
            )
            say(f"{safe(info.name):<20} {info.items:>9,} items  {safe(info.model)}{other}")


@collections.command("create")
def create_collection(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new collection.")],
    model: NewModel = None,
    home: Home = None,
) -> None:
    """Create an empty collection. `mmsearch index` does it by itself."""
    from mmsearch.cli.text import say
    from mmsearch.errors import StoreError

    if has_catalog(home):
        with _catalog(home) as catalog:
            if any(info.name == name for info in catalog.collections()):
                raise StoreError(f"there is a collection {name!r} already")
    with open_engine(home, name, model=model, create=True) as engine:
        say(f"created {engine.collection!r} with model {engine.status().model}")


@collections.command("delete")
def delete_collection(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Collection to delete, with all its items.")],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Delete a collection and everything in it. Files on disk are not touched."""
    from mmsearch.cli.text import many, say

    with _catalog(home) as catalog:
        info = catalog.collection(name)
        if not yes:
            typer.confirm(f"Delete {name!r} with {many(info.items, 'item')}?", abort=True)
        catalog.delete_collection(name)
    say(f"deleted {name!r} with {many(info.items, 'item')}")


def _catalog(home: Path | None) -> contextlib.closing[Catalog]:
    from mmsearch.catalog import Catalog
    from mmsearch.config import load_settings

    return contextlib.closing(Catalog(load_settings(home=home).home, create=False))
