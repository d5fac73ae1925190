"""The body that sets synonyms and rules of a collection, with what one collection may have of them in all."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from mmsearch import filters
from mmsearch.errors import QueryError
from mmsearch.server.schemas import Body, BoostBody, Key, Many, Name
from mmsearch.shapes import CollectionSettings, Rule, Synonym

__all__ = ["SettingsBody"]

MOST = {"synonym": 20_000, "pinned key": 20_000, "hidden key": 20_000, "boost": 500}
"""Of all synonyms and rules together: every search reads them."""


class SynonymBody(Body):
    """Words that stand for each other; with ``of`` one way only."""

    words: Many[Name] = Field(min_length=1, max_length=100)
    of: Name | None = None


class RuleBody(Body):
    """What the shop wants for some queries, or (without ``query``) for all."""

    query: Name | None = None
    match: Literal["is", "contains"] = "is"
    pinned: Many[Key] = Field(default_factory=list, max_length=100)
    hidden: Many[Key] = Field(default_factory=list, max_length=1000)
    boosts: Many[BoostBody] = Field(default_factory=list, max_length=50)


class SettingsBody(Body):
    """Synonyms and rules of a collection, and whether its queries are kept for suggestions."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "synonyms": [{"words": ["boots", "wellies"]}],
                    "rules": [
                        {"query": "party", "pinned": ["sku-3"], "hidden": ["sku-9"]},
                        {"boosts": [{"where": "stock = 0", "factor": 0.2}]},
                    ],
                }
            ]
        },
    )

    synonyms: Many[SynonymBody] = Field(default_factory=list, max_length=2000)
    rules: Many[RuleBody] = Field(default_factory=list, max_length=2000)
    keep_queries: bool = False

    @model_validator(mode="after")
    def _not_too_many(self) -> SettingsBody:
        found = {
            "synonym": sum(len(one.words) for one in self.synonyms),
            "pinned key": sum(len(rule.pinned) for rule in self.rules),
            "hidden key": sum(len(rule.hidden) for rule in self.rules),
            "boost": sum(len(rule.boosts) for rule in self.rules),
        }
        for what, count in found.items():
            if count > MOST[what]:
                raise ValueError(f"{count} {what}s in all; a collection has at most {MOST[what]}")
        for number, rule in enumerate(self.rules):
            for boost in rule.boosts:
                if boost.where is not None:
                    try:
                        filters.parse(boost.where)
                    except QueryError as error:
                        raise ValueError(f"rule {number}: {error}") from None
        return self

    def shape(self) -> CollectionSettings:
        rules = [
            Rule(
                query=rule.query,
                match=rule.match,
                pinned=rule.pinned,
                hidden=rule.hidden,
                boosts=[boost.shape() for boost in rule.boosts],
            )
            for rule in self.rules
        ]
        synonyms = [Synonym(words=one.words, of=one.of) for one in self.synonyms]
        return CollectionSettings(synonyms=synonyms, rules=rules, keep_queries=self.keep_queries)
