"""What searches over whole results keep in memory of a collection, always at one revision: columns, vectors, words."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch import filters, fulltext
from mmsearch.catalog import Catalog
from mmsearch.collection_settings import Prepared, read_settings
from mmsearch.column import Column
from mmsearch.columns import Columns
from mmsearch.errors import ItemNotFound, QueryError
from mmsearch.fulltext import FullText
from mmsearch.matrix import Matrix, read_matrix
from mmsearch.ranking import Scale
from mmsearch.shapes import ItemRef
from mmsearch.types import Modality, Vector


@dataclasses.dataclass(frozen=True)
class State:
    """A collection at one revision. ``full_text`` and ``matrices`` (by modality) are there if they were asked for."""

    columns: Columns
    settings: Prepared
    matrices: Mapping[Modality, Matrix]
    full_text: FullText | None

    @property
    def n(self) -> int:
        """Number of item rows."""
        return len(self.columns.item_ids)

    def present(self, modality: Modality | None) -> NDArray[np.bool_]:
        """Which item rows (n,) have a part (of this modality)."""
        return self.columns.present(modality)

    def scores(self, vector: Vector, scales: Mapping[Modality, Scale]) -> NDArray[np.float32]:
        """The score of each item row (n,) with a query (dim,): that of its best part; -inf where there is none."""
        best = np.full(self.n + 1, -np.inf, np.float32)  # the last one is for parts that are gone
        for modality, vectors in self.matrices.items():
            found = vectors.scores(vector)
            if modality in scales:
                factor, offset = scales[modality]
                found = found * np.float32(factor) + np.float32(offset)
            np.maximum.at(best, self.columns.parts[modality].rows, found)
        return best[:-1]

    def exact(
        self, catalog: Catalog, rows: NDArray[np.int64], vector: Vector, scales: Mapping[Modality, Scale]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """The parts of some item rows by modality: their rows, their ids and their exact scores with a query (dim,)."""
        found = []
        for modality, vectors in self.matrices.items():
            parts, places = self.columns.parts[modality], self.places(modality, rows)
            scores = vectors.exact_scores(catalog, parts.ids, places, vector)
            factor, offset = scales.get(modality, (1.0, 0.0))
            scores = scores * np.float32(factor) + np.float32(offset)
            found.append((parts.rows[places], parts.ids[places], scores))
        return found

    def places(self, modality: Modality, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of the parts of these item rows, ascending."""
        wanted = np.zeros(self.n + 1, np.bool_)
        wanted[rows] = True
        return np.flatnonzero(wanted[self.columns.parts[modality].rows])

    def column(self, name: str, kind: filters.Kind | None = None) -> Column:
        """The column of an attribute. Raises ``QueryError`` if there is none, or it is not of this kind."""
        column = self.columns.column(name)
        if column is None:
            raise QueryError(filters.unknown(name, self.columns.names()))
        if kind is not None and column.kind != kind:
            raise QueryError(f"{name} holds {column.kind}: this needs an attribute that holds {kind}")
        return column

    def ids(self, refs: Sequence[ItemRef], *, missing: bool = True) -> list[int]:
        """The ids of items. Raises ``ItemNotFound`` for one that is not there, unless those are left out."""
        found: list[int] = []
        present = self.present(None)
        for ref in refs:
            rows = self.rows_of_keys([ref]) if isinstance(ref, str) else self.rows([ref])
            rows = rows[present[rows]]
            if len(rows):
                found.append(int(self.columns.item_ids[rows[0]]))
            elif missing:
                raise ItemNotFound(f"no item {ref!r} in this collection; it may have been removed")
        return found

    def rows(self, ids: Iterable[int]) -> NDArray[np.int64]:
        """The rows of these items, ascending; those that are not there are left out."""
        rows, known = self.columns.places(sorted(ids))
        return rows[known]

    def rows_of_keys(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The rows of these keys, in their order; those that are not there are left out."""
        if not keys:
            return np.zeros(0, np.int64)
        column = self.columns.keys
        codes = [column.codes[key] for key in dict.fromkeys(keys) if key in column.codes]
        places = [np.flatnonzero(column.values == code)[-1:] for code in codes]
        found: NDArray[np.int64] = column.rows[np.concatenate([np.zeros(0, np.int64), *places])]
        return found


_Wish: TypeAlias = tuple[Modality | None, frozenset[Modality | None] | None, bool]
"""What ``View.state`` is asked for."""


class View:
    """The newest state of one collection. Safe to share between threads: one brings it up to date, the others wait."""

    def __init__(
        self, catalog: Catalog, collection: int, dim: Callable[[], int], columns: Callable[[], Columns]
    ) -> None:
        self._catalog = catalog
        self._collection = collection
        self._dim = dim
        self._columns = columns
        self._lock = threading.Lock()
        self._origin: object = None
        self._matrices: dict[Modality, Matrix] = {}
        self._full_text: FullText | None = None
        self._settings: tuple[int, int, Prepared] | None = None
        self._latest: dict[_Wish, State] | None = None

    def keep_up(self) -> None:
        """Bring what was asked for so far up to the newest revision.

        From the first call on others get that state without a look at the catalog, however old it is: they never wait
        for what was written, and whoever called this goes on calling it.
        """
        with self._lock:
            columns = self._columns()
            known = self._latest or {}
            if self._latest is None or any(state.columns is not columns for state in known.values()):
                self._latest = {wish: self._made(columns, *wish) for wish in known}

    def forget_before(self, epoch: int) -> None:
        """Forget states of another model, which are no use since this revision."""
        if any(state.columns.revision < epoch for state in (self._latest or {}).values()):
            with self._lock:
                self._latest = {}

    def state(
        self, modality: Modality | None, *, asked: Collection[Modality | None] | None, words: bool
    ) -> State:
        """The state at the newest revision.

        ``asked``: what the query's terms are; then the vectors come with it that they are compared with: those of a
        modality, or (None) as ``Engine.search`` compares them. ``words``: whether its words do.
        """
        wish = (modality, None if asked is None else frozenset(asked), words)
        if self._latest is not None and (known := self._latest.get(wish)) is not None:
            return known
        with self._lock:
            made = self._made(self._columns(), *wish)
            if self._latest is not None:
                self._latest = {**self._latest, wish: made}
            return made

    def _follow(self, columns: Columns) -> None:
        """Take over what was kept of the state before these columns; if that is not known, nothing."""
        kept = columns.survivors
        if kept is not None and kept.origin is self._origin:
            self._matrices = {
                modality: matrix.kept(kept.places[modality]) for modality, matrix in self._matrices.items()
            }
            if self._full_text is not None:
                self._full_text = self._full_text.kept(columns.origin, kept.rows)
        else:
            self._matrices, self._full_text = {}, None
        self._origin = columns.origin

    def _made(
        self,
        columns: Columns,
        modality: Modality | None,
        asked: Collection[Modality | None] | None,
        words: bool,
    ) -> State:
        """The state with these columns, which are the newest. Under the lock."""
        if columns.origin is not self._origin:
            self._follow(columns)
        matrices = {}
        wanted = () if asked is None else _wanted(columns, modality, asked)
        for name, parts in columns.parts.items():
            if name in wanted and len(parts.ids):
                known = self._matrices.get(name)
                self._matrices[name] = (
                    known.extended(self._catalog, parts.ids)
                    if known is not None
                    else read_matrix(self._catalog, parts.ids, self._dim())
                )
                if parts.live.any():
                    matrices[name] = self._matrices[name]
        if words:
            known_words = self._full_text
            if known_words is None:
                self._full_text = fulltext.read(self._catalog, self._collection, columns)
            elif known_words.revision != columns.revision:
                self._full_text = known_words.advance(self._catalog, self._collection, columns)
        at = (columns.revision, columns.tag)
        if self._settings is None or self._settings[:2] != at:
            self._settings = (
                *at,
                read_settings(self._catalog, self._collection, self._settings and self._settings[2]),
            )
        return State(columns, self._settings[2], matrices, self._full_text if words else None)


def _wanted(
    columns: Columns, modality: Modality | None, asked: Collection[Modality | None]
) -> Collection[Modality]:
    """What terms are compared with. A product as a whole is in its fused vector; a picture may be that of the
    product.
    """
    if modality is not None:
        return [modality]
    if not columns.products:
        return list(Modality)
    return [Modality.IMAGE, Modality.FUSED] if Modality.IMAGE in asked else [Modality.FUSED]
