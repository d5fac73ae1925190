"""A brute-force collection: what a search must find, worked out in float64 over plain dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch import Hit, Modality, NewItem, NewPart
from mmsearch.types import AttributeValue

TOLERANCE = 2e-6
"""float32 against float64 sums of a few products below 1."""


def unit(vector: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector at length 1."""
    return np.ascontiguousarray(vector / np.linalg.norm(vector), np.float32)


def directions(count: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors (count, dim) in no particular order."""
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return np.ascontiguousarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part: its modality, its vector as the caller gave it, and what it says."""

    modality: Modality
    vector: NDArray[np.float32]
    text: str | None = None

    def score(self, query: NDArray[np.float32]) -> float:
        """The inner product with what is left of the vector in half precision."""
        stored = self.vector.astype(np.float16).astype(np.float64)
        return float(stored @ query.astype(np.float64))


@dataclasses.dataclass(frozen=True)
class Thing:
    """An item. Byte-identical items share a ``content``."""

    pieces: Sequence[Piece]
    attributes: Mapping[str, AttributeValue] = dataclasses.field(default_factory=dict)
    content: bytes | None = None
    is_file: bool = False

    def new(self, key: str) -> NewItem:
        """The item as one gives it to ``Engine.add``."""
        parts = [NewPart(modality=p.modality, vector=p.vector, text=p.text) for p in self.pieces]
        return NewItem(
            key=key,
            modality=parts[0].modality,
            parts=parts,
            attributes=self.attributes,
            content_hash=self.content,
            is_file=self.is_file,
            size=1 if self.is_file else None,
            mtime_ns=1 if self.is_file else None,
        )


Collected = Mapping[str, Thing]


def groups(
    things: Collected,
    query: NDArray[np.float32],
    *,
    modality: Modality | None = None,
    allowed: Callable[[str, Thing], bool] = lambda key, thing: True,
    shift: Mapping[Modality, float] | None = None,
    excluded: Collection[str] = (),
    min_score: float | None = None,
) -> list[tuple[float, frozenset[str]]]:
    """Every score with the keys of the byte-identical items that share it, best first."""
    scores: dict[str, float] = {}
    for key, thing in things.items():
        if key in excluded or not allowed(key, thing):
            continue
        found = [
            piece.score(query) + (shift or {}).get(piece.modality, 0.0)
            for piece in thing.pieces
            if modality in (None, piece.modality)
        ]
        if found and (min_score is None or max(found) >= min_score):
            scores[key] = max(found)
    alike: dict[bytes, list[str]] = {}
    for key in scores:
        alike.setdefault(things[key].content or key.encode(), []).append(key)
    return sorted(((max(scores[key] for key in keys), frozenset(keys)) for keys in alike.values()), key=_best)


def _best(pair: tuple[float, frozenset[str]]) -> tuple[float, list[str]]:
    return -pair[0], sorted(pair[1])


def assert_best(
    hits: Sequence[Hit],
    expected: Sequence[tuple[float, frozenset[str]]],
    k: int,
    tolerance: float = TOLERANCE,
) -> None:
    """``hits`` are a right answer for the best ``k`` of ``expected``: exact scores, any order among equals."""
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert len(hits) == min(k, len(expected))
    score_of = {key: score for score, keys in expected for key in keys}
    for hit, (score, _) in zip(hits, expected, strict=False):
        assert hit.item.key in score_of, f"{hit.item.key} must not be found"
        assert abs(hit.score - score_of[hit.item.key]) <= tolerance
        assert abs(hit.score - score) <= tolerance  # the best at this rank
    group_of = {key: keys for _, keys in expected for key in keys}
    found = [group_of[hit.item.key] for hit in hits]
    assert len(set(found)) == len(found), "byte-identical items come once"
    for hit, keys in zip(hits, found, strict=True):
        assert {hit.item.key, *hit.copies} == keys, "all copies are named"
