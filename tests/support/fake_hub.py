"""A small HTTP server with the part of the Hub's API that the platform uses.

The responses are those of JupyterHub 6.1: ``GET /user`` returns the name, groups, admin status and scopes of a valid
token; an unknown token gets 403.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from tests.support.asgi import serving

__all__ = ["FakeHub", "FakeUser", "fake_hub"]


@dataclass
class FakeUser:
    admin: bool = False
    groups: tuple[str, ...] = ()


@dataclass
class FakeHub:
    """Users and tokens, which can be changed while it runs.

    ``failing`` is a status for all requests. ``unwritable`` simulates a full disk: JupyterHub then accepts only tokens
    whose last use it need not record, those in ``recorded``. Responses wait while ``answering`` is clear. ``asked``
    counts requests per token.
    """

    users: dict[str, FakeUser] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    failing: int | None = None
    unwritable: bool = False
    recorded: set[str] = field(default_factory=set)
    terse: bool = False
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    asked: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    service_token: str = "the-services-own-token"

    def __post_init__(self) -> None:
        self.answering.set()

    def add_user(self, name: str, *, admin: bool = False, groups: tuple[str, ...] = ()) -> None:
        self.users[name] = FakeUser(admin, groups)

    def add_token(self, owner: str, token: str, *, scopes: tuple[str, ...] = (SCOPE_MANAGE, SCOPE_INVOKE)) -> str:
        self.users.setdefault(owner, FakeUser())
        self.tokens[token] = {"kind": "user", "name": owner, "scopes": list(scopes)}
        return token

    def add_service_token(self, service: str, token: str) -> str:
        self.tokens[token] = {"kind": "service", "name": service, "scopes": [SCOPE_MANAGE]}
        return token

    def revoke(self, token: str) -> None:
        self.tokens.pop(token)

    def user_model(self, name: str) -> dict[str, Any]:
        user = self.users[name]
        return {"kind": "user", "name": name, "admin": user.admin, "groups": list(user.groups)}

    async def get_self(self, request: Request) -> Response:
        token = _token(request)
        if token == self.service_token:
            status = self.failing or (403 if self.unwritable and token not in self.recorded else 200)
            return JSONResponse({"kind": "service", "name": "llm"}, status_code=status)
        self.asked[token] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.answering.wait()
        finally:
            self.at_once -= 1
        if self.failing:
            return JSONResponse({"status": self.failing, "message": "…"}, status_code=self.failing)
        found = self.tokens.get(token)
        if found is None or (self.unwritable and token not in self.recorded):
            return JSONResponse({"status": 403, "message": None}, status_code=403)
        if found["kind"] == "service":
            return JSONResponse({**found, "admin": False, "token_id": "a1", "session_id": None})
        model = {"name": found["name"], "kind": "user"} if self.terse else self.user_model(found["name"])
        own = [f"read:users:{part}!user={found['name']}" for part in ("groups", "name")]
        return JSONResponse({**model, "scopes": sorted([*found["scopes"], *own]), "token_id": "a2"})

    async def get_token(self, request: Request) -> Response:
        """Respond like ``TokenAPIHandler`` of JupyterHub 5 and 6, which records the use of both tokens."""
        if self.failing:
            return JSONResponse({"status": self.failing}, status_code=self.failing)
        own = _token(request)
        if own != self.service_token:
            return JSONResponse({"status": 403, "message": None}, status_code=403)
        if self.unwritable and own not in self.recorded:
            return JSONResponse({"status": 500, "message": "Internal Server Error"}, status_code=500)
        found = self.tokens.get(request.path_params["token"])
        if found is None:
            return JSONResponse({"status": 404, "message": "Not Found"}, status_code=404)
        return JSONResponse(found, status_code=500 if self.unwritable else 200)

    async def get_user(self, request: Request) -> Response:
        name = request.path_params["name"]
        if _token(request) != self.service_token:
            return JSONResponse({"status": 403, "message": "Action is not authorized"}, status_code=403)
        if name not in self.users:
            return JSONResponse({"status": 404, "message": None}, status_code=404)
        return JSONResponse(self.user_model(name))

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/hub/api/", lambda _: JSONResponse({"version": "6.1.1"})),
                Route("/hub/api/user", self.get_self),
                Route("/hub/api/users/{name}", self.get_user),
                Route("/hub/api/authorizations/token/{token:path}", self.get_token),
            ]
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeHub]:
        async with serving(self.app()) as url:
            self.url = f"{url}/hub/api"
            try:
                yield self
            finally:
                self.answering.set()


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


@pytest.fixture
async def fake_hub() -> AsyncIterator[FakeHub]:
    """A Hub without users."""
    async with FakeHub().running() as hub:
        yield hub
