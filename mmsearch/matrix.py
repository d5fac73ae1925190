"""The vectors of one modality as one matrix, for searches that must know the score of every item.

Facets, boosts, thresholds, sorting and full-text fusion look at the whole result and not at its best ten: the product of
a matrix with the query gives all scores in about the time that a vector index takes to sort its candidates, up to some
100,000 parts. A large matrix holds the vectors' leading principal directions only (see ``mmsearch.vectors``); its scores
are estimates, and the caller scores the best of them exactly.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.types import Ids, Vectors
from mmsearch.vectors import principal_directions

EXACT = 50_000
"""Up to so many parts the matrix holds whole vectors and scores are exact."""

_BLOCK = 4096  # vectors that are read from the catalog at once


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Vectors of the parts at the places 0 .. n-1 of ``columns.Parts``.

    ``rows``: float32 (n, d), zeros where the part is gone. ``down``: float32 (d, dim), the projection; None: d is dim.
    Rows that several states share lie in one buffer, which only grows: nobody reads beyond its own n.
    """

    rows: NDArray[np.float32]
    down: NDArray[np.float32] | None = None
    buffer: NDArray[np.float32] | None = None

    @property
    def exact(self) -> bool:
        """Whether scores are those of the catalog's vectors."""
        return self.down is None

    def scores(self, queries: Vectors) -> NDArray[np.float32]:
        """Inner products (q, n) with queries (q, dim)."""
        if self.down is not None:
            queries = queries @ self.down.T
        found = np.empty((len(queries), len(self.rows)), np.float32)
        for query, out in zip(np.ascontiguousarray(queries), found, strict=True):
            np.dot(self.rows, query, out=out)
        return found

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (m, d) at these places, projected if the matrix is."""
        return self.rows[places]

    def extended(self, catalog: Catalog, ids: Ids) -> Matrix:
        """The next state: ``ids`` are all parts, the first n of them those that are here. Not for two threads at once."""
        known, wanted = len(self.rows), len(ids)
        if known == wanted:
            return self
        if self.down is None and wanted > EXACT:
            return read(catalog, ids, self.rows.shape[1])
        buffer = self.buffer
        if buffer is None or len(buffer) < wanted or self.rows.base is not buffer:
            buffer = np.zeros((wanted + wanted // 4 + 64, self.rows.shape[1]), np.float32)
            buffer[:known] = self.rows
        _fill(catalog, buffer, ids, known, self.down)
        return Matrix(buffer[:wanted], self.down, buffer)


def read(catalog: Catalog, ids: Ids, dim: int) -> Matrix:
    """The vectors (n, dim) of the parts ``ids`` (n,), ascending."""
    down = None
    if len(ids) > EXACT:
        chosen = np.random.default_rng(0).choice(ids, min(len(ids), EXACT), replace=False)
        down = principal_directions(catalog.candidates(np.sort(chosen)).vectors.astype(np.float32))
    buffer = np.zeros((len(ids) + len(ids) // 4 + 64, dim if down is None else len(down)), np.float32)
    _fill(catalog, buffer, ids, 0, down)
    return Matrix(buffer[: len(ids)], down, buffer)


def _fill(
    catalog: Catalog, buffer: NDArray[np.float32], ids: Ids, start: int, down: NDArray[np.float32] | None
) -> None:
    for first in range(start, len(ids), _BLOCK):
        some = ids[first : first + _BLOCK]
        found = catalog.candidates(some)
        if not len(found.ids):
            continue
        vectors = found.vectors.astype(np.float32)
        places = first + np.searchsorted(some, found.ids)
        buffer[places] = vectors if down is None else vectors @ down.T
