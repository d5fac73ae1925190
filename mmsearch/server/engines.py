"""The engines of a server: one for each collection, opened when first asked for, kept up to date in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from mmsearch.catalog import Catalog, CollectionInfo
from mmsearch.encoders import Encoder
from mmsearch.engine import Engine
from mmsearch.errors import MmsearchError
from mmsearch.server.batching import SharedEncoder

__all__ = ["Engines"]

logger = logging.getLogger("mmsearch.server")


class Engines:
    """Engines of one home by collection. ``load`` makes an encoder of a model's name; models are shared.

    What other processes write is seen within ``refresh`` seconds: a thread reads it, so that no search has to.
    """

    def __init__(
        self, home: Path, load: Callable[[str], Encoder], *, refresh: float, device: str = "auto"
    ) -> None:
        self.catalog = Catalog(home, create=True)
        self.home = home
        self._load = load
        self._device = device
        self._refresh = refresh
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._encoders: dict[str, SharedEncoder] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="refresh", daemon=True)
        self._thread.start()

    def get(self, name: str) -> Engine:
        """The engine of a collection. Raises ``CollectionNotFound``, ``ModelError``, ``StoreError``."""
        engine = self._engines.get(name)
        if engine is not None:
            return engine
        info = self.catalog.collection(name)
        encoder = self.encoder(info.model)
        with self._lock:
            if name not in self._engines:
                self._engines[name] = Engine.open(
                    self.home,
                    collection=name,
                    model=encoder,
                    create=False,
                    device=self._device,  # type: ignore[arg-type]
                    notice=logger.warning,
                )
            return self._engines[name]

    def encoder(self, model: str) -> SharedEncoder:
        """The shared encoder of a model. Raises ``ModelError``."""
        with self._lock:
            if model not in self._encoders:
                self._encoders[model] = SharedEncoder(self._load(model))
            return self._encoders[model]

    def create(self, name: str, model: str) -> CollectionInfo:
        """Make a collection. Raises ``ModelError``, ``ItemError``."""
        space = self.encoder(model).space
        return self.catalog.create_collection(name, model=model, space=space.id, dim=space.dim)

    def delete(self, name: str) -> int:
        """Delete a collection; returns how many items it had."""
        self._forget(name)
        return self.catalog.delete_collection(name)

    def known(self) -> dict[str, Engine]:
        """The engines that are open."""
        with self._lock:
            return dict(self._engines)

    def encoders(self) -> list[SharedEncoder]:
        with self._lock:
            return list(self._encoders.values())

    def warm(self) -> None:
        """Load what the first query of each collection would have to wait for."""
        for info in self.catalog.collections():
            try:
                engine = self.get(info.name)
                engine.encoder.encode_texts(["warm up"])
                engine.search("warm up", k=1)
            except MmsearchError as error:
                logger.warning("collection %s cannot be searched: %s", info.name, error)

    def close(self) -> None:
        """Save the index files and close everything."""
        self._stopped.set()
        self._thread.join()
        for engine in self.known().values():
            try:
                engine.save()
            except MmsearchError as error:
                logger.warning("the index of %s was not saved: %s", engine.collection, error)
            engine.close()
        self.catalog.close()

    def _follow(self) -> None:
        while not self._stopped.wait(self._refresh):
            for name, engine in self.known().items():
                try:
                    engine.refresh()
                except MmsearchError as error:
                    logger.warning("collection %s could not be refreshed: %s", name, error)
                    self._forget(name)
                except Exception:
                    logger.exception("collection %s could not be refreshed", name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._engines.pop(name, None)
