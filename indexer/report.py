"""What an indexing run says: while it goes on and when it is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

__all__ = ["Listener", "Progress", "Report", "Skipped", "printable"]


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: ``done`` files of ``total`` (None while scanning: not known yet), the last one at ``path``."""

    stage: Literal["scan", "index"]
    done: int
    total: int | None
    path: str


Listener: TypeAlias = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was left out although it was asked for, and why. ``path`` is printable."""

    path: str
    reason: str


@dataclasses.dataclass(slots=True)
class Report:
    """What a run did, in files, or in products of a feed.

    ``copies`` of the added and updated ones had content that was known, and were not encoded; in ``transcribed`` ones
    what is said was written down; of ``attributes_only`` (products among the updated) nothing but attributes changed.
    ``notes`` are about what was indexed although something was odd. ``seconds``: scan (folders and comparison), read
    and decode (summed over threads; fetching too), encode (that of sounds too), commit, save; ``total`` on the clock.
    """

    added: int = 0
    updated: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    copies: int = 0
    transcribed: int = 0
    attributes_only: int = 0
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    notes: list[Skipped] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(("scan", "read", "decode", "encode", "commit", "save"), 0.0)
    )
    total: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; seconds rounded to milliseconds."""
        seconds = {stage: round(spent, 3) for stage, spent in self.seconds.items()}
        return dataclasses.asdict(self) | {"seconds": seconds, "total": round(self.total, 3)}


def printable(path: str) -> str:
    """``path`` with the bytes that are no UTF-8 in hexadecimal."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
