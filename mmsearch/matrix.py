"""The vectors of one modality as one matrix, for searches that must know the score of every item.

Facets, boosts, thresholds, sorting and full-text fusion look at the whole result and not at its best ten: the product
of a matrix with the query gives all scores in about the time that a vector index takes to sort its candidates, up to
some 100,000 parts. What limits it is memory bandwidth, so a matrix of many parts is scanned in its leading principal
directions only (see ``mmsearch.vectors``): a sixth of the bytes, with an error of about 0.005. The caller scores the
best exactly.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.ranking import products
from mmsearch.types import Ids, Vector
from mmsearch.vectors import principal_directions

EXACT = 4_000
"""Up to so many parts whole vectors are scanned."""

WHOLE = 200_000
"""Up to so many parts whole vectors are kept in memory too, in half precision as the catalog has them; those of more
are read from there when they are needed.
"""

_BLOCK = 4096  # vectors that are read from the catalog at once
_SAMPLE = 20_000  # vectors that the projection learns from

Rows = NDArray[np.float32]
Stored = NDArray[np.float16]
_Number = TypeVar("_Number", np.float32, np.float16)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Vectors of the parts at the places 0 .. n-1 of ``columns.Parts``; zeros where a part is gone.

    ``scanned``: float32 (n, d). ``down``: float32 (d, dim), the projection; None: d is dim, and all scores are exact.
    ``whole``: (n, dim), float16 as stored (float32 if that is what is scanned), or None if that is too much. Rows that
    several states share lie in one buffer, which only grows: nobody reads beyond its own n.
    """

    scanned: Rows
    down: Rows | None
    whole: Rows | Stored | None

    @property
    def exact(self) -> bool:
        """Whether scores are those of the catalog's vectors."""
        return self.down is None

    def scores(self, query: Vector) -> NDArray[np.float32]:
        """Inner products (n,) with a query (dim,)."""
        return products(self.scanned, query if self.down is None else products(self.down, query))

    def exact_scores(
        self, catalog: Catalog, ids: Ids, places: NDArray[np.int64], query: Vector
    ) -> NDArray[np.float32]:
        """Inner products (m,) of the vectors at some places with a query (dim,); 0 where a part is gone.

        ``ids`` (n,) are those of all parts.
        """
        if self.whole is not None:
            return products(self.whole[places].astype(np.float32, copy=False), query)
        scores = np.zeros(len(places), np.float32)
        candidates = catalog.candidates(ids[places])
        if len(candidates.ids):
            order = np.argsort(ids[places])
            at = order[np.searchsorted(ids[places], candidates.ids, sorter=order)]
            scores[at] = products(candidates.vectors.astype(np.float32), query)
        return scores

    def extended(self, catalog: Catalog, ids: Ids) -> Matrix:
        """The next state: ``ids`` are all parts, the first n of them those that are here. Not for two threads at
        once.
        """
        known, wanted = len(self.scanned), len(ids)
        if known == wanted:
            return self
        if self.down is None and wanted > EXACT:
            dim = self.scanned.shape[1]
            return read_matrix(catalog, ids, dim)
        fresh = _read(catalog, ids[known:], (self.scanned if self.down is None else self.down).shape[1])
        if self.down is None:
            scanned = _grown(self.scanned, fresh)
            return Matrix(scanned, None, scanned)
        whole = None
        if self.whole is not None and wanted <= WHOLE:
            whole = _grown(self.whole.astype(np.float16, copy=False), fresh)
        return Matrix(_grown(self.scanned, fresh @ self.down.T), self.down, whole)

    def kept(self, places: NDArray[np.int64]) -> Matrix:
        """The vectors at these places (m,), ascending, only; those that are not here yet come later."""
        places = places[: np.searchsorted(places, len(self.scanned))]
        scanned = _copied(self.scanned, places)
        if self.down is None or self.whole is None:
            return Matrix(scanned, self.down, None if self.whole is None else scanned)
        return Matrix(scanned, self.down, _copied(self.whole.astype(np.float16, copy=False), places))


def read_matrix(catalog: Catalog, ids: Ids, dim: int) -> Matrix:
    """The vectors (n, dim) of the parts ``ids`` (n,), ascending."""
    nothing = np.zeros((0, dim), np.float32)
    if len(ids) <= EXACT:
        whole = _grown(nothing, _read(catalog, ids, dim))
        return Matrix(whole, None, whole)
    chosen = np.random.default_rng(0).choice(ids, min(len(ids), _SAMPLE), replace=False)
    down = principal_directions(_read(catalog, np.sort(chosen), dim))
    keep = len(ids) <= WHOLE
    scanned: Rows = _roomy(len(ids), len(down), np.dtype(np.float32))
    stored: Stored = _roomy(len(ids) if keep else 0, dim, np.dtype(np.float16))
    for start in range(0, len(ids), _BLOCK):
        some = _read(catalog, ids[start : start + _BLOCK], dim)
        scanned[start : start + len(some)] = some @ down.T
        if keep:
            stored[start : start + len(some)] = some
    return Matrix(scanned, down, stored if keep else None)


def _read(catalog: Catalog, ids: Ids, dim: int) -> Rows:
    """Vectors (n, dim) of parts, ascending by id."""
    rows = np.zeros((len(ids), dim), np.float32)
    for start in range(0, len(ids), _BLOCK):
        found = catalog.candidates(ids[start : start + _BLOCK])
        if len(found.ids):
            rows[np.searchsorted(ids, found.ids)] = found.vectors
    return rows


def _grown(rows: NDArray[_Number], more: Rows) -> NDArray[_Number]:
    """Rows with others behind them: in the same buffer if it has room."""
    known, wanted = len(rows), len(rows) + len(more)
    buffer = rows.base
    if not isinstance(buffer, np.ndarray) or buffer.shape[1:] != rows.shape[1:] or len(buffer) < wanted:
        grown = _roomy(wanted, rows.shape[1], rows.dtype)
        grown[:known] = rows
    else:
        grown = buffer[:wanted]
    grown[known:] = more
    return grown


def _copied(rows: NDArray[_Number], places: NDArray[np.int64]) -> NDArray[_Number]:
    """Some of the rows, in a buffer of their own with room for more."""
    copy = _roomy(len(places), rows.shape[1], rows.dtype)
    np.take(rows, places, axis=0, out=copy, mode="clip")  # all are there; else it would be copied twice
    return copy


def _roomy(n: int, dim: int, dtype: np.dtype[_Number]) -> NDArray[_Number]:
    """Zeros (n, dim) at the start of a buffer with room for more, which takes no memory until it is used."""
    buffer: NDArray[_Number] = np.zeros((n + n // 4 + 64, dim), dtype)
    return buffer[:n]
