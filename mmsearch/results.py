"""Whole results: every item of a collection scored, filtered, fused with full text, boosted, sorted, grouped and counted.

``mmsearch.search`` finds the best ten of a million; here a page is one view of all that matches, as a shop shows it. The
stages, in their order:

1. The filter, hidden keys, and what has no part of the modality asked for: what is left is *chosen*.
2. The vector score of each item: the best cosine of its parts, on one scale if they are of several modalities.
   ``min_score`` drops what lies below, but not, in a hybrid query, what holds every word.
3. In a hybrid query BM25 of title and texts, fused in (``mmsearch.ranking.convex``).
4. Taste, then boosts.
5. The order: by attributes if sorted, then by score, then by id; byte-identical items once, variants once a group.
6. Pins in front; the first hundred of the rest diversified if asked for.

The order of a result is kept for the pages that follow (``PAGES``): they come from the order of the first page,
whatever is written meanwhile. Items that are gone, or no longer pass the filter, are left out; what came since is not in.
When the order is no longer kept (too long ago, another process), it is made anew, and a page begins behind the place
where the last one ended.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch import cursors, facets, filters
from mmsearch.collection_settings import check_boost
from mmsearch.column import Column, collation
from mmsearch.contents import encode_term
from mmsearch.errors import ItemNotFound, QueryError
from mmsearch.presenting import Page, present
from mmsearch.ranked import Ranked, marginal_relevance
from mmsearch.ranking import Scale, boosted, compose, convex
from mmsearch.search import scales
from mmsearch.shapes import Boost, FacetCounts, ItemRef, Results, Sort
from mmsearch.types import Modality, Query, Term, Vector
from mmsearch.view import View
from mmsearch.wording import Wording, understood

if TYPE_CHECKING:
    from mmsearch.engine import Engine

DIVERSIFIED = 100
"""So many hits are put in another order for diversity."""

RESCORED = 256
"""So many of the best items, and as many of the best text matches, are scored exactly where a matrix only estimates."""

PAGES = 64 << 20
"""Bytes of orders that are kept for further pages."""

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Made:
    """An order, and what was found on the way, by item row (n,): all that a page needs.

    ``eligible``: what may come whatever the filter says. ``stages``: scores by the name of the stage, for explanations.
    """

    ranked: Ranked
    revision: int
    origin: object
    eligible: Mask
    scores: Scores
    stages: Mapping[str, Scores]
    vector: Vector | None
    scales: Mapping[Modality, Scale]
    wording: Wording | None
    pinned: int
    chosen_by: Mapping[int, float]  # marginal relevance of diversified rows

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.eligible) * (10 + 8 * (len(self.stages) + len(self.ranked.keys) + 2))


class Kept:
    """Orders of results that may have further pages; the least recently used go first. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: collections.OrderedDict[tuple[str, int], Made] = collections.OrderedDict()
        self._size = 0

    def get(self, digest: str, revision: int) -> Made | None:
        with self._lock:
            made = self._made.get((digest, revision))
            if made is not None:
                self._made.move_to_end((digest, revision))
            return made

    def put(self, digest: str, made: Made) -> None:
        with self._lock:
            old = self._made.pop((digest, made.revision), None)
            self._made[digest, made.revision] = made
            self._size += made.size - (old.size if old else 0)
            while self._size > PAGES and len(self._made) > 1:
                self._size -= self._made.popitem(last=False)[1].size


def results(engine: Engine, view: View, kept: Kept, queries: Sequence[Query]) -> list[Results]:
    """A page of each query. See ``Engine.results``."""
    for query in queries:
        _check(query)
    words = list(dict.fromkeys(term.text for q in queries if _encodes(q) for term in q.terms if term.text))
    vectors: dict[str, Vector] = {}
    if len(words) > 1 and all(word.strip() for word in words):
        vectors = dict(zip(words, engine.encoder.encode_texts(words), strict=True))
    return [_Request(engine, view, kept, query, vectors).page() for query in queries]


