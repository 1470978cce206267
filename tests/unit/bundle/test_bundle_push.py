"""Pushing images to a registry with a bundle's script."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from llmos_hub.bundle import push
from llmos_hub.bundle.archives import read_archive, write_archive
from tests.support.image_archives import layer, oci_archive

BASE, HUB, ARM = layer(base="Debian"), layer(hub="hub"), layer(hub="hub for arm")


@dataclass
class Registry:
    """A registry according to the distribution specification, which checks what it receives.

    Attributes
    ----------
    scheme
        What it asks for: nothing, ``Basic`` or ``Bearer``.
    """

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: int = 0
    scheme: str = ""
    address: str = ""


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args) -> None:
            pass

        def reply(self, status: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = urlsplit(self.path)
            basic = "Basic " + base64.b64encode(b"ada:secret").decode()
            if where.path == "/token":
                right = self.headers.get("Authorization") == basic and parse_qs(where.query)["service"] == ["here"]
                scope = parse_qs(where.query).get("scope", [""])[0]
                return self.reply(200, json.dumps({"token": scope}).encode()) if right else self.reply(401)
            path = re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(.+)", where.path)
            if path is None:
                return self.reply(404)
            repository, kind, rest = path.groups()
            scope = f"repository:{repository}:pull,push"
            wanted = {"": None, "Basic": basic, "Bearer": f"Bearer {scope}"}[registry.scheme]
            if wanted and self.headers.get("Authorization") != wanted:
                realm = f'Bearer realm="http://{registry.address}/token",service="here",scope="{scope}"'
                return self.reply(401, WWW_Authenticate=realm if registry.scheme == "Bearer" else 'Basic realm="here"')
            return getattr(self, kind)(repository, rest, body, where.query)

        def blobs(self, repository: str, rest: str, body: bytes, query: str) -> None:
            if self.command == "HEAD":
                return self.reply(200 if (repository, rest) in registry.blobs else 404)
            if self.command == "POST":
                return self.reply(202, Location=f"/v2/{repository}/blobs/uploads/1?state=x")
            digest = parse_qs(query)["digest"][0]
            assert parse_qs(query)["state"] == ["x"]
            if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
                return self.reply(400, b"DIGEST_INVALID")
            registry.uploads += 1
            registry.blobs[repository, digest] = body
            return self.reply(201)

        def manifests(self, repository: str, rest: str, body: bytes, query: str) -> None:
            data = json.loads(body)
            needed = [each["digest"] for each in [data["config"], *data["layers"]]] if "config" in data else []
            if any((repository, digest) not in registry.blobs for digest in needed):
                return self.reply(400, b"MANIFEST_BLOB_UNKNOWN")
            if any((repository, each["digest"]) not in registry.manifests for each in data.get("manifests", ())):
                return self.reply(400, b"MANIFEST_UNKNOWN")
            registry.manifests[repository, rest] = (self.headers["Content-Type"], body)
            return self.reply(201)

        def __getattr__(self, name: str):
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

    return Handler


@pytest.fixture
def manifest(tmp_path) -> Path:
    """The manifest of a bundle with one image for two platforms."""
    name = "docker.io/library/llmos-hub:1"
    images = read_archive(oci_archive(tmp_path / "a.tar", {name: {"amd64": [BASE, HUB], "arm64": [ARM]}}))
    entries = []
    for image in images:
        archive = tmp_path / f"{image.platform.replace('/', '-')}.tar"
        write_archive([image], archive)
        entry = {"repository": "llmos-hub", "tag": "1", "platform": image.platform, "digest": image.digest}
        entries.append({**entry, "archive": archive.name})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"images": entries}))
    return path


@pytest.mark.parametrize("scheme", ["", "Basic", "Bearer"])
def test_all_platforms_come_under_one_name(registry, manifest, monkeypatch, scheme):
    registry.scheme = scheme
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    assert push.main(["--plain-http", str(manifest), f"{registry.address}/ai"]) == 0
    media_type, data = registry.manifests["ai/llmos-hub", "1"]
    assert media_type == "application/vnd.oci.image.index.v1+json"
    layers = {}
    for entry in json.loads(data)["manifests"]:
        image = json.loads(registry.manifests["ai/llmos-hub", entry["digest"]][1])
        blobs = [registry.blobs["ai/llmos-hub", each["digest"]] for each in image["layers"]]
        layers[entry["platform"]["architecture"]] = blobs
    assert layers == {"amd64": [BASE, HUB], "arm64": [ARM]}


def test_what_is_there_is_not_sent_again(registry, manifest):
    for _ in range(2):
        assert push.main(["--plain-http", str(manifest), registry.address]) == 0
        assert registry.uploads == 5  # three layers, two configurations


def test_credentials_of_docker_count(registry, manifest, monkeypatch, tmp_path):
    registry.scheme = "Basic"
    monkeypatch.delenv("REGISTRY_USER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="refuses these credentials"):
        push.main(["--plain-http", str(manifest), registry.address])
    (tmp_path / ".docker").mkdir()
    auth = base64.b64encode(b"ada:secret").decode()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
    assert push.main(["--plain-http", str(manifest), registry.address]) == 0


@pytest.mark.parametrize("same_host", [False, True])
def test_only_the_registry_itself_sees_credentials(monkeypatch, same_host):
    """Neither another host that it sends uploads to, nor its own name without TLS."""
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="http://{self.headers["Host"]}/token"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT  # noqa: N815 - as the base class wants it

        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        registry = push.Registry(address if same_host else "registry.example.org")
        registry.authorization = "Basic secret"
        assert registry.request("PUT", f"http://{address}/upload", {}, b"")[0] == 401
        other.shutdown()
    assert seen == [None]


def test_it_runs_alone(manifest, tmp_path):
    alone = tmp_path / "alone" / "push.py"
    alone.parent.mkdir()
    alone.write_text(Path(push.__file__).read_text())
    command = [sys.executable, "-I", "-S", str(alone), "--plain-http", str(manifest), "127.0.0.1:9/ai"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
    assert done.returncode == 1
    assert done.stderr.startswith("push.py: 127.0.0.1:9 can't be reached or broke off: ")
