"""``mmsearch index``."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.feed import (
    Columns,
    DeleteMissing,
    Feed,
    Ignored,
    MappingFile,
    Partial,
    Root,
    Types,
    build_layout,
)
from mmsearch.cli.options import (
    Collection,
    Compile,
    Home,
    InPrecision,
    NewModel,
    OnDevice,
    Threads,
    has_catalog,
    open_engine,
)

if TYPE_CHECKING:
    from indexer.report import Listener, Progress, Report
    from mmsearch.engine import Engine

SECONDS_BETWEEN_LINES = 5.0
SKIPPED_SHOWN = 20


def index(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders and files to index. Not given: the folders and feeds that were indexed before.",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            help="Leave out what matches, as a line of a .gitignore does. Repeatable.",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Forget files even if a folder is missing, empty, or lost more than half of them, and so for feeds.",
        ),
    ] = False,
    transcribe: Annotated[
        bool | None,
        typer.Option(
            "--transcribe/--no-transcribe",
            help="Write down what is said in recordings (English, extra `voice`), also in those indexed before. Not "
            "given: in folders where it was done before.",
            show_default=False,
        ),
    ] = None,
    feed: Feed = None,
    mapping: MappingFile = None,
    column: Columns = None,
    type: Types = None,
    ignore: Ignored = None,
    root: Root = None,
    partial: Partial = None,
    delete_missing: DeleteMissing = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    model: NewModel = None,
    threads: Threads = None,
    collection: Collection = None,
    home: Home = None,
    device: OnDevice = None,
    precision: InPrecision = None,
    compile: Compile = None,
) -> None:
    """Index pictures, texts, sounds and products, and bring what was indexed before up to date.

    Files and rows that cannot be read are skipped, with the reason in the report; the exit code is 3 only if nothing at
    all could be indexed. Stop it at any time: what is committed stays, and the next run goes on from there.
    A model of `mmsearch models list` that is not on this machine is fetched first.
    """
    from indexer.addresses import networks
    from indexer.feeds import index_feed, remembered_feeds
    from mmsearch.config import load_settings
    from mmsearch.errors import ConfigError, MediaError
    from mmsearch.memory import set_up_allocator

    allowed = networks(load_settings(home=home).fetch_from)
    missing = [path for path in paths or () if not os.path.exists(os.path.expanduser(path))]
    if missing and not has_catalog(home):
        raise MediaError(missing[0], "no such file or folder")  # no catalog is made for a slip of the fingers
    layout = build_layout(mapping, column, type, ignore, root)
    if feed is None and (layout is not None or partial is not None or delete_missing is not None):
        raise ConfigError("options of a table of products, and no --feed")
    if feed is not None and not feed.expanduser().is_file():
        raise MediaError(feed, "no such file")
    with open_engine(
        home,
        collection,
        model=model,
        device=device,
        threads=threads,
        precision=precision,
        compile=compile,
        create=bool(paths or feed),
        fetch=True,
    ) as engine:
        jobs = _jobs(engine, paths, exclude) if paths or feed is None else []
        tables = [str(feed.expanduser())] if feed else [] if paths else remembered_feeds(engine)
        if tables:
            set_up_allocator()
        if not jobs and not tables:
            raise ConfigError("index what? Give a folder: `mmsearch index FOLDER`; later runs remember it")
        with _progress() as listener:
            report = _run(engine, jobs, prune, transcribe, listener)
            for table in tables:
                add = functools.partial(_join, report)
                if feed is None and not os.path.exists(table):
                    add(_vanished(engine, table, prune))
                    continue
                add(
                    index_feed(
                        engine,
                        table,
                        layout,
                        partial=partial,
                        delete_missing=delete_missing,
                        prune=prune,
                        allowed=allowed,
                        progress=listener,
                    )
                )
        held = engine.status().items
    if json:
        from mmsearch.cli.text import json_line, write_bytes

        write_bytes([json_line(report.as_dict())])
    else:
        _summary(report, held)
    if report.skipped and not held:
        raise typer.Exit(3)


def _jobs(
    engine: Engine, paths: Sequence[str] | None, exclude: Sequence[str] | None
) -> list[tuple[list[str], list[str]]]:
    """Paths that are indexed in one run, and the globs left out; a remembered folder keeps its own unless given new."""
    remembered = engine.roots()
    chosen = [os.path.abspath(os.path.expanduser(path)) for path in paths] if paths else list(remembered)
    groups: dict[tuple[str, ...], list[str]] = {}
    for path in chosen:
        globs = remembered.get(path, []) if exclude is None else exclude
        groups.setdefault(tuple(globs), []).append(path)
    return [(found, list(globs)) for globs, found in groups.items()]


def _run(
    engine: Engine,
    jobs: list[tuple[list[str], list[str]]],
    prune: bool,
    transcribe: bool | None,
    listener: Listener,
) -> Report:
    from indexer.pipeline import index as index_files
    from indexer.report import Report

    whole = Report()
    for paths, exclude in jobs:
        report = index_files(
            engine, paths, exclude=exclude, prune=prune, transcribe=transcribe, progress=listener
        )
        _join(whole, report)
    return whole


def _join(whole: Report, report: Report) -> None:
    """Add a report to another one."""
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        if field.name == "seconds":
            whole.seconds = {stage: whole.seconds[stage] + spent for stage, spent in value.items()}
        else:
            setattr(whole, field.name, getattr(whole, field.name) + value)


def _vanished(engine: Engine, table: str, prune: bool) -> Report:
    """A table that was indexed before and is gone: its products stay, and with ``prune`` it is not asked for again."""
    from indexer.feeds import forget_feed
    from indexer.report import Report, Skipped, printable

    if prune:
        forget_feed(engine, table)
        return Report()
    return Report(
        skipped=[Skipped(printable(table), "no such file; to forget it, run it again with --prune")]
    )


def _summary(report: Report, held: int) -> None:
    from mmsearch.cli.text import duration, many, safe, say

    for line in report.notes[:SKIPPED_SHOWN]:
        say(f"note     {safe(line.path)}: {safe(line.reason)}")
    for line in report.skipped[:SKIPPED_SHOWN]:
        say(f"skipped  {safe(line.path)}: {safe(line.reason)}")
    hidden = len(report.skipped) - SKIPPED_SHOWN
    if hidden > 0:
        say(f"skipped  {many(hidden, 'more file')}; --json lists them all")
    counts = [
        (report.added, "added"),
        (report.updated, "updated"),
        (report.renamed, "renamed"),
        (report.removed, "removed"),
        (report.unchanged, "unchanged"),
        (report.transcribed, "transcribed"),
        (len(report.skipped), "skipped"),
    ]
    said = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "nothing to do"
    if report.attributes_only:
        said = said.replace(" updated", f" updated ({report.attributes_only:,} in attributes only)", 1)
    copies = f" ({many(report.copies, 'copy')})".replace("copys", "copies") if report.copies else ""
    encoded = report.added + report.updated
    rate = f", {encoded / report.total:.0f} files/s" if encoded > report.total > 0 else ""
    say(f"{said}{copies} in {duration(report.total)}{rate}. The collection holds {many(held, 'item')}.")
    if not held and not report.skipped:
        say("There are no pictures, texts or sounds there.")


@contextmanager
def _progress() -> Iterator[Listener]:
    """A bar on a terminal; elsewhere a plain line now and then. Both on stderr, so that stdout is the report."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    from rich import progress as drawn
    from rich.console import Console

    from mmsearch.cli.text import last, safe

    console = Console(stderr=True)
    bar = drawn.Progress(
        drawn.TextColumn("{task.description}"),
        drawn.BarColumn(bar_width=None),
        drawn.TextColumn("{task.fields[amount]}"),
        drawn.TimeRemainingColumn(compact=True),
        drawn.TextColumn("{task.fields[file]}", style="dim"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("looking", total=None, amount="", file="")
        started, begun = time.monotonic(), False

        def show(at: Progress) -> None:
            nonlocal started, begun
            file = last(safe(at.path), 24)
            if at.stage == "scan":
                started = time.monotonic()
                bar.update(task, description="looking", amount=f"{at.done:,} files", file=file)
                return
            if not begun:
                begun = True
                bar.reset(task, description="indexing", total=at.total, amount="", file=file)
            rate = at.done / max(time.monotonic() - started, 1e-6)
            bar.update(
                task,
                completed=at.done,
                total=at.total,
                amount=f"{at.done:,}/{at.total:,} {rate:.0f}/s",
                file=file,
            )

        yield show


def _plain_lines() -> Callable[[Progress], None]:
    from mmsearch.cli.text import duration, note

    started = last = time.monotonic()
    indexing_since = started

    def show(at: Progress) -> None:
        nonlocal last, indexing_since
        now = time.monotonic()
        if at.stage == "scan":
            indexing_since = now
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        if at.stage == "scan" or at.total is None:
            note(f"looking: {at.done:,} files, {duration(now - started)}")
            return
        rate = at.done / max(now - indexing_since, 1e-6)
        left = duration((at.total - at.done) / rate)
        note(f"indexing: {at.done:,} of {at.total:,} files, {rate:.0f}/s, {left} left")

    return show
