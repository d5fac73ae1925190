"""One attribute of all items as arrays."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Ids

Kind: TypeAlias = Literal["number", "text", "boolean", "datetime"]


def fold(text: str) -> str:
    """As ``like`` compares texts: without case, in one Unicode form."""
    return unicodedata.normalize("NFC", text.lower())


def collation(word: str) -> tuple[str, str]:
    """The order of texts: without case, then as they are."""
    return fold(word), word


def located(ids: Ids, wanted: Ids) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each wanted id (m,) among ``ids`` (ascending), and whether it is there."""
    places = np.searchsorted(ids, wanted)
    known = places < len(ids)
    known[known] = ids[places[known]] == wanted[known]
    return places, known


class Vocabulary(Sequence[str]):
    """Distinct strings with their places. It only grows, so that the column of one revision shares it with the next."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._words = list(dict.fromkeys(words))
        self._folded: list[str] = []
        self._places = np.zeros(0)
        self.codes = {word: code for code, word in enumerate(self._words)}

    def code(self, word: str) -> int:
        """The place of a word; it gets one if it has none. Not for two threads at a time."""
        found = self.codes.get(word)
        if found is None:
            found = len(self._words)
            self._words.append(word)  # first: whoever knows the code finds the word
            self.codes[word] = found
        return found

    @property
    def folded(self) -> list[str]:
        """The words as ``like`` compares them."""
        known = self._folded
        if len(known) < len(self._words):
            known = known + [fold(word) for word in self._words[len(known) :]]
            self._folded = known
        return known

    @property
    def alphabetical(self) -> NDArray[np.float64]:
        """The place of each word in the order of ``collation``."""
        known = self._places
        if len(known) != len(self._words):
            words = self._words[:]
            known = np.empty(len(words))
            known[sorted(range(len(words)), key=lambda code: collation(words[code]))] = np.arange(len(words))
            self._places = known
        return known

    def __len__(self) -> int:
        return len(self._words)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._words[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """All values of one attribute over the items 0 .. n-1.

    ``rows``: int64 (m,), the item of each value; an item may come several times (tags) or never.
    ``values``: float64 (m,) for numbers, booleans (0 or 1) and datetimes (UTC seconds since 1970), int32 (m,)
    codes into ``vocabulary`` for text. ``vocabulary``: distinct strings, for text only.
    """

    kind: Kind
    rows: NDArray[np.int64]
    values: NDArray[np.float64] | NDArray[np.int32]
    vocabulary: Vocabulary = dataclasses.field(default_factory=Vocabulary)

    @property
    def codes(self) -> dict[str, int]:
        return self.vocabulary.codes

    @property
    def folded(self) -> list[str]:
        return self.vocabulary.folded

    @functools.cached_property
    def ascending(self) -> bool:
        """Whether each item comes once at most, in order."""
        return bool((self.rows[1:] > self.rows[:-1]).all())

    def patched(
        self,
        changed: NDArray[np.int64],
        rows: NDArray[np.int64],
        values: NDArray[np.float64] | NDArray[np.int32],
        n: int,
    ) -> Column:
        """The column with other values of the ``changed`` rows (ascending): ``values`` (m,) of ``rows`` (m,), in any
        order.
        """
        order = np.argsort(rows, kind="stable")
        rows, values = rows[order], values[order]
        places, there = located(self.rows, changed) if self.ascending else (changed, np.zeros(0, np.bool_))
        if self.ascending and np.array_equal(changed[there], rows):  # the usual case: one value for another
            places = places[there]
            if np.array_equal(self.values[places], values):
                return self
            patched = self.values.copy()
            patched[places] = values
            column = Column(self.kind, self.rows, patched, self.vocabulary)
        else:
            touched = np.zeros(n, np.bool_)
            touched[changed] = True
            keep = ~touched[self.rows]
            if not len(rows) and keep.all():
                return self
            merged = np.concatenate([self.rows[keep], rows])
            both: NDArray[Any] = np.concatenate([self.values[keep], values]).astype(self.values.dtype)
            if len(rows) and keep.any() and rows[0] < merged[len(merged) - len(rows) - 1]:
                order = np.argsort(merged, kind="stable")
                merged, both = merged[order], both[order]
            return Column(self.kind, merged, both, self.vocabulary)
        column.__dict__["ascending"] = True  # as it was: saves a look at all rows
        return column

    def renumbered(self, number: NDArray[np.int64]) -> Column:
        """The column with row ``number[row]`` (n,) for each row, ascending; values of rows that have none are dropped.

        Words that no item has any more are dropped too, as soon as they are a quarter of all.
        """
        rows = number[self.rows]
        live = rows >= 0
        rows, values, vocabulary = rows[live], self.values[live], self.vocabulary
        if self.kind == "text":
            used, codes = np.unique(values, return_inverse=True)
            if len(used) < 0.75 * len(vocabulary):
                words = vocabulary[:]
                vocabulary = Vocabulary(words[code] for code in used.tolist())
                values = codes.astype(np.int32)
        return Column(self.kind, rows, values, vocabulary)
