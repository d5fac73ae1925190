"""Words of texts and queries: cut, folded, stemmed.

A word is a run of letters and digits; an apostrophe within it belongs to it. Words compare without case and accents,
without the genitive's ``'s``, and by their stem: that of SQLite's own Porter stemmer (Porter, "An algorithm for suffix
stripping", 1980), so that ``shirts`` finds ``shirt``. Words that are tied together (``t-shirt``, ``H&M``, ``U.S.``) are
also one: ``tshirt``.
"""

from __future__ import annotations

import functools
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Sequence

# Accents, points and vowel signs are no letters to ``re``: those of Latin, Greek, Cyrillic, Hebrew, Arabic, the scripts
# of India and Sri Lanka, Thai, Lao, Myanmar and Khmer.
_MARKS = (
    r"\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
    r"\u0900-\u0963\u0971-\u0df3\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3"
)
_RUN = rf"(?:[^\W_]++|[{_MARKS}]++)++"  # never tried in another way: it could take for ever
_LETTERS = rf"{_RUN}(?:['’]{_RUN})*+"
_WORD = re.compile(_LETTERS)
_TIES = "-‐‑&."
_TIED = re.compile(rf"{_LETTERS}(?:(?:[-‐‑&]|\.(?!\d))(?:{_LETTERS}))+")


def words(text: str) -> list[str]:
    """The folded words of a text, in their order."""
    return [folded(word) for word in _WORD.findall(text)]


def spans(text: str) -> list[tuple[int, int, str]]:
    """Start, end (characters) and folded form of each word of a text."""
    return [(found.start(), found.end(), folded(found[0])) for found in _WORD.finditer(text)]


def tied(text: str) -> list[tuple[int, int, str]]:
    """Start, end and folded form, in one, of words tied together by a hyphen, an ``&``, or a dot that is no decimal
    point.
    """
    if not any(tie in text for tie in _TIES):
        return []
    found = ((one.start(), one.end(), one[0]) for one in _TIED.finditer(text))
    return [(start, end, "".join(words(whole))) for start, end, whole in found]


@functools.lru_cache(maxsize=50_000)
def folded(word: str) -> str:
    """A word as it is compared: without case, accents, and the genitive's ending."""
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
        word = word.replace("’", "'")
    word = word.casefold()
    return word.removesuffix("'s").replace("'", "")


MOST = 200_000
"""So many stems are kept: queries bring words without end."""


class Stemmer:
    """Stems of folded words, each worked out once. May be shared between threads."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE t USING fts5(word, content='', tokenize='porter unicode61')"
        )
        self._database.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")

    def stems(self, found: Sequence[str]) -> list[str]:
        """The stem of each word."""
        known = self._known
        try:
            return [known[word] for word in found]
        except KeyError:
            with self._lock:
                if len(self._known) > MOST:
                    self._known = {}
                known = self._known
                self._learn(known, {word for word in found if word not in known})
                return [known[word] for word in found]

    def _learn(self, known: dict[str, str], new: Iterable[str]) -> None:
        """Add the stems of new words. Under the lock."""
        fresh = list(new)
        self._database.execute("INSERT INTO t(t) VALUES ('delete-all')")
        self._database.executemany("INSERT INTO t(rowid, word) VALUES (?, ?)", enumerate(fresh))
        terms: dict[int, list[str]] = {}
        for place, term in self._database.execute("SELECT doc, term FROM v ORDER BY doc, offset"):
            terms.setdefault(place, []).append(term)
        for place, word in enumerate(fresh):  # what SQLite sees no word in, or several, is its own stem
            (stem,) = terms[place] if len(terms.get(place, ())) == 1 else (word,)
            known[word] = stem


@functools.cache
def stemmer() -> Stemmer:
    """The one stemmer of this process."""
    return Stemmer()


def stems(found: Sequence[str]) -> list[str]:
    """The stem of each folded word."""
    return stemmer().stems(found)
