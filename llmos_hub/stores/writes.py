"""The effect of a write on a resource: pure functions, independent of the database below the store.

The semantics are the Kubernetes API server's (its `registry/generic` and `registry/rest` packages): the
store owns ``uid``, ``generation`` and the timestamps; ``spec`` and ``status`` are written apart; finalizers
hold a resource that is being deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from llmos.errors import AlreadyExists, Cause, Conflict, Expired, Insufficient, Invalid, NotFound, PayloadTooLarge
from llmos.resources.base import ObjectMeta, Resource, utcnow
from llmos_hub.stores.base import NamespaceQuota
from llmos_hub.stores.salvage import refuse_unread

__all__ = [
    "MAX_EVENTS",
    "NamespaceUsage",
    "Outcome",
    "already_exists",
    "applied",
    "check_claims",
    "check_namespace",
    "check_quota",
    "check_size",
    "claimed",
    "conflict",
    "created",
    "deleted",
    "dumped",
    "empty_status",
    "expired",
    "gone",
    "match",
    "not_found",
    "quota_exceeded",
    "revision_of",
    "shortened",
    "taken",
    "updated",
    "with_status",
]

R = TypeVar("R", bound=Resource)

MAX_EVENTS: Final = 100
"""Maximum number of events that are kept of a resource."""
_MAX_MESSAGE: Final = 4096
_MAX_SIZE: Final = 1_500_000
"""Maximum size of a resource in bytes: etcd's limit, so that what fits into one store fits into the other."""
_DIGITS: Final = 20
"""Decimal digits of the largest 64-bit number."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """The outcome of a write: the resource to store.

    Attributes
    ----------
    resource
        The resource after the write; for a deletion its last state.
    changed
        False if there is nothing to write.
    spec_changed
        True if ``spec`` differs from the stored one.
    removed
        True if the resource is deleted.
    """

    resource: R
    changed: bool = True
    spec_changed: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True)
class NamespaceUsage:
    """The resources of a kind in a namespace: their number, and their stored size in bytes."""

    count: int
    size: int

    def plus(self, size: int) -> NamespaceUsage:
        """Return the usage with one more resource of `size` bytes."""
        return NamespaceUsage(self.count + 1, self.size + size)


def check_quota(resource: Resource, quota: NamespaceQuota, usage: NamespaceUsage, *, before: int, after: int) -> None:
    """Refuse a write that exceeds the quota.

    Parameters
    ----------
    usage
        The current usage.
    before, after
        Size of the resource in bytes before the write, 0 if it is new, and after it.

    Raises
    ------
    Insufficient
        The write exceeds `quota`.
    """
    new = not before
    if after > before and ((new and usage.count >= quota.count) or usage.size + after - before > quota.size):
        raise quota_exceeded(resource, quota, usage, new=new)


def quota_exceeded(resource: Resource, quota: NamespaceQuota, usage: NamespaceUsage, *, new: bool) -> Insufficient:
    """Return the error for a namespace that has reached its quota for a kind."""
    where = resource.metadata.namespace or "The platform"
    if new and usage.count >= quota.count:
        held = f"{usage.count} {resource.plural} already, and {quota.count} are allowed"
    else:
        held = f"{usage.count} {resource.plural} of together {usage.size} bytes already, and {quota.size} bytes are allowed"
    return Insufficient(f"{where} holds {held}. {quota.advice}")


def check_size(resource: Resource, size: int) -> None:
    """Refuse a resource of more bytes than can be stored.

    Raises
    ------
    PayloadTooLarge
        It is too large.
    """
    if size > _MAX_SIZE:
        raise PayloadTooLarge(f'{resource.kind} "{resource.key}" has {size} bytes, over the limit of {_MAX_SIZE}.')


def shortened(message: str) -> str:
    """Return an event's message as it is stored."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…"


def claimed(old: Resource | None, new: Resource) -> set[str]:
    """Return the names that a write of `new` claims and the stored resource, None if there is none, doesn't have."""
    if new.unread:  # its spec is not written
        return set()
    return new.claims.keys() - (old.claims.keys() if old is not None and not old.unread else set())


def check_claims(old: Resource | None, new: Resource, holders: Mapping[str, str]) -> None:
    """Refuse a write that claims a name of another resource.

    Raises
    ------
    AlreadyExists
        There is a cause for each such name.
    """
    if names := claimed(old, new) & holders.keys():
        raise taken(new, {name: holders[name] for name in names})


