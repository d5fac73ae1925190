"""The card of an exported model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.training.export_clip import Exported

ABOUT = {
    "fp32": "float32",
    "fp16": "weights in float16, computed in float32",
    "int8": "products of matrices in int8, scaled by row and output channel",
}


def card(exported: "Exported", gate: Mapping[str, float]) -> str:
    """``MODEL_CARD.md``: where it comes from, how near each tower is to torch, what was refused."""
    lines, notes = [], []
    for name, tower in exported.towers.items():
        exact = f", {tower.exact} of {tower.products} left in float32" if tower.exact else ""
        lines.append(
            f"| {name} | {ABOUT[tower.precision]}{exact} | {tower.inputs} | {tower.smallest:.5f} | {tower.mean:.5f} |"
        )
        if tower.precision != tower.asked:
            notes.append(f"The {name} tower was to be {tower.asked} and is {tower.precision}.")
        notes += [f"Refused for the {name} tower: {reason}." for reason in tower.refused]
    refused = "\n\n".join(notes)
    return f"""# {exported.model}

The towers of `{exported.model}` as ONNX graphs, written by `mmsearch models export`. The space is
`{exported.space}` ({exported.dim} dimensions): collections that were made with the model in torch can be searched with
this, and the other way round.

Terms: {exported.licence}.

## How near it is to torch

Cosines to the vectors that torch gives in float32, on real photos and captions and on the canonical inputs; a tower
is written only if the smallest is at least {gate["fp32"]} (fp32), {gate["fp16"]} (fp16) or {gate["int8"]} (int8).

| tower | precision | inputs | smallest cosine | mean cosine |
|---|---|---|---|---|
{chr(10).join(lines)}

{refused}

## Scores

`nothing_below`, means and spreads, which rank several kinds of items in one list, were measured on the general set
that comes with mmsearch: 64 photos with their captions. So few tell them roughly; `mmsearch eval` tells how good the
model is on your own media.
"""
