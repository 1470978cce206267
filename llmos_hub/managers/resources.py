"""Reading and writing resources: what the API's handlers call once they know that the caller may.

Whatever leaves here is fit to be shown: values that are never read back are gone from it.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from llmos.errors import Cause, Conflict, Insufficient, Invalid, LLMOSError, NotFound
from llmos.resources import Credential, ModelService, Resource, Setting
from llmos_hub.managers.credentials import CredentialRules
from llmos_hub.managers.locks import KeyedLocks
from llmos_hub.managers.modelservices import ModelServiceRules
from llmos_hub.managers.patches import patched
from llmos_hub.managers.rules import KindRules
from llmos_hub.managers.settings import MAX_RESOURCES, PlatformSettings, SettingRules
from llmos_hub.stores import rules as writes
from llmos_hub.stores.base import Event, Listing, Selector, Store, WatchEvent

__all__ = ["ResourceManager"]

R = TypeVar("R", bound=Resource)

_NAMESPACE: Final = re.compile(r"^((user|group)-[a-z0-9]([-a-z0-9]*[a-z0-9])?|public)$")
_NAMES_COMPARED: Final = 50
"""How many names are looked through for the one that was meant: comparing is slow, and people choose the names."""
_TRIES: Final = 5
"""How often a write is repeated whose reading was overtaken."""


class ResourceManager:
    """The business rules of all kinds.

    Parameters
    ----------
    store
        Where resources are.
    settings
        The limits in force.
    """

    def __init__(self, store: Store, settings: PlatformSettings) -> None:
        self._store = store
        self._settings = settings
        self._locks = KeyedLocks()
        self._rules: Mapping[type[Resource], KindRules[Any]] = {
            Credential: CredentialRules(),
            ModelService: ModelServiceRules(),
            Setting: SettingRules(settings),
        }

    # reading

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """One resource.

        Raises
        ------
        NotFound
            With the name that may be meant.
        """
        try:
            stored = await self._store.get(kind, namespace, name)
        except NotFound:
            absent: R | None = await self._rules_of(kind).absent(name)
            if absent is not None:
                return absent
            raise await self._not_found(kind, namespace, name) from None
        return await self._shown(stored)

    async def list(
        self, kind: type[R], namespace: str | None, *, labels: Selector | None = None, name: str | None = None
    ) -> Listing[R]:
        """All of a kind, in one namespace or (None) in all; only the one of that name, where one is given."""
        listing = await self._store.list(kind, namespace, labels=labels)
        items = [await self._shown(r) for r in listing.items]
        if not labels:
            items += await self._rules_of(kind).all_absent(items)
            items.sort(key=lambda r: (r.metadata.namespace or "", r.metadata.name))
        if name is not None:
            items = [r for r in items if r.metadata.name == name]
        return Listing(items, listing.resource_version)

    @contextlib.asynccontextmanager
    async def watch(
        self,
        kind: type[R],
        namespace: str | None,
        *,
        resource_version: str,
        labels: Selector | None = None,
        name: str | None = None,
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        """Every change after `resource_version`.

        Raises
        ------
        Expired
            Too old: list again. May also be raised by the iterator.
        """
        rules = self._rules_of(kind)

        async def shown(events: AsyncIterator[WatchEvent[R]]) -> AsyncIterator[WatchEvent[R]]:
            async for event in events:
                if name is not None and event.resource is not None and event.resource.metadata.name != name:
                    continue
                visible = await rules.present_event(event)
                if visible.resource is not None:
                    resource = _without_secrets(visible.resource)
                    visible = WatchEvent(visible.type, resource, visible.resource_version)
                yield visible

        async with self._store.watch(kind, namespace, resource_version=resource_version, labels=labels) as events:
            yield shown(events)

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """What happened to a resource, oldest first.

        Raises
        ------
        NotFound
            There is none of that name.
        """
        await self.get(kind, namespace, name)
        return await self._store.events(kind, namespace, name)

    # writing

    async def create(self, resource: R, *, dry_run: bool = False) -> R:
        """Store a new one.

        Raises
        ------
        AlreadyExists
            There is one of that name, or one that answers to the same model name.
        Insufficient
            The namespace is full.
        Invalid
            It doesn't fit its place.
        """
        rules = self._rules_of(type(resource))
        async with self._locks.holding(_lock_key(resource)):
            resource = rules.prepared(resource)
            resource = _with_metadata(resource, finalizers=list(rules.finalizers), uid=None, resource_version=None)
            await self._admit(resource, None)
            if dry_run:
                with contextlib.suppress(NotFound):
                    await self._store.get(type(resource), resource.metadata.namespace, resource.metadata.name)
                    meta = resource.metadata
                    raise writes.already_exists(type(resource), meta.namespace, meta.name)
                return await self._shown(writes.created(resource))
            return await self._settled(None, await self._store.create(resource))

    async def update(self, resource: R, *, dry_run: bool = False) -> R:
        """Replace spec, labels and annotations of an existing one; the finalizers stay as they are.

        Raises
        ------
        NotFound
            There is none.
        Conflict
            It carries a resourceVersion or uid, and the stored one is another.
        """
        return await self._change(type(resource), resource.metadata, lambda _: resource, dry_run=dry_run)

    async def merge(self, kind: type[R], namespace: str | None, name: str, patch: Any, *, dry_run: bool = False) -> R:
        """Merge a patch (RFC 7386) into spec, labels and annotations of an existing one.

        Raises
        ------
        NotFound, Conflict
            As for `update`.
        Invalid
            The patch touches something else, or its result doesn't fit.
        """
        metadata = patch.get("metadata") if isinstance(patch, Mapping) else None
        version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None

        def change(current: R) -> R:
            return _with_metadata(patched(current, patch), resource_version=version)

        key = kind.model_fields["metadata"].annotation
        assert key is not None
        return await self._change(kind, key(name=name, namespace=namespace), change, dry_run=dry_run)

    async def apply(self, resource: R, *, dry_run: bool = False) -> tuple[R, bool]:
        """Create it or replace spec, and merge labels and annotations; tells also whether it is new.

        Raises
        ------
        Conflict
            It is being deleted, or as for `update`.
        AlreadyExists, Insufficient, Invalid
            As for `create`.
        """
        kind, metadata = type(resource), resource.metadata
        async with self._locks.holding(_lock_key(resource)):
            try:
                old: R | None = await self._store.get(kind, metadata.namespace, metadata.name)
            except NotFound:
                old = None
            rules = self._rules_of(kind)
            resource = _keeping_secrets(rules.prepared(resource), old)
            resource = _with_metadata(resource, finalizers=list(rules.finalizers))
            await self._admit(resource, old)
            if dry_run:
                outcome = writes.created(resource) if old is None else writes.applied(old, resource).resource
                return await self._shown(outcome), old is None
            return await self._settled(old, await self._store.apply(resource)), old is None

    async def delete(
        self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None, dry_run: bool = False
    ) -> R:
        """Delete it; returns what is left while its workloads end, or what it last was.

        Raises
        ------
        NotFound
            There is none.
        Conflict
            `uid` is given and is another's.
        """
        try:
            if dry_run:
                current = await self._store.get(kind, namespace, name)
                return await self._shown(writes.deleted(current, uid).resource)
            return await self._shown(await self._store.delete(kind, namespace, name, uid=uid))
        except NotFound:
            raise await self._not_found(kind, namespace, name) from None

    # inside

    async def _change(self, kind: type[R], wanted: Any, change: Callable[[R], R], *, dry_run: bool) -> R:
        """Read, change, store; anew when overtaken, unless the caller named a version."""
        key = (kind, wanted.namespace)
        async with self._locks.holding(key):
            for attempt in range(_TRIES):
                try:
                    old = await self._store.get(kind, wanted.namespace, wanted.name)
                except NotFound:
                    raise await self._not_found(kind, wanted.namespace, wanted.name) from None
                changed = self._rules_of(kind).prepared(change(old))
                new = _with_metadata(_keeping_secrets(changed, old), finalizers=old.metadata.finalizers)
                writes.updated(old, new)  # raises Conflict where the caller knew another one
                pinned = new.metadata.resource_version is not None
                new = _with_metadata(new, resource_version=old.metadata.resource_version, uid=old.metadata.uid)
                await self._admit(new, old)
                if dry_run:
                    return await self._shown(writes.updated(old, new).resource)
                try:
                    stored = await self._store.update(new)
                except Conflict:
                    if pinned or attempt == _TRIES - 1:
                        raise
                    continue
                return await self._settled(old, stored)
        message = "unreachable: the last try returns or raises"
        raise AssertionError(message)

    async def _admit(self, new: R, old: R | None) -> None:
        """Refuse what fits its type but not its place."""
        kind, namespace = type(new), new.metadata.namespace
        writes.check_namespace(kind, namespace)
        if namespace is not None and not _NAMESPACE.fullmatch(namespace):
            cause = Cause("metadata.namespace", f'"{namespace}" is none: use user-NAME, group-NAME or public')
            raise Invalid(str(cause), causes=[cause])
        _check_texts(new)
        listing = await self._store.list(kind, namespace)
        others = [r for r in listing.items if r.metadata.name != new.metadata.name]
        if old is None and len(others) >= (limit := await self._settings.value(MAX_RESOURCES)):
            raise Insufficient(
                f"{namespace or 'The platform'} holds {len(others)} {kind.plural} already, and {limit} are allowed. "
                f"Delete some, or ask an admin to raise the setting {MAX_RESOURCES.name}."
            )
        self._rules_of(kind).admit(new, old, others)

    async def _settled(self, old: R | None, stored: R) -> R:
        """After a write: the status that goes with it, where no controller writes that."""
        rules = self._rules_of(type(stored))
        wanted: R | None = rules.status_after(old, stored)
        if wanted is not None:
            with contextlib.suppress(Conflict, NotFound):  # changed again since: that write brings its own status
                stored = await self._store.patch_status(wanted)
        return await self._shown(stored)

    async def _shown(self, resource: R) -> R:
        present: Callable[[R], Awaitable[R]] = self._rules_of(type(resource)).present
        return _without_secrets(await present(resource))

    async def _not_found(self, kind: type[Resource], namespace: str | None, name: str) -> NotFound:
        """The error, with the name that may be meant: what the caller may get, they may list."""
        if await self._rules_of(kind).absent(name) is not None:
            return NotFound(f'The {kind.singular} "{name}" has its default, so nothing is stored. Set it with apply.')
        where = f" in {namespace}" if namespace else ""
        try:
            names = [r.metadata.name for r in (await self._store.list(kind, namespace)).items]
        except LLMOSError:
            names = []
        close = difflib.get_close_matches(name[:80], names[:_NAMES_COMPARED], n=1)
        hint = f' Did you mean "{close[0]}"?' if close else f" There is: {', '.join(names[:10])}." if names else ""
        return NotFound(f'There is no {kind.singular} "{name[:80]}"{where}.{hint}')

    def _rules_of(self, kind: type[Resource]) -> KindRules[Any]:
        return self._rules.get(kind) or KindRules()


def _lock_key(resource: Resource) -> tuple[type[Resource], str | None]:
    return (type(resource), resource.metadata.namespace)


def _with_metadata(resource: R, **changes: Any) -> R:
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update=changes)})


def _without_secrets(resource: R) -> R:
    """The resource with its write-only fields emptied."""
    if not resource.write_only:
        return resource
    fields = type(resource.spec).model_fields
    empty = {name: fields[name].get_default(call_default_factory=True) for name in resource.write_only}
    return resource.model_copy(update={"spec": resource.spec.model_copy(update=empty)})


def _keeping_secrets(new: R, old: R | None) -> R:
    """`new` with the write-only fields of `old` that it doesn't speak of.

    Who sends back what they read, with another label, sends no secrets, since they read none; that must
    not erase them. A field that is there, and be it empty, replaces.
    """
    unsaid = [name for name in new.write_only if name not in new.spec.model_fields_set]
    if old is None or not unsaid:
        return new
    kept = {name: getattr(old.spec, name) for name in unsaid}
    return new.model_copy(update={"spec": new.spec.model_copy(update=kept)})


def _check_texts(resource: Resource) -> None:
    """Refuse zero bytes anywhere: no argument, variable or file name can hold one (execve(2)).

    Raises
    ------
    Invalid
        With the field's path.
    """
    for path, text in _texts("spec", resource.spec.model_dump(by_alias=True)):
        if "\0" in text:
            cause = Cause(path, "has a zero byte (\\u0000) in it, which no program can be given")
            raise Invalid(str(cause), causes=[cause])


def _texts(path: str, value: Any) -> Sequence[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [found for key, inner in value.items() for found in _texts(f"{path}.{key}", inner)]
    if isinstance(value, list | tuple):
        return [found for index, inner in enumerate(value) for found in _texts(f"{path}[{index}]", inner)]
    return []
