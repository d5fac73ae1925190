"""Give a collection another model: encode everything again beside it, then exchange the vectors at one stroke.

The new vectors gather in a shadow of the collection (``mmsearch.shadows``), which goes on being searched and written by
the old model. What changes meanwhile is encoded again, the last of it while nobody may write. Interrupt it when you
like: what was committed is kept, and the next run goes on from there. The way back is the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from indexer.addresses import Network
from indexer.counterparts import Counterparts, Unable, counterpart, in_other_words
from indexer.mapping import LEAST, MOST, LinearMap, Quality, learn
from indexer.report import printable
from mmsearch import shadows
from mmsearch.admission import Era, identity_of, model_name
from mmsearch.contents import encode_items, with_vector
from mmsearch.encoders import Encoder
from mmsearch.encoding import ahead
from mmsearch.engine import Engine
from mmsearch.errors import CatalogBusy, ConfigError, MigrationRefused, SpaceMismatch, StoreError
from mmsearch.shadows import MAPPED, Shadow
from mmsearch.types import Item, Modality, NewItem, Vectors

__all__ = ["Migrated", "finish", "migrate", "rollback", "shadow_of"]

COMMIT_ITEMS = 256
COMMIT_SECONDS = 2.0
"""So many items or seconds at most go into one commit, and at most so much is lost when a run is killed."""

SHOWN = 10
_PATIENCE = 86_400.0  # seconds to wait for another writer
_PART_BYTES = 300  # what a part costs beside its vector and its text

Progress = Callable[[int, int], None]
Notice = Callable[[str], None]


@dataclasses.dataclass(slots=True, kw_only=True)
class Migrated:
    """What a run did, in items. ``copied`` of the ``encoded`` ones had the content of another one. ``mapped``: keys of
    those whose files are gone. ``quality``: how good the map is that they went by, by modality. ``seconds`` on the
    clock; for ``locked`` of them nobody could write.
    """

    collection: str
    model: str
    former: str
    items: int = 0
    encoded: int = 0
    copied: int = 0
    mapped: list[str] = dataclasses.field(default_factory=list)
    quality: dict[Modality, Quality] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    locked: float = 0.0


def shadow_of(engine: Engine) -> Shadow | None:
    """The other model's vectors of a collection: those to come, or the former ones. None if there are none."""
    info = engine.catalog.collection(engine.collection)
    return shadows.find(engine.catalog, info.id)


def migrate(
    engine: Engine,
    model: str | Path | Encoder | None = None,
    *,
    map_vanished: bool = False,
    progress: Progress = lambda done, total: None,
    notice: Notice = lambda line: None,
    workers: int | None = None,
    allowed: Sequence[Network] = (),
) -> Migrated:
    """Encode a collection with ``model`` and switch to it. None goes on with a migration that was begun.

    Pictures and sounds are read from their files, texts from the catalog. Items whose files are gone or have changed
    are a reason to refuse, unless ``map_vanished``: then their vectors are worked out from the former ones by a linear
    map that the others teach (``indexer.mapping``). ``progress`` is called with the number of items done and of all,
    ``notice`` with what the user should know. ``allowed`` are networks that pictures are fetched from although they are
    not public (``indexer.addresses.networks``).

    Raises ``ConfigError`` (there is nothing to migrate, or another migration is not finished), ``MigrationRefused``,
    ``StoreError`` (no room on the disk), ``ModelError``, ``CatalogBusy``.
    """
    shadow = shadow_of(engine)
    if model is None:
        if shadow is None or shadow.switched:
            raise ConfigError(f"collection {engine.collection!r}: to which model? Give --model NAME")
        era = _era(engine, shadow, notice)
    else:
        encoder = engine.load(model) if isinstance(model, str | Path) else model
        era = _begun(engine, shadow, encoder, model_name(model), notice)
    return _Migration(engine, era, map_vanished, progress, notice, workers, allowed).run()


