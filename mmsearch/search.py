"""Search: from a query vector to hits.

Filter first, then nearest neighbours per modality, exact scores, best part per item, widened until the k best items
are certain, byte-identical files folded, full text fused in where asked for, and one read to hydrate.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder
from mmsearch.fusing import fused_scales
from mmsearch.ranking import Scale, best_parts, centred, products, reciprocal_rank_fusion
from mmsearch.snapshots import Snapshot
from mmsearch.types import Hit, Ids, Modality, Query, Vector

if TYPE_CHECKING:
    from mmsearch.columns import Columns

OVERSAMPLE = 128
"""So many candidates more than asked for an approximate index proposes; they are scored exactly."""

SCAN = 256
"""So few allowed parts are scored exactly without asking the index."""

FUSED = 100
"""A hybrid search fuses so many of the best items of either list, or ``k`` if that is more."""


def scales(
    encoder: Encoder, vector: Vector, asked: Sequence[Modality | None], weights: Sequence[float]
) -> Mapping[Modality, Scale]:
    """Of each modality what makes its cosines with a query's ``vector`` (dim,) scores of a mixed list.

    ``asked`` and ``weights`` are those of the query's terms. Text lies nearer to text than to any picture: as they are,
    every text would come before every photo. A model without spreads says at least where relevance to a text begins in
    each modality.
    """
    if encoder.spreads:
        means = {modality: encoder.means[modality] for modality in encoder.spreads}
        means, spreads = fused_scales(means, encoder.spreads)
        sums: dict[Modality, float] = {}
        for modality, weight in zip(asked, weights, strict=True):
            if modality in spreads:
                sums[modality] = sums.get(modality, 0.0) + abs(weight)
        return centred(vector, sums, means, spreads)
    levels = encoder.levels
    if Modality.IMAGE not in levels or set(asked) != {Modality.TEXT}:
        return {}
    return {modality: (1.0, levels[Modality.IMAGE] - level) for modality, level in levels.items()}


def with_copies(catalog: Catalog, collection: int, ids: Sequence[int]) -> set[int]:
    """The items of a query and their byte-identical copies: no answer to "more like this"."""
    named = catalog.get(collection, ids) if ids else []
    hashes = [item.content_hash for item in named if item.content_hash is not None]
    return {*ids, *(found for found, _, _ in catalog.same_content(collection, hashes))}


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Parts with their scores: ``ids``, ``owners`` (item ids) and ``scores`` (n,), content hashes of the items."""

    ids: Ids
    owners: Ids
    hashes: Sequence[bytes | None]
    scores: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class _Ranked:
    """Items, best first, one of each content: ids, their best parts, their scores."""

    owners: list[int]
    parts: list[int]
    scores: list[float]


