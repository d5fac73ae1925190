"""The bodies of requests, with their limits and examples. Each becomes the engine's own shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator

from mmsearch.shapes import Boost, Examples, Facet, Sort, Taste
from mmsearch.types import Modality, Query, Term

__all__ = ["BoostBody", "Many", "SearchBody", "SimilarBody", "TermBody"]

MAX_TEXT = 2000
MAX_WHERE = 20_000

_T = TypeVar("_T")

Many = Annotated[list[_T], FailFast()]
"""A list of which the first wrong entry is told and no further: telling of a million takes minutes and gigabytes."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Key = Annotated[str, Field(min_length=1, max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Where = Annotated[str, Field(min_length=1, max_length=MAX_WHERE)]


def _felt(weight: float) -> float:
    if 0 < abs(weight) < 1e-6:
        raise ValueError("a weight is 0, or its size at least 0.000001")
    return weight


Weight = Annotated[float, Field(ge=-100, le=100), AfterValidator(_felt)]
Reference = Annotated[int, Field(ge=1, lt=1 << 62)] | Key


class Body(BaseModel):
    """A body with no other fields than its own: a misspelt one is an error and not silently without effect."""

    model_config = ConfigDict(extra="forbid")


class Blob(Body):
    """A picture or a recording: base64, or the name of a file in the same multipart request."""

    base64: str | None = Field(None, description="The file's bytes.")
    upload: Name | None = Field(None, description="Name of the multipart field that holds the file.")

    @model_validator(mode="after")
    def _given(self) -> Blob:
        if (self.base64 is None) == (self.upload is None):
            raise ValueError("give base64 or upload")
        return self


class TermBody(Body):
    """One weighted term: exactly one of text, image, audio or item (an id or a key)."""

    text: Text | None = None
    image: Blob | None = None
    audio: Blob | None = None
    item: Reference | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _one(self) -> TermBody:
        if sum(value is not None for value in (self.text, self.image, self.audio, self.item)) != 1:
            raise ValueError("a term is exactly one of text, image, audio or item")
        return self


Bound = Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=40)] | None


class FacetBody(Body):
    """Values of an attribute to count; with ``ranges`` (pairs of low and high, null for open) how many lie in each."""

    attribute: Name
    k: int = Field(10, ge=1, le=1000)
    ranges: Many[tuple[Bound, Bound]] = Field(default_factory=list, max_length=100)
    ignore_own_filter: bool = Field(
        False, description="Do not count the filter's own parts about this attribute."
    )

    def shape(self) -> Facet:
        return Facet(self.attribute, self.k, self.ranges, self.ignore_own_filter)


Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]


class SortBody(Body):
    """Order by an attribute; or by the distance from ``near`` (latitude, longitude). ``place`` names the attributes
    that tell where an item is; not given: ``latitude`` and ``longitude``, or ``lat`` and ``lon``.
    """

    attribute: Name = "distance"
    descending: bool = False
    near: tuple[Latitude, Longitude] | None = None
    place: tuple[Name, Name] | None = None

    @model_validator(mode="after")
    def _of_something(self) -> SortBody:
        if self.near is None and "attribute" not in self.model_fields_set:
            raise ValueError("give attribute or near")
        if self.near is None and self.place is not None:
            raise ValueError("place is for near")
        return self

    def shape(self) -> Sort:
        return Sort(self.attribute, self.descending, self.near, self.place)


class BoostBody(Body):
    """Multiply scores: of items that pass ``where`` by ``factor``, or by the number ``attribute``."""

    where: Where | None = None
    factor: float = Field(1.0, ge=1e-3, le=1000)
    attribute: Name | None = None
    weight: float = Field(0.0, gt=-1, le=100, allow_inf_nan=False)
    curve: Literal["linear", "log"] = "log"

    @model_validator(mode="after")
    def _one(self) -> BoostBody:
        if (self.where is None) == (self.attribute is None):
            raise ValueError("give where (with factor) or attribute (with weight)")
        return self

    def shape(self) -> Boost:
        return Boost(
            where=self.where,
            factor=self.factor,
            attribute=self.attribute,
            weight=self.weight,
            curve=self.curve,
        )


