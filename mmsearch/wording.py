"""What the words of a query stand for in a collection: stems, corrections, beginnings, synonyms; and their scores."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.fulltext import FullText
from mmsearch.shapes import Correction, Synonym
from mmsearch.words import stems, words

Stems = tuple[str, ...]

TYPO_WEIGHT = 0.8
"""What a match counts for each edit between it and the word that was asked for: 0.8, 0.64."""

PREFIX_WEIGHT = 0.7
"""What a match counts of which only the beginning was asked for."""

_CORRECTIONS = 3  # so many corrections of one word are searched at most
_ENDINGS = 40  # so many words with a beginning


def edits_allowed(word: str) -> int:
    """How many edits a word may be away from one of the collection: none up to 3 letters, 1 up to 7, else 2."""
    return 0 if len(word) < 4 else 1 if len(word) < 8 else 2


@dataclasses.dataclass(frozen=True)
class Asked:
    """One word of the query: what it may be in the collection, by code of the stem, and how much each counts."""

    word: str
    codes: Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Span:
    """Some words of the query in a row, and synonyms for them: codes that must all be there, with their weight."""

    asked: Sequence[Asked]
    instead: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True)
class Wording:
    """The words of a query as a collection knows them."""

    spans: Sequence[Span]
    corrections: Sequence[Correction]

    def scores(self, full_text: FullText, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """BM25 of each item row (n,), 0 where no word is; and which rows hold every word.

        A word counts as the best of what it may be; a synonym of several words where all of them are.
        """
        total, every = np.zeros(n), np.full(n, bool(self.spans))
        for span in self.spans:
            found, all_here = np.zeros(n), np.ones(n, np.bool_)
            for asked in span.asked:
                score = _best(full_text, asked.codes, n)
                found += score
                all_here &= score > 0
            for codes in span.instead:
                pieces = [_best(full_text, {code: 1.0}, n) for code in codes]
                whole = np.sum(pieces, axis=0)
                whole[np.min(pieces, axis=0) == 0] = 0
                np.maximum(found, whole, out=found)
                all_here |= whole > 0
            total += found
            every &= all_here
        return total, every

    def ideal(self, full_text: FullText) -> float:
        """What an item of the usual length scores whose title holds every word once."""
        return sum(
            max((weight * full_text.ideal(code) for code, weight in asked.codes.items()), default=0.0)
            for span in self.spans
            for asked in span.asked
        ) or max(
            (sum(map(full_text.ideal, codes)) for span in self.spans for codes in span.instead), default=0.0
        )

    @functools.cached_property
    def codes(self) -> frozenset[int]:
        """All stems that count."""
        found = {code for span in self.spans for asked in span.asked for code in asked.codes}
        return frozenset(found.union(*(codes for span in self.spans for codes in span.instead)))


def _best(full_text: FullText, codes: Mapping[int, float], n: int) -> NDArray[np.float64]:
    found = np.zeros(n)
    for code, weight in codes.items():
        rows, scores = full_text.scores(code)
        found[rows] = np.maximum(found[rows], weight * scores)
    return found


def understood(
    text: str,
    full_text: FullText,
    *,
    typos: bool = True,
    prefix: bool = False,
    synonyms: Mapping[Stems, Sequence[Stems]] | None = None,
) -> Wording:
    """The words of a query.

    ``prefix``: the last word may be the beginning of one, unless something follows it. ``synonyms``: see
    ``synonym_table``.
    """
    said = words(text)
    stemmed = stems(said)
    beginning = len(said) - 1 if prefix and text[-1:].isalnum() else -1
    asked: list[Asked] = []
    corrections: list[Correction] = []
    for place, (word, stem) in enumerate(zip(said, stemmed, strict=True)):
        codes: dict[int, float] = {}
        code = full_text.stems.codes.get(stem)
        if code is not None and full_text.frequency(code):
            codes[code] = 1.0
        if place == beginning:
            for code in _endings(word, full_text):
                codes.setdefault(code, PREFIX_WEIGHT)
        if not codes and typos and (near := corrected(word, full_text)):
            codes = {full_text.surfaces[other]: TYPO_WEIGHT**away for other, away in reversed(near)}
            corrections.append(Correction(word=word, used=tuple(other for other, _ in near)))
        asked.append(Asked(word, codes))
    return Wording(tuple(_spans(asked, stemmed, full_text, synonyms or {})), tuple(corrections))


def _spans(
    asked: Sequence[Asked],
    stemmed: Sequence[str],
    full_text: FullText,
    synonyms: Mapping[Stems, Sequence[Stems]],
) -> list[Span]:
    """The words in spans: the longest that have synonyms first, from the left."""
    longest = max(map(len, synonyms), default=0)
    spans: list[Span] = []
    place = 0
    while place < len(asked):
        length = next((n for n in range(longest, 0, -1) if tuple(stemmed[place : place + n]) in synonyms), 0)
        instead = [
            [full_text.stems.codes[stem] for stem in other]
            for other in (synonyms[tuple(stemmed[place : place + length])] if length else ())
            if all(stem in full_text.stems.codes for stem in other)
        ]
        spans.append(Span(asked[place : place + max(length, 1)], instead))
        place += max(length, 1)
    return spans


def corrected(word: str, full_text: FullText) -> list[tuple[str, int]]:
    """The words of the collection nearest to ``word``, at most 3 with their distance: fewest edits first, then frequent
    ones, then by the alphabet. Of words with one stem the first counts.

    An edit is a letter inserted, left out, put for another, or swapped with its neighbour (optimal string alignment). A
    word with digits stands as it is: a size or a model is another one with another digit.
    """
    allowed = edits_allowed(word)
    if not allowed or any(letter.isdigit() for letter in word):
        return []
    from rapidfuzz import process
    from rapidfuzz.distance import OSA

    near = process.extract(
        word,
        full_text.surfaces.like(len(word), allowed),
        scorer=OSA.distance,
        score_cutoff=allowed,
        limit=None,
    )
    found: list[tuple[str, int]] = []
    seen: set[int] = set()
    for away in range(1, allowed + 1):
        there = [
            (-full_text.frequency(full_text.surfaces[other]), other)
            for other, distance, _ in near
            if round(distance) == away
        ]
        for frequency, other in sorted(there):
            code = full_text.surfaces[other]
            if frequency and code not in seen:
                seen.add(code)
                found.append((other, away))
        if found:  # one edit is likelier than two
            break
    return found[:_CORRECTIONS]


def _endings(beginning: str, full_text: FullText) -> list[int]:
    """Stems of the words that begin so, the most frequent ones."""
    known = full_text.surfaces.ordered()
    first = bisect.bisect_left(known, beginning)
    last = bisect.bisect_left(known, beginning + "\U0010ffff")
    codes = list(dict.fromkeys(full_text.surfaces[word] for word in known[first:last]))
    often = {code: full_text.frequency(code) for code in codes}
    return sorted((code for code in codes if often[code]), key=lambda code: -often[code])[:_ENDINGS]


def synonym_table(synonyms: Sequence[Synonym]) -> dict[Stems, list[Stems]]:
    """For each run of stems what else finds it."""
    table: dict[Stems, list[Stems]] = {}
    for synonym in synonyms:
        others = [tuple(stems(words(text))) for text in synonym.words]
        sources = others if synonym.of is None else [tuple(stems(words(synonym.of)))]
        for source in sources:
            known = table.setdefault(source, [])
            known += [other for other in others if other and other != source and other not in known]
    table.pop((), None)
    return table
