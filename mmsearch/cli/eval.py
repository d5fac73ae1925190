"""``mmsearch eval``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import Threads

if TYPE_CHECKING:
    from rich.table import Table

    from mmsearch.evaluate import Evaluation, Figure, Result
    from mmsearch.manifests import Manifest

SHOWN = 5
"""So many of the slowest and worst queries the table shows; --json has ten."""

WIDTH = 36
PIPE_WIDTH = 120
COUNTS = frozenset({"median_rank"})
"""Measures that are no shares."""


def evaluate(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="A .csv, .jsonl or .parquet file with known answers.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|FOLDER",
            help="Model to measure. Not given: that of the settings, or mini.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="NAME|FOLDER", help="Another model to set beside it."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FOLDER", help="Where the files lie. Not given: beside the manifest."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Take only rows with this in their column split."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="How to ask for a class: 'a photo of a {}', {} being its label. Repeatable: the mean is taken.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Draws the queries of the intervals.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    threads: Threads = None,
) -> None:
    """Measure a model on media whose answers are known, or set two models side by side.

    The columns of the manifest say what is asked: two of image, audio and text (what stands in a row belongs together);
    label and one of them (zero-shot classes); query, positive and negative; or query, target and add or subtract.
    """
    from mmsearch.cli.progress import counting
    from mmsearch.cli.text import json_line, note, write_bytes
    from mmsearch.config import load_settings
    from mmsearch.encoders import load_encoder
    from mmsearch.evaluate import evaluate as run
    from mmsearch.manifests import read_manifest

    settings = load_settings(model=model, threads=threads)
    names = [settings.model or "mini", *([compare] if compare else [])]
    asked = read_manifest(manifest, root=root, split=split, prompts=prompt or ())
    encoders = [load_encoder(name, threads=settings.threads) for name in names]
    found: dict[str, Evaluation] = {}
    for name, encoder in zip(names, encoders, strict=True):
        with counting(f"encoding with {name}") as show:
            found[name] = run(encoder, asked, seed=seed, progress=show)
        for text in found[name].notes:
            note(f"{name}: {text}")
    if json:
        write_bytes([json_line(_record(asked, found, seed))])
        return
    _print(found, seed)


def _pairs(found: Mapping[str, Evaluation]) -> list[tuple[Result, Result]]:
    """The results of the same trial, of two models."""
    if len(found) < 2:
        return []
    one, other = ({result.name: result for result in evaluation.results} for evaluation in found.values())
    return [(result, other[name]) for name, result in one.items() if name in other]


def _record(manifest: Manifest, found: Mapping[str, Evaluation], seed: int) -> dict[str, Any]:
    import dataclasses

    from mmsearch.evaluate import compare
    from mmsearch.measures import CONFIDENCE, RESAMPLES

    return {
        "manifest": str(manifest.path),
        "seed": seed,
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "models": [
            {
                "model": name,
                "results": [result.as_dict(seed=seed) for result in evaluation.results],
                "notes": list(evaluation.notes),
            }
            for name, evaluation in found.items()
        ],
        "differences": {
            one.name: {
                measure: {key: value for key, value in dataclasses.asdict(figure).items() if key != "chance"}
                for measure, figure in compare(one, other, seed=seed).items()
            }
            for one, other in _pairs(found)
        },
    }


def _print(found: Mapping[str, Evaluation], seed: int) -> None:
    from rich.console import Console

    from mmsearch.cli.text import many

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, file=sys.stdout)
    others = {one.name: other for one, other in _pairs(found)}
    for number, (name, evaluation) in enumerate(found.items()):
        for result in evaluation.results:
            if number and result.name in others:
                continue
            other = others.get(result.name)
            queries = many(result.queries, "query").replace("querys", "queries")
            console.print(f"{result.name}: {queries}, {many(result.candidates, 'candidate')}", style="bold")
            for table in (_figures(name, result, other, list(found), seed), *_queries(result)):
                console.print(table)
                console.print()
    console.print(
        "Shares are per cent, in brackets 95 % intervals. Chance is what guessing comes to.", style="dim"
    )


def _figures(name: str, result: Result, other: Result | None, models: Sequence[str], seed: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from mmsearch.cli.text import safe
    from mmsearch.evaluate import compare

    table = Table("measure", box=SIMPLE_HEAD, show_edge=False)
    columns = [(name, result.figures(seed=seed))]
    if other is not None:
        columns += [(models[1], other.figures(seed=seed)), ("difference", compare(result, other, seed=seed))]
    for title, _ in columns:
        table.add_column(safe(title), justify="right")
    table.add_column("chance", justify="right")
    for measure in result.measures:
        chance = columns[0][1][measure].chance
        table.add_row(
            measure.replace("_", " "),
            *(_shown(measure, figures[measure], signed=title == "difference") for title, figures in columns),
            "" if chance is None else _number(measure, chance),
        )
    return table


def _shown(measure: str, figure: Figure, *, signed: bool) -> str:
    low, high = _number(measure, figure.low, signed), _number(measure, figure.high, signed)
    return f"{_number(measure, figure.value, signed)} [dim]({low} to {high})[/dim]"


def _number(measure: str, value: float, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign},.5g}" if measure in COUNTS else f"{100 * value:{sign}.1f}"


def _queries(result: Result) -> list[Table]:
    """What went worst, and what was slowest."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    def table(*columns: str) -> Table:
        made = Table(box=SIMPLE_HEAD, show_edge=False, header_style="dim")
        for column in columns:
            made.add_column(column, justify="right" if column in RIGHT else "left")
        return made

    tables = []
    if result.confusions:
        classes = table("least recognised", "of", "recall", "taken for", "times")
        for confusion in result.confusions[:SHOWN]:
            classes.add_row(
                _short(confusion.label),
                str(confusion.count),
                f"{100 * confusion.recall:.1f}",
                _short(confusion.taken_for),
                str(confusion.times),
            )
        tables.append(classes)
    if result.worst:
        worst = table("worst ranked", "rank", "right answer", "came first")
        for wrong in result.worst[:SHOWN]:
            worst.add_row(_short(wrong.query), f"{wrong.rank:,}", _short(wrong.wanted), _short(wrong.found))
        tables.append(worst)
    slow = table("slowest query", "encode ms", "search ms")
    for query in result.slowest[:SHOWN]:
        slow.add_row(_short(query.query), f"{query.encode_ms:.1f}", f"{query.search_ms:.1f}")
    return [*tables, slow]


RIGHT = frozenset({"of", "recall", "times", "rank", "encode ms", "search ms"})


def _short(text: str) -> str:
    """One cell: of a path (a query may hold one) its end, of a text its beginning."""
    from rich.markup import escape

    from mmsearch.cli.text import last, near, safe, snippet

    shown = last(safe(near(text)), WIDTH) if text.startswith("/") else snippet(text, (), WIDTH)
    return escape(shown)
