"""``mmsearch models``: what encoders there are, what one is, how it gets here, and whether its files are whole."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import AsJson, described
from mmsearch.cli.pull import pull_model

if TYPE_CHECKING:
    from mmsearch.encoders.sources import Source

app = typer.Typer(help="List, describe, fetch and verify models.", no_args_is_help=True)
app.command("pull", help=described(pull_model))(pull_model)

Name = Annotated[
    str, typer.Argument(metavar="NAME|FOLDER", help="A name of `mmsearch models list` or a model folder.")
]


@app.command("list")
def list_models(json: AsJson = False) -> None:
    """List the built-in models and those worth fetching. A model folder is used by its path."""
    from mmsearch.cli.text import json_line, write_bytes

    rows = _built_in() + _public()
    if json:
        write_bytes(json_line(row) for row in rows)
    else:
        _table(rows)


@app.command("show")
def show_model(name: Name, json: AsJson = False) -> None:
    """Show what a model is: space, towers, files, licence, and its card; of a public one also its published recall."""
    from mmsearch.cli.text import json_line, write_bytes
    from mmsearch.encoders import model_files, model_folder

    source = model_files(name)
    if source is None:
        folder = model_folder(name)
        if json:
            write_bytes([json_line({"folder": str(folder), **manifest(folder)})])
        else:
            _show_folder(folder)
        return
    told = describe(source)
    exported = told["here"] == "exported"
    if json:
        write_bytes([json_line(told | ({"export": manifest(source.export)} if exported else {}))])
        return
    _show_source(told)
    if exported:
        from mmsearch.cli.text import say

        say()
        _show_folder(source.export)


@app.command("verify")
def verify_model(name: Name) -> None:
    """Check a model's files against their hashes, and its canonical vectors. Exit code 5 if something is wrong."""
    from mmsearch.cli.text import many, say
    from mmsearch.encoders import model_files, model_folder
    from mmsearch.encoders.onnx import verify
    from mmsearch.encoders.pull import check_pulled, pulled_files
    from mmsearch.errors import ModelError

    source = model_files(name)
    fetched = source is not None and bool(pulled_files(source.folder))
    folder = source.folder if source and fetched else model_folder(name)
    problems = check_pulled(folder) if fetched else verify(folder)
    if source and fetched and (source.export / "model.json").is_file():
        problems += verify(source.export)
    for problem in problems:
        say(problem)
    if problems:
        again = f"Fetch it again: mmsearch models pull {name}" if fetched else "Copy the model folder again."
        raise ModelError(f"{folder}: {many(len(problems), 'problem')}. {again}")
    what = "files" if fetched else "files and canonical vectors"
    say(f"{folder}: {what} are as they should be")
    sys.stdout.flush()


def describe(source: Source) -> dict[str, Any]:
    """What is known of an open_clip model, whether it is here or not."""
    from mmsearch.encoders.known import KNOWN
    from mmsearch.encoders.open_clip_config import read_config, space_id, weights_file

    told: dict[str, Any] = {"name": source.short, "source": source.name, "modalities": ["image", "text"]}
    known = next((known for known in KNOWN.values() if known.source == source.name), None)
    if known:
        told |= dataclasses.asdict(known) | {"download_bytes": known.download_bytes}
    told |= {"folder": str(source.folder), "here": _here(source)}
    if source.present:
        config = read_config(source)
        file = weights_file(source)
        told["dim"] = config["model_cfg"]["embed_dim"]
        told["space"] = space_id(source, config)
        told["weights"] = {"file": str(file), "bytes": file.stat().st_size}
    return told


def _here(source: Source) -> str:
    if (source.export / "model.json").is_file():
        return "exported"
    return "yes" if source.present else "no"


def manifest(folder: Path) -> dict[str, Any]:
    """The fields of a model folder's ``model.json``. Raises ``ModelError`` if it cannot be read."""
    import json

    from mmsearch.errors import ModelError

    path = folder / "model.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the model folder again.") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: is not a JSON object. Copy the model folder again.")
    return fields


def _towers(fields: dict[str, Any]) -> dict[str, Any]:
    """The towers of a model and those of its base that it has no own of."""
    from mmsearch.encoders import model_folder

    base = fields.get("base", {}).get("model")
    own: dict[str, Any] = fields.get("towers", {})
    return _towers(manifest(model_folder(base))) | own if base else own


def _summary(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": fields.get("version"),
        "description": fields.get("description"),
        "licence": fields.get("licence"),
        "space": fields.get("space"),
        "modalities": list(_towers(fields)),
    }


