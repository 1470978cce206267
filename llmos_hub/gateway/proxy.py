"""Forwarding of one request to a replica and of its answer to the client: retries, streaming, cancelling.

Bytes are passed on as they come, through the taps of the request, if it has any. Only the head of an answer is parsed;
of its body, only, when an error occurs, whether the last server-sent event was complete.
"""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import Final

from llmos.errors import LLMOSError, ModelNotReady, UpstreamFailed
from llmos_hub.gateway.connection import (
    Broken,
    ConnectFailed,
    Connection,
    Hangs,
    Head,
    Lost,
    TimedOut,
    UpstreamError,
)
from llmos_hub.gateway.engine_errors import LARGEST_ERROR, as_client_error
from llmos_hub.gateway.heads import EVENT_STREAM, EngineRequest, request_head, response_headers
from llmos_hub.gateway.request import ClientGone, Request
from llmos_hub.gateway.routing import ServedModel
from llmos_hub.gateway.upstream import UpstreamReplica

__all__ = ["Truncated", "forward"]

log = logging.getLogger(__name__)

_COUNTING: Final = 5.0
"""Timeout in seconds for counting the tokens of a text, to name the one that an error is about."""
_COUNT_HEAD: Final = (
    b"POST /tokenize HTTP/1.1\r\nhost: llmos\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
_MAX_DELIVERED: Final = 2
"""Maximum number of replicas that get the same request. One that died while it handled the request may have died
of it; such a request must not go to all replicas."""
_RETRY_HANGING: Final = 20
"""Seconds after which to retry when an engine hangs: by then it may have been restarted."""


class Truncated(Exception):
    """The answer can't be completed: the client's connection must be closed, so that it doesn't look complete."""


async def forward(request: Request, model: ServedModel, outgoing: EngineRequest) -> None:
    """Send a request to one of the model's replicas and pass its answer back to the client.

    Parameters
    ----------
    request
        The client's request, which gets the answer.
    outgoing
        The request for the engine.

    Raises
    ------
    UpstreamFailed
        No replica answered.
    ClientGone
        The client left; the engine's connection is closed.
    Truncated
        The engine broke off in the middle of an answer that can't be marked as broken.
    """
    exchange = _Forwarding(request, model, outgoing)
    request.client.watch(exchange.client_gone)
    model.metrics.outstanding += 1
    try:
        await exchange.run()
    finally:
        model.metrics.outstanding -= 1
        request.client.unwatch()


class _Forwarding:
    """One request on its way through one or more replicas."""

    __slots__ = ("_connection", "_gone", "_head", "_loop", "_model", "_outgoing", "_request")

    def __init__(self, request: Request, model: ServedModel, outgoing: EngineRequest) -> None:
        self._request = request
        self._model = model
        self._outgoing = outgoing
        self._head = request_head(outgoing, request, model.authorization)
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._gone = False

    def client_gone(self) -> None:
        """Close the connection to the engine, which then stops computing; whoever waits for the connection is woken."""
        self._gone = True
        if self._connection is not None:
            self._connection.abort(Broken("the client left"))

    async def run(self) -> None:
        """Try replicas until one answers."""
        model = self._model
        tried: list[UpstreamReplica] = []
        delivered = 0
        failure: UpstreamError = ConnectFailed("it has no replica")
        while delivered < _MAX_DELIVERED:
            replica = model.balancer.choose(model.replicas, tried, self._loop.time(), self._outgoing.affinity)
            if replica is None:
                break
            if replica.watch.hangs:
                failure = Hangs("it hangs")
                tried.append(replica)
                continue
            replica.outstanding += 1
            try:
                head = await self._ask(replica)
                await self._pass_back(replica, head)
            except UpstreamError as error:
                failure = error
            else:
                return
            finally:
                replica.outstanding -= 1
                if self._connection is not None:
                    self._connection.release()
                    self._connection = None
            if self._gone:
                raise ClientGone
            if isinstance(failure, TimedOut):
                break
            delivered += isinstance(failure, Broken)
            tried.append(replica)
            model.metrics.retries += 1
            message = "req=%s model=%s replica=%s failed before its first byte: %s"
            log.warning(message, self._request.id, model.key, replica.id, failure)
        if isinstance(failure, Hangs):
            self._request.retry_after = _RETRY_HANGING
            raise _hangs(model)
        raise _failed(model, failure)

    async def _ask(self, replica: UpstreamReplica) -> Head:
        """Send the request and wait for the answer's head.

        A pooled connection that turns out to be closed says nothing about the replica: a new one is tried. If that
        is refused, the replica died, perhaps of this request. If the other side no longer acknowledges anything,
        its machine is lost.
        """
        pooled = self._connection = replica.pooled()
        if pooled is not None:
            try:
                pooled.send(self._head, self._outgoing.body)
                return await pooled.head()
            except Broken as error:
                if pooled.answered or self._gone or isinstance(error, (Lost, Hangs)):
                    raise
                pooled.abort()
                self._connection = None
        try:
            connection = await replica.connect()
        except ConnectFailed as error:
            if pooled is not None:
                raise Broken(f"it closed the connection, and now: {error}") from None
            raise
        self._connection = connection
        if self._gone:
            raise Broken("the client left")
        connection.send(self._head, self._outgoing.body)
        return await connection.head()

    async def _pass_back(self, replica: UpstreamReplica, head: Head) -> None:
        """Stream the answer. From here on nothing is retried: an error ends the answer."""
        request, connection = self._request, self._connection
        assert connection is not None
        request.first_byte = self._loop.time()
        self._model.metrics.first_byte.observe(request.first_byte - request.began)
        write = request.client.write
        data, last = b"", False
        if head.status >= 500:
            data, last = await self._error(replica)
        taps = self._outgoing.taps if b"content-encoding" not in head.headers else ()
        whole = not taps or not any(tap.changes for tap in taps)
        await request.start(head.status, response_headers(head, whole=whole))
        try:
            if data or last:
                request.sent += len(data)
                await write(data, more=not last)
            while not last:
                data, last = await connection.read()
                for tap in taps:
                    data = tap.feed(data, last=last)
                request.sent += len(data)
                await write(data, more=not last)
        except UpstreamError as error:
            if self._gone:
                raise ClientGone from None
            message = "req=%s model=%s replica=%s broke off in its answer: %s"
            log.warning(message, request.id, self._model.key, replica.id, error)
            await _break_off(request, self._model, head, data, error)

    async def _error(self, replica: UpstreamReplica) -> tuple[bytes, bool]:
        """Return the engine's error as far as it was read, and whether that is all of it.

        Raises
        ------
        BadRequest
            It is the client's error.
        """
        assert self._connection is not None
        data, last = b"", False
        while not last and len(data) < LARGEST_ERROR:
            piece, last = await self._connection.read()
            data += piece
        if last:
            error = await as_client_error(self._model.name, data, self._outgoing.body, partial(_tokens, replica))
            if error is not None:
                raise error
        return data, last


async def _tokens(replica: UpstreamReplica, text: str) -> int | None:
    """Return the number of tokens that llama.cpp makes of a text; None if unknown."""
    body = json.dumps({"content": text, "add_special": True}).encode()
    try:
        async with asyncio.timeout(_COUNTING):
            connection = await replica.connect()
            try:
                connection.send(_COUNT_HEAD % len(body), body)
                head = await connection.head()
                answer, last = b"", False
                while not last:
                    data, last = await connection.read()
                    answer += data
            finally:
                connection.release()
        return len(json.loads(answer)["tokens"]) if head.status == 200 else None
    except (UpstreamError, TimeoutError, ValueError, KeyError, TypeError):
        return None


def _hangs(model: ServedModel) -> ModelNotReady:
    return ModelNotReady(
        f'Model "{model.name}" hangs: its engine accepts requests, but answers nothing, not even health checks. It is '
        f"restarted if that continues; try again in a minute. For details: llmos describe {model.name}"
    )


def _failed(model: ServedModel, error: UpstreamError) -> UpstreamFailed:
    return UpstreamFailed(
        f'Model "{model.name}" did not answer: {error}. Try again; if it continues, see: llmos describe {model.name}'
    )


async def _break_off(request: Request, model: ServedModel, head: Head, last: bytes, error: UpstreamError) -> None:
    """End an answer that the engine left incomplete: with an error event if the client can tell it from the answer."""
    between_events = request.sent == 0 or last.endswith((b"\n\n", b"\r\n\r\n"))
    events = head.headers.get(b"content-type", b"").startswith(EVENT_STREAM) and b"content-length" not in head.headers
    if not events or not between_events:
        raise Truncated(str(error))
    failure: LLMOSError = UpstreamFailed(
        f'Model "{model.name}" broke off in the middle of its answer: {error}. Ask again.', request_id=request.id
    )
    event = b"data: " + json.dumps(failure.to_openai()).encode() + b"\n\n"
    request.sent += len(event)
    await request.client.write(event, more=False)
