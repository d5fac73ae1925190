"""What the answers look like, for the OpenAPI document alone: nothing is made or checked of these at run time.

``tests/integration/test_server_answers.py`` holds real answers against them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from mmsearch.types import Modality

__all__ = [
    "Alive",
    "Changed",
    "CollectionList",
    "CollectionTold",
    "Completions",
    "Deleted",
    "Encoded",
    "FoundItem",
    "ItemPage",
    "MultiPage",
    "Ready",
    "Removed",
    "RemovedByKey",
    "SearchPage",
    "SettingsTold",
    "Spoken",
    "Written",
    "answer",
]

_T = TypeVar("_T")

Maybe: TypeAlias = _T | SkipJsonSchema[None]
"""A field that may be missing, and is never null."""

Scalar: TypeAlias = bool | float | str


def answer(model: type[BaseModel], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """How the OpenAPI document tells what a route answers."""
    return {status: {"model": model}}


class FoundPart(BaseModel):
    """A part of an item: a picture, a passage, a piece of a sound, or (``fused``) the product as a whole."""

    id: int
    modality: Modality
    ordinal: int = Field(description="Its place in the item.")
    start: Maybe[float] = Field(
        None, description="Where it begins: seconds of a sound, characters of a text."
    )
    end: Maybe[float] = None
    page: Maybe[int] = Field(None, description="Page of a document.")
    text: Maybe[str] = Field(None, description="The first 500 characters of a passage.")
    thumbnail: Maybe[str] = Field(None, description="Path of its small copy, if it is a picture.")
    url: Maybe[str] = Field(None, description="Where a picture was fetched from.")


class FoundItem(BaseModel):
    """An item. Dates among its attributes are text (ISO 8601, UTC)."""

    id: int
    key: str = Field(description="The shop's own id, or the path of the file.")
    modality: Modality
    title: str | None
    added: str = Field(json_schema_extra={"format": "date-time"})
    attributes: dict[str, Scalar | list[str]]
    thumbnail: Maybe[str] = Field(None, description="Path of the small copy of its first picture.")
    parts: Maybe[list[FoundPart]] = Field(None, description="Not in hits.")
    file: Maybe[bool] = Field(None, description="true: it is a file, and can be had whole.")
    size: Maybe[int] = Field(None, description="Bytes of the file.")


class Group(BaseModel):
    """The items that were collapsed into a hit. ``hits``: the first ``group_size`` of them, if there are several."""

    value: str
    size: int
    hits: Maybe[list[Found]] = None


class Highlight(BaseModel):
    """A text with the places (from, to; characters) of the query's words."""

    field: str
    text: str
    spans: list[tuple[int, int]]


class Stage(BaseModel):
    """What one stage of the ranking said of a hit."""

    stage: str
    score: float
    rank: int | None
    note: str


class Found(BaseModel):
    """A hit; higher scores are better."""

    rank: int
    score: float
    item: FoundItem
    part: FoundPart = Field(description="The part that matched best.")
    copies: Maybe[list[str]] = Field(None, description="Keys of byte-identical items folded into this one.")
    pinned: Maybe[bool] = None
    group: Maybe[Group] = None
    highlights: Maybe[list[Highlight]] = None
    explanation: Maybe[list[Stage]] = None


class ValueCount(BaseModel):
    """How many hits have a value."""

    value: Scalar
    count: int


class RangeCount(BaseModel):
    """How many hits lie from ``low`` up to below ``high``; null is open."""

    low: float | str | None
    high: float | str | None
    count: int


class FacetCount(BaseModel):
    """Counts of an attribute. ``distinct``: values that there are, ``missing``: hits without one, ``others``: hits with
    values that are not among ``buckets``. Numbers and dates have their ``least`` and ``greatest``.
    """

    kind: str
    distinct: int
    missing: int
    others: int
    buckets: list[ValueCount | RangeCount]
    least: Maybe[float | str] = None
    greatest: Maybe[float | str] = None


