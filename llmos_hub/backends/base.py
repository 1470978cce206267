"""What every backend does, wherever it runs workloads.

A backend is the small Deployment: it owns count, rollout, restart back-off and health. Reconcilers only
`apply` and `observe`. One contract suite (``tests/support/backend_contract.py``) holds each to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["Backend"]


class Backend(Protocol):
    """Runs workloads; processes go on when the one that holds this object dies."""

    async def start(self) -> None:
        """Take charge: find what still runs from before and adopt it."""
        ...

    async def apply(self, workload: Workload) -> None:
        """Make it so, without waiting: the same again changes nothing; a changed template is rolled out,
        one new replica ready before an old one goes, when there is more than one; a changed count scales.

        Raises
        ------
        BackendFailed
            It can't be recorded (disk full, say). What is wrong with the processes is observed, not raised.
        """
        ...

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        """How it is now, from memory, without waiting; None where there is no such workload."""
        ...

    async def refs(self) -> Sequence[WorkloadRef]:
        """Every workload there is: those whose resource is gone are to be deleted."""
        ...

    def logs(
        self, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
    ) -> AsyncIterator[str]:
        """Lines of the log without line ends, of one replica or of all one after the other (following: mixed).

        Raises
        ------
        NotFound
            There is no such workload or replica.
        """
        ...

    async def delete(self, ref: WorkloadRef) -> None:
        """Stop all its processes, wait until they are gone, and remove what is kept of it. Idempotent."""
        ...

    def changes(self) -> AsyncIterator[WorkloadRef]:
        """Workloads whose observation changed, as it happens; several changes at once may come as one."""
        ...

    async def close(self, *, stop: bool = False) -> None:
        """Let go; everything goes on running, unless `stop`."""
        ...