def _encodes(query: Query) -> bool:
    """Whether the terms of a query are needed as vectors."""
    return query.text_weight < 1 or not query.hybrid


def _check(query: Query) -> None:
    for name, low, high in (("text_weight", 0, 1), ("diversity", 0, 1)):
        if not low <= getattr(query, name) <= high:
            raise QueryError(f"{name} must be within {low} to {high}, not {getattr(query, name)}")
    for name in ("k", "group_size"):
        if getattr(query, name) < 1:
            raise QueryError(f"{name} must be at least 1, not {getattr(query, name)}")
    for boost in query.boosts:
        check_boost(boost)
    facets.facet_columns(query.facets)
    if (
        query.examples is not None
        and query.examples.strategy == "best"
        and (query.terms or not query.examples.like)
    ):
        raise QueryError(
            'examples of strategy "best" need something liked, and stand alone: leave the terms out'
        )


@dataclasses.dataclass
class _Request:
    """One query on its way."""

    engine: Engine
    view: View
    kept: Kept
    query: Query
    vectors: Mapping[str, Vector]

    def page(self) -> Results:
        query = self.query
        self.text = " ".join(term.text for term in query.terms if term.text and term.weight > 0)
        digest, cursor = cursors.digest(query), None
        if query.cursor is not None:
            cursor = cursors.decode(query.cursor, self.engine.catalog.uuid)
            if cursor.query != digest:
                raise QueryError(
                    "the cursor is of another query: only k, facets, fields, highlight and explain may change"
                )
        vectors = [self._encoded(term) for term in query.terms] if _encodes(query) else []
        state = self.view.state(
            query.modality,
            vectors=bool(vectors or query.examples or query.taste or query.diversity),
            words=query.hybrid or query.highlight,
        )
        self.state = state
        made = self.kept.get(digest, cursor.revision) if cursor else None
        if made is None or made.origin is not state.columns.origin:
            made = self._made(vectors)
            start = 0
            if cursor is not None:
                start = cursor.place if made.revision == cursor.revision else self._resumed(made, cursor)
        else:
            assert cursor is not None
            start = cursor.place
        passing = self._passing(made)
        rows, end, more = _taken(made.ranked, passing, start, query.k)
        token = None
        if more:
            self.kept.put(digest, made)
            token = cursors.encode(
                cursors.Cursor(
                    digest,
                    made.revision,
                    end,
                    self._keys(made, rows[-1]),
                    int(state.columns.item_ids[rows[-1]]),
                ),
                self.engine.catalog.uuid,
            )
        page = Page(self.engine.catalog, self.engine.collection_id, state, query, made, rows, start, passing)
        return Results(
            hits=present(page),
            total=made.ranked.total,
            cursor=token,
            facets=self._facets(made),
            corrections=made.wording.corrections if made.wording and query.hybrid else (),
            revision=made.revision,
        )

    # -- the order -----------------------------------------------------------------------------------------------

    def _made(self, encoded: Sequence[tuple[Vector, Modality | None]]) -> Made:
        query, state = self.query, self.state
        n = state.n
        rules = state.settings.rules(self.text) if query.settings else []
        hidden = [*query.hidden, *(key for rule in rules for key in rule.hidden)]
        eligible = state.present(query.modality)
        eligible[self._rows_of_keys(hidden)] = False
        wording = None
        if query.hybrid or query.highlight:
            assert state.full_text is not None
            wording = understood(
                self.text,
                state.full_text,
                typos=query.typos,
                prefix=query.prefix,
                synonyms=state.settings.synonyms if query.settings else None,
            )
        chosen = eligible & state.columns.mask(query.where, query.path)
        text, every = np.zeros(n), np.zeros(n, np.bool_)
        if query.hybrid and wording is not None and state.full_text is not None:
            text, every = wording.scores(state.full_text, n)
        near, vector, scale, excluded = self._vector_scores(encoded, chosen, text)
        eligible[excluded] = False
        if query.min_score is not None and near is not None:
            eligible &= (near >= query.min_score) | (every if query.hybrid else False)
        if query.hybrid and query.text_weight == 1 and self.text:
            eligible &= text > 0
        chosen &= eligible
        stages: dict[str, Scores] = {}
        scores = np.zeros(n) if near is None else np.where(np.isfinite(near), near, 0.0).astype(np.float64)
        if near is not None:
            stages["vector"] = scores
        if query.hybrid:
            stages["text"] = text
            weight = query.text_weight if near is not None else 1.0
            scores = stages["fused"] = convex(scores, text, chosen, weight)
        elif near is None:
            scores = np.ones(n)  # nothing was asked for: all are alike, until boosts tell them apart
        if query.taste is not None and query.taste.liked:
            added = self._taste(scores, chosen)
            scores, stages["taste"] = scores + added, added
        boosts = [*query.boosts, *(boost for rule in rules for boost in rule.boosts)]
        if boosts:
            factors = stages["boost"] = self._factors(boosts)
            scores = boosted(scores, factors)
        keys = [*(self._sort_key(sort) for sort in query.sort), -scores]
        groups = self._groups()
        chosen = self._once(keys, chosen)
        pins = []
        if not query.sort:
            wanted = [*query.pinned, *(key for rule in rules for key in rule.pinned)]
            pins = [int(row) for row in self._rows_of_keys(wanted) if chosen[row]]
        ranked = Ranked(keys, chosen, groups, _one_a_group(pins, groups))
        chosen_by: dict[int, float] = {}
        pinned = len(ranked.head)
        if query.diversity and not query.sort:
            ranked, chosen_by = self._diversified(ranked, scores)
        return Made(
            ranked,
            state.columns.revision,
            state.columns.origin,
            eligible,
            scores,
            stages if query.explain else {},
            vector,
            scale,
            wording,
            pinned,
            chosen_by,
        )

    def _encoded(self, term: Term) -> tuple[Vector, Modality | None]:
        if term.text in self.vectors:
            return self.vectors[term.text], Modality.TEXT
        return encode_term(term, self.engine.space.dim, lambda: self.engine.encoder, self.engine.parts_of)

    def _vector_scores(
        self, encoded: Sequence[tuple[Vector, Modality | None]], chosen: Mask, text: Scores
    ) -> tuple[NDArray[np.float32] | None, Vector | None, Mapping[Modality, Scale], NDArray[np.int64]]:
        """The vector score of each row (None: nothing was asked for), the query's vector, its scales, and the rows that
        are no answer.
        """
        query = self.query
        vectors = [vector for vector, _ in encoded]
        asked = [modality for _, modality in encoded]
        weights = [term.weight for term in query.terms[: len(encoded)]]
        named = [term.item for term in query.terms if term.item is not None]
        if query.examples is not None:
            like, unlike = (self._ids(refs) for refs in (query.examples.like, query.examples.unlike))
            named += [*like, *unlike]
            parts = [self._encoded(Term(item=item)) for item in (*like, *unlike)]
            examples = [vector for vector, _ in parts]
            if query.examples.strategy == "best":
                near = self._best_example(examples[: len(like)], examples[len(like) :], [m for _, m in parts])
                return near, examples[0], {}, self._rows(self.engine.itself(named))
            vectors += examples
            asked += [modality for _, modality in parts]
            weights += [2.0 / len(like)] * len(like) + [-1.0 / len(unlike)] * len(unlike)
        excluded = self._rows(self.engine.itself(named)) if named else np.zeros(0, np.int64)
        if not vectors:
            return None, None, {}, excluded
        vector = compose(vectors, weights)
        scale = self._scales(vector, asked, weights)
        near = self.state.scores(vector, scale)
        if not all(matrix.exact for matrix in self.state.matrices.values()):
            self._rescore(near, vector, scale, chosen, text)
        return near, vector, scale, excluded

    def _scales(
        self, vector: Vector, asked: Sequence[Modality | None], weights: Sequence[float]
    ) -> Mapping[Modality, Scale]:
        mixed = len(self.state.matrices) > 1
        return scales(self.engine.encoder, vector, asked, weights) if mixed else {}

    def _rescore(
        self,
        near: NDArray[np.float32],
        vector: Vector,
        scale: Mapping[Modality, Scale],
        chosen: Mask,
        text: Scores,
    ) -> None:
        """Put exact scores in the place of estimates, where it matters most."""
        best = Ranked([-near.astype(np.float64)], chosen).first(RESCORED)[:RESCORED]
        said = Ranked([-text], chosen & (text > 0)).first(RESCORED)[:RESCORED]
        rows = np.union1d(best, said)
        near[rows] = -np.inf
        for modality in self.state.matrices:
            parts = self.state.columns.parts[modality]
            places = self.state.places(modality, rows)
            found = self.engine.catalog.candidates(parts.ids[places])
            if not len(found.ids):
                continue
            exact = found.vectors.astype(np.float32) @ vector
            factor, offset = scale.get(modality, (1.0, 0.0))
            owners = parts.rows[places[np.searchsorted(parts.ids[places], found.ids)]]
            np.maximum.at(near, owners, exact * np.float32(factor) + np.float32(offset))

    def _best_example(
        self, like: Sequence[Vector], unlike: Sequence[Vector], asked: Sequence[Modality | None]
    ) -> NDArray[np.float32]:
        def best(vectors: Sequence[Vector], modalities: Sequence[Modality | None]) -> NDArray[np.float32]:
            found = np.full(self.state.n, -np.inf, np.float32)
            for vector, modality in zip(vectors, modalities, strict=True):
                scale = self._scales(vector, [modality], [1.0])
                np.maximum(found, self.state.scores(vector, scale), out=found)
            return found

        good, bad = best(like, asked[: len(like)]), best(unlike, asked[len(like) :])
        with np.errstate(invalid="ignore"):
            return np.where(good > bad, good, -(bad * bad)) if unlike else good

    def _taste(self, scores: Scores, chosen: Mask) -> Scores:
        """What the liked items add to each score."""
        assert self.query.taste is not None
        added = np.zeros(self.state.n)
        rows = self._rows(self._ids(self.query.taste.liked, missing=False))
        likeness, seen = np.zeros(self.state.n), np.zeros(self.state.n)
        for modality, matrix in self.state.matrices.items():  # pictures with pictures, texts with texts
            liked = matrix.vectors(self.state.places(modality, rows))
            if not len(liked):
                continue
            parts = self.state.columns.parts[modality]
            best = np.full(self.state.n + 1, -np.inf)
            np.maximum.at(best, parts.rows, matrix.rows @ liked.mean(axis=0))
            there = np.isfinite(best[:-1])
            likeness[there] += best[:-1][there]
            seen += there
        here = chosen & (seen > 0)
        if here.any():
            mean = likeness / np.maximum(seen, 1)
            spread = float(mean[here].std())
            if spread > 0:
                z = (mean - float(mean[here].mean())) / spread
                added[here] = self.query.taste.weight * float(scores[chosen].std() or 1.0) * z[here]
        return added

    def _factors(self, boosts: Sequence[Boost]) -> Scores:
        factors = np.ones(self.state.n)
        for boost in boosts:
            if boost.where is not None:
                factors[self.state.columns.mask(boost.where)] *= boost.factor
            else:
                assert boost.attribute is not None
                column = self._column(boost.attribute, "number")
                values = np.maximum(column.values, 0.0)
                greatest = float(values.max(initial=0.0))
                if greatest > 0:
                    share = (
                        np.log1p(values) / np.log1p(greatest) if boost.curve == "log" else values / greatest
                    )
                    factors[column.rows] *= 1 + boost.weight * share
        return factors

    def _sort_key(self, sort: Sort) -> Scores:
        columns, n = self.state.columns, self.state.n
        key = np.full(n, np.inf)
        if sort.near is not None:
            away = filters.distances("latitude", "longitude", sort.near, columns.column, n, columns.names())
            return np.where(np.isnan(away), np.inf, -away if sort.descending else away)
        column = self._column(sort.attribute)
        values = column.vocabulary.alphabetical[column.values] if column.kind == "text" else column.values
        np.minimum.at(key, column.rows, -values if sort.descending else values)
        return key

    def _groups(self) -> NDArray[np.int64] | None:
        if self.query.group_by is None:
            return None
        column = self._column(self.query.group_by, "text")
        groups = np.arange(self.state.n) + len(column.vocabulary)  # each alone, unless it has the attribute
        groups[column.rows[::-1]] = column.values[::-1]  # of several values the first
        return groups

    def _once(self, keys: Sequence[Scores], chosen: Mask) -> Mask:
        """Of byte-identical items only the first in the order."""
        contents = self.state.columns.contents
        if len(contents.vocabulary) == len(contents.rows):
            return chosen
        same = np.arange(self.state.n) + len(contents.vocabulary)
        same[contents.rows] = contents.values
        often = np.bincount(same[chosen], minlength=len(contents.vocabulary))
        twice = chosen & (often[same] > 1)
        chosen = chosen & ~twice
        chosen[Ranked(keys, twice, same).first(self.state.n)] = True
        return chosen

    def _diversified(self, ranked: Ranked, scores: Scores) -> tuple[Ranked, dict[int, float]]:
        head = list(ranked.head)
        rows = ranked.first(len(head) + DIVERSIFIED)[len(head) :][:DIVERSIFIED]
        if not len(rows):
            return ranked, {}
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        width = max((matrix.rows.shape[1] for matrix in self.state.matrices.values()), default=1)
        sums = np.zeros((len(rows), width), np.float32)
        for modality, matrix in self.state.matrices.items():
            places = self.state.places(modality, rows)
            owners = [place_of[row] for row in self.state.columns.parts[modality].rows[places].tolist()]
            np.add.at(sums[:, : matrix.rows.shape[1]], owners, matrix.vectors(places))
        order, values = marginal_relevance(scores[rows], sums, self.query.diversity)
        diversified = [int(rows[place]) for place in order]
        return dataclasses.replace(ranked, head=head + diversified), dict(
            zip(diversified, values, strict=True)
        )

    # -- pages ---------------------------------------------------------------------------------------------------

    def _passing(self, made: Made) -> Mask:
        """Which rows may be shown now."""
        if made.revision == self.state.columns.revision:
            return made.ranked.chosen
        mask = self.state.columns.mask(self.query.where, self.query.path) & self.state.present(
            self.query.modality
        )
        passing = mask[: len(made.ranked.chosen)]
        return passing & made.ranked.chosen

    def _keys(self, made: Made, row: int) -> list[float | str]:
        """The keys of a row as a cursor holds them: a text stands for itself, since its place may change."""
        found: list[float | str] = [float(key[row]) for key in made.ranked.keys]
        for n, sort in enumerate(self.query.sort):
            column = None if sort.near is not None else self._column(sort.attribute)
            if column is not None and column.kind == "text" and np.isfinite(made.ranked.keys[n][row]):
                words = [column.vocabulary[code] for code in column.values[column.rows == row].tolist()]
                if words:
                    found[n] = (max if sort.descending else min)(words, key=collation)
        return found

    def _resumed(self, made: Made, cursor: cursors.Cursor) -> int:
        """Where a page begins in an order that was made anew."""
        if cursor.place <= len(made.ranked.head):
            return cursor.place
        keys: list[float] = []
        for n, key in enumerate(cursor.keys):
            if isinstance(key, str):
                sort = self.query.sort[n]
                column = self._column(sort.attribute)
                place = float(sum(collation(word) < collation(key) for word in column.vocabulary[:]))
                if key not in column.codes:  # between two
                    place -= 0.5
                key = -place if sort.descending else place
            keys.append(key)
        row = float(np.searchsorted(self.state.columns.item_ids, cursor.item, side="right")) - 0.5
        return made.ranked.place_after(keys, row)

    def _facets(self, made: Made) -> dict[str, FacetCounts]:
        counts: dict[str, FacetCounts] = {}
        if not self.query.facets:
            return counts
        columns, n = self.state.columns, self.state.n
        chosen = np.zeros(n, np.bool_)
        chosen[: len(made.ranked.chosen)] = self._passing(made)
        groups = self._groups()
        where = filters.parse(self.query.where) if self.query.where is not None else None
        pieces = [] if where is None else list(filters.conjuncts(where))
        for name, facet in facets.facet_columns(self.query.facets).items():
            mask = chosen
            if facet.ignore_own_filter and any(piece.names() == {name} for piece in pieces):
                mask = np.zeros(n, np.bool_)
                mask[: len(made.eligible)] = made.eligible
                mask &= self.state.present(self.query.modality)
                if self.query.path is not None:
                    mask &= columns.mask(None, self.query.path)
                for piece in pieces:
                    if piece.names() != {name}:
                        mask &= columns.passes(piece)
            counts[name] = facets.count(facet, self._column(name), mask, groups)
        return counts

    # -- looking up ----------------------------------------------------------------------------------------------

    def _column(self, name: str, kind: filters.Kind | None = None) -> Column:
        column = self.state.columns.column(name)
        if column is None:
            raise QueryError(filters.unknown(name, self.state.columns.names()))
        if kind is not None and column.kind != kind:
            raise QueryError(f"{name} holds {column.kind}: this needs an attribute that holds {kind}")
        return column

    def _ids(self, refs: Sequence[ItemRef], *, missing: bool = True) -> list[int]:
        """The ids of items. Raises ``ItemNotFound`` for one that is not there, unless those are left out."""
        found: list[int] = []
        present = self.state.present(None)
        for ref in refs:
            if isinstance(ref, str):
                rows = self._rows_of_keys([ref])
            else:
                rows = self._rows([ref])
            rows = rows[present[rows]]
            if len(rows):
                found.append(int(self.state.columns.item_ids[rows[0]]))
            elif missing:
                raise ItemNotFound(f"no item {ref!r} in this collection; it may have been removed")
        return found

    def _rows(self, ids: Sequence[int] | set[int]) -> NDArray[np.int64]:
        rows, known = self.state.columns.places(sorted(ids))
        return rows[known]

    def _rows_of_keys(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The rows of these keys, in their order; those that are not there are left out."""
        if not keys:
            return np.zeros(0, np.int64)
        column = self.state.columns.keys
        codes = [column.codes[key] for key in dict.fromkeys(keys) if key in column.codes]
        places = [np.flatnonzero(column.values == code)[-1:] for code in codes]
        return column.rows[np.concatenate([np.zeros(0, np.int64), *places])]


def _taken(ranked: Ranked, passing: Mask, start: int, k: int) -> tuple[list[int], int, bool]:
    """``k`` rows from the place ``start`` on that may be shown, the place behind them, and whether others follow."""
    deep = start + k + 1
    while True:
        order = ranked.first(deep)
        places = start + np.flatnonzero(passing[order[start:]])[: k + 1]
        if len(places) > k or len(order) < deep:
            break
        deep = 2 * deep + 64
    shown = places[:k]
    end = int(shown[-1]) + 1 if len(shown) else start
    return order[shown].tolist(), end, len(places) > k


def _one_a_group(rows: Sequence[int], groups: NDArray[np.int64] | None) -> list[int]:
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(row if groups is None else int(groups[row]), row)
    return list(first.values())
