"""Routes that search, suggest and encode."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ConfigDict, Field, ValidationError

from mmsearch.engine import Engine
from mmsearch.errors import CollectionNotFound, ItemNotFound, MmsearchError, QueryError
from mmsearch.server.access import Admin, Search
from mmsearch.server.answer_shapes import (
    Completions,
    Encoded,
    MultiPage,
    SearchPage,
    SettingsTold,
    Spoken,
    answer,
)
from mmsearch.server.answers import as_json, results_json, suggestion_json
from mmsearch.server.bodies import BodyRoute
from mmsearch.server.collections import Name
from mmsearch.server.problems import NO_COLLECTION, Problem, responses
from mmsearch.server.rules import SettingsBody
from mmsearch.server.schemas import Asked, Blob, Body, Many, SearchBody, SimilarBody, TermBody, Text
from mmsearch.server.uploads import Uploads
from mmsearch.types import Modality, Query

_T = TypeVar("_T")

router = APIRouter(route_class=BodyRoute, prefix="/v1", tags=["search"])


class MultiSearchBody(Body):
    """Several searches at once, each in its collection."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "searches": [
                        {"collection": "shop", "text": "red summer dress", "k": 4},
                        {
                            "collection": "shop",
                            "sort": [{"attribute": "launched", "descending": True}],
                            "k": 4,
                        },
                    ]
                }
            ]
        },
    )

    searches: Many[SearchIn] = Field(min_length=1)


class SearchIn(SearchBody):
    """A search of a multi-search."""

    collection: Name


MultiSearchBody.model_rebuild()


class EncodeBody(Body):
    """What to turn into vectors of the collection's space."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["red summer dress", "black boots"]}]}
    )

    texts: Many[Text] = Field(default_factory=list, max_length=256)
    images: Many[Blob] = Field(default_factory=list, max_length=64)


@router.post("/collections/{collection}/search", responses=answer(SearchPage))
async def search(request: Request, collection: Name, body: SearchBody, _: Search) -> Response:
    """The best items, a page at a time, with facets, corrections and reasons where asked for."""
    return await _answered(request, collection, body, {})


@router.post("/collections/{collection}/search/files", responses=answer(SearchPage))
async def search_files(
    request: Request,
    collection: Name,
    _: Search,
    files: Annotated[list[UploadFile], File(description="Pictures or recordings.", max_length=8)],
    query: Annotated[
        str,
        Form(
            description="A search as JSON; terms name files by `upload`.",
            max_length=200_000,
            examples=['{"k": 5, "where": "stock > 0"}'],
        ),
    ] = "{}",
) -> Response:
    """The same with files: each that no term names is a term of weight 1 by itself."""
    try:
        body = SearchBody.model_validate_json(query)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        ) from None
    found: dict[str, bytes] = {}
    kinds: dict[str, str] = {}
    for number, file in enumerate(files):
        name = (file.filename or f"file{number}")[-200:]
        if name in found:  # phones call every photo the same
            name = f"{number} {name}"
        found[name] = await file.read()
        kinds[name] = file.content_type or ""
    named = {blob.upload for term in body.terms for blob in (term.image, term.audio) if blob}
    for name in found:
        if name not in named:
            blob = Blob(upload=name, base64=None)
            heard = kinds[name].startswith("audio/")
            body.terms.append(TermBody(audio=blob) if heard else TermBody(image=blob))
    return await _answered(request, collection, body, found)


@router.post("/collections/{collection}/similar", responses=answer(SearchPage))
async def similar(request: Request, collection: Name, body: SimilarBody, _: Search) -> Response:
    """More like these items, and not like those."""
    engines = request.app.state.engines

    def do() -> Response:
        started = time.perf_counter()
        _check_hits(request, [body])
        with engines.searching(collection) as engine:
            found = engine.results(body.query())
        return as_json({**results_json(collection, found), "ms": _ms(started)})

    response: Response = await request.app.state.work.search(do)
    return response


@router.post("/multi-search", responses=answer(MultiPage))
async def multi_search(request: Request, body: MultiSearchBody, _: Search) -> Response:
    """Several searches in one request; texts of one collection are encoded together."""
    state = request.app.state
    if (count := len(body.searches)) > (most := state.options.max_queries):
        raise Problem(422, f"{count} searches; at most {most} are made at once")
    for name in dict.fromkeys(one.collection for one in body.searches):
        state.access.check_collection(request, "search", name)
    _note(request, [one.text for one in body.searches])

    def do() -> Response:
        started = time.perf_counter()
        answers: list[Any] = [None] * len(body.searches)
        _check_hits(request, body.searches)
        for name in dict.fromkeys(one.collection for one in body.searches):
            rows = [row for row, one in enumerate(body.searches) if one.collection == name]
            with contextlib.ExitStack() as using:
                engine = _in_search(rows[0], using.enter_context, state.engines.searching(name))
                uploads = Uploads(state.options, encoder=engine.encoder)
                queries = [_in_search(row, _query, engine, body.searches[row], uploads) for row in rows]
                try:
                    page = engine.results_of(queries)
                except QueryError:
                    page = [
                        _in_search(row, engine.results, one) for row, one in zip(rows, queries, strict=True)
                    ]
                for row, found in zip(rows, page, strict=True):
                    answers[row] = results_json(name, found)
        return as_json({"results": answers, "ms": _ms(started)})

    response: Response = await state.work.search(do)
    return response


@router.get("/collections/{collection}/suggest", responses=answer(Completions))
async def suggest(
    request: Request,
    collection: Name,
    _: Search,
    text: Annotated[str, Field(max_length=200)] = "",
    k: Annotated[int, Field(ge=1, le=50)] = 8,
) -> Response:
    """Completions of what is being typed: past queries where they are kept, and titles."""
    engines = request.app.state.engines

    def do() -> Response:
        with engines.searching(collection) as engine:
            return as_json({"suggestions": [suggestion_json(one) for one in engine.suggest(text, k)]})

    response: Response = await request.app.state.work.search(do)
    return response


@router.post("/collections/{collection}/encode", responses=answer(Encoded))
async def encode(request: Request, collection: Name, body: EncodeBody, _: Search) -> Response:
    """Vectors of texts and pictures in the collection's space, L2-normalised."""
    state = request.app.state

    def do() -> Response:
        with state.engines.searching(collection) as engine:
            encoder = engine.encoder
        uploads = Uploads(state.options, encoder=encoder)
        told: dict[str, Any] = {"space": encoder.space.id, "dim": encoder.space.dim}
        told["texts"] = encoder.encode_texts(body.texts).tolist() if body.texts else []
        pictures = [uploads(blob, Modality.IMAGE) for blob in body.images]
        told["images"] = encoder.encode_images(pictures).tolist() if pictures else []
        return as_json(told)

    response: Response = await state.work.search(do)
    return response


