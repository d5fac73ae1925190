"""What the options of ``mmsearch train`` mean for the model at hand; those that do not go with it are an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmsearch.errors import ConfigError

if TYPE_CHECKING:
    from mmsearch.encoders.sources import Source
    from mmsearch.training.clip_learner import ClipOptions

__all__ = ["clip_options", "clip_source", "layers", "refuse"]


def layers(unfreeze: str | None) -> int | Literal["all"]:
    """What ``--unfreeze`` says. Raises ``ConfigError``."""
    if unfreeze == "all":
        return "all"
    if unfreeze is None:
        return 0
    if not unfreeze.isdecimal():
        raise ConfigError(f"--unfreeze {unfreeze}: give a number of layers or blocks, or all")
    return int(unfreeze)


def clip_source(model: str) -> Source | None:
    """The open_clip model of this name; None for any other.

    Raises ``ModelError`` if it is not on this machine, ``MissingExtra``.
    """
    from mmsearch.encoders.sources import find_source

    if (Path(model).expanduser() / "model.json").is_file() or (source := find_source(model)) is None:
        return None
    from mmsearch.encoders.open_clip import import_open_clip

    if not source.present:
        raise source.missing()
    import_open_clip()
    return source


def refuse(given: Mapping[str, object], why: str) -> None:
    """Raise ``ConfigError`` for options that do not go with the model."""
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(f"{', '.join(named)} cannot be used here: {why}")


def clip_options(
    head: str | None,
    layers: int | Literal["all"],
    *,
    lora: int,
    chunk: int | None,
    light: bool,
    rate: float | None,
    common: Mapping[str, Any],
) -> ClipOptions:
    """What ``mmsearch train`` was asked to do to an open_clip model. Raises ``ConfigError`` if it is two things."""
    from mmsearch.training.clip_learner import ClipOptions

    named = {"--head linear": head == "linear", "--lora": lora, "--unfreeze": layers}
    if sum(map(bool, named.values())) > 1:
        raise ConfigError(f"an open_clip model learns one thing at a time: give one of {', '.join(named)}")
    only_head = not lora and not layers
    if only_head:
        others = {"--chunk": chunk, "--checkpoint-activations": light}
        refuse(others, "nothing runs through the towers while a head learns")
    usual = 1e-3 if only_head else 5e-4 if lora else 1e-5
    return ClipOptions(
        head="linear" if only_head else None,
        lora=lora,
        unfreeze=0 if layers == "all" else layers,
        everything=layers == "all",
        chunk=chunk or 32,
        light=light,
        rate=usual if rate is None else rate,
        **common,
    )
