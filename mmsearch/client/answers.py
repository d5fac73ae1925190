"""What the server answers, as types, and what it is asked for beside the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from mmsearch.errors import MmsearchError


class FoundPart(TypedDict):
    """The part of an item that matched. ``start`` and ``end`` are seconds of a sound, else characters."""

    id: int
    modality: str
    ordinal: int
    start: NotRequired[float]
    end: NotRequired[float]
    page: NotRequired[int]
    text: NotRequired[str]
    thumbnail: NotRequired[str]
    url: NotRequired[str]


class FoundItem(TypedDict):
    """An item. Dates among its attributes are text (ISO 8601, UTC)."""

    id: int
    key: str
    modality: str
    title: str | None
    added: str
    attributes: dict[str, Any]
    parts: NotRequired[list[FoundPart]]
    thumbnail: NotRequired[str]
    file: NotRequired[bool]
    size: NotRequired[int]


class Found(TypedDict):
    """A hit."""

    rank: int
    score: float
    item: FoundItem
    part: FoundPart
    copies: NotRequired[list[str]]
    pinned: NotRequired[bool]
    group: NotRequired[dict[str, Any]]
    highlights: NotRequired[list[dict[str, Any]]]
    explanation: NotRequired[list[dict[str, Any]]]


class SearchPage(TypedDict):
    """A page of hits; ``cursor`` asks for the next one, None: there is none. A multi-search has one ``ms`` for all."""

    hits: list[Found]
    total: int
    cursor: str | None
    revision: int
    ms: NotRequired[float]
    facets: NotRequired[dict[str, dict[str, Any]]]
    corrections: NotRequired[list[dict[str, Any]]]
    notices: NotRequired[list[str]]


class Suggested(TypedDict):
    """A completion: a ``query`` that was asked ``count`` times, a ``phrase`` that so many titles hold, a ``value`` of
    an ``attribute`` to narrow by (with the ``words`` before it), or the ``title`` of the item ``key``.
    """

    text: str
    source: Literal["query", "phrase", "value", "title"]
    key: NotRequired[str]
    count: NotRequired[int]
    attribute: NotRequired[str]
    value: NotRequired[str]
    words: NotRequired[str]


class CollectionTold(TypedDict):
    """A collection; ``parts`` (by modality), ``attributes`` (their kinds) and ``revision`` if it is asked for alone."""

    name: str
    model: str
    space: str
    dim: int
    items: int
    created: NotRequired[str]
    parts: NotRequired[dict[str, int]]
    attributes: NotRequired[dict[str, str]]
    revision: NotRequired[int]


class Written(TypedDict):
    """What became of items: numbers, the ``key`` and ``reason`` of those that did not go in, and notes on pictures."""

    added: int
    updated: int
    unchanged: int
    rejected: list[dict[str, str]]
    notes: list[dict[str, str]]


class Encoded(TypedDict):
    """Vectors of a collection's space, L2-normalised."""

    space: str
    dim: int
    texts: list[list[float]]
    images: list[list[float]]


class SettingsTold(TypedDict):
    """Synonyms and rules of a collection."""

    synonyms: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    keep_queries: bool


class Asked(TypedDict, total=False):
    """What every search may be asked for; docs/http.md explains the fields. Facets may be plain names."""

    k: int
    where: str
    modality: Literal["image", "text", "audio", "fused"]
    min_score: float
    facets: Sequence[str | Mapping[str, Any]]
    sort: Sequence[Mapping[str, Any]]
    group_by: str
    group_size: int
    boosts: Sequence[Mapping[str, Any]]
    pinned: Sequence[str]
    hidden: Sequence[str]
    taste: Mapping[str, Any]
    diversity: float
    fields: Sequence[str]
    explain: bool
    cursor: str


class SearchAsked(Asked, total=False):
    """What a search by words and terms may be asked for besides."""

    hybrid: bool
    text_weight: float
    typos: bool
    prefix: bool
    highlight: bool
    settings: bool
    examples: Mapping[str, Any]


class Refused(MmsearchError):
    """The server refused a request: ``status`` (HTTP; 0: it was not reached), ``code``, ``request_id``, ``errors``."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.errors: list[dict[str, Any]] = list(problem.get("errors", ()))
