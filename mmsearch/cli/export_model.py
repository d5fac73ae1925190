"""``mmsearch models export``: an open_clip model as a model folder that needs no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mmsearch.cli.options import AsJson, Threads

if TYPE_CHECKING:
    from mmsearch.training.export_clip import Exported, Tower

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
NOT_AS_ASKED = 1


def export_model(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An open_clip model: a short or full name, or its folder.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="The folder to write. Not given: where the model is loaded from under its own name.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            metavar="fp32|fp16|int8",
            help="fp32 as torch computes; fp16 half the size; int8 a quarter of it and more than twice as fast.",
        ),
    ] = "fp32",
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="FOLDER",
            help="Pictures and .txt files (a text a line) of your own to measure the towers on as well.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Write the towers of an open_clip model as ONNX, after which indexing and search need no torch. Extra `clip`.

    Each tower is compared with torch on real photos and captions. One that int8 or fp16 would bend too far (smallest
    cosine below 0.99 or 0.999) is written in the next higher precision; that is told, and the exit code is 1.
    """
    from mmsearch.cli.text import json_line, note, say, size, write_bytes
    from mmsearch.config import load_settings
    from mmsearch.encoders.sources import find_source
    from mmsearch.errors import ModelError

    source = find_source(name)
    if source is None:
        raise ModelError(
            f"{name}: is no open_clip model. Give a name of `mmsearch models list`, or local-dir:/path"
        )
    if not source.present:
        raise source.missing()
    _need_onnx()
    from mmsearch.training.export_clip import export_model as export

    exported = export(
        source,
        out,
        precision=precision,
        inputs=inputs,
        threads=load_settings(threads=threads).threads,
        told=note,
    )
    if json:
        write_bytes([json_line(exported.as_dict())])
    else:
        for tower in exported.towers.values():
            weight = size((exported.out / tower.file).stat().st_size)
            say(f"{tower.file:<11} {_precision(tower)}, {weight}, smallest cosine {tower.smallest:.5f}")
        say(f"{exported.out}: a model of the space {exported.space}. Its card: MODEL_CARD.md")
    sys.stdout.flush()
    if not exported.as_asked:
        note(_complaint(exported))
        raise typer.Exit(NOT_AS_ASKED)


def _precision(tower: Tower) -> str:
    exact = f" ({tower.exact} of {tower.products} products left in fp32)" if tower.exact else ""
    return f"{tower.precision}{exact}"


def _complaint(exported: Exported) -> str:
    told = [
        f"the {name} tower is {tower.precision} and not {tower.asked} ({tower.refused[0]})"
        for name, tower in exported.towers.items()
        if tower.precision != tower.asked
    ]
    return "; ".join(told)


def _need_onnx() -> None:
    from importlib.util import find_spec

    from mmsearch.errors import MissingExtra

    if find_spec("onnx") is None:
        raise MissingExtra("exporting a model", "clip")
