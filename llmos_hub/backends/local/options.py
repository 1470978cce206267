"""The local backend's settings, each with its unit and reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """Timeouts and limits of the local backend.

    Attributes
    ----------
    drain
        Seconds between the end of a replica's readiness and its SIGTERM: long enough for the reconciler to write the
        endpoints and for every gateway to see them.
    back_off_first, back_off_limit
        Seconds before the first restart after a crash, and the maximum; doubled each time in between.
    back_off_reset
        Seconds that a replica must run before its earlier crashes are forgotten.
    missing_retry
        Seconds until a missing program is looked for again: somebody may install it.
    first_probe
        Seconds between readiness probes right after the start; a model in the page cache loads in tenths of a second.
        The pause grows with the time waited, so that probing delays a start by a twentieth at most.
    memory_period
        Seconds between two readings of the memory of all replicas.
    memory_retry
        Seconds until a replica that waits for memory checks again.
    memory_news
        Minimum seconds between two notifications of changed memory usage alone.
    log_bytes
        Size in bytes at which a replica's log is rotated; one older file is kept, so twice that is used on disk.
    lock_timeout
        Seconds to wait for an earlier controller to release the directory.
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
