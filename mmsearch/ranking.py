"""Ranking: composing query vectors, the best part of each item, fusing ranked lists."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import QueryError
from mmsearch.types import Ids, Vector

_H = TypeVar("_H", bound=Hashable)


def compose(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """One unit vector (dim,) from weighted unit vectors; negative weights steer away.

    Raises ``QueryError`` if there is nothing to add up, a weight is not finite, or the terms cancel out.
    """
    if not vectors:
        raise QueryError("the query is empty: give words, a picture or an item")
    if not np.isfinite(weights).all() or not any(weights):
        raise QueryError("the weights of a query must be finite numbers, not all zero")
    total = np.einsum("t,td->d", np.asarray(weights, np.float64), np.stack(vectors).astype(np.float64))
    length = float(np.linalg.norm(total))
    if length < 1e-6 * float(np.abs(weights).sum()):
        raise QueryError(
            "the terms of the query cancel out: nothing is left to search for; change the weights"
        )
    return np.ascontiguousarray(total / length, np.float32)


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
