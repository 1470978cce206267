"""Volumes as shown in lists, with the reason below those that need attention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from llmos.present.amounts import age, duration, format_bytes
from llmos.present.fields import tone_of
from llmos.present.tables import Row, Table
from llmos.present.views import View
from llmos.resources import Volume

if TYPE_CHECKING:
    from llmos.client.progress import Progress
    from llmos.present.hints import Hints

__all__ = ["VIEW", "state_of", "volume_table"]

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


VIEW = View(table=volume_table, use=_use)
