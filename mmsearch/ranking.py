"""Ranking: composing query vectors, the best part of each item, fusing ranked lists."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import QueryError
from mmsearch.types import Ids, Modality, Vector

_H = TypeVar("_H", bound=Hashable)


Scale: TypeAlias = tuple[float, float]
"""(factor, offset): a cosine's score is factor * cosine + offset."""


def products(rows: NDArray[np.float32], query: Vector) -> NDArray[np.float32]:
    """Inner products (n,) of rows (n, dim) with a query (dim,), on the thread that asks.

    BLAS would share even this out to all cores and wait for the slowest: with searches side by side that costs a
    hundred times as much.
    """
    found: NDArray[np.float32] = np.einsum("nd,d->n", rows, query)
    return found


def compose(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """One unit vector (dim,) from weighted unit vectors; negative weights steer away.

    Raises ``QueryError`` if there is nothing to add up, a weight is not finite, or the terms cancel out.
    """
    if not vectors:
        raise QueryError("the query is empty: give words, a picture, a sound or an item")
    if not np.isfinite(weights).all() or not any(weights):
        raise QueryError("the weights of a query must be finite numbers, not all zero")
    total = np.einsum("t,td->d", np.asarray(weights, np.float64), np.stack(vectors).astype(np.float64))
    length = float(np.linalg.norm(total))
    if length < 1e-6 * float(np.abs(weights).sum()):
        raise QueryError(
            "the terms of the query cancel out: nothing is left to search for; change the weights"
        )
    return np.ascontiguousarray(total / length, np.float32)


def centred(
    query: Vector,
    asked: Mapping[Modality, float],
    means: Mapping[Modality, Vector],
    spreads: Mapping[Modality, Mapping[Modality, float]],
) -> dict[Modality, Scale]:
    """What makes scores of several modalities comparable.

    Each modality lies in a cone of its own (Liang et al., "Mind the Gap", NeurIPS 2022): the cosine of a query (dim,)
    with a text differs from that with a picture as such, and from text to text it also spreads wider. So from each
    cosine goes the one with the modality's mean, and what is left counts in units of the modality's spread: what
    ``spreads`` (query's modality -> items' modality) say that 1 of 100 unrelated items exceeds. ``asked`` are the
    weights of the query's modalities (empty: unknown, all alike). Within a modality the order stays; the scores of
    pictures (of the first modality, if pictures have no mean) stay too, and the others are brought to theirs.
    """
    weights = asked or dict.fromkeys(spreads, 1.0)
    spread = {
        modality: sum(weight * spreads[one][modality] for one, weight in weights.items())
        for modality in means
    }
    reference = Modality.IMAGE if Modality.IMAGE in means else next(iter(means))
    scales: dict[Modality, Scale] = {}
    for modality, mean in means.items():
        factor = spread[reference] / spread[modality]
        scales[modality] = (factor, float(query @ means[reference] - factor * (query @ mean)))
    return scales


def best_parts(owners: Ids, scores: NDArray[np.float32], ids: Ids) -> NDArray[np.int64]:
    """Positions of each item's best part, best item first; ties go to the lower part id.

    ``owners``, ``scores`` and ``ids``: (n,) item id, score and part id of each candidate.
    """
    order = np.lexsort((ids, -scores))
    _, first = np.unique(owners[order], return_index=True)
    return order[np.sort(first)]


def reciprocal_rank_fusion(lists: Sequence[Sequence[_H]], constant: float = 60.0) -> dict[_H, float]:
    """Score of each entry: the sum over the lists of 1 / (constant + rank), rank from 1; best first.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet" (SIGIR 2009). Ties keep the order
    in which entries were first seen.
    """
    scores: dict[_H, float] = {}
    for ranked in lists:
        for rank, entry in enumerate(ranked, start=1):
            scores[entry] = scores.get(entry, 0.0) + 1.0 / (constant + rank)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


def standard(scores: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores (n,) in standard deviations above their mean, both taken over the ``chosen``; 0 where all are alike."""
    spread = float(scores[chosen].std()) if chosen.any() else 0.0
    return (scores - float(scores[chosen].mean())) / spread if spread > 1e-9 else np.zeros(len(scores))


def trust(near: NDArray[np.float64]) -> float:
    """How much a word counts whose items have these standard scores (m,) by their vectors: 0.1 .. 1.

    It counts fully where they lie a standard deviation nearer to the query than others: a word that means something
    to the query sets its items apart, and "a", "the" or "looking for" do not. Few items say little, so two more are
    thought of that do.
    """
    return float(np.clip((near.sum() + 2) / (len(near) + 2), 0.1, 1.0))


def convex(
    near: NDArray[np.float64], text: NDArray[np.float64], weight: float, silent: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Hybrid scores (n,): (1 - weight) * near / 3 + weight * text.

    Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023), find that such a sum
    beats reciprocal ranks; so it does in ``benchmarks/shop_relevance.py``. ``near`` are standard scores of the vectors:
    the best of some thousand items lie three to five deviations above the mean. ``text`` is 0 where no word is, about 1
    where all are. Whoever says nothing in words (``silent``), as a bare photo, is not judged by them: its vector stands
    for both.
    """
    alone = near / 3
    return alone + weight * np.where(silent, 0.0, text - alone)


def boosted(scores: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores times factors (> 0); those below 0 are divided, so that a factor above 1 always lifts."""
    return np.where(scores >= 0, scores * factors, scores / factors)
