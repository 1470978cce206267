"""The status of a volume, from its spec and what its provider found. Pure functions."""

from __future__ import annotations

from datetime import datetime

from llmos.resources import Condition, Volume
from llmos.resources.base import set_condition
from llmos.resources.quantities import format_bytes
from llmos.resources.volume import VolumePhase, VolumeStatus
from llmos_hub.volumes.base import VolumeState

__all__ = ["make_status"]


def make_status(volume: Volume, state: VolumeState | None, now: datetime) -> VolumeStatus:
    """Return the status.

    Parameters
    ----------
    volume
        The volume, with its status until now.
    state
        What the provider found; None while the volume rests after its deletion.
    now
        The current time.
    """
    old = volume.status
    phase, reason, message = _phase(volume, state)
    capacity, used = old.capacity, old.used
    if state is not None:
        capacity = state.capacity if state.capacity is not None else old.capacity
        used = state.used if state.used is not None else old.used
    ready = Condition(
        type="Ready",
        status="True" if phase in {"Ready", "Full"} else "False",
        reason=reason,
        message=message,
        last_transition_time=now,
    )
    return VolumeStatus(
        phase=phase,
        message=message,
        observed_generation=volume.metadata.generation,
        conditions=set_condition(old.conditions, ready),
        capacity=capacity,
        restored=old.restored,
        used=used,
        measured_at=now if used != old.used else old.measured_at,
    )


def _phase(volume: Volume, state: VolumeState | None) -> tuple[VolumePhase, str, str]:
    """Return the phase, the reason as one word, and as a sentence."""
    if state is None:
        undo = volume.undo.format(name=volume.metadata.name)
        return "Deleted", "Deleted", f"It was deleted; its files stay for now. To have it again: llmos {undo}"
    if state.state == "Failed":
        usable = state.capacity is not None
        return "Degraded" if usable else "Failed", state.reason, state.message
    if state.state == "Working":
        phase: VolumePhase = "Copying" if state.reason == "Copying" else "Pending"
        return phase, state.reason or "Provisioning", state.message
    if state.capacity is not None and state.used is not None and state.used > state.capacity:
        message = (
            f"It holds {format_bytes(state.used)} and was made for {format_bytes(state.capacity)}: the disk is shared with "
            f"others. Remove files, or grow it: llmos volume grow {volume.metadata.name} SIZE"
        )
        return "Full", "Full", message
    return "Ready", "Ready", ""
