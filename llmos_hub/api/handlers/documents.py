"""The API's description of itself, rendered once for each path prefix."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response

from llmos import __version__
from llmos_hub.api.dependencies import Services
from llmos_hub.api.openapi import make_document, make_page
from llmos_hub.names import API_PREFIX

__all__ = ["openapi_document", "page"]


_UNKNOWN = "https://HUB"
"""A placeholder for the Hub's address where it isn't known."""


def _documents(request: Request, services: Services) -> tuple[bytes, bytes]:
    """Return the OpenAPI document and the page, from a cache: they need no token, so a request must be cheap."""
    made: dict[str, tuple[bytes, bytes]] = request.app.state.documents
    server = request.scope["root_path"]
    if server not in made:
        document = make_document(request.app.routes, version=__version__, server=server)
        # the Host header says where it was read, but anybody can send one, and the page is kept for all
        address = (services.addresses.public or _UNKNOWN) + API_PREFIX
        made[server] = json.dumps(document).encode(), make_page(document, address).encode()
    return made[server]


async def openapi_document(request: Request, services: Services) -> Response:
    """Return the OpenAPI 3.1 document."""
    return Response(_documents(request, services)[0], media_type="application/json")


async def page(request: Request, services: Services) -> Response:
    """Return the OpenAPI document as a page."""
    return Response(_documents(request, services)[1], media_type="text/html")
