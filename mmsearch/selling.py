"""The part of an engine that looks at whole results. Nothing is imported or read before somebody asks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.shapes import CollectionSettings, Results, Suggestion
    from mmsearch.types import Query
    from mmsearch.whole import Whole


class Selling:
    """What an ``Engine`` answers about all that matches, beside the nearest items of ``Engine.search``."""

    def results(self, query: Query | str) -> Results:
        """One page of all that a ``Query`` may ask for; words alone are a hybrid query. See ``mmsearch.results``.

        Raises what ``search`` raises, and ``QueryError`` for a cursor of another query.
        """
        return self.results_of([query])[0]

    def results_of(self, queries: Sequence[Query | str]) -> list[Results]:
        """Several searches at once: their texts are encoded in one go."""
        return self._whole.results(queries)

    def keep_up(self) -> None:
        """Read what was written since, so that results need not. From then on they and suggestions are as of the last
        such call, never wait for it, and whoever called it goes on calling it.
        """
        self._whole.keep_up()

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """Completions of what is being typed: past queries (if the collection keeps them), phrases that titles say,
        values of attributes to narrow by, titles; see ``Suggestion``. What is misspelt is put right where nothing goes
        on from it as it is.
        """
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

    def flush_queries(self) -> None:
        """Write the queries that were noted, unless somebody else is writing."""
        if "_whole" in self.__dict__:
            self._whole.flush()

    @functools.cached_property
    def _whole(self) -> Whole:
        from mmsearch.whole import Whole

        return Whole(cast("Engine", self))
