# Made from ../_async/transport.py by `make generate`; don't edit it.
"""HTTP requests to one service: bearer token, timeouts, retries and error messages."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from llmos.client.lines import LineSplitter
from llmos.client.requests import (
    HEADER_REQUEST_ID,
    Body,
    Service,
    answer_error,
    delays,
    from_hub,
    is_loopback,
    new_request_id,
)
from llmos.client.timing import sleep
from llmos.errors import LLMOSError, TooManyRequests, Unavailable

__all__ = ["Transport", "response_lines"]

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


_TO_START = 4
"""Factor by which the delays between retries are longer for a service that is being started: five seconds in all."""


class _NotYet(Exception):
    """The Hub answered instead of the service, so that the request never reached it.

    Attributes
    ----------
    error
        The error to raise if this doesn't change.
    """

    def __init__(self, error: LLMOSError) -> None:
        super().__init__(error.message)
        self.error = error


class Transport:
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
        self._http = httpx.Client(
            base_url=service.url,
            headers={"authorization": f"Bearer {token}", "user-agent": "llmos"},
            timeout=httpx.Timeout(timeout, connect=5.0, pool=5.0),
            # a proxy from the environment can't reach this machine's own addresses
            trust_env=not is_loopback(service.url),
            # without TLS there is nothing to verify, and reading the certificates costs 50 ms
            verify=service.url.startswith("https:"),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service.noun} {self.service.url}>"

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Send a request and return the decoded JSON of the response.

        Parameters
        ----------
        method, path, params, body
            The request.
        repeatable
            Whether the request may be sent again although it may have arrived.

        Raises
        ------
        Unavailable
            There was no response after all retries.
        LLMOSError
            The response is an error.
        """
        waits = delays(self._retries)
        while True:
            try:
                response = self._send_once(method, path, params, body)
            except (httpx.RequestError, LLMOSError, _NotYet) as error:
                if not waits or not _may_repeat(error, repeatable=repeatable):
                    raise self._in_words(error, self._timeout) from None
                sleep(_pause(error, waits.pop(0)))
                continue
            try:
                return response.json()
            except ValueError:
                raise self.service.strange(response.status_code) from None

    def _send_once(
        self, method: str, path: str, params: Mapping[str, str] | None, body: Body | None
    ) -> httpx.Response:
        headers = {HEADER_REQUEST_ID: new_request_id(), "accept": "application/json"}
        if body is not None:
            headers["content-type"] = body.type
        content = body.content if body is not None else None
        response = self._http.request(method, path, params=params, content=content, headers=headers)
        if response.is_success:
            return response
        self._check_there(response)
        raise self._answer_error(response)

    def _check_there(self, response: httpx.Response) -> None:
        if from_hub(response.status_code, response.headers):
            raise _NotYet(self.service.starting())

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        read_timeout: float | None = None,
        quiet_is_error: bool = True,
    ) -> Iterator[httpx.Response]:
        """Send a request and stream the response; the connection is closed at the end of the block.

        Parameters
        ----------
        method, path, params, body
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
        headers = {HEADER_REQUEST_ID: new_request_id()}
        if body is not None:
            headers["content-type"] = body.type
        timeout = httpx.Timeout(self._timeout, connect=5.0, pool=5.0, read=read_timeout)
        waits = delays(self._retries)
        while True:
            request = self._http.build_request(
                method,
                path,
                params=params,
                content=body.content if body is not None else None,
                headers=headers,
                timeout=timeout,
            )
            try:
                response = self._http.send(request, stream=True)
                if from_hub(response.status_code, response.headers):
                    response.close()
                self._check_there(response)
            except (httpx.RequestError, _NotYet) as error:
                if not waits or not isinstance(error, (*_NEVER_SENT, _NotYet)):
                    raise self._in_words(error, read_timeout or self._timeout) from None
                sleep(_pause(error, waits.pop(0)))
                continue
            break
        try:
            if not response.is_success:
                response.read()
                raise self._answer_error(response)
            yield response
        except httpx.RequestError as error:
            if isinstance(error, httpx.ReadTimeout) and not quiet_is_error:
                raise TimeoutError from None
            raise self._in_words(error, read_timeout or self._timeout) from None
        finally:
            response.close()

    def _answer_error(self, response: httpx.Response) -> LLMOSError:
        request_id = response.headers.get(HEADER_REQUEST_ID)
        return answer_error(self.service, response.status_code, response.content, request_id, response.headers)

    def _in_words(self, error: Exception, seconds: float) -> LLMOSError:
        if isinstance(error, _NotYet):
            return error.error
        if isinstance(error, LLMOSError):
            return error
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            return self.service.away()
        if isinstance(error, httpx.TimeoutException):
            return self.service.slow(seconds)
        return self.service.broke_off()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def response_lines(response: httpx.Response) -> Generator[str]:
    """Yield the lines of a streamed response."""
    # not httpx's aiter_lines, which also splits at U+2028 and similar characters
    splitter = LineSplitter()
    for data in response.iter_bytes():
        for line in splitter.feed(data):
            yield line
    for line in splitter.rest():
        yield line


def _may_repeat(error: Exception, *, repeatable: bool) -> bool:
    if isinstance(error, (*_NEVER_SENT, _NotYet)):
        return True
    if isinstance(error, httpx.TimeoutException):
        return False  # the caller has waited long enough
    # a request that was refused by a rate limit had no effect
    return isinstance(error, TooManyRequests) or (repeatable and isinstance(error, httpx.RequestError | Unavailable))


def _pause(error: Exception, pause: float) -> float:
    """Return the seconds until the next try: rate limits count by the second, and a service takes seconds to start."""
    if isinstance(error, TooManyRequests):
        return max(pause, 1.0)
    return pause * _TO_START if isinstance(error, _NotYet | Unavailable) else pause
