"""A client of the HTTP server, plain and asynchronous. Needs httpx (extra ``client``).

::

    from mmsearch.client import Client

    with Client("http://127.0.0.1:8080", key="mms_...") as client:
        page = client.search("shop", "red dress", where="price < 50", facets=["colour"])
        for hit in page["hits"]:
            print(hit["score"], hit["item"]["title"])

Answers are the server's JSON, typed as ``SearchPage`` and friends. What the server refuses is raised as ``Refused``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote

import httpx

from mmsearch.errors import MmsearchError

__all__ = ["AsyncClient", "Client", "Found", "FoundItem", "FoundPart", "Refused", "SearchPage"]

Terms = Sequence[Mapping[str, Any]]


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


class FoundItem(TypedDict):
    """An item as the server tells it."""

    id: int
    key: str
    modality: str
    title: str | None
    added: str
    attributes: dict[str, Any]
    parts: NotRequired[list[FoundPart]]


class Found(TypedDict):
    """A hit."""

    rank: int
    score: float
    item: FoundItem
    part: FoundPart
    group: NotRequired[dict[str, Any]]
    highlights: NotRequired[list[dict[str, Any]]]
    explanation: NotRequired[list[dict[str, Any]]]


class SearchPage(TypedDict):
    """A page of hits; ``cursor`` asks for the next one, None: there is none."""

    hits: list[Found]
    total: int
    cursor: str | None
    revision: int
    ms: float
    facets: NotRequired[dict[str, dict[str, Any]]]
    corrections: NotRequired[list[dict[str, Any]]]
    notices: NotRequired[list[str]]


class Refused(MmsearchError):
    """The server refused a request: ``status`` (HTTP; 0: it was not reached), ``code``, ``request_id``, ``errors``."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.errors: list[dict[str, Any]] = list(problem.get("errors", ()))


