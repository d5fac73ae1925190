"""Full text of a collection in memory: the title and the texts of each item, ranked by BM25.

SQLite's full-text table counts over all collections of a home, part by part, and reads a row of the disk for each
match. A shop asks for every item's score, its own words only, and a title that weighs more. So words are kept as
arrays of postings, read from the catalog once and brought up to date by reading the items whose words changed.

Scores: BM25F (Robertson, Zaragoza and Taylor, "Simple BM25 extension to multiple weighted fields", CIKM 2004).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.column import Vocabulary
from mmsearch.columns import Columns
from mmsearch.database import chunks, listed
from mmsearch.words import stems, tied, words

K1 = 1.2
"""How soon more of the same word counts no more."""

TITLE_WEIGHT = 2.0
"""A word of the title counts as much as so many of a text."""

B_TITLE, B_TEXT = 0.3, 0.75
"""How much longer titles and texts count less for each of their words."""

_TAIL = 2000  # so many changed items are kept aside, or a fifth of all, before the postings are sorted anew

Postings = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Slots of the items that hold a word, how often their titles do, how often their texts do."""


class Surfaces(dict[str, int]):
    """The forms in which words are written, with the code of the stem of each. It only grows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[str] = []
        self._by_length: dict[int, list[str]] = {}
        self._seen = 0

    def ordered(self) -> list[str]:
        """The forms by the alphabet."""
        known = self._ordered
        if len(known) != len(self):
            known = self._ordered = sorted(
                [*known, *self._since(len(known))]
            )  # quick: most of it is in order
        return known

    def like(self, length: int, off: int) -> list[str]:
        """The forms without digits whose length is at most so much off."""
        with self._lock:
            fresh = self._since(self._seen) if self._seen < len(self) else []
            self._seen += len(fresh)
            for word in fresh:
                if not any(letter.isdigit() for letter in word):
                    self._by_length.setdefault(len(word), []).append(word)
            some = [self._by_length.get(n, ()) for n in range(length - off, length + off + 1)]
            return [word for words in some for word in words]

    def _since(self, seen: int) -> list[str]:
        """The forms that came after so many, in the order in which they came."""
        return list(self)[seen:]  # a list first: it may grow meanwhile


@dataclasses.dataclass(frozen=True)
class FullText:
    """The words of a collection at one revision. ``advance`` returns the next state.

    What an item says has a *slot*; other words get another slot. ``rows``: int64 (s,), the item row of each slot, -1 if
    it is given up. ``lengths``: float64 (2, s), words of the title and of the texts. ``stems`` are the words by code,
    ``surfaces`` the forms in which they were written, with the code of each; both only grow, and states share them. A
    tail holds what came since the postings were sorted, by code: slot, times in the title, times in the texts.
    """

    origin: object
    revision: int
    rows: NDArray[np.int64]
    lengths: NDArray[np.float64]
    stems: Vocabulary
    surfaces: Surfaces
    starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    counts: NDArray[np.uint16]  # (2, postings)
    tail: dict[int, list[tuple[int, int, int]]]
    tail_from: int
    slot_of: NDArray[np.int64]  # of each item row; -1: none
    said: dict[int, int]  # of each item row a hash of where its words come from

    @functools.cached_property
    def documents(self) -> int:
        """Number of items that say something: photos without a word make no word rarer."""
        return int(np.count_nonzero(self.lengths[:, self.rows >= 0].any(axis=0)))

    def postings(self, code: int) -> Postings:
        """Where the stem ``code`` is."""
        first, last = (self.starts[code], self.starts[code + 1]) if code + 1 < len(self.starts) else (0, 0)
        slots = self.slots[first:last].astype(np.int64)
        title, text = self.counts[:, first:last].astype(np.float64)
        later = [entry for entry in self.tail.get(code, ())[:] if entry[0] < len(self.rows)]
        if later:
            more = np.array(later, np.int64)
            slots = np.concatenate([slots, more[:, 0]])
            title, text = np.concatenate([title, more[:, 1]]), np.concatenate([text, more[:, 2]])
        live = self.rows[slots] >= 0
        return (slots, title, text) if live.all() else (slots[live], title[live], text[live])

    def scores(self, code: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Item rows that hold the stem ``code``, and the BM25 of it in each."""
        slots, title, text = self.postings(code)
        idf = self._rarity(len(slots))
        long = self.lengths[:, slots] / np.maximum(self._means, 1e-9)
        often = TITLE_WEIGHT * title / (1 - B_TITLE + B_TITLE * long[0])
        often += text / (1 - B_TEXT + B_TEXT * long[1])
        return self.rows[slots], idf * often * (K1 + 1) / (K1 + often)

    def ideal(self, holding: float) -> float:
        """The BM25 of a word that so many items hold, in one whose title is of the usual length and holds it once."""
        return self._rarity(holding) * TITLE_WEIGHT * (K1 + 1) / (K1 + TITLE_WEIGHT)

    @functools.cached_property
    def silent(self) -> NDArray[np.bool_]:
        """Which item rows (n,) say nothing in words."""
        mask = np.ones(len(self.slot_of), np.bool_)
        says = (self.rows >= 0) & (self.lengths.sum(axis=0) > 0)
        mask[self.rows[says]] = False
        return mask

    def _rarity(self, holding: float) -> float:
        """The inverse document frequency of a word that so many items hold."""
        return math.log(1 + (self.documents - holding + 0.5) / (holding + 0.5))

    def frequency(self, code: int) -> int:
        """How many items hold the stem ``code``."""
        known = self._frequencies.get(code)
        if known is None:
            known = self._frequencies[code] = len(self.postings(code)[0])
        return known

    @functools.cached_property
    def _frequencies(self) -> dict[int, int]:
        return {}

    @functools.cached_property
    def _means(self) -> NDArray[np.float64]:
        """Mean length of titles and of texts, of the items that have one, (2, 1)."""
        live = self.lengths[:, self.rows >= 0]
        counts = np.maximum(np.count_nonzero(live, axis=1), 1)
        means: NDArray[np.float64] = live.sum(axis=1, keepdims=True) / counts[:, np.newaxis]
        return means

    def advance(self, catalog: Catalog, collection: int, columns: Columns) -> FullText:
        """This state brought up to that of the columns, which follow from those it was read with.

        Not for two threads at a time.
        """
        present = columns.present()
        slot_of = np.concatenate(
            [self.slot_of, np.full(len(present) - len(self.slot_of), -1, self.slot_of.dtype)]
        )
        fresh: dict[int, tuple[dict[int, tuple[int, int]], tuple[int, int]]] = {}
        for some in _changed(catalog, collection, self.revision, columns):
            some = [said for said in some if present[said.row] and self.said.get(said.row) != said.mark]
            fresh.update((said.row, _counted(said, self.stems, self.surfaces)) for said in some)
            self.said.update((said.row, said.mark) for said in some)
        left = np.union1d(np.flatnonzero((slot_of >= 0) & ~present), np.array(list(fresh), np.int64))
        if not len(left):
            return dataclasses.replace(self, revision=columns.revision, slot_of=slot_of)
        rows = np.concatenate([self.rows, np.array(list(fresh), np.int64)])
        rows[slot_of[left][slot_of[left] >= 0]] = -1
        slot_of[left] = -1
        for slot, (row, (counts, _)) in enumerate(fresh.items(), start=len(self.rows)):
            slot_of[row] = slot
            for code, (in_title, in_texts) in counts.items():
                self.tail.setdefault(code, []).append((slot, in_title, in_texts))
        lengths = np.array([lengths for _, lengths in fresh.values()], np.float64).reshape(-1, 2).T
        following = dataclasses.replace(
            self,
            revision=columns.revision,
            rows=rows,
            lengths=np.concatenate([self.lengths, lengths], axis=1),
            slot_of=slot_of,
        )
        tail = len(rows) - self.tail_from
        return following._merged() if tail > max(_TAIL, following.documents // 5) else following

    def _merged(self) -> FullText:
        """The same with all postings in order and those of given-up slots dropped."""
        codes = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        pairs = [(code, *entry) for code, entries in self.tail.items() for entry in entries]
        later = np.array(pairs, np.int64).reshape(-1, 4)
        codes = np.concatenate([codes, later[:, 0]])
        slots = np.concatenate([self.slots, later[:, 1]])
        counts = np.concatenate([self.counts, _capped(later[:, 2:].tolist())], axis=1)
        live = self.rows[slots] >= 0
        starts, sorted_slots, sorted_counts = _sorted(
            codes[live], slots[live], counts[:, live], len(self.stems)
        )
        return dataclasses.replace(
            self, starts=starts, slots=sorted_slots, counts=sorted_counts, tail={}, tail_from=len(self.rows)
        )

    def kept(self, origin: object, kept: NDArray[np.int64]) -> FullText:
        """The same with the item rows ``kept`` (n,) only, as those of another origin; those that are not here yet come
        later. Words that none of them says are forgotten.
        """
        kept = kept[: np.searchsorted(kept, len(self.slot_of))]
        whole = self._merged()
        number = np.full(len(self.slot_of) + 1, -1, np.int64)
        number[kept] = np.arange(len(kept))
        filled = np.flatnonzero(number[whole.rows] >= 0)
        moved = np.full(len(whole.rows), -1, np.int64)
        moved[filled] = np.arange(len(filled))
        left = moved[whole.slots]
        codes = np.repeat(np.arange(len(whole.starts) - 1), np.diff(whole.starts))[left >= 0]
        used, codes = np.unique(codes, return_inverse=True)
        surfaces = Surfaces()
        code_of = {old: new for new, old in enumerate(used.tolist())}
        surfaces.update((word, code_of[old]) for word, old in self.surfaces.items() if old in code_of)
        starts, slots, counts = _sorted(codes, left[left >= 0], whole.counts[:, left >= 0], len(used))
        return FullText(
            origin=origin,
            revision=self.revision,
            rows=number[whole.rows[filled]],
            lengths=whole.lengths[:, filled],
            stems=Vocabulary(self.stems[code] for code in used.tolist()),
            surfaces=surfaces,
            starts=starts,
            slots=slots,
            counts=counts,
            tail={},
            tail_from=len(filled),
            slot_of=np.append(moved, -1)[self.slot_of[kept]],
            said={new: mark for row, mark in self.said.items() if (new := int(number[row])) >= 0},
        )


def read(catalog: Catalog, collection: int, columns: Columns) -> FullText:
    """All words of a collection: some seconds for a million of them."""
    vocabulary, surfaces = Vocabulary(), Surfaces()
    codes: list[int] = []
    slots: list[int] = []
    often: list[tuple[int, int]] = []
    rows: list[int] = []
    lengths: list[tuple[int, int]] = []
    marks: dict[int, int] = {}
    present = columns.present()
    for some in _changed(catalog, collection, 0, columns):
        for said in some:
            if present[said.row]:
                counts, length = _counted(said, vocabulary, surfaces)
                codes += counts
                slots += [len(rows)] * len(counts)
                often += counts.values()
                rows.append(said.row)
                lengths.append(length)
                marks[said.row] = said.mark
    slot_of = np.full(len(present), -1, np.int64)
    slot_of[rows] = np.arange(len(rows))
    starts, sorted_slots, counts_of = _sorted(
        np.array(codes, np.int64), np.array(slots, np.int64), _capped(often), len(vocabulary)
    )
    return FullText(
        origin=columns.origin,
        revision=columns.revision,
        rows=np.array(rows, np.int64),
        lengths=np.array(lengths, np.float64).reshape(-1, 2).T,
        stems=vocabulary,
        surfaces=surfaces,
        starts=starts,
        slots=sorted_slots,
        counts=counts_of,
        tail={},
        tail_from=len(rows),
        slot_of=slot_of,
        said=marks,
    )


def _capped(often: Sequence[tuple[int, int]]) -> NDArray[np.uint16]:
    counts = np.minimum(np.array(often, np.int64).reshape(-1, 2).T, np.iinfo(np.uint16).max)
    return counts.astype(np.uint16)


def _sorted(
    codes: NDArray[np.int64], slots: NDArray[np.int64], counts: NDArray[np.uint16], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16]]:
    """Starts, slots and counts of postings, in the order of the stems 0 .. n-1."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(n + 1)).astype(np.int64)
    return starts, slots[order].astype(np.int32), counts[:, order]


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    """What an item says: the words of its title and of its other texts, how many these are (words that are tied
    together are counted apart, and found also as one), and a hash of where they come from.
    """

    row: int
    title: list[str]
    texts: list[str]
    lengths: tuple[int, int]
    mark: int


def _counted(
    said: _Said, vocabulary: Vocabulary, surfaces: Surfaces
) -> tuple[dict[int, tuple[int, int]], tuple[int, int]]:
    """Of each stem how often title and texts hold it, and how many words they have."""
    counts: dict[int, tuple[int, int]] = {}
    for in_title, found in ((1, said.title), (0, said.texts)):
        for word in found:
            code = surfaces.get(word)
            if code is None:
                code = surfaces[word] = vocabulary.code(stems([word])[0])
            before = counts.get(code, (0, 0))
            counts[code] = (before[0] + in_title, before[1] + 1 - in_title)
    return counts, said.lengths


def _changed(catalog: Catalog, collection: int, since: int, columns: Columns) -> Iterator[list[_Said]]:
    """What the items say that changed later than ``since``, some thousands at a time.

    A text part that repeats the title says nothing new.
    """
    with catalog.reading() as connection:
        query = f"SELECT id, title FROM items WHERE collection_id = {collection} AND revision > {since} ORDER BY id"
        titles = dict(connection.execute(query).fetchall())
        for some in chunks(titles):
            texts: dict[int, list[tuple[int, str]]] = {}
            query = (
                f"SELECT item_id, id, text FROM parts WHERE item_id IN ({listed(some)}) AND text <> ''"
                " ORDER BY item_id, ordinal"
            )
            for item, part, text in connection.execute(query):
                texts.setdefault(item, []).append((part, text))
            rows, known = columns.places(some)
            found = []
            for item, row in zip(np.array(some)[known].tolist(), rows[known].tolist(), strict=True):
                title, own = titles[item] or "", texts.get(item, [])
                mark = hash((title, *(part for part, _ in own)))
                fields = (title, "\n".join(text for _, text in own if text != title))
                apart = [words(text) for text in fields]
                whole = [[one for _, _, one in tied(text)] for text in fields]
                lengths = (len(apart[0]), len(apart[1]))
                found.append(_Said(row, apart[0] + whole[0], apart[1] + whole[1], lengths, mark))
            stems(list({word for said in found for word in (*said.title, *said.texts)}))  # in one go
            yield found


def rows_with(full_text: FullText, codes: Sequence[int]) -> NDArray[np.int64]:
    """Item rows, ascending, whose titles hold all of these stems."""
    found: NDArray[np.int64] | None = None
    for code in codes:
        slots, title, _ = full_text.postings(code)
        rows = full_text.rows[slots[title > 0]]
        found = np.unique(rows) if found is None else np.intersect1d(found, rows)
    return np.zeros(0, np.int64) if found is None else found
