"""The context of workloads' processes, on this machine or in pods: where model files are, what a machine has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmos.resources.workload import Resources
from llmos_hub.engines.base import Machine
from llmos_hub.workload import WorkloadRef

__all__ = ["Layout", "WorkloadContext"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The file layout that a workload's process finds.

    The interpreter is not part of it: the backend replaces this process's own in a command by the image's.

    Attributes
    ----------
    models
        The directory of model files.
    per_namespace
        True in a cluster: there each namespace has its own volume under the same path, which the controllers can't read.
        On a workstation all share one directory, except for models fetched with a Credential.
    """

    models: Path
    per_namespace: bool

    def directory(self, namespace: str, *, private: bool) -> Path:
        """Return the cache directory of a model; a `private` one was fetched with a Credential of its namespace."""
        if self.per_namespace:
            return self.models
        return self.models / "private" / namespace if private else self.models / "shared"


@dataclass(frozen=True, slots=True)
class WorkloadContext:
    """The context of workloads' processes, on this machine or in a cluster.

    Attributes
    ----------
    layout
        The place of model files.
    machine
        Returns the largest machine for a process with these resources.
    selector
        Returns the label selector of a workload's pods; empty if there are no pods.
    """

    layout: Layout
    machine: Callable[[Resources], Machine]
    selector: Callable[[WorkloadRef], str] = lambda _: ""
