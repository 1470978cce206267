"""Volumes as shown in lists, with the reason below those that need attention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from llmos.present.amounts import age, duration, format_bytes, stopwatch
from llmos.present.fields import tone_of
from llmos.present.tables import Row, Table
from llmos.present.text import Line, clean, line
from llmos.present.views import View
from llmos.resources import Volume

if TYPE_CHECKING:
    from llmos.client.progress import Progress
    from llmos.client.transfers import FileInfo, Transfer
    from llmos.present.hints import Hints

__all__ = ["VIEW", "TransferView", "file_table", "state_of", "volume_table"]

_SHOWN_EVERY = 0.5
"""Seconds between two readings of a transfer."""
_TELLING = frozenset({"Full", "Degraded", "Failed"})


def state_of(volume: Volume, now: datetime) -> str:
    """Return the phase; of a deleted volume also how long it rests."""
    if volume.metadata.deletion_timestamp is not None:
        return "Deleting"
    if (until := volume.rests_until) is not None:
        return f"Deleted ({duration((until - now).total_seconds())} left)"
    if volume.status.observed_generation < volume.metadata.generation:
        return "Pending"
    return volume.status.phase


def volume_table(volumes: Sequence[Volume], *, now: datetime, namespaces: bool = False) -> Table:
    """Return a table of volumes with size, space in use and state, and reasons below some rows.

    Parameters
    ----------
    volumes
        The volumes.
    now
        The current time, for ages.
    namespaces
        Whether to show a column with the namespaces.
    """
    rows = []
    for volume in volumes:
        state, used = state_of(volume, now), volume.status.used
        cells = [
            volume.metadata.name,
            format_bytes(volume.spec.size_bytes),
            format_bytes(used) if used is not None else "-",
            state,
            age(volume.metadata.creation_timestamp, now),
        ]
        if namespaces:
            cells.insert(0, volume.metadata.namespace or "")
        reason = volume.status.message if state in _TELLING else ""
        rows.append(Row(cells, {"STATE": tone_of(Volume, state.split()[0])}, reason))
    headings = ["NAME", "SIZE", "USED", "STATE", "AGE"]
    return Table(
        ["NAMESPACE", *headings] if namespaces else headings,
        rows,
        empty="There are no volumes here yet. Make one with: llmos volume create data 10Gi",
        elastic=("NAME",),
    )


def _use(progress: Progress, hints: Hints) -> str:
    return f"files: {hints.command} volume ls {progress.name}"


def file_table(entries: Sequence[FileInfo], *, now: datetime) -> Table:
    """Return a table of files with size and age; directories end with ``/``."""
    rows = [
        Row(
            [
                clean(entry.name) + ("/" if entry.type == "directory" else ""),
                format_bytes(entry.size, binary=False) if entry.type == "file" else entry.type,
                age(entry.modified, now),
            ]
        )
        for entry in entries
    ]
    return Table(["NAME", "SIZE", "AGE"], rows, empty="It is empty.", elastic=("NAME",))


class TransferView:
    """The line that shows how far a transfer is; it is shown again at most twice a second."""

    def __init__(self) -> None:
        self._line, self._until = "", 0.0

    def seen(self, transfer: Transfer, seconds: float) -> None:
        """Take the progress of a transfer that began so many seconds ago."""
        if seconds < self._until and transfer.done < transfer.total:
            return
        self._until = seconds + _SHOWN_EVERY
        done, total = (format_bytes(size, binary=False) for size in (transfer.done, transfer.total))
        parts = [clean(transfer.file), f"{done} of {total}"]
        if transfer.files_total > 1:
            parts.append(f"{transfer.files} of {transfer.files_total} files")
        if seconds > 1:
            speed = max(1.0, transfer.done / seconds)
            parts += [
                f"{format_bytes(speed, binary=False)}/s",
                f"{stopwatch((transfer.total - transfer.done) / speed)} left",
            ]
        self._line = "   ".join(parts)

    def lines(self, *, now: datetime, width: int | None = None) -> list[Line]:  # noqa: ARG002 - the protocol's
        """Return the line."""
        return [line(self._line)]


VIEW = View(table=volume_table, use=_use)
