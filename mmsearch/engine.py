"""The engine: one collection with its encoder, its catalog and its vector index, and the order of commits.

A write goes to the catalog and is safe once committed. The vector index follows by reading what changed since the
revision it knows, whoever wrote it. Searches run on an immutable snapshot and never wait for a write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.catalog import Catalog, CollectionInfo, FileRecord, FileUpdate
from mmsearch.config import Device, Precision, default_home
from mmsearch.contents import check_items, encode_items, encode_term
from mmsearch.encoders import Encoder, full_name, load_encoder
from mmsearch.errors import CollectionNotFound, QueryError, SpaceMismatch
from mmsearch.ranking import compose
from mmsearch.types import Hit, Item, Modality, NewItem, NewPart, Query, Space, Term, Vectors

if TYPE_CHECKING:
    from mmsearch.columns import Columns
    from mmsearch.shapes import CollectionSettings, Results, Suggestion
    from mmsearch.snapshots import Snapshots
    from mmsearch.status import Status
    from mmsearch.whole import Whole

__all__ = ["Engine", "FileRecord", "FileUpdate"]


class Engine:
    """Index and search one collection. May be shared between threads; use it as a context manager, or close it."""

    def __init__(
        self,
        catalog: Catalog,
        collection: CollectionInfo,
        encoder: Encoder | None = None,
        *,
        load: Callable[[str | Path], Encoder] = load_encoder,
        device: Device = "auto",
        exact_limit: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """``Engine.open`` is the usual way in; this takes a catalog that is already open."""
        self.catalog = catalog
        self._collection = collection
        self._encoder = encoder
        self._encoder_lock = threading.Lock()
        self._load = load
        self._device = device
        self._exact_limit = exact_limit
        self._notice = notice or (lambda line: None)
        self._lock = threading.Lock()
        self._snapshots_made: Snapshots | None = None
        self._columns: Columns | None = None
        self._written = 0  # the newest revision that this engine wrote: its own searches must see it

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        *,
        collection: str = "default",
        model: str | Path | Encoder | None = None,
        create: bool = True,
        device: Device = "auto",
        threads: int | None = None,
        precision: Precision = "auto",
        compile: bool = False,
        exact_limit: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Engine:
        """Open a collection in ``home`` (None: the user's data folder).

        A missing catalog or collection is made, with ``model`` (None: ``mini``), unless ``create`` is false. For a
        collection that exists None stands for its own model. ``device`` says where vectors are searched and, like
        ``precision`` and ``compile``, how torch runs a model (``mmsearch.encoders.load_encoder``), ``threads`` how many
        CPU threads the encoder uses (None: all cores), ``exact_limit`` up to how many vectors search is exact;
        ``notice`` is called with a line for all that was degraded or mended.

        Raises ``StoreError`` if there is no catalog or it cannot be read, ``CollectionNotFound``, ``SpaceMismatch``
        if ``model`` maps into another space than the collection's vectors, ``ModelError``.
        """
        load = functools.partial(
            load_encoder, threads=threads, device=device, precision=precision, compile=compile
        )
        encoder = load(model) if isinstance(model, str | Path) else model
        catalog = Catalog(Path(home).expanduser() if home is not None else default_home(), create=create)
        try:
            try:
                info = catalog.collection(collection)
            except CollectionNotFound:
                if not create:
                    raise
                encoder = encoder or load("mini")
                name = model or "mini"
                name = full_name(name) if isinstance(name, str | Path) else encoder.space.id
                space = encoder.space
                info = catalog.create_collection(collection, model=name, space=space.id, dim=space.dim)
            if encoder is not None and encoder.space != Space(info.space, info.dim):
                raise SpaceMismatch(
                    f"collection {collection!r} holds vectors of {info.space!r} ({info.dim} dimensions), the model "
                    f"maps into {encoder.space.id!r} ({encoder.space.dim}): leave --model out to use {info.model!r}, "
                    "or index into another --collection"
                )
        except BaseException:
            catalog.close()
            raise
        return cls(catalog, info, encoder, load=load, device=device, exact_limit=exact_limit, notice=notice)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog. What was added is committed already; ``save`` is what writes the index file."""
        if "_whole" in self.__dict__:
            self._whole.flush()
        self.catalog.close()

    @property
    def home(self) -> Path:
        """The folder of the catalog and the index files."""
        return self.catalog.home

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._collection.name

    @property
    def collection_id(self) -> int:
        """What the catalog calls the collection."""
        return self._collection.id

    @property
    def space(self) -> Space:
        """What the collection's vectors live in."""
        return Space(self._collection.space, self._collection.dim)

    @property
    def encoder(self) -> Encoder:
        """The collection's encoder, loaded on first use. Raises ``ModelError``, ``SpaceMismatch``."""
        with self._encoder_lock:
            if self._encoder is None:
                encoder = self._load(self._collection.model)
                if encoder.space != self.space:
                    raise SpaceMismatch(
                        f"the model {self._collection.model!r} now maps into {encoder.space.id!r}, but collection "
                        f"{self.collection!r} holds vectors of {self.space.id!r}: delete it ('mmsearch collections "
                        f"delete {self.collection}') and index again, or index into another --collection"
                    )
                self._encoder = encoder
            return self._encoder

    # -- writes --------------------------------------------------------------------------------------------------

    def writing(self, wait: float = 10.0, what: str = "") -> contextlib.AbstractContextManager[None]:
        """Hold the catalog's right to write over several calls; each write takes it by itself otherwise.

        Raises ``CatalogBusy`` after ``wait`` seconds, saying who has it.
        """
        return self.catalog.writing(wait, what)

    def add(self, items: Iterable[NewItem]) -> list[int]:
        """Add items, or replace those whose key exists (they keep their id); returns the ids.

        Parts without a vector are encoded. All is committed in one transaction and found by the next search. Raises
        ``ItemError`` (no parts, a vector of the wrong shape, an attribute of another kind), ``MediaError`` (a picture
        or sound that cannot be read), ``ModelError``; then nothing is stored.
        """
        new = list(items)
        check_items(new)
        encoded = encode_items(new, self.space.dim, lambda: self.encoder)
        ids = self.catalog.add(self._collection.id, new, encoded) if new else []
        self._wrote()
        return ids

    def update_files(self, updates: Iterable[FileUpdate]) -> None:
        """Rename or touch files whose content is the same: ids, parts and vectors stay."""
        self.catalog.update_files(self._collection.id, updates)
        self._wrote()

    def remove(self, ids: Iterable[int]) -> int:
        """Remove items; returns how many there were. The next search does not find them."""
        removed = self.catalog.remove(self._collection.id, ids)
        self._wrote()
        return removed

    def remember_root(self, path: str, exclude: Sequence[str] = ()) -> None:
        """Note that ``path`` was indexed with these globs left out."""
        self.catalog.remember_root(self._collection.id, path, exclude)

    def forget_root(self, path: str) -> None:
        """Leave ``path`` out of the next run without arguments. Its items stay."""
        self.catalog.forget_root(self._collection.id, path)

    def save(self) -> None:
        """Bring the index file in line with the catalog, so that the next start is quick. Nothing is lost without."""
        with self.writing(what="saving the index"):
            self._snapshots.save()

    # -- reads ---------------------------------------------------------------------------------------------------

    def search(self, query: Query | str, *, k: int | None = None) -> list[Hit]:
        """The nearest items, best first; byte-identical files come once.

        ``query`` is words, or a ``Query``; ``k`` (default 10) wins over the query's own. Scores are cosines of the best
        part (see ``Query`` for mixed and hybrid lists). Raises ``QueryError`` (empty, bad filter, terms that cancel
        out), ``ItemNotFound`` (a term's item), ``MediaError`` (a term's picture or sound), ``ModelError``.
        """
        from mmsearch.search import Search

        asked = Query(terms=(Term(text=query),)) if isinstance(query, str) else query
        if k is not None:
            asked = dataclasses.replace(asked, k=k)
        if asked.k < 1:
            raise QueryError(f"k must be at least 1, not {asked.k}")
        # First what needs no encoder: `preload` may still be loading it on another core.
        snapshot = self._snapshots.current(self._written)
        found = [
            encode_term(term, self.space.dim, lambda: self.encoder, self.parts_of) for term in asked.terms
        ]
        vector = compose([vector for vector, _ in found], [term.weight for term in asked.terms])
        columns = mask = None
        # The columns come second: the mask must know every part that the snapshot has.
        if asked.where is not None or asked.path is not None:
            columns = self.current_columns()
            mask = columns.mask(asked.where, asked.path)
        return Search(
            self.catalog,
            self._collection.id,
            snapshot,
            asked,
            vector,
            [modality for _, modality in found],
            lambda: self.encoder,
            self.itself([term.item for term in asked.terms if term.item is not None]),
            columns,
            mask,
        ).hits()

    def results(self, query: Query | str) -> Results:
        """One page of all that a ``Query`` may ask for; words alone are a hybrid query. See ``mmsearch.results``.

        Raises what ``search`` raises, and ``QueryError`` for a cursor of another query.
        """
        return self.results_of([query])[0]

    def results_of(self, queries: Sequence[Query | str]) -> list[Results]:
        """Several searches at once: their texts are encoded in one go."""
        return self._whole.results(queries)

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """Completions of what is being typed: past queries (if the collection keeps them), then titles."""
        return self._whole.suggest(text, k)

    def note_query(self, text: str) -> None:
        """Remember a query for suggestions, if the settings say so. Written by and by, at ``close`` at last."""
        self._whole.note_query(text)

    def settings(self) -> CollectionSettings:
        """The collection's synonyms and rules, and whether it keeps queries."""
        return self._whole.settings()

    def change_settings(self, settings: CollectionSettings) -> None:
        """Replace the settings; the next search follows them. Raises ``QueryError`` naming what is wrong."""
        self._whole.change_settings(settings)
        self._wrote()

    def refresh(self) -> bool:
        """See what other processes wrote since; returns whether there was anything."""
        return self._snapshots.refresh()

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Items with their parts, in the order asked for. Raises ``ItemNotFound``."""
        return self.catalog.get(self._collection.id, ids)

    def find(self, key: str) -> Item | None:
        """The item with this key (for a file its absolute path), or None."""
        return self.catalog.find(self._collection.id, key)

    def items(self) -> Iterator[Item]:
        """All items with their parts, by id."""
        after = 0
        while page := self.catalog.page(self._collection.id, after):
            yield from page
            after = page[-1].id

    def page(self, after: int = 0, limit: int = 1000) -> list[Item]:
        """The next ``limit`` items with ids above ``after``, by id, with their parts."""
        return self.catalog.page(self._collection.id, after, limit)

    def select(self, where: str | None = None, path: str | None = None) -> list[int]:
        """Ids of the items that pass a filter expression and a glob over keys. Raises ``QueryError``."""
        columns = self.current_columns()
        chosen = columns.item_ids[columns.mask(where, path)]
        return sorted(self.catalog.existing(self._collection.id, chosen.tolist()))

    def vectors(self, item: Item) -> Vectors:
        """The stored vectors (parts, dim) of an item from ``get``, ``find`` or ``items``."""
        return self.catalog.vectors_of([part.id for part in item.parts])

    def files(self, under: str | None = None) -> dict[str, FileRecord]:
        """What is known of the files below a folder (or of that very file; None: of all), by path."""
        return self.catalog.files(self._collection.id, under)

    def by_hash(self, hashes: Collection[bytes]) -> dict[bytes, int]:
        """Of each content hash that is known, the id of the oldest item with that content."""
        return self.catalog.by_hash(self._collection.id, hashes)

    def copy_parts(self, item_id: int) -> list[NewPart]:
        """The parts of an item with their vectors, to add a byte-identical copy without encoding it again."""
        (item,) = self.get([item_id])
        kept = ("modality", "start", "end", "page", "text")
        return [
            NewPart(vector=vector, **{name: getattr(part, name) for name in kept})
            for part, vector in zip(item.parts, self.vectors(item), strict=True)
        ]

    def attribute_kinds(self) -> dict[str, str]:
        """The attributes that items have: number, text, boolean or datetime, by name."""
        return self.catalog.attribute_kinds(self._collection.id)

    def roots(self) -> dict[str, list[str]]:
        """The folders that were indexed, with the globs left out."""
        return self.catalog.roots(self._collection.id)

    def status(self) -> Status:
        """What the collection holds and what it costs."""
        from mmsearch.status import status_of

        return status_of(self.catalog, self._collection, self._snapshots)

    def check(self, repair: bool = False) -> list[str]:
        """What is wrong with the catalog and the index, a line each; ``repair`` mends it. See ``mmsearch.check``."""
        from mmsearch.check import check

        return check(self.catalog, self._collection, self._snapshots, repair=repair)

    def preload(self) -> None:
        """Start loading the encoder on a thread of its own, for a program that has other things to do first."""
        threading.Thread(target=self._warm_up, daemon=True).start()

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _snapshots(self) -> Snapshots:
        with self._lock:
            if self._snapshots_made is None:
                from mmsearch.snapshots import Snapshots

                self._snapshots_made = Snapshots(
                    self.catalog,
                    self._collection,
                    device=self._device,
                    exact_limit=self._exact_limit,
                    notice=self._notice,
                )
            return self._snapshots_made

    @functools.cached_property
    def _whole(self) -> Whole:
        from mmsearch.whole import Whole

        return Whole(self)

    def current_columns(self) -> Columns:
        """The attributes as columns, at the newest revision."""
        from mmsearch.columns import up_to_date

        with self._lock:
            self._columns = up_to_date(self.catalog, self._collection.id, self._columns)
            return self._columns

    def itself(self, ids: Sequence[int]) -> set[int]:
        """The items of a query and their byte-identical copies: no answer to "more like this"."""
        named = self.get(ids) if ids else []
        hashes = [item.content_hash for item in named if item.content_hash is not None]
        return {*ids, *(found for found, _, _ in self.catalog.same_content(self._collection.id, hashes))}

    def _wrote(self) -> None:
        self._written = max(self._written, self.catalog.revision()[0])

    def parts_of(self, item_id: int) -> tuple[Vectors, Modality]:
        """What an item is as a term of a query: vectors of parts, and their modality."""
        (item,) = self.get([item_id])
        # A recording resembles what sounds like it; what is said in it is another matter.
        parts = [part for part in item.parts if part.modality is Modality.AUDIO] or item.parts
        return self.catalog.vectors_of([part.id for part in parts]), parts[0].modality

    def _warm_up(self) -> None:
        with contextlib.suppress(Exception):  # whoever asks for the encoder next gets the error
            self.encoder.encode_texts(["warm up"])
