"""The real application on a real store, served over HTTP, with a small Hub beside it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from llmos.resources import API_VERSION
from llmos_hub.api.app import make_app
from llmos_hub.api.dependencies import Addresses
from llmos_hub.identity import HubIdentity
from llmos_hub.managers.logs import LocalLogReader
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.names import DataDir
from llmos_hub.stores.base import Store
from llmos_hub.volumes.files import LocalFiles
from tests.support.asgi import serving
from tests.support.fake_hub import FakeHub, fake_hub

__all__ = ["fake_hub"]

BASE = f"/apis/{API_VERSION}"
SECRET = "s3cret-value-of-ada"


def token_of(name: str) -> str:
    return f"token-of-{name}-0123456789"


def manifest(name: str = "chat", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"model": "demo://tiny", **spec}}


def models(user: str = "ada", name: str = "") -> str:
    return f"{BASE}/namespaces/user-{user}/modelservices" + (f"/{name}" if name else "")


def credentials(user: str = "ada", name: str = "") -> str:
    return f"{BASE}/namespaces/user-{user}/credentials" + (f"/{name}" if name else "")


@dataclass
class Api:
    """The application while it is served."""

    url: str
    app: Starlette
    hub: FakeHub
    store: Store
    environ: dict[str, str]
    workloads: Path

    @contextlib.asynccontextmanager
    async def client(self, token: str | None) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, trust_env=False) as client:
            yield client


@pytest.fixture
async def api(store: Store, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr("llmos_hub.api.streams._CHECK_EVERY", 0.05)
    for name in ("ada", "grace", "root"):
        fake_hub.add_user(name, admin=name == "root", groups=("vision",) if name == "ada" else ())
        fake_hub.add_token(name, token_of(name))
    environ: dict[str, str] = {}
    identity = HubIdentity(fake_hub.url, fake_hub.service_token, ttl=0.05)
    app = make_app(
        store,
        identity,
        LocalLogReader(tmp_path),
        addresses=Addresses("http://hub.example.org", "http://hub.example.org:8010"),
        settings=PlatformSettings(store, environ, remembered_for=0),
        files=LocalFiles(DataDir(tmp_path).volumes),
    )
    async with serving(app) as url:
        yield Api(url, app, fake_hub, store, environ, tmp_path)
        app.state.services.streams.closing.set()
    await identity.close()


@pytest.fixture
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(token_of("ada")) as client:
        yield client


@pytest.fixture
async def grace(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(token_of("grace")) as client:
        yield client


@pytest.fixture
async def root(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(token_of("root")) as client:
        yield client


@pytest.fixture
async def nobody(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(None) as client:
        yield client


def status_of(response: httpx.Response) -> tuple[int, str, str]:
    """The error's HTTP status, stable code and message."""
    body = response.json()
    assert body["kind"] == "Status", body
    assert body["code"] == response.status_code
    assert body["details"]["requestID"] == response.headers["x-request-id"]
    return response.status_code, body["details"]["code"], body["message"]


def causes_of(response: httpx.Response) -> dict[str, str]:
    return {c["field"]: c["message"] for c in response.json()["details"].get("causes", ())}


class Watching:
    """The lines of a watch."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]]:
        event = json.loads(await anext(self._lines))
        return event["type"], event["object"]

    async def change(self) -> tuple[str, str]:
        """The next event that isn't a bookmark, as type and name."""
        while True:
            type_, body = await self.next()
            if type_ != "BOOKMARK":
                return type_, body["metadata"]["name"] if type_ != "ERROR" else body["details"]["code"]


@contextlib.asynccontextmanager
async def watching(client: httpx.AsyncClient, path: str, **query: str) -> AsyncIterator[Watching]:
    async with client.stream("GET", path, params={"watch": "1", **query}) as response:
        assert response.status_code == 200, await response.aread()
        yield Watching(response)
