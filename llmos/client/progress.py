"""How far a ModelService is on its way to Ready: pure, from what a watch shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from llmos.resources import ModelService
from llmos.resources.base import condition
from llmos.resources.modelservice import DownloadProgress

__all__ = ["Progress", "ProgressTracker"]

_UNSEEN_AFTER = 10.0
"""Seconds after which it is worth saying that no controller has taken the service up."""
_REFUSALS = frozenset({"InsufficientResources", "Invalid", "Unsupported", "DownloadFailed"})
"""Reasons of a service's condition ``Ready`` for which a changed spec is not followed: waiting helps nothing."""
_SETTLED_AFTER = 60.0
"""Seconds after which a service that answers with fewer replicas than wanted is left at that."""


@dataclass(frozen=True)
class Progress:
    """Where a ModelService stands.

    Attributes
    ----------
    name, namespace
        Which service.
    phase
        ``status.phase``; ``Pending`` as long as the status speaks of an older spec.
    message
        The reason, in a sentence; may be empty.
    started, phase_started
        When the waiting began, and when this phase was first seen.
    changed
        When this was seen.
    download
        Bytes, while files are fetched.
    ready, failed
        Whether the waiting is over, and how.
    log_lines
        The engine's last words, when it failed.
    away
        A sentence while the API doesn't answer, else empty.
    resource
        The service as it was last read.
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
        """Seconds since the waiting began."""
        return (self.changed - self.started).total_seconds()

    def same_as(self, other: Progress | None) -> bool:
        """Whether there is nothing new to show."""
        return other is not None and replace(self, changed=other.changed, resource=other.resource) == other


class ProgressTracker:
    """Turns readings of one service into `Progress`.

    Parameters
    ----------
    name, namespace
        Which service.
    now
        When the waiting began.
    """

    def __init__(self, name: str, namespace: str, now: datetime) -> None:
        self._name = name
        self._namespace = namespace
        self._started = now
        self._phase = ""
        self._phase_started = now

    def see(self, service: ModelService | None, now: datetime, *, away: str = "") -> Progress:
        """The progress that a reading means.

        Parameters
        ----------
        service
            The service as it was last read; None where it was never read.
        now
            When it was read.
        away
            A sentence when it can't be read any more.
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
        return "no controller has looked at it yet; what runs is shown by: llmos status"
    return message
