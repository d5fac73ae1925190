"""The application: its parts put together."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from indexer.addresses import Network, networks
from indexer.fetch import Fetcher
from mmsearch import __version__
from mmsearch.config import Device
from mmsearch.encoders import Encoder, load_encoder
from mmsearch.encoders.voice import Transcriber
from mmsearch.errors import MediaError, MmsearchError
from mmsearch.server import collections, health, items, searching
from mmsearch.server.access import Access
from mmsearch.server.described import described
from mmsearch.server.engines import Engines
from mmsearch.server.gate import Figures, Gate
from mmsearch.server.keys import Keys
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from mmsearch.server.pace import Pace
from mmsearch.server.problems import Problem, add_handlers, responses
from mmsearch.server.work import Work
from mmsearch.server.writing import Updates

__all__ = ["create_app"]

logger = logging.getLogger("mmsearch.server")

WEB = Path(__file__).parent / "web"

_REST = "/v1/{rest:path}"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

ABOUT = """Search products, photos, texts and sounds by words, picture or sound.

Every error is a problem document (`application/problem+json`): `status`, `detail`, `code`, `request_id`.
Where the server has keys, send one: `Authorization: Bearer mms_...`."""


def create_app(
    home: Path,
    options: Options | None = None,
    *,
    load: Callable[[str], Encoder] = load_encoder,
    device: Device = "auto",
) -> FastAPI:
    """The ASGI application over the catalog in ``home``. ``load`` makes the encoder of a model's name."""
    options = options or Options()
    figures = Figures()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        pace = Pace()
        state.engines = Engines(home, load, refresh=options.refresh, pace=pace, device=device)
        state.work = Work(options, pace, state.engines.wrote)
        state.updates = Updates(pace)
        state.ready = False
        warming = asyncio.create_task(run_in_threadpool(_warm, app))
        yield
        # The server has stopped taking requests; what is being worked on is finished before anything is closed.
        await warming
        await asyncio.to_thread(state.work.close)
        await asyncio.to_thread(state.engines.close)

    app = FastAPI(
        title="mmsearch",
        version=__version__,
        description=ABOUT,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        license_info={"name": "Apache-2.0"},
        responses=responses(400, 413, 421, 422, 500),
    )
    app.state.options = options
    app.state.own_process = False
    app.state.figures = figures
    app.state.access = Access(Keys(home), options)
    app.state.allowed = networks(options.fetch_from)
    fetched = functools.partial(_fetched, app.state.allowed, options.timeout / 2)
    app.state.thumbnails = Thumbnails(home, fetched, options.max_pixels)
    app.state.transcriber = functools.cache(Transcriber)
    add_handlers(app)
    app.include_router(health.router)
    for module in (collections, items, searching):
        app.include_router(module.router, responses=responses(401, 403, 404, 408, 415, 429, 503, 507))
    app.openapi = functools.partial(described, app)  # type: ignore[method-assign]
    app.add_api_route(
        _REST,
        _nowhere,
        methods=_METHODS,
        include_in_schema=False,
    )
    if WEB.is_dir():
        app.mount("/", _Page(directory=WEB, html=True), name="page")
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Gate, options=options, figures=figures)
    return app


def _fetched(allowed: Sequence[Network], seconds: float, url: str) -> bytes:
    """A product's picture from where its feed said it is, for a small copy of it."""
    with Fetcher(allowed, budget=seconds) as fetcher:
        data = fetcher.get(url).data
    if data is None:
        raise MediaError(url, "was not sent")
    return data


class _Page(StaticFiles):
    """The page's files. A browser asks about them each time: after an update none of them is an old one."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _warm(app: FastAPI) -> None:
    for route in app.routes:  # FastAPI makes a router's routes ready when it first looks for one
        route.matches({"type": "http", "method": "GET", "path": "/v1", "root_path": "", "headers": []})
    app.state.engines.warm()
    if app.state.own_process:
        # What was read until now stays for good: looking through it for garbage takes a tenth of a second each time.
        gc.collect()
        gc.freeze()
    app.state.ready = True
    try:
        app.state.thumbnails.sweep(app.state.engines.catalog)
    except (OSError, MmsearchError) as error:
        logger.warning("what is kept of pictures that are gone could not be deleted: %s", error)


async def _nowhere(request: Request, rest: str) -> None:
    asked = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    here = [route for route in request.app.routes if getattr(route, "path", None) not in ("", _REST)]
    allowed = [
        method
        for method in _METHODS
        if any(route.matches({**asked, "method": method})[0] is Match.FULL for route in here)
    ]
    if allowed:
        told = f"{request.method} is not for this address, {' and '.join(allowed)} are"
        raise Problem(405, told, {"Allow": ", ".join(allowed)})
    raise Problem(404, f"there is nothing at /v1/{rest[:100]}; /openapi.json tells what there is")
