"""The interface of volume providers, which hold the data of volumes.

A reconciler states what it wants and gets back what is the case; long work runs in the background, and its end is
reported through `Volumes.subscribe`, so that the resource is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

__all__ = ["Changed", "DataSource", "NoVolumes", "VolumeRef", "VolumeState", "VolumeWish", "Volumes"]


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """A reference to a volume: the namespace, name and uid of its resource.

    Attributes
    ----------
    uid
        The resource's uid, so that a reused name refers to other data.
    """

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DataSource:
    """The source that a new volume is a copy of.

    Attributes
    ----------
    kind
        ``snapshot`` or ``volume``.
    ref
        The snapshot or volume, in the same namespace.
    """

    kind: Literal["snapshot", "volume"]
    ref: VolumeRef


@dataclass(frozen=True, slots=True)
class VolumeWish:
    """The desired state of a volume.

    Attributes
    ----------
    size
        Size in bytes.
    had
        Size in bytes that it was reported to have. A volume that existed is never made again, empty, if its files are
        gone. None: it is new.
    source
        What a new one is filled with; None: it is empty.
    access_mode, storage_class
        For a cluster: whether several nodes mount it at once, and the storage class; empty: the cluster's default.
    """

    size: int
    had: int | None = None
    source: DataSource | None = None
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class VolumeState:
    """The observed state of a volume.

    Attributes
    ----------
    state
        ``Ready``; ``Working``: it is being made or filled; ``Failed``: it can't be as wished, for `reason`.
    capacity
        Size in bytes that it has; None while it can't be used.
    used
        Bytes in use, as last measured; None while it isn't known.
    reason
        One word: ``InsufficientStorage``, ``Lost``, ``Refused``, ``Provisioning``.
    message
        The reason as a sentence that says what to do.
    look_again
        Seconds after which to look again; None: when a change is reported.
    """

    state: Literal["Ready", "Working", "Failed"]
    capacity: int | None = None
    used: int | None = None
    reason: str = ""
    message: str = ""
    look_again: float | None = None


Changed = Callable[[VolumeRef], None]
"""A function that is called with a volume whose state may have changed; from the event loop."""


class Volumes(Protocol):
    """A provider of volumes."""

    def subscribe(self, changed: Changed) -> None:
        """Call `changed` when background work for a volume has ended."""
        ...

    async def ensure(self, ref: VolumeRef, wish: VolumeWish) -> VolumeState:
        """Bring a volume closer to what is wished, and return what it is; idempotent."""
        ...

    def source(self, ref: VolumeRef) -> str:
        """Return what `llmos_hub.workload.Mount` calls the source: a directory, or the name of a claim."""
        ...

    async def snapshot(self, ref: VolumeRef, volume: VolumeRef) -> VolumeState:
        """Bring a snapshot of a volume closer to being whole; `VolumeState.used` is its size then."""
        ...

    async def restore(self, volume: VolumeRef, snapshot: VolumeRef, request: str, wish: VolumeWish) -> VolumeState:
        """Bring a volume closer to holding what a snapshot holds; nothing uses the volume meanwhile."""
        ...

    async def delete_snapshot(self, ref: VolumeRef) -> bool:
        """Delete a snapshot; returns False while that is under way."""
        ...

    async def hide(self, ref: VolumeRef) -> None:
        """Take a volume that rests after its deletion out of servers' reach, as far as that needs something done."""
        ...

    async def delete(self, ref: VolumeRef) -> bool:
        """Delete a volume with its files; returns False while that is under way."""
        ...

    async def close(self) -> None:
        """Stop what runs in the background; it is found again and continued at the next start."""
        ...


_NONE: Final = VolumeState("Failed", reason="Unsupported", message="This platform holds no volumes.")


class NoVolumes:
    """A provider where there is none: every volume fails with the reason."""

    def subscribe(self, changed: Changed) -> None:
        """Do nothing: nothing changes."""

    async def ensure(self, ref: VolumeRef, wish: VolumeWish) -> VolumeState:  # noqa: ARG002 - the protocol's
        """Return the reason."""
        return _NONE

    async def snapshot(self, ref: VolumeRef, volume: VolumeRef) -> VolumeState:  # noqa: ARG002 - the protocol's
        """Return the reason."""
        return _NONE

    async def restore(self, volume: VolumeRef, snapshot: VolumeRef, request: str, wish: VolumeWish) -> VolumeState:  # noqa: ARG002 - likewise
        """Return the reason."""
        return _NONE

    async def delete_snapshot(self, ref: VolumeRef) -> bool:  # noqa: ARG002 - the protocol's
        """Return True, as there is nothing to delete."""
        return True

    def source(self, ref: VolumeRef) -> str:
        """Return nothing that could be mounted."""
        return ref.name

    async def hide(self, ref: VolumeRef) -> None:
        """Do nothing."""

    async def delete(self, ref: VolumeRef) -> bool:  # noqa: ARG002 - the protocol's
        """Return True, as there is nothing to delete."""
        return True

    async def close(self) -> None:
        """Do nothing."""
