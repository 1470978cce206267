"""``llmos-hub mirror DIR``: a web server for the models of an offline bundle.

All files are readable by anybody who can reach it, range requests are supported, and nothing can be written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from llmos.errors import UsageError
from llmos_hub.bounded_http import BoundedProtocol, BoundedServer, Bounds

__all__ = ["main", "make_app", "make_server"]

_GRACE = 5
"""Seconds in which running downloads may finish; a client that is cut off can resume."""


def make_app(directory: Path) -> Starlette:
    """Make the application, which serves ``/uris``, ``/blobs`` and ``/health``."""

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/health", health),
            *(
                Mount(f"/{name}", StaticFiles(directory=directory / name, check_dir=False))
                for name in ("uris", "blobs")
            ),
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Serve a directory at ``LLMOS_HOST`` and ``LLMOS_PORT`` until SIGTERM.

    Raises
    ------
    UsageError
        The directory doesn't exist, or the port is invalid.
    """
    if len(argv) != 1:
        raise UsageError("usage: llmos-hub mirror DIR, such as: llmos-hub mirror bundle/models")
    directory = Path(argv[0]).absolute()
    if not directory.is_dir():
        raise UsageError(f"There is no directory {directory}.")
    host, port = os.environ.get("LLMOS_HOST") or "127.0.0.1", os.environ.get("LLMOS_PORT") or "8080"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f'LLMOS_PORT: "{port[:20]}" is not a port.')
    sys.stderr.write(f"models of {directory} at http://{host}:{port}\n")
    make_server(directory, host, int(port)).run()
    return 0


def make_server(directory: Path, host: str, port: int, bounds: Bounds | None = None) -> uvicorn.Server:
    """Make the web server, with limits for its clients."""
    protocol = BoundedProtocol.within(bounds or Bounds(), lambda error: ("text/plain", f"{error.message}\n".encode()))
    config = uvicorn.Config(
        make_app(directory),
        host=host,
        port=port,
        http=protocol,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return BoundedServer(config)
