"""Every route as a request and the way to read its answer, for the clients that send it: at once, or asynchronously."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import quote

import httpx

from mmsearch.client.answers import (
    Asked,
    CollectionTold,
    Encoded,
    FoundItem,
    Refused,
    SearchAsked,
    SearchPage,
    SettingsTold,
    Suggested,
    Written,
)

_T = TypeVar("_T")

Media = Path | bytes
"""A file, or its bytes."""

Terms = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Call(Generic[_T]):
    """A request (``arguments`` are httpx's) and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], _T]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def answer(call: Call[_T], response: httpx.Response) -> _T:
    """What the server answered. Raises ``Refused``."""
    if response.is_success:
        return call.read(response)
    try:
        problem = response.json()
    except ValueError:
        problem = {"detail": response.text[:200]}
    raise Refused(response.status_code, problem if isinstance(problem, dict) else {})


# -- searching -----------------------------------------------------------------------------------------------------


def search(
    collection: str,
    text: str | None = None,
    *,
    terms: Terms = (),
    image: Media | None = None,
    audio: Media | None = None,
    **options: Unpack[SearchAsked],
) -> Call[SearchPage]:
    """One page of a search by words, weighted terms, a picture or a recording; without them of all that passes
    ``where``.
    """
    body: dict[str, Any] = {**_asked(options), "terms": [dict(term) for term in terms]}
    if text is not None:
        body["text"] = text
    given = {name: one for name, one in (("image", image), ("audio", audio)) if one is not None}
    if not given:
        return Call("POST", _path(collection, "search"), _whole, _json(body))
    body["terms"] += [{name: {"upload": name}} for name in given]
    files = [("files", (name, _bytes(one))) for name, one in given.items()]
    form = {"query": json.dumps(body, default=_plain)}
    return Call("POST", _path(collection, "search", "files"), _whole, {"data": form, "files": files})


def similar(
    collection: str,
    like: Sequence[int | str],
    *,
    unlike: Sequence[int | str] = (),
    strategy: str = "average",
    **options: Unpack[Asked],
) -> Call[SearchPage]:
    """More like these items (ids or keys), and not like those; ``strategy`` is ``average`` or ``best``."""
    body = {**_asked(options), "like": list(like), "unlike": list(unlike), "strategy": strategy}
    return Call("POST", _path(collection, "similar"), _whole, _json(body))


def multi_search(searches: Sequence[Mapping[str, Any]]) -> Call[list[SearchPage]]:
    """Several searches at once, each with its ``collection``, ``text`` or ``terms``, and the options of a search."""
    bodies = [_asked(one) for one in searches]
    return Call("POST", "/v1/multi-search", _field("results"), _json({"searches": bodies}))


def suggest(collection: str, text: str, k: int = 8) -> Call[list[Suggested]]:
    """Completions of what is being typed."""
    arguments = {"params": {"text": text, "k": k}}
    return Call("GET", _path(collection, "suggest"), _field("suggestions"), arguments)


def encode(collection: str, texts: Sequence[str] = (), images: Sequence[Media] = ()) -> Call[Encoded]:
    """Vectors of texts and pictures in the collection's space."""
    from base64 import b64encode

    blobs = [{"base64": b64encode(_bytes(image)).decode()} for image in images]
    return Call("POST", _path(collection, "encode"), _whole, _json({"texts": list(texts), "images": blobs}))


def transcribe(audio: Media) -> Call[str]:
    """The words of a spoken query (English; the server needs the extra ``voice``)."""
    return Call("POST", "/v1/transcribe", _field("text"), {"files": {"file": ("speech", _bytes(audio))}})


# -- items ---------------------------------------------------------------------------------------------------------


def item(collection: str, item: int | str) -> Call[FoundItem]:
    """An item with its parts, by its id or its key."""
    if isinstance(item, int):
        return Call("GET", _path(collection, "items", item), _whole)
    return Call("GET", _path(collection, "items"), lambda told: _only(told), {"params": {"key": item}})


def items_page(collection: str, after: int = 0, k: int = 100) -> Call[tuple[list[FoundItem], int | None]]:
    """Items with ids above ``after``, and what is ``after`` for those that follow; None: these are the last."""

    def read(response: httpx.Response) -> tuple[list[FoundItem], int | None]:
        told = response.json()
        return told["items"], told["after"]

    return Call("GET", _path(collection, "items"), read, {"params": {"after": after, "k": k}})


def put(collection: str, items: Sequence[Mapping[str, Any]]) -> Call[Written]:
    """Add items, or replace those whose key exists. Attributes may be ``datetime`` and ``date`` objects."""
    return Call("POST", _path(collection, "items"), _whole, _json({"items": list(items)}, _dated))


def update(collection: str, updates: Sequence[Mapping[str, Any]]) -> Call[dict[str, Any]]:
    """Change attributes of items by key and leave all else as it is; None takes one away.

    Returns how many were ``updated``, and the keys that are ``unknown``.
    """
    return Call("PATCH", _path(collection, "items"), _whole, _json({"updates": list(updates)}, _dated))


def remove(collection: str, keys: Sequence[str]) -> Call[dict[str, Any]]:
    """Remove items by key. Returns how many were ``removed``, and the keys that are ``unknown``."""
    return Call("POST", _path(collection, "items", "remove"), _whole, _json({"keys": list(keys)}))


def remove_item(collection: str, item: int) -> Call[int]:
    """Remove an item by its id; returns how many were removed."""
    return Call("DELETE", _path(collection, "items", item), _field("removed"))


def thumbnail(part: Mapping[str, Any], size: int = 320) -> Call[bytes]:
    """A small copy (WebP) of the picture of a part, or of an item, that has a ``thumbnail``; ``size`` is that of its
    longer side: 160, 320, 640 or 1280.
    """
    return Call("GET", "/" + str(part["thumbnail"]), lambda told: told.content, {"params": {"size": size}})


def file(collection: str, item: int) -> Call[bytes]:
    """The file of an item that is one (``file`` is true)."""
    return Call("GET", _path(collection, "items", item, "file"), lambda told: told.content)


# -- collections ---------------------------------------------------------------------------------------------------


def collections() -> Call[list[CollectionTold]]:
    """The collections that the key may search."""
    return Call("GET", "/v1/collections", _field("collections"))


def collection(name: str) -> Call[CollectionTold]:
    """What a collection holds."""
    return Call("GET", _path(name), _whole)


def create_collection(name: str, model: str = "mini") -> Call[CollectionTold]:
    """Make a collection."""
    return Call("POST", "/v1/collections", _whole, _json({"name": name, "model": model}))


def delete_collection(name: str) -> Call[int]:
    """Delete a collection with everything in it; returns how many items that were."""
    return Call("DELETE", _path(name), _field("items"))


def settings(collection: str) -> Call[SettingsTold]:
    """Synonyms and rules of a collection."""
    return Call("GET", _path(collection, "settings"), _whole)


def change_settings(
    collection: str,
    *,
    synonyms: Sequence[Mapping[str, Any]] = (),
    rules: Sequence[Mapping[str, Any]] = (),
    keep_queries: bool = False,
) -> Call[SettingsTold]:
    """Replace the synonyms and rules of a collection, all of them; returns what they are now."""
    body = {"synonyms": list(synonyms), "rules": list(rules), "keep_queries": keep_queries}
    return Call("PUT", _path(collection, "settings"), _whole, _json(body))


# -- the server ----------------------------------------------------------------------------------------------------


def health() -> Call[dict[str, str]]:
    """That the server lives, and its ``version``."""
    return Call("GET", "/healthz", _whole)


def ready() -> Call[dict[str, Any]]:
    """That its models are loaded and the catalog can be read, at which ``revision``; else ``Refused`` with 503."""
    return Call("GET", "/readyz", _whole)


def metrics() -> Call[str]:
    """Its figures, for Prometheus."""
    return Call("GET", "/metrics", lambda told: told.text)


# -- reading and writing -------------------------------------------------------------------------------------------


def _path(collection: str, *rest: object) -> str:
    return "/".join(["/v1/collections", quote(collection, safe=""), *map(str, rest)])


def _bytes(media: Media) -> bytes:
    return media if isinstance(media, bytes) else media.read_bytes()


def _asked(options: Mapping[str, Any]) -> dict[str, Any]:
    facets = [{"attribute": one} if isinstance(one, str) else one for one in options.get("facets", ())]
    return {**options, **({"facets": facets} if facets else {})}


def _json(body: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    content = json.dumps(body, default=default or _plain, allow_nan=False)
    return {"content": content.encode(), "headers": {"Content-Type": "application/json"}}


def _plain(value: Any) -> Any:
    """A date where the server knows that it is one, as in the ranges of a facet."""
    if isinstance(value, date):  # datetime is one, too
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be written as JSON")


def _dated(value: Any) -> Any:
    """A date that may be the first one of its attribute."""
    return {"datetime": _plain(value)}


def _whole(response: httpx.Response) -> Any:
    return response.json()


def _only(response: httpx.Response) -> FoundItem:
    one: FoundItem = response.json()["items"][0]
    return one


def _field(name: str) -> Callable[[httpx.Response], Any]:
    return lambda response: response.json()[name]