class _Requests:
    """What both clients ask for, as (method, path, arguments of httpx)."""

    @staticmethod
    def headers(key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    @staticmethod
    def search(
        collection: str,
        text: str | None,
        terms: Terms,
        image: Path | bytes | None,
        audio: Path | bytes | None,
        options: Mapping[str, Any],
    ) -> tuple[str, str, dict[str, Any]]:
        body: dict[str, Any] = {**options, "terms": [dict(term) for term in terms]}
        if text is not None:
            body["text"] = text
        body["facets"] = [
            {"attribute": facet} if isinstance(facet, str) else facet for facet in options.get("facets", ())
        ]
        files = []
        for kind, given in (("image", image), ("audio", audio)):
            if given is not None:
                files.append(("files", (kind, given if isinstance(given, bytes) else given.read_bytes())))
                body["terms"].append({kind: {"upload": kind}})
        path = f"/v1/collections/{quote(collection, safe='')}/search"
        if files:
            return "POST", f"{path}/files", {"data": {"query": json.dumps(body)}, "files": files}
        return "POST", path, {"json": body}

    @staticmethod
    def path(collection: str, *rest: object) -> str:
        return "/".join(["/v1/collections", quote(collection, safe=""), *map(str, rest)])

    @staticmethod
    def answer(response: httpx.Response) -> Any:
        if response.is_success:
            return response.json()
        try:
            problem = response.json()
        except ValueError:
            problem = {"detail": response.text[:200]}
        raise Refused(response.status_code, problem if isinstance(problem, dict) else {})


class Client:
    """Calls a server and waits. Raises ``Refused`` for what the server refuses, and if it is not reached.

    ``options`` of ``search`` are the fields of the server's search body (``where``, ``facets``, ``sort``,
    ``group_by``, ``k``, ``cursor``, ...); facets may be plain names.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(
            base_url=url, headers=_Requests.headers(key), timeout=timeout, transport=transport
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self,
        collection: str,
        text: str | None = None,
        *,
        terms: Terms = (),
        image: Path | bytes | None = None,
        audio: Path | bytes | None = None,
        **options: Any,
    ) -> SearchPage:
        """One page of a search by words, weighted terms, a picture or a recording."""
        page: SearchPage = self._call(*_Requests.search(collection, text, terms, image, audio, options))
        return page

    def pages(self, collection: str, text: str | None = None, **options: Any) -> Iterator[SearchPage]:
        """All pages of a search, one after the other."""
        page = self.search(collection, text, **options)
        yield page
        while page["cursor"]:
            page = self.search(collection, text, **{**options, "cursor": page["cursor"]})
            yield page

    def similar(self, collection: str, like: Sequence[int | str], **options: Any) -> SearchPage:
        """More like these items (ids or keys); ``unlike`` names those to stay away from."""
        body = {**options, "like": list(like)}
        page: SearchPage = self._call("POST", _Requests.path(collection, "similar"), {"json": body})
        return page

    def suggest(self, collection: str, text: str, k: int = 8) -> list[dict[str, Any]]:
        """Completions of what is being typed."""
        told = self._call("GET", _Requests.path(collection, "suggest"), {"params": {"text": text, "k": k}})
        return list(told["suggestions"])

    def multi_search(self, searches: Sequence[Mapping[str, Any]]) -> list[SearchPage]:
        """Several searches at once, each with its ``collection``."""
        told = self._call("POST", "/v1/multi-search", {"json": {"searches": list(searches)}})
        return list(told["results"])

    def encode(self, collection: str, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of texts in the collection's space."""
        told = self._call("POST", _Requests.path(collection, "encode"), {"json": {"texts": list(texts)}})
        return list(told["texts"])

    def collections(self) -> list[dict[str, Any]]:
        """The collections that the key may search."""
        return list(self._call("GET", "/v1/collections", {})["collections"])

    def item(self, collection: str, item: int | str) -> FoundItem:
        """An item by its id or its key."""
        if isinstance(item, int):
            one: FoundItem = self._call("GET", _Requests.path(collection, "items", item), {})
            return one
        found = self._call("GET", _Requests.path(collection, "items"), {"params": {"key": item}})
        by_key: FoundItem = found["items"][0]
        return by_key

    def put(self, collection: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Add items, or replace those whose key exists."""
        return dict(self._call("POST", _Requests.path(collection, "items"), {"json": {"items": list(items)}}))

    def update(self, collection: str, updates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Change attributes of items by key and leave everything else as it is; null removes one."""
        return dict(
            self._call("PATCH", _Requests.path(collection, "items"), {"json": {"updates": list(updates)}})
        )

    def remove(self, collection: str, keys: Sequence[str]) -> dict[str, Any]:
        """Remove items by key."""
        return dict(
            self._call("POST", _Requests.path(collection, "items", "remove"), {"json": {"keys": list(keys)}})
        )

    def _call(self, method: str, path: str, arguments: Mapping[str, Any]) -> Any:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise Refused(0, {"detail": f"{self._http.base_url}: not reached ({error})"}) from error
        return _Requests.answer(response)


class AsyncClient:
    """The same, asynchronous."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers=_Requests.headers(key), timeout=timeout, transport=transport
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(
        self,
        collection: str,
        text: str | None = None,
        *,
        terms: Terms = (),
        image: Path | bytes | None = None,
        audio: Path | bytes | None = None,
        **options: Any,
    ) -> SearchPage:
        """See ``Client.search``."""
        page: SearchPage = await self._call(*_Requests.search(collection, text, terms, image, audio, options))
        return page

    async def pages(
        self, collection: str, text: str | None = None, **options: Any
    ) -> AsyncIterator[SearchPage]:
        """See ``Client.pages``."""
        page = await self.search(collection, text, **options)
        yield page
        while page["cursor"]:
            page = await self.search(collection, text, **{**options, "cursor": page["cursor"]})
            yield page

    async def similar(self, collection: str, like: Sequence[int | str], **options: Any) -> SearchPage:
        """See ``Client.similar``."""
        body = {**options, "like": list(like)}
        page: SearchPage = await self._call("POST", _Requests.path(collection, "similar"), {"json": body})
        return page

    async def suggest(self, collection: str, text: str, k: int = 8) -> list[dict[str, Any]]:
        """See ``Client.suggest``."""
        told = await self._call(
            "GET", _Requests.path(collection, "suggest"), {"params": {"text": text, "k": k}}
        )
        return list(told["suggestions"])

    async def put(self, collection: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """See ``Client.put``."""
        return dict(
            await self._call("POST", _Requests.path(collection, "items"), {"json": {"items": list(items)}})
        )

    async def update(self, collection: str, updates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """See ``Client.update``."""
        body = {"json": {"updates": list(updates)}}
        return dict(await self._call("PATCH", _Requests.path(collection, "items"), body))

    async def remove(self, collection: str, keys: Sequence[str]) -> dict[str, Any]:
        """See ``Client.remove``."""
        body = {"json": {"keys": list(keys)}}
        return dict(await self._call("POST", _Requests.path(collection, "items", "remove"), body))

    async def _call(self, method: str, path: str, arguments: Mapping[str, Any]) -> Any:
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise Refused(0, {"detail": f"{self._http.base_url}: not reached ({error})"}) from error
        return _Requests.answer(response)
