"""The API process: the application, and the server that runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmos.errors import LLMOSError, NotFound, UsageError
from llmos.resources import API_VERSION, KINDS
from llmos_hub.api.dependencies import Addresses, Services
from llmos_hub.api.handlers.health import rendered_metrics
from llmos_hub.api.metrics import APIMetrics
from llmos_hub.api.middleware import HEADERS, RequestMiddleware
from llmos_hub.api.rates import WriteRates
from llmos_hub.api.routes import make_routes
from llmos_hub.api.streams import Streams
from llmos_hub.api.transfers import Transfers
from llmos_hub.bounded_http import BoundedProtocol, BoundedServer, Bounds, listen, log_to_stderr, stop_on_signals
from llmos_hub.identity import HubIdentity, Identity
from llmos_hub.managers.logs import LocalLogReader, ResourceLogReader
from llmos_hub.managers.namespaces import LocalNamespaces, Namespaces
from llmos_hub.managers.nodes import LocalNodes, Nodes
from llmos_hub.managers.resources import ResourceManager
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores import open_store_for
from llmos_hub.stores.base import Store
from llmos_hub.volumes.files import NO_FILES, LocalFiles, VolumeFiles

__all__ = ["make_app", "make_metrics_server", "make_server", "serve"]

logger = logging.getLogger(__name__)

_GRACE = 5
"""Seconds that running requests have to finish when the process is told to stop."""


def make_app(
    store: Store,
    identity: Identity,
    logs: ResourceLogReader,
    *,
    addresses: Addresses | None = None,
    settings: PlatformSettings | None = None,
    namespaces: Namespaces | None = None,
    nodes: Nodes | None = None,
    files: VolumeFiles | None = None,
) -> Starlette:
    """Return the API as an ASGI application.

    Parameters
    ----------
    store
        The store of resources. Not closed by the application.
    identity
        Authenticates tokens. Not closed either.
    logs
        Reads the logs of workloads.
    addresses
        The addresses that people and clients are shown.
    settings
        The limits; by default read from the store and the environment.
    namespaces
        Creates namespaces; by default those of a workstation, which are only names.
    nodes
        Reads the nodes; by default only this machine.
    files
        Reaches the files of volumes; by default none.
    """
    metrics = APIMetrics()
    settings = settings or PlatformSettings(store)
    app = Starlette(routes=make_routes(), middleware=[Middleware(RequestMiddleware, metrics=metrics)])
    app.router.redirect_slashes = False
    app.router.default = _unknown_address
    app.state.documents = {}
    app.state.services = Services(
        store=store,
        identity=identity,
        resources=ResourceManager(store, settings),
        settings=settings,
        logs=logs,
        streams=Streams(metrics),
        writes=WriteRates(),
        metrics=metrics,
        namespaces=namespaces or LocalNamespaces(),
        nodes=nodes or LocalNodes(store),
        addresses=addresses or Addresses(),
        files=files or NO_FILES,
        transfers=Transfers(),
    )
    return app


async def _unknown_address(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an unknown path, with a hint at the one that may be meant."""
    del receive, send
    path: str = scope["path"]
    plurals = sorted(kind.plural for kind in KINDS.values())
    hint = f"Kinds are below /apis/{API_VERSION}/namespaces/NAMESPACE/: {', '.join(plurals)}. See /docs."
    for word in path.split("/", 16)[:16]:  # bounded, since anybody can request an address of any length
        close = difflib.get_close_matches(word[:80], plurals, n=1)
        if close and word not in plurals:
            hint = f'Did you mean "{close[0]}"?'
    raise NotFound(f"There is nothing at {path[:200]}. {hint}")