def taken(resource: Resource, holders: Mapping[str, str]) -> AlreadyExists:
    """Return the error for names of which other resources are the holders; with a cause for each."""
    causes = [
        Cause(field, f'"{name}" is a name of {holders[name]} already')
        for name, field in resource.claims.items()
        if name in holders
    ]
    advice = "Clients could not tell them apart: choose another name."
    return AlreadyExists(f"{'; '.join(map(str, causes))}. {advice}", causes=causes)


def match(labels: Mapping[str, str], selector: Mapping[str, str] | None) -> bool:
    """Return whether the labels have all those of the selector, with the same values."""
    return not selector or all(labels.get(key) == value for key, value in selector.items())


def check_namespace(kind: type[Resource], namespace: str | None, *, required: bool = True) -> None:
    """Refuse a namespace for a cluster-scoped kind, and its absence for a namespaced one.

    Raises
    ------
    Invalid
        The namespace is not allowed or missing; the error names the field.
    """
    if kind.scope == "Cluster" and namespace is not None:
        cause = Cause("metadata.namespace", f"a {kind.kind_name()} belongs to the whole platform and has no namespace")
        raise Invalid(str(cause), causes=[cause])
    if required and kind.scope == "Namespaced" and not namespace:
        cause = Cause("metadata.namespace", f"is required: a {kind.kind_name()} is in a namespace")
        raise Invalid(str(cause), causes=[cause])


