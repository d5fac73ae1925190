"""``mmsearch train``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from mmsearch.cli.options import Home, Threads, open_engine
from mmsearch.cli.train_options import clip_options, clip_source, layers, refuse

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.tables import Row
    from mmsearch.training.clip_learner import ClipOptions
    from mmsearch.training.finetune import Epoch, Options
    from mmsearch.training.outcome import Trained

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
        HeadName | None,
        typer.Option(
            "--head",
            metavar="linear|mlp|none",
            help="What is put behind the towers and trained: linear, if nothing else is asked for. mlp is for ONNX "
            "models; none only with --unfreeze or --lora.",
            show_default=False,
        ),
    ] = None,
    unfreeze: Annotated[
        str | None,
        typer.Option(
            "--unfreeze",
            metavar="N|all",
            help="Train the last N layers of the towers; of open_clip models the last N blocks, or all. Slower; for "
            "more pairs.",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            "--lora",
            metavar="RANK",
            min=1,
            help="Train low-rank changes of the blocks of an open_clip model, such as 8.",
            show_default=False,
        ),
    ] = None,
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
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            metavar="N",
            min=1,
            help="Of a batch so many go through the towers of an open_clip model at a time; all others stay negatives. "
            "Less memory. Not given: 32.",
            show_default=False,
        ),
    ] = None,
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations",
            help="Keep less of an open_clip model's blocks in memory and run them twice.",
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="RATE",
            min=0.0,
            help="Learning rate at its highest. Not given: 0.001; 0.0005 with --lora, and 0.00001 where --unfreeze "
            "trains an open_clip model.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Draws validation groups and batches.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run in --out.")
    ] = False,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="Also export the new open_clip model, so that searching with it needs no torch."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    threads: Threads = None,
    home: Home = None,
) -> None:
    """Train a better model for your own media, from pairs or from a collection with titles. Needs the extra `train`,
    for open_clip models also `clip`.

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
    deep = layers(unfreeze)
    if head == "none" and not deep and not lora:
        raise ConfigError(
            "nothing would be trained: give --head linear, --head mlp, --lora RANK or --unfreeze N"
        )
    _need_torch()
    settings = load_settings(home=home, model=model, threads=threads)
    from mmsearch.cli.progress import counting
    from mmsearch.tables import read_table
    from mmsearch.training.dataset import make_dataset
    from mmsearch.types import Modality

    base = settings.model or "mini"
    source = clip_source(base)
    common: dict[str, Any] = {
        "only": Modality(only) if only else None,
        "loss": loss,
        "epochs": epochs,
        "patience": patience,
        "batch": batch,
        "seed": seed,
    }
    options: Options | ClipOptions
    if source is None:
        others: dict[str, object] = {
            "--lora": lora,
            "--unfreeze all": deep == "all",
            "--chunk": chunk,
            "--onnx": onnx,
        }
        refuse(others | {"--checkpoint-activations": checkpoint_activations}, f"{base} is no open_clip model")
        from mmsearch.training.finetune import Options

        options = Options(
            head=None if head == "none" else head or "linear",
            unfreeze=int(deep),
            fusion=fusion,
            rate=1e-3 if rate is None else rate,
            **common,
        )
    else:
        others = {"--head mlp": head == "mlp", "--fusion": fusion, "--only audio": only == "audio"}
        refuse(others, f"{base} is an open_clip model")
        options = clip_options(
            head,
            deep,
            lora=lora or 0,
            chunk=chunk,
            light=checkpoint_activations,
            rate=rate,
            common=common,
        )
    if pairs is not None:
        table, rows = pairs, read_table(pairs)
    else:
        with open_engine(home, collection) as engine:
            table, rows = Path(engine.collection), list(_titled(engine))
        if not rows:
            raise ConfigError(f"collection {collection!r}: no picture has a title other than its file's name")
    dataset = make_dataset(table, rows, root=root or table.parent, seed=seed)
    with counting("encoding") as show:
        given: dict[str, Any] = {
            "resume": resume,
            "threads": settings.threads,
            "encoding": show,
            "epochs": _tell,
        }
        if source is None:
            from mmsearch.encoders import model_folder
            from mmsearch.training.adapt import train_model

            trained = train_model(table, dataset, model_folder(base), out.expanduser(), options, **given)
        else:
            from mmsearch.training.clip_tuning import tune_clip

            trained = tune_clip(
                table,
                dataset,
                source,
                out.expanduser(),
                cast("ClipOptions", options),
                onnx=onnx,
                device=settings.device,
                **given,
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
