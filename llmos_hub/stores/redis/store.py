"""The store of resources on Valkey or Redis.

A write reads and decides here, in Python, and is stored by a script that checks that nothing changed in
between (`llmos_hub.stores.redis.scripts.COMMIT`), as the Kubernetes API server does on etcd. A write without a
resourceVersion is repeated on the new state.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import functools
import itertools
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, TypeVar

from pydantic import TypeAdapter

from llmos.errors import Internal
from llmos.resources import KINDS
from llmos.resources.base import Resource, utcnow
from llmos_hub.stores import attempts, writes
from llmos_hub.stores.base import (
    ADDED,
    DELETED,
    MODIFIED,
    PAGE_BYTES,
    Event,
    Listing,
    NamespaceQuota,
    Page,
    Selector,
    WatchEvent,
)
from llmos_hub.stores.redis.changes import Change
from llmos_hub.stores.redis.codec import Codec, StoredValue
from llmos_hub.stores.redis.continuing import Position
from llmos_hub.stores.redis.keys import ResourceKeys
from llmos_hub.stores.redis.scripts import COMMIT, COMMIT_ALWAYS, FETCH, INDEX, LIST, NAMES, PREPARE, RECORD
from llmos_hub.stores.redis.sealing import Sealer
from llmos_hub.stores.redis.tail import Tail
from llmos_hub.stores.salvage import Unreadable
from llmos_hub.valkey.database import Database
from llmos_hub.valkey.scripts import Script

__all__ = ["RedisStore"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
_Parts = list[tuple[bytes, list[bytes]]]  # namespaces, each with the script's list for it
_Values = list[tuple[tuple[str, str], bytes]]  # namespace and name, and the stored value

KEEP_CHANGES: Final = 10_000
"""Approximate number of past changes that are kept for watches; fewer would make slow watches list again."""
KEEP_BYTES: Final = 32 * 1024 * 1024
"""Their approximate bytes."""
_EVENT: Final = TypeAdapter(Event)
_PARSE_AT_ONCE: Final = 100  # resources between two turns of the event loop: a few milliseconds
_LOGGED: Final = 1000  # unreadable values that were logged and are not logged again


class RedisStore:
    """A `llmos_hub.stores.base.Store` on Valkey or Redis 7.0 and newer.

    Parameters
    ----------
    database
        The connection to the database; the store closes it.
    sealer
        Encrypts write-only fields; without a key they are read as empty and can't be written.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    watch_patience
        Seconds without the database after which watches end.

    Attributes
    ----------
    unreadable
        Number of stored values in lists and watches that this version couldn't read (completely).
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        *,
        bookmark_interval: float = 15.0,
        watch_patience: float = 30.0,
    ) -> None:
        self._database = database
        database.prepare_with(self._prepare)
        self._keys = ResourceKeys()
        self._codec = Codec(sealer)
        self._tail = Tail(database, self._of_change, bookmark_interval=bookmark_interval, patience=watch_patience)
        self.unreadable = 0
        self._logged: set[tuple[str, int]] = set()

    # -- reading

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one resource; see `llmos_hub.stores.base.Store.get`."""
        found = await self._read(kind, namespace, name)
        if found is None:
            raise writes.not_found(kind, namespace, name)
        return found[1]

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all resources of a kind; see `llmos_hub.stores.base.Store.list`."""
        writes.check_namespace(kind, namespace, required=False)
        revision, values = await self._read_all(kind, namespace)
        found = [resource async for _, _, resource in self._parsed(kind, values)]
        items = [r for r in found if r is not None and writes.match(r.metadata.labels, labels)]
        return Listing(items, revision)

    async def page(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        labels: Selector | None = None,
    ) -> Page[R]:
        """Read a page of resources; see `llmos_hub.stores.base.Store.page`."""
        writes.check_namespace(kind, namespace, required=False)
        begun = Position.parse(token) if token else None
        if begun is not None:  # a watch from the list's version must find all changes since the first page
            (await self._tail.state()).check(begun.revision)
        revision, parts = await self._read_kind(NAMES, kind, namespace)
        version = begun.revision if begun is not None else int(revision)
        keys = sorted((space.decode(), name.decode()) for space, names in parts for name in names)
        if begun is not None:
            keys = keys[bisect.bisect_right(keys, (begun.namespace, begun.name)) :]
        wanted = keys[:limit]
        arguments = [self._keys.objects(kind.plural), PAGE_BYTES, *itertools.chain.from_iterable(wanted)]
        values = await self._database.script(FETCH, [self._keys.revision], arguments, repeatable=True)
        items = []
        for key, raw in zip(wanted, values, strict=False):  # fewer values if they are large
            resource = self._readable(kind, "/".join(filter(None, key)), raw) if raw is not None else None
            if resource is not None and writes.match(resource.metadata.labels, labels):
                items.append(resource)
        rest = "" if len(values) == len(keys) else str(Position(version, *keys[len(values) - 1]))
        return Page(items, str(version), rest)

    async def _read_all(self, kind: type[Resource], namespace: str | None) -> tuple[str, _Values]:
        """Return the revision, and all values of the kind as of that revision, by namespace and name."""
        revision, parts = await self._read_kind(LIST, kind, namespace)
        values = [
            ((space.decode(), name.decode()), raw)
            for space, flat in parts
            for name, raw in zip(flat[::2], flat[1::2], strict=True)
        ]
        return revision, values

    async def _read_kind(self, script: Script, kind: type[Resource], namespace: str | None) -> tuple[str, _Parts]:
        """Return the revision, and the script's answer by namespace."""
        arguments = [self._keys.objects(kind.plural)]
        if namespace is not None or kind.scope == "Cluster":
            arguments.append(namespace or "")
        keys = [self._keys.revision, self._keys.namespaces(kind.plural)]
        while True:
            await self._database.epoch()
            revision, *parts = await self._database.script(script, keys, arguments, repeatable=True)
            if revision is not None:
                break
            self._database.forget()
        return revision.decode(), list(zip(parts[::2], parts[1::2], strict=True))

    async def _parsed(self, kind: type[R], values: _Values) -> AsyncIterator[tuple[str, bytes, R | None]]:
        """Yield name, value and resource (None if this version can't read it), sorted."""
        for count, (key, raw) in enumerate(sorted(values)):
            if count % _PARSE_AT_ONCE == _PARSE_AT_ONCE - 1:
                await asyncio.sleep(0)
            yield key[1], raw, self._readable(kind, "/".join(filter(None, key)), raw)

    def _readable(self, kind: type[R], path: str, raw: bytes) -> R | None:
        """Return the resource; None if this version can't read it. One that it can't read completely is logged, too."""
        stored = StoredValue.split(raw)
        namespace, _, name = path.rpartition("/")
        resource = self._decoded(kind, stored, namespace, name)
        if resource is not None and resource.unread:
            self._noted(f"{kind.kind_name()} {path}", stored.revision, resource.unread)
        return resource

    def _of_change(self, kind: type[R], change: Change) -> R | None:
        return self._decoded(kind, StoredValue(change.revision, "", change.body), change.namespace, change.name)

    def _decoded(self, kind: type[R], stored: StoredValue, namespace: str, name: str) -> R | None:
        """Return the resource; None if this version can't read it, which is logged and counted."""
        try:
            return self._codec.decode(kind, stored, namespace, name)
        except Unreadable as error:
            what = f"{kind.kind_name()} {'/'.join(filter(None, (namespace, name)))} is left out of lists and watches:"
            self._noted(what, stored.revision, str(error))
            return None

    def _noted(self, what: str, revision: int, why: str) -> None:
        self.unreadable += 1
        if (what, revision) not in self._logged and len(self._logged) < _LOGGED:
            self._logged.add((what, revision))
            log.error("%s can't be read by this version: %s", what, why)

    async def _read(self, kind: type[R], namespace: str | None, name: str) -> tuple[StoredValue, R] | None:
        """Return the stored value and the resource of that name; None if there is none."""
        writes.check_namespace(kind, namespace)
        raw = await self._database.run("HGET", self._keys.objects(kind.plural, namespace or ""), name, repeatable=True)
        return self._parse(kind, namespace, name, raw)

    def _parse(
        self, kind: type[R], namespace: str | None, name: str, raw: bytes | None
    ) -> tuple[StoredValue, R] | None:
        if raw is None:
            return None
        try:
            stored = StoredValue.split(raw)
            return stored, self._codec.decode(kind, stored, namespace or "", name)
        except Unreadable as error:
            path = f"{namespace}/{name}" if namespace else name
            raise Internal(
                f'This version can\'t read {kind.kind_name()} "{path}": {error}. A newer one may have written it.'
            ) from None

    # -- watching

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
        watch = await self._tail.open(kind, namespace, labels, writes.revision_of(resource_version))
        try:
            yield watch
        finally:
            self._tail.release(watch)

    # -- writing

    async def create(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Store a new resource; see `llmos_hub.stores.base.Store.create`."""
        writes.check_namespace(type(resource), resource.metadata.namespace)
        stored, _ = await self._commit(ADDED, writes.created(resource), None, None, spec_changed=True, quota=quota)
        if stored is None:
            raise writes.already_exists(type(resource), resource.metadata.namespace, resource.metadata.name)
        return stored

    async def update(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Replace everything except status; see `llmos_hub.stores.base.Store.update`."""
        kind, meta = type(resource), resource.metadata
        return await self._change(
            kind, meta.namespace, meta.name, lambda current: writes.updated(current, resource), quota=quota
        )

    async def patch_status(self, resource: R) -> R:
        """Replace status; see `llmos_hub.stores.base.Store.patch_status`."""
        kind, meta = type(resource), resource.metadata
        return await self._change(
            kind, meta.namespace, meta.name, lambda current: writes.with_status(current, resource)
        )

    async def apply(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Create the resource or replace its spec; see `llmos_hub.stores.base.Store.apply`."""
        kind, meta = type(resource), resource.metadata
        change = functools.partial(self._change, kind, meta.namespace, meta.name, quota=quota)
        return await attempts.apply(resource, change, functools.partial(self.create, quota=quota))

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete the resource, or mark it for deletion; see `llmos_hub.stores.base.Store.delete`."""
        return await self._change(kind, namespace, name, lambda current: writes.deleted(current, uid))

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
        found = await self._read(kind, namespace, name)
        for _ in range(attempts.ATTEMPTS):
            if found is None:
                raise writes.not_found(kind, namespace, name)
            before, current = found
            outcome = decide(current)
            if not outcome.changed:
                return current
            stored, raw = await self._commit(
                DELETED if outcome.removed else MODIFIED,
                outcome.resource,
                before,
                current,
                spec_changed=outcome.spec_changed,
                quota=quota,
            )
            if stored is not None:
                return stored
            found = self._parse(kind, namespace, name, raw)
        raise attempts.too_busy(kind, namespace, name)

    async def _commit(
        self,
        operation: Literal["ADDED", "MODIFIED", "DELETED"],
        resource: R,
        before: StoredValue | None,
        current: R | None,
        *,
        spec_changed: bool,
        quota: NamespaceQuota | None = None,
    ) -> tuple[R | None, bytes | None]:
        """Write it if `before` (as read: `current`) is still stored; return the new resource, or None and what is stored."""
        kind, meta, keys = type(resource), resource.metadata, self._keys
        body = self._encode(resource, before, spec_changed=spec_changed, removed=operation == DELETED)
        # a resource that could not be read back is refused before it is stored
        parsed = kind.parse(resource.dump()).marked_unread(resource.unread)
        namespace, labels = meta.namespace or "", json.dumps(meta.labels)
        labels_before = current.metadata.labels if current is not None else meta.labels
        arguments = [
            *(
                operation,
                meta.name,
                before.revision if before and before.revision >= 0 else "",
                meta.uid or "",
                body,
                kind.plural,
                namespace,
            ),
            *(labels, json.dumps(labels_before) if labels_before != meta.labels else ""),
            *(KEEP_CHANGES, KEEP_BYTES, *((quota.count, quota.size) if quota is not None else ("", ""))),
            _claims(operation, current, resource, spec_changed=spec_changed),
        ]
        script_keys = [
            *(keys.epoch, keys.revision, keys.changes, keys.objects(kind.plural, namespace)),
            *(keys.namespaces(kind.plural), keys.events(kind.plural, namespace, meta.name)),
            *(keys.sizes(kind.plural), keys.written, keys.indexed(kind.plural), keys.claims(kind.plural, namespace)),
        ]
        # people's writes have a limit; deletions and the platform's own have none, and must work when memory is full
        script = COMMIT if quota is not None else COMMIT_ALWAYS
        while True:
            await self._database.epoch()
            done, *rest = await self._database.script(script, script_keys, arguments)
            if done == 1:
                parsed.metadata.resource_version = rest[0].decode()
                return parsed, None
            if done == 2 and quota is not None:
                raise writes.quota_exceeded(
                    resource, quota, writes.NamespaceUsage(int(rest[0]), int(rest[1])), new=before is None
                )
            if done == 0:
                return None, rest[0] if rest else None
            if done == 4:
                names = [raw.decode() for raw in rest]
                raise writes.taken(resource, dict(zip(names[::2], names[1::2], strict=True)))
            if done == 3:
                await self._index(kind, meta.namespace)
            else:
                self._database.forget()

    async def _index(self, kind: type[Resource], namespace: str | None) -> None:
        """Index the names in a namespace, since none was claimed there after the last start of a process."""
        keys, place = self._keys, namespace or ""
        for _ in range(attempts.ATTEMPTS):
            _, values = await self._read_all(kind, namespace)
            arguments = [place]
            async for name, raw, resource in self._parsed(kind, values):
                revision = StoredValue.split(raw).revision
                names = list(resource.claims) if resource is not None else []
                arguments += [name, str(revision) if revision >= 0 else "", json.dumps(names)]
            script_keys = [keys.objects(kind.plural, place), keys.indexed(kind.plural), keys.claims(kind.plural, place)]
            if await self._database.script(INDEX, script_keys, arguments, repeatable=True):
                return
        raise attempts.too_busy(kind, namespace, "")

    def _encode(self, resource: Resource, before: StoredValue | None, *, spec_changed: bool, removed: bool) -> bytes:
        """Return the JSON to store; secrets of an unchanged spec are kept sealed as they are."""
        kept = resource.write_only and not spec_changed and not resource.unread
        sealed = self._codec.sealed(before.body) if kept and before is not None else None
        body = self._codec.encode(resource, sealed, over=before.body if before else b"", removed=removed)
        writes.check_size(resource, len(body))
        return body

    # -- events

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event; see `llmos_hub.stores.base.Store.record`."""
        meta, now = resource.metadata, utcnow().isoformat()
        told = {"type": type_, "reason": reason, "message": writes.shortened(message)}
        event = {**told, "first": now, "last": now, "count": 1}
        namespace = meta.namespace or ""
        await self._database.script(
            RECORD,
            [self._keys.objects(resource.plural, namespace), self._keys.events(resource.plural, namespace, meta.name)],
            [meta.name, meta.uid or "", json.dumps(event, ensure_ascii=False), writes.MAX_EVENTS],
        )

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return a resource's events; see `llmos_hub.stores.base.Store.events`."""
        writes.check_namespace(kind, namespace)
        key = self._keys.events(kind.plural, namespace or "", name)
        return [_EVENT.validate_json(raw) for raw in await self._database.run("LRANGE", key, 0, -1, repeatable=True)]

    # -- the connection

    async def _prepare(self) -> None:
        derived = [key(kind.plural) for kind in KINDS.values() for key in (self._keys.sizes, self._keys.indexed)]
        await self._database.script(PREPARE, [self._keys.revision, *derived], [], repeatable=True)

    async def healthy(self) -> bool:
        """Return whether the database answers within two seconds."""
        return await self._database.ping(timeout=2.0)

    async def close(self) -> None:
        """Close all connections; watches end with `Unavailable`."""
        await self._tail.close()
        await self._database.close()


def _claims(operation: str, old: Resource | None, new: Resource, *, spec_changed: bool) -> str:
    """Return the names that a resource claims after a write, as JSON; empty if that doesn't change."""
    if operation == DELETED:
        return "[]" if new.claims else ""
    before = old.claims if old is not None and not old.unread else {}
    changed = old is None or (spec_changed and before.keys() != new.claims.keys())
    return json.dumps(list(new.claims)) if changed and (before or new.claims) else ""
