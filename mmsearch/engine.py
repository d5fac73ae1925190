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

from mmsearch import products
from mmsearch.admission import Era, identity_of, model_name
from mmsearch.builds import check_build
from mmsearch.catalog import Catalog
from mmsearch.config import Device, Precision, default_home
from mmsearch.contents import check_items, encode_items, encode_term, with_vector
from mmsearch.encoders import Encoder, load_encoder
from mmsearch.errors import CollectionNotFound, QueryError, SpaceMismatch
from mmsearch.ranking import compose
from mmsearch.rows import CollectionInfo, FileRecord, FileUpdate
from mmsearch.selling import Selling
from mmsearch.types import Hit, Item, Modality, NewItem, NewPart, Query, Space, Term, Vectors

if TYPE_CHECKING:
    from mmsearch.columns import Columns
    from mmsearch.snapshots import Snapshot, Snapshots
    from mmsearch.status import Status
    from mmsearch.types import AttributeChanges

__all__ = ["Engine", "FileRecord", "FileUpdate"]


class Engine(Selling):
    """Index and search one collection. May be shared between threads; use it as a context manager, or close it."""

    def __init__(
        self,
        catalog: Catalog,
        collection: CollectionInfo,
        encoder: Encoder | None = None,
        *,
        model: str = "",
        load: Callable[[str | Path], Encoder] = load_encoder,
        device: Device = "auto",
        exact_limit: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """``Engine.open`` is the usual way in; this takes an open catalog. ``model`` is the name of ``encoder``."""
        self.catalog = catalog
        self.load = load
        self._device = device
        self._exact_limit = exact_limit
        self._notice = notice or (lambda line: None)
        self._open_era = functools.partial(Era, catalog, load=load, notice=self._notice)
        self._id = collection.id
        self._era = self._open_era(collection, encoder, model=model)
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
        collection that exists None stands for its own model. ``device`` (see ``mmsearch.config.Device``) says where
        vectors are searched and, like ``precision`` and ``compile``, how torch runs a model (``load_encoder``),
        ``threads`` how many CPU threads the encoder uses (None: all cores), ``exact_limit`` up to how many vectors
        search is exact; ``notice`` is called with a line for all that was degraded or mended.

        Raises ``StoreError`` if there is no catalog or it cannot be read, ``CollectionNotFound``, ``SpaceMismatch``
        if ``model`` does not make the collection's vectors (see ``mmsearch.admission``), ``ModelError``,
        ``ConfigError`` (two builds of FAISS).
        """
        check_build()
        load = functools.partial(
            load_encoder, threads=threads, device=device, precision=precision, compile=compile
        )
        encoder = load(model) if isinstance(model, str | Path) else model
        name = "mini" if model is None else model_name(model)
        catalog = Catalog(Path(home).expanduser() if home is not None else default_home(), create=create)
        try:
            try:
                info = catalog.collection(collection)
            except CollectionNotFound:
                if not create:
                    raise
                encoder = encoder or load("mini")
                info = catalog.create_collection(collection, identity_of(encoder, name))
            return cls(
                catalog,
                info,
                encoder,
                model=name,
                load=load,
                device=device,
                exact_limit=exact_limit,
                notice=notice,
            )
        except BaseException:
            catalog.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog. What was added is committed already; ``save`` is what writes the index file."""
        self.flush_queries()
        self.catalog.close()

    @property
    def home(self) -> Path:
        """The folder of the catalog and the index files."""
        return self.catalog.home

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._era.info.name

    @property
    def collection_id(self) -> int:
        """What the catalog calls the collection."""
        return self._id

    @property
    def space(self) -> Space:
        """What the collection's vectors live in."""
        return self._era.space

    @property
    def encoder(self) -> Encoder:
        """The collection's encoder, loaded on first use. Raises ``ModelError``, ``SpaceMismatch``."""
        return self._era.encoder

    def use(self, encoder: Encoder, model: str) -> None:
        """Encode with this encoder, called ``model``, from here on. Raises ``SpaceMismatch`` if it is not admitted."""
        self._era = self._open_era(self.catalog.collection(self.collection), encoder, model=model)

    # -- writes --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, wait: float = 10.0, what: str = "") -> Iterator[None]:
        """Hold the catalog's right to write over several calls; each write takes it by itself otherwise.

        Raises ``CatalogBusy`` after ``wait`` seconds, saying who has it.
        """
        with self.catalog.writing(wait, what):
            # While we hold it, nobody changes the collection's model.
            self.follow(self.catalog.epoch(self._id))
            yield

    def add(self, items: Iterable[NewItem]) -> list[int]:
        """Add items, or replace those whose key exists (they keep their id); returns the ids.

        Parts without a vector are encoded. All is committed in one transaction and found by the next search. Raises
        ``ItemError`` (no parts, a vector of the wrong shape, an attribute of another kind), ``MediaError`` (a picture
        or sound that cannot be read), ``ModelError``, ``SpaceMismatch`` (the collection was given another model while
        items with ready vectors were on their way); then nothing is stored.
        """
        new = list(items)
        check_items(new)
        era = self._era
        encoded = encode_items(new, era.info.dim, lambda: era.encoder)
        if not new:
            return []
        with self.writing():
            if self._era is not era:
                if any(part.vector is not None for item in new for part in item.parts):
                    raise SpaceMismatch(
                        f"collection {self.collection!r} now has the model {self._era.info.model!r}, and the "
                        "vectors to add were made for the one before: make them anew"
                    )
                encoded = encode_items(new, self.space.dim, lambda: self.encoder)
            self._era.settle()
            ids = self.catalog.add(self._id, new, encoded)
        self._wrote()
        return ids

    def update(self, changes: AttributeChanges, *, replace: bool = False) -> list[str]:
        """Change attributes (price, stock) of items by key; returns the keys that no item has.

        What is not named stays (not with ``replace``), None takes an attribute away. Nothing is encoded: parts, vectors
        and ids stay. All is one transaction. Raises ``ItemError``; then nothing is changed.
        """
        missing = products.update(self.catalog, self._id, changes, replace=replace)
        self._wrote()
        return missing

    def update_files(self, updates: Iterable[FileUpdate]) -> None:
        """Rename or touch files whose content is the same: ids, parts and vectors stay."""
        self.catalog.update_files(self._id, updates)
        self._wrote()

    def remove(self, ids: Iterable[int]) -> int:
        """Remove items; returns how many there were. The next search does not find them."""
        removed = self.catalog.remove(self._id, ids)
        self._wrote()
        return removed

    def remember_root(self, path: str, exclude: Sequence[str] = ()) -> None:
        """Note that ``path`` was indexed with these globs left out."""
        self.catalog.remember_root(self._id, path, exclude)

    def forget_root(self, path: str) -> None:
        """Leave ``path`` out of the next run without arguments. Its items stay."""
        self.catalog.forget_root(self._id, path)

    def save(self) -> None:
        """Bring the index file in line with the catalog, so that the next start is quick. Nothing is lost without."""
        with self.writing(what="saving the index"):
            self.snapshots.save()

    # -- reads ---------------------------------------------------------------------------------------------------

    def search(self, query: Query | str, *, k: int | None = None) -> list[Hit]:
        """The nearest items, best first; byte-identical files come once.

        ``query`` is words, or a ``Query``; ``k`` (default 10) wins over the query's own. Scores are cosines of the best
        part (see ``Query`` for mixed and hybrid lists). Raises ``QueryError`` (empty, bad filter, terms that cancel
        out), ``ItemNotFound`` (a term's item), ``MediaError`` (a term's picture or sound), ``ModelError``.
        """
        asked = Query(terms=(Term(text=query),)) if isinstance(query, str) else query
        if k is not None:
            asked = dataclasses.replace(asked, k=k)
        if asked.k < 1:
            raise QueryError(f"k must be at least 1, not {asked.k}")
        while True:
            # First what needs no encoder: `preload` may still be loading it on another core.
            snapshot = self.snapshots.current(self._written)
            try:
                hits = self._search(asked, snapshot, self.follow(snapshot.epoch))
            except Exception:
                if self.catalog.epoch(self._id) == snapshot.epoch:
                    raise
            else:
                if self.catalog.epoch(self._id) == snapshot.epoch:
                    return hits
            self.snapshots.refresh()  # the collection was given another model meanwhile: this is no answer

    def refresh(self) -> bool:
        """See what other processes wrote since; returns whether there was anything."""
        changed = self.snapshots.refresh()
        self.follow(self.snapshots.current().epoch)
        return changed

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Items with their parts, in the order asked for. Raises ``ItemNotFound``."""
        return self.catalog.get(self._id, ids)

    def find(self, key: str) -> Item | None:
        """The item with this key (for a file its absolute path), or None."""
        return self.catalog.find(self._id, key)

    def items(self) -> Iterator[Item]:
        """All items with their parts, by id."""
        after = 0
        while page := self.catalog.page(self._id, after):
            yield from page
            after = page[-1].id

    def page(self, after: int = 0, limit: int = 1000) -> list[Item]:
        """The next ``limit`` items with ids above ``after``, by id, with their parts."""
        return self.catalog.page(self._id, after, limit)

    def select(self, where: str | None = None, path: str | None = None) -> list[int]:
        """Ids of the items that pass a filter expression and a glob over keys. Raises ``QueryError``."""
        columns = self.current_columns()
        chosen = columns.item_ids[columns.mask(where, path)]
        return sorted(self.catalog.existing(self._id, chosen.tolist()))

    def vectors(self, item: Item) -> Vectors:
        """The stored vectors (parts, dim) of an item from ``get``, ``find`` or ``items``."""
        return self.catalog.vectors_of([part.id for part in item.parts])

    def files(self, under: str | None = None) -> dict[str, FileRecord]:
        """What is known of the files below a folder (or of that very file; None: of all), by path."""
        return self.catalog.files(self._id, under)

    def by_hash(self, hashes: Collection[bytes]) -> dict[bytes, int]:
        """Of each content hash that is known, the id of the oldest item with that content."""
        return self.catalog.by_hash(self._id, hashes)

    def copy_parts(self, item_id: int) -> list[NewPart]:
        """The parts of an item with their vectors, to add a byte-identical copy without encoding it again."""
        (item,) = self.get([item_id])
        return [with_vector(*pair) for pair in zip(item.parts, self.vectors(item), strict=True)]

    def attribute_kinds(self) -> dict[str, str]:
        """The attributes that items have: number, text, boolean or datetime, by name."""
        return self.catalog.attribute_kinds(self._id)

    def roots(self) -> dict[str, list[str]]:
        """The folders that were indexed, with the globs left out."""
        return self.catalog.roots(self._id)

    def status(self) -> Status:
        """What the collection holds and what it costs."""
        from mmsearch.status import status_of

        return status_of(self.catalog, self._era.info, self.snapshots)

    def check(self, repair: bool = False) -> list[str]:
        """What is wrong with the catalog and the index, a line each; ``repair`` mends it. See ``mmsearch.check``."""
        from mmsearch.check import check

        return check(self.catalog, self._era.info, self.snapshots, repair=repair)

    def preload(self) -> None:
        """Start loading the encoder on a thread of its own, for a program that has other things to do first."""
        threading.Thread(target=self._warm_up, daemon=True).start()

    # -- inside --------------------------------------------------------------------------------------------------

    def follow(self, epoch: int) -> Era:
        """The collection with the model that it has had since ``epoch``, or since later."""
        with self._lock:
            if self._era.info.epoch != epoch:
                info = self.catalog.collection_by_id(self._id)
                if (
                    info is not None and info.epoch != self._era.info.epoch
                ):  # None: it was deleted under our feet
                    self._era = self._open_era(info)
            return self._era

    def _search(self, asked: Query, snapshot: Snapshot, era: Era) -> list[Hit]:
        from mmsearch.search import Search, with_copies

        found = [encode_term(term, era.info.dim, lambda: era.encoder, self.parts_of) for term in asked.terms]
        vector = compose([vector for vector, _ in found], [term.weight for term in asked.terms])
        columns = mask = None
        # The columns come second: the mask must know every part that the snapshot has.
        if asked.where is not None or asked.path is not None:
            columns = self.current_columns()
            mask = columns.mask(asked.where, asked.path)
        kinds = [modality for _, modality in found]
        named = with_copies(self.catalog, self._id, [t.item for t in asked.terms if t.item is not None])
        return Search(
            self.catalog, self._id, snapshot, asked, vector, kinds, lambda: era.encoder, named, columns, mask
        ).hits()

    @property
    def snapshots(self) -> Snapshots:
        """The vector indexes."""
        with self._lock:
            if self._snapshots_made is None:
                from mmsearch.snapshots import Snapshots

                self._snapshots_made = Snapshots(
                    self.catalog,
                    self._era.info,
                    device=self._device,
                    exact_limit=self._exact_limit,
                    notice=self._notice,
                )
            return self._snapshots_made

    def current_columns(self) -> Columns:
        """The attributes as columns, at the newest revision."""
        from mmsearch.columns import up_to_date

        with self._lock:
            self._columns = up_to_date(self.catalog, self._id, self._columns)
            return self._columns

    def _wrote(self) -> None:
        self._written = max(self._written, self.catalog.revision()[0])

    def parts_of(self, item_id: int) -> tuple[Vectors, Modality]:
        """What an item is as a term of a query: vectors of parts, and their modality."""
        (item,) = self.get([item_id])
        # A recording resembles what sounds like it, not what is said in it.
        parts = [p for p in item.parts if p.modality in (Modality.FUSED, Modality.AUDIO)] or item.parts
        return self.catalog.vectors_of([part.id for part in parts]), parts[0].modality

    def _warm_up(self) -> None:
        with contextlib.suppress(Exception):  # whoever asks for the encoder next gets the error
            self.encoder.encode_texts(["warm up"])
