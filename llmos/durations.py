"""Durations in a readable form, in a module without dependencies."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Format a duration in one unit, for ages.

    >>> [duration(s) for s in (0.4, 59, 60, 3599, 7200, 100_000, 200_000)]
    ['0 s', '59 s', '1 min', '59 min', '2 h', '27 h', '2 d']
    """
    seconds = max(0, int(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"
