"""Routes of collections."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mmsearch.errors import CollectionNotFound, MissingExtra, ModelError
from mmsearch.rows import CollectionInfo
from mmsearch.server.access import Admin, Search
from mmsearch.server.answer_shapes import CollectionList, CollectionTold, Deleted, answer
from mmsearch.server.answers import as_json
from mmsearch.server.bodies import BodyRoute
from mmsearch.server.engines import Engines
from mmsearch.server.problems import Problem, responses

router = APIRouter(route_class=BodyRoute, prefix="/v1", tags=["collections"])

Name = Annotated[str, Path(description="Name of the collection.", min_length=1, max_length=200)]


def _sayable(name: str) -> str:
    """Whether a name can stand in an address and on a line: ~ is kept for the collections of an unfinished change."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029/~]", name) or name != name.strip() or not name.strip("."):
        raise ValueError(
            "a name has no control characters, no / and no ~, no blank at its ends, and not only dots"
        )
    return name


class NewCollection(BaseModel):
    """A collection to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "shoes", "model": "mini"}}
    )

    name: Annotated[str, AfterValidator(_sayable)] = Field(
        min_length=1, max_length=200, description="Its name."
    )
    model: str = Field(
        "mini", min_length=1, max_length=1000, description="Name of its model, or the path of a model folder."
    )


@router.get("/collections", responses=answer(CollectionList))
async def list_collections(request: Request, _: Search) -> Response:
    """All collections that the key may search."""
    state = request.app.state
    found = await state.work.search(state.engines.catalog.collections)
    told = [_told(info) for info in found if state.access.may_see(request, info.name)]
    return as_json({"collections": told})


@router.post("/collections", status_code=201, responses=responses(409, 501) | answer(CollectionTold, 201))
async def create_collection(request: Request, new: NewCollection, _: Admin) -> Response:
    """Make a collection; 409 if there is one of that name."""
    state = request.app.state
    state.access.check_collection(request, "admin", new.name)

    def make() -> Any:
        try:
            state.engines.catalog.collection(new.name)
        except CollectionNotFound:
            return _created(state.engines, new)
        raise Problem(409, f"there is a collection {new.name!r} already")

    return as_json(_told(await state.work.write(make)), 201)


@router.get("/collections/{collection}", responses=answer(CollectionTold))
async def show_collection(request: Request, collection: Name, _: Search) -> Response:
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
            "parts": {str(kind): count for kind, count in catalog.part_counts(found.id).items()},
            "attributes": catalog.attribute_kinds(found.id),
            "revision": catalog.revision()[0],
        }

    return as_json(await state.work.search(status))


@router.delete("/collections/{collection}", responses=answer(Deleted))
async def delete_collection(request: Request, collection: Name, _: Admin) -> Response:
    """Delete a collection with everything in it."""
    state = request.app.state

    def delete() -> int:
        count: int = state.engines.delete(collection)
        state.thumbnails.sweep(state.engines.catalog)
        return count

    return as_json({"deleted": collection, "items": await state.work.write(delete)})


def _created(engines: Engines, new: NewCollection) -> CollectionInfo:
    try:
        return engines.create(new.name, new.model)
    except MissingExtra:
        raise
    except ModelError as error:  # whoever named the model can name another
        raise Problem(422, f"model: {error}") from None


def _told(info: CollectionInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "model": info.model,
        "space": info.space,
        "dim": info.dim,
        "items": info.items,
        "created": info.created.isoformat(),
    }
