"""A `Client` over ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from llmos_hub.gateway.request import ClientGone, Headers, Request, request_id
from llmos_hub.names import GATEWAY_PREFIX

__all__ = ["AsgiClient", "Receive", "Scope", "Send", "make_request"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ONCE: Final = frozenset({b"authorization", b"host", b"content-length", b"transfer-encoding", b"content-encoding"})


class AsgiClient:
    """A client at the other end of an ASGI server's connection."""

    __slots__ = ("_gone", "_receive", "_send", "_watcher")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._gone: Callable[[], None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self) -> tuple[bytes, bool]:
        """As `Client.receive`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def start(self, status: int, headers: Headers) -> None:
        """As `Client.start`."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool) -> None:
        """As `Client.write`; the server waits while the connection's buffer is full."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def watch(self, gone: Callable[[], None]) -> None:
        """As `Client.watch`: after the body, ASGI's ``receive`` returns only when the client disconnects."""
        self._gone = gone
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def unwatch(self) -> None:
        """As `Client.unwatch`."""
        self._gone = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._gone is not None:
            self._gone()


def make_request(scope: Scope, receive: Receive, send: Send, now: float) -> Request:
    """Return the request of an ASGI scope. Of a repeated header the last one counts, unless it must not be repeated."""
    path: str = scope["path"]
    through_hub = path.startswith(GATEWAY_PREFIX + "/")
    if through_hub:
        path = path[len(GATEWAY_PREFIX) :]
    headers = dict(scope["headers"])
    return Request(
        method=scope["method"],
        path=path,
        query=scope["query_string"],
        headers=headers,
        id=request_id(headers),
        client=AsgiClient(receive, send),
        began=now,
        through_hub=through_hub,
        repeated="" if len(headers) == len(scope["headers"]) else _repeated(scope["headers"]),
    )


def _repeated(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the name of a repeated header that must not be repeated, since readers differ in which one they use.

    Empty if there is no such header.
    """
    names = [name for name, _ in headers if name in _ONCE]
    return next((name.decode() for name in names if names.count(name) > 1), "")