def rollback(
    engine: Engine,
    *,
    map_vanished: bool = False,
    progress: Progress = lambda done, total: None,
    notice: Notice = lambda line: None,
    workers: int | None = None,
    allowed: Sequence[Network] = (),
) -> Migrated:
    """Switch back to the former model. Only what was added or changed since is encoded. Raises as ``migrate`` does."""
    shadow = shadow_of(engine)
    if shadow is None or not shadow.switched:
        raise ConfigError(f"collection {engine.collection!r} has no former vectors to go back to")
    era = _era(engine, shadow, notice)
    return _Migration(engine, era, map_vanished, progress, notice, workers, allowed).run()


def finish(engine: Engine) -> int:
    """Delete the other model's vectors and give their room back to the disk; returns the number of items.

    Once switched these are the former ones, and there is no way back; before, it gives up what was begun.
    """
    with engine.writing(what="deleting the former vectors"):
        deleted = shadows.forget(engine.catalog, engine.catalog.collection(engine.collection).id)
        engine.catalog.shrink()
    return deleted


def _era(engine: Engine, shadow: Shadow, notice: Notice) -> Era:
    """The shadow with its own model, which is loaded when it is needed."""
    return Era(engine.catalog, shadow.info, load=engine.load, notice=notice)


def _begun(engine: Engine, shadow: Shadow | None, encoder: Encoder, name: str, notice: Notice) -> Era:
    """The shadow for the vectors of this encoder, made if there is none."""
    catalog, info = engine.catalog, engine.catalog.collection(engine.collection)
    with contextlib.suppress(SpaceMismatch):
        Era(catalog, info, encoder, model=name, load=engine.load, notice=notice)
        raise ConfigError(f"collection {info.name!r} has the vectors of {name} already: nothing to migrate")
    if shadow is None:
        shadows.make(catalog, info.id, identity_of(encoder, name))
        shadow = shadows.find(catalog, info.id)
        assert shadow is not None
    try:
        return Era(catalog, shadow.info, encoder, model=name, notice=notice)
    except SpaceMismatch as error:
        what = "still has its former vectors" if shadow.switched else "is on its way to"
        raise ConfigError(
            f"collection {info.name!r} {what} ({shadow.info.model}): one migration at a time. Delete those vectors "
            f"first: `mmsearch migrate {info.name} --finish`"
        ) from error


