"""What the engine found, as plain JSON."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from fastapi.responses import Response

from mmsearch.shapes import FacetCounts, Results, Suggestion
from mmsearch.types import Hit, Item, Modality, Part

__all__ = ["as_json", "item_json", "results_json", "suggestion_json"]


_PLAIN = (str, int, float)


def results_json(collection: str, found: Results) -> dict[str, Any]:
    """A page of hits with facets and corrections."""
    told: dict[str, Any] = {
        "hits": [_hit(collection, hit) for hit in found.hits],
        "total": found.total,
        "cursor": found.cursor,
        "revision": found.revision,
    }
    if found.facets:
        told["facets"] = {name: _facet(facet) for name, facet in found.facets.items()}
    if found.corrections:
        told["corrections"] = [{"word": one.word, "used": list(one.used)} for one in found.corrections]
    if found.notices:
        told["notices"] = list(found.notices)
    return told


def as_json(told: Any, status: int = 200) -> Response:
    """The answer that tells this. What it is made of is checked by no model: that would cost a tenth of a search."""
    return Response(orjson.dumps(told), status, media_type="application/json")


def item_json(collection: str, item: Item, *, parts: bool = True) -> dict[str, Any]:
    """An item with its attributes, and with its parts if wanted."""
    told: dict[str, Any] = {
        "id": item.id,
        "key": item.key,
        "modality": item.modality,
        "title": item.title,
        "added": item.added.isoformat(),
        "attributes": {
            name: value if isinstance(value, _PLAIN) else _plain(value)
            for name, value in item.attributes.items()
        },
    }
    if parts:
        told["parts"] = [_part(collection, item.id, part) for part in item.parts]
        if (picture := next((one for one in told["parts"] if "thumbnail" in one), None)) is not None:
            told["thumbnail"] = picture["thumbnail"]
    if item.is_file:
        told["file"] = True
        told["size"] = item.size
    return told


def suggestion_json(found: Suggestion) -> dict[str, Any]:
    told: dict[str, Any] = {"text": found.text, "source": found.source}
    if found.key is not None:
        told["key"] = found.key
    if found.count:
        told["count"] = found.count
    if found.attribute is not None:
        told |= {"attribute": found.attribute, "value": found.value, "words": found.words}
    return told


def _hit(collection: str, hit: Hit) -> dict[str, Any]:
    told: dict[str, Any] = {
        "rank": hit.rank,
        "score": round(float(hit.score), 6),
        "item": item_json(collection, hit.item, parts=False),
        "part": _part(collection, hit.item.id, hit.part),
    }
    if hit.picture is not None:
        told["item"]["thumbnail"] = _thumbnail(collection, hit.item.id, hit.picture)
    if hit.copies:
        told["copies"] = list(hit.copies)
    if hit.pinned:
        told["pinned"] = True
    if hit.group is not None:
        group = hit.group
        told["group"] = {"value": group.value, "size": group.size}
        if len(group.hits) > 1:
            told["group"]["hits"] = [_hit(collection, other) for other in group.hits]
    if hit.highlights:
        told["highlights"] = [
            {"field": one.field, "text": one.text, "spans": [list(span) for span in one.spans]}
            for one in hit.highlights
        ]
    if hit.explanation:
        told["explanation"] = [
            {
                "stage": stage.name,
                "score": round(float(stage.score), 6),
                "rank": stage.rank,
                "note": stage.note,
            }
            for stage in hit.explanation
        ]
    return told


def _part(collection: str, item: int, part: Part) -> dict[str, Any]:
    told: dict[str, Any] = {"id": part.id, "modality": part.modality, "ordinal": part.ordinal}
    for name in ("start", "end", "page", "text"):
        if (value := getattr(part, name)) is not None:
            told[name] = value[:500] if isinstance(value, str) else value
    if part.modality is Modality.IMAGE:
        told["thumbnail"] = _thumbnail(collection, item, part.id)
        if part.source is not None and part.source.startswith(("https://", "http://")):
            told["url"] = part.source
    return told


def _thumbnail(collection: str, item: int, part: int) -> str:
    return f"v1/collections/{_quoted(collection)}/items/{item}/parts/{part}/thumbnail"


@functools.lru_cache(maxsize=1000)
def _quoted(name: str) -> str:
    return quote(name, safe="")


def _facet(facet: FacetCounts) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": facet.kind,
        "distinct": facet.distinct,
        "missing": facet.missing,
        "others": facet.others,
        "buckets": list(_buckets(facet)),
    }
    if facet.least is not None:
        told |= {"least": _plain(facet.least), "greatest": _plain(facet.greatest)}
    return told


def _buckets(facet: FacetCounts) -> Iterable[dict[str, Any]]:
    for bucket in facet.buckets:
        if bucket.value is not None:
            yield {"value": _plain(bucket.value), "count": bucket.count}
        else:
            yield {"low": _plain(bucket.low), "high": _plain(bucket.high), "count": bucket.count}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return float(value)  # JSON as it is written here ends at 64 bits
    return value
