"""The connection to a cluster's API server: JSON in, JSON out.

The client library's configuration, TLS and credentials are used (`kubernetes.aio`: in-cluster tokens that
are refreshed, kubeconfigs with certificates and plugins), but not its generated models: what is sent and
read here is plain JSON, at a tenth of the cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from llmos.errors import Cause, Unavailable, UsageError
from llmos.kubernetes_messages import is_uncounted
from llmos_hub.failures import reason

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientTimeout

__all__ = ["APPLY_PATCH", "FIELD_MANAGER", "JSON_PATCH", "MERGE_PATCH", "APIError", "KubernetesAPI", "path_of"]

FIELD_MANAGER: Final = "llmos"
"""The field manager: the name under which the cluster records our fields."""
APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"

_CONNECT_TIMEOUT: Final = 5.0
_PAUSES: Final = (0.05, 0.2, 0.5, 1.0)  # seconds between attempts of what can be repeated
_MAX_LINE: Final = 2**22  # bytes of one watch event: an object of etcd's maximum size, with room for escapes
_BUFFER: Final = 2**16  # read buffer per connection in bytes; there are about twenty watches
_SERVICE_HOST: Final = "KUBERNETES_SERVICE_HOST"  # set in every pod


class APIError(Exception):
    """An error answer of the API server.

    Attributes
    ----------
    status
        The HTTP status.
    reason
        The reason for programs: ``NotFound``, ``Conflict``, ``Invalid``.
    message
        The message for people.
    details
        ``details`` of the ``Status`` object: name, kind, causes.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.reason = str(body.get("reason") or "")
        self.message = str(body.get("message") or f"HTTP {status}")
        self.details: Mapping[str, Any] = body.get("details") or {}
        super().__init__(f"{self.message} ({status} {self.reason})")

    @property
    def causes(self) -> list[Cause]:
        """The causes, each with the field it is about."""
        return [
            Cause(str(cause.get("field") or ""), str(cause.get("message") or ""))
            for cause in self.details.get("causes") or ()
        ]

    @property
    def passing(self) -> bool:
        """True if the server did nothing and may accept the same request in a moment."""
        return self.status == 429 or (self.status == 403 and is_uncounted(self.message))

    def because(self, reason: str) -> bool:
        """Return whether one of the causes has that reason, such as ``NamespaceTerminating``."""
        return any(cause.get("reason") == reason for cause in self.details.get("causes") or ())


def path_of(api_version: str, plural: str, namespace: str | None = None, name: str = "", *more: str) -> str:
    """Return the path of an object, or of all objects of a kind.

    >>> path_of("apps/v1", "deployments", "user-ada", "chat", "status")
    '/apis/apps/v1/namespaces/user-ada/deployments/chat/status'
    >>> path_of("v1", "nodes")
    '/api/v1/nodes'
    """
    parts = ["apis" if "/" in api_version else "api", *api_version.split("/")]
    if namespace:
        parts += ["namespaces", namespace]
    parts += [plural, *filter(None, (name, *more))]
    return "/" + "/".join(map(_quoted, parts))


@lru_cache(maxsize=8192)
def _quoted(part: str) -> str:
    return quote(part, safe="")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    params: Mapping[str, str] | None = None
    body: Any = None
    content_type: str = "application/json"


