"""The store of resources in a cluster: its API server.

Kubernetes itself provides resourceVersions, generations, finalizers and watches. A custom
resource is written by one request that carries its preconditions; a Secret, and an ``apply``, whose
outcome depends on the stored object, by reading, deciding (`llmos_hub.stores.writes`) and writing on the
condition that nothing changed in between. So is one that people write or that claims names: only what grows or claims
other names than before has to be compared with the other resources of the namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from llmos.errors import Conflict, Internal, LLMOSError, NotFound, Unavailable
from llmos.resources.base import Resource
from llmos_hub.kubernetes.connection import FIELD_MANAGER, JSON_PATCH, APIError, KubernetesAPI
from llmos_hub.stores import attempts, writes
from llmos_hub.stores.base import Event, Listing, NamespaceQuota, Page, Selector, WatchEvent
from llmos_hub.stores.kubernetes.claims import ClaimLeases
from llmos_hub.stores.kubernetes.errors import translate
from llmos_hub.stores.kubernetes.events import Recorder
from llmos_hub.stores.kubernetes.objects import CUSTOM, Foreign, form_of
from llmos_hub.stores.kubernetes.watch import ClusterWatch
from llmos_hub.stores.salvage import Unreadable
from llmos_hub.stores.writes import expired, revision_of

__all__ = ["KubernetesStore"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

_LISTINGS: Final = 3  # attempts: a list expires when the server drops its version before the last page was read
_PARSE_AT_ONCE: Final = 100  # resources between two turns of the event loop: a few milliseconds
_LOGGED: Final = 1000  # unreadable objects that were logged and are not logged again
_ROOM_PAGE: Final = 50  # objects read at once for counting: they may be large
_WRITER: Final = {"fieldManager": FIELD_MANAGER}

_Objects = list[dict[str, Any]]
_Operations = list[dict[str, Any]]


def _set(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}  # replaces what is there


def _preconditions(resource: Resource) -> _Operations:
    """Return the operations that make the server refuse a JSON patch if the stored object is another one.

    The uid is tested explicitly: on a write of the status the server ignores the other metadata in the patch.
    """
    meta = resource.metadata
    found = [{"op": "test", "path": "/metadata/uid", "value": meta.uid}] if meta.uid else []
    return [*found, _set("/metadata/resourceVersion", meta.resource_version)] if meta.resource_version else found


def _replacements(obj: Mapping[str, Any], *, content: bool) -> _Operations:
    """Return the operations that replace metadata and, if wanted, the content of the stored object."""
    found = [_set(f"/metadata/{part}", obj["metadata"][part]) for part in ("labels", "annotations", "finalizers")]
    name = "data" if "data" in obj else "spec"
    return [*found, _set(f"/{name}", obj[name])] if content else found


def _size(obj: Mapping[str, Any]) -> int:
    """Return the size in bytes of the parts of an object that its users write."""
    metadata = {key: obj["metadata"].get(key) for key in ("name", "labels", "annotations")}
    content = [metadata, obj.get("spec"), obj.get("data")]
    return len(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())


class KubernetesStore:
    """A `llmos_hub.stores.base.Store` on a cluster's API server, for all kinds except those stored in the database.

    Parameters
    ----------
    api
        The connection to the cluster; the store closes it.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    watch_patience
        Seconds without the API server after which watches end.
    claims
        The leases under which names are claimed.

    Attributes
    ----------
    unreadable
        Number of objects in lists and watches that this version couldn't read (completely).
    """

    def __init__(
        self,
        api: KubernetesAPI,
        *,
        bookmark_interval: float = 15.0,
        watch_patience: float = 30.0,
        claims: ClaimLeases | None = None,
    ) -> None:
        self._api = api
        self._claims = claims or ClaimLeases(api)
        self._bookmark_interval, self._watch_patience = bookmark_interval, watch_patience
        self._recorder = Recorder(api)
        self._watches: set[ClusterWatch[Any]] = set()
        self.unreadable = 0
        self._logged: set[tuple[str, str]] = set()

    # -- reading

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one resource; see `llmos_hub.stores.base.Store.get`."""
        writes.check_namespace(kind, namespace)
        path = form_of(kind).path(kind, namespace, name)
        with self._words(kind, namespace, name):
            obj = await self._api.request("GET", path)
        try:
            return form_of(kind).read(kind, obj)
        except Foreign:
            raise writes.not_found(kind, namespace, name) from None
        except Unreadable as error:
            raise Internal(f'This version can\'t read {kind.kind_name()} "{namespace}/{name}": {error}.') from None

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all resources of a kind; see `llmos_hub.stores.base.Store.list`."""
        writes.check_namespace(kind, namespace, required=False)
        for _ in range(_LISTINGS):
            try:
                objects, version = await self._pages(kind, namespace, labels)
            except APIError as error:
                if error.status != 410:
                    raise translate(error, kind, namespace, "") from None
                continue
            return Listing(await self._all_readable(kind, objects), version)
        raise Unavailable(
            f"The cluster's {kind.plural} can't be listed: the API server forgets each list before it is read."
        )

    async def page(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        labels: Selector | None = None,
    ) -> Page[R]:
        """Read a page of resources; see `llmos_hub.stores.base.Store.page`. The token is the API server's own."""
        writes.check_namespace(kind, namespace, required=False)
        params = {**form_of(kind).params(kind, labels), "limit": str(limit), **({"continue": token} if token else {})}
        with self._words(kind, namespace, ""):
            found = await self._api.request("GET", form_of(kind).path(kind, namespace), params=params)
        items = await self._all_readable(kind, found.get("items") or [])
        return Page(items, found["metadata"]["resourceVersion"], found["metadata"].get("continue") or "")

    @contextlib.asynccontextmanager
    async def _admitted(
        self, new: R, old: R | None, quota: NamespaceQuota | None
    ) -> AsyncIterator[Mapping[str, float]]:
        """Refuse a write that exceeds `quota` or claims a name of another resource; yields the write's time limit.

        The others are read only if the resource grows or claims a name. While they are compared with `quota` they may
        grow, too; the number of resources is limited exactly by the namespace's ResourceQuota, which the API server
        enforces.
        """
        kind, meta = type(new), new.metadata
        names = writes.claimed(old, new)
        before, after = (
            _size(form_of(kind).write(r)) if r is not None and quota is not None else 0 for r in (old, new)
        )
        lease = self._claims.holding(kind, meta.namespace or "") if names else contextlib.nullcontext()
        with self._words(kind, meta.namespace, meta.name):
            async with lease as left:
                if names or after > before:
                    usage, holders = await self._others(new)
                    writes.check_claims(old, new, holders)
                    if quota is not None:
                        usage = usage.plus(before) if old is not None else usage
                        writes.check_quota(new, quota, usage, before=before, after=after)
                yield {"timeout": left()} if left is not None else {}

    async def _others(self, resource: Resource) -> tuple[writes.NamespaceUsage, Mapping[str, str]]:
        """Return the usage of the other resources in the namespace, and who has which claimed name."""
        kind, meta, form = type(resource), resource.metadata, form_of(type(resource))
        usage = writes.NamespaceUsage(0, 0)
        holders: dict[str, str] = {}
        path, params = form.path(kind, meta.namespace), form.params(kind, None)
        async for page in self._api.list_pages(path, params=params, page=_ROOM_PAGE):
            others = [obj for obj in page.get("items") or [] if obj["metadata"]["name"] != meta.name]
            for obj in others:
                usage = usage.plus(_size(obj))
            for other in await self._all_readable(kind, others) if resource.claims else ():
                holders |= dict.fromkeys(other.claims, other.metadata.name)
        return usage, holders

    async def _pages(
        self, kind: type[Resource], namespace: str | None, labels: Selector | None
    ) -> tuple[_Objects, str]:
        objects: _Objects = []
        version = ""
        path, params = form_of(kind).path(kind, namespace), form_of(kind).params(kind, labels)
        async for page in self._api.list_pages(path, params=params):
            version = version or page["metadata"]["resourceVersion"]
            objects += page.get("items") or []
        return objects, version

    async def _all_readable(self, kind: type[R], objects: _Objects) -> Sequence[R]:
        items = []
        for count, obj in enumerate(objects):
            if count % _PARSE_AT_ONCE == _PARSE_AT_ONCE - 1:
                await asyncio.sleep(0)
            resource = self._readable(kind, obj)
            if resource is not None:
                items.append(resource)
        return sorted(items, key=lambda item: (item.metadata.namespace or "", item.metadata.name))

    def _readable(self, kind: type[R], obj: Mapping[str, Any]) -> R | None:
        """Return the resource; None if it is not of the kind, or can't be read at all, which is logged and counted."""
        try:
            found = form_of(kind).read(kind, obj)
        except Foreign:
            return None
        except Unreadable as error:
            self._noted(kind, obj, f"and is left out: {error}")
            return None
        if found.unread:
            self._noted(kind, obj, f"whole: {found.unread}")
        return found

    def _noted(self, kind: type[Resource], obj: Mapping[str, Any], why: str) -> None:
        meta = obj["metadata"]
        self.unreadable += 1
        what = (str(meta.get("uid")), str(meta.get("resourceVersion")))
        if what not in self._logged and len(self._logged) < _LOGGED:
            self._logged.add(what)
            path = f"{meta.get('namespace')}/{meta.get('name')}"
            log.warning("%s %s can't be read by this version %s", kind.kind_name(), path, why)

    @contextlib.asynccontextmanager
    async def watch(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: Selector | None = None,
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        """Follow changes; see `llmos_hub.stores.base.Store.watch`."""
        writes.check_namespace(kind, namespace, required=False)
        if revision_of(resource_version) == 0:  # the server would read it as "any version", not as "from the beginning"
            raise expired(resource_version)
        watch = ClusterWatch(
            self._api,
            form_of(kind).path(kind, namespace),
            form_of(kind).params(kind, labels),
            read=lambda obj: self._readable(kind, obj),
            refusal=lambda error: translate(error, kind, namespace, ""),
            position=resource_version,
            bookmark_interval=self._bookmark_interval,
            patience=self._watch_patience,
        )
        self._watches.add(watch)
        watch.start()
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            await watch.close()

    # -- writing

    async def create(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Store a new resource; see `llmos_hub.stores.base.Store.create`."""
        kind, meta = type(resource), resource.metadata
        writes.check_namespace(kind, meta.namespace)
        new = writes.created(resource)
        self._check(new)
        path = form_of(kind).path(kind, meta.namespace)
        async with self._admitted(new, None, quota) as limit:
            return await self._write("POST", path, new, body=form_of(kind).write(new), **limit)

    async def update(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Replace everything except status; see `llmos_hub.stores.base.Store.update`."""
        kind, meta = type(resource), resource.metadata
        writes.check_namespace(kind, meta.namespace)
        claims = resource.claims and meta.deletion_timestamp is None  # a controller's last write needn't read first
        if form_of(kind) is not CUSTOM or quota is not None or claims:
            decide = functools.partial(writes.updated, wanted=resource)
            return await self._change(kind, meta.namespace, meta.name, decide, quota=quota)
        self._check(resource)
        # a spec that this version can't read completely must not be overwritten
        operations = _replacements(CUSTOM.write(resource), content=not resource.unread)
        return await self._patch(resource, [*_preconditions(resource), *operations])

    async def patch_status(self, resource: R) -> R:
        """Replace status; see `llmos_hub.stores.base.Store.patch_status`."""
        kind, meta = type(resource), resource.metadata
        writes.check_namespace(kind, meta.namespace)
        if form_of(kind) is not CUSTOM:
            return await self._change(
                kind, meta.namespace, meta.name, lambda current: writes.with_status(current, resource)
            )
        self._check(resource)
        status = writes.dumped(resource.status)
        operations = [*_preconditions(resource), _set("/status", status)]
        if status == writes.dumped(writes.empty_status(kind)):
            # an object without a status stays without one, so that this write changes nothing
            operations.append({"op": "remove", "path": "/status"})
        return await self._patch(resource, operations, "status")

    async def apply(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Create the resource or replace its spec; see `llmos_hub.stores.base.Store.apply`."""
        kind, meta = type(resource), resource.metadata
        change = functools.partial(self._change, kind, meta.namespace, meta.name, quota=quota)
        return await attempts.apply(resource, change, functools.partial(self.create, quota=quota))

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete the resource, or mark it for deletion; see `llmos_hub.stores.base.Store.delete`."""
        for _ in range(attempts.ATTEMPTS):
            current = await self.get(kind, namespace, name)
            outcome = writes.deleted(current, uid)
            if not outcome.changed:
                return current
            meta = current.metadata
            body = {"preconditions": {"uid": meta.uid, "resourceVersion": meta.resource_version}}
            with contextlib.suppress(Conflict):
                return await self._write("DELETE", form_of(kind).path(kind, namespace, name), current, body=body)
        raise attempts.too_busy(kind, namespace, name)

    async def _change(
        self,
        kind: type[R],
        namespace: str | None,
        name: str,
        decide: attempts.Decide[R],
        *,
        quota: NamespaceQuota | None = None,
    ) -> R:
        """Write the outcome of `decide` on the stored resource; decide again when another write came first."""
        for _ in range(attempts.ATTEMPTS):
            current = await self.get(kind, namespace, name)
            outcome = decide(current)
            if not outcome.changed:
                return current
            self._check(outcome.resource)
            operations = _replacements(form_of(kind).write(outcome.resource), content=outcome.spec_changed)
            async with self._admitted(outcome.resource, current, quota) as limit:
                with contextlib.suppress(Conflict):
                    return await self._patch(outcome.resource, [*_preconditions(current), *operations], **limit)
        raise attempts.too_busy(kind, namespace, name)

    async def _patch(self, resource: R, operations: _Operations, *more: str, **limit: float) -> R:
        kind, meta = type(resource), resource.metadata
        path = form_of(kind).path(kind, meta.namespace, meta.name, *more)
        return await self._write("PATCH", path, resource, body=operations, content_type=JSON_PATCH, **limit)

    async def _write(self, method: str, path: str, resource: R, **request: Any) -> R:
        """Send a write and return the resource in the answer, or `resource` itself if the answer doesn't contain it."""
        kind, meta = type(resource), resource.metadata
        with self._words(kind, meta.namespace, meta.name):
            obj = await self._api.request(method, path, params=_WRITER, **request)
        return form_of(kind).read(kind, obj) if obj.get("kind") != "Status" else resource

    @staticmethod
    def _check(resource: Resource) -> None:
        """Refuse a resource that could not be read back, with its type's own error, or is too large to be stored."""
        data = resource.dump()
        type(resource).parse(data)
        writes.check_size(resource, len(resource.model_dump_json(exclude_none=True)))

    @staticmethod
    @contextlib.contextmanager
    def _words(kind: type[Resource], namespace: str | None, name: str) -> Any:
        try:
            yield
        except APIError as error:
            raise translate(error, kind, namespace, name) from None

    # -- events

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event; see `llmos_hub.stores.base.Store.record`."""
        with self._words(type(resource), resource.metadata.namespace, resource.metadata.name):
            await self._recorder.record(resource, type_, reason, message)

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return a resource's events; see `llmos_hub.stores.base.Store.events`."""
        try:
            resource = await self.get(kind, namespace, name)
        except NotFound:
            return []
        with self._words(kind, namespace, name):
            return await self._recorder.events(resource)

    # -- the connection

    async def healthy(self) -> bool:
        """Return whether the API server answers within two seconds."""
        try:
            await self._api.request("GET", "/readyz", timeout=2.0)
        except (APIError, LLMOSError):
            return False
        return True

    async def close(self) -> None:
        """Close all connections; watches end with `Unavailable`."""
        for watch in list(self._watches):
            await watch.close()
        await self._api.close()
