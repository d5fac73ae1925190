"""Counting: how often each value of an attribute, and each range of values, comes in a result."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mmsearch.attributes import from_seconds, to_seconds
from mmsearch.column import Column
from mmsearch.errors import QueryError
from mmsearch.filters import interval
from mmsearch.shapes import Bound, Bucket, Facet, FacetCounts

Value = str | float | int | bool | datetime


def count(
    facet: Facet, column: Column, chosen: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> FacetCounts:
    """The counts of a facet over the ``chosen`` rows, bool (n,).

    ``groups``, int64 (n,): the group of each row; then a value counts once for each group that has it. Raises
    ``QueryError`` for ranges of what has no order in numbers, or that are none.
    """
    inside = chosen[column.rows]
    owners, values = column.rows[inside], column.values[inside]
    if groups is None:
        everyone = int(np.count_nonzero(chosen))
    else:
        owners = groups[owners]
        everyone = len(np.unique(groups[chosen]))
    plain = column.ascending and groups is None  # no owner comes twice
    having = _owners(owners, plain)
    ends = {}
    if column.kind in ("number", "datetime") and len(values):
        ends = {"least": _value(column, values.min()), "greatest": _value(column, values.max())}
    buckets, distinct, covered = (
        _ranges(facet, column, owners, values, plain)
        if facet.ranges
        else _terms(facet, column, owners, values, plain)
    )
    return FacetCounts(
        attribute=facet.attribute,
        kind=column.kind,
        buckets=buckets,
        distinct=distinct,
        missing=everyone - having,
        others=having - covered,
        **ends,  # type: ignore[arg-type]
    )


def _owners(owners: NDArray[np.int64], plain: bool) -> int:
    return len(owners) if plain else len(np.unique(owners))


def _terms(
    facet: Facet,
    column: Column,
    owners: NDArray[np.int64],
    values: NDArray[np.float64] | NDArray[np.int32],
    plain: bool,
) -> tuple[list[Bucket], int, int]:
    """The most frequent values, how many values there are, and how many owners have one of those shown."""
    if column.kind == "text":
        codes, known = values.astype(np.int64), None
    else:
        known, codes = np.unique(values, return_inverse=True)
        codes = codes.astype(np.int64)
    if not plain and len(codes):  # the same value of one owner counts once
        width = int(codes.max()) + 1
        pairs = np.unique(owners * width + codes)
        owners, codes = pairs // width, pairs % width
    often = np.bincount(codes)
    there = np.flatnonzero(often)
    if len(there) > facet.k > 0:
        limit = np.partition(often[there], len(there) - facet.k)[len(there) - facet.k]
        candidates = there[often[there] >= limit]
    else:
        candidates = there
    named = [
        (-int(often[code]), column.vocabulary[code] if known is None else float(known[code]), int(code))
        for code in candidates.tolist()
    ]
    shown = sorted(named)[: facet.k]
    if plain:
        covered = -sum(negative for negative, *_ in shown)
    else:
        covered = _owners(owners[np.isin(codes, [code for *_, code in shown])], plain)
    buckets = [
        Bucket(value=name if isinstance(name, str) else _value(column, name), count=-negative)
        for negative, name, _ in shown
    ]
    return buckets, len(there), covered


def _ranges(
    facet: Facet,
    column: Column,
    owners: NDArray[np.int64],
    values: NDArray[np.float64] | NDArray[np.int32],
    plain: bool,
) -> tuple[list[Bucket], int, int]:
    """The same of ranges."""
    if column.kind not in ("number", "datetime"):
        raise QueryError(
            f"facet {facet.attribute}: ranges need numbers or dates, {facet.attribute} holds {column.kind}"
        )
    buckets = []
    covered = np.zeros(len(values), np.bool_)
    for low, high in facet.ranges:
        start, end = (_bound(facet, column, bound) for bound in (low, high))
        if start is not None and end is not None and start > end:
            raise QueryError(
                f"facet {facet.attribute}: the range from {low!r} to {high!r} is the wrong way round"
            )
        inside = np.ones(len(values), np.bool_)
        if start is not None:
            inside &= values >= start
        if end is not None:
            inside &= values < end
        covered |= inside
        shown = [None if edge is None else _value(column, edge) for edge in (start, end)]
        buckets.append(Bucket(count=_owners(owners[inside], plain), low=shown[0], high=shown[1]))  # type: ignore[arg-type]
    return buckets, len(np.unique(values)), _owners(owners[covered], plain)


def _bound(facet: Facet, column: Column, bound: Bound) -> float | None:
    """A range's end as it is stored."""
    if bound is None:
        return None
    if column.kind == "datetime":
        if isinstance(bound, datetime):
            return to_seconds(bound)
        within = interval(bound) if isinstance(bound, str) else None
        if within is None:
            raise QueryError(f'facet {facet.attribute}: {bound!r} is no date; write it like "2024-05-01"')
        return within.start
    if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != bound:
        raise QueryError(f"facet {facet.attribute}: the ends of a range are numbers, not {bound!r}")
    return float(bound)


def _value(column: Column, stored: float) -> Value:
    """A stored number as the attribute that it is."""
    if column.kind == "boolean":
        return bool(stored)
    if column.kind == "datetime":
        return from_seconds(float(stored))
    return int(stored) if float(stored).is_integer() else float(stored)


def facet_columns(facets: Sequence[Facet]) -> dict[str, Facet]:
    """The facets by attribute. Raises ``QueryError`` for one that is asked for twice, or for less than one value."""
    found: dict[str, Facet] = {}
    for facet in facets:
        if facet.attribute in found:
            raise QueryError(f"the facet {facet.attribute} is asked for twice")
        if facet.k < 1:
            raise QueryError(f"facet {facet.attribute}: k must be at least 1, not {facet.k}")
        found[facet.attribute] = facet
    return found
