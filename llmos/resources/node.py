"""The nodes with their capacity and what runs there.

Nodes are read-only: they are no kind of `KINDS`, and nothing about them is stored.
"""

from __future__ import annotations

from pydantic import Field

from llmos.resources.base import API_VERSION, Model

__all__ = ["Node", "NodeList", "NodeWork"]


class NodeWork(Model):
    """A workload on a node."""

    kind: str
    """Kind of its resource, or ``Server`` (a notebook server), ``Download``, ``System``, ``Other``."""
    namespace: str
    """Namespace of the workload."""
    name: str
    """Name of the resource or pod."""
    cpus: float = 0.0
    """CPUs requested by it."""
    memory: int = 0
    """Bytes of memory requested by it; on a workstation the bytes in use."""
    gpus: int = 0
    """GPUs assigned to it."""


class Node(Model):
    """A machine that runs workloads."""

    name: str
    """Name of the node in the cluster; on a workstation the host name."""
    roles: list[str] = Field(default_factory=list)
    """``control-plane``, ``worker`` or other roles from its labels."""
    ready: bool = True
    """True if new work may be scheduled there."""
    message: str = ""
    """Reason why it isn't ready, or another remark."""
    architecture: str = ""
    """``amd64``, ``arm64``."""
    cpus: float = 0.0
    """CPUs available to workloads."""
    cpus_free: float = 0.0
    """CPUs that no workload has requested."""
    memory: int = 0
    """Bytes of memory available to workloads."""
    memory_free: int = 0
    """Bytes of memory that no workload has requested."""
    gpus: int = 0
    """GPUs available to workloads."""
    gpus_free: int = 0
    """GPUs that aren't assigned."""
    gpu_type: str = ""
    """Type of GPU, for ``spec.resources.gpuType``."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Number of workloads by kind."""
    running: list[NodeWork] = Field(default_factory=list)
    """Workloads on the node that the reader may see: all for admins, otherwise those in the reader's namespaces."""


class NodeList(Model):
    """The list of all nodes."""

    api_version: str = API_VERSION
    """API version of this list."""
    kind: str = "NodeList"
    """Kind of this list."""
    items: list[Node] = Field(default_factory=list)
    """The nodes, ordered by name."""
