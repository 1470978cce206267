"""The interface of backends, which run workloads.

A backend does for a workload what a Deployment does in Kubernetes: it is responsible for the number of replicas,
rollouts, restart back-off and health. Reconcilers only `apply` and `observe`. One contract suite
(``tests/support/backend_contract.py``) tests every backend.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmos_hub.sources.base import FetchProgress, ModelFiles
from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["Backend", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """The last that a job has reported of each type.

    Attributes
    ----------
    progress
        The progress of a download.
    files
        The downloaded model.
    code, message
        The error, for programs and for people.
    info
        The current activity, if it is not a download.
    """

    progress: FetchProgress | None = None
    files: ModelFiles | None = None
    code: str = ""
    message: str = ""
    info: str = ""


class Backend(Protocol):
    """A backend, which runs workloads; they continue when the process that holds this object ends."""

    async def start(self) -> None:
        """Start: find workloads that are already running and adopt them."""
        ...

    async def apply(self, workload: Workload) -> None:
        """Set the desired state of a workload, without waiting until it is reached.

        Applying the same workload again changes nothing. A changed template is rolled out: if there are several
        replicas, a new one has to be ready before an old one is stopped. A changed count scales the workload. The
        replicas of a role that is started after others wait with the reason ``Dependency``.

        Raises
        ------
        Unsupported
            The backend can't run a workload of this operator.
        BackendFailed
            The workload can't be recorded, for example because the disk is full, or can't run as its user. Failures
            of its processes are not raised but observed.
        """
        ...

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        """Return the current state of a workload from memory, without waiting; None if it doesn't exist."""
        ...

    async def refs(self) -> Sequence[WorkloadRef]:
        """Return all workloads, so that those whose resource is gone can be deleted."""
        ...

    def logs(
        self, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield lines of the log without line ends, of one replica or of all in turn (interleaved with `follow`).

        Raises
        ------
        NotFound
            There is no such workload or replica.
        """
        ...

    async def progress(self, ref: WorkloadRef, *, replica: str | None = None) -> Report:
        """Return what a workload's job has reported; an empty report if it hasn't, or if it doesn't exist."""
        ...

    async def delete(self, ref: WorkloadRef) -> None:
        """Stop all processes of a workload, wait until they are gone, and remove its records. Idempotent.

        Those of a role that is started after others are gone before the others are stopped; each has its own grace.
        """
        ...

    def changes(self) -> AsyncIterator[WorkloadRef]:
        """Yield workloads whose observation changed, as it happens; several changes may be reported as one."""
        ...

    async def close(self, *, stop: bool = False) -> None:
        """Close the backend; the workloads continue to run, unless `stop`."""
        ...
