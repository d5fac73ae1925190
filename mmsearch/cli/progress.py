"""How far a long command is: a bar on a terminal, elsewhere a plain line now and then. Both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmsearch.cli.text import duration, note

SECONDS_BETWEEN_LINES = 5.0

Counter = Callable[[int, int], None]
"""Called with the number done so far, and of all."""


@contextmanager
def counting(what: str) -> Iterator[Counter]:
    """Show how much of ``what`` is done while the block runs."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich import progress as drawn
    from rich.console import Console

    bar = drawn.Progress(
        drawn.TextColumn("{task.description}"),
        drawn.BarColumn(bar_width=None),
        drawn.MofNCompleteColumn(),
        drawn.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Counter:
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES or not done:
            return
        last = now
        left = duration((now - started) / done * (total - done))
        note(f"{what}: {done:,} of {total:,}, {left} left")

    return show
