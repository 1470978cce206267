"""What there is to compute on: the machines, what is free and what runs there.

Nodes are read, never written: they are no kind, and nothing of them is stored.
"""

from __future__ import annotations

from pydantic import Field

from llmos.resources.base import API_VERSION, Model

__all__ = ["Node", "NodeList", "NodeWork"]


class NodeWork(Model):
    """Something that runs on a node."""

    kind: str
    """``ModelService``, ``Server`` (a notebook server), ``Download``, ``System``, ``Other``."""
    namespace: str
    """Whose it is."""
    name: str
    """The resource's or the pod's name."""
    cpus: float = 0.0
    """CPUs set aside for it."""
    memory: int = 0
    """Bytes set aside for it; on a workstation those it uses."""
    gpus: int = 0
    """GPUs it has for itself."""


class Node(Model):
    """One machine."""

    name: str
    """As the cluster calls it; on a workstation its host name."""
    roles: list[str] = Field(default_factory=list)
    """``control-plane``, ``worker`` or what else it is labelled with."""
    ready: bool = True
    """Whether new work may be put there."""
    message: str = ""
    """Why not, or what is unusual about it."""
    architecture: str = ""
    """``amd64``, ``arm64``."""
    cpus: float = 0.0
    """CPUs for work."""
    cpus_free: float = 0.0
    """Of these not set aside."""
    memory: int = 0
    """Bytes for work."""
    memory_free: int = 0
    """Of these not set aside."""
    gpus: int = 0
    """GPUs for work."""
    gpus_free: int = 0
    """Of these not set aside."""
    gpu_type: str = ""
    """The kind of GPU; what ``spec.resources.gpuType`` asks for."""
    counts: dict[str, int] = Field(default_factory=dict)
    """How much of each kind runs there."""
    running: list[NodeWork] = Field(default_factory=list)
    """What runs there, as far as the reader may know: admins everything, others what is in their namespace."""


class NodeList(Model):
    """All machines."""

    api_version: str = API_VERSION
    """The version of the form."""
    kind: str = "NodeList"
    """What this is."""
    items: list[Node] = Field(default_factory=list)
    """By name."""