class _Migration:
    """One run. Files are read on threads, all else happens on the caller's."""

    def __init__(
        self,
        engine: Engine,
        era: Era,
        map_vanished: bool,
        progress: Progress,
        notice: Notice,
        workers: int | None,
        allowed: Sequence[Network],
    ) -> None:
        self._engine = engine
        self._catalog = engine.catalog
        self._source = engine.catalog.collection(engine.collection)
        self._era = era
        self._shadow = era.info.id
        self._map_vanished = map_vanished
        self._progress = progress
        self._notice = notice
        self._workers = workers or max(2, min(16, os.cpu_count() or 2))
        self._allowed = allowed
        self._unable: dict[int, Unable] = {}  # by lowest part id
        self.report = Migrated(collection=self._source.name, model=era.info.model, former=self._source.model)

    def run(self) -> Migrated:
        started = time.perf_counter()
        todo = self._todo()
        self._tell_the_cost(len(todo))
        postponed = True
        while todo and (postponed or len(todo) > COMMIT_ITEMS):
            postponed = self._encode(todo)
            todo = self._todo()
        self._encode(todo)
        self._settle()
        coming = self._engine.snapshots.beside(self._era.info)
        with self._writing("switching to another model"):
            locked = time.perf_counter()
            self._check()
            self._encode(self._todo())
            self._settle()
            coming.refresh()
            if not shadows.switch(self._catalog, self._source.id, self._shadow):
                raise StoreError(
                    f"collection {self._source.name!r} has items without parts: run `mmsearch check --repair` first"
                )
            try:
                self._engine.snapshots.take_over(coming)
            except StoreError as error:
                self._notice(f"the vector index was not saved, the next start builds it again: {error}")
            self.report.locked = time.perf_counter() - locked
        self._engine.refresh()
        if self._era.loaded is not None:
            self._engine.use(self._era.loaded, self._era.info.model)
        with contextlib.suppress(CatalogBusy):  # whoever writes saves what is left to save
            self._engine.save()
        shadow = shadows.find(self._catalog, self._source.id)
        self.report.items = shadow.total if shadow else 0
        self.report.seconds = time.perf_counter() - started
        return self.report

    # -- what is to be done ----------------------------------------------------------------------------------------

    def _todo(self) -> list[tuple[int, int]]:
        """Items without a counterpart, with their lowest part ids; what cannot be encoded is not tried again."""
        with self._writing("migrating"):
            shadows.drop_stale(self._catalog, self._source.id, self._shadow)
        missing = shadows.missing(self._catalog, self._source.id, self._shadow)
        current = {first for _, first in missing}
        self._unable = {first: unable for first, unable in self._unable.items() if first in current}
        return [(item, first) for item, first in missing if first not in self._unable]

    def _tell_the_cost(self, items: int) -> None:
        """Say what is needed on the disk. Raises ``StoreError`` if there is not as much."""
        if not items:
            return
        parts, characters, total = self._sizes()
        share = items / max(total, 1)
        needed = round(share * (parts * (2 * self._era.info.dim + _PART_BYTES) + 2 * characters))
        free = shutil.disk_usage(self._catalog.home).free
        if needed > free:
            raise StoreError(
                f"{self._catalog.home}: the new vectors need about {needed / 1e6:,.0f} MB beside the old ones, and "
                f"{free / 1e6:,.0f} MB are free"
            )
        self._notice(
            f"encoding {items:,} items with {self._era.info.model}; the catalog grows by about {needed / 1e6:,.1f} MB "
            "until `mmsearch migrate --finish`"
        )

    def _sizes(self) -> tuple[int, int, int]:
        query = (
            "SELECT count(*), coalesce(sum(length(p.text)), 0), count(DISTINCT p.item_id) FROM items i"
            f" JOIN parts p ON p.item_id = i.id WHERE i.collection_id = {self._source.id}"
        )
        with self._catalog.reading() as connection:
            parts, characters, total = connection.execute(query).fetchone()
        return int(parts), int(characters), int(total)

    # -- encoding --------------------------------------------------------------------------------------------------

    def _encode(self, todo: Sequence[tuple[int, int]]) -> bool:
        """Make counterparts of these items and commit them in batches. True if some wait for others of the same content
        and are to be asked for again.
        """
        if not todo:
            return False
        encoder = self._era.encoder
        counterparts = Counterparts(self._catalog, self._era, self._allowed)
        made: list[NewItem] = []
        fresh: list[NewItem] = []
        encoded: list[Vectors] = []
        committed = time.monotonic()
        postponed = False

        def encode() -> None:
            encoded.extend(encode_items(fresh, self._era.info.dim, lambda: encoder))
            made.extend(fresh)
            fresh.clear()

        with contextlib.closing(counterparts), ThreadPoolExecutor(self._workers, "decode") as pool:
            ready = ahead(pool, counterparts, self._items(todo), 2 * self._workers + encoder.batch_size)
            try:
                for number, found in enumerate(ready, start=1):
                    if isinstance(found, Unable):
                        self._unable[min(part.id for part in found.item.parts)] = found
                    elif found is None:
                        postponed = True
                    else:
                        fresh.append(found.new)
                        self.report.copied += found.copied
                    late = time.monotonic() - committed >= COMMIT_SECONDS
                    if late or len(fresh) >= encoder.batch_size:
                        encode()
                    if late or len(made) >= COMMIT_ITEMS:
                        self._commit(made, encoded)
                        committed = time.monotonic()
                    self._progress(number, len(todo))
                encode()
                self._commit(made, encoded)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return postponed

    def _items(self, todo: Sequence[tuple[int, int]]) -> Iterator[Item]:
        """The items as they are now; those that are gone or others by now are left to the next round."""
        for start in range(0, len(todo), COMMIT_ITEMS):
            some = dict(todo[start : start + COMMIT_ITEMS])
            for item in self._catalog.existing(self._source.id, list(some), with_parts=True).values():
                if item.parts and min(part.id for part in item.parts) == some[item.id]:
                    yield item

    def _commit(self, made: list[NewItem], encoded: list[Vectors]) -> None:
        if made:
            self._store(made, encoded)
            self.report.encoded += len(made)
            made.clear()
            encoded.clear()

    def _store(self, new: Sequence[NewItem], encoded: Sequence[Vectors]) -> None:
        with self._writing("migrating"):
            self._check()
            self._catalog.add(self._shadow, new, encoded)

    def _check(self) -> None:
        """Raise ``StoreError`` if the two collections are no longer what they were when this run began."""
        for before in (self._source, self._era.info):
            now = self._catalog.collection_by_id(before.id)
            if now is None or now.epoch != before.epoch:
                raise StoreError(
                    f"another process switched collection {self._source.name!r} or gave its migration up meanwhile; "
                    f"see `mmsearch migrate {self._source.name} --status`"
                )

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """The right to write, however long another one writes: a migration is not to fail after hours."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._catalog.writing(what=what))
            except CatalogBusy as error:
                self._notice(f"waiting: {error}")
                stack.enter_context(self._catalog.writing(wait=_PATIENCE, what=what))
            yield

    # -- what cannot be encoded ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Map what could not be encoded, or raise ``MigrationRefused``."""
        if not self._unable:
            return
        if not self._map_vanished:
            self._refuse(
                "Bring the files back, remove the items, or give --map-vanished to work their vectors out"
            )
        maps: dict[Modality, LinearMap] = {}
        new = []
        for unable in self._unable.values():
            item, parts = unable.item, []
            rows = self._catalog.vectors_of([part.id for part in item.parts])
            for part, row in zip(item.parts, rows, strict=True):
                able = {*self._era.encoder.modalities, Modality.FUSED}
                said = in_other_words(part) if part.modality in able else None
                if said is None and part.modality not in maps:
                    maps[part.modality] = self._learn(part.modality)
                parts.append(said or with_vector(part, maps[part.modality](row[None])[0]))
            new.append(dataclasses.replace(counterpart(item, parts), title=MAPPED))
        encoded = encode_items(new, self._era.info.dim, lambda: self._era.encoder)
        self._store(new, encoded)  # all at once: nothing is learnt from what was mapped
        self.report.mapped += [printable(unable.item.key) for unable in self._unable.values()]
        self._unable.clear()

    def _learn(self, modality: Modality) -> LinearMap:
        found = shadows.pairs(self._catalog, self._source.id, self._shadow, modality, MOST)
        if len(found.here) < LEAST:
            self._refuse(
                f"Their vectors cannot be worked out: that takes {LEAST} parts of modality {modality} that both models "
                f"have encoded, and there are {len(found.here)}. Bring the files back, or remove the items"
            )
        learnt, self.report.quality[modality] = learn(found.here, found.there)
        return learnt

    def _refuse(self, advice: str) -> None:
        items = {printable(unable.item.key): unable.reason for unable in self._unable.values()}
        lines = [f"  {key}: {reason}" for key, reason in list(items.items())[:SHOWN]]
        if len(items) > SHOWN:
            lines.append(f"  and {len(items) - SHOWN:,} more; --json lists them all")
        raise MigrationRefused(
            f"{len(items):,} items of collection {self._source.name!r} cannot be encoded with {self._era.info.model}; "
            "the others are, and nothing was switched:\n" + "\n".join(lines) + f"\n{advice}.",
            items,
        )
