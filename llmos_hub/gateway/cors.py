"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): only pages of listed origins may read answers.

Credentials are never allowed: the gateway reads no cookies, so there is nothing for a browser to add.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from llmos_hub.gateway.request import Headers, Request

__all__ = ["Cors"]

_NAMES: Final = re.compile(rb"[A-Za-z0-9_, -]{1,2048}")
_EXPOSED: Final = b"retry-after, x-request-id"
_REMEMBERED: Final = b"600"
"""Seconds for which a browser may cache the answer to a preflight request."""


class Cors:
    """The CORS policy of the gateway.

    Parameters
    ----------
    origins
        The allowed origins; ``*`` for all.
    methods
        The methods that a page may use.
    """

    def __init__(self, origins: frozenset[str], methods: Iterable[str]) -> None:
        self.origins = origins
        self._methods = ", ".join(methods).encode()

    async def answers(self, request: Request) -> bool:
        """Set the CORS headers of the answer; answer a preflight request, and return whether it was one."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return False
        request.cors = [(b"vary", b"origin")]
        if "*" not in self.origins and origin.decode("latin-1").lower() not in self.origins:
            return False
        request.cors += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]
        if request.method != "OPTIONS" or b"access-control-request-method" not in request.headers:
            return False
        wanted = request.headers.get(b"access-control-request-headers", b"")
        headers: Headers = [
            (b"access-control-allow-methods", self._methods),
            (b"access-control-allow-headers", wanted if _NAMES.fullmatch(wanted) else b"authorization, content-type"),
            (b"access-control-max-age", _REMEMBERED),
        ]
        await request.start(204, headers)
        await request.client.write(b"", more=False)
        return True
