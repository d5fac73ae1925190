"""``mmsearch models pull``, and what `mmsearch index` fetches by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmsearch.encoders.pull import Plan, Progress
    from mmsearch.encoders.sources import Source
    from mmsearch.engine import Engine

SECONDS_BETWEEN_LINES = 5.0


def pull_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name of `mmsearch models list`, open-clip:ARCHITECTURE/TAG or hf-hub:ORGANISATION/NAME.",
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say which files come from where and go where."),
    ] = False,
) -> None:
    """Fetch a model's files, once, with their checksums; it needs no network after that.

    Run it again if it was cut off: it goes on where it stopped. A mirror is named by HF_ENDPOINT, a proxy by
    HTTPS_PROXY, a token for private repositories by HF_TOKEN. Without a network the error lists what to put where.
    """
    from mmsearch.cli.text import say, size
    from mmsearch.encoders import model_files
    from mmsearch.encoders.pull import check_pulled, plan, pulled_files

    source = model_files(name)
    if source is None or (pulled_files(source.folder) and not check_pulled(source.folder)):
        say(f"{name}: nothing to fetch, it is on this machine and whole")
        return
    planned = plan(source)
    if dry_run:
        for file in planned.files:
            amount = size(file.size) if file.size is not None else "unknown size"
            say(f"{file.url} ({amount})")
            say(f"    to {source.folder / file.to}")
        say(f"open_clip_config.json with {_origin(source)}")
        say(f"    to {source.folder / 'open_clip_config.json'}")
        return
    _fetch(source, planned)
    say(f"{source.short}: {source.folder}")


def fetch_missing(model: str, collection: Callable[[], Engine] | None) -> None:
    """Fetch the files of a model that is wanted and not here; nothing if it is, or if it is no model of open_clip.

    ``collection`` opens the one that it is wanted for, if that exists. Raises ``ModelError`` if the files cannot be
    fetched, ``SpaceMismatch`` if they would not help.
    """
    from mmsearch.cli.text import note
    from mmsearch.encoders import model_files
    from mmsearch.encoders.pull import plan
    from mmsearch.errors import SpaceMismatch

    source = model_files(model)
    if source is None or (source.repo is None and source.tag is None):
        return
    if source.present or (source.export / "model.json").is_file():
        return
    if collection is not None:
        with collection() as engine:
            if engine.space.id != source.name:
                raise SpaceMismatch(
                    f"collection {engine.collection!r} holds vectors of {engine.space.id!r}, {source.short} makes "
                    "others: leave --model out, or index into another --collection"
                )
    planned = plan(source)
    note(
        f"{source.short} is not on this machine: fetching it (Ctrl-C stops, the next run goes on from there)"
    )
    _fetch(source, planned)


def _fetch(source: Source, planned: Plan) -> None:
    from mmsearch.cli.text import note, size
    from mmsearch.encoders.known import KNOWN
    from mmsearch.encoders.pull import pull

    note(f"{source.short}: {size(planned.size)} into {source.folder}")
    known = next((known for known in KNOWN.values() if known.source == source.name), None)
    if known and known.research_only:
        note(f"{source.short}: its licence ({known.licence}) allows research only")
    with _progress() as progress:
        pull(source, planned, progress)


def _origin(source: Source) -> str:
    if source.scheme == "hf-hub":
        return "the repository's own configuration"
    return f"open_clip's configuration of {source.architecture} and the preprocessing of {source.tag}"


@contextmanager
def _progress() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich import progress as drawn
    from rich.console import Console

    bar = drawn.Progress(
        drawn.TextColumn("{task.description}"),
        drawn.BarColumn(),
        drawn.DownloadColumn(),
        drawn.TransferSpeedColumn(),
        drawn.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=max(total, done) or None
        )


def _lines() -> Progress:
    from mmsearch.cli.text import note, size

    last = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        note(f"{what}: {size(done)} of {size(total)}")

    return show
