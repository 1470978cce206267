"""The API's description of itself, made once for each address that it is read under."""

from __future__ import annotations

import json
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from llmos_hub.api.dependencies import Services
from llmos_hub.api.openapi import make_document, make_page

__all__ = ["openapi_document", "page"]


def _documents(request: Request) -> tuple[bytes, bytes]:
    """The OpenAPI document and the page; everyone may ask for them, so they must cost nothing to ask for."""
    made: dict[str, tuple[bytes, bytes]] = request.app.state.documents
    server = request.scope["root_path"]
    if server not in made:
        document = make_document(request.app.routes, version=version("llmos"), server=server)
        made[server] = json.dumps(document).encode(), make_page(document).encode()
    return made[server]


async def openapi_document(request: Request, services: Services) -> Response:
    """OpenAPI 3.1."""
    del services
    return Response(_documents(request)[0], media_type="application/json")


async def page(request: Request, services: Services) -> Response:
    """The same as a page."""
    del services
    return Response(_documents(request)[1], media_type="text/html")
