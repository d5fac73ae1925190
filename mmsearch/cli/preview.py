"""Pictures in the terminal: kitty's protocol, sixel (which iTerm2, WezTerm, foot and others speak), or half blocks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mmsearch.types import Modality

if TYPE_CHECKING:
    from rich.console import Console

    from mmsearch.types import Item

ROWS = 16
COLUMNS = 60
_CELL = 0.5  # a terminal's cell is about twice as high as wide


def draw(console: Console, item: Item) -> None:
    """Draw the picture of an item that is a picture file; what cannot be drawn is said in its place."""
    if item.modality is not Modality.IMAGE or item.path is None:
        return
    from pathlib import Path

    from mmsearch.cli.text import safe
    from mmsearch.errors import MediaError
    from mmsearch.media import load_image

    if not sys.stdin.isatty():
        # The library asks the terminal what it can draw and reads the answer from stdin. Without a terminal
        # there it must not ask: half blocks need no answer.
        setattr(sys, "__stdin__", None)  # noqa: B010 - declared final
    from textual_image.renderable import Image

    try:
        picture = load_image(Path(item.path), min_side=400)
    except MediaError as error:
        console.print(f"   ({safe(error.reason)})", style="dim", markup=False)
        return
    wide = picture.width / picture.height > COLUMNS * _CELL / ROWS
    columns = min(COLUMNS, console.width - 1)
    console.print(
        Image(picture, width=columns, height="auto") if wide else Image(picture, width="auto", height=ROWS)
    )