class Correction(BaseModel):
    """A word of the query that was read as others."""

    word: str
    used: list[str]


class ResultPage(BaseModel):
    """A page of hits."""

    hits: list[Found]
    total: int = Field(description="How many there are in all, or groups of them.")
    cursor: str | None = Field(description="Asks for the next page; null: there is none.")
    revision: int = Field(description="The state of the catalog that was searched.")
    facets: Maybe[dict[str, FacetCount]] = None
    corrections: Maybe[list[Correction]] = None
    notices: Maybe[list[str]] = Field(None, description="What could not be done as asked.")


class SearchPage(ResultPage):
    """The answer to a search."""

    ms: float = Field(description="Milliseconds that it took in the server.")


class MultiPage(BaseModel):
    """The answers to several searches, in their order."""

    results: list[ResultPage]
    ms: float


class Suggested(BaseModel):
    """A completion: a query that was asked ``count`` times, a phrase that so many titles hold, a value to
    narrow by, or the title of the item ``key``.
    """

    text: str
    source: Literal["query", "phrase", "value", "title"]
    key: Maybe[str] = None
    count: Maybe[int] = None
    attribute: Maybe[str] = Field(
        None, description="What to filter by ``value``, beside a search for ``words``."
    )
    value: Maybe[str] = None
    words: Maybe[str] = None


class Completions(BaseModel):
    """Completions, the best first."""

    suggestions: list[Suggested]


class Encoded(BaseModel):
    """Vectors of a collection's space, L2-normalised, in the order of what was asked."""

    space: str
    dim: int
    texts: list[list[float]]
    images: list[list[float]]


class Spoken(BaseModel):
    """The words that were said."""

    text: str


class SynonymTold(BaseModel):
    """Words that stand for each other; with ``of`` one way only."""

    words: list[str]
    of: str | None


class BoostTold(BaseModel):
    """A factor for what passes ``where``, or a weight for a number."""

    where: str | None
    factor: float
    attribute: str | None
    weight: float
    curve: str


class RuleTold(BaseModel):
    """What the shop wants for some queries."""

    query: str | None
    match: str
    pinned: list[str]
    hidden: list[str]
    boosts: list[BoostTold]


class SettingsTold(BaseModel):
    """Synonyms and rules of a collection."""

    synonyms: list[SynonymTold]
    rules: list[RuleTold]
    keep_queries: bool


class ItemPage(BaseModel):
    """Items by id. ``after`` asks for the next page; null: there is none."""

    items: list[FoundItem]
    after: int | None


class Rejected(BaseModel):
    """A product that did not go in."""

    key: str
    reason: str


class Note(BaseModel):
    """What was left out of a product that went in."""

    key: str
    note: str


class Written(BaseModel):
    """What became of products."""

    added: int
    updated: int
    unchanged: int
    rejected: list[Rejected]
    notes: list[Note]


class Changed(BaseModel):
    """How many items were updated, and the keys that no item has."""

    updated: int
    unknown: list[str]


class Removed(BaseModel):
    """How many items were removed."""

    removed: int


class RemovedByKey(Removed):
    """How many items were removed, and the keys that no item has."""

    unknown: list[str]


class CollectionTold(BaseModel):
    """A collection; ``parts`` (by modality), ``attributes`` (their kinds) and ``revision`` if it is asked for alone."""

    name: str
    model: str
    space: str
    dim: int
    items: int
    created: Maybe[str] = Field(None, json_schema_extra={"format": "date-time"})
    parts: Maybe[dict[str, int]] = None
    attributes: Maybe[dict[str, str]] = None
    revision: Maybe[int] = None


class CollectionList(BaseModel):
    """Collections that the key may search."""

    collections: list[CollectionTold]


class Deleted(BaseModel):
    """The collection that is gone, and how many items it had."""

    deleted: str
    items: int


class Alive(BaseModel):
    """The process answers."""

    status: str
    version: str


class Ready(BaseModel):
    """Models and indexes are loaded."""

    status: str
    revision: int


Group.model_rebuild()
