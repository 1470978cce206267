"""uvicorn, bounded: what it leaves open to a client that sends without end or never finishes.

Nothing else in the gateway knows the server; another one has to run an ASGI application, or to bring an own
`llmos_hub.gateway.request.Client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmos.errors import BadRequest, PayloadTooLarge, UsageError
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.request import ALWAYS

__all__ = ["Server", "listen"]

log = logging.getLogger(__name__)

_SILENT_PEER = 120


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Its connections (they inherit the options) are given up when the other side's machine is gone, or takes
    nothing of an answer for two minutes, so that neither holds an engine's slot for ever.

    Raises
    ------
    UsageError
        The address is taken or is none of this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f'LLMOS_HOST: "{host}" is no address of this machine ({error.strerror}).') from None
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, 60),
            (socket.TCP_KEEPINTVL, 15),
            (socket.TCP_KEEPCNT, 4),
            (socket.TCP_USER_TIMEOUT, _SILENT_PEER * 1000),
        ):
            with contextlib.suppress(OSError):  # a sandboxed kernel may not know one
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} is taken. Use another with: llmos up --gateway-port PORT") from None
        raise UsageError(f"The gateway can't listen on {host}:{port}: {error.strerror}.") from None
    return sock


class _TooLarge(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes a head of any size and waits for one for ever."""

    options: ClassVar[GatewayOptions]
    stopping: ClassVar[bool] = False
    """Whether each answer says that it is the last of its connection."""
    idle: ClassVar[OrderedDict[BoundedProtocol, None]]
    """Those without a request, or with a part of a head, the longest first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unproductive = 0
        """Bytes since the last that were of use: of a head, a trailer or between chunks."""
        self._in_message = False
        self._in_head = True
        self._since = self.loop.time()
        self._status = 400

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room where there are too many: who asks for nothing goes first."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.options.max_connections:
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
        if self._unproductive > self.options.max_head and self._in_message and not self.transport.is_closing():
            self._status = 431
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_message = self._in_head = True
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete; one read may have brought more than it."""
        if self._unproductive > self.options.max_head:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self.options.max_head:
                self._status = 431
                raise _TooLarge
        self._unproductive = 0
        self._in_head = False
        self.idle.pop(self, None)
        super().on_headers_complete()
        if self.stopping:
            self.end_with_answer()

    def end_with_answer(self) -> None:
        """Let the answer under way close the connection; unless its head is out, it says so to the client."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

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
        """Refuse what is no request, in OpenAI's format, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        if self._status == 431:
            limit = self.options.max_head
            error: BadRequest | PayloadTooLarge = PayloadTooLarge(f"The request's headers are over {limit} bytes.")
        else:
            error = BadRequest("This is no HTTP/1.1 request.")
        body = json.dumps(error.to_openai()).encode()
        line = b"431 Request Header Fields Too Large" if self._status == 431 else b"400 Bad Request"
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
            % (line, len(body), b"".join(b"%s: %s\r\n" % header for header in ALWAYS), body)
        )
        self.transport.close()

    def overdue(self, now: float) -> bool:
        """Whether the client has begun something and not gone on with it, while nobody here waits for it."""
        if self.transport is None or now - self._since <= self.options.head_timeout:
            return False
        if self._in_head:
            # a new connection, or a head of which a part has come; idle ones between requests are uvicorn's
            return self._in_message or self.cycle is None
        return self._in_message and self.cycle.response_complete


def _unfinished(record: logging.LogRecord) -> bool:
    """Not what uvicorn says of an answer that was broken off on purpose: the gateway has logged why."""
    return "without completing response" not in str(record.msg)


class Server(uvicorn.Server):
    """Runs an ASGI application on a socket until told to stop.

    Parameters
    ----------
    app
        The application.
    options
        The bounds.
    sock
        Bound by `listen`; closed by the server.
    on_stop
        Called when the server is told to stop, before it does.
    """

    def __init__(
        self,
        app: Any,
        options: GatewayOptions,
        sock: socket.socket,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        made = type("GatewayProtocol", (BoundedProtocol,), {"options": options, "idle": OrderedDict()})
        self._protocol = cast("type[BoundedProtocol]", made)
        config = uvicorn.Config(
            app,
            http=self._protocol,
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(options.keep_alive),
            timeout_graceful_shutdown=options.drain,  # type: ignore[arg-type]  # it is given to wait_for
        )
        super().__init__(config)
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self._sock = sock
        self._on_stop = on_stop
        self._delay = options.shutdown_delay
        self._until = 0.0

    async def run_until_stopped(self) -> None:
        """Serve until `stop` and its delay; requests under way may then go on for as long as the options say."""
        logger = logging.getLogger("uvicorn.error")
        logger.setLevel(logging.WARNING)  # its own start and stop messages say nothing that ours don't
        logger.addFilter(_unfinished)
        try:
            await self._serve([self._sock])
        finally:
            logger.removeFilter(_unfinished)
            self._sock.close()

    def stop(self) -> None:
        """Take no new connection after the delay; a second time, don't wait, for requests neither.

        Until then, requests are answered as before, each the last of its connection. A connection that
        nobody uses meanwhile is closed in the end: closed at once, it could meet a request on its way.
        """
        if self.should_exit:
            self.force_exit = True
        else:
            self._until = asyncio.get_running_loop().time() + self._delay
            self._protocol.stopping = True
            for connection in self.server_state.connections:
                if isinstance(connection, BoundedProtocol):
                    connection.end_with_answer()
        self.should_exit = True
        self._on_stop()

    @contextlib.contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT call `stop`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def on_tick(self, counter: int) -> bool:
        """Close what is overdue, once a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol) and connection.overdue(now):
                    connection.transport.abort()
        stop = await super().on_tick(counter)
        return stop and (self.force_exit or asyncio.get_running_loop().time() >= self._until)
