"""From the arguments of ``mmsearch search`` to a ``Query``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsearch.errors import QueryError
from mmsearch.types import Modality, Query, Term

_WEIGHTED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)):(.*)", re.DOTALL)


def weighted(text: str) -> tuple[float, str]:
    """Split ``NUMBER:TEXT`` into weight and text; a text without a weight has 1.

    A text that begins with a number and a colon itself is written with a weight: ``1:10:30 at night``.

    Raises ``QueryError`` if the weight is not above zero or the text is empty.
    """
    found = _WEIGHTED.fullmatch(text.strip())
    weight, words = (float(found[1]), found[2]) if found else (1.0, text)
    if not words.strip():
        raise QueryError(f"{text!r}: a text is missing. Write a text, or NUMBER:TEXT to give it a weight")
    if not weight > 0:
        raise QueryError(f"{text!r}: the weight must be above 0. To steer away from a text use --subtract")
    return weight, words.strip()


def _file(name: str) -> Path | str:
    return name if name.startswith(("http://", "https://")) else Path(name).expanduser()


def spoken(source: str) -> str:
    """The words of a recording, told on stderr. Raises ``MediaError`` if there are none, ``MissingExtra``."""
    from mmsearch.cli.text import note
    from mmsearch.encoders.voice import Transcriber

    words = Transcriber().words(sys.stdin.buffer.read() if source == "-" else _file(source))
    note(f"heard: {words}")
    return words


def build_query(
    words: Sequence[str],
    images: Sequence[str] = (),
    sounds: Sequence[str] = (),
    likes: Sequence[int] = (),
    added: Sequence[str] = (),
    subtracted: Sequence[str] = (),
    *,
    k: int = 10,
    modality: str | None = None,
    path: str | None = None,
    where: str | None = None,
    hybrid: bool = False,
    min_score: float | None = None,
) -> Query:
    """The query of one command line. The sound ``-`` is read from standard input.

    Raises ``QueryError`` if there is nothing to search for.
    """
    if sounds.count("-") > 1:
        raise QueryError("--audio - reads standard input, which can be read only once")

    def terms() -> Iterator[Term]:
        if text := " ".join(words).strip():
            yield Term(text=text)
        for image in images:
            yield Term(image=_file(image))
        for sound in sounds:
            yield Term(audio=sys.stdin.buffer.read() if sound == "-" else _file(sound))
        for item in likes:
            yield Term(item=item)
        for text in added:
            weight, text = weighted(text)
            yield Term(text=text, weight=weight)
        for text in subtracted:
            weight, text = weighted(text)
            yield Term(text=text, weight=-weight)

    found = list(terms())
    if not any(term.weight > 0 for term in found):
        raise QueryError(
            "the query is empty: give words, --image PATH, --audio FILE, --like ID or --add TEXT"
            if not found
            else "a query needs something to look for beside --subtract: give words, --image, --audio, --like or "
            "--add"
        )
    return Query(
        terms=found,
        k=k,
        modality=Modality(modality) if modality else None,
        where=where,
        path=path,
        hybrid=hybrid,
        min_score=min_score,
    )
