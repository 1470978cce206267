"""A gateway on a free port, with a store and fake users."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import httpx
import openai

from llmos.errors import LLMOSError, Unauthorized
from llmos.resources import ModelService
from llmos_hub.gateway.app import Gateway
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.server import Server, listen
from llmos_hub.identity import Identity
from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from llmos_hub.policy import Caller, Rights
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import FakeUpstream

__all__ = ["ADA", "ADMIN", "GRACE", "FakeIdentity", "RunningGateway", "refused", "running_gateway", "service"]

ADA, GRACE, ADMIN, NARROW = "ada-token", "grace-token", "admin-token", "manage-only-token"


class FakeIdentity:
    """An identity service with a few fixed users."""

    def __init__(self) -> None:
        invoke = frozenset({SCOPE_INVOKE})
        callers = {
            ADA: Caller("ada", scopes=invoke),
            GRACE: Caller("grace", scopes=invoke),
            ADMIN: Caller("root", admin=True, scopes=invoke),
            NARROW: Caller("ada", scopes=frozenset({SCOPE_MANAGE})),
        }
        self.rights = {token: Rights(caller) for token, caller in callers.items()}
        self.error: LLMOSError | None = None
        self.asked: list[str] = []

    async def authenticate(self, token: str) -> Rights:
        self.asked.append(token)
        if self.error is not None:
            raise self.error
        if token not in self.rights:
            raise Unauthorized("Nobody has this token (any more).")
        return self.rights[token]

    async def close(self) -> None:
        pass


_: type[Identity] = FakeIdentity


def service(
    name: str,
    *upstreams: FakeUpstream | str,
    namespace: str = "user-ada",
    task: str = "generate",
    phase: str = "Ready",
    message: str = "",
    engine: str = "",
    **spec: Any,
) -> ModelService:
    """Return a model service with its status, as the controllers would write it."""
    urls = [u if isinstance(u, str) else u.url for u in upstreams]
    return ModelService.parse(
        {
            "kind": "ModelService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"model": "demo://tiny", **spec},
            "status": {
                "phase": phase,
                "message": message,
                "task": task,
                "engine": engine,
                "endpoints": [{"replica": f"r{i}", "url": url} for i, url in enumerate(urls)],
            },
        }
    )


class RunningGateway:
    """The gateway under test: a real server on a real port."""

    def __init__(self, gateway: Gateway, server: Server, store: Store, identity: FakeIdentity) -> None:
        self.gateway = gateway
        self.server = server
        self.store = store
        self.identity = identity
        self.port = server.address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False)
        self.httpd: asyncio.Task[None] | None = None

    async def add(self, *services: ModelService) -> None:
        """Store services as a user and a controller would, and wait until the gateway knows them."""
        for wanted in services:
            created = await self.store.create(wanted)
            await self.store.patch_status(created.model_copy(update={"status": wanted.status}))
        for wanted in services:
            await self.until(wanted)

    async def change(self, wanted: ModelService) -> None:
        """Apply spec and status of `wanted`."""
        stored = await self.store.apply(wanted)
        await self.store.patch_status(stored.model_copy(update={"status": wanted.status}))
        await self.until(wanted)

    async def until(self, wanted: ModelService) -> None:
        """Wait until the routing table has this status."""
        key = (wanted.metadata.namespace, wanted.metadata.name)
        urls = [e.url for e in wanted.status.endpoints]
        async with asyncio.timeout(30):
            while True:
                model = self.gateway.context.table._models.get(key)
                if model is not None and model.phase == wanted.status.phase and [r.url for r in model.replicas] == urls:
                    return
                await asyncio.sleep(0.002)

    async def post(self, path: str, body: Any, token: str = ADA, **headers: str) -> httpx.Response:
        """Send one request with httpx."""
        return await self.http.post(path, json=body, headers={"authorization": f"Bearer {token}", **headers})

    async def get(self, path: str, token: str = ADA) -> httpx.Response:
        return await self.http.get(path, headers={"authorization": f"Bearer {token}"})

    async def chat(self, model: str = "chat", token: str = ADA, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        return await self.post("/v1/chat/completions", body, token)

    @contextlib.asynccontextmanager
    async def openai(self, token: str = ADA, prefix: str = "") -> AsyncIterator[openai.AsyncOpenAI]:
        """Yield the real client, without retries."""
        async with openai.AsyncOpenAI(base_url=f"{self.url}{prefix}/v1", api_key=token, max_retries=0) as client:
            yield client

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and send these bytes on it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return reader, writer


async def refused(opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> bool:
    """Return whether a new connection is refused; otherwise close it."""
    try:
        _, writer = await opening
    except (ConnectionRefusedError, ConnectionResetError):  # the latter was waiting to be accepted
        return True
    writer.transport.abort()
    return False


@contextlib.asynccontextmanager
async def running_gateway(
    store: Store,
    options: GatewayOptions | None = None,
    services: Sequence[ModelService] = (),
    *,
    until_ready: bool = True,
    engine_secret: str = "",
) -> AsyncIterator[RunningGateway]:
    """Start a gateway; stop it at the end, even if requests are running."""
    options = options or GatewayOptions()
    identity = FakeIdentity()
    gateway = Gateway(store, identity, options, engine_secret=engine_secret)
    server = Server(gateway, options, listen("127.0.0.1", 0), gateway.drain)
    running = RunningGateway(gateway, server, store, identity)
    async with gateway.running(), running.http:
        task = running.httpd = asyncio.create_task(server.run_until_stopped())
        try:
            async with asyncio.timeout(30):
                if until_ready:
                    await gateway.context.discovery.synced.wait()
                while not server.started:
                    await asyncio.sleep(0.002)
            await running.add(*services)
            yield running
        finally:
            server.stop()
            server.stop()
            await asyncio.wait_for(task, 40)
