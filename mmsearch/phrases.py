"""What the titles of a collection say, word by word, so that a few letters can be completed to what a shopper means.

Nothing here knows a language. What belongs together is what mostly comes together ("united" goes on to "united colors
of benetton"), what things are called is what titles end with ("nike" goes on to "nike shoes"), and a title that says it
of twenty sizes says it once.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.column import Column, Vocabulary
from mmsearch.fulltext import Surfaces
from mmsearch.wording import edits_allowed
from mmsearch.words import spans, stems

Mask = NDArray[np.bool_]

LEAST = 2
"""So many titles hold a phrase at least: what one alone says is that title's."""

_TOGETHER = 0.8  # a word that follows so often belongs to the phrase
_ENDS = 0.1  # a word that ends titles so often may end a phrase
_GROWN = 3  # so many of the completions are gone on with
_LONGEST = 5  # words
_SHOWN = 1000  # so many titles tell how a phrase is mostly written
_TIES = {"", "-", "‐", "‑", "'", "’", "&", ".", "/", "+"}


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Words that titles say: their stems, in how many titles, and how it is written: a run of words at ``at``, and
    maybe the word at ``head`` that ends the stretch.
    """

    stems: tuple[int, ...]
    count: int
    at: int
    length: int
    head: int | None = None


class Titles:
    """The distinct titles of a collection as arrays. ``advance`` returns the next state; states share what only grows.

    ``tokens``: int32 (t,), the stem of each word plus 1, title after title; 0 ends a title, and a stretch of one (at a
    comma, a bracket). ``forms``: int32 (t,), the same of how the word is written. ``owners``: int32 (t,), the title of
    each. ``first``: bool (t,), whether the title has not said this stem before. ``starts``: int64 (n + 1,), where they
    begin; ``lengths``: int64 (n,), their characters; ``present``: bool (n,), which of them some item has. ``written``:
    each form with its place among ``form_stems``. ``often``, ``uses``, ``ending``: int64 (s + 1,), how many titles hold
    each token, how often it comes, how often it ends a stretch.
    """

    def __init__(self) -> None:
        self.texts = Vocabulary()
        self.stems = Vocabulary()
        self.written = Surfaces()
        self.form_stems: list[int] = []
        self.tokens = self.forms = self.owners = np.zeros(0, np.int32)
        self.first = self.present = np.zeros(0, np.bool_)
        self.starts = np.zeros(1, np.int64)
        self.lengths = np.zeros(0, np.int64)
        self.breaks = self.often = self.uses = self.ending = np.zeros(0, np.int64)
        self._sorted, self._sorted_starts = np.zeros(0, np.int64), np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def advance(self, column: Column, live: Mask) -> Titles:
        """The state with the titles of a column, of the item rows (m,) that are live. Not for two threads at a time."""
        following = Titles()
        if column.vocabulary is self.texts:
            following.__dict__.update(self.__dict__)
        following.texts = column.vocabulary
        before, counted = following.present, len(following.tokens)
        if fresh := following.texts[len(following) :]:
            following._add(fresh)
        values = column.values[live[column.rows]].astype(np.int64)
        following.present = np.bincount(values, minlength=len(following))[: len(following)] > 0
        if not np.array_equal(following.present[: len(before)], before):
            counted = 0
        following._count(counted)
        return following

    def _add(self, fresh: Sequence[str]) -> None:
        said = [spans(text) for text in fresh]
        known = dict.fromkeys(word for found in said for _, _, word in found)
        new = [word for word in known if word not in self.written]
        for word, stemmed in zip(new, stems(new), strict=True):  # in one go
            self.form_stems.append(self.stems.code(stemmed))
            self.written[word] = len(self.form_stems) - 1
        tokens: list[int] = []
        forms: list[int] = []
        lengths = []
        first: list[bool] = []
        for text, found in zip(fresh, said, strict=True):
            before, until, seen = len(tokens), 0, set[int]()
            for start, end, word in found:
                if until and text[until:start] != " " and text[until:start].strip() not in _TIES:
                    tokens.append(0)
                    forms.append(0)
                    first.append(False)
                form, until = self.written[word], end
                stem = self.form_stems[form]
                tokens.append(stem + 1)
                forms.append(form + 1)
                first.append(stem not in seen)
                seen.add(stem)
            tokens.append(0)
            forms.append(0)
            first.append(False)
            lengths.append(len(tokens) - before)
        owners = np.repeat(np.arange(len(self), len(self) + len(fresh), dtype=np.int32), lengths)
        self.starts = np.concatenate([self.starts, self.starts[-1] + np.cumsum(lengths)])
        self.lengths = np.concatenate([self.lengths, [len(text) for text in fresh]])
        self.tokens = np.concatenate([self.tokens, np.array(tokens, np.int32)])
        self.forms = np.concatenate([self.forms, np.array(forms, np.int32)])
        self.first = np.concatenate([self.first, np.array(first, np.bool_)])
        self.owners = np.concatenate([self.owners, owners])
        self.breaks = np.flatnonzero(self.tokens == 0)
        if len(self.tokens) > 1.2 * len(self._sorted) + 1000:
            self._sorted = np.argsort(self.tokens, kind="stable")
            tally = np.bincount(self.tokens, minlength=len(self.stems) + 1)
            self._sorted_starts = np.concatenate([[0], np.cumsum(tally)])

    def _count(self, counted: int) -> None:
        """Add up what the tokens from one on say; those before are counted already."""
        size = len(self.stems) + 1
        some = np.arange(counted, len(self.tokens))
        if not self.present.all():
            some = some[self.present[self.owners[some]]]
        tokens = self.tokens[some]
        last = some[tokens == 0] - 1

        def total(before: NDArray[np.int64], found: NDArray[np.int32]) -> NDArray[np.int64]:
            more = np.bincount(found, minlength=size)
            if counted:
                more[: len(before)] += before
            return more

        self.often = total(self.often, tokens[self.first[some]])
        self.uses = total(self.uses, tokens)
        self.ending = total(self.ending, self.tokens[last[last >= 0]])

    # -- which titles

    def places(self, found: Iterable[int], among: Mask | None = None) -> NDArray[np.int64]:
        """Where the titles that there are (or these) say one of these stems for the first time, in their order."""
        starts, indexed = self._sorted_starts, len(self._sorted)
        tokens = [stem + 1 for stem in found]
        old = [self._sorted[starts[one] : starts[one + 1]] for one in tokens if one + 1 < len(starts)]
        new = indexed + np.flatnonzero(np.isin(self.tokens[indexed:], tokens))
        at = np.sort(np.concatenate([*old, new])) if len(tokens) != 1 else np.concatenate([*old, new])
        at = at[self.first[at]]
        there: NDArray[np.int64] = at[(self.present if among is None else among)[self.owners[at]]]
        return there

    def holding(self, found: Iterable[int]) -> Mask:
        """Which titles (n,) hold one of these stems."""
        mask = np.zeros(len(self), np.bool_)
        mask[self.owners[self.places(found)]] = True
        return mask

    # -- which words

    def beginning(self, letters: str) -> dict[int, list[int]]:
        """Stems of the words that begin so, each with the forms that do."""
        known = self.written.ordered()
        low = bisect.bisect_left(known, letters)
        high = bisect.bisect_left(known, letters + "\U0010ffff")
        return self._by_stem(known[low:high])

    def nearly(self, letters: str) -> dict[int, list[int]]:
        """The same of words that begin nearly so: with the same letter, and then with as few edits as there are."""
        allowed = edits_allowed(letters)
        if not allowed or not letters.isalpha():
            return {}
        from rapidfuzz import process
        from rapidfuzz.distance import OSA

        known = self.written.ordered()
        low = bisect.bisect_left(known, letters[0])
        some = known[low : bisect.bisect_left(known, letters[0] + "\U0010ffff")]
        best: dict[str, int] = {}
        for length in range(len(letters) - allowed, len(letters) + allowed + 1):
            cut = [word[:length] for word in some]
            for _, away, place in process.extract(
                letters, cut, scorer=OSA.distance, score_cutoff=allowed, limit=None
            ):
                best[some[place]] = min(best.get(some[place], allowed), round(away))
        least = min(best.values(), default=0)
        return self._by_stem(sorted(word for word, away in best.items() if away == least))

    def _by_stem(self, found: Sequence[str]) -> dict[int, list[int]]:
        by_stem: dict[int, list[int]] = {}
        for word in found:
            form = self.written[word]
            by_stem.setdefault(self.form_stems[form], []).append(form)
        return by_stem

    # -- what to say

    def phrases(
        self,
        found: Mapping[int, Sequence[int]],
        at: NDArray[np.int64],
        typed: Collection[int],
        whole: int | None,
        k: int,
    ) -> list[Phrase]:
        """How titles go on: the completions ``found`` at these places, and the most frequent of them with what follows.

        ``typed``: the stems of the words before, ``whole``: that of the last one if it is a word already. Most
        frequent first, at least ``LEAST`` titles each.
        """
        here = self.tokens[at]
        counts = np.bincount(here, minlength=1)
        order = sorted(
            (stem for stem in (np.flatnonzero(counts >= LEAST) - 1).tolist() if stem not in typed),
            key=lambda stem: (-int(counts[stem + 1]), self.stems[stem]),
        )[: max(k, _GROWN)]
        if whole is not None and whole in order:
            order.remove(whole)
            order.insert(0, whole)
        made: dict[tuple[int, ...], Phrase] = {}
        for n, stem in enumerate(order):
            some = at[here == stem + 1]
            for phrase in self._from(some, found[stem], typed, further=n < _GROWN, before=stem == whole):
                made.setdefault(tuple(sorted(phrase.stems)), phrase)
        return sorted(made.values(), key=lambda one: (-one.count, len(one.stems), self.said(one)))

    def said(self, phrase: Phrase) -> str:
        """A phrase as a title writes it, in small letters."""
        title = int(self.owners[phrase.at])
        text, found = self.texts[title], spans(self.texts[title])
        words = np.flatnonzero(self.tokens[self.starts[title] : self.starts[title + 1]]) + self.starts[title]
        first, head = np.searchsorted(words, [phrase.at, phrase.head or 0]).tolist()
        told = text[found[first][0] : found[first + phrase.length - 1][1]]
        return (told if phrase.head is None else f"{told} {text[slice(*found[head][:2])]}").lower()

    def _from(
        self,
        at: NDArray[np.int64],
        forms: Sequence[int],
        typed: Collection[int],
        *,
        further: bool,
        before: bool,
    ) -> Iterator[Phrase]:
        """Phrases of the word at these places: it with what belongs to it, and what these go on to."""
        length, here = 1, at
        known = [(length, here)]
        while length < _LONGEST:  # what nearly always follows belongs to it
            following = self.tokens[here + length]
            often = np.bincount(following)
            often[0] = 0
            best = int(often.argmax())
            if often[best] < max(LEAST, _TOGETHER * len(here)) or best - 1 in typed:
                break
            here, length = here[following == best], length + 1
            if not self._glue(best):
                known.append((length, here))
        length, here = known[-1]
        yield self._phrase(here, length, forms)
        if not further:
            return
        said = {*typed, *(self.tokens[here[0] : here[0] + length] - 1).tolist()}
        following = self.tokens[here + length]
        for word in self._frequent(following, said):
            yield self._phrase(here[following == word], length + 1, forms)
        stop = self.breaks[np.searchsorted(self.breaks, here)] - 1  # the last word of the stretch
        heads = np.where(stop > here + length, self.tokens[stop], 0)
        for word in self._frequent(heads, said):
            some = heads == word
            yield self._phrase(here[some], length, forms, stop[some])
        if before and not typed:  # what things are called goes on to the left: "casual shirts"
            here = here[np.isin(self.forms[here], np.array(forms) + 1)]
            previous = self.tokens[here - 1]
            for word in self._frequent(previous, said, ending=False):
                yield self._phrase(here[previous == word] - 1, length + 1, forms)

    def _frequent(self, found: NDArray[np.int32], said: Collection[int], ending: bool = True) -> list[int]:
        """The most frequent of these words that ``LEAST`` titles have, that were not said yet, and may end a phrase."""
        often = np.bincount(
            found, minlength=len(self.often)
        )  # another thread may have learnt more stems since
        often[[0, *(stem + 1 for stem in said if stem + 1 < len(often))]] = 0
        if ending:
            often[self.ending < _ENDS * self.uses] = 0
        some = np.flatnonzero(often >= LEAST)
        best = some[np.argsort(-often[some], kind="stable")][:_LONGEST].tolist()
        return [word for word in best if ending or not self._glue(word)]

    def _glue(self, word: int) -> bool:
        """Whether a word ends no phrase: "of", "for"."""
        return len(self.stems[word - 1]) <= 3 and bool(self.ending[word] < _ENDS / 5 * self.uses[word])

    def _phrase(
        self,
        at: NDArray[np.int64],
        length: int,
        forms: Sequence[int],
        heads: NDArray[np.int64] | None = None,
    ) -> Phrase:
        """The phrase at these places, one a title; it is shown as most of them write it that begin as was typed."""
        count, at = len(at), at[:_SHOWN]
        last = at + length - 1 if heads is None else heads[:_SHOWN]
        stems = [
            *self.tokens[at[0] : at[0] + length].tolist(),
            *([] if heads is None else [self.tokens[heads[0]]]),
        ]
        begun = np.isin(self.forms[at], np.array(forms) + 1)
        choice = np.flatnonzero(begun) if begun.any() else np.arange(len(at))
        for where in (last, at):
            often = np.bincount(self.forms[where[choice]])
            choice = choice[self.forms[where[choice]] == often.argmax()]
        one = int(choice[0])
        told = tuple(int(stem) - 1 for stem in stems)
        return Phrase(told, count, int(at[one]), length, None if heads is None else int(heads[one]))
