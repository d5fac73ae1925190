"""``mmsearch bridge``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.options import AsJson, Threads

if TYPE_CHECKING:
    from mmsearch.training.bridge import Bridged


def bridge(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME|FOLDER", help="The model that is to hear. Needed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The model folder to write. Needed.")
    ] = None,
    audio: Annotated[
        str,
        typer.Option(
            "--audio",
            metavar="NAME|FOLDER|clap:NAME|clap:FOLDER",
            help="Where the sound tower is from. clap: a LAION-CLAP model on this machine (extra `clap`), such as "
            "clap:laion/clap-htsat-unfused.",
        ),
    ] = "mini",
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            metavar="builtin|FILE",
            help="Texts to learn from: one a line of a .txt, or the column text of a .csv, .jsonl or .parquet.",
        ),
    ] = "builtin",
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Draws the held-out texts, batches and noise.")
    ] = 0,
    json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Give a model of photos and texts a sound tower, from texts alone. Needs the extra `train`.

    The result is a model folder in the space of --model, whose photo and text towers it keeps: index sounds with it,
    and search by sound what --model has indexed.
    """
    from mmsearch.config import load_settings
    from mmsearch.errors import ConfigError

    if model is None:
        raise ConfigError("what is to hear? Give --model NAME or FOLDER")
    if out is None:
        raise ConfigError("where to? Give --out FOLDER for the new model")
    threads = load_settings(threads=threads).threads
    from mmsearch.training.clap_files import PREFIX, find_clap

    if audio.startswith(PREFIX):
        find_clap(audio.removeprefix(PREFIX))  # told before torch is loaded, which takes seconds
    _need_torch()
    from mmsearch.cli.progress import counting
    from mmsearch.training.bridge import Options, bridge_model
    from mmsearch.training.corpus import read_corpus

    texts = read_corpus(corpus)
    with counting("encoding texts") as show:
        bridged = bridge_model(
            audio, model, corpus, texts, out.expanduser(), Options(seed=seed), threads=threads, progress=show
        )
    if json:
        from mmsearch.cli.text import json_line, write_bytes

        write_bytes([json_line(bridged.as_dict())])
    else:
        _summary(bridged)


def _need_torch() -> None:
    from mmsearch.errors import MissingExtra

    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401

        import mmsearch.training.corpus  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a bridge", "train") from error


def _summary(bridged: Bridged) -> None:
    from mmsearch.cli.text import say
    from mmsearch.training.bridge_card import SHOWN, by_chance, described

    found, _ = bridged.found
    learnt, held = bridged.texts
    say(f"learnt from {learnt:,} texts; of {held:,} others {100 * found:.1f} % are nearest to themselves")
    say(f"{'general set of sounds':<25} {'value (95 %)':<24} chance")
    for direction, measures in bridged.general.items():
        for name in SHOWN:
            if name in measures:
                value, guess = described(name, measures[name]), by_chance(name, measures[name])
                say(f"{direction:<12} {name.replace('_', ' '):<12} {value:<24} {guess}")
    say(f"{bridged.out}: a model of the space {bridged.space}. Its card: MODEL_CARD.md")
    sys.stdout.flush()