@router.post("/transcribe", responses=responses(501) | answer(Spoken))
async def transcribe(
    request: Request, _: Search, file: Annotated[UploadFile, File(description="A recording of speech.")]
) -> Response:
    """The words of a spoken query (English). 501 where the extra `voice` is not installed."""
    state = request.app.state
    data = await file.read()

    def do() -> Response:
        uploads = Uploads(state.options)
        uploads.check_sound(data, file.filename or "speech", state.options.max_seconds_of_speech)
        return as_json({"text": state.transcriber().words(data)})

    response: Response = await state.work.media(do)
    return response


@router.get("/collections/{collection}/settings", responses=answer(SettingsTold))
async def show_settings(request: Request, collection: Name, _: Admin) -> Response:
    """Synonyms and rules of a collection."""
    engines = request.app.state.engines

    def do() -> Response:
        with engines.searching(collection) as engine:
            return as_json(dataclasses.asdict(engine.settings()))

    response: Response = await request.app.state.work.search(do)
    return response


@router.put("/collections/{collection}/settings", responses=answer(SettingsTold))
async def change_settings(request: Request, collection: Name, body: SettingsBody, _: Admin) -> Response:
    """Replace the synonyms and rules of a collection; the next search follows them."""
    engines = request.app.state.engines

    def do() -> Response:
        with engines.writing(collection) as engine:
            engine.change_settings(body.shape())
            return as_json(dataclasses.asdict(engine.settings()))

    response: Response = await request.app.state.work.write(do)
    return response


async def _answered(
    request: Request, collection: str, body: SearchBody, files: Mapping[str, bytes]
) -> Response:
    state = request.app.state
    _note(request, [body.text])

    def do() -> Response:
        started = time.perf_counter()
        _check_hits(request, [body])
        with state.engines.searching(collection) as engine:
            found = engine.results(_query(engine, body, Uploads(state.options, files, engine.encoder)))
            if state.options.keep_queries and body.text and body.cursor is None and found.hits:
                engine.note_query(body.text)
        return as_json({**results_json(collection, found), "ms": _ms(started)})

    response: Response = await state.work.search(do)
    return response


def _query(engine: Engine, body: SearchBody, uploads: Uploads) -> Query:
    def item(reference: int | str) -> int:
        if isinstance(reference, int):
            return reference
        if (found := engine.find(reference)) is None:
            raise ItemNotFound(f"no item with the key {reference!r} in this collection")
        return found.id

    return body.query(uploads, item)


def _in_search(row: int, do: Callable[..., _T], *given: Any) -> _T:
    """What ``do`` returns for one of several searches; an error says of which."""
    try:
        return do(*given)
    except MmsearchError as error:
        reason = NO_COLLECTION if isinstance(error, CollectionNotFound) else error
        raise Problem(error.http_status, f"searches.{row}: {reason}") from error


def _check_hits(request: Request, bodies: Sequence[Asked]) -> None:
    """Raises ``Problem`` 422 if these searches together ask for more hits than are given at once."""
    most = request.app.state.options.max_k
    if (count := sum(body.k * body.group_size for body in bodies)) > most:
        raise Problem(
            422, f"{count} hits (k times group_size); at most {most} are given at once: page on with cursor"
        )


def _note(request: Request, texts: list[str | None]) -> None:
    """Tell the log what was searched for, if that was asked for."""
    if request.app.state.options.log_queries:
        request.scope["told"] = {"queries": [text for text in texts if text]}


def _ms(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 2)