class ExamplesBody(Body):
    """More like these, not like those: items by id or key."""

    like: Many[Reference] = Field(default_factory=list, max_length=100)
    unlike: Many[Reference] = Field(default_factory=list, max_length=100)
    strategy: Literal["average", "best"] = "average"

    def shape(self) -> Examples:
        return Examples(like=self.like, unlike=self.unlike, strategy=self.strategy)


class TasteBody(Body):
    """Items that this visitor liked: what resembles them moves up."""

    liked: Many[Reference] = Field(min_length=1, max_length=500)
    weight: float = Field(0.3, ge=0, le=10, allow_inf_nan=False)

    def shape(self) -> Taste:
        return Taste(liked=self.liked, weight=self.weight)


class Date(Body):
    """A date or a time: ISO 8601, UTC unless it says otherwise."""

    datetime: Annotated[str, Field(max_length=40)]


Value = (
    Annotated[bool, Field(strict=True)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | Annotated[str, Field(max_length=10_000)]
    | Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=1000, fail_fast=True)]
    | Date
)


def _breath(body: _T) -> _T:
    """Lets other threads in: what pydantic does without a line of Python it does in one go, for a thousand items."""
    return body


class ImageBody(Body):
    """A picture of a product: base64, or the address that it is fetched from (http or https, public)."""

    base64: str | None = None
    url: Annotated[str, Field(max_length=4096, pattern=r"^https?://")] | None = None

    @model_validator(mode="after")
    def _one(self) -> ImageBody:
        if (self.base64 is None) == (self.url is None):
            raise ValueError("give base64 or url")
        return self


class ItemBody(Body):
    """A product: what is embedded of it (title, description, pictures), and its attributes."""

    key: Key = Field(description="The shop's own id.")
    title: Annotated[str, Field(max_length=2000)] | None = None
    description: Annotated[str, Field(max_length=100_000)] | None = None
    images: Many[ImageBody] = Field(default_factory=list, max_length=50)
    attributes: dict[Name, Value] = Field(default_factory=dict, max_length=500)

    _breath = model_validator(mode="after")(_breath)


class ItemsBody(Body):
    """Products to add; one whose key exists is replaced and keeps its id."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "key": "sku-1",
                            "title": "Red summer dress",
                            "description": "Light cotton, knee-length.",
                            "attributes": {
                                "price": 39.9,
                                "colour": "red",
                                "parent": "dress-7",
                                "sizes": ["S", "M"],
                            },
                        }
                    ]
                }
            ]
        },
    )

    items: Many[ItemBody] = Field(min_length=1)


class UpdateBody(Body):
    """Attributes of one item to change; null takes one away."""

    key: Key
    attributes: dict[Name, Value | None] = Field(min_length=1, max_length=500)

    _breath = model_validator(mode="after")(_breath)


class UpdatesBody(Body):
    """Attributes to change. Nothing is encoded: prices and stock may change as often as they like."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"updates": [{"key": "sku-1", "attributes": {"price": 29.9, "stock": 4}}]}]
        },
    )

    updates: Many[UpdateBody] = Field(min_length=1)


