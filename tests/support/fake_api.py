"""A small API and gateway in this process, over real HTTP, for tests of the SDK and the CLI.

It keeps resources in a dict and implements the paths and semantics that clients rely on. Its purpose are faults on
demand: being unreachable, closing streams early, forgetting old versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llmos.errors import AlreadyExists, Conflict, Expired, Forbidden, LLMOSError, NotFound, Unauthorized
from llmos.resources import API_VERSION, KINDS, Resource, parse

TOKEN = "secret-token-of-ada"
PREFIX = "/services/llmos"


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class FakePlatform:
    """The state of the fake platform, and methods by which tests cause faults.

    Attributes
    ----------
    objects
        Stored resources: (plural, namespace or "", name) to JSON.
    requests
        ``METHOD path?query`` of every request, in order.
    failures
        Responses to send before anything else, in this order.
    logs, events
        By (namespace, name).
    answer
        The chunks of every chat answer.
    """

    def __init__(self, *, user: str = "ada", admin: bool = False) -> None:
        self.user, self.admin = user, admin
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.failures: list[Response] = []
        self.logs: dict[tuple[str, str], list[str]] = {}
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.answer = ["A dictionary ", "maps keys ", "to values."]
        self.break_answer = False
        self.chats: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.revision = 0
        self.oldest = 0
        self.watches = 0
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self._changed: list[asyncio.Event] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drop = 0
        self.stopping = False

    @property
    def namespace(self) -> str:
        return f"user-{self.user}"

    # What a test does to it

    def put(self, manifest: dict[str, Any], *, keep_status: bool = True) -> dict[str, Any]:
        """Store a resource with its status, as a controller would, and notify the watchers."""
        resource = parse(manifest)
        if resource.scope == "Namespaced" and resource.metadata.namespace is None:
            resource.metadata.namespace = self.namespace
        return self._store(resource, keep_status=keep_status)

    def status(self, name: str, *, namespace: str | None = None, kind: str = "modelservices", **status: Any) -> None:
        """Write a status, by default for the newest generation."""
        key = (kind, namespace or self.namespace, name)
        data = json.loads(json.dumps(self.objects[key]))
        status.setdefault("observedGeneration", data["metadata"]["generation"])
        data["status"] = status
        resource = parse(data)
        data = resource.dump()
        self._commit(key, "MODIFIED", data)

    def remove(self, name: str, *, namespace: str | None = None, kind: str = "modelservices") -> None:
        key = (kind, namespace or self.namespace, name)
        self._commit(key, "DELETED", self.objects[key])

    def drop_watches(self) -> None:
        """End all running watches, as a restarting API does."""
        self._drop += 1
        self._wake()

    def forget(self) -> None:
        """Discard the history, so that all older versions are expired."""
        self.oldest = self.revision
        self.history.clear()
        self.drop_watches()

    # Keeping

    def _store(self, resource: Resource, *, keep_status: bool = False) -> dict[str, Any]:
        namespace = resource.metadata.namespace or ""
        key = (resource.plural, namespace, resource.metadata.name)
        old = self.objects.get(key)
        data = resource.document()
        metadata = data["metadata"]
        metadata["uid"] = old["metadata"]["uid"] if old else f"uid-{self.revision + 1}"
        metadata["creationTimestamp"] = old["metadata"]["creationTimestamp"] if old else _now()
        generation = old["metadata"]["generation"] if old else 0
        changed = old is None or old["spec"] != data["spec"]
        metadata["generation"] = generation + 1 if changed else generation
        if not keep_status:
            data["status"] = (
                old["status"]
                if old
                else type(resource)
                .model_fields["status"]
                .default_factory()
                .model_dump(mode="json", by_alias=True, exclude_none=True)
            )
        if (
            old is not None
            and old["spec"] == data["spec"]
            and old["status"] == data["status"]
            and (old["metadata"].get("labels") == metadata.get("labels"))
        ):
            return old
        return self._commit(key, "MODIFIED" if old else "ADDED", data)

    def _commit(self, key: tuple[str, str, str], type_: str, data: dict[str, Any]) -> dict[str, Any]:
        self.revision += 1
        data = {**data, "metadata": {**data["metadata"], "resourceVersion": str(self.revision)}}
        if type_ == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = data
        self.history.append((self.revision, type_, data))
        self._wake()
        return data

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_all)

    def _set_all(self) -> None:
        for event in self._changed:
            event.set()

    # Answering

    def app(self) -> Starlette:
        base = f"{PREFIX}/apis/{API_VERSION}"
        routes = [
            Route(f"{base}/whoami", self._guard(self._whoami)),
            Route(f"{base}/nodes", self._guard(self._nodes)),
        ]
        for kind in KINDS.values():
            roots = [f"{base}/{kind.plural}"]
            if kind.scope == "Namespaced":
                roots.append(f"{base}/namespaces/{{ns}}/{kind.plural}")
            for root in roots:
                routes += [
                    Route(root, self._guard(self._collection, kind), methods=["GET", "POST"]),
                    Route(f"{root}/{{name}}", self._guard(self._one, kind), methods=["GET", "PUT", "PATCH", "DELETE"]),
                    Route(f"{root}/{{name}}/logs", self._guard(self._logs, kind)),
                    Route(f"{root}/{{name}}/events", self._guard(self._events, kind)),
                ]
        routes += [
            Route("/v1/models", self._guard(self._models)),
            Route("/v1/chat/completions", self._guard(self._chat), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    def _guard(self, handler: Any, *args: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            self._loop = asyncio.get_running_loop()
            query = f"?{request.url.query}" if request.url.query else ""
            self.requests.append(f"{request.method} {request.url.path.removeprefix(PREFIX)}{query}")
            self.tokens.append(request.headers.get("authorization", ""))
            if self.failures:
                return self.failures.pop(0)
            rid = request.headers.get("x-request-id", "")
            try:
                if request.headers.get("authorization") != f"Bearer {TOKEN}":
                    raise Unauthorized("This token is not known.")
                return await handler(request, *args)
            except LLMOSError as error:
                error.request_id = rid
                openai = request.url.path.startswith("/v1/")
                body = error.to_openai() if openai else error.to_status()
                return JSONResponse(body, status_code=error.status, headers={"x-request-id": rid})

        return endpoint

    async def _whoami(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": self.user,
                "admin": self.admin,
                "namespace": self.namespace,
                "groups": ["vision"],
                "scopes": ["custom:llmos:manage", "custom:llmos:invoke"],
                "gatewayURL": "",
                "publicURL": "",
            }
        )

    async def _nodes(self, request: Request) -> Response:
        return JSONResponse({"kind": "NodeList", "apiVersion": API_VERSION, "items": self.nodes})

    def _may(self, namespace: str | None, *, read: bool) -> None:
        if self.admin or namespace in {self.namespace, "group-vision"} or (read and namespace in {None, "public"}):
            return
        raise Forbidden(f"You may not look into {namespace or 'all namespaces'}. Yours is {self.namespace}.")

    def _sees(self, namespace: str) -> bool:
        return self.admin or namespace in {self.namespace, "public", "group-vision"}

    def _find(self, kind: type[Resource], namespace: str, name: str) -> dict[str, Any]:
        data = self.objects.get((kind.plural, namespace, name))
        if data is None:
            where = f" in {namespace}" if namespace else ""
            names = [key[2] for key in self.objects if key[:2] == (kind.plural, namespace)]
            close = get_close_matches(name, names, n=1)
            listed = f" There {'is' if len(names) == 1 else 'are'}: {', '.join(names)}." if names else ""
            hint = f' Did you mean "{close[0]}"?' if close else listed
            raise NotFound(f'There is no {kind.singular} "{name}"{where}.{hint}')
        return data

    async def _collection(self, request: Request, kind: type[Resource]) -> Response:
        namespace = request.path_params.get("ns")
        if kind.scope == "Namespaced":
            self._may(namespace, read=request.method == "GET")
        if request.method == "POST":
            resource = kind.parse(await request.json())
            resource.metadata.namespace = namespace
            if (kind.plural, namespace or "", resource.metadata.name) in self.objects:
                raise AlreadyExists(f"{resource.metadata.name} is there already.")
            if request.query_params.get("dryRun"):
                return JSONResponse(_shown(resource.dump()), status_code=201)
            return JSONResponse(_shown(self._store(resource)), status_code=201)
        wanted = dict(p.split("=", 1) for p in request.query_params.get("labelSelector", "").split(",") if p)
        if request.query_params.get("watch"):
            return self._watch(request, kind, namespace, wanted)
        items = [_shown(d) for k, d in sorted(self.objects.items()) if self._matches(k[0], d, kind, namespace, wanted)]
        return JSONResponse({"metadata": {"resourceVersion": str(self.revision)}, "items": items})

    def _matches(
        self, plural: str, data: dict[str, Any], kind: type[Resource], namespace: str | None, labels: dict[str, str]
    ) -> bool:
        metadata = data["metadata"]
        return (
            plural == kind.plural
            and (namespace is None or metadata.get("namespace") == namespace)
            and (kind.scope == "Cluster" or self._sees(metadata.get("namespace", "")))
            and all(metadata.get("labels", {}).get(k) == v for k, v in labels.items())
        )

    def _watch(self, request: Request, kind: type[Resource], namespace: str | None, labels: dict[str, str]) -> Response:
        since = int(request.query_params["resourceVersion"])

        async def lines() -> AsyncIterator[str]:
            seen, drop = since, self._drop
            changed = asyncio.Event()
            self._changed.append(changed)
            self.watches += 1
            try:
                if seen < self.oldest:
                    error = Expired("Too old: list again.").to_status()
                    yield json.dumps({"type": "ERROR", "object": error}) + "\n"
                    return
                yield json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}) + "\n"
                while self._drop == drop and not self.stopping:
                    changed.clear()
                    for revision, type_, data in [h for h in self.history if h[0] > seen]:
                        seen = revision
                        if data["kind"] == kind.kind_name() and self._matches(
                            kind.plural, data, kind, namespace, labels
                        ):
                            yield json.dumps({"type": type_, "object": _shown(data)}, ensure_ascii=False) + "\n"
                    await changed.wait()
            finally:
                self.watches -= 1
                self._changed.remove(changed)

        return StreamingResponse(lines(), media_type="application/json")

    async def _one(self, request: Request, kind: type[Resource]) -> Response:
        namespace, name = request.path_params.get("ns", ""), request.path_params["name"]
        if kind.scope == "Namespaced":
            self._may(namespace, read=request.method == "GET")
        dry_run = bool(request.query_params.get("dryRun"))
        key = (kind.plural, namespace, name)
        if request.method == "GET":
            return JSONResponse(_shown(self._find(kind, namespace, name)))
        if request.method == "DELETE":
            data = self._find(kind, namespace, name)
            return JSONResponse(_shown(data if dry_run else self._commit(key, "DELETED", data)))
        body = await request.json()
        if request.headers["content-type"] == "application/merge-patch+json":
            body = _merge(self._find(kind, namespace, name), body)
        elif request.method == "PUT":
            self._find(kind, namespace, name)
        resource = kind.parse(body)
        resource.metadata.namespace = namespace or None
        old = self.objects.get(key)
        if old and request.headers["content-type"] == "application/apply-patch+yaml":
            for field in ("labels", "annotations"):
                merged = old["metadata"].get(field, {}) | getattr(resource.metadata, field)
                setattr(resource.metadata, field, merged)
        version = resource.metadata.resource_version
        if old and version and version != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{name} was changed since it was read.")
        if dry_run:
            return JSONResponse(_shown(resource.dump()))
        return JSONResponse(_shown(self._store(resource)), status_code=200 if old else 201)

    async def _logs(self, request: Request, kind: type[Resource]) -> Response:
        namespace, name = request.path_params["ns"], request.path_params["name"]
        self._find(kind, namespace, name)
        if (namespace, name) not in self.logs:
            raise NotFound(f"Nothing has run for {name} yet, so there is no log.")
        lines = self.logs[namespace, name]
        if tail := request.query_params.get("tailLines"):
            lines = lines[len(lines) - min(int(tail), len(lines)) :]
        if not request.query_params.get("follow"):
            return PlainTextResponse("".join(f"{line}\n" for line in lines))

        async def endless() -> AsyncIterator[str]:
            changed, drop = asyncio.Event(), self._drop
            self._changed.append(changed)
            try:
                for line in lines:
                    yield f"{line}\n"
                while self._drop == drop and not self.stopping:
                    await changed.wait()
            finally:
                self._changed.remove(changed)

        return StreamingResponse(endless(), media_type="text/plain")

    async def _events(self, request: Request, kind: type[Resource]) -> Response:
        key = (request.path_params.get("ns", ""), request.path_params["name"])
        self._find(kind, *key)
        return JSONResponse({"items": self.events.get(key, [])})

    async def _models(self, request: Request) -> Response:
        data = []
        for (plural, namespace, name), item in sorted(self.objects.items()):
            if plural == "modelservices" and namespace in {self.namespace, "public"}:
                id_ = name if namespace == self.namespace else f"{namespace}/{name}"
                data.append({"id": id_, "object": "model", "created": 1, "owned_by": namespace, "spec": item["kind"]})
        return JSONResponse({"object": "list", "data": data})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.chats.append(body)

        async def events() -> AsyncIterator[str]:
            for text in self.answer:
                chunk = {"choices": [{"delta": {"content": text}, "finish_reason": None}]}
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            if self.break_answer:
                return
            yield 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
            usage = {"completion_tokens": 12, "prompt_tokens": 5}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def _shown(data: dict[str, Any]) -> dict[str, Any]:
    """Return a resource as it is read: without its write-only fields."""
    spec = {name: value for name, value in data["spec"].items() if name not in KINDS[data["kind"]].write_only}
    return {**data, "spec": spec}


def _merge(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


class Serving:
    """The fake platform on a port of this machine, in a thread; it can stop and restart on the same port."""

    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform
        self._socket = self._bind(0)
        self.port: int = self._socket.getsockname()[1]
        self._start()

    @staticmethod
    def _bind(port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(64)
        return sock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PREFIX}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _start(self) -> None:
        self.platform.stopping = False
        config = uvicorn.Config(
            self.platform.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=2, loop="asyncio"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop: streams end, and connections are refused."""
        self.platform.stopping = True
        self.platform.drop_watches()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def restart(self) -> None:
        """Start again on the same port."""
        self._socket = self._bind(self.port)
        self._start()


@contextlib.contextmanager
def serving(platform: FakePlatform) -> Iterator[Serving]:
    server = Serving(platform)
    try:
        yield server
    finally:
        server.stop()


def modelservice(name: str = "chat", model: str = "demo://smollm2", **more: Any) -> dict[str, Any]:
    """Return a manifest, with `more` merged into it."""
    base: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "ModelService",
        "metadata": {"name": name},
        "spec": {"model": model},
    }
    return _merge(base, more)
