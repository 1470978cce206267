"""A fake model hub that implements the Hugging Face Hub's protocol as far as the real client needs it.

It responds to the client's requests (model info, file tree, ``resolve`` with the Hub's headers and error codes) and
redirects large files to a second address, as the Hub does to its CDN. Transfers can be slow, closed early, or corrupt.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["HubEndpoint", "HubRepository", "hub_endpoint"]

_BEGINNING = re.compile(r"bytes=0-(\d+)")


@dataclass
class HubRepository:
    """A repository of the fake hub.

    Attributes
    ----------
    files
        Path to content.
    gated
        Whether it requires a token that is in the endpoint's ``tokens``.
    private
        Whether it is visible only with such a token.
    revisions
        Names of commits; ``main`` is the newest.
    parameters
        Number of weights in the hub's search results.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    commit: str = "c" * 40
    revisions: dict[str, str] = field(default_factory=dict)
    parameters: int = 0

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision."""
        names = {"main": self.commit, self.commit: self.commit, **self.revisions}
        return names.get(revision)


class HubEndpoint:
    """The fake hub, with its content and its behaviour.

    Attributes
    ----------
    repositories
        Name to repository.
    tokens
        Tokens with access to gated and private repositories.
    break_after
        Bytes after which each of the next `breaks` transfers is closed.
    corrupt
        Whether one byte of contents is changed.
    ignore_ranges
        Whether requests for a range get the whole content.
    gate
        While clear, transfers stop after `break_after` bytes until it is set.
    requests
        Method, path, range and authorization of every request.
    sent
        Bytes of file contents sent, except for requests for a beginning.
    looked_at
        Files of which only the beginning was requested.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.tokens: set[str] = set()
        self.break_after = 0
        self.breaks = 0
        self.errors: list[int] = []
        self.corrupt = False
        self.ignore_ranges = False
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self.sent = 0
        self.looked_at: list[str] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """The value for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ranges(self) -> list[str | None]:
        """The ranges of all requests for contents, except for beginnings."""
        found = [r for _, path, r, _ in self.requests if path.startswith("/cdn/")]
        return [r for r in found if not _BEGINNING.fullmatch(r or "")]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the server; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self.gate.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


@contextmanager
def hub_endpoint() -> Iterator[HubEndpoint]:
    """Yield a running hub."""
    hub = HubEndpoint()
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


def _handler(hub: HubEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            authorization = self.headers.get("Authorization")
            with hub.lock:
                hub.requests.append((self.command, path, self.headers.get("Range"), authorization))
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/.*)?)?", path):
                self._api(found[1], found[2] or "revision", found[3] or "main", query)
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(found[1], found[2], found[3])
            elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
                content = hub.repositories[found[1]].files[found[2]]
                if beginning := _BEGINNING.fullmatch(self.headers.get("Range") or ""):
                    self._beginning(found[2], content, int(beginning[1]) + 1)
                else:
                    self._content(content)
            elif path == "/api/models":
                self._search(query)
            else:
                self._refuse(404, "EntryNotFound", "no such page")

        def _token_opens(self) -> bool:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ") in hub.tokens

        def _find(self, name: str, revision: str) -> tuple[HubRepository, str] | None:
            repository = hub.repositories.get(name)
            if repository is None or (repository.private and not self._token_opens()):
                self._refuse(401, "RepoNotFound", "Repository not found")
                return None
            commit = repository.resolve(revision)
            if commit is None:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return None
            return repository, commit

        def _api(self, name: str, what: str, revision: str, query: dict[str, list[str]]) -> None:
            if not (found := self._find(name, revision)):
                return
            repository, commit = found
            blobs = query.get("blobs", ["0"])[0].lower() in ("1", "true")
            entries = [_entry(path, content) for path, content in repository.files.items()]
            if what == "tree":
                tree = [{"type": "file", "path": e["rfilename"], "oid": e["blobId"], **e} for e in entries]
                self._json(tree)
                return
            siblings = entries if blobs else [{"rfilename": e["rfilename"]} for e in entries]
            gated = "manual" if repository.gated else False
            self._json(
                {
                    "id": name,
                    "modelId": name,
                    "sha": commit,
                    "private": repository.private,
                    "gated": gated,
                    "siblings": siblings,
                }
            )

        def _search(self, query: dict[str, list[str]]) -> None:
            """Respond like the Hub: names must contain all words, and ``expand[]=gguf`` adds the number of weights."""
            words = query.get("search", [""])[0].lower().split()
            wants_gguf = "gguf" in query.get("filter", [])
            found = []
            for name, repository in hub.repositories.items():
                has_gguf = any(path.endswith(".gguf") for path in repository.files)
                if all(word in name.lower() for word in words) and (has_gguf or not wants_gguf):
                    expanded = "gguf" in query.get("expand[]", []) and repository.parameters
                    found.append({"id": name} | ({"gguf": {"total": repository.parameters}} if expanded else {}))
            self._json(found[: int(query.get("limit", ["10"])[0])])

        def _resolve(self, name: str, revision: str, path: str) -> None:
            if not (found := self._find(name, revision)):
                return
            repository, commit = found
            if repository.gated and not self._token_opens():
                status = 403 if self.headers.get("Authorization") else 401
                self._refuse(status, "GatedRepo", f"Access to model {name} is restricted")
                return
            content = repository.files.get(path)
            if content is None:
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            digest = hashlib.sha256(content).hexdigest()
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{digest}"',
                "ETag": f'"{digest}"',
            }
            # another host than the hub's, like the CDN: credentials must not be sent there
            self._send(302, headers | {"Location": f"http://localhost:{hub.port}/cdn/{name}/{path}"})

        def _beginning(self, path: str, content: bytes, count: int) -> None:
            with hub.lock:
                hub.looked_at.append(path)
            if hub.ignore_ranges:
                self._send(200, {}, content)
            else:
                self._send(206, {"Content-Range": f"bytes 0-{count - 1}/{len(content)}"}, content[:count])

        def _content(self, content: bytes) -> None:
            with hub.lock:
                error = hub.errors.pop(0) if hub.errors else None
            if error:
                self._send(error, {})
                return
            begin = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if asked and not hub.ignore_ranges:
                begin = int(asked[1])
                if begin >= len(content):
                    self._send(416, {"Content-Range": f"bytes */{len(content)}"})
                    return
            piece = content[begin:]
            if hub.corrupt:
                piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(piece)))
            self.send_header("Accept-Ranges", "bytes")
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self._transfer(piece)

        def _transfer(self, piece: bytes) -> None:
            first = piece[: hub.break_after] if hub.break_after else piece
            self._write(first)
            if len(first) == len(piece):
                return
            with hub.lock:
                broken = hub.breaks > 0
                hub.breaks -= broken
            if broken:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            hub.gate.wait(60)
            self._write(piece[len(first) :])

        def _write(self, data: bytes) -> None:
            with hub.lock:
                hub.sent += len(data)  # counted first, because a test may check it as soon as it has read the last byte
            try:
                self.wfile.write(data)
                self.wfile.flush()
            except OSError:
                self.close_connection = True
                with hub.lock:
                    hub.sent -= len(data)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self._send(
                status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode()
            )

        def _json(self, data: Any) -> None:
            self._send(200, {"Content-Type": "application/json"}, json.dumps(data).encode())

        def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Return a file's entry in the Hub's format; GGUF and weights are stored as large files."""
    entry: dict[str, Any] = {
        "rfilename": path,
        "size": len(content),
        "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest(),
    }
    if path.endswith((".gguf", ".safetensors", ".bin")):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134, "oid": digest}
    return entry