@dataclasses.dataclass(frozen=True)
class Search:
    """One search on one snapshot.

    ``vector`` (dim,) is the composed query, ``asked`` the modalities of its terms (None: unknown); ``excluded`` are
    item ids that must not come back; ``encoder`` is asked how modalities compare if there are several; ``mask`` says
    which item rows of ``columns`` pass the filter.
    """

    catalog: Catalog
    collection: int
    snapshot: Snapshot
    query: Query
    vector: Vector
    asked: Sequence[Modality | None]
    encoder: Callable[[], Encoder]
    excluded: Collection[int]
    columns: Columns | None = None
    mask: NDArray[np.bool_] | None = None

    def hits(self) -> list[Hit]:
        """The ``k`` best items, best first."""
        modalities = [one for one in self._wanted() if len(self.snapshot.indexes.get(one, ()))]
        allowed = {modality: self._allowed(modality) for modality in modalities}
        if self.query.hybrid:
            return self._hydrated(self._fused(allowed))
        return self._hydrated(self._rank(self._nearest_of_all(allowed, self.query.k)))

    def _wanted(self) -> Sequence[Modality]:
        """What is searched. A product as a whole is in its fused vector; a picture may be that of the very product."""
        if self.query.modality:
            return [self.query.modality]
        if not self.snapshot.products:
            return list(Modality)
        pictures = [Modality.IMAGE] if Modality.IMAGE in self.asked else []
        texts = [Modality.TEXT] if self.query.hybrid else []  # where the words are
        return [*pictures, *texts, Modality.FUSED]

    @cached_property
    def _scales(self) -> Mapping[Modality, Scale]:
        return scales(self.encoder(), self.vector, self.asked, [term.weight for term in self.query.terms])

    def _allowed(self, modality: Modality) -> Ids | None:
        if self.mask is None or self.columns is None:
            return None
        ids = self.columns.part_ids(modality, self.mask)
        return None if len(ids) == self.columns.count(modality) else ids

    def _nearest_of_all(self, allowed: Mapping[Modality, Ids | None], k: int) -> list[_Scored]:
        """Parts of each modality, among them the best ones of the ``k`` best items."""
        depth = 2 * (k + len(self.excluded)) + 8
        floor = -np.inf if self.query.min_score is None else self.query.min_score
        mixed = len(allowed) > 1
        while True:
            found = [self._nearest(modality, depth, ids, mixed) for modality, ids in allowed.items()]
            lists = [scored for scored, _ in found]
            # An item outside the lists scores no more than the end of its list (Fagin's threshold algorithm).
            bound = max((limit for _, limit in found), default=-np.inf)
            if bound == -np.inf or bound < floor:
                return lists
            if sum(score >= bound for score in self._rank(lists).scores) >= k:
                return lists
            depth *= 4

    def _nearest(
        self, modality: Modality, depth: int, allowed: Ids | None, mixed: bool
    ) -> tuple[_Scored, float]:
        """Exactly scored parts, and an upper bound for the scores of all others (-inf: there are none)."""
        if allowed is not None and len(allowed) <= SCAN:
            return self._scored(allowed, modality, mixed), -np.inf
        index = self.snapshot.indexes[modality]
        asked = depth if index.kind == "exact" else OVERSAMPLE + depth + depth // 2
        ids, _ = index.search(self.vector, asked, allowed)
        scored = self._scored(ids, modality, mixed)
        if len(ids) < asked:
            return scored, -np.inf
        best = np.sort(scored.scores)[::-1]
        return scored, float(best[min(depth, len(best)) - 1]) if len(best) else np.inf

    def _scored(self, part_ids: Ids, modality: Modality, mixed: bool) -> _Scored:
        """The parts with their scores; those that another process has just removed are left out."""
        found = self.catalog.candidates(part_ids)
        vectors = found.vectors.astype(np.float32).reshape(-1, len(self.vector))
        scores = products(vectors, self.vector)
        if mixed and modality in self._scales:
            factor, offset = self._scales[modality]
            scores = scores * np.float32(factor) + np.float32(offset)
        return _Scored(found.ids, found.owners, found.hashes, scores)

    def _rank(self, lists: Sequence[_Scored]) -> _Ranked:
        ranked = _Ranked([], [], [])
        if not lists:
            return ranked
        ids = np.concatenate([scored.ids for scored in lists])
        owners = np.concatenate([scored.owners for scored in lists])
        scores = np.concatenate([scored.scores for scored in lists])
        hashes = [content for scored in lists for content in scored.hashes]
        seen: set[bytes] = set()
        for place in best_parts(owners, scores, ids).tolist():
            owner, content = int(owners[place]), hashes[place]
            if self.query.min_score is not None and scores[place] < self.query.min_score:
                break
            if owner in self.excluded or content in seen:
                continue
            if content is not None:
                seen.add(content)
            ranked.owners.append(owner)
            ranked.parts.append(int(ids[place]))
            ranked.scores.append(float(scores[place]))
        return ranked

    def _fused(self, allowed: Mapping[Modality, Ids | None]) -> _Ranked:
        """Reciprocal rank fusion of the nearest items with those that hold the query's words, best BM25 first."""
        most = max(FUSED, self.query.k)
        near = self._nearest_of_all(allowed, most)
        said = " ".join(term.text for term in self.query.terms if term.text and term.weight > 0)
        words = list(dict.fromkeys(re.findall(r"\w+", said)))
        limit = 4 * most
        while True:
            matches = self.catalog.full_text(self.collection, words, limit) if words else []
            lists = [self._matching(matches, *pair, len(allowed) > 1) for pair in allowed.items()]
            # Ranked together, so that of byte-identical items both lists name the same one.
            ranked = self._rank([*near, *lists])
            kept = set(ranked.owners)
            owner_of = {
                part: owner
                for found in lists
                for part, owner in zip(found.ids.tolist(), found.owners.tolist(), strict=True)
                if owner in kept
            }
            said_in: dict[int, int] = {}
            for part, _, _ in matches:
                if part in owner_of:
                    said_in.setdefault(owner_of[part], part)
            order = list(said_in)
            if len(order) >= most or len(matches) < limit:
                break
            limit *= 8
        fused = reciprocal_rank_fusion([ranked.owners[:most], order[:most]])
        parts = dict(zip(ranked.owners, ranked.parts, strict=True))
        # A hit names the part that brought it there: the one with the words, unless its nearness ranks it higher.
        nearness = {owner: rank for rank, owner in enumerate(ranked.owners)}
        parts |= {owner: said_in[owner] for rank, owner in enumerate(order) if rank <= nearness[owner]}
        return _Ranked(list(fused), [parts[owner] for owner in fused], list(fused.values()))

    def _matching(
        self,
        matches: Sequence[tuple[int, Modality, float]],
        modality: Modality,
        allowed: Ids | None,
        mixed: bool,
    ) -> _Scored:
        ids = np.array([part for part, named, _ in matches if named == modality], np.int64)
        return self._scored(ids if allowed is None else np.intersect1d(ids, allowed), modality, mixed)

    def _hydrated(self, ranked: _Ranked) -> list[Hit]:
        k = self.query.k
        items = self.catalog.existing(self.collection, ranked.owners[:k])
        parts = self.catalog.parts_by_id(ranked.parts[:k])
        contents = {item.content_hash for item in items.values() if item.content_hash is not None}
        copies: dict[bytes | None, list[tuple[int, str]]] = {}
        for item_id, key, content in self.catalog.same_content(self.collection, contents):
            if self._may_be_found(item_id):
                copies.setdefault(content, []).append((item_id, key))
        hits: list[Hit] = []
        for owner, part, score in zip(ranked.owners[:k], ranked.parts, ranked.scores, strict=False):
            if owner in items and part in parts:  # another process may have removed it a moment ago
                item = items[owner]
                same = tuple(key for copy, key in copies.get(item.content_hash, ()) if copy != owner)
                hits.append(Hit(rank=len(hits) + 1, score=score, item=item, part=parts[part], copies=same))
        return hits

    def _may_be_found(self, item_id: int) -> bool:
        if item_id in self.excluded:
            return False
        if self.mask is None or self.columns is None:
            return True
        row = int(np.searchsorted(self.columns.item_ids, item_id))
        known = row < len(self.mask) and self.columns.item_ids[row] == item_id
        return bool(known and self.mask[row])
