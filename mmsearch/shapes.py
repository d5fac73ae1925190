"""What a query may ask for beyond its terms, and all that comes back: facets, sorting, boosts, groups, explanations.

Every shape is immutable and every field but the first has a default, so that a request says only what it wants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from mmsearch.types import Hit

Bound: TypeAlias = float | datetime | str | None
"""An end of a range: a number, a date (or its ISO 8601 text, read as UTC), None for open."""

ItemRef: TypeAlias = int | str
"""An item by its id (int) or its key (str)."""


# -- what a query asks for ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Facet:
    """Count the values of ``attribute`` over the result.

    Without ``ranges``: the ``k`` most frequent values; an item with several values (tags) counts once for each. With
    ``ranges``, pairs of (low, high): how many items have a value with low <= value < high, for numbers and dates;
    ranges may overlap. ``ignore_own_filter``: the parts of the filter that ask about this attribute alone (joined by
    ``and`` at its top) do not count here, so that a shopper who chose a colour still sees the others.
    """

    attribute: str
    k: int = 10
    ranges: Sequence[tuple[Bound, Bound]] = ()
    ignore_own_filter: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Sort:
    """Order by an attribute: ascending unless ``descending``; items without it come last either way.

    Of several values the least counts, or the greatest if ``descending``. ``attribute`` may be a built-in field
    (``added``, ``title``, ``key``, ...). Give a distance instead with ``near``: (latitude, longitude) in degrees; then
    ``attribute`` is ignored and may be ``"distance"``. ``place`` names the attributes that tell where an item is; None:
    ``latitude`` and ``longitude``, or what photos have, ``lat`` and ``lon``.
    """

    attribute: str
    descending: bool = False
    near: tuple[float, float] | None = None
    place: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """Multiply the scores of some items.

    By rule: items that pass the filter ``where`` by ``factor`` (> 0; above 1 lifts, below 1 buries). By attribute:
    every item that has the number ``attribute`` by ``1 + weight * v``, where v is the value over the greatest of the
    collection (``curve="linear"``), or the logarithm of 1 + value over that of 1 + the greatest (``"log"``); values
    below 0 count as 0, ``weight`` > -1. A score below 0 is divided instead, so that a lift never lowers it.
    """

    where: str | None = None
    factor: float = 1.0
    attribute: str | None = None
    weight: float = 0.0
    curve: Literal["linear", "log"] = "log"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """More like these, not like those: items by id or key.

    ``strategy="average"`` searches with 2 * mean(like) - mean(unlike), ``"best"`` scores an item by the best match
    among ``like`` (s+) and among ``unlike`` (s-): s+ if it is the greater, else minus the square of s- (the two
    strategies of Qdrant's recommendations). The examples and their byte-identical copies are never hits. With terms
    beside them, ``average`` adds up with the terms; ``best`` stands alone.
    """

    like: Sequence[ItemRef] = ()
    unlike: Sequence[ItemRef] = ()
    strategy: Literal["average", "best"] = "average"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """Personalised ranking: ``liked`` items (ids or keys; those that are gone are left out) pull what resembles them
    up.

    Scores become score + ``weight`` * spread * z, where z is how far (in standard deviations over the result) an item's
    cosine with the mean of the liked items lies above the mean, and spread is the standard deviation of the scores:
    at 0 nothing changes, at 1 taste and query weigh the same. Liked items may be hits.
    """

    liked: Sequence[ItemRef]
    weight: float = 0.3


# -- what comes back -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """How many items have a value (``value``; ``low`` and ``high`` are None), or one in a range (``value`` is None)."""

    count: int
    value: str | float | int | bool | datetime | None = None
    low: float | datetime | None = None
    high: float | datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FacetCounts:
    """The answer to a ``Facet``: buckets (most frequent first, ties by value; ranges as they were asked for).

    What is counted: items of the result, all pages of it (``Results.total``); groups if the result is grouped. ``kind``
    is that of the attribute, ``distinct`` how many values the result has, ``others`` how many items hold none of the
    values shown, ``missing`` how many have no value. ``least`` and ``greatest`` are those of numbers and dates (None:
    there are none), for a slider.
    """

    attribute: str
    kind: Literal["number", "text", "boolean", "datetime"]
    buckets: Sequence[Bucket]
    distinct: int
    missing: int
    others: int = 0
    least: float | datetime | None = None
    greatest: float | datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The variants that one hit stands for: ``value`` of the attribute, ``size`` (how many are in the result), and the
    best of them, ``hits`` (the hit itself first), as many as ``Query.group_size``.

    An item without the attribute is a group of its own under its key.
    """

    value: str
    size: int
    hits: Sequence[Hit] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """Where words of the query are: ``spans`` of (start, end) characters in ``text``, which is as it was indexed:
    escape it. ``field``: "title", or "text" for the stretch of the item's other texts, 200 characters at most, that
    says most of the query (``...`` is not added). Words that a quarter of the items hold, or of one or two letters, are
    marked only in a row with others, unless the query has no others.
    """

    field: Literal["title", "text"]
    text: str
    spans: Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage's word on a hit. ``rank`` counts from 1 within that stage (None: the stage does not rank).

    ``name``: "vector" (cosine of the best part, on the scale of a mixed list), "text" (BM25), "fused", "boost" (the
    factor), "taste" (what was added), "pinned", "diversity" (the marginal relevance that chose it). ``note`` says more
    in words.
    """

    name: str
    score: float
    rank: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A word of the query that the collection does not know, and what was searched instead, nearest first."""

    word: str
    used: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One page of a result.

    ``total`` is the number of items (groups, if grouped) of all pages. ``cursor`` asks for the next page with
    ``Query.cursor``; None: this is the last one. ``facets`` are by attribute, in the order asked for. ``revision`` is
    the catalog's that the order was made at. ``notices`` say in words what was left out or degraded.
    """

    hits: Sequence[Hit]
    total: int
    cursor: str | None = None
    facets: Mapping[str, FacetCounts] = dataclasses.field(default_factory=dict)
    corrections: Sequence[Correction] = ()
    revision: int = 0
    notices: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A completion of what was typed. ``text`` is what to search for. ``source``:

    - "query": a past query, asked ``count`` times;
    - "phrase": words that ``count`` different titles hold, misspelt ones put right;
    - "value": a ``value`` of an ``attribute`` to narrow by, which ``count`` items have whose titles hold the ``words``
      before it ("" if there are none);
    - "title": the title of the item ``key``.
    """

    text: str
    source: Literal["query", "phrase", "value", "title"]
    key: str | None = None
    count: int = 0
    attribute: str | None = None
    value: str | None = None
    words: str = ""


# -- what a collection keeps for its searches -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Synonym:
    """Words that stand for each other in full text, single or several ("t shirt").

    Two-way: any of ``words`` also finds the others. One-way, with ``of``: whoever asks for ``of`` also finds ``words``,
    and not the other way round.
    """

    words: Sequence[str]
    of: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the shop wants for some queries. ``query`` is compared word by word, ignoring case, accents and plurals:
    with the whole query ("is"), or found in it ("contains"); None: every query.

    ``pinned`` and ``hidden`` are keys; see ``Query``. Rules add up, in their order.
    """

    query: str | None = None
    match: Literal["is", "contains"] = "is"
    pinned: Sequence[str] = ()
    hidden: Sequence[str] = ()
    boosts: Sequence[Boost] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """What a collection keeps for its searches. ``keep_queries``: whether past queries are kept for suggestions."""

    synonyms: Sequence[Synonym] = ()
    rules: Sequence[Rule] = ()
    keep_queries: bool = False
