"""Where model files are for the processes that use them: here, or in pods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmos.resources import ModelService
from llmos_hub.names import DataDir

__all__ = ["Layout", "cluster_layout", "local_layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a process finds where it runs.

    Its interpreter is not among it: a command that begins with this process's own is given the image's by the backend.

    Attributes
    ----------
    models
        The directory of model files.
    per_namespace
        Whether each namespace has a directory of its own there, under the same path (a volume). Else all share one
        but for what was fetched with a Credential.
    visible
        Whether the controllers see those files too.
    """

    models: Path
    per_namespace: bool
    visible: bool

    def directory(self, service: ModelService) -> Path:
        """The cache that a service's model lies in."""
        if self.per_namespace:
            return self.models
        if service.spec.credential_ref is None:
            return self.models / "shared"
        return self.models / "private" / (service.metadata.namespace or "")


def local_layout(data_dir: DataDir) -> Layout:
    """The data directory's models."""
    return Layout(data_dir.models, per_namespace=False, visible=True)


def cluster_layout(models: Path) -> Layout:
    """Pods: the volume of their namespace, mounted there."""
    return Layout(models, per_namespace=True, visible=False)
