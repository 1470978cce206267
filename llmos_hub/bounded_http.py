"""uvicorn, bounded: by itself it takes a head of any size, waits for one for ever, and takes any number of connections.

For every server of the platform that people reach; the gateway's adds to it what it does while it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar, cast, overload

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmos.errors import BadRequest, LLMOSError, PayloadTooLarge

__all__ = ["BoundedProtocol", "BoundedServer", "Bounds", "give_up_silent_peers", "make_protocol"]

Render = Callable[[LLMOSError], tuple[str, bytes]]
"""Media type and body of an answer to what is no request."""

_SILENT_PEER: Final = 120
_SPARE_FILES: Final = 128
"""File descriptors that a process needs beside its connections."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a client may take. Times are in seconds, sizes in bytes.

    Attributes
    ----------
    max_connections
        At once, idle ones included; fewer where the process may not open as many files. When there are more, the one that
        has been without a request for longest is closed, so that those who hold many idle ones keep nobody out.
    max_head
        Request line and headers.
    head_timeout
        For them to arrive.
    """

    max_connections: int = 2048
    max_head: int = 64 * 1024
    head_timeout: float = 30.0

    def connections(self) -> int:
        """`max_connections`, or what the process's limit of open files leaves, which is raised where that is possible."""
        wanted = self.max_connections + _SPARE_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.max_connections if soft < 0 else min(self.max_connections, max(16, soft - _SPARE_FILES))


def give_up_silent_peers(listener: socket.socket) -> None:
    """Have connections given up (they inherit the options) whose machine is gone, or which take nothing for two minutes."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 60),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, _SILENT_PEER * 1000),
    ):
        with contextlib.suppress(OSError):  # a sandboxed kernel may not know one
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


class _TooLarge(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """One connection; made for a server by `make_protocol`."""

    bounds: ClassVar[Bounds]
    render: ClassVar[Render]
    most: ClassVar[int]
    refusal_headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()
    """Headers of an answer to what is no request, beside those of HTTP itself."""
    idle: ClassVar[OrderedDict[BoundedProtocol, None]]
    """Those without a request, or with a part of a head, the longest first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unproductive = 0
        """Bytes since the last that were of use: of a head, a trailer or between chunks."""
        self._in_message = False
        self._in_head = True
        self._since = self.loop.time()
        self._too_large = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room where there are too many: who asks for nothing goes first."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.most:
            if not self.idle:
                self.transport.abort()
                return
            self.idle.popitem(last=False)[0].make_room()
        self.idle[self] = None

    def make_room(self) -> None:
        """Close; with an answer that nobody takes, at once."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget."""
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The answer is written; uvicorn begins the next one where the client has asked already."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.idle[self] = None

    def data_received(self, data: bytes) -> None:
        """Count."""
        self._unproductive += len(data)
        super().data_received(data)
        if self._unproductive > self.bounds.max_head and self._in_message and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_message = self._in_head = True
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete; one read may have brought more than it."""
        if self._unproductive > self.bounds.max_head:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self.bounds.max_head:
                self._too_large = True
                raise _TooLarge
        self._unproductive = 0
        self._in_head = False
        self.idle.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._unproductive = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unproductive = 0
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse what is no request, in the server's own format, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        if self._too_large:
            line, error = b"431 Request Header Fields Too Large", self._head_too_large()
        else:
            line, error = b"400 Bad Request", BadRequest("This is no HTTP/1.1 request.")
        media_type, body = type(self).render(error)
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
            % (
                line,
                media_type.encode(),
                len(body),
                b"".join(b"%s: %s\r\n" % header for header in self.refusal_headers),
                body,
            )
        )
        self.transport.close()

    def _head_too_large(self) -> LLMOSError:
        return PayloadTooLarge(f"The request's headers are over {self.bounds.max_head} bytes.")

    def overdue(self, now: float) -> bool:
        """Whether the client has begun something and not gone on with it, while nobody here waits for it."""
        if self.transport is None or now - self._since <= self.bounds.head_timeout:
            return False
        if self._in_head:
            # a new connection, or a head of which a part has come; idle ones between requests are uvicorn's
            return self._in_message or self.cycle is None
        return self._in_message and self.cycle.response_complete


P = TypeVar("P", bound=BoundedProtocol)


@overload
def make_protocol(bounds: Bounds, render: Render) -> type[BoundedProtocol]: ...
@overload
def make_protocol(bounds: Bounds, render: Render, base: type[P]) -> type[P]: ...
def make_protocol(bounds: Bounds, render: Render, base: type[BoundedProtocol] = BoundedProtocol) -> Any:
    """Return the protocol of one server, for ``uvicorn.Config(http=…)``: a class of its own, below `base`."""
    attributes = {"bounds": bounds, "render": staticmethod(render), "most": bounds.connections(), "idle": OrderedDict()}
    return type("ServerProtocol", (base,), attributes)


class BoundedServer(uvicorn.Server):
    """A server whose protocol is one of `make_protocol`."""

    async def on_tick(self, counter: int) -> bool:
        """Close what is overdue, once a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol) and connection.overdue(now):
                    connection.transport.abort()
        return await super().on_tick(counter)
