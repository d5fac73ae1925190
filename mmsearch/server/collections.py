"""Routes of collections."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from mmsearch.errors import CollectionNotFound
from mmsearch.server.access import Admin, Search
from mmsearch.server.problems import Problem

router = APIRouter(prefix="/v1", tags=["collections"])

Name = Annotated[str, Path(description="Name of the collection.", min_length=1, max_length=200)]


class NewCollection(BaseModel):
    """A collection to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "shoes", "model": "mini"}}
    )

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f/~]+$", description="Its name.")
    model: str = Field("mini", max_length=200, description="Name of its model.")


@router.get("/collections")
async def list_collections(request: Request, _: Search) -> dict[str, Any]:
    """All collections that the key may search."""
    state = request.app.state
    found = await state.work.search(state.engines.catalog.collections)
    return {"collections": [_told(info) for info in found if state.access.may_see(request, info.name)]}


@router.post("/collections", status_code=201)
async def create_collection(request: Request, new: NewCollection, _: Admin) -> dict[str, Any]:
    """Make a collection; 409 if there is one of that name."""
    state = request.app.state

    def make() -> Any:
        try:
            state.engines.catalog.collection(new.name)
        except CollectionNotFound:
            return state.engines.create(new.name, new.model)
        raise Problem(409, f"there is a collection {new.name!r} already")

    return _told(await state.work.write(make))


@router.get("/collections/{collection}")
async def show_collection(request: Request, collection: Name, _: Search) -> dict[str, Any]:
    """What a collection holds: items, parts, attributes with their kinds."""
    state = request.app.state

    def status() -> dict[str, Any]:
        catalog = state.engines.catalog
        found = catalog.collection(collection)
        counts = {one.id: one.items for one in catalog.collections()}
        return {
            "name": found.name,
            "model": found.model,
            "space": found.space,
            "dim": found.dim,
            "items": counts.get(found.id, 0),
            "parts": catalog.part_counts(found.id),
            "attributes": catalog.attribute_kinds(found.id),
            "revision": catalog.revision()[0],
        }

    told: dict[str, Any] = await state.work.search(status)
    return told


@router.delete("/collections/{collection}")
async def delete_collection(request: Request, collection: Name, _: Admin) -> dict[str, Any]:
    """Delete a collection with everything in it."""
    state = request.app.state
    count = await state.work.write(lambda: state.engines.delete(collection))
    return {"deleted": collection, "items": count}


def _told(info: Any) -> dict[str, Any]:
    return {
        "name": info.name,
        "model": info.model,
        "space": info.space,
        "dim": info.dim,
        "items": info.items,
        "created": info.created.isoformat(),
    }
