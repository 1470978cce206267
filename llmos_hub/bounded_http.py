"""A uvicorn server with limits, as uvicorn itself limits neither the size nor the time of a head, nor connections.

Used by every server of the platform that users reach; the gateway's extends it with its behaviour at shutdown. Beside
it, what their processes do at their start: listen, log, and wait for the signal to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmos.errors import BadRequest, LLMOSError, PayloadTooLarge

__all__ = [
    "BoundedProtocol",
    "BoundedServer",
    "Bounds",
    "allow_files",
    "listen",
    "log_to_stderr",
    "stop_on_signals",
]

Render = Callable[[LLMOSError], tuple[str, bytes]]
"""A function that returns media type and body of the answer to an invalid request."""

_SILENT_PEER: Final = 120
_SPARE_FILES: Final = 128
"""File descriptors that a process needs in addition to its connections."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits for clients; times are in seconds, sizes in bytes.

    Attributes
    ----------
    max_connections
        Maximum number of connections including idle ones; less if the process may not open as many files. Beyond it,
        the connection that has been without a request for longest is closed, so that clients with many idle connections
        don't lock others out.
    max_head
        Maximum size of request line and headers.
    head_timeout
        Time within which a head must arrive.
    """

    max_connections: int = 2048
    max_head: int = 64 * 1024
    head_timeout: float = 30.0

    def connections(self) -> int:
        """Return the number of possible connections, after raising the limit of open files as far as needed."""
        limit = allow_files(self.max_connections + _SPARE_FILES)
        return self.max_connections if limit < 0 else min(self.max_connections, max(16, limit - _SPARE_FILES))


def allow_files(wanted: int) -> int:
    """Raise the soft limit of open files as far as needed and possible; return it, below 0 if there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket to serve on.

    Raises
    ------
    OSError
        The address is taken or is not one of this machine.
    """
    # asyncio sets TCP_NODELAY only if the protocol is given, which it is here; without it answers take 40 ms
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _give_up_silent_peers(listener)
        listener.bind(address)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _give_up_silent_peers(listener: socket.socket) -> None:
    """Make the kernel close connections whose peer is unreachable or accepts no data for two minutes.

    The options are set on the listening socket; its connections inherit them. So nobody who doesn't read an answer
    occupies an engine's slot for ever.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 60),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, _SILENT_PEER * 1000),
    ):
        with contextlib.suppress(OSError):  # a sandbox's kernel may lack an option
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def log_to_stderr() -> None:
    """Set up logging unless it is configured already."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # INFO only for the platform's own loggers: httpx would write a line for each request to the Hub
    ours = logging.getLogger("llmos_hub")
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT while the context lasts."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _TooLarge(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of one connection; `within` makes a subclass for each server."""

    bounds: ClassVar[Bounds]
    render: ClassVar[Render]
    most: ClassVar[int]
    refusal_headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()
    """Further headers of the answer to an invalid request."""
    idle: ClassVar[OrderedDict[BoundedProtocol, None]]
    """Connections without a request or with an incomplete head, the oldest first."""

    @classmethod
    def within(cls, bounds: Bounds, render: Render) -> type[Self]:
        """Return the protocol of one server, for ``uvicorn.Config(http=…)``: a class of its own."""
        attributes = {
            "bounds": bounds,
            "render": staticmethod(render),
            "most": bounds.connections(),
            "idle": OrderedDict(),
        }
        return cast("type[Self]", type("ServerProtocol", (cls,), attributes))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unproductive = 0
        """Bytes received since the last complete head or part of a body: of a head, a trailer or between chunks."""
        self._in_message = False
        self._in_head = True
        self._since = self.loop.time()
        self._too_large = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, and close the oldest idle one if there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.most:
            if not self.idle:
                self.transport.abort()
                return
            self.idle.popitem(last=False)[0].make_room()
        self.idle[self] = None

    def make_room(self) -> None:
        """Close the connection; at once if the client doesn't read an answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the idle ones."""
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Mark the connection as idle, unless uvicorn has started a pipelined request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.idle[self] = None

    def data_received(self, data: bytes) -> None:
        """Count the bytes, and refuse a head or trailer that is too large."""
        self._unproductive += len(data)
        super().data_received(data)
        if self._unproductive > self.bounds.max_head and self._in_message and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Note the start of a head."""
        self._in_message = self._in_head = True
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the size of the complete head, and mark the connection as busy."""
        # one read may contain more than the head, so the count alone isn't enough
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
        """Reset the count: a part of the body has arrived."""
        self._unproductive = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of the request."""
        self._unproductive = 0
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answer an invalid request with an error in the server's own format, and close the connection."""
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
        """Return whether a head, or a body after its answer, has not been completed in time."""
        if self.transport is None or now - self._since <= self.bounds.head_timeout:
            return False
        if self._in_head:
            # a new connection or an incomplete head; uvicorn itself closes idle connections between requests
            return self._in_message or self.cycle is None
        return self._in_message and self.cycle.response_complete


class BoundedServer(uvicorn.Server):
    """A uvicorn server whose protocol is a `BoundedProtocol`."""

    async def on_tick(self, counter: int) -> bool:
        """Close overdue connections once a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol) and connection.overdue(now):
                    connection.transport.abort()
        return await super().on_tick(counter)