class _Server(BoundedServer):
    """A server that leaves signals to `serve`, which must end streams before connections can be closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(BoundedProtocol):
    """The protocol of one connection, whose refusals have the headers of all other answers."""

    refusal_headers = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


def _rendered(error: LLMOSError) -> tuple[str, bytes]:
    """Return the media type and body of the answer to a client that sends no complete request."""
    return "application/json", json.dumps(error.to_status()).encode()


def make_server(app: Starlette, bounds: Bounds | None = None) -> uvicorn.Server:
    """Return the server of the application, with limits on the resources a client may use."""
    config = uvicorn.Config(
        app,
        http=_Protocol.within(bounds or Bounds(), _rendered),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        # the Hub's proxy keeps connections open; closing them earlier than the proxy does loses requests
        timeout_keep_alive=75,
    )
    return _Server(config)


def make_metrics_server(services: Services) -> uvicorn.Server:
    """Return a server of only the metrics; it needs no token, since not everybody can reach its address."""

    async def answer(_: Request) -> Response:
        return rendered_metrics(services.metrics)

    return make_server(Starlette(routes=[Route("/metrics", answer)]), Bounds(max_connections=64))


@contextlib.asynccontextmanager
async def _metrics_served(services: Services, settings: ProcessSettings) -> AsyncIterator[None]:
    """Serve the metrics on their own port, if one is set."""
    if not settings.metrics_port:
        yield
        return
    with contextlib.closing(_listen(settings.host, settings.metrics_port)) as listener:
        server = make_metrics_server(services)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


async def serve(settings: ProcessSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    UsageError
        A setting is missing, or the address can't be listened on.
    """
    log_to_stderr()
    if not (settings.hub_api_url and settings.hub_token):
        raise UsageError("JUPYTERHUB_API_URL and JUPYTERHUB_API_TOKEN are not set. `llmos up` sets them.")
    if not settings.encryption_key and settings.store == "redis":
        raise UsageError(
            "LLMOS_ENCRYPTION_KEY is not set, without which no Credential can be kept. `llmos up` sets it."
        )
    if not settings.redis_url:
        raise UsageError("LLMOS_REDIS_URL is not set. In a cluster, too, the platform's settings are in Valkey.")
    listener = _listen(settings.host, settings.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listener.close)
        app = await stack.enter_async_context(_opened(settings))
        services: Services = app.state.services
        await stack.enter_async_context(_metrics_served(services, settings))
        server = make_server(app)

        def stop() -> None:
            services.streams.closing.set()
            server.should_exit = True

        stack.enter_context(stop_on_signals(stop))
        logger.info("The API listens on http://%s:%d", *listener.getsockname()[:2])
        await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return the socket to serve on; if it can't be opened, raise an error with the reason."""
    try:
        return listen(host, port)
    except OSError as error:
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"can't be had: {error.strerror}"
        raise UsageError(f"The API's address {host}:{port} {why}. LLMOS_HOST and LLMOS_PORT set another.") from None


@contextlib.asynccontextmanager
async def _opened(settings: ProcessSettings) -> AsyncIterator[Starlette]:
    """Provide the application with its real parts, and close them afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        store = open_store_for(settings)
        stack.push_async_callback(store.close)
        identity = HubIdentity(settings.hub_api_url, settings.hub_token)
        stack.push_async_callback(identity.close)
        addresses = Addresses(public=settings.public_url.rstrip("/"), gateway=settings.gateway_url.rstrip("/"))
        if not settings.in_cluster:
            logs, files = LocalLogReader(settings.data_dir.workloads), LocalFiles(settings.data_dir.volumes)
            yield make_app(store, identity, logs, addresses=addresses, files=files)
            return
        # imported here, so that a workstation's API stays small
        from llmos_hub.identity.people import HubPeople
        from llmos_hub.identity.settling import until_settled
        from llmos_hub.kubernetes.connection import KubernetesAPI
        from llmos_hub.managers.namespace_options import NamespaceOptions
        from llmos_hub.managers.namespaces import KubernetesNamespaces
        from llmos_hub.managers.nodes import KubernetesNodes
        from llmos_hub.managers.pod_logs import PodLogReader

        cluster = KubernetesAPI()
        stack.push_async_callback(cluster.close)
        people = HubPeople(settings.hub_api_url, settings.hub_token)
        stack.push_async_callback(people.close)
        settling = asyncio.create_task(until_settled(identity.answers))
        stack.callback(settling.cancel)
        app = make_app(
            store,
            identity,
            PodLogReader(cluster, store),
            addresses=addresses,
            namespaces=KubernetesNamespaces(cluster, NamespaceOptions.from_environment(), people),
            nodes=KubernetesNodes(cluster, settings.namespace),
        )
        app.state.settling = settling
        yield app
