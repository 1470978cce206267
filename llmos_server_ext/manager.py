"""The relay, independent of tornado: it strips a request of its credentials and forwards it with the server's own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

import httpx

from llmos.errors import NotFound, PayloadTooLarge, Unavailable

__all__ = ["Relay", "RelayRequest"]

PASSED_UP = frozenset({"accept", "content-type", "x-request-id"})
"""Request headers that are forwarded. Cookies, Authorization and the XSRF token are not."""
PASSED_DOWN = frozenset({"content-type", "x-request-id", "retry-after", "cache-control"})
"""Response headers that are returned."""
_PATH = re.compile(r"[\w.~%:@/ -]{1,1024}")


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """A page's request.

    Attributes
    ----------
    target
        ``apis`` for the API, ``v1`` for the models.
    path
        The rest of the path, still encoded.
    query
        The raw query; credentials of this server in it are removed.
    """

    method: str
    target: Literal["apis", "v1"]
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _clean_path(path: str) -> str:
    """Return the path if it stays below its target, however often it is decoded.

    Raises
    ------
    NotFound
        It leaves its target, or has characters that no route has.
    """
    decoded = unquote(unquote(path))
    if not _PATH.fullmatch(path) or any(part in ("..", ".", "") for part in decoded.rstrip("/").split("/")):
        raise NotFound("There is no such path under /llmos/.")
    return path


def _clean_query(query: str) -> str:
    """Return the query without parameters meant only for this server; EventSource sends its XSRF token there."""
    return "&".join(part for part in query.split("&") if part.split("=")[0] not in ("_xsrf", "token"))


class Relay:
    """A client that sends requests to the API and the gateway with this server's own tokens.

    Parameters
    ----------
    environ
        The variables that the spawner sets: ``LLMOS_URL`` (unset if the server wasn't started by LLMOS) with
        ``JUPYTERHUB_API_TOKEN``, the server's own, and ``OPENAI_BASE_URL`` with ``OPENAI_API_KEY``, its invoke token.
    max_body_bytes
        Maximum size of a body in bytes.
    connect_timeout, read_timeout
        Timeouts in seconds.
    """

    def __init__(
        self, environ: Mapping[str, str], *, max_body_bytes: int, connect_timeout: float, read_timeout: float
    ) -> None:
        self.api_url = environ.get("LLMOS_URL", "").rstrip("/")
        self.models_url = environ.get("OPENAI_BASE_URL", "").rstrip("/")
        self.max_body_bytes = max_body_bytes
        self._tokens = {"apis": environ.get("JUPYTERHUB_API_TOKEN", ""), "v1": environ.get("OPENAI_API_KEY", "")}
        self._timeout = httpx.Timeout(read_timeout, connect=connect_timeout, write=60.0, pool=connect_timeout)
        self._client: httpx.AsyncClient | None = None

    def _url(self, request: RelayRequest) -> str:
        base = f"{self.api_url}/apis" if request.target == "apis" else self.models_url
        if not base.startswith("http"):
            raise Unavailable(
                "This server was not started by LLMOS, so it has no platform to talk to. "
                "Start one with: make up, and open the server from its Hub."
            )
        query = _clean_query(request.query)
        return f"{base}/{_clean_path(request.path)}" + (f"?{query}" if query else "")

    @asynccontextmanager
    async def send(self, request: RelayRequest) -> AsyncIterator[httpx.Response]:
        """Forward a request and yield the response; the caller streams its body.

        Raises
        ------
        NotFound
            The path leaves its target.
        PayloadTooLarge
            The body is larger than the limit.
        Unavailable
            The service doesn't respond.
        """
        url = self._url(request)
        if len(request.body) > self.max_body_bytes:
            raise PayloadTooLarge(f"The body has {len(request.body):,} bytes; {self.max_body_bytes:,} are allowed.")
        headers = {name: value for name, value in request.headers.items() if name.lower() in PASSED_UP}
        headers["authorization"] = f"Bearer {self._tokens[request.target]}"
        if self._client is None:  # created here, in the running event loop
            self._client = httpx.AsyncClient(timeout=self._timeout, trust_env=False, follow_redirects=False)
        built = self._client.build_request(request.method, url, headers=headers, content=request.body)
        try:
            response = await self._client.send(built, stream=True)
        except httpx.HTTPError as error:
            raise Unavailable(self._down(request.target, error)) from None
        try:
            yield response
        finally:
            await response.aclose()

    def _down(self, target: str, error: httpx.HTTPError) -> str:
        what = f"API at {self.api_url}" if target == "apis" else f"gateway at {self.models_url}"
        how = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "does not answer"
        return f"The {what} {how}. Is LLMOS running? Look with: llmos status"

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None
