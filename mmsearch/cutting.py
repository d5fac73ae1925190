"""Cutting a text into parts of a few sentences, and a recording into parts of a few seconds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PART_TOKENS = 120
"""Largest size of a part: about 90 English words, which the context of 128 tokens of a sentence encoder holds."""

SILENCE = 10 ** (-45 / 20)
"""A moment whose level is below this share of the loudest one (45 dB under it) is silence."""

# One match is about one token of a WordPiece vocabulary: pieces of words, digits, signs, letters of other scripts.
_TOKEN = re.compile(r"[A-Za-z]{1,6}|[^\W_]|[^\w\s]|_")

_SENTENCE = re.compile(
    r"""
    [.!?\u2026]+ ["'\u201d\u2019\u00bb)\]]* (?=\s)     # Latin, Greek, Cyrillic: before a blank
    | [\u061f\u06d4\u0964\u0965\u0589]+ (?=\s)          # Arabic, Urdu, Devanagari, Armenian
    | [\u3002\uff01\uff1f\uff61]+ [\u300d\u300f\u201d\u2019\uff09]*   # Chinese, Japanese: no blank follows
    | \n[^\S\n]*\n\s*                                # a blank line
    """,
    re.VERBOSE,
)


@dataclasses.dataclass(slots=True)
class _Piece:
    """Where a sentence (or a heading and its first sentence) stands, its size, and whether a paragraph ends there."""

    start: int
    end: int
    tokens: int
    ends_paragraph: bool


def cut(text: str) -> list[tuple[int, int]]:
    """(start, end) of the parts of a text: whole sentences, evenly filled, each at most ``PART_TOKENS`` tokens by
    estimate. What is between the parts is blank; a text without any letter or digit has no parts.
    """
    if not any(character.isalnum() for character in text):
        return []
    pieces = _pieces(text)
    total = sum(piece.tokens for piece in pieces)
    even = total / -(-total // (0.8 * PART_TOKENS))
    parts: list[tuple[int, int]] = []
    size = before = 0
    new_paragraph = False
    for piece in pieces:
        # A part ends at the border that is nearest to its even share, a little earlier where a paragraph ends.
        reached = before + piece.tokens / 2 + (0.3 * even if new_paragraph else 0)
        if not parts or size + piece.tokens > PART_TOKENS or reached > len(parts) * even:
            parts.append((piece.start, piece.end))
            size = 0
        parts[-1] = (parts[-1][0], piece.end)
        size += piece.tokens
        before += piece.tokens
        new_paragraph = piece.ends_paragraph
    return parts


def _pieces(text: str) -> list[_Piece]:
    """The sentences of a text, the over-long ones in pieces, headings together with what follows them."""
    pieces: list[_Piece] = []
    heading = False
    for start, end, ends_paragraph in _sentences(text):
        for piece in _shorten(text, start, end):
            if heading and pieces[-1].tokens + piece.tokens <= PART_TOKENS:
                last = pieces[-1]
                pieces[-1] = _Piece(last.start, piece.end, last.tokens + piece.tokens, False)
            else:
                pieces.append(piece)
            heading = False
        pieces[-1].ends_paragraph = ends_paragraph
        heading = ends_paragraph and pieces[-1].tokens <= 12 and text[end - 1].isalnum()
    return pieces


def _sentences(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, ends a paragraph) of what stands between two ends of sentences, blanks at its ends left off."""
    start = 0
    for match in [*_SENTENCE.finditer(text), None]:
        blank_line = match is None or match[0].isspace()
        end = len(text) if match is None else match.start() if blank_line else match.end()
        found = text[start:end]
        if stripped := found.strip():
            first = start + len(found) - len(found.lstrip())
            yield first, first + len(stripped), blank_line
        start = len(text) if match is None else match.end()


def _shorten(text: str, start: int, end: int) -> Iterator[_Piece]:
    """A sentence in pieces of at most ``PART_TOKENS``: cut after a comma, else at a blank, else anywhere."""
    tokens = [match.start() for match in _TOKEN.finditer(text, start, end)]
    first = 0
    while len(tokens) - first > PART_TOKENS:
        candidates = range(first + PART_TOKENS, first + PART_TOKENS // 2, -1)
        last = next(
            (
                i
                for i in candidates
                if re.search(r"[,;:\u2014\u3001\uff0c]\s*\Z", text[tokens[i - 1] : tokens[i]])
            ),
            next((i for i in candidates if text[tokens[i] - 1].isspace()), first + PART_TOKENS),
        )
        yield _Piece(
            start, tokens[last - 1] + len(text[tokens[last - 1] : tokens[last]].rstrip()), last - first, False
        )
        start, first = tokens[last], last
    yield _Piece(start, end, len(tokens) - first, False)


def cut_sound(levels: NDArray[np.float32], longest: int, hop: int) -> list[tuple[int, int]]:
    """(start, end) of the parts of a recording, in frames: each at most ``longest``, one every ``hop``, beginning and
    ending with a sound. What is in no part is silence; a recording without any sound has no parts.

    ``levels`` (frames,) says how loud each frame is.
    """
    loud = np.flatnonzero(levels > SILENCE * levels.max(initial=0))
    parts: list[tuple[int, int]] = []
    place = beyond = 0
    while beyond < len(loud):
        start = int(loud[place])
        if (
            reached := int(np.searchsorted(loud, start + longest))
        ) == beyond:  # nothing that the last part has not
            place = beyond
            continue
        beyond = reached
        parts.append((start, int(loud[beyond - 1]) + 1))
        place = int(np.searchsorted(loud, start + min(hop, longest)))
    return parts
