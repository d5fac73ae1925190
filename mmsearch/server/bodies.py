"""Bodies of requests: read for those who have a key, and large ones aside, so that no other request waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from mmsearch.errors import MmsearchError
from mmsearch.server.access import needs
from mmsearch.server.problems import Problem

__all__ = ["BodyRoute"]

LARGE = 64 << 10
"""Bytes of a body that is read on a thread."""

_reader = ThreadPoolExecutor(1, "bodies")
"""One after the other: two at once would take as long together, and twice the memory."""

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Read(Request):
    """A request whose JSON was read already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class BodyRoute(APIRoute):
    """A route that looks at the key before anything of the body is read, and reads JSON by its own means.

    FastAPI does so the other way round, and on the thread that answers everybody.
    """

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()
        checks = [one.call for one in self.dependant.dependencies if isinstance(one.call, needs)]
        field = self.body_field
        model: Any = (
            None if field is None or isinstance(field.field_info, Form) else field.field_info.annotation
        )

        async def answer(request: Request) -> Response:
            try:
                for check in checks:
                    await check(request)
            except MmsearchError:
                async for (
                    _
                ) in request.stream():  # a client that is still sending would not hear why it is refused
                    pass
                raise
            if model is None:
                return await handle(request)
            read = _Read(request.scope, request.receive)
            if body := await read.body():
                if "json" not in request.headers.get("content-type", "").lower():
                    raise Problem(415, "this takes JSON: send it with `Content-Type: application/json`")
                most = request.app.state.options.max_values
                if len(body) < LARGE:
                    read.parsed = _loads(body)
                else:
                    loop = asyncio.get_running_loop()
                    read.parsed = await loop.run_in_executor(_reader, _checked, body, model, most)
            return await handle(read)

        return answer


def _loads(body: bytes) -> Any:
    """Raises ``RequestValidationError``."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestValidationError(
            [{"loc": ("body", error.pos), "msg": f"this is not JSON: {error.msg}"}]
        ) from None


def _checked(body: bytes, model: type[BaseModel], most: int) -> BaseModel:
    """A large body as its model, which FastAPI takes as it is.

    Making objects of JSON is one call that lets no other thread in, so what would take long is refused by a look at the
    bytes: texts, lists and objects cost most, numbers little (and commas also stand in texts).

    Raises ``Problem`` 413, ``RequestValidationError``.
    """
    count = max(body.count(b"[") + body.count(b"{") + body.count(b'"') // 2, body.count(b",") // 4)
    if count > most:
        raise Problem(413, f"the body holds too many values (some {count}; at most {most} are read at once)")
    try:
        return model.model_validate(_loads(body))
    except ValidationError as error:
        raise RequestValidationError(
            [
                {**one, "loc": ("body", *one["loc"])}
                for one in error.errors(include_input=False, include_url=False)
            ]
        ) from None