class KubernetesAPI:
    """A process's connections to the API server.

    Nothing is read or connected before the first call. ``KUBECONFIG`` selects the cluster if it is set;
    otherwise, in a pod, the pod's service account is used; otherwise ``~/.kube/config``.

    Parameters
    ----------
    timeout
        Seconds for a call, with its retries.
    kubeconfig
        A configuration file, instead of that named by the environment.
    """

    def __init__(self, *, timeout: float = 10.0, kubeconfig: Path | str | None = None) -> None:
        self.timeout = timeout
        self._kubeconfig = str(kubeconfig) if kubeconfig else None
        self._client: Any = None  # an ApiClient; its methods have no types
        self._opening = asyncio.Lock()
        self._closed = False
        self.calls: dict[str, int] = {}
        """Number of requests sent, by method, for tests and metrics."""

    # -- the connection

    async def _connected(self) -> Any:
        if self._closed:
            raise Unavailable("The connection to the cluster was closed.")
        if self._client is None:
            async with self._opening:
                self._client = self._client or await self._open()
        return self._client

    async def _open(self) -> Any:
        # imported here, since it takes 25 MB and only some processes connect to a cluster
        from urllib.request import getproxies_environment

        from kubernetes.aio import config as library
        from kubernetes.aio.client import ApiClient, Configuration

        # trust_env costs each request two calls in a thread, so it is set only if there is a proxy
        session = {"read_bufsize": _BUFFER, "trust_env": bool(getproxies_environment())}
        # no limit on connections: each watch holds one
        settings = Configuration(connection_pool_maxsize=0, client_session_kwargs=session)
        config: Any = library
        configured = self._kubeconfig or os.environ.get("KUBECONFIG")
        try:
            if not configured and os.environ.get(_SERVICE_HOST):
                config.load_incluster_config(client_configuration=settings)
            else:
                await config.load_kube_config(config_file=configured or None, client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise UsageError(
                f"No Kubernetes cluster can be reached: {_configuration(error)}. Set KUBECONFIG, or run this in a pod with a service account."
            ) from None
        return ApiClient(settings)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._client is not None:
            await self._client.close()
            self._client = None
            await asyncio.sleep(0)  # aborted transports close at the next turn of the event loop

    # -- calls

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the JSON of its answer.

        Reads are retried while the server can't be reached, and all requests while it answers that it is too
        busy, within the time limit.

        Parameters
        ----------
        method, path
            The HTTP method, and the path from `path_of`.
        params
            The query parameters.
        body
            The body, sent as JSON.
        content_type
            The media type; for ``PATCH`` one of the module's three constants.
        timeout
            Seconds in total; by default the connection's `timeout`.

        Raises
        ------
        APIError
            The server answered with an error.
        Unavailable
            It didn't answer in time; a write may or may not have been done.
        """
        from aiohttp import ClientError, ClientTimeout

        asked = _Request(method, path, params, body, content_type)
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        attempt = 0
        while True:
            left = deadline - time.monotonic()
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            try:
                return await self._once(asked, ClientTimeout(total=max(left, 0.05), sock_connect=_CONNECT_TIMEOUT))
            except APIError as error:
                if not error.passing and not (error.status == 503 and method == "GET"):
                    raise
                wait = float(error.details.get("retryAfterSeconds") or pause)
                failure = f"is too busy: {error.message}"
            except (ClientError, OSError, TimeoutError) as error:
                wait, failure = pause, _words(error)
                if method != "GET":
                    raise self._unavailable(failure) from None
            if time.monotonic() + wait >= deadline:
                raise self._unavailable(failure)
            await asyncio.sleep(wait)
            attempt += 1

    async def _once(self, asked: _Request, limits: ClientTimeout) -> dict[str, Any]:
        response = await self._send(asked, limits)
        async with response:
            raw = await response.read()
        data = _decoded(raw)
        if response.status >= 400:
            raise _error(response, data)
        return data

    async def _send(self, asked: _Request, limits: ClientTimeout) -> ClientResponse:
        client = await self._connected()
        self.calls[asked.method] = self.calls.get(asked.method, 0) + 1
        headers = {"Accept": "application/json", "Content-Type": asked.content_type, "User-Agent": FIELD_MANAGER}
        await client.update_params_for_auth(headers, [], ["BearerToken"], asked.path, asked.method, None)
        url = f"{client.configuration.host}{asked.path}{'?' + urlencode(asked.params) if asked.params else ''}"
        answer = await client.rest_client.request(
            asked.method, url, headers=headers, body=asked.body, _request_timeout=limits
        )
        response: ClientResponse = answer.response
        return response

    def _unavailable(self, why: str) -> Unavailable:
        host = self._client.configuration.host if self._client else "the cluster"
        return Unavailable(f"The API server at {host} {why}.")

    async def apply(
        self, obj: Mapping[str, Any], path: str, *, manager: str = FIELD_MANAGER, force: bool = True
    ) -> dict[str, Any]:
        """Apply an object server-side: create it, or set our fields in the existing one.

        Parameters
        ----------
        obj
            The complete wanted object, with ``apiVersion`` and ``kind``.
        path
            The object's path.
        manager
            The name of the field manager.
        force
            Take over fields that another manager has set.
        """
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self.request("PATCH", path, params=params, body=dict(obj), content_type=APPLY_PATCH)

    async def find(self, path: str) -> dict[str, Any] | None:
        """Read an object; None if it doesn't exist. Errors are those of `request`."""
        try:
            return await self.request("GET", path)
        except APIError as error:
            if error.status == 404:
                return None
            raise

    async def list_pages(
        self, path: str, *, params: Mapping[str, str] | None = None, page: int = 500
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a consistent list; the first one's ``resourceVersion`` is that of all.

        Raises
        ------
        APIError
            Status 410: the list has expired since it took too long; start again.
        """
        query = {**(params or {}), "limit": str(page)}
        while True:
            answer = await self.request("GET", path, params=query)
            yield answer
            token = answer["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    @contextlib.asynccontextmanager
    async def lines(
        self, path: str, *, params: Mapping[str, str] | None = None, idle: float | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Follow an answer of lines, such as a watch or a log.

        Parameters
        ----------
        path, params
            The path and query parameters.
        idle
            Seconds without a byte after which the connection counts as dead; None for no limit.

        Raises
        ------
        APIError
            The server answered with an error.
        Unavailable
            It can't be reached, or the connection broke; also from the iterator. A regular end only ends the iterator.
        """
        from aiohttp import ClientError, ClientTimeout

        limits = ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=idle)
        try:
            async with asyncio.timeout(self.timeout):
                response = await self._send(_Request("GET", path, params), limits)
        except (ClientError, OSError, TimeoutError) as error:
            raise self._unavailable(_words(error)) from None
        async with response:
            if response.status >= 400:
                raise _error(response, _decoded(await response.read()))
            try:
                yield self._read_lines(response)
            finally:
                _abort(response)

    async def watch(
        self, path: str, *, params: Mapping[str, str], version: str, seconds: int, idle: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Send one watch request, and yield its events, bookmarks included.

        Parameters
        ----------
        path, params
            The collection to watch, and its selectors.
        version
            The resourceVersion after which it begins.
        seconds
            Seconds after which the server ends it. It sends a bookmark just before.
        idle
            As for `lines`.

        Raises
        ------
        APIError
            The server answered with an error, or sent one instead of an event.
        Unavailable
            As for `lines`; or it broke off within an event.
        """
        query = {
            **params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        async with self.lines(path, params=query, idle=idle) as lines:
            async for line in lines:
                if not line.endswith(b"\n"):
                    raise Unavailable("The API server broke off.")
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "ERROR":
                    raise APIError(int(event["object"].get("code") or 500), event["object"])
                yield event

    async def _read_lines(self, response: ClientResponse) -> AsyncIterator[bytes]:
        from aiohttp import ClientError

        left = b""
        try:
            async for data in response.content.iter_any():
                *lines, left = (left + data).split(b"\n")
                for line in lines:
                    yield line + b"\n"
                if len(left) > _MAX_LINE:
                    raise self._unavailable(f"sent a line of over {_MAX_LINE} bytes")
            if left:
                yield left
        except (ClientError, OSError, TimeoutError, ValueError) as error:  # ValueError: a line over the limit
            raise self._unavailable(_words(error)) from None


def _abort(response: ClientResponse) -> None:
    """Abort the connection of an answer that is not read to its end.

    A regular end of TLS would wait for the other side, which continues to send.
    """
    connection = response.connection  # None if everything was read
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except ValueError:
        data = {"message": raw.decode("utf-8", "replace").strip()[:500]}  # a proxy's page, or /readyz
    return data if isinstance(data, dict) else {"message": str(data)[:500]}


def _error(response: ClientResponse, body: dict[str, Any]) -> APIError:
    """Return the error, with the Retry-After header in its details if the body doesn't contain it."""
    after = response.headers.get("Retry-After", "")
    if after.isdigit():
        body = {**body, "details": {"retryAfterSeconds": int(after), **(body.get("details") or {})}}
    return APIError(response.status, body)


def _words(error: BaseException) -> str:
    """Return the reason why there was no answer, as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    return f"can't be reached: {reason(error)}"


def _configuration(error: Exception) -> str:
    """Return the problem with the configuration; the library's own text is not used since it may quote its contents."""
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename}"
    return reason(error) if isinstance(error, OSError) else "there is no configuration, or it can't be read"
