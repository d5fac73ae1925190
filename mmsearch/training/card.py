"""The card and the curves of a model that `mmsearch train` made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.training.finetune import Epoch

if TYPE_CHECKING:
    from mmsearch.evaluate import Figure
    from mmsearch.training.outcome import Change, Trained

SHOWN = ("recall@1", "recall@5", "recall@10", "median_rank")


def draw_curves(history: Sequence[Epoch], best: int, path: Path) -> None:
    """A PNG of loss and validation recall over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    loss, recall = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in history]
    for axes, values, title in (
        (loss, [epoch.loss for epoch in history], "loss"),
        (recall, [epoch.recall for epoch in history], "validation recall, %"),
    ):
        axes.plot(numbers, values, marker=".")
        axes.axvline(best, color="grey", linestyle=":", label=f"kept: epoch {best}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
    recall.legend()
    figure.savefig(path, dpi=100)


def write_card(trained: "Trained", path: Path) -> None:
    """Write ``MODEL_CARD.md``."""
    options = trained.options
    ran = f"{len(trained.history)} of at most {options.epochs} epochs"
    keeps = (
        f"It keeps the space `{trained.space}` of its base: collections made with the base can be searched with it."
        if options.only
        else f"Its space is `{trained.space}`: collections are to be indexed with it."
    )
    media = "\n".join(
        f"| distinct {modality}s | {train:,} | {validation:,} |"
        for modality, (train, validation) in trained.media.items()
    )
    left_out = f" {trained.left_out:,} rows of the split test were left out." if trained.left_out else ""
    rest = [] if options.only else trained.untrained
    untrained = (
        f"**The {' and '.join(rest)} tower was not trained**, and the others have moved away from it.\n\n"
        if rest
        else ""
    )
    fused = ""
    if trained.fusion:
        lines = [f"| {name} | {_shares(found)} |" for name, found in trained.fusion.items()]
        fused = f"""## One vector for an item

A fusion head ({options.fusion}) makes one vector of all media of an item; it was trained with media dropped at
random. How well the other texts of the validation items find them (R@1 / R@5 / R@10), fused from

| | |
|---|---|
{chr(10).join(lines)}

"""
    path.write_text(
        f"""# {trained.out.resolve().name}

`{trained.base}` with {trained.what}, made by `mmsearch train`. Everything else
is unchanged. {keeps}

Terms: {trained.licence}.

## Data

`{trained.table.name}`, {trained.rows:,} rows.{left_out} No photo, sound or group is on both sides.

| | train | validation |
|---|---|---|
| items | {trained.items[0]:,} | {trained.items[1]:,} |
{media}

## Training

{trained.loss}; AdamW, rate {options.rate:g}, decay {options.decay:g}; batches of
{options.batch:,} items, seed {options.seed}. {ran}. Epoch {trained.best} is kept, the
best by validation recall (the mean of R@1, R@5 and R@10 over all directions).

![loss and validation recall](curves.png)

## On the validation items

They chose the epoch, so these figures flatter the model a little.

{changes_table(trained.validation)}

## What it forgot

{untrained}The general set that comes with mmsearch, photos and sounds with captions:

{changes_table(trained.general)}

{fused}Shares are per cent; in brackets the 95 % interval of the paired bootstrap. A difference whose interval holds 0
may be chance.
""",
        "utf-8",
    )


def _shares(found: "Mapping[str, Figure]") -> str:
    return " / ".join(f"{100 * found[name].value:.1f}" for name in SHOWN[:3] if name in found)


def changes_table(changes: Mapping[str, Mapping[str, "Change"]]) -> str:
    """A Markdown table of the main measures: base, new, difference."""
    lines = ["| | | base | new | difference |", "|---|---|---|---|---|"]
    for direction, measures in changes.items():
        for name in SHOWN:
            if name in measures:
                cells = " | ".join(described(name, measures[name]))
                lines.append(f"| {direction} | {name.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


def described(name: str, change: "Change") -> tuple[str, str, str]:
    """Base, new and difference in words."""

    def number(value: float, sign: str = "") -> str:
        return f"{value:{sign}g}" if name == "median_rank" else f"{100 * value:{sign}.1f}"

    difference = change.difference
    interval = f"({number(difference.low, '+')} to {number(difference.high, '+')})"
    return number(change.base.value), number(change.new.value), f"{number(difference.value, '+')} {interval}"
