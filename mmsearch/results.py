"""Whole results: every item of a collection scored, filtered, fused with full text, boosted, sorted, grouped and
counted.

``mmsearch.search`` finds the best ten of a million; here a page is one view of all that matches, as a shop shows it.
The stages, in their order:

1. The filter, hidden keys, and what has no part of the modality asked for: what is left is *chosen*.
2. The vector score of each item: the best cosine of its parts, on one scale if they are of several modalities.
   ``min_score`` drops what lies below, but not, in a hybrid query, what holds every word.
3. In a hybrid query BM25 of title and texts, fused in (``mmsearch.ranking.convex``). A word that is surely misspelt is
   encoded as it was meant.
4. Taste, then boosts.
5. The order: by attributes if sorted, then by score, then by id; byte-identical items once, variants once a group.
6. Pins in front; the first hundred of the rest diversified if asked for.

The order of a result is kept for the pages that follow (``PAGES``): they come from the order of the first page,
whatever is written meanwhile. Items that are gone, or no longer pass the filter, are left out; what came since is not
in. When the order is no longer kept (too long ago, another process), it is made anew, and a page begins behind the
place where the last one ended.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch import cursors, facets, filters, ordering
from mmsearch.collection_settings import check_boost
from mmsearch.column import collation
from mmsearch.errors import QueryError
from mmsearch.operators import Said
from mmsearch.ordering import Made, Mask, Order, group_codes
from mmsearch.presenting import Page, present
from mmsearch.ranked import Ranked
from mmsearch.shapes import FacetCounts, Results
from mmsearch.types import Modality, Query, Term, Vector
from mmsearch.view import State, View
from mmsearch.wording import Wording, understood

if TYPE_CHECKING:
    from mmsearch.engine import Engine

PAGES = 64 << 20
"""Bytes of orders that are kept for further pages."""


class Kept:
    """Orders of results that may have further pages; the least recently used go first. For any threads."""

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
    requests = [_Request.read(engine, view, kept, query) for query in queries]
    texts = list(dict.fromkeys(text for request in requests for text in request.texts))
    vectors: dict[str, Vector] = {}
    if len(texts) > 1 and all(text.strip() for text in texts):
        vectors = dict(zip(texts, engine.encoder.encode_texts(texts), strict=True))
    return [request.page(vectors) for request in requests]


def _encodes(query: Query) -> bool:
    """Whether the terms of a query are needed as vectors."""
    return query.text_weight < 1 or not query.hybrid


def _meant(term: Term, wording: Wording) -> str:
    """The text of a term as it is encoded."""
    text = term.text or ""
    return wording.mended(Said.read(text).text if term.weight > 0 else text)


def _is_text(term: Term) -> bool:
    others = (term.image, term.audio, term.item, term.vector)
    return term.text is not None and all(other is None for other in others)


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


@dataclasses.dataclass(frozen=True)
class _Request:
    """One query on its way: the state that it is answered from, and what its words stand for there. ``terms`` are its
    terms as they are encoded (none: nothing is), with the vectors of those that are no texts.
    """

    engine: Engine
    kept: Kept
    query: Query
    digest: str
    cursor: cursors.Cursor | None
    state: State
    said: Said
    wording: Wording | None
    terms: Sequence[tuple[Term, tuple[Vector, Modality | None] | None]]

    @classmethod
    def read(cls, engine: Engine, view: View, kept: Kept, query: Query) -> _Request:
        """All that may be known before texts are encoded."""
        digest, cursor = cursors.digest(query), None
        if query.cursor is not None:
            cursor = cursors.decode(query.cursor, engine.catalog.uuid)
            if cursor.query != digest:
                raise QueryError(
                    "the cursor is of another query: only k, facets, fields, highlight and explain may change"
                )
        terms = [
            (term, None if _is_text(term) else ordering.encoded(engine, term))
            for term in (query.terms if _encodes(query) else ())
        ]
        seeing = bool(terms or query.examples or query.taste or query.diversity)
        asked = {vector[1] if vector else Modality.TEXT for _, vector in terms}
        state = view.state(
            query.modality, asked=asked if seeing else None, words=query.hybrid or query.highlight
        )
        read = Said.read if query.hybrid else Said
        said = Said.joined([read(term.text) for term in query.terms if term.text and term.weight > 0])
        wording = None
        if state.full_text is not None:
            wording = understood(
                said.text,
                state.full_text,
                typos=query.typos,
                prefix=query.prefix,
                synonyms=state.settings.synonyms if query.settings else None,
                **({"knows": engine.encoder.knows} if terms else {}),
            )
            if query.hybrid:
                terms = [
                    (dataclasses.replace(term, text=_meant(term, wording)) if term.text else term, vector)
                    for term, vector in terms
                ]
        return cls(engine, kept, query, digest, cursor, state, said, wording, terms)

    @property
    def texts(self) -> Sequence[str]:
        """What of it is to be encoded."""
        return [term.text for term, _ in self.terms if term.text]

    def page(self, vectors: Mapping[str, Vector]) -> Results:
        """The page, given what vectors of texts were made already."""
        query, state, cursor, digest = self.query, self.state, self.cursor, self.digest
        made = self.kept.get(digest, cursor.revision) if cursor else None
        if made is None or made.origin is not state.columns.origin:
            encoded = [vector or ordering.encoded(self.engine, term, vectors) for term, vector in self.terms]
            made = Order(self.engine, state, query, encoded, self.said, self.wording).made()
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
            notices=made.notices,
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
            column = None if sort.near is not None else self.state.column(sort.attribute)
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
                column = self.state.column(sort.attribute)
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
        groups = group_codes(self.state, self.query)
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
            counts[name] = facets.count(facet, self.state.column(name), mask, groups)
        return counts


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
