"""Times, sizes and rates in a readable form."""

from __future__ import annotations

from datetime import datetime

from llmos.durations import duration
from llmos.errors import add_sentence
from llmos.present.text import clean
from llmos.resources.quantities import format_bytes
from llmos.resources.workload import DownloadProgress

__all__ = [
    "age",
    "done_of",
    "download_state",
    "duration",
    "format_bytes",
    "memory_of",
    "rate",
    "stopwatch",
    "time_left",
    "with_next_try",
]


def stopwatch(seconds: float) -> str:
    """Format a duration precisely, for results.

    >>> [stopwatch(s) for s in (0.42, 23.84, 75, 3700)]
    ['0.4 s', '23.8 s', '1 min 15 s', '1 h 1 min']
    """
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def age(since: datetime | None, now: datetime) -> str:
    """Format the time since a moment, or return ``-``."""
    return duration((now - since).total_seconds()) if since is not None else "-"


def with_next_try(message: str, at: datetime | None, now: datetime) -> str:
    """Add the time of the next attempt, if there is one, to the message of a failure."""
    if at is None:
        return message
    seconds = (at - now).total_seconds()
    said = f"Next try in {duration(seconds + 0.5)}." if seconds > 0 else "Trying again now."
    return add_sentence(message, said)


def done_of(done: int, total: int | None) -> str:
    """Format the progress of a download in one unit, at a constant width while it changes.

    >>> done_of(1_400_000_000, 2_500_000_000), done_of(7_000_000, 93_000_000), done_of(512, None)
    ('1.4 of 2.5 GB', ' 7 of 93 MB', '512 B')
    """
    if not total:
        return format_bytes(done, binary=False)
    whole, unit = format_bytes(total, binary=False).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    digits = 1 if "." in whole else 0
    return f"{min(done, total) / factor:.{digits}f}".rjust(len(whole)) + f" of {whole} {unit}"


def rate(bytes_per_second: float | None) -> str:
    """Format a rate in bytes per second; empty if unknown.

    >>> rate(58_200_000), rate(None)
    ('58 MB/s', '')
    """
    return f"{format_bytes(bytes_per_second, binary=False)}/s" if bytes_per_second else ""


def time_left(done: int, total: int | None, bytes_per_second: float | None) -> str:
    """Format the estimated remaining time of a download; empty if unknown.

    >>> time_left(1_400_000_000, 2_500_000_000, 58_000_000)
    '19 s left'
    """
    if not total or not bytes_per_second or done >= total:
        return ""
    return f"{duration((total - done) / bytes_per_second + 0.5)} left"


def download_state(load: DownloadProgress) -> str:
    """Format the progress of a download: file, amount, rate and remaining time, as far as they are known."""
    left = time_left(load.done, load.total, load.rate)
    parts = (clean(load.file), done_of(load.done, load.total), rate(load.rate), left)
    return "   ".join(part for part in parts if part)


def memory_of(used: int | None, limit: int | None) -> str:
    """Format memory in use and its limit.

    >>> memory_of(int(2.9 * 2**30), 4 * 2**30), memory_of(246 * 2**20, 2**30), memory_of(None, None)
    ('2.9/4 GiB', '0.24/1 GiB', '-')
    """
    if used is None:
        return "-"
    if not limit:
        return format_bytes(used)
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if limit >= factor:
            return f"{_short(used / factor)}/{_short(limit / factor)} {unit}"
    return f"{used}/{limit} B"


def _short(number: float) -> str:
    digits = 0 if number >= 100 else 1 if number >= 1 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
