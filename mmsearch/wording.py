"""What the words of a query stand for in a collection: stems, corrections, beginnings, synonyms; and their scores."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.fulltext import FullText
from mmsearch.shapes import Correction, Synonym
from mmsearch.words import spans, stems, words

Stems = tuple[str, ...]

TYPO_WEIGHT = 0.8
"""What a match counts for each edit between it and the word that was asked for: 0.8, 0.64."""

PREFIX_WEIGHT = 0.7
"""What a match counts of which only the beginning was asked for."""

_CORRECTIONS = 3  # so many corrections of one word are searched at most
_ENDINGS = 40  # so many words with a beginning


def edits_allowed(word: str) -> int:
    """How many edits a word may be away from one of the collection: none up to 3 letters, 1 up to 6, else 2."""
    return 0 if len(word) < 4 else 1 if len(word) < 7 else 2


@dataclasses.dataclass(frozen=True)
class Asked:
    """One word of the query: what it may be in the collection, by code of the stem, and how much each counts."""

    word: str
    codes: Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Span:
    """Some words of the query in a row, and what stands for them: codes that must all be there, with their weight."""

    asked: Sequence[Asked]
    instead: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """What a span finds: the item rows (m,) that hold something of it, the BM25 of each (m,), and which of them hold
    all of it (m,); what an item of the usual length scores whose title holds it once (of a word that nobody holds: what
    it would); whether it names a size, a model or the like.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    every: NDArray[np.bool_]
    ideal: float
    code: bool


@dataclasses.dataclass(frozen=True)
class Wording:
    """The words of a query as a collection knows them. ``mends``: of misspelt words what was surely meant."""

    spans: Sequence[Span]
    corrections: Sequence[Correction]
    mends: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def found(self, full_text: FullText, n: int) -> list[Found]:
        """What each span finds. A word counts as the best of what it may be; what stands for several words where all of
        it is, and then as much as they would.
        """
        return [self._found(span, full_text, n) for span in self.spans]

    def _found(self, span: Span, full_text: FullText, n: int) -> Found:
        code = any(_is_code(asked.word) for asked in span.asked)
        best = [_best(full_text, asked.codes, n) for asked in span.asked]
        ideal = sum(ideal for _, _, ideal in best)
        if len(best) == 1 and not span.instead:
            rows, scores, _ = best[0]
            return Found(rows, scores, np.ones(len(rows), np.bool_), ideal, code)
        wholes = [[_best(full_text, {one: 1.0}, n) for one in codes] for codes in span.instead]
        owns = [sum(ideal for _, _, ideal in whole) for whole in wholes]
        if owns and not any(asked.codes for asked in span.asked):
            ideal = max(owns)
        total, every = _added(best, n)
        for whole, own in zip(wholes, owns, strict=True):
            scores, all_of_it = _added(whole, n)
            every |= all_of_it
            np.maximum(total, np.where(all_of_it, scores * (ideal / own if own else 0.0), 0.0), out=total)
        rows = np.flatnonzero(total)
        return Found(rows, total[rows], every[rows], ideal, code)

    def mended(self, text: str) -> str:
        """A text of the query with its misspelt words as they were meant."""
        for start, end, word in reversed(spans(text) if self.mends else ()):
            text = text[:start] + self.mends.get(word, text[start:end]) + text[end:]
        return text

    @functools.cached_property
    def codes(self) -> frozenset[int]:
        """All stems that count."""
        found = {code for span in self.spans for asked in span.asked for code in asked.codes}
        return frozenset(found.union(*(codes for span in self.spans for codes in span.instead)))


def _is_code(word: str) -> bool:
    """Whether a word is the number of a model, a size with letters or the like: 501, a479, 3xl."""
    digits = sum(letter.isdigit() for letter in word)
    return digits > 2 or 0 < digits < len(word)


Scored = tuple[NDArray[np.int64], NDArray[np.float64], float]
"""Rows (m,), their scores (m,), and that of a full match."""


def _best(full_text: FullText, codes: Mapping[int, float], n: int) -> Scored:
    """Where any of these stems is, and the best that it counts."""
    if len(codes) == 1:
        ((code, weight),) = codes.items()
        rows, scores = full_text.scores(code)
        return rows, scores if weight == 1 else weight * scores, weight * full_text.ideal(len(rows))
    found, ideal = np.zeros(n), 0.0
    for code, weight in codes.items():
        rows, scores = full_text.scores(code)
        found[rows] = np.maximum(found[rows], weight * scores)
        ideal = max(ideal, weight * full_text.ideal(len(rows)))
    rows = np.flatnonzero(found)
    return rows, found[rows], ideal if codes else full_text.ideal(0)


