"""What a write does to a resource: pure functions, whatever database is under the store.

The semantics are the Kubernetes API server's (its `registry/generic` and `registry/rest` packages): the
store owns ``uid``, ``generation`` and the timestamps; ``spec`` and ``status`` are written apart; finalizers
hold a resource that is being deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmos.errors import AlreadyExists, Cause, Conflict, Insufficient, Invalid, NotFound
from llmos.resources.base import ObjectMeta, Resource, utcnow
from llmos_hub.stores.base import Room
from llmos_hub.stores.salvage import refuse_unread

__all__ = [
    "Outcome",
    "Usage",
    "already_exists",
    "applied",
    "check_namespace",
    "check_room",
    "conflict",
    "created",
    "deleted",
    "dumped",
    "empty_status",
    "full",
    "gone",
    "match",
    "not_found",
    "updated",
    "with_status",
]

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What is to be written.

    Attributes
    ----------
    resource
        The resource afterwards; for a removal as it last was.
    changed
        Whether anything is to be written at all.
    spec_changed
        Whether ``spec`` is another than before.
    removed
        Whether the resource goes.
    """

    resource: R
    changed: bool = True
    spec_changed: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What of a kind is in a namespace: how many resources, and their bytes as they are stored."""

    count: int
    size: int

    def plus(self, size: int) -> Usage:
        """One more."""
        return Usage(self.count + 1, self.size + size)


def check_room(resource: Resource, room: Room, usage: Usage, *, before: int, after: int) -> None:
    """Refuse a write that needs more than there may be.

    Parameters
    ----------
    usage
        What there is now.
    before, after
        Bytes of the resource as it is stored, 0 where it isn't, and as it would be.

    Raises
    ------
    Insufficient
        It does.
    """
    new = not before
    if after > before and ((new and usage.count >= room.count) or usage.size + after - before > room.size):
        raise full(resource, room, usage, new=new)


def full(resource: Resource, room: Room, usage: Usage, *, new: bool) -> Insufficient:
    """The error for a namespace that holds as much of a kind as it may."""
    where = resource.metadata.namespace or "The platform"
    if new and usage.count >= room.count:
        held = f"{usage.count} {resource.plural} already, and {room.count} are allowed"
    else:
        held = (
            f"{usage.count} {resource.plural} of together {usage.size} bytes already, and {room.size} bytes are allowed"
        )
    return Insufficient(f"{where} holds {held}. {room.advice}")


def match(labels: Mapping[str, str], selector: Mapping[str, str] | None) -> bool:
    """Whether all labels of the selector are there with that value."""
    return not selector or all(labels.get(key) == value for key, value in selector.items())


def check_namespace(kind: type[Resource], namespace: str | None, *, required: bool = True) -> None:
    """Refuse a namespace where the kind has none, and its absence where one is needed.

    Raises
    ------
    Invalid
        With the field's path.
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
    """The error for a resource that isn't there."""
    return NotFound(f'There is no {kind.kind_name()} "{_path(namespace, name)}".')


def already_exists(kind: type[Resource], namespace: str | None, name: str) -> AlreadyExists:
    """The error for a name that is taken."""
    path = _path(namespace, name)
    return AlreadyExists(f'There is already a {kind.kind_name()} "{path}". Change it with apply, or delete it first.')


def conflict(
    kind: type[Resource],
    namespace: str | None,
    name: str,
    why: str,
    advice: str = "Read it again and repeat the change.",
) -> Conflict:
    """The error for a write that would overwrite what the writer hasn't seen."""
    return Conflict(f'{kind.kind_name()} "{_path(namespace, name)}" {why}. {advice}')


def gone(kind: type[Resource], namespace: str | None, name: str) -> Conflict:
    """The error for what somebody read, who wants to write it after it was deleted: an exported manifest, say."""
    advice = "Leave out metadata.uid and metadata.resourceVersion to make it anew."
    return conflict(kind, namespace, name, "was deleted since it was read", advice)


def _conflict(resource: Resource, why: str) -> Conflict:
    advice = (
        "Read it again and repeat the change, or leave out metadata.uid and metadata.resourceVersion to overwrite it."
    )
    return conflict(type(resource), resource.metadata.namespace, resource.metadata.name, why, advice)


def dumped(part: Any) -> Any:
    """``spec`` or ``status`` as JSON has it, by which it is compared."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def empty_status(kind: type[Resource]) -> Any:
    """What ``status`` is before anyone wrote one."""
    return kind.model_fields["status"].get_default(call_default_factory=True)


def _check(current: Resource, wanted: Resource) -> None:
    """The writer's preconditions: the uid and resourceVersion it carries, where it carries any.

    Raises
    ------
    Conflict
        The stored one is another.
    """
    have, want = current.metadata, wanted.metadata
    if want.uid and want.uid != have.uid:
        raise _conflict(wanted, "was deleted and made anew since it was read")
    if want.resource_version and want.resource_version != have.resource_version:
        why = f"was changed since it was read (at {want.resource_version}, now {have.resource_version})"
        raise _conflict(wanted, why)


def created(resource: R) -> R:
    """A new resource: the store's own fields set, ``status`` empty, since it is written apart."""
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
    """`current` with another spec and other metadata; the finalizers decide whether it goes."""
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
    """Replace spec, merge labels and annotations, leave finalizers alone.

    Raises
    ------
    Conflict
        As for `updated`; or the resource is being deleted.
    """
    _check(current, wanted)
    if current.metadata.deletion_timestamp:
        message = f'{wanted.kind} "{wanted.key}" is being deleted. Apply it again when it is gone.'
        raise Conflict(message)
    metadata = {
        "labels": {**current.metadata.labels, **wanted.metadata.labels},
        "annotations": {**current.metadata.annotations, **wanted.metadata.annotations},
    }
    return _replaced(current, wanted.spec, metadata)


def with_status(current: R, wanted: R) -> Outcome[R]:
    """Replace ``status`` alone.

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
    """Take it away, or where finalizers hold it mark it.

    Raises
    ------
    Conflict
        `uid` is given and is not the stored one.
    """
    if uid and uid != current.metadata.uid:
        meta = current.metadata
        raise conflict(type(current), meta.namespace, meta.name, "was deleted and made anew since it was read")
    if not current.metadata.finalizers:
        return Outcome(current, removed=True)
    if current.metadata.deletion_timestamp:
        return Outcome(current, changed=False)
    metadata = current.metadata.model_copy(update={"deletion_timestamp": utcnow()})
    return Outcome(current.model_copy(update={"metadata": metadata}))