def _path(namespace: str | None, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def not_found(kind: type[Resource], namespace: str | None, name: str) -> NotFound:
    """Return the error for a resource that doesn't exist."""
    return NotFound(f'There is no {kind.kind_name()} "{_path(namespace, name)}".')


def already_exists(kind: type[Resource], namespace: str | None, name: str) -> AlreadyExists:
    """Return the error for a name that is taken."""
    path = _path(namespace, name)
    return AlreadyExists(f'There is already a {kind.kind_name()} "{path}". Change it with apply, or delete it first.')


def conflict(
    kind: type[Resource],
    namespace: str | None,
    name: str,
    why: str,
    advice: str = "Read it again and repeat the change.",
) -> Conflict:
    """Return the error for a write that would overwrite changes its writer hasn't seen."""
    return Conflict(f'{kind.kind_name()} "{_path(namespace, name)}" {why}. {advice}')


def gone(kind: type[Resource], namespace: str | None, name: str) -> Conflict:
    """Return the error for a write of a resource that was deleted after it was read, such as an exported manifest."""
    advice = "Leave out metadata.uid and metadata.resourceVersion to create it again."
    return conflict(kind, namespace, name, "was deleted since it was read", advice)


def _conflict(resource: Resource, why: str) -> Conflict:
    advice = (
        "Read it again and repeat the change, or leave out metadata.uid and metadata.resourceVersion to overwrite it."
    )
    return conflict(type(resource), resource.metadata.namespace, resource.metadata.name, why, advice)


def dumped(part: Any) -> Any:
    """Return ``spec`` or ``status`` as in JSON, for comparison."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def empty_status(kind: type[Resource]) -> Any:
    """Return the initial ``status`` of a kind."""
    return kind.model_fields["status"].get_default(call_default_factory=True)


def _check(current: Resource, wanted: Resource) -> None:
    """Check the writer's preconditions: the uid and resourceVersion of `wanted`, if it has them.

    Raises
    ------
    Conflict
        They differ from the stored ones.
    """
    have, want = current.metadata, wanted.metadata
    if want.uid and want.uid != have.uid:
        raise _conflict(wanted, "was deleted and created again since it was read")
    if want.resource_version and want.resource_version != have.resource_version:
        why = f"was changed since it was read (at {want.resource_version}, now {have.resource_version})"
        raise _conflict(wanted, why)


def created(resource: R) -> R:
    """Return the new resource, with the fields that the store sets and an empty ``status``, written separately."""
    meta = resource.metadata
    metadata = ObjectMeta(
        name=meta.name,
        namespace=meta.namespace,
        labels=meta.labels,
        annotations=meta.annotations,
        finalizers=meta.finalizers,
        uid=str(uuid.uuid4()),
        generation=1,
        creation_timestamp=utcnow(),
    )
    return resource.model_copy(update={"metadata": metadata, "status": empty_status(type(resource))})


def _replaced(current: R, spec: Any, metadata: Mapping[str, Any]) -> Outcome[R]:
    """Return `current` with another spec and metadata; removed if it is being deleted and the last finalizer goes."""
    spec_changed = spec is not current.spec and (bool(current.unread) or dumped(spec) != dumped(current.spec))
    generation = current.metadata.generation + (1 if spec_changed else 0)
    new_metadata = current.metadata.model_copy(update={**metadata, "generation": generation})
    if not spec_changed and new_metadata == current.metadata:
        return Outcome(current, changed=False)
    resource = current.model_copy(update={"spec": spec, "metadata": new_metadata})
    if spec_changed and current.unread:
        resource = resource.marked_unread("")
    removed = bool(current.metadata.deletion_timestamp and current.metadata.finalizers and not new_metadata.finalizers)
    return Outcome(resource, spec_changed=spec_changed, removed=removed)


def updated(current: R, wanted: R) -> Outcome[R]:
    """Replace spec, labels, annotations and finalizers.

    Raises
    ------
    Conflict
        The writer's resourceVersion or uid is not the stored one.
    Invalid
        A finalizer is added to a resource that is being deleted.
    """
    _check(current, wanted)
    if wanted.unread and not current.unread:
        raise _conflict(current, "was changed since it was read")
    if not wanted.unread:
        refuse_unread(current)
    new = [f for f in wanted.metadata.finalizers if f not in current.metadata.finalizers]
    if current.metadata.deletion_timestamp and new:
        cause = Cause(
            "metadata.finalizers", f"none can be added while the resource is being deleted: {', '.join(new)[:200]}"
        )
        raise Invalid(str(cause), causes=[cause])
    metadata = {
        "labels": wanted.metadata.labels,
        "annotations": wanted.metadata.annotations,
        "finalizers": wanted.metadata.finalizers,
    }
    return _replaced(current, current.spec if current.unread else wanted.spec, metadata)


def applied(current: R, wanted: R) -> Outcome[R]:
    """Replace spec, merge labels and annotations, and don't change finalizers.

    Raises
    ------
    Conflict
        As for `updated`; or the resource is being deleted.
    """
    _check(current, wanted)
    if current.metadata.deletion_timestamp:
        raise Conflict(f'{wanted.kind} "{wanted.key}" is being deleted. Apply it again when it is gone.')
    metadata = {
        "labels": {**current.metadata.labels, **wanted.metadata.labels},
        "annotations": {**current.metadata.annotations, **wanted.metadata.annotations},
    }
    return _replaced(current, wanted.spec, metadata)


def with_status(current: R, wanted: R) -> Outcome[R]:
    """Replace only ``status``.

    Raises
    ------
    Conflict
        As for `updated`.
    """
    _check(current, wanted)
    if dumped(wanted.status) == dumped(current.status):
        return Outcome(current, changed=False)
    return Outcome(current.model_copy(update={"status": wanted.status}))


def deleted(current: R, uid: str | None) -> Outcome[R]:
    """Delete the resource, or mark it as being deleted if it has finalizers.

    Raises
    ------
    Conflict
        `uid` is given and differs from the stored one.
    """
    if uid and uid != current.metadata.uid:
        meta = current.metadata
        raise conflict(type(current), meta.namespace, meta.name, "was deleted and created again since it was read")
    if not current.metadata.finalizers:
        return Outcome(current, removed=True)
    if current.metadata.deletion_timestamp:
        return Outcome(current, changed=False)
    metadata = current.metadata.model_copy(update={"deletion_timestamp": utcnow()})
    return Outcome(current.model_copy(update={"metadata": metadata}))


def expired(resource_version: int | str) -> Expired:
    """Return the error for a watch from a version after which the changes are no longer stored."""
    return Expired(
        f"The changes since resourceVersion {resource_version} are not known any more. List again and watch from there."
    )


def revision_of(resource_version: str) -> int:
    """Return the revision that a resourceVersion stands for.

    Raises
    ------
    Invalid
        It was not issued by a store.
    """
    if not (resource_version.isascii() and resource_version.isdigit() and len(resource_version) <= _DIGITS):
        raise Invalid(
            f'resourceVersion: "{resource_version[:40]}" is none that this store gave out. List again and watch from there.'
        )
    return int(resource_version)