def _added(pieces: Sequence[Scored], n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The scores (n,) of words together, and which rows (n,) hold all of them."""
    total, often = np.zeros(n), np.zeros(n, np.int64)
    for rows, scores, _ in pieces:
        total[rows] += scores
        often[rows] += 1
    return total, often == len(pieces)


def understood(
    text: str,
    full_text: FullText,
    *,
    typos: bool = True,
    prefix: bool = False,
    synonyms: Mapping[Stems, Sequence[Stems]] | None = None,
    knows: Callable[[str], bool | None] = lambda word: None,
) -> Wording:
    """The words of a query.

    ``prefix``: the last word may be the beginning of one, unless something follows it. ``synonyms``: see
    ``synonym_table``. ``knows``: see ``Encoder.knows``; what the encoder knows is no misspelt word, and what it does
    not know is better read as it was meant (``Wording.mended``).
    """
    said = words(text)
    beginning = len(said) - 1 if prefix and text[-1:].isalnum() else -1
    pairs = [_joined(*pair, full_text) is not None for pair in itertools.pairwise(said)]
    joins = [left or right for left, right in zip([False, *pairs], [*pairs, False], strict=True)]
    asked: list[Asked] = []
    corrections: list[Correction] = []
    mends: dict[str, str] = {}
    for place, (word, stem) in enumerate(zip(said, stems(said), strict=True)):
        codes: dict[int, float] = {}
        if (code := _known(stem, full_text)) is not None:
            codes[code] = 1.0
        if place == beginning:
            for code in _endings(word, full_text):
                codes.setdefault(code, PREFIX_WEIGHT)
        if not codes and typos and not joins[place] and not (whole := knows(word)):
            if near := corrected(word, full_text):
                codes = {full_text.surfaces[other]: TYPO_WEIGHT**away for other, away in reversed(near)}
                corrections.append(Correction(word=word, used=tuple(other for other, _ in near)))
                if whole is False:
                    mends[word] = near[0][0]
            elif pieces := _pieces(word, full_text):
                asked += [Asked(piece, {full_text.surfaces[piece]: 1.0}) for piece in pieces]
                corrections.append(Correction(word=word, used=(" ".join(pieces),)))
                mends[word] = " ".join(pieces)
                continue
        asked.append(Asked(word, codes))
    return Wording(tuple(_spans(asked, full_text, synonyms or {})), tuple(corrections), mends)


def _known(stem: str, full_text: FullText) -> int | None:
    """The code of a stem that the collection has now."""
    code = full_text.stems.codes.get(stem)
    return code if code is not None and full_text.frequency(code) else None


def _joined(left: str, right: str, full_text: FullText) -> int | None:
    """The code of two words where the collection also writes them as one: ``hand bag``."""
    for form in (left + right, (left + right).removesuffix("s"), f"{left}{right}s"):
        code = full_text.surfaces.get(form)
        if code is not None and full_text.frequency(code):
            return code
    return None


def _pieces(word: str, full_text: FullText) -> list[str]:
    """Two words of the collection that were written as one, cut where the rarer one is most frequent."""
    cuts = [(word[:at], word[at:]) for at in range(2, len(word) - 1)] if word.isalpha() else []
    known = [
        (min(full_text.frequency(full_text.surfaces[piece]) for piece in pieces), pieces)
        for pieces in cuts
        if all(piece in full_text.surfaces for piece in pieces)
    ]
    often, pieces = max(known, default=(0, ("", "")))
    return list(pieces) if often else []


def _spans(
    asked: Sequence[Asked], full_text: FullText, synonyms: Mapping[Stems, Sequence[Stems]]
) -> Iterator[Span]:
    """The words in spans, from the left: the longest that have synonyms, two that are also written as one, one."""
    stemmed = stems([word.word for word in asked])
    longest = max(map(len, synonyms), default=0)
    place = 0
    while place < len(asked):
        here = asked[place : place + 1]
        length = next((n for n in range(longest, 0, -1) if tuple(stemmed[place : place + n]) in synonyms), 0)
        others = list(synonyms[tuple(stemmed[place : place + length])]) if length else []
        if length > 1:
            here = asked[place : place + length]
        elif place + 1 < len(asked):
            left, right = asked[place].word, asked[place + 1].word
            if (code := _joined(left, right, full_text)) is not None:
                others = [tuple(stemmed[place : place + 2]), *synonyms.get((full_text.stems[code],), ())]
                here = [Asked(left + right, {code: 1.0})]
                length = 2
        instead = [[_known(stem, full_text) for stem in other] for other in others]
        yield Span(
            here, [[code for code in codes if code is not None] for codes in instead if None not in codes]
        )
        place += max(length, 1)


def corrected(word: str, full_text: FullText) -> list[tuple[str, int]]:
    """The words of the collection nearest to ``word``, at most 3 with their distance: fewest edits first, then those
    with the same first letter (which few get wrong: "jens" is jeans rather than mens), then frequent ones, then those
    with the same ending, then by the alphabet. Of words with one stem the first counts.

    An edit is a letter inserted, left out, put for another, or swapped with its neighbour (optimal string alignment). A
    word with digits stands as it is: a size or a model is another one with another digit.
    """
    allowed = edits_allowed(word)
    if not allowed or any(letter.isdigit() for letter in word):
        return []
    from rapidfuzz import process
    from rapidfuzz.distance import OSA, Postfix

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
            (
                other[0] != word[0],
                -full_text.frequency(full_text.surfaces[other]),
                -Postfix.similarity(word, other),
                other,
            )
            for other, distance, _ in near
            if round(distance) == away
        ]
        for _, frequency, _, other in sorted(there):
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
