"""Completions of what is being typed."""

from __future__ import annotations

from mmsearch.catalog import Catalog
from mmsearch.collection_settings import kept_queries
from mmsearch.errors import QueryError
from mmsearch.fulltext import rows_with
from mmsearch.shapes import Suggestion
from mmsearch.view import View
from mmsearch.wording import understood
from mmsearch.words import words

_LOOKED_AT = 400  # so many titles are read to find the shortest


def suggestions(catalog: Catalog, collection: int, view: View, text: str, k: int) -> list[Suggestion]:
    """Past queries that begin with ``text``, the most frequent first; then titles that hold its words, the last one
    being a beginning: those that begin with the text first, then shorter ones. Each text once, whatever its case.
    """
    if k < 1:
        raise QueryError(f"k must be at least 1, not {k}")
    state = view.state(None, asked=None, words=True)
    typed = words(text)
    found: dict[str, Suggestion] = {}
    if not typed or state.full_text is None:
        return []
    if state.settings.settings.keep_queries:
        for query, count in kept_queries(catalog, collection, text, k):
            found.setdefault(" ".join(words(query)), Suggestion(text=query, source="query", count=count))
    wording = understood(text, state.full_text, prefix=True)
    rows = None
    for span in wording.spans:
        sets = [
            {row for code in asked.codes for row in rows_with(state.full_text, [code]).tolist()}
            for asked in span.asked
        ]
        here = set.intersection(*sets)
        here.update(*(rows_with(state.full_text, codes).tolist() for codes in span.instead))
        rows = here if rows is None else rows & here
    ids = state.columns.item_ids[sorted(rows or ())][:_LOOKED_AT].tolist()
    items = [item for item in catalog.existing(collection, ids, fields=()).values() if item.title]
    folded = " ".join(typed)
    items.sort(
        key=lambda item: (
            not " ".join(words(item.title or "")).startswith(folded),
            len(item.title or ""),
            item.id,
        )
    )
    for item in items:
        if len(found) >= k:
            break
        title = item.title or ""
        found.setdefault(" ".join(words(title)), Suggestion(text=title, source="title", key=item.key))
    return list(found.values())[:k]
