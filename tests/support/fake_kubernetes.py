"""A small API server in this process, over real HTTP, for tests of code that reads and writes Kubernetes objects.

It passes `tests.support.kubernetes_contract`. Of an object it validates the name and the labels, it sets no defaults but
those of the contract, and it runs nothing but what deletes dependents; a namespace is deleted at once. In server-side
apply and its conflicts a list is one field, and there is no ``managedFields``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import random
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llmos_hub.kubernetes.connection import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, KubernetesAPI
from tests.support import kubernetes_semantics as semantics
from tests.support.asgi import serving
from tests.support.kubernetes_semantics import Refused
from tests.support.waiting import PATIENCE

__all__ = ["FakeKubernetes", "fake_kubernetes"]

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<ns>[^/]+)(?=/[^/]))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
Key = tuple[str, str, str]
"""Plural, namespace, name."""
Wanted = Callable[[Key, dict[str, Any] | None], bool]
"""A check whether an object is in the list or watch that was asked for."""


@dataclass
class FakeKubernetes:
    """The state of the fake cluster, and attributes by which tests cause faults.

    Attributes
    ----------
    down
        Whether every request gets 503.
    logs
        Logs by namespace and pod.
    oldest
        The oldest version from which changes can be watched and lists continued; `forget` sets it.
    silent
        Whether responses are held back.
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
    owners: dict[Key, semantics.Owners] = field(default_factory=dict)
    revision: int = 0
    oldest: int = 0
    down: bool = False
    refused: int = 0
    silent: bool = False
    stopping: bool = False
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

    def remove(self, plural: str, name: str, namespace: str = "", *, orphan: bool = False) -> None:
        """Delete an object with its dependents, or with `orphan` release these."""
        key = (plural, namespace, name)
        old = self.objects.pop(key)
        self.owners.pop(key, None)
        self._note(key, old, None)
        if plural == "namespaces":
            for inside in [key for key in self.objects if key[1] == name]:
                self._note(inside, self.objects.pop(inside), None)
        for dependent, obj in list(self.objects.items()):
            references = obj["metadata"].get("ownerReferences") or []
            left = [each for each in references if each["uid"] != old["metadata"]["uid"]]
            if dependent not in self.objects or left == references:
                continue
            if left or orphan:
                meta = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
                self._store(
                    dependent, obj, {**obj, "metadata": {**meta, **({"ownerReferences": left} if left else {})}}
                )
            else:
                self._delete(dependent, obj, {})

    def forget(self) -> None:
        """Discard the history, as etcd does when it is compacted."""
        self.oldest = self.revision

    async def until(self, holds: Any, what: str = "that", timeout: float = PATIENCE) -> Any:
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

    def _store(self, key: Key, old: dict[str, Any] | None, new: dict[str, Any], manager: str = "") -> dict[str, Any]:
        meta = new["metadata"]
        if old is None:
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
            if semantics.has_generation(new):
                meta["generation"] = 1
        else:
            kept = ("uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "generation")
            meta |= {name: value for name in kept if (value := old["metadata"].get(name)) and not meta.get(name)}
            meta |= {name: old["metadata"][name] for name in kept[:3]}
        if key[0] == "namespaces":
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = key[2]
        if new == old:
            return old
        self.owners.setdefault(key, semantics.Owners()).wrote(manager, old, new)
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        self.objects[key] = new
        self._note(key, old, new)
        return new

    def _note(self, key: Key, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None:
            self.revision += 1
        self.history.append((self.revision, key, old, new))
        self.changed.set()
        self.changed = asyncio.Event()

    def _at(self, revision: int) -> dict[Key, dict[str, Any]]:
        """Return all objects as they were at a version."""
        objects = dict(self.objects)
        for changed, key, old, _ in reversed(self.history):
            if changed <= revision:
                break
            if old is None:
                objects.pop(key, None)
            else:
                objects[key] = old
        return objects

    # Answering

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
        )

    async def _answer(self, request: Request) -> Response:
        while self.silent and not self.stopping:
            await self._change(0.02)
        if self.down:
            self.refused += 1
            return _status(Refused(503, "ServiceUnavailable", "etcd is away"))
        if request.url.path == "/readyz":
            return JSONResponse({"ready": True})
        try:
            return await self._served(request)
        except Refused as error:
            return _status(error)

    async def _served(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.url.path)
        if found is None:
            raise Refused(404, "NotFound", request.url.path)
        plural, namespace, name = found["plural"], found["ns"] or "", found["name"]
        if plural == "namespaces":
            namespace = ""
        if plural == "secrets" and self.readers is not None and namespace not in self.readers:
            message = f'secrets is forbidden: User "x" cannot touch it in "{namespace}"'
            raise Refused(403, "Forbidden", message)
        if request.method != "GET":
            self.writes[f"{request.method} {plural}"] += 1
        if name is None and request.method == "GET":
            return self._list(request, plural, namespace)
        body = json.loads(await request.body() or b"{}")
        if request.method == "POST":
            return JSONResponse(self._create(plural, namespace, body, _manager(request)), status_code=201)
        return self._one(request, (plural, namespace, str(name)), body, found["sub"])

    def _create(self, plural: str, namespace: str, body: dict[str, Any], manager: str) -> dict[str, Any]:
        meta = body["metadata"]
        if "generateName" in meta and not meta.get("name"):
            meta["name"] = meta["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        if namespace and meta.setdefault("namespace", namespace) != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise Refused(400, "BadRequest", message)
        semantics.validate(body)
        key = (plural, namespace, meta["name"])
        if namespace and ("namespaces", "", namespace) not in self.objects:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found', kind="namespaces", name=namespace)
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{key[2]}" already exists')
        self._check_quota(key)
        body.pop("status", None)
        if plural == "resourcequotas":
            hard = body["spec"]["hard"]
            body["status"] = {"hard": hard, "used": {name: str(self._used(namespace, name)) for name in hard}}
        return self._store(key, None, semantics.with_data(body) if plural == "secrets" else body, manager)

    def _check_quota(self, key: Key) -> None:
        counted = f"count/{key[0]}"
        for (plural, namespace, name), quota in self.objects.items():
            hard = quota.get("spec", {}).get("hard", {}).get(counted) if plural == "resourcequotas" else None
            if namespace == key[1] and hard is not None and (used := self._used(namespace, counted)) >= int(hard):
                message = (
                    f'{key[0]} "{key[2]}" is forbidden: exceeded quota: {name}, requested: {counted}=1, '
                    f"used: {counted}={used}, limited: {counted}={hard}"
                )
                raise Refused(403, "Forbidden", message)

    def _used(self, namespace: str, counted: str) -> int:
        return sum(key[:2] == (counted.removeprefix("count/"), namespace) for key in self.objects)

    def _one(self, request: Request, key: Key, body: Any, sub: str | None) -> Response:
        old, kind = self.objects.get(key), request.headers.get("content-type", "").partition(";")[0]
        applied = request.method == "PATCH" and kind == APPLY_PATCH
        if old is None and applied:
            owners = semantics.Owners()
            new = self._create(key[0], key[1], owners.applied(_manager(request), {}, body, force=False), "")
            self.owners[key] = owners
            return JSONResponse(new, status_code=201)
        if old is None:
            raise Refused(404, "NotFound", f'{key[0]} "{key[2]}" not found', kind=key[0], name=key[2])
        if request.method == "GET":
            return self._log(request, key, old) if sub == "log" else JSONResponse(old)
        if request.method == "DELETE":
            return JSONResponse(self._delete(key, old, body))
        if applied:
            new = self.owners.setdefault(key, semantics.Owners()).applied(
                _manager(request), old, body, force=request.query_params.get("force") == "true"
            )
        elif request.method == "PATCH":
            new = _patched(old, body, kind)
        else:
            new = body
        return JSONResponse(self._replace(key, old, copy.deepcopy(new), sub, None if applied else _manager(request)))

    def _replace(
        self, key: Key, old: dict[str, Any], new: dict[str, Any], sub: str | None, manager: str | None
    ) -> dict[str, Any]:
        """Store the next state of an object; without a manager the fields' owners are already recorded."""
        meta, before = new["metadata"], old["metadata"]
        if meta.setdefault("name", key[2]) != key[2]:
            message = f"the name of the object ({meta['name']}) does not match the name on the URL ({key[2]})"
            raise Refused(400, "BadRequest", message)
        if key[1]:
            meta.setdefault("namespace", key[1])
        what = f'Operation cannot be fulfilled on {key[0]} "{key[2]}"'
        if meta.get("uid") not in (None, before["uid"]):
            message = f"{what}: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise Refused(409, "Conflict", message)
        version = meta.get("resourceVersion")
        if version is None and "llmos.ai" in old.get("apiVersion", ""):
            message = f"{key[2]}: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise Refused(422, "Invalid", message, ("FieldValueInvalid", "metadata.resourceVersion"))
        if version not in (None, before["resourceVersion"]):
            raise Refused(409, "Conflict", f"{what}: the object has been modified; please apply your changes to it")
        semantics.validate(new)
        if sub == "status":
            new = {**old, "metadata": {**before}, "status": new.get("status", {})}
        else:
            new.pop("status", None)
            new |= {"status": old["status"]} if "status" in old else {}
        meta = new["metadata"]
        if "generation" in before:
            meta["generation"] = before["generation"] + (new.get("spec") != old.get("spec"))
        if "deletionTimestamp" in before:
            if added := set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()):
                message = f"{key[2]}: metadata.finalizers: Forbidden: no new finalizers can be added: {sorted(added)}"
                raise Refused(422, "Invalid", message, ("FieldValueForbidden", "metadata.finalizers"))
            if not meta.get("finalizers"):
                self.remove(key[0], key[2], key[1])
                return new
        owners = copy.deepcopy(self.owners.get(key)) if manager is None else None
        stored = self._store(key, old, new, manager or "")
        if owners is not None:
            self.owners[key] = owners
        return stored

    def _delete(self, key: Key, old: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        meta = old["metadata"]
        for name, wanted in (options.get("preconditions") or {}).items():
            if wanted != meta[name]:
                message = f"Precondition failed: {name} in precondition: {wanted}, in object meta: {meta[name]}"
                raise Refused(409, "Conflict", message)
        if meta.get("finalizers"):
            if "deletionTimestamp" in meta:
                return old
            going = {**meta, "deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}
            if "generation" in meta:
                going["generation"] += 1
            return self._store(key, old, {**old, "metadata": going})
        self.remove(key[0], key[2], key[1], orphan=options.get("propagationPolicy") == "Orphan")
        details = {"name": key[2], "kind": key[0], "uid": meta["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _log(self, request: Request, key: Key, pod: dict[str, Any]) -> Response:
        container, spec = request.query_params.get("container"), pod.get("spec", {})
        there = [each["name"] for part in ("initContainers", "containers") for each in spec.get(part) or ()]
        if container and there and container not in there:
            raise Refused(400, "BadRequest", f"container {container} is not valid for pod {key[2]}")
        lines = self.logs.get(key[1:], "").splitlines(keepends=True)
        tail = request.query_params.get("tailLines")
        return PlainTextResponse("".join(lines if tail is None else lines[max(0, len(lines) - int(tail)) :]))

    # Lists and watches

    def _list(self, request: Request, plural: str, namespace: str) -> Response:
        query = request.query_params
        by_label = semantics.label_matcher(query.get("labelSelector", ""))
        by_field = semantics.field_matcher(query.get("fieldSelector", ""), plural)

        def wanted(key: Key, obj: dict[str, Any] | None) -> bool:
            within = key[0] == plural and namespace in ("", key[1])
            return obj is not None and within and by_label(obj) and by_field(obj)

        if query.get("watch"):
            return StreamingResponse(self._watch(request, plural, wanted), media_type="application/json")
        if int(query.get("resourceVersion") or 0) > self.revision:
            message = f"Too large resource version: {query['resourceVersion']}, current: {self.revision}"
            raise Refused(504, "Timeout", message, ("ResourceVersionTooLarge", ""))
        revision, after = self.revision, None
        if token := query.get("continue"):
            revision, *after = json.loads(base64.b64decode(token))
            if revision < self.oldest:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
        found = [(key, obj) for key, obj in sorted(self._at(revision).items()) if wanted(key, obj)]
        found = [(key, obj) for key, obj in found if after is None or key > tuple(after)]
        limit = int(query.get("limit") or 0) or len(found)
        meta = {"resourceVersion": str(revision)}
        if len(found) > limit:
            meta["continue"] = base64.b64encode(json.dumps([revision, *found[limit - 1][0]]).encode()).decode()
        what = {"kind": f"{semantics.kind_of(plural)}List", "apiVersion": request.url.path.split("/", 2)[2]}
        what["apiVersion"] = "/".join(what["apiVersion"].split("/")[: 1 if request.url.path.startswith("/api/") else 2])
        items = [obj for _, obj in found[:limit]]
        if "llmos.ai" not in what["apiVersion"]:  # for built-in kinds the server omits kind and apiVersion of items
            items = [{part: value for part, value in obj.items() if part not in what} for obj in items]
        return JSONResponse({**what, "metadata": meta, "items": items})

    async def _watch(self, request: Request, plural: str, wanted: Wanted) -> AsyncIterator[bytes]:
        query, clock = request.query_params, asyncio.get_running_loop().time
        since, end = int(query.get("resourceVersion") or 0), clock() + float(query.get("timeoutSeconds") or 3600)
        if since == 0:
            since = self.revision
            for key, obj in sorted(self.objects.items()):
                if wanted(key, obj):
                    yield _line("ADDED", obj)
        elif since < self.oldest:
            yield _line("ERROR", _body(Refused(410, "Expired", f"too old resource version: {since} ({self.oldest})")))
            return
        at, told = 0, since
        while not self.stopping and clock() < end:
            changed, begun = self.changed, told
            while at < len(self.history):
                revision, key, old, new = self.history[at]
                at += 1
                if revision <= since:
                    continue
                was, is_ = wanted(key, old), wanted(key, new)
                if is_:
                    yield _line("MODIFIED" if was else "ADDED", new)
                elif was:
                    yield _line("DELETED", old, revision)
                told = revision if was or is_ else told
            if told != begun and query.get("allowWatchBookmarks"):
                of = {"kind": semantics.kind_of(plural), "metadata": {"creationTimestamp": None}}
                yield _line("BOOKMARK", of, told)
            await self._change(min(0.2, max(0.0, end - clock())), changed)

    async def _change(self, patience: float, changed: asyncio.Event | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for((changed or self.changed).wait(), patience)

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


def _manager(request: Request) -> str:
    agent = request.headers.get("user-agent", "").partition("/")[0]
    return request.query_params.get("fieldManager") or agent


def _patched(old: dict[str, Any], body: Any, kind: str) -> Any:
    if kind == JSON_PATCH:
        return semantics.json_patched(old, body)
    if kind == MERGE_PATCH:
        return semantics.merged(old, body)
    if kind == _STRATEGIC_PATCH and "llmos.ai" not in old.get("apiVersion", ""):
        return semantics.strategically_merged(old, body)
    raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _line(type_: str, obj: Any, revision: int | None = None) -> bytes:
    if revision is not None:
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


def _body(error: Refused) -> dict[str, Any]:
    causes = {"causes": error.causes} if error.causes else {}
    details = {"details": {**error.about, **causes}} if error.about or causes else {}
    said = {"status": "Failure", "code": error.status, "reason": error.reason, "message": error.message}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **said, **details}


def _status(error: Refused) -> Response:
    return JSONResponse(_body(error), status_code=error.status)
