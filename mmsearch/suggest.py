"""Completions of what is being typed: past queries, phrases that titles say, values to narrow by, titles."""

from __future__ import annotations

import bisect
import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.collection_settings import kept_queries
from mmsearch.column import Column
from mmsearch.columns import Columns
from mmsearch.errors import QueryError
from mmsearch.fulltext import FullText
from mmsearch.phrases import Mask, Titles
from mmsearch.shapes import Suggestion
from mmsearch.view import State, View
from mmsearch.wording import understood
from mmsearch.words import spans, stems, words

MOST_VALUES = 1000
"""An attribute with more values than this is nothing to choose from; nor is one whose values hardly come again."""

_LOOKED_AT = 2000  # so many of its values tell that
_SOME = (
    "SELECT text FROM attributes WHERE name_id ="
    " (SELECT id FROM attribute_names WHERE collection_id = ? AND name = ?) LIMIT ?"
)
_FEW = 20  # values that need not come again
_LONG = 40  # characters of a value that is a sentence
_NO_CHOICE = {"parent", "currency", "price_currency"}
_SHARES = (
    ("query", 1 / 2),
    ("phrase", 1.0),
    ("value", 1 / 4),
    ("title", 1 / 4),
)  # of the places, in their order


class Suggester:
    """Suggestions of one collection. Keeps what it reads of it. Safe to share between threads."""

    def __init__(self, catalog: Catalog, collection: int, view: View) -> None:
        self._catalog, self._collection, self._view = catalog, collection, view
        self._lock = threading.Lock()
        self._judged: dict[str, tuple[bool, int]] = {}
        self._known: tuple[Columns, Titles, Values] | None = None

    def suggestions(self, text: str, k: int) -> list[Suggestion]:
        """See ``Engine.suggest``."""
        if k < 1:
            raise QueryError(f"k must be at least 1, not {k}")
        state = self._view.state(None, asked=None, words=True)
        if not words(text) or state.full_text is None:
            return []
        titles, values = self._read(state)
        typed = Typed.of(text, state.full_text, titles)
        kept = state.settings.settings.keep_queries
        queries = kept_queries(self._catalog, self._collection, text, k) if kept else []
        seen: set[str] = set()
        found = {
            "query": _new([Suggestion(text=query, source="query", count=n) for query, n in queries], seen),
            "phrase": _new(typed.phrases(titles, k), seen | {_said(text), _said(typed.text)}),
            "value": values.beginning(typed, state.full_text, titles)[: max(1, k // 3)],
        }
        seen |= {_said(one.text) for one in (*found["query"], *found["phrase"])}
        places = typed.titles(titles, k + len(seen))
        found["title"] = _new(
            [Suggestion(text=titles.texts[place], source="title") for place in places], seen
        )
        return [
            self._with_key(state, titles, values.live, one) if one.source == "title" else one
            for one in _shared(found, k)
        ]

    def _read(self, state: State) -> tuple[Titles, Values]:
        """What the titles say and what there is to choose from, as of this state."""
        with self._lock:
            if self._known is None or self._known[0] is not state.columns:
                _, titles, values = self._known or (None, Titles(), None)
                live, column = state.present(None), state.columns.titles
                choices = self._choices(state.columns)
                self._known = (
                    state.columns,
                    titles.advance(column, live),
                    Values(choices, column, live, values),
                )
            return self._known[1:]

    def _choices(self, columns: Columns) -> dict[str, Column]:
        """The attributes that are chosen from. Each is judged again when there are twice as many items."""
        found = {}
        n = len(columns.item_ids)
        for name, kind in self._catalog.attribute_kinds(self._collection).items():
            if kind != "text" or name in _NO_CHOICE:
                continue
            judged = self._judged.get(name)
            if judged is None or n > 2 * judged[1]:
                with self._catalog.reading() as connection:
                    some = connection.execute(_SOME, (self._collection, name, _LOOKED_AT)).fetchall()
                repeated = len(set(some)) <= max(_FEW, len(some) / 4)
                judged = self._judged[name] = (repeated, n)
            if judged[0] and (column := columns.column(name)) and 1 < len(column.vocabulary) <= MOST_VALUES:
                found[name] = column
        return found

    def _with_key(self, state: State, titles: Titles, live: Mask, one: Suggestion) -> Suggestion:
        """A title with the key of an item that is called so."""
        column = state.columns.titles
        rows = column.rows[column.values == titles.texts.codes[one.text]]
        ids = state.columns.item_ids[rows[live[rows]]][:1].tolist()
        items = self._catalog.existing(self._collection, ids, fields=()).values()
        return dataclasses.replace(one, key=next((item.key for item in items), None))


def _said(text: str) -> str:
    """What makes two texts the same."""
    return " ".join(words(text))


def _new(found: Iterable[Suggestion], seen: set[str]) -> list[Suggestion]:
    """Those whose words were not seen before, each once."""
    first: dict[str, Suggestion] = {}
    for one in found:
        first.setdefault(_said(one.text), one)
    return [one for said, one in first.items() if said not in seen]


def _shared(found: Mapping[str, Sequence[Suggestion]], k: int) -> list[Suggestion]:
    """Each source's share of the ``k`` places; what one does not need goes to the others, in their order."""
    taken = {name: min(len(found[name]), int(k * share)) for name, share in _SHARES if share < 1}
    taken["phrase"] = min(len(found["phrase"]), k - sum(taken.values()))
    for name, _ in _SHARES:
        taken[name] += min(len(found[name]) - taken[name], k - sum(taken.values()))
    return [one for name, _ in _SHARES for one in found[name][: taken[name]]]


@dataclasses.dataclass(frozen=True)
class Typed:
    """What was typed: the words before the last one as they are understood, and the letters of the last.

    ``among``: the titles (n,) that hold all words before, None if there are none. ``found``: what the last may become,
    stems with their forms; ``at``: int64 (m,), the places in these titles where it is that; ``whole``: the stem of the
    last if it is a word as it is.
    """

    before: str
    letters: str
    among: Mask | None
    said: Sequence[str]
    found: Mapping[int, Sequence[int]]
    at: NDArray[np.int64]
    whole: int | None

    @property
    def text(self) -> str:
        """All of it."""
        return self.before + self.letters

    @classmethod
    def of(cls, text: str, full_text: FullText, titles: Titles) -> Typed:
        """What a text says to a collection."""
        start, _, letters = spans(text)[-1]
        among, before = _held(text[:start], full_text, titles)
        form = titles.written.get(letters)
        whole = None if form is None else titles.form_stems[form]
        if text[-1].isalnum():
            found = titles.beginning(letters)
        else:
            found = {} if form is None or whole is None else {whole: [form]}
        at = titles.places(found, among)
        if not len(at):
            found = titles.nearly(letters)
            at = titles.places(found, among)
        return cls(before.lstrip(), letters, among, words(before), found, at, whole)

    def phrases(self, titles: Titles, k: int) -> list[Suggestion]:
        """How the titles go on, the most frequent first."""
        known = titles.stems.codes
        typed = {known[stem] for stem in stems(self.said) if stem in known}
        found = titles.phrases(self.found, self.at, typed, self.whole, k)
        return [
            Suggestion(text=self.before + titles.said(phrase), source="phrase", count=phrase.count)
            for phrase in found
        ]

    def titles(self, titles: Titles, k: int) -> list[int]:
        """The places of titles that hold all words: first those that begin with the first one, then shorter ones."""
        owners = titles.owners[self.at]
        places = owners[np.diff(owners, prepend=-1) > 0].astype(np.int64)
        first = titles.starts[places]
        if self.said:
            wanted = titles.stems.codes.get(stems(self.said[:1])[0], -1)
            begins = titles.tokens[first] == wanted + 1
        else:
            begins = np.isin(
                titles.forms[first], [form + 1 for forms in self.found.values() for form in forms]
            )
        longest = int(titles.lengths.max(initial=0)) + 1
        rank = (np.where(begins, 0, longest) + titles.lengths[places]) * len(titles) + places
        if len(rank) > k:
            rank = np.partition(rank, k)[:k]
        found: list[int] = (np.sort(rank) % len(titles)).tolist() if len(rank) else []
        return found


def _held(text: str, full_text: FullText, titles: Titles) -> tuple[Mask | None, str]:
    """The titles (n,) that hold all words of a text, None if it has none, and the text with its misspelt words as they
    are understood.
    """
    wording = understood(text, full_text)
    known = titles.stems.codes

    def holding(codes: Iterable[int]) -> Mask:
        here = [known[full_text.stems[code]] for code in codes if full_text.stems[code] in known]
        return titles.holding(here)

    among: Mask | None = None
    for span in wording.spans:
        mask = np.logical_and.reduce([holding(asked.codes) for asked in span.asked])
        for codes in span.instead:
            mask |= np.logical_and.reduce([holding([code]) for code in codes])
        among = mask if among is None else among & mask
    meant = {correction.word: correction.used[0] for correction in wording.corrections}
    for start, end, word in reversed(spans(text) if meant else ()):
        text = text[:start] + meant.get(word, text[start:end]) + text[end:]
    return among, text


class Values:
    """The values that items can be narrowed by, found by any of their words."""

    def __init__(
        self, choices: Mapping[str, Column], titles: Column, live: Mask, known: Values | None = None
    ) -> None:
        self._choices, self._titles, self.live = choices, titles, live
        self._sizes = {name: (id(one.vocabulary), len(one.vocabulary)) for name, one in choices.items()}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._words: list[tuple[str, int, str, int, tuple[str, ...]]]
        if known is not None and known._sizes == self._sizes:
            self._words = known._words
        else:
            self._words = sorted(
                (word, n, name, code, said)
                for name, column in choices.items()
                for code, value in enumerate(column.vocabulary)
                if len(value) <= _LONG
                for said in [tuple(words(value))]
                for n, word in enumerate(said)
            )

    def beginning(self, typed: Typed, full_text: FullText, titles: Titles) -> list[Suggestion]:
        """Values that hold the last words of what was typed, the very last one being a beginning: those that begin so
        first, then by how many items have them whose titles hold the words before.
        """
        said = [*typed.said, typed.letters]
        items: dict[int, Mask | None] = {}
        counts: dict[tuple[str, int], NDArray[np.int64]] = {}
        low = bisect.bisect_left(self._words, (typed.letters,))
        found: dict[str, tuple[tuple[int, bool, int, str], Suggestion]] = {}
        for word, n, name, code, value in self._words[low:]:
            if not word.startswith(typed.letters) or len(typed.letters) < 2:
                break
            at = len(said) - 1
            held = next(m for m in range(min(n, at), -1, -1) if list(value[n - m : n]) == said[at - m : at])
            rest = said[: at - held]
            if rest and not held and not typed.before[-1:].isspace():
                continue  # "t-sh" is one word
            if held not in items:
                among = typed.among if not held else _held(" ".join(rest), full_text, titles)[0]
                items[held] = None if not rest or among is None else self._called(among)
            if (name, held) not in counts:
                counts[name, held] = self._count(name, items[held])
            count = int(counts[name, held][code])
            text = self._choices[name].vocabulary[code]
            left = " ".join(rest)
            whole = f"{left} {text}".strip()
            rank = (-held, n > held, -count, text)
            if count and (_said(whole) not in found or rank < found[_said(whole)][0]):
                one = Suggestion(
                    text=whole, source="value", count=count, attribute=name, value=text, words=left
                )
                found[_said(whole)] = (rank, one)
        return [one for _, one in sorted(found.values(), key=lambda pair: pair[0])]

    def _called(self, among: Mask) -> Mask:
        """The item rows (m,) whose titles are among these (n,)."""
        items = np.zeros(len(self.live), np.bool_)
        items[self._titles.rows[among[self._titles.values]]] = True
        return items & self.live

    def _count(self, name: str, items: Mask | None) -> NDArray[np.int64]:
        """How many items (of these rows) have each value of an attribute."""
        if items is None and name in self._counts:
            return self._counts[name]
        column = self._choices[name]
        values = column.values[(self.live if items is None else items)[column.rows]].astype(np.int64)
        counts = np.bincount(values, minlength=len(column.vocabulary))
        if items is None:
            self._counts[name] = counts
        return counts
