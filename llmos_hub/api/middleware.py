"""The middleware of every request: an id, a log line, metrics, and rendered errors."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmos.errors import Internal, LLMOSError, MethodNotAllowed, Unauthorized
from llmos_hub.api.endpoints import APIEndpoint
from llmos_hub.api.metrics import APIMetrics
from llmos_hub.names import API_PREFIX, HEADER_REQUEST_ID

__all__ = ["HEADERS", "RequestMiddleware"]

logger = logging.getLogger("llmos_hub.api")

_SANE_ID: Final = re.compile(r"^[A-Za-z0-9._-]{4,64}$")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEADERS: Final = {
    # the API shares the Hub's origin, so a browser must never interpret users' content as a page
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
"""Headers of every answer."""


class RequestMiddleware:
    """The middleware around the whole application, which serves requests with and without the path under the Hub.

    Parameters
    ----------
    app
        The application.
    metrics
        The metrics that count requests.
    """

    def __init__(self, app: ASGIApp, *, metrics: APIMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with an error if it fails."""
        path: str = scope["path"]
        if path == API_PREFIX:
            scope["path"] = path = f"{path}/"
        if path.startswith(f"{API_PREFIX}/"):
            scope["root_path"] = API_PREFIX
        await _Exchange(self._app, self._metrics, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, metrics: APIMetrics, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._metrics, self._scope, self._receive, self._send = app, metrics, scope, receive, send
        given = Headers(scope=scope).get(HEADER_REQUEST_ID, "")
        self._id = given if _SANE_ID.fullmatch(given) else secrets.token_hex(6)
        scope["llmos.request_id"] = self._id
        self._status = 0
        self._begun_at = time.perf_counter()
        method = scope["method"]
        self._method = method if method in _METHODS else "OTHER"

    @property
    def _route(self) -> str:
        endpoint = self._scope.get("endpoint")
        return endpoint.template if isinstance(endpoint, APIEndpoint) else "none"

    async def run(self) -> None:
        """Answer the request."""
        try:
            await self._app(self._scope, self._receive, self._answer)
        except LLMOSError as error:
            await self._refuse(error)
        except Exception:
            logger.exception("Request %s to %s failed", self._id, self._route)
            if self._status:
                raise  # too late for an error: cutting the connection shows that the answer is incomplete
            await self._refuse(Internal("The platform made a mistake. The log knows more under the request's id."))
        finally:
            logger.info(
                "req=%s caller=%s %s %s (%s) %d %.1f ms",
                self._id,
                _printable(self._scope.get("llmos.caller", "-")),
                self._method,
                _printable(self._scope["path"]),
                self._route,
                self._status,
                (time.perf_counter() - self._begun_at) * 1000,
            )

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[HEADER_REQUEST_ID] = self._id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            seconds = time.perf_counter() - self._begun_at
            self._metrics.answered(self._route, self._method, self._status, seconds)
        await self._send(message)

    async def _refuse(self, error: LLMOSError) -> None:
        error.request_id = self._id
        headers = {}
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = "Bearer"
        endpoint = self._scope.get("endpoint")
        if isinstance(error, MethodNotAllowed) and isinstance(endpoint, APIEndpoint):
            headers["allow"] = ", ".join(sorted(endpoint.operations))
        if error.status in {429, 503}:
            headers["retry-after"] = "1"
        if error.status >= 500:
            logger.warning("Request %s to %s: %s", self._id, self._route, error, exc_info=error.__cause__)
        response = JSONResponse(error.to_status(), status_code=error.status, headers=headers)
        await response(self._scope, self._receive, self._answer)


def _printable(path: str) -> str:
    """Return the path without blanks and control characters, for one line of a log."""
    return "".join(c if c.isprintable() and c != " " else "?" for c in path[:200])
