"""``mmsearch search``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmsearch.cli.options import Collection, Home, OnDevice, OtherModel, open_engine
from mmsearch.errors import QueryError

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.types import Hit, Query

Media = Literal["image", "text", "audio", "fused"]


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORDS]...", help="What to look for, in your own words.", show_default=False),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="PATH|URL", help="Look for what resembles this picture. Repeatable."),
    ] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option(
            "--audio",
            metavar="FILE|URL|-",
            help="Look for what resembles this sound; - reads it from standard input. Repeatable.",
        ),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice",
            metavar="FILE|URL|-",
            help="Look for what is said in this recording (English, extra `voice`); the words are printed.",
        ),
    ] = None,
    like: Annotated[
        list[int] | None,
        typer.Option("--like", metavar="ID", help="Look for what resembles this item. Repeatable."),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add", metavar="TEXT", help="Steer towards a text; NUMBER:TEXT gives it a weight. Repeatable."
        ),
    ] = None,
    subtract: Annotated[
        list[str] | None,
        typer.Option(
            "--subtract",
            metavar="TEXT",
            help="Steer away from a text; NUMBER:TEXT gives it a weight. Repeatable.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Number of items to find.")] = 10,
    modality: Annotated[
        Media | None,
        typer.Option(
            "--modality",
            metavar="image|text|audio|fused",
            help="Find only pictures, only texts, only sounds, or only products as a whole.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            "--path", metavar="GLOB", help="Find only files whose path matches, such as '*/2024/*.jpg'."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="FILTER",
            help='Find only items whose attributes match, such as \'taken >= "2024-05" and camera like "%canon%"\'.',
        ),
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Also rank texts by the words they share with the query.")
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", metavar="SCORE", help="Leave out hits below this score (-1 to 1)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print only the paths, one a line.")] = False,
    null: Annotated[
        bool,
        typer.Option(
            "-0", "--null", help="Like --paths, each path ended by a NUL byte, as xargs -0 reads them."
        ),
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Draw the pictures in the terminal.")] = False,
    collection: Collection = None,
    home: Home = None,
    model: OtherModel = None,
    device: OnDevice = None,
) -> None:
    """Search by words, by picture, by sound, by example, or by a mixture of them.

    Terms add up to one query: `mmsearch search beach --add 2:sunset --subtract people`. A number and a colon before
    the text of --add or --subtract is its weight (1 if there is none; the other terms have 1).

    The exit code is 0 even if nothing matches; that is said on stderr.
    """
    if json + (paths or null) + preview > 1:
        raise QueryError("choose one of --json, --paths (or -0) and --preview")
    if preview and not sys.stdout.isatty():
        raise QueryError("--preview draws in a terminal, and the output goes elsewhere; leave it away")
    if preview and not os.get_terminal_size(sys.stdout.fileno()).columns:
        raise QueryError("--preview needs to know how large the terminal is, and it does not tell its size")
    from mmsearch.cli.query import build_query, spoken

    if voice is not None:
        words = [*(words or ()), spoken(voice)]
    query = build_query(
        words or (),
        image or (),
        audio or (),
        like or (),
        add or (),
        subtract or (),
        k=k,
        modality=modality,
        path=path,
        where=where,
        hybrid=hybrid,
        min_score=min_score,
    )
    with open_engine(home, collection, model=model, device=device) as engine:
        if any(term.text is not None for term in query.terms):
            engine.preload()
        hits = engine.search(query)
        if not hits:
            _say_that_nothing_matches(engine, query)
            return
        _present(
            hits, " ".join(words or add or ()).split(), json, paths or null, b"\0" if null else b"\n", preview
        )
        _doubt(engine, query, hits)


def _present(hits: list[Hit], words: list[str], json: bool, paths: bool, end: bytes, preview: bool) -> None:
    from mmsearch.cli import hits as show

    if json:
        show.as_json(hits)
    elif paths:
        show.as_paths(hits, end=end)
    elif sys.stdout.isatty():
        show.as_table(hits, words, preview=preview)
    else:
        show.as_lines(hits, words)


def _say_that_nothing_matches(engine: Engine, query: Query) -> None:
    from mmsearch.cli.text import note

    if engine.status().items == 0:
        note(f"collection {engine.collection!r} is empty: run `mmsearch index FOLDER` first")
    elif query.where or query.path or query.modality or query.min_score is not None:
        note("nothing matches; --where, --path, --modality and --min-score leave nothing over")
    else:
        note("nothing matches")


def _doubt(engine: Engine, query: Query, hits: list[Hit]) -> None:
    """Say when a plain text query found nothing that scores like a match, by the model's own measure."""
    levels = engine.encoder.levels
    plain = len(query.terms) == 1 and query.terms[0].text is not None and not query.hybrid
    if not plain or not levels or hits[0].score >= max(levels.values()):
        return
    if hits[0].part.modality == "fused":  # no model says what a good score of these is
        return
    from mmsearch.cli.text import note
    from mmsearch.types import Modality

    held = [query.modality] if query.modality else [Modality(name) for name in engine.status().parts]
    level = levels.get(
        held[0] if len(held) == 1 else Modality.IMAGE
    )  # scores of mixed lists are those of pictures
    if level is not None and hits[0].score < level:
        note(
            f"perhaps nothing matches: the best score is {hits[0].score:.2f}, most matches have {level:.2f} or more"
        )
