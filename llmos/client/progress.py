"""The progress of a ModelService on its way to Ready, derived from a watch. Does no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from llmos.resources import ModelService
from llmos.resources.base import condition
from llmos.resources.modelservice import DownloadProgress

__all__ = ["Progress", "ProgressTracker"]

_UNSEEN_AFTER = 10.0
"""Seconds after which the message says that no controller has handled the service yet."""
_REFUSALS = frozenset({"InsufficientResources", "Invalid", "Unsupported", "DownloadFailed"})
"""Reasons of the condition ``Ready`` for which a changed spec is not rolled out: waiting doesn't help."""
_SETTLED_AFTER = 60.0
"""Seconds after which waiting ends for a service that has fewer ready replicas than wanted."""


@dataclass(frozen=True)
class Progress:
    """The progress of a ModelService at one moment.

    Attributes
    ----------
    name, namespace
        The service.
    phase
        ``status.phase``; ``Pending`` while the status is about an older spec.
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
        Last lines of the engine's log after a failure.
    away
        A sentence while the API doesn't respond, else empty.
    resource
        The service as last read.
    """

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
    resource: ModelService | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since waiting began."""
        return (self.changed - self.started).total_seconds()

    def same_as(self, other: Progress | None) -> bool:
        """Return whether there is nothing new to show compared with `other`."""
        return other is not None and replace(self, changed=other.changed, resource=other.resource) == other


class ProgressTracker:
    """A converter of successive readings of one service into `Progress` objects.

    Parameters
    ----------
    name, namespace
        The service.
    now
        Time when waiting began.
    """

    def __init__(self, name: str, namespace: str, now: datetime) -> None:
        self._name = name
        self._namespace = namespace
        self._started = now
        self._phase = ""
        self._phase_started = now

    def see(self, service: ModelService | None, now: datetime, *, away: str = "") -> Progress:
        """Return the progress at a reading.

        Parameters
        ----------
        service
            The service as last read; None if it was never read.
        now
            Time of the reading.
        away
            A sentence if the service can't be read at present.
        """
        current = service is not None and service.status.observed_generation >= service.metadata.generation
        phase = service.status.phase if service is not None and current else "Pending"
        if service is not None and service.metadata.deletion_timestamp is not None:
            phase = "Deleting"
        if phase != self._phase:
            self._phase, self._phase_started = phase, now
        status = service.status if service is not None and current else None
        verdict = condition(status.conditions, "Ready") if status is not None and phase == "Degraded" else None
        refused = verdict is not None and verdict.reason in _REFUSALS
        in_phase = (now - self._phase_started).total_seconds()
        return Progress(
            name=self._name,
            namespace=self._namespace,
            phase=phase,
            message=_message(status.message if status else "", phase, in_phase, seen=status is not None),
            started=self._started,
            phase_started=self._phase_started,
            changed=now,
            download=status.download if status and phase == "Downloading" else None,
            ready=phase == "Ready" or (phase == "Degraded" and not refused and in_phase >= _SETTLED_AFTER),
            failed=phase in {"Failed", "Paused", "Deleting"} or refused,
            log_lines=tuple(status.last_log_lines) if status and phase == "Failed" else (),
            away=away,
            resource=service,
        )


def _message(message: str, phase: str, seconds: float, *, seen: bool) -> str:
    if not seen and phase == "Pending" and seconds >= _UNSEEN_AFTER:
        return "no controller has handled it yet; look with: llmos status"
    return message
