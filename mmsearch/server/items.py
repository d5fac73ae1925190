"""Routes of items: reading, adding, changing, removing, and their pictures and sounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import AfterValidator, ConfigDict, Field

from mmsearch.engine import Engine
from mmsearch.errors import ItemNotFound
from mmsearch.server import writing
from mmsearch.server.access import Search, Write
from mmsearch.server.answer_shapes import (
    Changed,
    FoundItem,
    ItemPage,
    Removed,
    RemovedByKey,
    Written,
    answer,
)
from mmsearch.server.answers import as_json, item_json
from mmsearch.server.bodies import BodyRoute
from mmsearch.server.collections import Name
from mmsearch.server.media import SIZES, content_type, served_file
from mmsearch.server.problems import Problem, responses
from mmsearch.server.schemas import Body, ItemsBody, Key, Many, UpdatesBody
from mmsearch.types import Item

router = APIRouter(route_class=BodyRoute, prefix="/v1/collections/{collection}", tags=["items"])

Number = Annotated[int, Path(ge=1, lt=1 << 62, description="Id of the item.")]
PartNumber = Annotated[int, Path(ge=1, lt=1 << 62, description="Id of the part.")]


def _known_size(size: int) -> int:
    if size not in SIZES:
        raise ValueError(f"sizes are {', '.join(map(str, SIZES))}")
    return size


Size = Annotated[
    int,
    AfterValidator(_known_size),
    Query(description="Longer side in pixels.", json_schema_extra={"enum": list(SIZES)}),
]

_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


class RemoveBody(Body):
    """Keys of items to remove."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"keys": ["sku-1", "sku-2"]}]})

    keys: Many[Key] = Field(min_length=1, max_length=10_000)


@router.get("/items", responses=answer(ItemPage))
async def list_items(
    request: Request,
    collection: Name,
    _: Search,
    after: Annotated[int, Query(ge=0, lt=1 << 62, description="Items with greater ids.")] = 0,
    k: Annotated[int, Query(ge=1, le=1000)] = 100,
    key: Annotated[str | None, Query(max_length=4096, description="Only the item with this key.")] = None,
) -> Response:
    """Items by id, a page at a time; or the one with a key."""

    def page(engine: Engine) -> dict[str, Any]:
        if key is not None:
            found = engine.find(key)
            if found is None:
                raise ItemNotFound(f"no item with the key {key!r} in this collection")
            return {"items": [item_json(collection, found)], "after": None}
        items = engine.page(after, k)
        told = [item_json(collection, item) for item in items]
        return {"items": told, "after": items[-1].id if len(items) == k else None}

    return await _with_engine(request, collection, page)


@router.get("/items/{item}", responses=answer(FoundItem))
async def show_item(request: Request, collection: Name, item: Number, _: Search) -> Response:
    """An item with its attributes and parts."""
    return await _with_engine(request, collection, lambda engine: item_json(collection, _one(engine, item)))


@router.delete("/items/{item}", responses=answer(Removed))
async def remove_item(request: Request, collection: Name, item: Number, _: Write) -> Response:
    """Remove an item."""
    state = request.app.state

    def remove() -> dict[str, Any]:
        with state.engines.writing(collection) as engine, _forgetting(request):
            _one(engine, item)
            return {"removed": engine.remove([item])}

    return as_json(await state.work.write(remove))


@router.post("/items", responses=answer(Written))
async def put_items(request: Request, collection: Name, body: ItemsBody, _: Write) -> Response:
    """Add products, or replace those whose key exists; what cannot be is told by key, the rest goes in."""
    state = request.app.state
    _limited(request, len(body.items))

    def put() -> dict[str, Any]:
        with state.engines.writing(collection) as engine, _forgetting(request):
            return writing.put(engine, body.items, state.options, state.thumbnails, state.allowed)

    return as_json(await state.work.write(put))


@router.patch("/items", responses=answer(Changed))
async def update_items(request: Request, collection: Name, body: UpdatesBody, _: Write) -> Response:
    """Change attributes by key, all or none of them; nothing is encoded. Keys that no item has are told."""
    state = request.app.state
    _limited(request, len(body.updates))
    joined = state.updates.join(collection, body.updates)

    try:
        told: dict[str, Any] = await state.work.write(
            lambda: state.updates.answer(joined, state.engines.writing)
        )
    finally:
        state.updates.leave(joined)
    return as_json(told)


@router.post("/items/remove", responses=answer(RemovedByKey))
async def remove_items(request: Request, collection: Name, body: RemoveBody, _: Write) -> Response:
    """Remove items by their keys; those that are not there are told."""
    state = request.app.state

    def remove() -> dict[str, Any]:
        with state.engines.writing(collection) as engine, _forgetting(request):
            found = {key: engine.find(key) for key in dict.fromkeys(body.keys)}
            removed = engine.remove([item.id for item in found.values() if item is not None])
        return {"removed": removed, "unknown": [key for key, item in found.items() if item is None]}

    return as_json(await state.work.write(remove))


@router.get(
    "/items/{item}/parts/{part}/thumbnail",
    response_class=Response,
    responses=responses(416, ok="image/webp", part="image/webp"),
)
async def thumbnail(
    request: Request, collection: Name, item: Number, part: PartNumber, _: Search, size: Size = 320
) -> Response:
    """A small copy (WebP) of a picture, turned upright."""
    state = request.app.state

    def make() -> Any:
        with state.engines.searching(collection) as engine:
            found = _one(engine, item)
            wanted = next((one for one in found.parts if one.id == part), None)
            if wanted is None:
                raise ItemNotFound(f"item {item} has no part {part}; it may have changed")
            return state.thumbnails.get(engine, found, wanted, size)

    path = await state.work.media(make)
    return FileResponse(path, media_type="image/webp", headers=_FOR_EVER | _embedding(request))


@router.get(
    "/items/{item}/file",
    response_class=Response,
    responses=responses(416, ok="*/*", part="*/*"),
)
async def item_file(request: Request, collection: Name, item: Number, _: Search) -> Response:
    """The file of an item, if it lies in a folder that was indexed; ranges are understood."""
    state = request.app.state

    def find() -> tuple[Any, Item]:
        with state.engines.searching(collection) as engine:
            found = _one(engine, item)
            return served_file(engine, found.path, indexed=found.is_file), found

    path, found = await state.work.search(find)
    kind = content_type(path, found.modality)
    inline = kind != "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="inline" if inline else "attachment",
        headers={
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-cache",
            **_embedding(request),
        },
    )


def _embedding(request: Request) -> dict[str, str]:
    """Pages of other sites may show pictures and play sounds where some may call the server at all."""
    return {"Cross-Origin-Resource-Policy": "cross-origin"} if request.app.state.options.origins else {}


@contextlib.contextmanager
def _forgetting(request: Request) -> Iterator[None]:
    """Delete what is kept of the pictures that are removed or replaced meanwhile."""
    state = request.app.state
    before, _ = state.engines.catalog.revision()
    yield
    state.thumbnails.forget(state.engines.catalog.removed_since(before))


def _limited(request: Request, count: int) -> None:
    if count > (most := request.app.state.options.max_batch):
        raise Problem(422, f"{count} at once; at most {most} are taken: send them in several requests")


def _one(engine: Engine, item: int) -> Item:
    return engine.get([item])[0]


async def _with_engine(request: Request, collection: str, do: Callable[[Engine], dict[str, Any]]) -> Response:
    state = request.app.state

    def read() -> Response:
        with state.engines.searching(collection) as engine:
            return as_json(do(engine))

    response: Response = await state.work.search(read)
    return response
