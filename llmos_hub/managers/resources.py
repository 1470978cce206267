"""Reading and writing resources, for the API's handlers after authorization.

Returned resources may be shown: write-only fields are removed from them.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from llmos.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    Expired,
    Forbidden,
    Internal,
    Invalid,
    LLMOSError,
    NotFound,
    PayloadTooLarge,
)
from llmos.resources import MAIN_KIND, ObjectMeta, Resource
from llmos_hub.managers.contents import check_texts, keeping_secrets, size_of, without_secrets
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.kinds import load_rules
from llmos_hub.managers.patches import patched
from llmos_hub.managers.settings import (
    MAX_NAMESPACE_BYTES,
    MAX_RESOURCE_BYTES,
    MAX_RESOURCES,
    PlatformSettings,
)
from llmos_hub.names import PUBLIC_NAMESPACE
from llmos_hub.policy import Within
from llmos_hub.stores import writes
from llmos_hub.stores.base import Event, NamespaceQuota, Page, Selector, Store, WatchEvent
from llmos_hub.stores.locks import KeyedLocks
from llmos_hub.stores.salvage import refuse_change

__all__ = ["Permit", "ResourceManager", "Selection", "anything"]

R = TypeVar("R", bound=Resource)

Permit = Callable[[Resource | None, Resource], None]
"""A check of a write by the stored resource (None for a new one) and the new one; raises Forbidden if not allowed."""

_NAMESPACE: Final = re.compile(r"^((user|group)-[a-z0-9]([-a-z0-9]*[a-z0-9])?|public)$")
_NAMES_COMPARED: Final = 50
"""Maximum names compared to suggest a similar one: comparing is slow, and people choose the names."""
_PAGE: Final = 100
"""Maximum number of resources read at once."""
_TRIES: Final = 5
"""Maximum attempts of a write when the resource changes between reading and writing."""


def anything(old: Resource | None, new: Resource) -> None:
    """Permit any write."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The resources of a kind that a list or watch shows.

    Attributes
    ----------
    labels
        The labels that they have.
    name
        The name of the only one; None for any name.
    within
        The resources to which the caller is restricted; None if they aren't.
    """

    labels: Selector | None = None
    name: str | None = None
    within: Within | None = None

    def keeps(self, resource: Resource) -> bool:
        """Return whether a resource of the labels is among them."""
        return self.name in (None, resource.metadata.name) and (self.within is None or self.within.keeps(resource))


_ALL: Final = Selection()


class ResourceManager:
    """The reader and writer of resources, with the rules of all kinds.

    Parameters
    ----------
    store
        The store of resources.
    settings
        The limits in force.
    """

    def __init__(self, store: Store, settings: PlatformSettings) -> None:
        self._store = store
        self._settings = settings
        self._locks = KeyedLocks()
        self._rules = load_rules(settings)

    # reading

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Return one resource.

        Raises
        ------
        NotFound
            It doesn't exist; the message suggests a similar name.
        """
        try:
            stored = await self._store.get(kind, namespace, name)
        except NotFound:
            absent: R | None = await self._rules_of(kind).absent(name)
            if absent is not None:
                return absent
            raise await self._not_found(kind, namespace, name) from None
        return await self._shown(stored)

    async def page(
        self,
        kind: type[R],
        namespace: str | None,
        selection: Selection = _ALL,
        *,
        limit: int = _PAGE,
        token: str = "",
    ) -> Page[R]:
        """Return a page of the selected resources of a kind, in one namespace or (None) in all.

        Raises
        ------
        Expired, BadRequest
            As for the store's `page`.
        """
        if kind.scope == "Cluster":  # there are few, and some are not stored but have defaults
            return await self._all(kind, selection)
        limit = max(1, min(limit, _PAGE))
        if namespace is None and selection.within is not None and selection.within.namespaces is not None:
            return await self._page_within(sorted(selection.within.namespaces), kind, selection, limit, token)
        page = await self._store.page(kind, namespace, limit=limit, token=token, labels=selection.labels)
        items = [await self._shown(r) for r in page.items if selection.keeps(r)]
        return Page(items, page.resource_version, page.token)

    async def _page_within(
        self, namespaces: Sequence[str], kind: type[R], selection: Selection, limit: int, token: str
    ) -> Page[R]:
        """Return a page of the resources in some namespaces, one namespace after the other.

        The token is a namespace and the store's token in it. The version is that of the first namespace, so that a
        watch from there repeats changes rather than skips one.
        """
        begin, _, inner = token.partition(":") if token else (namespaces[0], "", "")
        if begin not in namespaces:
            raise Expired("The rest of this list is no longer what you may see.")
        items: list[R] = []
        version = ""
        left = namespaces[namespaces.index(begin) :]
        for number, namespace in enumerate(left):
            try:
                token = inner if not number else ""
                page = await self._store.page(
                    kind, namespace, limit=limit - len(items), token=token, labels=selection.labels
                )
            except Forbidden:  # a namespace that doesn't exist yet, in which the controllers have granted nothing
                continue
            version = version or page.resource_version
            items += [await self._shown(r) for r in page.items if selection.keeps(r)]
            if page.token:
                return Page(items, version, f"{namespace}:{page.token}")
            if len(items) >= limit and number + 1 < len(left):
                return Page(items, version, f"{left[number + 1]}:")
        if not version:  # a list of any other kind of namespaced resources has a version that fits
            version = (await self._store.page(MAIN_KIND, PUBLIC_NAMESPACE, limit=1)).resource_version
        return Page(items, version)

    async def _all(self, kind: type[R], selection: Selection) -> Page[R]:
        """Return all selected resources of a cluster-scoped kind."""
        listing = await self._store.list(kind, labels=selection.labels)
        items = [await self._shown(r) for r in listing.items]
        if not selection.labels:
            items += await self._rules_of(kind).all_absent(items)
            items.sort(key=lambda r: r.metadata.name)
        return Page([r for r in items if selection.keeps(r)], listing.resource_version)

    async def rest(
        self, first: Page[R], kind: type[R], namespace: str | None, selection: Selection
    ) -> AsyncIterator[Sequence[R]]:
        """Yield the pages after a first one, so that never all are in memory at once.

        Raises
        ------
        Expired
            Reading took too long.
        """
        token = first.token
        while token:
            page = await self.page(kind, namespace, selection, token=token)
            yield page.items
            token = page.token

    @contextlib.asynccontextmanager
    async def watch(
        self, kind: type[R], namespace: str | None, selection: Selection = _ALL, *, resource_version: str
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        """Follow every change of the selected resources after `resource_version`.

        Raises
        ------
        Expired
            The version is too old: list again. May also be raised by the iterator.
        """
        rules = self._rules_of(kind)

        async def shown(events: AsyncIterator[WatchEvent[R]]) -> AsyncIterator[WatchEvent[R]]:
            async for event in events:
                if event.resource is not None and not selection.keeps(event.resource):
                    continue
                visible = await rules.present_event(event)
                if visible.resource is not None:
                    resource = without_secrets(visible.resource)
                    visible = WatchEvent(visible.type, resource, visible.resource_version)
                yield visible

        watch = self._store.watch(kind, namespace, resource_version=resource_version, labels=selection.labels)
        async with watch as events:
            yield shown(events)

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return the events of a resource, oldest first.

        Raises
        ------
        NotFound
            The resource doesn't exist.
        """
        await self.get(kind, namespace, name)
        return await self._store.events(kind, namespace, name)

    # writing

    async def create(self, resource: R, *, dry_run: bool = False) -> R:
        """Store a new resource.

        Raises
        ------
        AlreadyExists
            The name, or one of its model names, is taken.
        Insufficient
            The namespace has reached its limit.
        Invalid
            It is not valid in its namespace.
        """
        resource = self._rules_of(type(resource)).prepared(resource)
        resource = _with_metadata(resource, finalizers=_finalizers(resource), uid=None, resource_version=None)
        quota = await self._admit(resource, None)
        if dry_run:
            await self._compare(resource, None, quota)
            with contextlib.suppress(NotFound):
                await self._store.get(type(resource), resource.metadata.namespace, resource.metadata.name)
                meta = resource.metadata
                raise writes.already_exists(type(resource), meta.namespace, meta.name)
            return await self._shown(writes.created(resource))
        return await self._settled(None, await self._store.create(resource, quota=quota))

    async def update(self, resource: R, *, dry_run: bool = False, permit: Permit = anything) -> R:
        """Replace spec, labels and annotations of an existing resource; finalizers are not changed.

        Raises
        ------
        NotFound
            It doesn't exist.
        Conflict
            It carries a resourceVersion or uid that differs from the stored one.
        """
        metadata = resource.metadata
        return await self._update(type(resource), metadata, lambda _: resource, dry_run=dry_run, permit=permit)

    async def merge(
        self,
        kind: type[R],
        namespace: str | None,
        name: str,
        patch: Any,
        *,
        dry_run: bool = False,
        permit: Permit = anything,
    ) -> R:
        """Merge a patch (RFC 7386) into spec, labels and annotations of an existing resource.

        Raises
        ------
        NotFound, Conflict
            As for `update`.
        Invalid
            The patch contains other fields, or its result is not valid.
        """
        metadata = patch.get("metadata") if isinstance(patch, Mapping) else None
        version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None

        def change(current: R) -> R:
            refuse_change(current)
            return _with_metadata(patched(current, patch), resource_version=version)

        wanted = ObjectMeta(name=name, namespace=namespace)
        return await self._update(kind, wanted, change, dry_run=dry_run, permit=permit)

    async def apply(self, resource: R, *, dry_run: bool = False, permit: Permit = anything) -> tuple[R, bool]:
        """Create it or replace spec, and merge labels and annotations; returns also whether it is new.

        Raises
        ------
        Conflict
            It is being deleted, or as for `update`.
        AlreadyExists, Insufficient, Invalid
            As for `create`.
        """
        kind, metadata = type(resource), resource.metadata
        for attempt in range(_TRIES):
            with contextlib.suppress(NotFound):
                changed = await self._change(
                    kind, metadata, lambda _: resource, writes.applied, dry_run=dry_run, permit=permit
                )
                return changed, False
            if metadata.uid or metadata.resource_version:
                raise writes.gone(kind, metadata.namespace, metadata.name)
            permit(None, resource)
            try:
                return await self.create(resource, dry_run=dry_run), True
            except AlreadyExists as error:
                if error.causes or attempt == _TRIES - 1:  # causes: others have names that it claims
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    async def delete(
        self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None, dry_run: bool = False
    ) -> R:
        """Delete it; returns its state while its workloads end or while it rests, or its last state.

        Raises
        ------
        NotFound
            It doesn't exist.
        Conflict
            `uid` is given and differs from the stored one; or it is in use.
        """
        try:
            for attempt in range(_TRIES):
                resting = await self._resting(kind, namespace, name, uid)
                if resting is None:
                    break
                if dry_run:
                    return await self._shown(resting)
                try:
                    return await self._shown(await self._store.update(resting))
                except Conflict:
                    if attempt == _TRIES - 1:
                        raise
            if dry_run:
                current = await self._store.get(kind, namespace, name)
                return await self._shown(writes.deleted(current, uid).resource)
            return await self._shown(await self._store.delete(kind, namespace, name, uid=uid))
        except NotFound:
            raise await self._not_found(kind, namespace, name) from None

    async def _resting(self, kind: type[R], namespace: str | None, name: str, uid: str | None) -> R | None:
        """Return the resource to store in place of a deletion; None to delete it, also if it can't be read."""
        try:
            current = await self._store.get(kind, namespace, name)
        except Internal:
            return None
        if current.unread or current.metadata.deletion_timestamp is not None:
            return None
        writes.deleted(current, uid)  # raises Conflict for another uid
        found: R | None = await self._rules_of(kind).deleting(current, self._store)
        return found

    def restrict(self, old: Resource | None, new: Resource) -> None:
        """Refuse values that only admins may set outside of their own namespace; a `Permit`.

        Raises
        ------
        Forbidden
            The resource has such a value, and the stored one hasn't.
        """
        self._rules_of(type(new)).restrict(new, old)

    # inside

    async def _update(
        self, kind: type[R], wanted: ObjectMeta, change: Callable[[R], R], *, dry_run: bool, permit: Permit
    ) -> R:
        try:
            return await self._change(kind, wanted, change, writes.updated, dry_run=dry_run, permit=permit)
        except NotFound:
            raise await self._not_found(kind, wanted.namespace, wanted.name) from None

    async def _change(
        self,
        kind: type[R],
        wanted: ObjectMeta,
        change: Callable[[R], R],
        decide: Callable[[R, R], writes.Outcome[R]],
        *,
        dry_run: bool,
        permit: Permit,
    ) -> R:
        """Read, change and store; retry if it was changed meanwhile, unless the caller gave a version.

        So what was permitted and admitted is what is stored, whichever process writes at the same time. The lock only
        spares writers in this process from retrying.
        """
        async with self._locks.holding((kind, wanted.namespace, wanted.name)):
            for attempt in range(_TRIES):
                old = await self._store.get(kind, wanted.namespace, wanted.name)
                changed = self._rules_of(kind).prepared(change(old))
                new = _with_metadata(keeping_secrets(changed, old), finalizers=old.metadata.finalizers)
                permit(old, new)
                outcome = decide(old, new)  # raises Conflict if the caller read another version
                pinned = new.metadata.resource_version is not None
                new = _with_metadata(new, resource_version=old.metadata.resource_version, uid=old.metadata.uid)
                quota = await self._admit(new, old)
                if dry_run:
                    await self._compare(new, old, quota)
                    return await self._shown(outcome.resource)
                write = self._store.update if decide is writes.updated else self._store.apply
                try:
                    stored = await write(new, quota=quota)
                except Conflict:
                    if pinned or attempt == _TRIES - 1:
                        raise
                    continue
                return await self._settled(old, stored)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _admit(self, new: R, old: R | None) -> NamespaceQuota:
        """Refuse a resource that is not valid in its namespace; returns the limits, which the store checks."""
        kind, namespace = type(new), new.metadata.namespace
        writes.check_namespace(kind, namespace)
        if namespace is not None and not _NAMESPACE.fullmatch(namespace):
            cause = Cause("metadata.namespace", f'"{namespace}" is none: use user-NAME, group-NAME or public')
            raise Invalid(str(cause), causes=[cause])
        check_texts(new)
        size, limit = size_of(new), await self._settings.value(MAX_RESOURCE_BYTES)
        if size > limit and (old is None or size > size_of(old)):
            raise PayloadTooLarge(
                f"{new.kind} {new.metadata.name} has {size} bytes, and {limit} are allowed. Leave something out, or ask an "
                f"admin to raise the setting {MAX_RESOURCE_BYTES.name}."
            )
        await self._rules_of(kind).admit(new, old, self._store)
        return NamespaceQuota(
            await self._settings.value(MAX_RESOURCES),
            await self._settings.value(MAX_NAMESPACE_BYTES),
            f"Delete some, or ask an admin to raise the setting {MAX_RESOURCES.name} or {MAX_NAMESPACE_BYTES.name}.",
        )

    async def _compare(self, new: R, old: R | None, quota: NamespaceQuota) -> None:
        """Check claimed names and limits for a dry run, the limits approximately: stored sizes differ slightly."""
        usage, token = writes.NamespaceUsage(0, 0), ""
        holders: dict[str, str] = {}
        while True:
            page = await self._store.page(type(new), new.metadata.namespace, limit=_PAGE, token=token)
            for resource in page.items:
                usage = usage.plus(size_of(resource))
                if resource.metadata.name != new.metadata.name:
                    holders |= dict.fromkeys(resource.claims, resource.metadata.name)
            if not (token := page.token):
                break
        writes.check_claims(old, new, holders)
        writes.check_quota(new, quota, usage, before=size_of(old) if old is not None else 0, after=size_of(new))

    async def _settled(self, old: R | None, stored: R) -> R:
        """Write the status that follows from a write, if no controller does, and return the resource."""
        rules = self._rules_of(type(stored))
        wanted: R | None = rules.status_after(old, stored)
        if wanted is not None:
            with contextlib.suppress(Conflict, NotFound):  # changed again since: that write sets its own status
                stored = await self._store.patch_status(wanted)
        return await self._shown(stored)

    async def _shown(self, resource: R) -> R:
        present: Callable[[R], Awaitable[R]] = self._rules_of(type(resource)).present
        return without_secrets(await present(resource))

    async def _not_found(self, kind: type[Resource], namespace: str | None, name: str) -> NotFound:
        """Return the error with a similar name; callers who may get resources may list their names, too."""
        if await self._rules_of(kind).absent(name) is not None:
            return NotFound(f'The {kind.singular} "{name}" has its default, so nothing is stored. Set it with apply.')
        where = f" in {namespace}" if namespace else ""
        try:
            page = await self._store.page(kind, namespace, limit=_NAMES_COMPARED)
            names = [r.metadata.name for r in page.items]
        except LLMOSError:
            names = []
        close = difflib.get_close_matches(name[:80], names, n=1)
        listed = f" There {'is' if len(names) == 1 else 'are'}: {', '.join(names[:10])}." if names else ""
        hint = f' Did you mean "{close[0]}"?' if close else listed
        return NotFound(f'There is no {kind.singular} "{name[:80]}"{where}.{hint}')

    def _rules_of(self, kind: type[Resource]) -> KindRules[Any]:
        return self._rules.get(kind) or KindRules(self._settings)


def _with_metadata(resource: R, **changes: Any) -> R:
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update=changes)})


def _finalizers(resource: Resource) -> list[str]:
    """Return the finalizers of a new resource: its kind's own."""
    return [resource.finalizer] if resource.finalizer else []
