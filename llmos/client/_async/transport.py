"""HTTP requests to one service: bearer token, timeouts, retries and error messages."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from llmos.client.lines import LineSplitter
from llmos.client.requests import (
    BYTES,
    HEADER_REQUEST_ID,
    JSON,
    Service,
    answer_error,
    from_hub,
    is_loopback,
)
from llmos.client.timing import asleep
from llmos.errors import LLMOSError, TooManyRequests, Unavailable

__all__ = ["AsyncTransport", "response_lines"]

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_RETRY_DELAYS = (0.1, 0.3, 0.8)
"""Seconds before each retry; the last for all further ones."""
_TO_START = 4
"""Factor by which the delays between retries are longer for a service that is being started: five seconds in all."""


class _NotYet(Exception):
    """The Hub answered instead of the service, so that the request never reached it."""


class AsyncTransport:
    """HTTP requests to one service of the platform.

    Parameters
    ----------
    service
        The service to call.
    token
        Bearer token; sent in each request's headers, never shown.
    timeout
        Maximum time in seconds for a response.
    retries
        How often a request is repeated when there is no response. A request that was never sent is always
        repeated; one that may have arrived only if it is safe to repeat.
    """

    def __init__(self, service: Service, token: str, *, timeout: float = 30.0, retries: int = 3) -> None:
        self.service = service
        self._timeout = timeout
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=service.url,
            headers={"authorization": f"Bearer {token}", "user-agent": "llmos"},
            # a proxy from the environment can't reach this machine's own addresses
            trust_env=not is_loopback(service.url),
            # without TLS there is nothing to verify, and reading the certificates costs 50 ms
            verify=service.url.startswith("https:"),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service.noun} {self.service.url}>"

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        content_type: str = JSON,
        repeatable: bool = True,
    ) -> Any:
        """Send a request and return the decoded JSON of the response.

        Parameters
        ----------
        method, path, params, data, content_type
            The request; `data` is sent as JSON.
        repeatable
            Whether the request may be sent again although it may have arrived.

        Raises
        ------
        Unavailable
            There was no response after all retries.
        LLMOSError
            The response is an error.
        """
        response = await self._send(
            method,
            path,
            params=params,
            data=data,
            content_type=content_type,
            read_timeout=self._timeout,
            repeatable=repeatable,
        )
        try:
            return response.json()
        except ValueError:
            raise self.service.strange(response.status_code) from None

    async def send_bytes(self, method: str, path: str, content: bytes, *, params: Mapping[str, str]) -> Any:
        """Send bytes, which may be sent again although they may have arrived, and return the decoded JSON of the response.

        Raises
        ------
        Unavailable, LLMOSError
            As for `request`.
        """
        response = await self._send(
            method, path, params=params, data=content, content_type=BYTES, read_timeout=max(self._timeout, 60.0)
        )
        return response.json()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        read_timeout: float | None = None,
        quiet_is_error: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and stream the response; the connection is closed at the end of the block.

        Parameters
        ----------
        method, path, params, data
            The request; repeated only if it was never sent.
        read_timeout
            Maximum time in seconds between two pieces; None for no limit.
        quiet_is_error
            Whether exceeding `read_timeout` raises `Unavailable` instead of ``TimeoutError``.

        Raises
        ------
        TimeoutError
            Nothing came for `read_timeout` seconds and `quiet_is_error` is false.
        Unavailable
            There was no response, or the connection was closed early.
        LLMOSError
            The response is an error.
        """
        response = await self._send(method, path, params=params, data=data, read_timeout=read_timeout, stream=True)
        try:
            yield response
        except httpx.RequestError as error:
            if isinstance(error, httpx.ReadTimeout) and not quiet_is_error:
                raise TimeoutError from None
            raise self._in_words(error, read_timeout or self._timeout) from None
        finally:
            await response.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        data: Any,
        read_timeout: float | None,
        content_type: str = JSON,
        stream: bool = False,
        repeatable: bool = True,
    ) -> httpx.Response:
        """Send a request, as often as it may be repeated, until it succeeds."""
        headers, content = {"accept": "*/*" if stream else "application/json"}, None
        if data is not None:
            headers["content-type"] = content_type
            content = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
        timeout = httpx.Timeout(self._timeout, connect=5.0, pool=5.0, read=read_timeout)
        waits = [_RETRY_DELAYS[min(n, len(_RETRY_DELAYS) - 1)] for n in range(self._retries)]
        while True:
            headers[HEADER_REQUEST_ID] = secrets.token_hex(8)  # in the logs of all parts of the platform
            request = self._http.build_request(
                method, path, params=params, content=content, headers=headers, timeout=timeout
            )
            try:
                response = await self._http.send(request, stream=stream)
                await self._check(response)
            except (httpx.RequestError, LLMOSError, _NotYet) as error:
                if not waits or not _may_repeat(error, stream=stream, repeatable=repeatable):
                    raise self._in_words(error, read_timeout or self._timeout) from None
                await asleep(_pause(error, waits.pop(0)))
            else:
                return response

    async def _check(self, response: httpx.Response) -> None:
        """Raise the error that a response stands for, and close it."""
        if response.is_success:
            return
        try:
            await response.aread()
        finally:
            await response.aclose()
        if from_hub(response.status_code, response.headers):
            raise _NotYet
        raise answer_error(self.service, response.status_code, response.content, response.headers)

    def _in_words(self, error: Exception, seconds: float) -> LLMOSError:
        if isinstance(error, _NotYet):
            return self.service.starting()
        if isinstance(error, LLMOSError):
            return error
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            return self.service.away()
        if isinstance(error, httpx.TimeoutException):
            return self.service.slow(seconds)
        return self.service.broke_off()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


async def response_lines(response: httpx.Response) -> AsyncGenerator[str]:
    """Yield the lines of a streamed response."""
    # not httpx's aiter_lines, which also splits at U+2028 and similar characters
    splitter = LineSplitter()
    async for data in response.aiter_bytes():
        for line in splitter.feed(data):
            yield line
    for line in splitter.rest():
        yield line


def _may_repeat(error: Exception, *, stream: bool, repeatable: bool) -> bool:
    if isinstance(error, (*_NEVER_SENT, _NotYet)):
        return True
    if stream or isinstance(error, httpx.TimeoutException):
        return False  # a stream may have begun, or the caller has waited long enough
    # a request that was refused by a rate limit had no effect
    return isinstance(error, TooManyRequests) or (repeatable and isinstance(error, httpx.RequestError | Unavailable))


def _pause(error: Exception, pause: float) -> float:
    """Return the seconds until the next try: rate limits count by the second, and a service takes seconds to start."""
    if isinstance(error, TooManyRequests):
        return max(pause, 1.0)
    return pause * _TO_START if isinstance(error, _NotYet | Unavailable) else pause
