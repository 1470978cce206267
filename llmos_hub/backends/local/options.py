"""The local backend's settings, each with its unit and why it is what it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much.

    Attributes
    ----------
    drain
        Seconds between a replica's leaving the ready ones and its SIGTERM: long enough for the reconciler
        to write the endpoints and for every gateway to have seen it.
    back_off_first, back_off_limit
        Seconds before the first restart after a crash, and at most; doubled each time in between.
    back_off_reset
        Seconds that a replica must run for its earlier crashes to be forgotten.
    missing_retry
        Seconds until a program that isn't there is looked for again: somebody may install it.
    first_probe
        Seconds between readiness probes right after the start; a model from the page cache loads in tenths
        of a second. Grows with the time waited, so that probing delays a start by a twentieth at most.
    memory_period
        Seconds between two looks at the memory of all replicas.
    memory_retry
        Seconds until a replica that waits for memory looks again.
    memory_news
        Seconds at least between two notices that nothing but memory use changed.
    log_bytes
        Size at which a replica's log is rotated; one older file is kept, so twice that is on disk.
    lock_timeout
        Seconds to wait for an earlier controller to let go of the directory.
    """

    drain: float = 1.0
    back_off_first: float = 1.0
    back_off_limit: float = 60.0
    back_off_reset: float = 60.0
    missing_retry: float = 60.0
    first_probe: float = 0.05
    memory_period: float = 1.0
    memory_retry: float = 1.0
    memory_news: float = 5.0
    log_bytes: int = 10_000_000
    lock_timeout: float = 5.0
