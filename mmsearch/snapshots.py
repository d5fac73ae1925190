"""Snapshots: what a search sees of a collection, and how the next one follows from the catalog.

A snapshot holds one vector index per modality at one revision. It starts from the index file if that belongs to this
catalog's history, reads what changed since, and is replaced as a whole: readers never wait and never see half a change.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping

import numpy as np

from mmsearch.catalog import Catalog, index_path
from mmsearch.database import translated
from mmsearch.errors import CatalogBusy, StoreError
from mmsearch.gpu import use_gpu, wish
from mmsearch.rows import CollectionInfo, only_products
from mmsearch.types import Ids, Modality
from mmsearch.vectors import EXACT_LIMIT, Float16, Stamp, VectorIndex, load, save

REBUILD = 0.05
"""Share of changed vectors from which the compressed index is built and written anew."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The vector indexes of a collection at one revision, all of one space.

    ``products``: every item has a fused vector, so that no other need be searched.
    """

    revision: int
    tag: int
    epoch: int
    space: str
    products: bool
    indexes: dict[Modality, VectorIndex]

    @property
    def large(self) -> bool:
        """Whether anything of it belongs into an index file."""
        return any(index.kind != "exact" for index in self.indexes.values())

    @property
    def stale(self) -> bool:
        """Whether so much changed since an index was compressed that reading it again slows each start down."""
        return any(
            index.kind != "exact" and index.tail > REBUILD * len(index) for index in self.indexes.values()
        )


class Snapshots:
    """The current snapshot of one collection, kept up to date. Safe to share between threads."""

    def __init__(
        self,
        catalog: Catalog,
        collection: CollectionInfo,
        *,
        device: str,
        exact_limit: int | None,
        notice: Callable[[str], None],
    ) -> None:
        self.path = index_path(catalog.home, collection.id)
        self._catalog = catalog
        self._collection = collection
        self._device = device
        self._exact_limit = EXACT_LIMIT if exact_limit is None else exact_limit
        self._notice = notice
        self._lock = threading.Lock()
        self._current: Snapshot | None = None
        self._in_file = False  # whether the current bases are those of the index file
        # Left to itself a program that asks once, as a command does, is not worth filling a GPU.
        self._on_gpus = wish(device).gpu != "auto"

    def current(self, revision: int = 0) -> Snapshot:
        """The snapshot, brought up to the newest revision if it is older than ``revision``."""
        snapshot = self._current
        if snapshot is None or snapshot.revision < revision:
            self.refresh()
        elif not self._on_gpus and self._lock.acquire(blocking=False):  # others go on with what there is
            try:
                self._on_gpus = True
                self._current = self._placed(self._current or snapshot)
            finally:
                self._lock.release()
        snapshot = self._current
        assert snapshot is not None
        return snapshot

    def refresh(self) -> bool:
        """Read what changed in the catalog; returns whether anything had."""
        with self._lock:
            before = self._current
            if before is not None:
                if (before.revision, before.tag) == self._catalog.revision():
                    return False
                if not self._catalog.has_revision(before.revision, before.tag):
                    before = None  # a backup was restored under our feet: its part ids mean other vectors
            if before:
                known = max((index.highest for index in before.indexes.values()), default=0)
                following = self._advance(before, dict.fromkeys(Modality, known))
                if following is None:
                    following = self._started()
                elif self._outgrown(following):
                    following, self._in_file = self._rebuilt(), False
                self._current = following
            else:
                self._current = self._started()
            return True

    def _started(self) -> Snapshot:
        """The first snapshot: from the index file if it is of use, else from the catalog alone."""
        stored = self._from_file()
        if stored:
            known_of = {modality: index.highest for modality, index in stored.indexes.items()}
            from_file = self._advance(stored, known_of)
            if from_file is not None and not self._outgrown(from_file):
                self._in_file = True
                return self._placed(from_file)
        missing = not self.path.exists()
        following, self._in_file = self._rebuilt(), False
        if following.large and missing:
            self._notice(f"the index file of {self._collection.name!r} is missing; rebuilt from the catalog")
        if following.large and not self._catalog.read_only:
            # This start paid for it, the next need not. But a search must not fail because this could not be done.
            try:
                with self._catalog.writing(wait=0, what="saving the index"):
                    self._write(following)
            except CatalogBusy:
                pass  # whoever writes saves it
            except StoreError as error:
                self._notice(f"the vector index was not saved, the next start builds it again: {error}")
        return following

    def forget(self) -> None:
        """Drop the current snapshot; the next use reads it again."""
        self._current = None

    def save(self) -> None:
        """Bring the index file in line with the catalog. Small collections have none."""
        with self._lock:
            if self._current is None and not self.path.is_file():
                self._current = self._rebuilt()  # the first save: no file is missing
                self._keep(self._current)
                return
        self.refresh()
        with self._lock:
            assert self._current is not None
            if self._current.large:
                if self._in_file and self.path.is_file() and not self._current.stale:
                    return
                self._current = self._rebuilt()
            self._keep(self._current)

    def beside(self, shadow: CollectionInfo) -> Snapshots:
        """Those of a collection's shadow, searched in the same way, built now. They have no file."""
        coming = Snapshots(
            self._catalog,
            shadow,
            device=self._device,
            exact_limit=self._exact_limit,
            notice=self._notice,
        )
        coming._current = coming._rebuilt()
        return coming

    def take_over(self, coming: Snapshots) -> None:
        """Go on with the indexes of a shadow whose vectors have just become this collection's, and keep them in the
        file: readers need not build them. The right to write must have been held since ``coming`` was refreshed.
        """
        indexes = coming.current().indexes
        with self._lock:
            self._in_file = False
            if any(index.removed for index in indexes.values()):
                self._current = None  # the file would not know what was removed
                return
            revision, tag = self._catalog.revision()
            epoch, space = self._catalog.epoch(self._collection.id), coming.current().space
            products = coming.current().products
            self._current = Snapshot(revision, tag, epoch, space, products, indexes)
            self._keep(self._current)

    def _keep(self, snapshot: Snapshot) -> None:
        if snapshot.large:
            self._write(snapshot)
        else:
            with translated(self.path):
                self.path.unlink(missing_ok=True)

    def _from_file(self) -> Snapshot | None:
        name = self._collection.name
        try:
            stamp, indexes = load(self.path)
        except FileNotFoundError:
            return None  # a small collection has none
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            self._notice(f"the index file of {name!r} is damaged ({error}); rebuilt from the catalog")
            return None
        if stamp.uuid != self._catalog.uuid:
            self._notice(f"the index file of {name!r} belongs to another catalog; rebuilt from this one")
            return None
        if not self._catalog.has_revision(stamp.revision, stamp.tag):
            self._notice(
                f"the index file of {name!r} is newer than the catalog (a restored backup?); rebuilt"
            )
            return None
        epoch = self._catalog.epoch(self._collection.id)
        if stamp.revision < epoch:
            self._notice(f"the index file of {name!r} is that of its former model; rebuilt from the catalog")
            return None
        with self._catalog.reading() as connection:
            products = only_products(connection, self._collection.id)
        return Snapshot(stamp.revision, stamp.tag, epoch, stamp.space, products, indexes)

    def _advance(self, snapshot: Snapshot, after: Mapping[Modality, int]) -> Snapshot | None:
        """The snapshot with what the catalog has since its revision; ``after`` is the highest known part id.

        None if the collection has another model since: then all vectors are others.
        """
        changes = self._catalog.changes(self._collection.id, snapshot.revision, after)
        if changes.epoch > snapshot.revision:
            return None
        indexes = dict(snapshot.indexes)
        for modality, (ids, vectors) in changes.parts.items():
            if modality not in indexes:
                indexes[modality] = VectorIndex.build(ids, vectors, exact_limit=len(ids))
            else:
                indexes[modality] = indexes[modality].updated(ids, vectors, changes.removed)
        if len(changes.removed):
            for modality in snapshot.indexes.keys() - changes.parts.keys():
                index = indexes[modality]
                nothing = np.zeros(0, np.int64), np.zeros((0, index.dim), np.float16)
                indexes[modality] = index.updated(*nothing, changes.removed)
        products = snapshot.products and changes.products
        return Snapshot(changes.revision, changes.tag, changes.epoch, changes.space, products, indexes)

    def _outgrown(self, snapshot: Snapshot) -> bool:
        """Whether so much was added that searching it exactly has become slow."""
        return any(
            index.tail > max(self._exact_limit, len(index) // 4) for index in snapshot.indexes.values()
        )

    def _rebuilt(self) -> Snapshot:
        changes = self._catalog.changes(self._collection.id, 0, {})
        indexes = {
            modality: VectorIndex.build(ids, vectors, exact_limit=self._exact_limit)
            for modality, (ids, vectors) in changes.parts.items()
        }
        return self._placed(
            Snapshot(changes.revision, changes.tag, changes.epoch, changes.space, changes.products, indexes),
            changes.parts,
        )

    def _placed(
        self, snapshot: Snapshot, parts: Mapping[Modality, tuple[Ids, Float16]] | None = None
    ) -> Snapshot:
        """The snapshot with its compressed bases on the GPUs too, if there are any; ``parts`` is all of the catalog."""
        if not self._on_gpus or not use_gpu(self._device) or not snapshot.large:
            return snapshot
        if parts is None:  # the index file has no full vectors
            changes = self._catalog.changes(self._collection.id, 0, {})
            if changes.epoch != snapshot.epoch:
                return snapshot  # given another model this very moment: the next refresh starts anew
            parts = changes.parts
        indexes = dict(snapshot.indexes)
        for modality, (ids, vectors) in parts.items():
            if modality in indexes:
                indexes[modality], reason = indexes[modality].on_gpu(ids, vectors, self._device)
                if reason:
                    self._notice(f"{modality.value} vectors of {self._collection.name!r}: {reason}")
        return dataclasses.replace(snapshot, indexes=indexes)

    def _write(self, snapshot: Snapshot) -> None:
        stamp = Stamp(self._catalog.uuid, snapshot.space, snapshot.revision, snapshot.tag)
        with translated(self.path):
            save(self.path, stamp, snapshot.indexes)
        self._in_file = True