class Asked(Body):
    """What every kind of search may ask for."""

    k: int = Field(20, ge=1, description="Hits of a page.")
    where: Where | None = Field(None, description="Filter expression over attributes.")
    modality: Modality | None = Field(None, description="Only parts of this kind may match.")
    min_score: Annotated[float, Field(ge=-1e6, le=1e6)] | None = Field(
        None, description="Drop hits below it."
    )
    facets: Many[FacetBody] = Field(default_factory=list, max_length=50)
    sort: Many[SortBody] = Field(default_factory=list, max_length=8)
    group_by: Name | None = Field(
        None, description="Text attribute whose items are collapsed, such as parent."
    )
    group_size: int = Field(1, ge=1, le=100)
    boosts: Many[BoostBody] = Field(default_factory=list, max_length=50)
    pinned: Many[Key] = Field(default_factory=list, max_length=100)
    hidden: Many[Key] = Field(default_factory=list, max_length=1000)
    taste: TasteBody | None = None
    diversity: float = Field(0.0, ge=0, le=1)
    fields: list[Name] | None = Field(
        None, max_length=200, description="Attributes that hits carry; null: all."
    )
    explain: bool = False
    cursor: str | None = Field(None, max_length=8192)

    def _common(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "where": self.where,
            "modality": self.modality,
            "min_score": self.min_score,
            "facets": tuple(facet.shape() for facet in self.facets),
            "sort": tuple(sort.shape() for sort in self.sort),
            "group_by": self.group_by,
            "group_size": self.group_size,
            "boosts": tuple(boost.shape() for boost in self.boosts),
            "pinned": tuple(self.pinned),
            "hidden": tuple(self.hidden),
            "taste": self.taste.shape() if self.taste else None,
            "diversity": self.diversity,
            "fields": self.fields,
            "explain": self.explain,
            "cursor": self.cursor,
        }


class SearchBody(Asked):
    """A search: words in ``text``, or weighted ``terms``, or neither to browse what passes the filter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "text": "red summer dress",
                    "k": 20,
                    "where": "price < 50 and gender = 'Women'",
                    "facets": [
                        {"attribute": "colour", "ignore_own_filter": True},
                        {"attribute": "price", "ranges": [[None, 20], [20, 50], [50, None]]},
                    ],
                    "group_by": "parent",
                },
                {
                    "terms": [{"text": "sneakers"}, {"text": "white", "weight": -0.5}],
                    "sort": [{"attribute": "price"}],
                },
            ]
        },
    )

    text: Text | None = None
    terms: Many[TermBody] = Field(default_factory=list, max_length=32)
    hybrid: bool = Field(True, description="Also match the words themselves; false: by meaning alone.")
    text_weight: float = Field(
        0.5, ge=0, le=1, description="1: only what holds the words, 0: only by meaning."
    )
    typos: bool = True
    prefix: bool = Field(False, description="The last word may be a beginning, as while typing.")
    highlight: bool = False
    settings: bool = Field(True, description="Whether the collection's synonyms and rules apply.")
    examples: ExamplesBody | None = None

    def query(self, blob: Callable[[Blob, Modality], Any], item: Callable[[int | str], int]) -> Query:
        """The engine's query. ``blob`` makes a picture or samples of an upload, ``item`` an id of an id or key."""
        terms = [Term(text=self.text)] if self.text and self.text.strip() else []
        terms += [_term(term, blob, item) for term in self.terms]
        return Query(
            **self._common(),
            terms=tuple(terms),
            hybrid=self.hybrid and any(term.text is not None for term in terms),
            text_weight=self.text_weight,
            typos=self.typos,
            prefix=self.prefix,
            highlight=self.highlight,
            settings=self.settings,
            examples=self.examples.shape() if self.examples else None,
        )


class SimilarBody(Asked):
    """More like these items, and not like those."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"like": ["sku-1", "sku-7"], "unlike": ["sku-9"], "k": 12}]},
    )

    like: Many[Reference] = Field(min_length=1, max_length=100)
    unlike: Many[Reference] = Field(default_factory=list, max_length=100)
    strategy: Literal["average", "best"] = "average"

    def query(self) -> Query:
        examples = Examples(like=self.like, unlike=self.unlike, strategy=self.strategy)
        return Query(**self._common(), examples=examples)


def _term(term: TermBody, blob: Callable[[Blob, Modality], Any], item: Callable[[int | str], int]) -> Term:
    if term.text is not None:
        return Term(text=term.text, weight=term.weight)
    if term.image is not None:
        return Term(image=blob(term.image, Modality.IMAGE), weight=term.weight)
    if term.audio is not None:
        return Term(audio=blob(term.audio, Modality.AUDIO), weight=term.weight)
    assert term.item is not None
    return Term(item=item(term.item), weight=term.weight)
