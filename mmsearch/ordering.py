"""The order of a whole result: the stages of ``mmsearch.results`` up to the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch import filters
from mmsearch.contents import encode_term
from mmsearch.errors import QueryError
from mmsearch.hybrid import fused
from mmsearch.operators import Said
from mmsearch.ranked import Ranked, marginal_relevance
from mmsearch.ranking import Scale, boosted, compose, products
from mmsearch.search import scales, with_copies
from mmsearch.shapes import Boost, Sort
from mmsearch.types import Modality, Query, Term, Vector
from mmsearch.view import State
from mmsearch.wording import Found, Wording

if TYPE_CHECKING:
    from mmsearch.engine import Engine

DIVERSIFIED = 100
"""So many hits are put in another order for diversity."""

RESCORED = 512
"""So many of the best items, and as many of the best text matches, are scored exactly where a matrix only estimates."""

_PLACES = (("latitude", "longitude"), ("lat", "lon"))
"""What attributes call a place, unless a sort says it: what a shop writes, and what photos have."""

MOST_BOOST = 1e12
"""All boosts of an item together lift or lower its score by so much at most."""

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
    notices: Sequence[str]

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.eligible) * (10 + 8 * (len(self.stages) + len(self.ranked.keys) + 2))


@dataclasses.dataclass(frozen=True)
class Order:
    """What makes the order of one query at one state. ``encoded``: its terms as vectors, with their modalities.

    ``said``: all that the query says in words, and ``wording`` what these stand for here, if they count.
    """

    engine: Engine
    state: State
    query: Query
    encoded: Sequence[tuple[Vector, Modality | None]]
    said: Said
    wording: Wording | None

    def made(self) -> Made:
        """The order, made now."""
        query, state = self.query, self.state
        n = state.n
        rules = state.settings.rules(self.said.text) if query.settings else []
        hidden = [*query.hidden, *(key for rule in rules for key in rule.hidden)]
        eligible = state.present(query.modality)
        eligible[self.state.rows_of_keys(hidden)] = False
        if self.said.must or self.said.never:
            assert state.full_text is not None
            eligible &= self.said.passing(
                state.full_text, self.engine.catalog, self.engine.collection_id, state.columns
            )
        chosen = eligible & state.columns.mask(query.where, query.path)
        found: list[Found] = []
        if query.hybrid and self.wording is not None and state.full_text is not None:
            found = self._named(self.wording.found(state.full_text, n))
        text = np.zeros(n)
        for one in found:
            text[one.rows] += one.scores
        near, vector, scale, excluded = self._vector_scores(chosen, text)
        eligible[excluded] = False
        if query.min_score is not None and near is not None:
            every = np.zeros(n, np.int64)
            for one in found:
                every[one.rows] += one.every
            eligible &= (near >= query.min_score) | (every >= max(len(found), 1))
        if query.hybrid and query.text_weight == 1 and self.said.text:
            eligible &= text > 0
        chosen &= eligible
        stages: dict[str, Scores] = {}
        scores = np.zeros(n) if near is None else np.where(np.isfinite(near), near, 0.0).astype(np.float64)
        if near is not None:
            stages["vector"] = scores
        if near is None and not text.any():
            scores = np.ones(n)  # nothing was asked for: all are alike, until boosts tell them apart
        elif query.hybrid:
            stages["text"] = text
            assert state.full_text is not None
            scores = stages["fused"] = fused(
                scores if near is not None else None, chosen, found, state.full_text, query.text_weight
            )
        if query.taste is not None and query.taste.liked:
            added = self._taste(scores, chosen)
            scores, stages["taste"] = scores + added, added
        ruled = [boost for rule in rules for boost in rule.boosts]
        notices: list[str] = []
        if query.boosts or ruled:
            factors = stages["boost"] = self._factors(query.boosts, ruled, notices)
            scores = boosted(scores, factors)
        keys = [*(self._sort_key(sort) for sort in query.sort), -scores]
        groups = group_codes(self.state, query)
        chosen = self._once(keys, chosen)
        pins = []
        if not query.sort:
            wanted = [*query.pinned, *(key for rule in rules for key in rule.pinned)]
            pins = [int(row) for row in self.state.rows_of_keys(wanted) if chosen[row]]
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
            self.wording,
            pinned,
            chosen_by,
            notices,
        )

    def _named(self, found: Sequence[Found]) -> list[Found]:
        """What was found, and in full the item whose key was given."""
        rows = self.state.rows_of_keys([self.said.text.strip()])
        if not len(rows):
            return list(found)
        return [
            Found(
                np.concatenate([one.rows[others := ~np.isin(one.rows, rows)], rows]),
                np.concatenate([one.scores[others], np.full(len(rows), one.ideal)]),
                np.concatenate([one.every[others], np.ones(len(rows), np.bool_)]),
                one.ideal,
                code=True,
            )
            for one in found
        ]

    def _vector_scores(
        self, chosen: Mask, text: Scores
    ) -> tuple[NDArray[np.float32] | None, Vector | None, Mapping[Modality, Scale], NDArray[np.int64]]:
        """The vector score of each row (None: nothing was asked for), the query's vector, its scales, and the rows that
        are no answer.
        """
        query = self.query
        vectors = [vector for vector, _ in self.encoded]
        asked = [modality for _, modality in self.encoded]
        weights = [term.weight for term in query.terms[: len(self.encoded)]]
        named = [term.item for term in query.terms if term.item is not None]
        if query.examples is not None:
            like, unlike = (self.state.ids(refs) for refs in (query.examples.like, query.examples.unlike))
            named += [*like, *unlike]
            parts = [encoded(self.engine, Term(item=item)) for item in (*like, *unlike)]
            examples = [vector for vector, _ in parts]
            if query.examples.strategy == "best":
                near = self._best_example(examples[: len(like)], examples[len(like) :], [m for _, m in parts])
                return (
                    near,
                    examples[0],
                    {},
                    self.state.rows(with_copies(self.engine.catalog, self.engine.collection_id, named)),
                )
            vectors += examples
            asked += [modality for _, modality in parts]
            weights += [2.0 / max(1, len(like))] * len(like) + [-1.0 / max(1, len(unlike))] * len(unlike)
        excluded = (
            self.state.rows(with_copies(self.engine.catalog, self.engine.collection_id, named))
            if named
            else np.zeros(0, np.int64)
        )
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
        for owners, _, scores in self.state.exact(self.engine.catalog, rows, vector, scale):
            np.maximum.at(near, owners, scores)

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
        rows = self.state.rows(self.state.ids(self.query.taste.liked, missing=False))
        likeness, seen = np.zeros(self.state.n), np.zeros(self.state.n)
        for modality, matrix in self.state.matrices.items():  # pictures with pictures, texts with texts
            liked = matrix.scanned[self.state.places(modality, rows)]
            if not len(liked):
                continue
            parts = self.state.columns.parts[modality]
            best = np.full(self.state.n + 1, -np.inf)
            np.maximum.at(best, parts.rows, products(matrix.scanned, liked.mean(axis=0)))
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

    def _factors(self, boosts: Sequence[Boost], ruled: Sequence[Boost], notices: list[str]) -> Scores:
        """What all boosts together multiply each score by. What a rule's was made for may have left the collection:
        that is told, and does not fail every search.
        """
        factors = np.ones(self.state.n)
        for boost in boosts:
            self._boost(factors, boost)
        for boost in ruled:
            try:
                self._boost(factors, boost)
            except QueryError as error:
                notices.append(f"a rule's boost was left out: {error}")
        return factors

    def _boost(self, factors: Scores, boost: Boost) -> None:
        if boost.where is not None:
            factors[self.state.columns.mask(boost.where)] *= boost.factor
        else:
            assert boost.attribute is not None
            column = self.state.column(boost.attribute, "number")
            values = np.maximum(column.values, 0.0)
            greatest = float(values.max(initial=0.0))
            if greatest > 0:
                share = np.log1p(values) / np.log1p(greatest) if boost.curve == "log" else values / greatest
                factors[column.rows] *= 1 + boost.weight * share
        np.clip(factors, 1 / MOST_BOOST, MOST_BOOST, out=factors)

    def _sort_key(self, sort: Sort) -> Scores:
        columns, n = self.state.columns, self.state.n
        key = np.full(n, np.inf)
        if sort.near is not None:
            names = columns.names()
            place = sort.place or next((pair for pair in _PLACES if {*pair} <= {*names}), _PLACES[0])
            away = filters.distances(*place, sort.near, columns.column, n, names)
            return np.where(np.isnan(away), np.inf, -away if sort.descending else away)
        column = self.state.column(sort.attribute)
        values = column.vocabulary.alphabetical[column.values] if column.kind == "text" else column.values
        np.minimum.at(key, column.rows, -values if sort.descending else values)
        return key

    def _once(self, keys: Sequence[Scores], chosen: Mask) -> Mask:
        """Of byte-identical items only the first in the order."""
        contents = self.state.columns.contents
        known = len(contents.vocabulary)  # it may grow while we look
        if known == len(contents.rows):
            return chosen
        same = np.arange(self.state.n) + known  # what has no content is like nothing else
        same[contents.rows] = contents.values
        often = np.bincount(same[chosen], minlength=known + self.state.n)
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
        width = max((matrix.scanned.shape[1] for matrix in self.state.matrices.values()), default=1)
        sums = np.zeros((len(rows), width), np.float32)
        for modality, matrix in self.state.matrices.items():
            places = self.state.places(modality, rows)
            owners = [place_of[row] for row in self.state.columns.parts[modality].rows[places].tolist()]
            np.add.at(sums[:, : matrix.scanned.shape[1]], owners, matrix.scanned[places])
        order, values = marginal_relevance(scores[rows], sums, self.query.diversity)
        diversified = [int(rows[place]) for place in order]
        return dataclasses.replace(ranked, head=head + diversified), dict(
            zip(diversified, values, strict=True)
        )


def encoded(
    engine: Engine, term: Term, known: Mapping[str, Vector] | None = None
) -> tuple[Vector, Modality | None]:
    """A term's vector (dim,) and modality; ``known`` are texts that were encoded already."""
    if known and term.text in known:
        return known[term.text or ""], Modality.TEXT
    return encode_term(term, engine.space.dim, lambda: engine.encoder, engine.parts_of)


def group_codes(state: State, query: Query) -> NDArray[np.int64] | None:
    """The group of each item row (n,); None if nothing is grouped."""
    if query.group_by is None:
        return None
    column = state.column(query.group_by, "text")
    groups = np.arange(state.n) + len(column.vocabulary)  # each alone, unless it has the attribute
    groups[column.rows[::-1]] = column.values[::-1]  # of several values the first
    return groups


def _one_a_group(rows: Sequence[int], groups: NDArray[np.int64] | None) -> list[int]:
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(row if groups is None else int(groups[row]), row)
    return list(first.values())
