"""The engines of a server: one for each collection, opened when first asked for, kept up to date in the background."""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from mmsearch.admission import identity_of, model_name
from mmsearch.catalog import Catalog
from mmsearch.config import Device
from mmsearch.encoders import Encoder
from mmsearch.engine import Engine
from mmsearch.errors import CollectionNotFound, MmsearchError
from mmsearch.memory import trim
from mmsearch.rows import CollectionInfo
from mmsearch.server.batching import SharedEncoder
from mmsearch.server.pace import Pace, Turns
from mmsearch.server.warming import warm

__all__ = ["Engines"]

logger = logging.getLogger("mmsearch.server")

TRIM = 60.0
"""Every so many seconds free memory is given back."""


class Engines:
    """Engines of one home by collection. ``load`` makes an encoder of a model's name; models are shared.

    A collection has two: one that searches, and one that writes, so that no search ever waits for a write. What is
    written is read in the background: here at once (see ``pace``), by another process within ``refresh`` seconds.
    """

    def __init__(
        self,
        home: Path,
        load: Callable[[str], Encoder],
        *,
        refresh: float,
        pace: Pace,
        device: Device = "auto",
    ) -> None:
        self.catalog = Catalog(home, create=True)
        self.home = home
        self._load = load
        self._device = device
        self._refresh = refresh
        self._pace, self._turns = pace, Turns(pace)
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._writers: dict[str, Engine] = {}
        self._users: collections.Counter[Engine] = collections.Counter()
        self._forgotten: set[Engine] = set()
        self._encoders: dict[str, SharedEncoder] = {}
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._waiting: list[Future[None]] = []
        self._thread = threading.Thread(target=self._follow, name="refresh", daemon=True)
        self._thread.start()

    def searching(self, name: str) -> contextlib.AbstractContextManager[Engine]:
        """The engine that searches a collection, which stays open meanwhile whoever deletes the collection.

        Raises ``CollectionNotFound``, ``ModelError``, ``StoreError``.
        """
        return self._using(self._engines, name)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Engine]:
        """The engine that writes into a collection, as soon as nobody searches (see ``pace``). Otherwise as
        ``searching``.
        """
        with self._using(self._writers, name) as engine:
            self._pace.calm()
            yield engine

    @contextlib.contextmanager
    def _using(self, engines: dict[str, Engine], name: str) -> Iterator[Engine]:
        with self._lock:
            engine = engines.get(name)
            if engine is not None:
                self._users[engine] += 1
        if engine is None:
            engine = self._opened(engines, name)
        try:
            yield engine
        finally:
            self._left(engine)

    def _left(self, engine: Engine) -> None:
        with self._lock:
            self._users[engine] -= 1
            self._close_unused()

    def _opened(self, engines: dict[str, Engine], name: str) -> Engine:
        """The engine of a collection, opened if it is not; its user is counted."""
        info = self.catalog.collection(name)
        encoder = self.encoder(info.model)
        with self._lock:
            if name not in engines:
                engines[name] = Engine(
                    Catalog(self.home, create=False),
                    info,
                    encoder,
                    load=lambda model: self.encoder(str(model)),
                    model=info.model,
                    device=self._device,
                    notice=logger.warning,
                )
            self._users[engines[name]] += 1
            return engines[name]

    def encoder(self, model: str) -> SharedEncoder:
        """The shared encoder of a model. Raises ``ModelError``."""
        with self._lock:
            known = self._encoders.get(model)
        if known is None:
            fresh = SharedEncoder(self._load(model))
            with self._lock:
                known = self._encoders.setdefault(model, fresh)
        return known

    def create(self, name: str, model: str) -> CollectionInfo:
        """Make a collection. Raises ``ModelError``, ``ItemError``."""
        return self.catalog.create_collection(name, identity_of(self.encoder(model), model_name(model)))

    def delete(self, name: str) -> int:
        """Delete a collection; returns how many items it had."""
        count = self.catalog.delete_collection(name)
        self._forget(name)
        return count

    def known(self) -> dict[str, Engine]:
        """The engines that are open."""
        with self._lock:
            return dict(self._engines)

    def encoders(self) -> list[SharedEncoder]:
        with self._lock:
            return list(self._encoders.values())

    def warm(self) -> None:
        """Load what the first query of each collection would have to wait for: a search that looks at all there is."""
        for info in self.catalog.collections():
            try:
                with self.searching(info.name) as engine:
                    warm(engine)
                with self._using(self._writers, info.name):
                    pass
            except MmsearchError as error:
                logger.warning("collection %s cannot be searched: %s", info.name, error)
            except Exception:
                logger.exception("collection %s cannot be searched", info.name)
        from mmsearch import writes  # noqa: F401  the first write need not wait for this

    def close(self) -> None:
        """Close everything."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()
        for engine in self.known().values():
            engine.close()
        for engine in self._writers.values():
            engine.close()
        self.catalog.close()

    def wrote(self) -> Future[None]:
        """Tell that something was written here; what is returned is done as soon as searches see it."""
        seen: Future[None] = Future()
        with self._lock:
            self._waiting.append(seen)
        self._wake.set()
        return seen

    def _follow(self) -> None:
        trimmed = time.monotonic()
        while not self._stopped.is_set():
            self._wake.wait(self._refresh)
            with self._turns:
                self._wake.clear()
                with self._lock:
                    waiting, self._waiting = self._waiting, []
                self._keep_up()
                if time.monotonic() > trimmed + TRIM:
                    trim()
                    trimmed = time.monotonic()
            for seen in waiting:
                if seen.set_running_or_notify_cancel():
                    seen.set_result(None)

    def _keep_up(self) -> None:
        for name, engine in self.known().items():
            with self._lock:
                if self._engines.get(name) is not engine:
                    continue
                self._users[engine] += 1
            try:
                if self.catalog.collection(name).id != engine.collection_id:
                    self._forget(name)  # deleted, and made anew by somebody
                else:
                    engine.keep_up()
            except CollectionNotFound:
                self._forget(name)
            except MmsearchError as error:
                logger.warning("collection %s could not be refreshed: %s", name, error)
                self._forget(name)
            except Exception:
                logger.exception("collection %s could not be refreshed", name)
            finally:
                self._left(engine)

    def _forget(self, name: str) -> None:
        """Let nobody have the engines of a collection any more; they are closed when their last user is done."""
        with self._lock:
            self._forgotten |= {
                engine
                for engines in (self._engines, self._writers)
                if (engine := engines.pop(name, None)) is not None
            }
            self._close_unused()

    def _close_unused(self) -> None:
        for engine in [engine for engine in self._forgotten if not self._users[engine]]:
            self._forgotten.remove(engine)
            del self._users[engine]
            engine.close()
