"""The OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mmsearch.server.access import IN_ADDRESS
from mmsearch.server.problems import SCHEMA

__all__ = ["described"]


def described(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once: with our own errors in the place of FastAPI's, and with keys."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            license_info=app.license_info,
            routes=app.routes,
        )
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for theirs in ("HTTPValidationError", "ValidationError"):
            schemas.pop(theirs, None)
        schemas["Problem"] = SCHEMA
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "address": {"type": "apiKey", "in": "query", "name": IN_ADDRESS},
        }
        document["security"] = [{}, {"key": []}]
        for methods in document["paths"].values():
            if "get" in methods:
                methods["get"]["security"] = [{}, {"key": []}, {"address": []}]
        app.openapi_schema = document
    return app.openapi_schema
