"""``mmsearch train``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmsearch.cli.options import Home, Threads, open_engine

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.tables import Row
    from mmsearch.training.adapt import Trained
    from mmsearch.training.finetune import Epoch

HeadName = Literal["linear", "mlp", "none"]
LossName = Literal["infonce", "sigmoid"]
FusionName = Literal["sum", "linear", "attention"]
Side = Literal["image", "text", "audio"]


def train(
    pairs: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PAIRS]",
            help="A .csv, .jsonl or .parquet file with columns image, text, audio, and maybe weight, split and group.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The model folder to write. Needed.")
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", metavar="NAME", help="Learn from the pictures of a collection and their titles."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|FOLDER",
            help="Base to start from. Not given: that of the settings, or mini.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FOLDER", help="Where the files lie. Not given: beside the pairs."),
    ] = None,
    only: Annotated[
        Side | None,
        typer.Option(
            "--only",
            metavar="image|text|audio",
            help="Train this tower towards the others, which stay: the space, and what was indexed in it, stay valid.",
        ),
    ] = None,
    head: Annotated[
        HeadName,
        typer.Option(
            "--head",
            metavar="linear|mlp|none",
            help="What is put behind the towers and trained; none only with --unfreeze.",
        ),
    ] = "linear",
    unfreeze: Annotated[
        int,
        typer.Option(
            "--unfreeze",
            metavar="N",
            min=0,
            help="Also train the last N layers of the towers. Slower; for more pairs.",
        ),
    ] = 0,
    loss: Annotated[
        LossName, typer.Option("--loss", metavar="infonce|sigmoid", help="The contrastive loss.")
    ] = "infonce",
    fusion: Annotated[
        FusionName | None,
        typer.Option(
            "--fusion",
            metavar="sum|linear|attention",
            help="Also train a head that makes one vector of all media of an item, also if some are missing.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="At most so many epochs.")] = 30,
    patience: Annotated[
        int,
        typer.Option(
            "--patience", metavar="N", min=1, help="Stop after so many epochs without a better recall."
        ),
    ] = 6,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=2, help="Items of a batch.")] = 256,
    rate: Annotated[
        float, typer.Option("--rate", metavar="RATE", min=0.0, help="Learning rate at its highest.")
    ] = 1e-3,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Draws validation groups and batches.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run in --out.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    threads: Threads = None,
    home: Home = None,
) -> None:
    """Train a better model for your own media, from pairs or from a collection with titles. Needs the extra `train`.

    What stands in one row belongs together. The result is a model folder for --model, with a card that tells what it
    gained on your validation items and what it forgot elsewhere.

    Every row that cannot be used is named before training starts.
    """
    from mmsearch.config import load_settings
    from mmsearch.errors import ConfigError

    if (pairs is None) == (collection is None):
        raise ConfigError("train on what? Give a file of pairs, or --collection NAME")
    if out is None:
        raise ConfigError("where to? Give --out FOLDER for the new model")
    if head == "none" and not unfreeze:
        raise ConfigError("nothing would be trained: give --head linear, --head mlp or --unfreeze N")
    _need_torch()
    settings = load_settings(home=home, model=model, threads=threads)
    from mmsearch.cli.progress import counting
    from mmsearch.encoders import model_folder
    from mmsearch.tables import read_table
    from mmsearch.training.adapt import train_model
    from mmsearch.training.dataset import make_dataset
    from mmsearch.training.finetune import Options
    from mmsearch.types import Modality

    if pairs is not None:
        table, rows = pairs, read_table(pairs)
    else:
        with open_engine(home, collection) as engine:
            table, rows = Path(engine.collection), list(_titled(engine))
        if not rows:
            raise ConfigError(f"collection {collection!r}: no picture has a title other than its file's name")
    dataset = make_dataset(table, rows, root=root or table.parent, seed=seed)
    options = Options(
        only=Modality(only) if only else None,
        head=None if head == "none" else head,
        unfreeze=unfreeze,
        loss=loss,
        fusion=fusion,
        epochs=epochs,
        patience=patience,
        batch=batch,
        rate=rate,
        seed=seed,
    )
    base = model_folder(settings.model or "mini")
    with counting("encoding") as show:
        trained = train_model(
            table,
            dataset,
            base,
            out.expanduser(),
            options,
            resume=resume,
            threads=settings.threads,
            encoding=show,
            epochs=_tell,
        )
    if json:
        from mmsearch.cli.text import json_line, write_bytes

        write_bytes([json_line(trained.as_dict())])
    else:
        _summary(trained)


def _need_torch() -> None:
    from mmsearch.errors import MissingExtra

    try:
        import matplotlib  # noqa: F401
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra("training", "train") from error


def _titled(engine: Engine) -> Iterator[Row]:
    """The pictures of a collection that have a title of their own, as rows."""
    from mmsearch.tables import Row
    from mmsearch.types import Modality

    for item in engine.items():
        if item.modality is Modality.IMAGE and item.path and item.title:
            path = Path(item.path)
            if item.title not in (path.name, path.stem):
                yield Row(f"item {item.id}", {"image": item.path, "text": item.title})


def _tell(epoch: Epoch) -> None:
    from mmsearch.cli.text import note

    best = " (best)" if epoch.best else ""
    note(f"epoch {epoch.number}: loss {epoch.loss:.3f}, validation recall {epoch.recall:.1f} %{best}")


def _summary(trained: Trained) -> None:
    from mmsearch.cli.text import note, say
    from mmsearch.training.card import SHOWN, described

    width = max(len(name) for name in (*trained.validation, *trained.general))
    for title, changes in (
        ("validation items", trained.validation),
        ("general set: what it forgot", trained.general),
    ):
        say(f"{title:<{width + 13}} {'base':>6} {'new':>6}  difference (95 %)")
        for direction, measures in changes.items():
            for name in SHOWN:
                if name in measures:
                    base, new, difference = described(name, measures[name])
                    say(f"{direction:<{width}} {name.replace('_', ' '):<12} {base:>6} {new:>6}  {difference}")
    for name, figures in trained.fusion.items():
        say(f"items fused from {name}: other texts find them, recall@1 {100 * figures['recall@1'].value:.1f}")
    for modality in () if trained.options.only else trained.untrained:
        note(
            f"the pairs have no {modality}: its tower was not trained, and the others have moved away from it"
        )
    say(f"{trained.out}: a model of the space {trained.space}, epoch {trained.best}. Its card: MODEL_CARD.md")
    sys.stdout.flush()
