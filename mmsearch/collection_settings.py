"""What a collection keeps for its searches: synonyms, rules, and (if switched on) what was asked before."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch.catalog import Catalog
from mmsearch.errors import QueryError
from mmsearch.shapes import Boost, CollectionSettings, Rule, Synonym
from mmsearch.wording import Stems, synonym_table
from mmsearch.words import stems, words


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Settings, ready to be applied: ``synonyms`` by stems, the words of each rule's query as stems (None: always)."""

    settings: CollectionSettings
    stored: str
    synonyms: Mapping[Stems, Sequence[Stems]]
    queries: Sequence[Stems | None]

    def rules(self, text: str) -> list[Rule]:
        """The rules for a query of these words."""
        said = tuple(stems(words(text)))
        return [
            rule
            for rule, wanted in zip(self.settings.rules, self.queries, strict=True)
            if wanted is None
            or said == wanted
            or (
                rule.match == "contains"
                and any(said[n : n + len(wanted)] == wanted for n in range(len(said) - len(wanted) + 1))
            )
        ]


def read_settings(catalog: Catalog, collection: int, known: Prepared | None = None) -> Prepared:
    """A collection's settings; ``known`` comes back if they are still the same."""
    with catalog.reading() as connection:
        row = connection.execute(
            "SELECT data FROM settings WHERE collection_id = ?", (collection,)
        ).fetchone()
    stored = row[0] if row else "{}"
    if known is not None and known.stored == stored:
        return known
    settings = _settings(json.loads(stored))
    return Prepared(
        settings,
        stored,
        synonym_table(settings.synonyms),
        [None if rule.query is None else tuple(stems(words(rule.query))) for rule in settings.rules],
    )


def _settings(data: Mapping[str, Any]) -> CollectionSettings:
    """What ``dataclasses.asdict`` wrote; JSON has lists only."""

    def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

    return CollectionSettings(
        synonyms=tuple(Synonym(**tuples(synonym)) for synonym in data.get("synonyms", ())),
        rules=tuple(
            Rule(**tuples(rule) | {"boosts": tuple(Boost(**boost) for boost in rule["boosts"])})
            for rule in data.get("rules", ())
        ),
        keep_queries=data.get("keep_queries", False),
    )


def change_settings(catalog: Catalog, collection: int, settings: CollectionSettings) -> None:
    """Replace a collection's settings. Raises ``QueryError`` naming what is wrong."""
    check(settings)
    from mmsearch import writes

    with catalog.transaction() as connection:
        writes.change_settings(connection, collection, json.dumps(dataclasses.asdict(settings)))


def check(settings: CollectionSettings) -> None:
    """Raise ``QueryError`` for synonyms without words, rules that name none, and boosts that are none."""
    for synonym in settings.synonyms:
        texts = [*synonym.words, *([] if synonym.of is None else [synonym.of])]
        if len(texts) < 2 or not all(words(text) for text in texts):
            raise QueryError(f"a synonym needs two texts with words in them at least, not {texts!r}")
    for rule in settings.rules:
        if rule.query is not None and not words(rule.query):
            raise QueryError(f"a rule's query needs words, not {rule.query!r}; leave it out for every query")
        if rule.match not in ("is", "contains"):
            raise QueryError(f'a rule\'s match is "is" or "contains", not {rule.match!r}')
        for boost in rule.boosts:
            check_boost(boost)


def check_boost(boost: Boost) -> None:
    """Raise ``QueryError`` if a boost is none."""
    if (boost.where is None) == (boost.attribute is None):
        raise QueryError("a boost needs either a filter (where) or a number (attribute)")
    if boost.where is not None and not 0 < boost.factor < float("inf"):
        raise QueryError(f"the factor of a boost must be above 0, not {boost.factor!r}")
    if boost.attribute is not None and not -1 < boost.weight < float("inf"):
        raise QueryError(f"the weight of a boost must be above -1, not {boost.weight!r}")
    if boost.curve not in ("linear", "log"):
        raise QueryError(f'the curve of a boost is "linear" or "log", not {boost.curve!r}')


def keep_queries(catalog: Catalog, collection: int, asked: Mapping[str, int]) -> None:
    """Add to what was asked: texts with how often."""
    from mmsearch import writes

    now = time.time()
    rows: dict[str, dict[str, Any]] = {}
    for text, often in asked.items():
        folded = " ".join(words(text))
        if folded:
            row = rows.setdefault(folded, {"folded": folded, "text": text.strip(), "count": 0, "last": now})
            row["count"] += often
            row["text"] = text.strip()
    with catalog.transaction() as connection:
        writes.keep_queries(connection, collection, list(rows.values()))


def kept_queries(catalog: Catalog, collection: int, beginning: str, limit: int) -> list[tuple[str, int]]:
    """Past queries that begin so, the most frequent ones with how often they were asked."""
    folded = " ".join(words(beginning))
    query = (
        "SELECT text, count FROM kept_queries WHERE collection_id = ? AND folded >= ? AND folded < ?"
        " ORDER BY count DESC, folded LIMIT ?"
    )
    with catalog.reading() as connection:
        rows = connection.execute(query, (collection, folded, folded + "\U0010ffff", limit))
        return [(text, count) for text, count in rows]
