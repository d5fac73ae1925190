"""Options that several commands share, and how they open the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.config import Device, Precision, Settings, env_name, load_settings

if TYPE_CHECKING:
    from indexer.transfer import Header
    from mmsearch.engine import Engine

_HELP = {field.name: field.metadata["help"] for field in dataclasses.fields(Settings)}


def _option(name: str, metavar: str | None, about: str = "") -> Any:
    """The option of one setting, described by the table of settings."""
    setting = name.partition("/")[0]
    return typer.Option(
        f"--{name}",
        metavar=metavar,
        help=f"{about or _HELP[setting]} Variable: {env_name(setting)}.",
        show_default=False,
    )


Home = Annotated[Path | None, _option("home", "FOLDER")]
Collection = Annotated[str | None, _option("collection", "NAME")]
OnDevice = Annotated[Device | None, _option("device", "auto|cpu|cuda[:KIND]")]
Threads = Annotated[int | None, _option("threads", "N")]
InPrecision = Annotated[Precision | None, _option("precision", "auto|fp32|fp16|bf16")]
Compile = Annotated[bool | None, _option("compile/--no-compile", None)]
NewModel = Annotated[str | None, _option("model", "NAME|FOLDER")]
OtherModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help="Encode the query with another model of the same space. Not given: the collection's own.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def described(command: Callable[..., None]) -> str:
    """The docstring with its lines joined, so that help wraps to the terminal."""
    return "\n\n".join(" ".join(block.split()) for block in (command.__doc__ or "").split("\n\n"))


def has_catalog(home: Path | None) -> bool:
    """Whether there is a catalog in the home that flags and settings name."""
    from mmsearch.database import FILE_NAME

    return (load_settings(home=home).home / FILE_NAME).is_file()


def open_engine(
    home: Path | None,
    collection: str | None,
    *,
    model: str | None = None,
    device: Device | None = None,
    threads: int | None = None,
    precision: Precision | None = None,
    compile: bool | None = None,
    create: bool = False,
    fetch: bool = False,
    made_for: Header | None = None,
) -> Engine:
    """Open the collection that flags and settings name. ``fetch``: with a model whose files are fetched if need be.

    ``create`` makes a missing one with the model that they name, or the one that ``made_for``, an exported file, names.
    """
    from mmsearch.cli.text import note

    settings = load_settings(
        home=home,
        collection=collection,
        model=model,
        device=device,
        threads=threads,
        precision=precision,
        compile=compile,
    )
    from mmsearch.engine import Engine
    from mmsearch.errors import CollectionNotFound

    if settings.device.startswith("cuda"):
        from mmsearch.gpu import use_gpu

        use_gpu(settings.device)  # tells now, and not after an hour of encoding, that there is none

    def opened(model: str | None, create: bool) -> Engine:
        if fetch and model is not None:
            from mmsearch.cli.pull import fetch_missing

            fetch_missing(model, None if create else lambda: opened(None, False))
        return Engine.open(
            settings.home,
            collection=settings.collection,
            model=model,
            create=create,
            device=settings.device,
            threads=settings.threads,
            precision=settings.precision,
            compile=settings.compile,
            notice=note,
        )

    if not create:
        return opened(model, False)
    # The model of the settings is for new collections; one that exists is asked for another only by the flag.
    if has_catalog(home):
        try:
            return opened(model, False)
        except CollectionNotFound:
            pass
    if made_for is None:
        return opened(settings.model, True)
    from mmsearch.encoders import load_encoder
    from mmsearch.errors import ModelError, SpaceMismatch

    wanted = model or made_for.model
    try:
        space = load_encoder(wanted).space
    except ModelError as error:
        raise ModelError(f"{error}. The file was made with {made_for.model!r}: give --model") from error
    if space != made_for.space:  # told before an empty collection of the wrong space is made
        raise SpaceMismatch(
            f"the file holds vectors of {made_for.space.id!r}, model {wanted!r} maps into {space.id!r}"
        )
    return opened(wanted, True)
