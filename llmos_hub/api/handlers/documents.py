"""The API's description of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from llmos_hub.api.dependencies import Services
from llmos_hub.api.openapi import make_document, make_page

__all__ = ["openapi_document", "page"]


def _document(request: Request) -> dict[str, Any]:
    return make_document(request.app.routes, version=version("llmos"), server=request.scope["root_path"])


async def openapi_document(request: Request, services: Services) -> Response:
    """OpenAPI 3.1."""
    del services
    return JSONResponse(_document(request))


async def page(request: Request, services: Services) -> Response:
    """The same as a page."""
    del services
    return HTMLResponse(make_page(_document(request)))
