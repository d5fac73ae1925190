"""Whether the server lives, whether it can answer, and its figures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mmsearch import __version__
from mmsearch.server.access import Search
from mmsearch.server.problems import problem

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz", responses={503: {"description": "Models are still being loaded."}})
async def ready(request: Request) -> Any:
    """Models and indexes are loaded, and the catalog can be read."""
    if not request.app.state.ready:
        return problem(503, "the models are still being loaded", headers={"Retry-After": "1"})
    revision, _ = await request.app.state.work.search(request.app.state.engines.catalog.revision)
    return {"status": "ready", "revision": revision}


@router.get("/metrics")
async def metrics(request: Request, _: Search) -> Response:
    """Figures for Prometheus."""
    state = request.app.state

    def collect() -> bytes:
        for info in state.engines.catalog.collections():
            state.figures.items.labels(info.name).set(info.items)
        return generate_latest(state.figures.registry)

    return Response(await state.work.search(collect), media_type=CONTENT_TYPE_LATEST)
