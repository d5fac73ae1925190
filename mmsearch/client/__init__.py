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

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from mmsearch.client import calls
from mmsearch.client.answers import (
    CollectionTold,
    Encoded,
    Found,
    FoundItem,
    FoundPart,
    Refused,
    SearchPage,
    SettingsTold,
    Suggested,
    Written,
)
from mmsearch.client.calls import Call

__all__ = [
    "AsyncClient",
    "Client",
    "CollectionTold",
    "Encoded",
    "Found",
    "FoundItem",
    "FoundPart",
    "Refused",
    "SearchPage",
    "SettingsTold",
    "Suggested",
    "Written",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Callable[..., Any])


def _plain(make: Callable[_P, Call[_T]]) -> Callable[Concatenate[Client, _P], _T]:
    """The method of ``Client`` that makes this call."""

    def method(self: Client, /, *args: _P.args, **named: _P.kwargs) -> _T:
        return self.send(make(*args, **named))

    return _told_as(method, make)


def _awaited(make: Callable[_P, Call[_T]]) -> Callable[Concatenate[AsyncClient, _P], Awaitable[_T]]:
    """The method of ``AsyncClient`` that makes this call."""

    async def method(self: AsyncClient, /, *args: _P.args, **named: _P.kwargs) -> _T:
        return await self.send(make(*args, **named))

    return _told_as(method, make)


def _told_as(method: _M, make: Callable[..., Any]) -> _M:
    """The method with the name, the docstring and the arguments of its call."""
    functools.update_wrapper(method, make)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(make)
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[own, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return method


class Client:
    """Calls a server and waits. Raises ``Refused`` for what the server refuses, and if it is not reached.

    ``key`` is one of `mmsearch keys create`, ``timeout`` in seconds; ``transport`` is httpx's, if it is to be another.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[_T]) -> _T:
        """Make a call of ``mmsearch.client.calls``."""
        try:
            response = self._http.request(call.method, call.path, **call.arguments)
        except httpx.TransportError as error:
            raise _unreached(self._http.base_url, error) from error
        return calls.answer(call, response)

    search = _plain(calls.search)
    similar = _plain(calls.similar)
    multi_search = _plain(calls.multi_search)
    suggest = _plain(calls.suggest)
    encode = _plain(calls.encode)
    transcribe = _plain(calls.transcribe)
    item = _plain(calls.item)
    items_page = _plain(calls.items_page)
    put = _plain(calls.put)
    update = _plain(calls.update)
    remove = _plain(calls.remove)
    remove_item = _plain(calls.remove_item)
    thumbnail = _plain(calls.thumbnail)
    file = _plain(calls.file)
    collections = _plain(calls.collections)
    collection = _plain(calls.collection)
    create_collection = _plain(calls.create_collection)
    delete_collection = _plain(calls.delete_collection)
    settings = _plain(calls.settings)
    change_settings = _plain(calls.change_settings)
    health = _plain(calls.health)
    ready = _plain(calls.ready)
    metrics = _plain(calls.metrics)

    def pages(self, collection: str, text: str | None = None, **options: Any) -> Iterator[SearchPage]:
        """All pages of a search, one after the other; takes what ``search`` takes."""
        page = self.search(collection, text, **options)
        yield page
        while page["cursor"]:
            page = self.search(collection, text, **{**options, "cursor": page["cursor"]})
            yield page

    def items(self, collection: str) -> Iterator[FoundItem]:
        """All items of a collection by their ids, read a page at a time."""
        after: int | None = 0
        while after is not None:
            some, after = self.items_page(collection, after, 1000)
            yield from some


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
            base_url=url, headers=_headers(key), timeout=timeout, transport=transport
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

    async def send(self, call: Call[_T]) -> _T:
        """Make a call of ``mmsearch.client.calls``."""
        try:
            response = await self._http.request(call.method, call.path, **call.arguments)
        except httpx.TransportError as error:
            raise _unreached(self._http.base_url, error) from error
        return calls.answer(call, response)

    search = _awaited(calls.search)
    similar = _awaited(calls.similar)
    multi_search = _awaited(calls.multi_search)
    suggest = _awaited(calls.suggest)
    encode = _awaited(calls.encode)
    transcribe = _awaited(calls.transcribe)
    item = _awaited(calls.item)
    items_page = _awaited(calls.items_page)
    put = _awaited(calls.put)
    update = _awaited(calls.update)
    remove = _awaited(calls.remove)
    remove_item = _awaited(calls.remove_item)
    thumbnail = _awaited(calls.thumbnail)
    file = _awaited(calls.file)
    collections = _awaited(calls.collections)
    collection = _awaited(calls.collection)
    create_collection = _awaited(calls.create_collection)
    delete_collection = _awaited(calls.delete_collection)
    settings = _awaited(calls.settings)
    change_settings = _awaited(calls.change_settings)
    health = _awaited(calls.health)
    ready = _awaited(calls.ready)
    metrics = _awaited(calls.metrics)

    async def pages(
        self, collection: str, text: str | None = None, **options: Any
    ) -> AsyncIterator[SearchPage]:
        """See ``Client.pages``."""
        page = await self.search(collection, text, **options)
        yield page
        while page["cursor"]:
            page = await self.search(collection, text, **{**options, "cursor": page["cursor"]})
            yield page

    async def items(self, collection: str) -> AsyncIterator[FoundItem]:
        """See ``Client.items``."""
        after: int | None = 0
        while after is not None:
            some, after = await self.items_page(collection, after, 1000)
            for one in some:
                yield one


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _unreached(url: httpx.URL, error: Exception) -> Refused:
    return Refused(0, {"detail": f"{url}: not reached ({error})"})
