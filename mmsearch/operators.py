"""What a query says beyond its words, as people know it from search boxes: ``-word`` and ``"some words"``.

Items that hold what stands behind a minus are no answer, and every answer holds what stands between quotes, just so.
A minus counts in front of a letter or of quotes where a word may begin; a text of nothing else is read as it stands.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.columns import Columns
from mmsearch.fulltext import FullText
from mmsearch.words import stems, words

_OPERATOR = re.compile(r'(?<!\S)(-?)["“”]([^"“”]+)["“”]|(?<!\S)-([^\W\d_]\S*)')

Phrase = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Said:
    """A text without its operators, the phrases (folded words) that must be there, and those that must not."""

    text: str
    must: Sequence[Phrase] = ()
    never: Sequence[Phrase] = ()

    @classmethod
    def read(cls, text: str) -> Said:
        """A text as it is meant."""
        must: list[Phrase] = []
        never: list[Phrase] = []

        def taken(found: re.Match[str]) -> str:
            minus, quoted, word = found.groups()
            (never if minus or word else must).append(words(quoted or word))
            return " " if minus or word else str(quoted)

        rest = _OPERATOR.sub(taken, text).strip()
        if rest == text or not words(rest):
            return cls(text)
        return cls(rest, [phrase for phrase in must if phrase], [phrase for phrase in never if phrase])

    @classmethod
    def joined(cls, texts: Sequence[Said]) -> Said:
        """What several texts say together."""
        return cls(
            " ".join(one.text for one in texts),
            [phrase for one in texts for phrase in one.must],
            [phrase for one in texts for phrase in one.never],
        )

    def passing(
        self, full_text: FullText, catalog: Catalog, collection: int, columns: Columns
    ) -> NDArray[np.bool_]:
        """Which item rows (n,) hold every phrase that must be there and none that must not.

        A single word behind a minus counts by its stem; phrases are looked for in the texts themselves.
        """
        mask = np.ones(len(columns.item_ids), np.bool_)
        for phrases, wanted in ((self.must, True), (self.never, False)):
            for phrase in phrases:
                here = mask & _holding(full_text, phrase, len(mask))
                if wanted or len(phrase) > 1:
                    rows = np.flatnonzero(here)
                    items = catalog.existing(
                        collection, columns.item_ids[rows].tolist(), with_parts=True, fields=()
                    )
                    texts = {
                        item.id: [item.title or "", *(part.text or "" for part in item.parts)]
                        for item in items.values()
                    }
                    for row, item_id in zip(rows.tolist(), columns.item_ids[rows].tolist(), strict=True):
                        here[row] = any(_in(phrase, text) for text in texts.get(item_id, ()))
                mask &= here if wanted else ~here
        return mask


def _holding(full_text: FullText, phrase: Phrase, n: int) -> NDArray[np.bool_]:
    """Which rows hold the stems of all these words."""
    mask = np.ones(n, np.bool_)
    for stem in stems(phrase):
        here = np.zeros(n, np.bool_)
        if (code := full_text.stems.codes.get(stem)) is not None:
            here[full_text.rows[full_text.postings(code)[0]]] = True
        mask &= here
    return mask


def _in(phrase: Phrase, text: str) -> bool:
    return f" {' '.join(phrase)} " in f" {' '.join(words(text))} "
