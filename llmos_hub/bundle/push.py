"""Push a bundle's images, of all platforms, to a registry: push.py [--plain-http] MANIFEST REGISTRY/PATH.

This script is part of each bundle. It runs where LLMOS is not installed, and needs only Python 3.8 or newer. Blobs
that the registry has already are not sent again. The protocol is the OCI distribution specification 1.1:
https://github.com/opencontainers/distribution-spec/blob/main/spec.md. No library, since nothing can be installed there;
oras for Python would also need requests and jsonschema, and pushes files rather than images of several platforms.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import re
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

if TYPE_CHECKING:  # older Python versions don't have all of these
    from collections.abc import Callable, Mapping
    from email.message import Message

    Answer = tuple[int, Message, bytes]
    Body = bytes | Callable[[], IO[bytes]] | None

__all__ = ["Registry", "main"]

TIMEOUT = 600
"""Timeout in seconds without a byte; a registry may take long to check a layer of several gigabytes."""
INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """A registry, with the authentication to it.

    Parameters
    ----------
    host
        The host, with its port.
    plain
        True if it uses HTTP rather than HTTPS.
    """

    def __init__(self, host: str, *, plain: bool = False) -> None:
        self.host = host
        self.base = f"{'http' if plain else 'https'}://{host}"
        self.authorization = ""

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body = None) -> Answer:
        """Send a request; repeat it with credentials if the registry asks for them."""
        answer = self._once(method, url, headers or {}, body)
        if answer[0] == 401 and self._is_own(url) and self._log_in(answer[1].get("WWW-Authenticate", "")):
            answer = self._once(method, url, headers or {}, body)
        return answer

    def _is_own(self, url: str) -> bool:
        """Return whether a URL is the registry's own; others, or its own without TLS, get no credentials."""
        return urlsplit(urljoin(self.base, url))[:2] == urlsplit(self.base)[:2]

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> Answer:
        where = urlsplit(urljoin(self.base, url))
        kind = http.client.HTTPConnection if where.scheme == "http" else http.client.HTTPSConnection
        connection = kind(where.netloc, timeout=TIMEOUT)
        own = {"Authorization": self.authorization} if self.authorization and self._is_own(url) else {}
        try:
            target = where.path + (f"?{where.query}" if where.query else "")
            connection.request(method, target, body() if callable(body) else body, {**headers, **own})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _credentials(self) -> str:
        """Return name and password encoded for Basic authentication; empty if there are none."""
        user = os.environ.get("REGISTRY_USER")
        if user:
            return base64.b64encode(f"{user}:{os.environ.get('REGISTRY_PASSWORD', '')}".encode()).decode()
        try:
            known = json.loads((Path.home() / ".docker" / "config.json").read_text())
            return str(known["auths"][self.host]["auth"])
        except (OSError, ValueError, KeyError):
            return ""

    def _log_in(self, challenge: str) -> bool:
        """Get the credentials that the registry asks for; return whether they are new."""
        basic, before = self._credentials(), self.authorization
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and basic:
            self.authorization = f"Basic {basic}"
        elif scheme.lower() == "bearer":
            fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            query = urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
            if urlsplit(fields["realm"]).scheme == "http" and self.base.startswith("https:"):
                sys.exit(f"push.py: {self.host} wants its password sent without TLS, to {fields['realm'][:200]}")
            own = {"Authorization": f"Basic {basic}"} if basic else {}
            status, _, data = self._once("GET", f"{fields['realm']}?{query}", own, None)
            if status == 200:
                token = json.loads(data)
                self.authorization = f"Bearer {token.get('token') or token['access_token']}"
        return self.authorization != before

    def expect(self, wanted: int, method: str, url: str, headers: Mapping[str, str], body: Body) -> Answer:
        """Send a request, and exit unless it is answered with the status `wanted`."""
        answer = self.request(method, url, headers, body)
        if answer[0] == 401:
            sys.exit(
                f"push.py: {self.host} refuses these credentials. Log in (docker login {self.host}), or set REGISTRY_USER and REGISTRY_PASSWORD"
            )
        if answer[0] != wanted:
            said = answer[2].decode(errors="replace")[:300].strip()
            sys.exit(f"push.py: {self.host} answered HTTP {answer[0]} for {method} {urlsplit(url).path}. {said}")
        return answer

    def push_blob(self, repository: str, blob: Mapping[str, Any], open_blob: Callable[[], IO[bytes]]) -> None:
        """Send a blob unless the registry has it."""
        if self.request("HEAD", f"/v2/{repository}/blobs/{blob['digest']}")[0] == 200:
            return
        _, headers, _ = self.expect(202, "POST", f"/v2/{repository}/blobs/uploads/", {"Content-Length": "0"}, None)
        location = headers["Location"]
        location += ("&" if "?" in location else "?") + urlencode({"digest": blob["digest"]})
        kind = {"Content-Type": "application/octet-stream", "Content-Length": str(blob["size"])}
        self.expect(201, "PUT", location, kind, open_blob)

    def push_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> None:
        """Send a manifest or an index."""
        self.expect(201, "PUT", f"/v2/{repository}/manifests/{reference}", {"Content-Type": media_type}, data)


def push_image(registry: Registry, repository: str, tar: tarfile.TarFile, image: Mapping[str, Any]) -> dict[str, Any]:
    """Push one image of one platform under its digest; return its descriptor for an index."""

    def open_blob(digest: str) -> IO[bytes]:
        file = tar.extractfile(f"blobs/sha256/{digest.partition(':')[2]}")
        assert file is not None
        return file

    digest = image["digest"]
    with open_blob(digest) as file:
        data = file.read()
    manifest = json.loads(data)
    for blob in [manifest["config"], *manifest["layers"]]:
        registry.push_blob(repository, blob, partial(open_blob, blob["digest"]))
    media_type = manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json")
    registry.push_manifest(repository, digest, media_type, data)
    system, _, architecture = image["platform"].partition("/")
    platform = {"os": system, "architecture": architecture}
    return {"mediaType": media_type, "digest": digest, "size": len(data), "platform": platform}


def push_all(registry: Registry, below: str, manifest: Path) -> None:
    """Push all images in a bundle's manifest."""
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for image in json.loads(manifest.read_text())["images"]:
        repository = f"{below}/{image['repository']}" if below else image["repository"]
        with tarfile.open(manifest.parent / image["archive"]) as tar:
            entry = push_image(registry, repository, tar, image)
        entries.setdefault((repository, image["tag"]), []).append(entry)
        sys.stdout.write(f"push.py: {repository}:{image['tag']} for {image['platform']}\n")
        sys.stdout.flush()
    for (repository, tag), manifests in entries.items():
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, sort_keys=True).encode()
        registry.push_manifest(repository, tag, INDEX, index)
        digest = hashlib.sha256(index).hexdigest()
        sys.stdout.write(f"push.py: {registry.host}/{repository}:{tag} is sha256:{digest}\n")


def main(argv: list[str] | None = None) -> int:
    """Push a bundle's images, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP")
    parser.add_argument("manifest", type=Path, help="the bundle's manifest.json")
    parser.add_argument("registry", help="such as registry.example.org/ai")
    options = parser.parse_args(argv)
    host, _, below = options.registry.rstrip("/").partition("/")
    try:
        push_all(Registry(host, plain=options.plain_http), below, options.manifest)
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"push.py: {host} can't be reached or broke off: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
