"""A result in its order: sorted no further than somebody looks, groups collapsed, continued after a page."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Key = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Item rows in order: by ``keys`` (each (n,), smaller first, infinity last), then by row.

    ``chosen``: bool (n,), the rows of the result. ``groups``: int64 (n,), the group of each row; of a group only the
    first in the order counts. ``head`` are rows that come first whatever their keys, one of a group.
    """

    keys: Sequence[Key]
    chosen: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None
    head: Sequence[int] = ()

    @functools.cached_property
    def total(self) -> int:
        """How many rows the result has, or groups."""
        if self.groups is None:
            return int(np.count_nonzero(self.chosen))
        return len(np.unique(self.groups[self.chosen]))

    def first(self, m: int) -> Rows:
        """The first rows, at least ``m`` of them if there are so many: one of each group."""
        head = np.array(self.head, np.int64)
        wanted = max(m - len(head), 0)
        deep = wanted
        while True:
            rows, whole = self._best(deep)
            if self.groups is not None:
                codes = self.groups[rows]
                _, place = np.unique(codes, return_index=True)
                rows = rows[np.sort(place)]
                rows = rows[~np.isin(self.groups[rows], self.groups[head])]
            elif len(head):
                rows = rows[~np.isin(rows, head)]
            if whole or len(rows) >= wanted:
                return np.concatenate([head, rows])
            deep = deep * 4 + 64

    def members(self, row: int, most: int) -> Rows:
        """The rows of a row's group in their order, that row first; at most ``most``."""
        if self.groups is None or most < 2:
            return np.array([row])
        here = np.flatnonzero((self.groups == self.groups[row]) & self.chosen)
        here = self._ordered(here)
        return np.concatenate([[row], here[here != row]])[:most]

    def size(self, row: int) -> int:
        """How many rows of the result are in the row's group."""
        if self.groups is None:
            return 1
        return int(np.count_nonzero((self.groups == self.groups[row]) & self.chosen))

    def place_after(self, keys: Sequence[float], row: float) -> int:
        """How many rows of ``first`` come before or at these keys and row; those of the head count as before."""
        rows = self.first(len(self.chosen))[len(self.head) :]
        before = np.zeros(len(rows), np.bool_)
        equal = np.ones(len(rows), np.bool_)
        for mine, key in zip(self.keys, keys, strict=True):
            before |= equal & (mine[rows] < key)
            equal &= mine[rows] == key
        return len(self.head) + int(np.count_nonzero(before | (equal & (rows <= row))))

    def _best(self, m: int) -> tuple[Rows, bool]:
        """The first ``m`` rows at least, groups and head aside, and whether these are all."""
        rows = np.flatnonzero(self.chosen)
        if not self.keys or m >= len(rows) // 2:
            return self._all, True
        first = self.keys[0][rows]
        rows = rows[first <= np.partition(first, m)[m]]  # all that are equal to the last
        return self._ordered(rows), False

    @functools.cached_property
    def _all(self) -> Rows:
        return self._ordered(np.flatnonzero(self.chosen))

    def _ordered(self, rows: Rows) -> Rows:
        """``rows`` (ascending) by their keys."""
        if len(self.keys) == 1:
            return rows[np.argsort(self.keys[0][rows], kind="stable")]
        return rows[np.lexsort([key[rows] for key in reversed(self.keys)])] if self.keys else rows


def marginal_relevance(
    relevance: NDArray[np.float64], vectors: NDArray[np.float32], diversity: float
) -> tuple[list[int], list[float]]:
    """The order of candidates (n,) by maximal marginal relevance, and the value by which each was chosen.

    Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998): next comes whoever has the
    greatest (1 - diversity) * relevance - diversity * (greatest cosine with those before). ``relevance`` is brought to
    0 .. 1 by its least and greatest value; ``vectors`` (n, dim) need not have length 1. Ties go to the first.
    """
    low, high = float(relevance.min(initial=np.inf)), float(relevance.max(initial=-np.inf))
    scaled = (relevance - low) / (high - low) if high > low else np.ones(len(relevance))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float64)
    alike = np.einsum("id,jd->ij", units, units)
    nearest = np.zeros(len(relevance))
    left = np.ones(len(relevance), np.bool_)
    order: list[int] = []
    values: list[float] = []
    for n in range(len(relevance)):
        value = np.where(left, (1 - diversity) * scaled - diversity * nearest, -np.inf)
        best = int(np.argmax(value))
        order.append(best)
        values.append(float(value[best]))
        left[best] = False
        nearest = alike[best] if n == 0 else np.maximum(nearest, alike[best])
    return order, values
