"""The events of a ModelService, derived by comparing two statuses. Pure functions.

The old status shows which events were recorded already: those were recorded when it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmos.resources import ModelService
from llmos.resources.base import condition
from llmos.resources.modelservice import ModelServiceStatus, Phase
from llmos_hub.names import KEY_REPLICAS
from llmos_hub.workload import Observation, ReplicaState

__all__ = ["Happening", "compare", "scaled"]


_AGAIN = " again (start "


@dataclass(frozen=True, slots=True)
class Happening:
    """An event to record; the fields are those of `llmos_hub.stores.base.Event`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def compare(service: ModelService, new: ModelServiceStatus, seen: Observation | None) -> list[Happening]:
    """Return the events between the status of `service` and the new one, in order."""
    old = service.status
    return _joined(
        [
            *_spec(service, old, new),
            *_download(old, new),
            *_engine(old, new),
            *_replicas(old, new, seen),
            *_phase(old, new),
        ]
    )


def _joined(happenings: list[Happening]) -> list[Happening]:
    """Return the events without those that others of the same moment imply: each is a request, and a line to read."""
    told = {each.reason: each for each in happenings}
    accepted, chosen = told.get("Accepted"), told.get("EngineChosen")
    if accepted is not None and chosen is not None:
        happenings = [
            replace(accepted, message=f"{accepted.message} {chosen.message}") if each is accepted else each
            for each in happenings
            if each is not chosen
        ]
    if "Ready" in told:
        happenings = [each for each in happenings if each.reason != "ReplicaStarted" or _AGAIN in each.message]
    return happenings


def scaled(before: Mapping[str, str], count: int) -> list[Happening]:
    """Return the event for a changed number of replicas, compared with the workload's previous labels."""
    text = before.get(KEY_REPLICAS, "")
    if not text or text == str(count):
        return []
    return [Happening("Normal", "Scaled", f"Scaled from {text} to {count} replicas.")]


def _spec(service: ModelService, old: ModelServiceStatus, new: ModelServiceStatus) -> Iterator[Happening]:
    if service.unread:
        return  # its spec is not applied; the phase says so
    if old.observed_generation == 0:
        what = service.spec.model or "a command of one's own"
        yield Happening("Normal", "Accepted", f"Serving {what} as {service.metadata.name}.")
    elif new.observed_generation != old.observed_generation:
        yield Happening("Normal", "SpecChanged", f"The spec changed (generation {new.observed_generation}).")
    if new.phase == "Paused" and old.phase != "Paused":
        yield Happening("Normal", "Paused", new.message)
    elif old.phase == "Paused" and new.phase not in ("Paused", "Deleting"):
        yield Happening("Normal", "Resumed", "Starting again.")


def _download(old: ModelServiceStatus, new: ModelServiceStatus) -> Iterator[Happening]:
    before, after = condition(old.conditions, "Downloaded"), condition(new.conditions, "Downloaded")
    if after is None or (before is not None and (before.reason, before.message) == (after.reason, after.message)):
        return
    if after.reason == "Downloading":
        yield Happening("Normal", "DownloadStarted", after.message)
    elif after.reason == "Downloaded":
        yield Happening("Normal", "Downloaded", f"{after.message}.")


def _engine(old: ModelServiceStatus, new: ModelServiceStatus) -> Iterator[Happening]:
    before, after = condition(old.conditions, "ModelRecognised"), condition(new.conditions, "ModelRecognised")
    if after is not None and after.status == "True" and (before is None or before.message != after.message):
        yield Happening("Normal", "EngineChosen", f"{after.message}.")


def _replicas(old: ModelServiceStatus, new: ModelServiceStatus, seen: Observation | None) -> Iterator[Happening]:
    states: dict[str, ReplicaState] = {replica.id: replica for replica in seen.replicas} if seen else {}
    known = {replica.id: replica for replica in old.replica_statuses}
    for replica in new.replica_statuses:
        before = known.get(replica.id)
        state = states.get(replica.id)
        if replica.restarts > (before.restarts if before else 0):
            reason = (state.reason if state else "") or "Crashed"
            yield Happening("Warning", reason, replica.message or f"{replica.id} crashed and was started again.")
        elif (
            state is not None
            and state.reason == "InsufficientMemory"
            and not (before and before.message == replica.message)
        ):
            yield Happening("Warning", state.reason, replica.message)
        if replica.started_at is not None and replica.started_at != (before.started_at if before else None):
            again = f"{_AGAIN}{replica.restarts + 1})" if replica.restarts else ""
            yield Happening("Normal", "ReplicaStarted", f"{replica.id} was started{again}.")


_TOLD: Mapping[Phase, tuple[Literal["Normal", "Warning"], str]] = {
    "Degraded": ("Warning", "Degraded"),
    "Failed": ("Warning", "Failed"),
    "Deleting": ("Normal", "Deleting"),
}


def _phase(old: ModelServiceStatus, new: ModelServiceStatus) -> Iterator[Happening]:
    if new.phase == old.phase:
        return
    if new.phase == "Ready":
        first = new.ready_at is not None and new.ready_at != old.ready_at and new.started_at is not None
        took = f" after {(new.ready_at - new.started_at).total_seconds():.1f} s" if first else ""  # type: ignore[operator]
        count = new.ready_replicas
        yield Happening(
            "Normal", "Ready", f"{count} replica{'s' if count != 1 else ''} answer{'' if count != 1 else 's'}{took}."
        )
    elif new.phase in _TOLD:
        type_, reason = _TOLD[new.phase]
        yield Happening(type_, reason, new.message)
