"""The card of a model that `mmsearch bridge` made."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.evaluate import Figure
    from mmsearch.training.bridge import Bridged

SHOWN = ("recall@1", "recall@5", "median_rank")


def write_card(bridged: "Bridged", path: Path) -> None:
    """Write ``MODEL_CARD.md``."""
    options = bridged.options
    learnt, held = bridged.texts
    found, chance = bridged.found
    run = f"{options.epochs} epochs, batches of {options.batch:,}, rate {options.rate:g}, noise {options.noise:g}"
    run += f", seed {options.seed}"
    rows = "\n".join(
        f"| {direction} | {name.replace('_', ' ')} | {described(name, measures[name])} "
        f"| {by_chance(name, measures[name])} |"
        for direction, measures in bridged.general.items()
        for name in SHOWN
        if name in measures
    )
    path.write_text(
        f"""# {bridged.out.resolve().name}

`{bridged.target}` with the sound tower of `{bridged.audio}`, made by `mmsearch bridge`. Its other towers are those of
`{bridged.target}`, and so is its space, `{bridged.space}`: what was indexed with that model stays valid.

Terms: {bridged.licence}.

## How it was learnt

From texts alone: no recording and no picture was seen. The text towers of both spaces encoded {learnt:,} texts
(`{bridged.corpus}`). A linear map from the one to the other, fitted by least squares and then by a contrastive loss
({run}), stands behind the
sound tower. Sounds are centred on their own mean first, texts were centred on theirs.

## How good it is

Of {held:,} held-out texts put over the bridge, {100 * found:.1f} % are nearest to themselves (chance
{100 * chance:.1f} %). That says how well texts cross. Sounds lie beside the texts, not
among them, and lose more: the general set that comes with mmsearch has a few of them, each with two captions.

| | | value (95 %) | chance |
|---|---|---|---|
{rows}

Measure it on recordings of your own: `mmsearch eval`.
""",
        "utf-8",
    )


def described(name: str, figure: "Figure") -> str:
    """Value and interval in words."""
    return f"{_number(name, figure.value)} ({_number(name, figure.low)} to {_number(name, figure.high)})"


def by_chance(name: str, figure: "Figure") -> str:
    """What guessing gives, in words."""
    return "" if figure.chance is None else _number(name, figure.chance)


def _number(name: str, value: float) -> str:
    return f"{value:g}" if name == "median_rank" else f"{100 * value:.1f}"
