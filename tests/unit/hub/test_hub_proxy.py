"""Routes of the proxy after its restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from llmos_hub.hub_proxy import WatchedProxy
from tests.support.waiting import eventually


class Routes(RequestHandler):
    """A stub of configurable-http-proxy's API, as far as the Hub uses it."""

    def initialize(self, routes: dict[str, Any]) -> None:
        self.routes = routes

    def get(self, path: str) -> None:
        self.write(self.routes)

    def post(self, path: str) -> None:
        self.routes["/" + path.strip("/")] = json.loads(self.request.body)
        self.set_status(201)


@pytest.fixture
async def routes() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield a proxy's address and its routing table."""
    table: dict[str, Any] = {}
    sock, port = bind_unused_port()
    server = HTTPServer(Application([("/api/routes/?(.*)", Routes, {"routes": table})]))
    server.add_socket(sock)
    yield f"http://127.0.0.1:{port}", table
    server.stop()
    await server.close_all_connections()


async def test_lost_routes_are_given_again_within_the_interval(routes: tuple[str, dict[str, Any]]) -> None:
    url, table = routes
    hub = SimpleNamespace(routespec="/", host="http://hub:8081")
    api = SimpleNamespace(name="llmos", server=SimpleNamespace(host="http://api:8080"), proxy_spec="/services/llmos/")
    app = SimpleNamespace(hub=hub, subdomain_host="", session=None)
    proxy = WatchedProxy(api_url=url, auth_token="secret", should_start=False, watch_interval=0.05, app=app, hub=hub)
    assert proxy._watching is None, "nothing is compared before the Hub knows which servers there are"
    await proxy.check_routes({}, {"llmos": api})
    assert proxy._watching is not None
    try:
        assert set(table) == {"/", "/services/llmos"}
        for _ in range(2):
            table.clear()
            table["/"] = {"target": "http://hub:8081"}  # from the command line, not from the Hub
            await eventually(lambda: set(table) == {"/", "/services/llmos"} and table["/"].get("hub"))
    finally:
        proxy._watching.stop()
