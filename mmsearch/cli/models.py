"""``mmsearch models``: what encoders there are, what one is, and whether its files are whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.options import AsJson

app = typer.Typer(help="List, describe and verify models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A built-in name or a model folder.")]


@app.command("list")
def list_models(json: AsJson = False) -> None:
    """List the built-in models. A model folder is used by its path."""
    from mmsearch.cli.text import json_line, say, write_bytes
    from mmsearch.encoders import BUILT_IN_MODELS

    for folder in sorted(path.parent for path in BUILT_IN_MODELS.glob("*/model.json")):
        fields = manifest(folder)
        if json:
            write_bytes([json_line({"name": folder.name, "folder": str(folder), **_summary(fields)})])
        else:
            towers = ", ".join(sorted(_towers(fields)))
            say(f"{folder.name:<17} {towers:<19} {fields.get('description', '')}")


@app.command("show")
def show_model(name: Name, json: AsJson = False) -> None:
    """Show what a model is: space, towers, files, licence, and its card."""
    from mmsearch.cli.text import json_line, say, size, write_bytes
    from mmsearch.encoders import model_folder

    folder = model_folder(name)
    fields = manifest(folder)
    if json:
        write_bytes([json_line({"folder": str(folder), **fields})])
        return
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


@app.command("verify")
def verify_model(name: Name) -> None:
    """Check a model's files against their hashes, and its canonical vectors. Exit code 5 if something is wrong."""
    from mmsearch.cli.text import many, say
    from mmsearch.encoders import model_folder
    from mmsearch.encoders.onnx import verify
    from mmsearch.errors import ModelError

    folder = model_folder(name)
    problems = verify(folder)
    for problem in problems:
        say(problem)
    if problems:
        raise ModelError(f"{folder}: {many(len(problems), 'problem')}. Copy the model folder again.")
    say(f"{folder}: files and canonical vectors are as they should be")
    sys.stdout.flush()


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