def _built_in() -> list[dict[str, Any]]:
    from mmsearch.encoders import BUILT_IN_MODELS

    folders = sorted(path.parent for path in BUILT_IN_MODELS.glob("*/model.json"))
    return [
        {"name": folder.name, "folder": str(folder), **_summary(manifest(folder)), "here": "built in"}
        for folder in folders
    ]


def _public() -> list[dict[str, Any]]:
    """The models of the table, and those that were fetched by another name."""
    from mmsearch.config import models_folder
    from mmsearch.encoders.known import KNOWN
    from mmsearch.encoders.pull import PULLED, pulled_files
    from mmsearch.encoders.sources import find_source

    listed = {known.source for known in KNOWN.values()}
    fetched = [pulled_files(path.parent).get("name") for path in sorted(models_folder().glob(f"*/{PULLED}"))]
    names = [*KNOWN, *(name for name in fetched if isinstance(name, str) and name not in listed)]
    return [describe(source) for name in names if (source := find_source(name)) is not None]


def _table(rows: list[dict[str, Any]]) -> None:
    """Within 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from mmsearch.cli.text import safe, say, size

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in ("name", "of", "dim", "params", "download", "recall", "licence", "here"):
        right = column in ("dim", "params", "download", "recall")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        known = "parameters" in row
        licence = str(row.get("licence") or "")
        table.add_row(
            safe(str(row["name"])),
            ", ".join(row["modalities"]),
            str(row["dim"] if "dim" in row else (row.get("space") or {}).get("dim", "")),
            f"{row['parameters'] / 1e6:,.0f} M" if known else "",
            size(row["download_bytes"]) if known else "",
            f"{row['coco']:.1f}" if row.get("coco") is not None else "",
            (safe(licence) if len(licence) <= 12 else "see card")
            + (" *" if row.get("research_only") else ""),
            str(row["here"]),
        )
    Console(
        highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 100
    ).print(table)
    say()
    say(
        "recall: how often the right one of 5,000 pictures of COCO comes first for a caption, as published, per cent"
    )
    say("*: for research only, no commercial use")
    say(
        "`mmsearch models show NAME` tells more; `mmsearch models pull NAME` fetches one, as `index --model NAME` does"
    )


def _show_folder(folder: Path) -> None:
    from mmsearch.cli.text import say, size

    fields = manifest(folder)
    say(f"name         {fields.get('name', folder.name)} {fields.get('version', '')}".rstrip())
    for key in ("description", "licence"):
        if fields.get(key):
            say(f"{key:<12} {fields[key]}")
    say(f"folder       {folder}")
    space = fields.get("space", {})
    say(f"space        {space.get('id')} ({space.get('dim')} dimensions)")
    for modality, tower in _towers(fields).items():
        files = fields.get("files", {}).get(tower.get("file"), {})
        weight = f", {size(files['bytes'])}" if "bytes" in files else ""
        trunk = tower.get("trunk", {})
        rest = f" on {trunk['file']} of the package {trunk['package']}" if trunk else ""
        rest = f" of {fields['base']['model']}" if modality not in fields["towers"] else rest
        say(
            f"{modality:<12} {tower.get('file')}{rest} ({tower.get('precision', 'unknown precision')}{weight})"
        )
    card = folder / "MODEL_CARD.md"
    if card.is_file():
        say(f"card         {card}")
        say()
        say(card.read_text("utf-8").rstrip())


def _show_source(told: dict[str, Any]) -> None:
    from mmsearch.cli.text import say, size

    def line(label: str, value: object) -> None:
        if value not in (None, ""):
            say(f"{label:<12} {value}")

    line("name", told["name"])
    line("source", told["source"])
    line("about", told.get("about"))
    research = " (for research only: no commercial use)" if told.get("research_only") else ""
    line("licence", told.get("licence") and f"{told['licence']}{research}")
    line("modalities", ", ".join(told["modalities"]))
    line("dimensions", told.get("dim"))
    if "parameters" in told:
        line("parameters", f"{told['parameters']:,}")
        line("recall", told["recall"] and f"{told['recall']} (per cent, text to picture)")
        line("published", told["published"])
        line("files from", f"{told['repo']} (about {size(told['download_bytes'])})")
    line("space", told.get("space"))
    line("folder", told["folder"])
    if "weights" in told:
        line("weights", f"{told['weights']['file']} ({size(told['weights']['bytes'])})")
    else:
        line("weights", f"not on this machine: mmsearch models pull {told['name']}")
