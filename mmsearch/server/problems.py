"""Errors as ``application/problem+json`` (RFC 9457): what went wrong, where, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from mmsearch.errors import CatalogBusy, CollectionNotFound, MmsearchError, StoreUnwritable

__all__ = ["SCHEMA", "Problem", "add_handlers", "problem", "responses"]

logger = logging.getLogger("mmsearch.server")

_TITLES = {
    400: "Bad request",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request came too slowly",
    409: "Conflict",
    413: "Too large",
    416: "No such range",
    415: "Not a readable medium",
    421: "Unknown host",
    422: "Cannot be understood",
    499: "The client left",
    429: "Too many requests",
    500: "Something broke in the server",
    501: "Not installed",
    503: "Busy",
    507: "Nothing can be written",
}

_CODES = {
    400: "BadRequest",
    401: "KeyNeeded",
    403: "NotAllowed",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    409: "Conflict",
    413: "TooLarge",
    415: "NotReadable",
    416: "NoSuchRange",
    421: "UnknownHost",
    422: "Invalid",
    429: "TooManyRequests",
    500: "Broken",
    501: "NotInstalled",
    503: "Busy",
}
"""What kind of error it is, where no class of ``mmsearch.errors`` says it better."""


SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong, where, and what to do."},
        "code": {"type": "string", "description": "The kind of error."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}
"""The body of every error, for the OpenAPI document."""

MAX_DETAIL = 2000
_ATTRIBUTE = (
    "an attribute is a number, a text (of at most 10,000 characters), true or false, a list of texts (at most 1,000), "
    'or a date: {"datetime": "2026-03-01"}'
)
NO_COLLECTION = "there is no such collection"


def responses(*statuses: int, **media: str) -> dict[int | str, dict[str, Any]]:
    """How the OpenAPI document tells of errors with these statuses; and of answers that are no JSON: ``ok`` and
    ``part`` (of a range) are their content types.
    """
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": _TITLES[status], "content": content} for status in statuses
    }
    for name, kind in media.items():
        told[{"ok": 200, "part": 206}[name]] = {
            "description": {"ok": "Successful Response", "part": "Partial Content"}[name],
            "content": {kind: {"schema": {"type": "string", "format": "binary"}}},
        }
    return told


class Problem(MmsearchError):
    """An error of the server itself, with its status."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.http_status = status
        self.headers = dict(headers or {})


def problem(
    status: int,
    detail: str,
    *,
    code: str = "",
    request_id: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """The response that tells of an error. ``errors`` are those of single fields: ``field`` and ``reason``."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL] + " ...",
        "code": code or _CODES.get(status, "Problem"),
    }
    if request_id:
        body["request_id"] = request_id
    if errors:
        body["errors"] = list(errors)
    return Response(
        orjson.dumps(body), status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def add_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, MmsearchError)
        status, detail = error.http_status, str(error)
        if isinstance(error, CollectionNotFound):  # its own message names the home, and all collections
            detail = NO_COLLECTION
        headers = dict(getattr(error, "headers", {}))
        if isinstance(error, CatalogBusy):
            headers.setdefault("Retry-After", "1")
        if isinstance(error, StoreUnwritable):  # its own message names the home
            logger.error("%s", detail)
            detail = "the server's disk is full or cannot be written; searches go on, write again when that is mended"
        elif status >= 500 and status not in (501, 503):
            logger.error("%s: %s", type(error).__name__, detail, exc_info=error)
            detail = "The server could not do this; its log tells why under this request id."
        kind = "" if isinstance(error, Problem) else type(error).__name__
        return _told(request, status, detail, kind, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        told_of: dict[str, str] = {}
        for one in error.errors()[:100]:
            place, reason = one["loc"], one["msg"].removeprefix("Value error, ")
            if "attributes" in place[:-2]:  # one that is none of the kinds is told once, not once a kind
                place, reason = place[: place.index("attributes") + 2], _ATTRIBUTE
            field = (".".join(map(str, place[1:])) or str(place[0]))[:200]
            told_of.setdefault(field, reason[:MAX_DETAIL])
        errors = [{"field": field, "reason": reason} for field, reason in list(told_of.items())[:20]]
        told = "; ".join(f"{one['field']}: {one['reason']}" for one in errors[:3])
        return problem(422, told, code="Invalid", request_id=_request_id(request), errors=errors)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _told(request, error.status_code, str(error.detail), "", dict(error.headers or {}))

    app.add_exception_handler(MmsearchError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _told(request: Request, status: int, detail: str, code: str, headers: Mapping[str, str]) -> Response:
    return problem(status, detail, code=code, request_id=_request_id(request), headers=headers)


def _request_id(request: Request) -> str:
    return str(request.scope.get("request_id", ""))
