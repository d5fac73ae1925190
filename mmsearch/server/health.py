"""Whether the server lives, whether it can answer, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from mmsearch import __version__
from mmsearch.server.access import Search
from mmsearch.server.answer_shapes import Alive, Ready, answer
from mmsearch.server.answers import as_json
from mmsearch.server.problems import problem, responses

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=answer(Alive))
async def alive() -> Response:
    """The process answers."""
    return as_json({"status": "ok", "version": __version__})


@router.get("/readyz", responses=responses(503) | answer(Ready))
async def ready(request: Request) -> Response:
    """Models and indexes are loaded, and the catalog can be read."""
    if not request.app.state.ready:
        return problem(503, "the models are still being loaded", headers={"Retry-After": "1"})
    revision, _ = await request.app.state.work.search(request.app.state.engines.catalog.revision)
    return as_json({"status": "ready", "revision": revision})


@router.get(
    "/metrics",
    response_class=Response,
    responses=responses(401, 403, 429, 503, ok="text/plain"),
)
async def metrics(request: Request, _: Search) -> Response:
    """Figures for Prometheus: of the server, and of the collections that the key may search."""
    state = request.app.state
    for pool, inside in state.work.inside().items():
        state.figures.working.labels(pool).set(inside)

    def collect() -> bytes:
        of_collections = CollectorRegistry()
        items = Gauge("mmsearch_items", "Items of a collection.", ("collection",), registry=of_collections)
        for info in state.engines.catalog.collections():
            if state.access.may_see(request, info.name):
                items.labels(info.name).set(info.items)
        encoders = state.engines.encoders()
        state.figures.count_encoded(sum(one.hits for one in encoders), sum(one.misses for one in encoders))
        return generate_latest(state.figures.registry) + generate_latest(of_collections)

    return Response(await state.work.search(collect), media_type=CONTENT_TYPE_LATEST)
