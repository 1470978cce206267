"""A small API server in this process, over real HTTP, for tests of code that reads and writes Kubernetes objects.

It supports objects of any kind: create, replace, merge, server-side apply (objects by field, lists as a whole), delete,
list, watch, resourceVersions, conflicts, finalizers. It validates nothing and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.asgi import serving

__all__ = ["FakeKubernetes", "fake_kubernetes"]

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<ns>[^/]+)(?=/[^/]))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
Key = tuple[str, str, str]
"""Plural, namespace, name."""


@dataclass
class FakeKubernetes:
    """The state of the fake cluster, and attributes by which tests cause faults.

    Attributes
    ----------
    down
        Whether every request gets 503.
    logs
        Logs by namespace and pod.
    silent
        Whether responses are held back.
    finalizers
        Whether a deletion waits for finalizers; if not, whoever removes them need not run.
    readers
        If set, the namespaces whose Secrets may be accessed.
    refused
        Number of requests that got 503.
    writes
        Number of changes, or attempts, by method and plural.
    """

    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    history: list[tuple[int, Key, dict[str, Any] | None, dict[str, Any] | None]] = field(default_factory=list)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    revision: int = 0
    down: bool = False
    refused: int = 0
    silent: bool = False
    stopping: bool = False
    finalizers: bool = False
    readers: set[str] | None = None
    writes: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    # What a test does and sees

    def get(self, plural: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        return self.objects.get((plural, namespace, name))

    def names(self, plural: str, namespace: str = "") -> list[str]:
        return sorted(key[2] for key in self.objects if key[:2] == (plural, namespace))

    def put(self, plural: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Store an object as another client would, replacing an existing one."""
        meta = obj["metadata"]
        key = (plural, meta.get("namespace", ""), meta["name"])
        old = self.objects.get(key)
        return self._store(key, old, copy.deepcopy(obj))

    def edit(self, plural: str, name: str, namespace: str, change: Any) -> None:
        """Change an object like ``kubectl edit``."""
        obj = copy.deepcopy(self.objects[plural, namespace, name])
        change(obj)
        self._store((plural, namespace, name), self.objects[plural, namespace, name], obj)

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        old = self.objects.pop((plural, namespace, name))
        self._note((plural, namespace, name), old, None)
        if plural == "namespaces":
            for key in [key for key in self.objects if key[1] == name]:
                self._note(key, self.objects.pop(key), None)

    async def until(self, holds: Any, what: str = "that", timeout: float = 10.0) -> Any:
        """Wait for a true result of `holds` and return it."""
        try:
            async with asyncio.timeout(timeout):
                while not (found := holds()):
                    changed = self.changed
                    await changed.wait()
                return found
        except TimeoutError:
            message = f"{what} never came; there is {sorted(self.objects)}"
            raise AssertionError(message) from None

    # Storing

    def _store(self, key: Key, old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
        meta = new["metadata"]
        if old is None:
            now = datetime.now(UTC).isoformat()
            meta |= {"uid": uuid.uuid4().hex, "creationTimestamp": now, "generation": 1}
        else:
            kept = ("uid", "creationTimestamp", "resourceVersion")
            meta |= {name: old["metadata"][name] for name in kept}
            meta.setdefault("generation", old["metadata"].get("generation", 1))
            if new == old:
                return old
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        if key[0] == "namespaces":
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = key[2]
        self.objects[key] = new
        self._note(key, old, new)
        return new

    def _note(self, key: Key, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None:
            self.revision += 1
        self.history.append((self.revision, key, old, new))
        self.changed.set()
        self.changed = asyncio.Event()

    # Answering

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
        )

    async def _answer(self, request: Request) -> Response:
        while self.silent and not self.stopping:
            await asyncio.sleep(0.02)
        if self.down:
            self.refused += 1
            return _status(503, "ServiceUnavailable", "etcd is away")
        if request.url.path == "/readyz":
            return JSONResponse({"ready": True})
        found = _PATH.fullmatch(request.url.path)
        if found is None:
            return _status(404, "NotFound", request.url.path)
        plural, namespace, name = found["plural"], found["ns"] or "", found["name"]
        if plural == "namespaces":
            namespace = ""
        if plural == "secrets" and self.readers is not None and namespace not in self.readers:
            return _status(403, "Forbidden", f'secrets is forbidden: User "x" cannot touch it in "{namespace}"')
        if request.method != "GET":
            self.writes[f"{request.method} {plural}"] += 1
        if name is None and request.method == "GET":
            return self._list(request, plural, namespace)
        body = json.loads(await request.body() or b"{}")
        if request.method == "POST":
            return self._create(plural, namespace, body)
        return self._one(request, (plural, namespace, str(name)), body, found["sub"])

    def _create(self, plural: str, namespace: str, body: dict[str, Any]) -> Response:
        key = (plural, namespace, body["metadata"]["name"])
        if key in self.objects:
            return _status(409, "AlreadyExists", f"{key[2]} already exists")
        if namespace and ("namespaces", "", namespace) not in self.objects:
            return _status(404, "NotFound", f'namespaces "{namespace}" not found', kind="namespaces", name=namespace)
        return JSONResponse(self._store(key, None, body), status_code=201)

    def _one(self, request: Request, key: Key, body: dict[str, Any], sub: str | None) -> Response:
        old = self.objects.get(key)
        applied = request.headers.get("content-type", "").startswith("application/apply-patch")
        if old is None and not (request.method == "PATCH" and applied):
            return _status(404, "NotFound", f"{key[0]} {key[2]} not found", kind=key[0], name=key[2])
        if old is None:
            return self._create(key[0], key[1], body)
        if request.method == "GET" and sub == "log":
            return PlainTextResponse(self.logs.get(key[1:], ""))
        if request.method == "GET":
            return JSONResponse(old)
        if request.method == "DELETE":
            uid = (body.get("preconditions") or {}).get("uid")
            if uid not in (None, old["metadata"]["uid"]):
                return _status(409, "Conflict", "the UID in the precondition does not match")
            if self.finalizers and old["metadata"].get("finalizers"):
                metadata = {**old["metadata"], "deletionTimestamp": datetime.now(UTC).isoformat()}
                return JSONResponse(self._store(key, old, {**old, "metadata": metadata}))
            self.remove(key[0], key[2], key[1])
            return JSONResponse({"kind": "Status", "status": "Success"})
        json_patch = isinstance(body, list)
        if json_patch:
            patched = _patched(old, body)
            if patched is None:
                return _status(422, "Invalid", "the server rejected our request: testing a value failed")
            body = patched
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, old["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "the object has been modified")
        whole = request.method == "PUT" or (request.method == "PATCH" and json_patch)
        new = copy.deepcopy(body if whole else _merged(old, body))
        if sub == "status":
            new = {**old, "status": new.get("status", {})}
        elif "status" in old:
            new["status"] = old["status"]
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        if old["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self.remove(key[0], key[2], key[1])
            return JSONResponse(new)
        return JSONResponse(self._store(key, old, new))

    def _list(self, request: Request, plural: str, namespace: str) -> Response:
        selector = [part.partition("=") for part in request.query_params.get("labelSelector", "").split(",") if part]

        type_ = request.query_params.get("fieldSelector", "").partition("type=")[2] if plural == "secrets" else ""

        def wanted(key: Key, obj: dict[str, Any] | None) -> bool:
            if obj is not None and type_ and obj.get("type", "Opaque") != type_:
                return False
            labels = obj["metadata"].get("labels") or {} if obj is not None else {}
            within = key[0] == plural and namespace in ("", key[1])
            fits = all(name in labels and (not sign or labels[name] == value) for name, sign, value in selector)
            return obj is not None and within and fits

        if request.query_params.get("watch"):
            since = int(request.query_params["resourceVersion"])
            return StreamingResponse(self._watch(since, wanted), media_type="application/json")
        items = [obj for key, obj in sorted(self.objects.items()) if wanted(key, obj)]
        first = items[0] if items else {}
        what = {"kind": f"{first.get('kind', '')}List", "apiVersion": first.get("apiVersion", "v1")}
        if "llmos.ai" not in what["apiVersion"]:  # for built-in kinds the server omits kind and apiVersion of items
            items = [{part: value for part, value in obj.items() if part not in what} for obj in items]
        return JSONResponse({**what, "metadata": {"resourceVersion": str(self.revision)}, "items": items})

    async def _watch(self, since: int, wanted: Any) -> AsyncIterator[bytes]:
        at = 0
        while not self.stopping:
            changed = self.changed
            while at < len(self.history):
                revision, key, old, new = self.history[at]
                at += 1
                if revision <= since:
                    continue
                was, is_ = wanted(key, old), wanted(key, new)
                if is_:
                    yield _line("MODIFIED" if was else "ADDED", new, revision)
                elif was:
                    yield _line("DELETED", new or old, revision)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 0.2)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeKubernetes]:
        async with serving(self.app()) as url:
            self.url = url
            try:
                yield self
            finally:
                self.stopping = True
                self.silent = False
                self.changed.set()

    @contextlib.asynccontextmanager
    async def api(self, directory: Path, *, timeout: float = 5.0) -> AsyncIterator[KubernetesAPI]:
        """Yield a connection to it, with a kubeconfig of its own."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
        }
        path = directory / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        connection = KubernetesAPI(timeout=timeout, kubeconfig=path)
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def fake_kubernetes(directory: Path) -> AsyncIterator[tuple[FakeKubernetes, KubernetesAPI]]:
    """Yield an empty cluster and a connection to it."""
    async with FakeKubernetes().running() as cluster, cluster.api(directory) as api:
        yield cluster, api


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    merged = {**old, **{key: _merged(old.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def _patched(old: Any, operations: list[dict[str, Any]]) -> Any:
    """Return the object after a JSON patch (RFC 6902) without moves and copies; None if a test operation fails."""
    new = copy.deepcopy(old)
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        node = new
        for part in parents:
            node = node.get(part, {})
        if operation["op"] == "test" and node.get(last) != operation["value"]:
            return None
        if operation["op"] in ("add", "replace"):
            node[last] = operation["value"]
        elif operation["op"] == "remove":
            node.pop(last, None)
    return new


def _line(type_: str, obj: Any, revision: int) -> bytes:
    metadata = {**obj["metadata"], "resourceVersion": str(revision)}
    return json.dumps({"type": type_, "object": {**obj, "metadata": metadata}}).encode() + b"\n"


def _status(code: int, reason: str, message: str, **details: str) -> Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return JSONResponse(body, status_code=code)
