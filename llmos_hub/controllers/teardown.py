"""Deletion of workloads in the background, so that a reconcile doesn't wait for their processes to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmos_hub.backends.base import Backend
from llmos_hub.tasks import cancel
from llmos_hub.workload import WorkloadRef

__all__ = ["Teardown"]

_TIMEOUT = 120.0
"""Seconds after which a deletion fails; longer than the drain and grace period of any process."""

logger = logging.getLogger(__name__)


class Teardown:
    """The running deletions of workloads.

    Parameters
    ----------
    backend
        The backend of the workloads.
    ended
        Called with each workload whose deletion has ended or failed.
    """

    def __init__(self, backend: Backend, ended: Callable[[WorkloadRef], None]) -> None:
        self._backend = backend
        self._ended = ended
        self._tasks: dict[WorkloadRef, asyncio.Task[None]] = {}
        self._errors: dict[WorkloadRef, Exception] = {}

    def busy(self, ref: WorkloadRef) -> bool:
        """Return whether a workload is being deleted."""
        return ref in self._tasks

    def begin(self, ref: WorkloadRef) -> None:
        """Start deleting a workload unless it is being deleted.

        Raises
        ------
        BackendFailed
            The last attempt failed (raised once; the next call tries again).
        """
        if ref in self._tasks:
            return
        if error := self._errors.pop(ref, None):
            raise error
        self._tasks[ref] = asyncio.create_task(self._delete(ref), name=f"delete {ref.id}")

    async def _delete(self, ref: WorkloadRef) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._backend.delete(ref)
        except Exception as error:  # noqa: BLE001 - raised by the next `begin`
            logger.warning("%s/%s: its %s processes can't be stopped: %s", ref.namespace, ref.name, ref.part, error)
            self._errors[ref] = error
        finally:
            self._tasks.pop(ref, None)
        self._ended(ref)

    async def close(self) -> None:
        """Stop waiting; unfinished deletions are found again at the next start."""
        await cancel(*self._tasks.values())
        self._tasks.clear()  # one that was cancelled before it began didn't remove itself
