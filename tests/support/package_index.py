"""A fake package index: the simple repository API as JSON or HTML, and the files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["PackageIndex", "package_index"]


class PackageIndex:
    """The fake package index.

    Attributes
    ----------
    projects
        Name to files, file name to content.
    html
        Whether it uses only the older HTML format.
    refused
        Beginning of the paths that are answered with 403; by default of none.
    paths
        Paths of all requests.
    """

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, bytes]] = {}
        self.html = False
        self.refused = "-"
        self.paths: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The value for ``PIP_INDEX_URL``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/root/simple"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


@contextmanager
def package_index() -> Iterator[PackageIndex]:
    """Yield a running index."""
    index = PackageIndex()
    try:
        yield index
    finally:
        index.stop()


def _handler(index: PackageIndex) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

        def do_GET(self) -> None:
            index.paths.append(self.path)
            *_, project, name = self.path.split("/")
            if self.path.startswith(index.refused):
                self._send(403, "text/plain", b"not for you")
                return
            if self.path.startswith("/root/simple/") and project in index.projects:
                self._page(index.projects[project])
            elif name in (files := index.projects.get(project, {})):
                self._send(200, "application/octet-stream", files[name])
            else:
                self._send(404, "text/plain", b"not here")

        def _page(self, files: dict[str, bytes]) -> None:
            project = self.path.split("/")[-2]
            if index.html:
                links = "".join(f'<a href="../../files/{project}/{n}#sha256=00">{n}</a><br/>' for n in files)
                self._send(200, "text/html", f"<html><body>{links}</body></html>".encode())
                return
            listed = [{"filename": n, "url": f"/root/files/{project}/{n}", "hashes": {}} for n in files]
            self._send(200, "application/vnd.pypi.simple.v1+json", json.dumps({"files": listed}).encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
