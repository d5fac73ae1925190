"""``mmsearch migrate``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import AsJson, Compile, Home, InPrecision, OnDevice, Threads, Yes, open_engine

if TYPE_CHECKING:
    from indexer.migrate import Migrated
    from mmsearch.engine import Engine


def migrate(
    collection: Annotated[
        str | None,
        typer.Argument(
            metavar="[COLLECTION]",
            help="Collection to give another model. Not given: the one of the settings.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|FOLDER",
            help="The new model. Not given: go on with the migration that was begun.",
            show_default=False,
        ),
    ] = None,
    map_vanished: Annotated[
        bool,
        typer.Option(
            "--map-vanished",
            help="Work out the vectors of files that are gone or changed by a linear map that the others teach.",
        ),
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say how far a migration is.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the former model.")] = False,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="Delete the former vectors (or give up what has not been switched yet) and shrink the catalog.",
        ),
    ] = False,
    yes: Yes = False,
    json: AsJson = False,
    threads: Threads = None,
    home: Home = None,
    device: OnDevice = None,
    precision: InPrecision = None,
    compile: Compile = None,
) -> None:
    """Give a collection another model: encode everything again, then switch at one stroke.

    Meanwhile the collection is searched and written with its old model. Stop it at any time: what is encoded is kept,
    and the same command goes on from there. The old vectors stay beside the new ones, and `--rollback` goes back to
    them at once, until `--finish` deletes them. Items keep their ids, attributes and titles.
    """
    from mmsearch.errors import ConfigError

    if status + rollback + finish + (model is not None) > 1:
        raise ConfigError("choose one of --model, --status, --rollback and --finish")
    with open_engine(
        home, collection, device=device, threads=threads, precision=precision, compile=compile
    ) as engine:
        if status:
            _show(engine, json)
        elif finish:
            _finish(engine, yes, json)
        else:
            from indexer.addresses import networks
            from mmsearch.config import load_settings

            options = {
                "map_vanished": map_vanished,
                "allowed": networks(load_settings(home=home).fetch_from),
            }
            _migrate(engine, model, rollback, json, options)


def _migrate(engine: Engine, model: str | None, back: bool, json: bool, options: dict[str, Any]) -> None:
    from indexer import migrate as work
    from mmsearch.cli.progress import counting
    from mmsearch.cli.text import json_line, note, write_bytes
    from mmsearch.errors import MigrationRefused

    with counting("encoding") as progress:
        options |= {"progress": progress, "notice": note}
        try:
            done = work.rollback(engine, **options) if back else work.migrate(engine, model, **options)
        except MigrationRefused as error:
            if json:
                write_bytes([json_line({"collection": engine.collection, "refused": dict(error.items)})])
            raise
    if json:
        write_bytes([json_line(dataclasses.asdict(done))])
    else:
        _summary(done)


def _summary(done: Migrated) -> None:
    from mmsearch.cli.text import duration, many, safe, say

    copied = f" ({done.copied:,} of them by content that was known)" if done.copied else ""
    say(
        f"{many(done.items, 'item')} of {done.collection!r} now have vectors of {safe(done.model)}: {done.encoded:,} "
        f"encoded{copied}, {len(done.mapped):,} mapped, in {duration(done.seconds)}"
    )
    for modality, found in done.quality.items():
        say(
            f"the map of modality {modality}: mean cosine {found.cosine:.3f}, {found.overlap:.0%} of the 10 nearest "
            f"neighbours right, on {found.held_out:,} pairs held out of {found.learnt + found.held_out:,}"
        )
    say(
        f"The vectors of {safe(done.former)} are kept: `mmsearch migrate {safe(done.collection)} --rollback` goes back "
        "to them, `--finish` deletes them."
    )


def _show(engine: Engine, json: bool) -> None:
    from indexer.migrate import shadow_of
    from mmsearch.cli.text import json_line, safe, say, write_bytes

    shadow = shadow_of(engine)
    if json:
        record: dict[str, Any] = {"collection": engine.collection, "migration": None}
        if shadow is not None:
            record["migration"] = {
                "model": shadow.info.model,
                "space": shadow.info.space,
                "dim": shadow.info.dim,
                "switched": shadow.switched,
                "done": shadow.done,
                "mapped": shadow.mapped,
                "total": shadow.total,
            }
        write_bytes([json_line(record)])
        return
    name = safe(engine.collection)
    if shadow is None:
        say(f"collection {name!r} is not being migrated")
        return
    say(
        f"{'former' if shadow.switched else 'new'} model  {safe(shadow.info.model)} (space {safe(shadow.info.space)})"
    )
    mapped = f", {shadow.mapped:,} of them mapped" if shadow.mapped else ""
    say(f"vectors of   {shadow.done:,} of {shadow.total:,} items{mapped}")
    if shadow.switched:
        say(f"`mmsearch migrate {name} --rollback` goes back to them, `--finish` deletes them.")
    else:
        say(f"`mmsearch migrate {name}` goes on, `--finish` gives it up.")


def _finish(engine: Engine, yes: bool, json: bool) -> None:
    from indexer.migrate import finish, shadow_of
    from mmsearch.cli.text import json_line, many, note, safe, say, size, write_bytes

    shadow = shadow_of(engine)
    if shadow is None:
        note(f"collection {engine.collection!r} is not being migrated; nothing was deleted")
        return
    if not yes:
        what = "former" if shadow.switched else "unfinished"
        typer.confirm(
            f"Delete the {what} vectors of {shadow.info.model} ({many(shadow.done, 'item')}) in {engine.collection!r}?",
            abort=True,
        )
    before = engine.status().catalog_bytes
    deleted = finish(engine)
    freed = max(0, before - engine.status().catalog_bytes)
    if json:
        write_bytes([json_line({"collection": engine.collection, "deleted": deleted, "freed_bytes": freed})])
    else:
        say(f"deleted the vectors of {safe(shadow.info.model)}; the catalog is {size(freed)} smaller")
