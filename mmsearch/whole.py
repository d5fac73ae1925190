"""What an engine does with a collection as a whole: results, suggestions, settings. Made by the first who asks."""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmsearch.collection_settings import change_settings, keep_queries
from mmsearch.errors import StoreError
from mmsearch.results import Kept, results
from mmsearch.shapes import CollectionSettings, Results, Suggestion
from mmsearch.suggest import Suggester
from mmsearch.types import Query, Term
from mmsearch.view import View

if TYPE_CHECKING:
    from mmsearch.engine import Engine

_BUFFERED = 50
_SECONDS = 10.0
"""So many queries are noted before they are written, or those of so many seconds."""


class Whole:
    """The state that results, suggestions and settings of one engine share. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._view = View(
            engine.catalog, engine.collection_id, lambda: engine.space.dim, engine.current_columns
        )
        self._suggester = Suggester(engine.catalog, engine.collection_id, self._view)
        self._kept = Kept()
        self._asked: collections.Counter[str] = collections.Counter()
        self._flushed = -math.inf
        self._lock = threading.Lock()

    def results(self, queries: Sequence[Query | str]) -> list[Results]:
        """See ``Engine.results_of``."""
        asked = [
            Query(terms=(Term(text=query),), hybrid=True) if isinstance(query, str) else query
            for query in queries
        ]
        engine, collection = self._engine, self._engine.collection_id
        while True:
            epoch = engine.catalog.epoch(collection)
            engine.follow(epoch)
            self._view.forget_before(epoch)
            try:
                found = results(engine, self._view, self._kept, asked)
            except Exception:
                if engine.catalog.epoch(collection) == epoch:
                    raise
            else:
                if engine.catalog.epoch(collection) == epoch:
                    return found
            # The collection was given another model meanwhile: this is no answer.

    def keep_up(self) -> None:
        """See ``Engine.keep_up``."""
        self._engine.follow(self._engine.catalog.epoch(self._engine.collection_id))
        self._view.keep_up()

    def suggest(self, text: str, k: int) -> list[Suggestion]:
        """See ``Engine.suggest``."""
        return self._suggester.suggestions(text, k)

    def settings(self) -> CollectionSettings:
        """See ``Engine.settings``."""
        return self._view.state(None, asked=None, words=False).settings.settings

    def change_settings(self, settings: CollectionSettings) -> None:
        """See ``Engine.change_settings``."""
        change_settings(self._engine.catalog, self._engine.collection_id, settings)

    def note_query(self, text: str) -> None:
        """See ``Engine.note_query``."""
        if self.settings().keep_queries:
            with self._lock:
                self._asked[text] += 1
                due = time.monotonic() - self._flushed >= _SECONDS or self._asked.total() >= _BUFFERED
            if due:
                self.flush()

    def flush(self) -> None:
        """Write the queries that were noted, unless somebody else is writing: then they wait for the next time."""
        with self._lock:
            asked, self._asked = self._asked, collections.Counter()
            self._flushed = time.monotonic()
        if asked:
            try:
                with self._engine.writing(wait=0):
                    keep_queries(self._engine.catalog, self._engine.collection_id, asked)
            except StoreError:  # somebody writes, or the folder is read-only
                with self._lock:
                    self._asked += asked
