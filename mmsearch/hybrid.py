"""Scores of a hybrid query: what its words and what its vectors say of each item, as one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.fulltext import FullText
from mmsearch.ranking import convex, standard, trust
from mmsearch.wording import Found

USUAL = 0.1
"""A query of words that are more frequent than this share of the items is not judged by them alone."""

RARE = 0.02
"""Beside vectors, words that are rarer than this share of the items count no more than those that are not."""

CODES = 0.9
"""The weight of the text in a query that is nothing but a model's number, or twice its usual one if that is less."""

SAMPLE = 10_000
"""So many of the items that hold a word tell how far it is trusted, spread over all that do."""


def fused(
    near: NDArray[np.float64] | None,
    chosen: NDArray[np.bool_],
    found: Sequence[Found],
    full_text: FullText,
    weight: float,
) -> NDArray[np.float64]:
    """Scores (n,) of all item rows, given their vector scores ``near`` (n,), the rows that are ``chosen`` (n,), and
    what each span of the query finds.

    BM25 counts over what a full match has, each word as far as it is trusted (``mmsearch.ranking.trust``). The less of
    the query the words that are known here make up, the less of ``weight`` the text gets; but what names a model only
    words can find. Without vectors (``near`` is None) words decide alone. The constants, and that words are trusted at
    all, were chosen with ``benchmarks/shop_relevance.py --choose``.
    """
    n = len(chosen)
    apart = standard(near, chosen) if near is not None else np.zeros(n)
    usual, rare = (full_text.ideal(max(1.0, share * full_text.documents)) for share in (USUAL, RARE))
    asked, judged, codes, text = 0.0, 0.0, 0.0, np.zeros(n)
    for one in found:
        counts = 1.0 if near is None else min(1.0, rare / one.ideal)
        asked += counts * one.ideal
        if not len(one.rows):
            continue
        codes += counts * one.ideal if one.code else 0.0
        if near is not None and not one.code:
            some = one.rows[:: len(one.rows) // SAMPLE + 1]
            counts *= trust(apart[some[chosen[some]]])
        text[one.rows] += counts * one.scores
        judged += counts * one.ideal
    if near is None:
        return text / max(asked, usual)
    if not judged:
        return apart / 3
    share = max(weight * judged, min(CODES, 2 * weight) * codes) / max(asked, usual)
    return convex(apart, text / judged, share, full_text.silent & (text == 0))
