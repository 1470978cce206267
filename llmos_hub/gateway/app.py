"""The gateway: an OpenAI-compatible front for all models, as an ASGI application and a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from llmos.errors import BadRequest, Cause, Internal, LLMOSError, MethodNotAllowed, NotFound
from llmos_hub.bounded_http import allow_files, log_to_stderr, stop_on_signals
from llmos_hub.gateway.asgi import Receive, Scope, Send, make_request
from llmos_hub.gateway.context import Context, Handler
from llmos_hub.gateway.cors import Cors
from llmos_hub.gateway.discovery import make_discovery
from llmos_hub.gateway.endpoints import ROUTES
from llmos_hub.gateway.metrics import GatewayMetrics
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.prompt_cache import PromptCaches
from llmos_hub.gateway.proxy import Truncated
from llmos_hub.gateway.request import CLIENT_CLOSED, ClientGone, Headers, Request
from llmos_hub.gateway.routes import Router
from llmos_hub.gateway.routing import RoutingTable, printable
from llmos_hub.gateway.server import Server, listen
from llmos_hub.gateway.shares import Shares
from llmos_hub.gateway.upstream import Upstreams
from llmos_hub.identity.base import Identity
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.base import Store

__all__ = ["Gateway", "serve"]

log = logging.getLogger(__name__)
access = logging.getLogger("llmos_hub.gateway.access")

_PASSING = frozenset({429, 502, 503})
"""Statuses of temporary errors, which are sent with a ``Retry-After`` header."""
_LINGER = 5.0
_LINGER_BYTES = 64 * 1024 * 1024
"""Seconds and bytes for which the body of a refused request is read and dropped, so that its sender sees the answer."""
_FILES = 65536
"""File descriptors for the maximum number of connections, from clients and to replicas."""
_MOST_LINGERING = 256
"""Maximum number of refused requests whose bodies are read at once; sending one needs no token."""


class Gateway:
    """The ASGI application: finds the route, renders errors, logs. Created within a running event loop.

    Parameters
    ----------
    store
        Holds the models.
    identity
        Tells the caller by their token.
    options
        The limits.
    secret
        A secret shared by the platform's gateways only; if empty, a random one is used by this gateway.
    engine_secret
        The secret from which the keys for engines on a port are derived; if empty, no key is sent.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        options: GatewayOptions | None = None,
        secret: str = "",
        *,
        engine_secret: str = "",
    ) -> None:
        options = options or GatewayOptions()
        self._upstreams = Upstreams(options)
        metrics = GatewayMetrics()
        table = RoutingTable(self._upstreams, metrics, engine_secret)
        discovery = make_discovery(store, table)
        metrics.table_age = discovery.age
        self.context = Context(
            identity,
            table,
            discovery,
            metrics,
            options,
            Shares(options.max_buffered),
            Shares(max(1, options.max_connections // 2)),
            Shares(options.max_requests),
            PromptCaches(secret.encode() or secrets.token_bytes(32)),
        )
        self._loop = asyncio.get_running_loop()
        self._lingering = 0
        self._router = Router(ROUTES)
        self._cors = Cors(options.allowed_origins, self._router.methods)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the store; on exit, close all connections to replicas."""
        task = asyncio.create_task(self.context.discovery.run())
        try:
            yield
        finally:
            await _cancel(task)
            self._upstreams.close()

    @contextlib.asynccontextmanager
    async def settling(self, settled: Awaitable[bool]) -> AsyncIterator[None]:
        """Report not ready at /ready until `settled` is done; requests are answered all the same."""
        self.context.settling = asyncio.ensure_future(settled)
        try:
            yield
        finally:
            await _cancel(self.context.settling)

    def drain(self) -> None:
        """Report not ready at /ready, so that no new requests are sent here."""
        self.context.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection. Returning before the answer is complete makes the server close the connection."""
        if scope["type"] == "http":
            await self.handle(make_request(scope, receive, send, self._loop.time()))

    async def handle(self, request: Request) -> None:
        """Answer a request, with an error if need be; an answer that can't be completed is left unfinished."""
        try:
            if self._cors.origins and await self._cors.answers(request):
                return
            handler = self._find(request)
            await handler(request, self.context)
        except LLMOSError as error:
            await self._refuse(request, error)
        except ClientGone:
            request.status = CLIENT_CLOSED
        except Truncated:
            pass
        except asyncio.CancelledError:
            # Only the server cancels: its time to finish requests is over.
            log.warning("req=%s was broken off: the gateway is stopping", request.id)
        except Exception:
            log.exception("req=%s failed", request.id)
            message = "Internal error in the gateway. Its log says more under the request id."
            await self._refuse(request, Internal(message))
        finally:
            self._note(request)

    def _find(self, request: Request) -> Handler:
        if request.repeated:
            raise BadRequest(
                f"The header {request.repeated} was sent more than once, and it is not clear which one counts. Send it once.",
                causes=[Cause(request.repeated, "sent more than once")],
            )
        path, found = request.path, self._router.find(request.method, request.path)
        if found is not None:
            request.route, request.parameters = found.route, found.parameters
            return found.handler
        if allowed := self._router.allowed(path):
            raise MethodNotAllowed(f"{printable(path)} takes {allowed}, not {printable(request.method)}.")
        known = ", ".join(map(str, self._router.routes))
        raise NotFound(f"{printable(path)} was not found. This gateway answers: {known}.")

    async def _refuse(self, request: Request, error: LLMOSError) -> None:
        if request.started:
            log.error("req=%s failed in the middle of its answer: %s", request.id, error)
            return
        error.request_id = request.id
        headers: Headers = []
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.status in _PASSING:
            headers.append((b"retry-after", b"%d" % request.retry_after))
        if isinstance(error, MethodNotAllowed):
            headers.append((b"allow", self._router.allowed(request.path).encode()))
        body = json.dumps(error.to_openai(), ensure_ascii=False).encode()
        if self._much_unread(request):
            await self._refuse_and_close(request, error.status, headers, body)
        else:
            await request.answer(error.status, b"application/json", body, headers)

    def _much_unread(self, request: Request) -> bool:
        """Return whether the unread body may be larger than is worth reading to keep the connection."""
        if request.body_read:
            return False
        length = request.headers.get(b"content-length", b"0")
        small = length.isdigit() and len(length) < 8 and int(length) <= self.context.options.max_head
        return b"transfer-encoding" in request.headers or not small

    async def _refuse_and_close(self, request: Request, status: int, headers: Headers, body: bytes) -> None:
        """Answer while the client is still sending, and read what it sends for a moment before closing.

        Closing at once would reset the connection, and the client's kernel might discard the answer unread
        (RFC 9112, section 9.6).
        """
        headers.append((b"connection", b"close"))
        await request.answer(status, b"application/json", body, headers, more=True)
        if self._lingering < _MOST_LINGERING:
            self._lingering += 1
            try:
                await self._linger(request)
            finally:
                self._lingering -= 1
        await request.client.write(b"", more=False)

    @staticmethod
    async def _linger(request: Request) -> None:
        left, more = _LINGER_BYTES, True
        with contextlib.suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(_LINGER):
                while more and left > 0:
                    data, more = await request.client.receive()
                    left -= len(data)

    def _note(self, request: Request) -> None:
        route = request.route
        if not request.counted and not route.quiet:
            self.context.metrics.refuse(route.path, request.status)
        level = logging.DEBUG if route.quiet else logging.INFO
        if not access.isEnabledFor(level):
            return
        access.log(
            level,
            "req=%s caller=%s model=%s %s %s status=%d ms=%.1f first_ms=%.1f bytes=%d",
            request.id,
            printable(request.caller or "-"),
            request.model or "-",
            printable(request.method),
            route.path or "-",
            request.status,
            (self._loop.time() - request.began) * 1000,
            ((request.first_byte or self._loop.time()) - request.began) * 1000,
            request.sent,
        )


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def serve(settings: ProcessSettings) -> None:
    """Run the gateway on ``settings.host:settings.port`` until SIGTERM or SIGINT.

    Raises
    ------
    UsageError
        The port is taken, the address can't be used, or a variable that sets a limit is invalid.
    """
    from llmos_hub.identity import HubIdentity
    from llmos_hub.identity.settling import until_settled
    from llmos_hub.identity.shared import SharedIdentities
    from llmos_hub.stores import open_store_for
    from llmos_hub.valkey.database import Database

    options = GatewayOptions.from_environment()
    log_to_stderr()
    sock = listen(settings.host, settings.port)
    # each request needs two descriptors; the usual soft limit of 1024 is below the allowed number of connections
    allow_files(_FILES)
    shared = SharedIdentities(Database(settings.redis_url), settings.hub_token) if settings.redis_url else None
    identity = HubIdentity(settings.hub_api_url, settings.hub_token, shared=shared)
    store = open_store_for(settings, secrets=False)
    try:
        gateway = Gateway(store, identity, options, settings.hub_token, engine_secret=settings.engine_secret)
        server = Server(gateway, options, sock, gateway.drain)
        with stop_on_signals(server.stop):
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(gateway.running())
                if settings.in_cluster:  # only there other replicas can take the requests meanwhile
                    await stack.enter_async_context(gateway.settling(until_settled(identity.answers)))
                log.info("the gateway listens on http://%s:%d/v1", *server.address)
                await server.run_until_stopped()
        log.info("the gateway has stopped")
    finally:
        sock.close()
        await identity.close()
        await store.close()
