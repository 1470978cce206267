"""The progress of a resource on its way to ready, derived from a watch. Does no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from llmos.errors import LLMOSError
from llmos.resources import MAIN_KIND, Resource
from llmos.resources.base import condition
from llmos.resources.workload import DownloadProgress

__all__ = ["Progress", "ProgressTracker", "failure", "spelled", "too_slow"]

_UNSEEN_AFTER = 10.0
"""Seconds after which the message says that no controller has handled the resource yet."""
_SETTLED_AFTER = 60.0
"""Seconds after which waiting ends for a resource that is ready in part only."""


@dataclass(frozen=True)
class Progress:
    """The progress of a resource at one moment.

    Attributes
    ----------
    kind, name, namespace
        The resource.
    phase
        ``status.phase``; the kind's first phase while the status is about an older spec.
    message
        The reason, in a sentence; may be empty.
    started, phase_started
        Time when waiting began, and when this phase was first seen.
    changed
        Time of this reading.
    download
        Progress of the download, while files are downloaded.
    ready, failed
        Whether waiting is over, with success or without.
    log_lines
        Last lines of its processes' log after a failure.
    away
        A sentence while the API doesn't respond, else empty.
    resource
        The resource as last read.
    """

    kind: type[Resource]
    name: str
    namespace: str
    phase: str
    message: str
    started: datetime
    phase_started: datetime
    changed: datetime
    download: DownloadProgress | None = None
    ready: bool = False
    failed: bool = False
    log_lines: tuple[str, ...] = ()
    away: str = ""
    resource: Resource | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since waiting began."""
        return (self.changed - self.started).total_seconds()

    def same_as(self, other: Progress | None) -> bool:
        """Return whether there is nothing new to show compared with `other`."""
        return other is not None and replace(self, changed=other.changed, resource=other.resource) == other


class ProgressTracker:
    """A converter of successive readings of one resource into `Progress` objects.

    Parameters
    ----------
    kind, name, namespace
        The resource; its kind has phases.
    now
        Time when waiting began.
    """

    def __init__(self, kind: type[Resource], name: str, namespace: str, now: datetime) -> None:
        self._kind = kind
        self._name = name
        self._namespace = namespace
        self._started = now
        self._phase = ""
        self._phase_started = now

    def see(self, resource: Resource | None, now: datetime, *, away: str = "") -> Progress:
        """Return the progress at a reading.

        Parameters
        ----------
        resource
            The resource as last read; None if it was never read.
        now
            Time of the reading.
        away
            A sentence if the resource can't be read at present.
        """
        current = resource is not None and resource.status.observed_generation >= resource.metadata.generation
        status = resource.status if resource is not None and current else None
        phase = status.phase if status is not None else next(iter(self._kind.phases))
        deleted = resource is not None and resource.metadata.deletion_timestamp is not None
        if deleted:
            phase = "Deleting"
        if phase != self._phase:
            self._phase, self._phase_started = phase, now
        meaning = self._kind.phases.get(phase, "working")
        ready = condition(status.conditions, "Ready") if status is not None and meaning == "degraded" else None
        refused = ready is not None and ready.reason in self._kind.refusals
        in_phase = (now - self._phase_started).total_seconds()
        return Progress(
            kind=self._kind,
            name=self._name,
            namespace=self._namespace,
            phase=phase,
            message=_message(status.message if status else "", in_phase, seen=status is not None or deleted),
            started=self._started,
            phase_started=self._phase_started,
            changed=now,
            download=getattr(status, "download", None) if phase == "Downloading" else None,
            ready=meaning == "ready" or (meaning == "degraded" and not refused and in_phase >= _SETTLED_AFTER),
            failed=meaning in {"failed", "stopped"} or refused or deleted,
            log_lines=tuple(getattr(status, "last_log_lines", ())) if meaning == "failed" else (),
            away=away,
            resource=resource,
        )


def failure(progress: Progress) -> LLMOSError:
    """Return the error for a resource that won't become ready by itself."""
    name, kind = progress.name, progress.kind
    meaning = kind.phases.get(progress.phase)
    if meaning == "stopped":
        again = f"Start it with: llmos start {spelled(kind, name)}"
        if not kind.pausable and kind.undo:
            again = f"To have it again: llmos {kind.undo.format(name=name)}"
        return kind.not_ready(f"{name} is {progress.phase.lower()}. {again}")
    if progress.resource is not None and progress.resource.metadata.deletion_timestamp is not None:
        return kind.not_ready(f"{name} is being deleted.")
    reason = (progress.message or "without a reason given").rstrip(".")
    what = "did not change" if meaning == "degraded" else "failed"
    return kind.not_ready(f"{name} {what}: {reason}. More: llmos describe {kind.singular} {name}")


def too_slow(progress: Progress, timeout: float) -> LLMOSError:
    """Return the error for a resource that isn't ready after `timeout` seconds."""
    state = f"{progress.phase}: {progress.message}" if progress.message else progress.phase
    look = "ps" if progress.kind is MAIN_KIND else f"get {spelled(progress.kind, progress.name)}"
    return progress.kind.not_ready(
        f"{progress.name} is not ready after {timeout:.0f} s ({state}). It continues by itself; look with: llmos {look}"
    )


def spelled(kind: type[Resource], name: str) -> str:
    """Return the resource as given on the command line: without its kind if that is the one meant anyway."""
    return name if kind is MAIN_KIND else f"{kind.singular}/{name}"


def _message(message: str, seconds: float, *, seen: bool) -> str:
    if not seen and seconds >= _UNSEEN_AFTER:
        return "no controller has handled it yet; look with: llmos status"
    return message
