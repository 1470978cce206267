"""Logs of the processes that run for a resource."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Protocol, cast

from llmos.errors import NotFound
from llmos.resources import Resource
from llmos_hub.backends.local.logs import read_logs
from llmos_hub.workload import WorkloadRef

__all__ = ["LocalLogReader", "ResourceLogReader", "nothing_has_run"]


class ResourceLogReader(Protocol):
    """A reader of logs, independent of the process that runs the workloads."""

    def lines(
        self, resource: Resource, *, replica: str | None, tail: int | None, follow: bool
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[str]]:
        """Provide the lines, without line ends; when following, until the workload is gone.

        Parameters
        ----------
        replica
            The id of a replica; None for all.
        tail
            Number of last lines of each replica; None for all.
        follow
            Continue with new lines as they are written.

        Raises
        ------
        NotFound
            Nothing has run for the resource yet, or the replica doesn't exist.
        """
        ...


def nothing_has_run(resource: Resource) -> NotFound:
    """Return the error for a resource that has no log yet, with its phase."""
    phase = getattr(resource.status, "phase", "")
    message = getattr(resource.status, "message", "")
    state = f" It is {phase}{': ' + message if message else '.'}" if phase else ""
    return NotFound(f"Nothing has run for {resource.metadata.name} yet, so there is no log.{state}")


class LocalLogReader:
    """A reader of the local backend's log files, in a process other than the backend's.

    Parameters
    ----------
    directory
        The backend's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.asynccontextmanager
    async def lines(
        self, resource: Resource, *, replica: str | None, tail: int | None, follow: bool
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Provide the lines; see `ResourceLogReader`. Files are closed when the context ends."""
        meta = resource.metadata
        for part in resource.log_parts:
            ref = WorkloadRef(resource.kind, meta.namespace or "", meta.name, meta.uid or "", part)
            if (self._directory / ref.id).is_dir():
                lines = read_logs(self._directory, ref, replica=replica, tail=tail, follow=follow)
                async with contextlib.aclosing(cast("AsyncGenerator[str, None]", lines)) as stream:
                    yield stream
                return
        raise nothing_has_run(resource)
