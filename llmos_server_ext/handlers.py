"""The relay's handler: authenticates, authorizes, relays the request and streams the response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web
from tornado.iostream import StreamClosedError

from llmos.errors import LLMOSError, Unavailable
from llmos_server_ext.manager import PASSED_DOWN, Relay, RelayRequest

__all__ = ["RelayHandler"]


def _relayed(action: str) -> Any:
    """Return a handler's method that authenticates, authorizes an action and relays the request."""

    @web.authenticated
    @authorized(action)  # given, as one that it derives itself is that of the method's first request
    async def relay(self: RelayHandler, target: str, path: str) -> None:
        await self.pass_on(target, path)

    return relay


class RelayHandler(ExtensionHandlerMixin, JupyterHandler):
    """The handler of ``/llmos/apis/…`` and ``/llmos/v1/…``, for all methods of the API."""

    auth_resource = "llmos"
    SUPPORTED_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

    def set_default_headers(self) -> None:
        """Set headers that keep responses from running scripts in the Hub's origin."""
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")

    get = _relayed("read")
    post = put = patch = delete = _relayed("write")

    async def pass_on(self, target: Any, path: str) -> None:
        """Relay a request that was authorized, until the page closes the connection."""
        work = asyncio.ensure_future(self._relay(target, path))
        self._work = work
        try:
            await work
        except asyncio.CancelledError:
            if not work.cancelled():
                raise  # the server is stopping; the page didn't close the connection
        except LLMOSError as error:
            self._refuse(error, target)
        except httpx.HTTPError:
            self._refuse(Unavailable("The connection to the platform broke off while it was answering."), target)

    async def _relay(self, target: Any, path: str) -> None:
        request = RelayRequest(
            method=self.request.method or "GET",
            target=target,
            path=path,
            query=self.request.query,
            headers=dict(self.request.headers.get_all()),
            body=self.request.body,
        )
        relay: Relay = self.settings["llmos_relay"]
        async with relay.send(request) as response:
            self.set_status(response.status_code)
            self.clear_header("Content-Type")
            for name, value in response.headers.items():
                if name.lower() in PASSED_DOWN:
                    self.set_header(name, value)
            try:
                async for piece in response.aiter_bytes():
                    self.write(piece)
                    await self.flush()
            except StreamClosedError:
                return

    def on_connection_close(self) -> None:
        """Cancel the relayed request when the page closes the connection, which stops the model or ends the watch."""
        super().on_connection_close()
        work = getattr(self, "_work", None)
        if work is not None:
            work.cancel()

    def _refuse(self, error: LLMOSError, target: str) -> None:
        if self._headers_written:  # too late for a status; closed early, so that it is not taken for complete
            if self.request.connection is not None:
                self.request.connection.finish()
            return
        self.clear()
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(error.to_openai() if target == "v1" else error.to_status()))
