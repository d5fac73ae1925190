"""The words of a text and their parts as rows of a table, so that a head can know words one by one.

After Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (fastText), with the hashing trick.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["hashed", "ngram_rows", "padded"]

PARTS = range(3, 6)  # characters
SYLLABLES = range(1, 4)  # of kana and Han, where words are not set apart by blanks
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LATIN = "0-9a-z\u00df-\u00f6\u00f8-\u024f\u1e00-\u1eff\u0300-\u036f"
_ARABIC = "\u0620-\u0669\u066e-\u06d3\u06fa-\u06fc"
_DEVANAGARI = "\u0900-\u0963\u0966-\u096f\u0971-\u097f"
_WORD = re.compile(f"(?P<unspaced>[{_UNSPACED}]+)|(?P<word>[{_LATIN}{_ARABIC}{_DEVANAGARI}]+)")
"""Other scripts, of which too few words are learnt, have no n-grams: theirs would share the rows of words that are."""


def ngram_rows(texts: Sequence[str], rows: int) -> NDArray[np.int64]:
    """(n, m) int64, m at least 1: for each text the rows, 1 to `rows`, of its n-grams, padded with 0.

    A word in Latin, Arabic or Devanagari letters counts as a whole, ``<word>``, and by its 3 to 5 characters, its ends
    marked; kana and Han, which are written without blanks, by 1 to 3 characters. Upper case and width of letters make
    no difference.
    """
    return padded([hashed(text, rows) for text in texts])


def hashed(text: str, rows: int) -> list[int]:
    """The rows of one text."""
    return [zlib.crc32(gram.encode()) % rows + 1 for gram in _ngrams(text)]


def padded(found: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(n, m) from n sequences, with zeros behind the shorter ones."""
    out = np.zeros((len(found), max(map(len, found), default=0) or 1), np.int64)
    for row, ids in zip(out, found, strict=True):
        row[: len(ids)] = ids
    return out


def _ngrams(text: str) -> Iterator[str]:
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).lower()):
        word = match["word"]
        if word is None:
            word, lengths = match["unspaced"], SYLLABLES
        else:
            word, lengths = f"<{word}>", PARTS
            yield word
        for length in lengths:
            for start in range(len(word) - length + 1):
                if match["word"] is None or length < len(word):  # the whole is there already
                    yield word[start : start + length]
