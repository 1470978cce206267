"""The gateway's HTTP server: uvicorn with limits, which finishes running requests before it stops.

Nothing else in the gateway depends on the server; another one has to run an ASGI application, or to implement
`llmos_hub.gateway.request.Client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import uvicorn

from llmos.errors import LLMOSError, UsageError
from llmos_hub import bounded_http
from llmos_hub.bounded_http import BoundedProtocol, BoundedServer, Bounds
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.request import ALWAYS

__all__ = ["Server", "listen"]

log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return the socket to serve on.

    Raises
    ------
    UsageError
        The address is taken or is not one of this machine.
    """
    try:
        return bounded_http.listen(host, port)
    except socket.gaierror as error:
        raise UsageError(f'LLMOS_HOST: "{host}" is no address of this machine ({error.strerror}).') from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} is taken. Use another with: llmos up --gateway-port PORT") from None
        raise UsageError(f"The gateway can't listen on {host}:{port}: {error.strerror}.") from None


class GatewayProtocol(BoundedProtocol):
    """One client connection of the gateway."""

    refusal_headers = ALWAYS
    stopping: ClassVar[bool] = False
    """True once the server is stopping: then each answer is the last of its connection."""

    def on_headers_complete(self) -> None:
        """Handle a complete request head."""
        super().on_headers_complete()
        if self.stopping:
            self.end_with_answer()

    def end_with_answer(self) -> None:
        """Close the connection after the current answer, and announce it there, unless its head was sent already."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False


def _render(error: LLMOSError) -> tuple[str, bytes]:
    return "application/json", json.dumps(error.to_openai()).encode()


def _unfinished(record: logging.LogRecord) -> bool:
    """Filter out uvicorn's message about an answer that was left incomplete on purpose: the gateway has logged why."""
    return "without completing response" not in str(record.msg)


class Server(BoundedServer):
    """A server that runs an ASGI application on a socket until told to stop.

    Parameters
    ----------
    app
        The application.
    options
        The limits.
    sock
        The socket from `listen`; closed by the server.
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
        bounds = Bounds(options.max_connections, options.max_head, options.head_timeout)
        self._protocol = GatewayProtocol.within(bounds, _render)
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
        """Serve until `stop` is called and its delay is over; running requests then have `GatewayOptions.drain`."""
        logger = logging.getLogger("uvicorn.error")
        logger.setLevel(logging.WARNING)  # its start and stop messages would only repeat those of the gateway
        logger.addFilter(_unfinished)
        try:
            await self.serve([self._sock])
        finally:
            logger.removeFilter(_unfinished)
            self._sock.close()

    def stop(self) -> None:
        """Stop accepting connections after the delay; when called a second time, stop at once, with running requests.

        Until then, requests are answered as before, each as the last of its connection. Idle connections are
        closed only at the end: closed at once, one could meet a request that is on its way.
        """
        if self.should_exit:
            self.force_exit = True
        else:
            self._until = asyncio.get_running_loop().time() + self._delay
            self._protocol.stopping = True
            for connection in self.server_state.connections:
                if isinstance(connection, GatewayProtocol):
                    connection.end_with_answer()
        self.should_exit = True
        self._on_stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `llmos_hub.bounded_http.stop_on_signals`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop, which is not before the delay is over."""
        stop = await super().on_tick(counter)
        return stop and (self.force_exit or asyncio.get_running_loop().time() >= self._until)
