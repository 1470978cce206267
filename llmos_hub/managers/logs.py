"""Logs of what runs for a resource."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final, Protocol, cast

from llmos.errors import NotFound
from llmos.resources import Resource
from llmos_hub.backends.local.logs import read_logs
from llmos_hub.workload import WorkloadRef

__all__ = ["LOG_PARTS", "LocalLogReader", "LogReader", "nothing_has_run"]

LOG_PARTS: Final = ("serve", "fetch")
"""Where to look for a log: of the engine, and before there is one, of the download."""


class LogReader(Protocol):
    """Reads logs, without any part in the running of what writes them."""

    def lines(
        self, resource: Resource, *, replica: str | None, tail: int | None, follow: bool
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[str]]:
        """The lines, without line ends; when following, until the workload is gone.

        Parameters
        ----------
        replica
            The id of one; None: all.
        tail
            How many of the last lines of each replica; None: all there are.
        follow
            Go on with what is written from now on.

        Raises
        ------
        NotFound
            Nothing has run for it yet, or there is no such replica.
        """
        ...


def nothing_has_run(resource: Resource) -> NotFound:
    """The error for a resource that has no log yet, with how it stands."""
    phase = getattr(resource.status, "phase", "")
    message = getattr(resource.status, "message", "")
    state = f" It is {phase}{': ' + message if message else '.'}" if phase else ""
    return NotFound(f"Nothing has run for {resource.metadata.name} yet, so there is no log.{state}")


class LocalLogReader:
    """Reads the local backend's files, from another process than the one that runs the backend.

    Parameters
    ----------
    directory
        The backend's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.asynccontextmanager
    async def lines(
        self, resource: Resource, *, replica: str | None, tail: int | None, follow: bool
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines; see `LogReader`. Files are closed when the context ends."""
        meta = resource.metadata
        for part in LOG_PARTS:
            ref = WorkloadRef(resource.kind, meta.namespace or "", meta.name, meta.uid or "", part)
            if (self._directory / ref.id).is_dir():
                lines = read_logs(self._directory, ref, replica=replica, tail=tail, follow=follow)
                async with contextlib.aclosing(cast("AsyncGenerator[str, None]", lines)) as stream:
                    yield stream
                return
        raise nothing_has_run(resource)
