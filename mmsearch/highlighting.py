"""Where the words of a query are in an item: its title, and the stretch of its other texts that says most of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from mmsearch.fulltext import FullText
from mmsearch.shapes import Highlight
from mmsearch.types import Item, Part
from mmsearch.wording import Wording
from mmsearch.words import spans, stems, tied

SNIPPET = 200
"""So many characters of a text a highlight shows at most."""

COMMON = 0.25
"""Words of more than this share of the items, and those of one or two letters, tell nothing by themselves."""

_SENTENCE_ENDS = (". ", "! ", "? ", "\n")

Mark = tuple[int, int, int]
"""Start and end (characters) of a marked stretch, and the place of what it matches among the query's spans."""


@dataclasses.dataclass(frozen=True)
class Highlighter:
    """Marks the words of one query: as they were asked for, by their stem, corrected, begun, and their synonyms."""

    wording: Wording
    full_text: FullText

    def highlights(self, item: Item, best: int) -> tuple[Highlight, ...]:
        """Those of an item: of its title, and of one of its other texts; ``best`` is the id of the part that the hit
        names, which comes first among equals.
        """
        found = []
        if item.title and (marks := self._marks(item.title)):
            found.append(_highlight("title", item.title, marks))
        texts = [part for part in item.parts if part.text and part.text != item.title]
        texts.sort(key=lambda part: part.id != best)
        if stretches := [stretch for part in texts if (stretch := self._stretch(part)) is not None]:
            _, text, marks = max(stretches, key=lambda stretch: stretch[0])
            found.append(_highlight("text", text, marks))
        return tuple(found)

    @functools.cached_property
    def _wanted(self) -> dict[str, int]:
        """The place of the span that each stem is for."""
        wanted: dict[str, int] = {}
        for place, span in enumerate(self.wording.spans):
            codes = [code for asked in span.asked for code in asked.codes]
            for code in [*codes, *(code for other in span.instead for code in other)]:
                wanted.setdefault(self.full_text.stems[code], place)
        return wanted

    @functools.cached_property
    def _weights(self) -> list[float]:
        """What each span of the query tells: the less, the more items hold it."""
        return [
            max(
                (
                    self.full_text.ideal(self.full_text.frequency(code))
                    for asked in span.asked
                    for code in asked.codes
                ),
                default=self.full_text.ideal(0),
            )
            for span in self.wording.spans
        ]

    @functools.cached_property
    def _telling(self) -> frozenset[str]:
        """The stems that are marked wherever they are: all of them, if the query is made of others."""
        often = COMMON * self.full_text.documents
        codes = self.full_text.stems.codes
        some = frozenset(
            stem
            for stem in self._wanted
            if (len(stem) > 2 or not stem.isalpha())
            and self.full_text.frequency(codes[stem]) <= max(often, 1)
        )
        return some or frozenset(self._wanted)

    def _marks(self, text: str) -> list[Mark]:
        """The marked words of a text, in their order; common ones only in a row with others."""
        apart = list(_stemmed(spans(text)))
        whole = [(start, end, stem) for start, end, stem in _stemmed(tied(text)) if stem in self._wanted]
        if not whole and not any(stem in self._wanted for _, _, stem in apart):
            return []
        marks: list[Mark] = []
        run: list[tuple[int, int, str]] = []
        for start, end, stem in [*apart, (len(text) + 1, len(text) + 1, "")]:
            joined = (
                next((one for one in whole if one[0] <= start and end <= one[1]), None) if whole else None
            )
            if joined is not None:
                run += [joined] if joined not in run else []
            elif stem in self._wanted:
                run.append((start, end, stem))
            else:
                if any(one in self._telling for _, _, one in run):
                    marks += [(first, last, self._wanted[one]) for first, last, one in run]
                run = []
        return marks

    def _stretch(self, part: Part) -> tuple[float, str, list[Mark]] | None:
        """What the best stretch of a part's text tells, and it, cut between words, with its marks."""
        text = part.text or ""
        marks = self._marks(text)
        best, first, last = 0.0, 0, 0
        for n, (begin, until, _) in enumerate(marks):
            told, seen = 0.0, set[int]()
            for _, end, one in marks[n : n + SNIPPET]:
                if one not in seen and end <= begin + SNIPPET:
                    seen.add(one)
                    told, until = told + self._weights[one], end
            if (told, begin - until) > (best, first - last):
                best, first, last = told, begin, until
        if not best:
            return None
        start = _beginning(text, first, max(SNIPPET - (last - first), 0))
        end = min(start + SNIPPET, len(text))
        if end < len(text) and text[end].isalnum():
            end = max(text.rfind(" ", start, end), last)
        return (
            best,
            text[start:end],
            [(a - start, b - start, one) for a, b, one in marks if start <= a and b <= end],
        )


def _beginning(text: str, first: int, room: int) -> int:
    """Where a stretch begins that has its first mark at ``first`` and so much room before it: with a sentence if one
    begins there, else some words before.
    """
    if first <= room // 2:
        return 0
    low = first - room // 2
    sentence = max(
        text.rfind(end, low, first) + len(end) if end in text[low:first] else -1 for end in _SENTENCE_ENDS
    )
    if sentence >= 0:
        return sentence
    return text.find(" ", first - room // 4 - 1, first) + 1 or first


def _stemmed(found: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    known = stems([word for _, _, word in found])
    return ((start, end, stem) for (start, end, _), stem in zip(found, known, strict=True))


def _highlight(field: str, text: str, marks: Sequence[Mark]) -> Highlight:
    places = tuple((start, end) for start, end, _ in marks)
    return Highlight(field="title" if field == "title" else "text", text=text, spans=places)
